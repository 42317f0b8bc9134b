//! Wrong configurations, and what is said of them, word for word.
//!
//! Each folder of `tests/faults/config/` has a `reeve.toml`, perhaps an `environment.txt` and a
//! `command-line.txt` (`NAME=value` a line), and `expected.txt`. `UPDATE_GOLDEN=1` writes the last
//! anew: read every difference before it is kept.

use std::path::{Path, PathBuf};

use reeve::config::{Request, fault, load};

#[test]
fn every_wrong_configuration_is_told_what_is_wrong() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut folders: Vec<PathBuf> = std::fs::read_dir("tests/faults/config")
        .expect("tests run at the top of the project")
        .map(|entry| entry.expect("a folder can be listed").path())
        .collect();
    folders.sort();
    assert!(folders.len() >= 18);
    let mut wrong = Vec::new();
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

fn said(folder: &Path) -> String {
    let request = Request {
        file: folder.join("reeve.toml"),
        base: None,
        environment: pairs(&folder.join("environment.txt")),
        overrides: pairs(&folder.join("command-line.txt")),
    };
    let load = load(&request);
    assert!(!load.faults.is_empty(), "{} is not wrong", folder.display());
    assert_eq!(load.config.is_none(), fault::any_error(&load.faults), "{}", folder.display());
    fault::text(&load.faults, &load.sources)
}

fn pairs(file: &Path) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines().filter_map(|line| line.split_once('=')).map(|(name, value)| (name.into(), value.into())).collect()
}
