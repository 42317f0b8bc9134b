//! Keys of session tickets (RFC 5077, RFC 8446 §4.6.1): one in use, the ones before it still good.
//!
//! All workers and listeners take their keys from one ring of secrets, so that a session is taken up again
//! wherever its client lands, and after a restart, since the ring is kept in the state folder. From each
//! secret every listener derives a key of its own, by its name and by whom it lets in: a ticket of one
//! listener says nothing to another, nor to itself once it demands other clients (as CVE-2025-23419).
//!
//! A ticket is `name (16) | nonce (12) | AES-256-GCM of the session, with the name`.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use aws_lc_rs::rand;
use rustls::server::ProducesTickets;

use super::pem::unix;
use crate::model::Limits;

/// A new secret comes into use after this time. A ticket is good while its secret is kept: one to three times as long.
pub const TURN: Duration = Duration::from_secs(12 * 3600);
/// Secrets that are kept, the one in use among them.
const KEPT: usize = 3;
const SECRET: usize = 32;
const NAME: usize = 16;
const NONCE: usize = 12;

/// Secrets, the newest first, never none.
#[derive(Debug)]
pub struct Ring {
    secrets: ArcSwap<Vec<Secret>>,
    file: Mutex<Option<Kept>>,
}

#[derive(Clone, PartialEq, Eq)]
struct Secret {
    /// Seconds since 1970.
    made: i64,
    bytes: [u8; SECRET],
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secret").field("made", &self.made).finish_non_exhaustive()
    }
}

/// Where the ring is kept.
#[derive(Debug)]
struct Kept {
    path: PathBuf,
    /// When it was written, as far as it is known here: another Reeve may share it.
    seen: Option<SystemTime>,
}

impl Default for Ring {
    fn default() -> Ring {
        Ring::new(SystemTime::now())
    }
}

impl Ring {
    /// A ring of one random secret.
    pub fn new(now: SystemTime) -> Ring {
        Ring { secrets: ArcSwap::from_pointee(vec![Secret::random(now)]), file: Mutex::default() }
    }

    /// Goes on with what `folder` has kept, and keeps it there from now on.
    ///
    /// # Errors
    /// When the file can be neither read nor written: the ring then stays what it is.
    pub fn keep_in(&self, folder: &Path, now: SystemTime) -> io::Result<()> {
        let mut file = self.lock();
        let mut kept = Kept { path: folder.join("ticket-keys"), seen: None };
        self.take_up(&mut kept, now)?;
        let result = self.write(&mut kept);
        *file = Some(kept);
        result
    }

    /// The secrets as lines of text, for a process that goes on with them.
    pub fn handed_on(&self) -> Vec<String> {
        self.secrets.load().iter().map(|secret| secret.line().trim_end().to_owned()).collect()
    }

    /// Goes on with another process's secrets, where any of them is good.
    pub fn go_on_with(&self, lines: &[String], now: SystemTime) {
        self.put(lines.iter().filter_map(|line| Secret::read(line)).collect(), now);
    }

    /// Makes a new secret when its time has come. Called every second or so.
    ///
    /// # Errors
    /// When the file cannot be written; the secrets are in use all the same.
    pub fn turn(&self, now: SystemTime) -> io::Result<()> {
        let mut file = self.lock();
        if let Some(kept) = file.as_mut()
            && written(&kept.path) != kept.seen
        {
            self.take_up(kept, now)?;
        }
        let secrets = self.secrets.load();
        let age = secrets.first().map_or(i64::MAX, |newest| unix(now).saturating_sub(newest.made));
        // A clock that was set back makes none old.
        if age < TURN.as_secs() as i64 {
            return Ok(());
        }
        let mut turned = vec![Secret::random(now)];
        turned.extend(secrets.iter().take(KEPT - 1).cloned());
        self.secrets.store(Arc::new(turned));
        tracing::debug!("session tickets have a new key");
        file.as_mut().map_or(Ok(()), |kept| self.write(kept))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Kept>> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts what the file has in place of the own secrets, where it has any that are not too old.
    fn take_up(&self, kept: &mut Kept, now: SystemTime) -> io::Result<()> {
        kept.seen = written(&kept.path);
        let mut bytes = Vec::new();
        match File::open(&kept.path) {
            Ok(file) => drop(file.take(4096).read_to_end(&mut bytes)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        }
        // Whatever a broken disk or hand has left there: lines that are whole are good, and the file is written anew.
        let text = String::from_utf8_lossy(&bytes);
        let found: Vec<Secret> = text.lines().filter_map(Secret::read).collect();
        if found.is_empty() || found.len() < text.lines().count() {
            tracing::warn!(
                file = %kept.path.display(), good = found.len(),
                "the file of session keys is damaged: what is whole in it is used, and it is written anew"
            );
        }
        self.put(found, now);
        Ok(())
    }

    /// Puts these in place of the own ones, where any is not too old.
    fn put(&self, mut found: Vec<Secret>, now: SystemTime) {
        let oldest = unix(now).saturating_sub(KEPT as i64 * TURN.as_secs() as i64);
        found.retain(|secret| (oldest..=unix(now)).contains(&secret.made));
        found.sort_by_key(|secret| std::cmp::Reverse(secret.made));
        found.truncate(KEPT);
        if !found.is_empty() {
            self.secrets.store(Arc::new(found));
        }
    }

    /// Writes a new file and puts it in the place of the old one: never half of it is there.
    fn write(&self, kept: &mut Kept) -> io::Result<()> {
        let secrets = self.secrets.load();
        let text: String = secrets.iter().map(Secret::line).collect();
        let draft = kept.path.with_extension(format!("new-{}", std::process::id()));
        let _ = std::fs::remove_file(&draft);
        // Readable by its owner alone: who has a secret can open what was recorded under TLS 1.2.
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&draft, &kept.path)?;
        kept.seen = written(&kept.path);
        Ok(())
    }
}

fn written(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|data| data.modified()).ok()
}

