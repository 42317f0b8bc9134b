//! The two halves of RTSP over HTTP: a GET whose answer never ends, and POSTs that carry what the client says. They are
//! connections of their own, which may arrive at different cores, and meet here by the cookie that both show.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc::{Receiver, Sender, channel};

use crate::model::Limits;

/// Pieces that wait between the halves: a client's words are few, and one that publishes is held back by its own connection.
const PIECES: usize = 4;

#[derive(Debug, Default)]
pub struct Tunnels {
    waiting: Mutex<HashMap<Key, Sender<Vec<u8>>>>,
}

/// The listener's number, and the client's cookie.
type Key = (u32, Box<str>);

/// A GET half; dropping it is the end of the tunnel.
#[derive(Debug)]
pub struct Half {
    tunnels: Arc<Tunnels>,
    key: Key,
}

impl Tunnels {
    /// A GET half waits for what its POSTs say. `None`: there is one with that cookie, or there are too many.
    pub fn open(self: &Arc<Self>, listener: u32, cookie: &str) -> Option<(Half, Receiver<Vec<u8>>)> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() >= Limits::MEDIA_TUNNELS {
            return None;
        }
        let Entry::Vacant(place) = waiting.entry((listener, cookie.into())) else { return None };
        let (sender, receiver) = channel(PIECES);
        let key = place.key().clone();
        place.insert(sender);
        Some((Half { tunnels: self.clone(), key }, receiver))
    }

    /// What a POST says goes there.
    pub fn join(&self, listener: u32, cookie: &str) -> Option<Sender<Vec<u8>>> {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.get(&(listener, cookie.into())).cloned()
    }
}

impl Drop for Half {
    fn drop(&mut self) {
        self.tunnels.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn halves_meet_by_listener_and_cookie() {
        let tunnels = Arc::new(Tunnels::default());
        let (half, mut said) = tunnels.open(1, "abc").unwrap();
        assert!(tunnels.open(1, "abc").is_none() && tunnels.open(2, "abc").is_some());
        assert!(tunnels.join(1, "abd").is_none() && tunnels.join(3, "abc").is_none());
        tunnels.join(1, "abc").unwrap().send(b"OPTIONS".to_vec()).await.unwrap();
        // A second POST of the same tunnel.
        tunnels.join(1, "abc").unwrap().send(b" *".to_vec()).await.unwrap();
        assert_eq!((said.recv().await, said.recv().await), (Some(b"OPTIONS".to_vec()), Some(b" *".to_vec())));
        drop(half);
        assert!(tunnels.join(1, "abc").is_none());
        assert_eq!(said.recv().await, None);
    }
}
