//! Pairs of rules whose order matters: some request is taken by both, and they do different things with it.
//!
//! What is told apart for sure is not listed: two parts of the conditions that exclude each other prove it. For the
//! others a request is made up that both take, dimension by dimension, and each rule's own condition is asked whether it does.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use crate::model::rule::{HostPattern, Kind, RuleSet};
use crate::wire::field::Field;

use super::body::Body;
use super::condition::{Check, Named, Term, Test, TextPattern};
use super::list::{Nets, Words};
use super::meet::{self, Meet, Shape};
use super::shadow::{self, Side};
use super::{Head, Rule, Section, Table, Walk};

/// Pairs compared in one table: all of 1,400 rules of one section.
const PAIRS: usize = 1_000_000;
/// Requests made up for one table.
const WITNESSES: usize = 20_000;
/// Values tried for one part of a request.
const VALUES: usize = 64;
/// What no rule asks for.
const UNLIKELY: &str = "~0";

/// What was found in a table.
#[derive(Debug, Default)]
pub struct Overlaps<'t> {
    /// In the order of the rules.
    pub pairs: Vec<Pair<'t>>,
    /// Pairs beyond those that were asked for.
    pub more: usize,
    /// Pairs whose later rule is the general case of the earlier one, as `any` is of all: turned round, they are a fault.
    pub general: usize,
    /// Pairs that only a request meets which has a field, a cookie or a parameter twice.
    pub repeated: usize,
    /// Pairs that were not compared, as there are too many.
    pub left: usize,
}

/// Two rules of one section; the first one is before the second.
#[derive(Debug)]
pub struct Pair<'t> {
    /// Position of the section in the rule set.
    pub section: usize,
    pub first: &'t Rule,
    pub second: &'t Rule,
    /// A request that both take; `None`: none was found, and no proof that there is none.
    pub witness: Option<Witness>,
}

/// A request.
#[derive(Debug, Clone, PartialEq)]
pub struct Witness {
    pub method: String,
    pub host: String,
    pub path: String,
    pub query: String,
    pub fields: Vec<(String, String)>,
    /// `None`: any address will do.
    pub source: Option<IpAddr>,
    /// `None`: any.
    pub listener: Option<String>,
    pub sni: Option<String>,
    pub alpn: Vec<String>,
    pub no_tls: bool,
}

/// What two rules of a section are to each other.
#[derive(Debug, PartialEq)]
pub(crate) enum Relation {
    /// No request is taken by both.
    Apart,
    /// Both do the same.
    Alike,
    /// The second takes all that the first does.
    General,
    /// A field, cookie or parameter would have to come twice.
    Repeated,
    Meets(Box<Witness>),
    Unknown,
}

/// Compares the rules of each section; `most` pairs are kept. `listeners` are the names that requests can come by.
pub fn find<'t>(table: &'t Table, set: &RuleSet, listeners: &[Arc<str>], most: usize) -> Overlaps<'t> {
    let mut found = Overlaps::default();
    let (mut pairs, mut witnesses) = (PAIRS, WITNESSES);
    for (position, section) in table.sections.iter().enumerate() {
        let judge = Judge::new(table, set, listeners, position);
        for second in 0..section.rules.len() {
            for first in 0..second {
                if pairs == 0 {
                    found.left += 1;
                    continue;
                }
                pairs -= 1;
                let witness = match judge.relation(first, second, &mut witnesses) {
                    Relation::Apart | Relation::Alike => continue,
                    Relation::General => {
                        found.general += 1;
                        continue;
                    }
                    Relation::Repeated => {
                        found.repeated += 1;
                        continue;
                    }
                    Relation::Meets(witness) => Some(*witness),
                    Relation::Unknown => None,
                };
                if found.pairs.len() == most {
                    found.more += 1;
                    continue;
                }
                let (first, second) = (&section.rules[first], &section.rules[second]);
                found.pairs.push(Pair { section: position, first, second, witness });
            }
        }
    }
    // A request that shows it says more than none.
    found.pairs.sort_by_key(|pair| (pair.witness.is_none(), pair.first.number, pair.second.number));
    found
}

/// One section, and what its rules are taken apart to.
pub(crate) struct Judge<'t, 'l> {
    table: &'t Table,
    section: &'t Section,
    kind: Kind,
    /// Hosts of the section.
    hosts: Vec<String>,
    listeners: &'l [Arc<str>],
    texts: Vec<Vec<String>>,
    /// Of each rule, of each positive part about the path: its patterns.
    paths: Vec<Vec<Vec<Shape<'t>>>>,
    /// What each rule does, in words that are the same for rules that do the same; `None`: nothing else does the same.
    does: Vec<Option<String>>,
    /// Whose own parts exclude each other: they take nothing.
    impossible: Vec<bool>,
}

