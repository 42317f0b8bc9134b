//! Reloads: what changes, what stays, and what a fault leaves as it was.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::farm::h2::Session;
use crate::farm::h2_origin::H2Origin;
use crate::farm::ports::Port;
use crate::farm::reeve::{Site, pool};
use crate::farm::{Authority, Client, Origin, Reeve, among_others, get, observe, until};

const RULES: &str = "http *\n  all : any  use web\n";

/// The pool `web` with this one server.
fn web(origin: &Origin) -> String {
    pool("web", "rr", &[("one", origin.address())])
}

fn listen(name: &str, port: &Port, more: &str) -> String {
    format!("\n[listen.{name}]\naddress = [\"{}\"]\nrules = [\"rules/site.rules\"]\n{more}\n", port.address())
}

#[test]
fn what_the_texts_change_is_changed() {
    let _turn = among_others();
    let (one, two) = (Origin::start("one"), Origin::start("two"));
    let (old, new, metrics) = (Port::free(), Port::free(), Port::free());
    let reeve = Reeve::start("changes", &(web(&one) + &listen("old", &old, "")), RULES);
    assert_eq!(get(&old.address(), "/", &[]).origin(), "one");
    assert_eq!(get(&reeve.address(), "/two", &[]).origin(), "one");

    // A pool, a listener, a rule, a limit, a page, another log and another metrics address.
    let log = reeve.site.folder.path().join("second.log");
    reeve.site.folder.write("sorry.html", "nobody is here");
    let config = web(&one)
        + &pool("two", "rr", &[("two", two.address())])
        + &listen("new", &new, "")
        + "\n[limits]\ntarget-bytes = \"1KiB\"\n[errors]\n404 = \"sorry.html\"\n";
    reeve.site.rewrite(&config, "http a.example\n  two : path /two  use two\n  all : any  use web\n");
    let file = reeve.site.config();
    let text = std::fs::read_to_string(&file).expect("the configuration");
    let text = text.replace(&reeve.site.log().display().to_string(), &log.display().to_string());
    let text = text.replace(&format!("\"{}\"", reeve.site.metrics()), &format!("\"{}\"", metrics.address()));
    std::fs::write(&file, text).expect("written");
    let said = reeve.reload_again();
    for part in
        ["configuration 2", "listeners  +new -old", "pools      +two", "servers    +two/two", "rules      2 (+1 -0)"]
    {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
    assert!(said.contains("settings   limits log monitor errors"), "{said}");
    assert!(said.contains(&format!("opened     {} (new)", new.address())), "{said}");
    assert!(said.contains(&format!("closed     {} (old)", old.address())), "{said}");

    assert!(TcpStream::connect(old.address()).is_err(), "nobody listens where nobody is to");
    let host = [("Host", "a.example")];
    assert_eq!(get(&new.address(), "/two", &host).origin(), "two");
    assert_eq!(get(&reeve.address(), "/", &host).origin(), "one");
    let lost = get(&reeve.address(), "/", &[("Host", "b.example")]);
    assert_eq!((lost.status, lost.text().as_str()), (404, "nobody is here"));
    let long = format!("/{}", "x".repeat(2000));
    assert_eq!(get(&reeve.address(), &long, &host).status, 414);
    let lines = || std::fs::read_to_string(&log).unwrap_or_default().lines().count();
    until("four lines in the other log", || (lines() >= 4).then_some(()));
    assert_eq!(reeve.log().len(), 2, "the log before has what was asked before");
    until("the other metrics address", || TcpStream::connect(metrics.address()).ok());
    until("the metrics address before is closed", || TcpStream::connect(reeve.site.metrics()).is_err().then_some(()));
    let page = get(&metrics.address(), "/metrics", &[]).text();
    assert!(
        page.contains("reeve_reloads_total{result=\"ok\"} 1") && page.contains("reeve_config_generation 2"),
        "{page}"
    );
    // Hits of a rule that stays are kept.
    assert!(page.contains("reeve_rule_hits_total{rule=\"site.rules:all\"} 3"), "{page}");
}

#[test]
fn a_fault_leaves_all_as_it_was_and_is_told_whole() {
    let _turn = among_others();
    let origin = Origin::start("web");
    let reeve = Reeve::start("refused", &web(&origin), RULES);
    let mut client = Client::connect(&reeve.address());
    assert_eq!(client.request("GET", "/", &[]).expect("an answer").status, 200);

    reeve.site.rewrite(&web(&origin).replace("rr", "rrr"), "http *\n  all : any  use wep\n  b : path /x  nonsense\n");
    let (code, out, wrong) = reeve.order(&["reload"]);
    assert_eq!((code, out.as_str()), (2, "not reloaded: configuration 1 is still in force\n"));
    for part in ["there is no pool `wep`", "did you mean \"web\"?", "nonsense", "\"rrr\"", "^^^"] {
        assert!(wrong.contains(part), "no {part:?} in {wrong}");
    }
    let (code, out, _) = reeve.order(&["reload", "--format", "json"]);
    let answer: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, &answer["done"], &answer["generation"]), (2, &false.into(), &1.into()));
    assert_eq!(answer["faults"].as_array().map(Vec::len), Some(3), "{out}");
    assert!(answer["faults"].as_array().expect("a list").iter().all(|fault| fault["line"].as_u64() > Some(0)), "{out}");

    // Texts without a fault that ask for what cannot be had: nothing is half done.
    let (taken, free) = (TcpListener::bind("127.0.0.1:0").expect("a port"), Port::free());
    let address = taken.local_addr().expect("an address").to_string();
    let config =
        web(&origin) + &listen("free", &free, "") + &listen("taken", &free, "").replace(&free.address(), &address);
    reeve.site.rewrite(&config, "http *\n  all : any  deny\n");
    let (code, _, wrong) = reeve.order(&["reload"]);
    assert!(code == 2 && wrong.contains("listen.taken: cannot listen on") && wrong.contains("ss -ltnp"), "{wrong}");
    assert!(TcpStream::connect(free.address()).is_err(), "the other new listener is not open either");

    assert_eq!(client.request("GET", "/", &[]).expect("an answer").status, 200);
    assert_eq!(reeve.metric("reeve_reloads_total{result=\"refused\"}"), Some(3.0));
    assert_eq!(reeve.metric("reeve_reloads_total{result=\"ok\"}"), Some(0.0));
    let (_, status, _) = reeve.order(&["status"]);
    assert!(status.contains("configuration 1") && status.contains("reloads      0, 3 refused"), "{status}");

    // By a signal the same is told in the log.
    reeve.site.rewrite(&web(&origin), "http *\n  all : any  use wep\n");
    reeve.process.signal(Signal::HUP);
    reeve.process.says("there is no pool `wep`");
    reeve.process.says("configuration not reloaded");
    reeve.site.rewrite(&web(&origin), "http *\n  all : any  deny\n");
    reeve.process.signal(Signal::HUP);
    reeve.process.says("configuration reloaded");
    assert_eq!(client.request("GET", "/", &[]).expect("an answer").status, 403, "the connection is the same");
}

