//! The kernel: programs and maps of bpf, socket options, splice, a timer, memory, the heap, limits of the process, descriptors that are handed on, the supervisor. The only floor where `unsafe` may stand.

pub mod bpf;
pub mod descriptors;
pub mod files;
pub mod heap;
pub mod interfaces;
pub mod memory;
pub mod names;
pub mod notify;
pub mod process;
pub mod secrets;
pub mod socket;
pub mod splice;
pub mod ticker;
