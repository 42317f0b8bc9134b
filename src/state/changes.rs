//! What has become of a server, and why: the last changes, for people.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::SystemTime;

use crate::model::Limits;

/// One change of what is thought of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub at: SystemTime,
    /// `up`, `down`, `ejected`, `returned`, `drained`, `ready`, `advice`, `moved`.
    pub what: String,
    pub why: String,
    pub evidence: Evidence,
}

/// What a probe said and heard that led to a change; empty where no probe did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Evidence {
    /// The kind of the check.
    pub check: String,
    /// The last of it, printable.
    pub sent: String,
    pub heard: String,
}

/// The last [`Limits::CHANGES_KEPT`], the newest last.
#[derive(Debug, Clone, Default)]
pub struct Changes(VecDeque<Arc<Change>>);

impl Changes {
    pub fn add(&mut self, change: impl Into<Arc<Change>>) {
        if self.0.len() >= Limits::CHANGES_KEPT {
            self.0.pop_front();
        }
        self.0.push_back(change.into());
    }

    /// A change that no probe has led to, just now.
    pub fn note(&mut self, what: &str, why: impl Into<String>) {
        let (what, why) = (what.to_owned(), why.into());
        self.add(Change { at: SystemTime::now(), what, why, evidence: Evidence::default() });
    }

    pub fn list(&self) -> Vec<Arc<Change>> {
        self.0.iter().cloned().collect()
    }

    /// What another process knew comes before what has been added here.
    pub fn inherit(&mut self, before: Vec<Change>) {
        let own = std::mem::take(&mut self.0);
        before.into_iter().map(Arc::new).chain(own).for_each(|change| self.add(change));
    }
}
