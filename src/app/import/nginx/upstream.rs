//! Upstreams, and what is said of talking to them: pools.

use super::tree::Directive;
use super::{Levels, Reader};
use crate::app::import::site::Table;
use crate::app::import::words;

/// Where `proxy_pass` and its like go.
#[derive(Debug)]
pub struct Passed {
    pub pool: String,
    /// What stands behind the host, where anything does.
    pub uri: Option<String>,
    /// Timeouts that this place has and its pool has not.
    pub more: Vec<String>,
}

impl<'a> Reader<'a> {
    /// The pool of `http://name/uri`; `Err`: why there is none.
    pub fn pool_of(&mut self, directive: &Directive, url: &str, levels: &Levels<'a>) -> Result<Passed, String> {
        let grpc = directive.name == "grpc_pass";
        let (scheme, rest) = url.split_once("://").unwrap_or((if grpc { "grpc" } else { "" }, url));
        let tls = matches!(scheme, "https" | "grpcs");
        if !matches!(scheme, "http" | "https" | "grpc" | "grpcs" | "") {
            return Err(format!("{scheme}:// is not spoken"));
        }
        let (authority, uri) = match rest.find('/').filter(|_| !rest.starts_with("unix:")) {
            Some(at) => (rest.get(..at).unwrap_or(""), rest.get(at..).map(str::to_owned)),
            None => (rest, None),
        };
        if authority.starts_with("unix:") {
            return Err("servers have addresses and ports here, not sockets of files".to_owned());
        }
        if authority.contains('$') || uri.as_ref().is_some_and(|uri| uri.contains('$')) {
            return Err("a pool's name is fixed here: variables choose none".to_owned());
        }
        let stream = self.stream;
        let key = format!("{stream} {scheme} {authority}");
        let timeouts = self.timeouts(levels);
        if let Some((pool, own)) = self.passed.get(&key).cloned() {
            let new = timeouts.iter().filter(|timeout| !own.contains(timeout));
            let ours = new.filter(|(key, _)| key == "response" || key == "connect");
            let more = ours.map(|(key, value)| format!("timeout {key} {value}"));
            return Ok(Passed { pool, uri, more: more.collect() });
        }
        let upstream = self.upstreams.get(&(stream, authority)).copied();
        let name = self.names.fresh(&if tls { format!("{authority}-tls") } else { authority.to_owned() });
        let mut table = Table::new(format!("pool.{name}"), upstream.map_or(directive.line, |up| up.line));
        match upstream {
            Some(upstream) => self.upstream(upstream, if tls { 443 } else { 80 }, &mut table)?,
            None => {
                let address = words::server(authority, if tls { 443 } else { 80 });
                let address = address.ok_or_else(|| format!("{authority} is no upstream and no server"))?;
                table.list("servers", vec![format!("{{ address = {} }}", words::text(&address))]);
            }
        }
        if !timeouts.is_empty() {
            let times: Vec<String> =
                timeouts.iter().map(|(key, value)| format!("{key} = {}", words::text(value))).collect();
            table.set("timeouts", format!("{{ {} }}", times.join(", ")));
        }
        if grpc || levels.last("proxy_http_version").is_some_and(|d| d.arg(0) == "2") {
            table.set("protocol", if tls { "\"h2\"" } else { "\"h2c\"" });
        }
        if tls {
            self.pool_tls(levels, if grpc { "grpc" } else { "proxy" }, &mut table);
        }
        if stream && let Some(on) = levels.last("proxy_protocol").filter(|d| d.arg(0) == "on") {
            self.site.account.done(on.item);
            table.set("send-proxy-protocol", "\"v1\"");
        }
        self.retry(levels, &mut table);
        self.site.tables.push(table);
        self.passed.insert(key, (name.clone(), timeouts));
        Ok(Passed { pool: name, uri, more: Vec::new() })
    }

