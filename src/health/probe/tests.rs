//! Probes against servers that say what they are told to; the real ones are asked by `tests/it`.

use std::future::Future;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinHandle;

use super::*;
use crate::model::Place;
use crate::model::check::{DnsKind, Http, Pattern, RtspMethod};

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("it happens in time")
}

fn target(probe: Probe) -> Target {
    let timeout = Duration::from_secs(5);
    let check = Check { timeout, ..Check::with(probe, Place::file("test")) };
    Target { check, pool: "web".into(), server: "s1".into(), named: "s1.example:80".into(), sealed: None }
}

/// Serves connections one after the other: what is said at first, and then an answer to each line that begins so. A line without an
/// answer ends the connection.
async fn scripted(
    greeting: &'static str,
    answers: &'static [(&'static str, &'static str)],
) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let serve = async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = play(&mut stream, greeting, answers).await;
        }
    };
    (address, tokio::spawn(serve))
}

async fn play(stream: &mut TcpStream, greeting: &str, answers: &[(&str, &str)]) -> std::io::Result<()> {
    stream.write_all(greeting.as_bytes()).await?;
    let mut heard = Vec::new();
    while stream.read_buf(&mut heard).await? > 0 {
        let text = String::from_utf8_lossy(&heard).into_owned();
        let Some((_, answer)) = answers.iter().find(|(begin, _)| text.starts_with(begin)) else { return Ok(()) };
        heard.clear();
        stream.write_all(answer.as_bytes()).await?;
    }
    Ok(())
}

async fn ask(probe: Probe, greeting: &'static str, answers: &'static [(&'static str, &'static str)]) -> Outcome {
    let (address, server) = scripted(greeting, answers).await;
    let outcome = within(super::probe(&target(probe), address, &mut None)).await.expect("asked");
    server.abort();
    outcome
}

async fn told(
    probe: Probe,
    greeting: &'static str,
    answers: &'static [(&'static str, &'static str)],
) -> (bool, String) {
    let outcome = ask(probe, greeting, answers).await;
    (outcome.ok, outcome.detail)
}

fn is(ok: bool, detail: &str) -> (bool, String) {
    (ok, detail.to_owned())
}

#[tokio::test]
async fn smtp_takes_ehlo_or_helo_and_lines_that_go_on() {
    let smtp = || Probe::Smtp { helo: "me.example".into() };
    let new: &[(&str, &str)] =
        &[("EHLO me.example\r\n", "250-mx.example\r\n250-SIZE 1\r\n250 HELP\r\n"), ("QUIT", "221 bye\r\n")];
    assert_eq!(told(smtp(), "220-mx\r\n220 mx.example ready\r\n", new).await, is(true, "250 HELP"));
    let old: &[(&str, &str)] = &[("EHLO", "502 what?\r\n"), ("HELO me.example\r\n", "250 hi\r\n")];
    assert_eq!(told(smtp(), "220 mx\r\n", old).await, is(true, "250 hi"));
    assert_eq!(told(smtp(), "554 go away\r\n", &[]).await, is(false, "greeted with 554 go away"));
    assert_eq!(told(smtp(), "220 mx\r\n", &[("EHLO", "421 full\r\n")]).await, is(false, "answered EHLO with 421 full"));
    assert_eq!(told(smtp(), "220 mx\r\n", &[]).await, is(false, "closed waiting for the answer to EHLO"));
    assert_eq!(told(smtp(), "SSH-2.0-x\r\n", &[]).await, is(false, "not a reply: SSH-2.0-x"));
}

