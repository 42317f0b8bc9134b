//! The head of a request.

use std::mem::MaybeUninit;

use smallvec::SmallVec;

use super::host::{self, Authority};
use super::known::{Known, known};
use super::{Fields, Framing, Meanings, has_bare_lf, is_token, members, parse_length};
use crate::model::Limits;
use crate::wire::field::Field;

/// A request head that can be understood in one way only.
#[derive(Debug)]
pub struct RequestHead<'a> {
    pub method: &'a str,
    pub version: Version,
    pub target: Target<'a>,
    /// From the target where it is in absolute form (RFC 9112 §3.2.2), else from Host; a request of
    /// HTTP/1.0 may have none.
    pub authority: Option<Authority<'a>>,
    /// In the order they came.
    pub fields: Fields<'a>,
    /// What each of the fields means.
    pub known: Meanings,
    pub body: Framing,
    /// What the client wants of its connection; `Connection` and the version decided (RFC 9112 §9.3).
    pub keep_alive: bool,
    /// `Expect: 100-continue` of an HTTP/1.1 request with a body.
    pub expects_continue: bool,
    /// A complete WebSocket handshake (RFC 6455 §4.2.1).
    pub websocket: bool,
    /// The client takes trailers (`TE: trailers`).
    pub takes_trailers: bool,
    /// Names in Connection, other than those every proxy knows.
    pub nominated: SmallVec<[&'a [u8]; 4]>,
    /// `Max-Forwards` of TRACE and OPTIONS.
    pub max_forwards: Option<u32>,
    /// The bytes it was read from, its empty line included.
    pub raw: &'a [u8],
}

/// The version a request came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    Http10,
    Http11,
    /// Its head comes from `wire::http2`.
    Http2,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target<'a> {
    /// A path that begins with `/`, and what is behind the `?`.
    Path { path: &'a str, query: Option<&'a str> },
    /// `*` of OPTIONS.
    Asterisk,
}

/// Why a head is not taken. `status` is the answer; framing can no longer be trusted after any of
/// these, so the connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    Syntax(httparse::Error),
    BareLineFeed,
    TooLarge,
    TooManyFields,
    TargetTooLong,
    Version,
    Target,
    MissingHost,
    ManyHosts,
    Host,
    ContentLength,
    TransferEncoding,
    LengthAndEncoding,
    Expectation,
    MaxForwards,
    Connect,
    Trace,
    /// A field that belongs to a connection, in HTTP/2.
    ConnectionField,
    /// Blanks around a value, in HTTP/2.
    Value,
    /// Host and `:authority` differ.
    Authority,
}

impl Refusal {
    /// The status that tells the client.
    pub fn status(self) -> u16 {
        match self {
            Refusal::TooLarge | Refusal::TooManyFields => 431,
            Refusal::TargetTooLong => 414,
            Refusal::Version => 505,
            Refusal::Expectation => 417,
            Refusal::Connect => 501,
            Refusal::Trace => 405,
            _ => 400,
        }
    }

    /// One sentence for the error page and the log.
    pub fn detail(self) -> &'static str {
        match self {
            Refusal::Syntax(httparse::Error::HeaderName) => "a field name is not valid",
            Refusal::Syntax(httparse::Error::HeaderValue) => "a field value has a character that is not allowed",
            Refusal::Syntax(httparse::Error::NewLine) => "a line does not end in CR LF",
            Refusal::Syntax(_) => "the request line is not valid",
            Refusal::BareLineFeed => "a line ends in a bare LF",
            Refusal::TooLarge => "the request head is too large",
            Refusal::TooManyFields => "the request has too many fields",
            Refusal::TargetTooLong => "the request target is too long",
            Refusal::Version => "this version of HTTP is not spoken here",
            Refusal::Target => "the request target is not valid",
            Refusal::MissingHost => "the request has no Host field",
            Refusal::ManyHosts => "the request has more than one Host field",
            Refusal::Host => "the Host field is not valid",
            Refusal::ContentLength => "the Content-Length field is not valid",
            Refusal::TransferEncoding => "the Transfer-Encoding field is not valid",
            Refusal::LengthAndEncoding => "the request has both Content-Length and Transfer-Encoding",
            Refusal::Expectation => "the expectation cannot be met",
            Refusal::MaxForwards => "the Max-Forwards field is not valid",
            Refusal::Connect => "this server is not a tunnel",
            Refusal::Trace => "TRACE is switched off",
            Refusal::ConnectionField => "the request has a field that HTTP/2 does not have",
            Refusal::Value => "a field value begins or ends with a blank",
            Refusal::Authority => "the Host field and the authority differ",
        }
    }
}

