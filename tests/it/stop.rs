//! SIGTERM: what was begun is finished, and nothing new is taken.

use std::net::TcpStream;
use std::time::Duration;

use rustix::process::Signal;

use crate::farm::{Client, Origin, Reeve, among_others, until};

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

#[test]
fn without_work_it_ends_at_once() {
    let _turn = among_others();
    let origin = Origin::start("web");
    for signal in [Signal::TERM, Signal::INT] {
        let mut reeve = Reeve::before("stop", &[("web", origin.address())]);
        // Who hopes for a reload must not end it.
        reeve.process.signal(Signal::HUP);
        let mut client = Client::connect(&reeve.address());
        assert_eq!(client.request("GET", "/", &[]).expect("an answer").status, 200);
        reeve.process.signal(signal);
        assert_eq!(reeve.process.exit(Duration::from_secs(10)).code(), Some(0), "{signal:?}");
        assert!(!std::path::Path::new(&reeve.site.socket()).exists(), "the control socket is gone");
    }
}
