//! Chooses what is done with a message: the compiled rule table.
//!
//! `Table::compile` reads a rule set once. `Table::section` finds the rules of a host, and
//! `Section::decide` the first of them that takes a message: without allocating, without a lock, and
//! at a cost that does not grow with the number of rules (`index.rs` has the drawing). Pure: the same
//! message, the same dice, the same answer.

mod anchor;
mod automaton;
mod body;
mod compile;
mod condition;
pub mod expect;
pub mod explain;
mod glob;
pub mod hash;
mod head;
mod index;
mod key;
mod list;
mod map;
mod meet;
pub mod overlap;
pub mod path;
mod print;
pub mod reads;
mod refined;
mod regex;
mod residue;
mod shadow;
mod text;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use smallvec::SmallVec;

use crate::model::Limits;
use crate::model::fault::{Fault, Place};
use crate::model::rule::{self, HostPattern, Kind, PathPolicy, RuleSet, Template};

use condition::{PathPattern, Term};

pub use crate::model::rule::Action;

pub use body::{Body, Content};
pub use head::Head;
pub use key::{expand, key_hash, key_text, location, pool, value};
pub use refined::{Auth, Mirror, Rate, Refined, Tuning};

/// A rule set, compiled. Immutable, and shared by all threads.
#[derive(Debug, Default)]
pub struct Table {
    sections: Box<[Section]>,
    hosts: [Hosts; 3],
    tails: Box<[Arc<regex::Tail>]>,
    reads: Option<Box<reads::Reads>>,
    has_auth: bool,
}

/// Which section a host has, of one kind.
#[derive(Debug, Default)]
struct Hosts {
    exact: hash::Map<Box<str>, usize>,
    /// `.example` for `*.example`.
    wildcards: hash::Map<Box<str>, usize>,
    longest_wildcard: usize,
    any: Option<usize>,
}

/// The rules of one kind for some hosts.
#[derive(Debug)]
pub struct Section {
    policy: PathPolicy,
    rules: Box<[Rule]>,
    /// The conditions of all rules; see `Term`.
    terms: Box<[Term]>,
    index: index::Index,
    /// Names of the lists, by their position in the rule set.
    lists: Arc<[Arc<str>]>,
}

/// One rule, compiled.
#[derive(Debug)]
pub struct Rule {
    number: u32,
    /// Position of the first part of its condition.
    first: u32,
    /// One for all rules that do the same.
    action: Arc<Action>,
    /// What is not needed to forward most messages.
    rest: Box<Rest>,
}

#[derive(Debug)]
struct Rest {
    id: Arc<str>,
    name: Arc<str>,
    place: Place,
    changes: Box<[Change]>,
    /// As they were read, in the order of the compiled ones.
    condition: Vec<rule::Term>,
    /// Path patterns that captures and groups can come from, in the order they are tried.
    patterns: Box<[PathPattern]>,
    /// Of `use map`.
    map: Option<Arc<map::Pools>>,
    refined: Option<Box<Refined>>,
}

/// `set header`, `remove header`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Set { name: Arc<str>, value: Template },
    Remove { name: Arc<str> },
}

/// One search for a rule.
struct Walk<'d> {
    dice: &'d mut dyn FnMut() -> u32,
    /// What was rolled for a rule: a rule may be looked at twice, but rolls once.
    rolls: Rolls,
    /// Where the conditions of the rules to look at begin, and end. The end moves forward to each rule
    /// that is found to match.
    from: u32,
    best: u32,
    /// Where the condition of the first rule begins that would take the message but for its body, which
    /// has not been read.
    awaits: u32,
}

/// A rule would take the message but for its body, and none before it does: it is to be read and
/// [`Section::decide_with`] to be asked.
#[derive(Debug)]
pub struct NeedBody {
    /// Bytes of it that rules look at; a larger one is [`Body::TooLarge`].
    pub most: usize,
    rolls: Rolls,
}

/// What was rolled for which rule.
type Rolls = SmallVec<[(u32, u32); 4]>;

impl Table {
    /// Compiles a rule set. What is wrong with it is added to `faults`; if any of that is an error
    /// the table must not be used.
    pub fn compile(set: &RuleSet, faults: &mut Vec<Fault>) -> Table {
        compile::table(set, faults)
    }

    /// The section of a host: of its exact name, else of the longest wildcard, else of `*`. `host` is
    /// in lower case, without port and trailing dot; `tcp` sections have none, and it is not read.
    pub fn section(&self, kind: Kind, host: &str) -> Option<&Section> {
        self.sections.get(self.hosts[kind as usize].find(host)?)
    }

    /// Whether some rule asks who somebody is.
    pub fn has_auth(&self) -> bool {
        self.has_auth
    }

    /// All rules, in the order of their numbers.
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.sections.iter().flat_map(|section| &section.rules)
    }

    /// What its rules read that not every line of the access log has; `None`: nothing.
    #[inline]
    pub fn reads(&self) -> Option<&reads::Reads> {
        self.reads.as_deref()
    }

    /// Whether there is no section of that kind.
    pub fn is_empty(&self, kind: Kind) -> bool {
        let hosts = &self.hosts[kind as usize];
        hosts.exact.is_empty() && hosts.wildcards.is_empty() && hosts.any.is_none()
    }

    /// Compiles the regexes that loading left for later, up to `most`. Worth calling on a thread that
    /// serves nobody, after a load; without it the first request that needs one pays for it.
    pub fn warm(&self, most: usize) {
        self.tails.iter().take(most).for_each(|tail| tail.warm());
    }
}

