//! What two patterns have in common: a text that both take, or the proof that there is none.
//!
//! Globs and stars are searched completely, state by state. Regexes are judged by the literals that every match
//! begins and ends with; where these go together, nothing is known.

use std::collections::VecDeque;

use regex_syntax::hir::{Class, Hir, HirKind};

use super::condition::PathPattern;
use super::glob::{Glob, Segment};
use super::regex::Regex;

/// What is known of two patterns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Meet {
    /// No text is taken by both.
    Apart,
    /// This one is.
    At(String),
    Unknown,
}

/// States looked at for one pair of texts; longer ones are not compared.
const STATES: usize = 1 << 18;

/// A piece of a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Byte(u8),
    /// Any byte but a slash.
    One,
    /// Any run without a slash.
    Star,
}

/// A path pattern, taken apart once for all the pairs it stands in.
#[derive(Debug)]
pub(super) struct Shape<'p> {
    pattern: &'p PathPattern,
    /// Of a glob: its segments, `None` for `**`.
    parts: Vec<Option<Vec<Token>>>,
    /// What every path begins with, one of them.
    begins: Vec<Vec<u8>>,
    /// What every path ends in, one of them.
    ends: Vec<Vec<u8>>,
}

impl<'p> Shape<'p> {
    pub fn new(pattern: &'p PathPattern) -> Shape<'p> {
        match pattern {
            PathPattern::Glob(glob) => of_glob(pattern, glob),
            PathPattern::Regex(regex) => {
                let hints = &regex.tail.hints;
                let begins = match &*hints.prefixes {
                    [] => vec![regex.prefix.to_vec()],
                    more => more.iter().map(|more| [&*regex.prefix, more].concat()).collect(),
                };
                let ends = match &*hints.suffixes {
                    [] => vec![Vec::new()],
                    all => all.iter().map(|end| end.to_vec()).collect(),
                };
                Shape { pattern, parts: Vec::new(), begins, ends }
            }
        }
    }

    /// Paths that the pattern probably takes; who uses one asks the pattern.
    pub fn examples(&self) -> Vec<String> {
        match self.pattern {
            PathPattern::Glob(glob) => vec![glob.example(), glob.example().replace("~0", "")],
            PathPattern::Regex(regex) => examples(regex),
        }
    }

    pub fn meet(&self, other: &Shape<'_>) -> Meet {
        let go_together = |a: &[Vec<u8>], b: &[Vec<u8>], fit: fn(&[u8], &[u8]) -> bool| {
            a.iter().any(|a| b.iter().any(|b| fit(a, b) || fit(b, a)))
        };
        if !go_together(&self.begins, &other.begins, |long, short| long.starts_with(short))
            || !go_together(&self.ends, &other.ends, |long, short| long.ends_with(short))
        {
            return Meet::Apart;
        }
        match (self.pattern, other.pattern) {
            (PathPattern::Glob(_), PathPattern::Glob(_)) => segments(&self.parts, &other.parts),
            (PathPattern::Glob(glob), PathPattern::Regex(regex))
            | (PathPattern::Regex(regex), PathPattern::Glob(glob)) => with_regex(glob, regex),
            (PathPattern::Regex(_), PathPattern::Regex(_)) => Meet::Unknown,
        }
    }
}

fn of_glob<'p>(pattern: &'p PathPattern, glob: &Glob) -> Shape<'p> {
    glob.with_segments(|all| {
        let own = |part: &Segment<'_>| match part {
            Segment::Deep => None,
            Segment::Literal(text) | Segment::Wild(text) => Some(tokens(text.as_bytes())),
            Segment::Capture(_) => Some(vec![Token::One, Token::Star]),
        };
        let mut parts: Vec<_> = all.parts.iter().map(own).collect();
        if !all.anchored {
            parts.insert(0, None);
        }
        // `/x/**` also takes /x: what it begins with has no slash at its end.
        let mut begin = Vec::new();
        for part in &parts {
            let Some(tokens) = part else { break };
            begin.push(b'/');
            let literal = tokens.iter().map_while(|token| match token {
                Token::Byte(byte) => Some(*byte),
                Token::One | Token::Star => None,
            });
            let before = begin.len();
            begin.extend(literal);
            if begin.len() - before < tokens.len() {
                break;
            }
        }
        let mut end: Vec<u8> = parts
            .last()
            .and_then(Option::as_ref)
            .into_iter()
            .flat_map(|tokens| tokens.iter().rev())
            .map_while(|token| match token {
                Token::Byte(byte) => Some(*byte),
                Token::One | Token::Star => None,
            })
            .collect();
        end.reverse();
        Shape { pattern, parts, begins: vec![begin], ends: vec![end] }
    })
}

