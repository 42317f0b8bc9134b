//! What a TLS server says first, read without taking part in the handshake: the session that it calls by a name.
//!
//! ```text
//! record     22  version(2)  length(2)   fragment of a handshake message     RFC 8446 §5.1
//! handshake   2  length(3)   ServerHello                                     RFC 5246 §7.4.1.3, RFC 8446 §4.1.3
//! ```
//!
//! Servers send it in one record, in front of everything else; one that is spread over several is not looked at. It may
//! be cut anywhere into TCP segments.

use super::client_hello::HANDSHAKE;

/// What a server said first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerHello<'a> {
    /// The session's name, by which a client of TLS 1.2 may come back; in 1.3 only what the client had sent.
    pub session_id: &'a [u8],
    pub is_tls13: bool,
}

/// What is longer than this and not whole yet is no ServerHello: it has about 100 bytes.
pub const LONGEST: usize = 4096;

const SERVER_HELLO: u8 = 2;
const RANDOM: usize = 32;
const SUPPORTED_VERSIONS: u16 = 43;

/// Reads the ServerHello that begins `bytes`. `Ok(None)`: it goes on behind them.
///
/// # Errors
/// When no continuation could make one of `bytes`.
pub fn parse(bytes: &[u8]) -> Result<Option<ServerHello<'_>>, NoServerHello> {
    if bytes.first().is_some_and(|kind| *kind != HANDSHAKE) || bytes.get(5).is_some_and(|kind| *kind != SERVER_HELLO) {
        return Err(NoServerHello);
    }
    let (Some(record), Some(message)) = (bytes.get(3..5), bytes.get(6..9)) else { return Ok(None) };
    let record = usize::from(record[0]) << 8 | usize::from(record[1]);
    let length = usize::from(message[0]) << 16 | usize::from(message[1]) << 8 | usize::from(message[2]);
    if length + 4 > record || length > LONGEST {
        return Err(NoServerHello);
    }
    match bytes.get(9..9 + length) {
        Some(hello) => read(hello).map(Some).ok_or(NoServerHello),
        None => Ok(None),
    }
}

/// Bytes that are not a ServerHello: an alert, or no TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoServerHello;

fn read(hello: &[u8]) -> Option<ServerHello<'_>> {
    let rest = hello.get(2 + RANDOM..)?;
    let (&count, rest) = rest.split_first()?;
    let (session_id, rest) = rest.split_at_checked(usize::from(count))?;
    // The cipher and the compression, then extensions where there are some.
    let mut extensions = match rest.get(3..)? {
        [] => &[][..],
        [high, low, rest @ ..] => rest.get(..usize::from(*high) << 8 | usize::from(*low))?,
        _ => return None,
    };
    let mut is_tls13 = false;
    while let [a, b, high, low, rest @ ..] = extensions {
        // RFC 8446 §4.2.1: whoever chooses 1.3 says so here.
        is_tls13 |= u16::from_be_bytes([*a, *b]) == SUPPORTED_VERSIONS;
        extensions = rest.get(usize::from(*high) << 8 | usize::from(*low)..)?;
    }
    Some(ServerHello { session_id, is_tls13 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(session_id: &[u8], extensions: &[u8]) -> Vec<u8> {
        let mut body = [&[3, 3][..], &[7; RANDOM], &[session_id.len() as u8], session_id, &[0x13, 1, 0]].concat();
        if !extensions.is_empty() {
            body.extend_from_slice(&(extensions.len() as u16).to_be_bytes());
            body.extend_from_slice(extensions);
        }
        let message = [&[SERVER_HELLO, 0, 0, body.len() as u8][..], &body].concat();
        [&[HANDSHAKE, 3, 3, 0, message.len() as u8][..], &message].concat()
    }

    #[test]
    fn both_versions_are_told_apart_however_they_are_cut() {
        for (extensions, is_tls13) in
            [(&[][..], false), (&[0xff, 1, 0, 1, 0], false), (&[0xff, 1, 0, 1, 0, 0, 43, 0, 2, 3, 4], true)]
        {
            for session_id in [&[][..], &[9; 32]] {
                let mut bytes = hello(session_id, extensions);
                let whole = bytes.len();
                // A certificate may follow.
                bytes.extend_from_slice(&[HANDSHAKE, 3, 3, 1, 0, 11]);
                for cut in 0..whole {
                    assert_eq!(parse(&bytes[..cut]), Ok(None), "cut at {cut}");
                }
                assert_eq!(parse(&bytes), Ok(Some(ServerHello { session_id, is_tls13 })));
            }
        }
    }

    #[test]
    fn what_is_bent_is_no_hello_and_nothing_panics() {
        assert_eq!(parse(&[21, 3, 3, 0, 2, 2, 40]), Err(NoServerHello), "an alert");
        assert_eq!(parse(b"HTTP/1.1 400"), Err(NoServerHello));
        let good = hello(&[9; 32], &[0, 43, 0, 2, 3, 4]);
        for at in 0..good.len() {
            for byte in [0, 1, 0x7f, 0xff] {
                let mut bent = good.clone();
                bent[at] = byte;
                let _ = parse(&bent);
            }
        }
        let mut long = good;
        long[9 + 2 + RANDOM] = 200;
        assert_eq!(parse(&long), Err(NoServerHello), "a session beyond its end");
    }
}
