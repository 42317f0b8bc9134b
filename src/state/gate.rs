//! The way into a pool: how much is in it, and who waits for a place, over all cores and reloads.
//!
//! A request for which no server has room gets in line, and nobody who comes later passes it by: while somebody waits,
//! all the others get in line too. Whoever leaves a server calls the first in line, who then chooses a server for
//! itself, on its own core.
//!
//! ```text
//!  leaves:  count out ── is anybody waiting? ── call the first
//!  comes:   is anybody waiting? ── choose ── full: get in line ── if first in line: choose ── wait to be called
//! ```
//!
//! Each side writes before it reads, in one order for all (`SeqCst`), so that one of the two always sees the other: no
//! place stays free while somebody waits for it. A call that its waiter does not use (the client has left) goes on to
//! the next. Writers: requests, as they come, wait and leave. The lock is taken only where somebody waits, and wakers
//! are called after it is given back.

use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use super::budget::Budget;
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

/// Those who wait: the highest priority first, and who came first of the same.
#[derive(Debug, Default)]
struct Line {
    waiters: BTreeMap<(Reverse<i32>, u64), Waits>,
    /// How many have come.
    number: u64,
    /// There may be places for more than the one who is called.
    many: bool,
}

#[derive(Debug, Default)]
struct Waits {
    called: bool,
    waker: Option<Waker>,
}

/// A place in the line; dropping it gives it up.
#[derive(Debug)]
pub struct Waiter {
    gate: Arc<Gate>,
    at: (Reverse<i32>, u64),
    /// It was the first as it came: places that were free before it was seen to wait are its to find.
    first: bool,
    /// When it goes, the next is to look, too.
    many: Cell<bool>,
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

    /// Gets in line; `None` where `most` wait already.
    pub fn join(self: &Arc<Self>, priority: i32, most: u32) -> Option<Waiter> {
        let mut line = self.line();
        if line.waiters.len() >= most as usize {
            return None;
        }
        line.number += 1;
        let at = (Reverse(priority), line.number);
        line.waiters.insert(at, Waits::default());
        let first = line.waiters.first_key_value().is_some_and(|(first, _)| *first == at);
        self.waiting.0.store(line.waiters.len(), Ordering::SeqCst);
        drop(line);
        fence(Ordering::SeqCst);
        Some(Waiter { gate: self.clone(), at, first, many: Cell::new(first) })
    }

    /// One place is free: the first who has not been called is.
    #[cold]
    pub(super) fn call(&self) {
        wake(self.line().call());
    }

