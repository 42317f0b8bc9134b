//! `tls-passthrough` listeners: the hello is read, the bytes stay sealed.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::time::Duration;

use crate::farm::peer::program;
use crate::farm::ports::Port;
use crate::farm::process::{Process, listens, run};
use crate::farm::reeve::{command, pool};
use crate::farm::{Folder, Reeve, among_others, get, raw, skip, until};

const NAMES: [&str; 3] = ["shop.example", "mail.example", "other.example"];

/// A ClientHello that `openssl s_client` and others once sent.
fn hello(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/client_hello").join(name)).expect("a hello")
}

/// openssl(1), if it is there.
fn openssl() -> Option<Command> {
    static THERE: LazyLock<bool> =
        LazyLock::new(|| Command::new("openssl").arg("version").output().is_ok_and(|output| output.status.success()));
    if !*THERE {
        skip("no openssl");
        return None;
    }
    Some(Command::new("openssl"))
}

/// One TLS server a name, each with a certificate of its own, and Reeve before them.
struct Farm {
    reeve: Reeve,
    port: Port,
    folder: Folder,
    _servers: Vec<(Process, Port)>,
}

const RULES: &str = "http *\n  all : any  deny\ntcp\n  \
     acme  : alpn acme-tls/1                    use other\n  \
     shop  : sni shop.example | *.shop.example  use shop\n  \
     mail  : sni mail.example                   use mail\n  \
     no    : sni banned.example                 deny\n  \
     plain : no-tls                             use plain\n\
     expect tcp sni:www.shop.example -> shop\nexpect tcp sni:shop.example alpn:h2,acme-tls/1 -> other\n\
     expect tcp no-tls -> plain\nexpect tcp sni:nobody.example -> no-route\nexpect tcp -> no-route\n";

fn farm(label: &str) -> Option<Farm> {
    openssl()?;
    let folder = Folder::new("certificates");
    let mut config = String::new();
    let mut servers = Vec::new();
    for name in NAMES {
        let (key, certificate) = (folder.path().join(format!("{name}.key")), folder.path().join(format!("{name}.pem")));
        let mut make = openssl()?;
        make.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]);
        make.arg("-subj")
            .arg(format!("/CN={name}"))
            .arg("-addext")
            .arg(format!("subjectAltName=DNS:{name},DNS:www.{name}"));
        let (code, _, wrong) =
            run(make.arg("-keyout").arg(&key).arg("-out").arg(&certificate), Duration::from_secs(30));
        assert_eq!(code, 0, "{wrong}");
        let port = Port::free();
        let mut server = openssl()?;
        server.args(["s_server", "-accept", &port.address(), "-www", "-quiet", "-alpn", "http/1.1,acme-tls/1"]);
        let mut process = Process::start(server.arg("-key").arg(&key).arg("-cert").arg(&certificate));
        listens(&mut process, &port.address());
        config += &pool(name.split('.').next().expect("a name"), "rr", &[(name, port.address())]);
        servers.push((process, port));
    }
    let plain = raw::serve(|mut stream| {
        let _ = stream.write_all(b"hello, who is it?\n");
        let mut said = Vec::new();
        let _ = stream.read_to_end(&mut said);
        let _ = stream.write_all(&said);
    });
    let port = Port::free();
    config += &pool("plain", "rr", &[("one", plain)]);
    config += &format!(
        "[listen.sealed]\naddress = [\"{}\"]\nprotocol = \"tls-passthrough\"\nrules = [\"rules/site.rules\"]\n\
         [timeouts]\nhello = \"2s\"\n",
        port.address()
    );
    Some(Farm { reeve: Reeve::start(label, &config, RULES), port, folder, _servers: servers })
}

impl Farm {
    fn certificate(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.pem"))
    }

    /// What `openssl s_client` says, given these words: its exit code and output.
    fn s_client(&self, words: &[&str]) -> (i32, String) {
        let mut client = openssl().expect("it was there");
        client.args(["s_client", "-connect", &self.port.address()]).args(words);
        let (code, out, wrong) = run(&mut client, Duration::from_secs(30));
        (code, out + &wrong)
    }

    fn last_line(&self, count: usize) -> serde_json::Value {
        until("a line in the log", || Some(self.reeve.log()).filter(|lines| lines.len() >= count)?.pop())
    }
}

