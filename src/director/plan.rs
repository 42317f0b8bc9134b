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

use super::abi::{self, Position};
use super::own::port_in_tables;
use super::records::{key_of, method, record_of, stands, start, table};
use super::regions::Regions;
use super::tables::Wrr;
use super::wanted::{Adopted, Listed};
use crate::model::director::{Conduct, Method, OnDown, Protocol, Scheduler, ServiceKey};

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
            present.answers.insert(answer_order(&key), (key, answer));
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

    fn service(
        &mut self,
        wanted: &WantedService,
        position: &dyn Fn(u32) -> u64,
        now: Instant,
        ids: &mut Ids,
        writes: &mut Vec<Write>,
    ) -> Result<(), String> {
        let before = self.services.get(&wanted.key).cloned();
        let ghost = self.ghosts.get(&wanted.key).cloned().filter(|_| before.is_none());
        let id = match (&before, &ghost) {
            (Some(service), _) => service.record.id,
            (None, Some((id, _))) => *id,
            (None, None) => ids.service(self.room.services)?,
        };
        let mut own = match (&before, ghost) {
            (Some(service), _) => service.own.clone(),
            (None, ghost) => ghost.map_or_else(Vec::new, |(_, own)| own),
        };
        let made = self.match_servers(id, wanted, &own, ids)?;
        let list: Vec<u32> = made.iter().map(|made| made.id).collect();
        let table = table(wanted, &list);
        let mut record = record_of(wanted, id);
        // Room first: a service without it stays as it was.
        let same_list = before.as_ref().is_some_and(|before| before.list == list);
        let same_table = before.as_ref().is_some_and(|before| before.table == table);
        let full = || {
            "there is no room for its servers in the table of lists: use fewer services of mh, which take 4,093 places each".to_owned()
        };
        record.count = list.len() as u32;
        record.list = match &before {
            Some(before) if same_list => before.record.list,
            _ => self.slots.allocate(record.count).ok_or_else(full)?,
        };
        record.table_len = table.len() as u32;
        record.table = match &before {
            Some(before) if same_table => before.record.table,
            _ => match self.slots.allocate(record.table_len) {
                Some(at) => at,
                None => {
                    if !same_list {
                        self.slots.release(record.list, record.count, now);
                    }
                    return Err(full());
                }
            },
        };
        let old_weights = before.as_ref().map(|before| self.weights(&before.list)).unwrap_or_default();
        // IPVS begins wrr's round at the head again when a server is changed in any way.
        let limits = |record: &abi::Server| (record.upper, record.lower);
        let limited = made.iter().any(|made| {
            let known = self.servers.get(&made.id).filter(|known| known.listed);
            known.is_some_and(|known| limits(&known.record) != limits(&made.record))
        });
        // New servers, and what has changed of the others.
        if before.is_none() {
            self.ghosts.remove(&wanted.key);
            writes.push(Write::State { service: id });
        }
        for made in &made {
            if made.fresh {
                writes.push(Write::Fresh { server: made.id });
                own.push(made.id);
            }
            let known = self.servers.get(&made.id);
            if known.is_none_or(|known| known.record != made.record) {
                writes.push(Write::Server { id: made.id, server: made.record });
            }
            if made.down && has_udp(&wanted.key) && known.is_some_and(|known| !known.down) {
                writes.push(Write::Forget { server: made.id, all: false });
            }
            let server = Server { record: made.record, address: made.address, listed: true, down: made.down };
            self.servers.insert(made.id, server);
        }
        let new_weights = self.weights(&list);
        if !same_list && record.count > 0 {
            writes.push(Write::Slots { at: record.list, servers: list.clone() });
        }
        if !same_table && record.table_len > 0 {
            writes.push(Write::Slots { at: record.table, servers: table.clone() });
        }
        let wrr = Wrr::of(new_weights.iter().map(|(_, weight)| *weight));
        if wanted.conduct.scheduler == Scheduler::Wrr {
            (record.step, record.top) = (wrr.step, wrr.top);
        }
        let unchanged = before.as_ref().is_some_and(|before| {
            let weights = wanted.conduct.scheduler != Scheduler::Wrr || (old_weights == new_weights && !limited);
            let bare = abi::Service { generation: 0, start: 0, ..record };
            weights && bare == abi::Service { generation: 0, start: 0, ..before.record }
        });
        if unchanged {
            // Its servers may have come and gone off the list all the same.
            if let Some(service) = self.services.get_mut(&wanted.key) {
                service.own = own;
            }
            return Ok(());
        }
        // A number that begins anew stands at generation 0.
        record.generation = before.as_ref().map_or(1, |before| (before.record.generation + 1) % GENERATIONS);
        let stood = before.as_ref().map(|before| stands(&before.record, position(id)));
        let start = start(wanted, before.as_ref(), stood, &list, &old_weights, &new_weights);
        record.start = Position { generation: record.generation, ..start }.pack();
        writes.push(Write::Service { key: wanted.key, service: record });
        if let Some(before) = before {
            if !same_list {
                self.slots.release(before.record.list, before.record.count, now + SETTLES);
            }
            if !same_table {
                self.slots.release(before.record.table, before.record.table_len, now + SETTLES);
            }
            for id in before.list.iter().filter(|id| !list.contains(id)) {
                // One whose method has changed has another number now; its flows go on as they began.
                let address = self.servers.get(id).map(|server| server.address);
                let stays = made.iter().any(|made| Some(made.address) == address);
                let on_down = if stays { OnDown::Drain } else { wanted.conduct.on_down };
                self.take_out(*id, on_down, has_udp(&wanted.key), writes);
            }
        }
        self.services.insert(wanted.key, Service { record, list, table, own });
        Ok(())
    }

    fn weights(&self, list: &[u32]) -> Vec<(u32, u32)> {
        list.iter().map(|id| (*id, self.servers.get(id).map_or(0, |server| server.record.weight))).collect()
    }

    /// The number of each wanted server: its own where it was there before, on the list or off it.
    fn match_servers(
        &self,
        service: u32,
        wanted: &WantedService,
        own: &[u32],
        ids: &mut Ids,
    ) -> Result<Vec<Made>, String> {
        let mut known: HashMap<(IpAddr, [u8; 2], u8), Vec<u32>> = HashMap::new();
        for id in own {
            let Some(server) = self.servers.get(id) else { continue };
            let key = (server.address.ip(), server.record.port, server.record.method);
            known.entry(key).or_default().push(*id);
        }
        let mut made = Vec::with_capacity(wanted.servers.len());
        let mut fresh = Vec::new();
        for server in &wanted.servers {
            let (address, family) = abi::address(server.address.ip());
            let method = method(server.method);
            let port = port_in_tables(server.address, server.method).to_be_bytes();
            let known = known.get_mut(&(server.address.ip(), port, method)).and_then(|ids| {
                // One that is on the list goes before one that is off it.
                let at = ids.iter().position(|id| self.servers.get(id).is_some_and(|server| server.listed));
                (!ids.is_empty()).then(|| ids.remove(at.unwrap_or(0)))
            });
            let id = match known {
                Some(id) => id,
                None => match ids.server(self.room.servers) {
                    Ok(id) => {
                        fresh.push(id);
                        id
                    }
                    Err(why) => {
                        ids.give_back(&fresh);
                        return Err(why);
                    }
                },
            };
            made.push(Made {
                id,
                fresh: known.is_none(),
                address: server.address,
                down: server.down,
                record: abi::Server {
                    address,
                    port,
                    family,
                    method,
                    service,
                    weight: server.weight,
                    flags: if server.local { abi::SERVER_LOCAL } else { 0 },
                    upper: server.upper,
                    lower: server.lower,
                    source: server.source.map_or([0; 16], |source| abi::address(source).0),
                },
            });
        }
        Ok(made)
    }

    /// What packets of servers of one-packet services get as their source.
    fn answers(&mut self, wanted: &Wanted, writes: &mut Vec<Write>, left_out: &mut Vec<LeftOut>) {
        let mut all = BTreeMap::new();
        for service in wanted.services.iter().filter(|service| service.conduct.one_packet) {
            let ServiceKey::Address { protocol, address: at } = service.key else { continue };
            let Some(present) = self.services.get(&service.key) else { continue };
            for id in &present.list {
                let Some(server) = self.servers.get(id).filter(|it| it.record.method == abi::METHOD_NAT) else {
                    continue;
                };
                let (address, family) = (server.record.address, server.record.family);
                let port = if server.address.port() == 0 { at.port() } else { server.address.port() };
                let key = abi::AnswerKey { address, port: port.to_be_bytes(), protocol: protocol.number(), family };
                let answer = abi::Answer {
                    address: abi::address(at.ip()).0,
                    port: at.port().to_be_bytes(),
                    zero: [0; 2],
                    server: *id,
                };
                if let Some((_, (_, other))) = all.get_key_value(&answer_order(&key)) {
                    let other: &abi::Answer = other;
                    let other = abi::ip(other.address, family).map_or_else(String::new, |ip| ip.to_string());
                    let why = format!(
                        "server {} answers for {other} already: a server of one-packet services can be of one only; give it another port",
                        server.address
                    );
                    left_out.push(LeftOut { key: service.key, why });
                    continue;
                }
                if all.len() >= self.room.answers as usize {
                    let why =
                        format!("there is no room for more than {} servers of one-packet services", self.room.answers);
                    left_out.push(LeftOut { key: service.key, why });
                    continue;
                }
                all.insert(answer_order(&key), (key, answer));
            }
        }
        for (order, (key, answer)) in &all {
            if self.answers.get(order).is_none_or(|(_, known)| known != answer) {
                writes.push(Write::Answer { key: *key, answer: *answer });
            }
        }
        for (order, (key, _)) in &self.answers {
            if !all.contains_key(order) {
                writes.push(Write::DeleteAnswer { key: *key });
            }
        }
        self.answers = all;
    }
}

