//! What an import makes of another program's text: tables of `reeve.toml`, rules, and the account of every statement.
//!
//! The readers of the dialects fill it, `proof` takes out what the loader refuses, `write` prints it.

use std::collections::{HashMap, HashSet};

/// Rules, keys and patterns that one import may make. Locations times names times listeners can be many: the
/// largest configurations seen have some thousand, and 20,000 print in well under a second.
const MOST: usize = 20_000;
/// Bytes of one statement that a note quotes.
const QUOTED: usize = 60;

#[derive(Debug, Default)]
pub struct Site {
    pub tables: Vec<Table>,
    pub files: Vec<RuleFile>,
    pub account: Account,
    spent: usize,
}

/// `[listen.web]` and its keys; values are TOML already.
#[derive(Debug, Clone, Default)]
pub struct Table {
    pub name: String,
    pub keys: Vec<Key>,
    /// Of the source; notes of the lines that follow are printed above it.
    pub line: u32,
}

#[derive(Debug, Clone)]
pub struct Key {
    pub name: String,
    /// One item is written behind the key; more are a list, each on a line of its own.
    pub items: Vec<String>,
    pub list: bool,
}

#[derive(Debug, Clone, Default)]
pub struct RuleFile {
    /// `rules/web.rules`
    pub name: String,
    /// Lists of the file: name and path.
    pub lists: Vec<(String, String)>,
    pub sections: Vec<Section>,
}

#[derive(Debug, Clone, Default)]
pub struct Section {
    /// `http shop.example`, `tcp`
    pub head: String,
    /// Paths are matched and forwarded as they were sent.
    pub as_is: bool,
    pub rules: Vec<Rule>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rule {
    pub name: String,
    /// All must hold; none: `any`.
    pub tests: Vec<Test>,
    pub action: String,
    pub more: Vec<String>,
    pub line: u32,
}

/// One test, in the words of the rule language.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Test {
    pub negated: bool,
    /// `path`, `header x-a =`
    pub word: String,
    pub patterns: Vec<String>,
}

impl Test {
    pub fn new(word: impl Into<String>, pattern: impl Into<String>) -> Test {
        Test { negated: false, word: word.into(), patterns: vec![pattern.into()] }
    }

    pub fn any_of(word: impl Into<String>, patterns: Vec<String>) -> Test {
        Test { negated: false, word: word.into(), patterns }
    }

    pub fn not(&self) -> Test {
        Test { negated: !self.negated, ..self.clone() }
    }
}

impl Table {
    pub fn new(name: impl Into<String>, line: u32) -> Table {
        Table { name: name.into(), keys: Vec::new(), line }
    }

    /// Sets a key; what was said before is replaced.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.keys.retain(|key| key.name != name);
        self.keys.push(Key { name: name.to_owned(), items: vec![value.into()], list: false });
    }

    /// Sets a key whose value is a list with a line for each item.
    pub fn list(&mut self, name: &str, items: Vec<String>) {
        self.keys.retain(|key| key.name != name);
        self.keys.push(Key { name: name.to_owned(), items, list: true });
    }
}

impl Site {
    /// Whether something of this size may still be made.
    pub fn spend(&mut self, size: usize) -> bool {
        self.spent = self.spent.saturating_add(size);
        let within = self.spent <= MOST;
        if !within {
            self.account.full = true;
        }
        within
    }

    /// The table of this name, made where there is none.
    pub fn table(&mut self, name: &str, line: u32) -> &mut Table {
        let at = self.tables.iter().position(|table| table.name == name).unwrap_or_else(|| {
            self.tables.push(Table::new(name, line));
            self.tables.len() - 1
        });
        &mut self.tables[at]
    }
}

/// What became of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Not looked at by any reader: not known here.
    Open,
    Done,
    /// Said here too, with a difference that the note tells.
    Differs,
    NoEqual,
}

#[derive(Debug)]
pub struct Item {
    pub line: u32,
    pub subject: String,
    pub fate: Fate,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Note {
    pub line: u32,
    pub subject: String,
    pub text: String,
    pub equal: bool,
}

/// Every statement of the source and what became of it.
#[derive(Debug, Default)]
pub struct Account {
    pub items: Vec<Item>,
    pub notes: Vec<Note>,
    told: HashSet<(usize, String)>,
    /// The last statement of each line.
    by_line: HashMap<u32, usize>,
    once: HashSet<&'static str>,
    /// More was asked for than is made.
    pub full: bool,
}

impl Account {
    /// Enters a statement; its number is what the other calls take.
    pub fn enter(&mut self, line: u32, subject: &str) -> usize {
        self.items.push(Item { line, subject: plain(subject, QUOTED), fate: Fate::Open });
        self.by_line.insert(line, self.items.len() - 1);
        self.items.len() - 1
    }

