//! What packets of servers of one-packet services get as their source.

use std::collections::BTreeMap;

use super::{LeftOut, Present, Wanted, Write};
use crate::director::abi;
use crate::model::director::ServiceKey;

impl Present {
    /// Each such server answers for its service.
    pub(super) fn answers(&mut self, wanted: &Wanted, writes: &mut Vec<Write>, left_out: &mut Vec<LeftOut>) {
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
                if let Some((_, (_, other))) = all.get_key_value(&order(&key)) {
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
                all.insert(order(&key), (key, answer));
            }
        }
        for (place, (key, answer)) in &all {
            if self.answers.get(place).is_none_or(|(_, known)| known != answer) {
                writes.push(Write::Answer { key: *key, answer: *answer });
            }
        }
        for (place, (key, _)) in &self.answers {
            if !all.contains_key(place) {
                writes.push(Write::DeleteAnswer { key: *key });
            }
        }
        self.answers = all;
    }
}

/// Address, family, port, protocol.
pub(super) type AnswerOrder = ([u8; 16], u8, [u8; 2], u8);

pub(super) fn order(key: &abi::AnswerKey) -> AnswerOrder {
    (key.address, key.family, key.port, key.protocol)
}
