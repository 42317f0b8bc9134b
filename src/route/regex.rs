//! Regexes: linear in time, bounded in size, and compiled once for all rules that end alike.
//!
//! `^/api/users/svc7/v[0-9]+$` is kept as the literal `/api/users/svc7/v` and the tail `[0-9]+$`. The
//! literal finds the rule, the tail is shared with every regex that has the same one: 100,000 rules
//! that differ in their prefixes compile one automaton.
//!
//! Classes (`\d`, `\w`, `.`) and `(?i)` mean ASCII, so that an automaton stays small and bytes of any
//! encoding can be searched; a regex that needs more (`\p{L}`, `[à-ü]`) is read with Unicode on.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use regex_automata::dfa::{Automaton, StartKind, dense, onepass};
use regex_automata::nfa::thompson::{self, NFA, pikevm};
use regex_automata::util::primitives::NonMaxUsize;
use regex_automata::{Anchored, Input, meta};
use regex_syntax::hir::{Class, Hir, HirKind, Look, literal, print};

use super::automaton::Small;
use super::hash::Map;
use super::text::Text;

/// Distinct tails that are compiled while the rules are loaded; more are compiled when they are first
/// used, or by `Table::warm`. 4,096 take about a fifth of a second.
const EAGER: usize = 4096;
/// States of one regex, counted as `size` does. `[a-z]{1,1000}` has 1,000.
const LARGEST: u64 = 20_000;
/// Nested groups in one regex.
const DEEPEST: u32 = 64;
/// Bytes of a table that one automaton may take before a slower, smaller engine serves.
const DFA_BYTES: usize = 64 << 10;

/// One regex of a rule.
#[derive(Debug, Clone)]
pub(super) struct Regex {
    /// What a match begins with, at the start of the text; empty for a regex that is not anchored.
    pub prefix: Text,
    pub tail: Arc<Tail>,
}

/// What is left of a regex behind its literal prefix.
#[derive(Debug)]
pub(super) struct Tail {
    search: OnceLock<Search>,
    groups: OnceLock<Groups>,
    /// Only looked for right behind the prefix.
    anchored: bool,
    text: Box<str>,
    pub hints: Box<Hints>,
}

/// Literals that every match has: what the index finds rules by.
#[derive(Debug, Default)]
pub(super) struct Hints {
    /// One of them begins the match (of an anchored tail).
    pub prefixes: Box<[Box<[u8]>]>,
    /// One of them ends the text.
    pub suffixes: Box<[Box<[u8]>]>,
    /// It is somewhere in the text.
    pub inner: Option<Box<[u8]>>,
}

/// Answers whether there is a match.
#[derive(Debug)]
enum Search {
    /// Most of them.
    Small(Small),
    /// One table look-up a byte; needs no memory of its own to run.
    Table(Box<dense::DFA<Vec<u32>>>),
    /// For what does not fit a small table.
    Lazy(Box<meta::Regex>),
    Broken,
}

/// Answers where the groups are.
#[derive(Debug)]
enum Groups {
    OnePass(Box<onepass::DFA>),
    Pike(Box<pikevm::PikeVM>),
    Broken,
}

/// The regexes of one rule set, while it is being compiled.
#[derive(Debug, Default)]
pub(super) struct Pool {
    tails: Map<(bool, Box<str>), Arc<Tail>>,
    /// Those whose groups a rule uses.
    grouped: Vec<Arc<Tail>>,
}

