//! The recipe: one request from its plan to its answer.
//!
//! 1. take the body as far as it is here, 2. choose a server and connect, 3. send the head with what
//! there is of the body, 4. pass on the rest of the body while 5. the answer comes back, 6. keep the
//! server's connection or close it. A request that may have reached a server is sent again only when
//! that is safe (RFC 9110 §9.2.2).

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use super::connection::Client;
use super::failure::{Failure, FailureKind};
use super::pick::{self, Connected, Take, Tries};
use super::plan::{Forward, Plan};
use super::receive::{self, Receive, Received};
use super::relay::{Path, Patience, RelayError};
use super::tunnel;
use super::worker::Worker;
use crate::net::{Buffer, Stream, Timer, idle};
use crate::state::{LivePool, LiveServer};
use crate::wire::http1::{ChunkedBody, Framing, Keep};

/// What became of a request, for the client's connection, the log and the counters.
#[derive(Debug)]
pub struct Outcome {
    /// What the client was told; 0: nothing.
    pub status: u16,
    pub server: Option<Arc<LiveServer>>,
    pub pool: Option<Arc<LivePool>>,
    pub tries: u32,
    pub connect: Duration,
    /// From the first byte of the request.
    pub first_byte: Option<Duration>,
    pub body_in: u64,
    pub body_out: u64,
    pub failure: Option<Failure>,
    pub after: After,
    /// Whether the failure has to be told: no byte of an answer has been sent.
    pub untold: bool,
}

impl Outcome {
    /// Nothing happened but this.
    pub fn of(after: After) -> Outcome {
        Outcome {
            status: 0,
            server: None,
            pool: None,
            tries: 0,
            connect: Duration::ZERO,
            first_byte: None,
            body_in: 0,
            body_out: 0,
            failure: None,
            after,
            untold: false,
        }
    }

    /// A failure before any server was asked.
    pub fn failed(failure: Failure) -> Outcome {
        Outcome { failure: Some(failure), untold: true, ..Outcome::of(After::Close) }
    }
}

/// What becomes of the client's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// It waits for the next request.
    Keep,
    /// It is closed.
    Close,
    /// It is closed when the client has stopped sending, so that it gets to read its answer.
    Linger,
    /// It is reset: what the client has got is not the whole.
    Reset,
}

/// What the parts of a request tell each other while it is under way.
#[derive(Debug)]
pub struct Progress {
    pub started: Instant,
    /// A final answer has begun: it is too late for another one.
    pub begun: Cell<bool>,
    pub status: Cell<u16>,
    /// The answer's end is the end of the connection.
    pub until_close: Cell<bool>,
    /// The request's body is still on its way.
    pub uploading: Cell<bool>,
    /// The server has sent something.
    pub heard: Cell<bool>,
    pub first_byte: Cell<Option<Duration>>,
    pub body_in: Cell<u64>,
    pub body_out: Cell<u64>,
    /// Heads sent to the client.
    pub heads_out: Cell<u64>,
}

impl Progress {
    pub fn new(started: Instant) -> Progress {
        Progress {
            started,
            begun: Cell::new(false),
            status: Cell::new(0),
            until_close: Cell::new(false),
            uploading: Cell::new(false),
            heard: Cell::new(false),
            first_byte: Cell::new(None),
            body_in: Cell::new(0),
            body_out: Cell::new(0),
            heads_out: Cell::new(0),
        }
    }
}

/// What of the request's body is still to come.
#[derive(Debug)]
enum Upload {
    /// Nothing: `Forward::head` holds the whole request.
    Done,
    Length(u64),
    Chunked {
        body: ChunkedBody,
        buffer: Buffer,
    },
}

/// Forwards one request. The head stays at the front of the client's input until the end, for the log.
pub async fn forward(
    worker: &Rc<Worker>,
    client: &mut Client<'_>,
    plan: &Plan,
    forward: &mut Forward,
    progress: &Progress,
) -> Outcome {
    let pool = plan.view.snapshot.pools[forward.pool].clone();
    let mut tries = Tries::default();
    let mut outcome = Outcome::of(After::Close);
    let result = match take_body(worker, client, plan, forward, progress) {
        Ok(mut upload) => {
            attempts(worker, client, plan, forward, progress, &pool, &mut upload, &mut tries, &mut outcome).await
        }
        Err(failure) => Err(failure),
    };
    outcome.pool = Some(pool);
    outcome.tries = tries.count;
    outcome.status = progress.status.get();
    outcome.first_byte = progress.first_byte.get();
    outcome.body_in = progress.body_in.get();
    outcome.body_out = progress.body_out.get();
    match result {
        Ok(after) => outcome.after = after,
        Err(failure) => {
            outcome.untold = !progress.begun.get();
            // A body that is cut short shows by its framing, unless its end is the connection's.
            outcome.after = if progress.until_close.get() { After::Reset } else { After::Close };
            outcome.failure = Some(failure);
        }
    }
    outcome
}

