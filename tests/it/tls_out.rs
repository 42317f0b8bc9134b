//! Servers that are spoken to by TLS: nginx, good and bad, and origins that break the rules.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::farm::nginx::Nginx;
use crate::farm::origin::is_pattern;
use crate::farm::reeve::Site;
use crate::farm::{Authority, Client, Issued, Reeve, among_others, get, until};

/// `[pool.NAME]` of one server, with `tls` and what else is said.
fn pool(name: &str, address: &str, tls: &str, more: &str) -> String {
    format!("[pool.{name}]\nservers = [\"{address}\"]\ntls = {{ {tls} }}\n{more}\n")
}

/// One rule for each pool: its name is the first segment of the path.
fn rules(pools: &[&str]) -> String {
    let lines = pools.iter().map(|pool| format!("  {pool} : path /{pool}/**  use {pool}\n"));
    format!("http *\n{}", lines.collect::<String>())
}

#[test]
fn servers_prove_who_they_are() {
    let _turn = among_others();
    let (ours, strange) = (Authority::new("ours"), Authority::new("strange"));
    let right = ours.issue("origin", &["127.0.0.1", "localhost"]);
    let named = ours.issue("origin", &["origin.example"]);
    let expired = ours.expired("origin", &["127.0.0.1"]);
    let foreign = strange.issue("origin", &["127.0.0.1"]);
    let site = Site::write("upstream", "", "");
    site.folder.write("ca.pem", ours.pem());
    site.folder.write("strange.pem", strange.pem());
    let demanding = format!("ssl_client_certificate {}/ca.pem; ssl_verify_client on;", site.folder.path().display());
    let Some(nginx) = Nginx::start(
        &site.folder,
        &[
            ("right", &right, ""),
            ("named", &named, "keepalive_timeout 0;"),
            ("expired", &expired, ""),
            ("foreign", &foreign, ""),
            ("demanding", &right, &demanding),
            ("old", &right, "ssl_protocols TLSv1.2;"),
        ],
    ) else {
        return;
    };
    ours.issue("reeve", &["reeve.example"]).write(&site.folder, "own");
    let at = |n: usize| nginx.ports[n].address();
    let ca = "ca = \"ca.pem\"";
    let own = "certificate = \"own.pem\", key = \"own.key\"";
    let fast = "check = { http = \"/health\", expect-status = \"200\", interval = \"50ms\", timeout = \"5s\" }\n";
    let pools = [
        ("right", at(0), ca.to_owned(), ""),
        ("wrongname", at(0), format!("{ca}, server-name = \"origin.example\""), ""),
        ("named", at(1), format!("{ca}, server-name = \"origin.example\""), ""),
        ("byaddress", at(1), ca.to_owned(), ""),
        ("expired", at(2), ca.to_owned(), ""),
        ("foreign", at(3), ca.to_owned(), ""),
        ("system", at(0), String::new(), ""),
        ("whoever", at(2), "verify = false".to_owned(), ""),
        ("nameless", at(4), ca.to_owned(), ""),
        ("known", at(4), format!("{ca}, {own}"), ""),
        ("old", at(5), ca.to_owned(), ""),
        ("newest", at(5), format!("{ca}, minimum = \"1.3\""), ""),
        ("checked", at(0), ca.to_owned(), fast),
        ("checkedbad", at(3), ca.to_owned(), fast),
    ];
    let config: String = pools.iter().map(|(name, address, tls, more)| pool(name, address, tls, more)).collect();
    let names: Vec<&str> = pools.iter().map(|(name, ..)| *name).collect();
    let site = site.rewritten(&config, &rules(&names));
    let reeve = Reeve::run(site);
    let ask = |path: &str| get(&reeve.address(), path, &[]);

    for (pool, status, said) in [
        ("right", 200, "right TLSv1.3 sni="),
        ("wrongname", 502, ""),
        ("named", 200, "named TLSv1.3 sni=origin.example reused=."),
        ("byaddress", 502, ""),
        ("expired", 502, ""),
        ("foreign", 502, ""),
        ("system", 502, ""),
        ("whoever", 200, "expired TLSv1.3"),
        ("nameless", 400, "No required SSL certificate was sent"),
        ("known", 200, "client=CN=reeve"),
        ("old", 200, "old TLSv1.2"),
        ("newest", 502, ""),
    ] {
        let answer = ask(&format!("/{pool}/x"));
        assert!(
            answer.status == status && answer.text().contains(said),
            "{pool}: {} {:?}",
            answer.status,
            answer.text()
        );
    }
    let page = get(&reeve.site.metrics(), "/metrics", &[]).text();
    for pool in ["wrongname", "byaddress", "expired", "foreign", "system", "newest"] {
        let line = page.lines().find(|line| {
            line.starts_with("reeve_upstream_connects_total")
                && line.contains(&format!("pool=\"{pool}\""))
                && line.contains("\"tls\"")
        });
        assert!(line.is_some_and(|line| line.ends_with(" 1")), "{pool}: {line:?}");
    }
    let failed =
        until("the log of a refused server", || reeve.log().into_iter().find(|line| line["pool"] == "expired"));
    assert_eq!((&failed["failure"], &failed["side"]), (&"connect".into(), &"server".into()));

    // A connection is used again, and a new one takes up the session of the one before.
    let mut client = Client::connect(&reeve.address());
    let mut text = |path: &str| client.request("GET", path, &[]).expect("an answer").text();
    text("/right/a");
    let again = text("/right/b");
    assert!(!again.contains("requests=1 "), "{again}");
    text("/named/a");
    let again = text("/named/b");
    assert!(again.contains("reused=r requests=1"), "{again}");

    // Checks ask as requests do.
    let serve = |pool: &str| ask(&format!("/{pool}/x")).status;
    until("the bad server is down", || (serve("checkedbad") == 503).then_some(()));
    assert_eq!(serve("checked"), 200);
    let servers = crate::farm::process::run(
        crate::farm::reeve::command().args(["servers", "--socket", &reeve.site.socket()]),
        Duration::from_secs(20),
    );
    assert!(servers.1.contains("UnknownIssuer") || servers.1.contains("invalid peer certificate"), "{}", servers.1);
}

