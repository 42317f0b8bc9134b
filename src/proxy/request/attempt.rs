//! One server is asked: the request goes out, in either language, and its answer comes back.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::super::channels::Place;
use super::super::client::{Client, Rest};
use super::super::failure::{Failure, FailureKind};
use super::super::outcome::Progress;
use super::super::pick::Tries;
use super::super::pieces::{self, Way};
use super::super::receive::{self, Answer, FromServer, Receive, Received};
use super::super::relay::{self, Patience, RelayError};
use super::super::retry::Again;
use super::super::upload::{ToServer, Upload, body_failure, pass_body};
use super::Exchange;
use crate::net::stream::Writer;
use crate::net::{Stream, Timer};
use crate::state::LivePool;
use crate::wire::http1::Refusal;
use crate::wire::http2;

impl Exchange<'_> {
    /// Sends the request to one server and passes its answer back.
    pub(super) async fn attempt(
        &mut self,
        client: &mut Client<'_, '_>,
        stream: &mut Stream,
    ) -> Result<Received, Failure> {
        let (worker, plan, progress) = (self.worker, self.plan, self.progress);
        let timeouts = self.tries.timeouts(&self.pool);
        let (mut from_server, mut to_server) = stream.split();
        progress.begin();
        // A server may answer without reading all of the request, and close: its answer counts, so a
        // failed write is no failure yet.
        let written = send(&mut to_server, &self.forward.head, client.timer, timeouts.response, &self.sent).await;
        progress.unsent.set(written.is_err() || !matches!(self.upload, Upload::Done));
        // All of the request is here, and once more is as good as once.
        let again = if self.forward.idempotent && matches!(self.upload, Upload::Done) {
            again(&self.pool, &self.tries)
        } else {
            None
        };
        let mirror = self.mirror.as_deref();
        if let Some(mirror) = mirror
            && (matches!(self.upload, Upload::Done) || mirror.is_too_large())
        {
            mirror.send(worker);
        }
        let last = client.is_last(&plan.view.snapshot.config.limits);
        let mut receive = Receive {
            worker,
            plan,
            websocket: self.forward.websocket,
            timeouts,
            progress,
            timer: client.timer,
            connection: client.connection,
            from: FromServer::Http1(&mut from_server),
            early: None,
            to: &mut client.to,
            last,
            again,
            bound: self.tries.bound.as_ref().zip(self.pool.affinity()),
        };
        let result = match &mut self.upload {
            // Half a request is out: that server's connection must never carry another one.
            _ if written.is_err() => receive::receive(&mut receive).await.map(not_uploaded),
            Upload::Done => receive::receive(&mut receive).await,
            upload => {
                self.body_begun = true;
                progress.uploading.set(true);
                let timer = worker.wheel.timer();
                let patience = Patience { read: timeouts.request_body, write: timeouts.response };
                let limits = &plan.view.snapshot.config.limits;
                let (moved, back) = (&progress.body_in, &progress.body_out);
                let way = Way { worker, timer: &timer, patience, moved, back, most: plan.most_body, limits, mirror };
                let body = pass_body(&mut client.from, ToServer::Http1(&mut to_server), upload, way);
                let both = both_ways(body, receive::receive(&mut receive), progress);
                Box::pin(both).await
            }
        };
        self.next_input(client, &result);
        result
    }

    /// What came behind a chunked body is the next request.
    fn next_input(&mut self, client: &mut Client<'_, '_>, result: &Result<Received, Failure>) {
        if let (Upload::Chunked(chunks), Ok(Received::Done { uploaded: true, .. })) = (&mut self.upload, result)
            && chunks.body.is_done()
        {
            client.next_input = Some(std::mem::replace(&mut chunks.buffer, self.worker.buffers.small()));
        }
    }

    /// The same over a stream of HTTP/2.
    pub(super) async fn attempt_stream(
        &mut self,
        client: &mut Client<'_, '_>,
        place: &Place,
    ) -> Result<Received, Failure> {
        let (worker, plan, progress) = (self.worker, self.plan, self.progress);
        let timeouts = self.tries.timeouts(&self.pool);
        progress.begin();
        let (head, early) = self.forward.head.split_at(self.head);
        let request = http2::response::request_of_text(head, self.pool.config().tls.is_some())
            .ok_or_else(|| Failure::new(FailureKind::Head(Refusal::Target), "the target is none for HTTP/2"))?;
        let done = matches!(self.upload, Upload::Done);
        let ends = done && early.is_empty() && self.trailers.is_none();
        let opened = client.timer.wait(timeouts.response, Box::pin(place.send(request, ends))).await;
        let (heads, mut to_server) = match opened {
            Ok(Ok(opened)) => opened,
            Ok(Err(error)) => {
                // The connection has ended meanwhile; nothing was sent on it.
                place.close();
                return Err(Failure::new(FailureKind::Unprocessed, error.to_string()));
            }
            Err(_) => return Err(Failure::new(FailureKind::ResponseTimeout, "the server opens no stream")),
        };
        self.sent.set(true);
        let stream_id = heads.stream_id().as_u32();
        progress.unsent.set(!ends);
        let again = if self.forward.idempotent && done { again(&self.pool, &self.tries) } else { None };
        let mirror = self.mirror.as_deref();
        if let Some(mirror) = mirror.filter(|mirror| done || mirror.is_too_large()) {
            mirror.send(worker);
        }
        let mut answer = Answer { heads, early: None, body: None, error: None };
        let last = client.is_last(&plan.view.snapshot.config.limits);
        let mut receive = Receive {
            worker,
            plan,
            websocket: self.forward.websocket,
            timeouts,
            progress,
            timer: client.timer,
            connection: client.connection,
            from: FromServer::Http2(&mut answer),
            early: None,
            to: &mut client.to,
            last,
            again,
            bound: self.tries.bound.as_ref().zip(self.pool.affinity()),
        };
        let result = if ends {
            receive::receive(&mut receive).await
        } else {
            let taken = progress.body_in.get();
            progress.uploading.set(true);
            let timer = worker.wheel.timer();
            let patience = Patience { read: timeouts.request_body, write: timeouts.response };
            let limits = &plan.view.snapshot.config.limits;
            let (moved, back) = (&progress.body_in, &progress.body_out);
            let way = Way { worker, timer: &timer, patience, moved, back, most: plan.most_body, limits, mirror };
            let early = Bytes::copy_from_slice(early);
            let rest = if done { Rest::End(self.trailers.as_deref().cloned()) } else { Rest::More };
            let (from, upload) = (&mut client.from, &mut self.upload);
            let body = async {
                pieces::begin(&mut to_server, early, rest, &timer, patience.write).await?;
                pass_body(from, ToServer::Http2(&mut to_server), upload, way).await
            };
            let result = both_ways(body, receive::receive(&mut receive), progress).await;
            // As long as nothing more was taken of it, all of the request is still here.
            self.body_begun = !done && (progress.body_in.get() > taken || !progress.uploading.get());
            result
        };
        self.next_input(client, &result);
        if let Some(error) = answer.error.filter(|error| place.was_not_processed(error, stream_id)) {
            return Err(Failure::new(FailureKind::Unprocessed, error.to_string()));
        }
        result
    }
}

