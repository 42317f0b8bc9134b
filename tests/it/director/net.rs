//! Real connections through a real director, between namespaces: every method, both families, bulk with offloads on; and nobody
//! stops when the control plane does.

use std::net::{SocketAddr, UdpSocket};
use std::process::Command;

use reeve::director::abi::{self, METHOD_DR, METHOD_NAT, METHOD_TUN, REAL_ANY_DIRECTOR, RealServer, SCHEDULER_RR};
use reeve::sys::bpf::{Direction, Fault, Hook, Load, Loaded};

use crate::farm::reeve::program;

use super::lan::{Host, Lan, PATIENCE, Pins, connect, echo, echo_datagrams, exchange, set};
use super::wire::{TCP, UDP};
use super::world::{World, at};
use super::{PROGRAMS, load, object};
use crate::farm::until;

/// A service for each method, and both servers behind it: TCP and UDP at ports 80, 81, 82.
fn services(world: &mut World) {
    for (vip, servers, director) in [
        ("10.1.0.100", ["10.1.0.11", "10.1.0.12"], "10.1.0.1"),
        ("[2001:db8:1::100]", ["[2001:db8:1::11]", "[2001:db8:1::12]"], "[2001:db8:1::1]"),
    ] {
        for (method, port) in METHODS {
            for protocol in [TCP, UDP] {
                let ids = servers.map(|server| {
                    // nat to another port.
                    let own = if method == METHOD_NAT { 8080 } else { 0 };
                    let id = world.server(at(&format!("{server}:{own}")), method, 1);
                    let source = abi::address(at(&format!("{director}:0")).ip()).0;
                    world.change_server(id, |server| server.source = source);
                    id
                });
                world.service(protocol, at(&format!("{vip}:{port}")), SCHEDULER_RR, &ids, |_| {});
            }
        }
    }
}

const METHODS: [(u8, u16); 3] = [(METHOD_NAT, 80), (METHOD_DR, 81), (METHOD_TUN, 82)];
const VIPS: [&str; 2] = ["10.1.0.100", "[2001:db8:1::100]"];

/// Servers that send back what comes, and open tunnels.
fn serve(servers: &[Host]) {
    for (host, number) in servers.iter().zip(1..) {
        for port in [8080, 81, 82] {
            echo(host, port, number);
        }
        for (vip, own) in VIPS.into_iter().zip([format!("10.1.0.1{number}"), format!("[2001:db8:1::1{number}]")]) {
            echo_datagrams(host, at(&format!("{own}:8080")), number);
            for port in [81, 82] {
                echo_datagrams(host, at(&format!("{vip}:{port}")), number);
            }
        }
        host.does(|| {
            let mut real =
                Loaded::open(Load { object: &object(), pins: None, sizes: &[], programs: PROGRAMS }).expect("it");
            let config = RealServer { mss4: 1440, mss6: 1400, flags: REAL_ANY_DIRECTOR, ..RealServer::default() };
            real.map("real_server").expect("it").put(&0u32, &config).expect("it");
            real.attach("real_in", "eth", Direction::In).expect("a program at ingress");
            real.attach("real_out", "eth", Direction::Out).expect("a program at egress");
            // It goes with the namespace.
            std::mem::forget(real);
        });
    }
}

fn ask(host: &Host, to: SocketAddr, len: usize) -> u8 {
    host.does(move || {
        let socket = UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }).expect("a socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        socket.connect(to).expect("an address");
        socket.send(&vec![9; len]).expect("a datagram");
        let mut buffer = vec![0; len + 1];
        let came = socket.recv(&mut buffer).unwrap_or_else(|error| panic!("an answer of {to}: {error}"));
        assert_eq!((came, &buffer[1..]), (len + 1, &vec![9; len][..]));
        buffer[0]
    })
}

