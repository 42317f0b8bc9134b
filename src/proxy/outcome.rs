//! What became of a request, and what its parts tell each other while it is under way.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::failure::Failure;
use super::request::Switched;
use crate::state::counters::AffinityResult;
use crate::state::{LivePool, LiveServer};

/// What became of a request, for the client's connection, the log and the counters.
#[derive(Debug)]
pub struct Outcome {
    /// What the client was told; 0: nothing.
    pub status: u16,
    pub server: Option<Arc<LiveServer>>,
    pub pool: Option<Arc<LivePool>>,
    pub tries: u32,
    /// Spent waiting for a server that is not full.
    pub queued: Duration,
    pub connect: Duration,
    /// In a pool that keeps its clients at their servers.
    pub affinity: Option<AffinityResult>,
    /// From the first byte of the request.
    pub first_byte: Option<Duration>,
    /// How long the server took to answer, from when it had the request; known where the pool goes by it.
    pub answered: Option<Duration>,
    pub body_in: u64,
    pub body_out: u64,
    pub failure: Option<Failure>,
    pub after: After,
    /// Whether the failure has to be told: no byte of an answer has been sent.
    pub untold: bool,
    /// It goes on as a tunnel.
    pub switched: Option<Box<Switched>>,
}

impl Outcome {
    /// Nothing happened but this.
    pub fn of(after: After) -> Outcome {
        Outcome {
            status: 0,
            server: None,
            pool: None,
            tries: 0,
            queued: Duration::ZERO,
            connect: Duration::ZERO,
            affinity: None,
            first_byte: None,
            answered: None,
            body_in: 0,
            body_out: 0,
            failure: None,
            after,
            untold: false,
            switched: None,
        }
    }

    /// A failure before any server was asked.
    pub fn failed(failure: Failure) -> Outcome {
        Outcome { failure: Some(failure), untold: true, ..Outcome::of(After::Close) }
    }
}

/// What becomes of the client's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// It waits for the next request.
    Keep,
    /// It is closed.
    Close,
    /// It is closed when the client has stopped sending, so that it gets to read its answer.
    Linger,
    /// It is over: nobody is left to be told anything.
    Gone,
    /// It is reset: what the client has got is not the whole.
    Reset,
}

/// What the parts of a request tell each other while it is under way.
#[derive(Debug)]
pub struct Progress {
    /// What the error page and the log call this request.
    pub id: u64,
    pub started: Instant,
    /// A final answer has begun: it is too late for another one.
    pub begun: Cell<bool>,
    pub status: Cell<u16>,
    /// The answer's end is the end of the connection.
    pub until_close: Cell<bool>,
    /// The request's body is still on its way.
    pub uploading: Cell<bool>,
    /// Not all of the request has gone out, or will.
    pub unsent: Cell<bool>,
    /// When the last of a body went out that was sent by and by.
    pub sent_at: Cell<Option<Instant>>,
    /// The server has sent something.
    pub heard: Cell<bool>,
    pub first_byte: Cell<Option<Duration>>,
    /// As [`Outcome::answered`].
    pub answered: Cell<Option<Duration>>,
    pub body_in: Cell<u64>,
    pub body_out: Cell<u64>,
    /// Heads sent to the client.
    pub heads_out: Cell<u64>,
}

impl Progress {
    /// Another server is asked: nothing is known of how far the request and its answer are.
    pub fn begin(&self) {
        self.uploading.set(false);
        self.sent_at.set(None);
        self.heard.set(false);
    }

    pub fn new(id: u64, started: Instant) -> Progress {
        Progress {
            id,
            started,
            begun: Cell::new(false),
            status: Cell::new(0),
            until_close: Cell::new(false),
            uploading: Cell::new(false),
            unsent: Cell::new(false),
            sent_at: Cell::new(None),
            heard: Cell::new(false),
            first_byte: Cell::new(None),
            answered: Cell::new(None),
            body_in: Cell::new(0),
            body_out: Cell::new(0),
            heads_out: Cell::new(0),
        }
    }
}
