//! Overflow: the heaviest, until it has more requests in hand than its weight; then the next heaviest. Where all have, none:
//! the request waits, or is turned away. (IPVS `ovf`.)

use super::{View, fo};

pub fn pick(view: &impl View) -> Option<usize> {
    fo::heaviest(view, |server| view.load(server) <= view.weight(server))
}
