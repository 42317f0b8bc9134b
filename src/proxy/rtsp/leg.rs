//! One of the connections of a conversation: what was read and has not been passed on, and what is to be written.
//!
//! Media is passed from the buffer that it was read into; messages are written anew, into a text.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;
use tokio::sync::mpsc::Receiver;

use crate::model::Limits;
use crate::net::buffers::{Buffers, LARGE, SMALL};
use crate::net::{Buffer, Stream};
use crate::wire::rtsp::{Framer, Item};

/// Texts that wait to be written; beyond, nothing is read that could add to them.
const MOST_TEXT: usize = 64 << 10;

#[derive(Debug)]
pub struct Leg {
    stream: Stream,
    source: Source,
    pub framer: Framer,
    pub input: Option<Buffer>,
    /// Bytes at the front of the input that are media on its way.
    pub run: usize,
    /// The message at the front of the input has so many bytes.
    pub whole: usize,
    text: Vec<u8>,
    written: usize,
    /// All text is written, and some of it still waits sealed.
    flushes: bool,
    /// The last read filled its buffer.
    flows: bool,
}

/// Where what is read comes from.
#[derive(Debug)]
pub enum Source {
    /// From the connection itself.
    Stream,
    /// From another one: the POST half of a tunnel.
    Pieces(Receiver<Vec<u8>>),
}

impl Leg {
    pub fn new(stream: Stream, source: Source, input: Option<Buffer>) -> Leg {
        Leg {
            stream,
            source,
            framer: Framer::default(),
            input,
            run: 0,
            whole: 0,
            text: Vec::new(),
            written: 0,
            flushes: false,
            flows: false,
        }
    }

    pub fn stream(&mut self) -> &mut Stream {
        &mut self.stream
    }

    pub fn local_address(&self) -> io::Result<std::net::SocketAddr> {
        self.stream.local_address()
    }

    /// Reads what there is; 0 is the end.
    pub fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffers: &Rc<Buffers>,
        limits: &Limits,
    ) -> Poll<io::Result<usize>> {
        let most = limits.header_bytes.max(SMALL) + Limits::MEDIA_BODY;
        let full = || io::Error::from(io::ErrorKind::InvalidData);
        let (mut reader, _) = self.stream.split();
        if let Source::Pieces(pieces) = &mut self.source {
            // Whoever waits for an answer without end says nothing here any more, but for goodbye.
            while let Poll::Ready(said) = reader.poll_fill(cx, buffers, SMALL as u64, 0) {
                if said?.is_empty() {
                    return Poll::Ready(Ok(0));
                }
            }
            let Some(piece) = ready!(pieces.poll_recv(cx)) else { return Poll::Ready(Ok(0)) };
            let Some(input) = &mut self.input else {
                self.input = Some(buffers.holding(&piece));
                return Poll::Ready(Ok(piece.len()));
            };
            // Whatever is not whole with `most` will never be; the piece that shows it may have gone beyond.
            if !input.reserve(piece.len(), most + SMALL) || !input.append(&piece) {
                return Poll::Ready(Err(full()));
            }
            return Poll::Ready(Ok(piece.len()));
        }
        let count = match &mut self.input {
            None => {
                let buffer = ready!(reader.poll_fill(cx, buffers, if self.flows { LARGE } else { SMALL } as u64, 0))?;
                self.flows = buffer.len() >= SMALL;
                let count = buffer.len();
                self.input = Some(buffer);
                count
            }
            Some(input) => {
                if !input.grow(most) {
                    return Poll::Ready(Err(full()));
                }
                ready!(reader.poll_read(cx, input))?
            }
        };
        Poll::Ready(Ok(count))
    }

    /// What has been read begins with this.
    pub fn next(&mut self, seen: impl FnMut(u8, &[u8])) -> Item {
        match &self.input {
            Some(input) if !input.is_empty() => self.framer.next(input.as_slice(), seen),
            _ => Item::More,
        }
    }

    pub fn unread(&self) -> usize {
        self.input.as_ref().map_or(0, Buffer::len)
    }

    /// Lets go of a buffer that holds nothing, or far less than it could.
    pub fn tidy(&mut self, buffers: &Rc<Buffers>) {
        match &self.input {
            Some(input) if input.is_empty() => self.input = None,
            Some(input) if input.capacity() >= LARGE && input.len() < SMALL / 2 => {
                self.input = Some(buffers.holding(input.as_slice()));
            }
            _ => {}
        }
    }

    /// The text that is to be written, to be added to.
    pub fn text(&mut self) -> &mut Vec<u8> {
        &mut self.text
    }

    pub fn has_text(&self) -> bool {
        self.unsaid() > 0 || self.flushes
    }

    /// Bytes of text that nobody has taken.
    pub fn unsaid(&self) -> usize {
        self.text.len() - self.written
    }

    /// Whether more text may be added.
    pub fn has_room(&self) -> bool {
        self.unsaid() < MOST_TEXT
    }

    /// Writes text, as much as is taken. Ready when all of it was.
    pub fn poll_text(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.unsaid() > 0 {
            match Pin::new(&mut self.stream).poll_write(cx, &self.text[self.written..]) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(count)) => (self.written, self.flushes) = (self.written + count, true),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    // Whoever reads slowly, but always some, would have all that was ever said kept for it.
                    if self.written >= MOST_TEXT {
                        self.text.drain(..self.written);
                        self.written = 0;
                    }
                    return Poll::Pending;
                }
            }
        }
        self.text.clear();
        self.text.shrink_to(SMALL);
        self.written = 0;
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.flushes = false;
        Poll::Ready(Ok(()))
    }

    /// Writes some of `media`, which another connection holds.
    pub fn poll_media(&mut self, cx: &mut Context<'_>, media: &[u8]) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.stream).poll_write(cx, media))?;
        if !self.stream.is_plain() {
            // What is not taken now waits in the session, and goes with the next.
            let _ = Pin::new(&mut self.stream).poll_flush(cx)?;
        }
        Poll::Ready(if count == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(count) })
    }

    /// Moves on to the kernel what waits sealed.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.stream.is_plain() { Poll::Ready(Ok(())) } else { Pin::new(&mut self.stream).poll_flush(cx) }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncRead, ReadBuf};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    #[tokio::test]
    async fn text_that_was_taken_is_not_kept() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut reader = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (own, _) = listener.accept().await.unwrap();
        // A kernel that takes less at once than there may be, so that something always waits.
        socket2::SockRef::from(&own).set_send_buffer_size(8 << 10).unwrap();
        socket2::SockRef::from(&reader).set_recv_buffer_size(64 << 10).unwrap();
        let mut leg = Leg::new(Stream::plain(own), Source::Stream, None);
        let (mut read, mut most, mut wholes) = (0, 0, 0);
        let mut room = [0; 4 << 10];
        while read < 64 * MOST_TEXT {
            read += poll_fn(|cx| {
                while leg.has_room() {
                    leg.text().extend_from_slice(&[b'x'; 4 << 10]);
                }
                wholes += usize::from(leg.poll_text(cx).is_ready());
                most = most.max(leg.text.len());
                let mut buffer = ReadBuf::new(&mut room);
                Pin::new(&mut reader).poll_read(cx, &mut buffer).map(|_| buffer.filled().len())
            })
            .await;
        }
        // What was said would be kept from one time that all of it was taken to the next.
        assert!(wholes <= 4, "all was taken {wholes} times");
        assert!(most <= 4 * MOST_TEXT, "{most} bytes were held, of {read} that were read");
    }
}
