//! How long Reeve waits for peers that are slow on purpose, or only just in time.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Duration;

use crate::farm::reeve::pool;
use crate::farm::{Client, Reeve, among_others, observe, until};

const HANDSHAKE: &str = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const SWITCHING: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
     Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

#[test]
fn a_head_that_never_pauses_has_a_deadline_too() {
    let _turn = among_others();
    let reeve = before("drip", "request-header = \"1s\"", |_| {});
    let mut stream = TcpStream::connect(reeve.address()).expect("a connection");
    stream.set_nonblocking(true).expect("a socket that does not wait");
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nX-A: ").expect("sent");
    let mut answer = [0; 1024];
    let length = until("an answer to a head without end", || {
        let _ = stream.write(b"x");
        stream.read(&mut answer).ok()
    });
    assert!(answer[..length].starts_with(b"HTTP/1.1 408 "), "{}", String::from_utf8_lossy(&answer[..length]));
}

#[test]
fn an_answers_head_that_never_pauses_has_a_deadline_too() {
    let _turn = among_others();
    let reeve = before("server-drip", "response = \"1s\"", |mut stream| {
        read_head(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nX-A: ");
        until("Reeve closes the connection", || stream.write_all(b"x").is_err().then_some(()));
    });
    let mut client = Client::connect(&reeve.address());
    assert_eq!(client.request("GET", "/", &[]).expect("an answer").status, 504);
}

#[test]
fn the_time_for_an_answer_begins_when_the_request_is_out() {
    let _turn = among_others();
    let reeve = before("slow-upload", "response = \"2s\"", |mut stream| {
        read_head(&mut stream);
        let _ = stream.read_exact(&mut [0; 3]);
        observe(Duration::from_millis(1200), "a server that thinks", || true);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK");
    });
    let mut client = Client::connect(&reeve.address());
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n").expect("sent");
    observe(Duration::from_millis(1500), "a client that is slow", || true);
    client.send("abc").expect("sent");
    assert_eq!(client.answer("POST").expect("an answer").status, 200);
}

#[test]
fn a_tunnel_of_which_one_side_has_ended_is_given_up() {
    let _turn = among_others();
    let reeve = before("half-closed", "half-closed = \"1s\"", |mut stream| {
        read_head(&mut stream);
        let _ = stream.write_all(SWITCHING.as_bytes());
        // Takes all there is, the end too, and never says its own last word.
        let _ = stream.read_to_end(&mut Vec::new());
        std::mem::forget(stream);
    });
    let mut client = Client::connect(&reeve.address());
    client.send(HANDSHAKE).expect("sent");
    assert_eq!(client.answer("GET").expect("an answer").status, 101);
    client.stream().shutdown(Shutdown::Write).expect("half closed");
    let mut rest = [0; 1];
    assert_eq!(client.read(&mut rest).expect("the end"), 0);
    let line = until("the line in the log", || reeve.log().pop());
    assert_eq!(line["status"], 101);
}

/// Reeve with these timeouts before an origin that does this with each connection.
fn before(label: &str, timeouts: &str, serve: impl Fn(TcpStream) + Copy + Send + 'static) -> Reeve {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port for an origin");
    let address = listener.local_addr().expect("the origin's address").to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || serve(stream));
        }
    });
    let config = pool("web", "rr", &[("web", address)]) + "\n[timeouts]\n" + timeouts + "\n";
    Reeve::start(label, &config, "http *\n  all : any  use web\n")
}

fn read_head(stream: &mut TcpStream) {
    let mut head = Vec::new();
    let mut byte = [0; 1];
    while !head.ends_with(b"\r\n\r\n") && stream.read_exact(&mut byte).is_ok() {
        head.extend_from_slice(&byte);
    }
}
