//! Media by the director: what goes through the kernel, what does not, and that no flow stays behind.

use std::io::Read;
use std::net::TcpStream;
use std::time::Duration;

use aya::maps::{HashMap, Map, MapData};
use reeve::director::abi::{Flow, FlowKey};
use rustix::process::Signal;
use zerocopy::FromBytes;

use super::farms::{Watch, viewer};
use super::net::{Farm, ORIGINS, RULES, VIP, Way, listener, pool, with_director};
use super::scripted::{BEFORE, Manner, Scripted};
use super::viewer::Viewer;
use crate::farm::process::{Process, Successor};
use crate::farm::watch::until_within;
use crate::farm::{among_others, until};

pub const URL: &str = "rtsp://10.77.1.100:8554/vod";
pub const KEY: usize = size_of::<FlowKey>();
pub const VALUE: usize = size_of::<Flow>();

/// The kernel's table of media flows.
pub fn table(farm: &Farm) -> HashMap<MapData, [u8; KEY], [u8; VALUE]> {
    let pinned = MapData::from_pin(farm.pins.join("maps/flows")).expect("the table");
    HashMap::try_from(Map::HashMap(pinned)).expect("its types")
}

/// The flows of media in it.
fn flows(farm: &Farm) -> Vec<(FlowKey, Flow)> {
    let entry = |(key, value): ([u8; KEY], [u8; VALUE])| {
        (FlowKey::read_from_bytes(&key).expect("a key"), Flow::read_from_bytes(&value).expect("a value"))
    };
    table(farm).iter().flatten().map(entry).collect()
}

pub fn entries(farm: &Farm) -> usize {
    flows(farm).len()
}

pub fn metrics(farm: &Farm) -> String {
    let mut stream = farm.director.within(|| TcpStream::connect("127.0.0.1:9901")).expect("the metrics page");
    let mut page = String::new();
    std::io::Write::write_all(&mut stream, b"GET /metrics HTTP/1.0\r\n\r\n").expect("a request is sent");
    stream.read_to_string(&mut page).expect("a page");
    page
}

/// What all lines add up to that begin so and have this in them.
pub fn sum(page: &str, name: &str, label: &str) -> f64 {
    let lines = page.lines().filter(|line| line.starts_with(name) && line.contains(label));
    lines.map(|line| line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok()).expect("a number")).sum()
}

/// Packets that the director has passed on to clients, as Reeve counts them.
pub fn offloaded(farm: &Farm) -> f64 {
    sum(&metrics(farm), "reeve_media_offloaded_packets_total{", "to-client")
}

pub fn relayed(farm: &Farm) -> f64 {
    let page = metrics(farm);
    let of = |name| sum(&page, name, "to-client");
    of("reeve_media_packets_total{") - of("reeve_media_offloaded_packets_total{")
}

/// Reeve before so many origins.
pub fn front(farm: &Farm, origins: usize) -> Process {
    let check = "check = { rtsp = \"OPTIONS\", interval = \"200ms\", timeout = \"200ms\", rise = 1, fall = 1 }\n";
    let config = listener("media", 8554, "offload") + &pool("\"rr\"", origins) + check + &farm.director();
    with_director(farm.reeve(&(config + "[timeouts]\ndrain = \"1s\"\n"), RULES))
}

/// Has a stream play, all of it in the kernel; the line that names its session.
pub fn plays(farm: &Farm, viewer: &mut Viewer, watch: &Watch) -> String {
    let session = viewer.ask("SETUP", &format!("{URL}/stream=0"), &watch.fields).good().session();
    // They are there before the answer.
    assert_eq!(entries(farm), 4);
    viewer.ask("PLAY", URL, &session).good();
    watch.media_comes();
    session
}

pub fn none_is_left(farm: &Farm, within: u64) {
    until_within(Duration::from_secs(within), "no flow is left", || (entries(farm) == 0).then_some(()));
}

