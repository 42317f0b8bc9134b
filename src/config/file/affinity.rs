//! `affinity` and `affinity-group` of a pool: by what a client is known again.

use std::sync::Arc;
use std::time::Duration;

use super::super::is_token;
use super::super::node::{Entry, Node, Value};
use super::super::rules::parse_key;
use super::walk::{Fields, Walk};
use crate::model::affinity::{Affinity, By, CookieMode, Learn, TlsSession, WhenDown};
use crate::model::rule::Key;

const KINDS: [&str; 6] = ["cookie", "source", "header", "query", "capture", "tls-session"];
const MODES: [&str; 4] = ["insert", "rewrite", "prefix", "learn"];

/// The least and the most entries of a table: a million take 20 MiB.
const ENTRIES: (u64, u64) = (100, 10_000_000);
/// The longest life of an entry.
const YEAR: Duration = Duration::from_secs(366 * 86_400);

/// Both keys of a pool, whichever of them are there.
pub fn read(fields: &mut Fields<'_, '_, '_>, pool: &str) -> Option<Affinity> {
    let walk = fields.walk;
    let (own, group) = (fields.get("affinity"), fields.get("affinity-group"));
    let group = group.and_then(|entry| walk.text(&entry.node, "affinity-group")).map(Arc::from);
    let title = format!("[pool.{pool}] affinity");
    match own {
        Some(entry) => table(walk, &entry.node, &title).map(|affinity| Affinity { group, ..affinity }),
        // What every protocol has.
        None if group.is_some() => Some(Affinity { group, ..Affinity::by(By::Source { v4: 32, v6: 64 }) }),
        None => None,
    }
}

fn table(walk: &Walk<'_>, node: &Node, title: &str) -> Option<Affinity> {
    let mut fields = Fields::of(walk, node, title)?;
    let mode = fields.get("mode").map(|entry| (entry, walk.word(&entry.node, "mode", &MODES)));
    let by = if matches!(mode, Some((_, Some("learn")))) {
        learn(&mut fields).map(By::Learn)
    } else {
        match fields.one_of(&KINDS) {
            Some(entry) => by(&mut fields, entry, mode.and_then(|(_, word)| word), title),
            None => {
                let fault = walk.error("R0104", node, format!("{title} does not say what a client is known by"));
                walk.push(fault.allowed(KINDS));
                None
            }
        }
    };
    if let Some((entry, Some(_))) = mode
        && by.as_ref().is_some_and(|by| !matches!(by, By::Cookie { .. } | By::Learn(_)))
    {
        walk.push(
            walk.error("R0125", &entry.node, "\"mode\" is that of a cookie").help("it belongs to cookie = \"NAME\""),
        );
    }
    let tabled = !matches!(by, Some(By::Cookie { .. }));
    let mut affinity = Affinity::by(by.unwrap_or(By::Source { v4: 32, v6: 64 }));
    if tabled {
        if let Some(entry) = fields.get("timeout")
            && let Some(life) = walk.duration(&entry.node, "timeout", false)
        {
            if !(Duration::from_secs(1)..=YEAR).contains(&life) {
                walk.push(walk.error("R0110", &entry.node, "timeout is out of range").allowed(["1s to 366d"]));
            }
            affinity.life = life;
        }
        if let Some(entry) = fields.get("entries") {
            let count = walk.integer(&entry.node, "entries", ENTRIES.0, ENTRIES.1);
            affinity.entries = count.map_or(affinity.entries, |count| count as usize);
        }
    } else {
        let why =
            "the cookie itself says which server: it lives as long as the browser's session, and there is no table";
        fields.misplaced("timeout", why);
        fields.misplaced("entries", why);
    }
    if let Some(entry) = fields.get("when-down") {
        affinity.when_down = match walk.word(&entry.node, "when-down", &["other", "refuse"]) {
            Some("refuse") => WhenDown::Refuse,
            _ => WhenDown::Other,
        };
    }
    fields.finish();
    Some(affinity)
}

