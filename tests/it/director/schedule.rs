//! Who gets the next connection: IPVS's sequences, ties and skips. Servers are named by letters in the order in which they
//! were added, as in ktcpvs-ipvs.md 2.4.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use reeve::director::abi::{
    self, LOAD_OVERLOADED, Load, METHOD_NAT, Position, SCHEDULER_DH, SCHEDULER_FO, SCHEDULER_LC, SCHEDULER_MH,
    SCHEDULER_NONE, SCHEDULER_NQ, SCHEDULER_OVF, SCHEDULER_RR, SCHEDULER_SED, SCHEDULER_SH, SCHEDULER_WLC,
    SCHEDULER_WRR, SERVICE_FALLBACK, SERVICE_HASH_PORT,
};
use rustix::time::{ClockId, Timespec, clock_gettime};

use super::wire::{ACK, RST, SYN, TCP, tcp};
use super::world::{Put, REDIRECT, World, at};

/// A service with servers A, B, C ... at 10.3.0.1, .2, .3 ...
struct Trial {
    put: Put,
    ids: Vec<u32>,
    vip: SocketAddr,
    next_port: u16,
}

impl Trial {
    fn new(world: &mut World, scheduler: u32, weights: &[u32], change: impl FnOnce(&mut Put)) -> Self {
        let number = world.services();
        let vip = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 1, 9, number as u8)), 80);
        let ids: Vec<u32> = weights
            .iter()
            .enumerate()
            .map(|(index, weight)| {
                // Each trial has ports of its own, so that no tuple is in use.
                let server =
                    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 3, 0, 1 + index as u8)), 8000 + number as u16);
                world.server(server, METHOD_NAT, *weight)
            })
            .collect();
        let put = world.service(TCP, vip, scheduler, &ids, change);
        Self { put, ids, vip, next_port: 1024 }
    }

    /// Who gets a connection of this client: a letter, or `-` for nobody.
    fn pick_for(&mut self, world: &mut World, client: SocketAddr) -> char {
        let ran = world.show(&tcp(client, self.vip, SYN));
        assert_eq!(ran.returned, REDIRECT);
        match world.conn(TCP, client, self.vip) {
            Some(conn) => {
                let index = self.ids.iter().position(|id| *id == conn.server).expect("one of its servers");
                char::from(b'A' + index as u8)
            }
            None => '-',
        }
    }

    fn pick(&mut self, world: &mut World) -> char {
        self.next_port += 1;
        self.pick_for(world, SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 1, 0, 2)), self.next_port))
    }

    fn picks(&mut self, world: &mut World, count: usize) -> String {
        (0..count).map(|_| self.pick(world)).collect()
    }

    fn load(&self, world: &World, loads: &[(u32, u32)]) {
        for (id, (active, inactive)) in self.ids.iter().zip(loads) {
            let load = Load { active: *active, inactive: *inactive, ..Load::default() };
            world.map("loads").put(id, &load).expect("a load");
        }
    }

    /// One that has a connection has too many, or not.
    fn overload(&self, world: &World, letter: char, overloaded: bool) {
        let id = self.ids[usize::from(letter as u8 - b'A')];
        let load: Load = world.map("loads").get(&id).expect("a look").expect("a load");
        world.change_server(id, |server| server.upper = u32::from(overloaded));
        let flags = if overloaded { LOAD_OVERLOADED } else { 0 };
        world.map("loads").put(&id, &Load { flags, ..load }).expect("a load");
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// As user space gives wrr after servers were added one by one to an empty service.
fn wrr(put: &mut Put, weights: &[u32]) {
    let (mut level, mut step, mut top) = (0, 1, 0);
    for added in 1..=weights.len() {
        let positive = weights[..added].iter().copied().filter(|weight| *weight > 0);
        step = positive.clone().reduce(gcd).unwrap_or(1);
        let max = positive.max().unwrap_or(0);
        top = if max == 0 { 0 } else { max - (step - 1) };
        if level > top || level == 0 {
            level = top;
        } else if step > 1 {
            level = level / step * step + 1;
        }
    }
    (put.value.step, put.value.top) = (step, top);
    put.value.start = Position { generation: 1, level, next: 0 }.pack();
}

#[test]
fn rr_goes_round_from_the_newest() {
    let Some(mut world) = World::new() else { return };
    let mut trial = Trial::new(&mut world, SCHEDULER_RR, &[1, 1, 1], |_| {});
    assert_eq!(trial.picks(&mut world, 7), "CBACBAC");
    // One that takes nobody is passed over, and does not disturb the others' turns.
    world.change_server(trial.ids[1], |server| server.weight = 0);
    assert_eq!(trial.picks(&mut world, 5), "ACACA");
    world.change_server(trial.ids[1], |server| server.weight = 1);
    trial.overload(&world, 'C', true);
    assert_eq!(trial.picks(&mut world, 4), "BABA");
    // An update that carries the position over: D is new, the last was A.
    trial.overload(&world, 'C', false);
    let fourth = world.server(at("10.3.0.4:8001"), METHOD_NAT, 1);
    trial.ids.push(fourth);
    let list: Vec<u32> = trial.ids.iter().rev().copied().collect();
    let list = world.region(&list);
    let value = &mut trial.put.value;
    (value.list, value.count, value.generation) = (list, 4, 2);
    value.start = Position { generation: 2, level: 0, next: 4 }.pack();
    world.put(&trial.put);
    assert_eq!(trial.picks(&mut world, 5), "DCBAD");
    // An update without a new generation changes nothing of it.
    trial.put.value.flags |= SERVICE_FALLBACK;
    world.put(&trial.put);
    assert_eq!(trial.picks(&mut world, 3), "CBA");
}

#[test]
fn a_threshold_below_what_a_server_has_counts_at_once() {
    let Some(mut world) = World::new() else { return };
    let mut trial = Trial::new(&mut world, SCHEDULER_RR, &[1, 1, 1], |_| {});
    assert_eq!(trial.picks(&mut world, 6), "CBACBA");
    world.change_server(trial.ids[2], |server| server.upper = 2);
    assert_eq!(trial.picks(&mut world, 3), "BAB");
    // Raised far enough, it takes some again.
    world.change_server(trial.ids[2], |server| server.upper = 20);
    assert_eq!(trial.picks(&mut world, 3), "ACB");
}

#[test]
fn a_connection_that_gives_way_counts_while_its_heir_is_chosen() {
    let Some(mut world) = World::new() else { return };
    let mut trial = Trial::new(&mut world, SCHEDULER_LC, &[1, 1], |_| {});
    trial.load(&world, &[(0, 0), (0, 1)]);
    let client = at("10.1.0.2:1500");
    assert_eq!(trial.pick_for(&mut world, client), 'A');
    world.forwarded(&tcp(client, trial.vip, ACK));
    world.forwarded(&tcp(client, trial.vip, RST));
    // Both have one now, and B is the newer.
    assert_eq!(trial.pick_for(&mut world, client), 'B');
    let loads = trial.ids.iter().map(|id| world.map("loads").get::<_, Load>(id).expect("a look").expect("a load"));
    assert_eq!(loads.map(|load| (load.active, load.inactive)).collect::<Vec<_>>(), [(0, 0), (1, 1)]);
}

/// The kernel's clock, as it was at its last tick.
fn coarse() -> Timespec {
    clock_gettime(ClockId::MonotonicCoarse)
}

/// Its bits that are a tick of the director's.
fn tick() -> u32 {
    let now = coarse();
    abi::tick(Duration::new(now.tv_sec as u64, now.tv_nsec as u32))
}

#[test]
fn a_connection_that_gave_way_counts_for_a_tick() {
    let Some(mut world) = World::new() else { return };
    let mut trial = Trial::new(&mut world, SCHEDULER_LC, &[1, 1], |_| {});
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut within = false;
    for port in 1500.. {
        assert!(Instant::now() < deadline, "never three packets within a tick");
        let client = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 1, 0, 3)), port);
        trial.load(&world, &[(0, 0), (0, 1)]);
        assert_eq!(trial.pick_for(&mut world, client), 'A');
        world.forwarded(&tcp(client, trial.vip, ACK));
        world.forwarded(&tcp(client, trial.vip, RST));
        // Without its closed connection A costs 257, with it as much as B when that has the new one; and B is the newer.
        trial.load(&world, &[(1, 1), (0, 1)]);
        let begun = tick();
        assert_eq!(trial.pick_for(&mut world, client), 'B');
        while within && tick() == begun {}
        let next = trial.pick(&mut world);
        if within {
            assert_eq!(next, 'A');
            break;
        }
        if tick() == begun {
            assert_eq!(next, 'B');
            within = true;
        }
    }
}

