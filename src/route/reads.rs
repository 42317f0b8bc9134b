//! Which values of messages a table's rules read, beyond those that every line of the access log has: what the log keeps for
//! `reeve replay`, and what replay cannot tell where it was not kept.

use std::sync::Arc;

use crate::model::rule::{Action, Key, Patterns, RuleSet, Target, Test, ValueTest};

use super::{Head, Rule, Section, Table, Walk};

/// Names of fields, and of cookies, that are kept for one table. Beyond, lines would grow without bound.
const NAMES: usize = 64;

/// What conditions and maps of a table read.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Reads {
    /// Fields, by their names in lower case.
    pub headers: Vec<Read>,
    pub cookies: Vec<Read>,
    pub alpn: bool,
    pub certificate: bool,
}

/// Something that is read by its name.
#[derive(Debug, PartialEq, Eq)]
pub struct Read {
    pub name: Arc<str>,
    /// What stands before its values in the log: `"header:x-beta":[`. Nothing in a name has to be escaped (RFC 9110 §5.1,
    /// RFC 6265 §4.1.1).
    pub label: Box<str>,
}

impl Read {
    pub fn header(name: Arc<str>) -> Read {
        Read { label: format!("\"header:{name}\":[").into(), name }
    }

    pub fn cookie(name: Arc<str>) -> Read {
        Read { label: format!("\"cookie:{name}\":[").into(), name }
    }
}

/// A value that a rule reads and that is not in every line of the log.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Need {
    /// In lower case.
    Header(Arc<str>),
    /// Whether it is there, and whether it is some value.
    Cookie(Arc<str>),
    /// Its text, of which the log has a hash.
    CookieText(Arc<str>),
    Alpn,
    Certificate,
    Body,
    /// What the dice showed is not kept.
    Dice,
}

impl std::fmt::Display for Need {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Need::Header(name) => write!(f, "header {name}"),
            Need::Cookie(name) => write!(f, "cookie {name}"),
            Need::CookieText(name) => write!(f, "the text of cookie {name}, of which the log has a hash"),
            Need::Alpn => f.write_str("alpn"),
            Need::Certificate => f.write_str("client-cert"),
            Need::Body => f.write_str("the body"),
            Need::Dice => f.write_str("the dice"),
        }
    }
}

impl Reads {
    /// `None`: nothing.
    pub(super) fn of(set: &RuleSet) -> Option<Box<Reads>> {
        let mut reads = Reads::default();
        for rule in set.sections.iter().flat_map(|section| &section.rules) {
            let by_condition = rule.condition.iter().filter_map(|term| need(&term.test));
            for need in by_condition.chain(needed_by(&rule.action)) {
                reads.add(need);
            }
        }
        (reads != Reads::default()).then(|| reads.into())
    }

    fn add(&mut self, need: Need) {
        let put = |reads: &mut Vec<Read>, read: Read| {
            if reads.len() < NAMES && !reads.contains(&read) {
                reads.push(read);
            }
        };
        match need {
            Need::Header(name) => put(&mut self.headers, Read::header(name)),
            Need::Cookie(name) | Need::CookieText(name) => put(&mut self.cookies, Read::cookie(name)),
            Need::Alpn => self.alpn = true,
            Need::Certificate => self.certificate = true,
            Need::Body | Need::Dice => {}
        }
    }
}

/// What a test reads that a line of the log may lack.
fn need(test: &Test) -> Option<Need> {
    match test {
        Test::Header { name, .. } => Some(Need::Header(name.to_ascii_lowercase().into())),
        Test::ContentType(Patterns::AnyOf(_) | Patterns::InList(_)) => Some(Need::Header("content-type".into())),
        Test::Cookie { name, check: ValueTest::Regex { .. } } => Some(Need::CookieText(name.clone())),
        Test::Cookie { name, .. } => Some(Need::Cookie(name.clone())),
        Test::Alpn(_) => Some(Need::Alpn),
        Test::ClientCertificate(_) => Some(Need::Certificate),
        Test::Body { .. } => Some(Need::Body),
        Test::Chance { of: None, .. } => Some(Need::Dice),
        Test::Chance { of: Some(key), .. } => match key {
            Key::Header(name) => Some(Need::Header(name.to_ascii_lowercase().into())),
            Key::Cookie(name) => Some(Need::CookieText(name.clone())),
            _ => None,
        },
        Test::NoTls | Test::Path(_) | Test::Host(_) | Test::Sni(_) | Test::Query { .. } | Test::Method(_) => None,
        Test::Listener(_) | Test::From(_) => None,
    }
}

