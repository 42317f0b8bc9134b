//! The kernel's tables and programs: opened or taken over, written, read.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::time::ClockId;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::abi;
use super::plan::{Present, Room, Write};
use super::records;
use crate::model::director::Director;
use crate::state::director::Counted;
use crate::sys::bpf::{self, Direction, Fault, Load, Loaded, Map, Packet};

/// Places of lists and tables: 8 MiB, and 500 services of mh, which take the most.
const SLOTS: u32 = 1 << 21;
/// Clients that are held at their servers.
const TEMPLATES: u32 = 1 << 16;
/// Servers of one-packet services.
const ANSWERS: u32 = 1 << 14;
/// Explicit flows: a stream of media has four.
const FLOWS: u32 = 1 << 14;

/// How much room the tables are made with.
pub const ROOM: Room =
    Room { services: Director::SERVICES as u32, servers: Director::SERVERS as u32, slots: SLOTS, answers: ANSWERS };

const IN: &str = "director_in";
const OUT: &str = "director_out";
const REAP: &str = "reap";

/// What a run of `reap` begins with: an Ethernet header of nothing.
const ETHERNET: usize = 14;

pub struct Kernel {
    loaded: Loaded,
    /// Nobody else writes the tables while this is held.
    _lock: OwnedFd,
}

/// Why the director is not at work.
#[derive(Debug)]
pub enum Closed {
    /// Another process has it.
    Busy,
    Fault(Fault),
}

impl From<Fault> for Closed {
    fn from(fault: Fault) -> Closed {
        Closed::Fault(fault)
    }
}

impl Kernel {
    /// Takes over what is pinned, or makes it; the programs are not at the interfaces yet.
    ///
    /// # Errors
    /// When another process has it, or the kernel refuses.
    pub fn open(director: &Director) -> Result<Kernel, Closed> {
        let pins = director.pin.as_path();
        mount(pins)?;
        let lock = lock(pins)?;
        let flows = director.flows;
        let sizes = [
            ("services", ROOM.services),
            ("service_state", ROOM.services + 1),
            ("servers", ROOM.servers + 1),
            ("loads", ROOM.servers + 1),
            ("statistics", ROOM.servers + 1),
            ("slots", SLOTS),
            ("conn4", flows),
            ("conn6", flows),
            ("back4", flows),
            ("back6", flows),
            ("templates", TEMPLATES.min(flows)),
            ("answers", ANSWERS),
            ("flows", FLOWS),
        ];
        let load = Load { object: bpf::OBJECT, pins: Some(pins), sizes: &sizes, programs: &[IN, OUT, REAP] };
        Ok(Kernel { loaded: Loaded::open(load)?, _lock: lock })
    }

    /// Puts the programs at these interfaces, and takes them off others.
    ///
    /// # Errors
    /// The first that failed; the others are done.
    pub fn attach(&mut self, interfaces: &[std::sync::Arc<str>]) -> Result<(), Fault> {
        let mut failed = None;
        for there in self.loaded.attached() {
            if !interfaces.iter().any(|name| **name == *there) {
                failed = failed.or(self.detach(&there).err());
            }
        }
        for name in interfaces {
            // What goes out first: the errors about what comes in are then right from the first packet on.
            let attached = self.loaded.attach(OUT, name, Direction::Out);
            let attached = attached.and_then(|()| self.loaded.attach(IN, name, Direction::In));
            failed = failed.or(attached.err());
        }
        failed.map_or(Ok(()), Err)
    }

    fn detach(&mut self, interface: &str) -> Result<(), Fault> {
        self.loaded.detach(interface, Direction::In)?;
        self.loaded.detach(interface, Direction::Out).map(drop)
    }

    /// Takes the programs off and forgets everything.
    ///
    /// # Errors
    /// The first that failed.
    pub fn close(mut self, pins: &Path) -> Result<(), Fault> {
        self.attach(&[])?;
        for folder in ["links", "maps"] {
            let path = pins.join(folder);
            std::fs::remove_dir_all(&path).map_err(|error| Fault::Call { what: path.display().to_string(), error })?;
        }
        // On a file system of its own it is the root, and stays.
        let _ = std::fs::remove_dir(pins);
        Ok(())
    }

    fn map(&self, name: &str) -> io::Result<&Map> {
        self.loaded.map(name).map_err(io::Error::other)
    }

    /// What is in the tables.
    ///
    /// # Errors
    /// When they cannot be read, or are of another version.
    pub fn present(&self) -> io::Result<Present> {
        let configuration: abi::Configuration = self.map("configuration")?.get(&0u32)?.unwrap_or_default();
        if configuration.version == 0 {
            // Nobody has written anything yet.
            return Ok(Present::empty(ROOM));
        }
        if configuration.version != abi::VERSION {
            return Err(io::Error::other(format!(
                "the tables are of version {}, not {}: it goes on forwarding as it is; remove the folder of pins to begin anew (connections are lost)",
                configuration.version,
                abi::VERSION
            )));
        }
        let services = self.all(self.map("services")?)?;
        let servers: Vec<abi::Server> = self.map("servers")?.first(ROOM.servers + 1)?;
        let servers = (0u32..).zip(servers).filter(|(id, server)| *id > 0 && server.service > 0).collect();
        let slots = self.map("slots")?;
        let read = |at: u32, count: u32| {
            let slot = |at: u32| slots.get::<u32, u32>(&at).ok().flatten().unwrap_or(0);
            (at..at.saturating_add(count).min(SLOTS)).map(slot).collect()
        };
        let answers = self.all(self.map("answers")?)?;
        Ok(Present::adopted(ROOM, services, servers, &read, answers, configuration))
    }

