//! The order of locations: which one nginx takes, as a list of which the first that matches is taken.
//!
//! An exact location is taken at once. Else the longest prefix is found, and inside it its nested locations; then the
//! regexes in their order, unless that prefix is `^~`; then the prefix. So, from the top:
//!
//! ```text
//!    exact  ->  nested exact and regex of each prefix, in its own region  ->  ^~ prefixes, in theirs
//!           ->  regexes in order, their nested first  ->  prefixes, the longest first, their nested before them
//! ```
//!
//! The region of a prefix are the paths that begin with it and with no longer prefix of the same block.

use std::collections::HashSet;

use super::tree::Directive;
use crate::app::import::site::{Account, Test};
use crate::app::import::words;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Exact,
    Prefix,
    /// `^~`: no regex is asked.
    Firm,
    Regex,
}

#[derive(Debug)]
pub struct Location<'a> {
    pub kind: Kind,
    /// The path, or the regex with `(?i)` where case does not count.
    pub text: String,
    pub directive: &'a Directive,
    pub nested: Vec<Location<'a>>,
}

/// A location that is taken where all tests hold; the outermost of the blocks it is in first.
#[derive(Debug)]
pub struct Decision<'l, 'a> {
    pub tests: Vec<Test>,
    pub chain: Vec<&'l Location<'a>>,
    /// nginx sends the client to the path with a slash.
    pub slash: bool,
}

/// The locations of a block; named ones are for `error_page` and `try_files` alone.
pub fn read<'a>(body: &'a [Directive], account: &mut Account) -> Vec<Location<'a>> {
    let mut found = Vec::new();
    for directive in body.iter().filter(|directive| directive.name == "location") {
        let (kind, text) = match (directive.arg(0), directive.arg(1)) {
            ("=", path) => (Kind::Exact, path.to_owned()),
            ("^~", path) => (Kind::Firm, path.to_owned()),
            ("~", regex) => (Kind::Regex, regex.to_owned()),
            ("~*", regex) => (Kind::Regex, format!("(?i){regex}")),
            (name, _) if name.starts_with('@') => continue,
            (path, _) => match path.strip_prefix("~*").map(|regex| (Kind::Regex, format!("(?i){regex}"))) {
                Some(found) => found,
                None => match (path.strip_prefix('~'), path.strip_prefix('='), path.strip_prefix("^~")) {
                    (Some(regex), ..) => (Kind::Regex, regex.to_owned()),
                    (_, Some(path), _) => (Kind::Exact, path.to_owned()),
                    (.., Some(path)) => (Kind::Firm, path.to_owned()),
                    _ => (Kind::Prefix, path.to_owned()),
                },
            },
        };
        account.done(directive.item);
        found.push(Location { kind, text, directive, nested: read(directive.body(), account) });
    }
    found
}

/// All locations of a server, in the order of the drawing.
pub fn order<'l, 'a>(locations: &'l [Location<'a>]) -> Vec<Decision<'l, 'a>> {
    let block = Block { locations, base: &[], above: &[], top: true };
    let mut all = block.at_once();
    all.extend(block.at_last());
    all
}

struct Block<'b, 'l, 'a> {
    locations: &'l [Location<'a>],
    base: &'b [Test],
    above: &'b [&'l Location<'a>],
    top: bool,
}

