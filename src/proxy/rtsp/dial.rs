//! A connection to a server, while the client's conversation goes on.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::super::announced;
use super::super::bound::Bound;
use super::super::failure::{Failure, FailureKind};
use super::super::pick::{self, Connected, Picked, Take, Tries, Upstream};
use super::super::queue;
use super::super::retry;
use super::super::tuned::Tuned;
use super::super::worker::Worker;
use super::leg::{Leg, Source};
use super::ours::Reply;
use super::route::To;
use super::talk::{Server, Talk};
use crate::model::Limits;
use crate::state::counters::RetryReason;
use crate::state::{Lease, LivePool, LiveServer};

/// Whom a request wants.
#[derive(Debug)]
pub struct Wanted {
    pub pool: Arc<LivePool>,
    /// The server that it has to be, or would best be.
    pub at: Option<At>,
    pub key: Option<u64>,
    pub tuned: Option<Rc<Tuned>>,
}

/// A server that is known to have what is asked for.
#[derive(Debug)]
pub struct At {
    pub server: Arc<LiveServer>,
    /// Another one will not do.
    pub only: bool,
}

pub struct Dialing(Pin<Box<dyn Future<Output = Result<Dialled, Failure>>>>);

enum Dialled {
    New(Box<Server>),
    /// The conversation is there already: the server's number.
    Known(u32),
}

impl Talk<'_> {
    /// Begins to reach a server; the request waits meanwhile.
    pub fn dial(&mut self, wanted: Wanted) {
        let (worker, connection) = (self.worker.clone(), self.connection);
        let now = worker.unix_seconds();
        let bound = wanted.pool.affinity().map(|affinity| Bound::of_connection(affinity, connection, None, now));
        let mut tries = Tries::of(wanted.tuned.clone(), bound);
        for server in wanted.pool.servers().iter().filter(|server| server.media().full(0).is_some()) {
            tries.avoid(server.id());
        }
        let mut greeting = Vec::new();
        if let Some(version) = wanted.pool.config().send_proxy {
            announced::write(connection, version, &mut greeting);
        }
        let known = self.servers.iter().map(|server| server.lease.id()).collect();
        self.dialing = Some(Dialing(Box::pin(reach(worker, wanted, tries, greeting, known))));
    }

    /// Whether a server was reached, or none, since the last call.
    pub fn dialled(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(Dialing(dialing)) = &mut self.dialing else { return false };
        let Poll::Ready(reached) = dialing.as_mut().poll(cx) else { return false };
        self.dialing = None;
        let to = match reached {
            Ok(Dialled::Known(id)) => match self.servers.iter().position(|server| server.lease.id() == id) {
                Some(at) => To::Server(at),
                None => To::Ours(Reply::of(503)),
            },
            Ok(Dialled::New(_)) if self.servers.len() >= Limits::MEDIA_SERVERS => To::Ours(Reply::of(503)),
            Ok(Dialled::New(server)) => {
                self.connection.server.set((server.pool.id(), server.lease.id()));
                self.servers.push(*server);
                To::Server(self.servers.len() - 1)
            }
            Err(failure) => self.failed(&failure),
        };
        if let Some(chosen) = &mut self.chosen {
            chosen.to = to;
        }
        true
    }

    /// What a failure is answered with; it is counted here.
    pub fn failed(&self, failure: &Failure) -> To {
        tracing::debug!(client = %self.peer(), failure = failure.kind.word(), "{}", failure.detail);
        if let Some(reason) = failure.kind.rejected() {
            self.worker.counters.borrow_mut().rejected(self.connection.listener, reason);
        }
        To::Ours(Reply::failed(failure))
    }
}

async fn reach(
    worker: Rc<Worker>,
    wanted: Wanted,
    mut tries: Tries,
    greeting: Vec<u8>,
    known: Vec<u32>,
) -> Result<Dialled, Failure> {
    let Wanted { mut pool, at, key, .. } = wanted;
    let timer = worker.wheel.timer();
    let only = at.as_ref().filter(|at| at.only).map(|at| at.server.id());
    if let Some(only) = only {
        pool.servers().iter().filter(|server| server.id() != only).for_each(|server| tries.bar(server.id()));
    }
    let lease = match at {
        Some(at) => match lease(&pool, &at.server) {
            Some(lease) => Some(lease),
            None if at.only => {
                return Err(Failure::new(FailureKind::NoServer, "the server of this session cannot be had"));
            }
            None => None,
        },
        None => None,
    };
    let mut lease = match lease {
        Some(lease) => {
            tries.count += 1;
            lease
        }
        None => match pick::pick(&worker, &pool, key, Take::Opaque, &mut tries) {
            Err(failure) if queue::may_wait(&pool, &failure) => {
                let gone = |_: &mut Context<'_>| Poll::Pending;
                let waited = queue::wait(&worker, &mut pool, key, Take::Opaque, &mut tries, &timer, gone).await;
                dialled_yet(waited?)?
            }
            picked => dialled_yet(picked?)?,
        },
    };
    let connected = loop {
        if known.contains(&lease.id()) {
            return Ok(Dialled::Known(lease.id()));
        }
        match pick::connect(&worker, &pool, key, Take::Opaque, lease, &greeting, &mut tries, &timer).await {
            // It was not reached, and the others are full.
            Err(failure) if queue::may_wait(&pool, &failure) => {
                let gone = |_: &mut Context<'_>| Poll::Pending;
                let waited = queue::wait(&worker, &mut pool, key, Take::Opaque, &mut tries, &timer, gone).await;
                lease = dialled_yet(waited?)?;
                retry::count(&worker, &pool, RetryReason::Connect);
            }
            connected => break connected,
        }
    };
    let Connected { lease, upstream, took, .. } = connected.map_err(|failure| match only {
        Some(_) => Failure::new(FailureKind::NoServer, failure.detail),
        None => failure,
    })?;
    // The first that was tried may have been another one.
    if known.contains(&lease.id()) {
        return Ok(Dialled::Known(lease.id()));
    }
    let Upstream::Http1(stream) = upstream else { return Err(Failure::server_closed("another protocol")) };
    Ok(Dialled::New(Box::new(Server { leg: Leg::new(stream, Source::Stream, None), lease, pool, took })))
}

/// What is passed on unread has no idle connections.
fn dialled_yet(picked: Picked) -> Result<Lease, Failure> {
    match picked {
        Picked::ToDial(lease) => Ok(lease),
        Picked::Connected(_) => Err(Failure::server_closed("a connection that is somebody's")),
    }
}

/// A place at one server of the pool, drained or not.
pub fn lease(pool: &LivePool, server: &Arc<LiveServer>) -> Option<Lease> {
    let lease = pool.lease(pool.position_of(server)?, &[], &[]).ok()?;
    (!pool.counts_connections() || lease.take_into_use(pool)).then_some(lease)
}
