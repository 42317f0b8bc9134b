//! The time within which so many of a pool's answers begin: after which `hedge` asks a second server.
//!
//! One number that each answer moves: up where it took longer, down where it did not, so much that both balance where they
//! should (the "frugal" way; Ma, Muthukrishnan, Sandler, "Frugal Streaming for Estimating Quantiles", 2013). It follows a
//! pool that becomes slower or faster within some hundred answers, and is off by some percent.
//!
//! Writers: requests, as their answers begin. Two that write at once may lose one of their times.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Answers before something is known.
const ENOUGH: u64 = 100;
/// What an answer moves at most: a sixteenth of what is known.
const STEP: f64 = 16.0;
const COUNT: u32 = 16;

/// Nanoseconds, and in the lowest bits how many answers there were, as far as that matters.
#[derive(Debug, Default)]
pub struct Pace(AtomicU64);

impl Pace {
    /// An answer began after `took`; `percentile` of them are to begin within what is known.
    pub(super) fn add(&self, took: Duration, percentile: u8) {
        let known = self.0.load(Relaxed);
        let (time, count) = (known >> COUNT, known & ((1 << COUNT) - 1));
        let took = took.as_nanos().min(u128::from(u64::MAX >> COUNT)) as u64;
        let share = f64::from(percentile) / 100.0;
        let now = match count {
            0 => took as f64,
            _ if took > time => time as f64 * (1.0 + share / STEP),
            _ => time as f64 * (1.0 - (1.0 - share) / STEP),
        };
        let now = (now as u64).clamp(1_000, u64::MAX >> COUNT);
        self.0.store(now << COUNT | (count + 1).min(ENOUGH), Relaxed);
    }

    /// `None` before there were enough.
    pub(super) fn get(&self) -> Option<Duration> {
        let known = self.0.load(Relaxed);
        (known & ((1 << COUNT) - 1) >= ENOUGH).then(|| Duration::from_nanos(known >> COUNT))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::mix;

    /// Answers that take 10 to 110 ms, evenly, and some a second more.
    fn took(number: u64) -> Duration {
        let dice = mix(number);
        let slow = if dice.is_multiple_of(50) { 1_000_000 } else { 0 };
        Duration::from_micros(10_000 + (dice >> 32) % 100_000 + slow)
    }

    #[test]
    fn it_comes_to_the_percentile_and_follows_it() {
        let pace = Pace::default();
        (0..99).for_each(|number| pace.add(took(number), 95));
        assert_eq!(pace.get(), None, "too early to say");
        let mut average = 0.0;
        for number in 0..20_000 {
            pace.add(took(number), 95);
            if number >= 10_000 {
                average += pace.get().unwrap().as_secs_f64() / 10_000.0;
            }
        }
        // 98 of 100 are the even ones: 95 of these 98 are within 107 ms.
        assert!((0.100..0.115).contains(&average), "{average}");
        (0..3_000).for_each(|number| pace.add(took(number) / 10, 95));
        let faster = pace.get().unwrap().as_secs_f64();
        assert!((0.008..0.015).contains(&faster), "{faster}");
    }
}
