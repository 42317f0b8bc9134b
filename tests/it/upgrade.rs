//! Upgrades: another process takes over, and if it fails in any way, the running one goes on.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::farm::ports::Port;
use crate::farm::process::{alive, listens};
use crate::farm::reeve::{Site, command, pool};
use crate::farm::{Authority, Client, Origin, Reeve, among_others, get, observe, until};
use crate::reload::{echo, upgrade as websocket};

pub const RULES: &str = "http *\n  all : any  use web\n";

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

pub fn web(origin: &Origin) -> String {
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
        let said = || reeve.process.stderr().contains("the file of keys is damaged");
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
