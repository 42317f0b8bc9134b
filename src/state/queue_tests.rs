//! The queue of a pool beside what it has to do, at random: when all is quiet, nobody waits while there is a place for him.
//!
//! Threads are workers. Each has requests of its own that come, wait, are served, go away or are gone before they are, as the
//! dice say. Now and then all of them finish what they were called for, and then every place is offered to all who still wait.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::task::{Context, Waker};
use std::time::SystemTime;

use super::gate::Waiter;
use super::tests::{config, pool, server};
use super::*;
use crate::balance::mix;
use crate::model::affinity::{Affinity, By};
use crate::model::pool::{Protocol, Scheduler};

/// Requests of each worker at once.
const REQUESTS: usize = 8;
const STEPS: usize = 60;
const SERVERS: u16 = 3;
const SCHEDULERS: [Scheduler; 5] = [Scheduler::Rr, Scheduler::Ovf, Scheduler::Twos, Scheduler::Random, Scheduler::Sed];
/// More looks than that for what has happened are a loop: each kind of waiter once for a place.
const KINDS: u64 = 8 * 4 * 2;

struct Dice(u64);

impl Dice {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = mix(self.0);
        self.0 % most
    }
}

/// Where a request may be.
#[derive(Debug, Clone, Default)]
struct Wish {
    /// By their ids.
    not_at: Vec<u32>,
    /// The position of the server that its client was at, in a pool that asks.
    was_at: Option<u32>,
    key: Option<u64>,
}

impl Wish {
    /// As the dice say.
    fn new(pool: &LivePool, dice: &mut Dice) -> Wish {
        let tried = dice.below(1 << SERVERS);
        // Most may be anywhere, as in life.
        let tried = if dice.below(2) == 0 { 0 } else { tried };
        let ids = pool.servers().iter().map(|server| server.id()).enumerate();
        let not_at = ids.filter(|(at, _)| tried >> at & 1 == 1).map(|(_, id)| id).collect();
        let was_at = pool.affinity().is_some().then(|| dice.below(u64::from(SERVERS) + 1) as u32);
        let key = (dice.below(2) == 0).then(|| dice.below(u64::MAX));
        Wish { not_at, was_at: was_at.filter(|at| *at < u32::from(SERVERS)), key }
    }

    /// A place, as `proxy::pick` chooses it.
    fn pick(&self, pool: &LivePool) -> Result<Lease, NoServer> {
        let own = self.was_at.and_then(|at| pool.lease(at, &self.not_at, &[]).ok());
        own.map_or_else(|| pool.pick_in_turn(self.key, &self.not_at, &[]), Ok)
    }

    fn kind(&self, pool: &LivePool) -> Kind {
        let number = |at: u32| pool.servers().get(at as usize).and(pool.affinity()?.number(at));
        Kind::of(pool, &self.not_at, self.was_at.and_then(number), self.key.is_some(), None)
    }
}

enum Request {
    Gone,
    Waits(Waiter, Wish),
    /// Has been called, and is to look.
    Called(Waiter, Wish),
    /// Has looked, and is to leave the line.
    Found(Waiter, Lease),
    Served(Lease),
}

/// What has happened, over all threads.
#[derive(Default)]
struct Seen {
    looks: AtomicU64,
    /// Looks, and whatever else may call somebody.
    moves: AtomicU64,
    /// Places that became free, changes, and those who came or went: whatever may be a reason for a look.
    causes: AtomicU64,
    served: AtomicU64,
    waited: AtomicU64,
}

fn count(what: &AtomicU64) {
    what.fetch_add(1, Ordering::Relaxed);
}

/// Looks for a place as `proxy::queue` does.
fn look(pool: &LivePool, waiter: Waiter, wish: Wish, seen: &Seen) -> Request {
    count(&seen.looks);
    count(&seen.moves);
    match wish.pick(pool) {
        Ok(lease) => {
            assert!(!wish.not_at.contains(&lease.id()), "it may not be there");
            count(&seen.served);
            waiter.found(lease.id());
            Request::Found(waiter, lease)
        }
        Err(NoServer::Full) => {
            waiter.found_none();
            Request::Waits(waiter, wish)
        }
        Err(NoServer::Down) => {
            waiter.dismiss();
            count(&seen.causes);
            Request::Gone
        }
    }
}

