//! The PROXY protocol, versions 1 and 2: whose connection this is, said before its first byte.
//!
//! Reads what a proxy in front of us says, and writes what we say to servers. The specification is
//! HAProxy's `doc/proxy-protocol.txt`; sections are cited as PP §n.
//!
//! ```text
//! v1   PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n          one line, at most 107 bytes
//! v2   signature(12)  version|command  family|transport  length(2)  addresses  { type length(2) value }
//! ```
//!
//! Strict: one proxy's address must never come out of two readings of the same bytes, so whatever is
//! not exactly a header is refused, with the reason in [`HeaderFault`].

pub mod fuzz;
mod write;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use memchr::memchr;

use crate::model::Limits;

pub use write::{ClientCertificate, Tls, tells_of_tls, write_v1, write_v2};

/// A header that was read whole.
#[derive(Debug, Clone, Copy)]
pub struct ProxyHeader<'a> {
    /// Bytes of it; what the connection carries begins behind them.
    pub length: usize,
    pub said: Said,
    /// What else version 2 says. Empty unless it names a client.
    pub tlvs: Tlvs<'a>,
}

/// Whose connection it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// The sender's own, a health check for example.
    Local,
    /// The sender does not know, or cannot say: the connection's own addresses stand.
    Unknown,
    /// A client that came over a Unix socket, so that it has no address.
    Unix,
    /// This client's.
    Ip(Endpoints),
}

/// The two ends of a client's connection, as the first proxy saw them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoints {
    pub source: SocketAddr,
    pub destination: SocketAddr,
}

/// Why bytes are not a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderFault {
    /// Neither of the two beginnings: the connection starts without a header.
    Absent,
    /// Version 1: not one line of the right words, one blank between them.
    Line,
    /// Longer than it may be.
    TooLong,
    /// Not an address of the family that was announced.
    Address,
    /// Not a port.
    Port,
    /// Version 2: another version.
    Version,
    Command,
    /// A family or transport that does not exist.
    Family,
    /// Shorter than its addresses.
    Short,
    /// A value that ends behind the header.
    Value,
    /// The checksum is another one.
    Checksum,
}

impl HeaderFault {
    /// For the log.
    pub fn detail(self) -> &'static str {
        match self {
            HeaderFault::Absent => "the connection does not begin with a PROXY header",
            HeaderFault::Line => "the line of the PROXY header is not valid",
            HeaderFault::TooLong => "the PROXY header is too long",
            HeaderFault::Address => "an address of the PROXY header is not valid",
            HeaderFault::Port => "a port of the PROXY header is not valid",
            HeaderFault::Version => "the PROXY header is of an unknown version",
            HeaderFault::Command => "the command of the PROXY header is unknown",
            HeaderFault::Family => "the address family of the PROXY header is unknown",
            HeaderFault::Short => "the PROXY header is shorter than its addresses",
            HeaderFault::Value => "a value of the PROXY header reaches beyond its end",
            HeaderFault::Checksum => "the checksum of the PROXY header is wrong",
        }
    }
}

/// PP §2.1: the longest line, with its CRLF.
const LINE: usize = 107;
const LINE_BEGINS: &[u8] = b"PROXY ";
/// PP §2.2: no text protocol begins so.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Of version 2, before the addresses.
const FIXED: usize = 16;
/// PP §2.2.3.
const CRC32C: u8 = 0x03;
const NOOP: u8 = 0x04;

/// Reads the header that begins `bytes`. `None`: it goes on behind them; a fault shows as soon as no
/// continuation could mend it.
///
/// # Errors
/// When `bytes` do not begin with a header.
pub fn parse(bytes: &[u8]) -> Result<Option<ProxyHeader<'_>>, HeaderFault> {
    if begins(bytes, SIGNATURE) {
        version_2(bytes)
    } else if begins(bytes, LINE_BEGINS) {
        version_1(bytes)
    } else {
        Err(HeaderFault::Absent)
    }
}

