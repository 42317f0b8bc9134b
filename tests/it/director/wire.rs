//! Packets written and read byte by byte, with every checksum made and checked the long way.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const ICMP: u8 = 1;
pub const ICMP6: u8 = 58;

pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const ACK: u8 = 16;

/// The end of the Ethernet header.
pub const L3: usize = 14;

/// RFC 1071.
pub fn sum(parts: &[&[u8]]) -> u16 {
    let mut total = 0u64;
    for part in parts {
        for pair in part.chunks(2) {
            total += u64::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
        }
    }
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    !(total as u16)
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

fn pseudo(from: IpAddr, to: IpAddr, protocol: u8, len: usize) -> Vec<u8> {
    let mut head = octets(from);
    head.extend(octets(to));
    head.extend((len as u32).to_be_bytes());
    head.extend([0, 0, 0, protocol]);
    head
}

/// What a packet says, its headers only.
#[derive(Debug, Clone, Copy)]
pub struct Ip {
    pub from: IpAddr,
    pub to: IpAddr,
    pub protocol: u8,
    pub ttl: u8,
    /// DF, MF and the offset, as in the IPv4 header.
    pub fragment: u16,
    pub id: u16,
}

impl Ip {
    pub fn new(from: IpAddr, to: IpAddr, protocol: u8) -> Self {
        Self { from, to, protocol, ttl: 64, fragment: 0x4000, id: 7 }
    }

    /// The packet, without an Ethernet header.
    pub fn packet(&self, payload: &[u8]) -> Vec<u8> {
        let mut head = match (self.from, self.to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let mut head = vec![0x45, 0];
                head.extend((20 + payload.len() as u16).to_be_bytes());
                head.extend(self.id.to_be_bytes());
                head.extend(self.fragment.to_be_bytes());
                head.extend([self.ttl, self.protocol, 0, 0]);
                head.extend(from.octets());
                head.extend(to.octets());
                let sum = sum(&[&head]);
                head[10..12].copy_from_slice(&sum.to_be_bytes());
                head
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let mut head = vec![0x60, 0, 0, 0];
                head.extend((payload.len() as u16).to_be_bytes());
                head.extend([self.protocol, self.ttl]);
                head.extend(from.octets());
                head.extend(to.octets());
                head
            }
            mixed => panic!("two families: {mixed:?}"),
        };
        head.extend(payload);
        head
    }
}

/// From the Ethernet header on.
pub fn frame(packet: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 9];
    frame.extend(if packet.first().is_some_and(|byte| byte >> 4 == 6) { [0x86, 0xdd] } else { [8, 0] });
    frame.extend(packet);
    frame
}

pub fn tcp_segment(from: SocketAddr, to: SocketAddr, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut segment = from.port().to_be_bytes().to_vec();
    segment.extend(to.port().to_be_bytes());
    segment.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    segment.extend(payload);
    let sum = sum(&[&pseudo(from.ip(), to.ip(), TCP, segment.len()), &segment]);
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    segment
}

pub fn udp_datagram(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let mut datagram = from.port().to_be_bytes().to_vec();
    datagram.extend(to.port().to_be_bytes());
    datagram.extend((8 + payload.len() as u16).to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(payload);
    let sum = sum(&[&pseudo(from.ip(), to.ip(), UDP, datagram.len()), &datagram]);
    datagram[6..8].copy_from_slice(&sum.to_be_bytes());
    datagram
}

/// A whole frame of TCP.
pub fn tcp(from: SocketAddr, to: SocketAddr, flags: u8) -> Vec<u8> {
    frame(&Ip::new(from.ip(), to.ip(), TCP).packet(&tcp_segment(from, to, flags, b"")))
}

/// A whole frame of UDP.
pub fn udp(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    frame(&Ip::new(from.ip(), to.ip(), UDP).packet(&udp_datagram(from, to, payload)))
}

/// A frame that was read, every checksum of which was right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub protocol: u8,
    pub ttl: u8,
    pub fragment: u16,
    /// What follows the IP header.
    pub payload: Vec<u8>,
}

/// Reads an IP packet; ports are 0 where there are none. Panics where a length or a checksum is wrong.
pub fn read(packet: &[u8]) -> Read {
    let (from, to, protocol, ttl, fragment, payload): (IpAddr, IpAddr, _, _, _, _) = match packet[0] >> 4 {
        4 => {
            let header = usize::from(packet[0] & 15) * 4;
            let len = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
            assert!(len <= packet.len() && len >= header, "the length {len} of {}", packet.len());
            assert_eq!(sum(&[&packet[..header]]), 0, "the checksum of the IPv4 header");
            let ip = |at: usize| Ipv4Addr::from(<[u8; 4]>::try_from(&packet[at..at + 4]).expect("4 bytes"));
            let fragment = u16::from_be_bytes([packet[6], packet[7]]);
            (ip(12).into(), ip(16).into(), packet[9], packet[8], fragment, &packet[header..len])
        }
        6 => {
            let len = usize::from(u16::from_be_bytes([packet[4], packet[5]])) + 40;
            assert!(len <= packet.len(), "the length {len} of {}", packet.len());
            let ip = |at: usize| Ipv6Addr::from(<[u8; 16]>::try_from(&packet[at..at + 16]).expect("16 bytes"));
            (ip(8).into(), ip(24).into(), packet[6], packet[7], 0, &packet[40..len])
        }
        version => panic!("version {version}"),
    };
    let mut ports = (0, 0);
    let whole = fragment & 0x3fff == 0;
    if (protocol == TCP || protocol == UDP) && fragment & 0x1fff == 0 {
        ports = (u16::from_be_bytes([payload[0], payload[1]]), u16::from_be_bytes([payload[2], payload[3]]));
        let none = protocol == UDP && payload[6..8] == [0, 0];
        if whole && !none {
            assert_eq!(sum(&[&pseudo(from, to, protocol, payload.len()), payload]), 0, "the transport's checksum");
        }
    }
    if protocol == ICMP && whole {
        assert_eq!(sum(&[payload]), 0, "the checksum of ICMP");
    }
    if protocol == ICMP6 {
        assert_eq!(sum(&[&pseudo(from, to, protocol, payload.len()), payload]), 0, "the checksum of ICMPv6");
    }
    Read {
        from: SocketAddr::new(from, ports.0),
        to: SocketAddr::new(to, ports.1),
        protocol,
        ttl,
        fragment,
        payload: payload.to_vec(),
    }
}
