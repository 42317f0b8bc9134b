//! `tcp` listeners: what is passed on unread.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::farm::origin::{is_pattern, send_pattern};
use crate::farm::peer::{program, python_with_packages, test_file};
use crate::farm::ports::Port;
use crate::farm::process::{Process, listens, run};
use crate::farm::reeve::{Site, command, pool};
use crate::farm::{Authority, Client, Reeve, among_others, get, observe, raw, skip, until};

/// Reeve with a `tcp` listener before these servers.
fn farm(label: &str, servers: &[(&str, String)], more: &str) -> (Reeve, Port) {
    let port = Port::free();
    let config = format!(
        "{}\n[listen.raw]\naddress = [\"{}\"]\nprotocol = \"tcp\"\npool = \"raw\"\n{more}\n",
        pool("raw", "rr", servers),
        port.address()
    );
    (Reeve::start(label, &config, "http *\n  all : any  deny\n"), port)
}

fn connect(port: &Port) -> TcpStream {
    let stream = TcpStream::connect(port.address()).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a deadline");
    stream.set_nodelay(true).expect("no delay");
    stream
}

#[test]
fn a_server_that_speaks_first_is_heard_at_once() {
    let _turn = among_others();
    let server = raw::serve(|mut stream| {
        let _ = stream.write_all(b"220 mail.example ready\r\n");
        let hello = raw::line(&mut stream);
        let _ = stream.write_all(format!("250 {hello}").as_bytes());
    });
    let (reeve, port) = farm("greeting", &[("one", server)], "");
    let started = Instant::now();
    let mut client = connect(&port);
    assert_eq!(raw::line(&mut client), "220 mail.example ready\r\n");
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    client.write_all(b"EHLO me\r\n").expect("sent");
    assert_eq!(raw::line(&mut client), "250 EHLO me\r\n");
    assert_eq!(client.read(&mut [0; 1]).expect("the end"), 0);
    drop(client);
    let line = until("a line in the log", || reeve.log().pop());
    let text = |key: &str| line[key].as_str().unwrap_or("null").to_owned();
    assert_eq!((text("listener"), text("proto"), text("pool"), text("server")), four("raw", "TCP", "raw", "one"));
    assert_eq!((text("failure"), text("rule"), text("sni")), ("null".into(), "null".into(), "null".into()));
    assert_eq!((&line["bytes_in"], &line["bytes_out"], &line["tries"]), (&9.into(), &37.into(), &1.into()));
    assert!(line["t_connect"].as_f64() > Some(0.0) && line["t_total"].as_f64() >= line["t_connect"].as_f64(), "{line}");
}

fn four(a: &str, b: &str, c: &str, d: &str) -> (String, String, String, String) {
    (a.to_owned(), b.to_owned(), c.to_owned(), d.to_owned())
}

#[test]
fn a_mail_server_serves_real_clients() {
    let _turn = among_others();
    let Some(mut python) = python_with_packages() else { return skip("no Python of ours; ./check makes one") };
    let server = Port::free();
    let mut process = Process::start(python.arg(test_file("it/mail.py")).arg(server.number.to_string()));
    listens(&mut process, &server.address());
    let (reeve, port) = farm("mail", &[("one", server.address())], "");
    let Some(mut curl) = program("curl") else { return skip("no curl") };
    let letter = reeve.site.folder.write("letter", "Subject: hello\r\n\r\nthrough the farm\r\n");
    curl.args(["--silent", "--show-error", "--mail-from", "a@b.example", "--mail-rcpt", "c@d.example"]);
    curl.arg("--upload-file").arg(letter).arg(format!("smtp://{}", port.address()));
    let (code, out, wrong) = run(&mut curl, Duration::from_secs(30));
    assert_eq!(code, 0, "{out}{wrong}\n{}{}", process.stdout(), process.stderr());
    until("the letter arrives", || process.stdout().contains("through the farm").then_some(()));
}

