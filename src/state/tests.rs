//! Picks, limits, backups and reloads.

use std::net::SocketAddr;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::SystemTime;

use super::*;
use crate::balance::mix;
use crate::model::check::{Check, Probe};
use crate::model::fault::Place;
use crate::model::pool::{Address, Most, Outlier, Pool, Retry, Scheduler, Server};
use crate::model::rule::Key;
use crate::model::{Config, Timeouts};

pub(super) fn server(number: u16) -> Server {
    Server {
        name: format!("s{number}").into(),
        address: Address::Ip(SocketAddr::from(([127, 0, 0, 1], 9000 + number))),
        weight: 1,
        most: Most::default(),
        backup: false,
        place: Place::file("test"),
    }
}

pub(super) fn pool(scheduler: Scheduler, servers: Vec<Server>) -> Pool {
    Pool {
        name: "web".into(),
        scheduler,
        servers,
        checks: Vec::new(),
        retry: Retry::default(),
        hedge: None,
        most: Most::default(),
        queue: 0,
        outlier: None,
        slow_start: None,
        timeouts: Timeouts::default(),
        send_proxy: None,
        tls: None,
        protocol: crate::model::pool::Protocol::Http1,
        affinity: None,
        place: Place::file("test"),
    }
}

pub(super) fn config(pool: Pool) -> Arc<Config> {
    Arc::new(Config { pools: vec![pool], ..Config::default() })
}

fn farm(scheduler: Scheduler, servers: Vec<Server>) -> (Arc<Farm>, Arc<LivePool>) {
    let farm = Farm::new(config(pool(scheduler, servers)), Vec::new());
    let pool = Arc::clone(&farm.snapshot().pools[0]);
    (farm, pool)
}

fn three() -> Vec<Server> {
    vec![server(1), server(2), server(3)]
}

fn picked(pick: Result<Lease, NoServer>) -> Result<String, NoServer> {
    pick.map(|lease| lease.name().to_string())
}

fn down(server: &LiveServer) {
    server.set_health(Health::Down, "connect refused", SystemTime::now());
}

fn up(server: &LiveServer) {
    server.set_health(Health::Up, "status 200", SystemTime::now());
}

#[test]
fn a_lease_counts_in_and_out() {
    let (_farm, pool) = farm(Scheduler::Lc, three());
    let leases: Vec<Lease> = (0..6).filter_map(|_| pool.pick(None, &[]).ok()).collect();
    assert!(pool.servers().iter().all(|server| server.in_flight() == 2));
    drop(leases);
    assert!(pool.servers().iter().all(|server| server.in_flight() == 0));
}

#[test]
fn down_servers_are_never_chosen() {
    let (_farm, pool) = farm(Scheduler::Rr, three());
    down(&pool.servers()[1]);
    assert!((0..30).all(|_| picked(pool.pick(None, &[])) != Ok("s2".into())));
    pool.servers().iter().for_each(|server| down(server));
    assert_eq!(picked(pool.pick(None, &[])), Err(NoServer::Down));
    up(&pool.servers()[2]);
    assert_eq!(picked(pool.pick(None, &[])), Ok("s3".into()));
}

#[test]
fn a_share_counts_with_every_scheduler_by_load_or_turn() {
    for scheduler in [Scheduler::Rr, Scheduler::Wrr, Scheduler::Lc, Scheduler::Wlc] {
        let (_farm, pool) = farm(scheduler, three());
        assert!(pool.servers()[0].advise(Some(25), None, "busy"));
        let picks: Vec<_> = (0..90).map(|_| picked(pool.pick(None, &[])).unwrap()).collect();
        let first = picks.iter().filter(|name| *name == "s1").count();
        assert!((9..=11).contains(&first), "{first} of 90");
        assert!(pool.servers()[0].advise(None, Some(true), ""));
        assert!((0..30).all(|_| picked(pool.pick(None, &[])) != Ok("s1".into())));
        assert!(pool.servers()[0].advise(Some(100), Some(false), "") && !pool.servers()[0].advise(Some(100), None, ""));
        assert!((0..9).any(|_| picked(pool.pick(None, &[])) == Ok("s1".into())));
    }
}

