//! HTTP/2 from clients: the same requests and answers as over HTTP/1, before servers that know only that.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use socket2::{Domain, Socket, Type};

use crate::farm::h2::{Body, Frame, Frames, GET, Session, code};
use crate::farm::origin::{is_pattern, send_pattern};
use crate::farm::peer::program;
use crate::farm::process::run;
use crate::farm::reeve::pool;
use crate::farm::{Client, Origin, Reeve, among_others, get, skip, until, until_true};

const DEADLINE: Duration = Duration::from_secs(90);

const RULES: &str = "http *\n  moved : path /old    redirect \"/new\"\n  said : path /said    answer 200 \"hello\"\n  \
                     no : path /no    deny\n  off : path /off    drop\n  some : path /sized/**    use web\n  \
                     all : any    use web\n";

fn farm(label: &str) -> (Origin, Reeve) {
    let origin = Origin::start("web");
    let reeve = Reeve::start(label, &pool("web", "rr", &[("web", origin.address())]), RULES);
    (origin, reeve)
}

fn request(method: &str, path: &str, fields: &[(&str, &str)]) -> Request<()> {
    let mut request = Request::builder().method(method).uri(format!("http://t.example{path}"));
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(()).expect("a request")
}

fn body(bytes: &[u8]) -> Option<Body> {
    Some(Body { pieces: bytes.chunks(10_000).map(<[u8]>::to_vec).collect(), ..Body::default() })
}

#[test]
fn a_server_receives_plain_http1() {
    let _turn = among_others();
    let (_origin, reeve) = farm("h2-head");
    let session = Session::connect(&reeve.address());
    let fields = [("cookie", "a=1"), ("cookie", "b=2"), ("te", "trailers"), ("x-client-cert-verified", "yes")];
    let reply = session.ask(request("GET", "/a/../b?q=1", &fields), None).expect("an answer");
    let head = reply.text();
    assert!(head.starts_with("GET /b?q=1 HTTP/1.1\r\nHost: t.example\r\n"), "{head}");
    for line in ["cookie: a=1; b=2", "Connection: TE\r\nTE: trailers", "Via: 2.0 reeve", "X-Forwarded-For: 127.0.0.1"] {
        assert_eq!(head.matches(&format!("\r\n{line}\r\n")).count(), 1, "{line} in {head}");
    }
    assert!(
        !head.contains("x-client-cert") && !head.contains("ontent-Length") && !head.contains(":authority"),
        "{head}"
    );
    assert_eq!((reply.status, reply.field("x-origin")), (200, "web"));
    let lines = until("its line in the log", || Some(reeve.log()).filter(|lines| !lines.is_empty()));
    assert_eq!((&lines[0]["proto"], &lines[0]["host"]), (&"HTTP/2.0".into(), &"t.example".into()));
    assert_eq!(
        (&lines[0]["method"], &lines[0]["query"], &lines[0]["status"]),
        (&"GET".into(), &"q=1".into(), &200.into())
    );
}

#[test]
fn bodies_go_both_ways() {
    let _turn = among_others();
    let (_origin, reeve) = farm("h2-bodies");
    let session = Session::connect(&reeve.address());
    for size in [0_usize, 1, 1000, 16_384, 70_000, 3_000_000] {
        let got = session.get(&format!("/sized/{size}")).expect("an answer");
        assert_eq!((got.body.len(), got.field("content-length")), (size, size.to_string().as_str()));
        assert!(is_pattern(0, &got.body));
        let mut sent = Vec::new();
        send_pattern(&mut sent, 0, size as u64).expect("memory");
        let length = size.to_string();
        let said = session.ask(request("POST", "/measure", &[("content-length", &length)]), body(&sent));
        assert_eq!(said.expect("an answer").text(), format!("{size} as sent"));
        let said = session.ask(request("POST", "/measure", &[]), body(&sent));
        assert_eq!(said.expect("an answer").text(), format!("{size} as sent"), "in chunks");
    }
    let head = session.ask(request("HEAD", "/sized/12345", &[]), None).expect("an answer");
    assert_eq!((head.status, head.field("content-length"), head.body.len()), (200, "12345", 0));
    let mut sent = Vec::new();
    send_pattern(&mut sent, 0, 500_000).expect("memory");
    let echo = session.ask(request("POST", "/echo", &[("expect", "100-continue")]), body(&sent)).expect("an answer");
    assert!(echo.body == sent && echo.interim.first().is_some_and(|(status, _)| *status == 100));
    let many = (0..90).map(|n| (request("GET", &format!("/sized/{}", 1000 * n), &[]), None)).collect();
    for (n, reply) in session.all(many).into_iter().enumerate() {
        assert_eq!(reply.expect("an answer").body.len(), 1000 * n);
    }
}

