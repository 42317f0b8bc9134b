//! One connection's bytes: two halves that read into [`Buffer`]s and write slices.
//!
//! Reads go through the runtime's poll functions, which forget readiness after a short read: the next
//! wait then costs no call that only says `EAGAIN`.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};

use super::buffers::{Buffer, Buffers, SMALL};
use crate::sys::{socket, splice::Pipe};

/// A connection to a client or a server.
#[derive(Debug)]
pub struct Stream {
    tcp: TcpStream,
}

/// What is read from.
#[derive(Debug)]
pub struct Reader<'a> {
    half: ReadHalf<'a>,
}

/// What is written to.
#[derive(Debug)]
pub struct Writer<'a> {
    half: WriteHalf<'a>,
}

impl Stream {
    pub fn new(tcp: TcpStream) -> Stream {
        Stream { tcp }
    }

    pub fn split(&mut self) -> (Reader<'_>, Writer<'_>) {
        let (read, write) = self.tcp.split();
        (Reader { half: read }, Writer { half: write })
    }

    /// Whether nothing has come since the last read, not even the end: only then may the connection
    /// carry another request. Costs no system call while the runtime has seen no event.
    pub fn is_quiet(&self) -> bool {
        matches!(self.tcp.try_read(&mut [0; 1]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }
}

impl Reader<'_> {
    /// Reads what there is, `most` bytes at the most; an empty buffer is the end. A buffer is held only
    /// where something was read, not while it waits: a large one where `most` is more than a small one
    /// holds.
    pub fn fill(&mut self, buffers: &Rc<Buffers>, most: u64) -> impl Future<Output = io::Result<Buffer>> + Unpin {
        poll_fn(move |cx| self.poll_fill(cx, buffers, most))
    }

    pub fn poll_fill(&mut self, cx: &mut Context<'_>, buffers: &Rc<Buffers>, most: u64) -> Poll<io::Result<Buffer>> {
        // To take a buffer and give it back costs less than to ask first whether there is something.
        let mut buffer = if most <= SMALL as u64 { buffers.small() } else { buffers.large() };
        let room = buffer.spare();
        let most = usize::try_from(most).unwrap_or(usize::MAX).min(room.len());
        let mut room = ReadBuf::new(&mut room[..most]);
        ready!(Pin::new(&mut self.half).poll_read(cx, &mut room))?;
        let count = room.filled().len();
        buffer.added(count);
        Poll::Ready(Ok(buffer))
    }

    /// Whether nothing has come since the last read, not even the end, as far as the runtime knows.
    pub fn is_quiet(&self) -> bool {
        self.half.as_ref().try_io(Interest::READABLE, || Ok(())).is_err()
    }

    /// Reads what there is into the room of `into`; 0 is the end. There has to be room.
    pub fn read(&mut self, into: &mut Buffer) -> impl Future<Output = io::Result<usize>> + Unpin {
        poll_fn(|cx| self.poll_read(cx, into))
    }

    pub fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut Buffer) -> Poll<io::Result<usize>> {
        let mut room = ReadBuf::new(into.spare());
        ready!(Pin::new(&mut self.half).poll_read(cx, &mut room))?;
        let count = room.filled().len();
        into.added(count);
        Poll::Ready(Ok(count))
    }

    /// Moves at most `most` bytes into an empty pipe; 0 is the end.
    pub fn splice(&self, pipe: &Pipe, most: u64) -> impl Future<Output = io::Result<usize>> + Unpin {
        poll_fn(move |cx| self.poll_splice(cx, pipe, most))
    }

    pub fn poll_splice(&self, cx: &mut Context<'_>, pipe: &Pipe, most: u64) -> Poll<io::Result<usize>> {
        let tcp: &TcpStream = self.half.as_ref();
        loop {
            ready!(tcp.poll_read_ready(cx))?;
            match tcp.try_io(Interest::READABLE, || pipe.fill(tcp, most)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }
}

impl Writer<'_> {
    /// Writes what can be written at once; 0 where nothing can.
    pub fn write_now(&self, bytes: &[u8]) -> io::Result<usize> {
        match self.half.try_write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            written => written,
        }
    }

    /// Writes some of `bytes`.
    pub fn write(&mut self, bytes: &[u8]) -> impl Future<Output = io::Result<usize>> + Unpin {
        poll_fn(|cx| Pin::new(&mut self.half).poll_write(cx, bytes))
    }

    /// Moves at most `most` bytes out of a pipe.
    pub fn splice(&self, pipe: &Pipe, most: usize) -> impl Future<Output = io::Result<usize>> + Unpin {
        poll_fn(move |cx| {
            let tcp: &TcpStream = self.half.as_ref();
            loop {
                ready!(tcp.poll_write_ready(cx))?;
                match tcp.try_io(Interest::WRITABLE, || pipe.drain(tcp, most)) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    result => return Poll::Ready(result),
                }
            }
        })
    }

    /// Says that nothing more will come.
    pub fn shutdown(&mut self) -> impl Future<Output = io::Result<()>> + Unpin {
        poll_fn(|cx| Pin::new(&mut self.half).poll_shutdown(cx))
    }

    /// Makes the end of this connection a reset.
    pub fn reset_on_close(&self) {
        let tcp: &TcpStream = self.half.as_ref();
        socket::reset_on_close(tcp);
    }
}
