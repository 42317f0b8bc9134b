//! A second server, for a request whose first one is slow: `hedge` of a pool.
//!
//! ```text
//!  first asked ── answers ─────────────────────────────────────┐
//!     │                                                        ├─ the answer goes on; whoever
//!  `after` over: second asked ── either answers ───────────────┘  has not answered is let go of
//!     └── no share or budget left, no other server: wait on
//! ```
//!
//! Only for requests without a body whose method says that twice is as good as once (RFC 9110 §9.2.2). Who is let go of
//! sees its connection closed, or its stream reset.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::SendStream;
use h2::client::ResponseFuture;

use super::super::client::Client;
use super::super::failure::{Failure, FailureKind};
use super::super::pick::{self, Picked, Take, Tries, Upstream};
use super::super::receive::{self, Answer, Fields, FromServer, Receive, Received};
use super::super::retry;
use super::super::upload::Upload;
use super::super::worker::Worker;
use super::Exchange;
use super::attempt::send;
use crate::net::buffers::SMALL;
use crate::net::{Buffer, Elapsed, Timer};
use crate::state::counters::RetryReason;
use crate::state::{Lease, LivePool};
use crate::wire::http1::{Framing, Refusal};
use crate::wire::http2;

/// A server that was asked.
pub struct Runner {
    pub lease: Lease,
    pub upstream: Upstream,
    /// The server is spoken to by TLS.
    tls: bool,
    /// Of a server of HTTP/2: its answer, and the request's end of the stream.
    stream: Option<(ResponseFuture, SendStream<Bytes>)>,
}

/// How an answer begins.
enum Heard {
    Bytes(Buffer),
    Fields(Fields),
}

/// The second server.
enum Second<'s> {
    Asking(Pin<Box<dyn Future<Output = Result<Runner, Failure>> + 's>>),
    Asked(Runner),
    Lost,
}

