//! The other end of a tunnel: a real server opens what its director sends, and offers no more than fits into it.
//!
//! Nothing has to run for that: two programs and two maps are pinned, and stay until they are taken off.

use std::net::IpAddr;
use std::path::Path;

use super::abi::{self, DirectorKey, REAL_ANY_DIRECTOR};
use crate::sys::bpf::{self, Direction, Fault, Load, Loaded};

/// What a real server is to do at an interface.
#[derive(Debug, Clone)]
pub struct Real<'a> {
    pub interface: &'a str,
    /// Whose tunnels are opened; empty: everybody's.
    pub directors: &'a [IpAddr],
    /// The largest segments that its SYN-ACKs offer, in bytes, for IPv4 and IPv6.
    pub most: [u16; 2],
    /// A folder for a bpf file system.
    pub pins: &'a Path,
}

const PROGRAMS: [(&str, Direction); 2] = [("real_in", Direction::In), ("real_out", Direction::Out)];

/// The director's tables are in the same object, and are of no use here.
const SIZES: &[(&str, u32)] = &[
    ("services", 1),
    ("service_state", 1),
    ("servers", 1),
    ("loads", 1),
    ("statistics", 1),
    ("slots", 1),
    ("conn4", 1),
    ("conn6", 1),
    ("back4", 1),
    ("back6", 1),
    ("templates", 1),
    ("answers", 1),
    ("flows", 1),
];

/// What a tunnel of either family, with the headers of IP and TCP, leaves of a packet: for IPv4 and IPv6.
pub fn most(mtu: u16) -> [u16; 2] {
    [mtu.saturating_sub(40 + 20 + 20), mtu.saturating_sub(40 + 40 + 20)]
}

/// Opens tunnels from now on.
///
/// # Errors
/// See [`Fault`].
pub fn begin(real: &Real<'_>) -> Result<(), Fault> {
    let mut loaded = open(real.pins)?;
    let map = |name: &'static str| loaded.map(name);
    let call = |error| Fault::Call { what: "the real server's maps".to_owned(), error };
    let flags = if real.directors.is_empty() { REAL_ANY_DIRECTOR } else { 0 };
    let [mss4, mss6] = real.most.map(u32::from);
    let mut old: Vec<DirectorKey> = Vec::new();
    let directors = map("directors")?;
    directors
        .walk(|key: &DirectorKey, _: &u32| {
            old.push(*key);
            true
        })
        .map_err(call)?;
    for director in real.directors {
        let (address, family) = abi::address(*director);
        let key = DirectorKey { address, family: family.into() };
        old.retain(|old| *old != key);
        directors.put(&key, &1u32).map_err(call)?;
    }
    for key in old {
        directors.delete(&key).map_err(call)?;
    }
    let config = abi::RealServer { mss4, mss6, flags, ..abi::RealServer::default() };
    map("real_server")?.put(&0u32, &config).map_err(call)?;
    for (program, direction) in PROGRAMS {
        loaded.attach(program, real.interface, direction)?;
    }
    Ok(())
}

/// Opens no more at that interface; whether it did.
///
/// # Errors
/// See [`Fault`].
pub fn end(interface: &str, pins: &Path) -> Result<bool, Fault> {
    let mut loaded = open(pins)?;
    let mut there = false;
    for (_, direction) in PROGRAMS {
        there |= loaded.detach(interface, direction)?;
    }
    Ok(there)
}

fn open(pins: &Path) -> Result<Loaded, Fault> {
    bpf::mount(pins)?;
    Loaded::open(Load {
        object: bpf::OBJECT,
        pins: Some(pins),
        sizes: SIZES,
        programs: &PROGRAMS.map(|(name, _)| name),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_tunnel_leaves() {
        assert_eq!(most(1500), [1420, 1400]);
        assert_eq!(most(60), [0, 0]);
    }
}
