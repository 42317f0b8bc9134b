//! The cameras of the demonstration: small RTSP servers (RFC 2326), each with one moving picture.
//!
//! ```text
//!             SETUP               PLAY
//!   nothing ---------> ready <-----------> playing         a session is its connection's: it ends with it
//!      ^                 |      PAUSE         |
//!      +-----------------+--------------------+  TEARDOWN
//! ```
//!
//! Media goes between the answers on the connection itself (§10.12), or by UDP to the client's ports.

mod card;
mod jpeg;
mod message;
mod transport;

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use self::card::{Card, RATE};
use self::jpeg::{CLOCK, Stream};
use self::message::{Answer, Found, Request};
use self::transport::Transport;

/// What a viewer may take before it is given up, and a bound for what it may ask in one piece.
const PATIENCE: Duration = Duration::from_secs(10);
const LONGEST_MESSAGE: usize = 16 * 1024;
const METHODS: &str = "OPTIONS, DESCRIBE, SETUP, PLAY, PAUSE, TEARDOWN, GET_PARAMETER, SET_PARAMETER";
/// The one track of a camera, below its address.
const TRACK: &str = "track1";

/// One camera: `/camN` at its own server.
#[derive(Debug, Clone, Copy)]
pub struct Camera {
    pub number: usize,
    pub name: &'static str,
    pub address: SocketAddr,
}

pub async fn serve(camera: Camera, listener: TcpListener) {
    let started = Instant::now();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // A viewer that goes away is everyday life for a server.
                tokio::spawn(async move { drop(attend(camera, started, stream).await) });
            }
            // Out of descriptors, mostly: others have to be closed first.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// One session: what was agreed, and where its stream is.
struct Session {
    id: String,
    transport: Transport,
    stream: Stream,
    playing: bool,
}

/// One connection, to its end.
async fn attend(camera: Camera, started: Instant, mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (here, there) = (stream.local_addr()?, stream.peer_addr()?);
    let mut session: Option<Session> = None;
    let mut received = Vec::new();
    let mut tick = interval(Duration::from_millis(1000 / RATE));
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        while let Some((length, found)) = message::first(&received)? {
            if let Found::Request(request) = found {
                let (answer, agreed) = answered(camera, started, &request, session.take(), here, there).await;
                session = agreed;
                timeout(PATIENCE, stream.write_all(answer.text(&request).as_bytes())).await??;
            }
            received.drain(..length);
        }
        if received.len() > LONGEST_MESSAGE {
            return Err(io::ErrorKind::InvalidData.into());
        }
        tokio::select! {
            read = stream.read_buf(&mut received) => {
                if read? == 0 {
                    return Ok(());
                }
            }
            _ = tick.tick() => {
                if let Some(session) = session.as_mut().filter(|session| session.playing) {
                    timeout(PATIENCE, show(camera, started, session, &mut stream)).await??;
                }
            }
        }
    }
}

/// The picture of now, in packets: the same for all who watch.
async fn show(camera: Camera, started: Instant, session: &mut Session, stream: &mut TcpStream) -> io::Result<()> {
    let picture = pictures(started);
    let scan = jpeg::scan(&Card::drawn(camera.number, picture));
    for packet in session.stream.packets(&scan, ticks(picture)) {
        session.transport.send(&packet, stream).await?;
    }
    Ok(())
}

/// How many pictures there have been.
fn pictures(started: Instant) -> u64 {
    started.elapsed().as_millis() as u64 * RATE / 1000
}

fn ticks(picture: u64) -> u32 {
    // Its clock runs over, as RTP's does.
    (picture * CLOCK / RATE) as u32
}

