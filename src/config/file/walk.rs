//! The tools of the walk: a table whose keys are asked for one by one, and values of a wanted kind.
//!
//! Every reader reports what is wrong and answers `None`; the walk goes on, so that one run finds
//! all faults. A table reports the keys that nobody asked for.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use super::super::layers::near_variable;
use super::super::node::{Entry, Node, Origin, Value};
use super::super::source::Sources;
use super::super::units::{self, Wrong};
use super::words::meant;
use crate::model::{Fault, Place};

pub struct Walk<'a> {
    sources: &'a Sources,
    file: Arc<str>,
    faults: RefCell<Vec<Fault>>,
}

/// How the table that holds all others is called.
pub const ROOT: &str = "the file";

/// A kind of value that has a unit.
struct Kind {
    name: &'static str,
    example: &'static str,
    units: &'static [&'static str],
    /// What a bare number may mean.
    guess: fn(f64) -> Option<String>,
}

const DURATION: Kind = Kind {
    name: "a duration",
    example: "10s",
    units: &units::DURATION_UNITS,
    // Thousands are milliseconds more often than seconds.
    guess: |number| match number {
        _ if number < 0.0 || !number.is_finite() => None,
        _ if number < 1000.0 => Some(format!("\"{number}s\"")),
        _ => Some(format!("\"{number}ms\" or \"{number}s\"")),
    },
};

const SIZE: Kind = Kind {
    name: "a size",
    example: "64KiB",
    units: &units::SIZE_UNITS,
    guess: |number| {
        let whole = (0.0..1e15).contains(&number) && number.fract() == 0.0;
        whole.then(|| format!("\"{}\"", units::size_text(number as u64)))
    },
};

const SHARE: Kind = Kind {
    name: "a share in percent",
    example: "20%",
    units: &["%"],
    // Up to 1, a fraction was meant.
    guess: |number| match number {
        _ if !(0.0..=100.0).contains(&number) => None,
        _ if number > 0.0 && number <= 1.0 && number.fract() != 0.0 => {
            Some(format!("\"{}%\"", (number * 1e4).round() / 1e2))
        }
        _ => Some(format!("\"{number}%\"")),
    },
};

