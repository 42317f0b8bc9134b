//! HTTP/2 towards servers, for clients of both versions; gRPC end to end.

use std::time::Duration;

use bytes::Bytes;
use http::Request;

use crate::farm::h2::{Body, Session};
use crate::farm::h2_origin::H2Origin;
use crate::farm::origin::{is_pattern, send_pattern};
use crate::farm::peer::{python_with_packages, test_file};
use crate::farm::ports::Port;
use crate::farm::process::{Process, listens, run};
use crate::farm::reeve::pool;
use crate::farm::{Client, Reeve, among_others, get, observe, skip, until};

const DEADLINE: Duration = Duration::from_secs(60);

fn farm_of(label: &str, origins: &[&H2Origin]) -> Reeve {
    let names = ["one", "two"];
    let servers: Vec<_> = names.iter().zip(origins).map(|(name, origin)| (*name, origin.address())).collect();
    Reeve::start(label, &(pool("web", "rr", &servers) + "protocol = \"h2c\"\n"), "http *\n  all : any  use web\n")
}

fn request(method: &str, path: &str, fields: &[(&str, &str)]) -> Request<()> {
    let mut request = Request::builder().method(method).uri(format!("http://t.example{path}"));
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(()).expect("a request")
}

#[test]
fn clients_of_http1() {
    let _turn = among_others();
    let origin = H2Origin::start(100);
    let reeve = farm_of("h2c-http1", &[&origin]);
    let mut client = Client::connect(&reeve.address());
    let head = client.request("GET", "/head?q", &[("X-Field", "y"), ("Connection", "x-gone"), ("X-Gone", "z")]);
    let head = head.expect("an answer").text();
    assert!(head.starts_with("GET http://t.example/head?q\n") && head.contains("\nx-field: y\n"), "{head}");
    assert!(head.contains("\nvia: 1.1 reeve\n") && head.contains("\nx-forwarded-for: 127.0.0.1\n"), "{head}");
    assert!(!head.contains("x-gone") && !head.contains("connection"), "{head}");
    for size in [0, 1, 70_000, 2_000_000] {
        let got = client.request("GET", &format!("/sized/{size}"), &[]).expect("an answer");
        assert_eq!((got.body.len(), got.field("content-length")), (size, Some(size.to_string().as_str())));
        assert!(is_pattern(0, &got.body));
        // What has no length goes on in chunks, and so do trailers.
        let mut sent = Vec::new();
        send_pattern(&mut sent, 0, size as u64).expect("memory");
        // It answers before it has all: the client's connection ends with that.
        let mut client = Client::connect(&reeve.address());
        client.send(format!("POST /echo HTTP/1.1\r\nHost: t.example\r\nContent-Length: {size}\r\n\r\n")).expect("sent");
        client.send(&sent).expect("sent");
        let echo = client.answer("POST").expect("an answer");
        assert!(echo.body == sent && echo.field("transfer-encoding") == Some("chunked"), "{size}");
    }
    let mut client = Client::connect(&reeve.address());
    client.send("POST /echo HTTP/1.1\r\nHost: t.example\r\nTransfer-Encoding: chunked\r\n\r\n").expect("sent");
    client.send("5\r\nhello\r\n0\r\nx-sum: 5\r\nContent-Length: 7\r\n\r\n").expect("sent");
    let echo = client.answer("POST").expect("an answer");
    assert_eq!((echo.text().as_str(), echo.trailers), ("hello", vec![("x-sum".to_owned(), "5".to_owned())]));
    let mut client = Client::connect(&reeve.address());
    assert_eq!(client.request("HEAD", "/sized/9", &[]).expect("an answer").field("content-length"), Some("9"));
    client.send("GET /early HTTP/1.1\r\nHost: t.example\r\n\r\n").expect("sent");
    let early = client.head().expect("a head");
    assert_eq!((early.status, early.field("link")), (103, Some("</style.css>; rel=preload")));
    assert_eq!(client.answer("GET").expect("an answer").text(), "late");
    let mut old = Client::connect(&reeve.address());
    old.send("POST /echo HTTP/1.0\r\nContent-Length: 3\r\n\r\nold").expect("sent");
    let answer = old.answer("POST").expect("an answer");
    assert_eq!((answer.text().as_str(), answer.field("transfer-encoding")), ("old", None));
    assert!(origin.connections() <= 2, "one for each worker: {}", origin.connections());
}

