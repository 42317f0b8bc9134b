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

mod attempt;
mod hedge;

use std::cell::Cell;
use std::future::{Future, poll_fn, ready};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::HeaderMap;

use super::announced;
use super::bound::Bound;
use super::client::{Client, ToClient};
use super::conduct;
use super::failure::{Failure, FailureKind};
use super::guard::guarded;
use super::mirror::Mirror;
use super::outcome::{After, Outcome, Progress};
use super::pick::{self, Connected, Picked, Take, Tries, Upstream};
use super::plan::{Forward, Plan};
use super::queue;
use super::receive::Received;
use super::registry::Connection;
use super::retry;
use super::tunnel;
use super::upload::{self, Framed, Upload};
use super::worker::Worker;
use crate::model::pool::Protocol;
use crate::net::{Buffer, Elapsed, Stream, Timer, idle};
use crate::state::connections::Doing;
use crate::state::counters::RetryReason;
use crate::state::{Lease, LivePool};
use crate::wire::http1::Framing;

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
    /// What comes behind a body that is here as bare data (`Framed::Bare`).
    trailers: Option<Box<HeaderMap>>,
    /// Bytes of `Forward::head` that are the head.
    head: usize,
    framed: Framed,
    /// What is sent is copied for other pools.
    mirror: Option<Box<Mirror>>,
    /// Bytes of the server's address that stand in the head for want of a Host.
    host_length: usize,
    /// Spent on reaching servers.
    connect: Duration,
}

/// Forwards one request. The head stays at the front of the client's input until the end, for the log.
pub async fn forward(
    worker: &Rc<Worker>,
    client: &mut Client<'_, '_>,
    plan: &Plan,
    forward: &mut Forward,
    progress: &Progress,
) -> Outcome {
    let pool = plan.view.snapshot.pools[forward.pool].clone();
    let head = forward.head.len();
    let mirrored = !forward.mirrors.is_empty() && !forward.websocket;
    let framed = match pool.config().protocol {
        // As a copy wants it.
        _ if mirrored => Framed::Bare,
        Protocol::Http1 => Framed::Chunks,
        Protocol::H2c | Protocol::H2 | Protocol::Auto => Framed::Bare,
    };
    let mut trailers = None;
    let upload = match upload::take_body(worker, client, plan, forward, progress, framed, &mut trailers) {
        Ok(upload) => upload,
        Err(failure) => return Outcome { pool: Some(pool), ..Outcome::failed(failure) },
    };
    let mirror = mirrored.then(|| Box::new(mirror(client, plan, forward, head)));
    let total = forward.tuned.as_ref().and_then(|tuned| tuned.total);
    let mut exchange = Exchange {
        worker,
        plan,
        tries: Tries::of(forward.tuned.clone(), forward.bound.take()),
        forward,
        progress,
        pool,
        upload,
        sent: Cell::new(false),
        body_begun: false,
        trailers,
        head,
        framed,
        mirror,
        host_length: 0,
        connect: Duration::ZERO,
    };
    // Two small boxes are cheaper than a large one: they come from the allocator's fast lists.
    let result = match total {
        None => guarded(Box::pin(exchange.run(client))).await,
        Some(total) => guarded(Box::pin(within(total, worker, progress, exchange.run(client)))).await,
    };
    let Exchange { pool, tries, connect, .. } = exchange;
    let affinity = tries.bound.as_ref().map(Bound::result);
    let mut outcome = Outcome {
        server: tries.last,
        pool: Some(pool),
        tries: tries.count,
        queued: tries.queued,
        connect,
        affinity,
        ..Outcome::of(After::Close)
    };
    match result.flatten() {
        Ok(Ran::Done(after)) => conclude(&mut outcome, progress, Ok(after)),
        Ok(Ran::Switched(switched)) => outcome.switched = Some(switched),
        Err(failure) => conclude(&mut outcome, progress, Err(failure)),
    }
    outcome
}

