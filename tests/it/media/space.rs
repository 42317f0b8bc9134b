//! A network of its own: addresses, routes and sockets that nobody else on the machine meets.
//!
//! It has no name. It lives as long as a descriptor of this process, so that nothing is left behind,
//! however the test ends.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::process::{Command, Stdio};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

pub struct Space {
    descriptor: File,
}

impl Space {
    /// `None` where this process may not make one.
    pub fn new() -> Option<Space> {
        let mut command = Command::new("unshare");
        command.args(["--net", "sh", "-c", "echo made; read _"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut holder = command.spawn().ok()?;
        let mut line = String::new();
        let made = holder.stdout.take().is_some_and(|out| BufReader::new(out).read_line(&mut line).is_ok());
        let descriptor = (made && line == "made\n").then(|| File::open(format!("/proc/{}/ns/net", holder.id())));
        // Its input ends, and so does it.
        drop(holder.stdin.take());
        let _ = holder.wait();
        Some(Space { descriptor: descriptor?.ok()? })
    }

    /// Does something in this network. Sockets and processes that it makes stay there.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            move_into_link_name_space(self.descriptor.as_fd(), Some(LinkNameSpaceType::Network)).expect("a network");
            work()
        };
        std::thread::scope(|scope| match scope.spawn(inside).join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }

    /// Runs lines of `ip`, in order.
    pub fn ip(&self, lines: &str) {
        self.within(|| {
            let mut command = Command::new("ip");
            let mut ip = command.args(["-batch", "-"]).stdin(Stdio::piped()).spawn().expect("ip, of iproute2");
            let mut input = ip.stdin.take().expect("its input");
            input.write_all(lines.as_bytes()).expect("lines for ip");
            drop(input);
            assert!(ip.wait().expect("ip").success(), "ip, with\n{lines}");
        });
    }

    /// What `ip` calls it.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.descriptor.as_raw_fd())
    }
}
