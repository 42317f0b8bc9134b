//! Prints a site: `reeve.toml` and the rule files, with each note above what was made of the lines round it.

use std::collections::BTreeMap;

use super::site::{Note, Rule, Section, Site, Test};

/// Where a condition is broken: the lexer takes 4 KiB a line, people less.
const WIDE: usize = 110;

/// A line that was written, and what it was made of.
#[derive(Debug, Clone)]
pub struct Line {
    pub text: String,
    pub of: Of,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Of {
    Nothing,
    Table(usize),
    Key(usize, usize),
    /// One item of a list.
    Item(usize, usize, usize),
    /// A rule's own lines: file, section, rule.
    Rule(usize, usize, usize),
    /// A line below a rule.
    More(usize, usize, usize, usize),
    List(usize, usize),
}

/// A text of the output.
#[derive(Debug, Clone)]
pub struct Text {
    /// `config/reeve.toml`
    pub name: String,
    pub lines: Vec<Line>,
}

impl Text {
    pub fn join(&self) -> String {
        let mut text = String::new();
        for line in &self.lines {
            text.push_str(&line.text);
            text.push('\n');
        }
        text
    }
}

/// `reeve.toml` first, then the rule files. `file` is what the source is called.
pub fn texts(site: &Site, file: &str) -> Vec<Text> {
    let mut places = places(site);
    let mut texts = Vec::new();
    let mut lines = Lines(Vec::new());
    for note in places.remove(&Of::Nothing.key()).unwrap_or_default() {
        lines.note(file, note, 0);
    }
    for (t, table) in site.tables.iter().enumerate() {
        if !lines.0.is_empty() {
            lines.add("", Of::Nothing);
        }
        for note in places.remove(&Of::Table(t).key()).unwrap_or_default() {
            lines.note(file, note, 0);
        }
        lines.add(format!("[{}]", table.name), Of::Table(t));
        let width = table.keys.iter().map(|key| key.name.len()).max().unwrap_or(0);
        for (k, key) in table.keys.iter().enumerate() {
            if !key.list {
                lines.add(format!("{:width$} = {}", key.name, key.items.join(", ")), Of::Key(t, k));
                continue;
            }
            lines.add(format!("{:width$} = [", key.name), Of::Key(t, k));
            for (i, item) in key.items.iter().enumerate() {
                lines.add(format!("  {item},"), Of::Item(t, k, i));
            }
            lines.add("]", Of::Key(t, k));
        }
    }
    texts.push(Text { name: "config/reeve.toml".to_owned(), lines: lines.0 });
    for (f, rules) in site.files.iter().enumerate() {
        let mut lines = Lines(Vec::new());
        for (l, (name, path)) in rules.lists.iter().enumerate() {
            lines.add(format!("list {name} from {}", super::words::text(path)), Of::List(f, l));
        }
        for (s, section) in rules.sections.iter().enumerate().filter(|(_, section)| !section.rules.is_empty()) {
            if !lines.0.is_empty() {
                lines.add("", Of::Nothing);
            }
            lines.add(section.head.clone(), Of::Nothing);
            if section.as_is {
                lines.add("  paths as-is", Of::Nothing);
            }
            self::section(&mut lines, section, (f, s), file, &mut places);
        }
        texts.push(Text { name: rules.name.clone(), lines: lines.0 });
    }
    texts
}

fn section(
    lines: &mut Lines,
    section: &Section,
    (f, s): (usize, usize),
    file: &str,
    places: &mut BTreeMap<(u8, usize, usize, usize), Vec<&Note>>,
) {
    let width = section.rules.iter().map(|rule| rule.name.len()).max().unwrap_or(0).min(24);
    for (r, rule) in section.rules.iter().enumerate() {
        let of = Of::Rule(f, s, r);
        for note in places.remove(&of.key()).unwrap_or_default() {
            lines.note(file, note, 2);
        }
        let mut line = format!("  {:width$} :", rule.name);
        let indent = " ".repeat(width.min(8) + 5);
        for word in condition(rule) {
            if line.len() + word.len() > WIDE && (word.starts_with("& ") || word.starts_with("| ")) {
                lines.add(std::mem::replace(&mut line, indent.clone()), of);
                line.push_str(&word);
            } else {
                line.push(' ');
                line.push_str(&word);
            }
        }
        lines.add(format!("{line}  {}", rule.action), of);
        for (m, more) in rule.more.iter().enumerate() {
            lines.add(format!("{indent}{more}"), Of::More(f, s, r, m));
        }
    }
}

/// The condition in pieces that a line may be broken between.
fn condition(rule: &Rule) -> Vec<String> {
    if rule.tests.is_empty() {
        return vec!["any".to_owned()];
    }
    let mut pieces = Vec::new();
    for (at, Test { negated, word, patterns }) in rule.tests.iter().enumerate() {
        let join = if at == 0 { "" } else { "& " };
        let not = if *negated { "!" } else { "" };
        let first = patterns.first().map_or("", String::as_str);
        pieces.push(format!("{join}{not}{word} {first}").trim_end().to_owned());
        pieces.extend(patterns.iter().skip(1).map(|pattern| format!("| {pattern}")));
    }
    pieces
}

struct Lines(Vec<Line>);

impl Lines {
    fn add(&mut self, text: impl Into<String>, of: Of) {
        self.0.push(Line { text: text.into(), of });
    }

    fn note(&mut self, file: &str, note: &Note, indent: usize) {
        self.add(format!("{:indent$}# {}", "", self::note(file, note)), Of::Nothing);
    }
}

/// `nginx.conf:17: gzip on: has no equal: why`
pub fn note(file: &str, note: &Note) -> String {
    let verdict = if note.equal { "differs" } else { "no equal here" };
    format!("{file}:{}: {}: {verdict}: {}", note.line, note.subject, note.text)
}

/// Each note's place: the last thing that was made of its line or of one before it.
fn places(site: &Site) -> BTreeMap<(u8, usize, usize, usize), Vec<&Note>> {
    let mut made: BTreeMap<u32, Of> = BTreeMap::new();
    let mut enter = |line: u32, of: Of| {
        if line > 0 {
            made.entry(line).or_insert(of);
        }
    };
    // A rule is nearer to its line than a table.
    for (f, file) in site.files.iter().enumerate() {
        for (s, section) in file.sections.iter().enumerate() {
            section.rules.iter().enumerate().for_each(|(r, rule)| enter(rule.line, Of::Rule(f, s, r)));
        }
    }
    site.tables.iter().enumerate().for_each(|(t, table)| enter(table.line, Of::Table(t)));
    let mut places: BTreeMap<_, Vec<&Note>> = BTreeMap::new();
    for note in &site.account.notes {
        let of = made.range(..=note.line).next_back().map_or(Of::Nothing, |(_, of)| *of);
        places.entry(of.key()).or_default().push(note);
    }
    places
}

impl Of {
    fn key(self) -> (u8, usize, usize, usize) {
        match self {
            Of::Nothing => (0, 0, 0, 0),
            Of::Table(t) => (1, t, 0, 0),
            Of::Key(t, k) => (2, t, k, 0),
            Of::Item(t, k, i) => (3, t, k, i),
            Of::Rule(f, s, r) | Of::More(f, s, r, _) => (4, f, s, r),
            Of::List(f, l) => (5, f, l, 0),
        }
    }
}
