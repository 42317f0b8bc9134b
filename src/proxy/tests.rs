//! A worker on a thread of its own, asked over sockets, where a fault has to be put into it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use super::access_log::Logs;
use super::{Room, Start, run};
use crate::config;
use crate::route::Table;
use crate::state::Farm;
use crate::state::commands::{Socket, Workers};

/// Panics at a request whose head says that it is meant to.
pub fn panic_where_it_is_meant(head: &[u8]) {
    assert!(!head.windows(9).any(|word| word == b"/meant-to"), "meant");
}

/// An origin that answers each connection's first request and closes.
fn origin() -> SocketAddr {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = socket.local_addr().expect("an address");
    std::thread::spawn(move || {
        for mut stream in socket.incoming().flatten() {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
        }
    });
    address
}

fn farm(origin: SocketAddr) -> Arc<Farm> {
    let text = format!(
        "[listen.web]\naddress = [\"127.0.0.1:1\"]\npool = \"web\"\nrules = []\n\
         [pool.web]\nservers = [\"{origin}\"]\n[log]\n"
    );
    let load = config::load_text("test", &text);
    let config = load.config.unwrap_or_else(|| panic!("{:?}", load.faults));
    let tables = config.rule_sets.iter().map(|set| Arc::new(Table::compile(set, &mut Vec::new()))).collect();
    Farm::new(Arc::new(config), tables)
}

fn ask(stream: &mut TcpStream, path: &str) -> String {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").expect("sent");
    let mut answer = String::new();
    let mut piece = [0; 4096];
    while !is_whole(&answer) {
        let count = stream.read(&mut piece).expect("an answer in time");
        assert!(count > 0, "closed within {answer}");
        answer.push_str(&String::from_utf8_lossy(&piece[..count]));
    }
    answer
}

fn is_whole(answer: &str) -> bool {
    let Some((head, body)) = answer.split_once("\r\n\r\n") else { return false };
    let length = head.to_lowercase().lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    length == Some(body.len())
}

#[test]
fn a_panic_is_an_answer_of_500_to_that_request_alone() {
    let farm = farm(origin());
    let (workers, mut commands) = Workers::new(1);
    let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
    socket.set_nonblocking(true).expect("not blocking");
    let address = socket.local_addr().expect("an address");
    let listener = farm.snapshot().listeners[0];
    let (worker_farm, commands) = (farm.clone(), commands.remove(0));
    let thread = std::thread::spawn(move || {
        let room = Room { descriptors: 1024, workers: 1 };
        run(Start { number: 0, farm: worker_farm, logs: Logs::default().slot(), commands, room })
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(workers.listen(vec![vec![Socket { key: 1, listener, address, socket }]]));

    let connect = || {
        let stream = TcpStream::connect(address).expect("accepted");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a deadline");
        stream
    };
    let mut other = connect();
    let mut one = connect();
    let answer = ask(&mut one, "/meant-to");
    assert!(answer.starts_with("HTTP/1.1 500 ") && answer.contains("written down"), "{answer}");
    assert!(ask(&mut other, "/").starts_with("HTTP/1.1 200 "), "the connection beside it");
    assert!(ask(&mut connect(), "/").starts_with("HTTP/1.1 200 "), "a new one");
    drop((one, other));
    runtime.block_on(workers.drain(true));
    drop(workers);
    thread.join().expect("the worker did not panic").expect("it ended as it should");
}
