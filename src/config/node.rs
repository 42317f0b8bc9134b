//! The configuration as a tree in which every value knows where it was written.
//!
//! `document` makes it from the file, `layers` lays the environment and the command line over it,
//! `file` walks it.

use std::ops::Range;
use std::sync::Arc;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq)]
pub enum Origin {
    Default,
    /// Bytes of the configuration file.
    File(Range<usize>),
    /// The name of the variable.
    Environment(Arc<str>),
    /// The key as it was given.
    CommandLine(Arc<str>),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    pub value: Value,
    pub origin: Origin,
    /// The text of a value that came from outside the file, where strings need no quotes.
    pub raw: Option<Arc<str>>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    String(String),
    /// `None`: outside 64 bits.
    Integer(Option<i64>),
    Float(f64),
    Boolean(bool),
    Date,
    List(Vec<Node>),
    /// In the order of the file.
    Table(Vec<Entry>),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub key: String,
    pub key_origin: Origin,
    pub node: Node,
}

impl Node {
    pub fn new(value: Value, origin: Origin) -> Node {
        Node { value, origin, raw: None }
    }

    /// The kind of value in words, with its article.
    pub fn kind(&self) -> &'static str {
        match self.value {
            Value::String(_) => "a string",
            Value::Integer(_) => "a whole number",
            Value::Float(_) => "a number",
            Value::Boolean(_) => "true or false",
            Value::Date => "a date",
            Value::List(_) => "a list",
            Value::Table(_) => "a table",
        }
    }

    pub fn entry(&self, key: &str) -> Option<&Entry> {
        let Value::Table(entries) = &self.value else { return None };
        entries.iter().find(|entry| entry.key == key)
    }

    /// The keys of a table.
    pub fn keys(&self) -> Vec<&str> {
        let Value::Table(entries) = &self.value else { return Vec::new() };
        entries.iter().map(|entry| entry.key.as_str()).collect()
    }
}
