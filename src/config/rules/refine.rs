//! Refinements: the deeper lines below a rule that say how its action is done.

use std::sync::Arc;

use super::amount::{count, duration, rate, size};
use super::auth::auth;
use super::cursor::{Cursor, Parsed};
use super::draft::Draft;
use super::field::owned;
use super::key::{key, template};
use super::lexer::{Token, TokenKind, part};
use super::pattern::encoded;
use super::scope::Scope;
use super::value::share;
use crate::config::closest::closest;
use crate::config::is_token;
use crate::model::Fault;
use crate::model::pool::Occasions;
use crate::model::rule::{Kind, Refinement, RuleTimeout};

pub(super) const REFINEMENTS: [&str; 10] =
    ["set header", "remove header", "rewrite", "limit", "timeout", "retry", "mirror", "auth", "priority", "paths"];
/// The first words of them.
pub(super) const FIRST_WORDS: [&str; 10] =
    ["set", "remove", "rewrite", "limit", "timeout", "retry", "mirror", "auth", "priority", "paths"];
/// Some of what is retried, for those who wrote something else.
const RETRY_ON: [&str; 7] = ["connect", "refused-stream", "reset", "timeout", "502", "503", "5xx"];

/// Reads one refinement; the cursor stands on its first word, which is one of `FIRST_WORDS` other than `paths`.
pub(super) fn refinement(cursor: &mut Cursor<'_, '_>, draft: &mut Draft, scope: &mut Scope<'_, '_>) -> Parsed<()> {
    let text = cursor.rest_text();
    let Some(word) = cursor.next() else { return Ok(()) };
    let refinement = match word.raw {
        "set" => set_header(cursor, draft, scope)?,
        "remove" => remove_header(cursor, scope)?,
        "rewrite" => rewrite(cursor, draft, scope)?,
        "limit" => limit(cursor, draft, scope)?,
        "timeout" => timeout(cursor)?,
        "retry" => retry(cursor, scope)?,
        "mirror" => mirror(cursor, scope)?,
        "auth" => auth(cursor, scope)?,
        _ => priority(cursor)?,
    };
    cursor.finish()?;
    let place = cursor.since(word);
    if draft.kind == Kind::Tcp && matches!(word.raw, "set" | "remove" | "rewrite" | "auth") {
        let fault = Fault::error("R0250", place, format!("a tcp section cannot `{}`: the bytes stay sealed", word.raw));
        return Err(Box::new(fault.allowed(["limit", "timeout", "retry", "mirror", "priority"])));
    }
    let Some(refinement) = refinement else {
        draft.failed = true;
        return Ok(());
    };
    let built = is_built(&refinement, draft.kind);
    if let Some((_, first)) = draft.refinements.iter().find(|(other, _)| contradict(other, &refinement)) {
        let fault = Fault::error("R0254", place.clone(), "this is said twice for one rule");
        scope.tell(fault.also(first.clone(), "first said here"));
        draft.failed = true;
    } else if !built {
        scope.tell(Fault::not_built(place.clone(), text));
    } else if let Refinement::Retry { on, .. } = &refinement
        && draft.kind == Kind::Tcp
        && on.iter().any(|on| **on != *"connect")
    {
        let fault = Fault::warning("R0250", place.clone(), "of a stream that stays sealed only `connect` is seen");
        scope.tell(fault.help("a connection that cannot be made is tried at another server"));
    }
    draft.refinements.push((refinement, place));
    Ok(())
}

/// Whether it is done yet, in a section of that kind.
fn is_built(refinement: &Refinement, kind: Kind) -> bool {
    match refinement {
        Refinement::SetHeader { .. } | Refinement::RemoveHeader { .. } => true,
        Refinement::RateLimit { .. } => kind != Kind::Tcp,
        Refinement::Rewrite(_)
        | Refinement::BodyLimit { .. }
        | Refinement::ConnectionLimit { .. }
        | Refinement::Mirror { .. }
        | Refinement::AuthBasic { .. }
        | Refinement::AuthForward { .. } => kind == Kind::Http,
        Refinement::Timeout { which, .. } if kind == Kind::Rtsp => {
            matches!(which, RuleTimeout::Queue | RuleTimeout::Connect | RuleTimeout::TlsHandshake)
        }
        Refinement::Timeout { which, .. } => which.is_of(kind),
        Refinement::Retry { .. } | Refinement::Priority(_) => true,
    }
}

