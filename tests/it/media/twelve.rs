//! The twelve checks: what players and publishers do to a media farm, and whether each got its pictures.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::Ipv4Addr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::capture::{Capture, Counts, UDP};
use super::net::{CLIENT, Farm, ORIGINS, RULES, VIP, Way, listener, pool, with_director};
use super::offload::{entries, offloaded};
use super::players::{Play, Played, ffmpeg, gstreamer, publish, width};
use super::space::Space;
use crate::farm::among_others;
use crate::farm::process::Process;
use crate::farm::watch::until_within;

/// How many run at once: they wait most of their time.
const AT_ONCE: usize = 10;
const CAMERAS: usize = 8;

/// The first eleven, at `rtsp://HOST`.
fn checks<'a>(space: &'a Space, host: &str, origins: &'a [Process]) -> Vec<(&'static str, Play<'a>)> {
    let at = |scheme: &str, path: &str| format!("{scheme}://{host}{path}");
    let play = |how: &'static [&'static str]| -> Play<'a> {
        let url = at("rtsp", "/test");
        Box::new(move || ffmpeg(space, how, &url))
    };
    let launch = |how: &'static [&'static str], scheme: &str| -> Play<'a> {
        let url = at(scheme, "/test");
        Box::new(move || gstreamer(space, how, &url))
    };
    let bring = |transport: &'static str, path: &'static str| -> Play<'a> {
        let url = at("rtsp", path);
        Box::new(move || {
            let took = publish(space, transport, &url)?;
            recorded(origins, path).map(|()| took)
        })
    };
    vec![
        ("1 ffmpeg tcp", play(&["-rtsp_transport", "tcp"])),
        ("2 ffmpeg udp", play(&["-rtsp_transport", "udp"])),
        ("3 ffmpeg udp, its source filtered", play(&["-rtsp_transport", "udp", "-rtsp_flags", "filter_src"])),
        ("4 ffmpeg as it comes", play(&[])),
        ("5 ffmpeg over HTTP", play(&["-rtsp_transport", "http"])),
        ("6 GStreamer udp", launch(&["protocols=udp"], "rtsp")),
        ("7 GStreamer as it comes", launch(&[], "rtsp")),
        ("8 GStreamer tcp", launch(&[], "rtspt")),
        ("9 GStreamer over HTTP", launch(&[], "rtsph")),
        ("10 publish tcp", bring("tcp", "/rec")),
        ("11 publish udp", bring("udp", "/rec2")),
    ]
}