/// Whether `bytes` begin so, as far as they go.
fn begins(bytes: &[u8], with: &[u8]) -> bool {
    let common = bytes.len().min(with.len());
    bytes[..common] == with[..common]
}

fn version_1(bytes: &[u8]) -> Result<Option<ProxyHeader<'_>>, HeaderFault> {
    let window = &bytes[..bytes.len().min(LINE)];
    let Some(end) = memchr(b'\r', window) else {
        // A bare LF ends no line here.
        return match memchr(b'\n', window) {
            Some(_) => Err(HeaderFault::Line),
            None if window.len() == LINE => Err(HeaderFault::TooLong),
            None => Ok(None),
        };
    };
    let line = &window[..end];
    if memchr(b'\n', line).is_some() {
        return Err(HeaderFault::Line);
    }
    match window.get(end + 1) {
        Some(b'\n') => {}
        Some(_) => return Err(HeaderFault::Line),
        None if window.len() == LINE => return Err(HeaderFault::TooLong),
        None => return Ok(None),
    }
    let said = line.get(LINE_BEGINS.len()..).ok_or(HeaderFault::Line).and_then(words)?;
    Ok(Some(ProxyHeader { length: end + 2, said, tlvs: Tlvs::default() }))
}

/// What stands behind `PROXY `.
fn words(line: &[u8]) -> Result<Said, HeaderFault> {
    // PP §2.1: what follows UNKNOWN is to be ignored.
    if line == b"UNKNOWN" || line.starts_with(b"UNKNOWN ") {
        return Ok(Said::Unknown);
    }
    let line = std::str::from_utf8(line).map_err(|_| HeaderFault::Line)?;
    let mut words = line.split(' ');
    let mut word = || words.next().ok_or(HeaderFault::Line);
    let family = word()?;
    let (source, destination, source_port, destination_port) = (word()?, word()?, word()?, word()?);
    if words.next().is_some() {
        return Err(HeaderFault::Line);
    }
    let address = |text: &str| match family {
        // Neither parser takes blanks, signs, leading zeros or zones.
        "TCP4" => text.parse::<Ipv4Addr>().map(IpAddr::V4).map_err(|_| HeaderFault::Address),
        "TCP6" => text.parse::<Ipv6Addr>().map(IpAddr::V6).map_err(|_| HeaderFault::Address),
        _ => Err(HeaderFault::Line),
    };
    Ok(Said::Ip(Endpoints {
        source: SocketAddr::new(address(source)?, port(source_port)?),
        destination: SocketAddr::new(address(destination)?, port(destination_port)?),
    }))
}

/// 0 to 65535, without leading zeros (PP §2.1).
fn port(text: &str) -> Result<u16, HeaderFault> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().map_err(|_| HeaderFault::Port) } else { Err(HeaderFault::Port) }
}

fn version_2(bytes: &[u8]) -> Result<Option<ProxyHeader<'_>>, HeaderFault> {
    let Some(&first) = bytes.get(SIGNATURE.len()) else { return Ok(None) };
    if first >> 4 != 2 {
        return Err(HeaderFault::Version);
    }
    let local = match first & 15 {
        0 => true,
        1 => false,
        _ => return Err(HeaderFault::Command),
    };
    let Some(&family) = bytes.get(13) else { return Ok(None) };
    let addresses = match family {
        // PP §2.2: of a LOCAL connection the whole rest, the family included, is skipped.
        _ if local => 0,
        0x00 => 0,
        // IPv4, IPv6 and Unix, each as stream or datagram.
        0x11 | 0x12 => 12,
        0x21 | 0x22 => 36,
        0x31 | 0x32 => 216,
        _ => return Err(HeaderFault::Family),
    };
    let (Some(&high), Some(&low)) = (bytes.get(14), bytes.get(15)) else { return Ok(None) };
    let rest = usize::from(u16::from_be_bytes([high, low]));
    let length = FIXED + rest;
    if length > Limits::PROXY_HEADER_BYTES {
        return Err(HeaderFault::TooLong);
    }
    if rest < addresses {
        return Err(HeaderFault::Short);
    }
    let Some(header) = bytes.get(..length) else { return Ok(None) };
    let (block, values) = header[FIXED..].split_at(addresses);
    let said = match family {
        _ if local => Said::Local,
        0x00 => Said::Unknown,
        0x31 | 0x32 => Said::Unix,
        _ => Said::Ip(endpoints(block)),
    };
    // Without addresses nobody says where values would begin: PP §2.2 has the rest skipped.
    let tlvs = if addresses == 0 { Tlvs::default() } else { Tlvs { rest: values } };
    check(header, tlvs)?;
    Ok(Some(ProxyHeader { length, said, tlvs }))
}

