//! Keeps the addresses of servers that are configured by name.
//!
//! Looked up at once and then every 30 s. The address in use is kept while the name still has it, else the
//! first one given is taken. A failed look-up does not at once take a server away: name servers that are
//! gone for a minute must not empty the farm. After [`PATIENCE`] failures in a row, or when the name never
//! resolved, the server is down and asked for every 5 s.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::pace::Pace;
use crate::state::LiveServer;

const AGAIN: Duration = Duration::from_secs(30);
const AGAIN_WHEN_LOST: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(5);
/// Failures in a row after which an address that was good is given up.
const PATIENCE: u32 = 3;

/// Runs until it is dropped.
pub async fn keep(server: Arc<LiveServer>, host: Arc<str>, port: u16) {
    let mut pace = Pace::new();
    let mut keeper = Keeper { last: server.address().map(Ok), failed: 0 };
    loop {
        let found = match timeout(TIMEOUT, lookup_host((&*host, port))).await {
            Ok(Ok(addresses)) => Ok(addresses.collect()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer in {}s", TIMEOUT.as_secs())),
        };
        if let Some(change) = keeper.take(found) {
            let (pool, name) = (server.pool_name(), server.name());
            match &change {
                Ok(address) => info!(%pool, server = %name, %host, %address, "server resolved"),
                Err(why) => warn!(%pool, server = %name, %host, %why, "server down"),
            }
            server.set_address(change);
        }
        let wait = if keeper.has_address() { AGAIN } else { AGAIN_WHEN_LOST };
        sleep(pace.around(wait, 0.1)).await;
    }
}

/// What the server was told last, and how often looking up failed since.
#[derive(Debug)]
struct Keeper {
    last: Option<Result<SocketAddr, String>>,
    failed: u32,
}

impl Keeper {
    fn has_address(&self) -> bool {
        matches!(self.last, Some(Ok(_)))
    }

    /// Takes what a look-up gave; `Some` when the server has to be told.
    fn take(&mut self, found: Result<Vec<SocketAddr>, String>) -> Option<Result<SocketAddr, String>> {
        let told = match found.as_deref() {
            Ok(addresses @ [first, ..]) => {
                self.failed = 0;
                let kept = self.last.iter().flatten().find(|kept| addresses.contains(kept));
                Ok(*kept.unwrap_or(first))
            }
            failure => {
                self.failed = self.failed.saturating_add(1);
                if self.has_address() && self.failed < PATIENCE {
                    return None;
                }
                let why = failure.map_or_else(String::as_str, |_| "it has no address");
                Err(format!("name does not resolve: {why}"))
            }
        };
        let changed = self.last.as_ref() != Some(&told);
        self.last = Some(told.clone());
        changed.then_some(told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(last: u8) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, last], 80))
    }

    #[test]
    fn the_address_in_use_is_kept_while_the_name_has_it() {
        let mut keeper = Keeper { last: None, failed: 0 };
        assert_eq!(keeper.take(Ok(vec![at(1), at(2)])), Some(Ok(at(1))));
        assert_eq!(keeper.take(Ok(vec![at(2), at(1)])), None);
        assert_eq!(keeper.take(Ok(vec![at(2)])), Some(Ok(at(2))));
    }

    #[test]
    fn a_name_that_never_resolved_is_down_at_once() {
        let mut keeper = Keeper { last: None, failed: 0 };
        assert_eq!(keeper.take(Err("unknown".into())), Some(Err("name does not resolve: unknown".into())));
        assert_eq!(keeper.take(Err("unknown".into())), None, "told once");
        assert_eq!(keeper.take(Ok(vec![])), Some(Err("name does not resolve: it has no address".into())));
        assert_eq!(keeper.take(Ok(vec![at(1)])), Some(Ok(at(1))));
    }

    #[test]
    fn a_good_address_is_given_up_after_some_failures() {
        let mut keeper = Keeper { last: Some(Ok(at(1))), failed: 0 };
        let away = || Err("try again".to_owned());
        assert_eq!((keeper.take(away()), keeper.take(away())), (None, None));
        assert_eq!(keeper.take(Ok(vec![at(1)])), None);
        assert_eq!((keeper.take(away()), keeper.take(away())), (None, None));
        assert_eq!(keeper.take(away()), Some(Err("name does not resolve: try again".into())));
        assert_eq!(keeper.take(Ok(vec![at(1)])), Some(Ok(at(1))));
    }
}
