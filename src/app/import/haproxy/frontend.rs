//! Frontends: listeners, and which backend a request goes to.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;

use super::acl::{Acls, Context, Ways};
use super::request::Header;
use super::text::Line;
use super::{Proxy, Reader};
use crate::app::import::site::{Names, Rule, RuleFile, Section, Table, Test};
use crate::app::import::words;

/// What the binds of one listener share.
#[derive(Debug, Default, Clone, PartialEq, Eq, Hash)]
struct Bind {
    tls: bool,
    proxy: bool,
    /// More keys of `tls`.
    keys: Vec<String>,
}

impl<'a> Reader<'a> {
    pub fn frontend(&mut self, proxy: &Proxy<'a>) {
        let mut binds: Vec<(Bind, Vec<SocketAddr>, u32)> = Vec::new();
        for line in proxy.all("bind") {
            let Some((bind, addresses)) = self.bind(line) else { continue };
            match binds.iter_mut().find(|(other, ..)| *other == bind) {
                Some((_, known, _)) => known.extend(addresses),
                None => binds.push((bind, addresses, line.line)),
            }
        }
        for line in proxy.all("mode") {
            self.site.account.done(line.item);
        }
        if proxy.mode() != "http" && proxy.mode() != "tcp" {
            return self.site.account.none(proxy.section.item, "modes are http and tcp");
        }
        let mut written: HashMap<String, String> = HashMap::new();
        for (bind, mut addresses, line) in binds {
            words::covered(&mut addresses);
            let port = addresses.first().map(SocketAddr::port);
            let one = addresses.iter().all(|address| Some(address.port()) == port);
            let tcp = proxy.mode() == "tcp";
            let context = Context { tls: bind.tls, port: port.filter(|_| one), sealed: tcp };
            let suffix = if bind.tls && !tcp { "-tls" } else { "" };
            let name = self.listeners.fresh(&format!("{}{suffix}", proxy.section.name));
            let mut table = Table::new(format!("listen.{name}"), line);
            let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            table.set("address", words::texts(&texts));
            if bind.proxy {
                table.set("accept-proxy-protocol", "{ from = [\"0.0.0.0/0\", \"::/0\"] }");
            }
            if tcp {
                self.connections(proxy, &context, bind.tls, table, &name);
                continue;
            }
            table.set("protocol", "\"http\"");
            if bind.tls {
                let keys: Vec<String> =
                    std::iter::once("certificates = \"certs\"".to_owned()).chain(bind.keys).collect();
                table.set("tls", format!("{{ {} }}", keys.join(", ")));
            }
            let (rules, lists) = self.requests(proxy, &context);
            let text = format!("{rules:?}");
            let file = written.get(&text).cloned().unwrap_or_else(|| {
                let file = format!("rules/{name}.rules");
                let section = Section { head: "http *".to_owned(), as_is: true, rules };
                self.site.files.push(RuleFile { name: file.clone(), lists, sections: vec![section] });
                written.insert(text, file.clone());
                file
            });
            table.set("rules", words::texts(&[file]));
            self.site.tables.push(table);
        }
    }

    fn bind(&mut self, line: &Line) -> Option<(Bind, Vec<SocketAddr>)> {
        let account = &mut self.site.account;
        let mut addresses = Vec::new();
        for text in line.word(1).split(',') {
            match address(text) {
                Some(address) => addresses.push(address),
                None => account.none(line.item, format!("{text}: listeners take an address and one port")),
            }
        }
        let mut bind = Bind::default();
        let mut at = 2;
        let mut verify = None;
        while at < line.words.len() {
            let (word, value) = (line.word(at), line.word(at + 1));
            at += 2;
            match word {
                "ssl" | "accept-proxy" | "transparent" | "v4v6" | "defer-accept" | "tfo" | "strict-sni" | "v6only" => {
                    at -= 1;
                    match word {
                        "ssl" => bind.tls = true,
                        "accept-proxy" => bind.proxy = true,
                        "v6only" => account.differs_once(line.item, "[::] takes IPv4 too"),
                        "strict-sni" => account.differs(line.item, "strict-sni is left out: who asks for another name gets a certificate all the same"),
                        _ => {}
                    }
                }
                "crt" | "crt-list" => account.differs(
                    line.item,
                    format!("put the certificates and keys of {value} into the folder certs; the names in them say whom they are for"),
                ),
                "alpn" | "npn" | "process" | "thread" | "shards" | "name" | "id" | "backlog" | "interface" | "nice" => {}
                "ca-file" => bind.keys.push(format!("client-ca = {}", words::text(value))),
                "verify" => verify = Some(value.to_owned()),
                "ssl-min-ver" if value == "TLSv1.3" => bind.keys.push("minimum = \"1.3\"".to_owned()),
                "ssl-min-ver" => {}
                _ => {
                    at -= 1;
                    account.differs(line.item, format!("{word} is left out"));
                }
            }
        }
        if !bind.keys.iter().any(|key| key.starts_with("client-ca")) || verify.as_deref() == Some("none") {
            bind.keys.retain(|key| !key.starts_with("client-ca"));
        } else if let Some(verify) = verify.filter(|word| matches!(word.as_str(), "required" | "optional")) {
            bind.keys.push(format!("client-certificate = \"{verify}\""));
        }
        account.done(line.item);
        (!addresses.is_empty()).then_some((bind, addresses))
    }

