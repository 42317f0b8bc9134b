//! Faults as text for people and as JSON for editors, and the guess behind "did you mean".

use std::fmt::Write;

use serde_json::{Value, json};

use super::source::Sources;
use crate::model::fault::{Fault, Place, Severity, Suggestion};

/// The widest piece of a source line that is shown.
const WIDEST: usize = 120;
/// More allowed values than these help nobody.
const MOST_ALLOWED: usize = 40;

/// Puts faults in the order of their places and leaves out what was found twice (a rule file that
/// belongs to two sets).
pub fn sort(faults: &mut Vec<Fault>) {
    faults.sort_by(|a, b| {
        let key = |fault: &Fault| (fault.place.clone(), fault.severity, fault.code);
        key(a).cmp(&key(b)).then_with(|| a.message.cmp(&b.message))
    });
    faults.dedup();
}

/// Whether a text with these faults cannot be used.
pub fn any_error(faults: &[Fault]) -> bool {
    faults.iter().any(|fault| fault.severity == Severity::Error)
}

/// All faults for a terminal, each with its line and a caret below it.
pub fn text(faults: &[Fault], sources: &Sources) -> String {
    let mut out = String::new();
    for (index, fault) in faults.iter().enumerate() {
        if index > 0 {
            out.push('\n');
        }
        one(&mut out, fault, sources);
    }
    out
}

fn one(out: &mut String, fault: &Fault, sources: &Sources) {
    head(out, &fault.place, severity(fault.severity), &format!("{} [{}]", fault.message, fault.code));
    let mut indent = 2;
    if let Some(line) = sources.line(&fault.place.file, fault.place.line) {
        let number = fault.place.line.to_string();
        indent = number.len() + 1;
        let (shown, caret) = window(line, &fault.place);
        push(out, format_args!("{:indent$}|\n{number} | {shown}\n{:indent$}| {caret}\n", "", ""));
    }
    if !fault.allowed.is_empty() {
        let mut values: Vec<String> = fault.allowed.iter().take(MOST_ALLOWED).map(|value| clean(value)).collect();
        if fault.allowed.len() > MOST_ALLOWED {
            values.push("...".to_owned());
        }
        push(out, format_args!("{:indent$}allowed: {}\n", "", values.join(", ")));
    }
    match &fault.suggestion {
        Some(Suggestion::DidYouMean(text)) => {
            push(out, format_args!("{:indent$}did you mean \"{}\"?\n", "", clean(text)));
        }
        Some(Suggestion::Help(text)) => push(out, format_args!("{:indent$}help: {}\n", "", clean(text))),
        None => {}
    }
    for (place, note) in &fault.also {
        head(out, place, "note", note);
    }
}

fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "note",
    }
}

fn head(out: &mut String, place: &Place, kind: &str, message: &str) {
    let file = clean(&place.file);
    let message = clean(message);
    match place.line {
        0 => push(out, format_args!("{file}: {kind}: {message}\n")),
        line => push(out, format_args!("{file}:{line}:{}: {kind}: {message}\n", place.column)),
    }
}

fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = out.write_fmt(text);
}

/// The part of a line round a place, and the carets that belong below it.
fn window(line: &str, place: &Place) -> (String, String) {
    let start = (place.column as usize).saturating_sub(1);
    let width = (place.end.saturating_sub(place.column) as usize).clamp(1, WIDEST);
    let length = line.chars().count();
    let (from, take) = if length <= WIDEST {
        (0, length)
    } else {
        // The place a third of the way in: what stands before it says where one is.
        let from = (start + width.min(WIDEST / 2)).saturating_sub(2 * WIDEST / 3);
        let from = if start < WIDEST / 2 { 0 } else { from.min(start) };
        (from, WIDEST)
    };
    let (before, after) = (if from > 0 { "..." } else { "" }, if from + take < length { "..." } else { "" });
    let shown: String = line.chars().skip(from).take(take).map(printable).collect();
    // Tabs stay tabs, so that the caret stands below its character however wide they are.
    let pad: String =
        line.chars().skip(from).take(start.saturating_sub(from)).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
    let room = (from + take).saturating_sub(start).max(1);
    let caret = format!("{:blank$}{pad}{}", "", "^".repeat(width.min(room)), blank = before.len());
    (format!("{before}{shown}{after}"), caret)
}