#[test]
fn interim_answers_and_trailers_pass() {
    let _turn = among_others();
    let (_origin, reeve) = farm("h2-trailers");
    let session = Session::connect(&reeve.address());
    let early = session.get("/early").expect("an answer");
    assert_eq!(early.interim.len(), 1);
    assert_eq!((early.interim[0].0, early.interim[0].1["link"].as_bytes()), (103, &b"</style.css>; rel=preload"[..]));
    let down = session.get("/chunked").expect("an answer");
    assert_eq!((down.text().as_str(), down.trailers["x-sum"].as_bytes()), ("abcdef", &b"6"[..]));
    assert!(!down.fields.contains_key("transfer-encoding"));
    let trailers = vec![("x-sum", "9"), ("content-length", "5"), ("x-other", "b")];
    for pieces in [vec![], vec![b"some".to_vec()], vec![vec![b'x'; 60_000]; 20]] {
        let up = session.ask(request("POST", "/trailers", &[]), Some(Body { pieces, trailers: trailers.clone() }));
        assert_eq!(up.expect("an answer").text(), "x-sum: 9\r\nx-other: b");
    }
}

#[test]
fn answers_of_our_own() {
    let _turn = among_others();
    let (origin, reeve) = farm("h2-own");
    let session = Session::connect(&reeve.address());
    let moved = session.get("/old").expect("an answer");
    assert_eq!((moved.status, moved.field("location")), (302, "/new"));
    let said = session.get("/said").expect("an answer");
    assert_eq!((said.status, said.text().as_str()), (200, "hello"));
    let no = session.ask(request("POST", "/no", &[]), body(&[7; 200_000])).expect("an answer");
    assert_eq!((no.status, no.field("cache-control")), (403, "no-store"));
    let head = session.ask(request("HEAD", "/no", &[]), None).expect("an answer");
    assert_eq!((head.status, head.body.len()), (403, 0));
    let dropped = session.get("/off").expect_err("a reset");
    assert!(dropped.is_reset() && dropped.reason() == Some(h2::Reason::CANCEL), "{dropped}");
    for (method, path, fields, status) in [
        ("GET", "/%00", vec![], 400),
        ("GET", "/x", vec![("host", "other.example")], 400),
        ("TRACE", "/x", vec![], 405),
        ("POST", "/x", vec![("expect", "200-ok")], 417),
        ("OPTIONS", "/x", vec![("max-forwards", "0")], 200),
    ] {
        let reply = session.ask(request(method, path, &fields), None).expect("an answer");
        assert_eq!(reply.status, status, "{method} {path} {fields:?}");
    }
    let connect = Request::builder().method("CONNECT").uri("t.example:80").body(()).expect("a request");
    assert_eq!(session.ask(connect, None).expect("an answer").status, 501);
    let long = format!("/{}", "x".repeat(17_000));
    assert_eq!(session.get(&long).expect("an answer").status, 414);
    let large = "x".repeat(5_000);
    let fields: Vec<_> = (0..14).map(|_| ("x-large", large.as_str())).collect();
    assert_eq!(session.ask(request("GET", "/x", &fields), None).expect("an answer").status, 431);
    let crumbs: Vec<_> = (0..1000).map(|_| ("cookie", "crumb=of-some-length-as-they-come")).collect();
    assert_eq!(session.ask(request("GET", "/sized/1", &crumbs), None).expect("an answer").status, 200);
    // Nothing of all that has hurt the connection.
    assert_eq!(session.get("/sized/5").expect("an answer").body.len(), 5);
    assert_eq!(origin.requests(), 2);
}

#[test]
fn what_is_cut_short_does_not_look_whole() {
    let _turn = among_others();
    let (_origin, reeve) = farm("h2-cut");
    let session = Session::connect(&reeve.address());
    let cut = session.get("/cut").expect_err("a reset");
    assert!(cut.is_reset() && cut.reason() == Some(h2::Reason::INTERNAL_ERROR), "{cut}");
    assert_eq!(session.get("/sized/5").expect("an answer").body.len(), 5);
    let lines = until("two lines in the log", || Some(reeve.log()).filter(|lines| lines.len() >= 2));
    assert_eq!((&lines[0]["status"], &lines[0]["failure"]), (&200.into(), &"response-cut".into()));
}

