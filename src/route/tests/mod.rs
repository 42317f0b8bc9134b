//! Rule sets built by hand, and facts about them. `random` compares with a linear interpreter.

mod body;
mod facts;
mod random;
mod refined;

use std::net::IpAddr;
use std::sync::Arc;

use crate::model::fault::{Fault, Place};
use crate::model::rule::*;
use crate::wire::field::Field;

use super::{Body, Head, Table};

pub(super) fn place() -> Place {
    Place { file: "shop.rules".into(), line: 1, column: 1, end: 2 }
}

pub(super) fn term(test: Test) -> Term {
    Term { negated: false, test, place: place() }
}

pub(super) fn not(test: Test) -> Term {
    Term { negated: true, test, place: place() }
}

/// A pattern as it is written: `/a/**`, or `~^/a` for a regex.
pub(super) fn pattern(text: &str) -> Pattern {
    match text.strip_prefix('~') {
        Some(regex) => Pattern::Regex { text: regex.into(), place: place() },
        None => Pattern::Glob { text: text.into(), place: place() },
    }
}

/// Patterns with blanks between them.
pub(super) fn patterns(text: &str) -> Patterns {
    Patterns::AnyOf(text.split(' ').map(pattern).collect())
}

pub(super) fn path(text: &str) -> Term {
    term(Test::Path(patterns(text)))
}

pub(super) fn arcs(text: &str) -> Vec<Arc<str>> {
    text.split(' ').map(Into::into).collect()
}

pub(super) fn method(text: &str) -> Term {
    term(Test::Method(arcs(text)))
}

pub(super) fn header(name: &str, values: &str) -> Term {
    term(Test::Header { name: name.into(), check: ValueTest::Equals(arcs(values)) })
}

pub(super) fn from(nets: &str) -> Term {
    term(Test::From(Sources::Nets(nets.split(' ').map(|net| net.parse().unwrap()).collect())))
}

pub(super) fn to_pool(pool: usize) -> Action {
    Action::Use { target: Target::Pool(pool), by: None }
}

pub(super) fn rule(name: &str, condition: Vec<Term>, action: Action) -> Rule {
    let id = format!("shop.rules:{name}").into();
    Rule { name: name.into(), id, condition, action, refinements: Vec::new(), place: place() }
}

/// One `http *` section.
pub(super) fn set(rules: Vec<Rule>) -> RuleSet {
    let section = Section {
        kind: Kind::Http,
        hosts: vec![(HostPattern::Any, place())],
        paths: PathPolicy::Safe,
        rules,
        place: place(),
    };
    RuleSet { sections: vec![section], ..RuleSet::default() }
}

pub(super) fn compile(set: &RuleSet) -> (Table, Vec<Fault>) {
    let mut faults = Vec::new();
    let table = Table::compile(set, &mut faults);
    (table, faults)
}

pub(super) fn get(path: &str) -> Head<'_> {
    Head {
        method: "GET",
        host: "shop.example",
        path,
        query: "",
        fields: &[],
        source: IpAddr::from([192, 0, 2, 1]),
        listener: "main",
        sni: None,
        alpn: &[],
        certificate: None,
        no_tls: false,
        body: Body::Empty,
    }
}

pub(super) fn field<'a>(name: &'a str, value: &'a str) -> Field<'a> {
    Field { name, value: value.as_bytes() }
}

/// Name of the rule that takes a message.
pub(super) fn taker(table: &Table, head: &Head<'_>) -> Option<String> {
    let rule = table.section(Kind::Http, head.host)?.decide_with(None, head, &mut || 5_000)?;
    rule.id().split(':').nth(1).map(str::to_owned)
}
