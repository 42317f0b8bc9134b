//! The monitor as its users meet it: over a real socket, with workers that answer.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, watch};

use super::report::{Connections, Problem, Servers, Status};
use super::view::{AffinityView, ListenerView, OldView, PoolView, ProbeView, Reloads, ServerState, ServerView, View};
use super::{Source, bind_control, run};
use crate::model::check::{Check, Probe};
use crate::model::listener::{Listener, Protocol};
use crate::model::pool::{Address, Most, Pool, Retry, Scheduler, Server};
use crate::model::{Config, Place};
use crate::state::affinity::learnt::Finding;
use crate::state::commands::{Commands, ToWorker, Workers};
use crate::state::connections::{ConnectionInfo, Doing};
use crate::state::counters::{ConnectResult, Counters, NONE, Rejected, RequestLabels, RetryReason};
use crate::state::orders::{
    EntriesEdited, EntriesFault, Explained, ListInForce, Order, Question, Reloaded, Service, Upgraded,
};
use crate::state::rule_hits::{RuleMoves, RuleNames};
use crate::state::tallies::Tallies;
use crate::state::{Farm, Health, ProbeReport};

/// A folder of a test's own, gone at its end.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(name: &str) -> Folder {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("reeve-{name}-{}-{next}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn server(number: u32, name: &str, state: ServerState) -> ServerView {
    let ok = state != ServerState::Down;
    ServerView {
        number,
        name: name.into(),
        address: format!("127.0.0.1:{}", 9000 + number),
        state,
        since: Duration::from_secs(3700),
        reason: if ok { String::new() } else { "3 probes failed".to_owned() },
        weight: if state == ServerState::Draining { 0 } else { 2 },
        portion: 100,
        ejected: None,
        changes: Vec::new(),
        media: None,
        drained: false,
        backup: false,
        limit: Some(100),
        in_flight: 3,
        probe: Some(ProbeView {
            ok,
            detail: if ok { "200".to_owned() } else { "connection refused".to_owned() },
            took: Duration::from_micros(1500),
            ago: Duration::from_millis(800),
        }),
    }
}

pub fn view() -> View {
    let pool = |number, name: &str, servers| PoolView {
        number,
        name: name.into(),
        scheduler: "wrr",
        panics: None,
        waiting: 0,
        retries_refused: None,
        servers,
        tickets: vec![("web1".into(), Finding::Opaque)],
    };
    View {
        pid: 42,
        started: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
        uptime: Duration::from_secs(93_784),
        generation: 3,
        draining: false,
        notes: 2,
        reloads: Reloads { done: 2, refused: 1 },
        loaded: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_100)),
        log_dropped: 5,
        panics: 2,
        upgrades: Reloads { done: 3, refused: 1 },
        old: vec![OldView {
            pid: 41,
            version: "0.0.9".into(),
            age: Duration::from_secs(7),
            connections: 6,
            hurried: true,
        }],
        listeners: vec![
            ListenerView {
                number: 0,
                name: "web".into(),
                protocol: "http",
                addresses: vec!["127.0.0.1:8080".parse().unwrap(), "[::1]:8080".parse().unwrap()],
                tls: true,
                open: true,
                draining: false,
            },
            ListenerView {
                number: 1,
                name: "media".into(),
                protocol: "rtsp",
                addresses: vec!["127.0.0.1:8554".parse().unwrap()],
                tls: false,
                open: false,
                draining: false,
            },
        ],
        pools: vec![
            pool(7, "web", vec![server(1, "web1", ServerState::Up), server(2, "web2", ServerState::Draining)]),
            pool(8, "odd \"\\name", vec![server(3, "img\n1", ServerState::Down)]),
        ],
        affinities: vec![AffinityView { name: "home".into(), entries: 3, bytes: 2000, evicted: 1 }],
    }
}