fn come(pool: &LivePool, dice: &mut Dice, seen: &Seen) -> Request {
    let wish = Wish::new(pool, dice);
    let picked = if pool.gate().is_waited_at() { Err(NoServer::Full) } else { wish.pick(pool) };
    match picked {
        Ok(lease) => Request::Served(lease),
        Err(NoServer::Down) => Request::Gone,
        Err(NoServer::Full) => {
            count(&seen.waited);
            count(&seen.causes);
            let Some(waiter) = pool.gate().join(dice.below(3) as i32, wish.kind(pool), 1000) else {
                return Request::Gone;
            };
            match waiter.is_first() {
                true => look(pool, waiter, wish, seen),
                false => Request::Waits(waiter, wish),
            }
        }
    }
}

/// What a request does next. `served`: nothing, but what it is called for.
fn step(pool: &LivePool, request: Request, quiet: bool, dice: &mut Dice, seen: &Seen) -> Request {
    match request {
        Request::Waits(waiter, wish) => {
            // It looks a while after it was called, or is gone by then.
            if !quiet && dice.below(3) > 0 {
                return Request::Waits(waiter, wish);
            }
            if !quiet && dice.below(8) == 0 {
                count(&seen.causes);
                return Request::Gone;
            }
            match waiter.poll_called(&mut Context::from_waker(Waker::noop())).is_ready() {
                true => {
                    count(&seen.moves);
                    Request::Called(waiter, wish)
                }
                false => Request::Waits(waiter, wish),
            }
        }
        // A fault ends it.
        Request::Called(..) if !quiet && dice.below(16) == 0 => {
            count(&seen.causes);
            Request::Gone
        }
        Request::Called(waiter, wish) if quiet || dice.below(2) == 0 => look(pool, waiter, wish, seen),
        Request::Found(waiter, lease) if quiet || dice.below(2) == 0 => {
            count(&seen.moves);
            drop(waiter);
            Request::Served(lease)
        }
        served if quiet => served,
        Request::Served(lease) if dice.below(3) == 0 => {
            count(&seen.causes);
            drop(lease);
            Request::Gone
        }
        Request::Gone => come(pool, dice, seen),
        served => served,
    }
}

fn worker(pool: &LivePool, seed: u64, changes: bool, rounds: usize, all: &Barrier, seen: &Seen) {
    let mut dice = Dice(seed);
    let mut requests: Vec<Request> = (0..REQUESTS).map(|_| Request::Gone).collect();
    for round in 0..rounds {
        for _ in 0..STEPS {
            let at = dice.below(REQUESTS as u64) as usize;
            let request = std::mem::replace(&mut requests[at], Request::Gone);
            requests[at] = step(pool, request, false, &mut dice, seen);
            if changes && dice.below(40) == 0 {
                count(&seen.causes);
                let server = &pool.servers()[dice.below(u64::from(SERVERS)) as usize];
                let health = if dice.below(3) == 0 { Health::Down } else { Health::Up };
                server.set_health(health, "dice", SystemTime::now());
            }
        }
        // Everybody does what he is called for, until nobody is.
        let mut moves = None;
        loop {
            all.wait();
            let now = seen.moves.load(Ordering::SeqCst);
            let (looks, causes) = (seen.looks.load(Ordering::SeqCst), seen.causes.load(Ordering::SeqCst));
            assert!(looks <= KINDS * (causes + 1), "{looks} looks for {causes} causes");
            all.wait();
            if moves.replace(now) == Some(now) {
                break;
            }
            for request in &mut requests {
                *request = step(pool, std::mem::replace(request, Request::Gone), true, &mut dice, seen);
            }
        }
        for request in &requests {
            let Request::Waits(_, wish) = request else { continue };
            let place = wish.pick(pool).map(|lease| lease.id());
            assert_eq!(place, Err(NoServer::Full), "round {round} of {seed}: {wish:?} waits");
        }
        all.wait();
    }
}

