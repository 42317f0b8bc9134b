//! By what a client is known again, so that it comes to the server it was at.

use std::sync::Arc;
use std::time::Duration;

use super::rule::Key;

#[derive(Debug, Clone, PartialEq)]
pub struct Affinity {
    pub by: By,
    /// How long an entry of the table lives after it was used last, in whole seconds. Cookies that name the server have no table.
    pub life: Duration,
    /// Entries of the table; where it is full, the one that was used longest ago makes room.
    pub entries: usize,
    pub when_down: WhenDown,
    /// Pools of one group share their table and cookies: a client is at the server of the same name in all of them.
    pub group: Option<Arc<str>>,
}

impl Affinity {
    pub const LIFE: Duration = Duration::from_secs(30 * 60);
    pub const ENTRIES: usize = 100_000;

    /// What is so where nothing else is said.
    pub fn by(by: By) -> Affinity {
        let (life, entries) = (Affinity::LIFE, Affinity::ENTRIES);
        Affinity { by, life, entries, when_down: WhenDown::Other, group: None }
    }

    /// Whether what is known of clients is kept here, and not by them.
    pub fn has_table(&self) -> bool {
        !matches!(self.by, By::Cookie { .. })
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum By {
    /// A cookie that names the server.
    Cookie { name: Arc<str>, mode: CookieMode },
    /// The application's own session.
    Learn(Learn),
    /// The client's address, as far as these masks reach.
    Source { v4: u8, v6: u8 },
    /// A header, a parameter of the query, or what the rule's path captured.
    Key(Key),
    /// The TLS session that a client resumes.
    TlsSession(TlsSession),
}

impl By {
    /// The configuration's word.
    pub fn word(&self) -> &'static str {
        match self {
            By::Cookie { mode: CookieMode::Insert, .. } => "cookie insert",
            By::Cookie { mode: CookieMode::Rewrite, .. } => "cookie rewrite",
            By::Cookie { mode: CookieMode::Prefix, .. } => "cookie prefix",
            By::Learn(_) => "cookie learn",
            By::Source { .. } => "source",
            By::Key(Key::Header(_)) => "header",
            By::Key(Key::Query(_)) => "query",
            By::Key(_) => "capture",
            By::TlsSession(_) => "tls-session",
        }
    }
}

/// Who makes the cookie that names the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CookieMode {
    /// It is a cookie of our own, which servers do not see.
    Insert,
    /// The server sets one, whose value is replaced.
    Rewrite,
    /// The server's name is put before the value of the application's cookie, and taken away again.
    Prefix,
}

/// Where the application's session is found: in what `cookie` is set to, and later there too, or in one of the
/// other places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Learn {
    pub cookie: Arc<str>,
    pub header: Option<Arc<str>>,
    pub query: Option<Arc<str>>,
    /// `;NAME=` in the path, in any case of letters.
    pub path_parameter: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSession {
    /// From one look at a server's tickets to the next.
    pub interval: Duration,
    /// The name that is asked for then; none: the host of the server's address.
    pub server_name: Option<Arc<str>>,
}

impl TlsSession {
    pub const INTERVAL: Duration = Duration::from_secs(30);
}

/// What becomes of a client whose server cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhenDown {
    /// Another one serves, and the client stays there.
    #[default]
    Other,
    /// Nobody does, until it is back.
    Refuse,
}
