//! Lists and maps whose files change are read anew while the process runs.
//!
//! Files are looked at every second; what has changed and has been still for a second is taken up by a reload of
//! the lists alone (`Texts::Lists`): rules and configuration are those in force, whatever is being edited. A list with a
//! fault leaves everything as it is, and is told once.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use super::orders::tell;
use crate::config::source::{Seen, Sources};
use crate::state::orders::{Order, Orders, Texts};

const PERIOD: Duration = Duration::from_secs(1);

/// Watches the lists of the texts in force until `stop` says so.
pub async fn watch(mut texts: watch::Receiver<Arc<Sources>>, orders: Orders, mut stop: watch::Receiver<bool>) {
    let mut read = texts.borrow_and_update().lists().to_vec();
    let mut seen = read.clone();
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            changed = texts.changed() => {
                if changed.is_err() {
                    return;
                }
                read = texts.borrow_and_update().lists().to_vec();
                seen.clone_from(&read);
                continue;
            }
            () = tokio::time::sleep(PERIOD) => {}
        }
        if read.is_empty() {
            continue;
        }
        // Disks may be slow.
        let paths: Vec<_> = read.iter().map(|list| list.path.clone()).collect();
        let look = tokio::task::spawn_blocking(move || paths.iter().map(|path| Seen::now(path)).collect::<Vec<_>>());
        let Ok(now) = look.await else { return };
        let still = now == seen;
        seen = now;
        if !still || seen == read {
            continue;
        }
        // Good or bad, these have been looked at.
        read.clone_from(&seen);
        let (reply, answer) = oneshot::channel();
        if orders.send(Order::Reload { what: Texts::Lists, reply }).await.is_err() {
            return;
        }
        if let Ok(reloaded) = answer.await {
            tell(&reloaded, "lists");
        }
    }
}
