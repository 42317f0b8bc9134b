//! What one side of an HTTP/2 connection does more often than anybody means well with.
//!
//! Each kind has a bucket: so many at once, and so many more a second. What the `h2` crate bounds itself
//! is not counted here: CONTINUATION frames and the size of a header list, small frames of data, resets
//! of streams that nobody has looked at yet.

use std::time::Instant;

use smallvec::SmallVec;

use crate::wire::http2::frames::{self, Frame, Frames, kind};

/// Which end of the connection we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Server,
    Client,
}

/// What there is too much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flood {
    /// Streams that the other side has reset.
    Resets,
    /// Streams that we had to reset, for what the other side did.
    Errors,
    Settings,
    Pings,
    Priorities,
    /// Header blocks in pieces.
    Continuations,
    /// Frames of data without data.
    EmptyData,
    /// None at all where there had to be one: the first frame is not SETTINGS (RFC 9113 §3.4).
    NoSettings,
}

impl Flood {
    pub fn word(self) -> &'static str {
        match self {
            Flood::Resets => "stream resets",
            Flood::Errors => "stream errors",
            Flood::Settings => "SETTINGS frames",
            Flood::Pings => "PING frames",
            Flood::Priorities => "PRIORITY frames",
            Flood::Continuations => "CONTINUATION frames",
            Flood::EmptyData => "empty DATA frames",
            Flood::NoSettings => "frames before SETTINGS",
        }
    }

    const COUNT: usize = 8;

    /// At once, and a second.
    fn allowed(self) -> (u32, u32) {
        match self {
            // All streams of a page that is left, twice; a client that gives up now and then.
            Flood::Resets => (200, 20),
            Flood::Errors => (100, 5),
            // One at the beginning, and a new window now and then.
            Flood::Settings => (32, 4),
            // gRPC measures round trips with them.
            Flood::Pings => (500, 200),
            // Old browsers send a handful, tools one a stream.
            Flood::Priorities => (1000, 200),
            Flood::Continuations => (200, 50),
            Flood::EmptyData => (200, 50),
            Flood::NoSettings => (0, 0),
        }
    }
}

/// The client's preface (RFC 9113 §3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Errors of RFC 9113 §7 that say that the other side did something wrong or too often.
const ITS_FAULT: [u32; 6] = [1, 3, STREAM_CLOSED, 6, 7, 11];
const STREAM_CLOSED: u32 = 5;

/// The frames of one connection, both ways.
#[derive(Debug)]
pub struct Watch {
    side: Side,
    received: Frames,
    sent: Frames,
    buckets: [Bucket; Flood::COUNT],
    since: Instant,
    /// Whole seconds since `since`.
    seconds: u32,
    flood: Option<Flood>,
    last_stream: Option<u32>,
    /// A frame has come.
    begun: bool,
    /// We have said GOAWAY.
    leaving: bool,
    /// The highest stream that was opened, and whether later ones are not looked at any more.
    highest: u32,
    ended: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    used: u32,
    /// The second in which it was last emptied.
    at: u32,
}

impl Watch {
    pub fn new(side: Side, now: Instant) -> Watch {
        let preface = |own: bool| Frames::new(if own { PREFACE.len() } else { 0 });
        Watch {
            side,
            received: preface(side == Side::Server),
            sent: preface(side == Side::Client),
            buckets: [Bucket::default(); Flood::COUNT],
            since: now,
            seconds: 0,
            flood: None,
            last_stream: None,
            begun: false,
            leaving: false,
            highest: 0,
            ended: false,
        }
    }

    pub fn now(&mut self, now: Instant) {
        self.seconds = now.saturating_duration_since(self.since).as_secs() as u32;
    }

    pub fn flood(&self) -> Option<Flood> {
        self.flood
    }

    pub fn last_stream(&self) -> Option<u32> {
        self.last_stream
    }

    pub fn open_block(&self) -> Option<u64> {
        self.received.open_block()
    }

