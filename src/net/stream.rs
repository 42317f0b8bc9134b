//! One connection's bytes, plain or TLS: two halves that read into [`Buffer`]s and write slices.
//!
//! The calls themselves are in `tcp` and `secure`.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use rustls::Connection;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};

use super::buffers::{Buffer, Buffers, SMALL};
use super::ending::Ending;
use super::secure::{self, Session};
use super::tcp;
use crate::sys::{socket, splice::Pipe};

/// A connection to a client or a server.
#[derive(Debug)]
pub enum Stream {
    Plain(TcpStream),
    /// In a box: plain connections are to stay small.
    Tls(Box<RefCell<Session>>),
}

/// What is read from.
#[derive(Debug)]
pub struct Reader<'a> {
    half: Half<'a, ReadHalf<'a>>,
}

/// What is written to.
#[derive(Debug)]
pub struct Writer<'a> {
    half: Half<'a, WriteHalf<'a>>,
}

/// Both halves of a TLS connection turn the one session, each for the length of a call.
#[derive(Debug)]
enum Half<'a, H> {
    Plain(H),
    Tls(&'a RefCell<Session>),
}

impl Stream {
    pub fn plain(tcp: TcpStream) -> Stream {
        Stream::Plain(tcp)
    }

    /// `tls` has finished its handshake on `tcp`.
    pub fn tls(tcp: TcpStream, tls: impl Into<Connection>) -> Stream {
        Stream::Tls(Box::new(RefCell::new(Session::new(tcp, tls))))
    }

    pub fn split(&mut self) -> (Reader<'_>, Writer<'_>) {
        match self {
            Stream::Plain(tcp) => {
                let (read, write) = tcp.split();
                (Reader { half: Half::Plain(read) }, Writer { half: Half::Plain(write) })
            }
            Stream::Tls(session) => (Reader { half: Half::Tls(session) }, Writer { half: Half::Tls(session) }),
        }
    }

    pub fn is_plain(&self) -> bool {
        matches!(self, Stream::Plain(_))
    }

    /// Our end of it.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        match self {
            Stream::Plain(tcp) => tcp.local_addr(),
            Stream::Tls(session) => session.borrow().tcp().local_addr(),
        }
    }

    /// Makes the end of this connection a reset.
    pub fn reset_on_close(&mut self) {
        self.split().1.reset_on_close();
    }

    /// Whether nothing has come since the last read, not even the end: only then may the connection
    /// carry another request. Costs no system call while the runtime has seen no event.
    pub fn is_quiet(&self) -> bool {
        match self {
            Stream::Plain(tcp) => {
                matches!(tcp.try_read(&mut [0; 1]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
            }
            Stream::Tls(session) => session.borrow_mut().is_quiet(),
        }
    }
}

impl Reader<'_> {
    /// Reads what there is, `most` bytes at the most; an empty buffer is the end. A buffer is held only
    /// where something was read, not while it waits: a large one where `most` is more than a small one
    /// holds.
    pub fn fill(&mut self, buffers: &Rc<Buffers>, most: u64) -> impl Future<Output = io::Result<Buffer>> + Unpin {
        poll_fn(move |cx| self.poll_fill(cx, buffers, most, 0))
    }

    /// As [`Reader::fill`], for what is going to `to`.
    pub fn fill_for(
        &mut self,
        to: &Writer<'_>,
        buffers: &Rc<Buffers>,
        most: u64,
    ) -> impl Future<Output = io::Result<Buffer>> + Unpin {
        let begin = to.begin();
        poll_fn(move |cx| self.poll_fill(cx, buffers, most, begin))
    }

    /// `begin`: how far into the buffer its bytes begin.
    pub fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        buffers: &Rc<Buffers>,
        most: u64,
        begin: usize,
    ) -> Poll<io::Result<Buffer>> {
        // To take a buffer and give it back costs less than to ask first whether there is something.
        let mut buffer = if most <= SMALL as u64 { buffers.small() } else { buffers.large() };
        buffer.begin_at(begin);
        let room = buffer.spare();
        let most = usize::try_from(most).unwrap_or(usize::MAX).min(room.len());
        let count = ready!(self.half.poll_read(cx, &mut room[..most]))?;
        buffer.added(count);
        Poll::Ready(Ok(buffer))
    }

    pub fn is_plain(&self) -> bool {
        matches!(self.half, Half::Plain(_))
    }

    /// Whether nothing has come since the last read, not even the end, as far as the runtime knows.
    pub fn is_quiet(&self) -> bool {
        match &self.half {
            Half::Plain(half) => half.as_ref().try_io(Interest::READABLE, || Ok(())).is_err(),
            Half::Tls(session) => session.borrow_mut().seems_quiet(),
        }
    }

    /// To be told when the other side ends the connection, whatever has been sent before and not been read.
    ///
    /// # Errors
    /// When no descriptor is left for it.
    pub fn watch(&self) -> io::Result<Ending> {
        match &self.half {
            Half::Plain(half) => {
                let tcp: &TcpStream = half.as_ref();
                Ending::of(tcp)
            }
            Half::Tls(session) => Ending::of(session.borrow().tcp()),
        }
    }

    /// Reads what there is into the room of `into`; 0 is the end. There has to be room.
    pub fn read(&mut self, into: &mut Buffer) -> impl Future<Output = io::Result<usize>> + Unpin {
        poll_fn(|cx| self.poll_read(cx, into))
    }

    pub fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut Buffer) -> Poll<io::Result<usize>> {
        let count = ready!(self.half.poll_read(cx, into.spare()))?;
        into.added(count);
        Poll::Ready(Ok(count))
    }

    /// Moves at most `most` bytes into an empty pipe; 0 is the end. Only a plain connection can.
    pub fn splice(&self, pipe: &Pipe, most: u64) -> impl Future<Output = io::Result<usize>> + Unpin {
        poll_fn(move |cx| self.poll_splice(cx, pipe, most, false))
    }

    /// As [`Reader::splice`]. `or_mark`: 0 also where an urgent byte comes next, which the kernel moves nowhere: a read skips it.
    pub fn poll_splice(&self, cx: &mut Context<'_>, pipe: &Pipe, most: u64, or_mark: bool) -> Poll<io::Result<usize>> {
        let Half::Plain(half) = &self.half else { return Poll::Ready(Err(io::ErrorKind::Unsupported.into())) };
        let tcp: &TcpStream = half.as_ref();
        loop {
            ready!(tcp.poll_read_ready(cx))?;
            let fill = || match pipe.fill(tcp, most) {
                Err(error) if or_mark && error.kind() == io::ErrorKind::WouldBlock && socket::is_at_mark(tcp) => Ok(0),
                result => result,
            };
            match tcp.try_io(Interest::READABLE, fill) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }
}

