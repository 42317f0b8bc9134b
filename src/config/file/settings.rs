//! `[timeouts]` and `[limits]`: tables of which every key has a default.

use std::time::Duration;

use super::super::node::Node;
use super::super::units;
use super::walk::{Fields, Walk};
use crate::model::{Limits, Timeouts};

/// One key of `[timeouts]`.
pub struct Timeout {
    pub name: &'static str,
    /// Whether a pool can have its own: those that are waited for after the pool was chosen.
    pool: bool,
    /// Whether zero means something.
    zero: bool,
    pub get: fn(&Timeouts) -> &Duration,
    set: fn(&mut Timeouts) -> &mut Duration,
}

macro_rules! timeout {
    ($name:literal, $field:ident, $pool:literal, $zero:literal) => {
        Timeout { name: $name, pool: $pool, zero: $zero, get: |t| &t.$field, set: |t| &mut t.$field }
    };
}

pub const TIMEOUTS: [Timeout; 16] = [
    timeout!("request-header", request_header, false, false),
    timeout!("request-body", request_body, true, false),
    timeout!("client-keep-alive", client_keep_alive, false, false),
    timeout!("client-write", client_write, true, false),
    timeout!("queue", queue, true, false),
    timeout!("connect", connect, true, false),
    timeout!("response", response, true, false),
    timeout!("response-body", response_body, true, false),
    timeout!("server-keep-alive", server_keep_alive, true, false),
    timeout!("tunnel", tunnel, true, false),
    timeout!("tcp-idle", tcp_idle, true, false),
    timeout!("half-closed", half_closed, true, false),
    timeout!("hello", hello, false, false),
    timeout!("proxy-header", proxy_header, false, false),
    timeout!("tls-handshake", tls_handshake, true, false),
    // Zero: leave at once.
    timeout!("drain", drain, false, true),
];

/// `[timeouts]`, or a pool's own laid over them.
pub fn timeouts(walk: &Walk<'_>, node: &Node, title: &str, pool: bool, times: &mut Timeouts) {
    let Some(mut fields) = Fields::of(walk, node, title) else { return };
    for key in TIMEOUTS.iter().filter(|key| key.pool || !pool) {
        if let Some(entry) = fields.get(key.name)
            && let Some(time) = walk.duration(&entry.node, key.name, key.zero)
        {
            *(key.set)(times) = time;
        }
    }
    for key in TIMEOUTS.iter().filter(|key| !key.pool && pool) {
        fields.misplaced(key.name, "it belongs to [timeouts]: it runs while no pool is chosen");
    }
    fields.finish();
}

/// One key of `[limits]`.
pub struct Limit {
    pub name: &'static str,
    size: bool,
    least: u64,
    most: u64,
    get: fn(&Limits) -> u64,
    set: fn(&mut Limits, u64),
}

macro_rules! limit {
    ($name:literal, $field:ident, $size:literal, $least:expr, $most:expr) => {
        Limit {
            name: $name,
            size: $size,
            least: $least,
            most: $most,
            get: |l| u64::try_from(l.$field).unwrap_or(u64::MAX),
            // Out of reach: `most` fits.
            set: |l, value| l.$field = value.try_into().unwrap_or(l.$field),
        }
    };
}

const KIB: u64 = 1 << 10;

pub const LIMITS: [Limit; 11] = [
    // 1 KiB: a request of any browser has more, so that less is a slip.
    limit!("header-bytes", header_bytes, true, KIB, Limits::HEADER_BYTES_CEILING as u64),
    limit!("header-count", header_count, false, 1, Limits::HEADER_COUNT_CEILING as u64),
    limit!("target-bytes", target_bytes, true, 64, Limits::HEADER_BYTES_CEILING as u64),
    limit!("chunk-extension-bytes", chunk_extension_bytes, true, 0, 64 * KIB),
    limit!("chunk-extensions-total", chunk_extensions_total, true, 0, KIB * KIB),
    limit!("trailer-bytes", trailer_bytes, true, 0, KIB * KIB),
    limit!("trailer-count", trailer_count, false, 0, Limits::HEADER_COUNT_CEILING as u64),
    limit!("connections", connections, false, 0, 10_000_000),
    limit!("memory", memory, true, 0, 1 << 50),
    limit!("idle-per-server", idle_per_server, false, 0, 65_535),
    limit!("requests-per-connection", requests_per_connection, false, 0, u64::MAX),
];

impl Limit {
    /// The default as it is written in the configuration.
    pub fn default_text(&self, limits: &Limits) -> String {
        let value = (self.get)(limits);
        if self.size { units::size_text(value) } else { value.to_string() }
    }
}

pub fn limits(walk: &Walk<'_>, node: &Node) -> Limits {
    let mut limits = Limits::default();
    let Some(mut fields) = Fields::of(walk, node, "[limits]") else { return limits };
    let mut target = None;
    for key in &LIMITS {
        let Some(entry) = fields.get(key.name) else { continue };
        let value = match key.size {
            true => walk.size(&entry.node, key.name, key.least, key.most),
            false => walk.integer(&entry.node, key.name, key.least, key.most),
        };
        if let Some(value) = value {
            (key.set)(&mut limits, value);
        }
        if key.name == "target-bytes" {
            target = Some(&entry.node);
        }
    }
    fields.finish();
    if let Some(node) = target.filter(|_| limits.target_bytes > limits.header_bytes) {
        let fault = walk.warning("R0155", node, "target-bytes is more than header-bytes, which holds the target too");
        walk.push(fault.help("header-bytes decides"));
    }
    limits
}
