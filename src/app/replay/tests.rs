//! Lines as the log writes them, and rules that would do other things with them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::app::demo::Folder;
use crate::proxy::access_log::{ClockText, Entry, matched, write_json};
use crate::route::reads::{Read, Reads};

const CONFIGURATION: &str = "[listen.web]\naddress = [\"127.0.0.1:8080\"]\nrules = [\"rules/site.rules\"]\n\n\
                             [listen.sealed]\naddress = [\"127.0.0.1:8443\"]\nprotocol = \"tls-passthrough\"\n\n\
                             [pool.web]\nservers = [{ address = \"127.0.0.1:9001\" }]\n\n\
                             [pool.beta]\nservers = [{ address = \"127.0.0.1:9002\" }]\n";

/// What is logged of a request by rules that read these.
struct Line<'l> {
    path: &'l str,
    rule: Option<&'l str>,
    pool: Option<&'l str>,
    status: u16,
    failure: Option<&'l str>,
    fields: &'l [(&'l str, &'l str)],
}

const LINE: Line<'_> =
    Line { path: "/", rule: Some("site.rules:rest"), pool: Some("web"), status: 200, failure: None, fields: &[] };

fn written(line: &Line<'_>, headers: &[&str], cookies: &[&str]) -> String {
    let client: SocketAddr = "192.0.2.1:4000".parse().unwrap();
    let fields: Vec<Field<'_>> =
        line.fields.iter().map(|(name, value)| Field { name, value: value.as_bytes() }).collect();
    let head = Head {
        method: "GET",
        host: "shop.example",
        path: line.path,
        query: "",
        fields: &fields,
        source: client.ip(),
        listener: "web",
        sni: None,
        alpn: &[],
        certificate: None,
        no_tls: false,
        body: Body::Empty,
    };
    let all = |names: &[&str], read: fn(Arc<str>) -> Read| names.iter().map(|name| read((*name).into())).collect();
    let reads = Reads { headers: all(headers, Read::header), cookies: all(cookies, Read::cookie), ..Reads::default() };
    let kept = (reads != Reads::default()).then(|| {
        let mut out = Vec::new();
        matched::values(&reads, &head, &mut matched::Hashes::default(), &mut out);
        out
    });
    let (path, query) = line.path.split_once('?').map_or((line.path, None), |(path, query)| (path, Some(query)));
    let entry = Entry {
        unix_ms: 0,
        id: 1,
        listener: "web",
        client,
        proto: "HTTP/1.1",
        tls: None,
        sni: None,
        method: b"GET",
        host: Some(b"Shop.example:8080"),
        path: path.as_bytes(),
        query: query.map(str::as_bytes),
        status: line.status,
        rule: line.rule,
        pool: line.pool,
        server: None,
        tries: 1,
        bytes_in: 0,
        bytes_out: 0,
        t_queue: Duration::ZERO,
        t_connect: Duration::ZERO,
        t_header: Duration::ZERO,
        t_total: Duration::ZERO,
        affinity: None,
        failure: line.failure,
        side: None,
        matched: kept.as_deref(),
        referer: None,
        user_agent: None,
    };
    let mut out = Vec::new();
    write_json(&entry, &mut ClockText::default(), &mut out);
    String::from_utf8(out).unwrap()
}

/// What other rules make of a log.
fn replayed(rules: &str, log: &str) -> serde_json::Value {
    let folder = Folder::new().unwrap();
    let file = folder.write("config/reeve.toml", CONFIGURATION).unwrap();
    folder.write("rules/site.rules", "http *\n  rest : any  use web\n").unwrap();
    folder.write("new/site.rules", rules).unwrap();
    let request = crate::config::Request { file, rules: Some(folder.path().join("new")), ..Default::default() };
    let prepared = check::texts(&request);
    assert!(prepared.is_good(), "{}", crate::config::fault::text(&prepared.load.faults, &prepared.load.sources));
    let replay = replay(log.as_bytes(), None, &prepared).unwrap();
    let (text, json) = (replay.text(), replay.json());
    let total = &json["total"];
    let counted = format!("{} same, {} moved, {} cannot tell", total["same"], total["moved"], total["cannot_tell"]);
    assert!(text.contains(&counted), "{text}");
    json
}

fn totals(json: &serde_json::Value) -> (u64, u64, u64) {
    let count = |name: &str| json["total"][name].as_u64().unwrap();
    (count("same"), count("moved"), count("cannot_tell"))
}

#[test]
fn what_moves_is_grouped_with_the_first_line_of_it() {
    let line = |path| written(&Line { path, ..LINE }, &[], &[]);
    let log = [line("/a"), line("/api/1?x=y"), line("/api/2"), line("/b")].concat();
    let json = replayed("http shop.example\n  api : path /api/**  use beta\n  rest : any  use web\n", &log);
    assert_eq!(totals(&json), (2, 2, 0));
    let group = &json["moves"][0];
    assert_eq!((&group["count"], &group["line"]), (&2.into(), &2.into()));
    assert_eq!((&group["from_rule"], &group["from"]), (&"site.rules:rest".into(), &"pool web".into()));
    assert_eq!((&group["to_rule"], &group["to"]), (&"site.rules:api".into(), &"pool beta".into()));
    assert_eq!(group["request"], "GET Shop.example:8080/api/1?x=y");
    assert_eq!(json["rules"]["site.rules:rest"]["moved"], 2);
}

