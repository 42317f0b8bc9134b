//! What happens too rarely to be counted by each worker: reloads, lost log lines, the drain.
//!
//! Written by `app` and by the writer of the access log, read by the monitor.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

#[derive(Debug, Default)]
pub struct Tallies {
    notes: AtomicU64,
    reloads_refused: AtomicU64,
    log_dropped: Arc<AtomicU64>,
    panics: Arc<AtomicU64>,
    draining: AtomicBool,
    /// When the configuration in force was put in force; `None` before the first.
    loaded: Mutex<Option<SystemTime>>,
}

impl Tallies {
    /// Where the access log counts the lines that it drops.
    pub fn count_dropped(&self) -> Arc<AtomicU64> {
        self.log_dropped.clone()
    }

    /// Where the program's panic hook counts.
    pub fn count_panics(&self) -> Arc<AtomicU64> {
        self.panics.clone()
    }

    /// Faults of Reeve that ended a request, a connection or a probe.
    pub fn panics(&self) -> u64 {
        self.panics.load(Relaxed)
    }

    /// A configuration was put in force.
    pub fn set_loaded(&self, at: SystemTime) {
        *self.loaded.lock().unwrap_or_else(PoisonError::into_inner) = Some(at);
    }

    pub fn loaded(&self) -> Option<SystemTime> {
        *self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The configuration in force was loaded with so many notes.
    pub fn set_notes(&self, notes: u64) {
        self.notes.store(notes, Relaxed);
    }

    pub fn notes(&self) -> u64 {
        self.notes.load(Relaxed)
    }

    /// A reload was refused: the texts have faults, or what they ask for could not be had.
    pub fn reload_refused(&self) {
        self.reloads_refused.fetch_add(1, Relaxed);
    }

    pub fn reloads_refused(&self) -> u64 {
        self.reloads_refused.load(Relaxed)
    }

    /// What a process before this one has counted.
    pub fn inherit(&self, reloads_refused: u64, log_dropped: u64, panics: u64) {
        self.reloads_refused.fetch_add(reloads_refused, Relaxed);
        self.log_dropped.fetch_add(log_dropped, Relaxed);
        self.panics.fetch_add(panics, Relaxed);
    }

    pub fn log_dropped(&self) -> u64 {
        self.log_dropped.load(Relaxed)
    }

    /// From now on requests in flight are finished and no connection is taken.
    pub fn set_draining(&self) {
        self.draining.store(true, Relaxed);
    }

    pub fn draining(&self) -> bool {
        self.draining.load(Relaxed)
    }
}