/// Whether only one of two can hold.
fn contradict(a: &Refinement, b: &Refinement) -> bool {
    use Refinement as R;
    match (a, b) {
        (
            R::SetHeader { name: a, .. } | R::RemoveHeader { name: a },
            R::SetHeader { name: b, .. } | R::RemoveHeader { name: b },
        ) => a == b,
        (R::Timeout { which: a, .. }, R::Timeout { which: b, .. }) => a == b,
        (R::RateLimit { key: a, .. }, R::RateLimit { key: b, .. }) => a == b,
        (R::AuthBasic { .. } | R::AuthForward { .. }, R::AuthBasic { .. } | R::AuthForward { .. }) => true,
        (R::Mirror { pool: a, .. }, R::Mirror { pool: b, .. }) => a == b,
        _ => std::mem::discriminant(a) == std::mem::discriminant(b),
    }
}

pub(super) fn missing(cursor: &Cursor<'_, '_>, message: impl Into<String>) -> Box<Fault> {
    let place = cursor.last().map_or_else(|| cursor.here(), |token| cursor.place(token));
    Box::new(Fault::error("R0251", place, message))
}

/// The word `header`, which `set` and `remove` need, and the name behind it. A colon glued to the name
/// is taken off; what follows the colon in the same word is returned as the value.
fn header<'l, 'a>(cursor: &mut Cursor<'l, 'a>, scope: &mut Scope<'_, '_>, verb: &str) -> Parsed<Named<'a>> {
    if !cursor.accept("header") {
        let fault = missing(cursor, format!("`{verb}` needs `header` and a name"));
        return Err(match cursor.peek() {
            Some(next) if closest(next.raw, ["header"]).is_some() => {
                Box::new(Fault { place: cursor.place(next), ..*fault }.did_you_mean("header"))
            }
            Some(next) => {
                Box::new(Fault { place: cursor.place(next), ..*fault }.did_you_mean(format!("header {}", next.raw)))
            }
            None => Box::new(fault.help(format!("{verb} header NAME"))),
        });
    }
    let Some(token) = cursor.next().filter(|token| token.kind == TokenKind::Word) else {
        return Err(missing(cursor, format!("`{verb} header` needs the name of a header")));
    };
    let (name, value) = match token.raw.find(':').filter(|at| *at > 0) {
        Some(at) => (part(token, 0, at), Some(part(token, at + 1, token.raw.len()))),
        None => (token.clone(), None),
    };
    let lower = name.raw.to_ascii_lowercase();
    let mut good = true;
    if !is_token(name.raw) {
        let fault = Fault::error("R0228", cursor.place(&name), format!("`{}` is not the name of a header", name.raw));
        scope.tell(fault.help("letters, digits and !#$%&'*+-.^_`|~"));
        good = false;
    } else if let Some(reason) = owned(&lower) {
        let fault = Fault::error("R0252", cursor.place(&name), format!("a rule cannot {verb} `{lower}`"));
        scope.tell(fault.help(reason));
        good = false;
    }
    Ok(Named { name: lower.into(), value: value.filter(|value| !value.raw.is_empty()), good })
}

struct Named<'a> {
    name: Arc<str>,
    value: Option<Token<'a>>,
    good: bool,
}

fn set_header(cursor: &mut Cursor<'_, '_>, draft: &mut Draft, scope: &mut Scope<'_, '_>) -> Parsed<Option<Refinement>> {
    let Named { name, value, good } = header(cursor, scope, "set")?;
    if value.is_none() {
        cursor.accept(":");
        // `name = value` is how conditions are written, not settings.
        if let Some(next) = cursor.peek().filter(|token| token.is("=")) {
            let fault = Fault::error("R0251", cursor.place(next), "a value stands behind the name, without `=`");
            return Err(Box::new(fault.help(format!("set header {name}: VALUE"))));
        }
    }
    let value = match value {
        Some(value) => value,
        None => match cursor.value() {
            Some(token) => token.clone(),
            None => {
                return Err(Box::new(
                    missing(cursor, "`set header` needs a value")
                        .help(format!("set header {name}: VALUE; \"\" for an empty one")),
                ));
            }
        },
    };
    if cursor.peek().is_some() {
        let text = format!("\"{} {}\"", value.value, cursor.rest_text());
        let place = cursor.place(cursor.peek().unwrap_or(&value));
        let fault = Fault::error("R0205", place, "a value with blanks stands in quotes");
        return Err(Box::new(fault.help(format!("set header {name}: {text}"))));
    }
    let value = template(&value, cursor, draft, scope);
    Ok(good.then_some(Refinement::SetHeader { name, value }))
}

