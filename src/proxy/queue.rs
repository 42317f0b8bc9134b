//! Waiting for a server that is not full: the request's side of a pool's line (`state::gate`).
//!
//! ```text
//!  join ── too many wait: 503 queue-full
//!   │
//!  wait ── called ── choose ── a server: go on
//!   │ ▲                 └───── none: those are called who may use what this one may not; wait on
//!   │ └────────────────────────┘
//!   ├── timeouts.queue is over: 503 queue-timeout
//!   └── the client has left: nobody is told
//! ```

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use super::failure::{Failure, FailureKind};
use super::pick::{self, Picked, Take, Tries};
use super::worker::Worker;
use crate::net::Timer;
use crate::state::LivePool;

/// Whether somebody who finds all servers of a pool full may wait for one.
pub fn may_wait(pool: &LivePool, failure: &Failure) -> bool {
    failure.kind == FailureKind::Full && pool.config().queue > 0
}

/// Waits for a server of `pool`, which becomes the pool of that name as it is configured then. `gone` is asked whether
/// the client has left.
///
/// # Errors
/// When none was free in time, when there is nothing to wait for any more, or when the client has left.
pub async fn wait(
    worker: &Rc<Worker>,
    pool: &mut Arc<LivePool>,
    key: Option<u64>,
    take: Take,
    tries: &mut Tries,
    timer: &Timer,
    gone: impl FnMut(&mut Context<'_>) -> Poll<()>,
) -> Result<Picked, Failure> {
    let since = Instant::now();
    let picked = in_line(worker, pool, key, take, tries, timer, since, gone).await;
    tries.queued += since.elapsed();
    picked
}

async fn in_line(
    worker: &Rc<Worker>,
    pool: &mut Arc<LivePool>,
    key: Option<u64>,
    take: Take,
    tries: &mut Tries,
    timer: &Timer,
    since: Instant,
    mut gone: impl FnMut(&mut Context<'_>) -> Poll<()>,
) -> Result<Picked, Failure> {
    // However often it waits, that is its time for all of it.
    let limit = tries.timeouts(pool).queue.saturating_sub(tries.queued);
    let kind = tries.kind(worker, pool, key.is_some(), take);
    let Some(waiter) = pool.gate().join(tries.priority(), kind, pool.config().queue) else {
        let detail = format!("every server of pool {} is at its limit, and its queue is full", pool.name());
        return Err(Failure::new(FailureKind::QueueFull, detail));
    };
    let mut look = waiter.is_first();
    loop {
        if look {
            follow(worker, pool);
            match pick::pick_in_turn(worker, pool, key, take, tries) {
                Err(failure) if failure.kind == FailureKind::Full => waiter.found_none(),
                Err(failure) => {
                    waiter.dismiss();
                    return Err(failure);
                }
                Ok(picked) => {
                    match pool.counts_connections() {
                        // It may share a connection that others may share too, and leave one that it was called for.
                        true => waiter.found_some(),
                        false => waiter.found(picked.server()),
                    }
                    return Ok(picked);
                }
            }
        }
        let called = poll_fn(|cx| match gone(cx) {
            Poll::Ready(()) => Poll::Ready(Err(Failure::client_gone())),
            Poll::Pending => waiter.poll_called(cx).map(Ok),
        });
        match timer.wait(limit.saturating_sub(since.elapsed()), called).await {
            Ok(called) => called?,
            Err(_) => {
                let detail = format!("no server of pool {} was free in time", pool.name());
                return Err(Failure::new(FailureKind::QueueTimeout, detail));
            }
        }
        look = true;
    }
}

/// Whoever waits over a reload is served by the pool as it is then, unless its servers are spoken to in another way.
fn follow(worker: &Worker, pool: &mut Arc<LivePool>) {
    let view = worker.view();
    if let Some(now) = view.snapshot.pool(pool.name())
        && !Arc::ptr_eq(now, pool)
        && now.config().spoken_to_as(pool.config())
    {
        *pool = now.clone();
    }
}
