//! `check` of a pool and `[check.NAME]`: how the health of servers is asked for.

use std::sync::Arc;
use std::time::Duration;

use super::super::node::{Entry, Node, Value};
use super::super::units;
use super::listen::place_of;
use super::probe;
use super::walk::{Fields, Walk};
use super::{Named, table_place};
use crate::model::Place;
use crate::model::check::{Check, OnDown, Probe, Seal, Start};

/// `[check.NAME]`.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedCheck {
    pub name: Arc<str>,
    /// `None`: faulty.
    pub check: Option<Check>,
    pub place: Place,
}

/// What stands behind `check`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Checks {
    pub own: Vec<Check>,
    pub named: Vec<Named>,
}

pub fn named(walk: &Walk<'_>, entry: &Entry) -> NamedCheck {
    let title = format!("[check.{}]", entry.key);
    let check = table(walk, &entry.node, &title);
    NamedCheck { name: entry.key.as_str().into(), check, place: table_place(walk, entry) }
}

/// One table, a list of tables, or names of `[check.NAME]`.
pub fn read(walk: &Walk<'_>, node: &Node, pool: &str) -> Checks {
    let mut checks = Checks::default();
    for node in walk.list(node) {
        match &node.value {
            Value::String(_) => {
                checks.named.extend(walk.text(node, "check").map(|text| place_of(walk, node, text)));
            }
            Value::Table(_) => {
                checks.own.extend(table(walk, node, &format!("[pool.{pool}] check")));
            }
            _ => {
                let message = format!("check is a table, a list of tables or the name of a check, not {}", node.kind());
                walk.push(walk.error("R0105", node, message).help("for example check = { http = \"/health\" }"));
            }
        }
    }
    checks
}

fn table(walk: &Walk<'_>, node: &Node, title: &str) -> Option<Check> {
    let mut fields = Fields::of(walk, node, title)?;
    let said = fields.one_of(&probe::WORDS);
    if said.is_none() {
        let fault = walk.error("R0104", node, format!("{title} does not say how to ask")).allowed(probe::WORDS);
        walk.push(fault.help("for example { tcp = true } or { http = \"/health\" }"));
    }
    let asked = said.and_then(|entry| probe::read(&mut fields, entry));
    let mut check = Check::with(asked.clone().unwrap_or(Probe::CONNECT), walk.place(&fields.origin));
    times(&mut fields, &mut check);
    for (key, count) in [("rise", &mut check.rise), ("fall", &mut check.fall)] {
        if let Some(entry) = fields.get(key)
            && let Some(value) = walk.integer(&entry.node, key, 1, 1_000)
        {
            *count = u32::try_from(value).unwrap_or(*count);
        }
    }
    if let Some(entry) = fields.get("start") {
        check.start = match walk.word(&entry.node, "start", &["up", "down"]) {
            Some("up") => Start::Up,
            Some(_) => Start::Down,
            None => Start::Unknown,
        };
    }
    if let Some(entry) = fields.get("on-down")
        && walk.word(&entry.node, "on-down", &["keep", "close"]) == Some("close")
    {
        check.on_down = OnDown::Close;
    }
    if let Some(entry) = fields.get("port") {
        check.port = walk.integer(&entry.node, "port", 1, 65_535).and_then(|port| u16::try_from(port).ok());
    } else if let Some(entry) = said.filter(|entry| entry.key == "agent") {
        let fault = walk.error("R0104", &entry.node, "an agent listens on a port of its own, which is not said");
        walk.push(fault.help("for example { agent = true, port = 9999 }"));
    }
    if let Some(entry) = fields.get("address")
        && let Some(text) = walk.text(&entry.node, "address")
    {
        check.address = text.parse().ok();
        if check.address.is_none() {
            let fault = walk.error("R0112", &entry.node, format!("\"{text}\" is no IP address"));
            walk.push(fault.help("where to probe instead of the server's own address; \"port\" is a key of its own"));
        }
    }
    check.seal = match said.map(|entry| entry.key.as_str()) {
        Some("https" | "tls") => Seal::Tls,
        _ => Seal::AsPool,
    };
    if let Some(yes) = probe::detail(&mut fields, said, "over-tls").and_then(|node| walk.boolean(node, "over-tls")) {
        check.seal = if yes { Seal::Tls } else { Seal::Clear };
    }
    if let Some(node) = probe::detail(&mut fields, said, "starttls")
        && walk.boolean(node, "starttls") == Some(true)
    {
        if check.seal == Seal::Tls {
            let fault = walk.error("R0124", node, "\"over-tls\" and \"starttls\" exclude each other");
            walk.push(fault.help("over-tls begins with TLS, starttls asks for it after the greeting"));
        }
        check.seal = Seal::Starttls;
    }
    check.verify = probe::detail(&mut fields, said, "verify").and_then(|node| walk.boolean(node, "verify"));
    let name = probe::detail(&mut fields, said, "server-name").and_then(|node| probe::host(walk, node, "server-name"));
    check.server_name = name;
    probe::strangers(&mut fields, said);
    fields.finish();
    asked.map(|_| check)
}

fn times(fields: &mut Fields<'_, '_, '_>, check: &mut Check) {
    let walk = fields.walk;
    let mut time =
        |key: &'static str| fields.get(key).and_then(|entry| Some((entry, walk.duration(&entry.node, key, false)?)));
    check.interval = time("interval").map_or(check.interval, |(_, interval)| interval);
    check.fast_interval = time("fast-interval").map(|(_, interval)| interval);
    // A probe is over when the next one begins.
    check.timeout = check.timeout.min(check.interval);
    if let Some((entry, timeout)) = time("timeout") {
        check.timeout = timeout;
        if timeout > check.interval {
            slow(walk, &entry.node, timeout, check.interval);
        }
    }
    if let Some(entry) = fields.get("jitter") {
        check.jitter = walk.percent(&entry.node, "jitter").map_or(check.jitter, |share| f64::from(share) / 10_000.0);
    }
}

fn slow(walk: &Walk<'_>, node: &Node, timeout: Duration, interval: Duration) {
    let (timeout, interval) = (units::duration_text(timeout), units::duration_text(interval));
    let fault = walk.warning("R0151", node, format!("timeout {timeout} is longer than the interval {interval}"));
    walk.push(fault.help("the next probe waits for the one before it"));
}
