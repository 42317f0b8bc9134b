//! Sets of words, hosts and networks: 100,000 entries cost what ten do.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use memchr::memchr_iter;

use super::hash::ByteSet;
use super::text::Text;

/// Byte strings that are compared as a whole.
#[derive(Debug, Clone)]
pub(super) enum Words {
    One(Text),
    Few(Box<[Box<[u8]>]>),
    Many(Box<ByteSet>),
}

impl Words {
    pub fn new<T: AsRef<[u8]>>(words: impl IntoIterator<Item = T>) -> Words {
        let mut words: Vec<Box<[u8]>> = words.into_iter().map(|word| word.as_ref().into()).collect();
        match words.len() {
            1 => words.pop().map_or(Words::Few(Box::default()), |only| Words::One((*only).into())),
            0..=4 => Words::Few(words.into()),
            _ => Words::Many(Box::new(words.into_iter().collect())),
        }
    }

    #[inline]
    pub fn contains(&self, word: &[u8]) -> bool {
        match self {
            Words::One(own) => **own == *word,
            Words::Few(all) => all.iter().any(|own| **own == *word),
            Words::Many(set) => set.contains(word),
        }
    }

    pub fn iter(&self) -> Box<dyn Iterator<Item = &[u8]> + '_> {
        match self {
            Words::One(own) => Box::new(std::iter::once(&**own)),
            Words::Few(all) => Box::new(all.iter().map(|own| &**own)),
            Words::Many(set) => Box::new(set.iter().map(|own| &**own)),
        }
    }
}

/// Names of hosts; each stands for itself and, or only, for what is below it.
#[derive(Debug, Clone, Default)]
pub(super) struct Hosts {
    /// `shop.example`: itself.
    exact: ByteSet,
    /// `.shop.example`: what ends so.
    below: ByteSet,
    longest: usize,
}

impl Hosts {
    /// An entry takes its host and all below it; with a leading `.` or `*.` only those below.
    pub fn new<'e>(entries: impl Iterator<Item = &'e str>) -> Hosts {
        let mut hosts = Hosts::default();
        for entry in entries {
            let entry = entry.to_ascii_lowercase();
            let entry = entry.trim_end_matches('.');
            let base = entry.strip_prefix('*').unwrap_or(entry);
            let (own, name) = match base.strip_prefix('.') {
                Some(name) => (false, name),
                None => (true, base),
            };
            if own {
                hosts.exact.insert(name.as_bytes().into());
            }
            hosts.below.insert(format!(".{name}").into_bytes().into());
            hosts.longest = hosts.longest.max(name.len() + 1);
        }
        hosts
    }

    /// So many hosts that are in it.
    pub fn some(&self, most: usize) -> impl Iterator<Item = String> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let exact = self.exact.iter().take(most).map(move |name| text(name));
        exact.chain(self.below.iter().take(most).map(move |end| format!("www{}", text(end))))
    }

    pub fn contains(&self, host: &str) -> bool {
        let host = host.as_bytes();
        self.exact.contains(host)
            || memchr_iter(b'.', host)
                .filter(|at| *at > 0 && host.len() - at <= self.longest)
                .any(|at| self.below.contains(&host[at..]))
    }
}

/// Networks as sorted ranges that neither touch nor overlap.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Nets {
    /// First and last address of each range.
    pub v4: Box<[(u32, u32)]>,
    pub v6: Box<[(u128, u128)]>,
}

impl Nets {
    pub fn new(nets: impl IntoIterator<Item = IpNet>) -> Nets {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for net in nets {
            match net {
                IpNet::V4(net) => v4.push((net.network().to_bits(), net.broadcast().to_bits())),
                IpNet::V6(net) => v6.push((net.network().to_bits(), net.broadcast().to_bits())),
            }
        }
        Nets { v4: merged(v4, u32::MAX, |end| end + 1), v6: merged(v6, u128::MAX, |end| end + 1) }
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(address) => within(&self.v4, address.to_bits()),
            IpAddr::V6(address) => within(&self.v6, address.to_bits()),
        }
    }

    /// Whether every address of `other` is in here.
    pub fn covers(&self, other: &Nets) -> bool {
        other.v4.iter().all(|range| enclosed(&self.v4, *range))
            && other.v6.iter().all(|range| enclosed(&self.v6, *range))
    }

    /// Whether an address is in both.
    pub fn meets(&self, other: &Nets) -> bool {
        self.v4.iter().any(|range| touched(&other.v4, *range)) || self.v6.iter().any(|range| touched(&other.v6, *range))
    }

    /// The first addresses of the first ranges, of each version so many at most.
    pub fn some(&self, most: usize) -> impl Iterator<Item = IpAddr> {
        let v4 = self.v4.iter().take(most).map(|range| IpAddr::V4(Ipv4Addr::from_bits(range.0)));
        v4.chain(self.v6.iter().take(most).map(|range| IpAddr::V6(Ipv6Addr::from_bits(range.0))))
    }

    /// Some address of them.
    pub fn first(&self) -> Option<IpAddr> {
        let v4 = self.v4.first().map(|range| IpAddr::V4(Ipv4Addr::from_bits(range.0)));
        v4.or_else(|| self.v6.first().map(|range| IpAddr::V6(Ipv6Addr::from_bits(range.0))))
    }
}

