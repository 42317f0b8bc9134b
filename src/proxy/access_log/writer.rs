//! Carries finished lines to the log, and never lets a slow disk reach a client.
//!
//! ```text
//!   worker: Sink (96 KiB buffer) --+
//!   worker: Sink                 --+--> bounded queue --> the thread `access-log`: Output --> file or stdout
//!   worker: Sink                 --+         |
//!                                            +-- full: the batch is dropped, its lines are counted
//! ```
//!
//! A sink belongs to one worker and hands a buffer over when it is full, or when its worker's tick says
//! so. Only the thread touches the file; it opens it again when somebody has moved it away.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::model::config::{AccessLog, LogFormat, LogTarget};

use super::{ClockText, Entry, write_json, write_text};

/// A buffer that has grown to this is handed over: some 250 lines, one write. Each wakes the
/// thread, which is what a log costs; larger ones the allocator would take from the kernel each time.
const BATCH: usize = 96 << 10;
/// Batches that wait for the disk at most: 8 MiB, some 20,000 lines.
const QUEUE: usize = 84;
/// How often the file is looked for under its name, so that logrotate needs no signal.
const LOOK: Duration = Duration::from_secs(1);
/// How often a log that cannot be written says so.
const COMPLAIN: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Batch {
    lines: u64,
    bytes: Vec<u8>,
}

/// An access log. It ends when it and all sinks that lead to it are gone.
pub struct Log {
    door: Arc<Door>,
    ended: Mutex<Receiver<()>>,
}

/// The way into a log.
#[derive(Debug)]
pub struct Door {
    format: LogFormat,
    queue: SyncSender<Batch>,
    dropped: Arc<AtomicU64>,
}

impl Door {
    /// A worker's own end of the log.
    pub fn sink(&self) -> Sink {
        Sink {
            format: self.format,
            clock: ClockText::default(),
            lines: 0,
            buffer: Vec::new(),
            queue: self.queue.clone(),
            dropped: self.dropped.clone(),
        }
    }
}

impl Log {
    /// Opens the log and starts its thread, which adds to `dropped` the lines that were not written. An error
    /// here is a failed start: a log that could never be written is better known at once.
    pub fn start(log: &AccessLog, dropped: Arc<AtomicU64>) -> io::Result<Log> {
        let mut output = Output::open(&log.target, dropped.clone())?;
        let (queue, batches) = sync_channel(QUEUE);
        let (end, ended) = sync_channel(1);
        thread::Builder::new().name("access-log".to_owned()).spawn(move || {
            output.run(&batches);
            // Nobody may be waiting any more.
            let _ = end.send(());
        })?;
        Ok(Log { door: Arc::new(Door { format: log.format, queue, dropped }), ended: Mutex::new(ended) })
    }

    /// The way in.
    pub fn door(&self) -> Arc<Door> {
        self.door.clone()
    }

    /// Waits until everything handed over has been written, `within` at most; says whether it was.
    /// Drop the sinks and doors first.
    pub fn close(self, within: Duration) -> bool {
        let Log { door, ended } = self;
        drop(door);
        ended.into_inner().is_ok_and(|ended| ended.recv_timeout(within).is_ok())
    }
}

/// One worker's end of the access log.
pub struct Sink {
    format: LogFormat,
    clock: ClockText,
    lines: u64,
    buffer: Vec<u8>,
    queue: SyncSender<Batch>,
    dropped: Arc<AtomicU64>,
}

impl Sink {
    /// Whether `Entry::matched` is written at all.
    #[inline]
    pub fn is_json(&self) -> bool {
        self.format == LogFormat::Json
    }

    /// Writes the line of one request into the buffer.
    #[inline]
    pub fn record(&mut self, entry: &Entry) {
        if self.buffer.capacity() == 0 {
            self.buffer.reserve(BATCH + 1024);
        }
        match self.format {
            LogFormat::Json => write_json(entry, &mut self.clock, &mut self.buffer),
            LogFormat::Text => write_text(entry, &mut self.clock, &mut self.buffer),
        }
        self.lines += 1;
        if self.buffer.len() >= BATCH {
            self.flush();
        }
    }