impl Secret {
    fn random(now: SystemTime) -> Secret {
        let mut bytes = [0; SECRET];
        // aws-lc aborts the process rather than go without the kernel's randomness.
        let filled = rand::fill(&mut bytes);
        debug_assert!(filled.is_ok());
        Secret { made: unix(now), bytes }
    }

    /// `1764324000 9f86d081...`
    fn line(&self) -> String {
        let hex: String = self.bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{} {hex}\n", self.made)
    }

    fn read(line: &str) -> Option<Secret> {
        let (made, hex) = line.split_once(' ')?;
        let mut bytes = [0; SECRET];
        if hex.len() != 2 * SECRET || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).ok()?;
        }
        Some(Secret { made: made.parse().ok()?, bytes })
    }
}

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
        let keys = Keys::derived(ring.secrets.load_full(), policy);
        Ticketer { ring, policy, keys: ArcSwap::from_pointee(keys) }
    }

    fn keys(&self) -> Arc<Keys> {
        let keys = self.keys.load_full();
        let secrets = self.ring.secrets.load();
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

impl ProducesTickets for Ticketer {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        TURN.as_secs() as u32
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
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn at(hours: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 * 3600 + hours * 3600)
    }

    fn ticketer(ring: &Arc<Ring>, policy: u8) -> Ticketer {
        Ticketer::new(ring.clone(), Policy::of(&[policy; 32]))
    }

    #[test]
    fn a_ticket_is_good_until_its_secret_goes() {
        let ring = Arc::new(Ring::new(at(0)));
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
        let ring = Arc::new(Ring::new(at(0)));
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

    #[test]
    fn the_ring_outlives_the_process_and_is_nobody_elses() {
        let folder = std::env::temp_dir().join(format!("reeve-ring-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let first = Arc::new(Ring::new(at(0)));
        first.keep_in(&folder, at(0)).unwrap();
        first.turn(at(12)).unwrap();
        let ticket = ticketer(&first, 1).encrypt(b"session").unwrap();
        let file = folder.join("ticket-keys");
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

        let second = Arc::new(Ring::new(at(13)));
        second.keep_in(&folder, at(13)).unwrap();
        assert_eq!(ticketer(&second, 1).decrypt(&ticket).as_deref(), Some(&b"session"[..]));
        assert_eq!(second.secrets.load().len(), 2);

        // A damaged line is left out, what is too old forgotten.
        let good = std::fs::read(&file).unwrap();
        for (text, left) in [
            ([b"nonsense\n", &good[..]].concat(), 2),
            (good[..good.len() - 9].to_vec(), 1),
            (good[..9].to_vec(), 1),
            (Vec::new(), 1),
            (vec![0xff; 9000], 1),
        ] {
            std::fs::write(&file, &text).unwrap();
            let third = Arc::new(Ring::new(at(20)));
            third.keep_in(&folder, at(20)).unwrap();
            assert_eq!(third.secrets.load().len(), left);
            let whole = std::fs::read_to_string(&file).unwrap();
            assert_eq!(whole.lines().filter_map(Secret::read).count(), left, "it is written anew");
        }
        std::fs::write(&file, &good).unwrap();

        // Another process can go on with it without a file.
        let heir = Arc::new(Ring::new(at(13)));
        heir.go_on_with(&first.handed_on(), at(13));
        assert_eq!(ticketer(&heir, 1).decrypt(&ticket).as_deref(), Some(&b"session"[..]));
        heir.go_on_with(&["nonsense".to_owned()], at(13));
        assert_eq!(heir.secrets.load().len(), 2);
        let late = Arc::new(Ring::new(at(60)));
        late.keep_in(&folder, at(60)).unwrap();
        assert_eq!(ticketer(&late, 1).decrypt(&ticket), None);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
