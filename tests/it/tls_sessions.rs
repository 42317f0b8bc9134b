//! TLS sessions bring clients back to the server that they began with: where TLS ends at Reeve, and where it stays sealed,
//! with real nginx and openssl(1) on both sides.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::farm::peer::daemon;
use crate::farm::ports::Port;
use crate::farm::process::{Process, listens};
use crate::farm::reeve::{Site, pool};
use crate::farm::{Authority, Folder, Origin, Reeve, among_others, skip, until};

/// Clients that resume in each of the ways there are, by the words of `openssl s_client`.
const WAYS: [(&str, &[&str]); 3] =
    [("TLS 1.3 ticket", &["-tls1_3"]), ("TLS 1.2 ticket", &["-tls1_2"]), ("TLS 1.2 id", &["-tls1_2", "-no_ticket"])];

/// An nginx with a certificate that all share, and keys of its own; it answers with its name.
struct Nginx {
    process: Process,
    folder: Folder,
    port: Port,
}

fn nginx(name: &str, certificate: &(String, String), key: [u8; 80], more: &str) -> Option<Nginx> {
    let Some(mut command) = daemon("nginx") else {
        skip("no nginx: apt-get install nginx-light");
        return None;
    };
    let (folder, port) = (Folder::new("nginx-sessions"), Port::free());
    folder.write("ticket.key", key);
    folder.write("site.pem", &certificate.0);
    folder.write("site.key", &certificate.1);
    let path = folder.path().display();
    let text = format!(
        "daemon off; worker_processes 1; pid {path}/nginx.pid; error_log {path}/nginx.log notice;\nevents {{}}\nhttp {{\n\
         access_log off; client_body_temp_path {path}/body; proxy_temp_path {path}/proxy; fastcgi_temp_path {path}/f;\n\
         uwsgi_temp_path {path}/u; scgi_temp_path {path}/s;\nserver {{ listen {address} ssl; ssl_protocols TLSv1.2 TLSv1.3;\n\
         ssl_certificate {path}/site.pem; ssl_certificate_key {path}/site.key;\n\
         ssl_session_cache shared:sessions:1m; ssl_session_ticket_key {path}/ticket.key; {more}\n\
         location / {{ return 200 \"served by {name}\\n\"; }} }} }}\n",
        address = port.address(),
    );
    let file = folder.write("nginx.conf", &text);
    let mut process = Process::start(command.arg("-p").arg(folder.path()).arg("-c").arg(file));
    listens(&mut process, &port.address());
    Some(Nginx { process, folder, port })
}

fn certificate() -> (String, String) {
    let folder = Folder::new("certificate");
    let (certificate, key) = Authority::new("the test's own").issue("site", &["t.example"]).write(&folder, "site");
    let text = |path| std::fs::read_to_string(path).expect("a file that was written");
    (text(certificate), text(key))
}

fn has_openssl() -> bool {
    let there = Command::new("openssl").arg("version").output().is_ok_and(|output| output.status.success());
    if !there {
        skip("no openssl");
    }
    there
}

/// What one client saw.
struct Seen {
    reused: bool,
    server: String,
}

/// A client whose session is kept in a file.
struct Client<'c> {
    address: String,
    folder: &'c Folder,
    words: &'c [&'c str],
}

impl Client<'_> {
    fn come(&self, resume: bool) -> Seen {
        let file = self.folder.path().join("session.pem");
        let mut command = Command::new("openssl");
        command.args(["s_client", "-connect", &self.address, "-servername", "t.example", "-ign_eof"]).args(self.words);
        command.arg("-sess_out").arg(&file);
        if resume {
            command.arg("-sess_in").arg(&file);
        }
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("openssl, which is there");
        let mut stdin = process.stdin.take().expect("its stdin");
        stdin.write_all(b"GET / HTTP/1.0\r\nHost: t.example\r\n\r\n").expect("a request");
        let output = process.wait_with_output().expect("its end");
        drop(stdin);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let server = text.lines().find_map(|line| {
            line.strip_prefix("served by ")
                .or_else(|| line.strip_prefix("X-Origin: "))
                .map(|name| name.trim().to_owned())
        });
        let server = server.unwrap_or_else(|| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)));
        Seen { reused: text.contains("Reused, TLSv1."), server }
    }

    /// A new session, and how many of so many resumptions in turn were such, at the first one's server.
    fn resumes(&self, times: usize) -> usize {
        let first = self.come(false);
        assert!(!first.reused);
        let again = (0..times).map(|_| self.come(true));
        again.filter(|seen| seen.reused && seen.server == first.server).count()
    }
}

