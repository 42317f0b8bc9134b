//! `auth forward`: a service is asked, by a GET with the request's fields, whether it may pass.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::lookup_host;
use tokio::sync::watch;

use super::Verdict;
use crate::model::Limits;
use crate::model::rule::AuthUrl;
use crate::net::dial::dial;
use crate::net::{Stream, Timer};
use crate::proxy::ask::{self, Said, Wanted};
use crate::proxy::failure::{Failure, FailureKind};
use crate::proxy::forward::{self, Incoming};
use crate::proxy::worker::Worker;
use crate::tls;
use crate::wire::http1::response::{self, Method};

/// For a question and its answer, connecting included. A person waits for it.
const LIMIT: Duration = Duration::from_secs(5);
/// Of an answer that goes to the client: a page that asks who he is.
const ANSWER: usize = 64 << 10;
/// Idle connections kept to one service by one worker, and for how long.
const MOST_IDLE: usize = 16;
const KEPT: Duration = Duration::from_secs(30);

/// What a service is asked.
#[derive(Debug)]
pub struct Question {
    url: Arc<AuthUrl>,
    head: Vec<u8>,
}

/// A connection, and until when it is kept.
type Idle = (Stream, Instant);

/// Connections to services that are kept by one worker.
#[derive(Debug, Default)]
pub struct Services {
    /// By scheme and authority.
    idle: RefCell<HashMap<Arc<str>, Vec<Idle>>>,
    /// Look-ups of names that are under way, likewise.
    lookups: Rc<RefCell<HashMap<Arc<str>, Lookup>>>,
}

/// What a look-up found; `None`: nothing yet.
type Lookup = watch::Receiver<Option<Result<SocketAddr, String>>>;

impl Services {
    fn take(&self, origin: &str) -> Option<Stream> {
        let mut idle = self.idle.borrow_mut();
        let kept = idle.get_mut(origin)?;
        while let Some((stream, _)) = kept.pop() {
            if stream.is_quiet() {
                return Some(stream);
            }
        }
        None
    }

    fn keep(&self, origin: &Arc<str>, stream: Stream, now: Instant) {
        let mut idle = self.idle.borrow_mut();
        let kept = idle.entry(origin.clone()).or_default();
        if kept.len() < MOST_IDLE {
            kept.push((stream, now + KEPT));
        }
    }

    /// The one look-up of a name that is under way, which is begun where there is none. Each has a thread for as long as the
    /// resolver is silent, whoever has lost patience with it.
    fn lookup(&self, url: &AuthUrl) -> Lookup {
        if let Some(lookup) = self.lookups.borrow().get(&url.origin) {
            return lookup.clone();
        }
        let (found, lookup) = watch::channel(None);
        self.lookups.borrow_mut().insert(url.origin.clone(), lookup.clone());
        let (lookups, origin, host, port) = (self.lookups.clone(), url.origin.clone(), url.host.clone(), url.port);
        tokio::task::spawn_local(async move {
            let first = lookup_host((&*host, port)).await.map(|mut addresses| addresses.next());
            let first = first.map_err(|error| error.to_string());
            lookups.borrow_mut().remove(&origin);
            found.send_replace(Some(first.and_then(|first| first.ok_or_else(|| "its name has no address".to_owned()))));
        });
        lookup
    }

    /// Closes those that are too old or were closed. Called once a second.
    pub fn sweep(&self, now: Instant) {
        self.idle.borrow_mut().retain(|_, kept| {
            kept.retain(|(stream, until)| *until > now && stream.is_quiet());
            !kept.is_empty()
        });
    }
}

pub fn question(worker: &Worker, url: &Arc<AuthUrl>, incoming: &Incoming<'_, '_>) -> Question {
    let mut head = worker.buffers.text();
    forward::write_question(incoming, url, &mut head);
    Question { url: url.clone(), head }
}

impl Question {
    pub async fn run(self, worker: &Rc<Worker>, limits: &Limits, timer: &Timer) -> Result<Verdict, Failure> {
        let said = timer.wait(LIMIT, Box::pin(self.ask(worker, limits))).await;
        let unreachable = |why: String| Failure::new(FailureKind::AuthUnreachable, why);
        let service = &self.url.origin;
        let said = said
            .map_err(|_| unreachable(format!("{service} does not say in time who may pass")))?
            .map_err(|error| unreachable(format!("{service} does not say who may pass: {error}")))?;
        let failed = |why: &str| Failure::new(FailureKind::AuthFailed, format!("{service} {why}"));
        let head = response::parse(&said.head, Method::Other, limits).ok().flatten();
        let head = head.ok_or_else(|| failed("gives no answer of HTTP"))?;
        match head.status {
            200..300 => {
                let mut fields = Vec::new();
                for field in head.fields.iter().filter(|field| forward::tells_who(field.name)) {
                    crate::wire::http1::lines::write(field.name, field.value, &mut fields);
                }
                if fields.len() > limits.header_bytes {
                    return Err(failed("says too much of who it is"));
                }
                Ok(Verdict::Pass(fields))
            }
            300..=303 | 307 | 308 | 401 | 403 if said.whole => {
                drop(head);
                Ok(Verdict::Said(Box::new(said)))
            }
            300..=303 | 307 | 308 | 401 | 403 => Err(failed("gives an answer that is too large")),
            status => Err(failed(&format!("answers {status} when asked who may pass"))),
        }
    }

    async fn ask(&self, worker: &Rc<Worker>, limits: &Limits) -> std::io::Result<Said> {
        let wanted = Wanted { read: ANSWER, kept: true };
        // The service may be closing an idle one this very moment; a question can be asked twice.
        if let Some(mut stream) = worker.services.take(&self.url.origin)
            && let Ok(said) = ask::ask(worker, &mut stream, &self.head, Method::Other, wanted, limits).await
        {
            return Ok(self.done(worker, said, stream));
        }
        let mut stream = self.connect(worker).await?;
        let said = ask::ask(worker, &mut stream, &self.head, Method::Other, wanted, limits).await?;
        Ok(self.done(worker, said, stream))
    }

    async fn connect(&self, worker: &Worker) -> std::io::Result<Stream> {
        let tcp = dial(self.address(worker).await?, &[], &worker.wheel.timer(), LIMIT).await;
        let tcp = tcp.map_err(|error| std::io::Error::other(error.detail()))?;
        if !self.url.tls {
            return Ok(Stream::plain(tcp));
        }
        // The load has seen both.
        let (Some(config), Some(name)) = (tls::by_system(true), tls::named(&self.url.host)) else {
            return Err(std::io::Error::other("it cannot prove who it is"));
        };
        let (tcp, session) = tls::connect(tcp, config.load_full(), name).await.map_err(std::io::Error::other)?;
        Ok(Stream::tls(tcp, session))
    }

    fn done(&self, worker: &Worker, said: Said, stream: Stream) -> Said {
        if said.reusable {
            worker.services.keep(&self.url.origin, stream, worker.lately());
        }
        said
    }

    async fn address(&self, worker: &Worker) -> std::io::Result<SocketAddr> {
        let (host, port) = (&*self.url.host, self.url.port);
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(SocketAddr::new(address, port));
        }
        let mut lookup = worker.services.lookup(&self.url);
        let found =
            lookup.wait_for(Option::is_some).await.map_err(|_| std::io::Error::other("looking up its name failed"))?;
        match found.as_ref() {
            Some(Ok(address)) => Ok(*address),
            Some(Err(why)) => Err(std::io::Error::other(&**why)),
            None => Err(std::io::Error::other("looking up its name failed")),
        }
    }
}