impl<'t, 'l> Judge<'t, 'l> {
    pub(crate) fn new(table: &'t Table, set: &RuleSet, listeners: &'l [Arc<str>], position: usize) -> Judge<'t, 'l> {
        let section = &table.sections[position];
        let written = set.sections.get(position);
        let hosts =
            written.map(|section| section.hosts.as_slice()).unwrap_or_default().iter().map(|(host, _)| match host {
                HostPattern::Exact(name) => name.to_string(),
                HostPattern::Wildcard(end) => format!("www{end}"),
                HostPattern::Any => "any.example".to_owned(),
            });
        let paths = |rule: &Rule| {
            let terms = section.condition(rule.first).iter().filter(|term| !term.negated);
            let all = terms.map(|term| shadow::paths(&term.test)).filter(|patterns| !patterns.is_empty());
            all.map(|patterns| patterns.iter().map(Shape::new).collect()).collect()
        };
        let mut judge = Judge {
            table,
            section,
            kind: written.map_or(Kind::Http, |section| section.kind),
            hosts: hosts.collect(),
            listeners,
            texts: section.rules.iter().map(|rule| shadow::texts(rule, &section.lists)).collect(),
            paths: section.rules.iter().map(paths).collect(),
            does: section.rules.iter().map(does).collect(),
            impossible: Vec::new(),
        };
        judge.impossible = (0..section.rules.len()).map(|at| judge.exclude(at, at).is_none()).collect();
        judge
    }

