//! An origin killed, frozen and slowed under load: who fails, and how long the farm takes to see it.
//!
//! Three origins in processes of their own, checked every 200 ms, and clients that never pause. The law:
//! a request fails only if it may have reached the origin that went away.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::farm::peer::{program, test_file};
use crate::farm::ports::Port;
use crate::farm::process::{Process, listens};
use crate::farm::{Client, Reeve, alone, get, observe, skip, until};

const NAMES: [&str; 3] = ["one", "two", "three"];
const CLIENTS: usize = 6;
/// Interval 200 ms, two failures of at most 200 ms each, and room for a busy machine.
const LEAVES_WITHIN: Duration = Duration::from_secs(3);

struct Farm {
    ports: Vec<Port>,
    origins: Vec<Process>,
    reeve: Reeve,
}

/// One request, as its client saw it.
#[derive(Debug)]
struct Seen {
    start: Instant,
    took: Duration,
    /// The status and the origin's name, or what went wrong.
    outcome: Result<(u16, String), String>,
}

impl Seen {
    fn served(&self) -> bool {
        matches!(self.outcome, Ok((200, _)))
    }

    fn by(&self, name: &str) -> bool {
        matches!(&self.outcome, Ok((200, origin)) if origin == name)
    }
}

impl Farm {
    fn start(label: &str) -> Option<Farm> {
        if program("python3").is_none() {
            skip("no python3 for the origins");
            return None;
        }
        let ports: Vec<Port> = NAMES.iter().map(|_| Port::free()).collect();
        let origins = ports.iter().zip(NAMES).map(|(port, name)| origin(port, name)).collect();
        let servers: Vec<(&str, String)> = NAMES.into_iter().zip(ports.iter().map(Port::address)).collect();
        let config = crate::farm::reeve::pool("web", "rr", &servers)
            + "check = { http = \"/health\", interval = \"200ms\", timeout = \"200ms\", rise = 2, fall = 2 }\n\
               [timeouts]\nresponse = \"1s\"\nconnect = \"500ms\"\n";
        let reeve = Reeve::start(label, &config, "http *\n  all : any  use web\n");
        let farm = Farm { ports, origins, reeve };
        for name in NAMES {
            farm.sees(name, true);
        }
        Some(farm)
    }

    /// Waits until `/metrics` shows a server up or down; the time it took.
    fn sees(&self, name: &str, up: bool) -> Duration {
        let start = Instant::now();
        let what = format!("{name} is seen to be {}", if up { "up" } else { "down" });
        until(&what, || (up_in(&self.reeve, name) == Some(up)).then_some(()));
        start.elapsed()
    }

    /// Runs `during` while clients load the farm, and returns what each request met.
    fn under_load(&mut self, during: impl FnOnce(&mut Farm)) -> Vec<Seen> {
        let address = self.reeve.address();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(|| keep_asking(&address, &stop))).collect();
            // Also ends the clients when `during` panics, so that the scope can end.
            let guard = Stop(&stop);
            during(self);
            drop(guard);
            clients.into_iter().flat_map(|client| client.join().expect("a client")).collect()
        })
    }
}

struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn origin(port: &Port, name: &str) -> Process {
    let mut command = program("python3").expect("python3 was there");
    command.arg(test_file("it/origin.py")).arg(port.number.to_string()).arg(name);
    let mut process = Process::start(&mut command);
    listens(&mut process, &port.address());
    process
}

fn up_in(reeve: &Reeve, server: &str) -> Option<bool> {
    let text = get(&reeve.site.metrics(), "/metrics", &[]).text();
    let name = format!("server=\"{server}\"");
    let line = text.lines().find(|line| line.starts_with("reeve_server_up{") && line.contains(&name))?;
    Some(line.ends_with(" 1"))
}

fn keep_asking(address: &str, stop: &AtomicBool) -> Vec<Seen> {
    let mut seen = Vec::new();
    let mut client = None;
    while !stop.load(Ordering::SeqCst) {
        let mut connection = match client.take() {
            Some(connection) => connection,
            None => Client::connect(address),
        };
        let start = Instant::now();
        let outcome = connection.request("GET", "/", &[]);
        let took = start.elapsed();
        let again = outcome.as_ref().is_ok_and(|answer| answer.field("connection") != Some("close"));
        client = again.then_some(connection);
        let outcome = outcome.map(|a| (a.status, a.origin().to_owned())).map_err(|e| e.to_string());
        seen.push(Seen { start, took, outcome });
    }
    seen
}

fn failures(seen: &[Seen]) -> Vec<&Seen> {
    seen.iter().filter(|one| !one.served()).collect()
}

/// The servers that the access log blames for failures; complete when every request is in it.
fn blamed(reeve: &Reeve, requests: usize) -> Vec<(i64, String)> {
    let lines = until("the log has every request", || Some(reeve.log()).filter(|lines| lines.len() >= requests));
    let failed = lines.iter().filter(|line| line["status"].as_i64().is_none_or(|status| status >= 500));
    failed
        .map(|line| (line["status"].as_i64().unwrap_or(-1), line["server"].as_str().unwrap_or("-").to_owned()))
        .collect()
}

