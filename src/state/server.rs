//! The live twin of a configured server: what survives a reload.
//!
//! Keyed by identity (`pool/name`), never by address. Writers: `farm` the configured parts, `health` the
//! verdict, the address of a name and the last probe, the pool's leases the requests in flight. A change
//! that matters to the choice rebuilds the plan of the pool the server is in.

mod standing;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

use super::changes::Changes;
use super::conduct::Conduct;
use super::delay::{Delay, millis};
use super::ejected::{Bench, Rise};
use super::gate::{Count, Gate, OwnLine};
use super::line::Cause;
use super::media::load::Load;
use super::pool::LivePool;
use crate::balance;
use crate::model::check::{Probe, Start};
use crate::model::pool::{Address, Pool, Server};

pub use self::standing::Advice;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    Up,
    Down,
}

impl Health {
    pub fn word(self) -> &'static str {
        match self {
            Health::Up => "up",
            Health::Down => "down",
        }
    }
}

/// Health as people want to see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    pub health: Health,
    /// `status 503, expected 200-299`; `not checked yet`.
    pub why: String,
    pub since: SystemTime,
}

/// What became of one probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeReport {
    /// When it began.
    pub at: SystemTime,
    pub took: Duration,
    pub ok: bool,
    pub detail: String,
}

/// What requests write and schedulers read of every server of a pool.
#[derive(Debug, Default)]
pub(super) struct Hot {
    /// Requests in flight.
    pub in_flight: Count,
    pub delay: Delay,
}

#[derive(Debug)]
pub struct LiveServer {
    id: u32,
    name: Arc<str>,
    pool_name: Arc<str>,
    identity: Arc<str>,
    seed: u64,
    hot: Arc<OwnLine<Hot>>,
    /// Connections in use, where they are bounded apart from requests.
    in_use: OwnLine<Count>,
    /// Its pool's.
    gate: Arc<Gate>,
    /// `NO_LIMIT` where none is configured.
    limit: AtomicU32,
    /// The same of connections in use.
    most_in_use: AtomicU32,
    weight: AtomicU32,
    backup: AtomicBool,
    up: AtomicBool,
    /// Taken out of service by hand, and kept so over reloads.
    drained: AtomicBool,
    way: AtomicU32,
    /// How often its connections were to be closed at once.
    cuts: AtomicU32,
    conduct: Conduct,
    media: Load,
    slow: Mutex<Slow>,
}

/// How a server is reached and spoken to: another one when its address, its protocol, what it has to prove
/// or what it is told first changes. Connections made in one way are of no use in another.
pub type Way = u32;

const NO_LIMIT: u32 = u32::MAX;

/// What the request path never touches.
#[derive(Debug)]
struct Slow {
    configured: Address,
    /// Where it is, or why that is not known, and since when.
    address: Result<SocketAddr, String>,
    address_since: SystemTime,
    /// What the checks found, whatever the address.
    standing: Standing,
    /// Whether that comes from a result.
    checked: bool,
    last_probe: Option<ProbeReport>,
    /// It is down until a check has said otherwise.
    starts_down: bool,
    /// What it says of itself.
    advice: Advice,
    bench: Bench,
    /// It came up lately.
    rise: Option<Rise>,
    /// How long it then takes to get its whole share.
    slow_start: Option<Duration>,
    changes: Changes,
    /// Since when it is drained, or is not any more.
    drained_since: SystemTime,
    /// The pool's, when the way was last looked at.
    manner: Option<u32>,
    /// Whose plan to rebuild.
    pool: Weak<LivePool>,
}

impl LiveServer {
    /// A server as the file has it, in no pool yet.
    pub(super) fn new(id: u32, pool: &Pool, identity: Arc<str>, server: &Server, gate: Arc<Gate>) -> LiveServer {
        let address = first_address(&server.address);
        let now = SystemTime::now();
        LiveServer {
            id,
            name: Arc::clone(&server.name),
            pool_name: Arc::clone(&pool.name),
            seed: balance::hash_bytes(identity.as_bytes()),
            identity,
            hot: Arc::default(),
            in_use: OwnLine::default(),
            gate,
            limit: AtomicU32::new(NO_LIMIT),
            most_in_use: AtomicU32::new(NO_LIMIT),
            weight: AtomicU32::new(server.weight),
            backup: AtomicBool::new(server.backup),
            up: AtomicBool::new(address.is_ok()),
            drained: AtomicBool::new(false),
            way: AtomicU32::new(0),
            cuts: AtomicU32::new(0),
            conduct: Conduct::default(),
            media: Load::default(),
            slow: Mutex::new(Slow {
                configured: server.address.clone(),
                address,
                address_since: now,
                standing: Standing { health: Health::Up, why: NOT_CHECKED.to_owned(), since: now },
                checked: false,
                last_probe: None,
                starts_down: false,
                advice: Advice::default(),
                bench: Bench::default(),
                rise: None,
                slow_start: None,
                changes: Changes::default(),
                drained_since: now,
                manner: None,
                pool: Weak::new(),
            }),
        }
    }