impl<'a> RequestHead<'a> {
    /// Nothing has been read yet. A head is large: it is filled where it stands, not handed about.
    pub fn empty() -> RequestHead<'a> {
        RequestHead {
            method: "",
            version: Version::Http11,
            target: Target::Asterisk,
            authority: None,
            fields: SmallVec::new(),
            known: SmallVec::new(),
            body: Framing::None,
            keep_alive: true,
            expects_continue: false,
            websocket: false,
            takes_trailers: false,
            nominated: SmallVec::new(),
            max_forwards: None,
            raw: b"",
        }
    }

    /// The fields with what they mean.
    pub fn lines(&self) -> impl Iterator<Item = (&Field<'a>, Known)> {
        self.fields.iter().zip(self.known.iter().copied())
    }

    /// What is behind the `?`, where there is one.
    pub fn query(&self) -> Option<&'a str> {
        match self.target {
            Target::Path { query, .. } => query,
            Target::Asterisk => None,
        }
    }
}

/// Parses the head at the start of `bytes`. `Ok(None)`: not all of it is there yet.
///
/// # Errors
/// As [`parse_into`].
pub fn parse<'a>(bytes: &'a [u8], limits: &Limits) -> Result<Option<RequestHead<'a>>, Refusal> {
    let mut head = RequestHead::empty();
    Ok(parse_into(&mut head, bytes, limits)?.then_some(head))
}

/// Parses the head at the start of `bytes` into one that is empty. False: not all of it is there yet.
///
/// Call again only when more of the head has come *and* it holds an empty line ([`ends_head`]): a head
/// that drips in byte by byte must not be parsed each time.
///
/// # Errors
/// When it could be understood in more than one way, is over a limit, or asks for what is not done.
pub fn parse_into<'a>(head: &mut RequestHead<'a>, bytes: &'a [u8], limits: &Limits) -> Result<bool, Refusal> {
    // Nothing that follows could mend it, and the parser would look at a growing heap of them each time.
    if bytes.first() == Some(&b'\n') {
        return Err(Refusal::BareLineFeed);
    }
    let mut table = [const { MaybeUninit::uninit() }; Limits::HEADER_COUNT_CEILING];
    let table = &mut table[..limits.header_count.min(Limits::HEADER_COUNT_CEILING)];
    let mut raw = httparse::Request::new(&mut []);
    let length = match raw.parse_with_uninit_headers(bytes, table) {
        Ok(httparse::Status::Complete(length)) if length > limits.header_bytes => return Err(Refusal::TooLarge),
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if bytes.len() >= limits.header_bytes => return Err(Refusal::TooLarge),
        Ok(httparse::Status::Partial) => return Ok(false),
        Err(httparse::Error::TooManyHeaders) => return Err(Refusal::TooManyFields),
        Err(httparse::Error::Version) => return Err(bad_version(bytes)),
        Err(error) => return Err(Refusal::Syntax(error)),
    };
    if has_bare_lf(&bytes[..length]) {
        return Err(Refusal::BareLineFeed);
    }
    let (Some(method), Some(target)) = (raw.method, raw.path) else { return Err(Refusal::Target) };
    let version = if raw.version == Some(1) { Version::Http11 } else { Version::Http10 };
    if target.len() > limits.target_bytes {
        return Err(Refusal::TargetTooLong);
    }
    let (target, authority) = parse_target(method, target)?;
    head.method = method;
    head.version = version;
    head.target = target;
    head.authority = authority;
    head.keep_alive = version == Version::Http11;
    head.raw = &bytes[..length];
    read_fields(head, raw.headers)?;
    Ok(true)
}

