//! The head a client receives of a server's answer, written anew from what was understood.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use super::bound::SetCookie;
use crate::model::Limits;
use crate::wire::field::Field;
use crate::wire::http1::request::Version;
use crate::wire::http1::response::{self, Method};
use crate::wire::http1::{Framing, Known, ResponseHead, lines};
use crate::wire::http2;

/// A head that is ready to go, in the client's language.
#[derive(Debug)]
pub enum Ready {
    Text(Vec<u8>),
    /// Boxed, for the plain answer of HTTP/1 has to carry this about.
    Fields(Box<http::Response<()>>),
}

/// What of the client matters to the head of its answer.
#[derive(Debug, Clone, Copy)]
pub struct ForClient<'a> {
    pub version: Version,
    pub keep_alive: bool,
    /// The current time as HTTP writes it.
    pub date: &'a str,
}

/// How the body goes on to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivery {
    /// Whether the connection can be used again afterwards.
    pub keep_alive: bool,
    /// A chunked body for a client that has no chunks loses its framing.
    pub dechunk: bool,
}

/// Decides how the body is delivered: a client of HTTP/1.0 knows no chunks, and a body that ends with
/// the server's connection ends with the client's too, or it could not tell whether all of it came.
pub fn delivery(head: &ResponseHead<'_>, client: ForClient<'_>) -> Delivery {
    if client.version == Version::Http2 {
        // Its frames say where a body ends.
        return Delivery { keep_alive: true, dechunk: head.body == Framing::Chunked };
    }
    let dechunk = head.body == Framing::Chunked && client.version == Version::Http10;
    let keep_alive = client.keep_alive && head.body != Framing::UntilClose && !dechunk;
    Delivery { keep_alive, dechunk }
}

