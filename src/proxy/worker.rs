//! One worker: a thread with a runtime of its own, its own listening sockets, buffers, idle connections
//! and counters. The request path shares nothing with the other cores but the snapshot and the farm's
//! in-flight counts.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};

use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::MissedTickBehavior;

use super::access_log::Sink;
use super::connection::{self, Connection};
use super::view::View;
use crate::net::buffers::Buffers;
use crate::net::deadline::{TICK, Wheel};
use crate::net::idle::IdleConnections;
use crate::net::pipes::Pipes;
use crate::state::commands::{Commands, ToWorker};
use crate::state::connections::{ConnectionInfo, Doing, shown};
use crate::state::counters::Counters;
use crate::state::{Farm, SnapshotCache};

/// What a worker starts with.
pub struct Start {
    /// From 0.
    pub number: usize,
    pub farm: Arc<Farm>,
    /// Its own socket of each listener, with the listener's number.
    pub sockets: Vec<(u32, TcpListener)>,
    pub log: Option<Sink>,
    pub commands: Commands,
    /// Client connections at most.
    pub connections: usize,
}

/// Everything the connections of one worker share.
pub struct Worker {
    number: u64,
    farm: Arc<Farm>,
    snapshots: RefCell<SnapshotCache>,
    view: RefCell<Rc<View>>,
    pub(super) buffers: Rc<Buffers>,
    pub(super) idle: IdleConnections,
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
}

#[derive(Default)]
struct Connections {
    slots: Vec<Option<Rc<Connection>>>,
    free: Vec<usize>,
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
        let mut connections = self.worker.connections.borrow_mut();
        connections.slots[self.slot] = None;
        connections.free.push(self.slot);
        self.worker.left.notify_one();
    }
}

/// Idle connections are closed this long after a drain has begun: a client that is about to send its
/// next request gets to, and its answer says that it is the last.
const IDLE_GRACE: Duration = Duration::from_secs(1);

/// Ticks in a second, and between two flushes of the log.
const TICKS_A_SECOND: u64 = (1000 / TICK.as_millis()) as u64;
const TICKS_A_FLUSH: u64 = 4;

/// How long nobody is accepted after descriptors ran out.
const SHORT_OF_DESCRIPTORS: Duration = Duration::from_millis(50);

/// Runs a worker on this thread until it has drained.
///
/// # Errors
/// When the runtime cannot be made, or a socket not be handed to it.
pub fn run(start: Start) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    let local = LocalSet::new();
    local.block_on(&runtime, async move {
        let Start { number, farm, sockets, log, commands, connections } = start;
        let worker = Rc::new(Worker::new(number, farm, log, connections));
        for (listener, socket) in sockets {
            spawn_local(accept(worker.clone(), listener, tokio::net::TcpListener::from_std(socket)?));
        }
        worker.clone().main(commands).await;
        // The last lines go out with the last requests.
        worker.log.borrow_mut().take();
        Ok(())
    })
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").field("number", &self.number).finish_non_exhaustive()
    }
}

impl Worker {
    fn new(number: usize, farm: Arc<Farm>, log: Option<Sink>, most_connections: usize) -> Worker {
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
            peer,
            since: Instant::now(),
            doing: Cell::new(Doing::Idle),
            requests: Cell::new(0),
            received: Cell::new(0),
            sent: Cell::new(0),
            server: Cell::new((u32::MAX, u32::MAX)),
            request: RefCell::default(),
            timer: self.wheel.timer(),
        });
        let mut connections = self.connections.borrow_mut();
        let slot = connections.free.pop().unwrap_or(connections.slots.len());
        if slot == connections.slots.len() {
            connections.slots.push(None);
        }
        connections.slots[slot] = Some(connection.clone());
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

    fn open_connections(&self) -> usize {
        let connections = self.connections.borrow();
        connections.slots.len() - connections.free.len()
    }

    /// Ticks and obeys until it has drained.
    async fn main(self: Rc<Self>, mut commands: Commands) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick() => self.tick(),
                command = commands.recv() => match command {
                    Some(ToWorker::Counters(reply)) => drop(reply.send(self.counters.borrow().clone())),
                    Some(ToWorker::Connections { limit, reply }) => drop(reply.send(self.list(limit))),
                    // Nobody commands any more: the process is ending.
                    Some(ToWorker::Drain) | None => self.begin_drain(),
                },
            }
            if let Some(since) = self.draining.get() {
                let patience = self.view().snapshot.config.timeouts.drain;
                if (self.open_connections() == 0 && since.elapsed() > TICK) || since.elapsed() > patience {
                    return;
                }
                if commands.is_closed() {
                    tick.tick().await;
                    self.tick();
                }
            }
        }
    }

    fn begin_drain(&self) {
        if !self.is_draining() {
            self.draining.set(Some(Instant::now()));
            self.drain.notify_waiters();
        }
    }

    fn tick(&self) {
        let now = Instant::now();
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
            for connection in self.connections.borrow().slots.iter().flatten() {
                if connection.doing.get() == Doing::Idle {
                    connection.timer.expire();
                }
            }
        }
    }

    fn list(&self, limit: usize) -> Vec<ConnectionInfo> {
        let view = self.view();
        let connections = self.connections.borrow();
        let mut all: Vec<_> = connections.slots.iter().flatten().collect();
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
            client: connection.peer,
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

/// Accepts on one socket until the worker drains; what is in the socket's queue by then is served too.
async fn accept(worker: Rc<Worker>, listener: u32, socket: tokio::net::TcpListener) {
    let serve = |(tcp, peer): (TcpStream, SocketAddr)| {
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        spawn_local(connection::serve(worker.clone(), tcp, peer, listener));
    };
    let mut drained = std::pin::pin!(worker.drain.notified());
    while !worker.is_draining() {
        if worker.open_connections() >= worker.most_connections {
            // New clients wait in the kernel's queue until there is room.
            tokio::select! {
                () = worker.left.notified() => {}
                () = &mut drained => {}
            }
            continue;
        }
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            () = &mut drained => break,
        };
        match accepted {
            Ok(accepted) => serve(accepted),
            Err(error) if is_of_the_client(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "no connection can be accepted; trying again");
                tokio::time::sleep(SHORT_OF_DESCRIPTORS).await;
            }
        }
    }
    while let Some(accepted) = poll_fn(|cx| match socket.poll_accept(cx) {
        Poll::Ready(accepted) => Poll::Ready(accepted.ok()),
        Poll::Pending => Poll::Ready(None),
    })
    .await
    {
        serve(accepted);
    }
}

/// The client has gone before it was accepted: nothing of ours is short.
fn is_of_the_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
            | io::ErrorKind::WouldBlock
    )
}
