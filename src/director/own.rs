//! Services that were added at run time, with servers of their own: what `ipvsadm` changes, and by IPVS's rules. Pure.
//!
//! They are kept in the state folder, so that a restart of the control plane finds them again.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::model::director::{Conduct, Dest, Director, Family, FlowTimeouts, Method, Protocol, Scheduler, ServiceKey};
use crate::state::director::{Change, Refusal, Wanted};

/// Everything that was said at run time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Own {
    /// The newest first.
    pub services: Vec<OwnService>,
    /// Where `--set` was called; 0 leaves what the configuration says.
    #[serde(default)]
    pub timeouts: Option<FlowTimeouts>,
    /// The file was damaged: what the tables have is to be taken for it.
    #[serde(skip)]
    pub damaged: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnService {
    pub key: ServiceKey,
    pub conduct: Conduct,
    /// The newest first.
    pub servers: Vec<OwnServer>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnServer {
    pub dest: Dest,
    /// The last weight that was not 0; mh goes by it.
    pub share: u32,
}

/// What there is already and cannot be taken: the configuration's services by their names, and how many servers they have.
pub struct Beside<'a> {
    pub configured: &'a dyn Fn(&ServiceKey) -> Option<String>,
    pub servers: usize,
    pub services: usize,
}

impl Own {
    /// Carries out one change; counters are the caller's.
    ///
    /// # Errors
    /// As IPVS refuses; then nothing has changed.
    pub fn change(&mut self, change: &Change, beside: &Beside<'_>) -> Result<(), Refusal> {
        match change {
            Change::Clear => self.services.clear(),
            Change::Timeouts(timeouts) => {
                let kept = self.timeouts.get_or_insert(FlowTimeouts { tcp: 0, tcpfin: 0, udp: 0 });
                for (kept, said) in
                    [(&mut kept.tcp, timeouts.tcp), (&mut kept.tcpfin, timeouts.tcpfin), (&mut kept.udp, timeouts.udp)]
                {
                    *kept = if said == 0 { *kept } else { said };
                }
            }
            Change::Zero { key: Some(key) } => {
                if (beside.configured)(key).is_none() {
                    self.find(key, beside)?;
                }
            }
            Change::Zero { key: None } => {}
            Change::AddService { key, conduct } => {
                if self.at(key).is_some() || (beside.configured)(key).is_some() {
                    return Err(Refusal::Exists);
                }
                let conduct = accepted(key, conduct)?;
                if self.services.len() + beside.services >= Director::SERVICES {
                    return Err(Refusal::NoRoom);
                }
                self.services.insert(0, OwnService { key: *key, conduct, servers: Vec::new() });
            }
            Change::EditService { key, conduct } => {
                let at = self.find(key, beside)?;
                let edited = OwnService { conduct: accepted(key, conduct)?, ..self.services[at].clone() };
                edited.servers.iter().try_for_each(|server| way_back(&edited, &server.dest))?;
                self.services[at] = edited;
            }
            Change::DeleteService { key } => {
                // Also one that the configuration has taken over: it would come back with the end of that.
                let at = self.at(key).map_or_else(|| self.find(key, beside), Ok)?;
                self.services.remove(at);
            }
            Change::AddServer { key, server } => {
                let at = self.find(key, beside)?;
                let server = possible(key, server)?;
                way_back(&self.services[at], &server)?;
                let all: usize = self.services.iter().map(|service| service.servers.len()).sum();
                let own = &mut self.services[at].servers;
                if own.iter().any(|known| known.dest.address == server.address) {
                    return Err(Refusal::Exists);
                }
                if own.len() >= Director::SERVERS_OF_ONE || all + beside.servers >= Director::SERVERS {
                    return Err(Refusal::NoRoom);
                }
                own.insert(0, OwnServer { share: server.weight, dest: server });
            }
            Change::EditServer { key, server } => {
                let at = self.find(key, beside)?;
                let server = possible(key, server)?;
                way_back(&self.services[at], &server)?;
                let own = &mut self.services[at].servers;
                let known = own.iter_mut().find(|known| known.dest.address == server.address);
                let known = known.ok_or(Refusal::NotFound)?;
                if server.weight > 0 {
                    known.share = server.weight;
                }
                known.dest = server;
            }
            Change::DeleteServer { key, server } => {
                let at = self.find(key, beside)?;
                let own = &mut self.services[at].servers;
                // The tool does not know the method here, so that it cannot say the port that the packets go to.
                let found = own.iter().position(|known| known.dest.address == *server);
                own.remove(found.ok_or(Refusal::NotFound)?);
            }
        }
        Ok(())
    }

