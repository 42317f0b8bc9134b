//! A worker's thread: a runtime of its own, listening sockets that it is handed, and the loops that accept,
//! tick and obey.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::{LocalSet, spawn_local};

use super::access_log::LogSlot;
use super::connection;
use super::guard::caught;
use super::view::View;
use super::worker::{Room, Worker};
use crate::net::deadline::TICK;
use crate::state::commands::{Commands, Socket, ToWorker};
use crate::state::counters::Counters;
use crate::state::{Farm, ListenerId};
use crate::sys::socket::BACKLOG;
use crate::sys::ticker::Ticker;

/// What a worker starts with.
pub struct Start {
    /// From 0.
    pub number: usize,
    pub farm: Arc<Farm>,
    /// Where its lines of the access log go.
    pub logs: LogSlot,
    pub commands: Commands,
    pub room: Room,
}

/// How long nobody is accepted after descriptors ran out.
const SHORT_OF_DESCRIPTORS: Duration = Duration::from_millis(50);

/// Runs a worker on this thread until it has drained; all that it counted.
///
/// # Errors
/// When the runtime cannot be made, or a fault of ours has ended what the worker is told or its clock.
pub fn run(start: Start) -> io::Result<Counters> {
    // Without timers of the runtime's own: see `sys::ticker`.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let local = LocalSet::new();
    local.block_on(&runtime, async move {
        let Start { number, farm, logs, commands, room } = start;
        let worker = Rc::new(Worker::new(number, farm, logs, room));
        let mut obeying = spawn_local(obey(worker.clone(), commands));
        // A task of its own: this one here is looked at whenever any of them has something to do.
        let mut ticking = spawn_local(tick(worker.clone(), Ticker::new(TICK)?));
        let mut obeys = true;
        let ticked = loop {
            tokio::select! {
                ticked = &mut ticking => break ticked.map_err(io::Error::other)?,
                // Nobody is left to say anything: a drain has begun.
                ended = &mut obeying, if obeys => {
                    ended.map_err(io::Error::other)?;
                    obeys = false;
                }
            }
        };
        // The last lines go out with the last requests.
        worker.log.borrow_mut().take();
        ticked?;
        Ok(worker.counters.take())
    })
}

/// Ticks until the worker has drained.
async fn tick(worker: Rc<Worker>, ticker: Ticker) -> io::Result<()> {
    while !worker.is_drained() {
        ticker.beat().await?;
        // A fault in one tick must not be the last of them: nothing would be in time any more.
        let _ = caught(|| worker.tick());
    }
    Ok(())
}

/// Does what the worker is told, until nobody is left to tell it anything.
async fn obey(worker: Rc<Worker>, mut commands: Commands) {
    // There may be several sockets for one address.
    let mut gates: HashMap<u64, Vec<Rc<Gate>>> = HashMap::new();
    while let Some(command) = commands.recv().await {
        match command {
            ToWorker::Counters(reply) => drop(reply.send(worker.counters.borrow().clone())),
            ToWorker::Connections { limit, reply } => drop(reply.send(worker.list(limit))),
            ToWorker::Listen(sockets) => {
                for Socket { key, listener, address, socket } in sockets {
                    let listener = Cell::new((listener.0, 0));
                    let gate = Rc::new(Gate { listener, address, closing: RefCell::default() });
                    match tokio::net::TcpListener::from_std(socket) {
                        Ok(socket) => drop(spawn_local(accept(worker.clone(), gate.clone(), socket))),
                        Err(error) => tracing::error!(%address, %error, "a worker cannot listen"),
                    }
                    gates.entry(key).or_default().push(gate);
                }
            }
            ToWorker::Close { keys, leaving, reply } => {
                // Whoever of the sockets' tasks is the last to end sees to the rest.
                let closing = Rc::new(Closing { worker: worker.clone(), leaving, reply: Cell::new(Some(reply)) });
                for gate in keys.iter().filter_map(|key| gates.remove(key)).flatten() {
                    gate.closing.replace(Some(closing.clone()));
                }
                drop(closing);
                worker.tell_that_something_leaves();
            }
            ToWorker::Drain { deadline } => worker.begin_drain(deadline),
        }
    }
    // The process is ending.
    worker.begin_drain(true);
}

