//! The shortest time to answer, lately, for what it has in hand and its weight.
//!
//! The time is a moving average that fades while nobody asks ([`View::delay`]): a server that was slow once is asked again.
//! One that nothing is known of counts as the average of the others. Up to 32 servers all are looked at, above the
//! best of 16 is taken: all cores would run after the same one.

use super::least::SAMPLE;
use super::{View, below, first_usable, mix, scale};

/// Up to here the choice is exact.
const EXACT: usize = 32;

pub fn pick(view: &impl View, ticket: u64) -> Option<usize> {
    let length = view.len();
    let start = below(ticket, length)?;
    if length <= EXACT {
        return shortest(view, (start..length).chain(0..start));
    }
    let dice = mix(ticket);
    let others = (1..SAMPLE).map(|throw| scale(mix(dice ^ throw), length as u64) as usize);
    shortest(view, std::iter::once(start).chain(others)).or_else(|| first_usable(view, start))
}

/// What is least for its weight, so far.
#[derive(Clone, Copy)]
struct Least {
    server: Option<usize>,
    cost: f64,
    weight: f64,
}

impl Least {
    const NONE: Least = Least { server: None, cost: f64::INFINITY, weight: 1.0 };

    fn look(&mut self, server: usize, cost: f64, weight: f64) {
        if cost * self.weight < self.cost * weight {
            *self = Least { server: Some(server), cost, weight };
        }
    }
}

fn shortest(view: &impl View, servers: impl Iterator<Item = usize>) -> Option<usize> {
    // Of the others, whose time is not known, the least loaded is the one to compare.
    let (mut known, mut unknown) = (Least::NONE, Least::NONE);
    let (mut sum, mut count) = (0u64, 0u64);
    servers.for_each(|server| {
        let (Some(load), weight) = (view.available(server), view.weight(server)) else { return };
        if weight == 0 {
            return;
        }
        // Exact enough: what is compared differs by far more than a float rounds off.
        let (load, weight) = (f64::from(load) + 1.0, f64::from(weight));
        match view.delay(server) {
            0 => unknown.look(server, load, weight),
            delay => {
                (sum, count) = (sum + delay, count + 1);
                known.look(server, delay as f64 * load, weight);
            }
        }
    });
    if let Some(server) = unknown.server {
        let average = (sum / count.max(1)).max(1);
        known.look(server, unknown.cost * average as f64, unknown.weight);
    }
    known.server
}
