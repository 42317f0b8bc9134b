//! The director at work: the kernel's tables, what is known to be in them, and what is done with them.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::abi;
use super::explicit::Flows as Explicits;
use super::kernel::Kernel;
use super::observe::{self, Beside as Known, Watch};
use super::own::{self, Beside, Own, OwnServer, OwnService};
use super::plan::{self, LeftOut, Present, Wanted, WantedServer};
use super::wanted::{self, Adopted, Here};
use super::{records, sweep};
use crate::model::director::{Director, Method, ServiceKey};
use crate::state::Farm;
use crate::state::director::{Carried, Change, Explicit, Flows, NotPut, Refusal, Table, Tally, Tuple, Unavailable};
use crate::sys::bpf::Fault;
use crate::sys::interfaces;

/// After something that was left out, or an interface that is not there.
const AGAIN: Duration = Duration::from_secs(1);
/// So long what an earlier process left counts for servers that are not checked or resolved yet: a name's first answer takes up to
/// 5 s, and checks come every few.
const GRACE: Duration = Duration::from_secs(30);

pub struct On {
    kernel: Kernel,
    present: Present,
    watch: Watch,
    director: Director,
    wanted: Wanted,
    names: HashMap<(ServiceKey, SocketAddr), Arc<str>>,
    left_out: Vec<LeftOut>,
    /// What an earlier process left, until when at the latest it counts.
    adopted: Option<(Instant, Adopted)>,
    /// This machine's addresses, as they were known last.
    local: HashSet<IpAddr>,
    /// Why the programs are not at all of the interfaces.
    unattached: Option<String>,
    /// The interfaces' numbers, when the programs were put there.
    indexes: Vec<Option<u32>>,
    explicit: Explicits,
    /// There were explicit flows: packets are looked up in their table.
    looks_for_flows: bool,
    /// Numbers that were free at the last sweep.
    ended: BTreeSet<u32>,
    again: Instant,
    broken: Option<String>,
}

