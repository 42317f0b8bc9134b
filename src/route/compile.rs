//! From the rules as they were read to the table, and what is wrong with them.

use std::sync::Arc;

use crate::model::fault::{Fault, Place};
use crate::model::rule::{self, HostPattern, Key, Kind, PathPolicy, RuleSet, Sources, TemplatePart, ValueTest};

use super::body::{BodyTest, Part};
use super::condition::{Check, Named, PathPattern, Term, Test, TextPattern, Values};
use super::glob::Glob;
use super::hash::Map;
use super::index::Index;
use super::list::{self, Nets, Words};
use super::map::{Form, Pools};
use super::reads::Reads;
use super::refined::Refined;
use super::regex::{Pool, Regex};
use super::text::Pair;
use super::{Change, Hosts, Rest, Rule, Section, Table, path, shadow};

struct Compiler<'s> {
    set: &'s RuleSet,
    faults: &'s mut Vec<Fault>,
    regexes: Pool,
    /// By what they say.
    actions: Map<String, Arc<rule::Action>>,
    /// Lists, in each form they are used in.
    lower_words: Map<usize, Arc<Words>>,
    paths: Map<(usize, bool), Arc<Words>>,
    values: Map<usize, Arc<Values>>,
    hosts: Map<usize, Arc<list::Hosts>>,
    nets: Map<usize, Arc<Nets>>,
    maps: Map<(usize, Form), Arc<Pools>>,
}

pub(super) fn table(set: &RuleSet, faults: &mut Vec<Fault>) -> Table {
    let names: Arc<[Arc<str>]> = set.lists.iter().map(|list| list.name.clone()).collect();
    let mut compiler = Compiler {
        set,
        faults,
        regexes: Pool::default(),
        actions: Map::default(),
        lower_words: Map::default(),
        paths: Map::default(),
        values: Map::default(),
        hosts: Map::default(),
        nets: Map::default(),
        maps: Map::default(),
    };
    let mut hosts: [Hosts; 3] = Default::default();
    let mut sections = Vec::with_capacity(set.sections.len());
    let mut number = 0;
    for (position, section) in set.sections.iter().enumerate() {
        let own = &mut hosts[section.kind as usize];
        match section.kind {
            Kind::Tcp => own.add(&HostPattern::Any, position),
            Kind::Http | Kind::Rtsp => section.hosts.iter().for_each(|(host, _)| own.add(host, position)),
        }
        let compiled = compiler.section(section, number, names.clone());
        number += compiled.rules.len() as u32;
        shadow::find(&compiled, compiler.faults);
        sections.push(compiled);
    }
    let has_auth = |rule: &Rule| rule.refined().is_some_and(|refined| refined.auth.is_some());
    let has_auth = sections.iter().flat_map(|section| &section.rules).any(has_auth);
    Table { sections: sections.into(), hosts, tails: compiler.regexes.finish(), has_auth, reads: Reads::of(set) }
}

