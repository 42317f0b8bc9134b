//! The new process, as the old one starts, hears and ends it.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use crate::config::HAND_OVER;

/// Lines of stderr that are kept, the last ones, and how much of each.
const LINES: usize = 20;
const LINE: u64 = 1000;

/// How long the end of stderr is waited for after the process has ended: it may have children.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// How long whoever asked for the upgrade waits for one that finishes what it has.
const FINISH: Duration = Duration::from_secs(2);

/// How a new process ends that does not take over.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum End {
    Now,
    /// It is ending, and gets a moment for it.
    ByItself,
    /// It may have clients: it is told to end, and is only ended after that time.
    Finish {
        within: Duration,
    },
}

/// What this process was started from.
#[derive(Debug, Clone)]
pub struct Origin {
    /// The name by which it was started, so that a link of that name may lead to a newer program by now; else
    /// the file that runs.
    program: PathBuf,
    name: OsString,
    arguments: Vec<OsString>,
}

impl Origin {
    /// To be asked as the process begins: later its file may be another one.
    pub fn of_this_process() -> Option<Origin> {
        let mut words = std::env::args_os();
        let name = words.next()?;
        let program = match Path::new(&name) {
            path if path.components().count() > 1 || path.is_absolute() => std::path::absolute(path).ok()?,
            _ => std::env::current_exe().ok()?,
        };
        Some(Origin { program, name, arguments: words.collect() })
    }

    pub fn program(&self) -> &Path {
        &self.program
    }
}

/// A process that is to take over.
#[derive(Debug)]
pub struct Started {
    child: Option<Child>,
    pid: u32,
    said: Arc<Mutex<VecDeque<String>>>,
    /// Heard when its stderr is at its end.
    silent: Receiver<()>,
}

impl Started {
    /// Starts it with the words and the environment of this process, and `socket` as its stdin.
    ///
    /// # Errors
    /// When there is no such program, or it cannot be run.
    pub fn start(origin: &Origin, binary: Option<&Path>, socket: OwnedFd) -> io::Result<Started> {
        let (program, name) = match binary {
            Some(binary) => (binary, binary.as_os_str()),
            None => (origin.program(), &*origin.name),
        };
        let mut child = Command::new(program)
            .arg0(name)
            .args(&origin.arguments)
            .env(HAND_OVER, "1")
            .stdin(Stdio::from(socket))
            .stderr(Stdio::piped())
            .spawn()?;
        let said: Arc<Mutex<VecDeque<String>>> = Arc::default();
        let (ends, silent) = channel();
        if let Some(stderr) = child.stderr.take() {
            let said = said.clone();
            std::thread::Builder::new().name("last words".to_owned()).spawn(move || {
                listen(stderr, &said);
                // Nobody asks after one that serves.
                let _ = ends.send(());
            })?;
        }
        Ok(Started { pid: child.id(), child: Some(child), said, silent })
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Ends it, when it has not ended by itself: how it ended, and its last words. Blocks for a few seconds at most.
    /// `kept` is what has to stay until it has ended, which may be later where it finishes what it has.
    pub fn end(mut self, end: End, kept: impl Send + 'static) -> (String, Vec<String>) {
        let Some(mut child) = self.child.take() else { return (String::new(), Vec::new()) };
        let moment = match end {
            End::Now => Duration::ZERO,
            End::ByItself => LAST_WORDS,
            End::Finish { .. } => {
                // One that is gone is asked after below.
                let _ = kill_process(Pid::from_child(&child), Signal::TERM);
                FINISH
            }
        };
        let how = match (exited(&mut child, moment), end) {
            (Some(how), _) => how,
            (None, End::Finish { within }) => {
                let wait = move || {
                    if exited(&mut child, within.saturating_sub(FINISH)).is_none() {
                        tracing::warn!(pid = child.id(), "the new process did not finish in time: it is ended");
                        kill(&mut child);
                    }
                    drop(kept);
                };
                match std::thread::Builder::new().name("last clients".to_owned()).spawn(wait) {
                    Ok(_) => "finishes what it has".to_owned(),
                    // It has been told to end, and does by itself.
                    Err(error) => format!("is not waited for: {error}"),
                }
            }
            (None, End::Now | End::ByItself) => {
                kill(&mut child);
                "was ended".to_owned()
            }
        };
        // An error means that there is nothing more to come, too.
        let _ = self.silent.recv_timeout(LAST_WORDS);
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect();
        (how, said)
    }

    /// It goes on without this one.
    pub fn let_go(mut self) {
        self.child = None;
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            kill(child);
        }
    }
}

fn kill(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

/// How it ended; `None` when it has not within that time.
fn exited(child: &mut Child, within: Duration) -> Option<String> {
    let handle = pidfd_open(Pid::from_child(child), PidfdFlags::empty()).ok()?;
    let within = Timespec { tv_sec: within.as_secs() as i64, tv_nsec: within.subsec_nanos().into() };
    // It can be read when the process has ended.
    poll(&mut [PollFd::new(&handle, PollFlags::IN)], Some(&within)).ok()?;
    let status = child.try_wait().ok()??;
    Some(format!("ended by itself ({status})"))
}

/// Passes on what it says, as if it had said it itself, and remembers the end of it.
fn listen(stderr: impl Read, said: &Mutex<VecDeque<String>>) {
    let mut reader = BufReader::new(stderr);
    let mut line = Vec::new();
    while reader.by_ref().take(LINE).read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
        // Whoever reads our log may be gone.
        let _ = io::stderr().write_all(&line);
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        line.clear();
        let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
        said.push_back(text);
        if said.len() > LINES {
            said.pop_front();
        }
    }
}
