//! The rest of an old process's life: it finishes what it has, tells the newest once a second what it has counted, and
//! hurries when it is told to.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, timeout};

use super::link::{Begun, Link};
use super::order::Replaced;
use super::{ToNew, ToOld};
use crate::state::Farm;
use crate::state::commands::Workers;
use crate::state::counted::Counted;
use crate::state::counters::Counters;

/// How often the newest process is told.
const REPORT: Duration = Duration::from_secs(1);

/// For one report: whoever does not read it does without.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is leaving.
pub struct Leaving {
    pub farm: Arc<Farm>,
    pub workers: Arc<Workers>,
}

/// What this process has counted and those that have ended before it; and how many connections are open here.
pub async fn counted(farm: &Farm, workers: &Workers) -> (u64, Counted) {
    total(farm, workers.own_counters().await.merged)
}

fn total(farm: &Farm, mut own: Counters) -> (u64, Counted) {
    let connections = own.listeners().map(|(_, listener)| listener.active + listener.idle).sum();
    own.merge(&farm.generations().gone(farm).counters(farm));
    (connections, Counted::of(&own, farm))
}

/// What has begun to come; `None` when nothing more will.
async fn hear(link: Option<&Link>, begun: io::Result<Option<Begun>>) -> Option<ToOld> {
    let begun = begun.ok()??;
    let (message, _) = timeout(PATIENCE, link?.finish(begun)).await.ok()?.ok()?;
    Some(message)
}

/// Until `ended` has what the workers counted to their end. `hurry` is a signal to end by the deadline of a drain, or to cut
/// what is left.
pub async fn leave(
    leaving: Leaving,
    replaced: Replaced,
    ended: impl Future<Output = Vec<Counters>>,
    mut signals: watch::Receiver<u32>,
) {
    let Leaving { farm, workers } = leaving;
    let Replaced { link, counted: mut told } = replaced;
    workers.drain(false).await;
    let mut ended = std::pin::pin!(ended);
    let mut link = Some(link);
    let mut reports = tokio::time::interval(REPORT);
    reports.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut hurried: Option<Instant> = None;
    let patience = farm.snapshot().config.timeouts.drain + Duration::from_secs(1);
    let counters = loop {
        let over = hurried.map(|since| since + patience);
        tokio::select! {
            counters = &mut ended => break Some(counters),
            _ = reports.tick(), if link.is_some() => {
                let (connections, now) = counted(&farm, &workers).await;
                let report = ToNew::Report { connections, counted: now.since(&told) };
                told = now;
                let sent = match &link {
                    Some(link) => timeout(PATIENCE, link.send(&report, &[])).await,
                    None => continue,
                };
                if !matches!(sent, Ok(Ok(()))) {
                    link = None;
                }
                continue;
            }
            begun = async { match &link {
                Some(link) => link.begin().await,
                None => std::future::pending().await,
            } } => match hear(link.as_ref(), begun).await {
                Some(ToOld::Hurry) => {}
                Some(_) => continue,
                None => {
                    tracing::info!("the newest process is not heard any more: this one finishes what it has");
                    link = None;
                    continue;
                }
            },
            _ = signals.changed() => if *signals.borrow() > 1 {
                tracing::warn!("told again: stopping at once");
                break None;
            },
            () = async { tokio::time::sleep_until(over.unwrap_or_else(Instant::now).into()).await }, if over.is_some() => {
                tracing::warn!("a worker did not drain in time");
                break None;
            }
        }
        if hurried.is_none() {
            hurried = Some(Instant::now());
            tracing::info!(within = ?(patience - Duration::from_secs(1)), "told to end: what is left has the time of a drain");
            workers.drain(true).await;
        }
    };
    if let (Some(counters), Some(link)) = (counters, link) {
        // What the workers counted after the last report.
        let mut own = Counters::default();
        counters.iter().for_each(|counters| own.merge(counters));
        own.forget_connections();
        let (connections, now) = total(&farm, own);
        let report = ToNew::Report { connections, counted: now.since(&told) };
        let _ = timeout(PATIENCE, link.send(&report, &[])).await;
    }
}
