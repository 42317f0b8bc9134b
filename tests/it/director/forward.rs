//! A packet in, a verdict and a packet out: nat and dr, both ways, and what is left alone.

use std::net::SocketAddr;
use std::time::Duration;

use reeve::director::abi::{self, METHOD_DR, METHOD_NAT, SCHEDULER_RR, SERVER_GONE};

use reeve::sys::bpf::Packet;

use super::wire::{self, ACK, ICMP, ICMP6, Ip, L3, RST, SYN, TCP, UDP, frame, tcp, tcp_segment, udp, udp_datagram};
use super::world::{OK, REDIRECT, SHOT, World, at};

/// Addresses of one family.
struct Places {
    client: SocketAddr,
    vip: SocketAddr,
    server: SocketAddr,
}

fn places() -> [Places; 2] {
    [
        Places { client: at("10.1.0.2:40000"), vip: at("10.1.0.100:80"), server: at("10.2.0.11:8080") },
        Places {
            client: at("[2001:db8:1::2]:40000"),
            vip: at("[2001:db8:1::100]:80"),
            server: at("[2001:db8:2::11]:8080"),
        },
    ]
}

#[test]
fn nat_goes_there_and_back() {
    let Some(mut world) = World::new() else { return };
    for Places { client, vip, server } in places() {
        for protocol in [TCP, UDP] {
            let id = world.server(server, METHOD_NAT, 1);
            world.service(protocol, vip, SCHEDULER_RR, &[id], |_| {});
            let packet = |from, to, flags| match protocol {
                TCP => tcp(from, to, flags),
                _ => udp(from, to, b"odd"),
            };

            let there = world.forwarded(&packet(client, vip, SYN));
            assert_eq!((there.from, there.to, there.ttl), (client, server, 63));
            let back = world.forwarded(&packet(server, client, SYN | ACK));
            assert_eq!((back.from, back.to, back.ttl), (vip, client, 63));
            let there = world.forwarded(&packet(client, vip, ACK));
            assert_eq!((there.from, there.to), (client, server));

            let conn = world.conn(protocol, client, vip).expect("a connection");
            assert_eq!((conn.server, conn.packets, conn.port), (id, 2, server.port().to_be_bytes()));
            let seen = world.statistics(id);
            assert_eq!((seen.connections, seen.packets_in, seen.packets_out), (1, 2, 1));
            let len = (packet(client, vip, SYN).len() - L3) as u64;
            assert_eq!((seen.bytes_in, seen.bytes_out), (2 * len, len));
            let counted = if protocol == TCP { (1, 0) } else { (0, 1) };
            assert_eq!(world.load_of(id), counted);
        }
    }
}

#[test]
fn nat_through_the_stack_and_to_the_host_itself_is_rewritten_only() {
    let Some(mut world) = World::new() else { return };
    for Places { client, vip, server } in places() {
        for local in [false, true] {
            let vip = SocketAddr::new(vip.ip(), if local { 90 } else { 91 });
            let server = SocketAddr::new(server.ip(), if local { 8090 } else { 8091 });
            let id = world.server(server, METHOD_NAT, 1);
            if local {
                world.change_server(id, |server| server.flags = abi::SERVER_LOCAL);
                world.configure(|config| config.flags = abi::CONFIG_LOCAL);
            }
            world.service(TCP, vip, SCHEDULER_RR, &[id], |put| {
                put.value.flags = if local { 0 } else { abi::SERVICE_STACK };
            });
            let there = world.show(&tcp(client, vip, SYN));
            let read = wire::read(&there.data[L3..]);
            assert_eq!((there.returned, read.to, read.ttl), (OK, server, 64));
            // What a server on the host answers is seen as it leaves.
            let program = if local { "director_out" } else { "director_in" };
            let reply = tcp(server, client, SYN | ACK);
            let packet = Packet { interface: world.front, ..Packet::new(&reply) };
            let back = world.loaded.run(program, &packet).expect("a run");
            let read = wire::read(&back.data[L3..]);
            assert_eq!((back.returned, read.from, read.ttl), (OK, vip, 64));
            assert_eq!(world.conn(TCP, client, vip).map(|conn| conn.state), Some(abi::TCP_SYN_RECV));
        }
    }
}

