//! Checks of real servers: each stopped, frozen and slowed under load, and brought back.
//!
//! The server under test stands beside one of the test's own that speaks as much of the same language; clients ask
//! without a pause. What is printed goes into benches/runs.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::farm::daemon::{Daemon, root, sbin};
use crate::farm::peer::{daemon, test_file};
use crate::farm::ports::Port;
use crate::farm::process::Process;
use crate::farm::{Client, Folder, Reeve, among_others, observe, raw, skip, until};

/// Interval 100 ms, two failures of at most 200 ms each; the rest is for a busy machine.
const LEAVES_WITHIN: Duration = Duration::from_secs(5);
/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(2);
const CHECK: &str = "interval = \"100ms\", timeout = \"100ms\", jitter = \"0%\", rise = 2, fall = 2, start = \"down\", on-down = \"close\"";

/// How a client asks: what it says first, what it has to hear, and what its last words are.
#[derive(Clone, Copy)]
struct Question {
    says: &'static [u8],
    hears: &'static [u8],
    leaves: &'static [u8],
}

/// Starts it on a port, with its files in a folder.
type Start = Box<dyn Fn(&Port, &Folder) -> Daemon>;

struct Kind {
    name: &'static str,
    check: String,
    question: Question,
    start: Start,
    /// The other server.
    other: String,
}

/// One conversation of a client; false where it got no answer.
fn ask(address: &str, question: Question) -> bool {
    let attempt = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(question.says)?;
        let mut heard = Vec::new();
        let mut buffer = [0; 1024];
        while !heard.windows(question.hears.len()).any(|part| part == question.hears) {
            match stream.read(&mut buffer)? {
                0 => return Ok(false),
                count => heard.extend_from_slice(&buffer[..count]),
            }
        }
        let _ = stream.write_all(question.leaves);
        Ok(true)
    };
    attempt().unwrap_or(false)
}

/// What clients met while something was done to the server.
#[derive(Default)]
struct Load {
    asked: usize,
    lost: Vec<Instant>,
}

fn under_load<T>(address: &str, question: Question, during: impl FnOnce() -> T) -> (Load, T) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let client = || {
            let mut load = Load::default();
            while !stop.load(Ordering::SeqCst) {
                let began = Instant::now();
                load.asked += 1;
                if !ask(address, question) {
                    load.lost.push(began);
                }
            }
            load
        };
        let clients = [scope.spawn(client), scope.spawn(client)];
        struct Stop<'a>(&'a AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::SeqCst);
            }
        }
        // Also where `during` panics, so that the scope can end.
        let guard = Stop(&stop);
        let told = during();
        drop(guard);
        let mut all = Load::default();
        for client in clients {
            let load = client.join().expect("a client");
            all.asked += load.asked;
            all.lost.extend(load.lost);
        }
        (all, told)
    })
}

