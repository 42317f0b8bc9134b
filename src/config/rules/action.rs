//! Actions: what is done with a request that a rule takes.

use super::amount::code;
use super::condition::CONDITIONS;
use super::cursor::{Cursor, Parsed};
use super::draft::Draft;
use super::key::{key, parse_key, template};
use super::lexer::{Token, TokenKind};
use super::pattern::encoded;
use super::scope::Scope;
use super::value::share;
use crate::config::closest::closest;
use crate::model::Fault;
use crate::model::rule::{Action, Kind, Target, TemplatePart};

pub(super) const ACTIONS: [&str; 5] = ["use", "redirect", "answer", "deny", "drop"];
const REDIRECTS: [u16; 5] = [301, 302, 303, 307, 308];
/// Codes that answer a request for good and may have the text of `answer` as their body.
const NO_ANSWERS: [u16; 3] = [204, 205, 304];

/// Reads an action to the end of its line; the cursor stands on its first word. `None`: a fault was told.
pub(super) fn action(
    cursor: &mut Cursor<'_, '_>,
    draft: &mut Draft,
    scope: &mut Scope<'_, '_>,
) -> Parsed<Option<Action>> {
    let Some(word) = cursor.next() else { return Ok(None) };
    if draft.kind == Kind::Tcp && matches!(word.raw, "redirect" | "answer") {
        let fault = Fault::error(
            "R0221",
            cursor.place(word),
            format!("a tcp section cannot `{}`: the bytes stay sealed", word.raw),
        );
        return Err(Box::new(fault.allowed(["use", "deny", "drop"])));
    }
    let action = match word.raw {
        "use" => use_action(cursor, draft, scope)?,
        "redirect" => redirect(cursor, draft, scope)?,
        "answer" => Some(answer(cursor)?),
        "deny" => Some(Action::Deny),
        _ => Some(Action::Drop),
    };
    if let Some(next) = cursor.peek() {
        let fault = match (word.raw, next) {
            ("deny" | "drop", next) if next.kind == TokenKind::Text => {
                Fault::error("R0205", cursor.place(next), format!("`{}` sends no text", word.raw))
                    .help(format!("write: answer 403 {}", next.raw))
            }
            (_, next) if next.is("&") || next.is("|") => {
                Fault::error("R0205", cursor.place(next), "the action ends its line")
                    .help("conditions stand before the action")
            }
            ("use", next) if parse_key(next.raw).is_some() => {
                Fault::error("R0205", cursor.place(next), "a key stands behind `by`")
                    .did_you_mean(format!("by {}", next.raw))
            }
            ("use", next) if closest(next.raw, ["by", "else"]).is_some() => {
                Fault::error("R0205", cursor.place(next), format!("`{}` is not expected here", next.raw))
                    .did_you_mean(closest(next.raw, ["by", "else"]).unwrap_or("by"))
            }
            (_, next) if next.is_one_of(&ACTIONS) => {
                Fault::error("R0245", cursor.place(next), "a rule has one action").help("write a second rule")
            }
            (_, next) if next.is_one_of(&CONDITIONS) => {
                Fault::error("R0205", cursor.place(next), "conditions stand before the action")
                    .help("the action ends its line")
            }
            _ => return cursor.finish().map(|()| None),
        };
        return Err(Box::new(fault));
    }
    Ok(action)
}

fn use_action(cursor: &mut Cursor<'_, '_>, draft: &mut Draft, scope: &mut Scope<'_, '_>) -> Parsed<Option<Action>> {
    if cursor.peek().is_some_and(|token| token.is("map"))
        && cursor.peek_second().is_some_and(|next| !next.is("by") && !is_share(next))
    {
        return map(cursor, draft, scope);
    }
    let Some(first) = pool_word(cursor) else {
        let fault = Fault::error(
            "R0240",
            cursor.last().map_or_else(|| cursor.here(), |t| cursor.place(t)),
            "`use` needs a pool",
        );
        return Err(Box::new(fault.allowed(scope.names.pools.iter().take(super::scope::LISTED).map(|name| &**name))));
    };
    let pool = scope.pool(first, cursor);
    let target = match cursor.peek() {
        Some(next) if is_share(next) => split(first, pool, cursor, scope)?,
        Some(next) if next.is("else") => {
            let fault = Fault::error(
                "R0232",
                cursor.place(next),
                format!("`else` takes the rest of a split, and `{}` has no share", first.value),
            );
            return Err(Box::new(fault.did_you_mean("10% else")));
        }
        _ => pool.map(Target::Pool),
    };
    let by = if cursor.accept("by") { Some(key(cursor, draft, scope, "by")?) } else { None };
    Ok(target.map(|target| Action::Use { target, by }))
}