#[test]
fn a_share_does_not_widen_a_weight_that_counts_requests() {
    let (_farm, pool) = farm(Scheduler::Ovf, three());
    assert!(pool.servers()[0].advise(Some(50), None, ""));
    let leases: Vec<Lease> = (0..6).filter_map(|_| pool.pick(None, &[]).ok()).collect();
    assert!(pool.servers().iter().all(|server| server.in_flight() <= 2), "{}", leases.len());
}

#[test]
fn few_that_are_up_are_not_left_alone_with_the_work() {
    let mut config = (*config(pool(Scheduler::Rr, three()))).clone();
    config.pools[0].outlier = Some(Outlier { panic: 5_000, ..Outlier::default() });
    let farm = Farm::new(Arc::new(config), Vec::new());
    let pool = Arc::clone(&farm.snapshot().pools[0]);
    let used =
        || (0..30).filter_map(|_| picked(pool.pick(None, &[])).ok()).collect::<std::collections::BTreeSet<_>>().len();
    down(&pool.servers()[0]);
    assert_eq!((used(), pool.panics()), (2, false), "two of three are enough");
    let outlier = Outlier { eject_for: std::time::Duration::ZERO, ..Outlier::default() };
    let now = std::time::Instant::now();
    pool.servers()[1].eject("bad answers", &outlier, now);
    pool.plan_again();
    assert_eq!((used(), pool.panics()), (3, true));
    assert!(pool.servers()[1].standing().why.starts_with("ejected"));
    assert!(pool.servers()[1].release(now));
    pool.plan_again();
    assert_eq!((used(), pool.panics()), (2, false));
}

#[test]
fn an_empty_pool_has_no_server() {
    for scheduler in
        [Scheduler::Rr, Scheduler::Wrr, Scheduler::Wlc, Scheduler::Random, Scheduler::Mh { key: Key::Path }]
    {
        let (_farm, pool) = farm(scheduler, Vec::new());
        assert_eq!(picked(pool.pick(None, &[])), Err(NoServer::Down));
        assert_eq!(picked(pool.pick(Some(1), &[1, 2])), Err(NoServer::Down));
    }
}

#[test]
fn a_drained_server_takes_nothing_new() {
    let mut servers = three();
    servers[0].weight = 0;
    let (_farm, pool) = farm(Scheduler::Wlc, servers);
    assert!((0..30).all(|_| picked(pool.pick(None, &[])) != Ok("s1".into())));
}

#[test]
fn full_is_not_down() {
    let mut servers = three();
    servers.iter_mut().for_each(|server| server.most.requests = Some(1));
    let (_farm, pool) = farm(Scheduler::Rr, servers);
    let mut leases: Vec<Lease> = (0..3).filter_map(|_| pool.pick(None, &[]).ok()).collect();
    assert_eq!(leases.len(), 3);
    assert_eq!(picked(pool.pick(None, &[])), Err(NoServer::Full));
    let free = leases.swap_remove(0).name().to_string();
    assert_eq!(picked(pool.pick(None, &[])), Ok(free));
    // Those that are left to try are none: nothing to wait for.
    let ids: Vec<u32> = pool.servers().iter().map(|server| server.id()).collect();
    assert_eq!(picked(pool.pick(None, &ids)), Err(NoServer::Down));
}

#[test]
fn a_limit_is_exact_over_threads() {
    let mut only = server(1);
    only.most.requests = Some(7);
    for scheduler in [Scheduler::Rr, Scheduler::Wlc, Scheduler::Mh { key: Key::Path }] {
        let (_farm, pool) = farm(scheduler, vec![only.clone()]);
        let start = Barrier::new(4);
        let most = thread::scope(|scope| {
            let run = || {
                start.wait();
                let mut most = 0;
                for round in 0..2_000 {
                    let lease = pool.pick(None, &[]);
                    let also = pool.pick(Some(round), &[]);
                    most = most.max(pool.servers()[0].in_flight());
                    drop((lease, also));
                }
                most
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(run)).collect();
            threads.into_iter().filter_map(|thread| thread.join().ok()).max()
        });
        assert!(most <= Some(7), "{most:?}");
        assert_eq!(pool.servers()[0].in_flight(), 0);
    }
}

