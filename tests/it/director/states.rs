//! The machine of TCP states, cell by cell, and what follows from a state: its timeout, what it counts as, how it ends.

use std::net::SocketAddr;
use std::time::Duration;

use reeve::director::abi::{
    self, CONN_INACTIVE, CONN_NO_OUTPUT, Conn, METHOD_DR, METHOD_NAT, ReapRequest, SCHEDULER_RR, Tuple4,
};
use zerocopy::IntoBytes;

use super::wire::{ACK, FIN, RST, SYN, TCP, UDP, tcp, udp};
use super::world::{OK, SHOT, World, at};

const NAMES: [&str; 11] = ["NO", "ES", "SS", "SR", "FW", "TW", "CL", "CW", "LA", "LI", "SA"];

/// ktcpvs-ipvs.md 2.6: from, then what SYN FIN ACK RST lead to: in, out, in only.
const PLAIN: &str = "
NO | SR CL ES CL | SS TW ES CL | SR CL ES CL
ES | ES CW ES CL | ES FW ES CL | ES FW ES CL
SS | ES SS SS CL | SS SS SS SS | ES SS SS CL
SR | SR TW ES SR | SR TW ES CL | SR TW ES SR
FW | SR TW FW CL | SS FW FW CL | SR FW FW CL
TW | SR TW TW CL | SS TW TW TW | SR TW TW CL
CL | SR CL CL CL | SS CL CL CL | SR CL CL CL
CW | SR CW CW CL | SS TW CW CL | SR CW CW CL
LA | SR LA CL LA | SS LA LA CL | SR LA CL LA
LI | SR LI LI LI | LI LI ES CL | SR LI LI LI
SA | SR TW ES SR | SR TW ES CL | SR TW ES SR";

const SECURE: &str = "
NO | SR CL ES CL | SS TW ES CL | SA CL ES CL
ES | ES CW ES CL | ES FW ES CL | ES FW ES CL
SS | ES SS SS CL | SS SS SS SS | ES SS SS CL
SR | SR TW SR SR | SA TW ES CL | SR TW ES SR
FW | SR TW FW CL | SS FW FW CL | SA FW FW CL
TW | SR TW TW CL | SS TW TW TW | SA TW TW CL
CL | SR CL CL CL | SS CL CL CL | SA CL CL CL
CW | SR CW CW CL | SS TW CW CL | SA CW CW CL
LA | SR LA CL LA | SS LA LA CL | SA LA CL LA
LI | SR LI LI LI | LI LI ES CL | SA LI LI LI
SA | SA SA SA CL | SA TW ES CL | SA SA SA CL";

fn state(name: &str) -> u8 {
    NAMES.iter().position(|known| *known == name).expect("a state") as u8
}

fn key(client: SocketAddr, vip: SocketAddr) -> Tuple4 {
    let (std::net::IpAddr::V4(from), std::net::IpAddr::V4(to)) = (client.ip(), vip.ip()) else { panic!("IPv4 only") };
    Tuple4 {
        source: from.octets(),
        destination: to.octets(),
        source_port: client.port().to_be_bytes(),
        destination_port: vip.port().to_be_bytes(),
        protocol: TCP,
        ..Tuple4::default()
    }
}

#[test]
fn every_transition_is_ipvss() {
    let Some(mut world) = World::new() else { return };
    let (client, server) = (at("10.1.0.2:40000"), at("10.2.0.11:80"));
    // A connection in reuse would be scheduled anew: here it must not.
    world.configure(|config| config.reuse_mode = 0);
    let nat_vip = at("10.1.0.100:80");
    let nat = world.server(server, METHOD_NAT, 1);
    world.service(TCP, nat_vip, SCHEDULER_RR, &[nat], |_| {});
    let dr_vip = at("10.1.0.101:80");
    let dr = world.server(at("10.2.0.12:0"), METHOD_DR, 1);
    world.service(TCP, dr_vip, SCHEDULER_RR, &[dr], |_| {});
    world.forwarded(&tcp(client, nat_vip, SYN));
    world.forwarded(&tcp(client, dr_vip, SYN));
    let template = |world: &World, vip| world.conn(TCP, client, vip).expect("a connection");
    let (nat_conn, dr_conn) = (template(&world, nat_vip), template(&world, dr_vip));
    assert_eq!(nat_conn.flags & CONN_NO_OUTPUT, 0);
    assert_ne!(dr_conn.flags & CONN_NO_OUTPUT, 0);

    let mut seen = 0;
    for (secure, table) in [(false, PLAIN), (true, SECURE)] {
        world.configure(|config| {
            config.flags = if secure { abi::CONFIG_SECURE_TCP } else { 0 };
        });
        for line in table.lines().skip(1) {
            let cells: Vec<&str> = line.split_whitespace().filter(|word| *word != "|").collect();
            let (from, cells) = cells.split_first().expect("a row");
            for (index, expected) in cells.iter().enumerate() {
                let flags = [SYN, FIN | ACK, ACK, RST | ACK][index % 4];
                let (vip, conn, packet) = match index / 4 {
                    0 => (nat_vip, nat_conn, tcp(client, nat_vip, flags)),
                    1 => (nat_vip, nat_conn, tcp(server, client, flags)),
                    _ => (dr_vip, dr_conn, tcp(client, dr_vip, flags)),
                };
                let was_active = [1, 2, 3, 10].contains(&state(from));
                let conn = Conn {
                    state: state(from),
                    flags: if was_active { conn.flags & !CONN_INACTIVE } else { conn.flags | CONN_INACTIVE },
                    ..conn
                };
                world.map("conn4").put(&key(client, vip), &conn).expect("a connection");
                let id = conn.server;
                let before = world.load_of(id);
                world.forwarded(&packet);
                let after = template(&world, vip);
                let what = format!("{from} by {flags:#x}, way {}, secure {secure}", index / 4);
                assert_eq!(NAMES[usize::from(after.state)], *expected, "{what}");
                assert_eq!(after.timeout, timeout(&world, after.state), "{what}");
                let is_active = [1, 2, 3, 10].contains(&after.state);
                assert_eq!(after.flags & CONN_INACTIVE == 0, is_active, "{what}");
                let moved = i32::from(is_active) - i32::from(was_active);
                let counts = world.load_of(id);
                assert_eq!(counts.0 as i32 - before.0 as i32, moved, "{what}");
                assert_eq!(counts.1 as i32 - before.1 as i32, -moved, "{what}");
                seen += 1;
            }
        }
    }
    assert_eq!(seen, 2 * 11 * 12);
    // No flag at all closes, from anywhere.
    world.forwarded(&tcp(client, nat_vip, 0));
    assert_eq!(template(&world, nat_vip).state, state("CL"));
}

