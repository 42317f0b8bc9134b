//! Layer 4: virtual services, whose packets the kernel spreads over servers, in the words of IPVS.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::fault::Place;

/// `[director]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Director {
    /// Where packets arrive.
    pub interfaces: Vec<Arc<str>>,
    /// In the order of the file.
    pub services: Vec<Service>,
    pub timeouts: FlowTimeouts,
    /// Flows that the tables hold at most, of each family.
    pub flows: u32,
    /// The folder of a BPF file system in which tables and programs are kept over restarts.
    pub pin: PathBuf,
    pub place: Place,
}

impl Director {
    pub const PIN: &str = "/sys/fs/bpf/reeve";
    /// Each takes some 450 bytes with both of its directions, in both families, and they are taken at once: 60 MiB. A connection
    /// is known for two minutes after its end, so that this is a thousand a second.
    pub const FLOWS: u32 = 1 << 17;
    pub const FLOWS_LEAST: u32 = 1 << 10;
    pub const FLOWS_MOST: u32 = 1 << 24;
    /// Services at most, configured and added at run time.
    pub const SERVICES: usize = 4096;
    /// Servers of one service, as far as the kernel's programs can look through them.
    pub const SERVERS_OF_ONE: usize = 1024;
    /// Servers of all services.
    pub const SERVERS: usize = 65_536;
    /// As IPVS has it: 31 days. For persistence and the timeouts of flows.
    pub const LONGEST: Duration = Duration::from_secs(31 * 86_400);
    /// As much as a position of wrr has room for.
    pub const HEAVIEST: u32 = 0xff_ffff;
}

/// `[director.service.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    pub name: Arc<str>,
    pub key: ServiceKey,
    pub conduct: Conduct,
    /// How packets go to its servers, but for those in `methods`.
    pub method: Method,
    /// By a server's name in its pool.
    pub methods: Vec<(Arc<str>, Method)>,
    /// Whose servers they are.
    pub pool: Arc<str>,
    pub place: Place,
}

impl Service {
    pub fn method_of(&self, server: &str) -> Method {
        self.methods.iter().find(|(name, _)| **name == *server).map_or(self.method, |(_, method)| *method)
    }
}

/// What packets belong to a service; no two services have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServiceKey {
    /// Port 0: every port that no other service has.
    Address { protocol: Protocol, address: SocketAddr },
    /// A mark that packets carry (`SO_MARK`, nftables).
    Mark { mark: u32, family: Family },
}

impl ServiceKey {
    pub fn family(&self) -> Family {
        match self {
            ServiceKey::Address { address, .. } => Family::of(address.ip()),
            ServiceKey::Mark { family, .. } => *family,
        }
    }

    /// The port that its packets go to; 0 where that is any.
    pub fn port(&self) -> u16 {
        match self {
            ServiceKey::Address { address, .. } => address.port(),
            ServiceKey::Mark { .. } => 0,
        }
    }
}

impl std::fmt::Display for ServiceKey {
    /// `tcp 192.0.2.10:80`, `mark 7 ipv6`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ServiceKey::Address { protocol, address } => write!(f, "{} {address}", protocol.word()),
            ServiceKey::Mark { mark, family } => write!(f, "mark {mark} {}", family.word()),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    pub fn word(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }

    /// As IP has it.
    pub fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    Ipv4,
    Ipv6,
}

impl Family {
    pub fn of(address: IpAddr) -> Family {
        if address.is_ipv4() { Family::Ipv4 } else { Family::Ipv6 }
    }

    pub fn word(self) -> &'static str {
        match self {
            Family::Ipv4 => "ipv4",
            Family::Ipv6 => "ipv6",
        }
    }

    /// Bits of an address.
    pub fn bits(self) -> u8 {
        match self {
            Family::Ipv4 => 32,
            Family::Ipv6 => 128,
        }
    }
}

/// How a service deals with what arrives: what `ipvsadm -A` can say, and what is ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conduct {
    pub scheduler: Scheduler,
    pub flags: Flags,
    pub persistence: Option<Persistence>,
    /// Each packet is scheduled by itself (UDP).
    pub one_packet: bool,
    #[serde(default)]
    pub forwarding: Forwarding,
    #[serde(default)]
    pub on_down: OnDown,
}

/// Same client, same server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Persistence {
    /// Up to [`Director::LONGEST`].
    pub seconds: u32,
    /// Clients whose addresses agree in these bits are one. Of the service's family.
    pub mask: IpAddr,
}

