//! `reeve drain` and `reeve ready`: takes a server, a pool or a listener out of service and back in; shows, when it
//! is asked to, how what they have in hand comes to its end.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use super::args::DrainArguments;
use super::client::{self, ClientArgs, ClientFault};
use super::{UNEXPECTED, output};
use crate::monitor::report::{Servers, Status};
use crate::state::orders::Service;

/// How often it is asked what is left.
const LOOK: Duration = Duration::from_millis(200);

/// `reeve drain`.
pub fn drain(args: &ClientArgs, arguments: &DrainArguments) -> ExitCode {
    let service = match order(args, "drain", &arguments.name) {
        Ok(service) => service,
        Err(fault) => return client::complain(&fault),
    };
    if !arguments.wait && arguments.within.is_none() {
        return match left(args, &service) {
            Ok(left) => {
                if !args.json {
                    output::print(&format!("{}: {}\n", service.name, in_hand(&service, left)));
                }
                ExitCode::SUCCESS
            }
            Err(fault) => client::complain(&fault),
        };
    }
    match wait(args, &service, arguments.within) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(UNEXPECTED),
        Err(fault) => client::complain(&fault),
    }
}

/// `reeve ready`.
pub fn ready(args: &ClientArgs, name: &str) -> ExitCode {
    match order(args, "ready", name) {
        Ok(service) => {
            if !args.json {
                let was = if service.changed { "back in service" } else { "was in service already" };
                output::print(&format!("{}: {was}\n", service.name));
            }
            ExitCode::SUCCESS
        }
        Err(fault) => client::complain(&fault),
    }
}

fn order(args: &ClientArgs, what: &str, name: &str) -> Result<Service, ClientFault> {
    let answer = client::order(args, &format!("/api/v1/{what}?name={}", escaped(name)))?;
    let service = answer.parse()?;
    if args.json {
        output::print(&answer.text());
    }
    Ok(service)
}

/// Waits until nothing is left, and tells whenever it has become another number. False: the time was over first.
fn wait(args: &ClientArgs, service: &Service, within: Option<Duration>) -> Result<bool, ClientFault> {
    let began = Instant::now();
    let mut told = None;
    loop {
        let left = left(args, service)?;
        let passed = began.elapsed();
        let over = left == 0 || within.is_some_and(|within| passed >= within);
        if args.json && over {
            output::print(&format!("{{\"left\":{left},\"seconds\":{:.3}}}\n", passed.as_secs_f64()));
        } else if !args.json && told != Some(left) {
            let time = if told.is_some() { format!(" after {:.1} s", passed.as_secs_f64()) } else { String::new() };
            output::print(&format!("{}: {}{time}\n", service.name, in_hand(service, left)));
            told = Some(left);
        }
        if over {
            return Ok(left == 0);
        }
        std::thread::park_timeout(LOOK);
    }
}

/// Requests in hand, tunnels among them; of a listener, open connections.
fn left(args: &ClientArgs, service: &Service) -> Result<u64, ClientFault> {
    if service.kind == "listener" {
        let status: Status = client::ask(args, "/api/v1/status")?;
        let name = service.name.strip_prefix("listen.").unwrap_or(&service.name);
        return Ok(status.listeners.iter().find(|it| it.name == name).map_or(0, |it| it.connections.open));
    }
    let servers: Servers = client::ask(args, "/api/v1/servers")?;
    let (pool, server) = match service.kind.as_str() {
        "pool" => (service.name.as_str(), None),
        _ => service.name.split_once('/').map_or((service.name.as_str(), None), |(pool, name)| (pool, Some(name))),
    };
    let meant = servers.servers.iter().filter(|it| it.pool == pool && server.is_none_or(|name| it.server == name));
    Ok(meant.map(|it| it.in_flight).sum())
}

fn in_hand(service: &Service, left: u64) -> String {
    let what = if service.kind == "listener" { "connection" } else { "request" };
    match left {
        0 => "drained".to_owned(),
        1 => format!("draining, 1 {what} in hand"),
        _ => format!("draining, {left} {what}s in hand"),
    }
}

/// RFC 3986 §2.1, for a value in a query.
pub fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/:".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_into_a_target() {
        assert_eq!(escaped("web/web1"), "web/web1");
        assert_eq!(escaped("a b&c%ü"), "a%20b%26c%25%C3%BC");
    }

    #[test]
    fn what_is_left_is_told_in_words() {
        let service = |kind: &str| Service { kind: kind.into(), name: "x".into(), draining: true, changed: true };
        assert_eq!(in_hand(&service("pool"), 0), "drained");
        assert_eq!(in_hand(&service("server"), 1), "draining, 1 request in hand");
        assert_eq!(in_hand(&service("listener"), 2), "draining, 2 connections in hand");
    }
}
