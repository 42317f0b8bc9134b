//! Finds the first rule that takes a message, at a cost that does not grow with the rules.
//!
//! A tree of tables. A node holds some rules; each of them is filed under the anchor that tells it
//! best from the others there (`anchor.rs`): its folder, its extension, the value of its header. A
//! message's own keys lead to the few rules it could match. Where many rules share a key (all under
//! `/api`, told apart by a cookie), that entry is a node of its own with other tables.
//!
//! ```text
//!    root ── folder ──┬─ "/img" ── rule 1
//!      │              └─ "/api" ── node ── header ─┬─ x-beta: 1 ── rules 2, 7
//!      │                                           └─ x-beta: 2 ── rule 3
//!      ├─ extension ─── ".jpg" ── rule 1
//!      └─ always tested: rules 8, 9
//! ```
//!
//! A rule is known by where its condition begins among those of all rules: the first match is the least
//! of these. The walk keeps the best so far and passes over whatever cannot be before it.

use std::cmp::Reverse;

use aho_corasick::{AhoCorasick, MatchKind};
use smallvec::SmallVec;

use super::anchor::{Anchor, Dimension, Filter, alternatives, keys};
use super::condition::Term;
use super::hash::Map;
use super::head::Head;
use super::residue::Residue;
use super::{Section, Walk, condition};

#[derive(Debug, Default)]
pub(super) struct Index {
    nodes: Vec<Node>,
}

#[derive(Debug, Default)]
struct Node {
    /// The first rule in it.
    first: u32,
    /// Those with the earliest rules first.
    probes: Box<[Probe]>,
    /// Tested always, in order.
    rules: Box<[u32]>,
}

#[derive(Debug)]
struct Probe {
    first: u32,
    by: By,
}

#[derive(Debug)]
enum By {
    Key {
        dimension: Dimension,
        filter: Filter,
        table: Table,
    },
    /// One entry a pattern of the automaton, which runs over the path.
    Inner {
        automaton: Box<AhoCorasick>,
        entries: Box<[Entry]>,
    },
    Residue(Box<Residue>),
}

/// The beginning of a rule's condition, or a node where the top bit is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry(u32);

const NODE: u32 = 1 << 31;

/// Hash to entry, open addressing, at most half full. Eight bits of the hash are kept beside: a wrong
/// entry now and then costs a test that fails, and a right one is never missed. They lie apart, close
/// together: most look-ups find nothing, and touch nothing else.
#[derive(Debug)]
struct Table {
    /// 0 where there is nothing.
    marks: Box<[u8]>,
    entries: Box<[Entry]>,
}

/// This many rules are tested one by one rather than looked up.
const SCAN: usize = 8;
/// This many rules under one key are few enough.
const FEW: usize = 2;
/// Nodes below each other.
const DEEPEST: u32 = 12;

impl Table {
    fn new(all: &[(u64, Entry)]) -> Table {
        let size = (all.len() * 2).next_power_of_two().max(2);
        let mut marks = vec![0; size].into_boxed_slice();
        let mut entries = vec![Entry(0); size].into_boxed_slice();
        for (hash, entry) in all {
            let mut at = *hash as usize & (size - 1);
            while marks[at] != 0 {
                at = (at + 1) & (size - 1);
            }
            (marks[at], entries[at]) = (mark(*hash), *entry);
        }
        Table { marks, entries }
    }

    /// All entries that may have this hash.
    #[inline]
    fn get(&self, hash: u64) -> impl Iterator<Item = Entry> {
        let mask = self.marks.len() - 1;
        let mut at = hash as usize & mask;
        std::iter::from_fn(move || {
            loop {
                let (here, own) = (at, *self.marks.get(at)?);
                if own == 0 {
                    return None;
                }
                at = (at + 1) & mask;
                if own == mark(hash) {
                    return self.entries.get(here).copied();
                }
            }
        })
    }
}

/// Bits of a hash that do not say where it lies; not 0.
#[inline]
fn mark(hash: u64) -> u8 {
    (hash >> 56) as u8 | 1
}

impl Index {
    /// `rules` are all that can match, in their order.
    pub fn new(terms: &[Term], rules: &[u32]) -> Index {
        let anchors = |rule: u32| -> Box<[Alternatives]> {
            let terms = condition(terms, rule).iter().filter(|term| !term.negated);
            terms.filter_map(|term| alternatives(&term.test)).collect()
        };
        let choices: Map<u32, Box<[Alternatives]>> = rules.iter().map(|rule| (*rule, anchors(*rule))).collect();
        let patterns: usize = choices.values().flatten().map(Vec::len).sum();
        let mut builder =
            Builder { terms, choices, index: Index::default(), entries_left: 8 * (rules.len() + patterns) + 1024 };
        builder.node(rules, 0);
        builder.index
    }

