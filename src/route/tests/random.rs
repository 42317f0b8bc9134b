//! Random rules and random messages: the table says what a linear reading of the rules says.

use std::net::IpAddr;

use proptest::prelude::*;
use proptest::sample::select;

use super::super::{Content, Head, explain};
use super::*;

const PATHS: &[&str] = &[
    "/",
    "/a",
    "/a/",
    "/a/b",
    "/a/b/c.jpg",
    "/b",
    "/b/a/1.jpg",
    "/img/x.png",
    "/img/",
    "/img",
    "/api/v1/users/7",
    "/api/v2/users/12",
    "/api/v1/x",
    "/users/joe",
    "/users/joe/cart",
    "/users//cart",
    "/robots.txt",
    "/a/robots.txt",
    "/x/thumb-7.jpg",
    "/svc12/a",
    "/svc1/",
    "/svc12x/9",
    "*",
    "/a.b/c",
    "/A/B",
    "//a",
    "/deep/1/2/3/4/5/6/7/8/9/10/11/12/13/14/x",
];
const GLOBS: &[&str] = &[
    "/",
    "/a",
    "/a/**",
    "/a/b",
    "/a/*",
    "/a/*/c.jpg",
    "/b/**",
    "/**",
    "/**/a/*",
    "*.jpg",
    "*.png",
    "*",
    "robots.txt",
    "thumb-*.jpg",
    "thumb*",
    "/img/**",
    "/img/*.png",
    "/api/**",
    "/api/v1/**",
    "/api/*/users/{id}",
    "/api/*/users/**",
    "/users/{who}/**",
    "/users/{who}",
    "{file}",
    "/svc1*",
    "/svc12*/**",
    "/svc1/**",
    "/*/x",
    "/**/cart",
    "/deep/**",
    "/deep/1/2/3/4/5/6/7/8/9/10/11/12/13/**",
    "/*/*/*/7",
];
const REGEXES: &[&str] = &[
    "~^/a",
    "~^/a/b$",
    r"~\.jpg$",
    "~^/api/v[0-9]+/",
    "~^/api/v[0-9]+/users/([0-9]+)$",
    "~users",
    "~^/(a|b)/",
    "~[0-9]{2}",
    "~^/svc[0-9]+/",
    "~^/svc12",
    "~(?i)/a/b",
    "~^$",
    "~o.*t",
    "~^/img/|cart$",
    r"~^/users/(\w+)",
    "~[a-c]/[a-c]",
    r"~(?:jpg|png)$",
    "~^/[^/]+$",
];
const METHODS: &[&str] = &["GET", "POST", "PUT", "get"];
const NAMES: &[&str] = &["x-a", "X-A", "x-b", "accept"];
const VALUES: &[&str] = &["1", "2", "1,2", "1, 2", "2,1,2", "", "text"];
const COOKIES: &[&str] = &["s=1", "s=2; t=1", "t=1; s=1; s=3", "S=1", "", "s"];
const QUERIES: &[&str] = &["", "q=1", "q=2&r=1", "%71=1", "q=%31", "q", "q=1+2", "r=1&q=2"];
const HOSTS: &[&str] = &["shop.example", "www.shop.example", "a.b.shop.example", "other.example"];
const HOST_GLOBS: &[&str] = &["shop.example", "*.shop.example", "*shop*", "www.*", "~^www[.]", "~example$"];
const SOURCES: &[&str] = &["10.0.0.1", "10.1.2.3", "192.0.2.9", "::ffff:10.1.2.3", "2001:db8::1", "2001:db9::1"];
const NETS: &[&str] =
    &["10.0.0.0/8", "10.1.0.0/16", "10.1.2.3/32", "0.0.0.0/0", "2001:db8::/32", "192.0.2.0/24 2001:db8::1/128"];
