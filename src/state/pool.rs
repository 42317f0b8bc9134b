//! Chooses a server of a pool that is up, not full and not tried before, and counts the request there.
//!
//! The choice reads a plan, which holds only servers that may be chosen at all (up, resolved, with a
//! weight) and their scheduler. It is rebuilt off the request path when one of these changes, so that a
//! pick takes no lock, no memory, and does not step over dead servers.

use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use super::affinity::LiveAffinity;
use super::secured::ClientSlot;
use super::server::{Health, LiveServer, Way};
use crate::balance::{Balancer, Share, View};
use crate::model::pool::{Pool, Scheduler};

/// The live twin of a configured pool. Made anew by every reload; its servers stay.
#[derive(Debug)]
pub struct LivePool {
    id: u32,
    config: Pool,
    servers: Vec<Arc<LiveServer>>,
    tls: Option<ClientSlot>,
    affinity: Option<LiveAffinity>,
    /// Another one when its servers are spoken to in another way.
    manner: u32,
    plan: ArcSwap<Plan>,
    /// Held while a plan is made and put in place, so that an older one never replaces a newer one.
    planning: Mutex<()>,
    position: Position,
}

/// How many picks were made: the scheduler's position. All cores write it, so it has its own cache line.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Position(AtomicU64);

/// Why no server was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoServer {
    /// None is up, or all that are were tried.
    Down,
    /// At least one is up and was not tried, but all of these have as many requests as they may.
    Full,
}

/// Why a client does not get the server that it was at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfit {
    Down,
    /// It has as many requests as it may.
    Full,
    /// This request was there already.
    Tried,
    /// It is a backup, and others are up.
    Backup,
}

impl LivePool {
    /// `before` is the pool's former twin, whose position goes on; `manner` a number that no pool has had.
    pub(super) fn new(
        id: u32,
        config: Pool,
        servers: Vec<Arc<LiveServer>>,
        tls: Option<ClientSlot>,
        affinity: Option<LiveAffinity>,
        before: Option<&LivePool>,
        manner: u32,
    ) -> Arc<LivePool> {
        let position = before.map_or(0, |before| before.position.0.load(Ordering::Relaxed));
        let manner = match before {
            Some(before) if before.config.spoken_to_as(&config) => before.manner,
            _ => manner,
        };
        let pool = Arc::new(LivePool {
            id,
            plan: ArcSwap::from_pointee(Plan::default()),
            planning: Mutex::new(()),
            position: Position(AtomicU64::new(position)),
            config,
            servers,
            tls,
            affinity,
            manner,
        });
        // First all servers learn their pool, then it plans: a change of health in between is seen by this
        // plan, a later one makes its own.
        for (server, configured) in pool.servers.iter().zip(&pool.config.servers) {
            server.configure(configured, !pool.config.checks.is_empty(), manner, &Arc::downgrade(&pool));
        }
        pool.plan_again();
        pool
    }

    /// Dense over the process and never used for a pool of another name.
    pub fn id(&self) -> u32 {
        self.id
    }

    pub fn name(&self) -> &Arc<str> {
        &self.config.name
    }

    pub fn config(&self) -> &Pool {
        &self.config
    }

    /// All of them, in the order of the file.
    pub fn servers(&self) -> &[Arc<LiveServer>] {
        &self.servers
    }

    /// What its servers have to prove, where they are spoken to in secret.
    pub fn tls(&self) -> Option<&ClientSlot> {
        self.tls.as_ref()
    }

    /// Where its clients were; `None` where nobody asks.
    pub fn affinity(&self) -> Option<&LiveAffinity> {
        self.affinity.as_ref()
    }

    /// Counts a request in at the server that its client was at, by its position. A drained server keeps its clients, and
    /// so does one of weight 0; a backup server has them only while it serves others too. Only for pools with affinity.
    ///
    /// # Errors
    /// Why it cannot be had.
    pub fn lease(&self, server: u32, tried: &[u32]) -> Result<Lease, Unfit> {
        let plan = self.plan.load();
        let Some((address, way)) = plan.reachable.get(server as usize).copied().flatten() else {
            return Err(Unfit::Down);
        };
        let server = &self.servers[server as usize];
        if tried.contains(&server.id()) {
            return Err(Unfit::Tried);
        }
        if server.is_backup() && !plan.primary.entries.is_empty() {
            return Err(Unfit::Backup);
        }
        if !server.enter() {
            return Err(Unfit::Full);
        }
        Ok(Lease { server: Arc::clone(server), address, way })
    }

    /// The position of a server among [`LivePool::servers`].
    pub fn position_of(&self, server: &Arc<LiveServer>) -> Option<u32> {
        self.servers.iter().position(|own| Arc::ptr_eq(own, server)).map(|at| at as u32)
    }

    /// Chooses a server and counts the request in there; dropping the lease counts it out.
    ///
    /// `key` is the hash of what `hash` and `mh` go by; with any other scheduler it means rendezvous
    /// hashing for this pick. `tried` are ids of servers not to be chosen again. Backup servers serve
    /// while no other server is up, or when all that are were tried; not when these are merely full.
    pub fn pick(&self, key: Option<u64>, tried: &[u32]) -> Result<Lease, NoServer> {
        let plan = self.plan.load();
        let ticket = self.position.0.fetch_add(1, Ordering::Relaxed);
        match plan.primary.pick(ticket, key, tried) {
            Err(NoServer::Down) => plan.backup.pick(ticket, key, tried),
            settled => settled,
        }
    }

