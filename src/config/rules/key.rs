//! Keys (`by`, `of`, `per`) and templates: texts that take values from the request.

use std::sync::Arc;

use super::cursor::{Cursor, Parsed};
use super::draft::{Draft, Hole, USES};
use super::lexer::{Token, TokenKind};
use super::pattern::is_name;
use super::scope::Scope;
use crate::config::closest::closest;
use crate::config::is_token;
use crate::model::Fault;
use crate::model::rule::{Key, Kind, Template, TemplatePart};

const KEYS: [&str; 9] = ["path", "host", "source", "url", "{NAME}", "$1", "header:NAME", "cookie:NAME", "query:NAME"];

/// Reads a key as `by` takes it: `path`, `{name}`, `$1`, `header:x-user`. Header names become lower case.
pub fn parse_key(text: &str) -> Option<Key> {
    match text {
        "path" => return Some(Key::Path),
        "host" => return Some(Key::Host),
        "source" => return Some(Key::Source),
        "url" => return Some(Key::Url),
        _ => {}
    }
    if let Some(name) = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
        return is_name(name).then(|| Key::Capture(name.into()));
    }
    if let Some(digit) = text.strip_prefix('$') {
        return group(digit.as_bytes()).filter(|_| digit.len() == 1).map(Key::Group);
    }
    match text.split_once(':')? {
        ("header", name) if is_token(name) => Some(Key::Header(name.to_ascii_lowercase().into())),
        ("cookie", name) if is_token(name) => Some(Key::Cookie(name.into())),
        ("query", name) if !name.is_empty() => Some(Key::Query(name.into())),
        _ => None,
    }
}

/// A key on a rule's line; `before` is the word it stands behind (`by`, `of`, `per`).
pub(super) fn key(
    cursor: &mut Cursor<'_, '_>,
    draft: &mut Draft,
    scope: &mut Scope<'_, '_>,
    before: &str,
) -> Parsed<Key> {
    let Some(token) = cursor.peek().filter(|token| !token.is_operator()) else {
        let fault = Fault::error("R0234", cursor.here(), format!("`{before}` needs a key"));
        return Err(Box::new(fault.allowed(KEYS)));
    };
    cursor.next();
    let Some(key) = (token.kind == TokenKind::Word).then(|| parse_key(token.raw)).flatten() else {
        return Err(Box::new(wrong_key(token, cursor)));
    };
    let hole = match &key {
        Key::Capture(name) => Some(Hole::Name(name.clone())),
        Key::Group(number) => Some(Hole::Group(*number)),
        _ => None,
    };
    if let Some(hole) = hole {
        draft.uses.push((hole, cursor.place(token)));
    }
    if draft.kind == Kind::Tcp && !matches!(key, Key::Source | Key::Host) {
        let fault = Fault::error(
            "R0234",
            cursor.place(token),
            format!("a tcp section knows no `{key}`: the bytes stay sealed"),
        );
        scope.tell(fault.allowed(["source", "host"]));
        draft.failed = true;
    }
    Ok(key)
}

fn wrong_key(token: &Token<'_>, cursor: &mut Cursor<'_, '_>) -> Fault {
    let value = token.value.as_ref();
    // `by header x-user`: two words where one is meant.
    let next = cursor.peek().filter(|next| next.kind == TokenKind::Word && is_token(next.raw));
    if let Some(next) = next.filter(|_| matches!(value.trim_end_matches(':'), "header" | "cookie" | "query")) {
        let place = cursor.span(token, next);
        let fault = Fault::error("R0234", place, "a key is one word");
        return fault.did_you_mean(format!("{}:{}", value.trim_end_matches(':'), next.raw));
    }
    let fault = Fault::error("R0234", cursor.place(token), format!("`{value}` is no key")).allowed(KEYS);
    if matches!(value.trim_end_matches(':'), "header" | "cookie" | "query") {
        return fault.help(format!("name it: {}:NAME", value.trim_end_matches(':')));
    }
    let small = value.to_ascii_lowercase();
    if is_name(&small) && small == value {
        return match closest(value, ["path", "host", "source", "url"]) {
            Some(near) => fault.did_you_mean(near),
            None => fault.help(format!("a capture is written {{{value}}}")),
        };
    }
    let named =
        value.split_once(':').and_then(|(kind, name)| Some((closest(kind, ["header", "cookie", "query"])?, name)));
    match named {
        Some((near, name)) if is_token(name) => fault.did_you_mean(format!("{near}:{name}")),
        _ if parse_key(&small).is_some() => fault.did_you_mean(small),
        _ => fault,
    }
}

