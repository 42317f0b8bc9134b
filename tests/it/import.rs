//! `reeve import`: configurations of other programs, what comes of them, and where requests then go.
//!
//! Each folder of `tests/import/DIALECT/` is one: `source.conf`, what it becomes (`expected.toml`, `expected.rules`), the
//! notes, and `facts.txt`: where requests go by that program's own documentation, a line each, as
//! `LISTENER: METHOD URL FACTS -> OUTCOME`. `UPDATE_GOLDEN=1` writes all but sources and facts anew: read every
//! difference before it is kept.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use reeve::app::check::{self, Prepared};
use reeve::app::import::{Dialect, Imported, import};
use reeve::config::rules::{Input, Names};
use reeve::config::{self, Request};
use reeve::model::Severity;
use reeve::route::Table;

use crate::farm::Folder;
use crate::farm::reeve::program;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/import");

fn dialects() -> Vec<(Dialect, &'static str)> {
    vec![
        (Dialect::Ktcpvs, "ktcpvs"),
        (Dialect::Nginx, "nginx"),
        (Dialect::Haproxy, "haproxy"),
        (Dialect::Keepalived, "keepalived"),
    ]
}

fn samples(dialect: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(Path::new(ROOT).join(dialect)).expect("the samples");
    let mut folders: Vec<PathBuf> = entries.map(|entry| entry.expect("a sample").path()).collect();
    folders.sort();
    folders
}

fn source(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("source.conf")).expect("a source")
}