impl Compiler<'_> {
    fn section(&mut self, section: &rule::Section, first: u32, lists: Arc<[Arc<str>]>) -> Section {
        let mut rules = Vec::with_capacity(section.rules.len());
        let mut terms = Vec::with_capacity(section.rules.len());
        for rule in &section.rules {
            let position = rules.len() as u32;
            rules.push(self.rule(rule, first + position, position, section.paths, &mut terms));
        }
        let all: Vec<u32> = rules.iter().map(|rule| rule.first).collect();
        let index = Index::new(&terms, &all);
        Section { policy: section.paths, rules: rules.into(), terms: terms.into(), index, lists }
    }

    /// Adds the rule's condition to `terms`.
    fn rule(
        &mut self,
        rule: &rule::Rule,
        number: u32,
        position: u32,
        policy: PathPolicy,
        terms: &mut Vec<Term>,
    ) -> Rule {
        let first = terms.len() as u32;
        let mut more = rule.condition.len().saturating_sub(1) as u32;
        // Bodies last: whether one is worth reading is known when all else holds.
        let mut condition = rule.condition.clone();
        condition.sort_by_key(|term| matches!(term.test, rule::Test::Body { .. }));
        for term in &condition {
            terms.push(Term { test: self.test(&term.test, policy), negated: term.negated, more, rule: position });
            more = more.saturating_sub(1);
        }
        if rule.condition.is_empty() {
            terms.push(Term { test: Test::Any, negated: false, more, rule: position });
        }
        let patterns = capturing(&terms[first as usize..]);
        if uses_groups(rule) {
            for pattern in &patterns {
                if let PathPattern::Regex(regex) = pattern {
                    self.regexes.needs_groups(&regex.tail);
                }
            }
        }
        let changes = rule.refinements.iter().filter_map(|refinement| match refinement {
            rule::Refinement::SetHeader { name, value } => {
                Some(Change::Set { name: name.clone(), value: value.clone() })
            }
            rule::Refinement::RemoveHeader { name } => Some(Change::Remove { name: name.clone() }),
            _ => None,
        });
        let action = self.actions.entry(format!("{:?}", rule.action)).or_insert_with(|| Arc::new(rule.action.clone()));
        let action = action.clone();
        let rest = Rest {
            id: rule.id.clone(),
            name: rule.name.clone(),
            place: rule.place.clone(),
            changes: changes.collect(),
            condition,
            patterns,
            map: self.map(&rule.action, policy),
            refined: Refined::new(rule, policy),
        };
        Rule { number, first, action, rest: Box::new(rest) }
    }

    fn test(&mut self, test: &rule::Test, policy: PathPolicy) -> Test {
        match test {
            rule::Test::NoTls => Test::NoTls,
            rule::Test::Path(rule::Patterns::AnyOf(patterns)) => {
                let mut all: Vec<PathPattern> =
                    patterns.iter().filter_map(|pattern| self.path_pattern(pattern, policy)).collect();
                match all.pop() {
                    Some(only) if all.is_empty() => Test::Path(only),
                    last => Test::PathAny(all.into_iter().chain(last).collect()),
                }
            }
            rule::Test::Path(rule::Patterns::InList(list)) => {
                let (set, as_is) = (self.set, policy == PathPolicy::AsIs);
                let words = self.paths.entry((*list, as_is)).or_insert_with(|| {
                    Arc::new(Words::new(entries(set, *list).map(|entry| path::literal(entry, policy))))
                });
                Test::PathIn(words.clone())
            }
            rule::Test::Host(rule::Patterns::AnyOf(patterns)) => Test::Host(self.text_patterns(patterns)),
            rule::Test::Host(rule::Patterns::InList(list)) => Test::HostIn(self.host_list(*list)),
            rule::Test::Sni(rule::Patterns::AnyOf(patterns)) => Test::Sni(self.text_patterns(patterns)),
            rule::Test::Sni(rule::Patterns::InList(list)) => Test::SniIn(self.host_list(*list)),
            rule::Test::ContentType(rule::Patterns::AnyOf(patterns)) => Test::ContentType(self.text_patterns(patterns)),
            rule::Test::ContentType(rule::Patterns::InList(list)) => {
                let set = self.set;
                let words = self
                    .lower_words
                    .entry(*list)
                    .or_insert_with(|| Arc::new(Words::new(entries(set, *list).map(str::to_ascii_lowercase))));
                Test::ContentTypeIn(words.clone())
            }
            rule::Test::Header { name, check } => self.named(name, check, Test::HeaderIs, Test::Header),
            rule::Test::Cookie { name, check } => self.named(name, check, Test::CookieIs, Test::Cookie),
            rule::Test::Query { name, check } => self.named(name, check, Test::QueryIs, Test::Query),
            rule::Test::Method(words) => Test::Method(plain(words)),
            rule::Test::Alpn(words) => Test::Alpn(plain(words)),
            rule::Test::Listener(words) => Test::Listener(plain(words)),
            rule::Test::From(Sources::Nets(nets)) => Test::From(Arc::new(Nets::new(nets.iter().copied()))),
            rule::Test::From(Sources::InList(list)) => Test::From(self.net_list(*list)),
            rule::Test::Chance { share, of } => Test::Chance { share: *share, of: of.clone().map(Box::new) },
            rule::Test::ClientCertificate(None) => Test::Certificate(None),
            rule::Test::ClientCertificate(Some(rule::CertificateTest { field, check })) => {
                match self.check(&lower_hex(*field, check)) {
                    Some(check) => Test::Certificate(Some(Box::new((*field, check)))),
                    None => Test::Never,
                }
            }
            rule::Test::Body { part, check } => match self.check(check) {
                Some(check) => Test::Body(Box::new(BodyTest { part: body_part(part), check })),
                None => Test::Never,
            },
        }
    }

    fn path_pattern(&mut self, pattern: &rule::Pattern, policy: PathPolicy) -> Option<PathPattern> {
        match pattern {
            rule::Pattern::Glob { text, .. } => Some(PathPattern::Glob(Glob::new(text, policy))),
            rule::Pattern::Regex { text, place } => {
                let regex = self.regex(text, place)?;
                // `^/a$` is the path /a.
                match std::str::from_utf8(&regex.prefix) {
                    Ok(prefix) if regex.tail.is_end() => Some(PathPattern::Glob(Glob::Exact(prefix.into()))),
                    _ => Some(PathPattern::Regex(regex)),
                }
            }
        }
    }

    fn text_patterns(&mut self, patterns: &[rule::Pattern]) -> Box<[TextPattern]> {
        let compiled = patterns.iter().filter_map(|pattern| match pattern {
            rule::Pattern::Glob { text, .. } => Some(TextPattern::new(text)),
            rule::Pattern::Regex { text, place } => self.regex(text, place).map(TextPattern::Regex),
        });
        compiled.collect()
    }

    fn named(&mut self, name: &str, check: &ValueTest, is: fn(Pair) -> Test, other: fn(Box<Named>) -> Test) -> Test {
        if let ValueTest::Equals(values) = check
            && let [value] = &**values
            && !value.contains(',')
            && let Some(pair) = Pair::new(name, value.as_bytes())
        {
            return is(pair);
        }
        match self.check(check) {
            Some(check) => other(Box::new(Named { name: name.into(), check })),
            None => Test::Never,
        }
    }

    /// `None` where a fault was added.
    fn check(&mut self, check: &ValueTest) -> Option<Check> {
        Some(match check {
            ValueTest::Present => Check::Present,
            ValueTest::Equals(values) => Check::Equals(Values::new(values.iter().map(|value| &**value))),
            ValueTest::Differs(values) => Check::Differs(Values::new(values.iter().map(|value| &**value))),
            ValueTest::InList(list) => {
                let set = self.set;
                let make = || Arc::new(Values::new(entries(set, *list)));
                Check::In(self.values.entry(*list).or_insert_with(make).clone())
            }
            ValueTest::Regex { text, place } => Check::Regex(self.regex(text, place)?),
        })
    }

    /// `None` where a fault was added.
    fn regex(&mut self, text: &str, place: &Place) -> Option<Regex> {
        match self.regexes.read(text) {
            Ok(regex) => Some(regex),
            Err(message) => {
                self.faults.push(Fault::error("R0302", place.clone(), message));
                None
            }
        }
    }

    fn map(&mut self, action: &rule::Action, policy: PathPolicy) -> Option<Arc<Pools>> {
        let rule::Action::Use { target: rule::Target::Map { map, key, .. }, .. } = action else { return None };
        let (form, own) = (Form::of(key, policy), self.set.maps.get(*map)?);
        Some(self.maps.entry((*map, form)).or_insert_with(|| Arc::new(Pools::new(own, form))).clone())
    }

    fn host_list(&mut self, list: usize) -> Arc<list::Hosts> {
        let set = self.set;
        self.hosts.entry(list).or_insert_with(|| Arc::new(list::Hosts::new(entries(set, list)))).clone()
    }

    fn net_list(&mut self, list: usize) -> Arc<Nets> {
        if let Some(nets) = self.nets.get(&list) {
            return nets.clone();
        }
        let mut nets = Vec::new();
        for entry in entries(self.set, list) {
            match list::net(entry) {
                Some(net) => nets.push(net),
                None => {
                    let own = &self.set.lists[list];
                    let message = format!("\"{entry}\" in {} is no address and no network", own.file);
                    let fault = Fault::error("R0303", own.place.clone(), message);
                    self.faults.push(fault.help("write one network a line, such as 10.0.0.0/8 or 2001:db8::/32"));
                }
            }
        }
        let nets = Arc::new(Nets::new(nets));
        self.nets.insert(list, nets.clone());
        nets
    }
}

