//! keepalived: virtual servers as services of the director with their pools, a VRRP instance as the failover.

use std::collections::HashSet;

use super::site::{Account, Names, Site, Table};
use super::words;
use crate::model::fault::{Fault, Place};

/// Blocks within blocks; a checker's `url` is the fourth.
const DEEPEST: usize = 16;

/// Settings that begin a statement where they stand behind another one.
const SHARED: [&str; 12] = [
    "path",
    "status_code",
    "digest",
    "virtualhost",
    "connect_timeout",
    "connect_port",
    "retry",
    "nb_get_retry",
    "delay_before_retry",
    "delay_loop",
    "helo_name",
    "weight",
];

#[derive(Debug)]
struct Line {
    words: Vec<String>,
    block: Option<Vec<Line>>,
    line: u32,
    item: usize,
}

impl Line {
    fn name(&self) -> &str {
        self.word(0)
    }

    fn word(&self, at: usize) -> &str {
        self.words.get(at).map_or("", String::as_str)
    }

    fn body(&self) -> &[Line] {
        self.block.as_deref().unwrap_or_default()
    }

    fn find(&self, name: &str) -> Option<&Line> {
        self.body().iter().rev().find(|line| line.name() == name)
    }
}

pub fn read(file: &str, text: &str, site: &mut Site) -> Result<(), Box<Fault>> {
    let lines = tree(file, text, &mut site.account)?;
    let mut names = Names::default();
    let (mut instances, mut addresses) = (0, HashSet::new());
    for line in &lines {
        match line.name() {
            "virtual_server" => virtual_server(line, &mut names, &mut addresses, site),
            "vrrp_instance" => {
                instances += 1;
                instance(line, instances == 1, site);
            }
            _ => {}
        }
    }
    let mut left: Vec<&Line> = lines.iter().collect();
    while let Some(line) = left.pop() {
        if site.account.items.get(line.item).is_some_and(|item| item.fate == super::site::Fate::Open) {
            site.account.none(line.item, reason(line));
        }
        left.extend(line.body());
    }
    Ok(())
}

fn reason(line: &Line) -> &'static str {
    match line.name() {
        "global_defs"
        | "router_id"
        | "notification_email"
        | "notification_email_from"
        | "smtp_server"
        | "smtp_connect_timeout"
        | "smtp_alert"
        | "enable_script_security"
        | "script_user" => "there is no such setting of the process here",
        "notify" | "notify_master" | "notify_backup" | "notify_fault" | "notify_up" | "notify_down" | "quorum_up"
        | "quorum_down" | "vrrp_script" | "track_script" | "script" | "MISC_CHECK" | "misc_path" => {
            "Reeve runs no scripts"
        }
        "track_interface" | "vrrp_sync_group" | "group" => {
            "all addresses move together, and nothing but the process is watched"
        }
        "authentication" | "auth_type" | "auth_pass" => "adverts are not signed by a password",
        "unicast_src_ip" | "static_ipaddress" | "static_routes" | "virtual_routes" | "virtual_rules" => {
            "addresses and routes of the machine are its own"
        }
        "virtual_server_group" => "a service has one address: name each by itself",
        "include" => "another file: import it too; nothing of it is here",
        "quorum" | "hysteresis" => "one server that is up is enough",
        "delay_before_retry" | "retry" => "fall of the check says how many failures take a server down",
        "ha_suspend" | "alpha" | "omega" | "inhibit_on_failure" | "sorry_server_inhibit" => {
            "a server that is down gets no new connection, and keeps those it has"
        }
        "uthreshold" | "lthreshold" => "max-connections of a server is the bound",
        _ => "no place here says this",
    }
}

