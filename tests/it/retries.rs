//! `retry`: what is sent to another server after it was at one, and what never is.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;

use crate::farm::h2::{Body, Session};
use crate::farm::origin::pattern;
use crate::farm::ports::Port;
use crate::farm::raw::{line, serve};
use crate::farm::reeve::pool;
use crate::farm::{Client, Origin, Reeve, among_others, get, until};

/// An origin that does the same poor thing with every request: answers these bytes, closes, or says nothing.
struct Poor {
    address: String,
    asked: Arc<AtomicUsize>,
}

impl Poor {
    fn start(answer: Option<&'static str>) -> Poor {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port for an origin");
        let address = listener.local_addr().expect("the origin's address").to_string();
        let asked: Arc<AtomicUsize> = Arc::default();
        let shared = asked.clone();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let shared = shared.clone();
                std::thread::spawn(move || {
                    let mut input = BufReader::new(stream.try_clone().expect("the same connection"));
                    let mut length = 0;
                    loop {
                        let mut line = String::new();
                        if input.read_line(&mut line).unwrap_or(0) == 0 {
                            return;
                        }
                        let lower = line.to_ascii_lowercase();
                        length =
                            lower.strip_prefix("content-length: ").map_or(length, |n| n.trim().parse().unwrap_or(0));
                        if line != "\r\n" {
                            continue;
                        }
                        let _ =
                            std::io::copy(&mut (&mut input).take(std::mem::take(&mut length)), &mut std::io::sink());
                        shared.fetch_add(1, Ordering::SeqCst);
                        match answer {
                            Some("") => return,
                            Some(answer) => drop(stream.write_all(answer.as_bytes())),
                            None => {}
                        }
                    }
                });
            }
        });
        Poor { address, asked }
    }

    fn asked(&self) -> usize {
        self.asked.swap(0, Ordering::SeqCst)
    }
}

const BUSY: &str = "HTTP/1.1 503 Busy\r\nX-Origin: poor\r\nRetry-After: 7\r\nContent-Length: 4\r\n\r\nbusy";

/// Whether each request that the poor server was asked for was answered so, and all others well: none went to two.
fn once(seen: &[u16], status: u16, asked: usize) -> bool {
    let poor = seen.iter().filter(|own| **own == status).count();
    poor == asked && (1..seen.len()).contains(&poor) && seen.iter().all(|own| [200, status].contains(own))
}

fn ask(client: &mut Client, method: &str, target: &str) -> (u16, String) {
    let answer = client.request(method, target, &[("Content-Length", "0")]).expect("an answer");
    (answer.status, answer.origin().to_owned())
}

#[test]
fn a_status_is_mended_by_another_server_where_that_is_safe() {
    let _turn = among_others();
    let (good, poor) = (Origin::start("good"), Poor::start(Some(BUSY)));
    let servers = [("poor", poor.address.clone()), ("good", good.address())];
    let config = pool("web", "rr", &servers)
        + "retry = { attempts = 2, on = [\"connect\", \"503\"] }\n"
        + &pool("alone", "rr", &servers[..1]);
    let rules = "http *\n  no    : path /no     use web\n            retry 0\n  alone : path /alone  use alone\n            \
                 retry 2 on 5xx\n  rest  : any          use web\n";
    let reeve = Reeve::start("retry-status", &config, rules);
    let mut client = Client::connect(&reeve.address());
    for method in ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"] {
        for _ in 0..4 {
            assert_eq!(ask(&mut client, method, "/a"), (200, "good".to_owned()), "{method}");
        }
        assert!((1..=4).contains(&poor.asked()), "{method}");
    }
    // What may not be done twice is not, and its answer is the server's own.
    for method in ["POST", "PATCH"] {
        let seen: Vec<_> = (0..4).map(|_| ask(&mut client, method, "/a").0).collect();
        assert!(once(&seen, 503, poor.asked()), "{method} {seen:?}");
    }
    let seen: Vec<_> = (0..4).map(|_| ask(&mut client, "GET", "/no").0).collect();
    assert!(once(&seen, 503, poor.asked()), "{seen:?}");
    // Nobody else to ask: the same one, and its last answer whole.
    let answer = client.request("GET", "/alone", &[]).expect("an answer");
    assert_eq!((answer.status, answer.text().as_str(), answer.field("retry-after")), (503, "busy", Some("7")));
    assert_eq!(poor.asked(), 3);
    // A body that is here goes along, one that is still on its way is sent once.
    for _ in 0..2 {
        client.send("PUT /measure HTTP/1.1\r\nHost: a\r\nContent-Length: 4000\r\n\r\n").expect("sent");
        client.send(&pattern(0)[..4000]).expect("sent");
        let answer = client.answer("PUT").expect("an answer");
        assert!(answer.text() == "4000 as sent" || answer.text() == "busy", "{}", answer.text());
        let whole = [b"PUT /measure HTTP/1.1\r\nHost: a\r\nContent-Length: 4000\r\n\r\n", &pattern(0)[..4000]].concat();
        client.send(whole).expect("sent");
        assert_eq!(client.answer("PUT").expect("an answer").text(), "4000 as sent");
    }
    // And over HTTP/2.
    let session = Session::connect(&reeve.address());
    for _ in 0..4 {
        let reply = session.get("/a").expect("an answer");
        assert_eq!((reply.status, reply.field("x-origin")), (200, "good"));
    }
    poor.asked();
    let post = || {
        let request = http::Request::post("http://t.example/a").body(()).expect("a request");
        session.ask(request, Some(Body { pieces: vec![b"x".to_vec()], ..Body::default() })).expect("an answer").status
    };
    let seen: Vec<_> = (0..4).map(|_| post()).collect();
    assert!(once(&seen, 503, poor.asked()), "{seen:?}");
    let count = || reeve.metric("reeve_retries_total{pool=\"web\",reason=\"status\"}");
    until("it is counted", || count().filter(|count| *count >= 6.0));
}

