//! `[pool.NAME]`: servers that serve the same thing.

use std::sync::Arc;

use super::super::node::{Entry, Node, Value};
use super::check::{self, Checks};
use super::unbuilt::is_status_word;
use super::walk::{Fields, Walk};
use super::{affinity, scheduler, server, settings, table_place, tls, unbuilt};
use crate::model::affinity::Affinity;
use crate::model::pool::{Most, Protocol, ProxyVersion, Retry, Scheduler, Server};
use crate::model::tls::PoolTls;
use crate::model::{Fault, Place, Timeouts};

#[derive(Debug, Clone, PartialEq)]
pub struct Pool {
    pub name: Arc<str>,
    pub scheduler: Scheduler,
    pub servers: Vec<Server>,
    pub checks: Checks,
    pub retry: Retry,
    pub most: Most,
    /// As in [`crate::model::pool::Pool`].
    pub queue: u32,
    pub timeouts: Timeouts,
    pub send_proxy: Option<ProxyVersion>,
    pub tls: Option<PoolTls>,
    pub protocol: Protocol,
    pub affinity: Option<Affinity>,
    pub place: Place,
}

const PROTOCOLS: [&str; 4] = ["http1", "h2c", "h2", "auto"];
/// Places in a queue that does not say how many: more requests than that are not served in the five seconds that
/// they wait, unless a pool serves more than two hundred a second, and each holds some KiB.
const QUEUE: u32 = 1000;
/// Words of the rule language that stand where a pool's name does.
const RESERVED: [&str; 3] = ["map", "else", "by"];

pub fn read(walk: &Walk<'_>, entry: &Entry, general: &Timeouts) -> Option<Pool> {
    let name = &entry.key;
    let mut fields = Fields::of(walk, &entry.node, format!("[pool.{name}]"))?;
    let mut pool = Pool {
        name: name.as_str().into(),
        scheduler: Scheduler::Wlc,
        servers: Vec::new(),
        checks: Checks::default(),
        retry: Retry::default(),
        most: Most::default(),
        queue: 0,
        timeouts: general.clone(),
        send_proxy: None,
        tls: None,
        protocol: Protocol::Http1,
        affinity: None,
        place: table_place(walk, entry),
    };
    if RESERVED.contains(&name.as_str()) {
        let message = format!("\"{name}\" is a word of the rule language: rules cannot name this pool");
        walk.push(Fault::warning("R0115", walk.place(&entry.key_origin), message));
    }
    if let Some(entry) = fields.get("scheduler") {
        pool.scheduler = scheduler::read(walk, &entry.node, name).unwrap_or(Scheduler::Wlc);
    }
    let help = "for example servers = [{ name = \"web1\", address = \"10.0.0.1:80\" }]";
    if let Some(entry) = fields.require("servers", help) {
        pool.servers = server::read(walk, &entry.node, name);
    }
    if let Some(entry) = fields.get("check") {
        pool.checks = check::read(walk, &entry.node, name);
    }
    if let Some(entry) = fields.get("retry") {
        pool.retry = retry(walk, &entry.node, name);
    }
    if let Some(entry) = fields.get("timeouts") {
        settings::timeouts(walk, &entry.node, &format!("[pool.{name}] timeouts"), true, &mut pool.timeouts);
    }
    pool.most = server::most(&mut fields, "or \"answer\" in a rule to take no request");
    if let Some(entry) = fields.get("queue") {
        queue(walk, &entry.node, &mut pool);
    }
    if let Some(entry) = fields.get("send-proxy-protocol") {
        pool.send_proxy = match walk.word(&entry.node, "send-proxy-protocol", &["v1", "v2"]) {
            Some("v1") => Some(ProxyVersion::V1),
            Some(_) => Some(ProxyVersion::V2),
            None => None,
        };
    }
    let tls_entry = fields.get("tls");
    pool.tls = tls_entry.and_then(|entry| tls::pool(walk, &entry.node, &format!("[pool.{name}] tls")));
    pool.protocol = protocol(&mut fields, tls_entry.is_some(), pool.send_proxy.is_some());
    pool.affinity = affinity::read(&mut fields, name);
    not_built_yet(&mut fields, name);
    fields.finish();
    Some(pool)
}

