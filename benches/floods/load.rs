//! What `benches/floods/run` is made of, in one file that needs only the compiler: an origin, clients that behave
//! and measure, and one client that does not.
//!
//! ```text
//! load origin ADDRESS                            /echo, /hold (never), /big (50 MB), anything else 1 KiB
//! load victims ADDRESS SECONDS RATE              RATE requests a second over HTTP/1 and as many over HTTP/2: their
//!                                                waits in microseconds, a line for each
//! load attack ADDRESS KIND FRAMES-A-SECOND       until it is ended; 0: as fast as it goes
//! ```

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["origin", address] => origin(address),
        ["victims", address, seconds, rate] => {
            victims(address, seconds.parse().expect("seconds"), rate.parse().expect("a rate"));
        }
        ["attack", address, kind, rate] => attack(address, kind, rate.parse().expect("a rate")),
        _ => panic!("see the head of load.rs"),
    }
}

// --- the origin ----------------------------------------------------------------------------------------------

fn origin(address: &str) {
    for stream in TcpListener::bind(address).expect("the origin's address").incoming().flatten() {
        // Little: there are thousands of them.
        thread::Builder::new().stack_size(256 << 10).spawn(move || drop(answer(stream))).expect("a thread");
    }
}

fn answer(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut input = Vec::new();
    loop {
        let end = loop {
            if let Some(at) = input.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            more(&mut stream, &mut input)?;
        };
        let head = String::from_utf8_lossy(&input[..end]).to_ascii_lowercase();
        input.drain(..end);
        let path = head.split(' ').nth(1).unwrap_or("").to_owned();
        if path.ends_with("/hold") {
            return more(&mut stream, &mut input);
        }
        if head.contains("transfer-encoding") {
            while !input.ends_with(b"0\r\n\r\n") {
                more(&mut stream, &mut input)?;
            }
            input.clear();
        } else if let Some(length) = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()) {
            let length: usize = length.trim().parse().unwrap_or(0);
            while input.len() < length {
                more(&mut stream, &mut input)?;
            }
            input.drain(..length);
        }
        let size = if path.ends_with("/big") { 50_000_000 } else { 1024 };
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n")?;
        let mut left = size;
        while left > 0 {
            left -= stream.write(&PIECE[..left.min(PIECE.len())])?;
        }
    }
}

static PIECE: [u8; 64 << 10] = [b'x'; 64 << 10];

/// Reads on; the end of the connection is an error.
fn more(stream: &mut TcpStream, input: &mut Vec<u8>) -> io::Result<()> {
    let mut bytes = [0; 16 << 10];
    let count = stream.read(&mut bytes)?;
    input.extend_from_slice(&bytes[..count]);
    if count == 0 { Err(ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
}

// --- those who behave ----------------------------------------------------------------------------------------

/// Connections of each language. Each asks for one thing at a time, when its time has come: an answer's wait begins
/// when the request was due, not when the client got round to it.
const CONNECTIONS: u32 = 4;

fn victims(address: &str, seconds: f64, rate: u32) {
    let step = Duration::from_secs(1) * CONNECTIONS / rate;
    let start = Instant::now() + Duration::from_millis(100);
    let ask = |language: u32, number: u32| {
        let address = address.to_owned();
        thread::spawn(move || {
            let mut client: Box<dyn FnMut()> = if language == 1 { http1(&address) } else { http2(&address) };
            client();
            let mut due = start + step / CONNECTIONS * number + step / CONNECTIONS / 2 * (language - 1);
            let mut waits = Vec::new();
            while due < start + Duration::from_secs_f64(seconds) {
                thread::sleep(due.saturating_duration_since(Instant::now()));
                client();
                waits.push(due.elapsed().as_nanos() as u64);
                due += step;
            }
            waits
        })
    };
    let threads = [1, 2].map(|language| (0..CONNECTIONS).map(|number| ask(language, number)).collect::<Vec<_>>());
    for (language, threads) in [1, 2].into_iter().zip(threads) {
        let waits: Vec<u64> = threads.into_iter().flat_map(|thread| thread.join().expect("a client")).collect();
        let texts: Vec<String> = waits.iter().map(|nanos| (nanos / 1000).to_string()).collect();
        println!("h{language} {}", texts.join(" "));
    }
}

fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).expect("a connection");
    stream.set_nodelay(true).expect("no delay");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    stream
}

