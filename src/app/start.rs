//! Placeholder of the start.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use super::check::Prepared;

/// How a run differs from the next.
pub struct RunOptions {
    /// Called once, when every listener accepts.
    pub ready: Box<dyn FnOnce(&Started)>,
    /// Stops by itself after this time.
    pub stop_after: Option<Duration>,
}

/// Where a started Reeve can be reached.
pub struct Started {
    /// Name of the listener and address, in the order of the file.
    pub listeners: Vec<(Arc<str>, SocketAddr)>,
    pub metrics: Vec<SocketAddr>,
    pub socket: Option<PathBuf>,
}

/// Serves until it is told to stop.
pub fn run(prepared: Prepared, options: RunOptions) -> ExitCode {
    drop((prepared.tables, options.stop_after));
    (options.ready)(&Started { listeners: Vec::new(), metrics: Vec::new(), socket: None });
    ExitCode::SUCCESS
}