/// A listening socket, from outside of its task.
struct Gate {
    /// The number of the listener whose it is, and the snapshot that says so.
    listener: Cell<(u32, u64)>,
    address: SocketAddr,
    /// It is to be closed.
    closing: RefCell<Option<Rc<Closing>>>,
}

impl Gate {
    /// Whose who comes in here is. Since a reload the address may be another listener's.
    fn listener(&self, view: &View) -> u32 {
        let (known, generation) = self.listener.get();
        if generation == view.snapshot.generation {
            return known;
        }
        let listener = view.listener_at(self.address).unwrap_or(known);
        self.listener.set((listener, view.snapshot.generation));
        listener
    }
}

/// What is done when the last of some sockets has been closed.
struct Closing {
    worker: Rc<Worker>,
    leaving: Arc<[ListenerId]>,
    reply: Cell<Option<oneshot::Sender<()>>>,
}

impl Drop for Closing {
    fn drop(&mut self) {
        self.worker.ask_to_leave(&self.leaving);
        if let Some(reply) = self.reply.take() {
            // Whoever asked may have given up.
            let _ = reply.send(());
        }
    }
}

/// Accepts on one socket until it is closed or the worker drains; what is in the socket's queue by then is
/// served too.
async fn accept(worker: Rc<Worker>, gate: Rc<Gate>, socket: tokio::net::TcpListener) {
    let serve = |(tcp, peer): (TcpStream, SocketAddr)| {
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        let listener = gate.listener(&worker.view());
        // It counts from here on, not only when its task first runs: a burst must not pass the limit.
        let entered = worker.enter(listener, peer);
        spawn_local(connection::serve(worker.clone(), entered, tcp));
    };
    let ends = || worker.is_draining() || gate.closing.borrow().is_some();
    let mut leaves = pin!(worker.something_leaves());
    while !ends() {
        if !worker.has_room() {
            // New clients wait in the kernel's queue.
            tokio::select! {
                () = worker.somebody_left() => {}
                () = &mut leaves => leaves.set(worker.something_leaves()),
            }
            continue;
        }
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            () = &mut leaves => {
                leaves.set(worker.something_leaves());
                continue;
            }
        };
        match accepted {
            Ok(accepted) => drop(caught(|| serve(accepted))),
            Err(error) if is_of_the_client(&error) => {}
            Err(error) => no_room(&worker, &error).await,
        }
    }
    // Not with the runtime's share of turns, which is over before a long queue is; and no more than it may hold, for
    // another process may listen at the same socket and the queue never be empty.
    for _ in 0..BACKLOG {
        let waiting = poll_fn(|cx| match socket.poll_accept(cx) {
            Poll::Ready(accepted) => Poll::Ready(Some(accepted)),
            Poll::Pending => Poll::Ready(None),
        });
        match tokio::task::unconstrained(waiting).await {
            Some(Ok(accepted)) => drop(caught(|| serve(accepted))),
            Some(Err(error)) if is_of_the_client(&error) => {}
            Some(Err(error)) => no_room(&worker, &error).await,
            None => break,
        }
    }
}

/// Nobody can be accepted for a while.
async fn no_room(worker: &Worker, error: &io::Error) {
    worker.is_short(error);
    // Idle connections to servers have what is missing.
    worker.idle.clear();
    let pause = worker.wheel.timer();
    let _ = pause.wait(SHORT_OF_DESCRIPTORS, std::future::pending::<()>()).await;
}

/// The client has gone before it was accepted: nothing of ours is short.
fn is_of_the_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted, WouldBlock};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted | WouldBlock)
}
