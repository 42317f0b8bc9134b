//! What can be asked of the L4 director, and what it answers: the commands of `ipvsadm`, explicit flows, and how things
//! stand.
//!
//! The monitor and the media relay give commands, the director's loop carries them out, one after another. The answers are
//! those of `/api/v1/director`: fields may be added, none is renamed or removed within `v1`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, mpsc, oneshot};

use super::media::load::Way;
use super::media::sessions::Session;
use crate::model::director::{Conduct, Dest, Family, FlowTimeouts, Method, Protocol, ServiceKey};

/// Commands that wait.
pub const QUEUE: usize = 128;

/// The end that commands are put into.
pub type Commands = mpsc::Sender<Command>;

#[derive(Debug)]
pub enum Command {
    /// Change services that were added at run time, one after another; an answer for each. What is written to the kernel is
    /// written once, at the end.
    Change { changes: Vec<Change>, reply: oneshot::Sender<Vec<Result<(), Refusal>>> },
    /// Services, their servers, and what was counted.
    Table { reply: oneshot::Sender<Result<Table, Unavailable>> },
    /// At most so many flows, of IPVS's kind.
    Flows { limit: usize, reply: oneshot::Sender<Result<Flows, Unavailable>> },
    /// Put an explicit flow in, for one direction. It stays until it is taken out, or the director ends.
    Put { flow: Explicit, tally: Arc<Tally>, reply: oneshot::Sender<Result<(), NotPut>> },
    /// Take one out; what it has carried, if it was there. Its tally has been told.
    Take { of: Tuple, reply: oneshot::Sender<Result<Option<Carried>, String>> },
}

/// Why nothing can be told of layer 4.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unavailable {
    /// The configuration has no `[director]`.
    Off,
    /// In words.
    Fault(String),
}

impl std::fmt::Display for Unavailable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Unavailable::Off => f.write_str("the configuration of the running process has no [director]"),
            Unavailable::Fault(why) => f.write_str(why),
        }
    }
}

/// What `ipvsadm` can change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    AddService {
        key: ServiceKey,
        conduct: Wanted,
    },
    EditService {
        key: ServiceKey,
        conduct: Wanted,
    },
    DeleteService {
        key: ServiceKey,
    },
    AddServer {
        key: ServiceKey,
        server: Dest,
    },
    EditServer {
        key: ServiceKey,
        server: Dest,
    },
    DeleteServer {
        key: ServiceKey,
        server: SocketAddr,
    },
    /// All services that were added at run time.
    Clear,
    /// Counters begin at 0 again: of one service and its servers, or of all.
    Zero {
        key: Option<ServiceKey>,
    },
    /// 0 leaves one as it is.
    Timeouts(FlowTimeouts),
}

/// A conduct whose scheduler may be one that nobody has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// IPVS's name for it.
    pub scheduler: String,
    /// The rest of it.
    pub conduct: Conduct,
}

/// Why something was not changed, as IPVS's error numbers have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Refusal {
    /// EEXIST.
    Exists,
    /// ESRCH: there is no such service.
    NoService,
    /// ENOENT: of a service its scheduler, of a server itself.
    NotFound,
    /// EINVAL.
    Invalid,
    /// ERANGE.
    Range,
    /// ENOMEM: no room in a table.
    NoRoom,
    /// ENOPROTOOPT: something that IPVS has and this director has not.
    NotAvailable,
    /// The service stands in the configuration: it is changed there.
    Configured(String),
    /// There is no director at work; in words.
    NoDirector(String),
    /// It could not be written to the kernel; in words.
    Failed(String),
}

/// All services, the newest first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Table {
    pub services: Vec<ServiceReport>,
    pub timeouts: FlowTimeouts,
    /// Flows in the kernel's tables, and how many there may be.
    pub flows: u64,
    pub flows_most: u64,
    /// What the kernel's programs dropped and why, by its name.
    pub counters: Vec<(String, u64)>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceReport {
    pub key: ServiceKey,
    /// As the configuration has it; none where it was added at run time.
    pub name: Option<String>,
    pub pool: Option<String>,
    pub conduct: Conduct,
    pub counted: Counted,
    pub rates: Rates,
    /// The newest first.
    pub servers: Vec<ServerReport>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServerReport {
    pub address: SocketAddr,
    /// In its pool.
    pub name: Option<String>,
    pub method: Method,
    pub weight: u32,
    pub upper: u32,
    pub lower: u32,
    pub active: u32,
    pub inactive: u32,
    /// Templates of clients that are held there.
    pub persistent: u32,
    pub counted: Counted,
    pub rates: Rates,
}

/// Since the last `-Z`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    pub connections: u64,
    pub packets_in: u64,
    pub packets_out: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
}

