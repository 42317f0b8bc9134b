//! `reeve check --overlaps`: the pairs of rules whose order matters, each with both places and, where one was found, a
//! request that both take.

use std::fmt::Write;
use std::sync::Arc;

use serde_json::{Value, json};

use super::explain::written;
use crate::model::rule::{HostPattern, Kind, RuleSet};
use crate::model::{Config, Place};
use crate::route::overlap::{self, Overlaps, Pair, Witness};
use crate::route::{Rule, Table};

/// Pairs that are listed; nobody reads more.
const LISTED: usize = 100;

/// What was found in the rule sets of a configuration.
pub struct Overlapping<'c> {
    config: &'c Config,
    found: Vec<(&'c RuleSet, Overlaps<'c>)>,
}

impl<'c> Overlapping<'c> {
    pub fn find(config: &'c Config, tables: &'c [Arc<Table>]) -> Overlapping<'c> {
        let listeners: Vec<Arc<str>> = config.listeners.iter().map(|listener| listener.name.clone()).collect();
        let mut left = LISTED;
        let mut found = Vec::new();
        for (set, table) in config.rule_sets.iter().zip(tables) {
            let overlaps = overlap::find(table, set, &listeners, left);
            left -= overlaps.pairs.len();
            found.push((set, overlaps));
        }
        Overlapping { config, found }
    }

    fn sum(&self, of: impl Fn(&Overlaps<'_>) -> usize) -> usize {
        self.found.iter().map(|(_, overlaps)| of(overlaps)).sum()
    }

    pub fn text(&self) -> String {
        let mut out = String::new();
        for (set, overlaps) in &self.found {
            for pair in &overlaps.pairs {
                let (first, second) = (pair.first, pair.second);
                let _ = writeln!(
                    out,
                    "{}  {}, before {}  {}",
                    at(first.place()),
                    first.id(),
                    at(second.place()),
                    second.id()
                );
                match &pair.witness {
                    Some(witness) => {
                        let _ = writeln!(out, "  both take  {}", shown(kind(set, pair), witness));
                    }
                    None => out.push_str("  both may take a request; none was found that shows it\n"),
                }
                let (first, second) = (written(first.action(), self.config), written(second.action(), self.config));
                let _ = writeln!(out, "  so far     {first}\n  turned     {second}\n");
            }
        }
        let more = self.sum(|found| found.more);
        let _ = write!(out, "{}", pairs(self.sum(|found| found.pairs.len()) + more, "whose order matters"));
        out.push_str(&if more > 0 { format!(", {more} of them not listed\n") } else { "\n".to_owned() });
        for (count, why) in [
            (self.sum(|found| found.general), "not counted: the later rule is the general case of the earlier"),
            (self.sum(|found| found.repeated), "not counted: only a field, cookie or parameter given twice meets both"),
            (self.sum(|found| found.left), "not compared: there are too many"),
        ] {
            if count > 0 {
                let _ = writeln!(out, "{}", pairs(count, why));
            }
        }
        out
    }

    pub fn json(&self) -> Value {
        let mut all = Vec::new();
        for (set, overlaps) in &self.found {
            all.extend(overlaps.pairs.iter().map(|pair| {
                let rule = |rule: &Rule| {
                    let Place { file, line, column, end } = rule.place();
                    let action = written(rule.action(), self.config);
                    json!({ "rule": &**rule.id(), "file": &**file, "line": line, "column": column, "end": end, "action": action })
                };
                json!({
                    "section": section(set, pair),
                    "first": rule(pair.first),
                    "second": rule(pair.second),
                    "request": pair.witness.as_ref().map(|witness| shown(kind(set, pair), witness)),
                })
            }));
        }
        json!({
            "pairs": all,
            "more": self.sum(|found| found.more),
            "general": self.sum(|found| found.general),
            "repeated": self.sum(|found| found.repeated),
            "not_compared": self.sum(|found| found.left),
        })
    }
}

fn pairs(count: usize, what: &str) -> String {
    format!("{count} {} of rules {what}", if count == 1 { "pair" } else { "pairs" })
}

fn at(place: &Place) -> String {
    format!("{}:{}", place.file, place.line)
}

fn kind(set: &RuleSet, pair: &Pair<'_>) -> Kind {
    set.sections.get(pair.section).map_or(Kind::Http, |section| section.kind)
}

/// `http shop.example`, by its first host.
fn section(set: &RuleSet, pair: &Pair<'_>) -> String {
    let host = set.sections.get(pair.section).and_then(|section| section.hosts.first()).map(|(host, _)| match host {
        HostPattern::Any => " *".to_owned(),
        HostPattern::Exact(name) => format!(" {name}"),
        HostPattern::Wildcard(end) => format!(" *{end}"),
    });
    format!("{}{}", kind(set, pair).word(), host.unwrap_or_default())
}

