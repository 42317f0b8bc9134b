//! Media under way: RTSP sessions and whose they are, paths and who publishes them, ports, and tunnels of two halves.
//!
//! All of it is asked when a session begins or changes connections, never for a packet, so that a lock each is
//! cheap enough. Writers: the proxy's RTSP connections; what a connection put in it takes out again.

pub mod load;
pub mod paths;
pub mod ports;
pub mod sessions;
pub mod shares;
pub mod tracks;
pub mod tunnels;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use self::paths::Paths;
use self::ports::Ports;
use self::sessions::Sessions;
use self::shares::Shares;
use self::tunnels::Tunnels;

/// That are said, of why media is not offloaded: one for each interface and more.
const REASONS: usize = 64;

#[derive(Debug, Default)]
pub struct Media {
    pub sessions: Sessions,
    pub paths: Paths,
    pub tunnels: Arc<Tunnels>,
    pub shares: Arc<Shares>,
    /// Why media is not offloaded, as far as it was said.
    not_offloaded: Mutex<BTreeSet<String>>,
    /// By their first and last port.
    ports: Mutex<HashMap<(u16, u16), Weak<Ports>>>,
}

impl Media {
    /// Whether it has not been said yet that media is not offloaded for this reason, since the director opened.
    pub fn is_news(&self, why: &str) -> bool {
        let mut said = self.not_offloaded.lock().unwrap_or_else(PoisonError::into_inner);
        said.len() < REASONS && said.insert(why.to_owned())
    }

    /// The director has opened: what hinders it is news again.
    pub fn director_opens(&self) {
        self.not_offloaded.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The ports of a range; listeners that name the same one share them.
    pub fn ports(&self, range: (u16, u16)) -> Arc<Ports> {
        let mut known = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ports) = known.get(&range).and_then(Weak::upgrade) {
            return ports;
        }
        known.retain(|_, ports| ports.strong_count() > 0);
        let ports = Arc::new(Ports::new(range.0, range.1));
        known.insert(range, Arc::downgrade(&ports));
        ports
    }
}
