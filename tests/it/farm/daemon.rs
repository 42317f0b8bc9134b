//! Daemons of other people, with all of their processes.

use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process_group};

use super::process::Process;

/// A daemon with all of its processes.
pub struct Daemon {
    process: Process,
}

impl Daemon {
    pub fn start(command: &mut Command) -> Daemon {
        Daemon { process: Process::start(command.process_group(0)) }
    }

    pub fn signal(&self, signal: Signal) {
        if let Some(group) = Pid::from_raw(self.process.id() as i32) {
            let _ = kill_process_group(group, signal);
        }
    }

    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.process.kill();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A program of /usr/sbin, whatever it thinks of options.
pub fn sbin(name: &str) -> Option<String> {
    let path = format!("/usr/sbin/{name}");
    std::path::Path::new(&path).exists().then_some(path)
}

pub fn root() -> bool {
    rustix::process::geteuid().is_root()
}
