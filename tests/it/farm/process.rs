//! A child process that never outlives its test, and what the kernel knows of it.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::watch::until;

pub struct Process {
    child: Child,
    what: String,
    stdout: Arc<Mutex<String>>,
    stderr: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
}

impl Process {
    /// Starts it with both outputs captured and nothing to read. The environment loses what would
    /// change Reeve's configuration from outside.
    pub fn start(command: &mut Command) -> Process {
        let what = format!("{command:?}");
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("REEVE_")) {
            command.env_remove(name);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{what}: {error}"));
        let (stdout, stderr) = (Arc::default(), Arc::default());
        let mut readers = Vec::new();
        if let Some(pipe) = child.stdout.take() {
            readers.push(collect(pipe, Arc::clone(&stdout)));
        }
        if let Some(pipe) = child.stderr.take() {
            readers.push(collect(pipe, Arc::clone(&stderr)));
        }
        Process { child, what, stdout, stderr, readers }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn stdout(&self) -> String {
        self.stdout.lock().expect("captured output").clone()
    }

    pub fn stderr(&self) -> String {
        self.stderr.lock().expect("captured output").clone()
    }

    /// Waits until it has said so among its diagnostics, which take their way through a pipe and a thread of ours.
    pub fn says(&self, words: &str) {
        until(&format!("it says `{words}`"), || self.stderr().contains(words).then_some(()));
    }

    pub fn running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Signals exactly this process. It is not reaped before `Drop` or `exit`, so the id is its own.
    pub fn signal(&self, signal: Signal) {
        let _ = kill_process(Pid::from_child(&self.child), signal);
    }

    /// Kills it and returns when the kernel has taken it apart: nothing can reach it any more.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits for its end; its outputs are complete afterwards.
    pub fn exit(&mut self, deadline: Duration) -> ExitStatus {
        self.ends(deadline).unwrap_or_else(|| panic!("not within {deadline:?}: the end of {}", self.what))
    }

    /// Its status, if it ends in time; its outputs are complete then.
    pub fn ends(&mut self, deadline: Duration) -> Option<ExitStatus> {
        let start = Instant::now();
        let status = loop {
            match self.child.try_wait().expect("a child") {
                Some(status) => break status,
                None if start.elapsed() >= deadline => return None,
                None => std::thread::park_timeout(Duration::from_millis(3)),
            }
        };
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
        Some(status)
    }

    /// Resident memory in KiB.
    pub fn resident(&self) -> u64 {
        self.status("VmRSS:")
    }

    /// Forgets the peak of the resident memory; `peak` counts from here.
    pub fn reset_peak(&self) {
        std::fs::write(format!("/proc/{}/clear_refs", self.id()), "5").expect("clear_refs of a child");
    }

    /// The highest resident memory, in KiB, since the start or `reset_peak`.
    pub fn peak(&self) -> u64 {
        self.status("VmHWM:")
    }

    fn status(&self, key: &str) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.id())).expect("the child's status");
        let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_else(|| panic!("no {key} in {text}"));
        line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number of KiB")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.running() {
            self.signal(Signal::CONT);
            self.signal(Signal::TERM);
            let start = Instant::now();
            while self.running() && start.elapsed() < Duration::from_millis(500) {
                std::thread::park_timeout(Duration::from_millis(3));
            }
            self.kill();
        }
        if std::thread::panicking() {
            eprintln!("--- {}\n{}", self.what, self.stderr());
        }
    }
}

/// A process that one of ours has started in its own place, and that would outlive it: it ends with this.
pub struct Successor(Pid);

impl Successor {
    /// By what `reeve upgrade --format json` said.
    pub fn of(upgraded: &str) -> Successor {
        let said: serde_json::Value = serde_json::from_str(upgraded).unwrap_or_default();
        let pid = said["pid"].as_i64().filter(|_| said["done"] == true).and_then(|pid| Pid::from_raw(pid as i32));
        Successor(pid.unwrap_or_else(|| panic!("not upgraded: {upgraded}")))
    }
}

impl Drop for Successor {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::KILL);
        let start = Instant::now();
        while alive(self.0.as_raw_nonzero().get() as u32) && start.elapsed() < Duration::from_secs(5) {
            std::thread::park_timeout(Duration::from_millis(3));
        }
    }
}

/// Whether a process is there and is more than a dead child that nobody has asked for.
pub fn alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

fn collect(pipe: impl Read + Send + 'static, into: Arc<Mutex<String>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut reader = BufReader::new(pipe);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            into.lock().expect("captured output").push_str(&String::from_utf8_lossy(&line));
            line.clear();
        }
    })
}

/// Runs a command to its end; its status code, stdout and stderr.
pub fn run(command: &mut Command, deadline: Duration) -> (i32, String, String) {
    let mut process = Process::start(command);
    let status = process.exit(deadline);
    (status.code().unwrap_or(-1), process.stdout(), process.stderr())
}

/// Waits until something listens at an address.
pub fn listens(process: &mut Process, address: &str) {
    until(&format!("somebody listens at {address}"), || {
        assert!(process.running(), "{} ended\n{}{}", process.what, process.stdout(), process.stderr());
        std::net::TcpStream::connect(address).ok()
    });
}
