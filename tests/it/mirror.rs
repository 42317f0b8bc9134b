//! `mirror`: copies of requests for another pool, which never cost the request anything.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::farm::h2::{Body, Session};
use crate::farm::h2_origin::H2Origin;
use crate::farm::origin::{pattern, send_pattern};
use crate::farm::ports::Port;
use crate::farm::reeve::pool;
use crate::farm::{Client, Origin, Reeve, among_others, get, observe, until};

/// A head and a body.
type Got = (String, Vec<u8>);

/// An origin that writes down what it gets, and answers an error, which is nobody's business.
struct Recorder {
    address: String,
    got: Arc<Mutex<Vec<Got>>>,
}

impl Recorder {
    fn start() -> Recorder {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port for an origin");
        let address = listener.local_addr().expect("the origin's address").to_string();
        let got: Arc<Mutex<Vec<Got>>> = Arc::default();
        let shared = got.clone();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let shared = shared.clone();
                std::thread::spawn(move || {
                    let mut input = BufReader::new(stream.try_clone().expect("the same connection"));
                    while let Some(request) = read(&mut input) {
                        shared.lock().expect("what it got").push(request);
                        let _ = stream
                            .write_all(b"HTTP/1.1 500 Oh\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n");
                    }
                });
            }
        });
        Recorder { address, got }
    }

    /// The one request that it got.
    fn only(&self, what: &str) -> Got {
        until(what, || {
            let mut got = self.got.lock().expect("what it got");
            (got.len() == 1).then(|| got.pop()).flatten()
        })
    }
}

fn read(input: &mut impl BufRead) -> Option<Got> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if input.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let lower = head.to_ascii_lowercase();
    let length = lower.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    input.read_exact(&mut body).ok()?;
    if lower.contains("transfer-encoding: chunked") {
        loop {
            let mut line = String::new();
            input.read_line(&mut line).ok()?;
            let size = usize::from_str_radix(line.trim(), 16).ok()?;
            let start = body.len();
            body.resize(start + size, 0);
            input.read_exact(&mut body[start..]).ok()?;
            input.read_line(&mut String::new()).ok()?;
            if size == 0 {
                break;
            }
        }
    }
    Some((head, body))
}

#[test]
fn a_copy_has_the_head_and_the_body_that_the_server_gets() {
    let _turn = among_others();
    let (web, shadow) = (Origin::start("web"), Recorder::start());
    let config =
        pool("web", "rr", &[("web", web.address())]) + &pool("shadow", "rr", &[("one", shadow.address.clone())]);
    let rules = "http *\n  some : path /none  use web\n           mirror shadow 0%\n  all : any  use web\n          mirror shadow\n          \
                 set header x-stage: copied\n";
    let reeve = Reeve::start("mirror", &config, rules);
    let mut client = Client::connect(&reeve.address());
    let answer = client.request("GET", "/a?b=c", &[]).expect("an answer");
    assert_eq!((answer.status, answer.origin()), (200, "web"));
    let (head, body) = shadow.only("the copy");
    // The server's answer is the head that it got.
    assert_eq!((head.as_str(), body.len()), (answer.text().as_str(), 0));
    assert!(head.starts_with("GET /a?b=c HTTP/1.1\r\n") && head.contains("\r\nx-stage: copied\r\n"), "{head}");

    // Bodies of a length and in chunks, whole and in pieces, from either language.
    let length = "POST /measure HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n\r\n";
    let chunks = "POST /measure HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (head, chunked) in [(length, false), (chunks, true)] {
        client.send(head).expect("sent");
        until("the server has the head", || (web.requests() > 0).then_some(()));
        for piece in pattern(0)[..60_000].chunks(25_000) {
            let piece = match chunked {
                true => [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat(),
                false => piece.to_vec(),
            };
            client.send(piece).expect("sent");
        }
        client.send(if chunked { "0\r\n\r\n" } else { "" }).expect("sent");
        assert_eq!(client.answer("POST").expect("an answer").text(), "60000 as sent");
        let (head, body) = shadow.only("the copy");
        assert_eq!(head.contains("\r\nTransfer-Encoding: chunked\r\n"), chunked);
        assert!(body == pattern(0)[..60_000], "{} bytes", body.len());
    }
    client.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nping").expect("sent");
    assert_eq!(client.answer("POST").expect("an answer").text(), "ping");
    assert_eq!(shadow.only("the copy").1, b"ping");
    let session = Session::connect(&reeve.address());
    let request = http::Request::post("http://t.example/echo").body(()).expect("a request");
    let body = Body { pieces: vec![b"pi".to_vec(), b"ng".to_vec()], ..Body::default() };
    assert_eq!(session.ask(request, Some(body)).expect("an answer").text(), "ping");
    assert_eq!(shadow.only("the copy").1, b"ping");

    // What is too large passes whole, and is not copied.
    for head in ["Content-Length: 200000\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n30d40\r\n"] {
        client.send(format!("POST /measure HTTP/1.1\r\nHost: a\r\n{head}")).expect("sent");
        let mut body = Vec::new();
        send_pattern(&mut body, 0, 200_000).expect("written");
        client.send(body).expect("sent");
        client.send(if head.starts_with('T') { "\r\n0\r\n\r\n" } else { "" }).expect("sent");
        assert_eq!(client.answer("POST").expect("an answer").text(), "200000 as sent");
    }
    assert_eq!(get(&reeve.address(), "/none", &[]).status, 200);
    let count = |result: &str| reeve.metric(&format!("reeve_mirrored_total{{pool=\"shadow\",result=\"{result}\"}}"));
    until("all is counted", || (count("too-large") == Some(2.0) && count("answered") == Some(5.0)).then_some(()));
    observe(Duration::from_millis(200), "no more copies", || shadow.got.lock().expect("what it got").is_empty());
}

