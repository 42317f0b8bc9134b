//! Chunked bodies (RFC 9112 §7.1): checked byte by byte, cleaned in place, never copied aside.
//!
//! What is passed on is canonical: sizes without leading zeros, no extensions (a recipient must
//! ignore them, and they have been used to hide requests), trailers that may not stand in a trailer
//! section left out. A clean body, which is nearly every one, is not moved at all.
//!
//! ```text
//!  Size --size line--> Data --all bytes--> DataEnd --CRLF--> Size
//!    \--size 0--> Trailers --empty line--> Done
//! ```

use std::ops::Range;

use smallvec::SmallVec;

use super::known::{Known, known};
use crate::model::Limits;

/// Where a chunked body stands.
#[derive(Debug, Clone)]
pub struct ChunkedBody {
    state: State,
    keep: Keep,
    /// Bytes of data that may still come.
    room: u64,
    /// Bytes of extensions seen so far.
    extensions: usize,
    /// Blanks behind a size are dropped: old servers pad their sizes to a fixed width.
    padded: bool,
    /// Trailer lines that were set aside.
    trailers: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Size,
    Data(u64),
    DataEnd,
    Trailers,
    Done,
}

/// What stays in the buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// The whole encoding, cleaned.
    Framed,
    /// The data alone, for a recipient that has no chunks; trailers are set aside.
    Data,
}

/// What one call of [`ChunkedBody::scan`] did with the buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scanned {
    /// Bytes at the front of the buffer to pass on.
    pub kept: usize,
    /// Bytes of the input that are settled; what is behind them has to be shown again, with more.
    pub taken: usize,
    /// The body has ended; what is behind `taken` belongs to the next message.
    pub done: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChunkFault {
    Size,
    Extension,
    /// No CR LF behind the data of a chunk.
    DataEnd,
    Trailer,
    TrailersTooLarge,
    /// More data than the body may have.
    BodyTooLarge,
}

impl ChunkFault {
    pub fn detail(self) -> &'static str {
        match self {
            ChunkFault::Size => "the size of a chunk is not valid",
            ChunkFault::Extension => "the extension of a chunk is not valid or too long",
            ChunkFault::DataEnd => "a chunk is longer or shorter than its size",
            ChunkFault::Trailer => "a trailer field is not valid",
            ChunkFault::TrailersTooLarge => "the trailer section is too large",
            ChunkFault::BodyTooLarge => "the request body is too large",
        }
    }
}

/// Digits of a size: 16 hold any 64-bit number.
const MOST_DIGITS: usize = 16;

impl ChunkedBody {
    pub fn new(keep: Keep) -> ChunkedBody {
        ChunkedBody { state: State::Size, keep, room: u64::MAX, extensions: 0, padded: false, trailers: Vec::new() }
    }

    /// A body of `most` bytes of data.
    pub fn limited(keep: Keep, most: u64) -> ChunkedBody {
        ChunkedBody { room: most, ..ChunkedBody::new(keep) }
    }

    /// The body of a server's answer.
    pub fn of_answer(keep: Keep) -> ChunkedBody {
        ChunkedBody { padded: true, ..ChunkedBody::new(keep) }
    }

    /// The trailer lines of a body of which the data alone was kept, each with its CR LF.
    pub fn trailers(&self) -> &[u8] {
        &self.trailers
    }

    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Looks through `bytes`, moving what is to be passed on to the front.
    pub fn scan(&mut self, bytes: &mut [u8], limits: &Limits) -> Result<Scanned, ChunkFault> {
        let (mut at, mut kept) = (0, 0);
        loop {
            match self.state {
                State::Size => {
                    let Some(line) = size_line(&bytes[at..], self.padded, limits)? else { break };
                    self.extensions += line.extension;
                    if self.extensions > limits.chunk_extensions_total {
                        return Err(ChunkFault::Extension);
                    }
                    self.room = self.room.checked_sub(line.size).ok_or(ChunkFault::BodyTooLarge)?;
                    let digits = at + line.digits.start..at + line.digits.end;
                    at += line.length;
                    if self.keep == Keep::Framed {
                        keep_range(bytes, digits, &mut kept);
                        // The line was at least two bytes longer than its digits.
                        bytes[kept..kept + 2].copy_from_slice(b"\r\n");
                        kept += 2;
                    }
                    self.state = if line.size == 0 { State::Trailers } else { State::Data(line.size) };
                }
                State::Data(left) => {
                    let here = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len() - at);
                    keep_range(bytes, at..at + here, &mut kept);
                    at += here;
                    let left = left - here as u64;
                    if left > 0 {
                        self.state = State::Data(left);
                        break;
                    }
                    self.state = State::DataEnd;
                }
                State::DataEnd => match &bytes[at..] {
                    [b'\r', b'\n', ..] => {
                        if self.keep == Keep::Framed {
                            keep_range(bytes, at..at + 2, &mut kept);
                        }
                        at += 2;
                        self.state = State::Size;
                    }
                    [] | [b'\r'] => break,
                    _ => return Err(ChunkFault::DataEnd),
                },
                State::Trailers => {
                    let Some(section) = trailers(&bytes[at..], limits)? else { break };
                    if self.keep == Keep::Framed {
                        for line in section.lines {
                            keep_range(bytes, at + line.start..at + line.end, &mut kept);
                        }
                        keep_range(bytes, at + section.length - 2..at + section.length, &mut kept);
                    } else {
                        for line in section.lines {
                            self.trailers.extend_from_slice(&bytes[at + line.start..at + line.end]);
                        }
                    }
                    at += section.length;
                    self.state = State::Done;
                }
                State::Done => break,
            }
        }
        Ok(Scanned { kept, taken: at, done: self.state == State::Done })
    }
}

