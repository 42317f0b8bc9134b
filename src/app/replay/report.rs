//! What a replay comes to: how many requests stay where they were, which move, and of which one cannot tell.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::{Value, json};

use super::logged::Logged;

/// Groups of moves, and of reasons, that are counted one by one; more are counted together.
const GROUPS: usize = 1000;
/// Groups that are printed.
const SHOWN: usize = 50;
/// Lines that could not be read and are told.
const BAD: usize = 5;
/// Old rules that are counted one by one.
const RULES: usize = 100_000;

/// Where a request went, by the log.
#[derive(Debug, Clone, PartialEq)]
pub struct Went {
    pub rule: Option<String>,
    /// `None`: it was turned away before that was known.
    pub does: Option<String>,
}

/// What becomes of one request.
#[derive(Debug, Clone, PartialEq)]
pub enum Fate {
    Same,
    Moved { rule: Option<String>, does: String },
    Unknown { why: String },
}

#[derive(Debug, Default)]
pub struct Replay {
    pub lines: u64,
    pub bad: u64,
    bad_lines: Vec<(u64, String)>,
    /// Requests in which rules had no part: refused for their syntax, or answered before.
    unrouted: u64,
    total: Counts,
    /// By the rule that the log names.
    rules: BTreeMap<String, Counts>,
    moves: BTreeMap<Move, Group>,
    unknown: BTreeMap<String, Group>,
    /// Requests of groups that are not kept apart.
    more_moves: u64,
    more_unknown: u64,
}

#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    same: u64,
    moved: u64,
    unknown: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Move {
    from_rule: String,
    from: String,
    to_rule: String,
    to: String,
}

/// Requests that are alike, and the first of them.
#[derive(Debug)]
struct Group {
    count: u64,
    line: u64,
    request: String,
}

const NO_RULE: &str = "no rule";

impl Replay {
    pub fn bad_line(&mut self, why: String) {
        self.bad += 1;
        if self.bad_lines.len() < BAD {
            self.bad_lines.push((self.lines, why));
        }
    }

    /// `went` is where the log says the request went.
    pub fn add(&mut self, went: Option<Went>, fate: Fate, logged: &Logged<'_>) {
        let Some(Went { rule: from_rule, does: from }) = went else {
            self.unrouted += 1;
            return;
        };
        let from_rule = from_rule.unwrap_or_else(|| NO_RULE.to_owned());
        let mut none = Counts::default();
        let known = self.rules.len() < RULES || self.rules.contains_key(&from_rule);
        let own = if known { self.rules.entry(from_rule.clone()).or_default() } else { &mut none };
        let line = self.lines;
        match fate {
            Fate::Same => {
                self.total.same += 1;
                own.same += 1;
            }
            Fate::Moved { rule, does: to } => {
                self.total.moved += 1;
                own.moved += 1;
                let to_rule = rule.unwrap_or_else(|| NO_RULE.to_owned());
                let group = Move { from_rule, from: from.unwrap_or_default(), to_rule, to };
                count(&mut self.moves, group, &mut self.more_moves, line, logged);
            }
            Fate::Unknown { why } => {
                self.total.unknown += 1;
                own.unknown += 1;
                count(&mut self.unknown, why, &mut self.more_unknown, line, logged);
            }
        }
    }

