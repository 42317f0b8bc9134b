//! What one worker has counted since it started.
//!
//! Every worker owns one `Counters` and adds to it with plain integers; nothing here is shared. When
//! somebody asks (`state::commands`), each worker answers with a copy, and the copies are merged.
//! Labels are numbers of `state::names`, so that only configured names can ever become a label and
//! the size is bounded by the configuration, not by what clients send.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::time::Duration;

use super::histogram::Histogram;
pub use super::labels::{
    AffinityResult, ConnectResult, MirrorResult, NONE, Rejected, RequestLabels, RetryReason, ServerLabels,
};
use super::rule_hits::{RuleHits, RuleNames};

/// Status codes told apart for one set of labels. A server that makes up codes of its own cannot
/// grow the table beyond this; the rest count under `OTHER_CODE`.
const CODES: usize = 32;

/// Stands for the codes beyond the bound.
pub const OTHER_CODE: u16 = 0;

/// The requests of one set of labels.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Requests {
    /// Answers by status code, in the order the codes were first seen.
    pub(super) codes: Vec<(u16, u64)>,
    /// From the first byte of the request to the last of its answer.
    pub total: Histogram,
    /// To the first byte of the answer, where a server gave one.
    pub first_byte: Histogram,
}

impl Requests {
    /// Status codes and how often each was answered; `OTHER_CODE` for those beyond the bound.
    pub fn codes(&self) -> &[(u16, u64)] {
        &self.codes
    }

    pub fn count(&self) -> u64 {
        self.codes.iter().map(|(_, count)| count).sum()
    }

    #[inline]
    fn add_code(&mut self, code: u16, count: u64) {
        match self.codes.iter_mut().find(|(known, _)| *known == code) {
            Some((_, sum)) => *sum += count,
            None => self.new_code(code, count),
        }
    }

    #[cold]
    fn new_code(&mut self, code: u16, count: u64) {
        // The last place is kept for the rest.
        if code == OTHER_CODE || self.codes.len() < CODES - 1 {
            self.codes.push((code, count));
        } else {
            self.add_code(OTHER_CODE, count);
        }
    }

    fn merge(&mut self, other: &Requests) {
        for (code, count) in &other.codes {
            self.add_code(*code, *count);
        }
        self.total.merge(&other.total);
        self.first_byte.merge(&other.first_byte);
    }
}

/// What a listener saw.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListenerCounters {
    /// Connections accepted since the start.
    pub accepted: u64,
    /// Open connections with a request being read, answered or tunnelled, now.
    pub active: u64,
    /// Open connections that wait for a request, now.
    pub idle: u64,
    /// Bytes from clients.
    pub received: u64,
    /// Bytes to clients.
    pub sent: u64,
    /// TLS handshakes: of 1.2 and 1.3, whole and resumed.
    pub(super) handshakes: [[u64; 2]; 2],
    /// By `Rejected`.
    pub(super) rejected: [u64; Rejected::ALL.len()],
}

impl ListenerCounters {
    /// TLS handshakes: the version, whether a session was resumed, and how many.
    pub fn handshakes(&self) -> impl Iterator<Item = (&'static str, bool, u64)> + '_ {
        let versions = ["1.2", "1.3"].into_iter().zip(self.handshakes);
        versions.flat_map(|(version, [whole, resumed])| [(version, false, whole), (version, true, resumed)])
    }

    /// What was turned away, with its reason.
    pub fn rejected(&self) -> impl Iterator<Item = (Rejected, u64)> + '_ {
        Rejected::ALL.into_iter().zip(self.rejected)
    }
}

/// Connections made to one server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UpstreamCounters {
    /// By `ConnectResult`.
    pub(super) connects: [u64; ConnectResult::ALL.len()],
    /// Requests sent on a connection that had served before.
    pub reuses: u64,
}

impl UpstreamCounters {
    /// Attempts to connect, with what came of them.
    pub fn connects(&self) -> impl Iterator<Item = (ConnectResult, u64)> + '_ {
        ConnectResult::ALL.into_iter().zip(self.connects)
    }
}

