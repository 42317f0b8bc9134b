//! What it costs to choose a server: every scheduler, from 2 to 1,000 servers, with the request counted in
//! and out as the proxy does it.

use std::fmt::Write;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use reeve::balance::hash_bytes;
use reeve::config;
use reeve::state::Farm;

/// The schedulers of a pool, as the configuration writes them, and whether they go by a key.
const SCHEDULERS: &[(&str, &str, bool)] = &[
    ("rr", "\"rr\"", false),
    ("wrr", "\"wrr\"", false),
    ("lc", "\"lc\"", false),
    ("wlc", "\"wlc\"", false),
    ("sed", "\"sed\"", false),
    ("nq", "\"nq\"", false),
    ("fo", "\"fo\"", false),
    ("ovf", "\"ovf\"", false),
    ("first", "\"first\"", false),
    ("random", "\"random\"", false),
    ("twos", "\"twos\"", false),
    ("ewma", "\"ewma\"", false),
    ("hash", "{ hash = \"path\" }", true),
    ("hash, bounded", "{ hash = \"path\", balance-factor = 1.25 }", true),
    ("mh", "{ mh = \"path\" }", true),
    ("sh", "{ sh = \"path\" }", true),
    ("lblc", "{ lblc = \"path\" }", true),
    ("lblcr", "{ lblcr = \"path\" }", true),
    ("content", "{ content = \"path\" }", true),
];

/// A farm of one pool, `web`, of so many servers without checks: all are up. Weights are 1 to `heaviest`.
fn farm(scheduler: &str, servers: usize, heaviest: usize) -> Arc<Farm> {
    let mut text = "[listen.web]\naddress = [\"127.0.0.1:8080\"]\nprotocol = \"http\"\npool = \"web\"\n\n".to_string();
    let _ = write!(text, "[pool.web]\nscheduler = {scheduler}\nservers = [\n");
    for number in 0..servers {
        let (weight, high, low) = (1 + number % heaviest, number / 250, 1 + number % 250);
        let _ = writeln!(text, "  {{ name = \"s{number}\", address = \"10.0.{high}.{low}:80\", weight = {weight} }},");
    }
    text.push_str("]\n");
    let load = config::load_text("picking", &text);
    let config = load.config.unwrap_or_else(|| panic!("{:?}", load.faults));
    Farm::new(Arc::new(config), Vec::new())
}

fn picks(criterion: &mut Criterion) {
    for (name, scheduler, keyed) in SCHEDULERS {
        let mut group = criterion.benchmark_group(format!("pick by {name}"));
        for servers in [2, 10, 100, 1000] {
            let farm = farm(scheduler, servers, 4);
            let pool = farm.snapshot().pool("web").expect("configured").clone();
            let mut number = 0_u64;
            group.bench_function(BenchmarkId::from_parameter(servers), |bencher| {
                bencher.iter(|| {
                    number += 1;
                    let key = keyed.then(|| hash_bytes(&number.to_le_bytes()));
                    let lease = pool.pick(black_box(key), &[]);
                    black_box(lease.is_ok())
                });
            });
        }
        group.finish();
    }
}

/// With 64 requests in flight, as under load: `lc` and `wlc` have something to compare.
fn busy(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pick by wlc, 64 in flight");
    for servers in [10, 1000] {
        let farm = farm("\"wlc\"", servers, 4);
        let pool = farm.snapshot().pool("web").expect("configured").clone();
        let _held: Vec<_> = (0..64).filter_map(|_| pool.pick(None, &[]).ok()).collect();
        group.bench_function(BenchmarkId::from_parameter(servers), |bencher| {
            bencher.iter(|| black_box(pool.pick(None, &[]).is_ok()));
        });
    }
    group.finish();
}

/// Among 100 servers, while another core does nothing but choose among the same: far more than it ever does between
/// requests. With weights from 1 to 4, and with one for all.
fn contended(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pick among 100, and another core does");
    let all = SCHEDULERS.iter().flat_map(|scheduler| [(scheduler, 4), (scheduler, 1)]);
    for ((name, scheduler, keyed), heaviest) in all {
        let farm = farm(scheduler, 100, heaviest);
        let pool = farm.snapshot().pool("web").expect("configured").clone();
        let pick = |number: u64| {
            let key = keyed.then(|| hash_bytes(&number.to_le_bytes()));
            black_box(pool.pick(black_box(key), &[]).is_ok())
        };
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut number = 1 << 40;
                while !stop.load(Ordering::Relaxed) {
                    number += 1;
                    pick(number);
                }
            });
            let mut number = 0_u64;
            group.bench_function(BenchmarkId::new(*name, format!("weights to {heaviest}")), |bencher| {
                bencher.iter(|| {
                    number += 1;
                    pick(number)
                });
            });
            stop.store(true, Ordering::Relaxed);
        });
    }
    group.finish();
}

criterion_group!(picking, picks, busy, contended);
criterion_main!(picking);