/// Of a host or a media type.
pub(super) fn stars(a: &str, b: &str) -> Meet {
    match run(&tokens(a.as_bytes()), &tokens(b.as_bytes())) {
        Found::Nothing => Meet::Apart,
        Found::Text(text) => String::from_utf8(text).map_or(Meet::Unknown, Meet::At),
        Found::TooLong => Meet::Unknown,
    }
}

fn tokens(text: &[u8]) -> Vec<Token> {
    text.iter().map(|byte| if *byte == b'*' { Token::Star } else { Token::Byte(*byte) }).collect()
}

enum Found {
    Nothing,
    Text(Vec<u8>),
    TooLong,
}

/// Where a state was come to from, and what was taken on the way.
struct Steps<T> {
    from: Vec<u32>,
    taken: Vec<Option<T>>,
    todo: VecDeque<usize>,
}

impl<T> Steps<T> {
    fn new(states: usize) -> Steps<T> {
        let mut steps = Steps { from: vec![u32::MAX; states], taken: Vec::new(), todo: VecDeque::from([0]) };
        steps.taken.resize_with(states, || None);
        steps.from[0] = 0;
        steps
    }

    fn go(&mut self, here: usize, to: usize, taken: Option<T>) {
        if self.from[to] == u32::MAX {
            (self.from[to], self.taken[to]) = (here as u32, taken);
            self.todo.push_back(to);
        }
    }

    /// All that was taken on the way to a state.
    fn way(mut self, mut at: usize) -> Vec<T> {
        let mut all = Vec::new();
        while at != 0 {
            all.extend(self.taken[at].take());
            at = self.from[at] as usize;
        }
        all.reverse();
        all
    }
}

fn run(a: &[Token], b: &[Token]) -> Found {
    let width = b.len() + 1;
    let states = (a.len() + 1) * width;
    if states > STATES {
        return Found::TooLong;
    }
    let mut steps = Steps::new(states);
    while let Some(here) = steps.todo.pop_front() {
        let (p, q) = (here / width, here % width);
        let (own, other) = (a.get(p), b.get(q));
        if own.is_none() && other.is_none() {
            return Found::Text(steps.way(here));
        }
        if own == Some(&Token::Star) {
            steps.go(here, here + width, None);
        }
        if other == Some(&Token::Star) {
            steps.go(here, here + 1, None);
        }
        let (Some(own), Some(other)) = (own, other) else { continue };
        let byte = match (own, other) {
            (Token::Byte(own), Token::Byte(other)) if own != other => continue,
            (Token::Byte(byte), Token::Byte(_)) => *byte,
            (Token::Byte(b'/'), _) | (_, Token::Byte(b'/')) => continue,
            (Token::Byte(byte), _) | (_, Token::Byte(byte)) => *byte,
            (Token::Star, Token::Star) => continue,
            _ => b'a',
        };
        let next = |token: &Token, step: usize| if *token == Token::Star { 0 } else { step };
        steps.go(here, here + next(own, width) + next(other, 1), Some(byte));
    }
    Found::Nothing
}

