//! Conditions: terms joined by `&`, each one test with its patterns joined by `|`.
//!
//! A condition may go on on deeper lines, which begin with `&` or `|`; so the last test stays open
//! for more patterns until its rule ends.

use super::action::{ACTIONS, action};
use super::cursor::{Cursor, Parsed};
use super::draft::Draft;
use super::key::key;
use super::lexer::{Token, TokenKind, part};
use super::pattern::{self, Captured};
use super::scope::Scope;
use super::value::{another_word, body_part, field_name, lacks, list, net, one_value, share, value_test, word_value};
use crate::config::closest::closest;
use crate::model::Fault;
use crate::model::rule::{CertificateField, CertificateTest, Kind, Pattern, Patterns, Sources, Term, Test, ValueTest};

pub(super) const CONDITIONS: [&str; 16] = [
    "any",
    "path",
    "host",
    "method",
    "header",
    "cookie",
    "query",
    "from",
    "content-type",
    "sni",
    "alpn",
    "listener",
    "chance",
    "client-cert",
    "body",
    "no-tls",
];
/// What is known of a connection whose bytes stay sealed.
const SEALED: [&str; 7] = ["any", "sni", "alpn", "from", "listener", "chance", "no-tls"];
/// Terms of one rule, and keys and templates with captures: more is no rule that a person wrote.
const TERMS: usize = 256;

/// The rest of a line of a rule: a condition, or more of it, and the action where it stands there.
/// `first`: the rule's own line, which does not begin with an operator.
pub(super) fn condition(
    cursor: &mut Cursor<'_, '_>,
    draft: &mut Draft,
    scope: &mut Scope<'_, '_>,
    first: bool,
) -> Parsed<()> {
    if first {
        term(cursor, draft, scope)?;
    }
    loop {
        let Some(token) = cursor.peek() else {
            note_near_action(cursor, draft);
            return Ok(());
        };
        if token.is("&") {
            cursor.next();
            if cursor.peek().is_none() {
                let fault = Fault::error("R0223", cursor.place(token), "`&` at the end of the line");
                return Err(Box::new(fault.help("begin the next, deeper line with it")));
            }
            term(cursor, draft, scope)?;
        } else if token.is("|") {
            alternatives(cursor, draft, scope)?;
        } else if token.is_one_of(&ACTIONS) {
            return act(token, cursor, draft, scope);
        } else {
            return Err(Box::new(left_over(token, cursor, draft)));
        }
    }
}

fn act(token: &Token<'_>, cursor: &mut Cursor<'_, '_>, draft: &mut Draft, scope: &mut Scope<'_, '_>) -> Parsed<()> {
    let first = draft.action.as_ref().map(|(_, place)| place.clone());
    let place = cursor.place(token);
    match action(cursor, draft, scope)? {
        Some(_) if first.is_some() => {}
        Some(action) => draft.action = Some((action, place.clone())),
        None => draft.failed = true,
    }
    if let Some(first) = first {
        let fault = Fault::error("R0245", place, format!("rule `{}` has an action already", draft.name));
        scope.tell(fault.also(first, "the first one"));
        draft.failed = true;
    }
    Ok(())
}

/// A line without action may hold a mistyped one.
fn note_near_action(cursor: &Cursor<'_, '_>, draft: &mut Draft) {
    if draft.action.is_none() && draft.near_action.is_none() {
        // Only words of a list swallow an action; what follows these is a name or a value.
        let takes_name =
            |before: &Token<'_>| before.is_operator() || before.is_one_of(&["header", "cookie", "query", "form", "in"]);
        draft.near_action = cursor
            .taken()
            .windows(2)
            .filter_map(|pair| if let [before, token] = pair { (!takes_name(before)).then_some(token) } else { None })
            .filter(|token| token.kind == TokenKind::Word && !CONDITIONS.contains(&token.raw))
            .find_map(|token| Some((closest(token.raw, ACTIONS)?, cursor.place(token))));
    }
}

