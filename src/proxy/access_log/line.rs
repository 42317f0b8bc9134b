//! Writes what is known of one request as one line of the access log.
//!
//! Called by the proxy at the end of every request, on the request path: nothing is allocated but the
//! room at the end of `out`, and nothing goes through `std::fmt`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::clock::ClockText;
use super::escape;

/// What is known of a request when it has ended. What came from the client is bytes: a log has to be
/// able to say what it was, whatever it was.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// When the request arrived, in milliseconds since 1970 (UTC).
    pub unix_ms: u64,
    pub id: u64,
    pub listener: &'a str,
    pub client: SocketAddr,
    /// `HTTP/1.1`
    pub proto: &'a str,
    /// The TLS version; `None` where there was no TLS.
    pub tls: Option<&'a str>,
    pub sni: Option<&'a [u8]>,
    pub method: &'a [u8],
    pub host: Option<&'a [u8]>,
    /// Without query, as it was sent.
    pub path: &'a [u8],
    /// Without its `?`.
    pub query: Option<&'a [u8]>,
    /// 0 where the client got no answer.
    pub status: u16,
    /// `shop.rules:beta`
    pub rule: Option<&'a str>,
    pub pool: Option<&'a str>,
    pub server: Option<&'a str>,
    /// Servers that were asked, 0 where Reeve answered by itself.
    pub tries: u32,
    /// Bytes of the request's body.
    pub bytes_in: u64,
    /// Bytes of the answer's body.
    pub bytes_out: u64,
    /// Waiting for a server that is not full.
    pub t_queue: Duration,
    /// Reaching the server; 0 on a connection that was there already.
    pub t_connect: Duration,
    /// From the first byte of the request to the head of the answer.
    pub t_header: Duration,
    /// From the first byte of the request to the last of the answer.
    pub t_total: Duration,
    pub affinity: Option<&'a str>,
    /// The kind of failure, where there was one.
    pub failure: Option<&'a str>,
    /// Whose failure it was.
    pub side: Option<&'a str>,
    /// What rules read besides, as JSON.
    pub matched: Option<&'a [u8]>,
    /// `Referer` and `User-Agent`, for the text form alone.
    pub referer: Option<&'a [u8]>,
    pub user_agent: Option<&'a [u8]>,
}

/// Room for a line of common length, so that it grows at most once.
const COMMON_LINE: usize = 640;

/// Appends one JSON object and a line feed. The keys are always the same ones in the same order; what
/// is absent is `null`. What is usual is written in long pieces.
pub fn write_json(entry: &Entry, clock: &mut ClockText, out: &mut Vec<u8>) {
    out.reserve(COMMON_LINE);
    out.extend_from_slice(b"{\"time\":\"");
    clock.rfc3339(entry.unix_ms, out);
    out.extend_from_slice(b"\",\"id\":\"");
    out.extend_from_slice(&escape::hex(entry.id));
    out.extend_from_slice(b"\",\"listener\":\"");
    escape::json(entry.listener.as_bytes(), out);
    out.extend_from_slice(b"\",\"client\":\"");
    socket_address(entry.client, out);
    out.extend_from_slice(b"\",\"proto\":\"");
    escape::json(entry.proto.as_bytes(), out);
    match (entry.tls, entry.sni) {
        (None, None) => out.extend_from_slice(b"\",\"tls\":null,\"sni\":null,\"method\":\""),
        (tls, sni) => {
            out.extend_from_slice(b"\",\"tls\":");
            json_or_null(tls.map(str::as_bytes), out);
            out.extend_from_slice(b",\"sni\":");
            json_or_null(sni, out);
            out.extend_from_slice(b",\"method\":\"");
        }
    }
    escape::json(entry.method, out);
    out.extend_from_slice(b"\",\"host\":");
    json_or_null(entry.host, out);
    out.extend_from_slice(b",\"path\":\"");
    escape::json(entry.path, out);
    out.extend_from_slice(b"\",\"query\":");
    json_or_null(entry.query, out);
    out.extend_from_slice(b",\"status\":");
    match entry.status {
        0 => out.extend_from_slice(b"null"),
        status => number(status, out),
    }
    out.extend_from_slice(b",\"rule\":");
    json_or_null(entry.rule.map(str::as_bytes), out);
    out.extend_from_slice(b",\"pool\":");
    json_or_null(entry.pool.map(str::as_bytes), out);
    out.extend_from_slice(b",\"server\":");
    json_or_null(entry.server.map(str::as_bytes), out);
    out.extend_from_slice(b",\"tries\":");
    number(entry.tries, out);
    out.extend_from_slice(b",\"bytes_in\":");
    number(entry.bytes_in, out);
    out.extend_from_slice(b",\"bytes_out\":");
    number(entry.bytes_out, out);
    if entry.t_queue.is_zero() && entry.t_connect.is_zero() {
        out.extend_from_slice(b",\"t_queue\":0.000000,\"t_connect\":0.000000,\"t_header\":");
    } else {
        out.extend_from_slice(b",\"t_queue\":");
        seconds(entry.t_queue, out);
        out.extend_from_slice(b",\"t_connect\":");
        seconds(entry.t_connect, out);
        out.extend_from_slice(b",\"t_header\":");
    }
    seconds(entry.t_header, out);
    out.extend_from_slice(b",\"t_total\":");
    seconds(entry.t_total, out);
    if entry.affinity.is_none() && entry.failure.is_none() && entry.side.is_none() {
        out.extend_from_slice(b",\"affinity\":null,\"failure\":null,\"side\":null,\"match\":");
    } else {
        out.extend_from_slice(b",\"affinity\":");
        json_or_null(entry.affinity.map(str::as_bytes), out);
        out.extend_from_slice(b",\"failure\":");
        json_or_null(entry.failure.map(str::as_bytes), out);
        out.extend_from_slice(b",\"side\":");
        json_or_null(entry.side.map(str::as_bytes), out);
        out.extend_from_slice(b",\"match\":");
    }
    out.extend_from_slice(entry.matched.unwrap_or(b"null"));
    out.extend_from_slice(b"}\n");
}

