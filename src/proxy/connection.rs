//! One client's connection, from its acceptance on: which language it speaks decides who serves it.
//!
//! What the listener says comes first (a PROXY header, TLS, sealed or opaque bytes), then what the client
//! says (ALPN, its first bytes).

use std::rc::Rc;

use tokio::net::TcpStream;

use super::worker::{Entered, Worker};
use super::{http1, http2};
use crate::net::buffers::SMALL;
use crate::net::flood::PREFACE;
use crate::net::{Buffer, Stream};

/// Serves a connection until its end.
pub async fn serve(worker: Rc<Worker>, connection: Entered, tcp: TcpStream) {
    let mut stream = Stream::new(tcp);
    // The first bytes decide; those of a request of HTTP/1 are served from where they lie.
    let Some(mut input) = first_bytes(&worker, &connection, &mut stream).await else { return };
    if PREFACE.starts_with(&input.as_slice()[..input.len().min(PREFACE.len())]) {
        if input.len() < PREFACE.len()
            && !Box::pin(rest_of_preface(&worker, &connection, &mut stream, &mut input)).await
        {
            return;
        }
        if input.as_slice().starts_with(PREFACE) {
            return Box::pin(http2::serve(worker, connection, stream, Some(input))).await;
        }
    }
    http1::serve(worker, connection, stream, Some(input)).await;
}

/// `None`: nothing came before the client had to have said something.
async fn first_bytes(worker: &Rc<Worker>, connection: &Entered, stream: &mut Stream) -> Option<Buffer> {
    let limit = worker.view().snapshot.config.timeouts.client_keep_alive;
    let (mut reader, _) = stream.split();
    let read = connection.timer.wait(limit, reader.fill(&worker.buffers, SMALL as u64)).await;
    read.ok()?.ok().filter(|input| !input.is_empty())
}

/// Reads on while what has come is the beginning of the preface and may become one of its kind. False:
/// the client has ended or takes too long.
async fn rest_of_preface(worker: &Rc<Worker>, connection: &Entered, stream: &mut Stream, input: &mut Buffer) -> bool {
    worker.set_active(connection);
    let limit = worker.view().snapshot.config.timeouts.request_header;
    let since = std::time::Instant::now();
    let (mut reader, _) = stream.split();
    while input.len() < PREFACE.len() && PREFACE.starts_with(input.as_slice()) {
        let left = limit.saturating_sub(since.elapsed());
        if left.is_zero() {
            return false;
        }
        match connection.timer.wait(left, reader.read(input)).await {
            Ok(Ok(count)) if count > 0 => {}
            _ => return false,
        }
    }
    worker.set_idle(connection);
    true
}
