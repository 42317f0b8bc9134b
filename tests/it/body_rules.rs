//! Rules that look at a request's body: it is read before a server is asked, and sent on as it came.

use std::time::Duration;

use crate::farm::h2::{Body, Session};
use crate::farm::h2_origin::H2Origin;
use crate::farm::origin::{pattern, send_pattern};
use crate::farm::ports::Port;
use crate::farm::reeve::{command, pool};
use crate::farm::{Client, Origin, Reeve, among_others, observe, until};

const RULES: &str = r#"
http *
  buy  : path /echo & body form action = buy               use buy
  json : path /json/** & body json "/to/name" ~"^h2"       use h2
  big  : path /measure & body text ~"^\x00*$"              answer 418
  deny : path /rpc & ! body text = "ping"                  deny
  rest : any                                               use web

expect POST /echo content-type:application/x-www-form-urlencoded body:"x=1&action=buy" -> buy
expect POST /echo content-type:application/x-www-form-urlencoded body:"action=sell"    -> web
expect POST /json/a content-type:application/json body:"{\"to\": {\"name\": \"h2x\"}}" -> h2
expect POST /rpc                                                                       -> deny
"#;

const FORM: &str = "Content-Type: application/x-www-form-urlencoded\r\n";

struct Farm {
    web: Origin,
    buy: Origin,
    _h2: H2Origin,
    reeve: Reeve,
    config: String,
}

fn farm(label: &str, more: &str) -> Farm {
    let (web, buy, h2) = (Origin::start("web"), Origin::start("buy"), H2Origin::start(100));
    let config = pool("web", "rr", &[("web", web.address())])
        + &pool("buy", "rr", &[("buy", buy.address())])
        + &pool("h2", "rr", &[("h2", h2.address())])
        + "protocol = \"h2c\"\n"
        + more;
    let reeve = Reeve::start(label, &config, RULES);
    Farm { web, buy, _h2: h2, reeve, config }
}

#[test]
fn a_body_of_a_length_is_waited_for_and_sent_on_whole() {
    let _turn = among_others();
    let farm = farm("body-length", "");
    let mut client = Client::connect(&farm.reeve.address());
    for round in 0..2 {
        client.send(format!("POST /echo HTTP/1.1\r\nHost: a\r\n{FORM}Content-Length: 14\r\n\r\nx=1&ac")).expect("sent");
        if round == 0 {
            observe(Duration::from_millis(200), "no server is asked", || farm.buy.made() + farm.web.made() == 0);
        }
        // With the next request right behind it.
        client.send("tion=buyGET /next HTTP/1.1\r\nHost: a\r\n\r\n").expect("sent");
        let answer = client.answer("POST").expect("an answer");
        assert_eq!((answer.origin(), answer.text().as_str()), ("buy", "x=1&action=buy"));
        let answer = client.answer("GET").expect("an answer");
        assert_eq!((answer.origin(), answer.text().starts_with("GET /next ")), ("web", true));
        client.send(format!("POST /echo HTTP/1.1\r\nHost: a\r\n{FORM}Content-Length: 3\r\n\r\na=b")).expect("sent");
        let answer = client.answer("POST").expect("an answer");
        assert_eq!((answer.origin(), answer.text().as_str()), ("web", "a=b"));
    }
    // Other requests have bodies that nobody reads ahead.
    client.send("POST /hold HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n12").expect("sent");
    until("it is asked for at once", || (farm.web.requests() == 5).then_some(()));
}

#[test]
fn a_body_in_chunks_keeps_its_trailers() {
    let _turn = among_others();
    let farm = farm("body-chunks", "");
    let mut client = Client::connect(&farm.reeve.address());
    let head = format!("POST /echo HTTP/1.1\r\nHost: a\r\n{FORM}Transfer-Encoding: chunked\r\n\r\n");
    client.send(&head).expect("sent");
    for piece in ["6\r\nac", "tion\r\n", "4;x=y\r\n=buy\r", "\n0\r\nx-sum: 1\r\n\r\nGET /next HTTP/1.1\r\n"] {
        client.send(piece).expect("sent");
    }
    let answer = client.answer("POST").expect("an answer");
    assert_eq!((answer.origin(), answer.text().as_str()), ("buy", "action=buy"));
    client.send("Host: a\r\n\r\n").expect("sent");
    assert_eq!(client.answer("GET").expect("an answer").origin(), "web", "what came behind it");
    client.send(head.replace("/echo", "/rpc")).expect("sent");
    client.send("4\r\nping\r\n0\r\nx-sum: 7\r\n\r\n").expect("sent");
    let answer = client.answer("POST").expect("an answer");
    assert!(answer.status == 200 && answer.text().contains("\r\nTransfer-Encoding: chunked\r\n"), "{}", answer.text());
    client.send(head.replace("/echo", "/rpc")).expect("sent");
    client.send("4\r\npong\r\n0\r\n\r\n").expect("sent");
    assert_eq!(client.answer("POST").expect("an answer").status, 403);
    // What is no chunk is said, and no server hears of it.
    let asked = farm.buy.requests() + farm.web.requests();
    let mut client = Client::connect(&farm.reeve.address());
    client.send(format!("{head}zz\r\n")).expect("sent");
    assert_eq!(client.answer("POST").expect("an answer").status, 400);
    assert_eq!(farm.buy.requests() + farm.web.requests(), asked);
}

#[test]
fn frames_are_read_ahead_too() {
    let _turn = among_others();
    let farm = farm("body-frames", "");
    let session = Session::connect(&farm.reeve.address());
    let ask = |path: &str, kind: &str, length: Option<usize>, pieces: &[&[u8]]| {
        let mut request = http::Request::post(format!("http://t.example{path}")).header("content-type", kind);
        if let Some(length) = length {
            request = request.header("content-length", length);
        }
        let pieces = pieces.iter().map(|piece| piece.to_vec()).collect();
        let body = Body { pieces, trailers: vec![("x-sum", "1")] };
        session.ask(request.body(()).expect("a request"), Some(body)).expect("an answer")
    };
    for length in [None, Some(14)] {
        let reply = ask("/echo", "application/x-www-form-urlencoded", length, &[b"x=1&ac", b"tion=buy"]);
        assert_eq!((reply.field("x-origin"), reply.text().as_str()), ("buy", "x=1&action=buy"), "{length:?}");
    }
    let json: &[&[u8]] = &[b"{\"to\": {\"na", b"me\": \"h2\"}}"];
    let reply = ask("/json/echo", "application/json", None, json);
    assert_eq!(reply.status, 200);
    let text = reply.text();
    assert!(text.contains("/json/echo") || text.as_bytes() == json.concat(), "{text}");
    assert_eq!(ask("/rpc", "text/plain", None, &[b"pong"]).status, 403);
    // Larger than rules look at, in pieces that go on while it is decided.
    let mut large = Vec::new();
    send_pattern(&mut large, 0, 160_000).expect("written");
    let reply = ask("/measure", "text/plain", None, &large.chunks(20_000).collect::<Vec<_>>());
    assert_eq!((reply.field("x-origin"), reply.text().as_str()), ("web", "160000 as sent"));
}

#[test]
fn a_body_that_is_too_large_is_not_looked_at() {
    let _turn = among_others();
    let farm = farm("body-large", "");
    let most = 64 << 10;
    for (length, status) in [(most, 418), (most + 1, 200)] {
        for chunked in [false, true] {
            let mut client = Client::connect(&farm.reeve.address());
            let body = vec![0; length];
            let (framing, body) = match chunked {
                false => (format!("Content-Length: {length}"), body),
                true => {
                    let chunks = body
                        .chunks(1000)
                        .flat_map(|chunk| [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat());
                    ("Transfer-Encoding: chunked".to_owned(), chunks.chain(*b"0\r\n\r\n").collect())
                }
            };
            client.send(format!("POST /measure HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n")).expect("sent");
            client.send(body).expect("sent");
            let answer = client.answer("POST").expect("an answer");
            assert_eq!(answer.status, status, "{length} {chunked}");
            assert!(status == 418 || answer.text() == format!("{length} other"), "{}", answer.text());
        }
    }
    // Chunks of one byte, which are mostly framing, are as good as too large.
    let mut client = Client::connect(&farm.reeve.address());
    client.send("POST /measure HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").expect("sent");
    client.send("1\r\n\0\r\n".repeat(40_000)).expect("sent");
    client.send("0\r\n\r\n").expect("sent");
    assert_eq!(client.answer("POST").expect("an answer").text(), "40000 other");
}

#[test]
fn whoever_waits_to_be_asked_is_asked_by_us() {
    let _turn = among_others();
    let farm = farm("body-continue", "");
    let mut client = Client::connect(&farm.reeve.address());
    client.send("POST /rpc HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n").expect("sent");
    assert_eq!(client.head().expect("an interim answer").status, 100);
    assert_eq!(farm.web.requests(), 0, "no server has been asked");
    client.send("ping").expect("sent");
    let answer = client.head().expect("the answer, and no other 100");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.field("x-origin"), Some("web"));
    let mut client = Client::connect(&farm.reeve.address());
    client.send("POST /rpc HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\npi").expect("sent");
    client.send("ng").expect("sent");
    let answer = client.head().expect("the answer: the body was on its way");
    assert_eq!(answer.status, 200);
}

#[test]
fn a_slow_body_is_408_and_a_client_that_goes_costs_no_server_anything() {
    let _turn = among_others();
    let farm = farm("body-slow", "[timeouts]\nrequest-body = \"300ms\"\n");
    let mut slow = Client::connect(&farm.reeve.address());
    slow.send("POST /rpc HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\npin").expect("sent");
    assert_eq!(slow.answer("POST").expect("an answer").status, 408);
    let mut gone = Client::connect(&farm.reeve.address());
    gone.send("POST /rpc HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\np").expect("sent");
    drop(gone);
    let logged = |word: &str| farm.reeve.log().iter().any(|line| line["failure"] == word);
    until("both are in the log", || (logged("body-timeout") && logged("client-gone")).then_some(()));
    assert_eq!(farm.web.made() + farm.buy.made(), 0);
}

#[test]
fn the_next_server_gets_the_whole_of_it() {
    let _turn = among_others();
    let (nobody, web) = (Port::free(), Origin::start("web"));
    let config = pool("web", "rr", &[("gone", nobody.address()), ("web", web.address())]);
    let rules = "http *\n  big : any & body text ~\"\"  use web\n";
    let reeve = Reeve::start("body-retry", &config, rules);
    let body = &pattern(0)[..60_000];
    for _ in 0..4 {
        let mut client = Client::connect(&reeve.address());
        client.send("POST /measure HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n\r\n").expect("sent");
        client.send(body).expect("sent");
        assert_eq!(client.answer("POST").expect("an answer").text(), "60000 as sent");
    }
}

#[test]
fn a_reload_does_not_change_what_is_being_decided() {
    let _turn = among_others();
    let farm = farm("body-reload", "");
    let mut client = Client::connect(&farm.reeve.address());
    client.send(format!("POST /echo HTTP/1.1\r\nHost: a\r\n{FORM}Content-Length: 10\r\n\r\nact")).expect("sent");
    until("it is being read", || {
        farm.reeve.metric("reeve_connections{listener=\"web\",state=\"active\"}").filter(|n| *n == 1.0)
    });
    farm.reeve.reload(&farm.config, "http *\n  rest : any  use web\n");
    client.send("ion=buy").expect("sent");
    assert_eq!(client.answer("POST").expect("an answer").origin(), "buy");
    client.send(format!("POST /echo HTTP/1.1\r\nHost: a\r\n{FORM}Content-Length: 10\r\n\r\naction=buy")).expect("sent");
    assert_eq!(client.answer("POST").expect("an answer").origin(), "web");
}

#[test]
fn explain_says_what_a_body_decides() {
    let farm = farm("body-explain", "");
    let explain = |words: &[&str]| {
        let mut command = command();
        let output = command.arg("explain").args(words).arg("-c").arg(farm.reeve.site.config()).output();
        String::from_utf8(output.expect("explained").stdout).expect("a text")
    };
    let form = ["POST", "http://a/echo", "-H", "content-type: application/x-www-form-urlencoded"];
    let said = explain(&[&form[..], &["--body", "action=buy"]].concat());
    assert!(said.contains("site.rules:buy") && said.contains("use buy"), "{said}");
    let said = explain(&[&form[..], &["--body", "action=sell"]].concat());
    assert!(said.contains("no: body form action = buy (saw sell)"), "{said}");
    let said = explain(&form);
    assert!(said.contains("no: body form action = buy (saw no body)"), "{said}");
}
