//! Bodies that pass between HTTP/1 and HTTP/2, or within HTTP/2: piece by piece, each as large as it came,
//! with the trailers behind them. What goes from HTTP/1 to HTTP/1 takes the shorter way of `relay`.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::client::Rest;
use super::mirror::Mirror;
use super::relay::{self, Patience, RelayError};
use super::worker::Worker;
use crate::model::Limits;
use crate::net::buffers::LARGE;
use crate::net::stream::{Reader, Writer};
use crate::net::{Buffer, Timer};
use crate::wire::http1::{ChunkFault, ChunkedBody, chunked};

/// Where a body comes from. What has been read of it already has been passed on.
#[derive(Debug)]
pub enum Source<'p, 'f> {
    /// So many bytes.
    Length(&'p mut Reader<'f>, u64),
    /// Data alone is kept of it (`Keep::Data`).
    Chunked(&'p mut Reader<'f>, &'p mut ChunkedBody, &'p mut Buffer),
    UntilClose(&'p mut Reader<'f>),
    Frames(&'p mut RecvStream),
}

/// Where it goes.
#[derive(Debug)]
pub enum Sink<'p, 't> {
    /// As it is: its length has been said.
    Plain(&'p mut Writer<'t>),
    /// In chunks.
    Chunks(&'p mut Writer<'t>),
    Frames(&'p mut SendStream<Bytes>),
}

/// What a body has on its way.
#[derive(Debug, Clone, Copy)]
pub struct Way<'p> {
    pub worker: &'p Rc<Worker>,
    pub timer: &'p Timer,
    pub patience: Patience,
    /// Bytes passed on.
    pub moved: &'p Cell<u64>,
    /// Those of the other direction: while they grow, silence of this one is none.
    pub back: &'p Cell<u64>,
    /// How many there may be of a body in frames; one in chunks knows by itself.
    pub most: u64,
    pub limits: &'p Limits,
    /// What passes is copied.
    pub mirror: Option<&'p Mirror>,
}

enum Piece {
    /// `true`: the last, and no trailers follow.
    Data(Bytes, bool),
    End(Option<HeaderMap>),
    /// The receiver has given up.
    Gone,
}

/// Passes on all of it.
pub async fn pass(mut from: Source<'_, '_>, mut to: Sink<'_, '_>, way: Way<'_>) -> Result<(), RelayError> {
    loop {
        let piece = poll_fn(|cx| match from.poll_piece(cx, way) {
            Poll::Ready(piece) => Poll::Ready(piece),
            Poll::Pending => to.poll_given_up(cx).map(|()| Ok(Piece::Gone)),
        });
        let back = way.back.get();
        let piece = match way.timer.wait(way.patience.read, piece).await {
            Ok(piece) => piece?,
            // Of a stream in both directions one may be quiet for long, as where it has asked for news.
            Err(_) if way.back.get() != back => continue,
            Err(_) => return Err(RelayError::Silent),
        };
        match piece {
            Piece::Data(bytes, last) => {
                let length = bytes.len();
                way.moved.set(way.moved.get() + length as u64);
                if way.moved.get() > way.most {
                    return Err(RelayError::Chunked(ChunkFault::BodyTooLarge));
                }
                if let Some(mirror) = way.mirror {
                    mirror.add(&bytes);
                }
                to.data(bytes, last, way).await?;
                from.passed_on(length);
                if last {
                    way.sent();
                    return Ok(());
                }
            }
            Piece::End(trailers) => return to.end(trailers, way).await.map(|()| way.sent()),
            Piece::Gone => return Err(RelayError::Gone),
        }
    }
}

impl Way<'_> {
    /// What passes has to be seen.
    pub fn is_copied(self) -> bool {
        self.mirror.is_some_and(|mirror| !mirror.is_too_large())
    }

    /// All of it is on its way.
    fn sent(self) {
        if let Some(mirror) = self.mirror {
            mirror.send(self.worker);
        }
    }
}

impl Source<'_, '_> {
    fn poll_piece(&mut self, cx: &mut Context<'_>, way: Way<'_>) -> Poll<Result<Piece, RelayError>> {
        let cut = |error: io::Error| RelayError::Cut(Some(error));
        match self {
            Source::Length(_, 0) => Poll::Ready(Ok(Piece::End(None))),
            Source::Length(from, left) => {
                let buffer = ready!(from.poll_fill(cx, &way.worker.buffers, *left, 0)).map_err(cut)?;
                if buffer.is_empty() {
                    return Poll::Ready(Err(RelayError::Cut(None)));
                }
                *left -= buffer.len() as u64;
                Poll::Ready(Ok(Piece::Data(Bytes::copy_from_slice(buffer.as_slice()), *left == 0)))
            }
            Source::Chunked(from, body, buffer) => poll_chunked(cx, from, body, buffer, way.limits),
            Source::UntilClose(from) => {
                let buffer = ready!(from.poll_fill(cx, &way.worker.buffers, LARGE as u64, 0)).map_err(cut)?;
                Poll::Ready(Ok(match buffer.is_empty() {
                    true => Piece::End(None),
                    false => Piece::Data(Bytes::copy_from_slice(buffer.as_slice()), false),
                }))
            }
            Source::Frames(stream) => poll_frames(cx, stream, way.limits),
        }
    }

