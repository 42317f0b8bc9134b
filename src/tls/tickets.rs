//! Keys of session tickets (RFC 5077, RFC 8446 §4.6.1): one in use, the ones before it still good.
//!
//! All workers and listeners take their keys from one ring of secrets, so that a session is taken up again
//! wherever its client lands, and after a restart, since the ring is kept in the state folder. From each
//! secret every listener derives a key of its own, by its name and by whom it lets in: a ticket of one
//! listener says nothing to another, nor to itself once it demands other clients (as CVE-2025-23419).
//!
//! A ticket is `name (16) | nonce (12) | AES-256-GCM of the session, with the name`.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use aws_lc_rs::rand;
use rustls::server::ProducesTickets;

use crate::model::Limits;
use crate::sys::secrets::{Manner, Ring, Secret};

/// A ticket is good while its secret is kept: one to three times as long as one is in use.
const SECRETS: Manner = Manner { file: "ticket-keys", turn: Duration::from_secs(12 * 3600), kept: 3 };

/// A ring of one random secret.
pub fn ring(now: SystemTime) -> Ring {
    Ring::new(SECRETS, now)
}

const NAME: usize = 16;
const NONCE: usize = 12;

/// The mark of a listener and of the clients it lets in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy([u8; 32]);

impl Policy {
    /// `hash` has 32 bytes.
    pub fn of(hash: &[u8]) -> Policy {
        let mut mark = [0; 32];
        mark.iter_mut().zip(hash).for_each(|(mark, byte)| *mark = *byte);
        Policy(mark)
    }
}

/// Makes and opens the tickets of one listener.
#[derive(Debug)]
pub struct Ticketer {
    ring: Arc<Ring>,
    policy: Policy,
    /// Derived once a turn of the ring.
    keys: ArcSwap<Keys>,
}

#[derive(Debug)]
struct Keys {
    of: Arc<Vec<Secret>>,
    all: Vec<Key>,
}

#[derive(Debug)]
struct Key {
    name: [u8; NAME],
    key: LessSafeKey,
}

impl Ticketer {
    pub fn new(ring: Arc<Ring>, policy: Policy) -> Ticketer {
        let keys = Keys::derived(ring.secrets(), policy);
        Ticketer { ring, policy, keys: ArcSwap::from_pointee(keys) }
    }

    fn keys(&self) -> Arc<Keys> {
        let keys = self.keys.load_full();
        let secrets = self.ring.secrets();
        if Arc::ptr_eq(&keys.of, &secrets) {
            return keys;
        }
        let keys = Arc::new(Keys::derived(Arc::clone(&secrets), self.policy));
        self.keys.store(Arc::clone(&keys));
        keys
    }
}

impl Keys {
    fn derived(of: Arc<Vec<Secret>>, policy: Policy) -> Keys {
        let all = of.iter().filter_map(|secret| Key::derived(secret, policy)).collect();
        Keys { of, all }
    }
}

/// How much HKDF is to give.
struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

impl Key {
    /// `None` never: the lengths are right.
    fn derived(secret: &Secret, policy: Policy) -> Option<Key> {
        let mut bytes = [0; NAME + 32];
        let extracted = Salt::new(HKDF_SHA256, b"reeve session tickets").extract(&secret.bytes);
        let length = Length(bytes.len());
        extracted.expand(&[&policy.0], length).and_then(|out| out.fill(&mut bytes)).ok()?;
        let (name, key) = bytes.split_at(NAME);
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).ok()?);
        Some(Key { name: name.try_into().ok()?, key })
    }
}

/// What of a ticket of ours no other one has.
pub fn nonce(ticket: &[u8]) -> Option<&[u8]> {
    ticket.get(NAME..NAME + NONCE)
}

impl ProducesTickets for Ticketer {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        SECRETS.turn.as_secs() as u32
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        if plain.len() > Limits::TLS_TICKET {
            return None;
        }
        let keys = self.keys();
        let Key { name, key } = keys.all.first()?;
        let mut nonce = [0; NONCE];
        rand::fill(&mut nonce).ok()?;
        let mut sealed = plain.to_vec();
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(name), &mut sealed).ok()?;
        Some([&name[..], &nonce, &sealed].concat())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_at_checked(NAME)?;
        let (nonce, sealed) = rest.split_at_checked(NONCE)?;
        let keys = self.keys();
        let Key { name, key } = keys.all.iter().find(|key| key.name == name)?;
        let mut opened = sealed.to_vec();
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let length = key.open_in_place(nonce, Aad::from(name), &mut opened).ok()?.len();
        opened.truncate(length);
        Some(opened)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hours: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 * 3600 + hours * 3600)
    }

    fn ticketer(ring: &Arc<Ring>, policy: u8) -> Ticketer {
        Ticketer::new(ring.clone(), Policy::of(&[policy; 32]))
    }

    #[test]
    fn a_ticket_is_good_until_its_secret_goes() {
        let ring = Arc::new(super::ring(at(0)));
        let ticketer = ticketer(&ring, 1);
        let ticket = ticketer.encrypt(b"session").unwrap();
        for hours in [0, 11, 12, 13, 24, 35] {
            ring.turn(at(hours)).unwrap();
            assert_eq!(ticketer.decrypt(&ticket).as_deref(), Some(&b"session"[..]), "after {hours} h");
        }
        assert_ne!(ticketer.encrypt(b"session").unwrap()[..NAME], ticket[..NAME], "a new one has a new key");
        ring.turn(at(36)).unwrap();
        assert_eq!(ticketer.decrypt(&ticket), None);
    }

    #[test]
    fn a_ticket_is_nothing_to_others_and_whole_or_nothing() {
        let ring = Arc::new(super::ring(at(0)));
        let (own, other) = (ticketer(&ring, 1), ticketer(&ring, 2));
        let ticket = own.encrypt(b"session").unwrap();
        assert_eq!(other.decrypt(&ticket), None);
        assert_ne!(own.encrypt(b"session").unwrap(), ticket, "no nonce comes twice");
        for at in 0..ticket.len() {
            let mut bent = ticket.clone();
            bent[at] ^= 1;
            assert_eq!(own.decrypt(&bent), None, "byte {at}");
            assert_eq!(own.decrypt(&ticket[..at]), None, "cut at {at}");
        }
        assert_eq!(own.encrypt(&vec![0; Limits::TLS_TICKET + 1]), None);
    }
}