#[test]
fn samples_become_what_was_agreed() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut wrong = Vec::new();
    for (dialect, name) in dialects() {
        for folder in samples(name) {
            let text = source(&folder);
            let imported = match import(dialect, "source.conf", &text) {
                Ok(imported) => imported,
                Err(fault) => panic!("{}: {fault:?}", folder.display()),
            };
            // Every statement has a fate, and every fate but the plain one a note.
            assert_eq!(imported.statements, imported.translated + imported.differing + imported.unequalled);
            assert!(imported.notes.len() >= imported.differing + imported.unequalled, "{}", folder.display());
            let (_, rules) = imported.texts.split_first().expect("reeve.toml");
            let rules: String = rules.iter().map(|(name, text)| format!("# --- {name}\n{text}\n")).collect();
            let notes: String =
                imported.notes.iter().map(|note| imported.told("source.conf", note) + "\n").collect::<String>();
            let notes = format!("{notes}{}\n", imported.summary("source.conf"));
            for (file, made) in
                [("expected.toml", &imported.texts[0].1), ("expected.rules", &rules), ("notes.txt", &notes)]
            {
                let golden = folder.join(file);
                if update {
                    std::fs::write(&golden, made).expect("the golden file can be written");
                }
                if std::fs::read_to_string(&golden).unwrap_or_default() != *made {
                    wrong.push(format!("{}\n{made}", golden.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn samples_load_and_route_as_the_other_program_does() {
    let mut wrong = Vec::new();
    for (dialect, name) in dialects() {
        for folder in samples(name) {
            let imported = import(dialect, "source.conf", &source(&folder)).expect("an import");
            let site = Folder::new("import");
            let prepared = written(&site, &imported);
            let facts = std::fs::read_to_string(folder.join("facts.txt")).unwrap_or_default();
            let said = tell(&prepared);
            if prepared.load.faults.iter().any(|fault| fault.severity != Severity::Note) {
                wrong.push(format!("{}\n{said}", folder.display()));
                continue;
            }
            let config = prepared.load.config.as_ref().expect("a configuration");
            for line in facts.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
                let (listener, fact) = line.split_once(": ").expect("LISTENER: FACT");
                let found = config.listeners.iter().find(|one| *one.name == *listener);
                let found = found.unwrap_or_else(|| panic!("{}: no listener {listener}", folder.display()));
                let file = config.rule_sets[found.rules].files.first().expect("a rule file");
                let text = std::fs::read_to_string(&**file).expect("the rule file") + &format!("expect {fact}\n");
                std::fs::write(&**file, text).expect("the rule file");
            }
            let prepared = check::texts(&Request { file: site.path().join("config/reeve.toml"), ..Request::default() });
            if !prepared.is_good() {
                wrong.push(format!("{}\n{}", folder.display(), tell(&prepared)));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The texts of an import in a folder, as they are loaded, with lists and users. Certificates are not there.
fn written(folder: &Folder, imported: &Imported) -> Prepared {
    for (name, text) in &imported.texts {
        // Its place is one that a test does not write to.
        folder.write(name, text.replace("auth basic \"/etc/nginx/", "auth basic \""));
        for line in text.lines().filter(|line| line.trim_start().starts_with("auth basic ")) {
            let file = line.split('"').nth(1).and_then(|file| file.rsplit('/').next());
            folder.write(file.expect("a file of users"), "");
        }
    }
    for (name, text) in &imported.texts {
        for line in text.lines().filter(|line| name.ends_with(".rules") && line.starts_with("list ")) {
            let file = line.split('"').nth(1).expect("the file of a list");
            folder.write(file, "");
        }
    }
    check::texts(&Request { file: folder.path().join("config/reeve.toml"), ..Request::default() })
}

fn tell(prepared: &Prepared) -> String {
    config::fault::text(&prepared.load.faults, &prepared.load.sources)
}

#[test]
fn the_command_prints_writes_and_never_overwrites() {
    let folder = Folder::new("import-command");
    let sample = source(&samples("ktcpvs")[0]);
    let file = folder.write("old.conf", &sample);
    let run = |more: &[&str]| {
        let out = Command::new(program()).args(["import", "ktcpvs"]).arg(&file).args(more).output();
        let out = out.expect("reeve runs");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        (out.status.code(), text(out.stdout), text(out.stderr))
    };
    let (code, printed, summary) = run(&[]);
    assert_eq!(code, Some(0), "{summary}");
    assert!(printed.starts_with("# --- config/reeve.toml\n") && printed.contains("\n# --- rules/"), "{printed}");
    assert!(summary.contains("statements: ") && summary.contains("without an equal here"), "{summary}");
    let new = folder.path().join("new");
    let out = ["--out", new.to_str().expect("a plain path")];
    let (code, printed, said) = run(&out);
    assert_eq!((code, printed.as_str()), (Some(0), ""), "{said}");
    assert!(new.join("config/reeve.toml").is_file());
    let (code, _, said) = run(&out);
    assert!(code == Some(2) && said.contains("is there already"), "{said}");
    let (code, notes, _) = run(&["--format", "json"]);
    let notes: serde_json::Value = serde_json::from_str(&notes).expect("JSON");
    assert!(code == Some(0) && notes.as_array().is_some_and(|notes| notes[0]["verdict"].is_string()), "{notes}");
    folder.write("old.conf", "Virtual web {\n  listen = 0.0.0.0:80\n  rule pattern\n}\n");
    let (code, _, said) = run(&[]);
    assert!(code == Some(2) && said.contains("old.conf:3:8: error") && said.contains('^'), "{said}");
}

/// Whatever the bytes are: no panic, and what comes of them loads.
fn survives(dialect: Dialect, text: &str) {
    let Ok(imported) = import(dialect, "source.conf", text) else { return };
    assert_eq!(imported.statements, imported.translated + imported.differing + imported.unequalled);
    let load = config::load_text("reeve.toml", &imported.texts[0].1);
    let errors: Vec<_> = load.faults.iter().filter(|fault| fault.severity == Severity::Error).collect();
    assert!(errors.is_empty(), "{errors:?}\n{text}\n{}", imported.whole());
    let config = load.config.expect("a configuration");
    let pools: Vec<_> = config.pools.iter().map(|pool| pool.name.clone()).collect();
    let listeners: Vec<_> = config.listeners.iter().map(|listener| listener.name.clone()).collect();
    for (name, rules) in imported.texts.iter().skip(1) {
        let mut faults = Vec::new();
        let read = |_: &str| Ok(String::new());
        let names = Names { pools: &pools, listeners: &listeners, read: &read, read_secret: &read };
        let set = config::rules::parse(&[Input { name: name.as_str().into(), text: rules }], &names, &mut faults);
        Table::compile(&set, &mut faults);
        faults.retain(|fault| fault.severity == Severity::Error);
        assert!(faults.is_empty(), "{faults:?}\n{text}\n{rules}");
    }
}

/// Pieces of a text put together anew.
fn mutated() -> impl Strategy<Value = (usize, String)> {
    let texts: Vec<(usize, String)> = dialects()
        .iter()
        .enumerate()
        .flat_map(|(at, (_, name))| samples(name).into_iter().map(move |folder| (at, source(&folder))))
        .collect();
    let cut = (any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..5u8);
    (prop::sample::select(texts), prop::collection::vec(cut, 1..6)).prop_map(|((at, text), cuts)| {
        let mut letters: Vec<char> = text.chars().collect();
        for (from, to, how) in cuts {
            let (a, b) = (from.index(letters.len()), to.index(letters.len()));
            let (a, b) = (a.min(b), a.max(b).min(a.min(b) + 200));
            match how {
                0 => drop(letters.drain(a..b)),
                1 => {
                    let copy: Vec<char> = letters[a..b].iter().rev().copied().collect();
                    letters.splice(a..a, copy);
                }
                2 => letters.insert(a, '"'),
                3 => letters.insert(a, '{'),
                _ => letters[a] = '\u{fe}',
            }
            if letters.is_empty() {
                letters.push(' ');
            }
        }
        (at, letters.into_iter().collect())
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_that_is_read_panics(text in "[ -~\n]{0,300}") {
        dialects().iter().for_each(|(dialect, _)| survives(*dialect, &text));
    }

    #[test]
    fn what_was_changed_at_random_loads((at, text) in mutated()) {
        survives(dialects()[at].0, &text);
    }
}

/// A text of so many parts.
type Text = fn(usize) -> String;

/// Four times the text takes about four times as long; what is quadratic takes sixteen times.
#[test]
fn time_grows_with_the_text_alone() {
    let texts: &[(Dialect, Text)] = &[
        (Dialect::Ktcpvs, |n| {
            let servers: String = (0..n).map(|i| format!("server = 10.{}.{}.1:80 1\n", i / 250, i % 250)).collect();
            format!("Virtual a {{ listen = 0.0.0.0:80\nscheduler = wlc\n{servers}}}")
        }),
        (Dialect::Nginx, |n| {
            let locations: String =
                (0..n).map(|i| format!("location /a{i} {{ proxy_pass http://10.0.0.1; }}\n")).collect();
            format!("server {{ listen 80; {locations} }}")
        }),
        (Dialect::Nginx, |n| {
            (0..n)
                .map(|i| {
                    format!("server {{ server_name h{i}.example; location / {{ proxy_pass http://10.0.0.1; }} }}\n")
                })
                .collect()
        }),
        (Dialect::Nginx, |n| {
            let firm: String =
                (0..n).map(|i| format!("location ^~ /{} {{ return 204; }}\n", "a".repeat(i % 300))).collect();
            format!("server {{ location ~ x {{ return 204; }} {firm} }}")
        }),
        (Dialect::Haproxy, |n| {
            let uses: String =
                (0..n).map(|i| format!("acl a{i} path /p{i}\nuse_backend b{} if a{i}\n", i % 9)).collect();
            let backends: String = (0..9).map(|i| format!("backend b{i}\nserver s 10.0.0.1:80\n")).collect();
            format!("defaults\nmode http\nfrontend f\nbind :80\n{uses}{backends}")
        }),
        (Dialect::Haproxy, |n| {
            (0..n)
                .map(|i| format!("listen l{i}\nmode tcp\nbind 10.{}.{}.1:80\nserver s 10.0.0.1:80\n", i / 250, i % 250))
                .collect()
        }),
        (Dialect::Keepalived, |n| {
            (0..n)
                .map(|i| {
                    format!("virtual_server 10.{}.{}.1 80 {{\n real_server 10.0.0.1 80 {{ }}\n}}\n", i / 250, i % 250)
                })
                .collect()
        }),
        (Dialect::Ktcpvs, |n| {
            let rule = |i| {
                format!(
                    "server = 10.{}.{}.1:80 1\nrule = pattern \"^/p{i}\" use server 10.{}.{}.1:80\n",
                    i / 250,
                    i % 250,
                    i / 250,
                    i % 250
                )
            };
            format!("Virtual a {{ listen = 0.0.0.0:80\nscheduler = http\n{}}}", (0..n).map(rule).collect::<String>())
        }),
        // Regexes that the loader refuses, each of them taken out.
        (Dialect::Nginx, |n| {
            let locations: String = (0..n).map(|i| format!("location ~ (?=a{i}) {{ return 204; }}\n")).collect();
            format!("server {{ listen 80; {locations} }}")
        }),
        (Dialect::Nginx, |n| {
            (0..n)
                .map(|i| {
                    format!("server {{ listen {}; server_name a{i}.example; return 301 https://$host/; }}\n", i + 1)
                })
                .collect()
        }),
        (Dialect::Haproxy, |n| {
            let binds: String = (0..n).map(|i| format!("bind :{}\n", i + 1)).collect();
            let hosts: String = (0..n).map(|i| format!("acl a hdr(host) h{i}.example\n")).collect();
            format!(
                "defaults\nmode http\nfrontend f\n{binds}{hosts}redirect scheme https\nredirect scheme https if a\n"
            )
        }),
        (Dialect::Nginx, |n| "{".repeat(n)),
        (Dialect::Nginx, |n| format!("server {{ {} }}", "allow 10.0.0.1; ".repeat(n))),
    ];
    for (number, (dialect, text)) in texts.iter().enumerate() {
        let time = |count: usize| {
            let text = text(count);
            let start = Instant::now();
            drop(import(*dialect, "source.conf", &text));
            start.elapsed()
        };
        let (small, large) = (time(500), time(2000));
        assert!(
            large < small * 10 + Duration::from_millis(300),
            "text {number}: {small:?}, four times as much: {large:?}"
        );
    }
}
