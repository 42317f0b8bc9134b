//! The `Session` field (RFC 2326 §12.37): an id, and how long a silent session lives.

use std::time::Duration;

/// What lives that no server has said anything of (RFC 2326 §12.37).
pub const USUAL_TIMEOUT: Duration = Duration::from_secs(60);

/// The longest life that is believed: a day.
const LONGEST: u64 = 86_400;

/// The longest id that is kept. Servers make 8 to 40 characters of their own.
pub const LONGEST_ID: usize = 256;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session<'a> {
    pub id: &'a str,
    pub timeout: Option<Duration>,
    /// What stands behind the id, with its `;`.
    pub rest: &'a str,
}

/// Reads a value of the field; `None` where there is no id that could be sent on.
pub fn parse(value: &[u8]) -> Option<Session<'_>> {
    let text = std::str::from_utf8(value).ok()?;
    let end = text.find(';').unwrap_or(text.len());
    let (id, rest) = text.split_at(end);
    let id = id.trim();
    if id.is_empty() || id.len() > LONGEST_ID || id.bytes().any(|byte| !byte.is_ascii_graphic()) {
        return None;
    }
    let seconds = rest.split(';').find_map(|part| {
        let (name, value) = part.split_once('=')?;
        name.trim().eq_ignore_ascii_case("timeout").then(|| value.trim().parse::<u64>().ok())?
    });
    let timeout = seconds.filter(|seconds| *seconds > 0).map(|seconds| Duration::from_secs(seconds.min(LONGEST)));
    Some(Session { id, timeout, rest })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_lives() {
        let secs = Duration::from_secs;
        for (value, id, timeout) in [
            ("12345678", "12345678", None),
            (" AB$-_.+ ;timeout=20", "AB$-_.+", Some(secs(20))),
            ("a; Timeout = 5 ;x=y", "a", Some(secs(5))),
            ("a;timeout=x", "a", None),
            ("a;timeout=0", "a", None),
            ("a;timeout=99999999", "a", Some(secs(86_400))),
        ] {
            let session = parse(value.as_bytes()).unwrap();
            assert_eq!((session.id, session.timeout), (id, timeout), "{value}");
        }
        for value in ["", ";timeout=1", "a b", "a\tb", "\u{e9}", &"x".repeat(300)] {
            assert_eq!(parse(value.as_bytes()), None, "{value}");
        }
    }
}
