//! KTCPVS: `Virtual NAME { ... }` blocks, and the `tcpvsadm` commands that say the same.
//!
//! Servers and rules are put at the head of their lists as they are read, but for `.*` and `^/.*`, which go to the
//! tail: the rule that was written last is tried first, and so it is here.

use std::collections::{HashMap, HashSet};

use super::site::{Names, Rule, RuleFile, Section, Site, Table, Test};
use super::words;
use crate::model::fault::{Fault, Place};

/// Letters of a pattern; KTCPVS has room for 255.
const LONGEST: usize = 255;

#[derive(Debug, Default)]
struct Virtual {
    name: String,
    line: u32,
    listen: Option<(String, usize)>,
    scheduler: Option<(String, usize)>,
    redirect: Option<(String, usize)>,
    clients: Option<(u32, usize)>,
    /// In the order of the text.
    servers: Vec<Server>,
    rules: Vec<Pattern>,
    /// Addresses of the servers, and of those that a rule has.
    known: HashSet<String>,
    ruled: HashSet<String>,
    patterns: HashMap<String, usize>,
}

#[derive(Debug)]
struct Server {
    address: String,
    weight: u32,
}

#[derive(Debug)]
struct Pattern {
    text: String,
    group: u32,
    servers: Vec<String>,
    line: u32,
    item: usize,
}

#[derive(Debug, Clone, Copy)]
struct Token<'t> {
    text: &'t str,
    line: u32,
    column: u32,
}

pub fn read(file: &str, text: &str, site: &mut Site) -> Result<(), Box<Fault>> {
    let tokens = tokens(text);
    let mut virtuals = Vec::new();
    match tokens.first() {
        Some(token) if token.text.eq_ignore_ascii_case("virtual") => blocks(file, &tokens, site, &mut virtuals)?,
        Some(token) if token.text.ends_with("tcpvsadm") => commands(&tokens, site, &mut virtuals),
        Some(token) => {
            return Err(fault(
                file,
                token,
                "this is no KTCPVS configuration: it begins with `Virtual NAME {` or `tcpvsadm`",
            ));
        }
        None => {}
    }
    let only = virtuals.len() == 1;
    let mut names = Names::default();
    for mut one in virtuals {
        // What was put at the head of its list last is the first.
        one.servers.reverse();
        one.rules.iter_mut().for_each(|rule| rule.servers.reverse());
        let (tail, mut rules): (Vec<Pattern>, Vec<Pattern>) =
            one.rules.into_iter().partition(|rule| matches!(rule.text.as_str(), ".*" | "^/.*"));
        rules.reverse();
        rules.extend(tail);
        one.rules = rules;
        service(one, only, &mut names, site);
    }
    Ok(())
}

fn fault(file: &str, token: &Token<'_>, message: &str) -> Box<Fault> {
    let end = token.column + token.text.chars().count().max(1) as u32;
    Box::new(Fault::error("R0160", Place { file: file.into(), line: token.line, column: token.column, end }, message))
}

/// Words between blanks; `"` runs to the next one that no backslash stands before, on its line.
fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let (mut at, line_number) = (0, u32::try_from(number + 1).unwrap_or(u32::MAX));
        let mut column = 1u32;
        while let Some(rest) = line.get(at..).filter(|rest| !rest.is_empty()) {
            let blanks = rest.len() - rest.trim_start().len();
            if blanks > 0 {
                column += rest[..blanks].chars().count() as u32;
                at += blanks;
                continue;
            }
            if rest.starts_with('#') {
                break;
            }
            let length = match rest.strip_prefix('"') {
                Some(inner) => {
                    let bytes = inner.as_bytes();
                    let end = (0..bytes.len()).find(|at| bytes[*at] == b'"' && (*at == 0 || bytes[*at - 1] != b'\\'));
                    end.map_or(rest.len(), |end| end + 2)
                }
                None => rest.find(char::is_whitespace).unwrap_or(rest.len()),
            };
            tokens.push(Token { text: &rest[..length], line: line_number, column });
            column += rest[..length].chars().count() as u32;
            at += length;
        }
    }
    tokens
}

