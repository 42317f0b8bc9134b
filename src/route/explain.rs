//! Why a message goes where it goes: each rule up to the one that takes it, and what kept the others
//! from it. The conditions are tested by the code that serves traffic.

use smallvec::SmallVec;

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
    /// It needs a part that is not built yet, and takes nothing.
    Off { condition: String },
}

/// Goes through the rules in their order, up to the one that takes the message. `roll`, 0 to 9,999,
/// is what the dice of a chance show.
pub fn explain<'t>(section: &'t Section, head: &Head<'_>, roll: u32) -> Vec<Step<'t>> {
    let mut steps = Vec::new();
    for rule in &section.rules {
        let terms = section.condition(rule.first);
        let mut dice = || roll;
        let mut walk = Walk { dice: &mut dice, rolls: SmallVec::new(), from: 0, best: u32::MAX };
        let text =
            |at: usize| rule.rest.condition.get(at).map_or_else(String::new, |term| print::term(term, &section.lists));
        let verdict = if let Some(at) = terms.iter().position(|term| term.test.is_off()) {
            Verdict::Off { condition: text(at) }
        } else {
            match terms.iter().position(|term| !term.holds(&section.rules, head, &mut walk)) {
                Some(at) => {
                    let seen = terms.get(at).map_or_else(String::new, |term| term.test.seen(rule, head, roll));
                    Verdict::Fails { condition: text(at), seen }
                }
                None => Verdict::Takes,
            }
        };
        let done = verdict == Verdict::Takes;
        steps.push(Step { rule, verdict });
        if done {
            break;
        }
    }
    steps
}
