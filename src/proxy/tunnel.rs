//! Two connections joined: bytes pass both ways unread, until both sides have ended or fallen silent.
//!
//! Small messages are copied, for that takes the fewest calls; a stream that fills whole buffers goes
//! through a pipe in the kernel instead, as long as it flows.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::{RecvStream, SendStream};

use super::client::{Client, FromClient, ToClient};
use super::failure::{Failure, Side};
use super::outcome::{After, Progress};
use super::pieces;
use super::plan::Plan;
use super::registry::Connection;
use super::relay::{self, RelayError, downstream};
use super::websocket::{Frames, GOING_AWAY, GOING_AWAY_MASKED};
use super::worker::Worker;
use crate::model::Timeouts;
use crate::net::buffers::{LARGE, SMALL};
use crate::net::stream::{Reader, Writer};
use crate::net::{Buffer, Elapsed, Stream, Timer};
use crate::state::Lease;
use crate::state::connections::Doing;
use crate::sys::splice::Pipe;
use crate::wire::http1::request::Version;

/// Joins a client and a server after the server has agreed to a WebSocket. `from_server` is what it
/// has said already; what the client has sent behind its request is still in its input.
pub async fn run(
    worker: &Worker,
    client: &mut Client<'_, '_>,
    plan: &Plan,
    lease: &Lease,
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
        ToClient::Http1(writer) => Outlet::Writer(writer),
        ToClient::Http2(respond) => match respond.rest() {
            Some(stream) => Outlet::Frames(stream),
            None => return Ok(After::Close),
        },
    };
    let from_client = match &mut client.from {
        FromClient::Http1(reader) => Inlet::Reader(reader),
        FromClient::Http2(stream) => Inlet::Frames(stream),
    };
    let frames = Both { up: RefCell::new(Frames::new()), down: RefCell::new(Frames::new()) };
    if !from_server.is_empty() {
        frames.down.borrow_mut().begin(from_server.as_slice());
        to_client.write(Said::Read(from_server), worker, client.timer, limits.write).await.map_err(downstream)?;
        frames.down.borrow_mut().done();
    }
    frames.up.borrow_mut().begin(&early);
    if relay::write_all(&mut server_writer, &early, client.timer, limits.write).await.is_err() {
        return Ok(After::Close);
    }
    frames.up.borrow_mut().done();
    drop(early);
    let timer = worker.wheel.timer();
    let up = End { reader: from_client, writer: to_client, timer: client.timer };
    let down =
        End { reader: Inlet::Reader(&mut server_reader), writer: Outlet::Writer(&mut server_writer), timer: &timer };
    let add = |cell: &Cell<u64>, count: u64| cell.set(cell.get() + count);
    let moved = |side, count| add(if side == Side::Downstream { &progress.body_in } else { &progress.body_out }, count);
    let joined = join(worker, client.connection, lease, up, down, limits, Some(&frames), &moved).await;
    if joined == Err(Broken::By(Side::Upstream)) {
        // What it said last is on its way: to cut the client off now would take it back.
        if let ToClient::Http2(respond) = &mut client.to
            && let Some(stream) = respond.rest()
        {
            let _ = stream.send_data(Bytes::new(), true);
        }
        return Ok(After::Linger);
    }
    if matches!(joined, Err(Broken::Drained | Broken::Cut)) {
        if frames.up.borrow().is_between() {
            // As much as can still be said; whoever does not hear it sees the end.
            let _ = server_writer.write_now(&GOING_AWAY_MASKED);
        }
        if frames.down.borrow().is_between() && say(client, &GOING_AWAY) {
            return Ok(After::Linger);
        }
    }
    // A stream that both sides have ended needs nothing more; the connection under it stays.
    Ok(if joined.is_ok() && plan.version == Version::Http2 { After::Keep } else { After::Close })
}

/// Says last words to a client, without waiting. Whether they were taken.
fn say(client: &mut Client<'_, '_>, words: &[u8]) -> bool {
    match &mut client.to {
        ToClient::Http1(writer) => writer.write_now(words).is_ok_and(|count| count == words.len()),
        ToClient::Http2(respond) => match respond.rest() {
            Some(stream) => {
                pieces::fits(stream, words.len()) && stream.send_data(Bytes::copy_from_slice(words), true).is_ok()
            }
            None => false,
        },
    }
}

