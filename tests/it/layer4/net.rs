//! Network namespaces with real programs in them: a client, the director, two servers, and a switch with a bridge before the
//! director and one behind it.
//!
//! ```text
//!    client 10.1.0.2 ----.                           .---- 10.1.0.11 server 1 10.2.0.11 ----.
//!                         front bridge --------------+                                       back bridge
//!    director 10.1.0.1 --'                           '---- 10.1.0.12 server 2 10.2.0.12 ----'   |
//!             10.2.0.1 ---------------------------------------------------------------------------'
//! ```
//!
//! By nat, servers answer through the director; by dr, which they get at their front, they answer by themselves.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::farm::process::{Process, run};
use crate::farm::reeve::program;
use crate::farm::{Folder, skip, until};

/// The virtual addresses: `NAT` by nat, `DR` by dr.
pub const NAT: &str = "10.1.0.100";
pub const DR: &str = "10.1.0.101";

pub struct Net {
    tag: String,
    pub folder: Folder,
    peers: Vec<Process>,
}

impl Net {
    /// `None`, and a word, where namespaces cannot be made or a program is missing.
    pub fn new(label: &str, programs: &[&str]) -> Option<Net> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        if !rustix::process::geteuid().is_root() {
            skip("network namespaces need root");
            return None;
        }
        for program in ["ip", "nsenter"].iter().chain(programs) {
            if !found(program) {
                skip(&format!("there is no {program}"));
                return None;
            }
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let net =
            Net { tag: format!("rv{}x{number}", std::process::id()), folder: Folder::new(label), peers: Vec::new() };
        for role in ["c", "d", "s1", "s2", "w"] {
            let made = Command::new("ip").args(["netns", "add", &net.name(role)]).output().expect("ip");
            if !made.status.success() {
                skip(&format!("no namespace can be made: {}", String::from_utf8_lossy(&made.stderr)));
                return None;
            }
            net.ip(role, "link set lo up");
        }
        net.ip("w", "link add front type bridge");
        net.ip("w", "link add back type bridge");
        net.ip("w", "link set front up");
        net.ip("w", "link set back up");
        for (role, end, address) in [
            ("c", "front", "10.1.0.2/24"),
            ("d", "front", "10.1.0.1/24"),
            ("d", "back", "10.2.0.1/24"),
            ("s1", "front", "10.1.0.11/24"),
            ("s1", "back", "10.2.0.11/24"),
            ("s2", "front", "10.1.0.12/24"),
            ("s2", "back", "10.2.0.12/24"),
        ] {
            let (port, inside) = (format!("{role}{end}"), net.name(role));
            net.ip("w", &format!("link add {port} type veth peer name {end} netns {inside}"));
            net.ip("w", &format!("link set {port} master {end}"));
            net.ip("w", &format!("link set {port} up"));
            net.ip(role, &format!("addr add {address} dev {end}"));
            net.ip(role, &format!("link set {end} up"));
        }
        for address in [NAT, DR] {
            net.ip("d", &format!("addr add {address}/32 dev front"));
        }
        net.sysctl(
            "d",
            &["net.ipv4.ip_forward=1", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.all.send_redirects=0"],
        );
        net.sysctl("d", &["net.ipv4.conf.front.rp_filter=0", "net.ipv4.conf.back.rp_filter=0"]);
        for (role, last) in [("s1", 11), ("s2", 12)] {
            // The address of the service is its own, but it does not say so (ARP).
            net.sysctl(role, &["net.ipv4.conf.all.arp_ignore=1", "net.ipv4.conf.all.arp_announce=2"]);
            net.sysctl(role, &["net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.front.rp_filter=0"]);
            net.ip(role, &format!("addr add {DR}/32 dev lo"));
            net.ip(role, &format!("rule add from 10.2.0.{last} lookup 100"));
            net.ip(role, "route add default via 10.2.0.1 table 100");
        }
        Some(net)
    }

    fn name(&self, role: &str) -> String {
        format!("{}{role}", self.tag)
    }

    /// `ip` within a namespace.
    pub fn ip(&self, role: &str, words: &str) {
        let ns = self.name(role);
        let output = Command::new("ip").args(["-n", &ns]).args(words.split(' ')).output().expect("ip");
        assert!(output.status.success(), "ip {words} in {role}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Whether it could be done.
    pub fn tries(&self, role: &str, words: &str) -> bool {
        let mut command = Command::new("ip");
        let output = command.args(["-n", &self.name(role)]).args(words.split(' ')).output().expect("ip");
        output.status.success()
    }

    /// Does something on a thread of a namespace.
    pub fn within<T: Send>(&self, role: &str, what: impl FnOnce() -> T + Send) -> T {
        let space = std::fs::File::open(self.space(role)).expect("a namespace");
        let thread = || {
            let kind = Some(rustix::thread::LinkNameSpaceType::Network);
            rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&space), kind).expect("the namespace");
            what()
        };
        std::thread::scope(|scope| scope.spawn(thread).join()).expect("its end")
    }

    pub fn sysctl(&self, role: &str, all: &[&str]) {
        for setting in all {
            let (name, value) = setting.split_once('=').expect("a setting");
            let path = format!("/proc/sys/{}", name.replace('.', "/"));
            let (code, _, wrong) = self.output(role, "sh", &["-c", &format!("echo {value} > {path}")]);
            assert_eq!(code, 0, "{setting}: {wrong}");
        }
    }

    /// A program in a namespace; the rest of the machine is as outside, so that what is pinned is there.
    pub fn command(&self, role: &str, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.name(role))).arg("--").arg(program);
        command
    }

    /// Runs it to its end.
    pub fn output(&self, role: &str, program: &str, words: &[&str]) -> (i32, String, String) {
        run(self.command(role, program).args(words), Duration::from_secs(30))
    }

    pub fn start(&self, role: &str, program: &str, words: &[&str]) -> Process {
        Process::start(self.command(role, program).args(words))
    }

    /// nginx on a server, which says its role; until it listens.
    pub fn web(&mut self, role: &str, port: u16) -> usize {
        let conf = format!(
            "daemon off; master_process off; worker_processes 1; pid {folder}/{role}.pid; error_log {folder}/{role}.log;\n\
             events {{ worker_connections 512; }}\n\
             http {{ access_log off; client_body_temp_path {folder}/{role}-body; proxy_temp_path {folder}/{role}-proxy;\n\
             fastcgi_temp_path {folder}/{role}-f; uwsgi_temp_path {folder}/{role}-u; scgi_temp_path {folder}/{role}-s;\n\
             server {{ listen {port} reuseport; listen {DR}:80; location / {{ return 200 \"{role} $remote_addr\\n\"; }} }} }}\n",
            folder = self.folder.path().display()
        );
        let conf = self.folder.write(&format!("{role}.conf"), conf);
        let program = "/usr/sbin/nginx";
        let process = self.start(role, program, &["-c", &conf.display().to_string()]);
        self.peers.push(process);
        self.listens(role, port);
        self.peers.len() - 1
    }

    pub fn peer(&mut self, at: usize) -> &mut Process {
        &mut self.peers[at]
    }

    pub fn keep(&mut self, process: Process) {
        self.peers.push(process);
    }

    /// Until something listens at a port of a namespace.
    pub fn listens(&self, role: &str, port: u16) {
        until(&format!("somebody listens at {port} in {role}"), || {
            let (_, sockets, _) = self.output(role, "ss", &["-Hltun", "sport", "=", &format!(":{port}")]);
            (!sockets.trim().is_empty()).then_some(())
        });
    }

    /// What curl gets from the client; empty where it gets nothing within a second.
    pub fn curl(&self, url: &str) -> String {
        let (_, out, _) = self.output("c", "curl", &["-s", "--max-time", "1", url]);
        out
    }

    /// Where this one's tables are kept.
    pub fn pin(&self) -> PathBuf {
        PathBuf::from(format!("/sys/fs/bpf/{}", self.tag))
    }

    /// The file that stands for a namespace.
    pub fn space(&self, role: &str) -> PathBuf {
        Path::new("/run/netns").join(self.name(role))
    }

    /// The program under test in the director's namespace, with a configuration for it.
    pub fn reeve(&self, config: &str) -> Running {
        let pin = self.pin();
        let socket = self.folder.path().join("reeve.sock").display().to_string();
        let text = format!(
            "[process]\nworkers = 1\nsocket = \"{socket}\"\n[state]\npath = \"{state}\"\n\
             [monitor]\nmetrics-address = [\"127.0.0.1:9901\"]\n\
             [director]\ninterfaces = [\"front\", \"back\"]\nflows = 4096\npin = \"{pin}\"\n{config}\n",
            state = self.folder.path().join("state").display(),
            pin = pin.display()
        );
        let file = self.folder.write("reeve.toml", text);
        let mut running = Running { process: None, file, socket, pin };
        running.begin(self);
        running
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        self.peers.clear();
        for role in ["c", "d", "s1", "s2", "w"] {
            let _ = Command::new("ip").args(["netns", "del", &self.name(role)]).output();
        }
    }
}

