//! Fewest requests in flight, plain or for the weight, with or without the one to come.
//!
//! Up to [`EXACT`] servers all are looked at; above, the best of [`SAMPLE`] is taken, since a scan of
//! thousands would cost more than it gains. Among equals the one at `start` wins, or the next after it:
//! the caller moves `start` on, so that the first server of the file does not get all the work of an idle
//! pool.

use super::{View, first_usable, mix, scale};

/// Up to here the choice is exact.
pub const EXACT: usize = 128;
/// How many are compared above that.
pub const SAMPLE: u64 = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    Load,
    LoadForWeight,
    /// As it would be with one more.
    NextForWeight,
}

pub fn pick(view: &impl View, start: usize, ticket: u64, by: By) -> Option<usize> {
    let length = view.len();
    if length <= EXACT {
        return least(view, (start..length).chain(0..start.min(length)), by);
    }
    let dice = mix(ticket);
    let sample = (1..SAMPLE).map(|throw| scale(mix(dice ^ throw), length as u64) as usize);
    least(view, std::iter::once(start).chain(sample), by).or_else(|| first_usable(view, start))
}

fn least(view: &impl View, servers: impl Iterator<Item = usize>, by: By) -> Option<usize> {
    let mut best: Option<(usize, u64, u64)> = None;
    for server in servers.filter(|&server| view.usable(server)) {
        let load = u64::from(view.load(server));
        let (load, weight) = match by {
            By::Load => (load, 1),
            By::LoadForWeight => (load, u64::from(view.weight(server))),
            By::NextForWeight => (load + 1, u64::from(view.weight(server))),
        };
        // load / weight < least / its weight, without dividing. Strict: the earlier keeps a tie.
        if best.is_none_or(|(_, least, of)| load * of < least * weight) {
            best = Some((server, load, weight));
        }
    }
    best.map(|(server, ..)| server)
}