/// What a request is told, and the session after it.
async fn answered(
    camera: Camera,
    started: Instant,
    request: &Request<'_>,
    session: Option<Session>,
    here: SocketAddr,
    there: SocketAddr,
) -> (Answer, Option<Session>) {
    let other_session = match (request.header("session"), &session) {
        // The rest of the field are parameters.
        (Some(named), Some(session)) => named.split(';').next().map(str::trim) != Some(&session.id),
        (Some(_), None) => true,
        (None, _) => false,
    };
    if other_session {
        return (Answer::new("454 Session Not Found"), session);
    }
    // Whoever checks a server asks for its options, of nothing in particular.
    let all = request.method == "OPTIONS" && matches!(request.path(), "*" | "");
    let known = all || request.path() == format!("/{}", camera.name) || request.path() == track(camera);
    if !known {
        return (Answer::new("404 Not Found"), session);
    }
    match (request.method, session) {
        ("OPTIONS", session) => (Answer::new("200 OK").with("Public", METHODS), session),
        ("DESCRIBE", session) => {
            let base = format!("{}/", request.uri.trim_end_matches('/'));
            (Answer::new("200 OK").with("Content-Base", base).carrying("application/sdp", description(camera)), session)
        }
        // Another transport for the same track would need a second stream (§10.4).
        ("SETUP", Some(session)) => (Answer::new("455 Method Not Valid in This State"), Some(session)),
        ("SETUP", None) => {
            let Some(transport) = Transport::agreed(request.header("transport").unwrap_or(""), here, there).await
            else {
                return (Answer::new("461 Unsupported Transport"), None);
            };
            let (id, source) = numbers();
            let stream = Stream { sequence: source as u16, source };
            let session = Session { id, transport, stream, playing: false };
            let line = format!("{};ssrc={source:08X};mode=\"PLAY\"", session.transport.line());
            (Answer::new("200 OK").with("Transport", line).of(&session.id), Some(session))
        }
        ("PLAY", Some(mut session)) => {
            session.playing = true;
            let url = format!("{}/{TRACK}", request.uri.trim_end_matches('/').trim_end_matches(&format!("/{TRACK}")));
            let next = (session.stream.sequence, ticks(pictures(started)));
            let info = format!("url={url};seq={};rtptime={}", next.0, next.1);
            (Answer::new("200 OK").with("Range", "npt=now-").with("RTP-Info", info).of(&session.id), Some(session))
        }
        ("PAUSE", Some(mut session)) => {
            session.playing = false;
            (Answer::new("200 OK").of(&session.id), Some(session))
        }
        ("TEARDOWN", Some(session)) => (Answer::new("200 OK").of(&session.id), None),
        ("PLAY" | "PAUSE" | "TEARDOWN", None) => (Answer::new("455 Method Not Valid in This State"), None),
        // Viewers show by these that they are still there (§10.8).
        ("GET_PARAMETER" | "SET_PARAMETER", session) => {
            let answer = Answer::new("200 OK");
            let answer = if let Some(session) = &session { answer.of(&session.id) } else { answer };
            (answer, session)
        }
        (_, session) => (Answer::new("501 Not Implemented").with("Public", METHODS), session),
    }
}

fn track(camera: Camera) -> String {
    format!("/{}/{TRACK}", camera.name)
}

/// RFC 2326 appendix C; the size of the picture stands in each packet.
fn description(camera: Camera) -> String {
    let Camera { name, number, .. } = camera;
    let (format, host) = (jpeg::PAYLOAD_TYPE, camera.address.ip());
    format!(
        "v=0\r\no=- {number} 1 IN IP4 {host}\r\ns=Reeve demonstration, {name}\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\n\
         a=control:*\r\na=range:npt=now-\r\nm=video 0 RTP/AVP {format}\r\na=framerate:{RATE}\r\na=control:{TRACK}\r\n"
    )
}

