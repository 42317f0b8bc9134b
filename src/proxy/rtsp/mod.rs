//! RTSP: requests routed by what they ask for, media carried or kept away, sessions that outlive connections.
//!
//! A client's connection is one task, a `talk`: the client's `leg`, those of the servers it is at, and a line of the requests
//! that are not answered yet. `route` says where a request goes, `dial` gets a connection there, `forward` writes requests
//! anew and `answers` what comes back; `hear` reads what either side says, and
//! `ours` are the answers that no server gives. `media` bargains over the way
//! that media takes, `relay` passes packets on, `offload` has the director do so, and `held` are the sessions that a connection knows, with their lines in the log; `deadlines` ends what waits too long, and `parting`
//! is when a server leaves.
//! `tunnel` is what comes in by HTTP.

mod answers;
mod deadlines;
mod dial;
mod forward;
mod hear;
mod held;
mod leg;
mod media;
mod offload;
mod ours;
mod parting;
mod relay;
mod reports;
mod route;
mod talk;
mod tunnel;

use std::rc::Rc;

use self::leg::{Leg, Source};
use self::talk::Talk;
use super::connection::first_bytes;
use super::worker::{Entered, Worker};
use crate::net::{Buffer, Stream};
use crate::state::counters::Rejected;

pub use self::tunnel::{Half, POST_BODY, TUNNELLED, half, serve_half};

/// A TLS ClientHello begins with this (RFC 8446 §5.1).
const TLS_HANDSHAKE: u8 = 0x16;

/// Serves a connection of an RTSP listener until its end.
pub async fn serve(worker: Rc<Worker>, connection: Entered, mut stream: Stream) {
    let Some(mut input) = first_bytes(&worker, &connection, &mut stream).await else { return };
    if input.as_slice().first() == Some(&TLS_HANDSHAKE) && connection.tls.get().is_none() {
        worker.counters.borrow_mut().rejected(connection.listener, Rejected::TlsOnPlain);
        return;
    }
    // RTSP has neither of these methods, though some that begin as they do.
    let may_be = |input: &[u8]| TUNNELS.iter().any(|word| word.starts_with(&input[..input.len().min(word.len())]));
    let is = |input: &[u8]| TUNNELS.iter().any(|word| input.starts_with(word));
    let limit = worker.view_for(&connection).snapshot.config.timeouts.request_header;
    while may_be(input.as_slice()) && !is(input.as_slice()) {
        let read = connection.timer.wait(limit, stream.split().0.read(&mut input)).await;
        if !matches!(read, Ok(Ok(count)) if count > 0) {
            return;
        }
    }
    if is(input.as_slice()) {
        return tunnel::serve(worker, connection, stream, input).await;
    }
    converse(worker, connection, stream, Source::Stream, Some(input)).await;
}

/// What a connection of HTTP begins with that may be half of a tunnel.
const TUNNELS: [&[u8]; 2] = [b"GET ", b"POST "];

/// Serves a client that speaks RTSP on `stream`, or by another connection's words.
async fn converse(worker: Rc<Worker>, connection: Entered, stream: Stream, source: Source, input: Option<Buffer>) {
    let client = Leg::new(stream, source, input);
    Box::pin(Talk::new(&worker, &connection, client).run()).await;
}