/// Passes connections on to `to`, of which every byte of the client's first message goes by itself.
fn in_bytes(to: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let Ok(server) = TcpStream::connect(&to) else { continue };
            let _ = server.set_nodelay(true);
            let pair = |stream: &TcpStream| stream.try_clone().expect("a descriptor");
            let (mut from, mut up) = (pair(&client), pair(&server));
            std::thread::spawn(move || {
                let mut head = [0; 5];
                if from.read_exact(&mut head).is_ok() {
                    let mut rest = vec![0; usize::from(u16::from_be_bytes([head[3], head[4]]))];
                    let _ = from.read_exact(&mut rest);
                    for byte in head.iter().chain(&rest) {
                        let _ = up.write_all(&[*byte]);
                    }
                    let _ = std::io::copy(&mut from, &mut up);
                }
                let _ = up.shutdown(Shutdown::Write);
            });
            let (mut from, mut down) = (server, client);
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut from, &mut down);
                let _ = down.shutdown(Shutdown::Write);
            });
        }
    });
    address
}

struct Farm {
    reeve: Reeve,
    port: Port,
    servers: Vec<Nginx>,
}

/// Three servers with keys of their own, sealed, in turn.
fn sealed(label: &str, interval: &str) -> Option<Farm> {
    if !has_openssl() {
        return None;
    }
    let certificate = certificate();
    let servers: Option<Vec<Nginx>> = (1..4).map(|n| nginx(&format!("s{n}"), &certificate, [n; 80], "")).collect();
    let (servers, port) = (servers?, Port::free());
    let addresses: Vec<(&str, String)> =
        ["s1", "s2", "s3"].into_iter().zip(servers.iter().map(|server| server.port.address())).collect();
    let config = format!(
        "[state]\npath = \"state\"\n[listen.sealed]\naddress = \"{}\"\nprotocol = \"tls-passthrough\"\npool = \"web\"\n{}\
         affinity = {{ tls-session = true, interval = \"{interval}\", server-name = \"t.example\" }}\n",
        port.address(),
        pool("web", "rr", &addresses),
    );
    let reeve = Reeve::start(label, &config, "http *\n  all : any  deny\n");
    for name in ["s1", "s2", "s3"] {
        finds(&reeve, name, "learnt");
    }
    Some(Farm { reeve, port, servers })
}

fn finds(reeve: &Reeve, server: &str, finding: &str) {
    let line = format!("reeve_tls_tickets{{pool=\"web\",server=\"{server}\",finding=\"{finding}\"}}");
    until(&format!("{server} is {finding}"), || reeve.metric(&line).filter(|value| *value == 1.0));
}

#[test]
fn sealed_sessions_are_taken_up_where_they_began() {
    let _turn = among_others();
    let Some(farm) = sealed("sessions", "30s") else { return };
    let folder = Folder::new("session");
    for (what, words) in WAYS {
        let client = Client { address: in_bytes(farm.port.address()), folder: &folder, words };
        assert_eq!(client.resumes(12), 12, "{what}");
    }
    // Without affinity nearly none of them is.
    let words = until("all is counted", || {
        let lines = farm.reeve.log();
        let words: Vec<String> = lines.iter().filter_map(|line| Some(line["affinity"].as_str()?.to_owned())).collect();
        (words.len() == 39).then_some(words)
    });
    let count = |word: &str| words.iter().filter(|said| *said == word).count();
    assert_eq!((count("hit"), count("moved")), (36, 0), "{words:?}");
    // A drained server keeps those that it has.
    let client = Client { address: farm.port.address(), folder: &folder, words: WAYS[0].1 };
    let first = client.come(false);
    let (code, _, wrong) = farm.reeve.order(&["drain", &format!("web/{}", first.server)]);
    assert_eq!(code, 0, "{wrong}");
    let seen = client.come(true);
    assert!(seen.reused && seen.server == first.server);
}

