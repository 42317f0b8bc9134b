//! `match` in the JSON log: the values that conditions and maps read, beyond those that every line has, for `reeve replay`.
//!
//! ```text
//! {"header:x-beta":["1"],"cookie:session":["#3f79bb7b435b0532"],"alpn":["h2"]}
//! ```
//!
//! A name that is there with an empty list was looked for and not sent. Cookies are secrets: of each only a hash is kept, which
//! is enough to say whether it was some value.

use aws_lc_rs::digest::{SHA256, digest};

use super::escape;
use crate::route::Head;
use crate::route::reads::Reads;

/// Bytes of a value that are kept.
const VALUE: usize = 256;
/// Lines of one name that are kept; a request with more of them is not told apart by them.
const LINES: usize = 8;

/// What the rules of a table read of a request, as JSON.
pub fn values(reads: &Reads, head: &Head<'_>) -> String {
    let mut out = Vec::with_capacity(128);
    for name in &reads.headers {
        key(&mut out, "header:", name);
        list(&mut out, head.values(name), one);
    }
    for name in &reads.cookies {
        key(&mut out, "cookie:", name);
        list(&mut out, head.cookie(name), |value, out| {
            out.push(b'"');
            out.extend_from_slice(&hashed(value));
            out.push(b'"');
        });
    }
    if reads.alpn {
        key(&mut out, "alpn", "");
        list(&mut out, head.alpn.iter().copied(), one);
    }
    if reads.certificate {
        let certificate = head.certificate;
        for (name, value) in [
            ("subject", certificate.map(|own| &*own.subject)),
            ("issuer", certificate.map(|own| &*own.issuer)),
            ("fingerprint", certificate.map(|own| &*own.fingerprint)),
        ] {
            key(&mut out, "client-cert:", name);
            list(&mut out, value.into_iter().map(str::as_bytes), one);
        }
        key(&mut out, "client-cert:", "san");
        list(&mut out, certificate.into_iter().flat_map(|own| &own.names).map(|name| name.as_bytes()), one);
    }
    out.push(b'}');
    // Everything that was put in is UTF-8.
    String::from_utf8(out).unwrap_or_else(|_| "null".to_owned())
}

/// `#` and 64 bits in hex: nothing that a cookie could be had from.
pub fn cookie_hash(value: &[u8]) -> String {
    hashed(value).map(char::from).iter().collect()
}

fn hashed(value: &[u8]) -> [u8; 17] {
    let hash = digest(&SHA256, value);
    let mut text = [b'#'; 17];
    for (two, byte) in text[1..].chunks_exact_mut(2).zip(hash.as_ref()) {
        two.copy_from_slice(&[escape::HEX[usize::from(byte >> 4)], escape::HEX[usize::from(byte & 15)]]);
    }
    text
}

/// Names are those of fields and cookies: nothing in them has to be escaped (RFC 9110 §5.1, RFC 6265 §4.1.1).
fn key(out: &mut Vec<u8>, kind: &str, name: &str) {
    out.extend_from_slice(if out.is_empty() { b"{\"" } else { b",\"" });
    out.extend_from_slice(kind.as_bytes());
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

fn list<'v>(out: &mut Vec<u8>, values: impl Iterator<Item = &'v [u8]>, write: impl Fn(&[u8], &mut Vec<u8>)) {
    out.push(b'[');
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
    let whole = value.len() <= VALUE && std::str::from_utf8(value).is_ok();
    out.extend_from_slice(if whole { b"\"" } else { b"{\"cut\":\"" });
    escape::json(&value[..value.len().min(VALUE)], out);
    out.extend_from_slice(if whole { b"\"" } else { b"\"}" });
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;
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
            headers: ["x-beta", "x-none", "x-long", "x-raw"].map(Into::into).into(),
            cookies: vec!["s".into()],
            alpn: true,
            certificate: true,
        };
        let text = values(&reads, &head);
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
        let value: serde_json::Value = serde_json::from_str(&values(&reads, &Head { fields: &many, ..head })).unwrap();
        assert_eq!(value["header:x-beta"].as_array().unwrap().len(), LINES + 1);
    }
}
