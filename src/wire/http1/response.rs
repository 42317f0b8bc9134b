//! The head of a response, as a server sends it.

use std::mem::MaybeUninit;

use smallvec::SmallVec;

use super::known::{Known, known};
use super::{Fields, Framing, Meanings, has_bare_lf, is_token, members, parse_length};
use crate::model::Limits;
use crate::wire::field::Field;

/// A response head that can be understood in one way only.
#[derive(Debug)]
pub struct ResponseHead<'a> {
    /// 100 to 599.
    pub status: u16,
    pub reason: &'a str,
    pub fields: Fields<'a>,
    /// What each of the fields means.
    pub known: Meanings,
    pub body: Framing,
    /// The Content-Length that was said, also where no body follows (HEAD, 304).
    pub length: Option<u64>,
    /// Whether the body, had there been one, would be chunked (HEAD).
    pub chunked: bool,
    /// The server keeps its connection.
    pub keep_alive: bool,
    /// `Upgrade: websocket` beside `Connection: upgrade`.
    pub websocket: bool,
    /// There is a Date.
    pub dated: bool,
    pub nominated: SmallVec<[&'a [u8]; 4]>,
    /// The bytes it was read from, its empty line included.
    pub raw: &'a [u8],
}

/// Why an answer is not passed on: the client gets 502.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponseFault {
    Syntax(httparse::Error),
    BareLineFeed,
    TooLarge,
    Status,
    ContentLength,
    TransferEncoding,
}

impl ResponseFault {
    pub fn detail(self) -> &'static str {
        match self {
            ResponseFault::Syntax(_) => "the server's answer is not HTTP/1.1",
            ResponseFault::BareLineFeed => "a line of the server's answer ends in a bare LF",
            ResponseFault::TooLarge => "the head of the server's answer is too large",
            ResponseFault::Status => "the server's answer has no valid status",
            ResponseFault::ContentLength => "the Content-Length of the server's answer is not valid",
            ResponseFault::TransferEncoding => "the Transfer-Encoding of the server's answer is not valid",
        }
    }
}

impl<'a> ResponseHead<'a> {
    /// Nothing has been read yet. A head is large: it is filled where it stands, not handed about.
    pub fn empty() -> ResponseHead<'a> {
        ResponseHead {
            status: 0,
            reason: "",
            fields: SmallVec::new(),
            known: SmallVec::new(),
            body: Framing::None,
            length: None,
            chunked: false,
            keep_alive: false,
            websocket: false,
            dated: false,
            nominated: SmallVec::new(),
            raw: b"",
        }
    }
}

/// Parses the head at the start of `bytes`; `method` is the request's. `Ok(None)`: not all there yet.
///
/// # Errors
/// As [`parse_into`].
pub fn parse<'a>(bytes: &'a [u8], method: Method, limits: &Limits) -> Result<Option<ResponseHead<'a>>, ResponseFault> {
    let mut head = ResponseHead::empty();
    Ok(parse_into(&mut head, bytes, method, limits)?.then_some(head))
}

/// Parses the head at the start of `bytes` into one that is empty. False: not all of it is there yet.
///
/// # Errors
/// When it could be understood in more than one way, or is too large.
pub fn parse_into<'a>(
    head: &mut ResponseHead<'a>,
    bytes: &'a [u8],
    method: Method,
    limits: &Limits,
) -> Result<bool, ResponseFault> {
    let mut table = [const { MaybeUninit::uninit() }; Limits::HEADER_COUNT_CEILING];
    let mut raw = httparse::Response::new(&mut []);
    let mut parser = httparse::ParserConfig::default();
    // RFC 9112 §5.1: a proxy removes the blanks that a server put before a colon.
    parser.allow_spaces_after_header_name_in_responses(true);
    let bytes_of_head = match parser.parse_response_with_uninit_headers(&mut raw, bytes, &mut table) {
        Ok(httparse::Status::Complete(length)) if length > limits.header_bytes => return Err(ResponseFault::TooLarge),
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if bytes.len() >= limits.header_bytes => return Err(ResponseFault::TooLarge),
        Ok(httparse::Status::Partial) => return Ok(false),
        Err(httparse::Error::TooManyHeaders) => return Err(ResponseFault::TooLarge),
        Err(error) => return Err(ResponseFault::Syntax(error)),
    };
    // An empty line before the status line is no answer; httparse would skip it.
    if has_bare_lf(&bytes[..bytes_of_head]) || !bytes.starts_with(b"HTTP/") {
        return Err(ResponseFault::BareLineFeed);
    }
    let status = raw.code.filter(|code| (100..600).contains(code)).ok_or(ResponseFault::Status)?;
    let old = raw.version == Some(0);
    head.status = status;
    head.reason = raw.reason.unwrap_or_default();
    head.raw = &bytes[..bytes_of_head];
    let mut close = false;
    let mut keep_alive = false;
    let mut upgrade = false;
    let mut websocket = false;
    let mut distinct_lengths = false;
    for line in raw.headers.iter() {
        let field = Field { name: line.name, value: line.value };
        let known = known(field.name);
        match known {
            Known::ContentLength => {
                let length = parse_length(field.value).ok_or(ResponseFault::ContentLength)?;
                distinct_lengths |= head.length.is_some_and(|before| before != length);
                head.length = Some(length);
            }
            Known::TransferEncoding => {
                if head.chunked || old || !field.value.eq_ignore_ascii_case(b"chunked") {
                    return Err(ResponseFault::TransferEncoding);
                }
                head.chunked = true;
            }
            Known::Connection => {
                for member in members(field.value) {
                    if member.eq_ignore_ascii_case(b"close") {
                        close = true;
                    } else if member.eq_ignore_ascii_case(b"keep-alive") {
                        keep_alive = true;
                    } else if member.eq_ignore_ascii_case(b"upgrade") {
                        upgrade = true;
                    } else if is_token(member) {
                        head.nominated.push(member);
                    }
                }
            }
            Known::Upgrade => websocket |= field.value.eq_ignore_ascii_case(b"websocket"),
            Known::Date => head.dated = true,
            _ => {}
        }
        head.fields.push(field);
        head.known.push(known);
    }
    if distinct_lengths {
        // RFC 9112 §6.3 rule 5.
        return Err(ResponseFault::ContentLength);
    }
    head.websocket = upgrade && websocket;
    let both = head.chunked && head.length.is_some();
    // A server that says both cannot be trusted with a second request (RFC 9112 §6.3 rule 3).
    head.keep_alive = !close && !both && (!old || keep_alive);
    head.body = framing(head, method);
    if head.body == Framing::UntilClose {
        head.keep_alive = false;
    }
    Ok(true)
}

