//! A director without its control plane: a network namespace with two interfaces, the object, and maps filled by hand.

use std::net::{IpAddr, SocketAddr};
use std::process::Command;

use reeve::director::abi::{
    self, Configuration, Conn, Load, Position, Server, Service, ServiceKey, Statistics, Tuple4, Tuple6,
};
use reeve::sys::bpf::{Loaded, Packet, Ran};

use super::{PROGRAMS, load, wire};

/// TC_ACT_UNSPEC: on with it, as it is or rewritten.
pub const OK: u32 = u32::MAX;
pub const SHOT: u32 = 2;
pub const REDIRECT: u32 = 7;

pub struct World {
    pub loaded: Loaded,
    /// The interface towards clients.
    pub front: u32,
    config: Configuration,
    servers: u32,
    slots: u32,
    services: u32,
}

/// A service as it was put in.
#[derive(Debug, Clone, Copy)]
pub struct Put {
    pub key: ServiceKey,
    pub value: Service,
}

impl World {
    /// `None` where the kernel does not let us.
    pub fn new() -> Option<Self> {
        Self::sized(&[])
    }

    pub fn sized(sizes: &[(&str, u32)]) -> Option<Self> {
        let loaded = load(PROGRAMS, sizes)?;
        own_network();
        run("ip link set lo up");
        for (name, v4, v6) in
            [("front", "10.1.0.1/24", "2001:db8:1::1/64"), ("back", "10.2.0.1/24", "2001:db8:2::1/64")]
        {
            run(&format!("ip link add {name} type veth peer name {name}-end"));
            run(&format!("ip link set {name}-end up"));
            // What wire::frame is addressed to.
            run(&format!("ip link set {name} address 02:00:00:00:00:01 up"));
            run(&format!("ip addr add {v4} dev {name}"));
            run(&format!("ip -6 addr add {v6} dev {name} nodad"));
        }
        run("ip route add default via 10.1.0.254");
        run("ip -6 route add default via 2001:db8:1::fe");
        for name in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            std::fs::write(format!("/proc/sys/net/{name}"), "1").expect("forwarding");
        }
        Some(Self::over(loaded, "front"))
    }

    /// Over an object that was loaded already, with that interface towards clients.
    pub fn over(loaded: Loaded, front: &str) -> Self {
        let front = index(front);
        let mut world = Self { loaded, front, config: Configuration::default(), servers: 0, slots: 0, services: 0 };
        world.configure(|_| {});
        world
    }

    /// The number that the next service gets.
    pub fn services(&self) -> u32 {
        self.services + 1
    }

    /// IPVS's own timeouts, changed by `change`.
    pub fn configure(&mut self, change: impl FnOnce(&mut Configuration)) {
        if self.config.version == 0 {
            let seconds = [2, 900, 120, 60, 120, 120, 10, 60, 30, 120, 120, 0, 0, 0, 0, 0];
            self.config = Configuration {
                version: abi::VERSION,
                tcp: seconds.map(|seconds| abi::ticks(std::time::Duration::from_secs(seconds))),
                udp: abi::ticks(std::time::Duration::from_secs(300)),
                reuse_mode: 1,
                ..Configuration::default()
            };
        }
        change(&mut self.config);
        self.map("configuration").put(&0u32, &self.config).expect("the configuration");
    }

    pub fn map(&self, name: &str) -> &reeve::sys::bpf::Map {
        self.loaded.map(name).expect("a map of the object")
    }

    /// A server that nobody has yet; its id.
    pub fn server(&mut self, address: SocketAddr, method: u8, weight: u32) -> u32 {
        self.servers += 1;
        let id = self.servers;
        let (ip, family) = abi::address(address.ip());
        let server = Server {
            address: ip,
            port: address.port().to_be_bytes(),
            family,
            method,
            service: self.services + 1,
            weight,
            ..Server::default()
        };
        self.map("servers").put(&id, &server).expect("a server");
        id
    }

    pub fn change_server(&self, id: u32, change: impl FnOnce(&mut Server)) {
        let mut server: Server = self.map("servers").get(&id).expect("a look").expect("a server");
        change(&mut server);
        self.map("servers").put(&id, &server).expect("a server");
    }

    /// Writes ids into a free region of `slots`; where it begins.
    pub fn region(&mut self, ids: &[u32]) -> u32 {
        let start = self.slots;
        let entries: Vec<(u32, u32)> = (start..).zip(ids.iter().copied()).collect();
        self.map("slots").put_all(&entries).expect("slots");
        self.slots += ids.len() as u32;
        start
    }

    /// A service of these servers, the newest last as they were added. `change` sets what is not as usual.
    pub fn service(
        &mut self,
        protocol: u8,
        address: SocketAddr,
        scheduler: u32,
        servers: &[u32],
        change: impl FnOnce(&mut Put),
    ) -> Put {
        self.services += 1;
        let (ip, family) = abi::address(address.ip());
        let newest_first: Vec<u32> = servers.iter().rev().copied().collect();
        let list = self.region(&newest_first);
        let mut put = Put {
            key: ServiceKey { address: ip, mark: 0, port: address.port().to_be_bytes(), protocol, family },
            value: Service {
                id: self.services,
                generation: 1,
                scheduler,
                list,
                count: servers.len() as u32,
                start: Position { generation: 1, level: 0, next: 0 }.pack(),
                ..Service::default()
            },
        };
        change(&mut put);
        self.put(&put);
        put
    }

    pub fn put(&self, put: &Put) {
        self.map("services").put(&put.key, &put.value).expect("a service");
    }

    /// Shows a frame to the director, as if it came by the interface towards clients.
    pub fn show(&mut self, frame: &[u8]) -> Ran {
        let packet = Packet { interface: self.front, ..Packet::new(frame) };
        self.loaded.run("director_in", &packet).expect("a run")
    }

    /// Where a client's packet went: it must be forwarded, with all its checksums right.
    pub fn forwarded(&mut self, frame: &[u8]) -> wire::Read {
        let ran = self.show(frame);
        assert_eq!(ran.returned, REDIRECT, "{ran:?}");
        wire::read(&ran.data[wire::L3..])
    }

    pub fn conn(&self, protocol: u8, client: SocketAddr, virtual_address: SocketAddr) -> Option<Conn> {
        match key(protocol, client, virtual_address) {
            Key::V4(key) => self.map("conn4").get(&key).expect("a look"),
            Key::V6(key) => self.map("conn6").get(&key).expect("a look"),
        }
    }

    pub fn put_conn(&self, protocol: u8, client: SocketAddr, virtual_address: SocketAddr, conn: &Conn) {
        match key(protocol, client, virtual_address) {
            Key::V4(key) => self.map("conn4").put(&key, conn),
            Key::V6(key) => self.map("conn6").put(&key, conn),
        }
        .expect("room");
    }

    pub fn load_of(&self, server: u32) -> (u32, u32) {
        let load: Load = self.map("loads").get(&server).expect("a look").expect("a server");
        (load.active, load.inactive)
    }

    pub fn statistics(&self, server: u32) -> Statistics {
        let each: Vec<Statistics> = self.map("statistics").get_each(&server).expect("a look").expect("a server");
        each.into_iter().fold(Statistics::default(), |sum, cpu| Statistics {
            connections: sum.connections + cpu.connections,
            packets_in: sum.packets_in + cpu.packets_in,
            packets_out: sum.packets_out + cpu.packets_out,
            bytes_in: sum.bytes_in + cpu.bytes_in,
            bytes_out: sum.bytes_out + cpu.bytes_out,
        })
    }

    pub fn counter(&self, name: &str) -> u64 {
        let index = abi::COUNTER_NAMES.iter().position(|known| *known == name).expect("a counter") as u32;
        let each: Vec<u64> = self.map("counters").get_each(&index).expect("a look").expect("a counter");
        each.into_iter().sum()
    }
}

