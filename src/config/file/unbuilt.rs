//! Tables of parts that are not built yet: checked as they will be, and then left aside.

use super::super::is_token;
use super::super::node::Node;
use super::walk::{Fields, Walk};

pub fn affinity(walk: &Walk<'_>, node: &Node, title: &str) {
    let Some(mut fields) = Fields::of(walk, node, title) else { return };
    let kinds = ["cookie", "source", "header", "tls-session"];
    match fields.one_of(&kinds) {
        Some(entry) => match entry.key.as_str() {
            "source" => source_mask(walk, &entry.node, title),
            "tls-session" => {
                walk.boolean(&entry.node, "tls-session");
            }
            name => token(walk, &entry.node, name),
        },
        None => {
            let fault = walk.error("R0104", node, format!("{title} does not say what a client is known by"));
            walk.push(fault.allowed(kinds));
        }
    }
    word(&mut fields, "mode", &["insert", "rewrite", "prefix", "learn"]);
    duration(&mut fields, "timeout");
    fields.finish();
}

/// `"24"`, or `{ v4 = 24, v6 = 64 }`.
fn source_mask(walk: &Walk<'_>, node: &Node, title: &str) {
    if let super::super::node::Value::Table(_) = node.value {
        let Some(mut fields) = Fields::of(walk, node, format!("{title} source")) else { return };
        integer(&mut fields, "v4", 0, 32);
        integer(&mut fields, "v6", 0, 128);
        fields.finish();
    } else if let super::super::node::Value::Integer(_) = node.value {
        walk.integer(node, "source", 0, 32);
    } else if let Some(text) = walk.string(node, "source")
        && text.parse::<u8>().ok().filter(|bits| *bits <= 32).is_none()
    {
        let fault = walk.error("R0110", node, format!("source \"{text}\" is not the length of a mask"));
        walk.push(fault.allowed(["0 to 32"]).help("write source = \"24\", or source = { v4 = 24, v6 = 64 }"));
    }
}

/// The name of a field or cookie (RFC 9110 §5.6.2).
fn token(walk: &Walk<'_>, node: &Node, name: &str) {
    if let Some(text) = walk.text(node, name)
        && !is_token(text)
    {
        walk.push(walk.error("R0117", node, format!("\"{text}\" cannot be the name of a {name}")));
    }
}

pub fn outlier(walk: &Walk<'_>, node: &Node, title: &str) {
    let Some(mut fields) = Fields::of(walk, node, title) else { return };
    integer(&mut fields, "consecutive-5xx", 1, 1_000_000);
    integer(&mut fields, "consecutive-failures", 1, 1_000_000);
    duration(&mut fields, "eject-for");
    percent(&mut fields, "eject-at-most");
    fields.finish();
}

pub fn text(fields: &mut Fields<'_, '_, '_>, key: &'static str) {
    if let Some(entry) = fields.get(key) {
        fields.walk.text(&entry.node, key);
    }
}

pub fn word(fields: &mut Fields<'_, '_, '_>, key: &'static str, allowed: &[&'static str]) {
    if let Some(entry) = fields.get(key) {
        fields.walk.word(&entry.node, key, allowed);
    }
}

pub fn boolean(fields: &mut Fields<'_, '_, '_>, key: &'static str) {
    if let Some(entry) = fields.get(key) {
        fields.walk.boolean(&entry.node, key);
    }
}

pub fn integer(fields: &mut Fields<'_, '_, '_>, key: &'static str, least: u64, most: u64) {
    if let Some(entry) = fields.get(key) {
        fields.walk.integer(&entry.node, key, least, most);
    }
}

pub fn duration(fields: &mut Fields<'_, '_, '_>, key: &'static str) {
    if let Some(entry) = fields.get(key) {
        fields.walk.duration(&entry.node, key, false);
    }
}

pub fn percent(fields: &mut Fields<'_, '_, '_>, key: &'static str) {
    if let Some(entry) = fields.get(key) {
        fields.walk.percent(&entry.node, key);
    }
}
