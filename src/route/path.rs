//! Brings the path of a request into the one form that is matched and forwarded.
//!
//! Decision 18: `safe` decodes what need not be encoded, writes hex digits in upper case and removes
//! dot segments, encoded ones included; it keeps `%2F`, `//` and sub-delims, and refuses an encoded
//! NUL, CR or LF. `strict` also refuses `%2F` and `%5C`. `as-is` leaves everything as it was sent.

use memchr::{memchr, memchr_iter};

use crate::model::rule::PathPolicy;

/// Why a path is refused. `at` is the byte of its `%`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathFault {
    /// A `%` that is not followed by two hex digits.
    Malformed { at: usize },
    /// A byte that the policy does not let through in encoded form.
    Forbidden { at: usize, byte: u8 },
}

impl std::fmt::Display for PathFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            PathFault::Malformed { at } => write!(f, "the % at byte {at} is not followed by two hex digits"),
            PathFault::Forbidden { at, byte } => write!(f, "%{byte:02X} at byte {at} is not let through"),
        }
    }
}

/// The path (without query) under a policy. Borrows `raw` where nothing changes, which is nearly
/// always; `scratch` is only written to otherwise.
pub fn normalise<'a>(raw: &'a str, policy: PathPolicy, scratch: &'a mut String) -> Result<&'a str, PathFault> {
    let bytes = raw.as_bytes();
    if policy == PathPolicy::AsIs {
        return Ok(raw);
    }
    let encoded = memchr(b'%', bytes).is_some();
    let dotted = memchr_iter(b'.', bytes).any(|at| at > 0 && bytes[at - 1] == b'/');
    if !encoded && !dotted {
        return Ok(raw);
    }
    scratch.clear();
    if encoded {
        decode(raw, policy, scratch)?
    } else {
        scratch.push_str(raw)
    }
    if scratch.starts_with('/') && scratch.contains("/.") {
        remove_dot_segments(scratch);
    }
    Ok(scratch)
}

/// RFC 3986 §6.2.2.1 and §6.2.2.2: hex digits in upper case, unreserved characters decoded.
fn decode(raw: &str, policy: PathPolicy, out: &mut String) -> Result<(), PathFault> {
    let mut rest = raw;
    while let Some(at) = memchr(b'%', rest.as_bytes()) {
        out.push_str(&rest[..at]);
        let offset = raw.len() - rest.len() + at;
        let Some(byte) = hex_pair(&rest.as_bytes()[at + 1..]) else {
            return Err(PathFault::Malformed { at: offset });
        };
        match byte {
            0 | b'\r' | b'\n' => return Err(PathFault::Forbidden { at: offset, byte }),
            b'/' | b'\\' if policy == PathPolicy::Strict => return Err(PathFault::Forbidden { at: offset, byte }),
            _ => push(out, byte),
        }
        rest = &rest[at + 3..];
    }
    out.push_str(rest);
    Ok(())
}

/// A value with whatever may not stand there in encoded form. Letters, digits, `-._~` (RFC 3986 §2.3) and what is
/// in `also` stay, escapes that are there too.
pub(super) fn encode(value: &[u8], also: &[u8], push: &mut dyn FnMut(u8)) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for (at, &byte) in value.iter().enumerate() {
        let stays = byte.is_ascii_alphanumeric()
            || b"-._~".contains(&byte)
            || also.contains(&byte)
            || byte == b'%' && hex_pair(&value[at + 1..]).is_some();
        if stays {
            push(byte);
        } else {
            for byte in [b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]] {
                push(byte);
            }
        }
    }
}

/// Whether a segment is `.` or `..`, encoded or not.
pub(super) fn has_dot_segments(path: &str) -> bool {
    path.split('/').any(|mut segment| {
        let mut dots = 0;
        while let Some(rest) = segment.strip_prefix('.').or_else(|| encoded_dot(segment)) {
            (dots, segment) = (dots + 1, rest);
        }
        segment.is_empty() && (dots == 1 || dots == 2)
    })
}

fn encoded_dot(segment: &str) -> Option<&str> {
    segment.strip_prefix("%2e").or_else(|| segment.strip_prefix("%2E"))
}

/// A literal as the operator wrote it (`/café`, `/caf%c3%a9`) in the form that requests arrive in.
pub(super) fn literal(text: &str, policy: PathPolicy) -> String {
    if policy == PathPolicy::AsIs {
        return text.to_owned();
    }
    let bytes = text.as_bytes();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < bytes.len() {
        let byte = bytes[at];
        if byte == b'%'
            && let Some(value) = hex_pair(&bytes[at + 1..])
        {
            push(&mut out, value);
            at += 3;
            continue;
        }
        if byte.is_ascii_graphic() {
            out.push(byte.into())
        } else {
            push_encoded(&mut out, byte)
        }
        at += 1;
    }
    out
}

fn push(out: &mut String, byte: u8) {
    if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
        out.push(byte.into());
    } else {
        push_encoded(out, byte);
    }
}

