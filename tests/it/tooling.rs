//! The commands that reason about rules: overlaps, explanations by the running process, logs replayed, lists edited.

use std::time::Duration;

use serde_json::Value;

use crate::farm::process::run;
use crate::farm::reeve::{Site, command, pool};
use crate::farm::{Client, Origin, Reeve, among_others, get, until};

fn reeve(words: &[&str]) -> (i32, String, String) {
    run(command().args(words), Duration::from_secs(60))
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn overlaps_are_listed_with_a_request_that_explain_confirms() {
    let config =
        pool("web", "rr", &[("one", "127.0.0.1:9".into())]) + &pool("img", "rr", &[("i1", "127.0.0.1:9".into())]);
    let rules =
        "http shop.example\n  api : path /api/**  use web\n  jpg : path *.jpg  use img\n  rest : any  use web\n";
    let site = Site::write("overlaps", &config, rules);
    let file = site.config().display().to_string();
    let (code, out, wrong) = reeve(&["check", "--overlaps", "-c", &file]);
    assert_eq!(code, 0, "{out}{wrong}");
    assert!(out.contains("site.rules:api, before") && out.contains("1 pair of rules whose order matters"), "{out}");
    let (code, out, _) = reeve(&["check", "--overlaps", "--format", "json", "-c", &file]);
    assert_eq!(code, 0);
    let request = json(&out)["overlaps"]["pairs"][0]["request"].as_str().expect("a request").to_owned();
    let (method, url) = request.split_once(' ').expect("a method and an URL");
    let explained = |rules: &str| {
        site.rewrite(&config, rules);
        let (_, out, _) = reeve(&["explain", method, url, "--format", "json", "-c", &file]);
        json(&out)["pool"].clone()
    };
    assert_eq!(explained(rules), "web");
    let turned =
        "http shop.example\n  jpg : path *.jpg  use img\n  api : path /api/**  use web\n  rest : any  use web\n";
    assert_eq!(explained(turned), "img", "{request} shows that the order matters");
}

#[test]
fn the_running_process_explains_what_it_would_do_now() {
    let _turn = among_others();
    let origin = Origin::start("one");
    let config = "[pool.web]\nservers = [\n  { name = \"one\", address = \"ORIGIN\", max-requests = 1 },\n  \
                  { name = \"idle\", address = \"127.0.0.1:9\", weight = 0 },\n  { name = \"sorry\", address = \"127.0.0.1:9\", backup = true },\n]\n"
        .replace("ORIGIN", &origin.address());
    let reeve = Reeve::start("live", &config, "http *\n  api : path /api/**  deny\n  all : any  use web\n");
    let asked = |words: &[&str]| {
        let (code, out, wrong) = reeve.order(&[&["explain", "--live"], words].concat());
        (code, format!("{out}{wrong}"))
    };
    let (code, text) = asked(&["GET", "http://a/x"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("server    one") && text.contains("not idle 127.0.0.1:9: its weight is 0"), "{text}");
    assert!(text.contains("not sorry 127.0.0.1:9: a backup, and others are up"), "{text}");
    let mut client = Client::connect(&reeve.address());
    client.send("GET /hold HTTP/1.1\r\nHost: a\r\n\r\n").expect("sent");
    until("a request is in flight", || (origin.held() == 1).then_some(()));
    let (_, text) = asked(&["GET", "http://a/x", "--format", "json"]);
    let live = json(&text)["live"].clone();
    assert_eq!((&live["picked"], &live["servers"][0]["state"]), (&Value::Null, &"full".into()), "{text}");
    origin.release();
    assert_eq!(client.answer("GET").expect("an answer").text(), "released");
    let (code, _, _) = reeve.order(&["drain", "web/one"]);
    assert_eq!(code, 0);
    let (_, text) = asked(&["GET", "http://a/x"]);
    assert!(text.contains("server    sorry") && text.contains("drained by hand"), "{text}");
    assert!(asked(&["GET", "http://a/api/1"]).1.contains("answer    403"));
    // What is not in force yet is not what is explained.
    reeve.site.rewrite(&config, "http a\n  none : path /none  deny\n");
    assert!(asked(&["GET", "http://a/x"]).1.contains("site.rules:all"));
    reeve.reload_again();
    let (code, text) = asked(&["GET", "http://a/x"]);
    assert_eq!(code, 1, "no route: {text}");
    let (code, text) = asked(&["GET", "nonsense"]);
    assert_eq!(code, 2, "{text}");
}

#[test]
fn a_log_is_replayed_against_other_rules() {
    let _turn = among_others();
    let origin = Origin::start("web");
    let config = pool("web", "rr", &[("one", origin.address())]) + &pool("beta", "rr", &[("b1", origin.address())]);
    let rules = "http *\n  beta : header x-beta = \"1\" | \"2\"  use beta\n  mine : cookie who = joe  use beta\n  rest : any  use web\n";
    let reeve = Reeve::start("replay", &config, rules);
    for (path, name, value) in [
        ("/a", "x-beta", "1"),
        ("/b", "x-beta", "2"),
        ("/c", "cookie", "who=joe"),
        ("/d", "cookie", "who=ann"),
        ("/e", "x-other", "1"),
    ] {
        assert_eq!(get(&reeve.address(), path, &[("Host", "shop.example:80"), (name, value)]).status, 200);
    }
    let lines = until("five lines", || Some(reeve.log()).filter(|lines| lines.len() >= 5));
    // Each worker writes its own in its own time.
    let of = |path: &str| lines.iter().find(|line| line["path"] == path).expect("a line");
    assert_eq!(of("/a")["match"]["header:x-beta"], serde_json::json!(["1"]));
    assert!(!of("/c")["match"].to_string().contains("joe"), "{}", of("/c"));
    let new = "http shop.example\n  beta : header x-beta = \"1\"  use beta\n  mine : cookie who = ann  use beta\n  \
               e : path /e & header x-other  use beta\n  rest : any  use web\n";
    reeve.site.folder.write("new/site.rules", new);
    let (log, file) = (reeve.site.log().display().to_string(), reeve.site.config().display().to_string());
    let rules = reeve.site.folder.path().join("new").display().to_string();
    let replay = |format: &str| {
        let (code, out, wrong) = self::reeve(&["replay", &log, "--rules", &rules, "-c", &file, "--format", format]);
        assert_eq!(code, 0, "{out}{wrong}");
        out
    };
    let told = json(&replay("json"));
    // /b and /c to web, /d to beta; /e depends on a header that the old rules did not read.
    let total = &told["total"];
    assert_eq!((&total["same"], &total["moved"], &total["cannot_tell"]), (&1.into(), &3.into(), &1.into()), "{told}");
    assert_eq!(told["cannot_tell"][0]["why"], "rule site.rules:e reads header x-other, which the log does not say");
    let text = replay("text");
    assert!(text.starts_with("5 requests: 1 same, 3 moved, 1 cannot tell\n"), "{text}");
    assert!(text.contains("site.rules:beta (pool beta) -> site.rules:rest (pool web)"), "{text}");
    assert!(text.contains(": GET shop.example:80/b"), "{text}");
    // Against its own rules nothing moves.
    let (_, out, _) = self::reeve(&[
        "replay",
        &log,
        "--rules",
        &format!("{}/rules", reeve.site.folder.path().display()),
        "-c",
        &file,
    ]);
    assert!(out.starts_with("5 requests: 5 same, 0 moved, 0 cannot tell\n"), "{out}");
    let (code, _, wrong) = self::reeve(&["replay", &file, "--rules", &rules, "-c", &file]);
    assert!(code == 2 && wrong.contains("no line of it is one of the JSON access log"), "{wrong}");
}

#[test]
fn lists_are_edited_while_they_are_in_force() {
    let _turn = among_others();
    let origin = Origin::start("web");
    let rules = "http *\n  bad : from in nets  deny\n  bots : header user-agent in bots  answer 403\n  \
                 ten : path /t/{who}  use map tenants {who}\n  rest : any  use web\n\
                 list bots from \"lists/bots.txt\"\nlist nets from \"lists/nets.txt\"\nmap tenants from \"lists/tenants.map\"\n";
    let site = Site::write("lists", &pool("web", "rr", &[("one", origin.address())]), rules);
    site.folder.write("lists/bots.txt", "# bots\nold # the first\n");
    site.folder.write("lists/nets.txt", "192.0.2.0/24\n");
    site.folder.write("lists/tenants.map", "ann web\n");
    let reeve = Reeve::run(site);
    let text = |name: &str| std::fs::read_to_string(reeve.site.folder.path().join(name)).expect("a list");
    let as_agent = |agent: &str| get(&reeve.address(), "/", &[("User-Agent", agent)]).status;
    let list = |words: &[&str]| {
        let (code, out, wrong) = reeve.order(&[&["list"], words].concat());
        (code, format!("{out}{wrong}"))
    };
    assert_eq!((as_agent("old"), as_agent("new")), (403, 200));
    let (code, told) = list(&["bots", "add", "new", "old"]);
    assert_eq!((code, told.as_str()), (0, "bots: 1 added, 0 removed, 1 there already; 2 entries in lists/bots.txt\n"));
    assert_eq!((as_agent("old"), as_agent("new")), (403, 403));
    assert_eq!(text("lists/bots.txt"), "# bots\nold # the first\nnew\n");
    assert_eq!(list(&["bots", "remove", "old"]).0, 0);
    assert_eq!((as_agent("old"), as_agent("new")), (200, 403));
    assert_eq!(list(&["bots"]).1, "new\n");
    assert!(list(&[]).1.contains("tenants  map           1 entries  lists/tenants.map"), "{}", list(&[]).1);
    // A map: another pool for a key, and a value that is none.
    assert_eq!(get(&reeve.address(), "/t/joe", &[]).status, 404);
    assert_eq!(list(&["tenants", "add", "joe web"]).0, 0);
    assert_eq!(get(&reeve.address(), "/t/joe", &[]).status, 200);
    let (code, told) = list(&["tenants", "add", "eve nobody"]);
    assert!(code == 2 && told.contains("there is no pool `nobody`"), "{told}");
    assert_eq!(text("lists/tenants.map"), "ann web\njoe web\n", "what has a fault is put back");
    assert_eq!(get(&reeve.address(), "/t/joe", &[]).status, 200);
    let (code, told) = list(&["nets", "add", "10.0.0.0/33"]);
    assert!(code == 2 && told.contains("10.0.0.0/33"), "{told}");
    let (code, told) = list(&["robots", "add", "x"]);
    assert!(code == 2 && told.contains("there are: bots, nets, tenants"), "{told}");
    // Nothing else lies in the folder, and the file's mode is what it was.
    let mut names: Vec<_> = std::fs::read_dir(reeve.site.folder.path().join("lists"))
        .expect("the folder")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"))
        .collect();
    names.sort();
    assert_eq!(names, ["bots.txt", "nets.txt", "tenants.map"]);
}