    /// Takes over what the file says now. The caller rebuilds the pool's plan afterwards.
    pub(super) fn configure(&self, server: &Server, of: &Pool, manner: u32, pool: &Weak<LivePool>) {
        let checks = &of.checks;
        let checked = !checks.is_empty();
        self.limit.store(server.most.in_flight(of.protocol).unwrap_or(NO_LIMIT), Ordering::Relaxed);
        self.most_in_use.store(server.most.in_use(of.protocol).unwrap_or(NO_LIMIT), Ordering::Relaxed);
        self.media.configure(server.most.sessions, server.most.kilobits);
        self.weight.store(server.weight, Ordering::SeqCst);
        self.backup.store(server.backup, Ordering::Relaxed);
        let mut slow = self.slow();
        slow.pool = Weak::clone(pool);
        let elsewhere = slow.configured != server.address;
        let before = slow.manner.replace(manner);
        slow.slow_start = of.slow_start;
        if of.slow_start.is_none() {
            slow.rise = None;
        }
        if of.outlier.is_none() {
            slow.bench = Bench::default();
        }
        slow.starts_down = of.checks.iter().any(|check| check.start == Start::Down);
        if elsewhere || before.is_some_and(|before| before != manner) {
            self.way.fetch_add(1, Ordering::Relaxed);
        }
        if elsewhere {
            // Another machine: what was known was not about it.
            slow.configured = server.address.clone();
            slow.address = first_address(&server.address);
            slow.address_since = SystemTime::now();
            slow.changes.note("moved", format!("its address is {} now", server.address));
            (slow.bench, slow.rise) = (Bench::default(), None);
            self.conduct.forget();
            slow.forget();
        }
        if !checked && (slow.checked || slow.standing.why != NO_CHECK) {
            slow.forget_for(NO_CHECK);
        } else if checked && before.is_none() && !slow.checked {
            slow.forget();
        } else if checked && !slow.checked && slow.standing.health == Health::Up {
            // It serves already, and goes on until something is known.
            slow.standing.why = NOT_CHECKED.to_owned();
        }
        if !of.checks.iter().any(|check| matches!(check.probe, Probe::Agent { .. })) {
            slow.advice = Advice::default();
        }
        self.settle(&slow);
    }

    /// Dense over the process and never used for another server.
    pub fn id(&self) -> u32 {
        self.id
    }

    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub fn pool_name(&self) -> &Arc<str> {
        &self.pool_name
    }

    /// `pool/name`.
    pub fn identity(&self) -> &Arc<str> {
        &self.identity
    }

    /// A hash of the identity, the same in every run.
    pub(super) fn seed(&self) -> u64 {
        self.seed
    }

    /// As it is written in the file. Takes a lock.
    pub fn configured_address(&self) -> Address {
        self.slow().configured.clone()
    }

    /// Where it is now; `None` while its name does not resolve. Takes a lock: the request path has the
    /// address from its lease.
    pub fn address(&self) -> Option<SocketAddr> {
        self.slow().address.as_ref().ok().copied()
    }

    /// Requests in flight, over all cores.
    pub fn in_flight(&self) -> u32 {
        self.hot.0.in_flight.get()
    }

    /// RTSP sessions at it, and what they carry.
    pub fn media(&self) -> &Load {
        &self.media
    }

    /// Requests in flight at most.
    pub fn limit(&self) -> Option<u32> {
        Some(self.limit.load(Ordering::Relaxed)).filter(|&limit| limit != NO_LIMIT)
    }

    pub fn weight(&self) -> u32 {
        self.weight.load(Ordering::Relaxed)
    }

    /// How it is reached and spoken to now; `None` while it is drained, when no connection is kept for
    /// another request.
    pub fn way(&self) -> Option<Way> {
        (!self.is_drained()).then(|| self.way.load(Ordering::Relaxed))
    }

    /// As [`LiveServer::way`], for clients that stay with a drained server.
    pub(super) fn way_of_its_clients(&self) -> Way {
        self.way.load(Ordering::Relaxed)
    }

    /// Taken out of service by hand: it gets no new client.
    pub fn is_drained(&self) -> bool {
        self.drained.load(Ordering::Relaxed)
    }

    /// Since when it is drained, or is not any more. Takes a lock.
    pub fn drained_since(&self) -> SystemTime {
        self.slow().drained_since
    }

    /// The pool's plan is rebuilt when it changes. Returns whether it did.
    pub(super) fn set_drained(&self, drained: bool) -> bool {
        let mut slow = self.slow();
        if self.drained.swap(drained, Ordering::SeqCst) == drained {
            return false;
        }
        slow.drained_since = SystemTime::now();
        // One that begins drained was so before, in another process.
        if slow.manner.is_some() {
            slow.changes.note(if drained { "drained" } else { "ready" }, "by hand");
        }
        plan(slow);
        true
    }

    /// Used only while no other server of the pool is.
    pub fn is_backup(&self) -> bool {
        self.backup.load(Ordering::Relaxed)
    }