/// What a text holds may not steer the terminal: control and direction characters are replaced.
fn printable(c: char) -> char {
    let steers = (c.is_control() && c != '\t') || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if steers { '\u{fffd}' } else { c }
}

fn clean(text: &str) -> String {
    text.chars().map(printable).collect()
}

/// All faults as one JSON array, one object a fault.
pub fn json(faults: &[Fault]) -> String {
    let faults: Vec<Value> = faults
        .iter()
        .map(|fault| {
            json!({
                "file": &*fault.place.file,
                "line": fault.place.line,
                "column": fault.place.column,
                "end": fault.place.end,
                "severity": severity(fault.severity),
                "code": fault.code,
                "message": fault.message,
                "allowed": fault.allowed,
                "suggestion": match &fault.suggestion {
                    Some(Suggestion::DidYouMean(text) | Suggestion::Help(text)) => Some(text),
                    None => None,
                },
            })
        })
        .collect();
    Value::Array(faults).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_form() {
        let mut sources = Sources::new();
        sources.add("config/reeve.toml", "[listen.web]\nadress = 1\n");
        let file = "config/reeve.toml".into();
        let fault = Fault::error("R0103", sources.place(&file, 13..19), "unknown key \"adress\"")
            .allowed(["address", "pool"])
            .did_you_mean("address")
            .also(sources.place(&file, 0..12), "in this table");
        let expected = "config/reeve.toml:2:1: error: unknown key \"adress\" [R0103]\n  |\n2 | adress = 1\n  | ^^^^^^\n  \
                        allowed: address, pool\n  did you mean \"address\"?\n\
                        config/reeve.toml:1:1: note: in this table\n";
        assert_eq!(text(&[fault], &sources), expected);
    }

    #[test]
    fn a_fault_of_no_line_has_no_carets() {
        let fault = Fault::error("R0140", Place::file("environment"), "REEVE_X\u{1b}[2J").help("h");
        assert_eq!(text(&[fault], &Sources::new()), "environment: error: REEVE_X\u{fffd}[2J [R0140]\n  help: h\n");
    }

    #[test]
    fn long_lines_are_cut_round_the_place() {
        let mut sources = Sources::new();
        let line = format!("{}HERE{}", "a".repeat(5000), "b".repeat(5000));
        sources.add("f", line);
        let place = sources.place(&"f".into(), 5000..5004);
        let out = text(&[Fault::error("R0101", place, "m")], &sources);
        let lines: Vec<&str> = out.lines().collect();
        assert!(lines[2].len() < 140, "{out}");
        let at = lines[3].find('^').unwrap();
        assert_eq!(&lines[2][at..at + 4], "HERE");
        assert_eq!(lines[3].matches('^').count(), 4);
        for (from, to) in [(0, 10_000), (0, 3), (9_990, 10_004), (10_003, 10_004), (5_000, 9_000)] {
            let place = sources.place(&"f".into(), from..to);
            let out = text(&[Fault::error("R0101", place, "m")], &sources);
            assert!(out.contains('^') && out.lines().all(|line| line.len() < 150), "{out}");
        }
    }

    #[test]
    fn json_has_the_agreed_keys() {
        let fault = Fault::warning("R0150", Place::file("f"), "m").help("h");
        let value: Value = serde_json::from_str(&json(&[fault])).unwrap();
        let keys: Vec<&String> = value[0].as_object().unwrap().keys().collect();
        let expected = ["allowed", "code", "column", "end", "file", "line", "message", "severity", "suggestion"];
        assert_eq!(keys, expected);
        assert_eq!(value[0]["severity"], "warning");
        assert_eq!(json(&[]), "[]");
    }

    #[test]
    fn faults_are_sorted_and_said_once() {
        let at = |line| Place { file: "f".into(), line, column: 1, end: 2 };
        let mut faults = vec![Fault::error("R0103", at(9), "b"), Fault::error("R0103", at(2), "a")];
        faults.push(faults[0].clone());
        sort(&mut faults);
        assert_eq!(faults.iter().map(|fault| fault.place.line).collect::<Vec<_>>(), [2, 9]);
    }
}
