//! Round robin: one after the other. Weights do not matter, but for 0.

use super::{View, below, first_usable};

pub fn pick(view: &impl View, ticket: u64) -> Option<usize> {
    first_usable(view, below(ticket, view.len())?)
}
