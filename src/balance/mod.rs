//! Chooses one of the servers of a pool: one scheduler a file.
//!
//! Everything here is pure. A scheduler is built off the request path from weights and seeds, and asked on
//! it with a [`View`] of the servers as they are now, a ticket (how many picks the pool made before) and a
//! key's hash. Asking neither locks nor allocates. Servers that are not usable (weight 0, full, tried
//! before) are never chosen; which of the others is, depends on the scheduler alone.

pub mod bounded;
pub mod buckets;
pub mod ewma;
pub mod first;
pub mod fo;
pub mod hash;
pub mod least;
pub mod locality;
pub mod maglev;
pub mod nq;
pub mod ovf;
pub mod places;
pub mod random;
pub mod rr;
pub mod sed;
pub mod twos;
pub mod wrr;

use std::sync::Arc;

use self::bounded::Bounded;
use self::buckets::Buckets;
use self::locality::{Kind, Locality};
use self::places::Places;
use crate::model::pool::Scheduler;

/// The servers of a pool as a scheduler sees them: by position, always in the same order as when it was
/// built.
pub trait View {
    /// How many there are.
    fn len(&self) -> usize;
    /// Share of the load; 0 is never chosen.
    fn weight(&self, server: usize) -> u32;
    /// The weight of the heaviest, or more.
    fn heaviest(&self) -> u32;
    /// The weight of the lightest, or less.
    fn lightest(&self) -> u32;
    /// Requests in flight.
    fn load(&self, server: usize) -> u32;
    /// A hash of the server's identity, the same in every run and on every machine.
    fn seed(&self, server: usize) -> u64;
    /// False when it is full or was tried for this request already.
    fn open(&self, server: usize) -> bool;
    /// How long its answers took lately, in a unit of the caller's; 0 where that is not known.
    fn delay(&self, server: usize) -> u64;
    /// Seconds, from whenever.
    fn now(&self) -> u32;

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[inline(always)]
    fn usable(&self, server: usize) -> bool {
        self.weight(server) > 0 && self.open(server)
    }

    /// The load of a server that is open.
    fn available(&self, server: usize) -> Option<u32> {
        self.open(server).then(|| self.load(server))
    }
}

/// What a scheduler is built from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// As [`View::weight`].
    pub weight: u32,
    /// As [`View::seed`].
    pub seed: u64,
}

/// A scheduler, ready for one list of servers.
#[derive(Debug)]
pub enum Balancer {
    Rr,
    Wrr(wrr::Order),
    Lc,
    /// The order only breaks ties: an idle pool is served in proportion to the weights.
    Wlc(wrr::Order),
    /// As `fo`'s.
    Sed(fo::Order),
    Nq,
    /// The heaviest first, by position; of one weight, the earlier.
    Fo(fo::Order),
    Ovf(fo::Order),
    First,
    Random(random::Wheel),
    Twos(random::Wheel),
    Ewma,
    Hash,
    Mh(maglev::Table),
    /// `sh` and `dh`.
    Buckets(Buckets),
    /// `lblc`, `lblcr` and `content`.
    Locality(Locality),
    /// One that goes by a key, and the bound of what each server may have.
    Bounded(Box<Balancer>, f64),
}

impl Balancer {
    /// `before`: the pool's former one, whose memory goes on.
    pub fn new(scheduler: &Scheduler, shares: &[Share], before: Option<&Balancer>) -> Balancer {
        let locality = |kind| {
            let places = match before {
                Some(Balancer::Locality(before)) => before.places().clone(),
                _ => Arc::new(Places::default()),
            };
            Balancer::Locality(Locality::new(kind, shares, places))
        };
        match scheduler {
            Scheduler::Rr => Balancer::Rr,
            Scheduler::Wrr => Balancer::Wrr(wrr::Order::new(shares)),
            Scheduler::Lc => Balancer::Lc,
            Scheduler::Wlc => Balancer::Wlc(wrr::Order::new(shares)),
            Scheduler::Sed => Balancer::Sed(fo::Order::new(shares)),
            Scheduler::Nq => Balancer::Nq,
            Scheduler::Fo => Balancer::Fo(fo::Order::new(shares)),
            Scheduler::Ovf => Balancer::Ovf(fo::Order::new(shares)),
            Scheduler::First => Balancer::First,
            Scheduler::Random => Balancer::Random(random::Wheel::new(shares)),
            Scheduler::Twos => Balancer::Twos(random::Wheel::new(shares)),
            Scheduler::Ewma => Balancer::Ewma,
            Scheduler::Hash { .. } => Balancer::Hash,
            Scheduler::Mh { .. } => Balancer::Mh(maglev::Table::new(shares)),
            Scheduler::Sh { .. } => Balancer::Buckets(Buckets::by_weight(shares)),
            Scheduler::Dh { .. } => Balancer::Buckets(Buckets::in_turn(shares)),
            Scheduler::Lblc { .. } => locality(Kind::Lblc),
            Scheduler::Lblcr { .. } => locality(Kind::Lblcr),
            Scheduler::Content { .. } => locality(Kind::content(None)),
            Scheduler::Bounded { of, factor } => match &**of {
                Scheduler::Content { .. } => locality(Kind::content(Some(*factor))),
                of => Balancer::Bounded(Box::new(Balancer::new(of, shares, None)), *factor),
            },
        }
    }

