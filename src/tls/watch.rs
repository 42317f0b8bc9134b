//! Certificates and authorities whose files change are put in place while Reeve runs.
//!
//! Files are looked at every second, off the request path: a few system calls for each listener and pool
//! with TLS, and no descriptor that a renamed folder would leave behind. What changed is read once it has
//! been still for a second, so that a chain and its key are not taken one without the other. A bad set
//! leaves the old one, and says so. Connections notice nothing.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::watch;

use super::client::SystemRoots;
use super::tickets::Policy;
use super::{ClientSlot, Loaded, Read, ServerSlot, client, server};
use crate::model::listener::Protocol;
use crate::model::pool::Pool;
use crate::model::tls::{ListenerTls, PoolTls};
use crate::model::{Config, Fault, Severity};
use crate::sys::secrets::Ring;

const PERIOD: Duration = Duration::from_secs(1);
/// Folders of very many files are looked at less often: this much later for each file.
const A_FILE: Duration = Duration::from_micros(200);

/// What is in force, and what was made of it.
pub type InForce = Arc<(Arc<Config>, Loaded)>;

/// Watches what is in force, and turns the ring of ticket keys, until `stop` says so.
pub async fn run(mut force: watch::Receiver<InForce>, mut stop: watch::Receiver<bool>) {
    let now = force.borrow_and_update().clone();
    let ring = now.1.ring.clone();
    let mut watched = watched(&now.0, &now.1);
    drop(now);
    let mut complained = false;
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            Ok(()) = force.changed() => {
                let now = force.borrow_and_update().clone();
                watched = self::watched(&now.0, &now.1);
                continue;
            }
            () = tokio::time::sleep(PERIOD + A_FILE * count(&watched)) => {}
        }
        let ring = ring.clone();
        // Disks may be slow, and the control thread has others to serve.
        let looked = tokio::task::spawn_blocking(move || {
            let now = SystemTime::now();
            let turned = ring.turn(now);
            let mut said = HashSet::new();
            for one in &mut watched {
                one.look(&ring, now, &mut said);
            }
            (watched, turned)
        });
        let Ok((back, turned)) = looked.await else { return };
        watched = back;
        if let Err(error) = &turned
            && !complained
        {
            tracing::warn!(%error, "the keys of session tickets cannot be kept: a restart will make clients begin anew");
        }
        complained = turned.is_err();
    }
}

fn count(watched: &[Watched]) -> u32 {
    watched.iter().map(|one| one.seen.0.len() as u32).sum()
}

fn watched(config: &Config, loaded: &Loaded) -> Vec<Watched> {
    let mut all = Vec::new();
    let [of_listeners, of_pools] = &loaded.read;
    for ((listener, slot), read) in config.listeners.iter().zip(&loaded.listeners).zip(of_listeners) {
        if let (Some(tls), Some(slot)) = (&listener.tls, slot) {
            let (name, protocol) = (listener.name.clone(), listener.protocol);
            let what = What::Listener { tls: tls.clone(), name, protocol, slot: slot.clone() };
            all.push(Watched::new(format!("listen.{}", listener.name), what, read));
        }
    }
    for ((pool, slot), read) in config.pools.iter().zip(&loaded.pools).zip(of_pools) {
        if let (Some(tls), Some(slot)) = (&pool.tls, slot) {
            let what = What::Pool { tls: tls.clone(), pool: Box::new(pool.clone()), slot: slot.clone() };
            all.push(Watched::new(format!("pool.{}", pool.name), what, read));
        }
    }
    all
}

/// The files of one listener or pool.
struct Watched {
    label: String,
    what: What,
    /// What is in the slot. A reload looks at it, too.
    used: Arc<Mutex<Read>>,
    /// What was read last, be it good or bad.
    read: Stamp,
    /// What was seen last.
    seen: Stamp,
}

