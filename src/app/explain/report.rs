//! What `reeve explain` says, as data, and its two forms.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::model::Place;

/// The whole answer.
#[derive(Debug)]
pub struct Report {
    /// A connection that is passed on unread: there are no answers, and no path.
    pub sealed: bool,
    pub method: String,
    /// Of a sealed connection, the name that the client asks for.
    pub host: String,
    /// As it was given.
    pub path: String,
    pub query: Option<String>,
    pub from: String,
    /// In hundredths of a percent.
    pub roll: u32,
    pub listener: String,
    /// `None`: no section is for this host.
    pub section: Option<SectionReport>,
    /// As it was matched; `None`: the section's policy refuses it.
    pub matched_path: Option<String>,
    /// The rules that were asked, in their order; the last one is the winner, if there is one.
    pub steps: Vec<Step>,
    pub outcome: Outcome,
}

#[derive(Debug)]
pub struct SectionReport {
    /// `http shop.example`
    pub name: String,
    /// Why this one: `exact host`, `longest wildcard`, `any host`.
    pub why: &'static str,
    pub place: Place,
    /// Rules in it.
    pub rules: usize,
}

/// One rule and what became of it.
#[derive(Debug)]
pub struct Step {
    pub id: String,
    pub place: Place,
    /// The first condition that does not hold, as it is written, and the value that it saw; `None`
    /// for the rule that takes the request.
    pub failed: Option<(String, String)>,
}

#[derive(Debug)]
pub enum Outcome {
    Pool {
        /// The winner; `None`: the listener's own pool.
        rule: Option<Winner>,
        pool: String,
        /// How it is chosen among its servers, and these.
        scheduler: String,
        servers: Vec<String>,
        /// What `by` or the pool's scheduler hashes, and its value.
        key: Option<(String, Option<String>)>,
        /// What the running process would do, where it was asked.
        live: Option<Live>,
    },
    Redirect {
        rule: Winner,
        code: u16,
        location: String,
    },
    Answer {
        rule: Winner,
        code: u16,
        text: Option<String>,
    },
    Deny {
        rule: Winner,
    },
    Drop {
        rule: Winner,
    },
    /// It is refused before any rule sees it.
    Refused {
        status: u16,
        why: String,
    },
    /// The rule's map has no pool for it: 404.
    NotInMap {
        rule: Winner,
    },
    /// No rule takes it, and the listener has no pool: 404.
    NoRoute,
}

/// A pool of the running process, now.
#[derive(Debug)]
pub struct Live {
    /// The server that would be chosen, or why there is none.
    pub picked: Result<String, &'static str>,
    /// Each server, and why it is not chosen.
    pub servers: Vec<LiveServer>,
}

#[derive(Debug)]
pub struct LiveServer {
    pub name: String,
    pub address: String,
    /// `picked`, `open`, `down`, `drained`, `weight-0`, `held-back`, `full`, `backup`.
    pub state: &'static str,
    /// Empty where there is nothing to say.
    pub why: String,
}

/// The rule that takes the request.
#[derive(Debug)]
pub struct Winner {
    pub id: String,
    pub place: Place,
    /// The action as it is written.
    pub action: String,
    /// Of `use map`: what was looked up, and what it is.
    pub looked_up: Option<String>,
    /// What is changed on the way: header changes and the like, captures filled in.
    pub changes: Vec<String>,
}

impl Outcome {
    fn winner(&self) -> Option<&Winner> {
        match self {
            Outcome::Pool { rule, .. } => rule.as_ref(),
            Outcome::Redirect { rule, .. }
            | Outcome::Answer { rule, .. }
            | Outcome::Deny { rule }
            | Outcome::NotInMap { rule }
            | Outcome::Drop { rule } => Some(rule),
            Outcome::Refused { .. } | Outcome::NoRoute => None,
        }
    }

    /// Whether something is done with the request.
    pub fn is_routed(&self) -> bool {
        !matches!(self, Outcome::NoRoute | Outcome::NotInMap { .. } | Outcome::Refused { .. })
    }