impl Exchange<'_> {
    /// After what time a second server is to be asked, where one may be.
    pub(super) fn hedge_after(&self) -> Option<Duration> {
        let config = self.pool.config();
        config.hedge?;
        let plain = self.forward.idempotent
            && !self.forward.websocket
            && self.plan.body == Framing::None
            && matches!(self.upload, Upload::Done)
            // Its client stays where it is, however slow that is.
            && self.tries.bound.is_none()
            // What each server is told is the same.
            && self.forward.host_at.is_none()
            && config.send_proxy.is_none();
        // Not known yet: then it is only learnt.
        plain.then(|| self.pool.hedge_after().unwrap_or(Duration::MAX))
    }

    /// Asks a server and, where it does not answer within `after`, another one. The runner is whoever answered, or was
    /// the last to fail.
    pub(super) async fn race(
        &mut self,
        client: &mut Client<'_, '_>,
        lease: Lease,
        upstream: Upstream,
        after: Duration,
    ) -> (Runner, Result<Received, Failure>) {
        let mut runner = Runner { lease, upstream, tls: self.pool.config().tls.is_some(), stream: None };
        self.progress.begin();
        let asked = Instant::now();
        let heard = self.first_heard(client, &mut runner, after, asked).await;
        client.connection.server.set((self.pool.id(), runner.lease.id()));
        let received = match heard {
            Ok(heard) => {
                // Of a server that was overtaken it is known that it takes longer than this.
                self.pool.answered(asked.elapsed());
                self.receive_from(client, &mut runner, heard).await
            }
            Err(failure) => Err(failure),
        };
        (runner, received)
    }

    /// Waits for the first to answer, which becomes `runner`.
    async fn first_heard(
        &mut self,
        client: &mut Client<'_, '_>,
        runner: &mut Runner,
        after: Duration,
        asked: Instant,
    ) -> Result<Heard, Failure> {
        let worker = self.worker;
        let limit = self.tries.timeouts(&self.pool).response;
        let head = &self.forward.head[..self.head];
        runner.send(head, client.timer, limit, &self.sent).await?;
        self.progress.unsent.set(false);
        if let Some(mirror) = &self.mirror {
            mirror.send(worker);
        }
        let to = &mut client.to;
        let alone = poll_fn(|cx| match runner.poll(worker, cx) {
            Poll::Pending => to.poll_given_up(cx).map(|()| Err(Failure::client_gone())),
            heard => heard,
        });
        match client.timer.wait(after.min(limit), alone).await {
            Ok(heard) => return heard,
            Err(Elapsed) if after >= limit => return Err(receive::timeout()),
            Err(Elapsed) => {}
        }
        let mut second = match retry::may_hedge(worker, &self.pool, &self.tries) {
            true => {
                let tries = Tries::besides(&self.tries, runner.lease.id());
                let backup = runner.lease.is_backup();
                Second::Asking(Box::pin(ask(worker, &self.pool, self.forward.key, tries, head, backup)))
            }
            false => Second::Lost,
        };
        let mut failed = None;
        let either = poll_fn(|cx| {
            if failed.is_none() {
                match runner.poll(worker, cx) {
                    Poll::Ready(Ok(heard)) => return Poll::Ready(Ok((heard, None))),
                    Poll::Ready(Err(failure)) => failed = Some(failure),
                    Poll::Pending => {}
                }
            }
            if let Poll::Ready(heard) = second.poll(worker, cx) {
                return Poll::Ready(Ok(heard));
            }
            match (&second, failed.take()) {
                (Second::Lost, Some(failure)) => return Poll::Ready(Err(failure)),
                (_, failure) => failed = failure,
            }
            to.poll_given_up(cx).map(|()| Err(Failure::client_gone()))
        });
        let heard = client.timer.wait(limit.saturating_sub(asked.elapsed()), either).await;
        if !matches!(second, Second::Asking(_) | Second::Lost) || matches!(heard, Ok(Ok((_, Some(_))))) {
            self.tries.count += 1;
        }
        match heard {
            Ok(Ok((heard, None))) => Ok(heard),
            Ok(Ok((heard, Some(winner)))) => {
                self.tries.last = Some(winner.lease.server().clone());
                *runner = winner;
                Ok(heard)
            }
            Ok(Err(failure)) => Err(failure),
            Err(Elapsed) => Err(receive::timeout()),
        }
    }

    /// The rest of an answer that has begun.
    async fn receive_from(
        &mut self,
        client: &mut Client<'_, '_>,
        runner: &mut Runner,
        heard: Heard,
    ) -> Result<Received, Failure> {
        let last = client.is_last(&self.plan.view.snapshot.config.limits);
        let (mut reader, mut answer);
        let (from, early) = match (&mut runner.upstream, runner.stream.take(), heard) {
            (Upstream::Http1(stream), _, Heard::Bytes(bytes)) => {
                (reader, _) = stream.split();
                (FromServer::Http1(&mut reader), Some(bytes))
            }
            (Upstream::Http2(_), Some((heads, end)), Heard::Fields(fields)) => {
                // All of the request is out.
                drop(end);
                answer = Answer { heads, early: Some(fields), body: None, error: None };
                (FromServer::Http2(&mut answer), None)
            }
            _ => return Err(Failure::server_closed("another protocol")),
        };
        let mut receive = Receive {
            worker: self.worker,
            plan: self.plan,
            websocket: false,
            timeouts: self.tries.timeouts(&self.pool),
            progress: self.progress,
            timer: client.timer,
            connection: client.connection,
            from,
            early,
            to: &mut client.to,
            last,
            // Two servers have been asked already.
            again: None,
            bound: None,
        };
        receive::receive(&mut receive).await
    }
}

