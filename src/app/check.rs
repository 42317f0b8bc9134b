//! The one way from texts to tables, and `reeve check`, which goes it and stops there.
//!
//! `run`, `demo`, `check` and `explain` all begin with `prepare`, and so does a reload, so that what was checked
//! is what is served. It opens no socket, asks no server and writes no file.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::SystemTime;

use super::args::{CheckArguments, Format};
use super::overlaps::Overlapping;
use super::{FAULT, UNEXPECTED, output, request};
use crate::config::source::Sources;
use crate::config::{self, Load};
use crate::model::{Config, Fault, Severity};
use crate::route::{self, Table};
use crate::tls;

/// Texts that were read, and what they were compiled to.
pub struct Prepared {
    pub load: Load,
    /// One for each of `Config::rule_sets`, in their order.
    pub tables: Vec<Arc<Table>>,
    /// Certificates and keys, as far as they are good.
    pub tls: tls::Loaded,
    /// `expect` lines that do not hold. Each is among the faults.
    pub failed_expects: usize,
}

/// Reads the texts, compiles every rule set and runs its `expect` lines, and reads certificates and keys.
pub fn prepare(request: &config::Request) -> Prepared {
    with_keys(texts(request), None)
}

/// As [`prepare`], for a process in which `before` is in force: certificates that are in use as their files are
/// now stay in use.
pub fn prepare_again(request: &config::Request, before: tls::Before<'_>) -> Prepared {
    with_keys(texts(request), before)
}

/// As [`prepare`], without certificates and keys: who only asks where requests go need not be allowed to
/// read them.
pub fn texts(request: &config::Request) -> Prepared {
    compile(config::load(request))
}

/// What was prepared before, with its lists and maps read anew.
pub fn prepare_lists(request: &config::Request, kept: &Sources, tls: &tls::Loaded) -> Prepared {
    Prepared { tls: tls.clone(), ..compile(config::load_lists(request, kept)) }
}

fn with_keys(mut prepared: Prepared, before: tls::Before<'_>) -> Prepared {
    let load = &mut prepared.load;
    if let Some(config) = load.config.as_ref().or(load.unusable.as_ref()) {
        prepared.tls = tls::load(config, before, SystemTime::now(), &mut load.faults);
        config::fault::sort(&mut load.faults);
    }
    prepared
}

fn compile(mut load: Load) -> Prepared {
    let mut tables = Vec::new();
    let mut failed_expects = 0;
    // Rules are compiled and tested behind a fault of the configuration too: all faults in one run.
    if let Some(config) = load.config.as_ref().or(load.unusable.as_ref()) {
        let read = load.faults.len();
        for set in &config.rule_sets {
            tables.push(Arc::new(Table::compile(set, &mut load.faults)));
        }
        // Tests of rules that are wrong anyway would only add noise.
        let compiled = load.faults.len();
        if !config::fault::any_error(&load.faults[read..]) {
            let pools: Vec<Arc<str>> = config.pools.iter().map(|pool| pool.name.clone()).collect();
            for (table, set) in tables.iter().zip(&config.rule_sets) {
                route::expect::run(table, set, &pools, &mut load.faults);
            }
            failed_expects = load.faults.len() - compiled;
        }
    }
    config::fault::sort(&mut load.faults);
    Prepared { load, tables, tls: tls::Loaded::default(), failed_expects }
}

impl Prepared {
    /// Whether there are tables to ask, be it that `expect` lines fail: why they do is what one asks.
    pub fn is_usable(&self) -> bool {
        let errors = count(&self.load.faults, Severity::Error);
        self.load.config.is_some() && errors == self.failed_expects
    }

    /// Whether the texts can be served.
    pub fn is_good(&self) -> bool {
        self.load.config.is_some() && !config::fault::any_error(&self.load.faults)
    }

    /// 0 when they can; 1 when only `expect` lines fail; 2 when a text has a fault.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code())
    }

    fn code(&self) -> u8 {
        match (self.is_good(), self.is_usable()) {
            (true, _) => 0,
            (false, true) => UNEXPECTED,
            (false, false) => FAULT,
        }
    }
}

/// Prints every fault, warning and note to stderr.
pub fn tell(prepared: &Prepared) {
    output::complain(&config::fault::text(&prepared.load.faults, &prepared.load.sources));
}

/// `reeve check`.
pub fn main(arguments: &CheckArguments) -> ExitCode {
    let prepared = prepare(&request(arguments.texts.clone()));
    let config = prepared.load.config.as_ref().filter(|_| arguments.overlaps && prepared.is_usable());
    let overlaps = config.map(|config| Overlapping::find(config, &prepared.tables));
    match arguments.output.format {
        Format::Json => {
            let faults = config::fault::json(&prepared.load.faults);
            output::print(&match &overlaps {
                Some(overlaps) => format!("{}\n", serde_json::json!({ "faults": faults, "overlaps": overlaps.json() })),
                None if arguments.overlaps => {
                    format!("{}\n", serde_json::json!({ "faults": faults, "overlaps": null }))
                }
                None => format!("{faults}\n"),
            });
        }
        Format::Text => {
            tell(&prepared);
            output::print(&overlaps.map(|overlaps| overlaps.text()).unwrap_or_default());
            output::print(&format!("{}\n", summary(&arguments.texts.config, &prepared)));
        }
    }
    prepared.exit_code()
}

