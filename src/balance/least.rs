//! Fewest requests in flight, plain or for the weight, with or without the one to come.
//!
//! Up to [`EXACT`] servers all are looked at; above, the best of [`SAMPLE`] is taken, since a scan of
//! thousands would cost more than it gains. Among equals the one at `start` wins, or the next after it:
//! the caller moves `start` on, so that the first server of the file does not get all the work of an idle
//! pool.

use std::ops::ControlFlow;

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
    let next = u64::from(by == By::NextForWeight);
    // More than any load for any weight. Folded, because a chain of two ranges is two plain loops then.
    let (mut best, mut least, mut of) = (None, u64::MAX, 1);
    let mut servers = servers;
    let _ = servers.try_for_each(|server| {
        let Some(load) = view.available(server) else { return ControlFlow::Continue(()) };
        let weight = u64::from(view.weight(server));
        if weight == 0 {
            return ControlFlow::Continue(());
        }
        let (load, weight) = (u64::from(load) + next, if by == By::Load { 1 } else { weight });
        // load / weight < least / its weight, without dividing. Strict: the earlier keeps a tie.
        if load * of < least.saturating_mul(weight) {
            (best, least, of) = (Some(server), load, weight);
        }
        // Nothing is less than nothing, and the earlier keeps a tie.
        if least == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    best
}