    fn upstream(&mut self, upstream: &Directive, port: u16, table: &mut Table) -> Result<(), String> {
        let account = &mut self.site.account;
        account.done(upstream.item);
        let mut items = Vec::new();
        let mut scheduler = "\"wrr\"".to_owned();
        for directive in upstream.body() {
            let item = directive.item;
            match directive.name.as_str() {
                "server" => {
                    let Some(address) = words::server(directive.arg(0), port) else {
                        account.none(item, "servers have addresses and ports here");
                        continue;
                    };
                    account.done(item);
                    let mut keys = vec![format!("address = {}", words::text(&address))];
                    for option in directive.args.iter().skip(1) {
                        match option.split_once('=').unwrap_or((option, "")) {
                            ("weight", weight) if weight.parse::<u16>().is_ok() => keys.push(format!("weight = {weight}")),
                            ("max_conns", "0") => {}
                            ("max_conns", most) if most.parse::<u32>().is_ok() => {
                                keys.push(format!("max-connections = {most}"));
                            }
                            ("backup", _) => keys.push("backup = true".to_owned()),
                            ("down", _) => {
                                keys.retain(|key| !key.starts_with("weight"));
                                keys.push("weight = 0".to_owned());
                            }
                            ("resolve", _) => {}
                            ("max_fails" | "fail_timeout", _) => account.differs(
                                item,
                                "max_fails and fail_timeout: Reeve does not judge a server by its answers to clients; give the pool a check",
                            ),
                            ("slow_start", time) => match words::duration(time, 1000) {
                                Some(time) => table.set("slow-start", words::text(&time)),
                                None => account.differs(item, "slow_start is left out"),
                            },
                            (other, _) => account.differs(item, format!("{other} is left out")),
                        }
                    }
                    items.push(format!("{{ {} }}", keys.join(", ")));
                }
                "least_conn" => {
                    account.done(item);
                    scheduler = "\"wlc\"".to_owned();
                }
                "ip_hash" => {
                    account.differs(item, "the whole address is hashed; nginx takes the first three bytes of IPv4");
                    scheduler = "{ hash = \"source\" }".to_owned();
                }
                "hash" => match key(directive.arg(0)) {
                    Some(key) => {
                        account.done(item);
                        scheduler = format!("{{ hash = {} }}", words::text(&key));
                    }
                    None => {
                        account.none(item, "Reeve hashes by one of path, url, host, source, header, cookie or query")
                    }
                },
                "random" => {
                    account.done(item);
                    scheduler = if directive.args.is_empty() { "\"random\"" } else { "\"p2c\"" }.to_owned();
                }
                "keepalive" | "keepalive_timeout" | "keepalive_requests" | "keepalive_time" => account.none(
                    item,
                    "idle connections are kept by themselves: [limits] idle-per-server, timeouts server-keep-alive",
                ),
                "zone" => account.none(item, "not needed: all workers share a pool's state"),
                "sticky" if directive.arg(0) == "cookie" => {
                    account.differs(item, "affinity by a cookie of Reeve's own making");
                    table.set(
                        "affinity",
                        format!("{{ cookie = {}, mode = \"insert\" }}", words::text(directive.arg(1))),
                    );
                }
                "check" | "health_check" => {
                    account.none(item, "write a check: check = { http = \"/\", interval = \"2s\" }")
                }
                _ => account.none(item, "pools have nothing like it"),
            }
        }
        if items.is_empty() {
            return Err("the upstream has no server that could be taken over".to_owned());
        }
        table.set("scheduler", scheduler);
        table.list("servers", items);
        Ok(())
    }

