//! PROXY headers as they are written.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};

use super::{Endpoints, SIGNATURE};
use crate::model::Limits;

/// Appends a header of version 1; `None` is a connection of our own.
pub fn write_v1(client: Option<Endpoints>, out: &mut Vec<u8>) {
    let Some(Endpoints { source, destination }) = client.map(alike) else {
        // PP §2.1: version 1 has no LOCAL; of UNKNOWN the receiver takes the connection's own addresses.
        out.extend_from_slice(b"PROXY UNKNOWN\r\n");
        return;
    };
    let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
    let (from, to) = (source.ip(), destination.ip());
    // Writing to a vector cannot fail.
    let _ = write!(out, "PROXY {family} {from} {to} {} {}\r\n", source.port(), destination.port());
}

/// Appends a header of version 2; `None` is a connection of our own, which has no values either.
pub fn write_v2<'v>(client: Option<Endpoints>, values: impl Iterator<Item = (u8, &'v [u8])>, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(SIGNATURE);
    let Some(Endpoints { source, destination }) = client.map(alike) else {
        // Version 2, LOCAL, no family, nothing behind.
        out.extend_from_slice(&[0x20, 0x00, 0, 0]);
        return;
    };
    out.extend_from_slice(&[0x21, if source.is_ipv4() { 0x11 } else { 0x21 }, 0, 0]);
    for end in [source, destination] {
        match end.ip() {
            IpAddr::V4(address) => out.extend_from_slice(&address.octets()),
            IpAddr::V6(address) => out.extend_from_slice(&address.octets()),
        }
    }
    out.extend_from_slice(&source.port().to_be_bytes());
    out.extend_from_slice(&destination.port().to_be_bytes());
    for (kind, value) in values {
        // No receiver of ours would take more; what does not fit is left out whole.
        let Ok(length) = u16::try_from(value.len()) else { continue };
        if out.len() - start + 3 + value.len() <= Limits::PROXY_HEADER_BYTES {
            out.push(kind);
            out.extend_from_slice(&length.to_be_bytes());
            out.extend_from_slice(value);
        }
    }
    let length = (out.len() - start - super::FIXED) as u16;
    out[start + 14..start + 16].copy_from_slice(&length.to_be_bytes());
}

/// Both ends in one family, for a header has only one: IPv4 where both are, also where it came as IPv6.
fn alike(ends: Endpoints) -> Endpoints {
    let plain = |end: SocketAddr| SocketAddr::new(end.ip().to_canonical(), end.port());
    let mapped = |end: SocketAddr| match end.ip() {
        IpAddr::V4(address) => SocketAddr::new(address.to_ipv6_mapped().into(), end.port()),
        IpAddr::V6(_) => SocketAddr::new(end.ip(), end.port()),
    };
    let (source, destination) = (plain(ends.source), plain(ends.destination));
    if source.is_ipv4() == destination.is_ipv4() {
        Endpoints { source, destination }
    } else {
        Endpoints { source: mapped(source), destination: mapped(destination) }
    }
}