#[test]
fn the_name_chooses_the_server() {
    let _turn = among_others();
    let Some(farm) = farm("sni") else { return };
    let Some(_) = program("curl") else { return skip("no curl") };
    let cases =
        [("shop.example", "shop.example"), ("mail.example", "mail.example"), ("www.shop.example", "shop.example")];
    for (number, (name, server)) in cases.iter().enumerate() {
        for minimum in ["--tlsv1.3", "--tls-max=1.2"] {
            let mut curl = program("curl").expect("it was there");
            curl.args(["--silent", "--show-error", "--fail"]).args(minimum.split('='));
            curl.arg("--cacert").arg(farm.certificate(server));
            curl.arg("--resolve").arg(format!("{name}:{}:127.0.0.1", farm.port.number));
            // It verifies the certificate: only the right server has it.
            let (code, out, wrong) =
                run(curl.arg(format!("https://{name}:{}/", farm.port.number)), Duration::from_secs(30));
            assert!(code == 0 && out.contains("s_server"), "{name}: {out}{wrong}");
        }
        let line = farm.last_line(2 * number + 2);
        let text = |key: &str| line[key].as_str().unwrap_or("null").to_owned();
        assert_eq!(
            (text("proto"), text("sni"), text("server"), text("failure")),
            ("TLS".to_owned(), (*name).to_owned(), (*server).to_owned(), "null".to_owned())
        );
        let rule = if *server == "shop.example" { "site.rules:shop" } else { "site.rules:mail" };
        assert_eq!(text("rule"), rule);
    }
}

#[test]
fn the_protocols_that_are_offered_choose_the_server() {
    let _turn = among_others();
    let Some(farm) = farm("alpn") else { return };
    let (_, out) = farm.s_client(&["-servername", "shop.example", "-alpn", "http/1.1"]);
    assert!(out.contains("CN = shop.example") && out.contains("ALPN protocol: http/1.1"), "{out}");
    let (_, out) = farm.s_client(&["-servername", "shop.example", "-alpn", "h2,acme-tls/1"]);
    assert!(out.contains("CN = other.example") && out.contains("ALPN protocol: acme-tls/1"), "{out}");
}

#[test]
fn who_gets_no_server_is_told_why() {
    let _turn = among_others();
    let Some(farm) = farm("alerts") else { return };
    let (code, out) = farm.s_client(&["-servername", "nobody.example"]);
    assert!(code != 0 && out.contains("unrecognized name"), "{out}");
    let (code, out) = farm.s_client(&["-servername", "banned.example"]);
    assert!(code != 0 && out.contains("access denied"), "{out}");
    let (code, out) = farm.s_client(&["-noservername"]);
    assert!(code != 0 && out.contains("unrecognized name"), "{out}");
    let text = get(&farm.reeve.site.metrics(), "/metrics", &[]).text();
    assert!(text.contains("reeve_rejected_total{listener=\"sealed\",reason=\"no-route\"} 2"), "{text}");
    assert!(text.contains("reeve_rejected_total{listener=\"sealed\",reason=\"denied\"} 1"), "{text}");
    let lines = until("three lines", || Some(farm.reeve.log()).filter(|lines| lines.len() == 3));
    let mut said: Vec<_> = lines.iter().map(|line| line["failure"].as_str().unwrap_or("-")).collect();
    said.sort_unstable();
    assert_eq!(said, ["-", "no-route", "no-route"]);
}

/// A connection between the two whose bytes are sent as the test says.
fn through(farm: &Farm, send: impl FnOnce(&mut TcpStream)) -> TcpStream {
    let mut stream = TcpStream::connect(farm.port.address()).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a deadline");
    stream.set_nodelay(true).expect("no delay");
    send(&mut stream);
    stream
}

/// The first bytes of a ServerHello: a record, and the message in it.
fn is_answered(stream: &mut TcpStream) {
    let head = raw::exactly(stream, 6);
    assert_eq!((head[0], head[1], head[5]), (22, 3, 2), "{head:?}");
}

#[test]
fn a_hello_may_come_in_pieces() {
    let _turn = among_others();
    let Some(farm) = farm("pieces") else { return };
    let whole = hello("openssl-13");
    is_answered(&mut through(&farm, |stream| stream.write_all(&whole).expect("sent")));
    // A segment a byte.
    is_answered(&mut through(&farm, |stream| {
        whole.chunks(1).for_each(|byte| stream.write_all(byte).expect("sent"));
    }));
    // Two records, cut within the name and in two segments.
    let (first, second) = whole[5..].split_at(130);
    let record = |piece: &[u8]| [&[22, 3, 1], &(piece.len() as u16).to_be_bytes()[..], piece].concat();
    is_answered(&mut through(&farm, |stream| {
        stream.write_all(&record(first)).expect("sent");
        stream.write_all(&record(second)).expect("sent");
    }));
    // As large as post-quantum key shares and a ticket make one: several segments.
    let (_, out) = farm.s_client(&["-servername", "shop.example", "-alpn", &offers(900)]);
    assert!(out.contains("CN = shop.example"), "{out}");
    // One that a browser sent, of 1.7 KiB; s_server knows none of its key shares but one.
    let browser = hello("browser-post-quantum");
    is_answered(&mut through(&farm, |stream| stream.write_all(&browser).expect("sent")));
}

