//! What has to be written so that the kernel's tables say what is wanted: the least that does it. Pure.
//!
//! `Present` is what is in the tables, as it was written or read; `plan` compares it with what is wanted, answers with writes
//! in the order in which they are to be made, and becomes what they lead to. A service changes under way by one write: its
//! lists and tables go into slots that nobody looks at, and then the service points there. A server that leaves keeps its
//! number until nothing is counted on it any more.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::answers::AnswerOrder;
use self::numbers::Ids;
use super::abi;
use super::records::key_of;
use super::regions::Regions;
use super::wanted::{Adopted, Listed};
use crate::model::director::{Conduct, Method, OnDown, Protocol, ServiceKey};

mod answers;
mod numbers;
mod service;

/// Slots that nobody points to any more are left alone for so long: no program runs longer.
const SETTLES: Duration = Duration::from_secs(1);

const GENERATIONS: u32 = 1 << 24;

/// What is to be in force.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    pub services: Vec<WantedService>,
    /// Its flags for marks, port 0 and answers are worked out here.
    pub configuration: abi::Configuration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedService {
    pub key: ServiceKey,
    pub conduct: Conduct,
    /// The newest first. Those that are not here are out.
    pub servers: Vec<WantedServer>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedServer {
    /// In its pool; for reports.
    pub name: Option<Arc<str>>,
    pub address: SocketAddr,
    pub method: Method,
    pub weight: u32,
    /// Its last weight that was not 0.
    pub share: u32,
    pub upper: u32,
    pub lower: u32,
    /// Its address is this machine's.
    pub local: bool,
    /// Where a tunnel to it begins.
    pub source: Option<IpAddr>,
    /// It stays for the flows that it has: those of UDP are forgotten all the same.
    pub down: bool,
}

/// One thing to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// What was counted for this number begins at 0.
    Fresh {
        server: u32,
    },
    Server {
        id: u32,
        server: abi::Server,
    },
    /// Where a service stands begins anew.
    State {
        service: u32,
    },
    Slots {
        at: u32,
        servers: Vec<u32>,
    },
    Service {
        key: ServiceKey,
        service: abi::Service,
    },
    Delete {
        key: ServiceKey,
    },
    Configuration(abi::Configuration),
    Answer {
        key: abi::AnswerKey,
        answer: abi::Answer,
    },
    DeleteAnswer {
        key: abi::AnswerKey,
    },
    /// A server's connections end where they are: all, or those of UDP.
    Forget {
        server: u32,
        all: bool,
    },
}

/// How much room the kernel's tables have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    pub services: u32,
    /// Numbers 1 to this.
    pub servers: u32,
    pub slots: u32,
    /// Servers of one-packet services by `nat`.
    pub answers: u32,
}

/// A server in the tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    pub record: abi::Server,
    /// With the port that is shown.
    pub address: SocketAddr,
    /// In the list of its service.
    pub listed: bool,
    down: bool,
}

/// A service in the tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    pub record: abi::Service,
    /// Numbers of its servers, the newest first.
    pub list: Vec<u32>,
    table: Vec<u32>,
    /// Also those that are off the list.
    own: Vec<u32>,
}

impl Service {
    /// Numbers of its servers, also of those that are off the list.
    pub fn own(&self) -> &[u32] {
        &self.own
    }
}

/// What is in the tables.
#[derive(Debug)]
pub struct Present {
    room: Room,
    services: BTreeMap<ServiceKey, Service>,
    /// Services that are gone while servers of theirs still have flows: their numbers, and those of the servers. One that
    /// comes again finds them.
    ghosts: BTreeMap<ServiceKey, (u32, Vec<u32>)>,
    servers: BTreeMap<u32, Server>,
    answers: BTreeMap<AnswerOrder, (abi::AnswerKey, abi::Answer)>,
    slots: Regions,
    configuration: Option<abi::Configuration>,
    /// The number after the last one that was given away.
    next_server: u32,
    next_service: u32,
}

