//! What a connection costs: memory, by the kernel's own figures, and time with few and with many.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use reeve::director::abi::{self, Back4, CONFIG_FLOWS, Conn, Flow, FlowKey, METHOD_NAT, SCHEDULER_RR, Tuple4};
use reeve::sys::bpf::Packet;

use super::wire::{ACK, SYN, TCP, UDP, tcp, udp};
use super::world::{World, at};

const MILLION: u32 = 1_000_000;

/// Prints what a connection of each kind takes, and holds IPv4 to 136 bytes (dr, tun) and 240 (nat).
#[test]
fn a_million_connections_fit_into_what_was_promised() {
    let sizes = ["conn4", "back4", "conn6", "back6"].map(|name| (name, 1 << 20));
    let Some(mut world) = World::sized(&sizes) else { return };
    let entry = |name: &str| world.map(name).memory().expect("fdinfo") as f64 / f64::from(1 << 20);
    let each = |entry: f64| format!("{entry:.1} B");
    let (dr4, nat4) = (entry("conn4"), entry("conn4") + entry("back4"));
    let (dr6, nat6) = (entry("conn6"), entry("conn6") + entry("back6"));
    println!(
        "director: a connection takes {} by dr and tun, {} by nat; of IPv6 {} and {}",
        each(dr4),
        each(nat4),
        each(dr6),
        each(nat6)
    );
    assert!(dr4 <= 136.0 && nat4 <= 240.0, "{dr4} {nat4}");
    assert!(dr6 <= 137.0, "{dr6}");

    let (client, vip, server) = (at("10.1.0.2:40000"), at("10.1.0.100:80"), at("10.2.0.11:8080"));
    let id = world.server(server, METHOD_NAT, 1);
    world.service(TCP, vip, SCHEDULER_RR, &[id], |_| {});
    world.forwarded(&tcp(client, vip, SYN));
    let packet = tcp(client, vip, ACK);
    let took = |world: &mut World| {
        let packet = Packet { interface: world.front, ..Packet::new(&packet) };
        // The best of some: others use this machine too.
        (0..200).map(|_| world.loaded.run("director_in", &packet).expect("a run").nanoseconds).min().expect("some")
    };
    fill(&world, vip, 0..1000);
    let few = took(&mut world);
    fill(&world, vip, 1000..MILLION);
    let many = took(&mut world);
    println!("director: a packet of a connection took {few} ns among 1,000 connections, {many} ns among 1,000,000");
    // One bucket has one entry or two, however many there are.
    assert!(many < few * 3 + 1000, "{few} ns, {many} ns");
    // And a new one among them.
    let newcomer = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 1, 0, 3)), 5);
    assert_eq!(world.forwarded(&tcp(newcomer, vip, SYN)).to, server);
}

/// Media that is offloaded costs what nat costs: one look-up, both ends rewritten, and out.
#[test]
fn a_packet_of_a_flow_costs_what_one_by_nat_does() {
    let Some(mut world) = World::new() else { return };
    let (client, vip, server) = (at("10.1.0.2:40000"), at("10.1.0.100:5000"), at("10.2.0.11:6000"));
    let id = world.server(server, METHOD_NAT, 1);
    world.service(UDP, vip, SCHEDULER_RR, &[id], |_| {});
    let (by_nat, of_a_flow) = (udp(client, vip, &[7; 1200]), udp(client, at("10.1.0.100:16384"), &[7; 1200]));
    let port = |at: SocketAddr| at.port().to_be_bytes();
    let address = |at: &str| abi::address(at.parse().expect("an address")).0;
    let key = FlowKey {
        source: address("10.1.0.2"),
        destination: address("10.1.0.100"),
        source_port: port(client),
        destination_port: 16384_u16.to_be_bytes(),
        protocol: UDP,
        family: abi::V4,
        ..FlowKey::default()
    };
    let flow = Flow {
        source: address("10.2.0.1"),
        destination: address("10.2.0.11"),
        source_port: 16384_u16.to_be_bytes(),
        destination_port: port(server),
        ..Flow::default()
    };
    world.map("flows").put_all(&[(key, flow)]).expect("room");
    world.configure(|config| config.flags = CONFIG_FLOWS);
    assert_eq!(world.forwarded(&by_nat).to, server);
    let out = world.forwarded(&of_a_flow);
    assert_eq!((out.from, out.to), (at("10.2.0.1:16384"), server));
    let mut took = |packet: &[u8]| {
        let packet = Packet { interface: world.front, ..Packet::new(packet) };
        // The best of many: others use this machine too.
        (0..1000).map(|_| world.loaded.run("director_in", &packet).expect("a run").nanoseconds).min().expect("some")
    };
    let (nat, flow) = (took(&by_nat), took(&of_a_flow));
    println!("director: a packet by nat took {nat} ns, one of an explicit flow {flow} ns");
    assert!(flow <= nat + nat / 5, "{flow} ns, not {nat}");
}

fn fill(world: &World, vip: SocketAddr, numbers: std::ops::Range<u32>) {
    let IpAddr::V4(vip_address) = vip.ip() else { panic!("IPv4") };
    let key = |number: u32, destination: Ipv4Addr, port: u16| Tuple4 {
        source: (0x0b00_0000 + number).to_be_bytes(),
        destination: destination.octets(),
        source_port: [4, 0],
        destination_port: port.to_be_bytes(),
        protocol: TCP,
        ..Tuple4::default()
    };
    let conn =
        Conn { timeout: abi::ticks(std::time::Duration::from_secs(900)), server: 1, state: 1, ..Conn::default() };
    let conns: Vec<_> = numbers.clone().map(|number| (key(number, vip_address, vip.port()), conn)).collect();
    world.map("conn4").put_all(&conns).expect("room");
    let back = Back4 { address: vip_address.octets(), port: vip.port().to_be_bytes(), ..Back4::default() };
    let backs: Vec<_> = numbers.map(|number| (key(number, Ipv4Addr::new(10, 2, 0, 11), 8080), back)).collect();
    world.map("back4").put_all(&backs).expect("room");
}