/// A session's name and its stream's, none of which comes twice while the demonstration runs.
fn numbers() -> (String, u32) {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let random = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), number);
    (format!("{random:016x}"), (random >> 32) as u32)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, TcpStream, UdpSocket};

    use super::super::origins::Origins;
    use super::*;

    struct Viewer {
        stream: TcpStream,
        camera: Camera,
        received: Vec<u8>,
    }

    impl Viewer {
        fn of(camera: Camera) -> Viewer {
            let stream = TcpStream::connect(camera.address).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            Viewer { stream, camera, received: Vec::new() }
        }

        /// The head of the answer to a request below the camera's address; frames before it are passed over.
        fn ask(&mut self, method: &str, below: &str, fields: &str) -> String {
            let name = self.camera.name;
            write!(self.stream, "{method} rtsp://a/{name}{below} RTSP/1.0\r\nCSeq: 7\r\n{fields}\r\n").unwrap();
            loop {
                if self.received.starts_with(b"RTSP") {
                    let text = String::from_utf8_lossy(&self.received).into_owned();
                    if let Some((head, _)) = text.split_once("\r\n\r\n") {
                        self.received.drain(..head.len() + 4);
                        assert!(head.contains("CSeq: 7\r\n"), "{head}");
                        return head.to_owned();
                    }
                } else if self.frame().is_some() {
                    continue;
                }
                self.more();
            }
        }

        /// The first frame that came: channel and packet.
        fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
            let [b'$', channel, high, low, ..] = self.received[..] else { return None };
            let end = 4 + usize::from(u16::from_be_bytes([high, low]));
            let packet = self.received.get(4..end)?.to_vec();
            self.received.drain(..end);
            Some((channel, packet))
        }

        fn more(&mut self) {
            let mut some = [0; 4096];
            let count = self.stream.read(&mut some).unwrap();
            assert_ne!(count, 0, "the camera closed");
            self.received.extend(&some[..count]);
        }
    }

    fn session(answer: &str) -> String {
        let (_, rest) = answer.split_once("Session: ").unwrap();
        format!("Session: {}\r\n", rest.split(';').next().unwrap())
    }

    #[test]
    fn a_session_plays_pauses_and_ends() {
        let origins = Origins::start().unwrap();
        let mut viewer = Viewer::of(origins.cameras[1]);
        assert!(viewer.ask("OPTIONS", "", "").contains("Public: OPTIONS, DESCRIBE"));
        assert!(viewer.ask("PLAY", "", "").starts_with("RTSP/1.0 455 "));
        assert!(viewer.ask("PLAY", "", "Session: other\r\n").starts_with("RTSP/1.0 454 "));
        assert!(viewer.ask("OPTIONS", "0", "").starts_with("RTSP/1.0 404 "), "another camera has another server");
        let told = viewer.ask("SETUP", "/track1", "Transport: RTP/AVP;multicast,RTP/SAVP/TCP\r\n");
        assert!(told.starts_with("RTSP/1.0 461 "), "{told}");
        let told = viewer.ask("SETUP", "/track1", "Transport: RTP/AVP/TCP;unicast;interleaved=4-5\r\n");
        assert!(told.contains("interleaved=4-5"), "{told}");
        let session = session(&told);
        assert!(viewer.ask("PLAY", "/", &session).contains("RTP-Info: url=rtsp://a/cam2/track1;seq="));
        let mut sequences = Vec::new();
        while sequences.len() < 5 {
            match viewer.frame() {
                Some((channel, packet)) => {
                    assert_eq!((channel, packet[1] & 0x7f), (4, jpeg::PAYLOAD_TYPE));
                    sequences.push(u16::from_be_bytes([packet[2], packet[3]]));
                }
                None => viewer.more(),
            }
        }
        assert!(sequences.windows(2).all(|two| two[1] == two[0].wrapping_add(1)), "{sequences:?}");
        assert!(viewer.ask("PAUSE", "", &session).starts_with("RTSP/1.0 200 "));
        assert!(viewer.ask("TEARDOWN", "", &session).starts_with("RTSP/1.0 200 "));
        assert!(viewer.ask("GET_PARAMETER", "", &session).starts_with("RTSP/1.0 454 "));
    }

    #[test]
    fn a_check_is_answered_whatever_it_names() {
        let origins = Origins::start().unwrap();
        let nothing = Camera { name: "", ..origins.cameras[0] };
        assert!(Viewer::of(nothing).ask("OPTIONS", "", "").starts_with("RTSP/1.0 200 "));
        assert!(Viewer::of(nothing).ask("DESCRIBE", "", "").starts_with("RTSP/1.0 404 "));
    }

    #[test]
    fn media_comes_by_udp_from_the_ports_that_were_named() {
        let origins = Origins::start().unwrap();
        let mut viewer = Viewer::of(origins.cameras[0]);
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let port = socket.local_addr().unwrap().port();
        let told = viewer.ask("SETUP", "/track1", &format!("Transport: RTP/AVP;unicast;client_port={port}-1\r\n"));
        viewer.ask("PLAY", "", &session(&told));
        let mut packet = [0; 2000];
        let (count, from) = socket.recv_from(&mut packet).unwrap();
        assert!(count > 20 && told.contains(&format!("server_port={}-", from.port())), "{told}");
    }

    #[test]
    fn pictures_differ_by_camera_and_time() {
        let scan = |number, picture| jpeg::scan(&Card::drawn(number, picture));
        assert_ne!(scan(1, 0), scan(2, 0));
        assert_ne!(scan(1, 0), scan(1, 1));
        // As large as promised: nothing that a viewer waits for.
        assert!((300..4000).contains(&scan(1, 99).len()), "{}", scan(1, 99).len());
    }

    #[test]
    fn nothing_that_is_sent_stops_a_camera() {
        let origins = Origins::start().unwrap();
        for garbage in
            [&b"\xff\xfe\r\n\r\n"[..], b"$", b"\r\n\r\n\r\n", b"SETUP\r\n\r\n", b"A B C\r\nContent-Length: x\r\n\r\n"]
        {
            let mut stream = TcpStream::connect(origins.cameras[0].address).unwrap();
            stream.write_all(garbage).unwrap();
        }
        let mut stream = TcpStream::connect(origins.cameras[0].address).unwrap();
        // One too long is not kept: the camera closes.
        let endless = stream.write_all(&[b'x'; 1 << 20]).and_then(|()| stream.read_to_end(&mut Vec::new()));
        assert!(endless.is_err() || endless.is_ok_and(|count| count == 0));
        assert!(Viewer::of(origins.cameras[0]).ask("OPTIONS", "", "").starts_with("RTSP/1.0 200 "));
    }
}
