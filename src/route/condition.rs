//! The tests of a rule's condition, compiled, and what they say of a message.
//!
//! `decide` and `explain` both come here: there is no second opinion.

use std::borrow::Cow;
use std::sync::Arc;

use crate::model::rule::{CertificateField, Key};
use crate::wire::certificate::Certificate;

use super::body::{Body, BodyTest};
use super::glob::{Glob, wild};
use super::hash::hash;
use super::head::{Head, Scratch};
use super::key;
use super::list::{Hosts, Nets, Words};
use super::regex::Regex;
use super::text::Pair;
use super::{Rule, Walk};

/// One part of a rule's condition. The parts of all rules of a section lie one behind the other, in
/// the order of the rules, each in a line of memory of its own.
#[derive(Debug, Clone)]
#[repr(align(64))]
pub(super) struct Term {
    pub test: Test,
    pub negated: bool,
    /// Parts of the same rule behind this one.
    pub more: u32,
    /// Position of the rule in its section.
    pub rule: u32,
}

const _: () = assert!(size_of::<Term>() == 64);

#[derive(Debug, Clone)]
pub(super) enum Test {
    /// What a rule for `any` has.
    Any,
    /// One pattern, the usual case, without a list around it.
    Path(PathPattern),
    PathAny(Box<[PathPattern]>),
    PathIn(Arc<Words>),
    Host(Box<[TextPattern]>),
    HostIn(Arc<Hosts>),
    Sni(Box<[TextPattern]>),
    SniIn(Arc<Hosts>),
    ContentType(Box<[TextPattern]>),
    ContentTypeIn(Arc<Words>),
    /// The usual one of them: one short value.
    HeaderIs(Pair),
    CookieIs(Pair),
    QueryIs(Pair),
    Header(Box<Named>),
    Cookie(Box<Named>),
    Query(Box<Named>),
    Method(Words),
    Alpn(Words),
    Listener(Words),
    From(Arc<Nets>),
    NoTls,
    /// That there is one, or what stands in it.
    Certificate(Option<Box<(CertificateField, Check)>>),
    Chance {
        /// In hundredths of a percent.
        share: u32,
        of: Option<Box<Key>>,
    },
    /// Boxed, for it is rare.
    Body(Box<BodyTest>),
    /// Its regex is at fault: the table will not be used.
    Never,
}

#[derive(Debug, Clone)]
pub(super) enum PathPattern {
    Glob(Glob),
    Regex(Regex),
}

/// Of hosts and media types: `*` is any run without a slash.
#[derive(Debug, Clone)]
pub(super) enum TextPattern {
    Exact(Box<str>),
    Wild(Box<str>),
    Regex(Regex),
}

#[derive(Debug, Clone)]
pub(super) struct Named {
    pub name: Box<str>,
    pub check: Check,
}

#[derive(Debug, Clone)]
pub(super) enum Check {
    Present,
    Equals(Values),
    Differs(Values),
    Regex(Regex),
    In(Arc<Values>),
}

/// Values that a field may have. Those with a comma may also come spread over several lines.
#[derive(Debug, Clone)]
pub(super) struct Values {
    pub words: Words,
    /// Those with a comma, without blanks beside it.
    pub joined: Option<Words>,
}

impl PathPattern {
    #[inline]
    pub fn matches(&self, path: &str) -> bool {
        match self {
            PathPattern::Glob(glob) => glob.matches(path),
            PathPattern::Regex(regex) => regex.is_match(path.as_bytes()),
        }
    }
}

impl TextPattern {
    pub fn new(text: &str) -> TextPattern {
        let text = text.to_ascii_lowercase();
        if text.contains('*') { TextPattern::Wild(text.into()) } else { TextPattern::Exact(text.into()) }
    }

    /// `whole` is what a regex sees.
    fn matches(&self, text: &[u8], whole: &[u8]) -> bool {
        match self {
            TextPattern::Exact(own) => own.as_bytes() == text,
            TextPattern::Wild(pattern) => wild(pattern.as_bytes(), text),
            TextPattern::Regex(regex) => regex.is_match(whole),
        }
    }
}

impl Values {
    pub fn new<'v>(values: impl Iterator<Item = &'v str> + Clone) -> Values {
        let listed = values.clone().map(str::as_bytes).filter(|value| value.contains(&b','));
        let listed: Vec<Scratch> = listed.map(without_blanks_at_commas).collect();
        let joined = if listed.is_empty() { None } else { Some(Words::new(listed)) };
        Values { words: Words::new(values), joined }
    }

    fn field(&self, head: &Head<'_>, name: &str) -> bool {
        head.values(name).any(|value| self.words.contains(value))
            || self.joined.as_ref().is_some_and(|joined| {
                head.joined(name, b",").is_some_and(|whole| joined.contains(&without_blanks_at_commas(&whole)))
            })
    }
}

