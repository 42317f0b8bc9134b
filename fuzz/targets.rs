//! What each fuzz target does with its bytes; shared with `tests/corpus.rs`, which replays what was kept.
//!
//! A target may refuse its input in any way but a panic, and what it accepts must keep its promises:
//! those of the wire are asserted in its `fuzz` modules, those of texts here.

use std::sync::Arc;

use reeve::config::rules::{Input, Names};
use reeve::model::{Fault, Severity};

/// Bytes that may be a request or an answer up to its empty line.
pub fn http1_head(data: &[u8]) {
    reeve::wire::http1::fuzz::head(data);
}

/// Bytes that may be a chunked body, in pieces.
pub fn http1_chunked(data: &[u8]) {
    reeve::wire::http1::fuzz::chunked(data);
}

/// The header fields of a request of HTTP/2.
pub fn h2_request(data: &[u8]) {
    reeve::proxy::fuzz::http2_request(data);
}

/// Bytes that may be a TLS ClientHello in its records.
pub fn client_hello(data: &[u8]) {
    reeve::wire::client_hello::fuzz::hello(data);
}

/// Bytes that may begin with a PROXY header of either version.
pub fn proxy_header(data: &[u8]) {
    reeve::wire::proxy_header::fuzz::header(data);
}

/// A byte that says in pieces of what length they come, and bytes of an RTSP connection, or one message's head.
pub fn rtsp_message(data: &[u8]) {
    reeve::wire::rtsp::fuzz::messages(data);
}

/// The value of a Transport field, and a description behind its first line.
pub fn sdp_transport(data: &[u8]) {
    reeve::wire::rtsp::fuzz::transport(data);
}

/// A rule file.
pub fn rules(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let pools = names(&["web", "beta", "images", "homes", "uploads", "admin", "api", "live", "vod", "mail", "legacy"]);
    let listeners = names(&["web", "media", "sealed"]);
    let read = |name: &str| match name {
        "lists/bots.txt" => Ok("# bots\nbadbot\nworsebot 1.0\n".to_owned()),
        "lists/nets.txt" => Ok("10.0.0.0/8\n2001:db8::/32\n".to_owned()),
        _ => Err(std::io::ErrorKind::NotFound.into()),
    };
    let mut faults = Vec::new();
    let input = Input { name: "fuzz.rules".into(), text };
    reeve::config::rules::parse(
        &[input],
        &Names { pools: &pools, listeners: &listeners, read: &read, read_secret: &read },
        &mut faults,
    );
    faults.iter().filter(|fault| &*fault.place.file == "fuzz.rules").for_each(|fault| lies_in(text, fault));
}

/// A rule file and, behind a NUL, a request: `METHOD HOST PATH?QUERY`, then a field a line. Whatever rules take it, explaining
/// says the same as deciding, and what fills their templates is no fault. Overlaps that are shown are there.
pub fn routing(data: &[u8]) {
    use reeve::route::{self, Action, Head, Table, overlap};
    use reeve::wire::field::Field;

    let Some((rules, request)) = data.iter().position(|byte| *byte == 0).map(|at| (&data[..at], &data[at + 1..]))
    else {
        return;
    };
    let (Ok(rules), Ok(request)) = (std::str::from_utf8(rules), std::str::from_utf8(request)) else { return };
    let pools = names(&["web", "beta", "images"]);
    let listeners = names(&["web", "sealed"]);
    let read = |name: &str| match name {
        "lists/bots.txt" => Ok("# bots\nbadbot\nworsebot 1.0\n10.0.0.0/8\n".to_owned()),
        "lists/tenants.map" => Ok("ann web\nbob images\n".to_owned()),
        _ => Err(std::io::ErrorKind::NotFound.into()),
    };
    let mut faults = Vec::new();
    let input = Input { name: "fuzz.rules".into(), text: rules };
    let names = Names { pools: &pools, listeners: &listeners, read: &read, read_secret: &read };
    let set = reeve::config::rules::parse(&[input], &names, &mut faults);
    if faults.iter().any(|fault| fault.severity == Severity::Error) {
        return;
    }
    let table = Table::compile(&set, &mut faults);
    if faults.iter().any(|fault| fault.severity == Severity::Error) {
        return;
    }
    let mut lines = request.split('\n');
    let mut words = lines.next().unwrap_or_default().split(' ');
    let mut word = || words.next().unwrap_or_default();
    let (method, host, target) = (word(), word(), word());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let fields: Vec<Field<'_>> = lines
        .filter_map(|line| line.split_once(':'))
        .take(64)
        .map(|(name, value)| Field { name, value: value.trim().as_bytes() })
        .collect();
    for kind in [reeve::model::rule::Kind::Http, reeve::model::rule::Kind::Tcp] {
        let Some(section) = table.section(kind, host) else { continue };
        let mut scratch = String::new();
        let Ok(path) = route::path::normalise(path, section.policy(), &mut scratch) else { continue };
        // As `wire` lets them through.
        if !host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:[]".contains(&byte)) {
            continue;
        }
        let head = Head {
            method,
            host,
            path,
            query,
            fields: &fields,
            source: std::net::Ipv4Addr::new(10, 0, 0, 1).into(),
            listener: "web",
            sni: Some(host).filter(|host| !host.is_empty()),
            alpn: &[b"h2"],
            certificate: None,
            no_tls: false,
            body: route::Body::Empty,
        };
        for roll in [0, 9_999] {
            let rule = section.decide_with(None, &head, &mut || roll);
            let steps = route::explain::explain(section, &head, roll);
            let taken = steps.last().filter(|step| step.verdict == route::explain::Verdict::Takes);
            assert_eq!(taken.map(|step| step.rule.number()), rule.map(route::Rule::number), "{rules}");
            let Some(rule) = rule else { continue };
            match rule.action() {
                Action::Use { target, by } => {
                    route::pool(target, &head, rule, &mut || roll);
                    by.as_ref().map(|key| route::key_hash(key, Some(rule), &head));
                }
                Action::Redirect { to, .. } => {
                    // Nothing of a request may end the line or begin another host.
                    let location = route::location(to, rule, &head).unwrap_or_default();
                    assert!(location.iter().all(|byte| *byte > b' ' && *byte != 0x7f) || !plain(query), "{location:?}");
                }
                Action::Answer { .. } | Action::Deny | Action::Drop => {}
            }
            let mut out = Vec::new();
            if let Some(refined) = rule.refined().filter(|refined| refined.rewrites()) {
                refined.target(rule, &head, &mut out);
            }
        }
    }
    if set.sections.iter().map(|section| section.rules.len()).sum::<usize>() <= 30 {
        overlap::find(&table, &set, &listeners, 50);
    }
}

