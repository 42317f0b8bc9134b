//! Two connections joined: bytes pass both ways unread, until both sides have ended or fallen silent.
//!
//! Small messages are copied, for that takes the fewest calls; a stream that fills whole buffers goes
//! through a pipe in the kernel instead, as long as it flows.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Duration;

use super::client::Client;
use super::failure::{Failure, Side};
use super::outcome::{After, Progress};
use super::plan::Plan;
use super::relay::{self, RelayError, downstream};
use super::worker::Worker;
use crate::model::Timeouts;
use crate::net::buffers::{LARGE, SMALL};
use crate::net::stream::{Reader, Writer};
use crate::net::{Buffer, Elapsed, Stream, Timer};
use crate::state::connections::Doing;
use crate::sys::splice::Pipe;

/// Joins a client and a server after the server has agreed to a WebSocket. `from_server` is what it
/// has said already; what the client has sent behind its request is still in its input.
pub async fn run(
    worker: &Worker,
    client: &mut Client<'_>,
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
    relay::write_all(&mut client.writer, from_server.as_slice(), client.timer, limits.write)
        .await
        .map_err(downstream)?;
    drop(from_server);
    if relay::write_all(&mut server_writer, &early, client.timer, limits.write).await.is_err() {
        return Ok(After::Close);
    }
    drop(early);
    let timer = worker.wheel.timer();
    let up = End { reader: &mut client.reader, writer: &mut client.writer, timer: client.timer };
    let down = End { reader: &mut server_reader, writer: &mut server_writer, timer: &timer };
    let add = |cell: &Cell<u64>, count: u64| cell.set(cell.get() + count);
    let moved = |side, count| add(if side == Side::Downstream { &progress.body_in } else { &progress.body_out }, count);
    let _ = join(worker, up, down, limits, &moved).await;
    Ok(After::Close)
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
#[derive(Debug)]
pub struct End<'a, 's> {
    pub reader: &'a mut Reader<'s>,
    pub writer: &'a mut Writer<'s>,
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
    /// The worker stops.
    Drained,
}

/// Passes bytes both ways until both sides have ended. `moved` is told of every piece, and whose it is.
///
/// # Errors
/// When the tunnel ended otherwise. What is then still on its way is lost: the caller tells both sides
/// by a reset.
pub async fn join(
    worker: &Worker,
    client: End<'_, '_>,
    server: End<'_, '_>,
    limits: Limits,
    moved: &dyn Fn(Side, u64),
) -> Result<(), Broken> {
    let spoken = Cell::new(0_u64);
    let ended = Cell::new(false);
    let up = Way { worker, limits, spoken: &spoken, ended: &ended, from: Side::Downstream, moved };
    let down = Way { from: Side::Upstream, ..up };
    let mut up = pin!(up.pass(client.reader, server.writer, client.timer));
    let mut down = pin!(down.pass(server.reader, client.writer, server.timer));
    let (mut up_done, mut down_done) = (false, false);
    poll_fn(|cx| {
        // The tick that sees it wakes this task by the client's timer.
        if worker.tunnels_end() {
            return Poll::Ready(Err(Broken::Drained));
        }
        if !up_done && let Poll::Ready(result) = up.as_mut().poll(cx) {
            up_done = true;
            if result.is_err() {
                return Poll::Ready(result);
            }
        }
        if !down_done && let Poll::Ready(result) = down.as_mut().poll(cx) {
            down_done = true;
            if result.is_err() {
                return Poll::Ready(result);
            }
            // The other direction has had its turn, and has to learn that it is alone now.
            cx.waker().wake_by_ref();
        }
        if up_done && down_done { Poll::Ready(Ok(())) } else { Poll::Pending }
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
    /// Who speaks.
    from: Side,
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

/// What was read.
#[derive(Debug)]
enum Piece {
    Copied(Buffer),
    Piped(Pipe, usize),
}

impl Way<'_> {
    async fn pass(&self, from: &mut Reader<'_>, to: &mut Writer<'_>, timer: &Timer) -> Result<(), Broken> {
        let mut pace = Pace::Small;
        loop {
            let piece = self.wait(from, timer, pace).await?;
            let count = match &piece {
                Piece::Copied(buffer) => buffer.len(),
                Piece::Piped(_, count) => *count,
            };
            if count == 0 {
                if let Piece::Piped(pipe, _) = piece {
                    self.worker.pipes.keep(pipe);
                }
                self.ended.set(true);
                // The other side may have gone already, which ends the tunnel as well.
                return to.shutdown().await.map_err(|_| Broken::By(self.from.other()));
            }
            self.spoken.set(self.spoken.get() + 1);
            (self.moved)(self.from, count as u64);
            match piece {
                Piece::Copied(buffer) => {
                    pace = match (buffer.room(), pace) {
                        (0, Pace::Small) => Pace::Large,
                        // A full large buffer means that there is a stream.
                        (0, _) if from.is_plain() && to.is_plain() => Pace::Bulk(0),
                        (0, _) => Pace::Large,
                        _ => Pace::Small,
                    };
                    relay::write_all(to, buffer.as_slice(), timer, self.limits.write).await
                }
                Piece::Piped(pipe, count) => {
                    pace = match pace {
                        Pace::Bulk(thin) if count < THIN && thin + 1 >= THIN_PIECES => Pace::Small,
                        Pace::Bulk(thin) if count < THIN => Pace::Bulk(thin + 1),
                        _ => Pace::Bulk(0),
                    };
                    let drained = relay::drain(to, &pipe, count, timer, self.limits.write).await;
                    if drained.is_ok() {
                        self.worker.pipes.keep(pipe);
                    }
                    drained
                }
            }
            .map_err(|error| match error {
                RelayError::Stalled => Broken::Stalled(self.from.other()),
                _ => Broken::By(self.from.other()),
            })?;
        }
    }

    /// Waits until this side speaks, as long as either of them does. The time is another one from the
    /// moment on that the other side has ended.
    async fn wait(&self, from: &mut Reader<'_>, timer: &Timer, pace: Pace) -> Result<Piece, Broken> {
        loop {
            let (spoken, ended) = (self.spoken.get(), self.ended.get());
            let limit = if ended { self.limits.half } else { self.limits.idle };
            let speaks = poll_fn(|cx| match self.read(cx, from, pace) {
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

    fn read(&self, cx: &mut Context<'_>, from: &mut Reader<'_>, pace: Pace) -> Poll<std::io::Result<Piece>> {
        let most = match pace {
            Pace::Small => SMALL,
            Pace::Large => LARGE,
            // A pipe is held only while there is something in it.
            Pace::Bulk(_) => match self.worker.pipes.take() {
                Ok(pipe) => {
                    return match from.poll_splice(cx, &pipe, u64::MAX) {
                        Poll::Ready(read) => Poll::Ready(read.map(|count| Piece::Piped(pipe, count))),
                        Poll::Pending => {
                            self.worker.pipes.keep(pipe);
                            Poll::Pending
                        }
                    };
                }
                // Descriptors are short: it goes without.
                Err(_) => LARGE,
            },
        };
        from.poll_fill(cx, &self.worker.buffers, most as u64, 0).map(|read| read.map(Piece::Copied))
    }
}
