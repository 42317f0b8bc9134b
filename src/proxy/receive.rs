//! A server's answer, from its first byte to its last, as it goes on to the client.

use std::time::{Duration, Instant};

use super::answer::{self, Delivery, ForClient};
use super::failure::{Failure, FailureKind};
use super::outcome::Progress;
use super::plan::Plan;
use super::relay::{self, Path, Patience, RelayError, downstream};
use super::worker::Worker;
use crate::model::Timeouts;
use crate::net::buffers::SMALL;
use crate::net::stream::{Reader, Writer};
use crate::net::{Buffer, Timer};
use crate::wire::http1::response::{self, Method, ResponseHead};
use crate::wire::http1::{ChunkedBody, Framing, Keep, request};

/// Everything an answer needs on its way.
#[derive(Debug)]
pub struct Receive<'p, 's, 'c> {
    pub worker: &'p Worker,
    pub plan: &'p Plan,
    /// The request asked for a WebSocket.
    pub websocket: bool,
    pub timeouts: &'p Timeouts,
    pub progress: &'p Progress,
    pub timer: &'p Timer,
    pub from: &'p mut Reader<'s>,
    pub to: &'p mut Writer<'c>,
    /// The client's connection ends with this answer, whatever the client wants.
    pub last: bool,
}

#[derive(Debug)]
pub enum Received {
    Done {
        /// The client's connection can be used again.
        keep_alive: bool,
        /// The server's can.
        reusable: bool,
        /// The whole request went out.
        uploaded: bool,
    },
    /// Both sides speak WebSocket from here on; the server has already said this much.
    Switching { from_server: Buffer },
}

/// Interim answers to one request at most: a server that sends more of them means no good.
const MOST_INTERIM: u32 = 256;

/// What of a final head has to outlive it.
struct Final {
    body: Framing,
    delivery: Delivery,
    server_keeps: bool,
    head: Vec<u8>,
}

enum Next {
    More,
    Interim(Vec<u8>),
    Switching(Vec<u8>),
    Final(Final),
}

/// What goes to the client at once, and how the rest of the answer follows.
struct Begun {
    out: Vec<u8>,
    body: Framing,
    /// Bytes of a body of known length that have not come yet.
    left: u64,
    chunks: ChunkedBody,
    delivery: Delivery,
    server_keeps: bool,
}

/// What is rare is boxed: the future of a request is as small as that of a plain answer.
pub async fn receive(r: &mut Receive<'_, '_, '_>) -> Result<Received, Failure> {
    let mut buffer = first_bytes(r).await?;
    let mut looked_at = 0;
    let mut interim = 0;
    let mut since = None;
    loop {
        let next = if looked_at == 0 || request::ends_head(buffer.as_slice(), looked_at) {
            next(r, &mut buffer)?
        } else {
            Next::More
        };
        match next {
            Next::More => {
                looked_at = buffer.len();
                // The rest of the head has one deadline, however it is dripped in.
                let since = since.get_or_insert_with(Instant::now);
                let left = r.timeouts.response.saturating_sub(since.elapsed());
                Box::pin(more(r, &mut buffer, left)).await?;
            }
            Next::Interim(head) => {
                interim += 1;
                if interim > MOST_INTERIM {
                    return Err(Failure::server_closed("the server sends interim answers without end"));
                }
                Box::pin(pass_interim(r, head)).await?;
                (looked_at, since) = (0, None);
                if !r.progress.uploading.get() {
                    // A server that says so may take its time anew.
                    r.progress.sent_at.set(None);
                }
                if buffer.is_empty() {
                    drop(buffer);
                    buffer = Box::pin(first_bytes(r)).await?;
                }
            }
            Next::Switching(head) => {
                r.progress.begun.set(true);
                r.progress.status.set(101);
                r.progress.first_byte.set(Some(r.progress.started.elapsed()));
                r.progress.heads_out.set(r.progress.heads_out.get() + head.len() as u64);
                write(r, head).await?;
                return Ok(Received::Switching { from_server: buffer });
            }
            Next::Final(last) => {
                let begun = begin(r, last, &mut buffer)?;
                let all_here = begun.is_whole();
                relay::write_all(r.to, &begun.out, r.timer, r.timeouts.client_write).await.map_err(downstream)?;
                return if all_here { Ok(done(r, begun, &buffer)) } else { Box::pin(finish(r, begun, buffer)).await };
            }
        }
    }
}

/// Waits for the server to speak, then reads; no buffer is held while it does not.
async fn first_bytes(r: &mut Receive<'_, '_, '_>) -> Result<Buffer, Failure> {
    loop {
        // The time for the answer begins when the request is out.
        let passed = r.progress.sent_at.get().map_or(Duration::ZERO, |at| at.elapsed());
        let left = r.timeouts.response.saturating_sub(passed);
        match r.timer.wait(left, r.from.fill(&r.worker.buffers, SMALL as u64)).await {
            Ok(Ok(buffer)) if buffer.is_empty() => {
                return Err(Failure::server_closed("the server closed the connection without an answer"));
            }
            Ok(Ok(buffer)) => {
                r.progress.heard.set(true);
                return Ok(buffer);
            }
            Ok(Err(error)) => return Err(Failure::server_closed(error.to_string())),
            Err(_) if r.progress.uploading.get() => {}
            Err(_) if r.progress.sent_at.get().is_some_and(|at| at.elapsed() < r.timeouts.response) => {}
            Err(_) => return Err(timeout()),
        }
    }
}

fn timeout() -> Failure {
    Failure::new(FailureKind::ResponseTimeout, "the server did not answer in time")
}

