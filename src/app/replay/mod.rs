//! `reeve replay`: which logged requests other rules would send elsewhere.
//!
//! Reads the JSON access log line by line, of any size, and asks the new rules what traffic would ask them. A line says where its
//! request went; what rules read besides the request line stands in its `match`. Where a new rule reads what was not kept, the
//! answer is "cannot tell".

mod logged;
mod report;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Read};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use self::logged::{Logged, by_hash};
use self::report::{Fate, Replay, Went};
use super::args::{Format, ReplayArguments};
use super::check::{self, Prepared};
use super::{FAULT, output, request};
use crate::model::Config;
use crate::model::listener::Protocol;
use crate::model::rule::{Kind, Target};
use crate::route::reads::{Decided, Doubts, cookie_texts};
use crate::route::{self, Action, Body, Head, Rule, Table};
use crate::wire::field::Field;
use crate::wire::http1::host;

/// A longer line is none of ours: its parts are bounded.
const LONGEST: u64 = 1 << 20;
/// How often a terminal is told how far it is.
const PROGRESS: Duration = Duration::from_millis(250);

/// `reeve replay LOG --rules DIR`.
pub fn main(arguments: &ReplayArguments) -> ExitCode {
    if !arguments.rules.is_dir() {
        let folder = arguments.rules.display();
        output::complain(&format!(
            "reeve replay: {folder} is no folder: --rules names the folder of the new rule files\n"
        ));
        return ExitCode::from(FAULT);
    }
    let rules = Some(arguments.rules.clone());
    let prepared = check::texts(&crate::config::Request { rules, ..request(arguments.texts.clone()) });
    check::tell(&prepared);
    if !prepared.is_usable() {
        return prepared.exit_code();
    }
    let replayed = open(&arguments.log).and_then(|(reader, size)| replay(reader, size, &prepared));
    match replayed {
        Ok(replay) => {
            output::print(&match arguments.output.format {
                Format::Text => replay.text(),
                Format::Json => format!("{}\n", replay.json()),
            });
            if replay.lines > 0 && replay.lines == replay.bad {
                output::complain("reeve replay: no line of it is one of the JSON access log\n");
                return ExitCode::from(FAULT);
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            output::complain(&format!("reeve replay: {}: {error}\n", arguments.log.display()));
            ExitCode::from(FAULT)
        }
    }
}

/// The log and how long it is; `-` is what comes in by stdin.
fn open(path: &Path) -> io::Result<(Box<dyn Read>, Option<u64>)> {
    if path.as_os_str() == "-" {
        return Ok((Box::new(io::stdin()), None));
    }
    let file = File::open(path)?;
    let size = file.metadata()?;
    if size.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    Ok((Box::new(file), Some(size.len()).filter(|size| *size > 0)))
}

/// One rule set and what is needed to ask it.
struct Asked<'p> {
    table: &'p Table,
    doubts: Doubts<'p>,
    texts: std::collections::HashMap<String, &'p str>,
}

fn replay(reader: impl Read, size: Option<u64>, prepared: &Prepared) -> io::Result<Replay> {
    let config = prepared.load.config.as_ref().ok_or(io::ErrorKind::InvalidData)?;
    let asked: Vec<Asked<'_>> = prepared
        .tables
        .iter()
        .zip(&config.rule_sets)
        .map(|(table, set)| Asked { table, doubts: Doubts::of(table), texts: by_hash(&cookie_texts(set)) })
        .collect();
    let mut replay = Replay::default();
    let mut reader = BufReader::with_capacity(256 << 10, reader);
    let mut progress = Progress { size, read: 0, told: Instant::now(), shows: io::stderr().is_terminal() };
    let mut line = Vec::new();
    loop {
        line.clear();
        let count = reader.by_ref().take(LONGEST).read_until(b'\n', &mut line)?;
        if count == 0 {
            progress.done();
            return Ok(replay);
        }
        replay.lines += 1;
        progress.step(count as u64, replay.lines);
        if count as u64 == LONGEST && line.last() != Some(&b'\n') {
            replay.bad_line(format!("longer than {} KiB", LONGEST >> 10));
            progress.step(skip_line(&mut reader)?, replay.lines);
            continue;
        }
        match serde_json::from_slice::<Logged<'_>>(&line) {
            Ok(logged) => {
                let (old, new) = judge(config, &asked, &logged);
                replay.add(old, new, &logged);
            }
            Err(_) if line.trim_ascii().is_empty() => replay.bad_line("empty".to_owned()),
            Err(error) => replay.bad_line(format!("not a line of the JSON access log: {error}")),
        }
    }
}

