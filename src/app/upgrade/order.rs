//! An upgrade on the old side: it starts the new process, hands everything over, and goes on as before if that
//! fails in any way.

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::timeout;

use super::child::{End, Started};
use super::link::Link;
use super::parcel::{Known, Parcel, Section, TalliesPart, millis};
use super::{FORMAT, SETTLE, STEP, ToNew, ToOld};
use crate::app::running::orders::stopped;
use crate::app::running::{Running, clients};
use crate::monitor;
use crate::state::counted::Counted;
use crate::state::generations::Old;
use crate::state::orders::Upgraded;
use crate::sys::notify;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// For the clients of a new process that does not take over: it is ended after that time, even where a drain has more.
const LAST_CLIENTS: Duration = Duration::from_secs(30);

/// The last step of the new process.
const IN_CHARGE: &str = "in charge";

/// Another process serves now.
#[derive(Debug)]
pub struct Replaced {
    pub link: Link,
    /// What it was told had been counted.
    pub counted: Counted,
}

/// Has another process take over. Without `Replaced` this one goes on.
pub async fn upgrade(
    running: &mut Running,
    binary: Option<PathBuf>,
    within: Duration,
    stop: &mut watch::Receiver<bool>,
) -> (Upgraded, Option<Replaced>) {
    let began = Instant::now();
    let mut upgraded =
        Upgraded { pid_before: std::process::id(), version_before: VERSION.to_owned(), ..Upgraded::default() };
    let result = steps(running, binary.as_deref(), within, stop, &mut upgraded).await;
    upgraded.seconds = began.elapsed().as_secs_f64();
    match result {
        Ok(replaced) => {
            running.give_up_listening().await;
            upgraded.done = true;
            let Upgraded { pid, version, version_before, seconds, .. } = &upgraded;
            tracing::info!(
                pid,
                version,
                version_before,
                took = format!("{seconds:.3} s"),
                "another process serves: this one finishes what it has"
            );
            (upgraded, Some(replaced))
        }
        Err(error) => {
            running.farm.generations().add_upgrades(0, 1);
            for line in error.lines() {
                tracing::warn!("{line}");
            }
            tracing::warn!(binary = upgraded.binary, "not upgraded: this process goes on");
            upgraded.error = Some(error);
            (upgraded, None)
        }
    }
}

/// An order that is not tried.
pub fn refused(running: &Running, error: String) -> Upgraded {
    running.farm.generations().add_upgrades(0, 1);
    Upgraded {
        pid_before: std::process::id(),
        version_before: VERSION.to_owned(),
        error: Some(error),
        ..Upgraded::default()
    }
}

/// Why it failed, and how the new process ends.
struct Failed {
    why: String,
    end: End,
}

impl Failed {
    fn late(what: &str, within: Duration) -> Failed {
        let why = format!("the new process was not {what} within {} s", within.as_secs_f64());
        Failed { why, end: End::Now }
    }

    fn said(message: &ToOld, what: &str) -> Failed {
        match message {
            ToOld::Refused { why } => Failed { why: format!("the new process refused: {why}"), end: End::ByItself },
            _ => Failed { why: format!("the new process said {message:?} where '{what}' was expected"), end: End::Now },
        }
    }

    fn broken(error: &io::Error, what: &str) -> Failed {
        use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
        match error.kind() {
            UnexpectedEof | ConnectionReset | BrokenPipe => {
                Failed { why: format!("the new process broke off before it was {what}"), end: End::ByItself }
            }
            _ => Failed {
                why: format!("the new process was not understood before it was {what}: {error}"),
                end: End::Now,
            },
        }
    }

    /// The new process may have accepted clients.
    fn with_clients(self, running: &Running) -> Failed {
        let within = running.farm.snapshot().config.timeouts.drain.min(LAST_CLIENTS);
        Failed { end: End::Finish { within }, ..self }
    }
}

impl From<String> for Failed {
    fn from(why: String) -> Failed {
        Failed { why, end: End::Now }
    }
}