#[test]
fn a_share_of_the_requests_is_copied_to_servers_of_http2_too() {
    let _turn = among_others();
    let (web, shadow) = (Origin::start("web"), H2Origin::start(100));
    let config = pool("web", "rr", &[("web", web.address())])
        + &pool("shadow", "rr", &[("one", shadow.address())])
        + "protocol = \"h2c\"\n";
    let reeve = Reeve::start("mirror-share", &config, "http *\n  all : any  use web\n          mirror shadow 50%\n");
    let mut client = Client::connect(&reeve.address());
    for _ in 0..100 {
        client.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nping").expect("sent");
        assert_eq!(client.answer("POST").expect("an answer").text(), "ping");
    }
    let answered = || reeve.metric("reeve_mirrored_total{pool=\"shadow\",result=\"answered\"}");
    // Outside of it once in 10^12 runs.
    let count = until("most of them", || answered().filter(|count| (15.0..=85.0).contains(count)));
    assert!((15.0..=85.0).contains(&count), "{count}");
}

#[test]
fn whatever_becomes_of_copies_the_requests_are_served() {
    let _turn = among_others();
    let (web, nobody) = (Origin::start("web"), Port::free());
    // One that takes connections and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let silent_at = silent.local_addr().expect("an address").to_string();
    let config = pool("web", "rr", &[("web", web.address())])
        + &pool("gone", "rr", &[("one", nobody.address().to_owned())])
        + &pool("silent", "rr", &[("one", silent_at)]);
    let rules = "http *\n  all : any  use web\n          mirror gone\n          mirror silent\n";
    let reeve = Reeve::start("mirror-dead", &config, rules);
    let mut clients: Vec<Client> = (0..4).map(|_| Client::connect(&reeve.address())).collect();
    let start = Instant::now();
    for _ in 0..100 {
        for client in &mut clients {
            assert_eq!(client.request("GET", "/a", &[]).expect("an answer").origin(), "web");
        }
    }
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    let count = |pool: &str, result: &str| {
        reeve.metric(&format!("reeve_mirrored_total{{pool=\"{pool}\",result=\"{result}\"}}")).unwrap_or(0.0)
    };
    until("nobody was reached", || (count("gone", "failed") == 400.0).then_some(()));
    // No worker has more than 128 in hand, and two have 400.
    until("those beyond were dropped", || (count("silent", "dropped") >= 144.0).then_some(()));
    // Texts without that pool: what is under way goes on, and what comes is not copied.
    let dropped = count("silent", "dropped");
    reeve.reload(&pool("web", "rr", &[("web", web.address())]), "http *\n  all : any  use web\n");
    for client in &mut clients {
        assert_eq!(client.request("GET", "/a", &[]).expect("an answer").origin(), "web");
    }
    assert!(count("silent", "dropped") <= dropped);
}
