//! 256 buckets of keys, as IPVS has them for `sh` and `dh`: one look finds the server, and most keys move when servers come
//! or go.
//!
//! Servers take buckets in turn, for `sh` as many in a row as their weight says. A key whose server is not usable goes on
//! from bucket to bucket, as IPVS does with `sh-fallback`.

use super::{Share, View, first_usable};

const BUCKETS: usize = 256;

#[derive(Debug)]
pub struct Buckets(Vec<u32>);

impl Buckets {
    /// `sh`.
    pub fn by_weight(shares: &[Share]) -> Buckets {
        let mut servers = (0u32..).zip(shares).cycle();
        let mut buckets = Vec::with_capacity(BUCKETS);
        while buckets.len() < BUCKETS
            && let Some((server, share)) = servers.next()
        {
            let row = (share.weight.max(1) as usize).min(BUCKETS - buckets.len());
            buckets.extend(std::iter::repeat_n(server, row));
        }
        Buckets(buckets)
    }

    /// `dh`.
    pub fn in_turn(shares: &[Share]) -> Buckets {
        let servers = u32::try_from(shares.len()).unwrap_or(u32::MAX);
        Buckets(if servers == 0 { Vec::new() } else { (0..BUCKETS as u32).map(|bucket| bucket % servers).collect() })
    }

    pub fn pick(&self, view: &impl View, key: u64) -> Option<usize> {
        if self.0.is_empty() {
            return None;
        }
        let first = bucket((key ^ (key >> 32)) as u32);
        let at = |bucket: usize| self.0[bucket % BUCKETS] as usize;
        if view.usable(at(first)) {
            return Some(at(first));
        }
        // The offset that is tried is the first bucket's own number and on, added to it.
        let others = (0..BUCKETS).map(|offset| at((offset + first) % BUCKETS + first));
        // With more servers than buckets, some have none.
        others.into_iter().find(|&server| view.usable(server)).or_else(|| first_usable(view, at(first)))
    }
}

/// The bucket of an address: a number in the host's order, of IPv6 its four words by XOR.
fn bucket(address: u32) -> usize {
    (address.wrapping_mul(0x61C8_8647) >> 24) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(buckets: &Buckets) -> String {
        buckets.0.iter().take(16).map(|&server| char::from(b"CBA"[server as usize])).collect()
    }

    #[test]
    fn the_vectors_of_ipvs() {
        // Its list begins with what was added last: A of weight 1, then B of 2, then C of 3.
        let shares = [3, 2, 1].map(|weight| Share { weight, seed: 0 });
        assert_eq!(fill(&Buckets::by_weight(&shares)), "CCCBBACCCBBACCCB");
        assert_eq!(fill(&Buckets::in_turn(&shares)), "CBACBACBACBACBAC");
        let address = |text: &str| u32::from(text.parse::<std::net::Ipv4Addr>().unwrap());
        assert_eq!((bucket(address("203.0.113.5")), bucket(address("203.0.113.5") + 49153)), (185, 127));
        assert_eq!((bucket(address("203.0.113.6")), bucket(address("203.0.113.6") + 49153)), (26, 225));
    }
}
