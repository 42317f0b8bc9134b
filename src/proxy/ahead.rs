//! A body that is read before a server is chosen, because a rule looks at it.
//!
//! Of HTTP/1 it stays where it was read, behind its head in the client's input, and goes on from there as any body
//! that came with its head; of HTTP/2 it is kept beside the stream. Either way what is sent on is what came.

use std::time::{Duration, Instant};

use http::HeaderMap;

use super::client::{Client, FromClient, ToClient};
use super::failure::{Failure, FailureKind};
use super::pieces;
use super::plan::Plan;
use super::relay::{self, downstream};
use super::upload::body_failure;
use super::worker::Worker;
use crate::net::buffers::SMALL;
use crate::net::{Elapsed, Timer};
use crate::route::{Body, Content, NeedBody};
use crate::wire::http1::{ChunkedBody, Framing, Keep};

/// That a rule wants to see the body, and what has to be known to read it.
#[derive(Debug)]
pub struct Wanted {
    pub need: Box<NeedBody>,
    /// The client waits to be asked for its body.
    pub expects_continue: bool,
}

/// What has come of a body.
#[derive(Debug)]
pub enum Read {
    Whole(Content),
    /// Beyond what rules look at.
    TooLarge,
}

/// The beginning of a body in frames, or all of it.
#[derive(Debug, Default)]
pub struct Held {
    pub data: Vec<u8>,
    /// The body has ended, perhaps with trailers.
    pub ended: Option<Option<HeaderMap>>,
}

impl Read {
    pub fn body(&self) -> Body<'_> {
        match self {
            Read::Whole(content) => Body::Whole(content),
            Read::TooLarge => Body::TooLarge,
        }
    }
}

/// Reads the body as far as rules look at it. All of it has one deadline, as a head has: the time that a body may be silent.
///
/// # Errors
/// When it is not valid, does not come in time, or the client goes away.
pub async fn read(worker: &Worker, client: &mut Client<'_, '_>, plan: &Plan, wanted: &Wanted) -> Result<Read, Failure> {
    let limit = plan.view.snapshot.config.timeouts.request_body;
    if wanted.expects_continue && client.body_bytes(plan.head_bytes).is_empty() {
        ask(client, plan.view.snapshot.config.timeouts.client_write).await?;
    }
    let most = wanted.need.most;
    match plan.body {
        _ if client.is_http2() => frames(client, plan, most, limit).await,
        Framing::Length(length) => whole(worker, client, plan, length as usize, limit).await,
        _ => chunked(worker, client, plan, most, limit).await,
    }
}

/// RFC 9110 §10.1.1: we are the ones who want the body, so it is we who ask for it; the server is not told of it.
async fn ask(client: &mut Client<'_, '_>, limit: Duration) -> Result<(), Failure> {
    match &mut client.to {
        ToClient::Http1(to) => relay::write_all(to, b"HTTP/1.1 100 Continue\r\n\r\n", client.timer, limit).await,
        ToClient::Http2(respond) => {
            let mut head = http::Response::new(());
            *head.status_mut() = http::StatusCode::CONTINUE;
            respond.interim(head)
        }
    }
    .map_err(downstream)
}

/// A body of a length that is within the bound.
async fn whole(
    worker: &Worker,
    client: &mut Client<'_, '_>,
    plan: &Plan,
    length: usize,
    limit: Duration,
) -> Result<Read, Failure> {
    let since = Instant::now();
    while client.body_bytes(plan.head_bytes).len() < length {
        more(worker, client, plan.head_bytes + length, limit.saturating_sub(since.elapsed())).await?;
    }
    Ok(Read::Whole(Content::new(&client.body_bytes(plan.head_bytes)[..length])))
}

/// A chunked body: what is read of it stays as it came, what it says is taken out beside.
async fn chunked(
    worker: &Worker,
    client: &mut Client<'_, '_>,
    plan: &Plan,
    most: usize,
    limit: Duration,
) -> Result<Read, Failure> {
    let (since, limits) = (Instant::now(), &plan.view.snapshot.config.limits);
    let mut body = ChunkedBody::new(Keep::Data);
    let (mut unscanned, mut data, mut seen) = (Vec::new(), Vec::new(), 0);
    loop {
        let here = client.body_bytes(plan.head_bytes);
        unscanned.extend_from_slice(&here[seen..]);
        seen = here.len();
        let scanned = body
            .scan(&mut unscanned, limits)
            .map_err(|fault| Failure::new(FailureKind::Body(fault), fault.detail()))?;
        data.extend_from_slice(&unscanned[..scanned.kept]);
        unscanned.drain(..scanned.taken);
        if data.len() > most {
            return Ok(Read::TooLarge);
        }
        if scanned.done {
            return Ok(Read::Whole(Content::new(data)));
        }
        // Chunks so small that they are mostly framing.
        if seen >= 2 * most {
            return Ok(Read::TooLarge);
        }
        more(worker, client, plan.head_bytes + 2 * most, limit.saturating_sub(since.elapsed())).await?;
    }
}

/// Reads more behind what is there, of which there may be `most` bytes.
async fn more(worker: &Worker, client: &mut Client<'_, '_>, most: usize, left: Duration) -> Result<(), Failure> {
    let Client { from, timer, input, .. } = client;
    let FromClient::Http1(from) = from else { return Err(Failure::client_gone()) };
    let input = input.get_or_insert_with(|| worker.buffers.holding(&[]));
    if !input.grow(most + SMALL) {
        return Err(Failure::client_gone());
    }
    match in_time(timer, left, from.read(input)).await? {
        Ok(count) if count > 0 => Ok(()),
        _ => Err(Failure::client_gone()),
    }
}

/// A body in frames. What has been taken in is asked for anew at once, so that no stream waits for another one's window.
async fn frames(client: &mut Client<'_, '_>, plan: &Plan, most: usize, limit: Duration) -> Result<Read, Failure> {
    let limits = &plan.view.snapshot.config.limits;
    let Client { from, timer, held, .. } = client;
    let FromClient::Http2(stream) = from else { return Err(Failure::client_gone()) };
    let mut data = Vec::new();
    let gathered = Box::pin(pieces::gather(stream, limits, most, &mut data));
    let ended = in_time(timer, limit, gathered).await?.map_err(|error| body_failure(&error))?;
    let whole = ended.is_some() && data.len() <= most;
    let read = if whole { Read::Whole(Content::new(data.clone())) } else { Read::TooLarge };
    *held = Some(Box::new(Held { data, ended }));
    Ok(read)
}

async fn in_time<T>(timer: &Timer, left: Duration, work: impl Future<Output = T>) -> Result<T, Failure> {
    let late = || Failure::new(FailureKind::BodyTimeout, "the request body took too long");
    // A wait looks at its time only when there is nothing to read.
    if left.is_zero() {
        return Err(late());
    }
    timer.wait(left, std::pin::pin!(work)).await.map_err(|Elapsed| late())
}
