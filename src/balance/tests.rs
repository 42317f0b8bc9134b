//! Distribution, disruption and the odd cases, for every scheduler.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::model::rule::Key;

/// Servers as plain data.
struct Farm {
    weights: Vec<u32>,
    loads: Vec<u32>,
    closed: Vec<usize>,
    /// Seeds, so that a server keeps its own when another leaves.
    names: Vec<u64>,
}

impl Farm {
    fn of(weights: &[u32]) -> Farm {
        let names = (0..weights.len() as u64).collect();
        Farm { weights: weights.to_vec(), loads: vec![0; weights.len()], closed: Vec::new(), names }
    }

    fn balancer(&self, scheduler: &Scheduler) -> Balancer {
        let shares: Vec<Share> =
            (0..self.len()).map(|i| Share { weight: self.weights[i], seed: self.seed(i) }).collect();
        Balancer::new(scheduler, &shares)
    }

    fn without(&self, server: usize) -> Farm {
        let mut farm = Farm {
            weights: self.weights.clone(),
            loads: self.loads.clone(),
            closed: Vec::new(),
            names: self.names.clone(),
        };
        farm.weights.remove(server);
        farm.loads.remove(server);
        farm.names.remove(server);
        farm
    }

    fn counts(&self, scheduler: &Scheduler, picks: u64) -> Vec<u64> {
        let balancer = self.balancer(scheduler);
        let mut counts = vec![0; self.len()];
        (0..picks).filter_map(|ticket| balancer.pick(self, ticket, None)).for_each(|i| counts[i] += 1);
        counts
    }

    fn sequence(&self, scheduler: &Scheduler, picks: u64) -> String {
        let balancer = self.balancer(scheduler);
        (0..picks).filter_map(|t| balancer.pick(self, t, None)).map(|i| char::from(b'A' + i as u8)).collect()
    }
}

impl View for Farm {
    fn len(&self) -> usize {
        self.weights.len()
    }
    fn weight(&self, server: usize) -> u32 {
        self.weights[server]
    }
    fn load(&self, server: usize) -> u32 {
        self.loads[server]
    }
    fn seed(&self, server: usize) -> u64 {
        hash_bytes(&self.names[server].to_le_bytes())
    }
    fn open(&self, server: usize) -> bool {
        !self.closed.contains(&server)
    }
}

fn every() -> Vec<Scheduler> {
    let key = || Key::Path;
    vec![
        Scheduler::Rr,
        Scheduler::Wrr,
        Scheduler::Lc,
        Scheduler::Wlc,
        Scheduler::Random,
        Scheduler::Hash { key: key() },
        Scheduler::Mh { key: key() },
        Scheduler::Unbuilt { word: "sed" },
    ]
}

fn hash() -> Scheduler {
    Scheduler::Hash { key: Key::Path }
}

fn mh() -> Scheduler {
    Scheduler::Mh { key: Key::Path }
}

/// Every share is within `percent` of the picks of what the weights ask for.
fn assert_shares(farm: &Farm, scheduler: &Scheduler, percent: f64) {
    let picks = 20_000;
    let total: u32 = farm.weights.iter().sum();
    for (server, count) in farm.counts(scheduler, picks).into_iter().enumerate() {
        let wanted = f64::from(farm.weights[server]) / f64::from(total) * 100.0;
        let got = count as f64 / picks as f64 * 100.0;
        assert!((wanted - got).abs() <= percent, "{scheduler:?} server {server}: wanted {wanted:.2} %, got {got:.2} %");
    }
}

#[test]
fn nothing_to_choose_from() {
    for scheduler in every() {
        for farm in [Farm::of(&[]), Farm::of(&[0]), Farm::of(&[0, 0, 0])] {
            let balancer = farm.balancer(&scheduler);
            assert_eq!(balancer.pick(&farm, 7, None), None, "{scheduler:?}");
            assert_eq!(balancer.pick(&farm, 7, Some(7)), None, "{scheduler:?}");
        }
    }
}

#[test]
fn one_server_takes_all() {
    for scheduler in every() {
        assert_eq!(Farm::of(&[3]).counts(&scheduler, 50), [50], "{scheduler:?}");
        assert_eq!(Farm::of(&[0, 3, 0]).counts(&scheduler, 50), [0, 50, 0], "{scheduler:?}");
    }
}

#[test]
fn rr_goes_round_and_ignores_weights() {
    assert_eq!(Farm::of(&[9, 1, 5]).sequence(&Scheduler::Rr, 7), "ABCABCA");
    assert_eq!(Farm::of(&[1, 0, 1]).counts(&Scheduler::Rr, 300)[1], 0);
}

