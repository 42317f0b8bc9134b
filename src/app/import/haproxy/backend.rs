//! Backends: pools with their servers, checks and times.

use super::text::Line;
use super::{Proxy, Reader};
use crate::app::import::site::Table;
use crate::app::import::words;

/// What the servers of a pool say of how they are asked and spoken to; the first one that says it counts.
#[derive(Debug, Default)]
struct Asked {
    check: Option<usize>,
    unchecked: bool,
    inter: Option<String>,
    rise: Option<u32>,
    fall: Option<u32>,
    port: Option<u16>,
    tls: bool,
    keys: Vec<String>,
    send_proxy: Option<&'static str>,
    protocol: Option<&'static str>,
    slow_start: Option<String>,
}

impl<'a> Reader<'a> {
    /// The pool of a backend, made where it is not yet.
    pub fn pool(&mut self, proxy: &Proxy<'a>) -> Option<String> {
        if let Some(name) = self.pools.get(proxy.section.name.as_str()) {
            return Some(name.clone()).filter(|name| !name.is_empty());
        }
        let name = self.names.fresh(&proxy.section.name);
        let mut table = Table::new(format!("pool.{name}"), proxy.section.line);
        self.balance(proxy, &mut table);
        let mut asked = Asked::default();
        let defaults: Vec<&Line> = proxy.last("default-server").into_iter().collect();
        let mut items = Vec::new();
        for line in &defaults {
            self.site.account.done(line.item);
        }
        for line in proxy.all("server") {
            let Some(address) = words::server(strip(line.word(2)), 80) else {
                self.site.account.none(line.item, "servers have addresses and ports here");
                continue;
            };
            self.site.account.done(line.item);
            let mut keys = vec![format!("address = {}", words::text(&address))];
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            if line.word(1).bytes().all(plain) && !line.word(1).is_empty() {
                keys.insert(0, format!("name = {}", words::text(line.word(1))));
            }
            for default in &defaults {
                self.options(default, 1, &mut keys, &mut asked);
            }
            asked.unchecked |= !self.options(line, 3, &mut keys, &mut asked);
            items.push(format!("{{ {} }}", keys.join(", ")));
        }
        for line in proxy.all("server-template") {
            self.site.account.none(line.item, "servers are named one by one, and a name stands for one address");
        }
        if items.is_empty() {
            self.pools.insert(&proxy.section.name, String::new());
            self.site.account.none(proxy.section.item, "a pool has servers: it is left out");
            return None;
        }
        self.health(proxy, &asked, &mut table);
        self.affinity(proxy, &mut table);
        self.times(proxy, &mut table);
        if asked.tls {
            table.set("tls", format!("{{ {} }}", asked.keys.join(", ")));
        }
        if let Some(version) = asked.send_proxy {
            table.set("send-proxy-protocol", words::text(version));
        } else if let Some(protocol) = asked.protocol {
            table.set("protocol", words::text(if asked.tls { protocol } else { "h2c" }));
        }
        if let Some(time) = asked.slow_start {
            table.set("slow-start", words::text(&time));
        }
        table.list("servers", items);
        self.site.tables.push(table);
        self.pools.insert(&proxy.section.name, name.clone());
        Some(name)
    }

