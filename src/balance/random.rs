//! At random, in proportion to the weights.

use super::{Share, View, mix, scale};

/// Running sums of the weights: a throw finds its server by bisection.
#[derive(Debug)]
pub struct Wheel(Vec<u64>);

impl Wheel {
    pub fn new(shares: &[Share]) -> Wheel {
        let sums = shares.iter().scan(0u64, |sum, share| {
            *sum += u64::from(share.weight);
            Some(*sum)
        });
        Wheel(sums.collect())
    }

    /// A server at random, usable or not: the first whose running sum reaches a throw of 0 to all of it.
    pub(super) fn throw(&self, dice: u64) -> Option<usize> {
        let total = *self.0.last()?;
        if total == 0 {
            return None;
        }
        let throw = scale(dice, total.saturating_add(1));
        Some(self.0.partition_point(|&sum| sum < throw))
    }

    pub fn pick(&self, view: &impl View, dice: u64) -> Option<usize> {
        let total = *self.0.last()?;
        if total == 0 {
            return None;
        }
        let throw = scale(dice, total);
        let server = self.0.partition_point(|&sum| sum <= throw);
        if view.usable(server) { Some(server) } else { among_usable(view, mix(dice)) }
    }
}

/// The slow way, when the throw hit a server that is full or tried: in proportion among the usable.
fn among_usable(view: &impl View, dice: u64) -> Option<usize> {
    let usable = || (0..view.len()).filter(|&server| view.usable(server));
    let total: u64 = usable().map(|server| u64::from(view.weight(server))).sum();
    let mut left = scale(dice, total);
    let mut last = None;
    for server in usable() {
        let weight = u64::from(view.weight(server));
        if left < weight {
            return Some(server);
        }
        left -= weight;
        last = Some(server);
    }
    // Reached only when servers filled up between the two walks.
    last
}