/// Moves what has come of the body behind the head, to be sent in one piece.
fn take_body(
    worker: &Worker,
    client: &mut Client<'_>,
    plan: &Plan,
    forward: &mut Forward,
    progress: &Progress,
) -> Result<Upload, Failure> {
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
            let mut body = ChunkedBody::new(Keep::Framed);
            let limits = &plan.view.snapshot.config.limits;
            let mut buffer = worker.buffers.small();
            // The input may have grown beyond a small buffer, but then its head takes the difference.
            if !buffer.append(here) {
                buffer = worker.buffers.large();
                buffer.append(here);
            }
            let taken = buffer.len();
            let scanned = body
                .scan(buffer.as_mut_slice(), limits)
                .map_err(|fault| Failure::new(FailureKind::Body(fault), fault.detail()))?;
            forward.head.extend_from_slice(&buffer.as_slice()[..scanned.kept]);
            buffer.consume(scanned.taken);
            progress.body_in.set(scanned.kept as u64);
            if scanned.done {
                client.body_taken = scanned.taken;
                return Ok(Upload::Done);
            }
            client.body_taken = taken;
            Ok(Upload::Chunked { body, buffer })
        }
    }
}

#[allow(clippy::too_many_arguments)]
async fn attempts(
    worker: &Rc<Worker>,
    client: &mut Client<'_>,
    plan: &Plan,
    forward: &mut Forward,
    progress: &Progress,
    pool: &LivePool,
    upload: &mut Upload,
    tries: &mut Tries,
    outcome: &mut Outcome,
) -> Result<After, Failure> {
    let mut take = Take::IdleOrNew;
    loop {
        let Connected { lease, mut stream, reused, took } =
            pick::connect(worker, pool, forward.key, take, tries, client.timer).await?;
        outcome.connect += took;
        outcome.server = Some(lease.server().clone());
        client.connection.server.set((forward.pool as u32, lease.id()));
        if let Some(at) = forward.host_at.take() {
            let address = lease.address().to_string();
            forward.head.splice(at..at, address.into_bytes());
        }
        let result = attempt(worker, client, plan, forward, progress, pool, &mut stream, upload).await;
        match result {
            Ok(Received::Done { keep_alive, reusable, uploaded }) => {
                if reusable && uploaded {
                    let now = Instant::now();
                    let until = idle::expiry(now, pool.config().timeouts.server_keep_alive);
                    let most = plan.view.snapshot.config.limits.idle_per_server;
                    worker.idle.keep(lease.id(), lease.address(), stream, until, most);
                }
                return Ok(match (uploaded, keep_alive) {
                    (false, _) => After::Linger,
                    (true, true) => After::Keep,
                    (true, false) => After::Close,
                });
            }
            Ok(Received::Switching { from_server }) => {
                let timeouts = &pool.config().timeouts;
                return Box::pin(tunnel::run(worker, client, plan, &mut stream, from_server, timeouts, progress)).await;
            }
            Err((failure, Sent(sent))) => {
                // The server closed a kept connection as we took it: nothing was answered, and
                // either nothing was taken or the method says that twice is as good as once.
                let stale = reused
                    && take == Take::IdleOrNew
                    && !progress.heard.get()
                    && matches!(failure.kind, FailureKind::ServerClosed)
                    && matches!(upload, Upload::Done)
                    && (forward.idempotent || !sent);
                if !stale {
                    return Err(failure);
                }
                worker.counters.borrow_mut().retry(pool.id(), crate::state::counters::RetryReason::StaleConnection);
                take = Take::New;
            }
        }
    }
}

/// Whether any byte of the request was taken by the server's side of the kernel.
#[derive(Debug, Clone, Copy)]
struct Sent(bool);

