//! `[director]` and `[failover]`: layer 4 and who holds its addresses. Not built yet, but checked.

use super::super::node::Entry;
use super::listen::place_of;
use super::unbuilt::{boolean, duration, integer, text, word};
use super::walk::{Fields, Walk};
use super::{Named, named};

const SCHEDULERS: [&str; 15] =
    ["rr", "wrr", "lc", "wlc", "sed", "nq", "sh", "dh", "mh", "lblc", "lblcr", "fo", "ovf", "twos", "p2c"];

pub fn director(walk: &Walk<'_>, entry: &Entry, mentioned: &mut Vec<Named>) {
    let Some(mut fields) = Fields::of(walk, &entry.node, "[director]") else { return };
    texts(&mut fields, "interfaces");
    for entry in named(walk, fields.get("service"), "director.service") {
        service(walk, entry, mentioned);
    }
    fields.finish();
    walk.not_built(&entry.node.origin, "[director]");
}

fn service(walk: &Walk<'_>, entry: &Entry, mentioned: &mut Vec<Named>) {
    let Some(mut fields) = Fields::of(walk, &entry.node, format!("[director.service.{}]", entry.key)) else { return };
    if let Some(entry) = fields.require("address", "for example address = \"203.0.113.10:53\"") {
        walk.listen_address(&entry.node, "address");
    }
    word(&mut fields, "protocol", &["tcp", "udp", "sctp"]);
    word(&mut fields, "scheduler", &SCHEDULERS);
    boolean(&mut fields, "one-packet");
    word(&mut fields, "method", &["nat", "dr", "tun"]);
    duration(&mut fields, "persistence");
    if let Some(entry) = fields.require("pool", "its servers are those of a pool") {
        mentioned.extend(walk.text(&entry.node, "pool").map(|text| place_of(walk, &entry.node, text)));
    }
    fields.finish();
}

pub fn failover(walk: &Walk<'_>, entry: &Entry) {
    let Some(mut fields) = Fields::of(walk, &entry.node, "[failover]") else { return };
    if let Some(entry) = fields.get("virtual-addresses") {
        for node in walk.list(&entry.node) {
            // An address on a network: the bits behind the mask are the point.
            if let Some(text) = walk.text(node, "virtual-addresses")
                && text.parse::<ipnet::IpNet>().is_err()
                && text.parse::<std::net::IpAddr>().is_err()
            {
                let fault = walk.error("R0113", node, format!("virtual-addresses \"{text}\" is not an address"));
                walk.push(fault.allowed(["ADDRESS", "ADDRESS/BITS"]));
            }
        }
    }
    text(&mut fields, "interface");
    // RFC 9568 §5.2: both are one byte; 0 and 255 of the priority are the protocol's own.
    integer(&mut fields, "router-id", 1, 255);
    integer(&mut fields, "priority", 1, 254);
    duration(&mut fields, "advertise");
    boolean(&mut fields, "preempt");
    if let Some(entry) = fields.get("peers") {
        for node in walk.list(&entry.node) {
            if let Some(text) = walk.text(node, "peers")
                && text.parse::<std::net::IpAddr>().is_err()
            {
                walk.push(
                    walk.error("R0112", node, format!("peers \"{text}\" is not an address")).allowed(["ADDRESS"]),
                );
            }
        }
    }
    fields.finish();
    walk.not_built(&entry.node.origin, "[failover]");
}

fn texts(fields: &mut Fields<'_, '_, '_>, key: &'static str) {
    if let Some(entry) = fields.get(key) {
        for node in fields.walk.list(&entry.node) {
            fields.walk.text(node, key);
        }
    }
}
