//! Clients that come by TLS: openssl, curl, and one of ours that looks closer.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use rustls::HandshakeKind;

use crate::farm::h2::{Body, Frame, Frames, GET, PREFACE, Session, code};
use crate::farm::nginx::Nginx;
use crate::farm::origin::is_pattern;
use crate::farm::peer::program;
use crate::farm::ports::Port;
use crate::farm::process::run;
use crate::farm::reeve::{Site, pool};
use crate::farm::{Authority, Client, Folder, Issued, Origin, Reeve, among_others, get, observe, skip, until};

const DEADLINE: Duration = Duration::from_secs(60);
const RULES: &str = "http *\n  all : any  use web\n";

/// Listeners by TLS: a name, and what besides the certificates stands in `tls`.
struct Secure {
    reeve: Reeve,
    ports: Vec<Port>,
    authority: Authority,
}

impl Secure {
    /// Before `origin`, with a certificate for t.example, localhost and 127.0.0.1.
    fn start(label: &str, origin: &Origin, listeners: &[(&str, &str)], rules: &str) -> Secure {
        Secure::with_files(label, origin, listeners, rules, &[])
    }

    /// With these files besides.
    fn with_files(
        label: &str,
        origin: &Origin,
        listeners: &[(&str, &str)],
        rules: &str,
        files: &[(&str, String)],
    ) -> Secure {
        let ports: Vec<Port> = listeners.iter().map(|_| Port::free()).collect();
        let mut config = pool("web", "rr", &[("web", origin.address())]);
        for ((name, tls), port) in listeners.iter().zip(&ports) {
            config += &format!(
                "\n[listen.{name}]\naddress = \"{}\"\nrules = [\"rules/site.rules\"]\n\
                 tls = {{ certificates = \"certs\"{tls} }}\n",
                port.address()
            );
        }
        config += "\n[state]\npath = \"state\"\n\n[timeouts]\ntls-handshake = \"700ms\"\n";
        let site = Site::write(label, &config, rules);
        let authority = Authority::new("the test's own");
        site.folder.write("ca.pem", authority.pem());
        site_certificate(&authority).write(&site.folder, "certs/site");
        for (name, text) in files {
            site.folder.write(name, text);
        }
        Secure { reeve: Reeve::run(site), ports, authority }
    }

    fn address(&self, at: usize) -> String {
        self.ports[at].address()
    }

    fn url(&self, at: usize, path: &str) -> String {
        format!("https://{}{path}", self.address(at))
    }

    fn path(&self, name: &str) -> String {
        self.reeve.site.folder.path().join(name).display().to_string()
    }

    /// What a counter has, over all of its lines with these words.
    fn counted(&self, name: &str, words: &[&str]) -> u64 {
        let page = get(&self.reeve.site.metrics(), "/metrics", &[]).text();
        let lines = page.lines().filter(|line| line.starts_with(name) && words.iter().all(|word| line.contains(word)));
        lines.map(|line| line.rsplit(' ').next().and_then(|n| n.parse::<u64>().ok()).expect("a number")).sum()
    }
}

fn site_certificate(authority: &Authority) -> Issued {
    authority.issue("t.example", &["t.example", "localhost", "127.0.0.1"])
}

fn sh(script: &str) -> (i32, String) {
    let (code, out, wrong) = run(Command::new("sh").args(["-c", script]), DEADLINE);
    (code, out + &wrong)
}

