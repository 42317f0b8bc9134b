//! The cheapest relay there can be: reads bytes, writes them to the other side, looks at none of them.
//!
//! One connection to the server for each of a client's. It is no contender: it shows how much of a proxy's time is the
//! kernel's and can be saved by nobody.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;

use rival_tools::poll::{Change, Poll};
use rival_tools::{fail, help, option};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};

const USAGE: &str = "\
A relay that only moves bytes.

usage: floor --port PORT --to PORT [--servers N]

  --port PORT      listens on 127.0.0.1:PORT
  --to PORT        and connects to 127.0.0.1:PORT, or in turn to the N ports from there on (default: 1)";

/// One side of a connection; the other is its neighbour in the list: 2 n and 2 n + 1.
struct Side {
    socket: OwnedFd,
    /// Read from the other side, not yet written here.
    waiting: Vec<u8>,
}

fn socket() -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)
}

/// Writes what waits. True: nothing waits any more.
fn flush(side: &mut Side) -> rustix::io::Result<bool> {
    while !side.waiting.is_empty() {
        match rustix::net::send(&side.socket, &side.waiting, SendFlags::NOSIGNAL) {
            Ok(n) => drop(side.waiting.drain(..n)),
            Err(Errno::AGAIN | Errno::NOTCONN) => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// Moves what has come from one side to the other, until there is no more or the other takes no more. False: one of
/// them has ended.
fn relay(from: &Side, to: &mut Side, over: bool, room: &mut [u8]) -> rustix::io::Result<bool> {
    while flush(to)? {
        let n = match rustix::net::recv(&from.socket, &mut *room, RecvFlags::empty()) {
            Ok((0, _)) => return Ok(false),
            Ok((n, _)) => n,
            Err(Errno::AGAIN | Errno::NOTCONN) => return Ok(true),
            Err(error) => return Err(error),
        };
        let sent = match rustix::net::send(&to.socket, &room[..n], SendFlags::NOSIGNAL) {
            Ok(sent) => sent,
            Err(Errno::AGAIN | Errno::NOTCONN) => 0,
            Err(error) => return Err(error),
        };
        to.waiting.extend_from_slice(&room[sent..n]);
        if n < room.len() && !over {
            return Ok(true);
        }
    }
    Ok(true)
}

fn main() -> io::Result<()> {
    help(USAGE);
    let (port, to, servers): (u16, u16, u16) = (option("port", 0), option("to", 0), option("servers", 1));
    if port == 0 || to == 0 {
        fail("--port and --to are needed; see --help");
    }
    let listener = socket()?;
    sockopt::set_socket_reuseaddr(&listener, true)?;
    rustix::net::bind(&listener, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))?;
    rustix::net::listen(&listener, 4096)?;
    const LISTENER: usize = usize::MAX;
    let mut poll = Poll::new()?;
    poll.watch_level(&listener, LISTENER)?;
    let mut pairs: Vec<Option<[Side; 2]>> = Vec::new();
    let mut turn = 0;
    let mut room = vec![0; 128 << 10];
    let mut changed = Vec::new();
    loop {
        poll.wait(None, &mut changed)?;
        for &Change { number, over } in &changed {
            if number == LISTENER {
                let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
                while let Ok(client) = rustix::net::accept_with(&listener, flags) {
                    let server = socket()?;
                    let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, to + turn);
                    turn = (turn + 1) % servers;
                    match rustix::net::connect(&server, &address) {
                        Ok(()) | Err(Errno::INPROGRESS) => {}
                        Err(error) => return Err(error.into()),
                    }
                    let at = pairs.iter().position(Option::is_none).unwrap_or(pairs.len());
                    if at == pairs.len() {
                        pairs.push(None);
                    }
                    for (side, socket) in [&client, &server].into_iter().enumerate() {
                        sockopt::set_tcp_nodelay(socket, true)?;
                        poll.watch(socket, 2 * at + side)?;
                    }
                    pairs[at] = Some([client, server].map(|socket| Side { socket, waiting: Vec::new() }));
                }
                continue;
            }
            let Some(Some([client, server])) = pairs.get_mut(number / 2) else { continue };
            let (mine, other) = if number % 2 == 0 { (client, server) } else { (server, client) };
            let goes = relay(mine, other, over, &mut room).and_then(|goes| {
                // Room for what the other side has had to keep.
                Ok(goes && (mine.waiting.is_empty() || relay(other, mine, false, &mut room)?))
            });
            if !matches!(goes, Ok(true)) {
                pairs[number / 2] = None;
            }
        }
    }
}
