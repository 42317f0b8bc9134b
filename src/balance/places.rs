//! Which servers have been given a key: what `lblc`, `lblcr` and `content` remember.
//!
//! A table of a fixed size that all cores read and write without a lock: a key has one of eight places, and the one that
//! nobody asked for the longest makes room. What two cores write at once may be lost, or a key may be sent to a server that
//! another one was given: both cost a cache one miss. Servers are known by their identities, so that what is remembered
//! outlives a change of health and a reload.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// Of eight places each; a power of two. 16,384 keys are what IPVS lets its table grow to; 768 KiB.
const GROUPS: usize = 1 << 11;
const PLACES: usize = 8;
/// Servers of one key at most.
pub const MEMBERS: usize = 8;
/// Seconds after which a key that nobody asked for is forgotten, as IPVS does (`lblc_expiration`).
const EXPIRES: u32 = 24 * 3600;

#[derive(Debug)]
pub struct Places(Box<[[Set; PLACES]]>);

/// The servers of one key.
#[derive(Debug, Default)]
pub struct Set {
    /// The key's hash; 0: nobody's.
    key: AtomicU64,
    /// When it was asked for, and when its servers changed, in seconds.
    used: AtomicU32,
    changed: AtomicU32,
    /// What their identities are known by; 0: none.
    members: [AtomicU32; MEMBERS],
}

impl Default for Places {
    fn default() -> Places {
        Places(std::iter::repeat_with(Default::default).take(GROUPS).collect())
    }
}

/// What a server is known by here.
pub fn tag(seed: u64) -> u32 {
    ((seed >> 32) as u32).max(1)
}

impl Places {
    /// The servers of a key, which may be none.
    pub fn of(&self, key: u64, now: u32) -> &Set {
        let key = key.max(1);
        let group = &self.0[key as usize & (GROUPS - 1)];
        if let Some(set) = group.iter().find(|set| set.key.load(Relaxed) == key) {
            if now.saturating_sub(set.used.load(Relaxed)) > EXPIRES {
                set.clear(now);
            }
            set.used.store(now, Relaxed);
            return set;
        }
        let age =
            |set: &&Set| if set.key.load(Relaxed) == 0 { u32::MAX } else { now.saturating_sub(set.used.load(Relaxed)) };
        // There are eight.
        let set = group.iter().max_by_key(age).unwrap_or(&group[0]);
        set.clear(now);
        set.key.store(key, Relaxed);
        set.used.store(now, Relaxed);
        set
    }
}

impl Set {
    pub fn members(&self) -> impl Iterator<Item = u32> + '_ {
        self.members.iter().map(|member| member.load(Relaxed)).filter(|&member| member != 0)
    }

    pub fn clear(&self, now: u32) {
        self.members.iter().for_each(|member| member.store(0, Relaxed));
        self.changed.store(now, Relaxed);
    }

    /// Makes room at the end where there is none.
    pub fn add(&self, tag: u32, now: u32) {
        if self.members().any(|member| member == tag) {
            return;
        }
        let free = self.members.iter().find(|member| member.load(Relaxed) == 0);
        free.unwrap_or(&self.members[MEMBERS - 1]).store(tag, Relaxed);
        self.changed.store(now, Relaxed);
    }

    pub fn remove(&self, tag: u32, now: u32) {
        self.members.iter().filter(|member| member.load(Relaxed) == tag).for_each(|member| member.store(0, Relaxed));
        self.changed.store(now, Relaxed);
    }

    /// For how long its servers have been these, in seconds.
    pub fn quiet(&self, now: u32) -> u32 {
        now.saturating_sub(self.changed.load(Relaxed))
    }
}