/// What a request's method says about its answer's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    Head,
    Other,
}

/// RFC 9112 §6.3, rules 1 and 3 to 8.
fn framing(head: &ResponseHead<'_>, method: Method) -> Framing {
    if method == Method::Head || head.status < 200 || head.status == 204 || head.status == 304 {
        return Framing::None;
    }
    match (head.chunked, head.length) {
        (true, _) => Framing::Chunked,
        (false, Some(length)) => Framing::Length(length),
        (false, None) => Framing::UntilClose,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str, method: Method) -> Result<Option<(u16, Framing, bool)>, ResponseFault> {
        parse(text.as_bytes(), method, &Limits::default())
            .map(|head| head.map(|head| (head.status, head.body, head.keep_alive)))
    }

    #[test]
    fn framings() {
        let ok = |text: &str, method, framing, keep| {
            let text = format!("{text}\r\n\r\n");
            let status = text[9..12].parse().unwrap_or(0);
            assert_eq!(one(&text, method), Ok(Some((status, framing, keep))), "{text:?}");
        };
        ok("HTTP/1.1 200 OK\r\nContent-Length: 5", Method::Other, Framing::Length(5), true);
        ok("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5", Method::Other, Framing::Length(5), true);
        ok("HTTP/1.1 200 OK\r\nContent-Length: 5", Method::Head, Framing::None, true);
        ok("HTTP/1.1 200 OK", Method::Other, Framing::UntilClose, false);
        ok("HTTP/1.1 200\r\nTransfer-Encoding: Chunked", Method::Other, Framing::Chunked, true);
        ok(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3",
            Method::Other,
            Framing::Chunked,
            false,
        );
        ok("HTTP/1.1 204 No\r\nContent-Length: 5", Method::Other, Framing::None, true);
        ok("HTTP/1.1 304 No\r\nContent-Length: 5", Method::Other, Framing::None, true);
        ok("HTTP/1.0 200 OK\r\nContent-Length: 5", Method::Other, Framing::Length(5), false);
        ok("HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive", Method::Other, Framing::Length(5), true);
        ok("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: x, close", Method::Other, Framing::Length(5), false);
    }

    #[test]
    fn refused() {
        for text in [
            "<html>hello</html>",
            "HTTP/1.1 99 X\r\n\r\n",
            "HTTP/1.1 600 X\r\n\r\n",
            "HTTP/2.0 200 OK\r\n\r\n",
            "http/1.1 200 OK\r\n\r\n",
            "\r\nHTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\nContent-Length: 2\n\n",
            "HTTP/1.1 200 OK\r\nContent-Length: abc\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX F: a\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX-F: a\r\n b\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX-F: a\0b\r\n\r\n",
        ] {
            assert!(one(text, Method::Other).is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn blanks_before_a_colon_are_removed() {
        let text = b"HTTP/1.1 200 OK\r\nX-F \t: a\r\nContent-Length : 2\r\n\r\n";
        let head = parse(text, Method::Other, &Limits::default()).unwrap().unwrap();
        assert_eq!((head.fields[0].name, head.fields[0].value, head.length), ("X-F", &b"a"[..], Some(2)));
        assert_eq!(
            one("HTTP/1.1 200 OK\r\n : a\r\n\r\n", Method::Other),
            Err(ResponseFault::Syntax(httparse::Error::HeaderName))
        );
    }

    #[test]
    fn partial() {
        assert_eq!(one("HTTP/1.1 200 OK\r\nContent-Le", Method::Other), Ok(None));
    }
}
