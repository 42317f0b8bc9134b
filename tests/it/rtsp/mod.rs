//! RTSP with peers that follow a script: what is passed on, to whom, and what is answered here. Real players and servers
//! are in `media`.

mod leaving;
mod peers;
mod waiting;
mod websocket;

use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use base64ct::{Base64, Encoding};

use self::peers::{Item, Origin, Script, Viewer, payload};
use crate::farm::ports::Port;
use crate::farm::reeve::pool;
use crate::farm::{Reeve, among_others, until};

struct Farm {
    reeve: Reeve,
    port: Port,
    origins: Vec<Origin>,
}

/// Reeve before these servers, all in one pool unless `more` and `rules` say otherwise.
fn farm(label: &str, scripts: &[Script], listener: &str, more: &str, rules: &str) -> Farm {
    let port = Port::free();
    let origins: Vec<Origin> = scripts.iter().map(|script| Origin::start(script.clone())).collect();
    let servers: Vec<(&str, String)> =
        scripts.iter().zip(&origins).map(|(script, origin)| (script.name, origin.address.clone())).collect();
    let mut text = pool("media", "rr", &servers);
    for (script, origin) in scripts.iter().zip(&origins) {
        text += &pool(script.name, "rr", &[(script.name, origin.address.clone())]);
    }
    text += &format!(
        "[listen.media]\naddress = [\"{}\"]\nprotocol = \"rtsp\"\nrules = [\"rules/site.rules\"]\n{listener}\n{more}\n",
        port.address()
    );
    let reeve = Reeve::start(label, &text, &format!("http *\n  all : any  deny\n{rules}"));
    Farm { reeve, port, origins }
}

const ALL: &str = "rtsp *\n  all : any  use media\n";

fn named(names: &[&'static str]) -> Vec<Script> {
    names.iter().map(|name| Script { name, ..Script::default() }).collect()
}

#[test]
fn a_session_is_at_its_server_from_any_connection() {
    let _turn = among_others();
    let farm = farm("rtsp-session", &named(&["one", "two", "three"]), "", "", ALL);
    let mut first = Viewer::connect(&farm.port.address());
    assert_eq!(first.ask("DESCRIBE", "/cam", "").status(), 200);
    let (id, answer) = first.set_up("/cam/track1");
    let server = answer.value("x-origin").to_owned();
    for _ in 0..4 {
        let mut other = Viewer::connect(&farm.port.address());
        let played = other.ask("PLAY", "/cam/", &format!("Session: {id}\r\n"));
        assert_eq!((played.status(), played.value("x-origin")), (200, &*server));
    }
    // Its own connection goes on as before; and by itself the scheduler goes round.
    assert_eq!(first.ask("GET_PARAMETER", "/cam/", &format!("Session: {id}\r\n")).value("x-origin"), server);
    let mut seen: Vec<String> = (0..6)
        .map(|at| {
            Viewer::connect(&farm.port.address()).ask("DESCRIBE", &format!("/x{at}"), "").value("x-origin").to_owned()
        })
        .collect();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 3);
}

#[test]
fn one_id_of_two_servers_is_two_sessions() {
    let _turn = among_others();
    let same = |name| Script { name, session: "4711", ..Script::default() };
    let rules = "rtsp *\n  a : path /a/**  use one\n  b : path /b/**  use two\n";
    let farm = farm("rtsp-ids", &[same("one"), same("two")], "", "", rules);
    let (mut a, mut b) = (Viewer::connect(&farm.port.address()), Viewer::connect(&farm.port.address()));
    let ((first, _), (second, _)) = (a.set_up("/a/track1"), b.set_up("/b/track1"));
    assert_eq!(first, "4711");
    assert!(second.ends_with(".4711"), "{second}");
    // From a third connection, with an URL that says nothing of where they are.
    let mut c = Viewer::connect(&farm.port.address());
    for (id, server) in [(&first, "one"), (&second, "two"), (&first, "one")] {
        let answer = c.ask("GET_PARAMETER", "/elsewhere", &format!("Session: {id}\r\n"));
        assert_eq!((answer.status(), answer.value("x-origin"), answer.value("session")), (200, server, &**id));
    }
    for origin in &farm.origins {
        assert!(origin.seen().iter().skip(1).all(|asked| asked.value("session") == "4711"), "its own id");
    }
    // Taken leave of, it is known no more.
    assert_eq!(a.ask("TEARDOWN", "/a/", "Session: 4711\r\n").status(), 200);
    assert_eq!(c.ask("PAUSE", "/b/", "Session: 4711\r\n").status(), 454, "it is not the other one's id");
}