#[test]
fn small_frames_that_wait_for_a_slow_reader_cost_no_connection() {
    let _turn = among_others();
    let origin = H2Origin::start(100);
    let reeve = farm_of("h2c-small-frames", &[&origin]);
    let session = Session::connect(&reeve.address());
    let size = 130_000;
    // Half of it fills the window of who does not read, the other half that of Reeve.
    let (answer, _upload) = session.runtime().block_on(async {
        let mut send = session.sender().ready().await.expect("a connection");
        let (answer, _) = send.send_request(request("GET", &format!("/drops/{size}"), &[]), true).expect("sent");
        let answer = answer.await.expect("an answer").into_body();
        let mut send = session.sender().ready().await.expect("a connection");
        let (held, mut upload) = send.send_request(request("POST", "/hold", &[]), false).expect("sent");
        for _ in 0..size / 5 {
            upload.send_data(Bytes::from_static(b"drops"), false).expect("sent");
        }
        (answer, (held, upload))
    });
    // Others ask the same server meanwhile, on both workers.
    observe(Duration::from_millis(300), "all is well", || get(&reeve.address(), "/sized/9", &[]).status == 200);
    let body = session.runtime().block_on(async {
        let (mut answer, mut body) = (answer, Vec::new());
        while let Some(data) = answer.data().await {
            let data = data.expect("the rest of it");
            answer.flow_control().release_capacity(data.len()).expect("room");
            body.extend_from_slice(&data);
        }
        body
    });
    assert_eq!(body.len(), size);
    assert!(origin.connections() <= 2, "one for each worker: {}", origin.connections());
}

#[test]
fn what_has_no_body_ends_with_its_head() {
    let _turn = among_others();
    let origin = H2Origin::start(100);
    let reeve = farm_of("h2c-empty", &[&origin]);
    let mut client = Client::connect(&reeve.address());
    for status in [204, 304, 204] {
        let answer = client.request("GET", &format!("/empty/{status}"), &[]).expect("an answer");
        assert_eq!((answer.status, answer.field("transfer-encoding")), (status, None));
        // What came behind it would be taken for the head of this one.
        assert_eq!(client.request("GET", "/sized/3", &[]).expect("the next one").body.len(), 3);
    }
    let session = Session::connect(&reeve.address());
    assert_eq!(session.get("/empty/204").expect("an answer").status, 204);
    assert_eq!(client.request("HEAD", "/empty/200", &[]).expect("an answer").status, 200);
    assert_eq!(origin.resets(), 0, "servers count them");
}

#[test]
fn who_does_not_read_holds_nobody_up() {
    let _turn = among_others();
    let origin = H2Origin::start(100);
    let reeve = farm_of("h2c-stalled", &[&origin]);
    // Together they could take more than all that may be under way on the two workers' connections was once.
    let stalled: Vec<Client> = (0..60)
        .map(|_| {
            let mut client = Client::connect_from(&reeve.address(), None, Some(4096));
            client.send("GET /sized/10000000 HTTP/1.1\r\nHost: a\r\n\r\n").expect("sent");
            client
        })
        .collect();
    until("all of them are served", || (origin.requests() == 60).then_some(()));
    observe(Duration::from_secs(2), "all is well", || get(&reeve.address(), "/sized/90000", &[]).body.len() == 90_000);
    assert!(origin.connections() <= 2, "one for each worker: {}", origin.connections());
    drop(stalled);
}

#[test]
fn streams_that_a_server_resets_cost_others_nothing() {
    let _turn = among_others();
    let origin = H2Origin::start(100);
    let reeve = farm_of("h2c-resets", &[&origin]);
    let session = Session::connect(&reeve.address());
    let all: Vec<_> = (0..90).map(|_| (request("POST", "/reset", &[]), None)).collect();
    let mut held = Client::connect(&reeve.address());
    held.send("GET /ticks/60 HTTP/1.1\r\nHost: a\r\n\r\n").expect("sent");
    for _ in 0..8 {
        for reply in session.all(all.clone()) {
            assert_eq!(reply.expect("an answer").status, 502);
        }
    }
    assert_eq!(held.answer("GET").expect("an answer").text(), "tick".repeat(60));
    assert!(origin.connections() <= 2, "one for each worker: {}", origin.connections());
}