fn http1(address: &str) -> Box<dyn FnMut()> {
    let mut stream = connect(address);
    Box::new(move || {
        stream.write_all(b"GET /x HTTP/1.1\r\nHost: t.example\r\n\r\n").expect("sent");
        let mut input = Vec::new();
        loop {
            more(&mut stream, &mut input).expect("an answer");
            if let Some(at) = input.windows(4).position(|window| window == b"\r\n\r\n")
                && input.len() >= at + 4 + 1024
            {
                assert!(input.starts_with(b"HTTP/1.1 200 ") && input.len() == at + 4 + 1024, "an answer");
                return;
            }
        }
    })
}

fn http2(address: &str) -> Box<dyn FnMut()> {
    let mut stream = connect(address);
    let mut first = PREFACE.to_vec();
    first.extend(frame(SETTINGS, 0, 0, &[0, 4, 0x40, 0, 0, 0]));
    first.extend(frame(WINDOW_UPDATE, 0, 0, &[0x40, 0, 0, 0]));
    stream.write_all(&first).expect("sent");
    let (mut id, mut input) = (1, Vec::new());
    Box::new(move || {
        stream.write_all(&frame(HEADERS, END_STREAM | END_HEADERS, id, &request("GET", "/x", &[]))).expect("sent");
        let mut got = 0;
        'read: loop {
            while let Some((kind, flags, on, payload)) = take(&mut input) {
                match kind {
                    SETTINGS if flags & 1 == 0 => stream.write_all(&frame(SETTINGS, 1, 0, &[])).expect("sent"),
                    PING if flags & 1 == 0 => stream.write_all(&frame(PING, 1, 0, &payload)).expect("sent"),
                    RST_STREAM | GOAWAY => panic!("a well-behaved client was refused: {kind} {payload:?}"),
                    DATA if on == id => got += payload.len(),
                    _ => {}
                }
                if on == id && kind <= HEADERS && flags & END_STREAM != 0 {
                    break 'read;
                }
            }
            more(&mut stream, &mut input).expect("an answer");
        }
        assert_eq!(got, 1024);
        id += 2;
    })
}

// --- HTTP/2 --------------------------------------------------------------------------------------------------

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// The first whole frame of `input`: kind, flags, stream, payload.
fn take(input: &mut Vec<u8>) -> Option<(u8, u8, u32, Vec<u8>)> {
    let length = u32::from_be_bytes([0, *input.first()?, *input.get(1)?, *input.get(2)?]) as usize;
    if input.len() < 9 + length {
        return None;
    }
    let whole: Vec<u8> = input.drain(..9 + length).collect();
    let stream = u32::from_be_bytes(whole[5..9].try_into().expect("four bytes"));
    Some((whole[3], whole[4], stream, whole[9..].to_vec()))
}

/// Literals that are not indexed (RFC 7541 §6.2.2).
fn literal(name: &str, value: &str, out: &mut Vec<u8>) {
    out.push(0);
    for text in [name, value] {
        assert!(text.len() < 127);
        out.push(text.len() as u8);
        out.extend(text.as_bytes());
    }
}

fn request(method: &str, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in
        [(":method", method), (":scheme", "http"), (":path", path), (":authority", "t.example")].iter().chain(more)
    {
        literal(name, value, &mut block);
    }
    block
}

// --- the one who does not ------------------------------------------------------------------------------------

