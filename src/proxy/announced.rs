//! Whose connection it is, where others say so: PROXY headers that come before the first byte of a
//! client's connection, and those that go before the first byte of a server's.

use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use super::registry::Connection;
use super::view::{ListenerView, View};
use super::worker::Worker;
use crate::model::listener::{AcceptProxy, HeaderMode};
use crate::model::pool::ProxyVersion;
use crate::net::{Elapsed, Stream, peek};
use crate::state::Way;
use crate::state::counters::Rejected;
use crate::sys::socket;
use crate::tls::Peer;
use crate::wire::proxy_header::{self, ClientCertificate, Endpoints, HeaderFault, ProxyHeader, Said, Tls, Tlvs};

/// What servers are told of a client's connection.
#[derive(Debug)]
pub struct Announced {
    ends: Endpoints,
    /// What came in a PROXY header besides, to be passed on.
    tlvs: Box<[u8]>,
    /// Idle connections to servers that were told whose they are: nobody else may use them.
    own: RefCell<Vec<Own>>,
}

/// A connection to a server that carries this client's requests alone.
#[derive(Debug)]
struct Own {
    server: u32,
    address: SocketAddr,
    way: Way,
    stream: Stream,
    until: Instant,
}

/// As many are kept for one client; it seldom meets more servers.
const OWN: usize = 8;

impl Announced {
    /// An idle connection of this client's to a server, the one used last; those found closed are dropped.
    /// It has to be made in the same `way`.
    pub fn take(&self, server: u32, address: SocketAddr, way: Way, now: Instant) -> Option<Stream> {
        let mut own = self.own.borrow_mut();
        own.retain(|own| own.until > now && own.stream.is_quiet());
        let fits = |own: &Own| own.server == server && own.address == address && own.way == way;
        let at = own.iter().rposition(fits)?;
        Some(own.swap_remove(at).stream)
    }

    /// Keeps a connection until `until`.
    pub fn keep(&self, server: u32, address: SocketAddr, way: Way, stream: Stream, until: Instant) {
        let mut own = self.own.borrow_mut();
        if own.len() >= OWN {
            own.remove(0);
        }
        own.push(Own { server, address, way, stream, until });
    }
}

/// The connection may not be served.
#[derive(Debug, Clone, Copy)]
pub struct Refused;

/// Learns whose connection it is, before anything is read of what it carries, and gives it back. A
/// listener that expects no header, and a peer that sends none, do not wait.
///
/// # Errors
/// When a header had to come and did not, or none that is valid. It has been counted then.
pub async fn learn(
    worker: &Worker,
    view: &View,
    listener: &ListenerView,
    connection: &Connection,
    mut tcp: TcpStream,
) -> Result<TcpStream, Refused> {
    let peer = connection.client.get();
    if let Some(accept) = listener.accept_proxy.as_ref().filter(|accept| sends(accept, peer)) {
        let limit = view.snapshot.config.timeouts.proxy_header;
        match Box::pin(receive(worker, accept, connection, &tcp, limit)).await {
            Ok(Found::Header) => {}
            Ok(Found::None) => tcp = peek::afresh(tcp).map_err(|_| Refused)?,
            Err(detail) => {
                worker.counters.borrow_mut().rejected(connection.listener, Rejected::ProxyHeader);
                tracing::debug!(listener = %listener.name, %peer, "{detail}");
                return Err(Refused);
            }
        }
    }
    if view.announces && connection.announced.get().is_none() {
        let destination = tcp.local_addr().unwrap_or(NOWHERE);
        let ends = Endpoints { source: peer, destination };
        let _ = connection.announced.set(Box::new(Announced { ends, tlvs: Box::default(), own: RefCell::default() }));
    }
    Ok(tcp)
}

/// What a connection of one that may send a header began with.
enum Found {
    Header,
    /// Something else, which is still unread.
    None,
}

const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// Whether this peer is one of those that send a header.
fn sends(accept: &AcceptProxy, peer: SocketAddr) -> bool {
    accept.from.iter().any(|net| net.contains(&peer.ip()))
}

