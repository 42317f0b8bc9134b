//! Fragments, tunnels, path MTU, and errors of others about what was rewritten here.

use std::net::SocketAddr;

use reeve::director::abi::{self, METHOD_DR, METHOD_NAT, METHOD_TUN, RealServer, SCHEDULER_RR, Server};
use reeve::sys::bpf::Packet;

use super::wire::{self, ACK, ICMP, ICMP6, Ip, L3, SYN, TCP, UDP, frame, tcp, tcp_segment, udp, udp_datagram};
use super::world::{OK, REDIRECT, SHOT, World, at, run};
use crate::farm::until;

struct Places {
    client: SocketAddr,
    vip: SocketAddr,
    server: SocketAddr,
    director: SocketAddr,
}

fn places() -> [Places; 2] {
    [
        Places {
            client: at("10.1.0.2:40000"),
            vip: at("10.1.0.100:80"),
            server: at("10.2.0.11:8080"),
            director: at("10.2.0.1:0"),
        },
        Places {
            client: at("[2001:db8:1::2]:40000"),
            vip: at("[2001:db8:1::100]:80"),
            server: at("[2001:db8:2::11]:8080"),
            director: at("[2001:db8:2::1]:0"),
        },
    ]
}

fn no_port(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip(), 0)
}

/// A frame with a part of a datagram.
fn fragment(from: SocketAddr, to: SocketAddr, payload: &[u8], offset: u16, more: bool) -> Vec<u8> {
    if from.is_ipv4() {
        let fragment = (offset / 8) | if more { 0x2000 } else { 0 };
        let ip = Ip { fragment, id: 77, ..Ip::new(from.ip(), to.ip(), UDP) };
        return frame(&ip.packet(payload));
    }
    let mut all = vec![UDP, 0];
    all.extend((offset | u16::from(more)).to_be_bytes());
    all.extend(77u32.to_be_bytes());
    all.extend(payload);
    frame(&Ip::new(from.ip(), to.ip(), 44).packet(&all))
}

#[test]
fn fragments_of_a_flow_leave_as_it_does() {
    let Some(mut world) = World::new() else { return };
    world.configure(|config| config.flags = abi::CONFIG_FLOWS);
    for Places { client, vip, server, director } in places() {
        let (address, family) = abi::address(client.ip());
        let key = abi::FlowKey {
            source: address,
            destination: abi::address(vip.ip()).0,
            source_port: client.port().to_be_bytes(),
            destination_port: vip.port().to_be_bytes(),
            protocol: UDP,
            family,
            ..abi::FlowKey::default()
        };
        let there = SocketAddr::new(director.ip(), 30001);
        let flow = abi::Flow {
            source: abi::address(there.ip()).0,
            destination: abi::address(server.ip()).0,
            source_port: there.port().to_be_bytes(),
            destination_port: server.port().to_be_bytes(),
            ..abi::Flow::default()
        };
        world.map("flows").put(&key, &flow).expect("room");
        let datagram = udp_datagram(client, vip, &[9; 100]);
        let later = fragment(client, vip, &datagram[64..], 64, false);
        assert_eq!(world.show(&later).returned, OK, "before the first it is a stranger");
        let one = world.forwarded(&fragment(client, vip, &datagram[..64], 0, true));
        let two = world.forwarded(&later);
        for part in [&one, &two] {
            assert_eq!((part.from.ip(), part.to.ip(), part.ttl), (there.ip(), server.ip(), 63));
        }
        let header = if client.is_ipv4() { 0 } else { 8 };
        let whole = [&one.payload[header..], &two.payload[header..]].concat();
        let whole = wire::read(&Ip::new(there.ip(), server.ip(), UDP).packet(&whole));
        assert_eq!((whole.from, whole.to), (there, server));
        let seen: abi::Flow = world.map("flows").get(&key).expect("a look").expect("the flow");
        assert_eq!(seen.packets, 2);
        // Without the flow they are strangers again.
        world.map("flows").delete(&key).expect("a deletion");
        let ran = world.show(&later);
        assert_eq!((ran.returned, ran.data), (OK, later));
    }
}