#[test]
fn a_client_that_gives_up_frees_the_server() {
    let _turn = among_others();
    let (origin, reeve) = farm("h2-given-up");
    let session = Session::connect(&reeve.address());
    let sender = session.sender();
    session.runtime().block_on(async {
        let mut sender = sender.ready().await.expect("a connection");
        let (answer, mut upload) = sender.send_request(request("POST", "/hold", &[]), false).expect("a stream");
        upload.send_data(Bytes::from_static(b"x"), true).expect("a body");
        until_true("the origin has it before it is given up", || origin.held() > 0).await;
        drop((answer, upload));
    });
    let lines = until("its line in the log", || Some(reeve.log()).filter(|lines| !lines.is_empty()));
    assert!(lines[0]["failure"] == "client-gone" && lines[0]["status"].is_null(), "{}", lines[0]);
    assert_eq!(session.get("/sized/5").expect("an answer").body.len(), 5);
    origin.release();
}

/// Opened and reset in one breath, or while its server is being reached: neither keeps anything busy.
#[test]
fn what_is_taken_back_early_reaches_no_server() {
    let _turn = among_others();
    let (origin, reeve) = farm("h2-taken-back");
    let mut client = Frames::connect(&reeve.address());
    let open = |n: u32, path: &str| {
        Frame::request(n, code::END_STREAM | code::END_HEADERS, &[GET[0], GET[1], (":path", path), GET[3]]).bytes()
    };
    let reset = |n: u32| Frame::new(code::RST_STREAM, 0, n, [0, 0, 0, 8]).bytes();
    assert!(
        client.write(&(0..20).flat_map(|n| [open(2 * n + 1, "/x"), reset(2 * n + 1)].concat()).collect::<Vec<_>>())
    );
    let gone = |lines: &[serde_json::Value]| lines.iter().filter(|line| line["failure"] == "client-gone").count();
    until("their lines in the log", || (gone(&reeve.log()) == 20).then_some(()));
    assert!(client.alive() && origin.requests() == 0, "{} requests", origin.requests());

    // A server whose queue of connections is full answers to none.
    let full = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    full.bind(&"127.0.0.1:0".parse::<SocketAddr>().expect("an address").into()).expect("a port");
    full.listen(0).expect("a listener");
    let address = full.local_addr().ok().and_then(|address| address.as_socket()).expect("its address");
    let mut waiting = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
        waiting.push(stream);
        assert!(waiting.len() < 10, "a queue of nothing is full by now");
    }
    let config = pool("web", "rr", &[("full", address.to_string())]) + "\n[timeouts]\nconnect = \"20s\"\n";
    let reeve = Reeve::start("h2-dialled", &config, RULES);
    let mut client = Frames::connect(&reeve.address());
    assert!(client.write(&open(1, "/x")));
    until("its connection on the way", || {
        let text = get(&reeve.site.metrics(), "/metrics", &[]).text();
        text.contains("reeve_server_in_flight{pool=\"web\",server=\"full\"} 1").then_some(())
    });
    assert!(client.write(&reset(1)));
    let line = until("its line in the log", || reeve.log().pop());
    assert_eq!((&line["failure"], &line["tries"]), (&"client-gone".into(), &1.into()), "{line}");
    assert!(client.alive());
}

/// RFC 8441: a stream that becomes a WebSocket, before a server that knows only the one of HTTP/1.1.
#[test]
fn websockets_in_streams() {
    let _turn = among_others();
    let (_origin, reeve) = farm("h2-websocket");
    let session = Session::connect(&reeve.address());
    let sender = session.sender();
    let open = |path: &str, version: &str| {
        let mut request = request("CONNECT", path, &[("sec-websocket-version", version)]);
        request.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
        request
    };
    session.runtime().block_on(async {
        let mut sender = sender.ready().await.expect("a connection");
        until_true("the server's settings are here", || sender.is_extended_connect_protocol_enabled()).await;
        let (answer, mut upload) = sender.send_request(open("/ws", "13"), false).expect("a stream");
        let answer = answer.await.expect("an answer");
        assert_eq!((answer.status().as_u16(), answer.headers()["x-origin"].as_bytes()), (200, &b"web"[..]));
        assert!(!answer.headers().contains_key("sec-websocket-accept"));
        let mut down = answer.into_body();
        for piece in [&b"hello"[..], &[7; 30_000], b"x"] {
            upload.send_data(Bytes::copy_from_slice(piece), false).expect("sent");
            let mut echo = Vec::new();
            while echo.len() < piece.len() {
                let data = down.data().await.expect("more").expect("data");
                down.flow_control().release_capacity(data.len()).expect("room");
                echo.extend_from_slice(&data);
            }
            assert_eq!(echo, piece);
        }
        upload.send_data(Bytes::new(), true).expect("the end");
        while let Some(data) = down.data().await {
            assert!(data.expect("its end").is_empty(), "the end of the other side");
        }
    });
    // Other versions, and a server that answers something else: any success would mean that it is open.
    assert_eq!(session.ask(open("/ws", "8"), Some(Body::default())).expect("an answer").status, 501);
    assert_eq!(session.ask(open("/echo", "13"), Some(Body::default())).expect("an answer").status, 502);
    let lines = until("lines in the log", || Some(reeve.log()).filter(|lines| lines.len() >= 3));
    assert_eq!((&lines[0]["bytes_in"], &lines[0]["bytes_out"]), (&30_006.into(), &30_006.into()), "{}", lines[0]);
}

