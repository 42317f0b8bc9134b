//! What the connections of one worker share: buffers, idle connections, deadlines, counters. The request
//! path shares nothing with the other cores but the snapshot and the farm's in-flight counts.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::Notify;

use super::access_log::{LogSlot, Sink};
use super::channels::Channels;
use super::registry::{Connection, Connections, Leaving};
use super::view::View;
use crate::model::Limits;
use crate::net::buffers::Buffers;
use crate::net::deadline::{TICK, Wheel};
use crate::net::idle::IdleConnections;
use crate::net::pipes::Pipes;
use crate::state::connections::{ConnectionInfo, Doing, shown};
use crate::state::counters::{Counters, NONE};
use crate::state::{Farm, ListenerId, SnapshotCache, Way};

/// Everything the connections of one worker share.
pub struct Worker {
    number: u64,
    farm: Arc<Farm>,
    snapshots: RefCell<SnapshotCache>,
    view: RefCell<Rc<View>>,
    pub(super) buffers: Rc<Buffers>,
    pub(super) idle: IdleConnections,
    pub(super) channels: Channels,
    pub(super) pipes: Pipes,
    pub(super) wheel: Rc<Wheel>,
    pub(super) counters: RefCell<Counters>,
    pub(super) log: RefCell<Option<Sink>>,
    logs: LogSlot,
    connections: RefCell<Connections>,
    room: Room,
    most_connections: Cell<usize>,
    /// Some connection is leaving while the worker goes on.
    some_leave: Cell<bool>,
    /// Somebody left: there is room for another connection.
    left: Notify,
    draining: Cell<Option<Instant>>,
    /// Since when there is a deadline for what drains.
    hurried: Cell<Option<Instant>>,
    /// The worker drains, a socket is closed, or connections are asked to leave: whoever waits for one of these
    /// looks whether it is meant.
    drain: Notify,
    dice: Cell<u64>,
    ids: Cell<u64>,
    date: RefCell<Rc<str>>,
    ticks: Cell<u64>,
    /// When the last tick was, and what the calendar said then, in milliseconds since 1970 (UTC).
    lately: Cell<Instant>,
    calendar: Cell<u64>,
}

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
    fn connections(self, limits: &Limits) -> usize {
        let free = self.descriptors.saturating_sub(RESERVED_DESCRIPTORS).max(64) as usize;
        // Two descriptors each: the client's and a server's.
        let total = if limits.connections == 0 { free } else { limits.connections.min((free / 2).max(64) * 2) };
        total.div_ceil(self.workers.max(1))
    }
}

/// A connection that is open as long as this is held.
pub struct Entered {
    worker: Rc<Worker>,
    slot: usize,
    connection: Rc<Connection>,
}

impl Deref for Entered {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let active = self.connection.doing.get() != Doing::Idle;
        self.worker.counters.borrow_mut().connection_closed(self.connection.listener, active);
        self.worker.connections.borrow_mut().remove(self.slot);
        self.worker.left.notify_waiters();
    }
}

/// Idle connections are closed this long after a drain has begun: a client that is about to send its
/// next request gets to, and its answer says that it is the last.
const IDLE_GRACE: Duration = Duration::from_secs(1);

/// Tunnels end so long before the process does.
const TUNNELS_BEFORE: Duration = TICK.saturating_mul(4);

/// Ticks in a second, and between two flushes of the log.
const TICKS_A_SECOND: u64 = (1000 / TICK.as_millis()) as u64;
const TICKS_A_FLUSH: u64 = 4;

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").field("number", &self.number).finish_non_exhaustive()
    }
}

impl Worker {
    pub(super) fn new(number: usize, farm: Arc<Farm>, logs: LogSlot, room: Room) -> Worker {
        let snapshots = farm.cache();
        let view = Rc::new(View::new(farm.snapshot()));
        let now = SystemTime::now();
        let mut counters = Counters::default();
        counters.rules.table(view.snapshot.rule_names.clone(), &view.snapshot.rule_moves);
        let most = room.connections(&view.snapshot.config.limits);
        let seed = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
        Worker {
            number: number as u64,
            farm,
            snapshots: RefCell::new(snapshots),
            view: RefCell::new(view),
            buffers: Rc::default(),
            idle: IdleConnections::default(),
            channels: Channels::default(),
            pipes: Pipes::default(),
            wheel: Wheel::new(Instant::now()),
            counters: RefCell::new(counters),
            log: RefCell::new(logs.sink()),
            logs,
            connections: RefCell::default(),
            room,
            most_connections: Cell::new(most),
            some_leave: Cell::new(false),
            left: Notify::new(),
            draining: Cell::new(None),
            hurried: Cell::new(None),
            drain: Notify::new(),
            dice: Cell::new(seed | 1),
            ids: Cell::new(seed & 0xff_ffff_ffff),
            date: RefCell::new(httpdate::fmt_http_date(now).into()),
            ticks: Cell::new(0),
            lately: Cell::new(Instant::now()),
            calendar: Cell::new(unix_ms(now)),
        }
    }

