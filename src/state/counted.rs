//! Counters by names, as one process tells them to the next.
//!
//! Numbers of `state::names` mean nothing in another process, and words that one version does not know are
//! left out by it. A process tells all it counted once, and then only what has changed since.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Farm;
use super::counters::{
    AffinityResult, ConnectResult, Counters, MirrorResult, NONE, Rejected, RequestLabels, Requests, RetryReason,
    ServerLabels, UpstreamCounters,
};
use super::histogram::Histogram;
use super::rule_hits::RuleHits;

/// Sorted by their labels.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counted {
    requests: Vec<RequestsOf>,
    upstreams: Vec<UpstreamOf>,
    retries: Vec<WordsOf>,
    mirrored: Vec<WordsOf>,
    affinity: Vec<WordsOf>,
    listeners: Vec<ListenerOf>,
    rules: Vec<(String, u64)>,
}

/// `None` where there was no pool, or no server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct RequestsOf {
    listener: String,
    pool: Option<String>,
    server: Option<String>,
    codes: Vec<(u16, u64)>,
    total: Times,
    first_byte: Times,
}

/// Buckets, and the sum in nanoseconds in digits: JSON has no numbers of that length.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Times(Vec<u64>, String);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct UpstreamOf {
    pool: String,
    /// The identity.
    server: Option<String>,
    connects: Vec<(String, u64)>,
    reuses: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct WordsOf {
    pool: String,
    reasons: Vec<(String, u64)>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct ListenerOf {
    name: String,
    accepted: u64,
    received: u64,
    sent: u64,
    handshakes: [[u64; 2]; 2],
    rejected: Vec<(String, u64)>,
}

impl Counted {
    /// What `counters` have, with the names that `farm` has for their numbers. Open connections are not counted, they are.
    pub fn of(counters: &Counters, farm: &Farm) -> Counted {
        let name = |names: &super::Names, id: u32| names.name(id).map(|name| name.to_string());
        let listener = |id| name(farm.listener_names(), id);
        let pool = |id| name(farm.pool_names(), id);
        let server = |id| name(farm.server_names(), id);
        let words = |all: &mut dyn Iterator<Item = (&'static str, u64)>| -> Vec<(String, u64)> {
            all.filter(|(_, count)| *count > 0).map(|(word, count)| (word.to_owned(), count)).collect()
        };
        let mut counted = Counted::default();
        for (labels, requests) in counters.requests() {
            let Some(listener) = listener(labels.listener) else { continue };
            counted.requests.push(RequestsOf {
                listener,
                pool: pool(labels.pool),
                server: server(labels.server),
                codes: requests.codes().to_vec(),
                total: Times::of(&requests.total),
                first_byte: Times::of(&requests.first_byte),
            });
        }
        for (labels, upstream) in counters.upstreams() {
            let Some(pool) = pool(labels.pool) else { continue };
            counted.upstreams.push(UpstreamOf {
                pool,
                server: server(labels.server),
                connects: words(&mut upstream.connects().map(|(result, count)| (result.as_str(), count))),
                reuses: upstream.reuses,
            });
        }
        let of_pools = |all: &mut dyn Iterator<Item = (u32, &'static str, u64)>| -> Vec<WordsOf> {
            let mut words: HashMap<u32, Vec<(String, u64)>> = HashMap::new();
            for (pool, word, count) in all.filter(|(_, _, count)| *count > 0) {
                words.entry(pool).or_default().push((word.to_owned(), count));
            }
            words.into_iter().filter_map(|(id, reasons)| Some(WordsOf { pool: pool(id)?, reasons })).collect()
        };
        counted.retries = of_pools(&mut counters.retries().map(|(pool, why, count)| (pool, why.as_str(), count)));
        counted.mirrored = of_pools(&mut counters.mirrors().map(|(pool, what, count)| (pool, what.as_str(), count)));
        counted.affinity = of_pools(&mut counters.affinities().map(|(pool, what, count)| (pool, what.as_str(), count)));
        for (id, of) in counters.listeners() {
            let Some(name) = listener(id) else { continue };
            counted.listeners.push(ListenerOf {
                name,
                accepted: of.accepted,
                received: of.received,
                sent: of.sent,
                handshakes: of.handshakes,
                rejected: words(&mut of.rejected().map(|(reason, count)| (reason.as_str(), count))),
            });
        }
        counted.rules =
            counters.rules.iter().filter(|(_, hits)| *hits > 0).map(|(name, hits)| (name.to_owned(), hits)).collect();
        counted.sort();
        counted
    }

    fn sort(&mut self) {
        self.requests.sort_by(|a, b| a.key().cmp(&b.key()));
        self.upstreams.sort_by(|a, b| a.key().cmp(&b.key()));
        self.retries.sort_by(|a, b| a.pool.cmp(&b.pool));
        self.mirrored.sort_by(|a, b| a.pool.cmp(&b.pool));
        self.affinity.sort_by(|a, b| a.pool.cmp(&b.pool));
        self.listeners.sort_by(|a, b| a.name.cmp(&b.name));
        self.rules.sort();
    }

    /// What is not as it was `before`, whole.
    pub fn since(&self, before: &Counted) -> Counted {
        Counted {
            requests: changed(&self.requests, &before.requests, RequestsOf::key),
            upstreams: changed(&self.upstreams, &before.upstreams, UpstreamOf::key),
            retries: changed(&self.retries, &before.retries, |of| &of.pool),
            mirrored: changed(&self.mirrored, &before.mirrored, |of| &of.pool),
            affinity: changed(&self.affinity, &before.affinity, |of| &of.pool),
            listeners: changed(&self.listeners, &before.listeners, |of| &of.name),
            rules: changed(&self.rules, &before.rules, |(name, _)| name),
        }
    }

    /// Puts what has changed in its place: the inverse of [`Counted::since`].
    pub fn take_up(&mut self, since: Counted) {
        replace(&mut self.requests, since.requests, |a, b| a.key().cmp(&b.key()));
        replace(&mut self.upstreams, since.upstreams, |a, b| a.key().cmp(&b.key()));
        replace(&mut self.retries, since.retries, |a, b| a.pool.cmp(&b.pool));
        replace(&mut self.mirrored, since.mirrored, |a, b| a.pool.cmp(&b.pool));
        replace(&mut self.affinity, since.affinity, |a, b| a.pool.cmp(&b.pool));
        replace(&mut self.listeners, since.listeners, |a, b| a.name.cmp(&b.name));
        replace(&mut self.rules, since.rules, |a, b| a.0.cmp(&b.0));
        self.sort();
    }

    pub fn is_empty(&self) -> bool {
        *self == Counted::default()
    }

    /// The same by the numbers of this process. Names that were not known get numbers: they are those of a
    /// configuration.
    pub fn counters(&self, farm: &Farm) -> Counters {
        let id = |names: &super::Names, name: &str| names.id(&Arc::from(name));
        let pool = |name: &Option<String>| name.as_ref().map_or(NONE, |name| id(farm.pool_names(), name));
        let server = |name: &Option<String>| name.as_ref().map_or(NONE, |name| id(farm.server_names(), name));
        let mut counters = Counters::default();
        for of in &self.requests {
            let listener = id(farm.listener_names(), &of.listener);
            let labels = RequestLabels { listener, pool: pool(&of.pool), server: server(&of.server) };
            let (total, first_byte) = (of.total.histogram(), of.first_byte.histogram());
            counters.requests.insert(labels, Requests { codes: of.codes.clone(), total, first_byte });
        }
        for of in &self.upstreams {
            let labels = ServerLabels { pool: id(farm.pool_names(), &of.pool), server: server(&of.server) };
            let mut upstream = UpstreamCounters { reuses: of.reuses, ..UpstreamCounters::default() };
            read(&mut upstream.connects, &of.connects, &ConnectResult::ALL.map(ConnectResult::as_str));
            counters.upstreams.insert(labels, upstream);
        }
        for of in &self.retries {
            let counts = counters.retries.entry(id(farm.pool_names(), &of.pool)).or_default();
            read(counts, &of.reasons, &RetryReason::ALL.map(RetryReason::as_str));
        }
        for of in &self.mirrored {
            let counts = counters.mirrored.entry(id(farm.pool_names(), &of.pool)).or_default();
            read(counts, &of.reasons, &MirrorResult::ALL.map(MirrorResult::as_str));
        }
        for of in &self.affinity {
            let counts = counters.affinity.entry(id(farm.pool_names(), &of.pool)).or_default();
            read(counts, &of.reasons, &AffinityResult::ALL.map(AffinityResult::as_str));
        }
        for of in &self.listeners {
            let Some(listener) = counters.listener(id(farm.listener_names(), &of.name)) else { continue };
            (listener.accepted, listener.received, listener.sent) = (of.accepted, of.received, of.sent);
            listener.handshakes = of.handshakes;
            read(&mut listener.rejected, &of.rejected, &Rejected::ALL.map(Rejected::as_str));
        }
        counters.rules = RuleHits::of(self.rules.iter().map(|(name, hits)| (Arc::from(name.as_str()), *hits)));
        counters
    }
}

/// Counts by words: those that are not known here are left out.
fn read(counts: &mut [u64], from: &[(String, u64)], words: &[&str]) {
    for (count, word) in counts.iter_mut().zip(words) {
        *count = from.iter().find(|(known, _)| known == word).map_or(0, |(_, count)| *count);
    }
}

/// Both are sorted by `key`.
fn changed<'a, T: Clone + PartialEq, K: Ord + 'a>(now: &'a [T], before: &'a [T], key: fn(&'a T) -> K) -> Vec<T> {
    let was = |of: &'a T| before.binary_search_by(|other| key(other).cmp(&key(of))).ok().map(|at| &before[at]);
    now.iter().filter(|of| was(of) != Some(*of)).cloned().collect()
}

/// `all` is sorted by `order`; what is new in it comes at its end.
fn replace<T>(all: &mut Vec<T>, since: Vec<T>, order: fn(&T, &T) -> Ordering) {
    let sorted = all.len();
    for of in since {
        match all[..sorted].binary_search_by(|other| order(other, &of)) {
            Ok(at) => all[at] = of,
            Err(_) => all.push(of),
        }
    }
}

impl RequestsOf {
    fn key(&self) -> (&str, Option<&str>, Option<&str>) {
        (&self.listener, self.pool.as_deref(), self.server.as_deref())
    }
}

impl UpstreamOf {
    fn key(&self) -> (&str, Option<&str>) {
        (&self.pool, self.server.as_deref())
    }
}

impl Times {
    fn of(histogram: &Histogram) -> Times {
        let (counts, sum) = histogram.parts();
        Times(counts.to_vec(), sum.to_string())
    }

    /// Empty where the buckets are not ours: another version may have others.
    fn histogram(&self) -> Histogram {
        Histogram::of(&self.0, self.1.parse().unwrap_or_default()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn farm() -> Arc<Farm> {
        Farm::empty()
    }

    /// A farm that has given other numbers to the same names.
    fn other() -> Arc<Farm> {
        let farm = Farm::empty();
        for names in [farm.listener_names(), farm.pool_names(), farm.server_names()] {
            names.id(&"somebody else".into());
        }
        farm
    }

    fn some(farm: &Farm) -> Counters {
        let (listener, pool) = (farm.listener_names().id(&"web".into()), farm.pool_names().id(&"shop".into()));
        let server = farm.server_names().id(&"shop/s1".into());
        let mut counters = Counters::default();
        counters.connection_opened(listener);
        counters.bytes(listener, 7, 9);
        counters.rejected(listener, Rejected::Dropped);
        counters.tls_handshake(listener, true, false);
        let ms = Duration::from_millis;
        counters.request(RequestLabels { listener, pool, server }, 200, ms(3), Some(ms(2)));
        counters.request(RequestLabels { listener, pool: NONE, server: NONE }, 404, ms(1), None);
        counters.upstream_connect(pool, server, ConnectResult::Refused);
        counters.upstream_reuse(pool, server);
        counters.retry(pool, RetryReason::StaleConnection);
        counters.mirrored(pool, MirrorResult::Answered);
        counters.affinity(pool, AffinityResult::Moved);
        let names: super::super::rule_hits::RuleNames = ["a", "b"].map(Arc::from).into_iter().collect();
        counters.rules.table(names.clone(), &Default::default());
        counters.rule_hit(&names, 1);
        counters
    }

    #[test]
    fn counters_come_over_by_their_names() {
        let (here, there) = (farm(), other());
        let counted = Counted::of(&some(&here), &here);
        let text = serde_json::to_string(&counted).unwrap();
        let read: Counted = serde_json::from_str(&text).unwrap();
        assert_eq!(read, counted);
        let counters = read.counters(&there);
        assert_eq!(Counted::of(&counters, &there).rules, [("b".to_owned(), 1)]);
        let mut back = Counted::of(&counters, &there);
        // The number before the listener's is somebody else's, who counted nothing.
        back.listeners.retain(|of| of.name == "web");
        assert_eq!(back, counted);
        assert_eq!(counters.listeners().map(|(_, of)| of.idle).sum::<u64>(), 0, "connections do not come over");
    }

    #[test]
    fn what_has_changed_is_enough() {
        let farm = farm();
        let mut counters = some(&farm);
        let before = Counted::of(&counters, &farm);
        assert!(before.since(&before).is_empty());
        counters.rejected(0, Rejected::Denied);
        let pool = farm.pool_names().id(&"new".into());
        counters.request(RequestLabels { listener: 0, pool, server: NONE }, 503, Duration::ZERO, None);
        let now = Counted::of(&counters, &farm);
        let since = now.since(&before);
        assert_eq!((since.requests.len(), since.listeners.len(), since.upstreams.len()), (1, 1, 0));
        let mut other = before.clone();
        other.take_up(since);
        assert_eq!(other, now);
    }

    #[test]
    fn another_version_is_read_as_far_as_it_is_known() {
        let farm = farm();
        let text = r#"{"listeners":[{"name":"web","accepted":3,"received":0,"sent":0,"handshakes":[[0,0],[0,0]],
            "rejected":[["moonlight",5],["denied",2]],"new":1}],"news":[],
            "requests":[{"listener":"web","codes":[[200,4]],"total":[[1,2],"x"],"first_byte":[[],""]}]}"#;
        let counters = serde_json::from_str::<Counted>(text).unwrap().counters(&farm);
        let (_, web) = counters.listeners().next().unwrap();
        assert_eq!((web.accepted, web.rejected().map(|(_, count)| count).sum::<u64>()), (3, 2));
        let (labels, requests) = counters.requests().next().unwrap();
        assert_eq!((labels.pool, requests.count(), requests.total.count()), (NONE, 4, 0));
    }
}
