//! Why the kernel's half of the director cannot run, and what to do about it.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Oldest kernel that has what the programs call; Debian 12's.
pub const OLDEST_KERNEL: (u8, u8) = (6, 1);

/// Every message says what is missing and what to do.
#[derive(Debug)]
pub enum Fault {
    /// Not root, or without the capabilities.
    NotAllowed { doing: &'static str },
    /// Too old.
    Kernel { have: String },
    /// No such interface.
    Interface { name: String },
    /// Its packets do not begin with an Ethernet header.
    NotEthernet { name: String, kind: u32 },
    /// The folder of pins is no file system of bpf, and cannot be made one.
    Mount { path: PathBuf, error: io::Error },
    /// A folder for the pins cannot be made or read.
    Folder { path: PathBuf, error: io::Error },
    /// What is pinned is of another version or size, and would have to be given up.
    Pinned { path: PathBuf, what: String },
    /// The kernel refused the object: its own words.
    Load { what: String, error: String },
    /// Attaching a program failed.
    Attach { program: String, interface: String, error: String },
    /// A system call on a map, a pin or a program.
    Call { what: String, error: io::Error },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAllowed { doing } => write!(
                f,
                "{doing} is not allowed: it needs CAP_BPF and CAP_NET_ADMIN (and CAP_SYS_ADMIN to mount bpffs); start as root, or install \
                 packaging/reeve-director.conf beside the unit"
            ),
            Self::Kernel { have } => {
                let (major, minor) = OLDEST_KERNEL;
                write!(f, "Linux {have} is too old: the director needs {major}.{minor} or newer")
            }
            Self::Interface { name } => {
                write!(
                    f,
                    "there is no interface {name}: `ip link` lists those there are; correct [director] interfaces"
                )
            }
            Self::NotEthernet { name, kind } => write!(
                f,
                "interface {name} is of type {kind} (/sys/class/net/{name}/type): packets are known by their Ethernet header, which only \
                 types 1 and 772 (lo) have; name the Ethernet device below it in [director] interfaces"
            ),
            Self::Mount { path, error } => write!(
                f,
                "cannot mount a bpf file system at {}: {error}; mount one there (mount -t bpf bpf {}), or name another folder",
                path.display(),
                path.display()
            ),
            Self::Folder { path, error } => write!(
                f,
                "{}: {error}: the folder of pins has to be this user's to write, and not read-only (systemd: ProtectKernelTunables); start \
                 as root, or install packaging/reeve-director.conf beside the unit",
                path.display()
            ),
            Self::Pinned { path, what } => write!(
                f,
                "{}: {what}; what is pinned there was made by another version or with other sizes: it goes on forwarding as it is; \
                 remove the folder to begin anew (connections are lost)",
                path.display()
            ),
            Self::Load { what, error } => write!(f, "the kernel does not take {what}: {error}"),
            Self::Attach { program, interface, error } => write!(
                f,
                "cannot attach {program} to {interface}: {error}; before Linux 6.6 it takes the clsact qdisc (module sch_ingress)"
            ),
            Self::Call { what, error } => write!(f, "{what}: {error}"),
        }
    }
}

impl std::error::Error for Fault {}
