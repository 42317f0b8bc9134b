//! Takes flows out of the tables whose time is over, and those of servers that left.
//!
//! To the kernel a flow that is over its time is not there; but it takes room, and counts on its server until it is out.

use std::collections::HashMap;
use std::io;

use super::abi;
use super::kernel::{self, Kernel};
use super::plan::Present;

/// Flows taken out in one go: their keys are held in memory, 40 bytes each.
const AT_ONCE: usize = 65_536;

/// Takes out what is over its time; whether there may be more.
///
/// # Errors
/// When the tables cannot be read or the program not run.
pub fn over(kernel: &mut Kernel) -> io::Result<bool> {
    let now = kernel::now();
    let mut keys = Vec::new();
    kernel.flows(|key, conn| {
        if abi::left(now, conn.last, conn.timeout).is_none() {
            keys.push(key);
        }
        keys.len() < AT_ONCE
    })?;
    let mut templates = Vec::new();
    kernel.templates(|key, template| {
        if abi::left(now, template.last, template.timeout).is_none() {
            templates.push(*key);
        }
        templates.len() < AT_ONCE
    })?;
    let more = keys.len() == AT_ONCE || templates.len() == AT_ONCE;
    kernel.reap(&keys, false).map_err(io::Error::other)?;
    kernel.reap_templates(&templates).map_err(io::Error::other)?;
    Ok(more)
}

/// Takes out the flows of servers: all of them, or only those of UDP. How many.
///
/// # Errors
/// As [`over`].
pub fn forget(kernel: &mut Kernel, servers: &[(u32, bool)]) -> io::Result<usize> {
    if servers.is_empty() {
        return Ok(0);
    }
    let servers: HashMap<u32, bool> = servers.iter().copied().collect();
    let mut forgotten = 0;
    loop {
        let mut keys = Vec::new();
        kernel.flows(|key, conn| {
            if servers.get(&conn.server).is_some_and(|all| *all || key.protocol() == abi::UDP) {
                keys.push(key);
            }
            keys.len() < AT_ONCE
        })?;
        let reaped = kernel.reap(&keys, true).map_err(io::Error::other)?;
        forgotten += reaped;
        if keys.len() < AT_ONCE || reaped == 0 {
            return Ok(forgotten);
        }
    }
}

/// Numbers of servers that left and have nothing any more.
///
/// # Errors
/// When the kernel does not say.
pub fn ended(kernel: &Kernel, present: &Present) -> io::Result<Vec<u32>> {
    let mut ended = Vec::new();
    for id in present.leaving() {
        let abi::Load { active, inactive, persistent, .. } = kernel.load(id)?;
        if active == 0 && inactive == 0 && persistent == 0 {
            ended.push(id);
        }
    }
    Ok(ended)
}