#[test]
fn what_needs_a_restart_is_said() {
    let _turn = among_others();
    let origin = Origin::start("web");
    let reeve = Reeve::start("restart", &web(&origin), RULES);
    let file = reeve.site.config();
    let text = std::fs::read_to_string(&file).expect("the configuration");
    std::fs::write(&file, text.replace("workers = 2", "workers = 3") + "\n[state]\npath = \"other\"\n")
        .expect("written");
    let said = reeve.reload_again();
    assert!(
        said.contains("note: process.workers has changed") && said.contains("note: state.path has changed"),
        "{said}"
    );
}

#[test]
fn connections_to_servers_stay_where_the_servers_do() {
    let _turn = among_others();
    let (one, two) = (Origin::start("one"), Origin::start("two"));
    let reeve = Reeve::start("idle", &web(&one), RULES);
    let mut client = Client::connect(&reeve.address());
    let mut ask = || client.request("GET", "/", &[]).expect("an answer").origin().to_owned();
    assert_eq!((ask().as_str(), one.made()), ("one", 1));

    // Another scheduler, another weight, another server beside it: the connection is used again.
    let more =
        pool("web", "wrr", &[("one", one.address()), ("none", "127.0.0.1:1\", weight = 0, backup = true }, #".into())]);
    let more = more.split(", #").next().map(|text| text.to_owned() + "\n]\n").expect("a text");
    for _ in 0..5 {
        reeve.reload(&more, RULES);
        assert_eq!((ask().as_str(), one.made(), one.open()), ("one", 1, 1));
        reeve.reload(&web(&one), RULES);
        assert_eq!((ask().as_str(), one.made(), one.open()), ("one", 1, 1));
    }

    // The server has moved: its connections are of no use, and are closed.
    reeve.reload(&web(&two), RULES);
    assert_eq!(ask(), "two");
    until("the connection to the old place is closed", || (one.open() == 0).then_some(()));

    // It is to be told whose connection it is: what was not told is not used.
    reeve.reload(&(web(&two) + "send-proxy-protocol = \"v1\"\n"), RULES);
    until("the connection that said nothing is closed", || (two.open() == 0).then_some(()));
    reeve.reload(&web(&two), RULES);
    assert_eq!((ask().as_str(), two.made()), ("two", 2));

    // And gone.
    reeve.reload(&pool("web", "rr", &[("other", one.address())]), RULES);
    assert_eq!(ask(), "one");
    until("the connection to the removed server is closed", || (two.open() == 0).then_some(()));
}

