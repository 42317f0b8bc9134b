//! The kernel's half of the director: its object in this kernel, packets in and packets out.
//!
//! All of it needs root and a kernel that takes the object; elsewhere it is skipped, with the reason.

mod maps;

use reeve::sys::bpf::{Fault, Load, Loaded};

use crate::farm::skip;

/// The object in the kernel, with maps of its own that end with it; `None` where that is not allowed.
pub fn load(programs: &[&str], sizes: &[(&str, u32)]) -> Option<Loaded> {
    match Loaded::open(Load { object: reeve::sys::bpf::OBJECT, pins: None, sizes, programs }) {
        Ok(loaded) => Some(loaded),
        Err(fault @ (Fault::NotAllowed { .. } | Fault::Kernel { .. })) => {
            skip(&fault.to_string());
            None
        }
        Err(fault) => panic!("{fault}"),
    }
}
