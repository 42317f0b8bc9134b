//! Failover: the heaviest, as long as it is up; the first of several. (IPVS `fo`.)

use super::{Share, View};

/// Positions of servers, the heaviest first.
#[derive(Debug)]
pub struct Order(Box<[u32]>);

impl Order {
    pub fn new(shares: &[Share]) -> Order {
        let mut order: Box<[u32]> = (0..shares.len() as u32).collect();
        // Stable: of one weight, the first of the list stays the first.
        order.sort_by_key(|&server| std::cmp::Reverse(shares[server as usize].weight));
        Order(order)
    }

    /// The first of the heaviest that is usable and for which `takes` holds.
    pub(super) fn first(&self, view: &impl View, takes: impl Fn(usize) -> bool) -> Option<usize> {
        self.0.iter().map(|&server| server as usize).find(|&server| view.usable(server) && takes(server))
    }
}
