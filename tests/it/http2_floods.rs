//! One client of HTTP/2 against everybody: floods end with GOAWAY and are counted, what is held back is
//! given up, and meanwhile others are served and memory stays.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::farm::h2::{End, Frame, Frames, GET, POST, Session, block, code, string};
use crate::farm::reeve::pool;
use crate::farm::{Origin, Reeve, alone, get, until};

use code::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, HEADERS, PING, PRIORITY, RST_STREAM, SETTINGS,
    WINDOW_UPDATE,
};

/// What one attacker may cost, in KiB: the windows and buffers of a connection are 8 MiB at most.
const MEMORY: u64 = 24 << 10;

/// How long another client may wait for an answer of 1 KiB on a busy machine with two cores.
const PATIENCE: Duration = Duration::from_millis(1500);

fn farm(label: &str, timeouts: &str) -> (Origin, Reeve) {
    let origin = Origin::start("web");
    let config = pool("web", "rr", &[("web", origin.address())]) + timeouts;
    // One worker, which the attacker shares with everybody.
    let reeve = Reeve::start(label, &config.replace("workers = 2", "workers = 1"), "http *\n  all : any  use web\n");
    (origin, reeve)
}

fn rejected(reeve: &Reeve, reason: &str) -> u64 {
    let line = format!("reeve_rejected_total{{listener=\"web\",reason=\"{reason}\"}} ");
    let text = get(&reeve.site.metrics(), "/metrics", &[]).text();
    text.lines().find_map(|found| found.strip_prefix(&line)?.parse().ok()).unwrap_or(0)
}

/// An attacker writes what `frames` says for the nth time, as fast as it can, until it is thrown out. Meanwhile
/// another client asks.
fn flood(label: &str, first: &[Frame], mut frames: impl FnMut(u32) -> Vec<u8> + Send) {
    let _turn = alone();
    let (origin, reeve) = farm(label, "");
    let other = Session::connect(&reeve.address());
    assert_eq!(other.get("/sized/1024").expect("an answer").status, 200);
    let before = reeve.process.resident();
    reeve.process.reset_peak();
    let mut client = Frames::connect(&reeve.address());
    first.iter().for_each(|frame| assert!(client.send(frame)));
    let over = AtomicBool::new(false);
    let (mut slowest, mut asked) = (Duration::ZERO, 0);
    let written = std::thread::scope(|scope| {
        let attack = scope.spawn(|| {
            let mut written = 0_u64;
            // Far more than any of the bounds.
            for n in 0..2_000_000 {
                let bytes = frames(n);
                written += bytes.len() as u64;
                if !client.write(&bytes) {
                    break;
                }
            }
            over.store(true, Ordering::SeqCst);
            written
        });
        while !over.load(Ordering::SeqCst) || asked < 20 {
            let start = Instant::now();
            assert_eq!(other.get("/sized/1024").expect("an answer").body.len(), 1024);
            slowest = slowest.max(start.elapsed());
            asked += 1;
        }
        attack.join().expect("the attacker")
    });
    // Its last words may be lost, where it went on writing.
    let end = client.end();
    assert!(matches!(end, End::GoAway(ENHANCE_YOUR_CALM) | End::Closed), "{end:?}");
    assert_eq!(until("the flood counted", || Some(rejected(&reeve, "flood")).filter(|count| *count > 0)), 1);
    let grown = reeve.process.peak().saturating_sub(before);
    println!("{label}: {} KiB taken, resident memory +{grown} KiB, others waited {slowest:?} at most", written >> 10);
    assert!(written < 16 << 20, "{written} bytes were taken");
    assert!(grown < MEMORY, "resident memory grew by {grown} KiB");
    assert!(slowest < PATIENCE, "others waited {slowest:?}");
    until("the attacker's requests to be over", || (origin.held() == 0).then(|| origin.release()).or(Some(())));
}

fn frame(kind: u8, flags: u8, stream: u32, payload: impl Into<Vec<u8>>) -> Frame {
    Frame::new(kind, flags, stream, payload)
}

