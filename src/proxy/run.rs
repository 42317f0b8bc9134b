//! A worker's thread: a runtime of its own, its own listening sockets, and the loops that accept, tick
//! and obey.

use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::MissedTickBehavior;

use super::access_log::Sink;
use super::connection;
use super::worker::Worker;
use crate::net::deadline::TICK;
use crate::state::Farm;
use crate::state::commands::{Commands, ToWorker};

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
        obey(&worker, commands).await;
        // The last lines go out with the last requests.
        worker.log.borrow_mut().take();
        Ok(())
    })
}

/// Ticks and obeys until the worker has drained.
async fn obey(worker: &Rc<Worker>, mut commands: Commands) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut commanded = true;
    while !worker.is_drained() {
        tokio::select! {
            _ = tick.tick() => worker.tick(),
            command = commands.recv(), if commanded => match command {
                Some(ToWorker::Counters(reply)) => drop(reply.send(worker.counters.borrow().clone())),
                Some(ToWorker::Connections { limit, reply }) => drop(reply.send(worker.list(limit))),
                Some(ToWorker::Drain) => worker.begin_drain(),
                // Nobody is left to command: the process is ending.
                None => {
                    commanded = false;
                    worker.begin_drain();
                }
            },
        }
    }
}

/// Accepts on one socket until the worker drains; what is in the socket's queue by then is served too.
async fn accept(worker: Rc<Worker>, listener: u32, socket: tokio::net::TcpListener) {
    let serve = |(tcp, peer): (TcpStream, SocketAddr)| {
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        // It counts from here on, not only when its task first runs: a burst must not pass the limit.
        let entered = worker.enter(listener, peer);
        spawn_local(connection::serve(worker.clone(), entered, tcp));
    };
    let mut drain = pin!(worker.drain_begins());
    while !worker.is_draining() {
        if !worker.has_room() {
            // New clients wait in the kernel's queue.
            tokio::select! {
                () = worker.somebody_left() => {}
                () = &mut drain => {}
            }
            continue;
        }
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            () = &mut drain => break,
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
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted, WouldBlock};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted | WouldBlock)
}
