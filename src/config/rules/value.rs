//! What stands behind the word of a condition: names, values, words, networks, lists, percentages.

use std::sync::Arc;

use super::action::ACTIONS;
use super::amount::percent;
use super::condition::{CONDITIONS, swallows_action};
use super::cursor::{Cursor, Parsed};
use super::draft::Draft;
use super::expect::is_known_method;
use super::lexer::{Token, TokenKind};
use super::pattern;
use super::scope::{Scope, parse_net};
use crate::config::closest::closest;
use crate::config::is_token;
use crate::model::Fault;
use crate::model::rule::{BodyPart, ValueTest};

/// The name of a header, cookie or query parameter.
pub(super) fn field_name(what: &str, cursor: &mut Cursor<'_, '_>, scope: &mut Scope<'_, '_>) -> Parsed<Arc<str>> {
    let Some(token) = cursor.value() else { return Err(Box::new(lacks(what, "a name", cursor))) };
    let text = token.value.as_ref();
    if let Some((name, value)) =
        text.split_once('=').filter(|(name, _)| !name.is_empty() && is_token(name.trim_end_matches('!')))
    {
        let fault = Fault::error("R0228", cursor.place(token), "`=` is an operator only with blanks on both sides");
        let (name, operator) = name.strip_suffix('!').map_or((name, "="), |name| (name, "!="));
        return Err(Box::new(fault.did_you_mean(format!("{name} {operator} {value}").trim_end().to_owned())));
    }
    if what != "query" && !is_token(text) {
        let fault = Fault::error("R0228", cursor.place(token), format!("`{text}` is not the name of a {what}"));
        let name = text.trim_end_matches(':');
        scope.tell(if is_token(name) {
            fault.did_you_mean(name)
        } else {
            fault.help("letters, digits and !#$%&'*+-.^_`|~")
        });
    }
    Ok(text.into())
}

/// What follows a name; `bare`: nothing need follow, and more than one value can.
pub(super) fn value_test(
    what: &str,
    bare: bool,
    cursor: &mut Cursor<'_, '_>,
    draft: &mut Draft,
    scope: &mut Scope<'_, '_>,
) -> Parsed<ValueTest> {
    let token = cursor.peek();
    match token {
        Some(token) if token.is("=") || (bare && token.is("!=")) => {
            cursor.next();
            let value = one_value(token.raw, cursor)?;
            Ok(if token.is("=") { ValueTest::Equals(vec![value]) } else { ValueTest::Differs(vec![value]) })
        }
        Some(token) if token.kind == TokenKind::Regex => {
            cursor.next();
            pattern::regex(token, cursor, scope);
            Ok(ValueTest::Regex { text: token.value.as_ref().into(), place: cursor.place(token) })
        }
        Some(token) if bare && token.is("in") => {
            cursor.next();
            Ok(ValueTest::InList(list(cursor, draft, scope)?))
        }
        Some(token) if matches!(token.raw, "==" | "===" | "is" | "~" | "=~" | "!~" | "<>" | "!==") => {
            let fault = Fault::error("R0223", cursor.place(token), format!("`{}` is no operator", token.raw));
            let fault = fault.allowed(
                ["=", "!=", "~\"REGEX\"", "in LIST"]
                    .into_iter()
                    .filter(|form| bare || matches!(*form, "=" | "~\"REGEX\"")),
            );
            Err(Box::new(match token.raw {
                "==" | "===" | "is" => fault.did_you_mean("="),
                "<>" | "!==" => fault.did_you_mean("!="),
                _ => fault.help("a regex stands directly behind the name: ~\"...\""),
            }))
        }
        _ if bare => Ok(ValueTest::Present),
        _ => Err(Box::new(lacks(what, "`= VALUE` or ~\"REGEX\"", cursor))),
    }
}

pub(super) fn one_value(before: &str, cursor: &mut Cursor<'_, '_>) -> Parsed<Arc<str>> {
    match cursor.peek() {
        Some(token) if token.kind == TokenKind::Regex => {
            let fault = Fault::error("R0222", cursor.place(token), format!("a regex stands without `{before}`"));
            Err(Box::new(fault.help(format!("write: NAME {}", token.raw))))
        }
        Some(token) if !token.is_operator() && !swallows_action(token, cursor) => {
            cursor.next();
            Ok(token.value.as_ref().into())
        }
        _ => Err(Box::new(lacks(before, "a value", cursor))),
    }
}

pub(super) fn body_part(cursor: &mut Cursor<'_, '_>) -> Parsed<BodyPart> {
    let parts = ["text", "form NAME", "json \"/POINTER\""];
    let Some(word) = cursor.next() else { return Err(Box::new(lacks("body", "a part", cursor).allowed(parts))) };
    match word.raw {
        "text" => Ok(BodyPart::Text),
        "form" => match cursor.value() {
            Some(name) => Ok(BodyPart::Form(name.value.as_ref().into())),
            None => Err(Box::new(lacks("form", "the name of a field", cursor))),
        },
        "json" => match cursor.next() {
            // RFC 6901 §3: a pointer is empty or begins with a slash.
            Some(token)
                if token.kind == TokenKind::Text && (token.value.is_empty() || token.value.starts_with('/')) =>
            {
                Ok(BodyPart::Json(token.value.as_ref().into()))
            }
            Some(token) => {
                let fault = Fault::error("R0221", cursor.place(token), "a JSON pointer is quoted and begins with `/`");
                Err(Box::new(fault.did_you_mean(format!("\"/{}\"", token.value.trim_start_matches('/')))))
            }
            None => Err(Box::new(lacks("json", "a JSON pointer", cursor))),
        },
        other => {
            let fault =
                Fault::error("R0221", cursor.place(word), format!("`{other}` is no part of a body")).allowed(parts);
            Err(Box::new(match closest(other, ["text", "form", "json"]) {
                Some(near) => fault.did_you_mean(near),
                None => fault,
            }))
        }
    }
}

