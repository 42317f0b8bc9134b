//! What went wrong with a request, whose fault it was, and what the client is told.

use std::borrow::Cow;

use crate::state::counters::Rejected;
use crate::wire::http1::{ChunkFault, Refusal, ResponseFault};

/// A request that did not end as it should.
#[derive(Debug)]
pub struct Failure {
    pub kind: FailureKind,
    /// For the log, never for the client.
    pub detail: Cow<'static, str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// The head cannot be understood in one way only.
    Head(Refusal),
    /// The path is not allowed by the section's policy.
    Path,
    /// The head did not come in time.
    HeadTimeout,
    /// The body is not validly chunked.
    Body(ChunkFault),
    /// The body did not come in time.
    BodyTimeout,
    /// The client went away.
    ClientGone,
    /// The client takes nothing of its answer.
    ClientStalled,
    /// No rule took the request.
    NoRoute,
    /// The rule's rate is used up; seconds until it is not.
    Rate(u32),
    /// The rule has as many requests under way as it may.
    RuleFull,
    /// Too many passwords wait to be checked.
    AuthFull,
    /// The service that says who may pass was not reached, or not in time.
    AuthUnreachable,
    /// Its answer was none that says so.
    AuthFailed,
    /// No server of the pool is up.
    NoServer,
    /// All servers of the pool are at their limit.
    Full,
    /// They are, and so many wait for them already.
    QueueFull,
    /// It has waited for them as long as it may.
    QueueTimeout,
    /// No connection could be made.
    Connect,
    /// No connection was made in time.
    ConnectTimeout,
    /// The server closed the connection without an answer.
    ServerClosed,
    /// The server said that it did not look at the request (HTTP/2), and so did others.
    Unprocessed,
    /// The server did not begin its answer in time.
    ResponseTimeout,
    /// The rule's time for the whole request is over.
    TotalTimeout,
    /// The answer is not valid.
    Response(ResponseFault),
    /// The answer's body is not validly chunked.
    ResponseBody(ChunkFault),
    /// The answer stopped in the middle.
    ResponseCut,
    /// The answer paused too long.
    ResponseStalled,
    /// A fault of ours.
    Panicked,
    /// This process has no descriptor or memory left for another connection.
    Shortage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Downstream,
    Upstream,
}

impl Side {
    pub fn word(self) -> &'static str {
        match self {
            Side::Downstream => "client",
            Side::Upstream => "server",
        }
    }

    pub fn other(self) -> Side {
        match self {
            Side::Downstream => Side::Upstream,
            Side::Upstream => Side::Downstream,
        }
    }
}

impl Failure {
    pub fn new(kind: FailureKind, detail: impl Into<Cow<'static, str>>) -> Failure {
        Failure { kind, detail: detail.into() }
    }

    pub fn head(refusal: Refusal) -> Failure {
        Failure::new(FailureKind::Head(refusal), refusal.detail())
    }

    pub fn short_of_memory() -> Failure {
        Failure::new(FailureKind::Shortage, "no memory is left for it: see limits.memory")
    }

    pub fn client_gone() -> Failure {
        Failure::new(FailureKind::ClientGone, "the client closed its connection")
    }

    pub fn server_closed(detail: impl Into<Cow<'static, str>>) -> Failure {
        Failure::new(FailureKind::ServerClosed, detail)
    }
}

impl FailureKind {
    /// The status that tells the client; 0 where nobody is left to be told.
    pub fn status(self) -> u16 {
        match self {
            FailureKind::Head(refusal) => refusal.status(),
            FailureKind::Body(ChunkFault::BodyTooLarge) => 413,
            FailureKind::Path | FailureKind::Body(_) => 400,
            FailureKind::HeadTimeout | FailureKind::BodyTimeout => 408,
            FailureKind::ClientGone | FailureKind::ClientStalled => 0,
            FailureKind::NoRoute => 404,
            FailureKind::Rate(_) => 429,
            FailureKind::NoServer
            | FailureKind::Full
            | FailureKind::QueueFull
            | FailureKind::QueueTimeout
            | FailureKind::RuleFull
            | FailureKind::AuthFull
            | FailureKind::AuthUnreachable
            | FailureKind::Shortage => 503,
            FailureKind::Panicked => 500,
            FailureKind::Connect
            | FailureKind::AuthFailed
            | FailureKind::ServerClosed
            | FailureKind::Unprocessed
            | FailureKind::Response(_)
            | FailureKind::ResponseBody(_)
            | FailureKind::ResponseCut => 502,
            FailureKind::ConnectTimeout
            | FailureKind::ResponseTimeout
            | FailureKind::TotalTimeout
            | FailureKind::ResponseStalled => 504,
        }
    }

