//! The L4 director: packets are forwarded in the kernel (`bpf/`), and this engine tells it how.

pub mod abi;