fn entries(set: &RuleSet, list: usize) -> impl Iterator<Item = &str> + Clone {
    set.lists.get(list).into_iter().flat_map(|list| &list.entries).map(|entry| &**entry)
}

/// Fingerprints are compared as lower-case hex, however `openssl` wrote them.
fn lower_hex(field: rule::CertificateField, check: &ValueTest) -> ValueTest {
    let lower = |values: &[Arc<str>]| {
        values.iter().map(|value| value.replace(':', "").to_ascii_lowercase().into()).collect::<Vec<_>>()
    };
    match (field, check) {
        (rule::CertificateField::Fingerprint, ValueTest::Equals(values)) => ValueTest::Equals(lower(values)),
        (rule::CertificateField::Fingerprint, ValueTest::Differs(values)) => ValueTest::Differs(lower(values)),
        _ => check.clone(),
    }
}

fn plain(words: &[Arc<str>]) -> Words {
    Words::new(words.iter().map(|word| word.as_bytes()))
}

/// The path patterns of a condition that captures and groups can come from.
fn capturing(terms: &[Term]) -> Box<[PathPattern]> {
    let patterns = terms.iter().filter(|term| !term.negated).flat_map(|term| match &term.test {
        Test::Path(pattern) => std::slice::from_ref(pattern),
        Test::PathAny(patterns) => patterns,
        _ => &[],
    });
    let can = |pattern: &&PathPattern| match pattern {
        PathPattern::Glob(glob) => glob.captures(),
        PathPattern::Regex(_) => true,
    };
    patterns.filter(can).cloned().collect()
}

