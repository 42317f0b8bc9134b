//! Connections to servers that speak HTTP/2, each of which carries many requests at once.
//!
//! One worker keeps its own. A request takes a stream of a connection that has one left, else another
//! connection is made; requests that come while it is being made wait for it. A server that says goodbye
//! (GOAWAY) gets no more requests on that connection, those under way are finished.
//!
//! ```text
//!  silence, streams open   QUIET              one PING
//!  no answer to it         PONG               closed: the server is gone
//!  no stream               server-keep-alive  closed
//!  no stream, and another way to the server   closed
//! ```

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::{Builder, ResponseFuture, SendRequest};
use h2::{Ping, PingPong, Reason, SendStream};
use http::Request;
use tokio::sync::Notify;
use tokio::task::spawn_local;

use super::pick;
use super::worker::Worker;
use crate::model::{Limits, Timeouts};
use crate::net::dial::DialError;
use crate::net::flood::Side;
use crate::net::{Deferred, Elapsed, Stream, Timer};
use crate::state::{Lease, LivePool, Seat, Way};

/// A server that says nothing for so long while it owes answers is asked whether it is there. Once: gRPC
/// servers take more than two such questions in a row for abuse.
const QUIET: Duration = Duration::from_secs(10);
const PONG: Duration = Duration::from_secs(5);
/// How long a goodbye may take to be sent.
const GOODBYE: Duration = Duration::from_secs(1);
/// While streams are served and heard of, they watch the time.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// The connections of one worker, by the number of the server.
#[derive(Debug, Default)]
pub struct Channels {
    servers: RefCell<Vec<Server>>,
}

#[derive(Debug, Default)]
struct Server {
    channels: Vec<Rc<Channel>>,
    /// Somebody is making another connection; told when it is there, or could not be made.
    dialing: Option<Rc<Notify>>,
}

/// One connection.
#[derive(Debug)]
pub struct Channel {
    send: SendRequest<Bytes>,
    io: Deferred,
    address: SocketAddr,
    way: Way,
    /// Requests under way.
    streams: Cell<usize>,
    /// It is counted while there are some, where connections in use are bounded.
    seat: RefCell<Option<Box<Seat>>>,
    /// Requests so far.
    entered: Cell<u64>,
    /// It takes no more of them.
    closed: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// A request's place on a connection.
#[derive(Debug)]
pub struct Place {
    channel: Rc<Channel>,
}

impl Channels {
    /// A place on a connection that is there. Where `counted` connections in use are bounded, one that is idle takes
    /// the lease's seat.
    pub fn take(&self, lease: &Lease, counted: bool) -> Option<Place> {
        let mut servers = self.servers.borrow_mut();
        let channels = &mut servers.get_mut(lease.id() as usize)?.channels;
        channels.retain(|channel| !channel.closed.get());
        let idle_too = !counted || lease.is_seated();
        channels
            .iter()
            .find(|channel| channel.serves(lease) && (idle_too || channel.is_in_use()))
            .map(|channel| Channel::enter(channel, lease))
    }

    /// Whether there is a place on a connection that is in use already.
    pub fn has_room(&self, server: u32) -> bool {
        let servers = self.servers.borrow();
        let known = servers.get(server as usize);
        known.is_some_and(|known| known.channels.iter().any(|channel| channel.is_in_use() && channel.has_room()))
    }

    /// Lets those end that were made in another way than `ways` has for the server of that number: what is
    /// under way on them is finished. Called once a second.
    pub fn sweep(&self, ways: impl Fn(u32) -> Option<Way>) {
        for (server, known) in (0..).zip(self.servers.borrow_mut().iter_mut()) {
            if known.channels.is_empty() {
                continue;
            }
            let way = ways(server);
            for channel in known.channels.iter().filter(|channel| Some(channel.way) != way) {
                channel.closed.set(true);
                channel.wake();
            }
            known.channels.retain(|channel| !channel.closed.get());
        }
    }

    fn with<T>(&self, server: u32, change: impl FnOnce(&mut Server) -> T) -> T {
        let mut servers = self.servers.borrow_mut();
        let at = server as usize;
        if servers.len() <= at {
            servers.resize_with(at + 1, Server::default);
        }
        change(&mut servers[at])
    }
}

/// What somebody who dials owes to those who wait: to tell them, whatever becomes of it.
struct Dialing<'w> {
    worker: &'w Worker,
    server: u32,
}

impl Drop for Dialing<'_> {
    fn drop(&mut self) {
        if let Some(waiting) = self.worker.channels.with(self.server, |server| server.dialing.take()) {
            waiting.notify_waiters();
        }
    }
}