/// A pool's name: not a word that goes on with the line.
fn pool_word<'l, 'a>(cursor: &mut Cursor<'l, 'a>) -> Option<&'l Token<'a>> {
    cursor.peek().filter(|token| !token.is("by") && !token.is("else") && !is_share(token))?;
    cursor.value()
}

/// A percentage, or a number that was meant as one.
fn is_share(token: &Token<'_>) -> bool {
    token.kind == TokenKind::Word
        && token.raw.starts_with(|c: char| c.is_ascii_digit())
        && token.raw.bytes().all(|b| b.is_ascii_digit() || b == b'.' || b == b'%')
}

/// `POOL percent { POOL percent } else POOL`, from the first percentage on.
fn split(
    first: &Token<'_>,
    pool: Option<usize>,
    cursor: &mut Cursor<'_, '_>,
    scope: &mut Scope<'_, '_>,
) -> Parsed<Option<Target>> {
    let mut shares = Vec::new();
    let mut pool = pool;
    let mut total = 0;
    while let Some(token) = cursor.next() {
        let share = share(token, cursor)?;
        total += share;
        if total > 10_000 {
            let place = cursor.span(first, token);
            let sum = format!("the shares sum to {}.{:02}%, more than 100%", total / 100, total % 100);
            return Err(Box::new(Fault::error("R0233", place, sum).help("`else` takes what the shares leave")));
        }
        shares.push((pool, share));
        if cursor.accept("else") {
            break;
        }
        let Some(next) = pool_word(cursor) else {
            let fault =
                Fault::error("R0233", cursor.span(first, token), "a split needs `else` and the pool that has the rest");
            return Err(Box::new(fault.did_you_mean(format!("{} {} else POOL", first.raw, token.raw))));
        };
        pool = scope.pool(next, cursor);
        if !cursor.peek().is_some_and(is_share) {
            let fault = Fault::error("R0232", cursor.place(next), format!("`{}` has no share", next.value));
            return Err(Box::new(fault.did_you_mean(format!("else {}", next.raw))));
        }
    }
    let Some(rest) = pool_word(cursor) else {
        let place = cursor.last().map_or_else(|| cursor.here(), |token| cursor.place(token));
        return Err(Box::new(Fault::error("R0240", place, "`else` needs a pool")));
    };
    let otherwise = scope.pool(rest, cursor);
    if let Some(next) = cursor.peek().filter(|next| is_share(next)) {
        let fault = Fault::error("R0233", cursor.place(next), "the pool behind `else` takes what the shares leave");
        return Err(Box::new(fault.help("leave this share out")));
    }
    let shares: Option<Vec<(usize, u32)>> = shares.into_iter().map(|(pool, share)| Some((pool?, share))).collect();
    Ok(shares.zip(otherwise).map(|(shares, otherwise)| Target::Split { shares, otherwise }))
}

/// `map NAME key [else POOL]`.
fn map(cursor: &mut Cursor<'_, '_>, draft: &mut Draft, scope: &mut Scope<'_, '_>) -> Parsed<Option<Action>> {
    cursor.next();
    let Some(name) = cursor.value() else {
        return Err(Box::new(Fault::error("R0231", cursor.here(), "`use map` needs the name of a map")));
    };
    let found = scope.map(name, cursor);
    if let Some(index) = found {
        scope.check_pools(index);
    }
    if cursor.peek().is_some_and(|token| token.is("by")) {
        cursor.next();
    }
    let key = key(cursor, draft, scope, "use map NAME")?;
    let otherwise = if cursor.accept("else") {
        let Some(pool) = pool_word(cursor) else {
            return Err(Box::new(Fault::error("R0240", cursor.here(), "`else` needs a pool")));
        };
        scope.pool(pool, cursor).map(Some)
    } else {
        Some(None)
    };
    let target = found.zip(otherwise).map(|(map, otherwise)| {
        let name = name.value.as_ref().into();
        Target::Map { name, map, key, otherwise }
    });
    Ok(target.map(|target| Action::Use { target, by: None }))
}

