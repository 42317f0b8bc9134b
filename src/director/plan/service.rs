//! One service: its servers' numbers, its list and table, and what is written of them.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use super::numbers::Ids;
use super::{GENERATIONS, Present, SETTLES, Server, Service, WantedService, Write, has_udp};
use crate::director::abi::{self, Position};
use crate::director::own::port_in_tables;
use crate::director::records::{method, record_of, stands, start, table};
use crate::director::tables::Wrr;
use crate::model::director::{OnDown, Scheduler, ServiceKey};

impl Present {
    /// Works out what is to be written so that one service is as it is wanted. Room first: one without it stays as it was.
    pub(super) fn service(
        &mut self,
        wanted: &WantedService,
        position: &dyn Fn(u32) -> u64,
        now: Instant,
        ids: &mut Ids,
        writes: &mut Vec<Write>,
    ) -> Result<(), String> {
        let before = self.services.get(&wanted.key).cloned();
        let (id, own) = match (&before, self.ghosts.get(&wanted.key)) {
            (Some(service), _) => (service.record.id, service.own.clone()),
            (None, Some(ghost)) => ghost.clone(),
            (None, None) => (ids.service(self.room.services)?, Vec::new()),
        };
        let made = self.match_servers(id, wanted, &own, ids)?;
        let list: Vec<u32> = made.iter().map(|made| made.id).collect();
        let table = table(wanted, &list);
        let mut after = Service { record: record_of(wanted, id), list, table, own };
        self.place(before.as_ref(), &mut after, now)?;
        let old_weights = before.as_ref().map(|before| self.weights(&before.list)).unwrap_or_default();
        // IPVS begins wrr's round at the head again when a server is changed in any way.
        let limited = self.limits_change(&made);
        if before.is_none() {
            self.ghosts.remove(&wanted.key);
            writes.push(Write::State { service: id });
        }
        self.put_servers(&wanted.key, &made, &mut after.own, writes);
        let new_weights = self.weights(&after.list);
        write_slots(before.as_ref(), &after, writes);
        let wrr = wanted.conduct.scheduler == Scheduler::Wrr;
        if wrr {
            let levels = Wrr::of(new_weights.iter().map(|(_, weight)| *weight));
            (after.record.step, after.record.top) = (levels.step, levels.top);
        }
        let moved = wrr && (old_weights != new_weights || limited);
        if let Some(known) = self.services.get_mut(&wanted.key)
            && !moved
            && bare(&known.record) == bare(&after.record)
        {
            // Its servers may have come and gone off the list all the same.
            known.own = after.own;
            return Ok(());
        }
        // A number that begins anew stands at generation 0.
        after.record.generation = before.as_ref().map_or(1, |before| (before.record.generation + 1) % GENERATIONS);
        let stood = before.as_ref().map(|before| stands(&before.record, position(id)));
        let start = start(wanted, before.as_ref(), stood, &after.list, &old_weights, &new_weights);
        after.record.start = Position { generation: after.record.generation, ..start }.pack();
        writes.push(Write::Service { key: wanted.key, service: after.record });
        if let Some(before) = &before {
            self.leave(before, &after, wanted, now, writes);
        }
        self.services.insert(wanted.key, after);
        Ok(())
    }

    /// Where list and table are to be: where they were, if they are as they were.
    fn place(&mut self, before: Option<&Service>, after: &mut Service, now: Instant) -> Result<(), String> {
        let full = || {
            "there is no room for its servers in the table of lists: use fewer services of mh, which take 4,093 places each".to_owned()
        };
        let record = &mut after.record;
        record.count = after.list.len() as u32;
        record.table_len = after.table.len() as u32;
        let same_list = before.filter(|before| before.list == after.list);
        record.list = match same_list {
            Some(before) => before.record.list,
            None => self.slots.allocate(record.count).ok_or_else(full)?,
        };
        record.table = match before.filter(|before| before.table == after.table) {
            Some(before) => before.record.table,
            None => match self.slots.allocate(record.table_len) {
                Some(at) => at,
                None => {
                    if same_list.is_none() {
                        self.slots.release(record.list, record.count, now);
                    }
                    return Err(full());
                }
            },
        };
        Ok(())
    }

    fn limits_change(&self, made: &[Made]) -> bool {
        let limits = |record: &abi::Server| (record.upper, record.lower);
        made.iter().any(|made| {
            let known = self.servers.get(&made.id).filter(|known| known.listed);
            known.is_some_and(|known| limits(&known.record) != limits(&made.record))
        })
    }

    /// New servers, and what has changed of the others.
    fn put_servers(&mut self, key: &ServiceKey, made: &[Made], own: &mut Vec<u32>, writes: &mut Vec<Write>) {
        for made in made {
            if made.fresh {
                writes.push(Write::Fresh { server: made.id });
                own.push(made.id);
            }
            let known = self.servers.get(&made.id);
            if known.is_none_or(|known| known.record != made.record) {
                writes.push(Write::Server { id: made.id, server: made.record });
            }
            if made.down && has_udp(key) && known.is_some_and(|known| !known.down) {
                writes.push(Write::Forget { server: made.id, all: false });
            }
            let server = Server { record: made.record, address: made.address, listed: true, down: made.down };
            self.servers.insert(made.id, server);
        }
    }

    /// What nobody points to any more, of lists, tables and servers.
    fn leave(
        &mut self,
        before: &Service,
        after: &Service,
        wanted: &WantedService,
        now: Instant,
        writes: &mut Vec<Write>,
    ) {
        if before.list != after.list {
            self.slots.release(before.record.list, before.record.count, now + SETTLES);
        }
        if before.table != after.table {
            self.slots.release(before.record.table, before.record.table_len, now + SETTLES);
        }
        for id in before.list.iter().filter(|id| !after.list.contains(id)) {
            // One whose method has changed has another number now; its flows go on as they began.
            let address = self.servers.get(id).map(|server| server.address);
            let addresses = after.list.iter().filter_map(|id| Some(self.servers.get(id)?.address));
            let stays = addresses.map(Some).any(|other| other == address);
            let on_down = if stays { OnDown::Drain } else { wanted.conduct.on_down };
            self.take_out(*id, on_down, has_udp(&wanted.key), writes);
        }
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
}

/// What of a record is the same until something changes.
fn bare(record: &abi::Service) -> abi::Service {
    abi::Service { generation: 0, start: 0, ..*record }
}

fn write_slots(before: Option<&Service>, after: &Service, writes: &mut Vec<Write>) {
    let record = &after.record;
    if before.is_none_or(|before| before.list != after.list) && record.count > 0 {
        writes.push(Write::Slots { at: record.list, servers: after.list.clone() });
    }
    if before.is_none_or(|before| before.table != after.table) && record.table_len > 0 {
        writes.push(Write::Slots { at: record.table, servers: after.table.clone() });
    }
}

/// A wanted server and its number.
struct Made {
    id: u32,
    fresh: bool,
    address: SocketAddr,
    down: bool,
    record: abi::Server,
}
