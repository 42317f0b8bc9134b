//! Tables of parts that are not built yet: checked as they will be, and then left aside.

use super::super::node::Node;
use super::super::units;
use super::walk::{Fields, Walk};

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

/// `100-599`, as far as a word for it exists: a status or a class of them.
pub fn is_status_word(word: &str) -> bool {
    units::status(word).is_some_and(|code| code >= 400) || matches!(word, "4xx" | "5xx")
}
