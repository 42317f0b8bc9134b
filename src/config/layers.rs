//! Defaults, file, environment and command line laid over each other.
//!
//! figment merges, by key and deeply; lists are replaced whole. It keeps a tag with each value that
//! says which layer won, and by that tag the value finds its place again: a span of our own document,
//! the name of a variable, or a key of the command line.

use std::sync::Arc;

use figment::value::{Dict, Map, Num, Tag, Value as Merged};
use figment::{Figment, Metadata, Profile, Provider};

use super::closest::closest;
use super::node::{Entry, Node, Origin, Value};
use super::units;
use crate::model::{Fault, Limits, Place, Timeouts};

/// Every variable that begins so is ours.
const PREFIX: &str = "REEVE_";
/// The log filter of the program, and the mark of one that takes over from another; no keys.
const RESERVED: [&str; 2] = ["REEVE_LOG", HAND_OVER];
/// Set for a process that is started to take over from the one before.
pub const HAND_OVER: &str = "REEVE_HAND_OVER";
/// No key lies deeper.
const DEEPEST: usize = 8;
/// The longest value of a variable or option that is looked into.
const LONGEST: usize = 64 << 10;

/// One layer as figment wants it: the name comes back with every value that it gave.
struct Layer {
    name: String,
    dict: Dict,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.dict.clone()))
    }
}

const DEFAULTS: &str = "default";
const FILE: &str = "file";
const ENVIRONMENT: &str = "environment:";
const COMMAND_LINE: &str = "command line:";

/// What came from outside the file, by the name of its layer.
struct Outside {
    origin: Origin,
    text: Arc<str>,
}

/// The tree that all layers make together.
pub fn merge(
    document: Node,
    environment: &[(String, String)],
    overrides: &[(String, String)],
    faults: &mut Vec<Fault>,
) -> Node {
    let mut figment = Figment::from(Layer { name: DEFAULTS.to_owned(), dict: defaults() });
    figment = figment.merge(Layer { name: FILE.to_owned(), dict: dict_of(&document) });
    let mut outside: Map<String, Outside> = Map::new();
    let mut variables: Vec<&(String, String)> =
        environment.iter().filter(|(name, _)| name.starts_with(PREFIX)).collect();
    variables.sort();
    for (name, text) in variables {
        if RESERVED.contains(&name.as_str()) {
            continue;
        }
        let Some(path) = variable_path(name) else {
            faults.push(bad_variable(name));
            continue;
        };
        if let Some(fault) = unreachable(&path, &document, name) {
            faults.push(fault);
            continue;
        }
        let layer = format!("{ENVIRONMENT}{name}");
        outside.insert(
            layer.clone(),
            Outside { origin: Origin::Environment(name.as_str().into()), text: text.as_str().into() },
        );
        figment = figment.merge(Layer { name: layer, dict: dict_at(&path, value_of(text)) });
    }
    for (key, text) in overrides {
        let path: Vec<String> = key.split('.').map(str::to_owned).collect();
        if path.len() > DEEPEST || path.iter().any(String::is_empty) {
            let message = format!("\"{key}\" is not a key");
            let fault = Fault::error("R0141", Place::file("command line"), message);
            faults.push(fault.help("keys are written with dots, as in limits.header-count"));
            continue;
        }
        let layer = format!("{COMMAND_LINE}{key}");
        outside.insert(
            layer.clone(),
            Outside { origin: Origin::CommandLine(key.as_str().into()), text: text.as_str().into() },
        );
        figment = figment.merge(Layer { name: layer, dict: dict_at(&path, value_of(text)) });
    }
    let merged = figment.data().ok().and_then(|mut data| data.remove(&Profile::Default)).unwrap_or_default();
    let weave = Weave { figment: &figment, outside: &outside };
    weave.table(merged, Some(document), Origin::Default)
}

/// The defaults of the tables that have one for each of their keys.
fn defaults() -> Dict {
    let times = Timeouts::default();
    let times =
        super::file::TIMEOUTS.iter().map(|key| (key.name.to_owned(), units::duration_text(*(key.get)(&times)).into()));
    let limits = Limits::default();
    let limits = super::file::LIMITS.iter().map(|key| (key.name.to_owned(), value_of(&key.default_text(&limits))));
    let tables: [(&str, Dict); 2] = [("timeouts", times.collect()), ("limits", limits.collect())];
    tables.into_iter().map(|(name, dict)| (name.to_owned(), Merged::from(dict))).collect()
}