fn has_udp(key: &ServiceKey) -> bool {
    !matches!(key, ServiceKey::Address { protocol: Protocol::Tcp, .. })
}

/// A wanted server and its number.
struct Made {
    id: u32,
    fresh: bool,
    address: SocketAddr,
    down: bool,
    record: abi::Server,
}

/// Numbers that can be given away.
struct Ids {
    servers: BTreeSet<u32>,
    services: BTreeSet<u32>,
    next_server: u32,
    next_service: u32,
}

impl Ids {
    fn of(present: &Present) -> Ids {
        let of_servers = present.servers.values().map(|server| server.record.service);
        Ids {
            servers: present.servers.keys().copied().collect(),
            services: present.services.values().map(|service| service.record.id).chain(of_servers).collect(),
            next_server: present.next_server,
            next_service: present.next_service,
        }
    }

    fn server(&mut self, most: u32) -> Result<u32, String> {
        free(&mut self.servers, &mut self.next_server, most).ok_or_else(|| {
            format!(
                "there is no room for more than {most} servers; flows of servers that left take theirs until they end"
            )
        })
    }

    fn service(&mut self, most: u32) -> Result<u32, String> {
        free(&mut self.services, &mut self.next_service, most)
            .ok_or_else(|| format!("there is no room for more than {most} services"))
    }

    fn give_back(&mut self, servers: &[u32]) {
        self.servers.retain(|id| !servers.contains(id));
    }
}

/// The next number that nobody has, from 1 to `most`.
fn free(taken: &mut BTreeSet<u32>, next: &mut u32, most: u32) -> Option<u32> {
    if taken.len() as u64 >= u64::from(most) {
        return None;
    }
    loop {
        if *next > most || *next == 0 {
            *next = 1;
        }
        let id = *next;
        *next += 1;
        if taken.insert(id) {
            return Some(id);
        }
    }
}

/// Address, family, port, protocol.
type AnswerOrder = ([u8; 16], u8, [u8; 2], u8);

fn answer_order(key: &abi::AnswerKey) -> AnswerOrder {
    (key.address, key.family, key.port, key.protocol)
}

#[cfg(test)]
mod tests;