const TYPES: &[&str] = &["text/html", "Text/HTML; charset=utf-8", "image/png"];
const TYPE_GLOBS: &[&str] = &["text/html", "text/*", "image/*", "*", "~utf"];
const BODIES: &[&str] = &["", "ping"];
/// Lists 0 to 4: hosts, networks, values, paths, media types.
const LISTS: [&[&str]; 5] = [
    &["shop.example", "*.other.example", "nowhere"],
    &["10.1.0.0/16", "192.0.2.9", "2001:db8::/48"],
    &["1", "1,2", "text"],
    &["/a/b", "/img/", "/r%6fbots.txt"],
    &["text/html", "IMAGE/png"],
];

#[derive(Debug, Clone)]
struct Message {
    method: &'static str,
    host: &'static str,
    path: &'static str,
    query: &'static str,
    fields: Vec<(&'static str, &'static str)>,
    source: IpAddr,
    listener: &'static str,
    sni: Option<&'static str>,
    alpn: Vec<&'static str>,
    no_tls: bool,
    /// `None`: one that is too large to be looked at.
    body: Option<&'static str>,
}

fn any_patterns(globs: &'static [&'static str], regexes: &'static [&'static str]) -> BoxedStrategy<Patterns> {
    let one = if regexes.is_empty() {
        select(globs).boxed()
    } else {
        prop_oneof![5 => select(globs), 2 => select(regexes)].boxed()
    };
    let count = prop_oneof![4 => Just(1usize), 1 => 2..4usize];
    count
        .prop_flat_map(move |count| prop::collection::vec(one.clone(), count))
        .prop_map(|texts| Patterns::AnyOf(texts.into_iter().map(pattern).collect()))
        .boxed()
}

fn value_test() -> impl Strategy<Value = ValueTest> {
    let some = || prop::collection::vec(select(VALUES).prop_map(Into::into), 1..3);
    prop_oneof![
        1 => Just(ValueTest::Present),
        5 => some().prop_map(ValueTest::Equals),
        1 => some().prop_map(ValueTest::Differs),
        1 => select(&["^1", "2$", "^1, 2$", "^$"][..]).prop_map(|text| ValueTest::Regex { text: text.into(), place: place() }),
        1 => Just(ValueTest::InList(2)),
    ]
}

fn words(of: &'static [&'static str]) -> impl Strategy<Value = Vec<std::sync::Arc<str>>> {
    prop::collection::vec(select(of).prop_map(Into::into), 1..3)
}

fn tests() -> impl Strategy<Value = Test> {
    prop_oneof![
        12 => any_patterns(GLOBS, REGEXES).prop_map(Test::Path),
        1 => Just(Test::Path(Patterns::InList(3))),
        2 => any_patterns(HOST_GLOBS, &[]).prop_map(Test::Host),
        1 => Just(Test::Host(Patterns::InList(0))),
        1 => any_patterns(HOST_GLOBS, &[]).prop_map(Test::Sni),
        1 => any_patterns(TYPE_GLOBS, &[]).prop_map(Test::ContentType),
        1 => Just(Test::ContentType(Patterns::InList(4))),
        3 => (select(NAMES), value_test()).prop_map(|(name, check)| Test::Header { name: name.into(), check }),
        2 => (select(&["s", "t"][..]), value_test()).prop_map(|(name, check)| Test::Cookie { name: name.into(), check }),
        2 => (select(&["q", "r"][..]), value_test()).prop_map(|(name, check)| Test::Query { name: name.into(), check }),
        3 => words(METHODS).prop_map(Test::Method),
        1 => words(&["h2", "http/1.1"]).prop_map(Test::Alpn),
        1 => words(&["main", "other"]).prop_map(Test::Listener),
        2 => select(NETS).prop_map(|nets| from(nets).test),
        1 => Just(Test::From(Sources::InList(1))),
        1 => Just(Test::NoTls),
        1 => select(&[0u32, 3000, 10_000][..]).prop_map(|share| Test::Chance { share, of: None }),
        1 => select(BODIES).prop_map(|text| Test::Body {
            part: BodyPart::Text,
            check: ValueTest::Equals(vec![text.into()]),
        }),
    ]
}