impl Pool {
    /// Reads a regex; the error is one sentence for the operator.
    pub fn read(&mut self, text: &str) -> Result<Regex, String> {
        if let Some((prefix, tail)) = split_text(text)
            && let Some(tail) = self.tails.get(&(true, tail.into()))
        {
            return Ok(Regex { prefix: (*prefix).into(), tail: tail.clone() });
        }
        if let Some((prefix, tail)) = split_text(text)
            && let Ok(rest) = parse(tail)
            && size(&rest) <= LARGEST
        {
            return Ok(Regex { prefix: (*prefix).into(), tail: self.tail(tail, true, &rest) });
        }
        let hir = parse(text)?;
        if size(&hir) > LARGEST {
            return Err("this regex is too large: make its repetitions shorter".into());
        }
        if let Some((prefix, rest)) = split_hir(&hir) {
            let mut tail = String::new();
            // Printed text says the same when it is read again, but for what `\b` means to Unicode.
            let looks = |hir: &Hir| hir.properties().look_set();
            if print::Printer::new().print(&rest, &mut tail).is_ok()
                && parse(&tail).is_ok_and(|again| looks(&again) == looks(&rest))
            {
                return Ok(Regex { prefix: (*prefix).into(), tail: self.tail(&tail, true, &rest) });
            }
        }
        let anchored = hir.properties().look_set_prefix().contains(Look::Start);
        Ok(Regex { prefix: [].as_slice().into(), tail: self.tail(text, anchored, &hir) })
    }

    fn tail(&mut self, text: &str, anchored: bool, hir: &Hir) -> Arc<Tail> {
        let make = || {
            let (text, hints) = (text.into(), Box::new(Hints::new(hir, anchored)));
            Arc::new(Tail { text, anchored, hints, search: OnceLock::new(), groups: OnceLock::new() })
        };
        self.tails.entry((anchored, text.into())).or_insert_with(make).clone()
    }

    /// Says that a rule uses the groups of a regex.
    pub fn needs_groups(&mut self, tail: &Arc<Tail>) {
        self.grouped.push(tail.clone());
    }

    /// All distinct tails; compiled already if they are few.
    pub fn finish(self) -> Box<[Arc<Tail>]> {
        let tails: Box<[Arc<Tail>]> = self.tails.into_values().collect();
        if tails.len() <= EAGER {
            tails.iter().for_each(|tail| tail.warm());
            self.grouped.iter().for_each(|tail| tail.warm_groups());
        }
        tails
    }
}

impl Regex {
    #[inline]
    pub fn is_match(&self, text: &[u8]) -> bool {
        text.starts_with(&self.prefix) && self.tail.is_match(text, self.prefix.len())
    }

    /// Where group `number` is in a text that matches.
    pub fn group(&self, number: u8, text: &[u8]) -> Option<Range<usize>> {
        if !text.starts_with(&self.prefix) {
            return None;
        }
        self.tail.group(number, text, self.prefix.len())
    }
}

impl Tail {
    /// The tail with what anchors it.
    pub fn hir(&self) -> Option<Hir> {
        let hir = parse(&self.text).ok()?;
        Some(if self.anchored { Hir::concat(vec![Hir::look(Look::Start), hir]) } else { hir })
    }

    /// Whether nothing may stand behind the prefix.
    pub fn is_end(&self) -> bool {
        self.anchored && *self.text == *"$"
    }

