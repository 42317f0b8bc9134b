//! Memory that costs nothing before it is used.

use std::alloc::{Layout, alloc_zeroed, handle_alloc_error};
use std::sync::atomic::AtomicU64;

/// Numbers that are all 0. Of many of them, the kernel gives pages as they are written first.
pub fn zeros(count: usize) -> Box<[AtomicU64]> {
    if count == 0 {
        return Box::default();
    }
    let Ok(layout) = Layout::array::<AtomicU64>(count) else { return Box::default() };
    // SAFETY: the layout is of `count` numbers, and not empty. All zero bits are a valid `AtomicU64`, so that the
    // memory is initialised. A box of a slice frees with the layout of its length, which is this one.
    unsafe {
        let memory = alloc_zeroed(layout);
        if memory.is_null() {
            handle_alloc_error(layout);
        }
        Box::from_raw(std::ptr::slice_from_raw_parts_mut(memory.cast::<AtomicU64>(), count))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;

    #[test]
    fn it_is_zero_and_can_be_written() {
        for count in [0, 1, 1000] {
            let numbers = zeros(count);
            assert_eq!(numbers.len(), count);
            assert!(numbers.iter().all(|number| number.load(Relaxed) == 0));
            numbers.iter().for_each(|number| number.store(7, Relaxed));
        }
    }
}