fn keep_range(bytes: &mut [u8], range: Range<usize>, kept: &mut usize) {
    let length = range.len();
    if range.start != *kept {
        bytes.copy_within(range, *kept);
    }
    *kept += length;
}

struct SizeLine {
    size: u64,
    /// Where the digits are, without leading zeros.
    digits: Range<usize>,
    /// Bytes between the digits and the line's end.
    extension: usize,
    /// Bytes of the line, CR LF included.
    length: usize,
}

fn size_line(bytes: &[u8], padded: bool, limits: &Limits) -> Result<Option<SizeLine>, ChunkFault> {
    let digits = bytes.iter().take(MOST_DIGITS + 1).take_while(|byte| byte.is_ascii_hexdigit()).count();
    if digits > MOST_DIGITS {
        return Err(ChunkFault::Size);
    }
    if digits == bytes.len() {
        return Ok(None);
    }
    if digits == 0 {
        return Err(ChunkFault::Size);
    }
    // Data sizes stay below 2^63, so that sums cannot overflow.
    let text = std::str::from_utf8(&bytes[..digits]).map_err(|_| ChunkFault::Size)?;
    let size = u64::from_str_radix(text, 16).ok().filter(|size| *size <= i64::MAX as u64).ok_or(ChunkFault::Size)?;
    let rest = &bytes[digits..];
    let window = &rest[..rest.len().min(limits.chunk_extension_bytes + 2)];
    let Some(line_feed) = memchr::memchr(b'\n', window) else {
        // A digit must be followed by CR, or by what may begin an extension (RFC 9112 §7.1.1).
        return match rest[0] {
            b'\r' if rest.len() == 1 => Ok(None),
            b'\r' => Err(ChunkFault::Size),
            b';' | b' ' | b'\t' if window.len() == rest.len() => Ok(None),
            b';' | b' ' | b'\t' => Err(ChunkFault::Extension),
            _ => Err(ChunkFault::Size),
        };
    };
    let Some(extension) = rest[..line_feed].strip_suffix(b"\r") else { return Err(ChunkFault::Size) };
    let padding = padded && extension.iter().all(|byte| matches!(byte, b' ' | b'\t'));
    if !extension.is_empty() && !padding && !is_extension(extension) {
        return Err(if extension[0] == b';' { ChunkFault::Extension } else { ChunkFault::Size });
    }
    let zeros = text.len() - text.trim_start_matches('0').len();
    let start = zeros.min(digits - 1);
    Ok(Some(SizeLine { size, digits: start..digits, extension: extension.len(), length: digits + line_feed + 1 }))
}

/// `*( BWS ";" BWS name [ BWS "=" BWS value ] )`: what is inside is dropped anyway, so only the
/// characters are checked, and that a semicolon comes before anything else.
fn is_extension(text: &[u8]) -> bool {
    text.trim_ascii_start().first() == Some(&b';')
        && text.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~' | 0x80..=0xff))
}

struct TrailerSection {
    /// The lines to pass on, CR LF included.
    lines: SmallVec<[Range<usize>; 8]>,
    /// Bytes of the section, its empty line included.
    length: usize,
}

