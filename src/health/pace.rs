//! Spreads what is done again and again, so that many servers are not asked at the same moment.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use crate::balance::mix;

/// Waits shorter than this would only burn time.
const SHORTEST: Duration = Duration::from_millis(10);
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Dice of its own for one task.
#[derive(Debug)]
pub struct Pace(u64);

impl Pace {
    /// Another sequence in every run, so that several Reeves do not fall into step either.
    pub fn new() -> Pace {
        Pace(RandomState::new().hash_one("pace"))
    }

    /// Before the first time: within a tenth of the interval.
    pub fn first(&mut self, interval: Duration) -> Duration {
        interval.min(LONGEST).mul_f64(0.1 * self.throw())
    }

    /// The interval, longer or shorter by up to this share of it.
    pub fn around(&mut self, interval: Duration, jitter: f64) -> Duration {
        let interval = interval.clamp(SHORTEST, LONGEST);
        let share = jitter.clamp(0.0, 1.0) * (2.0 * self.throw() - 1.0);
        interval.mul_f64(1.0 + share).max(SHORTEST)
    }

    /// At least 0, less than 1.
    fn throw(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(1);
        (mix(self.0) >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_stay_in_their_bounds() {
        let second = Duration::from_secs(1);
        let mut pace = Pace::new();
        for _ in 0..1000 {
            assert!(pace.first(second) < second / 10);
            let wait = pace.around(second, 0.2);
            assert!(wait >= second * 8 / 10 && wait <= second * 12 / 10, "{wait:?}");
            assert_eq!(pace.around(second, 0.0), second);
            assert!(pace.around(Duration::ZERO, 1.0) >= SHORTEST);
            assert!(pace.around(Duration::MAX, f64::INFINITY) <= LONGEST * 2);
            assert_eq!(pace.around(second, -1.0), second);
        }
    }

    #[test]
    fn tasks_do_not_go_in_step() {
        let waits: std::collections::BTreeSet<_> =
            (0..20).map(|_| Pace::new().first(Duration::from_secs(60))).collect();
        assert!(waits.len() > 10);
    }
}
