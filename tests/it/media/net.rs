//! A media farm in networks of its own: a client, the director with its virtual address, three origins.
//!
//! ```text
//!   client 10.77.1.2 ---- 10.77.1.1  director  10.77.2.1 --+-- 10.77.2.11  one    160x120
//!                         10.77.1.100 (VIP)                +-- 10.77.2.12  two    176x144
//!                                                          +-- 10.77.2.13  three  320x240
//! ```
//!
//! The client cannot reach an origin: it has a blackhole route for their network. On one loopback all of
//! this would work by accident: a wildcard socket hears any address of it, and every origin sends from 127.0.0.1.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::space::Space;
use crate::farm::peer::{program, test_file};
use crate::farm::process::{Process, run};
use crate::farm::reeve::{command, log};
use crate::farm::{Folder, skip, until};

pub const VIP: &str = "10.77.1.100";
pub const CLIENT: &str = "10.77.1.2";
/// Where origins are, as far as a client can tell.
pub const ORIGINS: [&str; 3] = ["10.77.2.11", "10.77.2.12", "10.77.2.13"];
pub const NAMES: [&str; 3] = ["one", "two", "three"];
const SIZES: [&str; 3] = ["160x120", "176x144", "320x240"];

pub struct Farm {
    pub client: Space,
    pub director: Space,
    pub origins: Vec<Space>,
    pub folder: Folder,
    /// Where Reeve's director keeps its tables, if it has one.
    pub pins: PathBuf,
}

impl Drop for Farm {
    fn drop(&mut self) {
        for folder in ["links", "maps"] {
            let _ = std::fs::remove_dir_all(self.pins.join(folder));
        }
        let _ = std::fs::remove_dir(&self.pins);
    }
}

/// What a client may send to the origins' network.
#[derive(PartialEq)]
pub enum Way {
    /// Nothing.
    Barred,
    /// Everything; the director forwards it as any router does.
    Open,
}

impl Farm {
    /// The lines of Reeve's access log so far, each parsed.
    pub fn log(&self) -> Vec<serde_json::Value> {
        log(&self.folder.path().join("access.log"))
    }

