//! Shortest expected delay: the fewest requests for the weight, the new one included, so that a fast server is preferred
//! while all are idle. The first of several. (IPVS `sed`.)

use super::View;
use super::fo::Order;
use super::least::{By, pick as least};

pub fn pick(order: &Order, view: &impl View, ticket: u64) -> Option<usize> {
    // Nothing is better than the first of the heaviest while it is idle.
    let heaviest = order.first(view, |_| true)?;
    if view.load(heaviest) == 0 {
        return Some(heaviest);
    }
    least(view, 0, ticket, By::NextForWeight)
}
