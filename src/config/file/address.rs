//! Addresses as text: what is listened on, what is dialled, which networks are meant.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;

use super::super::node::{Node, Value};
use super::super::units::Wrong;
use super::walk::Walk;
use crate::model::pool::Address;

impl Walk<'_> {
    /// An address to listen on.
    pub fn listen_address(&self, node: &Node, name: &str) -> Option<SocketAddr> {
        if let (Value::Integer(Some(port @ 1..=65_535)), None) = (&node.value, &node.raw) {
            let fault = self.error("R0105", node, format!("{name} is a string, not a number"));
            self.push(fault.help(format!("write \"[::]:{port}\" for all addresses, or \"127.0.0.1:{port}\"")));
            return None;
        }
        let text = self.string(node, name)?;
        match listen_address(text) {
            Ok(address) => {
                if address.port() == 0 {
                    let fault = self.warning("R0156", node, "port 0: the kernel picks a port that nobody knows");
                    self.push(fault);
                }
                Some(address)
            }
            Err(wrong) => {
                self.bad_address(node, name, text, wrong, &["ADDRESS:PORT", "[IPV6]:PORT"]);
                None
            }
        }
    }

    /// The address of a server.
    pub fn server_address(&self, node: &Node, name: &str) -> Option<Address> {
        let text = self.string(node, name)?;
        match server_address(text) {
            Ok(address) => Some(address),
            Err(wrong) => {
                self.bad_address(node, name, text, wrong, &["ADDRESS:PORT", "[IPV6]:PORT", "NAME:PORT"]);
                None
            }
        }
    }

    fn bad_address(&self, node: &Node, name: &str, text: &str, wrong: Wrong, allowed: &[&'static str]) {
        let fault =
            self.error("R0112", node, format!("{name} \"{text}\" {}", wrong.why)).allowed(allowed.iter().copied());
        let port = text.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        self.push(match (wrong.better, port) {
            (Some(better), _) => fault.did_you_mean(better),
            (None, Some(port)) if wrong.why == NAME => {
                fault.help(format!("listen on \"[::]:{port}\"; rules tell hosts apart"))
            }
            _ => fault,
        });
    }

    /// A network, or a single address.
    pub fn net(&self, node: &Node, name: &str) -> Option<IpNet> {
        let text = self.string(node, name)?;
        match net(text) {
            Ok(net) => Some(net),
            Err(wrong) => {
                let fault = self.error("R0113", node, format!("{name} \"{text}\" {}", wrong.why));
                let fault = fault.allowed(["ADDRESS", "ADDRESS/BITS"]);
                self.push(match wrong.better {
                    Some(better) => fault.did_you_mean(better),
                    None => fault,
                });
                None
            }
        }
    }
}

const NAME: &str = "is a name: listeners take addresses";

fn wrong(why: impl Into<String>, better: Option<String>) -> Wrong {
    Wrong { why: why.into(), better }
}

fn listen_address(text: &str) -> Result<SocketAddr, Wrong> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let bare = without_scheme(text);
    let better = if let Ok(port) = bare.trim_start_matches(['*', ':']).parse::<u16>() {
        // `8080`, `:8080` and `*:8080` mean every address of both families.
        Some(format!("[::]:{port}"))
    } else if let Some(port) = bare.strip_prefix("localhost:") {
        Some(format!("127.0.0.1:{port}"))
    } else {
        unbracketed(bare).or_else(|| bare.parse::<SocketAddr>().ok().map(|address| address.to_string()))
    };
    let better = better.filter(|better| better.parse::<SocketAddr>().is_ok());
    let alone = text.parse::<IpAddr>().ok();
    let better = better.or_else(|| alone.map(|address| SocketAddr::new(address, 80).to_string()));
    let why = if alone.is_some() {
        "has no port"
    } else if better.is_none() && text.rsplit_once(':').is_some_and(|(host, _)| is_host_name(host)) {
        NAME
    } else {
        "is not an address with a port"
    };
    Err(wrong(why, better))
}

