//! What is written, and what is not.

use super::*;
use crate::director::records::{self, stands};
use crate::model::director::{Family, Flags, Forwarding, Persistence, Scheduler};

const ROOM: Room = Room { services: 8, servers: 16, slots: 20_000, answers: 4 };

fn tcp(text: &str) -> ServiceKey {
    ServiceKey::Address { protocol: Protocol::Tcp, address: text.parse().unwrap() }
}

fn udp(text: &str) -> ServiceKey {
    ServiceKey::Address { protocol: Protocol::Udp, address: text.parse().unwrap() }
}

fn server(text: &str, weight: u32) -> WantedServer {
    WantedServer {
        name: None,
        address: text.parse().unwrap(),
        method: Method::Nat,
        weight,
        share: weight,
        upper: 0,
        lower: 0,
        local: false,
        source: None,
        down: false,
    }
}

fn service(key: ServiceKey, scheduler: Scheduler, servers: &[WantedServer]) -> WantedService {
    let conduct = Conduct {
        scheduler,
        flags: Flags::default(),
        persistence: None,
        one_packet: false,
        forwarding: Forwarding::Fast,
        on_down: OnDown::Drop,
    };
    WantedService { key, conduct, servers: servers.to_vec() }
}

fn wanted(services: &[WantedService]) -> Wanted {
    let configuration = abi::Configuration { version: abi::VERSION, ..abi::Configuration::default() };
    Wanted { services: services.to_vec(), configuration }
}

/// The tables, as writes leave them.
#[derive(Default)]
struct Kernel {
    services: HashMap<ServiceKey, abi::Service>,
    servers: HashMap<u32, abi::Server>,
    slots: HashMap<u32, u32>,
    positions: HashMap<u32, u64>,
    answers: Vec<(abi::AnswerKey, abi::Answer)>,
    configuration: abi::Configuration,
    forgotten: Vec<(u32, bool)>,
    writes: usize,
}

impl Kernel {
    /// Plans and writes; what was written.
    fn apply(&mut self, present: &mut Present, wanted: &Wanted, now: Instant) -> (Vec<Write>, Vec<LeftOut>) {
        let positions = self.positions.clone();
        let (writes, left_out) = present.plan(wanted, &|service| positions.get(&service).copied().unwrap_or(0), now);
        for write in &writes {
            self.writes += 1;
            match write.clone() {
                Write::Fresh { .. } => {}
                Write::Server { id, server } => drop(self.servers.insert(id, server)),
                Write::State { service } => drop(self.positions.insert(service, 0)),
                Write::Slots { at, servers } => {
                    for (slot, server) in (at..).zip(servers) {
                        let pointed = self.services.values().any(|service| {
                            (service.list..service.list + service.count).contains(&slot)
                                || (service.table..service.table + service.table_len).contains(&slot)
                        });
                        assert!(!pointed, "slot {slot} is looked at");
                        self.slots.insert(slot, server);
                    }
                }
                Write::Service { key, service } => {
                    for slot in service.list..service.list + service.count {
                        let server = self.servers[&self.slots[&slot]];
                        assert_eq!((server.service, server.flags & abi::SERVER_GONE), (service.id, 0));
                    }
                    self.services.insert(key, service);
                }
                Write::Delete { key } => drop(self.services.remove(&key).unwrap()),
                Write::Configuration(configuration) => self.configuration = configuration,
                Write::Answer { key, answer } => {
                    self.answers.retain(|(known, _)| *known != key);
                    self.answers.push((key, answer));
                }
                Write::DeleteAnswer { key } => self.answers.retain(|(known, _)| *known != key),
                Write::Forget { server, all } => self.forgotten.push((server, all)),
            }
        }
        (writes, left_out)
    }