    fn input<'t>(&self, text: &'t [u8], at: usize) -> Input<'t> {
        let anchored = if self.anchored { Anchored::Yes } else { Anchored::No };
        Input::new(text).range(at..).anchored(anchored)
    }

    fn is_match(&self, text: &[u8], at: usize) -> bool {
        let input = self.input(text, at).earliest(true);
        match self.search.get_or_init(|| self.compile()) {
            Search::Small(small) => small.is_match(text, at),
            Search::Table(table) => table.try_search_fwd(&input).is_ok_and(|end| end.is_some()),
            Search::Lazy(regex) => regex.is_match(input),
            Search::Broken => false,
        }
    }

    fn group(&self, number: u8, text: &[u8], at: usize) -> Option<Range<usize>> {
        thread_local! {
            /// Working memory of the engines, one a thread, so that none is taken from the heap.
            static ONE_PASS: RefCell<Option<onepass::Cache>> = const { RefCell::new(None) };
            static PIKE: RefCell<Option<pikevm::Cache>> = const { RefCell::new(None) };
        }
        // Groups 0 to 9, each a start and an end.
        let mut slots: [Option<NonMaxUsize>; 20] = [None; 20];
        let input = self.input(text, at);
        let fitting = |nfa: &NFA| nfa.group_info().slot_len().min(20);
        match self.groups.get_or_init(|| self.compile_groups()) {
            Groups::OnePass(engine) => ONE_PASS.with_borrow_mut(|cache| {
                let cache = cache.get_or_insert_with(|| engine.create_cache());
                cache.reset(engine);
                engine.try_search_slots(cache, &input, &mut slots[..fitting(engine.get_nfa())]).ok().flatten()
            }),
            Groups::Pike(engine) => PIKE.with_borrow_mut(|cache| {
                let cache = cache.get_or_insert_with(|| engine.create_cache());
                cache.reset(engine);
                engine.search_slots(cache, &input, &mut slots[..fitting(engine.get_nfa())])
            }),
            Groups::Broken => None,
        }?;
        let first = usize::from(number) * 2;
        let bound = |slot: usize| slots.get(slot).copied().flatten().map(NonMaxUsize::get);
        Some(bound(first)?..bound(first + 1)?)
    }

    /// Compiles what answers whether there is a match, if that has not been done.
    pub fn warm(&self) {
        self.search.get_or_init(|| self.compile());
    }

    /// Compiles what answers where the groups are, if that has not been done.
    fn warm_groups(&self) {
        self.groups.get_or_init(|| self.compile_groups());
    }

    fn compile(&self) -> Search {
        let Ok(hir) = parse(&self.text) else { return Search::Broken };
        let start = if self.anchored { StartKind::Anchored } else { StartKind::Unanchored };
        let limits = dense::Config::new()
            .start_kind(start)
            .dfa_size_limit(Some(DFA_BYTES))
            .determinize_size_limit(Some(8 * DFA_BYTES));
        let table = self
            .nfa(&hir, thompson::WhichCaptures::None)
            .and_then(|nfa| dense::Builder::new().configure(limits).build_from_nfa(&nfa).ok());
        if let Some(table) = table {
            let anchored = if self.anchored { Anchored::Yes } else { Anchored::No };
            return match Small::new(&table, anchored) {
                Some(small) => Search::Small(small),
                None => Search::Table(Box::new(table)),
            };
        }
        let config = meta::Config::new().utf8_empty(false).nfa_size_limit(None).onepass(false).dfa(false);
        match meta::Builder::new().configure(config).build_from_hir(&hir) {
            Ok(regex) => Search::Lazy(Box::new(regex)),
            Err(_) => Search::Broken,
        }
    }

    fn compile_groups(&self) -> Groups {
        let nfa = parse(&self.text).ok().and_then(|hir| self.nfa(&hir, thompson::WhichCaptures::All));
        let Some(nfa) = nfa else { return Groups::Broken };
        let limits = onepass::Config::new().size_limit(Some(DFA_BYTES));
        if self.anchored
            && let Ok(engine) = onepass::Builder::new().configure(limits).build_from_nfa(nfa.clone())
        {
            return Groups::OnePass(Box::new(engine));
        }
        match pikevm::PikeVM::new_from_nfa(nfa) {
            Ok(engine) => Groups::Pike(Box::new(engine)),
            Err(_) => Groups::Broken,
        }
    }

    fn nfa(&self, hir: &Hir, captures: thompson::WhichCaptures) -> Option<NFA> {
        let config = thompson::Config::new().utf8(false).which_captures(captures);
        thompson::Compiler::new().configure(config).build_from_hir(hir).ok()
    }
}

/// Reads a regex with ASCII classes, or with Unicode ones where it cannot be read otherwise.
fn parse(text: &str) -> Result<Hir, String> {
    let read = |unicode| {
        let mut builder = regex_syntax::ParserBuilder::new();
        let read = builder.unicode(unicode).utf8(false).nest_limit(DEEPEST).build().parse(text);
        read.map_err(|error| match error {
            regex_syntax::Error::Parse(error) => format!("this regex cannot be read: {}", error.kind()),
            regex_syntax::Error::Translate(error) => format!("this regex cannot be read: {}", error.kind()),
            _ => "this regex cannot be read".to_owned(),
        })
    };
    read(false).or_else(|_| read(true))
}