fn trailers(bytes: &[u8], limits: &Limits) -> Result<Option<TrailerSection>, ChunkFault> {
    if bytes.starts_with(b"\r\n") {
        return Ok(Some(TrailerSection { lines: SmallVec::new(), length: 2 }));
    }
    let window = &bytes[..bytes.len().min(limits.trailer_bytes + 4)];
    let Some(end) = memchr::memmem::find(window, b"\r\n\r\n") else {
        // A lone CR or nothing may still become an empty line.
        return if bytes.len() > limits.trailer_bytes { Err(ChunkFault::TrailersTooLarge) } else { Ok(None) };
    };
    let section = &bytes[..end + 2];
    let mut table = [httparse::EMPTY_HEADER; 64];
    let most = limits.trailer_count.min(table.len());
    match httparse::parse_headers(&bytes[..end + 4], &mut table[..most]) {
        Ok(httparse::Status::Complete((length, _))) if length == end + 4 => {}
        Err(httparse::Error::TooManyHeaders) => return Err(ChunkFault::TrailersTooLarge),
        _ => return Err(ChunkFault::Trailer),
    }
    let mut lines = SmallVec::new();
    let mut start = 0;
    for at in memchr::memchr_iter(b'\n', section) {
        let line = &section[start..=at];
        let Some(text) = line.strip_suffix(b"\r\n") else { return Err(ChunkFault::Trailer) };
        let colon = memchr::memchr(b':', text).ok_or(ChunkFault::Trailer)?;
        let name = std::str::from_utf8(&text[..colon]).map_err(|_| ChunkFault::Trailer)?;
        if may_trail(name) {
            lines.push(start..at + 1);
        }
        start = at + 1;
    }
    Ok(Some(TrailerSection { lines, length: end + 4 }))
}

