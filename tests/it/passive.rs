//! Servers that are taken out by how they answer, that come back slowly, that say themselves how they are, and whose
//! connections are closed when they go down.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::time::{Duration, Instant};

use crate::farm::ports::Port;
use crate::farm::reeve::{Site, pool};
use crate::farm::{Client, Origin, Reeve, among_others, get, raw, until};
use crate::upgrade::Service;

const RULES: &str = "http *\n  all : any  use web\n";

/// A web server that answers with a status that the test sets; 0: it hangs up.
fn moody() -> (String, Arc<AtomicU16>) {
    let status = Arc::new(AtomicU16::new(200));
    let mood = status.clone();
    let address = raw::serve(move |mut stream: TcpStream| {
        let mut heard = Vec::new();
        let mut buffer = [0; 1024];
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            heard.extend_from_slice(&buffer[..count]);
            if !heard.ends_with(b"\r\n\r\n") {
                continue;
            }
            heard.clear();
            let status = mood.load(Ordering::SeqCst);
            if status == 0 {
                return;
            }
            let answer = format!("HTTP/1.1 {status} So\r\nX-Origin: moody\r\nContent-Length: 0\r\n\r\n");
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    });
    (address, status)
}

fn up(reeve: &Reeve, server: &str) -> bool {
    reeve.metric(&format!("reeve_server_up{{pool=\"web\",server=\"{server}\"}}")) == Some(1.0)
}

/// What `reeve servers web/NAME` tells.
fn told(reeve: &Reeve, server: &str) -> serde_json::Value {
    let (code, out, wrong) = reeve.order(&["servers", &format!("web/{server}"), "--format", "json"]);
    assert_eq!(code, 0, "{wrong}");
    serde_json::from_str::<serde_json::Value>(&out).expect("JSON")["servers"][0].clone()
}

#[test]
fn a_server_that_answers_badly_is_left_alone_for_a_while() {
    let _turn = among_others();
    let good = Origin::start("good");
    let (bad, mood) = moody();
    let config = pool("web", "rr", &[("good", good.address()), ("bad", bad)])
        + "outlier = { consecutive-5xx = 5, eject-for = \"300ms\", eject-for-at-most = \"600ms\", eject-at-most = \"50%\" }\n\
           slow-start = \"400ms\"\n";
    let reeve = Reeve::start("outlier", &config, RULES);
    mood.store(503, Ordering::SeqCst);
    let mut failures = 0;
    until("it is ejected", || {
        failures += usize::from(get(&reeve.address(), "/", &[]).status == 503);
        (!up(&reeve, "bad")).then_some(())
    });
    assert!((5..=8).contains(&failures), "{failures} bad answers");
    assert_eq!(reeve.metric("reeve_server_ejected{pool=\"web\",server=\"bad\"}"), Some(1.0));
    let server = told(&reeve, "bad");
    assert_eq!((server["state"].as_str(), server["ejected"].as_bool()), (Some("down"), Some(true)));
    let reason = server["reason"].as_str().expect("a reason");
    assert!(reason.starts_with("ejected for 300 ms: 5 answers of 500 and above"), "{reason}");

    // It still answers badly when it is back, and is out for longer.
    until("it is ejected again", || {
        let _ = get(&reeve.address(), "/", &[]);
        let changes = told(&reeve, "bad")["changes"].clone();
        let why = changes.as_array()?.iter().rev().find(|change| change["what"] == "ejected")?["why"].to_string();
        why.contains("ejected for 600 ms").then_some(())
    });
    mood.store(200, Ordering::SeqCst);
    // Back for good: first with a small share, then with the whole.
    let mut shares = Vec::new();
    until("it has its whole share", || {
        let server = told(&reeve, "bad");
        if server["state"] == "up" {
            shares.push(server["portion"].as_u64()?);
        }
        (*shares.last()? == 100).then_some(())
    });
    assert!(shares.iter().any(|share| *share < 100) && shares.is_sorted(), "{shares:?}");
    let changes = told(&reeve, "bad")["changes"].clone();
    assert!(changes.as_array().expect("a list").iter().any(|change| change["what"] == "returned"), "{changes}");
}

