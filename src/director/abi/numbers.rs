//! Flags, states and sizes, by the names of `bpf/abi.h`.

pub const V4: u8 = 4;
pub const V6: u8 = 6;

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;

/// Servers in the list of one service.
pub const SERVERS_PER_SERVICE: usize = 1024;

/// UDP: each packet is scheduled, no entry is made.
pub const SERVICE_ONE_PACKET: u32 = 1 << 0;
/// sh, mh: look further when the slot's server cannot be used.
pub const SERVICE_FALLBACK: u32 = 1 << 1;
/// sh, mh: the client's port is hashed too.
pub const SERVICE_HASH_PORT: u32 = 1 << 2;
/// nat: through the host's stack and firewall.
pub const SERVICE_STACK: u32 = 1 << 3;

/// Never a server.
pub const SCHEDULER_NONE: u32 = 0;
pub const SCHEDULER_RR: u32 = 1;
pub const SCHEDULER_WRR: u32 = 2;
pub const SCHEDULER_LC: u32 = 3;
pub const SCHEDULER_WLC: u32 = 4;
pub const SCHEDULER_SED: u32 = 5;
pub const SCHEDULER_NQ: u32 = 6;
pub const SCHEDULER_FO: u32 = 7;
pub const SCHEDULER_OVF: u32 = 8;
pub const SCHEDULER_SH: u32 = 9;
pub const SCHEDULER_DH: u32 = 10;
pub const SCHEDULER_MH: u32 = 11;

pub const METHOD_NAT: u8 = 0;
pub const METHOD_TUN: u8 = 2;
pub const METHOD_DR: u8 = 3;

/// Taken out of its service.
pub const SERVER_GONE: u32 = 1 << 0;
/// Taken out of its service; its connections go on, its templates do not.
pub const SERVER_LEFT: u32 = 1 << 2;
/// Its address is this machine's.
pub const SERVER_LOCAL: u32 = 1 << 1;

/// Takes no new connections until there are fewer.
pub const LOAD_OVERLOADED: u32 = 1 << 0;

/// The bits of a connection's method.
pub const CONN_METHOD: u16 = 0x7;
/// Came from a peer.
pub const CONN_SYNCED: u16 = 0x20;
/// No packet of the server has been seen.
pub const CONN_NO_OUTPUT: u16 = 0x80;
/// Counted as inactive.
pub const CONN_INACTIVE: u16 = 0x100;
/// Scheduled by mark.
pub const CONN_MARKED: u16 = 0x4000;
/// nat through the host's stack.
pub const CONN_STACK: u16 = 0x8000;

pub const TCP_NONE: u8 = 0;
pub const TCP_ESTABLISHED: u8 = 1;
pub const TCP_SYN_SENT: u8 = 2;
pub const TCP_SYN_RECV: u8 = 3;
pub const TCP_FIN_WAIT: u8 = 4;
pub const TCP_TIME_WAIT: u8 = 5;
pub const TCP_CLOSE: u8 = 6;
pub const TCP_CLOSE_WAIT: u8 = 7;
pub const TCP_LAST_ACK: u8 = 8;
pub const TCP_LISTEN: u8 = 9;
pub const TCP_SYNACK: u8 = 10;

/// A connection of the template was established; set at the first look at it after that.
pub const TEMPLATE_ASSURED: u32 = 1 << 0;
/// The same, at once, beside the count in `controls`.
pub const CONTROL_ASSURED: u32 = 1 << 31;

/// Entries of `controls`.
pub const CONTROLS: u32 = 65536;

pub const CONFIG_EXPIRE_NODEST: u32 = 1 << 0;
pub const CONFIG_EXPIRE_QUIESCENT: u32 = 1 << 1;
pub const CONFIG_SLOPPY_TCP: u32 = 1 << 2;
pub const CONFIG_SECURE_TCP: u32 = 1 << 3;
pub const CONFIG_FLOWS: u32 = 1 << 4;
pub const CONFIG_PORT_ZERO: u32 = 1 << 5;
pub const CONFIG_MARKS: u32 = 1 << 6;
pub const CONFIG_BACKUP_ONLY: u32 = 1 << 8;
pub const CONFIG_LOCAL: u32 = 1 << 9;
pub const CONFIG_ANSWERS: u32 = 1 << 10;

/// What `counters` counts, by index; see `bpf/abi.h` for what follows from each.
pub const COUNTER_NAMES: [&str; 19] = [
    "malformed",
    "no-server",
    "gone",
    "full",
    "clash",
    "drop-packet",
    "too-big",
    "ttl",
    "no-route",
    "fragment",
    "not-syn",
    "created",
    "deleted",
    "templates-full",
    "icmp",
    "decapsulated",
    "clamped",
    "relieved",
    "unanswered",
];
/// Index of `counters`: connections put in.
pub const COUNTER_CREATED: u32 = 11;
/// Index of `counters`: connections taken out.
pub const COUNTER_DELETED: u32 = 12;

/// Tunnels of everybody are opened.
pub const REAL_ANY_DIRECTOR: u32 = 1 << 0;

pub const REAP_CONN4: u32 = 1;
pub const REAP_CONN6: u32 = 2;
pub const REAP_TEMPLATES: u32 = 3;
/// Whether it is over its time or not.
pub const REAP_FORCE: u32 = 0x100;
/// Keys in one run of `reap`.
pub const REAP_KEYS: usize = 64;
