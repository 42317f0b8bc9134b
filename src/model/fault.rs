//! Where something was written, and what is wrong with it.
//!
//! Faults are collected, never thrown: one run reports all of them. `config::fault` prints them.

use std::sync::Arc;

/// A span of one line of a text the operator wrote.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// The file as it was named on the command line or found from there; `environment` or
    /// `command line` for values that came from those.
    pub file: Arc<str>,
    /// Line, from 1. 0 when the whole file is meant (it cannot be read, say).
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// Column just behind the last character meant.
    pub end: u32,
}

impl Place {
    /// A place that stands for a file as a whole.
    pub fn file(name: impl Into<Arc<str>>) -> Place {
        Place { file: name.into(), line: 0, column: 0, end: 0 }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Severity {
    /// The texts cannot be used.
    Error,
    /// They can, but probably do not say what was meant.
    Warning,
    /// Something to know: a part that parses but is not built yet.
    Note,
}

/// One thing to tell the operator about a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub severity: Severity,
    /// Stable over releases: `R0123`.
    pub code: &'static str,
    pub place: Place,
    /// One sentence, lower case, without a full stop.
    pub message: String,
    /// The values that would have been accepted, where they can be listed.
    pub allowed: Vec<String>,
    /// What was probably meant: printed as `did you mean "..."?` when it is one of the words that
    /// could stand there, else as `help: ...`.
    pub suggestion: Option<Suggestion>,
    /// Other places that belong to it ("first declared here").
    pub also: Vec<(Place, String)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Suggestion {
    /// Replace the marked text by this.
    DidYouMean(String),
    /// A sentence that says what to do.
    Help(String),
}

impl Fault {
    pub fn error(code: &'static str, place: Place, message: impl Into<String>) -> Fault {
        Fault::new(Severity::Error, code, place, message)
    }

    pub fn warning(code: &'static str, place: Place, message: impl Into<String>) -> Fault {
        Fault::new(Severity::Warning, code, place, message)
    }

    /// Nothing is wrong, but it should be known.
    pub fn note(code: &'static str, place: Place, message: impl Into<String>) -> Fault {
        Fault::new(Severity::Note, code, place, message)
    }

    /// A part that parses and is checked but is not built yet.
    pub fn not_built(place: Place, what: impl std::fmt::Display) -> Fault {
        Fault::new(Severity::Note, "R0001", place, format!("not built yet: {what}"))
    }

    fn new(severity: Severity, code: &'static str, place: Place, message: impl Into<String>) -> Fault {
        Fault {
            severity,
            code,
            place,
            message: message.into(),
            allowed: Vec::new(),
            suggestion: None,
            also: Vec::new(),
        }
    }

    pub fn allowed<S: Into<String>>(mut self, values: impl IntoIterator<Item = S>) -> Fault {
        self.allowed = values.into_iter().map(Into::into).collect();
        self
    }

    pub fn did_you_mean(mut self, text: impl Into<String>) -> Fault {
        self.suggestion = Some(Suggestion::DidYouMean(text.into()));
        self
    }

    pub fn help(mut self, text: impl Into<String>) -> Fault {
        self.suggestion = Some(Suggestion::Help(text.into()));
        self
    }

    pub fn also(mut self, place: Place, text: impl Into<String>) -> Fault {
        self.also.push((place, text.into()));
        self
    }
}