/// The copy that other pools get of it.
fn mirror(client: &Client<'_, '_>, plan: &Plan, forward: &Forward, head: usize) -> Mirror {
    let snapshot = &plan.view.snapshot;
    let pools = forward.mirrors.iter().map(|pool| snapshot.pools[*pool].clone()).collect();
    let limits = &snapshot.config.limits;
    Mirror::new(pools, forward.key, &forward.head, head, plan.body, plan.head_only, limits, client.connection)
}

/// The rest of a request whose server has agreed to a WebSocket; `outcome` becomes what it came to.
pub async fn tunnel(
    worker: &Worker,
    client: &mut Client<'_, '_>,
    plan: &mut Plan,
    switched: Box<Switched>,
    progress: &Progress,
    outcome: &mut Outcome,
) {
    plan.let_go(client.connection.listener);
    let Switched { lease, pool, tries, mut stream, from_server } = *switched;
    let timeouts = tries.timeouts(&pool);
    let result = tunnel::run(worker, client, plan, &lease, &mut stream, from_server, timeouts, progress).await;
    conclude(outcome, progress, result);
}

fn conclude(outcome: &mut Outcome, progress: &Progress, result: Result<After, Failure>) {
    outcome.status = progress.status.get();
    outcome.first_byte = progress.first_byte.get();
    outcome.answered = progress.answered.get();
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
}

/// Gives a request up when its rule's time for all of it is over.
async fn within(
    total: Duration,
    worker: &Worker,
    progress: &Progress,
    run: impl Future<Output = Result<Ran, Failure>>,
) -> Result<Ran, Failure> {
    let left = total.saturating_sub(progress.started.elapsed());
    let timer = worker.wheel.timer();
    timer.wait(left, pin!(run)).await.unwrap_or_else(|Elapsed| {
        Err(Failure::new(FailureKind::TotalTimeout, "the rule's time for the whole request is over"))
    })
}

/// How far a request came.
enum Ran {
    Done(After),
    /// The server has agreed to a WebSocket.
    Switched(Box<Switched>),
}

/// A server that has agreed to a WebSocket, and what it has said already.
#[derive(Debug)]
pub struct Switched {
    /// It has the connection in hand.
    lease: Lease,
    pool: Arc<LivePool>,
    /// For the times of the rule's own.
    tries: Tries,
    stream: Stream,
    from_server: Buffer,
}