fn blocks(file: &str, tokens: &[Token<'_>], site: &mut Site, virtuals: &mut Vec<Virtual>) -> Result<(), Box<Fault>> {
    let mut rest = tokens;
    while let Some((first, more)) = rest.split_first() {
        let [name, open, body @ ..] = more else { return Err(fault(file, first, "a name and `{` stand behind this")) };
        if !first.text.eq_ignore_ascii_case("virtual") {
            return Err(fault(file, first, "`Virtual NAME {` is expected here"));
        }
        if open.text != "{" {
            return Err(fault(file, open, "`{` is expected here, with blanks round it"));
        }
        let item = site.account.enter(first.line, &format!("Virtual {}", name.text));
        site.account.done(item);
        let mut one = Virtual { name: name.text.to_owned(), line: first.line, ..Virtual::default() };
        rest = body;
        loop {
            let Some((key, after)) = rest.split_first() else {
                return Err(fault(file, open, "this block does not end"));
            };
            if key.text == "}" {
                rest = after;
                break;
            }
            let [equal, value, after @ ..] = after else { return Err(fault(file, key, "this lacks `=` and a value")) };
            if equal.text != "=" {
                return Err(fault(file, equal, "`=` is expected here, with blanks round it"));
            }
            rest = statement(&mut one, key, value, after, site);
        }
        virtuals.push(one);
    }
    Ok(())
}

/// Reads `key = value ...` and answers what stands behind it.
fn statement<'t, 'a>(
    one: &mut Virtual,
    key: &Token<'_>,
    value: &Token<'_>,
    after: &'t [Token<'a>],
    site: &mut Site,
) -> &'t [Token<'a>] {
    let word = key.text.to_ascii_lowercase();
    let mut behind = after;
    let pattern = after.first().filter(|_| word == "rule").map_or("", |token| token.text);
    let item = site.account.enter(key.line, &format!("{} = {} {pattern}", key.text, value.text));
    let account = &mut site.account;
    match word.as_str() {
        "listen" => one.listen = Some((value.text.to_owned(), item)),
        "scheduler" => one.scheduler = Some((value.text.to_ascii_lowercase(), item)),
        "redirect" => one.redirect = Some((value.text.to_owned(), item)),
        "startservers" | "minspareservers" | "maxspareservers" => {
            account.none(item, "there are no children to keep ready: a worker a core serves all connections");
        }
        "maxclients" => one.clients = value.text.parse().ok().map(|count| (count, item)),
        "server" => {
            let weight = after.first().and_then(|token| token.text.parse().ok());
            behind = if weight.is_some() { &after[1..] } else { after };
            add_server(one, value.text, weight.unwrap_or(1), item, site);
        }
        "rule" => {
            // pattern "ERE" [ match N ] use server ADDR:PORT
            let (mut text, mut group, mut server) = (None, 0, None);
            let mut left = after;
            if value.text.eq_ignore_ascii_case("pattern") {
                text = left.first().map(|token| token.text);
                left = left.get(1..).unwrap_or_default();
            }
            if let [word, number, more @ ..] = left
                && word.text.eq_ignore_ascii_case("match")
            {
                // Out of its range it counts as 0.
                group = number.text.parse().ok().filter(|group| *group <= 10).unwrap_or(0);
                left = more;
            }
            if let [word, what, address, more @ ..] = left
                && word.text.eq_ignore_ascii_case("use")
                && what.text.eq_ignore_ascii_case("server")
            {
                server = Some(address.text);
                left = more;
            }
            behind = left;
            match (text, server) {
                (Some(text), Some(server)) => add_rule(one, unquoted(text), group, server, (key.line, item), site),
                _ => account.none(item, "cannot be read: pattern \"ERE\" [match N] use server ADDRESS:PORT"),
            }
        }
        _ => {}
    }
    behind
}

fn unquoted(text: &str) -> &str {
    let inner = text.strip_prefix('"').unwrap_or(text);
    inner.strip_suffix('"').unwrap_or(inner)
}

fn add_server(one: &mut Virtual, address: &str, weight: u32, item: usize, site: &mut Site) {
    match words::server(address, 0).filter(|address| !address.ends_with(":0")) {
        Some(address) if !one.known.contains(&address) => {
            site.account.done(item);
            if site.spend(1) {
                one.known.insert(address.clone());
                one.servers.push(Server { address, weight });
            }
        }
        Some(_) => site.account.none(item, "this server is in the service already"),
        None => site.account.none(item, "an address and the number of a port are needed"),
    }
}

fn add_rule(one: &mut Virtual, text: &str, group: u32, server: &str, (line, item): (u32, usize), site: &mut Site) {
    let Some(server) = words::server(server, 0) else {
        return site.account.none(item, "an address and the number of a port are needed");
    };
    if one.ruled.contains(&server) {
        return site
            .account
            .none(item, "this server has a rule already, and KTCPVS allows one (device or resource busy)");
    }
    if !site.spend(1) {
        return;
    }
    site.account.done(item);
    one.ruled.insert(server.clone());
    if let Some(rule) = one.patterns.get(text).and_then(|at| one.rules.get_mut(*at)) {
        return rule.servers.push(server);
    }
    let ends = text.char_indices().map(|(at, _)| at).skip(1).take(LONGEST);
    if let Some(first) = ends.filter_map(|end| text.get(..end)).find(|start| one.patterns.contains_key(*start)) {
        let how = format!(
            "a rule of its own here; KTCPVS 0.0.18 adds its server to the rule \"{first}\", which its pattern begins with"
        );
        site.account.differs(item, how);
    }
    one.patterns.insert(text.to_owned(), one.rules.len());
    one.rules.push(Pattern { text: text.to_owned(), group, servers: vec![server], line, item });
}

