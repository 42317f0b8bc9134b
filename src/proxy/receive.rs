//! A server's answer, from its first byte to its last, as it goes on to the client.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::RecvStream;
use h2::client::ResponseFuture;

use super::answer::{self, Delivery, ForClient, Ready};
use super::bound::{Bound, SetCookie};
use super::client::{Respond, Rest, ToClient};
use super::failure::{Failure, FailureKind};
use super::outcome::Progress;
use super::pieces::{self, Sink, Source, Way};
use super::plan::Plan;
use super::registry::Connection;
use super::relay::{self, Path, Patience, RelayError, downstream};
use super::worker::Worker;
use crate::model::Timeouts;
use crate::net::buffers::SMALL;
use crate::net::stream::Reader;
use crate::net::{Buffer, Timer};
use crate::state::LiveAffinity;
use crate::wire::http1::request::Version;
use crate::wire::http1::response::{self, Method, ResponseHead};
use crate::wire::http1::{ChunkedBody, Framing, Keep, request};
use crate::wire::http2;

/// Everything an answer needs on its way.
#[derive(Debug)]
pub struct Receive<'p, 's, 'c, 'w> {
    pub worker: &'p Rc<Worker>,
    pub plan: &'p Plan,
    /// The request asked for a WebSocket.
    pub websocket: bool,
    pub timeouts: &'p Timeouts,
    pub progress: &'p Progress,
    pub timer: &'p Timer,
    pub connection: &'p Connection,
    pub from: FromServer<'p, 's>,
    pub to: &'p mut ToClient<'c, 'w>,
    /// The client's connection ends with this answer, whatever the client wants.
    pub last: bool,
    /// What binds the client to its server.
    pub bound: Option<(&'p Bound, &'p LiveAffinity)>,
}

/// Where an answer comes from.
#[derive(Debug)]
pub enum FromServer<'p, 's> {
    Http1(&'p mut Reader<'s>),
    Http2(&'p mut Answer),
}

/// An answer in HTTP/2: first its heads, then its body.
pub struct Answer {
    pub heads: ResponseFuture,
    pub body: Option<RecvStream>,
    /// The error that a stream ended with before it was answered.
    pub error: Option<h2::Error>,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answer").finish_non_exhaustive()
    }
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
    head: Ready,
}

enum Next {
    More,
    Interim(Ready),
    Switching(Ready),
    Final(Final),
}

/// What goes to the client at once, and how the rest of the answer follows.
struct Begun {
    /// The head for a client of HTTP/2; otherwise it is the beginning of `out`.
    fields: Option<Box<http::Response<()>>>,
    out: Vec<u8>,
    body: Framing,
    /// Bytes of a body of known length that have not come yet.
    left: u64,
    chunks: ChunkedBody,
    delivery: Delivery,
    server_keeps: bool,
}

/// What is rare is boxed: the future of a request is as small as that of a plain answer.
pub async fn receive(r: &mut Receive<'_, '_, '_, '_>) -> Result<Received, Failure> {
    if let FromServer::Http2(_) = r.from {
        return Box::pin(receive_fields(r)).await;
    }
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
                r.progress.status.set(if r.plan.version == Version::Http2 { 200 } else { 101 });
                r.progress.first_byte.set(Some(r.progress.started.elapsed()));
                Box::pin(write(r, head)).await?;
                return Ok(Received::Switching { from_server: buffer });
            }
            Next::Final(last) => {
                let mut begun = begin(r, last, &mut buffer)?;
                let all_here = begun.is_whole();
                match r.to {
                    ToClient::Http1(to) => relay::write_all(to, &begun.out, r.timer, r.timeouts.client_write).await,
                    ToClient::Http2(respond) => {
                        send_fields(respond, &mut begun, all_here, r.timer, r.timeouts.client_write).await
                    }
                }
                .map_err(downstream)?;
                return if all_here { Ok(done(r, begun, &buffer)) } else { Box::pin(finish(r, begun, buffer)).await };
            }
        }
    }
}

