//! An origin that costs little: one thread, edge-triggered epoll, keep-alive, one send an answer. A connection's first
//! bytes say whether it is HTTP/1.1 or HTTP/2, and whether it is under TLS.
//!
//! Checks what it gets (the length and the bytes of every request body) and counts exactly what it answered.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::path::Path;

use rival_tools::poll::{Change, Poll};
use rival_tools::server2::{Count, Http2};
use rival_tools::stream::{Received, Stream};
use rival_tools::{NUMBER, body_of, fail, head, help, option, pattern, tls, websocket};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

const USAGE: &str = "\
An origin for benchmarks.

usage: origin --port FIRST [options]

  --port FIRST         listens on 127.0.0.1:FIRST
  --ports N            and on the N - 1 ports that follow (default: 1)
  --certificate FILE   speaks TLS 1.3 too, to those who begin with it, with this certificate (PEM), and
  --key FILE           with its key

A path is answered by its last segment: 0, 1k, 10k, 100k or big (64 MiB) say how long the body is; any other is
answered with 1 KiB. The body of a request is read, compared and thrown away. A WebSocket gets its messages back. HTTP/2 is spoken with
prior knowledge; there, bodies have up to 10 KiB, and a unary call of gRPC is answered with a message of as many bytes.

  /count     what was answered so far, one line: requests, WebSocket messages, bytes of bodies sent, bytes of
             bodies received, wrong request bodies, connections. Neither this nor /health is counted.
  /health    200";

/// Answers up to this length go out as one piece with their head.
const ONE_PIECE: u64 = 64 << 10;

/// What the coming bytes of a connection are.
enum Expect {
    Head,
    /// A request's body: how much of it was read, and how long it is.
    Body {
        read: u64,
        length: u64,
    },
    Frames,
    /// The end of the preface, then frames.
    Http2 {
        preface: usize,
        talk: Box<Http2>,
    },
}

struct Connection {
    stream: Stream,
    talk: Talk,
}

/// What is said on a connection.
struct Talk {
    /// The beginning of a head or a frame whose rest is still to come.
    input: Vec<u8>,
    expect: Expect,
    /// What could not be sent yet: bytes, then a body from `next` to `end`.
    output: Vec<u8>,
    next: u64,
    end: u64,
    close: bool,
}

enum Entry {
    Listener(OwnedFd),
    Connection(Box<Connection>),
    Free,
}

/// Room that all connections share while one is served.
struct Room {
    read: Vec<u8>,
    payload: Vec<u8>,
}

/// True: it goes on. False: it is over.
type Goes = bool;

impl Connection {
    /// Reads, answers and writes until the socket has no more to give or to take.
    fn serve(&mut self, over: bool, room: &mut Room, count: &mut Count) -> Result<Goes, String> {
        loop {
            if !self.flush(count)? {
                return Ok(true);
            }
            if self.talk.close {
                return Ok(false);
            }
            let (talk, payload) = (&mut self.talk, &mut room.payload);
            let received = self.stream.receive(&mut room.read, &mut |bytes| {
                let good = if talk.input.is_empty() {
                    talk.take(bytes, payload, count)
                } else {
                    let mut whole = std::mem::take(&mut talk.input);
                    whole.extend_from_slice(bytes);
                    talk.take(&whole, payload, count)
                };
                if good { Ok(()) } else { Err("no HTTP".into()) }
            })?;
            match received {
                Received::Nothing => return Ok(true),
                Received::End => return Ok(false),
                Received::Some if !over && self.talk.idle() => {
                    self.stream.flush()?; // what belongs to TLS alone
                    return Ok(true);
                }
                Received::Some | Received::Full => {}
            }
        }
    }

