//! Certificates and authorities whose files change are put in place while Reeve runs.
//!
//! Files are looked at every second, off the request path: a few system calls for each listener and pool
//! with TLS, and no descriptor that a renamed folder would leave behind. What changed is read once it has
//! been still for a second, so that a chain and its key are not taken one without the other. A bad set
//! leaves the old one, and says so. Connections notice nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;

use super::client::SystemRoots;
use super::tickets::Policy;
use super::{ClientSlot, Loaded, Ring, ServerSlot, client, server};
use crate::model::pool::Pool;
use crate::model::tls::{ListenerTls, PoolTls};
use crate::model::{Config, Fault, Severity};

const PERIOD: Duration = Duration::from_secs(1);

/// Watches what `loaded` was made from, and turns the ring of ticket keys, until `stop` says so.
pub async fn run(config: Arc<Config>, loaded: Loaded, mut stop: watch::Receiver<bool>) {
    let mut watched = watched(&config, &loaded);
    let ring = loaded.ring.clone();
    let mut beat = tokio::time::interval(PERIOD);
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut complained = false;
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            _ = beat.tick() => {}
        }
        let ring = ring.clone();
        // Disks may be slow, and the control thread has others to serve.
        let looked = tokio::task::spawn_blocking(move || {
            let now = SystemTime::now();
            let turned = ring.turn(now);
            for one in &mut watched {
                one.look(&ring, now);
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

fn watched(config: &Config, loaded: &Loaded) -> Vec<Watched> {
    let mut all = Vec::new();
    for ((listener, slot), policy) in config.listeners.iter().zip(&loaded.listeners).zip(&loaded.policies) {
        if let (Some(tls), Some(slot), Some(policy)) = (&listener.tls, slot, policy) {
            let (name, slot) = (listener.name.clone(), slot.clone());
            let what = What::Listener { tls: tls.clone(), name, slot, policy: *policy };
            all.push(Watched::new(format!("listen.{}", listener.name), what));
        }
    }
    for (pool, slot) in config.pools.iter().zip(&loaded.pools) {
        if let (Some(tls), Some(slot)) = (&pool.tls, slot) {
            let what = What::Pool { tls: tls.clone(), pool: Box::new(pool.clone()), slot: slot.clone() };
            all.push(Watched::new(format!("pool.{}", pool.name), what));
        }
    }
    all
}

/// The files of one listener or pool.
struct Watched {
    label: String,
    what: What,
    /// What was read last, be it good or bad.
    read: Stamp,
    /// What was seen last.
    seen: Stamp,
}

enum What {
    Listener { tls: ListenerTls, name: Arc<str>, slot: ServerSlot, policy: Policy },
    Pool { tls: PoolTls, pool: Box<Pool>, slot: ClientSlot },
}

impl Watched {
    fn new(label: String, what: What) -> Watched {
        let seen = what.stamp();
        Watched { label, what, read: seen.clone(), seen }
    }

    fn look(&mut self, ring: &Arc<Ring>, now: SystemTime) {
        let stamp = self.what.stamp();
        let still = stamp == self.seen;
        self.seen = stamp;
        if !still || self.seen == self.read {
            return;
        }
        self.read = self.seen.clone();
        let mut faults = Vec::new();
        let done = self.what.renew(ring, now, &mut faults);
        for fault in &faults {
            tracing::warn!("{}", told(fault));
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
    fn renew(&mut self, ring: &Arc<Ring>, now: SystemTime, faults: &mut Vec<Fault>) -> bool {
        match self {
            What::Listener { tls, name, slot, policy } => {
                let before = slot.load_full();
                let Some(built) = server::build(tls, name, ring, Some((&before, *policy)), now, faults) else {
                    return false;
                };
                *policy = built.1;
                slot.store(Arc::new(built.0));
                true
            }
            What::Pool { tls, pool, slot } => client::build(tls, pool, &SystemRoots::default(), now, faults)
                .map(|config| slot.store(Arc::new(config)))
                .is_some(),
        }
    }

    fn stamp(&self) -> Stamp {
        let mut stamp = Stamp::default();
        match self {
            What::Listener { tls, .. } => {
                stamp.folder(&tls.certificates, true);
                tls.client_ca.iter().for_each(|path| stamp.file(path));
            }
            What::Pool { tls, .. } => {
                tls.ca.iter().for_each(|path| stamp.file(path));
                if let Some((certificate, key)) = &tls.own {
                    stamp.file(certificate);
                    stamp.file(key);
                }
            }
        }
        stamp.0.sort();
        stamp
    }
}

fn told(fault: &Fault) -> String {
    let word = if fault.severity == Severity::Error { "error" } else { "warning" };
    format!("{}: {word}: {} [{}]", fault.place.file, fault.message, fault.code)
}

/// Names, times and lengths of files: other when one of them is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Stamp(Vec<(PathBuf, SystemTime, u64)>);

impl Stamp {
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
