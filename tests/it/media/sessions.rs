//! Sessions between clients and servers of the test's own: what must not be lost, mixed up or changed.

use std::io::Write;
use std::net::UdpSocket;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::scripted::{BEFORE, FRAMES, Manner, Scripted, pattern, report};
use super::viewer::{Viewer, framed};
use crate::farm::ports::Port;
use crate::farm::reeve::pool;
use crate::farm::{Reeve, among_others, until};

pub const TCP: &str = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n";

/// Reeve with a media listener before these servers: `/one...` goes to the first, `/two...` to the second.
pub struct Front {
    pub reeve: Reeve,
    port: Port,
}

impl Front {
    fn before(label: &str, origins: &[&Scripted]) -> Front {
        Front::with(label, origins, "")
    }

    /// `more` are further lines of the listener.
    pub fn with(label: &str, origins: &[&Scripted], more: &str) -> Front {
        let port = Port::free();
        let mut config = format!(
            "[listen.media]\naddress = [\"{}\"]\nprotocol = \"rtsp\"\nrules = [\"rules/site.rules\"]\n{more}",
            port.address()
        );
        let mut rules = "rtsp *\n".to_owned();
        for (name, origin) in ["one", "two"].iter().zip(origins) {
            config += &pool(name, "rr", &[(name, origin.address.clone())]);
            rules += &format!("  {name} : path ~\"^/{name}\"  use {name}\n");
        }
        let reeve = Reeve::start(label, &config, &rules);
        Front { reeve, port }
    }

    pub fn viewer(&self) -> Viewer {
        until("the media listener is open", || std::net::TcpStream::connect(self.port.address()).ok().map(Viewer::on))
    }

    /// The address of a stream, as a viewer has it.
    pub fn url(&self, path: &str) -> String {
        format!("rtsp://{}{path}", self.port.address())
    }
}

/// Asks for a stream to its first frames, which it checks; the line that names the session.
fn plays(viewer: &mut Viewer, url: &str, stream: u64) -> String {
    viewer.ask("DESCRIBE", url, "Accept: application/sdp\r\n").good();
    let session = viewer.ask("SETUP", &format!("{url}/track1"), TCP).good().session();
    viewer.ask("PLAY", url, &session).good();
    for number in 0..BEFORE {
        shows(viewer, stream, number);
    }
    session
}

/// The next frame is this one of this stream.
pub fn shows(viewer: &mut Viewer, stream: u64, number: usize) {
    let (channel, bytes) = viewer.frame();
    let wanted = pattern(stream, number);
    let same = bytes.iter().zip(&wanted).take_while(|(came, wanted)| came == wanted).count();
    let (came, wanted) = (bytes.len(), wanted.len());
    assert!(
        channel == 0 && came == wanted && same == wanted,
        "frame {number} of {stream}: {came} bytes, not {wanted}, the first {same} right"
    );
}

#[test]
fn two_servers_may_give_the_same_session() {
    let _turn = among_others();
    let manner = || Manner { session: Some("12345678"), ..Manner::default() };
    let (one, two) = (Scripted::start(manner()), Scripted::start(manner()));
    let front = Front::before("media-same", &[&one, &two]);
    let urls = [front.url("/one1"), front.url("/two2")];
    let (mut first, mut second) = (front.viewer(), front.viewer());
    let sessions = [plays(&mut first, &urls[0], 1), plays(&mut second, &urls[1], 2)];
    // Each on a connection of its own, which has asked for nothing before.
    for (url, session) in urls.iter().zip(&sessions) {
        front.viewer().ask("PAUSE", url, session).good();
    }
    front.viewer().ask("TEARDOWN", &urls[1], &sessions[1]).good();
    let heard = |origin: &Scripted, method| origin.heard(method).len();
    assert_eq!((heard(&one, "PAUSE"), heard(&two, "PAUSE")), (1, 1));
    assert_eq!((heard(&one, "TEARDOWN"), heard(&two, "TEARDOWN")), (0, 1));
    // The servers hear of the session by the name that they gave it.
    for head in one.heard("PAUSE").iter().chain(&two.heard("PAUSE")) {
        assert_eq!(super::viewer::field(head, "session"), Some("12345678"), "{head}");
    }
}