    /// Sends what there is to send. True: all of it went.
    fn flush(&mut self, count: &mut Count) -> Result<bool, String> {
        let talk = &mut self.talk;
        let mut sent = 0;
        while sent < talk.output.len() {
            match self.stream.send(&talk.output[sent..], talk.next < talk.end)? {
                Some(n) => sent += n,
                None => {
                    talk.output.drain(..sent);
                    return Ok(false);
                }
            }
        }
        talk.output.clear();
        while talk.next < talk.end {
            let piece = pattern::piece(talk.next, talk.end - talk.next);
            let Some(n) = self.stream.send(piece, false)? else { return Ok(false) };
            talk.next += n as u64;
            count.sent += n as u64;
        }
        self.stream.flush()
    }
}

impl Talk {
    fn idle(&self) -> bool {
        self.output.is_empty() && self.next == self.end && !self.close
    }

    /// Takes bytes from the client; keeps what is not whole yet. False: they are no HTTP.
    fn take(&mut self, mut bytes: &[u8], payload: &mut Vec<u8>, count: &mut Count) -> bool {
        while !bytes.is_empty() {
            match &mut self.expect {
                Expect::Head => {
                    // One answer after the other: a body that is still being sent comes first.
                    let Some(end) = head::end(bytes).filter(|_| self.next == self.end && !self.close) else {
                        self.input.extend_from_slice(bytes);
                        return self.input.len() < 1 << 20;
                    };
                    if !self.answer(&bytes[..end], count) {
                        return false;
                    }
                    bytes = &bytes[end..];
                }
                &mut Expect::Body { read, length } => {
                    let (mine, rest) = bytes.split_at((length - read).min(bytes.len() as u64) as usize);
                    let read = read + mine.len() as u64;
                    if !pattern::matches(read - mine.len() as u64, mine) {
                        count.wrong += 1;
                    }
                    count.received += mine.len() as u64;
                    self.expect = if read == length { Expect::Head } else { Expect::Body { read, length } };
                    bytes = rest;
                }
                Expect::Http2 { preface, talk } => {
                    let (rest_of_preface, frames) = bytes.split_at(bytes.len().min(*preface));
                    *preface -= rest_of_preface.len();
                    return frames.is_empty() || talk.take(frames, &mut self.output, count).is_ok();
                }
                Expect::Frames => {
                    let Some((length, kind)) = websocket::read(bytes, payload) else {
                        self.input.extend_from_slice(bytes);
                        return self.input.len() < 1 << 20;
                    };
                    match kind {
                        8 => return false,
                        _ => {
                            count.messages += 1;
                            websocket::write(&mut self.output, payload, false);
                        }
                    }
                    bytes = &bytes[length..];
                }
            }
        }
        true
    }

    /// Puts the answer to a request into the output.
    fn answer(&mut self, request: &[u8], count: &mut Count) -> bool {
        if request == b"PRI * HTTP/2.0\r\n\r\n" {
            let talk = Box::new(Http2::new(&mut self.output));
            self.expect = Expect::Http2 { preface: b"SM\r\n\r\n".len(), talk };
            return true;
        }
        let path = head::path(request);
        if let Some(key) = head::field(request, b"sec-websocket-key") {
            let accept = websocket::accept(key);
            let text = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n";
            self.output.extend_from_slice(text.as_bytes());
            self.output.extend_from_slice(format!("Sec-WebSocket-Accept: {accept}\r\n\r\n").as_bytes());
            self.expect = Expect::Frames;
            return true;
        }
        let text = match path {
            b"/health" => Some("good\n".to_string()),
            b"/count" => Some(format!(
                "requests={} messages={} sent={} received={} wrong={} connections={}\n",
                count.requests, count.messages, count.sent, count.received, count.wrong, count.connections
            )),
            _ => None,
        };
        let length = text.as_ref().map_or_else(|| body_of(path), |text| text.len() as u64);
        self.close = head::field(request, b"connection").is_some_and(|value| value.eq_ignore_ascii_case(b"close"));
        let of_request = match head::field(request, b"content-length") {
            None => 0,
            Some(value) => match head::number(value) {
                Some(number) => number,
                None => return false,
            },
        };
        if of_request == 0 && head::field(request, b"transfer-encoding").is_some() {
            return false; // no client of the benchmark sends chunks
        }
        if of_request > 0 {
            self.expect = Expect::Body { read: 0, length: of_request };
        }
        self.output
            .extend_from_slice(b"HTTP/1.1 200 OK\r\nServer: origin\r\nContent-Type: application/octet-stream\r\n");
        if let Some(number) = head::field(request, NUMBER) {
            self.output.extend_from_slice(b"X-Number: ");
            self.output.extend_from_slice(number);
            self.output.extend_from_slice(b"\r\n");
        }
        self.output.extend_from_slice(b"Content-Length: ");
        decimal(&mut self.output, length);
        self.output.extend_from_slice(b"\r\n\r\n");
        match text {
            Some(text) => self.output.extend_from_slice(text.as_bytes()),
            None => {
                count.requests += 1;
                if request.starts_with(b"HEAD ") {
                } else if length <= ONE_PIECE {
                    self.output.extend_from_slice(pattern::piece(0, length));
                    count.sent += length;
                } else {
                    (self.next, self.end) = (0, length);
                }
            }
        }
        true
    }
}

