//! `reeve schema`: the JSON schema of the configuration, for editors. `tests/schema.rs` holds it against what is read.

use std::process::ExitCode;

use super::output;

const SCHEMA: &str = include_str!("../../config/reeve.schema.json");

pub fn main() -> ExitCode {
    output::print(SCHEMA);
    ExitCode::SUCCESS
}
