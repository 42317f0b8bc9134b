//! What a table of clients costs: memory for each entry, and the time to note and to find one.
//!
//! `cargo bench --bench affinity` prints one line a size. Memory is what the kernel says that the process has more than
//! before; the table's own size is beside it.

use std::hint::black_box;
use std::time::Instant;

use reeve::state::affinity::table::{Entry, Table, Tag};

/// Evenly spread, as the keyed hash is.
fn tag(n: u64) -> Tag {
    let mut x = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (x ^ (x >> 31)).max(1)
}

/// Bytes of memory that the process has.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: usize = text.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    pages * 4096
}

fn main() {
    for entries in [1_000, 100_000, 1_000_000] {
        let before = resident();
        let table = Table::new(entries);
        let empty = resident() - before;
        let started = Instant::now();
        for n in 0..entries as u64 {
            table.put(Entry { tag: tag(n), number: (n % 8) as u32, ends: 1_000_000 }, 1800, 0);
        }
        let put = started.elapsed().as_nanos() as f64 / entries as f64;
        let full = resident() - before;
        let started = Instant::now();
        let found = (0..entries as u64).filter(|n| black_box(table.find(tag(*n), 0)).is_some()).count();
        let find = started.elapsed().as_nanos() as f64 / entries as f64;
        println!(
            "{entries:>9} entries: {found} kept, table {} B, memory {full} B (empty {empty} B), {:.1} B an entry, \
             {put:.0} ns to note, {find:.0} ns to find",
            table.bytes(),
            table.bytes() as f64 / entries as f64,
        );
    }
}