#[test]
fn some_things_are_answered_here() {
    let _turn = among_others();
    let rules = "rtsp *\n  no : path /no/**  deny\n  far : path /far/**  redirect 302 rtsp://far.example/x\n  \
                 say : path /say  answer 410 \"gone\"\n  slow : path /slow  use media\n    limit 1/s per source\n  \
                 some : path /cam/**  use media\n";
    let farm = farm("rtsp-own", &named(&["one"]), "", "", rules);
    let mut client = Viewer::connect(&farm.port.address());
    assert!(client.ask("OPTIONS", "*", "").value("public").contains("DESCRIBE"));
    let odd = client.ask("SETUP", "/cam/1", "Proxy-Require: x.y.z\r\n");
    assert_eq!((odd.status(), odd.value("unsupported")), (551, "x.y.z"));
    assert_eq!(client.ask("DESCRIBE", "/nowhere", "").status(), 404);
    assert_eq!(client.ask("DESCRIBE", "/no/1", "").status(), 403);
    let far = client.ask("DESCRIBE", "/far/1", "");
    assert_eq!((far.status(), far.value("location")), (302, "rtsp://far.example/x"));
    let said = client.ask("DESCRIBE", "/say", "");
    assert_eq!((said.status(), &*said.body), (410, "gone"));
    assert!(farm.origins[0].seen().is_empty(), "no server was asked");
    assert_eq!(client.ask("DESCRIBE", "/slow", "").status(), 200);
    let slow = client.ask("DESCRIBE", "/slow", "");
    assert!(slow.status() == 503 && !slow.value("retry-after").is_empty(), "{slow:?}");
    // What it does not know a server has to refuse, not we; and the URI goes on as it is, with who passed it on.
    // Who somebody is only a certificate says.
    let fields = "Require: www.onvif.org/ver20/backchannel\r\nX-Client-Cert-Subject: CN=me\r\nx_client_cert_verified: SUCCESS\r\n";
    assert_eq!(client.ask("DESCRIBE", "/cam/a%20b?c=/d;e", fields).status(), 200);
    let seen = farm.origins[0].seen();
    let last = seen.last().expect("a request");
    assert!(last.first.contains("/cam/a%20b?c=/d;e RTSP/1.0"), "{last:?}");
    assert_eq!((last.value("require"), last.value("via")), ("www.onvif.org/ver20/backchannel", "RTSP/1.0 reeve"));
    assert_eq!((last.value("x-client-cert-subject"), last.value("x_client_cert_verified")), ("", ""));
    // Several at once are answered in their order, whoever answers them.
    let all = ["/no/1", "/cam/1", "/nowhere", "/cam/2"].map(|path| client.request("DESCRIBE", path, ""));
    client.send(all.concat().as_bytes());
    let answers: Vec<u16> = (0..4).map(|_| client.wire.message().status()).collect();
    assert_eq!(answers, [403, 200, 404, 200]);
}

#[test]
fn what_is_not_rtsp_is_told_so() {
    let _turn = among_others();
    let farm = farm("rtsp-bad", &named(&["one"]), "", "[timeouts]\nrequest-header = \"1s\"\n", ALL);
    let giant = format!("OPTIONS rtsp://a/ RTSP/1.0\r\nX: {}\r\n\r\n", "x".repeat(200 << 10));
    let long = format!("OPTIONS rtsp://a/{} RTSP/1.0\r\n\r\n", "x".repeat(20 << 10));
    let garbage = vec![0xee; 4 << 20];
    for (bytes, status) in [
        (&b"OPTIONS rtsp://a/ RTSP/7.0\r\n\r\n"[..], 505),
        (b"OPTIONS rtsp://a/ HTTP/1.1\r\n\r\n", 400),
        (b"OPTIONS rtsp://a/ RTSP/1.0\r\nContent-Length: 99999999\r\n\r\n", 413),
        (b"OPTIONS rtsp://a/ RTSP/1.0\r\nno colon\r\n\r\n", 400),
        (giant.as_bytes(), 400),
        (long.as_bytes(), 414),
        (&garbage, 400),
        (b"OPTIONS rtsp://a/ RTSP/1.0\r\nhalf a", 408),
    ] {
        let mut client = Viewer::connect(&farm.port.address());
        // Whoever is turned away may not have taken all.
        let _ = client.wire.stream.write_all(bytes);
        let answer = client.wire.message();
        assert_eq!(answer.status(), status, "{answer:?}");
        assert!(matches!(client.wire.next(), Item::End));
    }
    // Media that belongs to nobody, half a frame, and a frame among messages, byte by byte.
    let mut client = Viewer::connect(&farm.port.address());
    client.send(b"$\x05\x00\x03abc\r\n\r\n$\x05\x00");
    for byte in b"\x02xyOPTIONS rtsp://a/x RTSP/1.0\r\nCSeq: 9\r\n\r\n" {
        client.send(&[*byte]);
    }
    assert_eq!(client.wire.message().value("cseq"), "9");
    assert!(farm.reeve.metric("reeve_panics_total").is_none_or(|panics| panics == 0.0));
}