fn rules(most: usize) -> impl Strategy<Value = RuleSet> {
    let term = (prop::bool::weighted(0.15), tests()).prop_map(|(negated, test)| Term { negated, test, place: place() });
    let conditions = prop::collection::vec(prop::collection::vec(term, 1..4), 1..most);
    conditions.prop_map(|conditions| {
        let rules = conditions.into_iter().enumerate();
        let mut set =
            set(rules.map(|(number, condition)| rule(&format!("r{number}"), condition, to_pool(0))).collect());
        let list = |(number, entries): (usize, &&[&str])| List {
            name: format!("list{number}").into(),
            entries: entries.iter().map(|entry| (*entry).into()).collect(),
            file: "list.txt".into(),
            place: place(),
        };
        set.lists = LISTS.iter().enumerate().map(list).collect();
        set
    })
}

fn messages() -> impl Strategy<Value = Message> {
    let header = (select(NAMES), select(VALUES));
    let fields = (
        prop::collection::vec(header, 0..4),
        prop::option::of(select(COOKIES)),
        prop::option::weighted(0.2, select(COOKIES)),
        prop::option::of(select(TYPES)),
    );
    let fields = fields.prop_map(|(mut fields, cookie, more, kind)| {
        fields.extend(cookie.into_iter().chain(more).map(|value| ("Cookie", value)));
        fields.extend(kind.map(|value| ("Content-Type", value)));
        fields
    });
    let tls =
        (prop::option::of(select(HOSTS)), prop::collection::vec(select(&["h2", "http/1.1"][..]), 0..3), any::<bool>());
    let listener = (select(&["main", "spare"][..]), prop::option::weighted(0.8, select(BODIES)));
    (select(METHODS), select(HOSTS), select(PATHS), select(QUERIES), fields, select(SOURCES), listener, tls).prop_map(
        |(method, host, path, query, fields, source, (listener, body), (sni, alpn, no_tls))| {
            let source = source.parse().unwrap();
            Message { method, host, path, query, fields, source, listener, sni, alpn, no_tls, body }
        },
    )
}

/// The rules read one by one, with no thought of speed.
mod linear {
    use super::*;

    pub fn decide(set: &RuleSet, message: &Message, roll: u32) -> Option<usize> {
        let rules = &set.sections[0].rules;
        rules.iter().position(|rule| rule.condition.iter().all(|term| holds(&term.test, message, roll) != term.negated))
    }

    fn regex(text: &str, value: &str) -> bool {
        regex::bytes::RegexBuilder::new(text).unicode(false).build().unwrap().is_match(value.as_bytes())
    }

    fn star(glob: &[u8], text: &[u8]) -> bool {
        match glob.split_first() {
            None => text.is_empty(),
            Some((b'*', rest)) => {
                let most = text.iter().position(|byte| *byte == b'/').unwrap_or(text.len());
                (0..=most).any(|skip| star(rest, &text[skip..]))
            }
            Some((byte, rest)) => text.split_first().is_some_and(|(first, text)| first == byte && star(rest, text)),
        }
    }

    fn segment(glob: &str, text: &str) -> bool {
        if glob.starts_with('{') { !text.is_empty() } else { star(glob.as_bytes(), text.as_bytes()) }
    }

    fn segments(glob: &[&str], path: &[&str]) -> bool {
        match glob.split_first() {
            None => path.is_empty(),
            Some((&"**", rest)) => (0..=path.len()).any(|skip| segments(rest, &path[skip..])),
            Some((first, rest)) => {
                path.split_first().is_some_and(|(text, path)| segment(first, text) && segments(rest, path))
            }
        }
    }

    fn path(pattern: &Pattern, path: &str) -> bool {
        match pattern {
            Pattern::Regex { text, .. } => regex(text, path),
            Pattern::Glob { text, .. } => {
                let Some(inside) = path.strip_prefix('/') else { return false };
                match text.strip_prefix('/') {
                    Some(glob) => {
                        segments(&glob.split('/').collect::<Vec<_>>(), &inside.split('/').collect::<Vec<_>>())
                    }
                    None => segment(text, inside.rsplit('/').next().unwrap()),
                }
            }
        }
    }

