//! What a cookie says: 8 bytes for the server and 8 bytes of SipHash-2-4 over them, in base64url without padding.
//!
//! The server is not named: its 8 bytes are a keyed hash of its name too, so that they tell nobody what the servers
//! are called, and every key has others. Keys are secrets of 32 bytes, of which each use has its own half.

use std::hash::Hasher;

use siphasher::sip::SipHasher24;

/// Letters of a token.
pub const LENGTH: usize = 22;

/// One secret, ready for both uses.
#[derive(Clone)]
pub struct Key {
    servers: SipHasher24,
    marks: SipHasher24,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

/// What a good token says of the server, by the key that made it.
pub type ServerMark = u64;

impl Key {
    pub fn new(secret: &[u8; 32]) -> Key {
        let mut halves = [[0; 16]; 2];
        halves[0].copy_from_slice(&secret[..16]);
        halves[1].copy_from_slice(&secret[16..]);
        let [servers, marks] = halves.map(|half| SipHasher24::new_with_key(&half));
        Key { servers, marks }
    }

    /// What stands for a server. `scope` is its pool, or the group of pools that share their cookies.
    pub fn server(&self, scope: &str, name: &str) -> ServerMark {
        let mut hasher = self.servers;
        hasher.write(scope.as_bytes());
        hasher.write(b"/");
        hasher.write(name.as_bytes());
        hasher.finish()
    }

    /// The token of a server.
    pub fn token(&self, server: ServerMark) -> [u8; LENGTH] {
        let mark = self.mark(server);
        encode(u128::from(server) << 64 | u128::from(mark))
    }

    /// The server of a token that this key made.
    pub fn read(&self, token: Token) -> Option<ServerMark> {
        let server = (token.0 >> 64) as u64;
        (self.mark(server) == token.0 as u64).then_some(server)
    }

    fn mark(&self, server: ServerMark) -> u64 {
        let mut hasher = self.marks;
        hasher.write(&server.to_be_bytes());
        hasher.finish()
    }
}

/// What has the shape of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token(u128);

impl Token {
    /// `None` for what no key can have made.
    pub fn parse(text: &[u8]) -> Option<Token> {
        let text: &[u8; LENGTH] = text.try_into().ok()?;
        let mut value = 0_u128;
        for (at, letter) in text.iter().enumerate() {
            let six = u128::from(match letter {
                b'A'..=b'Z' => letter - b'A',
                b'a'..=b'z' => letter - b'a' + 26,
                b'0'..=b'9' => letter - b'0' + 52,
                b'-' => 62,
                b'_' => 63,
                _ => return None,
            });
            if at == LENGTH - 1 {
                // RFC 4648 §3.5: the bits that are left over are zero, so that a token is written in one way.
                if six & 0xf != 0 {
                    return None;
                }
                value = value << 2 | six >> 4;
            } else {
                value = value << 6 | six;
            }
        }
        Some(Token(value))
    }
}

/// RFC 4648 §5. 128 bits are 21 letters and two bits.
fn encode(value: u128) -> [u8; LENGTH] {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = [0; LENGTH];
    for (at, letter) in text.iter_mut().enumerate() {
        let six = if at == LENGTH - 1 { value << 4 } else { value >> (122 - 6 * at) };
        *letter = LETTERS[(six & 63) as usize];
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> Key {
        Key::new(&std::array::from_fn(|at| byte ^ at as u8))
    }

    #[test]
    fn siphash_is_the_one_of_its_authors() {
        // SipHash-2-4 of 00 01 .. 07 with the key 00 01 .. 0f: the reference implementation's vector for 8 bytes.
        let mut secret = [0; 32];
        for (at, byte) in secret[16..].iter_mut().enumerate() {
            *byte = at as u8;
        }
        let key = Key::new(&secret);
        assert_eq!(key.mark(0x0001_0203_0405_0607), 0x93f5_f579_9a93_2462);
    }

    #[test]
    fn a_token_is_good_whole_and_with_its_key_alone() {
        let (own, other) = (key(1), key(2));
        let server = own.server("web", "s1");
        let text = own.token(server);
        assert_eq!(own.read(Token::parse(&text).unwrap()), Some(server));
        assert_eq!(other.read(Token::parse(&text).unwrap()), None);
        for at in 0..LENGTH {
            for letter in (0..=255_u8).filter(|letter| *letter != text[at]) {
                let mut bent = text;
                bent[at] = letter;
                let read = Token::parse(&bent).and_then(|token| own.read(token));
                assert_eq!(read, None, "{letter} at {at}");
            }
            assert_eq!(Token::parse(&text[..at]), None);
        }
        assert_eq!(Token::parse(&[&text[..], b"A"].concat()), None);
    }

    #[test]
    fn servers_and_scopes_have_marks_of_their_own() {
        let key = key(3);
        let mut marks = std::collections::HashSet::new();
        for (scope, name) in [("web", "s1"), ("web", "s2"), ("api", "s1"), ("we", "b/s1")] {
            assert!(marks.insert(key.server(scope, name)), "{scope}/{name}");
        }
    }

    #[test]
    fn base64_is_that_of_everybody() {
        // Written by Python: base64.urlsafe_b64encode(bytes(range(240, 256))).
        let value = (240..=255_u8).fold(0_u128, |value, byte| value << 8 | u128::from(byte));
        assert_eq!(&encode(value), b"8PHy8_T19vf4-fr7_P3-_w");
        assert_eq!(Token::parse(b"8PHy8_T19vf4-fr7_P3-_w"), Some(Token(value)));
    }
}