#[test]
fn connections_of_http2_to_servers_stay_as_well() {
    let _turn = among_others();
    let (one, two) = (H2Origin::start(100), H2Origin::start(100));
    let config =
        |origin: &H2Origin, more: &str| pool("web", "rr", &[("one", origin.address())]) + "protocol = \"h2c\"\n" + more;
    let reeve = Reeve::start("channels", &config(&one, ""), RULES);
    // One that is under way over all of them.
    let mut busy = Client::connect(&reeve.address());
    busy.send("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfour\r\n").expect("sent");
    until("it is at the server", || (one.requests() == 1).then_some(()));
    let mut client = Client::connect(&reeve.address());
    let mut ask = || client.request("GET", "/sized/10", &[]).expect("an answer").status;
    assert_eq!(ask(), 200);
    let made = one.connections();
    for round in 0..4 {
        reeve.reload(&config(&one, if round % 2 == 0 { "[timeouts]\nconnect = \"1s\"\n" } else { "" }), RULES);
        assert_eq!((ask(), one.connections()), (200, made));
    }
    reeve.reload(&config(&two, ""), RULES);
    assert_eq!((ask(), two.connections(), one.connections()), (200, 1, made), "the server has moved");
    until("only the busy one is left", || (one.open() == 1).then_some(()));
    busy.send("4\r\nfive\r\n0\r\n\r\n").expect("sent");
    assert_eq!(busy.answer("POST").expect("an answer").text(), "fourfive");
    until("it says goodbye when it is done", || (one.open() == 0).then_some(()));
}

#[test]
fn health_outlives_a_reload_and_probes_go_on() {
    let _turn = among_others();
    let (one, dead) = (Origin::start("one"), Port::free());
    let checked = |two: &str, more: &str| {
        let servers = [("one", one.address()), ("two", two.to_owned())];
        let check = "check = { http = \"/health\", interval = \"400ms\", rise = 1, fall = 2 }\n";
        pool("web", "rr", &servers) + check + more
    };
    let reeve = Reeve::start("health", &checked(&dead.address(), ""), RULES);
    let state = |server: &str| -> (String, String) {
        let (_, out, _) = reeve.order(&["servers", "--format", "json"]);
        let all: serde_json::Value = serde_json::from_str(&out).expect("JSON");
        let one = all["servers"].as_array().and_then(|all| all.iter().find(|it| it["server"] == server).cloned());
        let one = one.unwrap_or_default();
        (one["state"].as_str().unwrap_or_default().to_owned(), one["reason"].as_str().unwrap_or_default().to_owned())
    };
    until("the dead one is found down", || (state("two").0 == "down").then_some(()));
    let before = (one.requests(), std::time::Instant::now());
    for round in 0..10 {
        let more = if round % 2 == 0 { "\n[timeouts]\nconnect = \"1s\"\n" } else { "" };
        reeve.reload(&checked(&dead.address(), more), RULES);
        assert_eq!(state("two").0, "down", "it is not forgotten");
    }
    let (probes, most) = (one.requests() - before.0, before.1.elapsed().as_secs_f64() / 0.3 + 3.0);
    assert!((probes as f64) < most, "{probes} probes within {:?}", before.1.elapsed());
    // Another address is another machine.
    reeve.reload(&checked(&one.address(), ""), RULES);
    assert_ne!(state("two").1, "connection refused");
    until("it is found up", || (state("two").0 == "up").then_some(()));
}

