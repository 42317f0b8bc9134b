//! Chooses the server for one request and gets a connection to it.
//!
//! Never a server that is down, full or draining, nor one that this request has already failed to
//! reach. Where all are full, `queue` waits. A connection that is idle is taken before a new one is made.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::bound::Bound;
use super::channels::{self, Place};
use super::conduct;
use super::failure::{Failure, FailureKind};
use super::queue;
use super::retry;
use super::tuned::Tuned;
use super::worker::Worker;
use crate::model::Timeouts;
use crate::model::pool::{Protocol, Retry};
use crate::net::dial::{DialError, dial};
use crate::net::{Elapsed, Stream, Timer};
use crate::state::counters::{ConnectResult, RetryReason};
use crate::state::{Kind, Lease, LivePool, LiveServer, NoServer};
use crate::tls;

/// A server with a connection to it.
#[derive(Debug)]
pub struct Connected {
    pub lease: Lease,
    pub upstream: Upstream,
    /// It has served before, so that the server may be closing it this very moment.
    pub reused: bool,
    pub took: Duration,
}

/// What a server is spoken to over.
#[derive(Debug)]
pub enum Upstream {
    Http1(Stream),
    Http2(Place),
}

/// The servers one request has been at.
#[derive(Debug, Default)]
pub struct Tries {
    /// Those that were not reached.
    failed: SmallVec<[u32; 4]>,
    /// Those that were, and did not answer well: others are asked before them.
    poor: SmallVec<[u32; 4]>,
    /// Connections asked for.
    pub count: u32,
    /// Extra tries, which `retry` allowed.
    pub again: Cell<u32>,
    /// The server asked last, reached or not.
    pub last: Option<Arc<LiveServer>>,
    /// Spent waiting for a server that is not full.
    pub queued: Duration,
    /// Times and tries of the rule's own.
    tuned: Option<Rc<Tuned>>,
    /// The server that the client was at, in a pool that asks.
    pub bound: Option<Bound>,
}

impl Tries {
    pub fn of(tuned: Option<Rc<Tuned>>, bound: Option<Bound>) -> Tries {
        Tries { tuned, bound, ..Tries::default() }
    }

    /// Those of a second server, for a request that is at `server`.
    pub fn besides(tries: &Tries, server: u32) -> Tries {
        let mut failed = tries.failed.clone();
        failed.push(server);
        Tries { failed, ..Tries::of(tries.tuned.clone(), None) }
    }

    pub fn timeouts<'a>(&'a self, pool: &'a LivePool) -> &'a Timeouts {
        self.tuned.as_ref().map_or(&pool.config().timeouts, |tuned| &tuned.timeouts)
    }

    /// Another server is to be asked, if there is one.
    pub fn avoid(&mut self, server: u32) {
        self.poor.push(server);
    }

    /// A server is not to be asked at all.
    pub fn bar(&mut self, server: u32) {
        self.failed.push(server);
    }

    /// The rule's; whoever has the highest waits the shortest.
    pub fn priority(&self) -> i32 {
        self.tuned.as_ref().map_or(0, |tuned| tuned.priority)
    }

    /// What it may use of a pool, which decides what it is called for while it waits. `keyed`: it is placed by a key.
    pub fn kind(&self, worker: &Rc<Worker>, pool: &LivePool, keyed: bool, take: Take) -> Kind {
        let shares = (take == Take::IdleOrNew).then(|| Rc::as_ptr(worker).addr());
        let was_at = self.bound.as_ref().and_then(Bound::wanted);
        Kind::of(pool, &self.failed, was_at, keyed, shares)
    }

    pub fn retry<'a>(&'a self, pool: &'a LivePool) -> &'a Retry {
        self.tuned.as_ref().map_or(&pool.config().retry, |tuned| &tuned.retry)
    }
}

/// Whether an idle connection will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Take {
    IdleOrNew,
    New,
    /// One of its own, for bytes that nobody here reads, whatever the servers of the pool speak.
    Opaque,
}

/// A server, and whether there is a connection to it already.
#[derive(Debug)]
pub enum Picked {
    Connected(Connected),
    ToDial(Lease),
}

impl Picked {
    /// The server's id.
    pub fn server(&self) -> u32 {
        match self {
            Picked::Connected(connected) => connected.lease.id(),
            Picked::ToDial(lease) => lease.id(),
        }
    }
}

/// As [`pick_in_turn`], for a request that waits behind those who wait already, unless it has been at a server.
///
/// # Errors
/// When no server may be asked.
#[inline]
pub fn pick(
    worker: &Worker,
    pool: &LivePool,
    key: Option<u64>,
    take: Take,
    tries: &mut Tries,
) -> Result<Picked, Failure> {
    if tries.count > 0 || pool.counts_connections() {
        let in_turn = tries.count > 0 || pool.gate().waiting() == 0;
        return if in_turn {
            pick_in_turn(worker, pool, key, take, tries)
        } else {
            Err(no_server(pool, NoServer::Full))
        };
    }
    let lease = match pool.affinity() {
        None => pool.pick(key, &tries.failed).map_err(|none| no_server(pool, none))?,
        Some(_) if pool.gate().waiting() > 0 => return Err(no_server(pool, NoServer::Full)),
        Some(_) => choose(pool, key, tries, &[])?,
    };
    Ok(picked(worker, pool, take, tries, lease))
}

