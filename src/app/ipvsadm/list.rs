//! What `ipvsadm -L` and `-S` print, to the byte.

use std::cmp::Ordering;
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

use super::address::Names;
use super::parse::{Listing, Mode};
use crate::model::director::{Conduct, Family, Flags, Method, Persistence, Protocol, Scheduler, ServiceKey};
use crate::state::director::{Counted, FlowReport, Rates, ServerReport, ServiceReport};
use crate::sys::names;

const VERSION: &str = "IP Virtual Server version 1.2.1 (size=4096)\n";

/// How addresses and ports are shown.
pub enum Shown {
    Numbers,
    /// By the names that the machine knows for them.
    Names(Names),
}

impl Shown {
    pub fn new(numeric: bool) -> Shown {
        if numeric { Shown::Numbers } else { Shown::Names(Names::read()) }
    }

    fn endpoint(&self, address: SocketAddr, protocol: Protocol) -> String {
        let Shown::Names(ports) = self else { return address.to_string() };
        let host = names::host(address.ip()).unwrap_or_else(|| address.ip().to_string());
        let port = address.port().to_string();
        let port = ports.of(address.port(), protocol).unwrap_or(&port);
        match address.ip() {
            IpAddr::V4(_) => format!("{host}:{port}"),
            IpAddr::V6(_) => format!("[{host}]:{port}"),
        }
    }

    /// IPv4 names have room for so many characters only.
    fn cut(&self, address: SocketAddr, protocol: Protocol, most: usize) -> String {
        let name = self.endpoint(address, protocol);
        if address.is_ipv4() { name.chars().take(most).collect() } else { name }
    }

    fn service(&self, key: &ServiceKey) -> String {
        match key {
            ServiceKey::Address { protocol, address } => {
                format!("{:<4} {}", protocol.word().to_uppercase(), self.cut(*address, *protocol, 33))
            }
            // As a signed number, as ipvsadm has it.
            ServiceKey::Mark { mark, family: Family::Ipv4 } => format!("FWM  {}", mark.cast_signed()),
            ServiceKey::Mark { mark, family: Family::Ipv6 } => format!("FWM  {} IPv6", mark.cast_signed()),
        }
    }
}

/// The whole of `-L`.
pub fn table(services: &[ServiceReport], listing: &Listing, shown: &Shown) -> String {
    let mut out = if listing.only.is_some() { String::new() } else { VERSION.to_owned() };
    out += titles(listing.mode);
    for service in ordered(services, listing.sorted) {
        self::service(&mut out, service, listing, shown);
    }
    out
}

fn titles(mode: Mode) -> &'static str {
    match mode {
        Mode::Plain => {
            "Prot LocalAddress:Port Scheduler Flags\n  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn\n"
        }
        Mode::Stats => {
            "Prot LocalAddress:Port               Conns   InPkts  OutPkts  InBytes OutBytes\n  -> RemoteAddress:Port\n"
        }
        Mode::Rate => {
            "Prot LocalAddress:Port                 CPS    InPPS   OutPPS    InBPS   OutBPS\n  -> RemoteAddress:Port\n"
        }
        Mode::Thresholds => {
            "Prot LocalAddress:Port            Uthreshold Lthreshold ActiveConn InActConn \n  -> RemoteAddress:Port\n"
        }
        Mode::PersistentConn => {
            "Prot LocalAddress:Port            Weight    PersistConn ActiveConn InActConn \n  -> RemoteAddress:Port\n"
        }
        Mode::TunInfo => {
            "Prot LocalAddress:Port Scheduler Flags\n  -> RemoteAddress:Port           Forward TunnelInfo    Weight ActiveConn InActConn\n"
        }
    }
}

fn service(out: &mut String, service: &ServiceReport, listing: &Listing, shown: &Shown) {
    let name = shown.service(&service.key);
    match listing.mode {
        Mode::Stats => {
            let _ = writeln!(out, "{name:<33}{}", counted(&service.counted, listing.exact));
        }
        Mode::Rate => {
            let _ = writeln!(out, "{name:<33}{}", rates(&service.rates, listing.exact));
        }
        _ => {
            let _ = writeln!(out, "{name} {}", conduct(&service.conduct));
        }
    }
    let protocol = match service.key {
        ServiceKey::Address { protocol, .. } => protocol,
        ServiceKey::Mark { .. } => Protocol::Tcp,
    };
    for server in ordered_servers(&service.servers, listing.sorted) {
        self::server(out, server, listing, &shown.cut(server.address, protocol, 28));
    }
}

