//! Texts in a folder, a command line, and what is said about it.

mod random;

use clap::Parser;

use super::*;
use crate::app::args::{Arguments, Command};
use crate::app::demo::Folder;

const CONFIGURATION: &str = r#"
[listen.web]
address = ["127.0.0.1:8080"]

[listen.inside]
address = ["127.0.0.1:8081"]
rules   = ["rules/shop.rules"]
pool    = "web"

[listen.sealed]
address = ["127.0.0.1:8443"]
protocol = "tls-passthrough"

[pool.web]
servers = [{ name = "web1", address = "127.0.0.1:9001" }, { name = "old", address = "127.0.0.1:9002", weight = 0 }]

[pool.images]
scheduler = { hash = "path" }
servers = [{ name = "img1", address = "127.0.0.1:9003" }]

[pool.beta]
servers = [{ name = "beta1", address = "127.0.0.1:9006", backup = true }]
"#;

const RULES: &str = r#"
http shop.example *.shop.example
  upload : method POST PUT & path /up/**          use web
  images : path /img/**                           use images
  beta   : path /api/** & header x-beta = "1"     use beta 10% else web
  user   : path /users/{who}/**                   use web by {who}
             set header x-user: {who}
             rewrite /u/{who}?new
             limit body 10MiB
             limit 20/m per source
             limit connections 7
             timeout total 1m
             timeout connect 500ms
             retry 1 on connect
             remove header cookie
  old    : path ~"^/p/(\d+)$"                     redirect 301 /product/$1
  tea    : path /tea                              answer 418 "short and stout"
  office : path /admin/** & from 10.0.0.0/8       use web
  secret : path /admin/**                         deny
  gone   : path /gone                             drop
  tenant : path /t/{who}/**                       use map tenants {who}
map tenants from "lists/tenants.map"
tcp
  acme   : alpn acme-tls/1                        use beta
  sealed : sni *.shop.example                     use images by host
  bare   : no-tls & from 10.0.0.0/8               use web
  bad    : sni bad.example                        deny
"#;

/// The report for a command line.
fn explained(words: &[&str]) -> Result<Report, String> {
    let folder = Folder::new().unwrap();
    folder.write("config/reeve.toml", CONFIGURATION).unwrap();
    folder.write("rules/shop.rules", RULES).unwrap();
    folder.write("lists/tenants.map", "ann images\n").unwrap();
    let file = folder.path().join("config/reeve.toml");
    let line = ["reeve", "explain"].iter().chain(words).copied().chain(["-c", file.to_str().unwrap()]);
    let Some(Command::Explain(arguments)) = Arguments::parse_from(line).command else { panic!("another command") };
    let prepared = check::texts(&request(arguments.texts.clone()));
    assert!(prepared.is_good(), "{}", crate::config::fault::text(&prepared.load.faults, &prepared.load.sources));
    let config = prepared.load.config.as_ref().unwrap();
    explain(&question(&arguments), &Ground { config, tables: &prepared.tables, pools: None })
}

fn report(words: &[&str]) -> Report {
    explained(words).unwrap()
}

fn pool_of(report: &Report) -> (&str, Option<&str>) {
    match &report.outcome {
        Outcome::Pool { pool, key, .. } => (pool, key.as_ref().map(|(_, value)| value.as_deref().unwrap_or("none"))),
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_rule_before_the_winner_says_what_kept_it() {
    let report = report(&["GET", "http://shop.example/api/v1", "-H", "x-beta: 1", "--roll", "7"]);
    assert_eq!(pool_of(&report), ("beta", None));
    let steps: Vec<_> =
        report.steps.iter().map(|step| (step.id.as_str(), step.place.line, step.failed.clone())).collect();
    let failed = |term: &str, saw: &str| Some((term.to_owned(), saw.to_owned()));
    assert_eq!(
        steps,
        [
            ("shop.rules:upload", 3, failed("method POST PUT", "GET")),
            ("shop.rules:images", 4, failed("path /img/**", "/api/v1")),
            ("shop.rules:beta", 5, None),
        ]
    );
    let Outcome::Pool { rule: Some(winner), servers, .. } = &report.outcome else { panic!("no winner") };
    assert_eq!(winner.action, "use beta 10% else web");
    assert_eq!(servers, &["beta1 127.0.0.1:9006 (backup)"]);
}

#[test]
fn the_dice_decide_a_split() {
    let at = |roll: &str| {
        let report = report(&["GET", "http://shop.example/api/v1", "-H", "x-beta: 1", "--roll", roll]);
        pool_of(&report).0.to_owned()
    };
    assert_eq!((at("9.99"), at("10")), ("beta".to_owned(), "web".to_owned()));
}

#[test]
fn keys_and_changes_have_their_values() {
    let images = report(&["GET", "http://shop.example/a/../img/%61.png"]);
    assert_eq!(pool_of(&images), ("images", Some("/img/a.png")));
    assert_eq!(images.matched_path.as_deref(), Some("/img/a.png"));

    let user = report(&["GET", "http://shop.example/users/ann/basket?x=1"]);
    assert_eq!(pool_of(&user), ("web", Some("ann")));
    let Outcome::Pool { rule: Some(winner), servers, .. } = &user.outcome else { panic!("no winner") };
    assert_eq!(winner.changes[..3], ["set header x-user: ann", "remove header cookie", "rewrite /u/ann?new"]);
    assert_eq!(
        winner.changes[3..],
        [
            "limit body 10MiB",
            "limit 20/m per source",
            "limit connections 7",
            "timeout total 60s",
            "timeout connect 500ms",
            "retry 1 on connect",
        ]
    );
    assert_eq!(servers[1], "old 127.0.0.1:9002 (drains)");
}

#[test]
fn a_map_says_what_was_looked_up() {
    let ann = report(&["GET", "http://shop.example/t/ann/x"]);
    assert_eq!(pool_of(&ann).0, "images");
    let text = super::report::text(&ann);
    assert!(text.contains("action    use map tenants {who}\n  map       {who} = ann\n"), "{text}");
    let bob = report(&["GET", "http://shop.example/t/bob"]);
    assert!(matches!(bob.outcome, Outcome::NotInMap { .. }), "{bob:?}");
    assert!(super::report::text(&bob).contains("answer    404: the map has no pool for it"));
    assert_eq!(super::report::json(&bob)["status"], 404);
}

#[test]
fn answers_of_reeves_own() {
    let redirect = report(&["GET", "http://shop.example/p/42?a=b"]);
    let Outcome::Redirect { code: 301, location, rule } = &redirect.outcome else { panic!("{redirect:?}") };
    assert_eq!((location.as_str(), rule.action.as_str()), ("/product/42?a=b", "redirect 301 /product/$1"));
    let tea = report(&["GET", "http://shop.example/tea"]);
    assert!(matches!(&tea.outcome, Outcome::Answer { code: 418, text: Some(text), .. } if text == "short and stout"));
    assert!(matches!(report(&["GET", "http://shop.example/admin/x"]).outcome, Outcome::Deny { .. }));
    assert!(matches!(report(&["GET", "http://shop.example/gone"]).outcome, Outcome::Drop { .. }));
    let office = report(&["GET", "http://shop.example/admin/x", "--from", "::ffff:10.1.2.3"]);
    assert_eq!(pool_of(&office).0, "web");
}

#[test]
fn the_section_says_why_it_is_the_one() {
    let why = |host: &str| {
        let report = report(&["GET", &format!("http://{host}/tea")]);
        report.section.map(|section| (section.name, section.why, section.place.line))
    };
    assert_eq!(why("SHOP.example.:80"), Some(("http shop.example".to_owned(), "exact host", 2)));
    assert_eq!(why("a.b.shop.example"), Some(("http *.shop.example".to_owned(), "longest wildcard", 2)));
    assert_eq!(why("other.example"), None);
}

#[test]
fn no_route_and_bad_paths() {
    let none = report(&["GET", "http://shop.example/"]);
    assert!(matches!(none.outcome, Outcome::NoRoute));
    assert_eq!(none.steps.len(), 10, "all rules were asked");
    assert!(matches!(report(&["GET", "http://other.example/"]).outcome, Outcome::NoRoute));
    assert!(matches!(report(&["GET", "http://shop.example/a%00"]).outcome, Outcome::Refused { status: 400, .. }));
    assert!(matches!(report(&["TRACE", "http://shop.example/a"]).outcome, Outcome::Refused { status: 405, .. }));
    let inside = report(&["GET", "http://other.example/", "--listener", "inside"]);
    assert_eq!(pool_of(&inside).0, "web");
}

#[test]
fn sealed_connections_are_explained_by_what_their_hello_says() {
    let web = report(&["tcp", "sni:WWW.Shop.example.", "alpn:h2,http/1.1"]);
    assert_eq!((pool_of(&web), web.listener.as_str()), (("images", Some("www.shop.example")), "sealed"));
    assert_eq!(web.steps[0].failed, Some(("alpn acme-tls/1".to_owned(), "h2, http/1.1".to_owned())));
    assert_eq!(web.section.as_ref().map(|section| (section.name.as_str(), section.rules)), Some(("tcp", 4)));
    assert_eq!(pool_of(&report(&["tcp", "alpn:h2,acme-tls/1"])).0, "beta");
    assert_eq!(pool_of(&report(&["tcp", "no-tls", "--from", "10.1.1.1"])).0, "web");
    assert_eq!(pool_of(&report(&["tcp", "no-tls", "from:10.1.1.1", "listener:sealed"])).0, "web");
    let none = report(&["tcp"]);
    assert!(matches!(none.outcome, Outcome::NoRoute));
    assert!(super::report::text(&none).contains("tcp (no name)  from 127.0.0.1"));
    let deny = report(&["tcp", "sni:bad.example"]);
    assert!(super::report::text(&deny).contains("answer    none: the connection is closed"));
    assert_eq!(super::report::json(&deny)["status"], serde_json::Value::Null);
}

#[test]
fn what_cannot_be_asked_is_said() {
    assert!(explained(&["GET", "http://shop.example/", "--listener", "nobody"]).unwrap_err().contains("web, inside"));
    assert!(explained(&["OPTIONS", "rtsp://shop.example/x"]).unwrap_err().contains("rtsp"));
    assert!(explained(&["GET", "shop.example"]).is_err());
    assert!(explained(&["GET"]).unwrap_err().contains("needs one URL"));
    assert!(explained(&["tcp", "path:/a", "--listener", "sealed"]).unwrap_err().contains("sni:NAME"));
    assert!(explained(&["tcp", "--listener", "web"]).unwrap_err().contains("speaks http"));
    assert!(explained(&["tcp", "no-tls", "sni:a"]).unwrap_err().contains("no-tls"));
}

#[test]
fn a_running_pool_says_whom_it_would_take_and_why_not_the_others() {
    use crate::state::{Farm, Health};

    let folder = Folder::new().unwrap();
    let file = folder.write(
        "config/reeve.toml",
        r#"
[listen.web]
address = ["127.0.0.1:8080"]

[pool.web]
scheduler = "rr"
check = { tcp = true }
servers = [
  { name = "one", address = "127.0.0.1:9001" },
  { name = "two", address = "127.0.0.1:9002", max-requests = 1 },
  { name = "three", address = "127.0.0.1:9003" },
  { name = "four", address = "127.0.0.1:9004" },
  { name = "none", address = "127.0.0.1:9005", weight = 0 },
  { name = "sorry", address = "127.0.0.1:9006", backup = true },
]
"#,
    );
    folder.write("rules/a.rules", "http *\n  keyed : path /k  use web by path\n  rest : any  use web\n").unwrap();
    let prepared = check::texts(&crate::config::Request { file: file.unwrap(), ..Default::default() });
    assert!(prepared.is_good(), "{}", crate::config::fault::text(&prepared.load.faults, &prepared.load.sources));
    let farm = Farm::new(Arc::new(prepared.load.config.unwrap()), prepared.tables);
    let snapshot = farm.snapshot();
    let pool = snapshot.pool("web").unwrap();
    let asked = |url: &str| Question {
        method: "GET".to_owned(),
        url: vec![url.to_owned()],
        headers: Vec::new(),
        from: "127.0.0.1".parse().unwrap(),
        listener: None,
        roll: 0,
        body: None,
    };
    let states = |url: &str| {
        let explained = live(&asked(url), &snapshot).unwrap();
        let servers = explained.report["live"]["servers"].as_array().unwrap().clone();
        let state = |server: &serde_json::Value| format!("{} {}", server["name"], server["state"]).replace('"', "");
        (servers.iter().map(state).collect::<Vec<_>>(), explained)
    };
    pool.servers()[3].set_health(Health::Down, "status 503", std::time::SystemTime::now());
    farm.set_drains(|drains| {
        drains.servers.insert("web/three".into());
    });
    // Both that are left are asked in turn; to be asked whom it would be moves nothing.
    let (before, explained) = states("http://a/");
    assert_eq!(states("http://a/").0, before);
    assert_eq!(pool.position(), 0);
    let next = explained.report["live"]["picked"].as_str().unwrap().to_owned();
    let lease = pool.pick(None, &[]).unwrap();
    assert_eq!(**lease.name(), *next);
    assert_eq!(before[2..], ["three drained", "four down", "none weight-0", "sorry backup"]);
    assert!(explained.text.contains("not four 127.0.0.1:9004: down since 0 s ago: status 503"), "{}", explained.text);
    assert!(explained.text.contains(&format!("server    {next}\n")), "{}", explained.text);
    // A key is looked up as traffic does it.
    let keyed = live(&asked("http://a/k"), &snapshot).unwrap().report;
    let hash = route::hash::hash(0, b"/k");
    drop(lease);
    assert_eq!(keyed["live"]["picked"].as_str(), Some(&**pool.pick(Some(hash), &[]).unwrap().name()));
    // Nobody is left but the one that is full, then but the backup.
    pool.servers()[0].set_health(Health::Down, "refused", std::time::SystemTime::now());
    let only = pool.pick(None, &[]).unwrap();
    let (full, explained) = states("http://a/");
    assert_eq!((&*full[1], &explained.report["live"]["picked"]), ("two full", &serde_json::Value::Null));
    assert!(explained.text.contains("none: every server that is up is full"), "{}", explained.text);
    drop(only);
    pool.servers()[1].set_health(Health::Down, "refused", std::time::SystemTime::now());
    assert_eq!(states("http://a/").0[5], "sorry picked");
}
