//! `auth basic` and `auth forward`: nothing reaches a server before it is known who asks.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use argon2::PasswordHasher;

use crate::farm::h2::{Body, Session};
use crate::farm::nginx::Nginx;
use crate::farm::ports::Port;
use crate::farm::reeve::{Site, command, pool};
use crate::farm::{Answer, Authority, Client, Origin, Reeve, among_others, get, observe, until};

/// `joe:open sesame`
const SHOWN: &str = "Basic am9lOm9wZW4gc2VzYW1l";

/// A line as `reeve hash-password` prints it.
fn line(name: &str, password: &str) -> String {
    let mut command = command();
    let child = command.args(["hash-password", name]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut child = child.expect("reeve starts");
    child.stdin.take().expect("its stdin").write_all(format!("{password}\n").as_bytes()).expect("written");
    let output = child.wait_with_output().expect("its output");
    assert!(output.status.success());
    String::from_utf8(output.stdout).expect("a text")
}

fn start(label: &str, config: &str, rules: &str, users: &str) -> Reeve {
    let site = Site::write(label, config, rules);
    site.folder.write("auth/users.txt", users);
    Reeve::run(site)
}

const BASIC: &str = r#"
http *
  secret : path /secret/**     use web
             auth basic "auth/users.txt"
  moved  : path /moved         redirect /secret/
             auth basic "auth/users.txt"
  rest   : any                 use web

expect GET /secret/a -> web
"#;

#[test]
fn a_password_opens_what_is_locked_in_both_languages() {
    let _turn = among_others();
    let origin = Origin::start("web");
    let config = pool("web", "rr", &[("web", origin.address())]);
    let reeve = start("auth-basic", &config, BASIC, &(line("joe", "open sesame") + &line("ada", "x:y")));
    let ask = |path: &str, fields: &[(&str, &str)]| get(&reeve.address(), path, fields);
    let session = Session::connect(&reeve.address());
    let ask2 = |path: &str, shown: Option<&str>| {
        let mut request = http::Request::get(format!("http://t.example{path}"));
        if let Some(shown) = shown {
            request = request.header("authorization", shown);
        }
        session.ask(request.body(()).expect("a request"), None).expect("an answer")
    };
    for shown in [None, Some("Basic am9lOm9wZW4gc2VzYW0="), Some("Bearer x"), Some("Basic ?"), Some("Basic ZXZlOng=")] {
        let fields: Vec<_> = shown.map(|shown| ("authorization", shown)).into_iter().collect();
        for path in ["/secret/a", "/moved"] {
            let answer = ask(path, &fields);
            assert_eq!(answer.status, 401, "{shown:?}");
            assert_eq!(answer.field("www-authenticate"), Some("Basic realm=\"users\", charset=\"UTF-8\""));
            assert_eq!(answer.field("location"), None);
            assert_eq!(ask2(path, shown).status, 401, "{shown:?}");
        }
    }
    // Two of them say nothing certain.
    let twice = [("authorization", SHOWN), ("authorization", SHOWN)];
    assert_eq!(ask("/secret/a", &twice).status, 401);
    assert_eq!((origin.requests(), origin.made()), (0, 0), "no server heard of it");

    let head = |answer: &Answer| answer.text();
    for _ in 0..3 {
        let answer = ask("/secret/a", &[("authorization", SHOWN), ("x-auth-user", "root"), ("X_Auth_Group", "wheel")]);
        let head = head(&answer);
        assert_eq!(answer.status, 200);
        assert!(head.contains("\r\nX-Auth-User: joe\r\n") && !head.contains("uthorization"), "{head}");
        assert!(!head.contains("root") && !head.contains("wheel"), "{head}");
    }
    let reply = ask2("/secret/a", Some("Basic YWRhOng6eQ=="));
    assert!(reply.status == 200 && reply.text().contains("\r\nX-Auth-User: ada\r\n"), "{}", reply.text());
    assert_eq!(ask("/moved", &[("authorization", SHOWN)]).field("location"), Some("/secret/"));
    // Beside it: a password is the server's own affair, who somebody is never the client's to say.
    let text = head(&ask("/", &[("authorization", SHOWN), ("x-auth-user", "root")]));
    assert!(text.contains(SHOWN) && !text.contains("root"), "{text}");
    let rejected = || reeve.metric("reeve_rejected_total{listener=\"web\",reason=\"unauthorized\"}");
    until("it is counted", || (rejected() == Some(21.0)).then_some(()));
    let log = std::fs::read_to_string(reeve.site.log()).expect("the log");
    assert!(!log.contains("am9l"), "no password is written down");
}

#[test]
fn whoever_is_known_does_not_wait_until_the_file_says_otherwise() {
    let _turn = among_others();
    let origin = Origin::start("web");
    let config = pool("web", "rr", &[("web", origin.address())]);
    let reeve = start("auth-known", &config, BASIC, &line("joe", "open sesame"));
    let mut client = Client::connect(&reeve.address());
    let mut ask = || client.request("GET", "/secret/a", &[("authorization", SHOWN)]).expect("an answer").status;
    assert_eq!(ask(), 200);
    let start = Instant::now();
    for _ in 0..200 {
        assert_eq!(ask(), 200);
    }
    // A check of that hash takes 10 ms and more.
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    reeve.site.folder.write("auth/users.txt", line("joe", "another one"));
    reeve.reload_again();
    assert_eq!(ask(), 401, "the password was changed");
    // A file with a fault leaves the old one in force, and none of it is shown.
    reeve.site.folder.write("auth/users.txt", "joe:open sesame\n");
    let (code, out, wrong) = reeve.order(&["reload"]);
    assert!(code == 2 && (out.clone() + &wrong).contains("R0276"), "{out}{wrong}");
    assert!(!(out + &wrong).contains("sesame"));
    assert_eq!(ask(), 401);
}

#[test]
fn a_flood_of_guesses_stops_no_worker() {
    let _turn = among_others();
    let origin = Origin::start("web");
    let config = pool("web", "rr", &[("web", origin.address())]);
    // Cheaper to check than they should be: there are many.
    let params = argon2::Params::new(8192, 1, 1, None).expect("parameters");
    let hash = argon2::Argon2::from(params).hash_password_with_salt(b"open sesame", b"saltsaltsalt");
    let users = format!("joe:{}\n", hash.expect("a hash"));
    let reeve = start("auth-flood", &config, BASIC, &users);
    assert_eq!(get(&reeve.address(), "/secret/a", &[("authorization", SHOWN)]).status, 200);
    let session = Session::connect(&reeve.address());
    let guesses = (0..100).map(|_| {
        let request = http::Request::get("http://t.example/secret/a").header("authorization", "Basic am9lOng=");
        (request.body(()).expect("a request"), None)
    });
    let address = reeve.address();
    let served = std::thread::spawn(move || {
        let mut slowest = Duration::ZERO;
        let mut client = Client::connect(&address);
        for _ in 0..50 {
            let start = Instant::now();
            assert_eq!(client.request("GET", "/", &[]).expect("an answer").status, 200);
            slowest = slowest.max(start.elapsed());
        }
        slowest
    });
    let replies = session.all(guesses.collect());
    let slowest = served.join().expect("the others were served");
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    let statuses: Vec<u16> = replies.into_iter().map(|reply| reply.expect("an answer").status).collect();
    assert!(statuses.iter().all(|status| [401, 503].contains(status)), "{statuses:?}");
    assert!(statuses.contains(&401) && statuses.contains(&503), "{statuses:?}");
    assert_eq!(origin.requests(), 51);
}

/// A service that is asked who may pass: the answer follows from `x-as` of what it is asked, and all it is asked is kept.
struct Service {
    address: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Service {
    fn start() -> Service {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let shared = asked.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = shared.clone();
                std::thread::spawn(move || serve(stream, &shared));
            }
        });
        Service { address, asked }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("what it was asked").clone()
    }
}

fn serve(mut stream: TcpStream, asked: &Mutex<Vec<String>>) {
    loop {
        let mut head = Vec::new();
        let mut byte = [0; 1];
        while !head.ends_with(b"\r\n\r\n") {
            if stream.read_exact(&mut byte).is_err() {
                return;
            }
            head.extend_from_slice(&byte);
        }
        let head = String::from_utf8(head).expect("a text");
        let lower = head.to_ascii_lowercase();
        let who = lower.lines().find_map(|line| line.strip_prefix("x-as: ")).unwrap_or("nobody").to_owned();
        asked.lock().expect("what it was asked").push(head);
        let large = "x".repeat(100_000);
        let answer = match who.as_str() {
            "joe" => "HTTP/1.1 204 No Content\r\nX-Auth-User: joe\r\nX-Auth-Groups: a, b\r\nX-Other: no\r\n\r\n".to_owned(),
            "guest" => {
                let body = "log in first";
                format!(
                    "HTTP/1.1 302 Found\r\nLocation: /login\r\nSet-Cookie: back=1\r\nKeep-Alive: timeout=5\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                )
            }
            "eve" => "HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nno!\r\n0\r\n\r\n".to_owned(),
            "large" => format!("HTTP/1.1 401 Unauthorized\r\nContent-Length: {}\r\n\r\n{large}", large.len()),
            "broken" => "HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n".to_owned(),
            "cut" => return,
            "junk" => "I beg your pardon?\r\n\r\n".to_owned(),
            _ => "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_owned(),
        };
        if stream.write_all(answer.as_bytes()).is_err() || answer.contains("Connection: close") {
            return;
        }
    }
}

fn forward(service: &str) -> String {
    format!(
        "http *\n  all : any  use web\n          auth forward http://{service}/check?x=1\n          retry 3 on connect 502 503\n"
    )
}

#[test]
fn a_service_says_who_may_pass() {
    let _turn = among_others();
    let (origin, service) = (Origin::start("web"), Service::start());
    let config = pool("web", "rr", &[("web", origin.address())]);
    let reeve = Reeve::start("auth-forward", &config, &forward(&service.address));
    let session = Session::connect(&reeve.address());
    let both = |who: &str| {
        let answer = get(&reeve.address(), "/a/../b?c", &[("x-as", who), ("x-auth-user", "root")]);
        let request = http::Request::get("http://t.example/b?c").header("x-as", who).body(()).expect("a request");
        let reply = session.ask(request, None).expect("an answer");
        assert_eq!(answer.status, reply.status, "{who}");
        assert_eq!(answer.text().len().min(200), reply.text().len().min(200), "{who}");
        answer
    };
    for (who, status) in
        [("nobody", 401), ("guest", 302), ("eve", 403), ("large", 502), ("broken", 502), ("cut", 503), ("junk", 503)]
    {
        let answer = both(who);
        assert_eq!(answer.status, status, "{who}");
        match who {
            "nobody" => assert_eq!(answer.field("www-authenticate"), Some("Bearer")),
            "guest" => {
                assert_eq!((answer.field("location"), answer.field("set-cookie")), (Some("/login"), Some("back=1")));
                assert_eq!((answer.text().as_str(), answer.field("keep-alive")), ("log in first", None));
            }
            "eve" => assert_eq!((answer.text().as_str(), answer.field("content-length")), ("no!", Some("3"))),
            _ => {}
        }
    }
    assert_eq!((origin.requests(), origin.made()), (0, 0), "no server heard of it");
    let asked = service.asked().pop().expect("a question");
    assert!(asked.starts_with("GET /check?x=1 HTTP/1.1\r\n"), "{asked}");

    let answer = get(
        &reeve.address(),
        "/a/../b?c",
        &[
            ("x-as", "joe"),
            ("x-auth-user", "root"),
            ("x-original-uri", "/free"),
            ("x-forwarded-method", "OPTIONS"),
            ("range", "bytes=0-1"),
        ],
    );
    let head = answer.text();
    assert!(head.contains("\r\nX-Auth-User: joe\r\nX-Auth-Groups: a, b\r\n"), "{head}");
    assert!(!head.contains("root") && !head.contains("X-Other"), "{head}");
    let asked = service.asked().pop().expect("a question");
    for line in [
        "Host: ",
        "X-Forwarded-Method: GET",
        "X-Forwarded-Uri: /b?c",
        "X-Original-URI: /b?c",
        "X-Forwarded-For: 127.0.0.1",
        "X-Forwarded-Host: t.example",
    ] {
        assert_eq!(asked.matches(&format!("\r\n{line}")).count(), 1, "{line} in {asked}");
    }
    assert!(!asked.contains("root") && !asked.contains("/free") && !asked.contains("bytes="), "{asked}");

    // A body stays with the client until he may pass, and then goes on whole.
    let mut client = Client::connect(&reeve.address());
    client.send("POST /echo HTTP/1.1\r\nHost: a\r\nx-as: joe\r\nContent-Length: 4\r\n\r\npi").expect("sent");
    client.send("ng").expect("sent");
    assert_eq!(client.answer("POST").expect("an answer").text(), "ping");
    assert!(!service.asked().pop().expect("a question").contains("ontent-"));
    client.send("POST /echo HTTP/1.1\r\nHost: a\r\nx-as: eve\r\nContent-Length: 4\r\n\r\nping").expect("sent");
    assert_eq!(client.answer("POST").expect("an answer").status, 403);
    assert_eq!(client.request("GET", "/", &[("x-as", "joe")]).expect("the next one").status, 200);
    let request = http::Request::post("http://t.example/echo").header("x-as", "joe").body(()).expect("a request");
    let body = Body { pieces: vec![b"pi".to_vec(), b"ng".to_vec()], ..Body::default() };
    assert_eq!(session.ask(request, Some(body)).expect("an answer").text(), "ping");
    let head = client.request("HEAD", "/", &[("x-as", "guest")]).expect("a head");
    assert_eq!((head.status, head.field("content-length")), (302, Some("12")));
    // A WebSocket is let in by the same answer, or not at all.
    for (who, status) in [("eve", 403), ("joe", 101)] {
        let mut client = Client::connect(&reeve.address());
        client
            .send(format!(
                "GET /ws HTTP/1.1\r\nHost: a\r\nx-as: {who}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            ))
            .expect("sent");
        assert_eq!(client.head().expect("an answer").status, status);
    }
}

#[test]
fn a_service_over_tls_proves_who_it_is() {
    let _turn = among_others();
    let (ours, strange) = (Authority::new("ours"), Authority::new("strange"));
    let origin = Origin::start("web");
    let config = pool("web", "rr", &[("web", origin.address())]);
    let site = Site::write("auth-tls", &config, "");
    let says = "location = /check { if ($http_x_as = eve) { return 403; } \
                add_header X-Auth-Seen \"$ssl_protocol sni=$ssl_server_name n=$connection_requests\"; return 204; }";
    let servers = [
        ("right", &ours.issue("auth", &["127.0.0.1", "localhost"]), says),
        ("foreign", &strange.issue("auth", &["127.0.0.1"]), says),
        ("named", &ours.issue("auth", &["auth.example"]), says),
        ("expired", &ours.expired("auth", &["127.0.0.1"]), says),
    ];
    let Some(nginx) = Nginx::start(&site.folder, &servers) else { return };
    // By a name where that leads to nginx, so that its SNI is seen.
    let first = ("localhost", 0).to_socket_addrs().ok().and_then(|mut found| found.next());
    let host = if first.is_some_and(|first| first.is_ipv4()) { "localhost" } else { "127.0.0.1" };
    let sni = if host == "localhost" { host } else { "" };
    let mut rules = "http *\n".to_owned();
    let mut rule = |name: &str, url: String| {
        rules += &format!("  {name} : path /{name}  use web\n          auth forward {url}/check\n");
    };
    rule("right", format!("https://{host}:{}", nginx.ports[0].number));
    for (at, name) in [(1, "foreign"), (2, "named"), (3, "expired")] {
        rule(name, format!("https://{}", nginx.ports[at].address()));
    }
    // Not by TLS, to one that speaks nothing else: another connection than that of `right`.
    rule("clear", format!("http://{host}:{}", nginx.ports[0].number));
    site.rewrite(&config, &rules);
    let roots = site.folder.write("roots.pem", ours.pem());
    let mut command = command();
    command.env("SSL_CERT_FILE", &roots).env_remove("SSL_CERT_DIR");
    let reeve = Reeve::run_by(command, site);
    let ask = |path: &str| get(&reeve.address(), path, &[("x-as", "joe")]);
    // Two workers, and each has a connection of its own, which it keeps.
    let counts: Vec<u32> = (0..12)
        .map(|_| {
            let answer = ask("/right");
            let seen = answer.text().lines().find_map(|line| line.strip_prefix("X-Auth-Seen: ").map(str::to_owned));
            let seen = seen.unwrap_or_else(|| panic!("{} {}", answer.status, answer.text()));
            let count = seen.strip_prefix(&format!("TLSv1.3 sni={sni} n=")).unwrap_or_else(|| panic!("{seen}"));
            count.trim().parse().expect("a number")
        })
        .collect();
    assert!(counts.iter().filter(|count| **count == 1).count() <= 2, "{counts:?}");
    assert_eq!(get(&reeve.address(), "/right", &[("x-as", "eve")]).status, 403);
    let served = origin.requests();
    for path in ["/foreign", "/named", "/expired"] {
        assert_eq!(ask(path).status, 503, "{path}");
    }
    // nginx answers 400 where TLS is wanted and not spoken.
    assert_eq!(ask("/clear").status, 502);
    assert_eq!((served, origin.requests()), (12, 12), "no server heard of it");

    // A system that trusts nobody is found out before anything is served.
    let nobody = reeve.site.folder.write("nobody.pem", "");
    let mut command = crate::farm::reeve::command();
    command.env("SSL_CERT_FILE", &nobody).env_remove("SSL_CERT_DIR");
    let (code, out, wrong) =
        crate::farm::process::run(command.arg("check").arg("-c").arg(reeve.site.config()), Duration::from_secs(20));
    assert!(code == 2 && (out.clone() + &wrong).contains("R0131"), "{out}{wrong}");
}

#[test]
fn nothing_passes_while_the_service_is_gone_or_silent_or_changes() {
    let _turn = among_others();
    let (origin, nobody) = (Origin::start("web"), Port::free());
    let config = pool("web", "rr", &[("web", origin.address())]);
    let reeve = Reeve::start("auth-gone", &config, &forward(&nobody.address()));
    for _ in 0..4 {
        let answer = get(&reeve.address(), "/", &[("x-as", "joe")]);
        assert_eq!((answer.status, answer.field("retry-after")), (503, Some("1")));
    }
    // One that says nothing: whoever waits for it goes on waiting over a reload, and is not let in by that.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    reeve.reload(&config, &forward(&silent.local_addr().expect("an address").to_string()));
    let mut waiting = Client::connect(&reeve.address());
    waiting.send("GET / HTTP/1.1\r\nHost: a\r\nx-as: joe\r\n\r\n").expect("sent");
    let (_held, _) = silent.accept().expect("a question");
    let session = Session::connect(&reeve.address());
    let request = http::Request::get("http://t.example/").header("x-as", "joe").body(()).expect("a request");
    let asked = std::thread::spawn(move || session.ask(request, None).map(|reply| reply.status));
    let (_also, _) = silent.accept().expect("a question");
    let service = Service::start();
    reeve.reload(&config, &forward(&service.address));
    observe(Duration::from_millis(200), "no request passes", || origin.made() == 0);
    assert_eq!(get(&reeve.address(), "/", &[("x-as", "eve")]).status, 403);
    assert_eq!(waiting.answer("GET").expect("an answer").status, 503);
    assert_eq!(asked.join().expect("asked").expect("an answer"), 503);
    assert_eq!(origin.made(), 0);
    assert_eq!(get(&reeve.address(), "/", &[("x-as", "joe")]).status, 200);
    let has = |word: &str| reeve.log().iter().any(|line| line["failure"] == word && line["rule"] == "site.rules:all");
    until("the log says why", || has("auth-unreachable").then_some(()));
}
