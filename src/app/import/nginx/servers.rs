//! Servers of `http`: listeners, and the sections of their rules.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;

use super::location::{self, Location};
use super::tree::Directive;
use super::variable::Context;
use super::{Levels, Reader};
use crate::app::import::site::{Names, Rule, RuleFile, Section, Table, Test};
use crate::app::import::words;

/// Bytes of hosts in the head of one section; its line has 4 KiB at most.
const HEAD: usize = 3000;

/// One `server`.
pub struct Server<'a> {
    pub directive: &'a Directive,
    pub levels: Levels<'a>,
    pub locations: Vec<Location<'a>>,
    names: Vec<(String, usize)>,
}

/// Servers of one address.
#[derive(Debug, Default, Clone, PartialEq, Eq, Hash)]
struct Group {
    servers: Vec<usize>,
    default: Option<usize>,
    tls: bool,
    proxy: bool,
}

impl<'a> Reader<'a> {
    pub fn servers(&mut self, body: &'a [Directive], levels: &Levels<'a>) {
        let mut servers = Vec::new();
        let mut groups: BTreeMap<SocketAddr, Group> = BTreeMap::new();
        for directive in body.iter().filter(|directive| directive.name == "server") {
            self.site.account.done(directive.item);
            self.site.account.differs_once(
                directive.item,
                "paths are matched and passed on with their `//` and their escapes (%2F); nginx looks at them merged and decoded",
            );
            let own = levels.with(directive.body());
            let listens = self.listens(directive);
            let mut names = Vec::new();
            for names_of in directive.body().iter().filter(|inner| inner.name == "server_name") {
                self.site.account.done(names_of.item);
                names.extend(names_of.args.iter().map(|name| (name.clone(), names_of.item)));
            }
            let index = servers.len();
            for (address, default, tls, proxy) in listens {
                let group = groups.entry(address).or_default();
                if group.servers.last() != Some(&index) {
                    group.servers.push(index);
                }
                group.default = group.default.or(default.then_some(index));
                group.tls |= tls;
                group.proxy |= proxy;
            }
            let locations = location::read(directive.body(), &mut self.site.account);
            servers.push(Server { directive, levels: own, locations, names });
        }
        // Addresses with the same servers are one listener.
        let mut order: Vec<Group> = Vec::new();
        let mut addresses: HashMap<Group, Vec<SocketAddr>> = HashMap::new();
        for (address, group) in groups {
            let of = addresses.entry(group.clone()).or_insert_with(|| {
                order.push(group);
                Vec::new()
            });
            of.push(address);
        }
        order.sort_by_key(|group| group.servers.first().copied());
        let mut written: HashMap<String, String> = HashMap::new();
        for group in order {
            let addresses = addresses.remove(&group).unwrap_or_default();
            self.listener(&servers, &group, addresses, &mut written);
        }
    }

    /// Addresses of a server, each with `default_server`, `ssl` and `proxy_protocol`.
    fn listens(&mut self, server: &Directive) -> Vec<(SocketAddr, bool, bool, bool)> {
        let mut found = Vec::new();
        let all: Vec<&Directive> = server.body().iter().filter(|inner| inner.name == "listen").collect();
        let old_tls = server.body().iter().any(|inner| inner.name == "ssl" && inner.arg(0) == "on");
        for listen in &all {
            let Some(address) = address(listen.arg(0)) else {
                self.site.account.none(listen.item, "listeners take an address and a port");
                continue;
            };
            self.site.account.done(listen.item);
            let has = |word: &str| listen.args.iter().any(|arg| arg == word);
            if has("quic") {
                self.site.account.none(listen.item, "HTTP/3 is not spoken");
                continue;
            }
            if address.is_ipv6() && address.ip().is_unspecified() && !has("ipv6only=off") {
                self.site.account.differs_once(listen.item, "[::] takes IPv4 too");
            }
            let default = has("default_server") || has("default");
            found.push((address, default, has("ssl") || old_tls, has("proxy_protocol")));
        }
        if all.is_empty() {
            found.push((SocketAddr::from(([0, 0, 0, 0], 80)), false, old_tls, false));
        }
        found
    }