#[test]
fn bodies_come_whole_from_tls_servers() {
    let _turn = among_others();
    let ours = Authority::new("ours");
    let site = Site::write("upstream-bodies", "", "");
    site.folder.write("ca.pem", ours.pem());
    let Some(nginx) = Nginx::start(&site.folder, &[("right", &ours.issue("origin", &["127.0.0.1"]), "")]) else {
        return;
    };
    let mut bytes = Vec::new();
    crate::farm::origin::send_pattern(&mut bytes, 0, 30_000_001).expect("memory");
    site.folder.write("large", &bytes);
    let config = pool("files", &nginx.ports[0].address(), "ca = \"ca.pem\"", "");
    let reeve = Reeve::run(site.rewritten(&config, &rules(&["files"])));
    let mut client = Client::connect(&reeve.address());
    for _ in 0..2 {
        let answer = client.request("GET", "/files/large", &[]).expect("an answer");
        assert!(answer.body.len() == bytes.len() && is_pattern(0, &answer.body));
    }
    let part = client.request("GET", "/files/large", &[("Range", "bytes=1000000-1299999")]).expect("an answer");
    assert!(part.status == 206 && part.body.len() == 300_000 && is_pattern(1_000_000, &part.body));
}

/// An origin of a few lines; `serve` has each connection.
fn origin(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port for an origin");
    let address = listener.local_addr().expect("its address");
    let serve = Arc::new(serve);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = Arc::clone(&serve);
            Client::prepare(&stream).expect("deadlines");
            std::thread::spawn(move || serve(stream));
        }
    });
    address
}

fn server(issued: &Issued) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.expect("versions").with_no_client_auth();
    Arc::new(builder.with_single_cert(vec![issued.der()], issued.key_der()).expect("a server"))
}

const EVIL: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";