/// A publisher does not notice whether anybody hears it: an origin has to have got its pictures, but for the last ones,
/// which the origin throws away when the publisher takes leave while they wait to be in order.
fn recorded(origins: &[Process], path: &str) -> Result<(), String> {
    let line = format!("recorded {path} 20\n");
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(3) {
        if origins.iter().any(|origin| origin.stdout().contains(&line)) {
            return Ok(());
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
    let said: Vec<String> = origins.iter().map(Process::stdout).collect();
    let heard: Vec<&str> = said.iter().flat_map(|all| all.lines()).filter(|line| line.contains(path)).collect();
    Err(format!("no origin got the pictures: {heard:?}"))
}

/// What came of the twelve, in order, and what crossed the client's wire meanwhile.
struct Outcome {
    checks: Vec<(&'static str, Played)>,
    counts: Counts,
}

impl Outcome {
    fn of(farm: &Farm, host: &str, origins: &[Process]) -> Outcome {
        let checks = checks(&farm.client, host, origins);
        let capture = Capture::start(&farm.client);
        let total = checks.len() + 2 * CAMERAS;
        let next = AtomicUsize::new(0);
        let (played, widths) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
        let start = Instant::now();
        let work = || loop {
            let number = next.fetch_add(1, Ordering::SeqCst);
            if let Some((_, check)) = checks.get(number) {
                let outcome = check();
                played.lock().expect("what was played").push((number, outcome));
            } else if number < total {
                let number = number - checks.len();
                let (transport, camera) = (["tcp", "udp"][number % 2], number / 2);
                let found = width(&farm.client, transport, &format!("rtsp://{host}/cam{camera}"));
                widths.lock().expect("widths").push((transport, camera, found));
            } else {
                return;
            }
        };
        std::thread::scope(|scope| (0..AT_ONCE).for_each(|_| drop(scope.spawn(work))));
        let took = start.elapsed();
        let mut played = played.into_inner().expect("what was played");
        played.sort_by_key(|(number, _)| *number);
        let mut all: Vec<_> = checks.iter().zip(played).map(|((name, _), (_, outcome))| (*name, outcome)).collect();
        all.push(("12 one address, one origin", same(&widths.into_inner().expect("widths")).map(|()| took)));
        Outcome { checks: all, counts: capture.end() }
    }

    /// The numbers of those that failed.
    fn failed(&self) -> Vec<usize> {
        (1..).zip(&self.checks).filter(|(_, (_, outcome))| outcome.is_err()).map(|(number, _)| number).collect()
    }

    fn report(&self) -> String {
        let mut text = String::new();
        for (name, outcome) in &self.checks {
            let _ = match outcome {
                Ok(took) => writeln!(text, "  {name}: {:.1} s", took.as_secs_f64()),
                Err(why) => writeln!(text, "  {name}: FAILED: {why}"),
            };
        }
        text
    }

    /// Media that came to the client by UDP from this address.
    fn media_from(&self, address: &str) -> u64 {
        let address: Ipv4Addr = address.parse().expect("an address");
        self.counts.of(|from, to, protocol| from == address && to.to_string() == CLIENT && protocol == UDP)
    }
}

/// Every camera has one width, by either transport, and not all have the same.
fn same(widths: &[(&'static str, usize, Result<String, String>)]) -> Result<(), String> {
    let mut of_all = BTreeSet::new();
    for camera in 0..CAMERAS {
        let mut of_one = BTreeSet::new();
        for (transport, _, width) in widths.iter().filter(|(_, number, _)| *number == camera) {
            of_one.insert(width.as_ref().map_err(|why| format!("/cam{camera} by {transport}: {why}"))?);
        }
        if of_one.len() != 1 {
            return Err(format!("/cam{camera} came in widths {of_one:?}"));
        }
        of_all.extend(of_one);
    }
    if of_all.len() < 2 { Err(format!("all cameras have width {of_all:?}")) } else { Ok(()) }
}

/// All of them, relayed and by the director, and not one packet of media that does not come from the virtual address. An
/// origin cannot be reached at all. By the director not one datagram is read or sent by a process.
#[test]
fn behind_reeve_all_twelve_pass() {
    let _turn = among_others();
    let Some(farm) = Farm::new("media-twelve", Way::Barred) else { return };
    let origins = farm.origins(&[&[], &[], &[]]);
    let listeners = listener("media", 8554, "relay") + &listener("fast", 8564, "offload");
    let config = listeners + &pool("{ hash = \"path\" }", 3) + &farm.director();
    let reeve = with_director(farm.reeve(&config, RULES));
    let before = datagrams(&reeve);
    let relayed = Outcome::of(&farm, &format!("{VIP}:8554"), &origins);
    all_passed(&relayed);
    let between = datagrams(&reeve);
    let passed = |at: usize| between[at] - before[at];
    assert!(passed(0) > 300 && passed(1) > 300, "it is seen when they pass through Reeve: {before:?} {between:?}");
    assert_eq!(offloaded(&farm), 0.0);
    let said =
        |origins: &[Process]| origins.iter().map(|origin| origin.stdout().matches("recorded /rec").count()).sum();
    let (recorded, taken): (usize, _) = (said(&origins), entries(&farm));
    assert_eq!(taken, 0);

    let by_director = Outcome::of(&farm, &format!("{VIP}:8564"), &origins);
    all_passed(&by_director);
    assert_eq!(datagrams(&reeve), between, "no datagram was read or sent by a socket");
    assert!(said(&origins) >= recorded + 2 * 2, "pictures have come to the origins again: twenty by TCP, and by UDP");
    // An end shows before everything is counted, by a turn of the director's.
    until_within(Duration::from_secs(1), "no flow is left", || (entries(&farm) == 0).then_some(()));
    let (counted, came) = (offloaded(&farm), by_director.media_from(VIP) as f64);
    // A player that has ended does not see what was under way to it.
    assert!((counted - came).abs() <= 0.02 * came, "{counted} counted, {came} came");
}

/// Datagrams that processes of Reeve's network have read and sent since it began.
fn datagrams(reeve: &Process) -> [u64; 2] {
    let table = std::fs::read_to_string(format!("/proc/{}/net/snmp", reeve.id())).expect("the kernel's counters");
    let mut rows = table.lines().filter_map(|line| line.strip_prefix("Udp: ")).map(|row| row.split(' '));
    let (names, values) = (rows.next().expect("names"), rows.next().expect("values"));
    let all: Vec<_> = names.zip(values).collect();
    let value = |name| all.iter().find(|(own, _)| *own == name).and_then(|(_, value)| value.parse().ok());
    ["InDatagrams", "OutDatagrams"].map(|name| value(name).expect(name))
}

fn all_passed(outcome: &Outcome) {
    assert_eq!(outcome.failed(), [0; 0], "\n{}", outcome.report());
    let to_client = outcome.counts.of(|_, to, protocol| to.to_string() == CLIENT && protocol == UDP);
    assert!(to_client > 300, "{:?}", outcome.counts);
    assert_eq!(outcome.media_from(VIP), to_client, "{:?}", outcome.counts);
    let origin = |address: Ipv4Addr| ORIGINS.contains(&address.to_string().as_str());
    assert_eq!(outcome.counts.of(|from, to, _| origin(from) || origin(to)), 0, "{:?}", outcome.counts);
}

/// What the players do by themselves: a client that talks to an origin passes all but the check that is the farm's. Only
/// with `./check --long`.
#[test]
fn without_anything_between_eleven_pass() {
    if std::env::var_os("CHECK_LONG").is_none() {
        return;
    }
    let _turn = among_others();
    let Some(farm) = Farm::new("media-straight", Way::Open) else { return };
    let origins = farm.origins(&[&[]]);
    let outcome = Outcome::of(&farm, &format!("{}:8554", ORIGINS[0]), &origins);
    assert_eq!(outcome.failed(), [12], "\n{}", outcome.report());
    // And that the capture sees media that does not come from the virtual address.
    assert!(outcome.media_from(ORIGINS[0]) > 100 && outcome.media_from(VIP) == 0, "{:?}", outcome.counts);
}

/// That they can fail: what a balancer of TCP connections breaks. It takes as long as players are patient, so only with
/// `./check --long`.
#[test]
fn behind_a_balancer_of_connections_most_fail() {
    if std::env::var_os("CHECK_LONG").is_none() {
        return;
    }
    let _turn = among_others();
    let Some(farm) = Farm::new("media-tcp", Way::Barred) else { return };
    let origins = farm.origins(&[&[], &[], &[]]);
    let listener = format!("[listen.media]\naddress = [\"{VIP}:8554\"]\nprotocol = \"tcp\"\npool = \"media\"\n");
    let _reeve = farm.reeve(&(listener + &pool("\"rr\"", 3)), "");
    let outcome = Outcome::of(&farm, &format!("{VIP}:8554"), &origins);
    let mut failed = outcome.failed();
    // Its two connections meet at one origin in one of three cases.
    failed.retain(|number| *number != 5);
    assert_eq!(failed, [2, 3, 4, 6, 9, 11, 12], "\n{}", outcome.report());
}