    /// Bytes of the other side. A frame that the `h2` crate would take for a fault, although it is none, is made one of a
    /// type that nobody knows: WINDOW_UPDATE of a stream that came too late. A client may have opened it before it read
    /// our GOAWAY, and sent it behind the answer to our PING (RFC 9113 §6.8).
    pub fn received(&mut self, bytes: &mut [u8]) {
        let Watch { side, received, buckets, seconds, flood, last_stream, begun, leaving, highest, ended, .. } = self;
        let mut hidden = SmallVec::<[usize; 4]>::new();
        received.pass(bytes, |frame, seen| {
            match frame.kind {
                kind::HEADERS if !*ended => *highest = frame.stream.max(*highest),
                kind::PING if frame.is_ack() && *leaving => *ended = true,
                kind::WINDOW_UPDATE if *ended && frame.stream > *highest => {
                    // Where the type has come with the bytes before, it is too late for that.
                    hidden.extend(seen.checked_sub(frames::HEAD - frames::KIND));
                }
                _ => {}
            }
            if !std::mem::replace(begun, true) && frame.kind != kind::SETTINGS {
                *flood = Some(Flood::NoSettings);
            }
            if frame.kind == kind::GOAWAY {
                *last_stream = Some(frame.value & 0x7fff_ffff);
            }
            if let Some(what) = counted(frame, *side) {
                count(buckets, what, *seconds, flood);
            }
        });
        hidden.into_iter().for_each(|at| bytes[at] = kind::UNKNOWN);
    }

    /// Bytes of ours.
    pub fn sent(&mut self, bytes: &[u8]) {
        let Watch { side, sent, buckets, seconds, flood, leaving, .. } = self;
        sent.pass(bytes, |frame, _| {
            *leaving |= frame.kind == kind::GOAWAY && *side == Side::Server;
            // A server may have sent something for a stream that we have just given up: the crate says that it is closed.
            let late = *side == Side::Client && frame.value == STREAM_CLOSED;
            if frame.kind == kind::RST_STREAM && ITS_FAULT.contains(&frame.value) && !late {
                count(buckets, Flood::Errors, *seconds, flood);
            }
        });
    }
}

fn counted(frame: Frame, side: Side) -> Option<Flood> {
    Some(match frame.kind {
        // A server resets no streams but those that we opened: where a request was enough, cannot be served or has run out of
        // its time. To close the connection would end those of others.
        kind::RST_STREAM if side == Side::Client => return None,
        kind::RST_STREAM => Flood::Resets,
        kind::SETTINGS if !frame.is_ack() => Flood::Settings,
        kind::PING if !frame.is_ack() => Flood::Pings,
        kind::PRIORITY => Flood::Priorities,
        kind::CONTINUATION => Flood::Continuations,
        // With END_STREAM it says something; a server may pad all it likes.
        kind::DATA if frame.length == 0 && frame.flags & 1 == 0 => Flood::EmptyData,
        _ => return None,
    })
}

