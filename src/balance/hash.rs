//! Rendezvous hashing: the same key goes to the same server, and when one leaves only its keys move.
//!
//! Every server draws a number from the key and its own seed; the best draw wins. With draws `u` in (0, 1)
//! the smallest `-ln(u) / weight` belongs to each server in proportion to its weight, and changing one
//! weight moves keys only to or from that server. A server that is not usable is left out, which makes
//! the next best the same for every request of that key.

use super::{View, mix};

pub fn pick(view: &impl View, key: u64) -> Option<usize> {
    // Whether a server is usable, other cores write all the time: it is asked of the best alone, as long as that one is.
    match best(view, key, |_| true) {
        Some(first) if !view.usable(first) => best(view, key, |server| view.usable(server)),
        first => first,
    }
}

/// The best of a key and its next best, where there is one.
pub(super) fn two(view: &impl View, key: u64) -> Option<(usize, Option<usize>)> {
    match best_two(view, key, |_| true)? {
        (first, second) if view.usable(first) && second.is_none_or(|second| view.usable(second)) => {
            Some((first, second))
        }
        _ => best_two(view, key, |server| view.usable(server)),
    }
}

#[inline(always)]
fn best(view: &impl View, key: u64, takes: impl Fn(usize) -> bool) -> Option<usize> {
    let key = mix(key);
    let mut best = Best::default();
    for server in (0..view.len()).filter(|&server| takes(server)) {
        let (draw, weight) = (draw(key, view.seed(server)), f64::from(view.weight(server)));
        if let Some(cost) = best.beaten_by(draw, weight) {
            best = Best { server: Some(server), cost, weight };
        }
    }
    best.server
}

#[inline(always)]
fn best_two(view: &impl View, key: u64, takes: impl Fn(usize) -> bool) -> Option<(usize, Option<usize>)> {
    let key = mix(key);
    let (mut first, mut second) = (Best::default(), Best::default());
    for server in (0..view.len()).filter(|&server| takes(server)) {
        let (draw, weight) = (draw(key, view.seed(server)), f64::from(view.weight(server)));
        if let Some(cost) = second.beaten_by(draw, weight) {
            second = Best { server: Some(server), cost, weight };
            if cost * first.weight < first.cost * weight {
                (first, second) = (second, first);
            }
        }
    }
    first.server.map(|server| (server, second.server))
}

/// The least cost so far.
struct Best {
    server: Option<usize>,
    /// `-ln` of what it drew.
    cost: f64,
    weight: f64,
}

impl Default for Best {
    fn default() -> Best {
        Best { server: None, cost: f64::INFINITY, weight: 1.0 }
    }
}

impl Best {
    /// What another one costs, where that is less for its weight. `-ln(u)` is never less than `1 - u`, so that nearly all
    /// are settled without a logarithm.
    #[inline(always)]
    fn beaten_by(&self, draw: f64, weight: f64) -> Option<f64> {
        let most = self.cost * weight;
        if (1.0 - draw) * self.weight >= most {
            return None;
        }
        let cost = -draw.ln();
        (cost * self.weight < most).then_some(cost)
    }
}

/// What a server draws for a key, in (0, 1): never 0 and never 1. Both are well mixed, so one long multiplication, folded,
/// is enough.
#[inline(always)]
fn draw(key: u64, seed: u64) -> f64 {
    let product = u128::from(key ^ seed) * u128::from(seed.rotate_left(32) | 1);
    let draw = product as u64 ^ (product >> 64) as u64;
    // The signed conversion is the one that processors have.
    ((draw >> 12) as i64 as f64 + 0.5) / (1u64 << 52) as f64
}