/// Something that is wanted and cannot be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    pub key: ServiceKey,
    pub why: String,
}

impl Present {
    /// Nothing is there.
    pub fn empty(room: Room) -> Present {
        Present {
            room,
            services: BTreeMap::new(),
            ghosts: BTreeMap::new(),
            servers: BTreeMap::new(),
            answers: BTreeMap::new(),
            slots: Regions::new(room.slots),
            configuration: None,
            next_server: 1,
            next_service: 1,
        }
    }

    /// What an earlier process left: services, servers by number, slots, answers.
    pub fn adopted(
        room: Room,
        services: Vec<(abi::ServiceKey, abi::Service)>,
        servers: Vec<(u32, abi::Server)>,
        slots: &dyn Fn(u32, u32) -> Vec<u32>,
        answers: Vec<(abi::AnswerKey, abi::Answer)>,
        configuration: abi::Configuration,
    ) -> Present {
        let mut present = Present::empty(room);
        present.configuration = Some(configuration);
        let mut ports = HashMap::new();
        let mut own: HashMap<u32, Vec<u32>> = HashMap::new();
        for (id, server) in &servers {
            own.entry(server.service).or_default().push(*id);
        }
        for (key, record) in services {
            let Some(key) = key_of(&key) else { continue };
            ports.insert(record.id, key.port());
            let list = slots(record.list, record.count);
            let table = slots(record.table, record.table_len);
            present.slots.take(record.list, record.count);
            present.slots.take(record.table, record.table_len);
            present.next_service = present.next_service.max(record.id + 1);
            let own = own.remove(&record.id).unwrap_or_default();
            present.services.insert(key, Service { record, list, table, own });
        }
        let listed: BTreeSet<u32> = present.services.values().flat_map(|service| &service.list).copied().collect();
        for (id, record) in servers {
            let Some(ip) = abi::ip(record.address, record.family) else { continue };
            let port = match u16::from_be_bytes(record.port) {
                0 if record.method != abi::METHOD_NAT => ports.get(&record.service).copied().unwrap_or(0),
                port => port,
            };
            present.next_server = present.next_server.max(id + 1);
            present.next_service = present.next_service.max(record.service + 1);
            let listed = listed.contains(&id);
            let server = Server { record, address: SocketAddr::new(ip, port), listed, down: false };
            present.servers.insert(id, server);
        }
        for (key, answer) in answers {
            present.answers.insert(answers::order(&key), (key, answer));
        }
        present
    }

    pub fn services(&self) -> &BTreeMap<ServiceKey, Service> {
        &self.services
    }

    /// The servers that are on the lists, the newest first.
    pub fn listed(&self) -> Adopted {
        let of = |service: &Service| {
            let records = service.list.iter().filter_map(|id| Some(self.servers.get(id)?.record));
            records.filter_map(Listed::of).collect()
        };
        self.services.iter().map(|(key, service)| (*key, of(service))).collect()
    }

    pub fn server(&self, id: u32) -> Option<&Server> {
        self.servers.get(&id)
    }

    /// The service that a server is or was of, while that is there.
    pub fn service_of(&self, server: &Server) -> Option<(&ServiceKey, &Service)> {
        self.services.iter().find(|(_, service)| service.record.id == server.record.service)
    }

    /// Numbers of servers that are off their lists: free once nothing is counted on them.
    pub fn leaving(&self) -> Vec<u32> {
        self.servers.iter().filter(|(_, server)| !server.listed).map(|(id, _)| *id).collect()
    }

