//! Why a message goes where it goes: each rule up to the one that takes it, and what kept the others
//! from it. The conditions are tested by the code that serves traffic.

use super::{Head, Rule, Section, Walk, print};

/// What one rule said.
#[derive(Debug, Clone)]
pub struct Step<'t> {
    pub rule: &'t Rule,
    pub verdict: Verdict,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It takes the message; the last step.
    Takes,
    /// The first part of its condition that does not hold, as it can be written, and what the message
    /// has there; `none` where it has nothing.
    Fails { condition: String, seen: String },
}

/// Goes through the rules in their order, up to the one that takes the message. `roll`, 0 to 9,999,
/// is what the dice of a chance show.
pub fn explain<'t>(section: &'t Section, head: &Head<'_>, roll: u32) -> Vec<Step<'t>> {
    let mut steps = Vec::new();
    for rule in &section.rules {
        let terms = section.condition(rule.first);
        let mut dice = || roll;
        let mut walk = Walk::new(0, u32::MAX, &mut dice);
        let text =
            |at: usize| rule.rest.condition.get(at).map_or_else(String::new, |term| print::term(term, &section.lists));
        let verdict = match terms.iter().position(|term| !term.holds(&section.rules, head, &mut walk)) {
            Some(at) => {
                let seen = terms.get(at).map_or_else(String::new, |term| term.test.seen(rule, head, roll));
                Verdict::Fails { condition: text(at), seen }
            }
            None => Verdict::Takes,
        };
        let done = verdict == Verdict::Takes;
        steps.push(Step { rule, verdict });
        if done {
            break;
        }
    }
    steps
}