#[test]
fn picks_go_on_while_health_changes() {
    let (_farm, pool) = farm(Scheduler::Wlc, three());
    thread::scope(|scope| {
        let flapping = scope.spawn(|| {
            for _ in 0..500 {
                down(&pool.servers()[0]);
                down(&pool.servers()[1]);
                up(&pool.servers()[0]);
                up(&pool.servers()[1]);
            }
        });
        while !flapping.is_finished() {
            assert!(pool.pick(None, &[]).is_ok(), "the third server is always up");
        }
    });
    assert!(pool.servers().iter().all(|server| server.in_flight() == 0));
    let seen: std::collections::BTreeSet<_> = (0..9).filter_map(|_| picked(pool.pick(None, &[])).ok()).collect();
    assert_eq!(seen.len(), 3, "the last plan knows that all are up");
}

#[test]
fn tried_servers_are_not_chosen_again() {
    let schedulers =
        [Scheduler::Rr, Scheduler::Wrr, Scheduler::Lc, Scheduler::Random, Scheduler::Hash { key: Key::Path }];
    for scheduler in schedulers {
        let (_farm, pool) = farm(scheduler, three());
        let mut tried = Vec::new();
        while let Ok(lease) = pool.pick(Some(9), &tried) {
            assert!(!tried.contains(&lease.id()));
            tried.push(lease.id());
        }
        assert_eq!(tried.len(), 3);
    }
}

#[test]
fn backups_serve_while_no_other_is_up() {
    let mut servers = three();
    servers[2].backup = true;
    servers[0].most.requests = Some(1);
    servers[1].most.requests = Some(1);
    let (_farm, pool) = farm(Scheduler::Wlc, servers);
    let leases = (pool.pick(None, &[]), pool.pick(None, &[]));
    assert_eq!(picked(pool.pick(None, &[])), Err(NoServer::Full), "full servers are waited for");
    drop(leases);
    let tried = [pool.servers()[0].id(), pool.servers()[1].id()];
    assert_eq!(picked(pool.pick(None, &tried)), Ok("s3".into()), "a backup is the last try");
    down(&pool.servers()[0]);
    assert_eq!(picked(pool.pick(None, &[])), Ok("s2".into()));
    down(&pool.servers()[1]);
    assert_eq!(picked(pool.pick(None, &[])), Ok("s3".into()));
    up(&pool.servers()[0]);
    assert_eq!(picked(pool.pick(None, &[])), Ok("s1".into()));
}

#[test]
fn a_key_keeps_its_server_and_its_second_choice() {
    for scheduler in [Scheduler::Hash { key: Key::Path }, Scheduler::Mh { key: Key::Path }, Scheduler::Rr] {
        let mut servers = three();
        servers.iter_mut().for_each(|server| server.most.requests = Some(1));
        let (_farm, pool) = farm(scheduler, servers);
        for key in (0..50).map(mix) {
            let first = pool.pick(Some(key), &[]).expect("one is up");
            let second = pool.pick(Some(key), &[]).expect("two are up");
            assert_ne!(first.id(), second.id(), "the first is full");
            let (one, other) = (first.id(), second.id());
            drop((first, second));
            let again = pool.pick(Some(key), &[one]).expect("two are up");
            assert_eq!(again.id(), other, "tried and full lead to the same next best");
        }
    }
}

#[test]
fn standing_says_why_and_since_when() {
    let (_farm, pool) = farm(Scheduler::Rr, three());
    let server = &pool.servers()[0];
    assert_eq!((server.standing().health, server.standing().why.as_str()), (Health::Up, "no check"));
    let at = SystemTime::now();
    server.set_health(Health::Down, "timed out after 1s", at);
    server.set_health(Health::Down, "connect refused", SystemTime::now());
    let standing = Standing { health: Health::Down, why: "connect refused".into(), since: at };
    assert_eq!(server.standing(), standing);
    server.forget_health();
    assert_eq!((server.health(), server.verdict()), (Health::Up, None));
    assert!(pool.pick(None, &[]).is_ok());
}

