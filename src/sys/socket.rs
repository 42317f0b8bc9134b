//! Sockets with the options Reeve wants.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// Connections that wait to be accepted; the kernel bounds it by `net.core.somaxconn`.
pub const BACKLOG: i32 = 4096;

/// A listening socket that shares its address with those of the other workers; the kernel spreads
/// connections over them. Accepted sockets inherit TCP_NODELAY, which saves a call on each.
///
/// # Errors
/// What the kernel says: the address is in use by somebody else, or needs a privilege.
pub fn listen_shared(address: SocketAddr) -> io::Result<TcpListener> {
    listen(address, true)
}

/// A listening socket of one's own.
///
/// # Errors
/// As [`listen_shared`].
pub fn listen_alone(address: SocketAddr) -> io::Result<TcpListener> {
    listen(address, false)
}

fn listen(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // `[::]:80` takes IPv4 too, a single address does not.
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Copies what has come and leaves it unread; 0 at the end of the stream.
///
/// # Errors
/// The socket's; `WouldBlock` when there is nothing.
pub fn peek(socket: &impl AsFd, into: &mut [u8]) -> io::Result<usize> {
    let (count, _) = rustix::net::recv(socket, into, rustix::net::RecvFlags::PEEK)?;
    Ok(count)
}

/// Takes bytes that have been seen by [`peek`].
///
/// # Errors
/// The socket's.
pub fn take(socket: &impl AsFd, mut into: &mut [u8]) -> io::Result<()> {
    while !into.is_empty() {
        match rustix::net::recv(socket, &mut *into, rustix::net::RecvFlags::empty())? {
            (0, _) => return Err(io::ErrorKind::UnexpectedEof.into()),
            (count, _) => into = into.split_at_mut(count).1,
        }
    }
    Ok(())
}

/// Bytes given to a connection's kernel that the other side has not acknowledged; 0 where it is gone.
pub fn unacknowledged(socket: &impl AsRawFd) -> usize {
    // Of a connection that is gone the kernel still says what was on its way. The state is the first byte of what it tells of
    // a connection.
    const CLOSED: u8 = 7;
    let (mut state, mut size) = (CLOSED, 1);
    let (level, name) = (libc::IPPROTO_TCP, libc::TCP_INFO);
    // SAFETY: the kernel writes no more than the one byte that it is told of, and the descriptor is open while it is borrowed.
    let told = unsafe { libc::getsockopt(socket.as_raw_fd(), level, name, (&raw mut state).cast(), &raw mut size) };
    if told != 0 || state == CLOSED {
        return 0;
    }
    asked(socket, libc::TIOCOUTQ)
}

/// Whether an urgent byte is what comes next (tcp(7), SIOCATMARK).
pub fn is_at_mark(socket: &impl AsRawFd) -> bool {
    const SIOCATMARK: libc::c_ulong = 0x8905;
    asked(socket, SIOCATMARK) != 0
}

/// A number that the kernel has of a socket; 0 where it has none.
fn asked(socket: &impl AsRawFd, what: libc::c_ulong) -> usize {
    let mut number: libc::c_int = 0;
    // SAFETY: what is asked for writes one int, and the descriptor is open while it is borrowed.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), what, &raw mut number) };
    if done == 0 { usize::try_from(number).unwrap_or(0) } else { 0 }
}

/// Makes closing this socket a reset: the peer must not take what it got for the whole.
pub fn reset_on_close(socket: &impl AsFd) {
    // It fails only on a socket that is gone already.
    let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
}

/// A UDP socket that hears one peer only, and its "unreachable".
///
/// # Errors
/// The kernel's: no descriptor, or no way there.
pub fn udp_to(peer: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(peer), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    socket.connect(&peer.into())?;
    Ok(socket.into())
}

/// A UDP socket at this address and port.
///
/// # Errors
/// The kernel's: the port is somebody's, the address is not ours, or no descriptor is left.
pub fn udp_bound(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    // A frame of a large picture comes as a burst of packets. The kernel gives what it allows.
    let _ = socket.set_recv_buffer_size(UDP_BUFFER);
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// A tenth of a second at 80 Mbit/s.
const UDP_BUFFER: usize = 1 << 20;

/// A socket for ICMP echo to one host.
#[derive(Debug)]
pub struct PingSocket {
    /// It sends and receives ICMP messages, whatever its type says.
    pub socket: UdpSocket,
    /// The kernel neither numbers nor sorts its messages.
    pub raw: bool,
}

/// A socket to ping a host with: the kind that needs no privilege, where the kernel allows it to this group, else a raw one.
///
/// # Errors
/// `PermissionDenied` when neither is allowed.
pub fn ping(host: IpAddr) -> io::Result<PingSocket> {
    let peer = SocketAddr::new(host, 0);
    let protocol = if peer.is_ipv4() { Protocol::ICMPV4 } else { Protocol::ICMPV6 };
    let open = |kind| Socket::new(Domain::for_address(peer), kind, Some(protocol));
    let (socket, raw) = match open(Type::DGRAM) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => (open(Type::RAW)?, true),
        other => (other?, false),
    };
    socket.set_nonblocking(true)?;
    socket.connect(&peer.into())?;
    Ok(PingSocket { socket: socket.into(), raw })
}
