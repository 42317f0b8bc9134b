//! Where clients were: what `affinity` finds in a request becomes a server of the pool.
//!
//! Cookies that name the server are read with the keys in force; everything else is looked up in a `table`, which
//! pools of one group share. Both outlive reloads; `kept` is how they outlive the process. Servers go by their
//! names: another address, or a while out of the configuration, changes nothing.

pub mod kept;
pub mod learnt;
pub mod table;

use std::collections::HashMap;
use std::hash::Hasher;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use arc_swap::ArcSwap;
use siphasher::sip::SipHasher24;

use self::kept::Kept;
use self::learnt::{Finding, Found, Learnt};
use self::table::{Entry, Number, Table, Tag};
use super::names::Names;
use crate::affinity::token::{Key, LENGTH, ServerMark, Token};
use crate::model::affinity::Affinity;
use crate::model::pool::Pool;

/// What all pools have in common.
#[derive(Debug, Default)]
pub struct Affinities {
    tables: Mutex<Tables>,
    /// Of servers, without their pools.
    names: Names,
    /// What hashes are made with: nobody who does not know it can make two clients meet.
    hash: OnceLock<[u8; 16]>,
    /// Of cookies: the one in use first.
    keys: Mutex<Arc<Vec<Key>>>,
}

#[derive(Debug, Default)]
struct Tables {
    /// Those that some pool has, by its scope.
    live: HashMap<Arc<str>, Weak<Table>>,
    /// How long their entries live, in seconds.
    lives: HashMap<Arc<str>, u32>,
    /// Of servers of sealed TLS, by pool.
    learnt: HashMap<Arc<str>, Weak<ArcSwap<Learnt>>>,
    /// What another process knew, for tables that are not here yet.
    waiting: HashMap<String, Vec<Entry>>,
}

/// What a pool knows of where its clients were.
#[derive(Debug)]
pub struct LiveAffinity {
    config: Affinity,
    /// The group's name, else the pool's.
    scope: Arc<str>,
    table: Option<Arc<Table>>,
    hash: [u8; 16],
    /// Seconds.
    life: u32,
    /// Of the pool's servers, in their order.
    names: Vec<Arc<str>>,
    numbers: Vec<Number>,
    /// Sorted, with the server's position.
    positions: Vec<(Number, u32)>,
    marks: ArcSwap<Marks>,
    learnt: Arc<ArcSwap<Learnt>>,
}

/// What stands for the pool's servers in cookies.
#[derive(Debug, Default)]
struct Marks {
    keys: Arc<Vec<Key>>,
    /// Key by key: sorted, with the server's position.
    servers: Vec<Vec<(ServerMark, u32)>>,
    /// By the key in use, in the order of the servers.
    tokens: Vec<[u8; LENGTH]>,
}

/// What a token says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// The number of a server's name, and whether the key in use says so.
    At { server: Number, current: bool },
    /// A server that the pool has no more.
    Gone,
    /// Nothing: none of our keys has made it.
    Forged,
}

impl Affinities {
    /// What a pool's configuration asks for; tables that are there go on.
    pub(super) fn of(&self, pool: &Pool) -> Option<LiveAffinity> {
        let config = pool.affinity.clone()?;
        let scope = config.group.as_ref().unwrap_or(&pool.name).clone();
        let names: Vec<Arc<str>> = pool.servers.iter().map(|server| server.name.clone()).collect();
        let numbers: Vec<Number> = names.iter().map(|name| self.names.id(name)).collect();
        let mut positions: Vec<(Number, u32)> = numbers.iter().copied().zip(0..).collect();
        positions.sort_unstable();
        let live = LiveAffinity {
            table: config.has_table().then(|| self.table(&config, &scope)),
            hash: *self.hash(),
            life: seconds(&config),
            names,
            numbers,
            positions,
            marks: ArcSwap::default(),
            learnt: self.learnt(&pool.name),
            config,
            scope,
        };
        live.mark(&self.lock_keys());
        Some(live)
    }

    fn learnt(&self, pool: &Arc<str>) -> Arc<ArcSwap<Learnt>> {
        let mut tables = self.lock();
        if let Some(learnt) = tables.learnt.get(pool).and_then(Weak::upgrade) {
            return learnt;
        }
        let learnt = Arc::default();
        tables.learnt.insert(pool.clone(), Arc::downgrade(&learnt));
        learnt
    }