impl Persistence {
    /// A mask with so many leading bits.
    pub fn mask(family: Family, bits: u8) -> IpAddr {
        match family {
            Family::Ipv4 => IpAddr::V4(u32::MAX.checked_shl(32 - u32::from(bits.min(32))).unwrap_or(0).into()),
            Family::Ipv6 => IpAddr::V6(u128::MAX.checked_shl(128 - u32::from(bits.min(128))).unwrap_or(0).into()),
        }
    }

    /// How many bits of the address count.
    pub fn bits(&self) -> u32 {
        match self.mask {
            IpAddr::V4(mask) => mask.to_bits().count_ones(),
            IpAddr::V6(mask) => mask.to_bits().count_ones(),
        }
    }
}

/// What `-b` says; each means something with one scheduler only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Flags {
    /// `sh-fallback`, `mh-fallback`: where the server that a client's address leads to cannot be had, another one by the same
    /// address.
    pub fallback: bool,
    /// `sh-port`, `mh-port`: the client's port counts too.
    pub port: bool,
}

impl Scheduler {
    /// False: the kernel's programs do not have it yet.
    pub fn is_built(self) -> bool {
        !matches!(self, Scheduler::Lblc | Scheduler::Lblcr | Scheduler::Twos)
    }
}

macro_rules! words {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "lowercase")]
        pub enum $name { $($(#[$doc])* $variant,)+ }

        impl $name {
            pub const WORDS: [&str; [$($word),+].len()] = [$($word),+];

            pub fn word(self) -> &'static str {
                match self { $($name::$variant => $word,)+ }
            }

            pub fn of(word: &str) -> Option<$name> {
                match word { $($word => Some($name::$variant),)+ _ => None }
            }
        }
    };
}

words! {
    /// How a server is chosen; exactly as IPVS does it (docs/director.md).
    Scheduler {
        Rr = "rr",
        Wrr = "wrr",
        Lc = "lc",
        Wlc = "wlc",
        Sed = "sed",
        Nq = "nq",
        Sh = "sh",
        Dh = "dh",
        Mh = "mh",
        Lblc = "lblc",
        Lblcr = "lblcr",
        Fo = "fo",
        Ovf = "ovf",
        Twos = "twos",
    }
}

words! {
    /// How a packet goes to a server.
    Method {
        /// The server's address in place of the service's; answers come back through the director.
        Nat = "nat",
        /// The server's link-layer address; it has the service's address too, and answers by itself.
        Dr = "dr",
        /// Within another packet; the server unpacks it and answers by itself.
        Tun = "tun",
    }
}

words! {
    /// The way out of the director.
    #[derive(Default)]
    Forwarding {
        /// Past netfilter and the kernel's routing of packets.
        #[default]
        Fast = "fast",
        /// Through the kernel's stack, firewall rules included.
        Stack = "stack",
    }
}

words! {
    /// What becomes of the flows of a server that is down. Those of UDP are forgotten at once, whatever this says.
    #[derive(Default)]
    OnDown {
        /// Their packets are dropped until the server is back, or the flows time out.
        #[default]
        Drop = "drop",
        /// They are forgotten: a client's next packet gets a reset by the director's own stack.
        Reset = "reset",
        /// They go on to the server.
        Drain = "drain",
    }
}

/// How long a flow without packets is known: what `ipvsadm --set` sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowTimeouts {
    /// Seconds; of TCP, established.
    pub tcp: u32,
    /// After a FIN.
    pub tcpfin: u32,
    pub udp: u32,
}

impl Default for FlowTimeouts {
    /// IPVS's.
    fn default() -> FlowTimeouts {
        FlowTimeouts { tcp: 900, tcpfin: 120, udp: 300 }
    }
}

/// A server of a service that was added at run time, as `ipvsadm -a` says it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dest {
    pub address: SocketAddr,
    pub method: Method,
    pub weight: u32,
    /// With so many connections it takes no more; 0: no bound.
    pub upper: u32,
    /// Below so many it takes some again; 0: three quarters of `upper`.
    pub lower: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_as_they_are_written() {
        for word in Scheduler::WORDS {
            assert_eq!(Scheduler::of(word).map(Scheduler::word), Some(word));
        }
        assert_eq!(Method::of("masq"), None);
        let key = ServiceKey::Mark { mark: 7, family: Family::Ipv6 };
        assert_eq!((key.to_string().as_str(), key.port()), ("mark 7 ipv6", 0));
    }
}
