//! Cuts a rule file into lines and lines into words, strings and regexes, each with its columns.
//!
//! Knows blanks, quotes and comments, and nothing of what the words mean.

use std::borrow::Cow;
use std::sync::Arc;

use super::report::Report;
use crate::model::{Fault, Place};

/// Bytes of a line, without its end.
pub(super) const LINE_BYTES: usize = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenKind {
    Word,
    /// `"..."`
    Text,
    /// `~"..."`
    Regex,
}

#[derive(Debug, Clone)]
pub(super) struct Token<'a> {
    pub kind: TokenKind,
    /// As it stands in the file, with quotes.
    pub raw: &'a str,
    /// Without quotes, escapes undone.
    pub value: Cow<'a, str>,
    /// In characters, from 1.
    pub column: u32,
    pub end: u32,
}

impl Token<'_> {
    /// Whether this is that word, unquoted.
    pub fn is(&self, word: &str) -> bool {
        self.kind == TokenKind::Word && self.raw == word
    }

    /// Operators are operators only as whole words.
    pub fn is_operator(&self) -> bool {
        self.kind == TokenKind::Word && matches!(self.raw, "&" | "|" | "=" | "!=" | "->")
    }

    pub fn is_one_of(&self, words: &[&str]) -> bool {
        self.kind == TokenKind::Word && words.contains(&self.raw)
    }

    /// The column of the value's character number `index`, from 0.
    pub fn column_at(&self, index: usize) -> u32 {
        let quote = match self.kind {
            TokenKind::Word => return (self.column + index as u32).min(self.end),
            TokenKind::Text => 1,
            TokenKind::Regex => 2,
        };
        let mut column = self.column + quote;
        let mut letters = self.raw.chars().skip(quote as usize).peekable();
        for _ in 0..index {
            let Some(letter) = letters.next() else { break };
            column += 1;
            let next = letters.peek().copied();
            let escaped = letter == '\\' && (next == Some('"') || (next == Some('\\') && self.kind == TokenKind::Text));
            if escaped {
                letters.next();
                column += 1;
            }
        }
        column.min(self.end - 1)
    }
}

/// One line that is not empty.
#[derive(Debug)]
pub(super) struct Line<'a> {
    /// From 1.
    pub number: u32,
    pub tokens: Vec<Token<'a>>,
    /// A fault cut it short: what follows the tokens is not known.
    pub broken: bool,
    /// A tab stands before the first token: its column says nothing.
    pub tabbed: bool,
}

impl<'a> Line<'a> {
    /// Column of the first token; 1 begins a section, list, map or expect.
    pub fn column(&self) -> u32 {
        self.tokens.first().map_or(1, |token| token.column)
    }

    /// Whether the line begins as a rule does: `name :`, `name:` or `name:condition`.
    pub fn is_named(&self) -> bool {
        match &self.tokens[..] {
            [first, rest @ ..] if first.kind == TokenKind::Word => match first.raw.find(':') {
                Some(at) => at > 0,
                None => rest.first().is_some_and(|t| t.kind == TokenKind::Word && t.raw.starts_with(':')),
            },
            _ => false,
        }
    }

    /// Takes the colon of a named line out, so that the first token is the name and the others are the rest.
    pub fn split_name(&mut self) {
        let Some(first) = self.tokens.first().cloned() else { return };
        match first.raw.find(':') {
            Some(at) => {
                let name = part(&first, 0, at);
                let rest = part(&first, at + 1, first.raw.len());
                self.tokens[0] = name;
                if !rest.raw.is_empty() {
                    self.tokens.insert(1, rest);
                }
            }
            None => {
                let Some(second) = self.tokens.get(1).filter(|t| t.raw.starts_with(':')).cloned() else { return };
                let rest = part(&second, 1, second.raw.len());
                if rest.raw.is_empty() {
                    self.tokens.remove(1);
                } else {
                    self.tokens[1] = rest;
                }
            }
        }
    }
}