    /// `None`, and it has said why, where the farm cannot be built.
    pub fn new(label: &str, way: Way) -> Option<Farm> {
        let spaces = || Some((Space::new()?, Space::new()?, [Space::new()?, Space::new()?, Space::new()?]));
        if let Some(missing) = missing() {
            skip(&missing);
            return None;
        }
        let Some((client, director, origins)) = spaces() else {
            skip("networks of one's own need root");
            return None;
        };
        director.ip(&format!(
            "link set lo up\n\
             link add c0 type veth peer name c0 netns {}\n\
             addr add 10.77.1.1/24 dev c0\n\
             addr add {VIP}/32 dev c0\n\
             link set c0 up\n\
             link add br0 type bridge\n\
             addr add 10.77.2.1/24 dev br0\n\
             link set br0 up\n",
            client.path()
        ));
        director.within(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")).expect("forwarding");
        let barred = if way == Way::Barred { "route add blackhole 10.77.2.0/24\n" } else { "" };
        client.ip(&format!(
            "link set lo up\naddr add {CLIENT}/24 dev c0\nlink set c0 up\nroute add default via 10.77.1.1\n{barred}"
        ));
        for (number, (space, address)) in origins.iter().zip(ORIGINS).enumerate() {
            let path = space.path();
            director.ip(&format!(
                "link add o{number} type veth peer name eth0 netns {path}\n\
                 link set o{number} master br0\nlink set o{number} up\n"
            ));
            space.ip(&format!(
                "link set lo up\naddr add {address}/24 dev eth0\nlink set eth0 up\nroute add default via 10.77.2.1\n"
            ));
        }
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let pins = PathBuf::from(format!("/sys/fs/bpf/rv{}m{number}", std::process::id()));
        Some(Farm { client, director, origins: origins.into(), folder: Folder::new(label), pins })
    }

    /// The director at both sides of Reeve, as the file has it.
    pub fn director(&self) -> String {
        format!("[director]\ninterfaces = [\"c0\", \"br0\"]\nflows = 4096\npin = \"{}\"\n", self.pins.display())
    }

    /// Starts the GStreamer servers on the first hosts, one for each list of further options, and waits for them.
    pub fn origins(&self, options: &[&[&str]]) -> Vec<Process> {
        let start = |number: usize, more: &[&str]| {
            let mut command = python();
            command.arg(test_file("it/rtsp_origin.py"));
            command.args(["--address", ORIGINS[number], "--name", NAMES[number], "--size", SIZES[number]]).args(more);
            self.origins[number].within(|| Process::start(&mut command))
        };
        let mut origins: Vec<Process> = options.iter().enumerate().map(|(number, more)| start(number, more)).collect();
        for origin in &mut origins {
            until("an origin is ready", || {
                assert!(origin.running(), "it ended: {}", origin.stderr());
                origin.stdout().contains("ready ").then_some(())
            });
        }
        origins
    }

    /// Starts Reeve between the two networks, with these texts and what the farm says by itself.
    pub fn reeve(&self, config: &str, rules: &str) -> Process {
        let file = self.texts(config, rules);
        let mut reeve = self.director.within(|| Process::start(command().arg("run").arg("-c").arg(file)));
        until("Reeve listens", || {
            assert!(reeve.running(), "it ended: {}", reeve.stderr());
            self.director.within(|| std::net::TcpStream::connect((VIP, 8554))).ok()
        });
        reeve
    }

    /// Gives Reeve an order, which it must obey; what it said.
    pub fn order(&self, words: &[&str]) -> String {
        let mut command = command();
        command.args(words).arg("--socket").arg(self.folder.path().join("reeve.sock"));
        let (code, out, wrong) = run(&mut command, Duration::from_secs(30));
        assert_eq!(code, 0, "{words:?}: {out}{wrong}");
        out
    }

    /// Writes Reeve's texts down.
    pub fn texts(&self, config: &str, rules: &str) -> PathBuf {
        let path = |name: &str| self.folder.path().join(name).display().to_string();
        self.folder.write("rules/site.rules", rules);
        let text = format!(
            "{config}\n[monitor]\nmetrics-address = [\"127.0.0.1:9901\"]\n[process]\nworkers = 2\nsocket = \"{}\"\n\
             [log]\naccess = {{ format = \"json\", path = \"{}\" }}\n[state]\npath = \"{}\"\n",
            path("reeve.sock"),
            path("access.log"),
            path("state"),
        );
        self.folder.write("reeve.toml", text)
    }
}

/// Waits for its director: what comes before is relayed.
pub fn with_director(reeve: Process) -> Process {
    reeve.says("director: forwarding");
    reeve
}

/// All media of a farm, to its one pool.
pub const RULES: &str = "rtsp *\n  all : any  use media by path\n";

/// A media listener at the virtual address.
pub fn listener(name: &str, port: u16, media: &str) -> String {
    format!(
        "[listen.{name}]\naddress = [\"{VIP}:{port}\"]\nprotocol = \"rtsp\"\nmedia = \"{media}\"\n\
         rules = [\"rules/site.rules\"]\n"
    )
}

/// The origins of the farm as a pool. `how` is the scheduler, as the file has it.
pub fn pool(how: &str, origins: usize) -> String {
    let mut text = format!("[pool.media]\nscheduler = {how}\nservers = [\n");
    for (name, address) in NAMES.iter().zip(ORIGINS).take(origins) {
        text.push_str(&format!("  {{ name = \"{name}\", address = \"{address}:8554\" }},\n"));
    }
    text + "]\n"
}

/// The distribution's Python: gi is not to be had elsewhere.
pub fn python() -> Command {
    Command::new("/usr/bin/python3")
}

/// What the farm needs and this machine lacks.
fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("a farm of networks needs root".to_owned());
    }
    let there = |name: &str, option: &str| Command::new(name).arg(option).output().is_ok_and(|o| o.status.success());
    for (name, option) in [("ffmpeg", "-version"), ("ffprobe", "-version"), ("ip", "-Version")] {
        if !there(name, option) {
            return Some(format!("no {name}"));
        }
    }
    if program("gst-launch-1.0").is_none() || !Path::new("/usr/bin/python3").exists() {
        return Some("no gst-launch-1.0, or no /usr/bin/python3".to_owned());
    }
    // The first call after an installation reads all plugins, which takes its time: once, not by everybody at once.
    for element in ["rtspsrc", "rtph264depay", "x264enc", "videotestsrc", "rtpjpegpay"] {
        if !there("gst-inspect-1.0", element) {
            return Some(format!("GStreamer has no {element}"));
        }
    }
    let server = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer";
    let (code, _, why) = run(python().args(["-c", server]), Duration::from_secs(60));
    (code != 0).then(|| format!("gst-rtsp-server is not there for Python: {why}"))
}
