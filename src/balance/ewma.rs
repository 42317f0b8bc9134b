//! The shortest time to answer, lately, for what it has in hand and its weight.
//!
//! The time is a moving average that fades while nobody asks ([`View::delay`]): a server that was slow once is asked again.
//! One that nothing is known of counts as the average of the others. Up to [`EXACT`] servers all are looked at, above the
//! best of [`SAMPLE`] is taken.

use super::least::{EXACT, SAMPLE};
use super::{View, below, first_usable, mix, scale};

pub fn pick(view: &impl View, ticket: u64) -> Option<usize> {
    let length = view.len();
    let start = below(ticket, length)?;
    if length <= EXACT {
        let all = || (start..length).chain(0..start);
        return shortest(view, all);
    }
    let dice = mix(ticket);
    let sample = || {
        let others = (1..SAMPLE).map(move |throw| scale(mix(dice ^ throw), length as u64) as usize);
        std::iter::once(start).chain(others)
    };
    shortest(view, sample).or_else(|| first_usable(view, start))
}

fn shortest<I: Iterator<Item = usize>>(view: &impl View, servers: impl Fn() -> I) -> Option<usize> {
    let mut best: Option<(usize, f64, f64)> = None;
    let mut unknown = false;
    let (mut sum, mut count) = (0u64, 0u64);
    let look = |server: usize, delay: u64, best: &mut Option<(usize, f64, f64)>| {
        // Exact enough: what is compared differs by far more than a float rounds off.
        let cost = delay.max(1) as f64 * (f64::from(view.load(server)) + 1.0);
        let weight = f64::from(view.weight(server));
        if best.is_none_or(|(_, least, of)| cost * of < least * weight) {
            *best = Some((server, cost, weight));
        }
    };
    for server in servers().filter(|&server| view.usable(server)) {
        match view.delay(server) {
            0 => unknown = true,
            delay => {
                (sum, count) = (sum + delay, count + 1);
                look(server, delay, &mut best);
            }
        }
    }
    if unknown {
        let average = sum / count.max(1);
        for server in servers().filter(|&server| view.delay(server) == 0 && view.usable(server)) {
            look(server, average, &mut best);
        }
    }
    best.map(|(server, ..)| server)
}
