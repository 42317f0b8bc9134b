//! The recipe: one request from its plan to its answer.
//!
//! 1. Take the body as far as it is here (`take_body`).
//! 2. Choose a server and connect (`pick`).
//! 3. Send the head with what there is of the body (`attempt`).
//! 4. Pass on the rest of the body (`relay`) while
//! 5. the answer comes back (`receive`), or a tunnel opens (`tunnel`).
//! 6. Keep the server's connection or close it.
//!
//! A request that may have reached a server is sent again only when that is safe (RFC 9110 §9.2.2).

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use super::client::Client;
use super::failure::{Failure, FailureKind};
use super::outcome::{After, Outcome, Progress};
use super::pick::{self, Connected, Picked, Take, Tries};
use super::plan::{Forward, Plan};
use super::receive::{self, Receive, Received};
use super::relay::{self, Path, Patience, RelayError};
use super::tunnel;
use super::worker::Worker;
use crate::net::{Buffer, Stream, Timer, idle};
use crate::state::counters::RetryReason;
use crate::state::{Lease, LivePool};
use crate::wire::http1::{ChunkedBody, Framing, Keep};

/// What of the request's body is still to come.
#[derive(Debug)]
enum Upload {
    /// Nothing: `Forward::head` holds the whole request.
    Done,
    Length(u64),
    Chunked(Box<Chunks>),
}

/// A chunked body on its way.
#[derive(Debug)]
struct Chunks {
    body: ChunkedBody,
    /// Read and not passed on.
    buffer: Buffer,
}

/// One request on its way to a pool.
struct Exchange<'e> {
    worker: &'e Rc<Worker>,
    plan: &'e Plan,
    forward: &'e mut Forward,
    progress: &'e Progress,
    pool: Arc<LivePool>,
    upload: Upload,
    tries: Tries,
    /// Some byte of the request was taken by this side's kernel for the server.
    sent: Cell<bool>,
    /// More of the body was taken from the client than is kept here.
    body_begun: bool,
    /// Bytes of the server's address that stand in the head for want of a Host.
    host_length: usize,
    /// Spent on reaching servers.
    connect: Duration,
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
    let upload = match take_body(worker, client, plan, forward, progress) {
        Ok(upload) => upload,
        Err(failure) => return Outcome { pool: Some(pool), ..Outcome::failed(failure) },
    };
    let mut exchange = Exchange {
        worker,
        plan,
        forward,
        progress,
        pool,
        upload,
        tries: Tries::default(),
        sent: Cell::new(false),
        body_begun: false,
        host_length: 0,
        connect: Duration::ZERO,
    };
    // Two small boxes are cheaper than a large one: they come from the allocator's fast lists.
    let result = Box::pin(exchange.run(client)).await;
    let Exchange { pool, tries, connect, .. } = exchange;
    let mut outcome = Outcome {
        status: progress.status.get(),
        server: tries.last,
        pool: Some(pool),
        tries: tries.count,
        connect,
        first_byte: progress.first_byte.get(),
        body_in: progress.body_in.get(),
        body_out: progress.body_out.get(),
        ..Outcome::of(After::Close)
    };
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
                return Ok(Upload::Done);
            }
            client.body_taken = taken;
            Ok(Upload::Chunked(Box::new(Chunks { body, buffer })))
        }
    }
}