/// Takes the header from the connection, and not a byte more.
async fn receive(
    worker: &Worker,
    accept: &AcceptProxy,
    connection: &Connection,
    tcp: &TcpStream,
    limit: Duration,
) -> Result<Found, &'static str> {
    let optional = accept.mode == HeaderMode::Optional;
    let started = Instant::now();
    let mut seen = 0;
    // A buffer is held only once something has come.
    let readable = connection.timer.wait(limit, Box::pin(tcp.readable())).await;
    let mut buffer = worker.buffers.small();
    let room = buffer.spare();
    loop {
        let left = limit.saturating_sub(started.elapsed());
        let more = match readable {
            Err(Elapsed) => Err(Elapsed),
            _ if left.is_zero() => Err(Elapsed),
            _ => connection.timer.wait(left, Box::pin(peek::more(tcp, room, seen))).await,
        };
        let ended = match more {
            Ok(Ok(count)) => {
                let ended = count <= seen;
                seen = count;
                ended
            }
            Ok(Err(_)) => return Err("the connection broke before its PROXY header"),
            // Nothing has been taken from it.
            Err(Elapsed) if optional => return Ok(Found::None),
            Err(Elapsed) => return Err("no PROXY header came in time"),
        };
        match proxy_header::parse(&room[..seen]) {
            Ok(Some(header)) => {
                note(connection, &header);
                let length = header.length;
                let taken = socket::take(tcp, &mut room[..length]);
                return taken.map(|()| Found::Header).map_err(|_| "the connection broke");
            }
            Ok(None) if !ended => {}
            Ok(None) | Err(HeaderFault::Absent) if optional => return Ok(Found::None),
            Ok(None) => return Err("the connection ended before its PROXY header did"),
            Err(fault) => return Err(fault.detail()),
        }
    }
}

/// PP §2: the connection's own addresses stand where the header names none.
fn note(connection: &Connection, header: &ProxyHeader<'_>) {
    if let Said::Ip(ends) = header.said {
        connection.client.set(SocketAddr::new(ends.source.ip().to_canonical(), ends.source.port()));
        let _ = connection.announced.set(Box::new(Announced {
            ends,
            tlvs: header.tlvs.as_bytes().into(),
            own: RefCell::default(),
        }));
    }
}

/// Appends the header that a connection to a server begins with, when it carries this client's. Of TLS that is
/// ended here, what a header that came in said is left out: it told of another session, or of none.
pub fn write(connection: &Connection, version: ProxyVersion, out: &mut Vec<u8>) {
    // Unknown only for a client that was here before any pool wanted to know.
    let (ends, tlvs) = match connection.announced.get() {
        Some(announced) => (announced.ends, Tlvs::of(&announced.tlvs)),
        None => (Endpoints { source: connection.client.get(), destination: NOWHERE }, Tlvs::default()),
    };
    match version {
        ProxyVersion::V1 => proxy_header::write_v1(Some(ends), out),
        ProxyVersion::V2 => match connection.tls.get() {
            None => proxy_header::write_v2(Some(ends), tlvs.to_pass_on(), out),
            Some(peer) => {
                let tls = tls(peer);
                let ssl = tls.ssl();
                // Ours first: where not all of them fit, those that came in are left out.
                let passed = tlvs.to_pass_on().filter(|(kind, _)| !proxy_header::tells_of_tls(*kind));
                proxy_header::write_v2(Some(ends), tls.values(&ssl).chain(passed), out);
            }
        },
    }
}

fn tls(peer: &Peer) -> Tls<'_> {
    Tls {
        version: peer.version,
        cipher: peer.cipher,
        alpn: peer.alpn.as_deref(),
        authority: peer.sni.as_deref(),
        certificate: peer.certificate.as_ref().map(|certificate| ClientCertificate {
            common_name: certificate.common_name.as_deref(),
            shown_now: !peer.resumed,
        }),
    }
}
