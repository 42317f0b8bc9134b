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
pub fn may(worker: &Worker, pool: &LivePool, tries: &mut Tries, reason: RetryReason) -> bool {
    let retry = tries.retry(pool);
    let budget = retry.budget;
    if reason == RetryReason::StaleConnection {
        // A kept connection that was closed as it was taken says nothing of the server, nor does it happen twice.
        return true;
    }
    if !wanted(retry, reason) || tries.again >= retry.attempts {
        return false;
    }
    if budget.is_some_and(|share| !pool.take_retry(share, worker.lately())) {
        return false;
    }
    tries.again += 1;
    true
}

/// A request is tried once more.
pub fn count(worker: &Worker, pool: &LivePool, reason: RetryReason) {
    worker.counters.borrow_mut().retry(pool.id(), reason);
}

fn wanted(retry: &Retry, reason: RetryReason) -> bool {
    match reason {
        RetryReason::Connect => retry.on_connect,
        RetryReason::Unprocessed => retry.on_refused,
        RetryReason::StaleConnection => true,
    }
}
