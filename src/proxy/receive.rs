//! A server's answer, from its first byte to its last, as it goes on to the client.

mod body;
mod fields;

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::answer::{self, Delivery, ForClient, Ready};
use super::bound::{Bound, SetCookie};
use super::client::{Rest, ToClient};
use super::failure::{Failure, FailureKind};
use super::outcome::Progress;
use super::plan::Plan;
use super::registry::Connection;
use super::relay::{self, RelayError, downstream};
use super::retry::Again;
use super::worker::Worker;
use crate::model::Timeouts;
use crate::net::buffers::SMALL;
use crate::net::stream::Reader;
use crate::net::{Buffer, Timer};
use crate::state::LiveAffinity;
use crate::wire::http1::request::Version;
use crate::wire::http1::response::{self, Method, ResponseHead};
use crate::wire::http1::{Framing, request};

use self::body::{begin, done, finish, send_fields};
use self::fields::receive_fields;
pub use self::fields::{Answer, Fields, poll_fields};

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
    /// What has been read of the answer already.
    pub early: Option<Buffer>,
    pub to: &'p mut ToClient<'c, 'w>,
    /// The client's connection ends with this answer, whatever the client wants.
    pub last: bool,
    /// Another server may be asked for a better one.
    pub again: Option<Again<'p>>,
    /// What binds the client to its server.
    pub bound: Option<(&'p Bound, &'p LiveAffinity)>,
}

/// Where an answer comes from.
#[derive(Debug)]
pub enum FromServer<'p, 's> {
    Http1(&'p mut Reader<'s>),
    Http2(&'p mut Answer),
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
    if let Some(buffer) = r.early.take() {
        r.progress.heard.set(true);
        return Ok(buffer);
    }
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

/// The time for the answer begins when the request is out.
fn time_left(r: &Receive<'_, '_, '_, '_>) -> Duration {
    let passed = r.progress.sent_at.get().map_or(Duration::ZERO, |at| at.elapsed());
    r.timeouts.response.saturating_sub(passed)
}

/// Whether a wait that has ended began before the request was out.
fn may_take_longer(r: &Receive<'_, '_, '_, '_>) -> bool {
    r.progress.uploading.get() || r.progress.sent_at.get().is_some_and(|at| at.elapsed() < r.timeouts.response)
}

/// The server did not begin its answer in time.
pub fn timeout() -> Failure {
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
    let mut head = ResponseHead::empty();
    match response::parse_into(&mut head, buffer.as_slice(), method, limits) {
        Ok(true) => {}
        Ok(false) => return Ok(Next::More),
        Err(fault) => return Err(Failure::new(FailureKind::Response(fault), fault.detail())),
    }
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
            passed_over(r, status)?;
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

/// Drops an answer for which another server is asked: nothing of it has gone to the client.
#[inline]
fn passed_over(r: &Receive<'_, '_, '_, '_>, status: u16) -> Result<(), Failure> {
    match &r.again {
        Some(again) if again.passes_over(r.worker, status) => {
            Err(Failure::new(FailureKind::PassedOver(status), format!("the server answered {status}")))
        }
        _ => Ok(()),
    }
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
