//! How many requests of a pool are tried again, against how many there are: over the last ten seconds, all cores and
//! reloads.
//!
//! When servers fail, every retry is one more request for those that are left: without a bound, a farm that has lost a
//! third of its servers gets half again as much to do. Requests are not counted for this: a pool's scheduler counts its
//! picks anyway, and once a second somebody writes down how many there were. So it costs a request nothing, and is as
//! exact as a second in ten.
//!
//! Writers: whoever tries again (`take`), and each worker once a second (`note`).

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// Seconds that are looked back on.
const WINDOW: u32 = 10;
/// Retries in that time that are always allowed, 3 a second: a share of few requests would be none.
const LEAST: u64 = 3 * WINDOW as u64;
const SLOTS: usize = WINDOW as usize + 1;

#[derive(Debug)]
pub struct Budget {
    origin: Instant,
    seconds: [Second; SLOTS],
    refused: AtomicU64,
}

#[derive(Debug, Default)]
struct Second {
    /// Which second this is, counted from 1 at the origin; 0: none.
    number: AtomicU32,
    /// Picks before it.
    picks: AtomicU64,
    retries: AtomicU64,
}

impl Default for Budget {
    fn default() -> Budget {
        Budget { origin: Instant::now(), seconds: Default::default(), refused: AtomicU64::new(0) }
    }
}

impl Budget {
    /// Writes down how many picks there were.
    pub(super) fn note(&self, picks: u64, now: Instant) {
        self.second(self.number(now), picks);
    }

    /// Takes a retry out of the budget, of `share` hundredths of a percent of the requests; false where it is used up.
    pub(super) fn take(&self, share: u32, picks: u64, now: Instant) -> bool {
        let number = self.number(now);
        let current = self.second(number, picks);
        let (mut retries, mut first) = (0, picks);
        for second in &self.seconds {
            let of = second.number.load(Relaxed);
            if of > 0 && of + WINDOW > number && of <= number {
                retries += second.retries.load(Relaxed);
                first = first.min(second.picks.load(Relaxed));
            }
        }
        let requests = (picks - first).saturating_sub(retries);
        let allowed = (u128::from(requests) * u128::from(share) / 10_000) as u64;
        let some = retries < allowed.max(LEAST);
        let count = if some { &current.retries } else { &self.refused };
        count.fetch_add(1, Relaxed);
        some
    }

    /// Another process has counted the picks so far: what was noted does not go with them.
    pub(super) fn forget(&self) {
        self.seconds.iter().for_each(|second| second.number.store(0, Relaxed));
    }

    /// Retries that were not made for want of budget.
    pub fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    fn number(&self, now: Instant) -> u32 {
        // 136 years fit.
        now.saturating_duration_since(self.origin).as_secs() as u32 + 1
    }

    fn second(&self, number: u32, picks: u64) -> &Second {
        let second = &self.seconds[number as usize % SLOTS];
        let before = second.number.load(Relaxed);
        // Whoever comes first begins it; what another counts in between is off by a few.
        if before != number && second.number.compare_exchange(before, number, Relaxed, Relaxed).is_ok() {
            second.picks.store(picks, Relaxed);
            second.retries.store(0, Relaxed);
        }
        second
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// How many of `tries` retries are allowed; each of these is one more pick.
    fn taken(budget: &Budget, share: u32, picks: u64, now: Instant, tries: u32) -> u64 {
        (0..tries).fold(0, |taken, _| taken + u64::from(budget.take(share, picks + taken, now)))
    }

    #[test]
    fn a_share_of_the_last_ten_seconds() {
        let budget = Budget::default();
        let at = |seconds: u64| budget.origin + Duration::from_secs(seconds);
        (0..10).for_each(|second| budget.note(second * 100, at(second)));
        // 900 requests and more until now, of which a fifth.
        assert_eq!(taken(&budget, 2_000, 1_000, at(9), 500), 200);
        assert_eq!(budget.refused(), 300);
        assert_eq!(taken(&budget, 2_000, 1_200, at(9), 10), 0);
        // Nine seconds on, only the last of those seconds is looked back on, with its retries.
        (10..19).for_each(|second| budget.note(1_200 + (second - 9) * 100, at(second)));
        assert_eq!(taken(&budget, 2_000, 2_200, at(18), 500), 20, "1,100 requests, and 200 retries already");
        budget.note(2_220, at(19));
        assert_eq!(taken(&budget, 2_000, 2_320, at(19), 500), 180);
    }

    #[test]
    fn three_a_second_are_always_allowed() {
        let budget = Budget::default();
        let at = |seconds: u64| budget.origin + Duration::from_secs(seconds);
        assert_eq!(taken(&budget, 0, 5, at(0), 100), 30);
        assert_eq!(taken(&budget, 0, 40, at(9), 100), 0);
        assert_eq!(taken(&budget, 0, 40, at(10), 100), 30);
        assert_eq!(taken(&budget, 10_000, 90, at(3_600), 100), 30, "after an hour without any");
        // What another process counted is no burst of requests.
        budget.forget();
        assert_eq!(taken(&budget, 10_000, 1_000_000, at(3_601), 100), 30);
    }
}
