//! What the connections of one worker share: buffers, idle connections, deadlines, counters. The request
//! path shares nothing with the other cores but the snapshot and the farm's in-flight counts.

use std::cell::{Cell, OnceCell, RefCell};
use std::net::SocketAddr;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::Notify;

use super::access_log::Sink;
use super::channels::Channels;
use super::registry::{Connection, Connections};
use super::view::View;
use crate::net::buffers::Buffers;
use crate::net::deadline::{TICK, Wheel};
use crate::net::idle::IdleConnections;
use crate::net::pipes::Pipes;
use crate::state::connections::{ConnectionInfo, Doing, shown};
use crate::state::counters::Counters;
use crate::state::{Farm, SnapshotCache};

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
    connections: RefCell<Connections>,
    most_connections: usize,
    /// Somebody left: there is room for another connection.
    left: Notify,
    draining: Cell<Option<Instant>>,
    drain: Notify,
    dice: Cell<u64>,
    ids: Cell<u64>,
    date: RefCell<Rc<str>>,
    ticks: Cell<u64>,
    /// When the last tick was, and what the calendar said then, in milliseconds since 1970 (UTC).
    lately: Cell<Instant>,
    calendar: Cell<u64>,
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
    pub(super) fn new(number: usize, farm: Arc<Farm>, log: Option<Sink>, most_connections: usize) -> Worker {
        let snapshots = farm.cache();
        let view = Rc::new(View::new(farm.snapshot()));
        let now = SystemTime::now();
        let mut counters = Counters::default();
        counters.rules.table(view.snapshot.rule_names.clone());
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
            log: RefCell::new(log),
            connections: RefCell::default(),
            most_connections,
            left: Notify::new(),
            draining: Cell::new(None),
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
        let mut view = self.view.borrow_mut();
        if !Arc::ptr_eq(snapshot, &view.snapshot) {
            *view = Rc::new(View::new(snapshot.clone()));
            self.counters.borrow_mut().rules.table(view.snapshot.rule_names.clone());
        }
        view.clone()
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
        self.connections.borrow().count() < self.most_connections
    }

    /// Waits until a connection has ended.
    pub(super) async fn somebody_left(&self) {
        self.left.notified().await;
    }

    /// From now on no connection is accepted, and answers say that they are the last.
    pub(super) fn begin_drain(&self) {
        if !self.is_draining() {
            self.draining.set(Some(Instant::now()));
            self.drain.notify_waiters();
        }
    }

    /// Waits for the drain to begin; only one that begins later is seen.
    pub(super) async fn drain_begins(&self) {
        self.drain.notified().await;
    }

    /// Whether a drain has begun and is over: all connections have ended, or their time has.
    pub(super) fn is_drained(&self) -> bool {
        self.draining.get().is_some_and(|since| {
            let (open, passed) = (self.connections.borrow().count(), since.elapsed());
            (open == 0 && passed > TICK) || passed > self.view().snapshot.config.timeouts.drain
        })
    }

    /// Whether a drain is about to be over: tunnels end then, while it can still be written down.
    pub(super) fn tunnels_end(&self) -> bool {
        self.draining.get().is_some_and(|since| {
            since.elapsed() >= self.view().snapshot.config.timeouts.drain.saturating_sub(TUNNELS_BEFORE)
        })
    }

    /// Called once a [`TICK`]: deadlines, the log, idle connections, the date.
    pub(super) fn tick(&self) {
        let now = Instant::now();
        self.lately.set(now);
        self.calendar.set(unix_ms(SystemTime::now()));
        self.wheel.turn(now);
        let ticks = self.ticks.get() + 1;
        self.ticks.set(ticks);
        if ticks.is_multiple_of(TICKS_A_FLUSH)
            && let Some(log) = self.log.borrow_mut().as_mut()
        {
            log.flush();
        }
        if ticks.is_multiple_of(TICKS_A_SECOND) {
            self.idle.sweep(now);
            *self.date.borrow_mut() = httpdate::fmt_http_date(SystemTime::now()).into();
        }
        if self.draining.get().is_some_and(|since| since.elapsed() > IDLE_GRACE) {
            let tunnels_end = self.tunnels_end();
            for connection in self.connections.borrow().iter() {
                match connection.doing.get() {
                    Doing::Idle => connection.timer.expire(),
                    Doing::Tunnel if tunnels_end => connection.timer.expire(),
                    _ => {}
                }
            }
        }
    }

    /// At most `limit` connections, the busy before the idle.
    pub(super) fn list(&self, limit: usize) -> Vec<ConnectionInfo> {
        let view = self.view();
        let connections = self.connections.borrow();
        let mut all: Vec<_> = connections.iter().collect();
        all.sort_by_key(|connection| (connection.doing.get() == Doing::Idle, connection.since));
        all.iter().take(limit).map(|connection| self.info(connection, &view)).collect()
    }

    fn info(&self, connection: &Connection, view: &View) -> ConnectionInfo {
        let (pool, server) = connection.server.get();
        let pool = view.snapshot.pools.get(pool as usize);
        let server = pool.and_then(|pool| pool.servers().iter().find(|known| known.id() == server));
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
            pool: pool.map(|pool| pool.name().to_string()),
            server: server.map(|server| server.name().to_string()),
            request: (!idle && !method.is_empty()).then(|| shown(&method, &path)),
            bytes_received: connection.received.get(),
            bytes_sent: connection.sent.get(),
        }
    }
}

fn unix_ms(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}
