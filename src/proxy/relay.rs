//! Bodies, one way at a time: as much is read as can be written, so that a slow receiver slows the
//! sender down and nothing piles up here.

use std::cell::Cell;
use std::io;
use std::time::Duration;

use crate::model::Limits;
use crate::net::stream::{Reader, Writer};
use crate::net::{Buffer, Elapsed, Timer};
use crate::sys::splice::Pipe;
use crate::wire::http1::{ChunkFault, ChunkedBody};

use super::failure::{Failure, FailureKind};
use super::worker::Worker;

/// From this many bytes on a body of known length goes through a pipe in the kernel, where neither side
/// is sealed; below, copying costs less than the pipe's extra calls.
const SPLICE_FROM: u64 = 64 << 10;

/// Why a body did not get through.
#[derive(Debug)]
pub enum RelayError {
    /// The sender ended or broke before its message was whole.
    Cut(Option<io::Error>),
    /// The sender was silent for too long.
    Silent,
    Chunked(ChunkFault),
    /// The receiver is gone.
    Gone,
    /// The receiver took nothing for too long.
    Stalled,
}

/// A write to the client that failed.
pub fn downstream(error: RelayError) -> Failure {
    match error {
        RelayError::Stalled => Failure::new(FailureKind::ClientStalled, "the client takes nothing of its answer"),
        _ => Failure::client_gone(),
    }
}

/// How long each side may pause.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    pub read: Duration,
    pub write: Duration,
}

/// Where bytes come from and go to, and who counts them.
#[derive(Debug)]
pub struct Path<'p, 'f, 't> {
    pub from: &'p mut Reader<'f>,
    pub to: &'p mut Writer<'t>,
    pub timer: &'p Timer,
    pub patience: Patience,
    /// Bytes passed on.
    pub moved: &'p Cell<u64>,
}

/// Writes all of `bytes`. Nearly always the kernel takes them at once; only where it does not is there
/// anything to wait for.
pub async fn write_all(to: &mut Writer<'_>, bytes: &[u8], timer: &Timer, limit: Duration) -> Result<(), RelayError> {
    let sent = if bytes.is_empty() { 0 } else { to.write_now(bytes).map_err(|_| RelayError::Gone)? };
    if sent == bytes.len() && !to.is_behind() {
        return Ok(());
    }
    Box::pin(write_rest(to, &bytes[sent..], timer, limit)).await
}

/// Writes all of `bytes`, for which the kernel has no room yet.
pub async fn write_rest(
    to: &mut Writer<'_>,
    mut bytes: &[u8],
    timer: &Timer,
    limit: Duration,
) -> Result<(), RelayError> {
    while !bytes.is_empty() {
        match timer.wait(limit, to.write(bytes)).await {
            Ok(Ok(count)) if count > 0 => bytes = &bytes[count..],
            Ok(_) => return Err(RelayError::Gone),
            Err(Elapsed) => return Err(RelayError::Stalled),
        }
    }
    // Over TLS the last of it may have been sealed and not sent.
    while to.is_behind() {
        match timer.wait(limit, to.send()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(RelayError::Gone),
            Err(Elapsed) => return Err(RelayError::Stalled),
        }
    }
    Ok(())
}

/// Moves all that a pipe holds, `inside` bytes, to where it goes.
pub async fn drain(
    to: &mut Writer<'_>,
    pipe: &Pipe,
    mut inside: usize,
    timer: &Timer,
    limit: Duration,
) -> Result<(), RelayError> {
    while inside > 0 {
        match timer.wait(limit, to.splice(pipe, inside)).await {
            Ok(Ok(count)) if count > 0 => inside -= count,
            Ok(_) => return Err(RelayError::Gone),
            Err(Elapsed) => return Err(RelayError::Stalled),
        }
    }
    Ok(())
}