#[test]
fn streams_opened_and_reset() {
    // CVE-2023-44487.
    let fields = [GET[0], GET[1], (":path", "/hold"), GET[3]];
    flood("flood-reset", &[], |n| {
        let open = Frame::request(2 * n + 1, END_STREAM | END_HEADERS, &fields);
        [open.bytes(), frame(RST_STREAM, 0, 2 * n + 1, [0, 0, 0, 8]).bytes()].concat()
    });
}

#[test]
fn streams_that_we_are_made_to_reset() {
    // CVE-2025-8671, by a body that is longer than its length.
    let fields = [&POST[..], &[("content-length", "1")]].concat();
    flood("flood-made", &[], |n| {
        let open = Frame::request(2 * n + 1, END_HEADERS, &fields);
        [open.bytes(), frame(DATA, 0, 2 * n + 1, *b"xx").bytes()].concat()
    });
}

#[test]
fn header_blocks_without_end() {
    // CVE-2024-27316 and its kin.
    let piece = block(&[("x-more", "0123456789")]);
    flood("flood-continued", &[Frame::request(1, END_STREAM, &GET)], |_| frame(CONTINUATION, 0, 1, &piece[..]).bytes());
}

#[test]
fn header_blocks_in_empty_pieces() {
    flood("flood-empty-pieces", &[Frame::request(1, END_STREAM, &GET)], |_| frame(CONTINUATION, 0, 1, []).bytes());
}

#[test]
fn settings() {
    // CVE-2019-9515.
    flood("flood-settings", &[], |_| frame(SETTINGS, 0, 0, [0, 4, 0, 0, 255, 255]).bytes());
}

#[test]
fn pings() {
    // CVE-2019-9512.
    flood("flood-pings", &[], |_| frame(PING, 0, 0, *b"attack!!").bytes().repeat(10));
}

#[test]
fn priorities() {
    // CVE-2019-9513.
    flood("flood-priorities", &[], |n| frame(PRIORITY, 0, 2 * n + 1, [0, 0, 0, 0, 16]).bytes().repeat(10));
}

#[test]
fn data_without_data() {
    // CVE-2019-9518.
    flood("flood-empty-data", &[Frame::request(1, END_HEADERS, &POST)], |_| frame(DATA, 0, 1, []).bytes().repeat(10));
}

/// An entry of 4,000 bytes in the table of the compression, and thousands of references to it: a few bytes
/// become a hundred megabytes, if one lets them (CVE-2016-6581).
#[test]
fn header_bombs() {
    let _turn = alone();
    let (_origin, reeve) = farm("flood-bomb", "");
    let other = Session::connect(&reeve.address());
    assert_eq!(other.get("/sized/1024").expect("an answer").status, 200);
    let before = reeve.process.resident();
    reeve.process.reset_peak();
    let mut slowest = Duration::ZERO;
    for _ in 0..5 {
        let mut client = Frames::connect(&reeve.address());
        // RFC 7541 §6.2.1: this one is kept in the table.
        let mut payload = block(&GET);
        payload.push(0x40);
        string(b"x-bomb", &mut payload);
        string(&[b'x'; 3900], &mut payload);
        client.send(&frame(HEADERS, END_STREAM | END_HEADERS, 1, payload));
        assert_eq!(client.stream_end(1), None);
        for n in 1..50 {
            let mut payload = block(&GET);
            payload.extend([0xbe; 16_000]);
            if !client.send(&frame(HEADERS, END_STREAM | END_HEADERS, 2 * n + 1, payload)) {
                break;
            }
        }
        let start = Instant::now();
        assert_eq!(other.get("/sized/1024").expect("an answer").body.len(), 1024);
        slowest = slowest.max(start.elapsed());
        assert!(matches!(client.end(), End::GoAway(ENHANCE_YOUR_CALM) | End::Closed));
    }
    assert!(until("floods counted", || Some(rejected(&reeve, "flood")).filter(|count| *count == 5)) == 5);
    let grown = reeve.process.peak().saturating_sub(before);
    println!("bombs: resident memory +{grown} KiB, others waited {slowest:?} at most");
    assert!(grown < MEMORY && slowest < PATIENCE, "resident memory grew by {grown} KiB, others waited {slowest:?}");
}

