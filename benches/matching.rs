//! What one routing decision costs, at 10 to 100,000 rules of each shape.
//!
//! Every measured step finds the section by host and the rule by a browser-like head of 14 fields.
//! 20,000 different messages a case, spread over all the rules at random, so that 100,000 rules do not
//! live in the nearest cache by being asked for the same few; `hit` takes one rule each, `miss` nearly
//! matches and takes none. The time and memory of loading are printed first.
//!
//! `cargo bench --bench matching -- --warm-up-time 0.3 --measurement-time 0.7`

use std::cell::LazyCell;
use std::hint::black_box;
use std::net::IpAddr;
use std::time::Instant;

use criterion::{Criterion, criterion_group, criterion_main};
use reeve::model::fault::Place;
use reeve::model::rule::{
    Action, HostPattern, Kind, PathPolicy, Pattern, Patterns, Rule, RuleSet, Section, Target, Term, Test, ValueTest,
};
use reeve::route::{Head, Table};
use reeve::wire::field::Field;

const SIZES: [usize; 4] = [10, 1_000, 10_000, 100_000];
const SHAPES: [&str; 8] = ["prefix", "suffix", "glob", "regex", "regex-own", "header", "cookie", "mixed"];
const MESSAGES: usize = 20_000;

fn place() -> Place {
    Place { file: "bench.rules".into(), line: 1, column: 1, end: 2 }
}

fn path(text: String) -> Test {
    Test::Path(Patterns::AnyOf(vec![match text.strip_prefix('~') {
        Some(regex) => Pattern::Regex { text: regex.into(), place: place() },
        None => Pattern::Glob { text: text.into(), place: place() },
    }]))
}

fn equals(value: String) -> ValueTest {
    ValueTest::Equals(vec![value.into()])
}

const KINDS: [&str; 5] = ["users", "orders", "img", "cart", "search"];

/// The condition of rule `i`.
fn condition(shape: &str, i: usize) -> Vec<Test> {
    let kind = KINDS[i % 5];
    match shape {
        "prefix" => vec![path(format!("/api/{kind}/svc{i}/**"))],
        "suffix" => vec![path(if i.is_multiple_of(2) { format!("*.ext{i}") } else { format!("*-{i}.jpg") })],
        "glob" => vec![path(match i % 3 {
            0 => format!("/shop/*/item{i}/**"),
            1 => format!("/users/{{who}}/orders/o{i}"),
            _ => format!("/img/size{i}-*/*.jpg"),
        })],
        "regex" => vec![path(format!("~^/api/{kind}/svc{i}/v[0-9]+/[a-z]+/[0-9]+(/items)?$"))],
        "regex-own" => vec![path(format!("~^/api/{kind}/svc{i}/v[0-9]+/[a-z]+/t{i}-[0-9]+$"))],
        "header" => {
            vec![path("/api/**".into()), Test::Header { name: "x-tenant".into(), check: equals(format!("tenant-{i}")) }]
        }
        "cookie" => vec![Test::Cookie { name: "tenant".into(), check: equals(format!("t{i}")) }],
        _ => condition(SHAPES[[0, 1, 2, 3, 5, 6][i % 6]], i),
    }
}

/// Path, tenant field and Cookie field of a message that rule `i` takes, or nearly takes.
fn message(shape: &str, i: usize, hit: bool) -> (String, String, String) {
    let kind = KINDS[i % 5];
    let other = (
        "/index.html".to_owned(),
        "none".to_owned(),
        "theme=dark; session=8f14e45fceea167a5a36dedd4bea2543".to_owned(),
    );
    let by_path = |path: String| (path, other.1.clone(), other.2.clone());
    let miss = if hit { "" } else { "x" };
    match shape {
        "prefix" => by_path(format!("/api/{kind}/svc{i}{miss}/v2/detail/{i}")),
        "suffix" if i.is_multiple_of(2) => by_path(format!("/files/2026/report.ext{i}{miss}")),
        "suffix" => {
            by_path(format!("/files/2026/report{miss}-{}.jpg", if hit { i.to_string() } else { "x".to_owned() }))
        }
        "glob" => by_path(match i % 3 {
            0 => format!("/shop/garden/item{i}{miss}/details"),
            1 => format!("/users/joe/orders/o{i}{miss}"),
            _ => format!("/img/size{i}{miss}-large/cat.jpg"),
        }),
        "regex" => by_path(format!("/api/{kind}/svc{i}/v2/detail/{i}{miss}")),
        "regex-own" => by_path(format!("/api/{kind}/svc{i}/v2/detail/t{i}-7{miss}")),
        "header" => ("/api/v1/items/7".to_owned(), format!("tenant-{i}{miss}"), other.2),
        "cookie" => {
            (other.0, other.1, format!("theme=dark; tenant=t{i}{miss}; session=8f14e45fceea167a5a36dedd4bea2543"))
        }
        _ => message(SHAPES[[0, 1, 2, 3, 5, 6][i % 6]], i, hit),
    }
}