#[test]
fn a_killed_origin_takes_only_its_own_requests_with_it() {
    let _turn = alone();
    let Some(mut farm) = Farm::start("killed") else { return };
    let (mut before, mut dead, mut left, mut back) = (None, None, None, None);
    let seen = farm.under_load(|farm| {
        observe(Duration::from_millis(300), "the farm serves", || farm.reeve.process.running());
        before = Some(Instant::now());
        farm.origins[1].kill();
        dead = Some(Instant::now());
        left = Some(farm.sees("two", false));
        observe(Duration::from_millis(300), "two stays out", || up_in(&farm.reeve, "two") == Some(false));
        farm.origins[1] = origin(&farm.ports[1], "two");
        back = Some(farm.sees("two", true));
        observe(Duration::from_millis(300), "two stays in", || up_in(&farm.reeve, "two") == Some(true));
    });
    let (before, dead, left) = (before.expect("set"), dead.expect("set"), left.expect("set"));
    let failed = failures(&seen);
    println!("killed: {} requests, {} failed; left after {left:?}, back after {back:?}", seen.len(), failed.len());
    assert!(left < LEAVES_WITHIN, "left after {left:?}");
    // One request of each client may be with it, and one more while the kernel takes the process apart.
    assert!(failed.len() <= 2 * CLIENTS, "{failed:#?}");
    for one in failed {
        let in_flight = one.start <= dead && one.start + one.took >= before;
        assert!(in_flight, "it cannot have reached the dead origin: {one:?}");
    }
    assert!(blamed(&farm.reeve, seen.len()).iter().all(|(_, server)| server == "two"));
    let returned = seen.iter().filter(|one| one.start > dead + left && one.by("two")).count();
    assert!(returned > 0, "the origin that came back is used");
}

#[test]
fn a_frozen_origin_fails_only_what_it_holds() {
    let _turn = alone();
    let Some(mut farm) = Farm::start("frozen") else { return };
    let (mut frozen, mut out, mut back) = (None, None, None);
    let seen = farm.under_load(|farm| {
        observe(Duration::from_millis(300), "the farm serves", || farm.reeve.process.running());
        frozen = Some(Instant::now());
        farm.origins[2].signal(Signal::STOP);
        farm.sees("three", false);
        out = Some(Instant::now());
        // Longer than the response timeout: what it held has ended by then.
        observe(Duration::from_millis(1500), "three stays out", || up_in(&farm.reeve, "three") == Some(false));
        farm.origins[2].signal(Signal::CONT);
        back = Some(farm.sees("three", true));
        observe(Duration::from_millis(300), "three stays in", || up_in(&farm.reeve, "three") == Some(true));
    });
    let (frozen, out) = (frozen.expect("set"), out.expect("set"));
    let left = out - frozen;
    let failed = failures(&seen);
    println!("frozen: {} requests, {} failed; left after {left:?}, back after {back:?}", seen.len(), failed.len());
    assert!(left < LEAVES_WITHIN, "left after {left:?}");
    for one in &failed {
        assert!(matches!(one.outcome, Ok((504, _))), "a frozen origin is a gateway timeout: {one:?}");
        assert!(one.start + one.took >= frozen, "before it was frozen: {one:?}");
        // `out` is when a look at the metrics showed it; requests may lag behind by one.
        assert!(one.start <= out + Duration::from_millis(50), "after it was out: {one:?}");
    }
    assert!(!failed.is_empty(), "requests that were with it cannot have been answered");
    for (status, server) in blamed(&farm.reeve, seen.len()) {
        assert_eq!((status, server.as_str()), (504, "three"));
    }
    let others = seen.iter().filter(|one| one.start > frozen && one.start < out && one.served());
    assert!(others.clone().count() > 0 && others.clone().all(|one| !one.by("three") || one.took < LEAVES_WITHIN));
}

#[test]
fn a_slow_origin_leaves_and_nobody_fails() {
    let _turn = alone();
    let Some(mut farm) = Farm::start("slowed") else { return };
    let delay = |farm: &Farm, ms: u32| {
        let mut client = Client::connect(&farm.ports[0].address());
        let answer = client.request("POST", &format!("/delay/{ms}"), &[("Content-Length", "0")]).expect("an answer");
        assert_eq!(answer.status, 200);
    };
    let (mut left, mut out, mut back, mut quick_again) = (None, None, None, None);
    let seen = farm.under_load(|farm| {
        observe(Duration::from_millis(300), "the farm serves", || farm.reeve.process.running());
        // Slower than its check allows, quicker than a request is given up.
        delay(farm, 400);
        left = Some(farm.sees("one", false));
        out = Some(Instant::now());
        observe(Duration::from_millis(1000), "one stays out", || up_in(&farm.reeve, "one") == Some(false));
        quick_again = Some(Instant::now());
        delay(farm, 0);
        back = Some(farm.sees("one", true));
    });
    let (left, out, quick_again) = (left.expect("set"), out.expect("set"), quick_again.expect("set"));
    let failed = failures(&seen);
    println!("slowed: {} requests, {} failed; left after {left:?}, back after {back:?}", seen.len(), failed.len());
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(left < LEAVES_WITHIN, "left after {left:?}");
    let mut between: Vec<Duration> = seen
        .iter()
        .filter(|one| one.start > out + Duration::from_millis(50) && one.start < quick_again)
        .map(|one| one.took)
        .collect();
    between.sort();
    let worst = between.last().copied().expect("requests while it was out");
    assert!(worst < Duration::from_millis(350), "nobody waits for it any more: {worst:?} of {}", between.len());
}