    fn text(patterns: &[Pattern], value: &str, whole: &str) -> bool {
        patterns.iter().any(|pattern| match pattern {
            Pattern::Regex { text, .. } => regex(text, whole),
            Pattern::Glob { text, .. } => star(text.as_bytes(), value.as_bytes()),
        })
    }

    fn below(host: &str) -> bool {
        LISTS[0].iter().any(|entry| match entry.strip_prefix('*') {
            Some(end) => host.ends_with(end),
            None => host == *entry || host.ends_with(&format!(".{entry}")),
        })
    }

    fn value(check: &ValueTest, values: &[String], joined: bool) -> bool {
        let squeeze = |text: &str| text.split(',').map(str::trim).collect::<Vec<_>>().join(",");
        let one_of = |wanted: &[&str]| {
            let whole = squeeze(&values.join(","));
            values.iter().any(|value| wanted.contains(&value.as_str()))
                || joined && values.len() > 1 && wanted.iter().any(|wanted| squeeze(wanted) == whole)
        };
        let texts = |all: &Vec<std::sync::Arc<str>>| all.iter().map(|text| text.to_string()).collect::<Vec<_>>();
        let borrowed = |all: &[String]| one_of(&all.iter().map(String::as_str).collect::<Vec<_>>());
        match check {
            ValueTest::Present => !values.is_empty(),
            ValueTest::Equals(all) => borrowed(&texts(all)),
            ValueTest::Differs(all) => !borrowed(&texts(all)),
            ValueTest::InList(_) => one_of(LISTS[2]),
            ValueTest::Regex { text, .. } => {
                values.iter().any(|value| regex(text, value))
                    || joined && values.len() > 1 && regex(text, &values.join(", "))
            }
        }
    }

    fn in_nets(nets: &[ipnet::IpNet], source: IpAddr) -> bool {
        nets.iter().any(|net| net.contains(&source.to_canonical()))
    }

    fn decode(text: &str) -> String {
        let mut out = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('%') {
            out.push_str(&rest[..at]);
            out.push(u8::from_str_radix(&rest[at + 1..at + 3], 16).unwrap().into());
            rest = &rest[at + 3..];
        }
        out + rest
    }

    fn pairs(text: &str, between: char) -> Vec<(String, String)> {
        let pieces = text.split(between).map(str::trim).filter(|piece| !piece.is_empty());
        pieces
            .map(|piece| piece.split_once('=').unwrap_or((piece, "")))
            .map(|(a, b)| (a.to_owned(), b.to_owned()))
            .collect()
    }