    fn all<K: FromBytes + Copy, V: FromBytes + Copy>(&self, map: &Map) -> io::Result<Vec<(K, V)>> {
        let mut all = Vec::new();
        map.walk(|key: &K, value: &V| {
            all.push((*key, *value));
            true
        })?;
        Ok(all)
    }

    /// Makes the writes, in order; the servers whose flows are to be forgotten.
    ///
    /// # Errors
    /// At the first that failed: then the tables are to be read anew.
    pub fn write(&self, writes: Vec<Write>) -> io::Result<Vec<(u32, bool)>> {
        let mut forget = Vec::new();
        for write in writes {
            match write {
                Write::Fresh { server } => {
                    self.map("loads")?.put(&server, &abi::Load::default())?;
                    self.zero(server)?;
                }
                Write::Server { id, server } => self.map("servers")?.put(&id, &server)?,
                Write::State { service } => self.map("service_state")?.put(&service, &abi::ServiceState::default())?,
                Write::Slots { at, servers } => {
                    let entries: Vec<(u32, u32)> = (at..).zip(servers).collect();
                    self.map("slots")?.put_all(&entries)?;
                }
                Write::Service { key, service } => self.map("services")?.put(&records::key(&key), &service)?,
                Write::Delete { key } => drop(self.map("services")?.delete(&records::key(&key))?),
                Write::Configuration(configuration) => self.map("configuration")?.put(&0u32, &configuration)?,
                Write::Answer { key, answer } => self.map("answers")?.put(&key, &answer)?,
                Write::DeleteAnswer { key } => drop(self.map("answers")?.delete(&key)?),
                Write::Forget { server, all } => forget.push((server, all)),
            }
        }
        Ok(forget)
    }

    /// Where a service stands, as the kernel has it.
    pub fn position(&self, service: u32) -> u64 {
        let state = self.map("service_state").and_then(|map| map.get::<u32, abi::ServiceState>(&service));
        state.ok().flatten().unwrap_or_default().position
    }

    /// # Errors
    /// When the kernel does not say.
    pub fn load(&self, server: u32) -> io::Result<abi::Load> {
        Ok(self.map("loads")?.get(&server)?.unwrap_or_default())
    }

    /// What was counted for a server, on all CPUs.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn counted(&self, server: u32) -> io::Result<Counted> {
        let each: Vec<abi::Statistics> = self.map("statistics")?.get_each(&server)?.unwrap_or_default();
        Ok(each.iter().fold(Counted::default(), |sum, one| Counted {
            connections: sum.connections + one.connections,
            packets_in: sum.packets_in + one.packets_in,
            packets_out: sum.packets_out + one.packets_out,
            bytes_in: sum.bytes_in + one.bytes_in,
            bytes_out: sum.bytes_out + one.bytes_out,
        }))
    }

    /// Counting begins at 0.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn zero(&self, server: u32) -> io::Result<()> {
        self.map("statistics")?.put(&server, &abi::Statistics::default())
    }

    /// What was dropped and why, by its name; the counters of `abi::COUNTER_NAMES`.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn counters(&self) -> io::Result<Vec<u64>> {
        let map = self.map("counters")?;
        let counter = |index| Ok(map.get_each::<u32, u64>(&index)?.unwrap_or_default().iter().sum());
        (0..abi::COUNTER_NAMES.len() as u32).map(counter).collect()
    }

    /// Shows every flow to `visit` until it says false.
    ///
    /// # Errors
    /// When the tables cannot be read.
    pub fn flows(&self, mut visit: impl FnMut(Key, &abi::Conn) -> bool) -> io::Result<()> {
        let mut more = true;
        self.map("conn4")?.walk(|key: &abi::Tuple4, conn: &abi::Conn| {
            more = visit(Key::V4(*key), conn);
            more
        })?;
        if more {
            self.map("conn6")?.walk(|key: &abi::Tuple6, conn: &abi::Conn| visit(Key::V6(*key), conn))?;
        }
        Ok(())
    }

    /// Shows every template to `visit` until it says false.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub fn templates(&self, mut visit: impl FnMut(&abi::TemplateKey, &abi::Template) -> bool) -> io::Result<()> {
        self.map("templates")?.walk(|key: &abi::TemplateKey, template: &abi::Template| visit(key, template))
    }

    /// Has the kernel forget flows; those that are not over their time only by `force`. How many it did.
    ///
    /// # Errors
    /// When the program cannot be run.
    pub fn reap(&mut self, keys: &[Key], force: bool) -> Result<usize, Fault> {
        let v4: Vec<_> = keys.iter().filter_map(|key| if let Key::V4(key) = key { Some(*key) } else { None }).collect();
        let v6: Vec<_> = keys.iter().filter_map(|key| if let Key::V6(key) = key { Some(*key) } else { None }).collect();
        Ok(self.reap_all(abi::REAP_CONN4, &v4, force)? + self.reap_all(abi::REAP_CONN6, &v6, force)?)
    }

    /// The same of templates whose time is over.
    ///
    /// # Errors
    /// When the program cannot be run.
    pub fn reap_templates(&mut self, keys: &[abi::TemplateKey]) -> Result<usize, Fault> {
        self.reap_all(abi::REAP_TEMPLATES, keys, false)
    }

    fn reap_all<K: IntoBytes + Immutable>(&mut self, what: u32, keys: &[K], force: bool) -> Result<usize, Fault> {
        let mut reaped = 0;
        for keys in keys.chunks(abi::REAP_KEYS) {
            let what = if force { what | abi::REAP_FORCE } else { what };
            let request = abi::ReapRequest { what, count: keys.len() as u32 };
            let mut data = vec![0; ETHERNET];
            data.extend_from_slice(request.as_bytes());
            data.extend_from_slice(keys.as_bytes());
            reaped += self.loaded.run(REAP, &Packet::new(&data))?.returned as usize;
        }
        Ok(reaped)
    }

    /// # Errors
    /// When there is no room, or the kernel refuses.
    pub fn put_flow(&self, key: &abi::FlowKey, flow: &abi::Flow) -> io::Result<()> {
        self.map("flows")?.put(key, flow)
    }

    /// # Errors
    /// When the kernel refuses.
    pub fn take_flow(&self, key: &abi::FlowKey) -> io::Result<Option<abi::Flow>> {
        self.map("flows")?.take(key)
    }

    /// The explicit flows that are there.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub fn explicit(&self) -> io::Result<Vec<(abi::FlowKey, abi::Flow)>> {
        self.all(self.map("flows")?)
    }
}

