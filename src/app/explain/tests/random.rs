//! Random rule files and random requests: `explain` says what traffic does, and a rule that is reported as never
//! matching is reached by no request that was made for it.

use std::net::IpAddr;
use std::sync::Arc;

use super::*;
use crate::app::random::{self, Dice, Request, Written, WrittenRule};
use crate::config::rules::{Input, Names};
use crate::model::fault::{Fault, Severity};
use crate::model::rule::RuleSet;
use crate::route::Table;
use crate::route::overlap::{Judge, Relation, Witness};

const CONFIGURATION: &str = r#"
[listen.web]
address = ["127.0.0.1:8080"]

[listen.inside]
address = ["127.0.0.1:8081"]
pool    = "web"

[listen.media]
address  = ["127.0.0.1:8554"]
protocol = "rtsp"

[listen.sealed]
address  = ["127.0.0.1:8443"]
protocol = "tls-passthrough"

[pool.web]
servers = [{ name = "web1", address = "127.0.0.1:9001" }]

[pool.images]
scheduler = { hash = "path" }
servers = [{ name = "img1", address = "127.0.0.1:9003" }]

[pool.homes]
scheduler = "mh"
servers = [{ name = "home1", address = "127.0.0.1:9004" }]
"#;

fn configuration() -> Config {
    let load = crate::config::load_text("reeve.toml", CONFIGURATION);
    load.config.unwrap_or_else(|| panic!("{:?}", load.faults))
}

/// The rules of a text, compiled, and the lines of those that can never match.
fn compiled(config: &Config, text: &str) -> (RuleSet, Table, Vec<u32>) {
    let names: Vec<Arc<str>> = config.pools.iter().map(|pool| pool.name.clone()).collect();
    let listeners: Vec<Arc<str>> = config.listeners.iter().map(|listener| listener.name.clone()).collect();
    let read = |wanted: &str| {
        let found = random::LISTS.iter().chain([&random::MAP]).find(|(name, _)| *name == wanted);
        found.map(|(_, text)| (*text).to_owned()).ok_or(std::io::ErrorKind::NotFound.into())
    };
    let input = Input { name: "r.rules".into(), text };
    let names = Names { pools: &names, listeners: &listeners, read: &read, read_secret: &read };
    let mut faults = Vec::new();
    let set = crate::config::rules::parse(&[input], &names, &mut faults);
    let table = Table::compile(&set, &mut faults);
    let errors: Vec<&Fault> = faults.iter().filter(|fault| fault.severity == Severity::Error).collect();
    assert!(errors.iter().all(|fault| fault.code == "R0301"), "{errors:?}\n{text}");
    let shadowed = errors.iter().map(|fault| fault.place.line).collect();
    (set, table, shadowed)
}

/// What traffic does with a request, as `proxy::plan` and `proxy::opaque` go about it: the rule, what is done, and the hash of the key.
#[derive(Debug, PartialEq)]
struct Done {
    rule: Option<String>,
    does: String,
    key: Option<u64>,
}

fn traffic(config: &Config, table: &Table, kind: Kind, request: &Request, roll: u32) -> Done {
    let sealed = kind == Kind::Tcp;
    let host = if sealed { request.sni.clone().unwrap_or_default() } else { request.host.clone() };
    let section = table.section(kind, &host);
    let mut scratch = String::new();
    let policy = section.map(route::Section::policy).unwrap_or_default();
    let nothing = |does: &str| Done { rule: None, does: does.to_owned(), key: None };
    let path = match route::path::normalise(if sealed { "" } else { &request.path }, policy, &mut scratch) {
        Ok(path) => path,
        Err(_) if !sealed => return nothing("refused 400"),
        Err(_) => "",
    };
    let fields = request.fields();
    let mut fields: Vec<Field<'_>> =
        fields.iter().map(|(name, value)| Field { name, value: value.as_bytes() }).collect();
    fields.push(Field { name: "Host", value: host.as_bytes() });
    let query = request.query.join("&");
    let alpn: Vec<&[u8]> = request.alpn.iter().map(|name| name.as_bytes()).collect();
    let head = Head {
        method: if sealed { "" } else { &request.method },
        host: &host,
        path,
        query: if sealed { "" } else { &query },
        fields: if sealed { &[] } else { &fields },
        source: request.from.parse::<IpAddr>().unwrap(),
        listener: request.listener,
        sni: request.sni.as_deref(),
        alpn: &alpn,
        certificate: None,
        no_tls: request.no_tls,
        body: Body::Empty,
    };
    let Some(rule) = section.and_then(|section| section.decide_with(None, &head, &mut || roll)) else {
        return nothing(if request.listener == "inside" { "pool web" } else { "no-route" });
    };
    let done = |does: String, key| Done { rule: Some(rule.id().to_string()), does, key };
    match rule.action() {
        Action::Use { target, by } => match route::pool(target, &head, rule, &mut || roll) {
            Some(pool) => {
                let pool = &config.pools[pool];
                let by = by.as_ref().or(pool.scheduler.key());
                done(format!("pool {}", pool.name), by.and_then(|key| route::key_hash(key, Some(rule), &head)))
            }
            None => done("no-route".to_owned(), None),
        },
        Action::Redirect { code, to } => {
            let location = route::location(to, rule, &head).unwrap_or_default();
            done(format!("redirect {code} {}", String::from_utf8_lossy(&location)), None)
        }
        Action::Answer { code, .. } => done(format!("answer {code}"), None),
        Action::Deny => done("deny".to_owned(), None),
        Action::Drop => done("drop".to_owned(), None),
    }
}

