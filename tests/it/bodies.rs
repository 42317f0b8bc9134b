//! Bodies of every size, both ways, and what they cost.

use std::time::{Duration, Instant};

use crate::farm::origin::{is_pattern, send_pattern};
use crate::farm::{Answer, Client, Origin, Reeve, alone, among_others, get};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

#[test]
fn bodies_arrive_as_they_were_sent() {
    let _turn = among_others();
    let origin = Origin::start("web");
    let reeve = Reeve::before("bodies", &[("web", origin.address())]);
    let mut client = Client::connect(&reeve.address());
    for size in [0, 1, 1023, 4096, 16_383, 65_536, 65_537, 1_000_003, 8 << 20] {
        let down = client.request("GET", &format!("/sized/{size}"), &[]).expect("an answer");
        assert_eq!(down.body.len(), size);
        assert!(is_pattern(0, &down.body), "{size} bytes down");

        client.send(format!("PUT /measure HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n")).expect("sent");
        send_pattern(&mut client.stream(), 0, size as u64).expect("sent");
        assert_eq!(client.answer("PUT").expect("an answer").text(), format!("{size} as sent"));

        send_chunked(&mut client, size as u64, 3000);
        assert_eq!(client.answer("PUT").expect("an answer").text(), format!("{size} as sent"), "in chunks");

        let head = client.request("HEAD", &format!("/sized/{size}"), &[]).expect("an answer");
        assert_eq!(head.field("content-length"), Some(size.to_string().as_str()));
    }
}