/// Two globs, segment by segment.
fn segments(a: &[Option<Vec<Token>>], b: &[Option<Vec<Token>>]) -> Meet {
    let width = b.len() + 1;
    let states = (a.len() + 1) * width;
    if states > STATES {
        return Meet::Unknown;
    }
    let mut steps: Steps<Vec<u8>> = Steps::new(states);
    let mut unknown = false;
    while let Some(here) = steps.todo.pop_front() {
        let (p, q) = (here / width, here % width);
        let mut both = |a: &[Token], b: &[Token]| match run(a, b) {
            Found::Text(text) => Some(text),
            Found::Nothing => None,
            Found::TooLong => {
                unknown = true;
                None
            }
        };
        match (a.get(p), b.get(q)) {
            (None, None) => {
                let mut path = Vec::new();
                for segment in steps.way(here) {
                    path.push(b'/');
                    path.extend(segment);
                }
                if path.is_empty() {
                    path.push(b'/');
                }
                return String::from_utf8(path).map_or(Meet::Unknown, Meet::At);
            }
            (Some(Some(own)), Some(Some(other))) => {
                if let Some(text) = both(own, other) {
                    steps.go(here, here + width + 1, Some(text));
                }
            }
            (own, other) => {
                if own == Some(&None) {
                    steps.go(here, here + width, None);
                    if let Some(Some(other)) = other {
                        // A segment alone: what `**` takes it with is any.
                        if let Some(text) = both(other, &[Token::Star]) {
                            steps.go(here, here + 1, Some(text));
                        }
                    }
                }
                if other == Some(&None) {
                    steps.go(here, here + 1, None);
                    if let Some(Some(own)) = own
                        && let Some(text) = both(own, &[Token::Star])
                    {
                        steps.go(here, here + width, Some(text));
                    }
                }
            }
        }
    }
    if unknown { Meet::Unknown } else { Meet::Apart }
}

fn with_regex(glob: &Glob, regex: &Regex) -> Meet {
    if let Glob::Exact(text) = glob {
        let text = text.as_str();
        return if regex.is_match(text.as_bytes()) { Meet::At(text.to_owned()) } else { Meet::Apart };
    }
    let mut tried = vec![glob.example(), glob.example().replace("~0", "")];
    for own in examples(regex) {
        let inner = own.trim_start_matches('/');
        match glob {
            Glob::Under(base) => tried.push(format!("{}/{inner}", base.as_str())),
            Glob::LastEnd(end) => tried.push(format!("{own}{}", end.as_str())),
            Glob::Last(text) => tried.push(format!("{}/{}", own.trim_end_matches('/'), text.as_str())),
            Glob::Exact(_) | Glob::General(_) => {}
        }
        tried.push(own);
    }
    match tried.into_iter().find(|path| glob.matches(path) && regex.is_match(path.as_bytes())) {
        Some(path) => Meet::At(path),
        None => Meet::Unknown,
    }
}

/// Texts that a regex probably takes: the shortest ones, and with a turn of each loop.
pub(super) fn examples(regex: &Regex) -> Vec<String> {
    let Some(hir) = regex.tail.hir() else { return Vec::new() };
    let text = |turns| {
        let mut text = regex.prefix.to_vec();
        example(&hir, turns, &mut text);
        let text = String::from_utf8(text).unwrap_or_default();
        if text.starts_with('/') { text } else { format!("/{text}") }
    };
    vec![text(1), text(0)]
}

/// Longer ones prove nothing more.
const LONGEST: usize = 4096;