fn server_address(text: &str) -> Result<Address, Wrong> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return match address.port() {
            0 => Err(wrong("has port 0", None)),
            _ => Ok(Address::Ip(address)),
        };
    }
    let bare = without_scheme(text);
    if bare != text {
        let better = server_address(bare).ok().map(|_| bare.to_owned()).or_else(|| {
            let port = if text.starts_with("https") { 443 } else { 80 };
            is_host_name(bare).then(|| format!("{bare}:{port}"))
        });
        return Err(wrong("is not an address with a port", better));
    }
    if let Some((host, port)) = text.rsplit_once(':')
        && is_host_name(host)
    {
        let number = port.bytes().all(|byte| byte.is_ascii_digit()).then(|| port.parse::<u16>().ok()).flatten();
        return match number.filter(|port| *port != 0) {
            // All digits and dots but no address: a typing error, not a name.
            Some(_) if host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') => {
                Err(wrong("is not an address with a port", None))
            }
            Some(port) => Ok(Address::Name { host: Arc::from(host.to_ascii_lowercase()), port }),
            None => Err(wrong("has no port from 1 to 65535", None)),
        };
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Err(wrong("has no port", Some(SocketAddr::new(address, 80).to_string())));
    }
    let better = unbracketed(text).or_else(|| is_host_name(text).then(|| format!("{text}:80")));
    Err(wrong(if better.is_some() { "has no port" } else { "is not an address with a port" }, better))
}

fn net(text: &str) -> Result<IpNet, Wrong> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(address));
    }
    match text.parse::<IpNet>() {
        // Bits behind the mask are a slip in one of the two.
        Ok(net) if net.trunc() == net => Ok(net),
        Ok(net) => Err(wrong("has bits behind its mask", Some(net.trunc().to_string()))),
        Err(_) => {
            let better = text.trim().parse::<IpNet>().ok().map(|net| net.trunc().to_string());
            Err(wrong("is not a network", better))
        }
    }
}

/// `::1:8080` as it was probably meant.
fn unbracketed(text: &str) -> Option<String> {
    let (host, port) = text.rsplit_once(':')?;
    let address: std::net::Ipv6Addr = host.parse().ok()?;
    let port: u16 = port.parse().ok()?;
    Some(format!("[{address}]:{port}"))
}

fn without_scheme(text: &str) -> &str {
    let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
    if rest.len() == text.len() { text } else { rest.split('/').next().unwrap_or(rest) }
}

/// A host name (RFC 1123 §2.1; underscores as the names of containers have them).
pub fn is_host_name(text: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    let text = text.strip_suffix('.').unwrap_or(text);
    text.len() <= 253 && text.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn better<T: std::fmt::Debug>(result: Result<T, Wrong>) -> Option<String> {
        result.unwrap_err().better
    }

    #[test]
    fn addresses_to_listen_on() {
        assert!(listen_address("127.0.0.1:80").is_ok() && listen_address("[::]:80").is_ok());
        for (text, meant) in [
            ("8080", Some("[::]:8080")),
            (":8080", Some("[::]:8080")),
            ("*:8080", Some("[::]:8080")),
            ("localhost:80", Some("127.0.0.1:80")),
            ("::1:8080", Some("[::1]:8080")),
            ("http://127.0.0.1:80/", Some("127.0.0.1:80")),
            ("127.0.0.1", Some("127.0.0.1:80")),
            ("127.0.0.1:65536", None),
            ("web.example:80", None),
            ("", None),
        ] {
            assert_eq!(better(listen_address(text)).as_deref(), meant, "{text}");
        }
    }

    #[test]
    fn addresses_of_servers() {
        assert_eq!(server_address("127.0.0.1:80"), Ok(Address::Ip("127.0.0.1:80".parse().unwrap())));
        assert_eq!(server_address("Web.example:80"), Ok(Address::Name { host: "web.example".into(), port: 80 }));
        for (text, meant) in [
            ("127.0.0.1", Some("127.0.0.1:80")),
            ("::1", Some("[::1]:80")),
            ("fe80::2:1:8080", Some("[fe80::2:1:8080]:80")),
            ("web.example", Some("web.example:80")),
            ("http://web.example", Some("web.example:80")),
            ("https://web.example/x", Some("web.example:443")),
            ("http://web.example:81", Some("web.example:81")),
            ("256.1.1.1:80", None),
            ("127.0.0.1:0", None),
            ("web.example:0", None),
            ("web.example:http", None),
            ("a b:80", None),
            ("", None),
        ] {
            assert_eq!(better(server_address(text)).as_deref(), meant, "{text}");
        }
    }

    #[test]
    fn networks() {
        assert_eq!(net("10.0.0.0/8"), Ok("10.0.0.0/8".parse().unwrap()));
        assert_eq!(net("::1"), Ok("::1/128".parse().unwrap()));
        assert_eq!(better(net("10.1.0.0/8")).as_deref(), Some("10.0.0.0/8"));
        assert_eq!(better(net("10.0.0.0/33")), None);
    }
}
