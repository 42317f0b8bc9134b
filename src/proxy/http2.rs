//! A client that speaks HTTP/2: one task drives the connection, and each of its streams has one of its own
//! that serves its request by the same recipe as any other (`serve`).
//!
//! What the streams want sent gathers in the `h2` crate and in [`Deferred`], and goes out when the
//! connection's task has had its turn. Limits of frames and streams are the crate's, floods those of
//! `net::flood`, waiting is watched here:
//!
//! ```text
//!  nothing asked       client-keep-alive   GOAWAY, closed
//!  half a header block request-header      GOAWAY, closed
//!  nothing taken       client-write        reset
//!  streams             each by its own deadlines
//! ```

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::server::{Builder, SendResponse};
use h2::{Reason, RecvStream};
use http::Request;
use tokio::task::spawn_local;

use super::ahead;
use super::client::{Client, FromClient, Respond, ToClient};
use super::failure::{Failure, FailureKind};
use super::guard::caught;
use super::outcome::After;
use super::plan::{self, Ahead, Plan, Step};
use super::serve;
use super::view::View;
use super::worker::{Entered, Worker};
use crate::model::{Limits, Timeouts};
use crate::net::flood::{Flood, Side};
use crate::net::{Buffer, Deferred, Elapsed, Stream};
use crate::state::counters::Rejected;
use crate::wire::http1::RequestHead;
use crate::wire::http2::WEBSOCKET_KEY;
use crate::wire::http2::request::{self as wire, Around};

type Connection = h2::server::Connection<Deferred, Bytes>;

/// How long the last words of a connection may take, and how much of what the client still sends is read:
/// closing at once would reset the connection, and they would be lost.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 1 << 20;

/// Requests of one connection that are taken up in one go; then others have their turn. A hundred streams that
/// come together, and are worth a millisecond or more, would keep everybody else waiting as long.
const AT_ONCE: usize = 16;

/// While streams are served, they watch the time.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// What a connection and its streams share.
struct Shared {
    worker: Rc<Worker>,
    entered: Entered,
    /// Streams being served.
    streams: Cell<usize>,
    /// Requests that were taken up.
    taken: Cell<u64>,
    /// Wakes the connection's task.
    waker: RefCell<Option<Waker>>,
}

/// What the connection's task is told.
enum Event {
    /// To be looked at again: something else is waited for now, there is a flood, or the last request has come.
    Waits,
    /// Enough has been taken up in one go.
    Busy,
    /// The worker, or some connections, are to leave: perhaps this one.
    Leaves,
    /// The connection is over; it may have broken the protocol.
    End(Option<h2::Error>),
}

/// What a connection waits for, which decides for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    /// For the client to ask for something.
    Idle,
    /// For the rest of a header block.
    Block(u64),
    /// For the client to take what is written.
    Write(u64),
    /// Its streams wait, each for itself.
    Streams,
}