#[test]
fn no_flow_outlives_what_it_was_for() {
    let _turn = among_others();
    let Some(farm) = Farm::new("media-flows", Way::Barred) else { return };
    let options: &[&str] = &["--timeout", "2"];
    let mut origins = farm.origins(&[options, options]);
    let mut reeve = front(&farm, 2);
    let watch = Watch::new(&farm.client);

    // Whoever takes leave. What it had is in the log.
    let mut one = viewer(&farm);
    let session = plays(&farm, &mut one, &watch);
    one.ask("TEARDOWN", URL, &session).good();
    none_is_left(&farm, 1);
    watch.media_ends();
    let played = || farm.log().into_iter().find(|line| line["method"] == "PLAY");
    let bytes = until("the session's line", || played()?["bytes_out"].as_u64());
    assert!(bytes > 5000, "{bytes} bytes of media");
    let page = metrics(&farm);
    assert_eq!(sum(&page, "reeve_media_bytes_total{", "to-client") as u64, bytes);
    assert_eq!(relayed(&farm), 0.0);

    // Whoever is gone without a word: three seconds without a sign of life.
    let mut two = viewer(&farm);
    plays(&farm, &mut two, &watch);
    drop(two);
    none_is_left(&farm, 10);
    watch.media_ends();

    // A server that is gone.
    let mut three = viewer(&farm);
    let count = |origin: &Process| origin.stdout().matches("PLAY /vod").count();
    let before: Vec<usize> = origins.iter().map(count).collect();
    plays(&farm, &mut three, &watch);
    let at =
        origins.iter().zip(before).position(|(origin, before)| count(origin) > before).expect("it plays somewhere");
    origins[at].kill();
    assert!(three.closed());
    none_is_left(&farm, 2);
    watch.media_ends();

    // Reeve itself: while nobody runs they stay, and the next one takes them out.
    let mut four = viewer(&farm);
    until("the other one is asked", || {
        let told = four.ask("DESCRIBE", URL, "");
        if told.status() != 200 {
            four = viewer(&farm);
        }
        (told.status() == 200).then_some(())
    });
    plays(&farm, &mut four, &watch);
    reeve.kill();
    assert_eq!(entries(&farm), 4);
    let mut reeve = front(&farm, 2);
    none_is_left(&farm, 3);
    watch.media_ends();

    // And it leaves none when it ends.
    let mut five = viewer(&farm);
    plays(&farm, &mut five, &watch);
    reeve.signal(Signal::TERM);
    reeve.exit(Duration::from_secs(10));
    none_is_left(&farm, 1);
}

/// What went by another connection than the one that began the session, and ends it, is in the session's line all the same.
#[test]
fn a_line_has_what_all_connections_had() {
    let _turn = among_others();
    let Some(farm) = Farm::new("media-apart", Way::Barred) else { return };
    let manner = Manner { session: Some("4711;timeout=60"), ..Manner::default() };
    let _origin = farm.origins[0].within(|| Scripted::at(&format!("{}:8554", ORIGINS[0]), manner));
    let _reeve = front(&farm, 1);
    let (watch, url) = (Watch::new(&farm.client), URL.replace("vod", "s1"));
    let (mut first, mut second) = (viewer(&farm), viewer(&farm));
    let between = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n";
    let session = first.ask("SETUP", &format!("{url}/track1"), between).good().session();
    second.ask("SETUP", &format!("{url}/track2"), &(session.clone() + &watch.fields)).good();
    assert_eq!(entries(&farm), 4);
    second.ask("PLAY", &url, &session).good();
    let mut heard = 0;
    until("all is heard", || {
        heard += watch.packets();
        (heard == BEFORE).then_some(())
    });
    first.ask("TEARDOWN", &url, &session).good();
    let line = until("the session's line", || farm.log().into_iter().next());
    // The kernel counts headers too.
    assert!(line["bytes_out"].as_u64() > Some(28 * BEFORE as u64), "{line}");
    let page = metrics(&farm);
    assert_eq!(line["bytes_out"].as_u64(), Some(sum(&page, "reeve_media_bytes_total{", "to-client") as u64), "{line}");
    none_is_left(&farm, 1);
}

