//! `servers` of a pool.

use std::sync::Arc;

use super::super::node::{Node, Value};
use super::walk::{Fields, Walk};
use crate::model::Fault;
use crate::model::pool::{Address, Most, Server};

/// As IPVS has it.
const HEAVIEST: u64 = 65_535;

/// The servers of a pool; a string is a server that has only its address.
pub fn read(walk: &Walk<'_>, node: &Node, pool: &str) -> Vec<Server> {
    let Value::List(items) = &node.value else {
        let fault = walk.error("R0105", node, format!("servers is a list of tables, not {}", node.kind()));
        walk.push(fault.help("for example servers = [{ name = \"web1\", address = \"10.0.0.1:80\" }]"));
        return Vec::new();
    };
    if items.is_empty() {
        let fault = walk.error("R0123", node, format!("[pool.{pool}] has no servers"));
        walk.push(fault.help("for example servers = [{ name = \"web1\", address = \"10.0.0.1:80\" }]"));
    }
    let mut names: Vec<(Arc<str>, &Node)> = Vec::new();
    let mut addresses: Vec<(Address, &Node)> = Vec::new();
    let mut servers = Vec::new();
    for item in items {
        let (server, name, address) = match &item.value {
            Value::String(_) => {
                let server = walk.server_address(item, "address").map(|address| plain(walk, item, address));
                (server, Some(item), Some(item))
            }
            Value::Table(_) => table(walk, item, pool),
            _ => {
                let fault = walk.error("R0105", item, format!("a server is a table, not {}", item.kind()));
                walk.push(fault.help("for example { name = \"web1\", address = \"10.0.0.1:80\" }"));
                (None, None, None)
            }
        };
        let Some(server) = server else { continue };
        if let Some(node) = name.or(address) {
            if let Some((_, first)) = names.iter().find(|(name, _)| *name == server.name) {
                let message = format!("two servers of [pool.{pool}] are called \"{}\"", server.name);
                walk.push(walk.error("R0122", node, message).also(walk.value_place(first), "the first is here"));
            } else if let (Some(node), Some((_, first))) =
                (address, addresses.iter().find(|(address, _)| *address == server.address))
            {
                let message = format!("two servers of [pool.{pool}] have the address {}", server.address);
                walk.push(walk.warning("R0126", node, message).also(walk.value_place(first), "the first is here"));
            }
            names.push((server.name.clone(), node));
        }
        if let Some(node) = address {
            addresses.push((server.address.clone(), node));
        }
        servers.push(server);
    }
    if servers.len() == items.len() {
        idle(walk, node, pool, &servers);
    }
    servers
}

/// Pools that are well-formed and yet serve nobody, or only in need.
fn idle(walk: &Walk<'_>, node: &Node, pool: &str, servers: &[Server]) {
    let origin = &node.origin;
    if servers.is_empty() {
        return;
    }
    let place = walk.place(origin);
    if servers.iter().all(|server| server.weight == 0) {
        let message = format!("all servers of [pool.{pool}] have weight 0: it takes no new client");
        walk.push(Fault::warning("R0150", place, message));
    } else if servers.iter().all(|server| server.backup) {
        let message = format!("all servers of [pool.{pool}] are backups");
        walk.push(Fault::warning("R0154", place, message));
    }
}

fn plain(walk: &Walk<'_>, node: &Node, address: Address) -> Server {
    let name = address.to_string().into();
    Server { name, address, weight: 1, most: Most::default(), backup: false, place: walk.value_place(node) }
}

/// A server, and where its name and its address stand.
fn table<'n>(walk: &Walk<'_>, node: &'n Node, pool: &str) -> (Option<Server>, Option<&'n Node>, Option<&'n Node>) {
    let named = node.entry("name").and_then(|entry| match &entry.node.value {
        Value::String(name) => Some(format!("server \"{name}\" of [pool.{pool}]")),
        _ => None,
    });
    let title = named.unwrap_or_else(|| format!("a server of [pool.{pool}]"));
    let Some(mut fields) = Fields::of(walk, node, title) else { return (None, None, None) };
    let mut name_node = None;
    let mut name = None;
    let mut whole = true;
    if let Some(entry) = fields.get("name") {
        name = server_name(walk, &entry.node);
        whole &= name.is_some();
        name_node = Some(&entry.node);
    }
    let address = fields.require("address", "for example address = \"10.0.0.1:80\"");
    let address_node = address.map(|entry| &entry.node);
    let address = address_node.and_then(|node| walk.server_address(node, "address"));
    let weight = fields.get("weight").map(|entry| walk.integer(&entry.node, "weight", 0, HEAVIEST));
    let weight = weight.map_or(1, |weight| weight.and_then(|weight| u32::try_from(weight).ok()).unwrap_or(1));
    let no_client = "or set weight = 0 to take no new client";
    let most = most(&mut fields, no_client);
    let sessions = limit(&mut fields, "max-sessions", no_client);
    let kilobits = limit(&mut fields, "max-kilobits", no_client);
    let most = Most { sessions, kilobits, ..most };
    let backup = fields.get("backup").and_then(|entry| walk.boolean(&entry.node, "backup")).unwrap_or(false);
    fields.finish();
    let server = address.filter(|_| whole).map(|address| Server {
        name: name.unwrap_or_else(|| address.to_string().into()),
        address,
        weight,
        most,
        backup,
        place: walk.place(&node.origin),
    });
    (server, name_node, address_node)
}

/// `max-connections` and `max-requests`; `instead` is what else zero may have meant.
pub fn most(fields: &mut Fields<'_, '_, '_>, instead: &str) -> Most {
    let (connections, requests) = (limit(fields, "max-connections", instead), limit(fields, "max-requests", instead));
    Most { connections, requests, ..Most::default() }
}

fn limit(fields: &mut Fields<'_, '_, '_>, key: &'static str, instead: &str) -> Option<u32> {
    let entry = fields.get(key)?;
    if let Value::Integer(Some(0)) = entry.node.value {
        let fault = fields.walk.error("R0110", &entry.node, format!("{key} is zero"));
        fields.walk.push(fault.help(format!("leave the key out for no limit, {instead}")));
        return None;
    }
    let most = u64::from(u32::MAX);
    fields.walk.integer(&entry.node, key, 1, most).and_then(|value| u32::try_from(value).ok())
}

fn server_name(walk: &Walk<'_>, node: &Node) -> Option<Arc<str>> {
    let name = walk.text(node, "name")?;
    // Names of servers default to addresses, so that these characters too are theirs.
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:[]".contains(&byte);
    if name.len() > 128 || !name.bytes().all(good) {
        let fault = walk.error("R0115", node, format!("\"{name}\" cannot be the name of a server"));
        walk.push(fault.help("a name has letters, digits, \"-\", \"_\" and \".\""));
        return None;
    }
    Some(name.into())
}