/// The same as `explain` reports it.
fn reported(report: &Report) -> Done {
    let key_hash = |name: &str, value: &str| match name {
        "source" => match value.parse::<IpAddr>().unwrap() {
            IpAddr::V4(address) => route::hash::hash(0, &address.octets()),
            IpAddr::V6(address) => route::hash::hash(0, &address.octets()),
        },
        _ => route::hash::hash(0, value.as_bytes()),
    };
    let (rule, does, key) = match &report.outcome {
        Outcome::Pool { rule, pool, key, .. } => {
            let key = key.as_ref().and_then(|(name, value)| Some(key_hash(name, value.as_ref()?)));
            (rule.as_ref(), format!("pool {pool}"), key)
        }
        Outcome::Redirect { rule, code, location } => (Some(rule), format!("redirect {code} {location}"), None),
        Outcome::Answer { rule, code, .. } => (Some(rule), format!("answer {code}"), None),
        Outcome::Deny { rule } => (Some(rule), "deny".to_owned(), None),
        Outcome::Drop { rule } => (Some(rule), "drop".to_owned(), None),
        Outcome::NotInMap { rule } => (Some(rule), "no-route".to_owned(), None),
        Outcome::Refused { status, .. } => (None, format!("refused {status}"), None),
        Outcome::NoRoute => (None, "no-route".to_owned(), None),
    };
    Done { rule: rule.map(|rule| rule.id.clone()), does, key }
}

fn asked(kind: &str, request: &Request, roll: u32) -> Question {
    let mut url = Vec::new();
    if kind == "tcp" {
        url.extend(request.sni.as_ref().map(|name| format!("sni:{name}")));
        url.extend((!request.alpn.is_empty()).then(|| format!("alpn:{}", request.alpn.join(","))));
        url.extend(request.no_tls.then(|| "no-tls".to_owned()));
    } else {
        url.push(format!("{kind}://{}{}", request.host, request.target()));
    }
    Question {
        method: if kind == "tcp" { "tcp".to_owned() } else { request.method.clone() },
        url,
        headers: request.fields(),
        from: request.from.parse().unwrap(),
        listener: Some(request.listener.to_owned()),
        roll,
        body: None,
        cert: None,
    }
}

fn kind_of(word: &str) -> Kind {
    match word {
        "http" => Kind::Http,
        "rtsp" => Kind::Rtsp,
        _ => Kind::Tcp,
    }
}

/// Asks traffic and `explain` for so many requests; half of them are aimed at a rule of the file. Returns how many a rule took.
fn compare(seed: u64, files: usize, requests: usize) -> usize {
    let mut dice = Dice(seed);
    let mut taken = 0;
    for _ in 0..files {
        let written = random::file(&mut dice, 16);
        let mut config = configuration();
        let (set, table, _) = compiled(&config, &written.text);
        config.rule_sets = vec![set];
        let table = Arc::new(table);
        let (config, tables) = (&config, [table.clone()]);
        let ground = Ground { config, tables: &tables, pools: None };
        for _ in 0..requests {
            let aim = &written.rules[dice.below(written.rules.len())];
            let (kind, roll) = (aim.kind, dice.below(10_000) as u32);
            let request = if dice.percent(50) { aim.aimed(&mut dice) } else { random::request(&mut dice, kind) };
            let expected = traffic(config, &table, kind_of(kind), &request, roll);
            let said = match explain(&asked(kind, &request, roll), &ground) {
                Ok(report) => reported(&report),
                Err(message) => panic!("{message}: {request:?}"),
            };
            assert_eq!(said, expected, "{kind} {request:?} roll {roll}\n{}", written.text);
            taken += usize::from(expected.rule.is_some());
        }
    }
    taken
}

/// A hundred times as much with `CHECK_LONG`.
fn scale() -> usize {
    if std::env::var_os("CHECK_LONG").is_some() { 100 } else { 1 }
}

/// 100,000 requests over 500 files, in four tests because these run side by side.
fn quarter(number: u64) {
    let taken = compare(number, 125 * scale(), 200);
    assert!(taken > 10_000, "only {taken} requests met a rule");
}

#[test]
fn explain_says_what_traffic_does_1() {
    quarter(1);
}

#[test]
fn explain_says_what_traffic_does_2() {
    quarter(2);
}

#[test]
fn explain_says_what_traffic_does_3() {
    quarter(3);
}

#[test]
fn explain_says_what_traffic_does_4() {
    quarter(4);
}

/// A rule alone, in a file of its own.
fn alone(config: &Config, written: &Written, rule: &WrittenRule) -> Table {
    let declared: String = written.text.lines().take(random::LISTS.len() + 1).map(|line| format!("{line}\n")).collect();
    compiled(config, &format!("{declared}{}{}", rule.head, rule.text)).1
}