/// Pools of several shapes, each with so many workers.
fn run(workers: usize, seeds: std::ops::Range<u64>, rounds: usize) -> Seen {
    let seen = Seen::default();
    for seed in seeds {
        let mut dice = Dice(seed);
        let mut servers: Vec<_> = (1..=SERVERS).map(server).collect();
        for server in &mut servers {
            server.most.requests = Some(1 + dice.below(3) as u32);
            server.backup = dice.below(4) == 0;
        }
        let mut configured = pool(SCHEDULERS[dice.below(SCHEDULERS.len() as u64) as usize].clone(), servers);
        configured.queue = 1000;
        configured.most.requests = (dice.below(2) == 0).then(|| 2 + dice.below(2) as u32);
        let binds = dice.below(2) == 0;
        configured.affinity = binds.then(|| Affinity::by(By::Source { v4: 32, v6: 64 }));
        let farm = Farm::new(config(configured), Vec::new());
        let pool = Arc::clone(&farm.snapshot().pools[0]);
        if binds {
            // It has none but its clients.
            let drained = pool.servers()[dice.below(u64::from(SERVERS)) as usize].identity().clone();
            farm.set_drains(|drains| drains.servers.extend([drained]));
        }
        let all = Barrier::new(workers);
        std::thread::scope(|scope| {
            for number in 0..workers as u64 {
                let (pool, all, seen) = (&pool, &all, &seen);
                scope.spawn(move || {
                    // Who does not come to the barrier any more would be waited for: the test is over.
                    // A server that comes up makes good for calls that were lost: half of the farms have none.
                    let run = || worker(pool, mix(seed * 64 + number), seed % 2 == 0, rounds, all, seen);
                    if std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err() {
                        std::process::abort();
                    }
                });
            }
        });
        let left: Vec<_> = pool.servers().iter().map(|server| server.in_flight()).collect();
        assert_eq!((pool.gate().waiting(), left), (0, vec![0; usize::from(SERVERS)]));
    }
    seen
}

#[test]
fn nobody_waits_while_there_is_a_place_for_him() {
    let seen = run(1, 0..200, 10);
    let waited = seen.waited.into_inner();
    assert!(waited > 10_000 && seen.served.into_inner() > waited / 10, "the dice make no queue: {waited}");
}

#[test]
fn nor_among_threads() {
    let seen = run(4, 1000..1040, 10);
    assert!(seen.waited.into_inner() > 1_000);
}

/// A server whose clients are all that it takes, among others: the looks that a place there costs.
#[test]
fn a_place_at_a_drained_server_is_offered_to_its_clients() {
    const ALL: u16 = 20;
    let mut servers: Vec<_> = (1..=ALL).map(server).collect();
    servers.iter_mut().for_each(|server| server.most.requests = Some(1));
    let mut configured = pool(Scheduler::Rr, servers);
    configured.affinity = Some(Affinity::by(By::Source { v4: 32, v6: 64 }));
    let farm = Farm::new(config(configured), Vec::new());
    let pool = Arc::clone(&farm.snapshot().pools[0]);
    let mut leases: Vec<Lease> = (0..u32::from(ALL)).map(|at| pool.lease(at, &[], &[]).unwrap()).collect();
    let drained = pool.servers()[0].identity().clone();
    farm.set_drains(|drains| drains.servers.extend([drained.clone()]));
    let of = |was_at: u16| Wish { was_at: Some(u32::from(was_at)), ..Wish::default() };
    let wishes: Vec<Wish> = (0..ALL).rev().map(of).collect();
    let line: Vec<Waiter> =
        wishes.iter().map(|wish| pool.gate().join(0, wish.kind(&pool), u32::MAX).unwrap()).collect();
    let look = || {
        let mut looks = 0;
        let called = |waiter: &&Waiter| waiter.poll_called(&mut Context::from_waker(Waker::noop())).is_ready();
        while let Some(at) = line.iter().position(|waiter| called(&waiter)) {
            looks += 1;
            match wishes[at].pick(&pool) {
                Ok(lease) => {
                    line[at].found(lease.id());
                    return (looks, Some((at, lease)));
                }
                Err(_) => line[at].found_none(),
            }
        }
        (looks, None)
    };
    line[0].found_none();
    leases.remove(0);
    let (looks, found) = look();
    let (at, lease) = found.expect("its client is called");
    assert_eq!((looks, at, &**lease.identity()), (1, line.len() - 1, &*drained));
    // It takes others again: they are called for the place that there is then.
    drop(lease);
    assert_eq!(look().0, 1, "only one may use it");
    farm.set_drains(|drains| drains.servers.clear());
    let (_, found) = look();
    assert_eq!(found.expect("a place for all").0, 0, "the first in line");
}

