//! The answers of `/api/v1` as types: the server writes them, the command line reads them.
//!
//! Fields may be added; none is renamed or removed within `v1`. Times are seconds.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::view::{ServerState, View};
use crate::state::Change;
use crate::state::commands::Answers;
use crate::state::connections::{ConnectionInfo, seconds};
use crate::state::counters::{Counters, OTHER_CODE, ServerLabels};
use crate::state::director::{Flows, Table};

/// `/api/v1/status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub version: String,
    pub pid: u32,
    #[serde(rename = "uptime_seconds", with = "seconds")]
    pub uptime: Duration,
    /// 1 at the start, one more with each reload.
    pub generation: u64,
    /// True while requests in flight are finished before the process ends.
    pub draining: bool,
    pub workers: WorkersReport,
    pub listeners: Vec<ListenerReport>,
    /// Open client connections of all listeners.
    pub connections: Gauges,
    pub requests: RequestsReport,
    pub pools: Share,
    /// Names of the pools of which no server is up.
    pub pools_down: Vec<String>,
    pub servers: Share,
    pub config: ConfigReport,
    #[serde(default)]
    pub upgrades: UpgradesReport,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkersReport {
    pub count: usize,
    /// Numbers of those that did not answer in time: what they counted since is missing.
    pub silent: Vec<usize>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ListenerReport {
    pub name: String,
    pub protocol: String,
    pub addresses: Vec<SocketAddr>,
    /// False when it needs a part that is not built yet, or is drained.
    pub open: bool,
    /// Taken out of service by hand: the file does not say so.
    pub draining: bool,
    pub connections: Gauges,
    /// Connections since the start.
    pub accepted: u64,
    pub requests: u64,
    /// Connections and requests turned away.
    pub rejected: u64,
    pub bytes_received: u64,
    pub bytes_sent: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Gauges {
    pub open: u64,
    pub active: u64,
    pub idle: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RequestsReport {
    pub total: u64,
    /// `2xx`, `4xx` ...; `other` for codes beyond 599.
    pub by_class: BTreeMap<String, u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Share {
    pub total: usize,
    pub up: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigReport {
    /// Parts that are written in the configuration in use but not built yet.
    pub notes: u64,
    pub reloads: u64,
    /// Reloads refused: the texts have faults, or what they ask for could not be had.
    pub reloads_refused: u64,
    /// How long the configuration has been in force.
    #[serde(rename = "loaded_seconds_ago", with = "seconds")]
    pub loaded_ago: Duration,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct UpgradesReport {
    /// Since the service was started, over all its processes.
    pub done: u64,
    pub refused: u64,
    /// Processes that were replaced and finish what they have in hand, the oldest first.
    pub old: Vec<OldReport>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OldReport {
    pub pid: u32,
    pub version: String,
    /// Since it was replaced.
    #[serde(rename = "age_seconds", with = "seconds")]
    pub age: Duration,
    /// Open client connections; not among those of the status.
    pub connections: u64,
    /// It was told to end within `timeouts.drain`.
    pub hurried: bool,
}

/// `/api/v1/servers`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Servers {
    /// In the order of the configuration.
    pub servers: Vec<ServerReport>,
    pub silent_workers: Vec<usize>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServerReport {
    pub pool: String,
    pub server: String,
    pub address: String,
    pub state: ServerState,
    /// How long it has been in that state.
    #[serde(rename = "since_seconds", with = "seconds")]
    pub since: Duration,
    pub reason: String,
    pub weight: u32,
    /// How much of its weight it has now, in percent: less after it came up, or by its agent.
    #[serde(default = "whole")]
    pub portion: u32,
    /// Taken out of service by hand: the file does not say so.
    pub drained: bool,
    /// Out for a while because of how it answered.
    #[serde(default)]
    pub ejected: bool,
    pub backup: bool,
    pub limit: Option<u32>,
    pub in_flight: u64,
    pub probe: Option<ProbeReport>,
    /// Answered since the start.
    pub requests: u64,
    /// What it has of layer 4, in all services of its pool; none where no service has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer4: Option<Layer4>,
    /// What became of it lately, the newest last; only where it is asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<ChangeReport>,
}

/// A server's flows of layer 4.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer4 {
    pub active: u64,
    pub inactive: u64,
    /// Begun since the tables were made.
    pub connections: u64,
}

/// One change of what is thought of a server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChangeReport {
    #[serde(rename = "ago_seconds", with = "seconds")]
    pub ago: Duration,
    /// `up`, `down`, `ejected`, `returned`, `drained`, `ready`, `advice`, `moved`.
    pub what: String,
    pub why: String,
    /// The kind of the check that led to it; empty where none did.
    pub check: String,
    /// The last that its probe sent and received, printable.
    pub sent: String,
    pub heard: String,
}

/// Which servers are told, and how much of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wanted<'a> {
    pub pool: Option<&'a str>,
    pub server: Option<&'a str>,
    /// With their last changes.
    pub long: bool,
}

fn whole() -> u32 {
    100
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProbeReport {
    pub ok: bool,
    pub detail: String,
    #[serde(rename = "duration_seconds", with = "seconds")]
    pub took: Duration,
    #[serde(rename = "ago_seconds", with = "seconds")]
    pub ago: Duration,
}

/// `/api/v1/connections`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Connections {
    /// The busy before the idle, the oldest first; at most as many as were asked for.
    pub connections: Vec<ConnectionInfo>,
    /// Open connections, shown or not.
    pub total: u64,
    pub silent_workers: Vec<usize>,
    /// Flows of layer 4; none where there is no director.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flows: Option<Flows>,
}

/// Any answer that is not 200.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Problem {
    /// One sentence.
    pub error: String,
}

impl Status {
    pub fn of(view: &View, answers: &Answers<Counters>, workers: usize) -> Status {
        let mut requests = RequestsReport::default();
        let mut by_listener: HashMap<u32, u64> = HashMap::new();
        for (labels, counted) in answers.merged.requests() {
            // Every request has a time; codes are forgotten with their server.
            let count = counted.total.count();
            requests.total += count;
            *by_listener.entry(labels.listener).or_default() += count;
            for (code, count) in counted.codes() {
                *requests.by_class.entry(class(*code)).or_default() += count;
            }
        }
        let counted: HashMap<u32, _> = answers.merged.listeners().collect();
        let listeners: Vec<ListenerReport> = view
            .listeners
            .iter()
            .map(|listener| {
                let counters = counted.get(&listener.number).copied().cloned().unwrap_or_default();
                ListenerReport {
                    name: listener.name.to_string(),
                    protocol: listener.protocol.to_owned(),
                    addresses: listener.addresses.clone(),
                    open: listener.open,
                    draining: listener.draining,
                    connections: Gauges {
                        open: counters.active + counters.idle,
                        active: counters.active,
                        idle: counters.idle,
                    },
                    accepted: counters.accepted,
                    requests: by_listener.get(&listener.number).copied().unwrap_or(0),
                    rejected: counters.rejected().map(|(_, count)| count).sum(),
                    bytes_received: counters.received,
                    bytes_sent: counters.sent,
                }
            })
            .collect();
        let servers = || view.pools.iter().flat_map(|pool| &pool.servers);
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: view.pid,
            uptime: view.uptime,
            generation: view.generation,
            draining: view.draining,
            workers: WorkersReport { count: workers, silent: answers.silent.clone() },
            listeners,
            connections: open(&answers.merged),
            requests,
            pools: Share { total: view.pools.len(), up: view.pools.iter().filter(|pool| pool.up()).count() },
            pools_down: view.pools.iter().filter(|pool| !pool.up()).map(|pool| pool.name.to_string()).collect(),
            servers: Share {
                total: servers().count(),
                up: servers().filter(|server| server.state != ServerState::Down).count(),
            },
            config: ConfigReport {
                notes: view.notes,
                reloads: view.reloads.done,
                reloads_refused: view.reloads.refused,
                // The clock may have been set back since.
                loaded_ago: view.loaded.and_then(|at| at.elapsed().ok()).unwrap_or_default(),
            },
            upgrades: UpgradesReport {
                done: view.upgrades.done,
                refused: view.upgrades.refused,
                old: view
                    .old
                    .iter()
                    .map(|old| OldReport {
                        pid: old.pid,
                        version: old.version.clone(),
                        age: old.age,
                        connections: old.connections,
                        hurried: old.hurried,
                    })
                    .collect(),
            },
        }
    }
}

impl Servers {
    pub fn of(view: &View, answers: &Answers<Counters>, director: Option<&Table>, wanted: Wanted<'_>) -> Servers {
        let layer4 = layer4(director);
        let mut requests: HashMap<ServerLabels, u64> = HashMap::new();
        for (labels, counted) in answers.merged.requests() {
            *requests.entry(ServerLabels { pool: labels.pool, server: labels.server }).or_default() += counted.count();
        }
        let servers = view.pools.iter().flat_map(|pool| pool.servers.iter().map(move |server| (pool, server)));
        let is_wanted = |wanted: Option<&str>, name: &str| wanted.is_none_or(|wanted| wanted == name);
        let servers = servers
            .filter(|(pool, server)| is_wanted(wanted.pool, &pool.name) && is_wanted(wanted.server, &server.name));
        let now = SystemTime::now();
        let change = |change: &Arc<Change>| ChangeReport {
            ago: now.duration_since(change.at).unwrap_or_default(),
            what: change.what.clone(),
            why: change.why.clone(),
            check: change.evidence.check.clone(),
            sent: change.evidence.sent.clone(),
            heard: change.evidence.heard.clone(),
        };
        let servers = servers.map(|(pool, server)| ServerReport {
            pool: pool.name.to_string(),
            server: server.name.to_string(),
            address: server.address.clone(),
            state: server.state,
            since: server.since,
            reason: server.reason.clone(),
            weight: server.weight,
            portion: server.portion,
            drained: server.drained,
            ejected: server.ejected == Some(true),
            backup: server.backup,
            limit: server.limit,
            in_flight: server.in_flight,
            probe: server.probe.as_ref().map(|probe| ProbeReport {
                ok: probe.ok,
                detail: probe.detail.clone(),
                took: probe.took,
                ago: probe.ago,
            }),
            requests: requests.get(&ServerLabels { pool: pool.number, server: server.number }).copied().unwrap_or(0),
            layer4: layer4.get(&(&*pool.name, &*server.name)).copied(),
            changes: if wanted.long { server.changes.iter().map(change).collect() } else { Vec::new() },
        });
        Servers { servers: servers.collect(), silent_workers: answers.silent.clone() }
    }
}

impl Connections {
    pub fn of(shown: Answers<Vec<ConnectionInfo>>, counters: &Answers<Counters>, flows: Option<Flows>) -> Connections {
        let (connections, silent_workers) = (shown.merged, shown.silent);
        Connections { connections, total: open(&counters.merged).open, silent_workers, flows }
    }
}

/// By pool and server.
fn layer4(director: Option<&Table>) -> HashMap<(&str, &str), Layer4> {
    let mut all: HashMap<(&str, &str), Layer4> = HashMap::new();
    for service in director.iter().flat_map(|table| &table.services) {
        for server in &service.servers {
            if let (Some(pool), Some(name)) = (&service.pool, &server.name) {
                let sum = all.entry((pool, name)).or_default();
                sum.active += u64::from(server.active);
                sum.inactive += u64::from(server.inactive);
                sum.connections += server.counted.connections;
            }
        }
    }
    all
}

fn open(counters: &Counters) -> Gauges {
    counters.listeners().fold(Gauges::default(), |sum, (_, listener)| Gauges {
        open: sum.open + listener.active + listener.idle,
        active: sum.active + listener.active,
        idle: sum.idle + listener.idle,
    })
}

fn class(code: u16) -> String {
    match code {
        OTHER_CODE | 600.. => "other".to_owned(),
        _ => format!("{}xx", code / 100),
    }
}