    /// The next picks of rr or wrr, by the kernel's own walk; the position moves on.
    fn picks(&mut self, key: ServiceKey, count: usize, names: &dyn Fn(u32) -> char) -> String {
        let service = self.services[&key];
        let mut position = stands(&service, self.positions.get(&service.id).copied().unwrap_or(0));
        position.generation = service.generation;
        let mut out = String::new();
        while out.len() < count {
            if u32::from(position.next) >= service.count {
                position.next = 0;
                if service.scheduler == abi::SCHEDULER_WRR {
                    position.level =
                        if position.level <= service.step { service.top } else { position.level - service.step };
                }
            }
            let id = self.slots[&(service.list + u32::from(position.next))];
            position.next += 1;
            let weight = self.servers[&id].weight;
            let usable = match service.scheduler {
                abi::SCHEDULER_WRR => weight >= position.level,
                _ => weight > 0,
            };
            if usable {
                out.push(names(id));
            }
        }
        self.positions.insert(service.id, position.pack());
        out
    }

    fn adopted(&self) -> Present {
        let mut servers: Vec<_> =
            self.servers.iter().filter(|(_, server)| server.service != 0).map(|(id, server)| (*id, *server)).collect();
        servers.sort_by_key(|(id, _)| *id);
        let services = self.services.iter().map(|(key, service)| (records::key(key), *service)).collect();
        let slots = |at: u32, count: u32| (at..at + count).map(|slot| self.slots[&slot]).collect();
        Present::adopted(ROOM, services, servers, &slots, self.answers.clone(), self.configuration)
    }
}

fn later(now: Instant) -> Instant {
    now + Duration::from_secs(2)
}

#[test]
fn what_is_as_wanted_is_not_written_and_neither_by_the_next_process() {
    let now = Instant::now();
    let (mut kernel, mut present) = (Kernel::default(), Present::empty(ROOM));
    let mut held = service(tcp("192.0.2.10:0"), Scheduler::Sh, &[server("10.0.0.1:0", 1), server("10.0.0.2:0", 3)]);
    held.conduct.persistence = Some(Persistence { seconds: 60, mask: "255.255.255.0".parse().unwrap() });
    let mut dns = service(udp("192.0.2.53:53"), Scheduler::Rr, &[server("10.0.0.3:53", 1)]);
    dns.conduct.one_packet = true;
    let mut direct = server("10.0.0.1:80", 2);
    direct.method = Method::Dr;
    let mark = ServiceKey::Mark { mark: 7, family: Family::Ipv6 };
    let wanted = wanted(&[
        service(tcp("192.0.2.10:80"), Scheduler::Wrr, &[direct, server("10.0.0.2:8080", 1)]),
        held,
        dns,
        service(mark, Scheduler::Mh, &[server("[2001:db8::1]:0", 1)]),
    ]);
    let (writes, left_out) = kernel.apply(&mut present, &wanted, now);
    assert!(left_out.is_empty() && !writes.is_empty());
    let flags = abi::CONFIG_MARKS | abi::CONFIG_PORT_ZERO | abi::CONFIG_ANSWERS;
    assert_eq!(kernel.configuration.flags, flags);
    assert_eq!(kernel.apply(&mut present, &wanted, now).0, []);
    let mut next = kernel.adopted();
    assert_eq!(kernel.apply(&mut next, &wanted, now).0, []);
    let shown: Vec<_> = next.servers.values().map(|server| server.address.to_string()).collect();
    assert!(shown.contains(&"10.0.0.1:80".to_owned()), "{shown:?}");
}

#[test]
fn a_weight_is_one_write_where_no_table_depends_on_it() {
    let now = Instant::now();
    let key = tcp("192.0.2.10:80");
    for (scheduler, most) in [(Scheduler::Wlc, 1), (Scheduler::Rr, 1), (Scheduler::Wrr, 2), (Scheduler::Sh, 3)] {
        let (mut kernel, mut present) = (Kernel::default(), Present::empty(ROOM));
        let servers = [server("10.0.0.1:80", 1), server("10.0.0.2:80", 1)];
        kernel.apply(&mut present, &wanted(&[service(key, scheduler, &servers)]), now);
        let other = [server("10.0.0.1:80", 1), server("10.0.0.2:80", 5)];
        let (writes, _) = kernel.apply(&mut present, &wanted(&[service(key, scheduler, &other)]), now);
        assert_eq!(writes.len(), most, "{scheduler:?} {writes:?}");
    }
}