/// A second, as IPVS estimates them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rates {
    pub connections: u64,
    pub packets_in: u64,
    pub packets_out: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flows {
    pub flows: Vec<FlowReport>,
    pub total: u64,
}

/// A flow, or a template of a client that is held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowReport {
    /// None: a template of a service by mark.
    pub protocol: Option<Protocol>,
    /// IPVS's word.
    pub state: String,
    /// Port 0 of a template.
    pub client: SocketAddr,
    /// Of a template by mark, the mark as an address.
    pub virtual_address: SocketAddr,
    pub server: SocketAddr,
    /// `pool/name`, where it is a configured one's.
    pub identity: Option<String>,
    /// Until it is forgotten, without packets.
    pub seconds: u32,
    pub template: bool,
}

/// By what packets of an explicit flow are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// TCP or UDP.
    pub protocol: Protocol,
    pub source: SocketAddr,
    pub destination: SocketAddr,
}

impl Tuple {
    pub fn family(&self) -> Family {
        Family::of(self.source.ip())
    }
}

/// One direction: packets that come as one tuple leave as another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Explicit {
    pub comes: Tuple,
    /// Of the same family.
    pub leaves_from: SocketAddr,
    pub leaves_to: SocketAddr,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Carried {
    pub packets: u64,
    pub bytes: u64,
}

/// Why an explicit flow was not put in; in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotPut {
    /// None is, at present.
    Nobody(String),
    /// This one cannot be.
    Unfit(String),
}

/// What an explicit flow has carried since it was put in, as the director saw it last: on every look, and when it is taken out.
#[derive(Debug, Default)]
pub struct Tally {
    /// Whose media it is.
    of: Option<(Arc<Session>, Way)>,
    /// Told when the flow is taken out.
    leaves: Arc<Notify>,
    packets: AtomicU64,
    bytes: AtomicU64,
    left: AtomicBool,
    given_up: AtomicBool,
}

impl Tally {
    /// Of a session's media: it is counted as the session's and its server's, and what comes from the client keeps the session alive.
    /// `leaves` is told when the flow is taken out.
    pub fn of(session: Arc<Session>, way: Way, leaves: Arc<Notify>) -> Tally {
        Tally { of: Some((session, way)), leaves, ..Tally::default() }
    }

    /// The flow has carried so much by now; `now` in seconds since 1970. One thread tells.
    pub fn tell(&self, carried: Carried, now: u32) {
        let packets = carried.packets.saturating_sub(self.packets.swap(carried.packets, Relaxed));
        let bytes = carried.bytes.saturating_sub(self.bytes.swap(carried.bytes, Relaxed));
        let Some((session, way)) = self.of.as_ref().filter(|_| packets > 0) else { return };
        let load = session.server.media();
        for traffic in [&session.traffic, &load.traffic, &load.offloaded] {
            traffic.add(*way, packets, bytes);
        }
        if *way == Way::ToServer {
            session.touch(now);
        }
    }

    pub fn packets(&self) -> u64 {
        self.packets.load(Relaxed)
    }

    /// Nobody is left to take it out.
    pub fn is_over(&self) -> bool {
        self.given_up.load(Relaxed) || self.of.as_ref().is_some_and(|(session, _)| session.is_over())
    }

    /// Whoever put it in has asked in vain that it be taken out, and goes.
    pub fn give_up(&self) {
        self.given_up.store(true, Relaxed);
    }

    /// The flow is not in the kernel's table any more, and nothing more is told.
    pub fn leave(&self) {
        self.left.store(true, Relaxed);
        self.leaves.notify_one();
    }

    pub fn has_left(&self) -> bool {
        self.left.load(Relaxed)
    }
}
