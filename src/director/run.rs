//! The director's loop, on a thread of its own: what is wanted is written, commands are carried out, flows are swept.
//!
//! ```text
//!            no [director]                     another process has it, or a fault
//!    Off <------------------- configuration ----------------------> Closed ----.
//!                                  |                                  ^  |     | now and then, and when
//!                                  v                                  |  v     | the configuration changes
//!                                  On  --- the tables cannot be read --'  <----'
//! ```
//!
//! What it finds in the tables it takes for its own: a restart writes only differences. When it ends, the tables and the
//! programs stay, and packets go on; but for explicit flows, which live as long as the process.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use super::estimator;
use super::kernel::{Closed, Kernel, take_left_flows};
use super::on::On;
use super::own::Own;
use crate::model::director::{Director, FlowTimeouts};
use crate::state::Farm;
use crate::state::director::{Command, NotPut, Refusal, Unavailable};
use crate::sys::bpf::{self, Fault};
use crate::sys::files;

/// What the loop is started with.
pub struct Start {
    pub farm: Arc<Farm>,
    /// Where services are kept that were added at run time; made when there are some.
    pub folder: PathBuf,
    pub commands: mpsc::Receiver<Command>,
    pub stop: watch::Receiver<bool>,
}

/// The file of services that were added at run time.
const FILE: &str = "director.json";

/// How long a process that is about to end may take to let go, before commands are told so.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between two looks whether it has.
const KNOCK: Duration = Duration::from_millis(10);
/// Between two tries after a fault that may pass, such as an interface that is not there yet.
const AGAIN: Duration = Duration::from_secs(5);
/// Between two sweeps at least; a sweep that takes long waits twenty times as long, so that it has a twentieth of a core.
const SWEEP: Duration = Duration::from_secs(1);

enum Work {
    Off,
    Closed { pin: PathBuf, why: String, busy: bool, since: Instant, again: Option<Instant>, said: bool },
    On(Box<On>),
}

