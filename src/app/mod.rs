//! The roof: the command line, and what each command does with the rooms below.

mod args;
pub mod check;
mod client;
mod connections;
mod demo;
mod drain;
mod explain;
mod hash_password;
pub mod import;
mod ipvsadm;
mod lists;
mod output;
mod overlaps;
#[cfg(test)]
mod random;
mod real_server;
mod reload;
mod replay;
mod running;
mod schema;
mod servers;
pub mod start;
mod state_folder;
mod status;
mod table;
mod upgrade;
mod upgrading;

use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use self::args::{Arguments, ClientArguments, Command, Format, ReloadWhat, RunArguments, TextArguments};
use self::client::ClientArgs;
use crate::config;

/// An `expect` line failed, or a request has no route.
pub const UNEXPECTED: u8 = 1;
/// A fault in a text.
pub const FAULT: u8 = 2;
/// An address in use, a privilege missing.
pub const START_FAILED: u8 = 4;

/// Does what the command line says; its answer is the process's.
pub fn main() -> ExitCode {
    // Its words are its own: `-h`, `-c` and `-L` mean what they mean there.
    if let Some(words) = ipvsadm::words(std::env::args_os()) {
        return ipvsadm::main(&words);
    }
    let arguments = Arguments::parse();
    log_to_stderr();
    match arguments.command {
        None => {
            output::print(&Arguments::command().render_long_help().to_string());
            ExitCode::SUCCESS
        }
        Some(Command::Run(arguments)) => run(arguments),
        Some(Command::Demo(arguments)) => demo::main(arguments),
        Some(Command::Check(arguments)) => check::main(&arguments),
        Some(Command::Explain(arguments)) => explain::main(&arguments),
        Some(Command::Replay(arguments)) => replay::main(&arguments),
        Some(Command::Schema) => schema::main(),
        Some(Command::Import(arguments)) => import::main(&arguments),
        Some(Command::HashPassword(arguments)) => hash_password::main(&arguments.name),
        Some(Command::Status(arguments)) => status::status(&asked(arguments)),
        Some(Command::Servers(arguments)) => {
            servers::servers(&asked(arguments.client), arguments.name.as_deref(), arguments.long)
        }
        Some(Command::Connections(arguments)) => {
            connections::connections(&asked(arguments), crate::monitor::api::CONNECTIONS_SHOWN)
        }
        Some(Command::Drain(arguments)) => drain::drain(&asked(arguments.client.clone()), &arguments),
        Some(Command::Ready(arguments)) => drain::ready(&asked(arguments.client), &arguments.name),
        Some(Command::List(arguments)) => lists::main(&asked(arguments.client.clone()), &arguments),
        Some(Command::Reload(arguments)) => {
            reload::reload(&asked(arguments.client), arguments.what == Some(ReloadWhat::Lists))
        }
        Some(Command::Ipvsadm(arguments)) => ipvsadm::main(&arguments.words),
        Some(Command::RealServer(arguments)) => real_server::main(&arguments),
        Some(Command::Upgrade(arguments)) => upgrading::upgrade(&asked(arguments.client.clone()), &arguments),
    }
}

fn run(arguments: RunArguments) -> ExitCode {
    let mut request = request(arguments.texts);
    // An option is the last layer, as `--set` is: one way for both.
    request.overrides.extend(arguments.socket.map(|path| ("process.socket".to_owned(), absolute(&path))));
    let (origin, before) = (upgrade::Origin::of_this_process(), upgrade::socket());
    let before = match before {
        Ok(before) => before,
        Err(error) => {
            output::complain(&format!("reeve: {error}\n"));
            return ExitCode::from(START_FAILED);
        }
    };
    let prepared = check::prepare(&request);
    check::tell(&prepared);
    if !prepared.is_good() {
        if let Some(before) = before {
            upgrade::refuse(before, &config::fault::text(&prepared.load.faults, &prepared.load.sources));
        }
        return prepared.exit_code();
    }
    let ready = Box::new(|_: &start::Started| ());
    start::run(prepared, start::RunOptions { request, ready, stop_after: None, origin, before })
}

fn request(texts: TextArguments) -> config::Request {
    config::Request {
        file: texts.config,
        base: texts.base,
        rules: None,
        environment: environment(),
        overrides: texts.set.overrides,
    }
}

/// The variables that can be read; `config` finds its own among them.
fn environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// A path given on the command line starts where its user is, not at the base folder.
fn absolute(path: &Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).to_string_lossy().into_owned()
}

fn asked(arguments: ClientArguments) -> ClientArgs {
    ClientArgs { socket: arguments.socket, config: arguments.config, json: arguments.output.format == Format::Json }
}

/// Without `h2`, which warns of what clients do wrong: they could fill the log.
const DEFAULT_LOG: &str = "info,h2=off";

/// Everything but the access log goes to stderr; `REEVE_LOG` says how much of it.
fn log_to_stderr() {
    let wanted = std::env::var("REEVE_LOG").unwrap_or_default();
    let filter = if wanted.is_empty() { Some(EnvFilter::new(DEFAULT_LOG)) } else { log_filter(&wanted) };
    let wrong = filter.is_none();
    let filter = filter.unwrap_or_else(|| EnvFilter::new(DEFAULT_LOG));
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    // What cannot be written is lost. To say so would be a panic, for that cannot be written either.
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(colours)
        .with_writer(std::io::stderr)
        .log_internal_errors(false)
        .finish();
    // There is one already where this is called twice: in tests.
    let _ = tracing::subscriber::set_global_default(subscriber);
    if wrong {
        tracing::warn!(
            "REEVE_LOG={wanted} is not understood, logging at info; write a level or PART=LEVEL, such as info,reeve::health=debug"
        );
    }
}

/// A bare word is a level: as the name of a part it would silence all others.
fn log_filter(wanted: &str) -> Option<EnvFilter> {
    let word = |part: &str| part.contains('=') || !part.is_empty() && part.parse::<LevelFilter>().is_ok();
    wanted.split(',').all(word).then(|| EnvFilter::builder().parse(wanted).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::log_filter;

    #[test]
    fn what_is_logged_is_a_level_or_levels_of_parts() {
        for good in ["debug", "off", "info,reeve::health=debug", "warn,reeve=trace"] {
            assert!(log_filter(good).is_some(), "{good}");
        }
        for wrong in ["verbose", "reeve", "a=b=c", "info,", "reeve=loud"] {
            assert!(log_filter(wrong).is_none(), "{wrong}");
        }
    }
}
