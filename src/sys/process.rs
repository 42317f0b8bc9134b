//! Limits the kernel sets to this process, and what it has in use.

use std::fs;
use std::path::Path;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit of open descriptors to the hard one and returns it. A proxy needs two for
/// each client, and the usual soft limit of 1,024 is meant for programs that use `select`.
pub fn raise_descriptor_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let (soft, hard) = (limit.current.unwrap_or(u64::MAX), limit.maximum.unwrap_or(u64::MAX));
    if soft < hard && setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).is_ok() {
        return hard;
    }
    soft
}

/// Has this thread give way to others: for work that takes a while and that nobody waits for to the
/// millisecond. It still gets a fourth of a core that is busy.
pub fn give_way() {
    // It fails for no thread of our own.
    let _ = rustix::process::setpriority_process(None, 5);
}

/// Whether a call failed because this process or machine has no descriptor or memory left, rather than for
/// anything that the other side is or did. Not where there is no address or port to come from: that is so for one
/// destination, as for every IPv6 address on a machine without IPv6.
pub fn is_shortage(error: &std::io::Error) -> bool {
    use rustix::io::Errno;
    let short = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    error.raw_os_error().is_some_and(|code| short.iter().any(|short| short.raw_os_error() == code))
}

/// Memory of this process that is in use, in bytes (proc_pid_status(5)); `None` without /proc.
pub fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.split_ascii_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

/// Gives back to the kernel what this thread has freed and the allocator kept to use again: milliseconds of work, for
/// when memory is short.
pub fn give_memory_back() {
    // SAFETY: it takes no pointers, and any thread may call it at any time (mimalloc.h).
    unsafe { libmimalloc_sys::mi_collect(true) }
}

/// What the control groups of this process let it use, in bytes: the least of its own and those around it.
/// `None`: as much as there is.
pub fn memory_limit() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    least_limit(&groups, |file| fs::read_to_string(Path::new("/sys/fs/cgroup").join(file)).ok())
}

/// `groups` is cgroups(7)'s /proc/PID/cgroup; `read` takes a path below where the groups are mounted. Of version 2
/// there is one tree, of version 1 one for memory; a container sees its own group as the root of either.
fn least_limit(groups: &str, read: impl Fn(&Path) -> Option<String>) -> Option<u64> {
    let limits = groups.lines().filter_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        let (root, file) = match controllers {
            "" => (Path::new(""), "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => (Path::new("memory"), "memory.limit_in_bytes"),
            _ => return None,
        };
        let own = root.join(path.trim_start_matches('/'));
        let around = own.ancestors().filter(|group| group.starts_with(root));
        // "max" is none; version 1 says it with a number that no machine has.
        around.filter_map(|group| read(&group.join(file))?.trim().parse().ok()).min()
    });
    limits.min().filter(|limit| *limit < 1 << 60)
}

/// Whether this process runs as root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_in_use() {
        assert!(resident_bytes().is_some_and(|bytes| (1 << 20..1 << 40).contains(&bytes)), "{:?}", resident_bytes());
    }

    #[test]
    fn the_least_of_the_groups_limits_counts() {
        let limit = |groups: &str, files: &[(&str, &str)]| {
            least_limit(groups, |path| {
                let file = files.iter().find(|(name, _)| Path::new(name) == path)?;
                Some(format!("{}\n", file.1))
            })
        };
        let two = "0::/system.slice/reeve.service\n";
        let own = "system.slice/reeve.service/memory.max";
        assert_eq!(limit(two, &[(own, "max"), ("system.slice/memory.max", "max")]), None);
        assert_eq!(limit(two, &[(own, "1000"), ("system.slice/memory.max", "max")]), Some(1000));
        assert_eq!(limit(two, &[(own, "1000"), ("system.slice/memory.max", "900")]), Some(900));
        assert_eq!(limit("0::/\n", &[("memory.max", "5000")]), Some(5000), "as a container sees it");
        let one = "12:cpu,cpuacct:/a\n4:memory:/a\n0::/a\n";
        assert_eq!(limit(one, &[("memory/a/memory.limit_in_bytes", "7")]), Some(7));
        assert_eq!(limit(one, &[("memory/a/memory.limit_in_bytes", "9223372036854771712")]), None);
        assert_eq!(limit("odd\n", &[]), None);
    }
}
