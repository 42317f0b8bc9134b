//! Deadlines of one worker: a wheel that turns once a tick.
//!
//! A request waits three or four times, nearly always for far less than its deadline. So setting one
//! writes a number and nothing else; the wheel looks at a timer only when the slot it stands in comes
//! by, and moves it on if its deadline has meanwhile moved. Deadlines are late by up to two ticks.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// From one look at the wheel to the next.
pub const TICK: Duration = Duration::from_millis(50);

/// Slots of the wheel: with 50 ms each it turns around in 51 s; later deadlines go round again.
const SLOTS: usize = 1024;

/// The timers of one worker.
#[derive(Debug)]
pub struct Wheel {
    origin: Instant,
    /// Ticks since `origin`.
    now: Cell<u64>,
    inner: RefCell<Inner>,
}

#[derive(Debug)]
struct Inner {
    slots: Vec<Vec<u32>>,
    entries: Vec<Entry>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Entry {
    /// The tick at which it fires.
    deadline: u64,
    /// The tick whose slot it stands in, never later than `deadline`; `NOWHERE` when in none.
    stands: u64,
    /// Where in that slot.
    position: usize,
    fired: bool,
    waker: Option<Waker>,
}

const NOWHERE: u64 = u64::MAX;

/// The deadline has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Elapsed;

/// One deadline at a time. Dropping it takes it off the wheel.
#[derive(Debug)]
pub struct Timer {
    wheel: Rc<Wheel>,
    id: u32,
}

impl Wheel {
    pub fn new(now: Instant) -> Rc<Wheel> {
        let inner = Inner { slots: vec![Vec::new(); SLOTS], entries: Vec::new(), free: Vec::new() };
        Rc::new(Wheel { origin: now, now: Cell::new(0), inner: RefCell::new(inner) })
    }

    pub fn timer(self: &Rc<Self>) -> Timer {
        let mut inner = self.inner.borrow_mut();
        let entry = Entry { deadline: NOWHERE, stands: NOWHERE, position: 0, fired: false, waker: None };
        let id = match inner.free.pop() {
            Some(id) => {
                inner.entries[id as usize] = entry;
                id
            }
            None => {
                inner.entries.push(entry);
                (inner.entries.len() - 1) as u32
            }
        };
        Timer { wheel: self.clone(), id }
    }

    /// Turns the wheel to `now` and wakes whoever's deadline has passed.
    pub fn turn(&self, now: Instant) {
        let target = ticks(now.saturating_duration_since(self.origin));
        let mut from = self.now.get();
        if target <= from {
            return;
        }
        self.now.set(target);
        let mut inner = self.inner.borrow_mut();
        // After a long pause each slot has to be looked at once, not once a missed turn.
        from = from.max(target.saturating_sub(SLOTS as u64));
        for tick in from + 1..=target {
            let slot = std::mem::take(&mut inner.slots[tick as usize % SLOTS]);
            for id in slot {
                let entry = &mut inner.entries[id as usize];
                entry.stands = NOWHERE;
                if entry.deadline <= target {
                    entry.fired = true;
                    if let Some(waker) = entry.waker.take() {
                        waker.wake();
                    }
                } else if entry.deadline != NOWHERE {
                    inner.place(id, target);
                }
            }
        }
    }
}

impl Inner {
    /// Puts an entry into the slot of its deadline, or the farthest one there is.
    fn place(&mut self, id: u32, now: u64) {
        let entry = &mut self.entries[id as usize];
        let tick = entry.deadline.clamp(now + 1, now + SLOTS as u64 - 1);
        let slot = &mut self.slots[tick as usize % SLOTS];
        entry.stands = tick;
        entry.position = slot.len();
        slot.push(id);
    }

    fn remove(&mut self, id: u32) {
        let Entry { stands, position, .. } = self.entries[id as usize];
        if stands == NOWHERE {
            return;
        }
        let slot = &mut self.slots[stands as usize % SLOTS];
        slot.swap_remove(position);
        if let Some(moved) = slot.get(position).copied() {
            self.entries[moved as usize].position = position;
        }
        self.entries[id as usize].stands = NOWHERE;
    }
}

fn ticks(time: Duration) -> u64 {
    (time.as_millis() / TICK.as_millis()) as u64
}

impl Timer {
    /// Waits for `future`, but not longer than `limit`.
    pub fn wait<F: Future>(&self, limit: Duration, future: F) -> Wait<'_, F> {
        Wait { timer: self, limit, armed: false, future }
    }