#[test]
fn trailers_pass() {
    let _turn = among_others();
    let origin = Origin::start("web");
    let reeve = Reeve::before("trailers", &[("web", origin.address())]);
    let mut client = Client::connect(&reeve.address());
    for _ in 0..3 {
        let answer = client.request("GET", "/chunked", &[("TE", "trailers")]).expect("an answer");
        assert_eq!(answer.text(), "abcdef");
        assert_eq!(answer.trailers, [("x-sum".to_owned(), "6".to_owned())]);
    }
    client.send("GET /chunked HTTP/1.0\r\nHost: a\r\n\r\n").expect("sent");
    let old = client.answer("GET").expect("an answer");
    // RFC 9112 §6.1: no transfer coding towards a client of HTTP/1.0.
    assert_eq!((old.text().as_str(), old.field("transfer-encoding")), ("abcdef", None));
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let _turn = among_others();
    let origins = [Origin::start("a"), Origin::start("b")];
    let servers = [("a", origins[0].address()), ("b", origins[1].address())];
    let reeve = Reeve::before("pipeline", &servers);
    let mut client = Client::connect(&reeve.address());
    let all: String = (0..20).map(|n| format!("GET /sized/{n} HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
    client.send(all).expect("sent");
    for n in 0..20 {
        assert_eq!(client.answer("GET").expect("an answer").body.len(), n);
    }
}

#[test]
fn a_websocket_passes_both_ways() {
    let _turn = among_others();
    let origin = Origin::start("web");
    let reeve = Reeve::before("websocket", &[("web", origin.address())]);
    let mut client = Client::connect(&reeve.address());
    let handshake = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let answer = client.request("GET", "/ws", &handshake).expect("an answer");
    assert_eq!(answer.status, 101);
    assert_eq!(answer.field("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    for size in [1u64, 125, 70_000, 300_000] {
        let mut sender = client.stream().try_clone().expect("a second handle");
        let thread = std::thread::spawn(move || send_pattern(&mut sender, 0, size));
        let mut echo = vec![0; size as usize];
        client.read_exact(&mut echo).expect("the echo");
        assert!(is_pattern(0, &echo), "{size} bytes");
        thread.join().expect("the sender").expect("all sent");
    }
}

#[test]
fn a_gibibyte_down_takes_no_memory() {
    let _turn = alone();
    let origin = Origin::start("web");
    let reeve = warm("down", &origin);
    reeve.process.reset_peak();
    let (before, start) = (reeve.process.peak(), Instant::now());
    let mut client = Client::connect(&reeve.address());
    client.send(format!("GET /sized/{GIB} HTTP/1.1\r\nHost: a\r\n\r\n")).expect("sent");
    let head = client.head().expect("a head");
    assert_eq!(head.field("content-length"), Some(GIB.to_string().as_str()));
    let mut bytes = vec![0; 256 << 10];
    let mut offset = 0;
    while offset < GIB {
        let n = client.read(&mut bytes).expect("more of the body");
        assert!(n > 0, "the body ends at {offset}");
        assert!(is_pattern(offset, &bytes[..n]), "wrong bytes near {offset}");
        offset += n as u64;
    }
    grown(&reeve, before, 32 << 10, &format!("1 GiB down in {:?}", start.elapsed()));
}

#[test]
fn a_gibibyte_up_takes_no_memory() {
    let _turn = alone();
    let origin = Origin::start("web");
    let reeve = warm("up", &origin);
    reeve.process.reset_peak();
    let (before, start) = (reeve.process.peak(), Instant::now());
    let mut client = Client::connect(&reeve.address());
    client.send(format!("PUT /measure HTTP/1.1\r\nHost: a\r\nContent-Length: {GIB}\r\n\r\n")).expect("sent");
    send_pattern(&mut client.stream(), 0, GIB).expect("sent");
    assert_eq!(client.answer("PUT").expect("an answer").text(), format!("{GIB} as sent"));
    grown(&reeve, before, 32 << 10, &format!("1 GiB up in {:?}", start.elapsed()));

    let (size, start) = (128 * MIB, Instant::now());
    send_chunked(&mut client, size, 60_000);
    assert_eq!(client.answer("PUT").expect("an answer").text(), format!("{size} as sent"));
    grown(&reeve, before, 32 << 10, &format!("128 MiB up in chunks in {:?}", start.elapsed()));
}

/// A client that takes 1 KB a second of 64 MiB: the kernel and Reeve hold a little, the origin waits.
#[test]
fn a_slow_reader_costs_nothing() {
    const SECONDS: u32 = 6;
    let _turn = alone();
    let origin = Origin::start("web");
    let reeve = warm("slow", &origin);
    let address = reeve.address();
    reeve.process.reset_peak();
    let before = reeve.process.peak();
    let readers = 4;
    let mut slow: Vec<Client> = (0..readers).map(|_| Client::connect_from(&address, None, Some(4096))).collect();
    for client in &mut slow {
        client.send(format!("GET /sized/{} HTTP/1.1\r\nHost: a\r\n\r\n", 64 * MIB)).expect("sent");
        assert_eq!(client.head().expect("a head").status, 200);
    }
    // Small bodies beside them, on connections of both cores.
    let mut others: Vec<Client> = (0..8).map(|_| Client::connect(&address)).collect();
    let mut times = Vec::new();
    let start = Instant::now();
    for second in 1..=SECONDS {
        while start.elapsed() < Duration::from_secs(second.into()) {
            for client in &mut others {
                let asked = Instant::now();
                let answer = client.request("GET", "/sized/1000", &[]).expect("an answer");
                times.push(asked.elapsed());
                assert_eq!(answer.body.len(), 1000);
            }
        }
        for client in &mut slow {
            let mut bytes = [0; 1000];
            client.read_exact(&mut bytes).expect("more of the body");
            assert!(is_pattern(1000 * u64::from(second - 1), &bytes), "second {second}");
        }
    }
    times.sort();
    let (half, most) = (times[times.len() / 2], times[times.len() * 99 / 100]);
    println!("beside {readers} slow readers: {} requests, p50 {half:?}, p99 {most:?}", times.len());
    assert!(half < Duration::from_millis(50), "p50 {half:?}");
    grown(&reeve, before, 8 << 10, &format!("{readers} readers at 1 KB/s for {SECONDS} s"));
}

#[test]
fn an_origin_that_stops_in_the_middle_ends_the_answer() {
    let _turn = among_others();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address").to_string();
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("Reeve connects");
        let mut head = [0; 4096];
        let _ = std::io::Read::read(&mut stream, &mut head);
        let half = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n0123456789";
        std::io::Write::write_all(&mut stream, half).expect("sent");
    });
    let reeve = Reeve::before("cut", &[("web", address)]);
    let mut client = Client::connect(&reeve.address());
    // RFC 9112 §8: an incomplete message is never completed.
    client.request("GET", "/", &[]).expect_err("the answer is not whole");
    thread.join().expect("the origin");
}

/// Reeve with its first pages touched: some requests of every kind have gone through.
fn warm(label: &str, origin: &Origin) -> Reeve {
    let reeve = Reeve::before(label, &[("web", origin.address())]);
    for _ in 0..8 {
        let down: Answer = get(&reeve.address(), &format!("/sized/{}", 4 * MIB), &[]);
        assert_eq!(down.body.len() as u64, 4 * MIB);
        let mut client = Client::connect(&reeve.address());
        send_chunked(&mut client, MIB, 10_000);
        assert_eq!(client.answer("PUT").expect("an answer").text(), format!("{MIB} as sent"));
    }
    reeve
}

/// Fails when the peak grew by more than `bound` KiB; says what was seen.
fn grown(reeve: &Reeve, before: u64, bound: u64, what: &str) {
    let growth = reeve.process.peak().saturating_sub(before);
    println!("{what}: resident memory grew by {growth} KiB at most");
    assert!(growth < bound, "{what}: {growth} KiB, more than {bound}");
}

fn send_chunked(client: &mut Client, size: u64, piece: u64) {
    client.send("PUT /measure HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").expect("sent");
    let mut offset = 0;
    let mut chunk = Vec::new();
    while offset < size {
        let n = piece.min(size - offset);
        chunk.clear();
        chunk.extend_from_slice(format!("{n:x}\r\n").as_bytes());
        send_pattern(&mut chunk, offset, n).expect("memory");
        chunk.extend_from_slice(b"\r\n");
        client.send(&chunk).expect("sent");
        offset += n;
    }
    client.send("0\r\n\r\n").expect("sent");
}
