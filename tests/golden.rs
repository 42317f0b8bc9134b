//! Wrong configurations and rule files, and what is said of them, word for word.
//!
//! Each folder of `tests/faults/config/` and `tests/faults/rules/` is a whole configuration: a
//! `reeve.toml`, perhaps rule files, an `environment.txt` and a `command-line.txt` (`NAME=value` a line),
//! and `expected.txt`. `UPDATE_GOLDEN=1` writes the last anew: read every difference before it is kept.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use reeve::app::check::{self, Prepared};
use reeve::config::{Request, fault};

#[test]
fn every_wrong_text_is_told_what_is_wrong() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut wrong = Vec::new();
    let folders = [folders("tests/faults/config"), folders("tests/faults/rules")].concat();
    assert!(folders.len() >= 30);
    for folder in &folders {
        let said = said(folder);
        let golden = folder.join("expected.txt");
        if update {
            std::fs::write(&golden, &said).expect("the golden file can be written");
        }
        let expected = std::fs::read_to_string(&golden).unwrap_or_default();
        if said != expected {
            wrong.push(format!("{}\n--- expected\n{expected}--- said\n{said}", folder.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn examples_and_defaults_have_no_fault() {
    let mut files: Vec<_> = folder_entries("config/examples");
    assert!(files.len() >= 8);
    files.push("config/reeve.toml".into());
    for file in files {
        let prepared = prepare(&file, Path::new("none"));
        let mut faults = prepared.load.faults;
        // The whole farm also says what is not built yet.
        faults.retain(|fault| !file.ends_with("farm.toml") || fault.code != "R0001");
        let said = fault::text(&faults, &prepared.load.sources);
        assert_eq!(said, "", "{}", file.display());
    }
}

/// The task that five other programs were given, in no more lines than it needs; README shows it as it is tested.
#[test]
fn a_whole_farm_is_said_in_few_lines() {
    let texts = ["config/examples/farm.toml", "rules/examples/farm.rules"]
        .map(|file| std::fs::read_to_string(file).expect(file));
    let readme = std::fs::read_to_string("README.md").expect("README.md");
    assert!(texts.iter().all(|text| readme.contains(&format!("\n{text}```\n"))), "README has other texts");
    let lines: usize = texts.iter().map(|text| text.lines().count()).sum();
    assert!(lines <= 45, "{lines} lines");
    assert!(readme.contains(&format!("{lines} lines")), "README says another number than {lines}");
    let prepared = prepare(Path::new("config/examples/farm.toml"), Path::new("none"));
    let config = prepared.load.config.expect("it loads");
    assert_eq!((config.pools.len(), config.rule_sets[0].expects.len(), prepared.failed_expects), (4, 6, 0));
}

/// Every code that the sources give is in docs/faults.md, and no other.
#[test]
fn every_code_is_in_the_manual() {
    let mut sources = Vec::new();
    let mut left = vec![PathBuf::from("src")];
    while let Some(path) = left.pop() {
        match path.is_dir() {
            true => left.extend(folder_entries(path.to_str().expect("a plain name"))),
            false => sources.push(std::fs::read_to_string(&path).expect("a source")),
        }
    }
    let given: BTreeSet<&str> = sources.iter().flat_map(|text| codes(text, '"')).collect();
    let manual = std::fs::read_to_string("docs/faults.md").expect("the manual");
    let told: BTreeSet<&str> =
        manual.lines().filter(|line| line.starts_with("| R")).flat_map(|l| codes(l, ' ')).collect();
    assert!(given.len() > 80);
    assert_eq!(given, told);
}

/// The words `R0123` between two of these characters.
fn codes(text: &str, edge: char) -> impl Iterator<Item = &str> {
    text.split(edge).filter(|word| word.len() == 5 && word.starts_with("R0") && word[1..].parse::<u16>().is_ok())
}

/// The sample of the configuration's contract and the example of the rule language, word for word.
#[test]
fn the_contract_loads_with_nothing_but_notes() {
    let base = contract_with_certificates();
    let prepared = prepare(&base.join("config/reeve.toml"), Path::new("none"));
    assert!(prepared.is_good(), "{}", fault::text(&prepared.load.faults, &prepared.load.sources));
    let notes = prepared.load.faults.iter().filter(|fault| fault.severity == reeve::model::Severity::Note).count();
    assert_eq!(notes, prepared.load.faults.len());
}

/// A copy of the contract with the certificates it names: keys are made where they are needed, and never kept.
fn contract_with_certificates() -> PathBuf {
    let base = Path::new(env!("CARGO_TARGET_TMPDIR")).join("contract");
    for name in ["config/reeve.toml", "rules/shop.rules", "lists/bots.txt"] {
        let to = base.join(name);
        std::fs::create_dir_all(to.parent().expect("a folder")).expect("a folder can be made");
        std::fs::copy(Path::new("tests/data/contract").join(name), to).expect("a file can be copied");
    }
    let own = rcgen::generate_simple_self_signed(["shop.example".to_owned()]).expect("a certificate");
    std::fs::create_dir_all(base.join("certs")).expect("a folder can be made");
    for (name, text) in
        [("site.pem", own.cert.pem()), ("site.key", own.signing_key.serialize_pem()), ("clients.pem", own.cert.pem())]
    {
        std::fs::write(base.join("certs").join(name), text).expect("a file can be written");
    }
    base
}

fn said(folder: &Path) -> String {
    let prepared = prepare(&folder.join("reeve.toml"), folder);
    assert!(!prepared.load.faults.is_empty(), "{} is not wrong", folder.display());
    fault::text(&prepared.load.faults, &prepared.load.sources)
}

fn prepare(file: &Path, folder: &Path) -> Prepared {
    check::prepare(&Request {
        file: file.to_owned(),
        base: None,
        rules: None,
        environment: pairs(&folder.join("environment.txt")),
        overrides: pairs(&folder.join("command-line.txt")),
    })
}

fn folders(root: &str) -> Vec<PathBuf> {
    folder_entries(root).into_iter().filter(|path| path.is_dir()).collect()
}

fn folder_entries(root: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root).expect("tests run at the top of the project");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("a folder can be listed").path()).collect();
    paths.sort();
    paths
}

fn pairs(file: &Path) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines().filter_map(|line| line.split_once('=')).map(|(name, value)| (name.into(), value.into())).collect()
}