impl Exchange<'_> {
    /// Tries servers until one answers, or none is left that may be tried.
    async fn run(&mut self, client: &mut Client<'_>) -> Result<After, Failure> {
        let mut take = Take::IdleOrNew;
        loop {
            let key = self.forward.key;
            let Connected { lease, mut stream, reused, took } =
                match pick::pick(self.worker, &self.pool, key, take, &mut self.tries)? {
                    Picked::Connected(connected) => connected,
                    Picked::ToDial(lease) => {
                        let tries = &mut self.tries;
                        Box::pin(pick::connect(self.worker, &self.pool, key, take, lease, tries, client.timer)).await?
                    }
                };
            self.connect += took;
            client.connection.server.set((self.forward.pool as u32, lease.id()));
            if let Some(at) = self.forward.host_at {
                let address = lease.address().to_string().into_bytes();
                let before = std::mem::replace(&mut self.host_length, address.len());
                self.forward.head.splice(at..at + before, address);
            }
            match self.attempt(client, &mut stream).await {
                Ok(Received::Done { keep_alive, reusable, uploaded }) => {
                    if reusable && uploaded {
                        self.keep(&lease, stream);
                    }
                    return Ok(match (uploaded, keep_alive) {
                        (false, _) => After::Linger,
                        (true, true) => After::Keep,
                        (true, false) => After::Close,
                    });
                }
                Ok(Received::Switching { from_server }) => {
                    self.worker.buffers.keep_text(std::mem::take(&mut self.forward.head));
                    let timeouts = &self.pool.config().timeouts;
                    let tunnel =
                        tunnel::run(self.worker, client, self.plan, &mut stream, from_server, timeouts, self.progress);
                    return Box::pin(tunnel).await;
                }
                // The server closed a kept connection as we took it.
                Err(failure) if reused && take == Take::IdleOrNew && self.may_repeat(&failure) => {
                    self.worker.counters.borrow_mut().retry(self.pool.id(), RetryReason::StaleConnection);
                    take = Take::New;
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    /// Nothing was answered, all of the request is still here, and either nothing of it was taken or
    /// its method says that twice is as good as once (RFC 9110 §9.2.2).
    fn may_repeat(&self, failure: &Failure) -> bool {
        failure.kind == FailureKind::ServerClosed
            && !self.progress.heard.get()
            && !self.body_begun
            && (self.forward.idempotent || !self.sent.get())
    }

    fn keep(&self, lease: &Lease, stream: Stream) {
        let until = idle::expiry(self.worker.lately(), self.pool.config().timeouts.server_keep_alive);
        let most = self.plan.view.snapshot.config.limits.idle_per_server;
        self.worker.idle.keep(lease.id(), lease.address(), stream, until, most);
    }

    /// Sends the request to one server and passes its answer back.
    async fn attempt(&mut self, client: &mut Client<'_>, stream: &mut Stream) -> Result<Received, Failure> {
        let (worker, plan, progress) = (self.worker, self.plan, self.progress);
        let timeouts = &self.pool.config().timeouts;
        let (mut from_server, mut to_server) = stream.split();
        // A server may answer without reading all of the request, and close: its answer counts, so a
        // failed write is no failure yet.
        let written = send(&mut to_server, &self.forward.head, client.timer, timeouts.response, &self.sent).await;
        progress.unsent.set(written.is_err() || !matches!(self.upload, Upload::Done));
        let last = client.is_last(&plan.view.snapshot.config.limits);
        let mut receive = Receive {
            worker,
            plan,
            websocket: self.forward.websocket,
            timeouts,
            progress,
            timer: client.timer,
            from: &mut from_server,
            to: &mut client.writer,
            last,
        };
        let result = match &mut self.upload {
            // Half a request is out: that server's connection must never carry another one.
            _ if written.is_err() => receive::receive(&mut receive).await.map(not_uploaded),
            Upload::Done => receive::receive(&mut receive).await,
            upload => {
                self.body_begun = true;
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
                let both = both_ways(pass_body(path, worker, upload, limits), receive::receive(&mut receive), progress);
                Box::pin(both).await
            }
        };
        if let (Upload::Chunked(chunks), Ok(Received::Done { uploaded: true, .. })) = (&mut self.upload, &result)
            && chunks.body.is_done()
        {
            // What came behind the body is the next request.
            client.next_input = Some(std::mem::replace(&mut chunks.buffer, worker.buffers.small()));
        }
        result
    }
}

fn not_uploaded(received: Received) -> Received {
    match received {
        Received::Done { .. } => Received::Done { keep_alive: false, reusable: false, uploaded: false },
        switching => switching,
    }
}

/// Sends the request, or as much of it as is here.
async fn send(
    to: &mut crate::net::stream::Writer<'_>,
    bytes: &[u8],
    timer: &Timer,
    limit: Duration,
    sent: &Cell<bool>,
) -> Result<(), RelayError> {
    let count = to.write_now(bytes).map_err(|_| RelayError::Gone)?;
    // Where nothing went out yet, some of it soon will have.
    sent.set(true);
    if count == bytes.len() && !to.is_behind() {
        return Ok(());
    }
    Box::pin(relay::write_rest(to, &bytes[count..], timer, limit)).await
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
        Upload::Chunked(chunks) => path.chunked(&mut chunks.body, &mut chunks.buffer, limits).await,
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
            progress.sent_at.set(Some(Instant::now()));
            match result {
                Ok(()) => {
                    progress.unsent.set(false);
                    uploaded = Some(true);
                }
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