#[test]
fn a_removed_listener_lets_everybody_finish() {
    let _turn = among_others();
    let origin = Origin::start("web");
    let (gone, raw) = (Port::free(), Port::free());
    let tunnels = format!("\n[listen.raw]\naddress = \"{}\"\nprotocol = \"tcp\"\npool = \"web\"\n", raw.address());
    let config = web(&origin) + "\n[timeouts]\ndrain = \"3s\"\n";
    let reeve = Reeve::start("removed", &(config.clone() + &listen("gone", &gone, "") + &tunnels), RULES);
    let mut busy = Client::connect(&gone.address());
    busy.send("GET /hold HTTP/1.1\r\nHost: a\r\n\r\n").expect("sent");
    let mut idle = Client::connect(&gone.address());
    assert_eq!(idle.request("GET", "/", &[]).expect("an answer").status, 200);
    let mut silent = Client::connect(&gone.address());
    let streams = Session::connect(&gone.address());
    assert_eq!(streams.get("/").expect("an answer").status, 200);
    let mut tunnel = Client::connect(&raw.address());
    assert_eq!(tunnel.request("GET", "/", &[]).expect("an answer").status, 200);
    let mut stays = Client::connect(&reeve.address());
    assert_eq!(stays.request("GET", "/", &[]).expect("an answer").status, 200);
    until("the request is held", || (origin.held() == 1).then_some(()));

    reeve.reload(&config, RULES);
    assert!(TcpStream::connect(gone.address()).is_err() && TcpStream::connect(raw.address()).is_err());
    // Whoever still asks within the grace is answered, by the rules that held when he came, for the last time.
    let answer = idle.request("GET", "/", &[]).expect("an answer");
    assert_eq!((answer.status, answer.origin(), answer.field("connection")), (200, "web", Some("close")));
    let mut end = [0; 1];
    assert!(matches!(silent.read(&mut end), Ok(0) | Err(_)), "an idle connection is closed");
    let mut sender = streams.sender();
    let closed = streams.runtime().block_on(async {
        tokio::time::timeout(Duration::from_secs(10), async {
            while std::future::poll_fn(|cx| sender.poll_ready(cx)).await.is_ok() {
                tokio::task::yield_now().await;
            }
        })
        .await
    });
    assert!(closed.is_ok(), "a client of HTTP/2 is told to go");
    assert_eq!(tunnel.request("GET", "/", &[]).expect("an answer").status, 200, "a tunnel has its time");
    origin.release();
    let answer = busy.answer("GET").expect("the answer of a request that was in flight");
    assert_eq!((answer.text().as_str(), answer.field("connection")), ("released", Some("close")));
    assert!(matches!(tunnel.read(&mut end), Ok(0) | Err(_)), "and no more than that");
    until("the end of the tunnel in the log", || {
        reeve.log().iter().any(|line| line["listener"] == "raw" && line["failure"] == "drained").then_some(())
    });
    assert_eq!(stays.request("GET", "/", &[]).expect("an answer").status, 200, "the others are not touched");
}

#[test]
fn a_listener_that_speaks_another_language_lets_the_old_ones_finish() {
    let _turn = among_others();
    let origin = Origin::start("web");
    let port = Port::free();
    let site = Site::write("language", &(web(&origin) + &listen("both", &port, "")), RULES);
    let authority = Authority::new("the test's own");
    site.folder.write("ca.pem", authority.pem());
    authority.issue("t.example", &["t.example"]).write(&site.folder, "certs/site");
    let reeve = Reeve::run(site);
    let mut plain = Client::connect(&port.address());
    assert_eq!(plain.request("GET", "/", &[]).expect("an answer").status, 200);
    let mut websocket = Client::connect(&port.address());
    upgrade(&mut websocket);

    let config =
        web(&origin) + &listen("both", &port, "tls = { certificates = \"certs\" }") + "[state]\npath = \"state\"\n";
    let said = reeve.reload(&config, RULES);
    assert!(said.contains("listeners  ~both"), "{said}");
    let answer = plain.request("GET", "/", &[]).expect("an answer");
    assert_eq!((answer.status, answer.field("connection")), (200, Some("close")), "it was let in in clear");
    let config = authority.client().into();
    let mut secure = Client::secure(&port.address(), "t.example", &config).expect("a session");
    assert_eq!(secure.request("GET", "/", &[]).expect("an answer").status, 200);
    echo(&mut websocket);
    observe(Duration::from_secs(2), "the WebSocket is left alone", || {
        websocket.stream().set_nonblocking(true).expect("set");
        let quiet = matches!(websocket.read(&mut [0; 1]), Err(error) if error.kind() == ErrorKind::WouldBlock);
        websocket.stream().set_nonblocking(false).expect("set");
        quiet
    });
    echo(&mut websocket);
}

