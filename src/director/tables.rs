//! What schedulers go by, worked out as IPVS works it out: the tables of sh, dh and mh, and the numbers of wrr.
//!
//! Servers are always in the order of IPVS's list: the newest first.

use std::hash::Hasher;
use std::net::SocketAddr;

use siphasher::sip::SipHasher13;

/// Buckets of sh and dh.
pub const BUCKETS: usize = 256;
/// Slots of mh: IPVS's size where its build says nothing else (`CONFIG_IP_VS_MH_TAB_INDEX` 12).
pub const SLOTS: u32 = 4093;
/// Half of that option: weights beyond so many bits lose their last ones.
const WEIGHT_BITS: u32 = 6;

const KEY1: u64 = 2_654_435_761;
const KEY2: u64 = 2_654_446_892;

/// dh: servers in turn, weights aside. Positions in the list.
pub fn dh(servers: usize) -> Vec<usize> {
    if servers == 0 { Vec::new() } else { (0..BUCKETS).map(|bucket| bucket % servers).collect() }
}

/// sh: servers in turn, each as many buckets in a row as its weight; one that has none still takes one.
pub fn sh(weights: &[u32]) -> Vec<usize> {
    let mut buckets = Vec::with_capacity(BUCKETS);
    let mut servers = weights.iter().enumerate().cycle();
    while buckets.len() < BUCKETS
        && let Some((server, weight)) = servers.next()
    {
        let row = (*weight).max(1) as usize;
        buckets.extend(std::iter::repeat_n(server, row.min(BUCKETS - buckets.len())));
    }
    buckets
}

/// A server as mh sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    pub address: SocketAddr,
    /// Its last weight that was not 0: one that is drained keeps its slots. 0: it never had one.
    pub weight: u32,
}

/// mh: each server walks the slots in an order of its own and takes free ones in turn. `None`: nobody's.
pub fn mh(servers: &[Share]) -> Vec<Option<usize>> {
    let common = servers.iter().fold(0, |common, server| gcd(common, server.weight)).max(1);
    let most = servers.iter().map(|server| server.weight / common).max().unwrap_or(0);
    let shift = (u32::BITS - most.leading_zeros()).saturating_sub(WEIGHT_BITS);
    let mut slots = vec![None; SLOTS as usize];
    let mut walkers: Vec<(usize, u32, u32, u32)> = servers
        .iter()
        .enumerate()
        .filter(|(_, server)| server.weight > 0)
        .map(|(at, server)| {
            let (start, skip) = walk(server.address);
            (at, start, skip, ((server.weight / common) >> shift).max(1))
        })
        .collect();
    if walkers.is_empty() {
        return slots;
    }
    let mut left = SLOTS;
    loop {
        for (server, slot, skip, turns) in &mut walkers {
            for _ in 0..*turns {
                while slots[*slot as usize].is_some() {
                    *slot = (*slot + *skip) % SLOTS;
                }
                slots[*slot as usize] = Some(*server);
                left -= 1;
                if left == 0 {
                    return slots;
                }
            }
        }
    }
}

/// Where a server begins, and by how much it goes on.
fn walk(server: SocketAddr) -> (u32, u32) {
    (hash(KEY1, server) % SLOTS, hash(KEY2, server) % (SLOTS - 1) + 1)
}

fn hash(key: u64, server: SocketAddr) -> u32 {
    let folded = match server {
        SocketAddr::V4(server) => server.ip().to_bits(),
        SocketAddr::V6(server) => {
            let bits = server.ip().to_bits();
            (0..4).fold(0, |folded, word| folded ^ (bits >> (word * 32)) as u32)
        }
    };
    let mut hasher = SipHasher13::new_with_keys(key, key);
    hasher.write(&folded.wrapping_add(u32::from(server.port())).to_le_bytes());
    hasher.finish() as u32
}

/// What wrr goes by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wrr {
    /// The greatest common divisor of the weights that are not 0; 1 where all are.
    pub step: u32,
    /// The greatest weight less (`step` - 1).
    pub top: u32,
}

