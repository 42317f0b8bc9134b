//! How a server is: what checks, an agent and its own answers say of it, and what another process has known.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::{Health, LiveServer, NO_CHECK, ProbeReport, Standing, plan};
use crate::model::pool::{Address, Outlier};
use crate::state::changes::{Change, Evidence};
use crate::state::ejected::{Bench, Past, Rise};

impl LiveServer {
    /// Health, the reason and since when. Takes a lock.
    pub fn standing(&self) -> Standing {
        let slow = self.slow();
        match &slow.address {
            Ok(_) => match slow.bench.why() {
                Some((why, since)) if slow.standing.health == Health::Up => {
                    Standing { health: Health::Down, why: why.to_owned(), since }
                }
                _ => slow.standing.clone(),
            },
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
        self.judge(health, why.into(), at, Evidence::default);
    }

    /// As [`LiveServer::set_health`]; where that is a change, `evidence` is asked for what has led to it.
    pub fn judge(&self, health: Health, why: String, at: SystemTime, evidence: impl FnOnce() -> Evidence) {
        let mut slow = self.slow();
        if slow.standing.health != health {
            slow.standing.since = at;
        }
        if !slow.checked || slow.standing.health != health {
            let (what, why) = (health.word().to_owned(), why.clone());
            slow.changes.add(Change { at, what, why, evidence: evidence() });
        }
        if slow.checked && slow.standing.health == Health::Down && health == Health::Up {
            slow.begin_to_rise();
            // What failed before it went down is no reason to eject it now.
            self.conduct.forget();
        }
        slow.checked = true;
        slow.standing.health = health;
        slow.standing.why = why;
        self.settle_and_plan(slow);
    }

    /// What it says of itself. The pool's plan is rebuilt when that is something new. Returns whether it is.
    pub fn advise(&self, share: Option<u32>, drain: Option<bool>, reason: &str) -> bool {
        let mut slow = self.slow();
        let before = &slow.advice;
        let advice = Advice {
            share: share.unwrap_or(before.share),
            drain: drain.unwrap_or(before.drain),
            reason: reason.to_owned(),
        };
        if (advice.share, advice.drain) == (before.share, before.drain) {
            return false;
        }
        slow.changes.note("advice", advice.words());
        slow.advice = advice;
        plan(slow);
        true
    }

    /// How much of its weight it has now, in percent: what its agent wants, and less while it has come up lately. Takes a
    /// lock.
    pub fn portion(&self) -> u32 {
        let slow = self.slow();
        let share = if slow.advice.drain { 0 } else { slow.advice.share };
        match slow.rise {
            Some(rise) if share > 0 => (share * rise.portion(Instant::now()) / 100).max(1),
            _ => share,
        }
    }

    /// It is out for a while because of how it answered. Takes a lock.
    pub fn is_ejected(&self) -> bool {
        self.slow().bench.is_out()
    }

    /// Takes it out for a while: for how long. The caller has the pool's plan made anew.
    pub fn eject(&self, why: &str, outlier: &Outlier, now: Instant) -> Duration {
        let mut slow = self.slow();
        let time = slow.bench.eject(why, outlier, now);
        let why = slow.bench.why().map(|(why, _)| why.to_owned()).unwrap_or_default();
        slow.changes.note("ejected", why);
        self.settle(&slow);
        time
    }

    /// Brings it back when its time is over, with nothing held against it. Whether it was; the caller then has the
    /// pool's plan made anew.
    pub fn release(&self, now: Instant) -> bool {
        let mut slow = self.slow();
        let released = slow.bench.release(now);
        if released {
            self.conduct.forget();
            slow.begin_to_rise();
            slow.changes.note("returned", "its time out is over");
            self.settle(&slow);
        }
        released
    }

    /// How it was ejected lately, and how far its share has grown again, for another process. Takes a lock.
    pub fn past(&self, now: Instant) -> Past {
        let slow = self.slow();
        Past { risen: slow.rise.map(|rise| rise.age(now)), ..slow.bench.past(now) }
    }

    /// What another process has seen of that, for this same address; it is not out where all others are. The pool's plan is
    /// rebuilt.
    pub fn inherit_past(&self, mut past: Past, now: Instant) {
        let pool = self.slow().pool.upgrade();
        let mut others = pool.iter().flat_map(|pool| pool.servers()).filter(|other| other.id() != self.id());
        if past.out.is_some() && others.all(|other| other.is_ejected()) {
            past.out = None;
        }
        let mut slow = self.slow();
        slow.rise = past.risen.zip(slow.slow_start).and_then(|(ago, whole)| Rise::since(ago, whole, now));
        if let Some(pool) = slow.pool.upgrade()
            && let Some(outlier) = &pool.config().outlier
        {
            slow.bench = Bench::of(past, outlier, now);
        }
        self.settle(&slow);
        plan(slow);
    }

    /// Whether its share is still growing, or has just become whole: the pool's plan is then to be made anew.
    pub fn rises(&self, now: Instant) -> bool {
        let mut slow = self.slow();
        let Some(rise) = slow.rise else { return false };
        if rise.portion(now) >= 100 {
            slow.rise = None;
        }
        true
    }

    /// What it says of itself, by an agent. Takes a lock.
    pub fn advice(&self) -> Advice {
        self.slow().advice.clone()
    }

    /// The last changes, the newest last. Takes a lock.
    pub fn changes(&self) -> Vec<Arc<Change>> {
        self.slow().changes.list()
    }

    /// What another process has seen of it before.
    pub fn inherit_changes(&self, before: Vec<Change>) {
        self.slow().changes.inherit(before);
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
        if checked {
            slow.forget()
        } else {
            slow.forget_for(NO_CHECK)
        }
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
        match &address {
            Ok(address) => slow.changes.note("moved", format!("its name leads to {address}")),
            Err(why) => slow.changes.note("down", why.clone()),
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
}

/// What a server says of itself, by an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advice {
    /// The share of its weight that it wants, in percent.
    pub share: u32,
    /// It wants no new requests.
    pub drain: bool,
    /// Its own words.
    pub reason: String,
}

impl Default for Advice {
    fn default() -> Advice {
        Advice { share: 100, drain: false, reason: String::new() }
    }
}

impl Advice {
    /// What it comes to, in words.
    pub fn words(&self) -> String {
        let what = match (self.drain, self.share) {
            (true, _) | (false, 0) => "its agent wants no new requests".to_owned(),
            (false, share) => format!("its agent wants {share}% of its weight"),
        };
        if self.reason.is_empty() { what } else { format!("{what}: {}", self.reason) }
    }
}
