//! An origin server that tells what it got, in threads of the test's own process.
//!
//! | target          | answers                                                                    |
//! |-----------------|----------------------------------------------------------------------------|
//! | `/sized/N`      | N bytes of the pattern                                                     |
//! | `/chunked`      | three chunks and a trailer field, `x-sum: 6`                               |
//! | `/echo`         | the body it got                                                            |
//! | `/measure`      | `LENGTH as sent` when the body it got is the pattern, else `LENGTH other`  |
//! | `/trailers`     | the trailer lines it got                                                   |
//! | `/early`        | 103 with a `Link`, then the head it got                                    |
//! | `/cut`          | the half of what it says its body is, then nothing                         |
//! | `/hold`         | nothing, until the test calls `release`                                    |
//! | `/login/VALUE`  | the head it got, and sets the cookies `SID=VALUE` and `other=1`            |
//! | `/health`       | 200, or 503 after `set_sick`                                               |
//! | `/ws`           | 101 to the handshake of RFC 6455 §1.3, then echoes bytes                    |
//! | anything else   | the head it got, byte for byte                                             |
//!
//! Every answer carries `X-Origin: NAME`. Single ranges are served on `/sized/N`.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use super::watch::DEADLINE;

/// A prime, so that no buffer size divides it and a piece out of place is seen.
const PERIOD: usize = 65_521;

pub struct Origin {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    name: String,
    requests: AtomicUsize,
    /// Connections that are open, and those that were ever made.
    open: AtomicUsize,
    made: AtomicUsize,
    /// Requests that wait in `/hold`, and whether they may go on.
    held: Mutex<(usize, bool)>,
    changed: Condvar,
    sick: AtomicBool,
}

impl Origin {
    pub fn start(name: &str) -> Origin {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port for an origin");
        let address = listener.local_addr().expect("the origin's address");
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            requests: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            made: AtomicUsize::new(0),
            held: Mutex::new((0, false)),
            changed: Condvar::new(),
            sick: AtomicBool::new(false),
        });
        let for_thread = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&for_thread);
                shared.made.fetch_add(1, Ordering::SeqCst);
                shared.open.fetch_add(1, Ordering::SeqCst);
                std::thread::spawn(move || {
                    // A connection that ends in the middle is the other side's affair.
                    drop(serve(stream, &shared));
                    shared.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Origin { address, shared }
    }

    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Requests whose head arrived whole.
    pub fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::SeqCst)
    }

    /// Connections that are open now.
    pub fn open(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// Connections that were made so far.
    pub fn made(&self) -> usize {
        self.shared.made.load(Ordering::SeqCst)
    }

    /// Requests that wait in `/hold` now.
    pub fn held(&self) -> usize {
        self.shared.held.lock().expect("the origin's state").0
    }

    /// What `/health` says from now on.
    pub fn set_sick(&self, sick: bool) {
        self.shared.sick.store(sick, Ordering::SeqCst);
    }

    /// Lets all that wait in `/hold` go on.
    pub fn release(&self) {
        self.shared.held.lock().expect("the origin's state").1 = true;
        self.shared.changed.notify_all();
    }
}

/// The bytes of the pattern from `offset` on, as many as lie in one piece.
pub fn pattern(offset: u64) -> &'static [u8] {
    static BYTES: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(|| {
        let mut state = 0x9E37_79B9_7F4A_7C15u64;
        let step = |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        (0..PERIOD).map(step).collect()
    });
    &BYTES[(offset % PERIOD as u64) as usize..]
}

/// Whether `bytes` are what the pattern has at `offset`.
pub fn is_pattern(mut offset: u64, mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        let expected = pattern(offset);
        let n = expected.len().min(bytes.len());
        if bytes[..n] != expected[..n] {
            return false;
        }
        bytes = &bytes[n..];
        offset += n as u64;
    }
    true
}

/// `length` bytes of the pattern, from `offset` on, to a sink.
pub fn send_pattern(to: &mut impl Write, mut offset: u64, length: u64) -> io::Result<()> {
    let end = offset + length;
    while offset < end {
        let piece = pattern(offset);
        let n = piece.len().min((end - offset).min(PERIOD as u64) as usize);
        to.write_all(&piece[..n])?;
        offset += n as u64;
    }
    Ok(())
}

