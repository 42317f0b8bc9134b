//! Idle connections to servers, kept by one worker for its next request to the same server.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::stream::Stream;

/// By the number of the server.
#[derive(Debug, Default)]
pub struct IdleConnections {
    servers: RefCell<Vec<VecDeque<Idle>>>,
}

#[derive(Debug)]
struct Idle {
    stream: Stream,
    address: SocketAddr,
    way: u32,
    until: Instant,
}

impl IdleConnections {
    /// The one used last, which is the likeliest to be still open. Those found closed are dropped; those that were made
    /// in another `way`, for another address or under another TLS, are left to [`IdleConnections::sweep`]: a client that
    /// is still served as before a reload must not close what the others use.
    pub fn take(&self, server: u32, address: SocketAddr, way: u32) -> Option<Stream> {
        let mut servers = self.servers.borrow_mut();
        let kept = servers.get_mut(server as usize)?;
        let fits = |idle: &Idle| idle.address == address && idle.way == way;
        loop {
            // Nearly always it is the last.
            let idle = match kept.back() {
                Some(last) if fits(last) => kept.pop_back()?,
                _ => kept.iter().rposition(fits).and_then(|at| kept.remove(at))?,
            };
            if idle.stream.is_quiet() {
                return Some(idle.stream);
            }
        }
    }

    /// Keeps a connection until `until`; over `most` of them, the oldest goes.
    pub fn keep(&self, server: u32, address: SocketAddr, way: u32, stream: Stream, until: Instant, most: usize) {
        let mut servers = self.servers.borrow_mut();
        let server = server as usize;
        if servers.len() <= server {
            servers.resize_with(server + 1, VecDeque::new);
        }
        let kept = &mut servers[server];
        if kept.len() >= most && kept.pop_front().is_none() {
            return;
        }
        kept.push_back(Idle { stream, address, way, until });
    }

    /// Closes all of them. How many there were.
    pub fn clear(&self) -> usize {
        self.servers.borrow_mut().iter_mut().map(|kept| kept.drain(..).count()).sum()
    }

    /// Closes those whose time is over, that their server has closed, or that were made in another way than
    /// `ways` has for the server of that number. Called once a second.
    pub fn sweep(&self, now: Instant, ways: impl Fn(u32) -> Option<u32>) {
        for (server, kept) in (0..).zip(self.servers.borrow_mut().iter_mut()) {
            if !kept.is_empty() {
                let way = ways(server);
                kept.retain(|idle| Some(idle.way) == way && idle.until > now && idle.stream.is_quiet());
            }
            if kept.is_empty() && kept.capacity() > 64 {
                kept.shrink_to_fit();
            }
        }
    }
}

/// When a connection given back now is too old.
pub fn expiry(now: Instant, keep_alive: Duration) -> Instant {
    now.checked_add(keep_alive).unwrap_or(now)
}
