//! Frames that no client should send, section by section of RFC 9113 and RFC 7541 (the sections of h2spec):
//! each is answered as the section says, and with nothing worse.

use crate::farm::h2::{End, Frame, Frames, GET, POST, PREFACE, block, code, string};
use crate::farm::reeve::pool;
use crate::farm::{Origin, Reeve, among_others};

use code::{
    ACK, COMPRESSION_ERROR, CONTINUATION, DATA, END_HEADERS, END_STREAM, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, GOAWAY,
    HEADERS, PADDED, PING, PRIORITISED, PRIORITY, PROTOCOL_ERROR, PUSH_PROMISE, RST_STREAM, SETTINGS, STREAM_CLOSED,
    WINDOW_UPDATE,
};

/// What a case comes to.
enum Then {
    /// GOAWAY with one of these errors, or with PROTOCOL_ERROR, which says as much and is what the crate
    /// mostly says; or the end of the connection.
    Connection(&'static [u32]),
    /// RST_STREAM of stream 1 with one of these errors; the connection lives on, or ends with one of them.
    Stream(&'static [u32]),
    /// Stream 1 is answered.
    Answered,
    /// Nothing: the connection lives on.
    Alive,
}

use Then::{Alive, Answered, Connection, Stream};

const WHOLE: u8 = END_STREAM | END_HEADERS;

struct Farm {
    _origin: Origin,
    reeve: Reeve,
}

fn farm(label: &str) -> Farm {
    let origin = Origin::start("web");
    let config = pool("web", "rr", &[("web", origin.address())]);
    let reeve = Reeve::start(label, &config, "http *\n  all : any  use web\n");
    Farm { _origin: origin, reeve }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: impl Into<Vec<u8>>) -> Frame {
    Frame::new(kind, flags, stream, payload)
}

fn get(stream: u32) -> Frame {
    Frame::request(stream, WHOLE, &GET)
}

fn post(stream: u32) -> Frame {
    Frame::request(stream, END_HEADERS, &POST)
}

/// A GET with other fields besides, or some in other places.
fn with(fields: &[(&str, &str)]) -> Frame {
    Frame::request(1, WHOLE, fields)
}

fn more(fields: &[(&'static str, &'static str)]) -> Frame {
    with(&[&GET, fields].concat())
}

fn check(label: &str, cases: Vec<(&str, Vec<Frame>, Then)>) {
    let _turn = among_others();
    let farm = farm(label);
    let address = farm.reeve.address();
    for (name, frames, then) in cases {
        let mut client = Frames::connect(&address);
        for frame in &frames {
            client.send(frame);
        }
        match then {
            Connection(errors) => match client.end() {
                End::GoAway(error) => {
                    assert!(error == PROTOCOL_ERROR || errors.contains(&error), "{name}: GOAWAY with {error}")
                }
                End::Closed => {}
            },
            Stream(errors) => {
                let ended = client.wait_for_end(1);
                assert!(
                    ended.is_some_and(|error| error == PROTOCOL_ERROR || errors.contains(&error)),
                    "{name}: {ended:?}"
                );
            }
            Answered => {
                assert_eq!(client.stream_end(1), None, "{name}");
                assert!(client.alive(), "{name}");
            }
            Alive => assert!(client.alive(), "{name}"),
        }
        // Whatever it was, the next client is served.
        let mut next = Frames::connect(&address);
        next.send(&get(1));
        assert_eq!(next.stream_end(1), None, "after {name}");
    }
}

#[test]
fn section_3_the_preface() {
    let _turn = among_others();
    let farm = farm("h2-preface");
    let address = farm.reeve.address();
    // Not the settings that have to come first (RFC 9113 §3.4).
    let mut client = Frames::silent(&address);
    client.write(PREFACE);
    client.send(&frame(PING, 0, 0, [0; 8]));
    assert!(matches!(client.end(), End::Closed | End::GoAway(PROTOCOL_ERROR)));
    // The preface in single bytes.
    let mut client = Frames::silent(&address);
    PREFACE.iter().for_each(|byte| assert!(client.write(&[*byte])));
    client.send(&frame(SETTINGS, 0, 0, []));
    client.send(&get(1));
    assert_eq!(client.stream_end(1), None);
}

#[test]
fn section_4_frames_and_their_sizes() {
    check(
        "h2-section-4",
        vec![
            ("4.1 a type that nobody knows", vec![frame(0x16, 0xff, 0, [1; 8]), get(1)], Answered),
            ("4.1 flags that nobody knows", vec![frame(PING, 0x16, 0, [0; 8]), get(1)], Answered),
            ("4.1 the reserved bit", vec![frame(PING, 0, 1 << 31, [0; 8]), get(1)], Answered),
            ("4.2 DATA of the largest size", vec![post(1), frame(DATA, END_STREAM, 1, [0; 16_384])], Answered),
            ("4.2 DATA that is too large", vec![post(1), frame(DATA, 1, 1, [0; 16_385])], Stream(&[FRAME_SIZE_ERROR])),
            (
                "4.2 HEADERS that are too large",
                vec![frame(HEADERS, 5, 1, [0; 16_385])],
                Connection(&[FRAME_SIZE_ERROR]),
            ),
            (
                "4.3 a block that cannot be decoded",
                vec![frame(HEADERS, WHOLE, 1, [0x40])],
                Connection(&[COMPRESSION_ERROR]),
            ),
            (
                "4.3 a frame within a block",
                vec![Frame::request(1, END_STREAM, &GET), frame(PRIORITY, 0, 1, [0, 0, 0, 0, 7])],
                Connection(&[PROTOCOL_ERROR]),
            ),
            (
                "4.3 another stream within a block",
                vec![Frame::request(1, END_STREAM, &GET), get(3)],
                Connection(&[PROTOCOL_ERROR]),
            ),
        ],
    );
}

#[test]
fn section_5_streams() {
    let reset = frame(RST_STREAM, 0, 1, [0, 0, 0, 8]);
    check(
        "h2-section-5",
        vec![
            ("5.1 DATA on an idle stream", vec![frame(DATA, 1, 1, *b"x")], Connection(&[PROTOCOL_ERROR])),
            ("5.1 RST_STREAM on an idle stream", vec![reset.clone()], Connection(&[PROTOCOL_ERROR])),
            (
                "5.1 WINDOW_UPDATE on an idle stream",
                vec![frame(WINDOW_UPDATE, 0, 1, [0, 0, 0, 9])],
                Connection(&[PROTOCOL_ERROR]),
            ),
            ("5.1 CONTINUATION on an idle stream", vec![frame(CONTINUATION, 4, 1, [])], Connection(&[PROTOCOL_ERROR])),
            ("5.1 DATA after the end", vec![get(1), frame(DATA, 1, 1, *b"x")], Stream(&[STREAM_CLOSED])),
            ("5.1 HEADERS after the end", vec![get(1), get(1)], Stream(&[STREAM_CLOSED])),
            ("5.1 DATA after a reset", vec![post(1), reset.clone(), frame(DATA, 1, 1, *b"x")], Alive),
            ("5.1.1 an even stream", vec![get(2)], Connection(&[PROTOCOL_ERROR])),
            ("5.1.1 a lower stream", vec![get(5), get(3)], Connection(&[PROTOCOL_ERROR, STREAM_CLOSED])),
            ("5.3.1 HEADERS that depend on themselves", vec![dependent(1)], Stream(&[PROTOCOL_ERROR])),
            ("5.3.1 PRIORITY that depends on itself", vec![frame(PRIORITY, 0, 1, [0, 0, 0, 1, 7])], Alive),
            (
                "5.4.1 GOAWAY of an error of ours",
                vec![frame(GOAWAY, 0, 0, [0, 0, 0, 0, 0, 0, 0, 1])],
                Connection(&[0, 1]),
            ),
            (
                "5.5 an extension within a block",
                vec![Frame::request(1, 1, &GET), frame(0x16, 0, 0, [])],
                Connection(&[PROTOCOL_ERROR]),
            ),
        ],
    );
}

fn dependent(on: u32) -> Frame {
    let mut payload = on.to_be_bytes().to_vec();
    payload.push(7);
    payload.extend(block(&GET));
    frame(HEADERS, WHOLE | PRIORITISED, 1, payload)
}

/// RFC 9113 §5.1.2: streams beyond what was announced are refused, and may be tried again.
#[test]
fn section_5_1_2_too_many_streams() {
    let _turn = among_others();
    let farm = farm("h2-streams");
    let mut client = Frames::connect(&farm.reeve.address());
    for n in 0..101 {
        client.send(&Frame::request(2 * n + 1, END_HEADERS, &POST));
    }
    assert_eq!(client.stream_end(201), Some(code::REFUSED_STREAM));
    client.send(&frame(DATA, END_STREAM, 1, *b"x"));
    assert_eq!(client.stream_end(1), None);
}

#[test]
fn section_6_data_headers_priority_reset() {
    let mut padded = vec![200];
    padded.extend(block(&GET));
    check(
        "h2-section-6a",
        vec![
            ("6.1 DATA on no stream", vec![frame(DATA, 1, 0, *b"x")], Connection(&[PROTOCOL_ERROR])),
            ("6.1 DATA with padding", vec![post(1), frame(DATA, END_STREAM | PADDED, 1, *b"\x03abc\0\0\0")], Answered),
            (
                "6.1 more padding than frame",
                vec![post(1), frame(DATA, 1 | PADDED, 1, *b"\x06abc")],
                Connection(&[PROTOCOL_ERROR]),
            ),
            ("6.2 HEADERS on no stream", vec![get(0)], Connection(&[PROTOCOL_ERROR])),
            (
                "6.2 more padding than frame",
                vec![frame(HEADERS, WHOLE | PADDED, 1, padded)],
                Connection(&[PROTOCOL_ERROR]),
            ),
            ("6.3 PRIORITY on no stream", vec![frame(PRIORITY, 0, 0, [0, 0, 0, 1, 7])], Connection(&[PROTOCOL_ERROR])),
            ("6.3 PRIORITY", vec![frame(PRIORITY, 0, 3, [0, 0, 0, 1, 7]), get(1)], Answered),
            ("6.4 RST_STREAM on no stream", vec![frame(RST_STREAM, 0, 0, [0; 4])], Connection(&[PROTOCOL_ERROR])),
            (
                "6.4 RST_STREAM of another size",
                vec![post(1), frame(RST_STREAM, 0, 1, [0; 3])],
                Connection(&[FRAME_SIZE_ERROR]),
            ),
        ],
    );
}

fn setting(id: u16, value: u32) -> Frame {
    frame(SETTINGS, 0, 0, [&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
}

#[test]
fn section_6_settings_ping_goaway_push() {
    check(
        "h2-section-6b",
        vec![
            ("6.5 an answer with a payload", vec![frame(SETTINGS, ACK, 0, [0; 6])], Connection(&[FRAME_SIZE_ERROR])),
            ("6.5 SETTINGS on a stream", vec![frame(SETTINGS, 0, 1, [0; 6])], Connection(&[PROTOCOL_ERROR])),
            ("6.5 SETTINGS of another size", vec![frame(SETTINGS, 0, 0, [0; 5])], Connection(&[FRAME_SIZE_ERROR])),
            ("6.5.2 ENABLE_PUSH of 2", vec![setting(2, 2)], Connection(&[PROTOCOL_ERROR])),
            ("6.5.2 a window of 2^31", vec![setting(4, 1 << 31)], Connection(&[FLOW_CONTROL_ERROR])),
            ("6.5.2 frames below 2^14", vec![setting(5, 16_383)], Connection(&[PROTOCOL_ERROR])),
            ("6.5.2 frames over 2^24", vec![setting(5, 1 << 24)], Connection(&[PROTOCOL_ERROR])),
            ("6.5.2 a setting that nobody knows", vec![setting(0x7777, 1), get(1)], Answered),
            (
                "6.6 PUSH_PROMISE of a client",
                vec![frame(PUSH_PROMISE, 4, 1, [0, 0, 0, 2])],
                Connection(&[PROTOCOL_ERROR]),
            ),
            ("6.7 PING on a stream", vec![frame(PING, 0, 1, [0; 8])], Connection(&[PROTOCOL_ERROR])),
            ("6.7 PING of another size", vec![frame(PING, 0, 0, [0; 6])], Connection(&[FRAME_SIZE_ERROR])),
            ("6.7 an answer to no PING", vec![frame(PING, ACK, 0, *b"whatever"), get(1)], Answered),
            ("6.8 GOAWAY on a stream", vec![frame(GOAWAY, 0, 1, [0; 8])], Connection(&[PROTOCOL_ERROR])),
        ],
    );
}

#[test]
fn section_6_windows_and_continuations() {
    let update = |stream, size: u32| frame(WINDOW_UPDATE, 0, stream, size.to_be_bytes());
    let first = Frame::request(1, END_STREAM, &GET[..2]);
    let rest = |flags, stream| frame(CONTINUATION, flags, stream, block(&GET[2..]));
    check(
        "h2-section-6c",
        vec![
            ("6.9 nothing, for the connection", vec![update(0, 0)], Connection(&[PROTOCOL_ERROR])),
            ("6.9 nothing, for a stream", vec![post(1), update(1, 0)], Stream(&[PROTOCOL_ERROR])),
            ("6.9 another size", vec![frame(WINDOW_UPDATE, 0, 0, [0; 3])], Connection(&[FRAME_SIZE_ERROR])),
            (
                "6.9.1 over 2^31 - 1, the connection",
                vec![update(0, 0x7fff_ffff), update(0, 0x7fff_ffff)],
                Connection(&[FLOW_CONTROL_ERROR]),
            ),
            (
                "6.9.1 over 2^31 - 1, a stream",
                vec![post(1), update(1, 0x7fff_ffff), update(1, 0x7fff_ffff)],
                Stream(&[FLOW_CONTROL_ERROR]),
            ),
            ("6.10 a block in two pieces", vec![first.clone(), rest(END_HEADERS, 1)], Answered),
            (
                "6.10 a block in many pieces",
                vec![first.clone(), frame(CONTINUATION, 0, 1, []), rest(0, 1), frame(CONTINUATION, 4, 1, [])],
                Answered,
            ),
            ("6.10 without a block", vec![get(1), rest(END_HEADERS, 1)], Connection(&[PROTOCOL_ERROR])),
            ("6.10 on no stream", vec![first.clone(), rest(END_HEADERS, 0)], Connection(&[PROTOCOL_ERROR])),
            ("6.10 on another stream", vec![first, rest(END_HEADERS, 3)], Connection(&[PROTOCOL_ERROR])),
        ],
    );
}

/// RFC 9113 §6.8: a connection says goodbye behind as many requests as it may have, not before, however many are under
/// way; all of them are answered.
#[test]
fn section_6_8_the_last_request_of_a_connection() {
    let _turn = among_others();
    let origin = Origin::start("web");
    let config =
        format!("{}\n[limits]\nrequests-per-connection = 5\n", pool("web", "rr", &[("web", origin.address())]));
    let reeve = Reeve::start("h2-last", &config, "http *\n  all : any  use web\n");
    let mut client = Frames::connect(&reeve.address());
    for stream in [1, 3, 5, 7] {
        client.send(&Frame::request(stream, END_HEADERS, &POST));
        client.send(&frame(PING, 0, 0, [stream as u8; 8]));
        let next = client.wait_for(|frame| frame.kind == GOAWAY || frame.kind == PING && frame.flags == ACK);
        assert_eq!(next.kind, PING, "after stream {stream}");
    }
    client.send(&get(9));
    let goodbye = client.wait_for(|frame| frame.kind == GOAWAY);
    assert_eq!(goodbye.word(4), 0);
    assert_eq!(client.stream_end(9), None);
    for stream in [1, 3, 5, 7] {
        client.send(&frame(DATA, END_STREAM, stream, *b"x"));
        assert_eq!(client.stream_end(stream), None);
    }
}

/// RFC 9113 §6.9.1, §6.9.2: no byte more than there is a window for, also when it shrinks below nothing.
#[test]
fn section_6_9_windows_are_kept() {
    let _turn = among_others();
    let farm = farm("h2-windows");
    let mut client = Frames::connect(&farm.reeve.address());
    client.send(&setting(4, 3));
    client.send(&get(1));
    let data = client.wait_for(|frame| frame.kind == DATA);
    assert_eq!((data.payload.len(), data.flags), (3, 0));
    client.send(&setting(4, 2));
    client.send(&frame(WINDOW_UPDATE, 0, 1, [0, 0, 0, 1]));
    assert!(client.alive(), "nothing comes: the window is at nothing");
    client.send(&frame(WINDOW_UPDATE, 0, 1, [0, 0, 0, 1]));
    let data = client.wait_for(|frame| frame.kind == DATA);
    assert_eq!(data.payload.len(), 1);
    client.send(&frame(WINDOW_UPDATE, 0, 1, [0, 0, 1, 0]));
    assert_eq!(client.stream_end(1), None);
}

#[test]
fn section_8_requests() {
    // RFC 9113 §8.1.1: malformed ones are stream errors.
    const MALFORMED: Then = Stream(&[PROTOCOL_ERROR]);
    let post_of =
        |length: &'static str| Frame::request(1, END_HEADERS, &[&POST[..], &[("content-length", length)]].concat());
    let [method, scheme, path, authority] = GET;
    check(
        "h2-section-8",
        vec![
            ("8.1 HEADERS in the middle", vec![post(1), post(1)], MALFORMED),
            (
                "8.1 trailers",
                vec![post(1), frame(DATA, 0, 1, *b"x"), frame(HEADERS, WHOLE, 1, block(&[("x", "y")]))],
                Answered,
            ),
            ("8.2.1 a name in capitals", vec![more(&[("X-Test", "ok")])], MALFORMED),
            ("8.2.1 a name with a blank", vec![more(&[("x test", "ok")])], MALFORMED),
            ("8.2.1 a value with a line end", vec![more(&[("x-test", "a\r\nb: c")])], MALFORMED),
            ("8.2.1 a value with NUL", vec![more(&[("x-test", "a\0b")])], MALFORMED),
            ("8.2.1 a value with a blank before it", vec![more(&[("x-test", " a")])], Answered),
            ("8.2.2 connection", vec![more(&[("connection", "keep-alive")])], MALFORMED),
            ("8.2.2 transfer-encoding", vec![more(&[("transfer-encoding", "chunked")])], MALFORMED),
            ("8.2.2 upgrade", vec![more(&[("upgrade", "websocket")])], MALFORMED),
            ("8.2.2 te that is not trailers", vec![more(&[("te", "trailers, deflate")])], MALFORMED),
            (
                "8.3 a pseudo field that nobody knows",
                vec![with(&[(":test", "x"), method, scheme, path, authority])],
                MALFORMED,
            ),
            (
                "8.3 a pseudo field of answers",
                vec![with(&[method, scheme, path, authority, (":status", "200")])],
                MALFORMED,
            ),
            // The crate drops it unsaid: it goes nowhere.
            ("8.3 a pseudo field in trailers", vec![post(1), frame(HEADERS, WHOLE, 1, block(&[path]))], Answered),
            ("8.3 a pseudo field behind others", vec![with(&[method, scheme, path, ("x", "y"), authority])], MALFORMED),
            ("8.3.1 an empty path", vec![with(&[method, scheme, (":path", ""), authority])], MALFORMED),
            ("8.3.1 no method", vec![with(&[scheme, path, authority])], MALFORMED),
            ("8.3.1 no scheme", vec![with(&[method, path, authority])], MALFORMED),
            ("8.3.1 no path", vec![with(&[method, scheme, authority])], MALFORMED),
            ("8.3.1 two methods", vec![with(&[method, method, scheme, path, authority])], MALFORMED),
            ("8.3.1 two schemes", vec![with(&[method, scheme, scheme, path, authority])], MALFORMED),
            ("8.3.1 two paths", vec![with(&[method, scheme, path, path, authority])], MALFORMED),
            ("8.3.1 no authority and no Host", vec![with(&[method, scheme, path])], Answered),
            ("8.3.1 a path without its slash", vec![with(&[method, scheme, (":path", "x"), authority])], MALFORMED),
            ("8.1.1 a body longer than its length", vec![post_of("1"), frame(DATA, 1, 1, *b"test")], MALFORMED),
            ("8.1.1 a body shorter than its length", vec![post_of("9"), frame(DATA, 1, 1, *b"test")], MALFORMED),
            (
                "8.1.1 two frames longer than the length",
                vec![post_of("1"), frame(DATA, 0, 1, *b"te"), frame(DATA, 1, 1, *b"st")],
                MALFORMED,
            ),
            ("8.4 PUSH_PROMISE", vec![frame(PUSH_PROMISE, 4, 1, [0, 0, 0, 2])], Connection(&[PROTOCOL_ERROR])),
        ],
    );
}

#[test]
fn header_compression() {
    let after = |bytes: &[u8]| {
        let mut payload = block(&GET);
        payload.extend_from_slice(bytes);
        frame(HEADERS, WHOLE, 1, payload)
    };
    let mut literal = vec![0x00];
    string(b"x-test", &mut literal);
    let huffman = |code: &[u8]| {
        let mut bytes = literal.clone();
        bytes.push(0x80 | code.len() as u8);
        bytes.extend_from_slice(code);
        after(&bytes)
    };
    const BAD: Then = Connection(&[COMPRESSION_ERROR]);
    check(
        "h2-hpack",
        vec![
            ("2.3.3 an index beyond the tables", vec![after(&[0xff, 0x00])], BAD),
            ("2.3.3 a name beyond the tables", vec![after(&[0x7f, 0x60, 1, b'x'])], BAD),
            ("4.2 a new size behind fields", vec![after(&[0x3f, 0x01])], BAD),
            ("5.1 an integer without end", vec![after(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff])], BAD),
            ("5.2 padding of more than 7 bits", vec![huffman(&[0x1f, 0xff, 0xff])], BAD),
            ("5.2 padding of zeros", vec![huffman(&[0x00])], BAD),
            ("5.2 the end of a string within it", vec![huffman(&[0xff, 0xff, 0xff, 0xff])], BAD),
            ("6.1 index 0", vec![after(&[0x80])], BAD),
            (
                "6.3 a size larger than was allowed",
                vec![{
                    let mut payload = vec![0x3f, 0xe2, 0x7f];
                    payload.extend(block(&GET));
                    frame(HEADERS, WHOLE, 1, payload)
                }],
                BAD,
            ),
        ],
    );
}
