//! `reeve status`: what runs, since when, and how it fares.

use std::process::ExitCode;

use super::client::{ClientArgs, command};
use super::table::{Align, Colour, Style, Table, age, size};
use crate::monitor::report::Status;

pub fn status(args: &ClientArgs) -> ExitCode {
    command(args, "/api/v1/status", |status| show(status, Style::of_stdout()))
}

fn show(status: &Status, style: Style) -> String {
    let mut out = format!(
        "{}   pid {}   up {}   configuration {}{}\n",
        style.paint(Colour::Bold, &format!("reeve {}", status.version)),
        status.pid,
        age(status.uptime),
        status.generation,
        match status.config.notes {
            0 => String::new(),
            1 => " (1 note)".to_owned(),
            notes => format!(" ({notes} notes)"),
        }
    );
    if status.draining {
        out += &style.paint(Colour::Warn, "draining: requests in flight are finished, then it ends\n");
    }
    let classes: Vec<String> =
        status.requests.by_class.iter().map(|(class, count)| format!("{class} {count}")).collect();
    let classes = if classes.is_empty() { String::new() } else { format!(" ({})", classes.join(", ")) };
    out += &format!("requests     {}{classes}\n", status.requests.total);
    let open = status.connections;
    out += &format!("connections  {} ({} active, {} idle)\n", open.open, open.active, open.idle);
    out += &format!("pools        {} of {} up", status.pools.up, status.pools.total);
    if !status.pools_down.is_empty() {
        out += &style.paint(Colour::Bad, &format!("; down: {}", status.pools_down.join(", ")));
    }
    out += &format!("\nservers      {} of {} up\n", status.servers.up, status.servers.total);
    out += &format!("workers      {}{}\n", status.workers.count, silent(&status.workers.silent, style));
    let config = &status.config;
    if config.reloads + config.reloads_refused > 0 {
        let refused = match config.reloads_refused {
            0 => String::new(),
            refused => style.paint(Colour::Warn, &format!(", {refused} refused")),
        };
        let ago = if config.reloads > 0 { format!("; the last {} ago", age(config.loaded_ago)) } else { String::new() };
        out += &format!("reloads      {}{refused}{ago}\n", config.reloads);
    }

    let upgrades = &status.upgrades;
    if upgrades.done + upgrades.refused > 0 {
        let refused = match upgrades.refused {
            0 => String::new(),
            refused => style.paint(Colour::Warn, &format!(", {refused} refused")),
        };
        out += &format!("upgrades     {}{refused}\n", upgrades.done);
    }
    for old in &upgrades.old {
        let connections = match old.connections {
            1 => "1 connection".to_owned(),
            count => format!("{count} connections"),
        };
        let ends = if old.hurried { ", told to end" } else { "" };
        let (pid, version, age) = (old.pid, &old.version, age(old.age));
        out += &format!("before       pid {pid}, {version}: replaced {age} ago, {connections}{ends}\n");
    }

    let mut table = Table::new(&[
        ("LISTENER", Align::Left),
        ("ADDRESS", Align::Left),
        ("OPEN", Align::Right),
        ("ACTIVE", Align::Right),
        ("REQUESTS", Align::Right),
        ("REJECTED", Align::Right),
        ("IN", Align::Right),
        ("OUT", Align::Right),
    ]);
    for listener in &status.listeners {
        let mut addresses = listener.addresses.iter().map(ToString::to_string);
        let plain = |text: String| (text, Colour::Plain);
        table.row([
            plain(listener.name.clone()),
            plain(addresses.next().unwrap_or_default()),
            plain(listener.connections.open.to_string()),
            plain(listener.connections.active.to_string()),
            plain(listener.requests.to_string()),
            plain(listener.rejected.to_string()),
            plain(size(listener.bytes_received)),
            plain(size(listener.bytes_sent)),
        ]);
        for address in addresses {
            table.below(&address);
        }
        if listener.draining {
            table.below("drained by hand, not in the file: closed, what is open on it is finished");
        } else if !listener.open {
            table.below(&format!("not open: {} is not built yet", listener.protocol));
        }
    }
    out + "\n" + &table.render(style)
}

/// What is missing when workers do not answer.
pub fn silent(workers: &[usize], style: Style) -> String {
    if workers.is_empty() {
        return String::new();
    }
    let numbers: Vec<String> = workers.iter().map(ToString::to_string).collect();
    let text = format!("; no answer from worker {}: the numbers are incomplete", numbers.join(", "));
    style.paint(Colour::Warn, &text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::report::{
        ConfigReport, Gauges, ListenerReport, OldReport, RequestsReport, Share, UpgradesReport, WorkersReport,
    };

    #[test]
    fn the_status_fits_eighty_columns() {
        let open = Gauges { open: 1203, active: 17, idle: 1186 };
        let listener = |name: &str, addresses: &[&str], built| ListenerReport {
            name: name.into(),
            protocol: "http".into(),
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
            open: built,
            draining: false,
            connections: if built { open } else { Gauges::default() },
            accepted: 5000,
            requests: 120_500,
            rejected: 3,
            bytes_received: 5_000_000,
            bytes_sent: 7_340_032_000,
        };
        let status = Status {
            version: "0.1.0".into(),
            pid: 42,
            uptime: std::time::Duration::from_secs(93_784),
            generation: 3,
            draining: false,
            workers: WorkersReport { count: 2, silent: vec![1] },
            listeners: vec![
                listener("web", &["127.0.0.1:8080", "[::1]:8080"], true),
                listener("media", &["127.0.0.1:8554"], false),
            ],
            connections: open,
            requests: RequestsReport {
                total: 120_500,
                by_class: [("2xx".to_owned(), 120_000), ("5xx".to_owned(), 500)].into(),
            },
            pools: Share { total: 2, up: 1 },
            pools_down: vec!["images".into()],
            servers: Share { total: 4, up: 2 },
            config: ConfigReport {
                notes: 2,
                reloads: 2,
                reloads_refused: 1,
                loaded_ago: std::time::Duration::from_secs(3700),
            },
            upgrades: UpgradesReport {
                done: 2,
                refused: 1,
                old: vec![OldReport {
                    pid: 40,
                    version: "0.0.9".into(),
                    age: std::time::Duration::from_secs(62),
                    connections: 3,
                    hurried: true,
                }],
            },
        };
        let text = show(&status, Style { colours: false, width: Some(80) });
        let expected = "\
reeve 0.1.0   pid 42   up 1d 2h   configuration 3 (2 notes)
requests     120500 (2xx 120000, 5xx 500)
connections  1203 (17 active, 1186 idle)
pools        1 of 2 up; down: images
servers      2 of 4 up
workers      2; no answer from worker 1: the numbers are incomplete
reloads      2, 1 refused; the last 1h 1m ago
upgrades     2, 1 refused
before       pid 40, 0.0.9: replaced 1m 2s ago, 3 connections, told to end

LISTENER  ADDRESS         OPEN  ACTIVE  REQUESTS  REJECTED       IN      OUT
web       127.0.0.1:8080  1203      17    120500         3  4.8 MiB  6.8 GiB
          [::1]:8080
media     127.0.0.1:8554     0       0    120500         3  4.8 MiB  6.8 GiB
          not open: http is not built yet
";
        assert_eq!(text, expected);
    }
}
