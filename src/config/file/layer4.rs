//! `[failover]`: who holds the addresses of layer 4. Not built yet, but checked.

use super::super::node::Entry;
use super::unbuilt::{boolean, duration, integer, text};
use super::walk::{Fields, Walk};

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
