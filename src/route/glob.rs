//! Globs over paths: `/img/**`, `/users/{who}`, `*.jpg`.
//!
//! A glob with a leading slash is anchored at both ends; without one it is matched against the last
//! segment. `*` is any run without a slash, the empty one included; `**` any run of whole segments,
//! none included, so that `/x/**` also takes `/x` and `/x/`; `{name}` one segment that is not empty.

use std::ops::Range;

use crate::model::rule::PathPolicy;

use super::path;

/// The shapes nearly all globs have are matched by one comparison; `Segments` is the general one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Glob {
    /// `/a/b`.
    Exact(Box<str>),
    /// `/a/b/**`, kept as `/a/b`.
    Under(Box<str>),
    /// `robots.txt`: the last segment.
    Last(Box<str>),
    /// `*.jpg`: the end of the last segment, kept as `.jpg`.
    LastEnd(Box<str>),
    Segments(Box<Segments>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segments {
    /// Whether the whole path is meant, not its last segment.
    pub anchored: bool,
    pub parts: Box<[Segment]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Segment {
    Literal(Box<str>),
    /// Text with stars, the bare `*` included.
    Wild(Box<str>),
    Capture(Box<str>),
    /// `**`.
    Deep,
}

impl Glob {
    /// Reads a glob; literal text is brought into the form that paths have under `policy`.
    pub fn new(text: &str, policy: PathPolicy) -> Glob {
        let (anchored, body) = match text.strip_prefix('/') {
            Some(body) => (true, body),
            None => (false, text),
        };
        let parts: Box<[Segment]> = body.split('/').map(|part| segment(part, policy, anchored)).collect();
        match &*parts {
            [Segment::Literal(only)] if !anchored => return Glob::Last(only.clone()),
            [Segment::Wild(only)] if !anchored && only.starts_with('*') && !only[1..].contains('*') => {
                return Glob::LastEnd(only[1..].into());
            }
            [head @ .., last] if anchored => {
                let joined = || -> Option<String> {
                    head.iter().try_fold(String::new(), |text, part| match part {
                        Segment::Literal(part) => Some(text + "/" + part),
                        _ => None,
                    })
                };
                match (joined(), last) {
                    (Some(base), Segment::Deep) => return Glob::Under(base.into()),
                    (Some(base), Segment::Literal(last)) => return Glob::Exact((base + "/" + last).into()),
                    _ => {}
                }
            }
            _ => {}
        }
        Glob::Segments(Box::new(Segments { anchored, parts }))
    }

    #[inline]
    pub fn matches(&self, path: &str) -> bool {
        match self {
            Glob::Exact(text) => **text == *path,
            Glob::Under(base) => {
                let (path, base) = (path.as_bytes(), base.as_bytes());
                path.starts_with(base)
                    && (path.get(base.len()) == Some(&b'/') || path.len() == base.len() && !base.is_empty())
            }
            Glob::Last(text) => last_segment(path).is_some_and(|last| **text == *last),
            Glob::LastEnd(end) => last_segment(path).is_some_and(|last| last.ends_with(&**end)),
            Glob::Segments(segments) => segments.run(path, |_, _| {}),
        }
    }

    /// Where `{name}` is in a path that this glob matches; `None` if it does not or has no such name.
    pub fn capture(&self, name: &str, path: &str) -> Option<Range<usize>> {
        let Glob::Segments(segments) = self else {
            return None;
        };
        let wanted = segments.parts.iter().position(|part| matches!(part, Segment::Capture(own) if **own == *name))?;
        let mut found = None;
        // The last report of a part is the one of the final alignment: a part behind `**` that was
        // tried too early is tried again, and reported again.
        let matched = segments.run(path, |part, range| {
            if part == wanted {
                found = Some(range);
            }
        });
        if matched { found } else { None }
    }

    /// Whether every path that `narrow` takes is taken by this glob. Sound, not complete.
    pub fn covers(&self, narrow: &Glob) -> bool {
        let (wide, narrow) = (self.general(), narrow.general());
        match (wide.anchored, narrow.anchored) {
            (true, true) => covers(&wide.parts, &narrow.parts, &mut 1000),
            // Only one segment each, and a bare `**` says the same as `*`.
            (false, false) => match (wide.parts.first(), narrow.parts.first()) {
                (Some(wide), Some(narrow)) => wide.covers(narrow),
                _ => false,
            },
            (false, true) => match (wide.parts.first(), narrow.parts.last()) {
                (Some(wide), Some(narrow)) => *narrow != Segment::Deep && wide.covers(narrow),
                _ => false,
            },
            (true, false) => *wide.parts == [Segment::Deep],
        }
    }

    /// A path that this glob takes, with unlikely text where any would do.
    pub fn example(&self) -> String {
        let general = self.general();
        let mut path = String::new();
        for part in &general.parts {
            path.push('/');
            match part {
                Segment::Literal(text) => path.push_str(text),
                Segment::Wild(text) => path.push_str(&text.replace('*', "~0")),
                Segment::Capture(_) | Segment::Deep => path.push_str("~1"),
            }
        }
        path
    }

    /// The general form of any of them.
    pub fn general(&self) -> Segments {
        let literals =
            |text: &str| text.split('/').skip(1).map(|part| Segment::Literal(part.into())).collect::<Vec<_>>();
        let (anchored, parts) = match self {
            Glob::Exact(text) => (true, literals(text)),
            Glob::Under(base) => (true, literals(base).into_iter().chain([Segment::Deep]).collect()),
            Glob::Last(text) => (false, vec![Segment::Literal(text.clone())]),
            Glob::LastEnd(end) => (false, vec![Segment::Wild(format!("*{end}").into())]),
            Glob::Segments(segments) => return (**segments).clone(),
        };
        Segments { anchored, parts: parts.into() }
    }
}

/// What stands behind the last slash. Nothing in `*`, the target of a request for the server itself.
#[inline]
pub(super) fn last_segment(path: &str) -> Option<&str> {
    if !path.starts_with('/') {
        return None;
    }
    memchr::memrchr(b'/', path.as_bytes()).and_then(|at| path.get(at + 1..))
}

fn segment(text: &str, policy: PathPolicy, anchored: bool) -> Segment {
    if text == "**" && anchored {
        return Segment::Deep;
    }
    if let Some(name) = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
        return Segment::Capture(name.into());
    }
    let text: Box<str> = path::literal(text, policy).into();
    if text.contains('*') { Segment::Wild(text) } else { Segment::Literal(text) }
}

impl Segment {
    fn takes(&self, text: &str) -> bool {
        match self {
            Segment::Literal(own) => **own == *text,
            Segment::Wild(own) => wild(own.as_bytes(), text.as_bytes()),
            Segment::Capture(_) => !text.is_empty(),
            Segment::Deep => true,
        }
    }

    /// For single segments: `narrow` is not `**` unless both are bare.
    fn covers(&self, narrow: &Segment) -> bool {
        match (self, narrow) {
            (Segment::Deep, _) => true,
            (Segment::Literal(wide), Segment::Literal(narrow)) => wide == narrow,
            (Segment::Wild(wide), Segment::Literal(narrow)) => wild(wide.as_bytes(), narrow.as_bytes()),
            // A star of the narrow one can only be swallowed by a star, as `wild` has it: to it, the
            // star is a byte that no literal contains.
            (Segment::Wild(wide), Segment::Wild(narrow)) => wild(wide.as_bytes(), narrow.as_bytes()),
            (Segment::Wild(wide), Segment::Capture(_)) => wide.bytes().all(|byte| byte == b'*'),
            (Segment::Capture(_), Segment::Capture(_)) => true,
            (Segment::Capture(_), Segment::Literal(narrow)) => !narrow.is_empty(),
            (Segment::Capture(_), Segment::Wild(narrow)) => narrow.bytes().any(|byte| byte != b'*'),
            (_, Segment::Deep) | (Segment::Literal(_), _) => false,
        }
    }
}

/// Whether `text` is `pattern` with each `*` standing for any run without a slash.
pub(super) fn wild(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut retry = None;
    loop {
        if pattern.get(p) == Some(&b'*') {
            retry = Some((p + 1, t));
            p += 1;
        } else if t < text.len() && pattern.get(p) == Some(&text[t]) {
            p += 1;
            t += 1;
        } else if t == text.len() && p == pattern.len() {
            return true;
        } else {
            // The last star takes one byte more. Only it: an earlier one that took more could not
            // make what is between the two easier to find.
            let Some((after, from)) = retry else { return false };
            if from >= text.len() || text[from] == b'/' {
                return false;
            }
            retry = Some((after, from + 1));
            (p, t) = (after, from + 1);
        }
    }
}

/// Whether the segments of `wide` take all that `narrow` takes, within a number of steps.
fn covers(wide: &[Segment], narrow: &[Segment], steps: &mut u32) -> bool {
    if *steps == 0 {
        return false;
    }
    *steps -= 1;
    match (wide, narrow) {
        ([], []) => true,
        ([Segment::Deep], _) => true,
        ([Segment::Deep, after @ ..], _) => {
            covers(after, narrow, steps) || narrow.split_first().is_some_and(|(_, narrow)| covers(wide, narrow, steps))
        }
        ([first, wide @ ..], [other, narrow @ ..]) => {
            *other != Segment::Deep && first.covers(other) && covers(wide, narrow, steps)
        }
        _ => false,
    }
}

impl Segments {
    /// Matches, and reports the span of each part's segment as it is tried successfully.
    fn run(&self, path: &str, mut report: impl FnMut(usize, Range<usize>)) -> bool {
        if !self.anchored {
            let (Some(last), Some(part)) = (last_segment(path), self.parts.first()) else {
                return false;
            };
            report(0, path.len() - last.len()..path.len());
            return part.takes(last);
        }
        if !path.starts_with('/') {
            return false;
        }
        // Where the segment that is looked at begins; `None` behind the last one.
        let mut here = Some(1);
        let mut part = 0;
        let mut retry: Option<(usize, usize)> = None;
        loop {
            match self.parts.get(part) {
                Some(Segment::Deep) => {
                    part += 1;
                    if part == self.parts.len() {
                        return true;
                    }
                    match here {
                        Some(start) => retry = Some((part, start)),
                        None => retry = None,
                    }
                    continue;
                }
                Some(wanted) => {
                    if let Some(start) = here {
                        let (end, next) = segment_end(path, start);
                        if wanted.takes(&path[start..end]) {
                            report(part, start..end);
                            part += 1;
                            here = next;
                            continue;
                        }
                    }
                }
                None if here.is_none() => return true,
                None => {}
            }
            // The last `**` takes one segment more; as in `wild`, only the last one needs to.
            let Some((after, from)) = retry else { return false };
            let Some(next) = segment_end(path, from).1 else { return false };
            retry = Some((after, next));
            (part, here) = (after, Some(next));
        }
    }
}

/// The end of the segment that begins at `start`, and the start of the one behind it.
fn segment_end(path: &str, start: usize) -> (usize, Option<usize>) {
    match memchr::memchr(b'/', &path.as_bytes()[start..]) {
        Some(length) => (start + length, Some(start + length + 1)),
        None => (path.len(), None),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn glob(text: &str) -> Glob {
        Glob::new(text, PathPolicy::Safe)
    }

    #[test]
    fn facts() {
        for (pattern, taken, refused) in [
            ("/a/b", &["/a/b"][..], &["/a/b/", "/a", "/a/bc", "a/b", "*"][..]),
            ("/", &["/"], &["", "//", "/a", "*"]),
            ("/x/**", &["/x", "/x/", "/x/y", "/x//y/z"], &["/xy", "/", "/y/x"]),
            ("/**", &["/", "/a", "/a/b", "//"], &["*", "", "a"]),
            ("*.jpg", &["/a.jpg", "/b/c/.jpg", "/x/a.b.jpg"], &["/a.jpg/", "/a.jpeg", "/a.JPG", "a.jpg"]),
            ("robots.txt", &["/robots.txt", "/a/robots.txt"], &["/robots.txt/", "/xrobots.txt"]),
            ("/img/*", &["/img/", "/img/a"], &["/img", "/img/a/b"]),
            ("/a/*/c", &["/a/b/c", "/a//c"], &["/a/c", "/a/b/b/c"]),
            ("/a/**/c", &["/a/c", "/a/b/c", "/a/b/b/c", "/a/c/c"], &["/a", "/a/cc", "/a/c/"]),
            ("/**/b/*.x", &["/b/.x", "/a/b/1.x", "/b/b/1.x"], &["/a/1.x", "/b/a/1.x"]),
            ("/users/{who}/**", &["/users/joe", "/users/joe/", "/users/joe/a/b"], &["/users", "/users/", "/users//a"]),
            ("/v*.*/x", &["/v1.2/x", "/v./x"], &["/v12/x", "/v1/.2/x"]),
            ("thumb-*-s.png", &["/t/thumb-1-s.png"], &["/t/thumb-s.png", "/thumb-1-s.png/x"]),
            ("/caf\u{e9}/%7ex", &["/caf%C3%A9/~x"], &["/cafe/~x"]),
        ] {
            for path in taken {
                assert!(glob(pattern).matches(path), "{pattern} takes {path}");
            }
            for path in refused {
                assert!(!glob(pattern).matches(path), "{pattern} refuses {path}");
            }
        }
    }

    #[test]
    fn captures() {
        let capture = |pattern, name, path: &str| glob(pattern).capture(name, path).map(|range| path[range].to_owned());
        assert_eq!(capture("/users/{who}/**", "who", "/users/joe/a"), Some("joe".into()));
        assert_eq!(capture("/users/{who}/**", "other", "/users/joe/a"), None);
        assert_eq!(capture("/users/{who}", "who", "/users/joe/a"), None);
        assert_eq!(capture("/**/x/{a}/{b}", "a", "/x/x/1/x/2/3"), Some("2".into()));
        assert_eq!(capture("{file}", "file", "/a/b.txt"), Some("b.txt".into()));
    }

    #[test]
    fn cover_facts() {
        for (wide, narrow, expected) in [
            ("/img/**", "/img/a/**", true),
            ("/img/**", "/img", true),
            ("/img/**", "/img/*.png", true),
            ("/img/*", "/img/{x}", true),
            ("/img/{x}", "/img/*", false),
            ("/img/{x}", "/img/*.png", true),
            ("*.png", "/img/*.png", true),
            ("*.png", "/img/**", false),
            ("*.png", "*-s.png", true),
            ("*-s.png", "*.png", false),
            ("/**", "*.png", true),
            ("/a/**/z", "/a/**/b/z", true),
            ("/a/**/b/z", "/a/**/z", false),
            ("/a/b", "/a/**", false),
            ("*", "/a/**", false),
            ("*", "/a", true),
        ] {
            assert_eq!(glob(wide).covers(&glob(narrow)), expected, "{wide} covers {narrow}");
        }
    }

    /// Says the same as the code above by plain recursion.
    fn naive(parts: &[Segment], path: &[&str]) -> bool {
        match parts.split_first() {
            None => path.is_empty(),
            Some((Segment::Deep, rest)) => (0..=path.len()).any(|skip| naive(rest, &path[skip..])),
            Some((part, rest)) => {
                path.split_first().is_some_and(|(first, path)| part.takes(first) && naive(rest, path))
            }
        }
    }

    fn naive_wild(pattern: &[u8], text: &[u8]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some((b'*', rest)) => (0..=text.len()).any(|skip| naive_wild(rest, &text[skip..])),
            Some((byte, rest)) => {
                text.split_first().is_some_and(|(first, text)| first == byte && naive_wild(rest, text))
            }
        }
    }

    fn globs() -> impl Strategy<Value = String> {
        let part =
            prop_oneof![Just("a"), Just("b"), Just("*"), Just("**"), Just("{x}"), Just("a*"), Just("*b*"), Just("")];
        let anchored = prop::collection::vec(part.clone(), 1..5).prop_map(|parts| format!("/{}", parts.join("/")));
        prop_oneof![4 => anchored, 1 => part.prop_filter("not empty", |part| !part.is_empty()).prop_map(str::to_owned)]
    }

    fn paths() -> impl Strategy<Value = String> {
        let part = prop_oneof![Just("a"), Just("b"), Just("ab"), Just("bab"), Just("")];
        prop::collection::vec(part, 1..6).prop_map(|parts| format!("/{}", parts.join("/")))
    }

    proptest! {
        #[test]
        fn as_the_naive_matcher(pattern in globs(), path in paths()) {
            let glob = glob(&pattern);
            let general = glob.general();
            let expected = if general.anchored {
                naive(&general.parts, &path[1..].split('/').collect::<Vec<_>>())
            } else {
                general.parts[0].takes(path.rsplit('/').next().unwrap())
            };
            prop_assert_eq!(glob.matches(&path), expected, "{} on {}", pattern, path);
        }

        #[test]
        fn wild_as_the_naive_one(pattern in "[ab*]{0,6}", text in "[ab]{0,8}") {
            prop_assert_eq!(wild(pattern.as_bytes(), text.as_bytes()), naive_wild(pattern.as_bytes(), text.as_bytes()));
        }

        #[test]
        fn covers_is_sound(wide in globs(), narrow in globs(), path in paths()) {
            let (wide, narrow) = (glob(&wide), glob(&narrow));
            if wide.covers(&narrow) && narrow.matches(&path) {
                prop_assert!(wide.matches(&path));
            }
        }

        #[test]
        fn examples_are_taken(pattern in globs()) {
            let glob = glob(&pattern);
            prop_assert!(glob.matches(&glob.example()), "{} takes {}", pattern, glob.example());
        }
    }
}
