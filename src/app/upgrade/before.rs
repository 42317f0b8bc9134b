//! Old processes, as the newest sees them: what they say is kept, and they are told when to hurry.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::link::Link;
use super::{OLD, ToNew, ToOld};
use crate::state::Farm;
use crate::state::commands::Workers;
use crate::state::generations::Old;

/// For the rest of a frame that has begun.
const FRAME: Duration = Duration::from_secs(5);

/// The processes before this one that still live.
#[derive(Clone)]
pub struct Before(Arc<Inner>);

struct Inner {
    farm: Arc<Farm>,
    workers: Arc<Workers>,
    /// The oldest first.
    kept: Mutex<Vec<Kept>>,
}

struct Kept {
    pid: u32,
    link: Arc<Link>,
    stop: watch::Sender<bool>,
    hears: JoinHandle<()>,
}

impl Before {
    pub fn new(farm: Arc<Farm>, workers: Arc<Workers>) -> Before {
        Before(Arc::new(Inner { farm, workers, kept: Mutex::default() }))
    }

    /// Keeps what it says from now on. Within a runtime.
    pub fn add(&self, old: Old, link: Arc<Link>) {
        let pid = old.pid;
        self.0.farm.generations().add(old);
        self.hear(pid, link);
    }

    fn hear(&self, pid: u32, link: Arc<Link>) {
        let (stop, stopped) = watch::channel(false);
        let hears = tokio::spawn(hear(self.clone(), pid, link.clone(), stopped));
        self.lock().push(Kept { pid, link, stop, hears });
    }

    /// Adds what they have counted to what is counted here.
    pub fn count(&self) {
        self.0.workers.inherit(self.0.farm.generations().inherited(&self.0.farm));
    }

    /// Tells the oldest ones to end when there are too many.
    pub async fn thin_out(&self) {
        let old = self.0.farm.generations().old();
        for old in old.iter().take(old.len().saturating_sub(OLD)).filter(|old| !old.hurried) {
            self.hurry(old.pid).await;
        }
    }

    /// Tells all to end by the deadline of a drain.
    pub async fn hurry_all(&self) {
        for old in self.0.farm.generations().old() {
            self.hurry(old.pid).await;
        }
    }

    async fn hurry(&self, pid: u32) {
        let link = self.lock().iter().find(|kept| kept.pid == pid).map(|kept| kept.link.clone());
        let Some(link) = link else { return };
        match tokio::time::timeout(FRAME, link.send(&ToOld::Hurry, &[])).await {
            Ok(Ok(())) => self.0.farm.generations().change(pid, |old| old.hurried = true),
            // It has just ended, or cannot be reached: then it ends when it has nothing left.
            _ => tracing::debug!(pid, "an old process could not be told to hurry"),
        }
    }

    /// Hears none of them any more, so that somebody else can; those that still live, with their links.
    pub async fn pause(&self) -> Vec<(Old, Arc<Link>)> {
        let kept = std::mem::take(&mut *self.lock());
        let mut links = Vec::with_capacity(kept.len());
        for Kept { pid, link, stop, hears } in kept {
            stop.send_replace(true);
            // It ends between two frames.
            let _ = hears.await;
            links.push((pid, link));
        }
        let old = self.0.farm.generations().old();
        let with_link = |old: Old| {
            let link = links.iter().find(|(pid, _)| *pid == old.pid)?.1.clone();
            Some((old, link))
        };
        old.into_iter().filter_map(with_link).collect()
    }

    /// Hears them again.
    pub fn resume(&self, paused: Vec<(Old, Arc<Link>)>) {
        for (old, link) in paused {
            self.hear(old.pid, link);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Kept>> {
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn hear(before: Before, pid: u32, link: Arc<Link>, mut stop: watch::Receiver<bool>) {
    let error = loop {
        let begun = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            begun = link.begin() => begun,
        };
        let begun = match begun {
            Ok(Some(begun)) => begun,
            Ok(None) => break None,
            Err(error) => break Some(error),
        };
        let message = match tokio::time::timeout(FRAME, link.finish(begun)).await {
            Ok(Ok((message, _))) => message,
            Ok(Err(error)) => break Some(error),
            Err(_) => break Some(io::ErrorKind::TimedOut.into()),
        };
        if let ToNew::Report { connections, counted } = message {
            let counts = !counted.is_empty();
            before.0.farm.generations().change(pid, |old| {
                old.connections = connections;
                old.counted.take_up(counted);
            });
            if counts {
                before.count();
            }
        }
    };
    before.lock().retain(|kept| kept.pid != pid);
    let Some(old) = before.0.farm.generations().ended(pid) else { return };
    match error {
        None => tracing::info!(pid, connections = old.connections, "a process before this one has ended"),
        Some(error) => tracing::warn!(pid, %error, "a process before this one is not heard any more"),
    }
}