#[test]
fn at_egress_only_what_servers_here_send_is_looked_for() {
    let Some(mut world) = World::new() else { return };
    world.configure(|config| config.flags = abi::CONFIG_LOCAL);
    for Places { client, vip, server } in places() {
        let here = world.server(server, METHOD_NAT, 1);
        world.change_server(here, |server| server.flags = abi::SERVER_LOCAL);
        world.service(TCP, vip, SCHEDULER_RR, &[here], |_| {});
        let direct_vip = SocketAddr::new(vip.ip(), 81);
        let elsewhere = world.server(SocketAddr::new(server.ip(), 0), METHOD_DR, 1);
        world.service(TCP, direct_vip, SCHEDULER_RR, &[elsewhere], |_| {});
        let leaves = |world: &mut World, frame: &[u8]| {
            let packet = Packet { interface: world.front, ..Packet::new(frame) };
            world.loaded.run("director_out", &packet).expect("a run")
        };
        // By dr: in, and out again with the tuple that it came with. It is the same packet, counted once.
        for flags in [SYN, ACK] {
            let sent = world.show(&tcp(client, direct_vip, flags));
            assert_eq!(sent.returned, REDIRECT);
            let left = leaves(&mut world, &sent.data);
            assert_eq!((left.returned, &left.data), (OK, &sent.data));
        }
        assert_eq!(world.conn(TCP, client, direct_vip).expect("a connection").packets, 2);
        assert_eq!(world.statistics(elsewhere).packets_in, 2);
        // Over its time, and no business of the egress.
        super::states::silence(&world, client, direct_vip);
        leaves(&mut world, &tcp(client, direct_vip, ACK));
        assert_eq!(world.load_of(elsewhere), (1, 0));
        // The local one's reply is seen beside it.
        assert_eq!(world.show(&tcp(client, vip, SYN)).returned, OK);
        let back = leaves(&mut world, &tcp(server, client, SYN | ACK));
        assert_eq!((back.returned, wire::read(&back.data[L3..]).from), (OK, vip));
        assert_eq!(world.statistics(here).packets_out, 1);
    }
}

#[test]
fn dr_changes_nothing_but_the_hops() {
    let Some(mut world) = World::new() else { return };
    for Places { client, vip, server } in places() {
        let id = world.server(SocketAddr::new(server.ip(), 0), METHOD_DR, 1);
        world.service(TCP, vip, SCHEDULER_RR, &[id], |_| {});
        let there = world.forwarded(&tcp(client, vip, SYN));
        assert_eq!((there.from, there.to, there.ttl), (client, vip, 63));
        assert_eq!(there.payload, wire::tcp_segment(client, vip, SYN, b""));
        // What the server sends never comes by here, and if it did it would be nobody's.
        assert_eq!(world.show(&tcp(vip, client, SYN | ACK)).returned, OK);
    }
}

#[test]
fn a_datagram_without_a_checksum_stays_without() {
    let Some(mut world) = World::new() else { return };
    let [Places { client, vip, server }, _] = places();
    let id = world.server(server, METHOD_NAT, 1);
    world.service(UDP, vip, SCHEDULER_RR, &[id], |_| {});
    let mut datagram = udp_datagram(client, vip, b"x");
    datagram[6..8].fill(0);
    let there = world.forwarded(&frame(&Ip::new(client.ip(), vip.ip(), UDP).packet(&datagram)));
    assert_eq!((there.to, &there.payload[6..8]), (server, &[0u8, 0][..]));
}

