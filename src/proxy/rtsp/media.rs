//! What SETUP asks for and gets: `Transport` as it goes to the server and as it comes back to the client.

use std::net::IpAddr;

use super::relay::Sockets;
use crate::model::listener::Carrier;
use crate::wire::rtsp::transport::{self, Lower, Pair, Spec};

/// What a client asked for by UDP, and what the server was asked for in its place.
#[derive(Debug)]
pub struct Asked {
    /// Where the client wants it; the ports may be 0 or missing, where it does not say.
    pub client: Option<Pair>,
    pub sockets: Sockets,
}

/// A way through which the server agreed to.
#[derive(Debug)]
pub enum Agreed {
    /// On these channels of the connection.
    Interleaved(Option<(u8, u8)>),
    /// By packets: from these ports of the server, at this address if it says so.
    Packets { server: Option<Pair>, source: Option<IpAddr> },
    /// Something of the two's own.
    Other,
}

/// The value that the server gets: the ways that can be had here, the one liked best first. `sockets` is asked once,
/// where one of them takes ports. `None`: no way is left (461).
pub fn request(
    value: &str,
    carrier: Carrier,
    sockets: impl FnOnce() -> Option<Sockets>,
) -> Option<(String, Option<Asked>)> {
    if carrier == Carrier::Direct {
        return Some((value.to_owned(), None));
    }
    let relays = matches!(carrier, Carrier::Relay | Carrier::Offload | Carrier::Redirect);
    let specs = transport::parse(value);
    let first = specs.iter().find(|spec| relays && spec.lower() == Lower::Unicast);
    let asked = first.and_then(|spec| Some(Asked { client: spec.ports("client_port"), sockets: sockets()? }));
    let mut out = String::new();
    for spec in &specs {
        let lower = spec.lower();
        match (&asked, lower) {
            (_, Lower::Interleaved) => {
                separate(&mut out);
                // Packets go nowhere else by this.
                spec.write(&["client_port", "destination", "source"], &[], &mut out);
            }
            (Some(asked), Lower::Unicast) => {
                separate(&mut out);
                // As many ports as it would have had.
                let one = asked.client.is_some_and(|pair| pair.rtcp.is_none());
                let own = asked.sockets.upstream_port();
                let pair = Pair { rtp: own, rtcp: (!one).then_some(own + 1) };
                let left_out = ["client_port", "destination", "source", "interleaved"];
                spec.write(&left_out, &[("client_port", pair.text())], &mut out);
            }
            // A group of the servers' network is none of the clients', and what is not known cannot be stood in for.
            _ => {}
        }
    }
    (!out.is_empty()).then_some((out, asked))
}

fn separate(out: &mut String) {
    if !out.is_empty() {
        out.push(',');
    }
}

/// What a server's answer says.
pub fn agreed(value: &str) -> Agreed {
    let specs = transport::parse(value);
    let Some(spec) = specs.first() else { return Agreed::Other };
    match spec.lower() {
        Lower::Interleaved => Agreed::Interleaved(channels(spec)),
        Lower::Unicast => Agreed::Packets {
            server: spec.ports("server_port"),
            source: spec.param("source").and_then(|source| source.parse().ok()),
        },
        Lower::Multicast | Lower::Other => Agreed::Other,
    }
}

/// Whether media can come from where a server says that it does: not from an address that means another host to each.
pub fn is_source(source: IpAddr, server: IpAddr) -> bool {
    let source = source.to_canonical();
    !source.is_unspecified() && !source.is_multicast() && (!source.is_loopback() || server.is_loopback())
}

fn channels(spec: &Spec<'_>) -> Option<(u8, u8)> {
    let value = spec.param("interleaved")?;
    let (first, second) = value.split_once('-').unwrap_or((value, value));
    Some((first.trim().parse().ok()?, second.trim().parse().ok()?))
}

