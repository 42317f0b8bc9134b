//! How many streams are relayed for the clients of one address: nobody takes all ports.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use crate::model::Limits;

#[derive(Debug, Default)]
pub struct Shares {
    taken: Mutex<HashMap<IpAddr, usize>>,
}

/// One stream's, as long as this is held.
#[derive(Debug)]
pub struct Share {
    shares: Arc<Shares>,
    client: IpAddr,
}

impl Shares {
    /// `None`: this client has [`Limits::MEDIA_RELAYED_EACH`].
    pub fn take(self: &Arc<Self>, client: IpAddr) -> Option<Share> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let own = taken.entry(client).or_default();
        if *own >= Limits::MEDIA_RELAYED_EACH {
            return None;
        }
        *own += 1;
        Some(Share { shares: self.clone(), client })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut taken = self.shares.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = taken.get_mut(&self.client) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_has_a_share_of_his_own() {
        let (shares, one, two) =
            (Arc::new(Shares::default()), IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let mut all: Vec<Share> = std::iter::from_fn(|| shares.take(one)).collect();
        assert_eq!(all.len(), Limits::MEDIA_RELAYED_EACH);
        assert!(shares.take(one).is_none() && shares.take(two).is_some());
        all.pop();
        assert!(shares.take(one).is_some());
        drop(all);
        assert!(shares.taken.lock().unwrap().is_empty());
    }
}
