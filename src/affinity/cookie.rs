//! Cookie and Set-Cookie fields (RFC 6265), taken apart and written with another value.

use memchr::memchr;

use super::token::{LENGTH, Token};

/// Stands between the token and the application's own value, where both are in one cookie.
pub const BETWEEN: u8 = b'~';

/// What is done to a client's Cookie fields before servers get them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edit<'a> {
    /// The cookie of that name is taken out.
    Remove(&'a str),
    /// Of its value a token at the beginning is.
    Unprefix(&'a str),
}

impl<'a> Edit<'a> {
    fn name(self) -> &'a str {
        match self {
            Edit::Remove(name) | Edit::Unprefix(name) => name,
        }
    }

    /// Whether a field of that value has to be written anew.
    pub fn touches(self, field: &[u8]) -> bool {
        pairs(field).any(|pair| self.applies(pair))
    }

    fn applies(self, pair: &[u8]) -> bool {
        let (name, value) = split(pair);
        name == self.name().as_bytes()
            && match self {
                Edit::Remove(_) => true,
                Edit::Unprefix(_) => prefixed(value).is_some(),
            }
    }

    /// Appends the field line, or nothing where no cookie is left.
    pub fn write(self, field: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        let mut before: &[u8] = b"Cookie: ";
        for pair in pairs(field) {
            let changed = self.applies(pair);
            if changed && matches!(self, Edit::Remove(_)) {
                continue;
            }
            out.extend_from_slice(before);
            before = b"; ";
            match prefixed(split(pair).1).filter(|_| changed) {
                Some((_, own)) => {
                    out.extend_from_slice(self.name().as_bytes());
                    out.push(b'=');
                    out.extend_from_slice(own);
                }
                None => out.extend_from_slice(pair),
            }
        }
        if out.len() > start {
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// The token at the beginning of a value, and the application's own behind it.
pub fn prefixed(value: &[u8]) -> Option<(Token, &[u8])> {
    let (head, rest) = value.split_at_checked(LENGTH)?;
    let (between, own) = rest.split_first()?;
    Some((Token::parse(head)?, own)).filter(|_| *between == BETWEEN)
}

/// `a=1`, `b=2`: without blanks around.
fn pairs(field: &[u8]) -> impl Iterator<Item = &[u8]> {
    field.split(|byte| *byte == b';').map(<[u8]>::trim_ascii).filter(|pair| !pair.is_empty())
}

/// Name and value, as `route::Head::cookies` sees them.
fn split(pair: &[u8]) -> (&[u8], &[u8]) {
    match memchr(b'=', pair) {
        Some(at) => (pair[..at].trim_ascii_end(), pair[at + 1..].trim_ascii_start()),
        None => (pair, &[]),
    }
}

/// The value that a Set-Cookie field gives to the cookie of that name (RFC 6265 §5.2). `None` for other cookies.
pub fn set_value<'f>(field: &'f [u8], name: &str) -> Option<&'f [u8]> {
    let end = memchr(b';', field).unwrap_or(field.len());
    let at = memchr(b'=', &field[..end])?;
    (field[..at].trim_ascii() == name.as_bytes()).then(|| field[at + 1..end].trim_ascii())
}

/// Appends a Set-Cookie value with another value in the place of its own, and the same attributes; `keep` is put
/// behind the new one.
pub fn replaced(field: &[u8], name: &str, value: &[u8], keep: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_bytes());
    out.push(b'=');
    out.extend_from_slice(value);
    out.extend_from_slice(keep);
    out.extend_from_slice(&field[memchr(b';', field).unwrap_or(field.len())..]);
}

/// Appends the value of a Set-Cookie of our own: it lasts as long as the browser's session, no script reads it, and
/// no other site's form sends it.
pub fn own(name: &str, token: &[u8], secure: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_bytes());
    out.push(b'=');
    out.extend_from_slice(token);
    out.extend_from_slice(b"; Path=/; HttpOnly; SameSite=Lax");
    if secure {
        out.extend_from_slice(b"; Secure");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "8PHy8_T19vf4-fr7_P3-_w";

    fn edited(edit: Edit<'_>, field: &str) -> Option<String> {
        let mut out = Vec::new();
        edit.touches(field.as_bytes()).then(|| {
            edit.write(field.as_bytes(), &mut out);
            String::from_utf8(out).unwrap()
        })
    }

    #[test]
    fn our_cookie_is_taken_out_and_the_others_stay() {
        let remove = |field: &str| edited(Edit::Remove("REEVE"), field);
        assert_eq!(remove("a=1; REEVE=x; b=2").as_deref(), Some("Cookie: a=1; b=2\r\n"));
        assert_eq!(remove("REEVE=x").as_deref(), Some(""));
        assert_eq!(remove("REEVE=x; REEVE=y;").as_deref(), Some(""));
        assert_eq!(remove("REEVE = x;a=1").as_deref(), Some("Cookie: a=1\r\n"));
        assert_eq!(remove("a=\"x;y\"; REEVE=1").as_deref(), Some("Cookie: a=\"x; y\"\r\n"), "RFC 6265 §4.1.1");
        for field in ["a=1; b=2", "reeve=x", "XREEVE=1; REEVEX=2", "", ";;", "a=REEVE=1"] {
            assert_eq!(remove(field), None, "{field}");
        }
    }

    #[test]
    fn a_token_before_a_value_is_taken_away() {
        let strip = |field: &str| edited(Edit::Unprefix("SID"), field);
        assert_eq!(strip(&format!("a=1; SID={TOKEN}~abc~d; b=2")).as_deref(), Some("Cookie: a=1; SID=abc~d; b=2\r\n"));
        assert_eq!(strip(&format!("SID={TOKEN}~")).as_deref(), Some("Cookie: SID=\r\n"));
        for field in ["SID=abc", "SID=abc~def", &format!("SID={TOKEN}"), &format!("sid={TOKEN}~x"), "SID"] {
            assert_eq!(strip(field), None, "{field}");
        }
    }

    #[test]
    fn set_cookies_are_read_and_written() {
        let field = b"SID=abc=; Path=/x; Secure";
        assert_eq!(set_value(field, "SID"), Some(&b"abc="[..]));
        assert_eq!(set_value(b" SID = a ", "SID"), Some(&b"a"[..]));
        for other in [&b"sid=a"[..], b"SIDE=a", b"SID", b"a=SID=1", b"", b"; SID=1"] {
            assert_eq!(set_value(other, "SID"), None, "{other:?}");
        }
        let mut out = Vec::new();
        replaced(field, "SID", b"new~", b"abc=", &mut out);
        assert_eq!(out, b"SID=new~abc=; Path=/x; Secure");
        out.clear();
        replaced(b"SID=abc", "SID", b"new", b"", &mut out);
        assert_eq!(out, b"SID=new");
        out.clear();
        own("REEVE", b"t", true, &mut out);
        assert_eq!(out, b"REEVE=t; Path=/; HttpOnly; SameSite=Lax; Secure");
    }
}