/// Says what a token means that neither goes on with the condition nor begins the action.
fn left_over(token: &Token<'_>, cursor: &Cursor<'_, '_>, draft: &Draft) -> Fault {
    let place = cursor.place(token);
    let raw = token.raw;
    if token.is_one_of(&CONDITIONS) {
        return Fault::error("R0223", place, "conditions are joined by `&`").did_you_mean(format!("& {raw}"));
    }
    if token.kind == TokenKind::Word
        && let Some(near) = closest(raw, ACTIONS)
    {
        return Fault::error("R0221", place, format!("`{raw}` is no action")).allowed(ACTIONS).did_you_mean(near);
    }
    if matches!(raw, "&&" | "and" | "AND" | ",") {
        return Fault::error("R0223", place, "conditions are joined by `&`").did_you_mean("&");
    }
    if matches!(raw, "||" | "or" | "OR") {
        return Fault::error("R0223", place, "patterns of one test are joined by `|`").did_you_mean("|");
    }
    match draft.terms.last().map(|term| &term.test) {
        _ if token.is_operator() => {
            Fault::error("R0223", place, format!("`{raw}` means nothing here")).help("quote it where it is a value")
        }
        Some(Test::Path(_) | Test::Host(_) | Test::Sni(_) | Test::ContentType(_)) if draft.conditioned => {
            Fault::error("R0222", place, "join patterns with `|`").did_you_mean(format!("| {raw}"))
        }
        Some(Test::Header { check, .. } | Test::Cookie { check, .. } | Test::Query { check, .. }) => match check {
            ValueTest::Present => Fault::error("R0222", place, "a value stands behind `=`")
                .allowed(["=", "!=", "~\"REGEX\"", "in LIST"])
                .did_you_mean(format!("= {raw}")),
            _ => Fault::error("R0222", place, "join values with `|`").did_you_mean(format!("| {raw}")),
        },
        _ => Fault::error("R0221", place, format!("`{raw}` is no action")).allowed(ACTIONS),
    }
}

/// One test with its patterns, and `!` before it.
fn term(cursor: &mut Cursor<'_, '_>, draft: &mut Draft, scope: &mut Scope<'_, '_>) -> Parsed<()> {
    let Some(start) = cursor.next() else {
        let fault = Fault::error("R0220", cursor.here(), "a condition is missing");
        return Err(Box::new(fault.allowed(CONDITIONS).help("`any` takes every request")));
    };
    if draft.terms.len() >= TERMS {
        let fault = Fault::error("R0223", cursor.place(start), format!("more than {TERMS} conditions in one rule"));
        return Err(Box::new(fault.help("use a list: `in NAME`")));
    }
    let mut negated = false;
    let mut word = start.clone();
    if start.is("!") {
        negated = true;
        word = match cursor.next() {
            Some(token) => token.clone(),
            None => return Err(Box::new(Fault::error("R0223", cursor.place(start), "`!` stands before a condition"))),
        };
    } else if start.kind == TokenKind::Word && start.raw.starts_with('!') && !start.is_operator() {
        negated = true;
        word = part(start, 1, start.raw.len());
    }
    let test = test(&word, cursor, draft, scope)?;
    let place = cursor.since(start);
    draft.conditioned = true;
    match test {
        Some(test) => {
            draft.after_any = false;
            draft.terms.push(Term { negated, test, place });
            // Patterns of a negated path capture nothing: the rule is taken where none of them matched.
            if negated {
                draft.captured.retain(|(term, ..)| *term + 1 != draft.terms.len());
            }
            alternatives(cursor, draft, scope)
        }
        None if negated => {
            let fault = Fault::error("R0223", place, "`!any` never holds");
            Err(Box::new(fault.help("remove the rule, or write the condition it is for")))
        }
        None => {
            draft.after_any = true;
            Ok(())
        }
    }
}

