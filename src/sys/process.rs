//! Limits the kernel sets to this process.

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

/// Whether this process runs as root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