pub fn upgrade<S: Read + Write>(client: &mut Client<S>) {
    let fields = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    assert_eq!(client.request("GET", "/ws", &fields).expect("an answer").status, 101);
}

pub fn echo<S: Read + Write>(client: &mut Client<S>) {
    client.send(b"\x81\x05hello").expect("sent");
    let mut back = [0; 7];
    client.read_exact(&mut back).expect("an echo");
    assert_eq!(&back, b"\x81\x05hello");
}

#[test]
fn certificates_are_those_of_the_texts_in_force() {
    let _turn = among_others();
    let origin = Origin::start("web");
    let port = Port::free();
    let config = |folder: &str| {
        let tls = format!("tls = {{ certificates = \"{folder}\" }}\n[state]\npath = \"state\"\n");
        web(&origin) + &listen("secure", &port, &tls)
    };
    let site = Site::write("folders", &config("certs"), RULES);
    let authority = Authority::new("the test's own");
    let issue = |name: &str, folder: &str| authority.issue(name, &["t.example"]).write(&site.folder, folder);
    issue("first", "certs/site");
    issue("second", "other/site");
    let reeve = Reeve::run(site);
    let client = std::sync::Arc::new(authority.client());
    let leaf = || Client::secure(&port.address(), "t.example", &client).map(|client| client.leaf()).ok();
    let first = leaf().expect("a session");
    reeve.reload(&config("certs"), RULES);
    assert_eq!(leaf().expect("a session"), first);
    reeve.reload(&config("other"), RULES);
    let second = leaf().expect("a session");
    assert_ne!(first, second);
    // The new folder is the one that is watched.
    authority.issue("third", &["t.example"]).write(&reeve.site.folder, "other/site");
    until("the third certificate", || leaf().filter(|leaf| *leaf != first && *leaf != second));
    // Files that are wrong refuse the reload, and the sessions go on.
    reeve.site.folder.write("other/site.pem", "no certificate");
    let (code, _, wrong) = reeve.order(&["reload"]);
    assert!(code == 2 && wrong.contains("site.pem"), "{wrong}");
    assert!(leaf().is_some());
}

#[test]
fn lists_are_read_anew_by_themselves() {
    let _turn = among_others();
    let origin = Origin::start("web");
    let rules = "list bad from \"lists/bad.txt\"\n\nhttp *\n  bad : from in bad  deny\n  all : any  use web\n\
                 expect GET /  from:127.0.0.77 -> web\n";
    let site = Site::write("lists", &web(&origin), rules);
    site.folder.write("lists/bad.txt", "192.0.2.1\n");
    let reeve = Reeve::run(site);
    let asked = |from: &str| {
        Client::connect_from(&reeve.address(), Some(from), None).request("GET", "/", &[]).map(|it| it.status).ok()
    };
    assert_eq!(asked("127.0.0.9"), Some(200));
    // A rule file that is being edited is not taken up with them.
    reeve.site.folder.write("rules/site.rules", rules.replace("use web", "use nothing-yet"));
    reeve.site.folder.write("lists/bad.txt", "192.0.2.1\n127.0.0.9\n");
    until("the list is taken up", || (asked("127.0.0.9") == Some(403)).then_some(()));
    assert_eq!(asked("127.0.0.10"), Some(200));
    reeve.process.says("lists reloaded");

    // A list with a fault leaves the old one.
    reeve.site.folder.write("lists/bad.txt", "127.0.0.10\nno network\n");
    reeve.process.says("`no network` is no address");
    reeve.process.says("lists not reloaded");
    assert_eq!((asked("127.0.0.9"), asked("127.0.0.10")), (Some(403), Some(200)));
    // So does one that breaks what is expected of the rules.
    reeve.site.folder.write("lists/bad.txt", "127.0.0.77\n");
    reeve.process.says("127.0.0.77");
    assert_eq!(asked("127.0.0.9"), Some(403));
    // And one that is right again, by order.
    reeve.site.folder.write("lists/bad.txt", "127.0.0.10\n");
    let (code, out, wrong) = reeve.order(&["reload", "lists"]);
    assert!(code == 0 && out.contains("lists      bad"), "{out}{wrong}");
    assert_eq!((asked("127.0.0.9"), asked("127.0.0.10")), (Some(200), Some(403)));
    // The rule file is still half done.
    assert_eq!(reeve.order(&["reload"]).0, 2);
}

