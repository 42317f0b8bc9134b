//! Upgrades: another process takes over, and if it fails in any way, the running one goes on.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::farm::peer::python_with_packages;
use crate::farm::ports::Port;
use crate::farm::process::listens;
use crate::farm::reeve::{Site, command, pool};
use crate::farm::{Authority, Client, Origin, Reeve, among_others, get, observe, skip, until};
use crate::reload::{echo, upgrade as websocket};

const RULES: &str = "http *\n  all : any  use web\n";

/// A farm whose processes come and go; the newest is ended with the test.
pub struct Service {
    pub reeve: Reeve,
}

impl Service {
    pub fn start(site: Site) -> Service {
        Service { reeve: Reeve::run(site) }
    }

    pub fn status(&self) -> serde_json::Value {
        let (code, out, wrong) = self.reeve.order(&["status", "--format", "json"]);
        assert_eq!(code, 0, "{wrong}");
        serde_json::from_str(&out).expect("JSON")
    }

    /// The process that answers.
    pub fn pid(&self) -> u32 {
        self.status()["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).expect("a pid")
    }

    pub fn upgrade(&self) -> serde_json::Value {
        let (code, out, wrong) = self.reeve.order(&["upgrade", "--format", "json"]);
        assert_eq!(code, 0, "{out}{wrong}{}", self.reeve.process.stderr());
        serde_json::from_str(&out).expect("JSON")
    }

    pub fn signal(&self, pid: u32, signal: Signal) {
        let pid = Pid::from_raw(pid as i32).expect("a pid");
        let _ = kill_process(pid, signal);
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let (code, out, _) = self.reeve.order(&["status", "--format", "json"]);
        let status: serde_json::Value = serde_json::from_str(&out).unwrap_or_default();
        let old = status["upgrades"]["old"].as_array().into_iter().flatten().map(|old| &old["pid"]);
        for pid in old.chain([&status["pid"]]).filter_map(serde_json::Value::as_u64).filter(|_| code == 0) {
            if u64::from(self.reeve.process.id()) != pid {
                self.signal(pid as u32, Signal::KILL);
            }
        }
    }
}

/// Whether a process is there and is more than a dead child that nobody has asked for.
pub fn alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

fn web(origin: &Origin) -> String {
    pool("web", "rr", &[("one", origin.address())])
}

#[test]
fn another_process_takes_everything_over() {
    let _turn = among_others();
    let (origin, down) = (Origin::start("web"), Port::free());
    let secure = Port::free();
    let config = pool("web", "rr", &[("one", origin.address()), ("two", origin.address())])
        + &pool("sick", "rr", &[("gone", down.address())])
        + "check = { tcp = true, interval = \"300ms\", fall = 1 }\n"
        + &format!(
            "\n[listen.secure]\naddress = \"{}\"\nrules = [\"rules/site.rules\"]\ntls = {{ certificates = \"certs\" }}\n\
             [state]\npath = \"/dev/null/not-there\"\n",
            secure.address()
        );
    let site = Site::write("takes-over", &config, RULES);
    let authority = Authority::new("the test's own");
    authority.issue("t.example", &["t.example"]).write(&site.folder, "certs/site");
    let service = Service::start(site);
    let reeve = &service.reeve;
    let tls = std::sync::Arc::new(authority.client());
    let sessions = || reeve.metric("reeve_tls_handshakes_total{listener=\"secure\",version=\"1.3\",resumed=\"yes\"}");
    let hello = || {
        let mut client = Client::secure(&secure.address(), "t.example", &tls).expect("a handshake");
        assert_eq!(client.request("GET", "/", &[]).expect("an answer").status, 200);
    };
    hello();
    until("the one that is gone is down", || {
        (reeve.metric("reeve_server_up{pool=\"sick\",server=\"gone\"}") == Some(0.0)).then_some(())
    });
    assert_eq!(reeve.order(&["drain", "web/two"]).0, 0);
    let servers = |service: &Service| {
        let (_, out, _) = service.reeve.order(&["servers", "--format", "json"]);
        let all: serde_json::Value = serde_json::from_str(&out).expect("JSON");
        all["servers"].as_array().cloned().expect("servers")
    };
    let since = Instant::now();
    let mut client = Client::connect(&reeve.address());
    for _ in 0..3 {
        assert_eq!(client.request("GET", "/", &[]).expect("an answer").status, 200);
    }
    let mut socket = Client::connect(&reeve.address());
    websocket(&mut socket);
    let first = service.pid();

    let (code, out, wrong) = reeve.order(&["upgrade"]);
    assert_eq!(code, 0, "{wrong}");
    let second = service.pid();
    assert_ne!(first, second);
    assert!(out.contains(&format!("pid {second} serves, reeve {}", env!("CARGO_PKG_VERSION"))), "{out}");
    assert!(out.contains(&format!("pid {first}, reeve")), "{out}");

    // What was known is known: health with its reason and since when, drains, sessions, hits, what was counted.
    let all = servers(&service);
    let gone = all.iter().find(|it| it["server"] == "gone").expect("the server");
    assert_eq!((gone["state"].as_str(), gone["reason"].as_str()), (Some("down"), Some("connect refused")));
    let known = Duration::from_secs_f64(gone["since_seconds"].as_f64().expect("seconds"));
    assert!(known >= since.elapsed(), "{known:?} of {:?}", since.elapsed());
    assert!(all.iter().any(|it| it["server"] == "two" && it["drained"] == true), "{all:?}");
    hello();
    assert_eq!(sessions(), Some(1.0), "the session goes on though nothing keeps its keys");
    assert_eq!(get(&reeve.address(), "/", &[]).status, 200);
    let hits = || reeve.metric("reeve_rule_hits_total{rule=\"site.rules:all\"}");
    until("what the rule took in both processes", || (hits() == Some(6.0)).then_some(()));

    // The old one has an idle connection, whose next answer is its last, and a WebSocket, which goes on.
    let old = |service: &Service| service.status()["upgrades"]["old"].as_array().cloned().expect("a list");
    until("what is left in the old one", || (old(&service)[0]["connections"] == 2).then_some(()));
    let (_, status, _) = reeve.order(&["status"]);
    assert!(status.contains("upgrades     1\n") && status.contains(&format!("before       pid {first}, ")), "{status}");
    let answer = client.request("GET", "/", &[]).expect("an answer");
    assert_eq!((answer.status, answer.field("connection")), (200, Some("close")));
    echo(&mut socket);

    // Once more: the first one is known to the third as well, which gets its last words.
    service.upgrade();
    let third = service.pid();
    until("the second has nothing and ends", || (old(&service).len() == 1 && !alive(second)).then_some(()));
    assert_eq!(old(&service)[0]["pid"], first);
    assert_eq!(reeve.metric("reeve_upgrades_total{result=\"ok\"}"), Some(2.0));
    echo(&mut socket);
    drop(socket);
    until("the first one ends", || (old(&service).is_empty() && !alive(first)).then_some(()));
    until("its last words are counted", || (hits() == Some(8.0)).then_some(()));
    assert_eq!(reeve.metric("reeve_old_generations"), Some(0.0));
    // A reload drops none of it.
    assert_eq!(reeve.order(&["reload"]).0, 0);
    assert_eq!(hits(), Some(8.0));
    assert_eq!(get(&reeve.address(), "/", &[]).status, 200);
    service.signal(third, Signal::TERM);
    until("the end", || (!alive(third)).then_some(()));
    assert!(!PathBuf::from(reeve.site.socket()).exists(), "the last one removes the socket's name");
}

#[test]
fn a_signal_to_the_newest_ends_all() {
    let _turn = among_others();
    let origin = Origin::start("web");
    let config = web(&origin) + "[timeouts]\ndrain = \"1s\"\n";
    let service = Service::start(Site::write("ends-all", &config, RULES));
    let mut sockets = Vec::new();
    let mut pids = Vec::new();
    for _ in 0..2 {
        let mut socket = Client::connect(&service.reeve.address());
        websocket(&mut socket);
        sockets.push(socket);
        pids.push(service.pid());
        service.reeve.process.signal(Signal::HUP);
        // By a signal, too.
        let newest = service.pid();
        service.signal(newest, Signal::USR2);
        until("another process", || {
            let (code, out, _) = service.reeve.order(&["status", "--format", "json"]);
            let status: serde_json::Value = serde_json::from_str(&out).unwrap_or_default();
            (code == 0 && status["pid"].as_u64() != Some(newest.into())).then_some(())
        });
    }
    pids.push(service.pid());
    for socket in &mut sockets {
        echo(socket);
    }
    assert!(pids.iter().all(|pid| alive(*pid)));
    service.signal(pids[2], Signal::TERM);
    until("the end of all", || (!pids.iter().any(|pid| alive(*pid))).then_some(()));
}

#[test]
fn the_ninth_old_process_has_the_oldest_end() {
    let _turn = among_others();
    let origin = Origin::start("web");
    let service = Service::start(Site::write("nine", &(web(&origin) + "[timeouts]\ndrain = \"1s\"\n"), RULES));
    let mut sockets = Vec::new();
    let first = service.pid();
    for _ in 0..9 {
        let mut socket = Client::connect(&service.reeve.address());
        websocket(&mut socket);
        sockets.push(socket);
        service.upgrade();
    }
    until("the oldest ends by its deadline", || (!alive(first)).then_some(()));
    let mut rest = sockets.split_off(1);
    rest.iter_mut().for_each(echo);
    let mut oldest = sockets.remove(0);
    let mut close = [0; 4];
    oldest.read_exact(&mut close).expect("a close frame");
    assert_eq!(close, [0x88, 2, 0x03, 0xe9], "it goes away (RFC 6455 §7.4.1)");
    assert_eq!(service.status()["upgrades"]["old"].as_array().map(Vec::len), Some(8));
}

/// Speaks as a new process would, up to a point: what it does then is in the name it is started by.
const IMPOSTOR: &str = r#"
import json, os, select, signal, socket, struct, sys, time
how = os.path.basename(sys.argv[0]).split('.')[0]
if how == 'exits': sys.exit(7)
if how == 'says': print('the moon is full', file=sys.stderr); sys.exit(3)
s = socket.socket(fileno=os.dup(0))
assert os.environ['REEVE_HAND_OVER'] == '1'
if how == 'hangs': time.sleep(600)
if how == 'garbage': s.sendall(b'HTTP/1.1 200 OK\r\n\r\n' * 100); time.sleep(600)
if how == 'huge': s.sendall(b'rvup\xff\xff\xff\xff'); time.sleep(600)
if how == 'liar': s.sendall(b'rvup\x00\x00\x00\x02[]'); time.sleep(600)
held = []
def read(n):
    out = b''
    while len(out) < n:
        data, fds, flags, _ = socket.recv_fds(s, n - len(out), 253)
        if not data: sys.exit(9)
        out += data; held.extend(fds)
    return out
def hear():
    head = read(8)
    return json.loads(read(struct.unpack('>I', head[4:])[0]))
def say(**what):
    text = json.dumps(what).encode()
    s.sendall(b'rvup' + struct.pack('>I', len(text)) + text)
if how == 'midway': hear(); hear(); sys.exit(1)
while hear()['is'] != 'whole': pass
if how == 'parcel': sys.exit(1)
say(**{'is': 'hello', 'version': '9.9-impostor'})
if how == 'unknown': say(**{'is': 'singing'}); time.sleep(600)
if how == 'early': say(**{'is': 'settled'}); time.sleep(600)
if how == 'refuses': say(**{'is': 'refused', 'why': 'it speaks format 1, and I speak 2'}); sys.exit(1)
say(**{'is': 'ready', 'control': True})
if how == 'ready': sys.exit(1)
hear()
if how == 'go-hangs': time.sleep(600)
if how == 'go-dies': sys.exit(1)
say(**{'is': 'serving'})
if how == 'serving-dies': sys.exit(1)
if how == 'serving-hangs': time.sleep(600)
if how == 'serving-garbage': s.sendall(b'x' * 100); time.sleep(600)
if how == 'serving-ends':
    signal.signal(signal.SIGTERM, lambda *_: os._exit(5))
    time.sleep(600)
time.sleep(1)
if how == 'settling-dies': os.abort()
if how == 'settled-dies': s.shutdown(socket.SHUT_RD)
say(**{'is': 'settled'})
if how == 'given-dies': select.select([s], [], [])
if how.startswith('settled') or how == 'given-dies': os._exit(0)
while hear()['is'] != 'yours': pass
if how == 'given-hangs': time.sleep(600)
if how == 'given-refuses': say(**{'is': 'refused', 'why': 'it is too heavy'})
if how == 'given-tells':
    os.kill(os.getppid(), signal.SIGTERM)
    say(**{'is': 'mine'})
    while hear()['is'] != 'report': pass
    open(os.path.join(os.path.dirname(sys.argv[0]), 'reported'), 'w').close()
    try:
        while True: read(1)
    except SystemExit: pass
"#;

/// What each impostor does, and what is said of it.
const IMPOSTORS: [(&str, &str); 24] = [
    ("exits", "broke off before it was ready; process PID ended by itself (exit status: 7)"),
    ("says", "(exit status: 3)"),
    ("hangs", "was not ready within 1 s; process PID was ended"),
    ("garbage", "does not speak as a Reeve does"),
    ("huge", "does not speak as a Reeve does"),
    ("liar", "what it says is not understood"),
    ("midway", "broke off before it was ready"),
    ("parcel", "broke off before it was ready"),
    ("unknown", "said Other where 'ready' was expected"),
    ("early", "said Settled where 'ready' was expected"),
    ("refuses", "the new process refused: it speaks format 1, and I speak 2"),
    ("ready", "broke off before it was serving"),
    ("go-hangs", "was not serving within 1 s"),
    ("go-dies", "broke off before it was serving"),
    ("serving-dies", "broke off before it was settled"),
    ("serving-hangs", "was not settled within 3 s"),
    ("serving-garbage", "does not speak as a Reeve does"),
    ("settling-dies", "broke off before it was settled; process PID ended by itself (signal: 6"),
    ("serving-ends", "was not settled within 3 s; process PID ended by itself (exit status: 5)"),
    ("settled-dies", "broke off before it was in charge"),
    ("settled-exits", "broke off before it was in charge"),
    ("given-dies", "broke off before it was in charge; process PID ended by itself (exit status: 0)"),
    ("given-hangs", "was not in charge within 1 s; process PID was ended"),
    ("given-refuses", "the new process refused: it is too heavy; process PID ended by itself"),
];

/// An impostor that is started by that name.
fn executable(folder: &Path, name: &str, python: &std::process::Command) -> String {
    let path = folder.join(format!("{name}.py"));
    let script = format!("#!{}{IMPOSTOR}", python.get_program().to_string_lossy());
    std::fs::write(&path, script).expect("written");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("executable");
    path.display().to_string()
}

#[test]
fn a_new_process_that_fails_at_any_step_is_never_noticed() {
    let _turn = among_others();
    let Some(python) = python_with_packages() else { return skip("no Python of ours; ./check makes one") };
    let origin = Origin::start("web");
    let service = Service::start(Site::write("impostors", &web(&origin), RULES));
    let reeve = &service.reeve;
    let folder = reeve.site.folder.path();
    let first = service.pid();
    let mut socket = Client::connect(&reeve.address());
    websocket(&mut socket);
    let over = std::sync::atomic::AtomicBool::new(false);
    let (requests, wrong) = std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            let mut kept = Client::connect(&reeve.address());
            let (mut requests, mut wrong) = (0, Vec::new());
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                let new = Client::try_connect(&reeve.address()).and_then(|mut new| new.request("GET", "/", &[]));
                for answer in [kept.request("GET", "/", &[]), new] {
                    requests += 1;
                    match answer {
                        Ok(answer) if answer.status == 200 && answer.field("connection").is_none() => {}
                        other => wrong.push(format!("{other:?}")),
                    }
                }
                std::thread::park_timeout(Duration::from_millis(2));
            }
            (requests, wrong)
        });
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for (name, said) in IMPOSTORS {
                let binary = executable(folder, name, &python);
                let words = ["upgrade", "--within", "1s", "--format", "json", "--binary", &binary];
                let (code, out, wrong) = reeve.order(&words);
                assert_eq!(code, 2, "{name}: {out}{wrong}");
                let answer: serde_json::Value = serde_json::from_str(&out).expect("JSON");
                let (error, pid) =
                    (answer["error"].as_str().unwrap_or_default(), answer["pid"].as_u64().expect("a pid"));
                assert!(error.contains(&said.replace("PID", &pid.to_string())), "{name}: {error}");
                assert_eq!(
                    (answer["done"].as_bool(), answer["pid_before"].as_u64()),
                    (Some(false), Some(first.into()))
                );
                if name == "says" {
                    assert_eq!(answer["said"][0], "the moon is full");
                }
                assert!(!alive(pid as u32), "{name} is gone");
                assert_eq!(service.pid(), first);
            }
        }));
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        let load = load.join().expect("the load");
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        load
    });
    assert!(wrong.is_empty(), "{} of {requests}: {wrong:?}", wrong.len());
    eprintln!("{} impostors, {requests} requests, none failed", IMPOSTORS.len());
    echo(&mut socket);

    // What cannot be started at all, and what people see.
    let (code, _, wrong) = reeve.order(&["upgrade", "--binary", "/nothing/there"]);
    assert!(code == 2 && wrong.contains("/nothing/there cannot be started: No such file"), "{wrong}");
    let says = folder.join("says.py").display().to_string();
    let (_, _, wrong) = reeve.order(&["upgrade", "--binary", &says]);
    assert!(
        wrong.contains("  the moon is full\n") && wrong.contains(&format!("not upgraded: pid {first}, reeve")),
        "{wrong}"
    );
    let refused = reeve.metric("reeve_upgrades_total{result=\"refused\"}");
    assert_eq!(refused, Some(IMPOSTORS.len() as f64 + 2.0));
    assert_eq!(reeve.metric("reeve_upgrades_total{result=\"ok\"}"), Some(0.0));

    // And the real thing after all that.
    service.upgrade();
    echo(&mut socket);
    assert_eq!(get(&reeve.address(), "/", &[]).status, 200);
    assert_ne!(service.pid(), first);
}

