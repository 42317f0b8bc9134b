//! Services and servers as the tables have them, and where rr and wrr go on after a change.

use std::net::SocketAddr;
use std::time::Duration;

use super::abi::{self, Position};
use super::plan::{Server, Service, WantedService};
use super::tables::{self, Share, Wrr};
use crate::model::director::{
    Conduct, Dest, Family, Flags, Forwarding, Method, OnDown, Persistence, Protocol, Scheduler, ServiceKey,
};

/// A service's own record, but for where its lists are and where it stands.
pub fn record_of(wanted: &WantedService, id: u32) -> abi::Service {
    let Conduct { flags, persistence, one_packet, forwarding, scheduler, .. } = &wanted.conduct;
    let set = [
        (*one_packet, abi::SERVICE_ONE_PACKET),
        (flags.fallback, abi::SERVICE_FALLBACK),
        (flags.port, abi::SERVICE_HASH_PORT),
        (*forwarding == Forwarding::Stack, abi::SERVICE_STACK),
    ];
    abi::Service {
        id,
        flags: set.iter().filter(|(has, _)| *has).fold(0, |all, (_, flag)| all | flag),
        scheduler: self::scheduler(*scheduler),
        persistence: persistence.map_or(0, |held| abi::ticks(Duration::from_secs(held.seconds.into()))),
        netmask: persistence.map_or([0; 16], |held| abi::address(held.mask).0),
        ..abi::Service::default()
    }
}

pub fn scheduler(scheduler: Scheduler) -> u32 {
    match scheduler {
        Scheduler::Rr => abi::SCHEDULER_RR,
        Scheduler::Wrr => abi::SCHEDULER_WRR,
        Scheduler::Lc => abi::SCHEDULER_LC,
        Scheduler::Wlc => abi::SCHEDULER_WLC,
        Scheduler::Sed => abi::SCHEDULER_SED,
        Scheduler::Nq => abi::SCHEDULER_NQ,
        Scheduler::Fo => abi::SCHEDULER_FO,
        Scheduler::Ovf => abi::SCHEDULER_OVF,
        Scheduler::Sh => abi::SCHEDULER_SH,
        Scheduler::Dh => abi::SCHEDULER_DH,
        Scheduler::Mh => abi::SCHEDULER_MH,
        // Refused where they are read.
        Scheduler::Lblc | Scheduler::Lblcr | Scheduler::Twos => abi::SCHEDULER_NONE,
    }
}

pub fn method(method: Method) -> u8 {
    match method {
        Method::Nat => abi::METHOD_NAT,
        Method::Tun => abi::METHOD_TUN,
        Method::Dr => abi::METHOD_DR,
    }
}

/// What a record was made of; the ways that the tables do not have are the usual ones.
pub fn conduct_of(record: &abi::Service, family: Family) -> Option<Conduct> {
    let has = |flag: u32| record.flags & flag != 0;
    let word = Scheduler::WORDS.iter().filter_map(|word| Scheduler::of(word));
    let mask = abi::ip(record.netmask, if family == Family::Ipv4 { abi::V4 } else { abi::V6 });
    let seconds = u32::try_from(abi::duration(record.persistence).as_secs()).ok().filter(|seconds| *seconds > 0);
    Some(Conduct {
        scheduler: word.into_iter().find(|it| it.is_built() && scheduler(*it) == record.scheduler)?,
        flags: Flags { fallback: has(abi::SERVICE_FALLBACK), port: has(abi::SERVICE_HASH_PORT) },
        persistence: seconds.and_then(|seconds| Some(Persistence { seconds, mask: mask? })),
        one_packet: has(abi::SERVICE_ONE_PACKET),
        forwarding: if has(abi::SERVICE_STACK) { Forwarding::Stack } else { Forwarding::Fast },
        on_down: OnDown::default(),
    })
}

/// A server of a service that was added at run time, as its record has it.
pub fn dest_of(server: &Server) -> Option<Dest> {
    let method = [Method::Nat, Method::Tun, Method::Dr].into_iter().find(|it| method(*it) == server.record.method)?;
    let abi::Server { weight, upper, lower, .. } = server.record;
    Some(Dest { address: server.address, method, weight, upper, lower })
}