    /// Sets `walk.best` to the first rule from `walk.from` on, before what it was, that takes `head`.
    #[inline]
    pub fn find(&self, section: &Section, head: &Head<'_>, walk: &mut Walk<'_>) {
        // The root is built last.
        if let Some(root) = self.nodes.last() {
            self.visit(root, section, head, walk);
        }
    }

    fn visit(&self, node: &Node, section: &Section, head: &Head<'_>, walk: &mut Walk<'_>) {
        for probe in &node.probes {
            if probe.first >= walk.best {
                break;
            }
            match &probe.by {
                By::Key { dimension, filter, table } => keys(*dimension, filter, head, |hash| {
                    for entry in table.get(hash) {
                        self.enter(entry, section, head, walk);
                    }
                }),
                By::Inner { automaton, entries } => {
                    // A text that comes again leads to the same rules.
                    let mut seen: SmallVec<[u32; 16]> = SmallVec::new();
                    for found in automaton.find_overlapping_iter(head.path) {
                        let pattern = found.pattern().as_u32();
                        if !seen.contains(&pattern) {
                            seen.push(pattern);
                            if let Some(entry) = entries.get(found.pattern().as_usize()) {
                                self.enter(*entry, section, head, walk);
                            }
                        }
                    }
                }
                By::Residue(residue) => residue.each(head.path, |rule| test(rule, section, head, walk)),
            }
        }
        for &rule in &node.rules {
            if rule >= walk.best {
                break;
            }
            test(rule, section, head, walk);
        }
    }

    #[inline]
    fn enter(&self, entry: Entry, section: &Section, head: &Head<'_>, walk: &mut Walk<'_>) {
        if entry.0 & NODE == 0 {
            test(entry.0, section, head, walk);
        } else if let Some(node) = self.nodes.get((entry.0 & !NODE) as usize)
            && node.first < walk.best
        {
            self.visit(node, section, head, walk);
        }
    }
}

#[inline]
fn test(rule: u32, section: &Section, head: &Head<'_>, walk: &mut Walk<'_>) {
    if rule >= walk.from
        && rule < walk.best
        && section.condition(rule).iter().all(|term| term.holds(&section.rules, head, walk))
    {
        walk.best = rule;
    }
}

/// Of one term: for each of its alternatives, the anchors to choose from.
type Alternatives = Vec<Vec<Anchor>>;

struct Builder<'r> {
    terms: &'r [Term],
    choices: Map<u32, Box<[Alternatives]>>,
    index: Index,
    /// Bounds what rules with many alternatives can multiply to.
    entries_left: usize,
}

/// How rules are told apart at one node.
struct Census {
    /// Rules of an anchor.
    counts: Map<(Dimension, u64), usize>,
    /// Anchors of a dimension that tell well. Rules are drawn to where others are, so that few
    /// dimensions are asked.
    told: Map<Dimension, usize>,
}

