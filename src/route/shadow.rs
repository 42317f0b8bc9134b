//! Finds rules that can never match, because an earlier one takes every message they would.
//!
//! Only what is proved is reported. For each rule a message is made up that it would take; the index
//! finds earlier rules that take it, and for the first few of them every part of their condition is
//! proved from the later rule's: globs, literals, networks and words, and parts that are written
//! alike. So the cost is a look-up and a few proofs a rule, however many there are.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use crate::model::fault::Fault;
use crate::model::rule::{self, Patterns, Sources, ValueTest};
use crate::wire::field::Field;

use super::body::Body;
use super::condition::{Check, Named, PathPattern, Term, Test, TextPattern};
use super::glob::{Glob, wild};
use super::hash::Map;
use super::list::Words;
use super::{Head, Rule, Section, print};

/// Earlier rules tried for one rule.
const CANDIDATES: usize = 8;
/// Pairs of patterns compared for one part of a condition.
const PAIRS: usize = 4096;
/// What no rule asks for: made-up messages have it where the rule says nothing.
const UNLIKELY: &str = "~0";

pub(super) fn find(section: &Section, faults: &mut Vec<Fault>) {
    let texts: Vec<Vec<String>> = section.rules.iter().map(|rule| texts(rule, &section.lists)).collect();
    // The first rule of each condition that is written alike.
    let mut written: Map<String, usize> = Map::default();
    for (at, later) in section.rules.iter().enumerate() {
        let terms = section.condition(later.first);
        if terms.iter().any(|term| matches!(term.test, Test::Never)) {
            continue;
        }
        let later = Side { rule: later, terms, texts: &texts[at] };
        let proved = |earlier: &usize| {
            let rule = &section.rules[*earlier];
            covers(&Side { rule, terms: section.condition(rule.first), texts: &texts[*earlier] }, &later)
        };
        let mut sorted = texts[at].clone();
        sorted.sort_unstable();
        let alike = *written.entry(sorted.join("\n")).or_insert(at);
        let taker = candidates(section, &later).into_iter().chain((alike < at).then_some(alike)).find(proved);
        if let Some(taker) = taker {
            let taker = &section.rules[taker];
            let (own, other) = (&later.rule.rest.name, &taker.rest.name);
            let message = format!("rule \"{own}\" can never match: \"{other}\" takes every such request first");
            let fault = Fault::error("R0301", later.rule.place().clone(), message);
            let help = format!("move \"{own}\" above \"{other}\", or remove it");
            faults.push(fault.help(help).also(taker.place().clone(), format!("\"{other}\" is here")));
        }
    }
}

/// One of the two rules of a proof.
pub(super) struct Side<'s> {
    pub rule: &'s Rule,
    pub terms: &'s [Term],
    /// The parts of its condition as they can be written.
    pub texts: &'s [String],
}

pub(super) fn texts(rule: &Rule, lists: &[Arc<str>]) -> Vec<String> {
    rule.rest.condition.iter().map(|term| print::term(term, lists)).collect()
}

/// Positions of earlier rules that take a message made up for this one.
fn candidates(section: &Section, later: &Side<'_>) -> Vec<usize> {
    let example = Example::of(later.terms);
    let fields: Vec<Field<'_>> =
        example.fields.iter().map(|(name, value)| Field { name, value: value.as_bytes() }).collect();
    let head = Head {
        method: &example.method,
        host: &example.host,
        path: &example.path,
        query: &example.query,
        fields: &fields,
        source: example.source,
        listener: &example.listener,
        sni: Some(&example.sni),
        alpn: &[example.alpn.as_bytes()],
        certificate: None,
        no_tls: example.no_tls,
        body: Body::Empty,
    };
    let mut found = Vec::new();
    let mut from = 0;
    while found.len() < CANDIDATES {
        let Some(rule) = section.between(from, later.rule.first, &head, &mut || 0) else { break };
        found.extend(section.terms.get(rule.first as usize).map(|term| term.rule as usize));
        from = rule.first + 1;
    }
    found
}

/// A message that a rule takes, but for its regexes and what it negates.
struct Example {
    method: String,
    host: String,
    path: String,
    query: String,
    fields: Vec<(String, String)>,
    source: IpAddr,
    listener: String,
    sni: String,
    alpn: String,
    no_tls: bool,
}

