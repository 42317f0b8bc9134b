//! Runs the checks: one task for each check of each server, and one for each name.
//!
//! Belongs on the control thread's `current_thread` runtime. After an install in `state`, tasks whose
//! server, address and checks are as before go on undisturbed, the others end and new ones begin with what
//! was known.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tracing::{error, info, warn};

use super::machine::{Machine, Outcome, Panel, Verdict};
use super::pace::Pace;
use super::probe::{self, Sealed};
use super::resolve;
use crate::model::pool::{Address, Check};
use crate::state::{Farm, Health, LivePool, LiveServer, ProbeReport, Snapshot};
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
    sealed: Option<Sealed>,
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
        let machines = checks.iter().map(|check| Machine::new(check.rise, check.fall, known.as_ref())).collect();
        let panel = Arc::new(Mutex::new(Panel::new(machines, known.as_ref())));
        let named: Arc<str> = address.to_string().into();
        let sealed = sealed(server, pool);
        for (position, check) in checks.iter().enumerate() {
            tasks.spawn(repeat(Asking {
                server: Arc::clone(server),
                check: Arc::new(check.clone()),
                named: Arc::clone(&named),
                sealed: sealed.clone(),
                panel: Arc::clone(&panel),
                position,
            }));
        }
        Watched { server: Arc::clone(server), address, checks, sealed, _tasks: tasks }
    }

    /// Whether it does what has to be done for this server of this pool.
    fn fits(&self, server: &Arc<LiveServer>, pool: &LivePool) -> bool {
        let checks = &pool.config().checks;
        Arc::ptr_eq(&self.server, server)
            && self.address == server.configured_address()
            && match (&self.sealed, sealed(server, pool)) {
                (Some(old), Some(new)) => Arc::ptr_eq(&old.config, &new.config) && old.name == new.name,
                (old, new) => old.is_none() && new.is_none(),
            }
            && self.checks.len() == checks.len()
            && self.checks.iter().zip(checks).all(|(old, new)| same(old, new))
    }

    /// Whether a result of its last moment, after the install, spoke of another address or of checks that
    /// are gone.
    fn found_what_no_longer_counts(&self, server: &Arc<LiveServer>, pool: &LivePool) -> bool {
        server.verdict().is_some() && (pool.config().checks.is_empty() || self.address != server.configured_address())
    }
}

/// What the server has to prove to a check: what it has to prove to a request.
fn sealed(server: &LiveServer, pool: &LivePool) -> Option<Sealed> {
    let name = tls::server_name(pool.config().tls.as_ref()?, &server.configured_address())?;
    Some(Sealed { config: pool.tls()?.clone(), name })
}

/// Whether two checks ask the same, wherever they are written.
fn same(old: &Check, new: &Check) -> bool {
    *old == Check { place: old.place.clone(), ..new.clone() }
}

/// One check of one server.
struct Asking {
    server: Arc<LiveServer>,
    check: Arc<Check>,
    /// The server's address as it is written.
    named: Arc<str>,
    sealed: Option<Sealed>,
    /// Of all checks of the server.
    panel: Arc<Mutex<Panel>>,
    /// Of this check in the panel.
    position: usize,
}

/// Asks again and again, until it is dropped.
async fn repeat(asking: Asking) {
    let Asking { server, check, .. } = &asking;
    let mut pace = Pace::new();
    let mut next = Instant::now() + pace.first(check.interval);
    loop {
        sleep_until(next).await;
        let (began, at) = (Instant::now(), SystemTime::now());
        next = began + pace.around(check.interval, check.jitter);
        // Without an address there is nobody to ask, and the server is down for that reason already.
        let Some(address) = server.address() else { continue };
        let Some(outcome) = once(&asking, address).await else { continue };
        let report = ProbeReport { at, took: began.elapsed(), ok: outcome.ok, detail: outcome.detail.clone() };
        server.set_last_probe(report);
        asking.tell(&outcome);
    }
}

/// One probe, in a task of its own: were it to panic, that is logged, says nothing about the server, and
/// the next one comes in its time.
async fn once(asking: &Asking, address: SocketAddr) -> Option<Outcome> {
    let (check, named) = (Arc::clone(&asking.check), Arc::clone(&asking.named));
    let mut task = JoinSet::new();
    let sealed = asking.sealed.clone();
    task.spawn(async move { probe::probe(&check, address, &named, sealed.as_ref()).await });
    match task.join_next().await? {
        Ok(outcome) => outcome,
        Err(error) => {
            error!(server = %asking.server.identity(), %error, "a probe ended by a fault of Reeve");
            None
        }
    }
}

impl Asking {
    fn tell(&self, outcome: &Outcome) {
        let verdict =
            self.panel.lock().unwrap_or_else(PoisonError::into_inner).take(self.position, outcome, SystemTime::now());
        let Some(Verdict { health, why, at, changed }) = verdict else { return };
        self.server.set_health(health, why.as_str(), at);
        if changed {
            let (pool, server) = (self.server.pool_name(), self.server.name());
            match health {
                Health::Up => info!(%pool, %server, %why, "server up"),
                Health::Down => warn!(%pool, %server, %why, "server down"),
            }
        }
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