#[test]
fn answers_have_a_limit_and_some_things_none() {
    let Some(mut world) = World::new() else { return };
    let [four, six] = places();
    for Places { client, vip, server, .. } in [&four, &six] {
        world.service(TCP, *vip, SCHEDULER_RR, &[], |_| {});
        // To no address of a sender's own.
        let nobody = if vip.is_ipv4() { ["224.0.0.1:9", "0.0.0.0:9"] } else { ["[ff02::1]:9", "[::]:9"] };
        for from in nobody {
            assert_eq!(world.show(&tcp(at(from), *vip, SYN)).returned, SHOT, "{from}");
        }
        // Neither about errors: one that is out of hops on its way to a server.
        let udp_vip = SocketAddr::new(vip.ip(), 53);
        let id = world.server(*server, METHOD_NAT, 1);
        world.service(UDP, udp_vip, SCHEDULER_RR, &[id], |_| {});
        world.forwarded(&udp(*client, udp_vip, b"question"));
        let reply = world.show(&udp(*server, *client, b"answer")).data[L3..].to_vec();
        if !vip.is_ipv4() {
            let mut late = error(*client, no_port(*vip), [1, 4], 0, &reply, 200);
            late[L3 + 7] = 1;
            assert_eq!(world.show(&late).returned, SHOT);
        }
    }
    assert_eq!(world.counter("unanswered"), 5);
    // A flood of what nobody is there for: some get an answer, and soon one gets none.
    let flood = (1000..21_000u16).map(|port| tcp(SocketAddr::new(four.client.ip(), port), four.vip, SYN));
    let answered = flood.map(|frame| world.show(&frame).returned).take_while(|returned| *returned == REDIRECT).count();
    assert!((100..20_000).contains(&answered), "{answered}");
    assert_eq!(world.counter("unanswered"), 6);
    // A tick later there is room again.
    until("an answer", || (world.show(&tcp(four.client, four.vip, SYN)).returned == REDIRECT).then_some(()));
}

#[test]
fn later_fragments_follow_the_first() {
    let Some(mut world) = World::new() else { return };
    for Places { client, vip, server, .. } in places() {
        let id = world.server(server, METHOD_NAT, 1);
        world.service(UDP, vip, SCHEDULER_RR, &[id], |_| {});
        let ways = [(client, vip, client, server), (server, client, vip, client)];
        for (from, to, new_from, new_to) in ways {
            let datagram = udp_datagram(from, to, &[9; 100]);
            let (first, later) = datagram.split_at(64);
            let cut = |payload: &[u8], offset: u16, more: bool| fragment(from, to, payload, offset, more);
            // Before the first it is a stranger.
            let stranger = world.show(&cut(later, 64, false));
            assert_eq!((stranger.returned, stranger.data), (OK, cut(later, 64, false)));
            let header = if from.is_ipv4() { 0 } else { 8 };
            let one = world.forwarded(&cut(first, 0, true));
            let two = world.forwarded(&cut(later, 64, false));
            for part in [&one, &two] {
                assert_eq!((part.from.ip(), part.to.ip()), (new_from.ip(), new_to.ip()));
            }
            // Put together, the transport's checksum is right.
            let mut whole = one.payload[header..].to_vec();
            whole.extend(&two.payload[header..]);
            let whole = wire::read(&Ip::new(new_from.ip(), new_to.ip(), UDP).packet(&whole));
            assert_eq!((whole.from, whole.to), (new_from, new_to));
        }
    }
    assert_eq!(world.counter("fragment"), 4);
}