#[test]
fn wrr_walks_levels_as_ipvs_does() {
    let Some(mut world) = World::new() else { return };
    for (weights, expected) in [
        (&[4, 3, 2][..], "CBAABACBACBAABACBACBAABA"),
        (&[1, 1, 1], "CBACBACBACBACBACBACBACBA"),
        (&[5, 1, 1], "CBAAAAACBAAAAACBAAAAACBA"),
        (&[30, 20, 10], "CBAABACBAABACBAABACBAABA"),
        (&[1, 0, 2], "CACCACCACCACCACCACCACCAC"),
        (&[0, 0], "----"),
    ] {
        let mut trial = Trial::new(&mut world, SCHEDULER_WRR, weights, |put| wrr(put, weights));
        assert_eq!(trial.picks(&mut world, expected.len()), expected, "{weights:?}");
    }
    // Heavy servers that take nobody: their levels are skipped at once, however many.
    let weights = [65535, 1, 2];
    let mut trial = Trial::new(&mut world, SCHEDULER_WRR, &weights, |put| wrr(put, &weights));
    trial.load(&world, &[(1, 0)]);
    trial.overload(&world, 'A', true);
    let picks = trial.picks(&mut world, 9);
    assert_eq!(&picks[picks.find("CB").expect("both")..][..2], "CB");
    assert_eq!((picks.matches('C').count(), picks.matches('B').count()), (6, 3), "{picks}");
}