    fn word(&self) -> &'static str {
        match self {
            Outcome::Pool { .. } => "pool",
            Outcome::Redirect { .. } => "redirect",
            Outcome::Answer { .. } => "answer",
            Outcome::Deny { .. } => "deny",
            Outcome::Drop { .. } => "drop",
            Outcome::Refused { .. } => "refused",
            Outcome::NotInMap { .. } | Outcome::NoRoute => "no-route",
        }
    }

    /// What Reeve answers by itself.
    fn status(&self) -> Option<u16> {
        match self {
            Outcome::Pool { .. } | Outcome::Drop { .. } => None,
            Outcome::Redirect { code, .. } | Outcome::Answer { code, .. } => Some(*code),
            Outcome::Deny { .. } => Some(403),
            Outcome::Refused { status, .. } => Some(*status),
            Outcome::NotInMap { .. } | Outcome::NoRoute => Some(404),
        }
    }
}

fn at(place: &Place) -> String {
    format!("{}:{}", place.file, place.line)
}

/// `7`, `7.05`.
pub(super) fn percent(hundredths: u32) -> String {
    match hundredths % 100 {
        0 => format!("{}", hundredths / 100),
        rest => format!("{}.{rest:02}", hundredths / 100),
    }
}

/// For people: the rules that were asked, then where the request goes.
pub fn text(report: &Report) -> String {
    let mut out = String::new();
    let query = report.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
    let host = match report.host.as_str() {
        "" if report.sealed => "(no name)",
        "" => "(no host)",
        host => host,
    };
    let _ = writeln!(out, "{} {host}{}{query}  from {}", report.method, report.path, report.from);
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(out, "  {name:<9} {value}");
    };
    line("listener", &report.listener);
    match &report.section {
        Some(section) => line("section", &format!("{} ({}), {}", section.name, section.why, at(&section.place))),
        // It is refused whatever its host is.
        None if matches!(report.outcome, Outcome::Refused { .. }) => {}
        None if report.sealed => line("section", "none: its rules have no tcp section"),
        None if report.host.is_empty() => line("section", "none: no host was given; give one by -H 'host: NAME'"),
        None => line("section", "none is for this host, and there is no *"),
    }
    if let Some(path) = report.matched_path.as_ref().filter(|path| **path != report.path) {
        line("path", &format!("matched and forwarded as {path}"));
    }
    steps(report, &mut out);
    outcome(report, &mut out);
    out
}

fn steps(report: &Report, out: &mut String) {
    if report.steps.is_empty() {
        return;
    }
    let width = report.steps.iter().map(|step| step.id.chars().count()).max().unwrap_or_default();
    // All of them stand in the section's file, which has been named.
    let lines = report.steps.iter().map(|step| step.place.line.to_string().len()).max().unwrap_or_default();
    out.push('\n');
    for step in &report.steps {
        let (id, line) = (&step.id, step.place.line);
        let _ = match &step.failed {
            Some((term, saw)) => writeln!(out, "    {id:<width$}  line {line:<lines$}  no: {term} (saw {saw})"),
            None => writeln!(out, "  > {id:<width$}  line {line:<lines$}  yes"),
        };
    }
    let left = report.section.as_ref().map_or(0, |section| section.rules.saturating_sub(report.steps.len()));
    if left > 0 {
        let rules = if left == 1 { "1 rule below is" } else { &format!("{left} rules below are") };
        let _ = writeln!(out, "    ({rules} not asked: the first match wins)");
    }
}

