//! What routing sees of a message, and how values are found in it.

use std::net::IpAddr;

use memchr::memchr;
use smallvec::SmallVec;

use crate::wire::certificate::Certificate;
use crate::wire::field::Field;

use super::body::Body;
use super::path::hex_pair;

/// A message head, as HTTP/1, HTTP/2 and RTSP fill it.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// As sent; methods are case-sensitive (RFC 9110 §9.1).
    pub method: &'a str,
    /// In lower case, without port and trailing dot; of a `tcp` section, what the client asks for by SNI.
    pub host: &'a str,
    /// Normalised by the section's policy (`path::normalise`).
    pub path: &'a str,
    /// As sent, without its `?`; empty if there is none.
    pub query: &'a str,
    pub fields: &'a [Field<'a>],
    /// The PROXY header's source, else the peer.
    pub source: IpAddr,
    /// Name of the listener.
    pub listener: &'a str,
    /// In lower case.
    pub sni: Option<&'a str>,
    /// The protocol that was agreed on; of a connection that stays sealed, all that the client offers.
    pub alpn: &'a [&'a [u8]],
    /// The client's, verified.
    pub certificate: Option<&'a Certificate>,
    /// `tls-passthrough` only: no ClientHello came.
    pub no_tls: bool,
    pub body: Body<'a>,
}

/// Working memory for a value that is not in one piece: on the stack unless it is unusually long.
pub(super) type Scratch = SmallVec<[u8; 512]>;

impl<'a> Head<'a> {
    /// The values of the field lines of that name, in order.
    #[inline]
    pub fn values(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.fields.iter().filter(move |field| field.is(name)).map(|field| field.value)
    }

    /// All cookies of all Cookie fields, in order (RFC 6265 §5.4).
    #[inline]
    pub fn cookies(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        self.cookie_fields().flat_map(|field| Pairs { rest: field.value, between: b';' })
    }

    /// The values of the cookies of that name, in order. Names are case-sensitive.
    #[inline]
    pub fn cookie(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.cookie_fields().flat_map(move |field| Cookies { rest: field.value, name: name.as_bytes() })
    }

    #[inline]
    fn cookie_fields(&self) -> impl Iterator<Item = &'a Field<'a>> {
        self.fields.iter().filter(|field| field.name.len() == 6 && field.is("cookie"))
    }

    /// All parameters of the query, in order, still encoded.
    #[inline]
    pub fn parameters(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        Pairs { rest: self.query.as_bytes(), between: b'&' }
    }

    /// Calls `found` with the decoded value of each parameter of that name, until it returns true.
    #[inline]
    pub fn parameter(&self, name: &[u8], mut found: impl FnMut(&[u8]) -> bool) -> bool {
        let mut scratch = Scratch::new();
        self.parameters().any(|(own, value)| decoded(own, &mut scratch) == name && found(decoded(value, &mut scratch)))
    }

    /// All lines of that name joined by `between`; `None` unless there are two or more.
    pub fn joined(&self, name: &str, between: &[u8]) -> Option<Scratch> {
        let mut values = self.values(name);
        let (first, second) = (values.next()?, values.next()?);
        let mut whole = Scratch::from_slice(first);
        for value in std::iter::once(second).chain(values) {
            whole.extend_from_slice(between);
            whole.extend_from_slice(value);
        }
        Some(whole)
    }

    /// Content-Type without its parameters, in lower case (RFC 9110 §8.3.1).
    pub fn media_type(&self) -> Option<Scratch> {
        let value = self.values("content-type").next()?;
        let end = memchr(b';', value).unwrap_or(value.len());
        let mut kind = Scratch::from_slice(value[..end].trim_ascii());
        kind.make_ascii_lowercase();
        Some(kind)
    }
}

/// Percent escapes undone; `+` stays, as only forms mean a blank by it, and what is no escape stays.
#[inline]
pub(super) fn decoded<'v>(value: &'v [u8], scratch: &'v mut Scratch) -> &'v [u8] {
    if memchr(b'%', value).is_none() {
        return value;
    }
    scratch.clear();
    let mut rest = value;
    while let Some((&byte, after)) = rest.split_first() {
        match hex_pair(after) {
            Some(value) if byte == b'%' => {
                scratch.push(value);
                rest = &after[2..];
            }
            _ => {
                scratch.push(byte);
                rest = after;
            }
        }
    }
    scratch
}

