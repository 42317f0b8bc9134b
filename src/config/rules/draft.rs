//! A rule while its lines are being read, and the checks that need the whole of it.

use std::sync::Arc;

use super::pattern::Captured;
use super::scope::Scope;
use crate::config::closest::closest;
use crate::model::rule::{Action, Kind, Refinement, Term};
use crate::model::{Fault, Place};

/// Captures used by the keys and templates of one rule; more is no rule that a person wrote.
pub(super) const USES: usize = 256;

/// A place in a key or template that takes what a path pattern captured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Hole {
    Name(Arc<str>),
    Group(u8),
}

impl Hole {
    fn filled_by(&self, captured: &Captured) -> bool {
        match self {
            Hole::Name(name) => captured.names.iter().any(|known| **known == **name),
            Hole::Group(number) => captured.groups >= usize::from(*number),
        }
    }
}

impl std::fmt::Display for Hole {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Hole::Name(name) => write!(f, "{{{name}}}"),
            Hole::Group(number) => write!(f, "${number}"),
        }
    }
}

pub(super) struct Draft {
    pub kind: Kind,
    pub name: Arc<str>,
    pub place: Place,
    pub terms: Vec<Term>,
    /// Whether a condition was read; `any` leaves no term.
    pub conditioned: bool,
    /// Whether `any` was the last test: `|` cannot go on with it.
    pub after_any: bool,
    pub action: Option<(Action, Place)>,
    pub refinements: Vec<(Refinement, Place)>,
    /// What each pattern of each path term captures: term number, pattern as written, captures.
    pub captured: Vec<(usize, String, Captured)>,
    pub uses: Vec<(Hole, Place)>,
    /// A fault was told that makes the rule unusable; what follows from it is not told again.
    pub failed: bool,
    /// A word of a line without action that was probably meant to be one.
    pub near_action: Option<(&'static str, Place)>,
}

impl Draft {
    pub fn new(kind: Kind, name: Arc<str>, place: Place) -> Draft {
        Draft {
            kind,
            name,
            place,
            terms: Vec::new(),
            conditioned: false,
            after_any: false,
            action: None,
            refinements: Vec::new(),
            captured: Vec::new(),
            uses: Vec::new(),
            failed: false,
            near_action: None,
        }
    }

    /// Tells what is wrong with the rule as a whole. False: it is not to be used.
    pub fn check(&mut self, scope: &mut Scope<'_, '_>) -> bool {
        if self.failed {
            return false;
        }
        if self.action.is_none() {
            scope.tell(self.no_action());
            return false;
        }
        if self.uses.len() > USES {
            let message = format!("rule `{}` uses captures more than {USES} times", self.name);
            scope.tell(Fault::error("R0243", self.place.clone(), message).help("make several rules of it"));
            return false;
        }
        self.holes(scope);
        !self.failed
    }

    fn no_action(&self) -> Fault {
        let message = format!("rule `{}` says when, but not what to do", self.name);
        match &self.near_action {
            Some((action, place)) => Fault::error("R0224", place.clone(), message).did_you_mean(*action),
            None => Fault::error("R0224", self.place.clone(), message)
                .allowed(super::action::ACTIONS)
                .help("end the condition with an action, such as `use POOL`"),
        }
    }

    /// Whether some path pattern captures that name.
    pub fn captures(&self, name: &str) -> bool {
        self.captured.iter().any(|(.., captured)| captured.names.iter().any(|known| known == name))
    }

    /// Every hole must be filled by a path pattern of this rule, whichever of its patterns matched.
    fn holes(&mut self, scope: &mut Scope<'_, '_>) {
        for (hole, place) in &self.uses {
            let mut terms = self.captured.chunk_by(|a, b| a.0 == b.0);
            if terms.any(|patterns| patterns.iter().all(|(.., c)| hole.filled_by(c))) {
                continue;
            }
            if self.captured.iter().any(|(.., c)| hole.filled_by(c))
                && let Some((_, lacking, _)) = self.captured.iter().find(|(.., c)| !hole.filled_by(c))
            {
                let message = format!("{hole} is empty where `{lacking}` matches, which does not capture it");
                scope.tell(Fault::warning("R0244", place.clone(), message).help("make two rules of it"));
                continue;
            }
            scope.tell(self.unfilled(hole, place));
            self.failed = true;
        }
    }

    fn unfilled(&self, hole: &Hole, place: &Place) -> Fault {
        let names: Vec<&str> = self.captured.iter().flat_map(|(.., c)| &c.names).map(String::as_str).collect();
        let groups = self.captured.iter().map(|(.., c)| c.groups).max().unwrap_or(0).min(9);
        let mut there: Vec<String> = names.iter().map(|name| format!("{{{name}}}")).collect();
        there.extend((1..=groups).map(|number| format!("${number}")));
        there.dedup();
        there.truncate(super::scope::LISTED);
        let message = match hole {
            Hole::Name(name) => format!("no path of rule `{}` captures {{{name}}}", self.name),
            Hole::Group(number) => format!("no path of rule `{}` is a regex with a group {number}", self.name),
        };
        let fault = Fault::error("R0243", place.clone(), message).allowed(there);
        match hole {
            Hole::Name(name) => match closest(name, names.iter().copied()) {
                Some(near) => fault.did_you_mean(format!("{{{near}}}")),
                None => fault.help(format!("capture it with a segment of the path: path /.../{{{name}}}/**")),
            },
            Hole::Group(_) if !names.is_empty() => fault.help("what a glob captures is named in braces"),
            Hole::Group(_) => fault.help("groups are the (...) of a path regex, counted from 1"),
        }
    }
}