    fn holds(test: &Test, message: &Message, roll: u32) -> bool {
        let fields = |name: &str| -> Vec<String> {
            let own = message.fields.iter().filter(|(own, _)| own.eq_ignore_ascii_case(name));
            own.map(|(_, value)| (*value).to_owned()).collect()
        };
        let is = |words: &[std::sync::Arc<str>], value: &str| words.iter().any(|word| **word == *value);
        let named = |all: Vec<(String, String)>, name: &str| -> Vec<String> {
            all.into_iter().filter(|(own, _)| own == name).map(|(_, value)| value).collect()
        };
        match test {
            Test::NoTls => message.no_tls,
            Test::Path(Patterns::AnyOf(all)) => all.iter().any(|pattern| path(pattern, message.path)),
            Test::Path(Patterns::InList(_)) => ["/a/b", "/img/", "/robots.txt"].contains(&message.path),
            Test::Host(Patterns::AnyOf(all)) => text(all, message.host, message.host),
            Test::Host(Patterns::InList(_)) => below(message.host),
            Test::Sni(Patterns::AnyOf(all)) => message.sni.is_some_and(|sni| text(all, sni, sni)),
            Test::Sni(Patterns::InList(_)) => message.sni.is_some_and(below),
            Test::ContentType(of) => fields("content-type").first().is_some_and(|whole| {
                let kind = whole.split(';').next().unwrap().trim().to_lowercase();
                match of {
                    Patterns::AnyOf(all) => text(all, &kind, whole),
                    Patterns::InList(_) => ["text/html", "image/png"].contains(&kind.as_str()),
                }
            }),
            Test::Header { name, check } => value(check, &fields(name), true),
            Test::Cookie { name, check } => {
                let all = fields("cookie").iter().flat_map(|line| pairs(line, ';')).collect();
                value(check, &named(all, name), false)
            }
            Test::Query { name, check } => {
                let all = pairs(message.query, '&')
                    .into_iter()
                    .map(|(name, value)| (decode(&name), decode(&value)))
                    .collect();
                value(check, &named(all, name), false)
            }
            Test::Method(words) => is(words, message.method),
            Test::Alpn(words) => message.alpn.iter().any(|alpn| is(words, alpn)),
            Test::Listener(words) => is(words, message.listener),
            Test::From(Sources::Nets(nets)) => in_nets(nets, message.source),
            Test::From(Sources::InList(_)) => {
                let nets: Vec<_> =
                    ["10.1.0.0/16", "192.0.2.9/32", "2001:db8::/48"].iter().map(|net| net.parse().unwrap()).collect();
                in_nets(&nets, message.source)
            }
            Test::Chance { share, .. } => roll < *share,
            Test::Body { check: ValueTest::Equals(values), .. } => message.body.is_some_and(|body| is(values, body)),
            Test::ClientCertificate(_) | Test::Body { .. } => false,
        }
    }
}

fn check(set: &RuleSet, messages: &[Message], roll: u32) -> Result<(), TestCaseError> {
    let (table, faults) = compile(set);
    prop_assert!(faults.iter().all(|fault| fault.code == "R0301"), "{:?}", faults);
    let shadowed: Vec<String> =
        faults.iter().map(|fault| fault.message.split('"').nth(1).unwrap().to_owned()).collect();
    let section = table.section(Kind::Http, "shop.example").unwrap();
    for message in messages {
        let fields: Vec<_> = message.fields.iter().map(|(name, value)| field(name, value)).collect();
        let alpn: Vec<_> = message.alpn.iter().map(|name| name.as_bytes()).collect();
        let content = Content::new(message.body.unwrap_or_default());
        let head = Head {
            method: message.method,
            host: message.host,
            path: message.path,
            query: message.query,
            fields: &fields,
            source: message.source,
            listener: message.listener,
            sni: message.sni,
            alpn: &alpn,
            certificate: None,
            no_tls: message.no_tls,
            body: match message.body {
                Some(_) => Body::Whole(&content),
                None => Body::TooLarge,
            },
        };
        let expected = linear::decide(set, message, roll);
        // As traffic asks: without the body where that is enough.
        let unread = section.decide(&Head { body: Body::Unread, ..head }, &mut || roll);
        let found = match unread {
            Ok(found) => found,
            Err(need) => section.decide_with(Some(need), &head, &mut || roll),
        };
        let found = found.map(|rule| rule.number() as usize);
        prop_assert_eq!(found, expected, "{:?}", message);
        let steps = explain::explain(section, &head, roll);
        let last = steps.last().filter(|step| step.verdict == explain::Verdict::Takes);
        prop_assert_eq!(last.map(|step| step.rule.number() as usize), expected);
        prop_assert_eq!(steps.len(), expected.map_or(set.sections[0].rules.len(), |at| at + 1));
        if let Some(at) = expected {
            prop_assert!(!shadowed.contains(&format!("r{at}")), "r{} is reached: {:?}", at, faults);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn few_rules(set in rules(12), messages in prop::collection::vec(messages(), 1..40), roll in select(&[0u32, 5000, 9999][..])) {
        check(&set, &messages, roll)?;
    }

    #[test]
    fn many_rules(set in rules(120), messages in prop::collection::vec(messages(), 1..40), roll in select(&[0u32, 5000, 9999][..])) {
        check(&set, &messages, roll)?;
    }
}
