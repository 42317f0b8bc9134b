//! A farm as its players and servers meet it beyond the twelve: transports refused, tunnels, passwords, sessions that
//! move to another connection, a server that dies.

use std::net::{TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use super::capture::{Capture, UDP};
use super::net::{CLIENT, Farm, NAMES, RULES, VIP, Way, listener, pool};
use super::players::{Play, Played, ffmpeg, gstreamer};
use super::space::Space;
use super::viewer::Viewer;
use crate::farm::process::Process;
use crate::farm::watch::until_within;
use crate::farm::{Authority, among_others, until};

const URL: &str = "rtsp://10.77.1.100:8554/test";

/// Does all of these at once; which failed, and why.
fn failed(all: Vec<(String, Play<'_>)>) -> Vec<String> {
    std::thread::scope(|scope| {
        let running: Vec<_> = all.iter().map(|(name, play)| (name, scope.spawn(play))).collect();
        let done = running.into_iter().map(|(name, thread)| (name, thread.join().expect("a player")));
        done.filter_map(|(name, played)| played.err().map(|why| format!("{name}: {why}"))).collect()
    })
}

/// A player that is refused UDP at once goes on by TCP at once. It would wait for media that does not come: five seconds
/// (GStreamer), or for ever (ffmpeg).
#[test]
fn players_go_on_at_once_when_udp_is_refused() {
    let _turn = among_others();
    let Some(farm) = Farm::new("media-refuse", Way::Barred) else { return };
    let _origins = farm.origins(&[&[]]);
    let _reeve = farm.reeve(&(listener("media", 8554, "refuse") + &pool("\"rr\"", 1)), RULES);
    // They play two seconds of pictures: the first of them has to come within three, not the last.
    let first = |player: &dyn Fn() -> Played| player().map(|took| took.saturating_sub(Duration::from_secs(2)));
    let slow = |took: Duration| if took < Duration::from_secs(3) { Ok(took) } else { Err(format!("it took {took:?}")) };
    let wrong = failed(vec![
        ("ffmpeg".to_owned(), Box::new(|| first(&|| ffmpeg(&farm.client, &[], URL)).and_then(slow))),
        ("GStreamer".to_owned(), Box::new(|| first(&|| gstreamer(&farm.client, &[], URL)).and_then(slow))),
    ]);
    assert!(wrong.is_empty(), "{wrong:?}");
    // It is refused indeed: who can do nothing else gives up.
    assert!(ffmpeg(&farm.client, &["-rtsp_transport", "udp"], URL).is_err());
}

/// Two connections a player: both have to reach the same server, which a scheduler alone gets right one time in three.
#[test]
fn tunnels_of_http_meet_at_one_server() {
    let _turn = among_others();
    let Some(farm) = Farm::new("media-tunnel", Way::Barred) else { return };
    let origins = farm.origins(&[&[], &[], &[]]);
    let rules = "rtsp *\n  all : any  use media\n";
    let _reeve = farm.reeve(&(listener("media", 8554, "relay") + &pool("\"rr\"", 3)), rules);
    let client = &farm.client;
    for round in 0..2 {
        let players = (0..5).flat_map(|_| -> [(String, Play<'_>); 2] {
            let tunnel = URL.replace("rtsp:", "rtsph:");
            [
                ("ffmpeg".to_owned(), Box::new(move || ffmpeg(client, &["-rtsp_transport", "http"], URL))),
                ("GStreamer".to_owned(), Box::new(move || gstreamer(client, &[], &tunnel))),
            ]
        });
        let wrong = failed(players.collect());
        assert!(wrong.is_empty(), "round {round}: {wrong:?}");
    }
    for (name, origin) in NAMES.iter().zip(&origins) {
        until(&format!("{name} has some of them"), || origin.stdout().contains("PLAY /test").then_some(()));
    }
}

/// Whoever can reach the servers is sent there by the answer to its DESCRIBE, and takes nothing through Reeve any more.
#[test]
fn players_follow_to_the_server() {
    let _turn = among_others();
    let Some(farm) = Farm::new("media-redirect", Way::Open) else { return };
    let origins = farm.origins(&[&[]]);
    let _reeve = farm.reeve(&(listener("media", 8554, "redirect") + &pool("\"rr\"", 1)), RULES);
    let capture = Capture::start(&farm.client);
    let client = &farm.client;
    let wrong = failed(vec![
        ("ffmpeg".to_owned(), Box::new(|| ffmpeg(client, &["-rtsp_transport", "udp"], URL))),
        ("GStreamer".to_owned(), Box::new(|| gstreamer(client, &["protocols=udp"], URL))),
    ]);
    assert!(wrong.is_empty(), "{wrong:?}");
    let counts = capture.end();
    assert_eq!(counts.of(|from, _, protocol| protocol == UDP && from.to_string() == VIP), 0, "{counts:?}");
    until("the server has them", || origins[0].stdout().contains(&format!("open {CLIENT}")).then_some(()));
}

#[test]
fn passwords_pass() {
    let _turn = among_others();
    let Some(farm) = Farm::new("media-digest", Way::Barred) else { return };
    let _origins = farm.origins(&[&["--digest", "ann:secret"], &["--basic", "ann:secret"]]);
    let config = listener("media", 8554, "relay") + &pool("\"rr\"", 1).replace("pool.media", "pool.digest");
    let basic = "[pool.basic]\nservers = [\"10.77.2.12:8554\"]\n";
    let rules = "rtsp *\n  basic : listener basic  use basic\n  all : any  use digest\n";
    let _reeve = farm.reeve(&(config + &listener("basic", 8555, "relay") + basic), rules);
    let client = &farm.client;
    let mut players: Vec<(String, Play<'_>)> = Vec::new();
    for (kind, port) in [("digest", 8554), ("basic", 8555)] {
        let host = format!("{VIP}:{port}/test");
        for (transport, scheme) in [("tcp", "rtspt"), ("udp", "rtspu")] {
            let (one, two) = (format!("rtsp://ann:secret@{host}"), format!("{scheme}://{host}"));
            let how = move || ffmpeg(client, &["-rtsp_transport", transport], &one);
            players.push((format!("ffmpeg {kind} {transport}"), Box::new(how)));
            let how = move || gstreamer(client, &["user-id=ann", "user-pw=secret"], &two);
            players.push((format!("GStreamer {kind} {transport}"), Box::new(how)));
        }
    }
    let wrong = failed(players);
    assert!(wrong.is_empty(), "{wrong:#?}");
    // And they are asked for.
    assert!(ffmpeg(client, &["-rtsp_transport", "tcp"], &URL.replace("//", "//ann:wrong@")).is_err());
}

/// `rtsps`: TLS ends here, and the servers speak in clear. ffmpeg asks for UDP first there too.
#[test]
fn sealed_connections_are_opened() {
    let _turn = among_others();
    let Some(farm) = Farm::new("media-tls", Way::Barred) else { return };
    let _origins = farm.origins(&[&[]]);
    Authority::new("media").issue("media.example", &["media.example", VIP]).write(&farm.folder, "certs/media");
    let sealed = listener("sealed", 8322, "relay") + "tls = { certificates = \"certs\" }\n";
    let _reeve = farm.reeve(&(listener("media", 8554, "relay") + &sealed + &pool("\"rr\"", 1)), RULES);
    let url = URL.replace("rtsp:", "rtsps:").replace("8554", "8322");
    let client = &farm.client;
    let wrong = failed(vec![
        ("ffmpeg tcp".to_owned(), Box::new(|| ffmpeg(client, &["-rtsp_transport", "tcp"], &url))),
        ("ffmpeg".to_owned(), Box::new(|| ffmpeg(client, &[], &url))),
    ]);
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// A viewer whose media comes by UDP.
pub struct Watch {
    pub media: UdpSocket,
    _reports: UdpSocket,
    /// Where all media comes from.
    from: &'static str,
    /// What it asks for.
    pub fields: String,
}

impl Watch {
    pub fn new(space: &Space) -> Watch {
        Watch::of(space, CLIENT, VIP)
    }

    /// At this address of the client's, for media of that one.
    pub fn of(space: &Space, at: &str, from: &'static str) -> Watch {
        let bind = |port: u16| space.within(|| UdpSocket::bind((at, port))).expect("a port");
        let (media, reports) = (bind(40_000), bind(40_001));
        media.set_nonblocking(true).expect("not blocking");
        let fields = "Transport: RTP/AVP;unicast;client_port=40000-40001\r\n".to_owned();
        Watch { media, _reports: reports, fields, from }
    }

    /// Takes all packets that wait: how many.
    pub fn packets(&self) -> usize {
        let mut packet = [0; 2000];
        std::iter::from_fn(|| self.media.recv_from(&mut packet).ok())
            .inspect(|(_, from)| {
                assert_eq!(from.ip().to_string(), self.from, "media comes from the virtual address");
            })
            .count()
    }

    pub fn media_comes(&self) {
        let mut count = 0;
        until("media comes", || {
            count += self.packets();
            (count > 10).then_some(())
        });
    }

    /// Waits for 300 ms without a packet.
    pub fn media_ends(&self) {
        let mut last = Instant::now();
        until("media ends", || {
            if self.packets() > 0 {
                last = Instant::now();
            }
            (last.elapsed() > Duration::from_millis(300)).then_some(())
        });
    }
}

/// How many UDP sockets there are in the network of a process.
pub fn udp_sockets(process: &Process) -> usize {
    let table = std::fs::read_to_string(format!("/proc/{}/net/udp", process.id())).expect("the kernel's table");
    table.lines().count() - 1
}

/// A client at the virtual address.
pub fn viewer(farm: &Farm) -> Viewer {
    Viewer::on(farm.client.within(|| TcpStream::connect((VIP, 8554))).expect("the virtual address"))
}

/// A session is not its connection's (RFC 2326 §1.4): what names it on another one reaches its server.
#[test]
fn a_session_goes_on_by_another_connection() {
    let _turn = among_others();
    let Some(farm) = Farm::new("media-second", Way::Barred) else { return };
    let origins = farm.origins(&[&[], &[], &[]]);
    let rules = "rtsp *\n  all : any  use media\n";
    let reeve = farm.reeve(&(listener("media", 8554, "relay") + &pool("\"rr\"", 3)), rules);
    let ports = udp_sockets(&reeve);
    let watch = Watch::new(&farm.client);
    let (mut first, mut second) = (viewer(&farm), viewer(&farm));
    let url = URL.replace("/test", "/vod");
    first.ask("DESCRIBE", &url, "Accept: application/sdp\r\n").good();
    let session = first.ask("SETUP", &format!("{url}/stream=0"), &watch.fields).good().session();
    // Its connection has asked for nothing yet: by turns, it would go to another server.
    second.ask("PLAY", &url, &session).good();
    watch.media_comes();
    second.ask("GET_PARAMETER", &url, &session).good();
    let mut third = viewer(&farm);
    // One request after the other on one connection, in one piece, is answered in turn.
    third.send("OPTIONS", &url, "");
    third.send("DESCRIBE", &url, "");
    assert!(third.told().good().field("public").is_some());
    assert!(third.told().good().body.starts_with("v=0"));
    // Its first word begins as HTTP's does. It stays: this server ends the media of a session with any connection that named it.
    let mut fourth = viewer(&farm);
    fourth.ask("GET_PARAMETER", &url, &session).good();
    assert_eq!(third.ask("DESCRIBE", &url, "Require: foo.bar\r\n").status(), 551);
    assert_eq!(third.ask("PLAY", &url, "Session: unheard-of\r\n").status(), 454);
    third.ask("OPTIONS", "*", "").good();
    third.ask("TEARDOWN", &url, &session).good();
    watch.media_ends();
    until("no port of the session is left", || (udp_sockets(&reeve) == ports).then_some(()));
    let playing = origins.iter().filter(|origin| origin.stdout().contains("PLAY /vod")).count();
    assert_eq!(playing, 1);
}

#[test]
fn a_server_that_dies_is_noticed_and_left() {
    let _turn = among_others();
    let Some(farm) = Farm::new("media-killed", Way::Barred) else { return };
    let mut origins = farm.origins(&[&[], &[]]);
    let check = "check = { rtsp = \"OPTIONS\", interval = \"200ms\", timeout = \"200ms\", rise = 1, fall = 1 }\n";
    let _reeve = farm.reeve(&(listener("media", 8554, "relay") + &pool("{ hash = \"path\" }", 2) + check), RULES);
    let watch = Watch::new(&farm.client);
    let mut one = viewer(&farm);
    one.ask("DESCRIBE", URL, "").good();
    let session = one.ask("SETUP", &format!("{URL}/stream=0"), &watch.fields).good().session();
    one.ask("PLAY", URL, &session).good();
    watch.media_comes();
    let plays = |origin: &Process| origin.stdout().contains("PLAY /test");
    let at = until("one of them plays", || origins.iter().position(plays));
    let killed = Instant::now();
    origins[at].kill();
    assert!(one.closed(), "the connection of whoever it served is closed");
    assert!(killed.elapsed() < Duration::from_secs(2), "after {:?}", killed.elapsed());
    until_within(Duration::from_secs(3), "the next viewer is served by the other", || {
        let told = viewer(&farm).ask("DESCRIBE", URL, "");
        (told.status() == 200).then_some(())
    });
    assert_eq!(ffmpeg(&farm.client, &["-rtsp_transport", "udp"], URL).map(drop), Ok(()));
    assert!(plays(&origins[1 - at]));
}