fn outcome(report: &Report, out: &mut String) {
    out.push('\n');
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(out, "  {name:<9} {value}");
    };
    if let Some(winner) = report.outcome.winner() {
        line("rule", &format!("{}, {}", winner.id, at(&winner.place)));
        line("action", &winner.action);
        if let Some(looked_up) = &winner.looked_up {
            line("map", looked_up);
        }
    }
    match &report.outcome {
        Outcome::Pool { rule, pool, scheduler, servers, key, live } => {
            let why = match rule {
                None => " (the listener's own: no rule takes the request)".to_owned(),
                Some(winner) if winner.action.contains('%') => format!(" (roll {})", percent(report.roll)),
                Some(_) => String::new(),
            };
            match live {
                None => line("pool", &format!("{pool}{why}, {scheduler}: {}", servers.join(", "))),
                Some(_) => line("pool", &format!("{pool}{why}, {scheduler}")),
            }
            match key {
                Some((key, Some(value))) => line("hash key", &format!("{key} = {value}")),
                Some((key, None)) => line("hash key", &format!("{key}: the request has none")),
                None => {}
            }
            if let Some(live) = live {
                line("server", live.picked.as_deref().unwrap_or_else(|why| why));
                for server in live.servers.iter().filter(|server| server.state != "picked") {
                    line("", &format!("not {} {}: {}", server.name, server.address, server.why));
                }
            }
        }
        Outcome::Redirect { code, location, .. } => line("answer", &format!("{code}, Location: {location}")),
        Outcome::Answer { code, text: Some(text), .. } => line("answer", &format!("{code} {text}")),
        Outcome::Answer { code, text: None, .. } => line("answer", &code.to_string()),
        Outcome::Deny { .. } if report.sealed => line("answer", "none: the connection is closed"),
        Outcome::Deny { .. } => line("answer", "403"),
        Outcome::Drop { .. } => line("answer", "none: the connection is reset"),
        Outcome::Refused { status, why } => line("answer", &format!("{status}: {why}")),
        Outcome::NotInMap { .. } if report.sealed => {
            line("answer", "none: the map has no pool for it, and the connection is closed");
        }
        Outcome::NotInMap { .. } => line("answer", "404: the map has no pool for it, and the rule no else"),
        Outcome::NoRoute if report.sealed => line("answer", "none: no rule takes it, and the connection is closed"),
        Outcome::NoRoute => line("answer", "404: no rule takes it"),
    }
    for change in report.outcome.winner().map(|winner| winner.changes.as_slice()).unwrap_or_default() {
        line("change", change);
    }
}

