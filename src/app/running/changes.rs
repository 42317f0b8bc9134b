//! What is different between two configurations, for whoever reloads; and what of it only a restart takes up.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use crate::model::check::Check;
use crate::model::listener::Listener;
use crate::model::pool::{Pool, Server};
use crate::model::rule::{List, Map, RuleSet};
use crate::model::tls::{FileAt, PoolTls};
use crate::model::{Config, Place};
use crate::state::orders::{Changes, Difference, Rules};

/// What changes with `new`; opened and closed addresses are left for the caller.
pub fn between(old: &Config, new: &Config) -> Changes {
    Changes {
        listeners: difference(named_listeners(old), named_listeners(new), same_listener),
        pools: difference(named_pools(old), named_pools(new), same_pool),
        servers: difference(servers(old), servers(new), same_server),
        rules: rules(old, new),
        lists: lists(old, new),
        settings: settings(old, new),
        ..Changes::default()
    }
}

/// What `new` asks for that the running process, started with `old`, cannot do.
pub fn need_a_restart(old: &Config, new: &Config) -> Vec<String> {
    let mut all = Vec::new();
    let mut tell = |differs: bool, key: &str, what: &str| {
        if differs {
            all.push(format!("{key} has changed: {what} only a restart takes up"));
        }
    };
    tell(old.process.workers != new.process.workers, "process.workers", "another number of threads");
    tell(old.process.socket != new.process.socket, "process.socket", "another control socket");
    if let (Some(old), Some(new)) = (&old.director, &new.director) {
        tell(
            old.flows != new.flows,
            "director.flows",
            "tables of another size, after `rm -r` of the folder of pins, which loses connections,",
        );
        tell(
            old.pin != new.pin,
            "director.pin",
            "another folder, after `rm -r` of the old one, which takes its programs off,",
        );
    }
    tell(old.state_path != new.state_path, "state.path", "another state folder");
    all
}

fn difference<K: Hash + Eq + ToString, T>(
    old: Vec<(K, T)>,
    new: Vec<(K, T)>,
    same: impl Fn(&T, &T) -> bool,
) -> Difference {
    let mut difference = Difference::default();
    let mut before: HashMap<&K, &T> = old.iter().map(|(name, value)| (name, value)).collect();
    for (name, value) in &new {
        match before.remove(name) {
            None => difference.added.push(name.to_string()),
            Some(old) if !same(old, value) => difference.changed.push(name.to_string()),
            Some(_) => {}
        }
    }
    let gone = old.iter().filter(|(name, _)| before.contains_key(name));
    difference.removed = gone.map(|(name, _)| name.to_string()).collect();
    difference
}

fn named_listeners(config: &Config) -> Vec<(Arc<str>, &Listener)> {
    config.listeners.iter().map(|listener| (listener.name.clone(), listener)).collect()
}

fn named_pools(config: &Config) -> Vec<(Arc<str>, &Pool)> {
    config.pools.iter().map(|pool| (pool.name.clone(), pool)).collect()
}

fn servers(config: &Config) -> Vec<(String, &Server)> {
    let all = config.pools.iter().flat_map(|pool| pool.servers.iter().map(move |server| (pool, server)));
    all.map(|(pool, server)| (format!("{}/{}", pool.name, server.name), server)).collect()
}

/// Wherever it is written, and whatever its rules say.
fn same_listener(old: &&Listener, new: &&Listener) -> bool {
    let tls = match (&old.tls, &new.tls) {
        (Some(old), Some(new)) => old.same(new),
        (old, new) => old.is_none() && new.is_none(),
    };
    let bare = |listener: &Listener| Listener { tls: None, rules: 0, place: nowhere(), ..listener.clone() };
    tls && bare(old) == bare(new)
}

fn same_server(old: &&Server, new: &&Server) -> bool {
    let bare = |server: &Server| Server { place: nowhere(), ..server.clone() };
    bare(old) == bare(new)
}

/// But for its servers, which are told by themselves.
fn same_pool(old: &&Pool, new: &&Pool) -> bool {
    let bare = |pool: &Pool| Pool {
        servers: Vec::new(),
        checks: pool.checks.iter().map(|check| Check { place: nowhere(), ..check.clone() }).collect(),
        tls: pool.tls.as_ref().map(|tls| PoolTls {
            ca: tls.ca.as_ref().map(anywhere),
            own: tls.own.as_ref().map(|(certificate, key)| (anywhere(certificate), anywhere(key))),
            place: nowhere(),
            ..tls.clone()
        }),
        place: nowhere(),
        ..pool.clone()
    };
    bare(old) == bare(new)
}