/// A reload may bring bounds of connections, which those who wait may then share or not.
#[test]
fn who_shares_connections_is_of_a_kind_before_it_matters() {
    let mut configured = pool(Scheduler::Rr, vec![server(1)]);
    configured.servers[0].most.requests = Some(1);
    configured.protocol = Protocol::H2c;
    let farm = Farm::new(config(configured.clone()), Vec::new());
    let before = Arc::clone(&farm.snapshot().pools[0]);
    let first = before.pick(None, &[]).unwrap();
    let join = |shares| before.gate().join(0, Kind::of(&before, &[], None, false, Some(shares)), 10).unwrap();
    let line = [join(1), join(2)];
    let called = || line.each_ref().map(|up| up.poll_called(&mut Context::from_waker(Waker::noop())).is_ready());
    line.iter().for_each(Waiter::found_none);
    configured.servers[0].most.requests = Some(2);
    configured.servers[0].most.connections = Some(1);
    farm.install(config(configured.clone()), Vec::new());
    let pool = Arc::clone(&farm.snapshot().pools[0]);
    assert!(pool.counts_connections() && first.take_into_use(&pool), "the one connection");
    assert!(called()[0]);
    // It may not have another connection, and does not share that one: who shares it may.
    assert!(!pool.may_connect(&pool.servers()[0]));
    line[0].found_none();
    assert_eq!(called(), [false, true]);
    // Where each request has a connection of its own, there is nothing to share.
    configured.protocol = Protocol::Http1;
    farm.install(config(configured), Vec::new());
    let pool = Arc::clone(&farm.snapshot().pools[0]);
    assert_eq!(Kind::of(&pool, &[], None, false, Some(1)), Kind::of(&pool, &[], None, false, Some(2)));
}

/// `ovf` gives a server no more than its weight allows, unless a key says which is to be asked.
#[test]
fn by_overflow_who_has_a_key_does_not_wait_for_those_without_one() {
    let mut configured = pool(Scheduler::Ovf, vec![server(1)]);
    configured.servers[0].most.requests = Some(3);
    let farm = Farm::new(config(configured), Vec::new());
    let pool = Arc::clone(&farm.snapshot().pools[0]);
    let mut leases: Vec<_> = (0..3).map(|_| pool.pick(Some(7), &[]).unwrap()).collect();
    let wishes = [None, Some(7)].map(|key| Wish { key, ..Wish::default() });
    let line = wishes.each_ref().map(|wish| pool.gate().join(0, wish.kind(&pool), 10).unwrap());
    line.iter().for_each(Waiter::found_none);
    let called = || line.each_ref().map(|up| up.poll_called(&mut Context::from_waker(Waker::noop())).is_ready());
    leases.pop();
    assert_eq!(called(), [true, false]);
    // Two are one more than its weight.
    assert_eq!(wishes[0].pick(&pool).map(|lease| lease.id()), Err(NoServer::Full));
    line[0].found_none();
    assert_eq!(called(), [false, true]);
    assert!(wishes[1].pick(&pool).is_ok());
}