    pub fn text(&self) -> String {
        let mut out = String::new();
        let Counts { same, moved, unknown } = self.total;
        let _ = writeln!(out, "{} requests: {same} same, {moved} moved, {unknown} cannot tell", same + moved + unknown);
        if self.unrouted > 0 {
            let _ = writeln!(out, "{} more never came to a rule", self.unrouted);
        }
        if self.bad > 0 {
            let _ = writeln!(out, "{} lines could not be read:", self.bad);
            for (line, why) in &self.bad_lines {
                let _ = writeln!(out, "  line {line}: {why}");
            }
        }
        if moved > 0 {
            out.push_str("\nmoved:\n");
            for (group, Group { count, line, request }) in most(&self.moves).into_iter().take(SHOWN) {
                let Move { from_rule, from, to_rule, to } = group;
                let _ = writeln!(
                    out,
                    "  {count:>9}  {from_rule} ({from}) -> {to_rule} ({to})\n             line {line}: {request}"
                );
            }
            rest(&mut out, self.moves.len(), self.more_moves);
        }
        if unknown > 0 {
            out.push_str("\ncannot tell:\n");
            for (why, Group { count, line, request }) in most(&self.unknown).into_iter().take(SHOWN) {
                let _ = writeln!(out, "  {count:>9}  {why}\n             line {line}: {request}");
            }
            rest(&mut out, self.unknown.len(), self.more_unknown);
        }
        let mut touched: Vec<_> = self.rules.iter().filter(|(_, own)| own.moved + own.unknown > 0).collect();
        touched.sort_by_key(|(_, own)| std::cmp::Reverse(own.moved + own.unknown));
        if !touched.is_empty() {
            out.push_str("\n       same      moved  cannot tell  rule\n");
            for (rule, Counts { same, moved, unknown }) in touched.iter().take(SHOWN) {
                let _ = writeln!(out, "  {same:>9}  {moved:>9}  {unknown:>11}  {rule}");
            }
            rest(&mut out, touched.len(), 0);
        }
        out
    }

    pub fn json(&self) -> Value {
        let counts = |own: &Counts| json!({ "same": own.same, "moved": own.moved, "cannot_tell": own.unknown });
        let moves = most(&self.moves).into_iter().map(|(group, own)| {
            json!({
                "count": own.count, "from_rule": group.from_rule, "from": group.from, "to_rule": group.to_rule,
                "to": group.to, "line": own.line, "request": own.request,
            })
        });
        let unknown = most(&self.unknown)
            .into_iter()
            .map(|(why, own)| json!({ "count": own.count, "why": why, "line": own.line, "request": own.request }));
        json!({
            "lines": self.lines,
            "bad": self.bad,
            "bad_lines": self.bad_lines.iter().map(|(line, why)| json!({ "line": line, "why": why })).collect::<Vec<_>>(),
            "unrouted": self.unrouted,
            "total": counts(&self.total),
            "rules": self.rules.iter().map(|(rule, own)| (rule.clone(), counts(own))).collect::<serde_json::Map<_, _>>(),
            "moves": moves.collect::<Vec<_>>(),
            "more_moves": self.more_moves,
            "cannot_tell": unknown.collect::<Vec<_>>(),
            "more_cannot_tell": self.more_unknown,
        })
    }
}

fn count<K: Ord>(groups: &mut BTreeMap<K, Group>, key: K, more: &mut u64, line: u64, logged: &Logged<'_>) {
    let full = groups.len() >= GROUPS;
    match groups.get_mut(&key) {
        Some(group) => group.count += 1,
        None if full => *more += 1,
        None => {
            groups.insert(key, Group { count: 1, line, request: shown(logged) });
        }
    }
}

/// The largest first.
fn most<K>(groups: &BTreeMap<K, Group>) -> Vec<(&K, &Group)> {
    let mut all: Vec<_> = groups.iter().collect();
    all.sort_by_key(|(_, group)| std::cmp::Reverse(group.count));
    all
}

fn rest(out: &mut String, groups: usize, requests: u64) {
    let hidden = groups.saturating_sub(SHOWN);
    if hidden > 0 {
        let _ = writeln!(out, "  and {hidden} more lines; --format json has them");
    }
    if requests > 0 {
        let _ = writeln!(out, "  and {requests} more requests, too different to be kept apart");
    }
}

/// A request in one line of a terminal.
fn shown(logged: &Logged<'_>) -> String {
    let query = logged.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
    let text = match logged.is_sealed() {
        true => format!("tcp sni:{}", logged.sni.as_deref().unwrap_or("-")),
        false => format!("{} {}{}{query}", logged.method, logged.host.as_deref().unwrap_or_default(), logged.path),
    };
    let printable = |c: char| if c.is_control() { '?' } else { c };
    text.chars().take(160).map(printable).collect()
}