fn anywhere(file: &FileAt) -> FileAt {
    FileAt { place: nowhere(), ..file.clone() }
}

fn nowhere() -> Place {
    Place::file("")
}

fn rules(old: &Config, new: &Config) -> Rules {
    let ids = |config: &Config| -> Vec<(Arc<str>, ())> {
        let rules = config.rule_sets.iter().flat_map(|set| &set.sections).flat_map(|section| &section.rules);
        rules.map(|rule| (rule.id.clone(), ())).collect()
    };
    let (old, new) = (ids(old), ids(new));
    let total = new.len();
    let Difference { added, removed, .. } = difference(old, new, |(), ()| true);
    Rules { total, added: added.len(), removed: removed.len() }
}

fn lists(old: &Config, new: &Config) -> Vec<String> {
    let lists = |config| named(config, |set| &set.lists, |list: &List| (&list.name, &list.entries));
    let maps = |config| named(config, |set| &set.maps, |map: &Map| (&map.name, &map.entries));
    let mut names = difference(lists(old), lists(new), |old, new| old == new).changed;
    names.extend(difference(maps(old), maps(new), |old, new| old == new).changed);
    names
}

/// Something of all rule sets, with its name.
fn named<'c, T: 'c, E>(
    config: &'c Config,
    all: fn(&RuleSet) -> &Vec<T>,
    of: fn(&T) -> (&Arc<str>, &Vec<E>),
) -> Vec<(Arc<str>, &'c [E])> {
    let all = config.rule_sets.iter().flat_map(all).map(of);
    all.map(|(name, entries)| (name.clone(), &**entries)).collect()
}

fn settings(old: &Config, new: &Config) -> Vec<String> {
    [
        ("timeouts", old.timeouts != new.timeouts),
        ("limits", old.limits != new.limits),
        ("log", old.log != new.log),
        ("monitor", old.monitor != new.monitor),
        ("errors", old.errors != new.errors),
    ]
    .into_iter()
    .filter(|(_, differs)| *differs)
    .map(|(name, _)| name.to_owned())
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load_text;

    fn config(text: &str) -> Config {
        let load = load_text("reeve.toml", text);
        load.config.unwrap_or_else(|| panic!("{:?}", load.faults))
    }

    const OLD: &str = "[listen.web]\naddress = [\"127.0.0.1:1\"]\npool = \"a\"\n[listen.old]\naddress = [\"127.0.0.1:2\"]\npool = \"a\"\n\
        [pool.a]\ncheck = { http = \"/\" }\nservers = [\n{ name = \"1\", address = \"127.0.0.1:11\" },\n{ name = \"2\", address = \"127.0.0.1:12\" }]\n\
        [pool.b]\nservers = [{ name = \"1\", address = \"127.0.0.1:21\" }]\n";

    #[test]
    fn lines_that_only_moved_change_nothing() {
        let moved = format!("# one line more\n[process]\n{OLD}");
        let changes = between(&config(OLD), &config(&moved));
        assert_eq!(changes, Changes::default());
    }

    #[test]
    fn each_thing_is_told_by_its_name() {
        let new = "[listen.web]\naddress = [\"127.0.0.1:1\"]\npool = \"c\"\n[listen.new]\naddress = [\"127.0.0.1:2\"]\npool = \"a\"\n\
            [pool.a]\nscheduler = \"lc\"\ncheck = { http = \"/\" }\nservers = [{ name = \"2\", address = \"127.0.0.1:13\" }]\n\
            [pool.c]\nservers = [{ name = \"1\", address = \"127.0.0.1:21\" }]\n[timeouts]\nconnect = \"1s\"\n[process]\nworkers = 3\n";
        let (old, new) = (config(OLD), config(new));
        let changes = between(&old, &new);
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let difference = |added: &[&str], removed: &[&str], changed: &[&str]| Difference {
            added: words(added),
            removed: words(removed),
            changed: words(changed),
        };
        assert_eq!(changes.listeners, difference(&["new"], &["old"], &["web"]));
        assert_eq!(changes.pools, difference(&["c"], &["b"], &["a"]));
        assert_eq!(changes.servers, difference(&["c/1"], &["a/1", "b/1"], &["a/2"]));
        assert_eq!(changes.settings, ["timeouts"]);
        let restart = need_a_restart(&old, &new);
        assert_eq!(restart.len(), 1);
        assert!(restart[0].contains("process.workers"), "{restart:?}");
    }
}
