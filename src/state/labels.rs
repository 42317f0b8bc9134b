//! The words and numbers that counters are kept by.
//!
//! Numbers are those of `state::names`; words are few and ours. Nothing a client or a server sends
//! becomes a label, but for status codes, which are bounded.

/// The number of a label that does not apply: no pool was chosen, or no server.
pub const NONE: u32 = u32::MAX;

/// Whose request it was: numbers of `state::names`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestLabels {
    pub listener: u32,
    /// `NONE` when no pool was chosen.
    pub pool: u32,
    /// `NONE` when no server was reached.
    pub server: u32,
}

/// A server, by the number of its pool and its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerLabels {
    pub pool: u32,
    pub server: u32,
}

/// An enum whose variants are labels: its number indexes an array, its word is printed.
macro_rules! labels {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[$doc])* $variant,)+ }

        impl $name {
            pub const ALL: [$name; [$($name::$variant),+].len()] = [$($name::$variant),+];

            /// The label's value.
            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $word,)+ }
            }
        }
    };
}

labels! {
    /// Why a connection or request was turned away before a server saw it.
    Rejected {
        /// Not HTTP, or not valid HTTP.
        BadRequest = "bad-request",
        /// `limits.header-bytes` or `header-count`.
        HeaderTooLarge = "header-too-large",
        /// `limits.target-bytes`.
        TargetTooLong = "target-too-long",
        /// A rule's body limit, or that of a condition on the body.
        BodyTooLarge = "body-too-large",
        /// The head or body came too slowly.
        Timeout = "timeout",
        /// A TLS handshake on a port without TLS.
        TlsOnPlain = "tls-on-plain",
        /// A PROXY header that was not there, not valid or late.
        ProxyHeader = "proxy-header",
        /// A TLS ClientHello that was not valid, or late.
        ClientHello = "client-hello",
        /// No handshake within `timeouts.tls-handshake`.
        TlsTimeout = "tls-timeout",
        /// The client left within the handshake.
        TlsClosed = "tls-closed",
        /// The client broke the handshake off by an alert: it does not believe our certificate.
        TlsAlert = "tls-alert",
        /// No version, cipher, group or protocol in common.
        TlsIncompatible = "tls-incompatible",
        /// The client's certificate is missing or not good.
        TlsClientCertificate = "tls-client-certificate",
        /// Not TLS as it has to be.
        TlsInvalid = "tls-invalid",
        /// No TLS on a port that speaks nothing else.
        PlainOnTls = "plain-on-tls",
        /// An HTTP version that is not spoken here.
        Version = "version",
        /// TRACE, or CONNECT without a tunnel.
        Method = "method",
        /// An expectation that cannot be met.
        Expectation = "expectation",
        /// No rule took it, and the listener has no pool.
        NoRoute = "no-route",
        /// A rule's rate is used up.
        Rate = "rate",
        /// A rule has as many requests under way as it may.
        RuleFull = "rule-full",
        /// Whoever it was did not say so, or has no leave: a rule with `auth`.
        Unauthorized = "unauthorized",
        /// Every server of the pool, or the pool, is at its bound, and it has no queue.
        Full = "full",
        /// So many wait for a server already.
        QueueFull = "queue-full",
        /// It has waited for a server as long as it may.
        QueueTimeout = "queue-timeout",
        /// A rule said `deny`.
        Denied = "denied",
        /// A rule said `drop`.
        Dropped = "dropped",
        /// More frames of one kind than anybody means well with: HTTP/2.
        Flood = "flood",
        /// An HTTP/2 connection that broke the protocol.
        Protocol = "http2-protocol",
        /// `limits.connections`.
        ConnectionLimit = "connection-limit",
        /// No descriptor or memory was left for a connection to a server.
        Shortage = "shortage",
    }
}

labels! {
    /// What came of an attempt to connect to a server.
    ConnectResult {
        Ok = "ok",
        Refused = "refused",
        Timeout = "timeout",
        /// Connected, and no session: the server did not prove who it is, or speaks no TLS.
        Tls = "tls",
        /// This process has no descriptor or memory left: nothing that the server did.
        Shortage = "shortage",
        /// Anything else: no route, for example.
        Error = "error",
    }
}

labels! {
    /// What came of a copy of a request that was to go to another pool.
    MirrorResult {
        /// It was sent, and answered; nobody looks at how.
        Answered = "answered",
        /// No server was reached, or it did not answer in time.
        Failed = "failed",
        /// There were as many copies under way as there may be.
        Dropped = "dropped",
        /// The body was too large to be kept for a copy.
        TooLarge = "too-large",
    }
}

labels! {
    /// What affinity came to, for one request or connection.
    AffinityResult {
        /// The client showed nothing by which it could be known.
        Unknown = "none",
        /// It is at the server that it was at.
        Hit = "hit",
        /// It is known from now on.
        New = "new",
        /// Its server could not be had: it is at another one from now on.
        Moved = "moved",
        /// Its server is full: this once another one serves.
        Elsewhere = "elsewhere",
        /// Its server cannot be had, and no other one is to serve.
        Refused = "refused",
        /// It showed a cookie that was not made here; it counts as new.
        Forged = "forged",
    }
}

labels! {
    /// Why a request was tried once more.
    RetryReason {
        /// No connection could be made; another server was asked.
        Connect = "connect",
        /// A kept connection was closed by the server before it answered.
        StaleConnection = "stale-connection",
        /// A server of HTTP/2 said that it did not look at the request.
        Unprocessed = "refused-stream",
    }
}

#[expect(clippy::derivable_impls, reason = "the enum is made by a macro that all labels share")]
impl Default for AffinityResult {
    fn default() -> AffinityResult {
        AffinityResult::Unknown
    }
}