#[test]
fn a_drain_lets_streams_finish() {
    let _turn = among_others();
    let (origin, mut reeve) = farm("h2-drain");
    let session = Session::connect(&reeve.address());
    let held = session.runtime().spawn({
        let sender = session.sender();
        async move {
            let mut sender = sender.ready().await?;
            let (answer, _) = sender.send_request(request("GET", "/hold", &[]), true)?;
            answer.await.map(|answer| answer.status().as_u16())
        }
    });
    until("the request at the origin", || (origin.held() == 1).then_some(()));
    reeve.process.signal(rustix::process::Signal::TERM);
    // Its goodbye reaches the client: nothing new can be asked.
    until("a goodbye", || {
        let mut sender = session.sender();
        let asked = session.runtime().block_on(async {
            std::future::poll_fn(|cx| sender.poll_ready(cx)).await?;
            sender.send_request(request("GET", "/said", &[]), true)?.0.await.map(drop)
        });
        asked.is_err().then_some(())
    });
    assert!(reeve.process.running());
    origin.release();
    assert_eq!(session.runtime().block_on(held).expect("a task").expect("an answer"), 200);
    assert!(reeve.process.exit(Duration::from_secs(10)).success());
}

#[test]
fn both_languages_on_one_port() {
    let _turn = among_others();
    let (_origin, reeve) = farm("h2-both");
    assert_eq!(get(&reeve.address(), "/sized/7", &[]).body.len(), 7);
    assert_eq!(Session::connect(&reeve.address()).get("/sized/7").expect("an answer").body.len(), 7);
    // A method that begins as the preface does, in one piece and in single bytes.
    let mut client = Client::connect(&reeve.address());
    let answer = client.request("PRI", "/x", &[]).expect("an answer");
    assert!(answer.text().starts_with("PRI /x HTTP/1.1\r\n"), "{}", answer.text());
    let mut client = Client::connect(&reeve.address());
    for byte in b"PROPFIND /y HTTP/1.1\r\nHost: a\r\n\r\n" {
        client.send([*byte]).expect("a byte sent");
    }
    assert!(client.answer("PROPFIND").expect("an answer").text().starts_with("PROPFIND /y"));
    let mut client = Client::connect(&reeve.address());
    client.send("PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n").expect("bytes sent");
    assert_eq!(client.answer("PRI").expect("an answer").status, 505);
    // h2c by Upgrade is not spoken (RFC 9113 §3.1).
    let mut client = Client::connect(&reeve.address());
    let fields = [("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c"), ("HTTP2-Settings", "AAMAAABk")];
    let answer = client.request("GET", "/x", &fields).expect("an answer");
    assert!(answer.status == 200 && !answer.text().contains("h2c") && !answer.text().contains("HTTP2"));
}

#[test]
fn connections_show_what_they_do() {
    let _turn = among_others();
    let (origin, reeve) = farm("h2-connections");
    let session = Session::connect(&reeve.address());
    let held = session.runtime().spawn({
        let sender = session.sender();
        async move { sender.ready().await?.send_request(request("GET", "/hold", &[]), true)?.0.await.map(drop) }
    });
    until("the request at the origin", || (origin.held() == 1).then_some(()));
    let mut command = crate::farm::reeve::command();
    command.args(["connections", "--socket", &reeve.site.socket()]);
    let (code, said, _) = run(&mut command, DEADLINE);
    assert!(code == 0 && said.contains("GET /hold") && said.contains("waiting"), "{said}");
    origin.release();
    session.runtime().block_on(held).expect("a task").expect("an answer");
    let metrics = get(&reeve.site.metrics(), "/metrics", &[]).text();
    assert!(metrics.contains("reeve_connections{listener=\"web\",state=\"idle\"} 1"), "{metrics}");
}