    /// Hands over what there is; called by the worker's tick, so that no line waits for the next
    /// request. An idle sink holds no buffer.
    pub fn flush(&mut self) {
        if self.lines == 0 {
            return;
        }
        let batch = Batch { lines: self.lines, bytes: std::mem::take(&mut self.buffer) };
        self.lines = 0;
        if let Err(TrySendError::Full(batch) | TrySendError::Disconnected(batch)) = self.queue.try_send(batch) {
            self.dropped.fetch_add(batch.lines, Ordering::Relaxed);
            // The buffer is as good as new.
            self.buffer = batch.bytes;
            self.buffer.clear();
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.flush();
    }
}

/// The file as the thread sees it.
struct Output {
    file: File,
    /// `None`: stdout, which nobody can move away.
    path: Option<PathBuf>,
    dropped: Arc<AtomicU64>,
    /// The last write ended inside a line.
    torn: bool,
    trouble: Option<Trouble>,
}

/// Since the log could not be written.
struct Trouble {
    said: Instant,
    lines: u64,
}

impl Output {
    fn open(target: &LogTarget, dropped: Arc<AtomicU64>) -> io::Result<Output> {
        let (file, path) = match target {
            // Not through std's stdout: its line buffer would cost a second copy.
            LogTarget::Stdout => (File::from(io::stdout().as_fd().try_clone_to_owned()?), None),
            LogTarget::File(path) => (append(path)?, Some(path.clone())),
        };
        Ok(Output { file, path, dropped, torn: false, trouble: None })
    }

    fn run(&mut self, batches: &Receiver<Batch>) {
        let mut look_at = Instant::now() + LOOK;
        loop {
            let batch = batches.recv_timeout(look_at.saturating_duration_since(Instant::now()));
            let now = Instant::now();
            if now >= look_at {
                self.follow_name(now);
                look_at = now + LOOK;
            }
            match batch {
                Ok(batch) => self.write(&batch, now),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn write(&mut self, batch: &Batch, now: Instant) {
        // What a full disk left of a line must not spoil the first one after it.
        let result = if self.torn { write_all(&mut self.file, b"\n").map_err(|(_, error)| (0, error)) } else { Ok(()) };
        let result = result.and_then(|()| {
            self.torn = false;
            write_all(&mut self.file, &batch.bytes)
        });
        match result {
            Ok(()) => {
                if let Some(trouble) = self.trouble.take() {
                    tracing::info!(lines_lost = trouble.lines, "the access log is written again");
                }
            }
            Err((written, error)) => {
                let kept = &batch.bytes[..written];
                if !self.torn {
                    self.torn = kept.last().is_some_and(|&byte| byte != b'\n');
                }
                let lost = batch.lines.saturating_sub(memchr::memchr_iter(b'\n', kept).count() as u64);
                self.dropped.fetch_add(lost, Ordering::Relaxed);
                self.complain(lost, now, &error);
            }
        }
    }

    /// Opens the file again when its name leads to another one, or to none.
    fn follow_name(&mut self, now: Instant) {
        let Some(path) = &self.path else { return };
        let same = match (self.file.metadata(), path.metadata()) {
            (Ok(ours), Ok(named)) => (ours.dev(), ours.ino()) == (named.dev(), named.ino()),
            _ => false,
        };
        if same {
            return;
        }
        match append(path) {
            Ok(file) => {
                self.file = file;
                self.torn = false;
                tracing::info!(path = %path.display(), "access log opened again");
            }
            // The lines still go where they went before: the old file is worth more than none.
            Err(error) => self.complain(0, now, &error),
        }
    }

    fn complain(&mut self, lost: u64, now: Instant, error: &io::Error) {
        let trouble = self.trouble.get_or_insert(Trouble { said: now, lines: 0 });
        let first = trouble.lines == 0 && trouble.said == now;
        trouble.lines += lost;
        if first || now.duration_since(trouble.said) >= COMPLAIN {
            trouble.said = now;
            let lines_lost = trouble.lines;
            match &self.path {
                Some(path) => {
                    tracing::error!(path = %path.display(), %error, lines_lost, "the access log cannot be written");
                }
                None => tracing::error!(%error, lines_lost, "the access log cannot be written to stdout"),
            }
        }
    }
}

fn append(path: &Path) -> io::Result<File> {
    // Addresses and paths of clients are nobody else's business.
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

/// Writes everything, or says how much was written before it failed.
fn write_all(file: &mut File, bytes: &[u8]) -> Result<(), (usize, io::Error)> {
    let mut written = 0;
    while written < bytes.len() {
        match file.write(&bytes[written..]) {
            Ok(0) => return Err((written, io::ErrorKind::WriteZero.into())),
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // A terminal or pipe that another program has set so. Its reader may take a second.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if !writable(file) {
                    return Err((written, error));
                }
            }
            Err(error) => return Err((written, error)),
        }
    }
    Ok(())
}

fn writable(file: &File) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let second = Timespec { tv_sec: 1, tv_nsec: 0 };
    poll(&mut [PollFd::new(file, PollFlags::OUT)], Some(&second)).is_ok_and(|ready| ready > 0)
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
