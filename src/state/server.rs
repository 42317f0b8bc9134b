//! The live twin of a configured server: what survives a reload.
//!
//! Keyed by identity (`pool/name`), never by address. Writers: `farm` the configured parts, `health` the
//! verdict, the address of a name and the last probe, the pool's leases the requests in flight. A change
//! that matters to the choice rebuilds the plan of the pool the server is in.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use super::pool::LivePool;
use crate::balance;
use crate::model::pool::{Address, Server};

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

#[derive(Debug)]
pub struct LiveServer {
    id: u32,
    name: Arc<str>,
    pool_name: Arc<str>,
    identity: Arc<str>,
    seed: u64,
    in_flight: InFlight,
    /// `NO_LIMIT` where none is configured.
    limit: AtomicU32,
    weight: AtomicU32,
    backup: AtomicBool,
    up: AtomicBool,
    /// Taken out of service by hand, and kept so over reloads.
    drained: AtomicBool,
    way: AtomicU32,
    slow: Mutex<Slow>,
}

/// How a server is reached and spoken to: another one when its address, its protocol, what it has to prove
/// or what it is told first changes. Connections made in one way are of no use in another.
pub type Way = u32;

/// On a cache line of its own: every core writes it, while the rest is read only.
#[derive(Debug, Default)]
#[repr(align(64))]
struct InFlight(AtomicU32);

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
    /// Since when it is drained, or is not any more.
    drained_since: SystemTime,
    /// The pool's, when the way was last looked at.
    manner: Option<u32>,
    /// Whose plan to rebuild.
    pool: Weak<LivePool>,
}

impl LiveServer {
    /// A server as the file has it, in no pool yet.
    pub(super) fn new(id: u32, pool_name: &Arc<str>, identity: Arc<str>, server: &Server) -> LiveServer {
        let address = first_address(&server.address);
        let now = SystemTime::now();
        LiveServer {
            id,
            name: Arc::clone(&server.name),
            pool_name: Arc::clone(pool_name),
            seed: balance::hash_bytes(identity.as_bytes()),
            identity,
            in_flight: InFlight::default(),
            limit: AtomicU32::new(server.limit.unwrap_or(NO_LIMIT)),
            weight: AtomicU32::new(server.weight),
            backup: AtomicBool::new(server.backup),
            up: AtomicBool::new(address.is_ok()),
            drained: AtomicBool::new(false),
            way: AtomicU32::new(0),
            slow: Mutex::new(Slow {
                configured: server.address.clone(),
                address,
                address_since: now,
                standing: Standing { health: Health::Up, why: NOT_CHECKED.to_owned(), since: now },
                checked: false,
                last_probe: None,
                drained_since: now,
                manner: None,
                pool: Weak::new(),
            }),
        }
    }