fn remove_header(cursor: &mut Cursor<'_, '_>, scope: &mut Scope<'_, '_>) -> Parsed<Option<Refinement>> {
    let Named { name, good, .. } = header(cursor, scope, "remove")?;
    Ok(good.then_some(Refinement::RemoveHeader { name }))
}

fn rewrite(cursor: &mut Cursor<'_, '_>, draft: &mut Draft, scope: &mut Scope<'_, '_>) -> Parsed<Option<Refinement>> {
    let Some(token) = cursor.value() else { return Err(missing(cursor, "`rewrite` needs the new path")) };
    if !token.value.starts_with('/') {
        let fault = Fault::error("R0242", cursor.place(token), "a path begins with `/`");
        return Err(Box::new(fault.did_you_mean(format!("/{}", token.value))));
    }
    if let Some(encoded) = encoded(&token.value) {
        let fault = Fault::error("R0242", cursor.place(token), "a path has no blanks, and only ASCII");
        return Err(Box::new(fault.did_you_mean(encoded)));
    }
    if let Some(wrong) = wrong_path(&token.value) {
        return Err(Box::new(Fault::error("R0242", cursor.place(token), wrong)));
    }
    Ok(Some(Refinement::Rewrite(template(token, cursor, draft, scope))))
}

/// What of a path and query cannot be sent to a server.
fn wrong_path(text: &str) -> Option<&'static str> {
    if text.contains('#') {
        return Some("what stands behind `#` never reaches a server");
    }
    let path = text.split('?').next().unwrap_or_default();
    if path.split('/').any(|segment| segment == "." || segment == "..") {
        return Some("a path that is sent has no `.` and `..`");
    }
    for escape in text.split('%').skip(1) {
        match escape.get(..2).map(|digits| u8::from_str_radix(digits, 16)) {
            Some(Ok(0 | b'\r' | b'\n')) => return Some("NUL, CR and LF do not stand in a path, not even encoded"),
            Some(Ok(_)) if !escape.starts_with('+') => {}
            _ => return Some("a `%` stands before two hex digits"),
        }
    }
    None
}

fn limit(cursor: &mut Cursor<'_, '_>, draft: &mut Draft, scope: &mut Scope<'_, '_>) -> Parsed<Option<Refinement>> {
    let forms = ["RATE per KEY", "body SIZE", "connections COUNT"];
    let Some(first) = cursor.next() else {
        return Err(Box::new(missing(cursor, "`limit` needs what is limited").allowed(forms)));
    };
    match first.raw {
        "body" => {
            let Some(token) = cursor.next() else { return Err(missing(cursor, "`limit body` needs a size")) };
            let Some(bytes) = size(&token.value) else {
                return Err(wrong(token, cursor, "size", &["64KiB", "10MiB", "1GiB"]));
            };
            Ok(Some(Refinement::BodyLimit { bytes }))
        }
        "connections" => {
            let Some(token) = cursor.next() else { return Err(missing(cursor, "`limit connections` needs a count")) };
            let Some(count) = count(&token.value) else { return Err(wrong(token, cursor, "count", &["100"])) };
            Ok(Some(Refinement::ConnectionLimit { count }))
        }
        _ => {
            let Some((count, per)) = rate(&first.value) else {
                let near = closest(first.raw, ["body", "connections"]);
                let fault = wrong(first, cursor, "rate", &["20/s", "100/m", "1000/h"]);
                return Err(match near {
                    Some(near) => Box::new(fault.allowed(forms).did_you_mean(near)),
                    None => fault,
                });
            };
            if !cursor.accept("per") {
                let fault = missing(cursor, "a rate needs `per` and the key it is counted by");
                return Err(Box::new(fault.did_you_mean(format!("{} per source", first.raw))));
            }
            Ok(Some(Refinement::RateLimit { count, per, key: key(cursor, draft, scope, "per")? }))
        }
    }
}