/// Everything one worker has counted. Adding is a few integer operations, one look-up at most.
#[derive(Debug, Clone, Default)]
pub struct Counters {
    pub(super) requests: Map<RequestLabels, Requests>,
    pub(super) upstreams: Map<ServerLabels, UpstreamCounters>,
    /// By pool.
    pub(super) retries: Map<u32, [u64; RetryReason::ALL.len()]>,
    /// By the pool that a copy went to.
    pub(super) mirrored: Map<u32, [u64; MirrorResult::ALL.len()]>,
    /// By pool.
    pub(super) affinity: Map<u32, [u64; AffinityResult::ALL.len()]>,
    /// By the listener's number; the numbers are dense.
    listeners: Vec<ListenerCounters>,
    pub rules: RuleHits,
}

impl Counters {
    /// A request was answered, by a server or by us. `first_byte` is the time to the first byte of a server's answer.
    #[inline]
    pub fn request(&mut self, labels: RequestLabels, code: u16, total: Duration, first_byte: Option<Duration>) {
        let requests = self.requests.entry(labels).or_default();
        requests.add_code(code, 1);
        requests.total.add(total);
        if let Some(first_byte) = first_byte {
            requests.first_byte.add(first_byte);
        }
    }

    /// Bytes that came from and went to clients.
    #[inline]
    pub fn bytes(&mut self, listener: u32, received: u64, sent: u64) {
        if let Some(counters) = self.listener(listener) {
            counters.received += received;
            counters.sent += sent;
        }
    }

    /// A connection or request was turned away before a server saw it.
    pub fn rejected(&mut self, listener: u32, reason: Rejected) {
        if let Some(counters) = self.listener(listener) {
            counters.rejected[reason as usize] += 1;
        }
    }

    /// A client and we have shaken hands.
    pub fn tls_handshake(&mut self, listener: u32, tls13: bool, resumed: bool) {
        if let Some(counters) = self.listener(listener) {
            counters.handshakes[usize::from(tls13)][usize::from(resumed)] += 1;
        }
    }

    /// A client connection was accepted; it is idle until `connection_active`.
    pub fn connection_opened(&mut self, listener: u32) {
        if let Some(counters) = self.listener(listener) {
            counters.accepted += 1;
            counters.idle += 1;
        }
    }

    /// An idle connection began a request.
    #[inline]
    pub fn connection_active(&mut self, listener: u32) {
        if let Some(counters) = self.listener(listener) {
            counters.idle = counters.idle.saturating_sub(1);
            counters.active += 1;
        }
    }

    /// An active connection waits for its next request.
    #[inline]
    pub fn connection_idle(&mut self, listener: u32) {
        if let Some(counters) = self.listener(listener) {
            counters.active = counters.active.saturating_sub(1);
            counters.idle += 1;
        }
    }

    /// A connection ended that was idle, or `active`.
    pub fn connection_closed(&mut self, listener: u32, active: bool) {
        if let Some(counters) = self.listener(listener) {
            let gauge = if active { &mut counters.active } else { &mut counters.idle };
            *gauge = gauge.saturating_sub(1);
        }
    }

    /// An attempt to connect to a server ended.
    pub fn upstream_connect(&mut self, pool: u32, server: u32, result: ConnectResult) {
        self.upstreams.entry(ServerLabels { pool, server }).or_default().connects[result as usize] += 1;
    }

    /// A request went out on a connection that had served before.
    #[inline]
    pub fn upstream_reuse(&mut self, pool: u32, server: u32) {
        self.upstreams.entry(ServerLabels { pool, server }).or_default().reuses += 1;
    }

    /// A request is tried once more.
    pub fn retry(&mut self, pool: u32, reason: RetryReason) {
        self.retries.entry(pool).or_default()[reason as usize] += 1;
    }