#[test]
fn a_server_leaves_in_one_update_and_comes_back_as_itself() {
    let now = Instant::now();
    let key = tcp("192.0.2.10:80");
    let both = [server("10.0.0.1:80", 1), server("10.0.0.2:80", 1)];
    for (on_down, forgets) in [(OnDown::Drop, false), (OnDown::Reset, true)] {
        let (mut kernel, mut present) = (Kernel::default(), Present::empty(ROOM));
        let mut service = service(key, Scheduler::Rr, &both);
        service.conduct.on_down = on_down;
        kernel.apply(&mut present, &wanted(std::slice::from_ref(&service)), now);
        let id = present.services()[&key].list[0];
        service.servers.remove(0);
        let (writes, _) = kernel.apply(&mut present, &wanted(std::slice::from_ref(&service)), now);
        let updates = writes.iter().filter(|write| matches!(write, Write::Service { .. })).count();
        let forgotten = if forgets { vec![(id, true)] } else { Vec::new() };
        assert_eq!((updates, kernel.forgotten.clone()), (1, forgotten));
        assert!(kernel.servers[&id].flags & abi::SERVER_GONE != 0);
        assert_eq!(present.leaving(), [id]);
        service.servers = both.to_vec();
        kernel.apply(&mut present, &wanted(&[service]), later(now));
        assert_eq!(present.services()[&key].list[0], id);
        assert_eq!((kernel.servers[&id].flags, present.leaving()), (0, vec![]));
    }
}

#[test]
fn a_server_that_leaves_in_peace_gives_up_its_templates() {
    let now = Instant::now();
    let key = tcp("192.0.2.10:80");
    let (mut kernel, mut present) = (Kernel::default(), Present::empty(ROOM));
    let mut service = service(key, Scheduler::Rr, &[server("10.0.0.1:80", 1), server("10.0.0.2:80", 1)]);
    service.conduct.on_down = OnDown::Drain;
    kernel.apply(&mut present, &wanted(std::slice::from_ref(&service)), now);
    let id = present.services()[&key].list[0];
    let left = service.servers.remove(0);
    kernel.apply(&mut present, &wanted(std::slice::from_ref(&service)), now);
    assert_eq!((kernel.servers[&id].flags, present.leaving()), (abi::SERVER_LEFT, vec![id]));
    service.servers.insert(0, left);
    kernel.apply(&mut present, &wanted(&[service]), later(now));
    assert_eq!((present.services()[&key].list[0], kernel.servers[&id].flags), (id, 0));
}

#[test]
fn a_server_that_drains_stays_for_its_flows_but_those_of_udp() {
    let now = Instant::now();
    let key = udp("192.0.2.53:53");
    let (mut kernel, mut present) = (Kernel::default(), Present::empty(ROOM));
    let mut service = service(key, Scheduler::Rr, &[server("10.0.0.1:53", 1), server("10.0.0.2:53", 1)]);
    service.conduct.on_down = OnDown::Drain;
    kernel.apply(&mut present, &wanted(std::slice::from_ref(&service)), now);
    service.servers[0] = WantedServer { weight: 0, down: true, ..service.servers[0].clone() };
    let id = present.services()[&key].list[0];
    let (writes, _) = kernel.apply(&mut present, &wanted(std::slice::from_ref(&service)), now);
    assert_eq!(writes.len(), 2, "{writes:?}");
    assert_eq!(kernel.forgotten, [(id, false)]);
    assert_eq!(kernel.apply(&mut present, &wanted(&[service]), now).0, []);
}

