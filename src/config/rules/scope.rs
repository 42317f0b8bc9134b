//! What the words of a rule file can name: pools, listeners, lists and maps; and where faults go.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use ipnet::IpNet;

use super::Names;
use super::cursor::Cursor;
use super::lexer::Token;
use super::report::Report;
use crate::config::closest::closest;
use crate::config::entries::without_comment;
use crate::config::reason;
use crate::model::rule::{List, Map, Users};
use crate::model::{Fault, Place};

/// Names shown of those that would have been accepted.
pub(super) const LISTED: usize = 10;
/// Entries of one list or map.
const ENTRIES: usize = 1_000_000;
/// Faults told of the entries of one file.
pub(super) const ENTRY_FAULTS: usize = 10;

pub(super) struct Scope<'s, 'f> {
    pub names: &'s Names<'s>,
    pools: HashMap<&'s str, usize>,
    pub lists: Vec<List>,
    pub maps: Vec<Map>,
    /// Lists that have been checked as networks, maps as pools.
    checked: HashSet<(&'static str, usize)>,
    list_index: HashMap<Arc<str>, usize>,
    map_index: HashMap<Arc<str>, usize>,
    /// By their file; `None`: it has faults, which have been told.
    pub users: HashMap<Arc<str>, Option<Arc<Users>>>,
    pub report: Report<'f>,
}

impl<'s, 'f> Scope<'s, 'f> {
    pub fn new(names: &'s Names<'s>, report: Report<'f>) -> Scope<'s, 'f> {
        let pools = names.pools.iter().enumerate().map(|(index, name)| (&**name, index)).collect();
        Scope {
            names,
            pools,
            lists: Vec::new(),
            maps: Vec::new(),
            checked: HashSet::new(),
            list_index: HashMap::new(),
            map_index: HashMap::new(),
            users: HashMap::new(),
            report,
        }
    }

    pub fn tell(&mut self, fault: Fault) {
        self.report.push(fault);
    }

    /// The position of a pool; a fault where there is none of that name.
    pub fn pool(&mut self, token: &Token<'_>, cursor: &Cursor<'_, '_>) -> Option<usize> {
        let name = token.value.as_ref();
        let found = self.pools.get(name).copied();
        if found.is_none() {
            let fault = Fault::error("R0240", cursor.place(token), format!("there is no pool `{name}`"));
            self.tell(unknown(fault, name, self.names.pools));
        }
        found
    }

    /// Tells of a listener that does not exist.
    pub fn listener(&mut self, token: &Token<'_>, cursor: &Cursor<'_, '_>) {
        let name = token.value.as_ref();
        if !self.names.listeners.iter().any(|known| **known == *name) {
            let fault = Fault::error("R0230", cursor.place(token), format!("there is no listener `{name}`"));
            self.tell(unknown(fault, name, self.names.listeners));
        }
    }

    pub fn list(&mut self, token: &Token<'_>, cursor: &Cursor<'_, '_>) -> Option<usize> {
        let name = token.value.as_ref();
        let found = self.list_index.get(name).copied();
        if found.is_none() {
            let known: Vec<Arc<str>> = self.lists.iter().map(|list| list.name.clone()).collect();
            let fault = Fault::error("R0231", cursor.place(token), format!("there is no list `{name}`"));
            let fault = unknown(fault, name, &known);
            self.tell(match fault.suggestion {
                None => fault.help(format!("declare it at the left edge: list {name} from \"lists/{name}.txt\"")),
                Some(_) => fault,
            });
        }
        found
    }

    pub fn map(&mut self, token: &Token<'_>, cursor: &Cursor<'_, '_>) -> Option<usize> {
        let name = token.value.as_ref();
        let found = self.map_index.get(name).copied();
        if found.is_none() {
            let known: Vec<Arc<str>> = self.maps.iter().map(|map| map.name.clone()).collect();
            let fault = Fault::error("R0231", cursor.place(token), format!("there is no map `{name}`"));
            let fault = unknown(fault, name, &known);
            self.tell(match fault.suggestion {
                None => fault.help(format!("declare it at the left edge: map {name} from \"lists/{name}.map\"")),
                Some(_) => fault,
            });
        }
        found
    }

    /// Declares a list: reads its file.
    pub fn declare_list(&mut self, name: Arc<str>, place: Place, file: &str, file_place: Place) {
        if let Some(first) = self.list_index.get(&name).and_then(|index| self.lists.get(*index)) {
            let first = first.place.clone();
            self.tell(twice("list", &name, place, first));
            return;
        }
        let file: Arc<str> = file.into();
        let text = self.read(&file, file_place);
        let entries: Vec<Arc<str>> = self.entries(&text, &file).map(|(_, entry)| entry.into()).collect();
        self.list_index.insert(name.clone(), self.lists.len());
        self.lists.push(List { name, entries, file, place });
    }

