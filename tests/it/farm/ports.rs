//! Ports for listeners that no other test, in whichever process, takes at the same time.
//!
//! Reeve listens with SO_REUSEPORT, so that two tests on one port would share it in silence. A lock
//! file for each port prevents that; the range lies below the one the kernel takes client ports from.

use std::collections::hash_map::RandomState;
use std::fs::{File, OpenOptions};
use std::hash::BuildHasher;
use std::net::TcpListener;
use std::path::Path;

const RANGE: std::ops::Range<u16> = 12_000..30_000;

pub struct Port {
    pub number: u16,
    /// Unlocked by the kernel when the test ends, however it ends.
    _lock: File,
}

impl Port {
    pub fn free() -> Port {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("ports");
        std::fs::create_dir_all(&folder).expect("a folder of port locks");
        let span = u64::from(RANGE.end - RANGE.start);
        let start = RandomState::new().hash_one(std::process::id()) % span;
        for step in 0..span {
            let number = RANGE.start + ((start + step) % span) as u16;
            let path = folder.join(number.to_string());
            let lock = OpenOptions::new().create(true).append(true).open(path).expect("a port's lock");
            if lock.try_lock().is_ok() && TcpListener::bind(("127.0.0.1", number)).is_ok() {
                return Port { number, _lock: lock };
            }
        }
        panic!("no free port in {RANGE:?}");
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.number)
    }
}
