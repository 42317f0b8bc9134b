//! The one root of what is alive: the snapshot in force, and what survives it.
//!
//! `install` is the only writer. Start is an install into nothing; a reload is another one, which keeps
//! every server of the same identity with its health, its requests in flight and its number.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Instant, SystemTime};

use arc_swap::{ArcSwap, Cache};
use tokio::sync::{Notify, watch};

use super::affinity::Affinities;
use super::crowd::Crowds;
use super::director;
use super::gate::Gate;
use super::generations::Generations;
use super::media::Media;
use super::names::Names;
use super::passwords::Passwords;
use super::pool::LivePool;
use super::rates::Rates;
use super::rule_hits::{RuleMoves, rule_names};
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
    /// Every pool's that a snapshot or a request still holds, by the pool's name.
    gates: Mutex<HashMap<Arc<str>, Weak<Gate>>>,
    listener_names: Names,
    pool_names: Names,
    server_names: Names,
    /// What was taken out of service by hand.
    drains: Mutex<Drains>,
    /// Snapshots that were replaced and may be in use still: the last to let go of one frees it, which is
    /// to be nobody on the request path.
    retired: Mutex<Vec<Arc<Snapshot>>>,
    /// Ways of speaking to servers so far.
    manners: AtomicU32,
    generations: Generations,
    /// Some server has answered badly too often.
    alarm: Notify,
    /// What some pool's servers are has changed.
    planned: Arc<Notify>,
    /// To the director's loop.
    director: OnceLock<director::Commands>,
    /// What rules have taken lately, and have under way.
    rates: Rates,
    passwords: Passwords,
    crowds: Crowds,
    /// The process has more memory in use than it may.
    short_of_memory: AtomicBool,
    /// Where clients were.
    affinities: Affinities,
    media: Media,
    generation: watch::Sender<u64>,
    /// The generation that another process has come to before this one.
    follows: AtomicU64,
    started: Instant,
    started_at: SystemTime,
}

/// What was taken out of service by hand: names that the snapshot in force has. A drain is kept over
/// reloads as long as what it names is.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Drains {
    pub listeners: BTreeSet<Arc<str>>,
    pub pools: BTreeSet<Arc<str>>,
    /// Identities.
    pub servers: BTreeSet<Arc<str>>,
}

/// A core's own reader of the snapshot: one comparison when nothing changed. It holds on to the snapshot
/// it saw last until it is asked again.
pub type SnapshotCache = Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>;

impl Farm {
    /// One in which nothing is in force yet.
    pub fn empty() -> Arc<Farm> {
        Arc::new(Farm {
            snapshot: Arc::new(ArcSwap::from_pointee(Snapshot::default())),
            servers: Mutex::default(),
            gates: Mutex::default(),
            listener_names: Names::default(),
            pool_names: Names::default(),
            server_names: Names::default(),
            drains: Mutex::default(),
            retired: Mutex::default(),
            manners: AtomicU32::new(0),
            generations: Generations::default(),
            alarm: Notify::new(),
            planned: Arc::default(),
            director: OnceLock::new(),
            rates: Rates::default(),
            passwords: Passwords::default(),
            crowds: Crowds::default(),
            short_of_memory: AtomicBool::new(false),
            affinities: Affinities::default(),
            media: Media::default(),
            generation: watch::Sender::new(0),
            follows: AtomicU64::new(0),
            started: Instant::now(),
            started_at: SystemTime::now(),
        })
    }

    /// A farm that speaks in clear. `tables` in the order of `config.rule_sets`.
    pub fn new(config: Arc<Config>, tables: Vec<Arc<Table>>) -> Arc<Farm> {
        let farm = Farm::empty();
        farm.install(config, tables);
        farm
    }

    /// As [`Farm::install_secured`], in clear.
    pub fn install(&self, config: Arc<Config>, tables: Vec<Arc<Table>>) {
        self.install_secured(config, tables, Secured::default());
    }