fn every_method(hook: Hook) {
    let Some(mut loaded) = load(PROGRAMS, &[]) else { return };
    if hook == Hook::Clsact {
        loaded.use_clsact();
    }
    let lan = Lan::new();
    loaded.attach("director_in", "eth", Direction::In).expect("a program at ingress");
    loaded.attach("director_out", "eth", Direction::Out).expect("a program at egress");
    let mut world = World::over(loaded, "eth");
    services(&mut world);
    serve(&lan.servers);
    for vip in VIPS {
        for (method, port) in METHODS {
            let to = at(&format!("{vip}:{port}"));
            // The newest first, then the other, each with more than one packet can carry.
            for expected in [2, 1] {
                let (stream, number) = connect(&lan.client, to).unwrap_or_else(|error| panic!("{to}: {error}"));
                assert_eq!(number, expected, "method {method} at {to}");
                exchange(&stream, 3 << 20);
            }
            assert_eq!([ask(&lan.client, to, 1000), ask(&lan.client, to, 1)], [2, 1], "{to}");
        }
        // Nothing listens at that port of the virtual address, and it is no service: the director's own stack says so.
        let refused = connect(&lan.client, at(&format!("{vip}:99"))).expect_err("nobody there");
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    }
    let all: u64 = (1..=24).map(|id| world.statistics(id).bytes_in).sum();
    assert!(all > 12 * (3 << 20), "{all} bytes were seen");
}

#[test]
fn every_method_carries_bulk_and_datagrams() {
    every_method(Hook::Tcx);
}

#[test]
fn clsact_does_where_there_are_no_links() {
    every_method(Hook::Clsact);
}

#[test]
fn clients_are_told_when_nobody_is_there_and_what_fits() {
    let Some(mut loaded) = load(PROGRAMS, &[]) else { return };
    let lan = Lan::new();
    loaded.attach("director_in", "eth", Direction::In).expect("a program at ingress");
    loaded.attach("director_out", "eth", Direction::Out).expect("a program at egress");
    let mut world = World::over(loaded, "eth");
    services(&mut world);
    serve(&lan.servers);
    for vip in VIPS {
        // No server at all: port unreachable, which a client's kernel believes only if every checksum is right.
        let nobody = at(&format!("{vip}:90"));
        world.service(TCP, nobody, SCHEDULER_RR, &[], |_| {});
        world.service(UDP, nobody, SCHEDULER_RR, &[], |_| {});
        let refused = connect(&lan.client, nobody).expect_err("nobody there");
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused, "{nobody}");
        // A server that does not listen: its own error, translated back.
        let closed = at(&format!("{vip}:91"));
        let server = at(&nobody.to_string().replace("100", "11").replace(":90", ":7"));
        let id = world.server(server, METHOD_NAT, 1);
        world.service(UDP, closed, SCHEDULER_RR, &[id], |_| {});
        for to in [nobody, closed] {
            let error = lan.client.does(move || {
                let socket = UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }).expect("a socket");
                socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
                socket.connect(to).expect("an address");
                socket.send(b"anybody?").expect("a datagram");
                socket.recv(&mut [0; 10]).expect_err("nobody there")
            });
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "{to}");
        }
        // A tunnel takes some of the path: a whole packet is too long, the client learns it and sends shorter ones.
        let tunnel = at(&format!("{vip}:82"));
        let text = lan.client.does(move || {
            let socket = UdpSocket::bind(if tunnel.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }).expect("a socket");
            socket.connect(tunnel).expect("an address");
            let most = if tunnel.is_ipv4() { 1472 } else { 1452 };
            until("the client's route knows", || {
                let _ = socket.send(&vec![1; most]);
                let shown = Command::new("ip").args(["route", "get", &tunnel.ip().to_string()]).output().expect("ip");
                let text = String::from_utf8_lossy(&shown.stdout).into_owned();
                text.contains(" mtu ").then_some(text)
            })
        });
        let fits = if tunnel.is_ipv4() { "mtu 1480" } else { "mtu 1460" };
        assert!(text.contains(fits), "{text}");
        assert!(world.counter("too-big") > 0);
    }
}

