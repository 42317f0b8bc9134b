//! Plain data: what the operator means, after every text has been read and checked.
//!
//! Nothing here does I/O, reads a clock or imports another room. `config` makes these values,
//! everything else only reads them.

pub mod affinity;
pub mod check;
pub mod config;
pub mod director;
pub mod fault;
pub mod limits;
pub mod listener;
pub mod pool;
pub mod rule;
pub mod timeouts;
pub mod tls;

pub use config::Config;
pub use fault::{Fault, Place, Severity};
pub use limits::Limits;
pub use timeouts::Timeouts;