impl On {
    /// Takes what is in the tables for its own.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn new(kernel: Kernel, director: &Director) -> io::Result<On> {
        let present = kernel.present()?;
        let explicit = Explicits::begin(&kernel, director)?;
        let adopted = Some((Instant::now() + GRACE, present.listed()));
        Ok(On {
            present,
            watch: Watch::default(),
            director: director.clone(),
            wanted: Wanted::default(),
            names: HashMap::new(),
            left_out: Vec::new(),
            adopted,
            local: HashSet::new(),
            unattached: None,
            indexes: Vec::new(),
            explicit,
            looks_for_flows: false,
            ended: BTreeSet::new(),
            again: Instant::now() + AGAIN,
            broken: None,
            kernel,
        })
    }

    /// The services of the tables that the configuration has not, as if they had been added at run time.
    pub fn added(&self) -> Own {
        let others =
            self.present.services().iter().filter(|(key, _)| self.director.services.iter().all(|it| it.key != **key));
        let of = |(key, service): (&ServiceKey, &plan::Service)| {
            let servers = service.list.iter().filter_map(|id| records::dest_of(self.present.server(*id)?));
            let servers = servers.map(|dest| OwnServer { share: dest.weight, dest }).collect();
            Some(OwnService { key: *key, conduct: records::conduct_of(&service.record, key.family())?, servers })
        };
        Own { services: others.filter_map(of).collect(), ..Own::default() }
    }

    pub fn director(&self) -> &Director {
        &self.director
    }

    /// When something is to be tried once more.
    pub fn again(&self) -> Option<Instant> {
        Some(self.again)
    }

    /// What made the tables unsure, once.
    pub fn broken(&mut self) -> Option<String> {
        self.broken.take()
    }

    /// Another configuration.
    pub fn configure(&mut self, director: &Director, farm: &Farm, own: &Own) {
        let other = self.director.interfaces != director.interfaces;
        let (flows, pin) = (self.director.flows, self.director.pin.clone());
        // These two are the tables' own, until a restart.
        self.director = Director { flows, pin, ..director.clone() };
        self.shadowed(own);
        self.update(farm, own);
        if other {
            self.attach();
        }
    }

    /// Says which services were added at run time and now stand in the configuration, which goes before them.
    pub fn shadowed(&self, own: &Own) {
        for service in self.director.services.iter().filter(|it| own.services.iter().any(|own| own.key == it.key)) {
            tracing::warn!(
                "director: {} was added at run time too: [director.service.{}] goes before it; `ipvsadm -D` forgets the other",
                service.key,
                service.name
            );
        }
    }

    /// Puts the programs at the interfaces.
    pub fn attach(&mut self) {
        self.indexes = self.director.interfaces.iter().map(|name| interfaces::index(name)).collect();
        if self.director.interfaces.is_empty() {
            tracing::warn!("director: no packet arrives: [director] interfaces names none");
        }
        let failed = self.kernel.attach(&self.director.interfaces).err().map(|fault| fault.to_string());
        if failed != self.unattached {
            match &failed {
                Some(why) => tracing::error!("director: {why}; the other interfaces are served"),
                None => tracing::info!(interfaces = ?self.director.interfaces, "director: at its interfaces"),
            }
        } else if failed.is_none() {
            tracing::info!(interfaces = ?self.director.interfaces, services = self.wanted.services.len(), "director: forwarding");
        }
        self.unattached = failed;
    }

    /// Interfaces that have come, and what had no room.
    pub fn try_again(&mut self, farm: &Farm, own: &Own) {
        self.again = Instant::now() + AGAIN;
        let indexes: Vec<Option<u32>> = self.director.interfaces.iter().map(|name| interfaces::index(name)).collect();
        if indexes != self.indexes {
            self.attach();
        }
        let no_way = |server: &WantedServer| server.method == Method::Tun && server.source.is_none();
        if !self.left_out.is_empty()
            || self.adopted.is_some()
            || self.wanted.services.iter().flat_map(|service| &service.servers).any(no_way)
        {
            self.update(farm, own);
        }
    }

    /// Writes what is different from what is wanted.
    pub fn update(&mut self, farm: &Farm, own: &Own) {
        match interfaces::addresses() {
            Ok(local) => self.local = local,
            Err(error) => {
                tracing::warn!(%error, "director: the addresses of this machine cannot be read: those known before count");
            }
        }
        self.adopted = self.adopted.take().filter(|(until, _)| *until > Instant::now());
        let (holds, unfit) = (Cell::new(false), RefCell::default());
        let adopted = self.adopted.as_ref().map(|(_, adopted)| adopted);
        let here = Here { local: &self.local, towards: &interfaces::towards, adopted, unfit: &unfit, holds: &holds };
        let mut wanted = wanted::gather(&farm.snapshot(), &self.director, own, &here);
        if !holds.get() {
            self.adopted = None;
        }
        if self.looks_for_flows {
            wanted.configuration.flags |= abi::CONFIG_FLOWS;
        }
        let kernel = &self.kernel;
        let (writes, mut left_out) = self.present.plan(&wanted, &|service| kernel.position(service), Instant::now());
        left_out.extend(unfit.take());
        let count = writes.len();
        let written = self.kernel.write(writes).and_then(|forget| sweep::forget(&mut self.kernel, &forget));
        match written {
            Ok(forgotten) if count > 0 => tracing::debug!(writes = count, forgotten, "director: updated"),
            Ok(_) => {}
            Err(error) => self.broken = Some(format!("a table could not be written: {error}")),
        }
        if left_out != self.left_out {
            for LeftOut { key, why } in &left_out {
                tracing::error!("director: {key} is not as it is wanted: {why}");
            }
        }
        self.left_out = left_out;
        let servers = wanted.services.iter().flat_map(|service| {
            service.servers.iter().filter_map(|server| Some(((service.key, server.address), server.name.clone()?)))
        });
        self.names = servers.collect();
        self.wanted = wanted;
    }

    /// Carries out changes of services that were added at run time; an answer for each.
    pub fn change(&mut self, changes: &[Change], own: &mut Own, farm: &Farm) -> Vec<Result<(), Refusal>> {
        let before = own.clone();
        let left_before = self.left_out.clone();
        let services = self.director.services.len();
        let configured = self.wanted.services.iter().take(services).map(|service| service.servers.len()).sum();
        let mut results: Vec<_> = {
            let name = |key: &ServiceKey| {
                let found = self.director.services.iter().find(|service| service.key == *key);
                found.map(|service| format!("director.service.{}", service.name))
            };
            let beside = Beside { configured: &name, servers: configured, services };
            changes.iter().map(|change| own.change(change, &beside)).collect()
        };
        if *own != before {
            self.update(farm, own);
            // What cannot be had is refused, as a whole: it cannot be told which of them was one too many. What was so before is no
            // reason.
            let added = |left: &&LeftOut| {
                own.services.iter().any(|service| service.key == left.key) && !left_before.contains(left)
            };
            if let Some(LeftOut { key, why }) = self.left_out.iter().find(added) {
                let why = format!("{key}: {why}");
                *own = before;
                self.update(farm, own);
                return changes.iter().map(|_| Err(Refusal::Failed(why.clone()))).collect();
            }
        }
        for (change, result) in changes.iter().zip(&mut results) {
            if let (Change::Zero { key }, Ok(())) = (change, &result)
                && let Err(error) = self.zero(key.as_ref())
            {
                *result = Err(Refusal::Failed(error.to_string()));
            }
        }
        if let Some(why) = &self.broken {
            return changes.iter().map(|_| Err(Refusal::Failed(why.clone()))).collect();
        }
        results
    }

    fn zero(&mut self, key: Option<&ServiceKey>) -> io::Result<()> {
        let keys: Vec<ServiceKey> = match key {
            Some(key) => vec![*key],
            None => self.present.services().keys().copied().collect(),
        };
        keys.iter().try_for_each(|key| self.watch.zero(&self.kernel, &self.present, key))
    }

    fn known(&self, own: &Own) -> Known<'_> {
        let timeouts = own::timeouts(self.director.timeouts, own.timeouts);
        Known { director: &self.director, wanted: &self.wanted, names: &self.names, timeouts }
    }

    /// # Errors
    /// In words, when the kernel does not say.
    pub fn table(&mut self, own: &Own) -> Result<Table, Unavailable> {
        // Whoever asks may want to know of media next.
        self.explicit.look(&self.kernel).map_err(|error| Unavailable::Fault(error.to_string()))?;
        let table = observe::table(&self.kernel, &self.present, &self.watch, &self.known(own));
        table.map_err(|error| Unavailable::Fault(error.to_string()))
    }

    /// # Errors
    /// In words, when the kernel does not say.
    pub fn flows(&self, limit: usize, own: &Own) -> Result<Flows, Unavailable> {
        let flows = observe::flows(&self.kernel, &self.present, &self.known(own), limit);
        flows.map_err(|error| Unavailable::Fault(error.to_string()))
    }

    /// A look at what was counted.
    pub fn look(&mut self) {
        let looked = self.watch.look(&self.kernel, &self.present).and_then(|()| self.explicit.look(&self.kernel));
        if let Err(error) = looked {
            self.broken = Some(format!("what was counted cannot be read: {error}"));
        }
        self.explicit.see_forwarding(&self.director);
    }

    /// Takes out what is over its time, and gives numbers back.
    pub fn sweep(&mut self) {
        if let Err(error) = self.swept() {
            self.broken = Some(format!("the tables cannot be swept: {error}"));
        }
    }

    fn swept(&mut self) -> io::Result<()> {
        while sweep::over(&mut self.kernel)? {}
        let ended: BTreeSet<u32> = sweep::ended(&self.kernel, &self.present)?.into_iter().collect();
        // A program that began before the server left may still be at it: not in two sweeps.
        let free: Vec<u32> = ended.intersection(&self.ended).copied().collect();
        free.iter().for_each(|id| self.watch.carry(&self.kernel, &self.present, *id));
        let writes = self.present.free(&free);
        self.kernel.write(writes)?;
        self.ended = ended.into_iter().filter(|id| !free.contains(id)).collect();
        Ok(())
    }

    /// Puts an explicit flow in.
    ///
    /// # Errors
    /// In words.
    pub fn put(&mut self, flow: &Explicit, tally: Arc<Tally>, farm: &Farm, own: &Own) -> Result<(), NotPut> {
        self.explicit.put(&self.kernel, flow, tally, &self.local)?;
        // For good: whoever begins and ends a session all the time would have everything planned again each time.
        if !std::mem::replace(&mut self.looks_for_flows, true) {
            self.update(farm, own);
        }
        Ok(())
    }

    /// Takes one out; what it has carried.
    ///
    /// # Errors
    /// In words.
    pub fn take(&mut self, of: &Tuple) -> Result<Option<Carried>, String> {
        self.explicit.take(&self.kernel, of)
    }

    /// Takes out what lives as long as the process alone: explicit flows. Everything else stays, and goes on.
    pub fn leave(&mut self) {
        self.explicit.leave(&self.kernel);
    }

    /// Takes everything out of the kernel.
    ///
    /// # Errors
    /// The first thing that could not be.
    pub fn close(mut self) -> Result<(), Fault> {
        self.leave();
        self.kernel.close(&self.director.pin)
    }
}
