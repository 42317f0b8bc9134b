//! A client of HTTP/2 that follows the protocol (the `h2` crate), for what is said over it; and one that
//! writes frames as it is told (`Frames`), for what the protocol says of them.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, Request};
use tokio::runtime::Handle;
use tokio::sync::oneshot::{Sender, channel};

use super::watch::DEADLINE;

/// One connection of a client that follows the protocol.
pub struct Session {
    runtime: Handle,
    send: SendRequest<Bytes>,
    /// Ends the thread that drives the runtime.
    _stop: Sender<()>,
}

#[derive(Debug, Default)]
pub struct Reply {
    pub status: u16,
    pub fields: HeaderMap,
    pub body: Vec<u8>,
    pub trailers: HeaderMap,
    /// The interim answers before it.
    pub interim: Vec<(u16, HeaderMap)>,
}

impl Reply {
    pub fn field(&self, name: &str) -> &str {
        self.fields.get(name).and_then(|value| value.to_str().ok()).unwrap_or("")
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A body to send, and what comes behind it.
#[derive(Debug, Default, Clone)]
pub struct Body {
    pub pieces: Vec<Vec<u8>>,
    pub trailers: Vec<(&'static str, &'static str)>,
}

impl Session {
    pub fn connect(address: &str) -> Session {
        let (stop, stopped) = channel::<()>();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let handle = runtime.handle().clone();
        std::thread::spawn(move || runtime.block_on(stopped));
        let runtime = handle;
        let send = runtime.block_on(async {
            let tcp = tokio::net::TcpStream::connect(address).await.expect("a connection");
            // What it does not read may come in frames as small as they like.
            let mut builder = h2::client::Builder::new();
            let (send, connection) = builder.data_frame_budget(usize::MAX).handshake(tcp).await.expect("a handshake");
            tokio::spawn(connection);
            send
        });
        Session { runtime, send, _stop: stop }
    }

    /// Asks for a path of `http://t.example` and reads the whole answer.
    pub fn get(&self, path: &str) -> Result<Reply, h2::Error> {
        self.ask(Request::get(format!("http://t.example{path}")).body(()).expect("a request"), None)
    }

    pub fn ask(&self, request: Request<()>, body: Option<Body>) -> Result<Reply, h2::Error> {
        self.all(vec![(request, body)]).pop().expect("one answer")
    }

    /// Asks all of them at once.
    pub fn all(&self, requests: Vec<(Request<()>, Option<Body>)>) -> Vec<Result<Reply, h2::Error>> {
        self.runtime.block_on(async {
            let tasks: Vec<_> = requests
                .into_iter()
                .map(|(request, body)| tokio::spawn(exchange(self.send.clone(), request, body)))
                .collect();
            let mut replies = Vec::new();
            for task in tasks {
                let reply = tokio::time::timeout(DEADLINE, task).await.expect("an answer in time");
                replies.push(reply.expect("a task"));
            }
            replies
        })
    }

    pub fn runtime(&self) -> &Handle {
        &self.runtime
    }

    pub fn sender(&self) -> SendRequest<Bytes> {
        self.send.clone()
    }
}

async fn exchange(send: SendRequest<Bytes>, request: Request<()>, body: Option<Body>) -> Result<Reply, h2::Error> {
    let mut send = send.ready().await?;
    let (mut answer, mut upload) = send.send_request(request, body.is_none())?;
    if let Some(body) = body {
        tokio::spawn(async move {
            for piece in body.pieces {
                send_all(&mut upload, piece.into()).await?;
            }
            if body.trailers.is_empty() {
                return upload.send_data(Bytes::new(), true);
            }
            let mut trailers = HeaderMap::new();
            for (name, value) in body.trailers {
                trailers.append(name, value.parse().expect("a value"));
            }
            upload.send_trailers(trailers)
        });
    }
    let mut reply = Reply::default();
    while let Some(interim) = std::future::poll_fn(|cx| answer.poll_informational(cx)).await {
        let interim = interim?;
        reply.interim.push((interim.status().as_u16(), interim.headers().clone()));
    }
    let (parts, mut stream) = answer.await?.into_parts();
    (reply.status, reply.fields) = (parts.status.as_u16(), parts.headers);
    while let Some(data) = stream.data().await {
        let data = data?;
        stream.flow_control().release_capacity(data.len())?;
        reply.body.extend_from_slice(&data);
    }
    reply.trailers = stream.trailers().await?.unwrap_or_default();
    Ok(reply)
}

async fn send_all(upload: &mut h2::SendStream<Bytes>, mut bytes: Bytes) -> Result<(), h2::Error> {
    while !bytes.is_empty() {
        upload.reserve_capacity(bytes.len());
        match std::future::poll_fn(|cx| upload.poll_capacity(cx)).await {
            Some(Ok(room)) => upload.send_data(bytes.split_to(room.min(bytes.len())), false)?,
            Some(Err(error)) => return Err(error),
            None => return Ok(()),
        }
    }
    Ok(())
}

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Types, flags and errors of RFC 9113 §6 and §7.
pub mod code {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PUSH_PROMISE: u8 = 5;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;

    pub const END_STREAM: u8 = 1;
    pub const ACK: u8 = 1;
    pub const END_HEADERS: u8 = 4;
    pub const PADDED: u8 = 8;
    pub const PRIORITISED: u8 = 0x20;

    pub const PROTOCOL_ERROR: u32 = 1;
    pub const FLOW_CONTROL_ERROR: u32 = 3;
    pub const STREAM_CLOSED: u32 = 5;
    pub const FRAME_SIZE_ERROR: u32 = 6;
    pub const REFUSED_STREAM: u32 = 7;
    pub const COMPRESSION_ERROR: u32 = 9;
    pub const ENHANCE_YOUR_CALM: u32 = 11;
}

/// One frame as it stands on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn new(kind: u8, flags: u8, stream: u32, payload: impl Into<Vec<u8>>) -> Frame {
        Frame { kind, flags, stream, payload: payload.into() }
    }