/// Waits for the server to speak, then reads; no buffer is held while it does not.
async fn first_bytes(r: &mut Receive<'_, '_, '_, '_>) -> Result<Buffer, Failure> {
    loop {
        let left = time_left(r);
        let FromServer::Http1(from) = &mut r.from else { return Err(timeout()) };
        let answer = poll_fn(|cx| match from.poll_fill(cx, &r.worker.buffers, SMALL as u64, 0) {
            Poll::Ready(read) => Poll::Ready(Some(read)),
            Poll::Pending => r.to.poll_given_up(cx).map(|()| None),
        });
        let Some(read) = r.timer.wait(left, answer).await.transpose() else { return Err(Failure::client_gone()) };
        match read {
            Ok(Ok(buffer)) if buffer.is_empty() => {
                return Err(Failure::server_closed("the server closed the connection without an answer"));
            }
            Ok(Ok(buffer)) => {
                r.progress.heard.set(true);
                return Ok(buffer);
            }
            Ok(Err(error)) => return Err(Failure::server_closed(error.to_string())),
            Err(_) if may_take_longer(r) => {}
            Err(_) => return Err(timeout()),
        }
    }
}

/// The same for a server that speaks HTTP/2.
async fn receive_fields(r: &mut Receive<'_, '_, '_, '_>) -> Result<Received, Failure> {
    let mut interim_answers = 0;
    let (parts, body) = loop {
        match next_fields(r).await? {
            Fields::Final(answer) => break answer.into_parts(),
            Fields::Interim(answer) => {
                interim_answers += 1;
                if interim_answers > MOST_INTERIM {
                    return Err(Failure::server_closed("the server sends interim answers without end"));
                }
                let (parts, ()) = answer.into_parts();
                let head = head_of(&parts, true, r)?;
                let ready = interim(r, &head);
                pass_interim(r, ready).await?;
                if !r.progress.uploading.get() {
                    r.progress.sent_at.set(None);
                }
            }
        }
    };
    let ends = body.is_end_stream();
    let mut head = head_of(&parts, ends || r.plan.head_only, r)?;
    if ends && !r.plan.head_only && r.plan.version != Version::Http2 && !matches!(head.status, 204 | 304) {
        // In HTTP/1 an answer without a length would end with its connection.
        head.length = head.length.or(Some(0));
    }
    declined(r, head.status)?;
    let Next::Final(last) = final_head(r, &head) else { return Err(timeout()) };
    drop(head);
    if let FromServer::Http2(answer) = &mut r.from {
        answer.body = Some(body);
    }
    let mut buffer = r.worker.buffers.small();
    let mut begun = begin(r, last, &mut buffer)?;
    let all_here = begun.is_whole();
    let limit = r.timeouts.client_write;
    match r.to {
        ToClient::Http1(to) => relay::write_all(to, &begun.out, r.timer, limit).await,
        ToClient::Http2(respond) => send_fields(respond, &mut begun, all_here, r.timer, limit).await,
    }
    .map_err(downstream)?;
    if all_here { Ok(done(r, begun, &buffer)) } else { finish(r, begun, buffer).await }
}

fn head_of<'a>(
    parts: &'a http::response::Parts,
    ends: bool,
    r: &Receive<'_, '_, '_, '_>,
) -> Result<ResponseHead<'a>, Failure> {
    let limits = &r.plan.view.snapshot.config.limits;
    http2::response::head(parts, ends, limits)
        .map_err(|fault| Failure::new(FailureKind::Response(fault), fault.detail()))
}

enum Fields {
    Interim(http::Response<()>),
    Final(http::Response<RecvStream>),
}

/// Waits for the server's next head.
async fn next_fields(r: &mut Receive<'_, '_, '_, '_>) -> Result<Fields, Failure> {
    loop {
        let left = time_left(r);
        let FromServer::Http2(answer) = &mut r.from else { return Err(timeout()) };
        let heads = &mut answer.heads;
        let next = poll_fn(|cx| {
            match heads.poll_informational(cx) {
                Poll::Ready(Some(interim)) => return Poll::Ready(Some(interim.map(Fields::Interim))),
                Poll::Ready(None) | Poll::Pending => {}
            }
            match Pin::new(&mut *heads).poll(cx) {
                Poll::Ready(answer) => Poll::Ready(Some(answer.map(Fields::Final))),
                Poll::Pending => r.to.poll_given_up(cx).map(|()| None),
            }
        });
        match r.timer.wait(left, next).await {
            Ok(Some(Ok(fields))) => {
                r.progress.heard.set(true);
                return Ok(fields);
            }
            Ok(Some(Err(error))) => {
                let failure = Failure::server_closed(error.to_string());
                // A stream that was reset has been dealt with; a connection that broke may not have.
                r.progress.heard.set(r.progress.heard.get() || error.is_reset());
                answer.error = Some(error);
                return Err(failure);
            }
            Ok(None) => return Err(Failure::client_gone()),
            Err(_) if may_take_longer(r) => {}
            Err(_) => return Err(timeout()),
        }
    }
}

