//! Explicit flows, that is, media: put in and taken out as sessions come and go, and counted for them.
//!
//! They live as long as the process, which alone knows of which session they are: it takes them out when it ends, and
//! the next one what it finds of one that could not.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::abi;
use super::kernel::Kernel;
use crate::model::director::{Director, Family};
use crate::state::director::{Carried, Explicit, NotPut, Tally, Tuple};

#[derive(Debug, Default)]
pub struct Flows {
    own: HashMap<abi::FlowKey, Arc<Tally>>,
    /// By family, IPv4 first: an interface that forwards nothing, so that the kernel knows no way for its packets.
    closed: [Option<Arc<str>>; 2],
}

impl Flows {
    /// Takes out what an earlier process has left.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn begin(kernel: &Kernel, director: &Director) -> io::Result<Flows> {
        let left = kernel.explicit()?;
        for (key, _) in &left {
            kernel.take_flow(key)?;
        }
        if !left.is_empty() {
            tracing::info!(
                flows = left.len(),
                "director: media flows that an earlier process, or an earlier try, has left are taken out"
            );
        }
        let mut flows = Flows::default();
        flows.see_forwarding(director);
        Ok(flows)
    }

    /// Looks whether packets that arrive may be forwarded at all.
    pub fn see_forwarding(&mut self, director: &Director) {
        for (closed, family) in self.closed.iter_mut().zip(["ipv4", "ipv6"]) {
            let off = |name: &&Arc<str>| {
                let path = format!("/proc/sys/net/{family}/conf/{name}/forwarding");
                std::fs::read_to_string(path).is_ok_and(|text| text.trim() == "0")
            };
            *closed = director.interfaces.iter().find(off).cloned();
        }
    }

    /// Puts one in. `local` are the addresses of this machine.
    ///
    /// # Errors
    /// In words.
    pub fn put(
        &mut self,
        kernel: &Kernel,
        flow: &Explicit,
        tally: Arc<Tally>,
        local: &HashSet<IpAddr>,
    ) -> Result<(), NotPut> {
        let key = key(&flow.comes).map_err(NotPut::Unfit)?;
        let leaves = Tuple { source: flow.leaves_from, destination: flow.leaves_to, ..flow.comes };
        let to = self::key(&leaves).map_err(NotPut::Unfit)?;
        if to.family != key.family {
            return Err(NotPut::Unfit("the two sides of a flow are of two families".to_owned()));
        }
        // Such a packet would have to go up the stack, which takes its source for a forged one.
        if local.contains(&flow.leaves_to.ip()) {
            return Err(NotPut::Unfit(format!("{} is this machine itself", flow.leaves_to.ip())));
        }
        let (at, setting) = match flow.comes.family() {
            Family::Ipv4 => (0, "net.ipv4.ip_forward=1"),
            Family::Ipv6 => (1, "net.ipv6.conf.all.forwarding=1"),
        };
        if let Some(interface) = &self.closed[at] {
            return Err(NotPut::Nobody(format!("{interface} forwards nothing: sysctl {setting}")));
        }
        let value = abi::Flow {
            source: to.source,
            destination: to.destination,
            source_port: to.source_port,
            destination_port: to.destination_port,
            ..abi::Flow::default()
        };
        kernel.put_flow(&key, &value).map_err(|error| match error.kind() {
            io::ErrorKind::StorageFull => NotPut::Nobody("the table of explicit flows is full".to_owned()),
            _ => NotPut::Nobody(error.to_string()),
        })?;
        if let Some(before) = self.own.insert(key, tally) {
            before.leave();
        }
        Ok(())
    }

    /// Takes one out; what it has carried.
    ///
    /// # Errors
    /// In words.
    pub fn take(&mut self, kernel: &Kernel, of: &Tuple) -> Result<Option<Carried>, String> {
        let key = key(of)?;
        let flow = kernel.take_flow(&key).map_err(|error| error.to_string())?;
        let carried = flow.map(|flow| carried(&flow));
        if let Some(tally) = self.own.remove(&key) {
            ended(&tally, carried);
        }
        Ok(carried)
    }

    /// Tells everybody what was carried, and takes out what its stream did not: the session is over.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn look(&mut self, kernel: &Kernel) -> io::Result<()> {
        if self.own.is_empty() {
            return Ok(());
        }
        let now = unix_seconds();
        for (key, flow) in kernel.explicit()? {
            if let Some(tally) = self.own.get(&key) {
                tally.tell(carried(&flow), now);
            }
        }
        let over: Vec<abi::FlowKey> =
            self.own.iter().filter(|(_, tally)| tally.is_over()).map(|(key, _)| *key).collect();
        for key in over {
            let flow = kernel.take_flow(&key)?;
            if let Some(tally) = self.own.remove(&key) {
                ended(&tally, flow.map(|flow| carried(&flow)));
            }
        }
        Ok(())
    }

    /// Takes all out.
    pub fn leave(&mut self, kernel: &Kernel) {
        let mut fault = None;
        for (key, tally) in self.own.drain() {
            let flow = kernel.take_flow(&key);
            if let Err(error) = &flow {
                fault.get_or_insert(error.to_string());
            }
            ended(&tally, flow.ok().flatten().map(|flow| carried(&flow)));
        }
        if let Some(error) = fault {
            tracing::warn!(error, "director: media flows stay in the kernel");
        }
    }
}

impl Drop for Flows {
    /// Whoever tallies has to know, or nobody would carry on.
    fn drop(&mut self) {
        self.own.values().for_each(|tally| tally.leave());
    }
}

fn ended(tally: &Tally, carried: Option<Carried>) {
    if let Some(carried) = carried {
        tally.tell(carried, unix_seconds());
    }
    tally.leave();
}

fn carried(flow: &abi::Flow) -> Carried {
    Carried { packets: flow.packets, bytes: flow.bytes }
}

fn unix_seconds() -> u32 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u32::try_from(now.as_secs()).unwrap_or(u32::MAX)
}

fn key(tuple: &Tuple) -> Result<abi::FlowKey, String> {
    let (source, family) = abi::address(tuple.source.ip());
    let (destination, other) = abi::address(tuple.destination.ip());
    if family != other {
        return Err(format!("{} and {} are of two families", tuple.source, tuple.destination));
    }
    let protocol = match tuple.protocol.number() {
        protocol @ (abi::TCP | abi::UDP) => protocol,
        _ => return Err("a flow is of TCP or UDP".to_owned()),
    };
    Ok(abi::FlowKey {
        source,
        destination,
        source_port: tuple.source.port().to_be_bytes(),
        destination_port: tuple.destination.port().to_be_bytes(),
        protocol,
        family,
        zero: [0; 2],
    })
}
