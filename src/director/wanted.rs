//! Gathers what is to be in force: the configuration's services with what is known of their servers, and those that were
//! added at run time.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::abi;
use super::own::{self, Own, port_in_tables};
use super::plan::{LeftOut, Wanted, WantedServer, WantedService};
use super::records;
use crate::model::director::{Director, Family, FlowTimeouts, Method, OnDown, Service, ServiceKey};
use crate::model::pool::{Address, Server};
use crate::state::pool::LivePool;
use crate::state::{Health, LiveServer, Snapshot};

/// IPVS's times for the states that `--set` does not reach, in seconds.
const TCP: [(u8, u32); 10] = [
    (abi::TCP_NONE, 2),
    (abi::TCP_SYN_SENT, 120),
    (abi::TCP_SYN_RECV, 60),
    (abi::TCP_TIME_WAIT, 120),
    (abi::TCP_CLOSE, 10),
    (abi::TCP_CLOSE_WAIT, 60),
    (abi::TCP_LAST_ACK, 30),
    (abi::TCP_LISTEN, 120),
    (abi::TCP_SYNACK, 120),
    (abi::TCP_FIN_WAIT, 120),
];

/// What is known of this machine.
pub struct Here<'a> {
    /// Its addresses.
    pub local: &'a HashSet<IpAddr>,
    /// Which of them it sends to an address by.
    pub towards: &'a dyn Fn(IpAddr) -> Option<IpAddr>,
    /// What an earlier process left, while that is better than nothing.
    pub adopted: Option<&'a Adopted>,
    /// Servers that are of another family than their service, which only `tun` can bridge.
    pub unfit: &'a RefCell<Vec<LeftOut>>,
    /// Set where something of `adopted` is kept.
    pub holds: &'a Cell<bool>,
}

/// A server on the list of a service, as an earlier process left it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed {
    /// As the tables have it, with the port of [`port_in_tables`].
    address: SocketAddr,
    method: u8,
    weight: u32,
}

pub type Adopted = HashMap<ServiceKey, Vec<Listed>>;

impl Listed {
    pub fn of(record: abi::Server) -> Option<Listed> {
        let address = SocketAddr::new(abi::ip(record.address, record.family)?, u16::from_be_bytes(record.port));
        Some(Listed { address, method: record.method, weight: record.weight })
    }

    fn is(&self, address: SocketAddr, method: Method) -> bool {
        let there = SocketAddr::new(address.ip(), port_in_tables(address, method));
        (self.address, self.method) == (there, records::method(method))
    }
}

impl Here<'_> {
    /// The outer source of packets by `tun`: the virtual address would not do, which the server has itself.
    fn source(&self, server: IpAddr, method: Method) -> Option<IpAddr> {
        (method == Method::Tun).then(|| (self.towards)(server)).flatten()
    }
}

/// The whole of it; the newest services last, as they were added.
pub fn gather(snapshot: &Snapshot, director: &Director, own: &Own, here: &Here<'_>) -> Wanted {
    let configured = director.services.iter().filter_map(|service| {
        let pool = snapshot.pool(&service.pool)?;
        let servers = servers(service, pool, here);
        Some(WantedService { key: service.key, conduct: service.conduct.clone(), servers })
    });
    let added = own.services.iter().rev().filter(|own| director.services.iter().all(|it| it.key != own.key));
    let added = added.map(|service| WantedService {
        key: service.key,
        conduct: service.conduct.clone(),
        servers: service
            .servers
            .iter()
            .map(|server| WantedServer {
                name: None,
                address: server.dest.address,
                method: server.dest.method,
                weight: server.dest.weight,
                share: server.share,
                upper: server.dest.upper,
                lower: server.dest.lower,
                local: here.local.contains(&server.dest.address.ip()),
                source: here.source(server.dest.address.ip(), server.dest.method),
                down: false,
            })
            .collect(),
    });
    let timeouts = own::timeouts(director.timeouts, own.timeouts);
    Wanted { services: configured.chain(added).collect(), configuration: configuration(timeouts) }
}

