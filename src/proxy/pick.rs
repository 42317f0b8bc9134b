//! Chooses the server for one request and gets a connection to it.
//!
//! Never a server that is down, full or draining, nor one that this request has already failed to
//! reach. A connection that is idle is taken before a new one is made.

use std::sync::Arc;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::failure::{Failure, FailureKind};
use super::worker::Worker;
use crate::net::dial::{DialError, dial};
use crate::net::{Elapsed, Stream, Timer};
use crate::state::counters::{ConnectResult, RetryReason};
use crate::state::{Lease, LivePool, LiveServer, NoServer};
use crate::tls;

/// A server with a connection to it.
#[derive(Debug)]
pub struct Connected {
    pub lease: Lease,
    pub stream: Stream,
    /// It has served before, so that the server may be closing it this very moment.
    pub reused: bool,
    pub took: Duration,
}

/// The servers one request has been at.
#[derive(Debug, Default)]
pub struct Tries {
    /// Those that were not reached.
    failed: SmallVec<[u32; 4]>,
    /// Connections asked for.
    pub count: u32,
    /// The server asked last, reached or not.
    pub last: Option<Arc<LiveServer>>,
}

/// Whether an idle connection will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Take {
    IdleOrNew,
    New,
}

/// A server, and whether there is a connection to it already.
#[derive(Debug)]
pub enum Picked {
    Connected(Connected),
    ToDial(Lease),
}

/// Chooses a server, and takes an idle connection to it where that will do and there is one.
///
/// # Errors
/// When no server may be asked.
pub fn pick(
    worker: &Worker,
    pool: &LivePool,
    key: Option<u64>,
    take: Take,
    tries: &mut Tries,
) -> Result<Picked, Failure> {
    let lease = pool.pick(key, &tries.failed).map_err(|none| no_server(pool, none))?;
    tries.count += 1;
    tries.last = Some(lease.server().clone());
    if take == Take::IdleOrNew
        && let Some(stream) = worker.idle.take(lease.id(), lease.address())
        // What was connected before a reload may be less than what is asked for now.
        && stream.is_plain() == pool.config().tls.is_none()
    {
        worker.counters.borrow_mut().upstream_reuse(pool.id(), lease.id());
        return Ok(Picked::Connected(Connected { lease, stream, reused: true, took: Duration::ZERO }));
    }
    Ok(Picked::ToDial(lease))
}

/// Connects to a server, or to another one where it cannot be reached.
///
/// # Errors
/// The last server's, when no other may be tried.
pub async fn connect(
    worker: &Worker,
    pool: &LivePool,
    key: Option<u64>,
    take: Take,
    mut lease: Lease,
    tries: &mut Tries,
    timer: &Timer,
) -> Result<Connected, Failure> {
    loop {
        let (server, address) = (lease.id(), lease.address());
        let started = Instant::now();
        let error = match reach(pool, &lease, timer).await {
            Ok(stream) => {
                worker.counters.borrow_mut().upstream_connect(pool.id(), server, ConnectResult::Ok);
                return Ok(Connected { lease, stream, reused: false, took: started.elapsed() });
            }
            Err(error) => error,
        };
        let (kind, result) = match &error {
            DialError::Refused => (FailureKind::Connect, ConnectResult::Refused),
            DialError::TimedOut => (FailureKind::ConnectTimeout, ConnectResult::Timeout),
            DialError::Tls(_) => (FailureKind::Connect, ConnectResult::Tls),
            DialError::Other(_) => (FailureKind::Connect, ConnectResult::Error),
        };
        worker.counters.borrow_mut().upstream_connect(pool.id(), server, result);
        let failure = Failure::new(kind, format!("{} ({address}): {}", lease.identity(), error.detail()));
        let retry = &pool.config().retry;
        if !retry.on_connect || tries.failed.len() as u32 >= retry.attempts {
            return Err(failure);
        }
        tries.failed.push(server);
        // The failed server's place is free again before the next one is chosen.
        drop(lease);
        lease = match pick(worker, pool, key, take, tries) {
            Ok(Picked::Connected(connected)) => {
                worker.counters.borrow_mut().retry(pool.id(), RetryReason::Connect);
                return Ok(connected);
            }
            Ok(Picked::ToDial(lease)) => lease,
            // What went wrong says more than that nobody is left.
            Err(_) => return Err(failure),
        };
        worker.counters.borrow_mut().retry(pool.id(), RetryReason::Connect);
    }
}

/// Connects, and shakes hands where the pool is spoken to in secret. Nothing of a request has been sent then.
async fn reach(pool: &LivePool, lease: &Lease, timer: &Timer) -> Result<Stream, DialError> {
    let timeouts = &pool.config().timeouts;
    let tcp = dial(lease.address(), timer, timeouts.connect).await?;
    let Some(tls) = &pool.config().tls else { return Ok(Stream::plain(tcp)) };
    let name = tls::server_name(tls, &lease.configured_address());
    let (Some(name), Some(config)) = (name, pool.tls()) else {
        return Err(DialError::Tls("TLS: there is no name or no authority to judge the server by".to_owned()));
    };
    let handshake = Box::pin(tls::connect(tcp, config.load_full(), name));
    match timer.wait(timeouts.tls_handshake, handshake).await {
        Ok(Ok((tcp, session))) => Ok(Stream::tls(tcp, session)),
        Ok(Err(why)) => Err(DialError::Tls(why)),
        Err(Elapsed) => Err(DialError::Tls("TLS: the handshake took too long".to_owned())),
    }
}

fn no_server(pool: &LivePool, none: NoServer) -> Failure {
    match none {
        NoServer::Down if !pool.config().built => {
            let detail = format!("pool {} is spoken to in a way that is not built yet", pool.name());
            Failure::new(FailureKind::NoServer, detail)
        }
        NoServer::Down => Failure::new(FailureKind::NoServer, format!("no server of pool {} is up", pool.name())),
        NoServer::Full => {
            Failure::new(FailureKind::Full, format!("every server of pool {} is at its limit", pool.name()))
        }
    }
}
