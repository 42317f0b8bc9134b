//! The configuration file as TOML: syntax, and nothing of what the keys mean.

use std::ops::Range;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue, Error};

use super::node::{Entry, Node, Origin, Value};
use super::source::Sources;
use super::units;
use crate::model::{Fault, Place};

/// The largest configuration file, in bytes; a farm of 10,000 servers has one of 1 MiB.
pub const LARGEST: usize = 16 << 20;

/// What a text says, and the lines of which that is not known.
pub struct Document {
    pub root: Node,
    /// Words that are no values. What the parser made of them is a guess: whatever else is found there
    /// is not worth saying.
    pub doubtful: Vec<Place>,
}

/// The tables and values of a text. `None` after a syntax fault that leaves open what belongs where;
/// a duplicate key or a value without its quotes does not, and the walk goes on behind it.
pub fn parse(file: &Arc<str>, text: &str, sources: &Sources, faults: &mut Vec<Fault>) -> Option<Document> {
    if text.len() > LARGEST {
        let message = format!("the file has {} bytes, at most {LARGEST} are read", text.len());
        faults.push(Fault::error("R0100", Place::file(file.clone()), message));
        return None;
    }
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut lines: Vec<u32> = Vec::new();
    let mut doubtful = Vec::new();
    let mut whole = true;
    let mut repeated = false;
    for error in &errors {
        let span = error.span().unwrap_or(text.len()..text.len());
        let place = sources.place(file, span.clone());
        let fault = if error.message() == "duplicate key" {
            let first = first_of(text, span.clone());
            // In a table that is given twice every key may be.
            if first.is_none() && repeated {
                continue;
            }
            let (fault, header) = duplicate_key(file, text, span, first, sources);
            repeated |= header;
            fault
        } else if let Some(word) = bare_word(text, error) {
            doubtful.push(sources.place(file, word.clone()));
            bare_value(text, word, file, sources)
        } else {
            whole = false;
            // One slip makes the parser stumble several times on its line; the first says enough.
            if lines.contains(&place.line) {
                continue;
            }
            syntax(error, place)
        };
        lines.push(fault.place.line);
        faults.push(fault);
    }
    whole.then(|| Document { root: node_of_table(table.get_ref(), table.span()), doubtful })
}

/// The fault, and whether it is a whole table that is repeated.
fn duplicate_key(
    file: &Arc<str>,
    text: &str,
    span: Range<usize>,
    first: Option<Range<usize>>,
    sources: &Sources,
) -> (Fault, bool) {
    let header = header_at(text, span.start);
    let span = header.clone().unwrap_or(span);
    let key = text.get(span.clone()).unwrap_or_default().trim_matches(['"', '\'']);
    let message = if header.is_some() { format!("{key} is given twice") } else { format!("\"{key}\" is given twice") };
    let fault = Fault::error("R0102", sources.place(file, span), message);
    let fault = fault.help(if header.is_some() { "join the two tables" } else { "keep one of the two" });
    let fault = match first {
        Some(first) => fault.also(sources.place(file, first), "given first here"),
        None => fault,
    };
    (fault, header.is_some())
}

/// The `[header]` that an offset lies in.
fn header_at(text: &str, at: usize) -> Option<Range<usize>> {
    let line_start = text.get(..at)?.rfind('\n').map_or(0, |newline| newline + 1);
    let before = text.get(line_start..at)?;
    let line = text.get(line_start..)?.lines().next()?;
    let length = header(line)?.len();
    let begin = line_start + (line.len() - line.trim_start().len());
    (!before.contains('=')).then_some(begin..begin + length)
}

/// The `[header]` that a line is.
fn header(line: &str) -> Option<&str> {
    let line = line.trim();
    let end = if line.starts_with("[[") { line.find("]]")? + 2 } else { line.find(']')? + 1 };
    line.starts_with('[').then(|| line.get(..end)).flatten()
}

/// Where a key or table that is repeated was given first; the parser does not say.
fn first_of(text: &str, span: Range<usize>) -> Option<Range<usize>> {
    let key = text.get(span.clone()).filter(|key| !key.is_empty())?;
    let repeated = header_at(text, span.start).and_then(|range| text.get(range));
    let line_start = text.get(..span.start)?.rfind('\n').map_or(0, |newline| newline + 1);
    // In an inline table the first one stands on the same line.
    if let Some(open) = text.get(line_start..span.start)?.find('{').filter(|_| repeated.is_none()) {
        let inside = text.get(line_start + open..span.start)?;
        return inside.find(key).map(|found| line_start + open + found..line_start + open + found + key.len());
    }
    let mut end = line_start;
    while end > 0 {
        let start = text.get(..end - 1)?.rfind('\n').map_or(0, |newline| newline + 1);
        let line = text.get(start..end)?;
        let trimmed = line.trim();
        let begin = start + (line.len() - line.trim_start().len());
        match (repeated, header(line)) {
            (Some(repeated), Some(other)) if other == repeated => return Some(begin..begin + other.len()),
            (None, Some(_)) => return None,
            (None, None) if trimmed.strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with(['=', '.'])) => {
                return Some(begin..begin + key.len());
            }
            _ => {}
        }
        end = start;
    }
    None
}