/// So many protocols that no server has heard of, and one that it has.
fn offers(count: usize) -> String {
    (0..count).map(|n| format!("x-{n:04},")).collect::<String>() + "http/1.1"
}

#[test]
fn what_is_no_hello_is_refused() {
    let _turn = among_others();
    let Some(farm) = farm("bad-hello") else { return };
    let mut whole = hello("openssl-13");
    // Another version of the record, another message, a length that does not fit.
    let mut cases = vec![vec![22, 2], vec![22, 3, 1, 0, 4, 2, 0, 0, 0]];
    whole[8] ^= 1;
    whole.push(0);
    cases.push(whole);
    for bytes in &cases {
        let mut told = Vec::new();
        let _ = through(&farm, |stream| stream.write_all(bytes).expect("sent")).read_to_end(&mut told);
        // A fatal alert: decode_error.
        assert_eq!(told, [21, 3, 1, 0, 2, 2, 50], "{bytes:?}");
    }
    // One that never ends, and one whose sender has gone.
    let begun = &hello("openssl-13")[..100];
    let mut told = Vec::new();
    let _ = through(&farm, |stream| stream.write_all(begun).expect("sent")).read_to_end(&mut told);
    assert_eq!(told, [21, 3, 1, 0, 2, 2, 50]);
    let mut told = Vec::new();
    let ended = |stream: &mut TcpStream| {
        stream.write_all(begun).expect("sent");
        stream.shutdown(Shutdown::Write).expect("ended");
    };
    let _ = through(&farm, ended).read_to_end(&mut told);
    assert_eq!(told, b"");
    let text = get(&farm.reeve.site.metrics(), "/metrics", &[]).text();
    assert!(text.contains("reeve_rejected_total{listener=\"sealed\",reason=\"client-hello\"} 4"), "{text}");
    let lines = until("five lines", || Some(farm.reeve.log()).filter(|lines| lines.len() == 5));
    let mut said: Vec<_> = lines.iter().filter_map(|line| line["failure"].as_str()).collect();
    // Each worker writes its own.
    said.sort_unstable();
    assert_eq!(said, ["bad-hello", "bad-hello", "bad-hello", "client-gone", "hello-timeout"]);
}

#[test]
fn clients_without_tls_have_a_rule_of_their_own() {
    let _turn = among_others();
    let Some(farm) = farm("no-tls") else { return };
    // The first byte belongs to no hello.
    let mut client = through(&farm, |stream| stream.write_all(b"it is me").expect("sent"));
    assert_eq!(raw::line(&mut client), "hello, who is it?\n");
    client.shutdown(Shutdown::Write).expect("half closed");
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).expect("the echo");
    assert_eq!(rest, b"it is me", "nothing is lost");
    // No byte at all in the time of a hello.
    let mut client = through(&farm, |_| {});
    assert_eq!(raw::line(&mut client), "hello, who is it?\n");
    drop(client);
    let line = farm.last_line(2);
    assert_eq!((line["proto"].as_str(), line["rule"].as_str()), (Some("TCP"), Some("site.rules:plain")));
    // Who says nothing and goes leaves no line: that is how ports are probed.
    drop(through(&farm, |stream| stream.shutdown(Shutdown::Write).expect("ended")));
    is_answered(&mut through(&farm, |stream| stream.write_all(&hello("openssl-13")).expect("sent")));
    assert_eq!(farm.last_line(3)["proto"], "TLS");
    assert_eq!(farm.reeve.log().len(), 3);
}

#[test]
fn explain_agrees_with_traffic() {
    let _turn = among_others();
    let Some(farm) = farm("explain-tcp") else { return };
    let explain = |facts: &[&str]| {
        let config = farm.reeve.site.config();
        run(command().args(["explain", "tcp"]).args(facts).arg("-c").arg(config), Duration::from_secs(20))
    };
    let (code, out, wrong) = explain(&["sni:WWW.shop.example"]);
    assert!(code == 0 && out.contains("site.rules:shop") && out.contains("pool      shop, rr"), "{out}{wrong}");
    let (_, out, _) = explain(&["sni:shop.example", "alpn:h2,acme-tls/1"]);
    assert!(out.contains("pool      other, rr"), "{out}");
    let (_, out, _) = explain(&["no-tls"]);
    assert!(out.contains("pool      plain, rr"), "{out}");
    let (code, out, _) = explain(&["sni:nobody.example"]);
    assert!(code == 1 && out.contains("no: sni shop.example | *.shop.example (saw nobody.example)"), "{out}");
}