/// A place on a new connection, to be made in time, or on one that somebody else has made meanwhile.
///
/// # Errors
/// When the server was not reached.
pub async fn open(
    worker: &Rc<Worker>,
    pool: &LivePool,
    lease: &Lease,
    timeouts: &Timeouts,
    timer: &Timer,
) -> Result<Place, DialError> {
    let server = lease.id();
    let limit = timeouts.connect + timeouts.tls_handshake;
    let start = Instant::now();
    loop {
        let waiting = worker.channels.with(server, |server| match &server.dialing {
            Some(waiting) => Some(waiting.clone()),
            None => {
                server.dialing = Some(Rc::default());
                None
            }
        });
        let Some(waiting) = waiting else {
            let dialing = Dialing { worker, server };
            let reached = pick::reach(pool, lease, &[], pick::Take::New, timeouts, timer).await?;
            let place = add(worker, pool, lease, reached.stream).await;
            drop(dialing);
            return place;
        };
        let left = limit.saturating_sub(start.elapsed());
        if left.is_zero() || timer.wait(left, Box::pin(waiting.notified())).await.is_err() {
            return Err(DialError::TimedOut);
        }
        if let Some(place) = worker.channels.take(lease, pool.counts_connections()) {
            return Ok(place);
        }
    }
}

/// Makes a connection of HTTP/2 of one on which nothing has been said yet.
///
/// # Errors
/// When it is not there any more.
pub async fn add(worker: &Rc<Worker>, pool: &LivePool, lease: &Lease, stream: Stream) -> Result<Place, DialError> {
    let io = Deferred::new(stream, worker.buffers.clone(), None, Side::Client, Instant::now());
    // This only writes; the server's settings are waited for by nobody (RFC 9113 §3.4).
    let handshake = builder().handshake(io.clone()).await;
    let (send, connection) = handshake.map_err(|error| DialError::Other(std::io::Error::other(error)))?;
    let channel = Rc::new(Channel {
        send,
        io,
        address: lease.address(),
        way: lease.way(),
        streams: Cell::new(0),
        seat: RefCell::default(),
        entered: Cell::new(0),
        closed: Cell::new(false),
        waker: RefCell::default(),
    });
    let place = Channel::enter(&channel, lease);
    let server = lease.id();
    worker.channels.with(server, |server| server.channels.push(channel.clone()));
    if pool.counts_connections() {
        // Who waits for a connection may share this one.
        pool.gate().call_all();
    }
    let keep_alive = pool.config().timeouts.server_keep_alive;
    spawn_local(drive(worker.clone(), server, channel, connection, keep_alive));
    Ok(place)
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder
        .enable_push(false)
        .initial_max_send_streams(Limits::STREAMS as usize)
        .initial_window_size(Limits::STREAM_WINDOW)
        // Room for all of its streams: whoever does not read holds nobody else up.
        .initial_connection_window_size(Limits::STREAMS * Limits::STREAM_WINDOW)
        // Streams that were given up may still be heard of, and the crate resets those that it has forgotten. Over the whole life
        // of a connection there may be many: `net::flood` counts what is the server's fault, by time.
        .max_concurrent_reset_streams(10 * Limits::STREAMS as usize)
        .max_local_error_reset_streams(None)
        .data_frame_budget(Limits::FRAME_BUDGET)
        .max_send_buffer_size(Limits::STREAM_BUFFER)
        .max_header_list_size((Limits::HEADER_BYTES_CEILING + Limits::FIELD_OVERHEAD) as u32);
    builder
}

impl Channel {
    fn has_room(&self) -> bool {
        let most = self.send.current_max_send_streams().min(Limits::STREAMS as usize);
        !self.closed.get() && self.streams.get() < most
    }

    fn is_in_use(&self) -> bool {
        self.streams.get() > 0
    }

    /// Whether it would do for a request that was given this lease.
    fn serves(&self, lease: &Lease) -> bool {
        self.address == lease.address() && self.way == lease.way() && self.has_room()
    }

    fn enter(self: &Rc<Self>, lease: &Lease) -> Place {
        self.entered.set(self.entered.get() + 1);
        let seat = lease.seat();
        if self.streams.replace(self.streams.get() + 1) == 0 {
            *self.seat.borrow_mut() = seat;
            self.wake();
        }
        Place { channel: self.clone() }
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let left = self.channel.streams.get().saturating_sub(1);
        self.channel.streams.set(left);
        if left == 0 {
            drop(self.channel.seat.take());
            self.channel.wake();
        }
    }
}

impl Place {
    /// Begins a request.
    ///
    /// # Errors
    /// When the connection takes no more of them: nothing was sent.
    pub async fn send(
        &self,
        request: Request<()>,
        ends: bool,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        let mut send = self.channel.send.clone();
        poll_fn(|cx| send.poll_ready(cx)).await?;
        send.send_request(request, ends)
    }