impl<'a> Walk<'a> {
    pub fn new(sources: &'a Sources, file: Arc<str>) -> Walk<'a> {
        Walk { sources, file, faults: RefCell::new(Vec::new()) }
    }

    pub fn into_faults(self) -> Vec<Fault> {
        self.faults.into_inner()
    }

    pub fn place(&self, origin: &Origin) -> Place {
        match origin {
            Origin::File(range) => self.sources.place(&self.file, range.clone()),
            Origin::Environment(_) => Place::file("environment"),
            Origin::CommandLine(_) => Place::file("command line"),
            Origin::Default => Place::file("defaults"),
        }
    }

    /// The place of a value; of a string its contents, so that a suggestion can replace what is marked.
    pub fn value_place(&self, node: &Node) -> Place {
        if let (Value::String(text), Origin::File(range)) = (&node.value, &node.origin)
            && let Some(written) = self.sources.text(&self.file).and_then(|source| source.get(range.clone()))
            && let Some(inner) = written.get(1..written.len().saturating_sub(1))
            && inner == text
            && !inner.is_empty()
        {
            return self.sources.place(&self.file, range.start + 1..range.end - 1);
        }
        self.place(&node.origin)
    }

    /// Who said it, where that is not shown by the place.
    pub fn who(origin: &Origin) -> String {
        match origin {
            Origin::Environment(name) | Origin::CommandLine(name) => format!("{name}: "),
            Origin::File(_) | Origin::Default => String::new(),
        }
    }

    /// An error about a value.
    pub fn error(&self, code: &'static str, node: &Node, message: impl std::fmt::Display) -> Fault {
        Fault::error(code, self.value_place(node), format!("{}{message}", Self::who(&node.origin)))
    }

    pub fn warning(&self, code: &'static str, node: &Node, message: impl std::fmt::Display) -> Fault {
        Fault::warning(code, self.value_place(node), format!("{}{message}", Self::who(&node.origin)))
    }

    pub fn push(&self, fault: Fault) {
        self.faults.borrow_mut().push(fault);
    }

    /// Notes that a part is parsed but not built.
    pub fn not_built(&self, origin: &Origin, what: impl std::fmt::Display) {
        self.push(Fault::not_built(self.place(origin), what));
    }

    fn wrong_type(&self, node: &Node, name: &str, wanted: &str) -> Fault {
        self.error("R0105", node, format!("{name} is {wanted}, not {}", node.kind()))
    }

    /// A string. What came from outside the file needs no quotes, so that there `5` is one too.
    pub fn string<'n>(&self, node: &'n Node, name: &str) -> Option<&'n str> {
        match (&node.value, &node.raw) {
            (Value::String(text), _) => Some(text),
            (Value::Integer(_) | Value::Float(_) | Value::Boolean(_), Some(raw)) => Some(raw),
            _ => {
                self.push(self.wrong_type(node, name, "a string"));
                None
            }
        }
    }

    /// A string that is not empty and holds no control character.
    pub fn text<'n>(&self, node: &'n Node, name: &str) -> Option<&'n str> {
        let text = self.string(node, name)?;
        if text.is_empty() || text.chars().any(char::is_control) {
            let why = if text.is_empty() { "is empty" } else { "holds a control character" };
            self.push(self.error("R0117", node, format!("{name} {why}")));
            return None;
        }
        Some(text)
    }

    pub fn boolean(&self, node: &Node, name: &str) -> Option<bool> {
        let Value::Boolean(yes) = node.value else {
            let mut fault = self.wrong_type(node, name, "true or false");
            if let Value::String(text) = &node.value {
                match text.to_ascii_lowercase().as_str() {
                    "true" | "yes" | "on" => fault = fault.help("write true, without quotes"),
                    "false" | "no" | "off" => fault = fault.help("write false, without quotes"),
                    _ => {}
                }
            }
            self.push(fault);
            return None;
        };
        Some(yes)
    }

    /// A whole number from `least` to `most`.
    pub fn integer(&self, node: &Node, name: &str, least: u64, most: u64) -> Option<u64> {
        let Value::Integer(value) = node.value else {
            let mut fault = self.wrong_type(node, name, "a whole number");
            if let Value::String(text) = &node.value
                && text.parse::<u64>().is_ok()
            {
                fault = fault.help(format!("write {text}, without quotes"));
            }
            self.push(fault);
            return None;
        };
        let value = value.and_then(|value| u64::try_from(value).ok()).filter(|value| (least..=most).contains(value));
        if value.is_none() {
            let range = if most == u64::MAX { format!("{least} or more") } else { format!("{least} to {most}") };
            self.push(self.error("R0110", node, format!("{name} is out of range")).allowed([range]));
        }
        value
    }

    /// A number from `least` to `most`, whole or not.
    pub fn number(&self, node: &Node, name: &str, least: f64, most: f64) -> Option<f64> {
        let value = match node.value {
            Value::Float(value) => value,
            // Numbers that are exact in both are all that is in any range here.
            Value::Integer(value) => value.and_then(|value| i32::try_from(value).ok()).map_or(f64::NAN, f64::from),
            _ => {
                self.push(self.wrong_type(node, name, "a number"));
                return None;
            }
        };
        if !(least..=most).contains(&value) {
            let fault = self.error("R0110", node, format!("{name} is out of range"));
            self.push(fault.allowed([format!("{least} to {most}")]));
            return None;
        }
        Some(value)
    }

    /// One of some words.
    pub fn word(&self, node: &Node, name: &str, allowed: &[&'static str]) -> Option<&'static str> {
        let text = self.string(node, name)?;
        let found = allowed.iter().find(|word| **word == text);
        if found.is_none() {
            self.push(self.not_a_word(node, name, text, allowed));
        }
        found.copied()
    }

    pub fn not_a_word(&self, node: &Node, name: &str, text: &str, allowed: &[&'static str]) -> Fault {
        let fault = self.error("R0111", node, format!("\"{text}\" is no {name}")).allowed(allowed.iter().copied());
        match meant(text, allowed) {
            Some(near) => fault.did_you_mean(near),
            None => fault,
        }
    }

    /// A time with its unit. `Duration::ZERO` only where `zero` allows it.
    pub fn duration(&self, node: &Node, name: &str, zero: bool) -> Option<Duration> {
        let text = self.with_unit(node, name, &DURATION)?;
        match units::duration(text) {
            Ok(time) if time.is_zero() && !zero => {
                let fault = self.error("R0110", node, format!("{name} is zero: that would end it at once"));
                self.push(fault.help("for no bound, write a long time, such as \"1d\""));
                None
            }
            Ok(time) => Some(time),
            Err(wrong) => {
                self.push(self.wrong_unit("R0107", node, name, text, wrong, &units::DURATION_UNITS));
                None
            }
        }
    }

    /// A size in bytes, from `least` to `most`.
    pub fn size(&self, node: &Node, name: &str, least: u64, most: u64) -> Option<u64> {
        let text = self.with_unit(node, name, &SIZE)?;
        match units::size(text) {
            Ok(bytes) if (least..=most).contains(&bytes) => Some(bytes),
            Ok(_) => {
                let range = format!("{} to {}", units::size_text(least), units::size_text(most));
                self.push(self.error("R0110", node, format!("{name} is out of range")).allowed([range]));
                None
            }
            Err(wrong) => {
                self.push(self.wrong_unit("R0108", node, name, text, wrong, &units::SIZE_UNITS));
                None
            }
        }
    }

    /// A share in hundredths of a percent.
    pub fn percent(&self, node: &Node, name: &str) -> Option<u32> {
        let text = self.with_unit(node, name, &SHARE)?;
        match units::percent(text) {
            Ok(share) => Some(share),
            Err(wrong) => {
                self.push(self.wrong_unit("R0109", node, name, text, wrong, &["0% to 100%"]));
                None
            }
        }
    }

    /// The text of a value with a unit; a bare number is told which units there are.
    fn with_unit<'n>(&self, node: &'n Node, name: &str, kind: &Kind) -> Option<&'n str> {
        let number = match node.value {
            Value::Integer(Some(value)) => value as f64,
            Value::Float(value) => value,
            Value::String(ref text) => return Some(text),
            _ => {
                self.push(self.wrong_type(node, name, &format!("{}, such as \"{}\"", kind.name, kind.example)));
                return None;
            }
        };
        let fault = self.error("R0106", node, format!("{name} is {}: the number needs a unit", kind.name));
        let fault = fault.allowed(kind.units.iter().copied());
        self.push(match (kind.guess)(number) {
            Some(guess) => fault.help(format!("write {guess}")),
            None => fault,
        });
        None
    }

    fn wrong_unit(
        &self,
        code: &'static str,
        node: &Node,
        name: &str,
        text: &str,
        wrong: Wrong,
        units: &[&'static str],
    ) -> Fault {
        let fault =
            self.error(code, node, format!("{name} \"{text}\" is {}", wrong.why)).allowed(units.iter().copied());
        match wrong.better {
            Some(better) => fault.did_you_mean(better),
            None => fault,
        }
    }

    /// A list of values; a single value stands for a list of one.
    pub fn list<'n>(&self, node: &'n Node) -> Vec<&'n Node> {
        match &node.value {
            Value::List(items) => items.iter().collect(),
            _ => vec![node],
        }
    }

    /// A table's entries, or a fault.
    pub fn entries<'n>(&self, node: &'n Node, name: &str) -> Option<&'n [Entry]> {
        match &node.value {
            Value::Table(entries) => Some(entries),
            _ => {
                self.push(self.wrong_type(node, name, "a table"));
                None
            }
        }
    }
}

