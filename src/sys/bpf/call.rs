//! The bpf system call, as far as it is used: one function a command, typed by what the kernel reads and writes.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// <linux/bpf.h>, enum bpf_cmd.
const MAP_LOOKUP: i32 = 1;
const MAP_UPDATE: i32 = 2;
const MAP_DELETE: i32 = 3;
const PROG_TEST_RUN: i32 = 10;
const INFO_BY_FD: i32 = 15;
const MAP_LOOKUP_AND_DELETE: i32 = 21;
const MAP_LOOKUP_BATCH: i32 = 24;
const MAP_UPDATE_BATCH: i32 = 26;

/// <linux/bpf.h>, flags of an update.
pub(super) const ANY: u64 = 0;
pub(super) const NO_EXIST: u64 = 1;

#[repr(C)]
struct Element {
    map: u32,
    zero: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct Batch {
    from: u64,
    to: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

#[repr(C)]
struct Info {
    fd: u32,
    len: u32,
    info: u64,
}

#[repr(C)]
#[derive(Default)]
struct TestRun {
    program: u32,
    returned: u32,
    data_in_len: u32,
    data_out_len: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    context_in_len: u32,
    context_out_len: u32,
    context_in: u64,
    context_out: u64,
    flags: u32,
    cpu: u32,
    batch: u32,
    zero: u32,
}

/// The beginning of <linux/bpf.h>'s bpf_map_info.
#[repr(C)]
#[derive(Default, Clone, Copy)]
pub(super) struct MapInfo {
    pub kind: u32,
    pub id: u32,
    pub key_size: u32,
    pub value_size: u32,
    pub max_entries: u32,
    pub flags: u32,
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd() as u32
}

fn address<T>(slice: &[T]) -> u64 {
    slice.as_ptr() as u64
}

fn address_mut<T>(slice: &mut [T]) -> u64 {
    slice.as_mut_ptr() as u64
}

/// Safety: `attribute` is the structure of `command`, and every address in it points to memory that lives during the
/// call, is as long as the kernel takes it to be, and is exclusively borrowed where the kernel writes.
unsafe fn bpf<T>(command: i32, attribute: &mut T) -> io::Result<()> {
    // SAFETY: the caller's.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attribute), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// `value` must have room for what the map gives: of every CPU, where it is per CPU.
pub(super) fn lookup(map: BorrowedFd<'_>, key: &[u8], value: &mut [u8]) -> io::Result<()> {
    let mut element = Element { map: number(map), zero: 0, key: address(key), value: address_mut(value), flags: 0 };
    // SAFETY: `Map` checks both lengths against the map's.
    unsafe { bpf(MAP_LOOKUP, &mut element) }
}

/// As [`lookup`], and the entry is not there any more: nothing is written to it in between.
pub(super) fn take(map: BorrowedFd<'_>, key: &[u8], value: &mut [u8]) -> io::Result<()> {
    let mut element = Element { map: number(map), zero: 0, key: address(key), value: address_mut(value), flags: 0 };
    // SAFETY: `Map` checks both lengths against the map's.
    unsafe { bpf(MAP_LOOKUP_AND_DELETE, &mut element) }
}

pub(super) fn update(map: BorrowedFd<'_>, key: &[u8], value: &[u8], flags: u64) -> io::Result<()> {
    let mut element = Element { map: number(map), zero: 0, key: address(key), value: address(value), flags };
    // SAFETY: `Map` checks both lengths against the map's; the kernel reads only.
    unsafe { bpf(MAP_UPDATE, &mut element) }
}

pub(super) fn delete(map: BorrowedFd<'_>, key: &[u8]) -> io::Result<()> {
    let mut element = Element { map: number(map), zero: 0, key: address(key), value: 0, flags: 0 };
    // SAFETY: `Map` checks the length; the kernel reads only.
    unsafe { bpf(MAP_DELETE, &mut element) }
}

/// What a batch gave: how many entries, and whether the map's end was reached.
pub(super) struct Batched {
    pub count: usize,
    pub end: bool,
}

/// `position` is where the last batch ended, and then where this one did; `first` begins anew. It is as long as a key, at
/// least 4 bytes. Keys and values have room for `count`.
pub(super) fn lookup_batch(
    map: BorrowedFd<'_>,
    first: bool,
    position: &mut [u8],
    keys: &mut [u8],
    values: &mut [u8],
    count: u32,
) -> io::Result<Batched> {
    let from = position.to_vec();
    let mut batch = Batch {
        from: if first { 0 } else { address(&from) },
        to: address_mut(position),
        keys: address_mut(keys),
        values: address_mut(values),
        count,
        map: number(map),
        element_flags: 0,
        flags: 0,
    };
    // SAFETY: `Map` made the buffers for `count` entries of the map's own sizes.
    match unsafe { bpf(MAP_LOOKUP_BATCH, &mut batch) } {
        Ok(()) => Ok(Batched { count: batch.count as usize, end: false }),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
            Ok(Batched { count: batch.count as usize, end: true })
        }
        Err(error) => Err(error),
    }
}

pub(super) fn update_batch(map: BorrowedFd<'_>, keys: &[u8], values: &[u8], count: u32) -> io::Result<()> {
    let mut batch = Batch {
        from: 0,
        to: 0,
        keys: address(keys),
        values: address(values),
        count,
        map: number(map),
        element_flags: 0,
        flags: 0,
    };
    // SAFETY: `Map` checks that there are `count` keys and values of the map's sizes; the kernel reads only.
    unsafe { bpf(MAP_UPDATE_BATCH, &mut batch) }
}

pub(super) fn map_info(map: BorrowedFd<'_>) -> io::Result<MapInfo> {
    let mut info = [MapInfo::default()];
    let mut attribute = Info { fd: number(map), len: size_of::<MapInfo>() as u32, info: address_mut(&mut info) };
    // SAFETY: the kernel writes at most `len` bytes, which is the size of the structure.
    unsafe { bpf(INFO_BY_FD, &mut attribute) }?;
    Ok(info[0])
}

/// What a run gave back.
pub(super) struct Ran {
    pub returned: u32,
    /// Of the packet afterwards, in `out`.
    pub out_len: usize,
    /// Nanoseconds a turn.
    pub duration: u32,
}

/// Runs a program on a packet. `context` is a `__sk_buff` or empty; it is read and written.
pub(super) fn test_run(
    program: BorrowedFd<'_>,
    data: &[u8],
    out: &mut [u8],
    context: &mut [u8],
    repeat: u32,
) -> io::Result<Ran> {
    let given = context.to_vec();
    let mut run = TestRun {
        program: number(program),
        data_in_len: data.len() as u32,
        data_out_len: out.len() as u32,
        data_in: address(data),
        data_out: address_mut(out),
        repeat,
        context_in_len: given.len() as u32,
        context_out_len: context.len() as u32,
        context_in: if given.is_empty() { 0 } else { address(&given) },
        context_out: if given.is_empty() { 0 } else { address_mut(context) },
        ..TestRun::default()
    };
    // SAFETY: all lengths are those of the slices; what the kernel writes is borrowed exclusively.
    unsafe { bpf(PROG_TEST_RUN, &mut run) }?;
    Ok(Ran { returned: run.returned, out_len: run.data_out_len as usize, duration: run.duration })
}
