//! Values of a message by name: the keys of consistent hashing, and the holes of templates.

use std::fmt::Write;
use std::net::IpAddr;

use crate::model::rule::{Key, Target, Template, TemplatePart};

use super::Rule;
use super::condition::PathPattern;
use super::hash::hash;
use super::head::{Head, Scratch};
use super::path;
use super::refined::IN_PATH;

/// Which pool the target of `rule` names, by its position in `Config::pools`. `dice` gives 0 to 9,999 and is
/// only called for a split. `None` for a map that has no answer.
pub fn pool(target: &Target, head: &Head<'_>, rule: &Rule, dice: &mut dyn FnMut() -> u32) -> Option<usize> {
    match target {
        Target::Pool(pool) => Some(*pool),
        Target::Split { shares, otherwise } => {
            let mut roll = dice();
            for (pool, share) in shares {
                if roll < *share {
                    return Some(*pool);
                }
                roll -= share;
            }
            Some(*otherwise)
        }
        Target::Map { key, otherwise, .. } => {
            let map = rule.rest.map.as_ref()?;
            value(key, Some(rule), head, |value| map.find(value)).flatten().or(*otherwise)
        }
    }
}

/// A hash of a key's value that is the same in every process and after every restart. `rule` is the
/// one that matched; captures and groups are its. `None` if the message has no such value.
pub fn key_hash(key: &Key, rule: Option<&Rule>, head: &Head<'_>) -> Option<u64> {
    if let Key::Source = key {
        return Some(match head.source.to_canonical() {
            IpAddr::V4(address) => hash(0, &address.octets()),
            IpAddr::V6(address) => hash(0, &address.octets()),
        });
    }
    with_value(key, rule, head, |value| hash(0, value))
}

/// A key's value as text.
pub fn key_text(key: &Key, rule: Option<&Rule>, head: &Head<'_>) -> Option<String> {
    value(key, rule, head, |value| String::from_utf8_lossy(value).into_owned())
}

/// Calls `then` with a key's value, an address in its usual form. `None` if the message has no such value.
pub fn value<T>(key: &Key, rule: Option<&Rule>, head: &Head<'_>, then: impl FnOnce(&[u8]) -> T) -> Option<T> {
    if let Key::Source = key {
        let mut text = Line(Scratch::new());
        // Writing to it cannot fail.
        let _ = write!(text, "{}", head.source.to_canonical());
        return Some(then(&text.0));
    }
    with_value(key, rule, head, then)
}

/// Takes what is formatted without allocating.
struct Line(Scratch);

impl std::fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

fn with_value<T>(key: &Key, rule: Option<&Rule>, head: &Head<'_>, then: impl FnOnce(&[u8]) -> T) -> Option<T> {
    match key {
        Key::Path => Some(then(head.path.as_bytes())),
        Key::Host => Some(then(head.host.as_bytes())),
        Key::Url if head.query.is_empty() => Some(then(head.path.as_bytes())),
        Key::Url => {
            let mut url = Scratch::from_slice(head.path.as_bytes());
            url.push(b'?');
            url.extend_from_slice(head.query.as_bytes());
            Some(then(&url))
        }
        Key::Capture(name) => Some(then(rule?.capture(name, head)?.as_bytes())),
        Key::Group(number) => Some(then(rule?.group(*number, head)?.as_bytes())),
        Key::Header(name) => head.values(name).next().map(then),
        Key::Cookie(name) => head.cookie(name).next().map(then),
        Key::Query(name) => {
            let mut then = Some(then);
            let mut result = None;
            head.parameter(name.as_bytes(), |value| {
                result = then.take().map(|then| then(value));
                true
            });
            result
        }
        // The callers have answered it.
        Key::Source => None,
    }
}

/// Appends a template to `out`, its holes filled with what `rule` captured. `encode` makes them fit
/// for a redirect's target: what may not stand in a path is percent-encoded, and captures cannot
/// turn `/$1` or `$1` into the `//host` of another site.
pub fn expand(template: &Template, rule: &Rule, head: &Head<'_>, encode: bool, out: &mut Vec<u8>) {
    let start = out.len();
    for part in &template.parts {
        let value = match part {
            TemplatePart::Text(text) => {
                out.extend_from_slice(text.as_bytes());
                continue;
            }
            TemplatePart::Group(number) => rule.group(*number, head),
            TemplatePart::Capture(name) => rule.capture(name, head),
            TemplatePart::Path => Some(head.path),
            TemplatePart::Host => Some(head.host),
        };
        let value = value.unwrap_or_default();
        // A host has been parsed as one.
        if !encode || *part == TemplatePart::Host {
            out.extend_from_slice(value.as_bytes());
            continue;
        }
        path::encode(value.as_bytes(), IN_PATH, &mut |byte| out.push(byte));
    }
    let meant = matches!(template.parts.first(), Some(TemplatePart::Text(text)) if text.starts_with("//"));
    if encode && !meant && out[start..].starts_with(b"//") {
        out.splice(start + 1..start + 2, *b"%2F");
    }
}

/// The Location of a redirect by `rule`: the query goes along unless the target has one of its own. `None`: it is to
/// the client's host, and an HTTP/1.0 client did not name one.
pub fn location(to: &Template, rule: &Rule, head: &Head<'_>) -> Option<Vec<u8>> {
    if head.host.is_empty() && to.parts.contains(&TemplatePart::Host) {
        return None;
    }
    let mut location = Vec::new();
    expand(to, rule, head, true, &mut location);
    if !head.query.is_empty() && !location.contains(&b'?') {
        location.push(b'?');
        location.extend_from_slice(head.query.as_bytes());
    }
    Some(location)
}

impl Rule {
    /// What `{name}` of the path glob that matched stands for.
    pub(super) fn capture<'h>(&self, name: &str, head: &Head<'h>) -> Option<&'h str> {
        self.rest.patterns.iter().find_map(|pattern| match pattern {
            PathPattern::Glob(glob) => glob.capture(name, head.path).and_then(|range| head.path.get(range)),
            PathPattern::Regex(_) => None,
        })
    }

    /// What group `$number` of the path regex that matched stands for.
    pub(super) fn group<'h>(&self, number: u8, head: &Head<'h>) -> Option<&'h str> {
        self.rest.patterns.iter().find_map(|pattern| match pattern {
            PathPattern::Regex(regex) => {
                regex.group(number, head.path.as_bytes()).and_then(|range| head.path.get(range))
            }
            PathPattern::Glob(_) => None,
        })
    }
}
