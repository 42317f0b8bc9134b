//! Where clients were: a table of fixed size, without a lock.
//!
//! An entry is two numbers: the keyed hash of what a client is known by, and the number of a server's name with the
//! second at which the entry ends. What the client showed is not kept. A hash has its place in one of two groups of
//! eight, so that the table can be filled to four fifths before anything has to make room: then it is the entry of
//! these sixteen that ends first, which is the one that was used longest ago. So a look-up, an entry and an eviction take
//! the same few steps, however full the table is.
//!
//! Writers: any worker. Two that put the same client in at once may leave two entries, of which the one that is found
//! first counts, and the other one ends by itself; where one loses its place to another client at that moment, it is
//! new once more. A value carries twelve bits of its hash, so that one which comes to lie beside another's hash then is
//! no value. Places whose entries have ended are emptied by one sweeper, part by part, so that what is taken is known without a
//! look at all of it.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use crate::sys::memory::zeros;

/// Entries of a group: their hashes fill one line of the cache, their values another one.
const WAYS: usize = 8;
const GROUP: usize = 2 * WAYS;
/// Tries to get a place that others are after too.
const TRIES: usize = 8;

/// The hash of what a client is known by; never 0.
pub type Tag = u64;

/// The number of a server's name, below [`NUMBERS`]; others are not kept.
pub type Number = u32;

/// More names than any farm's servers ever have.
pub const NUMBERS: Number = (1 << 20) - 1;

#[derive(Debug)]
pub struct Table {
    /// Group by group: eight hashes, 0 where there is none, and eight values.
    words: Box<[AtomicU64]>,
    groups: u64,
    /// Places with a hash.
    taken: AtomicI64,
    evicted: AtomicU64,
}

/// An entry, as it goes into a file or another process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    pub tag: Tag,
    pub number: Number,
    /// Seconds since 1970.
    pub ends: u32,
}

impl Table {
    /// One with room for so many.
    pub fn new(entries: usize) -> Table {
        let groups = (entries * 5 / 4).div_ceil(WAYS).max(2);
        Table {
            words: zeros(groups * GROUP),
            groups: groups as u64,
            taken: AtomicI64::new(0),
            evicted: AtomicU64::new(0),
        }
    }

    /// Bytes that it takes when it is full.
    pub fn bytes(&self) -> usize {
        self.words.len() * size_of::<AtomicU64>()
    }

    /// Entries, with those that have ended and were not swept out yet.
    pub fn taken(&self) -> u64 {
        // A place may be counted empty a moment before it is counted taken.
        self.taken.load(Ordering::Relaxed).max(0) as u64
    }