    /// The snapshot in force.
    pub(super) fn view(&self) -> Rc<View> {
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
    pub(super) fn view_for(&self, connection: &Connection) -> Rc<View> {
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

    /// Asks the connections of these listeners to leave.
    pub(super) fn ask_to_leave(&self, listeners: &[ListenerId]) {
        let since = Instant::now();
        self.leave(|connection| {
            let meant = listeners.contains(&ListenerId(connection.listener));
            meant.then_some(Leaving { since, ends_tunnels: false, view: None })
        });
    }

    fn leave(&self, mut who: impl FnMut(&Connection) -> Option<Leaving>) {
        let mut some = false;
        for connection in self.connections.borrow().iter() {
            let mut leaving = connection.leaving.borrow_mut();
            if let Some(now) = who(connection) {
                some = true;
                match leaving.as_deref_mut() {
                    None => *leaving = Some(Box::new(now)),
                    // It was asked before, and its listener goes only now.
                    Some(asked) => {
                        asked.ends_tunnels |= now.ends_tunnels;
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

    /// Takes the sink of another access log, when there is one.
    fn follow_log(&self) {
        if self.logs.has_changed() {
            // What the sink before has still in hand goes where it was meant to.
            *self.log.borrow_mut() = self.logs.sink();
        }
    }

    /// 0 to 9999.
    pub(super) fn dice(&self) -> u32 {
        // xorshift64*: fast, and nobody gains by guessing it.
        let mut state = self.dice.get();
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        self.dice.set(state);
        ((state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % 10_000) as u32
    }

    /// A number for a failure to be quoted by, unique in the process.
    pub(super) fn request_id(&self) -> u64 {
        let id = self.ids.get();
        self.ids.set(id.wrapping_add(1));
        self.number << 48 | (id & 0xffff_ffff_ffff)
    }

    /// The time, at most a [`TICK`] old: for whatever does not need it more exactly.
    pub(super) fn lately(&self) -> Instant {
        self.lately.get()
    }

    /// The calendar's time of a moment that is not long ago, in milliseconds since 1970 (UTC).
    pub(super) fn unix_ms(&self, at: Instant) -> u64 {
        let lately = self.lately.get();
        let calendar = self.calendar.get();
        match at.checked_duration_since(lately) {
            Some(since) => calendar.saturating_add(since.as_millis() as u64),
            None => calendar.saturating_sub(lately.saturating_duration_since(at).as_millis() as u64),
        }
    }

    /// The time as HTTP writes it, at most a second old.
    pub(super) fn date(&self) -> Rc<str> {
        self.date.borrow().clone()
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.get().is_some()
    }

    /// Whether the next answer on a connection is to be the last.
    pub(super) fn is_leaving(&self, connection: &Connection) -> bool {
        self.is_draining() || connection.is_leaving()
    }

    pub(super) fn enter(self: &Rc<Self>, listener: u32, peer: SocketAddr) -> Entered {
        self.counters.borrow_mut().connection_opened(listener);
        let id = self.request_id();
        let connection = Rc::new(Connection {
            id,
            listener,
            client: Cell::new(peer),
            announced: OnceCell::new(),
            since: Instant::now(),
            doing: Cell::new(Doing::Idle),
            requests: Cell::new(0),
            received: Cell::new(0),
            sent: Cell::new(0),
            server: Cell::new((u32::MAX, u32::MAX)),
            request: RefCell::default(),
            timer: self.wheel.timer(),
            tls: OnceCell::new(),
            leaving: RefCell::default(),
        });
        let slot = self.connections.borrow_mut().add(connection.clone());
        Entered { worker: self.clone(), slot, connection }
    }

    pub(super) fn set_active(&self, connection: &Connection) {
        if connection.doing.replace(Doing::Reading) == Doing::Idle {
            self.counters.borrow_mut().connection_active(connection.listener);
        }
    }

    pub(super) fn set_idle(&self, connection: &Connection) {
        connection.server.set((u32::MAX, u32::MAX));
        if connection.doing.replace(Doing::Idle) != Doing::Idle {
            self.counters.borrow_mut().connection_idle(connection.listener);
        }
    }

    /// Whether another connection may be accepted.
    pub(super) fn has_room(&self) -> bool {
        self.connections.borrow().count() < self.most_connections.get()
    }

    /// Waits until a connection has ended.
    pub(super) async fn somebody_left(&self) {
        self.left.notified().await;
    }

    /// From now on no connection is accepted, and answers say that they are the last. Without a deadline, idle connections
    /// stay until their next request or their own time: whoever is just sending one is not cut.
    pub(super) fn begin_drain(&self, deadline: bool) {
        if deadline && self.hurried.get().is_none() {
            self.hurried.set(Some(Instant::now()));
        }
        if !self.is_draining() {
            self.draining.set(Some(Instant::now()));
            self.drain.notify_waiters();
        }
    }

    /// Waits until something begins to leave: the worker, a socket, connections; only what begins later is seen.
    pub(super) async fn something_leaves(&self) {
        self.drain.notified().await;
    }

    /// Has those look who wait for something to leave.
    pub(super) fn tell_that_something_leaves(&self) {
        self.drain.notify_waiters();
    }

    /// Whether a drain has begun and is over: all connections have ended, or their time has.
    pub(super) fn is_drained(&self) -> bool {
        let patience = || self.view().snapshot.config.timeouts.drain;
        let empty = |since: Instant| self.connections.borrow().count() == 0 && since.elapsed() > TICK;
        self.draining.get().is_some_and(empty) || self.hurried.get().is_some_and(|since| since.elapsed() > patience())
    }

    /// Whether a tunnel's time is over: that of the worker's drain, or of its listener's, is about to be. It ends
    /// while it can still be written down.
    pub(super) fn tunnel_ends(&self, connection: &Connection) -> bool {
        let over = |since: Instant| {
            since.elapsed() >= self.view().snapshot.config.timeouts.drain.saturating_sub(TUNNELS_BEFORE)
        };
        // Not borrowed while it is asked for the time: a new snapshot writes there.
        let leaving = connection.leaving.borrow().as_ref().filter(|it| it.ends_tunnels).map(|it| it.since);
        self.hurried.get().is_some_and(over) || leaving.is_some_and(over)
    }

    /// Called once a [`TICK`]: deadlines, the log, idle connections, the date.
    pub(super) fn tick(&self) {
        let now = Instant::now();
        self.lately.set(now);
        self.calendar.set(unix_ms(SystemTime::now()));
        self.wheel.turn(now);
        let ticks = self.ticks.get() + 1;
        self.ticks.set(ticks);
        // Another snapshot is taken up here rather than by a request.
        let view = self.view();
        if ticks.is_multiple_of(TICKS_A_FLUSH) {
            self.follow_log();
            if let Some(log) = self.log.borrow_mut().as_mut() {
                log.flush();
            }
        }
        if ticks.is_multiple_of(TICKS_A_SECOND) {
            let ways = ways(&view);
            let way = |server: u32| ways.get(server as usize).copied().flatten();
            self.idle.sweep(now, way);
            self.channels.sweep(way);
            *self.date.borrow_mut() = httpdate::fmt_http_date(SystemTime::now()).into();
        }
        if self.hurried.get().is_some() || self.some_leave.get() && ticks.is_multiple_of(TICKS_A_FLUSH) {
            self.show_out();
        }
    }

    /// Ends connections that are leaving and have nothing under way.
    fn show_out(&self) {
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
        self.some_leave.set(some);
    }

    /// At most `limit` connections, the busy before the idle.
    pub(super) fn list(&self, limit: usize) -> Vec<ConnectionInfo> {
        let connections = self.connections.borrow();
        let mut all: Vec<_> = connections.iter().collect();
        all.sort_by_key(|connection| (connection.doing.get() == Doing::Idle, connection.since));
        all.iter().take(limit).map(|connection| self.info(connection)).collect()
    }

    fn info(&self, connection: &Connection) -> ConnectionInfo {
        // By their numbers, for they may be gone from the snapshot in force.
        let (pool, server) = connection.server.get();
        let (pool, server) = (self.farm.pool_names().name(pool), self.farm.server_names().name(server));
        let idle = connection.doing.get() == Doing::Idle;
        let (method, path) = connection.request.borrow().parts();
        ConnectionInfo {
            id: connection.id,
            listener: self
                .farm
                .listener_names()
                .name(connection.listener)
                .map(|name| name.to_string())
                .unwrap_or_default(),
            client: connection.client.get(),
            age: connection.since.elapsed(),
            doing: connection.doing.get(),
            requests: connection.requests.get(),
            server: server.and_then(|identity| {
                let own = pool.as_ref().and_then(|pool| identity.strip_prefix(&**pool)?.strip_prefix('/'));
                own.map(str::to_owned)
            }),
            pool: pool.map(|pool| pool.to_string()),
            request: (!idle && !method.is_empty()).then(|| shown(&method, &path)),
            bytes_received: connection.received.get(),
            bytes_sent: connection.sent.get(),
        }
    }
}

/// How each server is spoken to now, by its number; `None` for one that is gone or drained.
fn ways(view: &View) -> Vec<Option<Way>> {
    let mut ways = Vec::new();
    for server in view.snapshot.pools.iter().flat_map(|pool| pool.servers()) {
        let at = server.id() as usize;
        if ways.len() <= at {
            ways.resize(at + 1, None);
        }
        ways[at] = server.way();
    }
    ways
}

fn unix_ms(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}