enum What {
    Listener { tls: ListenerTls, name: Arc<str>, protocol: Protocol, slot: ServerSlot },
    Pool { tls: PoolTls, pool: Box<Pool>, slot: ClientSlot },
}

impl Watched {
    fn new(label: String, what: What, used: &Arc<Mutex<Read>>) -> Watched {
        let read = used.lock().unwrap_or_else(PoisonError::into_inner).stamp.clone();
        Watched { label, what, used: used.clone(), seen: read.clone(), read }
    }

    /// `said` is what was said in this round already, of files that others use too.
    fn look(&mut self, ring: &Arc<Ring>, now: SystemTime, said: &mut HashSet<String>) {
        let stamp = self.what.stamp();
        let still = stamp == self.seen;
        self.seen = stamp;
        if !still || self.seen == self.read {
            return;
        }
        self.read = self.seen.clone();
        let mut faults = Vec::new();
        let done = {
            let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
            let done = self.what.renew(&mut used.policy, ring, now, &mut faults);
            if done {
                used.stamp = self.read.clone();
            }
            done
        };
        for text in faults.iter().map(told) {
            if !said.contains(&text) {
                tracing::warn!("{text}");
                said.insert(text);
            }
        }
        match done {
            true => tracing::info!(of = self.label, "certificates were read anew"),
            false => {
                tracing::warn!(of = self.label, "the certificates in use stay as they are: the new ones are wrong")
            }
        }
    }
}

impl What {
    fn renew(&self, policy: &mut Option<Policy>, ring: &Arc<Ring>, now: SystemTime, faults: &mut Vec<Fault>) -> bool {
        match self {
            What::Listener { tls, name, protocol, slot } => {
                let before = slot.load_full();
                let sessions = policy.map(|policy| (&*before, policy));
                let Some(built) = server::build(tls, name, *protocol, ring, sessions, now, faults) else {
                    return false;
                };
                *policy = Some(built.1);
                slot.store(Arc::new(built.0));
                true
            }
            What::Pool { tls, pool, slot } => client::build(tls, pool, &SystemRoots::default(), now, faults)
                .map(|config| slot.store(Arc::new(config)))
                .is_some(),
        }
    }

    fn stamp(&self) -> Stamp {
        match self {
            What::Listener { tls, .. } => Stamp::of_listener(tls),
            What::Pool { tls, .. } => Stamp::of_pool(tls),
        }
    }
}

fn told(fault: &Fault) -> String {
    let word = if fault.severity == Severity::Error { "error" } else { "warning" };
    format!("{word}: {} [{}]", fault.message, fault.code)
}

/// Names, times and lengths of files: other when one of them is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stamp(Vec<(PathBuf, SystemTime, u64)>);

impl Stamp {
    pub fn of_listener(tls: &ListenerTls) -> Stamp {
        let mut stamp = Stamp::default();
        stamp.folder(&tls.certificates.path, true);
        tls.client_ca.iter().for_each(|file| stamp.file(&file.path));
        stamp.sorted()
    }

    pub fn of_pool(tls: &PoolTls) -> Stamp {
        let mut stamp = Stamp::default();
        tls.ca.iter().for_each(|file| stamp.file(&file.path));
        if let Some((certificate, key)) = &tls.own {
            stamp.file(&certificate.path);
            stamp.file(&key.path);
        }
        stamp.sorted()
    }

    fn sorted(mut self) -> Stamp {
        self.0.sort();
        self
    }

    fn file(&mut self, path: &Path) {
        if let Ok(data) = std::fs::metadata(path) {
            self.0.push((path.to_owned(), data.modified().unwrap_or(SystemTime::UNIX_EPOCH), data.len()));
        }
    }

    fn folder(&mut self, path: &Path, deeper: bool) {
        for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
            let path = entry.path();
            if !path.is_dir() {
                self.file(&path);
            } else if deeper {
                self.folder(&path, false);
            }
        }
    }
}
