//! What one process hands to the next: named sections, some with descriptors. Who does not know a section leaves it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::app::running::listeners::Place;
use crate::state::ejected::Past;
use crate::state::{Change, Drains, Evidence, Farm, Health, Standing};
use crate::sys::descriptors::AT_ONCE;

/// Sections at most: each has up to 200 sockets.
pub const SECTIONS: usize = 10_000;

/// One part of a parcel.
#[derive(Debug)]
pub struct Section {
    pub name: String,
    pub data: Value,
    pub descriptors: Vec<OwnedFd>,
}

/// All that is handed on.
#[derive(Debug, Default)]
pub struct Parcel {
    pub listeners: Vec<(Place, Vec<OwnedFd>)>,
    /// With the address as it is configured.
    pub metrics: Vec<(SocketAddr, OwnedFd)>,
    pub control: Option<(PathBuf, OwnedFd)>,
    /// Where the process before writes what it logs.
    pub stderr: Option<OwnedFd>,
    /// What is known of clients, to be read.
    pub clients: Option<OwnedFd>,
    pub known: Known,
}

/// What is known of servers and of the service.
#[derive(Debug, Default, PartialEq)]
pub struct Known {
    pub servers: Vec<ServerPart>,
    pub drains: DrainsPart,
    /// Pools, and how many picks were made in each.
    pub positions: Vec<(String, u64)>,
    /// Secrets of TLS sessions, as lines.
    pub keys: Vec<String>,
    /// Secrets of affinity's cookies, as lines.
    pub cookies: Vec<String>,
    pub tallies: TalliesPart,
}