    /// Something came of a copy of a request for this pool.
    pub fn mirrored(&mut self, pool: u32, result: MirrorResult) {
        self.mirrored.entry(pool).or_default()[result as usize] += 1;
    }

    /// What affinity came to for one request of a pool that has it.
    pub fn affinity(&mut self, pool: u32, result: AffinityResult) {
        self.affinity.entry(pool).or_default()[result as usize] += 1;
    }

    /// A rule took a request: its number in a table with these names, which may be one before the last that
    /// was given to `rules.table`.
    #[inline]
    pub fn rule_hit(&mut self, names: &RuleNames, rule: usize) {
        self.rules.hit(names, rule);
    }

    /// Forgets labels for which `keep` says no, so that servers that came and went while running do
    /// not pile up. `keep` is asked about pools, too, with the server `NONE`; to be called when a
    /// snapshot is replaced. The times of a forgotten server stay with its pool: the histograms of a
    /// pool must never go back.
    pub fn retain(&mut self, mut keep: impl FnMut(ServerLabels) -> bool) {
        let mut orphans = Vec::new();
        self.requests.retain(|labels, requests| {
            let RequestLabels { pool, server, .. } = *labels;
            let kept = keep(ServerLabels { pool, server });
            if !kept && keep(ServerLabels { pool, server: NONE }) {
                orphans.push((RequestLabels { server: NONE, ..*labels }, requests.total, requests.first_byte));
            }
            kept
        });
        for (labels, total, first_byte) in orphans {
            let requests = self.requests.entry(labels).or_default();
            requests.total.merge(&total);
            requests.first_byte.merge(&first_byte);
        }
        self.upstreams.retain(|labels, _| keep(*labels));
        self.retries.retain(|pool, _| keep(ServerLabels { pool: *pool, server: NONE }));
        self.mirrored.retain(|pool, _| keep(ServerLabels { pool: *pool, server: NONE }));
        self.affinity.retain(|pool, _| keep(ServerLabels { pool: *pool, server: NONE }));
    }

    /// The worker has ended: its connections are closed.
    pub fn forget_connections(&mut self) {
        for counters in &mut self.listeners {
            (counters.active, counters.idle) = (0, 0);
        }
    }

    /// Adds what another worker has counted.
    pub fn merge(&mut self, other: &Counters) {
        for (labels, requests) in &other.requests {
            self.requests.entry(*labels).or_default().merge(requests);
        }
        for (labels, theirs) in &other.upstreams {
            let mine = self.upstreams.entry(*labels).or_default();
            add(&mut mine.connects, &theirs.connects);
            mine.reuses += theirs.reuses;
        }
        for (pool, theirs) in &other.retries {
            add(self.retries.entry(*pool).or_default(), theirs);
        }
        for (pool, theirs) in &other.mirrored {
            add(self.mirrored.entry(*pool).or_default(), theirs);
        }
        for (pool, theirs) in &other.affinity {
            add(self.affinity.entry(*pool).or_default(), theirs);
        }
        if self.listeners.len() < other.listeners.len() {
            self.listeners.resize_with(other.listeners.len(), ListenerCounters::default);
        }
        for (mine, theirs) in self.listeners.iter_mut().zip(&other.listeners) {
            mine.accepted += theirs.accepted;
            mine.active += theirs.active;
            mine.idle += theirs.idle;
            mine.received += theirs.received;
            mine.sent += theirs.sent;
            for (mine, theirs) in mine.handshakes.iter_mut().zip(&theirs.handshakes) {
                add(mine, theirs);
            }
            add(&mut mine.rejected, &theirs.rejected);
        }
        self.rules.merge(&other.rules);
    }

    /// In no order.
    pub fn requests(&self) -> impl Iterator<Item = (RequestLabels, &Requests)> {
        self.requests.iter().map(|(labels, requests)| (*labels, requests))
    }

    /// In no order.
    pub fn upstreams(&self) -> impl Iterator<Item = (ServerLabels, &UpstreamCounters)> {
        self.upstreams.iter().map(|(labels, counters)| (*labels, counters))
    }

