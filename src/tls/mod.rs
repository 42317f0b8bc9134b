//! TLS in and TLS out: certificates, handshakes, and the keys of sessions that are taken up again.
//!
//! `load` makes what a configuration asks for and says every fault with its file; `watch` puts new
//! certificates in place when files change; `accept` and `connect` shake hands. What is spoken afterwards
//! goes through `net`.
//!
//! | file | subject |
//! |---|---|
//! | `pem` | certificates, keys and authorities from files |
//! | `certificates` | the folder of a listener, and which certificate a name gets |
//! | `server`, `client` | what is offered to clients, what is demanded of servers |
//! | `tickets` | keys of session tickets: in turn, kept over restarts, shared by all workers |
//! | `handshake` | accepting and connecting, and why it failed |
//! | `sessions` | tickets and session ids as a balancer sees them |
//! | `watch` | changed files |

mod certificates;
mod client;
mod handshake;
mod pem;
mod server;
mod sessions;
mod tickets;
mod watch;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, ServerConfig, SupportedProtocolVersion};

pub use client::{by_system, host_name, name as server_name, named};
pub use handshake::{Accepted, Peer, Refused, accept, connect};
pub use sessions::{KeyName, Mark, Marks, Version as SessionVersion, key_name, of_hello};
pub use watch::{InForce, run as watch};

use watch::Stamp;

use crate::model::listener::Listener;
use crate::model::pool::Pool;
use crate::model::tls::{ListenerTls, PoolTls, TlsVersion};
use crate::model::{Config, Fault};
use crate::sys::secrets::Ring;

/// What a listener offers, replaced when its files change.
pub type ServerSlot = Arc<ArcSwap<ServerConfig>>;
/// What is demanded of a pool's servers, replaced when its files change.
pub type ClientSlot = Arc<ArcSwap<ClientConfig>>;

/// What a configuration asks for.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// In the order of `Config::listeners`; `None` for those without TLS, and for those whose files are wrong.
    pub listeners: Vec<Option<ServerSlot>>,
    /// In the order of `Config::pools`.
    pub pools: Vec<Option<ClientSlot>>,
    /// What the slots of listeners, and of pools, were filled from.
    read: [Vec<Arc<Mutex<Read>>>; 2],
    /// The keys of session tickets, random until they are taken from a file.
    pub ring: Arc<Ring>,
}

impl Default for Loaded {
    fn default() -> Loaded {
        let ring = Arc::new(tickets::ring(SystemTime::now()));
        Loaded { listeners: Vec::new(), pools: Vec::new(), read: Default::default(), ring }
    }
}

/// What is in a slot: `watch` fills it anew, and a reload that finds the same goes on with the slot.
#[derive(Debug, Default)]
struct Read {
    /// The files as they were before they were read: what changes meanwhile is seen to have changed.
    stamp: Stamp,
    /// Who is let in, at a listener.
    policy: Option<tickets::Policy>,
}

/// What was made of the configuration before.
pub type Before<'b> = Option<(&'b Config, &'b Loaded)>;

impl Loaded {
    /// Whether clients can come by TLS, so that tickets are made.
    pub fn serves(&self) -> bool {
        self.listeners.iter().any(Option::is_some)
    }

