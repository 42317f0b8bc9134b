//! `check` of a pool and `[check.NAME]`: how the health of servers is asked for.

use std::sync::Arc;
use std::time::Duration;

use super::super::node::{Entry, Node, Value};
use super::super::{is_token, units};
use super::listen::place_of;
use super::walk::{Fields, Walk};
use super::{Named, table_place};
use crate::model::Place;
use crate::model::pool::{Check, Probe};

/// `[check.NAME]`.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedCheck {
    pub name: Arc<str>,
    /// `None`: not built yet, or faulty.
    pub check: Option<Check>,
    pub place: Place,
}

/// What stands behind `check`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Checks {
    pub own: Vec<Check>,
    pub named: Vec<Named>,
}

/// What a check can speak; `http` and `tcp` are built.
const PROBES: [&str; 10] = ["tcp", "http", "rtsp", "smtp", "imap", "pop3", "ftp", "dns", "grpc", "tls"];
/// What counts as healthy where nothing is said: an answer that is no error.
const HEALTHY: std::ops::RangeInclusive<u16> = 200..=399;

pub fn named(walk: &Walk<'_>, entry: &Entry) -> NamedCheck {
    let title = format!("[check.{}]", entry.key);
    let check = table(walk, &entry.node, &title, &format!("check.{}", entry.key));
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
                checks.own.extend(table(walk, node, &format!("[pool.{pool}] check"), &format!("pool.{pool}")));
            }
            _ => {
                let message = format!("check is a table, a list of tables or the name of a check, not {}", node.kind());
                walk.push(walk.error("R0105", node, message).help("for example check = { http = \"/health\" }"));
            }
        }
    }
    checks
}

fn table(walk: &Walk<'_>, node: &Node, title: &str, short: &str) -> Option<Check> {
    let mut fields = Fields::of(walk, node, title)?;
    let probe = fields.one_of(&PROBES);
    if probe.is_none() {
        let fault = walk.error("R0104", node, format!("{title} does not say how to ask")).allowed(PROBES);
        walk.push(fault.help("for example { tcp = true } or { http = \"/health\" }"));
    }
    let http = probe.is_some_and(|entry| entry.key == "http");
    let asked = probe.and_then(|entry| read_probe(walk, entry, short));
    let mut check = Check::with(asked.clone().unwrap_or(Probe::Tcp), walk.place(&fields.origin));

    let interval = fields.get("interval").and_then(|entry| walk.duration(&entry.node, "interval", false));
    check.interval = interval.unwrap_or(check.interval);
    // A probe is over when the next one begins.
    check.timeout = check.timeout.min(check.interval);
    if let Some(entry) = fields.get("timeout")
        && let Some(timeout) = walk.duration(&entry.node, "timeout", false)
    {
        check.timeout = timeout;
        if timeout > check.interval {
            slow(walk, &entry.node, timeout, check.interval);
        }
    }
    if let Some(entry) = fields.get("jitter") {
        check.jitter = walk.percent(&entry.node, "jitter").map_or(check.jitter, |share| f64::from(share) / 10_000.0);
    }
    for (key, count) in [("rise", &mut check.rise), ("fall", &mut check.fall)] {
        if let Some(entry) = fields.get(key)
            && let Some(value) = walk.integer(&entry.node, key, 1, 1_000)
        {
            *count = u32::try_from(value).unwrap_or(*count);
        }
    }
    if let Some(entry) = fields.get("port") {
        check.port = walk.integer(&entry.node, "port", 1, 65_535).and_then(|port| u16::try_from(port).ok());
    }
    details(&mut fields, http, &mut check.probe);
    fields.finish();
    asked.map(|_| check)
}

fn slow(walk: &Walk<'_>, node: &Node, timeout: Duration, interval: Duration) {
    let (timeout, interval) = (units::duration_text(timeout), units::duration_text(interval));
    let fault = walk.warning("R0151", node, format!("timeout {timeout} is longer than the interval {interval}"));
    walk.push(fault.help("the next probe waits for the one before it"));
}

/// The probe itself; `None` where it is not built yet or faulty.
fn read_probe(walk: &Walk<'_>, entry: &Entry, short: &str) -> Option<Probe> {
    let node = &entry.node;
    match entry.key.as_str() {
        "tcp" => flag(walk, node, "tcp").then_some(Probe::Tcp),
        "http" => {
            let path = path(walk, node)?;
            Some(Probe::Http { method: "GET".into(), path, host: None, expect_status: vec![HEALTHY] })
        }
        word => {
            match (&node.value, word) {
                (Value::Boolean(_), "imap" | "pop3" | "ftp" | "tls" | "smtp" | "grpc") => {
                    flag(walk, node, word);
                }
                // The empty name asks gRPC servers for their health as a whole.
                (_, "grpc") => {
                    walk.string(node, word);
                }
                _ => {
                    walk.text(node, word);
                }
            }
            walk.not_built(&entry.key_origin, format_args!("{short}: check {word}"));
            None
        }
    }
}

