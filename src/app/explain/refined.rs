//! The limits, times and tries of a rule, as they can be written.

use super::report::percent;
use crate::model::Config;
use crate::route::{Auth, Refined, Tuning};

pub(super) fn lines(refined: &Refined, config: &Config) -> Vec<String> {
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
    match &refined.auth {
        Some(Auth::Basic(users)) => lines.push(format!("auth basic \"{}\"", users.file)),
        Some(Auth::Forward(url)) => lines.push(format!("auth forward {}{}", url.origin, url.target)),
        None => {}
    }
    for mirror in &refined.mirrors {
        let pool = config.pools.get(mirror.pool).map_or("?", |pool| &*pool.name);
        let share = if mirror.share == 10_000 { String::new() } else { format!(" {}%", percent(mirror.share)) };
        lines.push(format!("mirror {pool}{share}"));
    }
    let Some(Tuning { times, attempts, on, priority }) = &refined.tuning else { return lines };
    lines.extend(times.iter().map(|(which, after)| format!("timeout {} {after:?}", which.word())));
    lines.extend(priority.map(|priority| format!("priority {priority}")));
    if let Some(attempts) = attempts {
        let on = on.map(|on| format!(" on {on}")).unwrap_or_default();
        lines.push(format!("retry {attempts}{on}"));
    }
    lines
}

fn size(bytes: u64) -> String {
    let units = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let unit = units.into_iter().find(|(_, unit)| bytes >= *unit && bytes.is_multiple_of(*unit));
    unit.map_or_else(|| format!("{bytes}B"), |(name, unit)| format!("{}{name}", bytes / unit))
}
