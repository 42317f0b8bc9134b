//! Tables of parts that are not built yet: checked as they will be, and then left aside.

use super::walk::Fields;

pub fn text(fields: &mut Fields<'_, '_, '_>, key: &'static str) {
    if let Some(entry) = fields.get(key) {
        fields.walk.text(&entry.node, key);
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
