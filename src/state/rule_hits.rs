//! How often each rule took a request.
//!
//! Counting is an addition at the rule's number in the current table. When a reload brings another
//! table, the counts move over by the rules' names; those of rules that are gone are dropped, so that
//! reloads do not make the counters grow.

use std::collections::HashMap;
use std::sync::Arc;

use crate::model::Config;

/// The names of the rules of one table, in the order of their numbers.
pub type RuleNames = Arc<[Arc<str>]>;

/// The rules of a configuration in the order of its texts, and the number of the first rule of each
/// rule set. To be made once for a snapshot: workers that share it add up faster.
pub fn rule_names(config: &Config) -> (RuleNames, Vec<usize>) {
    let mut names = Vec::new();
    let mut first = Vec::with_capacity(config.rule_sets.len());
    for set in &config.rule_sets {
        first.push(names.len());
        names.extend(set.sections.iter().flat_map(|section| &section.rules).map(|rule| Arc::clone(&rule.id)));
    }
    (names.into(), first)
}

/// Where the rules of one table are in the next one: found once for a reload, so that each worker only has
/// to move numbers.
#[derive(Debug, Default)]
pub struct RuleMoves {
    before: RuleNames,
    /// By number before.
    to: Vec<Option<u32>>,
}

impl RuleMoves {
    pub fn new(before: &RuleNames, now: &RuleNames) -> RuleMoves {
        let mut places: HashMap<&str, u32> = HashMap::with_capacity(now.len());
        for (name, number) in now.iter().zip(0..) {
            // The first rule of a name takes all that was counted for it.
            places.entry(name).or_insert(number);
        }
        let to = before.iter().map(|name| places.get(&**name).copied()).collect();
        RuleMoves { before: before.clone(), to }
    }
}

#[derive(Debug, Clone, Default)]
pub struct RuleHits {
    /// Names by number. Two rules may have one name, when two rule sets share a file.
    names: RuleNames,
    /// Hits by number; as long as `names`.
    hits: Vec<u64>,
}

impl RuleHits {
    /// The numbers mean the rules of this table from now on. Does nothing when it is the table in use;
    /// `moves` saves the search for names where it leads from the table in use to this one.
    pub fn table(&mut self, names: RuleNames, moves: &RuleMoves) {
        if Arc::ptr_eq(&self.names, &names) {
            return;
        }
        let found;
        let moves = if Arc::ptr_eq(&self.names, &moves.before) {
            moves
        } else {
            found = RuleMoves::new(&self.names, &names);
            &found
        };
        let mut hits = vec![0; names.len()];
        for (count, to) in self.hits.iter().zip(&moves.to) {
            if let Some(sum) = to.and_then(|to| hits.get_mut(to as usize)) {
                *sum += count;
            }
        }
        (self.names, self.hits) = (names, hits);
    }

    /// Counts the rule of that number in a table with these names. A number that is not in the table counts
    /// nowhere.
    #[inline]
    pub fn hit(&mut self, names: &RuleNames, rule: usize) {
        let rule = if Arc::ptr_eq(&self.names, names) { rule } else { self.moved(names, rule) };
        if let Some(hits) = self.hits.get_mut(rule) {
            *hits += 1;
        }
    }

    /// Where a rule of another table is in this one: for requests that a reload has overtaken.
    #[cold]
    fn moved(&self, names: &RuleNames, rule: usize) -> usize {
        names.get(rule).and_then(|name| self.names.iter().position(|own| own == name)).unwrap_or(usize::MAX)
    }

    /// Adds what another worker has counted. For a moment in a reload the two have different tables:
    /// then the names decide, and none is lost.
    pub fn merge(&mut self, other: &RuleHits) {
        if Arc::ptr_eq(&self.names, &other.names) {
            for (mine, theirs) in self.hits.iter_mut().zip(&other.hits) {
                *mine += theirs;
            }
            return;
        }
        if self.is_empty() {
            self.clone_from(other);
            return;
        }
        let mut theirs = other.by_name();
        let mut names = self.names.to_vec();
        for (name, mine) in self.names.iter().zip(&mut self.hits) {
            *mine += theirs.remove(&**name).unwrap_or(0);
        }
        for name in other.names.iter() {
            if let Some(hits) = theirs.remove(&**name) {
                names.push(Arc::clone(name));
                self.hits.push(hits);
            }
        }
        self.names = names.into();
    }

    /// Hits that were counted elsewhere, by the rules' names.
    pub(super) fn of(counted: impl Iterator<Item = (Arc<str>, u64)>) -> RuleHits {
        let (names, hits): (Vec<_>, _) = counted.unzip();
        RuleHits { names: names.into(), hits }
    }

