//! Lines at the left edge but `expect`: section heads with their hosts, lists and maps.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::cursor::{Cursor, Parsed};
use super::lexer::{Token, TokenKind};
use super::pattern::is_name;
use super::scope::Scope;
use crate::model::rule::HostPattern;
use crate::model::{Fault, Place};

/// The hosts of an `http` or `rtsp` line; faults are told, the good ones returned.
pub(super) fn hosts(cursor: &mut Cursor<'_, '_>, scope: &mut Scope<'_, '_>, kind: &str) -> Vec<(HostPattern, Place)> {
    let mut hosts = Vec::new();
    if cursor.peek().is_none() {
        let fault = Fault::error("R0213", cursor.here(), format!("`{kind}` needs the hosts it is for"));
        scope.tell(fault.did_you_mean(format!("{kind} *")));
    }
    while let Some(token) = cursor.next() {
        match host(token, cursor) {
            Ok(host) => hosts.push((host, cursor.place(token))),
            Err(fault) => scope.tell(*fault),
        }
    }
    hosts
}

fn host(token: &Token<'_>, cursor: &Cursor<'_, '_>) -> Parsed<HostPattern> {
    let text = token.value.as_ref();
    if token.kind == TokenKind::Word && text == "*" {
        return Ok(HostPattern::Any);
    }
    if token.kind == TokenKind::Word
        && let Some(host) = exact_host(text)
    {
        return Ok(HostPattern::Exact(host.into()));
    }
    if token.kind == TokenKind::Word
        && let Some(name) = text.strip_prefix("*.").and_then(host_name)
    {
        return Ok(HostPattern::Wildcard(format!(".{name}").into()));
    }
    Err(Box::new(wrong_host(text, cursor.place(token))))
}

/// A host without `*` in the form it is kept in: lower case, no trailing dot, an IPv6 address in brackets.
pub(super) fn exact_host(text: &str) -> Option<String> {
    if let Some(inner) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return inner.parse::<Ipv6Addr>().ok().map(|address| format!("[{address}]"));
    }
    host_name(text)
}

/// Labels of letters, digits, `-` and `_`; an address if all are digits.
fn host_name(text: &str) -> Option<String> {
    let name = text.strip_suffix('.').unwrap_or(text);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if name.len() > 253 || !name.split('.').all(label) {
        return None;
    }
    let numeric = name.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
    (!numeric || name.parse::<Ipv4Addr>().is_ok()).then(|| name.to_ascii_lowercase())
}

fn wrong_host(text: &str, place: Place) -> Fault {
    let fault = |message: &str| Fault::error("R0210", place.clone(), message);
    if let Some((_, rest)) = text.split_once("://") {
        let host = rest.split(['/', ':']).next().unwrap_or("");
        let fault = fault("a host, not a URL, stands here");
        return if host.is_empty() { fault } else { fault.did_you_mean(host) };
    }
    if text.parse::<Ipv6Addr>().is_ok() {
        return fault("an IPv6 address stands in brackets").did_you_mean(format!("[{text}]"));
    }
    if let Some((host, port)) = text.rsplit_once(':')
        && port.bytes().all(|b| b.is_ascii_digit())
        && !host.is_empty()
    {
        return fault("hosts are compared without port").did_you_mean(host);
    }
    if let Some((host, path)) = text.split_once('/')
        && !host.is_empty()
    {
        return fault("paths are conditions of rules, not part of the host")
            .help(format!("section `{host}`, rule condition `path /{path}`"));
    }
    if !text.is_ascii() {
        return fault("host names are ASCII").help("write the punycode form that clients send: xn--...");
    }
    if text.contains('*') {
        let tail = text.trim_start_matches(['*', '.']);
        let fault = fault("`*` stands alone or as the whole first label").allowed(["*", "*.NAME"]);
        return match host_name(tail) {
            Some(name) => fault.did_you_mean(format!("*.{name}")),
            None => fault,
        };
    }
    if text.starts_with("~\"") || text.contains(['(', '^', '$']) {
        return fault("a section's host is no regex").help("write `http *` with a `host ~\"...\"` condition");
    }
    fault("this is no host").allowed(["*", "*.NAME", "NAME", "IPv4", "[IPv6]"])
}

/// `list NAME from "file"` and `map NAME from "file"`; the cursor stands behind the first word.
pub(super) fn declaration(cursor: &mut Cursor<'_, '_>, scope: &mut Scope<'_, '_>, what: &str) -> Parsed<()> {
    let form = format!("{what} NAME from \"FILE\"");
    let missing = |cursor: &Cursor<'_, '_>, lacks: &str| {
        Box::new(Fault::error("R0275", cursor.here(), format!("this {what} lacks {lacks}")).help(form.clone()))
    };
    let Some(name) = cursor.next() else { return Err(missing(cursor, "a name")) };
    if name.kind != TokenKind::Word || !is_name(name.raw) {
        let message = format!("`{}` is not a name: a small letter, then small letters, digits, - and _", name.raw);
        let fault = Fault::error("R0208", cursor.place(name), message);
        let small = name.value.to_ascii_lowercase();
        return Err(Box::new(if is_name(&small) { fault.did_you_mean(small) } else { fault }));
    }
    if !cursor.accept("from") {
        return Err(missing(cursor, "`from`"));
    }
    let Some(file) = cursor.next() else { return Err(missing(cursor, "its file")) };
    if file.kind != TokenKind::Text || file.value.is_empty() {
        let fault = Fault::error("R0275", cursor.place(file), "the file stands in quotes");
        return Err(Box::new(fault.did_you_mean(format!("\"{}\"", file.value))));
    }
    cursor.finish()?;
    let (name_place, file_place) = (cursor.place(name), cursor.place(file));
    let name: Arc<str> = name.raw.into();
    match what {
        "map" => scope.declare_map(name, name_place, &file.value, file_place),
        _ => scope.declare_list(name, name_place, &file.value, file_place),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_hosts_in_one_form() {
        assert_eq!(exact_host("Shop.Example.").as_deref(), Some("shop.example"));
        assert_eq!(exact_host("10.0.0.1").as_deref(), Some("10.0.0.1"));
        assert_eq!(exact_host("[2001:DB8:0::1]").as_deref(), Some("[2001:db8::1]"));
        for text in
            ["", ".", "a..b", "10.0.0", "10.0.0.256", "a:80", "-a", "[::1", "[]", "*", "ü.example", &"a".repeat(64)]
        {
            assert_eq!(exact_host(text), None, "{text}");
        }
    }
}
