//! Pairs of UDP ports for media: an even one and the one behind it (RFC 3550 §11).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Which pairs of a range are in use here. Another program may have a port of it all the same: whoever cannot bind
/// a pair takes the next one.
#[derive(Debug)]
pub struct Ports {
    first: u16,
    count: usize,
    /// A bit a pair.
    used: Box<[AtomicU64]>,
    /// Where to look next: a pair that was just given back still hears the last of its stream.
    next: AtomicUsize,
}

/// A pair, in use as long as this is held.
#[derive(Debug)]
pub struct Taken {
    ports: Arc<Ports>,
    at: usize,
}

impl Ports {
    /// The pairs that lie in a range, both ends included.
    pub fn new(first: u16, last: u16) -> Ports {
        let first = first.next_multiple_of(2);
        let count = (usize::from(last) + 1).saturating_sub(usize::from(first)) / 2;
        let used = (0..count.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        Ports { first, count, used, next: AtomicUsize::new(0) }
    }

    /// How many there are, used or not.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Takes one; `None` when all are in use.
    pub fn take(self: &Arc<Self>) -> Option<Taken> {
        for _ in 0..self.count {
            let at = self.next.fetch_add(1, Ordering::Relaxed) % self.count;
            let bit = 1 << (at % 64);
            if self.used[at / 64].fetch_or(bit, Ordering::Relaxed) & bit == 0 {
                return Some(Taken { ports: self.clone(), at });
            }
        }
        None
    }
}

impl Taken {
    /// The even port; the odd one follows it.
    pub fn first(&self) -> u16 {
        self.ports.first + 2 * self.at as u16
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.ports.used[self.at / 64].fetch_and(!(1 << (self.at % 64)), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_even_and_nobody_elses() {
        let ports = Arc::new(Ports::new(5001, 5301));
        assert_eq!(ports.count(), 150);
        let all: Vec<Taken> = std::iter::from_fn(|| ports.take()).collect();
        let mut numbers: Vec<u16> = all.iter().map(Taken::first).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!((numbers.len(), numbers[0], numbers[149]), (150, 5002, 5300));
        assert!(numbers.iter().all(|port| port % 2 == 0) && ports.take().is_none());
        drop(all);
        assert_eq!(std::iter::from_fn(|| ports.take().map(|taken| taken.first())).take(300).count(), 300);
        let (none, top) = (Ports::new(7, 7), Ports::new(65_000, 65_535));
        assert_eq!((none.count(), top.count()), (0, 268));
        assert!(Arc::new(none).take().is_none());
    }
}
