//! How many requests a rule has under way, over all cores and reloads.
//!
//! Writers: the requests themselves, as they begin (`Crowd::enter`) and end (dropping their [`Place`]).

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::model::Config;
use crate::model::rule::Refinement;

/// The requests of one rule.
#[derive(Debug, Default)]
pub struct Crowd(AtomicU32);

/// One of them; dropping it counts it out.
#[derive(Debug)]
pub struct Place(Arc<Crowd>);

/// Those of every rule that a snapshot or a request still holds, by the rule's id. The lock is for reloads.
#[derive(Debug, Default)]
pub struct Crowds(Mutex<HashMap<Arc<str>, Weak<Crowd>>>);

impl Crowd {
    /// Counts one in; `None` where there are `most` already.
    pub fn enter(self: &Arc<Self>, most: u32) -> Option<Place> {
        let one_more = |count: u32| (count < most).then_some(count + 1);
        self.0.fetch_update(Relaxed, Relaxed, one_more).ok()?;
        Some(Place(self.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Relaxed);
    }
}

impl Crowds {
    /// By the numbers of the rules, over all rule sets: of those that limit how many there may be.
    pub fn of(&self, config: &Config) -> HashMap<usize, Arc<Crowd>> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let rules = config.rule_sets.iter().flat_map(|set| &set.sections).flat_map(|section| &section.rules);
        let mut crowds = HashMap::new();
        for (number, rule) in rules.enumerate() {
            if rule.refinements.iter().any(|refinement| matches!(refinement, Refinement::ConnectionLimit { .. })) {
                let crowd = known.get(&rule.id).and_then(Weak::upgrade).unwrap_or_default();
                known.insert(rule.id.clone(), Arc::downgrade(&crowd));
                crowds.insert(number, crowd);
            }
        }
        known.retain(|_, crowd| crowd.strong_count() > 0);
        crowds
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Place as At;
    use crate::model::rule::{Action, Kind, PathPolicy, Rule, RuleSet, Section};

    /// Rules of these names; those with a number limit their requests.
    fn config(rules: &[(&str, Option<u32>)]) -> Config {
        let place = At::file("f");
        let rule = |(id, count): &(&str, Option<u32>)| Rule {
            name: (*id).into(),
            id: (*id).into(),
            condition: Vec::new(),
            action: Action::Deny,
            refinements: count.iter().map(|count| Refinement::ConnectionLimit { count: *count }).collect(),
            place: place.clone(),
        };
        let section = Section {
            kind: Kind::Http,
            hosts: Vec::new(),
            paths: PathPolicy::Safe,
            rules: rules.iter().map(rule).collect(),
            place: place.clone(),
        };
        Config { rule_sets: vec![RuleSet { sections: vec![section], ..RuleSet::default() }], ..Config::default() }
    }

    #[test]
    fn those_under_way_are_counted_over_reloads() {
        let crowds = Crowds::default();
        let before = crowds.of(&config(&[("a", None), ("b", Some(2))]));
        assert_eq!(before.keys().collect::<Vec<_>>(), [&1]);
        let (one, two) = (before[&1].enter(2), before[&1].enter(2));
        assert!(one.is_some() && two.is_some() && before[&1].enter(2).is_none());
        let now = crowds.of(&config(&[("b", Some(2)), ("c", Some(1))]));
        drop(before);
        assert!(now[&0].enter(2).is_none() && now[&0].enter(3).is_some() && now[&1].enter(1).is_some());
        drop(one);
        assert!(now[&0].enter(2).is_some());
        // A rule that was gone for a while, and one that nobody knows any more.
        drop(now);
        assert!(crowds.of(&config(&[])).is_empty());
        let again = crowds.of(&config(&[("b", Some(1)), ("c", Some(1))]));
        assert!(again[&0].enter(1).is_none() && again[&1].enter(1).is_some());
        drop(two);
        assert!(again[&0].enter(1).is_some());
    }
}
