//! Looks up the names, reads the rule files and puts the configuration together.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::closest::closest;
use super::file::{File, Listen, Named, NamedCheck, Page, Taken};
use super::source::{Seen, Sources};
use super::{fault, read, reason, rules};
use crate::model::check::Check;
use crate::model::config::{Log, LogTarget};
use crate::model::director::{self, Director, Family, Method, ServiceKey};
use crate::model::listener::{Listener, Protocol};
use crate::model::pool::{Address, Pool};
use crate::model::rule::{Kind, RuleSet, Term, Test};
use crate::model::tls::{ListenerTls, PoolTls};
use crate::model::{Config, Fault, Place};

/// Whether files may be looked at.
#[derive(Debug, Clone, Copy)]
pub enum Disk<'k> {
    Real,
    /// Lists are read anew; of rule files, those that were read before count, as they were then.
    Kept(&'k Sources),
    /// Every file is there and empty.
    None,
}

/// The largest rule file and list: 100,000 rules have 10 MiB.
const LARGEST_TEXT: u64 = 64 << 20;
/// The largest file of users: 100,000 of them have 14 MiB.
const LARGEST_SECRET: u64 = 32 << 20;
/// The largest error page. It is kept in memory and sent whole.
const LARGEST_PAGE: u64 = 256 << 10;

/// What of the configuration can be made of a file. The caller drops it when a fault is an error.
pub fn resolve(
    file: File,
    name: &Arc<str>,
    base: &Path,
    rules: Option<&Path>,
    disk: Disk<'_>,
    sources: &mut Sources,
    faults: &mut Vec<Fault>,
) -> Config {
    let mut room = Room { base, rules, disk, sources, faults };
    duplicate_addresses(&file, room.faults);
    let pools = pools(&file, base, room.faults);
    if let Some(director) = &file.director {
        layer4(director, &file.listeners, &pools, room.faults);
    } else {
        offloads(&file.listeners, room.faults);
    }
    let names: Vec<Arc<str>> = file.pools.iter().map(|pool| pool.name.clone()).collect();
    for wanted in file.listeners.iter().filter_map(|listen| listen.pool.as_ref()).chain(&file.mentioned) {
        if !names.contains(&wanted.name) {
            room.faults.push(unknown("pool", wanted, &names));
        }
    }
    if file.listeners.is_empty() && !file.other_work {
        let fault = Fault::warning("R0152", Place::file(name.clone()), "there is no listener: nothing would be served");
        room.faults.push(fault.help("declare one: [listen.web] with an address"));
    }
    let listener_names: Vec<Arc<str>> = file.listeners.iter().map(|listen| listen.name.clone()).collect();
    let (sets, rule_sets) = room.rule_sets(&file.listeners, &names, &listener_names);
    let listeners =
        file.listeners.into_iter().zip(sets).map(|(listen, rules)| listener(listen, rules, base)).collect::<Vec<_>>();
    // Behind an error this would mostly say that something else is missing.
    if !fault::any_error(room.faults) {
        for listener in &listeners {
            nowhere(listener, &rule_sets, room.faults);
            unheard(listener, &rule_sets, room.faults);
        }
    }
    let mut process = file.process;
    process.socket = process.socket.map(|path| base.join(path));
    Config {
        listeners,
        pools,
        rule_sets,
        timeouts: file.timeouts,
        limits: file.limits,
        process,
        log: log(file.log, base),
        monitor: file.monitor,
        director: file.director,
        errors: room.pages(file.errors),
        state_path: file.state_path.map(|path| base.join(&*path)),
        base: if base.as_os_str().is_empty() { PathBuf::from(".") } else { base.to_owned() },
    }
}

fn listener(listen: Listen, rules: usize, base: &Path) -> Listener {
    Listener {
        name: listen.name,
        addresses: listen.addresses.into_iter().map(|taken| taken.address).collect(),
        protocol: listen.protocol,
        rules,
        pool: listen.pool.map(|pool| pool.name),
        trusted: listen.trusted,
        forwarded: listen.forwarded,
        accept_proxy: listen.accept_proxy,
        tls: listen.tls.map(|tls| ListenerTls {
            certificates: tls.certificates.below(base),
            client_ca: tls.client_ca.map(|file| file.below(base)),
            ..tls
        }),
        media: listen.media,
        built: listen.built,
        place: listen.place,
    }
}

