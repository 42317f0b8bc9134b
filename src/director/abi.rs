//! What the kernel's half and this half of the director tell each other, as in `bpf/abi.h`, which says what it means.
//!
//! Addresses and ports are in network order, as bytes; every other number is the machine's.

use std::net::IpAddr;
use std::time::Duration;

mod layouts;
mod numbers;

pub use layouts::*;
pub use numbers::*;

/// Of the maps' meaning; a pinned map of another version is not taken over.
pub const VERSION: u32 = 1;

/// An address as it stands in maps: an IPv4 address is the first four bytes, the others are 0.
pub type Address = [u8; 16];
/// A port in network order.
pub type Port = [u8; 2];

/// An address as maps have it, and its family.
pub fn address(ip: IpAddr) -> (Address, u8) {
    match ip {
        IpAddr::V4(ip) => {
            let mut all = [0; 16];
            all[..4].copy_from_slice(&ip.octets());
            (all, V4)
        }
        IpAddr::V6(ip) => (ip.octets(), V6),
    }
}

/// The address that maps have as `address`; `None` when the family is neither.
pub fn ip(address: Address, family: u8) -> Option<IpAddr> {
    match family {
        V4 => <[u8; 4]>::try_from(&address[..4]).ok().map(IpAddr::from),
        V6 => Some(IpAddr::from(address)),
        _ => None,
    }
}

const TICK: u32 = 22;

/// The tick of an instant of CLOCK_MONOTONIC.
pub fn tick(monotonic: Duration) -> u32 {
    (monotonic.as_nanos() >> TICK) as u32
}

/// A duration in ticks, at least 1 unless it is 0, at most 2^31 - 1 (104 days).
pub fn ticks(duration: Duration) -> u32 {
    duration.as_nanos().div_ceil(1 << TICK).min(i32::MAX as u128) as u32
}

/// How long so many ticks are.
pub fn duration(ticks: u32) -> Duration {
    Duration::from_nanos(u64::from(ticks) << TICK)
}

/// How long an entry still lives; `None` when its time is over.
pub fn left(now: u32, last: u32, timeout: u32) -> Option<Duration> {
    let idle = now.wrapping_sub(last) as i32;
    // What another CPU stamped a moment ago may lie ahead of `now`.
    let left = i64::from(timeout) - i64::from(idle);
    u32::try_from(left).ok().map(duration)
}

/// Where rr and wrr stand, in one word; see POSITION in `bpf/abi.h`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Position {
    /// 24 bits.
    pub generation: u32,
    /// wrr's current weight, 24 bits.
    pub level: u32,
    /// Index in the list at which the next look begins.
    pub next: u16,
}

impl Position {
    pub fn pack(self) -> u64 {
        u64::from(self.generation & 0xff_ffff) << 40 | u64::from(self.level & 0xff_ffff) << 16 | u64::from(self.next)
    }

    pub fn unpack(word: u64) -> Self {
        Self { generation: (word >> 40) as u32, level: (word >> 16) as u32 & 0xff_ffff, next: word as u16 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_one_word() {
        let position = Position { generation: 0xabcdef, level: 65535, next: 1023 };
        assert_eq!(Position::unpack(position.pack()), position);
        assert_eq!(position.pack(), 0xabcd_ef00_ffff_03ff);
    }

    #[test]
    fn ticks_round_up_and_wrap_right() {
        assert_eq!(ticks(Duration::ZERO), 0);
        assert_eq!(ticks(Duration::from_nanos(1)), 1);
        assert_eq!(ticks(Duration::from_secs(900)), 214_577);
        assert_eq!(left(5, u32::MAX, 10), Some(duration(4)));
        assert_eq!(left(100, 50, 49), None);
        assert_eq!(left(100, 50, 50), Some(Duration::ZERO));
        // Stamped ahead of `now`.
        assert_eq!(left(100, 101, 50), Some(duration(51)));
    }

    #[test]
    fn addresses_go_both_ways() {
        for text in ["192.0.2.1", "2001:db8::1"] {
            let there: IpAddr = text.parse().expect("an address");
            let (bytes, family) = address(there);
            assert_eq!(ip(bytes, family), Some(there));
        }
    }
}
