//! What can be ordered of the whole process, and what is answered: reloads, what is taken out of service, and upgrades.
//!
//! The monitor and signals give orders, `app` carries them out, one after another. The answers are those of
//! `/api/v1`: fields may be added, none is renamed or removed within `v1`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

/// Orders that wait. Whoever gives one waits for its answer, and the control socket serves 64 at once.
pub const QUEUE: usize = 128;

/// The end that orders are put into.
pub type Orders = mpsc::Sender<Order>;

#[derive(Debug)]
pub enum Order {
    Reload {
        what: Texts,
        reply: oneshot::Sender<Reloaded>,
    },
    /// Have another process take over.
    Upgrade {
        /// What to start; `None`: what this one was started from, as it is now.
        binary: Option<PathBuf>,
        /// How long that one may take until it is ready.
        within: Duration,
        reply: oneshot::Sender<Upgraded>,
    },
    /// Take a server, a pool or a listener out of service (`drain`), or back in.
    Service {
        drain: bool,
        name: String,
        reply: oneshot::Sender<Result<Service, String>>,
    },
    /// Say what lists and maps there are, or what stands in one.
    Lists {
        name: Option<String>,
        reply: oneshot::Sender<Result<Vec<ListInForce>, String>>,
    },
    /// Add entries to a list or map, or remove some, in its file.
    Entries {
        name: String,
        add: Vec<String>,
        remove: Vec<String>,
        reply: oneshot::Sender<Result<EntriesEdited, EntriesFault>>,
    },
    /// Say where a request would go now, and why. It changes nothing, and is answered beside other orders.
    Explain {
        question: Question,
        reply: oneshot::Sender<Result<Explained, String>>,
    },
}

/// A list or a map that rules can ask.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListInForce {
    pub name: String,
    /// `list` or `map`.
    pub kind: String,
    /// As the rules name it.
    pub file: String,
    pub count: usize,
    /// Of one that was asked for by its name; of a map, `key value`.
    pub entries: Vec<String>,
}

/// What came of editing a list or map.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntriesEdited {
    pub name: String,
    pub file: String,
    pub added: usize,
    pub removed: usize,
    /// There already, or not there to be removed.
    pub unchanged: usize,
    /// Entries in force now.
    pub count: usize,
}

/// Why a list or map is as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntriesFault {
    /// There is none of that name.
    Unknown(String),
    /// In whole words, with carets where the texts would have faults.
    Refused(String),
}

/// A request, or a connection that is passed on unread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// As it would be sent, or `tcp`.
    pub method: String,
    /// One URL; of `tcp` what is known of the connection, as `sni:NAME`.
    pub url: Vec<String>,
    pub headers: Vec<(String, String)>,
    pub from: IpAddr,
    /// `None`: the first one of its protocol.
    pub listener: Option<String>,
    /// What the dice of a chance show, 0 to 9,999.
    pub roll: u32,
    pub body: Option<String>,
    /// The subject of the client's certificate.
    pub cert: Option<String>,
}

/// Where a request would go.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Explained {
    /// Something is done with it: false for a 404, and for what is refused before any rule is asked.
    pub routed: bool,
    /// As `reeve explain --format json` has it.
    pub report: serde_json::Value,
    /// The same for people.
    pub text: String,
}

/// What is read anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Texts {
    All,
    /// Only the files of lists and maps.
    Lists,
}

/// What came of a reload.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Reloaded {
    /// False: what was in force still is, for `faults` or `error` say why.
    pub done: bool,
    /// Of the configuration in force now.
    pub generation: u64,
    /// From the order to its end.
    pub seconds: f64,
    pub changes: Changes,
    /// What has changed in the texts and is taken up by a restart only.
    pub restart: Vec<String>,
    /// As `check --format json` has them, notes and warnings included.
    pub faults: serde_json::Value,
    /// The same for people, with carets.
    pub faults_text: String,
    /// What went wrong although the texts are good, such as an address in use.
    pub error: Option<String>,
}

/// What a reload changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    pub listeners: Difference,
    /// Addresses that are listened on since, with their listeners.
    pub opened: Vec<String>,
    /// Addresses that are not listened on any more.
    pub closed: Vec<String>,
    pub pools: Difference,
    /// By identity, `pool/name`.
    pub servers: Difference,
    pub rules: Rules,
    /// Lists and maps with other entries.
    pub lists: Vec<String>,
    /// Tables of the configuration that are not the same: `timeouts`, `limits`, `log`, `monitor`, `errors`.
    pub settings: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    pub added: Vec<String>,
    pub removed: Vec<String>,
    pub changed: Vec<String>,
}

impl Difference {
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty()
    }
}

/// Rules by their ids.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    pub total: usize,
    pub added: usize,
    pub removed: usize,
}

/// What came of an upgrade.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Upgraded {
    /// False: this process goes on as if nothing had been asked; `error` and `said` say why.
    pub done: bool,
    /// What was started.
    pub binary: String,
    pub pid_before: u32,
    /// Of the process that serves now, or was to; 0 where none could be started.
    pub pid: u32,
    pub version_before: String,
    /// Empty where it did not come to say it.
    pub version: String,
    /// From the order to its end.
    pub seconds: f64,
    pub error: Option<String>,
    /// What the new process wrote to stderr before it was ready, its last lines.
    pub said: Vec<String>,
}

/// What was taken out of service, or back in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// `server`, `pool` or `listener`.
    pub kind: String,
    /// As it was named.
    pub name: String,
    pub draining: bool,
    /// False: it was so already.
    pub changed: bool,
}
