//! The client's side of an HTTP/1.1 connection, or of a WebSocket: one request at a time.

use std::time::Instant;

use crate::client::{Answer, Kind};
use crate::{NUMBER, body_of, head, pattern, websocket};

/// Key and answer of every WebSocket handshake; the key never changes, its answer is computed once.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// What a browser says about itself, and the fields that the rules ask for.
const FIELDS: &str = "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
    Accept-Language: en-GB,en;q=0.7,de;q=0.3\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n\
    Cookie: session=5d41402abc4b2a76b9719d911017c592; plan=gold; lang=en\r\nX-Channel: stable\r\n";

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// The WebSocket handshake is under way.
    Upgrading,
    Idle,
    Busy,
}

pub struct Http1 {
    state: State,
    started: Instant,
    number: u64,
    /// Bytes of the answer's body.
    wanted: u64,
    input: Vec<u8>,
    /// Of the answer's body: read so far, and in all.
    body: Option<(u64, u64)>,
    /// What is to be sent: bytes, then a body from `next` to `end`.
    output: Vec<u8>,
    next: u64,
    end: u64,
}

impl Http1 {
    pub fn new(_: &Kind) -> Http1 {
        let (input, output) = (Vec::new(), Vec::new());
        Http1 {
            state: State::Idle,
            started: Instant::now(),
            number: 0,
            wanted: 0,
            input,
            body: None,
            output,
            next: 0,
            end: 0,
        }
    }

    pub fn free(&self) -> bool {
        self.state == State::Idle
    }

    pub fn busy(&self) -> bool {
        self.state != State::Idle
    }

    pub fn begin(&mut self, kind: &Kind, target: &str) {
        if kind.message > 0 {
            self.state = State::Upgrading;
            self.output = format!(
                "GET {target} HTTP/1.1\r\nHost: {}\r\n{FIELDS}Connection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n",
                kind.host
            )
            .into_bytes();
        }
    }

    pub fn request(&mut self, kind: &Kind, target: &str, number: u64, started: Instant) {
        self.state = State::Busy;
        self.started = started;
        self.number = number;
        self.output.clear();
        if kind.message > 0 {
            websocket::write(&mut self.output, pattern::piece(number, kind.message), true);
            return;
        }
        let (host, path) = kind.split(target);
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
    }

    /// What is to be sent next.
    pub fn output(&self) -> &[u8] {
        if self.output.is_empty() { pattern::piece(self.next, self.end - self.next) } else { &self.output }
    }

    /// The first `n` bytes of it were sent.
    pub fn sent(&mut self, n: usize) {
        match self.output.len() {
            0 => self.next += n as u64,
            whole if whole == n => self.output.clear(),
            _ => drop(self.output.drain(..n)),
        }
    }

    /// Takes bytes; the answer, once it is complete.
    pub fn take(&mut self, kind: &Kind, bytes: &[u8]) -> Result<Option<Answer>, String> {
        let whole = match self.state {
            State::Busy if kind.message > 0 => self.take_frame(kind, bytes)?,
            State::Busy => self.take_answer(bytes)?,
            State::Upgrading => {
                self.take_upgrade(bytes)?;
                return Ok(None);
            }
            State::Idle => return Err("bytes that nobody asked for".into()),
        };
        if !whole {
            return Ok(None);
        }
        self.state = State::Idle;
        Ok(Some(Answer { started: self.started, bytes: self.wanted + kind.body }))
    }

    fn take_upgrade(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.input.extend_from_slice(bytes);
        let Some(end) = head::end(&self.input) else { return Ok(()) };
        let accepted = head::field(&self.input[..end], b"sec-websocket-accept");
        if head::status(&self.input) != Some(101) || accepted != Some(websocket::accept(KEY.as_bytes()).as_bytes()) {
            return Err(format!("no WebSocket: {}", first_line(&self.input)));
        }
        self.input.clear();
        self.state = State::Idle;
        Ok(())
    }

    fn take_frame(&mut self, kind: &Kind, bytes: &[u8]) -> Result<bool, String> {
        self.input.extend_from_slice(bytes);
        let mut payload = Vec::new();
        let Some((length, kind_of_frame)) = websocket::read(&self.input, &mut payload) else { return Ok(false) };
        if length != self.input.len() || kind_of_frame != 1 || payload != pattern::piece(self.number, kind.message) {
            return Err("another message came back".into());
        }
        self.input.clear();
        Ok(true)
    }

    fn take_answer(&mut self, mut bytes: &[u8]) -> Result<bool, String> {
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
                    return if self.input.len() > 64 << 10 { Err("an endless head".into()) } else { Ok(false) };
                };
                if let Some(fault) = self.fault(&whole[..end]) {
                    return Err(fault);
                }
                let of_body = whole.len() - end;
                bytes = &bytes[bytes.len() - of_body..];
                self.input.clear();
                (0, self.wanted)
            }
        };
        if bytes.len() as u64 > length - read {
            return Err("more bytes than the answer's length".into());
        }
        if !pattern::matches(read, bytes) {
            return Err("the answer has other bytes than the origin sent".into());
        }
        let read = read + bytes.len() as u64;
        if read < length {
            self.body = Some((read, length));
            return Ok(false);
        }
        if self.next < self.end {
            return Err("answered before the request was sent whole".into());
        }
        self.body = None;
        Ok(true)
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

fn first_line(bytes: &[u8]) -> String {
    let line = bytes.split(|&b| b == b'\r').next().unwrap_or_default();
    String::from_utf8_lossy(&line[..line.len().min(80)]).replace(['"', '\\'], "'")
}