fn named() -> Server {
    Server { address: Address::Name { host: "origin.example".into(), port: 80 }, ..server(1) }
}

#[test]
fn a_name_is_down_until_it_resolves() {
    let (_farm, pool) = farm(Scheduler::Rr, vec![named()]);
    let server = &pool.servers()[0];
    assert_eq!((server.health(), server.address()), (Health::Down, None));
    assert_eq!(picked(pool.pick(None, &[])), Err(NoServer::Down));
    let (one, other) = (SocketAddr::from(([127, 0, 0, 1], 80)), SocketAddr::from(([127, 0, 0, 2], 80)));
    for address in [one, other] {
        server.set_address(Ok(address));
        assert_eq!(pool.pick(None, &[]).map(|lease| lease.address()), Ok(address));
    }
    down(server);
    server.set_address(Err("name does not resolve: gone".into()));
    assert_eq!(server.standing().why, "name does not resolve: gone");
    server.set_address(Ok(one));
    assert_eq!((server.health(), server.standing().why.as_str()), (Health::Down, "connect refused"));
}

#[test]
fn a_reload_keeps_what_is_alive() {
    let (farm, before) = farm(Scheduler::Rr, three());
    let lease = before.pick(None, &[]).expect("all are up");
    let gone = before.pick(None, &[lease.id()]).expect("two are up");
    let stays = before.servers().iter().find(|s| s.id() != lease.id() && s.id() != gone.id()).expect("three");
    down(stays);

    let kept: Vec<Server> = three().into_iter().filter(|server| *server.name != **gone.name()).collect();
    let mut changes = farm.changes();
    let mut cache = farm.cache();
    assert_eq!(cache.load().generation, 1);
    farm.install(config(pool(Scheduler::Wlc, [kept, vec![server(4)]].concat())), Vec::new());
    assert_eq!(*changes.borrow_and_update(), 2);
    assert_eq!(cache.load().generation, 2);

    let after = Arc::clone(&farm.snapshot().pools[0]);
    assert_eq!(after.id(), before.id());
    let live = after.servers().iter().find(|s| s.name() == lease.name()).expect("kept");
    assert!(Arc::ptr_eq(live, lease.server()) && live.in_flight() == 1);
    assert_eq!(after.servers()[2].id(), 3, "a new server has a new number");
    assert_eq!(farm.server("web/s4").map(|s| s.id()), Some(3));

    // Removed, but a request is still there: found again if it comes back.
    assert!(farm.server(gone.identity()).is_some());
    farm.install(config(pool(Scheduler::Wlc, three())), Vec::new());
    let back = farm.snapshot().pools[0].servers().iter().find(|s| s.name() == gone.name()).map(|s| s.in_flight());
    assert_eq!(back, Some(1));
    drop((before, after, lease));
    let _ = cache.load();
    farm.sweep();
    assert!(farm.retired() == 0 && farm.server("web/s4").is_none(), "what nothing holds is let go");
}

#[test]
fn connections_of_another_way_are_known() {
    let (farm, before) = farm(Scheduler::Rr, three());
    let ways = |farm: &Farm| -> Vec<_> { farm.snapshot().pools[0].servers().iter().map(|s| s.way()).collect() };
    let first = ways(&farm);
    let lease = before.pick(None, &[]).expect("all are up");
    farm.install(config(pool(Scheduler::Lc, three())), Vec::new());
    assert!(ways(&farm) == first && lease.is_current(), "another scheduler is the same way");

    let mut servers = three();
    servers[1].address = server(9).address;
    farm.install(config(pool(Scheduler::Lc, servers.clone())), Vec::new());
    let second = ways(&farm);
    assert!(second[0] == first[0] && second[1] != first[1] && second[2] == first[2], "{first:?} {second:?}");

    let mut other = pool(Scheduler::Lc, servers);
    other.send_proxy = Some(crate::model::pool::ProxyVersion::V2);
    farm.install(config(other), Vec::new());
    assert!(ways(&farm).iter().zip(&second).all(|(now, before)| now != before));
    assert!(!lease.is_current());

    // A pool that was gone and is back as it had been at first: nobody knows what became of it meanwhile.
    farm.install(Arc::default(), Vec::new());
    farm.install(config(pool(Scheduler::Rr, three())), Vec::new());
    let back = farm.snapshot().pools[0].servers().iter().find(|s| s.id() == lease.id()).map(|s| s.way());
    assert_ne!(back, Some(Some(lease.way())));
}