/// Where an answer may be dropped for another server's; nearly no pool and no rule says so.
#[inline]
fn again<'a>(pool: &'a LivePool, tries: &'a Tries) -> Option<Again<'a>> {
    tries.retry(pool).on.has_statuses().then_some(Again { pool, tries })
}

fn not_uploaded(received: Received) -> Received {
    match received {
        Received::Done { .. } => Received::Done { keep_alive: false, reusable: false, uploaded: false },
        switching => switching,
    }
}

/// Sends the request, or as much of it as is here.
pub(super) async fn send(
    to: &mut Writer<'_>,
    bytes: &[u8],
    timer: &Timer,
    limit: Duration,
    sent: &Cell<bool>,
) -> Result<(), RelayError> {
    // Over TLS some of it may be out although the write fails in the end.
    sent.set(sent.get() | !to.is_plain());
    let count = to.write_now(bytes).map_err(|_| RelayError::Gone)?;
    // Where nothing went out yet, some of it soon will have.
    sent.set(true);
    if count == bytes.len() && !to.is_behind() {
        return Ok(());
    }
    Box::pin(relay::write_rest(to, &bytes[count..], timer, limit)).await
}

/// Body up and answer down at the same time. The answer decides when it is over; a client that breaks
/// its own request ends it too.
async fn both_ways(
    upload: impl Future<Output = Result<(), RelayError>>,
    answer: impl Future<Output = Result<Received, Failure>>,
    progress: &Progress,
) -> Result<Received, Failure> {
    let (mut upload, mut answer) = (pin!(upload), pin!(answer));
    let mut uploaded = None;
    poll_fn(|cx| {
        if uploaded.is_none()
            && let Poll::Ready(result) = upload.as_mut().poll(cx)
        {
            progress.uploading.set(false);
            progress.sent_at.set(Some(Instant::now()));
            match result {
                Ok(()) => {
                    progress.unsent.set(false);
                    uploaded = Some(true);
                }
                // The server wants no more of it; it may have said why.
                Err(RelayError::Gone | RelayError::Stalled) => uploaded = Some(false),
                Err(error) => return Poll::Ready(Err(body_failure(&error))),
            }
        }
        match Pin::new(&mut answer).as_mut().poll(cx) {
            Poll::Ready(Ok(received)) if uploaded == Some(true) => Poll::Ready(Ok(received)),
            Poll::Ready(received) => Poll::Ready(received.map(not_uploaded)),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}
