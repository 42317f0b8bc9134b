//! Maps: a value of a message to the pool that an operator's file has for it. 100,000 entries cost what ten do.

use crate::model::rule::{self, Key, PathPolicy};

use super::hash::Map;
use super::path;

/// A map, compiled for the key it is asked by.
#[derive(Debug, Default)]
pub(super) struct Pools(Map<Box<[u8]>, u32>);

/// In which form the keys of a map arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Form {
    /// Hosts: in lower case.
    Lower,
    /// Paths and their parts: normalised.
    Path(PathPolicy),
    /// Addresses: written one way.
    Address,
    AsIs,
}

impl Form {
    pub fn of(key: &Key, policy: PathPolicy) -> Form {
        match key {
            Key::Host => Form::Lower,
            Key::Path | Key::Capture(_) | Key::Group(_) => Form::Path(policy),
            Key::Source => Form::Address,
            Key::Url | Key::Header(_) | Key::Cookie(_) | Key::Query(_) => Form::AsIs,
        }
    }

    fn write(self, key: &str) -> Box<[u8]> {
        let text = match self {
            Form::Lower => key.to_ascii_lowercase(),
            Form::Path(policy) => path::literal(key, policy),
            Form::Address => match key.parse::<std::net::IpAddr>() {
                Ok(address) => address.to_canonical().to_string(),
                Err(_) => key.to_owned(),
            },
            Form::AsIs => key.to_owned(),
        };
        text.into_bytes().into()
    }
}

impl Pools {
    pub fn new(map: &rule::Map, form: Form) -> Pools {
        let mut pools = Map::default();
        for ((key, _), pool) in map.entries.iter().zip(&map.pools) {
            // Of two that are one in this form, the first.
            pools.entry(form.write(key)).or_insert(u32::try_from(*pool).unwrap_or(u32::MAX));
        }
        Pools(pools)
    }

    /// The pool's position in `Config::pools`.
    #[inline]
    pub fn find(&self, value: &[u8]) -> Option<usize> {
        self.0.get(value).map(|pool| *pool as usize)
    }
}
