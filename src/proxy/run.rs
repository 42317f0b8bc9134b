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

use super::access_log::Sink;
use super::connection;
use super::worker::Worker;
use crate::net::deadline::TICK;
use crate::state::Farm;
use crate::state::commands::{Commands, ToWorker};
use crate::sys::ticker::Ticker;

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
    // Without timers of the runtime's own: see `sys::ticker`.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let local = LocalSet::new();
    local.block_on(&runtime, async move {
        let Start { number, farm, sockets, log, commands, connections } = start;
        let worker = Rc::new(Worker::new(number, farm, log, connections));
        for (listener, socket) in sockets {
            spawn_local(accept(worker.clone(), listener, tokio::net::TcpListener::from_std(socket)?));
        }
        spawn_local(obey(worker.clone(), commands));
        // A task of its own: this one here is looked at whenever any of them has something to do.
        let ticking = spawn_local(tick(worker.clone(), Ticker::new(TICK)?));
        let ticked = ticking.await.map_err(io::Error::other)?;
        // The last lines go out with the last requests.
        worker.log.borrow_mut().take();
        ticked
    })
}

/// Ticks until the worker has drained.
async fn tick(worker: Rc<Worker>, ticker: Ticker) -> io::Result<()> {
    while !worker.is_drained() {
        ticker.beat().await?;
        worker.tick();
    }
    Ok(())
}

/// Does what the worker is told, until nobody is left to tell it anything.
async fn obey(worker: Rc<Worker>, mut commands: Commands) {
    while let Some(command) = commands.recv().await {
        match command {
            ToWorker::Counters(reply) => drop(reply.send(worker.counters.borrow().clone())),
            ToWorker::Connections { limit, reply } => drop(reply.send(worker.list(limit))),
            ToWorker::Drain => worker.begin_drain(),
        }
    }
    // The process is ending.
    worker.begin_drain();
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
                let pause = worker.wheel.timer();
                let _ = pause.wait(SHORT_OF_DESCRIPTORS, std::future::pending::<()>()).await;
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