/// What worker number `worker` of the tests has counted.
pub fn counted(worker: u64) -> Counters {
    let labels = RequestLabels { listener: 0, pool: 7, server: 1 };
    let mut counters = Counters::default();
    let names: RuleNames = ["shop.rules:beta", "shop.rules:any"].into_iter().map(Arc::from).collect();
    counters.rules.table(names.clone(), &RuleMoves::default());
    for _ in 0..=worker {
        counters.connection_opened(0);
        counters.request(labels, 200, Duration::from_millis(5), Some(Duration::from_millis(3)));
    }
    counters.connection_active(0);
    counters.request(RequestLabels { pool: NONE, server: NONE, ..labels }, 404, Duration::from_micros(90), None);
    counters.request(RequestLabels { pool: 99, server: 98, ..labels }, 200, Duration::from_millis(5), None);
    counters.bytes(0, 1000, 50_000);
    counters.rejected(0, Rejected::BadRequest);
    counters.upstream_connect(7, 1, ConnectResult::Ok);
    counters.upstream_reuse(7, 1);
    counters.retry(7, RetryReason::Connect);
    counters.rule_hit(&names, 0);
    counters
}

fn connection(id: u64, doing: Doing) -> ConnectionInfo {
    let busy = doing != Doing::Idle;
    ConnectionInfo {
        id,
        listener: "web".into(),
        client: "127.0.0.1:50000".parse().unwrap(),
        age: Duration::from_secs(id),
        doing,
        requests: 4,
        pool: busy.then(|| "web".into()),
        server: busy.then(|| "web1".into()),
        request: busy.then(|| "GET /cart".into()),
        bytes_received: 10,
        bytes_sent: 2_000_000,
    }
}

async fn worker(mut commands: Commands, number: u64) {
    while let Some(command) = commands.recv().await {
        match command {
            ToWorker::Counters(reply) => drop(reply.send(counted(number))),
            ToWorker::Connections { limit, reply } => {
                let mut all =
                    vec![connection(number * 10 + 1, Doing::Waiting), connection(number * 10 + 2, Doing::Idle)];
                if limit >= 1000 {
                    all.extend((0..limit as u64 - 2).map(|id| connection(1000 + id, Doing::Idle)));
                }
                all.truncate(limit);
                drop(reply.send(all));
            }
            ToWorker::Listen(_) | ToWorker::Close { .. } => {}
            ToWorker::Drain { .. } => break,
        }
    }
}

/// A monitor on a thread of its own with two workers that answer, and as many as `stuck` that do not.
pub struct Served {
    _folder: Folder,
    pub socket: PathBuf,
    pub metrics: std::net::SocketAddr,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

/// Carries out every second order.
async fn obey(mut orders: mpsc::Receiver<Order>) {
    let mut done = false;
    while let Some(order) = orders.recv().await {
        done = !done;
        match order {
            Order::Reload { what, reply } => {
                let error = (!done).then(|| format!("{what:?}"));
                drop(reply.send(Reloaded { done, generation: 4, error, ..Reloaded::default() }));
            }
            Order::Upgrade { binary, within, reply } => {
                let binary = binary.map(|path| path.display().to_string()).unwrap_or_default();
                let done = within == Duration::from_secs(7);
                drop(reply.send(Upgraded { done, binary, ..Upgraded::default() }));
            }
            Order::Service { drain, name, reply } => {
                let service = Service { kind: "pool".to_owned(), name, draining: drain, changed: true };
                drop(reply.send(if done { Ok(service) } else { Err("there is no such pool".to_owned()) }));
            }
            Order::Lists { name, reply } => {
                done = !done;
                let entries = if name.is_some() { vec!["a".to_owned()] } else { Vec::new() };
                let (known, kind) = (name.as_deref() != Some("none"), "list".to_owned());
                let list = ListInForce { name: "bots".to_owned(), kind, file: "f".to_owned(), count: 1, entries };
                drop(reply.send(if known { Ok(vec![list]) } else { Err("there is no list none".to_owned()) }));
            }
            Order::Entries { name, add, remove, reply } => {
                done = !done;
                let (added, removed) = (add.len(), remove.len());
                let edited = EntriesEdited { name, file: add.join("|"), added, removed, unchanged: 0, count: 7 };
                let refused = add.iter().any(|entry| entry == "bad");
                let fault = EntriesFault::Refused("that is bad".to_owned());
                drop(reply.send(if refused { Err(fault) } else { Ok(edited) }));
            }
            Order::Explain { question, reply } => {
                done = !done;
                let Question { method, url, headers, from, listener, roll, body, cert: _ } = question;
                let text = format!("{method} {url:?} {headers:?} {from} {listener:?} {roll} {body:?}");
                let report = serde_json::Value::Null;
                drop(reply.send(Ok(Explained { routed: true, report, text })));
            }
        }
    }
}

impl Served {
    pub fn start(stuck: usize) -> Served {
        let folder = Folder::new("monitor");
        let socket = folder.path().join("reeve.sock");
        let control = bind_control(&socket).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let metrics = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let (workers, mut queues) = Workers::new(2 + stuck);
                let held = queues.split_off(2);
                for (number, queue) in (0..).zip(queues) {
                    tokio::spawn(worker(queue, number));
                }
                let (orders, queue) = mpsc::channel(1);
                tokio::spawn(obey(queue));
                let source = Source { view: Box::new(view), workers: Arc::new(workers), orders };
                let metrics = watch::Sender::new(vec![(listener.local_addr().unwrap(), Arc::new(listener))]);
                let control = watch::Sender::new(Some(Arc::new(control)));
                run(source, control.subscribe(), metrics.subscribe(), stopped).await;
                drop((held, metrics, control));
            });
        });
        Served { _folder: folder, socket, metrics, stop, thread: Some(thread) }
    }

    fn unix(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream
    }

    fn tcp(&self) -> TcpStream {
        let stream = TcpStream::connect(self.metrics).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.stop.send(true);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking());
        }
    }
}

