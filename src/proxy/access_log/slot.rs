//! Which log is written, as all workers see it: a reload may bring another one.

use std::cell::RefCell;
use std::sync::Arc;

use arc_swap::ArcSwapOption;

use super::Sink;
use super::writer::Door;

/// The place of the log in use; `None` inside: nothing is logged.
#[derive(Debug, Clone, Default)]
pub struct Logs(Arc<ArcSwapOption<Door>>);

impl Logs {
    /// From now on lines go there. Each worker takes it up within moments; the log before ends when all have.
    pub fn put(&self, log: Option<&super::Log>) {
        self.0.store(log.map(super::Log::door));
    }

    /// A worker's own view of the place.
    pub fn slot(&self) -> LogSlot {
        LogSlot { logs: self.clone(), seen: RefCell::default() }
    }
}

/// The place of the log as one worker saw it last.
#[derive(Debug)]
pub struct LogSlot {
    logs: Logs,
    seen: RefCell<Option<Arc<Door>>>,
}

impl LogSlot {
    /// Whether there is another log than the one that the last sink leads to.
    pub fn has_changed(&self) -> bool {
        let now = self.logs.0.load();
        match (&*now, &*self.seen.borrow()) {
            (Some(now), Some(seen)) => !Arc::ptr_eq(now, seen),
            (now, seen) => now.is_some() != seen.is_some(),
        }
    }

    /// A sink that leads to the log in use.
    pub fn sink(&self) -> Option<Sink> {
        let now = self.logs.0.load_full();
        let sink = now.as_deref().map(Door::sink);
        *self.seen.borrow_mut() = now;
        sink
    }
}
