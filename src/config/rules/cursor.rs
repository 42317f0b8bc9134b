//! Walks over the tokens of one line and makes places of them.

use std::sync::Arc;

use super::lexer::{Line, Token, TokenKind};
use crate::model::{Fault, Place};

/// A fault that ends the reading of its line; the next line is read as if nothing had been.
pub(super) type Parsed<T> = Result<T, Box<Fault>>;

#[derive(Clone)]
pub(super) struct Cursor<'l, 'a> {
    pub file: &'l Arc<str>,
    pub number: u32,
    tokens: &'l [Token<'a>],
    at: usize,
}

impl<'l, 'a> Cursor<'l, 'a> {
    /// Over the tokens of `line` from number `from` on.
    pub fn new(file: &'l Arc<str>, line: &'l Line<'a>, from: usize) -> Cursor<'l, 'a> {
        Cursor { file, number: line.number, tokens: &line.tokens, at: from }
    }

    pub fn peek(&self) -> Option<&'l Token<'a>> {
        self.tokens.get(self.at)
    }

    /// The token behind the next.
    pub fn peek_second(&self) -> Option<&'l Token<'a>> {
        self.tokens.get(self.at + 1)
    }

    pub fn next(&mut self) -> Option<&'l Token<'a>> {
        let token = self.tokens.get(self.at)?;
        self.at += 1;
        Some(token)
    }

    /// Takes the next token where it is that unquoted word.
    pub fn accept(&mut self, word: &str) -> bool {
        let found = self.peek().is_some_and(|token| token.is(word));
        self.at += usize::from(found);
        found
    }

    /// The tokens before the next.
    pub fn taken(&self) -> &'l [Token<'a>] {
        self.tokens.get(..self.at).unwrap_or(&[])
    }

    /// The token before the next.
    pub fn last(&self) -> Option<&'l Token<'a>> {
        self.tokens.get(self.at.checked_sub(1)?)
    }

    pub fn place(&self, token: &Token<'_>) -> Place {
        self.columns(token.column, token.end)
    }

    pub fn columns(&self, column: u32, end: u32) -> Place {
        Place { file: self.file.clone(), line: self.number, column, end }
    }

    /// From one token to another.
    pub fn span(&self, from: &Token<'_>, to: &Token<'_>) -> Place {
        self.columns(from.column, to.end.max(from.end))
    }

    /// From `from` to the last token that was taken.
    pub fn since(&self, from: &Token<'_>) -> Place {
        self.span(from, self.last().unwrap_or(from))
    }

    /// The next token, else the last of the line: where a fault about something missing points.
    pub fn here(&self) -> Place {
        match self.peek().or(self.tokens.last()) {
            Some(token) => self.place(token),
            None => self.columns(1, 1),
        }
    }

    /// The next token where it is a value: a word that is no operator, or a string.
    pub fn value(&mut self) -> Option<&'l Token<'a>> {
        let token = self.peek().filter(|token| !token.is_operator() && token.kind != TokenKind::Regex)?;
        self.at += 1;
        Some(token)
    }

    /// The tokens from here to the end of the line as they were written, with single blanks.
    pub fn rest_text(&self) -> String {
        let words: Vec<&str> = self.tokens.get(self.at..).unwrap_or(&[]).iter().map(|t| t.raw).collect();
        words.join(" ")
    }

    /// A fault where something is left over.
    pub fn finish(&self) -> Parsed<()> {
        let (Some(next), Some(last)) = (self.peek(), self.tokens.last()) else { return Ok(()) };
        let place = self.span(next, last);
        Err(Box::new(Fault::error(
            "R0205",
            place,
            format!("nothing more is expected here, but there is `{}`", next.raw),
        )))
    }
}
