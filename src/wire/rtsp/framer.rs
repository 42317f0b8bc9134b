//! Cuts a connection's bytes into messages and media, without copying either.
//!
//! ```text
//!            '$' channel(1) length(2)                     letter
//!   MEDIA <---------------------------- BETWEEN ----------------------> HEAD, up to its empty line
//!     |  a run of frames, the last one     ^  ^                           |
//!     |  perhaps not all here              |  |                           | the caller takes the body, too
//!     +------------------------------------+  +---------------------------+
//! ```
//!
//! Frames may stand between any two messages (RFC 2326 §10.12), and so may empty lines.

/// What marks a frame of interleaved media.
pub const MARK: u8 = b'$';
/// The mark, the channel and two bytes of length.
pub const FRAME_HEAD: usize = 4;

/// Where in a connection's bytes one direction is.
#[derive(Debug, Default)]
pub struct Framer {
    /// Bytes of a frame that are still to come.
    left: usize,
    /// Bytes of a head that have been looked at for its end.
    looked: usize,
    /// Media comes one frame an item: they may not all go to the same place.
    pub one_by_one: bool,
}

/// What the bytes begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Item {
    /// So many bytes of media: whole frames, and what there is of the last one. The rest of it begins the next item.
    Media { bytes: usize, frames: u32 },
    /// A message whose head, its empty line included, has so many bytes.
    Head(usize),
    /// So many bytes of empty lines.
    Empty(usize),
    /// What is neither.
    Garbage,
    /// The beginning of something.
    More,
}

impl Framer {
    /// What `bytes` begin with. They have to begin where the last item ended, or be those of the last call and more
    /// behind them when that was [`Item::More`]. `seen` gets each frame that is here as a whole: its channel and what is in it.
    pub fn next(&mut self, bytes: &[u8], mut seen: impl FnMut(u8, &[u8])) -> Item {
        let Some(&first) = bytes.first() else { return Item::More };
        if self.left > 0 || first == MARK {
            return self.media(bytes, &mut seen);
        }
        if matches!(first, b'\r' | b'\n') {
            return Item::Empty(bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count());
        }
        // Methods are tokens (RFC 2326 §6.1), and all of them, as the version, begin with a letter.
        if !first.is_ascii_alphabetic() {
            return Item::Garbage;
        }
        let from = self.looked.saturating_sub(3).min(bytes.len());
        match end_of_head(&bytes[from..]) {
            Some(end) => {
                self.looked = 0;
                Item::Head(from + end)
            }
            None => {
                self.looked = bytes.len();
                Item::More
            }
        }
    }

    fn media(&mut self, bytes: &[u8], seen: &mut dyn FnMut(u8, &[u8])) -> Item {
        let mut at = self.left.min(bytes.len());
        self.left -= at;
        let mut frames = 0;
        while let Some([MARK, channel, high, low]) = bytes.get(at..).and_then(|rest| rest.first_chunk::<FRAME_HEAD>()) {
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            let begin = at + FRAME_HEAD;
            if self.one_by_one && at > 0 {
                break;
            }
            frames += 1;
            match bytes.get(begin..begin + length) {
                Some(frame) => {
                    seen(*channel, frame);
                    at = begin + length;
                }
                None => {
                    self.left = begin + length - bytes.len();
                    at = bytes.len();
                }
            }
        }
        if at == 0 { Item::More } else { Item::Media { bytes: at, frames } }
    }

    /// Whether the next byte begins a message or a frame, as far as items were taken.
    pub fn is_between(&self) -> bool {
        self.left == 0
    }
}

/// Behind the first empty line.
fn end_of_head(bytes: &[u8]) -> Option<usize> {
    memchr::memchr_iter(b'\n', bytes).find_map(|at| match bytes.get(at + 1..) {
        Some([b'\n', ..]) => Some(at + 2),
        Some([b'\r', b'\n', ..]) => Some(at + 3),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(channel: u8, payload: usize) -> Vec<u8> {
        let mut frame = vec![MARK, channel];
        frame.extend((payload as u16).to_be_bytes());
        // What is in it looks like anything.
        frame.extend(b"$\r\n\r\nPLAY ".iter().cycle().take(payload));
        frame
    }

    /// Items by kind, with pieces of a frame put together, however the bytes come.
    fn items(all: &[u8], piece: usize) -> Vec<String> {
        let (mut framer, mut out, mut buffer) = (Framer::default(), Vec::new(), Vec::new());
        let (mut media, mut frames) = (0, 0);
        for part in all.chunks(piece) {
            buffer.extend_from_slice(part);
            loop {
                let taken = match framer.next(&buffer, |_, _| {}) {
                    Item::More => break,
                    Item::Media { bytes, frames: more } => {
                        (media, frames) = (media + bytes, frames + more);
                        bytes
                    }
                    Item::Empty(count) => count,
                    Item::Garbage => {
                        out.push("garbage".to_owned());
                        return out;
                    }
                    Item::Head(end) => {
                        out.push(String::from_utf8_lossy(&buffer[..end]).into_owned());
                        end
                    }
                };
                buffer.drain(..taken);
            }
        }
        out.push(format!("{media} bytes in {frames} frames, {} left, {}", buffer.len(), framer.is_between()));
        out
    }

    #[test]
    fn messages_and_frames_are_told_apart_however_they_come() {
        let all = [
            b"\r\n\r\n".to_vec(),
            b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n".to_vec(),
            frame(0, 1400),
            frame(1, 0),
            b"\n".to_vec(),
            b"RTSP/1.0 200 OK\nCSeq: 1\n\n".to_vec(),
            frame(255, 65_535),
            b"PLAY rtsp://a/ RTSP/1.0\r\n\r\n".to_vec(),
        ]
        .concat();
        let expected = [
            "OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n",
            "RTSP/1.0 200 OK\nCSeq: 1\n\n",
            "PLAY rtsp://a/ RTSP/1.0\r\n\r\n",
            "66947 bytes in 3 frames, 0 left, true",
        ];
        for piece in [1, 2, 3, 5, 1000, 4096, all.len()] {
            assert_eq!(items(&all, piece), expected, "by {piece}");
        }
    }

    #[test]
    fn a_frame_is_passed_on_before_it_is_whole() {
        let (mut framer, whole) = (Framer::default(), frame(2, 1000));
        let mut seen = 0;
        assert_eq!(framer.next(&whole[..3], |_, _| seen += 1), Item::More);
        assert_eq!(framer.next(&whole[..500], |_, _| seen += 1), Item::Media { bytes: 500, frames: 1 });
        assert!(!framer.is_between());
        let rest = [&whole[500..], b"PLAY"].concat();
        assert_eq!(framer.next(&rest, |_, _| seen += 1), Item::Media { bytes: 504, frames: 0 });
        assert!(framer.is_between() && seen == 0, "one that came in pieces is not looked into");
        assert_eq!(
            framer.next(&whole, |channel, bytes| assert_eq!((channel, bytes.len()), (2, 1000))),
            Item::Media { bytes: 1004, frames: 1 }
        );
    }

    #[test]
    fn what_is_neither_is_seen_at_once() {
        for garbage in [&b"\x16\x03\x01"[..], b"\0", b"{\"a\"", b" PLAY", b"\xff\xfe"] {
            assert_eq!(Framer::default().next(garbage, |_, _| {}), Item::Garbage, "{garbage:?}");
        }
    }
}