/// A table of which every key is asked for once.
pub struct Fields<'w, 'a, 'n> {
    pub walk: &'w Walk<'a>,
    /// How the table is called in faults: `[pool.web]`.
    pub title: String,
    /// The table itself, or the key that named it.
    pub origin: Origin,
    entries: &'n [Entry],
    asked: Vec<&'static str>,
    /// Keys that must be there and are not, told at the end: one of them may be misspelt.
    missing: Vec<(&'static str, Fault)>,
    /// Keys that were found out of place, and need no second word.
    told: Vec<&'static str>,
}

impl<'w, 'a, 'n> Fields<'w, 'a, 'n> {
    /// `None`, and a fault, where there is no table.
    pub fn of(walk: &'w Walk<'a>, node: &'n Node, title: impl Into<String>) -> Option<Fields<'w, 'a, 'n>> {
        let title = title.into();
        let entries = walk.entries(node, &title)?;
        Some(Fields {
            walk,
            title,
            origin: node.origin.clone(),
            entries,
            asked: Vec::new(),
            missing: Vec::new(),
            told: Vec::new(),
        })
    }

    pub fn get(&mut self, key: &'static str) -> Option<&'n Entry> {
        self.asked.push(key);
        self.entries.iter().find(|entry| entry.key == key)
    }

    /// The value of a key that must be there.
    pub fn require(&mut self, key: &'static str, help: &str) -> Option<&'n Entry> {
        let entry = self.get(key);
        if entry.is_none() {
            let who = Walk::who(&self.origin);
            let message = format!("{who}{} has no \"{key}\"", self.title);
            let mut fault = Fault::error("R0104", self.walk.place(&self.origin), message);
            if !help.is_empty() {
                fault = fault.help(help);
            }
            self.missing.push((key, fault));
        }
        entry
    }

    /// A key that belongs somewhere else.
    pub fn misplaced(&mut self, key: &'static str, why: &str) {
        if let Some(entry) = self.entries.iter().find(|entry| entry.key == key) {
            self.told.push(key);
            let who = Walk::who(&entry.key_origin);
            let message = format!("{who}\"{key}\" has no place in {}", self.title);
            self.walk.push(Fault::error("R0125", self.walk.place(&entry.key_origin), message).help(why));
        }
    }

    /// Of the keys that exclude each other, the one that is there.
    pub fn one_of(&mut self, keys: &[&'static str]) -> Option<&'n Entry> {
        let mut found: Vec<&Entry> = keys.iter().filter_map(|key| self.get(key)).collect();
        found.sort_by_key(|entry| match &entry.key_origin {
            Origin::File(range) => range.start,
            _ => usize::MAX,
        });
        let (first, rest) = found.split_first()?;
        for other in rest {
            let message = format!("\"{}\" and \"{}\" exclude each other", first.key, other.key);
            let fault = Fault::error("R0124", self.walk.place(&other.key_origin), message);
            self.walk.push(fault.also(self.walk.place(&first.key_origin), "the other one"));
        }
        Some(first)
    }

    /// Reports the keys that were not asked for, and those that are not there.
    pub fn finish(mut self) {
        for entry in self.entries {
            let key = entry.key.as_str();
            if self.asked.contains(&key) || self.told.contains(&key) {
                continue;
            }
            // A key that is there already was not meant a second time; of the tables of the file that
            // hold named ones there can be more.
            let there = |near: &str| {
                self.title != ROOT
                    && matches!(entry.key_origin, Origin::File(_))
                    && self.entries.iter().any(|other| other.key == near && other.key_origin != Origin::Default)
            };
            let near = meant(key, &self.asked).filter(|near| !there(near));
            self.missing.retain(|(missing, _)| Some(*missing) != near);
            self.unknown(entry, near);
        }
        for (_, fault) in self.missing {
            self.walk.push(fault);
        }
    }

    fn unknown(&self, entry: &Entry, near: Option<&str>) {
        let place = self.walk.place(&entry.key_origin);
        let title = &self.title;
        let (code, message) = match &entry.key_origin {
            Origin::Environment(name) => ("R0140", format!("{name}: there is no key \"{}\" in {title}", entry.key)),
            Origin::CommandLine(name) => ("R0141", format!("{name}: there is no key \"{}\" in {title}", entry.key)),
            Origin::File(_) | Origin::Default => ("R0103", format!("unknown key \"{}\" in {title}", entry.key)),
        };
        let fault = Fault::error(code, place, message).allowed(self.asked.iter().copied());
        self.walk.push(match (near, &entry.key_origin) {
            (Some(near), Origin::Environment(name)) => fault.did_you_mean(near_variable(name, &entry.key, near)),
            (Some(near), Origin::CommandLine(name)) => fault.did_you_mean(name.replacen(&entry.key, near, 1)),
            (Some(near), _) => fault.did_you_mean(near),
            (None, _) => fault,
        });
    }
}