#[test]
fn a_new_process_that_is_told_to_end_as_it_settles_is_not_given_the_service() {
    let _turn = among_others();
    let origin = Origin::start("web");
    let service = Service::start(Site::write("settling-ends", &web(&origin), RULES));
    let reeve = &service.reeve;
    let first = service.pid();
    let (code, out, second) = std::thread::scope(|scope| {
        let order = scope.spawn(|| reeve.order(&["upgrade", "--format", "json"]));
        until("both serve", || (reeve.process.stderr().matches(" ready ").count() > 1).then_some(()));
        let children = std::fs::read_to_string(format!("/proc/{first}/task/{first}/children")).expect("the children");
        let second: u32 = children.trim().parse().expect("one child");
        service.signal(second, Signal::TERM);
        let (code, out, _) = order.join().expect("an answer");
        (code, out, second)
    });
    assert!(code == 2 && out.contains("the new process refused: it was told to end"), "{out}");
    assert_eq!(service.pid(), first);
    until("the new one is gone", || (!alive(second)).then_some(()));
    assert_eq!(get(&reeve.address(), "/", &[]).status, 200);
    service.upgrade();
    assert_eq!(get(&reeve.address(), "/", &[]).status, 200);
    assert_ne!(service.pid(), first);
}

#[test]
fn an_old_process_that_is_told_to_end_as_it_is_replaced_leaves_as_such() {
    let _turn = among_others();
    let Some(python) = python_with_packages() else { return skip("no Python of ours; ./check makes one") };
    let origin = Origin::start("web");
    let config = web(&origin) + "[timeouts]\ndrain = \"1s\"\n";
    let service = Service::start(Site::write("told-meanwhile", &config, RULES));
    let reeve = &service.reeve;
    let folder = reeve.site.folder.path();
    let mut socket = Client::connect(&reeve.address());
    websocket(&mut socket);
    let first = service.pid();
    let path = executable(folder, "given-tells", &python);
    let (code, out, wrong) = reeve.order(&["upgrade", "--within", "1s", "--format", "json", "--binary", &path]);
    assert_eq!(code, 0, "{out}{wrong}");
    until("a report", || folder.join("reported").exists().then_some(()));
    until("the old one ends by the deadline of a drain", || (!alive(first)).then_some(()));
    assert!(reeve.process.stderr().contains("told to end: what is left has the time of a drain"));
    assert!(PathBuf::from(reeve.site.socket()).exists(), "the socket's name is not the old one's any more");
}