    /// Whose fault it was; `None`: ours.
    pub fn side(self) -> Option<Side> {
        match self {
            FailureKind::Head(_)
            | FailureKind::Path
            | FailureKind::HeadTimeout
            | FailureKind::Body(_)
            | FailureKind::BodyTimeout
            | FailureKind::ClientGone
            | FailureKind::ClientStalled
            | FailureKind::NoRoute
            | FailureKind::Rate(_)
            | FailureKind::RuleFull => Some(Side::Downstream),
            FailureKind::Panicked | FailureKind::Shortage | FailureKind::AuthFull => None,
            _ => Some(Side::Upstream),
        }
    }

    /// The word of the access log.
    pub fn word(self) -> &'static str {
        match self {
            FailureKind::Head(Refusal::TooLarge | Refusal::TooManyFields) => "header-too-large",
            FailureKind::Head(Refusal::TargetTooLong) => "target-too-long",
            FailureKind::Head(_) | FailureKind::Path => "bad-request",
            FailureKind::HeadTimeout => "request-timeout",
            FailureKind::Body(ChunkFault::BodyTooLarge) => "body-too-large",
            FailureKind::Body(_) => "bad-body",
            FailureKind::BodyTimeout => "body-timeout",
            FailureKind::ClientGone => "client-gone",
            FailureKind::ClientStalled => "client-stalled",
            FailureKind::NoRoute => "no-route",
            FailureKind::Rate(_) => "rate",
            FailureKind::RuleFull => "rule-full",
            FailureKind::AuthFull => "auth-full",
            FailureKind::AuthUnreachable => "auth-unreachable",
            FailureKind::AuthFailed => "auth-failed",
            FailureKind::NoServer => "no-server",
            FailureKind::Full => "full",
            FailureKind::QueueFull => "queue-full",
            FailureKind::QueueTimeout => "queue-timeout",
            FailureKind::Connect => "connect",
            FailureKind::ConnectTimeout => "connect-timeout",
            FailureKind::ServerClosed => "server-closed",
            FailureKind::Unprocessed => "refused-stream",
            FailureKind::ResponseTimeout => "response-timeout",
            FailureKind::TotalTimeout => "total-timeout",
            FailureKind::Response(_) | FailureKind::ResponseBody(_) => "bad-response",
            FailureKind::ResponseCut => "response-cut",
            FailureKind::ResponseStalled => "response-stalled",
            FailureKind::Panicked => "internal",
            FailureKind::Shortage => "shortage",
        }
    }

    /// One sentence for the client: what happened, and nothing about the farm behind.
    pub fn sentence(self) -> &'static str {
        match self {
            FailureKind::Head(refusal) => refusal.detail(),
            FailureKind::Path => "the path is not valid",
            FailureKind::HeadTimeout | FailureKind::BodyTimeout => "the request took too long to arrive",
            FailureKind::Body(fault) => fault.detail(),
            FailureKind::NoRoute => "there is nothing at this address",
            FailureKind::Rate(_) => "there were too many requests",
            FailureKind::Panicked => "something went wrong here; it has been written down",
            FailureKind::NoServer
            | FailureKind::Full
            | FailureKind::QueueFull
            | FailureKind::QueueTimeout
            | FailureKind::RuleFull
            | FailureKind::AuthFull
            | FailureKind::AuthUnreachable
            | FailureKind::Shortage => "the service is not available at the moment",
            FailureKind::ConnectTimeout
            | FailureKind::ResponseTimeout
            | FailureKind::TotalTimeout
            | FailureKind::ResponseStalled => "the service did not answer in time",
            _ => "the service could not be reached or gave an invalid answer",
        }
    }

    /// The reason it is counted under, where no server saw the request.
    pub fn rejected(self) -> Option<Rejected> {
        Some(match self {
            FailureKind::Head(refusal) => match refusal {
                Refusal::TooLarge | Refusal::TooManyFields => Rejected::HeaderTooLarge,
                Refusal::TargetTooLong => Rejected::TargetTooLong,
                Refusal::Version => Rejected::Version,
                Refusal::Connect | Refusal::Trace => Rejected::Method,
                Refusal::Expectation => Rejected::Expectation,
                _ => Rejected::BadRequest,
            },
            FailureKind::Path => Rejected::BadRequest,
            FailureKind::HeadTimeout => Rejected::Timeout,
            FailureKind::Body(ChunkFault::BodyTooLarge) => Rejected::BodyTooLarge,
            FailureKind::NoRoute => Rejected::NoRoute,
            FailureKind::Shortage => Rejected::Shortage,
            FailureKind::Rate(_) => Rejected::Rate,
            FailureKind::RuleFull => Rejected::RuleFull,
            FailureKind::Full => Rejected::Full,
            FailureKind::QueueFull => Rejected::QueueFull,
            FailureKind::QueueTimeout => Rejected::QueueTimeout,
            _ => return None,
        })
    }
}
