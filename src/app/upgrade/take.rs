//! Taking over from another process: the new side.

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::timeout;

use super::before::Before;
use super::link::Link;
use super::parcel::{Known, Parcel, SECTIONS, Section, time};
use super::{FORMAT, SETTLE, STEP, ToNew, ToOld};
use crate::app::running::clients::Clients;
use crate::app::running::orders::stopped;
use crate::app::running::{Running, StartError};
use crate::config::HAND_OVER;
use crate::monitor::ControlSocket;
use crate::state::commands::Workers;
use crate::state::counted::Counted;
use crate::state::generations::Old;
use crate::state::tallies::Tallies;
use crate::sys::secrets::Ring;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// How long the old process may take to send what it has; and to say go, which it does when it has heard that
/// this one is ready.
const PARCEL: Duration = Duration::from_secs(60);

const TOLD_TO_END: &str = "it was told to end";

/// One that takes over.
pub struct Heir {
    link: Link,
    pid: u32,
    version: String,
    pub parcel: Parcel,
}

/// One that serves beside the old process and shows that it can.
pub struct Settling {
    link: Link,
    pid: u32,
    version: String,
    control: Option<Arc<ControlSocket>>,
    clients: Arc<Clients>,
}

/// The socket by which this process was started to take over, if it was.
///
/// # Errors
/// In words, when it was said to be and stdin is no such socket.
pub fn socket() -> Result<Option<OwnedFd>, String> {
    if std::env::var_os(HAND_OVER).is_none() {
        return Ok(None);
    }
    let wrong = |error: &dyn std::fmt::Display| {
        format!(
            "{HAND_OVER} is set, which is for a process that `reeve upgrade` starts, but stdin is not its socket: {error}"
        )
    };
    let socket = io::stdin().as_fd().try_clone_to_owned().map_err(|error| wrong(&error))?;
    rustix::net::sockopt::socket_domain(&socket)
        .and_then(
            |domain| if domain == rustix::net::AddressFamily::UNIX { Ok(()) } else { Err(rustix::io::Errno::NOTSOCK) },
        )
        .map_err(|error| wrong(&error))?;
    // Nobody reads it by chance, and whoever is started next does not have it.
    let nothing = std::fs::File::open("/dev/null").map_err(|error| wrong(&error))?;
    rustix::stdio::dup2_stdin(&nothing).map_err(|error| wrong(&error))?;
    Ok(Some(socket))
}

/// Says why this process does not take over. What the old one sends is not looked at.
pub fn refuse(socket: OwnedFd, why: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let said = runtime.map(|runtime| {
        runtime.block_on(async {
            let link = Link::of(socket)?;
            link.send(&ToOld::Hello { version: VERSION.to_owned() }, &[]).await?;
            say_no(&link, why).await
        })
    });
    if let Err(error) | Ok(Err(error)) = said {
        tracing::warn!(%error, "the process before could not be told");
    }
}

