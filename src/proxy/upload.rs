//! A request's body: what of it is here when its head is, and the rest as it comes.

use bytes::Bytes;
use h2::{RecvStream, SendStream};
use http::HeaderMap;

use super::ahead::Held;
use super::client::{Client, FromClient};
use super::failure::{Failure, FailureKind};
use super::outcome::Progress;
use super::pieces::{self, Sink, Source, Way};
use super::plan::{Forward, Plan};
use super::relay::{Path, RelayError};
use super::worker::Worker;
use crate::model::Limits;
use crate::net::Buffer;
use crate::net::stream::Writer;
use crate::wire::http1::{ChunkFault, ChunkedBody, Framing, Keep};

/// What of the request's body is still to come.
#[derive(Debug)]
pub enum Upload {
    /// Nothing: `Forward::head` holds the whole request.
    Done,
    Length(u64),
    Chunked(Box<Chunks>),
    /// Frames of HTTP/2, to go on in chunks where nothing says how long they are.
    Frames {
        chunked: bool,
        /// Bytes of them that are in `Forward::head` already.
        taken: usize,
    },
}

/// How a body of unknown length goes on to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framed {
    Chunks,
    /// As data alone: frames say the rest.
    Bare,
}

/// A chunked body on its way.
#[derive(Debug)]
pub struct Chunks {
    pub body: ChunkedBody,
    /// Read and not passed on.
    pub buffer: Buffer,
    framed: Framed,
}

/// Moves what has come of the body behind the head, to be sent in one piece.
pub fn take_body(
    worker: &Worker,
    client: &mut Client<'_, '_>,
    plan: &Plan,
    forward: &mut Forward,
    progress: &Progress,
    framed: Framed,
    trailers: &mut Option<Box<HeaderMap>>,
) -> Result<Upload, Failure> {
    if let FromClient::Http2(stream) = &mut client.from {
        let held = client.held.take();
        return take_frames(stream, held, plan, forward, progress, framed, trailers);
    }
    let here = client.body_bytes(plan.head_bytes);
    match plan.body {
        Framing::None | Framing::UntilClose | Framing::Length(0) => Ok(Upload::Done),
        Framing::Length(length) => {
            let part = length.min(here.len() as u64);
            forward.head.extend_from_slice(&here[..part as usize]);
            client.body_taken = part as usize;
            progress.body_in.set(part);
            Ok(if part == length { Upload::Done } else { Upload::Length(length - part) })
        }
        Framing::Chunked => {
            let keep = if framed == Framed::Chunks { Keep::Framed } else { Keep::Data };
            let mut body = ChunkedBody::limited(keep, plan.most_body);
            let limits = &plan.view.snapshot.config.limits;
            let mut buffer = worker.buffers.holding(here);
            let taken = buffer.len();
            let scanned = body
                .scan(buffer.as_mut_slice(), limits)
                .map_err(|fault| Failure::new(FailureKind::Body(fault), fault.detail()))?;
            forward.head.extend_from_slice(&buffer.as_slice()[..scanned.kept]);
            buffer.consume(scanned.taken);
            progress.body_in.set(scanned.kept as u64);
            if scanned.done {
                client.body_taken = scanned.taken;
                *trailers = pieces::fields_of(body.trailers()).map(Box::new);
                return Ok(Upload::Done);
            }
            client.body_taken = taken;
            Ok(Upload::Chunked(Box::new(Chunks { body, buffer, framed })))
        }
    }
}

/// The same of a body in frames.
fn take_frames(
    stream: &mut RecvStream,
    held: Option<Box<Held>>,
    plan: &Plan,
    forward: &mut Forward,
    progress: &Progress,
    framed: Framed,
    trailers: &mut Option<Box<HeaderMap>>,
) -> Result<Upload, Failure> {
    if plan.body == Framing::None {
        return Ok(Upload::Done);
    }
    let chunked = plan.body == Framing::Chunked;
    let in_chunks = chunked && framed == Framed::Chunks;
    let mut taken = 0;
    let mut take = |data: &[u8]| {
        taken += data.len();
        if in_chunks {
            pieces::chunk(data, &mut forward.head);
        } else {
            forward.head.extend_from_slice(data);
        }
    };
    // What was read before a server was chosen has been made room for already.
    let Held { data, mut ended } = held.map(|held| *held).unwrap_or_default();
    take(&data);
    if ended.is_none() {
        let limits = &plan.view.snapshot.config.limits;
        ended = pieces::at_once(stream, limits, take).map_err(|error| body_failure(&error))?;
    }
    progress.body_in.set(taken as u64);
    let all = taken as u64;
    taken -= data.len();
    if all > plan.most_body {
        return Err(body_failure(&RelayError::Chunked(ChunkFault::BodyTooLarge)));
    }
    match ended {
        Some(late) => {
            if in_chunks {
                pieces::last_chunk(late.as_ref(), &mut forward.head);
            } else {
                *trailers = late.map(Box::new);
            }
            // What is whole asks for nothing more; what other streams may send is not held up by it.
            pieces::release(stream, taken);
            Ok(Upload::Done)
        }
        None => Ok(Upload::Frames { chunked, taken }),
    }
}

