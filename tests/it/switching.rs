//! Content switching: which request reaches which pool, and the answers that need no pool.

use std::collections::BTreeMap;
use std::io::ErrorKind;

use crate::farm::ports::Port;
use crate::farm::reeve::pool;
use crate::farm::{Client, Origin, Reeve, among_others, get, until};

/// Origins with these names, each alone in a pool of its own name.
fn pools(names: &[&str]) -> (Vec<Origin>, String) {
    let origins: Vec<Origin> = names.iter().map(|name| Origin::start(name)).collect();
    let pairs = names.iter().zip(&origins);
    let text = pairs.map(|(name, origin)| pool(name, "rr", &[(name, origin.address())])).collect();
    (origins, text)
}

/// Method, target, fields, and the pool that must answer.
type Case<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], &'a str);

const SHOP: &str = r#"
http shop.example *.shop.example
  upload : method POST PUT & path /up/**       use uploads
  images : path /img/** | *.jpg | *.png        use images
  beta   : header x-beta = "1"                 use beta
  member : cookie member                       use members
  search : query q                             use search
  user   : path /users/{who}/**                use homes
  near   : from 127.0.0.2/32                   use near
  rest   : any                                 use web

http other.example
  rest   : any                                 use other
"#;

#[test]
fn a_request_reaches_the_pool_that_its_rule_names() {
    let _turn = among_others();
    let names = ["uploads", "images", "beta", "members", "search", "homes", "near", "web", "other"];
    let (_origins, config) = pools(&names);
    let reeve = Reeve::start("switching", &config, SHOP);
    let shop = ("Host", "shop.example");
    let cases: [Case; 19] = [
        ("GET", "/", &[shop], "web"),
        ("GET", "/", &[("Host", "a.shop.example")], "web"),
        ("GET", "/", &[("Host", "SHOP.Example:8080")], "web"),
        ("GET", "/", &[("Host", "shop.example.")], "web"),
        ("GET", "/", &[("Host", "other.example")], "other"),
        ("GET", "/img/a.jpg", &[("Host", "other.example")], "other"),
        ("PUT", "/up/x", &[shop], "uploads"),
        ("GET", "/up/x", &[shop], "web"),
        ("GET", "/img/a/b", &[shop], "images"),
        ("GET", "/img", &[shop], "images"),
        ("GET", "/imgs", &[shop], "web"),
        ("GET", "/deep/er/a.png", &[shop], "images"),
        ("GET", "/a/../img/x?y=1", &[shop], "images"),
        ("GET", "/", &[shop, ("X-Beta", "1")], "beta"),
        ("GET", "/", &[shop, ("X-Beta", "2")], "web"),
        ("GET", "/", &[shop, ("Cookie", "a=b; member=9")], "members"),
        ("GET", "/find?a=1&q=shoes", &[shop], "search"),
        ("GET", "/users/joe/cart", &[shop], "homes"),
        ("DELETE", "/users/joe", &[shop], "homes"),
    ];
    let mut client = Client::connect(&reeve.address());
    for (method, target, fields, expected) in cases {
        let answer = client.request(method, target, fields).unwrap_or_else(|e| panic!("{method} {target}: {e}"));
        assert_eq!((answer.status, answer.origin()), (200, expected), "{method} {target} {fields:?}");
    }
}

#[test]
fn the_source_address_can_choose() {
    let _turn = among_others();
    let (_origins, config) =
        pools(&["uploads", "images", "beta", "members", "search", "homes", "near", "web", "other"]);
    let reeve = Reeve::start("source", &config, SHOP);
    for (source, expected) in [("127.0.0.1", "web"), ("127.0.0.2", "near"), ("127.0.0.3", "web")] {
        let mut client = Client::connect_from(&reeve.address(), Some(source), None);
        // A field that a client can write itself must not choose.
        let fields = [("Host", "shop.example"), ("X-Forwarded-For", "127.0.0.2")];
        let answer = client.request("GET", "/", &fields).expect("an answer");
        assert_eq!(answer.origin(), expected, "from {source}");
    }
}

#[test]
fn a_weighted_split_gives_each_pool_its_share() {
    let _turn = among_others();
    let (_origins, config) = pools(&["beta", "web"]);
    let reeve = Reeve::start("split", &config, "http *\n  all : any  use beta 10% else web\n");
    let mut client = Client::connect(&reeve.address());
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..3000 {
        let answer = client.request("GET", "/", &[]).expect("an answer");
        *counts.entry(answer.origin().to_owned()).or_default() += 1;
    }
    // 300 are expected; the standard deviation is 16.
    let beta = counts.get("beta").copied().unwrap_or(0);
    assert!((220..=380).contains(&beta), "10% of 3000: {counts:?}");
    assert_eq!(counts.values().sum::<u32>(), 3000);
    assert_eq!(counts.len(), 2, "{counts:?}");
}

#[test]
fn servers_of_a_pool_take_turns_and_keys_stay() {
    let _turn = among_others();
    let origins = [Origin::start("a"), Origin::start("b"), Origin::start("c")];
    let servers: Vec<(&str, String)> = ["a", "b", "c"].into_iter().zip(origins.iter().map(Origin::address)).collect();
    let config = pool("turns", "rr", &servers) + &pool("homes", "mh", &servers);
    let rules = "http *\n  user : path /users/{who}/**  use homes by {who}\n  rest : any  use turns\n";
    let reeve = Reeve::start("turns", &config, rules);
    let mut client = Client::connect(&reeve.address());
    let mut turns: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..30 {
        let answer = client.request("GET", "/", &[]).expect("an answer");
        *turns.entry(answer.origin().to_owned()).or_default() += 1;
    }
    assert_eq!(turns, BTreeMap::from([("a".into(), 10), ("b".into(), 10), ("c".into(), 10)]));
    let mut homes: BTreeMap<String, u32> = BTreeMap::new();
    for user in 0..40 {
        let first = client.request("GET", &format!("/users/u{user}/a"), &[]).expect("an answer");
        let again = get(&reeve.address(), &format!("/users/u{user}/b?c=d"), &[]);
        assert_eq!(first.origin(), again.origin(), "user u{user} stays, on whichever core");
        *homes.entry(first.origin().to_owned()).or_default() += 1;
    }
    assert_eq!(homes.len(), 3, "40 users spread over three servers: {homes:?}");
}

#[test]
fn some_rules_answer_by_themselves() {
    let _turn = among_others();
    let (origins, config) = pools(&["web"]);
    let rules = r#"
http shop.example
  old    : path ~"^/p/(\d+)$"      redirect 301 /product/$1
  moved  : path /news/**           redirect https://news.example/
  closed : path /closed            answer 451 "not in this country"
  robots : header user-agent = "badbot"  answer 403
  secret : path /admin/**          deny
  hole   : path /hole              drop
  rest   : any                     use web
"#;
    let reeve = Reeve::start("answers", &config, rules);
    let ask = |target: &str, fields: &[(&str, &str)]| {
        let fields: Vec<(&str, &str)> = [("Host", "shop.example")].into_iter().chain(fields.iter().copied()).collect();
        get(&reeve.address(), target, &fields)
    };
    let old = ask("/p/42?x=1", &[]);
    assert_eq!(old.status, 301);
    let location = old.field("location").unwrap_or("");
    assert!(location.ends_with("/product/42?x=1"), "the query is kept: {location:?}");
    let moved = ask("/news/today", &[]);
    assert_eq!((moved.status, moved.field("location")), (302, Some("https://news.example/")));
    let closed = ask("/closed", &[]);
    assert_eq!(closed.status, 451);
    assert!(closed.text().contains("not in this country"), "{}", closed.text());
    assert_eq!(ask("/x", &[("User-Agent", "badbot")]).status, 403);
    assert_eq!(ask("/admin/users", &[]).status, 403);
    assert_eq!(ask("/admin/%75sers", &[]).status, 403);
    assert_eq!(ask("/x/%2e%2e/admin/users", &[]).status, 403);

    let dropped = Client::connect(&reeve.address()).request("GET", "/hole", &[("Host", "shop.example")]);
    let error = dropped.expect_err("a dropped request has no answer");
    let ended = matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof);
    assert!(ended, "{error}");

    assert_eq!(origins[0].requests(), 0, "none of them is the origin's business");
    assert_eq!(ask("/x", &[]).status, 200, "and the next client is served");
}

#[test]
fn a_host_without_a_section_is_not_found() {
    let _turn = among_others();
    let (origins, config) = pools(&["web"]);
    let reeve = Reeve::start("unknown", &config, "http shop.example\n  rest : any  use web\n");
    let answer = get(&reeve.address(), "/", &[("Host", "other.example"), ("Accept", "application/problem+json")]);
    assert_eq!(answer.status, 404);
    assert_eq!(answer.field("content-type"), Some("application/problem+json"));
    assert_eq!(answer.field("cache-control"), Some("no-store"));
    assert!(answer.body.len() <= 1024, "an error page stays small: {} bytes", answer.body.len());
    let text = answer.text();
    assert!(!text.contains("web") && serde_json::from_str::<serde_json::Value>(&text).is_ok(), "{text}");
    let page = get(&reeve.address(), "/", &[("Host", "other.example"), ("Accept", "text/html,*/*;q=0.8")]);
    assert!(page.field("content-type").is_some_and(|t| t.starts_with("text/html")), "{:?}", page.fields);
    assert_eq!(origins[0].requests(), 0);
}