#[test]
fn wrr_is_spread_out() {
    assert_eq!(Farm::of(&[5, 1, 1]).sequence(&Scheduler::Wrr, 7), "AABACAA");
    assert_eq!(Farm::of(&[2, 2]).sequence(&Scheduler::Wrr, 4), "ABAB");
    assert_eq!(Farm::of(&[40, 30, 20]).counts(&Scheduler::Wrr, 900), [400, 300, 200]);
}

#[test]
fn wrr_rounds_are_bounded() {
    let farm = Farm::of(&[1_000_003, 500_009, 1]);
    let Balancer::Wrr(order) = farm.balancer(&Scheduler::Wrr) else { panic!("not wrr") };
    assert!(order.places().len() <= 4096 + 3, "{} places", order.places().len());
    assert_shares(&farm, &Scheduler::Wrr, 0.1);
    assert!(farm.counts(&Scheduler::Wrr, 5_000)[2] > 0, "the light one must not starve");
}

#[test]
fn weights_are_kept() {
    for weights in [&[1, 1, 1, 1][..], &[4, 3, 2], &[10, 0, 1], &[100, 1]] {
        let farm = Farm::of(weights);
        for scheduler in [Scheduler::Wrr, Scheduler::Wlc] {
            assert_shares(&farm, &scheduler, 0.1);
        }
        for scheduler in [Scheduler::Random, hash()] {
            assert_shares(&farm, &scheduler, 1.5);
        }
        assert_shares(&farm, &mh(), 2.0);
    }
}

#[test]
fn least_loaded_wins() {
    let mut farm = Farm::of(&[1, 4, 1]);
    farm.loads = vec![3, 8, 2];
    for ticket in 0..9 {
        assert_eq!(farm.balancer(&Scheduler::Lc).pick(&farm, ticket, None), Some(2));
        // 8 / 4 = 2 / 1: a tie, broken by whose turn it is; 3 / 1 never.
        assert_ne!(farm.balancer(&Scheduler::Wlc).pick(&farm, ticket, None), Some(0));
    }
    farm.loads[1] = 7;
    assert!((0..9).all(|t| farm.balancer(&Scheduler::Wlc).pick(&farm, t, None) == Some(1)));
}

#[test]
fn ties_do_not_go_to_the_first() {
    assert_eq!(Farm::of(&[1; 5]).counts(&Scheduler::Lc, 500), [100; 5]);
    assert_eq!(Farm::of(&[1; 5]).counts(&Scheduler::Wlc, 500), [100; 5]);
    assert_eq!(Farm::of(&[3, 1]).counts(&Scheduler::Wlc, 400), [300, 100]);
}

#[test]
fn a_large_pool_is_sampled_and_still_balanced() {
    let mut farm = Farm::of(&[1; 500]);
    for scheduler in [Scheduler::Lc, Scheduler::Wlc] {
        farm.loads.fill(0);
        let balancer = farm.balancer(&scheduler);
        for ticket in 0..10_000 {
            if let Some(server) = balancer.pick(&farm, ticket, None) {
                farm.loads[server] += 1;
            }
        }
        let (least, most) = (farm.loads.iter().min(), farm.loads.iter().max());
        assert!(least >= Some(&18) && most <= Some(&22), "{scheduler:?}: {least:?} to {most:?}, wanted 20");
        // All but one closed: it is found although no sample may hit it.
        farm.closed = (0..499).collect();
        assert!((0..50).all(|t| balancer.pick(&farm, t, None) == Some(499)));
        farm.closed.clear();
    }
}

#[test]
fn rendezvous_moves_only_the_keys_of_the_one_that_left() {
    let farm = Farm::of(&[1, 2, 3, 1, 5]);
    let (before, after) = (farm.balancer(&hash()), farm.without(2));
    let rest = after.balancer(&hash());
    for key in (0..5_000).map(mix) {
        let old = before.pick(&farm, 0, Some(key)).map(|i| farm.names[i]);
        let new = rest.pick(&after, 0, Some(key)).map(|i| after.names[i]);
        assert!(old == new || old == Some(2), "key {key} moved from {old:?} to {new:?}");
    }
}

#[test]
fn rendezvous_with_a_changed_weight_moves_keys_only_to_that_server() {
    let (farm, mut heavier) = (Farm::of(&[1, 1, 1]), Farm::of(&[1, 1, 1]));
    heavier.weights[1] = 3;
    for key in (0..5_000).map(mix) {
        let (old, new) = (hash::pick(&farm, key), hash::pick(&heavier, key));
        assert!(old == new || new == Some(1));
    }
}

