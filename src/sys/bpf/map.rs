//! A map of the kernel, read and written by system calls: one entry, or many at once.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::call;

/// <linux/bpf.h>, enum bpf_map_type: those of which each CPU has its own values.
const PER_CPU: [u32; 2] = [5, 6];
/// Array, per-CPU array.
const ARRAYS: [u32; 2] = [2, 6];

/// Entries that one system call moves. The kernel refuses a batch that one bucket of a hash does not fit into.
const BATCH: usize = 1024;

/// One map. Calls take `&self`: the kernel looks after those who call at the same time.
#[derive(Debug)]
pub struct Map {
    fd: OwnedFd,
    name: String,
    key: usize,
    value: usize,
    max_entries: u32,
    kind: u32,
    cpus: usize,
}

impl Map {
    /// # Errors
    /// When it is not a map's descriptor.
    pub(super) fn new(fd: OwnedFd, name: &str, cpus: usize) -> io::Result<Self> {
        let info = call::map_info(fd.as_fd())?;
        Ok(Self {
            fd,
            name: name.to_owned(),
            key: info.key_size as usize,
            value: info.value_size as usize,
            max_entries: info.max_entries,
            kind: info.kind,
            cpus: if PER_CPU.contains(&info.kind) { cpus } else { 1 },
        })
    }

    /// Type, size of keys, size of values, entries.
    pub(super) fn shape(&self) -> [u32; 4] {
        [self.kind, self.key as u32, self.value as u32, self.max_entries]
    }

    /// How many entries it can have.
    pub fn max_entries(&self) -> u32 {
        self.max_entries
    }

    /// What it takes of the kernel's memory, in bytes, as the kernel says.
    ///
    /// # Errors
    /// When /proc cannot be read.
    pub fn memory(&self) -> io::Result<u64> {
        use std::os::fd::AsRawFd;
        let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", self.fd.as_raw_fd()))?;
        let line = text.lines().find_map(|line| line.strip_prefix("memlock:"));
        line.and_then(|figure| figure.trim().parse().ok()).ok_or_else(|| io::Error::other("no memlock in fdinfo"))
    }

    /// Bytes between the values of two CPUs, or the whole value.
    fn stride(&self) -> usize {
        if PER_CPU.contains(&self.kind) { self.value.next_multiple_of(8) } else { self.value }
    }

    fn fits<K, V>(&self) -> io::Result<()> {
        if size_of::<K>() == self.key && size_of::<V>() == self.value {
            return Ok(());
        }
        Err(io::Error::other(format!(
            "map {} has keys of {} bytes and values of {}, not {} and {}",
            self.name,
            self.key,
            self.value,
            size_of::<K>(),
            size_of::<V>()
        )))
    }

    /// # Errors
    /// What the kernel says; types that are not the map's.
    pub fn get<K: IntoBytes + Immutable, V: FromBytes>(&self, key: &K) -> io::Result<Option<V>> {
        Ok(self.get_each(key)?.map(|mut values| values.swap_remove(0)))
    }

