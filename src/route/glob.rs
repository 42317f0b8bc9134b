//! Globs over paths: `/img/**`, `/users/{who}`, `*.jpg`.
//!
//! A glob with a leading slash is anchored at both ends; without one it is matched against the last
//! segment. `*` is any run without a slash, the empty one included; `**` any run of whole segments,
//! none included, so that `/x/**` also takes `/x` and `/x/`; `{name}` one segment that is not empty.

use std::ops::Range;

use crate::model::rule::PathPolicy;

use super::path;
use super::text::Text;

/// The shapes nearly all globs have are matched by one comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Glob {
    /// `/a/b`.
    Exact(Text),
    /// `/a/b/**`, kept as `/a/b`.
    Under(Text),
    /// `robots.txt`: the last segment.
    Last(Text),
    /// `*.jpg`: the end of the last segment, kept as `.jpg`.
    LastEnd(Text),
    /// Any other, as it is written, its literals in the form that paths have.
    General(Text),
}

/// A glob taken apart, for whoever has to reason about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segments<'g> {
    /// Whether the whole path is meant, not its last segment.
    pub anchored: bool,
    pub parts: Vec<Segment<'g>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Segment<'g> {
    Literal(&'g str),
    /// Text with stars, the bare `*` included.
    Wild(&'g str),
    Capture(&'g str),
    /// `**`.
    Deep,
}

impl Glob {
    /// Reads a glob; literal text is brought into the form that paths have under `policy`.
    pub fn new(text: &str, policy: PathPolicy) -> Glob {
        let own = |part| match Segment::new(part) {
            Segment::Capture(_) => part.to_owned(),
            _ => path::literal(part, policy),
        };
        let text = text.split('/').map(own).collect::<Vec<_>>().join("/");
        let whole = Segments::new(&text);
        let plain = |parts: &[Segment<'_>]| parts.iter().all(|part| matches!(part, Segment::Literal(_)));
        match &*whole.parts {
            [Segment::Literal(_)] if !whole.anchored => Glob::Last((*text).into()),
            [Segment::Wild(only)] if !whole.anchored && only.starts_with('*') && !only[1..].contains('*') => {
                Glob::LastEnd(only[1..].into())
            }
            [head @ .., Segment::Deep] if whole.anchored && plain(head) => Glob::Under(text[..text.len() - 3].into()),
            all if whole.anchored && plain(all) => Glob::Exact((*text).into()),
            _ => Glob::General((*text).into()),
        }
    }

    #[inline]
    pub fn matches(&self, path: &str) -> bool {
        match self {
            Glob::Exact(text) => **text == *path.as_bytes(),
            Glob::Under(base) => match path.as_bytes().strip_prefix(&**base) {
                Some([]) => !base.is_empty(),
                Some([next, ..]) => *next == b'/',
                None => false,
            },
            Glob::Last(text) => last_segment(path).is_some_and(|last| **text == *last.as_bytes()),
            Glob::LastEnd(end) => last_segment(path).is_some_and(|last| last.as_bytes().ends_with(end)),
            Glob::General(text) => run(text, path.as_bytes(), |_, _| {}),
        }
    }

    /// Where `{name}` is in a path that this glob matches; `None` if it does not or has no such name.
    pub fn capture(&self, name: &str, path: &str) -> Option<Range<usize>> {
        let Glob::General(text) = self else {
            return None;
        };
        let mut found = None;
        // The last report of a segment is the one of the final alignment: one behind `**` that was
        // tried too early is tried again, and reported again.
        let matched = run(text, path.as_bytes(), |segment, range| {
            if let [b'{', own @ .., b'}'] = segment
                && own == name.as_bytes()
            {
                found = Some(range);
            }
        });
        if matched { found } else { None }
    }

    /// Whether `capture` can find anything.
    pub fn captures(&self) -> bool {
        self.with_segments(|all| all.parts.iter().any(|part| matches!(part, Segment::Capture(_))))
    }

    /// Whether every path that `narrow` takes is taken by this glob. Sound, not complete.
    pub fn covers(&self, narrow: &Glob) -> bool {
        self.with_segments(|wide| narrow.with_segments(|narrow| wide.covers(narrow)))
    }

    /// A path that this glob takes, with unlikely text where any would do.
    pub fn example(&self) -> String {
        self.with_segments(|all| {
            let mut path = String::new();
            for part in &all.parts {
                path.push('/');
                match part {
                    Segment::Literal(text) => path.push_str(text),
                    Segment::Wild(text) => path.push_str(&text.replace('*', "~0")),
                    Segment::Capture(_) | Segment::Deep => path.push_str("~1"),
                }
            }
            path
        })
    }

    /// Calls `look` with the segments of any of the shapes.
    pub fn with_segments<T>(&self, look: impl FnOnce(&Segments<'_>) -> T) -> T {
        let text = match self {
            Glob::Exact(text) | Glob::Last(text) | Glob::General(text) => text.as_str().to_owned(),
            Glob::Under(base) => format!("{}/**", base.as_str()),
            Glob::LastEnd(end) => format!("*{}", end.as_str()),
        };
        look(&Segments::new(&text))
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

impl<'g> Segments<'g> {
    fn new(text: &'g str) -> Segments<'g> {
        match text.strip_prefix('/') {
            Some(body) => Segments { anchored: true, parts: body.split('/').map(Segment::new).collect() },
            // It stands for one segment, in which `**` says the same as `*`.
            None => {
                let part = if text == "**" { Segment::Wild(text) } else { Segment::new(text) };
                Segments { anchored: false, parts: vec![part] }
            }
        }
    }

    fn covers(&self, narrow: &Segments<'_>) -> bool {
        match (self.anchored, narrow.anchored) {
            (true, true) => covers(&self.parts, &narrow.parts, &mut 1000),
            // Only one segment each, and a bare `**` says the same as `*`.
            (false, false) => match (self.parts.first(), narrow.parts.first()) {
                (Some(wide), Some(narrow)) => wide.covers(narrow),
                _ => false,
            },
            (false, true) => match (self.parts.first(), narrow.parts.last()) {
                (Some(wide), Some(narrow)) => *narrow != Segment::Deep && wide.covers(narrow),
                _ => false,
            },
            (true, false) => *self.parts == [Segment::Deep],
        }
    }
}

impl<'g> Segment<'g> {
    fn new(text: &'g str) -> Segment<'g> {
        match text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
            Some(name) => Segment::Capture(name),
            None if text == "**" => Segment::Deep,
            None if text.contains('*') => Segment::Wild(text),
            None => Segment::Literal(text),
        }
    }

    /// For single segments: `narrow` is not `**` unless both are bare.
    fn covers(&self, narrow: &Segment<'_>) -> bool {
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
fn covers(wide: &[Segment<'_>], narrow: &[Segment<'_>], steps: &mut u32) -> bool {
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

/// Matches a glob as it is written; reports each of its segments, as it takes one of the path, with
/// the place of that.
fn run<'g>(glob: &'g [u8], path: &[u8], mut report: impl FnMut(&'g [u8], Range<usize>)) -> bool {
    if path.first() != Some(&b'/') {
        return false;
    }
    if glob.first() != Some(&b'/') {
        let start = memchr::memrchr(b'/', path).map_or(0, |slash| slash + 1);
        report(glob, start..path.len());
        return takes(glob, &path[start..]);
    }
    // Where the segments that are looked at begin; `None` behind the last one.
    let (mut part, mut here) = (Some(1), Some(1));
    let mut retry: Option<(usize, usize)> = None;
    loop {
        if let Some(from) = part {
            let (to, next) = segment_end(glob, from);
            let wanted = &glob[from..to];
            if wanted == b"**" {
                let Some(after) = next else { return true };
                part = next;
                retry = here.map(|start| (after, start));
                continue;
            }
            if let Some(start) = here {
                let (end, behind) = segment_end(path, start);
                if takes(wanted, &path[start..end]) {
                    report(wanted, start..end);
                    (part, here) = (next, behind);
                    continue;
                }
            }
        } else if here.is_none() {
            return true;
        }
        // The last `**` takes one segment more; as in `wild`, only the last one needs to.
        let Some((after, from)) = retry else { return false };
        let Some(next) = segment_end(path, from).1 else { return false };
        retry = Some((after, next));
        (part, here) = (Some(after), Some(next));
    }
}

/// Whether a segment of a glob, `**` excepted, takes one of a path.
#[inline]
fn takes(glob: &[u8], segment: &[u8]) -> bool {
    match glob {
        [b'{', .., b'}'] => !segment.is_empty(),
        _ => wild(glob, segment),
    }
}

/// The end of the segment that begins at `start`, and the start of the one behind it.
fn segment_end(text: &[u8], start: usize) -> (usize, Option<usize>) {
    match memchr::memchr(b'/', &text[start..]) {
        Some(length) => (start + length, Some(start + length + 1)),
        None => (text.len(), None),
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

    fn one(part: &Segment<'_>, text: &str) -> bool {
        match part {
            Segment::Literal(own) => *own == text,
            Segment::Wild(own) => naive_wild(own.as_bytes(), text.as_bytes()),
            Segment::Capture(_) => !text.is_empty(),
            Segment::Deep => true,
        }
    }

    /// Says the same as the code above by plain recursion.
    fn naive(parts: &[Segment<'_>], path: &[&str]) -> bool {
        match parts.split_first() {
            None => path.is_empty(),
            Some((Segment::Deep, rest)) => (0..=path.len()).any(|skip| naive(rest, &path[skip..])),
            Some((part, rest)) => path.split_first().is_some_and(|(first, path)| one(part, first) && naive(rest, path)),
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
            let expected = glob.with_segments(|all| if all.anchored {
                naive(&all.parts, &path[1..].split('/').collect::<Vec<_>>())
            } else {
                one(&all.parts[0], path.rsplit('/').next().unwrap())
            });
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
