//! SIGTERM: what was begun is finished, and nothing new is taken.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use rustix::process::Signal;

use crate::farm::{Client, Origin, Reeve, among_others, raw, until};

#[test]
fn a_request_in_flight_is_answered_before_the_end() {
    let _turn = among_others();
    let origin = Origin::start("web");
    let mut reeve = Reeve::before("drain", &[("web", origin.address())]);
    let address = reeve.address();
    let mut idle = Client::connect(&address);
    assert_eq!(idle.request("GET", "/", &[]).expect("an answer").status, 200);
    let mut busy: Vec<Client> = (0..5).map(|_| Client::connect(&address)).collect();
    for client in &mut busy {
        client.send("GET /hold HTTP/1.1\r\nHost: a\r\n\r\n").expect("sent");
    }
    until("all are in flight", || (origin.held() == busy.len()).then_some(()));
    // Twice within a moment, as timeout(1) does it to the process and its group, is once.
    reeve.process.signal(Signal::TERM);
    reeve.process.signal(Signal::TERM);
    until("nobody listens any more", || TcpStream::connect(&address).is_err().then_some(()));
    assert!(reeve.process.running(), "it waits for what is in flight");
    origin.release();
    for client in &mut busy {
        let answer = client.answer("GET").expect("the answer of a request that was in flight");
        assert_eq!((answer.status, answer.text().as_str()), (200, "released"));
        assert_eq!(answer.field("connection"), Some("close"), "it says that it is the last");
    }
    assert_eq!(reeve.process.exit(Duration::from_secs(10)).code(), Some(0));
    let mut rest = [0; 1];
    assert!(matches!(idle.read(&mut rest), Ok(0) | Err(_)), "the idle connection is closed");
}

/// A WebSocket whose server is the test, and what both have said so far.
fn websocket(address: &str, servers: &std::sync::mpsc::Receiver<TcpStream>) -> (Client, TcpStream) {
    let mut client = Client::connect(address);
    client
        .send(
            "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )
        .expect("sent");
    let mut server = servers.recv_timeout(Duration::from_secs(10)).expect("a connection");
    while raw::line(&mut server) != "\r\n" {}
    server
        .write_all(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
              Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n\x81\x02hi",
        )
        .expect("sent");
    assert_eq!(client.head().expect("a head").status, 101);
    let mut greeting = [0; 4];
    client.read_exact(&mut greeting).expect("the greeting");
    assert_eq!(&greeting, b"\x81\x02hi");
    (client, server)
}

fn rest(stream: &mut impl Read) -> Vec<u8> {
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    rest
}

#[test]
fn websockets_are_closed_in_their_language_where_a_frame_may_stand() {
    let _turn = among_others();
    let (address, servers) = raw::accepting();
    let config = crate::farm::reeve::pool("web", "rr", &[("one", address)]) + "\n[timeouts]\ndrain = \"1s\"\n";
    let mut reeve = Reeve::start("goodbye", &config, "http *\n  all : any  use web\n");
    let (mut client, mut server) = websocket(&reeve.address(), &servers);
    // Another one, of which each side is in the middle of a frame.
    let (mut cut_client, mut cut_server) = websocket(&reeve.address(), &servers);
    cut_client.send(b"\x82\xfe\x03\xe8\x00\x00\x00\x00begun").expect("sent");
    assert_eq!(raw::exactly(&mut cut_server, 13).len(), 13);
    cut_server.write_all(b"\x82\x7e\x03\xe8begun").expect("sent");
    let mut begun = [0; 9];
    cut_client.read_exact(&mut begun).expect("a beginning");
    reeve.process.signal(Signal::TERM);
    let mut said = Vec::new();
    let mut byte = [0; 1];
    while matches!(client.read(&mut byte), Ok(1)) {
        said.push(byte[0]);
    }
    assert_eq!(said, [0x88, 2, 0x03, 0xe9], "1001, going away (RFC 6455 \u{a7}7.4.1)");
    assert_eq!(rest(&mut server), [0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe9], "the same, masked");
    assert!(!matches!(cut_client.read(&mut byte), Ok(1)), "nothing is put into a frame");
    assert!(rest(&mut cut_server).is_empty());
    assert_eq!(reeve.process.exit(Duration::from_secs(10)).code(), Some(0));
}

#[test]
fn without_work_it_ends_at_once() {
    let _turn = among_others();
    let origin = Origin::start("web");
    for signal in [Signal::TERM, Signal::INT] {
        let mut reeve = Reeve::before("stop", &[("web", origin.address())]);
        // A reload beside it must not matter.
        reeve.process.signal(Signal::HUP);
        let mut client = Client::connect(&reeve.address());
        assert_eq!(client.request("GET", "/", &[]).expect("an answer").status, 200);
        reeve.process.signal(signal);
        assert_eq!(reeve.process.exit(Duration::from_secs(10)).code(), Some(0), "{signal:?}");
        assert!(!std::path::Path::new(&reeve.site.socket()).exists(), "the control socket is gone");
    }
}