    /// Entries that made room before they had ended.
    pub fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }

    /// The server that a client was at. `now` in seconds since 1970.
    pub fn find(&self, tag: Tag, now: u32) -> Option<Number> {
        let (number, ends) = parts(tag, self.place(tag)?.load(Ordering::Acquire))?;
        (ends > now).then_some(number)
    }

    /// Until when it is known where a client is; 0 where it is not.
    pub fn known_until(&self, tag: Tag) -> u32 {
        let known = self.place(tag).and_then(|place| parts(tag, place.load(Ordering::Acquire)));
        known.map_or(0, |(_, ends)| ends)
    }

    /// Notes where a client is, until `ends`. An entry that says so already is moved on in steps of a sixteenth of
    /// its `life`, so that busy clients do not write all the time.
    pub fn put(&self, entry: Entry, life: u32, now: u32) {
        if entry.number >= NUMBERS {
            return;
        }
        let value = value(entry);
        if let Some(place) = self.place(entry.tag) {
            let same = parts(entry.tag, place.load(Ordering::Relaxed))
                .is_some_and(|(number, ends)| number == entry.number && ends.saturating_add(life / 16) > entry.ends);
            if !same {
                place.store(value, Ordering::Release);
            }
            return;
        }
        for _ in 0..TRIES {
            let (at, before) = self.room(entry.tag, now);
            let (tag, place) = (&self.words[at], &self.words[at + WAYS]);
            let old = place.swap(0, Ordering::AcqRel);
            // Whoever finds the hash from here on finds no server, or this one.
            if tag.compare_exchange(before, entry.tag, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                place.store(value, Ordering::Release);
                if before == 0 {
                    self.taken.fetch_add(1, Ordering::Relaxed);
                }
                if parts(before, old).is_some_and(|(_, ends)| ends > now) {
                    self.evicted.fetch_add(1, Ordering::Relaxed);
                }
                return;
            }
        }
    }

    /// Everything that has not ended.
    pub fn entries(&self, now: u32) -> impl Iterator<Item = Entry> + '_ {
        let groups = self.words.chunks_exact(GROUP);
        let pairs = groups.flat_map(|group| group[..WAYS].iter().zip(&group[WAYS..]));
        pairs.filter_map(move |(tag, place)| {
            let tag = tag.load(Ordering::Acquire);
            let (number, ends) = parts(tag, place.load(Ordering::Acquire))?;
            (tag != 0 && ends > now).then_some(Entry { tag, number, ends })
        })
    }

    /// Empties the places of entries that have ended, in part number `part` of so many. A client that comes to such a place
    /// at that very moment is new once more.
    pub fn sweep(&self, part: usize, of: usize, now: u32) {
        let groups = self.groups as usize;
        let bound = |part: usize| groups * part / of * GROUP;
        for group in self.words[bound(part)..bound(part + 1)].chunks_exact(GROUP) {
            for (tag, place) in group[..WAYS].iter().zip(&group[WAYS..]) {
                let before = tag.load(Ordering::Acquire);
                let ended = parts(before, place.load(Ordering::Acquire)).is_none_or(|(_, ends)| ends <= now);
                if before != 0 && ended && tag.compare_exchange(before, 0, Ordering::AcqRel, Ordering::Relaxed).is_ok()
                {
                    self.taken.fetch_sub(1, Ordering::Relaxed);
                }
            }
        }
    }

    /// The value of the entry with that hash.
    fn place(&self, tag: Tag) -> Option<&AtomicU64> {
        self.starts(tag).into_iter().find_map(|start| {
            let group = &self.words[start..start + GROUP];
            let at = group[..WAYS].iter().position(|own| own.load(Ordering::Acquire) == tag)?;
            Some(&group[WAYS + at])
        })
    }

    /// Where a new entry may go, and whose place that is now: a free one in the emptier of its two groups, else the
    /// one that ends first.
    fn room(&self, tag: Tag, now: u32) -> (usize, Tag) {
        let mut best = (false, 0, u32::MAX, 0, 0);
        for start in self.starts(tag) {
            let free = (0..WAYS).filter(|at| self.ends(start + at) <= now).count();
            for at in start..start + WAYS {
                let ends = self.ends(at);
                let is_free = ends <= now;
                let better = match (is_free, best.0) {
                    (true, true) => free > best.1,
                    (true, false) => true,
                    (false, true) => false,
                    (false, false) => ends < best.2,
                };
                if better {
                    best = (is_free, free, ends, at, self.words[at].load(Ordering::Relaxed));
                }
            }
        }
        (best.3, best.4)
    }

    /// When the entry whose hash is at that place ends; 0 for none.
    fn ends(&self, at: usize) -> u32 {
        let tag = self.words[at].load(Ordering::Relaxed);
        parts(tag, self.words[at + WAYS].load(Ordering::Relaxed)).map_or(0, |(_, ends)| ends)
    }

    fn starts(&self, tag: Tag) -> [usize; 2] {
        // The high half of the product is spread evenly over all groups, whatever their number.
        let group = |hash: u64| ((u128::from(hash) * u128::from(self.groups)) >> 64) as usize;
        let first = group(tag);
        let second = group(tag.rotate_left(32).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        [first * GROUP, second * GROUP]
    }
}

/// Twelve bits of the hash, twenty for the number and one, 32 for the time.
fn value(entry: Entry) -> u64 {
    check(entry.tag) | u64::from(entry.number + 1) << 32 | u64::from(entry.ends)
}

fn parts(tag: Tag, value: u64) -> Option<(Number, u32)> {
    let number = ((value >> 32) as u32 & NUMBERS).checked_sub(1)?;
    (check(tag) == value & CHECK).then_some((number, value as u32))
}

