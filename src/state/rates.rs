//! How many requests of each key a rule has taken lately: one token bucket for each, counted over all cores.
//!
//! A bucket is one number, the moment at which it will be full again (the "theoretical arrival time" of the generic
//! cell rate algorithm, ITU-T I.371): taking a token moves that on by the time that one token takes to come back. A full
//! bucket is worth nothing to remember.
//!
//! Writers: whoever asks (`Rates::take`). There is no lock and no allocation: a key is a place among the 16 that its hash
//! may have, found by the hash alone, which is keyed so that nobody can make two keys meet. Where all 16 are taken, the
//! one whose bucket is fullest makes room. Memory is 4 MiB, taken when a rule first says so, for 262,144 keys: 100,000 that
//! are in use at once keep their places. Counts may be off by one where two cores meet at a place that changes hands.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Of 16 places each; a power of two.
const GROUPS: usize = 1 << 14;
const PLACES: usize = 16;
/// Nanoseconds by which one core may be ahead of another that asks at once: far more than it ever is.
const SKEW: u64 = 1_000_000_000;
/// Tries to get a place that others are after too.
const TRIES: usize = 8;

#[derive(Debug)]
pub struct Rates {
    groups: OnceLock<Box<[Group]>>,
    keys: RandomState,
    origin: Instant,
}

#[derive(Debug, Default)]
struct Group {
    /// The hash of a key; 0: nobody's.
    tags: [AtomicU64; PLACES],
    /// In nanoseconds since the origin.
    full_at: [AtomicU64; PLACES],
}

impl Default for Rates {
    fn default() -> Rates {
        Rates { groups: OnceLock::new(), keys: RandomState::new(), origin: Instant::now() }
    }
}

impl Rates {
    /// Makes the table; to be called where there is time for it. Until then nothing is limited.
    pub fn prepare(&self) {
        self.groups.get_or_init(|| std::iter::repeat_with(Group::default).take(GROUPS).collect());
    }

    /// Takes one of the `count` that a key has in `per`; a second's worth of them, and at least one, may be taken at once.
    /// `label` says whose limit it is, over reloads too.
    ///
    /// # Errors
    /// The time until there is one.
    pub fn take(&self, label: &str, key: &[u8], count: u32, per: Duration, now: Instant) -> Result<(), Duration> {
        let Some(groups) = self.groups.get() else { return Ok(()) };
        let mut hasher = self.keys.build_hasher();
        hasher.write(label.as_bytes());
        // No label has one.
        hasher.write_u8(0xff);
        hasher.write(key);
        let tag = hasher.finish().max(1);
        let group = &groups[tag as usize & (GROUPS - 1)];
        let Some(full_at) = group.place(tag) else { return Ok(()) };

        let now = nanoseconds(now.saturating_duration_since(self.origin));
        let one = (nanoseconds(per) / u64::from(count.max(1))).max(1);
        let burst = (nanoseconds(Duration::from_secs(1)) / one).max(1);
        let ahead = one * (burst - 1);
        // What no other core can have made of it a moment later is of another rate, which a reload has changed.
        let empty = now + ahead + one;
        let from = |full_at: u64| if full_at > empty + SKEW { now } else { full_at.clamp(now, empty) };
        let step = |full_at: u64| (from(full_at) <= now + ahead).then(|| from(full_at) + one);
        let taken = full_at.fetch_update(Relaxed, Relaxed, step);
        taken.map(drop).map_err(|full_at| Duration::from_nanos(from(full_at) - (now + ahead)))
    }
}

impl Group {
    fn place(&self, tag: u64) -> Option<&AtomicU64> {
        for _ in 0..TRIES {
            let (mut fullest, mut soonest, mut before) = (0, u64::MAX, 0);
            for (at, own) in self.tags.iter().enumerate() {
                let own = own.load(Relaxed);
                if own == tag {
                    return self.full_at.get(at);
                }
                let full_at = if own == 0 { 0 } else { self.full_at[at].load(Relaxed).max(1) };
                if full_at < soonest {
                    (fullest, soonest, before) = (at, full_at, own);
                }
            }
            if self.tags[fullest].compare_exchange(before, tag, Relaxed, Relaxed).is_ok() {
                self.full_at[fullest].store(0, Relaxed);
                return self.full_at.get(fullest);
            }
        }
        None
    }
}