/// The time for the answer begins when the request is out.
fn time_left(r: &Receive<'_, '_, '_, '_>) -> Duration {
    let passed = r.progress.sent_at.get().map_or(Duration::ZERO, |at| at.elapsed());
    r.timeouts.response.saturating_sub(passed)
}

/// Whether a wait that has ended began before the request was out.
fn may_take_longer(r: &Receive<'_, '_, '_, '_>) -> bool {
    r.progress.uploading.get() || r.progress.sent_at.get().is_some_and(|at| at.elapsed() < r.timeouts.response)
}

fn timeout() -> Failure {
    Failure::new(FailureKind::ResponseTimeout, "the server did not answer in time")
}

/// Reads more of a head, within `left`.
async fn more(r: &mut Receive<'_, '_, '_, '_>, buffer: &mut Buffer, left: Duration) -> Result<(), Failure> {
    // A wait looks at its time only when there is nothing to read.
    if left.is_zero() {
        return Err(timeout());
    }
    let limit = r.plan.view.snapshot.config.limits.header_bytes;
    if !buffer.grow(limit) {
        let fault = response::ResponseFault::TooLarge;
        return Err(Failure::new(FailureKind::Response(fault), fault.detail()));
    }
    let FromServer::Http1(from) = &mut r.from else { return Err(timeout()) };
    match relay::read_some(from, buffer, r.timer, left).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(Failure::server_closed("the server closed the connection within the head of its answer")),
        Err(RelayError::Silent) => Err(timeout()),
        Err(RelayError::Cut(Some(error))) => Err(Failure::server_closed(error.to_string())),
        Err(_) => Err(Failure::server_closed("the server closed the connection")),
    }
}

/// Parses the head at the front of the buffer and writes what the client gets of it.
fn next(r: &Receive<'_, '_, '_, '_>, buffer: &mut Buffer) -> Result<Next, Failure> {
    let method = if r.plan.head_only { Method::Head } else { Method::Other };
    let limits = &r.plan.view.snapshot.config.limits;
    let head = match response::parse(buffer.as_slice(), method, limits) {
        Ok(Some(head)) => head,
        Ok(None) => return Ok(Next::More),
        Err(fault) => return Err(Failure::new(FailureKind::Response(fault), fault.detail())),
    };
    let bytes = head.raw.len();
    let next = match head.status {
        101 if r.websocket && head.websocket => Next::Switching(switching(r, &head)?),
        101 => {
            let fault = response::ResponseFault::Status;
            return Err(Failure::new(FailureKind::Response(fault), "the server changes protocols without being asked"));
        }
        100..200 => Next::Interim(interim(r, &head)),
        status => {
            declined(r, status)?;
            final_head(r, &head)
        }
    };
    drop(head);
    buffer.consume(bytes);
    Ok(next)
}

fn interim(r: &Receive<'_, '_, '_, '_>, head: &ResponseHead<'_>) -> Ready {
    if r.plan.version == Version::Http2 {
        let (fields, length) = answer::interim_fields(head);
        count_head(r, length);
        return Ready::Fields(Box::new(fields));
    }
    let mut out = r.worker.buffers.text();
    answer::write_interim(head, &mut out);
    count_head(r, out.len());
    Ready::Text(out)
}

fn switching(r: &Receive<'_, '_, '_, '_>, head: &ResponseHead<'_>) -> Result<Ready, Failure> {
    let cookie = cookie(r, head);
    if r.plan.version == Version::Http2 {
        let (fields, length) = answer::connected_fields(head, cookie.as_ref()).ok_or_else(|| {
            let fault = response::ResponseFault::Status;
            Failure::new(FailureKind::Response(fault), "the server's Sec-WebSocket-Accept is not the one")
        })?;
        count_head(r, length);
        return Ok(Ready::Fields(Box::new(fields)));
    }
    let mut out = r.worker.buffers.text();
    answer::write_switching(head, cookie.as_ref(), &mut out);
    count_head(r, out.len());
    Ok(Ready::Text(out))
}

/// What the client is told of where it is.
fn cookie<'p>(r: &Receive<'p, '_, '_, '_>, head: &ResponseHead<'_>) -> Option<SetCookie<'p>> {
    let (bound, affinity) = r.bound?;
    bound.answer(affinity, head, r.connection.tls.get().is_some())
}