#[test]
fn texts_with_a_fault_are_refused_and_told() {
    let _turn = among_others();
    let origin = Origin::start("web");
    let service = Service::start(Site::write("faults", &web(&origin), RULES));
    let reeve = &service.reeve;
    let first = service.pid();
    reeve.site.rewrite(&web(&origin), "http *\n  all : any  use wep\n");
    let (code, _, wrong) = reeve.order(&["upgrade"]);
    assert!(code == 2 && wrong.contains("there is no pool `wep`") && wrong.contains("not upgraded"), "{wrong}");
    // Texts without one that ask for what cannot be had.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let more = format!("\n[listen.taken]\naddress = \"{}\"\npool = \"web\"\n", taken.local_addr().expect("an address"));
    reeve.site.rewrite(&(web(&origin) + &more), RULES);
    let (code, _, wrong) = reeve.order(&["upgrade"]);
    assert!(code == 2 && wrong.contains("listen.taken: cannot listen on"), "{wrong}");
    assert_eq!(service.pid(), first);
    assert_eq!(get(&reeve.address(), "/", &[]).status, 200);

    // Other workers, another listener, one less: what is new is open, what is gone is closed.
    let (old, new) = (Port::free(), Port::free());
    let listen =
        |name: &str, port: &Port| format!("\n[listen.{name}]\naddress = \"{}\"\npool = \"web\"\n", port.address());
    reeve.site.rewrite(&(web(&origin) + &listen("old", &old)), RULES);
    assert_eq!(reeve.order(&["reload"]).0, 0);
    reeve.site.rewrite(&(web(&origin) + &listen("new", &new)), RULES);
    let file = reeve.site.config();
    let text = std::fs::read_to_string(&file).expect("the configuration");
    for workers in [3, 1, 2] {
        std::fs::write(&file, text.replace("workers = 2", &format!("workers = {workers}"))).expect("written");
        service.upgrade();
        assert_eq!(service.status()["workers"]["count"], workers);
        for _ in 0..50 {
            assert_eq!(get(&reeve.address(), "/", &[]).status, 200, "{workers} workers");
            assert_eq!(get(&new.address(), "/", &[]).status, 200, "{workers} workers");
        }
        until("what nobody wants is closed", || std::net::TcpStream::connect(old.address()).is_err().then_some(()));
    }
}