/// One connection after the other, each as soon as the one before is over. Frames go out in bundles of ten; when one
/// is due, is what the rate says, counted over all connections.
fn attack(address: &str, kind: &str, rate: u32) {
    let mut sent = 0_u64;
    let start = Instant::now();
    loop {
        let Ok(mut stream) = TcpStream::connect(address) else { continue };
        let _ = stream.set_nodelay(true);
        let mut first = PREFACE.to_vec();
        let window: u32 = if kind == "stalled" { 0 } else { 65_535 };
        first.extend(frame(SETTINGS, 0, 0, &[&[0, 4][..], &window.to_be_bytes()].concat()));
        first.extend(begin(kind));
        if stream.write_all(&first).is_err() {
            continue;
        }
        if kind == "stalled" {
            // Held until it is given up by the other side.
            let _ = io::copy(&mut stream, &mut io::sink());
            continue;
        }
        let _ = stream.set_nonblocking(true);
        for n in 0.. {
            if rate > 0 {
                let due = start + Duration::from_secs_f64(sent as f64 / f64::from(rate));
                thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            let bundle: Vec<u8> = (10 * n..10 * n + 10).flat_map(|n| piece(kind, n)).collect();
            sent += 10;
            if !deliver(&mut stream, &bundle) {
                break;
            }
        }
    }
}

/// Writes all of it and reads what is there; false once the connection is over.
fn deliver(stream: &mut TcpStream, mut bytes: &[u8]) -> bool {
    let mut ignored = [0; 16 << 10];
    loop {
        match stream.read(&mut ignored) {
            Ok(0) => return false,
            Ok(_) => continue,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return false,
        }
        if bytes.is_empty() {
            return true;
        }
        match stream.write(bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::yield_now(),
            Err(_) => return false,
        }
    }
}

/// What comes before the flood.
fn begin(kind: &str) -> Vec<u8> {
    match kind {
        "continuation" => frame(HEADERS, END_STREAM, 1, &request("GET", "/attack/x", &[])),
        "empty-data" => frame(HEADERS, END_HEADERS, 1, &request("POST", "/attack/echo", &[])),
        "bomb" => {
            // A field of 3,900 bytes that is kept in the table (RFC 7541 §6.2.1).
            let mut block = request("GET", "/attack/x", &[]);
            block.push(0x40);
            block.push(6);
            block.extend(b"x-bomb");
            block.extend([127, 0xbd, 0x1d]);
            block.extend([b'x'; 3900]);
            frame(HEADERS, END_STREAM | END_HEADERS, 1, &block)
        }
        "stalled" => {
            let open =
                |n: u32| frame(HEADERS, END_STREAM | END_HEADERS, 2 * n + 1, &request("GET", "/attack/big", &[]));
            (0..100).flat_map(open).collect()
        }
        _ => Vec::new(),
    }
}

/// The nth frame, or request, of the flood.
fn piece(kind: &str, n: u32) -> Vec<u8> {
    let id = 2 * n + 1;
    match kind {
        "reset" => {
            let open = frame(HEADERS, END_STREAM | END_HEADERS, id, &request("GET", "/attack/hold", &[]));
            [open, frame(RST_STREAM, 0, id, &[0, 0, 0, 8])].concat()
        }
        "made-to-reset" => {
            let open = frame(HEADERS, END_HEADERS, id, &request("POST", "/attack/echo", &[("content-length", "1")]));
            [open, frame(DATA, 0, id, b"xx")].concat()
        }
        "continuation" => {
            let mut block = Vec::new();
            literal("x-more", "0123456789", &mut block);
            frame(CONTINUATION, 0, 1, &block)
        }
        "settings" => frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 255, 255]),
        "ping" => frame(PING, 0, 0, b"attack!!"),
        "priority" => frame(PRIORITY, 0, id, &[0, 0, 0, 0, 16]),
        "empty-data" => frame(DATA, 0, 1, &[]),
        "bomb" => {
            let mut block = request("GET", "/attack/x", &[]);
            block.extend([0xbe; 16_000]);
            frame(HEADERS, END_STREAM | END_HEADERS, id + 2, &block)
        }
        other => panic!("no flood {other:?}"),
    }
}