#[test]
fn the_only_server_is_never_ejected_and_panic_uses_all() {
    let _turn = among_others();
    let (bad, mood) = moody();
    let dead = Port::free();
    let config = pool("web", "rr", &[("bad", bad), ("dead", dead.address())])
        + "check = { tcp = true, interval = \"50ms\", rise = 1, fall = 1 }\n\
           outlier = { consecutive-failures = 2, eject-for = \"1m\", panic = \"60%\" }\n";
    let reeve = Reeve::start("panic", &config, RULES);
    until("dead is down", || (!up(&reeve, "dead")).then_some(()));
    // One of two is less than 60 %.
    until("all are used", || (reeve.metric("reeve_pool_panic{pool=\"web\"}") == Some(1.0)).then_some(()));
    until("both are asked", || {
        let answer = get(&reeve.address(), "/", &[]);
        assert_eq!(answer.status, 200, "a refused connection is tried elsewhere");
        let connects = "reeve_upstream_connects_total{pool=\"web\",server=\"dead\",result=\"refused\"}";
        reeve.metric(connects).filter(|count| *count > 0.0)
    });
    mood.store(0, Ordering::SeqCst);
    for _ in 0..4 {
        assert_eq!(get(&reeve.address(), "/", &[]).status, 502);
    }
    let reason = told(&reeve, "bad")["reason"].to_string();
    assert!(reason.contains("ejected") || up(&reeve, "bad"), "{reason}");
    mood.store(200, Ordering::SeqCst);
    assert_eq!(get(&reeve.address(), "/", &[]).status, 200, "ejected or not, somebody answers");
}

#[test]
fn who_is_ejected_is_so_in_the_next_process_too() {
    let _turn = among_others();
    let good = Origin::start("good");
    let (bad, mood) = moody();
    let config = pool("web", "rr", &[("good", good.address()), ("bad", bad)])
        + "outlier = { consecutive-5xx = 2, eject-for = \"1m\" }\n";
    let service = Service::start(Site::write("ejected-before", &config, RULES));
    let reeve = &service.reeve;
    mood.store(500, Ordering::SeqCst);
    let why = |reeve: &Reeve| told(reeve, "bad")["reason"].as_str().map(str::to_owned);
    until("it is ejected", || {
        get(&reeve.address(), "/", &[]);
        why(reeve).filter(|why| why.starts_with("ejected for 60 s"))
    });
    let before = why(reeve);
    service.upgrade();
    mood.store(200, Ordering::SeqCst);
    assert_eq!((why(reeve), up(reeve, "bad")), (before, false));
    for _ in 0..6 {
        assert_eq!(get(&reeve.address(), "/", &[]).origin(), "good");
    }
}

