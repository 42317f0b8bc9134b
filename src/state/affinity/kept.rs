//! What is known of clients, as it goes into a file or to another process.
//!
//! ```text
//! "reeve affinity 1\n"
//! record: kind (1)  length (4)  SipHash-2-4 of kind, length and contents with a key of zeros (8)  contents
//!   1  the key of the hashes (16)
//!   2  a server's name; they are counted from 0
//!   3  a scope: the entries behind it are its own
//!   4  entries: hash (8)  server's number (4)  end in seconds since 1970 (4), up to 4096 of them
//!   5  the end
//! ```
//!
//! Numbers are little-endian. A file that broke off, or was bent, is read as far as it is whole.

use std::hash::Hasher;
use std::io::{self, Read, Write};

use siphasher::sip::SipHasher24;

use super::table::Entry;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kept {
    pub hash: [u8; 16],
    /// Names of servers: an entry's number is the position here.
    pub names: Vec<String>,
    pub scopes: Vec<(String, Vec<Entry>)>,
}

const MAGIC: &[u8; 17] = b"reeve affinity 1\n";
const HEAD: usize = 13;
const HASH: u8 = 1;
const NAME: u8 = 2;
const SCOPE: u8 = 3;
const ENTRIES: u8 = 4;
const END: u8 = 5;
const ENTRY: usize = 16;
const BLOCK: usize = 4096;
/// Names and scopes at most: more than any farm has.
const NAMES: usize = 1 << 20;
/// Entries at most: the largest table that can be configured.
const MOST: usize = 10_000_000;