/// `^/api/v[0-9]` is `/api/v` and `[0-9]`. Only for the plainest texts: no alternative, that could be
/// one to the whole, and nothing before the literal.
fn split_text(text: &str) -> Option<(Vec<u8>, &str)> {
    let body = text.strip_prefix('^')?;
    if body.contains('|') {
        return None;
    }
    let bytes = body.as_bytes();
    let mut literal = Vec::new();
    let (mut at, mut before) = (0, 0);
    while let Some(&byte) = bytes.get(at) {
        let taken = match byte {
            b'\\' if bytes.get(at + 1).is_some_and(|next| b"/.-_~@:".contains(next)) => 2,
            _ if byte.is_ascii_alphanumeric() || b"/-_~@:,;=%&".contains(&byte) => 1,
            // The repetition belongs to what was just taken.
            b'*' | b'+' | b'?' | b'{' => {
                literal.pop()?;
                at = before;
                break;
            }
            _ => break,
        };
        literal.push(bytes[at + taken - 1]);
        before = at;
        at += taken;
    }
    Some((literal, &body[at..]))
}

/// The same from what was read.
fn split_hir(hir: &Hir) -> Option<(Box<[u8]>, Hir)> {
    let HirKind::Concat(parts) = hir.kind() else { return None };
    let [first, second, rest @ ..] = &**parts else { return None };
    match (first.kind(), second.kind()) {
        (HirKind::Look(Look::Start), HirKind::Literal(text)) => Some((text.0.clone(), Hir::concat(rest.to_vec()))),
        _ => None,
    }
}

impl Hints {
    fn new(hir: &Hir, anchored: bool) -> Hints {
        let mut extractor = literal::Extractor::new();
        extractor.limit_class(1).limit_repeat(1).limit_literal_len(64).limit_total(16);
        let all = |seq: literal::Seq| -> Box<[Box<[u8]>]> {
            let texts = seq.literals().unwrap_or_default().iter().map(|text| text.as_bytes().into());
            texts.collect()
        };
        let prefixes = if anchored { all(extractor.extract(hir)) } else { Box::default() };
        let suffixes = if hir.properties().look_set_suffix().contains(Look::End) {
            all(extractor.kind(literal::ExtractKind::Suffix).extract(hir))
        } else {
            Box::default()
        };
        Hints { prefixes, suffixes, inner: required(hir).map(Into::into) }
    }
}

/// The longest literal that is in every match.
fn required(hir: &Hir) -> Option<&[u8]> {
    match hir.kind() {
        HirKind::Literal(text) => Some(&text.0),
        HirKind::Capture(group) => required(&group.sub),
        HirKind::Repetition(repetition) if repetition.min > 0 => required(&repetition.sub),
        HirKind::Concat(parts) => parts.iter().filter_map(required).max_by_key(|text| text.len()),
        _ => None,
    }
}

