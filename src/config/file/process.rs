//! The process itself: `[process]`, `[log]`, `[state]`, `[monitor]`, `[errors]`.

use std::path::PathBuf;
use std::sync::Arc;

use super::super::node::Node;
use super::super::units;
use super::listen::{addresses, place_of};
use super::walk::{Fields, Walk};
use super::{File, Named};
use crate::model::Fault;
use crate::model::config::{AccessLog, Log, LogFormat, LogTarget, Process};

/// A page of `[errors]` that is still to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    pub status: u16,
    pub file: Named,
}

pub fn process(walk: &Walk<'_>, node: &Node) -> Process {
    let mut process = Process::default();
    let Some(mut fields) = Fields::of(walk, node, "[process]") else { return process };
    if let Some(entry) = fields.get("workers") {
        let workers = walk.integer(&entry.node, "workers", 1, 1024);
        process.workers = workers.and_then(|workers| usize::try_from(workers).ok());
    }
    if let Some(entry) = fields.get("socket") {
        process.socket = walk.text(&entry.node, "socket").map(PathBuf::from);
    }
    fields.finish();
    process
}

pub fn log(walk: &Walk<'_>, node: &Node) -> Log {
    let mut log = Log::default();
    let Some(mut fields) = Fields::of(walk, node, "[log]") else { return log };
    if let Some(entry) = fields.get("access")
        && let Some(mut fields) = Fields::of(walk, &entry.node, "[log] access")
    {
        let format = fields.get("format").and_then(|entry| walk.word(&entry.node, "format", &["json", "text"]));
        let path = fields.require("path", "a file, or \"-\" for the standard output");
        let path = path.and_then(|entry| walk.text(&entry.node, "path"));
        fields.finish();
        log.access = path.map(|path| AccessLog {
            format: if format == Some("text") { LogFormat::Text } else { LogFormat::Json },
            target: if path == "-" { LogTarget::Stdout } else { LogTarget::File(PathBuf::from(path)) },
        });
    }
    fields.finish();
    log
}

pub fn state(walk: &Walk<'_>, node: &Node) -> Option<Arc<str>> {
    let mut fields = Fields::of(walk, node, "[state]")?;
    let path = fields.get("path").and_then(|entry| walk.text(&entry.node, "path"));
    fields.finish();
    path.map(Arc::from)
}

pub fn monitor(walk: &Walk<'_>, node: &Node, file: &mut File) {
    let Some(mut fields) = Fields::of(walk, node, "[monitor]") else { return };
    if let Some(entry) = fields.get("address") {
        file.monitor_taken.extend(addresses(walk, &entry.node, "address"));
        walk.not_built(&entry.key_origin, "[monitor] address");
    }
    if let Some(entry) = fields.get("metrics-address") {
        let taken = addresses(walk, &entry.node, "metrics-address");
        file.monitor.metrics_addresses = taken.iter().map(|taken| taken.address).collect();
        file.monitor_taken.extend(taken);
    }
    fields.finish();
}

/// `[errors]`: `503 = "pages/503.html"`.
pub fn errors(walk: &Walk<'_>, node: &Node) -> Vec<Page> {
    let mut pages = Vec::new();
    for entry in walk.entries(node, "[errors]").unwrap_or_default() {
        let status = units::status(&entry.key).filter(|status| *status >= 400);
        if status.is_none() {
            let message = format!("\"{}\" is not the status of an error", entry.key);
            walk.push(Fault::error("R0114", walk.place(&entry.key_origin), message).allowed(["400 to 599"]));
        }
        let name = walk.text(&entry.node, &format!("the page for {}", entry.key));
        if let (Some(status), Some(name)) = (status, name) {
            pages.push(Page { status, file: place_of(walk, &entry.node, name) });
        }
    }
    pages
}