#[test]
fn curl_speaks_http2() {
    let _turn = among_others();
    let (_origin, reeve) = farm("h2-curl");
    if program("curl").is_none() {
        return skip("no curl");
    }
    let ask = |args: &[&str], path: &str| {
        let mut curl = program("curl").expect("it was there");
        curl.args(["--silent", "--show-error", "--fail", "--max-time", "60", "--http2-prior-knowledge"]);
        let (code, out, wrong) = run(curl.args(args).arg(reeve.url(path)), DEADLINE);
        assert_eq!(code, 0, "{args:?} {path}\n{out}{wrong}");
        out
    };
    assert!(ask(&[], "/x?y=z").starts_with("GET /x?y=z HTTP/1.1\r\n"));
    let status = ["--output", "/dev/null", "--write-out", "%{http_code} %{http_version} %{size_download}\n"];
    assert_eq!(ask(&status, "/sized/3000000"), "200 2 3000000\n");
    assert_eq!(ask(&["--data", "name=value"], "/echo"), "name=value");
    let size = 20_u64 << 20;
    let mut bytes = Vec::new();
    send_pattern(&mut bytes, 0, size).expect("memory");
    let file = reeve.site.folder.write("body", &bytes).display().to_string();
    assert_eq!(ask(&["--upload-file", &file, "--request", "PUT"], "/measure"), format!("{size} as sent"));
    let echo = reeve.site.folder.path().join("echo");
    ask(&["--upload-file", &file, "--output", &echo.display().to_string()], "/echo");
    assert!(is_pattern(0, &std::fs::read(echo).expect("the echo")), "the echo is the file");
}

#[test]
fn nghttp_and_h2load() {
    let _turn = among_others();
    let (_origin, reeve) = farm("h2-nghttp");
    let (Some(mut nghttp), Some(mut h2load)) = (program("nghttp"), program("h2load")) else {
        return skip("no nghttp and h2load (nghttp2-client)");
    };
    let (code, said, wrong) = run(nghttp.args(["--null-out", "--verbose", &reeve.url("/chunked")]), DEADLINE);
    assert!(code == 0 && said.contains("x-sum: 6") && said.contains(":status: 200"), "{said}{wrong}");
    let load = ["-n", "5000", "-c", "4", "-m", "100"];
    let (code, said, wrong) = run(h2load.args(load).arg(reeve.url("/sized/1024")), DEADLINE);
    assert!(code == 0 && said.contains("status codes: 5000 2xx, 0 3xx, 0 4xx, 0 5xx"), "{said}{wrong}");
}

#[test]
fn node_speaks_http2() {
    let _turn = among_others();
    let (origin, reeve) = farm("h2-node");
    let Some(mut node) = program("node") else { return skip("no node") };
    let script = r#"
const http2 = require('http2');
const fail = (why) => { console.error(why); process.exit(1); };
const session = http2.connect(process.argv[1]);
session.on('error', fail);
const ask = (path, method, body) => new Promise((resolve, reject) => {
  const stream = session.request({ ':path': path, ':method': method });
  let status; const pieces = [];
  stream.on('response', (fields) => { status = fields[':status']; });
  stream.on('data', (piece) => pieces.push(piece));
  stream.on('end', () => resolve([status, Buffer.concat(pieces)]));
  stream.on('error', reject);
  stream.end(body);
});
(async () => {
  const answers = await Promise.all(Array.from({ length: 10 }, (_, n) => ask('/sized/' + n * 50000, 'GET')));
  for (const [n, [status, body]] of answers.entries()) if (status !== 200 || body.length !== n * 50000) fail('answer ' + n);
  const body = Buffer.alloc(700000, 'x');
  const echoes = await Promise.all(Array.from({ length: 5 }, () => ask('/echo', 'POST', body)));
  for (const [status, echo] of echoes) if (status !== 200 || !echo.equals(body)) fail('echo of ' + echo.length);
  // Given up: before an answer, and in the middle of one.
  const held = Array.from({ length: 5 }, () => session.request({ ':path': '/hold' }));
  const large = session.request({ ':path': '/sized/50000000' });
  await new Promise((resolve) => large.once('data', resolve));
  for (const stream of [...held, large]) { stream.on('error', () => {}); stream.close(http2.constants.NGHTTP2_CANCEL); }
  const [status, last] = await ask('/sized/3', 'GET');
  if (status !== 200 || last.length !== 3) fail('the last');
  console.log('good');
  process.exit(0);
})().catch(fail);
"#;
    let (code, out, wrong) = run(node.args(["--eval", script, &reeve.url("")]), DEADLINE);
    assert!(code == 0 && out == "good\n", "{out}{wrong}");
    origin.release();
}
