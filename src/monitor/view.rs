//! What the monitor shows of the farm: the configuration and the live state at one moment, as plain data.
//!
//! The exposition and the API both read this, so that neither depends on how the live state is kept.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::state::affinity::learnt::Finding;
use crate::state::media::load::{Carried, Load, Way};
use crate::state::tallies::Tallies;
use crate::state::{Change, Farm, Health, LiveAffinity, LivePool, LiveServer};

#[derive(Debug, Clone)]
pub struct View {
    pub pid: u32,
    pub started: SystemTime,
    pub uptime: Duration,
    /// 1 at the start, one more with each reload.
    pub generation: u64,
    /// Requests in flight are finished, new connections are not taken.
    pub draining: bool,
    /// Notes that the configuration in use was loaded with: parts that are not built yet.
    pub notes: u64,
    pub reloads: Reloads,
    /// When the configuration in force was put in force.
    pub loaded: Option<SystemTime>,
    /// Lines of the access log that were dropped because the writer did not keep up.
    pub log_dropped: u64,
    /// Faults of Reeve that ended a request, a connection or a probe.
    pub panics: u64,
    /// Upgrades since the service was started.
    pub upgrades: Reloads,
    /// Processes that were replaced and finish what they have, the oldest first.
    pub old: Vec<OldView>,
    pub listeners: Vec<ListenerView>,
    pub pools: Vec<PoolView>,
    pub affinities: Vec<AffinityView>,
}

