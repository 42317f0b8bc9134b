//! Upgrades under load: clients of every kind, and what lasts longer than any process, with nothing dropped and
//! nothing forgotten.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use crate::farm::h2::Session;
use crate::farm::ports::Port;
use crate::farm::process::alive;
use crate::farm::reeve::{Site, pool};
use crate::farm::{Authority, Client, Origin, among_others, get, until};
use crate::reload::{echo, upgrade};
use crate::reload_load::{GIB, Seen, by_turns, download, grpc_peers, upload, websocket};
use crate::upgrade::Service;

/// Upgrades in the gate, and in its long form (`./check --long`).
const ROUNDS: usize = 10;
const LONG: usize = 100;

#[test]
fn nothing_is_dropped_or_forgotten_by_upgrades_under_load() {
    let _turn = among_others();
    let rounds = if std::env::var_os("CHECK_LONG").is_some() { LONG } else { ROUNDS };
    let (one, two) = (Origin::start("one"), Origin::start("two"));
    let (secure, sealed, raw, grpc, down) = (Port::free(), Port::free(), Port::free(), Port::free(), Port::free());
    let config = format!(
        "{}{}protocol = \"h2c\"\n{}{}{}check = {{ tcp = true, interval = \"200ms\", fall = 1 }}\n\
         [listen.secure]\naddress = \"{}\"\nrules = [\"rules/site.rules\"]\ntls = {{ certificates = \"certs\" }}\n\
         [listen.sealed]\naddress = \"{}\"\nprotocol = \"tls-passthrough\"\npool = \"sealed\"\n\
         [listen.raw]\naddress = \"{}\"\nprotocol = \"tcp\"\npool = \"raw\"\n[state]\npath = \"state\"\n\
         [timeouts]\ndrain = \"30m\"\n",
        pool("web", "rr", &[("one", one.address()), ("two", two.address())]),
        pool("grpc", "rr", &[("one", grpc.address())]),
        pool("sealed", "rr", &[("own", secure.address())]),
        pool("raw", "rr", &[("one", one.address())]),
        pool("sick", "rr", &[("gone", down.address())]),
        secure.address(),
        sealed.address(),
        raw.address(),
    );
    let site =
        Site::write("upgrades", &config, "http *\n  grpc : path /reeve.Echo/**  use grpc\n  all : any  use web\n");
    let authority = Authority::new("the test's own");
    authority.issue("t.example", &["t.example"]).write(&site.folder, "certs/site");
    let service = Service::start(site);
    let reeve = &service.reeve;
    let (address, tls) = (reeve.address(), Arc::new(authority.client()));
    assert_eq!(reeve.order(&["drain", "web/two"]).0, 0);
    let sick = "reeve_server_up{pool=\"sick\",server=\"gone\"}";
    until("the one that is gone is down", || (reeve.metric(sick) == Some(0.0)).then_some(()));
    let grpc_peers = grpc_peers(&grpc, reeve);

    // Those whose requests the listener `web` sends to the pool `web`, and all others.
    let (seen, other) = (Seen::default(), Seen::default());
    let began = Instant::now();
    let pause = Duration::from_millis(if rounds > ROUNDS { 100 } else { 15 });
    let outcome = thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| keep_alive(&seen, &address));
        }
        scope.spawn(|| by_turns(&seen, &address));
        scope.spawn(|| streams(&seen, &address));
        let download = scope.spawn(|| download(&seen, &address, pause));
        let upload = scope.spawn(|| upload(&seen, &address));
        scope.spawn(|| websocket(&seen, &address));
        scope.spawn(|| {
            let mut client =
                Client::secure(&sealed.address(), "t.example", &tls).expect("a session through the tunnel");
            upgrade(&mut client);
            while other.goes_on() {
                echo(&mut client);
                thread::park_timeout(Duration::from_millis(10));
            }
        });
        scope.spawn(|| {
            let mut client = Client::connect(&raw.address());
            while other.goes_on() {
                let answer = client.request("GET", "/sized/3000", &[]);
                other.take("raw", answer.map(|it| it.status).map_err(|error| error.to_string()));
                thread::park_timeout(Duration::from_millis(5));
            }
        });
        let pages = scope.spawn(|| watch_pages(&other, &reeve.site.metrics()));
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut most = 0;
            for _ in 0..rounds {
                let before = service.pid();
                let upgraded = service.upgrade();
                assert_eq!(upgraded["pid_before"].as_u64(), Some(before.into()));
                assert_ne!(service.pid(), before);
                most = most.max(service.status()["upgrades"]["old"].as_array().map_or(0, Vec::len));
            }
            most
        }));
        let took = began.elapsed();
        seen.over.store(true, Ordering::Relaxed);
        other.over.store(true, Ordering::Relaxed);
        let most = done.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let (download, upload) = (download.join().expect("the download"), upload.join().expect("the upload"));
        (took, most, download, upload, pages.join().expect("the pages"))
    });
    let (took, most, (bytes, whole), uploaded, pages) = outcome;
    let requests = seen.requests.load(Ordering::Relaxed);
    for seen in [&seen, &other] {
        let faults = seen.faults.lock().expect("the faults");
        let all = seen.requests.load(Ordering::Relaxed);
        assert!(faults.is_empty(), "{} of {all}: {:#?}", faults.len(), &faults[..faults.len().min(10)]);
    }
    assert_eq!((bytes, whole), (GIB, true), "the download is whole");
    assert!(uploaded, "the upload is whole");
    if let Some((server, mut client, end)) = grpc_peers {
        std::fs::write(end, "").expect("the end");
        let code = client.exit(Duration::from_secs(60)).code();
        assert_eq!(code, Some(0), "{}{}", client.stdout(), client.stderr());
        eprintln!("gRPC: {}", client.stdout().trim());
        drop(server);
    }
    assert_eq!(two.requests(), 0, "what is drained stays so");
    // With the last words of the last old process all is counted: the download, the upload and the WebSocket too.
    until("the old ones end", || {
        service.status()["upgrades"]["old"].as_array().is_some_and(Vec::is_empty).then_some(())
    });
    let start = "reeve_requests_total{listener=\"web\",pool=\"web\"";
    let counted = || -> f64 {
        let page = get(&reeve.site.metrics(), "/metrics", &[]).text();
        let lines = page.lines().filter(|line| line.starts_with(start));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    };
    until("every request is counted once", || {
        let counted = counted();
        (counted == requests as f64 + 3.0).then_some(()).or_else(|| {
            assert!(counted <= requests as f64 + 3.0, "{counted} of {requests} + 3");
            None
        })
    });
    assert_eq!(reeve.metric("reeve_upgrades_total{result=\"ok\"}"), Some(rounds as f64));
    assert!(alive(service.pid()));
    eprintln!(
        "{rounds} upgrades in {took:?}: {requests} requests, none failed, all counted; {most} old processes at most; \
         {pages} pages of metrics, none went back"
    );
}

