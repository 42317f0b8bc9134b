//! A client that speaks HTTP/1: request after request, until either side has had enough.
//!
//! While it waits for a request it holds no buffer and no future of a request: that is what makes an
//! idle connection cheap.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::ahead;
use super::client::{Client, FromClient, ToClient};
use super::failure::{Failure, FailureKind};
use super::guard::caught;
use super::outcome::After;
use super::plan::{self, Ahead, Plan, Step};
use super::registry::Connection;
use super::rtsp;
use super::serve;
use super::worker::{Entered, Worker};
use crate::net::buffers::SMALL;
use crate::net::stream::{Reader, Writer};
use crate::net::{Buffer, Elapsed, Stream, Timer};
use crate::wire::http1::Refusal;

/// A TLS ClientHello begins with this (RFC 8446 §5.1).
const TLS_HANDSHAKE: u8 = 0x16;

/// How long, and for how many bytes, a client that is still sending is listened to after its answer:
/// closing at once would reset the connection, and the answer would be lost.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 16 << 20;

/// A connection between its requests.
struct Talk<'s> {
    reader: Reader<'s>,
    writer: Writer<'s>,
    timer: &'s Timer,
    connection: &'s Connection,
    /// Read and not used up.
    input: Option<Buffer>,
    /// It is half of an RTSP tunnel from here on.
    half: Option<rtsp::Half>,
}

/// Serves a connection until its end. `input` is what has been read of it already.
pub async fn serve(worker: Rc<Worker>, connection: Entered, mut stream: Stream, input: Option<Buffer>) {
    let (reader, writer) = stream.split();
    let mut client = Talk { reader, writer, timer: &connection.timer, connection: &connection, input, half: None };
    while arrival(&worker, &mut client).await {
        match Box::pin(one_request(&worker, &mut client)).await {
            After::Keep if client.half.is_some() => {
                let (half, input) = (client.half.take(), client.input.take());
                drop(client);
                if let Some(half) = half {
                    let input = input.unwrap_or_else(|| worker.buffers.small());
                    Box::pin(rtsp::serve_half(worker, connection, stream, half, input)).await;
                }
                return;
            }
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
async fn arrival(worker: &Rc<Worker>, client: &mut Talk<'_>) -> bool {
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
async fn one_request(worker: &Rc<Worker>, client: &mut Talk<'_>) -> After {
    let started = Instant::now();
    worker.set_active(client.connection);
    let view = worker.view_for(client.connection);
    let first = client.input.as_ref().map(|input| input.as_slice()).unwrap_or_default();
    let in_clear = client.connection.tls.get().is_none();
    if first.first() == Some(&TLS_HANDSHAKE) && in_clear && client.connection.requests.get() == 0 {
        worker.counters.borrow_mut().rejected(client.connection.listener, crate::state::counters::Rejected::TlsOnPlain);
        return After::Gone;
    }
    let mut plan = Plan::new(view);
    if !plan_now(worker, client, &mut plan) && !Box::pin(rest_of_head(worker, client, &mut plan, started)).await {
        return After::Gone;
    }
    if let Step::Tunnel(half) = plan.step {
        client.input.iter_mut().for_each(|input| input.consume(plan.head_bytes));
        client.half = Some(half);
        return After::Keep;
    }
    let Talk { reader, writer, timer, connection, input, .. } = client;
    let mut request = Client {
        from: FromClient::Http1(reader),
        to: ToClient::Http1(writer),
        timer,
        connection,
        input: input.take(),
        quoted: Vec::new(),
        body_taken: 0,
        next_input: None,
        held: None,
    };
    if matches!(plan.step, Step::NeedBody(_)) {
        Box::pin(plan_with_body(worker, &mut request, &mut plan)).await;
    }
    let after = serve::serve(worker, &mut request, &mut plan, started).await;
    client.input = next_input(request, &plan);
    after
}

/// RFC 9112 §2.2: empty lines before a request are ignored; old clients send one behind a body.
fn skip_empty_lines(input: &mut Buffer) {
    while input.as_slice().starts_with(b"\r\n") {
        input.consume(2);
    }
}

/// False: not all of the head is there yet.
fn plan_now(worker: &Rc<Worker>, client: &Talk<'_>, plan: &mut Plan) -> bool {
    let Some(input) = &client.input else { return false };
    plan_of(worker, client.connection, input.as_slice(), None, plan)
}

fn plan_of(
    worker: &Rc<Worker>,
    connection: &Connection,
    head: &[u8],
    ahead: Option<Ahead<'_>>,
    plan: &mut Plan,
) -> bool {
    let view = plan.view.clone();
    let Some(listener) = view.listener(connection.listener) else {
        // The listener is configured no more; its connections end with their next request.
        plan.fail(Failure::new(FailureKind::NoRoute, "the listener is gone"));
        return true;
    };
    caught(|| plan::plan(worker, listener, &view, connection, head, ahead, plan)).unwrap_or_else(|failure| {
        plan.fail(failure);
        true
    })
}

/// Reads the body that a rule wants to see, and plans the request anew.
async fn plan_with_body(worker: &Rc<Worker>, client: &mut Client<'_, '_>, plan: &mut Plan) {
    let Step::NeedBody(wanted) = std::mem::replace(&mut plan.step, Step::Drop) else { return };
    let read = match ahead::read(worker, client, plan, &wanted).await {
        Ok(read) => read,
        Err(failure) => {
            plan.step = Step::Fail(failure);
            return;
        }
    };
    let ahead = Ahead { body: read.body(), need: wanted.need };
    let head = &client.quoted()[..plan.head_bytes];
    *plan = Plan::new(plan.view.clone());
    // A head that was parsed before is whole.
    plan_of(worker, client.connection, head, Some(ahead), plan);
}

/// A head that came in pieces. It is parsed again only when it may be whole. False: the client has gone.
async fn rest_of_head(worker: &Rc<Worker>, client: &mut Talk<'_>, plan: &mut Plan, started: Instant) -> bool {
    loop {
        let Some(input) = client.input.as_mut() else { return false };
        skip_empty_lines(input);
        let looked_at = input.len();
        if worker.is_short_of_memory() {
            plan.fail(Failure::short_of_memory());
            return true;
        }
        let config = &plan.view.snapshot.config;
        if !input.grow(config.limits.header_bytes) {
            plan.fail(Failure::head(Refusal::TooLarge));
            return true;
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
            Ok(_) => return false,
            Err(Elapsed) => {
                plan.fail(Failure::new(FailureKind::HeadTimeout, "the request head took too long"));
                return true;
            }
        }
        if crate::wire::http1::request::ends_head(input.as_slice(), looked_at) && plan_now(worker, client, plan) {
            return true;
        }
    }
}

/// Drops what belonged to the request that is over; what came behind it is the next one.
fn next_input(request: Client<'_, '_>, plan: &Plan) -> Option<Buffer> {
    let mut input = request.input;
    if let Some(input) = &mut input {
        input.consume(plan.head_bytes + request.body_taken);
    }
    request.next_input.or(input).filter(|input| !input.is_empty())
}

/// Says that nothing more will come, and reads what the client is still sending, for a while.
async fn linger(worker: &Worker, client: &mut Talk<'_>) {
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
