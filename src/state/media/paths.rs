//! Who publishes a path, and which server told a client of a presentation: so that those who ask next come to the
//! same one, on whatever connection.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::model::Limits;
use crate::state::LiveServer;
use crate::wire::rtsp::uri;

#[derive(Debug, Default)]
pub struct Paths {
    known: Mutex<HashMap<Key, Known>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    /// Whom it was told; `None`: it is published there.
    client: Option<IpAddr>,
    path: Box<str>,
}

#[derive(Debug)]
struct Known {
    server: Weak<LiveServer>,
    /// Seconds since 1970; `None`: until it is forgotten.
    until: Option<u32>,
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

impl Paths {
    /// A server takes what is published there.
    pub fn publish(&self, path: &str, server: &Arc<LiveServer>, now: u32) {
        self.put(None, path, server, None, now);
    }

    /// Its publisher has gone, and may come back.
    pub fn unpublish(&self, path: &str, server: &Arc<LiveServer>, now: u32) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.get_mut(&Key { client: None, path: path.into() })
            && Weak::ptr_eq(&known.server, &Arc::downgrade(server))
        {
            known.until = Some(now + GRACE);
        }
    }

    /// A client was told of a presentation.
    pub fn tell(&self, client: IpAddr, path: &str, server: &Arc<LiveServer>, now: u32) {
        self.put(Some(client), path, server, Some(now + TOLD), now);
    }

    fn put(&self, client: Option<IpAddr>, path: &str, server: &Arc<LiveServer>, until: Option<u32>, now: u32) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= Limits::MEDIA_PATHS {
            known.retain(|_, known| known.holds(now));
        }
        // A full table learns nothing new: what it would push out may be in use.
        if known.len() < Limits::MEDIA_PATHS {
            known.insert(Key { client, path: path.into() }, Known { server: Arc::downgrade(server), until });
        }
    }

    /// Who publishes the presentation that a path is of: the longest that is known.
    pub fn publisher(&self, path: &str, now: u32) -> Option<Arc<LiveServer>> {
        self.longest(None, path, now)
    }

    /// Who told this client of the presentation that a path is of.
    pub fn told(&self, client: IpAddr, path: &str, now: u32) -> Option<Arc<LiveServer>> {
        self.longest(Some(client), path, now)
    }

    fn longest(&self, client: Option<IpAddr>, path: &str, now: u32) -> Option<Arc<LiveServer>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_empty() {
            return None;
        }
        let mut path = uri::presentation(path);
        loop {
            let found = known.get(&Key { client, path: path.into() }).filter(|known| known.holds(now));
            if let Some(server) = found.and_then(|known| known.server.upgrade()) {
                return Some(server);
            }
            match path.rfind('/') {
                Some(end) if end > 0 => path = &path[..end],
                _ => return None,
            }
        }
    }

    /// How many paths are published.
    pub fn published(&self) -> usize {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.keys().filter(|key| key.client.is_none()).count()
    }
}
