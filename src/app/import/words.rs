//! Values as Reeve's texts write them: strings, regexes, durations, sizes, addresses.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};

use super::site::Test;

/// A TOML string.
pub fn text(value: &str) -> String {
    let mut out = String::from("\"");
    for letter in value.chars() {
        match letter {
            '"' | '\\' => out.extend(['\\', letter]),
            letter if letter.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(letter))),
            letter => out.push(letter),
        }
    }
    out.push('"');
    out
}

/// A TOML list of strings.
pub fn texts<S: AsRef<str>>(values: &[S]) -> String {
    let values: Vec<String> = values.iter().map(|value| text(value.as_ref())).collect();
    format!("[{}]", values.join(", "))
}

/// A number as it stands; what is none becomes 0, which no key takes.
pub fn number(text: &str) -> String {
    text.parse::<u32>().unwrap_or(0).to_string()
}

/// A value of the rule language, in quotes where it needs them.
pub fn word(value: &str) -> String {
    const WORDS: [&str; 12] = ["use", "redirect", "answer", "deny", "drop", "in", "any", "=", "!=", "|", "&", "->"];
    let safe = |byte: u8| byte.is_ascii_alphanumeric() || b"-._/:,+*%@$?=&;()!<>{}'^\\|[]~`".contains(&byte);
    if !value.is_empty() && value.bytes().all(safe) && !value.starts_with('~') && !WORDS.contains(&value) {
        return value.to_owned();
    }
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
}

/// A regex of the rule language.
pub fn regex(pattern: &str) -> String {
    let mut out = String::from("~\"");
    let mut letters = pattern.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => out.extend(['\\', letters.next().unwrap_or('\\')]),
            '"' => out.push_str("\\\""),
            letter => out.push(letter),
        }
    }
    out.push('"');
    out
}

/// Text as a regex that finds just it.
pub fn literal(text: &str) -> String {
    regex_syntax::escape(text)
}

/// The path that is just this.
pub fn path_is(path: &str) -> Test {
    Test::new("path", exact(path))
}

/// The pattern of a path that is just this.
pub fn exact(path: &str) -> String {
    let safe = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    if path.starts_with('/') && path.bytes().all(safe) {
        return path.to_owned();
    }
    regex(&format!("^{}$", literal(&encoded(path))))
}

/// Paths that begin so.
pub fn path_begins(path: &str) -> Test {
    Test::new("path", regex(&format!("^{}", literal(&encoded(path)))))
}

/// What cannot stand in a request's path, percent-encoded.
pub fn encoded(path: &str) -> String {
    let mut out = String::new();
    for byte in path.bytes() {
        match byte {
            b'!'..=b'~' => out.push(char::from(byte)),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// `90`, `30s`, `1m30s`, `500ms` as a duration of ours; `scale` is what a bare number counts, in milliseconds.
/// `None` for what is no time, for none at all, and for more than a year.
pub fn duration(text: &str, scale: u64) -> Option<String> {
    let mut total = 0u64;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let number: u64 = rest.get(..digits)?.parse().ok()?;
        rest = rest.get(digits..)?.trim_start();
        let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let unit = match rest.get(..letters)? {
            "" => scale,
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 7 * 86_400_000,
            _ => return None,
        };
        rest = rest.get(letters..)?.trim_start();
        total = total.checked_add(number.checked_mul(unit)?)?;
    }
    if !(1..=365 * 86_400_000).contains(&total) {
        return None;
    }
    let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)];
    let whole = units.into_iter().find(|(_, scale)| total.is_multiple_of(*scale));
    Some(whole.map_or_else(|| format!("{total}ms"), |(unit, scale)| format!("{}{unit}", total / scale)))
}

