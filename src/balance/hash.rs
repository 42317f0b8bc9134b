//! Rendezvous hashing: the same key goes to the same server, and when one leaves only its keys move.
//!
//! Every server draws a number from the key and its own seed; the best draw wins. With draws `u` in (0, 1)
//! the smallest `-ln(u) / weight` belongs to each server in proportion to its weight, and changing one
//! weight moves keys only to or from that server. A server that is not usable is left out, which makes
//! the next best the same for every request of that key.

use super::{View, mix};

pub fn pick(view: &impl View, key: u64) -> Option<usize> {
    let among_all = if is_even(view) { best_two_of_even(view, key).0 } else { best(view, key, |_| true) };
    // Whether a server is usable, other cores write all the time: it is asked of the best alone, as long as that one is.
    match among_all {
        Some(first) if !view.usable(first) => best(view, key, |server| view.usable(server)),
        first => first,
    }
}

/// The best of a key and its next best, where there is one.
pub(super) fn two(view: &impl View, key: u64) -> Option<(usize, Option<usize>)> {
    let among_all = if is_even(view) {
        let (first, second) = best_two_of_even(view, key);
        (first?, second)
    } else {
        best_two(view, key, |_| true)?
    };
    match among_all {
        (first, second) if view.usable(first) && second.is_none_or(|second| view.usable(second)) => {
            Some((first, second))
        }
        _ => best_two(view, key, |server| view.usable(server)),
    }
}

/// Whether all weigh the same, so that the greatest draw wins.
fn is_even(view: &impl View) -> bool {
    view.heaviest() == view.lightest() && view.len() <= PLACES as usize
}

/// Those of the two greatest draws. Where the greatest so far is passed nobody can foretell, and each wrong guess of the processor
/// would cost as much as twenty servers: a draw and whose it is are one number, and there is no branch.
#[inline(always)]
fn best_two_of_even(view: &impl View, key: u64) -> (Option<usize>, Option<usize>) {
    let key = mix(key);
    // 0 is nobody's: the last place is 1.
    let (mut first, mut second) = (0, 0);
    for server in 0..view.len() {
        let drawn = draw(key, view.seed(server)) * (PLACES + 1) + (PLACES - server as u64);
        second = second.max(first.min(drawn));
        first = first.max(drawn);
    }
    let server = |drawn: u64| (drawn > 0).then(|| (PLACES - drawn % (PLACES + 1)) as usize);
    (server(first), server(second))
}

/// Servers that can be told apart beside a draw of 52 bits.
const PLACES: u64 = (1 << 12) - 1;

#[inline(always)]
fn best(view: &impl View, key: u64, takes: impl Fn(usize) -> bool) -> Option<usize> {
    let (key, heaviest) = (mix(key), view.heaviest());
    let mut best = Best::default();
    for server in 0..view.len() {
        let draw = draw(key, view.seed(server));
        if draw < best.floor || !takes(server) {
            continue;
        }
        let weight = f64::from(view.weight(server));
        if let Some(cost) = best.beaten_by(draw, weight) {
            best = Best::new(server, cost, weight, heaviest);
        }
    }
    best.server
}

#[inline(always)]
fn best_two(view: &impl View, key: u64, takes: impl Fn(usize) -> bool) -> Option<(usize, Option<usize>)> {
    let (key, heaviest) = (mix(key), view.heaviest());
    let (mut first, mut second) = (Best::default(), Best::default());
    for server in 0..view.len() {
        let draw = draw(key, view.seed(server));
        if draw < second.floor || !takes(server) {
            continue;
        }
        let weight = f64::from(view.weight(server));
        if let Some(cost) = second.beaten_by(draw, weight) {
            second = Best::new(server, cost, weight, heaviest);
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
    /// Who draws less costs more, whatever it weighs.
    floor: u64,
}

impl Default for Best {
    fn default() -> Best {
        Best { server: None, cost: f64::INFINITY, weight: 1.0, floor: 0 }
    }
}

impl Best {
    /// `-ln(u)` is never less than `1 - u`, so that nearly all others are settled by comparing what they drew with a floor.
    #[inline(always)]
    fn new(server: usize, cost: f64, weight: f64, heaviest: u32) -> Best {
        let floor = 1.0 - cost / weight * f64::from(heaviest);
        // Below 0 it is 0; two less, for it was rounded.
        Best { server: Some(server), cost, weight, floor: ((floor * DRAWS) as u64).saturating_sub(2) }
    }

    /// What another one costs, where that is less for its weight.
    #[inline(always)]
    fn beaten_by(&self, draw: u64, weight: f64) -> Option<f64> {
        let cost = -((draw as f64 + 0.5) / DRAWS).ln();
        (cost * self.weight < self.cost * weight).then_some(cost)
    }
}

/// How many draws there are.
const DRAWS: f64 = (1_u64 << 52) as f64;

/// What a server draws for a key; half a step above it, it is in (0, 1), and never 0 or 1. Both are well mixed, so one long
/// multiplication, folded, is enough.
#[inline(always)]
fn draw(key: u64, seed: u64) -> u64 {
    let product = u128::from(key ^ seed) * u128::from(seed.rotate_left(32) | 1);
    (product as u64 ^ (product >> 64) as u64) >> 12
}