fn skip_line(reader: &mut impl BufRead) -> io::Result<u64> {
    let mut skipped = 0;
    loop {
        let here = reader.fill_buf()?;
        let (end, take) = match memchr::memchr(b'\n', here) {
            Some(at) => (true, at + 1),
            None => (here.is_empty(), here.len()),
        };
        reader.consume(take);
        skipped += take as u64;
        if end {
            return Ok(skipped);
        }
    }
}

/// Where a request went, by the log: its rule and what was done. `None`: rules had no part in it.
fn went(logged: &Logged<'_>) -> Option<Went> {
    let rule = logged.rule.as_ref().map(ToString::to_string);
    let does = match (&logged.pool, &logged.failure, logged.status) {
        (Some(pool), ..) => Some(format!("pool {pool}")),
        (None, Some(failure), _) if failure == "no-route" => Some("no route".to_owned()),
        // Turned away by a limit of its rule, before it came to a pool: where it would have gone is not said.
        (None, Some(_), _) if rule.is_some() => None,
        // Refused before any rule was asked.
        (None, Some(_), _) => return None,
        (None, None, _) if rule.is_none() => return None,
        (None, None, _) if logged.is_sealed() => Some("closed".to_owned()),
        (None, None, None) => Some("dropped".to_owned()),
        (None, None, Some(status)) => Some(format!("answer {status}")),
    };
    Some(Went { rule, does })
}

