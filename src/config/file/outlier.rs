//! `outlier` of a pool: which servers are left alone for a while, by how they answer.

use super::super::node::Node;
use super::walk::{Fields, Walk};
use crate::model::pool::Outlier;

/// In a row, where nothing at all is said of what is bad.
const IN_A_ROW: u32 = 5;

pub fn read(walk: &Walk<'_>, node: &Node, pool: &str) -> Option<Outlier> {
    let mut fields = Fields::of(walk, node, format!("[pool.{pool}] outlier"))?;
    let mut outlier = Outlier::default();
    let mut count = |key: &'static str, least: u64| {
        let value = walk.integer(&fields.get(key)?.node, key, least, 1_000_000)?;
        u32::try_from(value).ok()
    };
    outlier.consecutive_5xx = count("consecutive-5xx", 1);
    outlier.consecutive_failures = count("consecutive-failures", 1);
    outlier.least_requests = count("least-requests", 1).unwrap_or(outlier.least_requests);
    let mut share = |key: &'static str| walk.percent(&fields.get(key)?.node, key);
    outlier.failure_rate = share("failure-rate");
    outlier.eject_at_most = share("eject-at-most").unwrap_or(outlier.eject_at_most);
    outlier.panic = share("panic").unwrap_or(outlier.panic);
    let slower = fields.get("slower-than");
    outlier.slower_than = slower.and_then(|entry| walk.number(&entry.node, "slower-than", 1.0, 1_000.0));
    let mut time = |key: &'static str| walk.duration(&fields.get(key)?.node, key, false);
    outlier.window = time("window").unwrap_or(outlier.window);
    outlier.eject_for = time("eject-for").unwrap_or(outlier.eject_for);
    outlier.eject_for_at_most = time("eject-for-at-most").unwrap_or(outlier.eject_for_at_most).max(outlier.eject_for);
    let says = outlier.consecutive_5xx.is_some()
        || outlier.consecutive_failures.is_some()
        || outlier.failure_rate.is_some()
        || outlier.slower_than.is_some();
    if !says {
        (outlier.consecutive_5xx, outlier.consecutive_failures) = (Some(IN_A_ROW), Some(IN_A_ROW));
    }
    fields.finish();
    Some(outlier)
}