#[test]
fn maglev_moves_few_other_keys() {
    let farm = Farm::of(&[1; 10]);
    let after = farm.without(4);
    let (before, rest) = (farm.balancer(&mh()), after.balancer(&mh()));
    let keys = 20_000;
    let moved = (0..keys).map(mix).filter(|&key| {
        let old = before.pick(&farm, 0, Some(key)).map(|i| farm.names[i]);
        old != Some(4) && old != rest.pick(&after, 0, Some(key)).map(|i| after.names[i])
    });
    let moved = moved.count();
    assert!(moved < keys as usize * 4 / 100, "{moved} of {keys} keys moved that need not");
}

#[test]
fn maglev_fills_its_table_in_proportion() {
    for weights in [&[1; 10][..], &[4, 3, 2], &[1000, 1, 500], &[1; 300]] {
        let shares: Vec<Share> =
            weights.iter().enumerate().map(|(i, &weight)| Share { weight, seed: hash_bytes(&[i as u8, 9]) }).collect();
        let table = maglev::Table::new(&shares);
        let mut slots = HashMap::<u32, u32>::new();
        table.slots().iter().for_each(|&server| *slots.entry(server).or_default() += 1);
        let total: u32 = weights.iter().sum();
        for (server, &weight) in weights.iter().enumerate() {
            let wanted = table.slots().len() as f64 * f64::from(weight) / f64::from(total);
            let got = f64::from(slots.get(&(server as u32)).copied().unwrap_or(0));
            assert!((wanted - got).abs() <= 2.0, "{weights:?}[{server}]: wanted {wanted}, got {got}");
        }
    }
}

#[test]
fn a_key_keeps_its_server_and_its_second_choice() {
    for scheduler in every() {
        let mut farm = Farm::of(&[2, 1, 1, 3]);
        let balancer = farm.balancer(&scheduler);
        let first = balancer.pick(&farm, 1, Some(42));
        assert!((0..20).all(|ticket| balancer.pick(&farm, ticket, Some(42)) == first), "{scheduler:?}");
        farm.closed.extend(first);
        let second = balancer.pick(&farm, 1, Some(42));
        assert_ne!(first, second);
        assert!((0..20).all(|ticket| balancer.pick(&farm, ticket, Some(42)) == second), "{scheduler:?}");
    }
}

#[test]
fn hashes_are_fixed_for_good() {
    // Were they to change, every cache behind a hash pool would go cold at an upgrade.
    // The FNV-1a values are those of its authors' test vectors.
    assert_eq!(hash_bytes(b"a"), mix(0xaf63_dc4c_8601_ec8c));
    assert_eq!(hash_bytes(b"foobar"), mix(0x8594_4171_f739_67e8));
    assert_eq!(mix(0), 0xe220_a839_7b1d_cdaf);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the weights, loads and closed servers: the choice is usable, and there is one exactly when
    /// a usable server exists.
    #[test]
    fn a_choice_is_always_usable(
        servers in prop::collection::vec((0u32..50, 0u32..1000, prop::bool::ANY), 0..200),
        ticket: u64,
        key: Option<u64>,
    ) {
        let mut farm = Farm::of(&servers.iter().map(|s| s.0).collect::<Vec<_>>());
        farm.loads = servers.iter().map(|s| s.1).collect();
        farm.closed = servers.iter().enumerate().filter(|(_, s)| s.2).map(|(i, _)| i).collect();
        let any = (0..farm.len()).any(|i| farm.usable(i));
        for scheduler in every() {
            let pick = farm.balancer(&scheduler).pick(&farm, ticket, key);
            prop_assert_eq!(pick.is_some(), any, "{:?}", scheduler);
            prop_assert!(pick.is_none_or(|i| farm.usable(i)), "{:?}", scheduler);
        }
    }

    /// A round of wrr holds every server as often as its weight says.
    #[test]
    fn a_round_is_exact(weights in prop::collection::vec(0u32..60, 1..40)) {
        let total: u32 = weights.iter().sum();
        let counts = Farm::of(&weights).counts(&Scheduler::Wrr, u64::from(total));
        prop_assert_eq!(counts, weights.iter().map(|&w| u64::from(w)).collect::<Vec<_>>());
    }

    /// Extreme weights neither overflow nor stall.
    #[test]
    fn extreme_weights(weights in prop::collection::vec(prop_oneof![Just(0), Just(1), Just(u32::MAX)], 1..20), key: u64) {
        let farm = Farm::of(&weights);
        for scheduler in every() {
            let pick = farm.balancer(&scheduler).pick(&farm, key, Some(key));
            prop_assert_eq!(pick.is_some(), weights.iter().any(|&w| w > 0));
        }
    }
}