/// What is known of a server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServerPart {
    pub identity: String,
    /// As it is configured: at another address it is another machine.
    pub configured: String,
    /// Where its name led.
    pub address: Option<SocketAddr>,
    pub verdict: Option<VerdictPart>,
    /// How it was ejected lately, and how far it has come back.
    #[serde(default)]
    pub ejected: EjectedPart,
    /// What became of it lately.
    #[serde(default)]
    pub changes: Vec<ChangePart>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChangePart {
    /// Milliseconds since 1970.
    pub at: u64,
    pub what: String,
    pub why: String,
    pub check: String,
    pub sent: String,
    pub heard: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EjectedPart {
    pub out: Option<OutPart>,
    /// How often in a row.
    pub times: u32,
    /// Milliseconds since it came back.
    pub back: Option<u64>,
    /// The same since its share began to grow, where it is not whole yet.
    pub risen: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OutPart {
    /// Milliseconds that it is still to be out.
    pub left: u64,
    /// Milliseconds since 1970.
    pub since: u64,
    pub why: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VerdictPart {
    pub up: bool,
    pub why: String,
    /// Milliseconds since 1970.
    pub since: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DrainsPart {
    pub listeners: BTreeSet<String>,
    pub pools: BTreeSet<String>,
    pub servers: BTreeSet<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TalliesPart {
    /// Of the configuration in force.
    pub generation: u64,
    pub upgrades: u64,
    pub upgrades_refused: u64,
}

#[derive(Serialize, Deserialize)]
struct SocketsPart {
    listener: String,
    address: SocketAddr,
    /// There are more of the same address in the section before.
    goes_on: bool,
}

const SOCKETS: &str = "sockets";
const METRICS: &str = "metrics";
const CONTROL: &str = "control";
const STDERR: &str = "stderr";
const SERVERS: &str = "servers";
const DRAINS: &str = "drains";
const POSITIONS: &str = "positions";
const KEYS: &str = "ticket-keys";
const COOKIES: &str = "cookie-keys";
const CLIENTS: &str = "clients";
const TALLIES: &str = "tallies";

impl Parcel {
    /// In the order in which they are sent.
    ///
    /// # Errors
    /// When a path is not UTF-8.
    pub fn sections(self) -> serde_json::Result<Vec<Section>> {
        let mut sections = Vec::new();
        let mut add = |name: &str, data: serde_json::Result<Value>, descriptors: Vec<OwnedFd>| {
            sections.push(Section { name: name.to_owned(), data: data?, descriptors });
            serde_json::Result::Ok(())
        };
        for (place, mut sockets) in self.listeners {
            let mut goes_on = false;
            while !sockets.is_empty() || !goes_on {
                let rest = sockets.split_off(sockets.len().min(AT_ONCE));
                let part = SocketsPart { listener: place.name.to_string(), address: place.address, goes_on };
                add(SOCKETS, serde_json::to_value(part), std::mem::replace(&mut sockets, rest))?;
                goes_on = true;
            }
        }
        for (address, socket) in self.metrics {
            add(METRICS, serde_json::to_value(address), vec![socket])?;
        }
        if let Some((path, socket)) = self.control {
            add(CONTROL, serde_json::to_value(path), vec![socket])?;
        }
        if let Some(stderr) = self.stderr {
            add(STDERR, Ok(Value::Null), vec![stderr])?;
        }
        if let Some(clients) = self.clients {
            add(CLIENTS, Ok(Value::Null), vec![clients])?;
        }
        let Known { servers, drains, positions, keys, cookies, tallies } = self.known;
        add(SERVERS, serde_json::to_value(servers), Vec::new())?;
        add(DRAINS, serde_json::to_value(drains), Vec::new())?;
        add(POSITIONS, serde_json::to_value(positions), Vec::new())?;
        add(KEYS, serde_json::to_value(keys), Vec::new())?;
        add(COOKIES, serde_json::to_value(cookies), Vec::new())?;
        add(TALLIES, serde_json::to_value(tallies), Vec::new())?;
        Ok(sections)
    }

    /// Puts a section where it belongs.
    ///
    /// # Errors
    /// In words, when it is not as it has to be.
    pub fn take(&mut self, section: Section) -> Result<(), String> {
        let Section { name, data, mut descriptors } = section;
        let wrong = |error: serde_json::Error| format!("section '{name}' is not understood: {error}");
        let mut one = || descriptors.pop().ok_or_else(|| format!("section '{name}' came without its descriptor"));
        match &*name {
            SOCKETS => {
                let part: SocketsPart = serde_json::from_value(data).map_err(wrong)?;
                match self.listeners.last_mut().filter(|_| part.goes_on) {
                    Some((_, sockets)) => sockets.extend(descriptors),
                    None => {
                        let place = Place { name: part.listener.into(), address: part.address };
                        self.listeners.push((place, descriptors));
                    }
                }
            }
            METRICS => self.metrics.push((serde_json::from_value(data).map_err(wrong)?, one()?)),
            CONTROL => self.control = Some((serde_json::from_value(data).map_err(wrong)?, one()?)),
            STDERR => self.stderr = Some(one()?),
            CLIENTS => self.clients = Some(one()?),
            COOKIES => self.known.cookies = serde_json::from_value(data).map_err(wrong)?,
            SERVERS => self.known.servers = serde_json::from_value(data).map_err(wrong)?,
            DRAINS => self.known.drains = serde_json::from_value(data).map_err(wrong)?,
            POSITIONS => self.known.positions = serde_json::from_value(data).map_err(wrong)?,
            KEYS => self.known.keys = serde_json::from_value(data).map_err(wrong)?,
            TALLIES => self.known.tallies = serde_json::from_value(data).map_err(wrong)?,
            _ => tracing::debug!(section = name, "a section of the process before is not known here"),
        }
        Ok(())
    }
}

impl Known {
    /// What a farm knows; the rest is the caller's.
    pub fn of(farm: &Farm) -> Known {
        let (snapshot, now) = (farm.snapshot(), Instant::now());
        let servers = snapshot.pools.iter().flat_map(|pool| pool.servers()).map(|server| ServerPart {
            identity: server.identity().to_string(),
            configured: server.configured_address().to_string(),
            address: server.address(),
            verdict: server.verdict().map(|Standing { health, why, since }| VerdictPart {
                up: health == Health::Up,
                why,
                since: millis(since),
            }),
            ejected: ejected_part(server.past(now)),
            changes: server.changes().iter().map(|change| change_part(change)).collect(),
        });
        let Drains { listeners, pools, servers: drained } = farm.drains();
        let words = |names: BTreeSet<Arc<str>>| names.iter().map(ToString::to_string).collect();
        Known {
            servers: servers.collect(),
            drains: DrainsPart { listeners: words(listeners), pools: words(pools), servers: words(drained) },
            positions: snapshot.pools.iter().map(|pool| (pool.name().to_string(), pool.position())).collect(),
            ..Known::default()
        }
    }

    /// What has to be so before a configuration is put in force.
    pub fn before_install(&self, farm: &Farm) {
        let DrainsPart { listeners, pools, servers } = self.drains.clone();
        let names = |words: BTreeSet<String>| words.into_iter().map(Arc::from).collect();
        let handed = Drains { listeners: names(listeners), pools: names(pools), servers: names(servers) };
        farm.set_drains(|drains| *drains = handed);
        farm.follow(self.tallies.generation);
    }

    /// What is kept of servers and pools that the configuration in force has.
    pub fn after_install(&self, farm: &Farm) {
        for part in &self.servers {
            let Some(server) = farm.server(&part.identity) else { continue };
            if server.configured_address().to_string() != part.configured {
                continue;
            }
            let verdict = part.verdict.as_ref().map(|verdict| Standing {
                health: if verdict.up { Health::Up } else { Health::Down },
                why: verdict.why.clone(),
                since: time(verdict.since),
            });
            server.inherit(verdict, part.address);
            if part.ejected != EjectedPart::default() {
                server.inherit_past(past(&part.ejected), Instant::now());
            }
            server.inherit_changes(part.changes.iter().map(change).collect());
        }
        let snapshot = farm.snapshot();
        for (name, position) in &self.positions {
            if let Some(pool) = snapshot.pool(name) {
                pool.set_position(*position);
            }
        }
    }
}

fn ejected_part(past: Past) -> EjectedPart {
    let brief = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    EjectedPart {
        out: past.out.map(|(left, since, why)| OutPart { left: brief(left), since: millis(since), why }),
        times: past.times,
        back: past.back.map(brief),
        risen: past.risen.map(brief),
    }
}

fn past(part: &EjectedPart) -> Past {
    let EjectedPart { out, times, back, risen } = part.clone();
    Past {
        out: out.map(|OutPart { left, since, why }| (Duration::from_millis(left), time(since), why)),
        times,
        back: back.map(Duration::from_millis),
        risen: risen.map(Duration::from_millis),
    }
}

fn change_part(change: &Change) -> ChangePart {
    let Change { at, what, why, evidence: Evidence { check, sent, heard } } = change.clone();
    ChangePart { at: millis(at), what, why, check, sent, heard }
}

fn change(part: &ChangePart) -> Change {
    let ChangePart { at, what, why, check, sent, heard } = part.clone();
    Change { at: time(at), what, why, evidence: Evidence { check, sent, heard } }
}

/// Milliseconds since 1970.
pub fn millis(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

/// The inverse of [`millis`].
pub fn time(millis: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(millis)).unwrap_or(SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load_text;
    use crate::model::pool::Outlier;

    fn descriptor() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }

    #[test]
    fn a_parcel_comes_over_whole_and_what_is_unknown_is_left() {
        let place = |name: &str| Place { name: name.into(), address: "127.0.0.1:80".parse().unwrap() };
        let parcel = Parcel {
            listeners: vec![
                (place("many"), (0..AT_ONCE + 3).map(|_| descriptor()).collect()),
                (place("one"), vec![descriptor()]),
            ],
            metrics: vec![("127.0.0.1:9901".parse().unwrap(), descriptor())],
            control: Some(("/run/reeve.sock".into(), descriptor())),
            stderr: Some(descriptor()),
            clients: Some(descriptor()),
            known: Known {
                keys: vec!["1 ab".into()],
                cookies: vec!["2 cd".into()],
                positions: vec![("web".into(), 7)],
                ..Known::default()
            },
        };
        let mut sections = parcel.sections().unwrap();
        assert!(sections.iter().all(|section| section.descriptors.len() <= AT_ONCE));
        sections.push(Section { name: "biscuits".into(), data: Value::from(3), descriptors: vec![descriptor()] });
        let mut taken = Parcel::default();
        sections.into_iter().for_each(|section| taken.take(section).unwrap());
        let counts: Vec<_> = taken.listeners.iter().map(|(place, sockets)| (&*place.name, sockets.len())).collect();
        assert_eq!(counts, [("many", AT_ONCE + 3), ("one", 1)]);
        assert_eq!((taken.metrics.len(), taken.control.is_some(), taken.stderr.is_some()), (1, true, true));
        assert_eq!(taken.known.positions, [("web".to_owned(), 7)]);
        assert_eq!(taken.known.keys, ["1 ab"]);
        assert!(taken.clients.is_some());
        assert_eq!(taken.known.cookies, ["2 cd"]);
        for (name, data) in [(METRICS, "\"127.0.0.1:1\""), (CONTROL, "1"), (SERVERS, "{}"), (STDERR, "null")] {
            let data = serde_json::from_str(data).unwrap();
            let section = Section { name: name.into(), data, descriptors: Vec::new() };
            let error = taken.take(section).unwrap_err();
            assert!(error.contains(&format!("'{name}'")), "{error}");
        }
    }

    #[test]
    fn what_is_known_of_servers_is_kept_by_identity_and_address() {
        let text = |moved: &str| {
            format!(
                "[listen.web]\naddress = [\"127.0.0.1:1\"]\npool = \"shop\"\n[pool.shop]\nservers = [\n\
                 {{ name = \"a\", address = \"127.0.0.1:11\" }}, {{ name = \"b\", address = \"{moved}\" }},\n\
                 {{ name = \"c\", address = \"a.example:80\" }}]\ncheck = {{ tcp = true }}\noutlier = {{ eject-for = \"1m\" }}\n"
            )
        };
        let farm = |moved: &str| {
            let load = load_text("reeve.toml", &text(moved));
            Farm::new(Arc::new(load.config.unwrap_or_else(|| panic!("{:?}", load.faults))), Vec::new())
        };
        let (before, since) = (farm("127.0.0.1:12"), time(1_000_000));
        for name in ["a", "b"] {
            before.server(&format!("shop/{name}")).unwrap().set_health(Health::Down, "refused", since);
        }
        before.server("shop/c").unwrap().set_address(Ok("10.0.0.1:80".parse().unwrap()));
        before.set_drains(|drains| {
            drains.servers.insert("shop/c".into());
        });
        before.snapshot().pools[0].set_position(9);
        let (outlier, begin) = (Outlier { eject_for: Duration::from_secs(60), ..Outlier::default() }, Instant::now());
        for name in ["b", "c"] {
            before.server(&format!("shop/{name}")).unwrap().eject("5 failures in a row", &outlier, begin);
        }
        let known = Known::of(&before);

        let after = Farm::empty();
        known.before_install(&after);
        after.install(Arc::new(load_text("reeve.toml", &text("127.0.0.1:99")).config.unwrap()), Vec::new());
        known.after_install(&after);
        let a = after.server("shop/a").unwrap();
        let standing = Standing { health: Health::Down, why: "refused".into(), since };
        assert_eq!((a.health(), a.verdict()), (Health::Down, Some(standing)));
        let changes: Vec<_> = a.changes().iter().map(|change| (change.at, change.what.clone())).collect();
        assert_eq!(changes, [(since, "down".to_owned())]);
        let b = after.server("shop/b").unwrap();
        assert_eq!((b.health(), b.verdict()), (Health::Up, None), "another machine");
        let c = after.server("shop/c").unwrap();
        assert_eq!((c.address(), c.is_drained()), (Some("10.0.0.1:80".parse().unwrap()), true));
        assert!(c.is_ejected() && c.health() == Health::Down && !b.is_ejected());
        assert_eq!(c.standing().why, "ejected for 60 s: 5 failures in a row");
        assert!(!c.release(begin + Duration::from_secs(50)) && c.release(Instant::now() + Duration::from_secs(60)));
        assert_eq!(c.health(), Health::Up);
        assert_eq!(after.snapshot().pools[0].position(), 9);
        assert_eq!(after.snapshot().generation, 1);
    }

    #[test]
    fn a_share_that_grows_goes_on_growing() {
        let farm = |slow_start: &str| {
            let text = format!(
                "[listen.web]\naddress = [\"127.0.0.1:1\"]\npool = \"shop\"\n[pool.shop]\n{slow_start}\n\
                 servers = [{{ name = \"a\", address = \"127.0.0.1:11\" }}]\ncheck = {{ tcp = true }}\n"
            );
            let load = load_text("reeve.toml", &text);
            Farm::new(Arc::new(load.config.unwrap_or_else(|| panic!("{:?}", load.faults))), Vec::new())
        };
        let before = farm("slow-start = \"100s\"");
        let server = before.server("shop/a").unwrap();
        for health in [Health::Down, Health::Up] {
            server.set_health(health, "dice", SystemTime::now());
        }
        assert_eq!(server.portion(), 10);
        let mut known = Known::of(&before);
        // Half of it is over.
        let risen = known.servers[0].ejected.risen.as_mut().unwrap();
        assert!(*risen < 1_000);
        *risen += 50_000;
        let after = |slow_start: &str| {
            let after = farm(slow_start);
            known.after_install(&after);
            after.server("shop/a").unwrap().portion()
        };
        assert!((55..60).contains(&after("slow-start = \"100s\"")));
        assert!((30..35).contains(&after("slow-start = \"200s\"")), "by what is configured now");
        assert_eq!((after("slow-start = \"40s\""), after("")), (100, 100));
    }
}
