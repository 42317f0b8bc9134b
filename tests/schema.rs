//! The JSON schema says what the reader of the configuration knows: each table is read with a key that nobody has, and what
//! the reader says is allowed has to be what the schema has there.
//!
//! `UPDATE_GOLDEN=1` adds keys that the schema lacks, to be described, and takes away those that are gone.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use reeve::config;
use reeve::model::Fault;
use serde_json::{Map, Value, json};

/// A key of a table, or an item of a list.
#[derive(Debug, Clone)]
enum Step {
    Key(String),
    Item,
}

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config/reeve.schema.json")
}

fn schema() -> Value {
    serde_json::from_str(&std::fs::read_to_string(file()).expect("the schema")).expect("JSON")
}

/// A configuration in which a value stands at the end of a path.
fn text(path: &[Step], value: &str) -> String {
    let Some((Step::Key(first), rest)) = path.split_first() else { return value.to_owned() };
    let inner = rest.iter().rev().fold(value.to_owned(), |inner, step| match step {
        Step::Key(key) => format!("{{ {key} = {inner} }}"),
        Step::Item => format!("[{inner}]"),
    });
    format!("{first} = {inner}\n")
}

fn faults(text: &str) -> Vec<Fault> {
    config::load_text("reeve.toml", text).faults
}

/// Tables of which some keys are known only beside others.
const BESIDE: [(&str, &str); 2] =
    [("affinity", "mode = \"learn\", cookie = \"a\""), ("affinity", "tls-session = true")];

/// The keys that the reader knows in the table at the end of a path.
fn known(path: &[Step]) -> Option<BTreeSet<String>> {
    let told = |text: &str| -> Option<Vec<String>> {
        let unknown = |fault: &Fault| fault.code == "R0103" && fault.message.contains("zzz-nobody");
        faults(text).into_iter().find(unknown).map(|fault| fault.allowed)
    };
    if path.is_empty() {
        return told("zzz-nobody = 1\n").map(|keys| keys.into_iter().collect());
    }
    let mut tables = vec!["{ zzz-nobody = 1 }".to_owned()];
    if let Some(Step::Key(last)) = path.last() {
        let beside = BESIDE.iter().filter(|(table, _)| *table == last.as_str());
        tables.extend(beside.map(|(_, beside)| format!("{{ {beside}, zzz-nobody = 1 }}")));
    }
    let keys: BTreeSet<String> = tables.iter().filter_map(|table| told(&text(path, table))).flatten().collect();
    (!keys.is_empty()).then_some(keys)
}

/// Keys that an empty table at the end of a path lacks.
fn required(path: &[Step]) -> BTreeSet<String> {
    let missing = |path: &[Step]| -> BTreeSet<String> {
        let all = faults(&text(path, "{}")).into_iter().filter(|fault| fault.code == "R0104");
        all.map(|fault| fault.message).collect()
    };
    let Some((_, parent)) = path.split_last() else { return BTreeSet::new() };
    // A list or a table of names lacks nothing.
    let parent = if parent.is_empty() { BTreeSet::new() } else { missing(parent) };
    let own = missing(path);
    own.difference(&parent)
        .filter_map(|message| Some(message.split_once("has no \"")?.1.trim_end_matches('"').to_owned()))
        .collect()
}

