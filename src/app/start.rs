//! Start and end of the process: prepared texts become a running farm, and SIGTERM ends it without
//! losing a request.
//!
//! Threads: one worker a core (`proxy::run`), one control thread (this one) for health checks, names, the
//! control socket, orders (`running`) and signals, one that writes the access log, and one now and then that compiles
//! texts. A start is a reload of nothing: the threads begin idle, and then the texts are put in force.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};

use super::check::Prepared;
use super::running::clients::Clients;
use super::running::listeners::Listeners;
use super::running::orders::{REGEXES_COMPILED, obey, tell};
use super::running::{Ready, Running, StartError, lists, memory};
use super::upgrade::{Before, Heir, Leaving, Origin, Settling, leave};
use super::{START_FAILED, output, state_folder};
use crate::config;
use crate::model::config::Config;
use crate::monitor::{self, ControlSocket, Source};
use crate::proxy::access_log::{LogSlot, Logs};
use crate::proxy::{self, Room, Start};
use crate::state::Farm;
use crate::state::commands::{Commands, Workers};
use crate::state::counters::Counters;
use crate::state::orders::{self, Order, Orders, Texts};
use crate::sys::notify;
use crate::{director, health, sessions, state, sys, tls};

/// How a run differs from the next.
pub struct RunOptions {
    /// Where the texts are, for whoever reloads them.
    pub request: config::Request,
    /// Called once, when every listener accepts.
    pub ready: Box<dyn FnOnce(&Started)>,
    /// Stops by itself after this time.
    pub stop_after: Option<Duration>,
    /// What a process that takes over is started from; `None`: none can.
    pub origin: Option<Origin>,
    /// The socket to the process that this one takes over from.
    pub before: Option<OwnedFd>,
}

/// Where a started Reeve can be reached.
pub struct Started {
    /// Name of the listener and address, in the order of the file.
    pub listeners: Vec<(Arc<str>, SocketAddr)>,
    pub metrics: Vec<SocketAddr>,
    pub socket: Option<PathBuf>,
}

/// How long the log may take to write its last lines.
const LAST_LINES: Duration = Duration::from_secs(2);

/// A signal this soon after the one that began the drain is not a second one.
const ECHO: Duration = Duration::from_millis(500);

/// How long an order that is under way may take, when the process is told to stop: longer than giving the service to
/// another process does, which has two steps of ten seconds.
const LAST_ORDER: Duration = Duration::from_secs(25);

/// Serves until it is told to stop.
pub fn run(prepared: Prepared, options: RunOptions) -> ExitCode {
    let Some(ready) = Ready::of(prepared, &Config::default()) else { return ExitCode::from(START_FAILED) };
    match start(ready, options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(&format!("reeve: {error}\n"));
            ExitCode::from(START_FAILED)
        }
    }
}

fn start(ready: Ready, options: RunOptions) -> Result<(), StartError> {
    let broken = |error: io::Error| StartError::Other(format!("the control thread cannot be started: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(broken)?;
    let signals = runtime.block_on(async { Signals::listen() }).map_err(broken)?;
    let heir = match options.before {
        Some(socket) => Some(runtime.block_on(Heir::begin(socket)).map_err(StartError::Other)?),
        None => None,
    };
    let (config, loaded) = (ready.config.clone(), ready.tls.clone());
    let descriptors = sys::process::raise_descriptor_limit();
    let count =
        config.process.workers.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)).max(1);
    let (workers, commands) = Workers::new(count);
    let (farm, workers) = (Farm::empty(), Arc::new(workers));
    let clients = Clients::new(farm.clone());
    let mut running = Running {
        clients,
        request: options.request,
        sources: ready.sources.clone(),
        before: Before::new(farm.clone(), workers.clone()),
        farm,
        workers,
        tallies: Arc::default(),
        listeners: Listeners::default(),
        control: watch::Sender::default(),
        metrics: watch::Sender::default(),
        logs: Logs::default(),
        log: None,
        force: watch::Sender::new(Arc::new((config.clone(), loaded))),
        lists: watch::Sender::new(ready.sources.clone()),
        started_with: config.clone(),
        keeps_keys: false,
        origin: options.origin,
    };
    report_panics(running.tallies.count_panics());
    let room = Room { descriptors, workers: count };
    let mut threads = Vec::with_capacity(count);
    let (ended, ends) = mpsc::channel(count);
    for (number, commands) in commands.into_iter().enumerate() {
        let ended = ended.clone();
        threads.push(spawn_worker(number, running.farm.clone(), running.logs.slot(), commands, room, ended)?);
    }
    let (control, settling) = match heir {
        None => {
            let control = open_control(&config).map(Arc::new);
            runtime.block_on(running.apply(ready))?;
            (control, None)
        }
        Some(heir) => {
            let (control, settling) = runtime.block_on(take_over(&mut running, heir, ready))?;
            (control, Some(settling))
        }
    };
    let started = Started {
        listeners: running.listeners.bound().collect(),
        metrics: running.metrics.borrow().iter().filter_map(|(_, socket)| socket.local_addr().ok()).collect(),
        socket: control.as_ref().map(|control| control.path().to_owned()),
    };
    running.control.send_replace(control);
    say(&started, count, config.director.is_some());
    (options.ready)(&started);
    warm_up(&running.farm)?;
    let ends = Ends { threads, ended: ends, signals, stop_after: options.stop_after };
    let (mut running, lost) = runtime.block_on(control_thread(running, settling, ends));
    // A name server that does not answer must not hold up the end.
    runtime.shutdown_timeout(Duration::from_millis(100));
    if let Some(running) = &mut running {
        if let Err(error) = running.clients.write() {
            tracing::warn!(%error, "what is known of clients could not be kept: after a restart they are new");
        }
        running.logs.put(None);
        if running.log.take().is_some_and(|log| !log.close(LAST_LINES)) {
            tracing::warn!("the last lines of the access log were not written in time");
        }
    }
    tracing::info!("stopped");
    match lost {
        Some(worker) => Err(StartError::Other(format!("worker {worker} ended by a fault; see the log"))),
        None => Ok(()),
    }
}