    fn side(&self, at: usize) -> Side<'_> {
        let rule = &self.section.rules[at];
        Side { rule, terms: self.section.condition(rule.first), texts: &self.texts[at] }
    }

    /// `first` is before `second`. At most `witnesses` requests are made up.
    pub(crate) fn relation(&self, first: usize, second: usize, witnesses: &mut usize) -> Relation {
        let (a, b) = (self.side(first), self.side(second));
        // What has a fault takes nothing.
        if a.terms.iter().chain(b.terms).any(|term| matches!(term.test, Test::Never)) {
            return Relation::Apart;
        }
        if self.does[first].is_some() && self.does[first] == self.does[second] {
            return Relation::Alike;
        }
        if self.impossible[first] || self.impossible[second] {
            return Relation::Apart;
        }
        let Some(meets) = self.exclude(first, second) else { return Relation::Apart };
        if shadow::covers(&b, &a) {
            return Relation::General;
        }
        if *witnesses == 0 {
            return Relation::Unknown;
        }
        *witnesses -= 1;
        self.witness(&a, &b, meets)
    }

    /// Paths that both may take; `None`: some part of one excludes some part of the other.
    fn exclude(&self, first: usize, second: usize) -> Option<Vec<String>> {
        let meets = self.path_meets(first, second)?;
        let (a, b) = (self.side(first), self.side(second));
        let apart = a.terms.iter().any(|a| b.terms.iter().any(|b| self.apart(a, b)));
        (!apart && !nets_apart(&a, &b) && !denies(&a, &b) && !denies(&b, &a)).then_some(meets)
    }

    /// Paths that some pattern of each part takes; `None`: no path is taken by all parts.
    fn path_meets(&self, first: usize, second: usize) -> Option<Vec<String>> {
        let (own, other) = (&self.paths[first], &self.paths[second]);
        let mut meets = Vec::new();
        for own in own {
            for other in other {
                let mut apart = true;
                for (own, other) in own.iter().flat_map(|own| other.iter().map(move |other| (own, other))) {
                    match own.meet(other) {
                        Meet::Apart => continue,
                        Meet::At(path) => meets.push(path),
                        Meet::Unknown => {}
                    }
                    apart = false;
                    if meets.len() > VALUES {
                        break;
                    }
                }
                if apart {
                    return None;
                }
            }
        }
        let examples = || own.iter().chain(other).flatten().flat_map(Shape::examples);
        meets.extend(examples().take(VALUES));
        Some(meets)
    }

    /// Whether two parts exclude each other. Lists prove nothing: they change by themselves.
    fn apart(&self, a: &Term, b: &Term) -> bool {
        if a.negated || b.negated {
            return false;
        }
        match (&a.test, &b.test) {
            (Test::Host(a), Test::Host(b))
            | (Test::Sni(a), Test::Sni(b))
            | (Test::ContentType(a), Test::ContentType(b)) => texts_apart(a, b),
            (Test::Method(a), Test::Method(b)) | (Test::Listener(a), Test::Listener(b)) => words_apart(a, b),
            // Of a sealed connection it is all that the client offers.
            (Test::Alpn(a), Test::Alpn(b)) => self.kind != Kind::Tcp && words_apart(a, b),
            (Test::NoTls, Test::Sni(_) | Test::SniIn(_) | Test::Alpn(_))
            | (Test::Sni(_) | Test::SniIn(_) | Test::Alpn(_), Test::NoTls) => true,
            _ => false,
        }
    }

    /// A request that both take.
    fn witness(&self, a: &Side<'_>, b: &Side<'_>, paths: Vec<String>) -> Relation {
        let terms: Vec<&Term> = a.terms.iter().chain(b.terms).collect();
        let mut witness = Witness::plain(self.kind, self.hosts.first().map_or("", |host| host));
        let mut repeated = false;
        let mut done: Vec<Dimension> = Vec::new();
        for term in &terms {
            let Some(dimension) = Dimension::of(&term.test) else { continue };
            if done.contains(&dimension) {
                continue;
            }
            let own: Vec<&Term> =
                terms.iter().copied().filter(|term| Dimension::of(&term.test).as_ref() == Some(&dimension)).collect();
            let single = self.values(&dimension, &own, &paths);
            let fits = |witness: &Witness| self.hold(&own, witness);
            let mut tried = single.iter().map(|value| witness.with(&dimension, std::slice::from_ref(value)));
            // What is asked for is said: a witness without it would mean any.
            let said = !matches!(dimension, Dimension::Listener | Dimension::Source);
            let found = if said && fits(&witness) { Some(witness.clone()) } else { tried.find(fits) };
            let found = found.or_else(|| {
                let pairs = single.iter().flat_map(|one| single.iter().map(|two| [one.clone(), two.clone()]));
                let found = pairs
                    .take(VALUES * VALUES)
                    .map(|two| witness.with(&dimension, &two))
                    .find(|witness| dimension.repeats() && self.hold(&own, witness));
                repeated |= found.is_some() && dimension != Dimension::Alpn;
                found
            });
            match found {
                Some(found) => witness = found,
                None => return Relation::Unknown,
            }
            done.push(dimension);
        }
        let in_section = self.kind == Kind::Tcp
            || self.table.section(self.kind, &witness.host).is_some_and(|found| std::ptr::eq(found, self.section));
        let mut scratch = String::new();
        let as_sent = self.kind == Kind::Tcp
            || super::path::normalise(&witness.path, self.section.policy, &mut scratch) == Ok(witness.path.as_str());
        if !in_section || !as_sent || !self.hold(&terms, &witness) {
            Relation::Unknown
        } else if repeated {
            Relation::Repeated
        } else {
            Relation::Meets(Box::new(witness))
        }
    }

    /// Whether all these parts hold, leaving the dice aside.
    fn hold(&self, terms: &[&Term], witness: &Witness) -> bool {
        let fields: Vec<Field<'_>> =
            witness.fields.iter().map(|(name, value)| Field { name, value: value.as_bytes() }).collect();
        let alpn: Vec<&[u8]> = witness.alpn.iter().map(|name| name.as_bytes()).collect();
        let head = Head {
            method: &witness.method,
            host: &witness.host,
            path: &witness.path,
            query: &witness.query,
            fields: &fields,
            source: witness.source.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            listener: witness.listener.as_deref().unwrap_or(UNLIKELY),
            sni: witness.sni.as_deref(),
            alpn: &alpn,
            certificate: None,
            no_tls: witness.no_tls,
            body: Body::Empty,
        };
        let mut dice = || 0;
        let mut walk = Walk::new(0, u32::MAX, &mut dice);
        let by_chance = |term: &&&Term| !matches!(term.test, Test::Chance { .. });
        terms.iter().filter(by_chance).all(|term| term.holds(&self.section.rules, &head, &mut walk))
    }

    /// Values worth trying for one part of a request.
    fn values(&self, dimension: &Dimension, terms: &[&Term], paths: &[String]) -> Vec<String> {
        let mut values: Vec<String> = match dimension {
            Dimension::Path => paths.to_vec(),
            Dimension::Host => self.hosts.clone(),
            Dimension::Sni => vec!["www.example".to_owned()],
            Dimension::Listener => self.listeners.iter().map(ToString::to_string).collect(),
            Dimension::Source => ["127.0.0.1", "192.0.2.1", "2001:db8::1"].map(str::to_owned).into(),
            _ => Vec::new(),
        };
        for term in terms {
            match &term.test {
                Test::PathIn(words) | Test::ContentTypeIn(words) => values.extend(some(words)),
                Test::HostIn(hosts) | Test::SniIn(hosts) => values.extend(hosts.some(VALUES)),
                Test::Host(patterns) | Test::Sni(patterns) | Test::ContentType(patterns) => {
                    values.extend(patterns.iter().take(VALUES).flat_map(text_examples));
                }
                Test::Method(words) | Test::Alpn(words) => values.extend(some(words)),
                Test::From(nets) => values.extend(nets.some(VALUES).map(|address| address.to_string())),
                test => values.extend(test.named().map(|named| named_examples(&named)).unwrap_or_default()),
            }
        }
        // Of two patterns with stars, what both take.
        let patterns = || {
            terms.iter().filter(|term| !term.negated).map(|term| match &term.test {
                Test::Host(patterns) | Test::Sni(patterns) | Test::ContentType(patterns) => &**patterns,
                _ => &[],
            })
        };
        for (a, b) in patterns().flatten().flat_map(|a| patterns().flatten().map(move |b| (a, b))).take(VALUES) {
            if let (Some(a), Some(b)) = (glob(a), glob(b))
                && let Meet::At(text) = meet::stars(a, b)
            {
                values.push(text);
            }
        }
        values.push(UNLIKELY.to_owned());
        values
    }
}