    /// The rules of a frontend of HTTP, and the lists that they name.
    fn requests(&mut self, proxy: &Proxy<'a>, context: &Context) -> (Vec<Rule>, Vec<(String, String)>) {
        let acls = Acls::read(&proxy.section.lines);
        let mut rules = Vec::new();
        let mut headers = Vec::new();
        self.refusals(proxy, &acls, context, "drop", &mut rules);
        for line in proxy.all("monitor-uri") {
            self.site.account.done(line.item);
            rules.push(Rule {
                name: "monitor".into(),
                tests: vec![words::path_is(line.word(1))],
                action: "answer 200".into(),
                more: Vec::new(),
                line: line.line,
            });
        }
        self.asks(proxy, &acls, context, &vec![Vec::new()], &mut headers, &mut rules, true);
        let mut closed = rules.last().is_some_and(|rule: &Rule| rule.tests.is_empty());
        for line in proxy.all("use_backend") {
            if closed {
                break;
            }
            let name = line.word(1);
            let ways = acls.ways(line.words.get(2..).unwrap_or_default(), context, &mut self.site.account);
            match ways {
                Ok(ways) => {
                    self.site.account.done(line.item);
                    closed = ways.iter().any(Vec::is_empty);
                    self.lead_to(name, line, &ways, context, &headers, &mut rules);
                }
                Err(why) => self.site.account.none(line.item, why),
            }
        }
        let own = proxy.section.kind == "listen" && !proxy.all("server").is_empty();
        match proxy.last("default_backend") {
            Some(line) if !closed => {
                self.site.account.done(line.item);
                self.lead_to(line.word(1), line, &vec![Vec::new()], context, &headers, &mut rules);
            }
            _ if own && !closed => {
                if let Some(pool) = self.pool(proxy) {
                    used(
                        &format!("use {pool}"),
                        "rest",
                        &vec![Vec::new()],
                        &headers,
                        &[],
                        proxy.section.line,
                        &mut rules,
                    );
                }
            }
            _ => {}
        }
        if rules.last().is_none_or(|rule| !rule.tests.is_empty()) {
            rules.push(Rule { name: "none".into(), action: "answer 503".into(), ..Rule::default() });
        }
        let mut names = Names::default();
        rules.iter_mut().for_each(|rule| rule.name = names.fresh(&rule.name));
        let lists = self.lists(&rules);
        (rules, lists)
    }

    /// Lists that tests of the rules name, with their files.
    fn lists(&self, rules: &[Rule]) -> Vec<(String, String)> {
        let tests = rules.iter().flat_map(|rule| &rule.tests).filter(|test| test.word.ends_with(" in"));
        let named: BTreeSet<&String> = tests.flat_map(|test| &test.patterns).collect();
        named.into_iter().filter_map(|name| Some((name.clone(), self.lists.get(name)?.clone()))).collect()
    }

    fn lead_to(
        &mut self,
        name: &str,
        line: &'a Line,
        ways: &Ways,
        context: &Context,
        headers: &[Header],
        rules: &mut Vec<Rule>,
    ) {
        let size: usize = ways.iter().map(|way| 1 + way.len()).sum();
        if !self.site.spend(size) {
            return;
        }
        let backend = self.backends.get(name).cloned();
        let pool = backend.as_ref().and_then(|backend| self.pool(backend));
        let (Some(backend), Some(pool)) = (backend, pool) else {
            let why = if name.contains('%') {
                "a backend's name is fixed here"
            } else {
                "there is no such backend with servers"
            };
            self.site.account.none(line.item, format!("{why}: such requests get 503"));
            return used("answer 503", "gone", ways, &[], &[], line.line, rules);
        };
        let acls = self.acls_of(&backend);
        let mut headers = headers.to_vec();
        let rewrites = self.asks(&backend, &acls, context, ways, &mut headers, rules, false);
        used(&format!("use {pool}"), name, ways, &headers, &rewrites, line.line, rules);
    }

