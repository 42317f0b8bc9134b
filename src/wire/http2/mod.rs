//! HTTP/2: requests and answers between their fields and the heads that `http1` reads and writes, and the
//! frames of a connection as far as they have to be watched.
//!
//! The `h2` crate speaks the protocol itself.

pub mod frames;
pub mod request;
pub mod response;

pub use request::Crumbs;

use http::{HeaderName, header};

/// The key of our handshakes with servers for clients of HTTP/2, which have none (RFC 8441 §5), and the
/// answer that proves that a server speaks WebSocket: the pair of RFC 6455 §1.3. Any key proves as much.
pub const WEBSOCKET_KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub const WEBSOCKET_ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// Whether a field of this name mostly has the value that it had before. Only such ones are worth a place
/// in the header table of the other side (RFC 7541 §2.3.2): every other one would push them out, is looked
/// for in vain, and may be a secret whose length is guessed by what it is compressed to (§7.1).
pub fn is_steady(name: &HeaderName) -> bool {
    matches!(name.as_str(), "x-forwarded-proto" | "x-forwarded-host" | "grpc-encoding" | "grpc-accept-encoding")
        || matches!(
            *name,
            header::ACCEPT
                | header::ACCEPT_ENCODING
                | header::ACCEPT_LANGUAGE
                | header::ACCEPT_RANGES
                | header::ACCESS_CONTROL_ALLOW_CREDENTIALS
                | header::ACCESS_CONTROL_ALLOW_HEADERS
                | header::ACCESS_CONTROL_ALLOW_METHODS
                | header::ACCESS_CONTROL_ALLOW_ORIGIN
                | header::ALT_SVC
                | header::CACHE_CONTROL
                | header::CONTENT_ENCODING
                | header::CONTENT_LANGUAGE
                | header::CONTENT_TYPE
                | header::DATE
                | header::EXPIRES
                | header::PRAGMA
                | header::REFERRER_POLICY
                | header::SERVER
                | header::STRICT_TRANSPORT_SECURITY
                | header::TE
                | header::USER_AGENT
                | header::VARY
                | header::VIA
                | header::X_CONTENT_TYPE_OPTIONS
                | header::X_FRAME_OPTIONS
                | header::X_XSS_PROTECTION
        )
}