/// For programs.
pub fn json(report: &Report) -> Value {
    let winner = report.outcome.winner();
    let mut value = json!({
        "method": report.method,
        "host": report.host,
        "path": report.path,
        "query": report.query,
        "from": report.from,
        "roll": f64::from(report.roll) / 100.0,
        "listener": report.listener,
        "section": report.section.as_ref().map(|section| json!({
            "name": section.name, "why": section.why, "file": &*section.place.file, "line": section.place.line,
        })),
        "matched_path": report.matched_path,
        "rules": report.steps.iter().map(|step| json!({
            "rule": step.id, "file": &*step.place.file, "line": step.place.line, "matches": step.failed.is_none(),
            "failed": step.failed.as_ref().map(|(term, _)| term), "saw": step.failed.as_ref().map(|(_, saw)| saw),
        })).collect::<Vec<_>>(),
        "outcome": report.outcome.word(),
        "status": report.outcome.status().filter(|_| !report.sealed),
        "rule": winner.map(|winner| &winner.id),
        "file": winner.map(|winner| &*winner.place.file),
        "line": winner.map(|winner| winner.place.line),
        "action": winner.map(|winner| &winner.action),
        "looked_up": winner.map(|winner| &winner.looked_up),
        "changes": winner.map(|winner| &winner.changes),
    });
    let more = match &report.outcome {
        Outcome::Pool { pool, scheduler, servers, key, live, .. } => json!({
            "pool": pool, "scheduler": scheduler, "servers": servers,
            "key": key.as_ref().map(|(key, _)| key), "key_value": key.as_ref().and_then(|(_, value)| value.as_ref()),
            "live": live.as_ref().map(|live| json!({
                "picked": live.picked.as_ref().ok(),
                "why": live.picked.as_ref().err(),
                "servers": live.servers.iter().map(|server| json!({
                    "name": server.name, "address": server.address, "state": server.state, "why": server.why,
                })).collect::<Vec<_>>(),
            })),
        }),
        Outcome::Redirect { location, .. } => json!({ "location": location }),
        Outcome::Answer { text, .. } => json!({ "text": text }),
        Outcome::Refused { why, .. } => json!({ "why": why }),
        Outcome::Deny { .. } | Outcome::Drop { .. } | Outcome::NotInMap { .. } | Outcome::NoRoute => json!({}),
    };
    if let (Value::Object(value), Value::Object(more)) = (&mut value, more) {
        value.extend(more);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(line: u32) -> Place {
        Place { file: "rules/shop.rules".into(), line, column: 3, end: 9 }
    }

    fn report(outcome: Outcome) -> Report {
        let step = |id: &str, line, failed: Option<(&str, &str)>| Step {
            id: id.to_owned(),
            place: place(line),
            failed: failed.map(|(term, saw)| (term.to_owned(), saw.to_owned())),
        };
        Report {
            sealed: false,
            method: "GET".to_owned(),
            host: "shop.example".to_owned(),
            path: "/a/../api/v1".to_owned(),
            query: Some("x=1".to_owned()),
            from: "127.0.0.1".to_owned(),
            roll: 705,
            listener: "web".to_owned(),
            section: Some(SectionReport {
                name: "http shop.example".to_owned(),
                why: "exact host",
                place: place(2),
                rules: 4,
            }),
            matched_path: Some("/api/v1".to_owned()),
            steps: vec![
                step("shop.rules:upload", 3, Some(("method POST PUT", "GET"))),
                step("shop.rules:beta", 10, None),
            ],
            outcome,
        }
    }

    fn winner(action: &str) -> Winner {
        let changes = vec!["set header x-stage: ingest".to_owned()];
        let (id, action) = ("shop.rules:beta".to_owned(), action.to_owned());
        Winner { id, place: place(10), action, looked_up: None, changes }
    }

    fn to_beta() -> Report {
        report(Outcome::Pool {
            rule: Some(winner("use beta 10% else web")),
            pool: "beta".to_owned(),
            scheduler: "wlc".to_owned(),
            servers: vec!["beta1 127.0.0.1:9006".to_owned()],
            key: Some(("path".to_owned(), Some("/api/v1".to_owned()))),
            live: None,
        })
    }

    #[test]
    fn for_people() {
        assert_eq!(
            text(&to_beta()),
            "\
GET shop.example/a/../api/v1?x=1  from 127.0.0.1
  listener  web
  section   http shop.example (exact host), rules/shop.rules:2
  path      matched and forwarded as /api/v1

    shop.rules:upload  line 3   no: method POST PUT (saw GET)
  > shop.rules:beta    line 10  yes
    (2 rules below are not asked: the first match wins)

  rule      shop.rules:beta, rules/shop.rules:10
  action    use beta 10% else web
  pool      beta (roll 7.05), wlc: beta1 127.0.0.1:9006
  hash key  path = /api/v1
  change    set header x-stage: ingest
"
        );
    }

    #[test]
    fn for_programs() {
        let value = json(&to_beta());
        assert_eq!(value["outcome"], "pool");
        assert_eq!(value["pool"], "beta");
        assert_eq!(value["rules"][0]["saw"], "GET");
        assert_eq!(value["rules"][1]["matches"], true);
        assert_eq!((&value["file"], &value["line"]), (&"rules/shop.rules".into(), &10.into()));
        assert_eq!(value["roll"], 7.05);
        assert_eq!(value["status"], Value::Null);
        let value = json(&report(Outcome::NoRoute));
        assert_eq!(
            (&value["outcome"], &value["status"], &value["rule"]),
            (&"no-route".into(), &404.into(), &Value::Null)
        );
    }

    #[test]
    fn every_outcome_says_what_is_answered() {
        let says = |outcome: Outcome| text(&report(outcome));
        let redirect = Outcome::Redirect { rule: winner("redirect 301 /x"), code: 301, location: "/x".to_owned() };
        assert!(says(redirect).contains("answer    301, Location: /x\n"));
        let answer = Outcome::Answer { rule: winner("answer 418"), code: 418, text: Some("tea".to_owned()) };
        assert!(says(answer).contains("answer    418 tea\n"));
        assert!(says(Outcome::Deny { rule: winner("deny") }).contains("answer    403\n"));
        assert!(says(Outcome::Drop { rule: winner("drop") }).contains("the connection is reset"));
        assert!(
            says(Outcome::Refused { status: 400, why: "%00 in the path".to_owned() })
                .contains("answer    400: %00 in the path\n")
        );
        assert!(says(Outcome::NoRoute).contains("answer    404"));
    }
}