/// Reads more of a head, within `left`.
async fn more(r: &mut Receive<'_, '_, '_>, buffer: &mut Buffer, left: Duration) -> Result<(), Failure> {
    // A wait looks at its time only when there is nothing to read.
    if left.is_zero() {
        return Err(timeout());
    }
    let limit = r.plan.view.snapshot.config.limits.header_bytes;
    if !buffer.grow(limit) {
        let fault = response::ResponseFault::TooLarge;
        return Err(Failure::new(FailureKind::Response(fault), fault.detail()));
    }
    match relay::read_some(r.from, buffer, r.timer, left).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(Failure::server_closed("the server closed the connection within the head of its answer")),
        Err(RelayError::Silent) => Err(timeout()),
        Err(RelayError::Cut(Some(error))) => Err(Failure::server_closed(error.to_string())),
        Err(_) => Err(Failure::server_closed("the server closed the connection")),
    }
}

/// Parses the head at the front of the buffer and writes what the client gets of it.
fn next(r: &Receive<'_, '_, '_>, buffer: &mut Buffer) -> Result<Next, Failure> {
    let method = if r.plan.head_only { Method::Head } else { Method::Other };
    let limits = &r.plan.view.snapshot.config.limits;
    let head = match response::parse(buffer.as_slice(), method, limits) {
        Ok(Some(head)) => head,
        Ok(None) => return Ok(Next::More),
        Err(fault) => return Err(Failure::new(FailureKind::Response(fault), fault.detail())),
    };
    let mut out = r.worker.buffers.text();
    let bytes = head.raw.len();
    let next = match head.status {
        101 if r.websocket && head.websocket => {
            answer::write_switching(&head, &mut out);
            Next::Switching(out)
        }
        101 => {
            let fault = response::ResponseFault::Status;
            return Err(Failure::new(FailureKind::Response(fault), "the server changes protocols without being asked"));
        }
        100..200 => {
            answer::write_interim(&head, &mut out);
            Next::Interim(out)
        }
        _ => final_head(r, &head, out),
    };
    drop(head);
    buffer.consume(bytes);
    Ok(next)
}

fn final_head(r: &Receive<'_, '_, '_>, head: &ResponseHead<'_>, mut out: Vec<u8>) -> Next {
    let date = r.worker.date();
    // An answer that comes before the request is out ends the connection: nobody knows how much of the
    // body the client still wants to send (RFC 9112 §9.3).
    let keep_alive = r.plan.keep_alive && !r.last && !r.progress.unsent.get() && !r.worker.is_draining();
    let client = ForClient { version: r.plan.version, keep_alive, date: &date };
    let delivery = answer::delivery(head, client);
    answer::write(head, client, delivery, &mut out);
    r.progress.status.set(head.status);
    r.progress.first_byte.set(Some(r.progress.started.elapsed()));
    r.progress.until_close.set(head.body == Framing::UntilClose || delivery.dechunk);
    Next::Final(Final { body: head.body, delivery, server_keeps: head.keep_alive, head: out })
}

async fn pass_interim(r: &mut Receive<'_, '_, '_>, head: Vec<u8>) -> Result<(), Failure> {
    // RFC 9110 §15.2: a client of HTTP/1.0 knows no interim answers.
    if r.plan.version == request::Version::Http10 {
        r.worker.buffers.keep_text(head);
        return Ok(());
    }
    r.progress.heads_out.set(r.progress.heads_out.get() + head.len() as u64);
    write(r, head).await
}

async fn write(r: &mut Receive<'_, '_, '_>, text: Vec<u8>) -> Result<(), Failure> {
    let result = relay::write_all(r.to, &text, r.timer, r.timeouts.client_write).await;
    r.worker.buffers.keep_text(text);
    result.map_err(downstream)
}

/// Puts what there is of the body behind the head, to be sent in one piece.
fn begin(r: &Receive<'_, '_, '_>, last: Final, buffer: &mut Buffer) -> Result<Begun, Failure> {
    let Final { body, delivery, server_keeps, head: mut out } = last;
    let limits = &r.plan.view.snapshot.config.limits;
    r.progress.heads_out.set(r.progress.heads_out.get() + out.len() as u64);
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
    Ok(Begun { out, body, left, chunks, delivery, server_keeps })
}

impl Begun {
    /// Whether nothing of the body is still to come.
    fn is_whole(&self) -> bool {
        match self.body {
            Framing::None => true,
            Framing::Length(_) => self.left == 0,
            Framing::Chunked => self.chunks.is_done(),
            Framing::UntilClose => false,
        }
    }
}

fn done(r: &Receive<'_, '_, '_>, begun: Begun, buffer: &Buffer) -> Received {
    r.worker.buffers.keep_text(begun.out);
    // Bytes that nobody asked for: this server's connection carries no other request.
    let reusable = begun.server_keeps && buffer.is_empty();
    Received::Done { keep_alive: begun.delivery.keep_alive, reusable, uploaded: true }
}

/// Passes on the rest of the body.
async fn finish(r: &mut Receive<'_, '_, '_>, mut begun: Begun, mut buffer: Buffer) -> Result<Received, Failure> {
    r.worker.buffers.keep_text(std::mem::take(&mut begun.out));
    let limits = &r.plan.view.snapshot.config.limits;
    let patience = Patience { read: r.timeouts.response_body, write: r.timeouts.client_write };
    let moved = &r.progress.body_out;
    let mut path = Path { from: r.from, to: r.to, timer: r.timer, patience, moved };
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