/// Whether an empty line may have come with the bytes from `from` on.
pub fn ends_head(bytes: &[u8], from: usize) -> bool {
    let start = from.saturating_sub(3).min(bytes.len());
    memchr::memmem::find(&bytes[start..], b"\n\r\n").is_some()
        || memchr::memmem::find(&bytes[start..], b"\n\n").is_some()
}

/// 505 for a version that is well-formed (RFC 9110 §15.6.6), 400 for what is none.
fn bad_version(bytes: &[u8]) -> Refusal {
    let line = bytes.split(|byte| *byte == b'\n').find(|line| !line.trim_ascii().is_empty()).unwrap_or_default();
    let last = line.trim_ascii_end().rsplit(|byte| *byte == b' ').next().unwrap_or_default();
    match last {
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit() => {
            Refusal::Version
        }
        _ => Refusal::Syntax(httparse::Error::Version),
    }
}

/// The four forms of RFC 9112 §3.2.
fn parse_target<'a>(method: &str, target: &'a str) -> Result<(Target<'a>, Option<Authority<'a>>), Refusal> {
    if method == "CONNECT" {
        return Err(Refusal::Connect);
    }
    if method == "TRACE" {
        return Err(Refusal::Trace);
    }
    // Blanks and controls stop httparse.
    if !is_plain(target) {
        return Err(Refusal::Target);
    }
    if target.starts_with('/') {
        return Ok((split_query(target), None));
    }
    if target == "*" {
        return if method == "OPTIONS" { Ok((Target::Asterisk, None)) } else { Err(Refusal::Target) };
    }
    let rest = strip_scheme(target).ok_or(Refusal::Target)?;
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let authority = host::parse(&rest.as_bytes()[..end]).ok_or(Refusal::Target)?;
    let target = match &rest[end..] {
        // RFC 9112 §3.2.4: OPTIONS without a path asks for the server as a whole.
        "" if method == "OPTIONS" => Target::Asterisk,
        "" => Target::Path { path: "/", query: None },
        path if path.starts_with('?') => Target::Path { path: "/", query: Some(&path[1..]) },
        path => split_query(path),
    };
    Ok((target, Some(authority)))
}

/// No fragment, no byte that a URI cannot have (RFC 3986 §2).
#[inline]
pub(in crate::wire) fn is_plain(target: &str) -> bool {
    // All of it is looked at, whatever is found: that makes one comparison of sixteen bytes.
    !target.bytes().fold(false, |bad, byte| bad | (byte == b'#') | !byte.is_ascii_graphic())
}

pub(in crate::wire) fn split_query(target: &str) -> Target<'_> {
    match memchr::memchr(b'?', target.as_bytes()) {
        Some(at) => Target::Path { path: &target[..at], query: Some(&target[at + 1..]) },
        None => Target::Path { path: target, query: None },
    }
}

fn strip_scheme(target: &str) -> Option<&str> {
    ["http://", "https://"].iter().find_map(|scheme| {
        let start = target.get(..scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then(|| &target[scheme.len()..])
    })
}

/// What the field lines say, in one pass.
#[derive(Default)]
pub(in crate::wire) struct Seen<'a> {
    pub host: Option<Authority<'a>>,
    pub length: Option<u64>,
    pub chunked: bool,
    pub close: bool,
    pub keep_alive: bool,
    pub upgrade: bool,
    pub websocket: bool,
    pub websocket_version: bool,
    pub websocket_key: bool,
    pub expects_continue: bool,
    pub te: bool,
    pub trailers: bool,
}

fn read_fields<'a>(head: &mut RequestHead<'a>, lines: &[httparse::Header<'a>]) -> Result<(), Refusal> {
    let mut seen = Seen::default();
    for line in lines {
        let field = Field { name: line.name, value: line.value };
        read_field(head, &mut seen, field, known(field.name))?;
    }
    conclude(head, &seen)
}