#[test]
fn least_connections_and_its_kin() {
    let Some(mut world) = World::new() else { return };
    // Scheduler, weights, (active, inactive), who.
    let idle: &[(u32, u32)] = &[(0, 0); 3];
    for (scheduler, weights, loads, expected) in [
        // Ties go to the newest.
        (SCHEDULER_LC, &[1, 1, 1][..], idle, 'C'),
        (SCHEDULER_LC, &[9, 1, 1], &[(0, 0), (0, 1), (0, 1)], 'A'),
        // One active weighs as 256 inactive (and itself counts among all).
        (SCHEDULER_LC, &[1, 1, 1], &[(1, 0), (0, 256), (0, 257)], 'B'),
        (SCHEDULER_LC, &[1, 1, 1], &[(1, 0), (0, 258), (0, 259)], 'A'),
        (SCHEDULER_LC, &[1, 1, 0], &[(3, 0), (2, 0), (0, 0)], 'B'),
        (SCHEDULER_WLC, &[4, 2, 1], &[(4, 0), (2, 0), (1, 0)], 'C'),
        (SCHEDULER_WLC, &[4, 2, 1], &[(3, 0), (2, 0), (1, 0)], 'A'),
        (SCHEDULER_WLC, &[65535, 65535, 1], &[(4_000_000, 0), (3_999_999, 0), (1_000_000, 0)], 'B'),
        (SCHEDULER_SED, &[4, 2, 1], idle, 'A'),
        (SCHEDULER_SED, &[4, 2, 1], &[(2, 0), (1, 0), (0, 0)], 'A'),
        (SCHEDULER_SED, &[3, 2, 1], &[(2, 99), (1, 99), (0, 0)], 'C'),
        (SCHEDULER_NQ, &[4, 2, 1], idle, 'C'),
        (SCHEDULER_NQ, &[4, 2, 1], &[(1, 0), (0, 5), (1, 0)], 'B'),
        (SCHEDULER_NQ, &[4, 2, 1], &[(1, 0), (1, 0), (1, 0)], 'A'),
        (SCHEDULER_FO, &[5, 9, 9], &[(0, 0), (500, 0), (500, 0)], 'C'),
        (SCHEDULER_OVF, &[5, 9, 9], &[(0, 0), (9, 0), (10, 0)], 'B'),
        (SCHEDULER_OVF, &[5, 9, 9], &[(6, 0), (10, 0), (10, 0)], '-'),
        (SCHEDULER_NONE, &[1, 1, 1], idle, '-'),
    ] {
        let mut trial = Trial::new(&mut world, scheduler, weights, |_| {});
        trial.load(&world, loads);
        assert_eq!(trial.pick(&mut world), expected, "scheduler {scheduler}, {weights:?}, {loads:?}");
    }
    // An overloaded server is nobody's choice.
    for scheduler in [SCHEDULER_LC, SCHEDULER_WLC, SCHEDULER_SED, SCHEDULER_NQ, SCHEDULER_FO, SCHEDULER_OVF] {
        let mut trial = Trial::new(&mut world, scheduler, &[1, 1, 9], |_| {});
        trial.load(&world, &[(1, 0); 3]);
        trial.overload(&world, 'C', true);
        assert_eq!(trial.pick(&mut world), 'B', "scheduler {scheduler}");
    }
    // Many, and the last one wins.
    let mut weights = vec![1; 250];
    weights[0] = 2;
    let mut trial = Trial::new(&mut world, SCHEDULER_FO, &weights, |_| {});
    assert_eq!(trial.pick(&mut world), 'A');
}

