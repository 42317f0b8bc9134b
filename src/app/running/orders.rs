//! Carries out orders, one after another: reloads, and what is taken out of service.
//!
//! Texts are read and compiled on a thread that gives way to others. Whoever asks for a reload while one is
//! under way gets the next one, in which all who wait have part: it begins after they asked, so that it sees what they
//! changed.

use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};

use super::changes::need_a_restart;
use super::{Ready, Running, entries};
use crate::app::check;
use crate::app::explain;
use crate::app::reload;
use crate::app::upgrade::{self, Replaced};
use crate::config::entries::Edit;
use crate::config::fault;
use crate::state::orders::{EntriesFault, Order, Reloaded, Texts};
use crate::sys::{self, notify};

/// Regexes of one rule set that are compiled without being asked for: a few KiB each.
pub const REGEXES_COMPILED: usize = 100_000;

/// How often snapshots that were replaced are looked at, whether somebody still has them.
const SWEEP: Duration = Duration::from_secs(1);

const STOPPING: &str = "the process is about to end: nothing is changed any more";
const REPLACED: &str = "another process has just taken over: ask again";

/// Carries orders out until `stop` says so or another process has taken over, and gives the process's pieces back. An
/// order that is under way is finished, but for texts that are still being compiled.
pub async fn obey(
    mut running: Running,
    mut orders: mpsc::Receiver<Order>,
    mut stop: watch::Receiver<bool>,
) -> (Running, Option<Replaced>) {
    let mut replaced = None;
    while replaced.is_none() {
        let order = tokio::select! {
            biased;
            () = stopped(&mut stop) => break,
            order = orders.recv() => order,
            () = tokio::time::sleep(SWEEP), if running.farm.retired() > 0 => {
                sweep(&running).await;
                continue;
            }
        };
        // What came meanwhile is taken along: reloads are one, and come last.
        let mut next = order;
        if next.is_none() {
            break;
        }
        let mut reloads = Reloads::default();
        let mut upgrades = Vec::new();
        while let Some(order) = next {
            match order {
                Order::Reload { what, reply } => reloads.add(what, reply),
                Order::Upgrade { binary, within, reply } => upgrades.push((binary, within, reply)),
                Order::Service { drain, name, reply } => {
                    // Whoever asked may have given up.
                    let _ = reply.send(running.set_service(drain, &name).await);
                }
                Order::Lists { name, reply } => {
                    let _ = reply.send(entries::in_force(&running.config(), name.as_deref()));
                }
                Order::Entries { name, add, remove, reply } => {
                    let _ = reply.send(running.edit_entries(&name, Edit { add, remove }, &mut stop).await);
                }
                Order::Explain { question, reply } => {
                    let snapshot = running.farm.snapshot();
                    // Of a hundred thousand rules it takes a while, and nothing waits for it.
                    tokio::task::spawn_blocking(move || reply.send(explain::live(&question, &snapshot)));
                }
            }
            next = orders.try_recv().ok();
        }
        if let Some(what) = reloads.what {
            notify::tell(&["RELOADING=1", &notify::monotonic()]);
            let reloaded = running.reload(what, &mut stop).await;
            notify::tell(&["READY=1"]);
            for reply in reloads.replies {
                let _ = reply.send(reloaded.clone());
            }
            // Those who reload again and again must not pile them up.
            sweep(&running).await;
        }
        for (binary, within, reply) in upgrades {
            let upgraded = if replaced.is_some() {
                upgrade::refused(&running, REPLACED.to_owned())
            } else {
                notify::tell(&["RELOADING=1", &notify::monotonic()]);
                let (upgraded, by) = upgrade::upgrade(&mut running, binary, within, &mut stop).await;
                replaced = by;
                if replaced.is_none() {
                    notify::tell(&["READY=1"]);
                }
                upgraded
            };
            let _ = reply.send(upgraded);
        }
    }
    let why = if replaced.is_some() { REPLACED } else { STOPPING };
    // Nobody waits for an answer that never comes.
    orders.close();
    while let Ok(order) = orders.try_recv() {
        match order {
            Order::Reload { reply, .. } => {
                let _ = reply.send(running.refused(Instant::now(), why.to_owned()));
            }
            Order::Service { reply, .. } => {
                let _ = reply.send(Err(why.to_owned()));
            }
            Order::Explain { reply, .. } => {
                let _ = reply.send(Err(why.to_owned()));
            }
            Order::Lists { reply, .. } => {
                let _ = reply.send(Err(why.to_owned()));
            }
            Order::Entries { reply, .. } => {
                let _ = reply.send(Err(EntriesFault::Refused(why.to_owned())));
            }
            Order::Upgrade { reply, .. } => {
                let _ = reply.send(upgrade::refused(&running, why.to_owned()));
            }
        }
    }
    (running, replaced)
}