#[test]
fn much_passes_both_ways_intact() {
    let _turn = among_others();
    const SIZE: u64 = 64 << 20;
    let server = raw::serve(|mut stream| {
        let mut back = stream.try_clone().expect("a second handle");
        let sender = std::thread::spawn(move || {
            let sent = send_pattern(&mut back, 7, SIZE);
            let _ = back.shutdown(Shutdown::Write);
            sent
        });
        let got = take_pattern(&mut stream, 0);
        assert_eq!(got, SIZE);
        let _ = sender.join();
    });
    let (reeve, port) = farm("bulk", &[("one", server)], "");
    let mut client = connect(&port);
    let mut up = client.try_clone().expect("a second handle");
    let sender = std::thread::spawn(move || {
        send_pattern(&mut up, 0, SIZE).expect("sent");
        up.shutdown(Shutdown::Write).expect("half closed");
    });
    assert_eq!(take_pattern(&mut client, 7), SIZE);
    sender.join().expect("the upload");
    drop(client);
    let line = until("a line in the log", || reeve.log().pop());
    assert_eq!(
        (&line["bytes_in"], &line["bytes_out"], &line["failure"]),
        (&SIZE.into(), &SIZE.into(), &serde_json::Value::Null)
    );
    let text = get(&reeve.site.metrics(), "/metrics", &[]).text();
    for direction in ["received", "sent"] {
        let sample = text.lines().find(|line| {
            line.starts_with("reeve_bytes_total{") && line.contains("\"raw\"") && line.contains(direction)
        });
        assert!(sample.is_some_and(|line| line.ends_with(&format!(" {SIZE}"))), "{direction}: {sample:?}\n{text}");
    }
}

/// An urgent byte is no part of the stream, and what comes behind it is.
#[test]
fn what_follows_an_urgent_byte_is_not_lost() {
    let _turn = among_others();
    const MOST: u64 = 16 << 20;
    const REST: u64 = 16 << 20;
    let (tell, told) = std::sync::mpsc::channel();
    let server = raw::serve(move |mut stream| {
        let _ = tell.send(take_pattern(&mut stream, 0));
    });
    let (reeve, port) = farm("urgent", &[("one", server)], "");
    for _ in 0..5 {
        let mut client = connect(&port);
        send_pattern(&mut client, 0, MOST).expect("sent");
        socket2::SockRef::from(&client).send_out_of_band(b"!").expect("sent");
        send_pattern(&mut client, MOST, REST).expect("sent");
        client.shutdown(Shutdown::Write).expect("an end");
        assert_eq!(told.recv_timeout(Duration::from_secs(20)).expect("its word"), MOST + REST);
    }
    let lines = until("a line each", || Some(reeve.log()).filter(|lines| lines.len() == 5));
    assert!(lines.iter().all(|line| line["failure"].is_null()), "{lines:?}");
}

/// Reads to the end; how many bytes came, all of which have to be the pattern's.
fn take_pattern(stream: &mut TcpStream, offset: u64) -> u64 {
    let (mut bytes, mut count) = (vec![0; 64 << 10], 0);
    loop {
        let n = stream.read(&mut bytes).expect("bytes");
        if n == 0 {
            return count;
        }
        assert!(is_pattern(offset + count, &bytes[..n]), "after {count} bytes");
        count += n as u64;
    }
}