/// Whether the action or the refinements of a rule use `$1` and the like.
fn uses_groups(rule: &rule::Rule) -> bool {
    let template = |template: &rule::Template| template.parts.iter().any(|part| matches!(part, TemplatePart::Group(_)));
    let by_action = match &rule.action {
        rule::Action::Use { target: rule::Target::Map { key: Key::Group(_), .. }, .. } => true,
        rule::Action::Use { by, .. } => matches!(by, Some(Key::Group(_))),
        rule::Action::Redirect { to, .. } => template(to),
        rule::Action::Answer { .. } | rule::Action::Deny | rule::Action::Drop => false,
    };
    let by_refinement = |refinement: &rule::Refinement| match refinement {
        rule::Refinement::SetHeader { value, .. } | rule::Refinement::Rewrite(value) => template(value),
        rule::Refinement::RateLimit { key, .. } => matches!(key, Key::Group(_)),
        _ => false,
    };
    by_action || rule.refinements.iter().any(by_refinement)
}

fn body_part(part: &rule::BodyPart) -> Part {
    match part {
        rule::BodyPart::Text => Part::Text,
        rule::BodyPart::Form(name) => Part::Form(name.as_bytes().into()),
        rule::BodyPart::Json(pointer) => Part::Json((**pointer).into()),
    }
}