#[test]
fn thresholds_set_and_clear_themselves() {
    let Some(mut world) = World::new() else { return };
    let mut trial = Trial::new(&mut world, SCHEDULER_FO, &[1, 9], |_| {});
    world.change_server(trial.ids[1], |server| server.upper = 4);
    assert_eq!(trial.picks(&mut world, 6), "BBBBAA");
    // Three quarters of 4: it takes some again below 3.
    let server = at(&format!("10.3.0.2:{}", 8000 + world.services() - 1));
    let end = |world: &mut World, port: u16| {
        let client = SocketAddr::new("10.1.0.2".parse().expect("an address"), port);
        world.forwarded(&tcp(server, client, super::wire::RST));
        // A closed connection counts until it is gone.
        super::states::force(world, client, at(&format!("10.1.9.{}:80", world.services() - 1)));
    };
    end(&mut world, 1025);
    assert_eq!(trial.pick(&mut world), 'A');
    end(&mut world, 1026);
    assert_eq!(trial.picks(&mut world, 3), "BBA");
    // Overloaded by the thresholds of yesterday: raised or taken away, they count at once.
    world.change_server(trial.ids[1], |server| (server.upper, server.lower) = (9, 5));
    assert_eq!(trial.picks(&mut world, 6), "BBBBBA");
    world.change_server(trial.ids[1], |server| server.upper = 0);
    assert_eq!(trial.picks(&mut world, 2), "BB");
    let load: Load = world.map("loads").get(&trial.ids[1]).expect("a look").expect("a load");
    assert_eq!((load.active, load.flags), (11, 0));
}

#[test]
fn sh_and_dh_follow_their_tables() {
    let Some(mut world) = World::new() else { return };
    // h(203.0.113.5) = 185, with port 49153: 127; h(203.0.113.6) = 26, with port: 225 (ktcpvs-ipvs.md 2.4).
    let (five, six) = (at("203.0.113.5:49153"), at("203.0.113.6:49153"));
    for (flags, buckets) in [(0, [185, 26]), (SERVICE_HASH_PORT, [127, 225])] {
        for (client, bucket) in [five, six].into_iter().zip(buckets) {
            let mut trial = Trial::new(&mut world, SCHEDULER_SH, &[1, 1], |_| {});
            let mut table = vec![trial.ids[0]; 256];
            table[bucket] = trial.ids[1];
            table_of(&mut world, &mut trial, &table, flags);
            assert_eq!(trial.pick_for(&mut world, client), 'B', "{client} with {flags}");
        }
    }
    // The bucket's server takes nobody: nobody it is, or the next bucket's that does.
    for (flags, expected) in [(0, '-'), (SERVICE_FALLBACK, 'C')] {
        let mut trial = Trial::new(&mut world, SCHEDULER_SH, &[1, 0, 1], |_| {});
        let mut table = vec![trial.ids[1]; 256];
        // 185 is the first; then (185 + o) + 185, modulo 256.
        table[(185 + 3 + 185) % 256] = trial.ids[2];
        table[(185 + 4 + 185) % 256] = trial.ids[0];
        table_of(&mut world, &mut trial, &table, flags);
        assert_eq!(trial.pick_for(&mut world, five), expected);
    }
    // dh goes by the virtual address, whoever asks.
    let mut trial = Trial::new(&mut world, SCHEDULER_DH, &[1, 1], |_| {});
    let IpAddr::V4(ip) = trial.vip.ip() else { panic!("IPv4") };
    let bucket = (u32::from(ip).wrapping_mul(0x61c8_8647) >> 24) as usize;
    let mut table = vec![trial.ids[0]; 256];
    table[bucket] = trial.ids[1];
    table_of(&mut world, &mut trial, &table, 0);
    assert_eq!(trial.pick_for(&mut world, five), 'B');
    assert_eq!(trial.pick_for(&mut world, six), 'B');
}

#[test]
fn mh_hashes_as_ipvs_does() {
    let Some(mut world) = World::new() else { return };
    // 203.0.113.5 -> slot 3219, 203.0.113.6 -> slot 2905, of 4093.
    for (client, slot) in [(at("203.0.113.5:1"), 3219), (at("203.0.113.6:1"), 2905)] {
        let mut trial = Trial::new(&mut world, SCHEDULER_MH, &[1, 1], |_| {});
        let mut table = vec![trial.ids[0]; 4093];
        table[slot] = trial.ids[1];
        table_of(&mut world, &mut trial, &table, 0);
        assert_eq!(trial.pick_for(&mut world, client), 'B', "{client}");
    }
    // Its server takes nobody: with the flag, it is looked for on and on.
    for (flags, expected) in [(0, '-'), (SERVICE_FALLBACK, 'A')] {
        let mut trial = Trial::new(&mut world, SCHEDULER_MH, &[1, 0], |_| {});
        let mut table = vec![trial.ids[1]; 4093];
        table[..400].fill(trial.ids[0]);
        table_of(&mut world, &mut trial, &table, flags);
        assert_eq!(trial.pick_for(&mut world, at("203.0.113.5:1")), expected);
    }
}

fn table_of(world: &mut World, trial: &mut Trial, table: &[u32], flags: u32) {
    let start = world.region(table);
    let value = &mut trial.put.value;
    (value.table, value.table_len, value.flags) = (start, table.len() as u32, flags);
    world.put(&trial.put);
}