/// What arrives in clear goes on by TLS, and its end is announced to both sides.
#[test]
fn a_pool_may_be_spoken_to_by_tls() {
    let _turn = among_others();
    let ours = Authority::new("ours");
    let issued = ours.issue("origin", &["127.0.0.1"]);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.expect("versions").with_no_client_auth();
    let own = Arc::new(builder.with_single_cert(vec![issued.der()], issued.key_der()).expect("a server"));
    let (tell, told) = std::sync::mpsc::channel();
    let server = raw::serve(move |stream| {
        let session = ServerConnection::new(own.clone()).expect("a session");
        let mut stream = StreamOwned::new(session, stream);
        let _ = stream.write_all(b"hello\n");
        let _ = stream.flush();
        // rustls makes an error of an end that is not announced.
        let mut all = Vec::new();
        let ended = stream.read_to_end(&mut all);
        let _ = tell.send((ended.is_ok(), all.len(), is_pattern(0, &all), stream.conn.alpn_protocol().is_some()));
        let _ = stream.write_all(format!("{} bytes\n", all.len()).as_bytes());
        stream.conn.send_close_notify();
        let _ = stream.flush();
    });
    let port = Port::free();
    let config = pool("raw", "rr", &[("one", server)])
        + &format!(
            "tls = {{ ca = \"ca.pem\" }}\n[listen.raw]\naddress = [\"{}\"]\nprotocol = \"tcp\"\npool = \"raw\"\n",
            port.address()
        );
    let site = Site::write("opaque-tls", &config, "http *\n  all : any  deny\n");
    site.folder.write("ca.pem", ours.pem());
    let reeve = Reeve::run(site);
    let mut client = connect(&port);
    assert_eq!(raw::line(&mut client), "hello\n");
    send_pattern(&mut client, 0, 3_000_001).expect("sent");
    client.shutdown(Shutdown::Write).expect("an end");
    assert_eq!(raw::line(&mut client), "3000001 bytes\n");
    assert_eq!(client.read(&mut [0; 1]).expect("the end"), 0);
    // No language is offered, for none is known.
    assert_eq!(told.recv_timeout(Duration::from_secs(20)).expect("its word"), (true, 3_000_001, true, false));
    let line = until("a line in the log", || reeve.log().pop());
    assert_eq!((&line["bytes_in"], &line["bytes_out"]), (&3_000_001.into(), &20.into()), "{line}");
    assert!(line["failure"].is_null(), "{line}");
    // A server that nobody vouches for hears nothing.
    let site = Site::write("opaque-stranger", &config, "http *\n  all : any  deny\n");
    site.folder.write("ca.pem", Authority::new("another").pem());
    drop(reeve);
    let reeve = Reeve::run(site);
    let mut client = connect(&port);
    let ended = client.read(&mut [0; 1]);
    assert!(
        ended.as_ref().map_or_else(|error| error.kind() == ErrorKind::ConnectionReset, |count| *count == 0),
        "{ended:?}"
    );
    let line = until("a line in the log", || reeve.log().pop());
    assert_eq!((&line["failure"], &line["bytes_in"]), (&"connect".into(), &0.into()), "{line}");
}

/// What the server speaks is not known here: whatever a client offers, nothing is chosen, and nobody is turned away.
#[test]
fn tls_may_end_before_any_server() {
    let _turn = among_others();
    let server = raw::serve(|mut stream| drop(stream.write_all(b"* OK ready\r\n")));
    let ours = Authority::new("ours");
    let port = Port::free();
    let config = |protocol: &str| {
        pool("raw", "rr", &[("one", server.clone())])
            + &format!(
                "[listen.raw]\naddress = [\"{}\"]\nprotocol = \"{protocol}\"\npool = \"raw\"\n\
                 tls = {{ certificates = \"certs\" }}\n",
                port.address()
            )
    };
    const RULES: &str = "http *\n  all : any  deny\n";
    let site = Site::write("opaque-ends", &config("http"), RULES);
    ours.issue("site", &["localhost"]).write(&site.folder, "certs/site");
    let reeve = Reeve::run(site);
    let chosen = |offered: &[&str]| {
        let mut client = ours.client();
        client.alpn_protocols = offered.iter().map(|name| name.as_bytes().to_vec()).collect();
        let mut client = Client::secure(&port.address(), "localhost", &Arc::new(client))?;
        let chosen = client.session().alpn_protocol().map(<[u8]>::to_vec);
        if chosen.is_none() {
            let mut word = [0; 4];
            assert_eq!((client.read(&mut word).expect("its word"), &word), (4, b"* OK"));
        }
        std::io::Result::Ok(chosen)
    };
    assert_eq!(chosen(&["h2", "http/1.1"]).expect("a handshake"), Some(b"h2".to_vec()));
    chosen(&["imap"]).expect_err("HTTP alone is spoken here");
    reeve.reload(&config("tcp"), RULES);
    for offered in [&[][..], &["imap"], &["h2", "http/1.1"]] {
        assert_eq!(chosen(offered).expect("a handshake"), None, "{offered:?}");
    }
}

