//! A client's connection in the hands of its own task.

use std::net::SocketAddr;
use std::time::Instant;

use super::registry::Connection;
use crate::model::Limits;
use crate::net::stream::{Reader, Writer};
use crate::net::{Buffer, Stream, Timer};

/// Reads requests from it, writes answers to it.
#[derive(Debug)]
pub struct Client<'s> {
    pub reader: Reader<'s>,
    pub writer: Writer<'s>,
    pub timer: &'s Timer,
    pub connection: &'s Connection,
    /// Read and not used up: the head of the request in progress, and what came behind it.
    pub input: Option<Buffer>,
    /// Bytes behind the head that belong to the request in progress.
    pub body_taken: usize,
    /// What came behind a body that was read aside.
    pub next_input: Option<Buffer>,
    /// Idle connections to servers that were told whose they are: nobody else may use them.
    pub own: Vec<Own>,
}

/// A connection to a server that carries this client's requests alone.
#[derive(Debug)]
pub struct Own {
    pub server: u32,
    pub address: SocketAddr,
    pub stream: Stream,
    pub until: Instant,
}

/// As many are kept for one client; it seldom meets more servers.
const OWN: usize = 8;

impl Client<'_> {
    /// What is there behind the head of the request in progress.
    pub fn body_bytes(&self, head_bytes: usize) -> &[u8] {
        self.input.as_ref().and_then(|input| input.as_slice().get(head_bytes..)).unwrap_or_default()
    }

    /// Lets go of all that is there but the head of the request in progress, which the log will quote.
    pub fn keep_head_only(&mut self, head_bytes: usize) {
        if let Some(input) = &mut self.input {
            input.shrink_to(head_bytes);
        }
    }

    /// A connection of its own to this server, if there is one that is still open.
    pub fn take_own(&mut self, server: u32, address: SocketAddr, now: Instant) -> Option<Stream> {
        self.own.retain(|own| own.until > now && own.stream.is_quiet());
        let at = self.own.iter().rposition(|own| own.server == server && own.address == address)?;
        Some(self.own.swap_remove(at).stream)
    }

    pub fn keep_own(&mut self, own: Own) {
        if self.own.len() >= OWN {
            self.own.remove(0);
        }
        self.own.push(own);
    }

    /// Whether this connection has had all the requests it may have.
    pub fn is_last(&self, limits: &Limits) -> bool {
        let most = limits.requests_per_connection;
        most > 0 && self.connection.requests.get() >= most
    }
}