    /// Puts a configuration in force, with what `tls` made of it. Servers of the same identity are kept, others
    /// begin; those no longer named end when the last request on them does. Takes milliseconds for thousands of pools.
    pub fn install_secured(&self, config: Arc<Config>, tables: Vec<Arc<Table>>, secured: Secured) {
        // The lock also makes installs follow one another.
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut drains = self.drains.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.snapshot.load_full();
        let listeners = config.listeners.iter().map(|l| ListenerId(self.listener_names.id(&l.name))).collect();
        let Secured { listeners: tls, pools: mut clients } = secured;
        clients.resize(config.pools.len(), None);
        drains.forget_others(&config);
        let twins: HashMap<&str, &LivePool> = before.pools.iter().map(|pool| (&**pool.name(), &**pool)).collect();
        let pools = config.pools.iter().zip(clients);
        let pools = pools.map(|(pool, tls)| self.live_pool(pool, tls, &twins, &drains, &mut servers)).collect();
        drop(twins);
        let generation = before.generation.max(self.follows.load(Ordering::Relaxed)) + 1;
        let (rule_names, rule_offsets) = rule_names(&config);
        let rule_moves = Arc::new(RuleMoves::new(&before.rule_names, &rule_names));
        let crowds = self.crowds.of(&config);
        if tables.iter().any(|table| table.rules().any(|rule| rule.refined().is_some_and(|own| !own.rates.is_empty())))
        {
            self.rates.prepare();
        }
        let snapshot = Snapshot {
            generation,
            config,
            tables,
            pools,
            listeners,
            tls,
            rule_names,
            rule_offsets,
            rule_moves,
            crowds,
        };
        self.snapshot.store(Arc::new(snapshot));
        self.retired.lock().unwrap_or_else(PoisonError::into_inner).push(before);
        servers.retain(|_, server| server.strong_count() > 0);
        self.gates.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, gate| gate.strong_count() > 0);
        // Only now do those who wait see what has changed.
        self.snapshot().pools.iter().for_each(|pool| pool.gate().call_all());
        self.generation.send_replace(generation);
    }

    fn live_pool(
        &self,
        config: &Pool,
        tls: Option<ClientSlot>,
        before: &HashMap<&str, &LivePool>,
        drains: &Drains,
        known: &mut HashMap<Arc<str>, Weak<LiveServer>>,
    ) -> Arc<LivePool> {
        let before = before.get(&*config.name).copied();
        let gate = self.gate(&config.name);
        let live_server = |server: &Server| {
            let identity: Arc<str> = identity(config, server).into();
            let live = match known.get(&identity).and_then(Weak::upgrade) {
                Some(live) => {
                    // One that was gone and comes back: nobody has looked after it meanwhile.
                    if !before.is_some_and(|pool| pool.servers().iter().any(|server| Arc::ptr_eq(server, &live))) {
                        live.forget_health();
                    }
                    live
                }
                None => {
                    let id = self.server_names.id(&identity);
                    let live = Arc::new(LiveServer::new(id, config, Arc::clone(&identity), server, gate.clone()));
                    known.insert(Arc::clone(&identity), Arc::downgrade(&live));
                    live
                }
            };
            live.set_drained(drains.pools.contains(&config.name) || drains.servers.contains(&identity));
            live
        };
        let servers = config.servers.iter().map(live_server).collect();
        let manner = self.manners.fetch_add(1, Ordering::Relaxed);
        let affinity = self.affinities.of(config);
        let number = self.pool_names.id(&config.name);
        let pool = LivePool::new(number, config.clone(), servers, tls, affinity, before, manner, gate);
        pool.tell(&self.planned);
        pool
    }

    /// The one way into all the pools of a name: those who wait, and who is in, outlive a reload.
    fn gate(&self, pool: &Arc<str>) -> Arc<Gate> {
        let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        let gate = gates.get(pool).and_then(Weak::upgrade).unwrap_or_default();
        gates.insert(pool.clone(), Arc::downgrade(&gate));
        gate
    }

    /// Frees snapshots that nobody holds any more. For a thread that has time.
    pub fn sweep(&self) {
        let mut retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
        let (held, free) = retired.drain(..).partition(|snapshot| Arc::strong_count(snapshot) > 1);
        *retired = held;
        drop(retired);
        drop::<Vec<_>>(free);
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        servers.retain(|_, server| server.strong_count() > 0);
        self.affinities.sweep();
    }

    /// How many snapshots are still held by somebody, besides the one in force.
    pub fn retired(&self) -> usize {
        self.retired.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// What is out of service by hand.
    pub fn drains(&self) -> Drains {
        self.drains.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes what is out of service by hand: plans are made anew, sockets are the caller's business.
    /// Returns what was so before.
    pub fn set_drains(&self, change: impl FnOnce(&mut Drains)) -> Drains {
        let mut drains = self.drains.lock().unwrap_or_else(PoisonError::into_inner);
        let before = drains.clone();
        change(&mut drains);
        for pool in &self.snapshot().pools {
            let all = drains.pools.contains(pool.name());
            for server in pool.servers() {
                server.set_drained(all || drains.servers.contains(server.identity()));
            }
        }
        before
    }

    /// Whether the process has more memory in use than it may, so that it has to turn away whom it can.
    pub fn is_short_of_memory(&self) -> bool {
        self.short_of_memory.load(Ordering::Relaxed)
    }

    pub fn set_short_of_memory(&self, short: bool) {
        self.short_of_memory.store(short, Ordering::Relaxed);
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

    /// The next configuration follows on one of this number, which another process had in force.
    pub fn follow(&self, generation: u64) {
        self.follows.store(generation, Ordering::Relaxed);
    }

    /// A server by its identity, `pool/name`.
    pub fn server(&self, identity: &str) -> Option<Arc<LiveServer>> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner).get(identity)?.upgrade()
    }

    /// Told when some server has answered badly too often in a row.
    pub fn alarm(&self) -> &Notify {
        &self.alarm
    }

    /// Told when what some pool's servers are has changed: health, weight, drain, address. One listens.
    pub fn planned(&self) -> &Notify {
        &self.planned
    }

    /// Where commands to the director go, explicit flows among them; `None` before the process has one.
    pub fn director(&self) -> Option<&director::Commands> {
        self.director.get()
    }

    /// To be called once.
    pub fn set_director(&self, commands: director::Commands) {
        let _ = self.director.set(commands);
    }

    /// The processes before this one.
    pub fn generations(&self) -> &Generations {
        &self.generations
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

    /// What rules with a rate have taken lately.
    pub fn passwords(&self) -> &Passwords {
        &self.passwords
    }

    pub fn rates(&self) -> &Rates {
        &self.rates
    }

    /// Where clients were.
    pub fn affinities(&self) -> &Affinities {
        &self.affinities
    }

    /// RTSP sessions, and what belongs to them.
    pub fn media(&self) -> &Media {
        &self.media
    }

    /// The secrets by which cookies are made and read, the one in use first.
    pub fn set_cookie_keys(&self, secrets: &[[u8; 32]]) {
        // No pool comes into being between the keys and its marks.
        let _no_install = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        let keys = self.affinities.set_keys(secrets);
        self.snapshot().pools.iter().filter_map(|pool| pool.affinity()).for_each(|affinity| affinity.mark(&keys));
    }

    pub fn started(&self) -> Instant {
        self.started
    }

    pub fn started_at(&self) -> SystemTime {
        self.started_at
    }
}

impl Drains {
    /// Forgets what a configuration has not.
    fn forget_others(&mut self, config: &Config) {
        let pool = |name: &str| config.pools.iter().find(|pool| *pool.name == *name);
        self.listeners.retain(|name| config.listeners.iter().any(|listener| listener.name == *name));
        self.pools.retain(|name| pool(name).is_some());
        self.servers.retain(|identity| {
            let found = identity.split_once('/').and_then(|(of, name)| Some((pool(of)?, name)));
            found.is_some_and(|(pool, name)| pool.servers.iter().any(|server| *server.name == *name))
        });
    }
}

fn identity(pool: &Pool, server: &Server) -> String {
    format!("{}/{}", pool.name, server.name)
}