/// Sends the request to one server and passes its answer back.
#[allow(clippy::too_many_arguments)]
async fn attempt(
    worker: &Rc<Worker>,
    client: &mut Client<'_>,
    plan: &Plan,
    forward: &Forward,
    progress: &Progress,
    pool: &LivePool,
    stream: &mut Stream,
    upload: &mut Upload,
) -> Result<Received, (Failure, Sent)> {
    let timeouts = &pool.config().timeouts;
    let (mut from_server, mut to_server) = stream.split();
    let sent = Cell::new(false);
    // A server may answer without reading all of the request, and close: its answer counts, so a
    // failed write is no failure yet.
    let written = send(&mut to_server, &forward.head, client.timer, timeouts.response, &sent).await;
    let draining = worker.is_draining() || client.is_last(plan);
    let receive = Receive {
        worker,
        plan,
        websocket: forward.websocket,
        timeouts,
        progress,
        timer: client.timer,
        from: &mut from_server,
        to: &mut client.writer,
        draining,
    };
    let result = match upload {
        Upload::Done => receive::receive(receive).await,
        _ if written.is_err() => receive::receive(receive).await.map(not_uploaded),
        _ => {
            progress.uploading.set(true);
            let timer = worker.wheel.timer();
            let patience = Patience { read: timeouts.request_body, write: timeouts.response };
            let path = Path {
                from: &mut client.reader,
                to: &mut to_server,
                timer: &timer,
                patience,
                moved: &progress.body_in,
            };
            let limits = &plan.view.snapshot.config.limits;
            let both =
                Box::pin(both_ways(pass_body(path, worker, upload, limits), receive::receive(receive), progress));
            both.await
        }
    };
    if let (Upload::Chunked { body, buffer }, Ok(Received::Done { uploaded: true, .. })) = (&mut *upload, &result)
        && body.is_done()
    {
        // What came behind the body is the next request.
        client.next_input = Some(std::mem::replace(buffer, worker.buffers.small()));
    }
    result.map_err(|failure| (failure, Sent(sent.get())))
}

fn not_uploaded(received: Received) -> Received {
    match received {
        Received::Done { .. } => Received::Done { keep_alive: false, reusable: false, uploaded: false },
        switching => switching,
    }
}

async fn send(
    to: &mut crate::net::stream::Writer<'_>,
    bytes: &[u8],
    timer: &Timer,
    limit: Duration,
    sent: &Cell<bool>,
) -> Result<(), RelayError> {
    let mut rest = bytes;
    while !rest.is_empty() {
        match timer.wait(limit, to.write(rest)).await {
            Ok(Ok(count)) if count > 0 => {
                sent.set(true);
                rest = &rest[count..];
            }
            Ok(_) => return Err(RelayError::Gone),
            Err(_) => return Err(RelayError::Stalled),
        }
    }
    Ok(())
}

async fn pass_body(
    mut path: Path<'_, '_, '_>,
    worker: &Worker,
    upload: &mut Upload,
    limits: &crate::model::Limits,
) -> Result<(), RelayError> {
    match upload {
        Upload::Done => Ok(()),
        Upload::Length(length) => path.length(worker, *length).await,
        Upload::Chunked { body, buffer } => path.chunked(body, buffer, limits).await,
    }
}

/// Body up and answer down at the same time. The answer decides when it is over; a client that breaks
/// its own request ends it too.
async fn both_ways(
    upload: impl Future<Output = Result<(), RelayError>>,
    answer: impl Future<Output = Result<Received, Failure>>,
    progress: &Progress,
) -> Result<Received, Failure> {
    let (mut upload, mut answer) = (pin!(upload), pin!(answer));
    let mut uploaded = None;
    poll_fn(|cx| {
        if uploaded.is_none()
            && let Poll::Ready(result) = upload.as_mut().poll(cx)
        {
            progress.uploading.set(false);
            match result {
                Ok(()) => uploaded = Some(true),
                // The server wants no more of it; it may have said why.
                Err(RelayError::Gone | RelayError::Stalled) => uploaded = Some(false),
                Err(RelayError::Cut(_)) => return Poll::Ready(Err(Failure::client_gone())),
                Err(RelayError::Silent) => {
                    let failure = Failure::new(FailureKind::BodyTimeout, "the request body took too long");
                    return Poll::Ready(Err(failure));
                }
                Err(RelayError::Chunked(fault)) => {
                    return Poll::Ready(Err(Failure::new(FailureKind::Body(fault), fault.detail())));
                }
            }
        }
        match Pin::new(&mut answer).as_mut().poll(cx) {
            Poll::Ready(Ok(received)) if uploaded == Some(true) => Poll::Ready(Ok(received)),
            Poll::Ready(received) => Poll::Ready(received.map(not_uploaded)),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}
