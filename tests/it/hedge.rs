//! A second server for a request whose first one is slow.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::Receiver;
use std::thread::spawn;
use std::time::{Duration, Instant};

use crate::farm::h2_origin::H2Origin;
use crate::farm::raw::{accepting, exactly, line};
use crate::farm::{Client, Origin, Reeve, among_others, get, observe, until};

const RULES: &str = "http *\n  all : any  use web\n";

/// Two servers, of which the first is always the first to be asked.
fn pool(first: &str, second: &str, more: &str) -> String {
    format!(
        "[pool.web]\nscheduler = \"fo\"\nhedge = {{ after = \"100ms\", at-most = \"100%\" }}\n{more}\n\
         servers = [{{ name = \"first\", address = \"{first}\", weight = 2 }},\n\
         {{ name = \"second\", address = \"{second}\" }}]\n"
    )
}

/// A request's head on a connection of a server that is slow.
fn head(arrivals: &Receiver<TcpStream>) -> (TcpStream, String) {
    let mut stream = arrivals.recv_timeout(Duration::from_secs(10)).expect("a connection to the server");
    let first = line(&mut stream);
    while !line(&mut stream).trim_end().is_empty() {}
    (stream, first)
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nX-Origin: slow\r\n\r\nslow";

#[test]
fn the_first_answer_wins_and_the_other_server_is_let_go_of() {
    let _turn = among_others();
    let (address, arrivals) = accepting();
    let quick = Origin::start("quick");
    let reeve = Reeve::start("hedge", &pool(&address, &quick.address(), ""), RULES);
    let mut client = Client::connect(&reeve.address());
    let since = Instant::now();
    let answer = client.request("GET", "/sized/100000", &[("Host", "a.example")]).expect("an answer");
    assert_eq!((answer.status, answer.origin(), answer.body.len()), (200, "quick", 100_000));
    assert!(since.elapsed() >= Duration::from_millis(50), "{:?}", since.elapsed());
    let (mut slow, first) = head(&arrivals);
    assert!(first.starts_with("GET /sized/100000 "), "{first}");
    assert_eq!(slow.read(&mut [0; 8]).unwrap_or(0), 0, "its connection is closed");
    assert_eq!(reeve.metric("reeve_retries_total{pool=\"web\",reason=\"hedge\"}"), Some(1.0));
    // The same connection goes on, to a first server that answers before the second has.
    let address = reeve.address();
    let both = spawn(move || get(&address, "/hold", &[("Host", "a.example")]));
    let (mut slow, _) = head(&arrivals);
    until("the second to be asked", || (quick.held() == 1).then_some(()));
    slow.write_all(OK).expect("sent");
    let answer = both.join().expect("an answer");
    assert_eq!((answer.status, answer.origin()), (200, "slow"));
    quick.release();
    // Its connection is kept, and one that answers in time is alone.
    let asked = quick.requests();
    let next = spawn({
        let address = reeve.address();
        move || get(&address, "/", &[("Host", "a.example")])
    });
    // Whichever worker has it: on the connection that one has kept, or on a new one.
    until("a request of the first server", || {
        let _ = slow.set_read_timeout(Some(Duration::from_millis(5)));
        if let Ok(other) = arrivals.try_recv() {
            slow = other;
            let _ = slow.set_read_timeout(Some(Duration::from_secs(10)));
        } else if !slow.peek(&mut [0; 1]).is_ok_and(|count| count > 0) {
            return None;
        }
        while !line(&mut slow).trim_end().is_empty() {}
        slow.write_all(OK).ok()
    });
    assert_eq!(next.join().expect("an answer").origin(), "slow");
    assert_eq!(quick.requests(), asked);
    let log = until("the lines in the log", || Some(reeve.log()).filter(|log| log.len() == 3));
    // Each worker writes its own.
    let mut lines: Vec<_> = log.iter().map(|line| (line["tries"].as_u64(), line["server"].as_str())).collect();
    lines.sort_unstable();
    assert_eq!(lines, [(Some(1), Some("first")), (Some(2), Some("first")), (Some(2), Some("second"))]);
}

#[test]
fn what_is_not_idempotent_or_has_a_body_is_asked_for_once() {
    let _turn = among_others();
    let (address, arrivals) = accepting();
    let quick = Origin::start("quick");
    let reeve = Reeve::start("hedge-once", &pool(&address, &quick.address(), ""), RULES);
    for (method, body) in [("POST", None), ("PUT", Some("ab"))] {
        let mut client = Client::connect(&reeve.address());
        let length = body.map_or(String::new(), |body: &str| format!("Content-Length: {}\r\n", body.len()));
        client
            .send(format!("{method} / HTTP/1.1\r\nHost: a.example\r\n{length}\r\n{}", body.unwrap_or_default()))
            .expect("sent");
        let (mut slow, first) = head(&arrivals);
        assert!(first.starts_with(method), "{first}");
        observe(Duration::from_millis(300), "the second server to be left alone", || quick.requests() == 0);
        let _ = exactly(&mut slow, body.map_or(0, str::len));
        slow.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").expect("sent");
        assert_eq!(client.answer(method).expect("an answer").status, 200);
    }
}

#[test]
fn a_backup_is_no_second_server_and_a_first_that_breaks_leaves_it_to_the_second() {
    let _turn = among_others();
    let (address, arrivals) = accepting();
    let quick = Origin::start("quick");
    let config = pool(&address, &quick.address(), "");
    let backup = config.replace(" }]", ", backup = true }]");
    let reeve = Reeve::start("hedge-backup", &backup, RULES);
    let ask = || {
        let address = reeve.address();
        spawn(move || get(&address, "/hold", &[("Host", "a.example")]))
    };
    let alone = ask();
    let (mut slow, _) = head(&arrivals);
    observe(Duration::from_millis(300), "the backup to be left alone", || quick.requests() == 0);
    slow.write_all(OK).expect("sent");
    assert_eq!(alone.join().expect("an answer").origin(), "slow");
    drop(slow);

    reeve.reload(&config, RULES);
    let both = ask();
    let (slow, _) = head(&arrivals);
    until("the second to be asked", || (quick.held() == 1).then_some(()));
    drop(slow);
    quick.release();
    assert_eq!(both.join().expect("an answer").origin(), "quick");
}

#[test]
fn over_http2_the_slower_stream_is_reset() {
    let _turn = among_others();
    let (address, arrivals) = accepting();
    let quick = H2Origin::start(100);
    let reeve = Reeve::start("hedge-h2", &pool(&address, &quick.address(), "protocol = \"h2c\""), RULES);
    let answer = get(&reeve.address(), "/x", &[("Host", "a.example")]);
    assert_eq!((answer.status, quick.requests()), (200, 1));
    let mut slow = arrivals.recv_timeout(Duration::from_secs(10)).expect("a connection to the server");
    assert!(exactly(&mut slow, 24).starts_with(b"PRI * HTTP/2.0"));
    let mut kinds = Vec::new();
    loop {
        let head = exactly(&mut slow, 9);
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let payload = exactly(&mut slow, length);
        kinds.push(head[3]);
        // RFC 9113 §6.4: RST_STREAM, CANCEL.
        if head[3] == 3 {
            assert_eq!(payload, [0, 0, 0, 8]);
            break;
        }
    }
    assert!(kinds.contains(&1), "HEADERS came before: {kinds:?}");
}

/// A body in chunks, all of which is here before the first server is asked, is for one server of HTTP/2 alone, and whole there.
#[test]
fn a_body_in_chunks_is_no_part_of_a_race_over_http2() {
    let _turn = among_others();
    let (first, second) = (H2Origin::start(100), H2Origin::start(100));
    let more = "protocol = \"h2c\"\ntimeouts = { response = \"500ms\" }";
    let reeve = Reeve::start("hedge-chunks", &pool(&first.address(), &second.address(), more), RULES);
    let ask = |path: &str, body: &str| {
        let mut client = Client::connect(&reeve.address());
        client.send(format!("PUT {path} HTTP/1.1\r\nHost: a.example\r\n{body}")).expect("sent");
        client.answer("PUT").expect("an answer")
    };
    const CHUNKS: &str = "Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n3;x=y\r\ncde\r\n0\r\nx-check: 1\r\n\r\n";
    let echo = ask("/echo", CHUNKS);
    assert_eq!((echo.status, &*echo.body), (200, &b"abcde"[..]));
    // Five times as long as it takes to ask another one.
    assert_eq!(ask("/hold", CHUNKS).status, 504);
    assert_eq!((first.requests(), second.requests()), (2, 0));
    // Without a body it is raced.
    assert_eq!(ask("/hold", "\r\n").status, 504);
    assert_eq!((first.requests(), second.requests()), (3, 1));
}