fn nanoseconds(time: Duration) -> u64 {
    // 584 years fit; a year is the most that anybody may write.
    time.as_nanos() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn rates() -> Rates {
        let rates = Rates::default();
        rates.prepare();
        rates
    }

    /// How many of `tries` are let through.
    fn let_through(rates: &Rates, key: &str, (count, per): (u32, Duration), now: Instant, tries: u32) -> u32 {
        (0..tries).map(|_| u32::from(rates.take("r", key.as_bytes(), count, per, now).is_ok())).sum()
    }

    #[test]
    fn a_second_is_the_burst_and_then_they_come_back_one_by_one() {
        let (rates, start) = (rates(), Instant::now());
        let twenty = (20, SECOND);
        assert_eq!(let_through(&rates, "a", twenty, start, 50), 20);
        let wait = rates.take("r", b"a", 20, SECOND, start).unwrap_err();
        assert_eq!(wait, Duration::from_millis(50));
        assert_eq!(let_through(&rates, "a", twenty, start + Duration::from_millis(49), 5), 0);
        assert_eq!(let_through(&rates, "a", twenty, start + Duration::from_millis(100), 5), 2);
        assert_eq!(let_through(&rates, "a", twenty, start + 60 * SECOND, 50), 20, "never more than a burst");
        assert_eq!(let_through(&rates, "b", twenty, start, 50), 20, "each key has its own");
        assert!(rates.take("another", b"a", 20, SECOND, start).is_ok(), "and each rule");
    }

    #[test]
    fn less_than_one_a_second_has_a_burst_of_one() {
        let (rates, start) = (rates(), Instant::now());
        let hourly = (2, 3600 * SECOND);
        assert_eq!(let_through(&rates, "a", hourly, start, 5), 1);
        assert_eq!(rates.take("r", b"a", 2, 3600 * SECOND, start + SECOND), Err(1799 * SECOND));
        assert_eq!(let_through(&rates, "a", hourly, start + 1800 * SECOND, 5), 1);
        // A rate that is said anew is at once the one that counts.
        assert_eq!(let_through(&rates, "a", (1000, SECOND), start + 1800 * SECOND, 2000), 1000);
    }

    #[test]
    fn cores_that_ask_at_once_take_no_more_than_there_is() {
        let (rates, now) = (rates(), Instant::now());
        // It has its place, for who takes one at once with another may be off by one.
        assert_eq!(let_through(&rates, "a", (1000, SECOND), now, 1), 1);
        let all: u32 = std::thread::scope(|scope| {
            let ask = || scope.spawn(|| let_through(&rates, "a", (1000, SECOND), now, 5000));
            let threads: Vec<_> = (0..4).map(|_| ask()).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(all, 999);
    }

    #[test]
    fn a_hundred_thousand_keys_are_remembered() {
        let (rates, now) = (rates(), Instant::now());
        let ask = |key: u32| rates.take("r", &key.to_le_bytes(), 1, 60 * SECOND, now).is_ok();
        assert!((0..100_000).all(ask), "each is new");
        let forgotten = (0..100_000).filter(|key| ask(*key)).count();
        assert!(forgotten < 500, "{forgotten}");
        // Far more of them take no more memory, and the table still limits.
        assert!((0..1_000_000).filter(|key| ask(1_000_000 + key)).count() > 999_000);
        assert!(ask(3_000_000) && !ask(3_000_000));
    }

    #[test]
    fn nothing_is_limited_before_there_is_a_table() {
        let rates = Rates::default();
        assert_eq!(let_through(&rates, "a", (1, SECOND), Instant::now(), 9), 9);
    }
}