#[test]
fn killed_under_load_it_serves_again_within_a_second() {
    let _turn = among_others();
    let origin = Origin::start("web");
    let secure = Port::free();
    let config = web(&origin)
        + &format!(
            "\n[listen.secure]\naddress = \"{}\"\nrules = [\"rules/site.rules\"]\ntls = {{ certificates = \"certs\" }}\n\
             [state]\npath = \"state\"\n",
            secure.address()
        );
    let site = Site::write("killed", &config, RULES);
    let authority = Authority::new("the test's own");
    authority.issue("t.example", &["t.example"]).write(&site.folder, "certs/site");
    let mut reeve = Reeve::run(site);
    let keys = reeve.site.folder.path().join("state/ticket-keys");
    let whole = until("the keys", || std::fs::read(&keys).ok());
    let torn = [None, Some(whole[..whole.len() / 2].to_vec()), Some(Vec::new()), Some(vec![0xff; 5000])];
    for torn in torn {
        let address = reeve.address();
        let clients: Vec<_> = (0..4)
            .map(|_| {
                let address = address.clone();
                std::thread::spawn(move || {
                    // One may come to connect only when the others have done enough.
                    let Ok(mut client) = Client::try_connect(&address) else { return };
                    while client.request("GET", "/sized/1000", &[]).is_ok() {}
                })
            })
            .collect();
        let before = origin.requests();
        until("load", || (origin.requests() > before + 100).then_some(()));
        reeve.process.kill();
        clients.into_iter().for_each(|client| client.join().expect("a client"));
        let damaged = torn.is_some();
        if let Some(torn) = torn {
            std::fs::write(&keys, torn).expect("written");
        }
        let began = Instant::now();
        reeve.again();
        assert_eq!(get(&reeve.address(), "/", &[]).status, 200);
        let took = began.elapsed();
        assert!(took < Duration::from_secs(1), "{took:?}");
        let said = || reeve.process.stderr().contains("the file of session keys is damaged");
        if damaged {
            until("the damage is told", || said().then_some(()));
        } else {
            assert!(!said(), "there is none");
        }
        let text = std::fs::read_to_string(&keys).expect("the keys are text again");
        assert!(text.lines().count() >= 1 && text.lines().all(|line| line.len() > 64), "{text}");
        assert_eq!(reeve.order(&["status"]).0, 0, "the control socket is its own");
    }
}