fn tree(file: &str, text: &str, account: &mut Account) -> Result<Vec<Line>, Box<Fault>> {
    let mut open: Vec<Vec<Line>> = vec![Vec::new()];
    for (number, raw) in text.lines().enumerate() {
        let number = u32::try_from(number + 1).unwrap_or(u32::MAX);
        let fault = |message: &str| {
            let end = raw.chars().count().max(1) as u32 + 1;
            Box::new(Fault::error("R0160", Place { file: file.into(), line: number, column: 1, end }, message))
        };
        let mut words: Vec<String> = Vec::new();
        let finish = |words: &mut Vec<String>, open: &mut Vec<Vec<Line>>, account: &mut Account| {
            if words.is_empty() {
                return;
            }
            let item = account.enter(number, &words.join(" "));
            let line = Line { words: std::mem::take(words), block: None, line: number, item };
            if let Some(list) = open.last_mut() {
                list.push(line);
            }
        };
        for token in tokens(raw).ok_or_else(|| fault("a quote on this line does not end"))? {
            match token.as_str() {
                "{" => {
                    finish(&mut words, &mut open, account);
                    let block = open.last_mut().and_then(|list| list.last_mut()).filter(|line| line.block.is_none());
                    if block.is_none() {
                        return Err(fault("no keyword stands before this `{`"));
                    }
                    if open.len() > DEEPEST {
                        return Err(fault("blocks within blocks, deeper than 16"));
                    }
                    open.push(Vec::new());
                }
                "}" => {
                    finish(&mut words, &mut open, account);
                    let block = open.pop().filter(|_| !open.is_empty());
                    let Some(block) = block else { return Err(fault("a `}` that closes nothing")) };
                    if let Some(line) = open.last_mut().and_then(|list| list.last_mut()) {
                        line.block = Some(block);
                    }
                }
                // Settings of a checker may share a line.
                word if open.len() > 2 && words.len() > 1 && SHARED.contains(&word) => {
                    finish(&mut words, &mut open, account);
                    words.push(token);
                }
                _ => words.push(token),
            }
        }
        finish(&mut words, &mut open, account);
    }
    match open.pop().filter(|_| open.is_empty()) {
        Some(lines) => Ok(lines),
        None => {
            let place = Place { file: file.into(), line: text.lines().count().max(1) as u32, column: 1, end: 2 };
            Err(Box::new(Fault::error("R0160", place, "the text ends inside a block: a `}` is missing")))
        }
    }
}

/// Words, quoted strings and braces; `#` and `!` begin a comment.
fn tokens(line: &str) -> Option<Vec<String>> {
    let mut tokens = Vec::new();
    let mut rest = line.trim_start();
    while let Some(first) = rest.chars().next() {
        match first {
            '#' | '!' => break,
            '"' => {
                let (inner, after) = rest.get(1..)?.split_once('"')?;
                tokens.push(inner.to_owned());
                rest = after;
            }
            '{' | '}' => {
                tokens.push(first.to_string());
                rest = rest.get(1..)?;
            }
            _ => {
                let end = rest.find(|c: char| c.is_whitespace() || matches!(c, '{' | '}')).unwrap_or(rest.len());
                tokens.push(rest.get(..end)?.to_owned());
                rest = rest.get(end..)?;
            }
        }
        rest = rest.trim_start();
    }
    Some(tokens)
}