/// Appends the head of a final answer.
pub fn write(
    head: &ResponseHead<'_>,
    client: ForClient<'_>,
    delivery: Delivery,
    cookie: Option<&SetCookie<'_>>,
    out: &mut Vec<u8>,
) {
    status_line(head, out);
    fields(head, cookie, out);
    let bodiless = head.status == 204;
    if !bodiless {
        if head.chunked {
            if client.version != Version::Http10 {
                out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
            }
        } else if let Some(length) = head.length {
            out.extend_from_slice(b"Content-Length: ");
            out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
            out.extend_from_slice(b"\r\n");
        }
    }
    if !head.dated {
        // RFC 9110 §6.6.1: a recipient with a clock adds what the server forgot.
        out.extend_from_slice(b"Date: ");
        out.extend_from_slice(client.date.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    match (delivery.keep_alive, client.version) {
        (false, _) => out.extend_from_slice(b"Connection: close\r\n"),
        (true, Version::Http10) => out.extend_from_slice(b"Connection: keep-alive\r\n"),
        (true, _) => {}
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends an interim answer; it has no framing fields (RFC 9110 §15.2).
pub fn write_interim(head: &ResponseHead<'_>, out: &mut Vec<u8>) {
    status_line(head, out);
    fields(head, None, out);
    out.extend_from_slice(b"\r\n");
}

/// Appends the answer that opens a WebSocket.
pub fn write_switching(head: &ResponseHead<'_>, cookie: Option<&SetCookie<'_>>, out: &mut Vec<u8>) {
    status_line(head, out);
    fields(head, cookie, out);
    out.extend_from_slice(b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
}

fn status_line(head: &ResponseHead<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(itoa::Buffer::new().format(head.status).as_bytes());
    out.push(b' ');
    out.extend_from_slice(head.reason.as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn fields(head: &ResponseHead<'_>, cookie: Option<&SetCookie<'_>>, out: &mut Vec<u8>) {
    let kept = head.fields.iter().zip(&head.known).filter(|(field, known)| passes(head, field, **known));
    let kept = kept.map(|(field, _)| field);
    match cookie {
        None => lines::copy(head.raw, kept, out),
        Some(cookie) => {
            lines::copy(head.raw, kept.filter(|field| !cookie.replaces(field.name, field.value)), out);
            cookie.lines.iter().for_each(|line| lines::write("Set-Cookie", line, out));
        }
    }
}

/// Whether a field goes on to the client: it ends here where it belongs to the connection.
#[inline]
fn passes(head: &ResponseHead<'_>, field: &Field<'_>, known: Known) -> bool {
    match known {
        Known::Connection
        | Known::HopByHop
        | Known::TransferEncoding
        | Known::ContentLength
        | Known::Upgrade
        | Known::Te => return false,
        _ => {}
    }
    head.nominated.is_empty()
        || matches!(known, Known::Date)
        || !head.nominated.iter().any(|name| name.eq_ignore_ascii_case(field.name.as_bytes()))
}

/// The head of a final answer for a client of HTTP/2, and about how long it is.
pub fn final_fields(
    head: &ResponseHead<'_>,
    date: &str,
    cookie: Option<&SetCookie<'_>>,
) -> (http::Response<()>, usize) {
    let (mut response, mut length) = interim_fields(head);
    if let Some(cookie) = cookie {
        length += with_cookie(response.headers_mut(), cookie);
    }
    let fields = response.headers_mut();
    if let Some(bytes) = head.length.filter(|_| !head.chunked && head.status != 204) {
        // Digits are a value.
        if let Ok(value) = HeaderValue::from_str(itoa::Buffer::new().format(bytes)) {
            fields.insert(header::CONTENT_LENGTH, value);
        }
        length += 24;
    }
    if !head.dated
        && let Ok(date) = HeaderValue::from_str(date)
    {
        // RFC 9110 §6.6.1: a recipient with a clock adds what the server forgot.
        fields.insert(header::DATE, date);
        length += 37;
    }
    (response, length)
}

/// The head of an interim answer for a client of HTTP/2, and about how long it is.
pub fn interim_fields(head: &ResponseHead<'_>) -> (http::Response<()>, usize) {
    let mut fields = HeaderMap::with_capacity(head.fields.len() + 2);
    let mut length = 13;
    for (field, known) in head.fields.iter().zip(&head.known).filter(|(field, known)| passes(head, field, **known)) {
        // A name is a token and a value has no controls: both were parsed.
        let known_name =
            if *known == Known::Date { Ok(header::DATE) } else { HeaderName::from_bytes(field.name.as_bytes()) };
        if let (Ok(name), Ok(mut value)) = (known_name, HeaderValue::from_bytes(field.value)) {
            length += field.name.len() + field.value.len() + 4;
            value.set_sensitive(!http2::is_steady(&name));
            fields.append(name, value);
        }
    }
    let mut response = http::Response::new(());
    // It is one of 100 to 599.
    *response.status_mut() = StatusCode::from_u16(head.status).unwrap_or(StatusCode::BAD_GATEWAY);
    *response.headers_mut() = fields;
    (response, length)
}

/// Puts Set-Cookie fields in the place of others; about how long they are.
fn with_cookie(fields: &mut HeaderMap, cookie: &SetCookie<'_>) -> usize {
    let replaced = |value: &HeaderValue| cookie.replaces("set-cookie", value.as_bytes());
    if fields.get_all(header::SET_COOKIE).iter().any(replaced) {
        let kept = fields.get_all(header::SET_COOKIE).iter().filter(|value| !replaced(value)).cloned();
        let kept: Vec<HeaderValue> = kept.collect();
        fields.remove(header::SET_COOKIE);
        for value in kept {
            fields.append(header::SET_COOKIE, value);
        }
    }
    for line in &cookie.lines {
        // A name is a token, and what came from a server was parsed.
        if let Ok(mut value) = HeaderValue::from_bytes(line) {
            value.set_sensitive(true);
            fields.append(header::SET_COOKIE, value);
        }
    }
    cookie.lines.iter().map(|line| line.len() + 14).sum()
}

/// The head that opens a WebSocket for a client of HTTP/2 (RFC 8441 §5), where the server has proved that
/// it speaks the protocol (RFC 6455 §4.1): a client of HTTP/2 leaves that to us.
pub fn connected_fields(
    head: &ResponseHead<'_>,
    cookie: Option<&SetCookie<'_>>,
) -> Option<(http::Response<()>, usize)> {
    let proof = head.fields.iter().find(|field| field.is("sec-websocket-accept"))?;
    if proof.value != http2::WEBSOCKET_ACCEPT.as_bytes() {
        return None;
    }
    let (mut response, mut length) = interim_fields(head);
    if let Some(cookie) = cookie {
        length += with_cookie(response.headers_mut(), cookie);
    }
    *response.status_mut() = StatusCode::OK;
    response.headers_mut().remove(header::SEC_WEBSOCKET_ACCEPT);
    Some((response, length))
}

/// A head of our own for a client of HTTP/2.
pub fn of_text(text: &[u8], limits: &Limits) -> Option<http::Response<()>> {
    let head = response::parse(text, Method::Other, limits).ok().flatten()?;
    Some(final_fields(&head, "", None).0)
}
