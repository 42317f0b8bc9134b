//! `reeve reload`: has the running process read its texts anew, and prints what became of it.

use std::fmt::Write;
use std::process::ExitCode;

use super::client::{self, ClientArgs};
use super::{FAULT, output};
use crate::state::orders::{Changes, Difference, Reloaded};

/// Names that are printed of one kind; the API has all.
const SHOWN: usize = 6;

/// `lists`: only the files of lists and maps.
pub fn reload(args: &ClientArgs, lists: bool) -> ExitCode {
    let target = if lists { "/api/v1/reload?what=lists" } else { "/api/v1/reload" };
    let answer = match client::order(args, target) {
        Ok(answer) => answer,
        Err(fault) => return client::complain(&fault),
    };
    let reloaded: Reloaded = match answer.parse() {
        Ok(reloaded) => reloaded,
        Err(fault) => return client::complain(&fault),
    };
    if args.json {
        output::print(&answer.text());
    } else {
        output::complain(&reloaded.faults_text);
        if let Some(error) = &reloaded.error {
            output::complain(&format!("reeve: {error}\n"));
        }
        output::print(&show(&reloaded));
    }
    if reloaded.done { ExitCode::SUCCESS } else { ExitCode::from(FAULT) }
}

fn show(reloaded: &Reloaded) -> String {
    if !reloaded.done {
        return format!("not reloaded: configuration {} is still in force\n", reloaded.generation);
    }
    let mut out = format!("reloaded in {:.2} s: configuration {}\n", reloaded.seconds, reloaded.generation);
    for (what, said) in parts(&reloaded.changes) {
        let _ = writeln!(out, "  {what:<9}  {said}");
    }
    for restart in &reloaded.restart {
        let _ = writeln!(out, "note: {restart}");
    }
    out
}

/// `pools +a -b; servers ~a/1`, for the log.
pub fn in_a_line(changes: &Changes) -> String {
    let parts: Vec<String> = parts(changes).into_iter().map(|(what, said)| format!("{what} {said}")).collect();
    parts.join("; ")
}

/// What changed, kind by kind; the number of rules in any case.
fn parts(changes: &Changes) -> Vec<(&'static str, String)> {
    let mut parts = Vec::new();
    let differences = [("listeners", &changes.listeners), ("pools", &changes.pools), ("servers", &changes.servers)];
    for (what, difference) in differences.into_iter().filter(|(_, difference)| !difference.is_empty()) {
        parts.push((what, difference_text(difference)));
    }
    for (what, names) in [("opened", &changes.opened), ("closed", &changes.closed)] {
        if !names.is_empty() {
            parts.push((what, listed(names, "").join(" ")));
        }
    }
    let rules = changes.rules;
    parts.push((
        "rules",
        match (rules.added, rules.removed) {
            (0, 0) => rules.total.to_string(),
            (added, removed) => format!("{} (+{added} -{removed})", rules.total),
        },
    ));
    for (what, names) in [("lists", &changes.lists), ("settings", &changes.settings)] {
        if !names.is_empty() {
            parts.push((what, listed(names, "").join(" ")));
        }
    }
    parts
}

/// `+new -old ~changed`.
fn difference_text(difference: &Difference) -> String {
    let Difference { added, removed, changed } = difference;
    let all = [listed(added, "+"), listed(removed, "-"), listed(changed, "~")];
    all.concat().join(" ")
}

fn listed(names: &[String], sign: &str) -> Vec<String> {
    let mut listed: Vec<String> = names.iter().take(SHOWN).map(|name| format!("{sign}{name}")).collect();
    if names.len() > SHOWN {
        listed.push(format!("{sign}({} more)", names.len() - SHOWN));
    }
    listed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::orders::Rules;

    fn words(words: &str) -> Vec<String> {
        words.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn what_changed_is_told_in_few_lines() {
        let changes = Changes {
            pools: Difference { added: words("a b c d e f g h"), removed: words("old"), changed: Vec::new() },
            servers: Difference { added: Vec::new(), removed: Vec::new(), changed: words("web/1") },
            opened: vec!["127.0.0.1:81 (new)".to_owned()],
            rules: Rules { total: 12, added: 3, removed: 1 },
            settings: words("timeouts"),
            ..Changes::default()
        };
        let reloaded = Reloaded {
            done: true,
            generation: 3,
            seconds: 0.123,
            changes,
            restart: vec!["process.workers has changed".to_owned()],
            ..Reloaded::default()
        };
        let expected = "\
reloaded in 0.12 s: configuration 3
  pools      +a +b +c +d +e +f +(2 more) -old
  servers    ~web/1
  opened     127.0.0.1:81 (new)
  rules      12 (+3 -1)
  settings   timeouts
note: process.workers has changed
";
        assert_eq!(show(&reloaded), expected);
        let same = Changes { rules: Rules { total: 2, added: 0, removed: 0 }, ..Changes::default() };
        assert_eq!(in_a_line(&same), "rules 2");
    }
}