#[test]
fn sessions_are_counted_and_written_down() {
    let _turn = among_others();
    const SESSIONS: usize = 60;
    const FRAMES: usize = 30;
    let script = |name| Script { name, frames: FRAMES, ..Script::default() };
    let farm = farm("rtsp-many", &[script("one"), script("two"), script("three")], "", "", ALL);
    let mut clients: Vec<(Viewer, String)> = (0..SESSIONS)
        .map(|at| {
            let mut client = Viewer::connect(&farm.port.address());
            let (id, _) = client.set_up(&format!("/cam{at}/track1"));
            let play = client.request("PLAY", &format!("/cam{at}/"), &format!("Session: {id}\r\n"));
            client.send(play.as_bytes());
            (client, id)
        })
        .collect();
    let reported = farm.reeve.metric("reeve_media_sessions{pool=\"media\",server=\"one\"}");
    for (client, id) in &mut clients {
        assert_eq!(client.wire.message().status(), 200);
        for number in 0..FRAMES {
            match client.wire.next() {
                Item::Frame(channel, bytes) => {
                    assert!(usize::from(channel) == number % 2 && bytes == payload(id, number), "{id} {number}");
                }
                other => panic!("{id} {number}: {other:?}"),
            }
        }
        // The other way too, and a message right behind a frame.
        client.send(b"$\x01\x00\x04rtcp");
        let keep = client.request("GET_PARAMETER", "/", &format!("Session: {id}\r\n"));
        client.send(keep.as_bytes());
        assert!(matches!(client.wire.next(), Item::Frame(1, echo) if echo == b"rtcp"));
        assert_eq!(client.wire.message().status(), 200);
    }
    assert!(reported.is_some_and(|sessions| sessions == 20.0), "{reported:?}");
    drop(clients);
    until("the sessions end with their connections", || {
        (farm.reeve.metric("reeve_media_sessions{pool=\"media\",server=\"one\"}") == Some(0.0)).then_some(())
    });
    let log = until("a line for each", || Some(farm.reeve.log()).filter(|log| log.len() >= SESSIONS));
    let line = &log[0];
    let text = |key: &str| line[key].as_str().unwrap_or("null").to_owned();
    assert_eq!((text("method"), text("pool"), text("proto")), ("PLAY".into(), "media".into(), "RTSP/1.0".into()));
    assert!(line["bytes_out"].as_u64() > Some(20_000) && line["bytes_in"].as_u64() == Some(8), "{line}");
}

#[test]
fn media_by_packets_is_relayed_to_where_the_client_really_is() {
    let _turn = among_others();
    let script = Script { frames: 5, ..Script::default() };
    let farm = farm("rtsp-udp", &[script], "media-ports = \"23000-23999\"", "", ALL);
    let mut client = Viewer::connect(&farm.port.address());
    let own = UdpSocket::bind("127.0.0.1:0").expect("a port");
    own.set_read_timeout(Some(Duration::from_secs(10))).expect("a deadline");
    let port = own.local_addr().expect("its address").port();
    let answer =
        client.ask("SETUP", "/cam/1", &format!("Transport: RTP/AVP;unicast;client_port={port}-{}\r\n", port + 1));
    let transport = answer.value("transport").to_owned();
    assert!(transport.contains(&format!("client_port={port}-{}", port + 1)), "{transport}");
    assert!(transport.contains("source=127.0.0.1") && !transport.contains("destination"), "{transport}");
    let ours: u16 =
        transport.split("server_port=").nth(1).and_then(|text| text.split('-').next()?.parse().ok()).expect("ports");
    assert!((23_000..24_000).contains(&ours) && ours.is_multiple_of(2), "{transport}");
    let id = answer.value("session").split(';').next().unwrap_or_default().to_owned();
    assert_eq!(client.ask("PLAY", "/cam/", &format!("Session: {id}\r\n")).status(), 200);
    let mut packet = [0; 2048];
    for number in 0..5 {
        let (count, from) = own.recv_from(&mut packet).expect("a packet");
        assert!(from.port() == ours && packet[..count] == payload(&id, number)[..], "{number} from {from}");
    }
    // Whoever has another address is not heard, whatever it says first; and the client's real port is where it sends from.
    let stranger = UdpSocket::bind("127.0.0.9:0").expect("another address");
    stranger.send_to(b"stranger", ("127.0.0.1", ours)).expect("sent");
    let behind_nat = UdpSocket::bind("127.0.0.1:0").expect("another port");
    behind_nat.set_read_timeout(Some(Duration::from_secs(10))).expect("a deadline");
    behind_nat.send_to(b"mine", ("127.0.0.1", ours)).expect("sent");
    let (count, _) = behind_nat.recv_from(&mut packet).expect("what was sent comes back");
    assert_eq!(&packet[..count], b"mine");
    assert_eq!(client.ask("TEARDOWN", "/cam/", &format!("Session: {id}\r\n")).status(), 200);
    let line = until("a line in the log", || farm.reeve.log().pop());
    assert_eq!((&line["bytes_in"], &line["path"]), (&4.into(), &"/cam".into()), "{line}");
    assert_eq!(
        farm.reeve.metric("reeve_media_streams{pool=\"media\",server=\"one\",transport=\"relayed\"}"),
        Some(0.0)
    );
}