/// The test that `word` names, with its first pattern; `None` for `any`.
fn test(
    word: &Token<'_>,
    cursor: &mut Cursor<'_, '_>,
    draft: &mut Draft,
    scope: &mut Scope<'_, '_>,
) -> Parsed<Option<Test>> {
    let known = word.is_one_of(&CONDITIONS);
    if !known {
        return Err(Box::new(unknown_condition(word, cursor)));
    }
    let name = word.raw;
    if draft.kind == Kind::Tcp && !SEALED.contains(&name) {
        let fault = Fault::error(
            "R0220",
            cursor.place(word),
            format!("a tcp section knows no `{name}`: the bytes stay sealed"),
        );
        scope.tell(fault.allowed(SEALED));
        draft.failed = true;
    }
    if draft.kind != Kind::Tcp && name == "no-tls" {
        let fault = Fault::error("R0220", cursor.place(word), "`no-tls` is for tcp sections");
        scope.tell(fault.help("here every request has been understood already"));
        draft.failed = true;
    }
    Ok(Some(match name {
        "any" => return Ok(None),
        "no-tls" => Test::NoTls,
        "path" | "host" | "sni" | "content-type" => {
            let patterns = patterns(name, cursor, draft, scope)?;
            match name {
                "path" => Test::Path(patterns),
                "host" => Test::Host(patterns),
                "sni" => Test::Sni(patterns),
                _ => Test::ContentType(patterns),
            }
        }
        "header" | "cookie" | "query" => {
            let field = field_name(name, cursor, scope)?;
            let check = value_test(name, true, cursor, draft, scope)?;
            match name {
                "header" => Test::Header { name: field.to_ascii_lowercase().into(), check },
                "cookie" => Test::Cookie { name: field, check },
                _ => Test::Query { name: field, check },
            }
        }
        "method" | "alpn" | "listener" => {
            let mut words = Vec::new();
            let Some(token) = cursor.peek().filter(|token| token.kind != TokenKind::Regex && !ends_words(token)) else {
                return Err(Box::new(lacks(name, "a value", cursor)));
            };
            cursor.next();
            words.push(word_value(name, token, cursor, scope)?);
            match name {
                "method" => Test::Method(words),
                "alpn" => Test::Alpn(words),
                _ => Test::Listener(words),
            }
        }
        "from" => {
            if cursor.accept("in") {
                let list = list(cursor, draft, scope)?;
                scope.check_nets(list);
                Test::From(Sources::InList(list))
            } else {
                let Some(token) = cursor.peek().filter(|token| token.kind != TokenKind::Regex && !ends_words(token))
                else {
                    return Err(Box::new(lacks(name, "an address or network", cursor)));
                };
                cursor.next();
                let net = net(token, cursor, scope)?;
                draft.failed |= net.is_none();
                Test::From(Sources::Nets(net.into_iter().collect()))
            }
        }
        "client-cert" => {
            let field = match cursor.peek().map(|token| token.raw) {
                Some("subject") => Some(CertificateField::Subject),
                Some("san") => Some(CertificateField::San),
                Some("issuer") => Some(CertificateField::Issuer),
                Some("fingerprint") => Some(CertificateField::Fingerprint),
                _ => None,
            };
            match field {
                Some(field) => {
                    cursor.next();
                    let check = value_test(name, false, cursor, draft, scope)?;
                    Test::ClientCertificate(Some(CertificateTest { field, check }))
                }
                None => Test::ClientCertificate(None),
            }
        }
        "body" => {
            let body = body_part(cursor)?;
            Test::Body { part: body, check: value_test(name, false, cursor, draft, scope)? }
        }
        _ => {
            let Some(token) = cursor.next() else { return Err(Box::new(lacks(name, "a percentage", cursor))) };
            let share = share(token, cursor)?;
            let of = if cursor.accept("of") { Some(key(cursor, draft, scope, "of")?) } else { None };
            Test::Chance { share, of }
        }
    }))
}

fn unknown_condition(word: &Token<'_>, cursor: &Cursor<'_, '_>) -> Fault {
    let place = cursor.place(word);
    if word.is_one_of(&ACTIONS) {
        let fault = Fault::error("R0220", place, format!("no condition stands before `{}`", word.raw));
        return fault.did_you_mean(format!("any {}", word.raw));
    }
    if word.is_operator() || word.raw.is_empty() {
        return Fault::error("R0223", place, format!("a condition is missing before `{}`", word.raw))
            .allowed(CONDITIONS);
    }
    if word.raw.starts_with('(') || word.raw.ends_with(')') {
        return Fault::error("R0223", place, "there are no parentheses")
            .help("write two rules; the first that matches wins");
    }
    let fault = Fault::error("R0220", place, format!("`{}` is no condition", word.raw)).allowed(CONDITIONS);
    if word.raw.starts_with('/') || word.raw.starts_with("*.") || word.kind == TokenKind::Regex {
        return fault.did_you_mean(format!("path {}", word.raw));
    }
    match closest(word.raw, CONDITIONS) {
        Some(near) => fault.did_you_mean(near),
        None => match word.raw {
            "uri" | "url" | "prefix" => fault.did_you_mean("path"),
            "src" | "source" | "ip" => fault.did_you_mean("from"),
            "default" | "all" | "else" | "*" => fault.did_you_mean("any"),
            _ => fault,
        },
    }
}