#[test]
fn a_supervisor_hears_who_serves() {
    let _turn = among_others();
    let origin = Origin::start("web");
    let site = Site::write("notify", &web(&origin), RULES);
    let path = site.folder.path().join("notify.sock");
    let hears = std::os::unix::net::UnixDatagram::bind(&path).expect("a socket");
    hears.set_read_timeout(Some(Duration::from_secs(20))).expect("a deadline");
    let heard = || {
        let mut bytes = [0; 1000];
        let count = hears.recv(&mut bytes).expect("a word");
        String::from_utf8_lossy(&bytes[..count]).into_owned()
    };
    let mut run = command();
    run.arg("run").arg("-c").arg(site.config()).env("NOTIFY_SOCKET", &path);
    let mut process = crate::farm::process::Process::start(&mut run);
    listens(&mut process, &site.address());
    let service = Service { reeve: Reeve { process, site } };
    assert!(heard().starts_with("READY=1\nSTATUS=reeve "));
    assert_eq!(service.reeve.order(&["reload"]).0, 0);
    assert!(heard().starts_with("RELOADING=1\nMONOTONIC_USEC="));
    assert_eq!(heard(), "READY=1");
    service.upgrade();
    assert!(heard().starts_with("RELOADING=1\nMONOTONIC_USEC="));
    let newest = service.pid();
    assert_eq!(heard(), format!("MAINPID={newest}"));
    assert!(heard().starts_with("READY=1\nSTATUS=reeve "));
    service.signal(newest, Signal::TERM);
    assert_eq!(heard(), "STOPPING=1");
    observe(Duration::from_millis(100), "nothing more is said", || true);
}
