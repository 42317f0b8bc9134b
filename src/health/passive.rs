//! Looks at what the request path has counted: ejects servers, brings them back, and has those that came up get more
//! and more.
//!
//! Woken when a row of bad answers has become too long; else it looks ten times a second, and only where a pool asks
//! for it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{info, warn};

use super::outlier::{Seen, judge};
use crate::model::pool::Outlier;
use crate::state::{Farm, Health, LivePool, Snapshot};

/// From one look to the next.
const LOOK: Duration = Duration::from_millis(100);

/// From one look to the next at least, however many alarms there are.
const PAUSE: Duration = Duration::from_millis(5);

/// Runs until `stop` is true or its sender is gone.
pub async fn run(farm: Arc<Farm>, mut stop: watch::Receiver<bool>) {
    let mut changes = farm.changes();
    let mut windows: HashMap<Arc<str>, Pace> = HashMap::new();
    loop {
        changes.borrow_and_update();
        let snapshot = farm.snapshot();
        let watched: Vec<&Arc<LivePool>> = pools(&snapshot).collect();
        windows.retain(|name, _| watched.iter().any(|pool| pool.name() == name));
        loop {
            tokio::select! {
                changed = changes.changed() => match changed {
                    Ok(()) => break,
                    Err(_) => return,
                },
                _ = stop.wait_for(|stop| *stop) => return,
                () = farm.alarm().notified() => {}
                () = sleep(LOOK), if !watched.is_empty() => {}
            }
            let now = Instant::now();
            for pool in &watched {
                let pace = windows.entry(Arc::clone(pool.name())).or_insert_with(|| Pace::new(now));
                look(pool, pace, now);
            }
            // Where nobody can be ejected, every failure is an alarm.
            sleep(PAUSE).await;
        }
    }
}

fn pools(snapshot: &Snapshot) -> impl Iterator<Item = &Arc<LivePool>> {
    let asks = |pool: &&Arc<LivePool>| pool.config().outlier.is_some() || pool.config().slow_start.is_some();
    snapshot.pools.iter().filter(asks)
}

/// When something was last done for a pool.
struct Pace {
    window: Instant,
    step: Instant,
    panics: bool,
}

impl Pace {
    fn new(now: Instant) -> Pace {
        Pace { window: now, step: now, panics: false }
    }
}

fn look(pool: &Arc<LivePool>, pace: &mut Pace, now: Instant) {
    let mut changed = false;
    for server in pool.servers() {
        if server.release(now) {
            info!(pool = %pool.name(), server = %server.name(), "server returned: its time out is over");
            changed = true;
        }
    }
    if let Some(outlier) = &pool.config().outlier {
        let ends = now.saturating_duration_since(pace.window) >= outlier.window;
        if ends {
            pace.window = now;
        }
        changed |= eject(pool, outlier, ends, now);
    }
    if let Some(whole) = pool.config().slow_start
        && now.saturating_duration_since(pace.step) >= (whole / STEPS).max(LOOK)
    {
        pace.step = now;
        changed |= pool.servers().iter().any(|server| server.rises(now));
    }
    if changed {
        pool.plan_again();
    }
    if pool.panics() != pace.panics {
        pace.panics = !pace.panics;
        match pace.panics {
            true => warn!(pool = %pool.name(), "too few servers are up: requests go to all of them"),
            false => info!(pool = %pool.name(), "enough servers are up again"),
        }
    }
}

/// So many times a share grows on its way to the whole.
const STEPS: u32 = 20;

fn eject(pool: &LivePool, outlier: &Outlier, window_ends: bool, now: Instant) -> bool {
    let seen: Vec<Seen> = pool
        .servers()
        .iter()
        .map(|server| {
            let conduct = server.conduct();
            Seen {
                rows: conduct.rows(),
                window: window_ends.then(|| conduct.take_window()),
                out: server.health() == Health::Down,
            }
        })
        .collect();
    let ejected = judge(outlier, &seen);
    for (position, why) in &ejected {
        let Some(server) = pool.servers().get(*position) else { continue };
        let time = server.eject(why, outlier, now);
        warn!(pool = %pool.name(), server = %server.name(), seconds = time.as_secs_f64(), %why, "server ejected");
    }
    !ejected.is_empty()
}
