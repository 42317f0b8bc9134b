//! The end of a connection that was passed on unread: the counters, and one line in the access log.

use std::time::Duration;

use super::super::access_log::Entry;
use super::{Ending, Session};

pub(super) fn finish(session: &Session<'_>, ending: Ending) {
    let (worker, connection) = (session.worker, session.connection);
    {
        // Bytes were counted as they came.
        let mut counters = worker.counters.borrow_mut();
        if let Some(rule) = session.rule {
            counters.rule_hit(&session.view.snapshot.rule_names, rule);
        }
        if let (Some(pool), Some(bound)) = (&session.pool, &session.tries.bound) {
            counters.affinity(pool.id(), bound.result());
        }
        if let Some(reason) = ending.rejected {
            counters.rejected(connection.listener, reason);
        }
    }
    if let Some(log) = worker.log.borrow_mut().as_mut() {
        log.record(&entry(session, ending));
    }
}

fn entry<'s>(session: &'s Session<'_>, ending: Ending) -> Entry<'s> {
    let connection = session.connection;
    let snapshot = &session.view.snapshot;
    let terminated = connection.tls.get().and_then(|tls| tls.sni.as_deref());
    Entry {
        unix_ms: session.worker.unix_ms(session.started),
        id: session.id,
        listener: session.view.listener(connection.listener).map_or("-", |listener| &*listener.name),
        client: connection.client.get(),
        proto: if session.tls { "TLS" } else { "TCP" },
        // Of a sealed connection, the version that the two agree on is said behind the hello.
        tls: connection.tls.get().map(|tls| tls.version),
        sni: session.sni.as_deref().or(terminated).map(str::as_bytes),
        method: b"",
        host: None,
        path: b"",
        query: None,
        status: 0,
        rule: session.rule.and_then(|rule| snapshot.rule_names.get(rule)).map(|name| &**name),
        pool: session.pool.as_ref().map(|pool| &**pool.name()),
        server: session.tries.last.as_ref().map(|server| &**server.name()),
        tries: session.tries.count,
        bytes_in: connection.received.get(),
        bytes_out: connection.sent.get(),
        t_queue: session.tries.queued,
        t_connect: session.connect,
        t_header: Duration::ZERO,
        t_total: session.started.elapsed(),
        affinity: session.tries.bound.as_ref().map(|bound| bound.result().as_str()),
        failure: ending.word,
        side: ending.side.map(super::super::failure::Side::word),
        matched: session.matched.as_deref(),
        referer: None,
        user_agent: None,
    }
}