#[test]
fn what_is_for_no_service_is_left_alone() {
    let Some(mut world) = World::new() else { return };
    for Places { client, vip, server } in places() {
        let id = world.server(server, METHOD_NAT, 1);
        world.service(TCP, vip, SCHEDULER_RR, &[id], |_| {});
        let elsewhere = SocketAddr::new(vip.ip(), 81);
        let echo = if vip.is_ipv4() { (ICMP, 8) } else { (ICMP6, 128) };
        let mut ping = vec![echo.1, 0, 0, 0, 0, 1, 0, 1];
        ping.extend(b"data");
        for (what, packet) in [
            ("another port", tcp(client, elsewhere, SYN)),
            ("another protocol", udp(client, vip, b"")),
            ("no SYN", tcp(client, vip, ACK)),
            ("a reset", tcp(client, vip, SYN | RST)),
            ("data of active FTP", tcp(SocketAddr::new(client.ip(), 20), vip, SYN)),
            ("an echo request", frame(&Ip::new(client.ip(), vip.ip(), echo.0).packet(&ping))),
            ("another transport", frame(&Ip::new(client.ip(), vip.ip(), 132).packet(b"sctp....sctp"))),
            ("not IP", [&[0; 12][..], &[8, 6], &[0; 28]].concat()),
        ] {
            let ran = world.show(&packet);
            assert_eq!((ran.returned, &ran.data), (OK, &packet), "{what}");
        }
        // To somebody else's Ethernet address.
        let mut passing = tcp(client, vip, SYN);
        passing[5] = 2;
        assert_eq!(world.show(&passing).returned, OK);
        assert_eq!(world.conn(TCP, client, vip), None);
        assert_eq!(world.load_of(id), (0, 0));
    }
}

#[test]
fn malformed_packets_are_never_taken_for_valid_ones() {
    let Some(mut world) = World::new() else { return };
    let mut bad = 0;
    for Places { client, vip, server } in places() {
        for protocol in [TCP, UDP] {
            let id = world.server(server, METHOD_NAT, 1);
            world.service(protocol, vip, SCHEDULER_RR, &[id], |_| {});
            let good = match protocol {
                TCP => frame(&Ip::new(client.ip(), vip.ip(), TCP).packet(&tcp_segment(client, vip, SYN, b"12345678"))),
                _ => udp(client, vip, b"12345678"),
            };
            let mut cases: Vec<(String, Vec<u8>)> = Vec::new();
            // Cut anywhere: the IP header says more than there is.
            for len in L3 + 1..good.len() {
                cases.push((format!("cut at {len}"), good[..len].to_vec()));
            }
            let mut change = |what: &str, at: usize, value: u8, resum: bool| {
                let mut packet = good.clone();
                packet[at] = value;
                if resum && vip.is_ipv4() {
                    packet[L3 + 10..L3 + 12].fill(0);
                    let header = usize::from(packet[L3] & 15).clamp(5, 15) * 4;
                    let sum = wire::sum(&[&packet[L3..(L3 + header).min(packet.len())]]);
                    packet[L3 + 10..L3 + 12].copy_from_slice(&sum.to_be_bytes());
                }
                cases.push((what.to_owned(), packet));
            };
            let l4 = L3 + if vip.is_ipv4() { 20 } else { 40 };
            if vip.is_ipv4() {
                change("version 5", L3, 0x55, true);
                change("a header of 16 bytes", L3, 0x44, true);
                change("a header longer than the packet", L3, 0x4f, true);
                change("a wrong checksum", L3 + 10, good[L3 + 10] ^ 1, false);
                change("a length below the header's", L3 + 3, 19, true);
                change("a length beyond the end", L3 + 2, 1, true);
                // The packet ends within the transport's header.
                change("a length that cuts the transport", L3 + 3, 20 + 7, true);
            } else {
                change("version 4", L3, 0x40, false);
                change("a length beyond the end", L3 + 4, 1, false);
                change("a length that cuts the transport", L3 + 5, 7, false);
                change("an endless hop-by-hop header", L3 + 6, 0, false);
                change("a routing header that is longer than the packet", L3 + 6, 43, false);
            }
            if protocol == TCP {
                change("a TCP header of 16 bytes", l4 + 12, 0x40, false);
                change("a TCP header beyond the end", l4 + 12, 0xf0, false);
            } else {
                change("a UDP length below its header", l4 + 5, 7, false);
                change("a UDP length beyond the end", l4 + 4, 1, false);
            }
            for (what, packet) in cases {
                // The kernel itself refuses to run on frames that end within the IP header.
                let shown = super::world::try_show(&mut world, &packet);
                if let Some(ran) = shown {
                    assert_eq!((ran.returned, &ran.data), (OK, &packet), "{what} of {vip}/{protocol}");
                    bad += 1;
                }
                assert_eq!(world.conn(protocol, client, vip), None, "{what} of {vip}/{protocol}");
            }
            world.forwarded(&good);
        }
    }
    assert!(bad > 80, "only {bad} were shown");
    assert!(world.counter("malformed") > 80);
}