    /// A service that the configuration has as well is the configuration's: a change would do nothing.
    fn find(&self, key: &ServiceKey, beside: &Beside<'_>) -> Result<usize, Refusal> {
        match (beside.configured)(key) {
            Some(name) => Err(Refusal::Configured(name)),
            None => self.at(key).ok_or(Refusal::NoService),
        }
    }

    fn at(&self, key: &ServiceKey) -> Option<usize> {
        self.services.iter().position(|service| service.key == *key)
    }
}

fn accepted(key: &ServiceKey, wanted: &Wanted) -> Result<Conduct, Refusal> {
    let scheduler = Scheduler::of(&wanted.scheduler).filter(|scheduler| scheduler.is_built());
    if let ServiceKey::Address { protocol: Protocol::Sctp, .. } = key {
        return Err(Refusal::NotAvailable);
    }
    let scheduler = scheduler.ok_or(Refusal::NotFound)?;
    Ok(Conduct { scheduler, ..wanted.conduct.clone() })
}

/// What IPVS asks of a server.
fn possible(key: &ServiceKey, server: &Dest) -> Result<Dest, Refusal> {
    if server.lower > server.upper || server.weight > Director::HEAVIEST {
        return Err(Refusal::Range);
    }
    let unicast = match server.address.ip() {
        IpAddr::V4(ip) => !ip.is_unspecified() && !ip.is_multicast() && !ip.is_broadcast(),
        IpAddr::V6(ip) => !ip.is_unspecified() && !ip.is_multicast() && !ip.is_unicast_link_local(),
    };
    if !unicast || Family::of(server.address.ip()) != key.family() && server.method != Method::Tun {
        return Err(Refusal::Invalid);
    }
    Ok(server.clone())
}

/// Answers of a service by mark are known by its flows, and one-packet services have none.
fn way_back(service: &OwnService, server: &Dest) -> Result<(), Refusal> {
    let marked = matches!(service.key, ServiceKey::Mark { .. });
    if marked && service.conduct.one_packet && server.method == Method::Nat {
        return Err(Refusal::Failed(
            "a one-packet service by mark has no way back by masquerading (-m): use -g or -i".to_owned(),
        ));
    }
    Ok(())
}

/// The timeouts in force.
pub fn timeouts(configured: FlowTimeouts, own: Option<FlowTimeouts>) -> FlowTimeouts {
    let own = own.unwrap_or(FlowTimeouts { tcp: 0, tcpfin: 0, udp: 0 });
    let or = |said: u32, configured: u32| if said == 0 { configured } else { said };
    FlowTimeouts {
        tcp: or(own.tcp, configured.tcp),
        tcpfin: or(own.tcpfin, configured.tcpfin),
        udp: or(own.udp, configured.udp),
    }
}