    /// How many rules the table has.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Names with their hits, each once, in the order of the table.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        let mut sums = self.by_name();
        self.names.iter().filter_map(move |name| sums.remove(&**name).map(|hits| (&**name, hits)))
    }

    fn by_name(&self) -> HashMap<&str, u64> {
        let mut sums = HashMap::with_capacity(self.names.len());
        for (name, hits) in self.names.iter().zip(&self.hits) {
            *sums.entry(&**name).or_insert(0) += hits;
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Place;
    use crate::model::rule::{Action, Kind, PathPolicy, Rule, RuleSet, Section};

    fn names(words: &str) -> RuleNames {
        words.split(' ').map(Arc::from).collect()
    }

    fn hit(hits: &mut RuleHits, rule: usize) {
        let names = hits.names.clone();
        hits.hit(&names, rule);
    }

    fn seen(hits: &RuleHits) -> Vec<(&str, u64)> {
        hits.iter().collect()
    }

    #[test]
    fn rules_are_numbered_in_the_order_of_the_texts() {
        let place = Place::file("f");
        let rule = |id: &str| Rule {
            name: id.into(),
            id: id.into(),
            condition: Vec::new(),
            action: Action::Deny,
            refinements: Vec::new(),
            place: place.clone(),
        };
        let section = |rules| Section {
            kind: Kind::Http,
            hosts: Vec::new(),
            paths: PathPolicy::Safe,
            rules,
            place: place.clone(),
        };
        let set = |sections| RuleSet { sections, ..RuleSet::default() };
        let config = Config {
            rule_sets: vec![
                set(vec![section(vec![rule("a"), rule("b")]), section(vec![rule("c")])]),
                set(Vec::new()),
                set(vec![section(vec![rule("d")])]),
            ],
            ..Config::default()
        };
        let (names, first) = rule_names(&config);
        assert_eq!(names.iter().map(|name| &**name).collect::<Vec<_>>(), ["a", "b", "c", "d"]);
        assert_eq!(first, [0, 3, 3]);
    }

    #[test]
    fn hits_follow_their_names_over_a_reload() {
        let mut hits = RuleHits::default();
        hit(&mut hits, 0);
        hits.table(names("a b c"), &RuleMoves::default());
        hit(&mut hits, 0);
        hit(&mut hits, 2);
        hit(&mut hits, 2);
        hit(&mut hits, 3);
        assert_eq!(seen(&hits), [("a", 1), ("b", 0), ("c", 2)]);
        hits.table(names("c d a"), &RuleMoves::default());
        hit(&mut hits, 1);
        assert_eq!(seen(&hits), [("c", 2), ("d", 1), ("a", 1)]);
        let (before, now) = (hits.names.clone(), names("d"));
        hits.table(now.clone(), &RuleMoves::new(&before, &now));
        hits.table(names("c d"), &RuleMoves::default());
        assert_eq!(seen(&hits), [("c", 0), ("d", 1)]);
        // A request that was chosen for by a table before.
        hits.hit(&before, 0);
        hits.hit(&before, 2);
        assert_eq!(seen(&hits), [("c", 1), ("d", 1)]);
    }

    #[test]
    fn a_name_in_two_rule_sets_is_one_line() {
        let mut hits = RuleHits::default();
        hits.table(names("a b a"), &RuleMoves::default());
        hit(&mut hits, 0);
        hit(&mut hits, 2);
        assert_eq!(seen(&hits), [("a", 2), ("b", 0)]);
        hits.table(names("b a a"), &RuleMoves::default());
        assert_eq!(seen(&hits), [("b", 0), ("a", 2)]);
    }

    #[test]
    fn workers_with_and_without_the_same_table_add_up() {
        let table = names("a b");
        let mut one = RuleHits::default();
        one.table(Arc::clone(&table), &RuleMoves::default());
        hit(&mut one, 1);
        let mut two = one.clone();
        hit(&mut two, 0);
        one.merge(&two);
        assert_eq!(seen(&one), [("a", 1), ("b", 2)]);
        let mut late = RuleHits::default();
        late.table(names("c b"), &RuleMoves::default());
        hit(&mut late, 0);
        hit(&mut late, 1);
        one.merge(&late);
        assert_eq!(seen(&one), [("a", 1), ("b", 3), ("c", 1)]);

        // The usual start: what is merged into has no table yet.
        let mut sum = RuleHits::default();
        sum.merge(&two);
        assert_eq!(seen(&sum), [("a", 1), ("b", 1)]);
    }
}