/// Goes on where another process is: with its sockets, and what it knows. When this returns, both accept.
async fn take_over(
    running: &mut Running,
    mut heir: Heir,
    ready: Ready,
) -> Result<(Option<Arc<ControlSocket>>, Settling), StartError> {
    let config = ready.config.clone();
    let taken = async {
        heir.unpack(running, &ready.tls.ring)?;
        running.put_in_force(ready).await
    };
    let sockets = match taken.await {
        Ok((_, sockets)) => sockets,
        Err(error) => {
            heir.give_up(&error.to_string()).await;
            return Err(error);
        }
    };
    heir.parcel.known.after_install(&running.farm);
    let path = monitor::socket_path(config.process.socket.as_deref());
    let lent = heir.control(&path);
    let is_lent = lent.is_some();
    let control = lent.or_else(|| open_control(&config)).map(Arc::new);
    heir.ready(is_lent).await.map_err(StartError::Other)?;
    running.workers.listen(sockets).await;
    Ok((control.clone(), heir.serving(control, running.clients.clone())))
}

/// A panic goes into the log in one line, and is counted. It ends the request, connection or probe that it
/// happened in.
fn report_panics(count: Arc<AtomicU64>) {
    std::panic::set_hook(Box::new(move |panic| {
        count.fetch_add(1, Relaxed);
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let what = panic.payload_as_str().unwrap_or("no message");
        let thread = std::thread::current();
        tracing::error!(thread = thread.name().unwrap_or("-"), %place, "a fault of Reeve, please report it: {what}");
        let trace = std::backtrace::Backtrace::capture();
        if trace.status() == std::backtrace::BacktraceStatus::Captured {
            tracing::error!("{trace}");
        }
    }));
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

fn spawn_worker(
    number: usize,
    farm: Arc<Farm>,
    logs: LogSlot,
    commands: Commands,
    room: Room,
    ended: mpsc::Sender<usize>,
) -> Result<JoinHandle<Option<Counters>>, StartError> {
    std::thread::Builder::new()
        .name(format!("worker-{number}"))
        .spawn(move || {
            let _told = TellEnd { number, ended };
            let counted = proxy::run(Start { number, farm, logs, commands, room });
            counted.inspect_err(|error| tracing::error!(worker = number, %error, "a worker cannot go on")).ok()
        })
        .map_err(|error| StartError::Other(format!("worker {number} cannot be started: {error}")))
}

/// Says that a worker's thread has ended, by a panic too.
struct TellEnd {
    number: usize,
    ended: mpsc::Sender<usize>,
}

impl Drop for TellEnd {
    fn drop(&mut self) {
        // There is room for every worker; at the end of the process nobody listens.
        let _ = self.ended.try_send(self.number);
    }
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

fn say(started: &Started, workers: usize, layer4: bool) {
    for (name, address) in &started.listeners {
        tracing::info!(listener = %name, %address, "listening");
    }
    if started.listeners.is_empty() && !layer4 {
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
    threads: Vec<JoinHandle<Option<Counters>>>,
    /// Numbers of workers whose threads have ended.
    ended: mpsc::Receiver<usize>,
    signals: Signals,
    stop_after: Option<Duration>,
}

/// Everything that is not on the request path, until a signal ends it or another process has taken over. Also the
/// worker whose end made it end.
async fn control_thread(running: Running, settling: Option<Settling>, ends: Ends) -> (Option<Running>, Option<usize>) {
    let Ends { threads, mut ended, mut signals, stop_after } = ends;
    let (farm, workers, tallies) = (running.farm.clone(), running.workers.clone(), running.tallies.clone());
    let (stop, stopped) = watch::channel(false);
    let (no_more_orders, last_order) = watch::channel(false);
    let (orders, queue) = mpsc::channel(orders::QUEUE);
    let (director, director_commands) = mpsc::channel(state::director::QUEUE);
    farm.set_director(director.clone());
    let source = Source::new(farm.clone(), tallies.clone(), workers.clone(), orders.clone(), director);
    let director = spawn_director(director::Start {
        farm: farm.clone(),
        folder: state_folder::path(&running.started_with),
        commands: director_commands,
        stop: stopped.clone(),
    });
    let health = tokio::spawn(health::run(farm.clone(), stopped.clone()));
    let memory = tokio::spawn(memory::watch(farm.clone(), stopped.clone()));
    let conduct = tokio::spawn(health::watch_conduct(farm.clone(), stopped.clone()));
    let certificates = tokio::spawn(tls::watch(running.force.subscribe(), stopped.clone()));
    let lists = tokio::spawn(lists::watch(running.lists.subscribe(), orders.clone(), last_order.clone()));
    let sessions = tokio::spawn(sessions::run(farm.clone(), stopped.clone()));
    let clients = tokio::spawn(running.clients.clone().keep(stopped.clone()));
    let (control, metrics) = (running.control.subscribe(), running.metrics.subscribe());
    let (before, own, draining) = (running.before.clone(), workers.clone(), last_order.clone());
    let rare = tallies.clone();
    let monitor = tokio::spawn(async move {
        // The doors are those of the process before until it has gone.
        if let Some(settling) = settling {
            settling.settle(&before, &own, &rare, draining).await;
        }
        notify::tell(&["READY=1", concat!("STATUS=reeve ", env!("CARGO_PKG_VERSION"), " serves")]);
        monitor::run(source, control, metrics, stopped).await;
    });
    let before = running.before.clone();
    let mut obeying = tokio::spawn(obey(running, queue, last_order));
    let (mut obeyed, mut lost) = (None, None);
    let told = loop {
        tokio::select! {
            // What waits at its sockets would never be served: whoever looks after the process starts another one.
            Some(worker) = ended.recv() => {
                tracing::error!(worker, "a worker has ended by a fault of Reeve: the process ends too");
                lost = Some(worker);
                break true;
            }
            () = signals.stop_or(stop_after, &orders) => break true,
            ended = &mut obeying, if obeyed.is_none() => {
                if let Err(error) = &ended {
                    tracing::error!(%error, "no order is carried out any more by a fault of Reeve: what is in force still serves");
                }
                let replaced = matches!(&ended, Ok((_, Some(_))));
                obeyed = Some(ended.ok());
                if replaced {
                    break false;
                }
            }
        }
    };
    let running = match obeyed {
        Some(running) => running,
        None => {
            // What is being put in force comes to its end first, so that it is known which sockets are open, and who
            // serves.
            tallies.set_draining();
            no_more_orders.send_replace(true);
            tokio::time::timeout(LAST_ORDER, obeying).await.ok().and_then(Result::ok)
        }
    };
    let patience = farm.snapshot().config.timeouts.drain;
    tallies.set_draining();
    let mut running = match running {
        Some((running, Some(replaced))) => {
            // The new process looks after everything else; what was asked here is still answered.
            stop.send_replace(true);
            no_more_orders.send_replace(true);
            running.control.send_replace(None);
            running.clients.let_go();
            let (hurry, hurried) = watch::channel(0);
            let leaving = leave(Leaving { farm, workers }, replaced, join(threads), hurried);
            tokio::select! {
                () = leaving => {}
                () = signals.hurry(&hurry, told) => {}
            }
            Some(running)
        }
        other => {
            notify::tell(&["STOPPING=1"]);
            let mut running = other.map(|(running, _)| running);
            tracing::info!(within = ?patience, "draining: no new connections, requests in flight are finished");
            if let Some(running) = &mut running {
                // The workers' own descriptors are then the last ones.
                running.listeners = Listeners::default();
            }
            before.hurry_all().await;
            workers.drain(true).await;
            tokio::select! {
                _ = join(threads) => {}
                () = tokio::time::sleep(patience + Duration::from_secs(1)) => tracing::warn!("a worker did not drain in time"),
                () = signals.stop_again() => tracing::warn!("told again: stopping at once"),
            }
            stop.send_replace(true);
            running
        }
    };
    // All end at once; what they were doing matters no more.
    let director = join_director(director);
    let all =
        async { tokio::join!(health, conduct, memory, certificates, lists, monitor, clients, sessions, director) };
    let _ = tokio::time::timeout(Duration::from_secs(1), all).await;
    if let Some(running) = &mut running {
        running.control.send_replace(None);
    }
    (running, lost)
}

/// The director's thread: it reads and writes the kernel's tables, which may take a while.
fn spawn_director(start: director::Start) -> Option<JoinHandle<()>> {
    /// Says that the thread has ended, by a panic also.
    struct Ends(watch::Receiver<bool>);
    impl Drop for Ends {
        fn drop(&mut self) {
            if !*self.0.borrow() && self.0.has_changed().is_ok() {
                tracing::error!(
                    "director: its thread has ended: packets go on by what was written last, and nobody looks after servers; restart"
                );
            }
        }
    }
    let ends = Ends(start.stop.clone());
    let thread = std::thread::Builder::new().name("director".to_owned()).spawn(move || {
        let _ends = ends;
        match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime.block_on(director::run(start)),
            Err(error) => tracing::error!(%error, "director: its thread cannot be started: layer 4 is not served"),
        }
    });
    thread
        .inspect_err(|error| tracing::error!(%error, "director: its thread cannot be started: layer 4 is not served"))
        .ok()
}

async fn join_director(thread: Option<JoinHandle<()>>) {
    if let Some(thread) = thread {
        // A panic is in the log already.
        let _ = tokio::task::spawn_blocking(move || thread.join()).await;
    }
}

/// Waits for the workers to end; what they counted.
async fn join(threads: Vec<JoinHandle<Option<Counters>>>) -> Vec<Counters> {
    let joined = move || threads.into_iter().filter_map(|thread| thread.join().ok().flatten()).collect();
    tokio::task::spawn_blocking(joined).await.unwrap_or_default()
}

/// The signals that are heard, from before the process says that it is ready.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    upgrade: Signal,
}

impl Signals {
    /// Within a runtime.
    fn listen() -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            upgrade: signal(SignalKind::user_defined2())?,
        })
    }

    /// SIGTERM or SIGINT; SIGHUP is a reload, SIGUSR2 an upgrade.
    async fn stop(&mut self, orders: &Orders) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hang_up.recv() => reload(orders),
                _ = self.upgrade.recv() => upgrade(orders),
            }
        }
    }

    /// A signal to stop, or the time is over.
    async fn stop_or(&mut self, after: Option<Duration>, orders: &Orders) {
        match after {
            Some(after) => tokio::select! {
                () = self.stop(orders) => {}
                () = tokio::time::sleep(after) => {}
            },
            None => self.stop(orders).await,
        }
    }

    /// Counts words to stop, for a process that is leaving anyway. The first one may have been `told` before.
    async fn hurry(&mut self, count: &watch::Sender<u32>, told: bool) {
        if !told {
            self.stop_after_all().await;
        }
        count.send_replace(1);
        self.stop_again().await;
        count.send_replace(2);
        std::future::pending().await
    }

    async fn stop_after_all(&mut self) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hang_up.recv() => tracing::warn!("SIGHUP: another process serves now; this one only finishes"),
                _ = self.upgrade.recv() => tracing::warn!("SIGUSR2: another process serves now; this one only finishes"),
            }
        }
    }

    /// The same word may come twice: `timeout` sends its signal to the process and then to its group.
    async fn stop_again(&mut self) {
        let heard = Instant::now();
        loop {
            tokio::select! {
                _ = self.terminate.recv() => {}
                _ = self.interrupt.recv() => {}
            }
            if heard.elapsed() > ECHO {
                return;
            }
        }
    }
}

/// Orders a reload whose result goes into the log.
fn reload(orders: &Orders) {
    let (reply, answer) = oneshot::channel();
    if orders.try_send(Order::Reload { what: Texts::All, reply }).is_err() {
        tracing::warn!("SIGHUP: too many orders wait; nothing is reloaded");
        return;
    }
    tokio::spawn(async move {
        if let Ok(reloaded) = answer.await {
            tell(&reloaded, "configuration");
        }
    });
}

/// Orders an upgrade whose result goes into the log.
fn upgrade(orders: &Orders) {
    let (reply, _) = oneshot::channel();
    if orders.try_send(Order::Upgrade { binary: None, within: monitor::api::UPGRADE_WITHIN, reply }).is_err() {
        tracing::warn!("SIGUSR2: too many orders wait; nothing is upgraded");
    }
}
