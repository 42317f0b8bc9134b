//! Many clients of offloaded media, who come and go as they like: what is counted agrees, and nothing of them stays.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use socket2::{Domain, SockRef, Socket, Type};

use super::farms::udp_sockets;
use super::faults::Held;
use super::net::{Farm, ORIGINS, VIP, Way};
use super::offload::{entries, front, metrics, none_is_left, offloaded, sum};
use super::scripted::{BEFORE, Manner, Scripted, pattern};
use super::viewer::Viewer;
use crate::farm::process::Process;
use crate::farm::watch::until_within;
use crate::farm::{among_others, observe, until};

/// Addresses of clients: one may have 64 streams.
const ADDRESSES: usize = 10;

/// A server of the test's own, on the first host.
fn origin(farm: &Farm) -> Scripted {
    let manner = Manner { timeout: Some(2), ..Manner::default() };
    farm.origins[0].within(|| Scripted::at(&format!("{}:8554", ORIGINS[0]), manner))
}

fn more_addresses(farm: &Farm) {
    let lines: Vec<String> = (0..ADDRESSES).map(|at| format!("addr add {}/24 dev c0\n", address(at))).collect();
    farm.client.ip(&lines.concat());
}

fn address(at: usize) -> String {
    format!("10.77.1.{}", 20 + at % ADDRESSES)
}

/// A client with a connection and two ports.
struct Guest {
    viewer: Viewer,
    media: UdpSocket,
    _reports: UdpSocket,
    url: String,
    fields: String,
    stream: u64,
}

impl Guest {
    /// In the clients' network, which this thread is in.
    fn come(number: usize) -> Guest {
        let own: SocketAddr = format!("{}:0", address(number)).parse().expect("an address");
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.bind(&own.into()).expect("its address");
        let there: SocketAddr = format!("{VIP}:8554").parse().expect("an address");
        socket.connect(&there.into()).expect("the virtual address");
        let bind = || UdpSocket::bind(own).expect("a port");
        let (media, reports) = (bind(), bind());
        media.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        let port = |socket: &UdpSocket| socket.local_addr().expect("an address").port();
        let fields = format!("Transport: RTP/AVP;unicast;client_port={}-{}\r\n", port(&media), port(&reports));
        // Those that are multiples of eight have a frame that no packet can be.
        let stream = number as u64 * 2 + 1;
        let url = format!("rtsp://{VIP}:8554/s{stream}");
        Guest { viewer: Viewer::on(TcpStream::from(socket)), media, _reports: reports, url, fields, stream }
    }

    fn track(&self) -> String {
        format!("{}/track1", self.url)
    }

    /// Its stream, all of it, and of nobody else's a packet.
    fn hears_all(&self) {
        let wanted: BTreeSet<Vec<u8>> = (0..BEFORE).map(|number| pattern(self.stream, number)).collect();
        let (mut heard, mut packet) = (BTreeSet::new(), [0; 2000]);
        while heard.len() < BEFORE {
            let (count, from) = self.media.recv_from(&mut packet).expect("a packet");
            assert!(from.ip().to_string() == VIP && wanted.contains(&packet[..count]), "{}: {count} bytes", self.url);
            heard.insert(packet[..count].to_vec());
        }
    }

    /// As a process that is killed: nothing more is sent, and what comes is refused.
    fn die(self) {
        let _ = SockRef::from(&self.viewer.stream).set_linger(Some(Duration::ZERO));
    }
}

/// How a visit ends.
const FATES: u64 = 7;

/// What the visitors have seen.
#[derive(Default)]
struct Seen {
    /// Streams whose SETUP was answered.
    set_up: Mutex<BTreeSet<u64>>,
    played: AtomicUsize,
    sent: AtomicU64,
}