    /// Whether the server did not look at a request that failed, so that it may be asked again, or another
    /// server (RFC 9113 §8.7).
    pub fn was_not_processed(&self, error: &h2::Error, stream: u32) -> bool {
        let refused = error.is_reset() && error.is_remote() && error.reason() == Some(Reason::REFUSED_STREAM);
        refused || self.channel.io.last_stream().is_some_and(|last| stream > last)
    }

    /// No other request goes this way.
    pub fn close(&self) {
        self.channel.closed.set(true);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    /// For a request.
    Idle,
    /// For nothing: its last request is done.
    Over,
    /// For anything of the server.
    Heard(u64),
    /// For its answer to a PING.
    Pong,
    /// A PING was answered, and nothing else has come since, nor has anything been asked.
    Nothing(u64),
}

type Connection = h2::client::Connection<Deferred, Bytes>;

struct Driver {
    worker: Rc<Worker>,
    channel: Rc<Channel>,
    connection: Connection,
    pings: Option<PingPong>,
    /// A PING is on its way.
    asked: bool,
    /// What had been heard, and how many requests there had been, when the last PING was answered.
    answered: Option<(u64, u64)>,
}

enum Event {
    Waits,
    End,
}

/// Drives one connection to its end.
async fn drive(
    worker: Rc<Worker>,
    server: u32,
    channel: Rc<Channel>,
    mut connection: Connection,
    keep_alive: Duration,
) {
    let pings = connection.ping_pong();
    let timer = worker.wheel.timer();
    let mut driver = Driver { worker, channel, connection, pings, asked: false, answered: None };
    loop {
        let wait = driver.waits();
        let limit = match wait {
            Wait::Idle => keep_alive,
            Wait::Over => Duration::ZERO,
            Wait::Heard(_) => QUIET,
            Wait::Pong => PONG,
            Wait::Nothing(_) => FOREVER,
        };
        match timer.wait(limit, poll_fn(|cx| driver.poll(cx, wait))).await {
            Ok(Event::Waits) => {}
            Ok(Event::End) => break,
            Err(Elapsed) if matches!(wait, Wait::Heard(_)) => driver.ask(),
            Err(Elapsed) if matches!(wait, Wait::Idle | Wait::Over) => {
                driver.forget(server);
                let Driver { channel, connection, .. } = driver;
                return goodbye(channel, connection, &timer).await;
            }
            Err(Elapsed) => {
                tracing::debug!(server = %driver.channel.address, "the server does not answer a PING");
                break;
            }
        }
    }
    driver.forget(server);
}

impl Driver {
    /// No request finds this connection any more.
    fn forget(&self, server: u32) {
        self.channel.closed.set(true);
        self.worker
            .channels
            .with(server, |server| server.channels.retain(|channel| !Rc::ptr_eq(channel, &self.channel)));
    }

    fn waits(&self) -> Wait {
        let heard = self.channel.io.heard();
        if self.asked {
            Wait::Pong
        } else if self.channel.streams.get() == 0 {
            if self.channel.closed.get() { Wait::Over } else { Wait::Idle }
        } else if self.answered == Some((heard, self.channel.entered.get())) {
            Wait::Nothing(heard)
        } else {
            Wait::Heard(heard)
        }
    }

    fn ask(&mut self) {
        if let Some(pings) = &mut self.pings {
            self.asked = pings.send_ping(Ping::opaque()).is_ok();
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>, wait: Wait) -> Poll<Event> {
        let io = &self.channel.io;
        io.begin_turn(self.worker.lately());
        if Pin::new(&mut self.connection).poll(cx).is_ready() {
            return Poll::Ready(Event::End);
        }
        if let Poll::Ready(Err(_)) = io.flush(cx) {
            return Poll::Ready(Event::End);
        }
        if let Some(flood) = io.flood() {
            tracing::warn!(server = %self.channel.address, "the server sends too many {}: its connection is closed", flood.word());
            return Poll::Ready(Event::End);
        }
        if io.last_stream().is_some() {
            self.channel.closed.set(true);
        }
        if self.asked
            && let Some(pings) = &mut self.pings
            && pings.poll_pong(cx).is_ready()
        {
            self.asked = false;
            self.answered = Some((io.heard(), self.channel.entered.get()));
        }
        if self.waits() != wait {
            return Poll::Ready(Event::Waits);
        }
        *self.channel.waker.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// Without streams and handles the crate says goodbye and closes.
async fn goodbye(channel: Rc<Channel>, connection: Connection, timer: &Timer) {
    let io = channel.io.clone();
    let mut connection = Box::pin(connection);
    drop(channel);
    let closed = poll_fn(|cx| {
        io.begin_turn(Instant::now());
        let closed = connection.as_mut().poll(cx).map(drop);
        let _ = io.flush(cx);
        closed
    });
    let _ = timer.wait(GOODBYE, closed).await;
}