#[test]
fn silence_and_a_closed_connection_are_mended_where_that_is_safe() {
    let _turn = among_others();
    for (word, answer, status) in [("timeout", None, 504), ("reset", Some(""), 502)] {
        let (good, poor) = (Origin::start("good"), Poor::start(answer));
        let config = pool("web", "rr", &[("poor", poor.address.clone()), ("good", good.address())])
            + "timeouts = { response = \"300ms\" }\n";
        let rules =
            format!("http *\n  no   : path /no  use web\n  rest : any       use web\n           retry 2 on {word}\n");
        let reeve = Reeve::start("retry-silence", &config, &rules);
        let asked = |method: &str, path: &str| -> Vec<u16> {
            (0..4).map(|_| ask(&mut Client::connect(&reeve.address()), method, path).0).collect()
        };
        assert_eq!(asked("GET", "/a"), [200; 4], "{word}");
        assert!((1..=4).contains(&poor.asked()), "{word}");
        for (method, path) in [("POST", "/a"), ("GET", "/no")] {
            let seen = asked(method, path);
            assert!(once(&seen, status, poor.asked()), "{word} {method} {path} {seen:?}");
        }
        let line = format!("reeve_retries_total{{pool=\"web\",reason=\"{word}\"}}");
        until("it is counted", || reeve.metric(&line).filter(|count| *count >= 1.0));
        assert_eq!(get(&reeve.address(), "/a", &[]).status, 200);
    }
}

/// When a server that accepts connections breaks them off.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Breaks {
    /// Before it has read anything.
    Unread,
    /// When it has read the head.
    Read,
    /// The same, of the second request of a connection; the first is answered.
    Kept,
}

/// A server that resets its connections, and how many heads it has read.
fn resetting(when: Breaks) -> (String, Arc<AtomicUsize>) {
    let read: Arc<AtomicUsize> = Arc::default();
    let shared = read.clone();
    let address = serve(move |mut stream| {
        set_socket_linger(&stream, Some(Duration::ZERO)).expect("a reset at the close");
        for answers in [when == Breaks::Kept, false] {
            if when == Breaks::Unread {
                return;
            }
            loop {
                match &*line(&mut stream) {
                    "" => return,
                    "\r\n" => break,
                    _ => {}
                }
            }
            shared.fetch_add(1, Ordering::SeqCst);
            if !answers {
                return;
            }
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Origin: poor\r\n\r\n");
        }
    });
    (address, read)
}

/// With `on = ["connect"]` another server is asked only where there was no connection.
#[test]
fn what_may_have_reached_a_server_is_not_sent_to_another_for_want_of_a_connection() {
    let _turn = among_others();
    let good = Origin::start("good");
    let start = |poor: String| {
        let config = pool("web", "first", &[("poor", poor), ("good", good.address())])
            + "retry = { attempts = 3, on = [\"connect\"] }\n";
        Reeve::start("retry-connect", &config, "http *\n  all : any  use web\n")
    };
    let refusing = Port::free();
    let reeve = start(refusing.address());
    for method in ["GET", "POST"] {
        let seen = ask(&mut Client::connect(&reeve.address()), method, "/a");
        assert_eq!(seen, (200, "good".to_owned()), "nothing was sent to a server that refuses: {method}");
    }
    drop(reeve);
    for when in [Breaks::Unread, Breaks::Read] {
        let (before, (address, read)) = (good.requests(), resetting(when));
        let reeve = start(address);
        let mut elsewhere = 0;
        for method in ["GET", "POST"] {
            match ask(&mut Client::connect(&reeve.address()), method, "/a") {
                // The reset was there before the connection was seen to be: nothing was sent.
                (200, origin) if when == Breaks::Unread && origin == "good" => elsewhere += 1,
                (status, _) => assert_eq!(status, 502, "{when:?} {method}"),
            }
        }
        assert_eq!(good.requests(), before + elsewhere, "{when:?}");
        assert_eq!(read.load(Ordering::SeqCst), if when == Breaks::Read { 2 } else { 0 }, "{when:?}");
    }
    // A kept connection may be closed as it is taken: once more on a new one, where twice is as good as once.
    for (method, heads) in [("GET", 3), ("POST", 2)] {
        let (before, (address, read)) = (good.requests(), resetting(Breaks::Kept));
        let reeve = start(address);
        let mut client = Client::connect(&reeve.address());
        assert_eq!(ask(&mut client, method, "/a"), (200, "poor".to_owned()));
        let (status, _) = ask(&mut client, method, "/a");
        assert_eq!((status, read.load(Ordering::SeqCst)), (if method == "GET" { 200 } else { 502 }, heads), "{method}");
        assert_eq!(good.requests(), before, "{method}");
    }
}
