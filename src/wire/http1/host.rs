//! Hosts: what `Host` and the authority of a target may look like, and what is compared.

/// A host and its port as they were sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Authority<'a> {
    /// The whole, as it is forwarded.
    pub text: &'a str,
    /// The host alone; an IPv6 address with its brackets.
    pub host: &'a str,
    pub port: Option<&'a str>,
}

/// The longest host: DNS allows 253 characters, an IPv6 address with a zone fewer.
const LONGEST: usize = 255;

/// Parses `uri-host [ ":" port ]` (RFC 9110 §7.2). `None` for anything else, userinfo included.
pub fn parse(text: &[u8]) -> Option<Authority<'_>> {
    let text = std::str::from_utf8(text).ok()?;
    let (host, port) = if text.starts_with('[') {
        let end = text.find(']')?;
        let inside = &text[1..end];
        inside.parse::<std::net::Ipv6Addr>().ok()?;
        let rest = &text[end + 1..];
        match rest.strip_prefix(':') {
            Some(port) => (&text[..=end], Some(port)),
            None if rest.is_empty() => (text, None),
            None => return None,
        }
    } else {
        match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        }
    };
    if host.is_empty() || host.len() > LONGEST {
        return None;
    }
    if !host.starts_with('[') && !is_registered_name(host.as_bytes()) {
        return None;
    }
    if let Some(port) = port {
        // `host:` with an empty port is allowed by the grammar (RFC 3986 §3.2.3).
        if port.len() > 5 || !port.bytes().all(|b| b.is_ascii_digit()) || port.parse::<u32>().is_ok_and(|n| n > 65535) {
            return None;
        }
    }
    Some(Authority { text, host, port })
}

/// reg-name of RFC 3986 §3.2.2: unreserved, percent-encoded, sub-delims. A comma is left out: it
/// would make one Host look like a list.
fn is_registered_name(host: &[u8]) -> bool {
    let mut bytes = host.iter();
    while let Some(byte) = bytes.next() {
        let good = match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => true,
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b';' | b'=' => true,
            b'%' => bytes.next().is_some_and(u8::is_ascii_hexdigit) && bytes.next().is_some_and(u8::is_ascii_hexdigit),
            _ => false,
        };
        if !good {
            return false;
        }
    }
    true
}

/// What rules compare: lower case, without the trailing dot. Borrowed where it already is so.
pub fn canonical<'a>(host: &'a str, scratch: &'a mut String) -> &'a str {
    let host = match host.strip_suffix('.') {
        Some(shorter) if !shorter.is_empty() => shorter,
        _ => host,
    };
    if !host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return host;
    }
    scratch.clear();
    scratch.push_str(host);
    scratch.make_ascii_lowercase();
    scratch
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_that_are_taken() {
        for (text, host, port) in [
            ("t.example", "t.example", None),
            ("T.Example:80", "T.Example", Some("80")),
            ("a:", "a", Some("")),
            ("[::1]:8080", "[::1]", Some("8080")),
            ("[2001:db8::1]", "[2001:db8::1]", None),
            ("127.0.0.1:1", "127.0.0.1", Some("1")),
            ("xn--bcher-kva.example", "xn--bcher-kva.example", None),
        ] {
            assert_eq!(parse(text.as_bytes()), Some(Authority { text, host, port }), "{text}");
        }
    }

    #[test]
    fn hosts_that_are_not() {
        for text in [
            "", ":80", "a b", "a\\b", "a:80:80", "a:x", "a:999999", "a:65536", "u@h", "a/b", "a,b", "[::1", "[::1]x",
            "[zz]", "a\0b", "a%zz", "a%4", "\u{e9}", "a?b", "a#b", "[::1]:8o", "a\tb",
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn canonical_hosts() {
        let mut scratch = String::new();
        assert_eq!(canonical("t.example", &mut scratch), "t.example");
        assert_eq!(canonical("T.Example.", &mut scratch), "t.example");
        assert_eq!(canonical(".", &mut scratch), ".");
    }
}