/// Framing, routing, authentication and content fields may not come late (RFC 9110 §6.5.1), nor those that tell a server
/// who somebody is: behind CGI and its kin nobody can tell `_` from `-`.
pub fn may_trail(name: &str) -> bool {
    const NEVER: [&str; 16] = [
        "authorization",
        "cache-control",
        "content-encoding",
        "content-range",
        "content-type",
        "cookie",
        "set-cookie",
        "location",
        "proxy-authenticate",
        "proxy-authorization",
        "range",
        "trailer",
        "vary",
        "www-authenticate",
        "age",
        "expires",
    ];
    matches!(known(name), Known::Other | Known::RequestId)
        && !NEVER.iter().any(|never| name.eq_ignore_ascii_case(never))
        && !name.get(..3).is_some_and(|start| start.eq_ignore_ascii_case("if-"))
        && !name.get(..7).is_some_and(|start| start.replace('_', "-").eq_ignore_ascii_case("x-auth-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_somebody_is_does_not_come_late() {
        for name in ["X-Auth-User", "x_auth_user", "x-auth_x", "If-Match", "cookie", "host"] {
            assert!(!may_trail(name), "{name}");
        }
        for name in ["x-authority", "x-aut", "grpc-status", "\u{e9}-auth-user"] {
            assert!(may_trail(name), "{name}");
        }
    }

    /// Feeds `text` in pieces of `step` bytes, as a relay does.
    fn run(text: &[u8], keep: Keep, step: usize) -> Result<(Vec<u8>, usize, bool), ChunkFault> {
        let limits = Limits::default();
        let mut body = ChunkedBody::new(keep);
        let (mut out, mut waiting, mut used, mut done) = (Vec::new(), Vec::new(), 0, false);
        for piece in text.chunks(step) {
            waiting.extend_from_slice(piece);
            let scanned = body.scan(&mut waiting, &limits)?;
            out.extend_from_slice(&waiting[..scanned.kept]);
            waiting.drain(..scanned.taken);
            used += scanned.taken;
            done = scanned.done;
            if done {
                break;
            }
        }
        Ok((out, used, done))
    }

    #[test]
    fn clean_bodies_pass_unchanged_whatever_the_pieces() {
        let text = b"3\r\nhel\r\nA\r\n0123456789\r\n0\r\nX-T: 1\r\n\r\n";
        for step in 1..=text.len() {
            assert_eq!(run(text, Keep::Framed, step), Ok((text.to_vec(), text.len(), true)), "step {step}");
            assert_eq!(run(text, Keep::Data, step), Ok((b"hel0123456789".to_vec(), text.len(), true)), "step {step}");
        }
    }

    #[test]
    fn odd_bodies_are_cleaned() {
        for (text, clean) in [
            (&b"0005;a=b\r\nhello\r\n0;x\r\n\r\n"[..], &b"5\r\nhello\r\n0\r\n\r\n"[..]),
            (b"5 ; q=\"z\"\r\nhello\r\n000\r\n\r\n", b"5\r\nhello\r\n0\r\n\r\n"),
            (b"5;\r\nhello\r\n0\r\n\r\n", b"5\r\nhello\r\n0\r\n\r\n"),
            (b"0\r\nHost: evil\r\nX: 1\r\nContent-Length: 5\r\nY:2\r\n\r\n", b"0\r\nX: 1\r\nY:2\r\n\r\n"),
            (b"0\r\nTransfer-Encoding: chunked\r\n\r\n", b"0\r\n\r\n"),
        ] {
            for step in 1..=text.len() {
                let out = run(text, Keep::Framed, step).unwrap_or_else(|fault| panic!("{fault:?} at {step}: {text:?}"));
                assert_eq!(out, (clean.to_vec(), text.len(), true), "step {step}");
            }
        }
    }

    #[test]
    fn bad_bodies_are_refused_whatever_the_pieces() {
        let zeros = [b"0".repeat(5000), b"5\r\nhello\r\n0\r\n\r\n".to_vec()].concat();
        let long = [b"5;".to_vec(), b"a".repeat(300), b"\r\nhello\r\n0\r\n\r\n".to_vec()].concat();
        for text in [
            &b"-5\r\nhello\r\n0\r\n\r\n"[..],
            b"+5\r\nhello\r\n0\r\n\r\n",
            b"0x5\r\nhello\r\n0\r\n\r\n",
            b"5_0\r\nhello\r\n",
            b"10000000000000005\r\nhello\r\n0\r\n\r\n",
            b"FFFFFFFFFFFFFFFF\r\nhello\r\n",
            b"\"5\"\r\nhello\r\n0\r\n\r\n",
            b"\xb5\r\nhello\r\n0\r\n\r\n",
            b" 5\r\nhello\r\n0\r\n\r\n",
            b"5 \r\nhello\r\n0\r\n\r\n",
            b"5\nhello\r\n0\r\n\r\n",
            b"5\rhello\r\n0\r\n\r\n",
            b"5;a\rb\r\nhello\r\n0\r\n\r\n",
            b"5;a\nhello\r\n0\r\n\r\n",
            b"5;a\0\r\nhello\r\n0\r\n\r\n",
            b"5 x\r\nhello\r\n0\r\n\r\n",
            b"5\r\nhelloAB0\r\n\r\n",
            b"5\r\nhello\n0\r\n\r\n",
            b"5\r\nhello\r0\r\n\r\n",
            b"\r\n",
            b"0\r\nGET /smuggled HTTP/1.1\r\n\r\n",
            b"0\r\n: x\r\n\r\n",
            b"0\r\nX : x\r\n\r\n",
            b"0\r\nX: a\nY: b\r\n\r\n",
            b"0\r\nX: a\r\n folded\r\n\r\n",
            &zeros,
            &long,
        ] {
            for step in [1, 2, 3, 7, 4096] {
                assert!(
                    run(text, Keep::Framed, step).is_err(),
                    "taken in steps of {step}: {:?}",
                    text.escape_ascii().to_string()
                );
            }
        }
    }

    #[test]
    fn a_server_may_pad_its_sizes() {
        let limits = Limits::default();
        let mut text = *b"5   \r\nhello\r\n0 \t\r\n\r\n";
        let scanned = ChunkedBody::of_answer(Keep::Framed).scan(&mut text, &limits);
        assert_eq!(scanned, Ok(Scanned { kept: 15, taken: 20, done: true }));
        assert_eq!(&text[..15], b"5\r\nhello\r\n0\r\n\r\n");
        assert_eq!(ChunkedBody::of_answer(Keep::Framed).scan(&mut b"5 x\r\n".to_vec(), &limits), Err(ChunkFault::Size));
    }

    #[test]
    fn trailers_are_bounded() {
        let many = format!("0\r\n{}\r\n", (0..33).map(|n| format!("X-{n}: v\r\n")).collect::<String>());
        assert_eq!(run(many.as_bytes(), Keep::Framed, 64), Err(ChunkFault::TrailersTooLarge));
        let large = format!("0\r\nX: {}\r\n\r\n", "a".repeat(9000));
        assert_eq!(run(large.as_bytes(), Keep::Framed, 1000), Err(ChunkFault::TrailersTooLarge));
    }

    #[test]
    fn what_follows_is_left_alone() {
        let text = b"0\r\n\r\nGET / HTTP/1.1\r\n";
        assert_eq!(run(text, Keep::Framed, 100), Ok((b"0\r\n\r\n".to_vec(), 5, true)));
    }

    #[test]
    fn many_extensions_are_refused() {
        let text = "1;aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\nx\r\n".repeat(100);
        assert_eq!(run(text.as_bytes(), Keep::Framed, 4096), Err(ChunkFault::Extension));
    }
}
