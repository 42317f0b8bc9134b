//! What is taken out of service by hand: servers, pools, listeners.

use std::net::TcpStream;
use std::time::Duration;

use crate::farm::h2::Session;
use crate::farm::ports::Port;
use crate::farm::process::Process;
use crate::farm::reeve::{command, pool};
use crate::farm::{Client, Origin, Reeve, among_others, get, until};
use crate::reload::{echo, upgrade};

const RULES: &str = "http *\n  all : any  use web\n";

#[test]
fn a_drained_server_finishes_and_gets_nothing_new() {
    let _turn = among_others();
    let (one, two) = (Origin::start("one"), Origin::start("two"));
    let config = pool("web", "rr", &[("one", one.address()), ("two", two.address())]);
    let reeve = Reeve::start("server", &config, RULES);
    let mut clients: Vec<Client> = (0..4).map(|_| Client::connect(&reeve.address())).collect();
    let ask = |clients: &mut Vec<Client>| -> Vec<String> {
        let all =
            clients.iter_mut().map(|client| client.request("GET", "/", &[]).expect("an answer").origin().to_owned());
        all.collect()
    };
    assert!(ask(&mut clients).contains(&"one".to_owned()));
    // A request and a WebSocket are at the one.
    let mut busy = Client::connect(&reeve.address());
    let mut websocket = Client::connect(&reeve.address());
    let at = |client: &mut Client| {
        client.send("GET /hold HTTP/1.1\r\nHost: a\r\n\r\n").expect("sent");
        until("it is held somewhere", || (one.held() + two.held() > 0).then_some(()));
        one.held() > 0
    };
    while !at(&mut busy) {
        two.release();
        busy = Client::connect(&reeve.address());
        until("it is let go", || (two.held() == 0).then_some(()));
    }
    loop {
        websocket = {
            drop(websocket);
            Client::connect(&reeve.address())
        };
        let before = one.requests();
        upgrade(&mut websocket);
        if one.requests() > before {
            break;
        }
    }

    let (code, out, wrong) = reeve.order(&["drain", "web/one"]);
    assert_eq!((code, out.as_str()), (0, "web/one: draining, 2 requests in hand\n"), "{wrong}");
    for _ in 0..3 {
        assert!(ask(&mut clients).iter().all(|origin| origin == "two"), "keep-alive connections go elsewhere");
    }
    let (_, servers, _) = reeve.order(&["servers"]);
    assert!(servers.contains("draining") && servers.contains("drained by hand, not in the file"), "{servers}");
    assert_eq!(reeve.metric("reeve_server_draining{pool=\"web\",server=\"one\"}"), Some(1.0));
    assert_eq!(reeve.metric("reeve_server_draining{pool=\"web\",server=\"two\"}"), Some(0.0));
    until("idle connections to it are closed", || (one.open() == 2).then_some(()));

    // Over reloads it stays so, and says so.
    reeve.reload(&config.replace("rr", "lc"), RULES);
    assert!(ask(&mut clients).iter().all(|origin| origin == "two"));
    echo(&mut websocket);

    // Whoever waits sees the end, and not before.
    let (code, out, _) = reeve.order(&["drain", "web/one", "--for", "300ms"]);
    assert_eq!((code, out.as_str()), (1, "web/one: draining, 2 requests in hand\n"));
    let mut waits = Process::start(command().args(["drain", "web/one", "--wait", "--socket"]).arg(reeve.site.socket()));
    until("what is in hand", || waits.stdout().contains("2 requests in hand").then_some(()));
    one.release();
    assert_eq!(busy.answer("GET").expect("an answer").text(), "released");
    until("less is in hand", || waits.stdout().contains("1 request in hand").then_some(()));
    echo(&mut websocket);
    drop(websocket);
    assert_eq!(waits.exit(Duration::from_secs(20)).code(), Some(0));
    assert!(waits.stdout().contains("web/one: drained"), "{}", waits.stdout());
    until("nothing is open", || (one.open() == 0).then_some(()));

    let (code, out, _) = reeve.order(&["ready", "web/one"]);
    assert_eq!((code, out.as_str()), (0, "web/one: back in service\n"));
    assert!(ask(&mut clients).contains(&"one".to_owned()));
    assert_eq!(reeve.order(&["ready", "web/one"]).1, "web/one: was in service already\n");
}