/// Comes, does what it is to do, and goes, somehow.
fn visit(number: usize, fate: u64, seen: &Seen) {
    let mut guest = Guest::come(number);
    let (track, url, fields) = (guest.track(), guest.url.clone(), guest.fields.clone());
    if fate == 0 {
        guest.viewer.send("SETUP", &track, &fields);
        return guest.die();
    }
    let told = guest.viewer.ask("SETUP", &track, &fields).good();
    seen.set_up.lock().expect("what was seen").insert(guest.stream);
    let session = told.session();
    if fate == 1 {
        return guest.die();
    }
    guest.viewer.ask("PLAY", &url, &session).good();
    guest.hears_all();
    seen.played.fetch_add(1, SeqCst);
    let transport = told.field("transport").expect("a transport");
    let port = transport.split("server_port=").nth(1).and_then(|rest| rest.split('-').next()?.parse().ok());
    let port: u16 = port.unwrap_or_else(|| panic!("no port: {transport}"));
    for _ in 0..3 {
        guest.media.send_to(b"\x80 a word of the client's", (VIP, port)).expect("it is sent");
        seen.sent.fetch_add(1, SeqCst);
    }
    match fate {
        2 | 3 => drop(guest.viewer.ask("TEARDOWN", &url, &session).good()),
        4 => guest.viewer.send("TEARDOWN", &url, &session),
        5 => {}
        _ => guest.die(),
    }
}

/// Lines of the log by path, and the bytes of media that all of them name.
fn logged(farm: &Farm) -> (BTreeMap<String, usize>, u64, u64) {
    let (mut lines, mut there, mut back) = (BTreeMap::new(), 0, 0);
    for line in farm.log() {
        // Who never plays has only named its track.
        let path = line["path"].as_str().unwrap_or_default().trim_end_matches("/track1");
        *lines.entry(path.to_owned()).or_default() += 1;
        there += line["bytes_in"].as_u64().unwrap_or(0);
        back += line["bytes_out"].as_u64().unwrap_or(0);
    }
    (lines, there, back)
}

fn nothing_is_left(farm: &Farm, reeve: &Process, ports: usize) {
    none_is_left(farm, 15);
    until("all ports are free", || (udp_sockets(reeve) == ports).then_some(()));
    let gone = |page: &str| {
        ["sessions", "streams", "kilobits"].iter().all(|name| sum(page, &format!("reeve_media_{name}{{"), "") == 0.0)
    };
    until("no session is left", || gone(&metrics(farm)).then_some(()));
}

#[test]
fn of_a_crowd_nothing_is_left() {
    let _turn = among_others();
    let Some(farm) = Farm::new("media-crowd", Way::Barred) else { return };
    let (visits, threads) = (500, 50);
    more_addresses(&farm);
    let origin = origin(&farm);
    let reeve = front(&farm, 1);
    let ports = udp_sockets(&reeve);
    let (seen, next, most) = (Seen::default(), AtomicUsize::new(0), AtomicUsize::new(0));
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                farm.client.within(|| {
                    loop {
                        let number = next.fetch_add(1, SeqCst);
                        if number >= visits {
                            return;
                        }
                        // Each fate comes about as often as any other.
                        let fate = ((number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) % FATES;
                        visit(number, fate, &seen);
                        most.fetch_max(entries(&farm), SeqCst);
                    }
                });
            });
        }
    });
    let came = began.elapsed();
    nothing_is_left(&farm, &reeve, ports);
    let page = metrics(&farm);
    let set_up = seen.set_up.lock().expect("what was seen");
    let (played, sent) = (seen.played.load(SeqCst), seen.sent.load(SeqCst));
    // A line for each session that a client has heard of, and never two.
    let lines = until("a line for each", || {
        let (lines, ..) = logged(&farm);
        set_up.iter().all(|stream| lines.contains_key(&format!("/s{stream}"))).then_some(lines)
    });
    assert!(lines.values().all(|count| *count == 1), "{lines:?}");
    let (_, there, back) = logged(&farm);
    let bytes = |way| sum(&page, "reeve_media_bytes_total{", way) as u64;
    assert_eq!((there, back), (bytes("to-server"), bytes("to-client")), "the log, and the metrics");
    // All that was heard went through the kernel, and no more than was sent.
    let (packets, asked) = (offloaded(&farm), origin.heard("PLAY").len());
    assert!(asked == played && packets == (played * BEFORE) as f64, "{packets} packets to {played} of {asked}");
    assert_eq!(sum(&page, "reeve_media_offloaded_packets_total{", "to-server"), sent as f64);
    assert_eq!(sum(&page, "reeve_media_packets_total{", "to-client"), packets, "none was relayed");
    until("the server has nobody left", || (origin.guests() == 0).then_some(()));
    eprintln!(
        "{visits} visits in {came:?}: {} set up, {played} played, {packets} packets there and {sent} back by the kernel; \
         at most {} flows",
        set_up.len(),
        most.load(SeqCst)
    );
}

