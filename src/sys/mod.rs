//! The kernel: socket options, splice, a timer, limits of the process. The only floor where `unsafe` may stand.

pub mod process;
pub mod socket;
pub mod splice;
pub mod ticker;
