//! Waiting, the two ways there are: for something to happen, and to see that it does not.

use std::thread;
use std::time::{Duration, Instant};

/// How long anything that must happen may take, on a busy machine with two cores.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Looks again and again until `look` finds something; fails at the deadline, naming `what`.
pub fn until<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    until_within(DEADLINE, what, look)
}

pub fn until_within<T>(deadline: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < deadline, "not within {deadline:?}: {what}");
        thread::park_timeout(Duration::from_millis(3));
    }
}

/// As [`until`], within a task: others on its thread go on meanwhile.
pub async fn until_true(what: &str, mut look: impl FnMut() -> bool) {
    let start = Instant::now();
    while !look() {
        assert!(start.elapsed() < DEADLINE, "not within {DEADLINE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
}

/// Watches for a bounded time that something does *not* happen: `still` must hold at every look.
pub fn observe(time: Duration, what: &str, mut still: impl FnMut() -> bool) {
    let start = Instant::now();
    while start.elapsed() < time {
        assert!(still(), "after {:?}: {what}", start.elapsed());
        thread::park_timeout(Duration::from_millis(10));
    }
}
