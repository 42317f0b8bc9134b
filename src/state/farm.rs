//! The one root of what is alive: the snapshot in force, and what survives it.
//!
//! `install` is the only writer. Start is an install into nothing; a reload is another one, which keeps
//! every server of the same identity with its health, its requests in flight and its number.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Instant, SystemTime};

use arc_swap::{ArcSwap, Cache};
use tokio::sync::watch;

use super::names::Names;
use super::pool::LivePool;
use super::rule_hits::rule_names;
use super::secured::{ClientSlot, Secured};
use super::server::LiveServer;
use super::snapshot::{ListenerId, Snapshot};
use crate::model::Config;
use crate::model::pool::{Pool, Server};
use crate::route::Table;

#[derive(Debug)]
pub struct Farm {
    snapshot: Arc<ArcSwap<Snapshot>>,
    /// Every server that a snapshot or a request still holds, by identity.
    servers: Mutex<HashMap<Arc<str>, Weak<LiveServer>>>,
    listener_names: Names,
    pool_names: Names,
    server_names: Names,
    generation: watch::Sender<u64>,
    started: Instant,
    started_at: SystemTime,
}

/// A core's own reader of the snapshot: one comparison when nothing changed. It holds on to the snapshot
/// it saw last until it is asked again.
pub type SnapshotCache = Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>;

impl Farm {
    /// A farm that speaks in clear. `tables` in the order of `config.rule_sets`.
    pub fn new(config: Arc<Config>, tables: Vec<Arc<Table>>) -> Arc<Farm> {
        Farm::secured(config, tables, Secured::default())
    }

    /// As [`Farm::new`], with what `tls` made of the configuration.
    pub fn secured(config: Arc<Config>, tables: Vec<Arc<Table>>, secured: Secured) -> Arc<Farm> {
        let nothing = Snapshot {
            generation: 0,
            config: Arc::default(),
            tables: Vec::new(),
            pools: Vec::new(),
            listeners: Vec::new(),
            tls: Vec::new(),
            rule_names: Arc::new([]),
            rule_offsets: Vec::new(),
        };
        let farm = Farm {
            snapshot: Arc::new(ArcSwap::from_pointee(nothing)),
            servers: Mutex::default(),
            listener_names: Names::default(),
            pool_names: Names::default(),
            server_names: Names::default(),
            generation: watch::Sender::new(0),
            started: Instant::now(),
            started_at: SystemTime::now(),
        };
        farm.install_secured(config, tables, secured);
        Arc::new(farm)
    }

    /// Puts a configuration in force. Servers of the same identity are kept, others begin; those no longer
    /// named end when the last request on them does.
    pub fn install(&self, config: Arc<Config>, tables: Vec<Arc<Table>>) {
        self.install_secured(config, tables, Secured::default());
    }

    /// As [`Farm::install`], with what `tls` made of the configuration.
    pub fn install_secured(&self, config: Arc<Config>, tables: Vec<Arc<Table>>, secured: Secured) {
        // The lock also makes installs follow one another.
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.snapshot.load_full();
        let listeners = config.listeners.iter().map(|l| ListenerId(self.listener_names.id(&l.name))).collect();
        let Secured { listeners: tls, pools: mut clients } = secured;
        clients.resize(config.pools.len(), None);
        let pools = config.pools.iter().zip(clients);
        let pools = pools.map(|(pool, tls)| self.live_pool(pool, tls, &before, &mut servers)).collect();
        let generation = before.generation + 1;
        let (rule_names, rule_offsets) = rule_names(&config);
        let snapshot = Snapshot { generation, config, tables, pools, listeners, tls, rule_names, rule_offsets };
        self.snapshot.store(Arc::new(snapshot));
        drop(before);
        servers.retain(|_, server| server.strong_count() > 0);
        self.generation.send_replace(generation);
    }

    fn live_pool(
        &self,
        config: &Pool,
        tls: Option<ClientSlot>,
        before: &Snapshot,
        known: &mut HashMap<Arc<str>, Weak<LiveServer>>,
    ) -> Arc<LivePool> {
        let live_server = |server: &Server| {
            let identity: Arc<str> = identity(config, server).into();
            if let Some(server) = known.get(&identity).and_then(Weak::upgrade) {
                return server;
            }
            let id = self.server_names.id(&identity);
            let live = Arc::new(LiveServer::new(id, &config.name, Arc::clone(&identity), server));
            known.insert(identity, Arc::downgrade(&live));
            live
        };
        let servers = config.servers.iter().map(live_server).collect();
        let position = before.pool(&config.name).map_or(0, |pool| pool.position());
        LivePool::new(self.pool_names.id(&config.name), config.clone(), servers, tls, position)
    }

    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// For the request path of one core.
    pub fn cache(&self) -> SnapshotCache {
        Cache::new(Arc::clone(&self.snapshot))
    }

    /// Tells of each install by its generation.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    /// A server by its identity, `pool/name`.
    pub fn server(&self, identity: &str) -> Option<Arc<LiveServer>> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner).get(identity)?.upgrade()
    }

    pub fn listener_names(&self) -> &Names {
        &self.listener_names
    }

    pub fn pool_names(&self) -> &Names {
        &self.pool_names
    }

    /// Identities.
    pub fn server_names(&self) -> &Names {
        &self.server_names
    }

    pub fn started(&self) -> Instant {
        self.started
    }

    pub fn started_at(&self) -> SystemTime {
        self.started_at
    }
}

fn identity(pool: &Pool, server: &Server) -> String {
    format!("{}/{}", pool.name, server.name)
}
