//! The running process: what is in force, and how another configuration is put in its place.
//!
//! There is one way, [`Running::apply`]; a start is a reload of nothing. First everything is opened that may fail: then
//! nothing has changed when it does. Addresses that nobody wants any more are closed under the old snapshot, so that
//! who is in their queues is served as he was promised; then the new snapshot is installed, and the new sockets are handed
//! to the workers. `orders` is the loop in which that happens.

mod changes;
pub mod clients;
mod entries;
pub mod listeners;
pub mod lists;
pub mod memory;
pub mod orders;
mod service;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::watch;

use self::clients::Clients;
use self::listeners::Listeners;
use super::check::Prepared;
use super::state_folder;
use super::upgrade::{Before, Origin};
use crate::config;
use crate::config::source::Sources;
use crate::model::config::{AccessLog, Config, LogTarget};
use crate::model::{Fault, Severity};
use crate::monitor::{Control, Metrics};
use crate::proxy::access_log::{Log, Logs};
use crate::state::commands::{Socket, Workers};
use crate::state::orders::Changes;
use crate::state::tallies::Tallies;
use crate::state::{Farm, ListenerId, Secured};
use crate::{sys, tls};

/// Why a configuration without a fault could not be put in force.
#[derive(Debug)]
pub enum StartError {
    Listen { what: String, address: SocketAddr, error: io::Error },
    Log { path: PathBuf, error: io::Error },
    Other(String),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Listen { what, address, error } => {
                write!(f, "{what}: cannot listen on {address}: {error}")?;
                match error.kind() {
                    io::ErrorKind::AddrInUse => write!(
                        f,
                        "\n  help: another program has this address: see `ss -ltnp sport = :{}`",
                        address.port()
                    ),
                    io::ErrorKind::PermissionDenied => {
                        write!(f, "\n  help: ports below 1024 need root or CAP_NET_BIND_SERVICE")
                    }
                    io::ErrorKind::AddrNotAvailable => {
                        write!(f, "\n  help: no interface of this machine has this address")
                    }
                    _ => Ok(()),
                }
            }
            StartError::Log { path, error } => {
                write!(f, "log.access: cannot open {}: {error}", path.display())?;
                match error.kind() {
                    io::ErrorKind::NotFound => write!(f, "\n  help: its folder has to be there"),
                    _ => Ok(()),
                }
            }
            StartError::Other(what) => f.write_str(what),
        }
    }
}

/// Everything that another configuration may change, and what it is read from.
pub struct Running {
    /// Where the texts are.
    pub request: config::Request,
    /// The texts in force.
    pub sources: Arc<Sources>,
    pub farm: Arc<Farm>,
    pub workers: Arc<Workers>,
    pub tallies: Arc<Tallies>,
    pub listeners: Listeners,
    pub control: watch::Sender<Control>,
    pub metrics: watch::Sender<Metrics>,
    pub logs: Logs,
    pub log: Option<Log>,
    /// What is in force, for whoever watches its files.
    pub force: watch::Sender<tls::InForce>,
    /// Texts of the lists in force, for whoever watches them.
    pub lists: watch::Sender<Arc<Sources>>,
    /// What the process was started with: parts of it stay as long as the process does.
    pub started_with: Arc<Config>,
    /// The keys of TLS sessions are kept in the state folder.
    pub keeps_keys: bool,
    /// What is known of clients.
    pub clients: Arc<Clients>,
    /// What a process that is to take over is started from; `None` where none can.
    pub origin: Option<Origin>,
    /// Processes before this one.
    pub before: Before,
}

/// Texts without a fault, and what was made of them.
pub struct Ready {
    pub config: Arc<Config>,
    pub tables: Vec<Arc<crate::route::Table>>,
    pub tls: tls::Loaded,
    pub sources: Arc<Sources>,
    pub notes: u64,
    /// What is different from what is in force; addresses are not among it yet.
    pub changes: Changes,
}

impl Ready {
    /// `None` where there is a fault. Takes a while for a large configuration.
    pub fn of(prepared: Prepared, before: &Config) -> Option<Ready> {
        let good = prepared.is_good();
        let Prepared { load, tables, tls, .. } = prepared;
        let config = Arc::new(load.config.filter(|_| good)?);
        let changes = changes::between(before, &config);
        Some(Ready { config, tables, tls, sources: Arc::new(load.sources), notes: notes(&load.faults), changes })
    }
}

fn notes(faults: &[Fault]) -> u64 {
    faults.iter().filter(|fault| fault.severity == Severity::Note).count() as u64
}

impl Running {
    pub fn config(&self) -> Arc<Config> {
        self.farm.snapshot().config.clone()
    }

    /// Puts texts in force. What stays is not touched: connections, servers and what is known of them, sockets.
    ///
    /// # Errors
    /// When something that they ask for cannot be had. Then nothing has changed.
    pub async fn apply(&mut self, ready: Ready) -> Result<Changes, StartError> {
        let (changes, sockets) = self.put_in_force(ready).await?;
        self.workers.listen(sockets).await;
        Ok(changes)
    }