    fn read(&self, of: usize, at: usize) -> Option<MutexGuard<'_, Read>> {
        self.read[of].get(at).map(|read| read.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

const LISTENERS: usize = 0;
const POOLS: usize = 1;

/// Reads every certificate, key and authority that the configuration names, but for those that `before`
/// has read as they are now. Nothing is written, and nothing of what is in use changes.
pub fn load(config: &Config, before: Before<'_>, now: SystemTime, faults: &mut Vec<Fault>) -> Loaded {
    let ring = before.map_or_else(|| Arc::new(tickets::ring(now)), |(_, before)| before.ring.clone());
    let mut loaded = Loaded { ring, ..Loaded::default() };
    let first = faults.len();
    for listener in &config.listeners {
        let (slot, read) = listener
            .tls
            .as_ref()
            .map(|tls| server_slot(tls, listener, before, &loaded.ring, now, faults))
            .unwrap_or_default();
        loaded.listeners.push(slot);
        loaded.read[LISTENERS].push(read);
    }
    once(faults, first);
    let system = client::SystemRoots::default();
    for pool in &config.pools {
        let (slot, read) =
            pool.tls.as_ref().map(|tls| client_slot(tls, pool, before, &system, now, faults)).unwrap_or_default();
        loaded.pools.push(slot);
        loaded.read[POOLS].push(read);
    }
    client::renew(&system);
    client::services(config, faults);
    loaded
}

fn server_slot(
    tls: &ListenerTls,
    listener: &Listener,
    before: Before<'_>,
    ring: &Arc<Ring>,
    now: SystemTime,
    faults: &mut Vec<Fault>,
) -> (Option<ServerSlot>, Arc<Mutex<Read>>) {
    let stamp = Stamp::of_listener(tls);
    let known = before.and_then(|(config, before)| {
        let at = config.listeners.iter().position(|old| old.name == listener.name)?;
        let old = &config.listeners[at];
        let same = old.protocol == listener.protocol && old.tls.as_ref().is_some_and(|old| old.same(tls));
        Some((before, at, before.listeners.get(at)?.as_ref()?, same))
    });
    let mut sessions = None;
    if let Some((before, at, slot, same)) = known
        && let Some(read) = before.read(LISTENERS, at)
    {
        if same && read.stamp == stamp {
            return (Some(slot.clone()), before.read[LISTENERS][at].clone());
        }
        sessions = read.policy.map(|policy| (slot.load_full(), policy));
    }
    let sessions = sessions.as_ref().map(|(config, policy)| (&**config, *policy));
    let (config, policy) = server::build(tls, &listener.name, listener.protocol, ring, sessions, now, faults).unzip();
    (config.map(|config| Arc::new(ArcSwap::from_pointee(config))), Arc::new(Mutex::new(Read { stamp, policy })))
}

fn client_slot(
    tls: &PoolTls,
    pool: &Pool,
    before: Before<'_>,
    system: &client::SystemRoots,
    now: SystemTime,
    faults: &mut Vec<Fault>,
) -> (Option<ClientSlot>, Arc<Mutex<Read>>) {
    let stamp = Stamp::of_pool(tls);
    if let Some((config, before)) = before
        && let Some(at) = config.pools.iter().position(|old| old.name == pool.name)
        && config.pools[at].spoken_to_as(pool)
        && let Some(Some(slot)) = before.pools.get(at)
        && before.read(POOLS, at).is_some_and(|read| read.stamp == stamp)
    {
        return (Some(slot.clone()), before.read[POOLS][at].clone());
    }
    let config = client::build(tls, pool, system, now, faults);
    (config.map(|config| Arc::new(ArcSwap::from_pointee(config))), Arc::new(Mutex::new(Read { stamp, policy: None })))
}

/// Files that several listeners use have each fault once, where they are named first; the other places are told along.
fn once(faults: &mut Vec<Fault>, from: usize) {
    for fault in faults.split_off(from) {
        let same = |other: &&mut Fault| (other.code, &other.message) == (fault.code, &fault.message);
        match faults[from..].iter_mut().find(same) {
            Some(first) => first.also.push((fault.place, "used here too".to_owned())),
            None => faults.push(fault),
        }
    }
}

/// aws-lc, with X25519MLKEM768 before the classical groups: what is recorded today is to stay closed
/// when there are quantum computers.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn versions(minimum: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    static NEWEST: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS13, &rustls::version::TLS12];
    match minimum {
        TlsVersion::Tls12 => &NEWEST,
        TlsVersion::Tls13 => &NEWEST[..1],
    }
}

#[cfg(test)]
mod tests;
