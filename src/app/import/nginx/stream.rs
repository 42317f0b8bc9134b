//! Servers of `stream`: TCP, and TLS that is passed on by its hello.

use super::tree::Directive;
use super::variable::{self, Context};
use super::{Levels, Reader};
use crate::app::import::site::{Names, Rule, RuleFile, Section, Table};
use crate::app::import::words;

impl<'a> Reader<'a> {
    pub fn streams(&mut self, body: &'a [Directive], levels: &Levels<'a>) {
        for server in body.iter().filter(|directive| directive.name == "server") {
            let own = levels.with(server.body());
            self.site.account.done(server.item);
            self.stream(server, &own);
        }
    }

    fn stream(&mut self, server: &'a Directive, levels: &Levels<'a>) {
        let mut addresses = Vec::new();
        let mut proxy = false;
        for listen in levels.all("listen") {
            let has = |word: &str| listen.args.iter().any(|arg| arg == word);
            let text = listen.arg(0);
            let whole = if text.bytes().all(|b| b.is_ascii_digit()) {
                format!("0.0.0.0:{text}")
            } else {
                text.replacen('*', "0.0.0.0", 1)
            };
            match whole.parse::<std::net::SocketAddr>() {
                _ if has("udp") => {
                    self.site.account.none(listen.item, "datagrams are for [director.service.NAME], in the kernel")
                }
                _ if has("ssl") => {
                    self.site.account.none(listen.item, "TLS that ends here carries HTTP: protocol \"http\" with tls")
                }
                Ok(address) if address.port() > 0 => {
                    self.site.account.done(listen.item);
                    proxy |= has("proxy_protocol");
                    addresses.push(address);
                }
                _ => self.site.account.none(listen.item, "listeners take an address and a port"),
            }
        }
        let (Some(pass), Some(first)) = (levels.last("proxy_pass"), addresses.first()) else { return };
        let hello = levels.last("ssl_preread").filter(|one| one.arg(0) == "on");
        let kind = if hello.is_some() { "sealed" } else { "tcp" };
        let name = self.listeners.fresh(&format!("{kind}-{}", first.port()));
        let mut table = Table::new(format!("listen.{name}"), server.line);
        let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        table.set("address", words::texts(&texts));
        table.set("protocol", if hello.is_some() { "\"tls-passthrough\"" } else { "\"tcp\"" });
        if proxy {
            table.set("accept-proxy-protocol", "{ from = [\"0.0.0.0/0\", \"::/0\"] }");
        }
        if let Some(hello) = hello {
            self.site.account.done(hello.item);
        }
        let map = pass.arg(0).strip_prefix('$').and_then(|name| self.maps.get(name).copied());
        let Some(map) = map else {
            match self.pool_of(pass, pass.arg(0), levels) {
                Ok(passed) => {
                    self.site.account.done(pass.item);
                    table.set("pool", words::text(&passed.pool));
                    self.site.tables.push(table);
                }
                Err(why) => self.site.account.none(pass.item, why),
            }
            return;
        };
        let entries = match variable::map(map, &Context::default()) {
            Ok(entries) => entries,
            Err(why) => return self.site.account.none(pass.item, why),
        };
        self.site.account.done(pass.item);
        self.site.account.done(map.item);
        map.body().iter().for_each(|entry| self.site.account.done(entry.item));
        let mut rules = Vec::new();
        let mut names = Names::default();
        for (test, value) in entries {
            if value.is_empty() || !self.site.spend(1) {
                continue;
            }
            let line = map.body().iter().find(|entry| entry.arg(0) == value).map_or(map.line, |entry| entry.line);
            match self.pool_of(pass, &value, levels) {
                Ok(passed) => rules.push(Rule {
                    name: names.fresh(if test.is_some() { &value } else { "rest" }),
                    tests: test.into_iter().collect(),
                    action: format!("use {}", passed.pool),
                    more: Vec::new(),
                    line,
                }),
                Err(why) => self.site.account.none(pass.item, format!("{value}: {why}")),
            }
        }
        let file = format!("rules/{name}.rules");
        table.set("rules", words::texts(std::slice::from_ref(&file)));
        self.site.tables.push(table);
        let section = Section { head: "tcp".to_owned(), as_is: false, rules };
        self.site.files.push(RuleFile { name: file, sections: vec![section], ..RuleFile::default() });
    }
}
