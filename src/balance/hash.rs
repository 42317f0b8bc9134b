//! Rendezvous hashing: the same key goes to the same server, and when one leaves only its keys move.
//!
//! Every server draws a number from the key and its own seed; the best draw wins. With draws `u` in (0, 1)
//! the smallest `-ln(u) / weight` belongs to each server in proportion to its weight, and changing one
//! weight moves keys only to or from that server. A server that is not usable is left out, which makes
//! the next best the same for every request of that key.

use super::{View, mix};

pub fn pick(view: &impl View, key: u64) -> Option<usize> {
    let key = mix(key);
    let mut best: Option<(usize, u64, u32)> = None;
    for server in (0..view.len()).filter(|&server| view.usable(server)) {
        let (draw, weight) = (draw(key, view.seed(server)), view.weight(server));
        if best.is_none_or(|(_, most, of)| beats((draw, weight), (most, of))) {
            best = Some((server, draw, weight));
        }
    }
    best.map(|(server, ..)| server)
}

/// The best of a key and its next best, where there is one.
pub(super) fn two(view: &impl View, key: u64) -> Option<(usize, Option<usize>)> {
    let key = mix(key);
    let (mut first, mut second) = (None, None);
    for server in (0..view.len()).filter(|&server| view.usable(server)) {
        let new = (server, draw(key, view.seed(server)), view.weight(server));
        let over = |old: Option<(usize, u64, u32)>| old.is_none_or(|(_, most, of)| beats((new.1, new.2), (most, of)));
        if over(first) {
            (first, second) = (Some(new), first);
        } else if over(second) {
            second = Some(new);
        }
    }
    first.map(|(first, ..)| (first, second.map(|(second, ..)| second)))
}

/// What a server draws for a key. Both are well mixed, so one long multiplication, folded, is enough.
fn draw(key: u64, seed: u64) -> u64 {
    let product = u128::from(key ^ seed) * u128::from(seed.rotate_left(32) | 1);
    product as u64 ^ (product >> 64) as u64
}

/// Logarithms are taken only where weights differ and neither draw settles it.
fn beats((draw, weight): (u64, u32), (most, of): (u64, u32)) -> bool {
    if weight == of {
        draw > most
    } else if weight > of && draw >= most {
        true
    } else if weight < of && draw <= most {
        false
    } else {
        cost(draw) * f64::from(of) < cost(most) * f64::from(weight)
    }
}

/// `-ln` of the draw as a number in (0, 1): never 0, never infinite.
fn cost(draw: u64) -> f64 {
    let unit = ((draw >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    -unit.ln()
}
