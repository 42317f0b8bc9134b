//! Which servers of a pool may be chosen now, and the scheduler made for just these.
//!
//! A plan is made off the request path, when a server comes, goes or changes its weight. What a scheduler compares of
//! every server stands in one row, so that a choice among a hundred reads a hundred short lanes and their counts, and
//! nothing else of the servers.

use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::Arc;

use super::delay::millis;
use super::gate::OwnLine;
use super::lease::Lease;
use super::pool::NoServer;
use super::server::{Health, Hot, LiveServer, Way};
use crate::balance::{Balancer, Share, View};
use crate::model::pool::Scheduler;

#[derive(Debug)]
pub(super) struct Plan {
    pub primary: Tier,
    pub backup: Tier,
    /// Server by server: where those are that are up or used in panic, drained ones too.
    pub reachable: Vec<Option<(SocketAddr, Way)>>,
}

impl Default for Plan {
    fn default() -> Plan {
        let nobody = || Tier::new(&Scheduler::Rr, Vec::new(), None);
        Plan { primary: nobody(), backup: nobody(), reachable: Vec::new() }
    }
}

/// Servers that may be chosen, and the scheduler built for just these.
#[derive(Debug)]
pub(super) struct Tier {
    entries: Vec<Entry>,
    /// One for each entry.
    lanes: Box<[Lane]>,
    /// The greatest weight of them, and the least.
    heaviest: u32,
    lightest: u32,
    balancer: Balancer,
}

/// A server that takes new requests, when the plan was made.
#[derive(Debug)]
pub(super) struct Entry {
    server: Arc<LiveServer>,
    address: SocketAddr,
    way: Way,
    weight: u32,
    /// How much of its weight it has, in percent.
    portion: u32,
}

/// What is compared of a server.
#[derive(Debug)]
struct Lane {
    hot: Arc<OwnLine<Hot>>,
    /// Requests in flight at most.
    limit: u32,
    /// Share of the load; never 0.
    weight: u32,
    seed: u64,
    id: u32,
}

impl Entry {
    /// `None` for a server that takes no new request, or is not of this health.
    pub fn of(server: &Arc<LiveServer>, health: Option<Health>) -> Option<Entry> {
        let (address, weight) = (server.address()?, server.weight());
        let (way, portion) = (server.way()?, server.portion());
        let eligible = health.is_none_or(|health| server.health() == health) && weight > 0 && portion > 0;
        eligible.then(|| Entry { server: Arc::clone(server), address, way, weight, portion })
    }

    pub fn is_backup(&self) -> bool {
        self.server.is_backup()
    }
}

impl Tier {
    /// `before`: the former scheduler, whose memory goes on.
    pub fn new(scheduler: &Scheduler, mut entries: Vec<Entry>, before: Option<&Balancer>) -> Tier {
        let mut scheduler = scheduler;
        if entries.iter().any(|entry| entry.portion != WHOLE) {
            // Schedulers that know no weights have to, while some server is to get less than the others.
            let equal = matches!(scheduler, Scheduler::Rr | Scheduler::Lc);
            scheduler = match scheduler {
                Scheduler::Rr => &Scheduler::Wrr,
                Scheduler::Lc => &Scheduler::Wlc,
                other => other,
            };
            // To these a weight is a number of requests, and not only a share.
            let counts = matches!(
                scheduler,
                Scheduler::Ovf | Scheduler::Lblc { .. } | Scheduler::Lblcr { .. } | Scheduler::Content { .. }
            );
            for entry in &mut entries {
                let weight = if equal { 1 } else { entry.weight }.saturating_mul(entry.portion);
                entry.weight = if counts { weight.div_ceil(WHOLE) } else { weight };
            }
        }
        let shares: Vec<Share> =
            entries.iter().map(|entry| Share { weight: entry.weight, seed: entry.server.seed() }).collect();
        let lane = |entry: &Entry| Lane {
            hot: Arc::clone(entry.server.hot()),
            limit: entry.server.limit().unwrap_or(u32::MAX),
            weight: entry.weight,
            seed: entry.server.seed(),
            id: entry.server.id(),
        };
        let lanes = entries.iter().map(lane).collect();
        let weights = || shares.iter().map(|share| share.weight);
        let (heaviest, lightest) = (weights().max().unwrap_or(0), weights().min().unwrap_or(0));
        Tier { balancer: Balancer::new(scheduler, &shares, before), lanes, heaviest, lightest, entries }
    }