impl Builder<'_> {
    fn node(&mut self, rules: &[u32], depth: u32) -> Entry {
        let first = rules.iter().copied().min().unwrap_or(u32::MAX);
        let few = if depth == 0 { SCAN } else { FEW };
        let mut node = Node { first, ..Node::default() };
        if rules.len() <= few || depth == DEEPEST || self.entries_left == 0 {
            node.rules = rules.into();
        } else {
            let (groups, rest) = self.groups(rules);
            let mut probes: Vec<Probe> =
                groups.into_iter().map(|(dimension, groups)| self.probe(dimension, groups, depth)).collect();
            let (residue, rest) = Residue::split(self.terms, rest);
            probes.extend(
                residue.into_iter().map(|residue| Probe { first: residue.first(), by: By::Residue(residue.into()) }),
            );
            probes.sort_by_key(|probe| probe.first);
            node.probes = probes.into();
            node.rules = rest.into();
        }
        self.index.nodes.push(node);
        Entry((self.index.nodes.len() as u32 - 1) | NODE)
    }

    /// The rules under the anchors chosen for them, and those that cannot be told apart.
    fn groups(&self, rules: &[u32]) -> (Map<Dimension, Map<u64, Group>>, Vec<u32>) {
        let census = self.census(rules);
        let mut groups: Map<Dimension, Map<u64, Group>> = Map::default();
        let mut rest = Vec::new();
        for &rule in rules {
            match self.choices.get(&rule).and_then(|terms| census.choose(terms, rules.len())) {
                Some(anchors) => {
                    for anchor in anchors {
                        let groups = groups.entry(anchor.dimension).or_default();
                        let group = groups
                            .entry(anchor.hash)
                            .or_insert_with(|| Group { anchor: anchor.clone(), rules: Vec::new() });
                        if group.rules.last() != Some(&rule) {
                            group.rules.push(rule);
                        }
                    }
                }
                None => rest.push(rule),
            }
        }
        (groups, rest)
    }

    fn census(&self, rules: &[u32]) -> Census {
        let anchors = || rules.iter().filter_map(|rule| self.choices.get(rule)).flatten().flatten().flatten();
        let mut counts: Map<(Dimension, u64), usize> = Map::default();
        for anchor in anchors() {
            *counts.entry((anchor.dimension, anchor.hash)).or_default() += 1;
        }
        let mut told: Map<Dimension, usize> = Map::default();
        for anchor in anchors() {
            if counts.get(&(anchor.dimension, anchor.hash)).is_some_and(|count| *count <= FEW) {
                *told.entry(anchor.dimension).or_default() += 1;
            }
        }
        Census { counts, told }
    }

    fn probe(&mut self, dimension: Dimension, groups: Map<u64, Group>, depth: u32) -> Probe {
        let mut groups: Vec<Group> = groups.into_values().collect();
        groups.sort_by_key(|group| (group.rules.first().copied(), group.anchor.hash));
        self.entries_left = self.entries_left.saturating_sub(groups.iter().map(|group| group.rules.len()).sum());
        let first = groups.first().and_then(|group| group.rules.first().copied()).unwrap_or(u32::MAX);
        let mut filter = Filter::default();
        let mut entries = Vec::with_capacity(groups.len());
        for group in &groups {
            filter.add(&group.anchor);
            let entry = match *group.rules {
                [only] => Entry(only),
                _ => self.node(&group.rules, depth + 1),
            };
            entries.push((group.anchor.hash, entry));
        }
        if dimension == Dimension::Inner {
            let texts = groups.iter().map(|group| &group.anchor.text);
            if let Ok(automaton) = AhoCorasick::builder().match_kind(MatchKind::Standard).build(texts) {
                let entries = entries.into_iter().map(|(_, entry)| entry).collect();
                return Probe { first, by: By::Inner { automaton: Box::new(automaton), entries } };
            }
            // Too many for an automaton: then they are tested one by one.
            let mut rules: Vec<u32> = groups.into_iter().flat_map(|group| group.rules).collect();
            rules.sort_unstable();
            rules.dedup();
            return Probe { first, by: By::Residue(Box::new(Residue::plain(rules))) };
        }
        Probe { first, by: By::Key { dimension, filter, table: Table::new(&entries) } }
    }
}

struct Group {
    anchor: Anchor,
    rules: Vec<u32>,
}

impl Census {
    /// One anchor for each alternative of the term that tells best; `None` if none tells enough.
    fn choose<'a>(&self, terms: &'a [Alternatives], rules: usize) -> Option<Vec<&'a Anchor>> {
        let best = terms
            .iter()
            .filter_map(|alternatives| {
                let chosen: Option<Vec<_>> = alternatives
                    .iter()
                    .map(|anchors| {
                        anchors.iter().map(|anchor| (self.price(anchor), anchor)).min_by_key(|(price, _)| *price)
                    })
                    .collect();
                let chosen = chosen?;
                let worst = chosen.iter().map(|(price, _)| *price).max()?;
                Some(((worst.0, worst.1, chosen.len(), worst.2), chosen))
            })
            .min_by_key(|(price, _)| *price)?;
        let ((most, ..), chosen) = best;
        // Halving at least: so the tree ends.
        (most * 2 <= rules).then(|| chosen.into_iter().map(|(_, anchor)| anchor).collect())
    }

    /// How many rules would be tested (few are as good as one), what the look-up costs, and how few
    /// others are looked up in that way.
    fn price(&self, anchor: &Anchor) -> (usize, bool, Reverse<usize>) {
        let count = self.counts.get(&(anchor.dimension, anchor.hash)).copied().unwrap_or(usize::MAX);
        let told = self.told.get(&anchor.dimension).copied().unwrap_or(0);
        (if count <= FEW { 0 } else { count }, anchor.dimension == Dimension::Inner, Reverse(told))
    }
}
