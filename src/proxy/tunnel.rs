//! Two connections joined: bytes pass both ways unread, until both sides have ended or fallen silent.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::{RecvStream, SendStream};

use super::client::{Client, FromClient, ToClient};
use super::failure::Failure;
use super::outcome::{After, Progress};
use super::pieces;
use super::plan::Plan;
use super::relay::{self, RelayError, downstream};
use super::worker::Worker;
use crate::model::Timeouts;
use crate::net::buffers::{LARGE, SMALL};
use crate::net::stream::{Reader, Writer};
use crate::net::{Buffer, Elapsed, Stream, Timer};
use crate::state::connections::Doing;
use crate::wire::http1::request::Version;

/// Joins a client and a server after the server has agreed to a WebSocket. `from_server` is what it
/// has said already; what the client has sent behind its request is still in its input.
pub async fn run(
    worker: &Worker,
    client: &mut Client<'_, '_>,
    plan: &Plan,
    stream: &mut Stream,
    from_server: Buffer,
    timeouts: &Timeouts,
    progress: &Progress,
) -> Result<After, Failure> {
    client.connection.doing.set(Doing::Tunnel);
    let early = client.body_bytes(plan.head_bytes).to_vec();
    client.body_taken = early.len();
    client.keep_head_only(plan.head_bytes);
    let (mut server_reader, mut server_writer) = stream.split();
    let limits = Limits { idle: timeouts.tunnel, half: timeouts.half_closed, write: timeouts.client_write };
    progress.body_in.set(progress.body_in.get() + early.len() as u64);
    progress.body_out.set(from_server.len() as u64);
    let mut to_client = match &mut client.to {
        ToClient::Http1(writer) => To::Writer(writer),
        ToClient::Http2(respond) => match respond.rest() {
            Some(stream) => To::Frames(stream),
            None => return Ok(After::Close),
        },
    };
    let from_client = match &mut client.from {
        FromClient::Http1(reader) => From::Reader(reader),
        FromClient::Http2(stream) => From::Frames(stream),
    };
    if !from_server.is_empty() {
        to_client.write(Said::Read(from_server), client.timer, limits.write).await.map_err(downstream)?;
    }
    if relay::write_all(&mut server_writer, &early, client.timer, limits.write).await.is_err() {
        return Ok(After::Close);
    }
    drop(early);
    let spoken = Cell::new(0_u64);
    let ended = Cell::new(false);
    let timer = worker.wheel.timer();
    let up = Way { worker, limits, spoken: &spoken, ended: &ended, moved: &progress.body_in };
    let down = Way { worker, limits, spoken: &spoken, ended: &ended, moved: &progress.body_out };
    let mut up = pin!(up.pass(from_client, To::Writer(&mut server_writer), &timer));
    let mut down = pin!(down.pass(From::Reader(&mut server_reader), to_client, client.timer));
    let (mut up_done, mut down_done) = (false, false);
    let whole = poll_fn(|cx| {
        if !up_done && let Poll::Ready(result) = up.as_mut().poll(cx) {
            up_done = true;
            if result.is_err() {
                return Poll::Ready(false);
            }
        }
        if !down_done && let Poll::Ready(result) = down.as_mut().poll(cx) {
            down_done = true;
            if result.is_err() {
                return Poll::Ready(false);
            }
            // The other direction has had its turn, and has to learn that it is alone now.
            cx.waker().wake_by_ref();
        }
        if up_done && down_done { Poll::Ready(true) } else { Poll::Pending }
    })
    .await;
    // A stream that both sides have ended needs nothing more; the connection under it stays.
    Ok(if whole && plan.version == Version::Http2 { After::Keep } else { After::Close })
}

/// One end that is read.
enum From<'a, 's> {
    Reader(&'a mut Reader<'s>),
    Frames(&'a mut RecvStream),
}

/// One end that is written.
enum To<'a, 's> {
    Writer(&'a mut Writer<'s>),
    Frames(&'a mut SendStream<Bytes>),
}

/// What was said in one go; nothing is the end.
enum Said {
    Read(Buffer),
    Frame(Bytes),
}

impl Said {
    fn length(&self) -> usize {
        match self {
            Said::Read(buffer) => buffer.len(),
            Said::Frame(bytes) => bytes.len(),
        }
    }