    /// Takes over what the file says now. The caller rebuilds the pool's plan afterwards.
    pub(super) fn configure(&self, server: &Server, checked: bool, manner: u32, pool: &Weak<LivePool>) {
        self.limit.store(server.limit.unwrap_or(NO_LIMIT), Ordering::Relaxed);
        self.weight.store(server.weight, Ordering::Relaxed);
        self.backup.store(server.backup, Ordering::Relaxed);
        let mut slow = self.slow();
        slow.pool = Weak::clone(pool);
        let elsewhere = slow.configured != server.address;
        let before = slow.manner.replace(manner);
        if elsewhere || before.is_some_and(|before| before != manner) {
            self.way.fetch_add(1, Ordering::Relaxed);
        }
        if elsewhere {
            // Another machine: what was known was not about it.
            slow.configured = server.address.clone();
            slow.address = first_address(&server.address);
            slow.address_since = SystemTime::now();
            slow.forget(NOT_CHECKED);
        }
        if !checked && (slow.checked || slow.standing.why != NO_CHECK) {
            slow.forget(NO_CHECK);
        } else if checked && !slow.checked {
            slow.standing.why = NOT_CHECKED.to_owned();
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
        self.in_flight.0.load(Ordering::Relaxed)
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
        if self.drained.swap(drained, Ordering::Relaxed) == drained {
            return false;
        }
        slow.drained_since = SystemTime::now();
        plan(slow);
        true
    }

    /// Used only while no other server of the pool is.
    pub fn is_backup(&self) -> bool {
        self.backup.load(Ordering::Relaxed)
    }

    pub(super) fn is_full(&self) -> bool {
        self.in_flight() >= self.limit.load(Ordering::Relaxed)
    }

    /// Counts a request in, unless that would pass the limit. Compared and added in one step, so that the
    /// limit is exact over all cores and a request refused never takes up a place.
    pub(super) fn enter(&self) -> bool {
        let limit = self.limit.load(Ordering::Relaxed);
        if limit == NO_LIMIT {
            self.in_flight.0.fetch_add(1, Ordering::Relaxed);
            return true;
        }
        let add = |count: u32| (count < limit).then(|| count + 1);
        self.in_flight.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok()
    }

    pub(super) fn leave(&self) {
        self.in_flight.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether requests may go there: checked good, or not checked, and its name resolves.
    pub fn health(&self) -> Health {
        if self.up.load(Ordering::Relaxed) { Health::Up } else { Health::Down }
    }

    /// Health, the reason and since when. Takes a lock.
    pub fn standing(&self) -> Standing {
        let slow = self.slow();
        match &slow.address {
            Ok(_) => slow.standing.clone(),
            Err(why) => Standing { health: Health::Down, why: why.clone(), since: slow.address_since },
        }
    }

    /// What the checks found last, whatever became of the address; `None` before their first result.
    pub fn verdict(&self) -> Option<Standing> {
        let slow = self.slow();
        slow.checked.then(|| slow.standing.clone())
    }

    /// The result of the checks. The pool's plan is rebuilt when it changes the health.
    pub fn set_health(&self, health: Health, why: impl Into<String>, at: SystemTime) {
        let mut slow = self.slow();
        if slow.standing.health != health {
            slow.standing.since = at;
        }
        slow.checked = true;
        slow.standing.health = health;
        slow.standing.why = why.into();
        self.settle_and_plan(slow);
    }

    /// What another process has found, for this same address: its verdict, and where the name led. The pool's plan
    /// is rebuilt.
    pub fn inherit(&self, verdict: Option<Standing>, address: Option<SocketAddr>) {
        let mut slow = self.slow();
        if let Some(address) = address.filter(|_| matches!(slow.configured, Address::Name { .. })) {
            slow.address = Ok(address);
        }
        let checked = slow.pool.upgrade().is_some_and(|pool| !pool.config().checks.is_empty());
        if let Some(verdict) = verdict.filter(|_| checked) {
            slow.standing = verdict;
            slow.checked = true;
        }
        self.settle(&slow);
        plan(slow);
    }

    /// Forgets what the checks found: up until the next result. For checks that are gone, or an address
    /// that changed.
    pub fn forget_health(&self) {
        let mut slow = self.slow();
        let checked = slow.pool.upgrade().is_some_and(|pool| !pool.config().checks.is_empty());
        slow.forget(if checked { NOT_CHECKED } else { NO_CHECK });
        self.settle_and_plan(slow);
    }

    /// What the name resolved to, or why it did not, in whole words. Ignored for a server whose address
    /// is written as one. The pool's plan is rebuilt when it changes.
    pub fn set_address(&self, address: Result<SocketAddr, String>) {
        let mut slow = self.slow();
        if matches!(slow.configured, Address::Ip(_)) || slow.address == address {
            return;
        }
        if slow.address.is_ok() != address.is_ok() {
            slow.address_since = SystemTime::now();
        }
        slow.address = address;
        self.settle(&slow);
        plan(slow);
    }

    /// The last probe; `None` before the first. Takes a lock.
    pub fn last_probe(&self) -> Option<ProbeReport> {
        self.slow().last_probe.clone()
    }

    pub fn set_last_probe(&self, report: ProbeReport) {
        self.slow().last_probe = Some(report);
    }

    fn settle(&self, slow: &Slow) -> bool {
        let up = slow.address.is_ok() && slow.standing.health == Health::Up;
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
    fn forget(&mut self, why: &str) {
        self.checked = false;
        self.last_probe = None;
        self.standing = Standing { health: Health::Up, why: why.to_owned(), since: SystemTime::now() };
    }
}

const NOT_CHECKED: &str = "not checked yet";
const NO_CHECK: &str = "no check";

fn first_address(address: &Address) -> Result<SocketAddr, String> {
    match address {
        Address::Ip(address) => Ok(*address),
        Address::Name { .. } => Err("name not looked up yet".to_owned()),
    }
}
