//! Bytes to types and back; everything here is fuzzed and none of it waits.

pub mod certificate;
pub mod field;
pub mod http1;
pub mod http2;