    /// Reads what stands behind a server's address. Whether it is checked.
    fn options(&mut self, line: &Line, from: usize, keys: &mut Vec<String>, asked: &mut Asked) -> bool {
        let account = &mut self.site.account;
        let mut checked = asked.check.is_some() && from == 1;
        let mut at = from;
        let set = |keys: &mut Vec<String>, key: &str, value: &str| {
            keys.retain(|old| !old.starts_with(&format!("{key} =")));
            keys.push(format!("{key} = {value}"));
        };
        let mut own_verify = None;
        while at < line.words.len() {
            let (word, value) = (line.word(at), line.word(at + 1));
            let mut takes = 2;
            match word {
                "check" => {
                    (checked, takes) = (true, 1);
                    asked.check.get_or_insert(line.item);
                }
                "no-check" | "disabled" | "backup" | "enabled" | "allow-0rtt" | "no-backup" => {
                    takes = 1;
                    match word {
                        "backup" => set(keys, "backup", "true"),
                        "disabled" => set(keys, "weight", "0"),
                        _ => {}
                    }
                }
                "weight" if value.parse::<u16>().is_ok() => {
                    if !keys.iter().any(|key| key == "weight = 0") {
                        set(keys, "weight", value);
                    }
                }
                "maxconn" => match value.parse::<u32>() {
                    Ok(count) if count > 0 => {
                        set(keys, "max-connections", value);
                        account.differs_once(
                            line.item,
                            "where all servers are full the answer is 503; HAProxy lets requests wait",
                        );
                    }
                    _ => {}
                },
                "inter" => asked.inter = asked.inter.take().or(words::duration(value, 1)),
                "rise" => asked.rise = asked.rise.or(value.parse().ok()),
                "fall" => asked.fall = asked.fall.or(value.parse().ok()),
                "port" => asked.port = asked.port.or(value.parse().ok()),
                "slowstart" => asked.slow_start = asked.slow_start.take().or(words::duration(value, 1)),
                "ssl" => (asked.tls, takes) = (true, 1),
                "verify" => own_verify = Some(value == "required"),
                "ca-file" if value != "@system-ca" => push(&mut asked.keys, format!("ca = {}", words::text(value))),
                "ca-file" => {}
                "crt" => push(&mut asked.keys, format!("certificate = {0}, key = {0}", words::text(value))),
                "sni" | "verifyhost" => {
                    let name = value.strip_prefix("str(").and_then(|rest| rest.strip_suffix(')')).unwrap_or(value);
                    if words::is_host(name) && !asked.keys.iter().any(|key| key.starts_with("server-name")) {
                        push(&mut asked.keys, format!("server-name = {}", words::text(name)));
                    } else if !words::is_host(name) {
                        account.differs(
                            line.item,
                            format!("{word} {value} is left out: servers are asked for the host of their address"),
                        );
                    }
                }
                "send-proxy" => (asked.send_proxy, takes) = (Some("v1"), 1),
                "send-proxy-v2" | "send-proxy-v2-ssl" | "send-proxy-v2-ssl-cn" => {
                    (asked.send_proxy, takes) = (Some("v2"), 1)
                }
                "proto" if value == "h2" => asked.protocol = Some("h2"),
                "alpn" if value.split(',').any(|word| word == "h2") => asked.protocol = Some("auto"),
                "alpn" | "proto" => {}
                "cookie" => account
                    .differs_once(line.item, "the value of the cookie is Reeve's own, not the server's name here"),
                "id" | "resolvers" | "init-addr" | "resolve-prefer" | "fastinter" | "downinter" | "on-marked-down"
                | "observe" | "error-limit" | "on-error" | "track" | "agent-port" | "agent-inter" | "minconn"
                | "maxqueue" | "source" | "pool-max-conn" | "ssl-min-ver" | "ssl-max-ver" | "ciphers" | "check-sni"
                | "addr" | "on-marked-up" | "agent-addr" | "check-alpn" | "check-proto" | "redir" | "namespace"
                | "log-bufsize" | "tfo" | "usesrc" => {
                    account.differs(line.item, format!("{word} {value} is left out"));
                }
                _ => {
                    takes = 1;
                    account.differs(line.item, format!("{word} is left out"));
                }
            }
            at += takes;
        }
        match own_verify {
            Some(false) => push(&mut asked.keys, "verify = false".to_owned()),
            Some(true) => {}
            None => {}
        }
        checked
    }

    fn balance(&mut self, proxy: &Proxy<'a>, table: &mut Table) {
        let Some(line) = proxy.last("balance") else {
            return table.set("scheduler", "\"wrr\"");
        };
        let account = &mut self.site.account;
        account.done(line.item);
        let (word, argument) = match line.word(1).split_once('(') {
            Some((word, rest)) => (word, rest.trim_end_matches(')')),
            None => (line.word(1), line.word(2)),
        };
        let hash = |key: &str| format!("{{ hash = {} }}", words::text(key));
        let scheduler = match word {
            "roundrobin" | "static-rr" => "\"wrr\"".to_owned(),
            "leastconn" => "\"wlc\"".to_owned(),
            "first" => "\"first\"".to_owned(),
            "source" => hash("source"),
            "uri" if line.words.iter().any(|word| word == "whole") => hash("url"),
            "uri" => {
                if line.words.len() > 2 {
                    account.differs(line.item, "the whole path is hashed");
                }
                hash("path")
            }
            "url_param" => hash(&format!("query:{argument}")),
            "hdr" => hash(&format!("header:{}", argument.to_ascii_lowercase())),
            "random" if argument == "1" => "\"random\"".to_owned(),
            "random" => "\"p2c\"".to_owned(),
            "hash" if argument == "src" => hash("source"),
            _ => {
                account.none(line.item, "Reeve has no such scheduler; the pool has its usual one, wlc");
                return;
            }
        };
        table.set("scheduler", scheduler);
    }

