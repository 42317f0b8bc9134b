//! The rule language: text -> `model::rule`, with every fault of every file in one run.
//!
//! Each file is cut into lines (`lexer`), and indentation says what a line is (`layout`); the words of a
//! line are read by the file named after them. A fault ends the reading of its line, and the next line is
//! read as if nothing had been. The language is in docs/rules.md.

mod action;
mod amount;
mod auth;
mod condition;
mod cursor;
mod draft;
mod expect;
mod field;
mod head;
mod key;
mod layout;
mod lexer;
mod pattern;
mod refine;
mod report;
mod scope;
#[cfg(test)]
mod tests;
mod value;

use std::collections::HashMap;
use std::sync::Arc;

pub use key::parse_key;

use crate::model::Fault;
use crate::model::rule::{HostPattern, RuleSet, Section};

/// One rule file.
pub struct Input<'a> {
    /// As the operator named it: `rules/shop.rules`.
    pub name: Arc<str>,
    pub text: &'a str,
}

/// What rules can name.
pub struct Names<'a> {
    /// In the order of `Config::pools`.
    pub pools: &'a [Arc<str>],
    pub listeners: &'a [Arc<str>],
    /// Reads the file of a list or map, by the name that the rule file gives it.
    pub read: &'a dyn Fn(&str) -> std::io::Result<String>,
    /// The same of a file of which no line may be shown.
    pub read_secret: &'a dyn Fn(&str) -> std::io::Result<String>,
}

/// Reads a set of rule files. Where an error is added to `faults`, the set is not to be used: it lacks what was wrong.
pub fn parse(files: &[Input<'_>], names: &Names<'_>, faults: &mut Vec<Fault>) -> RuleSet {
    let before = faults.len();
    let mut scope = scope::Scope::new(names, report::Report::new(faults));
    let mut set = RuleSet { files: files.iter().map(|file| file.name.clone()).collect(), ..RuleSet::default() };
    let mut texts: Vec<Vec<lexer::Line<'_>>> = Vec::with_capacity(files.len());
    for file in files {
        texts.push(lexer::lines(&file.name, file.text, &mut scope.report));
    }
    // Rules may name a list before its line, or one of another file.
    for (file, lines) in files.iter().zip(&texts) {
        layout::declarations(&file.name, lines, &mut scope);
    }
    let mut seen = layout::Seen::default();
    for (file, lines) in files.iter().zip(texts) {
        let first = set.sections.len();
        layout::Layout::new(&file.name, &mut scope, &mut set, &mut seen).read(lines);
        let alone = files.iter().filter(|other| base(&other.name) == base(&file.name)).count() == 1;
        let label = if alone { base(&file.name) } else { &file.name };
        identify(label, set.sections.get_mut(first..).unwrap_or(&mut []));
    }
    set.lists = std::mem::take(&mut scope.lists);
    set.maps = std::mem::take(&mut scope.maps);
    drop(scope);
    let order: HashMap<Arc<str>, usize> = set.files.iter().cloned().zip(0..).collect();
    let told = faults.get_mut(before..).unwrap_or(&mut []);
    let file = |fault: &Fault| order.get(&fault.place.file).copied().unwrap_or(usize::MAX);
    told.sort_by(|a, b| file(a).cmp(&file(b)).then_with(|| a.place.cmp(&b.place)));
    set
}

/// The file's name without its folders.
fn base(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

/// Gives the rules of one file their ids: `file:rule` where that is unique in the file, else `file:section/rule`.
fn identify(file: &str, sections: &mut [Section]) {
    let mut uses: HashMap<Arc<str>, usize> = HashMap::new();
    let mut labels: HashMap<String, usize> = HashMap::new();
    for section in sections.iter() {
        *labels.entry(label(section)).or_default() += 1;
        for rule in &section.rules {
            *uses.entry(rule.name.clone()).or_default() += 1;
        }
    }
    for section in sections {
        let mut label = label(section);
        // `http *` and `rtsp *` of one file.
        if labels.get(&label).is_some_and(|count| *count > 1) {
            label = format!("{}:{label}", section.kind.word());
        }
        for rule in &mut section.rules {
            rule.id = match uses.get(&rule.name) {
                Some(1) => format!("{file}:{}", rule.name).into(),
                _ => format!("{file}:{label}/{}", rule.name).into(),
            };
        }
    }
}

/// What a section is called: its first host, or its kind.
fn label(section: &Section) -> String {
    match section.hosts.first() {
        Some((HostPattern::Any, _)) => "*".to_owned(),
        Some((HostPattern::Exact(name), _)) => name.to_string(),
        Some((HostPattern::Wildcard(tail), _)) => format!("*{tail}"),
        None => section.kind.word().to_owned(),
    }
}
