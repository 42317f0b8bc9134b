//! RTSP over HTTP: a GET whose answer carries what the server says, and POSTs that carry, in base64, what the client says.
//!
//! The tunnel ends here; servers are spoken to as from any other client. A client is never told of another address than
//! the one it came to (some send the POST wherever `X-Server-IP-Address` says).

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Instant;

use base64ct::{Base64, Encoding};

use super::super::worker::{Entered, Worker};
use super::converse;
use super::leg::Source;
use crate::net::buffers::SMALL;
use crate::net::{Buffer, Stream};
use crate::state::connections::Doing;
use crate::state::counters::Rejected;
use crate::wire::http1::Framing;
use crate::wire::http1::request::{self, RequestHead};

/// One of the two connections of a tunnel, by the cookie that both show.
#[derive(Debug)]
pub enum Half {
    Get(String),
    Post(String),
}

pub const TUNNELLED: &[u8] = b"application/x-rtsp-tunnelled";
/// What clients say of a POST that has no end.
pub const POST_BODY: Framing = Framing::Length(32_767);

/// The answer of a GET: it has no end but the connection's.
const OPEN: &[u8] = b"HTTP/1.0 200 OK\r\nCache-Control: no-store\r\nPragma: no-cache\r\nConnection: close\r\n\
    Content-Type: application/x-rtsp-tunnelled\r\n\r\n";
const REFUSED: &[u8] = b"HTTP/1.0 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
const FULL: &[u8] = b"HTTP/1.0 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// The longest cookie that is kept; clients make 22 characters.
const COOKIE: usize = 128;

/// Whether a request opens, or joins, a tunnel.
pub fn half(head: &RequestHead<'_>) -> Option<Half> {
    let value = |name: &str| head.fields.iter().find(|field| field.is(name)).map(|field| field.value);
    let tunnelled = |name| value(name).is_some_and(|value| value.eq_ignore_ascii_case(TUNNELLED));
    let cookie = || {
        let cookie = value("x-sessioncookie").filter(|cookie| !cookie.is_empty() && cookie.len() <= COOKIE)?;
        String::from_utf8(cookie.to_vec()).ok()
    };
    match head.method {
        "GET" if tunnelled("accept") => cookie().map(Half::Get),
        "POST" if tunnelled("content-type") => cookie().map(Half::Post),
        _ => None,
    }
}

/// Serves a connection of an RTSP listener that has begun with HTTP.
pub async fn serve(worker: Rc<Worker>, connection: Entered, mut stream: Stream, mut input: Buffer) {
    worker.set_active(&connection);
    let started = Instant::now();
    let half = loop {
        let view = worker.view_for(&connection);
        let config = &view.snapshot.config;
        match request::parse(input.as_slice(), &config.limits) {
            Ok(Some(head)) => break half(&head).map(|half| (half, head.raw.len())),
            Err(_) => break None,
            Ok(None) => {}
        }
        let left = config.timeouts.request_header.saturating_sub(started.elapsed());
        let read = connection.timer.wait(left, stream.split().0.read(&mut input)).await;
        if left.is_zero() || !matches!(read, Ok(Ok(count)) if count > 0) {
            break None;
        }
    };
    match half {
        Some((half, head)) => {
            input.consume(head);
            serve_half(worker, connection, stream, half, input).await;
        }
        None => {
            worker.counters.borrow_mut().rejected(connection.listener, Rejected::BadRequest);
            let _ = stream.split().1.write_now(REFUSED);
        }
    }
}

/// Serves one half. `input` is what came behind its head.
pub async fn serve_half(worker: Rc<Worker>, connection: Entered, mut stream: Stream, half: Half, input: Buffer) {
    worker.set_active(&connection);
    let tunnels = worker.farm.media().tunnels.clone();
    match half {
        Half::Get(cookie) => {
            let Some((open, said)) = tunnels.open(connection.listener, &cookie) else {
                worker.counters.borrow_mut().rejected(connection.listener, Rejected::Full);
                let _ = stream.split().1.write_now(FULL);
                return;
            };
            // The kernel takes it whole: nothing was written before.
            if !stream.split().1.write_now(OPEN).is_ok_and(|count| count == OPEN.len()) {
                return;
            }
            converse(worker, connection, stream, Source::Pieces(said), None).await;
            drop(open);
        }
        Half::Post(cookie) => {
            let Some(to) = tunnels.join(connection.listener, &cookie) else {
                worker.counters.borrow_mut().rejected(connection.listener, Rejected::NoRoute);
                let _ = stream.split().1.write_now(REFUSED);
                return;
            };
            connection.doing.set(Doing::Tunnel);
            carry(&worker, &connection, &mut stream, input, to).await;
        }
    }
}

