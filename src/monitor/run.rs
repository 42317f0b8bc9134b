//! Serves the control socket and the metrics addresses until told to stop: the only loop here that waits.
//!
//! Runs on the control thread. Each connection carries one request and has thirty seconds, two minutes on the
//! control socket, where reloads are waited for; so slow or silent peers hold nothing for long; at most 64 are served at each door, the others wait in
//! the kernel's queue.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::api::{self, Door, Source};
use super::socket::ControlSocket;

/// Connections served at once at one door.
const CONNECTIONS: usize = 64;

/// For the request's head.
const HEAD: Duration = Duration::from_secs(10);

/// For the whole connection. To read takes two seconds at most, even when a worker is stuck.
const CONNECTION: Duration = Duration::from_secs(30);

/// The same on the control socket: a reload of a hundred thousand rules takes seconds.
const CONTROL: Duration = Duration::from_secs(120);

/// For answers under way when told to stop.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What to wait after an accept that failed: without descriptors it would fail again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The sockets of the metrics addresses, with the address as it is configured. Who is not among them any more is
/// closed.
pub type Metrics = Vec<(SocketAddr, Arc<TcpListener>)>;

/// Serves until `stop` says true, or its sender is gone; then the control socket's name goes away. An
/// error means that one of the listeners could not be used at all.
pub async fn run(
    source: Source,
    control: Option<ControlSocket>,
    mut metrics: watch::Receiver<Metrics>,
    mut stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let source = Arc::new(source);
    let mut doors = JoinSet::new();
    if let Some(control) = &control {
        let listener = Listener::Control(tokio::net::UnixListener::from_std(control.listener().try_clone()?)?);
        doors.spawn(serve_door(Arc::clone(&source), listener, stop.clone()));
    }
    // Each door has a word of its own by which it is closed.
    let mut open: HashMap<SocketAddr, watch::Sender<bool>> = HashMap::new();
    loop {
        let mut wanted = HashMap::new();
        for (_, listener) in metrics.borrow_and_update().iter() {
            wanted.insert(listener.local_addr()?, listener.clone());
        }
        open.retain(|address, _| wanted.contains_key(address));
        for (address, listener) in wanted {
            if open.contains_key(&address) {
                continue;
            }
            let listener = Listener::Metrics(tokio::net::TcpListener::from_std(listener.try_clone()?)?);
            let (close, closed) = watch::channel(false);
            doors.spawn(serve_door(Arc::clone(&source), listener, closed));
            open.insert(address, close);
        }
        tokio::select! {
            () = stopped(&mut stop) => break,
            changed = metrics.changed() => if changed.is_err() {
                // Whoever could open another one is gone, but the doors are not.
                stopped(&mut stop).await;
                break;
            },
        }
    }
    // The doors hear that nobody is left who could say it, and end by themselves.
    drop(open);
    while doors.join_next().await.is_some() {}
    Ok(())
}

/// What is listened on.
enum Listener {
    Control(tokio::net::UnixListener),
    Metrics(tokio::net::TcpListener),
}

/// Who was accepted.
enum Peer {
    Control(UnixStream),
    Metrics(TcpStream),
}

impl Listener {
    async fn accept(&self) -> io::Result<Peer> {
        match self {
            Listener::Control(listener) => Ok(Peer::Control(listener.accept().await?.0)),
            Listener::Metrics(listener) => Ok(Peer::Metrics(listener.accept().await?.0)),
        }
    }
}

async fn serve_door(source: Arc<Source>, listener: Listener, mut stop: watch::Receiver<bool>) {
    let mut open = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept(), if open.len() < CONNECTIONS => accepted,
            Some(_) = open.join_next() => continue,
            () = stopped(&mut stop) => break,
        };
        match accepted {
            Ok(Peer::Control(stream)) => {
                if may_enter(&stream) {
                    open.spawn(serve(Arc::clone(&source), Door::Control, stream));
                }
            }
            Ok(Peer::Metrics(stream)) => {
                open.spawn(serve(Arc::clone(&source), Door::Metrics, stream));
            }
            Err(error) => {
                tracing::warn!(%error, "the monitor could not accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    let all = async { while open.join_next().await.is_some() {} };
    // What is still open then is cut off with the set.
    let _ = tokio::time::timeout(LAST_WORDS, all).await;
}

/// Only our own user and root may speak to us, whatever became of the socket's mode.
fn may_enter(stream: &UnixStream) -> bool {
    match stream.peer_cred() {
        Ok(peer) if peer.uid() == 0 || peer.uid() == rustix::process::geteuid().as_raw() => true,
        Ok(peer) => {
            tracing::warn!(uid = peer.uid(), "control socket: a connection of another user was closed");
            false
        }
        Err(error) => {
            tracing::warn!(%error, "control socket: a connection without a known user was closed");
            false
        }
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(source: Arc<Source>, door: Door, stream: S) {
    let service = service_fn(|request| {
        let source = Arc::clone(&source);
        async move { Ok::<_, Infallible>(api::answer(&source, door, &request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .keep_alive(false)
        .max_buf_size(16 << 10)
        .serve_connection(TokioIo::new(stream), service);
    let limit = if door == Door::Control { CONTROL } else { CONNECTION };
    match tokio::time::timeout(limit, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(?door, %error, "a monitor connection ended early"),
        Err(_) => tracing::debug!(?door, "a monitor connection took too long"),
    }
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that nobody is left who could say it.
    let _ = stop.wait_for(|stop| *stop).await;
}
