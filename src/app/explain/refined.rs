//! The limits, times and tries of a rule, as they can be written.

use std::time::Duration;

use crate::route::{Refined, Tuning};

pub(super) fn lines(refined: &Refined) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(bytes) = refined.body {
        lines.push(format!("limit body {}", size(bytes)));
    }
    for rate in &refined.rates {
        let per = match rate.per.as_secs() {
            1 => "s",
            60 => "m",
            3600 => "h",
            _ => "d",
        };
        lines.push(format!("limit {}/{per} per {}", rate.count, rate.key));
    }
    lines.extend(refined.connections.map(|count| format!("limit connections {count}")));
    let Some(Tuning { connect, response, idle, total, attempts, on, priority }) = refined.tuning else { return lines };
    let times = [("connect", connect), ("response", response), ("idle", idle), ("total", total)];
    let time = |(name, after): (&str, Option<Duration>)| after.map(|after| format!("timeout {name} {after:?}"));
    lines.extend(times.into_iter().filter_map(time));
    lines.extend(priority.map(|priority| format!("priority {priority}")));
    if let Some(attempts) = attempts {
        let on = match on {
            Some((true, true)) => " on connect refused-stream",
            Some((true, false)) => " on connect",
            Some((false, true)) => " on refused-stream",
            Some((false, false)) => " on nothing that is built",
            None => "",
        };
        lines.push(format!("retry {attempts}{on}"));
    }
    lines
}

fn size(bytes: u64) -> String {
    let units = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let unit = units.into_iter().find(|(_, unit)| bytes >= *unit && bytes.is_multiple_of(*unit));
    unit.map_or_else(|| format!("{bytes}B"), |(name, unit)| format!("{}{name}", bytes / unit))
}
