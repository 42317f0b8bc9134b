//! The kernel: socket options, splice, limits of the process. The only floor where `unsafe` may stand.

pub mod process;
pub mod socket;
pub mod splice;