    fn listener(
        &mut self,
        servers: &[Server<'a>],
        group: &Group,
        mut addresses: Vec<SocketAddr>,
        written: &mut HashMap<String, String>,
    ) {
        let Some(default) = group.default.or_else(|| group.servers.first().copied()) else { return };
        words::covered(&mut addresses);
        let port = addresses.first().map_or(0, SocketAddr::port);
        let kind = if group.tls { "https" } else { "http" };
        let name = self.listeners.fresh(&format!("{kind}-{port}"));
        let line = group.servers.first().map_or(0, |first| servers[*first].directive.line);
        let mut table = Table::new(format!("listen.{name}"), line);
        let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        table.set("address", words::texts(&texts));
        table.set("protocol", "\"http\"");
        if group.tls {
            let tls = self.listener_tls(servers, group, default);
            table.set("tls", tls);
        }
        if group.proxy {
            table.set("accept-proxy-protocol", "{ from = [\"0.0.0.0/0\", \"::/0\"] }");
        }
        let context = Context { server_name: None, tls: group.tls, port };
        let sections = self.sections(servers, group, default, &context);
        // Listeners whose rules are the same share the file.
        let text = format!("{sections:?}");
        let file = written.get(&text).cloned().unwrap_or_else(|| {
            let file = format!("rules/{name}.rules");
            self.site.files.push(RuleFile { name: file.clone(), sections, ..RuleFile::default() });
            written.insert(text, file.clone());
            file
        });
        table.set("rules", words::texts(&[file]));
        self.site.tables.push(table);
    }

    fn listener_tls(&mut self, servers: &[Server<'a>], group: &Group, default: usize) -> String {
        let mut keys = vec!["certificates = \"certs\"".to_owned()];
        for server in group.servers.iter().map(|index| &servers[*index]) {
            let account = &mut self.site.account;
            if let Some(certificate) = server.levels.last("ssl_certificate") {
                let how = format!(
                    "put {} and its key into the folder certs; the names in it say whom it is for",
                    certificate.arg(0)
                );
                account.differs(certificate.item, how);
            }
            for name in ["ssl_certificate_key", "ssl_protocols", "ssl_verify_client", "ssl_client_certificate", "ssl"] {
                server.levels.all(name).iter().for_each(|one| account.done(one.item));
            }
        }
        let levels = &servers[default].levels;
        if levels.last("ssl_protocols").is_some_and(|one| one.args == ["TLSv1.3"]) {
            keys.push("minimum = \"1.3\"".to_owned());
        }
        if let Some(old) =
            levels.last("ssl_protocols").filter(|one| one.args.iter().any(|arg| arg == "TLSv1" || arg == "TLSv1.1"))
        {
            self.site.account.differs(old.item, "TLS 1.2 is the oldest that is spoken");
        }
        if let (Some(ca), Some(how)) = (levels.last("ssl_client_certificate"), levels.last("ssl_verify_client")) {
            let word = match how.arg(0) {
                "on" => "required",
                "optional" => "optional",
                "off" => "none",
                _ => {
                    self.site.account.none(how.item, "a certificate that is shown has to be good");
                    "optional"
                }
            };
            if word != "none" {
                self.site.account.differs(how.item, "asked for at the listener, for all its names alike");
                keys.push(format!("client-ca = {}, client-certificate = \"{word}\"", words::text(ca.arg(0))));
            }
        }
        format!("{{ {} }}", keys.join(", "))
    }

    fn sections(&mut self, servers: &[Server<'a>], group: &Group, default: usize, context: &Context) -> Vec<Section> {
        let mut claimed: HashSet<String> = HashSet::new();
        let mut sections = Vec::new();
        let mut star = None;
        // Names that no section can have: `mail.*`, the longest first, then regexes in their order.
        let (mut trailing, mut regexes) = (Vec::new(), Vec::new());
        for index in &group.servers {
            let server = &servers[*index];
            let mut hosts: Vec<String> = Vec::new();
            for (name, item) in &server.names {
                let name = name.to_ascii_lowercase();
                let plain = match name.strip_prefix('.') {
                    Some(domain) => vec![domain.to_owned(), format!("*.{domain}")],
                    None => vec![name.clone()],
                };
                if let Some(pattern) = name.strip_prefix('~') {
                    // Hosts are in lower case, as nginx has them when it asks.
                    regexes.push((*index, Test::new("host", words::regex(&format!("(?i){pattern}"))), *item));
                } else if name.ends_with(".*") && name.len() > 2 {
                    trailing.push((name.len(), (*index, Test::new("host", words::word(&name)), *item)));
                } else if matches!(name.as_str(), "_" | "" | "-" | "--") || name.contains('$') {
                    // Names that no host has; a server that is not the default is then asked for by none.
                    if name.is_empty() && *index != default {
                        self.site.account.none(*item, "requests without a host go to the section `*`");
                    }
                } else {
                    for host in plain {
                        if !words::is_host(&host) || host == "*" {
                            self.site.account.none(*item, format!("{host} is no host of a section"));
                        } else if claimed.insert(host.clone()) {
                            hosts.push(host);
                        } else {
                            self.site
                                .account
                                .none(*item, format!("{host} has a server at this address already, which takes it"));
                        }
                    }
                }
            }
            let first = hosts.iter().find(|host| !host.starts_with('*')).cloned();
            let context = Context { server_name: first, ..context.clone() };
            let is_default = *index == default;
            let rules = if hosts.is_empty() && !is_default { Vec::new() } else { self.rules_of(server, &[], &context) };
            let mut heads = heads(&hosts);
            if is_default {
                star = Some(context);
                if trailing.is_empty() && regexes.is_empty() && group.servers.len() == 1 && heads.len() < 2 {
                    star = None;
                    match heads.first_mut() {
                        Some(head) => head.push("*".to_owned()),
                        None => heads.push(vec!["*".to_owned()]),
                    }
                }
            }
            sections.extend(heads.iter().map(|head| section(head, rules.clone())));
        }
        if let Some(context) = star {
            trailing.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
            let mut rules: Vec<Rule> = Vec::new();
            for (index, test, _) in trailing.into_iter().map(|(_, one)| one).chain(regexes) {
                let own = self.rules_of(
                    &servers[index],
                    std::slice::from_ref(&test),
                    &Context { server_name: None, ..context.clone() },
                );
                let closed = own.last().is_some_and(|rule| rule.tests == [test.clone()]);
                rules.extend(own);
                if !closed {
                    rules.push(Rule {
                        name: "other".to_owned(),
                        tests: vec![test],
                        action: "answer 404".to_owned(),
                        ..Rule::default()
                    });
                }
            }
            rules.extend(self.rules_of(&servers[default], &[], &context));
            sections.push(section(&["*".to_owned()], rules));
        }
        sections
    }

    /// The rules of a server, each with these tests before its own.
    fn rules_of(&mut self, server: &Server<'a>, base: &[Test], context: &Context) -> Vec<Rule> {
        let mut rules = Vec::new();
        if !self.server(server, base, context, &mut rules) {
            let tests = base.to_vec();
            rules.push(Rule { name: "rest".to_owned(), tests, action: "answer 404".to_owned(), ..Rule::default() });
        }
        rules
    }
}

/// A section; its rules get names of their own.
fn section(hosts: &[String], mut rules: Vec<Rule>) -> Section {
    let mut names = Names::default();
    for rule in &mut rules {
        rule.name = names.fresh(&rule.name);
    }
    Section { head: format!("http {}", hosts.join(" ")), as_is: false, rules }
}

/// Hosts in as many heads as their length needs.
fn heads(hosts: &[String]) -> Vec<Vec<String>> {
    let mut heads: Vec<Vec<String>> = Vec::new();
    let mut length = HEAD;
    for host in hosts {
        length += host.len() + 1;
        if length > HEAD {
            heads.push(Vec::new());
            length = host.len();
        }
        if let Some(head) = heads.last_mut() {
            head.push(host.clone());
        }
    }
    heads
}

fn address(text: &str) -> Option<SocketAddr> {
    if let Ok(port) = text.parse::<u16>() {
        return (port > 0).then(|| SocketAddr::from(([0, 0, 0, 0], port)));
    }
    let text = text.strip_prefix('*').map_or_else(|| text.to_owned(), |rest| format!("0.0.0.0{rest}"));
    let text = text.replacen("localhost", "127.0.0.1", 1);
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some(address);
    }
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(&text);
    bare.parse().ok().map(|address| SocketAddr::new(address, 80))
}
