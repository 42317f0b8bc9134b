//! `[director]`: layer 4 in the kernel, and the services it spreads.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::super::node::{Entry, Node};
use super::listen::place_of;
use super::walk::{Fields, Walk};
use super::{Named, named, table_place};
use crate::model::Fault;
use crate::model::director::{
    Conduct, Director, Family, Flags, FlowTimeouts, Forwarding, Method, OnDown, Persistence, Protocol, Scheduler,
    Service, ServiceKey,
};

/// `p2c` is what others call `twos`.
const SCHEDULERS: [&str; 15] =
    ["rr", "wrr", "lc", "wlc", "sed", "nq", "sh", "dh", "mh", "lblc", "lblcr", "fo", "ovf", "twos", "p2c"];
const FLAGS: [&str; 4] = ["sh-fallback", "sh-port", "mh-fallback", "mh-port"];

pub fn read(walk: &Walk<'_>, entry: &Entry, mentioned: &mut Vec<Named>) -> Option<Director> {
    let mut fields = Fields::of(walk, &entry.node, "[director]")?;
    let mut director = Director {
        interfaces: Vec::new(),
        services: Vec::new(),
        timeouts: FlowTimeouts::default(),
        flows: Director::FLOWS,
        pin: PathBuf::from(Director::PIN),
        place: table_place(walk, entry),
    };
    if let Some(entry) = fields.get("interfaces") {
        let names = walk.list(&entry.node).into_iter().filter_map(|node| interface(walk, node));
        director.interfaces = names.collect();
    }
    if let Some(entry) = fields.get("flows") {
        let (least, most) = (u64::from(Director::FLOWS_LEAST), u64::from(Director::FLOWS_MOST));
        let flows = walk.integer(&entry.node, "flows", least, most).and_then(|flows| u32::try_from(flows).ok());
        director.flows = flows.unwrap_or(director.flows);
    }
    if let Some(entry) = fields.get("timeouts") {
        timeouts(walk, entry, &mut director.timeouts);
    }
    if let Some(entry) = fields.get("pin")
        && let Some(text) = walk.text(&entry.node, "pin")
    {
        director.pin = PathBuf::from(text);
        let last = director.pin.file_name().and_then(|name| name.to_str()).unwrap_or(".");
        if !director.pin.is_absolute()
            || director.pin.starts_with("/sys/fs/bpf") && text.contains('.')
            || last.contains('.')
        {
            let fault =
                walk.error("R0117", &entry.node, format!("pin \"{text}\" cannot be a folder of a BPF file system"));
            walk.push(fault.help("name it from the root, without a dot: for example \"/sys/fs/bpf/reeve\""));
        }
    }
    let tables = named(walk, fields.get("service"), "director.service");
    for entry in tables {
        let Some(service) = service(walk, entry, mentioned) else { continue };
        if let Some(first) = director.services.iter().find(|first| first.key == service.key) {
            let message = format!("{} is a service twice", service.key);
            walk.push(Fault::error("R0121", service.place, message).also(first.place.clone(), "first here"));
        } else {
            director.services.push(service);
        }
    }
    if director.services.len() > Director::SERVICES {
        let message = format!("{} services are more than the director has room for", director.services.len());
        let fault = Fault::error("R0110", director.place.clone(), message);
        walk.push(fault.allowed([format!("up to {}", Director::SERVICES)]));
    }
    fields.finish();
    Some(director)
}

/// Linux: at most 15 bytes, without `/` and white space.
fn interface(walk: &Walk<'_>, node: &Node) -> Option<Arc<str>> {
    let text = walk.text(node, "interfaces")?;
    if text.len() > 15 || text.contains(|c: char| c == '/' || c.is_whitespace()) {
        let fault = walk.error("R0117", node, format!("\"{text}\" cannot be the name of an interface"));
        walk.push(fault.help("`ip link` shows their names"));
        return None;
    }
    Some(text.into())
}

fn timeouts(walk: &Walk<'_>, entry: &Entry, timeouts: &mut FlowTimeouts) {
    let Some(mut fields) = Fields::of(walk, &entry.node, "[director] timeouts") else { return };
    let all = [("tcp", &mut timeouts.tcp), ("tcpfin", &mut timeouts.tcpfin), ("udp", &mut timeouts.udp)];
    for (key, timeout) in all {
        if let Some(seconds) = fields.get(key).and_then(|entry| seconds(walk, &entry.node, key)) {
            *timeout = seconds;
        }
    }
    fields.finish();
}

/// A time that IPVS could have: whole seconds, at least one.
fn seconds(walk: &Walk<'_>, node: &Node, name: &str) -> Option<u32> {
    let time = walk.duration(node, name, false)?;
    if time > Director::LONGEST || time < Duration::from_secs(1) || time.subsec_nanos() != 0 {
        let fault = walk.error("R0110", node, format!("{name} is out of range, or has parts of a second"));
        walk.push(fault.allowed(["1s to 31d"]));
        return None;
    }
    u32::try_from(time.as_secs()).ok()
}