fn count(buckets: &mut [Bucket; Flood::COUNT], what: Flood, seconds: u32, flood: &mut Option<Flood>) {
    let (at_once, a_second) = what.allowed();
    let bucket = &mut buckets[what as usize];
    let passed = seconds.saturating_sub(bucket.at);
    bucket.at = seconds;
    bucket.used = bucket.used.saturating_sub(passed.saturating_mul(a_second)) + 1;
    if bucket.used > at_once {
        *flood = Some(what);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn ping(ack: u8) -> Vec<u8> {
        let mut bytes = vec![0, 0, 8, kind::PING, ack, 0, 0, 0, 0];
        bytes.extend_from_slice(&[0; 8]);
        bytes
    }

    #[test]
    fn so_many_at_once_and_so_many_a_second() {
        let start = Instant::now();
        let mut watch = Watch::new(Side::Client, start);
        watch.received(&mut [0, 0, 0, kind::SETTINGS, 0, 0, 0, 0, 0]);
        let (at_once, a_second) = Flood::Pings.allowed();
        for _ in 0..at_once {
            watch.received(&mut ping(0));
            watch.received(&mut ping(1));
        }
        assert_eq!(watch.flood(), None);
        watch.now(start + Duration::from_secs(2));
        for _ in 0..2 * a_second {
            watch.received(&mut ping(0));
        }
        assert_eq!(watch.flood(), None);
        watch.received(&mut ping(0));
        assert_eq!(watch.flood(), Some(Flood::Pings));
    }

    #[test]
    fn our_resets_count_where_they_were_its_fault() {
        let mut watch = Watch::new(Side::Server, Instant::now());
        let reset = |error: u8| [0, 0, 4, kind::RST_STREAM, 0, 0, 0, 0, 1, 0, 0, 0, error];
        for _ in 0..1000 {
            watch.sent(&reset(2));
            watch.sent(&reset(0));
        }
        assert_eq!(watch.flood(), None);
        for _ in 0..=Flood::Errors.allowed().0 {
            watch.sent(&reset(1));
        }
        assert_eq!(watch.flood(), Some(Flood::Errors));
    }

    #[test]
    fn streams_that_we_opened_may_be_reset() {
        let reset = |error: u8| [0, 0, 4, kind::RST_STREAM, 0, 0, 0, 0, 1, 0, 0, 0, error];
        for (side, flood) in [(Side::Client, None), (Side::Server, Some(Flood::Resets))] {
            let mut watch = Watch::new(side, Instant::now());
            if side == Side::Server {
                watch.received(&mut PREFACE.to_vec());
            }
            watch.received(&mut [0, 0, 0, kind::SETTINGS, 0, 0, 0, 0, 0]);
            for error in [0, 2, 7, 8].into_iter().cycle().take(1000) {
                watch.received(&mut reset(error));
            }
            assert_eq!(watch.flood(), flood);
        }
        // What comes for a stream that was just given up is nobody's fault; of a client it is.
        for (side, flood) in [(Side::Client, None), (Side::Server, Some(Flood::Errors))] {
            let mut watch = Watch::new(side, Instant::now());
            if side == Side::Client {
                watch.sent(PREFACE);
            }
            (0..1000).for_each(|_| watch.sent(&reset(5)));
            assert_eq!(watch.flood(), flood);
        }
    }

    #[test]
    fn how_far_the_other_side_got() {
        let mut watch = Watch::new(Side::Client, Instant::now());
        watch.received(&mut [0, 0, 8, kind::GOAWAY, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0]);
        assert_eq!(watch.last_stream(), Some(7));
        assert_eq!(watch.flood(), Some(Flood::NoSettings), "it came first");
    }

    #[test]
    fn what_came_too_late_for_a_goaway_is_no_fault() {
        let update = |stream: u8| [0, 0, 4, kind::WINDOW_UPDATE, 0, 0, 0, 0, stream, 0, 0, 0, 9];
        let headers = |stream: u8| [0, 0, 0, kind::HEADERS, 5, 0, 0, 0, stream];
        let goaway = [0, 0, 8, kind::GOAWAY, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0];
        let kinds = |watch: &mut Watch, pieces: &[&[u8]]| {
            let mut bytes = pieces.concat();
            watch.received(&mut bytes);
            let mut kinds = Vec::new();
            Frames::new(0).pass(&bytes, |frame, _| kinds.push(frame.kind));
            kinds
        };
        let mut watch = Watch::new(Side::Server, Instant::now());
        watch.received(&mut PREFACE.to_vec());
        watch.received(&mut [0, 0, 0, kind::SETTINGS, 0, 0, 0, 0, 0]);
        let (ping, pong) = (ping(0), ping(1));
        let whole: [&[u8]; 5] = [&pong, &headers(3), &update(3), &ping, &update(1)];
        let plain = [kind::PING, kind::HEADERS, kind::WINDOW_UPDATE, kind::PING, kind::WINDOW_UPDATE];
        assert_eq!(kinds(&mut watch, &[&headers(1)]), [kind::HEADERS]);
        assert_eq!(kinds(&mut watch, &whole), plain, "before a GOAWAY");
        watch.sent(&goaway);
        assert_eq!(kinds(&mut watch, &[&headers(5), &update(5)]), plain[1..3], "before the answer to our PING");
        let late: [&[u8]; 5] = [&pong, &headers(7), &update(7), &update(5), &update(0)];
        let seen = [kind::PING, kind::HEADERS, kind::UNKNOWN, kind::WINDOW_UPDATE, kind::WINDOW_UPDATE];
        assert_eq!(kinds(&mut watch, &late), seen);
        // In pieces as far as its type is still in our hands.
        let mut bytes = update(9);
        let (head, rest) = bytes.split_at_mut(2);
        watch.received(head);
        watch.received(rest);
        assert_eq!(rest[1], kind::UNKNOWN);
        assert_eq!(watch.flood(), None);
    }
}
