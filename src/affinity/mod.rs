//! Finds in a request by what its client is known, and writes that into answers. Pure: what is known of
//! clients is kept in `state::affinity`.
//!
//! | file | subject |
//! |---|---|
//! | `token` | what a cookie says: the server, and a mark that nobody else can make |
//! | `cookie` | Cookie and Set-Cookie fields: taken apart, and written with another value |
//! | `session` | where an application's session is found besides its cookie |

pub mod cookie;
pub mod session;
pub mod token;

use std::net::IpAddr;

/// An address as far as its mask reaches, as bytes to be hashed. An IPv4 client of a dual-stack listener is
/// one of IPv4.
pub fn masked(address: IpAddr, v4: u8, v6: u8) -> [u8; 17] {
    let mut key = [0; 17];
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let bits = u32::MAX.checked_shl(32 - u32::from(v4.min(32))).unwrap_or(0);
            key[0] = 4;
            key[1..5].copy_from_slice(&(u32::from(address) & bits).to_be_bytes());
        }
        IpAddr::V6(address) => {
            let bits = u128::MAX.checked_shl(128 - u32::from(v6.min(128))).unwrap_or(0);
            key[0] = 6;
            key[1..].copy_from_slice(&(u128::from(address) & bits).to_be_bytes());
        }
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_net_are_one() {
        let key = |text: &str, v4, v6| masked(text.parse().unwrap(), v4, v6);
        assert_eq!(key("10.1.2.3", 24, 64), key("10.1.2.250", 24, 64));
        assert_ne!(key("10.1.2.3", 24, 64), key("10.1.3.3", 24, 64));
        assert_ne!(key("10.1.2.3", 32, 64), key("10.1.2.4", 32, 64));
        assert_eq!(key("10.1.2.3", 0, 0), key("192.0.2.1", 0, 0));
        assert_eq!(key("::ffff:10.1.2.3", 24, 64), key("10.1.2.4", 24, 64), "it is one of IPv4");
        assert_eq!(key("2001:db8:1:2::3", 24, 64), key("2001:db8:1:2:ffff::", 24, 64));
        assert_ne!(key("2001:db8:1:2::3", 24, 64), key("2001:db8:1:3::3", 24, 64));
        assert_ne!(key("2001:db8::1", 32, 128), key("2001:db8::2", 32, 128));
        assert_ne!(key("::", 0, 0), key("0.0.0.0", 0, 0));
    }
}
