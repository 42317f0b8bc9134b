//! How a viewer gets its packets (RFC 2326 §12.39).

use std::io;
use std::net::SocketAddr;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UdpSocket};

pub enum Transport {
    /// Between the answers, on this channel; the next one is for reports.
    Interleaved(u8),
    Udp(Udp),
}

pub struct Udp {
    /// Connected to the viewer's first port.
    media: UdpSocket,
    /// Held so that what the viewer reports is not refused; it is not read.
    _reports: UdpSocket,
    client: u16,
    server: u16,
}

impl Transport {
    /// The first of the viewer's proposals that a camera can do.
    pub async fn agreed(proposals: &str, here: SocketAddr, there: SocketAddr) -> Option<Transport> {
        for proposal in proposals.split(',') {
            let mut words = proposal.split(';').map(str::trim);
            let kind = words.next().unwrap_or_default();
            let parameter = |name: &str| {
                let mut all = proposal.split(';').filter_map(|word| word.trim().split_once('='));
                all.find(|(word, _)| word.eq_ignore_ascii_case(name)).map(|(_, value)| value)
            };
            let first = |value: &str| value.split('-').next().unwrap_or_default().to_owned();
            match kind.to_ascii_uppercase().as_str() {
                "RTP/AVP/TCP" => {
                    let channel = parameter("interleaved").map_or(Ok(0), |value| first(value).parse::<u8>());
                    // The next one has to be there too.
                    if let Some(channel) = channel.ok().filter(|channel| *channel < u8::MAX) {
                        return Some(Transport::Interleaved(channel));
                    }
                }
                "RTP/AVP" | "RTP/AVP/UDP" if !words.any(|word| word.eq_ignore_ascii_case("multicast")) => {
                    let port = parameter("client_port").and_then(|value| first(value).parse().ok());
                    let Some(client) = port.filter(|port| *port != 0) else { continue };
                    if let Ok(udp) = Udp::open(here, there, client).await {
                        return Some(Transport::Udp(udp));
                    }
                }
                _ => {}
            }
        }
        None
    }

    /// The answer's field, as far as it is about addresses.
    pub fn line(&self) -> String {
        match self {
            Transport::Interleaved(channel) => {
                format!("RTP/AVP/TCP;unicast;interleaved={channel}-{}", channel + 1)
            }
            Transport::Udp(Udp { client, server, .. }) => {
                format!(
                    "RTP/AVP;unicast;client_port={client}-{};server_port={server}-{}",
                    client.wrapping_add(1),
                    server + 1
                )
            }
        }
    }

    pub async fn send(&self, packet: &[u8], stream: &mut TcpStream) -> io::Result<()> {
        match self {
            Transport::Interleaved(channel) => {
                let length = (packet.len() as u16).to_be_bytes();
                let mut frame = Vec::with_capacity(4 + packet.len());
                frame.extend([b'$', *channel, length[0], length[1]]);
                frame.extend(packet);
                stream.write_all(&frame).await
            }
            // What is lost by UDP is lost; nobody listening there yet, or any more, is no fault either.
            Transport::Udp(udp) => {
                let _ = udp.media.send(packet).await;
                Ok(())
            }
        }
    }
}

impl Udp {
    /// Two ports in a row, the first one even (RFC 3550 §11), at the address that the viewer knows.
    async fn open(here: SocketAddr, there: SocketAddr, client: u16) -> io::Result<Udp> {
        for _ in 0..50 {
            let media = UdpSocket::bind((here.ip(), 0)).await?;
            let server = media.local_addr()?.port();
            if server % 2 == 1 {
                continue;
            }
            let Ok(reports) = UdpSocket::bind((here.ip(), server + 1)).await else { continue };
            // Only to who asked, whatever it says about destinations: else anybody could be flooded.
            media.connect((there.ip(), client)).await?;
            return Ok(Udp { media, _reports: reports, client, server });
        }
        Err(io::ErrorKind::AddrInUse.into())
    }
}