#[test]
fn nothing_said_before_the_end_of_a_handshake_is_an_answer() {
    let _turn = among_others();
    let ours = Authority::new("ours");
    let own = server(&ours.issue("origin", &["127.0.0.1"]));
    let heard = Arc::new(AtomicUsize::new(0));
    let at_once = origin(|mut stream| {
        let _ = stream.write_all(EVIL);
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let counted = Arc::clone(&heard);
    let after_hello = origin(move |mut stream| {
        let mut hello = [0; 4096];
        let count = stream.read(&mut hello).unwrap_or_default();
        counted.fetch_add(usize::from(count > 0 && hello[0] == 0x16), Ordering::SeqCst);
        let _ = stream.write_all(EVIL);
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let within = origin(move |mut stream| {
        let mut session = ServerConnection::new(own.clone()).expect("a session");
        if session.read_tls(&mut stream).is_err() || session.process_new_packets().is_err() {
            return;
        }
        let mut flight = Vec::new();
        while session.wants_write() {
            session.write_tls(&mut flight).expect("memory");
        }
        // Its own side of the handshake, and then an answer in clear.
        flight.extend_from_slice(EVIL);
        let _ = stream.write_all(&flight);
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let pools = ["atonce", "afterhello", "within"];
    let addresses = [at_once, after_hello, within];
    let config: String = pools
        .iter()
        .zip(addresses)
        .map(|(name, address)| pool(name, &address.to_string(), "ca = \"ca.pem\"", "retry = { attempts = 0 }"))
        .collect();
    let site = Site::write("inject", &config, &rules(&pools));
    site.folder.write("ca.pem", ours.pem());
    let reeve = Reeve::run(site);
    for pool in pools {
        let answer = get(&reeve.address(), &format!("/{pool}/"), &[]);
        assert!(answer.status == 502 && !answer.text().contains("evil"), "{pool}: {}", answer.text());
    }
    assert_eq!(heard.load(Ordering::SeqCst), 1);
    let page = get(&reeve.site.metrics(), "/metrics", &[]).text();
    for pool in &pools[..2] {
        let words = [format!("pool=\"{pool}\""), "result=\"tls\"".to_owned()];
        let line = page.lines().find(|line| words.iter().all(|word| line.contains(word)));
        assert!(line.is_some_and(|line| line.ends_with(" 1")), "{pool}: {line:?}");
    }
}

#[test]
fn a_body_that_ends_with_its_connection_has_to_end_in_order() {
    let _turn = among_others();
    let ours = Authority::new("ours");
    let own = server(&ours.issue("origin", &["127.0.0.1"]));
    let address = origin(move |stream| {
        let session = ServerConnection::new(own.clone()).expect("a session");
        let mut stream = StreamOwned::new(session, stream);
        let mut head = [0; 4096];
        let Ok(count) = stream.read(&mut head) else { return };
        let cut = head[..count].starts_with(b"GET /files/cut");
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhalf");
        if !cut {
            stream.conn.send_close_notify();
        }
        let _ = stream.flush();
        // Without a close_notify anybody in between could have made this end.
        let _ = stream.sock.shutdown(std::net::Shutdown::Write);
        let _ = stream.sock.read_to_end(&mut Vec::new());
    });
    let site = Site::write("cut", &pool("files", &address.to_string(), "ca = \"ca.pem\"", ""), &rules(&["files"]));
    site.folder.write("ca.pem", ours.pem());
    let reeve = Reeve::run(site);
    let ask = |path: &str| Client::connect(&reeve.address()).request("GET", path, &[]);
    assert_eq!(ask("/files/whole").expect("all of it").text(), "half");
    let error = ask("/files/cut").expect_err("it was cut");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    let line = until("its line in the log", || reeve.log().into_iter().find(|line| line["path"] == "/files/cut"));
    assert_eq!((&line["failure"], &line["side"]), (&"response-cut".into(), &"server".into()));
}

/// What an origin does with an upload.
#[derive(Clone, Copy)]
enum Midway {
    /// Says why it wants no more, ends its side, and reads on until the other one has gone.
    Refuse,
    /// Closes without a word, which resets the connection.
    Close,
}

/// Answers each GET; of any other request it reads the head and 100,000 bytes. Counts what it was asked.
fn uploads(issued: &Issued, midway: Midway, asked: Arc<AtomicUsize>) -> SocketAddr {
    let own = server(issued);
    origin(move |stream| {
        let session = ServerConnection::new(own.clone()).expect("a session");
        let mut stream = StreamOwned::new(session, stream);
        let mut input = Vec::new();
        let mut bytes = [0; 16 << 10];
        loop {
            let head = input.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4);
            let wanted = head.map_or(usize::MAX, |end| end + if input.starts_with(b"GET") { 0 } else { 100_000 });
            if input.len() < wanted {
                let Ok(count @ 1..) = stream.read(&mut bytes) else { return };
                input.extend_from_slice(&bytes[..count]);
                continue;
            }
            asked.fetch_add(1, Ordering::SeqCst);
            if input.starts_with(b"GET") {
                input.drain(..wanted);
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").expect("an answer");
                stream.flush().expect("an answer");
                continue;
            }
            if let Midway::Refuse = midway {
                let _ = stream.write_all(
                    b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 8\r\nConnection: close\r\n\r\ntoo much",
                );
                stream.conn.send_close_notify();
                let _ = stream.flush();
                let _ = stream.sock.shutdown(std::net::Shutdown::Write);
                while stream.sock.read(&mut bytes).is_ok_and(|count| count > 0) {}
            }
            return;
        }
    })
}

/// A server that wants no more of an upload: its word reaches the client, or 502, and nobody is asked again.
#[test]
fn uploads_that_the_server_ends() {
    let _turn = among_others();
    let ours = Authority::new("ours");
    let issued = ours.issue("origin", &["127.0.0.1"]);
    let cases = [("refuses", Midway::Refuse, 413), ("closes", Midway::Close, 502)];
    let counts = [(); 2].map(|()| Arc::new(AtomicUsize::new(0)));
    let mut config = String::new();
    for ((name, midway, _), count) in cases.iter().zip(&counts) {
        let address = uploads(&issued, *midway, count.clone());
        config += &pool(name, &address.to_string(), "ca = \"ca.pem\"", "retry = { attempts = 3 }");
    }
    let site = Site::write("uploads", &config, &rules(&["refuses", "closes"]));
    site.folder.write("ca.pem", ours.pem());
    let reeve = Reeve::run(site);
    for ((name, _, status), count) in cases.iter().zip(&counts) {
        // On a connection that is new, and on one that the request before it has left.
        for (method, kept) in [("POST", false), ("PUT", true), ("POST", true)] {
            let target = format!("/{name}/{method}-{kept}");
            if kept {
                assert_eq!(get(&reeve.address(), &target, &[]).text(), "ok");
            }
            let asked = count.load(Ordering::SeqCst);
            let mut client = Client::connect(&reeve.address());
            let size = 8 << 20;
            client
                .send(format!("{method} {target} HTTP/1.1\r\nHost: t.example\r\nContent-Length: {size}\r\n\r\n"))
                .expect("the head");
            // As far as it is taken.
            let piece = [b'x'; 64 << 10];
            let _ = (0..size / piece.len()).try_for_each(|_| client.send(piece));
            let answer = client.answer(method).unwrap_or_else(|error| panic!("{target}: {error}"));
            assert_eq!(answer.status, *status, "{target}: {}", answer.text());
            if *status == 413 {
                assert_eq!(answer.text(), "too much", "{target}");
            }
            let line = until("its line in the log", || {
                reeve.log().into_iter().find(|line| line["path"] == target && line["method"] == method)
            });
            assert_eq!((&line["status"], &line["tries"]), (&(*status).into(), &1.into()), "{line}");
            assert_eq!(count.load(Ordering::SeqCst), asked + 1, "{target}: it was asked once");
        }
    }
}
