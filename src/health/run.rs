//! Runs the checks: one task for each check of each server, and one for each name.
//!
//! Belongs on the control thread's `current_thread` runtime. After an install in `state`, tasks whose
//! server, address and checks are as before go on undisturbed, the others end and new ones begin with what
//! was known.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::SystemTime;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tracing::{error, info, warn};

use super::machine::{Machine, Outcome, Panel, Verdict};
use super::pace::{Pace, planned, together};
use super::probe::{self, Sealed, Target, Unable};
use super::resolve;
use crate::model::check::{Check, OnDown, Seal};
use crate::model::pool::Address;
use crate::net::Stream;
use crate::state::{Evidence, Farm, Health, LivePool, LiveServer, ProbeReport, Snapshot};
use crate::tls;

/// Watches over the farm's servers until `stop` is true or its sender is gone.
pub async fn run(farm: Arc<Farm>, mut stop: watch::Receiver<bool>) {
    let mut changes = farm.changes();
    let mut watched = HashMap::new();
    loop {
        changes.borrow_and_update();
        watched = adjust(watched, &farm.snapshot());
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

/// A server and the tasks that watch it. They end when this is dropped.
struct Watched {
    server: Arc<LiveServer>,
    address: Address,
    checks: Vec<Check>,
    /// Of each check.
    sealed: Vec<Option<Sealed>>,
    _tasks: JoinSet<()>,
}

/// What is watched by identity, after a snapshot was put in place.
fn adjust(mut before: HashMap<Arc<str>, Watched>, snapshot: &Snapshot) -> HashMap<Arc<str>, Watched> {
    let mut watched = HashMap::new();
    for pool in &snapshot.pools {
        for server in pool.servers() {
            let now = match before.remove(server.identity()) {
                Some(old) if old.fits(server, pool) => old,
                old => {
                    let stale = old.is_some_and(|old| old.found_what_no_longer_counts(server, pool));
                    if stale {
                        server.forget_health();
                    }
                    Watched::start(server, pool)
                }
            };
            watched.insert(Arc::clone(server.identity()), now);
        }
    }
    watched
}

impl Watched {
    fn start(server: &Arc<LiveServer>, pool: &LivePool) -> Watched {
        let (address, checks) = (server.configured_address(), pool.config().checks.clone());
        let mut tasks = JoinSet::new();
        if let Address::Name { host, port } = &address {
            tasks.spawn(resolve::keep(Arc::clone(server), Arc::clone(host), *port));
        }
        let known = server.verdict();
        let machines = checks.iter().map(|check| Machine::new(check, known.as_ref())).collect();
        let panel = Arc::new(Mutex::new(Panel::new(machines, known.as_ref())));
        let named: Arc<str> = address.to_string().into();
        let sealed: Vec<Option<Sealed>> = checks.iter().map(|check| sealed(server, pool, check)).collect();
        let closes = checks.iter().any(|check| check.on_down == OnDown::Close);
        for (position, (check, sealed)) in checks.iter().zip(&sealed).enumerate() {
            let target = Target {
                check: said(check, pool),
                pool: Arc::clone(pool.name()),
                server: Arc::clone(server.name()),
                named: Arc::clone(&named),
                sealed: sealed.clone(),
            };
            tasks.spawn(repeat(Asking {
                server: Arc::clone(server),
                target,
                panel: Arc::clone(&panel),
                position,
                closes,
            }));
        }
        Watched { server: Arc::clone(server), address, checks, sealed, _tasks: tasks }
    }

    /// Whether it does what has to be done for this server of this pool.
    fn fits(&self, server: &Arc<LiveServer>, pool: &LivePool) -> bool {
        let checks = &pool.config().checks;
        Arc::ptr_eq(&self.server, server)
            && self.address == server.configured_address()
            && self.checks.len() == checks.len()
            && self.checks.iter().zip(checks).all(|(old, new)| same(old, new))
            && self.sealed.iter().zip(checks).all(|(old, check)| match (old, sealed(server, pool, check)) {
                (Some(old), Some(new)) => Arc::ptr_eq(&old.config, &new.config) && old.name == new.name,
                (old, new) => old.is_none() && new.is_none(),
            })
    }

    /// Whether a result of its last moment, after the install, spoke of another address or of checks that
    /// are gone.
    fn found_what_no_longer_counts(&self, server: &Arc<LiveServer>, pool: &LivePool) -> bool {
        server.verdict().is_some() && (pool.config().checks.is_empty() || self.address != server.configured_address())
    }
}

/// A check that says itself how its server is spoken to.
fn said(check: &Check, pool: &LivePool) -> Check {
    let seal = match check.seal {
        Seal::AsPool if pool.config().tls.is_some() => Seal::Tls,
        Seal::AsPool => Seal::Clear,
        seal => seal,
    };
    Check { seal, ..check.clone() }
}

/// What the server has to prove to a check: what it has to prove to a request, where nothing else is said.
fn sealed(server: &LiveServer, pool: &LivePool, check: &Check) -> Option<Sealed> {
    let (own, tls) = (pool.config().tls.as_ref(), pool.tls());
    if said(check, pool).seal == Seal::Clear {
        return None;
    }
    let address = server.configured_address();
    let name = match (&check.server_name, own) {
        (Some(name), _) => tls::named(name),
        (None, Some(own)) => tls::server_name(own, &address),
        (None, None) => tls::host_name(&address),
    };
    let config = match (tls, check.verify) {
        (Some(tls), verify) if verify.is_none() || verify == own.map(|own| own.verify) => tls.clone(),
        (_, verify) => tls::by_system(verify.unwrap_or(true))?,
    };
    Some(Sealed { config, name: name? })
}

/// Whether two checks ask the same, wherever they are written.
fn same(old: &Check, new: &Check) -> bool {
    *old == Check { place: old.place.clone(), ..new.clone() }
}

/// One check of one server.
struct Asking {
    server: Arc<LiveServer>,
    target: Target,
    /// Of all checks of the server.
    panel: Arc<Mutex<Panel>>,
    /// Of this check in the panel.
    position: usize,
    /// Connections are closed when the server goes down.
    closes: bool,
}

/// Asks again and again, until it is dropped.
async fn repeat(asking: Asking) {
    let Asking { server, target, .. } = &asking;
    let check = &target.check;
    let mut pace = Pace::new();
    let mut next = Instant::now() + pace.first(check.interval);
    let mut kept: Option<Stream> = None;
    let mut last = None;
    let mut complained = false;
    let mut interval = check.interval;
    loop {
        sleep_until(together(next, interval)).await;
        let (began, at) = (Instant::now(), SystemTime::now());
        let from = planned(next, began);
        interval = check.fast_interval.filter(|_| asking.is_changing()).unwrap_or(check.interval);
        next = from + pace.around(interval, check.jitter);
        // Without an address there is nobody to ask, and the server is down for that reason already.
        let Some(address) = server.address() else { continue };
        if last.replace(address) != Some(address) {
            kept = None;
        }
        let outcome = match once(&asking, address, &mut kept).await {
            Some(Ok(outcome)) => outcome,
            Some(Err(Unable::Shortage(error))) => {
                tracing::debug!(%address, "no probe: {error}");
                continue;
            }
            Some(Err(Unable::Missing(what))) => {
                if !std::mem::replace(&mut complained, true) {
                    warn!(server = %server.identity(), check = check.probe.word(), "no probe: {what}");
                }
                server.set_last_probe(ProbeReport { at, took: began.elapsed(), ok: false, detail: what });
                continue;
            }
            None => continue,
        };
        let report = ProbeReport { at, took: began.elapsed(), ok: outcome.ok, detail: outcome.detail.clone() };
        server.set_last_probe(report);
        if asking.tell(&outcome) && check.fast_interval.is_some() {
            interval = check.fast_interval.unwrap_or(check.interval);
            next = next.min(from + pace.around(interval, check.jitter));
        }
    }
}

/// One probe. Were it to panic, that is logged, says nothing about the server, and the next one comes in its time.
async fn once(asking: &Asking, address: SocketAddr, kept: &mut Option<Stream>) -> Option<Result<Outcome, Unable>> {
    let mut probing = Box::pin(probe::probe(&asking.target, address, kept));
    let caught = poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| probing.as_mut().poll(cx))) {
        Ok(Poll::Ready(outcome)) => Poll::Ready(Some(outcome)),
        Ok(Poll::Pending) => Poll::Pending,
        Err(_) => Poll::Ready(None),
    });
    let outcome = caught.await;
    if outcome.is_none() {
        error!(server = %asking.server.identity(), "a probe ended by a fault of Reeve");
    }
    outcome
}