    fn health(&mut self, proxy: &Proxy<'a>, asked: &Asked, table: &mut Table) {
        let account = &mut self.site.account;
        let http = proxy.last("option httpchk");
        let smtp = proxy.last("option smtpchk");
        let tcp = proxy.last("option tcp-check");
        let lines = [proxy.own.get("http-check"), proxy.own.get("tcp-check")];
        let lines: Vec<&Line> = lines.into_iter().flatten().flatten().copied().collect();
        let Some(item) = asked.check else {
            for line in http.into_iter().chain(smtp).chain(tcp).chain(lines) {
                account.none(line.item, "no server asks to be checked");
            }
            return;
        };
        if asked.unchecked {
            account.differs(item, "all servers of the pool are checked");
        }
        let mut keys: Vec<String> = Vec::new();
        if let Some(line) = http {
            account.done(line.item);
            let mut words_of: Vec<&str> = line.words.iter().skip(2).map(String::as_str).collect();
            let mut method = "OPTIONS";
            if words_of.first().is_some_and(|word| !word.starts_with('/')) {
                method = words_of.remove(0);
            }
            let mut path = words_of.first().copied().unwrap_or("/").to_owned();
            // `HTTP/1.1\r\nHost: name`
            let tail = words_of.get(1..).unwrap_or_default().join(" ");
            let mut host = tail
                .to_ascii_lowercase()
                .find("host:")
                .and_then(|at| tail.get(at + 5..))
                .map(|rest| rest.trim().to_owned());
            let mut expect = "200-399".to_owned();
            for line in lines.iter().filter(|line| line.word(0) == "http-check") {
                account.done(line.item);
                let after =
                    |word: &str| line.words.iter().position(|one| one == word).and_then(|at| line.words.get(at + 1));
                match line.word(1) {
                    "send" => {
                        method = after("meth").map_or(method, String::as_str);
                        path = after("uri").cloned().unwrap_or(path);
                        let named =
                            line.words.windows(3).find(|all| all[0] == "hdr" && all[1].eq_ignore_ascii_case("host"));
                        host = named.map(|all| all[2].clone()).or(host);
                    }
                    "expect" if line.word(2) == "status" => expect = line.word(3).to_owned(),
                    "expect" => account.none(line.item, "a check asks for the status alone"),
                    _ => account.none(line.item, "a check is one request"),
                }
            }
            keys.push(format!("http = {}", words::text(&path)));
            if method != "GET" {
                keys.push(format!("method = {}", words::text(method)));
            }
            if let Some(host) = host.filter(|host| words::is_host(host)) {
                keys.push(format!("host = {}", words::text(&host)));
            }
            keys.push(format!("expect-status = {}", words::text(&expect)));
        } else if let Some(line) = smtp {
            account.done(line.item);
            let name = if line.word(3).is_empty() { "localhost" } else { line.word(3) };
            keys.push(format!("smtp = {}", words::text(name)));
        } else {
            keys.push("tcp = true".to_owned());
            for line in tcp.into_iter().chain(lines) {
                account.none(line.item, "a check by TCP connects and says nothing");
            }
            for kind in ["ssl-hello-chk", "mysql-check", "pgsql-check", "redis-check", "ldap-check"] {
                if let Some(line) = proxy.last(&format!("option {kind}")) {
                    account.differs(line.item, "a check by TCP connects and says nothing");
                }
            }
        }
        let inter = asked.inter.clone().unwrap_or_else(|| "2s".to_owned());
        keys.push(format!("interval = {0}, timeout = {0}", words::text(&inter)));
        if let Some(line) = proxy.last("timeout check")
            && let Some(time) = words::duration(line.word(2), 1)
        {
            account.done(line.item);
            if let Some(last) = keys.last_mut() {
                *last = format!("interval = {}, timeout = {}", words::text(&inter), words::text(&time));
            }
        }
        keys.push(format!("rise = {}, fall = {}", asked.rise.unwrap_or(2), asked.fall.unwrap_or(3)));
        keys.extend(asked.port.map(|port| format!("port = {port}")));
        table.set("check", format!("{{ {} }}", keys.join(", ")));
    }

