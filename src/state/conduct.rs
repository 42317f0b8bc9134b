//! How a server has answered lately: counted by the request path, read by `health`, which ejects those that answer
//! badly.
//!
//! A good answer is one addition, and one look at how many bad ones went before. What is counted in a window is taken
//! out as a whole, so that nothing is counted twice.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::model::pool::Outlier;

/// On a cache line of its own: every core writes it.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Conduct {
    /// Bad ones in a row: answers of 500 and above and failures in the upper half, failures alone in the lower one.
    rows: AtomicU64,
    /// Since the window began: how many in the upper [`COUNT`] bits, how long they took below, in microseconds.
    good: AtomicU64,
    bad: AtomicU64,
}

/// 16 million answers in a window, and twelve days of waiting for them.
const COUNT: u32 = 24;
const ONE: u64 = 1 << (64 - COUNT);

/// What came of a request, or of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Came {
    /// Good, and how long its first byte took.
    Good(Duration),
    /// An answer of 500 or above.
    Bad,
    /// No connection, or no answer, or not all of it.
    Failed,
}

/// Bad ones in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rows {
    pub bad: u32,
    pub failed: u32,
}

impl Rows {
    /// Whether there are as many as are too many.
    pub fn too_many(self, outlier: &Outlier) -> bool {
        let reaches = |count: u32, most: Option<u32>| most.is_some_and(|most| count >= most);
        reaches(self.bad, outlier.consecutive_5xx) || reaches(self.failed, outlier.consecutive_failures)
    }
}

/// What was counted in a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Window {
    pub good: u64,
    pub bad: u64,
    /// Of the good ones, together.
    pub took: Duration,
}

impl Conduct {
    /// Counts one. The row it ends, where it is a bad one.
    #[inline]
    pub fn count(&self, came: Came) -> Option<Rows> {
        match came {
            Came::Good(took) => {
                self.good.fetch_add(ONE | (took.as_micros() as u64).min(ONE - 1), Ordering::Relaxed);
                if self.rows.load(Ordering::Relaxed) != 0 {
                    self.rows.store(0, Ordering::Relaxed);
                }
                None
            }
            Came::Bad | Came::Failed => {
                self.bad.fetch_add(1, Ordering::Relaxed);
                let longer = |rows: u64| {
                    let Rows { bad, failed } = unpacked(rows);
                    let failed = if came == Came::Failed { failed.saturating_add(1) } else { 0 };
                    Some(u64::from(bad.saturating_add(1)) << 32 | u64::from(failed))
                };
                let before = self.rows.fetch_update(Ordering::Relaxed, Ordering::Relaxed, longer);
                before.ok().and_then(longer).map(unpacked)
            }
        }
    }

    pub fn rows(&self) -> Rows {
        unpacked(self.rows.load(Ordering::Relaxed))
    }

    /// The window so far, and begins another one.
    pub fn take_window(&self) -> Window {
        let (good, bad) = (self.good.swap(0, Ordering::Relaxed), self.bad.swap(0, Ordering::Relaxed));
        Window { good: good / ONE, bad, took: Duration::from_micros(good % ONE) }
    }

    /// Nothing that was counted counts any more.
    pub fn forget(&self) {
        self.rows.store(0, Ordering::Relaxed);
        self.take_window();
    }
}

fn unpacked(rows: u64) -> Rows {
    Rows { bad: (rows >> 32) as u32, failed: rows as u32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_windows() {
        let conduct = Conduct::default();
        let ms = Duration::from_millis;
        assert_eq!(conduct.count(Came::Good(ms(3))), None);
        assert_eq!(conduct.count(Came::Bad), Some(Rows { bad: 1, failed: 0 }));
        assert_eq!(conduct.count(Came::Failed), Some(Rows { bad: 2, failed: 1 }));
        assert_eq!(conduct.count(Came::Failed), Some(Rows { bad: 3, failed: 2 }));
        assert_eq!(conduct.count(Came::Bad), Some(Rows { bad: 4, failed: 0 }), "it did answer");
        assert_eq!(conduct.count(Came::Good(ms(4))), None);
        assert_eq!(conduct.rows(), Rows::default());
        assert_eq!(conduct.take_window(), Window { good: 2, bad: 4, took: ms(7) });
        assert_eq!(conduct.take_window(), Window::default());
    }
}
