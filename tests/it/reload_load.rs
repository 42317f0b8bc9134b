//! Reloads under load: clients of every kind, and what lasts longer than any reload, with nothing dropped.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::farm::h2::Session;
use crate::farm::origin::{is_pattern, pattern};
use crate::farm::peer::{program, python_with_packages, test_file};
use crate::farm::ports::Port;
use crate::farm::process::{Process, listens};
use crate::farm::reeve::{Site, pool};
use crate::farm::{Authority, Client, Origin, Reeve, among_others, skip, until};
use crate::reload::{echo, upgrade};

/// Reloads in the gate, and in its long form (`./check --long`).
const ROUNDS: usize = 20;
const LONG: usize = 100;

pub const GIB: u64 = 1 << 30;

/// What is counted over all clients.
#[derive(Default)]
pub struct Seen {
    pub over: AtomicBool,
    pub requests: AtomicUsize,
    pub faults: std::sync::Mutex<Vec<String>>,
}

impl Seen {
    pub fn goes_on(&self) -> bool {
        !self.over.load(Ordering::Relaxed)
    }

    pub fn take(&self, what: &str, result: Result<u16, String>) {
        match result {
            Ok(200) => drop(self.requests.fetch_add(1, Ordering::Relaxed)),
            Ok(status) => self.fault(format!("{what}: {status}")),
            Err(error) => self.fault(format!("{what}: {error}")),
        }
    }

    pub fn fault(&self, fault: String) {
        self.faults.lock().expect("the faults").push(fault);
    }
}

/// The texts of one round: even and odd ones differ in nearly everything but what the clients use.
struct Texts<'t> {
    fixed: &'t str,
    origins: &'t [Origin],
    extra: &'t Port,
}

impl Texts<'_> {
    fn of(&self, round: usize) -> (String, String) {
        let addresses = || self.origins.iter().map(Origin::address);
        let odd = round % 2 == 1;
        let mut servers: Vec<(&str, String)> = ["one", "two"].into_iter().zip(addresses()).collect();
        if odd {
            servers.push(("three", self.origins[2].address()));
        }
        let mut config = pool("web", if odd { "lc" } else { "rr" }, &servers) + self.fixed;
        let mut rules = String::from("http *\n  grpc : path /reeve.Echo/**  use grpc\n");
        for number in 0..50 + 10 * (round % 7) {
            rules += &format!("  r{number} : path /never/{number}/**  use web\n");
        }
        rules += "  all : any  use web\ntcp\n  sealed : sni *.example  use sealed\n  raw : listener raw  use web\n";
        if odd {
            config += &pool("other", "wlc", &[("x", self.origins[3].address())]);
            config += &format!("check = {{ http = \"/\", interval = \"{}ms\" }}\n", 200 + round);
            config += &format!("\n[listen.extra]\naddress = \"{}\"\npool = \"other\"\n", self.extra.address());
            config += "\n[timeouts]\nconnect = \"2s\"\n";
        }
        (config, rules)
    }
}