#[test]
fn openssl_resumes_twelve_of_twelve_over_two_workers_and_a_restart() {
    let _turn = among_others();
    if program("openssl").is_none() && sh("openssl version").0 != 0 {
        return skip("no openssl");
    }
    let origin = Origin::start("web");
    let mut secure = Secure::start("resume", &origin, &[("secure", "")], RULES);
    let ask = |secure: &Secure, options: &str| {
        let (code, said) = sh(&format!(
            "printf 'GET / HTTP/1.1\\r\\nHost: t.example\\r\\nConnection: close\\r\\n\\r\\n' | \
             openssl s_client -connect {} -servername t.example -CAfile {} -verify_return_error -ign_eof {options}",
            secure.address(0),
            secure.path("ca.pem"),
        ));
        assert!(code == 0 && said.contains("X-Origin: web"), "{options}: {said}");
        said.lines().any(|line| line.starts_with("Reused, "))
    };
    for (n, options) in ["-tls1_3", "-tls1_2", "-tls1_2 -no_ticket"].into_iter().enumerate() {
        let file = secure.path(&format!("session-{n}"));
        assert!(!ask(&secure, &format!("{options} -sess_out {file}")), "{options}: the first is whole");
        let again = || ask(&secure, &format!("{options} -sess_in {file} -sess_out {file}"));
        let reused = (0..12).filter(|_| again()).count();
        assert_eq!(reused, 12, "{options}");
    }
    assert_eq!(secure.counted("reeve_tls_handshakes_total", &["\"secure\"", "\"1.3\"", "resumed=\"yes\""]), 12);
    assert_eq!(secure.counted("reeve_tls_handshakes_total", &["\"secure\"", "\"1.2\"", "resumed=\"yes\""]), 24);
    assert_eq!(secure.counted("reeve_tls_handshakes_total", &["\"secure\"", "resumed=\"no\""]), 3);

    // Tickets outlive the process: their keys are in the state folder.
    secure.reeve.process.signal(Signal::TERM);
    secure.reeve.process.exit(Duration::from_secs(20));
    secure.reeve.again();
    for (n, options) in ["-tls1_3", "-tls1_2"].into_iter().enumerate() {
        let file = secure.path(&format!("session-{n}"));
        assert!(ask(&secure, &format!("{options} -sess_in {file}")), "{options} after a restart");
    }
}

/// curl that believes the test's authority; its output and, where it failed, what it said.
fn curl(secure: &Secure, options: &[&str], url: &str) -> Result<String, String> {
    let mut curl = program("curl").expect("it was there");
    curl.args(["--silent", "--show-error", "--max-time", "50", "--cacert", &secure.path("ca.pem")]);
    let (code, out, wrong) = run(curl.args(options).arg(url), DEADLINE);
    if code == 0 { Ok(out) } else { Err(wrong) }
}

#[test]
fn curl_speaks_both_versions_and_the_origin_hears_https() {
    let _turn = among_others();
    if program("curl").is_none() {
        return skip("no curl");
    }
    let origin = Origin::start("web");
    let secure = Secure::start("curl-tls", &origin, &[("both", ""), ("newest", ", minimum = \"1.3\"")], RULES);
    for (options, version) in
        [(["--tlsv1.2", "--tls-max", "1.2"], "TLSv1.2"), (["--tlsv1.3", "--tls-max", "1.3"], "TLSv1.3")]
    {
        let resolve = format!("t.example:{}:127.0.0.1", secure.ports[0].number);
        let options = [&options[..], &["--resolve", &resolve]].concat();
        let url = format!("https://t.example:{}/x?{version}", secure.ports[0].number);
        let said = curl(&secure, &options, &url).expect("an answer");
        assert!(said.contains("X-Forwarded-Proto: https\r\n"), "{said}");
        let line =
            until("its line in the log", || secure.reeve.log().into_iter().find(|line| line["query"] == version));
        assert_eq!(
            (&line["tls"], &line["sni"], &line["listener"]),
            (&version.into(), &"t.example".into(), &"both".into())
        );
    }
    assert_eq!(curl(&secure, &["--data", "name=value"], &secure.url(0, "/echo")), Ok("name=value".to_owned()));
    assert_eq!(curl(&secure, &[], &secure.url(0, "/chunked")), Ok("abcdef".to_owned()));
    let into = secure.path("got");
    for size in [100_000, 20_000_003] {
        curl(&secure, &["--output", &into], &secure.url(0, &format!("/sized/{size}"))).expect("an answer");
        let got = std::fs::read(&into).expect("the file");
        assert!(got.len() == size && is_pattern(0, &got), "{size}");
    }
    let up = ["--header", "Expect:", "--upload-file", &into];
    assert_eq!(curl(&secure, &up, &secure.url(0, "/measure")), Ok("20000003 as sent".to_owned()));
    assert!(curl(&secure, &["--tls-max", "1.2"], &secure.url(1, "/")).is_err(), "1.2 is too old there");
    assert!(curl(&secure, &["--tlsv1.3"], &secure.url(1, "/")).is_ok());
    assert_eq!(secure.counted("reeve_rejected_total", &["\"newest\"", "tls-incompatible"]), 1);
    let chosen = |options: &[&str]| {
        let options = [options, &["--output", "/dev/null", "--write-out", "%{http_version}"]].concat();
        curl(&secure, &options, &secure.url(0, "/sized/100000"))
    };
    assert_eq!(chosen(&["--http2"]), Ok("2".to_owned()), "ALPN chooses");
    assert_eq!(chosen(&["--http1.1"]), Ok("1.1".to_owned()));
    assert_eq!(chosen(&["--no-alpn"]), Ok("1.1".to_owned()));
}