fn service(walk: &Walk<'_>, entry: &Entry, mentioned: &mut Vec<Named>) -> Option<Service> {
    let title = format!("[director.service.{}]", entry.key);
    let mut fields = Fields::of(walk, &entry.node, title.clone())?;
    let protocol = fields.get("protocol").and_then(|entry| walk.word(&entry.node, "protocol", &["tcp", "udp", "sctp"]));
    let protocol = match protocol {
        Some("udp") => Protocol::Udp,
        Some("sctp") => Protocol::Sctp,
        _ => Protocol::Tcp,
    };
    let key = key(walk, &mut fields, protocol);
    let scheduler = fields.get("scheduler").map(|entry| (entry, walk.word(&entry.node, "scheduler", &SCHEDULERS)));
    let scheduler = match scheduler {
        Some((_, Some("p2c"))) => Scheduler::Twos,
        Some((_, word)) => word.and_then(Scheduler::of).unwrap_or(Scheduler::Wlc),
        None => Scheduler::Wlc,
    };
    let mut conduct = Conduct {
        scheduler,
        flags: Flags::default(),
        persistence: None,
        one_packet: false,
        forwarding: Forwarding::default(),
        on_down: OnDown::default(),
    };
    if let Some(entry) = fields.get("flags") {
        for node in walk.list(&entry.node) {
            flag(walk, node, &mut conduct);
        }
    }
    if let Some(entry) = fields.get("one-packet") {
        conduct.one_packet = walk.boolean(&entry.node, "one-packet").unwrap_or(false);
        if conduct.one_packet && !matches!(key, None | Some(ServiceKey::Mark { .. })) && protocol != Protocol::Udp {
            let fault = walk.error("R0125", &entry.node, "one-packet is for services of UDP and of marks only");
            walk.push(fault.help("write protocol = \"udp\""));
        }
    }
    let family = key.map_or(Family::Ipv4, |key| key.family());
    if let Some(entry) = fields.get("persistence") {
        let held = seconds(walk, &entry.node, "persistence");
        let mask = Persistence::mask(family, family.bits());
        conduct.persistence = held.map(|seconds| Persistence { seconds, mask });
    }
    if let Some(entry) = fields.get("persistence-mask") {
        match (mask(walk, &entry.node, family), &mut conduct.persistence) {
            (Some(mask), Some(persistence)) => persistence.mask = mask,
            (Some(_), None) => {
                let fault = walk.error("R0125", &entry.node, "persistence-mask means nothing without \"persistence\"");
                walk.push(fault.help("for example persistence = \"5m\""));
            }
            (None, _) => {}
        }
    }
    if let Some(word) = word(&mut fields, "forwarding", &Forwarding::WORDS) {
        conduct.forwarding = Forwarding::of(word).unwrap_or_default();
    }
    if let Some(word) = word(&mut fields, "on-down", &OnDown::WORDS) {
        conduct.on_down = OnDown::of(word).unwrap_or_default();
    }
    let method = word(&mut fields, "method", &Method::WORDS).and_then(Method::of).unwrap_or(Method::Nat);
    let mut methods = Vec::new();
    let marked = matches!(key, Some(ServiceKey::Mark { .. }));
    if let Some(entry) = fields.get("methods") {
        for entry in walk.entries(&entry.node, "methods").unwrap_or_default() {
            let word = walk.word(&entry.node, "method", &Method::WORDS);
            methods.extend(word.and_then(Method::of).map(|method| (entry.key.as_str().into(), method)));
        }
    }
    let any_nat = method == Method::Nat || methods.iter().any(|(_, method)| *method == Method::Nat);
    if conduct.one_packet && marked && any_nat {
        let message =
            format!("{title} is by mark, of one packet each and by nat: answers would not be known as its own");
        walk.push(
            Fault::error("R0125", table_place(walk, entry), message)
                .help("method = \"dr\" or \"tun\"; or leave out one-packet"),
        );
    }
    let mut pool = None;
    if let Some(entry) = fields.require("pool", "its servers are those of a pool") {
        pool = walk.text(&entry.node, "pool").map(Arc::from);
        mentioned.extend(walk.text(&entry.node, "pool").map(|text| place_of(walk, &entry.node, text)));
    }
    if let Some(ServiceKey::Address { address, .. }) = key
        && address.port() == 0
        && conduct.persistence.is_none()
    {
        let message = format!("{title} is for every port, which needs \"persistence\": a client's ports go together");
        walk.push(Fault::error("R0125", table_place(walk, entry), message).help("for example persistence = \"5m\""));
    }
    fields.finish();
    let (key, pool) = (key?, pool?);
    let unbuilt = if protocol == Protocol::Sctp && matches!(key, ServiceKey::Address { .. }) {
        Some("protocol \"sctp\"".to_owned())
    } else if !conduct.scheduler.is_built() {
        Some(format!("scheduler \"{}\"", conduct.scheduler.word()))
    } else {
        None
    };
    if let Some(what) = unbuilt {
        walk.not_built(&entry.node.origin, format_args!("director.service.{}: {what}", entry.key));
        return None;
    }
    let name = entry.key.as_str().into();
    Some(Service { name, key, conduct, method, methods, pool, place: table_place(walk, entry) })
}