struct Request {
    raw: String,
    method: String,
    path: String,
    fields: Vec<(String, String)>,
}

impl Request {
    fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

fn serve(stream: TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut out = stream.try_clone()?;
    let mut input = BufReader::with_capacity(64 << 10, stream);
    while let Some(request) = read_head(&mut input)? {
        shared.requests.fetch_add(1, Ordering::SeqCst);
        if request.field("expect").is_some_and(|e| e.eq_ignore_ascii_case("100-continue")) {
            out.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let (first, rest) = request.path[1..].split_once('/').unwrap_or((&request.path[1..], ""));
        match first {
            "sized" => sized(&request, rest.parse().unwrap_or(0), &mut out, shared)?,
            "chunked" => {
                drain(&mut input, &request)?;
                let head = format!("HTTP/1.1 200 OK\r\nX-Origin: {}\r\nTransfer-Encoding: chunked\r\n", shared.name);
                let body = "Trailer: x-sum\r\n\r\n1\r\na\r\n2\r\nbc\r\n3\r\ndef\r\n0\r\nx-sum: 6\r\n\r\n";
                out.write_all((head + body).as_bytes())?;
            }
            "echo" => {
                let mut body = Vec::new();
                read_body(&mut input, &request, |bytes| body.extend_from_slice(bytes))?;
                answer(&mut out, shared, &request, &body)?;
            }
            "measure" => {
                let (mut length, mut good) = (0u64, true);
                read_body(&mut input, &request, |bytes| {
                    good &= is_pattern(length, bytes);
                    length += bytes.len() as u64;
                })?;
                let said = format!("{length} {}", if good { "as sent" } else { "other" });
                answer(&mut out, shared, &request, said.as_bytes())?;
            }
            "trailers" => {
                let trailers = read_to_trailers(&mut input, &request, |_| ())?;
                answer(&mut out, shared, &request, trailers.as_bytes())?;
            }
            "early" => {
                drain(&mut input, &request)?;
                out.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n")?;
                answer(&mut out, shared, &request, request.raw.as_bytes())?;
            }
            "cut" => {
                drain(&mut input, &request)?;
                let half = [b'x'; 1000];
                let head = format!("HTTP/1.1 200 OK\r\nX-Origin: {}\r\nContent-Length: 2000\r\n\r\n", shared.name);
                out.write_all(&[head.as_bytes(), &half].concat())?;
                break;
            }
            "hold" => {
                drain(&mut input, &request)?;
                hold(shared);
                answer(&mut out, shared, &request, b"released")?;
            }
            "login" => {
                drain(&mut input, &request)?;
                let (name, body) = (&shared.name, request.raw.as_bytes());
                let length = body.len();
                let cookies = format!("Set-Cookie: SID={rest}; Path=/\r\nSet-Cookie: other=1");
                write!(out, "HTTP/1.1 200 OK\r\nX-Origin: {name}\r\n{cookies}\r\nContent-Length: {length}\r\n\r\n")?;
                out.write_all(body)?;
            }
            "health" if shared.sick.load(Ordering::SeqCst) => {
                drain(&mut input, &request)?;
                out.write_all(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")?;
            }
            "ws" => return websocket(&request, &mut input, &mut out, shared),
            _ => {
                drain(&mut input, &request)?;
                answer(&mut out, shared, &request, request.raw.as_bytes())?;
            }
        }
        if request.field("connection").is_some_and(|c| c.eq_ignore_ascii_case("close")) {
            break;
        }
    }
    Ok(())
}

/// One head; `None` at the end of the connection.
fn read_head(input: &mut impl BufRead) -> io::Result<Option<Request>> {
    let mut raw = String::new();
    loop {
        let start = raw.len();
        if input.read_line(&mut raw)? == 0 {
            return Ok(None);
        }
        if &raw[start..] == "\r\n" {
            break;
        }
    }
    let mut lines = raw.lines();
    let mut words = lines.next().unwrap_or("").split(' ');
    let method = words.next().unwrap_or("").to_owned();
    let target = words.next().unwrap_or("");
    let path = target.split('?').next().unwrap_or("");
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let fields = lines.filter_map(|line| line.split_once(':'));
    let fields = fields.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect();
    Ok(Some(Request { method, path, fields, raw }))
}

fn drain(input: &mut impl BufRead, request: &Request) -> io::Result<()> {
    read_body(input, request, |_| ())
}

fn read_body(input: &mut impl BufRead, request: &Request, take: impl FnMut(&[u8])) -> io::Result<()> {
    read_to_trailers(input, request, take).map(drop)
}

fn read_to_trailers(input: &mut impl BufRead, request: &Request, mut take: impl FnMut(&[u8])) -> io::Result<String> {
    if request.field("transfer-encoding").is_some() {
        loop {
            let mut line = String::new();
            input.read_line(&mut line)?;
            let digits = line.split(';').next().unwrap_or("").trim();
            let size = u64::from_str_radix(digits, 16).map_err(io::Error::other)?;
            if size == 0 {
                let mut trailers = String::new();
                while line != "\r\n" {
                    line.clear();
                    if input.read_line(&mut line)? == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    trailers.push_str(&line);
                }
                return Ok(trailers.trim_end().to_owned());
            }
            counted(input, size, &mut take)?;
            input.read_line(&mut line)?;
        }
    }
    let length = request.field("content-length").and_then(|value| value.parse().ok()).unwrap_or(0);
    counted(input, length, &mut take)?;
    Ok(String::new())
}

fn counted(input: &mut impl BufRead, mut left: u64, take: &mut impl FnMut(&[u8])) -> io::Result<()> {
    while left > 0 {
        let bytes = input.fill_buf()?;
        if bytes.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let n = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        take(&bytes[..n]);
        input.consume(n);
        left -= n as u64;
    }
    Ok(())
}

fn answer(out: &mut impl Write, shared: &Shared, request: &Request, body: &[u8]) -> io::Result<()> {
    let (name, length) = (&shared.name, body.len());
    let head = format!("HTTP/1.1 200 OK\r\nX-Origin: {name}\r\nContent-Length: {length}\r\n\r\n");
    out.write_all(head.as_bytes())?;
    if request.method != "HEAD" {
        out.write_all(body)?;
    }
    Ok(())
}

fn sized(request: &Request, size: u64, out: &mut impl Write, shared: &Shared) -> io::Result<()> {
    let range = request.field("range").and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
    let (first, length, status) = match range {
        // RFC 9110 §14.1.2: one range, both ends included.
        Some((from, to)) => {
            let from: u64 = from.parse().unwrap_or(0);
            let to: u64 = to.parse().unwrap_or(size - 1).min(size - 1);
            (from, to + 1 - from, format!("206 Partial Content\r\nContent-Range: bytes {from}-{to}/{size}"))
        }
        None => (0, size, "200 OK\r\nAccept-Ranges: bytes".to_owned()),
    };
    let name = &shared.name;
    write!(out, "HTTP/1.1 {status}\r\nX-Origin: {name}\r\nContent-Length: {length}\r\n\r\n")?;
    if request.method == "HEAD" {
        return Ok(());
    }
    send_pattern(out, first, length)
}

fn hold(shared: &Shared) {
    let mut held = shared.held.lock().expect("the origin's state");
    held.0 += 1;
    while !held.1 {
        let (guard, late) = shared.changed.wait_timeout(held, DEADLINE).expect("the origin's state");
        held = guard;
        if late.timed_out() {
            break;
        }
    }
    held.0 -= 1;
}

/// The key and its answer are the example of RFC 6455 §1.3: nothing to compute.
fn websocket(request: &Request, input: &mut impl Read, out: &mut TcpStream, shared: &Shared) -> io::Result<()> {
    let upgrade = request.field("upgrade").is_some_and(|value| value.eq_ignore_ascii_case("websocket"));
    if !upgrade || request.field("sec-websocket-key") != Some("dGhlIHNhbXBsZSBub25jZQ==") {
        return answer(out, shared, request, b"not the handshake");
    }
    let name = &shared.name;
    write!(
        out,
        "HTTP/1.1 101 Switching Protocols\r\nX-Origin: {name}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
    )?;
    out.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut bytes = [0; 16 << 10];
    loop {
        let n = input.read(&mut bytes)?;
        if n == 0 {
            return Ok(());
        }
        out.write_all(&bytes[..n])?;
    }
}