    /// As [`Running::apply`], but for the new sockets: those are the workers' when they are to begin to accept.
    ///
    /// # Errors
    /// As there.
    pub async fn put_in_force(&mut self, ready: Ready) -> Result<(Changes, Vec<Vec<Socket>>), StartError> {
        let Ready { config, tables, tls, sources, notes, mut changes } = ready;
        let before = self.config();
        let drains = self.farm.drains();
        let plan = listeners::plan(
            &self.listeners.places(),
            listeners::wanted(&config, |name| drains.listeners.contains(name)),
        );
        let opened = self.listeners.open(plan.open, self.workers.count())?;
        let metrics = open_metrics(&config, &self.metrics.borrow())?;
        let other_log = config.log.access != before.log.access;
        let log = config.log.access.as_ref().filter(|_| other_log).map(|log| self.start_log(log)).transpose()?;
        // From here on nothing can fail.
        changes.opened = opened.iter().map(|opened| format!("{} ({})", opened.bound, opened.place.name)).collect();
        let places = self.listeners.places();
        changes.closed =
            plan.close.iter().map(|at| format!("{} ({})", places[*at].address, places[*at].name)).collect();
        let number = |name: &Arc<str>| ListenerId(self.farm.listener_names().id(name));
        let handover = self.listeners.commit(opened, plan.stay, plan.close, number);
        if !handover.close.is_empty() {
            self.close(handover.close, Vec::new()).await;
        }
        if tls.serves() && !self.keeps_keys {
            self.keeps_keys = keep_ticket_keys(&config, &tls);
        }
        if other_log {
            // The log before ends by itself when every worker has looked; its last lines are written.
            self.logs.put(log.as_ref());
            self.log = log;
        }
        self.clients.begin(&config);
        self.install(config.clone(), tables, &tls).await;
        self.workers.inherit(self.farm.generations().inherited(&self.farm));
        self.metrics.send_replace(metrics);
        self.force.send_replace(Arc::new((config, tls)));
        self.sources = sources.clone();
        self.lists.send_replace(sources);
        self.tallies.set_notes(notes);
        self.tallies.set_loaded(SystemTime::now());
        Ok((changes, handover.listen))
    }

    /// On a thread of its own: to plan thousands of pools takes a while, and the control thread has others to serve.
    async fn install(&self, config: Arc<Config>, tables: Vec<Arc<crate::route::Table>>, tls: &tls::Loaded) {
        let secured = Secured { listeners: tls.listeners.clone(), pools: tls.pools.clone() };
        let farm = self.farm.clone();
        let installed = tokio::task::spawn_blocking(move || farm.install_secured(config, tables, secured));
        if let Err(error) = installed.await {
            tracing::error!(%error, "a configuration could not be installed by a fault of Reeve");
        }
    }

    /// Accepts nobody any more: what is in the queues of sockets that nobody else has is served. When this returns, every
    /// worker has seen to it.
    pub async fn give_up_listening(&mut self) {
        let keys = self.listeners.give_up();
        self.close(keys, Vec::new()).await;
    }

    /// Has the workers close sockets, and asks the connections of these listeners to leave.
    async fn close(&self, keys: Vec<u64>, leaving: Vec<ListenerId>) {
        let stuck = self.workers.close(keys, leaving).await;
        if !stuck.is_empty() {
            tracing::warn!(workers = ?stuck, "workers did not close their sockets in time");
        }
    }

    fn start_log(&self, access: &AccessLog) -> Result<Log, StartError> {
        Log::start(access, self.tallies.count_dropped()).map_err(|error| {
            let path = match &access.target {
                LogTarget::File(path) => path.clone(),
                LogTarget::Stdout => PathBuf::from("-"),
            };
            StartError::Log { path, error }
        })
    }
}

/// The sockets of the metrics addresses; those that are open stay.
fn open_metrics(config: &Config, open: &Metrics) -> Result<Metrics, StartError> {
    let mut left = open.clone();
    let socket = |address: &SocketAddr| {
        if let Some(at) = left.iter().position(|(known, _)| known == address) {
            return Ok(left.remove(at));
        }
        let what = "monitor.metrics-address".to_owned();
        let failed = |error| StartError::Listen { what, address: *address, error };
        Ok((*address, Arc::new(sys::socket::listen_alone(*address).map_err(failed)?)))
    };
    config.monitor.metrics_addresses.iter().map(socket).collect()
}

/// Without a place for them sessions end with the process, which is worth a word and no more.
fn keep_ticket_keys(config: &Config, tls: &tls::Loaded) -> bool {
    let kept = state_folder::open(config).and_then(|folder| tls.ring.keep_in(&folder, SystemTime::now()));
    if let Err(error) = &kept {
        let folder = state_folder::path(config);
        tracing::warn!(
            folder = %folder.display(), %error,
            "the keys of TLS sessions cannot be kept: after a restart every client shakes hands anew; set [state] path"
        );
    }
    kept.is_ok()
}