fn word(fields: &mut Fields<'_, '_, '_>, key: &'static str, allowed: &[&'static str]) -> Option<&'static str> {
    let entry = fields.get(key)?;
    fields.walk.word(&entry.node, key, allowed)
}

/// `address`, or `fwmark` with the `family` of its packets.
fn key(walk: &Walk<'_>, fields: &mut Fields<'_, '_, '_>, protocol: Protocol) -> Option<ServiceKey> {
    let mark = fields.get("fwmark");
    let family = word(fields, "family", &["ipv4", "ipv6"]);
    if let Some(mark) = mark {
        let address = fields.get("address");
        if let Some(address) = address {
            let message = "\"address\" and \"fwmark\" exclude each other";
            let fault = Fault::error("R0124", walk.place(&address.key_origin), message);
            walk.push(fault.also(walk.place(&mark.key_origin), "the other one"));
        }
        let mark = walk.integer(&mark.node, "fwmark", 1, u64::from(u32::MAX))?;
        let family = if family == Some("ipv6") { Family::Ipv6 } else { Family::Ipv4 };
        return u32::try_from(mark).ok().map(|mark| ServiceKey::Mark { mark, family });
    }
    if family.is_some() {
        fields.misplaced("family", "an address says its family itself; it belongs to \"fwmark\"");
    }
    let entry = fields.require("address", "for example address = \"203.0.113.10:53\"; or fwmark = 7")?;
    // Port 0 is every port here, and no port that the kernel picks.
    let every = walk.string(&entry.node, "address").and_then(|text| text.parse::<SocketAddr>().ok());
    let address = match every.filter(|address| address.port() == 0) {
        Some(address) => Some(address),
        None => walk.listen_address(&entry.node, "address"),
    }?;
    if address.ip().is_unspecified() || address.ip().is_multicast() {
        let fault =
            walk.error("R0112", &entry.node, format!("address \"{address}\" is not one address of this machine"));
        walk.push(fault.help("name the virtual address itself"));
        return None;
    }
    Some(ServiceKey::Address { protocol, address })
}

fn flag(walk: &Walk<'_>, node: &Node, conduct: &mut Conduct) {
    let Some(word) = walk.word(node, "flags", &FLAGS) else { return };
    let (scheduler, what) = word.split_once('-').unwrap_or((word, ""));
    if scheduler != conduct.scheduler.word() {
        let message = format!("{word} means nothing to scheduler \"{}\"", conduct.scheduler.word());
        walk.push(walk.error("R0125", node, message).help(format!("write scheduler = \"{scheduler}\"")));
    }
    match what {
        "fallback" => conduct.flags.fallback = true,
        _ => conduct.flags.port = true,
    }
}

/// Bits, or a mask as IPVS's users write it.
fn mask(walk: &Walk<'_>, node: &Node, family: Family) -> Option<IpAddr> {
    let text = walk.string(node, "persistence-mask")?;
    let bits = text.trim_start_matches('/').parse::<u8>().ok().filter(|bits| (1..=family.bits()).contains(bits));
    let quad = || text.parse::<Ipv4Addr>().ok().filter(|mask| family == Family::Ipv4 && mask.to_bits() != 0);
    let found = bits.map(|bits| Persistence::mask(family, bits)).or_else(|| quad().map(IpAddr::V4));
    if found.is_none() {
        let fault = walk.error("R0113", node, format!("persistence-mask \"{text}\" is no mask"));
        walk.push(fault.allowed(match family {
            Family::Ipv4 => vec!["255.255.255.0", "24"],
            Family::Ipv6 => vec!["64"],
        }));
    }
    found
}

#[cfg(test)]
mod tests {
    use crate::config::load_text;
    use crate::model::Severity;

    #[test]
    fn what_could_not_work_is_an_error() {
        let pool = "[pool.web]\nservers = [\"[2001:db8::1]:80\"]\n";
        let all = [
            ("pin = \"bpf/reeve\"", "cannot be a folder of a BPF file system"),
            ("pin = \"/sys/fs/bpf/a.b\"", "cannot be a folder of a BPF file system"),
            ("[director.service.web]\naddress = \"192.0.2.1:80\"\npool = \"web\"", "another family"),
            (
                "[director.service.web]\nfwmark = 7\nfamily = \"ipv6\"\npool = \"web\"\none-packet = true",
                "answers would not be known",
            ),
        ];
        for (text, wanted) in all {
            let faults = load_text("reeve.toml", &format!("{pool}[director]\n{text}\n")).faults;
            assert!(faults.iter().any(|fault| fault.message.contains(wanted)), "{text}: {faults:?}");
        }
        let good = "pin = \"/run/reeve-bpf\"\n[director.service.web]\naddress = \"192.0.2.1:80\"\npool = \"web\"\nmethod = \"tun\"";
        let faults = load_text("reeve.toml", &format!("{pool}[director]\n{good}\n")).faults;
        assert!(faults.iter().all(|fault| fault.severity != Severity::Error), "{faults:?}");
    }
}
