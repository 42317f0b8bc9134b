//! Start and end of the process: prepared texts become a running farm, and SIGTERM ends it without
//! losing a request.
//!
//! Threads: one worker a core (`proxy::run`), one control thread (this one) for health checks, names, the
//! control socket and signals, and one that writes the access log.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use super::check::Prepared;
use super::{START_FAILED, output, state_folder};
use crate::model::config::{AccessLog, Config, LogTarget};
use crate::model::{Limits, Severity};
use crate::monitor::{self, ControlSocket, Source};
use crate::proxy::access_log::Log;
use crate::proxy::{self, Start};
use crate::state::commands::Workers;
use crate::state::tallies::Tallies;
use crate::state::{Farm, ListenerId, Secured};
use crate::{health, sys, tls};

/// How a run differs from the next.
pub struct RunOptions {
    /// Called once, when every listener accepts.
    pub ready: Box<dyn FnOnce(&Started)>,
    /// Stops by itself after this time.
    pub stop_after: Option<Duration>,
}

/// Where a started Reeve can be reached.
pub struct Started {
    /// Name of the listener and address, in the order of the file.
    pub listeners: Vec<(Arc<str>, SocketAddr)>,
    pub metrics: Vec<SocketAddr>,
    pub socket: Option<PathBuf>,
}

/// Why nothing could be started.
#[derive(Debug)]
enum StartError {
    Listen { what: String, address: SocketAddr, error: io::Error },
    Log { path: PathBuf, error: io::Error },
    Other(String),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Listen { what, address, error } => {
                write!(f, "{what}: cannot listen on {address}: {error}")?;
                match error.kind() {
                    io::ErrorKind::AddrInUse => write!(
                        f,
                        "\n  help: another program has this address: see `ss -ltnp sport = :{}`",
                        address.port()
                    ),
                    io::ErrorKind::PermissionDenied => {
                        write!(f, "\n  help: ports below 1024 need root or CAP_NET_BIND_SERVICE")
                    }
                    io::ErrorKind::AddrNotAvailable => {
                        write!(f, "\n  help: no interface of this machine has this address")
                    }
                    _ => Ok(()),
                }
            }
            StartError::Log { path, error } => {
                write!(f, "log.access: cannot open {}: {error}", path.display())?;
                match error.kind() {
                    io::ErrorKind::NotFound => write!(f, "\n  help: its folder has to be there"),
                    _ => Ok(()),
                }
            }
            StartError::Other(what) => f.write_str(what),
        }
    }
}

/// Regexes of one rule set that are compiled without being asked for: a few KiB each.
const REGEXES_COMPILED: usize = 100_000;

/// How long the log may take to write its last lines.
const LAST_LINES: Duration = Duration::from_secs(2);

/// A signal this soon after the one that began the drain is not a second one.
const ECHO: Duration = Duration::from_millis(500);

/// Descriptors that are not for client connections: sockets, pipes, logs, checks.
const RESERVED_DESCRIPTORS: u64 = 256;

/// Serves until it is told to stop.
pub fn run(prepared: Prepared, options: RunOptions) -> ExitCode {
    let notes = prepared.load.faults.iter().filter(|fault| fault.severity == Severity::Note).count() as u64;
    let Some(config) = prepared.load.config else { return ExitCode::from(START_FAILED) };
    match start(Arc::new(config), prepared.tables, prepared.tls, notes, options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(&format!("reeve: {error}\n"));
            ExitCode::from(START_FAILED)
        }
    }
}

