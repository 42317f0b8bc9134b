//! A client that speaks HTTP/1: request after request, until either side has had enough.
//!
//! While it waits for a request it holds no buffer and no future of a request: that is what makes an
//! idle connection cheap.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::client::Client;
use super::failure::{Failure, FailureKind};
use super::finish;
use super::outcome::{After, Outcome, Progress};
use super::plan::{self, Answer, Plan, Step};
use super::relay;
use super::reply::{self, Reply};
use super::request;
use super::view::View;
use super::worker::{Entered, Worker};
use crate::net::buffers::SMALL;
use crate::net::{Buffer, Elapsed, Stream};
use crate::state::connections::Doing;
use crate::wire::http1::request::Version;
use crate::wire::http1::{Framing, Refusal};

/// A TLS ClientHello begins with this (RFC 8446 §5.1).
const TLS_HANDSHAKE: u8 = 0x16;

/// How long, and for how many bytes, a client that is still sending is listened to after its answer:
/// closing at once would reset the connection, and the answer would be lost.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 16 << 20;

/// Serves a connection until its end. `input` is what has been read of it already.
pub async fn serve(worker: Rc<Worker>, connection: Entered, mut stream: Stream, input: Option<Buffer>) {
    let (reader, writer) = stream.split();
    let mut client = Client {
        reader,
        writer,
        timer: &connection.timer,
        connection: &connection,
        input,
        body_taken: 0,
        next_input: None,
    };
    while arrival(&worker, &mut client).await {
        match Box::pin(one_request(&worker, &mut client)).await {
            // While draining too: the next answer says that it is the last.
            After::Keep => worker.set_idle(&connection),
            After::Close if client.input.is_none() && client.reader.is_quiet() => break,
            After::Close | After::Linger => {
                Box::pin(linger(&worker, &mut client)).await;
                break;
            }
            After::Gone => break,
            After::Reset => {
                client.writer.reset_on_close();
                break;
            }
        }
    }
}

/// Waits for the first bytes of a request. False: the connection is over.
async fn arrival(worker: &Rc<Worker>, client: &mut Client<'_>) -> bool {
    let mut empty_since: Option<Instant> = None;
    loop {
        let Some(input) = &mut client.input else {
            let limit = worker.view().snapshot.config.timeouts.client_keep_alive;
            let limit = match empty_since {
                // Empty lines do not make the wait for a request any longer.
                Some(since) => limit.saturating_sub(since.elapsed()),
                None => limit,
            };
            if limit.is_zero() {
                return false;
            }
            let read = client.reader.fill(&worker.buffers, SMALL as u64);
            match client.timer.wait(limit, read).await {
                Ok(Ok(input)) if !input.is_empty() => client.input = Some(input),
                _ => return false,
            }
            continue;
        };
        skip_empty_lines(input);
        if !input.is_empty() {
            return true;
        }
        client.input = None;
        empty_since.get_or_insert_with(Instant::now);
    }
}

/// Reads, plans and serves one request.
async fn one_request(worker: &Rc<Worker>, client: &mut Client<'_>) -> After {
    let started = Instant::now();
    worker.set_active(client.connection);
    let view = worker.view();
    let first = client.input.as_ref().map(|input| input.as_slice()).unwrap_or_default();
    let in_clear = client.connection.tls.get().is_none();
    if first.first() == Some(&TLS_HANDSHAKE) && in_clear && client.connection.requests.get() == 0 {
        worker.counters.borrow_mut().rejected(client.connection.listener, crate::state::counters::Rejected::TlsOnPlain);
        return After::Gone;
    }
    let mut plan = match plan_now(worker, client, &view) {
        Some(plan) => plan,
        None => match Box::pin(rest_of_head(worker, client, view, started)).await {
            Some(plan) => plan,
            None => return After::Gone,
        },
    };
    serve_request(worker, client, &mut plan, started).await
}

/// RFC 9112 §2.2: empty lines before a request are ignored; old clients send one behind a body.
fn skip_empty_lines(input: &mut Buffer) {
    while input.as_slice().starts_with(b"\r\n") {
        input.consume(2);
    }
}

fn plan_now(worker: &Rc<Worker>, client: &Client<'_>, view: &Rc<View>) -> Option<Plan> {
    let input = client.input.as_ref()?;
    match view.listener(client.connection.listener) {
        Some(listener) => plan::plan(worker, listener, view, client.connection, input.as_slice()),
        // The listener is configured no more; its connections end with their next request.
        None => Some(plan::failed(view, Failure::new(FailureKind::NoRoute, "the listener is gone"))),
    }
}

/// A head that came in pieces. It is parsed again only when it may be whole.
async fn rest_of_head(worker: &Rc<Worker>, client: &mut Client<'_>, view: Rc<View>, started: Instant) -> Option<Plan> {
    let config = &view.snapshot.config;
    loop {
        let input = client.input.as_mut()?;
        skip_empty_lines(input);
        let looked_at = input.len();
        if !input.grow(config.limits.header_bytes) {
            return Some(plan::failed(&view, Failure::head(Refusal::TooLarge)));
        }
        // The whole head has one deadline, however it is dripped in.
        let left = config.timeouts.request_header.saturating_sub(started.elapsed());
        let read = match left {
            // A wait looks at its time only when there is nothing to read.
            Duration::ZERO => Err(Elapsed),
            left => client.timer.wait(left, client.reader.read(input)).await,
        };
        match read {
            Ok(Ok(count)) if count > 0 => {}
            Ok(_) => return None,
            Err(Elapsed) => {
                let failure = Failure::new(FailureKind::HeadTimeout, "the request head took too long");
                return Some(plan::failed(&view, failure));
            }
        }
        if crate::wire::http1::request::ends_head(input.as_slice(), looked_at)
            && let Some(plan) = plan_now(worker, client, &view)
        {
            return Some(plan);
        }
    }
}