    /// Nothing is counted on these any more: their numbers are free.
    pub fn free(&mut self, ids: &[u32]) -> Vec<Write> {
        let mut writes = Vec::new();
        for id in ids {
            let Some(server) = self.servers.get(id).filter(|server| !server.listed) else { continue };
            let service = server.record.service;
            if let Some(service) = self.services.values_mut().find(|known| known.record.id == service) {
                service.own.retain(|own| own != id);
            }
            self.ghosts.values_mut().for_each(|(_, own)| own.retain(|own| own != id));
            self.servers.remove(id);
            writes.push(Write::Server { id: *id, server: abi::Server::default() });
        }
        self.ghosts.retain(|_, (_, own)| !own.is_empty());
        writes
    }

    /// Works out what is to be written, and takes it for written. `position` tells where a service stands. Services for
    /// which there is no room stay as they are, and are told.
    pub fn plan(&mut self, wanted: &Wanted, position: &dyn Fn(u32) -> u64, now: Instant) -> (Vec<Write>, Vec<LeftOut>) {
        let (mut writes, mut left_out) = (Vec::new(), Vec::new());
        self.slots.settle(now);
        let keys: BTreeSet<ServiceKey> = wanted.services.iter().map(|service| service.key).collect();
        let gone: Vec<ServiceKey> = self.services.keys().filter(|key| !keys.contains(key)).copied().collect();
        for key in gone {
            self.delete(&key, now, &mut writes);
        }
        let mut ids = Ids::of(self);
        for service in &wanted.services {
            if let Err(why) = self.service(service, position, now, &mut ids, &mut writes) {
                left_out.push(LeftOut { key: service.key, why });
            }
        }
        (self.next_server, self.next_service) = (ids.next_server, ids.next_service);
        self.answers(wanted, &mut writes, &mut left_out);
        let mut configuration = wanted.configuration;
        let any = |test: &dyn Fn(&ServiceKey) -> bool| self.services.keys().any(test);
        let flags = [
            (any(&|key| matches!(key, ServiceKey::Mark { .. })), abi::CONFIG_MARKS),
            (
                any(&|key| matches!(key, ServiceKey::Address { address, .. } if address.port() == 0)),
                abi::CONFIG_PORT_ZERO,
            ),
            (!self.answers.is_empty(), abi::CONFIG_ANSWERS),
            (self.servers.values().any(|server| server.record.flags & abi::SERVER_LOCAL != 0), abi::CONFIG_LOCAL),
        ];
        configuration.flags |= flags.iter().filter(|(has, _)| *has).fold(0, |all, (_, flag)| all | flag);
        if self.configuration != Some(configuration) {
            self.configuration = Some(configuration);
            // What a flag stands for is looked for only once it is there.
            writes.push(Write::Configuration(configuration));
        }
        (writes, left_out)
    }

    /// A service goes; its servers' flows are dropped until their time is over.
    fn delete(&mut self, key: &ServiceKey, now: Instant, writes: &mut Vec<Write>) {
        let Some(service) = self.services.remove(key) else { return };
        writes.push(Write::Delete { key: *key });
        self.slots.release(service.record.list, service.record.count, now + SETTLES);
        self.slots.release(service.record.table, service.record.table_len, now + SETTLES);
        for id in service.list {
            self.take_out(id, OnDown::Drop, has_udp(key), writes);
        }
        self.ghosts.insert(*key, (service.record.id, service.own));
    }

    /// A server goes off the list.
    fn take_out(&mut self, id: u32, on_down: OnDown, has_udp: bool, writes: &mut Vec<Write>) {
        let Some(server) = self.servers.get_mut(&id) else { return };
        server.listed = false;
        server.record.flags |= if on_down == OnDown::Drain { abi::SERVER_LEFT } else { abi::SERVER_GONE };
        writes.push(Write::Server { id, server: server.record });
        if on_down == OnDown::Reset || (has_udp && on_down != OnDown::Drain) {
            writes.push(Write::Forget { server: id, all: on_down == OnDown::Reset });
        }
    }
}

fn has_udp(key: &ServiceKey) -> bool {
    !matches!(key, ServiceKey::Address { protocol: Protocol::Tcp, .. })
}

#[cfg(test)]
mod tests;