#[test]
fn a_listener_may_refuse_packets_or_send_its_clients_away() {
    let _turn = among_others();
    let udp = "Transport: RTP/AVP;unicast;client_port=5000-5001\r\n";
    let both = "Transport: RTP/AVP;unicast;client_port=5000-5001,RTP/AVP/TCP;unicast;interleaved=0-1\r\n";
    let refuses = farm("rtsp-refuse", &named(&["one"]), "media = \"refuse\"", "", ALL);
    let mut client = Viewer::connect(&refuses.port.address());
    assert_eq!(client.ask("SETUP", "/cam/1", udp).status(), 461);
    assert!(refuses.origins[0].seen().is_empty());
    assert_eq!(client.ask("SETUP", "/cam/1", both).value("transport"), "RTP/AVP/TCP;unicast;interleaved=0-1");

    let redirects = farm("rtsp-redirect", &named(&["one"]), "media = \"redirect\"", "", ALL);
    let mut client = Viewer::connect(&redirects.port.address());
    let sent = client.ask("DESCRIBE", "/cam?x=1", "");
    let there = format!("rtsp://{}/cam?x=1", redirects.origins[0].address);
    assert_eq!((sent.status(), sent.value("location")), (302, &*there));
    let stays = client.ask("DESCRIBE", "/cam", "User-Agent: go2rtc/1.9\r\n");
    assert_eq!((stays.status(), stays.value("x-origin")), (200, "one"));

    let direct = farm("rtsp-direct", &named(&["one"]), "media = \"direct\"", "", ALL);
    let mut client = Viewer::connect(&direct.port.address());
    let transport = client.ask("SETUP", "/cam/1", udp).value("transport").to_owned();
    assert!(transport.contains("client_port=5000-5001") && transport.ends_with(";source=127.0.0.1"), "{transport}");
}

#[test]
fn readers_come_to_the_publisher() {
    let _turn = among_others();
    let farm = farm("rtsp-publish", &named(&["one", "two", "three"]), "", "", ALL);
    let mut publisher = Viewer::connect(&farm.port.address());
    let announced = publisher.ask("ANNOUNCE", "/live", "Content-Type: application/sdp\r\nContent-Length: 0\r\n");
    let server = announced.value("x-origin").to_owned();
    for _ in 0..5 {
        let mut reader = Viewer::connect(&farm.port.address());
        assert_eq!(reader.ask("OPTIONS", "/live", "").value("x-origin"), server);
        assert_eq!(reader.ask("DESCRIBE", "/live/", "").value("x-origin"), server);
    }
}

#[test]
fn servers_are_full_by_sessions_and_by_bandwidth() {
    let _turn = among_others();
    let script = Script { sdp: "b=AS:600\r\n", ..Script::default() };
    let origin = Origin::start(script.clone());
    let limits = |name: &str, limit: &str| {
        format!("[pool.{name}]\nservers = [{{ name = \"o\", address = \"{}\", {limit} }}]\n", origin.address)
    };
    let more = limits("few", "max-sessions = 1") + &limits("thin", "max-kilobits = 1000");
    let rules = "rtsp *\n  few : path /few/**  use few\n  thin : path /thin/**  use thin\n";
    let farm = farm("rtsp-full", &[script], "", &more, rules);
    let mut clients: Vec<Viewer> = (0..4).map(|_| Viewer::connect(&farm.port.address())).collect();
    let statuses = |clients: &mut [Viewer], path: &str| -> Vec<u16> {
        clients
            .iter_mut()
            .map(|client| match client.ask("DESCRIBE", path, "").status() {
                200 => client.set_up(&format!("{path}/track1")).1.status(),
                status => status,
            })
            .collect()
    };
    assert_eq!(statuses(&mut clients[..2], "/few/a"), [200, 503]);
    assert_eq!(statuses(&mut clients[2..], "/thin/a"), [200, 453]);
    // A place is free again when its session is over.
    drop(clients);
    let mut next = Viewer::connect(&farm.port.address());
    until("the place is free", || (next.ask("DESCRIBE", "/few/a", "").status() == 200).then_some(()));
}

#[test]
fn urls_of_servers_become_ours_where_that_is_wanted() {
    let _turn = among_others();
    let as_they_are = farm("rtsp-urls", &named(&["one"]), "", "", ALL);
    let said = Viewer::connect(&as_they_are.port.address()).ask("DESCRIBE", "/cam", "");
    assert_eq!(said.value("content-base"), "rtsp://127.0.0.1:1/own/");
    let ours = farm("rtsp-urls-ours", &named(&["one"]), "rewrite-urls = true", "", ALL);
    let here = ours.port.address();
    let said = Viewer::connect(&here).ask("DESCRIBE", "/cam", "");
    assert_eq!(said.value("content-base"), format!("rtsp://{here}/own/"));
    assert!(said.body.contains(&format!("a=control:rtsp://{here}/own/track1\r\n")), "{}", said.body);
}