#[test]
fn one_side_may_end_before_the_other() {
    let _turn = among_others();
    let (address, connections) = raw::accepting();
    let (reeve, port) = farm("half", &[("one", address)], "");
    // The client ends first, and still hears.
    let mut client = connect(&port);
    client.write_all(b"question").expect("sent");
    client.shutdown(Shutdown::Write).expect("half closed");
    let mut server = connections.recv_timeout(Duration::from_secs(20)).expect("a connection");
    let mut question = Vec::new();
    server.read_to_end(&mut question).expect("the end arrives");
    assert_eq!(question, b"question");
    server.write_all(b"answer").expect("sent");
    assert_eq!(raw::exactly(&mut client, 6), b"answer");
    drop(server);
    assert_eq!(client.read(&mut [0; 1]).expect("the end"), 0);
    // The server ends first, and still hears.
    let mut client = connect(&port);
    let mut server = connections.recv_timeout(Duration::from_secs(20)).expect("a connection");
    server.shutdown(Shutdown::Write).expect("half closed");
    assert_eq!(client.read(&mut [0; 1]).expect("the end"), 0);
    client.write_all(b"late").expect("sent");
    assert_eq!(raw::exactly(&mut server, 4), b"late");
    drop(client);
    assert_eq!(server.read(&mut [0; 1]).expect("the end"), 0);
    let lines = until("two lines", || Some(reeve.log()).filter(|lines| lines.len() == 2));
    assert!(lines.iter().all(|line| line["failure"].is_null()), "{lines:?}");
}

#[test]
fn a_reset_is_passed_on_as_a_reset() {
    let _turn = among_others();
    let (address, connections) = raw::accepting();
    let (reeve, port) = farm("reset", &[("one", address)], "");
    for from_client in [true, false] {
        let mut client = connect(&port);
        let mut server = connections.recv_timeout(Duration::from_secs(20)).expect("a connection");
        client.write_all(b"x").expect("sent");
        raw::exactly(&mut server, 1);
        let (breaks, mut sees) = if from_client { (client, server) } else { (server, client) };
        socket2::SockRef::from(&breaks).set_linger(Some(Duration::ZERO)).expect("a reset at the close");
        drop(breaks);
        let seen = sees.read(&mut [0; 1]);
        assert!(
            seen.as_ref().is_err_and(|error| error.kind() == ErrorKind::ConnectionReset),
            "{from_client}: {seen:?}"
        );
    }
    let lines = until("two lines", || Some(reeve.log()).filter(|lines| lines.len() == 2));
    let mut said: Vec<_> = lines.iter().map(|line| (line["failure"].as_str(), line["side"].as_str())).collect();
    // Each worker writes its own.
    said.sort_unstable();
    assert_eq!(said, [(Some("client-gone"), Some("client")), (Some("server-closed"), Some("server"))]);
}

