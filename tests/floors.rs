//! The house keeps its shape: who may import whom, where `unsafe` lives, how long a file grows.
//!
//! A module imports only from strictly lower floors (the drawing in `src/lib.rs`), so that siblings
//! never import each other and no knot can form. Read from the sources as text, with comments, strings
//! and tests taken out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Ground to roof. A new module gets its floor here and in the drawing of `src/lib.rs`.
const FLOORS: [&[&str]; 6] = [
    &["model"],
    &["wire", "config", "sys"],
    &["route", "balance", "affinity"],
    &["state", "tls", "net"],
    &["proxy", "director", "health", "sessions", "failover", "monitor"],
    &["app"],
];

/// Lines of production code in one file; more than that are two subjects.
const LONGEST: usize = 700;

/// One file of `src/`, with what is not production code blanked out line by line.
struct Source {
    /// Relative to `src/`.
    path: PathBuf,
    /// `["proxy", "relay"]` for `proxy/relay.rs`; empty for `lib.rs` and `main.rs`.
    module: Vec<String>,
    code: String,
}

#[test]
fn modules_import_strictly_downwards() {
    let mut wrong = Vec::new();
    for source in sources() {
        let Some(here) = source.module.first() else { continue };
        let Some(floor) = floor_of(here) else {
            wrong.push(format!("{}: {here} has no floor", source.path.display()));
            continue;
        };
        for there in imports(&source) {
            let allowed = there == *here || floor_of(&there).is_some_and(|lower| lower < floor);
            if !allowed {
                wrong.push(format!("{}: {here} must not import {there}", source.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn lib_rs_only_declares_modules() {
    let lib = sources().into_iter().find(|s| s.path == Path::new("lib.rs")).expect("src/lib.rs");
    let mut declared = Vec::new();
    for line in lib.code.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let platform = line.starts_with("#[cfg(not(target_os") || line.starts_with("compile_error!(");
        match line.strip_prefix("pub mod ").and_then(|rest| rest.strip_suffix(';')) {
            Some(name) => declared.push(name.to_owned()),
            None => assert!(platform, "lib.rs defines nothing: {line}"),
        }
    }
    for name in &declared {
        assert!(floor_of(name).is_some(), "{name} has no floor in tests/floors.rs");
    }
    let text = std::fs::read_to_string(folder().join("lib.rs")).expect("src/lib.rs");
    let drawing: Vec<&str> = text.lines().filter(|line| line.starts_with("//!")).collect();
    for name in &declared {
        assert!(drawing.iter().any(|line| words(line).any(|word| word == name)), "{name} is not in the drawing");
    }
}

#[test]
fn unsafe_lives_in_sys() {
    let sources = sources();
    let elsewhere = sources.iter().filter(|source| source.module.first().is_none_or(|name| name != "sys"));
    let wrong: Vec<_> = elsewhere.filter(|s| words(&s.code).any(|word| word == "unsafe")).map(|s| &s.path).collect();
    assert!(wrong.is_empty(), "unsafe outside src/sys: {wrong:?}");
}

#[test]
fn files_stay_short() {
    let mut long = BTreeMap::new();
    for source in sources() {
        let lines = source.code.lines().count();
        if lines > LONGEST {
            long.insert(source.path, lines);
        }
    }
    assert!(long.is_empty(), "split these along a noun: {long:?}");
}

fn floor_of(module: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&module))
}

/// The top-level modules that a file names, by `crate::` or by climbing there with `super::`.
fn imports(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in source.code.match_indices("crate::") {
        let whole = !source.code[..at].ends_with(is_word);
        if whole {
            found.extend(first_names(&source.code[at + "crate::".len()..]));
        }
    }
    let climb = "super::".repeat(source.module.len());
    for (at, _) in source.code.match_indices(&climb) {
        let before = &source.code[..at];
        if !before.ends_with("super::") && !before.ends_with(is_word) {
            found.extend(first_names(&source.code[at + climb.len()..]));
        }
    }
    found.retain(|name| name.starts_with(|c: char| c.is_ascii_lowercase()) && name != "super" && name != "self");
    found
}

/// `route::Table` -> route; `{route::Table, state::{A, B}}` -> route, state.
fn first_names(text: &str) -> Vec<String> {
    let word = |text: &str| text.chars().take_while(|c| is_word(*c)).collect::<String>();
    let Some(group) = text.strip_prefix('{') else { return vec![word(text)] };
    let (mut names, mut depth, mut start) = (Vec::new(), 1, true);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => start = true,
            c if start && is_word(c) => {
                names.push(word(&group[at..]));
                start = false;
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    names
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !is_word(c)).filter(|word| !word.is_empty())
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn sources() -> Vec<Source> {
    let mut paths = Vec::new();
    collect(&folder(), &mut paths);
    paths.sort();
    let texts: BTreeMap<PathBuf, String> = paths
        .into_iter()
        .map(|path| {
            let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            (path.strip_prefix(folder()).expect("a file of src").to_owned(), without_comments_and_strings(&text))
        })
        .collect();
    let tests = test_files(&texts);
    texts
        .into_iter()
        .filter(|(path, _)| !tests.iter().any(|test| path == test || path.starts_with(test.with_extension(""))))
        .map(|(path, text)| Source { module: module_of(&path), code: without_tests(&text), path })
        .collect()
}

fn collect(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
        let path = entry.expect("an entry of src").path();
        if path.is_dir() {
            collect(&path, into);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            into.push(path);
        }
    }
}

fn module_of(path: &Path) -> Vec<String> {
    let stem = path.with_extension("");
    let mut parts: Vec<String> = stem.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if parts.last().is_some_and(|last| last == "mod") || matches!(&parts[..], [one] if one == "lib" || one == "main") {
        parts.pop();
    }
    parts
}

/// Files that only tests use: those behind `#[cfg(test)] mod NAME;`.
fn test_files(texts: &BTreeMap<PathBuf, String>) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for (path, text) in texts {
        for (at, _) in text.match_indices("#[cfg(test)]") {
            let rest = text[at + "#[cfg(test)]".len()..].trim_start();
            let rest = rest.trim_start_matches("pub(crate) ").trim_start_matches("pub ");
            let Some(name) = rest.strip_prefix("mod ").and_then(|rest| rest.split_once(';')).map(|(name, _)| name)
            else {
                continue;
            };
            if !name.chars().all(is_word) {
                continue;
            }
            let parent: PathBuf = module_of(path).iter().collect();
            found.push(parent.join(name).with_extension("rs"));
            found.push(parent.join(name).join("mod.rs"));
        }
    }
    found
}

/// Cuts out what follows each `#[cfg(test)]`: an item, up to its `;` or its closing brace.
fn without_tests(text: &str) -> String {
    let mut kept = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("#[cfg(test)]") {
        kept.push_str(&rest[..at]);
        let mut depth = 0;
        let mut end = rest.len();
        for (offset, c) in rest[at..].char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 0 && (c == '}' || c == ';') {
                end = at + offset + 1;
                break;
            }
        }
        rest = &rest[end..];
    }
    kept + rest
}

/// Blanks comments, strings and character literals; line breaks stay, so that lines count right.
fn without_comments_and_strings(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < bytes.len() {
        let end = token_end(text, at);
        match end {
            Some(end) => {
                out.extend(text[at..end].chars().filter(|c| *c == '\n'));
                at = end;
            }
            None => {
                let c = text[at..].chars().next().expect("not at the end");
                out.push(c);
                at += c.len_utf8();
            }
        }
    }
    out
}

/// Where the comment or literal that begins at `at` ends; `None` when none begins there.
fn token_end(text: &str, at: usize) -> Option<usize> {
    let rest = &text[at..];
    let after_word = text[..at].ends_with(is_word);
    let find = |from: usize, what: &str| rest[from..].find(what).map_or(text.len(), |n| at + from + n + what.len());
    if rest.starts_with("//") {
        return Some(rest.find('\n').map_or(text.len(), |n| at + n));
    }
    if rest.starts_with("/*") {
        let (mut depth, mut offset) = (1, 2);
        while depth > 0 && offset < rest.len() {
            let here = &rest.as_bytes()[offset..];
            let step = if here.starts_with(b"/*") {
                depth += 1;
                2
            } else if here.starts_with(b"*/") {
                depth -= 1;
                2
            } else {
                1
            };
            offset += step;
        }
        return Some(at + offset);
    }
    let raw = rest.strip_prefix('b').or(rest.strip_prefix('c')).unwrap_or(rest);
    if !after_word && raw.starts_with('r') {
        let hashes = raw[1..].chars().take_while(|c| *c == '#').count();
        if raw[1 + hashes..].starts_with('"') {
            let open = rest.len() - raw.len() + 1 + hashes + 1;
            return Some(find(open, &format!("\"{}", "#".repeat(hashes))));
        }
    }
    if rest.starts_with('"') {
        let mut escaped = false;
        for (offset, c) in rest.char_indices().skip(1) {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => return Some(at + offset + 1),
                _ => {}
            }
        }
        return Some(text.len());
    }
    if let Some(inside) = rest.strip_prefix('\'') {
        // A character, not a lifetime: `'x'`, `'\n'`, `'\u{e9}'`.
        if inside.starts_with('\\') {
            return Some(find(3, "'"));
        }
        let c = inside.chars().next()?;
        return inside[c.len_utf8()..].starts_with('\'').then(|| at + 2 + c.len_utf8());
    }
    None
}

#[test]
fn the_reader_of_sources_is_not_fooled() {
    let text = r####"
use crate::{model::Limits, route::{Table, Head}, state};
// use crate::proxy::X;
/* crate::app /* crate::app */ crate::app */
const A: &str = "crate::app // \" crate::app";
const B: &str = r#"crate::app " crate::app"#;
fn f<'a>(x: &'a str) -> char { '"' }
fn g() -> char { '\'' }
use super::super::net::Dial;
#[cfg(test)]
use crate::app::Y;
#[cfg(test)]
mod tests { use crate::monitor; fn g() { {} } }
fn h() { my_crate::app(); crate::health::probe() }
"####;
    let code = without_tests(&without_comments_and_strings(text));
    let source = Source { path: "proxy/relay.rs".into(), module: vec!["proxy".into(), "relay".into()], code };
    assert_eq!(imports(&source), ["model", "route", "state", "health", "net"]);
    assert_eq!(module_of(Path::new("proxy/mod.rs")), ["proxy"]);
    assert_eq!(module_of(Path::new("proxy/relay.rs")), ["proxy", "relay"]);
    assert!(module_of(Path::new("lib.rs")).is_empty());
}
