//! Weighted round robin: in proportion to the weights, and spread out.
//!
//! One whole round is computed beforehand the way nginx does it (`a a b a c a a`, not `a a a a a b c`), so
//! that a pick is one look into a list.

use super::{Share, View, below};

/// Places in a round at most, besides one for each server. Weights that need more are scaled down; the
/// shares are then off by less than one place each.
const ROUND: u64 = 4096;

/// One round: positions of servers, each as often as its weight asks.
#[derive(Debug)]
pub struct Order(Vec<u32>);

impl Order {
    pub fn new(shares: &[Share]) -> Order {
        let weights = places(shares);
        let total: i64 = weights.iter().sum();
        let mut current = vec![0i64; weights.len()];
        let mut order = Vec::with_capacity(usize::try_from(total).unwrap_or(0));
        // Smooth weighted round robin: everyone gains its weight, the richest is chosen and pays for all.
        for _ in 0..total {
            let mut best = None;
            for (server, (have, &weight)) in current.iter_mut().zip(&weights).enumerate() {
                *have += weight;
                if weight > 0 && best.is_none_or(|(_, most)| *have > most) {
                    best = Some((server, *have));
                }
            }
            if let Some((server, _)) = best {
                current[server] -= total;
                order.push(server as u32);
            }
        }
        Order(order)
    }

    /// The servers' positions, turn by turn.
    #[cfg(test)]
    pub(super) fn places(&self) -> &[u32] {
        &self.0
    }

    /// Whose turn it is, usable or not.
    pub(super) fn at(&self, ticket: u64) -> Option<usize> {
        below(ticket, self.0.len()).map(|place| self.0[place] as usize)
    }

    pub fn pick(&self, view: &impl View, ticket: u64) -> Option<usize> {
        let start = below(ticket, self.0.len())?;
        let (before, after) = self.0.split_at(start);
        after.iter().chain(before).map(|&server| server as usize).find(|&server| view.usable(server))
    }
}

/// The weights divided by what they have in common, and scaled down where a round would be too long. A
/// weight above 0 keeps at least one place.
fn places(shares: &[Share]) -> Vec<i64> {
    let common = shares.iter().fold(0, |common, share| gcd(common, u64::from(share.weight))).max(1);
    let total: u64 = shares.iter().map(|share| u64::from(share.weight) / common).sum();
    let place = |share: &Share| match u64::from(share.weight) / common {
        0 => 0,
        weight if total <= ROUND => weight as i64,
        weight => ((u128::from(weight) * u128::from(ROUND) / u128::from(total)) as i64).max(1),
    };
    shares.iter().map(place).collect()
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}