/// Passes on what a POST says, until either half is over.
async fn carry(
    worker: &Worker,
    connection: &Entered,
    stream: &mut Stream,
    input: Buffer,
    to: tokio::sync::mpsc::Sender<Vec<u8>>,
) {
    let (mut reader, _) = stream.split();
    let (mut rest, mut said) = (Vec::new(), Some(input));
    loop {
        if let Some(input) = said.take().filter(|input| !input.is_empty()) {
            connection.received.set(connection.received.get() + input.len() as u64);
            let Some(piece) = decoded(&mut rest, input.as_slice()) else { return };
            drop(input);
            if !piece.is_empty() && to.send(piece).await.is_err() {
                return;
            }
        }
        let limit = worker.view().snapshot.config.timeouts.tunnel;
        let mut closed = pin!(to.closed());
        let mut fill = reader.fill(&worker.buffers, SMALL as u64);
        let read = poll_fn(|cx| {
            if closed.as_mut().poll(cx).is_ready() || worker.tunnel_ends(connection) {
                return Poll::Ready(None);
            }
            std::pin::Pin::new(&mut fill).poll(cx).map(Some)
        });
        match connection.timer.wait(limit, read).await {
            Ok(Some(Ok(input))) if !input.is_empty() => said = Some(input),
            _ => return,
        }
    }
}

/// Whole groups of four, with what is left of the piece before. Each message may have been encoded by itself, so that
/// padding may stand between groups.
fn decoded(rest: &mut Vec<u8>, piece: &[u8]) -> Option<Vec<u8>> {
    rest.extend(piece.iter().filter(|byte| !byte.is_ascii_whitespace()));
    let whole = rest.len() / 4 * 4;
    let mut out = Vec::with_capacity(whole / 4 * 3);
    let mut three = [0; 3];
    for group in rest[..whole].chunks_exact(4) {
        out.extend_from_slice(Base64::decode(group, &mut three).ok()?);
    }
    rest.drain(..whole);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Limits;

    #[test]
    fn base64_in_pieces_of_any_length() {
        let messages: [&[u8]; 3] = [b"OPTIONS * RTSP/1.0\r\n\r\n", b"a", b"PLAY rtsp://a/ RTSP/1.0\r\nCSeq: 2\r\n\r\n"];
        let text: String = messages.iter().map(|message| Base64::encode_string(message)).collect();
        for piece in [1, 2, 3, 5, 7, text.len()] {
            let (mut rest, mut out) = (Vec::new(), Vec::new());
            text.as_bytes().chunks(piece).for_each(|part| out.extend(decoded(&mut rest, part).unwrap()));
            assert_eq!((out, rest.len()), (messages.concat(), 0), "by {piece}");
        }
        assert_eq!(decoded(&mut Vec::new(), b"OPT*"), None);
        assert_eq!(decoded(&mut Vec::new(), b" T1\r\nBU\r\n").unwrap(), b"OPT");
    }

    #[test]
    fn halves_are_known_by_what_they_say_of_themselves() {
        let half = |text: &str| {
            let limits = Limits::default();
            half(&request::parse(text.as_bytes(), &limits).unwrap().unwrap())
        };
        let get =
            "GET /test HTTP/1.1\r\nHost: a\r\nx-sessioncookie: abc\r\nAccept: application/x-rtsp-tunnelled\r\n\r\n";
        assert!(matches!(half(get), Some(Half::Get(cookie)) if cookie == "abc"));
        let post = "POST /test HTTP/1.0\r\nx-sessioncookie: abc\r\nContent-Type: application/x-rtsp-tunnelled\r\n\
                    Content-Length: 32767\r\n\r\n";
        assert!(matches!(half(post), Some(Half::Post(cookie)) if cookie == "abc"));
        assert!(half("GET / HTTP/1.1\r\nHost: a\r\nx-sessioncookie: abc\r\n\r\n").is_none());
        assert!(half("GET / HTTP/1.1\r\nHost: a\r\nAccept: application/x-rtsp-tunnelled\r\n\r\n").is_none());
    }
}