fn decimal(to: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    to.extend_from_slice(&digits[at..]);
}

fn listen(port: u16) -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))?;
    rustix::net::listen(&socket, 4096)?;
    Ok(socket)
}

fn main() -> io::Result<()> {
    help(USAGE);
    let (first, ports): (u16, u16) = (option("port", 0), option("ports", 1));
    if first == 0 {
        fail("--port FIRST is needed; see --help");
    }
    let (certificate, key): (String, String) = (option("certificate", String::new()), option("key", String::new()));
    let offer = (!certificate.is_empty())
        .then(|| tls::server(Path::new(&certificate), Path::new(&key)).unwrap_or_else(|why| fail(&why)));
    let mut poll = Poll::new()?;
    let mut entries: Vec<Entry> = Vec::new();
    let mut free: Vec<usize> = Vec::new();
    for port in first..first.saturating_add(ports) {
        let socket = listen(port).unwrap_or_else(|error| fail(&format!("127.0.0.1:{port}: {error}")));
        poll.watch_level(&socket, entries.len())?;
        entries.push(Entry::Listener(socket));
    }
    let mut room = Room { read: vec![0; 256 << 10], payload: Vec::new() };
    let mut count = Count::default();
    let mut changed = Vec::new();
    loop {
        poll.wait(None, &mut changed)?;
        for &Change { number, over } in &changed {
            match &mut entries[number] {
                Entry::Free => {}
                Entry::Connection(connection) => {
                    let mut goes = connection.serve(over, &mut room, &mut count).unwrap_or(false);
                    // A request that came while the answer before it was being sent.
                    while goes && connection.talk.idle() && !connection.talk.input.is_empty() {
                        let before = connection.talk.input.len();
                        let input = std::mem::take(&mut connection.talk.input);
                        goes = connection.talk.take(&input, &mut room.payload, &mut count);
                        if connection.talk.input.len() == before {
                            break;
                        }
                        goes = goes && connection.serve(over, &mut room, &mut count).unwrap_or(false);
                    }
                    if !goes {
                        entries[number] = Entry::Free;
                        free.push(number);
                    }
                }
                Entry::Listener(listener) => {
                    let mut accepted = Vec::new();
                    while let Ok(socket) =
                        rustix::net::accept_with(&*listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)
                    {
                        accepted.push(socket);
                    }
                    for socket in accepted {
                        let stream = Stream::accepted(socket, offer.clone())?;
                        count.connections += 1;
                        let at = free.pop().unwrap_or_else(|| {
                            entries.push(Entry::Free);
                            entries.len() - 1
                        });
                        poll.watch(stream.socket(), at)?;
                        let talk = Talk {
                            input: Vec::new(),
                            expect: Expect::Head,
                            output: Vec::new(),
                            next: 0,
                            end: 0,
                            close: false,
                        };
                        entries[at] = Entry::Connection(Box::new(Connection { stream, talk }));
                    }
                }
            }
        }
    }
}