/// The word that stands where a value should, when that is all that is wrong.
fn bare_word(text: &str, error: &Error) -> Option<Range<usize>> {
    let message = error.message();
    let about_word = message.starts_with("string values must be quoted") || message.starts_with("invalid ");
    let span = error.span().filter(|span| about_word && !span.is_empty())?;
    let ends = |c: char| c.is_whitespace() || ",=[]{}#\"'".contains(c);
    let start = text.get(..span.start)?.rfind(ends);
    let start = start.map_or(0, |at| at + text[at..].chars().next().map_or(1, char::len_utf8));
    let end = text.get(span.start..)?.find(ends).map_or(text.len(), |length| span.start + length);
    let word = text.get(start..end)?;
    // A value, not a key: an equals sign, a bracket or a comma stands before it.
    let before = text.get(..start)?.trim_end_matches([' ', '\t']);
    (!word.is_empty() && word.chars().all(|c| !c.is_control()) && before.ends_with(['=', '[', ',']))
        .then_some(start..end)
}

fn bare_value(text: &str, word: Range<usize>, file: &Arc<str>, sources: &Sources) -> Fault {
    let place = sources.place(file, word.clone());
    let word = text.get(word).unwrap_or_default();
    let fault = Fault::error("R0101", place, format!("`{word}` is not a value: strings stand in quotes"));
    match word.to_ascii_lowercase().as_str() {
        "yes" | "on" | "true" => fault.help("write true"),
        "no" | "off" | "false" => fault.help("write false"),
        _ => {
            let better = units::duration(word).err().and_then(|wrong| wrong.better);
            fault.help(format!("write \"{}\"", better.as_deref().unwrap_or(word)))
        }
    }
}

fn syntax(error: &Error, place: Place) -> Fault {
    let message = error.message();
    let fault = Fault::error("R0101", place, message.to_owned());
    let helps = [
        ("missing comma", "put a comma here"),
        ("unclosed table", "close the name of the table with a bracket"),
        ("unclosed array", "close the list with a bracket"),
        ("unclosed inline table", "close the table with a brace"),
        ("key with no value", "put = between the key and its value"),
        ("invalid basic string", "close the string with a quote on its line"),
        ("invalid literal string", "close the string with a quote on its line"),
        ("string values must be quoted", "a value belongs here"),
    ];
    match helps.iter().find(|(start, _)| message.starts_with(start)) {
        Some((_, help)) => fault.help(*help),
        None => fault,
    }
}

fn node_of_table(table: &DeTable<'_>, span: Range<usize>) -> Node {
    let mut entries: Vec<(usize, Entry)> = table
        .iter()
        .map(|(key, value)| {
            let span = key.span();
            let key_origin = Origin::File(span.clone());
            (span.start, Entry { key: key.get_ref().to_string(), key_origin, node: node(value) })
        })
        .collect();
    entries.sort_by_key(|(start, _)| *start);
    Node::new(Value::Table(entries.into_iter().map(|(_, entry)| entry).collect()), Origin::File(span))
}

fn node(value: &Spanned<DeValue<'_>>) -> Node {
    let value_of = match value.get_ref() {
        DeValue::Table(table) => return node_of_table(table, value.span()),
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Integer(number) => Value::Integer(i64::from_str_radix(number.as_str(), number.radix()).ok()),
        DeValue::Float(number) => number.as_str().parse().map_or(Value::Float(f64::NAN), Value::Float),
        DeValue::Boolean(yes) => Value::Boolean(*yes),
        DeValue::Datetime(_) => Value::Date,
        DeValue::Array(items) => Value::List(items.iter().map(node).collect()),
    };
    Node::new(value_of, Origin::File(value.span()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> (Option<Document>, Vec<Fault>) {
        let mut sources = Sources::new();
        sources.add("f", text);
        let mut faults = Vec::new();
        (parse(&"f".into(), text, &sources, &mut faults), faults)
    }

    #[test]
    fn tables_are_in_the_order_of_the_file() {
        let (document, faults) = faults("[z]\nb = 1\na = 2\n[a]\n");
        assert!(faults.is_empty());
        let Some(Document { root: Node { value: Value::Table(entries), .. }, .. }) = document else {
            panic!("not a table")
        };
        assert_eq!(entries.iter().map(|entry| entry.key.as_str()).collect::<Vec<_>>(), ["z", "a"]);
    }

    #[test]
    fn a_duplicate_names_both_places() {
        for (text, line, first) in
            [("a = 1\nb = 2\n  a = 3\n", 3, 1), ("[x]\na = 1\n[y]\n[x]\n", 4, 1), ("t = { a = 1, a = 2 }\n", 1, 1)]
        {
            let (document, faults) = faults(text);
            assert!(document.is_some(), "{text}");
            assert_eq!((faults[0].code, faults[0].place.line), ("R0102", line), "{text}");
            assert_eq!(faults[0].also[0].0.line, first, "{text}");
        }
    }

    #[test]
    fn a_bare_word_is_offered_its_quotes() {
        let (document, faults) = faults("a = 3sec\nb = 10s\nc = yes\n");
        let help: Vec<_> = faults.iter().map(|fault| fault.suggestion.clone().unwrap()).collect();
        use crate::model::fault::Suggestion::Help;
        assert_eq!(help, [Help("write \"3s\"".into()), Help("write \"10s\"".into()), Help("write true".into())]);
        let lines: Vec<u32> = document.unwrap().doubtful.iter().map(|place| place.line).collect();
        assert_eq!(lines, [1, 2, 3]);
    }
}