#[test]
fn a_server_that_dies_is_noticed_at_once() {
    let _turn = among_others();
    let dying = Script { frames: 3, dies: true, ..Script::default() };
    let farm = farm("rtsp-dies", &[dying], "", "", ALL);
    let mut client = Viewer::connect(&farm.port.address());
    let (id, _) = client.set_up("/cam/1");
    assert_eq!(client.ask("PLAY", "/cam/", &format!("Session: {id}\r\n")).status(), 200);
    let started = Instant::now();
    while !matches!(client.wire.next(), Item::End) {}
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    let line = until("a line in the log", || farm.reeve.log().pop());
    assert_eq!((&line["failure"], &line["side"]), (&"server-closed".into(), &"server".into()), "{line}");
    assert_eq!(farm.reeve.metric("reeve_media_sessions{pool=\"media\",server=\"one\"}"), Some(0.0));
}

#[test]
fn what_begins_as_http_does_may_be_rtsp() {
    let _turn = among_others();
    let farm = farm("rtsp-begin", &named(&["one"]), "", "", ALL);
    for (pieces, status) in [
        (&["GET_PARAMETER rtsp://a/x RTSP/1.0\r\nCSeq: 1\r\n\r\n"][..], "RTSP/1.0 200"),
        (&["G", "ET_PARAMETER rtsp://a/x RTSP/1.0\r\nCSeq: 1\r\n\r\n"], "RTSP/1.0 200"),
        (&["GET / HTTP/1.1\r\nHost: a\r\n\r\n"], "HTTP/1.0 404"),
        (&["G", "E", "T", " ", "/ HTTP/1.1\r\nHost: a\r\n\r\n"], "HTTP/1.0 404"),
        (&["PO", "ST / HTTP/1.1\r\nHost: a\r\n\r\n"], "HTTP/1.0 404"),
        (&["P", "LAY rtsp://a/x RTSP/1.0\r\nCSeq: 1\r\n\r\n"], "RTSP/1.0 200"),
    ] {
        let mut client = Viewer::connect(&farm.port.address());
        for piece in pieces {
            // Each is a segment of its own; whether they are read one by one is the kernel's.
            client.send(piece.as_bytes());
        }
        let answer = client.wire.message();
        assert!(answer.first.starts_with(status), "{pieces:?}: {answer:?}");
    }
}

#[test]
fn a_server_that_is_not_needed_may_leave() {
    let _turn = among_others();
    let leaves = Script { name: "one", leaves: "SET_PARAMETER", ..Script::default() };
    let rules = "rtsp *\n  a : path /a/**  use one\n  b : path /b/**  use two\n";
    let farm = farm("rtsp-leaves", &[leaves, Script { name: "two", frames: 4, ..Script::default() }], "", "", rules);
    let mut client = Viewer::connect(&farm.port.address());
    assert_eq!(client.ask("DESCRIBE", "/a/x", "").value("x-origin"), "one");
    let (id, answer) = client.set_up("/b/track1");
    assert_eq!(answer.value("x-origin"), "two");
    assert_eq!(client.ask("SET_PARAMETER", "/a/x", "").value("x-origin"), "one");
    until("its connection is closed", || {
        farm.origins[0].seen().iter().any(|message| message.first == "END").then_some(())
    });
    // The session of the other one goes on, both ways; and who has left is found again.
    let session = format!("Session: {id}\r\n");
    assert_eq!(client.ask("PLAY", "/b/", &session).value("x-origin"), "two");
    client.send(b"$\x01\x00\x04rtcp");
    let mut frames = 0;
    while !matches!(client.wire.next(), Item::Frame(1, echo) if echo == b"rtcp") {
        frames += 1;
    }
    assert_eq!(frames, 4);
    assert_eq!(client.ask("DESCRIBE", "/a/x", "").value("x-origin"), "one");
    assert_eq!(client.ask("GET_PARAMETER", "/elsewhere", &session).value("x-origin"), "two");
}

#[test]
fn who_waits_for_a_server_that_leaves_is_told() {
    let _turn = among_others();
    let deaf = Script { deaf_to: "PAUSE", ..Script::default() };
    let farm = farm("rtsp-deaf", &[deaf], "", "", ALL);
    let mut client = Viewer::connect(&farm.port.address());
    let (id, _) = client.set_up("/cam/1");
    let session = format!("Session: {id}\r\n");
    let all = ["PAUSE", "GET_PARAMETER"].map(|method| client.request(method, "/cam/", &session));
    client.send(all.concat().as_bytes());
    for cseq in ["2", "3"] {
        let answer = client.wire.message();
        assert_eq!((answer.status(), answer.value("cseq")), (502, cseq), "{answer:?}");
    }
    assert!(matches!(client.wire.next(), Item::End));
}