#[test]
fn fields_are_set_and_removed_before_the_origin_sees_them() {
    let _turn = among_others();
    let (_origins, config) = pools(&["web"]);
    let rules = "http *\n  user : path /users/{who}/**  use web\n    set header x-stage: ingest\n    \
                 set header x-user: {who}\n    remove header x-secret\n  rest : any  use web\n";
    let reeve = Reeve::start("fields", &config, rules);
    let sent = [("X-Secret", "s3cret"), ("X-Stage", "forged"), ("X-Forwarded-For", "6.6.6.6"), ("X-Kept", "k")];
    let seen = get(&reeve.address(), "/users/joe/x", &sent).text().to_ascii_lowercase();
    assert!(seen.contains("x-stage: ingest\r\n") && !seen.contains("forged"), "{seen}");
    assert!(seen.contains("x-user: joe\r\n"), "{seen}");
    assert!(!seen.contains("s3cret"), "{seen}");
    assert!(seen.contains("x-kept: k\r\n"), "{seen}");
    // The defaults: client's claims replaced, and our name in Via.
    assert!(seen.contains("x-forwarded-for: 127.0.0.1\r\n") && !seen.contains("6.6.6.6"), "{seen}");
    assert!(seen.contains("x-forwarded-proto: http\r\n"), "{seen}");
    assert!(seen.contains("via: 1.1 reeve\r\n"), "{seen}");
    let other = get(&reeve.address(), "/x", &sent).text().to_ascii_lowercase();
    assert!(other.contains("x-stage: forged\r\n") && other.contains("x-secret: s3cret\r\n"), "{other}");
}

