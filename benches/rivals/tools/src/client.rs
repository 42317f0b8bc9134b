//! One connection of the load generator: sends a request, takes its answer and checks it.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::time::Instant;

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};

use crate::{NUMBER, body_of, head, pattern, websocket};

/// Key and answer of every WebSocket handshake; the key never changes, its answer is computed once.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// What a browser says about itself, and the fields that the rules ask for.
const FIELDS: &str = "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
    Accept-Language: en-GB,en;q=0.7,de;q=0.3\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n\
    Cookie: session=5d41402abc4b2a76b9719d911017c592; plan=gold; lang=en\r\nX-Channel: stable\r\n";

/// What every request of a run has in common.
pub struct Kind {
    pub address: SocketAddrV4,
    pub host: String,
    /// Bytes of a request's body; 0: GET without one.
    pub body: u64,
    /// Each request on a connection of its own.
    pub fresh: bool,
    /// Bytes of a WebSocket message; 0: plain requests.
    pub message: u64,
    /// Connections start from so many addresses, 127.0.1.1 and up, so that ports do not run out. 0: any.
    pub sources: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    Connecting,
    /// The WebSocket handshake is under way.
    Upgrading,
    Idle,
    Busy,
}

/// What an event brought.
pub enum Progress {
    Nothing,
    /// The connection stands, or its WebSocket does.
    Ready,
    /// The answer is complete and as it should be.
    Answered,
    /// The connection is of no more use.
    Wrong(String),
}

pub struct Client {
    socket: OwnedFd,
    pub state: State,
    /// When the request was sent, or should have been.
    pub started: Instant,
    number: u64,
    /// Bytes of the answer's body.
    pub wanted: u64,
    input: Vec<u8>,
    /// Of the answer's body: read so far, and in all.
    body: Option<(u64, u64)>,
    output: Vec<u8>,
    next: u64,
    end: u64,
}

