//! One stream by UDP: packets from ports of ours to ports of ours, both ways.
//!
//! ```text
//!   client:cp  <-->  (outside) VIP:n    | this |  own address:m    (inside)  <-->  server:sp      RTP
//!   client:cp' <-->            VIP:n+1  | task |  own address:m+1            <-->  server:sp'     RTCP
//! ```
//!
//! A client's address is that of its connection and nobody else's; its port is what it said, until its first packet
//! shows the real one (behind NAT it is another). A server's address and port are learnt the same way: many send from the
//! address that the route has, and not from the one that they were connected to.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::ReadBuf;
use tokio::net::UdpSocket;
use tokio::sync::oneshot;

use super::super::worker::Worker;
use super::offload::Offload;
use super::reports::Reports;
use crate::state::media::load::{Carried, Way};
use crate::state::media::ports::{Ports, Taken};
use crate::state::media::sessions::{Session, Stream};
use crate::state::media::shares::Share;
use crate::state::media::tracks::Flow;
use crate::sys::socket::udp_bound;
use crate::wire::rtsp::transport::Pair;

/// Packets of one socket that are passed on before others get their turn.
const BURST: usize = 64;
/// Pairs of ports that are tried where others have some of them.
const TRIES: usize = 64;

/// The sockets of one stream, before it flows.
#[derive(Debug)]
pub struct Sockets {
    outside: Bound,
    inside: Bound,
    _share: Share,
}

/// A pair of ports at one address.
#[derive(Debug)]
struct Bound {
    sockets: [UdpSocket; 2],
    address: IpAddr,
    taken: Taken,
}

impl Bound {
    /// Where RTP (0) or RTCP (1) comes.
    fn at(&self, kind: usize) -> SocketAddr {
        SocketAddr::new(self.address, self.taken.first() + kind as u16)
    }
}

impl Sockets {
    /// Ports at the address that the client came to, and at the one from which its server is spoken to. `None` when
    /// there are none left.
    pub fn open(share: Share, ports: &Arc<Ports>, outside: IpAddr, inside: IpAddr) -> Option<Sockets> {
        Some(Sockets { outside: bind(ports, outside)?, inside: bind(ports, inside)?, _share: share })
    }

    /// Where the server is to send: the even port.
    pub fn upstream_port(&self) -> u16 {
        self.inside.taken.first()
    }

    /// Where the client is to send.
    pub fn client_port(&self) -> u16 {
        self.outside.taken.first()
    }
}

fn bind(ports: &Arc<Ports>, address: IpAddr) -> Option<Bound> {
    for _ in 0..TRIES.min(ports.count()) {
        let taken = ports.take()?;
        let socket = |port| UdpSocket::from_std(udp_bound(SocketAddr::new(address, port))?);
        match (socket(taken.first()), socket(taken.first() + 1)) {
            (Ok(rtp), Ok(rtcp)) => return Some(Bound { sockets: [rtp, rtcp], address, taken }),
            (Err(error), _) | (_, Err(error)) if error.kind() == io::ErrorKind::AddrInUse => {}
            _ => return None,
        }
    }
    None
}

/// One end of a stream's RTP or RTCP.
#[derive(Debug, Default)]
struct Peer {
    /// Where to send; `None` while that is not known.
    at: Cell<Option<SocketAddr>>,
    /// It has sent something: it stays what it is.
    latched: Cell<bool>,
}

/// Who may send to a stream.
#[derive(Debug, Clone, Copy)]
pub struct Ends {
    pub client: IpAddr,
    pub client_ports: Option<Pair>,
    /// Where the server is spoken to.
    pub server: IpAddr,
    /// Where it says that media comes from.
    pub source: Option<IpAddr>,
    pub server_ports: Option<Pair>,
}

/// Begins to pass on, until the stream ends. With `offloads`, the director does what it can of it; then what is told when it
/// has been asked.
pub fn start(
    worker: &Rc<Worker>,
    flow: Flow,
    sockets: Sockets,
    ends: Ends,
    offloads: bool,
) -> Option<oneshot::Receiver<()>> {
    let session = flow.session().clone();
    let commands = worker.farm.director().filter(|_| offloads);
    let (offload, waits) = commands.map(|commands| Offload::new(commands.clone())).unzip();
    let at = |address: IpAddr, pair: Option<Pair>| {
        let port = |port: Option<u16>| Peer {
            at: Cell::new(port.filter(|port| *port > 0).map(|port| SocketAddr::new(address, port))),
            ..Peer::default()
        };
        [port(pair.map(|pair| pair.rtp)), port(pair.and_then(|pair| pair.rtcp))]
    };
    let task = Task {
        worker: worker.clone(),
        clients: at(ends.client, ends.client_ports),
        servers: at(ends.source.unwrap_or(ends.server), ends.server_ports),
        counted: RefCell::new(session.stream(Carried::Relayed)),
        session,
        flow,
        sockets,
        ends,
        reports: Reports::default(),
        offload,
    };
    tokio::task::spawn_local(task.run());
    waits
}