#[test]
fn an_agent_sets_the_share_and_takes_its_server_out() {
    let _turn = among_others();
    let (one, two) = (Origin::start("one"), Origin::start("two"));
    let word = Arc::new(std::sync::Mutex::new("up 25%"));
    let says = word.clone();
    let agent = raw::serve(move |mut stream: TcpStream| {
        let word = *says.lock().expect("no panic");
        let _ = writeln!(stream, "{word}");
    });
    let port = agent.rsplit(':').next().expect("a port");
    // Both have the same agent; the second one is asked for nothing.
    let config = format!(
        "[pool.web]\nscheduler = \"rr\"\nservers = [{{ name = \"one\", address = \"{}\" }}]\n\
         check = {{ agent = true, port = {port}, interval = \"50ms\", fall = 1, rise = 1 }}\n\
         [pool.other]\nservers = [\"{}\"]\n",
        one.address(),
        two.address()
    );
    let reeve = Reeve::start("agent", &config, RULES);
    until("the share is known", || (told(&reeve, "one")["portion"] == 25).then_some(()));
    assert_eq!(get(&reeve.address(), "/", &[]).status, 200);
    *word.lock().expect("no panic") = "drain #going home";
    until("it drains", || (told(&reeve, "one")["state"] == "draining").then_some(()));
    let reason = told(&reeve, "one")["reason"].clone();
    assert_eq!(reason, "its agent wants no new requests: going home");
    assert_eq!(get(&reeve.address(), "/", &[]).status, 503);
    *word.lock().expect("no panic") = "ready down #disk full";
    until("it is down", || (!up(&reeve, "one")).then_some(()));
    let server = told(&reeve, "one");
    assert_eq!(server["reason"], "agent: ready down #disk full");
    let change = server["changes"].as_array().and_then(|changes| changes.last().cloned()).expect("a change");
    assert_eq!((&change["check"], &change["heard"]), (&"agent".into(), &"ready down #disk full\\n".into()));
    *word.lock().expect("no panic") = "up 100%";
    until("it is back", || (get(&reeve.address(), "/", &[]).status == 200).then_some(()));
}

#[test]
fn connections_to_a_server_that_went_down_are_closed_where_that_is_asked_for() {
    let _turn = among_others();
    let origin = Origin::start("one");
    let healthy = Arc::new(AtomicBool::new(true));
    let says = healthy.clone();
    let health = raw::serve(move |mut stream: TcpStream| {
        let status = if says.load(Ordering::SeqCst) { "200 OK" } else { "503 No" };
        let mut head = [0; 1024];
        let _ = stream.read(&mut head);
        let _ = stream.write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").as_bytes());
    });
    let port = health.rsplit(':').next().expect("a port");
    let tcp = Port::free();
    let config = |on_down: &str| {
        pool("web", "rr", &[("one", origin.address())])
            + &format!(
                "check = {{ http = \"/\", port = {port}, interval = \"50ms\", rise = 1, fall = 1, on-down = \"{on_down}\" }}\n\
                 [listen.raw]\naddress = [\"{}\"]\nprotocol = \"tcp\"\npool = \"web\"\n",
                tcp.address()
            )
    };
    let reeve = Reeve::start("on-down", &config("close"), RULES);
    // One connection that is kept for the next request, one tunnel.
    assert_eq!(get(&reeve.address(), "/", &[]).status, 200);
    let mut tunnel = Client::connect(&tcp.address());
    assert_eq!(tunnel.request("GET", "/", &[]).expect("an answer").status, 200);
    until("two are open", || (origin.open() == 2).then_some(()));
    healthy.store(false, Ordering::SeqCst);
    let start = Instant::now();
    let ended = tunnel.inner().set_read_timeout(Some(Duration::from_secs(15))).and_then(|()| tunnel.read(&mut [0; 10]));
    assert!(ended.as_ref().is_ok_and(|count| *count == 0) || ended.is_err_and(|e| e.raw_os_error() == Some(104)));
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    until("none is open", || (origin.open() == 0).then_some(()));
    let lines = until("it is written down", || {
        let lines: Vec<_> = reeve.log().into_iter().filter(|line| line["listener"] == "raw").collect();
        (!lines.is_empty()).then_some(lines)
    });
    assert_eq!(lines[0]["failure"], "server-down");
    healthy.store(true, Ordering::SeqCst);
    until("it is back", || up(&reeve, "one").then_some(()));

    // And where it is not, they stay.
    reeve.reload(&config("keep"), RULES);
    let mut tunnel = Client::connect(&tcp.address());
    assert_eq!(tunnel.request("GET", "/", &[]).expect("an answer").status, 200);
    healthy.store(false, Ordering::SeqCst);
    until("it is down", || (!up(&reeve, "one")).then_some(()));
    assert_eq!(tunnel.request("GET", "/", &[]).expect("an answer").status, 200);
}