fn log(mut log: Log, base: &Path) -> Log {
    if let Some(access) = &mut log.access
        && let LogTarget::File(path) = &mut access.target
    {
        *path = base.join(&path);
    }
    log
}

/// A name that nothing has, with the one that was probably meant.
fn unknown(kind: &str, wanted: &Named, names: &[Arc<str>]) -> Fault {
    let message = format!("{}there is no {kind} \"{}\"", wanted.who, wanted.name);
    let fault = Fault::error("R0120", wanted.place.clone(), message).allowed(names.iter().map(|name| &**name));
    match closest(&wanted.name, names.iter().map(|name| &**name)) {
        Some(near) => fault.did_you_mean(near),
        None => fault.help(format!("declare it: [{kind}.{}]", wanted.name)),
    }
}

/// The same address twice, over listeners and the monitor.
fn duplicate_addresses(file: &File, faults: &mut Vec<Fault>) {
    let mut ports: BTreeMap<u16, Vec<&Taken>> = BTreeMap::new();
    let listeners = file.listeners.iter().flat_map(|listen| &listen.addresses);
    for taken in listeners.chain(&file.monitor_taken).filter(|taken| taken.address.port() != 0) {
        let Taken { address, place, who } = taken;
        let before = ports.entry(address.port()).or_default();
        let fault = |message: String| Fault::error("R0121", place.clone(), format!("{who}{message}"));
        if let Some(same) = before.iter().find(|other| other.address == *address) {
            faults.push(fault(format!("{address} is listened on twice")).also(same.place.clone(), "first here"));
        } else if let Some(other) =
            before.iter().find(|other| covers(other.address, *address) || covers(*address, other.address))
        {
            let (all, one) =
                if covers(other.address, *address) { (&other.address, address) } else { (address, &other.address) };
            let fault = fault(format!("{all} takes the connections of {one} already"));
            faults.push(fault.also(other.place.clone(), "the other one").help("name one of them, or another port"));
        } else {
            before.push(taken);
        }
    }
}

/// Whether a socket for all addresses leaves none to the other. `[::]` takes IPv4 as well.
fn covers(all: SocketAddr, one: SocketAddr) -> bool {
    all.ip().is_unspecified() && (all.is_ipv6() || one.is_ipv4())
}

fn pools(file: &File, base: &Path, faults: &mut Vec<Fault>) -> Vec<Pool> {
    let pool = |raw: &super::file::Pool| {
        let checks = raw.checks.own.iter().cloned().chain(shared_checks(&raw.checks.named, &file.checks, faults));
        let spoken = |check: Check| Check {
            protocol: raw.protocol,
            send_proxy: raw.send_proxy.filter(|_| !check.is_elsewhere()),
            ..check
        };
        Pool {
            name: raw.name.clone(),
            scheduler: raw.scheduler.clone(),
            servers: raw.servers.clone(),
            checks: checks.map(spoken).collect(),
            retry: raw.retry.clone(),
            hedge: raw.hedge,
            most: raw.most,
            queue: raw.queue,
            outlier: raw.outlier.clone(),
            slow_start: raw.slow_start,
            timeouts: raw.timeouts.clone(),
            send_proxy: raw.send_proxy,
            tls: raw.tls.clone().map(|tls| PoolTls {
                ca: tls.ca.map(|file| file.below(base)),
                own: tls.own.map(|(certificate, key)| (certificate.below(base), key.below(base))),
                ..tls
            }),
            protocol: raw.protocol,
            affinity: raw.affinity.clone(),
            place: raw.place.clone(),
        }
    };
    let pools: Vec<Pool> = file.pools.iter().map(pool).collect();
    unlike(&pools, faults);
    pools
}

/// Listeners whose media the director is to pass on, where there is none.
fn offloads(listeners: &[Listen], faults: &mut Vec<Fault>) {
    for (listen, place) in listeners.iter().filter_map(|listen| Some((listen, listen.offload.as_ref()?))) {
        let message =
            format!("[listen.{}] media \"offload\" needs the director, and there is no [director]", listen.name);
        let fault = Fault::error("R0125", place.clone(), message);
        faults.push(fault.help(
            "write [director] with interfaces = [...], those of clients and of servers, or media = \"relay\" (docs/media.md)",
        ));
    }
}

