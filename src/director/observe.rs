//! What was counted, for listings, metrics and rates.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use super::abi;
use super::estimator::Estimator;
use super::kernel::{self, Kernel, Key};
use super::plan::{Present, Server};
use crate::model::director::{Director, Method, Protocol, ServiceKey};
use crate::state::director::{Counted, FlowReport, Flows, Rates, ServerReport, ServiceReport, Table};

/// Rates of servers and services, and what servers had counted that are gone.
#[derive(Debug, Default)]
pub struct Watch {
    servers: HashMap<u32, Estimator>,
    services: BTreeMap<ServiceKey, Estimator>,
    /// Of servers whose numbers are free again.
    carried: BTreeMap<ServiceKey, Counted>,
}

impl Watch {
    /// A look at everything, every [`super::estimator::EVERY`].
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn look(&mut self, kernel: &Kernel, present: &Present) -> io::Result<()> {
        self.servers.retain(|id, _| present.server(*id).is_some());
        self.services.retain(|key, _| present.services().contains_key(key));
        self.carried.retain(|key, _| present.services().contains_key(key));
        for (key, service) in present.services() {
            let mut sum = self.carried.get(key).copied().unwrap_or_default();
            for id in service.own() {
                let counted = kernel.counted(*id)?;
                self.servers.entry(*id).or_insert_with(|| Estimator::new(counted)).look(counted);
                add(&mut sum, counted);
            }
            self.services.entry(*key).or_insert_with(|| Estimator::new(sum)).look(sum);
        }
        Ok(())
    }

    /// A server's number is about to be free: what it has counted stays its service's.
    pub fn carry(&mut self, kernel: &Kernel, present: &Present, id: u32) {
        let service = present.server(id).and_then(|server| present.service_of(server));
        if let (Some((key, _)), Ok(counted)) = (service, kernel.counted(id)) {
            add(self.carried.entry(*key).or_default(), counted);
        }
        self.servers.remove(&id);
    }

    /// Counters and rates of a service begin at 0.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn zero(&mut self, kernel: &Kernel, present: &Present, key: &ServiceKey) -> io::Result<()> {
        let Some(service) = present.services().get(key) else { return Ok(()) };
        for id in service.own() {
            kernel.zero(*id)?;
            self.servers.insert(*id, Estimator::default());
        }
        self.services.insert(*key, Estimator::default());
        self.carried.remove(key);
        Ok(())
    }

    fn rates(&self, server: u32) -> Rates {
        self.servers.get(&server).map(Estimator::rates).unwrap_or_default()
    }
}

fn add(sum: &mut Counted, more: Counted) {
    sum.connections += more.connections;
    sum.packets_in += more.packets_in;
    sum.packets_out += more.packets_out;
    sum.bytes_in += more.bytes_in;
    sum.bytes_out += more.bytes_out;
}

/// What is known beside the tables.
pub struct Beside<'a> {
    pub director: &'a Director,
    /// What was wanted last: services in their order, with the conduct and the servers' names.
    pub wanted: &'a super::plan::Wanted,
    pub names: &'a HashMap<(ServiceKey, SocketAddr), Arc<str>>,
    pub timeouts: crate::model::director::FlowTimeouts,
}

/// All services, the newest first.
///
/// # Errors
/// When the kernel does not say.
pub fn table(kernel: &Kernel, present: &Present, watch: &Watch, beside: &Beside<'_>) -> io::Result<Table> {
    let mut services = Vec::with_capacity(beside.wanted.services.len());
    for wanted in beside.wanted.services.iter().rev() {
        let Some(service) = present.services().get(&wanted.key) else { continue };
        let configured = beside.director.services.iter().find(|service| service.key == wanted.key);
        let mut counted = watch.carried.get(&wanted.key).copied().unwrap_or_default();
        let mut servers = Vec::with_capacity(service.list.len());
        for id in service.own() {
            let own = kernel.counted(*id)?;
            add(&mut counted, own);
            let Some(server) = present.server(*id).filter(|server| server.listed) else { continue };
            servers.push((*id, self::server(kernel, watch, beside, &wanted.key, *id, server, own)?));
        }
        let place: HashMap<u32, usize> = service.list.iter().enumerate().map(|(at, id)| (*id, at)).collect();
        servers.sort_by_key(|(id, _)| place.get(id).copied());
        services.push(ServiceReport {
            key: wanted.key,
            name: configured.map(|service| service.name.to_string()),
            pool: configured.map(|service| service.pool.to_string()),
            conduct: wanted.conduct.clone(),
            counted,
            rates: watch.services.get(&wanted.key).map(Estimator::rates).unwrap_or_default(),
            servers: servers.into_iter().map(|(_, server)| server).collect(),
        });
    }
    let counters = kernel.counters()?;
    let at = |index: u32| counters.get(index as usize).copied().unwrap_or(0);
    Ok(Table {
        services,
        timeouts: beside.timeouts,
        flows: at(abi::COUNTER_CREATED).saturating_sub(at(abi::COUNTER_DELETED)),
        flows_most: beside.director.flows.into(),
        counters: abi::COUNTER_NAMES.iter().map(|name| (*name).to_owned()).zip(counters).collect(),
    })
}

