//! A client's connection in the hands of its own task.

use super::registry::Connection;
use crate::model::Limits;
use crate::net::stream::{Reader, Writer};
use crate::net::{Buffer, Timer};

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
}

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

    /// Whether this connection has had all the requests it may have.
    pub fn is_last(&self, limits: &Limits) -> bool {
        let most = limits.requests_per_connection;
        most > 0 && self.connection.requests.get() >= most
    }
}
