//! One planned request, served: forwarded, or answered by us; then counted and logged.
//!
//! What a client speaks matters only at the very ends of it (`client`).

use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;

use super::answer::{self, Delivery, ForClient};
use super::ask::Said;
use super::auth;
use super::client::{Client, Rest, ToClient};
use super::failure::{Failure, FailureKind};
use super::finish;
use super::outcome::{After, Outcome, Progress};
use super::plan::{Answer, Plan, Step};
use super::relay::{self, RelayError};
use super::reply::{self, Reply};
use super::request;
use super::worker::Worker;
use crate::state::connections::Doing;
use crate::wire::http1::request::Version;
use crate::wire::http1::response::{self, Method};
use crate::wire::http1::{Framing, Refusal};

/// Serves a planned request to its end, whatever its client speaks.
pub async fn serve(worker: &Rc<Worker>, client: &mut Client<'_, '_>, plan: &mut Plan, started: Instant) -> After {
    let connection = client.connection;
    connection.requests.set(connection.requests.get() + 1);
    let progress = Progress::new(worker.request_id(), started);
    show(client, plan);
    let mut step = std::mem::replace(&mut plan.step, Step::Drop);
    if let Step::Gated(gated) = step {
        step = Box::pin(auth::pass(worker, client, plan, *gated)).await;
    }
    let mut outcome = match &mut step {
        Step::Forward(forward) => {
            connection.doing.set(Doing::Waiting);
            let outcome = request::forward(worker, client, plan, forward, &progress).await;
            worker.buffers.keep_text(std::mem::take(&mut forward.head));
            outcome
        }
        Step::Answer(answer) => Box::pin(own_answer(worker, client, plan, answer, &progress)).await,
        Step::Options => {
            let reply =
                Reply { status: 200, allow: Some("GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS"), ..Reply::default() };
            Box::pin(send_reply(worker, client, plan, reply, &progress)).await
        }
        Step::Said(said) => Box::pin(pass_on(worker, client, plan, said, &progress)).await,
        // What is behind a gate has none of its own. Whoever read the head has planned anew what needed its
        // body, and gone another way with a tunnel.
        Step::Gated(_) | Step::NeedBody(_) | Step::Tunnel(_) | Step::Drop => Outcome::of(After::Reset),
        Step::Fail(failure) => {
            Outcome::failed(Failure { kind: failure.kind, detail: std::mem::take(&mut failure.detail) })
        }
    };
    if let Some(switched) = outcome.switched.take() {
        Box::pin(request::tunnel(worker, client, plan, switched, &progress, &mut outcome)).await;
    }
    if outcome.untold
        && let Some(failure) = &outcome.failure
    {
        let told = Box::pin(tell(worker, client, plan, failure, &progress)).await;
        (outcome.status, outcome.after, outcome.body_out) = (told.status, told.after, told.body_out);
    }
    finish::finish(worker, client, plan, &outcome, &progress);
    outcome.after
}

fn show(client: &Client<'_, '_>, plan: &Plan) {
    let quoted = client.quoted();
    if quoted.is_empty() {
        return;
    }
    let part = |range: &std::ops::Range<u32>| quoted.get(range.start as usize..range.end as usize).unwrap_or_default();
    client.connection.request.borrow_mut().set(part(&plan.seen.method), part(&plan.seen.path));
}

/// An answer that a rule gives.
async fn own_answer(
    worker: &Worker,
    client: &mut Client<'_, '_>,
    plan: &Plan,
    answer: &Answer,
    progress: &Progress,
) -> Outcome {
    let reply = Reply {
        status: answer.status,
        sentence: if answer.status < 400 { "" } else { reply::reason(answer.status) },
        text: answer.text.as_deref().map(str::as_bytes),
        location: answer.location.as_deref(),
        realm: answer.realm.as_deref(),
        id: answer.realm.is_some().then_some(progress.id),
        ..Reply::default()
    };
    send_reply(worker, client, plan, reply, progress).await
}