/// Appends a line of the combined format (address, identity, user, time, request line, status, bytes,
/// referer, agent), followed by `rule= pool= server= t=`. What is absent is `-`.
pub fn write_text(entry: &Entry, clock: &mut ClockText, out: &mut Vec<u8>) {
    out.reserve(COMMON_LINE);
    ip(entry.client.ip(), out);
    out.extend_from_slice(b" - - [");
    clock.common(entry.unix_ms, out);
    out.extend_from_slice(b"] \"");
    escape::text(entry.method, out);
    out.push(b' ');
    escape::text(entry.path, out);
    if let Some(query) = entry.query {
        out.push(b'?');
        escape::text(query, out);
    }
    out.push(b' ');
    escape::text(entry.proto.as_bytes(), out);
    out.extend_from_slice(b"\" ");
    match entry.status {
        0 => out.push(b'-'),
        status => number(status, out),
    }
    out.push(b' ');
    number(entry.bytes_out, out);
    out.extend_from_slice(b" \"");
    escape::text(entry.referer.unwrap_or(b"-"), out);
    out.extend_from_slice(b"\" \"");
    escape::text(entry.user_agent.unwrap_or(b"-"), out);
    out.extend_from_slice(b"\" rule=");
    escape::word(entry.rule.unwrap_or("-").as_bytes(), out);
    out.extend_from_slice(b" pool=");
    escape::word(entry.pool.unwrap_or("-").as_bytes(), out);
    out.extend_from_slice(b" server=");
    escape::word(entry.server.unwrap_or("-").as_bytes(), out);
    out.extend_from_slice(b" t=");
    seconds(entry.t_total, out);
    out.push(b'\n');
}

#[inline]
fn json_or_null(value: Option<&[u8]>, out: &mut Vec<u8>) {
    match value {
        None => out.extend_from_slice(b"null"),
        Some(value) => {
            out.push(b'"');
            escape::json(value, out);
            out.push(b'"');
        }
    }
}

#[inline]
fn number(value: impl itoa::Integer, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// `0.001234`: whole microseconds, rounded down.
#[inline]
fn seconds(time: Duration, out: &mut Vec<u8>) {
    match time.as_secs() {
        0 => out.push(b'0'),
        whole => number(whole, out),
    }
    let mut digits = *b".000000";
    let mut micros = time.subsec_micros();
    for digit in digits[1..].iter_mut().rev() {
        *digit = b'0' + (micros % 10) as u8;
        micros /= 10;
    }
    out.extend_from_slice(&digits);
}

#[inline]
fn socket_address(address: SocketAddr, out: &mut Vec<u8>) {
    let host = address.ip().to_canonical();
    if host.is_ipv6() {
        out.push(b'[');
        ip(host, out);
        out.push(b']');
    } else {
        ip(host, out);
    }
    out.push(b':');
    number(address.port(), out);
}

/// An IPv4 client of a dual-stack listener is written as the IPv4 address that it has.
#[inline]
fn ip(address: IpAddr, out: &mut Vec<u8>) {
    match address.to_canonical() {
        IpAddr::V4(address) => ipv4(address, out),
        IpAddr::V6(address) => ipv6(address, out),
    }
}

#[inline]
fn ipv4(address: Ipv4Addr, out: &mut Vec<u8>) {
    for (at, octet) in address.octets().into_iter().enumerate() {
        if at > 0 {
            out.push(b'.');
        }
        number(octet, out);
    }
}

/// RFC 5952 §4: lower case, no leading zeros, the longest run of two or more zero groups as `::`.
fn ipv6(address: Ipv6Addr, out: &mut Vec<u8>) {
    let groups = address.segments();
    let (mut run_at, mut run_length) = (groups.len(), 1);
    let mut at = 0;
    while at < groups.len() {
        let zeros = groups[at..].iter().take_while(|&&group| group == 0).count();
        if zeros > run_length {
            (run_at, run_length) = (at, zeros);
        }
        at += zeros.max(1);
    }
    let mut at = 0;
    while at < groups.len() {
        if at == run_at {
            out.extend_from_slice(b"::");
            at += run_length;
            continue;
        }
        if at > 0 && at != run_at + run_length {
            out.push(b':');
        }
        let group = groups[at];
        let digits = (4 - group.leading_zeros() / 4).max(1);
        for digit in (0..digits).rev() {
            out.push(b"0123456789abcdef"[(group >> (4 * digit) & 15) as usize]);
        }
        at += 1;
    }
}

#[cfg(test)]
#[path = "line_tests.rs"]
mod tests;
