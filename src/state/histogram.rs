//! How long things took, in fixed buckets.
//!
//! One histogram belongs to one worker; adding to it is a table look-up and one comparison. The
//! buckets are the same everywhere, so that histograms of several workers add up.

use std::time::Duration;

/// Upper bounds of the buckets in nanoseconds, inclusive; what is longer counts in the last,
/// unbounded bucket. Each is at least twice the one before: `bucket` depends on it.
pub const BOUNDS: [u64; 14] = [
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    10_000_000_000,
    60_000_000_000,
];

/// For each power of two, the first bound that is not below it.
const FIRST: [u8; 64] = {
    let mut table = [0u8; 64];
    let mut power = 0;
    while power < 64 {
        let mut bound = 0;
        while bound < BOUNDS.len() && BOUNDS[bound] < 1 << power {
            bound += 1;
        }
        table[power] = bound as u8;
        power += 1;
    }
    let mut bound = 1;
    while bound < BOUNDS.len() {
        assert!(BOUNDS[bound] >= 2 * BOUNDS[bound - 1], "an octave must hold one bound at most");
        bound += 1;
    }
    table
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Histogram {
    /// How many fell into each bucket (not cumulative); the last is the unbounded one.
    counts: [u64; BOUNDS.len() + 1],
    /// Nanoseconds. 64 bits would be full after three weeks of 10,000 open tunnels.
    sum: u128,
}

impl Histogram {
    #[inline]
    pub fn add(&mut self, took: Duration) {
        let nanos = took.as_secs().saturating_mul(1_000_000_000).saturating_add(u64::from(took.subsec_nanos()));
        self.counts[bucket(nanos)] += 1;
        self.sum += u128::from(nanos);
    }

    pub fn merge(&mut self, other: &Histogram) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.sum += other.sum;
    }

    /// How many fell into each bucket, and their sum in nanoseconds.
    pub(super) fn parts(&self) -> ([u64; BOUNDS.len() + 1], u128) {
        (self.counts, self.sum)
    }

    /// The inverse of [`Histogram::parts`]; `None` when the buckets are not ours.
    pub(super) fn of(counts: &[u64], sum: u128) -> Option<Histogram> {
        Some(Histogram { counts: counts.try_into().ok()?, sum })
    }

    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Seconds.
    pub fn sum(&self) -> f64 {
        self.sum as f64 / 1e9
    }

    /// Each bound in seconds with how many took no longer.
    pub fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        let mut sum = 0;
        BOUNDS.iter().zip(&self.counts).map(move |(bound, count)| {
            sum += count;
            (*bound as f64 / 1e9, sum)
        })
    }
}

/// The bucket of a length. The octave of its highest bit holds one bound at most: one comparison is left.
#[inline]
fn bucket(nanos: u64) -> usize {
    let first = usize::from(FIRST[(nanos | 1).ilog2() as usize]);
    match BOUNDS.get(first) {
        Some(&bound) => first + usize::from(nanos > bound),
        None => first,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `bucket` must agree with.
    fn slow(nanos: u64) -> usize {
        BOUNDS.iter().position(|bound| nanos <= *bound).unwrap_or(BOUNDS.len())
    }

    #[test]
    fn a_bound_belongs_to_its_own_bucket() {
        for (at, bound) in BOUNDS.iter().enumerate() {
            assert_eq!(bucket(*bound - 1), at);
            assert_eq!(bucket(*bound), at);
            assert_eq!(bucket(*bound + 1), at + 1);
        }
        for power in 0..64 {
            for near in [(1u64 << power).wrapping_sub(1), 1 << power, (1 << power) + 1, u64::MAX] {
                assert_eq!(bucket(near), slow(near), "{near}");
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn every_length_finds_its_bucket(nanos: u64, shift in 0u32..64) {
            proptest::prop_assert_eq!(bucket(nanos >> shift), slow(nanos >> shift));
        }
    }

    #[test]
    fn sums_and_counts_add_up() {
        let mut one = Histogram::default();
        one.add(Duration::from_micros(300));
        one.add(Duration::from_millis(30));
        let mut two = Histogram::default();
        two.add(Duration::from_secs(3600));
        two.add(Duration::MAX);
        one.merge(&two);
        assert_eq!(one.count(), 4);
        let cumulative: Vec<_> = one.cumulative().collect();
        assert_eq!(cumulative[0], (0.0005, 1));
        assert_eq!(cumulative[6], (0.05, 2));
        assert_eq!(cumulative[13], (60.0, 2));
        assert!(one.sum() > 3600.0);
    }
}