#[test]
fn a_drain_lasts_over_reloads_as_long_as_its_name() {
    let (farm, _pool) = farm(Scheduler::Rr, three());
    farm.set_drains(|drains| assert!(drains.servers.insert("web/s2".into())));
    let picks = |farm: &Farm| {
        let pool = &farm.snapshot().pools[0];
        let mut names: Vec<_> = (0..6).filter_map(|_| picked(pool.pick(None, &[])).ok()).collect();
        names.sort();
        names.dedup();
        names
    };
    assert_eq!(picks(&farm), ["s1", "s3"]);
    farm.install(config(pool(Scheduler::Lc, three())), Vec::new());
    assert_eq!(picks(&farm), ["s1", "s3"]);
    let drained = farm.server("web/s2").unwrap();
    assert!(drained.is_drained() && drained.way().is_none() && drained.health() == Health::Up);

    // A pool is all of its servers, also those to come.
    farm.set_drains(|drains| assert!(drains.pools.insert("web".into())));
    farm.install(config(pool(Scheduler::Lc, [three(), vec![server(4)]].concat())), Vec::new());
    assert!(picks(&farm).is_empty());
    farm.set_drains(|drains| drains.pools.clear());
    assert_eq!(picks(&farm), ["s1", "s3", "s4"]);

    farm.install(config(pool(Scheduler::Lc, vec![server(1)])), Vec::new());
    farm.install(config(pool(Scheduler::Lc, three())), Vec::new());
    assert_eq!(picks(&farm), ["s1", "s2", "s3"], "what the file did not have is forgotten");
    assert_eq!(farm.drains(), Drains::default());
}

#[test]
fn a_server_that_comes_back_is_unknown() {
    let mut checked = pool(Scheduler::Rr, vec![server(1)]);
    checked.checks = vec![Check::with(Probe::CONNECT, Place::file("test"))];
    let farm = Farm::new(config(checked.clone()), Vec::new());
    let held = farm.server("web/s1").unwrap();
    down(&held);
    farm.install(Arc::default(), Vec::new());
    farm.install(config(checked), Vec::new());
    let back = farm.server("web/s1").unwrap();
    assert!(Arc::ptr_eq(&held, &back));
    assert_eq!((back.health(), back.standing().why.as_str()), (Health::Up, "not checked yet"));
}

#[test]
fn health_found_on_the_old_pool_reaches_the_new_one() {
    let mut checked = pool(Scheduler::Rr, vec![server(1)]);
    checked.checks = vec![Check::with(Probe::CONNECT, Place::file("test"))];
    let farm = Farm::new(config(checked.clone()), Vec::new());
    let old = Arc::clone(&farm.snapshot().pools[0]);
    assert_eq!(old.servers()[0].standing().why, "not checked yet");
    down(&old.servers()[0]);
    farm.install(config(checked.clone()), Vec::new());
    let new = Arc::clone(&farm.snapshot().pools[0]);
    assert_eq!(picked(new.pick(None, &[])), Err(NoServer::Down), "a reload does not bring it up");
    up(&old.servers()[0]);
    assert_eq!(picked(new.pick(None, &[])), Ok("s1".into()));

    // Another address is another machine; no check, no verdict.
    down(&new.servers()[0]);
    checked.servers[0].address = server(2).address;
    farm.install(config(checked.clone()), Vec::new());
    assert_eq!(farm.snapshot().pools[0].servers()[0].standing().why, "not checked yet");
    down(&new.servers()[0]);
    checked.checks.clear();
    farm.install(config(checked), Vec::new());
    assert_eq!(farm.snapshot().pools[0].servers()[0].standing().why, "no check");
    assert!(farm.snapshot().pools[0].pick(None, &[]).is_ok());
}