    /// How many picks were made.
    pub fn position(&self) -> u64 {
        self.position.0.load(Ordering::Relaxed)
    }

    /// Goes on where another process was.
    pub fn set_position(&self, position: u64) {
        self.position.0.store(position, Ordering::Relaxed);
    }

    /// Makes the plan anew from what the servers are now.
    pub(super) fn plan_again(&self) {
        let _one_at_a_time = self.planning.lock().unwrap_or_else(PoisonError::into_inner);
        let (backup, primary) = self.servers.iter().filter_map(Entry::of).partition(|entry| entry.server.is_backup());
        let tier = |entries| Tier::new(&self.config.scheduler, entries);
        let reachable = |server: &Arc<LiveServer>| {
            let up = server.health() == Health::Up;
            Some((server.address().filter(|_| up)?, server.way_of_its_clients()))
        };
        let reachable = self.affinity.iter().flat_map(|_| self.servers.iter().map(reachable)).collect();
        self.plan.store(Arc::new(Plan { primary: tier(primary), backup: tier(backup), reachable }));
    }
}

#[derive(Debug)]
struct Plan {
    primary: Tier,
    backup: Tier,
    /// Server by server, with affinity: where those are that are up, drained ones too.
    reachable: Vec<Option<(SocketAddr, Way)>>,
}

impl Default for Plan {
    fn default() -> Plan {
        let nobody = || Tier::new(&Scheduler::Rr, Vec::new());
        Plan { primary: nobody(), backup: nobody(), reachable: Vec::new() }
    }
}

/// Servers that may be chosen, and the scheduler built for just these.
#[derive(Debug)]
struct Tier {
    entries: Vec<Entry>,
    balancer: Balancer,
}

#[derive(Debug)]
struct Entry {
    server: Arc<LiveServer>,
    address: SocketAddr,
    way: Way,
    /// As it was when the scheduler was built.
    weight: u32,
}

impl Entry {
    /// `None` for a server that takes no new request.
    fn of(server: &Arc<LiveServer>) -> Option<Entry> {
        let (address, weight) = (server.address()?, server.weight());
        let way = server.way()?;
        let eligible = server.health() == Health::Up && weight > 0;
        eligible.then(|| Entry { server: Arc::clone(server), address, way, weight })
    }
}

impl Tier {
    fn new(scheduler: &Scheduler, entries: Vec<Entry>) -> Tier {
        let shares: Vec<Share> =
            entries.iter().map(|entry| Share { weight: entry.weight, seed: entry.server.seed() }).collect();
        Tier { balancer: Balancer::new(scheduler, &shares), entries }
    }

    fn pick(&self, ticket: u64, key: Option<u64>, tried: &[u32]) -> Result<Lease, NoServer> {
        let candidates = Candidates { entries: &self.entries, tried };
        // Another core may take a server's last place between choosing and entering. Then it shows full,
        // and the next choice is another one; the bound is for servers that empty and fill all the time.
        for _ in 0..=self.entries.len() {
            let Some(entry) = self.balancer.pick(&candidates, ticket, key).and_then(|at| self.entries.get(at)) else {
                break;
            };
            if entry.server.enter() {
                return Ok(Lease { server: Arc::clone(&entry.server), address: entry.address, way: entry.way });
            }
        }
        let untried = self.entries.iter().any(|entry| !tried.contains(&entry.server.id()));
        Err(if untried { NoServer::Full } else { NoServer::Down })
    }
}

/// A tier as the scheduler sees it for one request.
struct Candidates<'a> {
    entries: &'a [Entry],
    tried: &'a [u32],
}

impl View for Candidates<'_> {
    fn len(&self) -> usize {
        self.entries.len()
    }
    fn weight(&self, server: usize) -> u32 {
        self.entries[server].weight
    }
    fn load(&self, server: usize) -> u32 {
        self.entries[server].server.in_flight()
    }
    fn seed(&self, server: usize) -> u64 {
        self.entries[server].server.seed()
    }
    fn open(&self, server: usize) -> bool {
        let server = &self.entries[server].server;
        !server.is_full() && !self.tried.contains(&server.id())
    }
}

/// A chosen server with a request counted in flight; dropping it counts the request out.
#[derive(Debug)]
pub struct Lease {
    server: Arc<LiveServer>,
    address: SocketAddr,
    way: Way,
}

impl Lease {
    /// Where the server was when it was chosen.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How the server was to be spoken to then: a connection made for this lease serves no other way.
    pub fn way(&self) -> Way {
        self.way
    }

    /// Whether another request could use a connection that was made for this one.
    pub fn is_current(&self) -> bool {
        self.server.way() == Some(self.way)
    }

    pub fn server(&self) -> &Arc<LiveServer> {
        &self.server
    }
}

impl Deref for Lease {
    type Target = LiveServer;

    fn deref(&self) -> &LiveServer {
        &self.server
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.server.leave();
    }
}
