//! What is known of the tickets that servers of sealed TLS give. Written by `sessions`, read by the proxy and the monitor.

use std::collections::HashMap;
use std::sync::Arc;

use super::table::Number;

/// What was found out about the servers of a pool.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Whose key a ticket was made with, by the name of the key: the server's name.
    pub keys: HashMap<[u8; 16], Arc<str>>,
    /// By the server's name, sorted.
    pub findings: Vec<(Arc<str>, Finding)>,
}

/// What a server's tickets are good for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// They say that they are its own.
    Learnt,
    /// These servers make tickets with the same keys: sessions are taken up at any of them.
    Shared(Vec<Arc<str>>),
    /// Nothing of them is the same from one to the next: clients are not known by them.
    Opaque,
    /// It gives none.
    None,
    /// Why it could not be asked.
    Unreachable(String),
}

impl Finding {
    pub const WORDS: [&str; 5] = ["learnt", "shared", "opaque", "none", "unreachable"];

    /// A label.
    pub fn word(&self) -> &'static str {
        Finding::WORDS[match self {
            Finding::Learnt => 0,
            Finding::Shared(_) => 1,
            Finding::Opaque => 2,
            Finding::None => 3,
            Finding::Unreachable(_) => 4,
        }]
    }
}

/// The same, as the proxy looks it up.
#[derive(Debug, Default)]
pub(super) struct Learnt {
    pub keys: HashMap<[u8; 16], Number>,
    pub findings: Vec<(Arc<str>, Finding)>,
}