/// Reeve before itself: servers that are spoken to in HTTP/2 by TLS, or in what they choose.
#[test]
fn servers_that_choose_http2() {
    let _turn = among_others();
    if program("curl").is_none() {
        return skip("no curl");
    }
    let origin = Origin::start("web");
    let secure = Secure::start("h2-tls", &origin, &[("behind", "")], RULES);
    let tls = format!("tls = {{ ca = \"{}\", server-name = \"t.example\" }}\n", secure.path("ca.pem"));
    for (protocol, behind) in [("h2", "HTTP/2.0"), ("auto", "HTTP/2.0"), ("http1", "HTTP/1.1")] {
        let check = "check = { http = \"/sized/1\", interval = \"200ms\", timeout = \"200ms\", rise = 1 }\n";
        let config = pool("web", "rr", &[("behind", secure.address(0))]) + &format!("protocol = \"{protocol}\"\n");
        let front = Reeve::start("h2-front", &(config + &tls + check), RULES);
        until("the server up", || (get(&front.address(), "/sized/1", &[]).status == 200).then_some(()));
        let path = format!("/echo?{protocol}");
        let chunked = ["--header", "Transfer-Encoding: chunked", "--data", "some data"];
        for options in [&chunked[..], &["--http2-prior-knowledge", "--data", "some data"], &["--data", "some data"]] {
            assert_eq!(curl(&secure, options, &front.url(&path)), Ok("some data".to_owned()), "{protocol} {options:?}");
        }
        let lines = until("its lines in the log", || {
            let all = secure.reeve.log().into_iter().filter(|line| line["query"] == protocol).collect::<Vec<_>>();
            (all.len() == 3).then_some(all)
        });
        assert!(lines.iter().all(|line| line["proto"] == behind && line["tls"] == "TLSv1.3"), "{lines:?}");
    }
    // HTTP/1 alone is not what was asked for.
    let plain = pool("web", "rr", &[("plain", origin.address())]) + "protocol = \"h2\"\n" + &tls;
    let front = Reeve::start("h2-none", &plain, RULES);
    assert_eq!(get(&front.address(), "/", &[]).status, 502);
}

/// Chunks that a server of HTTP/1 has got go on as frames where the next try leads to one of HTTP/2.
#[test]
fn another_try_in_another_language() {
    let _turn = among_others();
    let origin = Origin::start("web");
    let secure = Secure::start("h2-retry", &origin, &[("behind", "")], RULES);
    let folder = Folder::new("http1-server");
    let issued = secure.authority.issue("old", &["t.example"]);
    let Some(nginx) = Nginx::start(&folder, &[("old", &issued, "location /echo { return 503; }")]) else { return };
    let servers = [("old", nginx.ports[0].address()), ("new", secure.address(0))];
    let config = pool("web", "rr", &servers)
        + "protocol = \"auto\"\nretry = { attempts = 1, on = [\"503\"] }\n"
        + &format!("tls = {{ ca = \"{}\", server-name = \"t.example\" }}\n", secure.path("ca.pem"));
    let front = Reeve::start("h2-retry-front", &config, RULES);
    let session = Session::connect(&front.address());
    for n in 0..4 {
        let mut client = Client::connect(&front.address());
        client
            .send(format!(
                "PUT /echo?{n} HTTP/1.1\r\nHost: t.example\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nin a \r\n5\r\nchunk\r\n0\r\n\r\n"
            ))
            .expect("sent");
        let answer = client.answer("PUT").expect("an answer");
        assert_eq!((answer.status, answer.text().as_str()), (200, "in a chunk"));
        let request = http::Request::put(format!("http://t.example/echo?{n}")).body(()).expect("a request");
        let body = Body { pieces: vec![b"in ".to_vec(), b"frames".to_vec()], ..Body::default() };
        let reply = session.ask(request, Some(body)).expect("an answer");
        // Of a body that was still coming nothing is here to be sent once more.
        assert!(reply.status == 503 || (reply.status, reply.text().as_str()) == (200, "in frames"), "{}", reply.status);
    }
    let log = until("the lines in the log", || Some(front.log()).filter(|log| log.len() == 8));
    let twice = log.iter().filter(|line| line["tries"] == 2 && line["status"] == 200 && line["proto"] == "HTTP/1.1");
    assert!(twice.count() > 0, "{log:?}");
}