impl Example {
    fn of(terms: &[Term]) -> Example {
        let unlikely = || UNLIKELY.to_owned();
        let mut example = Example {
            method: unlikely(),
            host: unlikely(),
            path: format!("/{UNLIKELY}"),
            query: String::new(),
            fields: Vec::new(),
            source: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            listener: unlikely(),
            sni: unlikely(),
            alpn: unlikely(),
            no_tls: false,
        };
        for term in terms.iter().filter(|term| !term.negated) {
            example.add(&term.test);
        }
        example
    }

    fn add(&mut self, test: &Test) {
        let set = |own: &mut String, value: Option<String>| {
            if let Some(value) = value {
                *own = value;
            }
        };
        match test {
            Test::Path(pattern) => set(&mut self.path, path(pattern)),
            Test::PathAny(patterns) => set(&mut self.path, patterns.first().and_then(path)),
            Test::Host(patterns) => set(&mut self.host, patterns.first().and_then(text)),
            Test::Sni(patterns) => set(&mut self.sni, patterns.first().and_then(text)),
            Test::ContentType(patterns) => {
                if let Some(kind) = patterns.first().and_then(text) {
                    self.fields.push(("content-type".to_owned(), kind));
                }
            }
            Test::Header(_) | Test::HeaderIs(_) => {
                self.fields.extend(test.named().map(|named| (named.name.to_string(), value(&named))));
            }
            Test::Cookie(_) | Test::CookieIs(_) => {
                let pair = test.named().map(|named| format!("{}={}", named.name, value(&named)));
                self.fields.extend(pair.map(|pair| ("cookie".to_owned(), pair)));
            }
            Test::Query(_) | Test::QueryIs(_) => {
                let Some(named) = test.named() else { return };
                if !self.query.is_empty() {
                    self.query.push('&');
                }
                for byte in named.name.bytes() {
                    self.query.push_str(&format!("%{byte:02X}"));
                }
                self.query.push('=');
                for byte in value(&named).bytes() {
                    self.query.push_str(&format!("%{byte:02X}"));
                }
            }
            Test::Method(words) => set(&mut self.method, word(words)),
            Test::Alpn(words) => set(&mut self.alpn, word(words)),
            Test::Listener(words) => set(&mut self.listener, word(words)),
            Test::From(nets) => self.source = nets.first().unwrap_or(self.source),
            Test::NoTls => self.no_tls = true,
            Test::PathIn(_) | Test::HostIn(_) | Test::SniIn(_) | Test::ContentTypeIn(_) => {}
            Test::Any | Test::Certificate(_) | Test::Body(_) | Test::Chance { .. } | Test::Never => {}
        }
    }
}

fn path(pattern: &PathPattern) -> Option<String> {
    match pattern {
        PathPattern::Glob(glob) => Some(glob.example()),
        PathPattern::Regex(regex) => {
            let prefix = String::from_utf8_lossy(&regex.prefix);
            prefix.starts_with('/').then(|| format!("{prefix}{UNLIKELY}"))
        }
    }
}

fn text(pattern: &TextPattern) -> Option<String> {
    match pattern {
        TextPattern::Exact(text) => Some(text.to_string()),
        TextPattern::Wild(text) => Some(text.replace('*', UNLIKELY)),
        TextPattern::Regex(_) => None,
    }
}

fn word(words: &Words) -> Option<String> {
    words.iter().next().map(|word| String::from_utf8_lossy(word).into_owned())
}

fn value(named: &Named) -> String {
    let own = match &named.check {
        Check::Equals(values) => word(&values.words),
        Check::In(values) => word(&values.words),
        Check::Present | Check::Differs(_) | Check::Regex(_) => None,
    };
    own.unwrap_or_else(|| UNLIKELY.to_owned())
}

/// Whether each part of the earlier rule's condition follows from some part of the later one's.
pub(super) fn covers(earlier: &Side<'_>, later: &Side<'_>) -> bool {
    earlier.texts.iter().enumerate().all(|(wide, text)| {
        if matches!(earlier.terms.get(wide).map(|term| &term.test), Some(Test::Chance { .. } | Test::Never)) {
            return false;
        }
        later.texts.contains(text)
            || earlier.provable(wide).is_some_and(|wide| {
                (0..later.texts.len()).filter_map(|at| later.provable(at)).any(|narrow| implies(narrow, wide))
            })
    })
}

