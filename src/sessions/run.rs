//! Asks the servers, as often as their pools want it.
//!
//! Belongs on the control thread. A pool's servers are asked when sealed connections may come to them: its affinity is
//! by TLS sessions, and some listener passes TLS on. What was found outlives a reload.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::machine::{Asked, Tickets};
use crate::model::affinity::{By, TlsSession};
use crate::model::listener::Protocol;
use crate::model::pool::{Address, ProxyVersion};
use crate::state::affinity::learnt::{Finding, Found};
use crate::state::{Farm, Health, LivePool, Snapshot};
use crate::tls::{self, SessionVersion};
use crate::wire::proxy_header;

/// How often it is looked who is to be asked.
const LOOK: Duration = Duration::from_millis(200);

/// Servers that are asked at the same time.
const AT_ONCE: usize = 16;

/// For one handshake and the ticket behind it; servers are asked as clients ask, and most answer in milliseconds.
const HANDSHAKE: Duration = Duration::from_secs(3);

/// A server to be asked.
struct Question {
    pool: Arc<str>,
    server: Arc<str>,
    address: SocketAddr,
    name: rustls::pki_types::ServerName<'static>,
    greeting: Vec<u8>,
}

/// A pool and a server of it.
type Whose = (Arc<str>, Arc<str>);

/// Asks until `stop` is true or its sender is gone.
pub async fn run(farm: Arc<Farm>, mut stop: watch::Receiver<bool>) {
    let mut pools: HashMap<Arc<str>, Tickets> = HashMap::new();
    // When each was asked last.
    let mut asked: HashMap<Whose, Instant> = HashMap::new();
    let mut asking: JoinSet<(Arc<str>, Arc<str>, Vec<Asked>)> = JoinSet::new();
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            Some(answer) = asking.join_next() => {
                let Ok((pool, server, answers)) = answer else { continue };
                let Some(live) = farm.snapshot().pool(&pool).cloned() else { continue };
                let tickets = pools.entry(pool).or_default();
                let before = tickets.found();
                tickets.observe(&server, &answers, Instant::now());
                tickets.retain(|name| live.servers().iter().any(|server| **server.name() == *name));
                put(&live, &before, tickets.found());
            }
            _ = ticks.tick() => {
                let snapshot = farm.snapshot();
                let now = Instant::now();
                let wanted = wanted(&snapshot);
                pools.retain(|name, _| wanted.iter().any(|(pool, _)| pool.name() == name));
                asked.retain(|(pool, _), _| pools.contains_key(pool) || wanted.iter().any(|(own, _)| own.name() == pool));
                for (pool, session) in wanted {
                    for question in questions(pool, session) {
                        let whose = (question.pool.clone(), question.server.clone());
                        let due = asked.get(&whose).is_none_or(|at| now.duration_since(*at) >= session.interval);
                        if due && asking.len() < AT_ONCE {
                            asked.insert(whose, now);
                            asking.spawn(ask(question));
                        }
                    }
                }
            }
        }
    }
}

/// The pools whose servers are to be asked.
fn wanted(snapshot: &Snapshot) -> Vec<(&Arc<LivePool>, &TlsSession)> {
    if snapshot.config.listeners.iter().all(|listener| listener.protocol != Protocol::TlsPassthrough) {
        return Vec::new();
    }
    let by =
        |pool: &'_ Arc<LivePool>| matches!(pool.config().affinity.as_ref().map(|own| &own.by), Some(By::TlsSession(_)));
    let of = |pool| match &LivePool::config(pool).affinity.as_ref()?.by {
        By::TlsSession(session) => Some(session),
        _ => None,
    };
    snapshot.pools.iter().filter(|pool| by(pool)).filter_map(|pool| Some((pool, of(pool)?))).collect()
}

/// Those of a pool's servers that can be asked.
fn questions<'p>(pool: &'p LivePool, session: &'p TlsSession) -> impl Iterator<Item = Question> + 'p {
    let mut greeting = Vec::new();
    match pool.config().send_proxy {
        Some(ProxyVersion::V1) => proxy_header::write_v1(None, &mut greeting),
        Some(ProxyVersion::V2) => proxy_header::write_v2(None, std::iter::empty(), &mut greeting),
        None => {}
    }
    let up = pool.servers().iter().filter(|server| server.health() == Health::Up);
    up.filter_map(move |server| {
        let address = server.address()?;
        let host = match (&session.server_name, server.configured_address()) {
            (Some(name), _) => name.to_string(),
            (None, Address::Name { host, .. }) => host.to_string(),
            (None, Address::Ip(address)) => address.ip().to_string(),
        };
        Some(Question {
            pool: pool.name().clone(),
            server: server.name().clone(),
            address,
            name: host.try_into().ok()?,
            greeting: greeting.clone(),
        })
    })
}

async fn ask(question: Question) -> (Arc<str>, Arc<str>, Vec<Asked>) {
    let mut answers = Vec::new();
    for version in [SessionVersion::Tls13, SessionVersion::Tls12] {
        answers.push(twice(&question, version).await);
    }
    (question.pool, question.server, answers)
}

async fn twice(question: &Question, version: SessionVersion) -> Asked {
    let mut names = [None; 2];
    for name in &mut names {
        let one = async {
            let mut tcp = TcpStream::connect(question.address).await.map_err(|error| error.to_string())?;
            tcp.write_all(&question.greeting).await.map_err(|error| error.to_string())?;
            tls::key_name(tcp, question.name.clone(), version).await
        };
        *name = timeout(HANDSHAKE, one).await.unwrap_or_else(|_| Err("took too long".to_owned()))?;
    }
    Ok(names)
}

/// Puts what is found where it is looked for, and says what is new.
fn put(pool: &LivePool, before: &Found, found: Found) {
    for (server, finding) in &found.findings {
        let was = before.findings.iter().find(|(name, _)| name == server).map(|(_, finding)| finding);
        if was.map(Finding::word) == Some(finding.word()) {
            continue;
        }
        let (pool, server) = (&**pool.name(), &**server);
        match finding {
            Finding::Learnt => tracing::info!(pool, server, "TLS sessions: its tickets are known by their key"),
            Finding::Shared(with) => {
                let with = with.join(", ");
                tracing::info!(
                    pool,
                    server,
                    with,
                    "TLS sessions: it has the same ticket keys as others: sessions are resumed at any of them, and tickets bind nobody"
                );
            }
            Finding::Opaque => tracing::warn!(
                pool,
                server,
                "TLS sessions: its tickets do not say which key made them: clients that resume by ticket go where the scheduler sends them"
            ),
            Finding::None => tracing::info!(
                pool,
                server,
                "TLS sessions: it gives no tickets; sessions of TLS 1.2 are known by their id"
            ),
            Finding::Unreachable(why) => {
                tracing::warn!(pool, server, why, "TLS sessions: it cannot be asked for tickets")
            }
        }
    }
    if let Some(affinity) = pool.affinity() {
        affinity.learn(found);
    }
}
