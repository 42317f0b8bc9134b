//! Where in its frames a WebSocket is: followed so far that a tunnel whose time is over can be closed in its own
//! language (RFC 6455 §5.5.1), without reading what it says.
//!
//! ```text
//!   bytes seen     HEAD --> PAYLOAD --> HEAD ...
//!   bytes unseen   PAYLOAD, if they stay within it; else LOST
//! ```

/// One direction of a WebSocket.
#[derive(Debug)]
pub struct Frames {
    at: At,
    /// A close frame has passed: nothing may follow it.
    closed: bool,
    /// Bytes are on their way, of which nobody knows how many have gone.
    writing: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// In a head, of which so many bytes have come.
    Head([u8; HEAD], usize),
    /// So many bytes of a payload are still to come.
    Payload(u64),
    /// Somewhere.
    Lost,
}

/// The longest head: two bytes, eight of length, four of mask (RFC 6455 §5.2).
const HEAD: usize = 14;
const CLOSE: u8 = 8;

/// A close frame to a client: 1001, the server goes away (RFC 6455 §7.4.1).
pub const GOING_AWAY: [u8; 4] = [0x88, 2, 0x03, 0xe9];
/// The same to a server, masked, as it has to be (RFC 6455 §5.3); what is said in it is no secret.
pub const GOING_AWAY_MASKED: [u8; 8] = [0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe9];

impl Frames {
    /// Before the first frame.
    pub fn new() -> Frames {
        Frames { at: At::Head([0; HEAD], 0), closed: false, writing: false }
    }

    /// These bytes are about to be written; [`Frames::done`] says that all of them were.
    pub fn begin(&mut self, mut bytes: &[u8]) {
        self.writing = true;
        while !bytes.is_empty() {
            match &mut self.at {
                At::Lost => return,
                At::Payload(left) => {
                    let count = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    bytes = &bytes[count..];
                    *left -= count as u64;
                    if *left == 0 {
                        self.at = At::Head([0; HEAD], 0);
                    }
                }
                At::Head(head, length) => {
                    head[*length] = bytes[0];
                    *length += 1;
                    bytes = &bytes[1..];
                    if *length >= 2 && *length == length_of_head(head[1]) {
                        self.closed |= head[0] & 0xf == CLOSE;
                        self.at = match length_of_payload(head) {
                            0 => At::Head([0; HEAD], 0),
                            payload => At::Payload(payload),
                        };
                    }
                }
            }
        }
    }

    /// As [`Frames::begin`], for bytes that nobody has seen.
    pub fn begin_unseen(&mut self, count: u64) {
        self.writing = true;
        self.at = match self.at {
            At::Payload(left) if count < left => At::Payload(left - count),
            At::Payload(left) if count == left => At::Head([0; HEAD], 0),
            _ => At::Lost,
        };
    }

    /// What was begun has been written.
    pub fn done(&mut self) {
        self.writing = false;
    }

    /// Whether a frame of ours may come next.
    pub fn is_between(&self) -> bool {
        matches!(self.at, At::Head(_, 0)) && !self.closed && !self.writing
    }
}

/// By its second byte.
fn length_of_head(second: u8) -> usize {
    let length = match second & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    2 + length + if second & 0x80 != 0 { 4 } else { 0 }
}

fn length_of_payload(head: &[u8; HEAD]) -> u64 {
    let [_, second, a, b, c, d, e, f, g, h, ..] = *head;
    match second & 0x7f {
        126 => u16::from_be_bytes([a, b]).into(),
        127 => u64::from_be_bytes([a, b, c, d, e, f, g, h]),
        short => short.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame with this payload, masked or not.
    fn frame(opcode: u8, payload: usize, masked: bool) -> Vec<u8> {
        let mask = if masked { 0x80 } else { 0 };
        let mut frame = vec![0x80 | opcode];
        match payload {
            0..126 => frame.push(mask | payload as u8),
            126..65536 => {
                frame.push(mask | 126);
                frame.extend((payload as u16).to_be_bytes());
            }
            _ => {
                frame.push(mask | 127);
                frame.extend((payload as u64).to_be_bytes());
            }
        }
        if masked {
            frame.extend([1, 2, 3, 4]);
        }
        // Such as would begin a frame where one is looked for in the wrong place.
        frame.resize(frame.len() + payload, 0x88);
        frame
    }

    fn seen(followed: &mut Frames, bytes: &[u8]) {
        followed.begin(bytes);
        followed.done();
    }

    fn unseen(followed: &mut Frames, count: u64) {
        followed.begin_unseen(count);
        followed.done();
    }

    #[test]
    fn the_end_of_each_frame_is_found_however_it_comes() {
        let frames: Vec<Vec<u8>> =
            [(0, false), (1, true), (125, false), (126, true), (65_535, false), (70_000, true), (5, false)]
                .into_iter()
                .map(|(payload, masked)| frame(2, payload, masked))
                .collect();
        let ends: Vec<usize> = frames
            .iter()
            .scan(0, |end, frame| {
                Some({
                    *end += frame.len();
                    *end
                })
            })
            .collect();
        let all = frames.concat();
        for piece in [1, 2, 3, 7, 1000, 4096, all.len()] {
            let mut followed = Frames::new();
            let mut at = 0;
            while at < all.len() {
                let next = (at + piece).min(all.len());
                followed.begin(&all[at..next]);
                assert!(!followed.is_between(), "a part may be on its way only");
                followed.done();
                at = next;
                assert_eq!(followed.is_between(), ends.contains(&at), "at {at} by {piece}");
            }
        }
    }

    #[test]
    fn what_was_not_seen_is_known_within_a_payload_only() {
        let large = frame(2, 1 << 20, false);
        let mut followed = Frames::new();
        seen(&mut followed, &large[..4096]);
        unseen(&mut followed, large.len() as u64 - 4096 - 10);
        assert!(!followed.is_between());
        seen(&mut followed, &large[large.len() - 10..]);
        assert!(followed.is_between());
        seen(&mut followed, &large[..4096]);
        unseen(&mut followed, large.len() as u64 - 4096);
        assert!(followed.is_between());
        unseen(&mut followed, 1);
        seen(&mut followed, &large);
        assert!(!followed.is_between(), "lost for good");
    }

    #[test]
    fn nothing_follows_a_close_frame_and_ours_are_whole() {
        let mut followed = Frames::new();
        seen(&mut followed, &frame(9, 3, true));
        assert!(followed.is_between());
        seen(&mut followed, &frame(8, 2, true));
        assert!(!followed.is_between());
        for ours in [&GOING_AWAY[..], &GOING_AWAY_MASKED] {
            let mut followed = Frames::new();
            seen(&mut followed, ours);
            assert!(followed.closed && followed.at == At::Head([0; HEAD], 0));
        }
    }
}
