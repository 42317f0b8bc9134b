//! The kernel's half of the director: its object in this kernel, packets in and packets out.
//!
//! All of it needs root and a kernel that takes the object; elsewhere it is skipped, with the reason.

mod cost;
mod errors;
mod forward;
mod lan;
mod maps;
mod net;
mod object;
mod persist;
mod schedule;
mod states;
mod wire;
mod world;

use std::borrow::Cow;

use reeve::sys::bpf::{Fault, Load, Loaded, OBJECT};

use crate::farm::skip;

/// All of them.
pub const PROGRAMS: &[&str] = &["director_in", "director_out", "real_in", "real_out", "reap"];

/// The object under test: the committed one, or, when REEVE_BPF_OBJECT names a file, that (see `./check`).
pub fn object() -> Cow<'static, [u8]> {
    match std::env::var_os("REEVE_BPF_OBJECT") {
        Some(path) => Cow::Owned(std::fs::read(path).expect("the object that REEVE_BPF_OBJECT names")),
        None => Cow::Borrowed(OBJECT),
    }
}

/// The object in the kernel, with maps of its own that end with it; `None` where that is not allowed.
pub fn load(programs: &[&str], sizes: &[(&str, u32)]) -> Option<Loaded> {
    match Loaded::open(Load { object: &object(), pins: None, sizes, programs }) {
        Ok(loaded) => Some(loaded),
        Err(fault @ (Fault::NotAllowed { .. } | Fault::Kernel { .. })) => {
            skip(&fault.to_string());
            None
        }
        Err(fault) => panic!("{fault}"),
    }
}
