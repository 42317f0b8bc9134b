//! What refines a rule: another path, limits, times and tries of its own.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::farm::h2::{Body, Session};
use crate::farm::h2_origin::H2Origin;
use crate::farm::ports::Port;
use crate::farm::reeve::pool;
use crate::farm::{Client, Origin, Reeve, among_others, get, observe, until};

#[test]
fn a_server_gets_the_rewritten_path_and_the_log_keeps_the_clients() {
    let _turn = among_others();
    let (one, two) = (Origin::start("one"), H2Origin::start(100));
    let config = pool("web", "rr", &[("one", one.address())])
        + &pool("h2", "rr", &[("two", two.address())])
        + "protocol = \"h2c\"\n";
    let rules = r#"
http *
  api  : path /api/{version}/**      use h2
           rewrite /v/{version}?from={version}
  cut  : path ~"^/cut(.*)$"          use web
           rewrite /x/$1
  old  : path /old/{x}               use web
           rewrite /new/{x}
  long : path /long/{x}              use web
           rewrite /{x}{x}{x}
  star : method OPTIONS              use web
           rewrite /star
  rest : any                         use web
"#;
    let reeve = Reeve::start("rewrite", &config, rules);
    let mut client = Client::connect(&reeve.address());
    let mut line = |method: &str, target: &str| {
        let answer = client.request(method, target, &[("Host", "a.example")]).expect("an answer");
        (answer.status, answer.text().lines().next().unwrap_or_default().to_owned())
    };
    assert_eq!(line("GET", "/old/a%2fb?q=1&r"), (200, "GET /new/a%2Fb?q=1&r HTTP/1.1".to_owned()));
    assert_eq!(line("GET", "/api/2&x/list?q=1"), (200, "GET http://a.example/v/2&x?from=2%26x".to_owned()));
    assert_eq!(line("GET", "/cut/a"), (200, "GET /x//a HTTP/1.1".to_owned()));
    assert_eq!(line("OPTIONS", "*"), (200, "OPTIONS * HTTP/1.1".to_owned()), "it asks about the server");
    assert_eq!(line("GET", "/cut../secret").0, 400);
    assert_eq!(line("GET", &format!("/long/{}", "x".repeat(6000))).0, 414);
    let head = get(&reeve.address(), "/old/a", &[("Host", "a.example")]).text();
    assert!(head.contains("\r\nX-Forwarded-Host: a.example\r\n"), "{head}");
    let seen = until("the lines in the log", || Some(reeve.log()).filter(|log| log.len() == 7));
    let asked: Vec<_> = seen.iter().filter(|line| line["rule"] == "site.rules:old").map(|line| &line["path"]).collect();
    assert!(asked.len() == 2 && asked.contains(&&"/old/a%2fb".into()), "{asked:?}");
    assert!(seen.iter().any(|line| line["query"] == "q=1&r"));
}

/// An origin that does this with each connection.
fn origin_that(serve: impl Fn(TcpStream) + Copy + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port for an origin");
    let address = listener.local_addr().expect("the origin's address").to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || serve(stream));
        }
    });
    address
}

fn read_head(stream: &mut TcpStream) {
    let mut head = Vec::new();
    let mut byte = [0; 1];
    while !head.ends_with(b"\r\n\r\n") && stream.read_exact(&mut byte).is_ok() {
        head.extend_from_slice(&byte);
    }
}

/// Waits until the log has so many lines with that failure; workers write theirs in any order.
fn failed(reeve: &Reeve, count: usize, word: &str) {
    let has = |line: &serde_json::Value| line["failure"] == word;
    until(word, || (reeve.log().iter().filter(|line| has(line)).count() == count).then_some(()));
}

#[test]
fn a_rule_has_times_of_its_own() {
    let _turn = among_others();
    let origin = Origin::start("web");
    let half = origin_that(|mut stream| {
        read_head(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let config = pool("web", "rr", &[("web", origin.address())]) + &pool("half", "rr", &[("half", half)]);
    let rules = r#"
http *
  quick : host quick.example      use web
            timeout response 200ms
  whole : host whole.example      use web
            timeout total 300ms
  cut   : host cut.example        use half
            timeout total 300ms
  idle  : host idle.example       use half
            timeout idle 200ms
  sock  : path /ws                use web
            timeout idle 300ms
            timeout total 100ms
  rest  : any                     use web
"#;
    let reeve = Reeve::start("rule-times", &config, rules);
    let asked = |host: &str| get(&reeve.address(), "/hold", &[("Host", host)]).status;
    assert_eq!(asked("quick.example"), 504);
    failed(&reeve, 1, "response-timeout");
    assert_eq!(asked("whole.example"), 504);
    failed(&reeve, 1, "total-timeout");
    // What has begun is cut.
    for (host, lines, word) in [("cut.example", 2, "total-timeout"), ("idle.example", 1, "response-stalled")] {
        let mut client = Client::connect(&reeve.address());
        assert!(client.request("GET", "/", &[("Host", host)]).is_err(), "{host}");
        failed(&reeve, lines, word);
    }
    // The total ends with the handshake: a WebSocket has its own time.
    let mut client = Client::connect(&reeve.address());
    client
        .send(
            "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )
        .expect("sent");
    assert_eq!(client.head().expect("an answer").status, 101);
    assert_eq!(client.read(&mut [0]).expect("its end"), 0);
    // Those that say nothing have the pool's.
    let mut client = Client::connect(&reeve.address());
    client.send("GET /hold HTTP/1.1\r\nHost: a\r\n\r\n").expect("sent");
    until("the origin holds it", || (origin.held() == 3).then_some(()));
    observe(Duration::from_millis(600), "no answer", || origin.held() == 3);
    origin.release();
    assert_eq!(client.answer("GET").expect("an answer").status, 200);
}

#[test]
fn a_rule_has_tries_of_its_own() {
    let _turn = among_others();
    let origin = Origin::start("web");
    let nobody = Port::free();
    let config = pool("web", "rr", &[("gone", nobody.address()), ("web", origin.address())]);
    let rules = "http *\n  once  : path /once  use web\n            retry 0\n  never : path /never  use web\n            \
                 retry 5 on refused-stream\n  rest  : any  use web\n";
    let reeve = Reeve::start("rule-tries", &config, rules);
    let asked = |path: &str| {
        let mut all: Vec<u16> = (0..4).map(|_| get(&reeve.address(), path, &[]).status).collect();
        all.sort_unstable();
        all
    };
    assert_eq!(asked("/"), [200, 200, 200, 200]);
    assert_eq!(asked("/once"), [200, 200, 502, 502]);
    assert_eq!(asked("/never"), [200, 200, 502, 502]);
}

#[test]
fn a_body_may_be_as_large_as_the_rule_says() {
    let _turn = among_others();
    let (one, two) = (Origin::start("web"), H2Origin::start(100));
    let config = pool("web", "rr", &[("one", one.address())])
        + &pool("h2", "rr", &[("two", two.address())])
        + "protocol = \"h2c\"\n";
    let rules = "http *\n  two : query two  use h2\n          limit body 40KiB\n  web : any  use web\n          limit body 40KiB\n";
    let reeve = Reeve::start("rule-body", &config, rules);
    let most = 40 << 10;
    // The origin of HTTP/2 echoes at once, and what has begun to be answered is cut and not told.
    let asked_of =
        |path: &'static str, status: u16| if path.ends_with("two") && status == 413 { "/hold?two" } else { path };
    let announced = |path: &str, length: usize, expect: &str| {
        let mut client = Client::connect(&reeve.address());
        client
            .send(format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n{expect}\r\n"))
            .expect("sent");
        client
    };
    for path in ["/echo", "/echo?two"] {
        let mut client = announced(path, most, "");
        client.send(vec![b'x'; most]).expect("sent");
        assert_eq!(client.answer("POST").expect("an answer").body.len(), most);
    }
    let (asked, dialled) = (one.requests(), one.made() + two.connections());
    // What is announced is not even asked for.
    for (path, lines) in [("/echo", 1), ("/echo?two", 2)] {
        let answer = announced(path, most + 1, "Expect: 100-continue\r\n").answer("POST").expect("an answer");
        assert_eq!(answer.status, 413);
        failed(&reeve, lines, "body-too-large");
    }
    // What is not is counted, its framing left out: here at once, below on its way.
    let mut chunked = Client::connect(&reeve.address());
    let head = "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    chunked.send(format!("{head}a001\r\n")).expect("sent");
    assert_eq!(chunked.answer("POST").expect("an answer").status, 413);
    assert_eq!((one.requests(), one.made() + two.connections()), (asked, dialled), "no server was asked");
    for path in ["/echo", "/echo?two"] {
        for (last, status) in [(1, 200), (2, 413)] {
            let mut client = Client::connect(&reeve.address());
            client.send(head.replace("/echo", asked_of(path, status))).expect("sent");
            for _ in 0..most / 10 - 1 {
                client.send("a\r\n0123456789\r\n").expect("sent");
            }
            let left = most - (most / 10 - 1) * 10 - 1;
            client.send(format!("{left:x}\r\n{}\r\n", "y".repeat(left))).expect("sent");
            // That much has been passed on, with all there is before it.
            let part = "z".repeat(last);
            client.send(format!("{last:x}\r\n{part}\r\n0\r\n\r\n")).expect("sent");
            let answer = client.answer("POST").expect("an answer");
            assert_eq!(answer.status, status, "{path} {last}");
            assert!(status != 200 || answer.body.len() == most);
        }
    }
    // Frames of HTTP/2 that nothing announces.
    let session = Session::connect(&reeve.address());
    for path in ["/echo", "/echo?two"] {
        for (size, status) in [(most, 200), (most + 1, 413)] {
            let mut body = Body { pieces: vec![vec![b'x'; 20_000]; 2], ..Body::default() };
            body.pieces.push(vec![b'x'; size - 40_000]);
            let url = format!("http://t.example{}", asked_of(path, status));
            let request = http::Request::post(url).body(()).expect("a request");
            let reply = session.ask(request, Some(body)).expect("an answer");
            assert_eq!(reply.status, status, "{path} {size}");
            assert!(status != 200 || reply.body.len() == most);
        }
    }
    let rejected =
        until("it is counted", || reeve.metric("reeve_rejected_total{listener=\"web\",reason=\"body-too-large\"}"));
    assert_eq!(rejected, 7.0);
}

#[test]
fn a_rate_is_counted_by_key_over_all_cores_and_reloads() {
    let _turn = among_others();
    let origin = Origin::start("web");
    let config = pool("web", "rr", &[("web", origin.address())]);
    let rules = "http *\n  few  : path /few  use web\n           limit 2/h per source\n  some : path /some  use web\n           \
                 limit 5/s per header:x-key\n  rest : any  use web\n";
    let reeve = Reeve::start("rates", &config, rules);
    let from = |source: &str, path: &str, key: &str| {
        let mut client = Client::connect_from(&reeve.address(), Some(source), None);
        client.request("GET", path, &[("x-key", key)]).expect("an answer")
    };
    // Each connection lands on a core of its own choice.
    let all: Vec<u16> = (0..30).map(|_| from("127.0.0.1", "/few", "").status).collect();
    assert_eq!((all[0], all[1..].iter().all(|status| *status == 429)), (200, true), "{all:?}");
    let refused = from("127.0.0.1", "/few", "");
    let wait: u32 = refused.field("retry-after").and_then(|wait| wait.parse().ok()).expect("a number");
    assert!((1700..=1800).contains(&wait), "{wait}");
    assert_eq!(from("127.0.0.2", "/few", "").status, 200, "another source has its own");
    assert_eq!(from("127.0.0.1", "/", "").status, 200, "and other rules have none");
    reeve.reload(&config, &format!("# a line more\n{rules}"));
    assert_eq!(from("127.0.0.1", "/few", "").status, 429, "a reload forgets nothing");

    let mut client = Client::connect(&reeve.address());
    let start = Instant::now();
    let mut asked = |key: &str| client.request("GET", "/some", &[("x-key", key)]).expect("an answer").status;
    let good = (0..40).filter(|_| asked("a") == 200).count();
    let most = 5 + start.elapsed().as_millis().div_ceil(200) as usize;
    assert!((5..=most).contains(&good), "{good} of 40, {most} at most");
    assert_eq!(asked("b"), 200);
    until("there is one more", || (asked("a") == 200).then_some(()));
    let rejected = until("it is counted", || reeve.metric("reeve_rejected_total{listener=\"web\",reason=\"rate\"}"));
    assert!(rejected >= 31.0, "{rejected}");
    until("they are in the log", || {
        reeve.log().iter().any(|line| line["failure"] == "rate" && line["side"] == "client").then_some(())
    });
}

#[test]
fn a_rule_has_so_many_requests_under_way_over_reloads_too() {
    let _turn = among_others();
    let origin = Origin::start("web");
    let config = pool("web", "rr", &[("web", origin.address())]);
    let rules = "http *\n  few  : path /hold  use web\n           limit connections 2\n  rest : any  use web\n";
    let reeve = Reeve::start("rule-full", &config, rules);
    let hold = || {
        let mut client = Client::connect(&reeve.address());
        client.send("GET /hold HTTP/1.1\r\nHost: a\r\n\r\n").expect("sent");
        client
    };
    let held = [hold(), hold()];
    until("both are held", || (origin.held() == 2).then_some(()));
    for _ in 0..2 {
        for _ in 0..8 {
            let answer = get(&reeve.address(), "/hold", &[]);
            assert_eq!((answer.status, answer.field("retry-after")), (503, Some("1")));
        }
        assert_eq!(get(&reeve.address(), "/", &[]).status, 200);
        reeve.reload(&config, &format!("# a line more\n{rules}"));
    }
    // Whoever is answered makes room.
    origin.release();
    for mut client in held {
        assert_eq!(client.answer("GET").expect("an answer").status, 200);
    }
    until("there is room", || (get(&reeve.address(), "/hold", &[]).status == 200).then_some(()));
    let rejected =
        until("it is counted", || reeve.metric("reeve_rejected_total{listener=\"web\",reason=\"rule-full\"}"));
    assert!(rejected >= 16.0, "{rejected}");
}