    fn affinity(&mut self, proxy: &Proxy<'a>, table: &mut Table) {
        let account = &mut self.site.account;
        if let Some(line) = proxy.last("cookie") {
            let mode =
                ["insert", "rewrite", "prefix"].into_iter().find(|mode| line.words.iter().any(|word| word == mode));
            match mode {
                Some(mode) => {
                    account.done(line.item);
                    let known =
                        ["insert", "rewrite", "prefix", "indirect", "nocache", "httponly", "secure", "preserve"];
                    if line.words.iter().skip(2).any(|word| !known.contains(&word.as_str())) {
                        account.differs(line.item, "the cookie's attributes are Reeve's own");
                    }
                    table.set("affinity", format!("{{ cookie = {}, mode = \"{mode}\" }}", words::text(line.word(1))));
                }
                None => account.none(line.item, "a cookie that servers set themselves is not looked at"),
            }
        }
        let on = proxy.all("stick").into_iter().find(|line| line.is("stick on src") && line.words.len() == 3);
        let held = proxy.all("stick-table").into_iter().find(|line| line.is("stick-table type ip"));
        if let (Some(on), Some(held)) = (on, held) {
            account.done(on.item);
            account.done(held.item);
            let expire = held
                .words
                .iter()
                .position(|word| word == "expire")
                .and_then(|at| words::duration(held.word(at + 1), 1));
            let time = expire.map_or_else(String::new, |time| format!(", timeout = {}", words::text(&time)));
            if !table.keys.iter().any(|key| key.name == "affinity") {
                table.set("affinity", format!("{{ source = \"32\"{time} }}"));
            }
        }
    }

    fn times(&mut self, proxy: &Proxy<'a>, table: &mut Table) {
        let tcp = proxy.mode() != "http";
        let server: &[&str] = if tcp { &["tcp-idle"] } else { &["response", "response-body"] };
        let kinds: [(&str, &[&str]); 5] = [
            ("timeout connect", &["connect"]),
            ("timeout server", server),
            ("timeout queue", &["queue"]),
            ("timeout tunnel", if tcp { &["tcp-idle"] } else { &["tunnel"] }),
            ("timeout server-fin", &["half-closed"]),
        ];
        let mut times: Vec<(&str, String)> = Vec::new();
        for (name, keys) in kinds {
            let Some(line) = proxy.last(name) else { continue };
            match words::duration(line.word(2), 1) {
                Some(time) => {
                    self.site.account.done(line.item);
                    for key in keys {
                        times.retain(|(old, _)| old != key);
                        times.push((key, time.clone()));
                    }
                }
                None => self.site.account.none(line.item, "a time has to be more than nothing, and at most a year"),
            }
        }
        // As long as neither side speaks is the same for both.
        if tcp && let Some(line) = proxy.last("timeout client") {
            self.site
                .account
                .differs_once(line.item, "tcp-idle is the silence of both sides together: that of the server is taken");
        }
        if !times.is_empty() {
            let times: Vec<String> = times.iter().map(|(key, time)| format!("{key} = {}", words::text(time))).collect();
            table.set("timeouts", format!("{{ {} }}", times.join(", ")));
        }
        if let Some(line) = proxy.last("retries")
            && line.word(1).parse::<u8>().is_ok_and(|count| count <= 10)
        {
            self.site
                .account
                .differs_once(line.item, "a connection that failed is tried at another server, and at once");
            table.set("retry", format!("{{ attempts = {} }}", line.word(1)));
        }
    }
}

fn push(keys: &mut Vec<String>, key: String) {
    let name = key.split(' ').next().unwrap_or("").to_owned();
    if !keys.iter().any(|old| old.split(' ').next() == Some(&name)) {
        keys.push(key);
    }
}

/// `ipv4@10.0.0.1:80` without its family.
fn strip(address: &str) -> &str {
    ["ipv4@", "ipv6@"].iter().find_map(|family| address.strip_prefix(family)).unwrap_or(address)
}