    /// The table of a scope: where it is to have another size, what it has is put over.
    fn table(&self, config: &Affinity, scope: &Arc<str>) -> Arc<Table> {
        // One table for what is known by different things would be as good, but it would mix up who has what room.
        let mut tables = self.lock();
        tables.lives.insert(scope.clone(), seconds(config));
        let before = tables.live.get(scope).and_then(Weak::upgrade);
        let fresh = Table::new(config.entries);
        if let Some(before) = &before
            && before.bytes() == fresh.bytes()
        {
            return before.clone();
        }
        let life = seconds(config);
        before.iter().flat_map(|before| before.entries(0)).for_each(|entry| fresh.put(entry, life, 0));
        if let Some(waiting) = tables.waiting.remove(&**scope) {
            // A file may be older than what another process has told.
            let newer = |entry: &Entry| entry.ends > fresh.known_until(entry.tag);
            waiting.into_iter().for_each(|entry| {
                if newer(&entry) {
                    fresh.put(entry, life, 0)
                }
            });
        }
        let table = Arc::new(fresh);
        tables.live.insert(scope.clone(), Arc::downgrade(&table));
        table
    }

    /// Forgets tables that nobody has any more.
    pub(super) fn sweep(&self) {
        let mut tables = self.lock();
        let Tables { live, lives, learnt, .. } = &mut *tables;
        learnt.retain(|_, learnt| learnt.strong_count() > 0);
        live.retain(|_, table| table.strong_count() > 0);
        lives.retain(|scope, _| live.contains_key(scope));
    }

    /// By scope: entries, with those that ended since they were swept last, the bytes of the table, and how many entries made
    /// room early.
    pub fn tables(&self) -> Vec<(Arc<str>, u64, usize, u64)> {
        let figures = |(scope, table): (Arc<str>, Arc<Table>)| (scope, table.taken(), table.bytes(), table.evicted());
        let mut all: Vec<_> = self.live().into_iter().map(figures).collect();
        all.sort();
        all
    }

    /// Forgets entries that have ended, in part number `part` of so many of each table.
    pub fn sweep_entries(&self, part: usize, of: usize, now: u32) {
        self.live().iter().for_each(|(_, table)| table.sweep(part, of, now));
    }

    fn live(&self) -> Vec<(Arc<str>, Arc<Table>)> {
        self.lock().live.iter().filter_map(|(scope, table)| Some((scope.clone(), table.upgrade()?))).collect()
    }

    /// The secrets of cookies, the one in use first; whoever has marks makes them anew (`LiveAffinity::mark`).
    pub(super) fn set_keys(&self, secrets: &[[u8; 32]]) -> Arc<Vec<Key>> {
        let keys = Arc::new(secrets.iter().map(Key::new).collect());
        *self.lock_keys() = Arc::clone(&keys);
        keys
    }

    /// What is to outlive this process: all that ends at `ends` or later.
    pub fn kept(&self, ends: u32) -> Kept {
        let mut kept = Kept { hash: *self.hash(), ..Kept::default() };
        kept.names =
            (0..self.names.len() as u32).filter_map(|id| self.names.name(id)).map(|name| name.to_string()).collect();
        for (scope, table) in &self.lock().live {
            if let Some(table) = table.upgrade() {
                kept.scopes.push((scope.to_string(), table.entries(ends.saturating_sub(1)).collect()));
            }
        }
        kept.scopes.sort_by(|a, b| a.0.cmp(&b.0));
        kept
    }

    /// Leaves what may have been noted since that time: an entry ends a life after it was noted.
    pub fn noted_since(&self, kept: &mut Kept, since: u32) {
        let lives = self.lock().lives.clone();
        for (scope, entries) in &mut kept.scopes {
            let life = lives.get(scope.as_str()).copied().unwrap_or_default();
            entries.retain(|entry| entry.ends >= since.saturating_add(life));
        }
    }

    /// Goes on with what another process knew, where nothing newer is known here.
    pub fn take_up(&self, kept: Kept, now: u32) {
        if *self.hash.get_or_init(|| kept.hash) != kept.hash {
            // Its hashes say nothing here.
            return;
        }
        let numbers: Vec<Number> = kept.names.iter().map(|name| self.names.id(&Arc::from(name.as_str()))).collect();
        let mut tables = self.lock();
        for (scope, entries) in kept.scopes {
            let known = entries.into_iter().filter(|entry| entry.ends > now);
            let known = known.filter_map(|entry| Some(Entry { number: *numbers.get(entry.number as usize)?, ..entry }));
            match tables.live.get(scope.as_str()).and_then(Weak::upgrade) {
                Some(table) => {
                    for entry in known {
                        if entry.ends > table.known_until(entry.tag) {
                            table.put(entry, u32::MAX, now);
                        }
                    }
                }
                None => tables.waiting.entry(scope).or_default().extend(known),
            }
        }
    }

