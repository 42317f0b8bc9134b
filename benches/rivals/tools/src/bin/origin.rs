//! An HTTP/1.1 origin that costs little: one thread, edge-triggered epoll, keep-alive, one send an answer.
//!
//! Checks what it gets (the length and the bytes of every request body) and counts exactly what it answered.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;

use rival_tools::poll::{Change, Poll};
use rival_tools::{NUMBER, body_of, fail, head, help, option, pattern, websocket};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};

const USAGE: &str = "\
An origin for benchmarks.

usage: origin --port FIRST [--ports N]

  --port FIRST   listens on 127.0.0.1:FIRST
  --ports N      and on the N - 1 ports that follow (default: 1)

A path is answered by its last segment: 0, 1k, 10k, 100k or big (64 MiB) say how long the body is; any other is
answered with 1 KiB. The body of a request is read, compared and thrown away. A WebSocket gets its messages back.

  /count     what was answered so far, one line: requests, WebSocket messages, bytes of bodies sent, bytes of
             bodies received, wrong request bodies, connections. Neither this nor /health is counted.
  /health    200";

/// Answers up to this length go out as one piece with their head.
const ONE_PIECE: u64 = 64 << 10;

#[derive(Default)]
struct Count {
    requests: u64,
    messages: u64,
    sent: u64,
    received: u64,
    wrong: u64,
    connections: u64,
}

/// What the coming bytes of a connection are.
#[derive(Clone, Copy)]
enum Expect {
    Head,
    /// A request's body: how much of it was read, and how long it is.
    Body {
        read: u64,
        length: u64,
    },
    Frames,
}

struct Connection {
    socket: OwnedFd,
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
    fn serve(&mut self, over: bool, room: &mut Room, count: &mut Count) -> Goes {
        loop {
            match self.flush(count) {
                Ok(true) => {}
                Ok(false) => return true,
                Err(_) => return false,
            }
            if self.close {
                return false;
            }
            let n = match rustix::net::recv(&self.socket, &mut room.read[..], RecvFlags::empty()) {
                Ok((0, _)) => return false,
                Ok((n, _)) => n,
                Err(Errno::AGAIN) => return true,
                Err(_) => return false,
            };
            let bytes = std::mem::take(&mut room.read);
            let good = if self.input.is_empty() {
                self.take(&bytes[..n], &mut room.payload, count)
            } else {
                let mut whole = std::mem::take(&mut self.input);
                whole.extend_from_slice(&bytes[..n]);
                self.take(&whole, &mut room.payload, count)
            };
            let full = n == bytes.len();
            room.read = bytes;
            if !good {
                return false;
            }
            // Less than the room: the socket is empty, and the next byte brings the next event.
            if !full && !over && self.idle() {
                return true;
            }
        }
    }

    fn idle(&self) -> bool {
        self.output.is_empty() && self.next == self.end && !self.close
    }

    /// Takes bytes from the client; keeps what is not whole yet. False: they are no HTTP.
    fn take(&mut self, mut bytes: &[u8], payload: &mut Vec<u8>, count: &mut Count) -> bool {
        while !bytes.is_empty() {
            match self.expect {
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
                Expect::Body { read, length } => {
                    let (mine, rest) = bytes.split_at((length - read).min(bytes.len() as u64) as usize);
                    let read = read + mine.len() as u64;
                    if !pattern::matches(read - mine.len() as u64, mine) {
                        count.wrong += 1;
                    }
                    count.received += mine.len() as u64;
                    self.expect = if read == length { Expect::Head } else { Expect::Body { read, length } };
                    bytes = rest;
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

    /// Sends what there is to send. True: all of it went.
    fn flush(&mut self, count: &mut Count) -> rustix::io::Result<bool> {
        let mut sent = 0;
        while sent < self.output.len() {
            let more = if self.next < self.end { SendFlags::MORE } else { SendFlags::empty() };
            match rustix::net::send(&self.socket, &self.output[sent..], SendFlags::NOSIGNAL | more) {
                Ok(n) => sent += n,
                Err(Errno::AGAIN) => {
                    self.output.drain(..sent);
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
        self.output.clear();
        while self.next < self.end {
            let piece = pattern::piece(self.next, self.end - self.next);
            match rustix::net::send(&self.socket, piece, SendFlags::NOSIGNAL) {
                Ok(n) => {
                    self.next += n as u64;
                    count.sent += n as u64;
                }
                Err(Errno::AGAIN) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
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
                    let mut goes = connection.serve(over, &mut room, &mut count);
                    // A request that came while the answer before it was being sent.
                    while goes && connection.idle() && !connection.input.is_empty() {
                        let before = connection.input.len();
                        let input = std::mem::take(&mut connection.input);
                        goes = connection.take(&input, &mut room.payload, &mut count);
                        if connection.input.len() == before {
                            break;
                        }
                        goes = goes && connection.serve(over, &mut room, &mut count);
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
                        sockopt::set_tcp_nodelay(&socket, true)?;
                        count.connections += 1;
                        let at = free.pop().unwrap_or_else(|| {
                            entries.push(Entry::Free);
                            entries.len() - 1
                        });
                        poll.watch(&socket, at)?;
                        entries[at] = Entry::Connection(Box::new(Connection {
                            socket,
                            input: Vec::new(),
                            expect: Expect::Head,
                            output: Vec::new(),
                            next: 0,
                            end: 0,
                            close: false,
                        }));
                    }
                }
            }
        }
    }
}