/// Bytes `from..to` of a word as a word of its own; both lie beside a colon or at an end.
pub(super) fn part<'a>(word: &Token<'a>, from: usize, to: usize) -> Token<'a> {
    let raw: &'a str = word.raw.get(from..to).unwrap_or("");
    let before = word.raw.get(..from).map_or(0, |text| text.chars().count()) as u32;
    let column = word.column + before;
    let end = column + raw.chars().count() as u32;
    Token { kind: TokenKind::Word, raw, value: Cow::Borrowed(raw), column, end }
}

/// The lines of a file that say something.
pub(super) fn lines<'a>(file: &Arc<str>, text: &'a str, report: &mut Report<'_>) -> Vec<Line<'a>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut lines = Vec::new();
    for (index, line) in text.split('\n').enumerate() {
        let number = u32::try_from(index + 1).unwrap_or(u32::MAX);
        let line = line.strip_suffix('\r').unwrap_or(line);
        let line = Lexer { file, number, report: &mut *report }.line(line);
        if !line.tokens.is_empty() {
            lines.push(line);
        }
    }
    lines
}

struct Lexer<'l, 'f> {
    file: &'l Arc<str>,
    number: u32,
    report: &'l mut Report<'f>,
}

impl Lexer<'_, '_> {
    fn place(&self, column: u32, end: u32) -> Place {
        Place { file: self.file.clone(), line: self.number, column, end }
    }