#[test]
fn a_pool_is_all_its_servers() {
    let _turn = among_others();
    let (one, two) = (Origin::start("one"), Origin::start("two"));
    let reeve = Reeve::start("pool", &pool("web", "rr", &[("one", one.address())]), RULES);
    assert_eq!(reeve.order(&["drain", "web", "--wait"]).1, "web: drained\n");
    assert_eq!(get(&reeve.address(), "/", &[]).status, 503);
    reeve.reload(&pool("web", "rr", &[("one", one.address()), ("two", two.address())]), RULES);
    assert_eq!(get(&reeve.address(), "/", &[]).status, 503, "a server that is added is one of the pool");
    let (code, _, wrong) = reeve.order(&["ready", "web/two"]);
    assert!(code == 2 && wrong.contains("all of pool 'web' is drained: `reeve ready web`"), "{wrong}");
    assert_eq!(reeve.order(&["ready", "web"]).0, 0);
    assert_eq!(get(&reeve.address(), "/", &[]).status, 200);
    for (name, said) in [("wep", "did you mean 'web'?"), ("web/three", "there is no server 'three' in pool 'web'")] {
        let (code, _, wrong) = reeve.order(&["drain", name]);
        assert!(code == 2 && wrong.contains(said), "{wrong}");
    }
}

#[test]
fn a_drained_listener_is_closed_and_opened_again() {
    let _turn = among_others();
    let origin = Origin::start("web");
    let other = Port::free();
    let config = pool("web", "rr", &[("one", origin.address())])
        + &format!("\n[listen.other]\naddress = \"{}\"\nrules = [\"rules/site.rules\"]\n", other.address())
        + "\n[timeouts]\ndrain = \"1s\"\n";
    let reeve = Reeve::start("listener", &config, RULES);
    let mut idle = Client::connect(&other.address());
    assert_eq!(idle.request("GET", "/", &[]).expect("an answer").status, 200);
    let mut websocket = Client::connect(&other.address());
    upgrade(&mut websocket);
    let streams = Session::connect(&other.address());
    assert_eq!(streams.get("/").expect("an answer").status, 200);
    let mut stays = Client::connect(&reeve.address());
    assert_eq!(stays.request("GET", "/", &[]).expect("an answer").status, 200);

    let (code, out, wrong) = reeve.order(&["drain", "listen.other"]);
    assert!(code == 0 && out.contains("listen.other: draining, "), "{out}{wrong}");
    assert!(TcpStream::connect(other.address()).is_err());
    let answer = idle.request("GET", "/", &[]).expect("an answer");
    assert_eq!((answer.status, answer.field("connection")), (200, Some("close")));
    let left = || {
        let (_, out, _) = reeve.order(&["status", "--format", "json"]);
        let status: serde_json::Value = serde_json::from_str(&out).expect("JSON");
        let listeners = status["listeners"].as_array().cloned().unwrap_or_default();
        let one = listeners.into_iter().find(|it| it["name"] == "other").unwrap_or_default();
        (one["open"].as_bool(), one["draining"].as_bool(), one["connections"]["open"].as_u64())
    };
    until("but for the WebSocket all have gone", || (left() == (Some(false), Some(true), Some(1))).then_some(()));
    let (_, status, _) = reeve.order(&["status"]);
    assert!(status.contains("drained by hand, not in the file"), "{status}");

    // A reload does not open it, and the WebSocket goes on beyond the time of a drain.
    reeve.reload(&config.replace("rr", "lc"), RULES);
    assert!(TcpStream::connect(other.address()).is_err());
    echo(&mut websocket);
    assert_eq!(stays.request("GET", "/", &[]).expect("an answer").status, 200, "the others are not touched");

    assert_eq!(reeve.order(&["ready", "listen.other"]).0, 0);
    assert_eq!(get(&other.address(), "/", &[]).status, 200);
    echo(&mut websocket);
    // Somebody else may have taken the address meanwhile.
    assert_eq!(reeve.order(&["drain", "listen.other"]).0, 0);
    let taken = std::net::TcpListener::bind(other.address()).expect("the address is free");
    let (code, _, wrong) = reeve.order(&["ready", "listen.other"]);
    assert!(code == 2 && wrong.contains("listen.other: cannot listen on"), "{wrong}");
    drop(taken);
    assert_eq!(reeve.order(&["ready", "listen.other"]).0, 0);
    assert_eq!(get(&other.address(), "/", &[]).status, 200);
}