fn configuration(timeouts: FlowTimeouts) -> abi::Configuration {
    let ticks = |seconds: u32| abi::ticks(Duration::from_secs(seconds.into()));
    let mut tcp = [0; 16];
    for (state, seconds) in TCP {
        tcp[usize::from(state)] = ticks(seconds);
    }
    tcp[usize::from(abi::TCP_ESTABLISHED)] = ticks(timeouts.tcp);
    tcp[usize::from(abi::TCP_FIN_WAIT)] = ticks(timeouts.tcpfin);
    abi::Configuration {
        version: abi::VERSION,
        flags: 0,
        tcp,
        udp: ticks(timeouts.udp),
        // IPVS's own: a new connection of a client whose old one is over is scheduled anew.
        reuse_mode: 1,
        drop_packet: 0,
        zero: 0,
    }
}

/// A pool's servers as L7 would choose among them; the last of the file first, as IPVS has what was added last.
///
/// One that this process has not checked or resolved yet is as an earlier one left it: a restart brings no dead server back, and
/// takes none away whose name is being asked for.
fn servers(service: &Service, pool: &LivePool, here: &Here<'_>) -> Vec<WantedServer> {
    let configured = &pool.config().servers;
    let panics = pool.panics();
    let arrival = |server: &LiveServer, address| arrives(service, address, service.method_of(server.name()));
    let before = here.adopted.and_then(|adopted| adopted.get(&service.key));
    let checked = !pool.config().checks.is_empty();
    // What it was, where nothing is known of it yet; by `drain` the weight says whether it was up.
    let was = |server: &LiveServer| {
        let before = before.filter(|_| checked && server.verdict().is_none())?;
        let (method, address) = (service.method_of(server.name()), arrival(server, server.address()?));
        let listed = before.iter().find(|listed| listed.is(address, method));
        here.holds.set(true);
        Some(listed.is_some_and(|listed| service.conduct.on_down != OnDown::Drain || listed.weight > 0))
    };
    let is_up = |server: &LiveServer| was(server).unwrap_or_else(|| panics || server.health() == Health::Up);
    let takes = |server: &LiveServer| is_up(server) && !server.is_drained() && server.weight() > 0;
    let known: Vec<(SocketAddr, Method)> = (pool.servers().iter())
        .filter_map(|server| Some((arrival(server, server.address()?), service.method_of(server.name()))))
        .collect();
    let mut nameless: Vec<Listed> = before.map_or_else(Vec::new, |before| {
        let of_nobody = |listed: &&Listed| known.iter().all(|(address, method)| !listed.is(*address, *method));
        before.iter().filter(of_nobody).copied().collect()
    });
    // A server without an address is one of those, by its port; the list had the last of the file first.
    let mut kept = |server: &LiveServer, configured: &Server| {
        let (Address::Name { port, .. }, None) = (&configured.address, server.address()) else { return None };
        let at = |listed: &Listed| arrival(server, SocketAddr::new(listed.address.ip(), *port));
        let found = nameless.iter().rposition(|listed| listed.is(at(listed), service.method_of(server.name())))?;
        let listed = nameless.remove(found);
        here.holds.set(true);
        Some((at(&listed), listed.weight))
    };
    let kept: Vec<_> =
        pool.servers().iter().zip(configured).map(|(server, configured)| kept(server, configured)).collect();
    let held = |at: usize| kept.get(at).copied().flatten();
    let primary = (pool.servers().iter().enumerate()).any(|(at, server)| {
        !server.is_backup() && (takes(server) || !server.is_drained() && held(at).is_some_and(|(_, weight)| weight > 0))
    });
    let mut all = Vec::with_capacity(configured.len());
    for (at, (server, configured)) in pool.servers().iter().zip(configured).enumerate() {
        let method = service.method_of(server.name());
        let one = |address: SocketAddr, weight: u32, down: bool| WantedServer {
            name: Some(server.name().clone()),
            address,
            method,
            weight,
            share: server.weight(),
            upper: configured.most.connections.unwrap_or(0),
            lower: 0,
            local: here.local.contains(&address.ip()),
            source: here.source(address.ip(), method),
            down,
        };
        let Some(address) = server.address() else {
            if let Some((address, weight)) = held(at) {
                all.push(one(address, if server.is_drained() { 0 } else { weight }, false));
            }
            continue;
        };
        let up = is_up(server);
        if !up && service.conduct.on_down != OnDown::Drain {
            continue;
        }
        let address = arrival(server, address);
        if Family::of(address.ip()) != service.key.family() && method != Method::Tun {
            let why = format!(
                "server \"{}\" is at {address}, which is of another family: only \"tun\" leads there",
                server.name()
            );
            here.unfit.borrow_mut().push(LeftOut { key: service.key, why });
            continue;
        }
        let out = !up || server.is_drained() || server.is_backup() && primary;
        let weight = if out { 0 } else { portion(server.weight(), server.portion()) };
        all.push(one(address, weight, !up && was(server).is_none()));
    }
    all.reverse();
    // Of two at one address there can be one only.
    let mut seen = HashSet::new();
    all.retain(|server| seen.insert(server.address));
    all.truncate(Director::SERVERS_OF_ONE);
    all
}

