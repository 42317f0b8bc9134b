//! Servers that serve the same thing, and how one of them is chosen.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::Timeouts;
use super::affinity::Affinity;
use super::check::Check;
use super::fault::Place;
use super::rule::Key;
use super::tls::PoolTls;

#[derive(Debug, Clone, PartialEq)]
pub struct Pool {
    pub name: Arc<str>,
    pub scheduler: Scheduler,
    pub servers: Vec<Server>,
    /// A server is up when all of them are; none: always up.
    pub checks: Vec<Check>,
    pub retry: Retry,
    pub hedge: Option<Hedge>,
    /// Of all its servers together.
    pub most: Most,
    /// Requests that may wait for a server that is not full; 0: none waits. How long they do is
    /// `timeouts.queue`.
    pub queue: u32,
    /// Which servers are left alone for a while, by how they answer.
    pub outlier: Option<Outlier>,
    /// How long a server that came up takes to get its whole share.
    pub slow_start: Option<Duration>,
    /// `[timeouts]` with this pool's own laid over them.
    pub timeouts: Timeouts,
    /// Each connection to its servers begins with a PROXY header of this version.
    pub send_proxy: Option<ProxyVersion>,
    /// How its servers are spoken to in secret; `None`: in clear.
    pub tls: Option<PoolTls>,
    pub protocol: Protocol,
    /// How clients are kept at the server they were at.
    pub affinity: Option<Affinity>,
    pub place: Place,
}

impl Pool {
    /// Whether a connection to a server of this pool would also do for one of `other`.
    pub fn spoken_to_as(&self, other: &Pool) -> bool {
        let sealed = match (&self.tls, &other.tls) {
            (Some(own), Some(other)) => own.same(other),
            (own, other) => own.is_none() && other.is_none(),
        };
        sealed && self.protocol == other.protocol && self.send_proxy == other.send_proxy
    }
}

/// Which servers are left alone for a while, by how they answer. Shares are in hundredths of a percent.
#[derive(Debug, Clone, PartialEq)]
pub struct Outlier {
    /// Answers of 500 and above, and failures, in a row.
    pub consecutive_5xx: Option<u32>,
    /// Connections that were not made, and answers that did not come or not whole, in a row.
    pub consecutive_failures: Option<u32>,
    /// Share of bad answers in a window.
    pub failure_rate: Option<u32>,
    /// A mean time so many times that of the pool.
    pub slower_than: Option<f64>,
    /// What the two before look at.
    pub window: Duration,
    /// Answers in it without which it says nothing.
    pub least_requests: u32,
    /// The first time; the second time twice that, and so on up to `eject_for_at_most`.
    pub eject_for: Duration,
    pub eject_for_at_most: Duration,
    /// Share of the pool that may be out.
    pub eject_at_most: u32,
    /// Where less than this share of the pool is left, all are used; 0: never.
    pub panic: u32,
}

impl Default for Outlier {
    fn default() -> Outlier {
        Outlier {
            consecutive_5xx: None,
            consecutive_failures: None,
            failure_rate: None,
            slower_than: None,
            window: Duration::from_secs(10),
            least_requests: 20,
            eject_for: Duration::from_secs(30),
            eject_for_at_most: Duration::from_secs(300),
            eject_at_most: 5_000,
            panic: 0,
        }
    }
}

/// What its servers are spoken to in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    #[default]
    Http1,
    /// HTTP/2 without TLS, which is known beforehand and not asked for (RFC 9113 §3.3).
    H2c,
    /// HTTP/2 by TLS.
    H2,
    /// What the server chooses by TLS (ALPN); HTTP/1 in clear.
    Auto,
}

/// A version of the PROXY protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProxyVersion {
    /// One line of text.
    V1,
    /// Binary, and it carries more than addresses.
    V2,
}

/// One machine and port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Unique in its pool. The identity of a server everywhere is `pool/name`.
    pub name: Arc<str>,
    pub address: Address,
    /// Share of the load against the other servers; 0 takes no new client (drains).
    pub weight: u32,
    pub most: Most,
    /// Used only while no other server of the pool is.
    pub backup: bool,
    pub place: Place,
}