impl Side<'_> {
    /// A part of a condition that proofs may look into: not negated, no list (lists change by themselves).
    pub fn provable(&self, at: usize) -> Option<&Test> {
        let Term { negated, test, .. } = self.terms.get(at)?;
        // What `any` is compiled to was not written.
        if at >= self.rule.rest.condition.len() || self.by_list(at) || *negated { None } else { Some(test) }
    }

    /// Whether a part of the condition asks a list.
    pub fn by_list(&self, at: usize) -> bool {
        match self.rule.rest.condition.get(at).map(|term| &term.test) {
            Some(rule::Test::Path(of) | rule::Test::Host(of) | rule::Test::Sni(of) | rule::Test::ContentType(of)) => {
                matches!(of, Patterns::InList(_))
            }
            Some(
                rule::Test::Header { check, .. } | rule::Test::Cookie { check, .. } | rule::Test::Query { check, .. },
            ) => matches!(check, ValueTest::InList(_)),
            Some(rule::Test::From(sources)) => matches!(sources, Sources::InList(_)),
            _ => false,
        }
    }
}

/// Whether `wide` holds wherever `narrow` does.
pub(super) fn implies(narrow: &Test, wide: &Test) -> bool {
    match (narrow, wide) {
        (Test::Path(_) | Test::PathAny(_), Test::Path(_) | Test::PathAny(_)) => {
            every(paths(narrow), paths(wide), path_covers)
        }
        (Test::Host(narrow), Test::Host(wide)) => every(narrow, wide, text_covers),
        (Test::Sni(narrow), Test::Sni(wide)) => every(narrow, wide, text_covers),
        (Test::ContentType(narrow), Test::ContentType(wide)) => every(narrow, wide, text_covers),
        (Test::Header(_) | Test::HeaderIs(_), Test::Header(_) | Test::HeaderIs(_)) => {
            named_implies(narrow, wide, str::eq_ignore_ascii_case)
        }
        (Test::Cookie(_) | Test::CookieIs(_), Test::Cookie(_) | Test::CookieIs(_))
        | (Test::Query(_) | Test::QueryIs(_), Test::Query(_) | Test::QueryIs(_)) => {
            named_implies(narrow, wide, |narrow, wide| narrow == wide)
        }
        (Test::Method(narrow), Test::Method(wide)) => subset(narrow, wide),
        (Test::Alpn(narrow), Test::Alpn(wide)) => subset(narrow, wide),
        (Test::Listener(narrow), Test::Listener(wide)) => subset(narrow, wide),
        (Test::From(narrow), Test::From(wide)) => wide.covers(narrow),
        _ => false,
    }
}

fn named_implies(narrow: &Test, wide: &Test, same: impl Fn(&str, &str) -> bool) -> bool {
    let (Some(narrow), Some(wide)) = (narrow.named(), wide.named()) else { return false };
    same(&narrow.name, &wide.name) && check_implies(&narrow.check, &wide.check)
}

fn every<T>(narrow: &[T], wide: &[T], covers: impl Fn(&T, &T) -> bool) -> bool {
    narrow.len() * wide.len() <= PAIRS && narrow.iter().all(|narrow| wide.iter().any(|wide| covers(wide, narrow)))
}

pub(super) fn paths(test: &Test) -> &[PathPattern] {
    match test {
        Test::Path(only) => std::slice::from_ref(only),
        Test::PathAny(all) => all,
        _ => &[],
    }
}

fn path_covers(wide: &PathPattern, narrow: &PathPattern) -> bool {
    match (wide, narrow) {
        (PathPattern::Glob(wide), PathPattern::Glob(narrow)) => wide.covers(narrow),
        // What begins with `/api/v` is under /api.
        (PathPattern::Glob(Glob::Under(base)), PathPattern::Regex(narrow)) => {
            narrow.prefix.strip_prefix(&**base).is_some_and(|rest| rest.first() == Some(&b'/'))
        }
        _ => false,
    }
}

fn text_covers(wide: &TextPattern, narrow: &TextPattern) -> bool {
    match (wide, narrow) {
        (TextPattern::Exact(wide), TextPattern::Exact(narrow)) => wide == narrow,
        (TextPattern::Wild(wide), TextPattern::Exact(narrow) | TextPattern::Wild(narrow)) => {
            wild(wide.as_bytes(), narrow.as_bytes())
        }
        _ => false,
    }
}

fn check_implies(narrow: &Check, wide: &Check) -> bool {
    match (narrow, wide) {
        (Check::Differs(_), _) => false,
        (_, Check::Present) => true,
        (Check::Equals(narrow), Check::Equals(wide)) => subset(&narrow.words, &wide.words),
        _ => false,
    }
}

fn subset(narrow: &Words, wide: &Words) -> bool {
    narrow.iter().all(|word| wide.contains(word))
}
