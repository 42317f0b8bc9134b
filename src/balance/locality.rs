//! The same key to the same servers while these can bear it: `lblc`, `lblcr` and `content`, for farms of caches.
//!
//! | scheduler | first | overloaded | then | fewer again |
//! |---|---|---|---|---|
//! | `lblc` | by wlc | more in hand than its weight, while another has less than half of its own | another one by wlc | |
//! | `lblcr` | by wlc | the same of the least loaded | one more by wlc | after 24 hours without a change |
//! | `content` | the less loaded of the key's two best by rendezvous | 16 in hand, and 1.5 times its share of all | the least loaded as well | after 20 seconds |
//!
//! `lblc` and `lblcr` are those of IPVS, where weights are what a server can bear at once. `content` needs no such
//! weights, and does not collapse when all are over the bound: a share of all grows with the load (docs/overload.md).

use std::sync::Arc;

use super::least::{self, By};
use super::places::{Places, Set, tag};
use super::{Share, View, below, hash};

/// What is in hand at least before a server counts as overloaded for `content`.
const ENOUGH: u32 = 16;
/// How many times its share of all, if the configuration does not say it.
const SHARE: f64 = 1.5;
/// Seconds without a change after which a key has one server fewer.
const QUIET: u32 = 20;
const QUIET_LBLCR: u32 = 24 * 3600;

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    Lblc,
    Lblcr,
    /// How many times its share a server may have.
    Content(f64),
}

impl Kind {
    pub fn content(factor: Option<f64>) -> Kind {
        Kind::Content(factor.unwrap_or(SHARE))
    }
}

#[derive(Debug)]
pub struct Locality {
    kind: Kind,
    places: Arc<Places>,
    /// What servers are known by in `places`, in order, with their positions.
    known: Vec<(u32, u32)>,
}

impl Locality {
    pub fn new(kind: Kind, shares: &[Share], places: Arc<Places>) -> Locality {
        let mut known: Vec<(u32, u32)> = (0u32..).zip(shares).map(|(at, share)| (tag(share.seed), at)).collect();
        known.sort_unstable();
        Locality { kind, places, known }
    }

    /// What it remembers, for the one that is made after it.
    pub fn places(&self) -> &Arc<Places> {
        &self.places
    }

    pub fn pick(&self, view: &impl View, ticket: u64, key: u64) -> Option<usize> {
        let now = view.now();
        let set = self.places.of(key, now);
        let best = self.least_loaded_of(set, view);
        let quiet = if matches!(self.kind, Kind::Content(_)) { QUIET } else { QUIET_LBLCR };
        if set.quiet(now) > quiet && set.members().count() > 1 {
            self.drop_most_loaded(set, view, now);
        }
        if let Some(best) = best
            && !self.is_overloaded(best, view)
        {
            return Some(best);
        }
        let next = match (self.kind, best) {
            (Kind::Content(_), None) => first_of_two(view, key)?,
            _ => least::pick(view, below(ticket, view.len())?, ticket, By::LoadForWeight)?,
        };
        if self.kind == Kind::Lblc {
            set.clear(now);
        }
        set.add(tag(view.seed(next)), now);
        Some(next)
    }

    fn position(&self, tag: u32) -> Option<usize> {
        let at = self.known.binary_search_by_key(&tag, |(tag, _)| *tag).ok()?;
        Some(self.known[at].1 as usize)
    }

    fn least_loaded_of(&self, set: &Set, view: &impl View) -> Option<usize> {
        let members = set.members().filter_map(|member| self.position(member)).filter(|&server| view.usable(server));
        members.reduce(|best, other| if lighter(view, other, best) { other } else { best })
    }

    fn drop_most_loaded(&self, set: &Set, view: &impl View, now: u32) {
        let members = set.members().filter_map(|member| self.position(member));
        let most = members.reduce(|most, other| if lighter(view, most, other) { other } else { most });
        if let Some(most) = most {
            set.remove(tag(view.seed(most)), now);
        }
    }

    fn is_overloaded(&self, server: usize, view: &impl View) -> bool {
        let (load, weight) = (view.load(server), view.weight(server));
        match self.kind {
            Kind::Lblc | Kind::Lblcr => {
                let idle = |server: usize| u64::from(view.load(server)) * 2 < u64::from(view.weight(server));
                load > weight && (0..view.len()).any(|server| idle(server) && view.usable(server))
            }
            Kind::Content(factor) => {
                if load < ENOUGH {
                    return false;
                }
                let (all, weights) = (0..view.len()).fold((0, 0), |(all, weights), server| {
                    (all + u64::from(view.load(server)), weights + u64::from(view.weight(server)))
                });
                f64::from(load) >= factor * all as f64 * f64::from(weight) / weights.max(1) as f64
            }
        }
    }
}

/// Whether one has less in hand for its weight than another.
fn lighter(view: &impl View, one: usize, than: usize) -> bool {
    u64::from(view.load(one)) * u64::from(view.weight(than)) < u64::from(view.load(than)) * u64::from(view.weight(one))
}

/// The less loaded of the two that rendezvous puts first: of one load, the first.
fn first_of_two(view: &impl View, key: u64) -> Option<usize> {
    let (first, second) = hash::two(view, key)?;
    Some(second.filter(|&second| lighter(view, second, first)).unwrap_or(first))
}
