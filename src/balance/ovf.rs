//! Overflow: the heaviest, until it has more requests in hand than its weight; then the next heaviest. Where all have, none:
//! the request waits, or is turned away. (IPVS `ovf`.)

use super::View;
use super::fo::Order;

pub fn pick(order: &Order, view: &impl View) -> Option<usize> {
    order.first(view, |server| view.load(server) <= view.weight(server))
}