/// Runs until `stop` says so.
pub async fn run(start: Start) {
    let Start { farm, folder, mut commands, mut stop } = start;
    let mut changes = farm.changes();
    let mut own = read(&folder);
    if let Some(timeouts) = own.timeouts {
        let FlowTimeouts { tcp, tcpfin, udp } = timeouts;
        tracing::info!(
            tcp,
            tcpfin,
            udp,
            "director: timeouts of `ipvsadm --set` go before the configuration's (0: not set)"
        );
    }
    let mut work = Work::Off;
    let (mut look, mut sweep) = (Instant::now(), Instant::now());
    let mut fresh = true;
    loop {
        if fresh {
            work = configured(work, &farm, &mut own, &folder);
        }
        fresh = false;
        if let Work::Closed { busy: true, since, said, why, .. } = &mut work
            && since.elapsed() > PATIENCE
            && !*said
        {
            *said = true;
            tracing::warn!("director: {why}");
        }
        let waits = matches!(&work, Work::Closed { busy: true, said: false, .. });
        let next = match &work {
            Work::Off => None,
            Work::Closed { again, .. } => *again,
            Work::On(on) => Some(look.min(sweep).min(on.again().unwrap_or(look))),
        };
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            changed = changes.changed() => {
                if changed.is_err() {
                    break;
                }
                fresh = true;
            }
            command = commands.recv(), if !waits => {
                let Some(command) = command else { break };
                obey(command, &mut work, &mut own, &farm, &folder);
            }
            () = farm.planned().notified() => {
                if let Work::On(on) = &mut work {
                    on.update(&farm, &own);
                }
            }
            () = until(next) => match &mut work {
                Work::Off => {}
                Work::Closed { .. } => fresh = true,
                Work::On(on) => {
                    let now = Instant::now();
                    if on.again().is_some_and(|again| again <= now) {
                        on.try_again(&farm, &own);
                    }
                    if look <= now {
                        look = now + estimator::EVERY;
                        on.look();
                    }
                    if sweep <= now {
                        on.sweep();
                        sweep = Instant::now() + SWEEP.max(now.elapsed() * 20);
                    }
                }
            }
        }
        if let Work::On(on) = &mut work
            && let Some(why) = on.broken()
        {
            tracing::error!("director: {why}; its tables are read anew");
            // Until then nobody looks after what streams have put in: they carry on themselves.
            on.leave();
            work = Work::Closed {
                pin: on.director().pin.clone(),
                why,
                busy: false,
                since: Instant::now(),
                again: Some(Instant::now() + SWEEP),
                said: true,
            };
        }
    }
    if let Work::On(on) = &mut work {
        on.leave();
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// What the configuration in force asks for.
fn configured(work: Work, farm: &Farm, own: &mut Own, folder: &Path) -> Work {
    let snapshot = farm.snapshot();
    let Some(director) = &snapshot.config.director else {
        match work {
            Work::Off => left_behind(Path::new(Director::PIN)),
            Work::Closed { pin, .. } => left_behind(&pin),
            Work::On(on) => {
                let pins = on.director().pin.clone();
                match on.close() {
                    Ok(()) => tracing::info!(pins = %pins.display(), "director: off, nothing is forwarded any more"),
                    Err(fault) => tracing::warn!("director: it could not be taken off: {fault}"),
                }
            }
        }
        return Work::Off;
    };
    match work {
        Work::On(mut on) => {
            on.configure(director, farm, own);
            Work::On(on)
        }
        Work::Off => open(director, farm, own, folder, Instant::now(), None),
        Work::Closed { why, since, said, busy, .. } => {
            open(director, farm, own, folder, if busy { since } else { Instant::now() }, said.then_some(why))
        }
    }
}

/// Says that an earlier process's programs go on, which nobody looks after. They may be those of another one that only restarts
/// now: they are left where they are. Its flows of media are nobody's any more, and would take packets of new sessions.
fn left_behind(pin: &Path) {
    match take_left_flows(pin) {
        Ok(0) => {}
        // Another process looks after all of it.
        Err(Closed::Busy) => return,
        Ok(flows) => {
            tracing::info!(flows, "director: media flows that an earlier process has left are taken out");
        }
        Err(Closed::Fault(fault)) => tracing::warn!(
            "director: media flows that an earlier process has left cannot be taken out, and may take packets of new sessions: {fault}; \
             take everything off with `rm -r {}` (before Linux 6.6 see docs/director.md)",
            pin.display()
        ),
    }
    let interfaces = bpf::attached(pin);
    if !interfaces.is_empty() {
        tracing::warn!(
            ?interfaces,
            "director: there is no [director] here, but programs of an earlier process go on forwarding, and nobody looks after their \
             servers: write [director] again, or take them off with `rm -r {}` (before Linux 6.6 see docs/director.md)",
            pin.display()
        );
    }
}

/// `told`: what has been said already of why it does not work.
fn open(director: &Director, farm: &Farm, own: &mut Own, folder: &Path, since: Instant, told: Option<String>) -> Work {
    let pin = director.pin.clone();
    let opened = Kernel::open(director).and_then(|kernel| {
        On::new(kernel, director).map_err(|error| {
            Closed::Fault(Fault::Call { what: format!("the tables below {}", director.pin.display()), error })
        })
    });
    match opened {
        Ok(mut on) => {
            farm.media().director_opens();
            if own.damaged {
                *own = on.added();
                tracing::warn!(
                    services = own.services.len(),
                    "director: services added at run time are taken from the tables"
                );
                keep(folder, own);
            }
            on.shadowed(own);
            on.update(farm, own);
            on.attach();
            Work::On(Box::new(on))
        }
        Err(Closed::Busy) => {
            let why = format!("another process has the director at {}; it goes on there", director.pin.display());
            let wait = if since.elapsed() > PATIENCE { SWEEP } else { KNOCK };
            let said = told.as_deref() == Some(why.as_str());
            Work::Closed { pin, why, busy: true, since, again: Some(Instant::now() + wait), said }
        }
        Err(Closed::Fault(fault)) => {
            let passes = !matches!(
                fault,
                Fault::NotAllowed { .. } | Fault::Folder { .. } | Fault::Kernel { .. } | Fault::Load { .. }
            );
            let why = fault.to_string();
            if told.as_deref() != Some(why.as_str()) {
                tracing::error!("director: layer 4 is not served: {why}");
            }
            let again = passes.then(|| Instant::now() + AGAIN);
            Work::Closed { pin, why, busy: false, since, again, said: true }
        }
    }
}

fn obey(command: Command, work: &mut Work, own: &mut Own, farm: &Farm, folder: &Path) {
    let closed = match work {
        Work::On(_) | Work::Off => Unavailable::Off,
        Work::Closed { why, .. } => Unavailable::Fault(why.clone()),
    };
    let Work::On(on) = work else {
        // Whoever asked may have given up.
        match command {
            Command::Change { changes, reply } => {
                let _ = reply.send(changes.iter().map(|_| Err(Refusal::NoDirector(closed.to_string()))).collect());
            }
            Command::Table { reply } => drop(reply.send(Err(closed))),
            Command::Flows { reply, .. } => drop(reply.send(Err(closed))),
            Command::Put { reply, .. } => drop(reply.send(Err(NotPut::Nobody(closed.to_string())))),
            Command::Take { reply, .. } => drop(reply.send(Err(closed.to_string()))),
        }
        return;
    };
    match command {
        Command::Change { changes, reply } => {
            let before = own.clone();
            let results = on.change(&changes, own, farm);
            if *own != before {
                keep(folder, own);
            }
            let _ = reply.send(results);
        }
        Command::Table { reply } => drop(reply.send(on.table(own))),
        Command::Flows { limit, reply } => drop(reply.send(on.flows(limit, own))),
        // Whoever asked has gone while it waited, and would not take it out.
        Command::Put { reply, .. } if reply.is_closed() => {}
        Command::Put { flow, tally, reply } => drop(reply.send(on.put(&flow, tally, farm, own))),
        Command::Take { of, reply } => drop(reply.send(on.take(&of))),
    }
}

/// What was added at run time before; a file that is damaged is told and put aside.
fn read(folder: &Path) -> Own {
    let path = folder.join(FILE);
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Own::default(),
        Err(error) => {
            tracing::warn!(file = %path.display(), %error, "director: services added at run time cannot be read");
            return Own::default();
        }
    };
    serde_json::from_slice(&text).unwrap_or_else(|error| {
        let aside = folder.join(format!("{FILE}.damaged"));
        let moved = std::fs::rename(&path, &aside).map_or_else(|error| error.to_string(), |()| aside.display().to_string());
        tracing::error!(file = %path.display(), %error, moved, "director: the file of services added at run time is damaged: it is put aside");
        Own { damaged: true, ..Own::default() }
    })
}

fn keep(folder: &Path, own: &Own) {
    if let Err(error) = write(folder, own) {
        tracing::warn!(folder = %folder.display(), %error, "director: services added at run time cannot be kept: a restart forgets them");
    }
}

fn write(folder: &Path, own: &Own) -> std::io::Result<()> {
    if !folder.is_dir() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let text = serde_json::to_vec_pretty(own)?;
    files::replace(&folder.join(FILE), |file| std::io::Write::write_all(file, &text))
}
