//! `expect` lines: tests of the rules, written beside them.

use std::net::IpAddr;
use std::sync::Arc;

use super::amount::{code, hundredths};
use super::cursor::{Cursor, Parsed};
use super::head::exact_host;
use super::lexer::{Token, TokenKind};
use super::pattern::encoded;
use super::scope::Scope;
use crate::config::closest::closest;
use crate::config::is_token;
use crate::model::Fault;
use crate::model::rule::{Expect, Facts, HostPattern, Kind, Outcome};

const HTTP_METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"];
/// Methods of RTSP alone (RFC 2326 §10); OPTIONS is of both.
const RTSP_METHODS: [&str; 10] = [
    "DESCRIBE",
    "SETUP",
    "PLAY",
    "PAUSE",
    "TEARDOWN",
    "ANNOUNCE",
    "RECORD",
    "GET_PARAMETER",
    "SET_PARAMETER",
    "REDIRECT",
];
const OUTCOMES: [&str; 3] = ["deny", "drop", "no-route"];
/// Facts with a meaning of their own; any other is a header.
const FACTS: [&str; 11] =
    ["roll", "from", "sni", "alpn", "listener", "host", "body", "cert", "cert-issuer", "cert-san", "cert-fingerprint"];

pub(super) fn is_known_method(text: &str) -> bool {
    HTTP_METHODS.contains(&text) || RTSP_METHODS.contains(&text)
}

/// The sections above an `expect` line, as far as one without a host needs them.
#[derive(Debug, Default)]
pub(super) struct Above {
    /// Of the nearest section of each kind: the host that is meant, `None` for `*`.
    pub http: Option<Option<Arc<str>>>,
    pub rtsp: Option<Option<Arc<str>>>,
    /// Kind of the nearest section that is not `tcp`.
    pub nearest: Option<Kind>,
}

impl Above {
    /// Notes a section that was read.
    pub fn enter<'h>(&mut self, kind: Kind, hosts: impl Iterator<Item = &'h HostPattern> + Clone) {
        let exact = hosts.clone().find_map(|host| match host {
            HostPattern::Exact(name) => Some(name.clone()),
            _ => None,
        });
        let wild = || {
            hosts.clone().find_map(|host| match host {
                HostPattern::Wildcard(tail) => Some(format!("x{tail}").into()),
                _ => None,
            })
        };
        let host = Some(exact.or_else(wild));
        match kind {
            Kind::Http => self.http = host,
            Kind::Rtsp => self.rtsp = host,
            Kind::Tcp => return,
        }
        self.nearest = Some(kind);
    }
}

/// Reads one; the cursor stands behind `expect`. `None`: a fault was told.
pub(super) fn expect(cursor: &mut Cursor<'_, '_>, above: &Above, scope: &mut Scope<'_, '_>) -> Parsed<Option<Expect>> {
    let start = cursor.last();
    let Some(first) = cursor.value() else {
        let fault = Fault::error("R0260", cursor.here(), "`expect` needs a request");
        return Err(Box::new(fault.help("expect METHOD /path -> POOL, or expect tcp -> POOL")));
    };
    let mut expect = Expect {
        kind: Kind::Tcp,
        method: "".into(),
        host: None,
        target: "".into(),
        facts: Facts::default(),
        outcome: Outcome::NoRoute,
        place: cursor.place(first),
    };
    if !first.is("tcp") {
        request(first, cursor, above, &mut expect, scope)?;
    }
    let mut good = true;
    loop {
        let Some(token) = cursor.next() else {
            let place = cursor.last().map_or_else(|| cursor.here(), |token| cursor.place(token));
            let fault = Fault::error("R0263", place, "`expect` needs `->` and what should come of it");
            return Err(Box::new(fault.help("-> POOL, -> 403, -> 301 /new, -> deny, -> drop or -> no-route")));
        };
        if token.is("->") {
            break;
        }
        good &= fact(token, cursor, &mut expect, scope)?;
    }
    let Some(outcome) = outcome(cursor, scope)? else { return Ok(None) };
    cursor.finish()?;
    expect.outcome = outcome;
    expect.place = start.map_or(expect.place, |start| cursor.since(start));
    Ok(good.then_some(expect))
}