fn timeout(world: &World, state: u8) -> u32 {
    let config: abi::Configuration = world.map("configuration").get(&0u32).expect("a look").expect("it");
    config.tcp[usize::from(state)]
}

/// Runs `reap` on keys; how many ended.
fn reap(world: &mut World, what: u32, keys: &[Tuple4]) -> u32 {
    let mut data = vec![0; 14];
    data.extend(ReapRequest { what, count: keys.len() as u32 }.as_bytes());
    data.extend(keys.as_bytes());
    world.loaded.run("reap", &reeve::sys::bpf::Packet::new(&data)).expect("a run").returned
}

/// Ends a connection.
pub fn force(world: &mut World, client: SocketAddr, vip: SocketAddr) {
    assert_eq!(reap(world, abi::REAP_CONN4 | abi::REAP_FORCE, &[key(client, vip)]), 1);
}

/// As if it had been silent for that long.
fn age(world: &World, client: SocketAddr, vip: SocketAddr, by: Duration) {
    age_of(world, client, vip, Duration::ZERO, by);
}

/// As if it were older by that, and silent for that long.
pub fn age_of(world: &World, client: SocketAddr, vip: SocketAddr, older: Duration, silent: Duration) {
    let mut conn = world.conn(TCP, client, vip).expect("a connection");
    conn.created = conn.created.wrapping_sub(abi::ticks(older));
    conn.last = conn.last.wrapping_sub(abi::ticks(silent));
    world.map("conn4").put(&key(client, vip), &conn).expect("a connection");
}

/// As if the connection, of either family, had been silent for longer than it may be.
pub fn silence(world: &World, client: SocketAddr, vip: SocketAddr) {
    let mut conn = world.conn(TCP, client, vip).expect("a connection");
    conn.last = conn.last.wrapping_sub(conn.timeout + 300);
    world.put_conn(TCP, client, vip, &conn);
}

#[test]
fn silence_ends_a_connection_swept_or_not() {
    let Some(mut world) = World::new() else { return };
    let (client, vip) = (at("10.1.0.2:40000"), at("10.1.0.100:80"));
    let (old, new) = (at("10.2.0.11:80"), at("10.2.0.12:80"));
    let ids = [old, new].map(|server| world.server(server, METHOD_NAT, 1));
    world.service(TCP, vip, SCHEDULER_RR, &[ids[1], ids[0]], |_| {});
    assert_eq!(world.forwarded(&tcp(client, vip, SYN)).to, old);
    world.forwarded(&tcp(client, vip, ACK));
    assert_eq!(world.load_of(ids[0]), (1, 0));

    // Not over its 900 seconds yet: it is not swept, and goes on.
    age(&world, client, vip, Duration::from_secs(890));
    assert_eq!(reap(&mut world, abi::REAP_CONN4, &[key(client, vip)]), 0);
    assert_eq!(world.forwarded(&tcp(client, vip, ACK)).to, old);

    // Over it: what opens nothing goes to the stack, from either end.
    age(&world, client, vip, Duration::from_secs(901));
    assert_eq!(world.show(&tcp(old, client, ACK)).returned, OK);
    assert_eq!(world.show(&tcp(client, vip, ACK)).returned, OK);
    assert_eq!((world.load_of(ids[0]), world.counter("deleted")), ((0, 0), 1));
    assert_eq!(world.forwarded(&tcp(client, vip, SYN)).to, new);
    assert_eq!(world.show(&tcp(old, client, ACK)).returned, OK, "the way back of the old one is gone");

    // Swept: counted down once, however often it is asked for.
    age(&world, client, vip, Duration::from_secs(100));
    let keys = [key(client, vip), key(client, vip), key(at("10.1.0.9:9"), vip)];
    assert_eq!(reap(&mut world, abi::REAP_CONN4, &keys), 1);
    assert_eq!((world.load_of(ids[1]), world.conn(TCP, client, vip)), ((0, 0), None));
    assert_eq!(world.counter("created"), 2);

    // By force.
    world.forwarded(&tcp(client, vip, SYN));
    assert_eq!(reap(&mut world, abi::REAP_CONN4 | abi::REAP_FORCE, &keys), 1);
    assert_eq!((world.counter("created"), world.counter("deleted")), (3, 3));
}

