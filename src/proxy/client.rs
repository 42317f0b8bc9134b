//! The client of one request: where the rest of its request comes from and where its answer goes, which
//! is a connection of HTTP/1 or a stream of HTTP/2.

use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::HeaderMap;

use super::ahead::Held;
use super::pieces;
use super::registry::Connection;
use super::relay::RelayError;
use crate::model::Limits;
use crate::net::stream::{Reader, Writer};
use crate::net::{Buffer, Ending, Timer};

/// One request's hold on its client.
#[derive(Debug)]
pub struct Client<'c, 's> {
    pub from: FromClient<'c, 's>,
    pub to: ToClient<'c, 's>,
    pub timer: &'c Timer,
    pub connection: &'c Connection,
    /// HTTP/1: read and not used up: the head of the request in progress, and what came behind it.
    pub input: Option<Buffer>,
    /// HTTP/2: what the log quotes of the head.
    pub quoted: Vec<u8>,
    /// Bytes behind the head that belong to the request in progress.
    pub body_taken: usize,
    /// What came behind a body that was read aside.
    pub next_input: Option<Buffer>,
    /// HTTP/2: what was read of the body before a server was chosen.
    pub held: Option<Box<Held>>,
}

/// Where a request's body comes from.
#[derive(Debug)]
pub enum FromClient<'c, 's> {
    Http1(&'c mut Reader<'s>),
    Http2(&'c mut RecvStream),
}

/// Where its answer goes.
#[derive(Debug)]
pub enum ToClient<'c, 's> {
    Http1(&'c mut Writer<'s>),
    Http2(&'c mut Respond),
}

/// The answering half of a stream.
#[derive(Debug)]
pub struct Respond {
    start: SendResponse<Bytes>,
    /// Once the final head has been sent and something follows it.
    rest: Option<SendStream<Bytes>>,
}

/// How an answer goes on behind its head and the bytes that are sent along with it.
#[derive(Debug)]
pub enum Rest {
    /// More bytes follow.
    More,
    /// Nothing, but trailers where there are some.
    End(Option<HeaderMap>),
}

impl Client<'_, '_> {
    pub fn is_http2(&self) -> bool {
        matches!(self.from, FromClient::Http2(_))
    }

    /// What is there behind the head of the request in progress.
    pub fn body_bytes(&self, head_bytes: usize) -> &[u8] {
        self.input.as_ref().and_then(|input| input.as_slice().get(head_bytes..)).unwrap_or_default()
    }

    /// What the ranges of [`super::plan::Seen`] point into.
    pub fn quoted(&self) -> &[u8] {
        self.input.as_ref().map_or(&self.quoted, |input| input.as_slice())
    }

    /// Lets go of all that is there but the head of the request in progress, which the log will quote.
    pub fn keep_head_only(&mut self, head_bytes: usize) {
        if let Some(input) = &mut self.input {
            input.shrink_to(head_bytes);
        }
    }

    /// Becomes ready when the client, who waits for its turn, has left: one of HTTP/1 by ending its connection. Half of
    /// it may be meant (RFC 9112 §9.6), but hardly anybody does that, and a server that is full is not to work for those
    /// who have gone. `ending` watches the connection.
    pub fn poll_gone(&mut self, ending: &mut Option<Ending>, cx: &mut Context<'_>) -> Poll<()> {
        match &self.from {
            FromClient::Http1(reader) => {
                if ending.is_none() {
                    // Without a descriptor to watch it by, it is not seen to leave.
                    *ending = reader.watch().ok();
                }
                ending.as_mut().map_or(Poll::Pending, |ending| ending.poll(cx))
            }
            FromClient::Http2(_) => self.to.poll_given_up(cx),
        }
    }

    /// Whether this connection has had all the requests it may have.
    pub fn is_last(&self, limits: &Limits) -> bool {
        let most = limits.requests_per_connection;
        most > 0 && self.connection.requests.get() >= most
    }
}

impl ToClient<'_, '_> {
    /// Becomes ready when the client of HTTP/2 has given its request up. One of HTTP/1 says so by ending
    /// its connection, which may as well be half of it (RFC 9112 §9.6): it is written to all the same.
    #[inline]
    pub fn poll_given_up(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            ToClient::Http1(_) => Poll::Pending,
            ToClient::Http2(respond) => respond.poll_given_up(cx),
        }
    }
}

impl Respond {
    pub fn new(start: SendResponse<Bytes>) -> Respond {
        Respond { start, rest: None }
    }

    fn poll_given_up(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.rest {
            Some(rest) => rest.poll_reset(cx).map(drop),
            None => self.start.poll_reset(cx).map(drop),
        }
    }

    /// Sends a head with a status of 1xx.
    ///
    /// # Errors
    /// When the client has given up.
    pub fn interim(&mut self, head: http::Response<()>) -> Result<(), RelayError> {
        self.start.send_informational(head).map_err(|_| RelayError::Gone)
    }

    /// Sends the final head and what is there of the body.
    ///
    /// # Errors
    /// When the client has given up, or takes nothing for `limit`.
    pub async fn begin(
        &mut self,
        head: http::Response<()>,
        body: Bytes,
        rest: Rest,
        timer: &Timer,
        limit: Duration,
    ) -> Result<(), RelayError> {
        let ends = body.is_empty() && matches!(rest, Rest::End(None));
        let mut stream = self.start.send_response(head, ends).map_err(|_| RelayError::Gone)?;
        if ends {
            return Ok(());
        }
        if let Rest::End(None) = rest
            && pieces::fits(&mut stream, body.len())
        {
            // Nearly every answer: nothing to wait for, nothing to keep.
            return stream.send_data(body, true).map_err(|_| RelayError::Gone);
        }
        let stream = self.rest.insert(stream);
        Box::pin(pieces::begin(stream, body, rest, timer, limit)).await
    }

    /// Where the rest of the body goes; `None` before there is a head, and where nothing follows it.
    pub fn rest(&mut self) -> Option<&mut SendStream<Bytes>> {
        self.rest.as_mut()
    }

    pub fn reset(&mut self, reason: Reason) {
        self.start.send_reset(reason);
    }
}
