//! What the connections of one worker share: buffers, idle connections, deadlines, counters. The request
//! path shares nothing with the other cores but the snapshot and the farm's in-flight counts.

mod leaving;
mod snapshot;
mod tunnels;

pub use snapshot::Room;
use tunnels::Tunnels;

use std::cell::{Cell, OnceCell, RefCell};
use std::net::SocketAddr;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::Notify;

use super::access_log::matched::Hashes;
use super::access_log::{LogSlot, Sink};
use super::auth::{Known, Services};
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
    pub(super) farm: Arc<Farm>,
    snapshots: RefCell<SnapshotCache>,
    view: RefCell<Rc<View>>,
    pub(super) buffers: Rc<Buffers>,
    pub(super) idle: IdleConnections,
    pub(super) channels: Channels,
    pub(super) pipes: Pipes,
    pub(super) tunnels: Tunnels,
    /// Copies of requests under way to other pools.
    pub(super) mirrors: Cell<usize>,
    /// RTSP sessions whose media goes on without a connection.
    pub(super) lingering: Cell<usize>,
    pub(super) known: Known,
    pub(super) services: Services,
    pub(super) wheel: Rc<Wheel>,
    pub(super) counters: RefCell<Counters>,
    pub(super) log: RefCell<Option<Sink>>,
    pub(super) cookie_hashes: RefCell<Hashes>,
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
    /// The process has more memory in use than it may; known a tick later.
    short_of_memory: Cell<bool>,
    /// When it was last said that something is short.
    short_said: Cell<Option<Instant>>,
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

/// Ticks in a second, and between two flushes of the log.
const TICKS_A_SECOND: u64 = (1000 / TICK.as_millis()) as u64;
const TICKS_A_FLUSH: u64 = 4;

/// A shortage shows at every connection; it is said this often.
const SHORTAGE_SAID: Duration = Duration::from_secs(10);

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").field("number", &self.number).finish_non_exhaustive()
    }
}

impl Worker {
    /// Whether the log has a place for what rules read.
    #[inline]
    pub fn keeps_matched(&self) -> bool {
        self.log.borrow().as_ref().is_some_and(Sink::is_json)
    }

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
            tunnels: Tunnels::default(),
            mirrors: Cell::new(0),
            lingering: Cell::default(),
            known: Known::default(),
            services: Services::default(),
            wheel: Wheel::new(Instant::now()),
            counters: RefCell::new(counters),
            log: RefCell::new(logs.sink()),
            cookie_hashes: RefCell::default(),
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
            short_of_memory: Cell::new(false),
            short_said: Cell::default(),
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

    /// Seconds since 1970 (UTC), at most a [`TICK`] ago.
    pub(super) fn unix_seconds(&self) -> u32 {
        (self.calendar.get() / 1000) as u32
    }

    /// The time as HTTP writes it, at most a second old.
    pub(super) fn date(&self) -> Rc<str> {
        self.date.borrow().clone()
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

    /// No descriptor or memory was left for a connection: says so, now and then.
    pub(super) fn is_short(&self, error: &std::io::Error) {
        if self.short_said.get().is_none_or(|said| said.elapsed() >= SHORTAGE_SAID) {
            self.short_said.set(Some(Instant::now()));
            tracing::warn!(
                %error,
                "no connection can be made or accepted: raise the limit of open files (LimitNOFILE), or lower limits.connections"
            );
        }
    }

    /// Whether new work has to be turned away for lack of memory.
    pub(super) fn is_short_of_memory(&self) -> bool {
        self.short_of_memory.get()
    }

    /// Called once a [`TICK`]: deadlines, the log, idle connections, the date.
    pub(super) fn tick(&self) {
        let now = Instant::now();
        self.lately.set(now);
        self.calendar.set(unix_ms(SystemTime::now()));
        self.wheel.turn(now);
        let ticks = self.ticks.get() + 1;
        self.ticks.set(ticks);
        self.short_of_memory.set(self.farm.is_short_of_memory());
        if self.short_of_memory.get() && ticks.is_multiple_of(TICKS_A_FLUSH) {
            self.make_room();
        }
        // Another snapshot is taken up here rather than by a request.
        let view = self.view();
        if ticks.is_multiple_of(TICKS_A_FLUSH) {
            self.follow_log();
            if let Some(log) = self.log.borrow_mut().as_mut() {
                log.flush();
            }
        }
        if ticks.is_multiple_of(TICKS_A_SECOND) {
            view.snapshot.pools.iter().for_each(|pool| pool.note_picks(now));
            let (ways, cuts) = snapshot::ways(&view);
            self.tunnels.look(cuts);
            let way = |server: u32| ways.get(server as usize).copied().flatten();
            self.idle.sweep(now, way);
            self.channels.sweep(way);
            self.services.sweep(now);
            *self.date.borrow_mut() = httpdate::fmt_http_date(SystemTime::now()).into();
        }
        if self.hurried.get().is_some() || self.some_leave.get() && ticks.is_multiple_of(TICKS_A_FLUSH) {
            self.show_out();
        }
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

fn unix_ms(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}