fn server(
    kernel: &Kernel,
    watch: &Watch,
    beside: &Beside<'_>,
    key: &ServiceKey,
    id: u32,
    server: &Server,
    counted: Counted,
) -> io::Result<ServerReport> {
    let abi::Load { active, inactive, persistent, .. } = kernel.load(id)?;
    Ok(ServerReport {
        address: server.address,
        name: beside.names.get(&(*key, server.address)).map(ToString::to_string),
        method: method(server.record.method),
        weight: server.record.weight,
        upper: server.record.upper,
        lower: server.record.lower,
        active,
        inactive,
        persistent,
        counted,
        rates: watch.rates(id),
    })
}

fn method(method: u8) -> Method {
    match method {
        abi::METHOD_TUN => Method::Tun,
        abi::METHOD_DR => Method::Dr,
        _ => Method::Nat,
    }
}

/// At most so many flows that are not over their time.
///
/// # Errors
/// When the kernel does not say.
pub fn flows(kernel: &Kernel, present: &Present, beside: &Beside<'_>, limit: usize) -> io::Result<Flows> {
    let now = kernel::now();
    let mut all = Flows::default();
    kernel.flows(|key, conn| {
        if let Some(left) = abi::left(now, conn.last, conn.timeout) {
            all.total += 1;
            if all.flows.len() < limit {
                all.flows.extend(flow(present, beside, &key, conn, left.as_secs()));
            }
        }
        true
    })?;
    kernel.templates(|key, template| {
        if let Some(left) = abi::left(now, template.last, template.timeout)
            && all.flows.len() < limit
        {
            all.flows.extend(self::template(present, key, template, left.as_secs()));
        }
        true
    })?;
    Ok(all)
}

fn flow(present: &Present, beside: &Beside<'_>, key: &Key, conn: &abi::Conn, seconds: u64) -> Option<FlowReport> {
    let (client, virtual_address) = key.ends();
    let server = present.server(conn.server)?;
    let protocol = protocol(key.protocol())?;
    let port = match u16::from_be_bytes(conn.port) {
        0 => virtual_address.port(),
        port => port,
    };
    let identity = present.service_of(server).and_then(|(key, _)| {
        let name = beside.names.get(&(*key, server.address))?;
        let service = beside.director.services.iter().find(|service| service.key == *key)?;
        Some(format!("{}/{name}", service.pool))
    });
    Some(FlowReport {
        protocol: Some(protocol),
        state: if protocol == Protocol::Udp { "UDP".to_owned() } else { state(conn.state).to_owned() },
        client,
        virtual_address,
        server: SocketAddr::new(server.address.ip(), port),
        identity,
        seconds: u32::try_from(seconds).unwrap_or(u32::MAX),
        template: false,
    })
}

fn template(present: &Present, key: &abi::TemplateKey, of: &abi::Template, seconds: u64) -> Option<FlowReport> {
    let server = present.server(of.server)?;
    // As IPVS shows a mark: in the place of an address.
    let at = match (key.mark, key.family) {
        (0, _) => abi::ip(key.address, key.family)?,
        (mark, abi::V4) => IpAddr::V4(Ipv4Addr::from_bits(mark)),
        (mark, _) => IpAddr::V6(Ipv6Addr::from_bits(mark.into())),
    };
    let port = u16::from_be_bytes(key.port);
    Some(FlowReport {
        protocol: protocol(key.protocol),
        state: if of.flags & abi::TEMPLATE_ASSURED != 0 { "ASSURED" } else { "NONE" }.to_owned(),
        client: SocketAddr::new(abi::ip(key.client, key.family)?, 0),
        virtual_address: SocketAddr::new(at, port),
        server: SocketAddr::new(server.address.ip(), if port == 0 { 0 } else { server.address.port() }),
        identity: None,
        seconds: u32::try_from(seconds).unwrap_or(u32::MAX),
        template: true,
    })
}

fn protocol(number: u8) -> Option<Protocol> {
    match number {
        abi::TCP => Some(Protocol::Tcp),
        abi::UDP => Some(Protocol::Udp),
        _ => None,
    }
}

fn state(state: u8) -> &'static str {
    match state {
        abi::TCP_NONE => "NONE",
        abi::TCP_ESTABLISHED => "ESTABLISHED",
        abi::TCP_SYN_SENT => "SYN_SENT",
        abi::TCP_SYN_RECV => "SYN_RECV",
        abi::TCP_FIN_WAIT => "FIN_WAIT",
        abi::TCP_TIME_WAIT => "TIME_WAIT",
        abi::TCP_CLOSE => "CLOSE",
        abi::TCP_CLOSE_WAIT => "CLOSE_WAIT",
        abi::TCP_LAST_ACK => "LAST_ACK",
        abi::TCP_LISTEN => "LISTEN",
        abi::TCP_SYNACK => "SYNACK",
        _ => "ERR!",
    }
}
