//! Path globs and regexes: is it one, what does it capture, and where exactly is it wrong.
//!
//! Compiling is `route`'s; here only what the operator wrote is judged.

use regex_automata::nfa::thompson::{Compiler, Config};
use regex_automata::util::syntax;

use super::cursor::Cursor;
use super::lexer::Token;
use super::scope::Scope;
use crate::model::{Fault, Place};

/// Memory of one regex's automaton: large alternations fit, repetitions of repetitions do not.
const REGEX_BYTES: usize = 1 << 20;
/// Groups within groups of one regex.
const REGEX_DEPTH: u32 = 64;
/// Captures and segments `**` of one glob; each costs at match time.
const GLOB_PARTS: usize = 16;

/// What a pattern of a path gives to keys and templates.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Captured {
    pub names: Vec<String>,
    /// Groups of the regex, without the whole match.
    pub groups: usize,
}

/// `[a-z][a-z0-9_-]*`
pub(super) fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-')
}

/// Judges the glob of a `path`; its faults are told, and its captures are returned all the same.
pub(super) fn path_glob(token: &Token<'_>, cursor: &Cursor<'_, '_>, scope: &mut Scope<'_, '_>) -> Captured {
    let mut captured = Captured::default();
    let text = token.value.as_ref();
    let whole = cursor.place(token);
    if text.is_empty() {
        scope.tell(Fault::error("R0225", whole, "an empty pattern").did_you_mean("/"));
        return captured;
    }
    if let Some(at) = text.chars().position(|letter| letter == '?') {
        let column = token.column_at(at);
        let fault = Fault::error("R0225", cursor.columns(column, token.end), "a path is matched without its query");
        scope.tell(fault.help("add a condition: `& query NAME = value`"));
        return captured;
    }
    if !text.starts_with('/') && text.contains('/') {
        let fault = Fault::error(
            "R0225",
            whole,
            "a pattern without a leading / is matched against the last segment, which has no / in it",
        );
        scope.tell(fault.did_you_mean(format!("/{text}")));
        return captured;
    }
    let (mut runs, mut letters) = (0, 0);
    for segment in text.split('/') {
        let from = letters;
        letters += segment.chars().count();
        let to = letters;
        letters += 1;
        let place = || {
            let start = token.column_at(from);
            cursor.columns(start, token.column_at(to).max(start + 1))
        };
        if segment.contains("**") {
            runs += 1;
            if segment != "**" {
                let fault = Fault::error("R0225", place(), "`**` stands only as a whole segment");
                scope.tell(fault.did_you_mean(segment_apart(segment)));
            }
        } else if segment.contains(['{', '}']) {
            runs += 1;
            capture(segment, place(), &mut captured, scope);
        }
        if runs > GLOB_PARTS {
            let message = format!("more than {GLOB_PARTS} captures or `**` in one pattern");
            scope.tell(Fault::error("R0225", cursor.place(token), message).help("use a regex: ~\"...\""));
            break;
        }
    }
    captured
}

/// One segment with a brace in it: only `{name}` as a whole is right.
fn capture(segment: &str, place: Place, captured: &mut Captured, scope: &mut Scope<'_, '_>) {
    let opened = segment.matches('{').count();
    if opened != segment.matches('}').count() || segment.find('}') < segment.find('{') {
        let missing =
            if opened > segment.matches('}').count() { "a `{` without its `}`" } else { "a `}` without its `{`" };
        let name: String = segment.chars().filter(|c| !matches!(c, '{' | '}')).collect();
        let fault = Fault::error("R0225", place, missing);
        scope.tell(if is_name(&name) {
            fault.did_you_mean(format!("{{{name}}}"))
        } else {
            fault.help("a capture is one segment: /{name}/")
        });
        return;
    }
    let inner = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
    match inner.filter(|name| !name.contains(['{', '}'])) {
        Some(name) if is_name(name) => {
            if captured.names.iter().any(|known| known == name) {
                let fault = Fault::error("R0225", place, format!("{{{name}}} stands twice in this pattern"));
                scope.tell(fault.did_you_mean(format!("{{{name}2}}")));
            } else {
                captured.names.push(name.to_owned());
            }
        }
        Some(name) => {
            let fault = Fault::error(
                "R0225",
                place,
                format!("`{name}` is not a name: a small letter, then small letters, digits, - and _"),
            );
            let small = name.to_ascii_lowercase();
            scope.tell(if is_name(&small) { fault.did_you_mean(format!("{{{small}}}")) } else { fault });
        }
        None => {
            let fault = Fault::error("R0225", place, "a capture takes a whole segment");
            scope.tell(fault.help("for a part of a segment use a regex with a group: ~\"^/(\\w+)\\.jpg$\" and $1"));
        }
    }
}