/// Tells the client what went wrong, as far as it can still be told.
async fn tell(
    worker: &Worker,
    client: &mut Client<'_, '_>,
    plan: &Plan,
    failure: &Failure,
    progress: &Progress,
) -> Outcome {
    let kind = failure.kind;
    if kind.status() == 0 {
        return Outcome::of(After::Close);
    }
    let retry_after = match kind {
        // When those who wait now have been served, or not.
        FailureKind::NoServer | FailureKind::QueueFull | FailureKind::QueueTimeout => Some(5),
        FailureKind::Full | FailureKind::RuleFull | FailureKind::Shortage => Some(1),
        FailureKind::AuthFull | FailureKind::AuthUnreachable => Some(1),
        FailureKind::Rate(seconds) => Some(seconds),
        _ => None,
    };
    let reply = Reply {
        status: kind.status(),
        sentence: kind.sentence(),
        retry_after,
        allow: matches!(kind, FailureKind::Head(Refusal::Trace))
            .then_some("GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS"),
        id: Some(progress.id),
        ..Reply::default()
    };
    send_reply(worker, client, plan, reply, progress).await
}

async fn send_reply(
    worker: &Worker,
    client: &mut Client<'_, '_>,
    plan: &Plan,
    mut reply: Reply<'_>,
    progress: &Progress,
) -> Outcome {
    let keep = keeps(worker, client, plan);
    let date = worker.date();
    let accept = plan.seen.accept.start as usize..plan.seen.accept.end as usize;
    let mut out = worker.buffers.text();
    reply.accept = client.quoted().get(accept).unwrap_or_default();
    reply.head_only = plan.head_only;
    reply.keep_alive = keep;
    reply.old = plan.version == Version::Http10;
    reply.date = &date;
    let config = &plan.view.snapshot.config;
    let body = reply::write(&reply, config, &mut out);
    deliver(worker, client, plan, out, body, reply.status, keep, progress).await
}

/// The answer of a service that was asked, as the client gets it.
async fn pass_on(
    worker: &Worker,
    client: &mut Client<'_, '_>,
    plan: &Plan,
    said: &Said,
    progress: &Progress,
) -> Outcome {
    let limits = &plan.view.snapshot.config.limits;
    let Ok(Some(mut head)) = response::parse(&said.head, Method::Other, limits) else {
        return Outcome::failed(Failure::new(FailureKind::AuthFailed, "the service's answer is none"));
    };
    (head.chunked, head.length) = (false, Some(said.body.len() as u64));
    let keep_alive = keeps(worker, client, plan);
    let date = worker.date();
    let to = ForClient { version: plan.version, keep_alive, date: &date };
    let mut out = worker.buffers.text();
    answer::write(&head, to, Delivery { keep_alive, dechunk: false }, None, &mut out);
    let body = if plan.head_only { &[][..] } else { &said.body };
    out.extend_from_slice(body);
    deliver(worker, client, plan, out, body.len(), head.status, keep_alive, progress).await
}

/// Whether the client's connection stays behind an answer of ours.
fn keeps(worker: &Worker, client: &mut Client<'_, '_>, plan: &Plan) -> bool {
    // The connection stays only where the whole request is here, so that the next one can be found.
    let whole = match plan.body {
        Framing::None => true,
        Framing::Length(length) => match usize::try_from(length) {
            Ok(length) if length <= client.body_bytes(plan.head_bytes).len() => {
                client.body_taken = length;
                true
            }
            _ => false,
        },
        Framing::Chunked | Framing::UntilClose => false,
    };
    let last = worker.is_leaving(client.connection) || client.is_last(&plan.view.snapshot.config.limits);
    whole && plan.keep_alive && !last
}

/// Sends an answer, of which the last `body` bytes are the body.
async fn deliver(
    worker: &Worker,
    client: &mut Client<'_, '_>,
    plan: &Plan,
    out: Vec<u8>,
    body: usize,
    status: u16,
    keep: bool,
    progress: &Progress,
) -> Outcome {
    let config = &plan.view.snapshot.config;
    let head_bytes = out.len() - body;
    let limit = config.timeouts.client_write;
    let written = match &mut client.to {
        ToClient::Http1(writer) => relay::write_all(writer, &out, client.timer, limit).await,
        ToClient::Http2(respond) => match answer::of_text(&out[..head_bytes], &config.limits) {
            Some(head) => {
                let body = Bytes::copy_from_slice(&out[head_bytes..]);
                respond.begin(head, body, Rest::End(None), client.timer, limit).await
            }
            None => Err(RelayError::Gone),
        },
    };
    progress.heads_out.set(progress.heads_out.get() + head_bytes as u64);
    worker.buffers.keep_text(out);
    let after = match (written, keep) {
        (Ok(()), true) => After::Keep,
        (Ok(()), false) => After::Linger,
        (Err(_), _) => After::Close,
    };
    Outcome { status, body_out: body as u64, ..Outcome::of(after) }
}