/// Chooses a server, and takes an idle connection to it where that will do and there is one.
///
/// # Errors
/// When no server may be asked.
pub fn pick_in_turn(
    worker: &Worker,
    pool: &LivePool,
    key: Option<u64>,
    take: Take,
    tries: &mut Tries,
) -> Result<Picked, Failure> {
    let shares = |server: u32| take == Take::IdleOrNew && worker.channels.has_room(server);
    loop {
        let mut barred: SmallVec<[u32; 8]> = SmallVec::new();
        if pool.counts_connections() {
            let servers = pool.servers().iter().filter(|server| !pool.may_connect(server) && !shares(server.id()));
            barred.extend(servers.map(|server| server.id()));
        }
        let lease = choose(pool, key, tries, &barred)?;
        // Another core may have taken the last connection meanwhile; then it shows.
        if !pool.counts_connections() || shares(lease.id()) || lease.take_into_use(pool) {
            return Ok(picked(worker, pool, take, tries, lease));
        }
    }
}

/// The server that the client was at, where the pool asks, or the one whose turn it is.
fn choose(pool: &LivePool, key: Option<u64>, tries: &Tries, barred: &[u32]) -> Result<Lease, Failure> {
    if tries.poor.is_empty() {
        return choose_but(pool, key, tries, &tries.failed, barred);
    }
    let avoided: SmallVec<[u32; 8]> = tries.failed.iter().chain(&tries.poor).copied().collect();
    choose_but(pool, key, tries, &avoided, barred).or_else(|_| choose_but(pool, key, tries, &tries.failed, barred))
}

fn choose_but(
    pool: &LivePool,
    key: Option<u64>,
    tries: &Tries,
    failed: &[u32],
    barred: &[u32],
) -> Result<Lease, Failure> {
    let chosen = match (&tries.bound, pool.affinity()) {
        (Some(bound), Some(affinity)) => bound.pick(pool, affinity, key, failed, barred)?,
        _ => pool.pick_in_turn(key, failed, barred),
    };
    chosen.map_err(|none| no_server(pool, none))
}

#[inline]
fn picked(worker: &Worker, pool: &LivePool, take: Take, tries: &mut Tries, lease: Lease) -> Picked {
    tries.count += 1;
    tries.last = Some(lease.server().clone());
    // Where servers are told whose connection it is, an idle one is somebody's: see `Announced::own`.
    if take == Take::IdleOrNew
        && let Some(upstream) = idle(worker, pool, &lease)
    {
        worker.counters.borrow_mut().upstream_reuse(pool.id(), lease.id());
        return Picked::Connected(Connected { lease, upstream, reused: true, took: Duration::ZERO });
    }
    Picked::ToDial(lease)
}

#[inline]
fn idle(worker: &Worker, pool: &LivePool, lease: &Lease) -> Option<Upstream> {
    if pool.config().send_proxy.is_some() {
        return None;
    }
    let stream = || worker.idle.take(lease.id(), lease.address(), lease.way());
    let place = || worker.channels.take(lease, pool.counts_connections()).map(Upstream::Http2);
    match pool.config().protocol {
        Protocol::Http1 => stream().map(Upstream::Http1),
        Protocol::H2c | Protocol::H2 => place(),
        Protocol::Auto => place().or_else(|| stream().map(Upstream::Http1)),
    }
}

async fn new(
    worker: &Rc<Worker>,
    pool: &LivePool,
    lease: &Lease,
    greeting: &[u8],
    take: Take,
    timeouts: &Timeouts,
    timer: &Timer,
) -> Result<Upstream, DialError> {
    match pool.config().protocol {
        _ if take == Take::Opaque => {
            reach(pool, lease, greeting, take, timeouts, timer).await.map(|reached| Upstream::Http1(reached.stream))
        }
        Protocol::Http1 => {
            reach(pool, lease, greeting, take, timeouts, timer).await.map(|reached| Upstream::Http1(reached.stream))
        }
        Protocol::Auto => {
            let reached = reach(pool, lease, greeting, take, timeouts, timer).await?;
            if !reached.http2 {
                return Ok(Upstream::Http1(reached.stream));
            }
            Box::pin(channels::add(worker, pool, lease, reached.stream)).await.map(Upstream::Http2)
        }
        Protocol::H2c | Protocol::H2 => {
            Box::pin(channels::open(worker, pool, lease, timeouts, timer)).await.map(Upstream::Http2)
        }
    }
}