/// Who closes while it is still being sent to resets the connection; what it said before that is heard all the same.
#[test]
fn the_last_words_before_a_reset_are_heard() {
    let _turn = among_others();
    let (address, connections) = raw::accepting();
    let (reeve, port) = farm("last-words", &[("one", address)], "");
    const ROUNDS: usize = 20;
    for _ in 0..ROUNDS {
        let mut client = connect(&port);
        let mut server = connections.recv_timeout(Duration::from_secs(20)).expect("a connection");
        let mut sending = client.try_clone().expect("the same connection");
        let upload = std::thread::spawn(move || send_pattern(&mut sending, 0, 50_000_000).is_err());
        raw::exactly(&mut server, 100_000);
        server.write_all(b"552 too much\r\n").expect("sent");
        drop(server);
        assert!(upload.join().expect("a thread"), "it is told by a reset that not all of it was taken");
        assert_eq!(raw::line(&mut client), "552 too much\r\n");
    }
    let lines = until("a line each", || Some(reeve.log()).filter(|lines| lines.len() == ROUNDS));
    assert!(lines.iter().all(|line| line["failure"] == "server-closed" && line["bytes_out"] == 14), "{lines:?}");
}

#[test]
fn a_server_that_is_not_there_is_passed_over() {
    let _turn = among_others();
    let server = raw::serve(|mut stream| drop(stream.write_all(b"hi\n")));
    let gone = Port::free();
    let (reeve, port) = farm("retry", &[("gone", gone.address()), ("here", server)], "");
    for _ in 0..4 {
        assert_eq!(raw::line(&mut connect(&port)), "hi\n");
    }
    let lines = until("four lines", || Some(reeve.log()).filter(|lines| lines.len() == 4));
    assert!(lines.iter().all(|line| line["server"] == "here"), "{lines:?}");
    assert!(lines.iter().any(|line| line["tries"] == 2), "{lines:?}");
    // With nobody there, the client sees the end and the log says why.
    let (reeve, port) = farm("nobody", &[("gone", gone.address())], "");
    assert!(matches!(connect(&port).read(&mut [0; 1]), Ok(0) | Err(_)));
    let line = until("a line", || reeve.log().pop());
    assert_eq!((line["failure"].as_str(), line["side"].as_str()), (Some("connect"), Some("server")));
}

#[test]
fn connections_count_as_load_and_have_a_limit() {
    let _turn = among_others();
    let (address, connections) = raw::accepting();
    let port = Port::free();
    let config = format!(
        "[pool.raw]\nservers = [{{ name = \"one\", address = \"{address}\", max-connections = 2 }}]\n\
         [listen.raw]\naddress = [\"{}\"]\nprotocol = \"tcp\"\npool = \"raw\"\n",
        port.address()
    );
    let reeve = Reeve::start("limit", &config, "http *\n  all : any  deny\n");
    let held = [connect(&port), connect(&port)];
    let servers: Vec<_> =
        (0..2).map(|_| connections.recv_timeout(Duration::from_secs(20)).expect("a connection")).collect();
    let mut third = connect(&port);
    assert!(matches!(third.read(&mut [0; 1]), Ok(0) | Err(_)));
    let line = until("a line", || reeve.log().pop());
    assert_eq!(line["failure"], "full");
    let (_, out, _) = run(
        command().args(["connections", "--format", "json", "--socket", &reeve.site.socket()]),
        Duration::from_secs(20),
    );
    assert_eq!(out.matches("\"tunnel\"").count(), 2, "{out}");
    drop((held, servers));
    let _again = until("room again", || {
        let client = connect(&port);
        connections.recv_timeout(Duration::from_millis(200)).ok().map(|server| (client, server))
    });
}

