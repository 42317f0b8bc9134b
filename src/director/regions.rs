//! Which slots of a table are free: regions are taken, and given back when nobody can look at them any more.

use std::collections::BTreeMap;
use std::time::Instant;

#[derive(Debug)]
pub struct Regions {
    /// Beginnings and lengths; no two touch.
    free: BTreeMap<u32, u32>,
    /// Given back, and free from then on.
    settling: Vec<(Instant, u32, u32)>,
}

impl Regions {
    pub fn new(size: u32) -> Regions {
        Regions { free: BTreeMap::from([(0, size)]), settling: Vec::new() }
    }

    /// The first free region that is long enough; one of no length is at 0.
    pub fn allocate(&mut self, length: u32) -> Option<u32> {
        if length == 0 {
            return Some(0);
        }
        let (at, room) = self.free.iter().find(|(_, room)| **room >= length).map(|(at, room)| (*at, *room))?;
        self.free.remove(&at);
        if room > length {
            self.free.insert(at + length, room - length);
        }
        Some(at)
    }

    /// A region that was taken before there was this list.
    pub fn take(&mut self, at: u32, length: u32) {
        let Some((&start, &room)) = self.free.range(..=at).next_back() else { return };
        let (end, last) = (at.saturating_add(length), start + room);
        if length == 0 || end > last {
            return;
        }
        self.free.remove(&start);
        if at > start {
            self.free.insert(start, at - start);
        }
        if last > end {
            self.free.insert(end, last - end);
        }
    }

    /// Given back; free from `at_last` on.
    pub fn release(&mut self, at: u32, length: u32, at_last: Instant) {
        if length > 0 {
            self.settling.push((at_last, at, length));
        }
    }

    /// What has settled by now is free.
    pub fn settle(&mut self, now: Instant) {
        let (settled, still): (Vec<_>, Vec<_>) = self.settling.drain(..).partition(|(at_last, ..)| *at_last <= now);
        self.settling = still;
        settled.into_iter().for_each(|(_, at, length)| self.put_back(at, length));
    }

    fn put_back(&mut self, mut at: u32, mut length: u32) {
        if let Some((&before, &room)) = self.free.range(..at).next_back()
            && before + room == at
        {
            self.free.remove(&before);
            (at, length) = (before, length + room);
        }
        if let Some(room) = self.free.remove(&(at + length)) {
            length += room;
        }
        self.free.insert(at, length);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_given_back_is_free_later_and_whole_again() {
        let now = Instant::now();
        let mut regions = Regions::new(100);
        let (first, second) = (regions.allocate(30).unwrap(), regions.allocate(70).unwrap());
        assert_eq!((first, second, regions.allocate(1), regions.allocate(0)), (0, 30, None, Some(0)));
        regions.release(first, 30, now + Duration::from_secs(1));
        regions.settle(now);
        assert_eq!(regions.allocate(1), None, "somebody may look at it still");
        regions.release(second, 70, now);
        regions.settle(now + Duration::from_secs(1));
        assert_eq!(regions.allocate(100), Some(0));
        let mut regions = Regions::new(100);
        regions.take(10, 20);
        regions.take(40, 60);
        assert_eq!((regions.allocate(11), regions.allocate(10), regions.allocate(10)), (None, Some(0), Some(30)));
    }
}