/// Of a connection.
pub enum Key {
    V4(Tuple4),
    V6(Tuple6),
}

pub fn key(protocol: u8, client: SocketAddr, virtual_address: SocketAddr) -> Key {
    let (source_port, destination_port) = (client.port().to_be_bytes(), virtual_address.port().to_be_bytes());
    match (client.ip(), virtual_address.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => Key::V4(Tuple4 {
            source: from.octets(),
            destination: to.octets(),
            source_port,
            destination_port,
            protocol,
            ..Tuple4::default()
        }),
        (IpAddr::V6(from), IpAddr::V6(to)) => Key::V6(Tuple6 {
            source: from.octets(),
            destination: to.octets(),
            source_port,
            destination_port,
            protocol,
            ..Tuple6::default()
        }),
        mixed => panic!("two families: {mixed:?}"),
    }
}

/// This thread, and what it starts, in a network namespace of its own.
pub fn own_network() {
    use rustix::thread::{UnshareFlags, unshare_unsafe};
    // SAFETY: a network namespace has nothing to do with memory or descriptors that others hold.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.expect("a network namespace");
}

fn index(name: &str) -> u32 {
    let shown = Command::new("ip").args(["-o", "link", "show", name]).output().expect("ip");
    let text = String::from_utf8_lossy(&shown.stdout);
    text.split(':').next().and_then(|number| number.parse().ok()).expect("the interface's number")
}

pub fn run(line: &str) {
    let mut words = line.split(' ');
    let output = Command::new(words.next().expect("a command")).args(words).output().expect("a command");
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
}

pub fn at(text: &str) -> SocketAddr {
    text.parse().expect("an address and port")
}

/// Shows a frame that the kernel may refuse to run a program on.
pub fn try_show(world: &mut World, frame: &[u8]) -> Option<Ran> {
    let packet = Packet { interface: world.front, ..Packet::new(frame) };
    world.loaded.run("director_in", &packet).ok()
}