/// Method and target.
fn request(
    first: &Token<'_>,
    cursor: &mut Cursor<'_, '_>,
    above: &Above,
    expect: &mut Expect,
    scope: &mut Scope<'_, '_>,
) -> Parsed<()> {
    let method = first.value.as_ref();
    if !is_token(method) || first.raw.starts_with('/') {
        let fault = Fault::error("R0261", cursor.place(first), format!("`{method}` is no method"));
        return Err(Box::new(if method.starts_with('/') || method.contains("://") {
            fault.did_you_mean(format!("GET {method}"))
        } else {
            fault.allowed(["METHOD", "tcp"])
        }));
    }
    let upper = method.to_ascii_uppercase();
    if !is_known_method(method) && is_known_method(&upper) {
        let fault = Fault::error("R0261", cursor.place(first), "methods are compared with their case");
        scope.tell(fault.did_you_mean(upper));
    }
    expect.method = method.into();
    let Some(target) = cursor.value() else {
        let fault = Fault::error("R0262", cursor.place(first), format!("`expect {method}` needs a path or URL"));
        return Err(Box::new(fault.did_you_mean(format!("{method} /"))));
    };
    let text = target.value.as_ref();
    if let Some(encoded) = encoded(text) {
        let fault = Fault::error("R0262", cursor.place(target), "a request's target has no blanks, and only ASCII");
        return Err(Box::new(fault.did_you_mean(encoded)));
    }
    if let Some((scheme, rest)) = text.split_once("://") {
        expect.kind = match scheme.to_ascii_lowercase().as_str() {
            "http" | "https" => Kind::Http,
            "rtsp" | "rtsps" => Kind::Rtsp,
            _ => {
                let fault =
                    Fault::error("R0262", cursor.place(target), format!("`{scheme}` is no scheme of a request"));
                return Err(Box::new(fault.allowed(["http", "https", "rtsp", "rtsps"])));
            }
        };
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at_checked(end).unwrap_or((rest, ""));
        let Some(host) = without_port(authority).and_then(exact_host) else {
            let message = format!("`{authority}` is no host");
            return Err(Box::new(Fault::error("R0262", cursor.place(target), message)));
        };
        expect.host = Some(host.into());
        expect.target = if path.starts_with('/') { path.into() } else { format!("/{path}").into() };
        return Ok(());
    }
    if !text.starts_with('/') && text != "*" {
        let fault = Fault::error("R0262", cursor.place(target), format!("`{text}` is neither a path nor a URL"));
        return Err(Box::new(match text.split(['/', ':']).next() {
            Some(host) if host.contains('.') && exact_host(host).is_some() => {
                fault.did_you_mean(format!("http://{text}"))
            }
            _ => fault.did_you_mean(format!("/{text}")),
        }));
    }
    expect.kind = match method {
        _ if RTSP_METHODS.contains(&method) => Kind::Rtsp,
        "OPTIONS" => above.nearest.unwrap_or(Kind::Http),
        _ => Kind::Http,
    };
    let host = if expect.kind == Kind::Rtsp { &above.rtsp } else { &above.http };
    expect.host = host.clone().flatten();
    expect.target = text.into();
    Ok(())
}

fn without_port(authority: &str) -> Option<&str> {
    if authority.contains('@') {
        return None;
    }
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => {
            (port.len() <= 5 && port.bytes().all(|b| b.is_ascii_digit())).then_some(host)
        }
        _ => Some(authority),
    }
}

