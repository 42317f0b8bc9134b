//! Without a connection: UDP, and ping.

use std::hash::{BuildHasher, RandomState};
use std::io::ErrorKind;
use std::net::SocketAddr;

use tokio::net::UdpSocket;
use tokio::time::timeout_at;

use super::talk::{Transcript, shortened};
use super::{Clock, Failed, Unable};
use crate::model::check::Pattern;
use crate::sys::process::is_shortage;
use crate::sys::socket::{self, PingSocket};

/// The largest datagram is read.
const DATAGRAM: usize = 64 << 10;

/// Another number each time.
pub fn dice() -> u64 {
    RandomState::new().hash_one("dice")
}

pub fn connect(address: SocketAddr) -> Result<UdpSocket, Failed> {
    socket::udp_to(address).and_then(UdpSocket::from_std).map_err(failed)
}

fn failed(error: std::io::Error) -> Failed {
    match error.kind() {
        _ if is_shortage(&error) => Failed::Unable(Unable::Shortage(error)),
        // ICMP said that nobody is there.
        ErrorKind::ConnectionRefused => Failed::Bad("unreachable: nobody listens there".to_owned()),
        _ => Failed::Bad(format!("unreachable: {error}")),
    }
}

pub async fn send(socket: &UdpSocket, bytes: &[u8], said: &mut Transcript) -> Result<(), Failed> {
    said.sent.add(bytes);
    socket.send(bytes).await.map(drop).map_err(failed)
}

pub async fn receive(
    socket: &UdpSocket,
    into: &mut [u8],
    clock: &Clock,
    said: &mut Transcript,
) -> Result<usize, Failed> {
    let received = clock.within("waiting for the answer", async { Ok(socket.recv(into).await) }).await?;
    let count = received.map_err(failed)?;
    said.heard.add(&into[..count]);
    Ok(count)
}

/// Without an expected answer, silence is a good sign: "unreachable" would have come.
pub async fn udp(
    address: SocketAddr,
    bytes: &[u8],
    expect: Option<&Pattern>,
    clock: &Clock,
    said: &mut Transcript,
) -> Result<String, Failed> {
    let socket = connect(address)?;
    send(&socket, bytes, said).await?;
    let mut answer = vec![0; DATAGRAM];
    let Some(expect) = expect else {
        return match timeout_at(clock.end, socket.recv(&mut answer)).await {
            Err(_) => Ok("no answer, and not unreachable".to_owned()),
            Ok(Ok(count)) => {
                said.heard.add(&answer[..count]);
                Ok(format!("answered \"{}\"", shortened(&answer[..count])))
            }
            Ok(Err(error)) => Err(failed(error)),
        };
    };
    let count = receive(&socket, &mut answer, clock, said).await?;
    if expect.is_in(&answer[..count]) {
        return Ok(format!("answered \"{}\"", shortened(&answer[..count])));
    }
    Err(Failed::Bad(format!("no \"{}\" in the answer \"{}\"", expect.text(), shortened(&answer[..count]))))
}

/// ICMP echo (RFC 792, RFC 4443 §4.1).
pub async fn ping(address: SocketAddr, clock: &Clock) -> Result<String, Failed> {
    let PingSocket { socket, raw } = match socket::ping(address.ip()) {
        Ok(socket) => socket,
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            let missing = "ping is not allowed here: widen net.ipv4.ping_group_range, or give the process CAP_NET_RAW";
            return Err(Failed::Unable(Unable::Missing(missing.to_owned())));
        }
        Err(error) => return Err(failed(error)),
    };
    let socket = UdpSocket::from_std(socket).map_err(failed)?;
    let v4 = address.is_ipv4();
    let dice = dice().to_be_bytes();
    let (question, reply) = if v4 { (8, 0) } else { (128, 129) };
    // Type, code, checksum, number of the asker (which the kernel sets on a socket for pings), number of the question.
    let mut echo = vec![question, 0, 0, 0, dice[0], dice[1], dice[2], dice[3]];
    echo.extend_from_slice(&dice);
    if v4 {
        let sum = checksum(&echo).to_be_bytes();
        echo[2..4].copy_from_slice(&sum);
    }
    socket.send(&echo).await.map_err(failed)?;
    let mut answer = [0; 1500];
    loop {
        let received = clock.within("waiting for the echo", async { Ok(socket.recv(&mut answer).await) }).await?;
        let packet = &answer[..received.map_err(failed)?];
        // On a raw socket of IPv4 the header of IP stands before it (RFC 791 §3.1).
        let skip = if raw && v4 { usize::from(packet.first().copied().unwrap_or(0) & 0x0f) * 4 } else { 0 };
        let Some(message) = packet.get(skip..) else { continue };
        // A raw socket hears what others asked for, too.
        if message.first() == Some(&reply) && message.get(8..16) == Some(&dice[..]) {
            return Ok("echo came back".to_owned());
        }
    }
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).copied().map_or(0, u32::from));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