/// Serves a connection until its end. `input` is what has been read of it already.
pub async fn serve(worker: Rc<Worker>, entered: Entered, stream: Stream, input: Option<Buffer>) {
    let io = Deferred::new(stream, worker.buffers.clone(), input, Side::Server, Instant::now());
    let shared =
        Rc::new(Shared { worker, entered, streams: Cell::new(0), taken: Cell::new(0), waker: RefCell::default() });
    let Some(mut connection) = handshake(&shared, &io).await else { return };
    let worker = &shared.worker;
    let mut leaves = Box::pin(worker.something_leaves());
    let mut draining = false;
    if worker.is_leaving(&shared.entered) {
        draining = true;
        connection.graceful_shutdown();
    }
    // Not the snapshot itself: a stream may outlast many of them.
    let limits = |wait: Wait| {
        let config = &worker.view().snapshot.config;
        (wait.limit(&config.timeouts), config.limits.requests_per_connection)
    };
    let mut waited = Wait::Idle;
    let (mut limit, mut most) = limits(waited);
    loop {
        let wait = shared.waits(&io);
        if wait != std::mem::replace(&mut waited, wait) {
            (limit, most) = limits(wait);
        }
        let event = poll_fn(|cx| {
            if !draining && leaves.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Event::Leaves);
            }
            shared.poll(cx, &mut connection, &io, wait, if draining { 0 } else { most })
        });
        match shared.entered.timer.wait(limit, event).await {
            Ok(Event::Waits) => {}
            Ok(Event::Busy) => tokio::task::yield_now().await,
            Ok(Event::Leaves) => {
                leaves.set(worker.something_leaves());
                if worker.is_leaving(&shared.entered) {
                    draining = true;
                    connection.graceful_shutdown();
                }
            }
            Ok(Event::End(error)) => return over(&shared, &io, error).await,
            Err(Elapsed) => return too_long(&shared, connection, &io, wait).await,
        }
        if !draining && shared.has_had(most) {
            draining = true;
            connection.graceful_shutdown();
        }
        if let Some(flood) = io.flood() {
            let peer = shared.entered.client.get();
            tracing::debug!(client = %peer, "too many {}: the connection ends", flood.word());
            let (why, reason) = match flood {
                Flood::NoSettings => (Rejected::Protocol, Reason::PROTOCOL_ERROR),
                _ => (Rejected::Flood, Reason::ENHANCE_YOUR_CALM),
            };
            worker.counters.borrow_mut().rejected(shared.entered.listener, why);
            connection.abrupt_shutdown(reason);
            return last_words(&shared, connection, &io).await;
        }
    }
}

async fn handshake(shared: &Shared, io: &Deferred) -> Option<Connection> {
    let config = shared.worker.view().snapshot.config.clone();
    let mut handshake = builder(&config.limits).handshake::<_, Bytes>(io.clone());
    let handshake = poll_fn(|cx| {
        io.begin_turn(shared.worker.lately());
        let polled = Pin::new(&mut handshake).poll(cx);
        // Our settings need not wait for the client's preface (RFC 9113 §3.4).
        match io.flush(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => polled.map_err(std::io::Error::other),
        }
    });
    shared.entered.timer.wait(config.timeouts.request_header, handshake).await.ok()?.ok()
}

fn builder(limits: &Limits) -> Builder {
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(Limits::STREAMS)
        .initial_window_size(Limits::STREAM_WINDOW)
        .initial_connection_window_size(Limits::CONNECTION_WINDOW)
        .data_frame_budget(Limits::FRAME_BUDGET)
        .max_send_buffer_size(Limits::STREAM_BUFFER)
        .max_header_list_size((limits.header_bytes + Limits::FIELD_OVERHEAD) as u32)
        .max_pending_accept_reset_streams(Limits::PENDING_RESETS)
        .enable_connect_protocol();
    builder
}

impl Wait {
    fn limit(self, timeouts: &Timeouts) -> Duration {
        match self {
            Wait::Idle => timeouts.client_keep_alive,
            Wait::Block(_) => timeouts.request_header,
            Wait::Write(_) => timeouts.client_write,
            Wait::Streams => FOREVER,
        }
    }
}

impl Shared {
    fn waits(&self, io: &Deferred) -> Wait {
        if let Some(progress) = io.stuck_at() {
            return Wait::Write(progress);
        }
        if let Some(block) = io.open_block() {
            return Wait::Block(block);
        }
        if self.streams.get() == 0 { Wait::Idle } else { Wait::Streams }
    }

    /// Whether as many requests have come as a connection may have; 0 is any number.
    fn has_had(&self, most: u64) -> bool {
        most > 0 && self.taken.get() >= most
    }

