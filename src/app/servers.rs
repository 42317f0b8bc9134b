//! `reeve servers`: every server of every pool, whether it is up, and why not.

use std::process::ExitCode;

use super::client::{ClientArgs, command};
use super::status::silent;
use super::table::{Align, Colour, Style, Table, age, short};
use crate::monitor::report::{ServerReport, Servers};
use crate::monitor::view::ServerState;

pub fn servers(args: &ClientArgs) -> ExitCode {
    command(args, "/api/v1/servers", |servers| show(servers, Style::of_stdout()))
}

fn show(servers: &Servers, style: Style) -> String {
    if servers.servers.is_empty() {
        return "the configuration has no servers\n".to_owned();
    }
    let mut table = Table::new(&[
        ("POOL", Align::Left),
        ("SERVER", Align::Left),
        ("ADDRESS", Align::Left),
        ("STATE", Align::Left),
        ("FOR", Align::Right),
        ("WEIGHT", Align::Right),
        ("BUSY", Align::Right),
        ("REQUESTS", Align::Right),
        ("CHECK", Align::Right),
    ]);
    for server in &servers.servers {
        row(&mut table, server);
    }
    let mut out = table.render(style);
    if !servers.silent_workers.is_empty() {
        let said = silent(&servers.silent_workers, style);
        out += &format!("requests{said}\n");
    }
    out
}

fn row(table: &mut Table, server: &ServerReport) {
    let colour = match server.state {
        ServerState::Up => Colour::Good,
        ServerState::Draining => Colour::Warn,
        ServerState::Down => Colour::Bad,
    };
    let backup = if server.backup { " (backup)" } else { "" };
    let busy = match server.limit {
        Some(limit) => format!("{}/{limit}", server.in_flight),
        None => server.in_flight.to_string(),
    };
    let plain = |text: String| (text, Colour::Plain);
    table.row([
        plain(server.pool.clone()),
        plain(server.server.clone()),
        plain(server.address.clone()),
        (format!("{}{backup}", server.state.word()), colour),
        plain(age(server.since)),
        plain(server.weight.to_string()),
        plain(busy),
        plain(server.requests.to_string()),
        plain(server.probe.as_ref().map_or("-".to_owned(), |probe| short(probe.took))),
    ]);
    if (server.state == ServerState::Down || server.drained) && !server.reason.is_empty() {
        table.below(&server.reason);
    }
    // The last probe may say something else already: so many in a row are needed for a change.
    if let Some(probe) = &server.probe
        && probe.ok == (server.state == ServerState::Down)
    {
        let word = if probe.ok { "well" } else { "badly" };
        table.below(&format!("last check went {word}: {} ({} ago)", probe.detail, short(probe.ago)));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::monitor::report::ProbeReport;

    fn server(name: &str, state: ServerState, probe_ok: bool) -> ServerReport {
        ServerReport {
            pool: "web".into(),
            server: name.into(),
            address: "127.0.0.1:9001".into(),
            state,
            since: Duration::from_secs(3700),
            reason: "connection refused".into(),
            weight: 2,
            drained: false,
            backup: name == "sorry",
            limit: (name == "web1").then_some(100),
            in_flight: 3,
            probe: Some(ProbeReport {
                ok: probe_ok,
                detail: if probe_ok { "200".into() } else { "no answer in 1s".into() },
                took: Duration::from_micros(1500),
                ago: Duration::from_millis(800),
            }),
            requests: 120_500,
        }
    }

    #[test]
    fn each_server_has_a_line_and_trouble_one_more() {
        let servers = Servers {
            servers: vec![
                server("web1", ServerState::Up, true),
                server("web2", ServerState::Down, false),
                server("web3", ServerState::Down, true),
                ServerReport { probe: None, ..server("sorry", ServerState::Up, false) },
            ],
            silent_workers: vec![0],
        };
        let text = show(&servers, Style { colours: false, width: Some(88) });
        let expected = "\
POOL  SERVER  ADDRESS         STATE          FOR  WEIGHT   BUSY  REQUESTS   CHECK
web   web1    127.0.0.1:9001  up           1h 1m       2  3/100    120500  1.5 ms
web   web2    127.0.0.1:9001  down         1h 1m       2      3    120500  1.5 ms
      connection refused
web   web3    127.0.0.1:9001  down         1h 1m       2      3    120500  1.5 ms
      connection refused
      last check went well: 200 (800 ms ago)
web   sorry   127.0.0.1:9001  up (backup)  1h 1m       2      3    120500       -
requests; no answer from worker 0: the numbers are incomplete
";
        assert_eq!(text, expected);
    }
}
