//! HAProxy: `frontend`, `backend`, `listen` and what `defaults` and `global` add.
//!
//! A frontend's rules stand in one section `http *` with paths as they were sent, in the order HAProxy goes through
//! them whatever the order of the lines: `http-request`, then `redirect`, then `use_backend`, and then what the
//! backend itself asks. `frontend` makes the rules, `acl` their conditions, `backend` the pools.

mod acl;
mod backend;
mod frontend;
mod request;
mod text;
mod unequal;

use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

use text::{Line, Section};

use super::site::{Names, Site};
use super::words;
use crate::model::Fault;

struct Reader<'a> {
    site: &'a mut Site,
    names: Names,
    listeners: Names,
    backends: HashMap<&'a str, Proxy<'a>>,
    /// Pools that were made, by their backends.
    pools: HashMap<&'a str, String>,
    /// Files of lists, by the names that rules give them.
    lists: HashMap<String, String>,
    /// The conditions of backends, by their names.
    acls: HashMap<&'a str, Rc<acl::Acls<'a>>>,
}

/// A section with the defaults that hold for it.
#[derive(Clone)]
struct Proxy<'a> {
    section: &'a Section,
    own: Rc<Index<'a>>,
    defaults: Rc<Index<'a>>,
}

/// Lines by their first word.
type Index<'a> = HashMap<&'a str, Vec<&'a Line>>;

fn index(lines: &[Line]) -> Rc<Index<'_>> {
    let mut index: Index<'_> = HashMap::new();
    for line in lines {
        index.entry(line.word(0)).or_default().push(line);
    }
    Rc::new(index)
}

impl<'a> Proxy<'a> {
    /// Lines of its own that begin with this word.
    fn all(&self, word: &str) -> Vec<&'a Line> {
        self.own.get(word).cloned().unwrap_or_default()
    }

    /// The last line that begins with these words, its own before that of the defaults.
    fn last(&self, words: &str) -> Option<&'a Line> {
        let first = words.split(' ').next().unwrap_or("");
        let find = |index: &Index<'a>| index.get(first)?.iter().rev().find(|line| line.is(words)).copied();
        find(&self.own).or_else(|| find(&self.defaults))
    }

    fn mode(&self) -> &'a str {
        self.last("mode").map_or("tcp", |line| line.word(1))
    }
}

pub fn read(file: &str, text: &str, site: &mut Site) -> Result<(), Box<Fault>> {
    let sections = text::read(file, text, &mut site.account)?;
    let mut reader = Reader {
        site,
        names: Names::default(),
        listeners: Names::default(),
        backends: HashMap::new(),
        pools: HashMap::new(),
        lists: HashMap::new(),
        acls: HashMap::new(),
    };
    let none = Rc::new(Index::new());
    let mut defaults: HashMap<&str, Rc<Index<'_>>> = HashMap::new();
    let mut latest = none.clone();
    let mut proxies = Vec::new();
    for section in &sections {
        match section.kind.as_str() {
            "defaults" => {
                reader.site.account.done(section.item);
                latest = index(&section.lines);
                defaults.insert(&section.name, latest.clone());
                section
                    .lines
                    .iter()
                    .filter(|line| line.word(0) == "mode")
                    .for_each(|line| reader.site.account.done(line.item));
            }
            "frontend" | "backend" | "listen" => {
                reader.site.account.done(section.item);
                let from = section.rest.iter().position(|word| word == "from").and_then(|at| section.rest.get(at + 1));
                let defaults = from.and_then(|name| defaults.get(name.as_str())).unwrap_or(&latest).clone();
                let proxy = Proxy { section, own: index(&section.lines), defaults };
                if section.kind != "frontend" {
                    reader.backends.insert(&section.name, proxy.clone());
                }
                proxies.push(proxy);
                reader.known_lists(&section.lines);
            }
            _ => {}
        }
    }
    for section in sections.iter().filter(|section| section.kind == "global") {
        reader.site.account.done(section.item);
        section.lines.iter().for_each(|line| reader.global(line));
    }
    for proxy in proxies.iter().filter(|proxy| proxy.section.kind != "backend") {
        reader.frontend(proxy);
    }
    for proxy in proxies.iter().filter(|proxy| proxy.section.kind != "frontend") {
        if !reader.pools.contains_key(proxy.section.name.as_str()) {
            reader.pool(proxy);
        }
    }
    reader.timeouts(&proxies);
    unequal::tell(&sections, &mut site.account);
    Ok(())
}

impl<'a> Reader<'a> {
    fn known_lists(&mut self, lines: &[Line]) {
        for line in lines {
            for (at, _) in line.words.iter().enumerate().filter(|(_, word)| *word == "-f") {
                let file = line.word(at + 1);
                self.lists.entry(acl::list_name(file)).or_insert_with(|| file.to_owned());
            }
        }
    }

    /// The conditions of a backend.
    fn acls_of(&mut self, proxy: &Proxy<'a>) -> Rc<acl::Acls<'a>> {
        let section = proxy.section;
        self.acls.entry(&section.name).or_insert_with(|| Rc::new(acl::Acls::read(&section.lines))).clone()
    }

    fn global(&mut self, line: &Line) {
        match line.word(0) {
            "maxconn" if line.word(1).parse::<u32>().is_ok_and(|count| count > 0) => {
                self.site.account.done(line.item);
                self.site.table("limits", line.line).set("connections", line.word(1));
            }
            "nbthread" if line.word(1).parse::<u16>().is_ok_and(|count| (1..=1024).contains(&count)) => {
                self.site.account.done(line.item);
                self.site.table("process", line.line).set("workers", line.word(1));
            }
            _ => {}
        }
    }

    /// Timeouts of clients are of all listeners here: set where all frontends that have one say the same.
    fn timeouts(&mut self, proxies: &[Proxy<'a>]) {
        let kinds: [(&str, &[&str], &str); 5] = [
            ("timeout client", &["request-body", "client-write"], "http"),
            ("timeout http-request", &["request-header"], "http"),
            ("timeout http-keep-alive", &["client-keep-alive"], "http"),
            ("timeout client-fin", &["half-closed"], ""),
            ("tcp-request inspect-delay", &["hello"], "tcp"),
        ];
        for (words_of, keys, mode) in kinds {
            let mut found: Vec<&Line> = Vec::new();
            for proxy in proxies.iter().filter(|proxy| proxy.section.kind != "backend") {
                if let Some(line) = proxy.last(words_of).filter(|_| mode.is_empty() || proxy.mode() == mode) {
                    found.push(line);
                }
            }
            let at = words_of.split(' ').count();
            let times: BTreeSet<Option<String>> = found.iter().map(|line| words::duration(line.word(at), 1)).collect();
            let only = if times.len() == 1 { times.into_iter().next().flatten() } else { None };
            for line in &found {
                match &only {
                    Some(_) => self.site.account.done(line.item),
                    None => self.site.account.none(line.item, "one time for the clients of all listeners: [timeouts]"),
                }
            }
            if let (Some(time), Some(line)) = (only, found.first()) {
                let table = self.site.table("timeouts", line.line);
                keys.iter().for_each(|key| table.set(key, words::text(&time)));
            }
        }
    }
}