/// Where its packets arrive: at its own port by `nat`, else at the one that clients ask for.
fn arrives(service: &Service, address: SocketAddr, method: Method) -> SocketAddr {
    match (method, service.key) {
        (Method::Nat, _) | (_, ServiceKey::Mark { .. }) => address,
        _ => SocketAddr::new(address.ip(), service.key.port()),
    }
}

/// Less than its weight while its share grows or its agent says so, but never nothing before it is nothing.
fn portion(weight: u32, percent: u32) -> u32 {
    (u64::from(weight) * u64::from(percent)).div_ceil(100).min(u64::from(Director::HEAVIEST)) as u32
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::SystemTime;

    use super::*;
    use crate::config::load_text;
    use crate::state::Farm;

    const TEXT: &str = "[pool.web]\ncheck = { tcp = true }\nservers = [\n\
        { name = \"a\", address = \"10.0.0.1:8080\", weight = 2, max-connections = 50 },\n\
        { name = \"b\", address = \"10.0.0.2:8080\" },\n\
        { name = \"sorry\", address = \"10.0.0.9:8080\", backup = true }]\n\
        [director.service.web]\naddress = \"192.0.2.10:80\"\npool = \"web\"\nmethods = { b = \"dr\" }\n";

    fn farm(text: &str) -> (Arc<Farm>, Director) {
        let load = load_text("reeve.toml", text);
        let config = load.config.unwrap_or_else(|| panic!("{:?}", load.faults));
        let director = config.director.clone().unwrap();
        (Farm::new(Arc::new(config), Vec::new()), director)
    }

    fn wanted(farm: &Farm, director: &Director) -> Wanted {
        gathered(farm, director, None).0
    }

    /// With what was adopted; whether something of it is kept.
    fn gathered(farm: &Farm, director: &Director, adopted: Option<&Adopted>) -> (Wanted, bool) {
        let (local, holds, unfit) = (HashSet::new(), Cell::new(false), RefCell::default());
        let towards = |server: IpAddr| (server == IpAddr::from([10, 0, 0, 2])).then(|| [10, 0, 0, 100].into());
        let here = Here { local: &local, towards: &towards, adopted, unfit: &unfit, holds: &holds };
        (gather(&farm.snapshot(), director, &Own::default(), &here), holds.get())
    }

    #[test]
    fn a_tunnel_begins_at_the_address_towards_the_server() {
        let (farm, director) = farm(&TEXT.replace("\"dr\"", "\"tun\""));
        let sources: Vec<_> = wanted(&farm, &director).services[0].servers.iter().map(|server| server.source).collect();
        assert_eq!(sources, [None, Some([10, 0, 0, 100].into()), None]);
    }

    fn seen(farm: &Farm, director: &Director) -> Vec<(String, u32, bool)> {
        let wanted = wanted(farm, director);
        let servers = wanted.services[0].servers.iter();
        servers.map(|server| (server.address.to_string(), server.weight, server.down)).collect()
    }

    #[test]
    fn health_drains_and_backups_are_those_of_l7() {
        let (farm, director) = farm(TEXT);
        let row = |address: &str, weight, down| (address.to_owned(), weight, down);
        // dr keeps the port that the client asked for.
        let (a, b) = (row("10.0.0.1:8080", 2, false), row("10.0.0.2:80", 1, false));
        assert_eq!(seen(&farm, &director), [row("10.0.0.9:8080", 0, false), b.clone(), a.clone()]);
        let server = |name: &str| farm.server(&format!("web/{name}")).unwrap();
        server("b").set_health(Health::Down, "refused", SystemTime::now());
        assert_eq!(seen(&farm, &director), [row("10.0.0.9:8080", 0, false), a]);
        farm.set_drains(|drains| {
            drains.servers.insert("web/a".into());
        });
        assert_eq!(seen(&farm, &director), [row("10.0.0.9:8080", 1, false), row("10.0.0.1:8080", 0, false)]);
        let mut drains = director.clone();
        drains.services[0].conduct.on_down = OnDown::Drain;
        assert_eq!(seen(&farm, &drains)[1], row("10.0.0.2:80", 0, true));
        let wanted = wanted(&farm, &director);
        assert_eq!(wanted.services[0].servers[1].upper, 50);
        assert_eq!(wanted.configuration.tcp[1], abi::ticks(Duration::from_secs(900)));
    }

    #[test]
    fn what_is_not_known_yet_is_as_it_was() {
        let text = TEXT.replace("\"10.0.0.1:8080\"", "\"a.test:8080\"");
        let (farm, director) = farm(&text);
        let listed = |text: &str, method| Listed { address: text.parse().unwrap(), method, weight: 2 };
        // Before, a was at .1 and b was dead; .7 is of nobody.
        let there = vec![
            listed("10.0.0.9:8080", abi::METHOD_NAT),
            listed("10.0.0.1:8080", abi::METHOD_NAT),
            listed("10.0.0.7:9999", abi::METHOD_NAT),
        ];
        let adopted = Adopted::from([(director.services[0].key, there)]);
        let seen = || {
            let (wanted, holds) = gathered(&farm, &director, Some(&adopted));
            let servers = wanted.services[0].servers.iter();
            (servers.map(|server| (server.address.to_string(), server.weight)).collect::<Vec<_>>(), holds)
        };
        let row = |address: &str, weight| (address.to_owned(), weight);
        assert_eq!(seen(), (vec![row("10.0.0.9:8080", 0), row("10.0.0.1:8080", 2)], true));
        let server = |name: &str| farm.server(&format!("web/{name}")).unwrap();
        server("a").set_address(Ok("10.0.0.1:8080".parse().unwrap()));
        assert_eq!(seen(), (vec![row("10.0.0.9:8080", 0), row("10.0.0.1:8080", 2)], true));
        for name in ["a", "b", "sorry"] {
            server(name).set_health(Health::Up, "good", SystemTime::now());
        }
        assert_eq!(seen(), (vec![row("10.0.0.9:8080", 0), row("10.0.0.2:80", 1), row("10.0.0.1:8080", 2)], false));
    }

    #[test]
    fn a_share_that_grows_is_never_nothing() {
        assert_eq!([portion(1, 10), portion(3, 50), portion(2, 100), portion(2, 0)], [1, 2, 2, 0]);
    }
}