#[test]
fn connections_outlive_the_control_plane() {
    if load(&[], &[]).is_none() {
        return;
    }
    let pins = Pins::new("outlive");
    let open = || Loaded::open(Load { object: &object(), pins: Some(&pins.path), sizes: &[], programs: PROGRAMS });
    let lan = Lan::new();
    let mut loaded = open().expect("the object");
    let nowhere = loaded.attach("director_in", "eth7", Direction::In).expect_err("no such interface");
    assert!(matches!(nowhere, Fault::Interface { .. }) && nowhere.to_string().contains("eth7"), "{nowhere}");
    loaded.attach("director_in", "eth", Direction::In).expect("a program at ingress");
    let mut world = World::over(loaded, "eth");
    services(&mut world);
    serve(&lan.servers);
    let to = at("10.1.0.100:80");
    let (stream, _) = connect(&lan.client, to).expect("a connection");
    exchange(&stream, 1 << 16);

    // The process ends, as it may: what is pinned goes on, for old connections and new ones.
    drop(world);
    exchange(&stream, 1 << 20);
    let (other, _) = connect(&lan.client, to).expect("a connection without a control plane");
    exchange(&other, 1 << 16);

    // The next one takes over: its programs in the place of the old ones, on the same maps.
    let mut next = open().expect("the object again");
    assert_eq!(next.attached(), ["eth"]);
    next.attach("director_in", "eth", Direction::In).expect("the program exchanged");
    exchange(&stream, 1 << 20);
    exchange(&other, 1 << 16);
    let world = World::over(next, "eth");
    assert!(world.conn(TCP, stream.local_addr().expect("an address"), to).is_some());
    let mut next = world.loaded;
    assert!(next.detach("eth", Direction::In).expect("taken off"));
    assert!(!next.detach("eth", Direction::In).expect("nothing there"));
    assert!(next.attached().is_empty());
}

#[test]
fn clients_on_the_director_itself_are_served() {
    let Some(mut loaded) = load(PROGRAMS, &[]) else { return };
    let lan = Lan::new();
    // Replies come in by lo, from an address of this machine.
    set("ipv4/conf/lo/accept_local", "1");
    for interface in ["eth", "lo"] {
        loaded.attach("director_in", interface, Direction::In).expect("a program at ingress");
    }
    let mut world = World::over(loaded, "eth");
    services(&mut world);
    serve(&lan.servers);
    // The virtual address is not the servers' here: what they send to it has to come back.
    for (server, last) in lan.servers.iter().zip(["11", "12"]) {
        server.run("ip addr del 10.1.0.100/32 dev lo");
        server.run(&format!("ip route add 10.1.0.100 via 10.1.0.1 dev eth src 10.1.0.{last}"));
    }
    let stream = std::net::TcpStream::connect_timeout(&at("10.1.0.100:80"), PATIENCE).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut number = [0];
    std::io::Read::read_exact(&mut (&stream), &mut number).expect("a greeting");
    exchange(&stream, 1 << 20);
}

#[test]
fn a_real_server_is_made_by_one_command() {
    let Some(mut loaded) = load(PROGRAMS, &[]) else { return };
    let lan = Lan::new();
    loaded.attach("director_in", "eth", Direction::In).expect("a program at ingress");
    let mut world = World::over(loaded, "eth");
    let id = world.server(at("10.1.0.11:0"), METHOD_TUN, 1);
    world.change_server(id, |server| server.source = abi::address(at("10.1.0.1:0").ip()).0);
    world.service(TCP, at("10.1.0.100:82"), SCHEDULER_RR, &[id], |_| {});
    let pins = Pins::new("real");
    let folder = pins.path.display().to_string();
    let command = |words: &str| {
        let words = format!("real-server --interface eth --pins {folder} {words}");
        lan.servers[0].does(move || {
            let done = Command::new(program()).args(words.split_whitespace()).output().expect("reeve");
            (done.status.code(), String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned())
        })
    };
    echo(&lan.servers[0], 82, 1);
    let (code, text) = command("--director 10.1.0.1");
    assert_eq!((code, text.contains("tunnels of 10.1.0.1 are opened")), (Some(0), true), "{text}");
    let (stream, _) = connect(&lan.client, at("10.1.0.100:82")).expect("a connection");
    exchange(&stream, 1 << 20);
    // Said again, of another director: this one's tunnels are opened no more.
    assert_eq!(command("--director 10.1.0.7").0, Some(0));
    let refused = lan.client.does(|| std::net::TcpStream::connect_timeout(&at("10.1.0.100:82"), PATIENCE / 10).err());
    assert!(refused.is_some(), "a stranger's tunnel was opened");
    let (code, text) = command("--stop");
    assert_eq!((code, text.contains("opened no more")), (Some(0), true), "{text}");
    let (code, text) = command("--stop");
    assert_eq!((code, text.contains("no tunnels were opened")), (Some(0), true), "{text}");
    // Neither whose tunnels, nor that it is everybody's.
    assert_eq!(command("").0, Some(2));
}