#[test]
fn a_section_may_choose_by_source_and_listener() {
    let _turn = among_others();
    let server =
        |name: &'static str| raw::serve(move |mut stream| drop(stream.write_all(format!("{name}\n").as_bytes())));
    let (port, other) = (Port::free(), Port::free());
    let listen = |name: &str, port: &Port| {
        format!(
            "[listen.{name}]\naddress = [\"{}\"]\nprotocol = \"tcp\"\nrules = [\"rules/site.rules\"]\n",
            port.address()
        )
    };
    let config = [
        pool("near", "rr", &[("one", server("near"))]),
        pool("far", "rr", &[("one", server("far"))]),
        listen("raw", &port),
        listen("other", &other),
    ]
    .concat();
    let rules = "http *\n  all : any  deny\ntcp\n  no    : from 127.0.0.66  deny\n  reset : from 127.0.0.77  drop\n  \
                 near  : from 127.0.0.0/24 & listener raw  use near\n  rest  : listener other  use far\n\
                 expect tcp from:127.0.0.1 listener:raw -> near\nexpect tcp listener:other -> far\n\
                 expect tcp from:127.0.0.66 listener:raw -> deny\nexpect tcp from:10.0.0.1 listener:raw -> no-route\n";
    let reeve = Reeve::start("tcp-rules", &config, rules);
    let from = |address: &str, source: &str| {
        let mut client = crate::farm::Client::connect_from(address, Some(source), None);
        let mut got = [0; 16];
        client.read(&mut got).map(|count| String::from_utf8_lossy(&got[..count]).into_owned())
    };
    assert_eq!(from(&port.address(), "127.0.0.1").expect("a line"), "near\n");
    assert_eq!(from(&other.address(), "127.0.0.1").expect("a line"), "far\n");
    assert_eq!(from(&port.address(), "127.0.0.66").expect("the end"), "");
    assert!(from(&port.address(), "127.0.0.77").is_err_and(|error| error.kind() == ErrorKind::ConnectionReset));
    assert!(matches!(from(&port.address(), "127.0.1.1").as_deref(), Ok("")), "no rule, no pool");
    let text = until("all are counted", || {
        let text = get(&reeve.site.metrics(), "/metrics", &[]).text();
        text.contains("reason=\"no-route\"} 1").then_some(text)
    });
    for sample in ["reason=\"denied\"} 1", "reason=\"dropped\"} 1", "rule=\"site.rules:near\"} 1"] {
        assert!(text.contains(sample), "{sample}\n{text}");
    }
    let lines = until("five lines", || Some(reeve.log()).filter(|lines| lines.len() == 5));
    assert!(lines.iter().any(|line| line["rule"] == "site.rules:rest"), "{lines:?}");
}

#[test]
fn silence_ends_a_connection() {
    let _turn = among_others();
    let (address, connections) = raw::accepting();
    let (reeve, port) = farm("tcp-idle", &[("one", address)], "[timeouts]\ntcp-idle = \"1s\"\nhalf-closed = \"1s\"\n");
    let mut client = connect(&port);
    let mut server = connections.recv_timeout(Duration::from_secs(20)).expect("a connection");
    // Either side's word keeps it.
    for _ in 0..4 {
        observe(Duration::from_millis(500), "it is kept", || true);
        server.write_all(b".").expect("sent");
        raw::exactly(&mut client, 1);
    }
    assert_eq!(client.read(&mut [0; 1]).expect("the end"), 0);
    // One side has ended, and the other one says nothing: what has come may not be all.
    let mut client = connect(&port);
    let _server = connections.recv_timeout(Duration::from_secs(20)).expect("a connection");
    client.shutdown(Shutdown::Write).expect("half closed");
    assert!(client.read(&mut [0; 1]).is_err_and(|error| error.kind() == ErrorKind::ConnectionReset));
    let lines = until("two lines", || Some(reeve.log()).filter(|lines| lines.len() == 2));
    let mut said: Vec<_> = lines.iter().filter_map(|line| line["failure"].as_str()).collect();
    said.sort_unstable();
    assert_eq!(said, ["half-closed", "idle"]);
}