/// How much there may be at once, over all cores; `None`: no bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Most {
    /// Connections in use; idle ones do not count.
    pub connections: Option<u32>,
    /// Requests in flight.
    pub requests: Option<u32>,
    /// RTSP sessions; of a server alone.
    pub sessions: Option<u32>,
    /// What the descriptions of its RTSP sessions name together, in kbit/s; of a server alone.
    pub kilobits: Option<u32>,
}

impl Most {
    /// Requests in flight at most to servers that are spoken to in this: where each request has a connection of its
    /// own, the two mean the same.
    pub fn in_flight(self, protocol: Protocol) -> Option<u32> {
        match protocol {
            Protocol::Http1 => self.connections.into_iter().chain(self.requests).min(),
            Protocol::H2c | Protocol::H2 | Protocol::Auto => self.requests,
        }
    }

    /// Connections in use at most, where they have to be counted apart from requests.
    pub fn in_use(self, protocol: Protocol) -> Option<u32> {
        self.connections.filter(|_| protocol != Protocol::Http1)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    Ip(SocketAddr),
    /// Resolved while running, again every 30 s.
    Name {
        host: Arc<str>,
        port: u16,
    },
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Address::Ip(address) => address.fmt(f),
            Address::Name { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum Scheduler {
    /// Round robin; weights are ignored but for 0.
    Rr,
    /// Round robin in proportion to the weights.
    Wrr,
    /// Fewest requests in flight.
    Lc,
    /// Fewest requests in flight for its weight.
    Wlc,
    /// Fewest requests in flight for its weight, the new one included.
    Sed,
    /// An idle one, else as `Sed`.
    Nq,
    /// The heaviest.
    Fo,
    /// The heaviest that has no more requests in flight than its weight.
    Ovf,
    /// The first that is not full.
    First,
    /// At random, in proportion to the weights.
    Random,
    /// The better of two at random.
    Twos,
    /// The shortest time to answer for what it has in flight, and its weight.
    Ewma,
    /// Rendezvous hashing by a key.
    Hash { key: Key },
    /// Maglev hashing by a key.
    Mh { key: Key },
    /// Buckets of keys, by weight.
    Sh { key: Key },
    /// Buckets of keys.
    Dh { key: Key },
    /// The server that has a key, while it can bear it.
    Lblc { key: Key },
    /// The servers that have a key, while they can bear it.
    Lblcr { key: Key },
    /// The same, of what can be borne as a share of all.
    Content { key: Key },
    /// One of those that go by a key, with a bound: no server has more than `factor` times its share.
    Bounded { of: Box<Scheduler>, factor: f64 },
}

impl Scheduler {
    /// The configuration's word for it.
    pub fn word(&self) -> &'static str {
        match self {
            Scheduler::Rr => "rr",
            Scheduler::Wrr => "wrr",
            Scheduler::Lc => "lc",
            Scheduler::Wlc => "wlc",
            Scheduler::Sed => "sed",
            Scheduler::Nq => "nq",
            Scheduler::Fo => "fo",
            Scheduler::Ovf => "ovf",
            Scheduler::First => "first",
            Scheduler::Random => "random",
            Scheduler::Twos => "twos",
            Scheduler::Ewma => "ewma",
            Scheduler::Hash { .. } => "hash",
            Scheduler::Mh { .. } => "mh",
            Scheduler::Sh { .. } => "sh",
            Scheduler::Dh { .. } => "dh",
            Scheduler::Lblc { .. } => "lblc",
            Scheduler::Lblcr { .. } => "lblcr",
            Scheduler::Content { .. } => "content",
            Scheduler::Bounded { of, .. } => of.word(),
        }
    }

    /// What it goes by, where that is a key.
    pub fn key(&self) -> Option<&Key> {
        match self {
            Scheduler::Hash { key }
            | Scheduler::Mh { key }
            | Scheduler::Sh { key }
            | Scheduler::Dh { key }
            | Scheduler::Lblc { key }
            | Scheduler::Lblcr { key }
            | Scheduler::Content { key } => Some(key),
            Scheduler::Bounded { of, .. } => of.key(),
            _ => None,
        }
    }
}

/// When a request that failed is tried on another server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// Extra tries.
    pub attempts: u32,
    pub on: Occasions,
    /// Retries at most, of all cores, in hundredths of a percent of the requests of the last ten seconds; three a second
    /// are always allowed. `None`: as many as `attempts` makes.
    pub budget: Option<u32>,
}

impl Default for Retry {
    fn default() -> Retry {
        Retry { attempts: 2, on: Occasions { connect: true, refused: true, ..Occasions::default() }, budget: None }
    }
}

/// What a request is tried again for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Occasions {
    /// A connection that could not be made: nothing has been sent then.
    pub connect: bool,
    /// A request that a server of HTTP/2 says it has not looked at.
    pub refused: bool,
    /// A connection that was closed before an answer.
    pub reset: bool,
    /// An answer that did not begin in time.
    pub timeout: bool,
    /// A bit for each status from 400 to 599.
    statuses: [u64; 4],
}

