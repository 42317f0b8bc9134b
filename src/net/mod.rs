//! The pipes: listening, dialling, idle connections, buffers and deadlines. All of it belongs to one
//! worker and is shared with no other core.

pub mod buffers;
pub mod deadline;
pub mod deferred;
pub mod dial;
pub mod ending;
pub mod flood;
pub mod idle;
pub mod peek;
pub mod pipes;
mod secure;
pub mod stream;
mod tcp;

pub use buffers::{Buffer, Buffers};
pub use deadline::{Elapsed, Timer, Wheel};
pub use deferred::Deferred;
pub use ending::Ending;
pub use idle::IdleConnections;
pub use stream::Stream;