/// `REEVE_LIMITS__HEADER_COUNT` -> `limits`, `header-count`.
fn variable_path(name: &str) -> Option<Vec<String>> {
    let rest = name.strip_prefix(PREFIX)?;
    let path: Vec<String> = rest.split("__").map(|part| part.to_lowercase().replace('_', "-")).collect();
    let good = |part: &String| !part.is_empty() && !part.starts_with('-') && !part.ends_with('-');
    (path.len() <= DEEPEST && path.iter().all(good)).then_some(path)
}

fn bad_variable(name: &str) -> Fault {
    Fault::error("R0140", Place::file("environment"), format!("{name} is not the name of a key"))
        .help("levels are joined by two underscores, words by one: REEVE_LIMITS__HEADER_COUNT")
}

/// A variable can change what the file declares under a name, but not declare it.
fn unreachable(path: &[String], document: &Node, variable: &str) -> Option<Fault> {
    let [table, name, ..] = path else { return None };
    if !matches!(table.as_str(), "listen" | "pool" | "check") {
        return None;
    }
    let declared = document.entry(table).map(|entry| entry.node.keys()).unwrap_or_default();
    if declared.contains(&name.as_str()) {
        return None;
    }
    let message = format!("{variable}: the file has no [{table}.{name}]");
    let fault = Fault::error("R0140", Place::file("environment"), message);
    Some(match closest(name, declared.iter().copied()) {
        Some(near) => fault.did_you_mean(near_variable(variable, name, near)),
        None => fault.help("listeners, pools and checks are declared in the file"),
    })
}

/// The name of a variable with one of its keys replaced.
pub fn near_variable(variable: &str, key: &str, near: &str) -> String {
    let word = |key: &str| key.to_uppercase().replace('-', "_");
    variable.replacen(&word(key), &word(near), 1)
}

/// A value as figment reads it: numbers, `true`, `[a, b]`, `{ a = b }`, else a string.
fn value_of(text: &str) -> Merged {
    let nested = text.bytes().filter(|byte| matches!(byte, b'[' | b'{')).count();
    if text.len() > LONGEST || nested > 64 {
        return Merged::from(text);
    }
    text.parse().unwrap_or_else(|_| Merged::from(text))
}

fn dict_at(path: &[String], value: Merged) -> Dict {
    match path {
        [] => Dict::new(),
        [key] => Dict::from([(key.clone(), value)]),
        [key, rest @ ..] => Dict::from([(key.clone(), Merged::from(dict_at(rest, value)))]),
    }
}

/// The tables of the file. What is not a table stands there as an empty string only, to be merged by
/// its key; its value and span are taken from the document.
fn dict_of(node: &Node) -> Dict {
    let Value::Table(entries) = &node.value else { return Dict::new() };
    let value = |node: &Node| match node.value {
        Value::Table(_) => Merged::from(dict_of(node)),
        _ => Merged::from(""),
    };
    entries.iter().map(|entry| (entry.key.clone(), value(&entry.node))).collect()
}

/// Puts the merged values and their places together again.
struct Weave<'a> {
    figment: &'a Figment,
    outside: &'a Map<String, Outside>,
}

