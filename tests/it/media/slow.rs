//! Clients that take less than is sent them.

use std::io::Read;

use super::scripted::{Manner, Scripted};
use super::sessions::{Front, TCP, shows};
use crate::farm::{among_others, until};

const STALLED: usize = 20;

/// Their servers are held back, and nobody else is; nothing piles up; and they do not stay for ever.
#[test]
fn who_takes_nothing_is_let_go_and_holds_nobody_up() {
    let _turn = among_others();
    let origin = Scripted::start(Manner { floods: true, ..Manner::default() });
    let front = Front::with("media-stalled", &[&origin], "[timeouts]\nclient-write = \"4s\"\n");
    let plays = |number: u64| {
        let mut viewer = front.viewer();
        let url = front.url(&format!("/one{number}"));
        let session = viewer.ask("SETUP", &format!("{url}/track1"), TCP).good().session();
        viewer.ask("PLAY", &url, &session).good();
        viewer
    };
    let mut reader = plays(1);
    let mut number = 0;
    let mut reads = |frames: usize| {
        for _ in 0..frames {
            shows(&mut reader, 1, number);
            number += 1;
        }
    };
    reads(500);
    let before = front.reeve.process.resident();
    let mut stalled: Vec<_> = (1..=STALLED as u64).map(|at| plays(at * 8 + 3)).collect();
    // One is in the middle of a request, too.
    std::io::Write::write_all(&mut stalled[STALLED - 1].stream, b"GET_PARAMETER ").expect("half a request is sent");
    let sessions = || front.reeve.metric("reeve_media_sessions{pool=\"one\",server=\"one\"}");
    let log = || {
        let log = front.reeve.log();
        log.iter().filter(|line| line["failure"] == "client-stalled").cloned().collect::<Vec<_>>()
    };
    assert_eq!(sessions(), Some(STALLED as f64 + 1.0));
    // Who takes what comes is served as before, all the time that they are held.
    let mut most = 0;
    while log().len() < STALLED {
        reads(500);
        most = most.max(front.reeve.process.resident());
    }
    let grown = most.saturating_sub(before);
    // 128 KiB each of what is on its way, and megabytes that workers take once: of megabytes a second that they are sent.
    assert!(grown < STALLED as u64 * 768, "{grown} KiB more");
    assert_eq!(sessions(), Some(1.0));
    assert_eq!(
        front.reeve.metric("reeve_media_streams{pool=\"one\",server=\"one\",transport=\"interleaved\"}"),
        Some(1.0)
    );
    until("their servers hear of it", || (origin.guests() == 1).then_some(()));
    for line in log() {
        assert!(line["method"] == "PLAY" && line["side"] == "client", "{line}");
        assert!(line["bytes_out"].as_u64().is_some_and(|bytes| bytes > 100_000), "{line}");
    }
    // What nobody takes does not lie in the kernel, either.
    for viewer in &mut stalled {
        let mut rest = Vec::new();
        let ended = viewer.stream.read_to_end(&mut rest);
        assert!(ended.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset));
    }
    reads(500);
    drop(reader);
    until("the last session is over", || (sessions() == Some(0.0)).then_some(()));
}