impl Exchange<'_> {
    /// Tries servers until one answers, or none is left that may be tried.
    async fn run(&mut self, client: &mut Client<'_, '_>) -> Result<Ran, Failure> {
        #[cfg(test)]
        super::tests::panic_where_it_is_meant(client.quoted());
        let mut take = Take::IdleOrNew;
        // A stream that is reset before its turn comes costs no connection to a server.
        unless_given_up(&mut client.to, ready(Ok(()))).await?;
        loop {
            let key = self.forward.key;
            let mut picked = self.pick(client, key, take).await?;
            let Connected { mut lease, mut upstream, reused, took } = loop {
                let lease = match picked {
                    Picked::Connected(connected) => break connected,
                    Picked::ToDial(lease) => lease,
                };
                let reached = Box::pin(self.reach(client.connection, client.timer, take, lease));
                picked = match unless_given_up(&mut client.to, reached).await {
                    Ok(connected) => break connected,
                    // It was not reached, and the others are full.
                    Err(failure) if queue::may_wait(&self.pool, &failure) => {
                        let picked = Box::pin(self.wait(client, key, take)).await?;
                        retry::count(self.worker, &self.pool, RetryReason::Connect);
                        picked
                    }
                    Err(failure) => return Err(failure),
                };
            };
            self.connect += took;
            client.connection.server.set((self.pool.id(), lease.id()));
            if let Some(at) = self.forward.host_at {
                let address = lease.address().to_string().into_bytes();
                let before = std::mem::replace(&mut self.host_length, address.len());
                self.head = self.head - before + address.len();
                self.forward.head.splice(at..at + before, address);
            }
            let asked = self.pool.times_answers().then(Instant::now);
            let attempted = match (&mut upstream, self.hedge_after()) {
                (_, Some(after)) => {
                    let (runner, attempted) = Box::pin(self.race(client, lease, upstream, after)).await;
                    (lease, upstream) = (runner.lease, runner.upstream);
                    attempted
                }
                (Upstream::Http1(stream), None) => {
                    if self.framed == Framed::Bare && self.plan.body == Framing::Chunked {
                        let done = matches!(self.upload, Upload::Done);
                        upload::frame(self.forward, self.head, done, self.trailers.as_deref());
                        // From here on it is as if it had been so from the beginning.
                        self.framed = Framed::Chunks;
                    }
                    self.attempt(client, stream).await
                }
                (Upstream::Http2(place), None) => {
                    // It was put into chunks for a server that was asked before.
                    let again = self.framed == Framed::Chunks && self.plan.body == Framing::Chunked;
                    let limits = &self.plan.view.snapshot.config.limits;
                    if again && !upload::bare(self.forward, self.head, limits) {
                        Err(Failure::server_closed("another protocol"))
                    } else {
                        if again {
                            self.framed = Framed::Bare;
                        }
                        Box::pin(self.attempt_stream(client, place)).await
                    }
                }
            };
            if let Some(asked) = asked {
                // One that does not answer is as slow as we have been patient. What the client takes to send is its own.
                let answered = self.progress.first_byte.get().map(|after| self.progress.started + after);
                let answered = answered.filter(|at| *at >= asked).unwrap_or_else(Instant::now);
                let sent = self.progress.sent_at.get().map_or(asked, |sent| sent.max(asked));
                let took = answered.saturating_duration_since(sent);
                self.progress.answered.set(Some(took));
                if self.pool.goes_by_delay() {
                    lease.answered(took);
                }
            }
            match attempted {
                Ok(Received::Done { keep_alive, reusable, uploaded }) => {
                    if let Upstream::Http1(stream) = upstream
                        && reusable
                        && uploaded
                    {
                        self.keep(client, &lease, stream);
                    }
                    return Ok(Ran::Done(match (uploaded, keep_alive) {
                        (false, _) => After::Linger,
                        (true, true) => After::Keep,
                        (true, false) => After::Close,
                    }));
                }
                Ok(Received::Switching { from_server }) => {
                    let Upstream::Http1(stream) = upstream else { return Ok(Ran::Done(After::Close)) };
                    self.worker.buffers.keep_text(std::mem::take(&mut self.forward.head));
                    return Ok(Ran::Switched(Box::new(Switched {
                        lease,
                        pool: self.pool.clone(),
                        tries: Tries::of(self.forward.tuned.clone(), None),
                        stream,
                        from_server,
                    })));
                }
                // A server of HTTP/2 refused it, or was about to say goodbye.
                Err(failure) if self.may_ask_again(&failure) => {
                    retry::count(self.worker, &self.pool, RetryReason::Unprocessed);
                    take = Take::IdleOrNew;
                }
                // The server closed a kept connection as we took it.
                Err(failure) if reused && take == Take::IdleOrNew && self.may_repeat(&failure) => {
                    retry::count(self.worker, &self.pool, RetryReason::StaleConnection);
                    take = Take::New;
                }
                Err(failure) if self.may_ask_another(&failure) => {
                    conduct::passed_over(self.worker, &self.pool, lease.server(), &failure);
                    self.tries.avoid(lease.id());
                    take = Take::IdleOrNew;
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    /// The server did not answer, or not well; nothing has gone to the client, all of the request is still here, and sending it
    /// again is safe (RFC 9110 §9.2.2).
    fn may_ask_another(&mut self, failure: &Failure) -> bool {
        let reason = match failure.kind {
            // It was asked whether it may when the answer was dropped.
            FailureKind::PassedOver(_) => {
                retry::count(self.worker, &self.pool, RetryReason::Status);
                return true;
            }
            FailureKind::ResponseTimeout => RetryReason::Timeout,
            FailureKind::ServerClosed => RetryReason::Reset,
            _ => return false,
        };
        let safe = self.forward.idempotent || !self.sent.get();
        let may = safe
            && !self.progress.begun.get()
            && !self.body_begun
            && retry::may(self.worker, &self.pool, &self.tries, reason);
        if may {
            retry::count(self.worker, &self.pool, reason);
        }
        may
    }

    /// Chooses a server, or waits for one where all are full.
    #[inline]
    async fn pick(&mut self, client: &mut Client<'_, '_>, key: Option<u64>, take: Take) -> Result<Picked, Failure> {
        match pick::pick(self.worker, &self.pool, key, take, &mut self.tries) {
            Err(failure) if queue::may_wait(&self.pool, &failure) => Box::pin(self.wait(client, key, take)).await,
            picked => picked,
        }
    }

    async fn wait(&mut self, client: &mut Client<'_, '_>, key: Option<u64>, take: Take) -> Result<Picked, Failure> {
        let (mut ending, timer) = (None, client.timer);
        client.connection.doing.set(Doing::Queued);
        let gone = |cx: &mut Context<'_>| client.poll_gone(&mut ending, cx);
        let picked = queue::wait(self.worker, &mut self.pool, key, take, &mut self.tries, timer, gone).await;
        client.connection.doing.set(Doing::Waiting);
        picked
    }

    /// The server has said that it did not look at the request, all of which is still here.
    fn may_ask_again(&mut self, failure: &Failure) -> bool {
        failure.kind == FailureKind::Unprocessed
            && !self.body_begun
            && retry::may(self.worker, &self.pool, &self.tries, RetryReason::Unprocessed)
    }

    /// Nothing was answered, all of the request is still here, and either nothing of it was taken or
    /// its method says that twice is as good as once (RFC 9110 §9.2.2).
    fn may_repeat(&mut self, failure: &Failure) -> bool {
        failure.kind == FailureKind::ServerClosed
            && !self.progress.heard.get()
            && !self.body_begun
            && (self.forward.idempotent || !self.sent.get())
            && retry::may(self.worker, &self.pool, &self.tries, RetryReason::StaleConnection)
    }

    /// Gets a connection to a server that has no idle one for everybody.
    async fn reach(
        &mut self,
        connection: &Connection,
        timer: &Timer,
        take: Take,
        lease: Lease,
    ) -> Result<Connected, Failure> {
        let (worker, pool) = (self.worker, &self.pool);
        let mut greeting = Vec::new();
        if let Some(version) = pool.config().send_proxy {
            let (server, address) = (lease.id(), lease.address());
            if take == Take::IdleOrNew
                && let Some(announced) = connection.announced.get()
                && let Some(stream) = announced.take(server, address, lease.way(), worker.lately())
            {
                worker.counters.borrow_mut().upstream_reuse(pool.id(), server);
                return Ok(Connected { lease, upstream: Upstream::Http1(stream), reused: true, took: Duration::ZERO });
            }
            announced::write(connection, version, &mut greeting);
        }
        let (key, tries) = (self.forward.key, &mut self.tries);
        pick::connect(worker, pool, key, take, lease, &greeting, tries, timer).await
    }

    fn keep(&self, client: &Client<'_, '_>, lease: &Lease, stream: Stream) {
        // The server is spoken to in another way now, or not at all.
        if !lease.is_current() {
            return;
        }
        let until = idle::expiry(self.worker.lately(), self.pool.config().timeouts.server_keep_alive);
        if self.pool.config().send_proxy.is_some() {
            if let Some(announced) = client.connection.announced.get() {
                announced.keep(lease.id(), lease.address(), lease.way(), stream, until);
            }
            return;
        }
        let most = self.plan.view.snapshot.config.limits.idle_per_server;
        self.worker.idle.keep(lease.id(), lease.address(), lease.way(), stream, until, most);
    }
}

/// Does what has to be done before the request is sent, for as long as its client wants it.
pub async fn unless_given_up<T>(
    to: &mut ToClient<'_, '_>,
    mut work: impl Future<Output = Result<T, Failure>> + Unpin,
) -> Result<T, Failure> {
    poll_fn(|cx| match to.poll_given_up(cx) {
        Poll::Ready(()) => Poll::Ready(Err(Failure::client_gone())),
        Poll::Pending => Pin::new(&mut work).poll(cx),
    })
    .await
}
