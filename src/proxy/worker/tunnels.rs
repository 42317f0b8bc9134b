//! Tunnels of a worker, so that they look around when some server's connections are to be closed.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::task::{Context, Waker};

/// Those whose tasks wait.
#[derive(Debug, Default)]
pub struct Tunnels {
    wakers: RefCell<HashMap<u64, Waker>>,
    next: Cell<u64>,
    /// The sum of what was cut, when it was looked at last.
    seen: Cell<u64>,
}

/// One that is woken as long as this is held.
#[derive(Debug)]
pub struct Listed<'t> {
    tunnels: &'t Tunnels,
    number: u64,
    is_in: Cell<bool>,
}

impl Tunnels {
    pub fn list(&self) -> Listed<'_> {
        let number = self.next.get();
        self.next.set(number + 1);
        Listed { tunnels: self, number, is_in: Cell::new(false) }
    }

    /// Wakes all of them when the sum is another one than before.
    pub fn look(&self, cuts: u64) {
        if self.seen.replace(cuts) != cuts {
            self.wakers.borrow().values().for_each(Waker::wake_by_ref);
        }
    }
}

impl Listed<'_> {
    /// To be called within the task, which is the same at each call.
    pub fn wake_here(&self, cx: &Context<'_>) {
        if !self.is_in.replace(true) {
            self.tunnels.wakers.borrow_mut().insert(self.number, cx.waker().clone());
        }
    }
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        self.tunnels.wakers.borrow_mut().remove(&self.number);
    }
}