async fn say_no(link: &Link, why: &str) -> io::Result<()> {
    let refused = ToOld::Refused { why: why.trim_end().to_owned() };
    timeout(STEP, link.send(&refused, &[])).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

impl Heir {
    /// Receives all that the old process has. Refuses what it does not understand.
    ///
    /// # Errors
    /// In words.
    pub async fn begin(socket: OwnedFd) -> Result<Heir, String> {
        let link = Link::of(socket).map_err(|error| error.to_string())?;
        let hello = ToOld::Hello { version: VERSION.to_owned() };
        link.send(&hello, &[]).await.map_err(|error| error.to_string())?;
        let received = timeout(PARCEL, receive(&link)).await;
        match received.unwrap_or_else(|_| Err(format!("nothing came within {} s", PARCEL.as_secs()))) {
            Ok((pid, version, parcel)) => Ok(Heir { link, pid, version, parcel }),
            Err(why) => {
                let _ = say_no(&link, &why).await;
                Err(format!("what the process before hands over cannot be taken: {why}"))
            }
        }
    }

    /// Puts what came where a configuration that is put in force finds it open, before it is.
    ///
    /// # Errors
    /// When a socket is not what it is said to be.
    pub fn unpack(&mut self, running: &mut Running, ring: &Ring) -> Result<(), StartError> {
        let wrong =
            |error: io::Error| StartError::Other(format!("a socket that was handed over is of no use: {error}"));
        let workers = running.workers.count();
        for (place, sockets) in std::mem::take(&mut self.parcel.listeners) {
            let sockets = sockets.into_iter().map(TcpListener::from).collect();
            running.listeners.take_over(place, sockets, workers).map_err(wrong)?;
        }
        let metrics = std::mem::take(&mut self.parcel.metrics);
        let metrics = metrics.into_iter().map(|(address, socket)| (address, Arc::new(TcpListener::from(socket))));
        running.metrics.send_replace(metrics.collect());
        let Known { keys, cookies, tallies, .. } = &self.parcel.known;
        ring.go_on_with(keys, SystemTime::now());
        running.clients.go_on_with(cookies);
        if let Some(clients) = self.parcel.clients.take() {
            running.clients.take_over(clients);
        }
        running.farm.generations().add_upgrades(tallies.upgrades + 1, tallies.upgrades_refused);
        self.parcel.known.before_install(&running.farm);
        Ok(())
    }

    /// The control socket, where the configuration wants the one that came.
    pub fn control(&mut self, path: &Path) -> Option<ControlSocket> {
        let (_, socket) = self.parcel.control.take().filter(|(known, _)| known == path)?;
        match ControlSocket::lent(socket.into(), path.to_owned()) {
            Ok(control) => Some(control),
            Err(error) => {
                tracing::warn!(%error, path = %path.display(), "the control socket has lost its name: it is opened anew");
                None
            }
        }
    }

    /// Says that this process could serve, and waits until it is to.
    ///
    /// # Errors
    /// In words, when it is not to.
    pub async fn ready(&mut self, control: bool) -> Result<(), String> {
        let gone = |error: io::Error| format!("the process before is gone, or does without this one: {error}");
        self.link.send(&ToOld::Ready { control }, &[]).await.map_err(gone)?;
        match timeout(PARCEL, self.link.receive()).await {
            Ok(Ok((ToNew::Go, _))) => {}
            Ok(Ok((other, _))) => return Err(format!("the process before said {other:?} where 'go' was expected")),
            Ok(Err(error)) => return Err(gone(error)),
            Err(_) => return Err("the process before did not say 'go' in time".to_owned()),
        }
        if let Some(stderr) = self.parcel.stderr.take() {
            // What is logged went through the old process, which ends some day.
            rustix::stdio::dup2_stderr(&stderr).map_err(|error| gone(error.into()))?;
        }
        Ok(())
    }

    /// Says why it cannot serve.
    pub async fn give_up(&self, why: &str) {
        let _ = say_no(&self.link, why).await;
    }

    /// This process accepts. Its doors stay closed until they are its own.
    pub fn serving(self, control: Option<Arc<ControlSocket>>, clients: Arc<Clients>) -> Settling {
        let Heir { link, pid, version, .. } = self;
        Settling { link, pid, version, control, clients }
    }
}

async fn receive(link: &Link) -> Result<(u32, String, Parcel), String> {
    let broken = |error: io::Error| error.to_string();
    let (hello, _) = link.receive::<serde_json::Value>().await.map_err(broken)?;
    // First of all, whatever else it may say: another format may have another shape.
    let format = hello.get("format").and_then(serde_json::Value::as_u64);
    let other = |version: &str| {
        let format = format.map_or("none".to_owned(), |format| format.to_string());
        format!(
            "it speaks format {format}{version}, and reeve {VERSION} speaks {FORMAT}: stop it and start this one instead"
        )
    };
    let version = hello.get("version").and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
    if format != Some(u64::from(FORMAT)) {
        return Err(other(&if version.is_empty() { version } else { format!(" (reeve {version})") }));
    }
    let Ok(ToNew::Hello { pid, version, .. }) = serde_json::from_value(hello) else { return Err(other("")) };
    let mut parcel = Parcel::default();
    for _ in 0..SECTIONS {
        match link.receive::<ToNew>().await.map_err(broken)? {
            (ToNew::Section { name, data }, descriptors) => parcel.take(Section { name, data, descriptors })?,
            (ToNew::Whole, _) => return Ok((pid, version, parcel)),
            (ToNew::Other, _) => {}
            (other, _) => return Err(format!("it said {other:?} within its sections")),
        }
    }
    Err(format!("it has more than {SECTIONS} sections"))
}

/// What comes with the service.
struct Given {
    connections: u64,
    counted: Counted,
    reloads_refused: u64,
    log_dropped: u64,
    panics: u64,
}

/// Why the service was not given to this process.
enum NotGiven {
    /// The process before is gone: there is nobody else.
    Gone(io::Error),
    /// It goes on, and ends this one.
    No(String),
}

impl From<io::Error> for NotGiven {
    fn from(error: io::Error) -> NotGiven {
        use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
        match error.kind() {
            UnexpectedEof | ConnectionReset | BrokenPipe => NotGiven::Gone(error),
            _ => NotGiven::No(error.to_string()),
        }
    }
}

impl Settling {
    /// Shows that this process serves, and takes the counters, the old processes and the control socket's name over: then the
    /// doors can be opened. An old process that is gone before that leaves all of it to this one. While `draining` nothing is
    /// taken: the old one goes on.
    pub async fn settle(
        self,
        before: &Before,
        workers: &Workers,
        tallies: &Tallies,
        mut draining: watch::Receiver<bool>,
    ) {
        let mut older = Vec::new();
        let agreed = tokio::select! {
            biased;
            () = stopped(&mut draining) => Err(NotGiven::No(TOLD_TO_END.to_owned())),
            agreed = self.agree(workers, &mut older) => agreed,
        };
        let agreed = match agreed {
            // Nothing is waited for in between: what is said is so.
            Ok(_) if *draining.borrow() => Err(NotGiven::No(TOLD_TO_END.to_owned())),
            other => other,
        };
        match agreed {
            Ok(Given { connections, counted, reloads_refused, log_dropped, panics }) => {
                tallies.inherit(reloads_refused, log_dropped, panics);
                // If it is gone by now, its link says so.
                let _ = timeout(STEP, self.link.send(&ToOld::Mine, &[])).await;
                for (old, link) in older {
                    before.add(old, link);
                }
                let Settling { link, pid, version, .. } = self;
                let since = SystemTime::now();
                before.add(Old { pid, version, since, connections, hurried: false, counted }, Arc::new(link));
                before.count();
                if *draining.borrow() {
                    before.hurry_all().await;
                }
                before.thin_out().await;
                tracing::info!(pid, "took over: the process before finishes what it has");
            }
            Err(NotGiven::Gone(error)) => self.is_alone(&error),
            Err(NotGiven::No(why)) => {
                tracing::warn!(pid = self.pid, "the service is not taken: {why}");
                let _ = say_no(&self.link, &why).await;
                // It is over when the old one ends this one, unless it ends itself.
                self.link.closed().await;
                if *draining.borrow() {
                    return;
                }
                self.is_alone(&io::ErrorKind::UnexpectedEof.into());
            }
        }
        if let Some(control) = self.control {
            control.own(true);
        }
    }

    fn is_alone(&self, error: &io::Error) {
        tracing::warn!(%error, pid = self.pid, "the process before ended before all was handed over");
    }

    async fn agree(&self, workers: &Workers, older: &mut Vec<(Old, Arc<Link>)>) -> Result<Given, NotGiven> {
        self.link.send(&ToOld::Serving, &[]).await?;
        tokio::time::sleep(SETTLE).await;
        let silent = workers.own_counters().await.silent;
        if !silent.is_empty() {
            return Err(NotGiven::No(format!("workers {silent:?} do not answer")));
        }
        self.link.send(&ToOld::Settled, &[]).await?;
        loop {
            let received = timeout(PARCEL, self.link.receive()).await;
            match received.map_err(|_| NotGiven::No("'yours' did not come in time".to_owned()))?? {
                (ToNew::Older { pid, version, since, connections, hurried, counted }, mut beside) => {
                    let Some(socket) = beside.pop() else { continue };
                    let link = Link::of(socket).map_err(|error| NotGiven::No(error.to_string()))?;
                    older.push((
                        Old { pid, version, since: time(since), connections, hurried, counted },
                        Arc::new(link),
                    ));
                }
                (ToNew::Yours { connections, counted, reloads_refused, log_dropped, panics }, _) => {
                    return Ok(Given { connections, counted, reloads_refused, log_dropped, panics });
                }
                (ToNew::Clients, mut beside) => {
                    if let Some(file) = beside.pop() {
                        self.clients.take_over(file);
                    }
                }
                (ToNew::Other, _) => {}
                (other, _) => return Err(NotGiven::No(format!("it said {other:?} where 'yours' was expected"))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Farm;

    #[tokio::test]
    async fn it_says_mine_when_it_has_what_was_counted_and_no_when_it_is_told_to_end() {
        for told in [false, true] {
            let (here, there) = Link::pair().unwrap();
            let link = Link::of(there).unwrap();
            let (farm, (workers, _)) = (Farm::empty(), Workers::new(0));
            let clients = Clients::new(farm.clone());
            let settling = Settling { link, pid: 7, version: "1".to_owned(), control: None, clients };
            let (workers, tallies) = (Arc::new(workers), Tallies::default());
            let before = Before::new(farm.clone(), workers.clone());
            let (stop, draining) = watch::channel(false);
            let old = async {
                for _ in 0..2 {
                    here.receive::<ToOld>().await.unwrap();
                }
                stop.send_replace(told);
                let counted = Counted::default();
                let yours = ToNew::Yours { connections: 3, counted, reloads_refused: 1, log_dropped: 2, panics: 4 };
                here.send(&yours, &[]).await.unwrap();
                let (answer, _) = here.receive::<ToOld>().await.unwrap();
                drop(here);
                answer
            };
            let (answer, ()) = tokio::join!(old, settling.settle(&before, &workers, &tallies, draining));
            let has = (tallies.reloads_refused(), tallies.log_dropped(), tallies.panics());
            if told {
                assert!(matches!(answer, ToOld::Refused { .. }), "{answer:?}");
                assert_eq!((has, farm.generations().old().len()), ((0, 0, 0), 0));
            } else {
                assert!(matches!(answer, ToOld::Mine), "{answer:?}");
                assert_eq!((has, farm.generations().old().len()), ((1, 2, 4), 1));
            }
        }
    }
}
