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
        if out.len() - start + 3 + value.len() <= Limits::PROXY_HEADER_BYTES {
            push(kind, value, out);
        }
    }
    let length = (out.len() - start - super::FIXED) as u16;
    out[start + 14..start + 16].copy_from_slice(&length.to_be_bytes());
}

/// What is known of a client that came by TLS (PP §2.2.1, §2.2.2, §2.2.6).
#[derive(Debug, Clone, Copy)]
pub struct Tls<'a> {
    /// `TLSv1.3`
    pub version: &'a str,
    /// As OpenSSL names it.
    pub cipher: &'a str,
    pub alpn: Option<&'a str>,
    /// The name that the client asked for.
    pub authority: Option<&'a str>,
    pub certificate: Option<ClientCertificate<'a>>,
}

/// A certificate of the client's, which has been verified.
#[derive(Debug, Clone, Copy)]
pub struct ClientCertificate<'a> {
    pub common_name: Option<&'a str>,
    /// It was shown on this connection, rather than on an earlier one of the same session.
    pub shown_now: bool,
}

/// Whether a value tells of the client's TLS, so that whoever ends it is the one to write it.
pub fn tells_of_tls(kind: u8) -> bool {
    matches!(kind, ALPN | AUTHORITY | SSL)
}

impl<'a> Tls<'a> {
    /// The value of the type SSL, which has values of its own.
    pub fn ssl(&self) -> Vec<u8> {
        let (client, verify) = match self.certificate {
            Some(ClientCertificate { shown_now: true, .. }) => (CLIENT_SSL | CERT_CONN | CERT_SESS, 0_u32),
            Some(_) => (CLIENT_SSL | CERT_SESS, 0),
            // "Non-zero otherwise": nobody has shown a certificate.
            None => (CLIENT_SSL, 1),
        };
        let mut out = vec![client];
        out.extend_from_slice(&verify.to_be_bytes());
        push(SSL_VERSION, self.version.as_bytes(), &mut out);
        if let Some(name) = self.certificate.and_then(|own| own.common_name).filter(|name| name.len() <= NAME) {
            push(SSL_CN, name.as_bytes(), &mut out);
        }
        push(SSL_CIPHER, self.cipher.as_bytes(), &mut out);
        out
    }

    /// Types and values, `ssl` being that of [`Tls::ssl`].
    pub fn values(&self, ssl: &'a [u8]) -> impl Iterator<Item = (u8, &'a [u8])> {
        let alpn = self.alpn.map(|name| (ALPN, name.as_bytes()));
        let authority = self.authority.map(|name| (AUTHORITY, name.as_bytes()));
        [alpn, authority, Some((SSL, ssl))].into_iter().flatten()
    }
}

/// PP §2.2: the types of values, and PP §2.2.6: those within SSL, and its bits.
const ALPN: u8 = 0x01;
const AUTHORITY: u8 = 0x02;
const SSL: u8 = 0x20;
const SSL_VERSION: u8 = 0x21;
const SSL_CN: u8 = 0x22;
const SSL_CIPHER: u8 = 0x23;
const CLIENT_SSL: u8 = 0x01;
const CERT_CONN: u8 = 0x02;
const CERT_SESS: u8 = 0x04;

/// A common name has 64 characters at most (RFC 5280 appendix A.1). A longer one is left out: half of a name would be
/// another name.
const NAME: usize = 256;

/// One value, which is short.
fn push(kind: u8, value: &[u8], out: &mut Vec<u8>) {
    let Ok(length) = u16::try_from(value.len()) else { return };
    out.push(kind);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(value);
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
