//! What the running process says: the server that a pool would choose now, and why none of the others.

use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use super::question;
use super::report::{Live, LiveServer};
use crate::app::args::{ExplainArguments, Format};
use crate::app::client::{self, ClientArgs};
use crate::app::drain::escaped;
use crate::app::{UNEXPECTED, output};
use crate::state::orders::{Explained, Question};
use crate::state::{self, Health, LivePool, NoServer};

/// The configuration that is meant where none is named.
const DEFAULT: &str = "config/reeve.toml";

/// `reeve explain --live METHOD URL`.
pub(super) fn main(arguments: &ExplainArguments) -> ExitCode {
    let config = &arguments.texts.config;
    let named = config.as_os_str() != DEFAULT || config.exists();
    let asked = ClientArgs { socket: arguments.socket.clone(), config: named.then(|| config.clone()), json: false };
    match client::ask::<Explained>(&asked, &target(&question(arguments))) {
        Ok(explained) => {
            output::print(&match arguments.output.format {
                Format::Text => explained.text,
                Format::Json => format!("{}\n", explained.report),
            });
            if explained.routed { ExitCode::SUCCESS } else { ExitCode::from(UNEXPECTED) }
        }
        Err(fault) => client::complain(&fault),
    }
}

fn target(question: &Question) -> String {
    let mut target = format!("/api/v1/explain?method={}", escaped(&question.method));
    let mut add = |name: &str, value: &str| target += &format!("&{name}={}", escaped(value));
    question.url.iter().for_each(|url| add("url", url));
    question.headers.iter().for_each(|(name, value)| add("header", &format!("{name}:{value}")));
    add("from", &question.from.to_string());
    question.body.iter().for_each(|body| add("body", body));
    question.cert.iter().for_each(|cert| add("cert", cert));
    question.listener.iter().for_each(|listener| add("listener", listener));
    add("roll", &format!("{}.{:02}", question.roll / 100, question.roll % 100));
    target
}

/// The pool's own choice, without making it. `key` is the hash of what a rule or the pool goes by.
pub(super) fn look(pool: &LivePool, key: Option<u64>) -> Live {
    let next = pool.next(key);
    let chosen = next.as_ref().ok().map(|server| server.id());
    let backups_serve = next.as_ref().is_ok_and(|server| server.is_backup());
    let servers = pool.servers().iter().map(|server| {
        let (state, why) = match chosen == Some(server.id()) {
            true => ("picked", String::new()),
            false => out(server, backups_serve),
        };
        LiveServer { name: server.name().to_string(), address: server.configured_address().to_string(), state, why }
    });
    Live {
        servers: servers.collect(),
        picked: next.map(|server| server.name().to_string()).map_err(|none| match none {
            NoServer::Down => "none: no server is up, 503",
            NoServer::Full => "none: every server that is up is full",
        }),
    }
}

/// Why a server is not the one. The same things, in the same order of weight, keep it out of the pool's plan.
fn out(server: &state::LiveServer, backups_serve: bool) -> (&'static str, String) {
    let standing = server.standing();
    if server.is_drained() {
        return ("drained", format!("drained by hand {}", ago(server.drained_since())));
    }
    if standing.health == Health::Down {
        return ("down", format!("down since {}: {}", ago(standing.since), standing.why));
    }
    if server.weight() == 0 {
        return ("weight-0", "its weight is 0".to_owned());
    }
    if server.portion() == 0 {
        return ("held-back", format!("it takes no new request: {}", server.advice().words()));
    }
    let in_flight = server.in_flight();
    if let Some(limit) = server.limit().filter(|limit| in_flight >= *limit) {
        return ("full", format!("full: {in_flight} of {limit} requests in hand"));
    }
    if server.is_backup() && !backups_serve {
        return ("backup", "a backup, and others are up".to_owned());
    }
    ("open", format!("it could be, another one is next; {in_flight} requests in hand"))
}

/// `12 s ago`.
fn ago(then: SystemTime) -> String {
    // The clock may have been set back.
    let age = SystemTime::now().duration_since(then).unwrap_or(Duration::ZERO).as_secs();
    match age {
        0..120 => format!("{age} s ago"),
        120..7200 => format!("{} min ago", age / 60),
        7200..172_800 => format!("{} h ago", age / 3600),
        _ => format!("{} days ago", age / 86_400),
    }
}