    fn line<'a>(&mut self, whole: &'a str) -> Line<'a> {
        let text = self.bounded(whole);
        self.controls(text);
        let mut line =
            Line { number: self.number, tokens: Vec::new(), broken: text.len() < whole.len(), tabbed: false };
        let mut rest = text;
        let mut column = 1u32;
        let mut odd = None; // one a line is told
        loop {
            let trimmed = rest.trim_start();
            let blanks = rest.get(..rest.len() - trimmed.len()).unwrap_or("");
            line.tabbed |= line.tokens.is_empty() && blanks.contains('\t');
            odd = odd.or_else(|| self.odd_blank(blanks, column));
            column += blanks.chars().count() as u32;
            rest = trimmed;
            if rest.is_empty() || rest.starts_with('#') {
                return line;
            }
            // `x-beta:"a b"`: in facts and in `set header` a quote may follow the colon.
            let splits = line.tokens.first().is_some_and(|t| t.is("expect") && t.column == 1 || t.is("set"));
            let token = match self.token(rest, column, splits) {
                Ok(token) => token,
                Err(fault) => {
                    self.report.push(*fault);
                    line.broken = true;
                    return line;
                }
            };
            rest = rest.get(token.raw.len()..).unwrap_or("");
            column = token.end;
            if token.kind != TokenKind::Word && !rest.is_empty() && !rest.starts_with(char::is_whitespace) {
                let glued = rest.split(char::is_whitespace).next().unwrap_or("");
                let end = column + glued.chars().count() as u32;
                let fault = Fault::error("R0204", self.place(column, end), "text directly behind a closing quote");
                self.report.push(fault.help("put a blank between them, or write a quote inside a string as \\\""));
                line.broken = true;
                line.tokens.push(token);
                return line;
            }
            line.tokens.push(token);
        }
    }

    /// Tells of a blank that is not a space, such as U+00A0; it separates words all the same.
    fn odd_blank(&mut self, blanks: &str, column: u32) -> Option<()> {
        let at = blanks.chars().position(|letter| letter != ' ' && !letter.is_control())?;
        let column = column + at as u32;
        let fault = Fault::error("R0201", self.place(column, column + 1), "this blank is not a space");
        self.report.push(fault.help("use a space (U+0020), or quote the value"));
        Some(())
    }

    /// The line, cut where it is too long.
    fn bounded<'a>(&mut self, line: &'a str) -> &'a str {
        if line.len() <= LINE_BYTES {
            return line;
        }
        let kept = line.get(..line.floor_char_boundary(LINE_BYTES)).unwrap_or("");
        let column = kept.chars().count() as u32;
        let message = format!("a line of {} bytes; {LINE_BYTES} is the most", line.len());
        let fault = Fault::error("R0202", self.place(column, column + 1), message);
        self.report.push(fault.help("continue it on a deeper line that begins with & or |"));
        kept
    }

    /// Tabs and control characters are faults wherever they stand; one a line is told.
    fn controls(&mut self, text: &str) {
        if text.bytes().all(|b| (b' '..0x7f).contains(&b)) {
            return;
        }
        let Some((index, letter)) = text.chars().enumerate().find(|(_, letter)| letter.is_control()) else { return };
        let column = index as u32 + 1;
        let place = self.place(column, column + 1);
        self.report.push(match letter {
            '\t' => {
                Fault::error("R0201", place, "a tab; columns count here, and a tab has no fixed one").help("use spaces")
            }
            _ => Fault::error("R0201", place, format!("the control character U+{:04X}", u32::from(letter)))
                .help("remove it"),
        });
    }

    fn token<'a>(&mut self, rest: &'a str, column: u32, splits: bool) -> Result<Token<'a>, Box<Fault>> {
        if let Some(inner) = rest.strip_prefix("~\"") {
            return self.quoted(rest, inner, TokenKind::Regex, column);
        }
        if let Some(inner) = rest.strip_prefix('"') {
            return self.quoted(rest, inner, TokenKind::Text, column);
        }
        let mut length = rest.find(char::is_whitespace).unwrap_or(rest.len());
        if splits && let Some(at) = rest.get(..length).and_then(|word| word.find(":\"")) {
            length = at + 1;
        }
        let raw = rest.get(..length).unwrap_or("");
        let end = column + raw.chars().count() as u32;
        Ok(Token { kind: TokenKind::Word, raw, value: Cow::Borrowed(raw), column, end })
    }

    fn quoted<'a>(&self, rest: &'a str, inner: &'a str, kind: TokenKind, column: u32) -> Result<Token<'a>, Box<Fault>> {
        let opening = rest.len() - inner.len();
        let mut escapes = false;
        let mut letters = inner.char_indices();
        while let Some((at, letter)) = letters.next() {
            match letter {
                '\\' => match letters.clone().next() {
                    Some((_, '"')) => {
                        letters.next();
                        escapes = true;
                    }
                    // In a regex every other backslash is the regex's own, and takes its letter with it.
                    Some((_, '\\')) => {
                        letters.next();
                        escapes |= kind == TokenKind::Text;
                    }
                    _ => {}
                },
                '"' => {
                    let raw = rest.get(..opening + at + 1).unwrap_or("");
                    let body = inner.get(..at).unwrap_or("");
                    let value = if escapes { Cow::Owned(unescape(body, kind)) } else { Cow::Borrowed(body) };
                    let end = column + raw.chars().count() as u32;
                    return Ok(Token { kind, raw, value, column, end });
                }
                _ => {}
            }
        }
        let end = column + rest.trim_end().chars().count() as u32;
        let what = if kind == TokenKind::Regex { "regex" } else { "string" };
        let fault = Fault::error("R0203", self.place(column, end), format!("this {what} does not end"));
        Err(Box::new(fault.help("close it with \" on the same line; a quote inside it is written \\\"")))
    }
}

fn unescape(body: &str, kind: TokenKind) -> String {
    let mut value = String::with_capacity(body.len());
    let mut letters = body.chars();
    while let Some(letter) = letters.next() {
        if letter != '\\' {
            value.push(letter);
            continue;
        }
        match (letters.next(), kind) {
            (Some('"'), _) => value.push('"'),
            (Some('\\'), TokenKind::Text) => value.push('\\'),
            (Some(other), _) => value.extend(['\\', other]),
            (None, _) => value.push('\\'),
        }
    }
    value
}