/// About how many states the automaton has, without building it.
fn size(hir: &Hir) -> u64 {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => 1,
        HirKind::Literal(text) => text.0.len() as u64,
        HirKind::Class(Class::Bytes(_)) => 1,
        HirKind::Class(Class::Unicode(class)) => class.ranges().len() as u64 + 1,
        HirKind::Repetition(repetition) => {
            let times = repetition.max.unwrap_or(repetition.min.saturating_add(1)).max(1);
            size(&repetition.sub).saturating_mul(times.into())
        }
        HirKind::Capture(group) => size(&group.sub).saturating_add(2),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => {
            parts.iter().fold(1, |sum: u64, part| sum.saturating_add(size(part)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Regex {
        Pool::default().read(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn as_the_regex_crate() {
        let texts = [
            "",
            "/",
            "/p/42",
            "/p/",
            "/p/4x",
            "/pp/4",
            "/a.jpg",
            "/aXjpg",
            "/A.JPG",
            "a",
            "ab",
            "aab",
            "/p/42\n",
            "x/p/1",
            "/api/users/svc7/v1/items/12/items",
            "/api/users/svc7/v1/items/12",
            "/b",
            "foo bar",
            "foo",
            "/caf\u{e9}",
        ];
        for pattern in [
            r"^/p/(\d+)$",
            r"^/p*$",
            r"^/p+/",
            r"^/p?p/4",
            r"^/p{2}/4",
            r"\.jpg$",
            r"(?i)\.jpg$",
            r"^/a\.jpg$",
            r"^(?:/a|/b)",
            r"^/a|^/p",
            r"/a|^/p",
            r"^/api/users/svc7/v[0-9]+/[a-z]+/[0-9]+(/items)?$",
            r"^/api/(users|groups)/svc7/",
            r"^$",
            r"^",
            r"$",
            r"^a\b",
            r"\bbar",
            r"^foo\b.bar$",
            r"[^/]+$",
            r"^/[^/]*$",
            r"(?s).",
            r"^(?i)/P/4",
            r"^/p/(?x) 4 2 $",
            r"caf.",
            r"(?m)^$",
        ] {
            let ours = read(pattern);
            let theirs = regex::bytes::RegexBuilder::new(pattern).unicode(false).build().unwrap();
            for text in texts {
                let text = text.as_bytes();
                assert_eq!(
                    ours.is_match(text),
                    theirs.is_match(text),
                    "{pattern} on {:?}",
                    text.escape_ascii().to_string()
                );
                let groups = theirs.captures(text);
                for number in 0..4u8 {
                    let expected =
                        groups.as_ref().and_then(|groups| groups.get(number.into())).map(|group| group.range());
                    if number == 0 {
                        // The whole match begins behind the prefix; only its end is comparable.
                        let end = |range: Option<Range<usize>>| range.map(|range| range.end);
                        assert_eq!(end(ours.group(0, text)), end(expected), "{pattern}");
                    } else {
                        assert_eq!(ours.group(number, text), expected, "{pattern} group {number}");
                    }
                }
            }
        }
    }

    #[test]
    fn equal_tails_are_one() {
        let mut pool = Pool::default();
        let all: Vec<Regex> = (0..50).map(|i| pool.read(&format!("^/svc{i}/v[0-9]+(a|b)$")).unwrap()).collect();
        assert!(all.iter().all(|one| Arc::ptr_eq(&one.tail, &all[0].tail)));
        let all: Vec<Regex> = (0..50).map(|i| pool.read(&format!("^/svc{i}/v[0-9]+$")).unwrap()).collect();
        assert_eq!(&*all[7].prefix, b"/svc7/v");
        assert!(all[7].is_match(b"/svc7/v12") && !all[7].is_match(b"/svc8/v12"));
        assert_eq!(pool.finish().len(), 2);
    }

    #[test]
    fn unicode_where_it_is_asked_for() {
        assert!(read("^/[\u{e0}-\u{fc}]$").is_match("/\u{e9}".as_bytes()));
        assert!(read(r"\p{Greek}").is_match("x\u{3b1}".as_bytes()));
        assert!(!read(r"\d").is_match("\u{664}".as_bytes()));
        assert!(read(r"^.$").is_match(b"\xff"));
    }

    #[test]
    fn what_is_refused() {
        for (text, part) in [
            ("^/a(", "unclosed group"),
            ("[z-a]", "range"),
            (r"^(a)\1", "backreferences"),
            ("(?:a{1000}){1000}", "too large"),
            (r"\p{Nothing}", "Unicode property not found"),
        ] {
            let error = Pool::default().read(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn hints() {
        let texts =
            |all: &[Box<[u8]>]| all.iter().map(|text| String::from_utf8_lossy(text).into_owned()).collect::<Vec<_>>();
        let regex = read(r"^/(?:img|pic)/[0-9]+\.jpg$");
        assert_eq!(texts(&regex.tail.hints.prefixes), ["img/", "pic/"]);
        assert_eq!(texts(&regex.tail.hints.suffixes), [".jpg"]);
        assert_eq!(regex.tail.hints.inner.as_deref(), Some(&b".jpg"[..]));
        assert!(read(r"\.jpg").tail.hints.suffixes.is_empty());
        assert!(read(r"[a-z]+").tail.hints.inner.is_none());
    }

    #[test]
    fn long_repetitions_still_answer() {
        let regex = read(r"^/[ab]*a[ab]{60}$");
        let text = format!("/a{}", "b".repeat(60));
        assert!(regex.is_match(text.as_bytes()) && !regex.is_match(format!("{text}b").as_bytes()));
    }
}