impl Kept {
    pub fn len(&self) -> usize {
        self.scopes.iter().map(|(_, entries)| entries.len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// # Errors
    /// As the sink has it.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        out.write_all(MAGIC)?;
        record(out, HASH, &self.hash)?;
        for name in &self.names {
            record(out, NAME, name.as_bytes())?;
        }
        let mut block = Vec::with_capacity(BLOCK * ENTRY);
        for (scope, entries) in &self.scopes {
            record(out, SCOPE, scope.as_bytes())?;
            for entries in entries.chunks(BLOCK) {
                block.clear();
                for Entry { tag, number, ends } in entries {
                    block.extend_from_slice(&tag.to_le_bytes());
                    block.extend_from_slice(&number.to_le_bytes());
                    block.extend_from_slice(&ends.to_le_bytes());
                }
                record(out, ENTRIES, &block)?;
            }
        }
        record(out, END, b"")
    }

    /// What is whole of it; `false`: that is not all. `None` where there is nothing that could be used.
    ///
    /// # Errors
    /// As the source has it, but for its end.
    pub fn read(from: &mut impl Read) -> io::Result<(Option<Kept>, bool)> {
        let mut magic = [0; MAGIC.len()];
        if !fill(from, &mut magic)? || magic != *MAGIC {
            return Ok((None, false));
        }
        let mut kept: Option<Kept> = None;
        let mut contents = Vec::new();
        let mut count = 0;
        loop {
            let Some(kind) = next(from, &mut contents)? else { return Ok((kept, false)) };
            let text = || String::from_utf8(contents.clone()).ok();
            match (kind, &mut kept) {
                (HASH, None) => match contents.as_slice().try_into() {
                    Ok(hash) => kept = Some(Kept { hash, ..Kept::default() }),
                    Err(_) => return Ok((None, false)),
                },
                (NAME, Some(known)) if known.names.len() < NAMES => match text() {
                    Some(name) => known.names.push(name),
                    None => return Ok((kept, false)),
                },
                (SCOPE, Some(known)) if known.scopes.len() < NAMES => match text() {
                    Some(name) => known.scopes.push((name, Vec::new())),
                    None => return Ok((kept, false)),
                },
                (ENTRIES, Some(known)) if count < MOST => {
                    let Some((_, entries)) = known.scopes.last_mut() else { return Ok((kept, false)) };
                    let before = entries.len();
                    entries.extend(contents.chunks_exact(ENTRY).map(entry).filter(|entry| entry.tag != 0));
                    count += entries.len() - before;
                }
                (END, Some(_)) => return Ok((kept, true)),
                _ => return Ok((kept, false)),
            }
        }
    }
}

fn entry(bytes: &[u8]) -> Entry {
    let word = |at: usize| {
        let mut word = [0; 4];
        word.copy_from_slice(&bytes[at..at + 4]);
        u32::from_le_bytes(word)
    };
    Entry { tag: u64::from(word(4)) << 32 | u64::from(word(0)), number: word(8), ends: word(12) }
}

fn record(out: &mut impl Write, kind: u8, contents: &[u8]) -> io::Result<()> {
    // Names have a line of a file, blocks their bound.
    let length = (contents.len() as u32).to_le_bytes();
    out.write_all(&[kind])?;
    out.write_all(&length)?;
    out.write_all(&check(kind, length, contents).to_le_bytes())?;
    out.write_all(contents)
}

/// The next record that is whole: its kind.
fn next(from: &mut impl Read, contents: &mut Vec<u8>) -> io::Result<Option<u8>> {
    let mut head = [0; HEAD];
    if !fill(from, &mut head)? {
        return Ok(None);
    }
    let (mut length, mut sum) = ([0; 4], [0; 8]);
    length.copy_from_slice(&head[1..5]);
    sum.copy_from_slice(&head[5..]);
    let bytes = u32::from_le_bytes(length) as usize;
    if bytes > BLOCK * ENTRY {
        return Ok(None);
    }
    contents.resize(bytes, 0);
    let whole = fill(from, contents)? && check(head[0], length, contents) == u64::from_le_bytes(sum);
    Ok(whole.then_some(head[0]))
}

fn check(kind: u8, length: [u8; 4], contents: &[u8]) -> u64 {
    let mut hasher = SipHasher24::new();
    hasher.write(&[kind]);
    hasher.write(&length);
    hasher.write(contents);
    hasher.finish()
}

/// False: it ended before.
fn fill(from: &mut impl Read, into: &mut [u8]) -> io::Result<bool> {
    match from.read_exact(into) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> Kept {
        let entries = |from: u64, count: u64| {
            (from..from + count).map(|tag| Entry { tag, number: (tag % 2) as u32, ends: 1000 + tag as u32 }).collect()
        };
        Kept {
            hash: [7; 16],
            names: vec!["s1".into(), "s2".into()],
            scopes: vec![("api".into(), entries(1, 3)), ("empty".into(), Vec::new()), ("web".into(), entries(1, 5000))],
        }
    }

    fn bytes(kept: &Kept) -> Vec<u8> {
        let mut bytes = Vec::new();
        kept.write(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn it_comes_back_whole() {
        let (read, whole) = Kept::read(&mut &bytes(&some())[..]).unwrap();
        assert_eq!((read, whole), (Some(some()), true));
    }

    #[test]
    fn what_broke_off_is_read_as_far_as_it_is_whole() {
        let (all, whole) = (some(), bytes(&some()));
        for cut in (0..600).chain((whole.len() - 1500)..whole.len()) {
            let (read, said) = Kept::read(&mut &whole[..cut]).unwrap();
            assert!(!said, "cut at {cut}");
            let Some(read) = read else { continue };
            for ((scope, entries), (expected, all)) in read.scopes.iter().zip(&all.scopes) {
                assert_eq!((scope, &entries[..]), (expected, &all[..entries.len()]), "cut at {cut}");
            }
        }
        // The second block of the last scope is gone, the first one is there.
        let (read, _) = Kept::read(&mut &whole[..whole.len() - 20]).unwrap();
        assert_eq!(read.unwrap().len(), 3 + 4096);
    }

    #[test]
    fn what_was_bent_is_not_used() {
        let whole = bytes(&some());
        for at in (0..400).chain((whole.len() - 400)..whole.len()) {
            let mut bent = whole.clone();
            bent[at] ^= 0x40;
            let (read, said) = Kept::read(&mut &bent[..]).unwrap();
            assert!(!said, "bent at {at}");
            let Some(read) = read else { continue };
            assert!(
                read.scopes.iter().flat_map(|(_, entries)| entries).all(|entry| entry.ends == 1000 + entry.tag as u32)
            );
        }
        let (read, said) = Kept::read(&mut &b"reeve affinity 2\n"[..]).unwrap();
        assert_eq!((read, said), (None, false), "another version");
    }
}