    /// A whole request without body, unless `flags` are other ones.
    pub fn request(stream: u32, flags: u8, fields: &[(&str, &str)]) -> Frame {
        Frame::new(code::HEADERS, flags, stream, block(fields))
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = (self.payload.len() as u32).to_be_bytes()[1..].to_vec();
        bytes.extend_from_slice(&[self.kind, self.flags]);
        bytes.extend_from_slice(&self.stream.to_be_bytes());
        bytes.extend_from_slice(&self.payload);
        bytes
    }

    /// The 32-bit number at a place of the payload.
    pub fn word(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.payload[at..at + 4].try_into().expect("four bytes"))
    }
}

/// The usual fields of a GET.
pub const GET: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "http"), (":path", "/sized/10"), (":authority", "t.example")];

/// The same of a POST.
pub const POST: [(&str, &str); 4] =
    [(":method", "POST"), (":scheme", "http"), (":path", "/echo"), (":authority", "t.example")];

/// A header block of literals that are not indexed (RFC 7541 §6.2.2), without Huffman code.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        string(name.as_bytes(), &mut bytes);
        string(value.as_bytes(), &mut bytes);
    }
    bytes
}

/// RFC 7541 §5.1 and §5.2.
pub fn string(text: &[u8], out: &mut Vec<u8>) {
    let mut length = text.len();
    if length < 127 {
        out.push(length as u8);
    } else {
        out.push(127);
        length -= 127;
        while length >= 128 {
            out.push(length as u8 | 128);
            length >>= 7;
        }
        out.push(length as u8);
    }
    out.extend_from_slice(text);
}

/// One connection whose every byte is the test's.
pub struct Frames<S: Read + Write = TcpStream> {
    stream: S,
}

/// How the other side ended a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The error of its GOAWAY.
    GoAway(u32),
    Closed,
}

impl Frames {
    /// Connects and says the preface and empty settings; theirs are acknowledged.
    pub fn connect(address: &str) -> Frames {
        let mut frames = Frames::silent(address);
        frames.write(PREFACE);
        frames.send(&Frame::new(code::SETTINGS, 0, 0, []));
        let settings = frames.read().expect("settings");
        assert_eq!(
            (settings.kind, settings.flags),
            (code::SETTINGS, 0),
            "the first frame are settings (RFC 9113 §3.4)"
        );
        frames.send(&Frame::new(code::SETTINGS, code::ACK, 0, []));
        let ack = frames.wait_for(|frame| frame.kind == code::SETTINGS);
        assert_eq!(ack.flags, code::ACK);
        frames
    }

    /// Connects and says nothing.
    pub fn silent(address: &str) -> Frames {
        let stream = TcpStream::connect(address).expect("a connection");
        stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        stream.set_write_timeout(Some(Duration::from_secs(5))).expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        Frames::over(stream)
    }
}

impl<S: Read + Write> Frames<S> {
    /// Over a connection on which nothing has been said.
    pub fn over(stream: S) -> Frames<S> {
        Frames { stream }
    }

    /// Writes as much as the other side takes; false once it takes no more.
    pub fn write(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    pub fn send(&mut self, frame: &Frame) -> bool {
        self.write(&frame.bytes())
    }

    pub fn read(&mut self) -> io::Result<Frame> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        assert!(length <= 1 << 20, "no frame: {head:?}");
        let mut payload = vec![0; length];
        self.stream.read_exact(&mut payload)?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff;
        Ok(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    /// Reads on to a frame of this kind; a connection that ends before is a failure.
    pub fn wait_for(&mut self, mut wanted: impl FnMut(&Frame) -> bool) -> Frame {
        loop {
            let frame = self.read().expect("another frame");
            if wanted(&frame) {
                return frame;
            }
            assert_ne!(frame.kind, code::GOAWAY, "a GOAWAY came instead: {frame:?}");
        }
    }

    /// Reads to the end: how the other side ended the connection.
    pub fn end(&mut self) -> End {
        loop {
            match self.read() {
                Ok(frame) if frame.kind == code::GOAWAY => return End::GoAway(frame.word(4)),
                Ok(_) => {}
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    panic!("the connection does not end");
                }
                Err(_) => return End::Closed,
            }
        }
    }

    /// How a stream ended: the error of its RST_STREAM, or `None` for an answer to its end.
    pub fn stream_end(&mut self, stream: u32) -> Option<u32> {
        loop {
            let frame = self.wait_for(|frame| frame.stream == stream);
            match frame.kind {
                code::RST_STREAM => return Some(frame.word(0)),
                code::DATA | code::HEADERS if frame.flags & code::END_STREAM != 0 => return None,
                _ => {}
            }
        }
    }

    /// The error of a stream's RST_STREAM, or of the GOAWAY that ends its connection.
    pub fn wait_for_end(&mut self, stream: u32) -> Option<u32> {
        loop {
            let frame = self.read().ok()?;
            match frame.kind {
                code::RST_STREAM if frame.stream == stream => return Some(frame.word(0)),
                code::GOAWAY => return Some(frame.word(4)),
                _ => {}
            }
        }
    }

    /// Whether the connection still answers.
    pub fn alive(&mut self) -> bool {
        self.send(&Frame::new(code::PING, 0, 0, *b"alive?!?"));
        let pong = self.wait_for(|frame| frame.kind == code::PING && frame.flags == code::ACK);
        pong.payload == b"alive?!?"
    }
}