fn count_head(r: &Receive<'_, '_, '_, '_>, length: usize) {
    r.progress.heads_out.set(r.progress.heads_out.get() + length as u64);
}

/// RFC 8441 §5: any success would tell a client of HTTP/2 that its WebSocket is open.
fn declined(r: &Receive<'_, '_, '_, '_>, status: u16) -> Result<(), Failure> {
    if r.websocket && r.plan.version == Version::Http2 && (200..300).contains(&status) {
        let fault = response::ResponseFault::Status;
        return Err(Failure::new(
            FailureKind::Response(fault),
            "the server does not open the WebSocket it was asked for",
        ));
    }
    Ok(())
}

fn final_head(r: &Receive<'_, '_, '_, '_>, head: &ResponseHead<'_>) -> Next {
    let date = r.worker.date();
    // An answer that comes before the request is out ends the connection: nobody knows how much of the
    // body the client still wants to send (RFC 9112 §9.3).
    let keep_alive = r.plan.keep_alive && !r.last && !r.progress.unsent.get() && !r.worker.is_leaving(r.connection);
    let client = ForClient { version: r.plan.version, keep_alive, date: &date };
    let (delivery, cookie) = (answer::delivery(head, client), cookie(r, head));
    r.progress.status.set(head.status);
    r.progress.first_byte.set(Some(r.progress.started.elapsed()));
    let ready = if r.plan.version == Version::Http2 {
        let (fields, length) = answer::final_fields(head, &date, cookie.as_ref());
        count_head(r, length);
        Ready::Fields(Box::new(fields))
    } else {
        let mut out = r.worker.buffers.text();
        answer::write(head, client, delivery, cookie.as_ref(), &mut out);
        count_head(r, out.len());
        r.progress.until_close.set(head.body == Framing::UntilClose || delivery.dechunk);
        Ready::Text(out)
    };
    Next::Final(Final { body: head.body, delivery, server_keeps: head.keep_alive, head: ready })
}

async fn pass_interim(r: &mut Receive<'_, '_, '_, '_>, head: Ready) -> Result<(), Failure> {
    // RFC 9110 §15.2: a client of HTTP/1.0 knows no interim answers.
    if r.plan.version == request::Version::Http10 {
        return Ok(());
    }
    write(r, head).await
}

/// Sends a head that no body follows.
async fn write(r: &mut Receive<'_, '_, '_, '_>, head: Ready) -> Result<(), Failure> {
    let result = match (&mut r.to, head) {
        (ToClient::Http1(to), Ready::Text(text)) => {
            let result = relay::write_all(to, &text, r.timer, r.timeouts.client_write).await;
            r.worker.buffers.keep_text(text);
            result
        }
        (ToClient::Http2(respond), Ready::Fields(fields)) if fields.status().is_informational() => {
            respond.interim(*fields)
        }
        (ToClient::Http2(respond), Ready::Fields(fields)) => {
            respond.begin(*fields, Bytes::new(), Rest::More, r.timer, r.timeouts.client_write).await
        }
        // A head is made in the client's language.
        _ => Err(RelayError::Gone),
    };
    result.map_err(downstream)
}

/// Sends the head of an answer in HTTP/2 with what there is of its body.
async fn send_fields(
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

/// Puts what there is of the body behind the head, to be sent in one piece.
fn begin(r: &Receive<'_, '_, '_, '_>, last: Final, buffer: &mut Buffer) -> Result<Begun, Failure> {
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
    fn is_whole(&self) -> bool {
        match self.body {
            Framing::None => true,
            Framing::Length(_) => self.left == 0,
            Framing::Chunked => self.chunks.is_done(),
            Framing::UntilClose => false,
        }
    }
}

fn done(r: &Receive<'_, '_, '_, '_>, begun: Begun, buffer: &Buffer) -> Received {
    r.worker.buffers.keep_text(begun.out);
    // Bytes that nobody asked for: this server's connection carries no other request.
    let reusable = begun.server_keeps && buffer.is_empty();
    Received::Done { keep_alive: begun.delivery.keep_alive, reusable, uploaded: true }
}

/// Passes on the rest of the body.
async fn finish(r: &mut Receive<'_, '_, '_, '_>, mut begun: Begun, mut buffer: Buffer) -> Result<Received, Failure> {
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
            let way = Way { worker: r.worker, timer: r.timer, patience, moved, most: u64::MAX, limits, mirror: None };
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