/// Reeve in the director's namespace.
pub struct Running {
    pub process: Option<Process>,
    pub file: PathBuf,
    pub socket: String,
    pin: PathBuf,
}

impl Running {
    /// Starts it, and waits until it answers.
    pub fn begin(&mut self, net: &Net) {
        let file = self.file.display().to_string();
        self.process = Some(net.start("d", program(), &["run", "-c", &file]));
        until("the director answers", || {
            let process = self.process.as_mut().expect("a process");
            assert!(process.running(), "{}", process.stderr());
            let (code, ..) = self.order(net, &["ipvsadm", "-Ln"]);
            (code == 0).then_some(())
        });
    }

    /// `reeve WORDS`, with this one's socket.
    pub fn order(&self, net: &Net, words: &[&str]) -> (i32, String, String) {
        let mut command = net.command("d", program());
        match words {
            ["ipvsadm", rest @ ..] => command.args(["ipvsadm", "--socket", &self.socket]).args(rest),
            _ => command.args(words).args(["--socket", &self.socket]),
        };
        run(&mut command, Duration::from_secs(30))
    }

    /// `ipvsadm` with these words, which must succeed; what it prints.
    pub fn ipvsadm(&self, net: &Net, words: &str) -> String {
        let words: Vec<&str> = ["ipvsadm"].into_iter().chain(words.split(' ')).collect();
        let (code, out, wrong) = self.order(net, &words);
        assert_eq!(code, 0, "{words:?}: {out}{wrong}");
        out
    }

    /// As the kernel would when it runs out of memory.
    pub fn kill(&mut self) {
        if let Some(process) = &mut self.process {
            process.kill();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.process = None;
        // What is pinned goes with the folder, and with it the programs.
        for folder in ["links", "maps"] {
            let _ = std::fs::remove_dir_all(self.pin.join(folder));
        }
        let _ = std::fs::remove_dir(&self.pin);
    }
}

fn found(program: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut folders = path.split(':').chain(["/usr/sbin", "/sbin"]);
    folders.any(|folder| Path::new(folder).join(program).exists())
}

/// The lines of a listing that begin with a service or a server.
pub fn rows(listing: &str) -> Vec<String> {
    listing.lines().skip(3).map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

/// `out` of a command that must succeed.
pub fn good(output: (i32, String, String)) -> String {
    assert_eq!(output.0, 0, "{}{}", output.1, output.2);
    output.1
}