/// What a line says, and what the new rules would do.
fn judge(config: &Config, asked: &[Asked<'_>], logged: &Logged<'_>) -> (Option<Went>, Fate) {
    let Some(went) = went(logged) else { return (None, Fate::Same) };
    let unknown = |why: String| (Some(went.clone()), Fate::Unknown { why });
    let Some(listener) = config.listeners.iter().find(|listener| *listener.name == *logged.listener) else {
        return unknown(format!("there is no listener {} any more", logged.listener));
    };
    let Some(asked) = asked.get(listener.rules) else {
        return unknown(format!("listener {} has no rules", listener.name));
    };
    let sealed = logged.is_sealed();
    let (fields, alpn, certificate) = (logged.fields(&asked.texts), logged.alpn(), logged.certificate());
    let fields: Vec<Field<'_>> = fields.iter().map(|(name, value)| Field { name, value: value.as_bytes() }).collect();
    let alpn: Vec<&[u8]> = alpn.iter().map(|name| name.as_bytes()).collect();
    let kind = if sealed { Kind::Tcp } else { Kind::Http };
    let mut host_scratch = String::new();
    let sent = if sealed {
        logged.sni.as_deref().unwrap_or_default()
    } else {
        logged.host.as_deref().and_then(|host| host::parse(host.as_bytes())).map_or("", |authority| authority.host)
    };
    let host = host::canonical(sent, &mut host_scratch);
    let section = asked.table.section(kind, if sealed { "" } else { host });
    let policy = section.map(route::Section::policy).unwrap_or_default();
    let mut scratch = String::new();
    // Of `OPTIONS *` the log has no path.
    let path = if logged.path.is_empty() { "*" } else { &logged.path };
    let path = match route::path::normalise(path, policy, &mut scratch) {
        _ if sealed => "",
        Ok(path) => path,
        Err(_) => return settled(went, None, Some("answer 400".to_owned())),
    };
    let head = Head {
        method: &logged.method,
        host,
        path,
        query: logged.query.as_deref().unwrap_or_default(),
        fields: &fields,
        source: logged.client.ip().to_canonical(),
        listener: &logged.listener,
        sni: logged.sni.as_deref(),
        alpn: &alpn,
        certificate: certificate.as_ref(),
        no_tls: logged.proto == "TCP" && listener.protocol == Protocol::TlsPassthrough,
        // What is not known of it, `Doubts` says.
        body: Body::Empty,
    };
    let decided = section.map(|section| asked.doubts.decide(section, &head, &mut |need| logged.lacks(need)));
    let rule = match decided {
        Some(Decided::Depends(rule, need)) => {
            return unknown(format!("rule {} reads {need}, which the log does not say", rule.id()));
        }
        Some(Decided::For(rule)) => rule,
        None => None,
    };
    let Some(rule) = rule else {
        let does = listener.pool.as_ref().map_or_else(|| "no route".to_owned(), |pool| format!("pool {pool}"));
        return settled(went, None, Some(does));
    };
    let id = Some(rule.id().to_string());
    match does(config, rule, &head, sealed) {
        Does::This(does) => settled(went, id, Some(does)),
        // The dice may show again what they showed; if none of the shares is where it went, it moves for sure.
        Does::OneOf(pools) => match &went.does {
            Some(old) if pools.contains(old) => (Some(went), Fate::Same),
            _ => settled(went, id, Some(pools.join(" or "))),
        },
    }
}

/// Compares what was done with what would be. Where the log does not say what was done, the rule decides.
fn settled(went: Went, rule: Option<String>, does: Option<String>) -> (Option<Went>, Fate) {
    let fate = match &went.does {
        None if went.rule == rule => Fate::Same,
        None => Fate::Unknown { why: "it was turned away by a limit before it came to a pool".to_owned() },
        Some(_) if went.does == does => Fate::Same,
        Some(_) => Fate::Moved { rule, does: does.unwrap_or_default() },
    };
    (Some(went), fate)
}

enum Does {
    This(String),
    OneOf(Vec<String>),
}

fn does(config: &Config, rule: &Rule, head: &Head<'_>, sealed: bool) -> Does {
    let pool = |pool: usize| {
        config.pools.get(pool).map_or_else(|| "no route".to_owned(), |pool| format!("pool {}", pool.name))
    };
    match rule.action() {
        Action::Use { target: Target::Split { shares, otherwise }, .. } => {
            let mut pools: Vec<String> = shares.iter().map(|(own, _)| pool(*own)).collect();
            pools.push(pool(*otherwise));
            pools.dedup();
            Does::OneOf(pools)
        }
        Action::Use { target, .. } => {
            Does::This(route::pool(target, head, rule, &mut || 0).map_or_else(|| "no route".to_owned(), pool))
        }
        Action::Redirect { code, .. } | Action::Answer { code, .. } => Does::This(format!("answer {code}")),
        Action::Deny if !sealed => Does::This("answer 403".to_owned()),
        Action::Deny | Action::Drop if sealed => Does::This("closed".to_owned()),
        Action::Deny | Action::Drop => Does::This("dropped".to_owned()),
    }
}

/// How far it is, on one line of a terminal.
struct Progress {
    size: Option<u64>,
    read: u64,
    told: Instant,
    shows: bool,
}

impl Progress {
    fn step(&mut self, bytes: u64, lines: u64) {
        self.read += bytes;
        // The clock is not asked for every line.
        if !self.shows || !lines.is_multiple_of(1024) || self.told.elapsed() < PROGRESS {
            return;
        }
        self.told = Instant::now();
        let share = self.size.map(|size| format!(", {} %", self.read * 100 / size)).unwrap_or_default();
        eprint!("\r{lines} lines{share}\x1b[K");
    }

    fn done(&self) {
        if self.shows {
            eprint!("\r\x1b[K");
        }
    }
}