/// Both directions of a WebSocket, from the client and from the server.
pub struct Both {
    up: RefCell<Frames>,
    down: RefCell<Frames>,
}

/// How long each side may be silent, in a tunnel that is open, and in one of which one side has said its
/// last word; and how long it may take nothing.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub idle: Duration,
    pub half: Duration,
    pub write: Duration,
}

/// One of the two connections.
pub struct End<'a, 's> {
    pub reader: Inlet<'a, 's>,
    pub writer: Outlet<'a, 's>,
    pub timer: &'a Timer,
}

/// Why a tunnel ended before both sides said so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// This side's connection broke.
    By(Side),
    /// This side took nothing for too long.
    Stalled(Side),
    /// Both sides were silent for too long.
    Silent,
    /// One side had ended, and the other one was silent for too long.
    HalfSilent,
    /// The worker stops, or its listener is gone.
    Drained,
    /// Its server is down, and its connections are to be closed then.
    Cut,
}

/// How long a side may take for what the other one had said before it broke.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Waits, not for long, until this side's kernel has all that was written to it: a reset takes back what it has not.
pub async fn delivered(to: &Writer<'_>, timer: &Timer) {
    let until = Instant::now() + LAST_WORDS;
    while to.unacknowledged() > 0 && Instant::now() < until {
        // The kernel tells nobody when it has; this is a tick of the wheel.
        let _ = timer.wait(Duration::from_millis(50), std::future::pending::<()>()).await;
    }
}

/// Passes bytes both ways until both sides have ended. A side that takes nothing any more may have said why before: that still
/// goes to the other one. `moved` is told of every piece, and whose it is; `frames`
/// follows those of a WebSocket.
///
/// # Errors
/// When the tunnel ended otherwise. What is then still on its way is lost: the caller tells both sides
/// by a reset.
pub async fn join(
    worker: &Worker,
    connection: &Connection,
    lease: &Lease,
    client: End<'_, '_>,
    server: End<'_, '_>,
    limits: Limits,
    frames: Option<&Both>,
    moved: &dyn Fn(Side, u64),
) -> Result<(), Broken> {
    let spoken = Cell::new(0_u64);
    let (ended, broken) = (Cell::new(false), Cell::new(None));
    let from = Side::Downstream;
    let frames_up = frames.map(|both| &both.up);
    let up = Way { worker, limits, spoken: &spoken, ended: &ended, broken: &broken, from, frames: frames_up, moved };
    let down = Way { from: Side::Upstream, frames: frames.map(|both| &both.down), ..up };
    let mut up = pin!(up.pass(client.reader, server.writer, client.timer));
    let mut down = pin!(down.pass(server.reader, client.writer, server.timer));
    let (mut up_done, mut down_done) = (false, false);
    let listed = worker.tunnels.list();
    poll_fn(|cx| {
        // The tick that sees it wakes this task by the client's timer.
        if worker.tunnel_ends(connection) {
            return Poll::Ready(Err(Broken::Drained));
        }
        if lease.is_cut() {
            return Poll::Ready(Err(Broken::Cut));
        }
        listed.wake_here(cx);
        if !up_done && let Poll::Ready(result) = up.as_mut().poll(cx) {
            up_done = true;
            match result {
                Ok(()) => {}
                Err(Broken::By(Side::Upstream)) if !down_done => broken.set(Some(Broken::By(Side::Upstream))),
                Err(_) => return Poll::Ready(broken.get().map_or(result, Err)),
            }
        }
        if !down_done && let Poll::Ready(result) = down.as_mut().poll(cx) {
            down_done = true;
            match result {
                Ok(()) => {}
                Err(Broken::By(Side::Downstream)) if !up_done => broken.set(Some(Broken::By(Side::Downstream))),
                Err(_) => return Poll::Ready(broken.get().map_or(result, Err)),
            }
            // The other direction has had its turn, and has to learn that it is alone now.
            cx.waker().wake_by_ref();
        }
        if up_done && down_done { Poll::Ready(broken.get().map_or(Ok(()), Err)) } else { Poll::Pending }
    })
    .await
}