/// `in NAME`, or the first pattern of a `path`, `host`, `sni` or `content-type`.
fn patterns(name: &str, cursor: &mut Cursor<'_, '_>, draft: &mut Draft, scope: &mut Scope<'_, '_>) -> Parsed<Patterns> {
    if cursor.accept("in") {
        return Ok(Patterns::InList(list(cursor, draft, scope)?));
    }
    let term = draft.terms.len();
    Ok(Patterns::AnyOf(vec![pattern(name, term, cursor, draft, scope)?]))
}

/// One pattern; `term` is the number of its term, for what it captures.
fn pattern(
    name: &str,
    term: usize,
    cursor: &mut Cursor<'_, '_>,
    draft: &mut Draft,
    scope: &mut Scope<'_, '_>,
) -> Parsed<Pattern> {
    if let Some(token) = cursor.peek().filter(|token| token.is("=") || token.raw == "==") {
        let fault = Fault::error("R0223", cursor.place(token), format!("a pattern stands directly behind `{name}`"));
        return Err(Box::new(fault.help(format!("leave the `{}` out", token.raw))));
    }
    let Some(token) = cursor.peek().filter(|token| !token.is_operator() && !swallows_action(token, cursor)) else {
        return Err(Box::new(lacks(name, "a pattern", cursor)));
    };
    cursor.next();
    let place = cursor.place(token);
    let told = scope.report.told();
    let text = token.value.as_ref();
    let captured = match token.kind {
        TokenKind::Regex => pattern::regex(token, cursor, scope),
        _ if name == "path" => pattern::path_glob(token, cursor, scope),
        _ => {
            name_glob(name, token, cursor, scope);
            Captured::default()
        }
    };
    // What a wrong pattern would have captured is not known.
    draft.failed |= scope.report.told() != told;
    if name == "path" {
        draft.captured.push((term, token.raw.to_owned(), captured));
    }
    if token.kind == TokenKind::Regex {
        return Ok(Pattern::Regex { text: text.into(), place });
    }
    if name == "path" {
        return Ok(Pattern::Glob { text: text.into(), place });
    }
    Ok(Pattern::Glob { text: text.to_ascii_lowercase().into(), place })
}

/// Judges the pattern of a `host`, `sni` or `content-type`: compared in lower case, nothing captured.
fn name_glob(name: &str, token: &Token<'_>, cursor: &Cursor<'_, '_>, scope: &mut Scope<'_, '_>) {
    let text = token.value.as_ref();
    let fault = |message: &str| Fault::error("R0225", cursor.place(token), message);
    if text.is_empty() {
        scope.tell(fault("an empty pattern"));
    } else if text.contains(['{', '}']) {
        scope.tell(fault("only a path captures").help("use `*` for any run of letters"));
    } else if name == "content-type" {
        if !text.contains(['/', '*']) {
            scope.tell(fault("a content type has a `/`").help("such as text/html or image/*"));
        }
    } else if text.contains('/') {
        scope.tell(fault("a host has no path").help("add a condition: `& path ...`"));
    } else if let Some((host, port)) = text.rsplit_once(':')
        && !host.contains(':')
        && port.bytes().all(|b| b.is_ascii_digit())
    {
        scope.tell(fault("hosts are compared without port").did_you_mean(host));
    } else if !text.is_ascii() {
        scope.tell(fault("host names are ASCII").help("write the punycode form that clients send: xn--..."));
    }
}

/// Whether the next token, where a pattern should be, is rather the action: it is an action word, and what follows
/// it could not follow a pattern.
pub(super) fn swallows_action(token: &Token<'_>, cursor: &Cursor<'_, '_>) -> bool {
    token.is_one_of(&ACTIONS)
        && !cursor.peek_second().is_some_and(|next| next.is_operator() || next.is_one_of(&ACTIONS))
}

/// An action word or an operator ends a list of words, unless it is quoted.
fn ends_words(token: &Token<'_>) -> bool {
    token.is_operator() || token.is_one_of(&ACTIONS)
}