/// The addresses of two rules; lists prove nothing.
fn nets_apart(a: &Side<'_>, b: &Side<'_>) -> bool {
    let nets = |side: &Side<'_>| -> Vec<Arc<Nets>> {
        let provable = (0..side.terms.len()).filter_map(|at| side.provable(at));
        provable.filter_map(|test| if let Test::From(nets) = test { Some(nets.clone()) } else { None }).collect()
    };
    let (a, b) = (nets(a), nets(b));
    a.iter().any(|a| b.iter().any(|b| !a.meets(b)))
}

/// Whether one rule negates what the other one has.
fn denies(a: &Side<'_>, b: &Side<'_>) -> bool {
    a.terms.iter().enumerate().filter(|(_, term)| term.negated).any(|(at, term)| {
        let text = a.texts.get(at).and_then(|text| text.strip_prefix("! "));
        let by_chance = matches!(term.test, Test::Chance { .. });
        !by_chance && text.is_some_and(|text| b.texts.iter().any(|own| own == text))
            || !a.by_list(at)
                && (0..b.terms.len()).filter_map(|at| b.provable(at)).any(|own| shadow::implies(own, &term.test))
    })
}

/// What a rule does; what is counted for the rule alone, or depends on its own path, nobody else does.
fn does(rule: &Rule) -> Option<String> {
    let own = rule.refined().is_some_and(|refined| !refined.rates.is_empty() || refined.connections.is_some());
    // Places of templates would make all of them differ.
    let text = format!("{:?} {:?} {:?}", rule.action(), rule.changes(), rule.refined());
    let own = own || text.contains("Group(") || text.contains("Capture(") || text.contains("Place {");
    if own { None } else { Some(text) }
}

/// What parts of conditions are about.
#[derive(Debug, Clone, PartialEq)]
enum Dimension {
    Path,
    Host,
    Sni,
    /// In lower case.
    Header(String),
    Cookie(String),
    Query(String),
    Method,
    Alpn,
    Listener,
    Source,
    NoTls,
}

impl Dimension {
    fn of(test: &Test) -> Option<Dimension> {
        let name = || test.named().map_or_else(String::new, |named| named.name.to_string());
        Some(match test {
            Test::Path(_) | Test::PathAny(_) | Test::PathIn(_) => Dimension::Path,
            Test::Host(_) | Test::HostIn(_) => Dimension::Host,
            Test::Sni(_) | Test::SniIn(_) => Dimension::Sni,
            Test::ContentType(_) | Test::ContentTypeIn(_) => Dimension::Header("content-type".to_owned()),
            Test::Header(_) | Test::HeaderIs(_) => Dimension::Header(name().to_ascii_lowercase()),
            Test::Cookie(_) | Test::CookieIs(_) => Dimension::Cookie(name()),
            Test::Query(_) | Test::QueryIs(_) => Dimension::Query(name()),
            Test::Method(_) => Dimension::Method,
            Test::Alpn(_) => Dimension::Alpn,
            Test::Listener(_) => Dimension::Listener,
            Test::From(_) => Dimension::Source,
            Test::NoTls => Dimension::NoTls,
            // Certificates and bodies are not made up, and the dice fall as they do.
            _ => return None,
        })
    }