fn by(fields: &mut Fields<'_, '_, '_>, entry: &Entry, mode: Option<&str>, title: &str) -> Option<By> {
    let walk = fields.walk;
    Some(match entry.key.as_str() {
        "source" => {
            let (v4, v6) = masks(walk, &entry.node, title);
            By::Source { v4, v6 }
        }
        "tls-session" => {
            if walk.boolean(&entry.node, "tls-session") == Some(false) {
                let fault = walk.error("R0125", &entry.node, "tls-session = false is no affinity");
                walk.push(fault.help("leave \"affinity\" out"));
            }
            By::TlsSession(tls_session(fields))
        }
        "header" => By::Key(Key::Header(token(walk, &entry.node, "header")?.to_ascii_lowercase().into())),
        "query" => By::Key(Key::Query(walk.text(&entry.node, "query")?.into())),
        "capture" => {
            let text = walk.text(&entry.node, "capture")?;
            let key = parse_key(text).or_else(|| parse_key(&format!("{{{text}}}")));
            match key {
                Some(key @ (Key::Capture(_) | Key::Group(_))) => By::Key(key),
                _ => {
                    let fault = walk.error("R0117", &entry.node, format!("\"{text}\" cannot be the name of a capture"));
                    walk.push(
                        fault
                            .help("write \"who\" for {who} in a rule's path, or \"$1\" for the first group of a regex"),
                    );
                    return None;
                }
            }
        }
        _ => By::Cookie {
            name: token(walk, &entry.node, "cookie")?.into(),
            mode: match mode {
                Some("rewrite") => CookieMode::Rewrite,
                Some("prefix") => CookieMode::Prefix,
                _ => CookieMode::Insert,
            },
        },
    })
}

fn learn(fields: &mut Fields<'_, '_, '_>) -> Option<Learn> {
    let walk = fields.walk;
    let entry = fields.require("cookie", "mode = \"learn\" takes the cookie that the application sets for its session");
    let cookie: Option<Arc<str>> = entry.and_then(|entry| token(walk, &entry.node, "cookie")).map(Arc::from);
    let header = fields.get("header").and_then(|entry| token(walk, &entry.node, "header"));
    let query = fields.get("query").and_then(|entry| walk.text(&entry.node, "query"));
    let path = fields.get("path-parameter").and_then(|entry| token(walk, &entry.node, "path-parameter"));
    let cookie = cookie?;
    Some(Learn {
        header: header.map(|name| name.to_ascii_lowercase().into()),
        query: query.map(Arc::from),
        // As servlets have it: JSESSIONID, and `;jsessionid=` where cookies are not taken.
        path_parameter: path.map_or_else(|| cookie.to_ascii_lowercase(), str::to_ascii_lowercase).into(),
        cookie,
    })
}

fn tls_session(fields: &mut Fields<'_, '_, '_>) -> TlsSession {
    let walk = fields.walk;
    let interval = fields.get("interval").and_then(|entry| walk.duration(&entry.node, "interval", false));
    let name = fields.get("server-name").and_then(|entry| walk.text(&entry.node, "server-name"));
    TlsSession { interval: interval.unwrap_or(TlsSession::INTERVAL), server_name: name.map(Arc::from) }
}

/// `"24"`, or `{ v4 = 24, v6 = 64 }`. A bare mask is that of IPv4, and 64 bits of IPv6 are one customer.
fn masks(walk: &Walk<'_>, node: &Node, title: &str) -> (u8, u8) {
    let (mut v4, mut v6) = (32, 64);
    if let Value::Table(_) = node.value {
        let Some(mut fields) = Fields::of(walk, node, format!("{title} source")) else { return (v4, v6) };
        for (key, bits, most) in [("v4", &mut v4, 32), ("v6", &mut v6, 128)] {
            if let Some(entry) = fields.get(key)
                && let Some(value) = walk.integer(&entry.node, key, 0, most)
            {
                *bits = value as u8;
            }
        }
        fields.finish();
    } else if let Value::Integer(_) = node.value {
        v4 = walk.integer(node, "source", 0, 32).map_or(v4, |bits| bits as u8);
    } else if let Some(text) = walk.string(node, "source") {
        match text.parse::<u8>().ok().filter(|bits| *bits <= 32) {
            Some(bits) => v4 = bits,
            None => {
                let fault = walk.error("R0110", node, format!("source \"{text}\" is not the length of a mask"));
                let help = "write source = \"24\", or source = { v4 = 24, v6 = 64 }";
                walk.push(fault.allowed(["0 to 32"]).help(help));
            }
        }
    }
    (v4, v6)
}

/// The name of a field or cookie (RFC 9110 §5.6.2).
fn token<'n>(walk: &Walk<'_>, node: &'n Node, name: &str) -> Option<&'n str> {
    let text = walk.text(node, name)?;
    if !is_token(text) {
        walk.push(walk.error("R0117", node, format!("\"{text}\" cannot be the name of a {name}")));
        return None;
    }
    Some(text)
}
