//! The structures that both halves lay out alike. Numbers before the fields are their offsets and those after the names the sizes:
//! the compiler holds them to be so, and a test compares them with what the C compiler laid out in the object.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Address, Port};

/// One field of a shared structure: its name, offset and size.
pub type Field = (&'static str, usize, usize);

macro_rules! shared {
    ($($(#[$doc:meta])* $name:ident $c_name:literal: $size:literal { $($(#[$field_doc:meta])* $at:literal => $field:ident: $type:ty,)+ })+) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
            #[repr(C)]
            pub struct $name { $($(#[$field_doc])* pub $field: $type,)+ }

            const _: () = assert!(size_of::<$name>() == $size);
            $(const _: () = assert!(std::mem::offset_of!($name, $field) == $at);)+
        )+

        /// Every shared structure: its name in C, its size and its fields.
        pub const LAYOUTS: &[(&str, usize, &[Field])] = &[
            $(($c_name, $size, &[$((stringify!($field), $at, size_of::<$type>()),)+]),)+
        ];
    };
}

shared! {
    /// Key of `services`.
    ServiceKey "service_key": 24 {
        0 => address: Address,
        /// 0, or the mark by which packets are known: then address, port and protocol are 0.
        16 => mark: u32,
        20 => port: Port,
        /// `TCP` or `UDP`.
        22 => protocol: u8,
        /// `V4` or `V6`.
        23 => family: u8,
    }

    /// Value of `services`.
    Service "service": 72 {
        /// Index into `service_state`, never 0.
        0 => id: u32,
        /// Raised by one with each update, modulo 2^24.
        4 => generation: u32,
        /// `SERVICE_*`.
        8 => flags: u32,
        /// `SCHEDULER_*`.
        12 => scheduler: u32,
        /// Ticks; 0: none.
        16 => persistence: u32,
        /// What of a client's address persistence goes by, in network order.
        20 => netmask: Address,
        /// Where its servers begin in `slots`, newest first.
        36 => list: u32,
        40 => count: u32,
        /// Where its table begins in `slots` (sh, dh, mh).
        44 => table: u32,
        48 => table_len: u32,
        /// wrr: the greatest common divisor of the positive weights.
        52 => step: u32,
        /// wrr: the greatest weight less (`step` - 1).
        56 => top: u32,
        60 => zero: u32,
        /// A `Position`, with the generation above.
        64 => start: u64,
    }

    /// Value of `service_state`.
    ServiceState "service_state": 8 {
        /// A `Position`.
        0 => position: u64,
    }

    /// Value of `servers`.
    Server "server": 56 {
        0 => address: Address,
        /// 0: the one that the client asked for.
        16 => port: Port,
        18 => family: u8,
        /// `METHOD_*`.
        19 => method: u8,
        /// The service's id.
        20 => service: u32,
        24 => weight: u32,
        /// `SERVER_*`.
        28 => flags: u32,
        32 => upper: u32,
        36 => lower: u32,
        /// tun: where the tunnel's packets come from; 0: the virtual address.
        40 => source: Address,
    }

    /// Value of `loads`.
    Load "load": 16 {
        0 => active: u32,
        4 => inactive: u32,
        /// Templates.
        8 => persistent: u32,
        /// `LOAD_*`.
        12 => flags: u32,
    }

    /// Value of `statistics`, one for each CPU.
    Statistics "statistics": 40 {
        0 => connections: u64,
        8 => packets_in: u64,
        16 => packets_out: u64,
        24 => bytes_in: u64,
        32 => bytes_out: u64,
    }

    /// Key of `conn4` (client to virtual address) and `back4` (server to client).
    Tuple4 "tuple4": 16 {
        0 => source: [u8; 4],
        4 => destination: [u8; 4],
        8 => source_port: Port,
        10 => destination_port: Port,
        12 => protocol: u8,
        13 => zero: [u8; 3],
    }

    /// Key of `conn6` and `back6`.
    Tuple6 "tuple6": 40 {
        0 => source: Address,
        16 => destination: Address,
        32 => source_port: Port,
        34 => destination_port: Port,
        36 => protocol: u8,
        37 => zero: [u8; 3],
    }

    /// Value of `conn4` and `conn6`.
    Conn "conn": 32 {
        /// Tick of the last packet.
        0 => last: u32,
        /// Ticks.
        4 => timeout: u32,
        /// Id.
        8 => server: u32,
        /// Index of `controls`; 0: no template.
        12 => control: u32,
        /// From the client.
        16 => packets: u32,
        /// Tick.
        20 => created: u32,
        /// `CONN_*`.
        24 => flags: u16,
        /// The server's.
        26 => port: Port,
        /// `TCP_*`; 0 for UDP.
        28 => state: u8,
        29 => zero: [u8; 3],
    }

    /// Value of `back4`.
    Back4 "back4": 8 {
        0 => address: [u8; 4],
        4 => port: Port,
        6 => zero: [u8; 2],
    }

    /// Value of `back6`.
    Back6 "back6": 24 {
        0 => address: Address,
        16 => port: Port,
        18 => zero: [u8; 6],
    }

    /// Key of `templates`.
    TemplateKey "template_key": 40 {
        /// Under the service's netmask.
        0 => client: Address,
        16 => address: Address,
        32 => mark: u32,
        36 => port: Port,
        38 => protocol: u8,
        39 => family: u8,
    }

    /// Value of `templates`.
    Template "template": 20 {
        /// Tick of the last new connection.
        0 => last: u32,
        /// Ticks.
        4 => timeout: u32,
        8 => server: u32,
        /// Index of `controls`.
        12 => control: u32,
        /// `TEMPLATE_*`.
        16 => flags: u32,
    }

    /// Key of `fragments`, which is the kernel's alone.
    FragmentKey "fragment_key": 40 {
        0 => source: Address,
        16 => destination: Address,
        32 => id: u32,
        36 => protocol: u8,
        37 => family: u8,
        38 => zero: [u8; 2],
    }

    /// Value of `fragments`.
    Fragment "fragment": 28 {
        0 => seen: u32,
        4 => server: u32,
        8 => flags: u16,
        10 => out: u8,
        11 => zero: u8,
        12 => address: Address,
    }

    /// Key of `answers`: a nat server of a one-packet service.
    AnswerKey "answer_key": 20 {
        0 => address: Address,
        16 => port: Port,
        18 => protocol: u8,
        19 => family: u8,
    }

    /// Value of `answers`: what its packets get as their source.
    Answer "answer": 24 {
        0 => address: Address,
        16 => port: Port,
        18 => zero: [u8; 2],
        /// Id.
        20 => server: u32,
    }

    /// Key of `flows`.
    FlowKey "flow_key": 40 {
        0 => source: Address,
        16 => destination: Address,
        32 => source_port: Port,
        34 => destination_port: Port,
        36 => protocol: u8,
        37 => family: u8,
        38 => zero: [u8; 2],
    }

    /// Value of `flows`: with what a packet leaves, and how many have.
    Flow "flow": 64 {
        0 => source: Address,
        16 => destination: Address,
        32 => source_port: Port,
        34 => destination_port: Port,
        36 => unused: u32,
        /// Tick of the last packet; 0: none yet.
        40 => last: u32,
        44 => zero: u32,
        48 => packets: u64,
        56 => bytes: u64,
    }

    /// The value of `configuration`.
    Configuration "configuration": 88 {
        /// `VERSION`.
        0 => version: u32,
        /// `CONFIG_*`.
        4 => flags: u32,
        /// Timeouts by state, ticks.
        8 => tcp: [u32; 16],
        72 => udp: u32,
        /// IPVS's conn_reuse_mode.
        76 => reuse_mode: u32,
        /// Of this many packets to be scheduled one is dropped; 0: none.
        80 => drop_packet: u32,
        84 => zero: u32,
    }

    /// The value of `real_server`.
    RealServer "real_server": 16 {
        0 => mss4: u32,
        4 => mss6: u32,
        /// `REAL_*`.
        8 => flags: u32,
        12 => zero: u32,
    }

    /// Key of `directors`.
    DirectorKey "director_key": 20 {
        0 => address: Address,
        16 => family: u32,
    }

    /// Head of a run of `reap`; keys follow.
    ReapRequest "reap_request": 8 {
        /// `REAP_*`.
        0 => what: u32,
        4 => count: u32,
    }
}