    /// Whether a request may have several of it.
    fn repeats(&self) -> bool {
        matches!(self, Dimension::Header(_) | Dimension::Cookie(_) | Dimension::Query(_) | Dimension::Alpn)
    }
}

impl Witness {
    fn plain(kind: Kind, host: &str) -> Witness {
        Witness {
            method: if kind == Kind::Rtsp { "DESCRIBE" } else { "GET" }.to_owned(),
            host: host.to_owned(),
            path: format!("/{UNLIKELY}"),
            query: String::new(),
            fields: Vec::new(),
            source: None,
            listener: None,
            sni: None,
            alpn: Vec::new(),
            no_tls: false,
        }
    }

    /// The same request with another value in one part, or with several.
    fn with(&self, dimension: &Dimension, values: &[String]) -> Witness {
        let mut witness = self.clone();
        let first = || values.first().cloned().unwrap_or_default();
        match dimension {
            Dimension::Path => witness.path = first(),
            Dimension::Host => witness.host = first(),
            Dimension::Sni => witness.sni = Some(first()),
            Dimension::Method => witness.method = first(),
            Dimension::Listener => witness.listener = Some(first()),
            Dimension::Alpn => witness.alpn = values.to_vec(),
            Dimension::Source => witness.source = first().parse().ok(),
            Dimension::NoTls => witness.no_tls = true,
            Dimension::Header(name) => {
                witness.fields.extend(values.iter().map(|value| (name.clone(), value.clone())));
            }
            Dimension::Cookie(name) => {
                let pairs = values.iter().map(|value| format!("{name}={value}"));
                let cookie = witness.fields.iter_mut().find(|(name, _)| name == "cookie");
                match cookie {
                    Some((_, all)) => pairs.for_each(|pair| *all = format!("{all}; {pair}")),
                    None => witness.fields.push(("cookie".to_owned(), pairs.collect::<Vec<_>>().join("; "))),
                }
            }
            Dimension::Query(name) => {
                for value in values {
                    if !witness.query.is_empty() {
                        witness.query.push('&');
                    }
                    witness.query.push_str(&format!("{}={}", escaped(name), escaped(value)));
                }
            }
        }
        witness
    }
}

fn escaped(text: &str) -> String {
    let mut out = String::new();
    super::path::encode(text.as_bytes(), b"", &mut |byte| out.push(byte.into()));
    out
}

fn some(words: &Words) -> Vec<String> {
    words.iter().take(VALUES).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

fn glob(pattern: &TextPattern) -> Option<&str> {
    match pattern {
        TextPattern::Exact(text) | TextPattern::Wild(text) => Some(text),
        TextPattern::Regex(_) => None,
    }
}

fn texts_apart(a: &[TextPattern], b: &[TextPattern]) -> bool {
    a.len() * b.len() <= VALUES * VALUES
        && a.iter()
            .all(|a| b.iter().all(|b| glob(a).zip(glob(b)).is_some_and(|(a, b)| meet::stars(a, b) == Meet::Apart)))
}

fn words_apart(a: &Words, b: &Words) -> bool {
    a.iter().all(|word| !b.contains(word))
}

fn text_examples(pattern: &TextPattern) -> Vec<String> {
    match pattern {
        TextPattern::Exact(text) => vec![text.to_string()],
        TextPattern::Wild(text) => vec![text.replace('*', "a")],
        TextPattern::Regex(regex) => {
            meet::examples(regex).into_iter().map(|text| text.trim_start_matches('/').to_owned()).collect()
        }
    }
}

fn named_examples(named: &Named) -> Vec<String> {
    match &named.check {
        Check::Equals(values) => some(&values.words),
        Check::Differs(_) | Check::Present => Vec::new(),
        Check::In(values) => some(&values.words),
        Check::Regex(regex) => {
            meet::examples(regex).into_iter().map(|text| text.trim_start_matches('/').to_owned()).collect()
        }
    }
}