/// More patterns of the last test: behind `|`, and in word lists without it.
fn alternatives(cursor: &mut Cursor<'_, '_>, draft: &mut Draft, scope: &mut Scope<'_, '_>) -> Parsed<()> {
    let open = if draft.after_any { None } else { draft.terms.pop() };
    let Some(mut last) = open else {
        let fault = Fault::error("R0223", cursor.here(), "`|` joins patterns of one test, and none stands before it");
        return Err(Box::new(fault.did_you_mean("&")));
    };
    let number = draft.terms.len();
    let held = draft.captured.len();
    let result = more(&mut last, number, cursor, draft, scope);
    if last.negated {
        draft.captured.truncate(held);
    }
    draft.terms.push(last);
    result
}

fn more(
    last: &mut Term,
    number: usize,
    cursor: &mut Cursor<'_, '_>,
    draft: &mut Draft,
    scope: &mut Scope<'_, '_>,
) -> Parsed<()> {
    loop {
        let joined = cursor.peek().is_some_and(|token| token.is("|"));
        let words =
            matches!(last.test, Test::Method(_) | Test::Alpn(_) | Test::Listener(_) | Test::From(Sources::Nets(_)));
        match cursor.peek() {
            None => return Ok(()),
            Some(_) if joined => {}
            Some(token) if words && token.kind != TokenKind::Regex && !ends_words(token) => {}
            Some(_) => return Ok(()),
        }
        if joined {
            let bar = cursor.next();
            let Some(next) = cursor.peek() else {
                let place = bar.map_or_else(|| cursor.here(), |bar| cursor.place(bar));
                let fault = Fault::error("R0223", place, "`|` at the end of the line");
                return Err(Box::new(fault.help("begin the next, deeper line with it")));
            };
            // `path /a | path /b`, `path /a | header x`
            if next.is_one_of(&CONDITIONS)
                && cursor.peek_second().is_some_and(|t| !t.is_operator() && !t.is_one_of(&ACTIONS))
            {
                let place = cursor.place(next);
                let fault = Fault::error("R0223", place, "`|` joins patterns of one test, not conditions");
                return Err(Box::new(
                    fault.help("leave the word out if it is the same test, else write a second rule"),
                ));
            }
        }
        match &mut last.test {
            Test::Path(Patterns::AnyOf(patterns)) => patterns.push(pattern("path", number, cursor, draft, scope)?),
            Test::Host(Patterns::AnyOf(patterns)) => patterns.push(pattern("host", number, cursor, draft, scope)?),
            Test::Sni(Patterns::AnyOf(patterns)) => patterns.push(pattern("sni", number, cursor, draft, scope)?),
            Test::ContentType(Patterns::AnyOf(patterns)) => {
                patterns.push(pattern("content-type", number, cursor, draft, scope)?);
            }
            Test::Header { check: ValueTest::Equals(values) | ValueTest::Differs(values), .. }
            | Test::Cookie { check: ValueTest::Equals(values) | ValueTest::Differs(values), .. }
            | Test::Query { check: ValueTest::Equals(values) | ValueTest::Differs(values), .. } => {
                values.push(one_value("|", cursor)?);
            }
            Test::Method(words) => words.push(another_word("method", joined, cursor, scope)?),
            Test::Alpn(words) => words.push(another_word("alpn", joined, cursor, scope)?),
            Test::Listener(words) => words.push(another_word("listener", joined, cursor, scope)?),
            Test::From(Sources::Nets(nets)) => {
                let Some(token) = cursor.value() else {
                    return Err(Box::new(lacks("|", "an address or network", cursor)));
                };
                match net(token, cursor, scope)? {
                    Some(net) => nets.push(net),
                    None => draft.failed = true,
                }
            }
            _ => {
                let place = cursor.last().map_or_else(|| cursor.here(), |bar| cursor.place(bar));
                let fault = Fault::error("R0223", place, "this test has no patterns that `|` could join");
                return Err(Box::new(fault.help("join conditions with `&`, or write a second rule")));
            }
        }
        last.place.end = cursor.last().map_or(last.place.end, |token| match last.place.line == cursor.number {
            true => token.end,
            false => last.place.end,
        });
    }
}