pub struct Task {
    pub worker: Rc<Worker>,
    pub session: Arc<Session>,
    sockets: Sockets,
    clients: [Peer; 2],
    servers: [Peer; 2],
    pub ends: Ends,
    reports: Reports,
    counted: RefCell<Stream>,
    offload: Option<Offload>,
    /// Let go of last: then the ports are free, and the stream is counted no more.
    flow: Flow,
}

impl Task {
    async fn run(self) {
        let Some(offload) = &self.offload else { return self.passes().await };
        tokio::select! {
            biased;
            () = self.passes() => {}
            never = offload.tend(&self) => match never {},
        }
        offload.end(&self).await;
    }

    /// The two ends of RTP (0) or RTCP (1): client and server, as far as they are known.
    pub fn known(&self, kind: usize) -> Option<(SocketAddr, SocketAddr)> {
        Some((self.clients[kind].at.get()?, self.servers[kind].at.get()?))
    }

    /// Where they send to: the port that the client was told, and the server's.
    pub fn addresses(&self, kind: usize) -> (SocketAddr, SocketAddr) {
        (self.sockets.outside.at(kind), self.sockets.inside.at(kind))
    }

    /// Whoever sends this way has shown where he is.
    pub fn stays(&self, way: Way, kind: usize, at: SocketAddr) {
        let peers = match way {
            Way::ToServer => &self.clients,
            Way::ToClient => &self.servers,
        };
        peers[kind].at.set(Some(at));
        peers[kind].latched.set(true);
    }

    /// How the stream is carried from now on.
    pub fn count_as(&self, carried: Carried) {
        *self.counted.borrow_mut() = self.session.stream(carried);
    }

    /// Whoever holds a session ends it when it expires.
    async fn passes(&self) {
        let mut ended = pin!(self.flow.ended());
        poll_fn(|cx| {
            if ended.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            self.pass(cx);
            Poll::Pending
        })
        .await;
    }

    /// Passes on what has come, and has the task called when more does.
    fn pass(&self, cx: &mut Context<'_>) {
        let mut buffer = self.worker.buffers.large();
        let room = buffer.spare();
        for kind in [0, 1] {
            self.way(cx, room, kind, Way::ToClient);
            self.way(cx, room, kind, Way::ToServer);
        }
    }

    /// One direction of RTP (0) or RTCP (1).
    fn way(&self, cx: &mut Context<'_>, room: &mut [u8], kind: usize, way: Way) {
        let (outside, inside) = (&self.sockets.outside.sockets[kind], &self.sockets.inside.sockets[kind]);
        let (from, to) = match way {
            Way::ToClient => (inside, outside),
            Way::ToServer => (outside, inside),
        };
        let (mut packets, mut bytes) = (0, 0);
        for turn in 0..=BURST {
            if turn == BURST {
                cx.waker().wake_by_ref();
                break;
            }
            let mut read = ReadBuf::new(room);
            let sender = match from.poll_recv_from(cx, &mut read) {
                Poll::Ready(Ok(sender)) => SocketAddr::new(sender.ip().to_canonical(), sender.port()),
                // Somebody's port was closed, as the kernel was told: it may be opened.
                Poll::Ready(Err(_)) => continue,
                Poll::Pending => break,
            };
            let packet = read.filled();
            let Some(receiver) = self.admit(way, kind, sender) else { continue };
            if kind == 1 {
                self.reports.look(packet, self.session.server.media());
            }
            packets += 1;
            bytes += packet.len() as u64;
            // What the kernel has no room for is lost, as packets are.
            let _ = to.try_send_to(packet, receiver);
        }
        if packets > 0 {
            self.session.traffic.add(way, packets, bytes);
            self.session.server.media().traffic.add(way, packets, bytes);
            if way == Way::ToServer {
                self.session.touch(self.worker.unix_seconds());
            }
        }
    }

    /// Where a packet of this sender goes; `None`: nowhere, for it is nobody's, or it is not known yet.
    fn admit(&self, way: Way, kind: usize, sender: SocketAddr) -> Option<SocketAddr> {
        let (own, other) = match way {
            Way::ToServer => (&self.clients[kind], &self.servers[kind]),
            Way::ToClient => (&self.servers[kind], &self.clients[kind]),
        };
        if !own.latched.get() {
            let known = own.at.get();
            let may = match way {
                Way::ToServer => sender.ip() == self.ends.client,
                // From its address, whatever the port; or from the port that it said, whatever the address, while
                // it begins to play.
                Way::ToClient => {
                    let address = self.ends.source.unwrap_or(self.ends.server);
                    let named = || known.is_some_and(|known| known.port() == sender.port());
                    sender.ip() == address || named() && self.session.began_to_play(self.worker.unix_seconds())
                }
            };
            if !may {
                return None;
            }
            own.latched.set(true);
            own.at.set(Some(sender));
            if let Some(offload) = self.offload.as_ref().filter(|_| known != Some(sender)) {
                offload.look_again();
            }
        } else if own.at.get() != Some(sender) {
            return None;
        }
        other.at.get()
    }
}
