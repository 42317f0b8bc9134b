//! The snapshot in force as a worker follows it, and what it does when there is another one.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use super::super::registry::{Connection, Leaving};
use super::super::view::View;
use super::Worker;
use crate::model::Limits;
use crate::state::Way;
use crate::state::counters::NONE;

/// What client connections take of the process, by which each worker's share of `limits.connections` is found.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// Open descriptors at most.
    pub descriptors: u64,
    pub workers: usize,
}

/// Descriptors that are not for client connections: sockets, pipes, logs, checks.
const RESERVED_DESCRIPTORS: u64 = 256;

impl Room {
    pub(super) fn connections(self, limits: &Limits) -> usize {
        let free = self.descriptors.saturating_sub(RESERVED_DESCRIPTORS).max(64) as usize;
        // Two descriptors each: the client's and a server's.
        let total = if limits.connections == 0 { free } else { limits.connections.min((free / 2).max(64) * 2) };
        total.div_ceil(self.workers.max(1))
    }
}

impl Worker {
    /// The snapshot in force.
    pub(in crate::proxy) fn view(&self) -> Rc<View> {
        let mut snapshots = self.snapshots.borrow_mut();
        let snapshot = snapshots.load();
        if Arc::ptr_eq(snapshot, &self.view.borrow().snapshot) {
            return self.view.borrow().clone();
        }
        let view = Rc::new(View::new(snapshot.clone()));
        drop(snapshots);
        let before = self.view.replace(view.clone());
        self.changed(&before, &view);
        view
    }

    /// What holds for one connection: the snapshot in force, or what it was accepted under when that has its
    /// listener no more.
    pub(in crate::proxy) fn view_for(&self, connection: &Connection) -> Rc<View> {
        // First, for this may be what shows that the connection is to leave.
        let view = self.view();
        match connection.leaving.borrow().as_deref() {
            Some(Leaving { view: Some(own), .. }) => own.clone(),
            _ => view,
        }
    }

    /// Another snapshot is in force.
    #[cold]
    fn changed(&self, before: &Rc<View>, view: &View) {
        // Whoever is served under it is written into its log.
        self.follow_log();
        let snapshot = &view.snapshot;
        {
            let mut counters = self.counters.borrow_mut();
            counters.rules.table(snapshot.rule_names.clone(), &snapshot.rule_moves);
            let known = snapshot.labels();
            counters.retain(|labels| labels.pool == NONE || known.contains(&labels));
        }
        self.most_connections.set(self.room.connections(&snapshot.config.limits));
        self.left.notify_waiters();
        let mut listeners: HashMap<u32, bool> = HashMap::new();
        self.leave(|connection| {
            let id = connection.listener;
            let stays = *listeners.entry(id).or_insert_with(|| view.carries_on(before, id));
            (!stays).then(|| Leaving {
                since: Instant::now(),
                ends_tunnels: view.listener(id).is_none(),
                view: Some(before.clone()),
            })
        });
    }

    /// Takes the sink of another access log, when there is one.
    pub(super) fn follow_log(&self) {
        if self.logs.has_changed() {
            // What the sink before has still in hand goes where it was meant to.
            *self.log.borrow_mut() = self.logs.sink();
        }
    }
}

/// How each server is spoken to now, by its number; `None` for one that is gone or drained. And how often servers were cut.
pub(super) fn ways(view: &View) -> (Vec<Option<Way>>, u64) {
    let (mut ways, mut cuts) = (Vec::new(), 0);
    for server in view.snapshot.pools.iter().flat_map(|pool| pool.servers()) {
        let at = server.id() as usize;
        if ways.len() <= at {
            ways.resize(at + 1, None);
        }
        ways[at] = server.way();
        cuts += u64::from(server.cuts());
    }
    (ways, cuts)
}
