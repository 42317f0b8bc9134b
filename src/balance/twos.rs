//! The better of two, drawn in proportion to the weights: nearly as even as comparing all, and it does not run after the same
//! server as everybody else who compares. (IPVS `twos`; others call it power of two choices.)

use super::random::Wheel;
use super::{View, mix};

pub fn pick(wheel: &Wheel, view: &impl View, dice: u64) -> Option<usize> {
    let (one, two) = (wheel.throw(dice)?, wheel.throw(mix(dice))?);
    match (view.usable(one), view.usable(two)) {
        (true, true) => {
            let (load, weight) = (u64::from(view.load(one)), u64::from(view.weight(one)));
            let (other, of) = (u64::from(view.load(two)), u64::from(view.weight(two)));
            Some(if other * weight < load * of { two } else { one })
        }
        (true, false) => Some(one),
        (false, true) => Some(two),
        (false, false) => wheel.pick(view, dice),
    }
}