/// A request's body that did not get through for the client's fault.
pub fn body_failure(error: &RelayError) -> Failure {
    match error {
        RelayError::Silent => Failure::new(FailureKind::BodyTimeout, "the request body took too long"),
        RelayError::Chunked(fault) => Failure::new(FailureKind::Body(*fault), fault.detail()),
        RelayError::Cut(_) | RelayError::Gone | RelayError::Stalled => Failure::client_gone(),
    }
}

/// Puts what is here of a bare body into chunks, for a server that has turned out to speak HTTP/1.
pub fn frame(forward: &mut Forward, head: usize, done: bool, trailers: Option<&HeaderMap>) {
    let early = forward.head.split_off(head);
    pieces::chunk(&early, &mut forward.head);
    if done {
        pieces::last_chunk(trailers, &mut forward.head);
    }
}

/// The inverse, where another try leads to a server of HTTP/2: nothing of the body has left but what is here. False where
/// these chunks, which are our own, are not within the limits; nothing has changed then.
pub fn bare(forward: &mut Forward, head: usize, limits: &Limits) -> bool {
    let mut body = forward.head[head..].to_vec();
    let Ok(scanned) = ChunkedBody::new(Keep::Data).scan(&mut body, limits) else { return false };
    forward.head.truncate(head);
    forward.head.extend_from_slice(&body[..scanned.kept]);
    true
}

/// Where a request's body goes.
pub enum ToServer<'p, 't> {
    Http1(&'p mut Writer<'t>),
    Http2(&'p mut SendStream<Bytes>),
}

pub async fn pass_body(
    from: &mut FromClient<'_, '_>,
    to: ToServer<'_, '_>,
    upload: &mut Upload,
    way: Way<'_>,
) -> Result<(), RelayError> {
    let (timer, patience, moved) = (way.timer, way.patience, way.moved);
    let (source, sink) = match (from, upload, to) {
        (FromClient::Http1(from), Upload::Length(length), ToServer::Http1(to)) if way.is_copied() => {
            (Source::Length(from, *length), Sink::Plain(to))
        }
        (FromClient::Http1(from), Upload::Length(length), ToServer::Http1(to)) => {
            return Path { from, to, timer, patience, moved }.length(way.worker, *length).await;
        }
        (FromClient::Http1(from), Upload::Chunked(chunks), ToServer::Http1(to)) if chunks.framed == Framed::Bare => {
            (Source::Chunked(from, &mut chunks.body, &mut chunks.buffer), Sink::Chunks(to))
        }
        (FromClient::Http1(from), Upload::Chunked(chunks), ToServer::Http1(to)) => {
            let mut path = Path { from, to, timer, patience, moved };
            return path.chunked(&mut chunks.body, &mut chunks.buffer, way.limits).await;
        }
        (FromClient::Http1(from), Upload::Length(length), ToServer::Http2(to)) => {
            (Source::Length(from, *length), Sink::Frames(to))
        }
        (FromClient::Http1(from), Upload::Chunked(chunks), ToServer::Http2(to)) => {
            (Source::Chunked(from, &mut chunks.body, &mut chunks.buffer), Sink::Frames(to))
        }
        (FromClient::Http2(stream), Upload::Frames { chunked, taken }, to) => {
            pieces::release(stream, std::mem::take(taken));
            let sink = match to {
                ToServer::Http1(to) if *chunked => Sink::Chunks(to),
                ToServer::Http1(to) => Sink::Plain(to),
                ToServer::Http2(to) => Sink::Frames(to),
            };
            (Source::Frames(stream), sink)
        }
        _ => return Ok(()),
    };
    pieces::pass(source, sink, way).await
}