fn push_encoded(out: &mut String, byte: u8) {
    const HEX: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];
    out.push('%');
    out.push(HEX[usize::from(byte >> 4)]);
    out.push(HEX[usize::from(byte & 15)]);
}

/// The value of the two hex digits that `text` begins with.
pub(super) fn hex_pair(text: &[u8]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let [high, low] = *text.first_chunk::<2>()?;
    u8::try_from(digit(high)? << 4 | digit(low)?).ok()
}

/// RFC 3986 §5.2.4 in place, for a path that begins with a slash. `//` stays.
fn remove_dot_segments(path: &mut String) {
    let mut kept = String::with_capacity(path.len());
    let mut segments = path[1..].split('/').peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." => {}
            ".." => kept.truncate(kept.rfind('/').unwrap_or(0)),
            _ => {
                kept.push('/');
                kept.push_str(segment);
                continue;
            }
        }
        // A dot segment at the end names the folder: its slash stays.
        if last {
            kept.push('/');
        }
    }
    path.clear();
    path.push_str(&kept);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn safe(raw: &str) -> Result<String, PathFault> {
        normalise(raw, PathPolicy::Safe, &mut String::new()).map(str::to_owned)
    }

    #[test]
    fn what_is_normal_is_borrowed() {
        for raw in ["/", "/a/b.html", "//a//", "*", "", "/a.b/c..d", "/caf\u{e9}"] {
            let mut scratch = String::from("untouched");
            assert_eq!(normalise(raw, PathPolicy::Safe, &mut scratch), Ok(raw));
            assert_eq!(scratch, "untouched", "{raw}");
        }
    }

    #[test]
    fn rfc_3986_dot_segments() {
        for (raw, expected) in [
            ("/a/b/c/./../../g", "/a/g"),
            ("/..", "/"),
            ("/.", "/"),
            ("/../a", "/a"),
            ("/a/..", "/"),
            ("/a/.", "/a/"),
            ("/a/./b", "/a/b"),
            ("/a/../../../b/", "/b/"),
            ("/a//../b", "/a/b"),
            ("/a/%2e%2e/b", "/b"),
            ("/a/.%2E/b", "/b"),
            ("/.well-known/x", "/.well-known/x"),
            ("/...", "/..."),
            ("/a/..b/.c", "/a/..b/.c"),
            ("//..//x", "//x"),
        ] {
            assert_eq!(safe(raw), Ok(expected.to_owned()), "{raw}");
        }
    }

    #[test]
    fn escapes_get_one_form() {
        for (raw, expected) in [
            ("/%7euser", "/~user"),
            ("/%41%62", "/Ab"),
            ("/a%2fb", "/a%2Fb"),
            ("/a%20b%3f", "/a%20b%3F"),
            ("/%c3%a9", "/%C3%A9"),
            ("/a%5cb", "/a%5Cb"),
            ("/%252e", "/%252e"),
        ] {
            assert_eq!(safe(raw), Ok(expected.to_owned()), "{raw}");
        }
    }

    #[test]
    fn what_is_refused() {
        assert_eq!(safe("/a%00"), Err(PathFault::Forbidden { at: 2, byte: 0 }));
        assert_eq!(safe("/%0d"), Err(PathFault::Forbidden { at: 1, byte: 13 }));
        assert_eq!(safe("/x%20%0A"), Err(PathFault::Forbidden { at: 5, byte: 10 }));
        for raw in ["/%", "/%4", "/%zz", "/%+1", "/a%20%g0"] {
            assert!(matches!(safe(raw), Err(PathFault::Malformed { .. })), "{raw}");
        }
        let strict = |raw| normalise(raw, PathPolicy::Strict, &mut String::new()).map(str::to_owned);
        assert_eq!(strict("/a%2Fb"), Err(PathFault::Forbidden { at: 2, byte: b'/' }));
        assert_eq!(strict("/a%5cb"), Err(PathFault::Forbidden { at: 2, byte: b'\\' }));
        assert_eq!(strict("/a%20b"), Ok("/a%20b".to_owned()));
        assert_eq!(normalise("/%00/../%zz", PathPolicy::AsIs, &mut String::new()), Ok("/%00/../%zz"));
    }

    #[test]
    fn normal_forms_are_stable() {
        for raw in ["/a/%2e%2e/%7e/%c3//./b/..", "/%2525", "/a/..//..//x/", "//../."] {
            let once = safe(raw).unwrap();
            assert_eq!(safe(&once), Ok(once.clone()), "{raw}");
        }
    }

    #[test]
    fn literals_take_the_form_of_requests() {
        assert_eq!(literal("/caf\u{e9}/%7ea b", PathPolicy::Safe), "/caf%C3%A9/~a%20b");
        assert_eq!(literal("/caf\u{e9}", PathPolicy::AsIs), "/caf\u{e9}");
        assert_eq!(literal("/100%/x", PathPolicy::Safe), "/100%/x");
    }
}