#[test]
fn names_choose_the_certificate() {
    let _turn = among_others();
    let origin = Origin::start("web");
    let rules = "http *\n  a : sni *.a.example & alpn http/1.1  answer 200 \"a\"\n  all : any  use web\n";
    let secure = Secure::start("sni", &origin, &[("secure", "")], rules);
    let client = Arc::new(secure.authority.client());
    let other = secure.authority.issue("a.example", &["a.example", "*.a.example"]);
    other.write(&secure.reeve.site.folder, "certs/other");
    let seen = |name: &str| Client::secure(&secure.address(0), name, &client).map(|client| client.leaf());
    until("the new one is in place", || seen("www.a.example").ok().filter(|leaf| *leaf == other.der()));
    assert_eq!(seen("a.example").expect("known"), other.der());
    // `other` is the first by name; nobody asked for an address by name.
    let error = seen("127.0.0.1").expect_err("the first by name has no address").to_string();
    assert!(error.contains("not valid for name"), "{error}");
    // The client judges the one it got by the name it asked for.
    let error = seen("nobody.example").expect_err("no certificate for it").to_string();
    assert!(error.contains("not valid for name"), "{error}");
    let mut client = Client::secure(&secure.address(0), "www.A.example", &client).expect("a star and any case");
    assert_eq!(client.request("GET", "/", &[("Host", "www.a.example")]).expect("an answer").text(), "a");
    until("the client's complaint is counted", || {
        (secure.counted("reeve_rejected_total", &["\"secure\"", "tls-alert"]) >= 2).then_some(())
    });
}

#[test]
fn client_certificates_are_asked_for_verified_and_told() {
    let _turn = among_others();
    if program("curl").is_none() {
        return skip("no curl");
    }
    let origin = Origin::start("web");
    let with = |word: &str| format!(", client-ca = \"clients.pem\", client-certificate = \"{word}\"");
    let (optional, required) = (with("optional"), with("required"));
    let listeners = [("open", ""), ("optional", &*optional), ("required", &*required)];
    let clients = Authority::new("clients");
    let rules = "http *\n  joe : path /who & client-cert san = \"joe@ops.example\"  answer 200 \"joe\"\n  \
                 some : path /who & client-cert issuer = \"CN=clients\"  answer 200 \"some\"\n  \
                 none : path /who  answer 200 \"nobody\"\n  all : any  use web\n";
    let secure = Secure::with_files("mtls", &origin, &listeners, rules, &[("clients.pem", clients.pem())]);
    let folder = &secure.reeve.site.folder;
    let shown = |issued: Issued, stem: &str| {
        let (certificate, key) = issued.write(folder, stem);
        ["--cert".to_owned(), certificate.display().to_string(), "--key".to_owned(), key.display().to_string()]
    };
    let joe = shown(clients.issue("joe", &["joe@ops.example"]), "joe");
    let ann = shown(clients.issue("ann", &["ann@ops.example"]), "ann");
    let old = shown(clients.expired("joe", &["joe@ops.example"]), "old");
    let wrong = shown(Authority::new("clients").issue("joe", &["joe@ops.example"]), "wrong");
    let none = Vec::new();
    let forged = ["X-Client-Cert-Subject: CN=root", "x-client-cert-verified: SUCCESS", "X-CLIENT_CERT-FINGERPRINT: 00"];
    let forged: Vec<&str> = forged.iter().flat_map(|field| ["--header", *field]).collect();
    let ask = |at: usize, own: &[String], version: &str, path: &str| {
        let own = own.iter().map(String::as_str);
        let options: Vec<&str> = own.chain(["--tls-max", version]).chain(forged.iter().copied()).collect();
        curl(&secure, &options, &secure.url(at, path))
    };
    for version in ["1.2", "1.3"] {
        for (at, own, expected) in [
            (0, &none[..], Some("nobody")),
            (0, &joe[..], Some("nobody")),
            (1, &none, Some("nobody")),
            (1, &joe, Some("joe")),
            (1, &ann, Some("some")),
            (1, &old, None),
            (1, &wrong, None),
            (2, &none, None),
            (2, &joe, Some("joe")),
            (2, &old, None),
            (2, &wrong, None),
        ] {
            let said = ask(at, own, version, "/who");
            assert_eq!(said.as_deref().ok(), expected, "{} {own:?} {version}: {said:?}", listeners[at].0);
            if expected.is_none() {
                continue;
            }
            let head = ask(at, own, version, "/head").expect("an answer").to_ascii_lowercase();
            let fields: Vec<&str> = head.lines().filter(|line| line.starts_with("x-client")).collect();
            match expected {
                Some("nobody") => assert!(fields.is_empty(), "{fields:?}"),
                _ => {
                    let subject = if own == &joe[..] { "cn=joe" } else { "cn=ann" };
                    assert_eq!(fields.len(), 3, "{fields:?}");
                    assert_eq!(fields[0], format!("x-client-cert-subject: {subject}"));
                    assert!(fields[1].len() == "x-client-cert-fingerprint: ".len() + 64, "{fields:?}");
                    assert_eq!(fields[2], "x-client-cert-verified: success");
                }
            }
        }
    }
    assert_eq!(secure.counted("reeve_rejected_total", &["\"optional\"", "tls-client-certificate"]), 4);
    assert_eq!(secure.counted("reeve_rejected_total", &["\"required\"", "tls-client-certificate"]), 6);
    // The fields are removed from clients in clear too.
    let forged = [("X-Client-Cert-Subject", "CN=root"), ("X-Client-Cert-Verified", "SUCCESS")];
    let head = get(&secure.reeve.address(), "/head", &forged).text().to_ascii_lowercase();
    assert!(!head.contains("x-client"), "{head}");
    crossing(&secure, &joe);
}