    /// Servers have come, or have changed: as many as find a place, or find that there is none to wait for.
    pub(super) fn call_all(&self) {
        if self.is_waited_at() {
            let mut line = self.line();
            line.many = true;
            let waker = line.call();
            drop(line);
            wake(waker);
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

impl Line {
    fn call(&mut self) -> Option<Waker> {
        let next = self.waiters.values_mut().find(|waits| !waits.called)?;
        next.called = true;
        next.waker.take()
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

    /// Becomes ready each time it is called.
    pub fn poll_called(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut line = self.gate.line();
        let many = line.many;
        let Entry::Occupied(mut waits) = line.waiters.entry(self.at) else { return Poll::Ready(()) };
        let waits = waits.get_mut();
        if std::mem::take(&mut waits.called) {
            // Before it looks: whatever becomes free from now on calls it again.
            self.many.set(many);
            line.many = false;
            return Poll::Ready(());
        }
        match &waits.waker {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            _ => waits.waker = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// It has looked, and there was no place.
    pub fn found_none(&self) {
        self.many.set(false);
    }

    /// It was called by nobody but itself.
    pub fn forget_call(&self) {
        if let Some(waits) = self.gate.line().waiters.get_mut(&self.at) {
            waits.called = false;
        }
    }

    /// It has found that there is nothing to wait for: nor is there for the others.
    pub fn dismiss(&self) {
        self.many.set(true);
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut line = self.gate.line();
        let called = line.waiters.remove(&self.at).is_some_and(|waits| waits.called);
        self.gate.waiting.0.store(line.waiters.len(), Ordering::SeqCst);
        line.many |= self.many.get();
        let waker = if called || self.many.get() { line.call() } else { None };
        drop(line);
        wake(waker);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn called(waiter: &Waiter) -> bool {
        waiter.poll_called(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    /// In line, having looked in vain.
    fn join(gate: &Arc<Gate>, priority: i32) -> Waiter {
        let waiter = gate.join(priority, 10).unwrap();
        waiter.found_none();
        waiter
    }

    #[test]
    fn the_first_is_called_and_the_highest_priority_before() {
        let gate = Arc::new(Gate::default());
        let (low, one, two, high) = (join(&gate, -1), join(&gate, 0), join(&gate, 0), join(&gate, 7));
        assert_eq!((low.is_first(), one.is_first(), two.is_first(), high.is_first()), (true, true, false, true));
        for _ in 0..2 {
            gate.call();
            // It has not left, and waits again.
            assert_eq!([&high, &one, &two, &low].map(called), [true, false, false, false]);
        }
        drop(high);
        gate.call();
        assert_eq!([&one, &two, &low].map(called), [true, false, false]);
        assert!(gate.join(0, 3).is_none() && gate.waiting() == 3);
    }

    #[test]
    fn two_places_call_two() {
        let gate = Arc::new(Gate::default());
        let (one, two, three) = (join(&gate, 0), join(&gate, 0), join(&gate, 0));
        gate.call();
        gate.call();
        assert_eq!([&one, &two, &three].map(called), [true, true, false]);
    }

    #[test]
    fn a_call_that_is_not_used_goes_on() {
        let gate = Arc::new(Gate::default());
        let (one, two) = (join(&gate, 0), join(&gate, 0));
        gate.call();
        drop(one);
        assert!(called(&two) && !called(&two));
        // Called again as it was about to leave with a place.
        gate.call();
        let three = join(&gate, 0);
        assert!(called(&two));
        gate.call();
        drop(two);
        assert!(called(&three) && gate.waiting() == 1);
    }

    #[test]
    fn changes_are_looked_at_by_one_after_the_other() {
        let gate = Arc::new(Gate::default());
        let line: Vec<_> = (0..3).map(|_| join(&gate, 0)).collect();
        gate.call_all();
        let mut line = line.into_iter();
        let one = line.next().unwrap();
        assert!(called(&one));
        // It has found a place, so there may be another one.
        drop(one);
        let two = line.next().unwrap();
        assert!(called(&two));
        two.found_none();
        let three = line.next().unwrap();
        assert!(!called(&three));
        drop(two);
        assert!(!called(&three), "there was no place for those before it");
        // Nobody is up any more.
        let four = join(&gate, 0);
        gate.call_all();
        assert!(called(&three));
        three.dismiss();
        drop(three);
        assert!(called(&four));
    }

    #[test]
    fn the_first_that_comes_tells_the_next_of_what_it_found() {
        let gate = Arc::new(Gate::default());
        let one = gate.join(0, 10).unwrap();
        let two = gate.join(0, 10).unwrap();
        assert!(one.is_first() && !two.is_first());
        // Two places had become free before anybody was seen to wait.
        drop(one);
        assert!(called(&two));
    }

    /// Threads take and leave places that are fewer than they are: nobody waits for ever, nor are there ever more.
    #[test]
    fn no_place_is_lost_between_threads() {
        const PLACES: u32 = 2;
        let gate = Arc::new(Gate::default());
        let inside = AtomicU32::new(0);
        let serve = || {
            for _ in 0..3_000 {
                if gate.is_waited_at() || !gate.requests().enter(PLACES) {
                    wait(&gate);
                }
                assert!(inside.fetch_add(1, Ordering::SeqCst) < PLACES);
                inside.fetch_sub(1, Ordering::SeqCst);
                gate.requests().leave();
                if gate.is_waited_at() {
                    gate.call();
                }
            }
        };
        std::thread::scope(|scope| (0..6).for_each(|_| drop(scope.spawn(serve))));
        assert_eq!((gate.waiting(), gate.requests().get()), (0, 0));
    }

    struct Unpark(std::thread::Thread);

    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    fn wait(gate: &Arc<Gate>) {
        let waiter = gate.join(0, u32::MAX).unwrap();
        let waker = Arc::new(Unpark(std::thread::current())).into();
        let mut look = waiter.is_first();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        loop {
            if look {
                if gate.requests().enter(2) {
                    return;
                }
                waiter.found_none();
            }
            look = waiter.poll_called(&mut Context::from_waker(&waker)).is_ready();
            if !look {
                std::thread::park_timeout(deadline.saturating_duration_since(std::time::Instant::now()));
                assert!(std::time::Instant::now() < deadline, "a place is free, and nobody was called");
            }
        }
    }
}
