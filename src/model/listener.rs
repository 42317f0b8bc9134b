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