fn words(value: &Value) -> BTreeSet<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Compares a schema with the reader, and what is below it. `update`: the schema takes on the reader's keys.
fn compare(schema: &mut Value, path: &[Step], update: bool, wrong: &mut Vec<String>) {
    let Some(own) = schema.as_object_mut() else { return };
    let at = |more: &str| format!("{path:?} {more}");
    if own.contains_key("properties") {
        match known(path) {
            None => wrong.push(at("is no table that the reader knows")),
            Some(known) => {
                let properties = own["properties"].as_object_mut().expect("an object");
                let here: BTreeSet<String> = properties.keys().cloned().collect();
                if update {
                    properties.retain(|key, _| known.contains(key));
                    for key in known.difference(&here) {
                        properties.insert(key.clone(), json!({}));
                    }
                } else if here != known {
                    let more: Vec<_> = here.difference(&known).collect();
                    let less: Vec<_> = known.difference(&here).collect();
                    wrong.push(at(&format!("has {more:?}, which the reader does not know, and lacks {less:?}")));
                }
            }
        }
        // Which of its probes a check has is for the reader to say.
        let lacks = required(path);
        if lacks != own.get("required").map(words).unwrap_or_default() {
            wrong.push(at(&format!("requires {:?}, and the reader {lacks:?}", own.get("required"))));
        }
    }
    if let Some(allowed) = own.get("enum") {
        let fault =
            faults(&text(path, "\"zzz-nobody\"")).into_iter().find(|fault| fault.message.contains("zzz-nobody"));
        let known: BTreeSet<String> = fault.into_iter().flat_map(|fault| fault.allowed).collect();
        if known != words(allowed) {
            wrong.push(at(&format!("allows {allowed}, and the reader {known:?}")));
        }
    }
    let below = |step: Step| [path, &[step]].concat();
    for (key, inner) in own.get_mut("properties").and_then(Value::as_object_mut).into_iter().flatten() {
        compare(inner, &below(Step::Key(key.clone())), update, wrong);
    }
    for (pattern, inner) in own.get_mut("patternProperties").and_then(Value::as_object_mut).into_iter().flatten() {
        let name = if pattern.starts_with("^[45]") { "503" } else { "x" };
        compare(inner, &below(Step::Key(name.to_owned())), update, wrong);
    }
    for inner in own.get_mut("anyOf").and_then(Value::as_array_mut).into_iter().flatten() {
        compare(inner, path, update, wrong);
    }
    if let Some(inner) = own.get_mut("items") {
        compare(inner, &below(Step::Item), update, wrong);
    }
}

#[test]
fn the_schema_has_the_keys_that_the_reader_knows() {
    let mut own = schema();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        compare(&mut own, &[], true, &mut Vec::new());
        let text = serde_json::to_string_pretty(&own).expect("JSON") + "\n";
        std::fs::write(file(), text).expect("written");
    }
    let mut wrong = Vec::new();
    compare(&mut own, &[], false, &mut wrong);
    assert!(wrong.is_empty(), "UPDATE_GOLDEN=1 adds keys that are missing:\n{}", wrong.join("\n"));
    // Something was compared: a schema of nothing would agree with everything.
    assert!(own["properties"]["pool"]["patternProperties"].as_object().is_some_and(|pools| !pools.is_empty()));
}