    pub fn balancer(&self) -> &Balancer {
        &self.balancer
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn pick(&self, ticket: u64, key: Option<u64>, tried: &[u32], barred: &[u32]) -> Result<Lease, NoServer> {
        // Another core may take a server's last place between choosing and entering. Then it shows full,
        // and the next choice is another one; the bound is for servers that empty and fill all the time.
        for _ in 0..=self.entries.len() {
            let Some(entry) = self.choose(ticket, key, tried, barred) else { break };
            if entry.server.enter() {
                return Ok(Lease::new(&entry.server, entry.address, entry.way, false));
            }
        }
        Err(if self.has_untried(tried) { NoServer::Full } else { NoServer::Down })
    }

    pub fn has_untried(&self, tried: &[u32]) -> bool {
        self.lanes.iter().any(|lane| !tried.contains(&lane.id))
    }

    /// As [`Tier::pick`], but nothing is counted.
    pub fn next(&self, ticket: u64, key: Option<u64>) -> Result<Arc<LiveServer>, NoServer> {
        let none = if self.has_untried(&[]) { NoServer::Full } else { NoServer::Down };
        self.choose(ticket, key, &[], &[]).map(|entry| Arc::clone(&entry.server)).ok_or(none)
    }

    #[inline]
    fn choose(&self, ticket: u64, key: Option<u64>, tried: &[u32], barred: &[u32]) -> Option<&Entry> {
        let candidates = Candidates {
            lanes: &self.lanes,
            heaviest: self.heaviest,
            lightest: self.lightest,
            tried,
            barred,
            all: tried.is_empty() && barred.is_empty(),
            now: Cell::new(0),
        };
        self.entries.get(self.balancer.pick(&candidates, ticket, key)?)
    }
}

/// A portion of a server that has all of its weight.
const WHOLE: u32 = 100;

/// A tier as the scheduler sees it for one request. All of it belongs into the schedulers' loops over the lanes: a call for
/// each of a hundred servers would cost more than what it does.
struct Candidates<'a> {
    lanes: &'a [Lane],
    heaviest: u32,
    lightest: u32,
    tried: &'a [u32],
    barred: &'a [u32],
    /// None is tried or barred.
    all: bool,
    /// In milliseconds, where a scheduler has asked for it.
    now: Cell<u64>,
}

impl Candidates<'_> {
    fn millis(&self) -> u64 {
        if self.now.get() == 0 {
            // One later does no harm, and is not 0.
            self.now.set(millis() + 1);
        }
        self.now.get()
    }

    #[cold]
    fn leaves_out(&self, id: u32) -> bool {
        self.tried.contains(&id) || self.barred.contains(&id)
    }
}

impl View for Candidates<'_> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.lanes.len()
    }
    #[inline(always)]
    fn weight(&self, server: usize) -> u32 {
        self.lanes[server].weight
    }
    #[inline(always)]
    fn heaviest(&self) -> u32 {
        self.heaviest
    }
    #[inline(always)]
    fn lightest(&self) -> u32 {
        self.lightest
    }
    #[inline(always)]
    fn load(&self, server: usize) -> u32 {
        self.lanes[server].hot.0.in_flight.get()
    }
    #[inline(always)]
    fn seed(&self, server: usize) -> u64 {
        self.lanes[server].seed
    }
    #[inline(always)]
    fn delay(&self, server: usize) -> u64 {
        self.lanes[server].hot.0.delay.get(self.millis())
    }
    fn now(&self) -> u32 {
        (self.millis() / 1000) as u32
    }
    #[inline(always)]
    fn open(&self, server: usize) -> bool {
        self.available(server).is_some()
    }
    #[inline(always)]
    fn available(&self, server: usize) -> Option<u32> {
        let lane = &self.lanes[server];
        let load = lane.hot.0.in_flight.get();
        (load < lane.limit && (self.all || !self.leaves_out(lane.id))).then_some(load)
    }
}