fn needed_by(action: &Action) -> Option<Need> {
    match action {
        Action::Use { target: Target::Map { key: Key::Header(name), .. }, .. } => {
            Some(Need::Header(name.to_ascii_lowercase().into()))
        }
        Action::Use { target: Target::Map { key: Key::Cookie(name), .. }, .. } => Some(Need::Cookie(name.clone())),
        _ => None,
    }
}

/// What became of a message of which not everything is known.
#[derive(Debug)]
pub enum Decided<'t> {
    /// Whatever the rest is, this rule takes it; `None`: no rule does.
    For(Option<&'t Rule>),
    /// It depends on this rule, which reads this.
    Depends(&'t Rule, Need),
}

/// The rules of a table that read what may not be known.
#[derive(Debug)]
pub struct Doubts<'t> {
    sections: Vec<(&'t Section, Vec<Doubtful<'t>>)>,
}

#[derive(Debug)]
struct Doubtful<'t> {
    rule: &'t Rule,
    /// By the part of its condition.
    needs: Vec<(usize, Need)>,
}

impl<'t> Doubts<'t> {
    pub fn of(table: &'t Table) -> Doubts<'t> {
        let of_rule = |rule: &'t Rule| {
            let needs = rule.rest.condition.iter().enumerate();
            let needs: Vec<(usize, Need)> = needs.filter_map(|(at, term)| Some((at, need(&term.test)?))).collect();
            (!needs.is_empty()).then_some(Doubtful { rule, needs })
        };
        let of_section = |section: &'t Section| (section, section.rules.iter().filter_map(of_rule).collect());
        Doubts { sections: table.sections.iter().map(of_section).collect() }
    }

    /// The first rule that takes a message, of which `unknown` says what is not known; `head` may have anything there.
    pub fn decide(&self, section: &'t Section, head: &Head<'_>, unknown: &mut dyn FnMut(&Need) -> bool) -> Decided<'t> {
        let doubts = self.sections.iter().find(|(own, _)| std::ptr::eq(*own, section));
        let doubts = doubts.map(|(_, doubts)| doubts.as_slice()).unwrap_or_default();
        let first = doubts.iter().find_map(|doubtful| Some((doubtful.rule, doubtful.depends(section, head, unknown)?)));
        let found = section.decide_with(None, head, &mut || 0);
        match first {
            Some((rule, need)) if found.is_none_or(|found| found.number >= rule.number) => Decided::Depends(rule, need),
            _ => Decided::For(found),
        }
    }
}

impl Doubtful<'_> {
    /// What the rule depends on: some part of it is not known, and none of the others keeps it from matching.
    fn depends(&self, section: &Section, head: &Head<'_>, unknown: &mut dyn FnMut(&Need) -> bool) -> Option<Need> {
        let terms = section.condition(self.rule.first);
        if terms.iter().any(|term| matches!(term.test, super::condition::Test::Never)) {
            return None;
        }
        let missing: Vec<&(usize, Need)> = self.needs.iter().filter(|(_, need)| unknown(need)).collect();
        let (_, need) = missing.first()?;
        let mut dice = || 0;
        let mut walk = Walk::new(0, u32::MAX, &mut dice);
        let known = |at: usize| missing.iter().all(|(missing, _)| *missing != at);
        let holds =
            terms.iter().enumerate().all(|(at, term)| !known(at) || term.holds(&section.rules, head, &mut walk));
        holds.then(|| need.clone())
    }
}

/// The texts that rules compare a cookie with, and keys of maps that are asked for one: of a cookie that is only known by its
/// hash, it is one of these or another.
pub fn cookie_texts(set: &RuleSet) -> Vec<&str> {
    let mut texts: Vec<&str> = Vec::new();
    let listed = |list: &usize| set.lists.get(*list).map(|list| list.entries.as_slice()).unwrap_or_default();
    for rule in set.sections.iter().flat_map(|section| &section.rules) {
        for term in &rule.condition {
            if let Test::Cookie { check, .. } = &term.test {
                match check {
                    ValueTest::Equals(values) | ValueTest::Differs(values) => {
                        texts.extend(values.iter().map(|value| &**value));
                    }
                    ValueTest::InList(list) => texts.extend(listed(list).iter().map(|entry| &**entry)),
                    ValueTest::Present | ValueTest::Regex { .. } => {}
                }
            }
        }
        if let Action::Use { target: Target::Map { map, key: Key::Cookie(_), .. }, .. } = &rule.action {
            let keys = set.maps.get(*map).into_iter().flat_map(|map| &map.entries);
            texts.extend(keys.map(|(key, _)| &**key));
        }
    }
    texts
}
