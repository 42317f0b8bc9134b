//! app
pub mod client;
pub mod connections;
pub mod servers;
pub mod status;
mod table;

pub fn main() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