fn redirect(cursor: &mut Cursor<'_, '_>, draft: &mut Draft, scope: &mut Scope<'_, '_>) -> Parsed<Option<Action>> {
    let mut status = 302;
    if let Some(token) = cursor.peek().filter(|token| is_number(token)) {
        cursor.next();
        match code(token.raw).filter(|code| REDIRECTS.contains(code)) {
            Some(code) => status = code,
            None => {
                let fault =
                    Fault::error("R0241", cursor.place(token), format!("`{}` is no code of a redirect", token.raw));
                scope.tell(fault.allowed(REDIRECTS.map(|code| code.to_string())));
                draft.failed = true;
            }
        }
    }
    let Some(token) = cursor.value() else {
        let place = cursor.last().map_or_else(|| cursor.here(), |token| cursor.place(token));
        let fault = Fault::error("R0242", place, "`redirect` needs where to");
        return Err(Box::new(fault.help("such as /new/$1, or https://other.example/ for another host")));
    };
    if token.value.is_empty() {
        return Err(Box::new(Fault::error("R0242", cursor.place(token), "an empty target").did_you_mean("/")));
    }
    if let Some(encoded) = encoded(&token.value) {
        let fault = Fault::error("R0242", cursor.place(token), "a URL has no blanks, and only ASCII");
        return Err(Box::new(fault.did_you_mean(encoded)));
    }
    // What a client sent must not become the host: `//$1`, `https://{site}/`, or `$1` alone. Its own host may: nobody can
    // have another one's browser ask for that.
    let to = template(token, cursor, draft, scope);
    let open = match to.parts.as_slice() {
        [TemplatePart::Text(_)] | [TemplatePart::Path, ..] => false,
        [TemplatePart::Text(_), TemplatePart::Host, rest @ ..] => match rest.first() {
            None | Some(TemplatePart::Path) => false,
            Some(TemplatePart::Text(text)) => !text.starts_with(['/', ':', '?', '#']),
            Some(_) => true,
        },
        [TemplatePart::Text(start), ..] => matches!(&**start, "//" | "http://" | "https://"),
        _ => true,
    };
    if open {
        let fault =
            Fault::warning("R0242", cursor.place(token), "the client's own text decides which host this redirects to");
        scope.tell(fault.help("begin with `/`, or write the host out"));
    }
    Ok(Some(Action::Redirect { code: status, to }))
}

fn answer(cursor: &mut Cursor<'_, '_>) -> Parsed<Action> {
    let Some(token) = cursor.next() else {
        return Err(Box::new(Fault::error("R0241", cursor.here(), "`answer` needs a code").did_you_mean("answer 403")));
    };
    let Some(status) = code(token.raw).filter(|code| (200..600).contains(code)) else {
        let fault = Fault::error(
            "R0241",
            cursor.place(token),
            format!("`{}` is no code of an answer: 200 to 599", token.value),
        );
        return Err(Box::new(match token.kind {
            TokenKind::Text => fault.did_you_mean(format!("200 {}", token.raw)),
            _ => fault,
        }));
    };
    let text = match cursor.peek() {
        Some(text) if text.kind == TokenKind::Text => {
            cursor.next();
            if NO_ANSWERS.contains(&status) {
                let fault = Fault::error("R0241", cursor.place(text), format!("an answer {status} has no text"));
                return Err(Box::new(fault.help("leave the text out, or answer 200")));
            }
            Some(text.value.as_ref().into())
        }
        Some(word) if word.kind == TokenKind::Word && !word.is_operator() => {
            let fault = Fault::error("R0205", cursor.place(word), "the text of an answer stands in quotes");
            return Err(Box::new(fault.did_you_mean(format!("\"{}\"", cursor.rest_text().replace('"', "\\\"")))));
        }
        _ => None,
    };
    Ok(Action::Answer { code: status, text })
}

fn is_number(token: &Token<'_>) -> bool {
    token.kind == TokenKind::Word && token.raw.bytes().all(|b| b.is_ascii_digit()) && !token.raw.is_empty()
}
