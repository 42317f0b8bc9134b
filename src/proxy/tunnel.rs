//! Two connections joined: bytes pass both ways unread, until both sides have ended or fallen silent.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use super::client::Client;
use super::failure::Failure;
use super::outcome::{After, Progress};
use super::plan::Plan;
use super::relay::{self, RelayError, downstream};
use super::worker::Worker;
use crate::model::Timeouts;
use crate::net::buffers::{LARGE, SMALL};
use crate::net::stream::{Reader, Writer};
use crate::net::{Buffer, Elapsed, Stream, Timer};
use crate::state::connections::Doing;

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
    let spoken = Cell::new(0_u64);
    let ended = Cell::new(false);
    let timer = worker.wheel.timer();
    let up = Way { worker, limits, spoken: &spoken, ended: &ended, moved: &progress.body_in };
    let down = Way { worker, limits, spoken: &spoken, ended: &ended, moved: &progress.body_out };
    let mut up = pin!(up.pass(&mut client.reader, &mut server_writer, &timer));
    let mut down = pin!(down.pass(&mut server_reader, &mut client.writer, client.timer));
    let (mut up_done, mut down_done) = (false, false);
    poll_fn(|cx| {
        if !up_done && let Poll::Ready(result) = up.as_mut().poll(cx) {
            up_done = true;
            if result.is_err() {
                return Poll::Ready(());
            }
        }
        if !down_done && let Poll::Ready(result) = down.as_mut().poll(cx) {
            down_done = true;
            if result.is_err() {
                return Poll::Ready(());
            }
            // The other direction has had its turn, and has to learn that it is alone now.
            cx.waker().wake_by_ref();
        }
        if up_done && down_done { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    Ok(After::Close)
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
    async fn pass(&self, from: &mut Reader<'_>, to: &mut Writer<'_>, timer: &Timer) -> Result<(), RelayError> {
        let mut most = SMALL;
        loop {
            let buffer = self.wait(from, timer, most as u64).await?;
            if buffer.is_empty() {
                self.ended.set(true);
                // The other side may have gone already, which ends the tunnel as well.
                return match timer.wait(self.limits.write, to.shutdown()).await {
                    Ok(done) => done.map_err(|_| RelayError::Gone),
                    Err(Elapsed) => Err(RelayError::Stalled),
                };
            }
            // A full buffer means that more is waiting.
            most = if buffer.room() == 0 { LARGE } else { SMALL };
            self.spoken.set(self.spoken.get() + 1);
            self.moved.set(self.moved.get() + buffer.len() as u64);
            relay::write_all(to, buffer.as_slice(), timer, self.limits.write).await?;
        }
    }

    /// Waits until this side speaks, as long as either of them does. The time is another one from the
    /// moment on that the other side has ended.
    async fn wait(&self, from: &mut Reader<'_>, timer: &Timer, most: u64) -> Result<Buffer, RelayError> {
        loop {
            let (spoken, ended) = (self.spoken.get(), self.ended.get());
            let limit = if ended { self.limits.half } else { self.limits.idle };
            let speaks = poll_fn(|cx| match from.poll_fill(cx, &self.worker.buffers, most, 0) {
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
