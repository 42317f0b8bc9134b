//! Watches how much memory the process has in use. When it has more than it may, workers turn new work away and let go
//! of what is idle (`Worker::is_short_of_memory`) until there is less: the kernel would end the whole process.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::state::Farm;
use crate::sys::process::{memory_limit, resident_bytes};

/// Clients that fill all the network they have need longer than this for the tenth that is kept back.
const PERIOD: Duration = Duration::from_millis(100);

/// How often the control groups are asked: whoever runs them may change their mind.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// What may be in use, and below what it is enough again: of a hundred.
const OF_THE_GROUP: u64 = 90;
const ENOUGH: u64 = 95;

/// Watches until `stop` says so.
pub async fn watch(farm: Arc<Farm>, mut stop: watch::Receiver<bool>) {
    let mut group = (memory_limit(), Instant::now());
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(PERIOD) => {}
        }
        if group.1.elapsed() > LOOK_AGAIN {
            group = (memory_limit(), Instant::now());
        }
        let own = Some(farm.snapshot().config.limits.memory).filter(|own| *own > 0);
        let limit = own.or(group.0.map(|limit| limit / 100 * OF_THE_GROUP));
        let (Some(limit), Some(used)) = (limit, resident_bytes()) else {
            farm.set_short_of_memory(false);
            continue;
        };
        let was = farm.is_short_of_memory();
        let short = is_short(was, used, limit);
        farm.set_short_of_memory(short);
        let mib = |bytes: u64| bytes >> 20;
        match (was, short) {
            (false, true) => tracing::warn!(
                used_mib = mib(used),
                limit_mib = mib(limit),
                "memory is short: new requests are answered 503 until it is less; raise limits.memory (or MemoryMax) if that is what the farm needs"
            ),
            (true, false) => tracing::info!(used_mib = mib(used), limit_mib = mib(limit), "memory is enough again"),
            _ => {}
        }
    }
}

/// Once short, it has to be clearly less before it is enough: not now this and now that.
fn is_short(was: bool, used: u64, limit: u64) -> bool {
    used > if was { limit / 100 * ENOUGH } else { limit }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_enough_when_it_is_clearly_less() {
        assert!(!is_short(false, 1000, 1000));
        assert!(is_short(false, 1001, 1000));
        assert!(is_short(true, 951, 1000));
        assert!(!is_short(true, 950, 1000));
    }
}