/// As in gRPC, where a client asks once and hears for hours.
#[test]
fn who_is_quiet_while_its_answer_flows_is_not_silent() {
    let _turn = among_others();
    let origin = H2Origin::start(100);
    let config =
        pool("web", "rr", &[("one", origin.address())]) + "protocol = \"h2c\"\n[timeouts]\nrequest-body = \"200ms\"\n";
    let reeve = Reeve::start("h2c-quiet", &config, "http *\n  all : any  use web\n");
    let mut client = Client::connect(&reeve.address());
    client.send("POST /ticks/20 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n").expect("sent");
    assert_eq!(client.answer("POST").expect("an answer").text(), "tick".repeat(20));
    // Where nothing flows it is.
    let mut client = Client::connect(&reeve.address());
    client.send("POST /hold HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n").expect("sent");
    assert_eq!(client.answer("POST").expect("an answer").status, 408);
}

#[test]
fn clients_of_http2() {
    let _turn = among_others();
    let origin = H2Origin::start(100);
    let reeve = farm_of("h2c-http2", &[&origin]);
    let session = Session::connect(&reeve.address());
    for size in [0, 1, 70_000, 2_000_000] {
        let got = session.get(&format!("/sized/{size}")).expect("an answer");
        assert!(got.body.len() == size && is_pattern(0, &got.body), "{size}");
        let mut sent = Vec::new();
        send_pattern(&mut sent, 0, size as u64).expect("memory");
        let body = Body { pieces: sent.chunks(9_000).map(<[u8]>::to_vec).collect(), trailers: vec![("x-sum", "9")] };
        let echo = session.ask(request("POST", "/echo", &[("te", "trailers")]), Some(body)).expect("an answer");
        assert!(echo.body == sent, "{size}: {} came back", echo.body.len());
        assert_eq!(echo.trailers.get("x-sum").map(|value| value.as_bytes()), Some(&b"9"[..]), "{size}");
    }
    let early = session.get("/early").expect("an answer");
    assert_eq!((early.interim.len(), early.text().as_str()), (1, "late"));
    let half = session.get("/half").expect_err("a reset");
    assert_eq!(half.reason(), Some(h2::Reason::INTERNAL_ERROR));
    let many = (0..90).map(|n| (request("GET", &format!("/sized/{}", 100 * n), &[]), None)).collect();
    for (n, reply) in session.all(many).into_iter().enumerate() {
        assert_eq!(reply.expect("an answer").body.len(), 100 * n);
    }
    assert_eq!(origin.connections(), 1);
}

#[test]
fn another_connection_when_one_is_full() {
    let _turn = among_others();
    let origin = H2Origin::start(10);
    let reeve = farm_of("h2c-full", &[&origin]);
    let session = Session::connect(&reeve.address());
    assert_eq!(session.get("/sized/1").expect("an answer").body.len(), 1);
    let sender = session.sender();
    let held = session.runtime().spawn(async move {
        let mut answers = Vec::new();
        for _ in 0..35 {
            let mut sender = sender.clone().ready().await.expect("a connection");
            answers.push(sender.send_request(request("GET", "/hold", &[]), true).expect("a stream").0);
        }
        answers
    });
    let held = session.runtime().block_on(held).expect("a task");
    until("all of them at the origin", || (origin.requests() == 36).then_some(()));
    assert_eq!(origin.connections(), 4);
    assert_eq!(session.get("/sized/2").expect("an answer").body.len(), 2);
    drop(held);
    // Given up, their places are free again.
    until("places", || {
        assert_eq!(session.get("/sized/3").expect("an answer").body.len(), 3);
        (reeve.log().iter().filter(|line| line["failure"] == "client-gone").count() == 35).then_some(())
    });
    assert_eq!(origin.connections(), 4);
}

#[test]
fn what_was_not_looked_at_is_asked_again() {
    let _turn = among_others();
    let origin = H2Origin::start(100);
    let reeve = farm_of("h2c-again", &[&origin]);
    let session = Session::connect(&reeve.address());
    // Not even idempotent: REFUSED_STREAM says that nothing happened (RFC 9113 §8.7).
    let refused = session.ask(request("POST", "/refuse", &[]), None).expect("an answer");
    assert_eq!((refused.status, origin.requests()), (200, 2));
    let line = until("its line", || reeve.log().pop());
    assert_eq!((&line["tries"], &line["status"]), (&2.into(), &200.into()));
    let text = get(&reeve.site.metrics(), "/metrics", &[]).text();
    assert!(text.contains("reeve_retries_total{pool=\"web\",reason=\"refused-stream\"} 1"), "{text}");
    // A server that ends while it has a request that may have done something: that is told.
    let gone = session.ask(request("POST", "/goodbye", &[]), Some(Body::default())).expect("an answer");
    assert_eq!(gone.status, 502);
    assert_eq!(session.get("/sized/4").expect("an answer").body.len(), 4);
    assert_eq!(origin.connections(), 2);
}

