//! Times and tries of a request whose rule has its own: those of its pool, with the rule's laid over them.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use crate::model::Timeouts;
use crate::model::pool::{Pool, Retry};
use crate::model::rule::RuleTimeout;
use crate::route::Tuning;

#[derive(Debug, PartialEq)]
pub struct Tuned {
    pub timeouts: Timeouts,
    pub retry: Retry,
    /// From the first byte of the request to the last of its answer.
    pub total: Option<Duration>,
    /// Who waits for a server goes before those of a lower one.
    pub priority: i32,
}

/// By rule and pool: made by the first request that needs it, and kept as long as the snapshot is looked at, so that no
/// other request allocates. No more of them than rules that say so, times the pools that each may use.
#[derive(Debug, Default)]
pub struct TunedPools(RefCell<HashMap<(usize, usize), Rc<Tuned>>>);

impl TunedPools {
    /// `rule` and `pool` are numbers of one snapshot.
    pub fn of(&self, rule: usize, pool: usize, tuning: &Tuning, config: &Pool) -> Rc<Tuned> {
        self.0.borrow_mut().entry((rule, pool)).or_insert_with(|| Rc::new(Tuned::new(tuning, config))).clone()
    }
}

impl Tuned {
    fn new(tuning: &Tuning, config: &Pool) -> Tuned {
        let (mut timeouts, mut retry) = (config.timeouts.clone(), config.retry.clone());
        let of = |wanted| tuning.times.iter().find(|(which, _)| *which == wanted).map(|(_, after)| *after);
        if let Some(idle) = of(RuleTimeout::Idle) {
            (timeouts.request_body, timeouts.response_body, timeouts.tunnel) = (idle, idle, idle);
            timeouts.tcp_idle = idle;
        }
        // What says more goes before `idle`.
        for (which, time) in [
            (RuleTimeout::Queue, &mut timeouts.queue),
            (RuleTimeout::Connect, &mut timeouts.connect),
            (RuleTimeout::TlsHandshake, &mut timeouts.tls_handshake),
            (RuleTimeout::RequestBody, &mut timeouts.request_body),
            (RuleTimeout::Response, &mut timeouts.response),
            (RuleTimeout::ResponseBody, &mut timeouts.response_body),
            (RuleTimeout::ClientWrite, &mut timeouts.client_write),
            (RuleTimeout::Tunnel, &mut timeouts.tunnel),
            (RuleTimeout::TcpIdle, &mut timeouts.tcp_idle),
            (RuleTimeout::HalfClosed, &mut timeouts.half_closed),
        ] {
            *time = of(which).unwrap_or(*time);
        }
        retry.attempts = tuning.attempts.unwrap_or(retry.attempts);
        (retry.on_connect, retry.on_refused) = tuning.on.unwrap_or((retry.on_connect, retry.on_refused));
        Tuned { timeouts, retry, total: of(RuleTimeout::Total), priority: tuning.priority.unwrap_or(0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load_text;

    #[test]
    fn what_a_rule_does_not_say_is_the_pools() {
        let text = "[listen.web]\naddress = [\"127.0.0.1:1\"]\npool = \"a\"\n[pool.a]\ntimeouts = { connect = \"2s\", response = \"7s\" }\n\
                    retry = { attempts = 4 }\nservers = [{ name = \"1\", address = \"127.0.0.1:11\" }]\n";
        let load = load_text("reeve.toml", text);
        let config = load.config.unwrap_or_else(|| panic!("{:?}", load.faults));
        let pool = &config.pools[0];
        let none = Tuned::new(&Tuning::default(), pool);
        assert_eq!(
            none,
            Tuned { timeouts: pool.timeouts.clone(), retry: pool.retry.clone(), total: None, priority: 0 }
        );

        let (short, long) = (Duration::from_millis(10), Duration::from_secs(90));
        let times = vec![(RuleTimeout::Tunnel, short), (RuleTimeout::Connect, short), (RuleTimeout::Idle, long)];
        let tuning = Tuning { times, on: Some((true, false)), ..Tuning::default() };
        let pools = TunedPools::default();
        let own = pools.of(3, 0, &tuning, pool);
        assert!(Rc::ptr_eq(&own, &pools.of(3, 0, &tuning, pool)), "made once");
        assert_eq!((own.timeouts.connect, own.timeouts.response), (short, Duration::from_secs(7)));
        let idle = (own.timeouts.request_body, own.timeouts.response_body, own.timeouts.tunnel);
        assert_eq!(idle, (long, long, short));
        assert_eq!(own.retry, Retry { attempts: 4, on_refused: false, ..Retry::default() });
    }
}
