//! Every time Reeve waits for somebody, with its default and reason.

use std::time::Duration;

/// All times have a unit in the configuration; the names are its keys in `[timeouts]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    /// The head of a request, from its first byte to its empty line; a slow sender holds a buffer.
    pub request_header: Duration,
    /// Silence in the middle of a request body.
    pub request_body: Duration,
    /// An idle client connection between requests.
    pub client_keep_alive: Duration,
    /// A client that takes no byte of its answer.
    pub client_write: Duration,
    /// Waiting for a server that is not full.
    pub queue: Duration,
    /// Reaching a server.
    pub connect: Duration,
    /// From the end of the request to the first byte of its answer.
    pub response: Duration,
    /// Silence in the middle of an answer's body.
    pub response_body: Duration,
    /// An idle connection to a server.
    pub server_keep_alive: Duration,
    /// A tunnel (WebSocket) in which neither side speaks.
    pub tunnel: Duration,
    /// A plain TCP connection in which neither side speaks.
    pub tcp_idle: Duration,
    /// A tunnel of which one side has said its last word.
    pub half_closed: Duration,
    /// The ClientHello of a passed-through TLS connection.
    pub hello: Duration,
    /// A PROXY header.
    pub proxy_header: Duration,
    /// A TLS handshake.
    pub tls_handshake: Duration,
    /// From SIGTERM to the end, for requests in flight; for tunnels of a listener that a reload removed.
    pub drain: Duration,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        let s = Duration::from_secs;
        Timeouts {
            request_header: s(10),
            request_body: s(30),
            client_keep_alive: s(60),
            client_write: s(60),
            queue: s(5),
            connect: s(3),
            response: s(60),
            response_body: s(60),
            server_keep_alive: s(30),
            tunnel: s(3600),
            tcp_idle: s(600),
            half_closed: s(30),
            hello: s(5),
            proxy_header: s(5),
            tls_handshake: s(10),
            drain: s(30),
        }
    }
}
