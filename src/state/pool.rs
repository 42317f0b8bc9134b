//! Chooses a server of a pool that is up, not full and not tried before, and counts the request there.
//!
//! The choice reads a plan, which holds only servers that may be chosen at all (up, resolved, with a
//! weight) and their scheduler. It is rebuilt off the request path when one of these changes, so that a
//! pick takes no lock, no memory, and does not step over dead servers.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use super::affinity::LiveAffinity;
use super::budget::{HEDGES, RETRIES};
use super::conduct::Came;
use super::gate::Gate;
use super::lease::Lease;
use super::plan::{Entry, Plan, Tier};
use super::secured::ClientSlot;
use super::server::{Health, LiveServer};
use crate::model::pool::{Hedge, HedgeAfter, Most, Pool, Scheduler};

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
    gate: Arc<Gate>,
    /// Requests in flight at most, in the pool.
    most: Option<u32>,
    /// Connections in use are counted apart from requests.
    counts_connections: bool,
    plan: ArcSwap<Plan>,
    /// Held while a plan is made and put in place, so that an older one never replaces a newer one.
    planning: Mutex<()>,
    position: Position,
    /// Too few servers are up: all are used.
    panics: AtomicBool,
    /// Told of each new plan.
    planned: OnceLock<Arc<Notify>>,
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
        gate: Arc<Gate>,
    ) -> Arc<LivePool> {
        let position = before.map_or(0, |before| before.position.0.load(Ordering::Relaxed));
        let manner = match before {
            Some(before) if before.config.spoken_to_as(&config) => before.manner,
            _ => manner,
        };
        let bounds = |most: &Most| most.in_use(config.protocol).is_some();
        let pool = Arc::new(LivePool {
            id,
            gate,
            most: config.most.in_flight(config.protocol),
            counts_connections: bounds(&config.most) || config.servers.iter().any(|server| bounds(&server.most)),
            // What its schedulers remember goes on.
            plan: ArcSwap::new(before.map_or_else(Arc::default, |before| before.plan.load_full())),
            planning: Mutex::new(()),
            position: Position(AtomicU64::new(position)),
            panics: AtomicBool::new(false),
            planned: OnceLock::new(),
            config,
            servers,
            tls,
            affinity,
            manner,
        });
        // First all servers learn their pool, then it plans: a change of health in between is seen by this
        // plan, a later one makes its own.
        for (server, configured) in pool.servers.iter().zip(&pool.config.servers) {
            server.configure(configured, &pool.config, manner, &Arc::downgrade(&pool));
        }
        pool.plan_again();
        pool
    }

    /// How its servers are spoken to: another number when that changes.
    pub fn manner(&self) -> u32 {
        self.manner
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

    /// As [`LivePool::pick_in_turn`], for whom nobody waits.
    ///
    /// # Errors
    /// `Full` also where others wait for a place, who go first.
    #[inline]
    pub fn pick(&self, key: Option<u64>, tried: &[u32]) -> Result<Lease, NoServer> {
        if self.gate.is_waited_at() {
            return Err(NoServer::Full);
        }
        self.pick_in_turn(key, tried, &[])
    }

    /// Where its clients were; `None` where nobody asks.
    pub fn affinity(&self) -> Option<&LiveAffinity> {
        self.affinity.as_ref()
    }

    /// Counts a request in at the server that its client was at, by its position. A drained server keeps its clients, and
    /// so does one of weight 0; a backup server has them only while it serves others too. `tried` and `barred` as in
    /// [`LivePool::pick_in_turn`].
    ///
    /// # Errors
    /// Why it cannot be had.
    pub fn lease(&self, server: u32, tried: &[u32], barred: &[u32]) -> Result<Lease, Unfit> {
        let plan = self.plan.load();
        let Some((address, way)) = plan.reachable.get(server as usize).copied().flatten() else {
            return Err(Unfit::Down);
        };
        let server = &self.servers[server as usize];
        if tried.contains(&server.id()) {
            return Err(Unfit::Tried);
        }
        if server.is_backup() && !plan.primary.is_empty() {
            return Err(Unfit::Backup);
        }
        if barred.contains(&server.id()) || self.is_full() || !server.enter() {
            return Err(Unfit::Full);
        }
        let mut lease = Lease::new(server, address, way, false);
        if self.enter(&mut lease) { Ok(lease) } else { Err(Unfit::Full) }
    }

    /// Whether the pool has as much in it as it may.
    fn is_full(&self) -> bool {
        self.most.is_some_and(|most| self.gate.requests().get() >= most)
    }

    /// Counts a request that a server has into the pool, too, where that has a bound. Last, so that nobody takes a place of
    /// the pool who then finds no server, and who was refused for the sake of somebody that was: those two would call each
    /// other for ever.
    fn enter(&self, lease: &mut Lease) -> bool {
        let Some(most) = self.most else { return true };
        let entered = self.gate.requests().enter(most);
        if entered {
            lease.set_in_pool();
        }
        entered
    }

    /// The position of a server among [`LivePool::servers`].
    pub fn position_of(&self, server: &Arc<LiveServer>) -> Option<u32> {
        self.servers.iter().position(|own| Arc::ptr_eq(own, server)).map(|at| at as u32)
    }

    /// Chooses a server and counts the request in there; dropping the lease counts it out.
    ///
    /// `key` is the hash of what `hash` and `mh` go by; with any other scheduler it means rendezvous
    /// hashing for this pick. `tried` are ids of servers not to be chosen again, `barred` of those that are full to
    /// whoever asks. Backup servers serve
    /// while no other server is up, or when all that are were tried; not when these are merely full.
    pub fn pick_in_turn(&self, key: Option<u64>, tried: &[u32], barred: &[u32]) -> Result<Lease, NoServer> {
        if self.is_full() {
            return Err(self.none_in(tried));
        }
        let mut lease = self.choose(key, tried, barred)?;
        // Another core may have taken the last place of the pool meanwhile.
        if self.enter(&mut lease) { Ok(lease) } else { Err(self.none_in(tried)) }
    }

    /// Why a pool that is full has no server: where none is up there is nothing to wait for.
    #[cold]
    fn none_in(&self, tried: &[u32]) -> NoServer {
        let plan = self.plan.load();
        let some = [&plan.primary, &plan.backup].into_iter().any(|tier| tier.has_untried(tried));
        if some { NoServer::Full } else { NoServer::Down }
    }

    fn choose(&self, key: Option<u64>, tried: &[u32], barred: &[u32]) -> Result<Lease, NoServer> {
        let plan = self.plan.load();
        let ticket = self.position.0.fetch_add(1, Ordering::Relaxed);
        match plan.primary.pick(ticket, key, tried, barred) {
            Err(NoServer::Down) => plan.backup.pick(ticket, key, tried, barred),
            settled => settled,
        }
    }

    /// Whether it matters how long its servers take to answer.
    pub fn times_answers(&self) -> bool {
        self.goes_by_delay() || self.config.outlier.as_ref().is_some_and(|outlier| outlier.slower_than.is_some())
    }

    /// Whether it chooses by how long answers take: [`LiveServer::answered`] is then to be told.
    pub fn goes_by_delay(&self) -> bool {
        self.config.scheduler == Scheduler::Ewma
    }

    /// The way in: who waits for a place.
    pub fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// Whether another connection to a server may be taken into use now.
    pub fn may_connect(&self, server: &LiveServer) -> bool {
        self.most_in_use().is_none_or(|most| self.gate.connections().get() < most) && server.may_connect()
    }

    /// Connections in use at most, where those are bounded apart from requests.
    pub(super) fn most_in_use(&self) -> Option<u32> {
        self.config.most.in_use(self.config.protocol)
    }

    /// Whether connections in use are bounded apart from requests: [`Lease::take_into_use`] then has to be asked for
    /// each.
    pub fn counts_connections(&self) -> bool {
        self.counts_connections
    }

    /// Too few servers are up, so that all are used.
    pub fn panics(&self) -> bool {
        self.panics.load(Ordering::Relaxed)
    }

    /// Counts what came of asking a server, where the pool looks at that. Whether the server has to be looked at now.
    #[inline]
    pub fn counts(&self, server: &LiveServer, came: Came) -> bool {
        let Some(outlier) = &self.config.outlier else { return false };
        server.conduct().count(came).is_some_and(|rows| rows.too_many(outlier))
    }

    /// The server that [`LivePool::pick`] would choose now: nothing is counted, and the scheduler stays where it is.
    pub fn next(&self, key: Option<u64>) -> Result<Arc<LiveServer>, NoServer> {
        let plan = self.plan.load();
        let ticket = self.position.0.load(Ordering::Relaxed);
        let next = match plan.primary.next(ticket, key) {
            Err(NoServer::Down) => plan.backup.next(ticket, key),
            settled => settled,
        };
        let full = self.gate.is_waited_at() || self.is_full();
        if full { next.and(Err(NoServer::Full)) } else { next }
    }

    /// How many picks were made.
    pub fn position(&self) -> u64 {
        self.position.0.load(Ordering::Relaxed)
    }

    /// Goes on where another process was.
    pub fn set_position(&self, position: u64) {
        self.position.0.store(position, Ordering::Relaxed);
        self.gate.budget().forget();
        self.gate.hedges().forget();
    }

    /// Whether a request may be tried once more as far as `share` goes (hundredths of a percent of the requests of the
    /// last ten seconds); if so, it is counted.
    pub fn take_retry(&self, share: u32, now: Instant) -> bool {
        self.gate.budget().take(share, RETRIES, self.position(), now)
    }

    /// To be called once a second by each worker.
    pub fn note_picks(&self, now: Instant) {
        if self.config.retry.budget.is_some() {
            self.gate.budget().note(self.position(), now);
        }
        if self.config.hedge.is_some() {
            self.gate.hedges().note(self.position(), now);
        }
    }

    /// After what time without an answer a second server is to be asked; `None`: never, or it is not known yet.
    pub fn hedge_after(&self) -> Option<Duration> {
        match self.config.hedge?.after {
            HedgeAfter::Time(after) => Some(after),
            HedgeAfter::Percentile(_) => self.gate.pace().get(),
        }
    }

    /// An answer has begun, so long after its request was sent.
    pub fn answered(&self, took: Duration) {
        if let Some(Hedge { after: HedgeAfter::Percentile(percentile), .. }) = self.config.hedge {
            self.gate.pace().add(took, percentile);
        }
    }

    /// Whether a second server may be asked as far as the pool's share goes; if so, it is counted.
    pub fn take_hedge(&self, now: Instant) -> bool {
        let take = |hedge: Hedge| self.gate.hedges().take(hedge.at_most, HEDGES, self.position(), now);
        self.config.hedge.is_some_and(take)
    }

    /// Makes the plan anew from what the servers are now.
    pub fn plan_again(&self) {
        let _one_at_a_time = self.planning.lock().unwrap_or_else(PoisonError::into_inner);
        let entries = |health| self.servers.iter().filter_map(move |server| Entry::of(server, health));
        let (backup, mut primary): (Vec<_>, Vec<_>) = entries(Some(Health::Up)).partition(Entry::is_backup);
        let mut panics = false;
        let panic = self.config.outlier.as_ref().map_or(0, |outlier| outlier.panic as usize);
        if panic > 0 {
            // Those that are down are better than none for most.
            let all: Vec<_> = entries(None).filter(|entry| !entry.is_backup()).collect();
            panics = primary.len() * 10_000 < panic * all.len();
            self.panics.store(panics, Ordering::Relaxed);
            if panics {
                primary = all;
            }
        }
        let before = self.plan.load();
        let tier = |entries, before: &Tier| Tier::new(&self.config.scheduler, entries, Some(before.balancer()));
        // A client whose server is used in panic stays there: it would be new at any other.
        let reachable = |server: &Arc<LiveServer>| {
            let used = server.health() == Health::Up || panics && !server.is_backup();
            Some((server.address().filter(|_| used)?, server.way_of_its_clients()))
        };
        let reachable = self.servers.iter().map(reachable).collect();
        let (primary, backup) = (tier(primary, &before.primary), tier(backup, &before.backup));
        self.plan.store(Arc::new(Plan { primary, backup, reachable }));
        self.gate.call_all();
        if let Some(planned) = self.planned.get() {
            planned.notify_one();
        }
    }

    /// Whoever else goes by what the pool's servers are, and wants to know when that changes.
    pub(super) fn tell(&self, planned: &Arc<Notify>) {
        let _ = self.planned.set(Arc::clone(planned));
    }
}