#[test]
fn what_is_said_never_to_match_is_reached_by_no_request_made_for_it() {
    let config = configuration();
    let mut dice = Dice(5);
    let (mut rules, mut hits) = (0, 0);
    for _ in 0..150 * scale() {
        let written = random::file(&mut dice, 24);
        let (_, table, shadowed) = compiled(&config, &written.text);
        for line in shadowed {
            rules += 1;
            let rule = written.rules.iter().find(|rule| rule.line == line).unwrap();
            let alone = alone(&config, &written, rule);
            let name = rule.text.trim().split(' ').next().unwrap();
            for _ in 0..60 {
                let (request, roll) = (rule.aimed(&mut dice), dice.below(10_000) as u32);
                let kind = kind_of(rule.kind);
                // It would meet another section.
                let strays = rule.host == "other.example" && request.host.ends_with("shop.example");
                if strays || traffic(&config, &alone, kind, &request, roll).rule.is_none() {
                    continue;
                }
                hits += 1;
                let found = traffic(&config, &table, kind, &request, roll).rule;
                let id = format!("r.rules:{name}");
                assert!(
                    found.is_some() && found.as_ref() != Some(&id),
                    "{id} is said never to match, and {found:?} takes {request:?} roll {roll}\n{}",
                    written.text
                );
            }
        }
    }
    assert!(rules > 100 && hits > 20 * rules, "{rules} rules, {hits} requests that they would take");
}

fn of_witness(witness: &Witness) -> Request {
    let listener =
        ["web", "inside", "media", "sealed"].into_iter().find(|name| witness.listener.as_deref() == Some(name));
    Request {
        method: witness.method.clone(),
        host: witness.host.clone(),
        path: witness.path.clone(),
        query: witness.query.split('&').filter(|pair| !pair.is_empty()).map(str::to_owned).collect(),
        fields: witness.fields.clone(),
        cookies: Vec::new(),
        from: witness.source.map_or("0.0.0.0".to_owned(), |source| source.to_string()),
        listener: listener.unwrap_or("web"),
        sni: witness.sni.clone(),
        alpn: witness.alpn.clone(),
        no_tls: witness.no_tls,
    }
}

#[test]
fn a_request_that_shows_an_overlap_is_taken_by_both_and_what_is_told_apart_by_none() {
    let config = configuration();
    let mut dice = Dice(6);
    let listeners: Vec<Arc<str>> = config.listeners.iter().map(|listener| listener.name.clone()).collect();
    let (mut shown, mut unknown, mut apart) = (0, 0, 0);
    for _ in 0..60 * scale() {
        let written = random::file(&mut dice, 12);
        let (set, table, _) = compiled(&config, &written.text);
        let tables: Vec<Table> = written.rules.iter().map(|rule| alone(&config, &written, rule)).collect();
        let mut before = 0;
        for position in 0..set.sections.len() {
            let judge = Judge::new(&table, &set, &listeners, position);
            let end = before + set.sections[position].rules.len();
            let (rules, tables) = (&written.rules[before..end], &tables[before..end]);
            before = end;
            let takes = |at: usize, request: &Request| {
                let strays = rules[at].host == "other.example" && request.host.ends_with("shop.example");
                // A chance that nobody's dice keep from holding, and one that they do.
                let asked = |roll| traffic(&config, &tables[at], kind_of(rules[at].kind), request, roll).rule.is_some();
                !strays && (asked(0) || asked(9_999))
            };
            let mut relations = std::collections::HashMap::new();
            for (first, second) in (0..rules.len()).flat_map(|second| (0..second).map(move |first| (first, second))) {
                let relation = judge.relation(first, second, &mut 1);
                let texts = [&rules[first].text, &rules[second].text];
                match &relation {
                    Relation::Meets(witness) => {
                        shown += 1;
                        let (request, by_chance) = (of_witness(witness), |at: usize| rules[at].text.contains("chance"));
                        assert!(by_chance(first) || takes(first, &request), "{request:?} {texts:?}");
                        assert!(by_chance(second) || takes(second, &request), "{request:?} {texts:?}");
                    }
                    Relation::Unknown => unknown += 1,
                    Relation::Apart => apart += 1,
                    _ => {}
                }
                relations.insert((first, second), relation);
            }
            for _ in 0..100 {
                let request = rules[dice.below(rules.len())].aimed(&mut dice);
                let taken: Vec<usize> = (0..rules.len()).filter(|at| takes(*at, &request)).collect();
                for (first, second) in
                    taken.iter().flat_map(|b| taken.iter().map(move |a| (*a, *b))).filter(|(a, b)| a < b)
                {
                    let texts = [&rules[first].text, &rules[second].text];
                    assert_ne!(relations[&(first, second)], Relation::Apart, "{request:?} {texts:?}");
                }
            }
        }
    }
    // Certificates are not made up, lists and some regexes not met.
    assert!(shown > 500 && apart > 500 && unknown < shown, "{shown} shown, {apart} apart, {unknown} unknown");
}