fn server(out: &mut String, server: &ServerReport, listing: &Listing, name: &str) {
    let ServerReport { weight, upper, lower, active, inactive, persistent, .. } = server;
    let method = method(server.method);
    // Writing to a string cannot fail.
    let _ = match listing.mode {
        Mode::Plain => writeln!(out, "  -> {name:<28} {method:<7} {weight:<6} {active:<10} {inactive:<10}"),
        Mode::Stats => writeln!(out, "  -> {name:<28}{}", counted(&server.counted, listing.exact)),
        Mode::Rate => {
            let Rates { connections, packets_in, packets_out, bytes_in, bytes_out } = server.rates;
            let bytes = large(bytes_in, listing.exact) + &large(bytes_out, listing.exact);
            writeln!(out, "  -> {name:<28} {connections:>8} {packets_in:>8} {packets_out:>8}{bytes}")
        }
        Mode::Thresholds => writeln!(out, "  -> {name:<28} {upper:<10} {lower:<10} {active:<10} {inactive:<10}"),
        Mode::PersistentConn => {
            writeln!(out, "  -> {name:<28} {weight:<9} {persistent:<11} {active:<10} {inactive:<10}")
        }
        Mode::TunInfo => {
            let tunnel = if server.method == Method::Tun { "ipip" } else { "n/a" };
            writeln!(out, "  -> {name:<28} {method:<7} {tunnel:<13} {weight:<6} {active:<10} {inactive:<10}")
        }
    };
}

fn method(method: Method) -> &'static str {
    match method {
        Method::Nat => "Masq",
        Method::Dr => "Route",
        Method::Tun => "Tunnel",
    }
}

/// Scheduler and flags.
fn conduct(conduct: &Conduct) -> String {
    let mut text = conduct.scheduler.word().to_owned();
    let flags = flags(conduct.scheduler, conduct.flags);
    if !flags.is_empty() {
        text += &format!(" ({flags})");
    }
    if let Some(held) = conduct.persistence {
        text += &format!(" persistent {}", held.seconds);
        if let Some(mask) = mask(&held) {
            text += &format!(" mask {mask}");
        }
    }
    if conduct.one_packet {
        text += " ops";
    }
    text
}

fn flags(scheduler: Scheduler, flags: Flags) -> String {
    let word = scheduler.word();
    let all = [(flags.fallback, "fallback"), (flags.port, "port")];
    all.iter().filter(|(has, _)| *has).map(|(_, flag)| format!("{word}-{flag}")).collect::<Vec<_>>().join(",")
}

/// A mask that is not the whole address.
fn mask(held: &Persistence) -> Option<String> {
    match held.mask {
        IpAddr::V4(mask) => (mask.to_bits() != u32::MAX).then(|| mask.to_string()),
        IpAddr::V6(_) => (held.bits() != 128).then(|| held.bits().to_string()),
    }
}

fn counted(counted: &Counted, exact: bool) -> String {
    let Counted { connections, packets_in, packets_out, bytes_in, bytes_out } = *counted;
    [connections, packets_in, packets_out, bytes_in, bytes_out].map(|number| large(number, exact)).concat()
}

fn rates(rates: &Rates, exact: bool) -> String {
    let Rates { connections, packets_in, packets_out, bytes_in, bytes_out } = *rates;
    [connections, packets_in, packets_out, bytes_in, bytes_out].map(|number| large(number, exact)).concat()
}

/// A number in nine columns.
fn large(number: u64, exact: bool) -> String {
    match number {
        _ if exact && number >= 100_000_000 => format!(" {number}"),
        _ if exact => format!("{number:>9}"),
        0..100_000_000 => format!("{number:>9}"),
        100_000_000..1_000_000_000 => format!("{:>8}K", number / 1_000),
        1_000_000_000..100_000_000_000 => format!("{:>8}M", number / 1_000_000),
        100_000_000_000..100_000_000_000_000 => format!("{:>8}G", number / 1_000_000_000),
        _ => format!("{:>8}T", number / 1_000_000_000_000),
    }
}

/// `-S`.
pub fn save(services: &[ServiceReport], shown: &Shown) -> String {
    let mut out = String::new();
    for service in ordered(services, true) {
        let (name, protocol) = match &service.key {
            ServiceKey::Address { protocol, address } => {
                let option = match protocol {
                    Protocol::Tcp => "-t",
                    Protocol::Udp => "-u",
                    Protocol::Sctp => "--sctp-service",
                };
                (format!("{option} {}", shown.cut(*address, *protocol, 33)), *protocol)
            }
            ServiceKey::Mark { mark, family } => {
                let six = if *family == Family::Ipv6 { " -6" } else { "" };
                (format!("-f {}{six}", mark.cast_signed()), Protocol::Tcp)
            }
        };
        let Conduct { scheduler, flags: own, persistence, one_packet, .. } = service.conduct;
        let _ = write!(out, "-A {name} -s {}", scheduler.word());
        if let Some(held) = persistence {
            let _ = write!(out, " -p {}", held.seconds);
            if let Some(mask) = mask(&held) {
                let _ = write!(out, " -M {mask}");
            }
        }
        if one_packet {
            out += " -o";
        }
        let flags = flags(scheduler, own);
        if !flags.is_empty() {
            let _ = write!(out, " -b {flags}");
        }
        out.push('\n');
        for server in ordered_servers(&service.servers, true) {
            let method = match server.method {
                Method::Nat => "-m",
                Method::Dr => "-g",
                Method::Tun => "-i",
            };
            let address = shown.cut(server.address, protocol, 28);
            let tunnel = if server.method == Method::Tun { " --tun-type ipip" } else { "" };
            let _ = writeln!(out, "-a {name} -r {address} {method} -w {}{tunnel}", server.weight);
        }
    }
    out
}

