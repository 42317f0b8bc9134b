//! Whoever answers out of turn, leaves while media goes on, or finds all servers full.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::peers::{Origin, Script, Viewer};
use super::{ALL, RELAYED, SESSIONS, farm, named};
use crate::farm::ports::Port;
use crate::farm::{Reeve, among_others, observe, until};

/// An answer is that of the request whose number it has (RFC 2326 §12.17), whenever it comes.
#[test]
fn answers_are_known_by_their_numbers() {
    let _turn = among_others();
    let script = Script { holds: "DESCRIBE", ..Script::default() };
    let farm = farm("rtsp-order", &[script], "media-ports = \"27000-27199\"", "", ALL);
    let mut client = Viewer::connect(&farm.port.address());
    let udp = "Transport: RTP/AVP;unicast;client_port=7000-7001\r\n";
    let both = [client.request("DESCRIBE", "/cam", ""), client.request("SETUP", "/cam/track1", udp)];
    client.send(both.concat().as_bytes());
    let (first, second) = (client.wire.message(), client.wire.message());
    assert_eq!((first.value("cseq"), second.value("cseq")), ("2", "1"), "as the server has answered them");
    // What was made of each is what belongs to it.
    let transport = first.value("transport");
    assert!(transport.contains("client_port=7000-7001") && transport.contains("source=127.0.0.1"), "{transport}");
    assert_eq!(second.value("content-type"), "application/sdp");
    assert_eq!((farm.reeve.metric(SESSIONS), farm.reeve.metric(RELAYED)), (Some(1.0), Some(1.0)));
    let id = first.value("session").split(';').next().unwrap_or_default().to_owned();
    assert_eq!(client.ask("TEARDOWN", "/cam/", &format!("Session: {id}\r\n")).status(), 200);
    until("the session is over", || (farm.reeve.metric(SESSIONS) == Some(0.0)).then_some(()));
}

/// Media by UDP outlives its connection, and a drain waits for it: until it expires, or its own time is over.
#[test]
fn a_drain_waits_for_media_without_a_connection() {
    let _turn = among_others();
    for (label, timeout, drain, least, most) in
        [("rtsp-drain-time", "timeout=60", "2s", 1, 4), ("rtsp-drain-early", "timeout=1", "20s", 0, 6)]
    {
        let session: &'static str = Box::leak(format!("NAME-NUMBER;{timeout}").into_boxed_str());
        let script = Script { session, frames: 1, ..Script::default() };
        let config = format!("[timeouts]\ndrain = \"{drain}\"\n");
        let mut farm = farm(label, &[script], "media-ports = \"28000-28199\"", &config, ALL);
        let own = UdpSocket::bind("127.0.0.1:0").expect("a port");
        own.set_read_timeout(Some(Duration::from_secs(10))).expect("a deadline");
        let port = own.local_addr().expect("its address").port();
        let mut client = Viewer::connect(&farm.port.address());
        let udp = format!("Transport: RTP/AVP;unicast;client_port={port}-{}\r\n", port + 1);
        let told = client.ask("SETUP", "/cam/track1", &udp);
        let id = told.value("session").split(';').next().unwrap_or_default().to_owned();
        let ours: u16 = told
            .value("transport")
            .split("server_port=")
            .nth(1)
            .and_then(|text| text.split('-').next()?.parse().ok())
            .expect("ports");
        assert_eq!(client.ask("PLAY", "/cam/", &format!("Session: {id}\r\n")).status(), 200);
        let mut packet = [0; 2048];
        own.recv(&mut packet).expect("a packet");
        let active = || farm.reeve.metric("reeve_connections{listener=\"media\",state=\"active\"}");
        drop(client);
        until("its connection has gone", || (active() == Some(0.0)).then_some(()));
        assert_eq!(farm.reeve.metric(RELAYED), Some(1.0));
        let told = Instant::now();
        farm.reeve.process.signal(Signal::TERM);
        if least > 0 {
            observe(Duration::from_millis(500), "it waits", || farm.reeve.process.running());
            // And media goes on: this server sends back what it gets.
            own.send_to(b"still there", ("127.0.0.1", ours)).expect("sent");
            let count = own.recv(&mut packet).expect("an echo");
            assert_eq!(&packet[..count], b"still there");
        }
        assert!(farm.reeve.process.exit(Duration::from_secs(20)).success());
        let took = told.elapsed();
        assert!(took >= Duration::from_secs(least) && took < Duration::from_secs(most), "{label}: {took:?}");
        let log = farm.reeve.log();
        assert!(log.len() == 1 && log[0]["method"] == "PLAY", "{log:?}");
    }
}

/// An answer that no number is given to is that of the oldest request.
#[test]
fn answers_without_numbers_come_in_order() {
    let _turn = among_others();
    let farm = farm("rtsp-numberless", &named(&["one"]), "", "", ALL);
    let mut client = Viewer::connect(&farm.port.address());
    client.send(b"OPTIONS rtsp://a/cam RTSP/1.0\r\n\r\nDESCRIBE rtsp://a/cam RTSP/1.0\r\n\r\n");
    let (first, second) = (client.wire.message(), client.wire.message());
    assert_eq!((first.value("content-type"), second.value("content-type")), ("", "application/sdp"));
}

#[test]
fn who_does_not_reach_the_one_server_that_has_a_place_waits_for_another() {
    let _turn = among_others();
    let (port, dead, full) = (Port::free(), Port::free(), Origin::start(Script::default()));
    let config = format!(
        "[listen.media]\naddress = [\"{}\"]\nprotocol = \"rtsp\"\nrules = [\"rules/site.rules\"]\n\n\
         [pool.media]\nscheduler = \"first\"\nqueue = {{ limit = 5, timeout = \"20s\" }}\nservers = [\n\
         {{ name = \"dead\", address = \"{}\", max-connections = 1 }},\n\
         {{ name = \"full\", address = \"{}\", max-connections = 1 }}]\n",
        port.address(),
        dead.address(),
        full.address
    );
    let reeve = Reeve::start("rtsp-refused", &config, &format!("http *\n  all : any  deny\n{ALL}"));
    let waiting = |count: f64| {
        until("those that wait", || (reeve.metric("reeve_queue{pool=\"media\"}") == Some(count)).then_some(()));
    };
    let [mut first, mut second, mut third] = [(); 3].map(|()| Viewer::connect(&port.address()));
    assert_eq!(first.ask("DESCRIBE", "/cam/0", "").status(), 200);
    // In vain at the first server, which always has a place; those behind find nothing there either.
    let ask = |viewer: &mut Viewer, path: &str| {
        let request = viewer.request("DESCRIBE", path, "");
        viewer.send(request.as_bytes());
    };
    ask(&mut second, "/cam/1");
    waiting(1.0);
    ask(&mut third, "/cam/2");
    waiting(2.0);
    assert_eq!(full.seen().len(), 1);
    drop(first);
    assert_eq!(second.wire.message().status(), 200);
    waiting(1.0);
    // The conversation goes on where it is, past those who wait.
    assert_eq!(second.ask("DESCRIBE", "/cam/1", "").status(), 200);
    drop(second);
    assert_eq!(third.wire.message().status(), 200);
    waiting(0.0);
    let retries = reeve.metric("reeve_retries_total{pool=\"media\",reason=\"connect\"}");
    assert_eq!((retries, full.seen().len()), (Some(3.0), 4), "each that has come to another server");
}