/// What services of layer 4 say of pools, and of addresses that are listened on.
fn layer4(director: &Director, listeners: &[Listen], pools: &[Pool], faults: &mut Vec<Fault>) {
    for service in &director.services {
        let named = format!("[director.service.{}]", service.name);
        if let ServiceKey::Address { protocol: director::Protocol::Tcp, address } = service.key
            && let Some(taken) = listeners.iter().flat_map(|listen| &listen.addresses).find(|it| it.address == address)
        {
            let message = format!("{address} is a service of layer 4, which takes the connections of this listener");
            let fault = Fault::error("R0121", taken.place.clone(), message).also(service.place.clone(), "the service");
            faults.push(fault.help("give one of them another address or port"));
        }
        let Some(pool) = pools.iter().find(|pool| pool.name == service.pool) else { continue };
        for (name, _) in &service.methods {
            if !pool.servers.iter().any(|server| server.name == *name) {
                let names = pool.servers.iter().map(|server| &*server.name);
                let message = format!("{named} methods: there is no server \"{name}\" in pool \"{}\"", pool.name);
                let fault = Fault::error("R0120", service.place.clone(), message).allowed(names.clone());
                faults.push(match closest(name, names) {
                    Some(near) => fault.did_you_mean(near),
                    None => fault,
                });
            }
        }
        for server in &pool.servers {
            let port = match &server.address {
                Address::Ip(address) => address.port(),
                Address::Name { port, .. } => *port,
            };
            if let Address::Ip(address) = &server.address
                && Family::of(address.ip()) != service.key.family()
                && service.method_of(&server.name) != Method::Tun
            {
                let message = format!(
                    "{named} is of {}, and server \"{}\" at {address} is not: its packets cannot be made those of another family",
                    service.key.family().word(),
                    server.name
                );
                let fault =
                    Fault::error("R0125", service.place.clone(), message).also(server.place.clone(), "the server");
                faults.push(fault.help("method \"tun\" can, or give it a pool of its own"));
            }
            // As in IPVS, silently there: the packet stays as it is.
            if service.method_of(&server.name) != Method::Nat && service.key.port() != 0 && port != service.key.port() {
                let message = format!(
                    "{named} sends packets as they are: server \"{}\" gets them at port {}, not at its own, {port}",
                    server.name,
                    service.key.port()
                );
                let fault = Fault::warning("R0125", service.place.clone(), message);
                faults.push(fault.help("method \"nat\" changes the port"));
            }
        }
    }
}

/// Pools of one group know a client by the same, or they would never agree on one.
fn unlike(pools: &[Pool], faults: &mut Vec<Fault>) {
    let mut groups: BTreeMap<&str, &Pool> = BTreeMap::new();
    for pool in pools {
        let Some((affinity, group)) = pool.affinity.as_ref().and_then(|own| Some((own, own.group.as_deref()?))) else {
            continue;
        };
        let first = groups.entry(group).or_insert(pool);
        let same = first.affinity.as_ref().is_some_and(|other| {
            (&other.by, other.life, other.entries) == (&affinity.by, affinity.life, affinity.entries)
        });
        if !same {
            let message = format!(
                "[pool.{}] and [pool.{}] are of the affinity-group \"{group}\", and do not know their clients by the same",
                first.name, pool.name
            );
            let fault = Fault::error("R0125", pool.place.clone(), message).also(first.place.clone(), "the other one");
            faults.push(fault.help("write the same \"affinity\" in both, or none, which is the client's address"));
        }
    }
}

fn shared_checks(wanted: &[Named], checks: &[NamedCheck], faults: &mut Vec<Fault>) -> Vec<Check> {
    let mut found = Vec::new();
    for wanted in wanted {
        match checks.iter().find(|check| check.name == wanted.name) {
            Some(check) => found.extend(check.check.clone()),
            None => {
                let names: Vec<Arc<str>> = checks.iter().map(|check| check.name.clone()).collect();
                faults.push(unknown("check", wanted, &names));
            }
        }
    }
    found
}

/// A listener that no request can leave.
fn nowhere(listener: &Listener, sets: &[RuleSet], faults: &mut Vec<Fault>) {
    let kind = match listener.protocol {
        Protocol::Http => Kind::Http,
        Protocol::Rtsp => Kind::Rtsp,
        Protocol::Tcp | Protocol::TlsPassthrough => Kind::Tcp,
    };
    let some = sets.get(listener.rules).is_some_and(|set| set.sections.iter().any(|section| section.kind == kind));
    if listener.pool.is_none() && !some {
        let message = format!("[listen.{}] has no pool, and its rules have no {} section", listener.name, kind.word());
        faults.push(
            Fault::warning("R0153", listener.place.clone(), message).help("give it a pool, or rules that choose one"),
        );
    }
}