#[tokio::test]
async fn mail_stores_and_ftp() {
    let pop: &[(&str, &str)] = &[("CAPA", "+OK\r\nTOP\r\nUIDL\r\n.\r\n"), ("QUIT", "+OK\r\n")];
    assert_eq!(told(Probe::Pop3, "+OK ready\r\n", pop).await, is(true, "+OK ready"));
    assert_eq!(told(Probe::Pop3, "+OK\r\n", &[("CAPA", "-ERR no\r\n")]).await, is(true, "+OK"));
    assert_eq!(told(Probe::Pop3, "-ERR full\r\n", &[]).await, is(false, "greeted with -ERR full"));
    let imap: &[(&str, &str)] = &[("r1 CAPABILITY\r\n", "* CAPABILITY IMAP4rev2\r\nr1 OK done\r\n")];
    assert_eq!(told(Probe::Imap, "* OK ready\r\n", imap).await, is(true, "* OK ready"));
    assert_eq!(told(Probe::Imap, "* BYE full\r\n", &[]).await, is(false, "greeted with * BYE full"));
    let no = is(false, "answered CAPABILITY with r1 NO");
    assert_eq!(told(Probe::Imap, "* OK\r\n", &[("r1", "r1 NO\r\n")]).await, no);
    let ftp: &[(&str, &str)] = &[("NOOP", "530 log in\r\n"), ("QUIT", "221 bye\r\n")];
    assert_eq!(told(Probe::Ftp, "220-Welcome\r\n rules\r\n220x\r\n220 ready\r\n", ftp).await, is(true, "220 ready"));
    assert_eq!(
        told(Probe::Ftp, "220\r\n", &[("NOOP", "421 ends\r\n")]).await,
        is(false, "answered NOOP with 421 ends")
    );
    assert_eq!(told(Probe::Ftp, "421 too many\r\n", &[]).await, is(false, "greeted with 421 too many"));
}

#[tokio::test]
async fn a_server_that_never_ends_is_bounded() {
    let endless: &'static str = Box::leak("220-more\r\n".repeat(9000).into_boxed_str());
    let (ok, detail) = told(Probe::Ftp, endless, &[]).await;
    assert!(!ok && detail.starts_with("more than 1000 lines"), "{detail}");
    let line: &'static str = Box::leak("x".repeat(70 << 10).into_boxed_str());
    let (ok, detail) = told(Probe::Pop3, line, &[]).await;
    assert!(!ok && detail.starts_with("a line without an end"), "{detail}");
    let expect = Pattern::new("never").ok();
    let (ok, detail) = told(Probe::Tcp { send: None, expect }, line, &[]).await;
    assert!(!ok && detail.starts_with("closed, and no \"never\""), "{detail}");
}

#[tokio::test]
async fn what_was_said_is_kept_for_people() {
    let send: Arc<[u8]> = Arc::from(&b"PING\r\n"[..]);
    let probe = |pattern| Probe::Tcp { send: Some(send.clone()), expect: Pattern::new(pattern).ok() };
    let outcome = ask(probe(r"^\+PONG"), "", &[("PING", "+PONG\r\n")]).await;
    assert_eq!((outcome.ok, &*outcome.detail), (true, "said \"+PONG\""));
    let (address, server) = scripted("", &[("PING", "-LOADING\u{1}\r\n")]).await;
    let mut impatient = target(probe("^OK"));
    impatient.check.timeout = Duration::from_millis(200);
    let outcome = within(super::probe(&impatient, address, &mut None)).await.expect("asked");
    server.abort();
    assert_eq!(outcome.detail, "timed out after 200ms waiting for \"^OK\"");
    assert!(!outcome.ok);
    assert_eq!((&*outcome.said.sent.shown(), &*outcome.said.heard.shown()), ("PING\\r\\n", "-LOADING\\x01\\r\\n"));
}

#[tokio::test]
async fn an_answer_over_rtsp_has_to_be_its_own() {
    let rtsp = |method, codes: &[u16]| Probe::Rtsp {
        method,
        path: "/cam".into(),
        expect_status: codes.iter().map(|code| *code..=*code).collect(),
    };
    let asked = "OPTIONS rtsp://s1.example:80/cam RTSP/1.0\r\nCSeq: 1\r\n";
    let good: &'static [(&str, &str)] =
        Box::leak(Box::new([(asked, "RTSP/1.0 200 OK\r\nCseq: 1\r\nPublic: PLAY\r\n\r\n")]));
    assert_eq!(told(rtsp(RtspMethod::Options, &[200]), "", good).await, is(true, "status 200"));
    let locked: &[(&str, &str)] = &[("DESCRIBE", "RTSP/1.0 401 No\r\nCSeq: 1\r\n\r\n")];
    assert_eq!(told(rtsp(RtspMethod::Describe, &[200, 401]), "", locked).await, is(true, "status 401"));
    assert_eq!(told(rtsp(RtspMethod::Describe, &[200]), "", locked).await, is(false, "status 401, expected 200"));
    let other: &[(&str, &str)] = &[("OPTIONS", "RTSP/1.0 200 OK\r\nCSeq: 7\r\n\r\n")];
    assert_eq!(
        told(rtsp(RtspMethod::Options, &[200]), "", other).await,
        is(false, "an answer to another request: CSeq: 7")
    );
    let web: &[(&str, &str)] = &[("OPTIONS", "HTTP/1.1 400 Bad\r\n\r\n")];
    assert_eq!(
        told(rtsp(RtspMethod::Options, &[200]), "", web).await,
        is(false, "not an RTSP answer: HTTP/1.1 400 Bad")
    );
}