/// One request; the head and the body of the answer.
fn ask(mut stream: impl Read + Write, request: &str) -> (String, String) {
    stream.write_all(format!("{request} HTTP/1.1\r\nHost: reeve\r\n\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    (head.to_ascii_lowercase(), body.to_owned())
}

#[test]
fn the_view_is_that_of_the_farm() {
    let place = Place::file("f");
    let configured = |name: &str, weight| Server {
        name: name.into(),
        address: Address::Ip("127.0.0.1:9001".parse().unwrap()),
        weight,
        most: Most { requests: Some(9), ..Most::default() },
        backup: false,
        place: place.clone(),
    };
    let config = Config {
        listeners: vec![Listener {
            name: "web".into(),
            addresses: vec!["127.0.0.1:8080".parse().unwrap()],
            protocol: Protocol::Http,
            rules: 0,
            pool: None,
            trusted: Vec::new(),
            forwarded: false,
            accept_proxy: None,
            tls: None,
            media: Default::default(),
            built: true,
            place: place.clone(),
        }],
        pools: vec![Pool {
            name: "web".into(),
            scheduler: Scheduler::Wlc,
            servers: vec![configured("web1", 2), configured("web2", 0)],
            checks: vec![Check::with(Probe::CONNECT, place.clone())],
            retry: Retry::default(),
            hedge: None,
            most: Most::default(),
            queue: 0,
            outlier: None,
            slow_start: None,
            timeouts: Default::default(),
            send_proxy: None,
            tls: None,
            protocol: crate::model::pool::Protocol::Http1,
            affinity: None,
            place: place.clone(),
        }],
        ..Config::default()
    };
    let farm = Farm::new(Arc::new(config), Vec::new());
    let tallies = Tallies::default();
    tallies.count_dropped().store(4, Ordering::Relaxed);
    let then = SystemTime::now() - Duration::from_secs(60);
    let web1 = farm.server("web/web1").unwrap();
    web1.set_health(Health::Down, "connection refused", then);
    web1.set_last_probe(ProbeReport {
        at: then,
        took: Duration::from_millis(1),
        ok: false,
        detail: "connection refused".into(),
    });

    let view = View::of(&farm, &tallies);
    assert_eq!((view.generation, view.reloads.done, view.log_dropped, view.pid), (1, 0, 4, std::process::id()));
    assert_eq!((&*view.listeners[0].name, view.listeners[0].protocol), ("web", "http"));
    let servers = &view.pools[0].servers;
    assert_eq!((servers[0].state, &*servers[0].reason), (ServerState::Down, "connection refused"));
    assert!(servers[0].since >= Duration::from_secs(59) && servers[0].since < Duration::from_secs(90));
    assert_eq!(servers[0].probe.as_ref().map(|probe| probe.ok), Some(false));
    assert_eq!(
        (servers[1].state, &*servers[1].address, servers[1].limit),
        (ServerState::Draining, "127.0.0.1:9001", Some(9))
    );
    assert!(!view.pools[0].up());
}

#[test]
fn status_tells_what_runs() {
    let served = Served::start(0);
    let (head, body) = ask(served.unix(), "GET /api/v1/status");
    assert!(head.starts_with("http/1.1 200 ok") && head.contains("content-type: application/json"), "{head}");
    let status: Status = serde_json::from_str(&body).unwrap();
    assert_eq!((status.pid, status.generation, status.workers.count), (42, 3, 2));
    assert_eq!((status.connections.open, status.connections.active, status.connections.idle), (3, 2, 1));
    assert_eq!(status.requests.total, 7);
    assert_eq!(status.requests.by_class["2xx"], 5);
    assert_eq!((status.pools.total, status.pools.up, status.servers.total, status.servers.up), (2, 1, 3, 2));
    assert_eq!(status.pools_down, ["odd \"\\name"]);
    assert_eq!(
        (status.listeners[0].requests, status.listeners[0].bytes_sent, status.listeners[1].open),
        (7, 100_000, false)
    );
    assert_eq!((status.config.notes, status.config.reloads_refused), (2, 1));
}

#[test]
fn servers_and_connections_are_listed() {
    let served = Served::start(0);
    let (_, body) = ask(served.unix(), "GET /api/v1/servers");
    let servers: Servers = serde_json::from_str(&body).unwrap();
    let seen: Vec<_> = servers.servers.iter().map(|server| (&*server.server, server.state, server.requests)).collect();
    assert_eq!(
        seen,
        [("web1", ServerState::Up, 3), ("web2", ServerState::Draining, 0), ("img\n1", ServerState::Down, 0)]
    );
    assert_eq!(servers.servers[2].probe.as_ref().unwrap().detail, "connection refused");

    let (_, body) = ask(served.unix(), "GET /api/v1/connections?limit=3");
    let connections: Connections = serde_json::from_str(&body).unwrap();
    assert_eq!(connections.connections.iter().map(|info| info.id).collect::<Vec<_>>(), [11, 1, 12]);
    assert_eq!(connections.total, 3);

    // Longer than any buffer on the way.
    let (_, body) = ask(served.unix(), "GET /api/v1/connections?limit=5000");
    let connections: Connections = serde_json::from_str(&body).unwrap();
    assert_eq!(connections.connections.len(), 5000);
}

#[test]
fn what_cannot_be_answered_is_said_in_a_sentence() {
    let served = Served::start(0);
    for (request, status, part) in [
        ("GET /", 404, "/api/v1/status"),
        ("GET /api/v1/statusx", 404, "there is no /api/v1/statusx here"),
        ("POST /api/v1/status", 405, "use GET, not POST"),
        ("GET /api/v1/reload", 405, "use POST, not GET"),
        ("POST /api/v1/reload?what=all", 400, "what=all must be lists"),
        ("POST /api/v1/reload?x=y", 400, "x=y is not known here"),
        ("POST /api/v1/drain", 400, "name=POOL/SERVER"),
        ("POST /api/v1/drain?name=%ff", 400, "not UTF-8"),
        ("GET /api/v1/connections?limit=0", 400, "limit=0 must be a number"),
        ("GET /api/v1/explain", 400, "method=GET, or method=tcp, is missing"),
        ("GET /api/v1/explain?method=a%20b", 400, "method=a%20b is not known here"),
        ("GET /api/v1/explain?method=GET&from=here", 400, "from=here must be an address"),
        ("GET /api/v1/explain?method=GET&roll=100", 400, "roll=100 must be from 0 to 99.99"),
        ("GET /api/v1/explain?method=GET&header=a%20b:c", 400, "must be NAME: VALUE"),
        ("GET /api/v1/explain?method=GET&header=a:c%0ab", 400, "must be NAME: VALUE"),
        ("POST /api/v1/explain?method=GET", 405, "use GET"),
        ("GET /api/v1/connections?limit=99999999", 400, "from 1 to 20000"),
        ("GET /api/v1/connections?size=1", 400, "size=1 is not known"),
    ] {
        let (head, body) = ask(served.unix(), request);
        assert!(head.starts_with(&format!("http/1.1 {status} ")), "{request}: {head}");
        let allowed = if request.starts_with("GET") { "\r\nallow: post" } else { "\r\nallow: get, head" };
        assert_eq!(head.contains(allowed), status == 405, "{head}");
        let problem: Problem = serde_json::from_str(&body).unwrap();
        assert!(problem.error.contains(part), "{request}: {}", problem.error);
    }
    // The metrics address is open to the network: nothing but the page is there.
    let (head, _) = ask(served.tcp(), "GET /api/v1/status");
    assert!(head.starts_with("http/1.1 404 "), "{head}");
    let (head, body) = ask(served.tcp(), "HEAD /metrics");
    assert!(head.starts_with("http/1.1 200 ") && body.is_empty(), "{head}");
}

#[test]
fn orders_are_handed_on_and_their_answers_back() {
    let served = Served::start(0);
    let (head, body) = ask(served.unix(), "POST /api/v1/reload");
    assert!(head.starts_with("http/1.1 200 ") && body.contains("\"generation\":4"), "{head}{body}");
    let (head, body) = ask(served.unix(), "POST /api/v1/reload?what=lists");
    assert!(head.starts_with("http/1.1 409 ") && body.contains("\"error\":\"Lists\""), "{head}{body}");
    let (head, body) = ask(served.unix(), "POST /api/v1/drain?name=a%2Fb");
    assert!(head.starts_with("http/1.1 200 ") && body.contains("\"name\":\"a/b\",\"draining\":true"), "{head}{body}");
    let (head, body) = ask(served.unix(), "POST /api/v1/ready?name=a/b");
    assert!(head.starts_with("http/1.1 404 ") && body.contains("no such pool"), "{head}{body}");
    // The metrics address takes no orders.
    let (head, _) = ask(served.tcp(), "POST /api/v1/reload");
    assert!(head.starts_with("http/1.1 404 "), "{head}");
}

#[test]
fn an_upgrade_is_ordered_with_what_to_start_and_how_long_it_may_take() {
    let served = Served::start(0);
    for (order, status, said) in [
        ("POST /api/v1/upgrade?within=7&binary=/opt/a%20b", "200 ok", "\"binary\":\"/opt/a b\""),
        ("POST /api/v1/upgrade", "409 conflict", "\"done\":false"),
        ("POST /api/v1/upgrade?binary=reeve", "400 bad request", "must be an absolute path"),
        ("POST /api/v1/upgrade?within=61", "400 bad request", "must be from 0.1 to 60 seconds"),
        ("POST /api/v1/upgrade?within=-1", "400 bad request", "must be from 0.1 to 60 seconds"),
        ("POST /api/v1/upgrade?now", "400 bad request", "there are binary=PATH and within=SECONDS"),
        ("GET /api/v1/upgrade", "405 method not allowed", "use POST"),
    ] {
        let (head, body) = ask(served.unix(), order);
        assert!(head.starts_with(&format!("http/1.1 {status}")) && body.contains(said), "{order}: {head} {body}");
    }
}

#[test]
fn lists_are_read_and_edited() {
    let served = Served::start(0);
    let with = |start: &str, body: &str| {
        let request = format!("{start} HTTP/1.1\r\nHost: reeve\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let mut stream = served.unix();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let (_, body) = ask(served.unix(), "GET /api/v1/lists");
    assert!(body.starts_with("[{\"name\":\"bots\"") && body.contains("\"entries\":[]"), "{body}");
    let (_, body) = ask(served.unix(), "GET /api/v1/lists/bots");
    assert!(body.contains("\"entries\":[\"a\"]"), "{body}");
    let (head, _) = ask(served.unix(), "GET /api/v1/lists/none");
    assert!(head.starts_with("http/1.1 404"), "{head}");
    assert!(with("POST /api/v1/lists/bots", "a\n\n b\r\n").contains("\"file\":\"a|b\",\"added\":2,\"removed\":0"));
    assert!(with("DELETE /api/v1/lists/bots", "c").contains("\"added\":0,\"removed\":1"));
    assert!(with("POST /api/v1/lists/bots", "bad").starts_with("HTTP/1.1 409"));
    assert!(with("POST /api/v1/lists/bots", " \n").contains("the body has no entries"));
    assert!(with("PUT /api/v1/lists/bots", "a").contains("allow: GET, HEAD, POST, DELETE"));
    let huge = format!("POST /api/v1/lists/bots HTTP/1.1\r\nHost: r\r\nContent-Length: {}\r\n\r\n", (16 << 20) + 1);
    let mut stream = served.unix();
    stream.write_all(huge.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
}

#[test]
fn what_is_to_be_explained_is_handed_on_as_it_was_asked() {
    let served = Served::start(0);
    let asked = "GET /api/v1/explain?method=GET&url=http%3A%2F%2Fa%2Fb%3Fc%3Dd%26e&header=x-a%3A%20%26b&roll=7.05&from=::1&listener=web&body=a%3D1";
    let (head, body) = ask(served.unix(), asked);
    let explained: Explained = serde_json::from_str(&body).unwrap();
    assert!(head.starts_with("http/1.1 200"), "{head}");
    assert_eq!(explained.text, r#"GET ["http://a/b?c=d&e"] [("x-a", "&b")] ::1 Some("web") 705 Some("a=1")"#);
}

#[test]
fn a_stuck_worker_is_named_and_the_rest_answered() {
    let served = Served::start(1);
    let (_, body) = ask(served.unix(), "GET /api/v1/status");
    let status: Status = serde_json::from_str(&body).unwrap();
    assert_eq!((status.workers.silent, status.requests.total), (vec![2], 7));
}

/// Name, labels and value of one line of the text format.
fn sample(line: &str) -> (String, HashMap<String, String>, f64) {
    let name_end = line.find(['{', ' ']).expect("a name ends");
    let name = &line[..name_end];
    assert!(name.bytes().enumerate().all(|(at, byte)| {
        byte.is_ascii_alphabetic() || byte == b'_' || byte == b':' || (at > 0 && byte.is_ascii_digit())
    }));
    let mut labels = HashMap::new();
    let mut rest = &line[name_end..];
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        loop {
            let (label, after) = rest.split_once("=\"").expect("a label");
            let mut value = String::new();
            let mut chars = after.char_indices();
            let end = loop {
                match chars.next().expect("a closing quote") {
                    (at, '"') => break at + 1,
                    (_, '\\') => value.push(match chars.next().expect("an escaped character").1 {
                        'n' => '\n',
                        char @ ('\\' | '"') => char,
                        other => panic!("\\{other} in {line}"),
                    }),
                    (_, char) => value.push(char),
                }
            };
            assert!(!value.is_empty(), "an empty label value in {line}");
            assert!(labels.insert(label.to_owned(), value).is_none(), "a label twice in {line}");
            rest = &after[end..];
            match rest.strip_prefix(',') {
                Some(more) => rest = more,
                None => break,
            }
        }
        rest = rest.strip_prefix('}').expect("a closing brace");
    }
    let value = rest.strip_prefix(' ').expect("one blank").parse().expect("a number");
    (name.to_owned(), labels, value)
}

type Page = Vec<(String, HashMap<String, String>, f64)>;

/// Every line of a page, after having checked that each is valid and belongs to the family above it.
fn parse(page: &str) -> Page {
    assert!(page.ends_with('\n'));
    let mut families = HashMap::new();
    let mut current = String::new();
    let mut samples: Page = Vec::new();
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(help.ends_with('.'), "{line}");
            name.clone_into(&mut current);
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert_eq!(name, current);
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            assert!(families.insert(name.to_owned(), kind.to_owned()).is_none(), "{name} twice");
        } else {
            let (name, labels, value) = sample(line);
            let family = match families[&current].as_str() {
                "histogram" => ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap(),
                _ => &name,
            };
            assert_eq!(family, current, "{line}");
            assert!(!samples.iter().any(|(other, seen, _)| *other == name && *seen == labels), "{line} twice");
            samples.push((name, labels, value));
        }
    }
    samples
}

fn value(page: &Page, name: &str, labels: &[(&str, &str)]) -> f64 {
    let labels: HashMap<_, _> = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let found = page.iter().find(|(other, seen, _)| other == name && *seen == labels);
    found.unwrap_or_else(|| panic!("no {name} {labels:?}")).2
}

#[test]
fn the_metrics_page_is_valid_line_by_line() {
    let served = Served::start(0);
    let (head, body) = ask(served.tcp(), "GET /metrics");
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    let page = parse(&body);
    let web1 = [("pool", "web"), ("server", "web1")];
    let of_web = |code| [("listener", "web"), ("pool", "web"), ("server", "web1"), ("code", code)];
    assert_eq!(value(&page, "reeve_requests_total", &of_web("200")), 3.0);
    let ours = [("listener", "web"), ("pool", "-"), ("server", "-"), ("code", "404")];
    assert_eq!(value(&page, "reeve_requests_total", &ours), 2.0);
    let web = [("listener", "web"), ("pool", "web")];
    assert_eq!(value(&page, "reeve_request_duration_seconds_count", &web), 3.0);
    assert_eq!(value(&page, "reeve_request_first_byte_seconds_sum", &web), 0.009);
    let below = |le| [web[0], web[1], ("le", le)];
    assert_eq!(value(&page, "reeve_request_duration_seconds_bucket", &below("0.0025")), 0.0);
    assert_eq!(value(&page, "reeve_request_duration_seconds_bucket", &below("0.005")), 3.0);
    assert_eq!(value(&page, "reeve_request_duration_seconds_bucket", &below("+Inf")), 3.0);
    assert_eq!(value(&page, "reeve_connections", &[("listener", "web"), ("state", "active")]), 2.0);
    assert_eq!(value(&page, "reeve_connections", &[("listener", "media"), ("state", "idle")]), 0.0);
    assert_eq!(value(&page, "reeve_bytes_total", &[("listener", "web"), ("direction", "sent")]), 100_000.0);
    assert_eq!(value(&page, "reeve_rejected_total", &[("listener", "web"), ("reason", "bad-request")]), 2.0);
    assert_eq!(value(&page, "reeve_upstream_connects_total", &[web1[0], web1[1], ("result", "ok")]), 2.0);
    assert_eq!(value(&page, "reeve_upstream_reuses_total", &web1), 2.0);
    assert_eq!(value(&page, "reeve_retries_total", &[("pool", "web"), ("reason", "connect")]), 2.0);
    assert_eq!(value(&page, "reeve_server_up", &web1), 1.0);
    assert_eq!(value(&page, "reeve_server_up", &[("pool", "odd \"\\name"), ("server", "img\n1")]), 0.0);
    assert_eq!(value(&page, "reeve_check_duration_seconds", &web1), 0.0015);
    assert_eq!(value(&page, "reeve_rule_hits_total", &[("rule", "shop.rules:beta")]), 2.0);
    assert_eq!(value(&page, "reeve_rule_hits_total", &[("rule", "shop.rules:any")]), 0.0);
    assert_eq!(value(&page, "reeve_reloads_total", &[("result", "refused")]), 1.0);
    assert_eq!(value(&page, "reeve_log_dropped_total", &[]), 5.0);
    assert_eq!(value(&page, "reeve_upgrades_total", &[("result", "ok")]), 3.0);
    assert_eq!(value(&page, "reeve_old_generations", &[]), 1.0);
    assert_eq!(value(&page, "reeve_old_generation_connections", &[]), 6.0);
    assert_eq!(value(&page, "reeve_build_info", &[("version", env!("CARGO_PKG_VERSION"))]), 1.0);
    let shaken = |listener| {
        page.iter()
            .filter(|(name, labels, _)| name == "reeve_tls_handshakes_total" && labels["listener"] == listener)
            .count()
    };
    assert_eq!((shaken("web"), shaken("media")), (4, 0), "only who ends TLS counts handshakes");
    // What is not configured has no name, and so no line.
    assert!(!page.iter().any(|(name, labels, _)| name == "reeve_requests_total" && labels["pool"] == "99"));
}

#[test]
fn curl_reads_the_page_and_the_socket() {
    let served = Served::start(0);
    let run = |arguments: &[&str]| {
        let output =
            std::process::Command::new("curl").args(["-sS", "--fail", "--max-time", "10"]).args(arguments).output();
        // The gate installs curl; a machine that builds without the gate may lack it.
        output.ok().map(|output| {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap()
        })
    };
    if let Some(page) = run(&[&format!("http://{}/metrics", served.metrics)]) {
        parse(&page);
    }
    let socket = served.socket.to_str().unwrap();
    if let Some(status) = run(&["--unix-socket", socket, "http://reeve/api/v1/status"]) {
        assert_eq!(serde_json::from_str::<Status>(&status).unwrap().pid, 42);
    }
}

#[test]
fn silent_peers_do_not_keep_it_from_stopping() {
    let served = Served::start(0);
    let _silent: Vec<_> = (0..3).map(|_| (served.unix(), served.tcp())).collect();
    let mut half = served.unix();
    half.write_all(b"GET /api/v1/sta").unwrap();
    ask(served.unix(), "GET /api/v1/status");
    let before = std::time::Instant::now();
    let socket = served.socket.clone();
    drop(served);
    assert!(!socket.exists());
    assert!(before.elapsed() < Duration::from_secs(5));
}