fn virtual_server(line: &Line, names: &mut Names, taken: &mut HashSet<String>, site: &mut Site) {
    let account = &mut site.account;
    let address = words::server(line.word(1), line.word(2).parse().unwrap_or(0))
        .filter(|address| !address.ends_with(":0") && address.parse::<std::net::SocketAddr>().is_ok());
    let Some(address) = address else {
        return account.none(line.item, "a service has an address and a port: firewall marks and groups are none");
    };
    account.done(line.item);
    let done = |name: &str, account: &mut Account| {
        line.body().iter().filter(|one| one.name() == name).for_each(|one| account.done(one.item));
        line.find(name)
    };
    // As keepalived has it where nothing is said.
    let protocol = done("protocol", account).map_or("udp".to_owned(), |one| one.word(1).to_ascii_lowercase());
    let name = names.fresh(&format!("{protocol}-{}", address.replace(':', "-")));
    if !taken.insert(format!("{protocol} {address}")) {
        return account.none(line.item, "this service was declared before");
    }
    let mut service = Table::new(format!("director.service.{name}"), line.line);
    service.set("address", words::text(&address));
    service.set("protocol", words::text(&protocol));
    let scheduler =
        done("lb_algo", account).or(done("lvs_sched", account)).map_or("wlc".to_owned(), |one| one.word(1).to_owned());
    service.set("scheduler", words::text(&scheduler));
    let kind = done("lb_kind", account).or(done("lvs_method", account));
    let method = kind.map_or("nat".to_owned(), |one| one.word(1).to_ascii_lowercase());
    service.set("method", words::text(&method));
    if line.find("ops").is_some() {
        done("ops", account);
        service.set("one-packet", "true");
    }
    if let Some(held) = done("persistence_timeout", account) {
        let time = if held.word(1).is_empty() { "360" } else { held.word(1) };
        match words::duration(time, 1000) {
            Some(time) => service.set("persistence", words::text(&time)),
            None => account.none(held.item, "a time has to be more than nothing, and at most a year"),
        }
    }
    service.set("pool", words::text(&name));
    let mut pool = Table::new(format!("pool.{name}"), line.line);
    let mut items = Vec::new();
    let mut checks: Option<(String, usize)> = None;
    let delay = done("delay_loop", account).map_or("60".to_owned(), |one| one.word(1).to_owned());
    for server in line.body().iter().filter(|one| one.name() == "real_server") {
        let port = server
            .word(2)
            .parse()
            .unwrap_or_else(|_| address.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or(0));
        let Some(real) = words::server(server.word(1), port).filter(|real| !real.ends_with(":0")) else {
            account.none(server.item, "a server has an address and a port");
            continue;
        };
        account.done(server.item);
        let mut keys = vec![format!("address = {}", words::text(&real))];
        for one in server.body() {
            match one.name() {
                "weight" if one.word(1).parse::<u16>().is_ok() => {
                    account.done(one.item);
                    keys.push(format!("weight = {}", one.word(1)));
                }
                "uthreshold" if one.word(1).parse::<u32>().is_ok_and(|most| most > 0) => {
                    account.done(one.item);
                    keys.push(format!("max-connections = {}", one.word(1)));
                }
                "TCP_CHECK" | "HTTP_GET" | "SSL_GET" | "SMTP_CHECK" | "DNS_CHECK" => {
                    let Some(check) = check(one, &delay, account) else { continue };
                    match &checks {
                        None => checks = Some((check, one.item)),
                        Some((known, _)) if *known == check => {}
                        Some(_) => account.none(one.item, "all servers of a pool are checked alike: as the first one"),
                    }
                }
                _ => {}
            }
        }
        items.push(format!("{{ {} }}", keys.join(", ")));
    }
    if let Some(sorry) = done("sorry_server", account) {
        let port = sorry
            .word(2)
            .parse()
            .unwrap_or_else(|_| address.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or(0));
        match words::server(sorry.word(1), port) {
            Some(real) => items.push(format!("{{ address = {}, backup = true }}", words::text(&real))),
            None => account.none(sorry.item, "a server has an address and a port"),
        }
    }
    if items.is_empty() {
        return account.none(line.item, "a service without servers is left out");
    }
    if let Some((check, _)) = checks {
        pool.set("check", check);
    }
    pool.list("servers", items);
    site.tables.push(service);
    site.tables.push(pool);
}

