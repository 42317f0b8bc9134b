//! A request of HTTP/2 as the head that everything behind it knows.
//!
//! What comes out is as unambiguous as a head that `http1` has parsed: written as HTTP/1 it is strictly
//! valid, and one request.

use http::request::Parts;

use crate::model::Limits;
use crate::wire::field::Field;
use crate::wire::http1::known::{Known, known};
use crate::wire::http1::request::{Refusal, RequestHead, Seen, Target, Version, is_plain, read_field, split_query};
use crate::wire::http1::{Framing, host};

/// The cookies of a request, joined: working memory.
pub type Crumbs = Vec<u8>;

/// What is known of a request besides its fields.
#[derive(Debug, Clone, Copy)]
pub struct Around<'a> {
    /// No body follows.
    pub ends: bool,
    /// `:protocol` (RFC 8441 §4).
    pub protocol: Option<&'a str>,
    /// The key of a WebSocket handshake, which HTTP/2 clients do not send: 24 bytes of base64.
    pub key: &'a str,
}

/// Fills an empty head with a request's fields, and says how many bytes they took. `crumbs` is overwritten.
///
/// # Errors
/// When it is malformed (RFC 9113 §8.1.1), over a limit, or asks for what is not done.
pub fn read<'a>(
    head: &mut RequestHead<'a>,
    parts: &'a Parts,
    around: Around<'a>,
    crumbs: &'a mut Crumbs,
    limits: &Limits,
) -> Result<usize, Refusal> {
    let cookies = join(parts, crumbs);
    let crumbs: &'a Crumbs = crumbs;
    let websocket = match (parts.method.as_str(), around.protocol) {
        ("CONNECT", Some("websocket")) => true,
        ("CONNECT", _) => return Err(Refusal::Connect),
        ("TRACE", _) => return Err(Refusal::Trace),
        _ => false,
    };
    let method = if websocket { "GET" } else { parts.method.as_str() };
    let target = parts.uri.path_and_query().map_or("", http::uri::PathAndQuery::as_str);
    if target.len() > limits.target_bytes {
        return Err(Refusal::TargetTooLong);
    }
    // RFC 9113 §8.3.1: a path begins with `/`; `*` is for OPTIONS alone.
    let target = match target {
        "*" if method == "OPTIONS" => Target::Asterisk,
        path if path.starts_with('/') && is_plain(path) => split_query(path),
        _ => return Err(Refusal::Target),
    };
    let authority = match parts.uri.authority() {
        Some(authority) => Some(host::parse(authority.as_str().as_bytes()).ok_or(Refusal::Host)?),
        None => None,
    };
    head.method = method;
    head.version = Version::Http2;
    head.target = target;
    head.authority = authority;
    head.websocket = websocket;
    if parts.headers.len() - cookies.saturating_sub(1) > limits.header_count {
        return Err(Refusal::TooManyFields);
    }
    let length = read_fields(head, parts, around, crumbs, cookies)?;
    if length > limits.header_bytes {
        return Err(Refusal::TooLarge);
    }
    Ok(length)
}

/// RFC 9113 §8.2.3: crumbs are put together again with `; `. Returns how many there were; one alone is
/// not copied.
fn join(parts: &Parts, crumbs: &mut Crumbs) -> usize {
    crumbs.clear();
    let values = parts.headers.get_all(http::header::COOKIE);
    let count = values.iter().count();
    if count > 1 {
        for (n, value) in values.iter().enumerate() {
            if n > 0 {
                crumbs.extend_from_slice(b"; ");
            }
            crumbs.extend_from_slice(value.as_bytes());
        }
    }
    count
}

fn read_fields<'a>(
    head: &mut RequestHead<'a>,
    parts: &'a Parts,
    around: Around<'a>,
    crumbs: &'a [u8],
    cookies: usize,
) -> Result<usize, Refusal> {
    let mut seen = Seen::default();
    let mut joined = false;
    let mut length = head.method.len() + parts.uri.path_and_query().map_or(0, |path| path.as_str().len());
    for (name, value) in &parts.headers {
        let field = Field { name: name.as_str(), value: value.as_bytes() };
        // What a request takes here is counted as it came: crumbs are bytes.
        length += field.name.len() + field.value.len() + 4;
        // RFC 9113 §8.2.1: a value neither begins nor ends with a blank.
        if field.value.first().is_some_and(is_blank) || field.value.last().is_some_and(is_blank) {
            return Err(Refusal::Value);
        }
        let known = known(field.name);
        match known {
            // RFC 9113 §8.2.2.
            Known::Connection | Known::TransferEncoding | Known::Upgrade | Known::HopByHop => {
                return Err(Refusal::ConnectionField);
            }
            Known::Te if field.value != b"trailers" => return Err(Refusal::ConnectionField),
            // RFC 8441 §5: these belong to the handshake of HTTP/1.1, and the key is ours.
            Known::WebSocketKey if head.websocket => continue,
            Known::Other if cookies > 1 && field.name == "cookie" => {
                if !std::mem::replace(&mut joined, true) {
                    head.fields.push(Field { name: "cookie", value: crumbs });
                    head.known.push(known);
                }
                continue;
            }
            _ => {}
        }
        read_field(head, &mut seen, field, known)?;
    }
    conclude(head, &seen, around)?;
    Ok(length)
}

fn conclude<'a>(head: &mut RequestHead<'a>, seen: &Seen<'a>, around: Around<'a>) -> Result<(), Refusal> {
    match (head.authority, seen.host) {
        (None, None) => return Err(Refusal::MissingHost),
        (None, Some(host)) => head.authority = Some(host),
        // RFC 9113 §8.3.1: Host must not name another entity.
        (Some(authority), Some(host)) if !authority.text.eq_ignore_ascii_case(host.text) => {
            return Err(Refusal::Authority);
        }
        (Some(_), _) => {}
    }
    if head.websocket {
        if !seen.websocket_version || seen.length.is_some_and(|length| length > 0) || around.ends {
            return Err(Refusal::Connect);
        }
        head.fields.push(Field { name: "sec-websocket-key", value: around.key.as_bytes() });
        head.known.push(Known::WebSocketKey);
        return Ok(());
    }
    head.body = match (seen.length, around.ends) {
        // RFC 9113 §8.1.1: the length and the frames have to agree.
        (Some(length), true) if length > 0 => return Err(Refusal::ContentLength),
        (Some(length), _) => Framing::Length(length),
        (None, true) => Framing::None,
        (None, false) => Framing::Chunked,
    };
    head.expects_continue = seen.expects_continue && !matches!(head.body, Framing::None | Framing::Length(0));
    head.takes_trailers = seen.trailers;
    Ok(())
}

fn is_blank(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

#[cfg(test)]
mod tests;