    /// The values of all CPUs.
    ///
    /// # Errors
    /// What the kernel says; types that are not the map's.
    pub fn get_each<K: IntoBytes + Immutable, V: FromBytes>(&self, key: &K) -> io::Result<Option<Vec<V>>> {
        self.fits::<K, V>()?;
        let mut bytes = vec![0; self.stride() * self.cpus];
        match call::lookup(self.fd.as_fd(), key.as_bytes(), &mut bytes) {
            Ok(()) => Ok(Some(read_all(&bytes, self.stride()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Puts in, or replaces. Of a per-CPU map: the same value for each CPU.
    ///
    /// # Errors
    /// `StorageFull` or what the kernel says when there is no room; types that are not the map's.
    pub fn put<K: IntoBytes + Immutable, V: IntoBytes + Immutable>(&self, key: &K, value: &V) -> io::Result<()> {
        self.write(key, value, call::ANY)
    }

    /// Puts in what is not there yet.
    ///
    /// # Errors
    /// `AlreadyExists`; no room; types that are not the map's.
    pub fn add<K: IntoBytes + Immutable, V: IntoBytes + Immutable>(&self, key: &K, value: &V) -> io::Result<()> {
        self.write(key, value, call::NO_EXIST)
    }

    fn write<K: IntoBytes + Immutable, V: IntoBytes + Immutable>(
        &self,
        key: &K,
        value: &V,
        flags: u64,
    ) -> io::Result<()> {
        self.fits::<K, V>()?;
        let mut bytes = Vec::with_capacity(self.stride() * self.cpus);
        for _ in 0..self.cpus {
            bytes.extend_from_slice(value.as_bytes());
            bytes.resize(bytes.len().next_multiple_of(self.stride()), 0);
        }
        call::update(self.fd.as_fd(), key.as_bytes(), &bytes, flags).map_err(full)
    }

    /// Takes out; whether it was there.
    ///
    /// # Errors
    /// What the kernel says; a type that is not the map's.
    pub fn delete<K: IntoBytes + Immutable>(&self, key: &K) -> io::Result<bool> {
        if size_of::<K>() != self.key {
            return Err(io::Error::other(format!("map {} has keys of {} bytes", self.name, self.key)));
        }
        match call::delete(self.fd.as_fd(), key.as_bytes()) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Takes out of a hash; what was there.
    ///
    /// # Errors
    /// What the kernel says; types that are not the map's.
    pub fn take<K: IntoBytes + Immutable, V: FromBytes>(&self, key: &K) -> io::Result<Option<V>> {
        self.fits::<K, V>()?;
        let mut bytes = vec![0; self.stride() * self.cpus];
        match call::take(self.fd.as_fd(), key.as_bytes(), &mut bytes) {
            Ok(()) => Ok(read_all(&bytes, self.stride()).pop()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Puts in or replaces many, in as few system calls as can be. Not for per-CPU maps.
    ///
    /// # Errors
    /// As [`Map::put`]; those before the one that failed are in.
    pub fn put_all<K, V>(&self, entries: &[(K, V)]) -> io::Result<()>
    where
        K: IntoBytes + Immutable,
        V: IntoBytes + Immutable,
    {
        self.fits::<K, V>()?;
        if self.cpus > 1 {
            return Err(io::Error::other(format!("map {} is per CPU", self.name)));
        }
        for entries in entries.chunks(BATCH) {
            let (mut keys, mut values) = (Vec::new(), Vec::new());
            for (key, value) in entries {
                keys.extend_from_slice(key.as_bytes());
                values.extend_from_slice(value.as_bytes());
            }
            call::update_batch(self.fd.as_fd(), &keys, &values, entries.len() as u32).map_err(full)?;
        }
        Ok(())
    }

    /// Shows every entry of a hash to `visit`, in batches, until that says `false`. Of what comes and goes meanwhile, some
    /// may be missed; nothing is locked.
    ///
    /// # Errors
    /// What the kernel says; types that are not the map's.
    pub fn walk<K, V>(&self, mut visit: impl FnMut(&K, &V) -> bool) -> io::Result<()>
    where
        K: FromBytes,
        V: FromBytes,
    {
        self.fits::<K, V>()?;
        if ARRAYS.contains(&self.kind) || self.cpus > 1 {
            return Err(io::Error::other(format!("map {} is no hash", self.name)));
        }
        let mut room = BATCH.min(self.max_entries as usize);
        let mut position = vec![0; self.key.max(4)];
        let (mut keys, mut values) = (vec![0; room * self.key], vec![0; room * self.value]);
        let mut first = true;
        loop {
            let before = position.clone();
            let batch = call::lookup_batch(self.fd.as_fd(), first, &mut position, &mut keys, &mut values, room as u32);
            let batch = match batch {
                // One bucket has more entries than there is room for.
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) && room < self.max_entries as usize => {
                    room = (room * 2).min(self.max_entries as usize);
                    (keys, values) = (vec![0; room * self.key], vec![0; room * self.value]);
                    position = before;
                    continue;
                }
                other => other?,
            };
            first = false;
            for (key, value) in keys.chunks_exact(self.key).zip(values.chunks_exact(self.value)).take(batch.count) {
                let (Ok(key), Ok(value)) = (K::read_from_bytes(key), V::read_from_bytes(value)) else {
                    return Err(io::Error::other(format!("map {} has other types", self.name)));
                };
                if !visit(&key, &value) {
                    return Ok(());
                }
            }
            if batch.end {
                return Ok(());
            }
        }
    }

    /// The first `count` values of an array (not per CPU).
    ///
    /// # Errors
    /// What the kernel says; types that are not the map's.
    pub fn first<V: FromBytes>(&self, count: u32) -> io::Result<Vec<V>> {
        self.fits::<u32, V>()?;
        let mut all = Vec::with_capacity(count as usize);
        for index in 0..count.min(self.max_entries) {
            if let Some(value) = self.get(&index)? {
                all.push(value);
            }
        }
        Ok(all)
    }
}

fn read_all<V: FromBytes>(bytes: &[u8], stride: usize) -> Vec<V> {
    bytes.chunks_exact(stride).filter_map(|value| V::read_from_prefix(value).ok().map(|(value, _)| value)).collect()
}

/// The kernel says E2BIG where a hash is full.
fn full(error: io::Error) -> io::Error {
    if error.raw_os_error() == Some(libc::E2BIG) {
        return io::Error::new(io::ErrorKind::StorageFull, "the map is full");
    }
    error
}
