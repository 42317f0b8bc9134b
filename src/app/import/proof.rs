//! Asks the loader what it thinks of an import, and takes out what it refuses, with a note.
//!
//! A regex with a look-ahead, a rule that an earlier one always forestalls, a value out of its range: readers need
//! not know the loader's every rule, and what is printed is known to load.

use std::collections::HashSet;

use crate::config::rules::{Input, Names};
use crate::config::{self};
use crate::model::{Fault, Severity};
use crate::route::Table;

use super::site::Site;
use super::write::{self, Of, Text};

/// Times that the loader is asked: what goes with a part that was taken out shows in the next round.
const ROUNDS: usize = 6;

/// Leaves nothing in `site` that the loader refuses.
pub fn settle(site: &mut Site, file: &str) {
    for _ in 0..ROUNDS {
        let texts = write::texts(site, file);
        let faults = faults(&texts);
        if faults.is_empty() || !take_out(site, &texts, &faults) {
            return;
        }
    }
}

/// The errors of all texts; those of the rules only where the configuration has none.
pub fn faults(texts: &[Text]) -> Vec<(usize, Fault)> {
    let Some((first, rules)) = texts.split_first() else { return Vec::new() };
    let load = config::load_text(&first.name, &first.join());
    let errors = |of: usize, faults: Vec<Fault>| {
        faults.into_iter().filter(|fault| fault.severity == Severity::Error).map(move |fault| (of, fault))
    };
    let mut found: Vec<(usize, Fault)> = errors(0, load.faults).collect();
    let Some(config) = load.config else { return found };
    let pools: Vec<_> = config.pools.iter().map(|pool| pool.name.clone()).collect();
    let listeners: Vec<_> = config.listeners.iter().map(|listener| listener.name.clone()).collect();
    let names = Names {
        pools: &pools,
        listeners: &listeners,
        read: &|_| Ok(String::new()),
        read_secret: &|_| Ok(String::new()),
    };
    for (at, text) in rules.iter().enumerate() {
        let mut faults = Vec::new();
        let joined = text.join();
        let set =
            config::rules::parse(&[Input { name: text.name.as_str().into(), text: &joined }], &names, &mut faults);
        if !config::fault::any_error(&faults) {
            Table::compile(&set, &mut faults);
        }
        found.extend(errors(at + 1, faults));
    }
    found
}

/// Whether anything was taken out.
fn take_out(site: &mut Site, texts: &[Text], faults: &[(usize, Fault)]) -> bool {
    let mut gone: Vec<Of> = Vec::new();
    for (text, fault) in faults {
        let line = (fault.place.line as usize).checked_sub(1).and_then(|at| texts.get(*text)?.lines.get(at));
        let Some(of) = line.map(|line| line.of).filter(|of| *of != Of::Nothing) else { continue };
        let source = match of {
            Of::Table(t) | Of::Key(t, _) | Of::Item(t, ..) => site.tables.get(t).map(|table| table.line),
            Of::Rule(f, s, r) | Of::More(f, s, r, _) => Some(site.files[f].sections[s].rules[r].line),
            Of::Nothing | Of::List(..) => None,
        };
        // A rule that is never reached changes nothing, where its statement made another one.
        if fault.code == "R0301"
            && let Of::Rule(f, s, r) = of
        {
            let rules = &site.files[f].sections[s].rules;
            let others = rules.iter().enumerate().filter(|(at, rule)| *at != r && rule.line == rules[r].line);
            if others.count() > 0 {
                gone.push(of);
                continue;
            }
        }
        let what = line.map_or("", |line| line.text.trim());
        let why = format!("`{}` was left out: {}", super::site::plain(what, 80), fault.message);
        site.account.refused(source.unwrap_or(0), &why);
        gone.push(of);
    }
    let gone: HashSet<Of> = gone.into_iter().collect();
    for (t, table) in site.tables.iter_mut().enumerate() {
        for (k, key) in table.keys.iter_mut().enumerate() {
            keep(&mut key.items, |i| !gone.contains(&Of::Item(t, k, i)));
        }
        keep(&mut table.keys, |k| !gone.contains(&Of::Key(t, k)));
    }
    keep(&mut site.tables, |t| !gone.contains(&Of::Table(t)));
    for (f, file) in site.files.iter_mut().enumerate() {
        for (s, section) in file.sections.iter_mut().enumerate() {
            for (r, rule) in section.rules.iter_mut().enumerate() {
                keep(&mut rule.more, |m| !gone.contains(&Of::More(f, s, r, m)));
            }
            keep(&mut section.rules, |r| !gone.contains(&Of::Rule(f, s, r)));
        }
        keep(&mut file.lists, |l| !gone.contains(&Of::List(f, l)));
    }
    !gone.is_empty()
}

/// Keeps those whose position is good.
fn keep<T>(all: &mut Vec<T>, good: impl Fn(usize) -> bool) {
    let mut position = 0;
    all.retain(|_| {
        position += 1;
        good(position - 1)
    });
}