    /// The position of the server to use; `None` when none is usable, or by `ovf` none takes more.
    ///
    /// `key` is the hash of what schedulers that go by one are given. With another scheduler it means rendezvous
    /// hashing for this pick. One that goes by a key, and has none, spreads by weight.
    pub fn pick(&self, view: &impl View, ticket: u64, key: Option<u64>) -> Option<usize> {
        match (self, key) {
            (Balancer::Bounded(of, factor), key) => {
                let bounded = Bounded::new(view, *factor);
                of.pick_by_key(&bounded, ticket, key).or_else(|| of.pick_by_key(view, ticket, key))
            }
            (Balancer::Hash | Balancer::Mh(_) | Balancer::Buckets(_) | Balancer::Locality(_), key) => {
                self.pick_by_key(view, ticket, key)
            }
            (_, Some(key)) => hash::pick(view, key),
            (Balancer::Rr, None) => rr::pick(view, ticket),
            (Balancer::Wrr(order), None) => order.pick(view, ticket),
            (Balancer::Lc, None) => least::pick(view, below(ticket, view.len())?, ticket, least::By::Load),
            (Balancer::Wlc(order), None) => least::pick(view, order.at(ticket)?, ticket, least::By::LoadForWeight),
            (Balancer::Sed(order), None) => sed::pick(order, view, ticket),
            (Balancer::Nq, None) => nq::pick(view, ticket),
            (Balancer::Fo(order), None) => order.first(view, |_| true),
            (Balancer::Ovf(order), None) => ovf::pick(order, view),
            (Balancer::First, None) => first::pick(view),
            (Balancer::Random(wheel), None) => wheel.pick(view, mix(ticket)),
            (Balancer::Twos(wheel), None) => twos::pick(wheel, view, mix(ticket)),
            (Balancer::Ewma, None) => ewma::pick(view, ticket),
        }
    }

    fn pick_by_key(&self, view: &impl View, ticket: u64, key: Option<u64>) -> Option<usize> {
        let key = key.unwrap_or_else(|| mix(ticket));
        match self {
            Balancer::Mh(table) => table.pick(view, key),
            Balancer::Buckets(buckets) => buckets.pick(view, key),
            Balancer::Locality(locality) => locality.pick(view, ticket, key),
            _ => hash::pick(view, key),
        }
    }
}

/// The hash of a key or an identity: FNV-1a with a strong last step. It is fixed for good, so that the
/// same key finds the same server after a restart and on a second director.
pub fn hash_bytes(bytes: &[u8]) -> u64 {
    let fold = |hash: u64, &byte: &u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    mix(bytes.iter().fold(0xcbf2_9ce4_8422_2325, fold))
}

/// Spreads a number over all 64 bits: the step of the SplitMix64 generator. Of a counter it makes dice.
pub fn mix(number: u64) -> u64 {
    let z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// `ticket` modulo `length`; `None` when there is nothing to choose from.
fn below(ticket: u64, length: usize) -> Option<usize> {
    let rest = ticket.checked_rem(length as u64)?;
    Some(rest as usize)
}

/// A fair position below `length` (not 0) from 64 random bits.
fn scale(dice: u64, length: u64) -> u64 {
    ((u128::from(dice) * u128::from(length)) >> 64) as u64
}

/// The first usable server from `start` on, round the list.
fn first_usable(view: &impl View, start: usize) -> Option<usize> {
    (start..view.len()).chain(0..start.min(view.len())).find(|&server| view.usable(server))
}

#[cfg(test)]
mod tests;
