//! The text as sections of keyword lines.

use crate::app::import::site::Account;
use crate::model::fault::{Fault, Place};

#[derive(Debug)]
pub struct Section {
    /// `frontend`, `backend` ...
    pub kind: String,
    pub name: String,
    pub lines: Vec<Line>,
    pub line: u32,
    pub item: usize,
    /// Words behind the name: `from NAME` of newer releases.
    pub rest: Vec<String>,
}

#[derive(Debug)]
pub struct Line {
    pub words: Vec<String>,
    pub line: u32,
    pub item: usize,
}

impl Line {
    pub fn word(&self, at: usize) -> &str {
        self.words.get(at).map_or("", String::as_str)
    }

    /// Whether it begins with these words.
    pub fn is(&self, words: &str) -> bool {
        words.split(' ').enumerate().all(|(at, word)| self.word(at) == word)
    }
}

const SECTIONS: [&str; 17] = [
    "global",
    "defaults",
    "frontend",
    "backend",
    "listen",
    "userlist",
    "peers",
    "resolvers",
    "mailers",
    "cache",
    "program",
    "http-errors",
    "ring",
    "log-forward",
    "crt-store",
    "traces",
    "fcgi-app",
];

pub fn read(file: &str, text: &str, account: &mut Account) -> Result<Vec<Section>, Box<Fault>> {
    let mut sections: Vec<Section> = Vec::new();
    for (number, line) in text.strip_prefix('\u{feff}').unwrap_or(text).lines().enumerate() {
        let number = u32::try_from(number + 1).unwrap_or(u32::MAX);
        let words = words(line).map_err(|(at, message)| fault(file, number, column(line, at), message))?;
        let Some(first) = words.first() else { continue };
        // Conditions of older texts: `.if` and the like.
        if first.starts_with('.') {
            let item = account.enter(number, &words.join(" "));
            account.none(item, "the text is read as if no condition stood in it");
            continue;
        }
        let item = account.enter(number, &words.join(" "));
        if SECTIONS.contains(&first.as_str()) {
            sections.push(Section {
                kind: first.clone(),
                name: words.get(1).cloned().unwrap_or_default(),
                rest: words.get(2..).unwrap_or_default().to_vec(),
                lines: Vec::new(),
                line: number,
                item,
            });
            continue;
        }
        match sections.last_mut() {
            Some(section) => section.lines.push(Line { words, line: number, item }),
            None => {
                let start = line.len() - line.trim_start().len();
                return Err(fault(
                    file,
                    number,
                    column(line, start),
                    "no section stands above this: global, defaults, frontend, backend or listen",
                ));
            }
        }
    }
    Ok(sections)
}

fn column(line: &str, at: usize) -> u32 {
    line.get(..at).map_or(1, |before| before.chars().count() as u32 + 1)
}

fn fault(file: &str, line: u32, column: u32, message: &str) -> Box<Fault> {
    Box::new(Fault::error("R0160", Place { file: file.into(), line, column, end: column + 1 }, message))
}

/// Words of a line: blanks part them, `\` keeps the next letter, `"` and `'` keep blanks, `#` ends the line. The
/// error is a byte and what is wrong there.
fn words(line: &str) -> Result<Vec<String>, (usize, &'static str)> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut letters = line.char_indices();
    let mut quote: Option<(char, usize)> = None;
    while let Some((at, letter)) = letters.next() {
        match (letter, quote) {
            ('\\', None | Some(('"', _))) => match letters.next() {
                Some((_, next)) => {
                    let word = word.get_or_insert_default();
                    match (next, quote) {
                        (' ' | '#' | '\\' | '"' | '\'', None) | ('"' | '\\' | '$', Some(_)) => word.push(next),
                        ('n', None) => word.push('\n'),
                        ('r', None) => word.push('\r'),
                        ('t', None) => word.push('\t'),
                        // A regex's own.
                        (next, _) => word.extend(['\\', next]),
                    }
                }
                None => return Err((at, "nothing stands behind this backslash")),
            },
            (letter, Some((open, _))) if letter == open => quote = None,
            (letter, Some(_)) => word.get_or_insert_default().push(letter),
            ('"' | '\'', None) => {
                word.get_or_insert_default();
                quote = Some((letter, at));
            }
            ('#', None) => break,
            (letter, None) if letter.is_whitespace() => words.extend(word.take()),
            (letter, None) => word.get_or_insert_default().push(letter),
        }
    }
    if let Some((_, at)) = quote {
        return Err((at, "this quote does not end"));
    }
    words.extend(word);
    Ok(words)
}