/// A request as an `expect` line writes it.
fn shown(kind: Kind, witness: &Witness) -> String {
    let mut text = match kind {
        Kind::Tcp => "tcp".to_owned(),
        Kind::Http | Kind::Rtsp => {
            let query = if witness.query.is_empty() { String::new() } else { format!("?{}", witness.query) };
            format!("{} {}://{}{}{query}", witness.method, kind.word(), witness.host, witness.path)
        }
    };
    let mut fact = |name: &str, value: &str| {
        let quoted = value.is_empty() || value.contains([' ', '"', '#']);
        let value = if quoted { format!("{value:?}") } else { value.to_owned() };
        let _ = write!(text, "  {name}:{value}");
    };
    witness.fields.iter().for_each(|(name, value)| fact(name, value));
    witness.source.iter().for_each(|source| fact("from", &source.to_string()));
    witness.listener.iter().for_each(|listener| fact("listener", listener));
    witness.sni.iter().for_each(|sni| fact("sni", sni));
    if !witness.alpn.is_empty() {
        fact("alpn", &witness.alpn.join(","));
    }
    if witness.no_tls {
        text.push_str("  no-tls");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::check;
    use crate::app::demo::Folder;
    use crate::config;

    const CONFIGURATION: &str = "[listen.web]\naddress = [\"127.0.0.1:8080\"]\n\n\
                                 [pool.web]\nservers = [{ address = \"127.0.0.1:9001\" }]\n\n\
                                 [pool.images]\nservers = [{ address = \"127.0.0.1:9002\" }]\n";

    /// What is listed, and as JSON.
    fn found(rules: &str) -> (String, Value) {
        let folder = Folder::new().unwrap();
        let file = folder.write("config/reeve.toml", CONFIGURATION).unwrap();
        folder.write("rules/a.rules", rules).unwrap();
        let prepared = check::texts(&config::Request { file, ..config::Request::default() });
        assert!(prepared.is_good(), "{}", config::fault::text(&prepared.load.faults, &prepared.load.sources));
        let config = prepared.load.config.as_ref().unwrap();
        let overlapping = Overlapping::find(config, &prepared.tables);
        (overlapping.text(), overlapping.json())
    }

    #[test]
    fn a_pair_has_both_places_and_a_request() {
        let (text, json) = found(
            "http shop.example\n  up  : method POST & path /up/**  use web\n  jpg : path *.jpg  use images\n  \
             api : path /api/**  use web\n  put : path /x/v1 & method PUT  use web\n  rest : any  use web\n",
        );
        let pair = &json["pairs"][0];
        assert_eq!((&pair["first"]["rule"], &pair["second"]["rule"]), (&"a.rules:up".into(), &"a.rules:jpg".into()));
        assert_eq!((&pair["first"]["line"], &pair["section"]), (&2.into(), &"http shop.example".into()));
        assert_eq!(pair["request"], "POST http://shop.example/up/.jpg");
        assert_eq!(json["pairs"][1]["request"], "GET http://shop.example/api/.jpg");
        // `api` and `put` do the same, and `rest` is the general case of `jpg`; the others do what it does.
        assert_eq!((json["pairs"].as_array().unwrap().len(), &json["general"]), (2, &1.into()), "{json}");
        assert!(text.contains("a.rules:2  a.rules:up, before "), "{text}");
        assert!(text.contains("  so far     use web\n  turned     use images\n"), "{text}");
        assert!(text.ends_with("the later rule is the general case of the earlier\n"), "{text}");
    }

    #[test]
    fn what_cannot_meet_is_not_listed() {
        let (_, json) = found(
            "http *\n  a : path /a/**  use web\n  b : path /b/**  use images\n  c : path /c & from 10.0.0.0/8  use web\n  \
             d : path /c & from 192.0.2.0/24  use images\n  e : path /d & header x-t = 1  use web\n  f : path /d & header x-t = 2  use images\n  \
             g : path /e & ! method GET  use web\n  h : path /e & method GET  use images\n",
        );
        assert_eq!(json["pairs"], serde_json::json!([]));
        assert_eq!(json["repeated"], 1, "two lines of x-t");
    }

    #[test]
    fn what_is_listed_is_bounded() {
        let rules: String = (0..40)
            .map(|n| format!("  r{n} : path ~\"^/[a-z]*{n}\"  {}\n", if n % 2 == 0 { "use web" } else { "use images" }))
            .collect();
        let (text, json) = found(&format!("http *\n{rules}"));
        assert_eq!(json["pairs"].as_array().unwrap().len(), LISTED);
        assert_eq!(json["more"], 20 * 20 - LISTED);
        assert!(text.contains("400 pairs of rules whose order matters, 300 of them not listed\n"), "{text}");
        assert!(text.contains("none was found that shows it"), "{text}");
    }
}
