//! An RTSP server and a client that do what a test says, and no more.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::farm::until;

/// One message.
#[derive(Debug, Clone)]
pub struct Message {
    /// `PLAY rtsp://a/ RTSP/1.0`, `RTSP/1.0 200 OK`.
    pub first: String,
    pub fields: Vec<(String, String)>,
    pub body: String,
}

impl Message {
    pub fn value(&self, name: &str) -> &str {
        self.fields.iter().find(|(own, _)| own.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value)
    }

    pub fn status(&self) -> u16 {
        self.first.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_default()
    }

    fn word(&self, at: usize) -> &str {
        self.first.split(' ').nth(at).unwrap_or_default()
    }
}

/// What stands in the bytes of a connection.
#[derive(Debug)]
pub enum Item {
    Message(Message),
    Frame(u8, Vec<u8>),
    End,
}

/// Reads a connection by items.
pub struct Wire<R> {
    pub stream: R,
    bytes: Vec<u8>,
}

impl<R: Read> Wire<R> {
    pub fn new(stream: R) -> Wire<R> {
        Wire { stream, bytes: Vec::new() }
    }

    fn more(&mut self) -> bool {
        let mut room = [0; 16 << 10];
        match self.stream.read(&mut room) {
            Ok(count) if count > 0 => {
                self.bytes.extend_from_slice(&room[..count]);
                true
            }
            _ => false,
        }
    }

    pub fn next(&mut self) -> Item {
        loop {
            if let Some(item) = self.whole() {
                return item;
            }
            if !self.more() {
                return Item::End;
            }
        }
    }

    fn whole(&mut self) -> Option<Item> {
        if self.bytes.first() == Some(&b'$') {
            let head = self.bytes.first_chunk::<4>()?;
            let end = 4 + usize::from(u16::from_be_bytes([head[2], head[3]]));
            let channel = head[1];
            let payload = self.bytes.get(4..end)?.to_vec();
            self.bytes.drain(..end);
            return Some(Item::Frame(channel, payload));
        }
        let end = self.bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
        let head = String::from_utf8(self.bytes[..end].to_vec()).expect("a head of text");
        let mut lines = head.lines();
        let first = lines.next().unwrap_or_default().to_owned();
        let fields: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
            .collect();
        let mut message = Message { first, fields, body: String::new() };
        let length: usize = message.value("content-length").parse().unwrap_or(0);
        message.body = String::from_utf8(self.bytes.get(end..end + length)?.to_vec()).expect("a body of text");
        self.bytes.drain(..end + length);
        Some(Item::Message(message))
    }

    /// The next message; frames before it are passed over.
    pub fn message(&mut self) -> Message {
        loop {
            match self.next() {
                Item::Message(message) => return message,
                Item::Frame(..) => {}
                Item::End => panic!("the connection ended before a message came"),
            }
        }
    }
}

/// What a server does.
#[derive(Clone)]
pub struct Script {
    pub name: &'static str,
    /// Ids of its sessions, `NUMBER` being which it is.
    pub session: &'static str,
    /// Frames that it sends after PLAY.
    pub frames: usize,
    /// What stands in its descriptions besides.
    pub sdp: &'static str,
    /// It closes its connections behind the first frames.
    pub dies: bool,
    /// Each SETUP begins a session, whatever it asks for.
    pub renews: bool,
    /// It says nothing more behind the answer to a request of this method, and notes as `END` that the other side has closed.
    pub leaves: &'static str,
    /// It closes a connection in the place of an answer to this.
    pub deaf_to: &'static str,
    /// It answers the first request of this method behind the next one.
    pub holds: &'static str,
}

impl Default for Script {
    fn default() -> Script {
        Script {
            name: "one",
            session: "NAME-NUMBER;timeout=30",
            frames: 0,
            sdp: "",
            dies: false,
            renews: false,
            leaves: "",
            deaf_to: "",
            holds: "",
        }
    }
}

/// A server that follows its script, and keeps what it was asked.
pub struct Origin {
    pub address: String,
    seen: Arc<Mutex<Vec<Message>>>,
    closed: Arc<AtomicBool>,
}

/// The payload of a frame of a session: nothing else has the same.
pub fn payload(session: &str, number: usize) -> Vec<u8> {
    let mut payload = format!("{session} {number} ").into_bytes();
    payload.extend((0..900 + number % 500).map(|at| (at * 7 + number) as u8));
    payload
}

impl Origin {
    pub fn start(script: Script) -> Origin {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port for a server");
        let address = listener.local_addr().expect("the server's address").to_string();
        let seen: Arc<Mutex<Vec<Message>>> = Arc::default();
        let sessions: Arc<AtomicUsize> = Arc::default();
        let (kept, closed) = (seen.clone(), Arc::new(AtomicBool::new(false)));
        let over = closed.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                let _ = stream.set_nodelay(true);
                let (script, kept, sessions) = (script.clone(), kept.clone(), sessions.clone());
                let builder = std::thread::Builder::new().stack_size(256 << 10);
                builder.spawn(move || talk(stream, &script, &kept, &sessions)).expect("a thread");
            }
        });
        Origin { address, seen, closed }
    }

    /// Takes no more connections; those that it has go on.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        // One more, for the thread to look; until it has let go of its port they are taken.
        until("the port is closed", || TcpStream::connect(&self.address).is_err().then_some(()));
    }

    /// Requests so far, all connections together.
    pub fn seen(&self) -> Vec<Message> {
        self.seen.lock().expect("what was seen").clone()
    }
}

