//! The frame heads of a byte stream (RFC 9113 §4.1), seen as they pass: what is counted against floods,
//! and what the `h2` crate does not tell.
//!
//! Payloads are stepped over, so that watching costs a few instructions a frame.

/// Types of frames (RFC 9113 §6).
pub mod kind {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
    /// One that nobody has given a meaning to: ignored by whoever gets it (§5.5).
    pub const UNKNOWN: u8 = 0xfa;
}

/// A flag of SETTINGS and PING: an answer to ours.
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// Bytes of a frame's head, and of the payload that is looked at.
pub const HEAD: usize = 9;
/// Where in the head the type is.
pub const KIND: usize = 3;
const PEEK: usize = 4;

/// One frame, as far as it is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub length: u32,
    /// The first four bytes of a RST_STREAM's or GOAWAY's payload: the error, or the last stream.
    pub value: u32,
}

impl Frame {
    pub fn is_ack(&self) -> bool {
        self.flags & ACK != 0
    }
}

/// Where the watched stream of bytes stands.
#[derive(Debug)]
pub struct Frames {
    head: [u8; HEAD + PEEK],
    have: usize,
    /// Bytes that are stepped over.
    skip: usize,
    /// A header block has begun and not ended.
    block: bool,
    /// Header blocks begun.
    blocks: u64,
}

impl Frames {
    /// `preface`: bytes before the first frame.
    pub fn new(preface: usize) -> Frames {
        Frames { head: [0; HEAD + PEEK], have: 0, skip: preface, block: false, blocks: 0 }
    }

    /// The number of the header block that is not whole yet, if there is one.
    pub fn open_block(&self) -> Option<u64> {
        let within = self.have >= 4 && matches!(self.head[3], kind::HEADERS) && self.have < self.wanted();
        (self.block || within).then_some(self.blocks)
    }

    fn wanted(&self) -> usize {
        let peeked = matches!(self.head[3], kind::RST_STREAM | kind::GOAWAY) && self.length() >= PEEK;
        if self.have >= HEAD && peeked { HEAD + PEEK } else { HEAD }
    }

    fn length(&self) -> usize {
        usize::from(self.head[0]) << 16 | usize::from(self.head[1]) << 8 | usize::from(self.head[2])
    }

    /// Looks through bytes as they came, and calls `seen` for each frame whose head ends in them, with how many of the bytes
    /// have been looked at by then.
    pub fn pass(&mut self, mut bytes: &[u8], mut seen: impl FnMut(Frame, usize)) {
        let whole = bytes.len();
        loop {
            let stepped = self.skip.min(bytes.len());
            self.skip -= stepped;
            bytes = &bytes[stepped..];
            if bytes.is_empty() {
                return;
            }
            while self.have < self.wanted() {
                let wanted = self.wanted() - self.have;
                let taken = wanted.min(bytes.len());
                self.head[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
                self.have += taken;
                bytes = &bytes[taken..];
                if taken < wanted {
                    return;
                }
            }
            let frame = self.frame();
            self.skip = self.length() - (self.have - HEAD);
            self.have = 0;
            self.follow(frame);
            seen(frame, whole - bytes.len());
        }
    }

    fn frame(&self) -> Frame {
        let word =
            |at: usize| u32::from_be_bytes([self.head[at], self.head[at + 1], self.head[at + 2], self.head[at + 3]]);
        Frame {
            kind: self.head[3],
            flags: self.head[4],
            stream: word(5) & 0x7fff_ffff,
            length: self.length() as u32,
            value: if self.have > HEAD { word(HEAD) } else { 0 },
        }
    }

    fn follow(&mut self, frame: Frame) {
        match frame.kind {
            kind::HEADERS => {
                self.blocks += 1;
                self.block = frame.flags & END_HEADERS == 0;
            }
            kind::CONTINUATION if frame.flags & END_HEADERS != 0 => self.block = false,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        bytes.extend_from_slice(&[kind, flags]);
        bytes.extend_from_slice(&stream.to_be_bytes());
        bytes.extend_from_slice(payload);
        bytes
    }

    #[test]
    fn frames_are_seen_however_they_are_cut() {
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        bytes.extend(frame(kind::SETTINGS, 0, 0, &[0; 12]));
        bytes.extend(frame(kind::HEADERS, 1, 1, b"abc"));
        bytes.extend(frame(kind::CONTINUATION, 4, 1, b""));
        bytes.extend(frame(kind::DATA, 1, 1, &[7; 3000]));
        bytes.extend(frame(kind::RST_STREAM, 0, 0x8000_0003, &[0, 0, 0, 8]));
        bytes.extend(frame(kind::GOAWAY, 0, 0, &[0, 0, 0, 5, 0, 0, 0, 1, b'x']));
        bytes.extend(frame(kind::RST_STREAM, 0, 3, &[0, 8]));
        let mut last = None;
        for step in [1, 2, 3, 7, 9, 13, 100, bytes.len()] {
            let mut frames = Frames::new(24);
            let mut seen = Vec::new();
            bytes.chunks(step).for_each(|piece| frames.pass(piece, |frame, _| seen.push(frame)));
            let short: Vec<_> =
                seen.iter().map(|frame| (frame.kind, frame.stream, frame.length, frame.value)).collect();
            assert_eq!(
                short,
                [(4, 0, 12, 0), (1, 1, 3, 0), (9, 1, 0, 0), (0, 1, 3000, 0), (3, 3, 4, 8), (7, 0, 9, 5), (3, 3, 2, 0)],
                "in steps of {step}"
            );
            assert!(last.replace(seen.clone()).is_none_or(|before| before == seen));
        }
    }

    #[test]
    fn a_header_block_is_open_until_its_end() {
        let mut frames = Frames::new(0);
        assert_eq!(frames.open_block(), None);
        frames.pass(&frame(kind::HEADERS, 0, 1, b"ab"), |_, _| {});
        let first = frames.open_block();
        assert!(first.is_some());
        frames.pass(&frame(kind::CONTINUATION, 0, 1, b"ab"), |_, _| {});
        assert_eq!(frames.open_block(), first);
        frames.pass(&frame(kind::CONTINUATION, 4, 1, b"ab"), |_, _| {});
        assert_eq!(frames.open_block(), None);
        frames.pass(&frame(kind::HEADERS, 4, 3, b"ab")[..6], |_, _| {});
        assert!(frames.open_block().is_some(), "its own head counts");
    }
}
