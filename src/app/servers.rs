//! `reeve servers`: every server of every pool, whether it is up, and why not.

use std::process::ExitCode;

use super::client::{ClientArgs, command};
use super::drain::escaped;
use super::status::silent;
use super::table::{Align, Colour, Style, Table, age, short};
use crate::monitor::report::{ChangeReport, ServerReport, Servers};
use crate::monitor::view::ServerState;

pub fn servers(args: &ClientArgs, name: Option<&str>, long: bool) -> ExitCode {
    let target = match name {
        Some(name) => format!("/api/v1/servers/{}", escaped(name)),
        None if long => "/api/v1/servers?long=yes".to_owned(),
        None => "/api/v1/servers".to_owned(),
    };
    command(args, &target, |servers| show(servers, Style::of_stdout()))
}

fn show(servers: &Servers, style: Style) -> String {
    if servers.servers.is_empty() {
        return "the configuration has no servers\n".to_owned();
    }
    // Two columns more where layer 4 has some of them.
    let with_layer4 = servers.servers.iter().any(|server| server.layer4.is_some());
    let mut columns = vec![
        ("POOL", Align::Left),
        ("SERVER", Align::Left),
        ("ADDRESS", Align::Left),
        ("STATE", Align::Left),
        ("FOR", Align::Right),
        ("WEIGHT", Align::Right),
        ("BUSY", Align::Right),
        ("REQUESTS", Align::Right),
        ("CHECK", Align::Right),
    ];
    if with_layer4 {
        columns.extend([("L4 ACT/INACT", Align::Right), ("L4 CONNS", Align::Right)]);
    }
    let mut table = Table::new(&columns);
    for server in &servers.servers {
        row(&mut table, server, with_layer4);
    }
    let mut out = table.render(style);
    if !servers.silent_workers.is_empty() {
        let said = silent(&servers.silent_workers, style);
        out += &format!("requests{said}\n");
    }
    out
}

fn change(table: &mut Table, change: &ChangeReport) {
    let check = if change.check.is_empty() { String::new() } else { format!(" ({} check)", change.check) };
    table.below(&format!("{} ago {}{check}: {}", age(change.ago), change.what, change.why));
    for (word, said) in [("sent", &change.sent), ("received", &change.heard)] {
        if !said.is_empty() {
            table.below(&format!("  {word} {said}"));
        }
    }
}

fn row(table: &mut Table, server: &ServerReport, with_layer4: bool) {
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
    let mut cells = vec![
        plain(server.pool.clone()),
        plain(server.server.clone()),
        plain(server.address.clone()),
        (format!("{}{backup}", server.state.word()), colour),
        plain(age(server.since)),
        plain(match server.portion {
            100 => server.weight.to_string(),
            portion => format!("{portion}% of {}", server.weight),
        }),
        plain(busy),
        plain(server.requests.to_string()),
        plain(server.probe.as_ref().map_or("-".to_owned(), |probe| short(probe.took))),
    ];
    if with_layer4 {
        let flows = server.layer4.map(|it| format!("{}/{}", it.active, it.inactive));
        let begun = server.layer4.map(|it| it.connections.to_string());
        cells.extend([flows, begun].map(|cell| plain(cell.unwrap_or_else(|| "-".to_owned()))));
    }
    table.row(cells);
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
    server.changes.iter().rev().for_each(|it| change(table, it));
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
            portion: if name == "web3" { 75 } else { 100 },
            drained: false,
            ejected: false,
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
            layer4: None,
            changes: Vec::new(),
        }
    }

    #[test]
    fn each_server_has_a_line_and_trouble_one_more() {
        let ended = ChangeReport {
            ago: Duration::from_secs(3700),
            what: "down".into(),
            why: "greeted with 421".into(),
            check: "smtp".into(),
            sent: String::new(),
            heard: "421 no\\r\\n".into(),
        };
        let servers = Servers {
            servers: vec![
                server("web1", ServerState::Up, true),
                ServerReport { changes: vec![ended], ..server("web2", ServerState::Down, false) },
                server("web3", ServerState::Down, true),
                ServerReport { probe: None, ..server("sorry", ServerState::Up, false) },
            ],
            silent_workers: vec![0],
        };
        let text = show(&servers, Style { colours: false, width: Some(88) });
        let expected = "\
POOL  SERVER  ADDRESS         STATE          FOR    WEIGHT   BUSY  REQUESTS   CHECK
web   web1    127.0.0.1:9001  up           1h 1m         2  3/100    120500  1.5 ms
web   web2    127.0.0.1:9001  down         1h 1m         2      3    120500  1.5 ms
      connection refused
      1h 1m ago down (smtp check): greeted with 421
        received 421 no\\r\\n
web   web3    127.0.0.1:9001  down         1h 1m  75% of 2      3    120500  1.5 ms
      connection refused
      last check went well: 200 (800 ms ago)
web   sorry   127.0.0.1:9001  up (backup)  1h 1m         2      3    120500       -
requests; no answer from worker 0: the numbers are incomplete
";
        assert_eq!(text, expected);
    }
}