#[test]
fn a_pool_without_a_live_server_says_when_to_come_back() {
    let _turn = among_others();
    let dead = Port::free();
    let check = "check = { http = \"/\", interval = \"200ms\", timeout = \"200ms\", rise = 1, fall = 1 }\n";
    let config = pool("web", "rr", &[("gone", dead.address())]) + check;
    let reeve = Reeve::start("nobody", &config, "http *\n  all : any  use web\n");
    let answer = until("the dead server is seen to be down", || {
        let answer = get(&reeve.address(), "/", &[]);
        (answer.status == 503).then_some(answer)
    });
    let seconds = answer.field("retry-after").and_then(|value| value.parse::<u32>().ok());
    assert!(seconds.is_some_and(|s| s >= 1), "Retry-After: {:?}", answer.fields);
}

#[test]
fn a_connect_that_fails_is_tried_on_another_server() {
    let _turn = among_others();
    let alive = Origin::start("alive");
    let dead = Port::free();
    let servers = [("dead", dead.address()), ("alive", alive.address())];
    let reeve = Reeve::start("retry", &pool("web", "rr", &servers), "http *\n  all : any  use web\n");
    let mut client = Client::connect(&reeve.address());
    // Fewer than the budget's floor of 3 a second could refuse.
    for n in 0..3 {
        let answer = client.request("GET", "/", &[]).expect("an answer");
        assert_eq!((answer.status, answer.origin()), (200, "alive"), "request {n}");
    }
}