#[test]
fn a_service_that_comes_again_finds_its_servers() {
    let now = Instant::now();
    let key = tcp("192.0.2.10:80");
    let (mut kernel, mut present) = (Kernel::default(), Present::empty(ROOM));
    let web = service(key, Scheduler::Rr, &[server("10.0.0.1:80", 1)]);
    kernel.apply(&mut present, &wanted(std::slice::from_ref(&web)), now);
    let (service_id, id) = (kernel.services[&key].id, present.services()[&key].list[0]);
    kernel.apply(&mut present, &wanted(&[]), now);
    assert!(kernel.services.is_empty());
    kernel.apply(&mut present, &wanted(std::slice::from_ref(&web)), later(now));
    assert_eq!((kernel.services[&key].id, present.services()[&key].list[0]), (service_id, id));
    // Once its flows are over the numbers are free.
    kernel.apply(&mut present, &wanted(&[]), now);
    for write in present.free(&[id]) {
        assert_eq!(write, Write::Server { id, server: abi::Server::default() });
        kernel.servers.remove(&id);
    }
    kernel.apply(&mut present, &wanted(&[web]), later(now));
    assert!(present.services()[&key].list[0] != id);
}

/// The sequences that IPVS was seen to make (A, B, C added in this order), and where it goes on after a change.
#[test]
fn rr_and_wrr_go_on_as_ipvs_does() {
    let now = Instant::now();
    let key = tcp("192.0.2.10:80");
    let all = |weights: [u32; 3]| {
        [("10.0.0.3:80", weights[2]), ("10.0.0.2:80", weights[1]), ("10.0.0.1:80", weights[0])]
            .map(|(address, weight)| server(address, weight))
    };
    let name = |present: &Present, id: u32| match present.server(id).unwrap().address.to_string().as_str() {
        "10.0.0.1:80" => 'A',
        "10.0.0.2:80" => 'B',
        "10.0.0.3:80" => 'C',
        _ => 'D',
    };
    for (scheduler, weights, sequence) in [
        (Scheduler::Rr, [4, 3, 2], "CBACBACBACBACBACBA"),
        (Scheduler::Wrr, [4, 3, 2], "CBAABACBACBAABACBACBAABA"),
        (Scheduler::Wrr, [1, 1, 1], "CBACBACBACBACBACBACBACBA"),
        (Scheduler::Wrr, [5, 1, 1], "CBAAAAACBAAAAACBAAAAACBA"),
        (Scheduler::Wrr, [30, 20, 10], "CBAABACBAABACBAABACBAABA"),
        (Scheduler::Wrr, [1, 0, 2], "CACCACCACCACCACCACCACCAC"),
    ] {
        let (mut kernel, mut present) = (Kernel::default(), Present::empty(ROOM));
        kernel.apply(&mut present, &wanted(&[service(key, scheduler, &all(weights))]), now);
        let picked = kernel.picks(key, sequence.len(), &|id| name(&present, id));
        assert_eq!(picked, sequence, "{scheduler:?} {weights:?}");
    }
    // rr: after C and B, B goes: the pointer steps back to C, and A is next. Then D comes at the head.
    let (mut kernel, mut present) = (Kernel::default(), Present::empty(ROOM));
    kernel.apply(&mut present, &wanted(&[service(key, Scheduler::Rr, &all([1, 1, 1]))]), now);
    assert_eq!(kernel.picks(key, 2, &|id| name(&present, id)), "CB");
    let mut servers = all([1, 1, 1]).to_vec();
    servers.remove(1);
    kernel.apply(&mut present, &wanted(&[service(key, Scheduler::Rr, &servers)]), now);
    assert_eq!(kernel.picks(key, 1, &|id| name(&present, id)), "A");
    servers.insert(0, server("10.0.0.4:80", 1));
    kernel.apply(&mut present, &wanted(&[service(key, Scheduler::Rr, &servers)]), later(now));
    assert_eq!(kernel.picks(key, 4, &|id| name(&present, id)), "DCAD");
    // wrr: its level outlives a change, so that the round does not begin anew; also in the next process.
    let (mut kernel, mut present) = (Kernel::default(), Present::empty(ROOM));
    kernel.apply(&mut present, &wanted(&[service(key, Scheduler::Wrr, &all([4, 3, 2]))]), now);
    assert_eq!(kernel.picks(key, 5, &|id| name(&present, id)), "CBAAB");
    let mut present = kernel.adopted();
    kernel.apply(&mut present, &wanted(&[service(key, Scheduler::Wrr, &all([4, 3, 3]))]), now);
    // Level 3, from the head: C and B have 3, A has 4.
    assert_eq!(kernel.picks(key, 6, &|id| name(&present, id)), "CBACBA");
    // Also when only a threshold changes: level 3 from the head again.
    let (mut kernel, mut present) = (Kernel::default(), Present::empty(ROOM));
    let mut servers = all([4, 3, 2]);
    kernel.apply(&mut present, &wanted(&[service(key, Scheduler::Wrr, &servers)]), now);
    assert_eq!(kernel.picks(key, 5, &|id| name(&present, id)), "CBAAB");
    servers[0].upper = 100;
    kernel.apply(&mut present, &wanted(&[service(key, Scheduler::Wrr, &servers)]), now);
    assert_eq!(kernel.picks(key, 5, &|id| name(&present, id)), "BACBA");
}

