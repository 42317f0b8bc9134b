//! RTSP/1.0 (RFC 2326) and RTSP/2.0 (RFC 7826): messages, media frames between them, and the fields that say
//! where media goes.
//!
//! Devices are liberal in what they send, so this is liberal in what it takes: line ends without CR, any case of
//! names, any text in a URI. What goes on is written anew, line by line, and is strict.

pub mod framer;
pub mod fuzz;
pub mod message;
pub mod rtcp;
pub mod sdp;
pub mod session;
pub mod transport;
pub mod uri;

pub use framer::{Framer, Item};
pub use message::{Fault, Head, Start, Version};
