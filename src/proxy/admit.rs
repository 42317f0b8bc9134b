//! Whether a rule lets a request in: its limits, asked while the request is planned and before any server is.

use std::net::IpAddr;
use std::time::Instant;

use super::failure::{Failure, FailureKind};
use super::plan::Plan;
use super::worker::Worker;
use crate::model::rule::Key;
use crate::route::{self, Rate, Refined, Rule};
use crate::wire::http1::{ChunkFault, Framing};

/// Takes what the rule's limits have for one request.
///
/// # Errors
/// 429, 413 or 503, where there is nothing left of one.
pub fn admit(
    worker: &Worker,
    plan: &mut Plan,
    rule: &Rule,
    refined: &Refined,
    head: &route::Head<'_>,
) -> Result<(), Failure> {
    take_rates(worker, refined, rule, head)?;
    if let Some(most) = refined.body {
        plan.most_body = most;
        if matches!(plan.body, Framing::Length(length) if length > most) {
            let fault = ChunkFault::BodyTooLarge;
            return Err(Failure::new(FailureKind::Body(fault), fault.detail()));
        }
    }
    if let Some(most) = refined.connections {
        let crowd = plan.rule.and_then(|rule| plan.view.snapshot.crowds.get(&rule));
        if let Some(crowd) = crowd {
            let place = crowd.enter(most);
            plan.place = Some(
                place.ok_or_else(|| Failure::new(FailureKind::RuleFull, "the rule's requests are at their limit"))?,
            );
        }
    }
    Ok(())
}

/// Takes what the rule's rates have for one request.
///
/// # Errors
/// When there is nothing left of one.
pub fn take_rates(worker: &Worker, refined: &Refined, rule: &Rule, head: &route::Head<'_>) -> Result<(), Failure> {
    refined.rates.iter().try_for_each(|rate| take(worker, rate, rule, head))
}

fn take(worker: &Worker, rate: &Rate, rule: &Rule, head: &route::Head<'_>) -> Result<(), Failure> {
    let (rates, now) = (worker.farm.rates(), Instant::now());
    let ask = |value: &[u8]| rates.take(&rate.label, value, rate.count, rate.per, now);
    let taken = match (&rate.key, head.source.to_canonical()) {
        (Key::Source, IpAddr::V4(address)) => ask(&address.octets()),
        // One client has a whole /64 to take addresses from.
        (Key::Source, IpAddr::V6(address)) => ask(&address.octets()[..8]),
        // Those that have no such value are one.
        (key, _) => route::value(key, Some(rule), head, ask).unwrap_or_else(|| ask(b"")),
    };
    taken.map_err(|wait| {
        let seconds = wait.as_millis().div_ceil(1000).clamp(1, u32::MAX.into()) as u32;
        Failure::new(FailureKind::Rate(seconds), "the rule's rate is used up")
    })
}