    /// Declares a map: reads its file, `key value` a line.
    pub fn declare_map(&mut self, name: Arc<str>, place: Place, file: &str, file_place: Place) {
        if let Some(first) = self.map_index.get(&name).and_then(|index| self.maps.get(*index)) {
            let first = first.place.clone();
            self.tell(twice("map", &name, place, first));
            return;
        }
        let file: Arc<str> = file.into();
        let text = self.read(&file, file_place);
        let mut entries = Vec::new();
        let mut wrong = Vec::new();
        let mut first: HashMap<&str, u32> = HashMap::new();
        for (number, entry) in self.entries(&text, &file) {
            let place = || line_place(&file, number, entry);
            let mut words = entry.split_whitespace();
            match (words.next(), words.next(), words.next()) {
                (Some(key), Some(value), None) => match first.get(key) {
                    Some(line) => {
                        let fault = Fault::error("R0273", place(), format!("the key `{key}` stands twice in this map"));
                        wrong.push(fault.help(format!("line {line} has it already")));
                    }
                    None => {
                        first.insert(key, number);
                        entries.push((key.into(), value.into()));
                    }
                },
                _ => wrong.push(Fault::error("R0273", place(), "a line of a map is a key and a value")),
            }
        }
        for fault in wrong.into_iter().take(ENTRY_FAULTS) {
            self.tell(fault);
        }
        self.map_index.insert(name.clone(), self.maps.len());
        self.maps.push(Map { name, entries, pools: Vec::new(), file, place });
    }

    fn read(&mut self, file: &Arc<str>, place: Place) -> String {
        match (self.names.read)(file) {
            Ok(text) => text,
            Err(error) => {
                let fault = Fault::error("R0271", place, format!("cannot read `{file}`: {}", reason(&error)));
                self.tell(fault.help("relative paths start at the base folder, the parent of config/"));
                String::new()
            }
        }
    }

    /// The entries with their lines, comments left out.
    fn entries<'t>(&mut self, text: &'t str, file: &Arc<str>) -> impl Iterator<Item = (u32, &'t str)> + use<'t> {
        let entries = || text.lines().map(without_comment).enumerate().filter(|(_, entry)| !entry.is_empty());
        if entries().nth(ENTRIES).is_some() {
            self.tell(Fault::error("R0274", Place::file(file.clone()), format!("more than {ENTRIES} entries")));
        }
        entries().take(ENTRIES).map(|(index, entry)| (u32::try_from(index + 1).unwrap_or(u32::MAX), entry))
    }

    /// Tells of entries that are no networks, once a list: `from in NAME` needs them.
    pub fn check_nets(&mut self, index: usize) {
        let Some(list) = self.lists.get(index).filter(|_| self.checked.insert(("nets", index))) else { return };
        let (file, wrong): (_, Vec<Arc<str>>) = (
            list.file.clone(),
            list.entries.iter().filter(|entry| parse_net(entry).is_none()).take(ENTRY_FAULTS).cloned().collect(),
        );
        self.tell_entries(&file, &wrong, |entry| {
            format!("`{entry}` is no address or network, and `from` uses this list")
        });
    }

    /// Finds the pools that the values name, and tells of values that are none, once a map: `use map NAME` needs them.
    pub fn check_pools(&mut self, index: usize) {
        let Some(map) = self.maps.get_mut(index).filter(|_| self.checked.insert(("pools", index))) else { return };
        map.pools =
            map.entries.iter().map(|(_, pool)| self.pools.get(&**pool).copied().unwrap_or(usize::MAX)).collect();
        let (file, wrong): (_, Vec<Arc<str>>) = (
            map.file.clone(),
            map.entries
                .iter()
                .map(|(_, pool)| pool)
                .filter(|pool| !self.pools.contains_key(&***pool))
                .take(ENTRY_FAULTS)
                .cloned()
                .collect(),
        );
        self.tell_entries(&file, &wrong, |pool| format!("there is no pool `{pool}`, and `use map` uses this map"));
    }

    /// Faults at the lines of a list's or map's file that hold these entries or values.
    fn tell_entries(&mut self, file: &Arc<str>, wrong: &[Arc<str>], message: impl Fn(&str) -> String) {
        if wrong.is_empty() {
            return;
        }
        let text = (self.names.read)(file).unwrap_or_default();
        for word in wrong {
            let holds = |entry: &str| entry == &**word || entry.split_whitespace().nth(1) == Some(word);
            let line = text.lines().map(without_comment).zip(1u32..).find(|(entry, _)| holds(entry));
            let place =
                line.map_or_else(|| Place::file(file.clone()), |(entry, number)| line_place(file, number, entry));
            self.tell(Fault::error("R0272", place, message(word)));
        }
    }
}

/// Adds to a fault about an unknown name what names there are.
pub(super) fn unknown(fault: Fault, name: &str, known: &[Arc<str>]) -> Fault {
    let fault = fault.allowed(known.iter().take(LISTED).map(|name| &**name));
    match closest(name, known.iter().map(|name| &**name)) {
        Some(near) => fault.did_you_mean(near),
        None => fault,
    }
}

pub(super) fn twice(what: &str, name: &str, place: Place, first: Place) -> Fault {
    Fault::error("R0270", place, format!("the {what} `{name}` is declared twice")).also(first, "first declared here")
}

fn line_place(file: &Arc<str>, line: u32, entry: &str) -> Place {
    Place { file: file.clone(), line, column: 1, end: entry.chars().count() as u32 + 1 }
}

/// One address as a network of its own, or a network.
pub(super) fn parse_net(text: &str) -> Option<IpNet> {
    text.parse::<IpNet>().ok().or_else(|| text.parse::<std::net::IpAddr>().ok().map(IpNet::from))
}