fn start(
    config: Arc<Config>,
    tables: Vec<Arc<crate::route::Table>>,
    tls: tls::Loaded,
    notes: u64,
    options: RunOptions,
) -> Result<(), StartError> {
    let broken = |error: io::Error| StartError::Other(format!("the control thread cannot be started: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(broken)?;
    let signals = runtime.block_on(async { Signals::listen() }).map_err(broken)?;
    let descriptors = sys::process::raise_descriptor_limit();
    let count =
        config.process.workers.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)).max(1);
    let secured = Secured { listeners: tls.listeners.clone(), pools: tls.pools.clone() };
    let farm = Farm::secured(config.clone(), tables, secured);
    if tls.serves() {
        keep_ticket_keys(&config, &tls);
    }
    let (mut sockets, listeners) = open_listeners(&farm, count)?;
    let metrics = open_metrics(&config)?;
    let control = open_control(&config);
    let log = config.log.access.as_ref().map(start_log).transpose()?;
    let tallies = Arc::new(log.as_ref().map_or_else(Tallies::default, |log| Tallies::with_log(log.dropped())));
    tallies.set_notes(notes);
    let (workers, commands) = Workers::new(count);
    let workers = Arc::new(workers);
    let most = connections_a_worker(&config.limits, descriptors, count);
    let mut threads = Vec::with_capacity(count);
    for (number, commands) in commands.into_iter().enumerate() {
        let sockets = std::mem::take(&mut sockets[number]);
        let sink = log.as_ref().map(Log::sink);
        let start = Start { number, farm: farm.clone(), sockets, log: sink, commands, connections: most };
        threads.push(spawn_worker(number, start)?);
    }
    let started = Started {
        listeners,
        metrics: metrics.iter().filter_map(|socket| socket.local_addr().ok()).collect(),
        socket: control.as_ref().map(|control| control.path().to_owned()),
    };
    say(&started, count);
    (options.ready)(&started);
    warm_up(&farm)?;
    let source = Source::new(farm.clone(), tallies.clone(), workers.clone());
    let ends = Ends { workers, tallies, threads, signals, stop_after: options.stop_after };
    runtime.block_on(control_thread(farm, tls, source, control, metrics, ends));
    // A name server that does not answer must not hold up the end.
    runtime.shutdown_timeout(Duration::from_millis(100));
    if log.is_some_and(|log| !log.close(LAST_LINES)) {
        tracing::warn!("the last lines of the access log were not written in time");
    }
    tracing::info!("stopped");
    Ok(())
}

/// Without a place for them sessions end with the process, which is worth a word and no more.
fn keep_ticket_keys(config: &Config, tls: &tls::Loaded) {
    let kept = state_folder::open(config).and_then(|folder| tls.ring.keep_in(&folder, SystemTime::now()));
    if let Err(error) = kept {
        let folder = state_folder::path(config);
        tracing::warn!(
            folder = %folder.display(), %error,
            "the keys of TLS sessions cannot be kept: after a restart every client shakes hands anew; set [state] path"
        );
    }
}

fn start_log(access: &AccessLog) -> Result<Log, StartError> {
    Log::start(access).map_err(|error| {
        let path = match &access.target {
            LogTarget::File(path) => path.clone(),
            LogTarget::Stdout => PathBuf::from("-"),
        };
        StartError::Log { path, error }
    })
}

/// Regexes beyond those that loading compiles are compiled now, beside the traffic: a request that is
/// faster compiles its own.
fn warm_up(farm: &Farm) -> Result<(), StartError> {
    let tables = farm.snapshot().tables.clone();
    std::thread::Builder::new()
        .name("warm-up".to_owned())
        .spawn(move || tables.iter().for_each(|table| table.warm(REGEXES_COMPILED)))
        .map(drop)
        .map_err(|error| StartError::Other(format!("a thread cannot be started: {error}")))
}

fn spawn_worker(number: usize, start: Start) -> Result<JoinHandle<()>, StartError> {
    std::thread::Builder::new()
        .name(format!("worker-{number}"))
        .spawn(move || {
            if let Err(error) = proxy::run(start) {
                tracing::error!(worker = number, %error, "a worker could not start");
            }
        })
        .map_err(|error| StartError::Other(format!("worker {number} cannot be started: {error}")))
}

/// The sockets of each worker, and where they listen.
type Sockets = (Vec<Vec<(u32, TcpListener)>>, Vec<(Arc<str>, SocketAddr)>);

/// Each worker gets a socket of its own for every address: the kernel spreads connections over them.
fn open_listeners(farm: &Farm, workers: usize) -> Result<Sockets, StartError> {
    let snapshot = farm.snapshot();
    let mut sockets: Vec<_> = (0..workers).map(|_| Vec::new()).collect();
    let mut listening = Vec::new();
    for (listener, ListenerId(id)) in snapshot.config.listeners.iter().zip(&snapshot.listeners) {
        if !listener.built {
            continue;
        }
        for address in &listener.addresses {
            let fail =
                |address, error| StartError::Listen { what: format!("listen.{}", listener.name), address, error };
            // Shared sockets of one user share an address without a word; another Reeve must not.
            if address.port() != 0 {
                drop(sys::socket::listen_alone(*address).map_err(|error| fail(*address, error))?);
            }
            // The first socket may choose its port (0); the others follow it.
            let mut address = *address;
            for own in &mut sockets {
                let socket = sys::socket::listen_shared(address).map_err(|error| fail(address, error))?;
                address = socket.local_addr().map_err(|error| fail(address, error))?;
                own.push((*id, socket));
            }
            listening.push((listener.name.clone(), address));
        }
    }
    Ok((sockets, listening))
}