/// A client behind NAT, whose packets come from another port than it said; a server that sends from another address than it
/// was spoken to. The first packets show it, and the next ones go through the kernel.
#[test]
fn who_is_elsewhere_is_found_there() {
    let _turn = among_others();
    let Some(farm) = Farm::new("media-nat", Way::Barred) else { return };
    // By its routes the first origin sends from its second address.
    farm.origins[0].ip("addr add 10.77.2.21/24 dev eth0\nroute replace 10.77.2.0/24 dev eth0 src 10.77.2.21\n");
    let _origins = farm.origins(&[&[]]);
    let _reeve = front(&farm, 1);
    let mut watch = Watch::new(&farm.client);
    watch.fields = watch.fields.replace("40000-40001", "41000-41001");
    let mut one = viewer(&farm);
    let told = one.ask("SETUP", &format!("{URL}/stream=0"), &watch.fields).good();
    let session = told.session();
    let transport = told.field("transport").expect("a transport");
    let port = transport.split("server_port=").nth(1).and_then(|rest| rest.split('-').next()?.parse().ok());
    let port: u16 = port.unwrap_or_else(|| panic!("no port: {transport}"));
    // What NAT makes of the packet that opens it.
    watch.media.send_to(b"\x80", (VIP, port)).expect("it is sent");
    one.ask("PLAY", URL, &session).good();
    watch.media_comes();
    let is = |from: [u8; 4], at: u16, (key, _): &(FlowKey, Flow)| {
        key.source[..4] == from && (at == 0 || key.source_port == at.to_be_bytes())
    };
    until("the flows are those of the ends", || {
        let all = flows(&farm);
        let has = |from, at| all.iter().any(|flow| is(from, at, flow));
        (has([10, 77, 1, 2], 40_000) && has([10, 77, 2, 21], 0)).then_some(())
    });
    let before = (relayed(&farm), offloaded(&farm));
    for _ in 0..3 {
        watch.media_comes();
    }
    until("the director has passed it on", || (offloaded(&farm) > before.1 + 20.0).then_some(()));
    assert!(before.0 > 0.0 && relayed(&farm) < before.0 + 5.0, "{before:?}, then {} were relayed", relayed(&farm));
    assert_eq!(sum(&metrics(&farm), "reeve_media_streams{", "offloaded"), 1.0);
    // What shows itself later is somebody else.
    let other = farm.client.within(|| std::net::UdpSocket::bind((super::net::CLIENT, 0))).expect("a port");
    other.send_to(b"\x80", (VIP, port)).expect("it is sent");
    for _ in 0..3 {
        watch.media_comes();
    }
    one.ask("TEARDOWN", URL, &session).good();
    none_is_left(&farm, 1);
}

/// A reload may take the director away and bring it back, and another process take it over: what plays goes on.
#[test]
fn what_plays_goes_on_without_it() {
    let _turn = among_others();
    let Some(farm) = Farm::new("media-reload", Way::Barred) else { return };
    let _origins = farm.origins(&[&[]]);
    let with = listener("media", 8554, "offload") + &pool("\"rr\"", 1) + &farm.director();
    let without = listener("media", 8554, "relay") + &pool("\"rr\"", 1);
    let _reeve = with_director(farm.reeve(&with, RULES));
    let watch = Watch::new(&farm.client);
    let mut one = viewer(&farm);
    let session = plays(&farm, &mut one, &watch);
    until("the director has passed it on", || (offloaded(&farm) > 5.0).then_some(()));
    assert_eq!(relayed(&farm), 0.0);
    farm.texts(&without, RULES);
    farm.order(&["reload"]);
    until("it is relayed", || (relayed(&farm) > 5.0).then_some(()));
    watch.media_comes();
    farm.texts(&with, RULES);
    farm.order(&["reload"]);
    let before = offloaded(&farm);
    until("the director passes it on again", || (offloaded(&farm) > before + 5.0).then_some(()));
    assert_eq!(entries(&farm), 4);
    // The process before keeps the client, and the next one the director.
    let _next = Successor::of(&farm.order(&["upgrade", "--format", "json"]));
    none_is_left(&farm, 3);
    watch.packets();
    watch.media_comes();
    one.ask("TEARDOWN", URL, &session).good();
    watch.media_ends();
}