#[test]
fn maps_choose_pools_and_are_read_anew_by_themselves() {
    let _turn = among_others();
    let (red, blue) = (Origin::start("red"), Origin::start("blue"));
    let config = pool("red", "rr", &[("red", red.address())]) + &pool("blue", "rr", &[("blue", blue.address())]);
    let rules = "map tenants from \"lists/tenants.map\"\n\nhttp *\n  known : path /t/{who}/**  use map tenants {who}\n  \
                 other : any  use map tenants header:x-tenant else blue\nexpect GET /t/ann/x -> red\nexpect GET / -> blue\n\
                 expect GET /t/nobody -> no-route\n";
    let site = Site::write("maps", &config, rules);
    site.folder.write("lists/tenants.map", "# tenants\nann red\n");
    let reeve = Reeve::run(site);
    let asked = |path: &str, tenant: &str| {
        let answer = get(&reeve.address(), path, &[("x-tenant", tenant)]);
        (answer.status, answer.origin().to_owned())
    };
    let (to_red, to_blue) = ((200, "red".to_owned()), (200, "blue".to_owned()));
    assert_eq!((asked("/t/ann/x", ""), asked("/t/bob", "").0), (to_red.clone(), 404));
    assert_eq!((asked("/", "ann"), asked("/", "bob"), asked("/", "")), (to_red.clone(), to_blue.clone(), to_blue));

    reeve.site.folder.write("lists/tenants.map", "ann red\nbob red\n");
    until("the map is taken up", || (asked("/t/bob", "") == to_red).then_some(()));
    // A pool that is not there leaves the old map, and the line is told.
    reeve.site.folder.write("lists/tenants.map", "ann red\n\nbob green\n");
    reeve.process.says("tenants.map:3:1");
    reeve.process.says("lists not reloaded");
    assert_eq!(asked("/t/bob", ""), to_red);
}

#[test]
fn reloads_follow_one_another_and_those_who_wait_share_one() {
    let _turn = among_others();
    let origin = Origin::start("web");
    let reeve = Reeve::start("many", &web(&origin), RULES);
    let generations: Vec<u64> = thread::scope(|scope| {
        let asked: Vec<_> = (0..12)
            .map(|_| {
                scope.spawn(|| {
                    let (code, out, wrong) = reeve.order(&["reload", "--format", "json"]);
                    assert_eq!(code, 0, "{wrong}");
                    let answer: serde_json::Value = serde_json::from_str(&out).expect("JSON");
                    answer["generation"].as_u64().expect("a number")
                })
            })
            .collect();
        asked.into_iter().map(|thread| thread.join().expect("an answer")).collect()
    });
    let last = *generations.iter().max().expect("some");
    assert!(generations.iter().all(|generation| (2..=13).contains(generation)), "{generations:?}");
    assert_eq!(reeve.metric("reeve_config_generation"), Some(last as f64));
}

#[test]
fn a_stop_within_a_reload_is_a_stop() {
    let _turn = among_others();
    let origin = Origin::start("web");
    // Rules that take a while to compile in this build.
    let mut rules = String::from("http *\n");
    for number in 0..20_000 {
        rules += &format!("  r{number} : path /a{number}/**  use web\n");
    }
    let mut reeve = Reeve::start("stopping", &web(&origin), &rules);
    let mut busy = Client::connect(&reeve.address());
    busy.send("GET /a1/../hold HTTP/1.1\r\nHost: a\r\n\r\n").expect("sent");
    let answered = busy.answer("GET").expect("an answer");
    assert_eq!(answered.status, 404);
    busy.send("GET /a1/x HTTP/1.1\r\nHost: a\r\n\r\n").expect("sent");
    assert_eq!(busy.answer("GET").expect("an answer").status, 200);
    let socket = reeve.site.socket();
    let waiting = thread::spawn(move || {
        let mut stream = std::os::unix::net::UnixStream::connect(socket).expect("the control socket");
        stream.write_all(b"POST /api/v1/reload HTTP/1.1\r\nHost: reeve\r\n\r\n").expect("sent");
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    });
    let compiles = || {
        let threads = std::fs::read_dir(format!("/proc/{}/task", reeve.process.id())).into_iter().flatten().flatten();
        threads
            .filter_map(|it| std::fs::read_to_string(it.path().join("comm")).ok())
            .any(|name| name.trim() == "reload")
    };
    until("it compiles", || compiles().then_some(()));
    reeve.process.signal(Signal::TERM);
    assert_eq!(reeve.process.exit(Duration::from_secs(10)).code(), Some(0));
    let answer = waiting.join().expect("an answer");
    assert!(answer.contains("about to end"), "{answer}");
}
