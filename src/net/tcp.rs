//! Reads and writes of a plain socket. They go to the kernel by the bare system call: libc's are points of cancellation, of
//! which each costs two locked instructions that nobody here has a use for.
//!
//! Readiness is handled as the runtime handles it for reads and single writes: after a short one it is forgotten, so that the next
//! wait costs no call that only says `EAGAIN` (epoll(7), the last question).

use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};

use rustix::net::{RecvFlags, SendFlags};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// `IOV_MAX` of Linux.
const MOST_PIECES: usize = 1024;

/// Reads what there is; 0 is the end. `WouldBlock` when there is nothing, without a system call where the runtime knows it.
pub fn read_now(tcp: &TcpStream, into: &mut [u8]) -> io::Result<usize> {
    let room = into.len();
    at_once(tcp, Interest::READABLE, room, || Ok(rustix::net::recv(tcp, &mut *into, RecvFlags::empty())?.1))
}

pub fn poll_read(tcp: &TcpStream, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
    loop {
        ready!(tcp.poll_read_ready(cx))?;
        match read_now(tcp, into) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            read => return Poll::Ready(read),
        }
    }
}

/// Writes what the kernel takes; `WouldBlock` when that is nothing.
pub fn write_now(tcp: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    at_once(tcp, Interest::WRITABLE, bytes.len(), || Ok(rustix::net::send(tcp, bytes, SendFlags::NOSIGNAL)?))
}

pub fn poll_write(tcp: &TcpStream, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
    loop {
        ready!(tcp.poll_write_ready(cx))?;
        match write_now(tcp, bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            written => return Poll::Ready(written),
        }
    }
}

/// As [`write_now`], of several pieces. (A broken pipe raises no signal: Rust programs ignore that one.)
pub fn write_vectored_now(tcp: &TcpStream, parts: &[IoSlice<'_>]) -> io::Result<usize> {
    if let [part] = parts {
        // The kernel has less to do for it: mostly there is one sealed record.
        return write_now(tcp, part);
    }
    // No call takes more pieces: what it took of these was all it looked at.
    let whole = parts.iter().take(MOST_PIECES).map(|part| part.len()).sum();
    at_once(tcp, Interest::WRITABLE, whole, || Ok(rustix::io::writev(tcp, parts)?))
}

pub fn poll_write_vectored(tcp: &TcpStream, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
    loop {
        ready!(tcp.poll_write_ready(cx))?;
        match write_vectored_now(tcp, parts) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            written => return Poll::Ready(written),
        }
    }
}

/// Makes a call where the socket is ready for it. One that moved less than `whole` leaves it not ready.
#[inline]
fn at_once(
    tcp: &TcpStream,
    interest: Interest,
    whole: usize,
    call: impl FnOnce() -> io::Result<usize>,
) -> io::Result<usize> {
    let mut short = None;
    let called = tcp.try_io(interest, || {
        let count = call()?;
        if 0 < count && count < whole {
            short = Some(count);
            // By this the runtime learns it.
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(count)
    });
    match short {
        Some(count) => Ok(count),
        None => called,
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (one, other) = tokio::join!(TcpStream::connect(address), listener.accept());
        (one.expect("a connection"), other.expect("a connection").0)
    }

    #[tokio::test]
    async fn a_short_read_is_the_last_until_more_comes() {
        let (here, mut there) = pair().await;
        let mut room = [0; 8];
        for text in ["abc", "defghijk", "x"] {
            there.write_all(text.as_bytes()).await.expect("written");
            let count = poll_fn(|cx| poll_read(&here, cx, &mut room)).await.expect("read");
            assert_eq!(&room[..count], text.as_bytes());
            let ready = here.try_io(Interest::READABLE, || Ok(())).is_ok();
            assert_eq!(ready, count == room.len(), "after {text:?}");
            assert_eq!(read_now(&here, &mut room).map_err(|error| error.kind()), Err(io::ErrorKind::WouldBlock));
        }
        drop(there);
        assert_eq!(poll_fn(|cx| poll_read(&here, cx, &mut room)).await.expect("the end"), 0);
    }

    #[tokio::test]
    async fn more_pieces_than_a_call_takes_are_no_short_write() {
        let (here, _there) = pair().await;
        let parts = vec![IoSlice::new(b"x"); MOST_PIECES + 1];
        for _ in 0..2 {
            let count = poll_fn(|cx| poll_write_vectored(&here, cx, &parts)).await.expect("written");
            assert_eq!(count, MOST_PIECES);
            assert!(here.try_io(Interest::WRITABLE, || Ok(())).is_ok(), "the kernel takes more");
        }
    }

    #[tokio::test]
    async fn all_that_is_written_arrives_however_little_the_kernel_takes_at_once() {
        let (here, there) = pair().await;
        let sent: Vec<u8> = (0..8 << 20).map(|n: u32| (n % 251) as u8).collect();
        let write = async {
            let mut at = 0;
            while at < sent.len() {
                let middle = at + (sent.len() - at) / 2;
                let parts = [IoSlice::new(&sent[at..middle]), IoSlice::new(&sent[middle..])];
                at += poll_fn(|cx| poll_write_vectored(&here, cx, &parts)).await.expect("written");
                let end = sent.len().min(at + 100_000);
                if at < end {
                    at += poll_fn(|cx| poll_write(&here, cx, &sent[at..end])).await.expect("written");
                }
            }
        };
        let read = async {
            let (mut got, mut room) = (Vec::new(), vec![0; 50_000]);
            while got.len() < sent.len() {
                let count = poll_fn(|cx| poll_read(&there, cx, &mut room)).await.expect("read");
                assert!(count > 0, "an end after {} bytes", got.len());
                got.extend_from_slice(&room[..count]);
            }
            got
        };
        let ((), got) = tokio::join!(write, read);
        assert!(got == sent);
        drop(there);
        let gone = poll_fn(|cx| poll_read(&here, cx, &mut [0; 1])).await;
        assert!(matches!(gone, Ok(0)), "{gone:?}");
    }
}