/// Rules that ask what a `tcp` listener does not read: its server may have to speak first, so that nobody
/// waits for a hello.
fn unheard(listener: &Listener, sets: &[RuleSet], faults: &mut Vec<Fault>) {
    if listener.protocol != Protocol::Tcp {
        return;
    }
    let sections = sets.get(listener.rules).into_iter().flat_map(|set| &set.sections);
    for rule in sections.filter(|section| section.kind == Kind::Tcp).flat_map(|section| &section.rules) {
        let elsewhere = rule.condition.iter().any(|term| match &term.test {
            Test::Listener(names) => names.contains(&listener.name) == term.negated,
            _ => false,
        });
        let asks = |term: &&Term| matches!(term.test, Test::Sni(_) | Test::Alpn(_) | Test::NoTls);
        if let Some(term) = rule.condition.iter().find(asks).filter(|_| !elsewhere) {
            let message =
                format!("[listen.{}] speaks \"tcp\": it reads no TLS hello, which this asks for", listener.name);
            let fault = Fault::error("R0127", term.place.clone(), message).also(listener.place.clone(), "the listener");
            faults.push(
                fault.help(
                    "there, a rule can ask for `from` and `listener`; protocol \"tls-passthrough\" reads the hello",
                ),
            );
        }
    }
}

/// What reading files needs.
struct Room<'a> {
    base: &'a Path,
    /// Where rule files are, if not where they are named.
    rules: Option<&'a Path>,
    disk: Disk<'a>,
    sources: &'a mut Sources,
    faults: &'a mut Vec<Fault>,
}