/// Frees snapshots that nobody has any more: of ten thousand rules that takes a while.
async fn sweep(running: &Running) {
    let farm = running.farm.clone();
    let _ = tokio::task::spawn_blocking(move || farm.sweep()).await;
}

/// Waits until `stop` says so.
pub async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that nobody is left who could say it.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Writes into the log what came of a reload that nobody waits for at a terminal.
pub fn tell(reloaded: &Reloaded, what: &str) {
    let Reloaded { generation, seconds, .. } = reloaded;
    let took = format!("{seconds:.3} s");
    if reloaded.done {
        tracing::info!(generation, took, "{what} reloaded: {}", reload::in_a_line(&reloaded.changes));
        for restart in &reloaded.restart {
            tracing::warn!("{restart}");
        }
    } else {
        let error = reloaded.error.iter().map(String::as_str);
        for line in reloaded.faults_text.lines().chain(error) {
            tracing::warn!("{line}");
        }
        tracing::warn!(generation, took, "{what} not reloaded: what was in force still is");
    }
}

/// Texts as they come from the thread that compiles.
struct Compiled {
    faults: serde_json::Value,
    faults_text: String,
    /// Only where no fault is an error.
    ready: Option<Ready>,
}

/// Reloads that were asked for at once.
#[derive(Default)]
struct Reloads {
    what: Option<Texts>,
    replies: Vec<oneshot::Sender<Reloaded>>,
}

impl Reloads {
    fn add(&mut self, what: Texts, reply: oneshot::Sender<Reloaded>) {
        // Whoever wants all gets all; the lists are part of it.
        self.what = if self.what == Some(Texts::All) { self.what } else { Some(what) };
        self.replies.push(reply);
    }
}

impl Running {
    pub(super) async fn reload(&mut self, what: Texts, stop: &mut watch::Receiver<bool>) -> Reloaded {
        let began = Instant::now();
        let prepared = tokio::select! {
            prepared = self.prepare(what) => prepared,
            // The thread ends by itself; what it made is dropped.
            () = stopped(stop) => return self.refused(began, STOPPING.to_owned()),
        };
        let prepared = match prepared {
            Ok(prepared) => prepared,
            Err(error) => return self.refused(began, error),
        };
        let Compiled { faults, faults_text, ready } = prepared;
        let applied = match ready {
            Some(ready) => {
                let restart = need_a_restart(&self.started_with, &ready.config);
                self.apply(ready).await.map(|changes| (changes, restart))
            }
            None => {
                let refused = self.refused(began, String::new());
                return Reloaded { faults, faults_text, error: None, ..refused };
            }
        };
        match applied {
            Ok((changes, restart)) => Reloaded {
                done: true,
                generation: self.farm.snapshot().generation,
                seconds: began.elapsed().as_secs_f64(),
                changes,
                restart,
                faults,
                faults_text,
                error: None,
            },
            Err(error) => Reloaded { faults, faults_text, ..self.refused(began, error.to_string()) },
        }
    }

    /// What is in force stays so.
    fn refused(&self, began: Instant, error: String) -> Reloaded {
        self.tallies.reload_refused();
        Reloaded {
            generation: self.farm.snapshot().generation,
            seconds: began.elapsed().as_secs_f64(),
            faults: serde_json::json!([]),
            error: Some(error),
            ..Reloaded::default()
        }
    }

    /// Reads and compiles, off every path.
    async fn prepare(&self, what: Texts) -> Result<Compiled, String> {
        let (request, sources, force) = (self.request.clone(), self.sources.clone(), self.force.borrow().clone());
        let (done, prepared) = oneshot::channel();
        let compile = move || {
            sys::process::give_way();
            let (config, loaded) = &*force;
            let prepared = match what {
                Texts::All => check::prepare_again(&request, Some((config, loaded))),
                Texts::Lists => check::prepare_lists(&request, &sources, loaded),
            };
            // So that no request has to.
            prepared.tables.iter().for_each(|table| table.warm(REGEXES_COMPILED));
            let _ = done.send(Compiled {
                faults: serde_json::from_str(&fault::json(&prepared.load.faults)).unwrap_or_default(),
                faults_text: fault::text(&prepared.load.faults, &prepared.load.sources),
                ready: Ready::of(prepared, config),
            });
        };
        let thread = std::thread::Builder::new().name("reload".to_owned()).spawn(compile);
        thread.map_err(|error| format!("a thread cannot be started: {error}"))?;
        prepared.await.map_err(|_| "the texts could not be compiled by a fault of Reeve".to_owned())
    }
}
