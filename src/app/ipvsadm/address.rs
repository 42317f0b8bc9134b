//! Addresses, ports and numbers as the C library reads them, and names of services.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};

use crate::model::director::Protocol;

/// `inet_aton`: one to four parts, each decimal, octal or hexadecimal; the last fills what is left.
pub fn dotted(text: &str) -> Option<Ipv4Addr> {
    let parts: Vec<&str> = text.split('.').collect();
    let (last, front) = parts.split_last()?;
    if front.len() > 3 {
        return None;
    }
    let mut address: u32 = 0;
    for part in front {
        address = address << 8 | u32::from(u8::try_from(number_of_c(part)?).ok()?);
    }
    let bits = 32 - 8 * front.len() as u32;
    let last = number_of_c(last)?;
    if bits < 32 && last >> bits != 0 {
        return None;
    }
    Some(Ipv4Addr::from_bits(address.checked_shl(bits).unwrap_or(0) | last))
}

fn number_of_c(text: &str) -> Option<u32> {
    let (digits, radix) = match text.strip_prefix("0x").or(text.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None if text.len() > 1 && text.starts_with('0') => (&text[1..], 8),
        None => (text, 10),
    };
    let whole = !digits.is_empty() && digits.bytes().all(|byte| (byte as char).is_digit(radix));
    whole.then(|| u32::from_str_radix(digits, radix).ok()).flatten()
}

/// `strtol` in base 10 of a whole word, from `least` to `most`.
pub fn number(text: &str, least: i64, most: i64) -> Option<i64> {
    let text = text.trim_start_matches([' ', '\t', '\n', '\u{b}', '\u{c}', '\r']);
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let whole = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let value = whole.then(|| text.strip_prefix('+').unwrap_or(text).parse::<i64>().ok()).flatten()?;
    (least..=most).contains(&value).then_some(value)
}

/// `atoi`: what begins like a number is one.
pub fn leading_number(text: &str) -> i64 {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text[..end].parse().unwrap_or(0)
}

/// `host`, `host:port`, `[v6]:port` or a bare IPv6 address; port 0 where there is none. Asks the name service for a host
/// that is no address. Also whether a port was named.
pub fn host_and_port(text: &str, protocol: Protocol) -> Option<(SocketAddr, bool)> {
    // A port alone is no address, although `inet_aton` would make one of it.
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (text, given) = match text.strip_prefix('[') {
        Some(rest) => rest.split_once("]:").map(|(host, port)| (host, Some(port)))?,
        None => (text, None),
    };
    if let Ok(address) = text.parse::<Ipv6Addr>() {
        let port = given.map(|given| port(given, protocol).ok_or(())).transpose().ok()?;
        return Some((SocketAddr::new(IpAddr::V6(address), port.unwrap_or(0)), port.is_some()));
    }
    // What follows the brackets counts with an IPv6 address only.
    let (host, given) = text.rsplit_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
    let host = dotted(host).map_or_else(|| looked_up(host), Some)?;
    let port = given.map(|given| port(given, protocol).ok_or(())).transpose().ok()?;
    Some((SocketAddr::new(IpAddr::V4(host), port.unwrap_or(0)), port.is_some()))
}

/// As `-M` has it: an address, or a host that has one.
pub fn host(text: &str) -> Option<Ipv4Addr> {
    dotted(text).or_else(|| looked_up(text))
}

/// The first IPv4 address of a name.
fn looked_up(host: &str) -> Option<Ipv4Addr> {
    if host.is_empty() || host.contains(':') {
        return None;
    }
    let found = (host, 0).to_socket_addrs().ok()?;
    found.filter_map(|address| if let IpAddr::V4(address) = address.ip() { Some(address) } else { None }).next()
}

fn port(text: &str, protocol: Protocol) -> Option<u16> {
    match number(text, 0, 65_535) {
        Some(port) => u16::try_from(port).ok(),
        None => port_of(text, protocol),
    }
}

const SERVICES: &str = "/etc/services";

/// A line of `/etc/services`: name, port, protocol, other names.
fn services() -> Vec<(String, u16, String, Vec<String>)> {
    let text = std::fs::read_to_string(SERVICES).unwrap_or_default();
    let line = |line: &str| {
        let mut words = line.split('#').next()?.split_whitespace();
        let (name, number) = (words.next()?, words.next()?);
        let (port, protocol) = number.split_once('/')?;
        Some((name.to_owned(), port.parse().ok()?, protocol.to_owned(), words.map(str::to_owned).collect()))
    };
    text.lines().filter_map(line).collect()
}

fn port_of(name: &str, protocol: Protocol) -> Option<u16> {
    let services = services();
    let found = services.iter().find(|(first, _, of, others)| {
        of == protocol.word() && (first == name || others.iter().any(|other| other == name))
    });
    found.map(|(_, port, ..)| *port)
}

/// Names of ports, for a listing without `-n`.
pub struct Names(Vec<(String, u16, String, Vec<String>)>);

impl Names {
    pub fn read() -> Names {
        Names(services())
    }

    pub fn of(&self, port: u16, protocol: Protocol) -> Option<&str> {
        let found = self.0.iter().find(|(_, known, of, _)| *known == port && of == protocol.word());
        found.map(|(name, ..)| name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_as_the_c_library_reads_them() {
        for (text, address) in [
            ("1.2.3.4", Some("1.2.3.4")),
            ("1.2.3", Some("1.2.0.3")),
            ("0x7f.1", Some("127.0.0.1")),
            ("010.0.0.1", Some("8.0.0.1")),
            ("16909060", Some("1.2.3.4")),
            ("24", Some("0.0.0.24")),
            ("256.1.1.1", None),
            ("1.2.3.4.5", None),
            ("1.2.3.256", None),
            ("4294967296", None),
            ("1..2", None),
            ("09.0.0.1", None),
            ("", None),
        ] {
            assert_eq!(dotted(text).map(|address| address.to_string()).as_deref(), address, "{text}");
        }
        assert_eq!(number(" +7", 0, 9), Some(7));
        assert_eq!(number("-1", -5, 9), Some(-1));
        for wrong in ["7 ", "0x5", "", "+", "1.5", "99999999999999999999"] {
            assert_eq!(number(wrong, 0, i64::MAX), None, "{wrong}");
        }
        assert_eq!((leading_number("64x"), leading_number("abc")), (64, 0));
    }
}