#[test]
fn a_drain_ends_tunnels_in_its_time() {
    let _turn = among_others();
    let (address, connections) = raw::accepting();
    let (mut reeve, port) = farm("tcp-drain", &[("one", address)], "[timeouts]\ndrain = \"2s\"\n");
    let mut client = connect(&port);
    let mut server = connections.recv_timeout(Duration::from_secs(20)).expect("a connection");
    client.write_all(b"x").expect("sent");
    raw::exactly(&mut server, 1);
    // One of which a side has ended already is a tunnel like the others.
    let half = connect(&port);
    let mut other = connections.recv_timeout(Duration::from_secs(20)).expect("a connection");
    half.shutdown(Shutdown::Write).expect("half closed");
    assert_eq!(other.read(&mut [0; 1]).expect("the end"), 0);
    reeve.process.signal(Signal::TERM);
    until("nobody listens any more", || TcpStream::connect(port.address()).is_err().then_some(()));
    // It goes on until the drain is over.
    server.write_all(b"still here").expect("sent");
    assert_eq!(raw::exactly(&mut client, 10), b"still here");
    assert_eq!(reeve.process.exit(Duration::from_secs(10)).code(), Some(0));
    assert!(matches!(client.read(&mut [0; 1]), Ok(0) | Err(_)));
    let lines = reeve.log();
    // Besides these two there may be some of those that were tried meanwhile.
    let drained: Vec<_> = lines.iter().filter(|line| line["failure"] == "drained").collect();
    assert!(drained.len() >= 2 && drained.iter().any(|line| line["bytes_out"] == 10), "{lines:?}");
}

#[test]
fn who_does_not_reach_the_one_server_that_has_a_place_waits_for_another() {
    let _turn = among_others();
    let (address, arrivals) = raw::accepting();
    let (port, dead) = (Port::free(), Port::free());
    let config = format!(
        "[listen.raw]\naddress = [\"{}\"]\nprotocol = \"tcp\"\npool = \"raw\"\n\n\
         [pool.raw]\nscheduler = \"first\"\nqueue = {{ limit = 5, timeout = \"20s\" }}\nservers = [\n\
         {{ name = \"dead\", address = \"{}\", max-connections = 1 }},\n\
         {{ name = \"full\", address = \"{address}\", max-connections = 1 }}]\n",
        port.address(),
        dead.address()
    );
    let reeve = Reeve::start("raw-refused", &config, "http *\n  all : any  deny\n");
    let say = |text: &[u8]| {
        let mut client = connect(&port);
        client.write_all(text).expect("sent");
        client
    };
    let waiting = |count: f64| {
        until("those that wait", || (reeve.metric("reeve_queue{pool=\"raw\"}") == Some(count)).then_some(()));
    };
    let arrived = || {
        let mut server = arrivals.recv_timeout(Duration::from_secs(10)).expect("a connection to the server");
        let text = raw::exactly(&mut server, 1);
        (server, text)
    };
    let first = say(b"1");
    let (server, text) = arrived();
    assert_eq!(text, b"1");
    // In vain at the first server, which always has a place; those behind find nothing there either.
    let mut second = say(b"2");
    waiting(1.0);
    let third = say(b"3");
    waiting(2.0);
    drop((first, server));
    let (mut server, text) = arrived();
    assert_eq!(text, b"2");
    server.write_all(b"y").expect("sent");
    assert_eq!(raw::exactly(&mut second, 1), b"y", "a connection like any other");
    waiting(1.0);
    // Who leaves while it waits is not connected any more.
    drop(third);
    waiting(0.0);
    drop((second, server));
    let mut log = until("the end of all", || Some(reeve.log()).filter(|log| log.len() == 3));
    let retries = reeve.metric("reeve_retries_total{pool=\"raw\",reason=\"connect\"}");
    assert_eq!(retries, Some(2.0), "each that has come to another server");
    let mut waited = Vec::new();
    log.retain(|line| line["failure"].is_null());
    log.iter().for_each(|line| waited.push(line["t_queue"].as_f64() > Some(0.0)));
    // Lines of two workers come in any order.
    waited.sort_unstable();
    assert_eq!((waited, arrivals.try_recv().is_err()), (vec![false, true], true), "{log:?}");
}
