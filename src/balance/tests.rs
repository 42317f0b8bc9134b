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
    delays: Vec<u64>,
    now: u32,
    /// Seeds, so that a server keeps its own when another leaves.
    names: Vec<u64>,
}

impl Farm {
    fn of(weights: &[u32]) -> Farm {
        let names = (0..weights.len() as u64).collect();
        Farm {
            weights: weights.to_vec(),
            loads: vec![0; weights.len()],
            closed: Vec::new(),
            delays: vec![0; weights.len()],
            now: 1,
            names,
        }
    }

    fn balancer(&self, scheduler: &Scheduler) -> Balancer {
        let shares: Vec<Share> =
            (0..self.len()).map(|i| Share { weight: self.weights[i], seed: self.seed(i) }).collect();
        Balancer::new(scheduler, &shares, None)
    }

    fn without(&self, server: usize) -> Farm {
        let mut farm = Farm {
            weights: self.weights.clone(),
            loads: self.loads.clone(),
            closed: Vec::new(),
            delays: self.delays.clone(),
            now: self.now,
            names: self.names.clone(),
        };
        farm.weights.remove(server);
        farm.loads.remove(server);
        farm.delays.remove(server);
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
    fn heaviest(&self) -> u32 {
        self.weights.iter().copied().max().unwrap_or(0)
    }
    fn lightest(&self) -> u32 {
        self.weights.iter().copied().min().unwrap_or(0)
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
    fn delay(&self, server: usize) -> u64 {
        self.delays[server]
    }
    fn now(&self) -> u32 {
        self.now
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
        Scheduler::Sed,
        Scheduler::Nq,
        Scheduler::Fo,
        Scheduler::First,
        Scheduler::Twos,
        Scheduler::Ewma,
        Scheduler::Sh { key: key() },
        Scheduler::Dh { key: key() },
        Scheduler::Lblc { key: key() },
        Scheduler::Lblcr { key: key() },
        Scheduler::Content { key: key() },
        bounded(hash(), 1.25),
        bounded(mh(), 1.0),
    ]
}

fn bounded(of: Scheduler, factor: f64) -> Scheduler {
    Scheduler::Bounded { of: Box::new(of), factor }
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

/// Draws that are passed over unread change nothing: the choice is the one of the definition, for good.
#[test]
fn rendezvous_is_the_least_logarithm_for_its_weight() {
    let cost = |farm: &Farm, key: u64, server: usize| {
        let (key, seed) = (mix(key), farm.seed(server));
        let product = u128::from(key ^ seed) * u128::from(seed.rotate_left(32) | 1);
        let draw = (product as u64 ^ (product >> 64) as u64) >> 12;
        -((draw as f64 + 0.5) / (1_u64 << 52) as f64).ln() / f64::from(farm.weights[server])
    };
    for round in 0..400 {
        let dice = |n: u64| mix(round * 1_000 + n);
        let weights: Vec<u32> = (0..1 + dice(0) % 120)
            .map(|n| (dice(n + 1) % [2, 5, 257, 1][round as usize % 4]) as u32 + (round % 8 == 3) as u32)
            .collect();
        let mut farm = Farm::of(&weights);
        farm.closed = (0..weights.len()).filter(|&n| dice(n as u64 + 500) % 4 == 0).collect();
        for key in (0..50).map(|n| dice(n + 900)) {
            let mut usable: Vec<usize> = (0..farm.len()).filter(|&server| farm.usable(server)).collect();
            usable.sort_by(|&a, &b| cost(&farm, key, a).total_cmp(&cost(&farm, key, b)));
            assert_eq!(hash::pick(&farm, key), usable.first().copied(), "{weights:?}");
            let two = usable.first().map(|first| (*first, usable.get(1).copied()));
            assert_eq!(hash::two(&farm, key), two, "{weights:?}");
        }
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
fn what_ipvs_says_of_loads_and_weights() {
    let mut farm = Farm::of(&[1, 3, 2]);
    let pick = |farm: &Farm, scheduler: &Scheduler| farm.balancer(scheduler).pick(farm, 5, None);
    // The heaviest is expected to be the fastest, and the first of several to be as good.
    assert_eq!(pick(&farm, &Scheduler::Sed), Some(1));
    assert_eq!(pick(&farm, &Scheduler::Nq), Some(0), "the first that is idle");
    assert_eq!((pick(&farm, &Scheduler::Fo), pick(&farm, &Scheduler::First)), (Some(1), Some(0)));
    // (1+1)/1, (2+1)/3, (1+1)/2: a tie of the second and the third.
    farm.loads = vec![1, 2, 1];
    assert_eq!((pick(&farm, &Scheduler::Sed), pick(&farm, &Scheduler::Nq)), (Some(1), Some(1)));
    farm.loads = vec![1, 3, 1];
    assert_eq!(pick(&farm, &Scheduler::Sed), Some(2));
    farm.loads = vec![0, 2, 1];
    assert_eq!((pick(&farm, &Scheduler::Sed), pick(&farm, &Scheduler::Nq)), (Some(0), Some(0)));
    // Full at more than its weight, not at as much.
    for (loads, wanted) in [([0, 3, 0], Some(1)), ([0, 4, 2], Some(2)), ([1, 4, 3], Some(0)), ([2, 4, 3], None)] {
        farm.loads = loads.to_vec();
        assert_eq!(pick(&farm, &Scheduler::Ovf), wanted, "{loads:?}");
    }
    farm.closed = vec![1];
    assert_eq!(pick(&farm, &Scheduler::Fo), Some(2));
    farm.closed = vec![0];
    assert_eq!(pick(&farm, &Scheduler::First), Some(1));
}

#[test]
fn the_better_of_two_keeps_loads_even_and_weights_too() {
    let mut farm = Farm::of(&[2, 1, 1, 1, 1, 1, 1, 1]);
    let balancer = farm.balancer(&Scheduler::Twos);
    for ticket in 0..9_000 {
        let server = balancer.pick(&farm, ticket, None).expect("all are usable");
        farm.loads[server] += 1;
    }
    let (first, others) = (farm.loads[0], &farm.loads[1..]);
    assert!((1_980..=2_020).contains(&first), "{:?}", farm.loads);
    assert!(others.iter().all(|load| (990..=1_010).contains(load)), "{:?}", farm.loads);
}

#[test]
fn the_fastest_is_asked_until_it_has_more_in_hand() {
    let mut farm = Farm::of(&[1, 1, 1]);
    farm.delays = vec![40, 10, 20];
    let balancer = farm.balancer(&Scheduler::Ewma);
    let pick = |farm: &mut Farm, ticket| {
        let server = balancer.pick(farm, ticket, None).expect("all are usable");
        farm.loads[server] += 1;
        server
    };
    let mut counts = [0; 3];
    (0..70).for_each(|ticket| counts[pick(&mut farm, ticket)] += 1);
    assert!((9..=11).contains(&counts[0]) && (39..=41).contains(&counts[1]), "{counts:?}: as their times ask");
    // One that nothing is known of is taken for an average one: it gets neither all nor nothing.
    farm.delays = vec![20, 20, 0];
    farm.loads = vec![5, 5, 5];
    let mut counts = [0; 3];
    (0..30).for_each(|ticket| counts[pick(&mut farm, ticket)] += 1);
    assert_eq!(counts, [10, 10, 10]);
}

#[test]
fn bounded_loads_pass_on_only_what_is_over_the_bound() {
    let mut farm = Farm::of(&[1, 1, 1, 1]);
    let (plain, tight) = (farm.balancer(&hash()), farm.balancer(&bounded(hash(), 1.25)));
    let key = 42;
    let (first, second) = hash::two(&farm, key).expect("four servers");
    assert_eq!(plain.pick(&farm, 0, Some(key)), Some(first));
    farm.loads.fill(8);
    // 1.25 times 33 / 4, rounded up, is 11.
    for (load, wanted) in [(0, Some(first)), (10, Some(first)), (13, second)] {
        farm.loads[first] = load;
        assert_eq!(tight.pick(&farm, 0, Some(key)), wanted, "{load}");
    }
    // One key for all: no server gets more than its share.
    farm.loads.fill(0);
    for _ in 0..1_000 {
        let server = tight.pick(&farm, 0, Some(key)).expect("all are usable");
        farm.loads[server] += 1;
    }
    assert!(farm.loads.iter().all(|&load| load <= 313), "{:?}", farm.loads);
}

/// Where a key goes, with the requests of each in hand from then on.
fn place(farm: &mut Farm, balancer: &Balancer, key: u64) -> usize {
    let server = balancer.pick(farm, key, Some(key)).expect("all are usable");
    farm.loads[server] += 1;
    server
}

#[test]
fn lblc_stays_until_its_server_is_overloaded_and_another_is_half_idle() {
    let mut farm = Farm::of(&[10, 10, 10]);
    let balancer = farm.balancer(&Scheduler::Lblc { key: Key::Host });
    let first = place(&mut farm, &balancer, 7);
    for load in [5, 10, 11] {
        farm.loads[first] = load;
        let others = if load == 11 { 5 } else { 0 };
        (0..3).filter(|&server| server != first).for_each(|server| farm.loads[server] = others);
        assert_eq!(balancer.pick(&farm, 0, Some(7)), Some(first), "{load}");
    }
    let other = (0..3).find(|&server| server != first).expect("three");
    farm.loads[other] = 4;
    assert_eq!(balancer.pick(&farm, 0, Some(7)), Some(other));
    farm.loads.fill(0);
    assert_eq!(balancer.pick(&farm, 0, Some(7)), Some(other), "it has moved for good");
    // Another plan, after a change of health, remembers.
    let shares: Vec<Share> = (0..3).map(|i| Share { weight: 10, seed: farm.seed(i) }).collect();
    let again = Balancer::new(&Scheduler::Lblc { key: Key::Host }, &shares, Some(&balancer));
    assert_eq!(again.pick(&farm, 0, Some(7)), Some(other));
    farm.now += 24 * 3600 + 2;
    farm.loads[other] = 1;
    assert_ne!(again.pick(&farm, 0, Some(7)), Some(other), "a day later it is a key like any other");
}

#[test]
fn lblcr_gives_a_key_more_servers_and_takes_them_back() {
    let mut farm = Farm::of(&[10, 10, 10]);
    let balancer = farm.balancer(&Scheduler::Lblcr { key: Key::Host });
    let first = place(&mut farm, &balancer, 7);
    farm.loads[first] = 11;
    let second = place(&mut farm, &balancer, 7);
    assert_ne!(first, second);
    farm.loads[first] = 0;
    assert_eq!(balancer.pick(&farm, 0, Some(7)), Some(first), "the less loaded of both");
    farm.now += 24 * 3600;
    farm.loads[second] = 5;
    // Asked in between, so that the key itself is not forgotten.
    assert_eq!(balancer.pick(&farm, 0, Some(7)), Some(first));
    farm.now += 10;
    assert_eq!(balancer.pick(&farm, 0, Some(7)), Some(first));
    farm.loads[first] = 9;
    assert_eq!(balancer.pick(&farm, 0, Some(7)), Some(first), "the more loaded has left it");
}

#[test]
fn content_spreads_what_is_hot_and_gathers_it_again() {
    let mut farm = Farm::of(&[1; 8]);
    let content = Scheduler::Content { key: Key::Path };
    let balancer = farm.balancer(&content);
    // Cold: where rendezvous puts it, whichever of two has less in hand.
    let (first, second) = hash::two(&farm, 7).expect("eight servers");
    assert_eq!(balancer.pick(&farm, 0, Some(7)), Some(first));
    farm.loads[first] = 15;
    assert_eq!(balancer.pick(&farm, 0, Some(7)), Some(first), "less than 16 is no load");
    let other = farm.balancer(&content);
    assert_eq!(other.pick(&farm, 0, Some(7)), second);
    // Hot: one key has it all.
    farm.loads.fill(0);
    for _ in 0..400 {
        place(&mut farm, &balancer, 7);
    }
    assert!(farm.loads.iter().all(|&load| load <= 75), "{:?}", farm.loads);
    let spread = farm.loads.iter().filter(|&&load| load > 0).count();
    assert!((5..=8).contains(&spread), "{:?}", farm.loads);
    // Quiet: one server less every twenty seconds.
    farm.loads.fill(0);
    for _ in 0..8 {
        farm.now += 21;
        balancer.pick(&farm, 0, Some(7));
    }
    let mut seen: Vec<_> = (0..20).map(|_| place(&mut farm, &balancer, 7)).collect();
    seen.truncate(16);
    seen.dedup();
    assert_eq!(seen.len(), 1, "{seen:?}");
}

#[test]
fn what_is_remembered_has_a_bound() {
    let mut farm = Farm::of(&[1; 4]);
    let balancer = farm.balancer(&Scheduler::Lblcr { key: Key::Path });
    let kept = (0..2_000).map(mix).map(|key| (key, place(&mut farm, &balancer, key))).collect::<Vec<_>>();
    farm.loads.fill(0);
    farm.now += 5;
    let same = kept.iter().filter(|(key, server)| balancer.pick(&farm, 9, Some(*key)) == Some(*server)).count();
    assert!(same > 1_950, "{same} of 2000 keys are where they were");
    farm.now += 5;
    for key in (0..200_000).map(|key| mix(key + 1_000_000)) {
        assert!(balancer.pick(&farm, key, Some(key)).is_some());
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