/// What the readers of a request let through.
fn plain(text: &str) -> bool {
    text.bytes().all(|byte| byte > b' ' && byte < 0x7f)
}

/// Edits of a list or map: its text, entries to add and entries to remove, with NULs between. The first byte says which of the two it is.
pub fn lists(data: &[u8]) {
    use reeve::config::entries::{Edit, edit, without_comment};

    let Some((first, rest)) = data.split_first() else { return };
    let Ok(rest) = std::str::from_utf8(rest) else { return };
    let mut parts = rest.split('\0');
    let mut part = || parts.next().unwrap_or_default();
    let (text, add, remove) = (part(), part(), part());
    let is_map = *first == b'm';
    let all = |part: &str| part.split('\n').filter(|entry| !entry.is_empty()).map(str::to_owned).collect::<Vec<_>>();
    let change = Edit { add: all(add), remove: all(remove) };
    let Ok(edited) = edit(text, is_map, &change) else { return };
    let entries = |text: &str| -> Vec<String> {
        text.lines().map(without_comment).filter(|entry| !entry.is_empty()).map(str::to_owned).collect()
    };
    let key = |entry: &str| match is_map {
        true => entry.split_whitespace().next().unwrap_or_default().to_owned(),
        false => entry.to_owned(),
    };
    let keys: Vec<String> = entries(&edited.text).iter().map(|entry| key(entry)).collect();
    for entry in &change.add {
        assert!(keys.contains(&key(entry)), "{entry:?} is not there");
    }
    let added: Vec<String> = change.add.iter().map(|entry| key(entry)).collect();
    for gone in change.remove.iter().filter(|gone| !added.contains(gone)) {
        assert!(!keys.contains(gone), "{gone:?} is there");
    }
    // Nobody else's entries are touched.
    for own in entries(text).iter().map(|entry| key(entry)).filter(|own| !change.remove.contains(own)) {
        assert!(keys.contains(&own), "{own:?} was lost");
    }
    if change.remove.is_empty() {
        let again = edit(&edited.text, is_map, &change).expect("it was good before");
        assert_eq!((again.added, again.removed), (0, 0), "to add again changes nothing");
    }
}

/// A configuration file.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let load = reeve::config::load_text("fuzz.toml", text);
    load.faults.iter().filter(|fault| &*fault.place.file == "fuzz.toml").for_each(|fault| lies_in(text, fault));
    let refused = load.faults.iter().any(|fault| fault.severity == Severity::Error);
    assert!(load.config.is_some() || refused, "what is refused says why");
    // What is printed must be printable, whatever the text was.
    reeve::config::fault::text(&load.faults, &load.sources);
    reeve::config::fault::json(&load.faults);
}

fn names(words: &[&str]) -> Vec<Arc<str>> {
    words.iter().map(|word| (*word).into()).collect()
}

/// A caret must have something to stand under.
fn lies_in(text: &str, fault: &Fault) {
    let place = &fault.place;
    if place.line == 0 {
        return;
    }
    let line = text.split('\n').nth(place.line as usize - 1);
    let line = line.unwrap_or_else(|| panic!("line {} of {}: {fault:?}", place.line, text.lines().count()));
    let width = line.chars().count() as u32;
    assert!(1 <= place.column && place.column <= width + 1, "column of a line {width} wide: {fault:?}");
    assert!(place.column <= place.end, "it ends before it begins: {fault:?}");
    assert!(!fault.message.is_empty() && fault.code.starts_with('R'), "{fault:?}");
}

/// A certificate in DER, as clients show it.
pub fn certificate(bytes: &[u8]) {
    reeve::wire::certificate::fuzz(bytes);
}

/// A configuration of another program; the first byte says whose. What comes of it loads.
pub fn import(data: &[u8]) {
    use reeve::app::import::{Dialect, import};
    let Some((first, rest)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(rest) else { return };
    let dialect = match first {
        b'n' => Dialect::Nginx,
        b'h' => Dialect::Haproxy,
        b'k' => Dialect::Keepalived,
        _ => Dialect::Ktcpvs,
    };
    match import(dialect, "fuzz.conf", text) {
        Ok(imported) => {
            let fates = imported.translated + imported.differing + imported.unequalled;
            assert_eq!(imported.statements, fates, "every statement has a fate");
            let load = reeve::config::load_text("fuzz.toml", &imported.texts[0].1);
            let wrong: Vec<_> = load.faults.iter().filter(|fault| fault.severity == Severity::Error).collect();
            assert!(wrong.is_empty(), "{wrong:?}");
        }
        Err(fault) => lies_in(text, &fault),
    }
}