const CHECK: u64 = 0xfff << 52;

fn check(tag: Tag) -> u64 {
    tag << 52
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(n: u64) -> Tag {
        // As evenly as the keyed hash.
        (n + 1).wrapping_mul(0x2545_f491_4f6c_dd1d).rotate_left(29).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1
    }

    fn put(table: &Table, n: u64, number: Number, ends: u32, now: u32) {
        table.put(Entry { tag: tag(n), number, ends }, 160, now);
    }

    #[test]
    fn entries_are_found_until_they_end() {
        let table = Table::new(100);
        put(&table, 1, 7, 100, 0);
        put(&table, 2, 0, 200, 0);
        assert_eq!((table.find(tag(1), 99), table.find(tag(2), 99)), (Some(7), Some(0)));
        assert_eq!((table.find(tag(1), 100), table.find(tag(3), 0)), (None, None));
        put(&table, 1, 8, 150, 100);
        assert_eq!(table.find(tag(1), 149), Some(8));
        // Steps of a sixteenth of the life, 10 s.
        put(&table, 1, 8, 155, 105);
        assert_eq!(table.find(tag(1), 152), None);
        put(&table, 1, 8, 160, 110);
        assert_eq!(table.find(tag(1), 159), Some(8));
        assert_eq!(table.entries(159).count(), 2);
        assert_eq!(table.entries(160).count(), 1);
        assert_eq!(table.taken(), 2);
        (0..60).for_each(|part| table.sweep(part, 60, 160));
        assert_eq!((table.taken(), table.find(tag(1), 150), table.find(tag(2), 160)), (1, None, Some(0)));
    }

    #[test]
    fn what_was_promised_fits_and_then_the_oldest_make_room() {
        let table = Table::new(10_000);
        (0..10_000).for_each(|n| put(&table, n, 1, 1000 + n as u32, 0));
        let there = (0..10_000).filter(|n| table.find(tag(*n), 0).is_some()).count();
        assert!(there >= 9_990, "{there}");
        (10_000..200_000).for_each(|n| put(&table, n, 1, 1000 + n as u32, 0));
        let (count, capacity) = (table.entries(0).count(), table.bytes() / 16);
        assert_eq!(table.taken(), count as u64);
        assert!(count <= capacity && count > capacity * 99 / 100, "{count} of {capacity}");
        assert_eq!(table.evicted(), 200_000 - count as u64);
        let recent = (195_000..200_000).filter(|n| table.find(tag(*n), 0).is_some()).count();
        assert!(recent > 4_990, "{recent} of the newest 5000");
        // What has ended makes room before anything else.
        (0..5_000).for_each(|n| put(&table, 1_000_000 + n, 2, 900_000, 300_000));
        assert!((0..5_000).filter(|n| table.find(tag(1_000_000 + n), 300_000).is_some()).count() > 4_990);
    }

    #[test]
    fn threads_that_meet_never_give_a_client_to_the_server_of_another() {
        let table = Table::new(100);
        std::thread::scope(|scope| {
            for start in 0..4_u64 {
                let table = &table;
                scope.spawn(move || {
                    for round in 0..40_000_u64 {
                        let n = (round * 7 + start * 13) % 1_000;
                        // Each client has one server for ever.
                        put(table, n, (n % 97) as u32, 1_000, 0);
                        if round % 64 == 0 {
                            // Others come back meanwhile.
                            table.sweep(round as usize / 64 % 8, 8, if start == 0 { 1_000 } else { 0 });
                        }
                        if let Some(found) = table.find(tag(n), 0) {
                            assert_eq!(u64::from(found), n % 97);
                        }
                    }
                });
            }
        });
        let wrong =
            (0..1_000).filter(|n| table.find(tag(*n), 0).is_some_and(|found| u64::from(found) != n % 97)).count();
        assert_eq!(wrong, 0);
        assert!(table.evicted() > 0);
        let hashes = table.words.chunks_exact(GROUP).flat_map(|group| &group[..WAYS]);
        let there = hashes.filter(|hash| hash.load(Ordering::Relaxed) != 0).count() as u64;
        assert_eq!(table.taken(), there, "each counted once");
    }
}
