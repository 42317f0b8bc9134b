//! Where clients arrive.

use std::net::SocketAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::fault::Place;
use super::tls::ListenerTls;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    pub name: Arc<str>,
    pub addresses: Vec<SocketAddr>,
    pub protocol: Protocol,
    /// Position in `Config::rule_sets` of the rules that requests of this listener meet.
    pub rules: usize,
    /// Where a request goes that no rule section takes.
    pub pool: Option<Arc<str>>,
    /// Peers whose X-Forwarded-* fields are believed and appended to; those of others are replaced.
    pub trusted: Vec<IpNet>,
    /// Whether the `Forwarded` field (RFC 7239) is sent besides X-Forwarded-*.
    pub forwarded: bool,
    /// Peers that say in a PROXY header whose connection it is.
    pub accept_proxy: Option<AcceptProxy>,
    /// `None`: it speaks in clear.
    pub tls: Option<ListenerTls>,
    /// Of RTSP: how media comes to clients.
    pub media: Media,
    /// False when the listener needs a part that is not built yet: it is then not opened at all.
    pub built: bool,
    pub place: Place,
}

/// `accept-proxy-protocol`. Of peers outside of `from` no byte is ever taken for a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcceptProxy {
    pub from: Vec<IpNet>,
    pub mode: HeaderMode,
}

/// Whether the peers that may send a PROXY header have to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderMode {
    /// A connection without one is closed.
    Required,
    /// A connection without one is the peer's own.
    Optional,
}

/// How the media of RTSP sessions comes to clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Media {
    pub carrier: Carrier,
    /// The first and the last UDP port that is used for media.
    pub ports: (u16, u16),
    /// Whether URLs that name a server are made to name this listener in what clients get.
    pub rewrite_urls: bool,
    /// User agents whose names begin so are relayed where others are redirected, for they do not follow.
    pub redirect_except: Vec<Arc<str>>,
}

/// Who carries media between a server and a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// We do, from a port of ours to a port of ours.
    Relay,
    /// As by [`Carrier::Relay`], but the director rewrites packets in the kernel, where it can.
    Offload,
    /// Nobody, by UDP: it comes on the client's connection.
    Refuse,
    /// The client is sent to the server.
    Redirect,
    /// The servers, from their own addresses.
    Direct,
}

impl Default for Media {
    fn default() -> Media {
        Media {
            carrier: Carrier::Relay,
            // Below what the kernel gives to others (32768 up), and where media has always been.
            ports: (16_384, 32_767),
            rewrite_urls: false,
            redirect_except: vec!["go2rtc".into()],
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    Http,
    Rtsp,
    TlsPassthrough,
    Tcp,
}

impl Protocol {
    /// The configuration's word for it.
    pub fn word(self) -> &'static str {
        match self {
            Protocol::Http => "http",
            Protocol::Rtsp => "rtsp",
            Protocol::TlsPassthrough => "tls-passthrough",
            Protocol::Tcp => "tcp",
        }
    }
}