/// `-L -c`.
pub fn connections(flows: &[FlowReport], persistent: bool, shown: &Shown) -> String {
    let mut out =
        "IPVS connection entries\npro expire state       source             virtual            destination".to_owned();
    if persistent {
        out += "        pe name          pe_data";
    }
    out.push('\n');
    for flow in flows {
        let protocol = flow.protocol.unwrap_or(Protocol::Tcp);
        let word = flow.protocol.map_or("IP".to_owned(), |protocol| protocol.word().to_uppercase());
        let name = |address| shown.endpoint(address, protocol);
        let time = format!("{:02}:{:02}", flow.seconds / 60, flow.seconds % 60);
        let _ = writeln!(
            out,
            "{word:<3} {time:<6} {:<11} {:<18} {:<18} {}",
            flow.state,
            name(flow.client),
            name(flow.virtual_address),
            name(flow.server)
        );
    }
    out
}

fn ordered(services: &[ServiceReport], sorted: bool) -> Vec<&ServiceReport> {
    let all: Vec<_> = services.iter().collect();
    if sorted { merge_sorted(all, &|one, other| compare(&one.key, &other.key)) } else { all }
}

fn ordered_servers(servers: &[ServerReport], sorted: bool) -> Vec<&ServerReport> {
    let all: Vec<_> = servers.iter().collect();
    let by = |one: &&ServerReport, other: &&ServerReport| addresses(one.address, other.address);
    if sorted { merge_sorted(all, &by) } else { all }
}

/// As ipvsadm compares services: by mark, family, protocol, address and port.
fn compare(one: &ServiceKey, other: &ServiceKey) -> Ordering {
    let parts = |key: &ServiceKey| match key {
        ServiceKey::Mark { mark, family } => (*mark, *family, 6, None),
        ServiceKey::Address { protocol, address } => (0, Family::of(address.ip()), protocol.number(), Some(*address)),
    };
    let ((mark, family, protocol, address), (mark2, family2, protocol2, address2)) = (parts(one), parts(other));
    difference(mark, mark2).then(family.cmp(&family2)).then(protocol.cmp(&protocol2)).then_with(|| {
        match (address, address2) {
            (Some(one), Some(other)) => addresses(one, other),
            _ => Ordering::Equal,
        }
    })
}

fn addresses(one: SocketAddr, other: SocketAddr) -> Ordering {
    let words = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => vec![ip.to_bits()],
        IpAddr::V6(ip) => ip.octets().chunks(4).map(|c| u32::from_be_bytes([c[0], c[1], c[2], c[3]])).collect(),
    };
    let (left, right) = (words(one.ip()), words(other.ip()));
    let by_words = left.iter().zip(&right).map(|(one, other)| difference(*one, *other)).find(|order| order.is_ne());
    left.len().cmp(&right.len()).then(by_words.unwrap_or(Ordering::Equal)).then(one.port().cmp(&other.port()))
}

/// The sign of a difference in 32 bits, as it is in C: numbers that are far apart compare the wrong way round, which shows in
/// the order of a listing.
fn difference(one: u32, other: u32) -> Ordering {
    one.wrapping_sub(other).cast_signed().cmp(&0)
}

/// The C library's merge sort: with a comparison that contradicts itself the result depends on how it is sorted.
fn merge_sorted<T: Copy>(all: Vec<T>, compare: &impl Fn(&T, &T) -> Ordering) -> Vec<T> {
    if all.len() < 2 {
        return all;
    }
    let right = merge_sorted(all[all.len() / 2..].to_vec(), compare);
    let left = merge_sorted(all[..all.len() / 2].to_vec(), compare);
    let (mut left, mut right) = (left.into_iter().peekable(), right.into_iter().peekable());
    let mut merged = Vec::with_capacity(all.len());
    while let (Some(one), Some(other)) = (left.peek(), right.peek()) {
        let next = if compare(one, other).is_le() { left.next() } else { right.next() };
        merged.extend(next);
    }
    merged.extend(left);
    merged.extend(right);
    merged
}

#[cfg(test)]
mod tests;
