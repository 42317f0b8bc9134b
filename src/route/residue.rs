//! Regexes that have no literal to be found by: all of them in one automaton.

use std::cell::RefCell;

use regex_automata::PatternSet;
use regex_automata::{Input, MatchKind, meta};

use super::condition;
use super::condition::{PathPattern, Term, Test};
use super::regex::Tail;

/// Rules of which each has a path regex, all of them searched for at once.
#[derive(Debug)]
pub(super) struct Residue {
    /// In order.
    rules: Box<[u32]>,
    /// Pattern `n` is of rule `n`. None: all are tested.
    search: Option<meta::Regex>,
}

/// Fewer are tested one by one.
const FEW: usize = 16;
/// Of one automaton; more make several.
const MOST: usize = 1000;
/// Bytes of the states that one automaton keeps. With fewer it would make them again and again.
const CACHE: usize = 32 << 20;

impl Residue {
    /// Those of `rules` that one automaton can search for, and the others.
    pub fn split(terms: &[Term], rules: Vec<u32>) -> (Vec<Residue>, Vec<u32>) {
        let (with, mut without): (Vec<u32>, Vec<u32>) =
            rules.into_iter().partition(|rule| tail(terms, *rule).is_some());
        if with.len() <= FEW {
            without.extend(with);
            without.sort_unstable();
            return (Vec::new(), without);
        }
        let mut parts = Vec::new();
        for part in with.chunks(MOST) {
            let hirs: Option<Vec<_>> = part.iter().map(|rule| tail(terms, *rule)?.hir()).collect();
            let config = meta::Config::new()
                .match_kind(MatchKind::All)
                .utf8_empty(false)
                .nfa_size_limit(None)
                .hybrid_cache_capacity(CACHE)
                .onepass(false)
                .dfa(false);
            let search = hirs.and_then(|hirs| meta::Builder::new().configure(config).build_many_from_hir(&hirs).ok());
            match search {
                Some(search) => parts.push(Residue { rules: part.into(), search: Some(search) }),
                None => without.extend(part),
            }
        }
        without.sort_unstable();
        (parts, without)
    }

    /// Rules that are all tested.
    pub fn plain(rules: Vec<u32>) -> Residue {
        Residue { rules: rules.into(), search: None }
    }

    /// The first of them.
    pub fn first(&self) -> u32 {
        self.rules.first().copied().unwrap_or(u32::MAX)
    }

    /// Calls `found` with each rule whose regex is in `path`, in order.
    pub fn each(&self, path: &str, mut found: impl FnMut(u32)) {
        thread_local! {
            static MATCHED: RefCell<PatternSet> = RefCell::new(PatternSet::new(MOST));
        }
        let Some(search) = &self.search else {
            return self.rules.iter().for_each(|rule| found(*rule));
        };
        MATCHED.with_borrow_mut(|matched| {
            matched.clear();
            search.which_overlapping_matches(&Input::new(path), matched);
            for pattern in matched.iter() {
                if let Some(rule) = self.rules.get(pattern.as_usize()) {
                    found(*rule);
                }
            }
        });
    }
}

/// The path regex of a rule, if it has nothing cut off.
fn tail(terms: &[Term], rule: u32) -> Option<&Tail> {
    condition(terms, rule).iter().filter(|term| !term.negated).find_map(|term| match &term.test {
        Test::Path(PathPattern::Regex(regex)) if regex.prefix.is_empty() => Some(&*regex.tail),
        _ => None,
    })
}
