//! Wrong rule files, each with what Reeve says of it: `tests/faults/rules/NN-name/{x.rules, expected.txt}`.
//!
//! `UPDATE_GOLDEN=1 cargo test --test golden_rules` writes the answers anew; read them before they are kept.

use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

use reeve::config::rules::{Input, Names, parse};
use reeve::model::fault::Suggestion;
use reeve::model::{Fault, Severity};

fn names(list: &[&str]) -> Vec<Arc<str>> {
    list.iter().map(|name| Arc::from(*name)).collect()
}

/// The faults of a folder's rule files, against the pools and listeners of the sample configuration.
fn faults(folder: &Path) -> Vec<Fault> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "rules"))
        .collect();
    files.sort();
    let texts: Vec<(Arc<str>, String)> = files
        .iter()
        .map(|path| (path.file_name().unwrap().to_str().unwrap().into(), std::fs::read_to_string(path).unwrap()))
        .collect();
    let inputs: Vec<Input<'_>> = texts.iter().map(|(name, text)| Input { name: name.clone(), text }).collect();
    let pools =
        names(&["web", "images", "api", "vod", "beta", "homes", "uploads", "admin", "live", "legacy", "dns", "mail"]);
    let listeners = names(&["web", "web-tls", "media", "sealed", "mail"]);
    let read = |name: &str| std::fs::read_to_string(folder.join(name));
    let mut faults = Vec::new();
    parse(&inputs, &Names { pools: &pools, listeners: &listeners, read: &read }, &mut faults);
    faults
}

fn render(faults: &[Fault]) -> String {
    let mut text = String::new();
    for fault in faults {
        let place = &fault.place;
        let severity = match fault.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "note",
        };
        let (file, line) = (&place.file, place.line);
        write!(text, "{file}:{line}:{}-{} {severity} {} {}", place.column, place.end, fault.code, fault.message)
            .unwrap();
        if !fault.allowed.is_empty() {
            write!(text, " | allowed: {}", fault.allowed.join(", ")).unwrap();
        }
        match &fault.suggestion {
            Some(Suggestion::DidYouMean(word)) => write!(text, " | did you mean \"{word}\"?").unwrap(),
            Some(Suggestion::Help(help)) => write!(text, " | help: {help}").unwrap(),
            None => {}
        }
        for (place, what) in &fault.also {
            write!(text, " | {}:{}:{} {what}", place.file, place.line, place.column).unwrap();
        }
        text.push('\n');
    }
    text
}

#[test]
fn wrong_rule_files_are_told_in_the_right_place() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/faults/rules");
    let mut folders: Vec<_> = std::fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    assert!(folders.len() >= 16, "the wrong files are there");
    for folder in folders {
        let told = render(&faults(&folder));
        let kept = folder.join("expected.txt");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&kept, &told).unwrap();
        }
        let expected = std::fs::read_to_string(&kept).unwrap_or_default();
        assert_eq!(told, expected, "{}", folder.display());
    }
}

/// The pools of a configuration, by name.
fn pools_of(path: &Path) -> Vec<Arc<str>> {
    let text = std::fs::read_to_string(path).unwrap();
    let table: toml::Table = text.parse().unwrap();
    table["pool"].as_table().unwrap().keys().map(|name| name.as_str().into()).collect()
}

#[test]
fn the_examples_have_no_fault() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files: Vec<_> =
        std::fs::read_dir(root.join("rules/examples")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 8);
    for file in files {
        let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
        let text = std::fs::read_to_string(&file).unwrap();
        let pools = pools_of(&root.join(format!("config/examples/{name}.toml")));
        let read = |name: &str| std::fs::read_to_string(root.join(name));
        let listeners = names(&["web"]);
        let mut faults = Vec::new();
        let input = [Input { name: name.as_str().into(), text: &text }];
        let set = parse(&input, &Names { pools: &pools, listeners: &listeners, read: &read }, &mut faults);
        assert_eq!(render(&faults), "");
        assert!(set.expects.len() >= 2, "{name} has its tests");
    }
}

#[test]
fn the_default_rules_have_no_fault() {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("rules/reeve.rules")).unwrap();
    let pools = names(&["web", "images"]);
    let read = |_: &str| Err(std::io::ErrorKind::NotFound.into());
    let mut faults = Vec::new();
    let input = [Input { name: "rules/reeve.rules".into(), text: &text }];
    let set = parse(&input, &Names { pools: &pools, listeners: &[], read: &read }, &mut faults);
    assert_eq!(render(&faults), "");
    assert_eq!(set.expects.len(), 3);
}