#[test]
fn tunnels_carry_either_family_in_either() {
    let Some(mut world) = World::new() else { return };
    let [four, six] = places();
    let mut number = 0;
    for inner in [&four, &six] {
        for outer in [&four, &six] {
            number += 1;
            let vip = SocketAddr::new(inner.vip.ip(), 80 + number);
            let id = world.server(no_port(outer.server), METHOD_TUN, 1);
            world.change_server(id, |server: &mut Server| server.source = abi::address(outer.director.ip()).0);
            world.service(TCP, vip, SCHEDULER_RR, &[id], |_| {});
            let packet = tcp(inner.client, vip, SYN);
            let ran = world.show(&packet);
            assert_eq!(ran.returned, REDIRECT, "{inner_ip} in {outer_ip}", inner_ip = vip, outer_ip = outer.server);
            let tunnel = wire::read(&ran.data[L3..]);
            assert_eq!((tunnel.from, tunnel.to, tunnel.ttl), (outer.director, no_port(outer.server), 63));
            assert_eq!(tunnel.protocol, if vip.is_ipv4() { 4 } else { 41 });
            let inside = wire::read(&tunnel.payload);
            assert_eq!((inside.from, inside.to, inside.ttl), (inner.client, vip, 63));
            if vip.is_ipv4() && outer.server.is_ipv4() {
                assert_eq!(tunnel.fragment & 0x4000, 0x4000, "DF as inside");
            }

            // And out of it again, on the server.
            let mut arrived = ran.data.clone();
            let kind = if outer.server.is_ipv4() { [8, 0] } else { [0x86, 0xdd] };
            arrived[12..14].copy_from_slice(&kind);
            let (address, family) = abi::address(outer.director.ip());
            let director = abi::DirectorKey { address, family: family.into() };
            let show = |world: &mut World| {
                let packet = Packet { interface: world.front, ..Packet::new(&arrived) };
                world.loaded.run("real_in", &packet).expect("a run")
            };
            let strange = show(&mut world);
            assert_eq!((strange.returned, &strange.data), (OK, &arrived), "not from a director that is known");
            world.map("directors").put(&director, &1u32).expect("room");
            let opened = show(&mut world);
            assert_eq!((opened.returned, wire::read(&opened.data[L3..])), (OK, inside));
            world.map("directors").delete(&director).expect("a deletion");
        }
    }
    assert_eq!(world.counter("decapsulated"), 4);
    // What only says that it is a tunnel's.
    world
        .map("real_server")
        .put(&0u32, &RealServer { flags: abi::REAL_ANY_DIRECTOR, ..RealServer::default() })
        .expect("it");
    let lies = frame(&Ip::new(four.director.ip(), four.server.ip(), 4).packet(&[0x60; 24]));
    let packet = Packet { interface: world.front, ..Packet::new(&lies) };
    assert_eq!(world.loaded.run("real_in", &packet).expect("a run").returned, SHOT);
}

#[test]
fn a_real_servers_syn_ack_offers_what_fits() {
    let Some(mut world) = World::new() else { return };
    world.map("real_server").put(&0u32, &RealServer { mss4: 1400, mss6: 1300, ..RealServer::default() }).expect("it");
    for (Places { client, vip, .. }, most) in places().into_iter().zip([1400u16, 1300]) {
        for (options, at) in
            [(&[2, 4, 0x05, 0xb4][..], 2), (&[1, 2, 4, 0x05, 0xb4, 0, 0, 0], 3), (&[1, 1, 4, 2, 2, 4, 0x05, 0xb4], 6)]
        {
            let mut segment = tcp_segment(vip, client, SYN | ACK, options);
            segment[12] = 0x50 + ((options.len() as u8 / 4) << 4);
            let show = |world: &mut World, segment: &[u8]| {
                let frame = frame(&Ip::new(vip.ip(), client.ip(), TCP).packet(&resummed(segment, vip, client)));
                let ran = world.loaded.run("real_out", &Packet { interface: world.front, ..Packet::new(&frame) });
                let ran = ran.expect("a run");
                assert_eq!(ran.returned, OK);
                wire::read(&ran.data[L3..]).payload[20 + at..22 + at].to_vec()
            };
            assert_eq!(show(&mut world, &segment), most.to_be_bytes(), "{options:?}");
            // Lower ones stay, and so does what is no SYN-ACK.
            segment[20 + at..22 + at].copy_from_slice(&1000u16.to_be_bytes());
            assert_eq!(show(&mut world, &segment), 1000u16.to_be_bytes());
            segment[20 + at..22 + at].copy_from_slice(&1460u16.to_be_bytes());
            segment[13] = SYN;
            assert_eq!(show(&mut world, &segment), 1460u16.to_be_bytes());
        }
    }
}

/// With its checksum made anew.
fn resummed(segment: &[u8], from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let plain = tcp_segment(from, to, segment[13], &segment[20..]);
    let mut segment = segment.to_vec();
    // The offset of the data is the only other difference.
    let old = u16::from_be_bytes([plain[16], plain[17]]);
    let change = wire::sum(&[&old.to_be_bytes(), &[plain[12], 0], &[!segment[12], 0xff]]);
    segment[16..18].copy_from_slice(&(!change).to_be_bytes());
    segment
}

