//! The whole of what the operator means.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use super::{Limits, Timeouts, director::Director, listener::Listener, pool::Pool, rule::RuleSet};

#[derive(Debug, Clone, PartialEq, Default)]
pub struct Config {
    /// In the order of the file.
    pub listeners: Vec<Listener>,
    /// In the order of the file. Rules name pools by their position here.
    pub pools: Vec<Pool>,
    /// Distinct sets of rule files; a listener names one by its position.
    pub rule_sets: Vec<RuleSet>,
    pub timeouts: Timeouts,
    pub limits: Limits,
    pub process: Process,
    pub log: Log,
    pub monitor: Monitor,
    /// `[director]`: layer 4; `None`: off.
    pub director: Option<Director>,
    /// `[errors]`: status to the page that answers it, read at load.
    pub errors: BTreeMap<u16, Arc<[u8]>>,
    /// `[state] path`.
    pub state_path: Option<PathBuf>,
    /// The base folder: relative paths start here.
    pub base: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Process {
    /// Worker threads; `None`: one per core of the affinity mask.
    pub workers: Option<usize>,
    /// The control socket; `None`: the default of the user who runs it.
    pub socket: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Log {
    /// No access log where there is none.
    pub access: Option<AccessLog>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessLog {
    pub format: LogFormat,
    pub target: LogTarget,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Json,
    /// The combined format and `rule= pool= server= t=`.
    Text,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogTarget {
    Stdout,
    File(PathBuf),
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Monitor {
    /// Bare `/metrics` over plain HTTP.
    pub metrics_addresses: Vec<SocketAddr>,
}
