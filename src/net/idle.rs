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
    until: Instant,
}

impl IdleConnections {
    /// The one used last, which is the likeliest to be still open. Those found closed are dropped.
    pub fn take(&self, server: u32, address: SocketAddr) -> Option<Stream> {
        let mut servers = self.servers.borrow_mut();
        let kept = servers.get_mut(server as usize)?;
        while let Some(idle) = kept.pop_back() {
            if idle.address == address && idle.stream.is_quiet() {
                return Some(idle.stream);
            }
        }
        None
    }

    /// Keeps a connection until `until`; over `most` of them, the oldest goes.
    pub fn keep(&self, server: u32, address: SocketAddr, stream: Stream, until: Instant, most: usize) {
        let mut servers = self.servers.borrow_mut();
        let server = server as usize;
        if servers.len() <= server {
            servers.resize_with(server + 1, VecDeque::new);
        }
        let kept = &mut servers[server];
        if kept.len() >= most && kept.pop_front().is_none() {
            return;
        }
        kept.push_back(Idle { stream, address, until });
    }

    /// Closes those whose time is over or that their server has closed. Called once a second.
    pub fn sweep(&self, now: Instant) {
        for kept in self.servers.borrow_mut().iter_mut() {
            kept.retain(|idle| idle.until > now && idle.stream.is_quiet());
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