impl Asking {
    fn panel(&self) -> MutexGuard<'_, Panel> {
        self.panel.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_changing(&self) -> bool {
        self.panel().is_changing(self.position)
    }

    /// Takes a result; whether this check is on its way to another opinion.
    fn tell(&self, outcome: &Outcome) -> bool {
        let (pool, server) = (self.server.pool_name(), self.server.name());
        if let Some(advice) = &outcome.advice
            && self.server.advise(advice.share, advice.drain, &advice.reason)
        {
            info!(%pool, %server, "{}", self.server.advice().words());
        }
        let (verdict, changing) = {
            let mut panel = self.panel();
            let verdict = panel.take(self.position, outcome, SystemTime::now());
            (verdict, panel.is_changing(self.position))
        };
        let Some(Verdict { health, why, at, changed }) = verdict else { return changing };
        let (check, said) = (self.target.check.probe.word(), &outcome.said);
        let evidence = || Evidence { check: check.to_owned(), sent: said.sent.shown(), heard: said.heard.shown() };
        if changed {
            let (sent, heard) = (said.sent.shown(), said.heard.shown());
            match health {
                Health::Up => info!(%pool, %server, check, %why, "server up"),
                Health::Down => warn!(%pool, %server, check, %why, %sent, %heard, "server down"),
            }
        }
        // Before the plan is made that connections to come are counted by.
        if changed && health == Health::Down && self.closes {
            self.server.cut();
        }
        self.server.judge(health, why, at, evidence);
        changing
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::{config, http_check, until};
    use super::*;
    use crate::model::Place;

    #[tokio::test]
    async fn only_tasks_with_other_work_are_begun_anew() {
        let address = Address::Ip(SocketAddr::from(([127, 0, 0, 1], 9)));
        let check = |line, rise| Check {
            interval: Duration::from_secs(3600),
            rise,
            place: Place { line, ..Place::file("test") },
            ..http_check("/")
        };
        let with = |check| config(&[("s1", address.clone())], vec![check]);
        let farm = Farm::new(with(check(1, 2)), Vec::new());
        let mut watched = adjust(HashMap::new(), &farm.snapshot());
        let tasks = &mut watched.get_mut("web/s1").expect("watched")._tasks;
        let mark = tasks.spawn(std::future::pending());

        farm.install(with(check(7, 2)), Vec::new());
        let watched = adjust(watched, &farm.snapshot());
        tokio::task::yield_now().await;
        assert!(!mark.is_finished(), "the check only moved in its file");

        farm.install(with(check(7, 3)), Vec::new());
        let watched = adjust(watched, &farm.snapshot());
        until(|| mark.is_finished()).await;
        assert_eq!(watched.len(), 1);

        farm.install(Arc::default(), Vec::new());
        assert!(adjust(watched, &farm.snapshot()).is_empty());
    }
}
