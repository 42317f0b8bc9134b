//! `match` in the JSON log: the values that conditions and maps read, beyond those that every line has, for `reeve replay`.
//!
//! ```text
//! {"header:x-beta":["1"],"cookie:session":["#3f79bb7b435b0532"],"alpn":["h2"]}
//! ```
//!
//! A name that is there with an empty list was looked for and not sent. Cookies are secrets: of each the log has only a hash, which
//! is enough to say whether it was some value.

use aws_lc_rs::digest::{SHA256, digest};

use super::escape;
use crate::route::Head;
use crate::route::reads::Reads;

/// Bytes of a value that are kept.
const VALUE: usize = 256;
/// Bytes that nearly all of it fits into.
pub const COMMON: usize = 256;
/// Lines of one name that are kept; a request with more of them is not told apart by them.
const LINES: usize = 8;

/// Appends what the rules of a table read of a request, as JSON, to `out`, which is empty.
pub fn values(reads: &Reads, head: &Head<'_>, hashes: &mut Hashes, out: &mut Vec<u8>) {
    // Most of what rules look for is not there, and mostly the length says so already.
    let lengths = head.fields.iter().fold(0_u64, |all, field| all | length(field.name));
    for read in &reads.headers {
        begin(out, &read.label);
        if lengths & length(&read.name) == 0 {
            out.push(b']');
        } else {
            list(out, head.values(&read.name), one);
        }
    }
    for read in &reads.cookies {
        begin(out, &read.label);
        list(out, head.cookie(&read.name), |value, out| out.extend_from_slice(&hashes.of(value)));
    }
    if reads.alpn {
        begin(out, "\"alpn\":[");
        list(out, head.alpn.iter().copied(), one);
    }
    if reads.certificate {
        let certificate = head.certificate;
        for (label, value) in [
            ("\"client-cert:subject\":[", certificate.map(|own| &*own.subject)),
            ("\"client-cert:issuer\":[", certificate.map(|own| &*own.issuer)),
            ("\"client-cert:fingerprint\":[", certificate.map(|own| &*own.fingerprint)),
        ] {
            begin(out, label);
            list(out, value.into_iter().map(str::as_bytes), one);
        }
        begin(out, "\"client-cert:san\":[");
        list(out, certificate.into_iter().flat_map(|own| &own.names).map(|name| name.as_bytes()), one);
    }
    out.push(b'}');
}

/// The bit of a name's length.
fn length(name: &str) -> u64 {
    1 << (name.len() % 64)
}

/// `#` and 64 bits in hex: nothing that a cookie could be had from.
pub fn cookie_hash(value: &[u8]) -> String {
    hashed(value)[1..18].iter().copied().map(char::from).collect()
}

/// In quotes.
fn hashed(value: &[u8]) -> [u8; 19] {
    let hash = digest(&SHA256, value);
    let first = hash.as_ref().first_chunk().map_or(0, |first| u64::from_be_bytes(*first));
    let mut text = *b"\"#0123456789abcdef\"";
    text[2..18].copy_from_slice(&escape::hex(first));
    text
}

/// The hashes of cookies that came lately: clients send the same ones again and again. The cookies themselves are in memory
/// alone, and nothing prints them.
pub struct Hashes(Box<[Known; KNOWN]>);

/// 32 KiB a worker.
const KNOWN: usize = 512;

/// With its hash as large as a cache line. What is longer is hashed each time.
#[derive(Clone, Copy)]
struct Known {
    length: u8,
    value: [u8; 44],
    hash: [u8; 19],
}

impl std::fmt::Debug for Hashes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hashes").finish_non_exhaustive()
    }
}

impl Default for Hashes {
    fn default() -> Hashes {
        // Nothing is of this length.
        Hashes(Box::new([Known { length: u8::MAX, value: [0; 44], hash: [0; 19] }; KNOWN]))
    }
}

impl Hashes {
    #[inline]
    fn of(&mut self, value: &[u8]) -> [u8; 19] {
        let known = &mut self.0[place(value)];
        if known.value.get(..known.length.into()) == Some(value) {
            return known.hash;
        }
        let hash = hashed(value);
        if let Some(room) = known.value.get_mut(..value.len()) {
            room.copy_from_slice(value);
            (known.length, known.hash) = (value.len() as u8, hash);
        }
        hash
    }
}