fn rules(shape: &str, size: usize) -> RuleSet {
    let rule = |i: usize| {
        let term = |test| Term { negated: false, test, place: place() };
        Rule {
            name: format!("r{i}").into(),
            id: format!("bench.rules:r{i}").into(),
            condition: condition(shape, i).into_iter().map(term).collect(),
            action: Action::Use { target: Target::Pool(0), by: None },
            refinements: Vec::new(),
            place: place(),
        }
    };
    let section = Section {
        kind: Kind::Http,
        hosts: vec![(HostPattern::Exact("shop.example".into()), place())],
        paths: PathPolicy::Safe,
        rules: (0..size).map(rule).collect(),
        place: place(),
    };
    RuleSet { sections: vec![section], ..RuleSet::default() }
}

/// Resident memory of this process in bytes.
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    pages.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4096
}

fn messages(shape: &str, size: usize, hit: bool) -> Vec<(String, String, String)> {
    let mut state: u64 = 12_345;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % size
    };
    (0..MESSAGES).map(|_| message(shape, next(), hit)).collect()
}

const FIELDS: [(&str, &str); 12] = [
    ("Host", "shop.example"),
    ("User-Agent", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0 Safari/537.36"),
    ("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"),
    ("Accept-Language", "de-DE,de;q=0.9,en;q=0.8"),
    ("Accept-Encoding", "gzip, deflate, br, zstd"),
    ("Connection", "keep-alive"),
    ("Referer", "https://shop.example/index.html"),
    ("Sec-Fetch-Dest", "document"),
    ("Sec-Fetch-Mode", "navigate"),
    ("Sec-Fetch-Site", "same-origin"),
    ("Cache-Control", "max-age=0"),
    ("Upgrade-Insecure-Requests", "1"),
];

fn decide(table: &Table, (path, tenant, cookie): &(String, String, String)) -> Option<u32> {
    let mut fields = [Field::EMPTY; 14];
    for (field, (name, value)) in fields.iter_mut().zip(FIELDS) {
        *field = Field { name, value: value.as_bytes() };
    }
    fields[12] = Field { name: "X-Tenant", value: tenant.as_bytes() };
    fields[13] = Field { name: "Cookie", value: cookie.as_bytes() };
    let head = Head {
        method: "GET",
        host: "shop.example",
        path,
        query: "",
        fields: black_box(&fields),
        source: IpAddr::from([192, 0, 2, 1]),
        listener: "main",
        sni: None,
        alpn: &[],
        certificate: None,
        no_tls: false,
        body: reeve::route::Body::Empty,
    };
    let rule = table.section(Kind::Http, black_box(head.host))?.decide_with(None, &head, &mut || 0)?;
    // What the caller goes on with.
    match rule.action() {
        Action::Use { target: Target::Pool(pool), .. } => Some(rule.number() + *pool as u32),
        _ => None,
    }
}

/// The table of `size` rules; prints what loading it took.
fn loaded(shape: &str, size: usize) -> Table {
    let set = rules(shape, size);
    let before = resident();
    let started = Instant::now();
    let mut faults = Vec::new();
    let table = Table::compile(&set, &mut faults);
    let (took, grown) = (started.elapsed(), resident().saturating_sub(before));
    println!("load {shape} {size}: {:.0} ms, {:.1} MB", took.as_secs_f64() * 1e3, grown as f64 / 1e6);
    assert!(faults.is_empty(), "{faults:?}");
    // Regexes that loading leaves for later are compiled by the process off the request path.
    let started = Instant::now();
    table.warm(usize::MAX);
    let (took, grown) = (started.elapsed(), resident().saturating_sub(before));
    if took.as_millis() > 0 {
        println!("warm {shape} {size}: {:.0} ms, {:.1} MB", took.as_secs_f64() * 1e3, grown as f64 / 1e6);
    }
    table
}

fn matching(criterion: &mut Criterion) {
    for shape in SHAPES {
        for size in SIZES {
            // What is not asked for is not loaded.
            let table = LazyCell::new(|| loaded(shape, size));
            for (name, hit) in [("hit", true), ("miss", false)] {
                // Criterion calls what it measures anew for each sample: these stay the same.
                let messages = LazyCell::new(|| {
                    let messages = messages(shape, size, hit);
                    assert!(messages.iter().all(|message| decide(&table, message).is_some() == hit), "{shape} {name}");
                    messages
                });
                let mut turn = None;
                criterion.bench_function(&format!("{shape}/{name}/{size}"), |bench| {
                    let (table, turn) = (&*table, turn.get_or_insert_with(|| messages.iter().cycle()));
                    bench.iter(|| turn.next().map(|message| decide(table, message)));
                });
            }
        }
    }
}

criterion_group!(benches, matching);
criterion_main!(benches);