async fn steps(
    running: &mut Running,
    binary: Option<&Path>,
    within: Duration,
    stop: &mut watch::Receiver<bool>,
    upgraded: &mut Upgraded,
) -> Result<Replaced, String> {
    let origin = running.origin.clone().ok_or("only `reeve run` can be upgraded")?;
    let program = binary.unwrap_or(origin.program());
    upgraded.binary = program.display().to_string();
    let cannot = |error: io::Error| format!("{} cannot be started: {error}", program.display());
    let (link, other) = Link::pair().map_err(cannot)?;
    let started = Started::start(&origin, binary, other).map_err(cannot)?;
    upgraded.pid = started.pid();
    let mut accepts = false;
    let since = clients::now();
    let prepared = tokio::select! {
        prepared = prepare(running, &link, within, upgraded, &mut accepts) => prepared,
        () = stopped(stop) => Err("this process is about to end".to_owned().into()),
    };
    let handed = match prepared {
        Ok(control) => commit(running, &link, control, started.pid(), since, within.min(STEP)).await,
        Err(failed) if accepts => Err(failed.with_clients(running)),
        Err(failed) => Err(failed),
    };
    match handed {
        Ok(counted) => {
            started.let_go();
            Ok(Replaced { link, counted })
        }
        Err(Failed { why, end }) => {
            // The link stays open until it has ended: else it would take the service for its own.
            let ended = tokio::task::spawn_blocking(move || started.end(end, link));
            let (how, said) = ended.await.unwrap_or_default();
            upgraded.said = said;
            Err(format!("{why}; process {} {how}", upgraded.pid))
        }
    }
}

/// As far as nothing is given up yet; whether the new process goes on with the control socket. From when it
/// `accepts` it may have clients.
async fn prepare(
    running: &Running,
    link: &Link,
    within: Duration,
    upgraded: &mut Upgraded,
    accepts: &mut bool,
) -> Result<bool, Failed> {
    let failed = |error: io::Error| format!("what is handed over cannot be gathered: {error}");
    let sections = parcel(running).await.map_err(failed)?;
    let ready = async {
        // It may refuse before it has read everything: what it says is worth more than that it does not read.
        let (sent, heard) = tokio::join!(send(link, sections), async {
            loop {
                match link.receive().await.map(|(message, _)| message) {
                    Ok(ToOld::Ready { control }) => return Ok(control),
                    Ok(ToOld::Hello { version }) => upgraded.version = version,
                    Ok(other) => return Err(Failed::said(&other, "ready")),
                    Err(error) => return Err(Failed::broken(&error, "ready")),
                }
            }
        });
        let control = heard?;
        sent.map(|()| control).map_err(|error| Failed::broken(&error, "ready"))
    };
    let control = timeout(within, ready).await.map_err(|_| Failed::late("ready", within))??;
    let within = within.min(STEP);
    *accepts = true;
    let go = timeout(within, link.send(&ToNew::Go, &[])).await.map_err(|_| Failed::late("serving", within))?;
    go.map_err(|error| Failed::broken(&error, "serving"))?;
    hear(link, "serving", within, |message| matches!(message, ToOld::Serving)).await?;
    hear(link, "settled", within + SETTLE, |message| matches!(message, ToOld::Settled)).await?;
    Ok(control)
}

async fn hear(link: &Link, what: &str, within: Duration, is: fn(&ToOld) -> bool) -> Result<(), Failed> {
    match timeout(within, link.receive()).await {
        Ok(Ok((message, _))) if is(&message) => Ok(()),
        Ok(Ok((other, _))) => Err(Failed::said(&other, what)),
        Ok(Err(error)) => Err(Failed::broken(&error, what)),
        Err(_) => Err(Failed::late(what, within)),
    }
}

