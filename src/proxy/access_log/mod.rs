//! One line for every request, written without holding the request up.
//!
//! `line` turns what is known of a request into bytes; `writer` carries the bytes to the file. A
//! worker only ever copies into its own buffer and, now and then, hands a full one over.

pub mod line;
pub mod matched;
pub mod writer;

mod clock;
mod escape;
mod slot;

pub use clock::ClockText;
pub use line::{Entry, write_json, write_text};
pub use slot::{LogSlot, Logs};
pub use writer::{Log, Sink};