/// A flow by the client's packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    V4(abi::Tuple4),
    V6(abi::Tuple6),
}

impl Key {
    pub fn protocol(&self) -> u8 {
        match self {
            Key::V4(key) => key.protocol,
            Key::V6(key) => key.protocol,
        }
    }

    /// Client and virtual address.
    pub fn ends(&self) -> (SocketAddr, SocketAddr) {
        match self {
            Key::V4(key) => (
                SocketAddr::new(key.source.into(), u16::from_be_bytes(key.source_port)),
                SocketAddr::new(key.destination.into(), u16::from_be_bytes(key.destination_port)),
            ),
            Key::V6(key) => (
                SocketAddr::new(key.source.into(), u16::from_be_bytes(key.source_port)),
                SocketAddr::new(key.destination.into(), u16::from_be_bytes(key.destination_port)),
            ),
        }
    }
}

/// The tick of now.
pub fn now() -> u32 {
    let now = rustix::time::clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    abi::tick(Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or(0)))
}

/// Takes out the explicit flows of a process that has ended, without a director; how many there were.
///
/// # Errors
/// When another process has them, or they cannot be taken out.
pub fn take_left_flows(pins: &Path) -> Result<usize, Closed> {
    let fault = |error| Fault::Call { what: pins.join("maps/flows").display().to_string(), error };
    let Some(map) = bpf::pinned(pins, "flows").map_err(fault)? else { return Ok(0) };
    let _lock = lock(pins)?;
    let mut keys = Vec::new();
    map.walk(|key: &abi::FlowKey, _: &abi::Flow| {
        keys.push(*key);
        true
    })
    .map_err(fault)?;
    for key in &keys {
        map.delete(key).map_err(fault)?;
    }
    Ok(keys.len())
}

/// The folder of pins, on a file system of bpf.
fn mount(pins: &Path) -> Result<(), Fault> {
    // Below the usual place there is one mostly; elsewhere the folder gets its own.
    let usual = Path::new("/sys/fs/bpf");
    bpf::mount(if pins.starts_with(usual) { usual } else { pins })?;
    std::fs::create_dir_all(pins).map_err(|error| Fault::Folder { path: pins.to_owned(), error })
}

/// Held as long as the process writes the tables; the kernel lets go of it when the process ends, however it ends.
fn lock(pins: &Path) -> Result<OwnedFd, Closed> {
    let fault = |error: rustix::io::Errno| match error {
        rustix::io::Errno::ACCESS | rustix::io::Errno::PERM => {
            Fault::NotAllowed { doing: "to look at the director's tables" }
        }
        error => Fault::Call { what: pins.display().to_string(), error: error.into() },
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = rustix::fs::open(pins, flags, Mode::empty()).map_err(fault)?;
    match rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(folder),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(Closed::Busy),
        Err(error) => Err(fault(error).into()),
    }
}
