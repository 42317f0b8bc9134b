//! A server that was chosen for one request, which counts there for as long as its lease lives.

use std::cell::Cell;
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;

use super::pool::LivePool;
use super::server::{LiveServer, Way};

/// A chosen server with a request counted in flight; dropping it counts the request out.
pub struct Lease {
    server: Arc<LiveServer>,
    address: SocketAddr,
    way: Way,
    cuts: u32,
    /// It is counted in the pool, too.
    in_pool: bool,
    /// A connection that is counted, and not yet handed on.
    seat: Cell<Option<Box<Seat>>>,
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lease").field("server", self.server.identity()).finish_non_exhaustive()
    }
}

/// A connection in use, where those are bounded apart from requests; dropping it counts it out.
#[derive(Debug)]
pub struct Seat {
    server: Arc<LiveServer>,
    in_pool: bool,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.server.give_back(self.in_pool);
    }
}

impl Lease {
    /// For a request that has been counted in at the server, and in the pool where that has a bound.
    pub(super) fn new(server: &Arc<LiveServer>, address: SocketAddr, way: Way, in_pool: bool) -> Lease {
        let cuts = server.cuts();
        Lease { server: Arc::clone(server), address, way, cuts, in_pool, seat: Cell::new(None) }
    }

    /// It is counted in the pool, too.
    pub(super) fn set_in_pool(&mut self) {
        self.in_pool = true;
    }

    /// Counts a connection into use, for as long as this lease or whoever takes its [`Lease::seat`] lives. False where
    /// the server or the pool has as many as it may.
    pub fn take_into_use(&self, pool: &LivePool) -> bool {
        let seat = self.seat.take();
        let seat = seat.or_else(|| {
            let most = pool.most_in_use();
            let connections = self.server.gate().connections();
            if most.is_some_and(|most| !connections.enter(most)) {
                return None;
            }
            if self.server.take_into_use() {
                return Some(Box::new(Seat { server: self.server.clone(), in_pool: most.is_some() }));
            }
            if most.is_some() {
                connections.leave();
                // Who was refused for its sake may wait.
                self.server.gate().call_all();
            }
            None
        });
        let some = seat.is_some();
        self.seat.set(seat);
        some
    }

    /// Whether a connection is counted for it that was not handed on.
    pub fn is_seated(&self) -> bool {
        let seat = self.seat.take();
        let seated = seat.is_some();
        self.seat.set(seat);
        seated
    }

    /// The connection that was counted for it.
    pub fn seat(&self) -> Option<Box<Seat>> {
        self.seat.take()
    }

    /// Where the server was when it was chosen.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How the server was to be spoken to then: a connection made for this lease serves no other way.
    pub fn way(&self) -> Way {
        self.way
    }

    /// Whether the server's connections were to be closed since it was chosen.
    pub fn is_cut(&self) -> bool {
        self.server.cuts() != self.cuts
    }

    /// Whether another request could use a connection that was made for this one.
    pub fn is_current(&self) -> bool {
        self.server.way() == Some(self.way)
    }

    pub fn server(&self) -> &Arc<LiveServer> {
        &self.server
    }
}

impl Deref for Lease {
    type Target = LiveServer;

    fn deref(&self) -> &LiveServer {
        &self.server
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.server.leave(self.in_pool);
    }
}