fn open_metrics(config: &Config) -> Result<Vec<TcpListener>, StartError> {
    let open = |address: &SocketAddr| {
        let what = "monitor.metrics-address".to_owned();
        sys::socket::listen_alone(*address).map_err(|error| StartError::Listen { what, address: *address, error })
    };
    config.monitor.metrics_addresses.iter().map(open).collect()
}

/// Without its control socket Reeve serves all the same, but says so.
fn open_control(config: &Config) -> Option<ControlSocket> {
    let path = monitor::socket_path(config.process.socket.as_deref());
    match monitor::bind_control(&path) {
        Ok(control) => Some(control),
        Err(error) => {
            tracing::warn!("{error}; `reeve status` and the other commands will not reach this process");
            None
        }
    }
}

fn connections_a_worker(limits: &Limits, descriptors: u64, workers: usize) -> usize {
    // Two descriptors each: the client's and a server's.
    let possible = (descriptors.saturating_sub(RESERVED_DESCRIPTORS) / 2).max(64) as usize;
    let total = if limits.connections == 0 {
        descriptors.saturating_sub(RESERVED_DESCRIPTORS).max(64) as usize
    } else {
        limits.connections.min(possible * 2)
    };
    total.div_ceil(workers)
}

fn say(started: &Started, workers: usize) {
    for (name, address) in &started.listeners {
        tracing::info!(listener = %name, %address, "listening");
    }
    if started.listeners.is_empty() {
        tracing::warn!("no listener is open: nothing is served");
    }
    for address in &started.metrics {
        tracing::info!(%address, "metrics");
    }
    let socket = started.socket.as_deref().unwrap_or(Path::new("-"));
    tracing::info!(version = env!("CARGO_PKG_VERSION"), workers, socket = %socket.display(), "ready");
}

/// What is needed to end it all.
struct Ends {
    workers: Arc<Workers>,
    tallies: Arc<Tallies>,
    threads: Vec<JoinHandle<()>>,
    signals: Signals,
    stop_after: Option<Duration>,
}

/// Everything that is not on the request path, until a signal ends it.
async fn control_thread(
    farm: Arc<Farm>,
    tls: tls::Loaded,
    source: Source,
    control: Option<ControlSocket>,
    metrics: Vec<TcpListener>,
    ends: Ends,
) {
    let Ends { workers, tallies, threads, mut signals, stop_after } = ends;
    let (stop, stopped) = watch::channel(false);
    let health = tokio::spawn(health::run(farm.clone(), stopped.clone()));
    let certificates = tokio::spawn(tls::watch(farm.snapshot().config.clone(), tls, stopped.clone()));
    let monitor = tokio::spawn(async move {
        if let Err(error) = monitor::run(source, control, metrics, stopped).await {
            tracing::error!(%error, "the control socket and the metrics page are gone");
        }
    });
    signals.stop_or(stop_after).await;
    let patience = farm.snapshot().config.timeouts.drain;
    tracing::info!(within = ?patience, "draining: no new connections, requests in flight are finished");
    tallies.set_draining();
    workers.drain().await;
    let ended = tokio::task::spawn_blocking(move || threads.into_iter().for_each(|thread| drop(thread.join())));
    tokio::select! {
        _ = ended => {}
        () = tokio::time::sleep(patience + Duration::from_secs(1)) => tracing::warn!("a worker did not drain in time"),
        () = signals.stop_again() => tracing::warn!("told again: stopping at once"),
    }
    stop.send_replace(true);
    // Both end at once; what they were doing matters no more.
    let _ = tokio::time::timeout(Duration::from_secs(1), async { tokio::join!(health, certificates, monitor) }).await;
}

/// The signals that are heard, from before the process says that it is ready.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    /// Within a runtime.
    fn listen() -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// SIGTERM or SIGINT.
    async fn stop(&mut self) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                // Left alone it would end the process without a drain; elsewhere it means a reload.
                _ = self.hang_up.recv() => {
                    tracing::warn!("SIGHUP: reloading is not built yet; restart to read the texts anew");
                }
            }
        }
    }

    /// A signal to stop, or the time is over.
    async fn stop_or(&mut self, after: Option<Duration>) {
        match after {
            Some(after) => tokio::select! {
                () = self.stop() => {}
                () = tokio::time::sleep(after) => {}
            },
            None => self.stop().await,
        }
    }

    /// The same word may come twice: `timeout` sends its signal to the process and then to its group.
    async fn stop_again(&mut self) {
        let heard = Instant::now();
        loop {
            self.stop().await;
            if heard.elapsed() > ECHO {
                return;
            }
        }
    }
}