/// Stops, freezes and slows the server, each under load, and prints what that came to.
fn outages(kind: Kind) {
    let (port, front, folder) = (Port::free(), Port::free(), Folder::new(kind.name));
    let mut server = (kind.start)(&port, &folder);
    let config = format!(
        "[listen.front]\naddress = [\"{}\"]\nprotocol = \"tcp\"\npool = \"farm\"\n\
         [pool.farm]\nscheduler = \"rr\"\ncheck = {{ {}, {CHECK} }}\nservers = [\n\
         {{ name = \"real\", address = \"{}\" }}, {{ name = \"other\", address = \"{}\" }}]\n\
         [timeouts]\nconnect = \"500ms\"\n",
        front.address(),
        kind.check,
        port.address(),
        kind.other,
    );
    let reeve = Reeve::start(kind.name, &config, "http *\n  all : any  answer 200\n");
    let is_up = |up: bool| {
        let start = Instant::now();
        let what = format!("{} is {}", kind.name, if up { "up" } else { "down" });
        let line = "reeve_server_up{pool=\"farm\",server=\"real\"}";
        until(&what, || (reeve.metric(line) == Some(f64::from(u8::from(up)))).then_some(()));
        start.elapsed()
    };
    // A server that is not there yet is down, and a moment later it is up.
    is_up(true);
    let question = kind.question;
    let front = front.address();
    assert!(ask(&front, question), "{}", reeve.process.stderr());
    let say = |how: &str, load: &Load, left: Duration, back: Duration| {
        println!(
            "{how}: {}: left after {} ms, back after {} ms, {} of {} requests lost",
            kind.name,
            left.as_millis(),
            back.as_millis(),
            load.lost.len(),
            load.asked
        );
        assert!(left < LEAVES_WITHIN, "{left:?}");
    };
    let calm = || observe(Duration::from_millis(200), "Reeve serves", || true);

    let (load, (left, out, back)) = under_load(&front, question, || {
        calm();
        server.kill();
        let left = is_up(false);
        let out = Instant::now();
        calm();
        server = (kind.start)(&port, &folder);
        let quick = Instant::now();
        (left, out..quick, is_up(true))
    });
    say("killed", &load, left, back);
    assert!(!load.lost.iter().any(|at| out.contains(at)), "lost while it was out");

    let (load, (left, out, back)) = under_load(&front, question, || {
        server.signal(Signal::STOP);
        let left = is_up(false);
        // A look at the metrics lags behind.
        let out = Instant::now();
        calm();
        let thawed = Instant::now();
        server.signal(Signal::CONT);
        (left, out..thawed, is_up(true))
    });
    say("frozen", &load, left, back);
    assert!(!load.lost.iter().any(|at| out.contains(at)), "lost while it was out");

    let slow = AtomicBool::new(true);
    let (load, (left, back)) = under_load(&front, question, || {
        std::thread::scope(|scope| {
            // It gets to run for a moment, and again only after a check's time.
            let slowed = scope.spawn(|| {
                while slow.load(Ordering::SeqCst) {
                    server.signal(Signal::STOP);
                    observe(Duration::from_millis(300), "it is slow", || true);
                    server.signal(Signal::CONT);
                    observe(Duration::from_millis(10), "it runs", || true);
                }
            });
            let left = is_up(false);
            calm();
            slow.store(false, Ordering::SeqCst);
            slowed.join().expect("no panic");
            (left, is_up(true))
        })
    });
    say("slowed", &load, left, back);

    // Why it went and came back can be seen, with what was said.
    let (code, told, wrong) = reeve.order(&["servers", "farm/real"]);
    assert_eq!(code, 0, "{wrong}");
    let check = kind.check.split(' ').next().unwrap_or_default();
    assert!(told.contains(&format!("down ({check} check)")) && told.contains(&format!("up ({check} check)")), "{told}");
}

fn missing(name: &str) -> bool {
    skip(&format!("no {name}: see do_tools in ./check"));
    true
}

/// A server that greets, and answers each line with the first answer whose word it begins with.
fn scripted(greeting: &'static [u8], answers: &'static [(&'static [u8], &'static [u8])]) -> String {
    raw::serve(move |mut stream: TcpStream| {
        let mut buffer = [0; 1024];
        if stream.write_all(greeting).is_err() {
            return;
        }
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            let Some((_, answer)) = answers.iter().find(|(word, _)| buffer[..count].starts_with(word)) else { return };
            if stream.write_all(answer).is_err() {
                return;
            }
        }
    })
}

