//! RTSP: requests routed by what they ask for, media carried or kept away, sessions that outlive connections.
//!
//! A client's connection is one task, a `talk`: the client's `leg`, those of the servers it is at, and a line of the requests
//! that are not answered yet. `route` says where a request goes, `dial` gets a connection there, `forward` writes requests
//! anew and `answers` what comes back; `ours` are the answers that no server gives. `media` bargains over the way
//! that media takes, `relay` passes packets on, and `held` are the sessions that a connection knows, with their lines in the log; `deadlines` ends what waits too long.
//! `tunnel` is what comes in by HTTP.

mod answers;
mod deadlines;
mod dial;
mod forward;
mod held;
mod leg;
mod media;
mod ours;
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
    let Some(input) = first_bytes(&worker, &connection, &mut stream).await else { return };
    match input.as_slice() {
        [TLS_HANDSHAKE, ..] if connection.tls.get().is_none() => {
            worker.counters.borrow_mut().rejected(connection.listener, Rejected::TlsOnPlain);
        }
        // RTSP has neither of these methods.
        [b'G', b'E', ..] | [b'P', b'O', ..] => tunnel::serve(worker, connection, stream, input).await,
        _ => converse(worker, connection, stream, Source::Stream, Some(input)).await,
    }
}

/// Serves a client that speaks RTSP on `stream`, or by another connection's words.
async fn converse(worker: Rc<Worker>, connection: Entered, stream: Stream, source: Source, input: Option<Buffer>) {
    let client = Leg::new(stream, source, input);
    Box::pin(Talk::new(&worker, &connection, client).run()).await;
}
