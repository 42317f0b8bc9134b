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
