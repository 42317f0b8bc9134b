//! A fast hash that is the same in every process, on every machine and after every restart.
//!
//! The index looks keys up by it, and consistent hashing places requests by it: a value that moved
//! with a restart would empty every cache behind us. It is no defence against chosen keys; where it
//! finds a rule, the rule's own condition is tested afterwards.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hasher};

const SECRET: [u64; 2] = [0xa076_1d64_78bd_642f, 0xe703_7ed1_a0b4_28db];

/// A map keyed by text or small values, with this hash.
pub(super) type Map<K, V> = HashMap<K, V, Fixed>;
/// A set of byte strings, with this hash.
pub(super) type ByteSet = HashSet<Box<[u8]>, Fixed>;

/// The hash of `bytes`; different seeds give independent hashes.
#[inline]
pub fn hash(seed: u64, bytes: &[u8]) -> u64 {
    let mut state = seed ^ SECRET[0];
    let (low, high) = match (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
        (Some(first), Some(last)) => {
            let mut rest = bytes;
            while let Some((block, after)) = rest.split_first_chunk::<16>() {
                if after.is_empty() {
                    break;
                }
                let block = u128::from_le_bytes(*block);
                state = mix(block as u64 ^ SECRET[1], (block >> 64) as u64 ^ state);
                rest = after;
            }
            // The last 16 bytes (or all of 8 to 16), overlapping what was taken before.
            match bytes.last_chunk::<16>() {
                Some(tail) => {
                    let tail = u128::from_le_bytes(*tail);
                    (tail as u64, (tail >> 64) as u64)
                }
                None => (u64::from_le_bytes(*first), u64::from_le_bytes(*last)),
            }
        }
        _ => match (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
            (Some(first), Some(last)) => (u32::from_le_bytes(*first).into(), u32::from_le_bytes(*last).into()),
            _ => match bytes {
                [] => (0, 0),
                [first, .., last] => {
                    let middle = bytes[bytes.len() / 2];
                    (u64::from(*first) << 16 | u64::from(middle) << 8 | u64::from(*last), 0)
                }
                [only] => (u64::from(*only) * 0x0001_0101, 0),
            },
        },
    };
    mix(SECRET[1] ^ bytes.len() as u64, mix(low ^ SECRET[1], high ^ state))
}

/// Both halves of the product: every bit of the input reaches every bit of the result.
#[inline]
fn mix(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Fixed;

impl BuildHasher for Fixed {
    type Hasher = Chain;

    fn build_hasher(&self) -> Chain {
        Chain(0)
    }
}

/// Each written piece is hashed with the hash of those before as its seed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chain(u64);

impl Hasher for Chain {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        self.0 = hash(self.0, bytes);
    }

    #[inline]
    fn write_u8(&mut self, value: u8) {
        self.write_u64(value.into());
    }

    #[inline]
    fn write_u64(&mut self, value: u64) {
        self.0 = mix(self.0 ^ SECRET[0], value ^ SECRET[1]);
    }

    #[inline]
    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_changes() {
        // Consistent hashing moves every client when one of these does.
        let long = "/a/rather/long/path/of/some/file/that/does/not/fit.html";
        let values: Vec<u64> = ["", "a", "ab", "abcd", "12345678", "0123456789abcdef", long]
            .iter()
            .map(|text| hash(0, text.as_bytes()))
            .collect();
        assert_eq!(values, EXPECTED);
    }

    const EXPECTED: [u64; 7] = [
        4808886099364463827,
        7852112099385141351,
        1669612202336433880,
        10148579032584436193,
        18103125281558355335,
        12855278411437359874,
        6877836930933978891,
    ];

    #[test]
    fn every_byte_counts() {
        for length in 1..70 {
            let zeros = vec![b'x'; length];
            let base = hash(7, &zeros);
            for at in 0..length {
                let mut other = zeros.clone();
                other[at] = b'y';
                assert_ne!(base, hash(7, &other), "length {length}, byte {at}");
            }
            assert_ne!(base, hash(8, &zeros), "length {length}, seed");
        }
    }
}
