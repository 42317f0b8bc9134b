//! What layer 4 has counted.

use super::Families;
use crate::model::director::ServiceKey;
use crate::state::director::{Counted, Table, Unavailable};

/// Nothing where there is no `[director]`.
pub fn director(families: &mut Families, table: &Result<Table, Unavailable>) {
    let help = "1: the director is at work; 0: it is configured and is not, the log says why.";
    let table = match table {
        Ok(table) => table,
        Err(Unavailable::Off) => return,
        Err(Unavailable::Fault(_)) => return families.gauge("reeve_director_up", help, &[], 0.0),
    };
    families.gauge("reeve_director_up", help, &[], 1.0);
    let help = "Flows in the kernel's tables.";
    families.gauge("reeve_director_flows", help, &[], table.flows as f64);
    let help = "Flows that they have room for, of each family.";
    families.gauge("reeve_director_flows_limit", help, &[], table.flows_most as f64);
    let help = "What the kernel's programs met, by what it was (docs/director.md).";
    for (what, count) in &table.counters {
        families.counter("reeve_director_events_total", help, &[("what", what)], *count as f64);
    }
    for service in &table.services {
        let name = service.name.clone().unwrap_or_else(|| name(&service.key));
        let own = ("service", name.as_str());
        counted(families, "service", &[own], &service.counted);
        for server in &service.servers {
            let server_name = server.name.clone().unwrap_or_else(|| server.address.to_string());
            let labels = [own, ("server", server_name.as_str())];
            counted(families, "server", &labels, &server.counted);
            let help = "Flows of a server: active ones are TCP connections that are open or opening, as IPVS counts.";
            for (state, count) in [("active", server.active), ("inactive", server.inactive)] {
                let labels = [labels[0], labels[1], ("state", state)];
                families.gauge("reeve_director_server_flows", help, &labels, f64::from(count));
            }
            let help = "Its weight now; 0: it takes no new clients.";
            families.gauge("reeve_director_server_weight", help, &labels, f64::from(server.weight));
        }
    }
}

/// Of a service that has no name: `tcp-192.0.2.10:80`.
fn name(key: &ServiceKey) -> String {
    key.to_string().replace(' ', "-")
}

fn counted(families: &mut Families, of: &str, labels: &[(&str, &str)], counted: &Counted) {
    let names: [&'static str; 3] = match of {
        "service" => ["reeve_director_connections_total", "reeve_director_packets_total", "reeve_director_bytes_total"],
        _ => [
            "reeve_director_server_connections_total",
            "reeve_director_server_packets_total",
            "reeve_director_server_bytes_total",
        ],
    };
    families.counter(names[0], "Connections scheduled.", labels, counted.connections as f64);
    let help = "Packets forwarded; out only where answers pass the director (nat).";
    for (direction, count) in [("in", counted.packets_in), ("out", counted.packets_out)] {
        families.counter(names[1], help, &[labels, &[("direction", direction)]].concat(), count as f64);
    }
    let help = "Bytes forwarded, of whole IP packets.";
    for (direction, count) in [("in", counted.bytes_in), ("out", counted.bytes_out)] {
        families.counter(names[2], help, &[labels, &[("direction", direction)]].concat(), count as f64);
    }
}
