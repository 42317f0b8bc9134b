//! HTTP/2: requests and answers between their fields and the heads that `http1` reads and writes, and the
//! frames of a connection as far as they have to be watched.
//!
//! The `h2` crate speaks the protocol itself.

pub mod frames;
pub mod request;
pub mod response;

pub use request::Crumbs;

/// The key of our handshakes with servers for clients of HTTP/2, which have none (RFC 8441 §5), and the
/// answer that proves that a server speaks WebSocket: the pair of RFC 6455 §1.3. Any key proves as much.
pub const WEBSOCKET_KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub const WEBSOCKET_ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
