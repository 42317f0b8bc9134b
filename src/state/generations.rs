//! The processes before this one that still finish what they have in hand, and what those before them counted.
//!
//! Written by `app::upgrade`, read by the monitor. A process tells what it has counted until it ends; what the ended
//! ones counted is kept by the one that took over.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use super::Farm;
use super::counted::Counted;
use super::counters::{Counters, NONE};

/// A process that was replaced and is not over.
#[derive(Debug, Clone, PartialEq)]
pub struct Old {
    pub pid: u32,
    pub version: String,
    /// When it was replaced.
    pub since: SystemTime,
    /// Open client connections, as it told last.
    pub connections: u64,
    /// It has been told to end by the deadline of a drain.
    pub hurried: bool,
    /// All that it has counted, those before it left out.
    pub counted: Counted,
}

#[derive(Debug, Default)]
pub struct Generations {
    inner: Mutex<Inner>,
    done: AtomicU64,
    refused: AtomicU64,
}

#[derive(Debug, Default)]
struct Inner {
    /// The oldest first.
    old: Vec<Old>,
    /// Of processes that have ended.
    gone: Vec<Counted>,
}

impl Generations {
    /// The oldest first.
    pub fn old(&self) -> Vec<Old> {
        self.lock().old.clone()
    }

    pub fn add(&self, old: Old) {
        self.lock().old.push(old);
    }

    /// What processes that have ended counted.
    pub fn add_gone(&self, counted: Counted) {
        self.lock().gone.push(counted);
    }

    /// Changes what is known of one; nothing where it has ended.
    pub fn change(&self, pid: u32, change: impl FnOnce(&mut Old)) {
        if let Some(old) = self.lock().old.iter_mut().find(|old| old.pid == pid) {
            change(old);
        }
    }

    /// It has ended; what it counted stays.
    pub fn ended(&self, pid: u32) -> Option<Old> {
        let mut inner = self.lock();
        let at = inner.old.iter().position(|old| old.pid == pid)?;
        let old = inner.old.remove(at);
        inner.gone.push(old.counted.clone());
        Some(old)
    }

    /// What all of them have counted, by the numbers of this process.
    pub fn inherited(&self, farm: &Farm) -> Counters {
        let mut inner = self.lock();
        // As in a reload: what the configuration has no more is not counted on.
        let snapshot = farm.snapshot();
        let known = snapshot.labels();
        let forget = |counters: &mut Counters| {
            counters.retain(|labels| labels.pool == NONE || known.contains(&labels));
            counters.rules.table(snapshot.rule_names.clone(), &snapshot.rule_moves);
        };
        // As one from now on, so that it does not grow with each upgrade, nor with each name that there ever was.
        let mut gone = sum(inner.gone.iter(), farm);
        forget(&mut gone);
        inner.gone = vec![Counted::of(&gone, farm)];
        let mut all = sum(inner.old.iter().map(|old| &old.counted), farm);
        all.merge(&gone);
        forget(&mut all);
        all
    }

    /// What those that have ended counted.
    pub fn gone(&self, farm: &Farm) -> Counted {
        Counted::of(&sum(self.lock().gone.iter(), farm), farm)
    }

    /// Upgrades of the service so far, by whether they were done.
    pub fn upgrades(&self) -> (u64, u64) {
        (self.done.load(Relaxed), self.refused.load(Relaxed))
    }

    pub fn add_upgrades(&self, done: u64, refused: u64) {
        self.done.fetch_add(done, Relaxed);
        self.refused.fetch_add(refused, Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn sum<'c>(all: impl Iterator<Item = &'c Counted>, farm: &Farm) -> Counters {
    let mut sum = Counters::default();
    all.for_each(|counted| sum.merge(&counted.counters(farm)));
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::counters::RequestLabels;

    #[test]
    fn what_was_counted_outlives_who_counted_it() {
        let farm = Farm::empty();
        let listener = farm.listener_names().id(&"web".into());
        let counted = |times: usize| {
            let mut counters = Counters::default();
            for _ in 0..times {
                let labels = RequestLabels { listener, pool: NONE, server: NONE };
                counters.request(labels, 200, std::time::Duration::ZERO, None);
            }
            Counted::of(&counters, &farm)
        };
        let total = |all: &Counters| all.requests().map(|(_, requests)| requests.count()).sum::<u64>();
        let generations = Generations::default();
        let old = |pid, times| Old {
            pid,
            version: "1".to_owned(),
            since: SystemTime::now(),
            connections: 2,
            hurried: false,
            counted: counted(times),
        };
        generations.add_gone(counted(3));
        generations.add(old(1, 4));
        generations.add(old(2, 5));
        assert_eq!(total(&generations.inherited(&farm)), 12);
        generations.change(1, |old| old.counted.take_up(counted(6)));
        assert_eq!(total(&generations.inherited(&farm)), 14);
        assert_eq!(generations.ended(1).map(|old| old.connections), Some(2));
        assert!(generations.ended(1).is_none());
        assert_eq!(total(&generations.inherited(&farm)), 14);
        assert_eq!(total(&generations.gone(&farm).counters(&farm)), 9);
        assert_eq!(generations.old().len(), 1);
    }

    #[test]
    fn what_the_configuration_has_no_more_is_not_carried_on() {
        let farm = Farm::empty();
        let listener = farm.listener_names().id(&"web".into());
        let (pool, server) = (farm.pool_names().id(&"shop".into()), farm.server_names().id(&"one".into()));
        let mut counters = Counters::default();
        let time = std::time::Duration::from_millis(3);
        counters.request(RequestLabels { listener, pool, server }, 200, time, None);
        counters.request(RequestLabels { listener, pool: NONE, server: NONE }, 404, time, None);
        let generations = Generations::default();
        generations.add_gone(Counted::of(&counters, &farm));
        generations.add_gone(serde_json::from_str(r#"{"rules": [["a.rules:old", 3]]}"#).unwrap());
        let text = || serde_json::to_string(&generations.gone(&farm)).unwrap();
        let is_known = |word: &str| text().contains(word);
        assert!(is_known("shop") && is_known("a.rules:old"), "{}", text());
        assert_eq!(generations.inherited(&farm).requests().count(), 1);
        assert!(!is_known("shop") && !is_known("one") && !is_known("a.rules:old") && is_known("web"), "{}", text());
    }
}