impl Room<'_> {
    /// The distinct sets of rule files, and which of them each listener has.
    fn rule_sets(
        &mut self,
        listeners: &[Listen],
        pools: &[Arc<str>],
        names: &[Arc<str>],
    ) -> (Vec<usize>, Vec<RuleSet>) {
        let mut sets: Vec<Vec<Arc<str>>> = Vec::new();
        let mut of_listener = Vec::with_capacity(listeners.len());
        let mut default: Option<Vec<Arc<str>>> = None;
        for listen in listeners {
            let mut files = match (&listen.rules, &listen.pool) {
                (Some(rules), _) => self.named_rules(rules),
                (None, Some(_)) => Vec::new(),
                (None, None) => default.get_or_insert_with(|| self.default_rules()).clone(),
            };
            // The order of the files means nothing, so that it does not make another set.
            files.sort();
            files.dedup();
            let index = sets.iter().position(|set| *set == files).unwrap_or_else(|| {
                sets.push(files);
                sets.len() - 1
            });
            of_listener.push(index);
        }
        let sets = sets.iter().map(|files| self.parse(files, pools, names)).collect();
        (of_listener, sets)
    }

    fn parse(&mut self, files: &[Arc<str>], pools: &[Arc<str>], listeners: &[Arc<str>]) -> RuleSet {
        let texts: Vec<(Arc<str>, Arc<str>)> =
            files.iter().filter_map(|name| Some((name.clone(), self.sources.text(name)?.clone()))).collect();
        let inputs: Vec<rules::Input<'_>> =
            texts.iter().map(|(name, text)| rules::Input { name: name.clone(), text }).collect();
        let lists = RefCell::new(Vec::new());
        let (base, disk) = (self.base, self.disk);
        let read_list = |name: &str| match disk {
            Disk::None => Ok(String::new()),
            Disk::Real | Disk::Kept(_) => {
                let seen = Seen::now(&base.join(name));
                let text = read(&seen.path, LARGEST_TEXT);
                // One that cannot be read is looked at again all the same.
                lists.borrow_mut().push((name.to_owned(), text.as_ref().ok().cloned(), seen));
                text
            }
        };
        let secrets = RefCell::new(Vec::new());
        let read_secret = |name: &str| match disk {
            Disk::None => Ok(String::new()),
            Disk::Real | Disk::Kept(_) => {
                let seen = Seen::now(&base.join(name));
                let text = read(&seen.path, LARGEST_SECRET);
                secrets.borrow_mut().push(seen);
                text
            }
        };
        let names = rules::Names { pools, listeners, read: &read_list, read_secret: &read_secret };
        let set = rules::parse(&inputs, &names, self.faults);
        secrets.into_inner().into_iter().for_each(|seen| self.sources.saw(seen));
        for (name, text, seen) in lists.into_inner() {
            self.sources.saw(seen);
            if let Some(text) = text {
                self.sources.add(name, text);
            }
        }
        set
    }

    /// The files that a listener names; those that cannot be read are faults at their names.
    fn named_rules(&mut self, rules: &[Named]) -> Vec<Arc<str>> {
        let mut files: Vec<Arc<str>> = Vec::new();
        for rule in rules {
            let path = match (self.rules, Path::new(&*rule.name).file_name()) {
                (Some(folder), Some(file)) => folder.join(file),
                _ => self.base.join(&*rule.name),
            };
            let name: Arc<str> = path.display().to_string().into();
            if files.contains(&name) {
                let message = format!("{} is named twice", rule.name);
                self.faults.push(Fault::warning("R0126", rule.place.clone(), message));
            } else if let Err(error) = self.rule_file(&name, &path) {
                let message = format!("{}rule file {name} cannot be read: {}", rule.who, reason(&error));
                let fault = Fault::error("R0130", rule.place.clone(), message);
                self.faults.push(match self.near_file(&rule.name) {
                    Some(near) => fault.did_you_mean(near),
                    None => fault,
                });
            } else {
                files.push(name);
            }
        }
        files
    }

    /// Every `rules/*.rules` of the base folder.
    fn default_rules(&mut self) -> Vec<Arc<str>> {
        let mut files = Vec::new();
        let folder = self.rules.map_or_else(|| self.base.join("rules"), Path::to_owned);
        for found in self.files(&folder) {
            let path = folder.join(&found);
            let name: Arc<str> = path.display().to_string().into();
            match self.rule_file(&name, &path) {
                Ok(()) => files.push(name),
                Err(error) => self.faults.push(Fault::error(
                    "R0130",
                    Place::file(name),
                    format!("cannot be read: {}", reason(&error)),
                )),
            }
        }
        files
    }

    /// Reads a rule file, once.
    fn rule_file(&mut self, name: &Arc<str>, path: &Path) -> std::io::Result<()> {
        if self.sources.text(name).is_none() {
            let text = match self.disk {
                Disk::Real => read(path, LARGEST_TEXT)?.into(),
                Disk::Kept(kept) => kept.text(name).cloned().ok_or(std::io::ErrorKind::NotFound)?,
                Disk::None => Arc::from(""),
            };
            self.sources.add(name.clone(), text);
        }
        Ok(())
    }

    /// The names of the rule files in a folder below the base, sorted.
    fn folder(&self, folder: &str) -> Vec<String> {
        self.files(&self.base.join(folder))
    }

    fn files(&self, folder: &Path) -> Vec<String> {
        let names: Vec<String> = match self.disk {
            Disk::None => Vec::new(),
            Disk::Kept(kept) => {
                let below = |name| Some(Path::new(name).strip_prefix(folder).ok()?.to_str()?.to_owned());
                kept.names().filter_map(below).filter(|name| !name.contains('/')).collect()
            }
            Disk::Real => {
                let entries = std::fs::read_dir(folder).into_iter().flatten();
                entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
            }
        };
        // Editors leave hidden copies beside the file.
        let names = names.into_iter().filter(|name| name.ends_with(".rules") && !name.starts_with('.'));
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    /// A file that is there and has almost the wanted name.
    fn near_file(&self, wanted: &str) -> Option<String> {
        let folder = Path::new(wanted).parent().and_then(Path::to_str).unwrap_or("");
        let last = Path::new(wanted).file_name()?.to_str()?;
        let names = self.folder(folder);
        let near = closest(last, names.iter().map(String::as_str))?;
        Some(Path::new(folder).join(near).display().to_string())
    }

    /// The pages of `[errors]`.
    fn pages(&mut self, pages: Vec<Page>) -> BTreeMap<u16, Arc<[u8]>> {
        let mut read_pages = BTreeMap::new();
        for page in pages {
            let path = self.base.join(&*page.file.name);
            let bytes = match self.disk {
                Disk::None => Ok(String::new()),
                Disk::Real | Disk::Kept(_) => read(&path, LARGEST_PAGE),
            };
            match bytes {
                Ok(text) => {
                    read_pages.insert(page.status, Arc::from(text.into_bytes()));
                }
                Err(error) => {
                    let message =
                        format!("{}the page {} cannot be read: {}", page.file.who, path.display(), reason(&error));
                    self.faults.push(Fault::error("R0130", page.file.place, message));
                }
            }
        }
        read_pages
    }
}