impl<'l, 'a> Block<'_, 'l, 'a> {
    fn prefixes(&self) -> Vec<&'l Location<'a>> {
        let mut all: Vec<_> =
            self.locations.iter().filter(|one| matches!(one.kind, Kind::Prefix | Kind::Firm)).collect();
        all.sort_by_key(|one| std::cmp::Reverse(one.text.len()));
        all
    }

    fn of(&self, kind: Kind) -> impl Iterator<Item = &'l Location<'a>> {
        self.locations.iter().filter(move |one| one.kind == kind)
    }

    fn decision(&self, one: &'l Location<'a>, more: impl IntoIterator<Item = Test>) -> Decision<'l, 'a> {
        let mut chain = self.above.to_vec();
        chain.push(one);
        Decision { tests: self.tests(more), chain, slash: false }
    }

    fn tests(&self, more: impl IntoIterator<Item = Test>) -> Vec<Test> {
        let mut tests = self.base.to_vec();
        for test in more {
            if !tests.contains(&test) {
                tests.push(test);
            }
        }
        tests
    }

    /// Calls `look` with the block nested in `one`, below these tests.
    fn nested<T>(&self, one: &'l Location<'a>, tests: &[Test], look: impl Fn(&Block<'_, 'l, 'a>) -> T) -> T {
        let mut above = self.above.to_vec();
        above.push(one);
        look(&Block { locations: &one.nested, base: tests, above: &above, top: false })
    }

    /// What is taken without asking the block outside.
    fn at_once(&self) -> Vec<Decision<'l, 'a>> {
        let prefixes = self.prefixes();
        let regexes = self.of(Kind::Regex).next().is_some();
        let mut all: Vec<Decision<'l, 'a>> =
            self.of(Kind::Exact).map(|one| self.decision(one, [words::path_is(&one.text)])).collect();
        let plain: HashSet<&str> =
            self.locations.iter().filter(|other| other.kind != Kind::Regex).map(|other| other.text.as_str()).collect();
        for one in prefixes.iter().filter(|one| redirects(one)) {
            let bare = one.text.trim_end_matches('/');
            if !plain.contains(bare) && one.text.len() == bare.len() + 1 && !bare.is_empty() {
                all.push(Decision { slash: true, ..self.decision(one, [words::path_is(bare)]) });
            }
        }
        for one in prefixes.iter().filter(|one| !one.nested.is_empty()) {
            let tests = self.tests(region(one, &prefixes, |_| true));
            all.extend(self.nested(one, &tests, |block| block.at_once()));
        }
        let firm: Vec<_> = prefixes.iter().copied().filter(|one| one.kind == Kind::Firm && regexes).collect();
        if self.top {
            for one in &firm {
                let tests = self.tests(region(one, &prefixes, |other| other.kind == Kind::Prefix));
                all.extend(self.nested(one, &tests, |block| block.at_last()));
                all.push(self.decision(one, tests));
            }
        }
        // In a nested block what is `^~` goes on to the regexes outside, so that it is only kept from those here.
        let kept: Vec<Test> = if self.top { Vec::new() } else { firm.iter().flat_map(|one| begins(one)).collect() };
        for one in self.of(Kind::Regex) {
            let own = Test::new("path", words::regex(&one.text));
            let tests = self.tests(std::iter::once(own).chain(kept.iter().map(Test::not)));
            all.extend(self.nested(one, &tests, |block| {
                let mut all = block.at_once();
                all.extend(block.at_last());
                all
            }));
            all.push(self.decision(one, tests));
        }
        all
    }

    /// What is taken where nothing of the block outside is.
    fn at_last(&self) -> Vec<Decision<'l, 'a>> {
        let mut all = Vec::new();
        let prefixes = self.prefixes();
        let regexes = self.of(Kind::Regex).next().is_some();
        for one in prefixes {
            if self.top && regexes && one.kind == Kind::Firm {
                continue;
            }
            let tests = self.tests(begins(one));
            all.extend(self.nested(one, &tests, |block| block.at_last()));
            all.push(self.decision(one, tests));
        }
        all
    }
}

/// The test that a path begins so; none for `/`.
fn begins(one: &Location<'_>) -> Option<Test> {
    match one.text.as_str() {
        "/" | "" => None,
        // What lacks the slash has been sent to it before.
        text if redirects(one) && text.ends_with('/') && words::exact(text) == text => {
            Some(Test::new("path", format!("{text}**")))
        }
        text => Some(words::path_begins(text)),
    }
}

fn region<'l, 'a>(
    one: &'l Location<'a>,
    prefixes: &[&'l Location<'a>],
    counts: impl Fn(&Location<'a>) -> bool,
) -> Vec<Test> {
    let mut tests: Vec<Test> = begins(one).into_iter().collect();
    // From the shortest: what begins with one that is named has not to be named itself.
    let mut named: Vec<&str> = Vec::new();
    for other in prefixes.iter().rev() {
        let longer = other.text.len() > one.text.len() && other.text.starts_with(&one.text) && counts(other);
        if longer && !named.iter().any(|less| other.text.starts_with(less)) {
            named.push(&other.text);
            tests.extend(begins(other).map(|test| test.not()));
        }
    }
    tests
}

/// Whether a request for `/img` is answered with a redirect to the location `/img/`.
fn redirects(one: &Location<'_>) -> bool {
    let passes = |directive: &Directive| {
        matches!(
            directive.name.as_str(),
            "proxy_pass" | "grpc_pass" | "fastcgi_pass" | "uwsgi_pass" | "scgi_pass" | "memcached_pass"
        )
    };
    one.text.ends_with('/') && one.directive.body().iter().any(passes)
}
