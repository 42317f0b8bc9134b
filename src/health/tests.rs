//! Checks against real sockets on loopback.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use super::machine::Outcome;
use super::probe::{Target, probe};
use super::run;
use crate::model::check::{Check, Http, Probe};
use crate::model::fault::Place;
use crate::model::pool::{Address, Most, Pool, Retry, Scheduler, Server};
use crate::model::{Config, Timeouts};
use crate::state::{Farm, Health, LiveServer, NoServer};

/// An origin that answers every request with the same bytes, until it is told others.
struct Origin {
    address: SocketAddr,
    answer: Arc<Mutex<Vec<u8>>>,
    heard: Arc<Mutex<Vec<String>>>,
    task: AbortHandle,
}

impl Origin {
    async fn start(answer: impl Into<Vec<u8>>) -> Origin {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (answer, heard) = (Arc::new(Mutex::new(answer.into())), Arc::new(Mutex::new(Vec::new())));
        let serve = {
            let (answer, heard) = (Arc::clone(&answer), Arc::clone(&heard));
            async move {
                let mut connections = JoinSet::new();
                while let Ok((stream, _)) = listener.accept().await {
                    connections.spawn(serve(stream, Arc::clone(&answer), Arc::clone(&heard)));
                }
            }
        };
        Origin { address, answer, heard, task: tokio::spawn(serve).abort_handle() }
    }

    fn answer(&self, answer: &str) {
        *self.answer.lock().expect("no panic") = answer.into();
    }

    fn heard(&self) -> Vec<String> {
        self.heard.lock().expect("no panic").clone()
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An empty answer stands for a frozen process: it reads, and keeps the connection.
async fn serve(mut stream: TcpStream, answer: Arc<Mutex<Vec<u8>>>, heard: Arc<Mutex<Vec<String>>>) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read_buf(&mut request).await {
            Ok(1..) => {}
            _ => return,
        }
    }
    heard.lock().expect("no panic").push(String::from_utf8_lossy(&request).into_owned());
    let answer = answer.lock().expect("no panic").clone();
    if answer.is_empty() {
        let _ = stream.read_buf(&mut request).await;
    }
    let _ = stream.write_all(&answer).await;
    let _ = stream.shutdown().await;
}

const GOOD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n";
const BAD: &str = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";

pub(super) fn http_check(path: &str) -> Check {
    let probe = Probe::Http(Http { expect_status: vec![200..=299], ..Http::get(path.into()) });
    Check { interval: Duration::from_millis(10), timeout: Duration::from_secs(5), ..check(probe) }
}

fn check(probe: Probe) -> Check {
    Check::with(probe, Place::file("test"))
}

fn tcp_check() -> Check {
    Check { interval: Duration::from_millis(10), ..check(Probe::CONNECT) }
}

pub(super) fn config(servers: &[(&str, Address)], checks: Vec<Check>) -> Arc<Config> {
    let place = || Place::file("test");
    let server = |(name, address): &(&str, Address)| Server {
        name: (*name).into(),
        address: address.clone(),
        weight: 1,
        most: Most::default(),
        backup: false,
        place: place(),
    };
    let pool = Pool {
        name: "web".into(),
        scheduler: Scheduler::Wlc,
        servers: servers.iter().map(server).collect(),
        checks,
        retry: Retry::default(),
        most: Most::default(),
        queue: 0,
        timeouts: Timeouts::default(),
        send_proxy: None,
        tls: None,
        protocol: crate::model::pool::Protocol::Http1,
        affinity: None,
        place: place(),
    };
    Arc::new(Config { pools: vec![pool], ..Config::default() })
}

