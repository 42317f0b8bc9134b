//! Who publishes a path, and which server told a client of a presentation: so that those who ask next come to the
//! same one, on whatever connection.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::model::Limits;
use crate::state::LiveServer;
use crate::wire::rtsp::uri;

/// What is published has a table of its own: whoever asks for much pushes none of it out.
#[derive(Debug, Default)]
pub struct Paths {
    published: Mutex<Table>,
    told: Mutex<Table>,
}

/// By client (where it was told), pool and path, one behind the other.
#[derive(Debug, Default)]
struct Table {
    known: HashMap<Box<str>, Known>,
    /// When it was last looked for what holds no more, in seconds since 1970.
    pruned: u32,
    /// Of the last entry.
    number: u64,
}

#[derive(Debug)]
struct Known {
    server: Weak<LiveServer>,
    /// Seconds since 1970; `None`: until it is forgotten.
    until: Option<u32>,
    /// Entries that came after it have higher ones.
    number: u64,
}

/// A path that is published by somebody.
#[derive(Debug)]
pub struct Publication {
    pub path: Box<str>,
    key: Box<str>,
    number: u64,
}

impl Known {
    fn holds(&self, now: u32) -> bool {
        self.until.is_none_or(|until| until > now) && self.server.strong_count() > 0
    }
}

/// How long a client that was told of a presentation is expected to ask for a track of it, in seconds: it may reconnect.
const TOLD: u32 = 60;
/// How long a path stays its publisher's after that one has gone, in seconds: encoders reconnect, and readers wait there.
const GRACE: u32 = 10;
/// Longer paths are not learnt: a full table has 64 MiB of them then, and nobody's cameras have such.
const LONGEST: usize = 1 << 10;
/// What a track's path may have behind its presentation's.
const TRACK: usize = 256;

impl Paths {
    /// A server takes what is published there. `None`: it is not learnt, for the path is too long or there are too many.
    pub fn publish(&self, path: &str, server: &Arc<LiveServer>, now: u32) -> Option<Publication> {
        let key = key(None, server.pool_name(), path);
        let number = lock(&self.published).put(&key, path, server, None, now)?;
        Some(Publication { path: path.into(), key: key.into(), number })
    }

    /// Its publisher has gone, and may come back.
    pub fn unpublish(&self, publication: &Publication, now: u32) {
        if let Some(known) = lock(&self.published).known.get_mut(&publication.key)
            // Otherwise it is another publisher's by now.
            && known.number == publication.number
        {
            known.until = Some(now + GRACE);
        }
    }

    /// A client was told of a presentation.
    pub fn tell(&self, client: IpAddr, path: &str, server: &Arc<LiveServer>, now: u32) {
        let key = key(Some(client), server.pool_name(), path);
        lock(&self.told).put(&key, path, server, Some(now + TOLD), now);
    }

    /// Who of a pool publishes the presentation that a path is of: the longest that is known.
    pub fn publisher(&self, pool: &str, path: &str, now: u32) -> Option<Arc<LiveServer>> {
        lock(&self.published).longest(None, pool, path, now)
    }

    /// Who of a pool told this client of the presentation that a path is of.
    pub fn told(&self, client: IpAddr, pool: &str, path: &str, now: u32) -> Option<Arc<LiveServer>> {
        lock(&self.told).longest(Some(client), pool, path, now)
    }
}

fn lock(table: &Mutex<Table>) -> MutexGuard<'_, Table> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A path begins with its slash, and neither an address nor the name of a pool has a line end.
fn key(client: Option<IpAddr>, pool: &str, path: &str) -> String {
    match client {
        Some(client) => format!("{client}\n{pool}\n{path}"),
        None => format!("{pool}\n{path}"),
    }
}

impl Table {
    /// The number of the entry.
    fn put(&mut self, key: &str, path: &str, server: &Arc<LiveServer>, until: Option<u32>, now: u32) -> Option<u64> {
        if path.len() > LONGEST {
            return None;
        }
        if self.known.len() >= Limits::MEDIA_PATHS && self.pruned != now {
            self.pruned = now;
            self.known.retain(|_, known| known.holds(now));
        }
        // A full table learns nothing new: what it would push out may be in use.
        if self.known.len() >= Limits::MEDIA_PATHS && !self.known.contains_key(key) {
            return None;
        }
        self.number += 1;
        let known = Known { server: Arc::downgrade(server), until, number: self.number };
        self.known.insert(key.into(), known);
        Some(self.number)
    }

    fn longest(&self, client: Option<IpAddr>, pool: &str, path: &str, now: u32) -> Option<Arc<LiveServer>> {
        if self.known.is_empty() || path.len() > LONGEST + TRACK {
            return None;
        }
        let path = uri::presentation(path);
        let key = key(client, pool, path);
        let (start, mut end) = (key.len() - path.len(), key.len());
        loop {
            let found = self.known.get(&key[..end]).filter(|known| known.holds(now));
            if let Some(server) = found.and_then(|known| known.server.upgrade()) {
                return Some(server);
            }
            match key[start..end].rfind('/') {
                Some(slash) if slash > 0 => end = start + slash,
                _ => return None,
            }
        }
    }
}
