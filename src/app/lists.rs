//! `reeve list`: the lists and maps of the running process, and entries added and removed.

use std::fmt::Write;
use std::io::Read;
use std::process::ExitCode;

use super::args::{EntriesWhat, ListArguments};
use super::client::{self, ClientArgs, ClientFault};
use super::drain::escaped;
use super::output;
use crate::monitor::report::Problem;
use crate::state::orders::{EntriesEdited, ListInForce};

pub fn main(args: &ClientArgs, arguments: &ListArguments) -> ExitCode {
    match (&arguments.name, arguments.what) {
        (None, _) => client::command(args, "/api/v1/lists", all),
        (Some(name), None) => client::command(args, &target(name), one),
        (Some(name), Some(what)) => match edit(args, name, what, &arguments.entries) {
            Ok(text) => {
                output::print(&text);
                ExitCode::SUCCESS
            }
            Err(fault) => client::complain(&fault),
        },
    }
}

fn target(name: &str) -> String {
    format!("/api/v1/lists/{}", escaped(name).replace('/', "%2F"))
}

fn all(lists: &Vec<ListInForce>) -> String {
    let mut out = String::new();
    let width = lists.iter().map(|list| list.name.chars().count()).max().unwrap_or_default();
    for ListInForce { name, kind, file, count, .. } in lists {
        let _ = writeln!(out, "{name:<width$}  {kind:<4}  {count:>9} entries  {file}");
    }
    if out.is_empty() { "the rules declare no list and no map\n".to_owned() } else { out }
}

fn one(list: &ListInForce) -> String {
    list.entries.iter().map(|entry| format!("{entry}\n")).collect()
}

fn edit(args: &ClientArgs, name: &str, what: EntriesWhat, entries: &[String]) -> Result<String, ClientFault> {
    let mut text = String::new();
    for entry in entries {
        if entry == "-" {
            let read = std::io::stdin().read_to_string(&mut text);
            read.map_err(|error| ClientFault::Refused(format!("stdin: {error}")))?;
            text.push('\n');
        } else {
            let _ = writeln!(text, "{entry}");
        }
    }
    let method = if what == EntriesWhat::Add { "POST" } else { "DELETE" };
    let told = client::send(args, method, &target(name), &text)?;
    if let Ok(Problem { error }) = told.parse() {
        return Err(ClientFault::Refused(error.trim_end().to_owned()));
    }
    if args.json {
        return Ok(told.text());
    }
    let EntriesEdited { name, file, added, removed, unchanged, count } = told.parse()?;
    let left = match (unchanged, what) {
        (0, _) => String::new(),
        (_, EntriesWhat::Add) => format!(", {unchanged} there already"),
        (_, EntriesWhat::Remove) => format!(", {unchanged} not there"),
    };
    Ok(format!("{name}: {added} added, {removed} removed{left}; {count} entries in {file}\n"))
}
