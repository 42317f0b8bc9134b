//! The end of connections: because the worker drains, or because their listener is gone, drained or another one.
//!
//! ```text
//!   asked to leave --> the next answer is the last --> idle for IDLE_GRACE: closed
//!                      tunnels: until the time of the drain is over, where somebody has to go
//! ```

use std::time::{Duration, Instant};

use super::super::registry::{Connection, Leaving};
use super::Worker;
use crate::net::deadline::TICK;
use crate::state::ListenerId;
use crate::state::connections::Doing;
use crate::sys::process::give_memory_back;

/// Idle connections are closed this long after a drain has begun: a client that is about to send its
/// next request gets to, and its answer says that it is the last.
const IDLE_GRACE: Duration = Duration::from_secs(1);

/// Tunnels end so long before the process does.
const TUNNELS_BEFORE: Duration = TICK.saturating_mul(4);

impl Worker {
    pub(in crate::proxy) fn is_draining(&self) -> bool {
        self.draining.get().is_some()
    }

    /// Whether the next answer on a connection is to be the last.
    pub(in crate::proxy) fn is_leaving(&self, connection: &Connection) -> bool {
        self.is_draining() || connection.is_leaving()
    }

    /// Asks the connections of these listeners to leave.
    pub(in crate::proxy) fn ask_to_leave(&self, listeners: &[ListenerId]) {
        let since = Instant::now();
        self.leave(|connection| {
            let meant = listeners.contains(&ListenerId(connection.listener));
            meant.then_some(Leaving { since, ends_tunnels: false, view: None })
        });
    }

    pub(super) fn leave(&self, mut who: impl FnMut(&Connection) -> Option<Leaving>) {
        // Within the loop a snapshot may be taken up that asks others to leave.
        self.some_leave.set(false);
        let mut some = false;
        for connection in self.connections.borrow().iter() {
            let mut leaving = connection.leaving.borrow_mut();
            if let Some(now) = who(connection) {
                some = true;
                match leaving.as_deref_mut() {
                    None => *leaving = Some(Box::new(now)),
                    // It was asked before, and its listener goes only now: its time begins.
                    Some(asked) => {
                        if now.ends_tunnels && !asked.ends_tunnels {
                            (asked.ends_tunnels, asked.since) = (true, now.since);
                        }
                        asked.view = asked.view.take().or(now.view);
                    }
                }
            }
        }
        if some {
            self.some_leave.set(true);
            self.drain.notify_waiters();
        }
    }

    /// From now on no connection is accepted, and answers say that they are the last. Without a deadline, idle connections
    /// stay until their next request or their own time: whoever is just sending one is not cut.
    pub(in crate::proxy) fn begin_drain(&self, deadline: bool) {
        let (begins, hurries) = (!self.is_draining(), deadline && !self.is_hurried());
        if hurries {
            self.hurried.set(Some(Instant::now()));
        }
        if begins {
            self.draining.set(Some(Instant::now()));
        }
        if begins || hurries {
            self.drain.notify_waiters();
        }
    }

    /// Whether there is a deadline for what drains.
    pub(in crate::proxy) fn is_hurried(&self) -> bool {
        self.hurried.get().is_some()
    }

    /// Waits until something begins to leave: the worker, a socket, connections; only what begins later is seen.
    pub(in crate::proxy) async fn something_leaves(&self) {
        self.drain.notified().await;
    }

    /// Has those look who wait for something to leave.
    pub(in crate::proxy) fn tell_that_something_leaves(&self) {
        self.drain.notify_waiters();
    }

    /// Whether a drain has begun and is over: all connections have ended, or their time has.
    pub(in crate::proxy) fn is_drained(&self) -> bool {
        let patience = || self.view().snapshot.config.timeouts.drain;
        let nobody = || self.connections.borrow().count() == 0 && self.lingering.get() == 0;
        let empty = |since: Instant| nobody() && since.elapsed() > TICK;
        self.draining.get().is_some_and(empty) || self.hurried.get().is_some_and(|since| since.elapsed() > patience())
    }

    /// Whether a tunnel's time is over: that of the worker's drain, or of its listener's, is about to be. It ends
    /// while it can still be written down.
    pub(in crate::proxy) fn tunnel_ends(&self, connection: &Connection) -> bool {
        let over = |since: Instant| {
            since.elapsed() >= self.view().snapshot.config.timeouts.drain.saturating_sub(TUNNELS_BEFORE)
        };
        // Not borrowed while it is asked for the time: a new snapshot writes there.
        let leaving = connection.leaving.borrow().as_ref().filter(|it| it.ends_tunnels).map(|it| it.since);
        self.hurried.get().is_some_and(over) || leaving.is_some_and(over)
    }

    /// Whether the time of sessions without a connection is over: that of the worker's drain is about to be.
    pub(in crate::proxy) fn sessions_end(&self) -> bool {
        let limit = || self.view().snapshot.config.timeouts.drain.saturating_sub(TUNNELS_BEFORE);
        self.hurried.get().is_some_and(|since| since.elapsed() >= limit())
    }

    /// Ends what only waits for work to come: idle connections to servers, and clients that have been idle for long.
    pub(super) fn make_room(&self) {
        self.idle.clear();
        give_memory_back();
        for connection in self.connections.borrow().iter() {
            let idle = connection.doing.get() == Doing::Idle && connection.since.elapsed() > IDLE_GRACE;
            if idle {
                connection.timer.expire();
            }
        }
    }

    /// Ends connections that are leaving and have nothing under way.
    pub(super) fn show_out(&self) {
        let mut some = false;
        for connection in self.connections.borrow().iter() {
            let leaving = connection.leaving.borrow().as_ref().map(|leaving| leaving.since);
            some |= leaving.is_some();
            let Some(since) = self.hurried.get().or(leaving) else { continue };
            match connection.doing.get() {
                Doing::Idle if since.elapsed() > IDLE_GRACE => connection.timer.expire(),
                Doing::Tunnel if self.tunnel_ends(connection) => connection.timer.expire(),
                _ => {}
            }
        }
        self.some_leave.set(some || self.some_leave.get());
    }
}