/// `8m`, `64k`, `1g`, `512` (bytes) as a size of ours.
pub fn size(text: &str) -> Option<String> {
    let (number, unit) = match text.char_indices().last()? {
        (at, 'k' | 'K') => (text.get(..at)?, "KiB"),
        (at, 'm' | 'M') => (text.get(..at)?, "MiB"),
        (at, 'g' | 'G') => (text.get(..at)?, "GiB"),
        _ => (text, "B"),
    };
    let number: u64 = number.parse().ok()?;
    (number > 0).then(|| format!("{number}{unit}"))
}

/// An address of a server with its port: `None` for sockets and variables.
pub fn server(text: &str, port: u16) -> Option<String> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return (address.port() != 0).then(|| address.to_string());
    }
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Some(SocketAddr::new(address, port).to_string());
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, port.parse::<u16>().ok().filter(|port| *port != 0)?),
        None => (text, port),
    };
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let numeric = host.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    (host.len() <= 253 && host.split('.').all(label) && !numeric).then(|| format!("{host}:{port}"))
}

/// Leaves out what another of the addresses takes: one for all of its port takes the others, `[::]` those of IPv4 too.
pub fn covered(addresses: &mut Vec<SocketAddr>) {
    let whole: HashSet<(u16, bool)> =
        addresses.iter().filter(|one| one.ip().is_unspecified()).map(|one| (one.port(), one.is_ipv6())).collect();
    let mut seen = HashSet::new();
    addresses.retain(|one| {
        let by_six = whole.contains(&(one.port(), true)) && !(one.is_ipv6() && one.ip().is_unspecified());
        let by_four = whole.contains(&(one.port(), false)) && one.is_ipv4() && !one.ip().is_unspecified();
        !by_six && !by_four && seen.insert(*one)
    });
}

/// A network or an address as `from` takes it.
pub fn net(text: &str) -> Option<String> {
    if text.parse::<IpAddr>().is_ok() {
        return Some(text.to_owned());
    }
    text.parse::<ipnet::IpNet>().ok().map(|net| net.trunc().to_string())
}

/// Whether this can be the host of a section: `shop.example`, `*.example`, `*`.
pub fn is_host(text: &str) -> bool {
    let name = text.strip_prefix("*.").unwrap_or(text);
    let numeric = name.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
    let ip = name.parse::<std::net::Ipv4Addr>().is_ok();
    text == "*" || if numeric { ip } else { server(name, 1).is_some() && !name.contains(':') && !name.is_empty() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_as_reeve_reads_them() {
        assert_eq!(duration("90", 1000).as_deref(), Some("90s"));
        assert_eq!(duration("1m30s", 1000).as_deref(), Some("90s"));
        assert_eq!(duration("50000", 1).as_deref(), Some("50s"));
        assert_eq!(duration("250ms", 1000).as_deref(), Some("250ms"));
        for wrong in ["0", "", "x", "1y", "99999999999999999999", "-1", "400d"] {
            assert_eq!(duration(wrong, 1000), None, "{wrong}");
        }
        assert_eq!(size("8m").as_deref(), Some("8MiB"));
        assert_eq!((size("0"), size(""), size("é")), (None, None, None));
        assert_eq!(server("10.0.0.1", 80).as_deref(), Some("10.0.0.1:80"));
        assert_eq!(server("[::1]", 80).as_deref(), Some("[::1]:80"));
        assert_eq!(server("app.example:8080", 80).as_deref(), Some("app.example:8080"));
        for wrong in ["unix:/x", "$up", "a:0", "a:b", "", "1.2.3:80", "-a"] {
            assert_eq!(server(wrong, 80), None, "{wrong}");
        }
        assert_eq!(net("10.1.2.3/8").as_deref(), Some("10.0.0.0/8"));
        assert!(is_host("*.example") && is_host("*") && is_host("10.0.0.1") && !is_host("10.0.0") && !is_host("a:80"));
        assert_eq!(regex(r#"a"b\"c\d\\"#), r#"~"a\"b\"c\d\\""#);
        assert_eq!(word("use"), "\"use\"");
        assert_eq!(exact("/a b"), r#"~"^/a%20b$""#);
    }
}