/// Without a director media is relayed, and it is said why, once.
#[test]
fn without_a_director_it_is_relayed() {
    let _turn = among_others();
    let Some(farm) = Farm::new("media-closed", Way::Barred) else { return };
    let _origins = farm.origins(&[&[]]);
    // A folder with something in it cannot be one of bpf's.
    let pins = farm.folder.write("pins/something", "").parent().expect("a folder").display().to_string();
    let director = farm.director().replace(&farm.pins.display().to_string(), &pins);
    let reeve = farm.reeve(&(listener("media", 8554, "offload") + &pool("\"rr\"", 1) + &director), RULES);
    let watch = Watch::new(&farm.client);
    let mut one = viewer(&farm);
    for _ in 0..2 {
        let session = one.ask("SETUP", &format!("{URL}/stream=0"), &watch.fields).good().session();
        one.ask("PLAY", URL, &session).good();
        watch.media_comes();
        assert_eq!(sum(&metrics(&farm), "reeve_media_streams{", "relayed"), 1.0);
        one.ask("TEARDOWN", URL, &session).good();
        watch.media_ends();
    }
    assert!(relayed(&farm) > 20.0 && offloaded(&farm) == 0.0);
    let said = reeve.stderr();
    assert_eq!(said.matches("media is relayed, not offloaded").count(), 1, "{said}");
}

/// The same over IPv6; where the client's side is IPv6 and the server's is not, it is relayed.
#[test]
fn ipv6_goes_the_same_way() {
    const HERE: &str = "fd77:1::100";
    let _turn = among_others();
    let Some(farm) = Farm::new("media-ipv6", Way::Barred) else { return };
    let add = |address: &str, device: &str| format!("addr add {address} dev {device} nodad\n");
    farm.director.ip(&(add("fd77:1::1/64", "c0") + &add("fd77:1::100/128", "c0") + &add("fd77:2::1/64", "br0")));
    farm.director.within(|| std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1")).expect("forwarding");
    farm.client.ip(&(add("fd77:1::2/64", "c0") + "route add ::/0 via fd77:1::1\n"));
    farm.origins[0].ip(&(add("fd77:2::11/64", "eth0") + "route add ::/0 via fd77:2::1\n"));
    let _origins = farm.origins(&[&["--address", "::"]]);
    let mut config = listener("media", 8554, "offload") + &listener("mixed", 8564, "offload");
    config = config.replace(&format!("\"{VIP}:8564\""), "\"[fd77:1::100]:8564\"");
    config += &listener("six", 8574, "offload").replace(&format!("\"{VIP}:8574\""), "\"[fd77:1::100]:8574\"");
    let six = "[pool.six]\nservers = [\"[fd77:2::11]:8554\"]\n";
    let rules = "rtsp *\n  six : listener six  use six\n  all : any  use media\n";
    let _reeve = with_director(farm.reeve(&(config + &pool("\"rr\"", 1) + six + &farm.director()), rules));
    for (port, in_the_kernel) in [(8564, 0), (8574, 4)] {
        let watch = Watch::of(&farm.client, "fd77:1::2", HERE);
        let mut one = Viewer::on(farm.client.within(|| TcpStream::connect((HERE, port))).expect("the virtual address"));
        let url = format!("rtsp://[{HERE}]:{port}/vod");
        let session = one.ask("SETUP", &format!("{url}/stream=0"), &watch.fields).good().session();
        assert_eq!(entries(&farm), in_the_kernel, "{url}");
        one.ask("PLAY", &url, &session).good();
        watch.media_comes();
        one.ask("TEARDOWN", &url, &session).good();
        none_is_left(&farm, 1);
        let (relayed, offloaded) = (relayed(&farm), offloaded(&farm));
        assert!(relayed > 10.0 && (offloaded > 10.0) == (in_the_kernel > 0), "{url}: {relayed}, {offloaded}");
    }
}