/// `10.0.0.0/8`, `10.0.0.1`, `2001:db8::/32`.
pub(super) fn net(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

fn merged<T: Ord + Copy>(mut ranges: Vec<(T, T)>, last: T, after: impl Fn(T) -> T) -> Box<[(T, T)]> {
    ranges.sort_unstable();
    let mut out: Vec<(T, T)> = Vec::with_capacity(ranges.len());
    for (start, end) in ranges {
        match out.last_mut() {
            Some(open) if open.1 == last || start <= after(open.1) => open.1 = open.1.max(end),
            _ => out.push((start, end)),
        }
    }
    out.into()
}

fn within<T: Ord + Copy>(ranges: &[(T, T)], value: T) -> bool {
    let behind = ranges.partition_point(|range| range.0 <= value);
    behind > 0 && ranges[behind - 1].1 >= value
}

fn enclosed<T: Ord + Copy>(ranges: &[(T, T)], (start, end): (T, T)) -> bool {
    let behind = ranges.partition_point(|range| range.0 <= start);
    behind > 0 && ranges[behind - 1].1 >= end
}

fn touched<T: Ord + Copy>(ranges: &[(T, T)], (start, end): (T, T)) -> bool {
    let behind = ranges.partition_point(|range| range.0 <= end);
    behind > 0 && ranges[behind - 1].1 >= start
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_stand_for_what_is_below() {
        let hosts = Hosts::new(["shop.example", "*.cdn.example.", ".Img.example", "example"].into_iter());
        for host in ["shop.example", "a.shop.example", "a.b.cdn.example", "x.img.example", "example"] {
            assert!(hosts.contains(host), "{host}");
        }
        let hosts = Hosts::new(["shop.example", ".img.example"].into_iter());
        for host in ["myshop.example", "img.example", "example", "", ".", "shop.example.org"] {
            assert!(!hosts.contains(host), "{host}");
        }
    }

    #[test]
    fn nets_as_a_linear_search() {
        let texts = [
            "10.0.0.0/8",
            "10.1.0.0/16",
            "192.168.1.7",
            "255.255.255.255",
            "2001:db8::/32",
            "::1",
            "0.0.0.0/32",
            "11.0.0.0/8",
        ];
        let plain: Vec<IpNet> = texts.iter().filter_map(|text| net(text)).collect();
        assert_eq!(plain.len(), texts.len());
        let nets = Nets::new(plain.iter().copied());
        for text in [
            "9.255.255.255",
            "10.0.0.0",
            "10.1.2.3",
            "11.255.255.255",
            "12.0.0.0",
            "192.168.1.7",
            "192.168.1.8",
            "255.255.255.255",
            "0.0.0.0",
            "2001:db8::9",
            "2001:db9::",
            "::1",
            "::2",
            "::",
        ] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(nets.contains(address), plain.iter().any(|net| net.contains(&address)), "{text}");
        }
        assert!(nets.contains("::ffff:10.2.3.4".parse().unwrap()));
        assert!(nets.covers(&Nets::new(net("10.0.0.0/7").into_iter())));
        assert!(!nets.covers(&Nets::new(net("8.0.0.0/5").into_iter())));
        assert!(nets.meets(&Nets::new(net("0.0.0.0/0"))) && nets.meets(&Nets::new(net("2001:db8:1::1"))));
        assert!(!nets.meets(&Nets::new(net("12.0.0.0/8"))) && !nets.meets(&Nets::new(net("2001:db9::/32"))));
        assert_eq!(net("10.0.0/8"), None);
    }

    #[test]
    fn words() {
        for count in [0, 1, 2, 4, 5, 50] {
            let words = Words::new((0..count).map(|i| format!("w{i}")));
            assert_eq!(words.iter().count(), count);
            assert!((0..60).all(|i| words.contains(format!("w{i}").as_bytes()) == (i < count)));
        }
    }
}