/// openssl takes a session of the open listener to those that ask for a certificate, and back.
fn crossing(secure: &Secure, joe: &[String]) {
    if sh("openssl version").0 != 0 {
        return skip("no openssl");
    }
    let ask = |at: usize, options: &str| {
        let (_, said) = sh(&format!(
            "printf 'GET /who HTTP/1.1\\r\\nHost: t.example\\r\\nConnection: close\\r\\n\\r\\n' | \
             openssl s_client -connect {} -servername t.example -CAfile {} -ign_eof {options}",
            secure.address(at),
            secure.path("ca.pem"),
        ));
        (said.lines().any(|line| line.starts_with("Reused, ")), said)
    };
    for options in ["-tls1_3", "-tls1_2", "-tls1_2 -no_ticket"] {
        let (open, own) = (secure.path("open-session"), secure.path("own-session"));
        let joe = format!("-cert {} -key {}", joe[1], joe[3]);
        ask(0, &format!("{options} -sess_out {open}"));
        assert!(ask(0, &format!("{options} -sess_in {open}")).0, "{options}: it is good where it was made");
        let (reused, said) = ask(1, &format!("{options} -sess_in {open}"));
        assert!(!reused && said.contains("nobody"), "{options}: {said}");
        let (reused, said) = ask(2, &format!("{options} -sess_in {open}"));
        assert!(!reused && !said.contains("HTTP/1.1 200"), "{options}: {said}");
        let (_, said) = ask(2, &format!("{options} {joe} -sess_out {own}"));
        assert!(said.contains("\njoe") || said.contains("joe"), "{options}: {said}");
        // The session brings the identity along, without the certificate being shown again.
        let (reused, said) = ask(2, &format!("{options} -sess_in {own}"));
        assert!(reused && said.contains("HTTP/1.1 200") && said.contains("joe"), "{options}: {said}");
        for at in [0, 1] {
            let (reused, said) = ask(at, &format!("{options} -sess_in {own}"));
            assert!(!reused && said.contains("nobody"), "{options} at {at}: {said}");
        }
    }
}

