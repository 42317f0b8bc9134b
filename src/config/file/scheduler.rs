//! `scheduler`: how one server of a pool is chosen.

use super::super::is_token;
use super::super::node::{Entry, Node, Value};
use super::super::rules::parse_key;
use super::walk::Walk;
use super::words::meant;
use crate::model::Fault;
use crate::model::pool::Scheduler;
use crate::model::rule::Key;

/// Every word; `p2c` is `twos`.
const WORDS: [&str; 20] = [
    "rr", "wrr", "lc", "wlc", "sed", "nq", "sh", "dh", "mh", "lblc", "lblcr", "fo", "ovf", "twos", "p2c", "ewma",
    "random", "first", "hash", "content",
];
/// Those that choose by a key, so that `{ WORD = "KEY" }` means something.
const KEYED: [&str; 7] = ["hash", "mh", "content", "sh", "dh", "lblc", "lblcr"];
const KEYS: [&str; 7] = ["path", "host", "source", "url", "header:NAME", "cookie:NAME", "query:NAME"];

/// A scheduler word, or a table `{ hash = "path", balance-factor = 1.25 }`. `pool` is the pool's name.
pub fn read(walk: &Walk<'_>, node: &Node, pool: &str) -> Option<Scheduler> {
    match &node.value {
        Value::Table(entries) => table(walk, node, entries, pool),
        _ => {
            let word = walk.word(node, "scheduler", &WORDS)?;
            Some(of_word(word, None))
        }
    }
}

fn table(walk: &Walk<'_>, node: &Node, entries: &[Entry], pool: &str) -> Option<Scheduler> {
    let mut found: Option<(&Entry, &'static str)> = None;
    let mut factor = None;
    for entry in entries {
        if entry.key == "balance-factor" {
            factor = walk.number(&entry.node, "balance-factor", 1.0, 100.0);
            continue;
        }
        match KEYED.iter().find(|word| **word == entry.key) {
            Some(word) => match found {
                None => found = Some((entry, word)),
                Some((first, _)) => {
                    let message = format!("\"{}\" and \"{}\" exclude each other", first.key, entry.key);
                    let fault = Fault::error("R0124", walk.place(&entry.key_origin), message);
                    walk.push(fault.also(walk.place(&first.key_origin), "the other one"));
                }
            },
            None => walk.push(unknown(walk, entry, pool)),
        }
    }
    let Some((entry, word)) = found else {
        if entries.iter().all(|entry| entry.key == "balance-factor") {
            let fault = walk.error("R0104", node, format!("[pool.{pool}] scheduler names no scheduler"));
            walk.push(fault.allowed(KEYED).help("for example scheduler = { hash = \"path\" }"));
        }
        return None;
    };
    let key = key(walk, &entry.node)?;
    let of = of_word(word, Some(key));
    Some(match factor {
        Some(factor) => Scheduler::Bounded { of: Box::new(of), factor },
        None => of,
    })
}

fn unknown(walk: &Walk<'_>, entry: &Entry, pool: &str) -> Fault {
    let place = walk.place(&entry.key_origin);
    if WORDS.contains(&entry.key.as_str()) {
        let message = format!("scheduler \"{}\" takes no key", entry.key);
        let fault = Fault::error("R0125", place, message);
        return fault.allowed(KEYED).help(format!("write scheduler = \"{}\"", entry.key));
    }
    let mut allowed = KEYED.to_vec();
    allowed.push("balance-factor");
    let fault = Fault::error("R0103", place, format!("unknown key \"{}\" in [pool.{pool}] scheduler", entry.key));
    let fault = fault.allowed(allowed.iter().copied());
    match meant(&entry.key, &allowed) {
        Some(near) => fault.did_you_mean(near),
        None => fault,
    }
}

/// What they go by where nothing is said: `hash` and `content` the path, so that each server's cache holds its share of
/// the files. Users of the others come from IPVS, where `mh` and `sh` go by the source address; and by the destination
/// address the rest, which is the host here.
fn of_word(word: &'static str, key: Option<Key>) -> Scheduler {
    match word {
        "rr" => Scheduler::Rr,
        "wrr" => Scheduler::Wrr,
        "lc" => Scheduler::Lc,
        "wlc" => Scheduler::Wlc,
        "sed" => Scheduler::Sed,
        "nq" => Scheduler::Nq,
        "fo" => Scheduler::Fo,
        "ovf" => Scheduler::Ovf,
        "first" => Scheduler::First,
        "random" => Scheduler::Random,
        "ewma" => Scheduler::Ewma,
        "hash" => Scheduler::Hash { key: key.unwrap_or(Key::Path) },
        "content" => Scheduler::Content { key: key.unwrap_or(Key::Path) },
        "mh" => Scheduler::Mh { key: key.unwrap_or(Key::Source) },
        "sh" => Scheduler::Sh { key: key.unwrap_or(Key::Source) },
        "dh" => Scheduler::Dh { key: key.unwrap_or(Key::Host) },
        "lblc" => Scheduler::Lblc { key: key.unwrap_or(Key::Host) },
        "lblcr" => Scheduler::Lblcr { key: key.unwrap_or(Key::Host) },
        // `twos` and `p2c`: the words are those of `WORDS`.
        _ => Scheduler::Twos,
    }
}

/// A key as the rule language writes it (docs/rules.md), as far as it can be known without a rule.
fn key(walk: &Walk<'_>, node: &Node) -> Option<Key> {
    let text = walk.string(node, "the key")?;
    match parse_key(text) {
        Some(Key::Capture(_) | Key::Group(_)) | None => {}
        key => return key,
    }
    let fault = walk.error("R0116", node, format!("\"{text}\" is no key to choose by")).allowed(KEYS);
    walk.push(if text.starts_with(['{', '$']) {
        fault.help(format!("captures belong to a rule: use POOL by {text}"))
    } else if let Some(better) = other_key(text) {
        fault.did_you_mean(better)
    } else {
        fault
    });
    None
}

/// `header x-user`, `Header: x-user` and slips of the fingers.
fn other_key(text: &str) -> Option<String> {
    const KINDS: [&str; 3] = ["header", "cookie", "query"];
    if let Some((kind, name)) = text.split_once([':', ' ', '=']) {
        let kind = meant(kind.trim(), &KINDS)?;
        let name = name.trim_start_matches([':', ' ', '=']).trim();
        return is_token(name).then(|| format!("{kind}:{name}"));
    }
    match text.to_ascii_lowercase().as_str() {
        "ip" | "client" | "client-ip" | "src" | "address" | "remote-addr" => Some("source".to_owned()),
        "uri" => Some("url".to_owned()),
        _ => meant(text, &["path", "host", "source", "url"]).map(str::to_owned),
    }
}