/// Two addresses and two ports: 4 or 16 bytes each, and 2.
fn endpoints(block: &[u8]) -> Endpoints {
    let (addresses, ports) = block.split_at(block.len() - 4);
    let (source, destination) = addresses.split_at(addresses.len() / 2);
    let address = |bytes: &[u8]| match (<[u8; 4]>::try_from(bytes), <[u8; 16]>::try_from(bytes)) {
        (Ok(bytes), _) => IpAddr::from(bytes),
        (_, Ok(bytes)) => IpAddr::from(bytes),
        _ => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let port = |bytes: &[u8]| bytes.iter().fold(0, |port, byte| port << 8 | u16::from(*byte));
    Endpoints {
        source: SocketAddr::new(address(source), port(&ports[..2])),
        destination: SocketAddr::new(address(destination), port(&ports[2..])),
    }
}

/// Every value lies within the header, and the checksum, where there is one, is right.
fn check(header: &[u8], tlvs: Tlvs<'_>) -> Result<(), HeaderFault> {
    let mut left = tlvs;
    let mut checked = false;
    while !left.rest.is_empty() {
        let Some((kind, value)) = left.next() else { return Err(HeaderFault::Value) };
        if kind != CRC32C {
            continue;
        }
        // Of two, neither could be computed with the other one in place.
        let Ok(told) = <[u8; 4]>::try_from(value) else { return Err(HeaderFault::Checksum) };
        let after = left.rest.len();
        let before = header.len() - after - value.len();
        // PP §2.2.4: computed with the field itself as zeros.
        let sum = crc32c(crc32c(crc32c(!0, &header[..before]), &[0; 4]), &header[header.len() - after..]);
        if checked || !sum != u32::from_be_bytes(told) {
            return Err(HeaderFault::Checksum);
        }
        checked = true;
    }
    Ok(())
}

/// Types and values, in their order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tlvs<'a> {
    rest: &'a [u8],
}

impl<'a> Tlvs<'a> {
    /// Values that came with a header and were kept.
    pub fn of(bytes: &'a [u8]) -> Tlvs<'a> {
        Tlvs { rest: bytes }
    }

    pub fn as_bytes(self) -> &'a [u8] {
        self.rest
    }

    /// Those that mean something to whoever comes next: padding means nothing, and a checksum belonged
    /// to the header it came in.
    pub fn to_pass_on(self) -> impl Iterator<Item = (u8, &'a [u8])> {
        self.filter(|(kind, _)| !matches!(*kind, CRC32C | NOOP))
    }
}

impl<'a> Iterator for Tlvs<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (&[kind, high, low], rest) = self.rest.split_first_chunk::<3>()?;
        let (value, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([high, low])))?;
        self.rest = rest;
        Some((kind, value))
    }
}

/// Castagnoli's polynomial, reflected (RFC 9260 appendix A).
const POLYNOMIAL: u32 = 0x82f6_3b78;

const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut sum = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            sum = if sum & 1 == 1 { sum >> 1 ^ POLYNOMIAL } else { sum >> 1 };
            bit += 1;
        }
        table[byte] = sum;
        byte += 1;
    }
    table
};

/// Begins with all ones, and is complemented at the end.
fn crc32c(sum: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(sum, |sum, byte| TABLE[((sum ^ u32::from(*byte)) & 0xff) as usize] ^ sum >> 8)
}

#[cfg(test)]
mod tests;