impl Wrr {
    pub fn of(weights: impl Iterator<Item = u32> + Clone) -> Wrr {
        let step = weights.clone().fold(0, gcd).max(1);
        let most = weights.max().unwrap_or(0);
        Wrr { step, top: most.saturating_sub(step - 1) }
    }

    /// Where the level is after a server came, changed or went: IPVS keeps it, so that a change does not begin a new round.
    pub fn level(self, level: u32) -> u32 {
        if level > self.top || level == 0 {
            self.top
        } else if self.step > 1 {
            level / self.step * self.step + 1
        } else {
            level
        }
    }
}

fn gcd(one: u32, other: u32) -> u32 {
    if other == 0 { one } else { gcd(other, one % other) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_those_of_ipvs() {
        let names = |buckets: Vec<usize>| buckets.into_iter().map(|at| b"CBA"[at] as char).collect::<String>();
        // Added in the order A (weight 1), B (2), C (3).
        assert!(names(sh(&[3, 2, 1])).starts_with("CCCBBACCCBBACCCB"));
        assert!(names(dh(3)).starts_with("CBACBA"));
        assert_eq!(names(sh(&[0, 2, 1])).get(..8), Some("CBBACBBA"));
        assert_eq!((sh(&[]).len(), dh(0).len(), sh(&[9000]).len()), (0, 0, BUCKETS));
    }

    #[test]
    fn maglev_is_that_of_ipvs() {
        let address = |text: &str| text.parse().unwrap();
        for (server, start, skip) in
            [("10.0.0.1:80", 3167, 700), ("10.0.0.2:80", 1231, 3544), ("10.0.0.3:80", 1631, 3453)]
        {
            assert_eq!(walk(address(server)), (start, skip), "{server}");
        }
        let share = |text: &str, weight| Share { address: address(text), weight };
        let list = [share("10.0.0.3:80", 1), share("10.0.0.2:80", 1), share("10.0.0.1:80", 1)];
        let slots = mh(&list);
        let count = |server| slots.iter().filter(|slot| **slot == Some(server)).count();
        assert_eq!((count(0), count(1), count(2)), (1365, 1364, 1364));
        let client = |text: &str| hash(KEY1, address(text)) % SLOTS;
        for (client, slot) in [(client("203.0.113.5:0"), 3219), (client("203.0.113.6:0"), 2905)] {
            assert_eq!((client, slots[slot as usize]), (slot, Some(0)));
        }
        assert!(mh(&[share("10.0.0.1:80", 0)]).iter().all(Option::is_none));
        let heavy = mh(&[share("10.0.0.3:80", 3000), share("10.0.0.2:80", 1000)]);
        let first = heavy.iter().filter(|slot| **slot == Some(0)).count();
        assert!((3069..=3070).contains(&first), "{first}");
    }

    /// wrr as the kernel's program walks it: from `next` on, those of at least the level; at the end, one level down.
    fn picks(weights: &[u32], wrr: Wrr, mut level: u32, count: usize) -> String {
        let (mut next, mut out) = (0, String::new());
        while out.len() < count {
            if next >= weights.len() {
                next = 0;
                level = if level <= wrr.step { wrr.top } else { level - wrr.step };
            }
            if weights[next] >= level {
                out.push(b"CBA"[next] as char);
            }
            next += 1;
        }
        out
    }

    #[test]
    fn wrr_begins_where_ipvs_does() {
        for (weights, sequence) in [
            ([4, 3, 2], "CBAABACBACBAABACBACBAABA"),
            ([1, 1, 1], "CBACBACBACBACBACBACBACBA"),
            ([5, 1, 1], "CBAAAAACBAAAAACBAAAAACBA"),
            ([30, 20, 10], "CBAABACBAABACBAABACBAABA"),
            ([1, 0, 2], "CACCACCACCACCACCACCACCAC"),
        ] {
            // Added one after another: A, B, C.
            let (mut list, mut level) = (Vec::new(), 0);
            for weight in weights {
                list.insert(0, weight);
                level = Wrr::of(list.iter().copied()).level(level);
            }
            let wrr = Wrr::of(list.iter().copied());
            assert_eq!(picks(&list, wrr, level, 24), sequence, "{weights:?}");
        }
    }
}
