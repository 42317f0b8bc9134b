//! Numbers of servers and services: which are free.

use std::collections::BTreeSet;

use super::Present;

/// Numbers that can be given away.
pub(super) struct Ids {
    servers: BTreeSet<u32>,
    services: BTreeSet<u32>,
    pub(super) next_server: u32,
    pub(super) next_service: u32,
}

impl Ids {
    pub(super) fn of(present: &Present) -> Ids {
        let of_servers = present.servers.values().map(|server| server.record.service);
        Ids {
            servers: present.servers.keys().copied().collect(),
            services: present.services.values().map(|service| service.record.id).chain(of_servers).collect(),
            next_server: present.next_server,
            next_service: present.next_service,
        }
    }

    pub(super) fn server(&mut self, most: u32) -> Result<u32, String> {
        free(&mut self.servers, &mut self.next_server, most).ok_or_else(|| {
            format!(
                "there is no room for more than {most} servers; flows of servers that left take theirs until they end"
            )
        })
    }

    pub(super) fn service(&mut self, most: u32) -> Result<u32, String> {
        free(&mut self.services, &mut self.next_service, most)
            .ok_or_else(|| format!("there is no room for more than {most} services"))
    }

    pub(super) fn give_back(&mut self, servers: &[u32]) {
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