    /// Keys of a pool's timeouts.
    fn timeouts(&mut self, levels: &Levels<'_>) -> Vec<(String, String)> {
        let mut times = Vec::new();
        let names: &[(&str, &[&str])] = if self.stream {
            &[("proxy_connect_timeout", &["connect"]), ("proxy_timeout", &["tcp-idle"])]
        } else {
            &[
                ("proxy_connect_timeout", &["connect"]),
                ("grpc_connect_timeout", &["connect"]),
                // Between two reads: before the answer, within it, and in a WebSocket.
                ("proxy_read_timeout", &["response", "response-body", "tunnel"]),
                ("grpc_read_timeout", &["response", "response-body"]),
            ]
        };
        for (name, keys) in names {
            let Some(directive) = levels.last(name) else { continue };
            match words::duration(directive.arg(0), 1000) {
                Some(time) => {
                    self.site.account.done(directive.item);
                    times.extend(keys.iter().map(|key| ((*key).to_owned(), time.clone())));
                }
                None => {
                    self.site.account.none(directive.item, "a time has to be more than nothing, and at most a year")
                }
            }
        }
        for name in ["proxy_send_timeout", "grpc_send_timeout"] {
            if let Some(directive) = levels.last(name) {
                self.site
                    .account
                    .none(directive.item, "what a server is slow to take is bounded by timeouts request-body");
            }
        }
        times
    }

    fn pool_tls(&mut self, levels: &Levels<'_>, prefix: &str, table: &mut Table) {
        let account = &mut self.site.account;
        let mut one = |name: &str| {
            let found = levels.last(&format!("{prefix}_ssl_{name}"))?;
            account.done(found.item);
            Some(found.arg(0).to_owned())
        };
        let mut keys = Vec::new();
        if one("verify").as_deref() == Some("on") {
            if let Some(ca) = one("trusted_certificate") {
                keys.push(format!("ca = {}", words::text(&ca)));
            }
        } else {
            keys.push("verify = false".to_owned());
        }
        if let Some(name) = one("name").filter(|name| !name.contains('$')) {
            keys.push(format!("server-name = {}", words::text(&name)));
        }
        one("server_name");
        if let (Some(own), Some(key)) = (one("certificate"), one("certificate_key")) {
            keys.push(format!("certificate = {}, key = {}", words::text(&own), words::text(&key)));
        }
        table.set("tls", format!("{{ {} }}", keys.join(", ")));
    }

    fn retry(&mut self, levels: &Levels<'_>, table: &mut Table) {
        let Some(next) = levels.last("proxy_next_upstream") else { return };
        let account = &mut self.site.account;
        if next.arg(0) == "off" {
            account.done(next.item);
            return table.set("retry", "{ attempts = 0 }");
        }
        let mut on = vec!["connect".to_owned()];
        for word in &next.args {
            match word.as_str() {
                "error" => {}
                "timeout" => on.push("timeout".to_owned()),
                "non_idempotent" => account.differs(next.item, "what may have been seen is not sent again"),
                other => match other.strip_prefix("http_") {
                    Some(code) => on.push(code.to_owned()),
                    None => account.differs(next.item, format!("{other} is left out")),
                },
            }
        }
        account.done(next.item);
        let tries = levels.last("proxy_next_upstream_tries").map(|tries| (tries.item, tries.arg(0).parse::<u32>()));
        let mut keys = String::new();
        if let Some((item, Ok(tries))) = tries
            && (1..=10).contains(&tries)
        {
            account.done(item);
            // nginx counts the first one.
            keys = format!("attempts = {}, ", tries - 1);
        }
        table.set("retry", format!("{{ {keys}on = {} }}", words::texts(&on)));
    }
}

fn key(text: &str) -> Option<String> {
    Some(match text {
        "$request_uri" => "url".to_owned(),
        "$uri" => "path".to_owned(),
        "$host" | "$http_host" => "host".to_owned(),
        "$remote_addr" | "$binary_remote_addr" => "source".to_owned(),
        _ => {
            let name = text.strip_prefix('$')?;
            if let Some(header) = name.strip_prefix("http_") {
                format!("header:{}", header.replace('_', "-"))
            } else if let Some(cookie) = name.strip_prefix("cookie_") {
                format!("cookie:{cookie}")
            } else {
                format!("query:{}", name.strip_prefix("arg_")?)
            }
        }
    })
}