#[test]
fn many_in_one_may_be_longer_than_a_header_can_say() {
    let Some(mut world) = World::new() else { return };
    for Places { client, vip, server } in places() {
        let id = world.server(server, METHOD_NAT, 1);
        world.service(TCP, vip, SCHEDULER_RR, &[id], |_| {});
        world.forwarded(&tcp(client, vip, SYN));
        let mut many = frame(&Ip::new(client.ip(), vip.ip(), TCP).packet(&tcp_segment(client, vip, ACK, &[1; 2800])));
        let destination = if vip.is_ipv4() {
            many[L3 + 2..L3 + 4].fill(0);
            many[L3 + 10..L3 + 12].fill(0);
            let sum = wire::sum(&[&many[L3..L3 + 20]]);
            many[L3 + 10..L3 + 12].copy_from_slice(&sum.to_be_bytes());
            L3 + 16..L3 + 20
        } else {
            many[L3 + 4..L3 + 6].fill(0);
            L3 + 24..L3 + 40
        };
        let before = world.statistics(id).bytes_in;
        let packet = Packet { interface: world.front, segment: 1400, ..Packet::new(&many) };
        let ran = world.loaded.run("director_in", &packet).expect("a run");
        assert_eq!(ran.returned, REDIRECT);
        assert_eq!(ran.data[destination.clone()], abi::address(server.ip()).0[..destination.len()]);
        assert_eq!(world.statistics(id).bytes_in - before, (many.len() - L3) as u64);
        // A packet by itself has a length.
        let ran = world.show(&many);
        assert_eq!((ran.returned, &ran.data), (OK, &many));
    }
    assert_eq!(world.counter("malformed"), 2);
}

