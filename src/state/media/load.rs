//! What a server has of media, over all cores: how much it carries now, and what it has carried.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

/// A server's media. Written where sessions begin and end, and once a batch of packets.
#[derive(Debug)]
pub struct Load {
    used: AtomicBool,
    sessions: AtomicU32,
    kilobits: AtomicU64,
    /// `u32::MAX`: no bound.
    most_sessions: AtomicU32,
    most_kilobits: AtomicU32,
    streams: [AtomicU64; 3],
    pub traffic: Traffic,
    /// What of it the director has passed on, in the kernel.
    pub offloaded: Traffic,
    lost: AtomicU64,
    /// Of the last report, in microseconds.
    jitter: AtomicU64,
}

/// Packets and bytes of media.
#[derive(Debug, Default)]
pub struct Traffic {
    packets: [AtomicU64; 2],
    bytes: [AtomicU64; 2],
}

/// Which way media goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    ToServer,
    ToClient,
}

/// How a stream is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carried {
    Interleaved,
    Relayed,
    /// By the director.
    Offloaded,
}

/// What is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    Sessions,
    Bandwidth,
}

impl Default for Load {
    fn default() -> Load {
        Load {
            used: AtomicBool::new(false),
            sessions: AtomicU32::new(0),
            kilobits: AtomicU64::new(0),
            most_sessions: AtomicU32::new(u32::MAX),
            most_kilobits: AtomicU32::new(u32::MAX),
            streams: Default::default(),
            traffic: Traffic::default(),
            offloaded: Traffic::default(),
            lost: AtomicU64::new(0),
            jitter: AtomicU64::new(0),
        }
    }
}

impl Load {
    /// Takes over what the file says.
    pub fn configure(&self, sessions: Option<u32>, kilobits: Option<u32>) {
        self.most_sessions.store(sessions.unwrap_or(u32::MAX), Relaxed);
        self.most_kilobits.store(kilobits.unwrap_or(u32::MAX), Relaxed);
    }

    /// What another session of `kilobits` would go beyond.
    pub fn full(&self, kilobits: u32) -> Option<Full> {
        if self.sessions() >= self.most_sessions.load(Relaxed) {
            return Some(Full::Sessions);
        }
        let most = self.most_kilobits.load(Relaxed);
        let would = self.kilobits().saturating_add(kilobits.into());
        // One that is idle takes whatever it is asked for, or larger streams would never be seen.
        (most != u32::MAX && self.kilobits() > 0 && would > most.into() || would > u64::from(u32::MAX))
            .then_some(Full::Bandwidth)
    }

    pub fn sessions(&self) -> u32 {
        self.sessions.load(Relaxed)
    }

    /// Named by the descriptions of its sessions, in kbit/s.
    pub fn kilobits(&self) -> u64 {
        self.kilobits.load(Relaxed)
    }

    pub fn streams(&self, carried: Carried) -> u64 {
        self.streams[carried as usize].load(Relaxed)
    }

    /// Packets that clients and servers have reported as lost.
    pub fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }

    /// Of the last report, in seconds.
    pub fn jitter(&self) -> f64 {
        self.jitter.load(Relaxed) as f64 / 1e6
    }

    /// Whether it ever had a session.
    pub fn was_used(&self) -> bool {
        self.used.load(Relaxed)
    }

    pub(super) fn enter(&self, kilobits: u32) {
        self.used.store(true, Relaxed);
        self.sessions.fetch_add(1, Relaxed);
        self.kilobits.fetch_add(kilobits.into(), Relaxed);
    }

    pub(super) fn leave(&self, kilobits: u32) {
        self.sessions.fetch_sub(1, Relaxed);
        self.kilobits.fetch_sub(kilobits.into(), Relaxed);
    }

    pub(super) fn stream(&self, carried: Carried, more: bool) {
        let count = &self.streams[carried as usize];
        if more {
            count.fetch_add(1, Relaxed)
        } else {
            count.fetch_sub(1, Relaxed)
        };
    }

    /// A receiver has reported more losses, and the jitter.
    pub fn reported(&self, lost: u64, jitter_micros: u64) {
        self.lost.fetch_add(lost, Relaxed);
        self.jitter.store(jitter_micros, Relaxed);
    }
}

impl Traffic {
    pub fn add(&self, way: Way, packets: u64, bytes: u64) {
        self.packets[way as usize].fetch_add(packets, Relaxed);
        self.bytes[way as usize].fetch_add(bytes, Relaxed);
    }

    /// Packets and bytes.
    pub fn of(&self, way: Way) -> (u64, u64) {
        (self.packets[way as usize].load(Relaxed), self.bytes[way as usize].load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_by_number_and_by_bandwidth() {
        let load = Load::default();
        assert_eq!(load.full(u32::MAX), None);
        load.configure(Some(2), Some(1000));
        assert_eq!(load.full(5000), None, "nothing runs yet");
        load.enter(600);
        assert_eq!((load.full(400), load.full(401)), (None, Some(Full::Bandwidth)));
        load.enter(0);
        assert_eq!(load.full(0), Some(Full::Sessions));
        load.leave(600);
        assert_eq!((load.full(9999), load.sessions(), load.kilobits()), (None, 1, 0));
    }
}