#[test]
fn certificates_are_swapped_while_a_download_runs() {
    let _turn = among_others();
    let origin = Origin::start("web");
    let secure = Secure::start("swap", &origin, &[("secure", "")], RULES);
    let config = Arc::new(secure.authority.client());
    let connect = || Client::secure(&secure.address(0), "t.example", &config).expect("a handshake");
    let first = connect().leaf();
    const SIZE: u64 = 60_000_000;
    let mut download = connect();
    download.send(format!("GET /sized/{SIZE} HTTP/1.1\r\nHost: t.example\r\n\r\n")).expect("sent");
    assert_eq!(download.head().expect("a head").status, 200);
    let mut bytes = vec![0; 1 << 16];
    let mut got = download.read(&mut bytes).expect("a beginning") as u64;
    assert!(is_pattern(0, &bytes[..got as usize]));

    let renewed = site_certificate(&secure.authority);
    renewed.write(&secure.reeve.site.folder, "certs/site");
    until("the renewed certificate is shown", || (connect().leaf() == renewed.der()).then_some(()));
    assert_ne!(first, renewed.der());
    // A key that does not belong to it: the good ones stay.
    secure.reeve.site.folder.write("certs/site.key", site_certificate(&secure.authority).key);
    until("the fault is told", || {
        let said = secure.reeve.process.stderr();
        (said.contains("R0132") && said.contains("stay as they are")).then_some(())
    });
    observe(Duration::from_millis(300), "the good certificate stays", || connect().leaf() == renewed.der());

    while got < SIZE {
        let count = download.read(&mut bytes).expect("the rest");
        assert!(count > 0 && is_pattern(got, &bytes[..count]), "at {got}");
        got += count as u64;
    }
    assert_eq!(download.request("GET", "/sized/3", &[]).expect("its connection stays").body.len(), 3);
}

#[test]
fn who_speaks_no_tls_is_counted_and_let_go() {
    let _turn = among_others();
    let origin = Origin::start("web");
    let secure = Secure::start("no-tls", &origin, &[("secure", "")], RULES);
    let said = |bytes: &[u8]| {
        let mut stream = TcpStream::connect(secure.address(0)).expect("a connection");
        Client::prepare(&stream).expect("deadlines");
        stream.write_all(bytes).expect("sent");
        let mut answer = Vec::new();
        // A reset is an end too.
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    };
    let counted = |reason: &str, count: u64| {
        until(&format!("{count} {reason}"), || {
            (secure.counted("reeve_rejected_total", &["\"secure\"", &format!("\"{reason}\"")]) == count).then_some(())
        });
    };
    let plain = said(b"GET / HTTP/1.1\r\nHost: t.example\r\n\r\n");
    assert!(plain.starts_with("HTTP/1.1 400 ") && plain.ends_with("This port speaks https, not http.\r\n"), "{plain}");
    assert_eq!(said(&[0x80, 0x2e, 1, 0, 2]), "");
    counted("plain-on-tls", 2);
    // A record that is none, and half a hello that never gets whole.
    said(&[0x16, 3, 1, 0, 4, 1, 0, 0, 0]);
    counted("tls-invalid", 1);
    said(&[0x16, 3, 1, 2, 0, 1, 0]);
    counted("tls-timeout", 1);
    drop(TcpStream::connect(secure.address(0)));
    counted("tls-closed", 1);
    assert_eq!(origin.requests(), 0);
    // And the other way round.
    let mut stream = TcpStream::connect(secure.reeve.address()).expect("a connection");
    stream.write_all(&[0x16, 3, 1, 0, 4, 1, 0, 0, 0]).expect("sent");
    let _ = stream.read_to_end(&mut Vec::new());
    until("TLS on a port in clear", || {
        (secure.counted("reeve_rejected_total", &["\"web\"", "tls-on-plain"]) == 1).then_some(())
    });
    let good = Client::secure(&secure.address(0), "t.example", &Arc::new(secure.authority.client()));
    assert_eq!(good.expect("a handshake").request("GET", "/", &[]).expect("an answer").status, 200);
}

#[test]
fn a_websocket_passes_through_tls_and_the_strongest_group_is_chosen() {
    let _turn = among_others();
    let origin = Origin::start("web");
    let secure = Secure::start("wss", &origin, &[("secure", "")], RULES);
    let config = Arc::new(secure.authority.client());
    let mut client = Client::secure(&secure.address(0), "t.example", &config).expect("a handshake");
    let group = client.session().negotiated_key_exchange_group().map(|group| group.name());
    assert_eq!(group, Some(rustls::NamedGroup::X25519MLKEM768));
    assert_eq!(client.session().alpn_protocol(), Some(&b"http/1.1"[..]));
    let fields = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    assert_eq!(client.request("GET", "/ws", &fields).expect("an answer").status, 101);
    for size in [1, 5_000, 200_000] {
        let sent: Vec<u8> = (0..size).map(|n| (n % 253) as u8).collect();
        client.send(&sent).expect("sent");
        let mut back = vec![0; size];
        client.read_exact(&mut back).expect("its echo");
        assert!(back == sent, "{size}");
    }
    // What our own client was given, it can use again, over either worker.
    for _ in 0..8 {
        let mut client = Client::secure(&secure.address(0), "t.example", &config).expect("a handshake");
        assert_eq!(client.session().handshake_kind(), Some(HandshakeKind::Resumed));
        client.request("GET", "/", &[]).expect("an answer, and tickets");
    }
}