#[test]
fn options_and_extension_headers_are_walked() {
    let Some(mut world) = World::new() else { return };
    let [four, six] = places();
    for Places { client, vip, server } in [&four, &six] {
        let id = world.server(*server, METHOD_NAT, 1);
        world.service(TCP, *vip, SCHEDULER_RR, &[id], |_| {});
        let segment = tcp_segment(*client, *vip, SYN, b"");
        let packet = if vip.is_ipv4() {
            // Router alert and two no-operations; RFC 2113.
            let mut packet = Ip::new(client.ip(), vip.ip(), TCP).packet(&segment);
            packet.splice(20..20, [148, 4, 0, 0, 1, 1, 1, 1]);
            packet[0] = 0x47;
            packet[3] += 8;
            packet[10..12].fill(0);
            let sum = wire::sum(&[&packet[..28]]);
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
            packet
        } else {
            // Hop-by-hop, then destination options, with padding; RFC 8200 §4.
            let mut payload = vec![60, 0, 1, 4, 0, 0, 0, 0, TCP, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            payload.extend(&segment);
            Ip::new(client.ip(), vip.ip(), 0).packet(&payload)
        };
        let ran = world.show(&frame(&packet));
        assert_eq!(ran.returned, REDIRECT);
        let out = &ran.data[L3..];
        let (skip, to) = if vip.is_ipv4() { (28, 16..20) } else { (64, 24..40) };
        assert_eq!(out[to], abi::address(server.ip()).0[..if vip.is_ipv4() { 4 } else { 16 }]);
        assert_eq!(out[skip + 2..skip + 4], server.port().to_be_bytes());
    }
}

#[test]
fn nobody_there_is_said() {
    let Some(mut world) = World::new() else { return };
    for Places { client, vip, server } in places() {
        for protocol in [TCP, UDP] {
            let id = world.server(server, METHOD_NAT, 0);
            world.service(protocol, vip, SCHEDULER_RR, &[id], |_| {});
            let packet = match protocol {
                TCP => tcp(client, vip, SYN),
                _ => udp(client, vip, &[7; 400]),
            };
            let ran = world.show(&packet);
            assert_eq!(ran.returned, REDIRECT);
            // Back to the one who sent it.
            assert_eq!((&ran.data[..6], &ran.data[6..12]), (&packet[6..12], &packet[..6]));
            let said = wire::read(&ran.data[L3..]);
            assert_eq!((said.from.ip(), said.to.ip()), (vip.ip(), client.ip()));
            // RFC 792: destination unreachable, port; RFC 4443 §3.1 likewise.
            let kind = if vip.is_ipv4() { [3, 3] } else { [1, 4] };
            assert_eq!(said.payload[..2], kind);
            // It quotes the packet: to the last byte if that is short, but for the transport's checksum.
            let quote = &said.payload[8..];
            assert_eq!(quote.len(), (packet.len() - L3).min(128) & !3);
            let sum_at = if vip.is_ipv4() { 20 } else { 40 } + if protocol == TCP { 16 } else { 6 };
            assert_eq!(quote[..sum_at], packet[L3..L3 + sum_at]);
            assert_eq!(quote[sum_at + 2..], packet[L3 + sum_at + 2..L3 + quote.len()]);
        }
    }
    assert_eq!(world.counter("no-server"), 4);
}

#[test]
fn what_runs_out_of_hops_is_told() {
    let Some(mut world) = World::new() else { return };
    for Places { client, vip, server } in places() {
        let id = world.server(server, METHOD_NAT, 1);
        world.service(TCP, vip, SCHEDULER_RR, &[id], |_| {});
        let mut ip = Ip::new(client.ip(), vip.ip(), TCP);
        ip.ttl = 1;
        let ran = world.show(&frame(&ip.packet(&tcp_segment(client, vip, SYN, b""))));
        let said = wire::read(&ran.data[L3..]);
        // RFC 792: time exceeded in transit; RFC 4443 §3.3.
        assert_eq!(
            (ran.returned, &said.payload[..2]),
            (REDIRECT, if vip.is_ipv4() { &[11u8, 0][..] } else { &[3, 0] })
        );
        assert_eq!(said.to.ip(), client.ip());
    }
}

#[test]
fn two_virtual_addresses_do_not_share_a_servers_tuple() {
    let Some(mut world) = World::new() else { return };
    let [Places { client, vip, server }, _] = places();
    let other = at("10.1.0.101:80");
    for address in [vip, other] {
        let id = world.server(server, METHOD_NAT, 1);
        world.service(TCP, address, SCHEDULER_RR, &[id], |_| {});
    }
    world.forwarded(&tcp(client, vip, SYN));
    // The same client and port to the same server: replies could not be told apart.
    assert_eq!(world.show(&tcp(client, other, SYN)).returned, SHOT);
    assert_eq!((world.counter("clash"), world.load_of(2)), (1, (0, 0)));
    // The first one closes; now the tuple is free.
    world.forwarded(&tcp(server, client, RST));
    assert_eq!(world.forwarded(&tcp(client, other, SYN)).to, server);
    assert_eq!(world.conn(TCP, client, vip), None);
    assert_eq!((world.load_of(1), world.load_of(2)), ((0, 0), (1, 0)));
}

#[test]
fn a_full_table_refuses_the_new_and_keeps_the_old() {
    let Some(mut world) = World::sized(&[("conn4", 8), ("back4", 8)]) else { return };
    let [Places { client, vip, server }, _] = places();
    let id = world.server(server, METHOD_NAT, 1);
    world.service(TCP, vip, SCHEDULER_RR, &[id], |_| {});
    world.forwarded(&tcp(client, vip, SYN));
    world.forwarded(&tcp(client, vip, ACK));
    // A flood of SYNs.
    let mut refused = 0;
    for port in 1000..1100 {
        let ran = world.show(&tcp(SocketAddr::new(client.ip(), port), vip, SYN));
        refused += u32::from(ran.returned == SHOT);
    }
    assert!((90..100).contains(&refused), "{refused} refused");
    assert_eq!(world.counter("full"), u64::from(refused));
    world.forwarded(&tcp(client, vip, ACK));
    assert_eq!(world.load_of(id).0, 100 - refused + 1);
}

#[test]
fn a_full_table_relieves_itself_of_what_never_opened() {
    let Some(mut world) = World::sized(&[("conn4", 8), ("back4", 8)]) else { return };
    let [Places { client, vip, server }, _] = places();
    let id = world.server(server, METHOD_NAT, 1);
    world.service(TCP, vip, SCHEDULER_RR, &[id], |_| {});
    let from = |port: u16| SocketAddr::new(client.ip(), port);
    world.forwarded(&tcp(client, vip, SYN));
    world.forwarded(&tcp(client, vip, ACK));
    let mut port = 1000;
    while world.show(&tcp(from(port), vip, SYN)).returned == REDIRECT {
        port += 1;
    }
    // Refused, for all that are half open are young; and for a second nobody looks again.
    assert_eq!(world.counter("relieved"), 0);
    let (asked, opened) = (port, port - 1000);
    for port in 1000..asked {
        super::states::age_of(&world, from(port), vip, Duration::from_secs(4), Duration::ZERO);
    }
    world.map("relief").put(&0u32, &0u32).expect("the last relief, long ago");
    assert_eq!(world.show(&tcp(from(asked), vip, SYN)).returned, REDIRECT);
    assert_eq!(world.counter("relieved"), u64::from(opened));
    assert_eq!(world.load_of(id), (2, 0), "the established one and the new one");
    world.forwarded(&tcp(client, vip, ACK));
    world.forwarded(&tcp(server, client, ACK));
}

#[test]
fn a_deleted_servers_connections_are_dropped_or_begin_anew() {
    let Some(mut world) = World::new() else { return };
    let [Places { client, vip, server }, _] = places();
    let first = world.server(server, METHOD_NAT, 1);
    let second = world.server(at("10.2.0.12:8080"), METHOD_NAT, 1);
    let put = world.service(TCP, vip, SCHEDULER_RR, &[second, first], |_| {});
    assert_eq!(world.forwarded(&tcp(client, vip, SYN)).to, server);
    // Taken off: the list is without it, its flag says so.
    world.change_server(first, |server| server.flags = SERVER_GONE);
    let list = world.region(&[second]);
    let mut without = put;
    (without.value.list, without.value.count) = (list, 1);
    world.put(&without);

    assert_eq!(world.show(&tcp(client, vip, ACK)).returned, SHOT);
    assert_eq!(world.counter("gone"), 1);
    world.configure(|config| config.flags |= abi::CONFIG_EXPIRE_NODEST);
    // What opens nothing falls to the host's stack, which resets.
    assert_eq!(world.show(&tcp(client, vip, ACK)).returned, OK);
    assert_eq!(world.load_of(first), (0, 0));
    assert_eq!(world.forwarded(&tcp(client, vip, SYN)).to, at("10.2.0.12:8080"));
}
