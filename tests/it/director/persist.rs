//! Persistence by templates, services by mark and of all ports, one-packet scheduling, explicit flows.

use std::net::SocketAddr;
use std::time::Duration;

use reeve::director::abi::{
    self, Answer, AnswerKey, CONFIG_ANSWERS, CONFIG_EXPIRE_QUIESCENT, CONFIG_FLOWS, CONFIG_MARKS, CONFIG_PORT_ZERO,
    CONTROL_ASSURED, Flow, FlowKey, Load, METHOD_DR, METHOD_NAT, SCHEDULER_RR, SERVER_LEFT, SERVICE_ONE_PACKET,
    ServiceKey, TEMPLATE_ASSURED, Template, TemplateKey,
};
use reeve::sys::bpf::Packet;
use zerocopy::IntoBytes;

use super::wire::{self, ACK, L3, SYN, TCP, UDP, tcp, udp};
use super::world::{OK, REDIRECT, World, at};

const MASK24: abi::Address = [255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn templates(world: &World) -> Vec<(TemplateKey, Template)> {
    let mut all = Vec::new();
    let keep = |key: &TemplateKey, value: &Template| {
        all.push((*key, *value));
        true
    };
    world.map("templates").walk(keep).expect("a walk");
    all
}

fn persistent(world: &World, server: u32) -> u32 {
    world.map("loads").get::<_, Load>(&server).expect("a look").expect("a load").persistent
}

fn reap(world: &mut World, what: u32, keys: &[TemplateKey]) -> u32 {
    let mut data = vec![0; L3];
    data.extend(abi::ReapRequest { what, count: keys.len() as u32 }.as_bytes());
    data.extend(keys.as_bytes());
    world.loaded.run("reap", &Packet::new(&data)).expect("a run").returned
}

#[test]
fn a_network_stays_with_its_server() {
    let Some(mut world) = World::new() else { return };
    let vip = at("10.1.0.100:80");
    let servers = [at("10.2.0.11:8080"), at("10.2.0.12:8080")];
    let ids = servers.map(|server| world.server(server, METHOD_NAT, 1));
    world.service(TCP, vip, SCHEDULER_RR, &[ids[1], ids[0]], |put| {
        put.value.persistence = abi::ticks(Duration::from_secs(100));
        put.value.netmask = MASK24;
    });
    // One of the network, then others of it, then another network.
    for (client, server) in
        [("10.1.0.2:1", 0), ("10.1.0.3:1", 0), ("10.1.0.2:2", 0), ("10.1.7.2:1", 1), ("10.1.7.9:1", 1)]
    {
        assert_eq!(world.forwarded(&tcp(at(client), vip, SYN)).to, servers[server], "{client}");
    }
    let all = templates(&world);
    assert_eq!(all.len(), 2);
    assert_eq!((persistent(&world, ids[0]), persistent(&world, ids[1])), (1, 1));
    let (key, template) = *all.iter().find(|(_, template)| template.server == ids[0]).expect("the first one's");
    assert_eq!((&key.client[..4], key.port, key.protocol), (&[10, 1, 0, 0][..], vip.port().to_be_bytes(), TCP));
    let control = |world: &World| world.map("controls").get::<_, u32>(&template.control).expect("a look").expect("it");
    assert_eq!(control(&world), 3);

    // One is established: the template is assured, at the next look by its own flag too.
    world.forwarded(&tcp(at("10.1.0.2:1"), vip, ACK));
    assert_eq!(control(&world), 3 | CONTROL_ASSURED);
    world.forwarded(&tcp(at("10.1.0.2:3"), vip, SYN));
    assert_eq!(templates(&world).iter().filter(|(_, t)| t.flags == TEMPLATE_ASSURED).count(), 1);

    // Quiesced: still honoured, unless expire_quiescent_template.
    world.change_server(ids[0], |server| server.weight = 0);
    assert_eq!(world.forwarded(&tcp(at("10.1.0.2:4"), vip, SYN)).to, servers[0]);
    world.configure(|config| config.flags |= CONFIG_EXPIRE_QUIESCENT);
    assert_eq!(world.forwarded(&tcp(at("10.1.0.2:5"), vip, SYN)).to, servers[1]);
    assert_eq!((persistent(&world, ids[0]), persistent(&world, ids[1])), (0, 2));
}

#[test]
fn a_server_that_was_taken_out_keeps_its_connections_and_no_clients() {
    let Some(mut world) = World::new() else { return };
    let vip = at("10.1.0.100:80");
    let servers = [at("10.2.0.11:8080"), at("10.2.0.12:8080")];
    let ids = servers.map(|server| world.server(server, METHOD_NAT, 1));
    world.service(TCP, vip, SCHEDULER_RR, &[ids[1], ids[0]], |put| {
        put.value.persistence = abi::ticks(Duration::from_secs(100));
        put.value.netmask = MASK24;
    });
    assert_eq!(world.forwarded(&tcp(at("10.1.0.2:1"), vip, SYN)).to, servers[0]);
    world.change_server(ids[0], |server| (server.weight, server.flags) = (0, SERVER_LEFT));
    assert_eq!(world.forwarded(&tcp(at("10.1.0.2:1"), vip, ACK)).to, servers[0]);
    assert_eq!(world.forwarded(&tcp(at("10.1.0.2:2"), vip, SYN)).to, servers[1]);
    assert_eq!((persistent(&world, ids[0]), persistent(&world, ids[1])), (0, 1));
}

#[test]
fn a_template_outlives_its_time_while_connections_of_it_live() {
    let Some(mut world) = World::new() else { return };
    let (vip, client) = (at("10.1.0.100:80"), at("10.1.0.2:1"));
    let servers = [at("10.2.0.11:8080"), at("10.2.0.12:8080")];
    let ids = servers.map(|server| world.server(server, METHOD_NAT, 1));
    world.service(TCP, vip, SCHEDULER_RR, &[ids[1], ids[0]], |put| {
        put.value.persistence = abi::ticks(Duration::from_secs(100));
        put.value.netmask = [255; 16];
    });
    world.forwarded(&tcp(client, vip, SYN));
    let (key, mut template) = templates(&world)[0];
    template.last = template.last.wrapping_sub(abi::ticks(Duration::from_secs(101)));
    world.map("templates").put(&key, &template).expect("it");
    // Idle, but its connection lives: a minute more.
    assert_eq!(reap(&mut world, abi::REAP_TEMPLATES, &[key]), 0);
    let (_, longer) = templates(&world)[0];
    let more = longer.last.wrapping_sub(template.last);
    assert!((14300..14600).contains(&(more as i32)), "{more}");
    // The connection ends: nothing holds it.
    super::states::force(&mut world, client, vip);
    world.map("templates").put(&key, &template).expect("it");
    assert_eq!(world.forwarded(&tcp(client, vip, SYN)).to, servers[1], "over its time, it is absent");
    super::states::force(&mut world, client, vip);
    let (key, mut template) = templates(&world)[0];
    template.last = template.last.wrapping_sub(abi::ticks(Duration::from_secs(101)));
    world.map("templates").put(&key, &template).expect("it");
    assert_eq!(reap(&mut world, abi::REAP_TEMPLATES, &[key, key]), 1);
    assert_eq!((templates(&world).len(), persistent(&world, ids[0]), persistent(&world, ids[1])), (0, 0, 0));
    // One that is marked as ended was counted then: it is nobody's, and goes when its time is over.
    template.flags = 1 << 31;
    world.map("templates").put(&key, &template).expect("it");
    let young = Template { last: template.last.wrapping_add(abi::ticks(Duration::from_secs(101))), ..template };
    world.map("templates").put(&key, &young).expect("it");
    assert_eq!(world.forwarded(&tcp(client, vip, SYN)).to, servers[0], "the next one's turn");
    assert_eq!(reap(&mut world, abi::REAP_TEMPLATES | abi::REAP_FORCE, &[key]), 0);
    assert_eq!(templates(&world).len(), 1);
    world.map("templates").put(&key, &template).expect("it");
    assert_eq!(reap(&mut world, abi::REAP_TEMPLATES, &[key]), 0);
    assert_eq!((templates(&world).len(), persistent(&world, ids[0]), persistent(&world, ids[1])), (0, 0, 0));
}

#[test]
fn a_mark_and_a_service_of_all_ports_take_what_they_are_for() {
    let Some(mut world) = World::new() else { return };
    world.configure(|config| config.flags = CONFIG_MARKS | CONFIG_PORT_ZERO);
    let vip = at("10.1.0.100:0");
    // All ports: each is kept, whatever the server's.
    let id = world.server(at("10.2.0.11:0"), METHOD_NAT, 1);
    world.service(TCP, vip, SCHEDULER_RR, &[id], |put| {
        put.value.persistence = 1000;
        put.value.netmask = [255; 16];
    });
    for port in [80, 443] {
        let there = world.forwarded(&tcp(at("10.1.0.2:1"), SocketAddr::new(vip.ip(), port), SYN));
        assert_eq!(there.to, SocketAddr::new("10.2.0.11".parse().expect("an address"), port));
    }
    assert_eq!(templates(&world).len(), 1);
    assert_eq!(templates(&world)[0].0.port, [0, 0]);

    // A mark comes first, and takes any address and port.
    let marked = world.server(at("10.2.0.12:0"), METHOD_DR, 1);
    world.service(TCP, at("0.0.0.0:0"), SCHEDULER_RR, &[marked], |put| {
        put.key = ServiceKey { mark: 7, family: abi::V4, ..ServiceKey::default() };
        put.value.persistence = 1000;
        put.value.netmask = [255; 16];
    });
    let client = at("10.1.0.2:5");
    for (to, frame) in [
        (at("10.1.0.100:80"), tcp(client, at("10.1.0.100:80"), SYN)),
        (at("10.1.0.77:53"), udp(client, at("10.1.0.77:53"), b"x")),
    ] {
        let packet = Packet { mark: 7, interface: world.front, ..Packet::new(&frame) };
        let ran = world.loaded.run("director_in", &packet).expect("a run");
        assert_eq!((ran.returned, wire::read(&ran.data[L3..]).to), (REDIRECT, to));
    }
    // Another mark is none.
    let frame = udp(client, at("10.1.0.77:54"), b"x");
    let packet = Packet { mark: 8, interface: world.front, ..Packet::new(&frame) };
    assert_eq!(world.loaded.run("director_in", &packet).expect("a run").returned, OK);
    let of_mark: Vec<_> = templates(&world).into_iter().filter(|(key, _)| key.mark == 7).collect();
    assert_eq!((of_mark.len(), of_mark[0].0.protocol, of_mark[0].1.server), (1, 0, marked));
}

#[test]
fn one_packet_services_schedule_each_and_keep_nothing() {
    let Some(mut world) = World::new() else { return };
    world.configure(|config| config.flags = CONFIG_ANSWERS);
    let (vip, client) = (at("10.1.0.100:53"), at("10.1.0.2:40000"));
    let servers = [at("10.2.0.11:5353"), at("10.2.0.12:5353")];
    let ids = servers.map(|server| world.server(server, METHOD_NAT, 1));
    world.service(UDP, vip, SCHEDULER_RR, &[ids[1], ids[0]], |put| put.value.flags = SERVICE_ONE_PACKET);
    for (server, id) in servers.into_iter().zip(ids) {
        let (address, family) = abi::address(server.ip());
        let key = AnswerKey { address, port: server.port().to_be_bytes(), protocol: UDP, family };
        let (address, _) = abi::address(vip.ip());
        let answer = Answer { address, port: vip.port().to_be_bytes(), server: id, ..Answer::default() };
        world.map("answers").put(&key, &answer).expect("room");
    }
    for server in [0, 1, 0] {
        assert_eq!(world.forwarded(&udp(client, vip, b"q")).to, servers[server]);
        let back = world.forwarded(&udp(servers[server], client, b"a"));
        assert_eq!((back.from, back.to), (vip, client));
    }
    assert_eq!(world.conn(UDP, client, vip), None);
    let seen = world.statistics(ids[0]);
    assert_eq!((seen.connections, seen.packets_in, seen.packets_out), (2, 2, 2));
    assert_eq!(world.load_of(ids[0]), (0, 0));
}

#[test]
fn explicit_flows_change_both_ends() {
    let Some(mut world) = World::new() else { return };
    let places = [
        ["10.1.0.2:5004", "10.1.0.1:30000", "10.2.0.1:30001", "10.2.0.11:6000"],
        ["[2001:db8:1::2]:5004", "[2001:db8:1::1]:30000", "[2001:db8:2::1]:30001", "[2001:db8:2::11]:6000"],
    ];
    for text in places {
        let [client, here, there, server] = text.map(at);
        for protocol in [UDP, TCP] {
            let packet = |from, to| if protocol == UDP { udp(from, to, b"media") } else { tcp(from, to, ACK) };
            world.configure(|config| config.flags = 0);
            assert_eq!(world.show(&packet(client, here)).returned, OK, "no flow yet");
            let entry = |from: SocketAddr, to: SocketAddr, new_from: SocketAddr, new_to: SocketAddr| {
                let port = |at: SocketAddr| at.port().to_be_bytes();
                let key = FlowKey {
                    source: abi::address(from.ip()).0,
                    destination: abi::address(to.ip()).0,
                    source_port: port(from),
                    destination_port: port(to),
                    protocol,
                    family: abi::address(from.ip()).1,
                    ..FlowKey::default()
                };
                let flow = Flow {
                    source: abi::address(new_from.ip()).0,
                    destination: abi::address(new_to.ip()).0,
                    source_port: port(new_from),
                    destination_port: port(new_to),
                    ..Flow::default()
                };
                (key, flow)
            };
            let both = [entry(client, here, there, server), entry(server, there, here, client)];
            world.map("flows").put_all(&both).expect("room");
            world.configure(|config| config.flags = CONFIG_FLOWS);
            let out = world.forwarded(&packet(client, here));
            assert_eq!((out.from, out.to, out.ttl), (there, server, 63));
            let back = world.forwarded(&packet(server, there));
            assert_eq!((back.from, back.to), (here, client));
            let flow: Flow = world.map("flows").get(&both[0].0).expect("a look").expect("the flow");
            assert_eq!((flow.packets, flow.bytes), (1, (packet(client, here).len() - L3) as u64));
            assert_ne!(flow.last, 0);
            // What cannot be sent on is for whoever holds the port: as it came, and not counted.
            let mut last_hop = packet(client, here);
            last_hop[L3 + if client.is_ipv4() { 8 } else { 7 }] = 1;
            let (key, home) = entry(client, here, there, here);
            for (value, frame) in [(&flow, last_hop), (&home, packet(client, here))] {
                world.map("flows").put(&key, value).expect("room");
                let ran = world.show(&frame);
                assert_eq!((ran.returned, ran.data), (OK, frame));
                let after: Flow = world.map("flows").get(&key).expect("a look").expect("the flow");
                assert_eq!(after.packets, value.packets);
            }
            assert!(world.map("flows").delete(&both[0].0).expect("a deletion"));
            assert_eq!(world.show(&packet(client, here)).returned, OK, "no flow any more");
        }
    }
}