/// `img**` as segments of its own: `img/**`.
fn segment_apart(segment: &str) -> String {
    let parts: Vec<&str> = segment.split("**").map(|part| part.trim_matches('*')).collect();
    let mut fixed = String::new();
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            fixed.push_str(if fixed.is_empty() { "**" } else { "/**" });
        }
        if !part.is_empty() {
            fixed.push_str(if index > 0 { "/" } else { "" });
            fixed.push_str(part);
        }
    }
    fixed
}

/// The text with blanks and letters beyond ASCII percent-encoded, where it has any.
pub(super) fn encoded(text: &str) -> Option<String> {
    let plain = |b: &u8| b.is_ascii_graphic();
    if text.as_bytes().iter().all(plain) {
        return None;
    }
    let mut encoded = String::new();
    for byte in text.bytes() {
        if plain(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    Some(encoded)
}

/// Judges a regex; its faults are told. Answers how many groups it has.
pub(super) fn regex(token: &Token<'_>, cursor: &Cursor<'_, '_>, scope: &mut Scope<'_, '_>) -> Captured {
    let text = token.value.as_ref();
    // As `route` reads it: classes mean ASCII, unless the regex needs more.
    let read = |unicode| {
        let config = syntax::Config::new().unicode(unicode).utf8(false).nest_limit(REGEX_DEPTH);
        syntax::parse_with(text, &config).map_err(|error| error.to_string())
    };
    let plain = read(false);
    let unicode = plain.is_err();
    let tree = match plain.or_else(|_| read(true)) {
        Ok(tree) => tree,
        Err(error) => {
            let (reason, letters) = explain(&error, text);
            let place = match letters {
                Some((from, to)) => {
                    let column = token.column_at(from);
                    cursor.columns(column, token.column_at(to).max(column + 1))
                }
                None => cursor.place(token),
            };
            let fault = Fault::error("R0226", place, format!("this regex is wrong: {reason}"));
            scope.tell(fault.help(regex_help(&reason)));
            return Captured::default();
        }
    };
    // Only counted repetitions and Unicode classes make much of a short text; 100,000 regexes are not built for nothing.
    if unicode || text.len() > 256 || text.contains('{') {
        let limited = Config::new().utf8(false).nfa_size_limit(Some(REGEX_BYTES));
        if Compiler::new().configure(limited).build_from_hir(&tree).is_err() {
            let message = format!("this regex needs more than {} KiB when compiled", REGEX_BYTES >> 10);
            let fault = Fault::error("R0226", cursor.place(token), message);
            scope.tell(fault.help("use smaller repetitions, or several rules"));
        }
    }
    Captured { names: Vec::new(), groups: tree.properties().explicit_captures_len() }
}

fn regex_help(reason: &str) -> &'static str {
    if reason.contains("look-around") || reason.contains("backreference") {
        "matching takes linear time here, so that these do not exist; a second condition with `& !path ...` often does it"
    } else {
        "the syntax is https://docs.rs/regex/#syntax; a letter with a meaning is escaped by \\"
    }
}

/// The reason at the end of a message of the regex parser, and the letters under its carets.
///
/// Its text shows the pattern indented by four, carets below, and `error: REASON` last.
fn explain(message: &str, pattern: &str) -> (String, Option<(usize, usize)>) {
    let reason = message.lines().rev().find_map(|line| line.strip_prefix("error: ")).unwrap_or("it cannot be read");
    let shown = format!("    {pattern}");
    let mut lines = message.lines().skip_while(|line| *line != shown);
    let carets = lines.nth(1).filter(|line| line.trim_start().starts_with('^')).and_then(|line| {
        let from = line.chars().position(|c| c == '^')?.checked_sub(4)?;
        let length = line.trim_start().chars().take_while(|c| *c == '^').count();
        Some((from, from + length))
    });
    (reason.to_owned(), carets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_where_the_regex_parser_points() {
        let error = syntax::parse("a(b").err().map(|error| error.to_string());
        assert_eq!(error.map(|text| explain(&text, "a(b")), Some(("unclosed group".to_owned(), Some((1, 2)))));
    }

    #[test]
    fn sets_segments_apart() {
        assert_eq!(segment_apart("img**"), "img/**");
        assert_eq!(segment_apart("**.jpg"), "**/.jpg");
        assert_eq!(segment_apart("a**b"), "a/**/b");
    }
}