fn talk(stream: TcpStream, script: &Script, seen: &Mutex<Vec<Message>>, sessions: &AtomicUsize) {
    let mut to = stream.try_clone().expect("a second handle");
    let mut wire = Wire::new(stream);
    let mut media = None;
    let mut held = None;
    loop {
        let asked = match wire.next() {
            Item::Message(asked) => asked,
            Item::Frame(channel, payload) => {
                let mut frame = vec![b'$', channel];
                frame.extend((payload.len() as u16).to_be_bytes());
                frame.extend(payload);
                let _ = to.write_all(&frame);
                continue;
            }
            Item::End => return,
        };
        seen.lock().expect("what was seen").push(asked.clone());
        let (method, uri) = (asked.word(0).to_owned(), asked.word(1).to_owned());
        if method.starts_with("RTSP/") {
            continue;
        }
        if method == script.deaf_to {
            return;
        }
        let mut answer = format!("RTSP/1.0 200 OK\r\nCSeq: {}\r\nX-Origin: {}\r\n", asked.value("cseq"), script.name);
        let mut body = String::new();
        let mut session = asked.value("session").to_owned();
        match method.as_str() {
            "DESCRIBE" => {
                let base = format!("rtsp://127.0.0.1:1{}/", uri.splitn(4, '/').nth(3).map_or("", |_| "/own"));
                body = format!("v=0\r\n{}m=video 0 RTP/AVP 96\r\na=control:{base}track1\r\n", script.sdp);
                answer += &format!("Content-Type: application/sdp\r\nContent-Base: {base}\r\n");
            }
            "SETUP" => {
                if session.is_empty() || script.renews {
                    let number = sessions.fetch_add(1, Ordering::SeqCst).to_string();
                    session = script.session.replace("NUMBER", &number).replace("NAME", script.name);
                }
                let transport = asked.value("transport");
                let way = if transport.contains("TCP") {
                    transport.to_owned()
                } else {
                    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port for media");
                    let port = socket.local_addr().expect("its address").port();
                    let client = transport.split("client_port=").nth(1).and_then(|ports| ports.split('-').next());
                    let client: u16 = client.and_then(|port| port.parse().ok()).expect("the client's port");
                    media = Some((socket, client));
                    format!("{transport};server_port={port}-{}", port + 1)
                };
                answer += &format!("Transport: {way}\r\n");
            }
            _ => {}
        }
        if !session.is_empty() {
            answer += &format!("Session: {session}\r\n");
        }
        if !body.is_empty() {
            answer += &format!("Content-Length: {}\r\n", body.len());
        }
        answer += &format!("\r\n{body}");
        if method == script.holds && held.is_none() {
            held = Some(answer);
            continue;
        }
        answer += &held.as_mut().map(std::mem::take).unwrap_or_default();
        if to.write_all(answer.as_bytes()).is_err() {
            return;
        }
        if method == script.leaves {
            to.shutdown(Shutdown::Write).expect("an end");
            while !matches!(wire.next(), Item::End) {}
            let end = Message { first: "END".to_owned(), fields: Vec::new(), body: String::new() };
            seen.lock().expect("what was seen").push(end);
            return;
        }
        if method == "PLAY" {
            let id = session.split(';').next().unwrap_or_default().to_owned();
            for number in 0..script.frames {
                let payload = payload(&id, number);
                match &media {
                    Some((socket, client)) => {
                        let _ = socket.send_to(&payload, ("127.0.0.1", *client));
                    }
                    None => {
                        let mut frame = vec![b'$', (number % 2) as u8];
                        frame.extend((payload.len() as u16).to_be_bytes());
                        frame.extend(payload);
                        if to.write_all(&frame).is_err() {
                            return;
                        }
                    }
                }
            }
            if let Some((socket, client)) = &media {
                // What the client sends comes back.
                let _ = socket.set_read_timeout(Some(Duration::from_secs(10)));
                let (mut packet, client) = ([0; 2048], *client);
                if let Ok((count, _)) = socket.recv_from(&mut packet) {
                    let _ = socket.send_to(&packet[..count], ("127.0.0.1", client));
                }
            }
            if script.dies {
                return;
            }
        }
    }
}

/// A client.
pub struct Viewer {
    pub wire: Wire<TcpStream>,
    cseq: u32,
    host: String,
}

impl Viewer {
    pub fn connect(address: &str) -> Viewer {
        let stream = TcpStream::connect(address).expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a deadline");
        stream.set_nodelay(true).expect("no delay");
        Viewer { wire: Wire::new(stream), cseq: 0, host: address.to_owned() }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.wire.stream.write_all(bytes).expect("sent");
    }

    /// A request, as text. `more` are lines.
    pub fn request(&mut self, method: &str, path: &str, more: &str) -> String {
        self.cseq += 1;
        let uri = if path == "*" { path.to_owned() } else { format!("rtsp://{}{path}", self.host) };
        format!("{method} {uri} RTSP/1.0\r\nCSeq: {}\r\n{more}\r\n", self.cseq)
    }

    pub fn ask(&mut self, method: &str, path: &str, more: &str) -> Message {
        let request = self.request(method, path, more);
        self.send(request.as_bytes());
        let answer = self.wire.message();
        assert_eq!(answer.value("cseq"), self.cseq.to_string(), "{answer:?}");
        answer
    }

    /// Sets up a stream between the messages; the session's id.
    pub fn set_up(&mut self, path: &str) -> (String, Message) {
        let answer = self.ask("SETUP", path, "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n");
        let id = answer.value("session").split(';').next().unwrap_or_default().to_owned();
        (id, answer)
    }
}
