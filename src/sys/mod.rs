//! The kernel: socket options, splice, a timer, limits of the process, descriptors that are handed on, the supervisor. The only floor where `unsafe` may stand.

pub mod descriptors;
pub mod notify;
pub mod process;
pub mod socket;
pub mod splice;
pub mod ticker;
