//! The text as a tree of directives.

use crate::app::import::site::Account;
use crate::model::fault::{Fault, Place};

/// Blocks within blocks; http, server, location and `if` are four.
const DEEPEST: usize = 32;

#[derive(Debug, Default)]
pub struct Directive {
    pub name: String,
    pub args: Vec<String>,
    pub block: Option<Vec<Directive>>,
    pub line: u32,
    /// Its number in the account.
    pub item: usize,
}

impl Directive {
    pub fn arg(&self, at: usize) -> &str {
        self.args.get(at).map_or("", String::as_str)
    }

    pub fn body(&self) -> &[Directive] {
        self.block.as_deref().unwrap_or_default()
    }
}

struct Reader<'t> {
    file: &'t str,
    rest: &'t str,
    line: u32,
    column: u32,
}

enum Token {
    Word(String),
    Open,
    Close,
    End,
}

pub fn read(file: &str, text: &str, account: &mut Account) -> Result<Vec<Directive>, Box<Fault>> {
    let mut reader = Reader { file, rest: text.strip_prefix('\u{feff}').unwrap_or(text), line: 1, column: 1 };
    // One list of directives for each block that is open; the first is the text's own.
    let mut open: Vec<Vec<Directive>> = vec![Vec::new()];
    let mut words: Vec<String> = Vec::new();
    let mut start = 0;
    loop {
        let (line, column) = reader.blanks();
        let Some(token) = reader.token()? else {
            if words.is_empty() && open.len() == 1 {
                return Ok(open.pop().unwrap_or_default());
            }
            return Err(reader.fault(
                line,
                column,
                "the text ends inside a directive or block: a `;` or `}` is missing",
            ));
        };
        let directive = |words: &mut Vec<String>, account: &mut Account, line| {
            let item = account.enter(line, &words.join(" "));
            let args = words.split_off(1);
            Directive { name: words.pop().unwrap_or_default(), args, block: None, line, item }
        };
        match token {
            Token::Word(word) => {
                if words.is_empty() {
                    start = line;
                }
                words.push(word);
            }
            Token::End | Token::Open if words.is_empty() => {
                return Err(reader.fault(line, column, "no directive stands before this"));
            }
            Token::End => {
                let done = directive(&mut words, account, start);
                open.last_mut().map(|list| list.push(done)).unwrap_or_default();
            }
            Token::Open if words.first().is_some_and(|name| name.ends_with("_by_lua_block")) => {
                reader.skip_block(line, column)?;
                let done = directive(&mut words, account, start);
                open.last_mut().map(|list| list.push(done)).unwrap_or_default();
            }
            Token::Open => {
                if open.len() > DEEPEST {
                    return Err(reader.fault(line, column, "blocks within blocks, deeper than 32"));
                }
                let done = directive(&mut words, account, start);
                open.last_mut().map(|list| list.push(done)).unwrap_or_default();
                open.push(Vec::new());
            }
            Token::Close if words.is_empty() && open.len() > 1 => {
                let block = open.pop();
                if let Some(own) = open.last_mut().and_then(|list| list.last_mut()) {
                    own.block = block;
                }
            }
            Token::Close => {
                return Err(reader.fault(line, column, "a `}` that closes nothing, or a `;` is missing before it"));
            }
        }
    }
}

impl Reader<'_> {
    fn fault(&self, line: u32, column: u32, message: &str) -> Box<Fault> {
        Box::new(Fault::error("R0160", Place { file: self.file.into(), line, column, end: column + 1 }, message))
    }

    fn next(&mut self) -> Option<char> {
        let letter = self.rest.chars().next()?;
        self.rest = self.rest.get(letter.len_utf8()..).unwrap_or("");
        match letter {
            '\n' => {
                self.line = self.line.saturating_add(1);
                self.column = 1;
            }
            _ => self.column = self.column.saturating_add(1),
        }
        Some(letter)
    }

    /// Skips blanks and comments; answers where the next token begins.
    fn blanks(&mut self) -> (u32, u32) {
        while let Some(letter) = self.rest.chars().next() {
            match letter {
                '#' => while self.next().is_some_and(|letter| letter != '\n') {},
                ' ' | '\t' | '\r' | '\n' => drop(self.next()),
                _ => break,
            }
        }
        (self.line, self.column)
    }

    fn token(&mut self) -> Result<Option<Token>, Box<Fault>> {
        let (line, column) = (self.line, self.column);
        let Some(first) = self.rest.chars().next() else { return Ok(None) };
        let single = match first {
            ';' => Some(Token::End),
            '{' => Some(Token::Open),
            '}' => Some(Token::Close),
            _ => None,
        };
        if single.is_some() {
            self.next();
            return Ok(single);
        }
        let quote = matches!(first, '"' | '\'').then_some(first);
        if quote.is_some() {
            self.next();
        }
        let mut word = String::new();
        loop {
            let Some(letter) = self.rest.chars().next() else {
                return match quote {
                    Some(_) => Err(self.fault(line, column, "this string does not end")),
                    None => Ok(Some(Token::Word(word))),
                };
            };
            match (letter, quote) {
                ('\\', _) => {
                    self.next();
                    match self.next() {
                        Some(escaped @ ('"' | '\'' | '\\')) => word.push(escaped),
                        Some('t') => word.push('\t'),
                        Some('r') => word.push('\r'),
                        Some('n') => word.push('\n'),
                        Some(other) => word.extend(['\\', other]),
                        None => word.push('\\'),
                    }
                }
                (letter, Some(quote)) if letter == quote => {
                    self.next();
                    return Ok(Some(Token::Word(word)));
                }
                (' ' | '\t' | '\r' | '\n' | ';' | '{', None) => {
                    // `${name}` is a variable.
                    if letter == '{' && word.ends_with('$') {
                        word.push('{');
                        self.next();
                        continue;
                    }
                    return Ok(Some(Token::Word(word)));
                }
                _ => {
                    word.push(letter);
                    self.next();
                }
            }
        }
    }

    /// Lua is not read: its braces are counted.
    fn skip_block(&mut self, line: u32, column: u32) -> Result<(), Box<Fault>> {
        let mut depth = 1usize;
        while depth > 0 {
            match self.next() {
                Some('{') => depth += 1,
                Some('}') => depth -= 1,
                Some(_) => {}
                None => return Err(self.fault(line, column, "this block does not end")),
            }
        }
        Ok(())
    }
}