#[test]
fn nothing_is_dropped_by_reloads_under_load() {
    let _turn = among_others();
    let rounds = if std::env::var_os("CHECK_LONG").is_some() { LONG } else { ROUNDS };
    let origins: Vec<Origin> = ["one", "two", "three", "other"].into_iter().map(Origin::start).collect();
    let (secure, sealed, raw, extra, grpc) = (Port::free(), Port::free(), Port::free(), Port::free(), Port::free());
    // What is sealed goes to our own listener by TLS: so a tunnel and a session both have to last.
    let fixed = format!(
        "{}protocol = \"h2c\"\n{}\n\
         [listen.secure]\naddress = \"{}\"\nrules = [\"rules/site.rules\"]\ntls = {{ certificates = \"certs\" }}\n\n\
         [listen.sealed]\naddress = \"{}\"\nprotocol = \"tls-passthrough\"\nrules = [\"rules/site.rules\"]\n\n\
         [listen.raw]\naddress = \"{}\"\nprotocol = \"tcp\"\npool = \"web\"\n\n[state]\npath = \"state\"\n\n",
        pool("grpc", "rr", &[("one", grpc.address())]),
        pool("sealed", "rr", &[("own", secure.address())]),
        secure.address(),
        sealed.address(),
        raw.address(),
    );
    let texts = Texts { fixed: &fixed, origins: &origins, extra: &extra };
    let (config, rules) = texts.of(0);
    let site = Site::write("load", &config, &rules);
    let authority = Authority::new("the test's own");
    authority.issue("t.example", &["t.example"]).write(&site.folder, "certs/site");
    let reeve = Reeve::run(site);
    let tls = Arc::new(authority.client());
    let grpc_peers = grpc_peers(&grpc, &reeve);
    let mut h2load = program("h2load").map(|mut h2load| {
        // Much more than it gets to: it is over when the reloads are.
        let seconds = (rounds / 4).max(4).to_string();
        Process::start(h2load.args(["-c", "6", "-m", "10", "-D", &seconds]).arg(reeve.url("/sized/2000")))
    });

    let seen = Seen::default();
    let (address, started) = (reeve.address(), Instant::now());
    let outcome = thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| keep_alive(&seen, &address));
        }
        scope.spawn(|| by_turns(&seen, &address));
        scope.spawn(|| streams(&seen, &address));
        let download = scope.spawn(|| download(&seen, &address, Duration::from_millis(10)));
        let upload = scope.spawn(|| upload(&seen, &address));
        scope.spawn(|| websocket(&seen, &address));
        scope.spawn(|| {
            let mut client =
                Client::secure(&sealed.address(), "t.example", &tls).expect("a session through the tunnel");
            while seen.goes_on() {
                let answer = client.request("GET", "/sized/3000", &[]);
                seen.take("sealed", answer.map(|it| it.status).map_err(|error| error.to_string()));
                thread::park_timeout(Duration::from_millis(5));
            }
        });
        scope.spawn(|| {
            let mut client = Client::connect(&raw.address());
            while seen.goes_on() {
                let answer = client.request("GET", "/sized/3000", &[]);
                seen.take("raw", answer.map(|it| it.status).map_err(|error| error.to_string()));
                thread::park_timeout(Duration::from_millis(5));
            }
        });
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| rounds_of(&reeve, &texts, rounds)));
        seen.over.store(true, Ordering::Relaxed);
        (result, download.join().expect("the download"), upload.join().expect("the upload"))
    });
    let (result, (bytes, whole), uploaded) = outcome;
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
    let took = started.elapsed();
    let faults = seen.faults.lock().expect("the faults");
    assert!(faults.is_empty(), "{} of {}: {:#?}", faults.len(), seen.requests.load(Ordering::Relaxed), &faults[..]);
    assert_eq!((bytes, whole), (GIB, true), "the download is whole");
    assert!(uploaded, "the upload is whole");
    if let Some((server, client, end)) = grpc_peers {
        std::fs::write(end, "").expect("the end");
        let mut client = client;
        let code = client.exit(Duration::from_secs(60)).code();
        assert_eq!(code, Some(0), "{}{}", client.stdout(), client.stderr());
        eprintln!("gRPC: {}", client.stdout().trim());
        drop(server);
    }
    if let Some(h2load) = &mut h2load {
        h2load.exit(Duration::from_secs(120));
        let said = h2load.stdout();
        let line = said.lines().find(|line| line.starts_with("requests:")).unwrap_or_default();
        assert!(line.contains(" 0 failed, 0 errored, 0 timeout"), "{said}");
        eprintln!("h2load: {line}");
    }
    // Few connections to servers were made: each reload left the idle ones alone.
    let requests = seen.requests.load(Ordering::Relaxed);
    let made: usize = origins[..2].iter().map(Origin::made).sum();
    eprintln!("{rounds} reloads in {took:?}: {requests} requests, none failed; {made} connections to two servers");
    assert!(made < 200, "{made} connections for {requests} requests");
    // What was counted before the first reload is counted still.
    let hits = until("what the rule counted", || reeve.metric("reeve_rule_hits_total{rule=\"site.rules:all\"}"));
    assert!(hits >= requests as f64 * 0.9, "{hits} of {requests}");
}

