//! The way into a pool: how much is in it, and who waits for a place, over all cores and reloads.
//!
//! A request for which no server has room gets in line: while somebody waits, all who come get in line too. Whoever
//! leaves a server calls the first in line who may be there, who then chooses a server for itself, on its own core
//! (`line.rs` has who is called, and why none waits in vain).
//!
//! ```text
//!  leaves:  count out ── is anybody waiting? ── call the first
//!  comes:   is anybody waiting? ── choose ── full: get in line ── if the only one of its kind: choose ── wait to be called
//! ```
//!
//! Each side writes before it reads, in one order for all (`SeqCst`), so that one of the two always sees the other: no
//! place stays free while somebody waits for it. Writers: requests, as they come, wait and leave. The lock is taken only
//! where somebody waits, and wakers are called after it is given back.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use super::budget::Budget;
use super::kind::Kind;
use super::line::{Call, Called, Cause, Line, Spot};
use super::pace::Pace;

#[derive(Debug, Default)]
pub struct Gate {
    waiting: Waiting,
    /// Where the pool has a bound: what is in it.
    requests: OwnLine<Count>,
    connections: OwnLine<Count>,
    line: Mutex<Line>,
    budget: Budget,
    hedges: Budget,
    pace: Pace,
}

/// Read by every request, and written only where some wait.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Waiting(AtomicUsize);

/// Something that every core writes, on a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct OwnLine<T>(pub T);

#[derive(Debug, Default)]
pub(super) struct Count(AtomicU32);

impl Count {
    /// Counts one in; not where there are `most` already. Compared and added in one step, so that the bound is exact
    /// over all cores and whoever is refused never takes up a place.
    pub(super) fn enter(&self, most: u32) -> bool {
        let one_more = |count: u32| (count < most).then(|| count + 1);
        self.0.fetch_update(Ordering::SeqCst, Ordering::Relaxed, one_more).is_ok()
    }

    /// Counts one in, without a bound.
    pub(super) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// What has to be seen before it is asked whether somebody waits.
    pub(super) fn leave(&self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }

    #[inline(always)]
    pub(super) fn get(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A place in the line; dropping it gives it up.
#[derive(Debug)]
pub struct Waiter {
    gate: Arc<Gate>,
    spot: Spot,
    /// Places that were free before it was seen to wait are its to find.
    first: bool,
    hand: RefCell<Hand>,
}

/// What it looks for a place on account of.
#[derive(Debug, Default)]
struct Hand {
    call: Option<Call>,
    /// When it goes, the next of its kind is to look, too.
    many: bool,
    /// It has not said what it has found: a fault may end it before.
    owes: bool,
}

impl Gate {
    /// Whether somebody waits. To be asked after what is given back has been counted out.
    #[inline]
    pub(super) fn is_waited_at(&self) -> bool {
        // On the processors that matter this costs what a relaxed load does.
        self.waiting.0.load(Ordering::SeqCst) > 0
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.waiting.0.load(Ordering::Relaxed)
    }

    /// Requests in flight, where the pool bounds them.
    pub(super) fn requests(&self) -> &Count {
        &self.requests.0
    }

    /// Connections in use, where the pool bounds them.
    pub(super) fn connections(&self) -> &Count {
        &self.connections.0
    }

    /// Gets in line; `None` where `most` wait already. `kind`: what it may use.
    pub fn join(self: &Arc<Self>, priority: i32, kind: Kind, most: u32) -> Option<Waiter> {
        let mut line = self.line();
        if line.len() >= most as usize {
            return None;
        }
        let (spot, first) = line.join(priority, kind);
        self.waiting.0.store(line.len(), Ordering::SeqCst);
        drop(line);
        fence(Ordering::SeqCst);
        let hand = RefCell::new(Hand { call: None, many: first, owes: false });
        Some(Waiter { gate: self.clone(), spot, first, hand })
    }

    /// One place is free: the first who may use it is called.
    #[cold]
    pub(super) fn call(&self, cause: Cause) {
        let waker = self.line().call(cause);
        wake(waker);
    }

    /// Servers or places have come, or have changed: as many as find a place, or find that there is none to wait for.
    pub fn call_all(&self) {
        if self.is_waited_at() {
            self.call(Cause::Change);
        }
    }

    /// Requests that are tried again.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Requests for which a second server is asked.
    pub(super) fn hedges(&self) -> &Budget {
        &self.hedges
    }

    /// How soon answers begin.
    pub(super) fn pace(&self) -> &Pace {
        &self.pace
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl Waiter {
    /// Whether to look for a place at once, before waiting to be called.
    pub fn is_first(&self) -> bool {
        self.first
    }

    /// Becomes ready each time it is called: it then looks for a place.
    pub fn poll_called(&self, cx: &mut Context<'_>) -> Poll<()> {
        // Before it looks: whatever becomes free from now on calls it again.
        let Some(Called { call, many }) = self.gate.line().take(self.spot, cx.waker()) else { return Poll::Pending };
        *self.hand.borrow_mut() = Hand { call: Some(call), many, owes: true };
        Poll::Ready(())
    }

    /// It has looked, and there was no place: those of other kinds may find one.
    pub fn found_none(&self) {
        let hand = self.hand.take();
        self.pass_on(hand.call);
    }

    /// It has found a place at that server.
    pub fn found(&self, server: u32) {
        let mut hand = self.hand.borrow_mut();
        hand.call = hand.call.take().filter(|call| !call.is_for(server));
        hand.owes = false;
    }

    /// It has found a place where more than its own may have come with it.
    pub fn found_some(&self) {
        self.hand.borrow_mut().many = true;
    }

    /// It has found that there is nothing to wait for: nor is there for others of its kind.
    pub fn dismiss(&self) {
        self.hand.borrow_mut().many = true;
    }

    fn pass_on(&self, call: Option<Call>) {
        if let Some(call) = call {
            let waker = self.gate.line().go_on(call);
            wake(waker);
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let Hand { call, many, owes } = std::mem::take(self.hand.get_mut());
        let mut line = self.gate.line();
        let next = line.leave(self.spot, many || owes);
        self.gate.waiting.0.store(line.len(), Ordering::SeqCst);
        drop(line);
        wake(next);
        self.pass_on(call);
    }
}

#[cfg(test)]
mod tests;
