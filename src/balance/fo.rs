//! Failover: the heaviest, as long as it is up; the first of several. (IPVS `fo`.)

use super::View;

pub fn pick(view: &impl View) -> Option<usize> {
    heaviest(view, |_| true)
}

/// The first of the heaviest for which `takes` holds.
pub(super) fn heaviest(view: &impl View, takes: impl Fn(usize) -> bool) -> Option<usize> {
    let mut best: Option<(usize, u32)> = None;
    for server in (0..view.len()).filter(|&server| view.usable(server) && takes(server)) {
        let weight = view.weight(server);
        if best.is_none_or(|(_, most)| weight > most) {
            best = Some((server, weight));
        }
    }
    best.map(|(server, _)| server)
}