    /// Lets the wait under way (if there is one) end as if its time had passed.
    pub fn expire(&self) {
        let mut inner = self.wheel.inner.borrow_mut();
        let entry = &mut inner.entries[self.id as usize];
        entry.fired = true;
        if let Some(waker) = entry.waker.take() {
            waker.wake();
        }
    }

    fn arm(&self, limit: Duration) {
        let now = self.wheel.now.get();
        let mut inner = self.wheel.inner.borrow_mut();
        let entry = &mut inner.entries[self.id as usize];
        // The tick under way is not over: one more, or it would come early.
        entry.deadline = now.saturating_add(ticks(limit)).saturating_add(1).min(NOWHERE - 1);
        entry.fired = false;
        if entry.deadline < entry.stands {
            inner.remove(self.id);
            inner.place(self.id, now);
        }
    }

    fn poll(&self, cx: &Context<'_>) -> Poll<Elapsed> {
        let mut inner = self.wheel.inner.borrow_mut();
        let entry = &mut inner.entries[self.id as usize];
        if entry.fired {
            return Poll::Ready(Elapsed);
        }
        match &entry.waker {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            _ => entry.waker = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        let mut inner = self.wheel.inner.borrow_mut();
        inner.remove(self.id);
        inner.entries[self.id as usize].waker = None;
        inner.free.push(self.id);
    }
}

/// The future of [`Timer::wait`].
#[derive(Debug)]
pub struct Wait<'t, F> {
    timer: &'t Timer,
    limit: Duration,
    armed: bool,
    future: F,
}

impl<F: Future + Unpin> Future for Wait<'_, F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(output) = Pin::new(&mut self.future).poll(cx) {
            return Poll::Ready(Ok(output));
        }
        if !self.armed {
            self.armed = true;
            self.timer.arm(self.limit);
        }
        self.timer.poll(cx).map(Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;
    use std::pin::pin;

    fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_wait_ends_at_its_deadline_and_not_before() {
        for limit in [50, 60, 1000, 3_600_000] {
            let start = Instant::now();
            let wheel = Wheel::new(start);
            let timer = wheel.timer();
            let mut wait = pin!(timer.wait(Duration::from_millis(limit), Box::pin(pending::<()>())));
            assert!(poll(wait.as_mut()).is_pending());
            let mut now = 0;
            while now + 50 < limit {
                now += 50;
                wheel.turn(start + Duration::from_millis(now));
                assert!(poll(wait.as_mut()).is_pending(), "at {now} of {limit}");
            }
            wheel.turn(start + Duration::from_millis(limit + 100));
            assert!(poll(wait.as_mut()).is_ready(), "{limit}");
        }
    }

    #[test]
    fn an_earlier_deadline_moves_the_timer_and_a_pause_fires_all() {
        let start = Instant::now();
        let wheel = Wheel::new(start);
        let timers: Vec<_> = (0..100).map(|_| wheel.timer()).collect();
        let mut waits: Vec<_> = timers
            .iter()
            .enumerate()
            .map(|(n, timer)| {
                timer.arm(Duration::from_secs(60));
                Box::pin(timer.wait(Duration::from_millis(100 * n as u64), Box::pin(pending::<()>())))
            })
            .collect();
        assert!(waits.iter_mut().all(|wait| poll(wait.as_mut()).is_pending()));
        wheel.turn(start + Duration::from_millis(5_000));
        let done = waits.iter_mut().map(|wait| poll(wait.as_mut()).is_ready()).filter(|ready| *ready).count();
        assert!((48..=50).contains(&done), "{done}");
        wheel.turn(start + Duration::from_secs(1_000));
        assert!(waits[60..].iter_mut().all(|wait| poll(wait.as_mut()).is_ready()));
    }

    #[test]
    fn dropped_timers_leave_no_trace() {
        let wheel = Wheel::new(Instant::now());
        for _ in 0..1000 {
            let timers: Vec<_> = (0..10).map(|_| wheel.timer()).collect();
            for timer in &timers {
                timer.arm(Duration::from_secs(10));
            }
        }
        let inner = wheel.inner.borrow();
        assert_eq!((inner.entries.len(), inner.slots.iter().map(Vec::len).sum::<usize>()), (10, 0));
    }
}