/// `tcp = true`.
fn flag(walk: &Walk<'_>, node: &Node, name: &str) -> bool {
    let Some(yes) = walk.boolean(node, name) else { return false };
    if !yes {
        let fault = walk.error("R0117", node, format!("{name} = false checks nothing"));
        walk.push(fault.help("leave the check out for none"));
    }
    yes
}

fn path(walk: &Walk<'_>, node: &Node) -> Option<Arc<str>> {
    if let Value::Boolean(_) = node.value {
        let fault = walk.error("R0105", node, "http is the path to ask for, not true or false");
        walk.push(fault.help("write http = \"/\""));
        return None;
    }
    let text = walk.text(node, "http")?;
    // What goes into a request line must not end it (RFC 9112 §3).
    let printable = text.bytes().all(|byte| (0x21..=0x7e).contains(&byte) && byte != b'#');
    if text.starts_with('/') && printable {
        return Some(text.into());
    }
    let fault = walk.error("R0117", node, format!("http \"{text}\" is not a path"));
    let after_host = text.split_once("://").map(|(_, rest)| rest.find('/').map_or("/", |at| &rest[at..]));
    let better = after_host.map(str::to_owned).unwrap_or_else(|| format!("/{}", text.trim_start_matches('/')));
    let better = Some(better).filter(|better| better.bytes().all(|byte| (0x21..=0x7e).contains(&byte) && byte != b'#'));
    walk.push(match better {
        Some(better) => fault.did_you_mean(better),
        None => fault.help("a path begins with \"/\" and has no blanks"),
    });
    None
}

/// The keys that only `http` has.
fn details(fields: &mut Fields<'_, '_, '_>, http: bool, probe: &mut Probe) {
    let walk = fields.walk;
    let mut own_method = None;
    let mut own_host = None;
    let mut own_status = None;
    for key in ["method", "host", "expect-status"] {
        let Some(entry) = fields.get(key) else { continue };
        let node = &entry.node;
        match key {
            "method" => own_method = method(walk, node),
            "host" => own_host = host(walk, node),
            _ => own_status = expected(walk, node),
        }
        if !http {
            let fault = walk.error("R0125", node, format!("{key} belongs to a check by http"));
            walk.push(fault.help("say http = \"/path\", or take it away"));
        }
    }
    if let Probe::Http { method, host, expect_status, .. } = probe {
        *method = own_method.unwrap_or_else(|| method.clone());
        *host = own_host;
        *expect_status = own_status.unwrap_or_else(|| expect_status.clone());
    }
}

fn method(walk: &Walk<'_>, node: &Node) -> Option<Arc<str>> {
    let text = walk.text(node, "method")?;
    // An answer to CONNECT has no end that a check could wait for.
    if !is_token(text) || text.eq_ignore_ascii_case("connect") {
        let fault = walk.error("R0117", node, format!("\"{text}\" is no method for a check"));
        walk.push(fault.allowed(["GET", "HEAD", "OPTIONS"]));
        return None;
    }
    let upper = text.to_ascii_uppercase();
    if upper != text {
        // Methods are case-sensitive (RFC 9110 §9.1).
        walk.push(walk.error("R0117", node, format!("\"{text}\" is no method: case matters")).did_you_mean(upper));
        return None;
    }
    Some(text.into())
}

fn host(walk: &Walk<'_>, node: &Node) -> Option<Arc<str>> {
    let text = walk.text(node, "host")?;
    if !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:[]".contains(&byte)) {
        walk.push(walk.error("R0117", node, format!("host \"{text}\" is not the name of a host")));
        return None;
    }
    Some(text.into())
}

/// `"200-299"`, `"200,301"`, `200`, or a list of these.
fn expected(walk: &Walk<'_>, node: &Node) -> Option<Vec<std::ops::RangeInclusive<u16>>> {
    let mut ranges = Vec::new();
    let mut whole = true;
    for node in walk.list(node) {
        if let Value::Integer(_) = node.value {
            match walk.integer(node, "expect-status", 100, 599).and_then(|code| u16::try_from(code).ok()) {
                Some(code) => ranges.push(code..=code),
                None => whole = false,
            }
            continue;
        }
        let Some(text) = walk.string(node, "expect-status") else {
            whole = false;
            continue;
        };
        match units::status_ranges(text) {
            Ok(more) => ranges.extend(more),
            Err(wrong) => {
                whole = false;
                let fault = walk.error("R0114", node, format!("expect-status \"{text}\" is {}", wrong.why));
                let fault = fault.allowed(["200", "200-299", "200,301-302"]);
                walk.push(match wrong.better {
                    Some(better) => fault.did_you_mean(better),
                    None => fault,
                });
            }
        }
    }
    if whole && ranges.is_empty() {
        walk.push(walk.error("R0117", node, "expect-status is empty: no answer would do"));
        whole = false;
    }
    whole.then_some(ranges)
}