/// Takes in one field.
#[inline]
pub(in crate::wire) fn read_field<'a>(
    head: &mut RequestHead<'a>,
    seen: &mut Seen<'a>,
    field: Field<'a>,
    known: Known,
) -> Result<(), Refusal> {
    match known {
        Known::Other => {}
        Known::Host if seen.host.is_some() => return Err(Refusal::ManyHosts),
        Known::Host => seen.host = Some(host::parse(field.value).ok_or(Refusal::Host)?),
        // Equal ones may be folded into one (RFC 9112 §6.3 rule 5); a list may not.
        Known::ContentLength => {
            let length = parse_length(field.value).ok_or(Refusal::ContentLength)?;
            if seen.length.is_some_and(|before| before != length) {
                return Err(Refusal::ContentLength);
            }
            seen.length = Some(length);
        }
        Known::TransferEncoding => {
            // Exactly `chunked`, once: everything else has been a way to smuggle (RFC 9112 §6.1).
            if seen.chunked || !field.value.eq_ignore_ascii_case(b"chunked") {
                return Err(Refusal::TransferEncoding);
            }
            seen.chunked = true;
        }
        Known::Connection => read_connection(field.value, seen, head),
        Known::Te => seen.trailers |= members(field.value).any(|member| member.eq_ignore_ascii_case(b"trailers")),
        Known::Upgrade => {
            seen.websocket |= members(field.value).any(|member| member.eq_ignore_ascii_case(b"websocket"))
        }
        Known::Expect => match head.version {
            // RFC 9110 §10.1.1: an expectation of an HTTP/1.0 client is ignored.
            Version::Http10 => {}
            _ if field.value.eq_ignore_ascii_case(b"100-continue") => seen.expects_continue = true,
            _ => return Err(Refusal::Expectation),
        },
        Known::MaxForwards if head.method == "OPTIONS" => {
            let text = std::str::from_utf8(field.value).map_err(|_| Refusal::MaxForwards)?;
            if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) || head.max_forwards.is_some() {
                return Err(Refusal::MaxForwards);
            }
            head.max_forwards = Some(text.parse().unwrap_or(u32::MAX));
        }
        Known::WebSocketVersion => seen.websocket_version = field.value == b"13",
        Known::WebSocketKey => seen.websocket_key = field.value.len() == 24,
        _ => {}
    }
    head.fields.push(field);
    head.known.push(known);
    Ok(())
}

fn read_connection<'a>(value: &'a [u8], seen: &mut Seen<'a>, head: &mut RequestHead<'a>) {
    for member in members(value) {
        if member.eq_ignore_ascii_case(b"close") {
            seen.close = true;
        } else if member.eq_ignore_ascii_case(b"keep-alive") {
            seen.keep_alive = true;
        } else if member.eq_ignore_ascii_case(b"upgrade") {
            seen.upgrade = true;
        } else if member.eq_ignore_ascii_case(b"te") {
            seen.te = true;
        } else if is_token(member) {
            head.nominated.push(member);
        }
    }
}

fn conclude<'a>(head: &mut RequestHead<'a>, seen: &Seen<'a>) -> Result<(), Refusal> {
    // RFC 9112 §3.2: a request of HTTP/1.1 has exactly one Host, whatever the form of its target.
    if seen.host.is_none() && head.version == Version::Http11 {
        return Err(Refusal::MissingHost);
    }
    if head.authority.is_none() {
        head.authority = seen.host;
    }
    head.body = match (seen.chunked, seen.length) {
        // RFC 9112 §6.1: HTTP/1.0 has no Transfer-Encoding; a message with both is an attack.
        (true, _) if head.version == Version::Http10 => return Err(Refusal::TransferEncoding),
        (true, Some(_)) => return Err(Refusal::LengthAndEncoding),
        (true, None) => Framing::Chunked,
        (false, Some(length)) => Framing::Length(length),
        (false, None) => Framing::None,
    };
    let has_body = !matches!(head.body, Framing::None | Framing::Length(0));
    head.expects_continue = seen.expects_continue && has_body;
    head.keep_alive = match head.version {
        Version::Http10 => seen.keep_alive && !seen.close,
        _ => !seen.close,
    };
    head.takes_trailers = seen.te && seen.trailers && head.version == Version::Http11;
    // RFC 9110 §7.8: no upgrade in HTTP/1.0. One with a body would make the bytes behind it ambiguous.
    head.websocket = head.version == Version::Http11
        && head.method == "GET"
        && !has_body
        && seen.upgrade
        && seen.websocket
        && seen.websocket_version
        && seen.websocket_key;
    Ok(())
}

#[cfg(test)]
mod tests;
