//! Who takes leave of one stream of a session, on whatever connection: the others go on (RFC 2326 §10.7, RFC 7826 §13.7).

use std::net::UdpSocket;
use std::time::Duration;

use super::peers::{Script, Viewer, payload};
use super::{ALL, Farm, RELAYED, SESSIONS, farm};
use crate::farm::{among_others, until};

const BETWEEN: &str = "reeve_media_streams{pool=\"media\",server=\"one\",transport=\"interleaved\"}";

fn port() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a deadline");
    socket
}

fn udp(to: &UdpSocket) -> String {
    let port = to.local_addr().expect("its address").port();
    format!("Transport: RTP/AVP;unicast;client_port={port}-{}\r\n", port + 1)
}

/// Waits for so many sessions, streams that are relayed, and streams between messages.
fn comes_to(farm: &Farm, sessions: f64, relayed: f64, between: f64) {
    let wanted = [sessions, relayed, between].map(Some);
    let seen = || [SESSIONS, RELAYED, BETWEEN].map(|name| farm.reeve.metric(name));
    until(&format!("sessions and streams are {wanted:?}"), || (seen() == wanted).then_some(()));
}

/// Over a connection that has not set it up.
#[test]
fn a_stream_is_torn_down_from_any_connection() {
    let _turn = among_others();
    let script = Script { frames: 5, ..Script::default() };
    let farm = farm("rtsp-leave", &[script], "media-ports = \"28000-28199\"", "", ALL);
    let (mut first, mut second) = (Viewer::connect(&farm.port.address()), Viewer::connect(&farm.port.address()));
    let (one, two) = (port(), port());
    let answer = first.ask("SETUP", "/cam/track1", &udp(&one));
    let id = answer.value("session").split(';').next().unwrap_or_default().to_owned();
    let session = format!("Session: {id}\r\n");
    assert_eq!(first.ask("SETUP", "/cam/track2", &(session.clone() + &udp(&two))).status(), 200);
    comes_to(&farm, 1.0, 2.0, 0.0);
    assert_eq!(second.ask("TEARDOWN", "/cam/track1", &session).status(), 200);
    comes_to(&farm, 1.0, 1.0, 0.0);
    // The other one plays, there and back.
    assert_eq!(first.ask("PLAY", "/cam/", &session).status(), 200);
    let mut packet = [0; 2048];
    let mut from = None;
    for number in 0..5 {
        let (count, sender) = two.recv_from(&mut packet).expect("a packet");
        assert!(packet[..count] == payload(&id, number)[..], "{number} from {sender}");
        from = Some(sender);
    }
    two.send_to(b"mine", from.expect("who has sent")).expect("sent");
    let (count, _) = two.recv_from(&mut packet).expect("what was sent comes back");
    assert_eq!(&packet[..count], b"mine");
    // Set up anew over the other connection, it leaves nothing behind; and the presentation's URI is all of it.
    assert_eq!(second.ask("SETUP", "/cam/track2", &(session.clone() + &udp(&one))).status(), 200);
    comes_to(&farm, 1.0, 1.0, 0.0);
    assert_eq!(first.ask("SETUP", "/cam/track1", &(session.clone() + &udp(&two))).status(), 200);
    comes_to(&farm, 1.0, 2.0, 0.0);
    assert_eq!(second.ask("TEARDOWN", "/cam/", &session).status(), 200);
    comes_to(&farm, 0.0, 0.0, 0.0);
}

/// Over the one that did, while the others are another's; the last one is the session.
#[test]
fn the_last_stream_to_leave_is_the_session() {
    let _turn = among_others();
    let farm = farm("rtsp-leave-last", &[Script::default()], "media-ports = \"28200-28399\"", "", ALL);
    let (mut first, mut second) = (Viewer::connect(&farm.port.address()), Viewer::connect(&farm.port.address()));
    let (id, _) = first.set_up("/cam/track1");
    let session = format!("Session: {id}\r\n");
    assert_eq!(second.ask("SETUP", "/cam/track2", &(session.clone() + &udp(&port()))).status(), 200);
    comes_to(&farm, 1.0, 1.0, 1.0);
    assert_eq!(first.ask("TEARDOWN", "/cam/track1", &session).status(), 200);
    comes_to(&farm, 1.0, 1.0, 0.0);
    // Media between messages is counted no more either, whoever ends it.
    let way = session.clone() + "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n";
    assert_eq!(first.ask("SETUP", "/cam/track1", &way).status(), 200);
    comes_to(&farm, 1.0, 1.0, 1.0);
    assert_eq!(second.ask("TEARDOWN", "/cam/track1", &session).status(), 200);
    comes_to(&farm, 1.0, 1.0, 0.0);
    assert_eq!(first.ask("TEARDOWN", "/cam/track2", &session).status(), 200);
    comes_to(&farm, 0.0, 0.0, 0.0);
    drop((first, second));
    let log = until("its line is in the log", || Some(farm.reeve.log()).filter(|log| !log.is_empty()));
    assert_eq!(log.len(), 1, "{log:?}");
}

/// Who does not wait for the answer has said it all the same.
#[test]
fn who_leaves_without_an_answer_takes_no_more_along() {
    let _turn = among_others();
    let script = Script { holds: "TEARDOWN", ..Script::default() };
    let farm = farm("rtsp-leave-mute", &[script], "media-ports = \"28400-28599\"", "", ALL);
    let mut first = Viewer::connect(&farm.port.address());
    let answer = first.ask("SETUP", "/cam/track1", &udp(&port()));
    let session = format!("Session: {}\r\n", answer.value("session").split(';').next().unwrap_or_default());
    assert_eq!(first.ask("SETUP", "/cam/track2", &(session.clone() + &udp(&port()))).status(), 200);
    for (url, asked, sessions, relayed) in [("/cam/track1", 1, 1.0, 1.0), ("/cam/", 2, 0.0, 0.0)] {
        let mut leaves = Viewer::connect(&farm.port.address());
        let text = leaves.request("TEARDOWN", url, &session);
        leaves.send(text.as_bytes());
        until("the server is asked", || {
            let seen = farm.origins[0].seen();
            (seen.iter().filter(|message| message.first.starts_with("TEARDOWN")).count() == asked).then_some(())
        });
        drop(leaves);
        comes_to(&farm, sessions, relayed, 0.0);
    }
}

/// The connection that began it lets go of it, and needs its server no more.
#[test]
fn a_session_that_was_ended_elsewhere_holds_nothing() {
    let _turn = among_others();
    let script = Script { leaves: "SET_PARAMETER", ..Script::default() };
    let farm = farm("rtsp-leave-over", &[script], "", "", ALL);
    let (mut first, mut second) = (Viewer::connect(&farm.port.address()), Viewer::connect(&farm.port.address()));
    let (id, _) = first.set_up("/cam/track1");
    assert_eq!(second.ask("TEARDOWN", "/cam/", &format!("Session: {id}\r\n")).status(), 200);
    comes_to(&farm, 0.0, 0.0, 0.0);
    assert_eq!(first.ask("SET_PARAMETER", "/cam/", "").status(), 200);
    until("its server has left", || farm.origins[0].seen().iter().any(|told| told.first == "END").then_some(()));
    assert_eq!(first.ask("OPTIONS", "/cam/", "").status(), 200);
    until("its line is in the log", || (farm.reeve.log().len() == 1).then_some(()));
}
