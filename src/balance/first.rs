//! The first that has room, in the order of the file: the last servers stay idle, and can be switched off.

use super::{View, first_usable};

pub fn pick(view: &impl View) -> Option<usize> {
    first_usable(view, 0)
}