impl Client {
    pub fn open(kind: &Kind, serial: u64, started: Instant) -> rustix::io::Result<Client> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
        sockopt::set_tcp_nodelay(&socket, true)?;
        if kind.sources > 0 {
            let last = 1 + (serial % u64::from(kind.sources)) as u8;
            rustix::net::bind(&socket, &SocketAddrV4::new(Ipv4Addr::new(127, 0, 1, last), 0))?;
        }
        match rustix::net::connect(&socket, &kind.address) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error),
        }
        Ok(Client {
            socket,
            state: State::Connecting,
            started,
            number: 0,
            wanted: 0,
            input: Vec::new(),
            body: None,
            output: Vec::new(),
            next: 0,
            end: 0,
        })
    }

    pub fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    /// Sends request `number` to `target`: a path, or a host and a path.
    pub fn request(&mut self, kind: &Kind, target: &str, number: u64, started: Instant) -> Progress {
        self.state = State::Busy;
        self.started = started;
        self.number = number;
        self.output.clear();
        if kind.message > 0 {
            websocket::write(&mut self.output, pattern::piece(number, kind.message), true);
            return self.flush();
        }
        let (host, path) = match target.find('/') {
            Some(0) | None => (kind.host.as_str(), target),
            Some(at) => target.split_at(at),
        };
        let method: &[u8] = if kind.body > 0 { b"POST " } else { b"GET " };
        let parts = [method, path.as_bytes(), b" HTTP/1.1\r\nHost: ", host.as_bytes(), b"\r\n", FIELDS.as_bytes()];
        parts.iter().for_each(|part| self.output.extend_from_slice(part));
        self.output.extend_from_slice(format!("X-Number: {number}\r\n").as_bytes());
        if kind.fresh {
            self.output.extend_from_slice(b"Connection: close\r\n");
        }
        if kind.body > 0 {
            self.output.extend_from_slice(format!("Content-Length: {}\r\n", kind.body).as_bytes());
        }
        self.output.extend_from_slice(b"\r\n");
        let with_head = if kind.body <= 64 << 10 { kind.body } else { 0 };
        self.output.extend_from_slice(pattern::piece(0, with_head));
        (self.next, self.end) = (with_head, kind.body);
        self.wanted = body_of(path.as_bytes());
        self.flush()
    }

    /// Goes on after an event. `over`: the other side has ended the connection.
    pub fn go_on(&mut self, kind: &Kind, target: &str, over: bool, room: &mut [u8]) -> Progress {
        if self.state == State::Connecting {
            match sockopt::socket_error(&self.socket) {
                Ok(Ok(())) if !over => {}
                Ok(Ok(())) => return wrong("the connection was ended at once"),
                Ok(Err(error)) | Err(error) => return wrong(&format!("connect: {error}")),
            }
            if kind.message == 0 {
                self.state = State::Idle;
                return Progress::Ready;
            }
            self.state = State::Upgrading;
            self.output = format!(
                "GET {target} HTTP/1.1\r\nHost: {}\r\n{FIELDS}Connection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n",
                kind.host
            )
            .into_bytes();
        }
        match self.flush() {
            Progress::Nothing => self.receive(kind, over, room),
            failed => failed,
        }
    }

    fn flush(&mut self) -> Progress {
        while !self.output.is_empty() {
            match rustix::net::send(&self.socket, &self.output, SendFlags::NOSIGNAL) {
                Ok(n) if n == self.output.len() => self.output.clear(),
                Ok(n) => drop(self.output.drain(..n)),
                Err(Errno::AGAIN) => return Progress::Nothing,
                Err(error) => return wrong(&format!("send: {error}")),
            }
        }
        while self.next < self.end {
            match rustix::net::send(&self.socket, pattern::piece(self.next, self.end - self.next), SendFlags::NOSIGNAL)
            {
                Ok(n) => self.next += n as u64,
                Err(Errno::AGAIN) => return Progress::Nothing,
                Err(error) => return wrong(&format!("send: {error}")),
            }
        }
        Progress::Nothing
    }

    fn receive(&mut self, kind: &Kind, over: bool, room: &mut [u8]) -> Progress {
        loop {
            let n = match rustix::net::recv(&self.socket, &mut *room, RecvFlags::empty()) {
                Ok((0, _)) if self.state == State::Idle => return wrong("an idle connection was ended"),
                Ok((0, _)) => return wrong("ended before the answer was complete"),
                Ok((n, _)) => n,
                Err(Errno::AGAIN) => return Progress::Nothing,
                Err(error) => return wrong(&format!("receive: {error}")),
            };
            let progress = self.take(kind, &room[..n]);
            if !matches!(progress, Progress::Nothing) {
                // The next request sees the end of a connection that answered last.
                return progress;
            }
            // Less than the room: the socket is empty, and the next byte brings the next event.
            if n < room.len() && !over {
                return Progress::Nothing;
            }
        }
    }

    fn take(&mut self, kind: &Kind, bytes: &[u8]) -> Progress {
        match self.state {
            State::Busy if kind.message > 0 => self.take_frame(kind, bytes),
            State::Busy => self.take_answer(bytes),
            State::Upgrading => {
                self.input.extend_from_slice(bytes);
                let Some(end) = head::end(&self.input) else { return Progress::Nothing };
                let accepted = head::field(&self.input[..end], b"sec-websocket-accept");
                if head::status(&self.input) != Some(101)
                    || accepted != Some(websocket::accept(KEY.as_bytes()).as_bytes())
                {
                    return wrong(&format!("no WebSocket: {}", first_line(&self.input)));
                }
                self.input.clear();
                self.state = State::Idle;
                Progress::Ready
            }
            State::Idle | State::Connecting => wrong("bytes that nobody asked for"),
        }
    }

    fn take_frame(&mut self, kind: &Kind, bytes: &[u8]) -> Progress {
        self.input.extend_from_slice(bytes);
        let mut payload = Vec::new();
        let Some((length, kind_of_frame)) = websocket::read(&self.input, &mut payload) else {
            return Progress::Nothing;
        };
        if length != self.input.len() || kind_of_frame != 1 || payload != pattern::piece(self.number, kind.message) {
            return wrong("another message came back");
        }
        self.input.clear();
        self.state = State::Idle;
        Progress::Answered
    }

    fn take_answer(&mut self, mut bytes: &[u8]) -> Progress {
        let (read, length) = match self.body {
            Some(body) => body,
            None => {
                let joined = !self.input.is_empty();
                if joined {
                    self.input.extend_from_slice(bytes);
                }
                let whole: &[u8] = if joined { &self.input } else { bytes };
                let Some(end) = head::end(whole) else {
                    if !joined {
                        self.input.extend_from_slice(bytes);
                    }
                    return if self.input.len() > 64 << 10 { wrong("an endless head") } else { Progress::Nothing };
                };
                if let Some(fault) = self.fault(&whole[..end]) {
                    return Progress::Wrong(fault);
                }
                let of_body = whole.len() - end;
                bytes = &bytes[bytes.len() - of_body..];
                self.input.clear();
                (0, self.wanted)
            }
        };
        if bytes.len() as u64 > length - read {
            return wrong("more bytes than the answer's length");
        }
        if !pattern::matches(read, bytes) {
            return wrong("the answer has other bytes than the origin sent");
        }
        let read = read + bytes.len() as u64;
        if read < length {
            self.body = Some((read, length));
            return Progress::Nothing;
        }
        if self.next < self.end {
            return wrong("answered before the request was sent whole");
        }
        self.body = None;
        self.state = State::Idle;
        Progress::Answered
    }

    /// What is wrong with an answer's head.
    fn fault(&self, answer: &[u8]) -> Option<String> {
        if head::status(answer) != Some(200) {
            return Some(format!("answered {}", first_line(answer)));
        }
        if head::field(answer, b"content-length").and_then(head::number) != Some(self.wanted) {
            return Some(format!("another length than {}", self.wanted));
        }
        if head::field(answer, NUMBER).and_then(head::number) != Some(self.number) {
            return Some("the answer of another request".to_string());
        }
        None
    }
}

fn wrong(why: &str) -> Progress {
    Progress::Wrong(why.to_string())
}

fn first_line(bytes: &[u8]) -> String {
    let line = bytes.split(|&b| b == b'\r').next().unwrap_or_default();
    String::from_utf8_lossy(&line[..line.len().min(80)]).replace(['"', '\\'], "'")
}