/// A percentage, in hundredths.
pub(super) fn share(token: &Token<'_>, cursor: &Cursor<'_, '_>) -> Parsed<u32> {
    let text = token.value.as_ref();
    if let Some(share) = percent(text) {
        return Ok(share);
    }
    let fault = Fault::error(
        "R0232",
        cursor.place(token),
        format!("`{text}` is no percentage: 0% to 100%, two decimals at most"),
    );
    let with_sign = format!("{text}%");
    Err(Box::new(if percent(&with_sign).is_some() { fault.did_you_mean(with_sign) } else { fault }))
}

/// One value of a word list, checked as its test asks.
pub(super) fn word_value(
    name: &str,
    token: &Token<'_>,
    cursor: &Cursor<'_, '_>,
    scope: &mut Scope<'_, '_>,
) -> Parsed<Arc<str>> {
    let text = token.value.as_ref();
    if name == "method" && !is_token(text) {
        let fault = Fault::error("R0229", cursor.place(token), format!("`{text}` is not a method"));
        let parts: Vec<&str> = text.split([',', ';', '|']).filter(|part| !part.is_empty()).collect();
        scope.tell(match parts.iter().all(|part| is_token(part)) {
            true if !parts.is_empty() => fault.did_you_mean(parts.join(" ")),
            _ => fault.help("a method is one word: letters, digits and !#$%&'*+-.^_`|~"),
        });
    } else if name == "method" && is_known_method(&text.to_ascii_uppercase()) && !is_known_method(text) {
        let fault = Fault::warning("R0229", cursor.place(token), "methods are compared with their case");
        scope.tell(fault.did_you_mean(text.to_ascii_uppercase()));
    } else if name == "listener" {
        scope.listener(token, cursor);
    }
    Ok(text.into())
}

/// An address or network; `None` after a fault was told.
pub(super) fn net(
    token: &Token<'_>,
    cursor: &Cursor<'_, '_>,
    scope: &mut Scope<'_, '_>,
) -> Parsed<Option<ipnet::IpNet>> {
    let text = token.value.as_ref();
    let Some(net) = parse_net(text) else {
        let place = cursor.place(token);
        if token.is_one_of(&CONDITIONS) {
            return Err(Box::new(
                Fault::error("R0223", place, "conditions are joined by `&`").did_you_mean(format!("& {text}")),
            ));
        }
        if let Some(near) = closest(text, ACTIONS) {
            return Err(Box::new(
                Fault::error("R0221", place, format!("`{text}` is no action")).allowed(ACTIONS).did_you_mean(near),
            ));
        }
        let fault = Fault::error("R0227", place, format!("`{text}` is no address or network"));
        let trimmed = text.trim_matches([',', ';', '[', ']']);
        scope.tell(if parse_net(trimmed).is_some() {
            fault.did_you_mean(trimmed)
        } else {
            fault.help("such as 10.0.0.0/8, 192.0.2.7 or 2001:db8::/32")
        });
        return Ok(None);
    };
    if net != net.trunc() {
        let fault =
            Fault::warning("R0227", cursor.place(token), format!("the address has bits beyond /{}", net.prefix_len()));
        scope.tell(fault.did_you_mean(net.trunc().to_string()));
    }
    Ok(Some(net.trunc()))
}

/// A list that stands behind `in`.
pub(super) fn list(cursor: &mut Cursor<'_, '_>, draft: &mut Draft, scope: &mut Scope<'_, '_>) -> Parsed<usize> {
    let Some(token) = cursor.value() else { return Err(Box::new(lacks("in", "the name of a list", cursor))) };
    let found = scope.list(token, cursor);
    draft.failed |= found.is_none();
    Ok(found.unwrap_or(0))
}

/// A further word of a list; without `|` before it, the name of a condition is a forgotten `&`.
pub(super) fn another_word(
    name: &str,
    joined: bool,
    cursor: &mut Cursor<'_, '_>,
    scope: &mut Scope<'_, '_>,
) -> Parsed<Arc<str>> {
    let Some(token) = cursor.value() else { return Err(Box::new(lacks("|", "a value", cursor))) };
    let named = name == "listener" && scope.names.listeners.iter().any(|known| **known == *token.raw);
    if !joined && token.is_one_of(&CONDITIONS) && !named {
        let fault = Fault::error("R0223", cursor.place(token), "conditions are joined by `&`");
        return Err(Box::new(fault.did_you_mean(format!("& {}", token.raw))));
    }
    word_value(name, token, cursor, scope)
}

pub(super) fn lacks(name: &str, what: &str, cursor: &Cursor<'_, '_>) -> Fault {
    let place = cursor.last().map_or_else(|| cursor.here(), |token| cursor.place(token));
    let fault = Fault::error("R0221", place, format!("`{name}` needs {what}"));
    match cursor.peek() {
        Some(token) if token.is_one_of(&ACTIONS) => {
            fault.help(format!("quote a value that is an action word: \"{}\"", token.raw))
        }
        Some(token) if token.is_operator() => {
            fault.help(format!("quote a value that is an operator: \"{}\"", token.raw))
        }
        _ => fault,
    }
}