#[test]
fn values_that_were_kept_decide_and_others_cannot_be_told() {
    let with = |fields, headers: &[&str]| written(&Line { fields, ..LINE }, headers, &[]);
    let rules = "http *\n  low  : path /none  deny\n  beta : header x-beta = \"1\"  use beta\n  rest : any  use web\n";
    // Kept: sent as 1, sent as 2, not sent. Not kept: a log of rules that did not read it.
    let log = [
        with(&[("X-Beta", "1")], &["x-beta"]),
        with(&[("x-beta", "2")], &["x-beta"]),
        with(&[], &["x-beta"]),
        with(&[("x-beta", "1")], &[]),
    ];
    let json = replayed(rules, &log.concat());
    assert_eq!(totals(&json), (2, 1, 1));
    assert_eq!(json["cannot_tell"][0]["why"], "rule site.rules:beta reads header x-beta, which the log does not say");
    assert_eq!(json["cannot_tell"][0]["line"], 4);
    // A rule before it that takes the request anyway makes it plain again.
    let json = replayed("http *\n  all : path /**  use web\n  beta : header x-beta  use beta\n", &log[3]);
    assert_eq!(totals(&json), (1, 0, 0));
    // And one that cannot take it for another reason plays no part.
    let json = replayed("http *\n  beta : header x-beta & path /other  use beta\n  rest : any  use web\n", &log[3]);
    assert_eq!(totals(&json), (1, 0, 0));
    let long = "x".repeat(300);
    let cut = with(&[("x-beta", &long)], &["x-beta"]);
    assert_eq!(totals(&replayed(rules, &cut)), (0, 0, 1), "what was cut may be anything");
}

#[test]
fn of_cookies_a_hash_is_enough_to_compare_and_not_to_search() {
    let log = |cookie| written(&Line { fields: &[("cookie", cookie)], ..LINE }, &[], &["who"]);
    let equal = "http *\n  joe : cookie who = joe  use beta\n  rest : any  use web\n";
    assert_eq!(totals(&replayed(equal, &log("who=joe"))), (0, 1, 0));
    assert_eq!(totals(&replayed(equal, &log("who=ann; x=joe"))), (1, 0, 0));
    let there = "http *\n  some : cookie who  use beta\n  rest : any  use web\n";
    assert_eq!(totals(&replayed(there, &log("who=ann"))), (0, 1, 0));
    let differs = "http *\n  other : cookie who != joe  use beta\n  rest : any  use web\n";
    assert_eq!(totals(&replayed(differs, &log("who=joe"))), (1, 0, 0));
    assert_eq!(totals(&replayed(differs, &log("who=ann"))), (0, 1, 0));
    let searched = "http *\n  some : cookie who ~\"^j\"  use beta\n  rest : any  use web\n";
    assert_eq!(totals(&replayed(searched, &log("who=joe"))), (0, 0, 1));
    assert_eq!(totals(&replayed(searched, &log("x=y"))), (1, 0, 0), "what was not sent is found by no search");
}

#[test]
fn answers_limits_and_dice() {
    let line = |rule, pool, status, failure| written(&Line { rule, pool, status, failure, ..LINE }, &[], &[]);
    let rules = "http *\n  tea : any  answer 418\n";
    let log = [
        line(Some("site.rules:tea"), None, 418, None),
        line(Some("site.rules:tea"), None, 404, Some("no-route")),
        line(Some("site.rules:tea"), None, 429, Some("rate")),
        line(Some("site.rules:old"), None, 429, Some("rate")),
        // Refused before rules were asked.
        line(None, None, 400, Some("bad-request")),
    ];
    let json = replayed(rules, &log.concat());
    assert_eq!((totals(&json), &json["unrouted"]), ((2, 1, 1), &1.into()));
    let split = "http *\n  rest : any  use beta 10% else web\n";
    assert_eq!(totals(&replayed(split, &line(Some("a"), Some("beta"), 200, None))), (1, 0, 0));
    assert_eq!(totals(&replayed(split, &line(Some("a"), Some("gone"), 200, None))), (0, 1, 0));
    let chance = "http *\n  some : chance 5%  use beta\n  rest : any  use web\n";
    assert_eq!(totals(&replayed(chance, &line(Some("a"), Some("web"), 200, None))), (0, 0, 1));
}

#[test]
fn lines_that_are_none_are_counted_and_the_first_told() {
    let good = written(&LINE, &[], &[]);
    let long = "x".repeat((1 << 20) + 10);
    let log = format!("{good}nonsense\n\n{{\"listener\":1}}\n{long}\n{good}1\n2\n3\n{}", good.trim_end());
    let json = replayed("http *\n  rest : any  use web\n", &log);
    assert_eq!((totals(&json), &json["bad"], &json["lines"]), ((3, 0, 0), &7.into(), &10.into()));
    let bad: Vec<_> = json["bad_lines"].as_array().unwrap().iter().map(|bad| bad["line"].as_u64().unwrap()).collect();
    assert_eq!(bad, [2, 3, 4, 5, 7]);
    assert_eq!(json["bad_lines"][3]["why"], "longer than 1024 KiB");
}
