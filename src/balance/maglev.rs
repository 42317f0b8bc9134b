//! Maglev hashing: the same key goes to the same server by one look into a table.
//!
//! Every server walks the table in an order of its own and takes free slots in turn, as often as its
//! weight asks (Eisenbud and others, "Maglev", NSDI 2016, §3.4). When one leaves, its keys move and about
//! one in a hundred of the others; rendezvous hashing moves none of those, but looks at every server.

use super::{Share, View, first_usable, mix, scale};

/// Sizes of the table: the first above a hundred times the servers, so that shares are even within about
/// one percent. The last one bounds memory at 4 MiB; beyond 10,485 servers shares become less even.
const SIZES: [u32; 8] = [1021, 4093, 16_381, 65_521, 131_071, 262_139, 524_287, 1_048_573];

const FREE: u32 = u32::MAX;

/// Slots, each with the position of a server. Empty when no server has a weight.
#[derive(Debug)]
pub struct Table(Vec<u32>);

impl Table {
    pub fn new(shares: &[Share]) -> Table {
        let most = shares.iter().map(|share| u64::from(share.weight)).max().unwrap_or(0);
        if most == 0 {
            return Table(Vec::new());
        }
        let size = table_size(shares.len());
        let mut walkers: Vec<Walker> = (0u32..).zip(shares).filter_map(|(i, s)| Walker::new(i, s, size)).collect();
        let mut slots = vec![FREE; size as usize];
        let mut left = size;
        // In each round the heaviest takes a slot, and a server of half its weight one every other round.
        for round in 1u64.. {
            for walker in &mut walkers {
                if round * walker.weight < walker.next_turn {
                    continue;
                }
                walker.next_turn += most;
                walker.take(&mut slots);
                left -= 1;
                if left == 0 {
                    return Table(slots);
                }
            }
        }
        Table(slots)
    }

    /// The servers' positions, slot by slot.
    #[cfg(test)]
    pub(super) fn slots(&self) -> &[u32] {
        &self.0
    }

    pub fn pick(&self, view: &impl View, key: u64) -> Option<usize> {
        if self.0.is_empty() {
            return None;
        }
        let mut hash = mix(key);
        let mut at = || {
            let server = self.0[scale(hash, self.0.len() as u64) as usize] as usize;
            hash = mix(hash);
            server
        };
        let first = at();
        if view.usable(first) {
            return Some(first);
        }
        // The next best by the same key: further looks, enough to meet a usable one with near certainty
        // when half are; where nearly all are full, the next in order.
        (0..16).map(|_| at()).find(|&server| view.usable(server)).or_else(|| first_usable(view, first))
    }
}

fn table_size(servers: usize) -> u32 {
    let wanted = (servers as u64).saturating_mul(100);
    SIZES.into_iter().find(|&size| u64::from(size) > wanted).unwrap_or(SIZES[SIZES.len() - 1])
}

/// One server's walk: since the size is prime, every step length visits every slot.
struct Walker {
    server: u32,
    weight: u64,
    next_turn: u64,
    slot: u32,
    step: u32,
}

impl Walker {
    fn new(server: u32, share: &Share, size: u32) -> Option<Walker> {
        let (slot, step) = (mix(share.seed), mix(!share.seed));
        (share.weight > 0).then(|| Walker {
            server,
            weight: u64::from(share.weight),
            next_turn: 0,
            slot: scale(slot, u64::from(size)) as u32,
            step: scale(step, u64::from(size - 1)) as u32 + 1,
        })
    }

    /// Takes the next free slot of the walk. There must be one.
    fn take(&mut self, slots: &mut [u32]) {
        while slots[self.slot as usize] != FREE {
            self.advance(slots.len() as u32);
        }
        slots[self.slot as usize] = self.server;
        self.advance(slots.len() as u32);
    }

    fn advance(&mut self, size: u32) {
        self.slot = (self.slot + self.step) % size;
    }
}