/// Each byte in a record of its own, as far as the first request and its answer.
#[test]
fn http2_that_comes_byte_by_byte() {
    let _turn = among_others();
    let origin = Origin::start("web");
    let secure = Secure::start("h2-dripped", &origin, &[("secure", "")], RULES);
    let mut client = secure.authority.client();
    client.alpn_protocols = vec![b"h2".to_vec()];
    let client = Client::secure(&secure.address(0), "t.example", &Arc::new(client)).expect("a handshake");
    let mut frames = Frames::over(client.into_inner());
    let request = Frame::request(1, code::END_STREAM | code::END_HEADERS, &GET);
    let said = [PREFACE, &Frame::new(code::SETTINGS, 0, 0, []).bytes(), &request.bytes()].concat();
    for byte in said {
        assert!(frames.write(&[byte]));
    }
    let settings = frames.read().expect("a frame");
    assert_eq!((settings.kind, settings.flags), (code::SETTINGS, 0));
    let body = frames.wait_for(|frame| frame.kind == code::DATA);
    assert!(body.stream == 1 && is_pattern(0, &body.payload) && body.payload.len() == 10, "{body:?}");
    let line = until("its line in the log", || secure.reeve.log().pop());
    assert_eq!((&line["proto"], &line["status"], &line["tls"]), (&"HTTP/2.0".into(), &200.into(), &"TLSv1.3".into()));
}

#[test]
fn check_tells_of_certificates_and_touches_nothing() {
    let _turn = among_others();
    let origin = Origin::start("web");
    let config = pool("web", "rr", &[("web", origin.address())])
        + "\n[listen.secure]\naddress = \"127.0.0.1:1\"\ntls = { certificates = \"certs\" }\npool = \"web\"\n\
           \n[state]\npath = \"state\"\n";
    let site = Site::write("check-tls", &config, RULES);
    let check = |site: &Site| run(crate::farm::reeve::command().arg("check").arg("-c").arg(site.config()), DEADLINE);
    let (code, _, said) = check(&site);
    assert!(code == 2 && said.contains("there is no such folder [R0133]"), "{code}: {said}");
    let authority = Authority::new("any");
    let (own, other) = (site_certificate(&authority), site_certificate(&authority));
    own.write(&site.folder, "certs/site");
    assert_eq!(check(&site).0, 0);
    site.folder.write("certs/site.key", other.key);
    let (code, _, said) = check(&site);
    assert!(code == 2 && said.contains("certs/site.key does not belong to the certificate in"), "{code}: {said}");
    assert!(!Path::new(&site.folder.path().join("state")).exists(), "check writes nothing");
}

#[test]
fn without_a_place_for_its_keys_it_serves_and_says_so() {
    let _turn = among_others();
    let origin = Origin::start("web");
    let port = Port::free();
    let config = pool("web", "rr", &[("web", origin.address())])
        + &format!(
            "\n[listen.secure]\naddress = \"{}\"\npool = \"web\"\ntls = {{ certificates = \"certs\" }}\n\
             \n[state]\npath = \"reeve.toml/state\"\n",
            port.address()
        );
    let site = Site::write("stateless", &config, RULES);
    let authority = Authority::new("any");
    site_certificate(&authority).write(&site.folder, "certs/site");
    let reeve = Reeve::run(site);
    let client = Arc::new(authority.client());
    for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
        let mut client = Client::secure(&port.address(), "localhost", &client).expect("a handshake");
        assert_eq!(client.session().handshake_kind(), Some(kind));
        assert_eq!(client.request("GET", "/", &[]).expect("an answer").status, 200);
    }
    reeve.process.says("the keys of TLS sessions cannot be kept");
}