impl Weave<'_> {
    /// A table: first what the file has, in its order, then what was added to it.
    fn table(&self, mut merged: Dict, document: Option<Node>, otherwise: Origin) -> Node {
        let (entries, origin) = match document {
            Some(Node { value: Value::Table(entries), origin, .. }) => (entries, origin),
            _ => (Vec::new(), otherwise),
        };
        let mut woven = Vec::with_capacity(merged.len());
        for entry in entries {
            let Some(value) = merged.remove(&entry.key) else { continue };
            let node = self.node(value, Some(entry.node));
            woven.push(Entry { key: entry.key, key_origin: entry.key_origin, node });
        }
        for (key, value) in merged {
            let node = self.node(value, None);
            woven.push(Entry { key, key_origin: node.origin.clone(), node });
        }
        Node::new(Value::Table(woven), origin)
    }

    fn node(&self, merged: Merged, document: Option<Node>) -> Node {
        let layer = self.layer(merged.tag());
        let outside = self.outside.get(layer);
        match (merged, document) {
            (Merged::Dict(_, dict), document) => {
                let otherwise = outside.map_or(Origin::Default, |outside| outside.origin.clone());
                self.table(dict, document, otherwise)
            }
            (_, Some(node)) if layer == FILE => node,
            (merged, _) => {
                let origin = outside.map_or(Origin::Default, |outside| outside.origin.clone());
                let mut node = Node::new(Value::Boolean(false), origin);
                node.raw = outside.map(|outside| outside.text.clone()).filter(|_| merged.as_array().is_none());
                node.value = self.value(merged);
                node
            }
        }
    }

    fn layer(&self, tag: Tag) -> &str {
        self.figment.get_metadata(tag).map_or("", |metadata| metadata.name.as_ref())
    }

    fn value(&self, merged: Merged) -> Value {
        match merged {
            Merged::String(_, text) => Value::String(text),
            Merged::Char(_, letter) => Value::String(letter.to_string()),
            Merged::Bool(_, yes) => Value::Boolean(yes),
            Merged::Num(_, number) => number_of(number),
            Merged::Empty(..) => Value::String(String::new()),
            Merged::Array(_, items) => Value::List(items.into_iter().map(|item| self.element(item)).collect()),
            Merged::Dict(_, dict) => self.table(dict, None, Origin::Default).value,
        }
    }

    /// An element of a list from outside: its text is not that of the whole variable.
    fn element(&self, merged: Merged) -> Node {
        let mut node = self.node(merged, None);
        node.raw = None;
        node
    }
}

fn number_of(number: Num) -> Value {
    match number.to_f64() {
        Some(float) => Value::Float(float),
        None => Value::Integer(
            number
                .to_i128()
                .or_else(|| number.to_u128().and_then(|value| i128::try_from(value).ok()))
                .and_then(|value| i64::try_from(value).ok()),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_variables() {
        let path = |name| variable_path(name).map(|path| path.join("."));
        assert_eq!(path("REEVE_LIMITS__HEADER_COUNT").as_deref(), Some("limits.header-count"));
        assert_eq!(path("REEVE_POOL__WEB__CHECK__INTERVAL").as_deref(), Some("pool.web.check.interval"));
        assert_eq!(path("REEVE_"), None);
        assert_eq!(path("REEVE_A____B"), None);
        assert_eq!(path(&format!("REEVE_{}", "A__".repeat(1000))), None);
    }

    #[test]
    fn deep_values_stay_text() {
        let deep = "[".repeat(100_000);
        assert_eq!(value_of(&deep).into_string().as_deref(), Some(deep.as_str()));
        assert_eq!(value_of("50").to_u128(), Some(50));
        assert_eq!(value_of("127.0.0.1:80").as_str(), Some("127.0.0.1:80"));
    }

    #[test]
    fn a_later_layer_wins_and_keeps_its_origin() {
        let span = |start| Origin::File(start..start + 1);
        let number = |value, start| Node::new(Value::Integer(Some(value)), span(start));
        let entry = |key: &str, node: Node| Entry { key: key.to_owned(), key_origin: span(0), node };
        let limits = Node::new(
            Value::Table(vec![
                entry("header-count", number(10, 1)),
                entry("trailer-count", number(11, 2)),
                entry("connections", number(12, 3)),
            ]),
            span(0),
        );
        let document = Node::new(Value::Table(vec![entry("limits", limits)]), span(0));
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let mut faults = Vec::new();
        let tree = merge(
            document,
            &[
                pair("REEVE_LIMITS__TRAILER_COUNT", "21"),
                pair("REEVE_LIMITS__CONNECTIONS", "22"),
                pair("REEVE_LOG", "debug"),
                pair("REEVE_HAND_OVER", "1"),
                pair("PATH", "x"),
            ],
            &[pair("limits.connections", "33")],
            &mut faults,
        );
        assert!(faults.is_empty());
        let limits = &tree.entry("limits").unwrap().node;
        let value = |key| {
            let node = &limits.entry(key).unwrap().node;
            (node.value.clone(), node.origin.clone())
        };
        assert_eq!(value("header-count"), (Value::Integer(Some(10)), span(1)));
        let variable = Origin::Environment("REEVE_LIMITS__TRAILER_COUNT".into());
        assert_eq!(value("trailer-count"), (Value::Integer(Some(21)), variable));
        let option = Origin::CommandLine("limits.connections".into());
        assert_eq!(value("connections"), (Value::Integer(Some(33)), option));
        assert_eq!(value("header-bytes"), (Value::String("64KiB".into()), Origin::Default));
    }
}