/// `name:value`; the value may be a string directly behind the colon. False: a fault was told.
fn fact(
    token: &Token<'_>,
    cursor: &mut Cursor<'_, '_>,
    expect: &mut Expect,
    scope: &mut Scope<'_, '_>,
) -> Parsed<bool> {
    if expect.kind == Kind::Tcp && token.is("no-tls") {
        expect.facts.no_tls = true;
        return Ok(true);
    }
    let split = token.value.split_once(':').filter(|(name, _)| token.kind == TokenKind::Word && !name.is_empty());
    let Some((name, value)) = split else {
        let fault = Fault::error("R0264", cursor.place(token), format!("`{}` is no fact", token.raw));
        // `x-beta: 1`
        if let [.., before, _] = cursor.taken()
            && before.kind == TokenKind::Word
            && before.raw.len() > 1
            && before.raw.ends_with(':')
            && !token.is_operator()
        {
            let fault = Fault { place: cursor.span(before, token), message: "a fact is one word".to_owned(), ..fault };
            return Err(Box::new(fault.did_you_mean(format!("{}{}", before.raw, token.raw))));
        }
        return Err(Box::new(match (token.raw, cursor.peek()) {
            ("=>" | "-->" | "→" | ">" | "=", _) => fault.did_you_mean("->"),
            (_, Some(next)) if next.is("=") || next.is(":") => fault.help(format!("write {}:VALUE", token.raw)),
            _ if scope.names.pools.iter().any(|pool| **pool == *token.value) => {
                fault.did_you_mean(format!("-> {}", token.raw))
            }
            _ => match token.raw.split_once('=') {
                Some((name, value)) if is_token(name) => fault.did_you_mean(format!("{name}:{value}")),
                _ => fault.help("a fact is NAME:VALUE, without blanks: x-beta:1, roll:10, from:10.0.0.1"),
            },
        }));
    };
    let text = match cursor.peek() {
        Some(next) if value.is_empty() && next.kind == TokenKind::Text => {
            cursor.next();
            next.value.as_ref()
        }
        _ => value,
    };
    let place = cursor.since(token);
    let facts = &mut expect.facts;
    let wrong = |message: &str| Fault::error("R0264", place.clone(), format!("`{text}` is {message}"));
    match name {
        "roll" => match hundredths(text).filter(|roll| *roll < 10_000) {
            Some(roll) => facts.roll = Some(roll),
            None => {
                let fault = wrong("no roll: 0 to 99.99");
                let bare = text.trim_end_matches('%');
                scope.tell(if bare != text { fault.did_you_mean(format!("roll:{bare}")) } else { fault });
                return Ok(false);
            }
        },
        "from" => match text.parse::<IpAddr>() {
            Ok(address) => facts.from = Some(address),
            Err(_) => {
                scope.tell(wrong("no address").help("a request comes from one address: from:10.1.2.3"));
                return Ok(false);
            }
        },
        "host" => match without_port(text).and_then(exact_host) {
            Some(host) => expect.host = Some(host.into()),
            None => {
                scope.tell(wrong("no host"));
                return Ok(false);
            }
        },
        "sni" => facts.sni = Some(text.trim_end_matches('.').to_ascii_lowercase().into()),
        "alpn" => facts.alpn.extend(text.split(',').map(Arc::from)),
        "listener" => {
            if !scope.names.listeners.iter().any(|known| **known == *text) {
                scope.tell(super::scope::unknown(wrong("no listener"), text, scope.names.listeners));
                return Ok(false);
            }
            facts.listener = Some(text.into());
        }
        "body" => facts.body = Some(text.into()),
        "cert" => facts.certificate.get_or_insert_default().subject = text.into(),
        "cert-issuer" => facts.certificate.get_or_insert_default().issuer = text.into(),
        "cert-san" => facts.certificate.get_or_insert_default().names.push(text.into()),
        "cert-fingerprint" => {
            facts.certificate.get_or_insert_default().fingerprint = text.replace(':', "").to_ascii_lowercase().into();
        }
        _ if !is_token(name) => {
            let fault = Fault::error("R0264", place, format!("`{name}` is neither a fact nor the name of a header"));
            scope.tell(fault.allowed(FACTS));
            return Ok(false);
        }
        _ => facts.headers.push((name.to_ascii_lowercase().into(), text.into())),
    }
    Ok(true)
}

/// What should come of it; the cursor stands behind `->`.
fn outcome(cursor: &mut Cursor<'_, '_>, scope: &mut Scope<'_, '_>) -> Parsed<Option<Outcome>> {
    let Some(token) = cursor.value() else {
        let place = cursor.last().map_or_else(|| cursor.here(), |token| cursor.place(token));
        let fault = Fault::error("R0263", place, "`->` needs what should come of the request");
        return Err(Box::new(fault.allowed(["POOL", "CODE", "deny", "drop", "no-route"])));
    };
    let text = token.value.as_ref();
    if token.kind == TokenKind::Word {
        match text {
            "deny" => return Ok(Some(Outcome::Deny)),
            "drop" => return Ok(Some(Outcome::Drop)),
            "no-route" => return Ok(Some(Outcome::NoRoute)),
            "use" => {
                let fault = Fault::error("R0263", cursor.place(token), "the pool alone stands behind `->`");
                return Err(Box::new(fault.help("leave `use` out")));
            }
            _ => {}
        }
        let exists = scope.names.pools.iter().any(|pool| **pool == *text);
        if !exists && let Some(code) = code(text) {
            if !(200..600).contains(&code) {
                scope.tell(Fault::error(
                    "R0241",
                    cursor.place(token),
                    format!("`{code}` is no code of an answer: 200 to 599"),
                ));
                return Ok(None);
            }
            let target = cursor.value().map(|token| token.value.as_ref().into());
            return Ok(Some(Outcome::Code { code, target }));
        }
        if !exists && let Some(near) = closest(text, OUTCOMES) {
            let fault =
                Fault::error("R0263", cursor.place(token), format!("`{text}` is neither a pool nor an outcome"));
            return Err(Box::new(fault.did_you_mean(near)));
        }
    }
    let pool = scope.pool(token, cursor);
    let mut by = None;
    if cursor.accept("by") {
        let Some(value) = cursor.value() else {
            let place = cursor.last().map_or_else(|| cursor.here(), |token| cursor.place(token));
            return Err(Box::new(Fault::error("R0263", place, "`by` needs the value that the pool is chosen by")));
        };
        by = Some(value.value.as_ref().into());
    }
    Ok(pool.map(|_| Outcome::Pool { name: text.into(), by }))
}
