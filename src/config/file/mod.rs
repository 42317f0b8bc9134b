//! The raw configuration: every key checked for itself, names not yet looked up.
//!
//! One file a noun. Each reads its table with the tools of `walk`, reports everything that is wrong
//! with it, notes what is not built yet, and answers with what can be used. `resolve` puts the parts
//! together.

mod address;
mod affinity;
mod check;
mod director;
mod layer4;
mod listen;
mod outlier;
mod pool;
mod probe;
mod process;
mod scheduler;
mod server;
mod settings;
mod tls;
mod unbuilt;
mod walk;
mod words;

use std::sync::Arc;

use super::node::{Entry, Node, Origin, Value};
use super::source::Sources;
use crate::model::config::{Log, Monitor, Process};
use crate::model::director::Director;
use crate::model::{Fault, Limits, Place, Timeouts};

pub use check::NamedCheck;
pub use listen::Listen;
pub use pool::Pool;
pub use process::Page;
pub use settings::{LIMITS, TIMEOUTS};
use walk::{Fields, Walk};

/// A name that is looked up later, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    pub name: Arc<str>,
    pub place: Place,
    /// The variable or option that named it, as a message begins with it; else empty.
    pub who: String,
}

/// An address that may be taken once only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    pub address: std::net::SocketAddr,
    pub place: Place,
    /// As in `Named`.
    pub who: String,
}

#[derive(Debug, Default)]
pub struct File {
    pub listeners: Vec<Listen>,
    pub pools: Vec<Pool>,
    pub checks: Vec<NamedCheck>,
    pub timeouts: Timeouts,
    pub limits: Limits,
    pub process: Process,
    pub log: Log,
    pub monitor: Monitor,
    /// Addresses of the monitor, in the order of the file.
    pub monitor_taken: Vec<Taken>,
    pub errors: Vec<Page>,
    pub state_path: Option<Arc<str>>,
    pub director: Option<Director>,
    /// Pools that services of layer 4 name.
    pub mentioned: Vec<Named>,
    /// Whether something besides listeners is there to run.
    pub other_work: bool,
}

/// Walks the whole tree.
pub fn read(root: &Node, name: &Arc<str>, sources: &Sources, faults: &mut Vec<Fault>) -> File {
    let walk = Walk::new(sources, name.clone());
    let file = root_table(&walk, root);
    faults.extend(walk.into_faults());
    file
}

fn root_table(walk: &Walk<'_>, root: &Node) -> File {
    let mut file = File::default();
    let Some(mut fields) = Fields::of(walk, root, walk::ROOT) else { return file };
    // A pool's own timeouts are laid over the general ones: those come first.
    if let Some(entry) = fields.get("timeouts") {
        settings::timeouts(walk, &entry.node, "[timeouts]", false, &mut file.timeouts);
    }
    if let Some(entry) = fields.get("limits") {
        file.limits = settings::limits(walk, &entry.node);
    }
    for entry in named(walk, fields.get("listen"), "listen") {
        file.listeners.extend(listen::read(walk, entry));
    }
    for entry in named(walk, fields.get("pool"), "pool") {
        file.pools.extend(pool::read(walk, entry, &file.timeouts));
    }
    for entry in named(walk, fields.get("check"), "check") {
        file.checks.push(check::named(walk, entry));
    }
    if let Some(entry) = fields.get("process") {
        file.process = process::process(walk, &entry.node);
    }
    if let Some(entry) = fields.get("log") {
        file.log = process::log(walk, &entry.node);
    }
    if let Some(entry) = fields.get("state") {
        file.state_path = process::state(walk, &entry.node);
    }
    if let Some(entry) = fields.get("monitor") {
        process::monitor(walk, &entry.node, &mut file);
    }
    if let Some(entry) = fields.get("errors") {
        file.errors = process::errors(walk, &entry.node);
    }
    if let Some(entry) = fields.get("director") {
        file.other_work = true;
        file.director = director::read(walk, entry, &mut file.mentioned);
    }
    if let Some(entry) = fields.get("failover") {
        file.other_work = true;
        layer4::failover(walk, entry);
    }
    fields.finish();
    file
}

/// The tables `[KIND.NAME]`, those left out that are none.
fn named<'n>(walk: &Walk<'_>, entry: Option<&'n Entry>, kind: &str) -> Vec<&'n Entry> {
    let Some(entry) = entry else { return Vec::new() };
    let entries = walk.entries(&entry.node, &format!("[{kind}]")).unwrap_or_default();
    let mut tables = Vec::with_capacity(entries.len());
    for entry in entries {
        let place = walk.place(&entry.key_origin);
        if !matches!(entry.node.value, Value::Table(_)) {
            let message = format!("\"{}\" stands in [{kind}], which has only named tables", entry.key);
            walk.push(
                Fault::error("R0105", place, message).help(format!("begin the table with a name: [{kind}.NAME]")),
            );
        } else if !good_name(&entry.key) {
            let message = format!(
                "\"{}\" cannot be the name of a {}",
                entry.key,
                if kind == "listen" { "listener" } else { kind }
            );
            let fault = Fault::error("R0115", place, message);
            let help = "a name has letters, digits, \"-\", \"_\" and \".\", and begins with a letter or digit";
            walk.push(fault.help(help));
            tables.push(entry);
        } else {
            tables.push(entry);
        }
    }
    tables
}

/// Names go into rules, metrics and paths of the API, so that they are plain.
fn good_name(name: &str) -> bool {
    name.len() <= 128
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

/// The place that stands for a table: its header, or the key that it is the value of.
fn table_place(walk: &Walk<'_>, entry: &Entry) -> Place {
    walk.place(table_origin(entry))
}

fn table_origin(entry: &Entry) -> &Origin {
    match &entry.node.origin {
        origin @ Origin::File(_) => origin,
        _ => &entry.key_origin,
    }
}