    /// What has been passed on may be sent anew (RFC 9113 §5.2).
    fn passed_on(&mut self, length: usize) {
        if let Source::Frames(stream) = self {
            release(stream, length);
        }
    }
}

/// Lets the sender send `length` bytes more.
pub fn release(stream: &mut RecvStream, length: usize) {
    // It fails only for more than was received.
    let _ = stream.flow_control().release_capacity(length);
}

fn poll_chunked(
    cx: &mut Context<'_>,
    from: &mut Reader<'_>,
    body: &mut ChunkedBody,
    buffer: &mut Buffer,
    limits: &Limits,
) -> Poll<Result<Piece, RelayError>> {
    loop {
        if body.is_done() {
            return Poll::Ready(Ok(Piece::End(fields_of(body.trailers()))));
        }
        if !buffer.is_empty() {
            let scanned = body.scan(buffer.as_mut_slice(), limits).map_err(RelayError::Chunked)?;
            let data = Bytes::copy_from_slice(&buffer.as_slice()[..scanned.kept]);
            buffer.consume(scanned.taken);
            if !data.is_empty() {
                return Poll::Ready(Ok(Piece::Data(data, scanned.done && body.trailers().is_empty())));
            }
            if scanned.done {
                continue;
            }
        }
        if !buffer.grow(limits.trailer_bytes.max(buffer.capacity()) + 1024) {
            return Poll::Ready(Err(RelayError::Chunked(ChunkFault::TrailersTooLarge)));
        }
        match ready!(from.poll_read(cx, buffer)) {
            Ok(0) => return Poll::Ready(Err(RelayError::Cut(None))),
            Ok(_) => {}
            Err(error) => return Poll::Ready(Err(RelayError::Cut(Some(error)))),
        }
    }
}

fn poll_frames(cx: &mut Context<'_>, stream: &mut RecvStream, limits: &Limits) -> Poll<Result<Piece, RelayError>> {
    loop {
        match ready!(stream.poll_data(cx)) {
            Some(Ok(bytes)) if bytes.is_empty() && !stream.is_end_stream() => {}
            Some(Ok(bytes)) => {
                let last = stream.is_end_stream();
                return Poll::Ready(Ok(Piece::Data(bytes, last)));
            }
            Some(Err(error)) => return Poll::Ready(Err(RelayError::Cut(Some(io::Error::other(error))))),
            None => {
                let trailers = ready!(stream.poll_trailers(cx)).map_err(io::Error::other);
                let trailers = trailers.map_err(|error| RelayError::Cut(Some(error)))?;
                let trailers = trailers.map_or(Ok(None), |fields| cleaned(&fields, limits))?;
                return Poll::Ready(Ok(Piece::End(trailers)));
            }
        }
    }
}

/// What has come of a body by now, without waiting: calls `take` for its data.
pub fn at_once(
    stream: &mut RecvStream,
    limits: &Limits,
    mut take: impl FnMut(&[u8]),
) -> Result<Option<Option<HeaderMap>>, RelayError> {
    let mut cx = Context::from_waker(std::task::Waker::noop());
    loop {
        match poll_frames(&mut cx, stream, limits) {
            Poll::Pending => return Ok(None),
            Poll::Ready(Ok(Piece::Data(bytes, last))) => {
                take(&bytes);
                if last {
                    return Ok(Some(None));
                }
            }
            Poll::Ready(Ok(Piece::End(trailers))) => return Ok(Some(trailers)),
            Poll::Ready(Ok(Piece::Gone)) => return Err(RelayError::Gone),
            Poll::Ready(Err(error)) => return Err(error),
        }
    }
}

/// Reads a body to its end, or until more than `most` bytes of it have come, and lets more of it be sent at once.
/// `None`: it has not ended; else its trailers.
pub async fn gather(
    stream: &mut RecvStream,
    limits: &Limits,
    most: usize,
    into: &mut Vec<u8>,
) -> Result<Option<Option<HeaderMap>>, RelayError> {
    while into.len() <= most {
        match poll_fn(|cx| poll_frames(cx, stream, limits)).await? {
            Piece::Data(bytes, last) => {
                into.extend_from_slice(&bytes);
                release(stream, bytes.len());
                if last {
                    return Ok(Some(None));
                }
            }
            Piece::End(trailers) => return Ok(Some(trailers)),
            Piece::Gone => return Err(RelayError::Gone),
        }
    }
    Ok(None)
}