fn rounds_of(reeve: &Reeve, texts: &Texts<'_>, rounds: usize) {
    for round in 1..=rounds {
        if round % 5 == 0 {
            let (config, rules) = texts.of(round);
            reeve.site.rewrite(&config, &rules.replace("use web", "use wep"));
            assert_eq!(reeve.order(&["reload"]).0, 2, "a bad file is refused");
        }
        let (config, rules) = texts.of(round);
        reeve.reload(&config, &rules);
        if round % 2 == 1 {
            assert_eq!(crate::farm::get(&texts.extra.address(), "/", &[]).status, 200);
        } else {
            assert!(TcpStream::connect(texts.extra.address()).is_err());
        }
    }
}

/// The server and the client of gRPC, and the file that ends the client; without Python none.
pub fn grpc_peers(port: &Port, reeve: &Reeve) -> Option<(Process, Process, std::path::PathBuf)> {
    let (Some(mut server), Some(mut client)) = (python_with_packages(), python_with_packages()) else {
        skip("no Python of ours; ./check makes one");
        return None;
    };
    let mut server =
        Process::start(server.arg(test_file("it/grpc_test.py")).arg("server").arg(port.number.to_string()));
    listens(&mut server, &port.address());
    let end = reeve.site.folder.path().join("end-of-grpc");
    let client = client.arg(test_file("it/grpc_soak.py")).arg(reeve.address()).arg(&end);
    Some((server, Process::start(client), end))
}

/// One request after the other on one connection.
fn keep_alive(seen: &Seen, address: &str) {
    let mut client = Client::connect(address);
    let mut number = 0;
    while seen.goes_on() {
        number += 1;
        let answer = client.request("GET", &format!("/sized/{}", number % 5000), &[]);
        if answer.as_ref().is_ok_and(|answer| answer.field("connection") == Some("close")) {
            seen.fault("a connection was closed that nothing was wrong with".to_owned());
        }
        seen.take("HTTP/1.1", answer.map(|answer| answer.status).map_err(|error| error.to_string()));
    }
}

/// A connection for each request.
pub fn by_turns(seen: &Seen, address: &str) {
    while seen.goes_on() {
        let answer = Client::try_connect(address).and_then(|mut client| client.request("GET", "/sized/10", &[]));
        seen.take("a new connection", answer.map(|answer| answer.status).map_err(|error| error.to_string()));
        thread::park_timeout(Duration::from_millis(2));
    }
}

/// One connection of HTTP/2, ten streams at once.
fn streams(seen: &Seen, address: &str) {
    let session = Session::connect(address);
    while seen.goes_on() {
        let request = || http::Request::get("http://t.example/sized/1000").body(()).expect("a request");
        for reply in session.all((0..10).map(|_| (request(), None)).collect()) {
            seen.take("HTTP/2", reply.map(|reply| reply.status).map_err(|error| error.to_string()));
        }
    }
}

/// A GiB, with pauses while there are reloads and then at once; how much came, and whether it is right.
pub fn download(seen: &Seen, address: &str, pause: Duration) -> (u64, bool) {
    let mut client = Client::connect(address);
    client.send(format!("GET /sized/{GIB} HTTP/1.1\r\nHost: a\r\n\r\n")).expect("sent");
    assert_eq!(client.head().expect("a head").status, 200);
    let (mut bytes, mut got, mut good) = (vec![0; 256 << 10], 0, true);
    while got < GIB {
        match client.read(&mut bytes) {
            Ok(count) if count > 0 => {
                good &= is_pattern(got, &bytes[..count]);
                got += count as u64;
            }
            _ => break,
        }
        if seen.goes_on() {
            thread::park_timeout(pause);
        }
    }
    (got, good)
}

/// A body that ends with the reloads.
pub fn upload(seen: &Seen, address: &str) -> bool {
    let mut client = Client::connect(address);
    client.send("POST /measure HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").expect("sent");
    let mut sent = 0;
    while seen.goes_on() {
        let piece = pattern(sent);
        let piece = &piece[..piece.len().min(20_000)];
        client.send([format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat()).expect("sent");
        sent += piece.len() as u64;
        thread::park_timeout(Duration::from_millis(3));
    }
    client.send("0\r\n\r\n").expect("sent");
    client.answer("POST").expect("an answer").text() == format!("{sent} as sent")
}

pub fn websocket(seen: &Seen, address: &str) {
    let mut client = Client::connect(address);
    upgrade(&mut client);
    while seen.goes_on() {
        echo(&mut client);
        thread::park_timeout(Duration::from_millis(10));
    }
}