    /// By pool, in no order.
    pub fn retries(&self) -> impl Iterator<Item = (u32, RetryReason, u64)> {
        self.retries.iter().flat_map(|(pool, counts)| {
            RetryReason::ALL.into_iter().zip(counts).map(|(reason, count)| (*pool, reason, *count))
        })
    }

    /// By pool, in no order.
    pub fn mirrors(&self) -> impl Iterator<Item = (u32, MirrorResult, u64)> {
        self.mirrored.iter().flat_map(|(pool, counts)| {
            MirrorResult::ALL.into_iter().zip(counts).map(|(result, count)| (*pool, result, *count))
        })
    }

    /// By pool, in no order.
    pub fn affinities(&self) -> impl Iterator<Item = (u32, AffinityResult, u64)> {
        self.affinity.iter().flat_map(|(pool, counts)| {
            AffinityResult::ALL.into_iter().zip(counts).map(|(result, count)| (*pool, result, *count))
        })
    }

    /// With the listener's number; also of listeners that saw nothing yet.
    pub fn listeners(&self) -> impl Iterator<Item = (u32, &ListenerCounters)> {
        (0..).zip(&self.listeners)
    }

    /// Where a listener counts; `None` for `NONE`.
    #[inline]
    pub(super) fn listener(&mut self, listener: u32) -> Option<&mut ListenerCounters> {
        let at = listener as usize;
        if at >= self.listeners.len() {
            if listener == NONE {
                return None;
            }
            self.new_listener(at);
        }
        self.listeners.get_mut(at)
    }

    #[cold]
    fn new_listener(&mut self, at: usize) {
        self.listeners.resize_with(at + 1, ListenerCounters::default);
    }
}

fn add<const N: usize>(mine: &mut [u64; N], theirs: &[u64; N]) {
    for (mine, theirs) in mine.iter_mut().zip(theirs) {
        *mine += theirs;
    }
}

type Map<K, V> = HashMap<K, V, BuildHasherDefault<Fold>>;

/// A hash for keys of a few small integers of our own making (nobody can choose them to collide):
/// a multiplication to 128 bits a word, its halves folded.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Fold(u64);

impl Hasher for Fold {
    #[inline]
    fn write_u32(&mut self, word: u32) {
        self.write_u64(u64::from(word));
    }

