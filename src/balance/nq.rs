//! Never queue: the first that is idle, however slow; where none is, by `sed`. (IPVS `nq`.)

use super::View;
use super::least::{self, By};

pub fn pick(view: &impl View, ticket: u64) -> Option<usize> {
    // As exact as what follows; of more servers only some are looked at.
    let looked_at = view.len().min(least::EXACT);
    let idle = (0..looked_at).find(|&server| view.load(server) == 0 && view.usable(server));
    idle.or_else(|| least::pick(view, 0, ticket, By::NextForWeight))
}