/// Where packets for a server go, as the tables have it: by `dr` and `tun` at the port that the client asked for.
pub fn port_in_tables(address: SocketAddr, method: Method) -> u16 {
    if method == Method::Nat { address.port() } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::director::{Flags, Forwarding, OnDown};

    fn key(text: &str) -> ServiceKey {
        ServiceKey::Address { protocol: Protocol::Tcp, address: text.parse().unwrap() }
    }

    fn wanted(scheduler: &str) -> Wanted {
        let conduct = Conduct {
            scheduler: Scheduler::Wlc,
            flags: Flags::default(),
            persistence: None,
            one_packet: false,
            forwarding: Forwarding::Fast,
            on_down: OnDown::Drop,
        };
        Wanted { scheduler: scheduler.to_owned(), conduct }
    }

    fn dest(text: &str, weight: u32) -> Dest {
        Dest { address: text.parse().unwrap(), method: Method::Nat, weight, upper: 0, lower: 0 }
    }

    #[test]
    fn changes_are_refused_as_ipvs_refuses_them() {
        let web = key("192.0.2.10:80");
        let configured = key("192.0.2.10:443");
        let beside = Beside {
            configured: &|key| (*key == configured).then(|| "director.service.sealed".to_owned()),
            servers: 0,
            services: 1,
        };
        let mut own = Own::default();
        let mut go = |change: Change| own.change(&change, &beside);
        let add = |key, scheduler| Change::AddService { key, conduct: wanted(scheduler) };
        assert_eq!(go(Change::DeleteService { key: web }), Err(Refusal::NoService));
        assert_eq!(go(add(web, "nosuch")), Err(Refusal::NotFound));
        assert_eq!(go(add(web, "lblc")), Err(Refusal::NotFound));
        assert_eq!(go(add(web, "rr")), Ok(()));
        assert_eq!(go(add(web, "rr")), Err(Refusal::Exists));
        assert_eq!(go(add(configured, "rr")), Err(Refusal::Exists));
        let told = Refusal::Configured("director.service.sealed".to_owned());
        assert_eq!(go(Change::DeleteService { key: configured }), Err(told));
        assert_eq!(go(Change::Zero { key: Some(configured) }), Ok(()));
        assert_eq!(go(Change::Zero { key: Some(key("192.0.2.1:1")) }), Err(Refusal::NoService));
        let server = |text, weight| dest(text, weight);
        assert_eq!(go(Change::AddServer { key: web, server: server("10.0.0.1:80", 3) }), Ok(()));
        assert_eq!(go(Change::AddServer { key: web, server: server("10.0.0.1:80", 4) }), Err(Refusal::Exists));
        assert_eq!(go(Change::AddServer { key: web, server: server("224.0.0.1:80", 1) }), Err(Refusal::Invalid));
        assert_eq!(go(Change::AddServer { key: web, server: server("[2001:db8::1]:80", 1) }), Err(Refusal::Invalid));
        let overdone = Dest { upper: 5, lower: 6, ..server("10.0.0.2:80", 1) };
        assert_eq!(go(Change::AddServer { key: web, server: overdone }), Err(Refusal::Range));
        assert_eq!(go(Change::AddServer { key: web, server: server("10.0.0.2:80", 1) }), Ok(()));
        assert_eq!(go(Change::EditServer { key: web, server: server("10.0.0.9:80", 1) }), Err(Refusal::NotFound));
        assert_eq!(go(Change::EditServer { key: web, server: server("10.0.0.1:80", 0) }), Ok(()));
        let gone = |text: &str| Change::DeleteServer { key: web, server: text.parse().unwrap() };
        assert_eq!(go(gone("10.0.0.9:80")), Err(Refusal::NotFound));
        assert_eq!(go(gone("10.0.0.2:80")), Ok(()));
        assert_eq!(own.services[0].servers, [OwnServer { dest: dest("10.0.0.1:80", 0), share: 3 }]);
        let json = serde_json::to_string(&own).unwrap();
        assert_eq!(serde_json::from_str::<Own>(&json).unwrap(), own);
        assert_eq!(own.change(&Change::Clear, &beside), Ok(()));
        assert!(own.services.is_empty());
    }

    #[test]
    fn a_service_that_the_configuration_has_too_can_only_be_deleted() {
        let web = key("192.0.2.10:80");
        let free = Beside { configured: &|_| None, servers: 0, services: 0 };
        let taken = Beside { configured: &|_| Some("director.service.web".to_owned()), servers: 0, services: 1 };
        let mut own = Own::default();
        own.change(&Change::AddService { key: web, conduct: wanted("rr") }, &free).unwrap();
        let add = Change::AddServer { key: web, server: dest("10.0.0.1:80", 1) };
        assert_eq!(own.change(&add, &taken), Err(Refusal::Configured("director.service.web".to_owned())));
        assert_eq!(own.change(&Change::DeleteService { key: web }, &taken), Ok(()));
        assert!(own.services.is_empty());
    }

    #[test]
    fn one_packet_by_mark_and_nat_has_no_way_back() {
        let beside = Beside { configured: &|_| None, servers: 0, services: 0 };
        let mark = ServiceKey::Mark { mark: 7, family: Family::Ipv4 };
        let mut single = wanted("rr");
        single.conduct.one_packet = true;
        let mut own = Own::default();
        own.change(&Change::AddService { key: mark, conduct: single }, &beside).unwrap();
        let nat = dest("10.0.0.1:80", 1);
        let refused = own.change(&Change::AddServer { key: mark, server: nat.clone() }, &beside);
        assert!(matches!(refused, Err(Refusal::Failed(_))), "{refused:?}");
        let direct = Dest { method: Method::Dr, ..nat };
        assert_eq!(own.change(&Change::AddServer { key: mark, server: direct }, &beside), Ok(()));
    }

    #[test]
    fn a_timeout_of_0_leaves_what_there_is() {
        let beside = Beside { configured: &|_| None, servers: 0, services: 0 };
        let mut own = Own::default();
        own.change(&Change::Timeouts(FlowTimeouts { tcp: 0, tcpfin: 0, udp: 60 }), &beside).unwrap();
        own.change(&Change::Timeouts(FlowTimeouts { tcp: 100, tcpfin: 0, udp: 0 }), &beside).unwrap();
        let all = timeouts(FlowTimeouts::default(), own.timeouts);
        assert_eq!(all, FlowTimeouts { tcp: 100, tcpfin: 120, udp: 60 });
    }
}