impl Hosts {
    fn find(&self, host: &str) -> Option<usize> {
        if let Some(section) = self.exact.get(host) {
            return Some(*section);
        }
        if !self.wildcards.is_empty() {
            // A wildcard has at least one label before it; the longest comes first.
            let dots = memchr::memchr_iter(b'.', host.as_bytes()).filter(|at| *at > 0);
            let ends = dots.map(|at| &host[at..]).filter(|end| end.len() <= self.longest_wildcard);
            for end in ends {
                if let Some(section) = self.wildcards.get(end) {
                    return Some(*section);
                }
            }
        }
        self.any
    }

    /// The first declaration of a host stands.
    fn add(&mut self, host: &HostPattern, section: usize) {
        match host {
            HostPattern::Any => {
                self.any.get_or_insert(section);
            }
            HostPattern::Exact(name) => {
                self.exact.entry((**name).into()).or_insert(section);
            }
            HostPattern::Wildcard(end) => {
                self.longest_wildcard = self.longest_wildcard.max(end.len());
                self.wildcards.entry((**end).into()).or_insert(section);
            }
        }
    }
}

impl Section {
    /// What is done to paths before they are matched here.
    pub fn policy(&self) -> PathPolicy {
        self.policy
    }

    /// The rules, in their order.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The first rule that takes a message. `dice` gives 0 to 9,999 and is called only for a chance.
    ///
    /// # Errors
    /// When that hangs on the body, which is [`Body::Unread`].
    pub fn decide<'t>(
        &'t self,
        head: &Head<'_>,
        dice: &mut dyn FnMut() -> u32,
    ) -> Result<Option<&'t Rule>, Box<NeedBody>> {
        let mut walk = Walk::new(0, u32::MAX, dice);
        self.index.find(self, head, &mut walk);
        if walk.awaits < walk.best {
            return Err(Box::new(NeedBody { most: Limits::CONDITION_BODY, rolls: walk.rolls }));
        }
        Ok(self.rule_at(walk.best))
    }

    /// The same for a message of which all is known that will be. What was rolled before the body was read stands.
    pub fn decide_with<'t>(
        &'t self,
        need: Option<Box<NeedBody>>,
        head: &Head<'_>,
        dice: &mut dyn FnMut() -> u32,
    ) -> Option<&'t Rule> {
        let rolls = need.map(|need| need.rolls).unwrap_or_default();
        let mut walk = Walk { rolls, ..Walk::new(0, u32::MAX, dice) };
        self.index.find(self, head, &mut walk);
        self.rule_at(walk.best)
    }

    /// The first rule that takes a message, of those whose conditions begin in a range of `terms`.
    fn between<'t>(&'t self, from: u32, end: u32, head: &Head<'_>, dice: &mut dyn FnMut() -> u32) -> Option<&'t Rule> {
        let mut walk = Walk::new(from, end, dice);
        self.index.find(self, head, &mut walk);
        if walk.best == end { None } else { self.rule_at(walk.best) }
    }

    /// The rule whose condition begins at `first`.
    fn rule_at(&self, first: u32) -> Option<&Rule> {
        self.rules.get(self.terms.get(first as usize)?.rule as usize)
    }

    /// The condition of the rule whose first part is at `first`.
    #[inline]
    fn condition(&self, first: u32) -> &[Term] {
        condition(&self.terms, first)
    }
}

/// The parts of a condition that begins at `first`.
#[inline]
fn condition(terms: &[Term], first: u32) -> &[Term] {
    let terms = terms.get(first as usize..).unwrap_or_default();
    let count = terms.first().map_or(0, |term| term.more as usize + 1);
    terms.get(..count).unwrap_or_default()
}

impl Rule {
    /// `shop.rules:beta`.
    pub fn id(&self) -> &Arc<str> {
        &self.rest.id
    }

    /// Dense over the table, from 0: an index for counters.
    pub fn number(&self) -> u32 {
        self.number
    }

    pub fn action(&self) -> &Action {
        &self.action
    }

    /// Header changes, in the order they were written.
    pub fn changes(&self) -> &[Change] {
        &self.rest.changes
    }

    /// What it says besides; most rules say nothing.
    #[inline]
    pub fn refined(&self) -> Option<&Refined> {
        self.rest.refined.as_deref()
    }

    pub fn place(&self) -> &Place {
        &self.rest.place
    }
}

impl<'d> Walk<'d> {
    fn new(from: u32, end: u32, dice: &'d mut dyn FnMut() -> u32) -> Walk<'d> {
        Walk { dice, rolls: SmallVec::new(), from, best: end, awaits: u32::MAX }
    }

    fn awaits_body(&mut self, rule: Option<&Rule>) {
        self.awaits = self.awaits.min(rule.map_or(u32::MAX, |rule| rule.first));
    }

    fn roll(&mut self, rule: u32) -> u32 {
        if let Some((_, roll)) = self.rolls.iter().find(|(own, _)| *own == rule) {
            return *roll;
        }
        let roll = (self.dice)();
        self.rolls.push((rule, roll));
        roll
    }
}