/// More is asked of the director than waits for it.
#[test]
fn a_silent_director_is_asked_no_more_than_it_remembers() {
    let _turn = among_others();
    let Some(farm) = Farm::new("media-queue", Way::Barred) else { return };
    more_addresses(&farm);
    let _origin = origin(&farm);
    let reeve = front(&farm, 1);
    let ports = udp_sockets(&reeve);
    let held = Held::director(&reeve);
    // 60, of two commands each to take out what was never put in, besides those to put it in: 128 wait.
    let mut guests: Vec<Guest> = farm.client.within(|| (0..60).map(Guest::come).collect());
    for guest in &mut guests {
        let (track, fields) = (guest.track(), guest.fields.clone());
        guest.viewer.send("SETUP", &track, &fields);
    }
    let sessions: Vec<String> = guests.iter_mut().map(|guest| guest.viewer.told().good().session()).collect();
    for (guest, session) in guests.iter_mut().zip(&sessions) {
        let url = guest.url.clone();
        guest.viewer.send("TEARDOWN", &url, session);
    }
    for guest in &mut guests {
        guest.viewer.told().good();
    }
    until_within(Duration::from_secs(8), "their lines are in the log", || (logged(&farm).0.len() == 60).then_some(()));
    assert_eq!((udp_sockets(&reeve), entries(&farm)), (ports, 0));
    held.go_on();
    let mut most = 0;
    // The director looks every two seconds for what nobody takes out.
    observe(Duration::from_millis(2500), "the director is at work", || {
        most = most.max(entries(&farm));
        true
    });
    assert_eq!(entries(&farm), 0, "of at most {most}");
    nothing_is_left(&farm, &reeve, ports);
}

/// How long the workers of a process have run so far.
fn work(of: &Process) -> Duration {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", of.id())).expect("its threads").flatten();
    let ran = tasks.filter_map(|task| {
        let read = |name: &str| std::fs::read_to_string(task.path().join(name)).unwrap_or_default();
        let nanoseconds = || read("schedstat").split(' ').next().and_then(|time| time.parse::<u64>().ok());
        read("comm").starts_with("worker").then(|| nanoseconds().expect("nanoseconds"))
    });
    Duration::from_nanos(ran.sum())
}

/// What the kernel carries is no work for who has set it up.
#[test]
fn streams_that_the_kernel_carries_cost_nothing() {
    const STREAMS: usize = 600;
    let _turn = among_others();
    let Some(farm) = Farm::new("media-idle", Way::Barred) else { return };
    more_addresses(&farm);
    let _origin = origin(&farm);
    let reeve = front(&farm, 1);
    let during = || {
        let before = work(&reeve);
        observe(Duration::from_secs(2), "it is at work", || true);
        work(&reeve) - before
    };
    let alone = during();
    let _guests: Vec<Guest> = farm.client.within(|| {
        let guest = |number| {
            let mut guest = Guest::come(number);
            let (track, fields) = (guest.track(), guest.fields.clone());
            guest.viewer.ask("SETUP", &track, &fields).good();
            guest
        };
        (0..STREAMS).map(guest).collect()
    });
    assert_eq!(entries(&farm), 4 * STREAMS);
    // Two looks a second at each would nearly double it. A window in which the machine did other things says nothing.
    let mut with = Vec::new();
    while with.iter().all(|with| *with > alone * 7 / 5) {
        assert!(with.len() < 5, "in two seconds {alone:?} without, {with:?} with {STREAMS} streams");
        with.push(during());
    }
}
