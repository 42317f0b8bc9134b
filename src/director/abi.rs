//! What the kernel's half and this half of the director tell each other, as in `bpf/abi.h`, which says what it means.
//!
//! Numbers before the fields are their offsets and those after the names the sizes: the compiler holds them to be so, and
//! a test compares them with what the C compiler laid out in the object. Addresses and ports are in network
//! order, as bytes; every other number is the machine's.

use std::net::IpAddr;
use std::time::Duration;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Of the maps' meaning; a pinned map of another version is not taken over.
pub const VERSION: u32 = 1;

/// An address as it stands in maps: an IPv4 address is the first four bytes, the others are 0.
pub type Address = [u8; 16];
/// A port in network order.
pub type Port = [u8; 2];

/// One field of a shared structure: its name, offset and size.
pub type Field = (&'static str, usize, usize);

macro_rules! shared {
    ($($(#[$doc:meta])* $name:ident $c_name:literal: $size:literal { $($(#[$field_doc:meta])* $at:literal => $field:ident: $type:ty,)+ })+) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
            #[repr(C)]
            pub struct $name { $($(#[$field_doc])* pub $field: $type,)+ }

            const _: () = assert!(size_of::<$name>() == $size);
            $(const _: () = assert!(std::mem::offset_of!($name, $field) == $at);)+
        )+

        /// Every shared structure: its name in C, its size and its fields.
        pub const LAYOUTS: &[(&str, usize, &[Field])] = &[
            $(($c_name, $size, &[$((stringify!($field), $at, size_of::<$type>()),)+]),)+
        ];
    };
}

shared! {
    /// Key of `services`.
    ServiceKey "service_key": 24 {
        0 => address: Address,
        /// 0, or the mark by which packets are known: then address, port and protocol are 0.
        16 => mark: u32,
        20 => port: Port,
        /// [`TCP`] or [`UDP`].
        22 => protocol: u8,
        /// [`V4`] or [`V6`].
        23 => family: u8,
    }

    /// Value of `services`.
    Service "service": 72 {
        /// Index into `service_state`, never 0.
        0 => id: u32,
        /// Raised by one with each update, modulo 2^24.
        4 => generation: u32,
        /// `SERVICE_*`.
        8 => flags: u32,
        /// `SCHEDULER_*`.
        12 => scheduler: u32,
        /// Ticks; 0: none.
        16 => persistence: u32,
        /// What of a client's address persistence goes by, in network order.
        20 => netmask: Address,
        /// Where its servers begin in `slots`, newest first.
        36 => list: u32,
        40 => count: u32,
        /// Where its table begins in `slots` (sh, dh, mh).
        44 => table: u32,
        48 => table_len: u32,
        /// wrr: the greatest common divisor of the positive weights.
        52 => step: u32,
        /// wrr: the greatest weight less (`step` - 1).
        56 => top: u32,
        60 => zero: u32,
        /// A [`Position`], with the generation above.
        64 => start: u64,
    }

    /// Value of `service_state`.
    ServiceState "service_state": 8 {
        /// A [`Position`].
        0 => position: u64,
    }

    /// Value of `servers`.
    Server "server": 56 {
        0 => address: Address,
        /// 0: the one that the client asked for.
        16 => port: Port,
        18 => family: u8,
        /// `METHOD_*`.
        19 => method: u8,
        /// The service's id.
        20 => service: u32,
        24 => weight: u32,
        /// `SERVER_*`.
        28 => flags: u32,
        32 => upper: u32,
        36 => lower: u32,
        /// tun: where the tunnel's packets come from; 0: the virtual address.
        40 => source: Address,
    }

    /// Value of `loads`.
    Load "load": 16 {
        0 => active: u32,
        4 => inactive: u32,
        /// Templates.
        8 => persistent: u32,
        /// `LOAD_*`.
        12 => flags: u32,
    }

    /// Value of `statistics`, one for each CPU.
    Statistics "statistics": 40 {
        0 => connections: u64,
        8 => packets_in: u64,
        16 => packets_out: u64,
        24 => bytes_in: u64,
        32 => bytes_out: u64,
    }

    /// Key of `conn4` (client to virtual address) and `back4` (server to client).
    Tuple4 "tuple4": 16 {
        0 => source: [u8; 4],
        4 => destination: [u8; 4],
        8 => source_port: Port,
        10 => destination_port: Port,
        12 => protocol: u8,
        13 => zero: [u8; 3],
    }

    /// Key of `conn6` and `back6`.
    Tuple6 "tuple6": 40 {
        0 => source: Address,
        16 => destination: Address,
        32 => source_port: Port,
        34 => destination_port: Port,
        36 => protocol: u8,
        37 => zero: [u8; 3],
    }

    /// Value of `conn4` and `conn6`.
    Conn "conn": 32 {
        /// Tick of the last packet.
        0 => last: u32,
        /// Ticks.
        4 => timeout: u32,
        /// Id.
        8 => server: u32,
        /// Index of `controls`; 0: no template.
        12 => control: u32,
        /// From the client.
        16 => packets: u32,
        /// Tick.
        20 => created: u32,
        /// `CONN_*`.
        24 => flags: u16,
        /// The server's.
        26 => port: Port,
        /// `TCP_*`; 0 for UDP.
        28 => state: u8,
        29 => zero: [u8; 3],
    }

    /// Value of `back4`.
    Back4 "back4": 8 {
        0 => address: [u8; 4],
        4 => port: Port,
        6 => zero: [u8; 2],
    }

    /// Value of `back6`.
    Back6 "back6": 24 {
        0 => address: Address,
        16 => port: Port,
        18 => zero: [u8; 6],
    }

    /// Key of `templates`.
    TemplateKey "template_key": 40 {
        /// Under the service's netmask.
        0 => client: Address,
        16 => address: Address,
        32 => mark: u32,
        36 => port: Port,
        38 => protocol: u8,
        39 => family: u8,
    }

    /// Value of `templates`.
    Template "template": 20 {
        /// Tick of the last new connection.
        0 => last: u32,
        /// Ticks.
        4 => timeout: u32,
        8 => server: u32,
        /// Index of `controls`.
        12 => control: u32,
        /// `TEMPLATE_*`.
        16 => flags: u32,
    }

    /// Key of `fragments`, which is the kernel's alone.
    FragmentKey "fragment_key": 40 {
        0 => source: Address,
        16 => destination: Address,
        32 => id: u32,
        36 => protocol: u8,
        37 => family: u8,
        38 => zero: [u8; 2],
    }

    /// Value of `fragments`.
    Fragment "fragment": 28 {
        0 => seen: u32,
        4 => server: u32,
        8 => flags: u16,
        10 => out: u8,
        11 => zero: u8,
        12 => address: Address,
    }

    /// Key of `answers`: a nat server of a one-packet service.
    AnswerKey "answer_key": 20 {
        0 => address: Address,
        16 => port: Port,
        18 => protocol: u8,
        19 => family: u8,
    }

    /// Value of `answers`: what its packets get as their source.
    Answer "answer": 24 {
        0 => address: Address,
        16 => port: Port,
        18 => zero: [u8; 2],
        /// Id.
        20 => server: u32,
    }

    /// Key of `flows`.
    FlowKey "flow_key": 40 {
        0 => source: Address,
        16 => destination: Address,
        32 => source_port: Port,
        34 => destination_port: Port,
        36 => protocol: u8,
        37 => family: u8,
        38 => zero: [u8; 2],
    }

    /// Value of `flows`: with what a packet leaves, and how many have.
    Flow "flow": 64 {
        0 => source: Address,
        16 => destination: Address,
        32 => source_port: Port,
        34 => destination_port: Port,
        /// `FLOW_*`.
        36 => flags: u32,
        /// Tick of the last packet; 0: none yet.
        40 => last: u32,
        44 => zero: u32,
        48 => packets: u64,
        56 => bytes: u64,
    }

    /// The value of `configuration`.
    Configuration "configuration": 88 {
        /// [`VERSION`].
        0 => version: u32,
        /// `CONFIG_*`.
        4 => flags: u32,
        /// Timeouts by state, ticks.
        8 => tcp: [u32; 16],
        72 => udp: u32,
        /// IPVS's conn_reuse_mode.
        76 => reuse_mode: u32,
        /// Of this many packets to be scheduled one is dropped; 0: none.
        80 => drop_packet: u32,
        84 => zero: u32,
    }

    /// The value of `real_server`.
    RealServer "real_server": 16 {
        0 => mss4: u32,
        4 => mss6: u32,
        /// `REAL_*`.
        8 => flags: u32,
        12 => zero: u32,
    }

    /// Key of `directors`.
    DirectorKey "director_key": 20 {
        0 => address: Address,
        16 => family: u32,
    }

    /// Head of a run of `reap`; keys follow.
    ReapRequest "reap_request": 8 {
        /// `REAP_*`.
        0 => what: u32,
        4 => count: u32,
    }
}

pub const V4: u8 = 4;
pub const V6: u8 = 6;

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;

/// Servers in the list of one service.
pub const SERVERS_PER_SERVICE: usize = 1024;

/// UDP: each packet is scheduled, no entry is made.
pub const SERVICE_ONE_PACKET: u32 = 1 << 0;
/// sh, mh: look further when the slot's server cannot be used.
pub const SERVICE_FALLBACK: u32 = 1 << 1;
/// sh, mh: the client's port is hashed too.
pub const SERVICE_HASH_PORT: u32 = 1 << 2;
/// nat: through the host's stack and firewall.
pub const SERVICE_STACK: u32 = 1 << 3;

/// Never a server.
pub const SCHEDULER_NONE: u32 = 0;
pub const SCHEDULER_RR: u32 = 1;
pub const SCHEDULER_WRR: u32 = 2;
pub const SCHEDULER_LC: u32 = 3;
pub const SCHEDULER_WLC: u32 = 4;
pub const SCHEDULER_SED: u32 = 5;
pub const SCHEDULER_NQ: u32 = 6;
pub const SCHEDULER_FO: u32 = 7;
pub const SCHEDULER_OVF: u32 = 8;
pub const SCHEDULER_SH: u32 = 9;
pub const SCHEDULER_DH: u32 = 10;
pub const SCHEDULER_MH: u32 = 11;

pub const METHOD_NAT: u8 = 0;
pub const METHOD_TUN: u8 = 2;
pub const METHOD_DR: u8 = 3;

/// Taken out of its service.
pub const SERVER_GONE: u32 = 1 << 0;
/// Taken out of its service; its connections go on, its templates do not.
pub const SERVER_LEFT: u32 = 1 << 2;
/// Its address is this machine's.
pub const SERVER_LOCAL: u32 = 1 << 1;

/// Takes no new connections until there are fewer.
pub const LOAD_OVERLOADED: u32 = 1 << 0;

/// The bits of a connection's method.
pub const CONN_METHOD: u16 = 0x7;
/// Came from a peer.
pub const CONN_SYNCED: u16 = 0x20;
/// No packet of the server has been seen.
pub const CONN_NO_OUTPUT: u16 = 0x80;
/// Counted as inactive.
pub const CONN_INACTIVE: u16 = 0x100;
/// Scheduled by mark.
pub const CONN_MARKED: u16 = 0x4000;
/// nat through the host's stack.
pub const CONN_STACK: u16 = 0x8000;

pub const TCP_NONE: u8 = 0;
pub const TCP_ESTABLISHED: u8 = 1;
pub const TCP_SYN_SENT: u8 = 2;
pub const TCP_SYN_RECV: u8 = 3;
pub const TCP_FIN_WAIT: u8 = 4;
pub const TCP_TIME_WAIT: u8 = 5;
pub const TCP_CLOSE: u8 = 6;
pub const TCP_CLOSE_WAIT: u8 = 7;
pub const TCP_LAST_ACK: u8 = 8;
pub const TCP_LISTEN: u8 = 9;
pub const TCP_SYNACK: u8 = 10;

/// A connection of the template was established; set at the first look at it after that.
pub const TEMPLATE_ASSURED: u32 = 1 << 0;
/// The same, at once, beside the count in `controls`.
pub const CONTROL_ASSURED: u32 = 1 << 31;

/// Entries of `controls`.
pub const CONTROLS: u32 = 65536;

/// The flow's packets go through the host's stack.
pub const FLOW_STACK: u32 = 1 << 0;

pub const CONFIG_EXPIRE_NODEST: u32 = 1 << 0;
pub const CONFIG_EXPIRE_QUIESCENT: u32 = 1 << 1;
pub const CONFIG_SLOPPY_TCP: u32 = 1 << 2;
pub const CONFIG_SECURE_TCP: u32 = 1 << 3;
pub const CONFIG_FLOWS: u32 = 1 << 4;
pub const CONFIG_PORT_ZERO: u32 = 1 << 5;
pub const CONFIG_MARKS: u32 = 1 << 6;
pub const CONFIG_BACKUP_ONLY: u32 = 1 << 8;
pub const CONFIG_LOCAL: u32 = 1 << 9;
pub const CONFIG_ANSWERS: u32 = 1 << 10;

/// What `counters` counts, by index; see `bpf/abi.h` for what follows from each.
pub const COUNTER_NAMES: [&str; 19] = [
    "malformed",
    "no-server",
    "gone",
    "full",
    "clash",
    "drop-packet",
    "too-big",
    "ttl",
    "no-route",
    "fragment",
    "not-syn",
    "created",
    "deleted",
    "templates-full",
    "icmp",
    "decapsulated",
    "clamped",
    "relieved",
    "unanswered",
];
/// Index of `counters`: connections put in.
pub const COUNTER_CREATED: u32 = 11;
/// Index of `counters`: connections taken out.
pub const COUNTER_DELETED: u32 = 12;

/// Tunnels of everybody are opened.
pub const REAL_ANY_DIRECTOR: u32 = 1 << 0;

pub const REAP_CONN4: u32 = 1;
pub const REAP_CONN6: u32 = 2;
pub const REAP_TEMPLATES: u32 = 3;
/// Whether it is over its time or not.
pub const REAP_FORCE: u32 = 0x100;
/// Keys in one run of `reap`.
pub const REAP_KEYS: usize = 64;

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