async fn serve_request(worker: &Rc<Worker>, client: &mut Client<'_>, plan: &mut Plan, started: Instant) -> After {
    let connection = client.connection;
    connection.requests.set(connection.requests.get() + 1);
    let progress = Progress::new(worker.request_id(), started);
    client.body_taken = 0;
    show(client, plan);
    let mut step = std::mem::replace(&mut plan.step, Step::Drop);
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
        Step::Drop => Outcome::of(After::Reset),
        Step::Fail(failure) => {
            Outcome::failed(Failure { kind: failure.kind, detail: std::mem::take(&mut failure.detail) })
        }
    };
    if outcome.untold
        && let Some(failure) = &outcome.failure
    {
        let told = Box::pin(tell(worker, client, plan, failure, &progress)).await;
        (outcome.status, outcome.after, outcome.body_out) = (told.status, told.after, told.body_out);
    }
    finish::finish(worker, client, plan, &outcome, &progress);
    next_input(client, plan);
    outcome.after
}

/// Drops what belonged to the request that is over.
fn next_input(client: &mut Client<'_>, plan: &Plan) {
    if let Some(input) = &mut client.input {
        input.consume(plan.head_bytes + client.body_taken);
    }
    if let Some(next) = client.next_input.take() {
        client.input = Some(next);
    }
    if client.input.as_ref().is_some_and(Buffer::is_empty) {
        client.input = None;
    }
}

fn show(client: &Client<'_>, plan: &Plan) {
    let Some(input) = &client.input else { return };
    let part = |range: &std::ops::Range<u32>| {
        input.as_slice().get(range.start as usize..range.end as usize).unwrap_or_default()
    };
    client.connection.request.borrow_mut().set(part(&plan.seen.method), part(&plan.seen.path));
}

/// An answer that a rule gives.
async fn own_answer(
    worker: &Worker,
    client: &mut Client<'_>,
    plan: &Plan,
    answer: &Answer,
    progress: &Progress,
) -> Outcome {
    let reply = Reply {
        status: answer.status,
        sentence: if answer.status < 400 { "" } else { reply::reason(answer.status) },
        text: answer.text.as_deref().map(str::as_bytes),
        location: answer.location.as_deref(),
        ..Reply::default()
    };
    send_reply(worker, client, plan, reply, progress).await
}

/// Tells the client what went wrong, as far as it can still be told.
async fn tell(
    worker: &Worker,
    client: &mut Client<'_>,
    plan: &Plan,
    failure: &Failure,
    progress: &Progress,
) -> Outcome {
    let kind = failure.kind;
    if kind.status() == 0 {
        return Outcome::of(After::Close);
    }
    let retry_after = match kind {
        FailureKind::NoServer => Some(5),
        FailureKind::Full => Some(1),
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
    client: &mut Client<'_>,
    plan: &Plan,
    mut reply: Reply<'_>,
    progress: &Progress,
) -> Outcome {
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
    let keep = whole && plan.keep_alive && !worker.is_draining() && !client.is_last(&plan.view.snapshot.config.limits);
    let date = worker.date();
    let accept = plan.seen.accept.start as usize..plan.seen.accept.end as usize;
    reply.accept = client.input.as_ref().and_then(|input| input.as_slice().get(accept)).unwrap_or_default();
    reply.head_only = plan.head_only;
    reply.keep_alive = keep;
    reply.old = plan.version == Version::Http10;
    reply.date = &date;
    let mut out = worker.buffers.text();
    let body = reply::write(&reply, &plan.view.snapshot.config, &mut out);
    let limit = plan.view.snapshot.config.timeouts.client_write;
    let written = relay::write_all(&mut client.writer, &out, client.timer, limit).await;
    progress.heads_out.set(progress.heads_out.get() + (out.len() - body) as u64);
    worker.buffers.keep_text(out);
    let after = match (written, keep) {
        (Ok(()), true) => After::Keep,
        (Ok(()), false) => After::Linger,
        (Err(_), _) => After::Close,
    };
    Outcome { status: reply.status, body_out: body as u64, ..Outcome::of(after) }
}

/// Says that nothing more will come, and reads what the client is still sending, for a while.
async fn linger(worker: &Worker, client: &mut Client<'_>) {
    client.input = None;
    // Over TLS it may have to wait for a client that reads nothing.
    let Ok(Ok(())) = client.timer.wait(LINGER, client.writer.shutdown()).await else { return };
    let until = Instant::now() + LINGER;
    let mut read = 0;
    while read < LINGER_BYTES {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        match client.timer.wait(left, client.reader.fill(&worker.buffers, SMALL as u64)).await {
            Ok(Ok(buffer)) if !buffer.is_empty() => read += buffer.len(),
            _ => return,
        }
    }
}