#[test]
fn a_refusal_comes_in_its_turn() {
    let _turn = among_others();
    let origin = Origin::start(Script::default());
    let more =
        format!("[pool.few]\nservers = [{{ name = \"o\", address = \"{}\", max-sessions = 1 }}]\n", origin.address);
    let rules = "rtsp *\n  few : path /few/**  use few\n";
    let farm = farm("rtsp-turn", &named(&["one"]), "", &more, rules);
    let mut client = Viewer::connect(&farm.port.address());
    assert_eq!(client.ask("OPTIONS", "/few/a", "").status(), 200);
    // The second session shows too late; what was asked behind it is not answered before it is refused.
    let way = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n";
    let mut all = ["/few/a/1", "/few/b/1"].map(|path| client.request("SETUP", path, way)).concat();
    all += &client.request("OPTIONS", "/few/a", "");
    client.send(all.as_bytes());
    for (status, cseq) in [(200, "2"), (503, "3")] {
        let answer = client.wire.message();
        assert_eq!((answer.status(), answer.value("cseq")), (status, cseq), "{answer:?}");
    }
    assert!(matches!(client.wire.next(), Item::End));
}

fn connected(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a deadline");
    stream
}

/// The GET half of a tunnel, open.
fn tunnel_down(address: &str, cookie: &str) -> peers::Wire<TcpStream> {
    let mut down = connected(address);
    let get = format!(
        "GET /cam HTTP/1.1\r\nHost: a\r\nx-sessioncookie: {cookie}\r\nAccept: application/x-rtsp-tunnelled\r\n\r\n"
    );
    down.write_all(get.as_bytes()).expect("sent");
    let opened = crate::farm::raw::line(&mut down);
    assert!(opened.starts_with("HTTP/1.0 200"), "{opened}");
    while crate::farm::raw::line(&mut down) != "\r\n" {}
    peers::Wire::new(down)
}

/// A POST half of a tunnel, behind its head.
fn tunnel_up(address: &str, cookie: &str) -> TcpStream {
    let mut up = connected(address);
    let head = format!(
        "POST /cam HTTP/1.0\r\nx-sessioncookie: {cookie}\r\nContent-Type: application/x-rtsp-tunnelled\r\n\
         Content-Length: 32767\r\n\r\n"
    );
    up.write_all(head.as_bytes()).expect("sent");
    up
}