#[test]
fn what_does_not_fit_is_answered_by_every_method() {
    let Some(mut world) = World::new() else { return };
    run("ip link set back mtu 1400");
    for (Places { client, vip, server, director }, most, header) in
        places().into_iter().zip([1400u32, 1400]).zip([20u32, 40]).map(|((p, m), h)| (p, m, h))
    {
        for (method, port, fits) in [(METHOD_NAT, 80u16, most), (METHOD_DR, 81, most), (METHOD_TUN, 82, most - header)]
        {
            let vip = SocketAddr::new(vip.ip(), port);
            let id = world.server(if method == METHOD_NAT { server } else { no_port(server) }, method, 1);
            world.change_server(id, |server| server.source = abi::address(director.ip()).0);
            world.service(UDP, vip, SCHEDULER_RR, &[id], |_| {});
            let of_len = |len: usize| udp(client, vip, &vec![5; len - 8 - header as usize]);
            let ran = world.show(&of_len(fits as usize + 1));
            let said = wire::read(&ran.data[L3..]);
            assert_eq!((ran.returned, said.to.ip(), said.from.ip()), (REDIRECT, client.ip(), vip.ip()));
            // RFC 1191 §4; RFC 4443 §3.2.
            let (kind, mtu) = if vip.is_ipv4() { ([3, 4], 6..8) } else { ([2, 0], 4..8) };
            assert_eq!(said.payload[..2], kind);
            let told = said.payload[mtu].iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte));
            assert_eq!(told, fits, "method {method} of {vip}");
            assert_eq!(world.show(&of_len(fits as usize)).returned, REDIRECT);
            // Many in one: each of them counts. TCP's: 1 byte too long, then just right.
            let tcp_vip = SocketAddr::new(vip.ip(), port + 10);
            world.service(TCP, tcp_vip, SCHEDULER_RR, &[id], |_| {});
            assert_eq!(world.show(&tcp(client, tcp_vip, SYN)).returned, REDIRECT);
            let many =
                frame(&Ip::new(client.ip(), vip.ip(), TCP).packet(&tcp_segment(client, tcp_vip, ACK, &[1; 2800])));
            for (segment, returned_answer) in [(fits - header - 20 + 1, true), (fits - header - 20, false)] {
                // A run knows the length of segments, but not that they are TCP's: such a packet gets no tunnel.
                if method == METHOD_TUN && !returned_answer {
                    continue;
                }
                let packet = Packet { interface: world.front, segment, ..Packet::new(&many) };
                let ran = world.loaded.run("director_in", &packet).expect("a run");
                let answered = ran.data.len() < 300;
                assert_eq!((ran.returned, answered), (REDIRECT, returned_answer), "segments of {segment}");
            }
        }
    }
    // Without DF the stack cuts it up, rewritten.
    let [Places { client, vip, server, .. }, _] = places();
    let ip = Ip { fragment: 0, ..Ip::new(client.ip(), vip.ip(), UDP) };
    let ran = world.show(&frame(&ip.packet(&udp_datagram(client, vip, &[5; 1400]))));
    assert_eq!((ran.returned, wire::read(&ran.data[L3..]).to), (OK, server));
}

/// An error about `packet` (from its IP header on), of which it quotes `len` bytes.
fn error(from: SocketAddr, to: SocketAddr, kind: [u8; 2], word: u32, packet: &[u8], len: usize) -> Vec<u8> {
    let mut message = vec![kind[0], kind[1], 0, 0];
    message.extend(word.to_be_bytes());
    message.extend(&packet[..len.min(packet.len())]);
    let sum = if from.is_ipv4() {
        wire::sum(&[&message])
    } else {
        let (source, destination) = (abi::address(from.ip()).0, abi::address(to.ip()).0);
        wire::sum(&[&source, &destination, &(message.len() as u32).to_be_bytes(), &[0, 0, 0, ICMP6], &message])
    };
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    frame(&Ip::new(from.ip(), to.ip(), if from.is_ipv4() { ICMP } else { ICMP6 }).packet(&message))
}

/// The addresses and ports of a quoted packet, of which the rest may be missing.
fn ends(quote: &[u8]) -> (SocketAddr, SocketAddr) {
    let (from, to, l4) = if quote[0] >> 4 == 4 {
        assert_eq!(wire::sum(&[&quote[..20]]), 0, "the quoted header's checksum");
        (12..16, 16..20, 20)
    } else {
        (8..24, 24..40, 40)
    };
    let address = |range: std::ops::Range<usize>, port: usize| {
        let mut bytes = [0; 16];
        bytes[..range.len()].copy_from_slice(&quote[range.clone()]);
        let family = if range.len() == 4 { abi::V4 } else { abi::V6 };
        let ip = abi::ip(bytes, family).expect("an address");
        SocketAddr::new(ip, u16::from_be_bytes([quote[port], quote[port + 1]]))
    };
    (address(from, l4), address(to, l4 + 2))
}