/// One direction of a tunnel.
#[derive(Clone, Copy)]
struct Way<'a> {
    worker: &'a Worker,
    limits: Limits,
    /// Grows whenever either side speaks: silence means silence of both.
    spoken: &'a Cell<u64>,
    /// One side has said its last word.
    ended: &'a Cell<bool>,
    /// One side takes nothing any more: what it had said is not the whole.
    broken: &'a Cell<Option<Broken>>,
    /// Who speaks.
    from: Side,
    /// Of a WebSocket: what has been written of this direction.
    frames: Option<&'a RefCell<Frames>>,
    moved: &'a dyn Fn(Side, u64),
}

/// How the next bytes are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pace {
    Small,
    Large,
    /// Spliced; so many pieces in a row were small.
    Bulk(u32),
}

/// A piece smaller than this costs less to copy than to splice.
const THIN: usize = 16 << 10;
/// As many thin pieces in a row end the splicing.
const THIN_PIECES: u32 = 4;

/// One end that is read.
pub enum Inlet<'a, 's> {
    Reader(&'a mut Reader<'s>),
    Frames(&'a mut RecvStream),
}

/// One end that is written.
pub enum Outlet<'a, 's> {
    Writer(&'a mut Writer<'s>),
    Frames(&'a mut SendStream<Bytes>),
}

/// What was said in one go; nothing is the end.
enum Said {
    Read(Buffer),
    Frame(Bytes),
    Piped(Pipe, usize),
}

impl Said {
    fn length(&self) -> usize {
        match self {
            Said::Read(buffer) => buffer.len(),
            Said::Frame(bytes) => bytes.len(),
            Said::Piped(_, count) => *count,
        }
    }
}

impl Inlet<'_, '_> {
    fn is_plain(&self) -> bool {
        matches!(self, Inlet::Reader(reader) if reader.is_plain())
    }

    fn poll_some(&mut self, cx: &mut Context<'_>, worker: &Worker, pace: Pace) -> Poll<io::Result<Said>> {
        let reader = match self {
            Inlet::Reader(reader) => reader,
            Inlet::Frames(stream) => loop {
                match ready!(stream.poll_data(cx)) {
                    None => return Poll::Ready(Ok(Said::Frame(Bytes::new()))),
                    // A frame without data says nothing, or that it was the last.
                    Some(Ok(bytes)) if bytes.is_empty() => {}
                    Some(read) => return Poll::Ready(read.map(Said::Frame).map_err(io::Error::other)),
                }
            },
        };
        let most = match pace {
            Pace::Small => SMALL,
            Pace::Large => LARGE,
            // A pipe is held only while there is something in it.
            Pace::Bulk(_) => match worker.pipes.take() {
                Ok(pipe) => match reader.poll_splice(cx, &pipe, u64::MAX, true) {
                    // Before an urgent byte (tcp(7), MSG_OOB) the kernel splices nothing, and takes a stream that has ended for
                    // one that is empty: it is read.
                    Poll::Ready(Ok(0)) => {
                        worker.pipes.keep(pipe);
                        LARGE
                    }
                    Poll::Ready(read) => return Poll::Ready(read.map(|count| Said::Piped(pipe, count))),
                    Poll::Pending => {
                        worker.pipes.keep(pipe);
                        return Poll::Pending;
                    }
                },
                // Descriptors are short: it goes without.
                Err(_) => LARGE,
            },
        };
        reader.poll_fill(cx, &worker.buffers, most as u64, 0).map_ok(Said::Read)
    }
}

impl Outlet<'_, '_> {
    fn is_plain(&self) -> bool {
        matches!(self, Outlet::Writer(writer) if writer.is_plain())
    }

    async fn write(&mut self, said: Said, worker: &Worker, timer: &Timer, limit: Duration) -> Result<(), RelayError> {
        match (self, said) {
            (Outlet::Writer(writer), Said::Piped(pipe, count)) => {
                relay::drain(writer, &pipe, count, timer, limit).await?;
                worker.pipes.keep(pipe);
                Ok(())
            }
            (Outlet::Writer(writer), Said::Read(buffer)) => {
                relay::write_all(writer, buffer.as_slice(), timer, limit).await
            }
            (Outlet::Writer(writer), Said::Frame(bytes)) => relay::write_all(writer, &bytes, timer, limit).await,
            (Outlet::Frames(stream), Said::Read(buffer)) => {
                let bytes = Bytes::copy_from_slice(buffer.as_slice());
                drop(buffer);
                pieces::send(stream, bytes, false, timer, limit).await
            }
            (Outlet::Frames(stream), Said::Frame(bytes)) => pieces::send(stream, bytes, false, timer, limit).await,
            // What is piped goes from one plain connection to another.
            (Outlet::Frames(_), Said::Piped(..)) => Err(RelayError::Gone),
        }
    }