#[test]
fn odd_servers_are_understood() {
    let _turn = among_others();
    let origin = Scripted::start(Manner { session: Some("a7-_.$+x;timeout=30"), split: true, ..Manner::default() });
    let front = Front::before("media-odd", &[&origin]);
    let url = front.url("/one5?token=a%2Fb&x=1");
    let mut viewer = front.viewer();
    viewer.ask("DESCRIBE", &url, "").good();
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    let port = socket.local_addr().expect("an address").port();
    let transport = format!("Transport: RTP/AVP;unicast;client_port={port}-{}\r\n", port.wrapping_add(1).max(1));
    let told = viewer.ask("SETUP", &format!("{url}/track1"), &transport).good();
    assert!(told.field("session").is_some_and(|session| session.ends_with(";timeout=30")), "{told:?}");
    let line = told.field("transport").unwrap_or_default();
    assert!(line.contains(&format!("client_port={port}-")), "{line}");
    viewer.ask("PLAY", &url, &told.session()).good();
    let server =
        line.split("server_port=").nth(1).and_then(|rest| rest.split(['-', ';']).next()).expect("a server's port");
    let mut packet = vec![0; 65_536];
    let (count, from) = socket.recv_from(&mut packet).expect("a packet");
    assert!(packet[..count] == pattern(5, 0), "{count} other bytes");
    assert_eq!(from.port().to_string(), server, "from the port that was named: {line}");
    // Queries are part of the address, and reach the server as they were.
    assert!(origin.heard("SETUP")[0].contains("/one5?token=a%2Fb&x=1/track1 RTSP/1.0"));
}

/// As live555 does it. A client that reconnects where it is told would go around Reeve, if it could.
#[test]
fn a_server_that_names_itself_stays_behind() {
    let _turn = among_others();
    let origin = Scripted::start(Manner { own_name: true, ..Manner::default() });
    let front = Front::with("media-own", &[&origin], "rewrite-urls = true\n");
    let told = front.viewer().ask("DESCRIBE", &front.url("/one6"), "").good();
    assert!(!format!("{told:?}").contains(&origin.address), "{told:?}");
    let track = told.body.lines().find_map(|line| line.strip_prefix("a=control:")).expect("a track");
    assert_eq!(track, front.url("/one6/track1"));
    assert_eq!(told.field("content-base"), Some(front.url("/one6/").as_str()));
    let length = told.body.len().to_string();
    assert_eq!(told.field("content-length"), Some(length.as_str()));
    // On another connection, by the address that it was given.
    let mut viewer = front.viewer();
    let session = viewer.ask("SETUP", track, TCP).good().session();
    viewer.ask("PLAY", &front.url("/one6/"), &session).good();
    shows(&mut viewer, 6, 0);
}

/// The address is part of what is signed: it must not be changed.
#[test]
fn a_strict_digest_holds() {
    let _turn = among_others();
    let origin = Scripted::start(Manner { digest: true, ..Manner::default() });
    let front = Front::before("media-digest", &[&origin]);
    let mut viewer = front.viewer();
    let url = front.url("/one3");
    let signed = |url: &str| {
        format!("Authorization: Digest username=\"a\", realm=\"it\", nonce=\"abc\", uri=\"{url}\", response=\"0\"\r\n")
    };
    let told = viewer.ask("DESCRIBE", &url, "");
    assert_eq!(told.status(), 401);
    assert!(told.field("www-authenticate").is_some_and(|field| field.contains("nonce=\"abc\"")), "{told:?}");
    viewer.ask("DESCRIBE", &url, &signed(&url)).good();
    let track = format!("{url}/track1");
    let session = viewer.ask("SETUP", &track, &(signed(&track) + TCP)).good().session();
    viewer.ask("PLAY", &format!("{url}/"), &(signed(&format!("{url}/")) + &session)).good();
    shows(&mut viewer, 3, 0);
}

#[test]
fn servers_may_ask_clients() {
    let _turn = among_others();
    let origin = Scripted::start(Manner { asks: true, ..Manner::default() });
    let front = Front::before("media-asks", &[&origin]);
    let (mut viewer, url) = (front.viewer(), front.url("/one4"));
    plays_asked(&mut viewer, &url);
    until("the server hears the answer", || (origin.heard("RTSP/1.0").len() == 1).then_some(()));
    let head = &origin.heard("RTSP/1.0")[0];
    assert_eq!(
        (super::viewer::field(head, "cseq"), super::viewer::field(head, "x-here")),
        (Some("77"), Some("yes")),
        "{head}"
    );
    // And the client's own answers are still its own.
    viewer.ask("OPTIONS", &url, "").good();
}

fn plays_asked(viewer: &mut Viewer, url: &str) {
    let session = viewer.ask("SETUP", &format!("{url}/track1"), TCP).good().session();
    viewer.ask("PLAY", url, &session).good();
    let asked = viewer.told();
    assert!(asked.head.starts_with("GET_PARAMETER "), "{asked:?}");
    let number = asked.field("cseq").expect("a number");
    write!(viewer.stream, "RTSP/1.0 200 OK\r\nCSeq: {number}\r\nX-Here: yes\r\n\r\n").expect("an answer is sent");
}