/// It may come from a server that has acted on the request, so it is told, whatever the method.
#[test]
fn another_reset_is_not_asked_again() {
    let _turn = among_others();
    let origin = H2Origin::start(100);
    let reeve = farm_of("h2c-reset", &[&origin]);
    let session = Session::connect(&reeve.address());
    for method in ["GET", "POST"] {
        let reset = session.ask(request(method, "/reset", &[]), None).expect("an answer");
        assert_eq!(reset.status, 502, "{method}");
        let http1 = Client::connect(&reeve.address()).request(method, "/reset", &[]).expect("an answer");
        assert_eq!(http1.status, 502, "{method} by HTTP/1");
    }
    assert_eq!(origin.requests(), 4);
    let lines = until("lines in the log", || Some(reeve.log()).filter(|lines| lines.len() == 4));
    assert!(lines.iter().all(|line| line["tries"] == 1 && line["failure"] == "server-closed"), "{lines:?}");
}

#[test]
fn nobody_there() {
    let _turn = among_others();
    let port = Port::free();
    let config = pool("web", "rr", &[("one", port.address())]) + "protocol = \"h2c\"\n";
    let reeve = Reeve::start("h2c-nobody", &config, "http *\n  all : any  use web\n");
    let session = Session::connect(&reeve.address());
    let many = (0..20).map(|_| (request("GET", "/x", &[]), None)).collect();
    for reply in session.all(many) {
        assert_eq!(reply.expect("an answer").status, 502);
    }
    // A server that does not speak HTTP/2.
    let origin = crate::farm::Origin::start("http1");
    let config = pool("web", "rr", &[("one", origin.address())]) + "protocol = \"h2c\"\n";
    let reeve = Reeve::start("h2c-http1-server", &config, "http *\n  all : any  use web\n");
    assert_eq!(get(&reeve.address(), "/x", &[]).status, 502);
}

/// Ten checks with grpcio on both sides (`grpc_test.py`), over two servers.
#[test]
fn grpc() {
    let _turn = among_others();
    let (Some(mut python), Some(mut one), Some(mut two)) =
        (python_with_packages(), python_with_packages(), python_with_packages())
    else {
        return skip("no Python with grpcio; ./check makes one");
    };
    let (code, _, wrong) = run(python_with_packages().expect("it was there").args(["-c", "import grpc"]), DEADLINE);
    if code != 0 {
        return skip(&format!("no grpcio; ./check installs it: {wrong}"));
    }
    let script = test_file("it/grpc_test.py");
    let ports = [Port::free(), Port::free()];
    let mut servers = Vec::new();
    for (python, port) in [&mut one, &mut two].into_iter().zip(&ports) {
        let mut server = Process::start(python.arg(&script).arg("server").arg(port.number.to_string()));
        listens(&mut server, &port.address());
        servers.push(server);
    }
    let [first, second] = &ports;
    let config = pool("grpc", "rr", &[("one", first.address()), ("two", second.address())]) + "protocol = \"h2c\"\n";
    let reeve = Reeve::start("grpc", &config, "http *\n  all : any  use grpc\n");
    let (code, said, wrong) = run(python.arg(&script).arg("client").arg(reeve.address()), DEADLINE);
    println!("{said}{wrong}");
    assert!(code == 0 && said.contains("10 passed, 0 failed"), "{said}{wrong}");
    // One connection of the client, and its calls went to both.
    let text = get(&reeve.site.metrics(), "/metrics", &[]).text();
    for server in ["one", "two"] {
        let start = format!("reeve_requests_total{{listener=\"web\",pool=\"grpc\",server=\"{server}\",code=\"200\"}} ");
        let count = text.lines().find_map(|line| line.strip_prefix(&start)?.parse::<u32>().ok()).unwrap_or(0);
        assert!(count > 90, "{count} to {server}\n{text}");
    }
}