/// Whether a value is what a schema wants, as far as this schema's words go; else where not.
fn check(schema: &Value, value: &Value, defs: &Value, at: &str) -> Result<(), String> {
    let wrong = |what: &str| Err(format!("{at}: {what}: {value}"));
    let Some(schema) = schema.as_object() else { return Ok(()) };
    for (word, wanted) in schema {
        match word.as_str() {
            "$ref" => {
                let name = wanted.as_str().unwrap_or_default().rsplit('/').next().unwrap_or_default();
                check(&defs[name], value, defs, at)?;
            }
            "allOf" => wanted.as_array().into_iter().flatten().try_for_each(|one| check(one, value, defs, at))?,
            "anyOf" => {
                let all = wanted.as_array().expect("a list");
                let results: Vec<_> = all.iter().map(|one| check(one, value, defs, at)).collect();
                if results.iter().all(Result::is_err) {
                    return Err(results.into_iter().filter_map(Result::err).collect::<Vec<_>>().join("; "));
                }
            }
            "type" => {
                let is = |word: &str| match word {
                    "object" => value.is_object(),
                    "array" => value.is_array(),
                    "string" => value.is_string(),
                    "boolean" => value.is_boolean(),
                    "integer" => value.is_i64() || value.is_u64(),
                    "number" => value.is_number(),
                    other => panic!("{other}"),
                };
                let all = wanted.as_array().cloned().unwrap_or_else(|| vec![wanted.clone()]);
                if !all.iter().any(|word| is(word.as_str().unwrap_or_default())) {
                    return wrong(&format!("not {wanted}"));
                }
            }
            "enum" if !wanted.as_array().is_some_and(|all| all.contains(value)) => return wrong("no such word"),
            "const" if wanted != value => return wrong("not the one"),
            "minimum" if value.as_f64() < wanted.as_f64() => return wrong("too small"),
            "maximum" if value.as_f64() > wanted.as_f64() => return wrong("too large"),
            "minLength" if value.as_str().is_some_and(str::is_empty) => return wrong("empty"),
            "minItems" if value.as_array().is_some_and(Vec::is_empty) => return wrong("empty"),
            "pattern" => {
                let regex = regex::Regex::new(wanted.as_str().unwrap_or_default()).expect("a regex");
                if !value.as_str().is_some_and(|text| regex.is_match(text)) {
                    return wrong("not of that form");
                }
            }
            "items" => {
                value.as_array().into_iter().flatten().try_for_each(|item| check(wanted, item, defs, at))?;
            }
            "required" => {
                for key in wanted.as_array().into_iter().flatten().filter_map(Value::as_str) {
                    if value.as_object().is_some_and(|own| !own.contains_key(key)) {
                        return wrong(&format!("no {key}"));
                    }
                }
            }
            "properties" | "patternProperties" | "additionalProperties" => {}
            "enum" | "const" | "minimum" | "maximum" | "minLength" | "minItems" | "description" | "$schema"
            | "title" | "$defs" => {}
            other => panic!("{other} is not looked at here"),
        }
    }
    let empty = Map::new();
    let part = |word: &str| schema.get(word).and_then(Value::as_object).unwrap_or(&empty);
    for (key, inner) in value.as_object().into_iter().flatten() {
        let at = format!("{at}.{key}");
        let by_pattern = || {
            part("patternProperties")
                .iter()
                .find(|(pattern, _)| regex::Regex::new(pattern).expect("a regex").is_match(key))
        };
        match part("properties").get(key).or_else(|| by_pattern().map(|(_, inner)| inner)) {
            Some(wanted) => check(wanted, inner, defs, &at)?,
            None if schema.get("additionalProperties") == Some(&json!(false)) => return Err(format!("{at}: unknown")),
            None => {}
        }
    }
    Ok(())
}

/// A configuration as JSON.
fn parsed(text: &str) -> Value {
    let table: toml::Table = text.parse().expect("TOML");
    serde_json::to_value(table).expect("JSON")
}

#[test]
fn every_configuration_that_ships_is_one_by_the_schema() {
    let (schema, root) = (schema(), Path::new(env!("CARGO_MANIFEST_DIR")));
    let mut files = vec![root.join("config/reeve.toml")];
    let examples = std::fs::read_dir(root.join("config/examples")).expect("the examples");
    files.extend(examples.map(|entry| entry.expect("an example").path()));
    assert!(files.len() > 10);
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a configuration");
        // Every key of the commented sample is meant, those that are off too.
        if let Err(wrong) = check(&schema, &parsed(&text), &schema["$defs"], "") {
            panic!("{}: {wrong}", file.display());
        }
    }
    for (wrong, what) in [
        ("[timeouts]\nconnect = \"3sec\"\n", ".timeouts.connect: not of that form"),
        ("[listen.web]\nprotocol = \"http\"\n", ".listen.web: no address"),
        ("[pool.a]\nservers = [{ address = \"a:1\", wieght = 1 }]\n", ".pool.a.servers.wieght: unknown"),
        ("[pool.a]\nservers = [\"a:1\"]\nscheduler = \"rrr\"\n", "no such word"),
        ("lisen = 1\n", ".lisen: unknown"),
    ] {
        let told = check(&schema, &parsed(wrong), &schema["$defs"], "").expect_err(wrong);
        assert!(told.contains(what), "{told}");
    }
}
