//! The body of an answer: what of it goes out with the head, and how the rest follows.

use std::time::Duration;

use bytes::Bytes;

use super::super::answer::{Delivery, Ready};
use super::super::client::{Respond, Rest, ToClient};
use super::super::failure::{Failure, FailureKind};
use super::super::pieces::{self, Sink, Source, Way};
use super::super::relay::{Path, Patience, RelayError, downstream};
use super::{Final, FromServer, Receive, Received};
use crate::net::{Buffer, Timer};
use crate::wire::http1::{ChunkedBody, Framing, Keep};

/// What goes to the client at once, and how the rest of the answer follows.
pub(super) struct Begun {
    /// The head for a client of HTTP/2; otherwise it is the beginning of `out`.
    fields: Option<Box<http::Response<()>>>,
    pub(super) out: Vec<u8>,
    body: Framing,
    /// Bytes of a body of known length that have not come yet.
    left: u64,
    chunks: ChunkedBody,
    delivery: Delivery,
    server_keeps: bool,
}

/// Puts what there is of the body behind the head, to be sent in one piece.
pub(super) fn begin(r: &Receive<'_, '_, '_, '_>, last: Final, buffer: &mut Buffer) -> Result<Begun, Failure> {
    let Final { body, delivery, server_keeps, head } = last;
    let limits = &r.plan.view.snapshot.config.limits;
    let (fields, mut out) = match head {
        Ready::Text(text) => (None, text),
        Ready::Fields(fields) => (Some(fields), Vec::with_capacity(buffer.len())),
    };
    let mut chunks = ChunkedBody::of_answer(if delivery.dechunk { Keep::Data } else { Keep::Framed });
    let before = out.len();
    let mut left = 0;
    match body {
        Framing::None => {}
        Framing::Length(length) => {
            let part = length.min(buffer.len() as u64) as usize;
            out.extend_from_slice(&buffer.as_slice()[..part]);
            buffer.consume(part);
            left = length - part as u64;
        }
        Framing::Chunked => {
            let scanned = chunks
                .scan(buffer.as_mut_slice(), limits)
                .map_err(|fault| Failure::new(FailureKind::ResponseBody(fault), fault.detail()))?;
            out.extend_from_slice(&buffer.as_slice()[..scanned.kept]);
            buffer.consume(scanned.taken);
        }
        Framing::UntilClose => {
            out.extend_from_slice(buffer.as_slice());
            buffer.clear();
        }
    }
    r.progress.body_out.set((out.len() - before) as u64);
    r.progress.begun.set(true);
    Ok(Begun { fields, out, body, left, chunks, delivery, server_keeps })
}

impl Begun {
    /// Whether nothing of the body is still to come.
    pub(super) fn is_whole(&self) -> bool {
        match self.body {
            Framing::None => true,
            Framing::Length(_) => self.left == 0,
            Framing::Chunked => self.chunks.is_done(),
            Framing::UntilClose => false,
        }
    }
}

pub(super) fn done(r: &Receive<'_, '_, '_, '_>, begun: Begun, buffer: &Buffer) -> Received {
    r.worker.buffers.keep_text(begun.out);
    // Bytes that nobody asked for: this server's connection carries no other request.
    let reusable = begun.server_keeps && buffer.is_empty();
    Received::Done { keep_alive: begun.delivery.keep_alive, reusable, uploaded: true }
}

/// Passes on the rest of the body.
pub(super) async fn finish(
    r: &mut Receive<'_, '_, '_, '_>,
    mut begun: Begun,
    mut buffer: Buffer,
) -> Result<Received, Failure> {
    r.worker.buffers.keep_text(std::mem::take(&mut begun.out));
    let limits = &r.plan.view.snapshot.config.limits;
    let patience = Patience { read: r.timeouts.response_body, write: r.timeouts.client_write };
    let moved = &r.progress.body_out;
    let (from, to) = match (&mut r.from, &mut r.to) {
        (FromServer::Http1(from), ToClient::Http1(to)) => (from, to),
        (from, to) => {
            let source = match (from, begun.body) {
                (FromServer::Http1(from), Framing::Chunked) => Source::Chunked(from, &mut begun.chunks, &mut buffer),
                (FromServer::Http1(from), Framing::UntilClose) => Source::UntilClose(from),
                (FromServer::Http1(from), _) => Source::Length(from, begun.left),
                (FromServer::Http2(answer), _) => {
                    let Some(body) = &mut answer.body else { return Err(upstream(RelayError::Cut(None))) };
                    Source::Frames(body)
                }
            };
            let sink = match to {
                ToClient::Http1(to) if begun.body == Framing::Chunked && !begun.delivery.dechunk => Sink::Chunks(to),
                ToClient::Http1(to) => Sink::Plain(to),
                ToClient::Http2(respond) => {
                    let Some(stream) = respond.rest() else { return Err(Failure::client_gone()) };
                    Sink::Frames(stream)
                }
            };
            let (worker, timer, back) = (r.worker, r.timer, &r.progress.body_in);
            let way = Way { worker, timer, patience, moved, back, most: u64::MAX, limits, mirror: None };
            Box::pin(pieces::pass(source, sink, way)).await.map_err(upstream)?;
            return Ok(done(r, begun, &buffer));
        }
    };
    let mut path = Path { from, to, timer: r.timer, patience, moved };
    if begun.body == Framing::Chunked {
        path.chunked(&mut begun.chunks, &mut buffer, limits).await.map_err(upstream)?;
        return Ok(done(r, begun, &buffer));
    }
    // The buffer is empty; whoever passes on the rest takes its own.
    drop(buffer);
    if begun.body == Framing::UntilClose {
        path.until_close(r.worker).await.map_err(upstream)?;
        return Ok(Received::Done { keep_alive: false, reusable: false, uploaded: true });
    }
    path.length(r.worker, begun.left).await.map_err(upstream)?;
    Ok(Received::Done { keep_alive: begun.delivery.keep_alive, reusable: begun.server_keeps, uploaded: true })
}

/// An answer's body that did not get through.
fn upstream(error: RelayError) -> Failure {
    match error {
        RelayError::Cut(Some(error)) => Failure::new(FailureKind::ResponseCut, error.to_string()),
        RelayError::Cut(None) => {
            Failure::new(FailureKind::ResponseCut, "the server closed the connection within its answer")
        }
        RelayError::Silent => {
            Failure::new(FailureKind::ResponseStalled, "the server paused too long within its answer")
        }
        RelayError::Chunked(fault) => Failure::new(FailureKind::ResponseBody(fault), fault.detail()),
        RelayError::Gone | RelayError::Stalled => downstream(error),
    }
}

/// Sends the head of an answer in HTTP/2 with what there is of its body.
pub(super) async fn send_fields(
    respond: &mut Respond,
    begun: &mut Begun,
    all_here: bool,
    timer: &Timer,
    limit: Duration,
) -> Result<(), RelayError> {
    let Some(fields) = begun.fields.take() else { return Err(RelayError::Gone) };
    let body = Bytes::from(std::mem::take(&mut begun.out));
    let rest = if all_here { Rest::End(pieces::fields_of(begun.chunks.trailers())) } else { Rest::More };
    respond.begin(*fields, body, rest, timer, limit).await
}