/// A checker in the words of a pool's `check`.
fn check(one: &Line, delay: &str, account: &mut Account) -> Option<String> {
    account.done(one.item);
    let mut keys: Vec<String> = Vec::new();
    let (mut retry, mut timeout) = (1u32, "5".to_owned());
    let mut delay = delay.to_owned();
    let mut urls = 0;
    for inner in one.body() {
        match inner.name() {
            "connect_timeout" => {
                account.done(inner.item);
                timeout = inner.word(1).to_owned();
            }
            "delay_loop" => {
                account.done(inner.item);
                delay = inner.word(1).to_owned();
            }
            "retry" | "nb_get_retry" => {
                account.done(inner.item);
                retry = inner.word(1).parse().ok().filter(|retry| *retry < 1000).unwrap_or(1);
            }
            "delay_before_retry" => account.differs(inner.item, "a failed probe is repeated after the interval"),
            "connect_port" if inner.word(1).parse::<u16>().is_ok() => {
                account.done(inner.item);
                keys.push(format!("port = {}", inner.word(1)));
            }
            "helo_name" => account.done(inner.item),
            "url" => {
                urls += 1;
                if urls > 1 {
                    account.none(inner.item, "a check is one request: a pool can have several checks");
                    continue;
                }
                account.done(inner.item);
                for part in inner.body() {
                    match part.name() {
                        "path" => {
                            account.done(part.item);
                            keys.push(format!("http = {}", words::text(part.word(1))));
                        }
                        "status_code" => {
                            account.done(part.item);
                            let codes: Vec<&str> = part.words.iter().skip(1).map(String::as_str).collect();
                            keys.push(format!("expect-status = {}", words::texts(&codes)));
                        }
                        "virtualhost" => {
                            account.done(part.item);
                            keys.push(format!("host = {}", words::text(part.word(1))));
                        }
                        "digest" => account.none(part.item, "a check asks for the status alone"),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    match one.name() {
        "SSL_GET" => {
            account.none(one.item, "TLS to servers is said of a pool: [pool.NAME.tls]; the check is left out");
            return None;
        }
        "HTTP_GET" => {
            if !keys.iter().any(|key| key.starts_with("http =")) {
                keys.push("http = \"/\"".to_owned());
            }
            if !keys.iter().any(|key| key.starts_with("expect-status")) {
                keys.push("expect-status = \"200-299\"".to_owned());
            }
        }
        "SMTP_CHECK" => {
            let name = one.find("helo_name").map_or("smtpchecker.keepalived.org", |helo| helo.word(1));
            keys.push(format!("smtp = {}", words::text(name)));
        }
        "DNS_CHECK" => {
            let name = one.find("name").map_or(".", |name| name.word(1));
            for part in one.body().iter().filter(|part| matches!(part.name(), "name" | "type")) {
                account.done(part.item);
            }
            keys.push(format!("dns = {}", words::text(name)));
        }
        _ => keys.push("tcp = true".to_owned()),
    }
    let interval = words::duration(&delay, 1000).unwrap_or_else(|| "60s".to_owned());
    let timeout = words::duration(&timeout, 1000).unwrap_or_else(|| "5s".to_owned());
    keys.push(format!("interval = {}", words::text(&interval)));
    // A probe is over when the next one begins.
    let longer = crate::config::duration(&timeout) > crate::config::duration(&interval);
    if longer {
        account.differs(one.item, "the timeout is the interval at most");
    }
    keys.push(format!("timeout = {}", words::text(if longer { &interval } else { &timeout })));
    keys.push(format!("rise = 1, fall = {}", retry + 1));
    Some(format!("{{ {} }}", keys.join(", ")))
}

fn instance(line: &Line, first: bool, site: &mut Site) {
    let account = &mut site.account;
    if !first {
        return account.none(line.item, "there is one group of addresses that moves: [failover]");
    }
    account.done(line.item);
    let mut table = Table::new("failover", line.line);
    let mut preempt = true;
    for one in line.body() {
        match one.name() {
            "virtual_ipaddress" => {
                account.done(one.item);
                let mut addresses = Vec::new();
                for inner in one.body() {
                    account.done(inner.item);
                    if inner.words.len() > 1 {
                        account.differs(inner.item, "what stands behind the address is left out");
                    }
                    addresses.push(inner.word(0).to_owned());
                }
                table.set("virtual-addresses", words::texts(&addresses));
            }
            "interface" => {
                account.done(one.item);
                table.set("interface", words::text(one.word(1)));
            }
            "virtual_router_id" => {
                account.done(one.item);
                table.set("router-id", words::number(one.word(1)));
            }
            "priority" => {
                account.done(one.item);
                table.set("priority", words::number(one.word(1)));
            }
            "advert_int" => match words::duration(&milliseconds(one.word(1)), 1) {
                Some(time) => {
                    account.done(one.item);
                    table.set("advertise", words::text(&time));
                }
                None => account.none(one.item, "a time has to be more than nothing"),
            },
            "nopreempt" => {
                account.done(one.item);
                preempt = false;
            }
            "unicast_peer" => {
                account.done(one.item);
                let peers: Vec<String> = one.body().iter().map(|peer| peer.word(0).to_owned()).collect();
                one.body().iter().for_each(|peer| account.done(peer.item));
                table.set("peers", words::texts(&peers));
            }
            "state" => account.differs(one.item, "who has the higher priority holds the addresses, whoever began"),
            _ => {}
        }
    }
    if !preempt {
        table.set("preempt", "false");
    }
    site.tables.push(table);
}

/// `0.5` seconds in milliseconds.
fn milliseconds(text: &str) -> String {
    text.parse::<f64>()
        .ok()
        .filter(|time| (0.001..100_000.0).contains(time))
        .map_or_else(String::new, |time| ((time * 1000.0) as u64).to_string())
}
