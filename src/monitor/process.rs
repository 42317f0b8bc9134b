//! What the kernel says about this process.

use std::fs;

use crate::sys::process::resident_bytes;

/// What is not known (no /proc, say) is left out.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Process {
    /// Processor time used, user and system, of all threads.
    pub cpu_seconds: Option<f64>,
    pub resident_bytes: Option<u64>,
    pub open_files: Option<u64>,
    /// The soft limit of descriptors; `None` too when there is no limit.
    pub max_files: Option<u64>,
}

/// /proc counts in these whatever the kernel's own tick is (USER_HZ, 100 on every machine in use).
const TICKS_PER_SECOND: f64 = 100.0;

impl Process {
    pub fn now() -> Process {
        let read = |name: &str| fs::read_to_string(format!("/proc/self/{name}")).ok();
        Process {
            cpu_seconds: read("stat").and_then(|text| cpu_seconds(&text)),
            resident_bytes: resident_bytes(),
            // One of them is the folder being read.
            open_files: fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count().saturating_sub(1) as u64),
            max_files: read("limits").and_then(|text| max_files(&text)),
        }
    }
}

/// Fields 14 and 15 of proc_pid_stat(5); the second field is a name in parentheses that may hold anything.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) as f64 / TICKS_PER_SECOND)
}

fn max_files(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_seen() {
        let process = Process::now();
        assert!(process.cpu_seconds.is_some_and(|seconds| seconds < 1e6), "{process:?}");
        assert!(process.resident_bytes.is_some_and(|bytes| bytes > 1 << 20), "{process:?}");
        assert!(process.open_files.is_some_and(|files| files >= 3), "{process:?}");
    }

    #[test]
    fn odd_texts_are_survived() {
        let stat = "1 (a) b) S 0 1 1 0 -1 4194560 1 2 3 4 150 50 7 8";
        assert_eq!(cpu_seconds(stat), Some(2.0));
        assert_eq!(cpu_seconds("1 (a"), None);
        assert_eq!(max_files("Max open files            unlimited            unlimited            files\n"), None);
        assert_eq!(
            max_files("Max open files            1024                 4096                 files\n"),
            Some(1024)
        );
    }
}
