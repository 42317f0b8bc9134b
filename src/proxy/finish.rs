//! The end of a request: the counters, and one line in the access log.

use std::ops::Range;
use std::time::Duration;

use super::access_log::Entry;
use super::client::Client;
use super::failure::Side;
use super::outcome::{Outcome, Progress};
use super::plan::Plan;
use super::worker::Worker;
use crate::state::counters::{AffinityResult, NONE, RequestLabels};
use crate::wire::http1::request::Version;

pub fn finish(worker: &Worker, client: &Client<'_, '_>, plan: &Plan, outcome: &Outcome, progress: &Progress) {
    let total = progress.started.elapsed();
    let connection = client.connection;
    let labels = RequestLabels {
        listener: connection.listener,
        pool: outcome.pool.as_ref().map_or(NONE, |pool| pool.id()),
        server: outcome.server.as_ref().map_or(NONE, |server| server.id()),
    };
    let received = plan.head_bytes as u64 + outcome.body_in;
    let sent = progress.heads_out.get() + outcome.body_out;
    connection.received.set(connection.received.get() + received);
    connection.sent.set(connection.sent.get() + sent);
    {
        let mut counters = worker.counters.borrow_mut();
        counters.request(labels, outcome.status, total, outcome.first_byte);
        counters.bytes(connection.listener, received, sent);
        if let Some(result) = outcome.affinity {
            counters.affinity(labels.pool, result);
        }
        if let Some(rule) = plan.rule {
            counters.rule_hit(&plan.view.snapshot.rule_names, rule);
        }
        if let Some(reason) = outcome.failure.as_ref().and_then(|failure| failure.kind.rejected()) {
            counters.rejected(connection.listener, reason);
        } else if let Some(reason) = plan.turned_away {
            counters.rejected(connection.listener, reason);
        }
    }
    if let Some(failure) = outcome.failure.as_ref().filter(|failure| failure.kind.side() != Some(Side::Downstream)) {
        tracing::debug!(client = %connection.client.get(), status = outcome.status, failure = failure.kind.word(), "{}", failure.detail);
    }
    if let Some(log) = worker.log.borrow_mut().as_mut() {
        log.record(&entry(worker, client, plan, outcome, progress, total));
    }
}

fn entry<'a>(
    worker: &Worker,
    client: &'a Client<'_, '_>,
    plan: &'a Plan,
    outcome: &'a Outcome,
    progress: &Progress,
    total: Duration,
) -> Entry<'a> {
    let quoted = client.quoted();
    let part = |range: &Range<u32>| quoted.get(range.start as usize..range.end as usize).unwrap_or_default();
    let some = |range: &Range<u32>| Some(part(range)).filter(|part| !part.is_empty());
    let connection = client.connection;
    let snapshot = &plan.view.snapshot;
    Entry {
        unix_ms: worker.unix_ms(progress.started),
        id: progress.id,
        listener: plan.view.listener(connection.listener).map(|listener| &*listener.name).unwrap_or("-"),
        client: connection.client.get(),
        proto: match plan.version {
            Version::Http11 => "HTTP/1.1",
            Version::Http10 => "HTTP/1.0",
            Version::Http2 => "HTTP/2.0",
        },
        tls: connection.tls.get().map(|tls| tls.version),
        sni: connection.tls.get().and_then(|tls| Some(tls.sni.as_deref()?.as_bytes())),
        method: part(&plan.seen.method),
        host: some(&plan.seen.host),
        path: part(&plan.seen.path),
        query: plan.seen.query.as_ref().map(part),
        status: outcome.status,
        rule: plan.rule.and_then(|rule| snapshot.rule_names.get(rule)).map(|name| &**name),
        pool: outcome.pool.as_ref().map(|pool| &**pool.name()),
        server: outcome.server.as_ref().map(|server| &**server.name()),
        tries: outcome.tries,
        bytes_in: outcome.body_in,
        bytes_out: outcome.body_out,
        t_queue: outcome.queued,
        t_connect: outcome.connect,
        t_header: outcome.first_byte.unwrap_or_default(),
        t_total: total,
        affinity: outcome.affinity.map(AffinityResult::as_str),
        failure: outcome.failure.as_ref().map(|failure| failure.kind.word()),
        side: outcome.failure.as_ref().map(|failure| failure.kind.side().map_or("reeve", Side::word)),
        matched: plan.matched.as_deref(),
        referer: some(&plan.seen.referer),
        user_agent: some(&plan.seen.user_agent),
    }
}
