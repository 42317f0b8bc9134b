//! Whether a request is tried once more: the one place that decides it.
//!
//! Whoever asks has made sure that trying again is safe (RFC 9110 §9.2.2) and that all of the request is still here. What
//! is decided here is whether the operator wants it: the occasion (`on`), how often (`attempts`), and how many of all
//! requests (`budget`).

use super::pick::Tries;
use super::worker::Worker;
use crate::model::pool::Retry;
use crate::state::LivePool;
use crate::state::counters::RetryReason;

/// Whether `retry` allows it, this once more; taken out of the pool's budget if so. To be followed by [`count`] when it
/// is done.
pub fn may(worker: &Worker, pool: &LivePool, tries: &Tries, reason: RetryReason) -> bool {
    let retry = tries.retry(pool);
    let budget = retry.budget;
    if reason == RetryReason::StaleConnection {
        // A kept connection that was closed as it was taken says nothing of the server, nor does it happen twice.
        return true;
    }
    if !wanted(retry, reason) || tries.again.get() >= retry.attempts {
        return false;
    }
    if budget.is_some_and(|share| !pool.take_retry(share, worker.lately())) {
        return false;
    }
    tries.again.set(tries.again.get() + 1);
    true
}

/// A request is tried once more.
pub fn count(worker: &Worker, pool: &LivePool, reason: RetryReason) {
    worker.counters.borrow_mut().retry(pool.id(), reason);
}

fn wanted(retry: &Retry, reason: RetryReason) -> bool {
    match reason {
        RetryReason::Connect => retry.on.connect,
        RetryReason::Unprocessed => retry.on.refused,
        RetryReason::Reset => retry.on.reset,
        RetryReason::Timeout => retry.on.timeout,
        RetryReason::Status => retry.on.has_statuses(),
        RetryReason::StaleConnection | RetryReason::Hedge => true,
    }
}

/// Whether another server may be asked as well, for one that is slow: within the pool's share for that, and its budget.
pub fn may_hedge(worker: &Worker, pool: &LivePool, tries: &Tries) -> bool {
    let now = worker.lately();
    pool.take_hedge(now) && tries.retry(pool).budget.is_none_or(|share| pool.take_retry(share, now))
}

/// What a request may do with an answer that its pool or rule would rather have from another server. All of the request is still
/// here, and sending it again is safe.
#[derive(Debug)]
pub struct Again<'a> {
    pub pool: &'a LivePool,
    pub tries: &'a Tries,
}

impl Again<'_> {
    /// Whether an answer of that status is dropped, and another server asked.
    pub fn passes_over(&self, worker: &Worker, status: u16) -> bool {
        self.tries.retry(self.pool).on.has_status(status) && may(worker, self.pool, self.tries, RetryReason::Status)
    }
}