    #[inline]
    fn write_u64(&mut self, word: u64) {
        // Both are odd and have no pattern: the fractional digits of the golden ratio and of pi.
        let product = u128::from(self.0 ^ word ^ 0x243f_6a88_85a3_08d3) * 0x9e37_79b9_7f4a_7c15;
        self.0 = product as u64 ^ (product >> 64) as u64;
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEB: RequestLabels = RequestLabels { listener: 0, pool: 1, server: 2 };

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn requests_count_by_labels_and_code() {
        let mut counters = Counters::default();
        counters.request(WEB, 200, ms(3), Some(ms(2)));
        counters.request(WEB, 200, ms(4), Some(ms(2)));
        counters.request(WEB, 404, ms(1), Some(ms(1)));
        counters.request(RequestLabels { server: NONE, ..WEB }, 503, ms(1), None);
        let mut other = Counters::default();
        other.request(WEB, 404, ms(1), None);
        other.request(WEB, 200, ms(90), Some(ms(80)));
        counters.merge(&other);

        let (_, web) = counters.requests().find(|(labels, _)| *labels == WEB).unwrap();
        assert_eq!(web.codes(), [(200, 3), (404, 2)]);
        assert_eq!((web.count(), web.total.count(), web.first_byte.count()), (5, 5, 4));
        assert_eq!(counters.requests().map(|(_, requests)| requests.count()).sum::<u64>(), 6);
    }

    #[test]
    fn made_up_codes_do_not_grow_the_table() {
        let mut counters = Counters::default();
        for code in 100..1000 {
            counters.request(WEB, code, ms(1), None);
        }
        let mut other = counters.clone();
        other.merge(&counters);
        let (_, web) = other.requests().next().unwrap();
        assert_eq!(web.codes().len(), CODES);
        assert_eq!(web.count(), 1800);
        assert_eq!(web.codes()[CODES - 1], (OTHER_CODE, 2 * (900 - 31)));
    }

    #[test]
    fn gauges_follow_a_connection() {
        let mut counters = Counters::default();
        counters.connection_opened(3);
        counters.connection_opened(3);
        counters.connection_active(3);
        counters.rejected(3, Rejected::TlsOnPlain);
        counters.bytes(3, 10, 20);
        counters.bytes(NONE, 10, 20);
        let (number, web) = counters.listeners().last().unwrap();
        assert_eq!((number, web.accepted, web.active, web.idle, web.received, web.sent), (3, 2, 1, 1, 10, 20));
        assert_eq!(web.rejected().find(|(_, count)| *count > 0), Some((Rejected::TlsOnPlain, 1)));
        counters.connection_closed(3, true);
        counters.connection_closed(3, false);
        counters.connection_closed(3, false);
        let mut merged = Counters::default();
        merged.merge(&counters);
        let (_, web) = merged.listeners().last().unwrap();
        assert_eq!((web.active, web.idle, web.accepted), (0, 0, 2));
    }

    #[test]
    fn connects_and_retries_add_up_and_what_left_is_forgotten() {
        let mut counters = Counters::default();
        counters.upstream_connect(1, 2, ConnectResult::Ok);
        counters.upstream_connect(1, 2, ConnectResult::Refused);
        counters.upstream_reuse(1, 2);
        counters.upstream_reuse(1, 7);
        counters.retry(1, RetryReason::Connect);
        counters.mirrored(1, MirrorResult::Dropped);
        let copy = counters.clone();
        counters.merge(&copy);
        let (_, upstream) =
            counters.upstreams().find(|(labels, _)| *labels == ServerLabels { pool: 1, server: 2 }).unwrap();
        assert_eq!(upstream.reuses, 2);
        assert_eq!(upstream.connects().map(|(_, count)| count).collect::<Vec<_>>(), [2, 2, 0, 0, 0, 0]);
        assert_eq!(counters.retries().next(), Some((1, RetryReason::Connect, 2)));
        assert!(counters.mirrors().any(|of| of == (1, MirrorResult::Dropped, 2)));

        counters.retain(|labels| labels.server != 7);
        assert_eq!((counters.upstreams().count(), counters.retries().count()), (1, 3));
        counters.retain(|_| false);
        assert_eq!((counters.upstreams().count(), counters.retries().count()), (0, 0));
        assert_eq!(counters.mirrors().count(), 0);
    }

    #[test]
    fn the_times_of_a_pool_outlive_its_servers() {
        let mut counters = Counters::default();
        counters.request(WEB, 200, ms(3), Some(ms(2)));
        counters.request(RequestLabels { pool: 5, ..WEB }, 200, ms(3), None);
        counters.retain(|labels| labels.pool == 1 && labels.server == NONE);
        let left: Vec<_> = counters.requests().collect();
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].0, RequestLabels { server: NONE, ..WEB });
        assert_eq!((left[0].1.count(), left[0].1.total.count(), left[0].1.first_byte.count()), (0, 1, 1));
    }

    #[test]
    fn the_hash_spreads_small_numbers() {
        // hashbrown takes the low bits for the place and the high seven to tell neighbours apart.
        let mut low = std::collections::HashSet::new();
        let mut high = std::collections::HashSet::new();
        for server in 0..1024u32 {
            let mut hash = Fold::default();
            hash.write_u32(0);
            hash.write_u32(server / 16);
            hash.write_u32(server);
            low.insert(hash.finish() & 1023);
            high.insert(hash.finish() >> 57);
        }
        assert!(low.len() > 550, "{} of 1024 places used", low.len());
        assert!(high.len() == 128, "{} of 128 tags used", high.len());
    }
}