#[test]
fn a_reload_changes_weight_limit_and_backup() {
    let (farm, _pool) = farm(Scheduler::Wrr, three());
    let mut servers = three();
    servers[0].weight = 0;
    servers[1].most.requests = Some(0);
    servers[2].backup = true;
    farm.install(config(pool(Scheduler::Wrr, servers)), Vec::new());
    let pool = &farm.snapshot().pools[0];
    assert_eq!(picked(pool.pick(None, &[])), Err(NoServer::Full));
    down(&pool.servers()[1]);
    assert_eq!(picked(pool.pick(None, &[])), Ok("s3".into()));
}

#[test]
fn a_path_is_its_last_publishers() {
    let (farm, pool) = farm(Scheduler::Lc, three());
    let (paths, one, two) = (&farm.media().paths, &pool.servers()[0], &pool.servers()[1]);
    let publisher = |path: &str, now| paths.publisher("web", path, now).map(|server| server.id());
    let first = paths.publish("/live", one, 100).expect("room");
    // It comes back before its old connection is seen to have ended.
    let second = paths.publish("/live", one, 101).expect("room");
    paths.unpublish(&first, 102);
    assert_eq!((publisher("/live", 999), publisher("/live/track1/", 999)), (Some(one.id()), Some(one.id())));
    assert_eq!((publisher("/liver", 999), paths.publisher("other", "/live", 999).is_none()), (None, true));
    paths.unpublish(&second, 1000);
    assert_eq!((publisher("/live", 1009), publisher("/live", 1010)), (Some(one.id()), None));
    assert!(paths.publish(&format!("/{}", "x".repeat(1 << 10)), two, 0).is_none());
    // What clients were told is theirs alone, and takes no room of what is published.
    let client = |number: u32| std::net::IpAddr::from(std::net::Ipv4Addr::from(number));
    (0..70_000).for_each(|number| paths.tell(client(number), "/cam", two, 2000));
    let told = |number, now| paths.told(client(number), "web", "/cam/track1", now).map(|server| server.id());
    assert_eq!((told(7, 2059), told(7, 2060), told(69_999, 2001)), (Some(two.id()), None, None));
    assert!(paths.publish("/new", two, 2000).is_some());
    paths.tell(client(69_999), "/cam", two, 2060);
    assert_eq!(told(69_999, 2061), Some(two.id()), "what is over has made room");
}

#[test]
fn sessions_that_nobody_ends_are_swept() {
    let (farm, pool) = farm(Scheduler::Lc, three());
    let (sessions, server) = (&farm.media().sessions, &pool.servers()[0]);
    let (kept, begun) = sessions.begin("a", server, 0, 0, 1000).expect("room");
    assert!(begun && !sessions.begin("a", server, 0, 0, 1000).expect("the same").1);
    kept.attach();
    sessions.begin("b", server, 0, 0, 1000).expect("room");
    sessions.sweep(1090);
    assert_eq!((sessions.count(), server.media().sessions()), (2, 2), "it lives half as long again as 60 s");
    sessions.sweep(1095);
    assert_eq!(sessions.count(), 2, "too soon to look again");
    sessions.sweep(1100);
    assert_eq!((sessions.count(), server.media().sessions(), sessions.find("a").is_some()), (1, 1, true));
    // An id that has to become another one may not become too long.
    let long = "x".repeat(256);
    sessions.begin(&long, server, 0, 0, 1100).expect("room");
    let refused = sessions.begin(&long, &pool.servers()[1], 0, 0, 1100).map(|(session, _)| session.id.len());
    assert_eq!(refused, Err(media::sessions::Refused::LongId));
}