/// Reads some more into `into`, which has room. False at the end of the stream.
pub async fn read_some(
    from: &mut Reader<'_>,
    into: &mut Buffer,
    timer: &Timer,
    limit: Duration,
) -> Result<bool, RelayError> {
    match timer.wait(limit, from.read(into)).await {
        Ok(Ok(count)) => Ok(count > 0),
        Ok(Err(error)) => Err(RelayError::Cut(Some(error))),
        Err(Elapsed) => Err(RelayError::Silent),
    }
}

impl Path<'_, '_, '_> {
    async fn write(&mut self, bytes: &[u8]) -> Result<(), RelayError> {
        self.moved.set(self.moved.get() + bytes.len() as u64);
        write_all(self.to, bytes, self.timer, self.patience.write).await
    }

    /// Passes on exactly `length` bytes that have not been read yet.
    pub async fn length(&mut self, worker: &Worker, length: u64) -> Result<(), RelayError> {
        if length >= SPLICE_FROM && self.from.is_plain() && self.to.is_plain() {
            return Box::pin(self.splice(worker, length)).await;
        }
        Box::pin(self.copy(worker, Some(length))).await
    }

    /// Passes on everything up to the end of the stream.
    pub async fn until_close(&mut self, worker: &Worker) -> Result<(), RelayError> {
        Box::pin(self.copy(worker, None)).await
    }

    async fn copy(&mut self, worker: &Worker, length: Option<u64>) -> Result<(), RelayError> {
        let mut left = length.unwrap_or(u64::MAX);
        while left > 0 {
            // What comes behind the message stays where it is: it is the next one, or nobody's.
            let read = self.from.fill_for(self.to, &worker.buffers, left);
            let buffer = match self.timer.wait(self.patience.read, read).await {
                Ok(Ok(buffer)) => buffer,
                Ok(Err(error)) => return Err(RelayError::Cut(Some(error))),
                Err(Elapsed) => return Err(RelayError::Silent),
            };
            if buffer.is_empty() {
                return if length.is_none() { Ok(()) } else { Err(RelayError::Cut(None)) };
            }
            left -= buffer.len() as u64;
            self.write(buffer.as_slice()).await?;
        }
        Ok(())
    }

    async fn splice(&mut self, worker: &Worker, length: u64) -> Result<(), RelayError> {
        let Ok(pipe) = worker.pipes.take() else { return self.copy(worker, Some(length)).await };
        let mut left = length;
        while left > 0 {
            let count = match self.timer.wait(self.patience.read, self.from.splice(&pipe, left)).await {
                Ok(Ok(0)) => return Err(RelayError::Cut(None)),
                Ok(Ok(count)) => count,
                Ok(Err(error)) => return Err(RelayError::Cut(Some(error))),
                Err(Elapsed) => return Err(RelayError::Silent),
            };
            left -= count as u64;
            drain(self.to, &pipe, count, self.timer, self.patience.write).await?;
            self.moved.set(self.moved.get() + count as u64);
        }
        worker.pipes.keep(pipe);
        Ok(())
    }

    /// Passes on the rest of a chunked body. `buffer` holds what has been read and not been scanned
    /// yet; at the end, what belongs to the next message.
    pub async fn chunked(
        &mut self,
        body: &mut ChunkedBody,
        buffer: &mut Buffer,
        limits: &Limits,
    ) -> Result<(), RelayError> {
        loop {
            if !buffer.is_empty() {
                let scanned = body.scan(buffer.as_mut_slice(), limits).map_err(RelayError::Chunked)?;
                self.write(&buffer.as_slice()[..scanned.kept]).await?;
                buffer.consume(scanned.taken);
                if scanned.done {
                    return Ok(());
                }
            }
            if !buffer.grow(limits.trailer_bytes.max(buffer.capacity()) + 1024) {
                return Err(RelayError::Chunked(ChunkFault::TrailersTooLarge));
            }
            if !read_some(self.from, buffer, self.timer, self.patience.read).await? {
                return Err(RelayError::Cut(None));
            }
        }
    }
}
