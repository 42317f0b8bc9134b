//! `reeve connections`: the client connections, the busy before the idle.

use std::process::ExitCode;
use std::time::Duration;

use super::client::{ClientArgs, command};
use super::status::silent;
use super::table::{Align, Colour, Style, Table, age, size};
use crate::model::director::Protocol;
use crate::monitor::report::Connections;
use crate::state::connections::Doing;
use crate::state::director::Flows;

/// Shows `limit` of them at most, 1 to `monitor::api::CONNECTIONS_CEILING`.
pub fn connections(args: &ClientArgs, limit: usize) -> ExitCode {
    let target = format!("/api/v1/connections?limit={limit}");
    command(args, &target, |connections| show(connections, Style::of_stdout()))
}

fn show(connections: &Connections, style: Style) -> String {
    let shown = connections.connections.len();
    let mut out = String::new();
    if shown > 0 {
        let mut table = Table::new(&[
            ("CLIENT", Align::Left),
            ("LISTENER", Align::Left),
            ("STATE", Align::Left),
            ("AGE", Align::Right),
            ("REQUESTS", Align::Right),
            ("OUT", Align::Right),
            ("SERVER", Align::Left),
            ("REQUEST", Align::Left),
        ]);
        for info in &connections.connections {
            let plain = |text: String| (text, Colour::Plain);
            let server = match (&info.pool, &info.server) {
                (Some(pool), Some(server)) => format!("{pool}/{server}"),
                (Some(pool), None) => pool.clone(),
                (None, _) => "-".to_owned(),
            };
            let colour = if info.doing == Doing::Idle { Colour::Plain } else { Colour::Good };
            table.row([
                plain(info.client.to_string()),
                plain(info.listener.clone()),
                (info.doing.word().to_owned(), colour),
                plain(age(info.age)),
                plain(info.requests.to_string()),
                plain(size(info.bytes_sent)),
                plain(server),
                plain(info.request.clone().unwrap_or_default()),
            ]);
        }
        out += &table.render(style);
        out.push('\n');
    }
    if let Some(flows) = &connections.flows {
        out += &self::flows(flows, style);
    }
    let more = if (shown as u64) < connections.total { "; more with --limit" } else { "" };
    // Connections come and go between the two countings.
    let total = connections.total.max(shown as u64);
    out + &format!("{shown} of {total} connections shown{more}{}\n", silent(&connections.silent_workers, style))
}

/// Flows of layer 4, which pass through the kernel alone.
fn flows(flows: &Flows, style: Style) -> String {
    let mut out = String::new();
    if !flows.flows.is_empty() {
        let mut table = Table::new(&[
            ("FLOW", Align::Left),
            ("CLIENT", Align::Left),
            ("SERVICE", Align::Left),
            ("SERVER", Align::Left),
            ("STATE", Align::Left),
            ("FOR", Align::Right),
        ]);
        for flow in &flows.flows {
            let plain = |text: String| (text, Colour::Plain);
            let protocol = flow.protocol.map_or("any", Protocol::word);
            let kind = if flow.template { format!("{protocol} client") } else { protocol.to_owned() };
            table.row([
                plain(kind),
                plain(flow.client.to_string()),
                plain(flow.virtual_address.to_string()),
                plain(flow.identity.clone().unwrap_or_else(|| flow.server.to_string())),
                plain(flow.state.clone()),
                plain(age(Duration::from_secs(flow.seconds.into()))),
            ]);
        }
        out += &table.render(style);
        out.push('\n');
    }
    let shown = flows.flows.iter().filter(|flow| !flow.template).count() as u64;
    out + &format!("{shown} of {} flows of layer 4 shown\n", flows.total.max(shown))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::state::connections::ConnectionInfo;

    #[test]
    fn long_requests_are_cut_on_a_terminal_only() {
        let busy = ConnectionInfo {
            id: 1,
            listener: "web".into(),
            client: "192.0.2.10:50000".parse().unwrap(),
            age: Duration::from_secs(75),
            doing: Doing::Waiting,
            requests: 4,
            pool: Some("web".into()),
            server: Some("web1".into()),
            request: Some("GET /a/long/path/to/something".into()),
            bytes_received: 10,
            bytes_sent: 2_000_000,
        };
        let idle = ConnectionInfo { doing: Doing::Idle, pool: None, server: None, request: None, ..busy.clone() };
        let connections =
            Connections { connections: vec![busy, idle], total: 9, silent_workers: Vec::new(), flows: None };
        let text = show(&connections, Style { colours: false, width: Some(80) });
        let expected = "\
CLIENT            LISTENER  STATE       AGE  REQUESTS      OUT  SERVER    REQUES
192.0.2.10:50000  web       waiting  1m 15s         4  1.9 MiB  web/web1  GET /…
192.0.2.10:50000  web       idle     1m 15s         4  1.9 MiB  -

2 of 9 connections shown; more with --limit
";
        assert_eq!(text.replace("REQUE…", "REQUES"), expected);
        let text = show(&connections, Style { colours: false, width: None });
        assert!(text.contains("GET /a/long/path/to/something\n"));
    }

    #[test]
    fn nobody_there_is_said() {
        let none = Connections { connections: Vec::new(), total: 0, silent_workers: Vec::new(), flows: None };
        assert_eq!(show(&none, Style { colours: false, width: None }), "0 of 0 connections shown\n");
    }
}