    /// A frontend or listen of TCP.
    fn connections(&mut self, proxy: &Proxy<'a>, context: &Context, tls: bool, mut table: Table, name: &str) {
        if tls {
            for line in proxy.all("bind") {
                self.site
                    .account
                    .none(line.item, "TLS that ends here carries HTTP: mode http, or it is passed on sealed");
            }
            return;
        }
        let acls = Acls::read(&proxy.section.lines);
        let mut rules = Vec::new();
        self.refusals(proxy, &acls, context, "deny", &mut rules);
        let mut pool = None;
        for line in proxy.all("use_backend") {
            let ways = acls.ways(line.words.get(2..).unwrap_or_default(), context, &mut self.site.account);
            match (ways, self.backends.get(line.word(1)).cloned().and_then(|backend| self.pool(&backend))) {
                (Ok(ways), Some(pool)) => {
                    self.site.account.done(line.item);
                    if self.site.spend(ways.len()) {
                        used(&format!("use {pool}"), line.word(1), &ways, &[], &[], line.line, &mut rules);
                    }
                }
                (Err(why), _) => self.site.account.none(line.item, why),
                (_, None) => self.site.account.none(line.item, "there is no such backend with servers"),
            }
        }
        if let Some(line) = proxy.last("default_backend") {
            pool = self.backends.get(line.word(1)).cloned().and_then(|backend| self.pool(&backend));
            self.site.account.done(line.item);
        } else if proxy.section.kind == "listen" {
            pool = self.pool(proxy);
        }
        let asks = |word: &str| rules.iter().flat_map(|rule| &rule.tests).any(|test| test.word == word);
        let hello = asks("sni") || asks("alpn") || asks("no-tls");
        table.set("protocol", if hello { "\"tls-passthrough\"" } else { "\"tcp\"" });
        if rules.is_empty() {
            match pool {
                Some(pool) => table.set("pool", words::text(&pool)),
                None => return self.site.account.none(proxy.section.item, "it leads to no server: it is left out"),
            }
        } else {
            if let Some(pool) = pool {
                rules.push(Rule {
                    name: "rest".into(),
                    action: format!("use {pool}"),
                    line: proxy.section.line,
                    ..Rule::default()
                });
            }
            let mut names = Names::default();
            rules.iter_mut().for_each(|rule| rule.name = names.fresh(&rule.name));
            let lists = self.lists(&rules);
            let file = format!("rules/{name}.rules");
            table.set("rules", words::texts(std::slice::from_ref(&file)));
            let section = Section { head: "tcp".to_owned(), as_is: false, rules };
            self.site.files.push(RuleFile { name: file, lists, sections: vec![section] });
        }
        self.site.tables.push(table);
    }
}

/// A rule for each way, with the headers that are set on it. A header with a condition makes two rules of one, so
/// that no more than two of these are taken.
pub fn used(
    action: &str,
    name: &str,
    ways: &Ways,
    headers: &[Header],
    rewrites: &[(Test, String)],
    line: u32,
    rules: &mut Vec<Rule>,
) {
    let always: Vec<&Header> = headers.iter().filter(|header| header.ways.iter().any(Vec::is_empty)).collect();
    let sometimes: Vec<&Header> = headers.iter().filter(|header| !header.ways.iter().any(Vec::is_empty)).collect();
    for way in ways {
        let mut variants: Vec<(Vec<Test>, Vec<String>)> = vec![(way.clone(), Vec::new())];
        for header in &sometimes {
            let mut split = Vec::new();
            for (tests, more) in variants {
                for condition in &header.ways {
                    let mut all = tests.clone();
                    all.extend(condition.iter().filter(|test| !tests.contains(test)).cloned());
                    if all.iter().any(|test| all.contains(&test.not())) {
                        continue;
                    }
                    split.push((all, [more.clone(), vec![header.text.clone()]].concat()));
                }
                split.push((tests, more));
            }
            variants = split;
        }
        for (tests, more) in variants {
            let mut lines: Vec<String> = Vec::new();
            for text in always.iter().map(|header| &header.text).chain(&more) {
                // The last word on a field counts.
                let field = |text: &str| text.split([' ', ':']).nth(2).unwrap_or("").to_owned();
                lines.retain(|old| field(old) != field(text));
                lines.push(text.clone());
            }
            for (test, rewrite) in rewrites {
                let tests: Vec<Test> = std::iter::once(test.clone()).chain(tests.iter().cloned()).collect();
                let more = [lines.clone(), vec![rewrite.clone()]].concat();
                rules.push(Rule { name: name.to_owned(), tests, action: action.to_owned(), more, line });
            }
            rules.push(Rule { name: name.to_owned(), tests, action: action.to_owned(), more: lines, line });
        }
    }
}

fn address(text: &str) -> Option<SocketAddr> {
    let text = ["ipv4@", "ipv6@"].iter().find_map(|family| text.strip_prefix(family)).unwrap_or(text);
    let (host, port) = text.rsplit_once(':')?;
    let port: u16 = port.parse().ok().filter(|port| *port > 0)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let ip = match host {
        "" | "*" => std::net::IpAddr::from([0, 0, 0, 0]),
        host => host.parse().ok()?,
    };
    Some(SocketAddr::new(ip, port))
}
