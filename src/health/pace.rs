//! Spreads what is done again and again, so that many servers are not asked at the same moment.

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;
use std::time::Duration;

use tokio::time::Instant;

use crate::balance::mix;

/// Waits shorter than this would only burn time.
const SHORTEST: Duration = Duration::from_millis(10);
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// What is due within that time is done at once: to be woken for each of a thousand probes a second costs a quarter of what they
/// cost themselves.
const COARSEST: Duration = Duration::from_millis(10);

/// The moment to do what is due at `next`: with others of its time, later by a hundredth of its interval at most.
pub fn together(next: Instant, interval: Duration) -> Instant {
    static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
    let step = (interval / 100).min(COARSEST).as_nanos();
    let Some(since) = next.checked_duration_since(*BEGAN).filter(|_| step > 0) else { return next };
    let over = since.as_nanos() % step;
    let more = if over == 0 { 0 } else { step - over };
    // Below ten milliseconds.
    next + Duration::from_nanos(more as u64)
}

/// From when the next time is reckoned: the moment that was planned, so that what is done together does not make it rarer; where it
/// was late by more, this one.
pub fn planned(next: Instant, began: Instant) -> Instant {
    if began.saturating_duration_since(next) > 2 * COARSEST { began } else { next }
}

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
    fn what_is_due_at_about_the_same_time_is_done_at_once() {
        let (now, second) = (Instant::now() + Duration::from_secs(5), Duration::from_secs(1));
        let moments = |interval: Duration| {
            let each = (0..1000).map(|n| {
                let next = now + interval * n / 1000;
                let moment = together(next, interval);
                assert!(moment >= next && moment - next < (interval / 100).min(COARSEST), "{n}");
                moment
            });
            each.collect::<std::collections::BTreeSet<_>>().len()
        };
        assert!((100..=101).contains(&moments(second)));
        assert!((100..=101).contains(&moments(second / 10)));
        assert!((200..=201).contains(&moments(second * 2)));
        assert_eq!(together(now, Duration::ZERO), now);
    }

    #[test]
    fn what_is_done_together_is_done_as_often() {
        let (begin, second) = (Instant::now() + Duration::from_secs(5), Duration::from_secs(1));
        let mut next = begin + Duration::from_millis(3);
        for _ in 0..100 {
            next = planned(next, together(next, second)) + second;
        }
        assert_eq!(next - begin, Duration::from_millis(100_003));
        // What was late is not made up for.
        assert_eq!(planned(begin, begin + second), begin + second);
    }

    #[test]
    fn tasks_do_not_go_in_step() {
        let waits: std::collections::BTreeSet<_> =
            (0..20).map(|_| Pace::new().first(Duration::from_secs(60))).collect();
        assert!(waits.len() > 10);
    }
}
