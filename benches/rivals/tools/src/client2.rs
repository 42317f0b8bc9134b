//! The client's side of an HTTP/2 connection: requests on many streams at once, plain or gRPC.
//!
//! Fields that are the same in every request go into the dynamic table with the first of them, as browsers do it; path
//! and number stay out of it. The server's settings are waited for before anything is asked.

use std::time::Instant;

use crate::client::{Answer, Kind};
use crate::h2::{self, Frame, Reader, Taken};
use crate::hpack::{self, Decoder, Name};
use crate::{GRPC_PREFIX, NUMBER, body_of, grpc_message, head, pattern};

/// What a browser says, and the fields that the rules ask for; the cookies apart (RFC 9113 §8.2.3).
const FIELDS: [(Name<'static>, &[u8]); 8] = [
    (Name::Known(58), b"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
    (Name::Known(19), b"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    (Name::Known(17), b"en-GB,en;q=0.7,de;q=0.3"),
    (Name::Known(16), b"gzip, deflate, br, zstd"),
    (Name::Known(32), b"session=5d41402abc4b2a76b9719d911017c592"),
    (Name::Known(32), b"plan=gold"),
    (Name::Known(32), b"lang=en"),
    (Name::Literal(b"x-channel"), b"stable"),
];
/// What a gRPC client says.
const GRPC_FIELDS: [(Name<'static>, &[u8]); 5] = [
    (Name::Literal(b"te"), b"trailers"),
    (Name::Known(31), b"application/grpc"),
    (Name::Known(58), b"grpc-go/1.80.0"),
    (Name::Literal(b"grpc-accept-encoding"), b"gzip"),
    (Name::Literal(b"x-channel"), b"stable"),
];

/// One request under way.
struct Slot {
    /// 0: free.
    stream: u32,
    number: u64,
    wanted: u64,
    read: u64,
    headed: bool,
    started: Instant,
}

pub struct Http2 {
    slots: Vec<Slot>,
    free: Vec<usize>,
    next_stream: u32,
    /// The server's settings are known.
    settled: bool,
    /// Bytes that the server takes, on the connection and on a new stream.
    window: i64,
    stream_window: i64,
    /// Bytes of a request's body.
    body: usize,
    /// The fields of a request are in the server's table.
    remembered: bool,
    reader: Reader,
    decoder: Decoder,
    taken: Taken,
    output: Vec<u8>,
    block: Vec<u8>,
}

impl Http2 {
    pub fn new(kind: &Kind) -> Http2 {
        let started = Instant::now();
        let slot = |_| Slot { stream: 0, number: 0, wanted: 0, read: 0, headed: false, started };
        Http2 {
            slots: (0..kind.streams).map(slot).collect(),
            free: (0..kind.streams).rev().collect(),
            next_stream: 1,
            settled: false,
            window: 65_535,
            stream_window: 65_535,
            body: kind.body as usize + if kind.grpc { GRPC_PREFIX } else { 0 },
            remembered: false,
            reader: Reader::default(),
            decoder: Decoder::default(),
            taken: Taken::default(),
            output: Vec::new(),
            block: Vec::new(),
        }
    }

    pub fn free(&self) -> usize {
        let room = (self.window.max(0) as usize).checked_div(self.body).unwrap_or(usize::MAX);
        if self.settled { self.free.len().min(room) } else { 0 }
    }

    pub fn busy(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub fn begin(&mut self) {
        self.output.extend_from_slice(h2::PREFACE);
        h2::greeting(&mut self.output, &[(h2::ENABLE_PUSH, 0), (h2::INITIAL_WINDOW_SIZE, h2::WINDOW)]);
    }

    pub fn request(&mut self, kind: &Kind, target: &str, number: u64, started: Instant) {
        let Some(at) = self.free.pop() else { return };
        let (host, path) = kind.split(target);
        let stream = self.next_stream;
        self.next_stream += 2;
        self.slots[at] = Slot { stream, number, wanted: body_of(path.as_bytes()), read: 0, headed: false, started };
        self.fields(kind, host, path, number);
        let ends = if self.body == 0 { h2::END_STREAM } else { 0 };
        h2::frame(&mut self.output, h2::HEADERS, h2::END_HEADERS | ends, stream, &self.block);
        if self.body > 0 {
            h2::head(&mut self.output, h2::DATA, h2::END_STREAM, stream, self.body);
            if kind.grpc {
                grpc_message(&mut self.output, kind.body);
            } else {
                self.output.extend_from_slice(pattern::piece(0, kind.body));
            }
            self.window -= self.body as i64;
        }
    }

    /// Writes the header block.
    fn fields(&mut self, kind: &Kind, host: &str, path: &str, number: u64) {
        let block = &mut self.block;
        block.clear();
        hpack::indexed(block, if self.body > 0 { 3 } else { 2 });
        hpack::indexed(block, if kind.tls.is_some() { 7 } else { 6 });
        hpack::literal(block, Name::Known(4), path.as_bytes());
        let fields: &[(Name, &[u8])] = if kind.grpc { &GRPC_FIELDS } else { &FIELDS };
        // Another host than the usual one is written out; the usual one is remembered first, so it is the oldest.
        let usual = host == kind.host;
        if self.remembered {
            if usual {
                hpack::indexed(block, 62 + fields.len());
            } else {
                hpack::literal(block, Name::Known(1), host.as_bytes());
            }
            (0..fields.len()).rev().for_each(|newer| hpack::indexed(block, 62 + newer));
        } else if usual {
            hpack::remembered(block, Name::Known(1), host.as_bytes());
            fields.iter().for_each(|&(name, value)| hpack::remembered(block, name, value));
            self.remembered = true;
        } else {
            hpack::literal(block, Name::Known(1), host.as_bytes());
            fields.iter().for_each(|&(name, value)| hpack::literal(block, name, value));
        }
        if self.body > 0 && !kind.grpc {
            hpack::literal(block, Name::Known(28), self.body.to_string().as_bytes());
        }
        hpack::literal(block, Name::Literal(NUMBER), number.to_string().as_bytes());
    }

    pub fn output(&self) -> &[u8] {
        &self.output
    }

    pub fn sent(&mut self, n: usize) {
        if n == self.output.len() {
            self.output.clear();
        } else {
            self.output.drain(..n);
        }
    }

    pub fn take(&mut self, kind: &Kind, bytes: &[u8], answers: &mut Vec<Answer>) -> Result<(), String> {
        let mut reader = std::mem::take(&mut self.reader);
        let taken = reader.take(bytes, &mut |frame| self.frame(kind, &frame, answers));
        self.reader = reader;
        taken
    }

    fn slot(&mut self, stream: u32) -> Result<usize, String> {
        let found = self.slots.iter().position(|slot| slot.stream == stream && stream != 0);
        found.ok_or_else(|| format!("bytes on stream {stream} that nobody asked for"))
    }

    fn frame(&mut self, kind: &Kind, frame: &Frame, answers: &mut Vec<Answer>) -> Result<(), String> {
        match frame.kind {
            h2::DATA => {
                let at = self.slot(frame.stream)?;
                self.slots[at].body(kind.grpc, frame)?;
                self.taken.add(frame.length, &mut self.output);
                if frame.ends() {
                    if kind.grpc {
                        return Err("a call ended without trailers".into());
                    }
                    self.end(kind, at, answers)?;
                }
            }
            h2::HEADERS => {
                let at = self.slot(frame.stream)?;
                self.slots[at].head(kind.grpc, frame, &mut self.decoder)?;
                if frame.ends() {
                    self.end(kind, at, answers)?;
                }
            }
            h2::RST_STREAM => return Err(format!("a stream was reset: {}", frame.number())),
            h2::GOAWAY => {
                let reason = frame.payload.get(4..8).map_or(&[][..], |reason| reason);
                return Err(format!("the connection is given up: {reason:?}"));
            }
            h2::SETTINGS if frame.flags & h2::ACK == 0 => self.settings(frame)?,
            h2::PING if frame.flags & h2::ACK == 0 => {
                h2::frame(&mut self.output, h2::PING, h2::ACK, 0, frame.payload);
            }
            h2::WINDOW_UPDATE if frame.stream == 0 => self.window += i64::from(frame.number()),
            _ => {}
        }
        Ok(())
    }

    fn settings(&mut self, frame: &Frame) -> Result<(), String> {
        for (name, value) in h2::settings(frame) {
            match name {
                h2::MAX_CONCURRENT_STREAMS if (value as usize) < self.slots.len() => {
                    return Err(format!("only {value} streams are allowed"));
                }
                h2::HEADER_TABLE_SIZE if (value as usize) < hpack::TABLE => {
                    return Err(format!("a header table of {value} bytes"));
                }
                h2::INITIAL_WINDOW_SIZE => self.stream_window = i64::from(value),
                _ => {}
            }
        }
        if self.stream_window < self.body as i64 {
            return Err(format!("a stream takes only {} bytes", self.stream_window));
        }
        h2::frame(&mut self.output, h2::SETTINGS, h2::ACK, 0, &[]);
        self.settled = true;
        Ok(())
    }

    fn end(&mut self, kind: &Kind, at: usize, answers: &mut Vec<Answer>) -> Result<(), String> {
        let slot = &mut self.slots[at];
        let wanted = slot.wanted + if kind.grpc { GRPC_PREFIX as u64 } else { 0 };
        if !slot.headed || slot.read != wanted {
            return Err(format!("{} of {wanted} bytes came", slot.read));
        }
        slot.stream = 0;
        self.free.push(at);
        answers.push(Answer { started: slot.started, bytes: slot.wanted + kind.body });
        Ok(())
    }
}

impl Slot {
    fn body(&mut self, grpc: bool, frame: &Frame) -> Result<(), String> {
        if !self.headed {
            return Err("a body without a head".into());
        }
        let mut bytes = frame.payload;
        if grpc {
            // The prefix: not compressed, and how long the message is.
            let [a, b, c, d] = (self.wanted as u32).to_be_bytes();
            let prefix = [0, a, b, c, d];
            let read = (self.read as usize).min(GRPC_PREFIX);
            let (mine, rest) = bytes.split_at(bytes.len().min(GRPC_PREFIX - read));
            if *mine != prefix[read..read + mine.len()] {
                return Err("another prefix before the message".into());
            }
            self.read += mine.len() as u64;
            bytes = rest;
        }
        let (offset, end) =
            if grpc { (GRPC_PREFIX as u64, self.wanted + GRPC_PREFIX as u64) } else { (0, self.wanted) };
        if bytes.is_empty() {
            return Ok(());
        }
        if self.read + bytes.len() as u64 > end {
            return Err("more bytes than the answer's length".into());
        }
        if !pattern::matches(self.read - offset, bytes) {
            return Err("the answer has other bytes than the origin sent".into());
        }
        self.read += bytes.len() as u64;
        Ok(())
    }

    fn head(&mut self, grpc: bool, frame: &Frame, decoder: &mut Decoder) -> Result<(), String> {
        let (mut status, mut length, mut number, mut outcome) = (None, None, None, None);
        let whole = decoder.read(frame.payload, |name, value| {
            let place = match name {
                b":status" => &mut status,
                b"content-length" => &mut length,
                NUMBER => &mut number,
                b"grpc-status" => &mut outcome,
                _ => return,
            };
            *place = head::number(value);
        });
        if !whole {
            return Err("a header block cannot be read".into());
        }
        if self.headed {
            return match (grpc, outcome, frame.ends()) {
                (true, Some(0), true) => Ok(()),
                (true, ..) => Err(format!("the call's status is {outcome:?}")),
                _ => Err("trailers that the origin did not send".into()),
            };
        }
        if status != Some(200) {
            return Err(format!("answered {}, call's status {outcome:?}", status.unwrap_or(0)));
        }
        if !grpc && length != Some(self.wanted) {
            return Err(format!("another length than {}", self.wanted));
        }
        if number != Some(self.number) {
            return Err("the answer of another request".into());
        }
        self.headed = true;
        Ok(())
    }
}