#[test]
fn other_keys_are_learnt_within_an_interval() {
    let _turn = among_others();
    let Some(farm) = sealed("turned", "1s") else { return };
    let server = &farm.servers[1];
    server.folder.write("ticket.key", [9; 80]);
    server.process.signal(Signal::HUP);
    let changed = Instant::now();
    let folder = Folder::new("session");
    let client = Client { address: farm.port.address(), folder: &folder, words: WAYS[0].1 };
    // A new session with that server, until it is one that can be taken up there three times.
    until("sessions of the other key are taken up", || {
        let first = client.come(false);
        let good = first.server == "s2" && (0..3).map(|_| client.come(true)).all(|s| s.reused && s.server == "s2");
        good.then_some(())
    });
    assert!(changed.elapsed() < Duration::from_secs(3), "one interval and two seconds: {:?}", changed.elapsed());
}

#[test]
fn shared_keys_and_tickets_that_say_nothing_are_recognised() {
    let _turn = among_others();
    if !has_openssl() {
        return;
    }
    let certificate = certificate();
    let start = |name: &str, key: u8, more: &str| nginx(name, &certificate, [key; 80], more);
    let (Some(one), Some(two), Some(three)) =
        (start("s1", 7, ""), start("s2", 7, ""), start("s3", 8, "ssl_session_tickets off;"))
    else {
        return;
    };
    let port = Port::free();
    let servers = [("s1", one.port.address()), ("s2", two.port.address()), ("s3", three.port.address())];
    let config = format!(
        "[state]\npath = \"state\"\n[listen.sealed]\naddress = \"{}\"\nprotocol = \"tls-passthrough\"\npool = \"web\"\n{}\
         affinity = {{ tls-session = true, interval = \"1s\" }}\n",
        port.address(),
        pool("web", "rr", &servers),
    );
    let reeve = Reeve::start("shared", &config, "http *\n  all : any  deny\n");
    finds(&reeve, "s1", "shared");
    finds(&reeve, "s2", "shared");
    finds(&reeve, "s3", "opaque");
    reeve.process.says("the same ticket keys");
    reeve.process.says("do not say which key");
    // Sessions of TLS 1.2 without tickets are known by their ids all the same.
    let folder = Folder::new("session");
    let client = Client { address: port.address(), folder: &folder, words: WAYS[2].1 };
    assert_eq!(client.resumes(4), 4);
}

#[test]
fn sessions_that_end_here_bring_their_clients_back() {
    let _turn = among_others();
    if !has_openssl() {
        return;
    }
    let (origins, port) = ([Origin::start("s1"), Origin::start("s2"), Origin::start("s3")], Port::free());
    let servers = [("s1", origins[0].address()), ("s2", origins[1].address()), ("s3", origins[2].address())];
    let config = format!(
        "[state]\npath = \"state\"\n[listen.secure]\naddress = \"{}\"\npool = \"web\"\n\
         tls = {{ certificates = \"certs\" }}\n{}affinity = {{ tls-session = true }}\n",
        port.address(),
        pool("web", "rr", &servers),
    );
    let site = Site::write("terminated", &config, "http *\n  all : any  deny\n");
    Authority::new("the test's own").issue("site", &["t.example"]).write(&site.folder, "certs/site");
    let reeve = Reeve::run(site);
    let folder = Folder::new("session");
    for (what, words) in WAYS {
        let client = Client { address: port.address(), folder: &folder, words };
        assert_eq!(client.resumes(4), 4, "{what}");
    }
    let line = "reeve_affinity_total{pool=\"web\",result=\"hit\"}";
    until("all are counted", || reeve.metric(line).filter(|hits| *hits == 12.0));
}
