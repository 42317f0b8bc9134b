//! Upgrades that fail or come at a bad moment: nobody notices them.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;

use crate::farm::peer::python_with_packages;
use crate::farm::process::alive;
use crate::farm::reeve::Site;
use crate::farm::{Client, Origin, among_others, get, skip, until};
use crate::reload::{echo, upgrade as websocket};
use crate::upgrade::{RULES, Service, web};

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
    reeve.process.says("told to end: what is left has the time of a drain");
    assert!(PathBuf::from(reeve.site.socket()).exists(), "the socket's name is not the old one's any more");
}
