//! Whose connection it is: PROXY headers that come in, and those that go out.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use crate::farm::authority::TlsStream;
use crate::farm::peer::{daemon, program};
use crate::farm::ports::Port;
use crate::farm::process::{Process, listens, run};
use crate::farm::reeve::{Site, pool};
use crate::farm::{Authority, Client, Folder, Issued, Origin, Reeve, among_others, get, observe, raw, skip, until};

const REQUEST: &str = "GET /who HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
const LINE: &str = "PROXY TCP4 192.0.2.17 198.51.100.2 56324 443\r\n";
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Version 2 with this version and command, this family and this rest.
fn v2(first: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    [SIGNATURE, &[first, family], &(rest.len() as u16).to_be_bytes(), rest].concat()
}

const V4: [u8; 12] = [192, 0, 2, 17, 198, 51, 100, 2, 0xdc, 0x04, 0x01, 0xbb];

/// Reeve before `origin` with one more listener, `proxied`, that is told whose connections it gets.
fn farm(label: &str, origin: &Origin, accept: &str, more: &str) -> (Reeve, Port) {
    let port = Port::free();
    let config = format!(
        "{}\n[listen.proxied]\naddress = [\"{}\"]\nrules = [\"rules/site.rules\"]\naccept-proxy-protocol = {accept}\n{more}",
        pool("web", "rr", &[("web", origin.address())]),
        port.address()
    );
    let rules = "http *\n  far : from 192.0.2.0/24 & path /far  answer 418\n  all : any  use web\n";
    (Reeve::start(label, &config, rules), port)
}

