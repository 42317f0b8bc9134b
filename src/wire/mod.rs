//! Bytes to types and back; everything here is fuzzed and none of it waits.

pub mod certificate;
pub mod client_hello;
pub mod field;
pub mod http1;
pub mod http2;
pub mod proxy_header;
pub mod rtsp;
pub mod server_hello;
