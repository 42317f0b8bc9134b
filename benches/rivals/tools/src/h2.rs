//! Frames of HTTP/2 (RFC 9113), as both ends of a benchmark need them.

/// What a client says first.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The longest frame that is taken and sent: the default.
pub const LONGEST: usize = 16 << 10;
/// Bytes that a peer may send on a stream, and on a connection, before it has to wait: nothing waits.
pub const WINDOW: u32 = 1 << 30;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 32;

pub const HEADER_TABLE_SIZE: u16 = 1;
pub const ENABLE_PUSH: u16 = 2;
pub const MAX_CONCURRENT_STREAMS: u16 = 3;
pub const INITIAL_WINDOW_SIZE: u16 = 4;

/// A frame without its padding; a header block is whole.
pub struct Frame<'a> {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: &'a [u8],
    /// What it takes from the windows: its length with the padding.
    pub length: usize,
}

impl Frame<'_> {
    pub fn ends(&self) -> bool {
        self.flags & END_STREAM != 0
    }

    /// The number in a frame of at least four bytes: an increment, or a fault.
    pub fn number(&self) -> u32 {
        self.payload.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes) & 0x7fff_ffff)
    }
}

/// The settings in a frame.
pub fn settings<'a>(frame: &Frame<'a>) -> impl Iterator<Item = (u16, u32)> + use<'a> {
    frame.payload.chunks_exact(6).map(|entry| {
        let value = u32::from_be_bytes([entry[2], entry[3], entry[4], entry[5]]);
        (u16::from_be_bytes([entry[0], entry[1]]), value)
    })
}

/// Writes a frame's nine bytes.
pub fn head(to: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, length: usize) {
    to.extend_from_slice(&(length as u32).to_be_bytes()[1..]);
    to.extend_from_slice(&[kind, flags]);
    to.extend_from_slice(&stream.to_be_bytes());
}

pub fn frame(to: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    head(to, kind, flags, stream, payload.len());
    to.extend_from_slice(payload);
}

/// A connection's first frames: the settings, and room for all that may come.
pub fn greeting(to: &mut Vec<u8>, settings: &[(u16, u32)]) {
    head(to, SETTINGS, 0, 0, settings.len() * 6);
    for (name, value) in settings {
        to.extend_from_slice(&name.to_be_bytes());
        to.extend_from_slice(&value.to_be_bytes());
    }
    frame(to, WINDOW_UPDATE, 0, 0, &WINDOW.to_be_bytes());
}

/// Gives back the room that received bytes have taken, now and then.
#[derive(Default)]
pub struct Taken(usize);

impl Taken {
    pub fn add(&mut self, length: usize, to: &mut Vec<u8>) {
        self.0 += length;
        if self.0 >= WINDOW as usize / 2 {
            frame(to, WINDOW_UPDATE, 0, 0, &(self.0 as u32).to_be_bytes());
            self.0 = 0;
        }
    }
}

/// Cuts what comes into frames.
#[derive(Default)]
pub struct Reader {
    input: Vec<u8>,
    /// A header block that goes on: its stream and flags, and what there is of it.
    block: Option<(u32, u8, Vec<u8>)>,
}

impl Reader {
    /// Gives each whole frame to `seen`, and keeps the beginning of the next.
    pub fn take(&mut self, bytes: &[u8], seen: &mut dyn FnMut(Frame) -> Result<(), String>) -> Result<(), String> {
        if self.input.is_empty() {
            let used = self.cut(bytes, seen)?;
            self.input.extend_from_slice(&bytes[used..]);
            return Ok(());
        }
        let mut whole = std::mem::take(&mut self.input);
        whole.extend_from_slice(bytes);
        let used = self.cut(&whole, seen)?;
        whole.drain(..used);
        self.input = whole;
        Ok(())
    }

    fn cut(&mut self, bytes: &[u8], seen: &mut dyn FnMut(Frame) -> Result<(), String>) -> Result<usize, String> {
        let mut at = 0;
        while let Some(head) = bytes[at..].first_chunk::<9>() {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            if length > LONGEST {
                return Err(format!("a frame of {length} bytes"));
            }
            let Some(payload) = bytes[at + 9..].get(..length) else { break };
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff;
            self.one(Frame { kind: head[3], flags: head[4], stream, payload, length }, seen)?;
            at += 9 + length;
        }
        Ok(at)
    }

    fn one(&mut self, mut frame: Frame, seen: &mut dyn FnMut(Frame) -> Result<(), String>) -> Result<(), String> {
        if let Some((stream, flags, mut block)) = self.block.take() {
            if (frame.kind, frame.stream) != (CONTINUATION, stream) || block.len() > 1 << 20 {
                return Err("a header block is not continued".into());
            }
            block.extend_from_slice(frame.payload);
            if frame.flags & END_HEADERS == 0 {
                self.block = Some((stream, flags, block));
                return Ok(());
            }
            return seen(Frame { kind: HEADERS, flags, stream, payload: &block, length: 0 });
        }
        if matches!(frame.kind, DATA | HEADERS) && frame.flags & PADDED != 0 {
            let padding = frame.payload.first().map_or(0, |&n| usize::from(n) + 1);
            let end = (frame.payload.len() + 1).checked_sub(padding).filter(|&end| end >= 1 && padding > 0);
            frame.payload = &frame.payload[1..end.ok_or("a frame of padding alone")?];
        }
        if frame.kind == HEADERS {
            if frame.flags & PRIORITY != 0 {
                frame.payload = frame.payload.get(5..).ok_or("a priority is cut short")?;
            }
            if frame.flags & END_HEADERS == 0 {
                self.block = Some((frame.stream, frame.flags, frame.payload.to_vec()));
                return Ok(());
            }
        }
        seen(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_in_pieces() {
        let mut bytes = Vec::new();
        frame(&mut bytes, DATA, PADDED | END_STREAM, 1, b"\x03data\0\0\0");
        frame(&mut bytes, HEADERS, PRIORITY, 3, b"\0\0\0\0\x10one");
        frame(&mut bytes, CONTINUATION, END_HEADERS, 3, b"two");
        greeting(&mut bytes, &[(INITIAL_WINDOW_SIZE, 7)]);
        for step in 1..bytes.len() {
            let mut reader = Reader::default();
            let mut found = Vec::new();
            for piece in bytes.chunks(step) {
                let mut seen = |frame: Frame| {
                    found.push((frame.kind, frame.stream, frame.payload.to_vec(), frame.length));
                    Ok(())
                };
                reader.take(piece, &mut seen).unwrap();
            }
            assert_eq!(found.len(), 4, "{step}");
            assert_eq!(found[0], (DATA, 1, b"data".to_vec(), 8));
            assert_eq!(found[1], (HEADERS, 3, b"onetwo".to_vec(), 0));
            assert_eq!(found[2], (SETTINGS, 0, b"\0\x04\0\0\0\x07".to_vec(), 6));
        }
    }

    #[test]
    fn broken_frames_are_refused() {
        for (kind, flags, payload) in
            [(DATA, PADDED, &b"\x05abc"[..]), (DATA, PADDED, b""), (HEADERS, PRIORITY, b"abc")]
        {
            let mut bytes = Vec::new();
            frame(&mut bytes, kind, flags | END_HEADERS, 1, payload);
            assert!(Reader::default().take(&bytes, &mut |_| Ok(())).is_err(), "{payload:?}");
        }
    }
}
