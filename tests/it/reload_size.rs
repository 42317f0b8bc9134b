//! What a large reload costs those who are being served: ten thousand rules, a thousand pools.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::farm::reeve::{pool, released};
use crate::farm::{Client, Origin, Reeve, alone};

const POOLS: usize = 1_000;
const RULES: usize = 10_000;
/// A reload that costs requests something costs them so in every round; other work of the machine does not.
const ROUNDS: usize = 6;
const BUMP: Duration = Duration::from_millis(20);

fn texts(origin: &Origin, round: usize) -> (String, String) {
    let mut config = pool("web", "rr", &[("one", origin.address())]);
    for number in 0..POOLS {
        config += &pool(&format!("p{number}"), "wlc", &[("a", origin.address()), ("b", origin.address())]);
    }
    let mut rules = String::new();
    for section in 0..100 {
        rules += &format!("http h{section}.example\n");
        for number in 0..RULES / 100 {
            let to = (section * 7 + number) % POOLS;
            rules += &format!("  r{section}-{number} : path /s{number}/**  use p{to}\n");
        }
    }
    rules += "http *\n";
    for number in 0..round {
        rules += &format!("  more-{number} : path /more/{number}  use p{number}\n");
    }
    (config, rules + "  all : any  use web\n")
}

#[test]
fn ten_thousand_rules_and_a_thousand_pools_are_no_weight_on_requests() {
    let _alone = alone();
    let origin = Origin::start("web");
    let (config, rules) = texts(&origin, 0);
    let reeve = Reeve::start("size", &config, &rules);
    let (address, over) = (reeve.address(), AtomicBool::new(false));
    let client = |number: usize| {
        let mut client = Client::connect(&address);
        let (mut seen, mut round): (Vec<(Instant, Duration)>, usize) = (Vec::new(), number);
        while !over.load(Ordering::Relaxed) {
            round += 1;
            let (host, path) = (format!("h{}.example", round % 100), format!("/s{}/x", round % 100));
            let began = Instant::now();
            let answer = client.request("GET", &path, &[("Host", &host)]).expect("an answer");
            assert_eq!(answer.status, 200);
            seen.push((began, began.elapsed()));
            thread::park_timeout(Duration::from_millis(1));
        }
        seen
    };
    let (reloads, seen) = thread::scope(|scope| {
        let clients: Vec<_> = (0..3).map(|number| scope.spawn(move || client(number * 31))).collect();
        let reloads: Vec<(Instant, Instant, f64)> = (1..=ROUNDS)
            .map(|round| {
                // The time before it is the measure of the time within.
                thread::park_timeout(Duration::from_millis(400));
                let (config, rules) = texts(&origin, round);
                reeve.site.rewrite(&config, &rules);
                let began = Instant::now();
                let (code, out, wrong) = reeve.order(&["reload", "--format", "json"]);
                assert_eq!(code, 0, "{wrong}");
                let answer: serde_json::Value = serde_json::from_str(&out).expect("JSON");
                (began, Instant::now(), answer["seconds"].as_f64().expect("a time"))
            })
            .collect();
        thread::park_timeout(Duration::from_millis(400));
        over.store(true, Ordering::Relaxed);
        let seen: Vec<_> = clients.into_iter().flat_map(|client| client.join().expect("a client")).collect();
        (reloads, seen)
    });
    let within = |from: Instant, to: Instant| {
        let those = seen.iter().filter(|(began, took)| *began + *took >= from && *began <= to);
        those.map(|(_, took)| *took).max().unwrap_or_default()
    };
    let grace = Duration::from_millis(200);
    let bumps = reloads.iter().map(|(from, to, seconds)| {
        let (before, during) = (within(*from - grace * 2, *from), within(*from, *to + grace));
        eprintln!("a reload of {seconds:.3} s: the slowest request took {during:?}, before it {before:?}");
        during.saturating_sub(before)
    });
    let least = bumps.min().unwrap_or_default();
    let fastest = reloads.iter().map(|(_, _, seconds)| *seconds).fold(f64::MAX, f64::min);
    if released() {
        assert!(fastest < 1.0, "{fastest} s");
        assert!(least < BUMP, "each reload made a request wait for {least:?} or more");
    }
}
