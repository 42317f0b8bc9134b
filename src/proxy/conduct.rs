//! Tells of how a server has answered, where its pool looks at that.

use std::time::Duration;

use super::failure::{Failure, FailureKind, Side};
use super::outcome::Outcome;
use super::worker::Worker;
use crate::state::conduct::Came;
use crate::state::{LivePool, LiveServer};

/// A request has ended.
#[inline]
pub fn answered(worker: &Worker, outcome: &Outcome) {
    let (Some(pool), Some(server)) = (&outcome.pool, &outcome.server) else { return };
    if pool.config().outlier.is_none() {
        return;
    }
    let came = match &outcome.failure {
        Some(failure) => match failure.kind {
            // Each try to connect has been counted, and where there was none there is nothing to count.
            FailureKind::Connect
            | FailureKind::ConnectTimeout
            | FailureKind::NoServer
            // The time of a slow client, too.
            | FailureKind::TotalTimeout
            | FailureKind::Full
            | FailureKind::QueueFull
            | FailureKind::QueueTimeout => return,
            kind if kind.side() == Some(Side::Upstream) => Came::Failed,
            // The client's fault or ours says nothing about the server.
            _ => return,
        },
        None if outcome.status >= 500 => Came::Bad,
        None if outcome.status == 0 => return,
        None => Came::Good(outcome.answered.unwrap_or_default()),
    };
    tell(worker, pool, server, came);
}

/// Another server is asked in its place.
pub fn passed_over(worker: &Worker, pool: &LivePool, server: &LiveServer, failure: &Failure) {
    match failure.kind {
        FailureKind::PassedOver(status) if status < 500 => {}
        FailureKind::PassedOver(_) => tell(worker, pool, server, Came::Bad),
        _ => tell(worker, pool, server, Came::Failed),
    }
}

/// A connection of which nobody here sees what is said was made.
pub fn reached(worker: &Worker, pool: &LivePool, server: &LiveServer, took: Duration) {
    tell(worker, pool, server, Came::Good(took));
}

/// None was made.
pub fn not_reached(worker: &Worker, pool: &LivePool, server: &LiveServer) {
    tell(worker, pool, server, Came::Failed);
}

fn tell(worker: &Worker, pool: &LivePool, server: &LiveServer, came: Came) {
    if pool.counts(server, came) {
        worker.farm.alarm().notify_one();
    }
}