/// What is spoken to servers.
fn protocol(fields: &mut Fields<'_, '_, '_>, sealed: bool, announced: bool) -> Protocol {
    let walk = fields.walk;
    let mut protocol = Protocol::Http1;
    if let Some(entry) = fields.get("protocol")
        && let Some(word) = walk.word(&entry.node, "protocol", &PROTOCOLS)
        && word != "http1"
    {
        if word == "h2" && !sealed {
            let fault = walk.error("R0125", &entry.node, "protocol \"h2\" needs \"tls\"");
            walk.push(fault.help("add tls = {}, or speak \"h2c\""));
        }
        if announced {
            let message = format!("protocol \"{word}\" does not go with \"send-proxy-protocol\"");
            let why = "connections of HTTP/2 carry many clients, a PROXY header names one";
            walk.push(walk.error("R0125", &entry.node, message).help(why));
        }
        protocol = match word {
            "h2c" => Protocol::H2c,
            "h2" => Protocol::H2,
            _ => Protocol::Auto,
        };
    }
    protocol
}

fn not_built_yet(fields: &mut Fields<'_, '_, '_>, name: &str) {
    let walk = fields.walk;
    type Reader = fn(&Walk<'_>, &Node, &str);
    let tables: [(&'static str, Reader); 1] = [("outlier", unbuilt::outlier)];
    for (key, read) in tables {
        if let Some(entry) = fields.get(key) {
            read(walk, &entry.node, &format!("[pool.{name}] {key}"));
            walk.not_built(&entry.key_origin, format_args!("pool.{name}: {key}"));
        }
    }
    if let Some(entry) = fields.get("slow-start") {
        walk.duration(&entry.node, "slow-start", false);
        walk.not_built(&entry.key_origin, format_args!("pool.{name}: slow-start"));
    }
}

/// `{ limit = 1000, timeout = "5s" }`; the time goes before `[pool.NAME.timeouts] queue`.
fn queue(walk: &Walk<'_>, node: &Node, pool: &mut Pool) {
    let title = format!("[pool.{}] queue", pool.name);
    let Some(mut fields) = Fields::of(walk, node, title) else { return };
    pool.queue = QUEUE;
    if let Some(entry) = fields.get("limit")
        && let Some(limit) = walk.integer(&entry.node, "limit", 1, 1_000_000)
    {
        pool.queue = u32::try_from(limit).unwrap_or(QUEUE);
    }
    if let Some(entry) = fields.get("timeout")
        && let Some(time) = walk.duration(&entry.node, "timeout", false)
    {
        pool.timeouts.queue = time;
    }
    fields.finish();
}

fn retry(walk: &Walk<'_>, node: &Node, pool: &str) -> Retry {
    let mut retry = Retry::default();
    let Some(mut fields) = Fields::of(walk, node, format!("[pool.{pool}] retry")) else { return retry };
    if let Some(entry) = fields.get("attempts")
        && let Some(value) = walk.integer(&entry.node, "attempts", 0, 10)
    {
        retry.attempts = u32::try_from(value).unwrap_or(retry.attempts);
    }
    if let Some(entry) = fields.get("on") {
        (retry.on_connect, retry.on_refused) = on(walk, &entry.node, pool);
    }
    if let Some(entry) = fields.get("budget") {
        retry.budget = walk.percent(&entry.node, "budget");
    }
    fields.finish();
    retry
}

/// The occasions for another try; answers whether `connect` and `refused-stream` are.
fn on(walk: &Walk<'_>, node: &Node, pool: &str) -> (bool, bool) {
    const WORDS: [&str; 4] = ["connect", "refused-stream", "reset", "timeout"];
    let (mut connect, mut refused) = (false, false);
    let mut unbuilt: Vec<String> = Vec::new();
    for node in walk.list(node) {
        if let Value::Integer(Some(code)) = node.value {
            let fault = walk.error("R0105", node, "an occasion to retry is a string");
            walk.push(fault.help(format!("write \"{code}\"")));
            continue;
        }
        let Some(text) = walk.string(node, "on") else { continue };
        if text == "connect" {
            connect = true;
        } else if text == "refused-stream" {
            refused = true;
        } else if WORDS.contains(&text) || is_status_word(text) {
            unbuilt.push(text.to_owned());
        } else {
            let fault = walk.not_a_word(node, "occasion to retry", text, &WORDS);
            let mut allowed = fault.allowed.clone();
            allowed.push("400 to 599".to_owned());
            walk.push(fault.allowed(allowed));
        }
    }
    if !unbuilt.is_empty() {
        walk.not_built(&node.origin, format_args!("pool.{pool}: retry on {}", unbuilt.join(", ")));
    }
    (connect, refused)
}