impl Half<'_, ReadHalf<'_>> {
    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        match self {
            Half::Plain(half) => {
                let tcp: &TcpStream = (*half).as_ref();
                tcp::poll_read(tcp, cx, into)
            }
            Half::Tls(session) => session.borrow_mut().poll_read(cx, into),
        }
    }
}

impl Writer<'_> {
    fn begin(&self) -> usize {
        if self.is_plain() { 0 } else { secure::BEGIN }
    }

    pub fn is_plain(&self) -> bool {
        matches!(self.half, Half::Plain(_))
    }

    /// Writes what can be written at once; 0 where nothing can.
    pub fn write_now(&self, bytes: &[u8]) -> io::Result<usize> {
        match &self.half {
            Half::Plain(half) => match tcp::write_now(half.as_ref(), bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
                written => written,
            },
            Half::Tls(session) => session.borrow_mut().write_now(bytes),
        }
    }

    /// Whether some of what was written has not reached the kernel yet: [`Writer::send`] waits for it.
    /// Never so on a plain connection.
    pub fn is_behind(&self) -> bool {
        match &self.half {
            Half::Plain(_) => false,
            Half::Tls(session) => session.borrow().is_behind(),
        }
    }

    /// Moves some of what waits on to the kernel.
    pub fn send(&mut self) -> impl Future<Output = io::Result<()>> + Unpin {
        poll_fn(|cx| match &self.half {
            Half::Plain(_) => Poll::Ready(Ok(())),
            Half::Tls(session) => session.borrow_mut().poll_send(cx),
        })
    }

    /// Writes some of `bytes`.
    pub fn write(&mut self, bytes: &[u8]) -> impl Future<Output = io::Result<usize>> + Unpin {
        poll_fn(|cx| match &mut self.half {
            Half::Plain(half) => tcp::poll_write((*half).as_ref(), cx, bytes),
            Half::Tls(session) => session.borrow_mut().poll_write(cx, bytes),
        })
    }

    /// Moves at most `most` bytes out of a pipe. Only a plain connection can.
    pub fn splice(&self, pipe: &Pipe, most: usize) -> impl Future<Output = io::Result<usize>> + Unpin {
        poll_fn(move |cx| {
            let Half::Plain(half) = &self.half else { return Poll::Ready(Err(io::ErrorKind::Unsupported.into())) };
            let tcp: &TcpStream = half.as_ref();
            loop {
                ready!(tcp.poll_write_ready(cx))?;
                match tcp.try_io(Interest::WRITABLE, || pipe.drain(tcp, most)) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    result => return Poll::Ready(result),
                }
            }
        })
    }

    /// Says that nothing more will come; over TLS with the close_notify that says that all came.
    pub fn shutdown(&mut self) -> impl Future<Output = io::Result<()>> + Unpin {
        poll_fn(|cx| match &mut self.half {
            Half::Plain(half) => Pin::new(half).poll_shutdown(cx),
            Half::Tls(session) => session.borrow_mut().poll_shutdown(cx),
        })
    }

    /// Bytes that the other side has not acknowledged.
    pub fn unacknowledged(&self) -> usize {
        match &self.half {
            Half::Plain(half) => {
                let tcp: &TcpStream = half.as_ref();
                socket::unacknowledged(tcp)
            }
            Half::Tls(session) => socket::unacknowledged(session.borrow().tcp()),
        }
    }

    /// Makes the end of this connection a reset.
    pub fn reset_on_close(&self) {
        match &self.half {
            Half::Plain(half) => {
                let tcp: &TcpStream = half.as_ref();
                socket::reset_on_close(tcp);
            }
            Half::Tls(session) => {
                let mut session = session.borrow_mut();
                session.be_abrupt();
                socket::reset_on_close(session.tcp());
            }
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            // The runtime may read into memory that has not been written to.
            Stream::Plain(tcp) => Pin::new(tcp).poll_read(cx, into),
            Stream::Tls(session) => {
                let count = ready!(session.get_mut().poll_read(cx, into.initialize_unfilled()))?;
                into.advance(count);
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(tcp) => tcp::poll_write(tcp, cx, bytes),
            Stream::Tls(session) => session.get_mut().poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(tcp) => tcp::poll_write_vectored(tcp, cx, parts),
            Stream::Tls(session) => session.get_mut().poll_write_vectored(cx, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Stream::Tls(session) => session.get_mut().poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Stream::Tls(session) => session.get_mut().poll_shutdown(cx),
        }
    }
}
