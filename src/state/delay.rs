//! How long a server's answers took lately: what `ewma` goes by.
//!
//! Writers: requests, as their answers begin. Two that write at once may lose one of their times.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// What one answer counts: a sixteenth, so that one slow answer does not shut a server out.
const SHARE: i64 = 16;
/// Milliseconds in which what is known fades to its half while nobody asks: a server that was slow is asked again.
const FADES: u64 = 8192;

/// The average in sixteenths of a microsecond, and when it was written, in milliseconds; 0: nothing is known.
#[derive(Debug, Default)]
pub(super) struct Delay(AtomicU64);

/// Milliseconds since the process first asked.
pub(super) fn millis() -> u64 {
    static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
    ORIGIN.elapsed().as_millis() as u64
}

impl Delay {
    pub(super) fn add(&self, took: Duration, now: u64) {
        let new = i64::try_from(took.as_nanos() * 16 / 1000).unwrap_or(i64::MAX).min(i64::from(u32::MAX));
        let old = self.get(now) as i64;
        let average = if old == 0 { new } else { old + (new - old) / SHARE };
        // Never 0, which is what nothing is known of.
        self.0.store((average.max(1) as u64) << 32 | (now & u64::from(u32::MAX)), Relaxed);
    }

    #[inline(always)]
    pub(super) fn get(&self, now: u64) -> u64 {
        let known = self.0.load(Relaxed);
        if known == 0 {
            return 0;
        }
        let (average, at) = (known >> 32, known & u64::from(u32::MAX));
        // Milliseconds go round after 49 days; what seems to be of the future is of just now.
        let age = u64::from((now as u32).wrapping_sub(at as u32));
        let age = if age > u64::from(u32::MAX / 2) { 0 } else { age };
        // In steps, but all servers of a pool that nobody asks take them alike.
        (average >> (age / FADES).min(31)).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_average_follows_and_fades() {
        let (delay, ms) = (Delay::default(), Duration::from_millis);
        assert_eq!(delay.get(5), 0);
        delay.add(ms(10), 5);
        assert_eq!(delay.get(6), 160_000);
        delay.add(ms(1000), 7);
        assert!((1_100_000..1_200_000).contains(&delay.get(7)), "a sixteenth of the way: {}", delay.get(7));
        (0..100).for_each(|at| delay.add(ms(10), 8 + at));
        assert!((160_000..165_000).contains(&delay.get(107)), "{}", delay.get(107));
        let faded = delay.get(107 + 3 * FADES);
        assert!((20_000..21_000).contains(&faded), "{faded}");
        assert_eq!(delay.get(u64::from(u32::MAX / 3)), 1, "something is still known");
        // The milliseconds go round.
        let (delay, late) = (Delay::default(), u64::from(u32::MAX) - 10);
        delay.add(ms(10), late);
        assert_eq!(delay.get(late - 3), 160_000);
        assert_eq!(delay.get(late + FADES), 80_000);
    }
}