/// Where clients were: the table of a pool, or of a group of pools.
#[derive(Debug, Clone)]
pub struct AffinityView {
    pub name: Arc<str>,
    /// Clients that are known.
    pub entries: u64,
    /// That it takes when it is full.
    pub bytes: usize,
    /// Clients that were forgotten before their time, to make room.
    pub evicted: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reloads {
    pub done: u64,
    /// There was a fault in the texts: what ran before still runs.
    pub refused: u64,
}

#[derive(Debug, Clone)]
pub struct OldView {
    pub pid: u32,
    pub version: String,
    /// Since it was replaced.
    pub age: Duration,
    /// Open client connections.
    pub connections: u64,
    /// It ends within `timeouts.drain`.
    pub hurried: bool,
}

#[derive(Debug, Clone)]
pub struct ListenerView {
    /// Its number in the counters.
    pub number: u32,
    pub name: Arc<str>,
    pub protocol: &'static str,
    pub addresses: Vec<SocketAddr>,
    /// Its clients come by TLS, which ends here.
    pub tls: bool,
    /// False when it needs a part that is not built yet, or is drained.
    pub open: bool,
    /// Taken out of service by hand.
    pub draining: bool,
}

#[derive(Debug, Clone)]
pub struct PoolView {
    /// Its number in the counters.
    pub number: u32,
    pub name: Arc<str>,
    pub scheduler: &'static str,
    /// Too few servers are up, so that all are used; `None` where that never is so.
    pub panics: Option<bool>,
    /// Requests that wait for a server.
    pub waiting: u64,
    /// Retries that were not made for want of budget, where it is bounded.
    pub retries_refused: Option<u64>,
    pub servers: Vec<ServerView>,
    /// What was found out about its servers' tickets, by their names; empty where nobody asks.
    pub tickets: Vec<(Arc<str>, Finding)>,
}

#[derive(Debug, Clone)]
pub struct ServerView {
    /// Its number in the counters.
    pub number: u32,
    pub name: Arc<str>,
    /// As configured.
    pub address: String,
    pub state: ServerState,
    /// How long it has been in that state.
    pub since: Duration,
    /// Why it is in that state; empty where there is nothing to say.
    pub reason: String,
    pub weight: u32,
    /// How much of it it has now, in percent.
    pub portion: u32,
    /// Taken out of service by hand: the file does not say so.
    pub drained: bool,
    /// Out for a while because of how it answered; `None` where nobody looks at that.
    pub ejected: Option<bool>,
    pub backup: bool,
    /// Requests in flight at most.
    pub limit: Option<u32>,
    pub in_flight: u64,
    /// The last probe, where it is checked.
    pub probe: Option<ProbeView>,
    /// What became of it lately, the newest last.
    pub changes: Vec<Arc<Change>>,
    /// Of RTSP; `None` where it never had a session.
    pub media: Option<MediaView>,
}

/// What a server carries of media, and has carried.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MediaView {
    pub sessions: u32,
    /// Named by the descriptions of its sessions, in kbit/s.
    pub kilobits: u64,
    /// How streams are carried, and how many.
    pub streams: [(&'static str, u64); 3],
    /// Which way, packets and bytes.
    pub traffic: [(&'static str, u64, u64); 2],
    /// Packets of these that the director has passed on.
    pub offloaded: [(&'static str, u64); 2],
    pub lost: u64,
    /// Of the last report, in seconds.
    pub jitter: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServerState {
    Up,
    Down,
    /// Takes no new requests: its weight is 0, or it was taken out of service by hand.
    Draining,
}

impl ServerState {
    pub fn word(self) -> &'static str {
        match self {
            ServerState::Up => "up",
            ServerState::Down => "down",
            ServerState::Draining => "draining",
        }
    }
}

#[derive(Debug, Clone)]
pub struct ProbeView {
    pub ok: bool,
    /// What it saw: a status, or what went wrong.
    pub detail: String,
    pub took: Duration,
    /// How long ago it began.
    pub ago: Duration,
}

impl View {
    /// As it is now.
    pub fn of(farm: &Farm, tallies: &Tallies) -> View {
        let snapshot = farm.snapshot();
        let now = SystemTime::now();
        let listeners = snapshot.config.listeners.iter().zip(&snapshot.listeners);
        let drained = farm.drains().listeners;
        let upgrades = farm.generations().upgrades();
        let old = farm.generations().old().into_iter().map(|old| OldView {
            pid: old.pid,
            age: now.duration_since(old.since).unwrap_or_default(),
            connections: old.connections,
            hurried: old.hurried,
            version: old.version,
        });
        View {
            pid: std::process::id(),
            started: farm.started_at(),
            uptime: farm.started().elapsed(),
            generation: snapshot.generation,
            draining: tallies.draining(),
            notes: tallies.notes(),
            reloads: Reloads { done: snapshot.generation.saturating_sub(1), refused: tallies.reloads_refused() },
            loaded: tallies.loaded(),
            log_dropped: tallies.log_dropped(),
            panics: tallies.panics(),
            upgrades: Reloads { done: upgrades.0, refused: upgrades.1 },
            old: old.collect(),
            listeners: listeners
                .map(|(listener, number)| ListenerView {
                    number: number.0,
                    name: Arc::clone(&listener.name),
                    protocol: listener.protocol.word(),
                    addresses: listener.addresses.clone(),
                    tls: listener.tls.is_some(),
                    open: listener.built && !drained.contains(&listener.name),
                    draining: drained.contains(&listener.name),
                })
                .collect(),
            pools: snapshot.pools.iter().map(|pool| pool_view(pool, now)).collect(),
            affinities: affinities(farm),
        }
    }
}

fn affinities(farm: &Farm) -> Vec<AffinityView> {
    let tables = farm.affinities().tables().into_iter();
    tables.map(|(name, entries, bytes, evicted)| AffinityView { name, entries, bytes, evicted }).collect()
}

fn pool_view(pool: &LivePool, now: SystemTime) -> PoolView {
    let outlier = pool.config().outlier.as_ref();
    PoolView {
        number: pool.id(),
        name: Arc::clone(pool.name()),
        scheduler: pool.config().scheduler.word(),
        waiting: pool.gate().waiting() as u64,
        retries_refused: pool.config().retry.budget.map(|_| pool.gate().budget().refused()),
        panics: outlier.filter(|outlier| outlier.panic > 0).map(|_| pool.panics()),
        servers: pool.servers().iter().map(|server| server_view(server, outlier.is_some(), now)).collect(),
        tickets: pool.affinity().map(LiveAffinity::findings).unwrap_or_default(),
    }
}

fn server_view(server: &LiveServer, looked_at: bool, now: SystemTime) -> ServerView {
    let mut standing = server.standing();
    let portion = server.portion();
    let state = match standing.health {
        _ if server.is_drained() => {
            standing.since = server.drained_since();
            standing.why = match standing.health {
                Health::Up => DRAINED.to_owned(),
                Health::Down => format!("{DRAINED}; down: {}", standing.why),
            };
            ServerState::Draining
        }
        Health::Down => ServerState::Down,
        Health::Up if server.weight() == 0 => ServerState::Draining,
        Health::Up if portion == 0 => {
            standing.why = server.advice().words();
            ServerState::Draining
        }
        Health::Up => ServerState::Up,
    };
    // The clock may have been set back in between; then it was just now.
    let ago = |then| now.duration_since(then).unwrap_or_default();
    ServerView {
        number: server.id(),
        name: Arc::clone(server.name()),
        address: server.configured_address().to_string(),
        state,
        since: ago(standing.since),
        reason: standing.why,
        weight: server.weight(),
        portion,
        drained: server.is_drained(),
        ejected: looked_at.then(|| server.is_ejected()),
        backup: server.is_backup(),
        limit: server.limit(),
        in_flight: server.in_flight().into(),
        probe: server.last_probe().map(|probe| ProbeView {
            ok: probe.ok,
            ago: ago(probe.at),
            took: probe.took,
            detail: probe.detail,
        }),
        changes: server.changes(),
        media: server.media().was_used().then(|| media_view(server.media())),
    }
}

fn media_view(load: &Load) -> MediaView {
    let traffic = |word, way| {
        let (packets, bytes) = load.traffic.of(way);
        (word, packets, bytes)
    };
    let offloaded = |word, way| (word, load.offloaded.of(way).0);
    MediaView {
        sessions: load.sessions(),
        kilobits: load.kilobits(),
        streams: [
            ("interleaved", load.streams(Carried::Interleaved)),
            ("relayed", load.streams(Carried::Relayed)),
            ("offloaded", load.streams(Carried::Offloaded)),
        ],
        traffic: [traffic("to-client", Way::ToClient), traffic("to-server", Way::ToServer)],
        offloaded: [offloaded("to-client", Way::ToClient), offloaded("to-server", Way::ToServer)],
        lost: load.lost(),
        jitter: load.jitter(),
    }
}

/// Nothing in the file says so.
const DRAINED: &str = "drained by hand, not in the file";

impl PoolView {
    /// Whether any server can take a request.
    pub fn up(&self) -> bool {
        self.servers.iter().any(|server| server.state == ServerState::Up)
    }
}
