//! The answer of a server that speaks HTTP/2: heads that come as fields, and a body in frames.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use h2::RecvStream;
use h2::client::ResponseFuture;

use super::super::client::ToClient;
use super::super::failure::{Failure, FailureKind};
use super::super::relay::{self, downstream};
use super::body::{begin, done, finish, send_fields};
use super::{
    FromServer, MOST_INTERIM, Next, Receive, Received, declined, final_head, interim, may_take_longer, pass_interim,
    passed_over, time_left, timeout,
};
use crate::wire::http1::request::Version;
use crate::wire::http1::response::ResponseHead;
use crate::wire::http2;

/// How long the end of an answer without a body may take.
const ITS_END: Duration = Duration::from_secs(1);

/// An answer in HTTP/2: first its heads, then its body.
pub struct Answer {
    pub heads: ResponseFuture,
    /// The first of them, where it has been waited for already.
    pub early: Option<Fields>,
    pub body: Option<RecvStream>,
    /// The error that a stream ended with before it was answered.
    pub error: Option<h2::Error>,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answer").finish_non_exhaustive()
    }
}

/// The same for a server that speaks HTTP/2.
pub(super) async fn receive_fields(r: &mut Receive<'_, '_, '_, '_>) -> Result<Received, Failure> {
    let mut interim_answers = 0;
    let (parts, body) = loop {
        match next_fields(r).await? {
            Fields::Final(answer) => break answer.into_parts(),
            Fields::Interim(answer) => {
                interim_answers += 1;
                if interim_answers > MOST_INTERIM {
                    return Err(Failure::server_closed("the server sends interim answers without end"));
                }
                let (parts, ()) = answer.into_parts();
                let head = head_of(&parts, true, r)?;
                let ready = interim(r, &head);
                pass_interim(r, ready).await?;
                if !r.progress.uploading.get() {
                    r.progress.sent_at.set(None);
                }
            }
        }
    };
    let ends = body.is_end_stream();
    let mut head = head_of(&parts, ends || r.plan.head_only, r)?;
    if ends && !r.plan.head_only && r.plan.version != Version::Http2 && !matches!(head.status, 204 | 304) {
        // In HTTP/1 an answer without a length would end with its connection.
        head.length = head.length.or(Some(0));
    }
    declined(r, head.status)?;
    passed_over(r, head.status)?;
    let Next::Final(last) = final_head(r, &head) else { return Err(timeout()) };
    drop(head);
    if let FromServer::Http2(answer) = &mut r.from {
        answer.body = Some(body);
    }
    let mut buffer = r.worker.buffers.small();
    let mut begun = begin(r, last, &mut buffer)?;
    let all_here = begun.is_whole();
    let limit = r.timeouts.client_write;
    match r.to {
        ToClient::Http1(to) => relay::write_all(to, &begun.out, r.timer, limit).await,
        ToClient::Http2(respond) => send_fields(respond, &mut begun, all_here, r.timer, limit).await,
    }
    .map_err(downstream)?;
    if !ends && all_here {
        ended(r).await;
    }
    if all_here { Ok(done(r, begun, &buffer)) } else { finish(r, begun, buffer).await }
}

/// Hears the end of a stream that has no body, where it comes in a frame of its own: to drop it would reset it, and servers count
/// resets.
async fn ended(r: &mut Receive<'_, '_, '_, '_>) {
    if let FromServer::Http2(answer) = &mut r.from
        && let Some(body) = &mut answer.body
    {
        let _ = r.timer.wait(ITS_END, poll_fn(|cx| body.poll_data(cx))).await;
    }
}

fn head_of<'a>(
    parts: &'a http::response::Parts,
    ends: bool,
    r: &Receive<'_, '_, '_, '_>,
) -> Result<ResponseHead<'a>, Failure> {
    let limits = &r.plan.view.snapshot.config.limits;
    http2::response::head(parts, ends, limits)
        .map_err(|fault| Failure::new(FailureKind::Response(fault), fault.detail()))
}

/// The head of an answer in HTTP/2.
#[derive(Debug)]
pub enum Fields {
    Interim(http::Response<()>),
    Final(http::Response<RecvStream>),
}

/// Waits for the server's next head.
async fn next_fields(r: &mut Receive<'_, '_, '_, '_>) -> Result<Fields, Failure> {
    loop {
        let left = time_left(r);
        let FromServer::Http2(answer) = &mut r.from else { return Err(timeout()) };
        if let Some(fields) = answer.early.take() {
            r.progress.heard.set(true);
            return Ok(fields);
        }
        let heads = &mut answer.heads;
        let next = poll_fn(|cx| match poll_fields(heads, cx) {
            Poll::Ready(fields) => Poll::Ready(Some(fields)),
            Poll::Pending => r.to.poll_given_up(cx).map(|()| None),
        });
        match r.timer.wait(left, next).await {
            Ok(Some(Ok(fields))) => {
                r.progress.heard.set(true);
                return Ok(fields);
            }
            Ok(Some(Err(error))) => {
                let failure = Failure::server_closed(error.to_string());
                // A stream that was reset has been dealt with; a connection that broke may not have.
                r.progress.heard.set(r.progress.heard.get() || error.is_reset());
                answer.error = Some(error);
                return Err(failure);
            }
            Ok(None) => return Err(Failure::client_gone()),
            Err(_) if may_take_longer(r) => {}
            Err(_) => return Err(timeout()),
        }
    }
}

/// The next head of an answer.
pub fn poll_fields(heads: &mut ResponseFuture, cx: &mut Context<'_>) -> Poll<Result<Fields, h2::Error>> {
    if let Poll::Ready(Some(interim)) = heads.poll_informational(cx) {
        return Poll::Ready(interim.map(Fields::Interim));
    }
    Pin::new(heads).poll(cx).map_ok(Fields::Final)
}
