//! A connection under HTTP/2: what is written gathers here, and goes out once a turn.
//!
//! The `h2` crate flushes after every frame of data, which would be one call to the kernel (and one TLS
//! record) for each answer. So a flush of its does nothing, and whoever drives the connection calls
//! [`Deferred::flush`] when the crate has nothing left to do: many answers, one call. From
//! `MOST_WAITING` bytes on a write really writes, which is the back-pressure.
//!
//! The frames that pass are watched both ways (`wire::http2::frames`) for what the crate does not tell:
//! floods, and how far the other side got.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::buffers::{Buffer, Buffers, SMALL};
use super::flood::{Flood, Side, Watch};
use super::secure::BEGIN;
use super::stream::Stream;

/// Bytes that wait to be written, at most.
const MOST_WAITING: usize = 128 << 10;

/// Reads in one turn: however much one connection sends, the others of its worker get theirs.
const READS_A_TURN: u32 = 8;

/// One connection: a handle for the `h2` crate, and one for whoever drives it.
#[derive(Debug, Clone)]
pub struct Deferred {
    inner: Rc<RefCell<Inner>>,
}

#[derive(Debug)]
struct Inner {
    stream: Stream,
    buffers: Rc<Buffers>,
    /// Read before this connection was known to be one of HTTP/2.
    input: Option<Buffer>,
    out: Vec<u8>,
    /// Bytes of `out` that are written, or unused at its front.
    written: usize,
    /// TLS holds some of what was written.
    behind: bool,
    /// Written since the beginning.
    progress: u64,
    /// Read since the beginning.
    heard: u64,
    reads_left: u32,
    watch: Watch,
}

impl Deferred {
    pub fn new(stream: Stream, buffers: Rc<Buffers>, input: Option<Buffer>, side: Side, now: Instant) -> Deferred {
        let inner = Inner {
            stream,
            buffers,
            input,
            out: Vec::new(),
            written: 0,
            behind: false,
            progress: 0,
            heard: 0,
            reads_left: READS_A_TURN,
            watch: Watch::new(side, now),
        };
        Deferred { inner: Rc::new(RefCell::new(inner)) }
    }

    /// To be called before the crate is given a turn; `now` may be a little old.
    pub fn begin_turn(&self, now: Instant) {
        let mut inner = self.inner.borrow_mut();
        inner.reads_left = READS_A_TURN;
        inner.watch.now(now);
    }

    /// Writes what waits. To be called when the crate has nothing left to do.
    ///
    /// # Errors
    /// When the other side is gone.
    pub fn flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let inner = &mut *self.inner.borrow_mut();
        ready!(inner.drain(cx, 0))?;
        let flushed = Pin::new(&mut inner.stream).poll_flush(cx);
        inner.behind = flushed.is_pending();
        flushed
    }

    /// Bytes written since the beginning, while there are more that wait.
    pub fn stuck_at(&self) -> Option<u64> {
        let inner = self.inner.borrow();
        (inner.behind || inner.out.len() > inner.written).then_some(inner.progress)
    }

    /// Bytes read since the beginning.
    pub fn heard(&self) -> u64 {
        self.inner.borrow().heard
    }

    /// The number of the header block that has begun to come and has not ended, if there is one.
    pub fn open_block(&self) -> Option<u64> {
        self.inner.borrow().watch.open_block()
    }

    /// What the other side does too often.
    pub fn flood(&self) -> Option<Flood> {
        self.inner.borrow().watch.flood()
    }

    /// The last stream that the other side has said it looked at, once it has said so (RFC 9113 §6.8).
    pub fn last_stream(&self) -> Option<u32> {
        self.inner.borrow().watch.last_stream()
    }

    /// Makes the end of this connection a reset.
    pub fn reset_on_close(&self) {
        self.inner.borrow_mut().stream.reset_on_close();
    }

    /// Reads and drops what the other side still sends; how many bytes, 0 at the end.
    pub fn poll_discard(&self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut inner = self.inner.borrow_mut();
        let mut buffer = inner.buffers.small();
        let mut room = ReadBuf::new(buffer.spare());
        ready!(Pin::new(&mut inner.stream).poll_read(cx, &mut room))?;
        Poll::Ready(Ok(room.filled().len()))
    }
}

impl Inner {
    /// Writes until at most `most` bytes wait.
    fn drain(&mut self, cx: &mut Context<'_>, most: usize) -> Poll<io::Result<()>> {
        while self.out.len() - self.written > most {
            let count = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.out[self.written..]))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += count;
            self.progress += count as u64;
        }
        if self.written == self.out.len() {
            self.written = 0;
            // An idle connection holds no buffer.
            if self.out.capacity() > 0 {
                self.buffers.keep_text(std::mem::take(&mut self.out));
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Makes room; whole it is only where everything has been written.
    fn room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.out.len() - self.written >= MOST_WAITING {
            ready!(self.drain(cx, MOST_WAITING / 2))?;
        }
        let front = if self.stream.is_plain() { 0 } else { BEGIN };
        if self.out.capacity() == 0 {
            self.out = self.buffers.text();
            self.out.resize(front, 0);
            self.written = front;
        }
        if self.written > MOST_WAITING {
            self.out.drain(front..self.written);
            self.written = front;
        }
        Poll::Ready(Ok(()))
    }

    fn append(&mut self, bytes: &[u8]) {
        self.watch.sent(bytes);
        let room = self.out.capacity() - self.out.len();
        if room < bytes.len() && self.out.capacity() < MOST_WAITING {
            let mut long = self.buffers.long_text();
            long.extend_from_slice(&self.out);
            self.buffers.keep_text(std::mem::replace(&mut self.out, long));
        }
        self.out.extend_from_slice(bytes);
    }
}

impl AsyncRead for Deferred {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let inner = &mut *self.inner.borrow_mut();
        let before = into.filled().len();
        if let Some(input) = &mut inner.input {
            let count = input.len().min(into.remaining());
            into.put_slice(&input.as_slice()[..count]);
            input.consume(count);
            if input.is_empty() {
                inner.input = None;
            }
        } else {
            if inner.reads_left == 0 || inner.watch.flood().is_some() {
                // A flood is not read on; whoever drives this connection ends it.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            inner.reads_left -= 1;
            if inner.stream.is_plain() {
                ready!(Pin::new(&mut inner.stream).poll_read(cx, into))?;
            } else {
                // Opened bytes are written into memory that has been written before, or it is zeroed for each
                // read; that of a kept buffer has.
                let mut buffer = inner.buffers.small();
                let most = into.remaining().min(SMALL);
                let mut room = ReadBuf::new(&mut buffer.spare()[..most]);
                ready!(Pin::new(&mut inner.stream).poll_read(cx, &mut room))?;
                into.put_slice(room.filled());
            }
        }
        inner.heard += (into.filled().len() - before) as u64;
        inner.watch.received(&mut into.filled_mut()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Deferred {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut inner = self.inner.borrow_mut();
        ready!(inner.room(cx))?;
        inner.append(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut inner = self.inner.borrow_mut();
        ready!(inner.room(cx))?;
        pieces.iter().for_each(|piece| inner.append(piece));
        Poll::Ready(Ok(pieces.iter().map(|piece| piece.len()).sum()))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Does nothing: see the top of this file.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.inner.borrow_mut();
        ready!(inner.drain(cx, 0))?;
        Pin::new(&mut inner.stream).poll_shutdown(cx)
    }
}