#[test]
fn what_has_no_room_is_told_and_the_rest_is_served() {
    let now = Instant::now();
    let (mut kernel, mut present) =
        (Kernel::default(), Present::empty(Room { services: 3, servers: 4, slots: 4100, answers: 4 }));
    let many: Vec<_> = (1..=5).map(|last| server(&format!("10.0.0.{last}:80"), 1)).collect();
    let services = [
        service(tcp("192.0.2.1:80"), Scheduler::Rr, &many),
        service(tcp("192.0.2.2:80"), Scheduler::Rr, &many[..2]),
        service(tcp("192.0.2.3:80"), Scheduler::Mh, &many[..1]),
        service(tcp("192.0.2.4:80"), Scheduler::Mh, &many[..1]),
    ];
    let (_, left_out) = kernel.apply(&mut present, &wanted(&services), now);
    let told: Vec<_> = left_out.iter().map(|left| (left.key, left.why.contains("no room"))).collect();
    assert_eq!(told, [(tcp("192.0.2.1:80"), true), (tcp("192.0.2.4:80"), true)]);
    assert_eq!(kernel.services.len(), 2);
    // With room again, they come.
    let (_, left_out) = kernel.apply(&mut present, &wanted(&services[3..]), later(now));
    assert_eq!(left_out.len(), 1, "what was released settles first");
    let (_, left_out) = kernel.apply(&mut present, &wanted(&services[3..]), later(later(now)));
    assert_eq!((left_out.len(), kernel.services.len()), (0, 1));
}

#[test]
fn one_server_answers_for_one_service_of_single_packets() {
    let now = Instant::now();
    let (mut kernel, mut present) = (Kernel::default(), Present::empty(ROOM));
    let mut one = service(udp("192.0.2.1:53"), Scheduler::Rr, &[server("10.0.0.1:53", 1)]);
    one.conduct.one_packet = true;
    let mut other = service(udp("192.0.2.2:53"), Scheduler::Rr, &[server("10.0.0.1:53", 1)]);
    other.conduct.one_packet = true;
    let (_, left_out) = kernel.apply(&mut present, &wanted(&[one, other.clone()]), now);
    assert!(left_out[0].why.contains("10.0.0.1:53 answers for 192.0.2.1 already"), "{left_out:?}");
    assert_eq!(kernel.answers.len(), 1);
    kernel.apply(&mut present, &wanted(&[other]), now);
    assert_eq!(abi::ip(kernel.answers[0].1.address, abi::V4).unwrap().to_string(), "192.0.2.2");
}