/// A client that asks for a lot and makes no room for it, and one that makes room and does not read.
#[test]
fn answers_that_nobody_takes() {
    let _turn = alone();
    let (_origin, reeve) = farm("flood-stalled", "\n[timeouts]\nclient-write = \"2s\"\n");
    let other = Session::connect(&reeve.address());
    assert_eq!(other.get("/sized/1024").expect("an answer").status, 200);
    let before = reeve.process.resident();
    reeve.process.reset_peak();
    let fields = [GET[0], GET[1], (":path", "/sized/50000000"), GET[3]];
    let mut stalled = Frames::connect(&reeve.address());
    let mut unread = Frames::connect(&reeve.address());
    // RFC 9113 §6.5.2: a window of nothing for each stream; of 1 GiB for each, and for the connection.
    stalled.send(&frame(SETTINGS, 0, 0, [0, 4, 0, 0, 0, 0]));
    unread.send(&frame(SETTINGS, 0, 0, [0, 4, 0x40, 0, 0, 0]));
    unread.send(&frame(WINDOW_UPDATE, 0, 0, [0x40, 0, 0, 0]));
    // Together fewer than the origin's queue of connections takes at once.
    for n in 0..50 {
        stalled.send(&Frame::request(2 * n + 1, END_STREAM | END_HEADERS, &fields));
        unread.send(&Frame::request(2 * n + 1, END_STREAM | END_HEADERS, &fields));
    }
    let start = Instant::now();
    let mut slowest = Duration::ZERO;
    let mut waited = 0;
    until("both given up", || {
        let asked = Instant::now();
        assert_eq!(other.get("/sized/1024").expect("an answer").body.len(), 1024);
        slowest = slowest.max(asked.elapsed());
        waited = reeve
            .log()
            .iter()
            .filter(|line| line["failure"] == "client-stalled" || line["failure"] == "client-gone")
            .count();
        (waited == 100).then_some(())
    });
    let grown = reeve.process.peak().saturating_sub(before);
    println!("stalled: {:?}, resident memory +{grown} KiB, others waited {slowest:?} at most", start.elapsed());
    assert!(start.elapsed() >= Duration::from_secs(2));
    // Two connections, each 50 streams with 64 KiB that wait and a buffer of a server's bytes.
    assert!(grown < 2 * MEMORY, "resident memory grew by {grown} KiB");
    assert!(slowest < PATIENCE, "others waited {slowest:?}");
    // The first is told of each stream; the second has been reset.
    let first = stalled.wait_for(|frame| frame.kind == RST_STREAM);
    assert_eq!(first.payload.len(), 4);
}

#[test]
fn what_is_begun_and_not_ended() {
    let _turn = alone();
    let config = "\n[timeouts]\nrequest-header = \"1s\"\nrequest-body = \"1s\"\nclient-keep-alive = \"2s\"\n";
    let (_origin, reeve) = farm("flood-slow", config);
    let mut preface = Frames::silent(&reeve.address());
    preface.write(b"PRI * HTTP/2.0\r\n");
    let mut head = Frames::connect(&reeve.address());
    head.send(&Frame::request(1, END_STREAM, &GET));
    let mut busy = Frames::connect(&reeve.address());
    busy.send(&Frame::request(1, END_HEADERS, &[POST[0], POST[1], (":path", "/hold"), POST[3]]));
    busy.send(&Frame::request(3, END_STREAM, &GET));
    let mut body = Frames::connect(&reeve.address());
    body.send(&Frame::request(1, END_HEADERS, &POST));
    let mut idle = Frames::connect(&reeve.address());
    let start = Instant::now();
    assert_eq!(preface.end(), End::Closed);
    assert_eq!(head.end(), End::GoAway(ENHANCE_YOUR_CALM));
    assert_eq!(busy.end(), End::GoAway(ENHANCE_YOUR_CALM));
    // 408, and the stream is over; the connection then waits for another request.
    assert_eq!(body.stream_end(1), None);
    assert!(start.elapsed() >= Duration::from_millis(900), "{:?}", start.elapsed());
    assert_eq!(idle.end(), End::GoAway(0));
    assert!(start.elapsed() >= Duration::from_millis(1900), "{:?}", start.elapsed());
    assert_eq!(rejected(&reeve, "timeout"), 2, "two header blocks");
}
