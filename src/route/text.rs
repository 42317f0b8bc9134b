//! Short texts kept where they are used.
//!
//! Among 100,000 rules each pointer that is followed is a line of memory that is in no cache. A rule's
//! usual condition therefore lies in one line of 64 bytes, its text included.

use std::ops::Deref;

/// Bytes of a text that fits.
const ROOM: usize = 30;

/// Bytes, in place if there are no more than 30.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Text {
    Short { length: u8, bytes: [u8; ROOM] },
    Long(Box<[u8]>),
}

/// A name and a value, together no more than 30 bytes.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Pair {
    name: u8,
    length: u8,
    bytes: [u8; ROOM],
}

impl Text {
    /// For places that are not on the request path; empty if it is no UTF-8.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self).unwrap_or_default()
    }
}

impl From<&[u8]> for Text {
    fn from(text: &[u8]) -> Text {
        let mut bytes = [0; ROOM];
        match bytes.get_mut(..text.len()) {
            Some(room) => {
                room.copy_from_slice(text);
                Text::Short { length: text.len() as u8, bytes }
            }
            None => Text::Long(text.into()),
        }
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Text {
        text.as_bytes().into()
    }
}

impl Deref for Text {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match self {
            Text::Short { length, bytes } => bytes.get(..usize::from(*length)).unwrap_or_default(),
            Text::Long(bytes) => bytes,
        }
    }
}

impl std::fmt::Debug for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "\"{}\"", self.escape_ascii())
    }
}

impl Pair {
    /// `None` if they are too long.
    pub fn new(name: &str, value: &[u8]) -> Option<Pair> {
        let whole = [name.as_bytes(), value].concat();
        let mut bytes = [0; ROOM];
        bytes.get_mut(..whole.len())?.copy_from_slice(&whole);
        Some(Pair { name: name.len() as u8, length: whole.len() as u8, bytes })
    }

    #[inline]
    pub fn name(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.name)).unwrap_or_default()
    }

    #[inline]
    pub fn value(&self) -> &[u8] {
        self.bytes.get(usize::from(self.name)..usize::from(self.length)).unwrap_or_default()
    }
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "\"{}\" = \"{}\"", self.name().escape_ascii(), self.value().escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_long() {
        for length in [0, 1, 29, 30, 31, 300] {
            let text = "x".repeat(length);
            let own = Text::from(&*text);
            assert_eq!(&*own, text.as_bytes());
            assert_eq!(matches!(own, Text::Short { .. }), length <= 30);
            assert_eq!(own.as_str(), text);
        }
        let pair = Pair::new("x-tenant", b"blue").unwrap();
        assert_eq!((pair.name(), pair.value()), (&b"x-tenant"[..], &b"blue"[..]));
        assert_eq!(Pair::new("x-tenant", &[b'x'; 23]), None);
    }
}
