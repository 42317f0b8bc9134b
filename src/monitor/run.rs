//! Serves the control socket and the metrics addresses until told to stop: the only loop here that waits.
//!
//! Runs on the control thread. Each connection carries one request and has thirty seconds, two minutes on the
//! control socket, where reloads are waited for; so slow or silent peers hold nothing for long; at most 64 are served at each door, the others wait in
//! the kernel's queue.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Incoming};
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

/// The control socket, where one could be had and is ours to serve.
pub type Control = Option<Arc<ControlSocket>>;

/// The sockets of the metrics addresses, with the address as it is configured. Who is not among them any more is
/// closed.
pub type Metrics = Vec<(SocketAddr, Arc<TcpListener>)>;

/// One door, by what it is known by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Name {
    Control(PathBuf),
    Metrics(SocketAddr),
}

/// Serves at what `control` and `metrics` have now, until `stop` says true, or its sender is gone. A door that is
/// closed finishes its answers; one that cannot be opened, for want of a descriptor, is tried again.
pub async fn run(
    source: Source,
    mut control: watch::Receiver<Control>,
    mut metrics: watch::Receiver<Metrics>,
    mut stop: watch::Receiver<bool>,
) {
    let source = Arc::new(source);
    let mut doors = JoinSet::new();
    // Each door has a word of its own by which it is closed.
    let mut open: HashMap<Name, watch::Sender<bool>> = HashMap::new();
    loop {
        let mut wanted = HashMap::new();
        let sockets: Vec<_> = metrics.borrow_and_update().iter().map(|(_, listener)| listener.clone()).collect();
        for listener in sockets {
            // A socket that has no address any more is none to serve.
            if let Ok(address) = listener.local_addr() {
                wanted.insert(Name::Metrics(address), Socket::Metrics(listener));
            }
        }
        if let Some(control) = control.borrow_and_update().clone() {
            wanted.insert(Name::Control(control.path().to_owned()), Socket::Control(control));
        }
        open.retain(|name, _| wanted.contains_key(name));
        let mut again = false;
        for (name, socket) in wanted {
            if let Entry::Vacant(entry) = open.entry(name) {
                match socket.listener() {
                    Ok(listener) => {
                        let (close, closed) = watch::channel(false);
                        doors.spawn(serve_door(Arc::clone(&source), listener, closed, stop.clone()));
                        entry.insert(close);
                    }
                    Err(error) => {
                        tracing::warn!(%error, "the control socket or a metrics page cannot be served; trying again");
                        again = true;
                    }
                }
            }
        }
        tokio::select! {
            () = stopped(&mut stop) => break,
            changed = async { tokio::select! {
                changed = metrics.changed() => changed,
                changed = control.changed() => changed,
            } } => if changed.is_err() {
                // Whoever could open another one is gone, but the doors are not.
                stopped(&mut stop).await;
                break;
            },
            Some(_) = doors.join_next() => {}
            () = tokio::time::sleep(ACCEPT_PAUSE), if again => {}
        }
    }
    // The doors hear that nobody is left who could say it, and end by themselves.
    drop(open);
    while doors.join_next().await.is_some() {}
}

/// What a door is made of.
enum Socket {
    Control(Arc<ControlSocket>),
    Metrics(Arc<TcpListener>),
}

impl Socket {
    fn listener(&self) -> io::Result<Listener> {
        Ok(match self {
            Socket::Control(control) => {
                Listener::Control(tokio::net::UnixListener::from_std(control.listener().try_clone()?)?)
            }
            Socket::Metrics(listener) => Listener::Metrics(tokio::net::TcpListener::from_std(listener.try_clone()?)?),
        })
    }
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

async fn serve_door(
    source: Arc<Source>,
    listener: Listener,
    mut closed: watch::Receiver<bool>,
    mut stop: watch::Receiver<bool>,
) {
    let mut open = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept(), if open.len() < CONNECTIONS => accepted,
            Some(_) = open.join_next() => continue,
            () = stopped(&mut closed) => break,
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
    drop(listener);
    let mut all = pin!(async { while open.join_next().await.is_some() {} });
    tokio::select! {
        () = &mut all => return,
        () = stopped(&mut stop) => {}
    }
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
        async move { Ok::<_, Infallible>(answer(&source, door, request).await) }
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

async fn answer(source: &Source, door: Door, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let body = match api::has_body(door, &head) {
        false => Bytes::new(),
        true if body.size_hint().lower() > api::BODY as u64 => return api::too_large(),
        true => match Limited::new(body, api::BODY).collect().await {
            Ok(body) => body.to_bytes(),
            // Or it broke off: then nobody reads the answer.
            Err(_) => return api::too_large(),
        },
    };
    api::answer(source, door, &Request::from_parts(head, body)).await
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that nobody is left who could say it.
    let _ = stop.wait_for(|stop| *stop).await;
}