impl Second<'_> {
    /// Becomes ready when it has answered; never after it has failed.
    fn poll(&mut self, worker: &Worker, cx: &mut Context<'_>) -> Poll<(Heard, Option<Runner>)> {
        if let Second::Asking(asking) = self {
            match asking.as_mut().poll(cx) {
                Poll::Ready(Ok(runner)) => *self = Second::Asked(runner),
                Poll::Ready(Err(failure)) => {
                    tracing::debug!(failure = failure.kind.word(), "no second server: {}", failure.detail);
                    *self = Second::Lost;
                }
                Poll::Pending => {}
            }
        }
        let Second::Asked(runner) = self else { return Poll::Pending };
        match runner.poll(worker, cx) {
            Poll::Ready(Ok(heard)) => match std::mem::replace(self, Second::Lost) {
                Second::Asked(runner) => Poll::Ready((heard, Some(runner))),
                _ => Poll::Pending,
            },
            Poll::Ready(Err(_)) => {
                *self = Second::Lost;
                Poll::Pending
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

/// Asks another server, if there is one that is not full; `backup`: a backup will do.
async fn ask(
    worker: &Rc<Worker>,
    pool: &LivePool,
    key: Option<u64>,
    mut tries: Tries,
    head: &[u8],
    backup: bool,
) -> Result<Runner, Failure> {
    let limit = tries.timeouts(pool).response;
    let timer = worker.wheel.timer();
    let take = Take::IdleOrNew;
    let picked = pick::pick(worker, pool, key, take, &mut tries)?;
    let lease = match &picked {
        Picked::Connected(connected) => &connected.lease,
        Picked::ToDial(lease) => lease,
    };
    // A backup is for servers that are down, not for slow ones: what it says may be that nobody is there.
    if lease.is_backup() && !backup {
        return Err(Failure::new(FailureKind::NoServer, "all others are backups"));
    }
    retry::count(worker, pool, RetryReason::Hedge);
    let connected = match picked {
        Picked::Connected(connected) => connected,
        Picked::ToDial(lease) => pick::connect(worker, pool, key, take, lease, &[], &mut tries, &timer).await?,
    };
    let tls = pool.config().tls.is_some();
    let mut runner = Runner { lease: connected.lease, upstream: connected.upstream, tls, stream: None };
    runner.send(head, &timer, limit, &Cell::new(false)).await?;
    Ok(runner)
}

impl Runner {
    async fn send(&mut self, head: &[u8], timer: &Timer, limit: Duration, sent: &Cell<bool>) -> Result<(), Failure> {
        match &mut self.upstream {
            Upstream::Http1(stream) => {
                let (_, mut to) = stream.split();
                let written = send(&mut to, head, timer, limit, sent).await;
                written.map_err(|_| Failure::server_closed("the server takes no request"))
            }
            Upstream::Http2(place) => {
                let request = http2::response::request_of_text(head, self.tls)
                    .ok_or_else(|| Failure::new(FailureKind::Head(Refusal::Target), "the target is none for HTTP/2"))?;
                match timer.wait(limit, Box::pin(place.send(request, true))).await {
                    Ok(Ok(opened)) => {
                        sent.set(true);
                        self.stream = Some(opened);
                        Ok(())
                    }
                    Ok(Err(error)) => {
                        place.close();
                        Err(Failure::new(FailureKind::Unprocessed, error.to_string()))
                    }
                    Err(Elapsed) => Err(Failure::new(FailureKind::ResponseTimeout, "the server opens no stream")),
                }
            }
        }
    }

    /// Becomes ready when the answer begins, or will not.
    fn poll(&mut self, worker: &Worker, cx: &mut Context<'_>) -> Poll<Result<Heard, Failure>> {
        match (&mut self.upstream, &mut self.stream) {
            (Upstream::Http1(stream), _) => {
                let (mut from, _) = stream.split();
                from.poll_fill(cx, &worker.buffers, SMALL as u64, 0).map(|read| match read {
                    Ok(bytes) if bytes.is_empty() => {
                        Err(Failure::server_closed("the server closed the connection without an answer"))
                    }
                    Ok(bytes) => Ok(Heard::Bytes(bytes)),
                    Err(error) => Err(Failure::server_closed(error.to_string())),
                })
            }
            (Upstream::Http2(place), Some((heads, _))) => {
                let id = heads.stream_id().as_u32();
                receive::poll_fields(heads, cx).map(|fields| match fields {
                    Ok(fields) => Ok(Heard::Fields(fields)),
                    Err(error) if place.was_not_processed(&error, id) => {
                        Err(Failure::new(FailureKind::Unprocessed, error.to_string()))
                    }
                    Err(error) => Err(Failure::server_closed(error.to_string())),
                })
            }
            (Upstream::Http2(_), None) => Poll::Ready(Err(Failure::server_closed("no stream was opened"))),
        }
    }
}