/// What comes back on a connection on which `bytes` are sent, `piece` at a time.
fn answer(address: &str, bytes: &[u8], piece: usize) -> String {
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a deadline");
    stream.set_nodelay(true).expect("no delay");
    for piece in bytes.chunks(piece) {
        // One that has been closed already has its answer.
        if stream.write_all(piece).is_err() {
            break;
        }
    }
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// `reeve_rejected_total` of a listener and reason.
fn rejected(reeve: &Reeve, listener: &str, reason: &str) -> u64 {
    let text = get(&reeve.site.metrics(), "/metrics", &[]).text();
    let labels = format!("reeve_rejected_total{{listener=\"{listener}\",reason=\"{reason}\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&labels)?.parse().ok()).unwrap_or(0)
}

#[test]
fn the_source_is_the_client_everywhere() {
    let _turn = among_others();
    let origin = Origin::start("web");
    let (reeve, port) = farm("proxy-in", &origin, "{ from = [\"127.0.0.0/8\"] }", "");
    let values = [&V4[..], &[0x01, 0, 2, b'h', b'2', 0xe0, 0, 3, 1, 2, 3]].concat();
    let unix = [0; 216];
    let v6 = [&[0x20, 0x01, 0x0d, 0xb8][..], &[0; 11], &[1], &[0; 16], &[0, 7, 0, 80]].concat();
    let cases: [(Vec<u8>, &str); 8] = [
        (LINE.into(), "192.0.2.17"),
        (b"PROXY TCP6 2001:db8::1 ::1 7 80\r\n".to_vec(), "2001:db8::1"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
        (v2(0x21, 0x11, &V4), "192.0.2.17"),
        (v2(0x21, 0x21, &v6), "2001:db8::1"),
        (v2(0x21, 0x11, &values), "192.0.2.17"),
        (v2(0x20, 0x00, &[]), "127.0.0.1"),
        (v2(0x21, 0x31, &unix), "127.0.0.1"),
    ];
    for (number, (header, client)) in cases.iter().enumerate() {
        for piece in [usize::MAX, 1, 7] {
            let told = answer(&port.address(), &[header, REQUEST.as_bytes()].concat(), piece);
            assert!(told.starts_with("HTTP/1.1 200 "), "case {number} in pieces of {piece}: {told}");
            assert!(told.contains(&format!("X-Forwarded-For: {client}\r\n")), "case {number}: {told}");
        }
    }
    // Rules and the log see it too.
    let far = REQUEST.replace("/who", "/far");
    assert!(answer(&port.address(), &[LINE.as_bytes(), far.as_bytes()].concat(), 1000).starts_with("HTTP/1.1 418 "));
    let line = until("the line of the last one", || reeve.log().into_iter().find(|line| line["path"] == "/far"));
    assert_eq!(line["client"], "192.0.2.17:56324");
    // One header speaks for all requests of its connection.
    let mut client = Client::connect(&port.address());
    client.send(LINE).expect("sent");
    for _ in 0..3 {
        let answer = client.request("GET", "/", &[]).expect("an answer").text();
        assert!(answer.contains("X-Forwarded-For: 192.0.2.17\r\n"), "{answer}");
    }
    assert_eq!(rejected(&reeve, "proxied", "proxy-header"), 0);
}

#[test]
fn what_is_not_exactly_a_header_is_refused() {
    let _turn = among_others();
    let origin = Origin::start("web");
    let (reeve, port) = farm("proxy-bad", &origin, "{ from = [\"127.0.0.0/8\"] }", "");
    let long = format!("PROXY UNKNOWN {:x<200}\r\n", "");
    let cases: [Vec<u8>; 28] = [
        vec![],
        b"GET / HTTP/1.1\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.17 198.51.100.2 56324 443\n".to_vec(),
        b"PROXY  TCP4 192.0.2.17 198.51.100.2 56324 443\r\n".to_vec(),
        b"proxy tcp4 192.0.2.17 198.51.100.2 56324 443\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.17 198.51.100.2 65536 443\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.17 198.51.100.2 056324 443\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.017 198.51.100.2 56324 443\r\n".to_vec(),
        b"PROXY TCP4 2001:db8::1 198.51.100.2 56324 443\r\n".to_vec(),
        b"PROXY TCP6 192.0.2.17 198.51.100.2 56324 443\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.17 198.51.100.2 56324\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.17 198.51.100.2 56324 443 1\r\n".to_vec(),
        b"PROXY UDP4 192.0.2.17 198.51.100.2 56324 443\r\n".to_vec(),
        long.into_bytes(),
        v2(0x11, 0x11, &V4),
        v2(0x22, 0x11, &V4),
        v2(0x21, 0x41, &V4),
        v2(0x21, 0x13, &V4),
        v2(0x21, 0x11, &V4[..11]),
        v2(0x21, 0x21, &V4),
        v2(0x21, 0x11, &[&V4[..], &[1, 0, 9, 7]].concat()),
        v2(0x21, 0x11, &[&V4[..], &[3, 0, 4, 1, 2, 3, 4]].concat()),
        [SIGNATURE, &[0x21, 0x11, 0xff, 0xff]].concat(),
        [&SIGNATURE[..11], b"X"].concat(),
        [b"\n", LINE.as_bytes()].concat(),
        [b"\x16\x03\x01", LINE.as_bytes()].concat(),
        b"PROXY TCP4 192.0.2.17 198.51.100.2 56324 -1\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.17\t198.51.100.2 56324 443\r\n".to_vec(),
    ];
    for (number, header) in cases.iter().enumerate() {
        for piece in [usize::MAX, 1] {
            let told = answer(&port.address(), &[header, REQUEST.as_bytes()].concat(), piece);
            assert_eq!(told, "", "case {number} in pieces of {piece}: closed without a word");
        }
    }
    assert_eq!(rejected(&reeve, "proxied", "proxy-header"), 2 * cases.len() as u64);
    // Cut short by the end of the connection: nobody waits for more.
    for cut in [&LINE.as_bytes()[..20], &v2(0x21, 0x11, &V4)[..14], b""] {
        let mut stream = TcpStream::connect(port.address()).expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(3))).expect("a deadline shorter than Reeve's");
        stream.write_all(cut).expect("sent");
        stream.shutdown(Shutdown::Write).expect("ended");
        let seen = stream.read(&mut [0; 1]);
        let reset = |error: &std::io::Error| error.kind() == std::io::ErrorKind::ConnectionReset;
        assert!(matches!(seen, Ok(0)) || seen.as_ref().is_err_and(reset), "{cut:?}: {seen:?}");
    }
    assert_eq!(origin.requests(), 0);
    assert_eq!(get(&reeve.address(), "/", &[]).status, 200, "the other listener knows nothing of it");
}

#[test]
fn a_header_has_a_deadline() {
    let _turn = among_others();
    let origin = Origin::start("web");
    let more = "\n[timeouts]\nproxy-header = \"1s\"\n";
    let (reeve, port) = farm("proxy-late", &origin, "{ from = [\"127.0.0.0/8\"] }", more);
    for begun in [&b""[..], b"PROXY TCP4 ", SIGNATURE] {
        let mut stream = TcpStream::connect(port.address()).expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a deadline");
        stream.write_all(begun).expect("sent");
        assert!(matches!(stream.read(&mut [0; 1]), Ok(0) | Err(_)));
    }
    assert_eq!(rejected(&reeve, "proxied", "proxy-header"), 3);
}

#[test]
fn strangers_say_nothing_of_others() {
    let _turn = among_others();
    let origin = Origin::start("web");
    let (reeve, port) = farm("proxy-from", &origin, "{ from = [\"127.0.0.9/32\"] }", "");
    // 127.0.0.1 is not one of the proxies: served as it is, and its header is no HTTP.
    assert!(answer(&port.address(), REQUEST.as_bytes(), 1000).contains("X-Forwarded-For: 127.0.0.1\r\n"));
    assert!(answer(&port.address(), &[LINE, REQUEST].concat().into_bytes(), 1000).starts_with("HTTP/1.1 400 "));
    let mut proxy = Client::connect_from(&port.address(), Some("127.0.0.9"), None);
    proxy.send(LINE).expect("sent");
    assert!(proxy.request("GET", "/", &[]).expect("an answer").text().contains("X-Forwarded-For: 192.0.2.17\r\n"));
    assert_eq!(rejected(&reeve, "proxied", "proxy-header"), 0);
}

#[test]
fn an_optional_header_may_be_left_out() {
    let _turn = among_others();
    let origin = Origin::start("web");
    let accept = "{ from = [\"127.0.0.0/8\"], mode = \"optional\" }";
    let (reeve, port) = farm("proxy-optional", &origin, accept, "");
    for piece in [usize::MAX, 1] {
        let with = answer(&port.address(), &[LINE, REQUEST].concat().into_bytes(), piece);
        assert!(with.contains("X-Forwarded-For: 192.0.2.17\r\n"), "{with}");
        assert!(answer(&port.address(), REQUEST.as_bytes(), piece).contains("X-Forwarded-For: 127.0.0.1\r\n"));
        // It begins like a header.
        let put = "PUT /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi";
        assert!(answer(&port.address(), put.as_bytes(), piece).ends_with("hi"));
        // What is begun as a header has to be one.
        assert_eq!(answer(&port.address(), b"PROXY TCP9 1 2 3 4\r\n", piece), "");
    }
    assert_eq!(rejected(&reeve, "proxied", "proxy-header"), 2);
}

#[test]
fn what_only_begins_like_an_optional_header_is_passed_on() {
    let _turn = among_others();
    let server = raw::serve(|mut stream| {
        let said = raw::exactly(&mut stream, 2);
        let _ = stream.write_all(&said);
    });
    let port = Port::free();
    let config = format!(
        "{}\n[listen.raw]\naddress = [\"{}\"]\nprotocol = \"tcp\"\npool = \"raw\"\n\
         accept-proxy-protocol = {{ from = [\"127.0.0.0/8\"], mode = \"optional\" }}\n[timeouts]\nproxy-header = \"500ms\"\n",
        pool("raw", "rr", &[("one", server)]),
        port.address()
    );
    let _reeve = Reeve::start("proxy-begin", &config, "http *\n  all : any  deny\n");
    // The signature of version 2 begins so; this client waits to be answered.
    let mut client = TcpStream::connect(port.address()).expect("a connection");
    client.set_read_timeout(Some(Duration::from_secs(20))).expect("a deadline");
    client.write_all(b"\r\n").expect("sent");
    assert_eq!(raw::exactly(&mut client, 2), b"\r\n");
}

#[test]
fn curl_says_who_it_is() {
    let _turn = among_others();
    let origin = Origin::start("web");
    let (_reeve, port) = farm("proxy-curl", &origin, "{ from = [\"127.0.0.0/8\"] }", "");
    let Some(mut curl) = program("curl") else { return skip("no curl") };
    let url = format!("http://{}/", port.address());
    let (code, out, wrong) =
        run(curl.args(["--silent", "--show-error", "--haproxy-protocol", &url]), Duration::from_secs(30));
    assert!(code == 0 && out.contains("X-Forwarded-For: 127.0.0.1\r\n"), "{out}{wrong}");
}

/// nginx with `listen ... proxy_protocol`, which answers with what the header said.
fn nginx(folder: &Folder) -> Option<(Process, Port)> {
    let Some(mut nginx) = daemon("nginx") else {
        skip("no nginx: apt-get install nginx-light");
        return None;
    };
    let port = Port::free();
    let text = format!(
        "daemon off; worker_processes 1; pid {0}/nginx.pid; error_log {0}/nginx.log notice;\n\
         events {{}}\nhttp {{\n access_log {0}/nginx-access.log;\n client_body_temp_path {0}/b; proxy_temp_path {0}/p;\n \
         fastcgi_temp_path {0}/f; uwsgi_temp_path {0}/u; scgi_temp_path {0}/s;\n server {{\n  listen {1} proxy_protocol;\n  \
         keepalive_timeout 60s;\n  \
         location / {{ return 200 \"$proxy_protocol_addr $proxy_protocol_port $proxy_protocol_server_addr $connection $connection_requests\\n\"; }}\n }}\n}}\n",
        folder.path().display(),
        port.address()
    );
    let file = folder.write("nginx.conf", text);
    let mut process = Process::start(nginx.arg("-p").arg(folder.path()).arg("-c").arg(file));
    listens(&mut process, &port.address());
    Some((process, port))
}

#[test]
fn nginx_is_told_whose_connection_it_is() {
    let _turn = among_others();
    for version in ["v1", "v2"] {
        let folder = Folder::new("proxy-nginx");
        let Some((nginx, server)) = nginx(&folder) else { return };
        let port = Port::free();
        let config = format!(
            "{}send-proxy-protocol = \"{version}\"\ncheck = {{ http = \"/health\", interval = \"100ms\", rise = 1 }}\n\n\
             [listen.proxied]\naddress = [\"{}\"]\nrules = [\"rules/site.rules\"]\n\
             accept-proxy-protocol = {{ from = [\"127.0.0.0/8\"] }}\n",
            pool("web", "rr", &[("one", server.address())]),
            port.address()
        );
        let reeve = Reeve::start("proxy-out", &config, "http *\n  all : any  use web\n");
        // The checks speak for nobody: nginx takes their headers, and finds the server up.
        until("a probe that was answered", || {
            let mut servers = crate::farm::reeve::command();
            servers.args(["servers", "--format", "json", "--socket", &reeve.site.socket()]);
            run(&mut servers, Duration::from_secs(20)).1.contains("status 200").then_some(())
        });
        let told = |client: &mut Client| {
            let answer = client.request("GET", "/", &[]).expect("an answer");
            assert_eq!(answer.status, 200, "{version}\n{}", nginx.stderr());
            answer.text().split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        let mut plain = Client::connect(&reeve.address());
        let local = plain.stream().local_addr().expect("an address");
        let first = told(&mut plain);
        assert_eq!(first[..2], ["127.0.0.1".to_owned(), local.port().to_string()], "{version}");
        // The second request of this client may use its connection, another client's may not.
        let second = told(&mut plain);
        assert_eq!((&second[3], second[4].as_str()), (&first[3], "2"), "{version}: one connection, two requests");
        let mut other = Client::connect(&port.address());
        other.send("PROXY TCP6 2001:db8::17 2001:db8::2 4711 443\r\n").expect("sent");
        let third = told(&mut other);
        assert_eq!(third[..3], ["2001:db8::17", "4711", "2001:db8::2"], "{version}: passed on");
        assert_ne!(third[3], first[3], "{version}");
        assert_eq!(told(&mut plain)[3], first[3]);
    }
}

#[test]
fn values_are_passed_on_and_probes_say_that_they_are_ours() {
    let _turn = among_others();
    let (address, connections) = raw::accepting();
    let port = Port::free();
    let config = format!(
        "{}send-proxy-protocol = \"v2\"\n\n[pool.checked]\nservers = [{{ address = \"{}\" }}]\n\
         send-proxy-protocol = \"v1\"\ncheck = {{ http = \"/h\", interval = \"100ms\" }}\n\n\
         [listen.raw]\naddress = [\"{}\"]\nprotocol = \"tcp\"\npool = \"raw\"\n\
         accept-proxy-protocol = {{ from = [\"127.0.0.0/8\"] }}\n",
        pool("raw", "rr", &[("one", address)]),
        {
            let (send, receive) = std::sync::mpsc::channel();
            let checked = raw::serve(move |mut stream| drop(send.send(raw::line(&mut stream))));
            CHECKED.set(std::sync::Mutex::new(receive)).expect("set once");
            checked
        },
        port.address()
    );
    let reeve = Reeve::start("proxy-values", &config, "http *\n  all : any  use checked\n");
    let probed = CHECKED.get().expect("set").lock().expect("a channel").recv_timeout(Duration::from_secs(20));
    assert_eq!(probed.expect("a probe"), "PROXY UNKNOWN\r\n");

    // Padding and a checksum are not passed on; what means something is, as it came.
    let kept: &[u8] = &[0x02, 0, 1, b'a', 0xe1, 0, 0];
    let values = [&V4[..], &[0x04, 0, 2, 0, 0], kept].concat();
    let mut client = TcpStream::connect(port.address()).expect("a connection");
    client.write_all(&[&v2(0x21, 0x11, &values)[..], b"hello"].concat()).expect("sent");
    let mut server = connections.recv_timeout(Duration::from_secs(20)).expect("a connection");
    let expected = [&v2(0x21, 0x11, &[&V4[..], kept].concat())[..], b"hello"].concat();
    assert_eq!(raw::exactly(&mut server, expected.len()), expected);
    // Bytes of a client, not of headers.
    drop((client, server));
    let line = until("a line", || reeve.log().into_iter().find(|line| line["listener"] == "raw"));
    assert_eq!((&line["client"], &line["bytes_in"]), (&"192.0.2.17:56324".into(), &5.into()));
    observe(Duration::from_millis(50), "nothing else is connected", || connections.try_recv().is_err());
}

/// A client that shows this certificate, where it is asked for one.
fn showing(authority: &Authority, own: &Issued) -> Arc<ClientConfig> {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let own = CertifiedKey::from_der(vec![own.der()], own.key_der(), &provider).expect("a certificate");
    let mut config = authority.client();
    config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(own));
    Arc::new(config)
}

/// Reeve with a TLS listener that asks for certificates and is told whose connections it gets.
fn by_tls(label: &str, server: &str) -> (Reeve, Port, Authority, Issued) {
    let (port, ours, clients) = (Port::free(), Authority::new("ours"), Authority::new("clients"));
    let config = format!(
        "{}send-proxy-protocol = \"v2\"\n\n[listen.secure]\naddress = [\"{}\"]\nrules = [\"rules/site.rules\"]\n\
         accept-proxy-protocol = {{ from = [\"127.0.0.0/8\"], mode = \"optional\" }}\n\
         tls = {{ certificates = \"certs\", client-ca = \"clients.pem\", client-certificate = \"optional\" }}\n\
         \n[state]\npath = \"state\"\n",
        pool("web", "rr", &[("one", server.to_owned())]),
        port.address()
    );
    let site = Site::write(label, &config, "http *\n  all : any  use web\n");
    ours.issue("t.example", &["t.example"]).write(&site.folder, "certs/site");
    site.folder.write("clients.pem", clients.pem());
    let joe = clients.issue("Joe, \u{e9}", &["joe@ops.example"]);
    (Reeve::run(site), port, ours, joe)
}

/// Says a header, then shakes hands.
fn announced(port: &Port, header: &[u8], config: &Arc<ClientConfig>) -> Client<TlsStream> {
    let name = ServerName::try_from("T.example").expect("a name");
    let mut session = ClientConnection::new(config.clone(), name).expect("a session");
    let mut tcp = TcpStream::connect(port.address()).expect("a connection");
    Client::prepare(&tcp).expect("deadlines");
    tcp.write_all(header).expect("the header");
    while session.is_handshaking() {
        session.complete_io(&mut tcp).expect("a handshake");
    }
    Client::new(StreamOwned::new(session, tcp))
}

/// Types and values of a header of version 2 with addresses of IPv4, taken apart by the text of the specification.
fn values(stream: &mut TcpStream) -> Vec<(u8, Vec<u8>)> {
    let fixed = raw::exactly(stream, 16);
    assert_eq!((&fixed[..12], &fixed[12..14]), (SIGNATURE, &[0x21, 0x11][..]));
    let rest = raw::exactly(stream, usize::from(u16::from_be_bytes([fixed[14], fixed[15]])));
    apart(&rest[12..])
}

fn apart(mut rest: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut all = Vec::new();
    while let [kind, high, low, more @ ..] = rest {
        let (value, behind) = more.split_at(usize::from(u16::from_be_bytes([*high, *low])));
        all.push((*kind, value.to_vec()));
        rest = behind;
    }
    assert!(rest.is_empty(), "{rest:x?}");
    all
}

/// PP §2.2.1, §2.2.2 and §2.2.6: of a client's TLS the server hears what we have seen of it, and nothing that others
/// said of theirs.
#[test]
fn a_server_is_told_of_the_tls_that_ends_here() {
    let _turn = among_others();
    let (address, connections) = raw::accepting();
    let (_reeve, port, ours, joe) = by_tls("proxy-tls", &address);
    let (with, without) = (showing(&ours, &joe), Arc::new(ours.client()));
    // Of a proxy before us: another protocol, name and TLS, which are not passed on, and a value that is.
    let theirs = [&[0x01, 0, 2][..], b"h2", &[0x02, 0, 3], b"a.b", &[0x20, 0, 5, 7, 0, 0, 0, 0, 0xe0, 0, 1, b'x']];
    let theirs = v2(0x21, 0x11, &[&V4[..], &theirs.concat()].concat());
    let name = "Joe, \u{e9}".as_bytes();
    // The first shows its certificate; the second goes on with the session of the first.
    for (header, config, client, verify, name, passed) in [
        (&b""[..], &with, 0x07, 0_u32, Some(name), false),
        (b"", &with, 0x05, 0, Some(name), false),
        (&theirs, &with, 0x05, 0, Some(name), true),
        (b"", &without, 0x01, 1, None, false),
    ] {
        let mut client_side = announced(&port, header, config);
        client_side.send("GET /x HTTP/1.1\r\nHost: t.example\r\n\r\n").expect("sent");
        let mut server = connections.recv_timeout(Duration::from_secs(20)).expect("a connection");
        let mut told = values(&mut server);
        if passed {
            assert_eq!(told.pop(), Some((0xe0, b"x".to_vec())));
        }
        let (kind, ssl) = told.pop().expect("a value");
        assert_eq!(told, [(0x01, b"http/1.1".to_vec()), (0x02, b"t.example".to_vec())]);
        assert_eq!((kind, &ssl[..5]), (0x20, &[&[client][..], &verify.to_be_bytes()].concat()[..]));
        let mut expected = vec![(0x21, b"TLSv1.3".to_vec())];
        expected.extend(name.map(|name| (0x22, name.to_vec())));
        let suite = client_side.session().negotiated_cipher_suite().expect("a suite").suite();
        let suite = format!("{suite:?}").replace("TLS13_", "TLS_");
        expected.push((0x23, suite.into_bytes()));
        assert_eq!(apart(&ssl[5..]), expected);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            head += &raw::line(&mut server);
        }
        assert!(head.starts_with("GET /x HTTP/1.1\r\n"), "{head}");
        server.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").expect("an answer");
        assert_eq!(client_side.answer("GET").expect("an answer").text(), "ok");
    }
}

/// HAProxy takes such a header, and the name from it.
#[test]
fn haproxy_is_told_of_the_name() {
    let _turn = among_others();
    let Some(mut haproxy) = daemon("haproxy") else { return skip("no haproxy") };
    let (folder, server) = (Folder::new("proxy-haproxy"), Port::free());
    let text = format!(
        "defaults\n mode http\n timeout client 20s\n timeout server 20s\n timeout connect 5s\nfrontend in\n \
         bind {} accept-proxy\n http-request return status 200 content-type text/plain \
         lf-string \"%[src] %[fc_pp_authority]\"\n",
        server.address()
    );
    let file = folder.write("haproxy.cfg", text);
    let mut haproxy = Process::start(haproxy.arg("-db").arg("-f").arg(file));
    listens(&mut haproxy, &server.address());
    let (_reeve, port, ours, joe) = by_tls("proxy-to-haproxy", &server.address());
    let mut client = announced(&port, LINE.as_bytes(), &showing(&ours, &joe));
    assert_eq!(client.request("GET", "/", &[]).expect("an answer").text(), "192.0.2.17 t.example");
}

static CHECKED: std::sync::OnceLock<std::sync::Mutex<std::sync::mpsc::Receiver<String>>> = std::sync::OnceLock::new();