    pub fn done(&mut self, item: usize) {
        self.settle(item, Fate::Done);
    }

    /// It was taken over, with a difference.
    pub fn differs(&mut self, item: usize, how: impl Into<String>) {
        self.settle(item, Fate::Differs);
        self.note(item, how.into(), true);
    }

    /// As `differs`, with the note once for the whole text.
    pub fn differs_once(&mut self, item: usize, how: &'static str) {
        self.settle(item, Fate::Done);
        if self.once.insert(how) {
            self.settle(item, Fate::Differs);
            self.note(item, how.to_owned(), true);
        }
    }

    /// It has no equal here.
    pub fn none(&mut self, item: usize, why: impl Into<String>) {
        self.settle(item, Fate::NoEqual);
        self.note(item, why.into(), false);
    }

    /// A part made of this line was refused by the loader.
    pub fn refused(&mut self, line: u32, why: &str) {
        let found = self.by_line.get(&line).copied();
        let item = found.unwrap_or_else(|| self.enter(line, "a part made of it"));
        self.none(item, why.to_owned());
    }

    fn settle(&mut self, item: usize, fate: Fate) {
        if let Some(item) = self.items.get_mut(item) {
            // The worst that was said stands.
            let rank = |fate| match fate {
                Fate::Open => 0,
                Fate::Done => 1,
                Fate::Differs => 2,
                Fate::NoEqual => 3,
            };
            if rank(fate) > rank(item.fate) {
                item.fate = fate;
            }
        }
    }

    fn note(&mut self, item: usize, text: String, equal: bool) {
        let text = plain(&text, 300);
        if let Some(Item { line, subject, .. }) = self.items.get(item)
            && self.told.insert((item, text.clone()))
        {
            self.notes.push(Note { line: *line, subject: subject.clone(), text, equal });
        }
    }

    /// Notes what nobody has looked at, and puts the notes in the order of the source.
    pub fn close(&mut self) {
        for at in 0..self.items.len() {
            if self.items[at].fate == Fate::Open {
                self.none(at, "is not known to this import");
            }
        }
        self.notes.sort_by_key(|note| note.line);
    }

    pub fn count(&self, fate: Fate) -> usize {
        self.items.iter().filter(|item| item.fate == fate).count()
    }
}

/// Text for a comment: one line, nothing that steers a terminal, bounded.
pub fn plain(text: &str, most: usize) -> String {
    let mut out = String::new();
    let mut blank = false;
    for (at, letter) in text.chars().enumerate() {
        if at >= most {
            out.push_str("...");
            break;
        }
        let steers =
            letter.is_control() || matches!(letter, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
        let letter = if letter.is_whitespace() || steers { ' ' } else { letter };
        if letter != ' ' || !blank {
            out.push(letter);
        }
        blank = letter == ' ';
    }
    out.trim_end().to_owned()
}

/// Names that are unique and that the language can read.
#[derive(Debug, Default)]
pub struct Names(HashMap<String, usize>);

impl Names {
    /// A name as near to `wanted` as may be: `[a-z][a-z0-9_-]*`.
    pub fn fresh(&mut self, wanted: &str) -> String {
        let mut name = String::new();
        for letter in wanted.chars().take(200) {
            match letter.to_ascii_lowercase() {
                letter if letter.is_ascii_alphanumeric() || letter == '_' => name.push(letter),
                _ if name.ends_with('-') || name.is_empty() => {}
                _ => name.push('-'),
            }
        }
        let mut name: String = name.trim_end_matches('-').chars().take(48).collect();
        if !name.starts_with(|c: char| c.is_ascii_lowercase()) {
            name.insert(0, 'r');
        }
        if matches!(name.as_str(), "map" | "else" | "by") {
            name.push_str("-1");
        }
        loop {
            let count = self.0.entry(name.clone()).or_default();
            *count += 1;
            if *count == 1 {
                return name;
            }
            let next = format!("{name}-{count}");
            if !self.0.contains_key(&next) {
                self.0.insert(next.clone(), 1);
                return next;
            }
        }
    }
}
