//! The operator's texts: configuration and rule files to `model::Config`, and every fault in them.
//!
//! Called by `app` at start, at reload and by `check`. `document` reads TOML, `layers` lays the
//! environment and the command line over it, `file` checks every key, `rules` reads rule files, and
//! `resolve` looks up the names and puts all of it together. Faults never stop the walk: one run
//! reports all of them.

pub mod entries;
pub mod fault;
pub mod rules;
pub mod source;

mod closest;
mod document;
mod file;
mod layers;
mod node;
mod resolve;
mod units;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::model::rule::RuleSet;
use crate::model::{Config, Fault, Place, Severity};
pub use closest::closest;
pub use layers::HAND_OVER;
use resolve::Disk;
use source::Sources;

/// What to load.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// The configuration file, as it was given: faults name it so.
    pub file: PathBuf,
    /// `--base`: where relative paths start.
    pub base: Option<PathBuf>,
    /// Where rule files are looked for instead, by their names alone: `replay`'s. Relative to the working folder.
    pub rules: Option<PathBuf>,
    /// Names and values; only `REEVE_...` is looked at.
    pub environment: Vec<(String, String)>,
    /// Keys with dots and their values, as `limits.header-count` and `50`. The last word.
    pub overrides: Vec<(String, String)>,
}

/// What was loaded.
#[derive(Debug, Clone, Default)]
pub struct Load {
    /// Only where no fault is an error.
    pub config: Option<Config>,
    /// Where one is: what could be read all the same, with those rule sets whose own texts have none.
    /// Good for finding the faults that show when rules are compiled, never for serving.
    pub unusable: Option<Config>,
    /// In the order of their places.
    pub faults: Vec<Fault>,
    /// The texts that were read, for whoever prints the faults.
    pub sources: Sources,
}

/// Loads a configuration file and all that it names.
pub fn load(request: &Request) -> Load {
    let name: Arc<str> = request.file.display().to_string().into();
    let base = request.base.clone().unwrap_or_else(|| base_of(&request.file));
    match read(&request.file, document::LARGEST as u64) {
        Ok(text) => {
            let outside = Outside {
                rules: request.rules.as_deref(),
                environment: &request.environment,
                overrides: &request.overrides,
            };
            load_from(&name, &text, &base, Disk::Real, &outside)
        }
        Err(error) => {
            let fault = Fault::error("R0100", Place::file(name), format!("cannot be read: {}", reason(&error)));
            let fault = match error.kind() {
                std::io::ErrorKind::NotFound => fault.help("name the configuration: -c FILE"),
                _ => fault,
            };
            Load { faults: vec![fault], ..Load::default() }
        }
    }
}

/// Loads what was loaded before: the texts as they were then, and only the lists and maps as they are now. What
/// somebody has begun to edit meanwhile is left alone.
pub fn load_lists(request: &Request, kept: &Sources) -> Load {
    let name: Arc<str> = request.file.display().to_string().into();
    let base = request.base.clone().unwrap_or_else(|| base_of(&request.file));
    match kept.text(&name) {
        Some(text) => {
            let outside = Outside {
                rules: request.rules.as_deref(),
                environment: &request.environment,
                overrides: &request.overrides,
            };
            load_from(&name, text, &base, Disk::Kept(kept), &outside)
        }
        // It has never been loaded.
        None => load(request),
    }
}

/// Loads a configuration text alone: the file system is not touched, every file that it names counts
/// as there and empty.
pub fn load_text(name: &str, text: &str) -> Load {
    let outside = Outside { rules: None, environment: &[], overrides: &[] };
    load_from(&name.into(), text, Path::new(""), Disk::None, &outside)
}

struct Outside<'a> {
    rules: Option<&'a Path>,
    environment: &'a [(String, String)],
    overrides: &'a [(String, String)],
}

fn load_from(name: &Arc<str>, text: &str, base: &Path, disk: Disk<'_>, outside: &Outside<'_>) -> Load {
    let mut load = Load::default();
    load.sources.add(name.clone(), text);
    if let Some(document) = document::parse(name, text, &load.sources, &mut load.faults) {
        let syntax = load.faults.len();
        let root = layers::merge(document.root, outside.environment, outside.overrides, &mut load.faults);
        let file = file::read(&root, name, &load.sources, &mut load.faults);
        load.config =
            Some(resolve::resolve(file, name, base, outside.rules, disk, &mut load.sources, &mut load.faults));
        let mut index = 0;
        load.faults.retain(|fault| {
            index += 1;
            index <= syntax || !document.doubtful.iter().any(|doubtful| overlap(doubtful, &fault.place))
        });
    }
    fault::sort(&mut load.faults);
    if fault::any_error(&load.faults) {
        load.unusable = load.config.take();
        if let Some(config) = &mut load.unusable {
            config.rule_sets.retain(|set| !load.faults.iter().any(|fault| spoils(fault, set)));
        }
    }
    load
}

/// Whether a fault says that a rule set was not read as it was meant. Its rules would then be compared with
/// some that are missing.
fn spoils(fault: &Fault, set: &RuleSet) -> bool {
    let lists = set.lists.iter().map(|list| &list.file).chain(set.maps.iter().map(|map| &map.file));
    fault.severity == Severity::Error && set.files.iter().chain(lists).any(|file| *file == fault.place.file)
}

fn overlap(a: &Place, b: &Place) -> bool {
    a.file == b.file && a.line == b.line && a.column < b.end && b.column < a.end
}

/// Where relative paths start: the parent of the folder `config/` that holds the file, else the
/// file's own folder. Empty for the working directory.
pub fn base_of(file: &Path) -> PathBuf {
    let folder = file.parent().unwrap_or(Path::new(""));
    if folder.file_name().is_some_and(|name| name == "config") {
        return folder.parent().unwrap_or(Path::new("")).to_owned();
    }
    // `-c reeve.toml` or `-c ../config/./reeve.toml` inside the folder: its name is not in the path.
    let unnamed = folder.file_name().is_none();
    let real = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    if unnamed && real.canonicalize().is_ok_and(|real| real.file_name().is_some_and(|name| name == "config")) {
        return folder.join("..");
    }
    folder.to_owned()
}

/// A duration as every text of ours writes it: `250ms`, `1.5s`, `10m`, `1h`, `7d`.
pub fn duration(text: &str) -> Option<Duration> {
    units::duration(text).ok()
}

/// A token (RFC 9110 §5.6.2): what methods and the names of fields and cookies are made of.
fn is_token(text: &str) -> bool {
    let special = |byte| b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || special(byte))
}

/// Why a file cannot be read, in words.
fn reason(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "there is no such file".to_owned(),
        std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}

/// Reads a text of a bounded size.
fn read(path: &Path, most: u64) -> std::io::Result<String> {
    use std::io::{Error, ErrorKind, Read};
    // A pipe would wait for its writer.
    if !std::fs::metadata(path)?.is_file() {
        return Err(Error::new(ErrorKind::InvalidInput, "not a file"));
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(Error::new(ErrorKind::InvalidData, format!("more than {}", units::size_text(most))));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let line = 1 + memchr::memchr_iter(b'\n', &error.as_bytes()[..at]).count();
        Error::new(ErrorKind::InvalidData, format!("line {line} is not UTF-8"))
    })
}

#[cfg(test)]
mod tests;