/// The table of sh, dh and mh, with the servers' numbers; 0: nobody.
pub fn table(wanted: &WantedService, list: &[u32]) -> Vec<u32> {
    let number = |at: usize| list.get(at).copied().unwrap_or(0);
    let servers = &wanted.servers;
    match wanted.conduct.scheduler {
        Scheduler::Sh => {
            let weights: Vec<u32> = servers.iter().map(|server| server.weight).collect();
            tables::sh(&weights).into_iter().map(number).collect()
        }
        Scheduler::Dh => tables::dh(servers.len()).into_iter().map(number).collect(),
        Scheduler::Mh if !servers.is_empty() => {
            let shares: Vec<Share> =
                servers.iter().map(|server| Share { address: server.address, weight: server.share }).collect();
            tables::mh(&shares).into_iter().map(|slot| slot.map_or(0, number)).collect()
        }
        _ => Vec::new(),
    }
}

/// Where a service stands: in the kernel's word, unless that is of an older record.
pub fn stands(record: &abi::Service, word: u64) -> Position {
    let position = Position::unpack(word);
    if position.generation == record.generation { position } else { Position::unpack(record.start) }
}

/// Where it goes on after the change, as IPVS would: rr after the server that was chosen last, wrr at the head of the list
/// with its level kept.
pub fn start(
    wanted: &WantedService,
    before: Option<&Service>,
    stood: Option<Position>,
    list: &[u32],
    old: &[(u32, u32)],
    new: &[(u32, u32)],
) -> Position {
    let same = before.is_some_and(|before| before.record.scheduler == scheduler(wanted.conduct.scheduler));
    let stood = stood.filter(|_| same);
    match wanted.conduct.scheduler {
        Scheduler::Rr => {
            let (Some(before), Some(stood)) = (before, stood) else { return Position::default() };
            let passed = before.list.iter().take(usize::from(stood.next)).rev();
            let last = passed.filter_map(|id| list.iter().position(|own| own == id)).next();
            Position { next: last.map_or(0, |at| at as u16 + 1), ..Position::default() }
        }
        Scheduler::Wrr if before.is_some() && !same => {
            let wrr = Wrr::of(new.iter().map(|(_, weight)| *weight));
            Position { level: wrr.top, ..Position::default() }
        }
        Scheduler::Wrr => {
            Position { level: level_after(old, new, stood.map_or(0, |stood| stood.level)), ..Position::default() }
        }
        _ => Position::default(),
    }
}

/// wrr's level after servers have gone, come (the oldest first) and changed, one after another.
pub fn level_after(old: &[(u32, u32)], new: &[(u32, u32)], mut level: u32) -> u32 {
    let mut list: Vec<(u32, u32)> = old.to_vec();
    let has = |list: &[(u32, u32)], id: u32| list.iter().position(|(known, _)| *known == id);
    let mut settle = |list: &[(u32, u32)]| level = Wrr::of(list.iter().map(|(_, weight)| *weight)).level(level);
    for (id, _) in old.iter().rev().filter(|(id, _)| has(new, *id).is_none()) {
        list.retain(|(known, _)| known != id);
        settle(&list);
    }
    for (id, weight) in new.iter().rev() {
        match has(&list, *id) {
            None => list.push((*id, *weight)),
            Some(at) if list[at].1 != *weight => list[at].1 = *weight,
            Some(_) => continue,
        }
        settle(&list);
    }
    level
}

/// A service's key as the tables have it.
pub fn key(key: &ServiceKey) -> abi::ServiceKey {
    match key {
        ServiceKey::Address { protocol, address: at } => {
            let (address, family) = abi::address(at.ip());
            abi::ServiceKey { address, mark: 0, port: at.port().to_be_bytes(), protocol: protocol.number(), family }
        }
        ServiceKey::Mark { mark, family } => abi::ServiceKey {
            mark: *mark,
            family: match family {
                Family::Ipv4 => abi::V4,
                Family::Ipv6 => abi::V6,
            },
            ..abi::ServiceKey::default()
        },
    }
}

pub fn key_of(key: &abi::ServiceKey) -> Option<ServiceKey> {
    if key.mark != 0 {
        let family = if key.family == abi::V6 { Family::Ipv6 } else { Family::Ipv4 };
        return Some(ServiceKey::Mark { mark: key.mark, family });
    }
    let protocol = match key.protocol {
        abi::TCP => Protocol::Tcp,
        abi::UDP => Protocol::Udp,
        _ => return None,
    };
    let address = SocketAddr::new(abi::ip(key.address, key.family)?, u16::from_be_bytes(key.port));
    Some(ServiceKey::Address { protocol, address })
}