fn example(hir: &Hir, turns: u32, out: &mut Vec<u8>) {
    if out.len() > LONGEST {
        return;
    }
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => {}
        HirKind::Literal(text) => out.extend_from_slice(&text.0),
        HirKind::Class(Class::Bytes(class)) => {
            let ranges = || class.ranges().iter();
            let good = ranges()
                .find(|range| range.start().is_ascii_alphanumeric())
                .or_else(|| ranges().find(|range| range.start() < b'a' && range.end() >= b'a'));
            match good {
                Some(range) if range.start().is_ascii_alphanumeric() => out.push(range.start()),
                Some(_) => out.push(b'a'),
                None => out.extend(ranges().next().map(|range| range.start())),
            }
        }
        HirKind::Class(Class::Unicode(class)) => {
            let first = class.ranges().iter().next().map(|range| range.start());
            out.extend(first.map(String::from).unwrap_or_default().into_bytes());
        }
        HirKind::Repetition(repetition) => {
            let most = repetition.max.unwrap_or(u32::MAX);
            for _ in 0..repetition.min.max(turns.min(most)) {
                example(&repetition.sub, turns, out);
                if out.len() > LONGEST {
                    return;
                }
            }
        }
        HirKind::Capture(group) => example(&group.sub, turns, out),
        HirKind::Concat(parts) => parts.iter().for_each(|part| example(part, turns, out)),
        HirKind::Alternation(parts) => parts.iter().take(1).for_each(|part| example(part, turns, out)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::rule::PathPolicy;

    fn glob(text: &str) -> PathPattern {
        PathPattern::Glob(Glob::new(text, PathPolicy::AsIs))
    }

    fn meet(a: &str, b: &str) -> Meet {
        let (a, b) = (glob(a), glob(b));
        Shape::new(&a).meet(&Shape::new(&b))
    }

    #[test]
    fn facts() {
        for (a, b) in [
            ("/img/**", "/api/**"),
            ("*.jpg", "*.png"),
            ("/a/*", "/a/*/c"),
            ("/a", "/a/"),
            ("/users/{who}", "/users/"),
            ("x*", "*y/"),
            ("/a/**/c", "/b/**"),
        ] {
            assert_eq!(meet(a, b), Meet::Apart, "{a} {b}");
            assert_eq!(meet(b, a), Meet::Apart, "{b} {a}");
        }
        for (a, b, at) in [
            ("/up/**", "*.jpg", "/up/.jpg"),
            ("/a/*/c", "/a/b/**", "/a/b/c"),
            ("/x/**", "/x", "/x"),
            ("/**", "/**", "/"),
            ("/{who}/x", "/*/x", "/a/x"),
            ("ab*", "*ba", "/aba"),
        ] {
            assert_eq!(meet(a, b), Meet::At(at.to_owned()), "{a} {b}");
        }
        assert_eq!(stars("*.shop.example", "www.*"), Meet::At("www.shop.example".to_owned()));
        assert_eq!(stars("text/*", "*"), Meet::Apart, "no star takes a slash");
        assert_eq!(stars("*.example", "*.org"), Meet::Apart);
    }

    const PIECES: [&str; 9] = ["a", "b", "*", "ab", "a*", "*b", "**", "{x}", ""];

    fn any_glob() -> impl Strategy<Value = String> {
        let part = prop::sample::select(&PIECES[..]);
        (any::<bool>(), prop::collection::vec(part, 1..4)).prop_map(|(anchored, parts)| match anchored {
            true => format!("/{}", parts.join("/")),
            false => parts[0].to_owned(),
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_apart_has_nothing_in_common(a in any_glob(), b in any_glob(), path in "(/[ab]{0,2}){1,4}") {
            let (own, other) = (Glob::new(&a, PathPolicy::AsIs), Glob::new(&b, PathPolicy::AsIs));
            match meet(&a, &b) {
                Meet::At(at) => prop_assert!(own.matches(&at) && other.matches(&at), "{a} {b} {at}"),
                Meet::Apart => prop_assert!(!(own.matches(&path) && other.matches(&path)), "{a} {b} {path}"),
                Meet::Unknown => prop_assert!(false, "globs are decided: {a} {b}"),
            }
        }
    }
}
