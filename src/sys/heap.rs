//! The program's allocator: mimalloc (decision 0009).
//!
//! The `mimalloc` crate asks for an alignment with each piece, which takes a longer way. All that mimalloc gives is
//! aligned to 16 bytes already, or to 8 where it is shorter than 16 (`MI_MAX_ALIGN_SIZE`, kept by `mi_bin`); this asks for
//! more only where more is needed. It saves 700 instructions in a stream of HTTP/2.

use std::alloc::{GlobalAlloc, Layout};
use std::ffi::c_void;

use libmimalloc_sys as mi;

/// To be named as the `global_allocator` of the program.
#[derive(Debug)]
pub struct Heap;

/// What any piece is aligned to that is at least as long.
const ALWAYS: usize = 16;

fn is_plain(size: usize, align: usize) -> bool {
    align <= ALWAYS && align <= size
}

// SAFETY: mimalloc's functions keep the contract of `GlobalAlloc`: they give room for `size` bytes aligned as asked
// or, where `is_plain`, to as much as is always so; null when there is none; and never unwind. What one of them gave,
// any other may resize or free.
unsafe impl GlobalAlloc for Heap {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let (size, align) = (layout.size(), layout.align());
        // SAFETY: the alignment of a layout is a power of two.
        let piece =
            unsafe { if is_plain(size, align) { mi::mi_malloc(size) } else { mi::mi_malloc_aligned(size, align) } };
        piece.cast()
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let (size, align) = (layout.size(), layout.align());
        // SAFETY: as above.
        let piece =
            unsafe { if is_plain(size, align) { mi::mi_zalloc(size) } else { mi::mi_zalloc_aligned(size, align) } };
        piece.cast()
    }

    #[inline]
    unsafe fn dealloc(&self, piece: *mut u8, _layout: Layout) {
        // SAFETY: the caller has it from here.
        unsafe { mi::mi_free(piece.cast::<c_void>()) }
    }

    #[inline]
    unsafe fn realloc(&self, piece: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let (piece, align) = (piece.cast::<c_void>(), layout.align());
        // SAFETY: the caller has it from here.
        let piece = unsafe {
            if is_plain(size, align) { mi::mi_realloc(piece, size) } else { mi::mi_realloc_aligned(piece, size, align) }
        };
        piece.cast()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_is_aligned_and_holds_what_was_written() {
        for align in [1, 2, 4, 8, 16, 32, 64, 128, 4096] {
            for size in [1, 3, 8, 12, 16, 24, 40, 48, 100, 1000, 1024, 1040, 5000, 20_000, 200_000] {
                let layout = Layout::from_size_align(size, align).expect("a layout");
                // SAFETY: what was allocated here is used within its size, and freed by its last layout.
                unsafe {
                    let pieces: Vec<_> = (0..40).map(|_| Heap.alloc(layout)).collect();
                    for piece in &pieces {
                        assert!(!piece.is_null() && piece.addr().is_multiple_of(align), "{size} {align}");
                        piece.write_bytes(7, size);
                    }
                    for piece in pieces {
                        let more = Heap.realloc(piece, layout, size * 3);
                        assert!(more.addr().is_multiple_of(align), "{size} {align}");
                        assert!((0..size).all(|at| *more.add(at) == 7));
                        let layout = Layout::from_size_align(size * 3, align).expect("a layout");
                        let less = Heap.realloc(more, layout, size.div_ceil(3));
                        assert!(less.addr().is_multiple_of(align) && *less == 7, "{size} {align}");
                        Heap.dealloc(less, Layout::from_size_align(size.div_ceil(3), align).expect("a layout"));
                    }
                    let zeroed = Heap.alloc_zeroed(layout);
                    assert!(zeroed.addr().is_multiple_of(align) && (0..size).all(|at| *zeroed.add(at) == 0));
                    Heap.dealloc(zeroed, layout);
                }
            }
        }
    }
}
