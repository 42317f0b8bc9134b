//! The origin's side of an HTTP/2 connection with prior knowledge: plain requests and unary calls of gRPC.

use std::collections::VecDeque;

use crate::h2::{self, Frame, Reader, Taken};
use crate::hpack::{self, Decoder, Name};
use crate::{GRPC_PREFIX, NUMBER, body_of, grpc_message, head, pattern};

/// The longest answer: one frame.
const LONGEST: u64 = 10 << 10;
/// Streams that a proxy may have open at once.
const STREAMS: u32 = 1000;

/// What was answered, as the origin counts it.
#[derive(Default)]
pub struct Count {
    pub requests: u64,
    pub messages: u64,
    pub sent: u64,
    pub received: u64,
    pub wrong: u64,
    pub connections: u64,
}

/// A request whose end is still to come, or whose answer waits for room.
struct Request {
    stream: u32,
    grpc: bool,
    answer: u64,
    number: Vec<u8>,
    health: bool,
    body: Vec<u8>,
    length: Option<u64>,
}

pub struct Http2 {
    reader: Reader,
    decoder: Decoder,
    taken: Taken,
    open: Vec<Request>,
    waiting: VecDeque<Request>,
    window: i64,
    stream_window: i64,
    block: Vec<u8>,
}

impl Http2 {
    /// Behind a client's preface: the first frames go to `output`.
    pub fn new(output: &mut Vec<u8>) -> Http2 {
        h2::greeting(output, &[(h2::MAX_CONCURRENT_STREAMS, STREAMS), (h2::INITIAL_WINDOW_SIZE, h2::WINDOW)]);
        Http2 {
            reader: Reader::default(),
            decoder: Decoder::default(),
            taken: Taken::default(),
            open: Vec::new(),
            waiting: VecDeque::new(),
            window: 65_535,
            stream_window: 65_535,
            block: Vec::new(),
        }
    }

    /// Takes bytes and puts answers into `output`.
    pub fn take(&mut self, bytes: &[u8], output: &mut Vec<u8>, count: &mut Count) -> Result<(), String> {
        let mut reader = std::mem::take(&mut self.reader);
        let taken = reader.take(bytes, &mut |frame| self.frame(&frame, output, count));
        self.reader = reader;
        taken
    }

    fn frame(&mut self, frame: &Frame, output: &mut Vec<u8>, count: &mut Count) -> Result<(), String> {
        match frame.kind {
            h2::HEADERS => {
                let request = self.request(frame)?;
                if frame.ends() {
                    self.complete(request, output, count);
                } else {
                    self.open.push(request);
                }
            }
            h2::DATA => {
                self.taken.add(frame.length, output);
                // None: the stream was reset meanwhile.
                let Some(at) = self.open.iter().position(|request| request.stream == frame.stream) else {
                    return Ok(());
                };
                self.open[at].body.extend_from_slice(frame.payload);
                if frame.ends() {
                    let request = self.open.swap_remove(at);
                    self.complete(request, output, count);
                }
            }
            h2::RST_STREAM => {
                self.open.retain(|request| request.stream != frame.stream);
                self.waiting.retain(|request| request.stream != frame.stream);
            }
            h2::SETTINGS if frame.flags & h2::ACK == 0 => {
                for (name, value) in h2::settings(frame) {
                    if name == h2::INITIAL_WINDOW_SIZE {
                        self.stream_window = i64::from(value);
                    }
                }
                h2::frame(output, h2::SETTINGS, h2::ACK, 0, &[]);
            }
            h2::PING if frame.flags & h2::ACK == 0 => h2::frame(output, h2::PING, h2::ACK, 0, frame.payload),
            h2::WINDOW_UPDATE if frame.stream == 0 => {
                self.window += i64::from(frame.number());
                while let Some(request) = self.waiting.pop_front() {
                    if !self.fits(&request) {
                        self.waiting.push_front(request);
                        break;
                    }
                    self.answer(&request, output, count);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn request(&mut self, frame: &Frame) -> Result<Request, String> {
        let mut request = Request {
            stream: frame.stream,
            grpc: false,
            answer: 0,
            number: Vec::new(),
            health: false,
            body: Vec::new(),
            length: None,
        };
        let whole = self.decoder.read(frame.payload, |name, value| match name {
            b":path" => {
                request.answer = body_of(value);
                request.health = value == b"/health";
            }
            b"content-type" => request.grpc = value.starts_with(b"application/grpc"),
            b"content-length" => request.length = head::number(value),
            NUMBER => request.number.extend_from_slice(value),
            _ => {}
        });
        whole.then_some(request).ok_or_else(|| "a header block cannot be read".into())
    }

    fn fits(&self, request: &Request) -> bool {
        (request.answer as i64 + GRPC_PREFIX as i64) <= self.window
    }

    /// A request is there as a whole.
    fn complete(&mut self, request: Request, output: &mut Vec<u8>, count: &mut Count) {
        if !request.good() {
            count.wrong += 1;
        }
        count.received += request.body.len() as u64;
        let length = request.answer as i64 + GRPC_PREFIX as i64;
        if request.answer > LONGEST || length > self.stream_window {
            const REFUSED_STREAM: u32 = 7;
            h2::frame(output, h2::RST_STREAM, 0, request.stream, &REFUSED_STREAM.to_be_bytes());
        } else if self.waiting.is_empty() && self.fits(&request) {
            self.answer(&request, output, count);
        } else {
            self.waiting.push_back(request);
        }
    }

    fn answer(&mut self, request: &Request, output: &mut Vec<u8>, count: &mut Count) {
        let (stream, block) = (request.stream, &mut self.block);
        block.clear();
        hpack::indexed(block, 8);
        let kind: &[u8] = if request.grpc { b"application/grpc" } else { b"application/octet-stream" };
        hpack::literal(block, Name::Known(31), kind);
        if !request.number.is_empty() {
            hpack::literal(block, Name::Literal(NUMBER), &request.number);
        }
        if !request.grpc {
            hpack::literal(block, Name::Known(28), request.answer.to_string().as_bytes());
        }
        let empty = request.answer == 0 && !request.grpc;
        let ends = if empty { h2::END_STREAM } else { 0 };
        h2::frame(output, h2::HEADERS, h2::END_HEADERS | ends, stream, block);
        if request.grpc {
            h2::head(output, h2::DATA, 0, stream, GRPC_PREFIX + request.answer as usize);
            grpc_message(output, request.answer);
            self.window -= request.answer as i64 + GRPC_PREFIX as i64;
            block.clear();
            hpack::literal(block, Name::Literal(b"grpc-status"), b"0");
            h2::frame(output, h2::HEADERS, h2::END_HEADERS | h2::END_STREAM, stream, block);
        } else if !empty {
            h2::frame(output, h2::DATA, h2::END_STREAM, stream, pattern::piece(0, request.answer));
            self.window -= request.answer as i64;
        }
        if !request.health {
            count.requests += 1;
            count.sent += request.answer;
        }
    }
}

impl Request {
    /// The body is one that the load generator sends.
    fn good(&self) -> bool {
        if !self.grpc {
            return self.length.is_none_or(|length| length == self.body.len() as u64)
                && pattern::matches(0, &self.body);
        }
        let Some((prefix, message)) = self.body.split_first_chunk::<GRPC_PREFIX>() else { return false };
        let [a, b, c, d] = (message.len() as u32).to_be_bytes();
        *prefix == [0, a, b, c, d] && pattern::matches(0, message)
    }
}