/// `a=1; b=2`: names and values without surrounding blanks. A piece without `=` has an empty value.
pub(super) struct Pairs<'a> {
    pub rest: &'a [u8],
    pub between: u8,
}

impl<'a> Iterator for Pairs<'a> {
    type Item = (&'a [u8], &'a [u8]);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if self.rest.is_empty() {
                return None;
            }
            let (piece, rest) = match memchr(self.between, self.rest) {
                Some(at) => (&self.rest[..at], &self.rest[at + 1..]),
                None => (self.rest, &[][..]),
            };
            self.rest = rest;
            let piece = piece.trim_ascii();
            if piece.is_empty() {
                continue;
            }
            return Some(match memchr(b'=', piece) {
                Some(at) => (piece[..at].trim_ascii_end(), piece[at + 1..].trim_ascii_start()),
                None => (piece, &[]),
            });
        }
    }
}

/// The values of one name among the [`Pairs`] of a Cookie field; of the others nothing is looked at but how they begin.
struct Cookies<'a, 'n> {
    rest: &'a [u8],
    name: &'n [u8],
}

impl<'a> Iterator for Cookies<'a, '_> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        while !self.rest.is_empty() {
            let (piece, rest) = match memchr(b';', self.rest) {
                Some(at) => (&self.rest[..at], &self.rest[at + 1..]),
                None => (self.rest, &[][..]),
            };
            self.rest = rest;
            let Some(after) = piece.trim_ascii_start().strip_prefix(self.name) else { continue };
            match after.trim_ascii_start() {
                [] if !self.name.is_empty() => return Some(&[]),
                [b'=', value @ ..] => return Some(value.trim_ascii()),
                _ => {}
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head<'a>(query: &'a str, fields: &'a [Field<'a>]) -> Head<'a> {
        Head {
            method: "GET",
            host: "",
            path: "/",
            query,
            fields,
            source: IpAddr::from([0, 0, 0, 0]),
            listener: "",
            sni: None,
            alpn: &[],
            certificate: None,
            no_tls: false,
            body: Body::Empty,
        }
    }

    #[test]
    fn cookies_of_all_fields() {
        let fields = [
            Field { name: "Cookie", value: b"a=1; b=2;c" },
            Field { name: "x", value: b"a=9" },
            Field { name: "cookie", value: b" ;; a = 3=4 ;" },
        ];
        let head = head("", &fields);
        let all: Vec<_> = head.cookies().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
        let pair = |name: &str, value: &str| (name.as_bytes().to_vec(), value.as_bytes().to_vec());
        assert_eq!(all, [pair("a", "1"), pair("b", "2"), pair("c", ""), pair("a", "3=4")]);
        assert_eq!(head.cookie("a").collect::<Vec<_>>(), [b"1".as_slice(), b"3=4"]);
        assert_eq!(head.cookie("A").count(), 0);
    }

    proptest::proptest! {
        #[test]
        fn a_cookie_is_found_as_among_all(text in "[ab= ;\t]{0,16}") {
            let fields = [Field { name: "cookie", value: text.as_bytes() }];
            let head = head("", &fields);
            for name in ["", "a", "ab", "b"] {
                let among = head.cookies().filter(|(own, _)| *own == name.as_bytes()).map(|(_, value)| value);
                assert!(head.cookie(name).eq(among), "{name:?}");
            }
        }
    }

    #[test]
    fn parameters_are_decoded() {
        let head = head("a=1%202&%61=b+c&&x&a=%zz%2", &[]);
        let mut all = Vec::new();
        head.parameter(b"a", |value| {
            all.push(String::from_utf8_lossy(value).into_owned());
            false
        });
        assert_eq!(all, ["1 2", "b+c", "%zz%2"]);
        assert!(head.parameter(b"x", <[u8]>::is_empty));
        assert!(!head.parameter(b"y", |_| true));
    }

    #[test]
    fn joined_lines() {
        let fields =
            [Field { name: "X", value: b"a" }, Field { name: "y", value: b"b" }, Field { name: "x", value: b"c" }];
        let head = head("", &fields);
        assert_eq!(head.joined("x", b", ").as_deref(), Some(&b"a, c"[..]));
        assert_eq!(head.joined("y", b", "), None);
    }

    #[test]
    fn media_types() {
        let fields = [Field { name: "Content-Type", value: b"Text/HTML ; charset=utf-8" }];
        assert_eq!(head("", &fields).media_type().as_deref(), Some(&b"text/html"[..]));
    }
}
