//! What one reload put in place, all of it at once.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::counters::{NONE, ServerLabels};
use super::crowd::Crowd;
use super::pool::LivePool;
use super::rule_hits::{RuleMoves, RuleNames};
use super::secured::ServerSlot;
use crate::model::Config;
use crate::route::Table;

/// Swapped whole: a request that holds one sees rules, pools and settings that belong together.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Grows by one with every reload, from 1.
    pub generation: u64,
    pub config: Arc<Config>,
    /// Compiled rules, in the order of `config.rule_sets`.
    pub tables: Vec<Arc<Table>>,
    /// In the order of `config.pools`.
    pub pools: Vec<Arc<LivePool>>,
    /// In the order of `config.listeners`.
    pub listeners: Vec<ListenerId>,
    /// What listeners offer, in the order of `config.listeners`; shorter where there is none.
    pub tls: Vec<Option<ServerSlot>>,
    /// The ids of all rules, table after table: a rule's place here is its table's offset and its number.
    pub rule_names: RuleNames,
    /// By table.
    pub rule_offsets: Vec<usize>,
    /// Where the rules of the snapshot before are now.
    pub rule_moves: Arc<RuleMoves>,
    /// By a rule's place in `rule_names`: of those that limit how many requests they have under way.
    pub crowds: HashMap<usize, Arc<Crowd>>,
}

impl Snapshot {
    pub fn pool(&self, name: &str) -> Option<&Arc<LivePool>> {
        self.pools.iter().find(|pool| **pool.name() == *name)
    }

    /// What counters are kept by: every pool alone, and with each of its servers.
    pub fn labels(&self) -> HashSet<ServerLabels> {
        let of_pool = |pool: &Arc<LivePool>| {
            let servers: Vec<u32> = pool.servers().iter().map(|server| server.id()).chain([NONE]).collect();
            let pool = pool.id();
            servers.into_iter().map(move |server| ServerLabels { pool, server })
        };
        self.pools.iter().flat_map(of_pool).collect()
    }

    /// One with nothing in it but the name of a rule.
    pub fn remains(&self, rule: Option<usize>) -> Arc<Snapshot> {
        let rule_names = rule.and_then(|rule| self.rule_names.get(rule)).cloned().into_iter().collect();
        Arc::new(Snapshot { generation: self.generation, rule_names, ..Snapshot::default() })
    }
}

/// Dense over the process and never used for a listener of another name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListenerId(pub u32);