/// One request after the other, on a connection as long as it is not said to be the last.
fn keep_alive(seen: &Seen, address: &str) {
    let mut client = Client::connect(address);
    let mut number = 0;
    while seen.goes_on() {
        number += 1;
        let answer = client.request("GET", &format!("/sized/{}", number % 5000), &[]);
        let last = answer.as_ref().is_ok_and(|answer| answer.field("connection") == Some("close"));
        seen.take("HTTP/1.1", answer.map(|answer| answer.status).map_err(|error| error.to_string()));
        if last {
            client = Client::connect(address);
        }
        thread::park_timeout(Duration::from_millis(1));
    }
}

/// Ten streams at once, on a connection as long as it is not said to be the last (GOAWAY): what was not sent then
/// is sent on another.
fn streams(seen: &Seen, address: &str) {
    let mut session = Session::connect(address);
    while seen.goes_on() {
        let request = || http::Request::get("http://t.example/sized/1000").body(()).expect("a request");
        let mut last = false;
        for reply in session.all((0..10).map(|_| (request(), None)).collect()) {
            match reply {
                // RFC 9113 §6.8: an orderly end, and this stream never was.
                Err(error) if error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR) => last = true,
                reply => seen.take("HTTP/2", reply.map(|reply| reply.status).map_err(|error| error.to_string())),
            }
        }
        if last {
            session = Session::connect(address);
        }
    }
}

/// Pages within which a counter that went back has to be there again.
const AGAIN_WITHIN: u32 = 20;

/// Scrapes without a pause: whatever counts never goes back for long and never goes away, and what is known of servers
/// stays. How many pages there were.
fn watch_pages(seen: &Seen, address: &str) -> usize {
    let mut before: HashMap<String, f64> = HashMap::new();
    let mut pages = 0;
    // Counters that went back, by what they had been, and the pages within which they have to be there again: a page that
    // the old process began before it gave the service away may have what was counted in that moment.
    let mut back: HashMap<String, (f64, u32)> = HashMap::new();
    while seen.goes_on() {
        let page = get(address, "/metrics", &[]).text();
        pages += 1;
        let mut counts = HashMap::new();
        for (name, value) in page.lines().filter_map(|line| line.rsplit_once(' ')) {
            let of = name.split('{').next().unwrap_or_default();
            let counter = ["_total", "_count", "_sum", "_bucket"].iter().any(|end| of.ends_with(end));
            if counter && of.starts_with("reeve_") {
                counts.insert(name.to_owned(), value.parse::<f64>().expect("a number"));
            }
        }
        for (name, value) in before {
            if counts.get(&name).is_none_or(|now| *now < value) {
                back.entry(name).or_insert((value, AGAIN_WITHIN));
            }
        }
        back.retain(|name, (value, left)| {
            *left -= 1;
            let now = counts.get(name);
            if *left == 0 {
                seen.fault(format!("page {pages}: {name} was {value} and is {now:?}"));
            }
            *left > 0 && now.is_none_or(|now| now < value)
        });
        before = counts;
        for known in
            ["reeve_server_up{pool=\"sick\",server=\"gone\"} 0", "reeve_server_draining{pool=\"web\",server=\"two\"} 1"]
        {
            if !page.lines().any(|line| line == known) {
                seen.fault(format!("page {pages}: no {known}"));
            }
        }
        thread::park_timeout(Duration::from_millis(3));
    }
    pages
}