#[test]
fn nginx_by_http() {
    let _turn = among_others();
    if daemon("nginx").is_none() && missing("nginx") {
        return;
    }
    outages(Kind {
        name: "nginx",
        check: "http = \"/\", keep-alive = true".to_owned(),
        question: Question {
            says: b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            hears: b"hello",
            leaves: b"",
        },
        start: Box::new(|port, folder| {
            let path = folder.path().display();
            let text = format!(
                "daemon off; master_process off; pid {path}/pid; error_log {path}/log;\nevents {{}}\nhttp {{\naccess_log off;\n\
                 client_body_temp_path {path}/1; proxy_temp_path {path}/2; fastcgi_temp_path {path}/3; uwsgi_temp_path {path}/4; \
                 scgi_temp_path {path}/5;\nserver {{ listen {}; location / {{ return 200 hello; }} }} }}\n",
                port.address()
            );
            let file = folder.write("nginx.conf", text);
            Daemon::start(daemon("nginx").expect("it was there").arg("-p").arg(folder.path()).arg("-c").arg(file))
        }),
        other: scripted(b"", &[(b"GET", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")]),
    });
}

#[test]
fn vsftpd_by_ftp() {
    let _turn = among_others();
    let Some(program) = sbin("vsftpd") else { return skip("no vsftpd: see do_tools in ./check") };
    outages(Kind {
        name: "vsftpd",
        check: "ftp = true".to_owned(),
        question: Question { says: b"", hears: b"220 ", leaves: b"QUIT\r\n" },
        start: Box::new(move |port, folder| {
            let text = format!(
                "listen=YES\nlisten_port={}\nlisten_address=127.0.0.1\nbackground=NO\nrun_as_launching_user=YES\n\
                 secure_chroot_dir={}\nanonymous_enable=NO\nlocal_enable=YES\nseccomp_sandbox=NO\n",
                port.number,
                folder.path().display()
            );
            let file = folder.write("vsftpd.conf", text);
            Daemon::start(Command::new(&program).arg(file))
        }),
        other: scripted(b"220 ready\r\n", &[(b"NOOP", b"200 ok\r\n"), (b"QUIT", b"221 bye\r\n")]),
    });
}

#[test]
fn dovecot_by_imap() {
    dovecot(
        "imap",
        "dovecot-imap",
        b"* OK",
        b"x LOGOUT\r\n",
        scripted(b"* OK ready\r\n", &[(b"r1", b"* CAPABILITY IMAP4rev1\r\nr1 OK\r\n"), (b"r2", b"r2 OK\r\n")]),
    );
}

#[test]
fn dovecot_by_pop3() {
    let other = scripted(b"+OK ready\r\n", &[(b"CAPA", b"+OK\r\n.\r\n"), (b"QUIT", b"+OK\r\n")]);
    dovecot("pop3", "dovecot-pop3", b"+OK", b"QUIT\r\n", other);
}

fn dovecot(protocol: &'static str, name: &'static str, hears: &'static [u8], leaves: &'static [u8], other: String) {
    let _turn = among_others();
    let Some(program) = sbin("dovecot").filter(|_| root()) else {
        return skip("no dovecot, or not root: see do_tools in ./check");
    };
    outages(Kind {
        name,
        check: format!("{protocol} = true"),
        question: Question { says: b"", hears, leaves },
        start: Box::new(move |port, folder| {
            let path = folder.path().display();
            let services: String = [("imap", "imaps"), ("pop3", "pop3s")]
                .map(|(plain, sealed)| {
                    let number = if plain == protocol { port.number } else { 0 };
                    format!(
                        "service {plain}-login {{\nchroot =\nclient_limit = 200\nservice_count = 0\ninet_listener {plain} {{\nport = {number}\n}}\n\
                         inet_listener {sealed} {{\nport = 0\n}}\n}}\n"
                    )
                })
                .concat();
            let text = format!(
                "base_dir = {path}/run\nstate_dir = {path}/state\nlog_path = {path}/log\nprotocols = {protocol}\nssl = no\n\
                 listen = 127.0.0.1\n{services}service anvil {{\nchroot =\n}}\nservice stats {{\nchroot =\n}}\n\
                 passdb {{\ndriver = static\nargs = password=x\n}}\nuserdb {{\ndriver = static\nargs = uid=1000 gid=1000 home=/tmp\n}}\n"
            );
            let file = folder.write("dovecot.conf", text);
            // What a killed one leaves behind.
            let _ = std::fs::remove_dir_all(folder.path().join("run"));
            Daemon::start(Command::new(&program).arg("-F").arg("-c").arg(file))
        }),
        other,
    });
}

#[test]
fn opensmtpd_by_smtp() {
    let _turn = among_others();
    let Some(program) = sbin("smtpd").filter(|_| root()) else {
        return skip("no opensmtpd, or not root: see do_tools in ./check");
    };
    outages(Kind {
        name: "opensmtpd",
        check: "smtp = \"helo.example\"".to_owned(),
        question: Question { says: b"", hears: b"220 ", leaves: b"QUIT\r\n" },
        start: Box::new(move |port, folder| {
            let text = format!(
                "listen on 127.0.0.1 port {}\naction \"a\" maildir \"/nowhere\"\nmatch for local action \"a\"\n",
                port.number
            );
            let file = folder.write("smtpd.conf", text);
            Daemon::start(Command::new(&program).arg("-d").arg("-f").arg(file))
        }),
        other: scripted(b"220 mx\r\n", &[(b"EHLO", b"250-mx\r\n250 HELP\r\n"), (b"QUIT", b"221 bye\r\n")]),
    });
}

/// An anonymous bind (RFC 4511 §4.2), and its answer of success.
const BIND: &[u8] = &[0x30, 0x0c, 0x02, 0x01, 0x01, 0x60, 0x07, 0x02, 0x01, 0x03, 0x04, 0x00, 0x80, 0x00];
const BOUND: &[u8] = &[0x30, 0x0c, 0x02, 0x01, 0x01, 0x61, 0x07, 0x0a, 0x01, 0x00, 0x04, 0x00, 0x04, 0x00];

#[test]
fn slapd_by_what_is_sent_and_expected() {
    let _turn = among_others();
    let Some(program) = sbin("slapd") else { return skip("no slapd: see do_tools in ./check") };
    outages(Kind {
        name: "slapd",
        check: "tcp = true, send-hex = \"300c020101600702010304008000\", expect = '(?s-u)\\x61.\\x0a\\x01\\x00'"
            .to_owned(),
        question: Question { says: BIND, hears: &[0x0a, 0x01, 0x00], leaves: b"" },
        start: Box::new(move |port, folder| {
            let path = folder.path().display();
            let _ = std::fs::create_dir_all(folder.path().join("data"));
            let text = format!(
                "include /etc/ldap/schema/core.schema\nmodulepath /usr/lib/ldap\nmoduleload back_mdb\npidfile {path}/pid\n\
                 database mdb\nsuffix \"dc=example\"\ndirectory {path}/data\n"
            );
            let file = folder.write("slapd.conf", text);
            let url = format!("ldap://{}", port.address());
            Daemon::start(Command::new(&program).arg("-d").arg("0").arg("-h").arg(url).arg("-f").arg(file))
        }),
        other: scripted(b"", &[(BIND, BOUND)]),
    });
}

/// Nobody passes datagrams on yet: the time to leave and to return alone is looked at.
#[test]
fn dnsmasq_by_dns() {
    let _turn = among_others();
    let Some(program) = sbin("dnsmasq") else { return skip("no dnsmasq: see do_tools in ./check") };
    let port = Port::free();
    let start = || {
        let options = ["-k", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--listen-address=127.0.0.1"];
        let mut command = Command::new(&program);
        command.args(options).args(["--bind-interfaces", "--address=/health.example/10.0.0.1", "--pid-file="]);
        if root() {
            command.arg("--user=root");
        }
        Daemon::start(command.arg(format!("--port={}", port.number)))
    };
    let mut server = start();
    let check = |more: &str| format!("check = {{ dns = \"health.example\"{more}, {CHECK} }}\n");
    let pool = |name: &str, more: &str| {
        format!("[pool.{name}]\nservers = [{{ name = \"real\", address = \"{}\" }}]\n{}", port.address(), check(more))
    };
    let config = pool("udp", "") + &pool("tcp", ", over-tcp = true") + &pool("refused", ", type = \"MX\"");
    let reeve = Reeve::start("dnsmasq", &config, "http *\n  all : any  answer 200\n");
    let is_up = |pool: &str, up: bool| {
        let start = Instant::now();
        let line = format!("reeve_server_up{{pool=\"{pool}\",server=\"real\"}}");
        until(&format!("{pool}: {up}"), || (reeve.metric(&line) == Some(f64::from(u8::from(up)))).then_some(()));
        start.elapsed()
    };
    is_up("udp", true);
    is_up("tcp", true);
    let say = |how: &str, left: Duration, back: Duration| {
        println!("{how}: dnsmasq: left after {} ms, back after {} ms", left.as_millis(), back.as_millis());
        assert!(left < LEAVES_WITHIN);
    };
    server.kill();
    let left = is_up("udp", false);
    is_up("tcp", false);
    server = start();
    say("killed", left, is_up("udp", true));
    is_up("tcp", true);
    server.signal(Signal::STOP);
    let left = is_up("udp", false);
    is_up("tcp", false);
    server.signal(Signal::CONT);
    say("frozen", left, is_up("udp", true));
    is_up("tcp", true);
}

/// gRPC's own server and its health service, in clear, and by TLS where nobody is asked for a name.
#[test]
fn a_grpc_server_says_whether_it_serves() {
    let _turn = among_others();
    let Some(mut python) = crate::farm::peer::python_with_packages() else {
        return skip("no target/venv: ./check makes it");
    };
    let port = Port::free();
    let mut server = Process::start(python.arg(test_file("it/health_origin.py")).arg(port.number.to_string()));
    crate::farm::process::listens(&mut server, &port.address());
    let pool = |name: &str, service: &str| {
        format!(
            "[pool.{name}]\nservers = [{{ name = \"real\", address = \"{}\" }}]\ncheck = {{ grpc = {service}, {CHECK} }}\n",
            port.address()
        )
    };
    let config =
        pool("whole", "true") + &pool("shop", "\"shop\"") + &pool("closed", "\"closed\"") + &pool("none", "\"none\"");
    let reeve = Reeve::start("grpc-health", &config, "http *\n  all : any  answer 200\n");
    let expected = [
        ("whole", true, "serving"),
        ("shop", true, "serving"),
        ("closed", false, "gRPC: NOT_SERVING"),
        ("none", false, "gRPC: the server does not know the service \"none\""),
    ];
    for (pool, up, why) in expected {
        until(&format!("{pool} is known"), || {
            let (_, out, _) = reeve.order(&["servers", pool, "--format", "json"]);
            let told: serde_json::Value = serde_json::from_str(&out).ok()?;
            let server = &told["servers"][0];
            let state = if up { "up" } else { "down" };
            (server["state"] == state && server["reason"] == why).then_some(())
        });
    }
    // An answer of the web server itself is no gRPC.
    assert_eq!(Client::connect(&reeve.address()).request("GET", "/", &[]).expect("an answer").status, 200);
}