impl Sink<'_, '_> {
    fn poll_given_up(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Sink::Frames(stream) => stream.poll_reset(cx).map(drop),
            Sink::Plain(_) | Sink::Chunks(_) => Poll::Pending,
        }
    }

    async fn data(&mut self, bytes: Bytes, last: bool, way: Way<'_>) -> Result<(), RelayError> {
        let (timer, limit) = (way.timer, way.patience.write);
        match self {
            Sink::Plain(to) => relay::write_all(to, &bytes, timer, limit).await,
            Sink::Chunks(to) => {
                let mut text = way.worker.buffers.text();
                chunk(&bytes, &mut text);
                if last {
                    text.extend_from_slice(b"0\r\n\r\n");
                }
                let result = relay::write_all(to, &text, timer, limit).await;
                way.worker.buffers.keep_text(text);
                result
            }
            Sink::Frames(stream) => send(stream, bytes, last, timer, limit).await,
        }
    }

    async fn end(&mut self, trailers: Option<HeaderMap>, way: Way<'_>) -> Result<(), RelayError> {
        match self {
            Sink::Plain(_) => Ok(()),
            Sink::Chunks(to) => {
                let mut text = Vec::new();
                last_chunk(trailers.as_ref(), &mut text);
                relay::write_all(to, &text, way.timer, way.patience.write).await
            }
            Sink::Frames(stream) => end(stream, trailers),
        }
    }
}

/// Appends one chunk (RFC 9112 §7.1); nothing, where there is no data, for that would be the last one.
pub fn chunk(data: &[u8], out: &mut Vec<u8>) {
    if data.is_empty() {
        return;
    }
    out.extend_from_slice(format!("{:x}\r\n", data.len()).as_bytes());
    out.extend_from_slice(data);
    out.extend_from_slice(b"\r\n");
}

/// Appends the last chunk, with the trailers.
pub fn last_chunk(trailers: Option<&HeaderMap>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"0\r\n");
    for (name, value) in trailers.into_iter().flatten() {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// Asks for room for `length` bytes; whether it is there.
pub fn fits(stream: &mut SendStream<Bytes>, length: usize) -> bool {
    stream.reserve_capacity(length);
    stream.capacity() >= length
}

/// Sends no more than the receiver has made room for (RFC 9113 §5.2).
pub async fn send(
    stream: &mut SendStream<Bytes>,
    mut bytes: Bytes,
    last: bool,
    timer: &Timer,
    limit: Duration,
) -> Result<(), RelayError> {
    loop {
        if fits(stream, bytes.len()) {
            return stream.send_data(bytes, last).map_err(|_| RelayError::Gone);
        }
        let room = stream.capacity();
        if room > 0 {
            stream.send_data(bytes.split_to(room), false).map_err(|_| RelayError::Gone)?;
            continue;
        }
        match timer.wait(limit, poll_fn(|cx| stream.poll_capacity(cx))).await {
            Ok(Some(Ok(_))) => {}
            Ok(_) => return Err(RelayError::Gone),
            Err(_) => return Err(RelayError::Stalled),
        }
    }
}

/// The part of an answer that goes out with its head, where that has to wait for room.
pub async fn begin(
    stream: &mut SendStream<Bytes>,
    body: Bytes,
    rest: Rest,
    timer: &Timer,
    limit: Duration,
) -> Result<(), RelayError> {
    match rest {
        Rest::More if body.is_empty() => Ok(()),
        Rest::More => send(stream, body, false, timer, limit).await,
        Rest::End(None) => send(stream, body, true, timer, limit).await,
        Rest::End(trailers) => {
            if !body.is_empty() {
                send(stream, body, false, timer, limit).await?;
            }
            end(stream, trailers)
        }
    }
}

fn end(stream: &mut SendStream<Bytes>, trailers: Option<HeaderMap>) -> Result<(), RelayError> {
    match trailers {
        Some(trailers) => stream.send_trailers(trailers),
        None => stream.send_data(Bytes::new(), true),
    }
    .map_err(|_| RelayError::Gone)
}

/// Trailer lines as fields; `None` where there are none.
pub fn fields_of(lines: &[u8]) -> Option<HeaderMap> {
    let mut fields = HeaderMap::new();
    for line in lines.split(|byte| *byte == b'\n') {
        let Some(colon) = memchr::memchr(b':', line) else { continue };
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            fields.append(name, value);
        }
    }
    (!fields.is_empty()).then_some(fields)
}

/// Trailers without what may not come late, within their limits; `None` where none are left.
fn cleaned(fields: &HeaderMap, limits: &Limits) -> Result<Option<HeaderMap>, RelayError> {
    let bytes: usize = fields.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if bytes > limits.trailer_bytes || fields.len() > limits.trailer_count {
        return Err(RelayError::Chunked(ChunkFault::TrailersTooLarge));
    }
    let mut kept = HeaderMap::with_capacity(fields.len());
    for (name, value) in fields {
        if chunked::may_trail(name.as_str()) {
            kept.append(name, value.clone());
        }
    }
    Ok((!kept.is_empty()).then_some(kept))
}