async fn send(link: &Link, sections: Vec<Section>) -> io::Result<()> {
    let hello = ToNew::Hello { format: FORMAT, version: VERSION.to_owned(), pid: std::process::id() };
    link.send(&hello, &[]).await?;
    for Section { name, data, descriptors } in sections {
        let beside: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
        link.send(&ToNew::Section { name, data }, &beside).await?;
    }
    link.send(&ToNew::Whole, &[]).await
}

async fn parcel(running: &Running) -> io::Result<Vec<Section>> {
    let clients = running.clients.hand_on(0).await?;
    let farm = &running.farm;
    let (upgrades, upgrades_refused) = farm.generations().upgrades();
    let metrics = running.metrics.borrow().clone();
    let control = running.control.borrow().clone();
    let parcel = Parcel {
        listeners: running.listeners.hand_on()?,
        metrics: metrics
            .iter()
            .map(|(address, socket)| Ok((*address, socket.try_clone()?.into())))
            .collect::<io::Result<_>>()?,
        control: control
            .map(|control| io::Result::Ok((control.path().to_owned(), control.listener().try_clone()?.into())))
            .transpose()?,
        stderr: Some(io::stderr().as_fd().try_clone_to_owned()?),
        clients: Some(clients),
        known: Known {
            keys: running.force.borrow().1.ring.handed_on(),
            cookies: running.clients.keys(),
            tallies: TalliesPart { generation: farm.snapshot().generation, upgrades, upgrades_refused },
            ..Known::of(farm)
        },
    };
    Ok(parcel.sections()?)
}

/// Gives the service away; what had been counted. When the new process is gone at the last moment, or does not say
/// `within` that time that it has the service, all is as it was.
async fn commit(
    running: &Running,
    link: &Link,
    control: bool,
    pid: u32,
    since: u32,
    within: Duration,
) -> Result<Counted, Failed> {
    let doors = (running.control.send_replace(monitor::Control::None), running.metrics.send_replace(Vec::new()));
    let older = running.before.pause().await;
    // The supervisor hears it from the one it knows, and before that one may end.
    notify::tell(&[&format!("MAINPID={pid}")]);
    let handed = async {
        let given =
            timeout(STEP, give(running, link, &older, since)).await.map_err(|_| Failed::late(IN_CHARGE, STEP))?;
        let counted = given.map_err(|error| Failed::broken(&error, IN_CHARGE))?;
        hear(link, IN_CHARGE, within, |message| matches!(message, ToOld::Mine)).await?;
        Ok::<_, Failed>(counted)
    };
    match handed.await {
        Ok(counted) => {
            if let Some(socket) = &doors.0 {
                socket.own(!control);
            }
            Ok(counted)
        }
        Err(failed) => {
            running.control.send_replace(doors.0);
            running.metrics.send_replace(doors.1);
            running.before.resume(older);
            notify::tell(&[&format!("MAINPID={}", std::process::id()), "READY=1"]);
            // One that breaks off or refuses has not taken it. Any other may have, and would remove the control socket's
            // name if it were told to end.
            Err(if failed.end == End::ByItself { failed.with_clients(running) } else { failed })
        }
    }
}

async fn give(running: &Running, link: &Link, older: &[(Old, Arc<Link>)], since: u32) -> io::Result<Counted> {
    for (old, own) in older {
        let old = old.clone();
        let message = ToNew::Older {
            pid: old.pid,
            version: old.version,
            since: millis(old.since),
            connections: old.connections,
            hurried: old.hurried,
            counted: old.counted,
        };
        link.send(&message, &[own.duplicate()?.as_fd()]).await?;
    }
    let clients = running.clients.hand_on(since).await?;
    link.send(&ToNew::Clients, &[clients.as_fd()]).await?;
    let (connections, counted) = super::leave::counted(&running.farm, &running.workers).await;
    let yours = ToNew::Yours {
        connections,
        counted: counted.clone(),
        reloads_refused: running.tallies.reloads_refused(),
        log_dropped: running.tallies.log_dropped(),
        panics: running.tallies.panics(),
    };
    link.send(&yours, &[]).await?;
    Ok(counted)
}