/// A server's answer as the client gets it: it is we who send, from `port` at `address`.
pub fn relayed(value: &str, asked: &Asked, address: IpAddr, port: u16) -> Option<String> {
    let specs = transport::parse(value);
    let spec = specs.first()?;
    let mut added = Vec::new();
    if let Some(client) = asked.client {
        added.push(("client_port", client.text()));
    }
    let one = spec.ports("server_port").is_some_and(|pair| pair.rtcp.is_none());
    added.push(("server_port", Pair { rtp: port, rtcp: (!one).then_some(port + 1) }.text()));
    added.push(("source", address.to_string()));
    let mut out = String::new();
    spec.write(&["client_port", "server_port", "source", "destination"], &added, &mut out);
    Some(out)
}

/// A server's answer with the address that media comes from, where it does not say.
pub fn direct(value: &str, server: IpAddr) -> Option<String> {
    let specs = transport::parse(value);
    let spec = specs.first().filter(|spec| spec.lower() == Lower::Unicast && spec.param("source").is_none())?;
    let mut out = String::new();
    spec.write(&[], &[("source", server.to_string())], &mut out);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GSTREAMER: &str = "RTP/AVP;unicast;client_port=4-5,RTP/AVP;multicast,RTP/AVP/TCP;unicast;interleaved=0-1";

    #[test]
    fn ways_that_cannot_be_had_are_not_asked_for() {
        let only = |value, carrier| request(value, carrier, || None).map(|(value, _)| value);
        let tcp = Some("RTP/AVP/TCP;unicast;interleaved=0-1".to_owned());
        assert_eq!(only(GSTREAMER, Carrier::Refuse), tcp);
        assert_eq!(only(GSTREAMER, Carrier::Relay), tcp, "no port is left");
        assert_eq!(only("RTP/AVP/UDP;unicast;client_port=4-5", Carrier::Refuse), None);
        assert_eq!(only(GSTREAMER, Carrier::Direct), Some(GSTREAMER.to_owned()));
        assert_eq!(only("", Carrier::Relay), None);
        let both = "RTP/AVP;unicast;client_port=9-10;destination=203.0.113.5;interleaved=0-1";
        assert_eq!(only(both, Carrier::Refuse), None, "it is by packets");
        let aimed = "RTP/AVP/TCP;unicast;client_port=9-10;destination=203.0.113.5;source=1.2.3.4;interleaved=0-1";
        assert_eq!(only(aimed, Carrier::Refuse), tcp);
    }

    #[test]
    fn direct_media_has_a_source() {
        let address = IpAddr::from([10, 0, 0, 9]);
        let value = "RTP/AVP;unicast;client_port=4-5;server_port=6-7";
        assert_eq!(direct(value, address), Some(format!("{value};source=10.0.0.9")));
        assert_eq!(direct("RTP/AVP;unicast;source=1.2.3.4", address), None);
        assert_eq!(direct("RTP/AVP/TCP;interleaved=0-1", address), None);
    }

    #[test]
    fn sources_that_mean_another_host_are_none() {
        let is = |source: &str, server: &str| is_source(source.parse().unwrap(), server.parse().unwrap());
        assert!(is("10.0.0.7", "10.0.0.9") && is("127.0.0.1", "127.0.0.9") && is("::1", "127.0.0.1"));
        assert!(!is("0.0.0.0", "127.0.0.1") && !is("127.0.0.1", "10.0.0.9") && !is("::ffff:127.0.0.1", "10.0.0.9"));
    }

    #[test]
    fn what_servers_agree_to() {
        assert!(matches!(agreed("RTP/AVP/TCP;unicast;interleaved=2-3;ssrc=1"), Agreed::Interleaved(Some((2, 3)))));
        assert!(matches!(agreed("RTP/AVP/TCP;unicast"), Agreed::Interleaved(None)));
        let Agreed::Packets { server, source } = agreed("RTP/AVP;client_port=1-2;server_port=6-7;source=10.0.0.1")
        else {
            panic!("packets");
        };
        assert_eq!((server, source), (Some(Pair { rtp: 6, rtcp: Some(7) }), Some(IpAddr::from([10, 0, 0, 1]))));
    }
}