/// `tcpvsadm -A -i web -s http -P 80` and the like, one command a line.
fn commands(tokens: &[Token<'_>], site: &mut Site, virtuals: &mut Vec<Virtual>) {
    for line in tokens.chunk_by(|a, b| a.line == b.line) {
        let subject: Vec<&str> = line.iter().map(|token| token.text).collect();
        let item = site.account.enter(line[0].line, &subject.join(" "));
        let option = |names: &[&str]| {
            let at = line.iter().position(|token| names.contains(&token.text))?;
            line.get(at + 1).map(|token| token.text)
        };
        let command = line.get(1).map_or("", |token| token.text);
        let ident = option(&["-i", "--ident"]).unwrap_or_default();
        let (server, pattern) = (option(&["-r", "--real-server"]), option(&["-p", "--pattern"]));
        let first = virtuals.is_empty();
        let service = virtuals.iter_mut().find(|one| one.name == ident);
        match (command, service) {
            ("-A" | "--add-service", None) => {
                let port = option(&["-P", "--port"]).unwrap_or("8080");
                let listen = match option(&["-l", "--listen"]) {
                    Some(address) if address.contains(':') => address.to_owned(),
                    Some(address) => format!("{address}:{port}"),
                    None => format!("0.0.0.0:{port}"),
                };
                let scheduler = option(&["-s", "--scheduler"]).unwrap_or("http").to_owned();
                virtuals.push(Virtual {
                    name: ident.to_owned(),
                    line: line[0].line,
                    listen: Some((listen, item)),
                    scheduler: Some((scheduler, item)),
                    ..Virtual::default()
                });
            }
            ("-a" | "--add-server", Some(one)) if server.is_some() => {
                let weight = option(&["-w", "--weight"]).and_then(|weight| weight.parse().ok()).unwrap_or(1);
                add_server(one, server.unwrap_or_default(), weight, item, site);
            }
            ("--add-rule", Some(one)) if server.is_some() && pattern.is_some() => {
                let group = option(&["-m", "--match"]).and_then(|group| group.parse().ok()).unwrap_or(0);
                let text = pattern.unwrap_or_default().trim_matches('\'');
                add_rule(one, unquoted(text), group, server.unwrap_or_default(), (line[0].line, item), site);
            }
            ("--start", _) => site.account.done(item),
            ("-F" | "--flush", _) if first => site.account.done(item),
            _ => site.account.none(item, "only -A, -a, --add-rule and --start say what a configuration says"),
        }
    }
}

const PROXIES: [&str; 4] = ["http", "hhttp", "phttp", "chttp"];

fn service(one: Virtual, only: bool, names: &mut Names, site: &mut Site) {
    let name = names.fresh(&one.name);
    let (scheduler, scheduler_item) = one.scheduler.clone().unwrap_or_default();
    let proxy = PROXIES.contains(&scheduler.as_str());
    if !proxy && scheduler != "wlc" {
        if one.scheduler.is_some() {
            site.account.none(scheduler_item, "this scheduler is of no release of KTCPVS: the service is left out");
        }
        return;
    }
    site.account.done(scheduler_item);
    let listen = one.listen.as_ref().and_then(|(text, item)| Some((text.parse::<std::net::SocketAddr>().ok()?, *item)));
    let Some((address, item)) = listen else {
        if let Some((_, item)) = one.listen {
            site.account.none(item, "listeners take an address and the number of a port: the service is left out");
        }
        return;
    };
    site.account.done(item);
    let mut table = Table::new(format!("listen.{name}"), one.line);
    table.set("address", words::texts(&[address.to_string()]));
    table.set("protocol", words::text(if proxy { "http" } else { "tcp" }));
    if let Some((count, item)) = one.clients {
        if only && count > 0 {
            site.account.differs(item, "the bound is that of the whole process; others wait in the kernel's queue");
            site.table("limits", one.line).set("connections", count.to_string());
        } else {
            site.account.none(item, "the bound on connections is that of the whole process: [limits] connections");
        }
    }
    // A local server that answers when no other can; phttp and chttp never ask it.
    let sorry = one.redirect.as_ref().and_then(|(text, item)| {
        let address = words::server(text, 0).filter(|address| !address.ends_with(":0"));
        match (&address, scheduler.as_str()) {
            (None, _) => site.account.none(*item, "an address and the number of a port are needed"),
            (_, "phttp" | "chttp") => {
                site.account.none(*item, format!("{scheduler} closes the connection and never comes to its redirect"));
                return None;
            }
            _ => site.account.differs(
                *item,
                "a backup server of the same pools: it is dialled, where KTCPVS hands the connection over; it needs a check to be of use",
            ),
        }
        address
    });
    if !proxy {
        table.set("pool", words::text(&name));
        site.tables.push(table);
        let servers: Vec<&Server> = one.servers.iter().collect();
        let pool = pool(&name, &servers, "\"wlc\"", sorry.as_deref(), one.line);
        site.tables.push(pool);
        return;
    }
    table.set("rules", words::texts(&[format!("rules/{name}.rules")]));
    site.tables.push(table);
    if matches!(scheduler.as_str(), "http" | "hhttp") {
        site.account.differs(
            scheduler_item,
            "each request is decided by itself; KTCPVS binds a client's connection by its first one",
        );
    }
    if scheduler == "chttp" {
        site.account.differs(
            scheduler_item,
            "affinity by a cookie for every client; KTCPVS adds its KTCPVS_SID only where the server sets a cookie",
        );
    }
    let rules = rules(&one, &name, &scheduler, sorry.as_deref(), names, site);
    let section = Section { head: "http *".to_owned(), as_is: true, rules };
    site.files.push(RuleFile { name: format!("rules/{name}.rules"), sections: vec![section], ..RuleFile::default() });
}

fn rules(
    one: &Virtual,
    name: &str,
    scheduler: &str,
    sorry: Option<&str>,
    names: &mut Names,
    site: &mut Site,
) -> Vec<Rule> {
    let mut rules = Vec::new();
    let mut own = Names::default();
    let by_address: HashMap<&str, &Server> =
        one.servers.iter().map(|server| (server.address.as_str(), server)).collect();
    for rule in &one.rules {
        let servers: Vec<&Server> =
            rule.servers.iter().filter_map(|address| by_address.get(address.as_str()).copied()).collect();
        if servers.len() < rule.servers.len() {
            site.account.none(rule.item, "its server is not in the service (KTCPVS: no such destination)");
        }
        if servers.is_empty() {
            continue;
        }
        let all = matches!(rule.text.as_str(), ".*" | "^/.*" | "^/");
        let label = own.fresh(if all { "rest" } else { &rule.text });
        let pool_name = names.fresh(&format!("{name}-{label}"));
        let how = if scheduler == "hhttp" { "\"hash\"" } else { "\"wlc\"" };
        let mut table = pool(&pool_name, &servers, how, sorry, rule.line);
        if scheduler == "chttp" {
            table.set("affinity", "{ cookie = \"KTCPVS_SID\", mode = \"insert\" }");
        }
        site.tables.push(table);
        let mut action = format!("use {pool_name}");
        if scheduler == "hhttp" {
            match rule.group {
                1..=9 => {
                    action.push_str(&format!(" by ${}", rule.group));
                    site.account.differs_once(
                        rule.item,
                        "one group goes to one server here as there, though to another one: servers that are down are left out, and KTCPVS's sum of letters is not its hash",
                    );
                }
                _ => {
                    site.account.none(
                        rule.item,
                        "`match 0` finds no server where the pattern stands at the start: the connection ends",
                    );
                    action = "drop".to_owned();
                }
            }
        }
        let tests = if all { Vec::new() } else { vec![Test::new("path", words::regex(&rule.text))] };
        if !all && !is_prefix(&rule.text) {
            site.account.differs(rule.item, "matched against the path; KTCPVS searches the query too");
        }
        rules.push(Rule { name: label, tests, action, line: rule.line, more: Vec::new() });
        if all {
            return rules;
        }
    }
    let action = match sorry {
        Some(address) => {
            let pool_name = names.fresh(&format!("{name}-redirect"));
            let server = Server { address: address.to_owned(), weight: 1 };
            site.tables.push(pool(&pool_name, &[&server], "\"rr\"", None, one.line));
            format!("use {pool_name}")
        }
        None => "drop".to_owned(),
    };
    rules.push(Rule { name: own.fresh("none"), action, line: 0, ..Rule::default() });
    rules
}

/// Whether the pattern asks for nothing but how the path begins.
fn is_prefix(pattern: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_~%".contains(&byte);
    pattern.strip_prefix("^/").is_some_and(|rest| rest.bytes().all(plain))
}

fn pool(name: &str, servers: &[&Server], scheduler: &str, sorry: Option<&str>, line: u32) -> Table {
    let mut table = Table::new(format!("pool.{name}"), line);
    table.set("scheduler", scheduler);
    let mut items: Vec<String> = servers
        .iter()
        .map(|server| format!("{{ address = {}, weight = {} }}", words::text(&server.address), server.weight))
        .collect();
    if let Some(address) = sorry.filter(|address| !servers.iter().any(|server| server.address == **address)) {
        items.push(format!("{{ address = {}, backup = true }}", words::text(address)));
    }
    table.list("servers", items);
    table
}
