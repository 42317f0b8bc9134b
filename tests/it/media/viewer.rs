//! A client of RTSP in the test's own hands: it sends what it is told and takes apart what comes.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

pub struct Viewer {
    pub stream: TcpStream,
    received: Vec<u8>,
    /// What of `received` has been taken.
    taken: usize,
    number: u32,
    /// Frames that came before an answer: channel and bytes.
    pub frames: Vec<(u8, Vec<u8>)>,
}

/// An answer, or a request of the server's.
#[derive(Debug)]
pub struct Told {
    pub head: String,
    pub body: String,
}

enum Message {
    Frame(u8, Vec<u8>),
    Told(Told),
}

impl Viewer {
    pub fn on(stream: TcpStream) -> Viewer {
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        Viewer { stream, received: Vec::new(), taken: 0, number: 0, frames: Vec::new() }
    }

    /// Sends a request without waiting for its answer. `fields` have their line ends.
    pub fn send(&mut self, method: &str, url: &str, fields: &str) {
        self.number += 1;
        let text = format!("{method} {url} RTSP/1.0\r\nCSeq: {}\r\n{fields}\r\n", self.number);
        self.stream.write_all(text.as_bytes()).unwrap_or_else(|error| panic!("{method} {url}: {error}"));
    }

    pub fn ask(&mut self, method: &str, url: &str, fields: &str) -> Told {
        self.send(method, url, fields);
        let told = self.told();
        assert_eq!(told.field("cseq"), Some(self.number.to_string().as_str()), "{method} {url}: {told:?}");
        told
    }

    /// The next message that is not a frame; frames before it are kept.
    pub fn told(&mut self) -> Told {
        self.next_told().expect("a message, and not the end")
    }

    /// As `told`, unless the other side leaves first.
    pub fn next_told(&mut self) -> Option<Told> {
        loop {
            match self.next() {
                Ok(Message::Frame(channel, bytes)) => self.frames.push((channel, bytes)),
                Ok(Message::Told(told)) => return Some(told),
                Err(_) => return None,
            }
        }
    }

    /// The next frame, which nothing but frames may come before.
    pub fn frame(&mut self) -> (u8, Vec<u8>) {
        if !self.frames.is_empty() {
            return self.frames.remove(0);
        }
        match self.next().unwrap_or_else(|error| panic!("no frame: {error}")) {
            Message::Frame(channel, bytes) => (channel, bytes),
            Message::Told(told) => panic!("no frame but {told:?}"),
        }
    }

    pub fn send_frame(&mut self, channel: u8, bytes: &[u8]) {
        self.stream.write_all(&framed(channel, bytes)).expect("a frame is sent");
    }

    /// Whether the server closed, after whatever it still sent.
    pub fn closed(&mut self) -> bool {
        loop {
            match self.next() {
                Ok(_) => {}
                Err(error) => return error.kind() != std::io::ErrorKind::WouldBlock,
            }
        }
    }

    fn next(&mut self) -> std::io::Result<Message> {
        loop {
            let rest = &self.received[self.taken..];
            if let Some((message, length)) = first(rest) {
                self.taken += length;
                return Ok(message);
            }
            self.received.drain(..self.taken);
            self.taken = 0;
            let start = self.received.len();
            self.received.resize(start + 64 * 1024, 0);
            let read = self.stream.read(&mut self.received[start..]);
            self.received.truncate(start + read.as_ref().map_or(0, |count| *count));
            if read? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

fn first(bytes: &[u8]) -> Option<(Message, usize)> {
    if let [b'$', channel, high, low, rest @ ..] = bytes {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let frame = rest.get(..length)?;
        return Some((Message::Frame(*channel, frame.to_vec()), 4 + length));
    }
    if bytes.first()? == &b'$' {
        return None;
    }
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap_or_else(|_| panic!("not a head: {:?}", &bytes[..end]));
    let mut told = Told { head, body: String::new() };
    let length = told.field("content-length").map_or(0, |text| text.parse().expect("a length"));
    told.body = String::from_utf8(bytes.get(end + 4..end + 4 + length)?.to_vec()).expect("a body of text");
    Some((Message::Told(told), end + 4 + length))
}

pub fn framed(channel: u8, bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).expect("at most 65,535 bytes").to_be_bytes();
    let mut frame = vec![b'$', channel, length[0], length[1]];
    frame.extend(bytes);
    frame
}

impl Told {
    pub fn status(&self) -> u16 {
        self.head.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("no status: {self:?}"))
    }

    pub fn field(&self, name: &str) -> Option<&str> {
        field(&self.head, name)
    }

    /// This answer, if it says 200.
    pub fn good(self) -> Told {
        assert_eq!(self.status(), 200, "{self:?}");
        self
    }

    /// The line that goes on with its session.
    pub fn session(&self) -> String {
        let field = self.field("session").unwrap_or_else(|| panic!("no session: {self:?}"));
        format!("Session: {}\r\n", field.split(';').next().unwrap_or_default().trim())
    }
}

/// The first field of that name in a head.
pub fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let fields = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    fields
        .map(|(field, value)| (field.trim(), value.trim()))
        .find(|(field, _)| field.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
}