/// A farm of one server, watched until the guard goes.
struct Watch {
    farm: Arc<Farm>,
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl Watch {
    fn over(config: Arc<Config>) -> Watch {
        let farm = Farm::new(config, Vec::new());
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(run(Arc::clone(&farm), stopped));
        Watch { farm, stop, task }
    }

    fn one(address: SocketAddr, checks: Vec<Check>) -> Watch {
        Watch::over(config(&[("s1", Address::Ip(address))], checks))
    }

    fn server(&self, name: &str) -> Arc<LiveServer> {
        self.farm.server(&format!("web/{name}")).expect("configured")
    }

    async fn ended(self) {
        self.stop.send_replace(true);
        within(self.task).await.expect("no panic");
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("it happens in time")
}

pub(super) async fn until(holds: impl Fn() -> bool) {
    let mut look = tokio::time::interval(Duration::from_millis(2));
    within(async {
        while !holds() {
            look.tick().await;
        }
    })
    .await;
}

/// One probe.
async fn ask(check: Check, address: SocketAddr) -> Outcome {
    let target =
        Target { check, pool: "web".into(), server: "s1".into(), named: "origin.example:80".into(), sealed: None };
    within(probe(&target, address, &mut None)).await.expect("asked")
}

fn found(server: &LiveServer) -> Option<Health> {
    server.verdict().map(|standing| standing.health)
}

fn verdict(server: &LiveServer) -> (Option<Health>, String) {
    (found(server), server.standing().why)
}

#[tokio::test]
async fn an_http_check_takes_down_and_brings_back() {
    let origin = Origin::start(GOOD).await;
    let watch = Watch::one(origin.address, vec![http_check("/health")]);
    let server = watch.server("s1");
    assert_eq!(server.health(), Health::Up, "not known yet, which serves");
    until(|| found(&server) == Some(Health::Up)).await;
    assert_eq!(server.standing().why, "status 200");

    origin.answer(BAD);
    let before = origin.heard().len();
    until(|| server.health() == Health::Down).await;
    assert!(origin.heard().len() - before >= 3, "it takes three failures");
    assert_eq!(server.standing().why, "status 503, expected 200-299");
    let pool = Arc::clone(&watch.farm.snapshot().pools[0]);
    assert_eq!(pool.pick(None, &[]).err(), Some(NoServer::Down));

    origin.answer(GOOD);
    until(|| server.health() == Health::Up).await;
    assert!(pool.pick(None, &[]).is_ok());
    let report = server.last_probe().expect("probed");
    assert!(report.ok && report.detail == "status 200" && report.took > Duration::ZERO);
    watch.ended().await;
}

#[tokio::test]
async fn a_refused_connection_takes_an_unknown_server_down_at_once() {
    let closed = TcpListener::bind("127.0.0.1:0").await.and_then(|l| l.local_addr()).expect("a free port");
    for check in [tcp_check(), http_check("/")] {
        let fall = Check { fall: 1000, ..check };
        let watch = Watch::one(closed, vec![fall]);
        let server = watch.server("s1");
        until(|| server.verdict().is_some()).await;
        assert_eq!(verdict(&server), (Some(Health::Down), "connect refused".into()));
        watch.ended().await;
    }
}

#[tokio::test]
async fn a_frozen_server_times_out() {
    let origin = Origin::start("").await;
    let timeout = Duration::from_millis(50);
    let watch = Watch::one(origin.address, vec![Check { timeout, ..http_check("/") }]);
    let server = watch.server("s1");
    until(|| server.health() == Health::Down).await;
    assert_eq!(server.standing().why, "timed out after 50ms waiting for the answer");
    assert!(server.last_probe().is_some_and(|report| !report.ok && report.took >= timeout));
    watch.ended().await;
}

#[tokio::test]
async fn a_tcp_check_needs_only_a_connection() {
    let origin = Origin::start("").await;
    let watch = Watch::one(origin.address, vec![tcp_check()]);
    let server = watch.server("s1");
    until(|| server.verdict().is_some()).await;
    assert_eq!(verdict(&server), (Some(Health::Up), "connected".into()));
    watch.ended().await;
}

#[tokio::test]
async fn a_server_is_up_when_all_its_checks_are() {
    let origin = Origin::start(BAD).await;
    let watch = Watch::one(origin.address, vec![tcp_check(), http_check("/")]);
    let server = watch.server("s1");
    until(|| server.health() == Health::Down).await;
    assert_eq!(server.standing().why, "status 503, expected 200-299");
    origin.answer(GOOD);
    until(|| server.health() == Health::Up).await;
    watch.ended().await;
}

#[tokio::test]
async fn the_request_says_what_the_check_says() {
    let origin = Origin::start("HTTP/1.1 204 No Content\r\n\r\n").await;
    let probe_of = |method: &str, host: Option<&str>| {
        let (method, host) = (method.into(), host.map(Into::into));
        let http = Http { method, host, expect_status: vec![204..=204], ..Http::get("/health?deep=1".into()) };
        check(Probe::Http(http))
    };
    for (check, host) in
        [(probe_of("HEAD", None), "origin.example:80"), (probe_of("GET", Some("shop.example")), "shop.example")]
    {
        let outcome = ask(check, origin.address).await;
        assert!(outcome.ok, "{}", outcome.detail);
        let heard = origin.heard().pop().expect("asked").to_lowercase();
        assert!(heard.contains(&format!("host: {host}\r\n")), "{heard}");
        assert!(heard.contains("/health?deep=1 http/1.1\r\n") && heard.contains("user-agent: reeve-check\r\n"));
    }
    let elsewhere = Check { port: Some(origin.address.port()), ..probe_of("GET", None) };
    let outcome = ask(elsewhere, SocketAddr::new(origin.address.ip(), 9)).await;
    assert!(outcome.ok, "the check's own port is asked: {}", outcome.detail);
}

#[tokio::test]
async fn odd_answers_have_reasons() {
    let endless = format!("HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n{}", "x".repeat(80 << 10));
    let cases = [
        ("HTTP/1.1 301 Moved\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n", "status 301, expected 200-299"),
        ("SSH-2.0-OpenSSH_9.2\r\n", "not an HTTP answer"),
        ("HTTP/1.1 200 OK\r\n", "closed without an answer"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", "answer cut short"),
        ("HTTP/1.1 200 OK\r\n\r\nuntil the end", "status 200"),
        (&endless, "status 200"),
    ];
    for (answer, reason) in cases {
        let origin = Origin::start(answer).await;
        let outcome = ask(http_check("/"), origin.address).await;
        assert!(outcome.detail.starts_with(reason), "{:.60}: {}", answer, outcome.detail);
        assert_eq!(outcome.ok, reason == "status 200");
    }
}

#[tokio::test]
async fn checks_follow_a_reload() {
    let (origin, other) = (Origin::start(GOOD).await, Origin::start(BAD).await);
    let at = |origin: &Origin| Address::Ip(origin.address);
    let watch = Watch::one(origin.address, vec![http_check("/one")]);
    let server = watch.server("s1");
    until(|| found(&server) == Some(Health::Up)).await;

    // One server more, and another path.
    let both = [("s1", at(&origin)), ("s2", at(&other))];
    watch.farm.install(config(&both, vec![http_check("/two")]), Vec::new());
    until(|| origin.heard().last().is_some_and(|request| request.starts_with("GET /two "))).await;
    let second = watch.server("s2");
    until(|| second.health() == Health::Down).await;
    assert_eq!(found(&server), Some(Health::Up), "what was known is kept");

    // Another address: nothing is known of it, so that its first failure counts.
    watch.farm.install(config(&[("s1", at(&other))], vec![http_check("/two")]), Vec::new());
    until(|| server.health() == Health::Down).await;

    // No check: up, and nobody asks any more.
    watch.farm.install(config(&[("s1", at(&other))], Vec::new()), Vec::new());
    until(|| server.health() == Health::Up).await;
    assert_eq!(verdict(&server), (None, "no check".into()));
    watch.ended().await;
    assert_eq!(verdict(&server), (None, "no check".into()));
}

#[tokio::test]
async fn a_name_is_resolved_and_then_checked() {
    let origin = Origin::start(GOOD).await;
    let name = Address::Name { host: "localhost".into(), port: origin.address.port() };
    let watch = Watch::over(config(&[("s1", name)], Vec::new()));
    let server = watch.server("s1");
    assert_eq!(server.health(), Health::Down);
    until(|| server.health() == Health::Up).await;
    assert_eq!(server.address().map(|address| address.port()), Some(origin.address.port()));
    watch.ended().await;
}