fn group(bytes: &[u8]) -> Option<u8> {
    bytes.first().filter(|b| (b'1'..=b'9').contains(b)).map(|b| b - b'0')
}

/// Text with holes. A brace or dollar that begins no hole stands for itself.
pub(super) fn template(
    token: &Token<'_>,
    cursor: &Cursor<'_, '_>,
    draft: &mut Draft,
    scope: &mut Scope<'_, '_>,
) -> Template {
    let text = token.value.as_ref();
    let mut parts = Vec::new();
    let mut plain = String::new();
    let mut index = 0; // in characters
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (hole, length) = match hole(rest) {
            Some(found) => found,
            None => {
                plain.push(first);
                rest = rest.get(first.len_utf8()..).unwrap_or("");
                index += 1;
                continue;
            }
        };
        let place = if draft.uses.len() > USES {
            cursor.place(token) // it is a fault anyway, and finding the columns takes time
        } else {
            cursor.columns(token.column_at(index), token.column_at(index + length - 1) + 1)
        };
        if !plain.is_empty() {
            parts.push(TemplatePart::Text(std::mem::take(&mut plain).into()));
        }
        match hole {
            Ok(hole) => {
                let of_request = |name: &str| match name {
                    "host" => Some(TemplatePart::Host),
                    "path" => Some(TemplatePart::Path),
                    _ => None,
                };
                let (part, captured) = match &hole {
                    Hole::Group(number) => (TemplatePart::Group(*number), true),
                    Hole::Name(name) => match of_request(name).filter(|_| !draft.captures(name)) {
                        Some(part) => (part, false),
                        None => (TemplatePart::Capture(name.clone()), true),
                    },
                };
                parts.push(part);
                if captured {
                    draft.uses.push((hole, place));
                }
            }
            Err(name) => {
                draft.failed = true;
                let fault = Fault::error("R0242", place, format!("`{name}` is not the name of a capture"));
                let small = name.to_ascii_lowercase();
                scope.tell(if is_name(&small) {
                    fault.did_you_mean(format!("{{{small}}}"))
                } else {
                    fault.help("names have small letters, digits, - and _, a letter first")
                });
            }
        }
        rest = rest.get(length..).unwrap_or(""); // holes are ASCII
        index += length;
    }
    if !plain.is_empty() {
        parts.push(TemplatePart::Text(plain.into()));
    }
    Template { parts, place: cursor.place(token) }
}

/// The hole that `rest` begins with and its length: `Err` where it has the form of one with a wrong name.
fn hole(rest: &str) -> Option<(Result<Hole, String>, usize)> {
    if let Some(number) = rest.strip_prefix('$').and_then(|rest| group(rest.as_bytes())) {
        return Some((Ok(Hole::Group(number)), 2));
    }
    let opening = if rest.starts_with("${") { 2 } else { usize::from(rest.starts_with('{')) };
    let inner = rest.get(opening..).filter(|_| opening > 0)?;
    let name = inner.get(..inner.bytes().position(|b| !(b.is_ascii_alphanumeric() || b == b'_' || b == b'-'))?)?;
    if !inner.get(name.len()..)?.starts_with('}') || name.is_empty() {
        return None;
    }
    let length = opening + name.len() + 1;
    if is_name(name) {
        let name: Arc<str> = name.into();
        return Some((Ok(Hole::Name(name)), length));
    }
    Some((Err(name.to_owned()), length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_kind_of_key() {
        assert_eq!(parse_key("path"), Some(Key::Path));
        assert_eq!(parse_key("{who}"), Some(Key::Capture("who".into())));
        assert_eq!(parse_key("$9"), Some(Key::Group(9)));
        assert_eq!(parse_key("header:X-User"), Some(Key::Header("x-user".into())));
        assert_eq!(parse_key("cookie:SID"), Some(Key::Cookie("SID".into())));
        assert_eq!(parse_key("query:a.b"), Some(Key::Query("a.b".into())));
        for text in ["", "{}", "{Who}", "$0", "$10", "$", "header", "header:", "header:a b", "paths", "ip:x"] {
            assert_eq!(parse_key(text), None, "{text}");
        }
    }
}