fn wrong(token: &Token<'_>, cursor: &Cursor<'_, '_>, what: &str, such_as: &[&str]) -> Box<Fault> {
    let fault = Fault::error("R0253", cursor.place(token), format!("`{}` is no {what}", token.value));
    let text = token.value.as_ref();
    let bare = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) && text != "0";
    let unit = match what {
        "duration" => "s",
        "size" => "KiB",
        "rate" => "/s",
        _ => "",
    };
    let fault = fault.allowed(such_as.iter().copied());
    Box::new(if bare && !unit.is_empty() { fault.did_you_mean(format!("{text}{unit}")) } else { fault })
}

fn timeout(cursor: &mut Cursor<'_, '_>) -> Parsed<Option<Refinement>> {
    let kinds = RuleTimeout::ALL.map(RuleTimeout::word);
    let Some(token) = cursor.next() else {
        return Err(Box::new(missing(cursor, "`timeout` needs which one").allowed(kinds)));
    };
    let which = match RuleTimeout::ALL.into_iter().find(|which| which.word() == token.raw) {
        Some(which) => which,
        None => {
            let other = token.raw;
            let fault =
                Fault::error("R0251", cursor.place(token), format!("`{other}` is no timeout of a rule")).allowed(kinds);
            return Err(Box::new(match closest(other, kinds) {
                Some(near) => fault.did_you_mean(near),
                None if duration(other).is_some() => fault.did_you_mean(format!("response {other}")),
                None => fault,
            }));
        }
    };
    let Some(token) = cursor.next() else { return Err(missing(cursor, "a timeout needs a duration")) };
    let Some(after) = duration(&token.value) else {
        return Err(wrong(token, cursor, "duration", &["500ms", "5s", "2m", "1h"]));
    };
    Ok(Some(Refinement::Timeout { which, after }))
}

fn retry(cursor: &mut Cursor<'_, '_>, scope: &mut Scope<'_, '_>) -> Parsed<Option<Refinement>> {
    let Some(token) = cursor.next() else { return Err(missing(cursor, "`retry` needs how many more tries")) };
    let attempts = if &*token.value == "0" { Some(0) } else { count(&token.value).filter(|count| *count <= 100) };
    let Some(attempts) = attempts else { return Err(wrong(token, cursor, "number of tries: 0 to 100", &["2"])) };
    let mut on: Vec<Arc<str>> = Vec::new();
    let mut good = true;
    if cursor.accept("on") {
        while let Some(token) = cursor.value() {
            let text = token.value.as_ref();
            if !Occasions::default().add(text) {
                let fault = Fault::error("R0251", cursor.place(token), format!("nothing is retried on `{text}`"))
                    .allowed(RETRY_ON);
                scope.tell(match closest(text, RETRY_ON) {
                    Some(near) => fault.did_you_mean(near),
                    None => fault,
                });
                good = false;
            }
            on.push(text.into());
        }
        if on.is_empty() {
            return Err(Box::new(missing(cursor, "`on` needs what is retried").allowed(RETRY_ON)));
        }
    }
    Ok(good.then_some(Refinement::Retry { attempts, on }))
}

fn mirror(cursor: &mut Cursor<'_, '_>, scope: &mut Scope<'_, '_>) -> Parsed<Option<Refinement>> {
    let Some(token) = cursor.value() else { return Err(missing(cursor, "`mirror` needs a pool")) };
    let pool = scope.pool(token, cursor);
    let share = match cursor.next() {
        Some(token) => Some(share(token, cursor)?),
        None => None,
    };
    Ok(pool.map(|pool| Refinement::Mirror { pool, share }))
}

fn priority(cursor: &mut Cursor<'_, '_>) -> Parsed<Option<Refinement>> {
    let Some(token) = cursor.next() else { return Err(missing(cursor, "`priority` needs a number")) };
    match token.raw.parse() {
        Ok(priority) => Ok(Some(Refinement::Priority(priority))),
        Err(_) => Err(wrong(token, cursor, "priority", &["-10", "0", "10"])),
    }
}
