//! Shortest expected delay: the fewest requests for the weight, the new one included, so that a fast server is preferred
//! while all are idle. The first of several. (IPVS `sed`.)

use super::View;
use super::least::{By, pick as least};

pub fn pick(view: &impl View, ticket: u64) -> Option<usize> {
    least(view, 0, ticket, By::NextForWeight)
}