#[test]
fn what_a_tunnel_carries_may_be_long() {
    let _turn = among_others();
    let farm = farm("rtsp-tunnel-long", &named(&["one"]), "", "", ALL);
    // As base64, "ANNOUNCE ... Content-Length: 49152" and a body: 40 KiB and more go by several pieces.
    let body = "a=x ".repeat(12 << 10);
    let message = format!(
        "ANNOUNCE rtsp://a/live RTSP/1.0\r\nCSeq: 1\r\nContent-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let here = farm.port.address();
    let (mut wire, mut up) = (tunnel_down(&here, "long"), tunnel_up(&here, "long"));
    up.write_all(Base64::encode_string(message.as_bytes()).as_bytes()).expect("sent");
    let answer = wire.message();
    assert_eq!((answer.status(), answer.value("cseq")), (200, "1"), "{answer:?}");
    assert!(farm.origins[0].seen()[0].body == body);
    // A request line that does not end is refused.
    let (mut wire, mut up) = (tunnel_down(&here, "endless"), tunnel_up(&here, "endless"));
    let _ = up.write_all("QUFB".repeat(64 << 10).as_bytes());
    assert_eq!(wire.message().status(), 400);
    assert!(matches!(wire.next(), Item::End));
    // And everybody else goes on.
    assert_eq!(Viewer::connect(&farm.port.address()).ask("OPTIONS", "/cam", "").status(), 200);
}

#[test]
fn the_halves_of_tunnels_meet() {
    let _turn = among_others();
    let farm = farm("rtsp-tunnel", &named(&["one", "two", "three"]), "", "", ALL);
    // Of an HTTP listener as well as of one for RTSP.
    for (number, address) in (0..20).zip([farm.port.address(), farm.reeve.address()].into_iter().cycle()) {
        let cookie = format!("cookie{number}");
        let mut wire = tunnel_down(&address, &cookie);
        for (post, text) in [
            // "DESCRIBE rtsp://a/cam RTSP/1.0\r\nCSeq: 1\r\n\r\n", and OPTIONS by a second POST of the tunnel.
            "REVTQ1JJQkUgcnRzcDovL2EvY2FtIFJUU1AvMS4wDQpDU2VxOiAxDQoNCg==",
            "T1BUSU9OUyBydHNwOi8vYS9jYW0gUlRTUC8xLjANCkNTZXE6IDINCg0K",
        ]
        .into_iter()
        .enumerate()
        {
            let mut up = tunnel_up(&address, &cookie);
            let (first, rest) = text.split_at(7);
            up.write_all(first.as_bytes()).expect("sent");
            up.write_all(rest.as_bytes()).expect("sent");
            let answer = wire.message();
            assert_eq!((answer.status(), answer.value("cseq")), (200, &*(post + 1).to_string()), "{answer:?}");
        }
    }
    // A POST that nobody waits for.
    let mut up = tunnel_up(&farm.port.address(), "none");
    let mut said = String::new();
    let _ = up.read_to_string(&mut said);
    assert!(said.starts_with("HTTP/1.0 404"), "{said}");
}

#[test]
fn rules_are_asked_whatever_went_before() {
    let _turn = among_others();
    let rules = "rtsp *\n  private : path /private/**  deny\n  one : path /cam  use one\n  two : path /cam/**  use two\n  \
                 all : any  use media\n";
    let farm = farm("rtsp-rules", &named(&["one", "two"]), "", "", rules);
    let mut client = Viewer::connect(&farm.port.address());
    assert_eq!(client.ask("OPTIONS", "/", "").status(), 200);
    let tcp = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n";
    assert_eq!(client.ask("SETUP", "/private/cam/track1", tcp).status(), 403);
    // A track is where its presentation was described, whatever pool the rules have for its path.
    assert_eq!(client.ask("DESCRIBE", "/cam", "").value("x-origin"), "one");
    let (id, answer) = client.set_up("/cam/track1");
    assert_eq!((answer.status(), answer.value("x-origin")), (200, "one"));
    for method in ["DESCRIBE", "SETUP", "PLAY", "OPTIONS"] {
        let answer = client.ask(method, "/private/x", &format!("Session: {id}\r\n{tcp}"));
        assert_eq!(answer.status(), 403, "{method}");
    }
    assert_eq!(client.ask("DESCRIBE", "/cam/other", &format!("Session: {id}\r\n")).value("x-origin"), "two");
    assert_eq!(client.ask("PLAY", "/cam/", &format!("Session: {id}\r\n")).value("x-origin"), "one");
    for origin in &farm.origins {
        assert!(origin.seen().iter().all(|asked| !asked.first.contains("/private")));
    }
}

#[test]
fn tracks_that_differ_by_their_query_have_a_way_each() {
    let _turn = among_others();
    let farm = farm("rtsp-query", &named(&["one"]), "media-ports = \"24000-24199\"", "", ALL);
    let mut client = Viewer::connect(&farm.port.address());
    let url = "/cam/realmonitor?channel=1&subtype=0";
    assert_eq!(client.ask("DESCRIBE", url, "").status(), 200);
    let first =
        client.ask("SETUP", &format!("{url}/trackID=0"), "Transport: RTP/AVP;unicast;client_port=7000-7001\r\n");
    let id = first.value("session").split(';').next().unwrap_or_default().to_owned();
    let more = format!("Session: {id}\r\nTransport: RTP/AVP;unicast;client_port=7002-7003\r\n");
    let relayed = || farm.reeve.metric("reeve_media_streams{pool=\"media\",server=\"one\",transport=\"relayed\"}");
    assert_eq!(client.ask("SETUP", &format!("{url}/trackID=1"), &more).status(), 200);
    until("both are relayed", || (relayed() == Some(2.0)).then_some(()));
    // One of them again takes the place of its own.
    assert_eq!(client.ask("SETUP", &format!("{url}/trackID=1"), &more).status(), 200);
    assert_eq!(client.ask("TEARDOWN", &format!("{url}/trackID=1"), &format!("Session: {id}\r\n")).status(), 200);
    until("one is left", || (relayed() == Some(1.0)).then_some(()));
}

#[test]
fn listeners_of_http_take_tunnels_only_by_rules_for_rtsp() {
    let _turn = among_others();
    let get = "GET /cam HTTP/1.1\r\nHost: a\r\nx-sessioncookie: c\r\nAccept: application/x-rtsp-tunnelled\r\n\r\n";
    let post = "POST /cam HTTP/1.0\r\nx-sessioncookie: c\r\nContent-Type: application/x-rtsp-tunnelled\r\n\
                Content-Length: 32767\r\n\r\nREVTQ1JJQkUgcnRzcDovL2EvY2FtIFJUU1AvMS4wDQpDU2VxOiAxDQoNCg==";
    let connect = |address: &str, text: &str| {
        let mut stream = TcpStream::connect(address).expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a deadline");
        stream.write_all(text.as_bytes()).expect("sent");
        stream
    };
    let origin = Origin::start(Script::default());
    for (label, rules, status) in [
        ("rtsp-tunnel-none", "http *\n  no : path /cam  deny\n", 403),
        ("rtsp-tunnel-host", "http *\n  no : path /cam  deny\nrtsp other.example\n  all : any  use media\n", 200),
    ] {
        let port = Port::free();
        let text = pool("media", "rr", &[("one", origin.address.clone())])
            + &format!(
                "[listen.gate]\naddress = [\"{}\"]\nrules = [\"rules/site.rules\"]\npool = \"media\"\n",
                port.address()
            );
        let _reeve = Reeve::start(label, &text, rules);
        let mut down = connect(&port.address(), get);
        let opened = crate::farm::raw::line(&mut down);
        assert_eq!(opened.split(' ').nth(1), Some(&*status.to_string()), "{opened}");
        if status == 200 {
            while crate::farm::raw::line(&mut down) != "\r\n" {}
            let _up = connect(&port.address(), post);
            // The listener's pool speaks HTTP.
            assert_eq!(peers::Wire::new(down).message().status(), 404);
        }
    }
    assert!(origin.seen().is_empty(), "{:?}", origin.seen());
}

const SESSIONS: &str = "reeve_media_sessions{pool=\"media\",server=\"one\"}";
const RELAYED: &str = "reeve_media_streams{pool=\"media\",server=\"one\",transport=\"relayed\"}";

#[test]
fn no_session_outlives_its_connection_uncounted() {
    let _turn = among_others();
    let farm = farm("rtsp-leaks", &[Script { renews: true, ..Script::default() }], "", "", ALL);
    let none_is_left = || {
        until("all sessions are over", || (farm.reeve.metric(SESSIONS) == Some(0.0)).then_some(()));
    };
    let mut client = Viewer::connect(&farm.port.address());
    for number in 0..128 {
        assert_eq!(client.set_up(&format!("/cam{number}/track1")).1.status(), 200);
    }
    assert_eq!(client.set_up("/one-more/track1").1.status(), 503);
    assert_eq!((farm.reeve.metric(SESSIONS), farm.origins[0].seen().len()), (Some(128.0), 128));
    assert_eq!(client.ask("OPTIONS", "/cam0", "").status(), 200, "the others go on");
    drop(client);
    none_is_left();
    // A server that answers one session with another.
    let mut client = Viewer::connect(&farm.port.address());
    let (first, _) = client.set_up("/cam/track1");
    let tcp = "Transport: RTP/AVP/TCP;unicast;interleaved=2-3\r\n";
    let second = client.ask("SETUP", "/cam/track2", &format!("Session: {first}\r\n{tcp}"));
    assert!(second.status() == 200 && !second.value("session").starts_with(&first), "{second:?}");
    assert_eq!(farm.reeve.metric(SESSIONS), Some(2.0));
    drop(client);
    none_is_left();
}

#[test]
fn no_other_server_is_asked_for_a_session() {
    let _turn = among_others();
    let farm = farm("rtsp-only", &named(&["one", "two"]), "", "", ALL);
    let mut client = Viewer::connect(&farm.port.address());
    let (id, answer) = client.set_up("/cam/track1");
    let own = farm.origins.iter().zip(["one", "two"]).find(|(_, name)| *name == answer.value("x-origin"));
    own.expect("its server").0.close();
    let mut other = Viewer::connect(&farm.port.address());
    assert_eq!(other.ask("PLAY", "/cam/", &format!("Session: {id}\r\n")).status(), 503);
    assert_eq!(client.ask("PLAY", "/cam/", &format!("Session: {id}\r\n")).status(), 200);
    let asked: usize = farm.origins.iter().map(|origin| origin.seen().len()).sum();
    assert_eq!(asked, 2, "SETUP and the second PLAY");
}

#[test]
fn nobody_takes_all_ports() {
    let _turn = among_others();
    let farm = farm("rtsp-share", &named(&["one"]), "media-ports = \"25000-25999\"", "", ALL);
    let mut client = Viewer::connect(&farm.port.address());
    let udp = "Transport: RTP/AVP;unicast;client_port=7000-7001\r\n";
    for number in 0..64 {
        assert_eq!(client.ask("SETUP", &format!("/cam{number}/1"), udp).status(), 200, "{number}");
    }
    assert_eq!(client.ask("SETUP", "/more/1", udp).status(), 453);
    // Where there is another way it takes that.
    let both = "Transport: RTP/AVP;unicast;client_port=7000-7001,RTP/AVP/TCP;unicast;interleaved=0-1\r\n";
    assert_eq!(client.ask("SETUP", "/more/1", both).value("transport"), "RTP/AVP/TCP;unicast;interleaved=0-1");
}

#[test]
fn packets_go_on_without_the_connection_that_set_them_up() {
    let _turn = among_others();
    let farm = farm("rtsp-second", &named(&["one"]), "media-ports = \"26000-26199\"", "", ALL);
    let mut first = Viewer::connect(&farm.port.address());
    let (id, _) = first.set_up("/cam/track1");
    let connections = || farm.reeve.metric("reeve_connections{listener=\"media\",state=\"active\"}");
    let mut second = Viewer::connect(&farm.port.address());
    let udp = format!("Session: {id}\r\nTransport: RTP/AVP;unicast;client_port=7000-7001\r\n");
    assert_eq!(second.ask("SETUP", "/cam/track2", &udp).status(), 200);
    until("it is relayed", || (farm.reeve.metric(RELAYED) == Some(1.0)).then_some(()));
    assert_eq!(connections(), Some(2.0));
    drop(second);
    until("the connection has gone", || (connections() == Some(1.0)).then_some(()));
    assert_eq!((farm.reeve.metric(RELAYED), farm.reeve.metric(SESSIONS)), (Some(1.0), Some(1.0)));
    assert_eq!(first.ask("TEARDOWN", "/cam/", &format!("Session: {id}\r\n")).status(), 200);
    until("nothing is left", || (farm.reeve.metric(RELAYED) == Some(0.0)).then_some(()));
    assert_eq!(farm.reeve.metric(SESSIONS), Some(0.0));
}