#[test]
fn what_an_end_missed_is_buried_when_its_time_is_over() {
    let Some(mut world) = World::new() else { return };
    let (client, vip, server) = (at("10.1.0.2:40000"), at("10.1.0.100:80"), at("10.2.0.11:80"));
    let other = at("10.1.0.101:80");
    let id = world.server(server, METHOD_NAT, 1);
    world.service(TCP, vip, SCHEDULER_RR, &[id], |_| {});
    world.service(TCP, other, SCHEDULER_RR, &[id], |_| {});
    world.forwarded(&tcp(client, vip, SYN));
    // As another CPU leaves it: marked as ended, and counted.
    let mut conn = world.conn(TCP, client, vip).expect("a connection");
    conn.flags |= 0x10;
    world.put_conn(TCP, client, vip, &conn);
    let before = (world.load_of(id), world.counter("deleted"));
    assert_eq!(world.show(&tcp(client, vip, SYN)).returned, SHOT, "being deleted, for all that is known");
    // Its way back is not another's to take until then.
    assert_eq!(world.show(&tcp(client, other, SYN)).returned, SHOT);
    assert_eq!(world.counter("clash"), 1);
    assert_eq!(reap(&mut world, abi::REAP_CONN4 | abi::REAP_FORCE, &[key(client, vip)]), 0);
    assert!(world.conn(TCP, client, vip).is_some());
    let made = world.counter("created") - world.counter("deleted");
    silence(&world, client, vip);
    assert_eq!(reap(&mut world, abi::REAP_CONN4, &[key(client, vip)]), 0);
    assert_eq!(world.conn(TCP, client, vip), None);
    assert_eq!((world.load_of(id), world.counter("created") - world.counter("deleted")), (before.0, made));
    // What is left of it is in nobody's way.
    assert_eq!(world.forwarded(&tcp(client, other, SYN)).to, server);
    let back = world.forwarded(&tcp(server, client, SYN | ACK));
    assert_eq!((back.from, back.to), (other, client));
}

#[test]
fn a_closed_connections_tuple_may_be_scheduled_anew() {
    let Some(mut world) = World::new() else { return };
    let (client, vip) = (at("10.1.0.2:40000"), at("10.1.0.100:80"));
    let servers = [at("10.2.0.11:80"), at("10.2.0.12:80")];
    let ids = servers.map(|server| world.server(server, METHOD_NAT, 1));
    world.service(TCP, vip, SCHEDULER_RR, &[ids[1], ids[0]], |_| {});
    assert_eq!(world.forwarded(&tcp(client, vip, SYN)).to, servers[0]);
    // Still opening: the SYN is a repetition.
    assert_eq!(world.forwarded(&tcp(client, vip, SYN)).to, servers[0]);
    // Reset by the server: CLOSE.
    world.forwarded(&tcp(servers[0], client, RST));
    assert_eq!(world.forwarded(&tcp(client, vip, SYN)).to, servers[1]);
    // Without conn_reuse_mode it stays where it was.
    world.forwarded(&tcp(servers[1], client, RST));
    world.configure(|config| config.reuse_mode = 0);
    assert_eq!(world.forwarded(&tcp(client, vip, SYN)).to, servers[1]);
    // A quiesced server keeps what it has, unless expire_nodest_conn.
    world.change_server(ids[1], |server| server.weight = 0);
    assert_eq!(world.forwarded(&tcp(client, vip, SYN)).to, servers[1]);
    world.configure(|config| config.flags |= abi::CONFIG_EXPIRE_NODEST);
    assert_eq!(world.forwarded(&tcp(client, vip, SYN)).to, servers[0]);
}

#[test]
fn udp_is_never_active_and_lives_from_packet_to_packet() {
    let Some(mut world) = World::new() else { return };
    let (client, vip, server) = (at("10.1.0.2:40000"), at("10.1.0.100:53"), at("10.2.0.11:53"));
    let id = world.server(server, METHOD_NAT, 1);
    world.service(UDP, vip, SCHEDULER_RR, &[id], |_| {});
    world.forwarded(&udp(client, vip, b"question"));
    world.forwarded(&udp(server, client, b"answer"));
    let conn = world.conn(UDP, client, vip).expect("a connection");
    assert_eq!((conn.state, conn.timeout), (0, abi::ticks(Duration::from_secs(300))));
    assert_eq!(world.load_of(id), (0, 1));
}