#[test]
fn errors_are_translated_both_ways() {
    let Some(mut world) = World::new() else { return };
    for Places { client, vip, server, director } in places() {
        let unreachable = if vip.is_ipv4() { [3, 3] } else { [1, 4] };
        let shortest = if vip.is_ipv4() { 28 } else { 48 };
        let id = world.server(server, METHOD_NAT, 1);
        world.service(UDP, vip, SCHEDULER_RR, &[id], |_| {});
        let ran = world.show(&udp(client, vip, b"question"));
        let there = ran.data[L3..].to_vec();
        for len in [shortest, 200] {
            // The server (or a router before it) about what the client sent.
            let said = world.forwarded(&error(no_port(server), client, unreachable, 0, &there, len));
            assert_eq!((said.from.ip(), said.to.ip()), (vip.ip(), client.ip()));
            assert_eq!(said.payload[..2], unreachable);
            assert_eq!(ends(&said.payload[8..]), (client, vip));

            // A router on the client's side about what the server sent.
            let reply = world.show(&udp(server, client, b"answer")).data[L3..].to_vec();
            let router = SocketAddr::new(at(if vip.is_ipv4() { "10.9.9.9:0" } else { "[2001:db8:9::9]:0" }).ip(), 0);
            let said = world.forwarded(&error(router, no_port(vip), unreachable, 0, &reply, len));
            assert_eq!((said.from.ip(), said.to.ip()), (router.ip(), server.ip()));
            assert_eq!(ends(&said.payload[8..]), (server, client));

            // The host's own, as it leaves.
            let own = error(director, client, unreachable, 0, &there, len);
            let ran = world.loaded.run("director_out", &Packet { interface: world.front, ..Packet::new(&own) });
            let ran = ran.expect("a run");
            let said = wire::read(&ran.data[L3..]);
            assert_eq!((ran.returned, said.from.ip(), ends(&said.payload[8..])), (OK, vip.ip(), (client, vip)));
        }
        // About nothing of ours, or too short to tell: as they are.
        let strange = udp(client, at(if vip.is_ipv4() { "10.1.0.55:7" } else { "[2001:db8:1::55]:7" }), b"x");
        for (packet, len) in [(&strange[L3..], 200), (&there[..], shortest - 1)] {
            let error = error(no_port(server), client, unreachable, 0, packet, len);
            let ran = world.show(&error);
            assert_eq!((ran.returned, &ran.data), (OK, &error));
        }
    }
}

#[test]
fn errors_about_what_dr_and_tun_servers_sent_reach_them() {
    let Some(mut world) = World::new() else { return };
    for Places { client, vip, server, director } in places() {
        let too_big = if vip.is_ipv4() { [3, 4] } else { [2, 0] };
        for (method, port) in [(METHOD_DR, 80), (METHOD_TUN, 81)] {
            let vip = SocketAddr::new(vip.ip(), port);
            let id = world.server(no_port(server), method, 1);
            world.change_server(id, |server| server.source = abi::address(director.ip()).0);
            world.service(TCP, vip, SCHEDULER_RR, &[id], |_| {});
            world.show(&tcp(client, vip, SYN));
            // What the server sent by another way, from the virtual address.
            let reply = tcp(vip, client, SYN | ACK);
            let router = at(if vip.is_ipv4() { "10.9.9.9:0" } else { "[2001:db8:9::9]:0" });
            let message = error(router, no_port(vip), too_big, 1300, &reply[L3..], 200);
            let mut said = world.forwarded(&message);
            if method == METHOD_TUN {
                assert_eq!((said.from, said.to), (director, no_port(server)));
                said = wire::read(&said.payload);
            }
            assert_eq!((said.from.ip(), said.to.ip()), (router.ip(), vip.ip()));
            assert_eq!(ends(&said.payload[8..]), (vip, client));
        }
        // A router about a tunnel's packet: the client is told, less the tunnel's header.
        let vip = SocketAddr::new(vip.ip(), 81);
        let tunnel = world.show(&tcp(client, vip, ACK)).data[L3..].to_vec();
        let router = at(if vip.is_ipv4() { "10.2.0.254:0" } else { "[2001:db8:2::fe]:0" });
        let header = if vip.is_ipv4() { 20 } else { 40 };
        let said = world.forwarded(&error(router, director, too_big, 1400, &tunnel, 200));
        assert_eq!((said.from.ip(), said.to.ip(), &said.payload[..2]), (vip.ip(), client.ip(), &too_big[..]));
        let told = said.payload[4..8].iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte));
        assert_eq!(told, 1400 - header);
        assert_eq!(ends(&said.payload[8..]), (client, vip));
    }
}