impl Occasions {
    /// The words for all but statuses, which are `400` to `599`, `4xx` and `5xx`.
    pub const WORDS: [&str; 4] = ["connect", "refused-stream", "reset", "timeout"];

    /// What these words name.
    pub fn of<'w>(words: impl IntoIterator<Item = &'w str>) -> Occasions {
        let mut on = Occasions::default();
        for word in words {
            on.add(word);
        }
        on
    }

    /// Adds what a word names. False: it names nothing.
    pub fn add(&mut self, word: &str) -> bool {
        match word {
            "connect" => self.connect = true,
            "refused-stream" => self.refused = true,
            "reset" => self.reset = true,
            "timeout" => self.timeout = true,
            "4xx" => (400..500).for_each(|status| self.add_status(status)),
            "5xx" => (500..600).for_each(|status| self.add_status(status)),
            _ => match word.parse() {
                Ok(status @ 400..600) if word.len() == 3 => self.add_status(status),
                _ => return false,
            },
        }
        true
    }

    fn add_status(&mut self, status: u16) {
        let at = usize::from(status - 400);
        self.statuses[at / 64] |= 1 << (at % 64);
    }

    /// Whether some status is one.
    #[inline]
    pub fn has_statuses(&self) -> bool {
        self.statuses != [0; 4]
    }

    pub fn has_status(&self, status: u16) -> bool {
        (400..600).contains(&status) && {
            let at = usize::from(status - 400);
            self.statuses[at / 64] >> (at % 64) & 1 == 1
        }
    }
}

impl std::fmt::Display for Occasions {
    /// In the words that say it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let named = [self.connect, self.refused, self.reset, self.timeout];
        let mut words: Vec<String> =
            Self::WORDS.iter().zip(named).filter(|(_, has)| *has).map(|(word, _)| (*word).to_owned()).collect();
        for (class, statuses) in [("4xx", 400..500), ("5xx", 500..600)] {
            if statuses.clone().all(|status| self.has_status(status)) {
                words.push(class.to_owned());
            } else {
                words.extend(statuses.filter(|status| self.has_status(*status)).map(|status| status.to_string()));
            }
        }
        f.write_str(&words.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn occasions_by_their_words() {
        let mut on = Occasions::default();
        assert!(!on.has_statuses());
        for word in ["refused-stream", "timeout", "503", "429", "502", "400", "599"] {
            assert!(on.add(word), "{word}");
        }
        assert!(on.has_statuses() && on.timeout && !on.connect && !on.reset);
        let has: Vec<u16> = (0..1000).filter(|status| on.has_status(*status)).collect();
        assert_eq!(has, [400, 429, 502, 503, 599]);
        assert_eq!(on.to_string(), "refused-stream timeout 400 429 502 503 599");
        assert!(on.add("5xx"));
        assert_eq!(on.to_string(), "refused-stream timeout 400 429 5xx");
        for wrong in ["", "200", "600", "0503", "+503", "3xx", "Connect"] {
            assert!(!on.add(wrong), "{wrong}");
        }
    }
}

/// When a second server is asked as well, because the first is slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hedge {
    pub after: HedgeAfter,
    /// Of the requests of the last ten seconds, in hundredths of a percent; one a second is always allowed.
    pub at_most: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HedgeAfter {
    Time(Duration),
    /// As long as so many of a hundred answers take to begin.
    Percentile(u8),
}