    /// Counts a request in, unless that would pass the limit.
    pub(super) fn enter(&self) -> bool {
        let limit = self.limit.load(Ordering::Relaxed);
        if limit == NO_LIMIT {
            self.hot.0.in_flight.add();
            return true;
        }
        self.hot.0.in_flight.enter(limit)
    }

    /// Counts a request out, of the pool too where it was counted `in_pool`, and calls whoever waits for its place.
    pub(super) fn leave(&self, in_pool: bool) {
        self.hot.0.in_flight.leave();
        if in_pool {
            self.gate.requests().leave();
        }
        self.call(in_pool);
    }

    /// Counts a connection in, unless that would pass the server's bound.
    pub(super) fn take_into_use(&self) -> bool {
        self.in_use.0.enter(self.most_in_use.load(Ordering::Relaxed))
    }

    pub(super) fn may_connect(&self) -> bool {
        self.in_use.0.get() < self.most_in_use.load(Ordering::Relaxed)
    }

    /// Counts it out again, of the pool too where it was counted `in_pool`.
    pub(super) fn give_back(&self, in_pool: bool) {
        self.in_use.0.leave();
        if in_pool {
            self.gate.connections().leave();
        }
        self.call(in_pool);
    }

    #[inline]
    fn call(&self, in_pool: bool) {
        if self.gate.is_waited_at() {
            self.gate.call(if in_pool { Cause::Pool(self.id) } else { self.place() });
        }
    }

    /// For whom a place here is. Where it is for more than it says by the time it is told, all are called after the change
    /// that makes it so, and see it: each side writes before it reads, as in `gate`.
    #[cold]
    fn place(&self) -> Cause {
        let takes_more = !self.drained.load(Ordering::SeqCst) && self.weight.load(Ordering::SeqCst) > 0;
        match if takes_more { None } else { self.slow().manner } {
            Some(manner) => Cause::Clients(self.id, manner),
            None => Cause::Server(self.id),
        }
    }

    /// An answer has begun, so long after its request was sent. For pools that choose by it.
    pub fn answered(&self, took: Duration) {
        self.hot.0.delay.add(took, millis());
    }

    /// What its schedulers compare, for their plans to read without the rest of it.
    pub(super) fn hot(&self) -> &Arc<OwnLine<Hot>> {
        &self.hot
    }

    /// The way into its pool.
    pub(super) fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// Whether requests may go there: checked good, or not checked, and its name resolves.
    pub fn health(&self) -> Health {
        if self.up.load(Ordering::Relaxed) { Health::Up } else { Health::Down }
    }

    /// Has the workers close what they have open to it: idle connections, and tunnels. Within a second or so.
    pub fn cut(&self) {
        // Connections made so far are of another way then, and serve nobody.
        self.way.fetch_add(1, Ordering::Relaxed);
        self.cuts.fetch_add(1, Ordering::Relaxed);
    }

    /// How often it was cut: another number than before says that it was meanwhile.
    pub fn cuts(&self) -> u32 {
        self.cuts.load(Ordering::Relaxed)
    }

    /// How it has answered lately.
    pub fn conduct(&self) -> &Conduct {
        &self.conduct
    }

    fn settle(&self, slow: &Slow) -> bool {
        let up = slow.address.is_ok() && slow.standing.health == Health::Up && !slow.bench.is_out();
        self.up.swap(up, Ordering::Relaxed) != up
    }

    fn settle_and_plan(&self, slow: MutexGuard<'_, Slow>) {
        if self.settle(&slow) {
            plan(slow);
        }
    }

    fn slow(&self) -> MutexGuard<'_, Slow> {
        self.slow.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Rebuilds the pool's plan, after letting go of the lock that planning takes.
fn plan(slow: MutexGuard<'_, Slow>) {
    let pool = slow.pool.upgrade();
    drop(slow);
    if let Some(pool) = pool {
        pool.plan_again();
    }
}

impl Slow {
    fn begin_to_rise(&mut self) {
        self.rise = self.slow_start.map(|whole| Rise::new(whole, Instant::now()));
    }

    /// Nothing is known any more; checks will tell.
    fn forget(&mut self) {
        self.forget_for(NOT_CHECKED);
        if self.starts_down {
            self.standing.health = Health::Down;
            self.standing.why = STARTS_DOWN.to_owned();
        }
    }

    fn forget_for(&mut self, why: &str) {
        self.checked = false;
        self.last_probe = None;
        self.standing = Standing { health: Health::Up, why: why.to_owned(), since: SystemTime::now() };
    }
}

/// Of a server that no check has found up yet, where it is down until then.
pub const STARTS_DOWN: &str = "starts down, and was not found up yet";
const NOT_CHECKED: &str = "not checked yet";
const NO_CHECK: &str = "no check";

fn first_address(address: &Address) -> Result<SocketAddr, String> {
    match address {
        Address::Ip(address) => Ok(*address),
        Address::Name { .. } => Err("name not looked up yet".to_owned()),
    }
}