fn page(http: Http) -> Probe {
    Probe::Http(http)
}

#[tokio::test]
async fn the_body_of_a_web_answer_can_be_asked() {
    let get = || Http::get("/".into());
    const JSON: &[(&str, &str)] = &[(
        "GET",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n{\"a\":[1.0\r\n7\r\n,\"x\"]} \r\n0\r\n\r\n",
    )];
    let json = |pointer: &str, value: serde_json::Value| Http { expect_json: Some((pointer.into(), value)), ..get() };
    assert_eq!(told(page(json("/a/0", 1.into())), "", JSON).await, is(true, "status 200"));
    assert_eq!(told(page(json("/a/1", "y".into())), "", JSON).await, is(false, "/a/1 is \"x\", expected \"y\""));
    assert_eq!(told(page(json("/b", 1.into())), "", JSON).await, is(false, "there is no /b in the answer"));
    const OK: &[(&str, &str)] = &[("GET", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n")];
    let body = |text: &str| Http { expect_body: Pattern::new(text).ok(), ..get() };
    assert_eq!(told(page(body("^ok")), "", OK).await, is(true, "status 200"));
    assert_eq!(told(page(body("^no")), "", OK).await, is(false, "no \"^no\" in the answer, which begins \"ok\""));
    // printf 'ok\n' | md5sum
    let digest = *b"\xef\xf5\xbc\x1e\xf8\xec\x9d\x03\xe6\x40\xfc\x43\x70\xf5\xea\xcd";
    let told_of = |digest| told(page(Http { digest: Some(digest), ..get() }), "", OK);
    let (ok, detail) = told_of([0; 16]).await;
    assert!(!ok && detail.starts_with("the answer's digest is "), "{detail}");
    let (ok, detail) = told_of(digest).await;
    assert!(ok, "{detail}");
}

#[tokio::test]
async fn a_connection_can_be_kept_for_the_next_probe() {
    const OK: &[(&str, &str)] = &[
        ("GET /last", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"),
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n"),
    ];
    let (address, server) = scripted("", OK).await;
    let kept_alive = |path: &str| target(page(Http { keep_alive: true, ..Http::get(path.into()) }));
    let mut kept = None;
    let mut ports = Vec::new();
    for _ in 0..3 {
        let outcome = within(super::probe(&kept_alive("/"), address, &mut kept)).await.expect("asked");
        assert!(outcome.ok, "{}", outcome.detail);
        let Some(Stream::Plain(tcp)) = &kept else { panic!("kept") };
        ports.push(tcp.local_addr().expect("connected").port());
    }
    assert!(ports.iter().all(|port| *port == ports[0]), "{ports:?}");
    let outcome = within(super::probe(&kept_alive("/last"), address, &mut kept)).await.expect("asked");
    assert!(outcome.ok && kept.is_none(), "it was to be closed");
    server.abort();
}

#[tokio::test]
async fn an_agent_says_how_it_is() {
    let agent = || Probe::Agent { send: Arc::from(&b"how\n"[..]) };
    let outcome = ask(agent(), "", &[("how", "up 75%\n")]).await;
    assert_eq!((outcome.ok, outcome.advice.and_then(|advice| advice.share)), (true, Some(75)));
    let outcome = ask(agent(), "", &[("how", "down #disk full\r\n")]).await;
    assert_eq!((outcome.ok, &*outcome.detail), (false, "agent: down #disk full"));
    let outcome = ask(agent(), "", &[]).await;
    assert_eq!((outcome.ok, &*outcome.detail, outcome.advice), (false, "closed, and nothing said", None));
}

#[tokio::test]
async fn udp_takes_silence_for_yes_and_unreachable_for_no() {
    let server = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
    let address = server.local_addr().expect("bound");
    let udp = |text: &str, expect: Option<&str>| {
        let mut target = target(Probe::Udp {
            send: text.as_bytes().into(),
            expect: expect.and_then(|text| Pattern::new(text).ok()),
        });
        target.check.timeout = Duration::from_millis(200);
        target
    };
    let echo = tokio::spawn(async move {
        let mut buffer = [0; 100];
        loop {
            let (count, peer) = server.recv_from(&mut buffer).await.expect("a datagram");
            if &buffer[..count] != b"silence" {
                server.send_to(&buffer[..count], peer).await.expect("taken");
            }
        }
    });
    let told = async |target: Target, address| {
        let outcome = within(super::probe(&target, address, &mut None)).await.expect("asked");
        (outcome.ok, outcome.detail)
    };
    assert_eq!(told(udp("hi", Some("^hi$")), address).await, is(true, "answered \"hi\""));
    assert_eq!(told(udp("ho", Some("^hi$")), address).await, is(false, "no \"^hi$\" in the answer \"ho\""));
    assert_eq!(told(udp("silence", None), address).await, is(true, "no answer, and not unreachable"));
    let late = is(false, "timed out after 200ms waiting for the answer");
    assert_eq!(told(udp("silence", Some("x")), address).await, late);
    echo.abort();
    let _ = echo.await;
    assert_eq!(told(udp("hi", None), address).await, is(false, "unreachable: nobody listens there"));
}

#[tokio::test]
async fn dns_is_asked_by_udp_and_tcp() {
    let server = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
    let address = server.local_addr().expect("bound");
    let answering = tokio::spawn(async move {
        let mut buffer = [0; 512];
        let (count, peer) = server.recv_from(&mut buffer).await.expect("a question");
        // Somebody else's answer first.
        let mut answer = buffer[..count].to_vec();
        answer[2] |= 0x80;
        answer[0] ^= 1;
        server.send_to(&answer, peer).await.expect("taken");
        answer[0] ^= 1;
        answer[3] = 3;
        server.send_to(&answer, peer).await.expect("taken");
    });
    let dns = |over_tcp| target(Probe::Dns { name: "a.example".into(), kind: DnsKind::A, over_tcp });
    let outcome = within(super::probe(&dns(false), address, &mut None)).await.expect("asked");
    assert_eq!((outcome.ok, &*outcome.detail), (false, "NXDOMAIN: there is no such name"));
    answering.await.expect("no panic");

    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let answering = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let mut question = vec![0; 29];
        stream.read_exact(&mut question).await.expect("a question");
        question[4] |= 0x80;
        stream.write_all(&question).await.expect("taken");
    });
    let outcome = within(super::probe(&dns(true), address, &mut None)).await.expect("asked");
    assert_eq!((outcome.ok, &*outcome.detail), (true, "0 answers"));
    answering.await.expect("no panic");
}

#[tokio::test]
async fn ping_reaches_this_machine_or_says_what_is_missing() {
    for host in ["127.0.0.1:0", "[::1]:0"] {
        match within(super::probe(&target(Probe::Ping), host.parse().expect("an address"), &mut None)).await {
            Ok(outcome) if host.starts_with('[') && !outcome.ok => {
                assert!(outcome.detail.starts_with("unreachable"), "no IPv6 here: {}", outcome.detail);
            }
            Ok(outcome) => assert_eq!((outcome.ok, &*outcome.detail), (true, "echo came back")),
            Err(Unable::Missing(what)) => assert!(what.contains("CAP_NET_RAW"), "{what}"),
            Err(Unable::Shortage(error)) => panic!("{error}"),
        }
    }
}

fn command(words: &[&str]) -> Target {
    target(Probe::Command(words.iter().map(|word| (*word).into()).collect()))
}

#[tokio::test]
async fn a_program_says_it_by_its_end() {
    let address: SocketAddr = "10.1.2.3:80".parse().expect("an address");
    let told = async |words: &[&str]| {
        let outcome = within(super::probe(&command(words), address, &mut None)).await.expect("asked");
        (outcome.ok, outcome.detail)
    };
    assert_eq!(told(&["/bin/true"]).await, is(true, "ended with 0"));
    assert_eq!(told(&["/bin/false"]).await, is(false, "ended with 1"));
    let said = told(&["sh", "-c", "echo $REEVE_POOL/$REEVE_SERVER $REEVE_ADDRESS $REEVE_PORT; exit 3"]).await;
    assert_eq!(said, is(false, "ended with 3: web/s1 10.1.2.3 80"));
    let (ok, detail) = told(&["/no/such/program"]).await;
    assert!(!ok && detail.starts_with("/no/such/program cannot be run"), "{detail}");
    let (ok, detail) = told(&["sh", "-c", "head -c 200000 /dev/zero; exit 0"]).await;
    assert!(ok && detail.len() < 200, "{}", detail.len());
}

#[tokio::test]
async fn a_program_that_takes_too_long_is_killed_with_its_children() {
    let folder = std::env::temp_dir().join(format!("reeve-command-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let pids = folder.join("pids");
    let script = format!("sleep 1000 & echo $! $$ > {0}.new; mv {0}.new {0}; wait", pids.display());
    let mut target = command(&["sh", "-c", &script]);
    target.check.timeout = Duration::from_secs(1);
    let began = Instant::now();
    let outcome = within(super::probe(&target, "127.0.0.1:1".parse().expect("an address"), &mut None)).await;
    let outcome = outcome.expect("asked");
    assert_eq!((outcome.ok, &*outcome.detail), (false, "timed out after 1s running the program"));
    assert!(began.elapsed() < Duration::from_secs(10));
    let pids = std::fs::read_to_string(&pids).expect("it had begun");
    let gone = |pid: &str| {
        // A child that nobody has waited for yet is dead, too.
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
        status.map_or(true, |status| status.contains("State:\tZ") || status.contains("State:\tX"))
    };
    within(async {
        while !pids.split_whitespace().all(gone) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
    std::fs::remove_dir_all(&folder).expect("ours");
}

#[tokio::test]
async fn tls_on_the_way_is_asked_for_and_nothing_in_clear_is_taken_for_it() {
    let ask = async |probe, greeting, answers| {
        let (address, server) = scripted(greeting, answers).await;
        let config = tls::by_system(false).expect("anybody will do");
        let name = ServerName::try_from("mx.example").expect("a name");
        let mut target = Target { sealed: Some(Sealed { config, name }), ..target(probe) };
        target.check.seal = Seal::Starttls;
        let outcome = within(super::probe(&target, address, &mut None)).await.expect("asked");
        server.abort();
        (outcome.ok, outcome.detail)
    };
    let smtp = || Probe::Smtp { helo: "me.example".into() };
    let refused: &[(&str, &str)] = &[("EHLO", "250 mx\r\n"), ("STARTTLS\r\n", "502 no\r\n")];
    assert_eq!(ask(smtp(), "220 mx\r\n", refused).await, is(false, "answered STARTTLS with 502 no"));
    let injected: &[(&str, &str)] = &[("EHLO", "250 mx\r\n"), ("STARTTLS\r\n", "220 go\r\n250 mx\r\n")];
    let clear = is(false, "more was said in clear after TLS was agreed upon");
    assert_eq!(ask(smtp(), "220 mx\r\n", injected).await, clear);
    assert_eq!(ask(Probe::Imap, "* OK\r\n", &[("r0 STARTTLS\r\n", "r0 OK\r\n* OK\r\n")]).await, clear);
    assert_eq!(ask(Probe::Pop3, "+OK\r\n", &[("STLS\r\n", "+OK\r\n+OK\r\n")]).await, clear);
    assert_eq!(ask(Probe::Ftp, "220\r\n", &[("AUTH TLS\r\n", "234 go\r\n200\r\n")]).await, clear);
    let no = is(false, "answered STLS with -ERR no");
    assert_eq!(ask(Probe::Pop3, "+OK\r\n", &[("STLS\r\n", "-ERR no\r\n")]).await, no);
    let no = is(false, "answered STARTTLS with r0 BAD");
    assert_eq!(ask(Probe::Imap, "* OK\r\n", &[("r0", "r0 BAD\r\n")]).await, no);
    let no = is(false, "answered AUTH TLS with 530 log in");
    assert_eq!(ask(Probe::Ftp, "220\r\n", &[("AUTH", "530 log in\r\n")]).await, no);
}

#[tokio::test]
async fn what_is_to_be_asked_by_tls_is_never_asked_in_clear() {
    for seal in [Seal::Tls, Seal::Starttls] {
        let mut target = target(Probe::Pop3);
        target.check.seal = seal;
        let (address, server) = scripted("+OK\r\n", &[("CAPA", "+OK\r\n.\r\n")]).await;
        let outcome = within(super::probe(&target, address, &mut None)).await;
        server.abort();
        assert!(matches!(outcome, Err(Unable::Missing(_))), "{outcome:?}");
    }
}
