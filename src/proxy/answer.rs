//! The head a client receives of a server's answer, written anew from what was understood.

use crate::wire::field::Field;
use crate::wire::http1::request::Version;
use crate::wire::http1::{Framing, Known, ResponseHead, lines};

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
    /// A chunked body for a client of HTTP/1.0 loses its framing.
    pub dechunk: bool,
}

/// Decides how the body is delivered: a client of HTTP/1.0 knows no chunks, and a body that ends with
/// the server's connection ends with the client's too, or it could not tell whether all of it came.
pub fn delivery(head: &ResponseHead<'_>, client: ForClient<'_>) -> Delivery {
    let dechunk = head.body == Framing::Chunked && client.version == Version::Http10;
    let keep_alive = client.keep_alive && head.body != Framing::UntilClose && !dechunk;
    Delivery { keep_alive, dechunk }
}

/// Appends the head of a final answer.
pub fn write(head: &ResponseHead<'_>, client: ForClient<'_>, delivery: Delivery, out: &mut Vec<u8>) {
    status_line(head, out);
    fields(head, out);
    let bodiless = head.status == 204;
    if !bodiless {
        if head.chunked {
            if client.version == Version::Http11 {
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
        (true, Version::Http11) => {}
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends an interim answer; it has no framing fields (RFC 9110 §15.2).
pub fn write_interim(head: &ResponseHead<'_>, out: &mut Vec<u8>) {
    status_line(head, out);
    fields(head, out);
    out.extend_from_slice(b"\r\n");
}

/// Appends the answer that opens a WebSocket.
pub fn write_switching(head: &ResponseHead<'_>, out: &mut Vec<u8>) {
    status_line(head, out);
    fields(head, out);
    out.extend_from_slice(b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
}

fn status_line(head: &ResponseHead<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(itoa::Buffer::new().format(head.status).as_bytes());
    out.push(b' ');
    out.extend_from_slice(head.reason.as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn fields(head: &ResponseHead<'_>, out: &mut Vec<u8>) {
    let keeps = |field: &Field<'_>, known| match known {
        Known::Connection
        | Known::HopByHop
        | Known::TransferEncoding
        | Known::ContentLength
        | Known::Upgrade
        | Known::Te => false,
        Known::Date => true,
        _ => {
            head.nominated.is_empty()
                || !head.nominated.iter().any(|name| name.eq_ignore_ascii_case(field.name.as_bytes()))
        }
    };
    let kept = head.fields.iter().zip(&head.known).filter(|(field, known)| keeps(field, **known));
    lines::copy(head.raw, kept.map(|(field, _)| field), out);
}
