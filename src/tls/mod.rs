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
//! | `watch` | changed files |

mod certificates;
mod client;
mod handshake;
mod pem;
mod server;
mod tickets;
mod watch;

use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, ServerConfig, SupportedProtocolVersion};

pub use client::name as server_name;
pub use handshake::{Accepted, Peer, Refused, accept, connect};
pub use tickets::Ring;
pub use watch::run as watch;

use watch::Stamp;

use crate::model::listener::Listener;
use crate::model::pool::Pool;
use crate::model::tls::TlsVersion;
use crate::model::{Config, Fault};

/// What a listener offers, replaced when its files change.
pub type ServerSlot = Arc<ArcSwap<ServerConfig>>;
/// What is demanded of a pool's servers, replaced when its files change.
pub type ClientSlot = Arc<ArcSwap<ClientConfig>>;

/// What a configuration asks for.
#[derive(Debug, Clone, Default)]
pub struct Loaded {
    /// In the order of `Config::listeners`; `None` for those without TLS, and for those whose files are wrong.
    pub listeners: Vec<Option<ServerSlot>>,
    /// Who is let in at each of them.
    policies: Vec<Option<tickets::Policy>>,
    /// The files of listeners and of pools as they were before they were read: what changes meanwhile is
    /// seen to have changed.
    stamps: [Vec<Stamp>; 2],
    /// In the order of `Config::pools`.
    pub pools: Vec<Option<ClientSlot>>,
    /// The keys of session tickets, random until they are taken from a file.
    pub ring: Arc<Ring>,
}

impl Loaded {
    /// Whether clients can come by TLS, so that tickets are made.
    pub fn serves(&self) -> bool {
        self.listeners.iter().any(Option::is_some)
    }
}

/// Reads every certificate, key and authority that the configuration names. Nothing is written.
pub fn load(config: &Config, now: SystemTime, faults: &mut Vec<Fault>) -> Loaded {
    let ring = Arc::new(Ring::new(now));
    let (mut listeners, mut policies) = (Vec::new(), Vec::new());
    let stamp = |listener: &Listener| listener.tls.as_ref().map(Stamp::of_listener).unwrap_or_default();
    let of_listeners = config.listeners.iter().map(stamp).collect();
    let stamp = |pool: &Pool| pool.tls.as_ref().map(Stamp::of_pool).unwrap_or_default();
    let stamps = [of_listeners, config.pools.iter().map(stamp).collect()];
    let before = faults.len();
    for listener in &config.listeners {
        let built = listener.tls.as_ref().and_then(|tls| server::build(tls, &listener.name, &ring, None, now, faults));
        let (config, policy) = built.unzip();
        listeners.push(config.map(|config| Arc::new(ArcSwap::from_pointee(config))));
        policies.push(policy);
    }
    once(faults, before);
    let mut pools = Vec::new();
    let system = client::SystemRoots::default();
    for pool in &config.pools {
        let built = pool.tls.as_ref().and_then(|tls| client::build(tls, pool, &system, now, faults));
        pools.push(built.map(|config| Arc::new(ArcSwap::from_pointee(config))));
    }
    Loaded { listeners, policies, stamps, pools, ring }
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
