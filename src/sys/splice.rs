//! Bytes from socket to socket without a copy into this process.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

/// A pipe that bytes pass through; empty whenever it is not in use.
#[derive(Debug)]
pub struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    capacity: usize,
}

/// Larger pipes save calls; a quarter of a MiB is what one burst of a socket fills.
const CAPACITY: usize = 256 << 10;

impl Pipe {
    /// # Errors
    /// When descriptors are short.
    pub fn new() -> io::Result<Pipe> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // An unprivileged user may be held to less; the default of 64 KiB serves too.
        let capacity = fcntl_setpipe_size(&write, CAPACITY).unwrap_or(64 << 10);
        Ok(Pipe { read, write, capacity })
    }

    /// Moves at most `most` bytes from a socket into the pipe; 0 at the end of the stream.
    ///
    /// # Errors
    /// `WouldBlock` when the socket has nothing (the pipe must be empty, else it may mean the pipe).
    pub fn fill(&self, from: &impl AsFd, most: u64) -> io::Result<usize> {
        let most = usize::try_from(most).unwrap_or(usize::MAX).min(self.capacity);
        Ok(splice(from, None, &self.write, None, most, FLAGS)?)
    }

    /// Moves at most `most` bytes from the pipe into a socket.
    ///
    /// # Errors
    /// `WouldBlock` when the socket takes nothing.
    pub fn drain(&self, to: &impl AsFd, most: usize) -> io::Result<usize> {
        Ok(splice(&self.read, None, to, None, most, FLAGS)?)
    }
}

const FLAGS: SpliceFlags = SpliceFlags::MOVE.union(SpliceFlags::NONBLOCK);
