//! What the tickets of a pool's servers say. Pure.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::state::affinity::learnt::{Finding, Found};
use crate::tls::KeyName;

/// What a server gave when it was asked twice in one version of TLS: the name of a ticket's key, or no ticket with one.
pub type Asked = Result<[Option<KeyName>; 2], String>;

/// How long a name counts after it was seen last. Clients keep tickets no longer than servers say, which is a day at most
/// nearly everywhere, and RFC 8446 §4.6.1 ends them after a week.
const KEPT: Duration = Duration::from_secs(24 * 3600);

/// Names of one server, the newest: one that turns its keys each hour has a day's.
const NAMES: usize = 32;

/// The servers of one pool.
#[derive(Debug, Default)]
pub struct Tickets {
    /// By name.
    servers: BTreeMap<Arc<str>, Server>,
}

#[derive(Debug, Default)]
struct Server {
    names: Vec<Seen>,
    own: Option<Finding>,
}

#[derive(Debug)]
struct Seen {
    name: KeyName,
    last: Instant,
    /// It was there in the last round.
    current: bool,
}

impl Tickets {
    /// Takes what a server gave, version by version.
    pub fn observe(&mut self, server: &Arc<str>, asked: &[Asked], now: Instant) {
        let known = self.servers.entry(server.clone()).or_default();
        let twice = |asked: &Asked| match asked {
            Ok([Some(first), Some(second)]) if first == second => Some(*first),
            _ => None,
        };
        let names: Vec<KeyName> = asked.iter().filter_map(twice).collect();
        let differ = asked.iter().any(|asked| matches!(asked, Ok([Some(first), Some(second)]) if first != second));
        let answered = asked.iter().any(Result::is_ok);
        known.own = Some(if !names.is_empty() {
            Finding::Learnt
        } else if differ {
            Finding::Opaque
        } else if answered {
            Finding::None
        } else {
            let why = asked.iter().find_map(|asked| asked.as_ref().err()).cloned();
            Finding::Unreachable(why.unwrap_or_default())
        });
        if answered {
            // Who does not answer may have the keys that it had.
            known.names.iter_mut().for_each(|seen| seen.current = false);
        }
        for name in names {
            known.names.retain(|seen| seen.name != name);
            known.names.push(Seen { name, last: now, current: true });
        }
        known.names.retain(|seen| now.saturating_duration_since(seen.last) < KEPT);
        let surplus = known.names.len().saturating_sub(NAMES);
        known.names.drain(..surplus);
    }

    /// Forgets servers that the pool has no more.
    pub fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.servers.retain(|name, _| keep(name));
    }

    /// Whose each name is, and what is to be said of each server.
    pub fn found(&self) -> Found {
        let mut owners: HashMap<KeyName, (Instant, Arc<str>)> = HashMap::new();
        let mut current: HashMap<KeyName, Vec<Arc<str>>> = HashMap::new();
        for (server, known) in &self.servers {
            for seen in &known.names {
                if seen.current {
                    current.entry(seen.name).or_default().push(server.clone());
                }
                // A key that moved is where it was seen last.
                let owner = owners.entry(seen.name).or_insert_with(|| (seen.last, server.clone()));
                if seen.last > owner.0 {
                    *owner = (seen.last, server.clone());
                }
            }
        }
        current.retain(|_, servers| servers.len() > 1);
        let findings = self.servers.iter().filter_map(|(server, known)| {
            let with = known.names.iter().filter(|seen| seen.current).filter_map(|seen| current.get(&seen.name));
            let mut with: Vec<Arc<str>> = with.flatten().filter(|other| *other != server).cloned().collect();
            with.sort();
            with.dedup();
            let finding = if with.is_empty() { known.own.clone()? } else { Finding::Shared(with) };
            Some((server.clone(), finding))
        });
        let findings = findings.collect();
        let keys = owners.into_iter().filter(|(name, _)| !current.contains_key(name));
        Found { keys: keys.map(|(name, (_, server))| (name, server)).collect(), findings }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(tickets: &mut Tickets, server: &str, names: [u8; 2], now: Instant) {
        let both = Ok(names.map(|byte| Some([byte; 16])));
        tickets.observe(&server.into(), &[both.clone(), both], now);
    }

    fn owner(found: &Found, byte: u8) -> Option<&str> {
        found.keys.get(&[byte; 16]).map(|server| &**server)
    }

    fn finding(found: &Found, server: &str) -> Finding {
        found.findings.iter().find(|(name, _)| **name == *server).map(|(_, finding)| finding.clone()).unwrap()
    }

    #[test]
    fn names_belong_to_whoever_gave_them_twice() {
        let (mut tickets, now) = (Tickets::default(), Instant::now());
        round(&mut tickets, "a", [1, 1], now);
        round(&mut tickets, "b", [2, 2], now);
        round(&mut tickets, "c", [3, 4], now);
        let found = tickets.found();
        assert_eq!((owner(&found, 1), owner(&found, 2), owner(&found, 3)), (Some("a"), Some("b"), None));
        assert_eq!((finding(&found, "a"), finding(&found, "c")), (Finding::Learnt, Finding::Opaque));
        tickets.retain(|name| name != "b");
        assert_eq!(owner(&tickets.found(), 2), None);
    }

    #[test]
    fn one_version_is_enough_and_none_is_said() {
        let (mut tickets, now) = (Tickets::default(), Instant::now());
        tickets.observe(&"a".into(), &[Err("no such version".into()), Ok([Some([1; 16]); 2])], now);
        tickets.observe(&"b".into(), &[Ok([None; 2]), Err("no such version".into())], now);
        tickets.observe(&"c".into(), &[Err("refused".into()), Err("refused".into())], now);
        let found = tickets.found();
        assert_eq!(owner(&found, 1), Some("a"));
        assert_eq!(
            (finding(&found, "b"), finding(&found, "c")),
            (Finding::None, Finding::Unreachable("refused".into()))
        );
    }

    #[test]
    fn a_key_that_two_have_binds_nobody_until_one_has_it() {
        let (mut tickets, now) = (Tickets::default(), Instant::now());
        let later = |seconds| now + Duration::from_secs(seconds);
        round(&mut tickets, "a", [1, 1], now);
        round(&mut tickets, "b", [1, 1], now);
        let found = tickets.found();
        assert_eq!((owner(&found, 1), finding(&found, "a")), (None, Finding::Shared(vec!["b".into()])));
        round(&mut tickets, "a", [2, 2], later(1));
        round(&mut tickets, "b", [1, 1], later(1));
        let found = tickets.found();
        assert_eq!((owner(&found, 1), owner(&found, 2)), (Some("b"), Some("a")));
        assert_eq!(finding(&found, "b"), Finding::Learnt);
    }

    #[test]
    fn keys_in_turn_are_kept_for_a_day_and_bounded() {
        let (mut tickets, now) = (Tickets::default(), Instant::now());
        for turn in 0..40 {
            round(&mut tickets, "a", [turn, turn], now + Duration::from_secs(u64::from(turn)));
        }
        let found = tickets.found();
        assert_eq!((owner(&found, 39), owner(&found, 8), owner(&found, 7)), (Some("a"), Some("a"), None));
        // Who is not reached keeps what is known; a day later that is nothing.
        tickets.observe(&"a".into(), &[Err("refused".into())], now + KEPT / 2);
        assert_eq!(owner(&tickets.found(), 39), Some("a"));
        tickets.observe(&"a".into(), &[Err("refused".into())], now + KEPT * 2);
        assert_eq!(owner(&tickets.found(), 39), None);
    }
}