/// Where a value is kept: its ends tell most of them apart.
#[inline]
fn place(value: &[u8]) -> usize {
    let word = |bytes: Option<&[u8; 8]>| bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let (first, last) = (word(value.first_chunk()), word(value.last_chunk()));
    let short = value.iter().take(if value.len() < 8 { 8 } else { 0 }).fold(0, |all, byte| all << 8 | u64::from(*byte));
    let mixed = (first ^ last.rotate_left(29) ^ short).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 32) as usize % KNOWN
}

fn begin(out: &mut Vec<u8>, label: &str) {
    out.push(if out.is_empty() { b'{' } else { b',' });
    out.extend_from_slice(label.as_bytes());
}

fn list<'v>(out: &mut Vec<u8>, values: impl Iterator<Item = &'v [u8]>, mut write: impl FnMut(&[u8], &mut Vec<u8>)) {
    for (at, value) in values.enumerate() {
        if at > 0 {
            out.push(b',');
        }
        if at == LINES {
            out.extend_from_slice(b"{\"cut\":\"\"}");
            break;
        }
        write(value, out);
    }
    out.push(b']');
}

/// A value, or what of it is kept where that is not all.
fn one(value: &[u8], out: &mut Vec<u8>) {
    if value.len() <= VALUE && escape::is_plain(value) {
        out.push(b'"');
        out.extend_from_slice(value);
        out.push(b'"');
        return;
    }
    let whole = value.len() <= VALUE && std::str::from_utf8(value).is_ok();
    out.extend_from_slice(if whole { b"\"" } else { b"{\"cut\":\"" });
    escape::json(&value[..value.len().min(VALUE)], out);
    out.extend_from_slice(if whole { b"\"" } else { b"\"}" });
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;
    use crate::route::reads::Read;
    use crate::wire::field::Field;

    #[test]
    fn what_rules_read_is_written_and_nothing_else() {
        let long = "x".repeat(300);
        let fields = [
            Field { name: "X-Beta", value: b"1 \"2\"" },
            Field { name: "x-other", value: b"secret" },
            Field { name: "Cookie", value: b"s=token; t=other" },
            Field { name: "x-long", value: long.as_bytes() },
            Field { name: "x-raw", value: b"\xff" },
        ];
        let head = Head {
            method: "GET",
            host: "a",
            path: "/",
            query: "",
            fields: &fields,
            source: IpAddr::V4(Ipv4Addr::LOCALHOST),
            listener: "web",
            sni: None,
            alpn: &[b"h2"],
            certificate: None,
            no_tls: false,
            body: crate::route::Body::Empty,
        };
        let reads = Reads {
            headers: ["x-beta", "x-none", "x-long", "x-raw"].map(|name| Read::header(name.into())).into(),
            cookies: vec![Read::cookie("s".into())],
            alpn: true,
            certificate: true,
        };
        let text_of = |head: &Head<'_>| {
            let mut out = Vec::new();
            values(&reads, head, &mut Hashes::default(), &mut out);
            String::from_utf8(out).unwrap()
        };
        let text = text_of(&head);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["header:x-beta"], serde_json::json!(["1 \"2\""]));
        assert_eq!(value["header:x-none"], serde_json::json!([]));
        assert_eq!(value["header:x-long"], serde_json::json!([{ "cut": "x".repeat(256) }]));
        assert_eq!(value["header:x-raw"], serde_json::json!([{ "cut": "\u{ff}" }]));
        assert_eq!(value["cookie:s"], serde_json::json!([cookie_hash(b"token")]));
        assert_eq!(value["alpn"], serde_json::json!(["h2"]));
        assert_eq!(value["client-cert:subject"], serde_json::json!([]));
        assert!(!text.contains("secret") && !text.contains("token") && !text.contains("other"), "{text}");
        let many: Vec<Field<'_>> = (0..20).map(|_| Field { name: "x-beta", value: b"v" }).collect();
        let value: serde_json::Value = serde_json::from_str(&text_of(&Head { fields: &many, ..head })).unwrap();
        assert_eq!(value["header:x-beta"].as_array().unwrap().len(), LINES + 1);
    }

    #[test]
    fn a_hash_that_is_known_is_the_same() {
        let mut hashes = Hashes::default();
        // Many of one place, and lengths about that of a place and of none.
        let values: Vec<Vec<u8>> = (0..2000_u32)
            .map(|n| [&b"session-"[..], &n.to_le_bytes()[..n as usize % 4], b"-the-end"].concat())
            .chain((0..60).map(|length| vec![b'x'; length]))
            .collect();
        for value in values.iter().chain(values.iter().rev()) {
            assert_eq!(hashes.of(value), hashed(value), "{value:?}");
            assert_eq!(hashes.of(value), hashed(value), "{value:?} again");
        }
    }
}
