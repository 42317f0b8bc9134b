//! The roof: the command line, and what each command does with the rooms below.

mod args;
pub mod check;
mod client;
mod connections;
mod demo;
mod explain;
mod output;
mod servers;
pub mod start;
mod status;
mod table;

use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use tracing_subscriber::EnvFilter;

use self::args::{Arguments, ClientArguments, Command, Format, RunArguments, TextArguments};
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
        Some(Command::Status(arguments)) => status::status(&asked(arguments)),
        Some(Command::Servers(arguments)) => servers::servers(&asked(arguments)),
        Some(Command::Connections(arguments)) => {
            connections::connections(&asked(arguments), crate::monitor::api::CONNECTIONS_SHOWN)
        }
    }
}

fn run(arguments: RunArguments) -> ExitCode {
    let mut request = request(arguments.texts);
    // An option is the last layer, as `--set` is: one way for both.
    request.overrides.extend(arguments.socket.map(|path| ("process.socket".to_owned(), absolute(&path))));
    let prepared = check::prepare(&request);
    check::tell(&prepared);
    if !prepared.is_good() {
        return prepared.exit_code();
    }
    start::run(prepared, start::RunOptions { ready: Box::new(|_| ()), stop_after: None })
}

fn request(texts: TextArguments) -> config::Request {
    config::Request { file: texts.config, base: texts.base, environment: environment(), overrides: texts.set.overrides }
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

/// Everything but the access log goes to stderr; `REEVE_LOG` says how much of it.
fn log_to_stderr() {
    let wanted = std::env::var("REEVE_LOG").unwrap_or_default();
    let (filter, wrong) = match EnvFilter::builder().parse(if wanted.is_empty() { "info" } else { &wanted }) {
        Ok(filter) => (filter, None),
        Err(error) => (EnvFilter::new("info"), Some(error)),
    };
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let subscriber =
        tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr).finish();
    // There is one already where this is called twice: in tests.
    let _ = tracing::subscriber::set_global_default(subscriber);
    if let Some(error) = wrong {
        tracing::warn!(%error, "REEVE_LOG is not understood; logging at info");
    }
}