/// One byte at a time, with frames before, between and in the middle of what is asked; then what is no message at all.
#[test]
fn pieces_and_garbage_are_borne() {
    let _turn = among_others();
    let origin = Scripted::start(Manner::default());
    let front = Front::before("media-pieces", &[&origin]);
    let (mut viewer, url) = (front.viewer(), front.url("/one11"));
    let setup = format!("\r\n\r\nSETUP {url}/track1 RTSP/1.0\r\ncseq:5\r\nUser-Agent: a\r\nUser-Agent: b\r\n{TCP}\r\n");
    for byte in setup.as_bytes() {
        viewer.stream.write_all(&[*byte]).expect("a byte is sent");
    }
    let told = viewer.told().good();
    assert_eq!(told.field("cseq"), Some("5"));
    let session = told.session();
    let mut all = framed(1, &report(11, 0));
    all.extend(format!("PLAY {url} RTSP/1.0\r\nCSeq: 6\r\n{session}\r\n").bytes());
    all.extend(framed(1, &report(11, 1)));
    all.extend(format!("GET_PARAMETER {url} RTSP/1.0\r\nCSeq: 7\r\n{session}\r\n").bytes());
    for byte in all {
        viewer.stream.write_all(&[byte]).expect("a byte is sent");
    }
    viewer.told().good();
    for number in 0..BEFORE {
        shows(&mut viewer, 11, number);
    }
    let told = viewer.told().good();
    assert_eq!((told.field("cseq"), told.field("x-reports")), (Some("7"), Some("2")));
    // Megabytes of nothing, some of it in the middle of a session.
    let before = front.reeve.process.resident();
    for mut viewer in [viewer, front.viewer()] {
        let garbage = vec![b'x'; 64 << 20];
        let _ = viewer.stream.write_all(&garbage);
        assert!(viewer.closed(), "whoever speaks no RTSP is let go");
    }
    let grown = front.reeve.process.resident().saturating_sub(before);
    assert!(grown < 24 << 10, "{grown} KiB more");
    front.viewer().ask("OPTIONS", &url, "").good();
}

const SESSIONS: u64 = 1000;

#[test]
fn a_thousand_sessions_arrive_byte_for_byte() {
    let _turn = among_others();
    // Four descriptors for each: two of them Reeve's.
    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: limit.maximum.or(Some(8192)), maximum: limit.maximum };
    setrlimit(Resource::Nofile, wanted).expect("more descriptors");
    let origins = [Scripted::start(Manner::default()), Scripted::start(Manner::default())];
    let front = Front::before("media-thousand", &[&origins[0], &origins[1]]);
    // One takes nothing of what it asked for: nobody else may wait for it.
    let mut stalled = front.viewer();
    let url = front.url("/one9999");
    let session = stalled.ask("SETUP", &format!("{url}/track1"), TCP).good().session();
    for _ in 0..50 {
        stalled.send("PLAY", &url, &session);
    }
    let gate = std::sync::Barrier::new(SESSIONS as usize);
    std::thread::scope(|scope| {
        for number in 0..SESSIONS {
            let (front, gate) = (&front, &gate);
            let one = move || whole_session(front, number, gate);
            std::thread::Builder::new().stack_size(256 << 10).spawn_scoped(scope, one).expect("a thread");
        }
    });
    for (origin, count) in origins.iter().zip([SESSIONS / 2 + 1, SESSIONS / 2]) {
        assert_eq!(origin.heard("SETUP").len() as u64, count);
    }
    assert!(front.reeve.process.resident() < 400 << 10, "{} KiB", front.reeve.process.resident());
}

/// From the first request to the leave. All are there at once: none begins to play before all are set up.
fn whole_session(front: &Front, number: u64, gate: &std::sync::Barrier) {
    let mut viewer = front.viewer();
    let url = front.url(&format!("/{}{number}", ["one", "two"][number as usize % 2]));
    let told = viewer.ask("SETUP", &format!("{url}/track1"), TCP).good();
    let session = told.session();
    gate.wait();
    viewer.ask("PLAY", &url, &session).good();
    for frame in 0..BEFORE {
        shows(&mut viewer, number, frame);
    }
    for frame in 0..3 {
        viewer.send_frame(1, &report(number, frame));
    }
    let told = viewer.ask("GET_PARAMETER", &url, &(session.clone() + "X-Go-On: yes\r\n")).good();
    assert_eq!(told.field("x-reports"), Some("3"), "{url}");
    for frame in BEFORE..FRAMES {
        shows(&mut viewer, number, frame);
    }
    viewer.ask("TEARDOWN", &url, &session).good();
}