/// `config/reeve.toml: 5 listeners, 12 pools, 31 rules, 5 expectations hold; 3 notes`
fn summary(file: &Path, prepared: &Prepared) -> String {
    let faults = &prepared.load.faults;
    let errors = count(faults, Severity::Error);
    let mut text = format!("{}: ", file.display());
    match &prepared.load.config {
        Some(config) if errors == prepared.failed_expects => text += &contents(config, prepared.failed_expects),
        _ => text += &number(errors, "error"),
    }
    let mut mark = "; ";
    for (severity, word) in [(Severity::Warning, "warning"), (Severity::Note, "note")] {
        let found = count(faults, severity);
        if found > 0 {
            text = text + mark + &number(found, word);
            mark = ", ";
        }
    }
    text
}

fn contents(config: &Config, failed: usize) -> String {
    let rules = config.rule_sets.iter().flat_map(|set| &set.sections).map(|section| section.rules.len()).sum();
    let expects: usize = config.rule_sets.iter().map(|set| set.expects.len()).sum();
    let expects = match (expects, failed) {
        (1, 0) => "1 expectation holds".to_owned(),
        (_, 0) => number(expects, "expectation") + " hold",
        (_, 1) => format!("1 of {} fails", number(expects, "expectation")),
        _ => format!("{failed} of {} fail", number(expects, "expectation")),
    };
    let (listeners, pools) = (number(config.listeners.len(), "listener"), number(config.pools.len(), "pool"));
    format!("{listeners}, {pools}, {}, {expects}", number(rules, "rule"))
}

fn count(faults: &[Fault], severity: Severity) -> usize {
    faults.iter().filter(|fault| fault.severity == severity).count()
}

fn number(count: usize, word: &str) -> String {
    if count == 1 { format!("1 {word}") } else { format!("{count} {word}s") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::demo::Folder;

    const CONFIGURATION: &str = "[listen.web]\naddress = [\"127.0.0.1:8080\"]\n\n\
                                 [pool.web]\nservers = [{ address = \"127.0.0.1:9001\" }]\n";
    const RULES: &str = "http a.example\n  a : path /a  use web\n  rest : any  deny\n";

    /// What is said of a configuration and its rules, and the exit code.
    fn checked(configuration: &str, rules: &str) -> (String, u8) {
        let folder = Folder::new().unwrap();
        let file = folder.write("config/reeve.toml", configuration).unwrap();
        folder.write("rules/a.rules", rules).unwrap();
        let prepared = prepare(&config::Request { file, ..config::Request::default() });
        (summary(Path::new("reeve.toml"), &prepared), prepared.code())
    }

    #[test]
    fn good_texts_are_counted() {
        let said = checked(CONFIGURATION, RULES);
        assert_eq!(said, ("reeve.toml: 1 listener, 1 pool, 2 rules, 0 expectations hold".to_owned(), 0));
        let said = checked(CONFIGURATION, &format!("{RULES}expect GET /a -> web\n"));
        assert_eq!(said.0, "reeve.toml: 1 listener, 1 pool, 2 rules, 1 expectation holds");
        let said = checked(&format!("{CONFIGURATION}[failover]\nrouter-id = 51\n"), RULES);
        assert!(said.0.ends_with("0 expectations hold; 1 note") && said.1 == 0, "{said:?}");
    }

    #[test]
    fn expectations_alone_have_an_exit_code_of_their_own() {
        let rules = format!("{RULES}expect GET /a -> web\nexpect GET /b -> web\n");
        let said = checked(CONFIGURATION, &rules);
        assert_eq!(said, ("reeve.toml: 1 listener, 1 pool, 2 rules, 1 of 2 expectations fails".to_owned(), 1));
    }

    #[test]
    fn faults_are_counted() {
        let said = checked(CONFIGURATION, "http a.example\n  a : path /a  use nobody\n  rest : any  use noone\n");
        assert_eq!(said, ("reeve.toml: 2 errors".to_owned(), 2));
        // A fault that only the compiler sees, and an expectation that is not run for it.
        let shadowed = "http a.example\n  rest : any  deny\n  a : path /a  use web\nexpect GET /a -> web\n";
        assert_eq!(checked(CONFIGURATION, shadowed), ("reeve.toml: 1 error".to_owned(), 2));
        // Behind a fault of the configuration, rules are compiled and tested all the same.
        let wrong = format!("{CONFIGURATION}[limits]\nheader-cont = 1\n");
        assert_eq!(checked(&wrong, shadowed), ("reeve.toml: 2 errors".to_owned(), 2));
        let failing = format!("{RULES}expect GET /a -> deny\n");
        assert_eq!(checked(&wrong, &failing), ("reeve.toml: 2 errors".to_owned(), 2));
        // But not those that were not read as they were meant.
        assert_eq!(checked(CONFIGURATION, &format!("{shadowed}nonsense\n")), ("reeve.toml: 1 error".to_owned(), 2));
        let prepared = prepare(&config::Request { file: "/nonexistent/reeve.toml".into(), ..Default::default() });
        assert_eq!((summary(Path::new("x"), &prepared), prepared.code()), ("x: 1 error".to_owned(), 2));
    }
}
