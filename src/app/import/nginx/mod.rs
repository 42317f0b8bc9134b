//! nginx: `http` with its servers and locations, `stream` with its servers.
//!
//! A listener of ours is an address (or several that have the same servers), with rules of its own. Server names
//! become sections; names that no section can have (`mail.*`, regexes) become conditions in the section `*`, in the
//! order nginx tries them. `location` has the order of locations, `action` what is done in one.

mod action;
mod location;
mod servers;
mod stream;
mod tree;
mod unequal;
mod upstream;
mod variable;

use std::collections::HashMap;
use std::rc::Rc;

use tree::Directive;

use super::site::{Names, Site};
use crate::model::Fault;

struct Reader<'a> {
    site: &'a mut Site,
    names: Names,
    listeners: Names,
    /// Of `stream` (true) and `http`.
    upstreams: HashMap<(bool, &'a str), &'a Directive>,
    /// Pools that were made, by where they go, with their timeouts.
    passed: HashMap<String, (String, Vec<(String, String)>)>,
    maps: HashMap<&'a str, &'a Directive>,
    /// `limit_req_zone`: its key and rate.
    zones: HashMap<&'a str, &'a Directive>,
    stream: bool,
}

/// The directives of one block by their names, in their order.
type Level<'a> = Rc<HashMap<&'a str, Vec<&'a Directive>>>;

fn level(body: &[Directive]) -> Level<'_> {
    let mut level: HashMap<&str, Vec<&Directive>> = HashMap::new();
    for directive in body {
        level.entry(&directive.name).or_default().push(directive);
    }
    Rc::new(level)
}

/// Blocks that hold where one is, the outermost first.
#[derive(Clone)]
struct Levels<'a>(Vec<Level<'a>>);

impl<'a> Levels<'a> {
    fn with(&self, body: &'a [Directive]) -> Levels<'a> {
        let mut levels = self.clone();
        levels.0.push(level(body));
        levels
    }

    /// All of a name of the innermost block that has any: an inner block replaces what the outer ones say.
    fn all(&self, name: &str) -> Vec<&'a Directive> {
        self.0.iter().rev().find_map(|level| level.get(name)).cloned().unwrap_or_default()
    }

    fn last(&self, name: &str) -> Option<&'a Directive> {
        self.0.iter().rev().find_map(|level| level.get(name)).and_then(|all| all.last().copied())
    }
}

pub fn read(file: &str, text: &str, site: &mut Site) -> Result<(), Box<Fault>> {
    let tree = tree::read(file, text, &mut site.account)?;
    let fragment = tree.iter().any(|one| matches!(one.name.as_str(), "server" | "upstream" | "map"));
    let mut reader = Reader {
        site,
        names: Names::default(),
        listeners: Names::default(),
        upstreams: HashMap::new(),
        passed: HashMap::new(),
        maps: HashMap::new(),
        zones: HashMap::new(),
        stream: false,
    };
    // A file of sites-enabled has servers alone.
    if fragment {
        reader.block(&tree, false);
    }
    for one in &tree {
        match one.name.as_str() {
            "http" | "stream" => {
                reader.site.account.done(one.item);
                reader.block(one.body(), one.name == "stream");
            }
            "events" => reader.site.account.done(one.item),
            "worker_processes" => match one.arg(0).parse::<u32>() {
                Ok(count) if (1..=1024).contains(&count) => {
                    reader.site.account.done(one.item);
                    reader.site.table("process", one.line).set("workers", count.to_string());
                }
                _ => reader.site.account.done(one.item),
            },
            _ => {}
        }
    }
    unequal::tell(&tree, &mut site.account);
    Ok(())
}

impl<'a> Reader<'a> {
    /// `http` or `stream`.
    fn block(&mut self, body: &'a [Directive], stream: bool) {
        self.stream = stream;
        for directive in body {
            match directive.name.as_str() {
                "upstream" => drop(self.upstreams.insert((stream, directive.arg(0)), directive)),
                "map" => drop(self.maps.insert(directive.arg(1).trim_start_matches('$'), directive)),
                "limit_req_zone" => {
                    let zone = directive.args.iter().find_map(|arg| arg.strip_prefix("zone="));
                    self.zones.insert(zone.and_then(|zone| zone.split(':').next()).unwrap_or(""), directive);
                }
                _ => {}
            }
        }
        let levels = Levels(vec![level(body)]);
        if stream {
            self.streams(body, &levels);
        } else {
            self.servers(body, &levels);
            self.settings(&levels);
        }
    }

    /// What is of the whole process here.
    fn settings(&mut self, levels: &Levels<'a>) {
        let times = [
            ("client_header_timeout", "request-header"),
            ("client_body_timeout", "request-body"),
            ("send_timeout", "client-write"),
            ("keepalive_timeout", "client-keep-alive"),
        ];
        for (name, key) in times {
            let Some(directive) = levels.last(name) else { continue };
            match super::words::duration(directive.arg(0), 1000) {
                Some(time) => {
                    self.site.account.done(directive.item);
                    self.site.table("timeouts", directive.line).set(key, super::words::text(&time));
                }
                None => {
                    self.site.account.none(directive.item, "a time has to be more than nothing, and at most a year")
                }
            }
        }
        if let Some(directive) = levels.last("access_log") {
            if directive.arg(0) == "off" {
                self.site.account.done(directive.item);
            } else {
                self.site.account.differs(directive.item, "the text format of the access log is Reeve's own");
                let path = super::words::text(directive.arg(0));
                let log = format!("{{ format = \"text\", path = {path} }}");
                self.site.table("log", directive.line).set("access", log);
            }
        }
    }
}