    fn hash(&self) -> &[u8; 16] {
        self.hash.get_or_init(|| {
            let mut key = [0; 16];
            // aws-lc aborts the process rather than go without the kernel's randomness.
            let filled = aws_lc_rs::rand::fill(&mut key);
            debug_assert!(filled.is_ok());
            key
        })
    }

    fn lock(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_keys(&self) -> MutexGuard<'_, Arc<Vec<Key>>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn seconds(config: &Affinity) -> u32 {
    config.life.as_secs().clamp(1, 1 << 30) as u32
}

impl LiveAffinity {
    pub fn config(&self) -> &Affinity {
        &self.config
    }

    /// What stands for a key of that kind in tables. Kinds keep apart what is known by different things.
    pub fn tag(&self, kind: u8, key: &[u8]) -> Tag {
        let mut hasher = SipHasher24::new_with_key(&self.hash);
        hasher.write_u8(kind);
        hasher.write(key);
        hasher.finish().max(1)
    }

    /// Where a client was: the number of a server's name. `now` in seconds since 1970.
    pub fn find(&self, tag: Tag, now: u32) -> Option<Number> {
        self.table.as_ref()?.find(tag, now)
    }

    /// The server whose key a ticket was made with.
    pub fn find_key(&self, name: &[u8; 16]) -> Option<Number> {
        self.learnt.load().keys.get(name).copied()
    }

    /// The position of the server of that name in the pool; `None` for one that it has no more.
    pub fn position(&self, server: Number) -> Option<u32> {
        let at = self.positions.binary_search_by_key(&server, |(number, _)| *number).ok()?;
        Some(self.positions[at].1)
    }

    /// The number of the name of the server at that position.
    pub fn number(&self, position: u32) -> Option<Number> {
        self.numbers.get(position as usize).copied()
    }

    /// Takes what was found out about the servers' tickets.
    pub fn learn(&self, found: Found) {
        let number = |server: &Arc<str>| {
            let at = self.names.iter().position(|name| name == server)?;
            self.numbers.get(at).copied()
        };
        let keys = found.keys.iter().filter_map(|(name, server)| Some((*name, number(server)?))).collect();
        self.learnt.store(Arc::new(Learnt { keys, findings: found.findings }));
    }

    /// What was found out about the servers' tickets, by their names.
    pub fn findings(&self) -> Vec<(Arc<str>, Finding)> {
        self.learnt.load().findings.clone()
    }

    /// Notes where a client is.
    pub fn note(&self, tag: Tag, server: Number, now: u32) {
        if let Some(table) = &self.table {
            let ends = now.saturating_add(self.life);
            table.put(Entry { tag, number: server, ends }, self.life, now);
        }
    }

    /// What a token says.
    pub fn read(&self, token: Token) -> Told {
        let marks = self.marks.load();
        for (key, servers) in marks.keys.iter().zip(&marks.servers) {
            if let Some(mark) = key.read(token) {
                let at = servers.binary_search_by_key(&mark, |(mark, _)| *mark);
                let current = std::ptr::eq(servers, &raw const marks.servers[0]);
                let server = at.ok().and_then(|at| self.number(servers[at].1));
                return server.map_or(Told::Gone, |server| Told::At { server, current });
            }
        }
        Told::Forged
    }

    /// The token of a server; `None` while there is no key.
    pub fn token(&self, server: Number) -> Option<[u8; LENGTH]> {
        self.marks.load().tokens.get(self.position(server)? as usize).copied()
    }

    /// Makes the marks of other keys.
    pub(super) fn mark(&self, keys: &Arc<Vec<Key>>) {
        let of_key = |key: &Key| {
            let marks = self.names.iter().map(|name| key.server(&self.scope, name));
            let mut marks: Vec<(ServerMark, u32)> = marks.zip(0..).collect();
            marks.sort_unstable();
            marks
        };
        let token = |key: &Key, name: &Arc<str>| key.token(key.server(&self.scope, name));
        let tokens = keys.first().map(|key| self.names.iter().map(|name| token(key, name)).collect());
        self.marks.store(Arc::new(Marks {
            servers: keys.iter().map(of_key).collect(),
            tokens: tokens.unwrap_or_default(),
            keys: keys.clone(),
        }));
    }
}