    /// A full buffer means that more is waiting.
    fn is_full(&self) -> bool {
        matches!(self, Said::Read(buffer) if buffer.room() == 0)
    }
}

impl From<'_, '_> {
    fn poll_some(&mut self, cx: &mut Context<'_>, worker: &Worker, most: u64) -> Poll<io::Result<Said>> {
        match self {
            From::Reader(reader) => reader.poll_fill(cx, &worker.buffers, most, 0).map_ok(Said::Read),
            From::Frames(stream) => loop {
                match ready!(stream.poll_data(cx)) {
                    None => return Poll::Ready(Ok(Said::Frame(Bytes::new()))),
                    // A frame without data says nothing, or that it was the last.
                    Some(Ok(bytes)) if bytes.is_empty() => {}
                    Some(read) => return Poll::Ready(read.map(Said::Frame).map_err(io::Error::other)),
                }
            },
        }
    }
}

impl To<'_, '_> {
    async fn write(&mut self, said: Said, timer: &Timer, limit: Duration) -> Result<(), RelayError> {
        match (self, said) {
            (To::Writer(writer), Said::Read(buffer)) => relay::write_all(writer, buffer.as_slice(), timer, limit).await,
            (To::Writer(writer), Said::Frame(bytes)) => relay::write_all(writer, &bytes, timer, limit).await,
            (To::Frames(stream), Said::Read(buffer)) => {
                let bytes = Bytes::copy_from_slice(buffer.as_slice());
                drop(buffer);
                pieces::send(stream, bytes, false, timer, limit).await
            }
            (To::Frames(stream), Said::Frame(bytes)) => pieces::send(stream, bytes, false, timer, limit).await,
        }
    }

    /// Says that nothing more will come.
    async fn end(&mut self) -> Result<(), RelayError> {
        match self {
            To::Writer(writer) => writer.shutdown().await.map_err(|_| RelayError::Gone),
            To::Frames(stream) => stream.send_data(Bytes::new(), true).map_err(|_| RelayError::Gone),
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Limits {
    idle: Duration,
    half: Duration,
    write: Duration,
}

/// One direction of a tunnel.
struct Way<'a> {
    worker: &'a Worker,
    limits: Limits,
    /// Grows whenever either side speaks: silence means silence of both.
    spoken: &'a Cell<u64>,
    /// One side has said its last word.
    ended: &'a Cell<bool>,
    moved: &'a Cell<u64>,
}

impl Way<'_> {
    async fn pass(&self, mut from: From<'_, '_>, mut to: To<'_, '_>, timer: &Timer) -> Result<(), RelayError> {
        let mut most = SMALL;
        loop {
            let some = self.wait(&mut from, timer, most as u64).await?;
            let length = some.length();
            if length == 0 {
                self.ended.set(true);
                // The other side may have gone already, which ends the tunnel as well.
                return match timer.wait(self.limits.write, Box::pin(to.end())).await {
                    Ok(done) => done,
                    Err(Elapsed) => Err(RelayError::Stalled),
                };
            }
            most = if some.is_full() { LARGE } else { SMALL };
            self.spoken.set(self.spoken.get() + 1);
            self.moved.set(self.moved.get() + length as u64);
            to.write(some, timer, self.limits.write).await?;
            if let From::Frames(stream) = &mut from {
                pieces::release(stream, length);
            }
        }
    }

    /// Waits until this side speaks, as long as either of them does. The time is another one from the
    /// moment on that the other side has ended.
    async fn wait(&self, from: &mut From<'_, '_>, timer: &Timer, most: u64) -> Result<Said, RelayError> {
        loop {
            let (spoken, ended) = (self.spoken.get(), self.ended.get());
            let limit = if ended { self.limits.half } else { self.limits.idle };
            let speaks = poll_fn(|cx| match from.poll_some(cx, self.worker, most) {
                Poll::Ready(read) => Poll::Ready(Some(read)),
                Poll::Pending if self.ended.get() != ended => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            });
            match timer.wait(limit, speaks).await {
                Ok(Some(read)) => return read.map_err(|error| RelayError::Cut(Some(error))),
                Ok(None) => {}
                Err(Elapsed) if spoken != self.spoken.get() => {}
                Err(Elapsed) => return Err(RelayError::Silent),
            }
        }
    }
}