/// RFC 9110 §5.6.1.2: blanks beside the commas of a list say nothing.
pub(super) fn without_blanks_at_commas(value: &[u8]) -> Scratch {
    let mut out = Scratch::new();
    for (number, piece) in value.split(|byte| *byte == b',').enumerate() {
        if number > 0 {
            out.push(b',');
        }
        out.extend_from_slice(piece.trim_ascii());
    }
    out
}

impl Term {
    /// Whether this part of a condition holds.
    #[inline]
    pub(super) fn holds(&self, rules: &[Rule], head: &Head<'_>, walk: &mut Walk<'_>) -> bool {
        self.holds_plain(rules, head, walk) != self.negated
    }

    #[inline]
    fn holds_plain(&self, rules: &[Rule], head: &Head<'_>, walk: &mut Walk<'_>) -> bool {
        match &self.test {
            Test::Any => true,
            Test::Path(pattern) => pattern.matches(head.path),
            Test::PathAny(patterns) => patterns.iter().any(|pattern| pattern.matches(head.path)),
            Test::PathIn(words) => words.contains(head.path.as_bytes()),
            Test::Host(patterns) => any(patterns, head.host),
            Test::HostIn(hosts) => hosts.contains(head.host),
            Test::Sni(patterns) => head.sni.is_some_and(|sni| any(patterns, sni)),
            Test::SniIn(hosts) => head.sni.is_some_and(|sni| hosts.contains(sni)),
            Test::ContentType(patterns) => head.media_type().is_some_and(|kind| {
                let whole = head.values("content-type").next().unwrap_or_default();
                patterns.iter().any(|pattern| pattern.matches(&kind, whole))
            }),
            Test::ContentTypeIn(words) => head.media_type().is_some_and(|kind| words.contains(&kind)),
            Test::HeaderIs(pair) => {
                let lines = head.fields.iter().filter(|field| field.name.as_bytes().eq_ignore_ascii_case(pair.name()));
                lines.map(|field| field.value).any(|value| value == pair.value())
            }
            Test::CookieIs(pair) => head.cookies().any(|own| own == (pair.name(), pair.value())),
            Test::QueryIs(pair) => head.parameter(pair.name(), |value| value == pair.value()),
            Test::Header(named) => named.header(head),
            Test::Cookie(named) => named.cookie(head),
            Test::Query(named) => named.query(head),
            Test::Method(words) => words.contains(head.method.as_bytes()),
            Test::Alpn(words) => head.alpn.iter().any(|alpn| words.contains(alpn)),
            Test::Listener(words) => words.contains(head.listener.as_bytes()),
            Test::From(nets) => nets.contains(head.source),
            Test::NoTls => head.no_tls,
            Test::Certificate(test) => head.certificate.is_some_and(|own| match test.as_deref() {
                None => true,
                Some((field, check)) => {
                    check.single(|test| certificate_values(own, *field).any(|value| test(value.as_bytes())))
                }
            }),
            Test::Chance { share, of: None } => walk.roll(self.rule) < *share,
            Test::Chance { share, of: Some(key) } => {
                let rule = rules.get(self.rule as usize);
                let value = rule.and_then(|rule| Some((rule.id(), key::key_hash(key, Some(rule), head)?)));
                // Mixed with the rule's name: a second rule takes its share of those the first one left.
                value.is_some_and(|(id, value)| hash(value, id.as_bytes()) % 10_000 < u64::from(*share))
            }
            Test::Body(_) if matches!(head.body, Body::Unread) => {
                // All else of the rule has been found to hold, for bodies are looked at last.
                walk.awaits_body(rules.get(self.rule as usize));
                // Not even where it is negated.
                self.negated
            }
            Test::Body(test) => test.holds(head),
            Test::Never => false,
        }
    }
}