    /// Says that nothing more will come.
    async fn end(&mut self) -> Result<(), RelayError> {
        match self {
            Outlet::Writer(writer) => writer.shutdown().await.map_err(|_| RelayError::Gone),
            Outlet::Frames(stream) => stream.send_data(Bytes::new(), true).map_err(|_| RelayError::Gone),
        }
    }
}

impl Way<'_> {
    async fn pass(&self, mut from: Inlet<'_, '_>, mut to: Outlet<'_, '_>, timer: &Timer) -> Result<(), Broken> {
        let mut pace = Pace::Small;
        loop {
            let said = self.wait(&mut from, timer, pace).await?;
            let count = said.length();
            if count == 0 {
                if self.broken.get().is_some() {
                    return Ok(());
                }
                self.ended.set(true);
                // The other side may have gone already, which ends the tunnel as well.
                return match timer.wait(self.limits.write, Box::pin(to.end())).await {
                    Ok(done) => done.map_err(|error| self.broken(&error)),
                    Err(Elapsed) => Err(Broken::Stalled(self.from.other())),
                };
            }
            self.spoken.set(self.spoken.get() + 1);
            (self.moved)(self.from, count as u64);
            pace = next_pace(pace, &said, from.is_plain() && to.is_plain());
            if let Some(frames) = self.frames {
                let mut frames = frames.borrow_mut();
                match &said {
                    Said::Read(buffer) => frames.begin(buffer.as_slice()),
                    Said::Frame(bytes) => frames.begin(bytes),
                    Said::Piped(_, count) => frames.begin_unseen(*count as u64),
                }
            }
            to.write(said, self.worker, timer, self.limits.write).await.map_err(|error| self.broken(&error))?;
            if let Some(frames) = self.frames {
                frames.borrow_mut().done();
            }
            if let Inlet::Frames(stream) = &mut from {
                pieces::release(stream, count);
            }
        }
    }

    fn broken(&self, error: &RelayError) -> Broken {
        match error {
            RelayError::Stalled => Broken::Stalled(self.from.other()),
            _ => Broken::By(self.from.other()),
        }
    }

    /// Waits until this side speaks, as long as either of them does. The time is another one from the
    /// moment on that the other side has ended.
    async fn wait(&self, from: &mut Inlet<'_, '_>, timer: &Timer, pace: Pace) -> Result<Said, Broken> {
        loop {
            let (spoken, ended) = (self.spoken.get(), self.ended.get());
            let limit = if ended { self.limits.half } else { self.limits.idle };
            let speaks = poll_fn(|cx| match from.poll_some(cx, self.worker, pace) {
                Poll::Ready(read) => Poll::Ready(Some(read)),
                Poll::Pending if self.ended.get() != ended => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            });
            match timer.wait(limit, speaks).await {
                Ok(Some(read)) => return read.map_err(|_| Broken::By(self.from)),
                Ok(None) => {}
                Err(Elapsed) if spoken != self.spoken.get() => {}
                Err(Elapsed) => return Err(if ended { Broken::HalfSilent } else { Broken::Silent }),
            }
        }
    }
}

/// `plain`: both connections are.
fn next_pace(pace: Pace, said: &Said, plain: bool) -> Pace {
    match (said, pace) {
        (Said::Read(buffer), Pace::Small) if buffer.room() == 0 => Pace::Large,
        // A full large buffer means that there is a stream.
        (Said::Read(buffer), _) if buffer.room() == 0 && plain => Pace::Bulk(0),
        (Said::Read(buffer), _) if buffer.room() == 0 => Pace::Large,
        (Said::Piped(_, count), Pace::Bulk(thin)) if *count < THIN && thin + 1 < THIN_PIECES => Pace::Bulk(thin + 1),
        (Said::Piped(_, count), _) if *count >= THIN => Pace::Bulk(0),
        _ => Pace::Small,
    }
}