/// Connects to a server, or to another one where it cannot be reached. `greeting` is said first on a new
/// connection: a PROXY header, or nothing.
///
/// # Errors
/// The last server's, when no other may be tried; [`FailureKind::Full`] where others may, and the request may wait for
/// them: the caller knows how.
pub async fn connect(
    worker: &Rc<Worker>,
    pool: &LivePool,
    key: Option<u64>,
    take: Take,
    mut lease: Lease,
    greeting: &[u8],
    tries: &mut Tries,
    timer: &Timer,
) -> Result<Connected, Failure> {
    let mut made_room = false;
    loop {
        let (server, address) = (lease.id(), lease.address());
        let started = Instant::now();
        let error = match new(worker, pool, &lease, greeting, take, tries.timeouts(pool), timer).await {
            Ok(upstream) => {
                worker.counters.borrow_mut().upstream_connect(pool.id(), server, ConnectResult::Ok);
                if take == Take::Opaque {
                    conduct::reached(worker, pool, &lease, started.elapsed());
                }
                return Ok(Connected { lease, upstream, reused: false, took: started.elapsed() });
            }
            Err(error) => error,
        };
        if let DialError::Shortage(error) = &error {
            worker.is_short(error);
            // Another server would not be reached either; but idle connections have what is missing.
            if !std::mem::replace(&mut made_room, true) && worker.idle.clear() > 0 {
                continue;
            }
        }
        let (kind, result) = match &error {
            DialError::Refused => (FailureKind::Connect, ConnectResult::Refused),
            DialError::TimedOut => (FailureKind::ConnectTimeout, ConnectResult::Timeout),
            DialError::Tls(_) => (FailureKind::Connect, ConnectResult::Tls),
            DialError::Shortage(_) => (FailureKind::Shortage, ConnectResult::Shortage),
            DialError::Other(_) => (FailureKind::Connect, ConnectResult::Error),
        };
        worker.counters.borrow_mut().upstream_connect(pool.id(), server, result);
        if kind != FailureKind::Shortage {
            conduct::not_reached(worker, pool, &lease);
        }
        let failure = Failure::new(kind, format!("{} ({address}): {}", lease.identity(), error.detail()));
        if kind == FailureKind::Shortage || !retry::may(worker, pool, tries, RetryReason::Connect) {
            return Err(failure);
        }
        tries.failed.push(server);
        // The failed server's place is free again before the next one is chosen.
        drop(lease);
        lease = match pick(worker, pool, key, take, tries) {
            Ok(Picked::Connected(connected)) => {
                retry::count(worker, pool, RetryReason::Connect);
                return Ok(connected);
            }
            Ok(Picked::ToDial(lease)) => lease,
            // Its turn comes.
            Err(full) if queue::may_wait(pool, &full) => return Err(full),
            // What went wrong says more than that nobody is left.
            Err(_) => return Err(failure),
        };
        retry::count(worker, pool, RetryReason::Connect);
    }
}

/// A new connection, and what the server has chosen to speak there.
#[derive(Debug)]
pub struct Reached {
    pub stream: Stream,
    pub http2: bool,
}

/// Connects, and shakes hands where the pool is spoken to in secret. Nothing of a request has been sent then.
pub async fn reach(
    pool: &LivePool,
    lease: &Lease,
    greeting: &[u8],
    take: Take,
    timeouts: &Timeouts,
    timer: &Timer,
) -> Result<Reached, DialError> {
    let protocol = pool.config().protocol;
    let tcp = dial(lease.address(), greeting, timer, timeouts.connect).await?;
    let Some(tls) = &pool.config().tls else {
        return Ok(Reached { stream: Stream::plain(tcp), http2: protocol == Protocol::H2c });
    };
    let name = tls::server_name(tls, &lease.configured_address());
    let (Some(name), Some(config)) = (name, pool.tls()) else {
        return Err(DialError::Tls("TLS: there is no name or no authority to judge the server by".to_owned()));
    };
    let mut config = config.load_full();
    if take == Take::Opaque {
        // What is passed on unread is in no language that we could name.
        let mut silent = (*config).clone();
        silent.alpn_protocols.clear();
        config = Arc::new(silent);
    }
    let handshake = Box::pin(tls::connect(tcp, config, name));
    match timer.wait(timeouts.tls_handshake, handshake).await {
        Ok(Ok((tcp, session))) => {
            let http2 = session.alpn_protocol() == Some(b"h2");
            if !http2 && take != Take::Opaque && matches!(protocol, Protocol::H2 | Protocol::H2c) {
                return Err(DialError::Tls("TLS: the server does not choose HTTP/2".to_owned()));
            }
            Ok(Reached { stream: Stream::tls(tcp, session), http2 })
        }
        Ok(Err(why)) => Err(DialError::Tls(why)),
        Err(Elapsed) => Err(DialError::Tls("TLS: the handshake took too long".to_owned())),
    }
}

fn no_server(pool: &LivePool, none: NoServer) -> Failure {
    match none {
        NoServer::Down => Failure::new(FailureKind::NoServer, format!("no server of pool {} is up", pool.name())),
        NoServer::Full => {
            Failure::new(FailureKind::Full, format!("every server of pool {} is at its limit", pool.name()))
        }
    }
}