impl Test {
    /// A test of fields, cookies or parameters with its name and values apart.
    pub(super) fn named(&self) -> Option<Cow<'_, Named>> {
        match self {
            Test::HeaderIs(pair) | Test::CookieIs(pair) | Test::QueryIs(pair) => {
                let name = String::from_utf8_lossy(pair.name()).into();
                let values = Values { words: Words::new([pair.value()]), joined: None };
                Some(Cow::Owned(Named { name, check: Check::Equals(values) }))
            }
            Test::Header(named) | Test::Cookie(named) | Test::Query(named) => Some(Cow::Borrowed(named)),
            _ => None,
        }
    }

    fn name(&self) -> String {
        self.named().map_or_else(String::new, |named| named.name.to_string())
    }

    /// What the test looks at in this message, for a person.
    pub(super) fn seen(&self, rule: &Rule, head: &Head<'_>, roll: u32) -> String {
        let or_none = |text: Option<&str>| text.map_or("none".to_owned(), str::to_owned);
        let all = |values: &mut dyn Iterator<Item = &[u8]>| {
            let texts: Vec<_> = values.map(|value| String::from_utf8_lossy(value).into_owned()).collect();
            if texts.is_empty() { "none".to_owned() } else { texts.join(", ") }
        };
        match self {
            Test::Any => "anything".to_owned(),
            Test::Path(_) | Test::PathAny(_) | Test::PathIn(_) => head.path.to_owned(),
            Test::Host(_) | Test::HostIn(_) => head.host.to_owned(),
            Test::Sni(_) | Test::SniIn(_) => or_none(head.sni),
            Test::ContentType(_) | Test::ContentTypeIn(_) => all(&mut head.values("content-type").take(1)),
            Test::Header(_) | Test::HeaderIs(_) => all(&mut head.values(&self.name())),
            Test::Cookie(_) | Test::CookieIs(_) => all(&mut head.cookie(&self.name())),
            Test::Query(_) | Test::QueryIs(_) => {
                let mut texts = Vec::new();
                head.parameter(self.name().as_bytes(), |value| {
                    texts.push(String::from_utf8_lossy(value).into_owned());
                    false
                });
                if texts.is_empty() { "none".to_owned() } else { texts.join(", ") }
            }
            Test::Method(_) => head.method.to_owned(),
            Test::Alpn(_) => all(&mut head.alpn.iter().copied()),
            Test::Listener(_) => head.listener.to_owned(),
            Test::From(_) => head.source.to_canonical().to_string(),
            Test::Certificate(test) => {
                let field = test.as_deref().map_or(CertificateField::Subject, |(field, _)| *field);
                all(&mut head.certificate.into_iter().flat_map(|own| certificate_values(own, field)).map(str::as_bytes))
            }
            Test::NoTls => if head.no_tls { "no TLS" } else { "TLS" }.to_owned(),
            Test::Chance { of: None, .. } => format!("roll {}.{:02}", roll / 100, roll % 100),
            Test::Chance { of: Some(key), .. } => {
                key::key_text(key, Some(rule), head).unwrap_or_else(|| "none".to_owned())
            }
            Test::Body(test) => test.seen(head),
            Test::Never => "nothing".to_owned(),
        }
    }
}

/// What stands in a certificate under that name; alternative names are several.
fn certificate_values(certificate: &Certificate, field: CertificateField) -> impl Iterator<Item = &str> {
    let (one, several) = match field {
        CertificateField::Subject => (Some(&certificate.subject), &[][..]),
        CertificateField::Issuer => (Some(&certificate.issuer), &[][..]),
        CertificateField::Fingerprint => (Some(&certificate.fingerprint), &[][..]),
        CertificateField::San => (None, &certificate.names[..]),
    };
    one.into_iter().chain(several).map(|value| &**value)
}

fn any(patterns: &[TextPattern], text: &str) -> bool {
    patterns.iter().any(|pattern| pattern.matches(text.as_bytes(), text.as_bytes()))
}

impl Named {
    /// Any field line is looked at by itself, and all of them joined by commas.
    #[inline]
    fn header(&self, head: &Head<'_>) -> bool {
        let name = &self.name;
        match &self.check {
            Check::Present => head.values(name).next().is_some(),
            Check::Equals(values) => values.field(head, name),
            Check::Differs(values) => !values.field(head, name),
            Check::In(values) => values.field(head, name),
            Check::Regex(regex) => {
                head.values(name).any(|value| regex.is_match(value))
                    || head.joined(name, b", ").is_some_and(|whole| regex.is_match(&whole))
            }
        }
    }

    #[inline]
    fn cookie(&self, head: &Head<'_>) -> bool {
        self.check.single(|test| head.cookie(&self.name).any(test))
    }

    #[inline]
    fn query(&self, head: &Head<'_>) -> bool {
        self.check.single(|test| head.parameter(self.name.as_bytes(), test))
    }
}

impl Check {
    /// For values that are never joined; `any` says whether one of them passes a test.
    #[inline]
    pub(super) fn single(&self, any: impl FnOnce(&dyn Fn(&[u8]) -> bool) -> bool) -> bool {
        match self {
            Check::Present => any(&|_| true),
            Check::Equals(values) => any(&|value| values.words.contains(value)),
            Check::Differs(values) => !any(&|value| values.words.contains(value)),
            Check::In(values) => any(&|value| values.words.contains(value)),
            Check::Regex(regex) => any(&|value| regex.is_match(value)),
        }
    }
}