    /// One turn of the connection: what came is read and taken up, what was waiting is written.
    fn poll(
        self: &Rc<Self>,
        cx: &mut Context<'_>,
        connection: &mut Connection,
        io: &Deferred,
        wait: Wait,
        most: u64,
    ) -> Poll<Event> {
        if self.waits(io) != wait {
            // The last stream has ended meanwhile: the turn is taken once, with the time that holds now.
            return Poll::Ready(Event::Waits);
        }
        io.begin_turn(self.worker.lately());
        let mut at_once = 0;
        loop {
            match connection.poll_accept(cx) {
                Poll::Ready(Some(Ok(request))) => start(self, request),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Event::End(Some(error))),
                Poll::Ready(None) => return Poll::Ready(Event::End(None)),
                Poll::Pending => break,
            }
            self.taken.set(self.taken.get() + 1);
            at_once += 1;
            if at_once >= AT_ONCE {
                return Poll::Ready(Event::Busy);
            }
            if self.waits(io) != wait || io.flood().is_some() || self.has_had(most) {
                return Poll::Ready(Event::Waits);
            }
        }
        if let Poll::Ready(Err(_)) = io.flush(cx) {
            return Poll::Ready(Event::End(None));
        }
        if io.flood().is_some() || self.waits(io) != wait {
            return Poll::Ready(Event::Waits);
        }
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

/// The connection waited too long for something.
async fn too_long(shared: &Shared, mut connection: Connection, io: &Deferred, wait: Wait) {
    match wait {
        Wait::Write(_) => io.reset_on_close(),
        Wait::Idle | Wait::Streams => {
            connection.abrupt_shutdown(Reason::NO_ERROR);
            last_words(shared, connection, io).await;
        }
        Wait::Block(_) => {
            shared.worker.counters.borrow_mut().rejected(shared.entered.listener, Rejected::Timeout);
            connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
            last_words(shared, connection, io).await;
        }
    }
}

/// The connection has ended by itself.
async fn over(shared: &Shared, io: &Deferred, error: Option<h2::Error>) {
    let Some(error) = error.filter(|error| !error.is_io()) else { return };
    if !error.is_remote() {
        let calm = error.reason() == Some(Reason::ENHANCE_YOUR_CALM);
        let why = if calm { Rejected::Flood } else { Rejected::Protocol };
        tracing::debug!(client = %shared.entered.client.get(), "{error}");
        shared.worker.counters.borrow_mut().rejected(shared.entered.listener, why);
    }
    linger(shared, io).await;
}

/// Sends a GOAWAY that has been asked for.
async fn last_words(shared: &Shared, mut connection: Connection, io: &Deferred) {
    let closed = poll_fn(|cx| {
        io.begin_turn(shared.worker.lately());
        let closed = connection.poll_closed(cx).map(drop);
        let _ = io.flush(cx);
        closed
    });
    if shared.entered.timer.wait(LINGER, closed).await.is_ok() {
        linger(shared, io).await;
    }
}

async fn linger(shared: &Shared, io: &Deferred) {
    let mut read = 0;
    let ended = poll_fn(|cx| {
        loop {
            match io.poll_discard(cx) {
                Poll::Ready(Ok(count)) if count > 0 && read < LINGER_BYTES => read += count,
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    });
    let _ = shared.entered.timer.wait(LINGER, ended).await;
}

/// A stream that is being served, from its request to the end of its task.
struct Serving(Rc<Shared>);

impl Serving {
    fn new(shared: &Rc<Shared>) -> Serving {
        if shared.streams.replace(shared.streams.get() + 1) == 0 {
            shared.worker.set_active(&shared.entered);
        }
        Serving(shared.clone())
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let shared = &self.0;
        let left = shared.streams.get().saturating_sub(1);
        shared.streams.set(left);
        if left == 0 {
            shared.worker.set_idle(&shared.entered);
            // What the connection waits for is another thing now.
            if let Some(waker) = shared.waker.borrow_mut().take() {
                waker.wake();
            }
        }
    }
}

fn start(shared: &Rc<Shared>, (request, respond): (Request<RecvStream>, SendResponse<Bytes>)) {
    let serving = Serving::new(shared);
    let started = Instant::now();
    let (parts, body) = request.into_parts();
    let mut quoted = shared.worker.buffers.text();
    let view = shared.worker.view_for(&shared.entered);
    let plan = plan(shared, view, &parts, body.is_end_stream(), None, &mut quoted);
    // Planned again when its body is here.
    let parts = matches!(plan.step, Step::NeedBody(_)).then(|| Box::new(parts));
    // Boxed, for a task is moved about some eight times from here to its end, and this one is large.
    spawn_local(Box::pin(stream(serving, plan, parts, quoted, body, Respond::new(respond), started)));
}

fn plan(
    shared: &Shared,
    view: Rc<View>,
    parts: &http::request::Parts,
    ends: bool,
    ahead: Option<Ahead<'_>>,
    quoted: &mut Vec<u8>,
) -> Plan {
    let worker = &*shared.worker;
    let mut plan = Plan::new(view.clone());
    let Some(listener) = view.listener(shared.entered.listener) else {
        plan.fail(Failure::new(FailureKind::NoRoute, "the listener is gone"));
        return plan;
    };
    let protocol = parts.extensions.get::<h2::ext::Protocol>().map(h2::ext::Protocol::as_str);
    let around = Around { ends, protocol, key: WEBSOCKET_KEY };
    let mut crumbs = worker.buffers.text();
    let mut head = RequestHead::empty();
    match wire::read(&mut head, parts, around, &mut crumbs, &view.snapshot.config.limits) {
        Ok(length) => {
            let connection = &shared.entered;
            let planned =
                caught(|| plan::plan_quoted(worker, listener, &view, connection, &mut head, ahead, quoted, &mut plan));
            if let Err(failure) = planned {
                plan.fail(failure);
            }
            plan.head_bytes = length;
        }
        Err(refusal) => plan.fail(Failure::head(refusal)),
    }
    drop(head);
    worker.buffers.keep_text(crumbs);
    plan
}

/// Reads the body that a rule wants to see, and plans the request anew.
async fn plan_with_body(shared: &Shared, client: &mut Client<'_, '_>, plan: &mut Plan, parts: &http::request::Parts) {
    let Step::NeedBody(wanted) = std::mem::replace(&mut plan.step, Step::Drop) else { return };
    match ahead::read(&shared.worker, client, plan, &wanted).await {
        Ok(read) => {
            let ahead = Ahead { body: read.body(), need: wanted.need };
            client.quoted.clear();
            *plan = self::plan(shared, plan.view.clone(), parts, false, Some(ahead), &mut client.quoted);
        }
        Err(failure) => plan.step = Step::Fail(failure),
    }
}

async fn stream(
    serving: Serving,
    mut plan: Plan,
    parts: Option<Box<http::request::Parts>>,
    quoted: Vec<u8>,
    mut body: RecvStream,
    mut respond: Respond,
    started: Instant,
) {
    let worker = &serving.0.worker;
    let timer = worker.wheel.timer();
    let mut client = Client {
        from: FromClient::Http2(&mut body),
        to: ToClient::Http2(&mut respond),
        timer: &timer,
        connection: &serving.0.entered,
        input: None,
        quoted,
        body_taken: 0,
        next_input: None,
        held: None,
    };
    if let Some(parts) = parts {
        Box::pin(plan_with_body(&serving.0, &mut client, &mut plan, &parts)).await;
    }
    let after = serve::serve(worker, &mut client, &mut plan, started).await;
    worker.buffers.keep_text(client.quoted);
    match after {
        // Whole. If the client is still sending, the crate tells it to stop (RFC 9113 §8.1).
        After::Keep | After::Linger => {}
        // A part of an answer must not look like all of it.
        After::Close | After::Gone => respond.reset(Reason::INTERNAL_ERROR),
        After::Reset => respond.reset(Reason::CANCEL),
    }
}
