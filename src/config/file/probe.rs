//! What a check asks: its probe, and the keys that only some probes have.

use std::sync::Arc;

use super::super::node::{Entry, Node, Value};
use super::super::{is_token, units};
use super::walk::{Fields, Walk};
use crate::model::check::{DnsKind, Http, Pattern, Probe, RtspMethod};
use crate::model::limits::Limits;

/// What a check can ask.
pub const WORDS: [&str; 15] = [
    "tcp", "tls", "http", "https", "grpc", "smtp", "pop3", "imap", "ftp", "dns", "rtsp", "ping", "udp", "command",
    "agent",
];

const WEB: &[&str] = &["http", "https"];
const SEALABLE: &[&str] = &["tcp", "http", "grpc", "smtp", "pop3", "imap", "ftp", "dns", "rtsp", "agent"];
const SEALED: &[&str] = &["tls", "https", "tcp", "http", "grpc", "smtp", "pop3", "imap", "ftp", "dns", "rtsp", "agent"];
/// Keys that only some probes have.
const DETAILS: [(&str, &[&str]); 17] = [
    ("method", WEB),
    ("host", WEB),
    ("expect-status", &["http", "https", "rtsp"]),
    ("expect-body", WEB),
    ("expect-json", WEB),
    ("digest", WEB),
    ("keep-alive", WEB),
    ("path", &["rtsp"]),
    ("type", &["dns"]),
    ("over-tcp", &["dns"]),
    ("send", &["tcp", "udp", "agent"]),
    ("send-hex", &["tcp", "udp", "agent"]),
    ("expect", &["tcp", "udp"]),
    ("over-tls", SEALABLE),
    ("starttls", &["smtp", "pop3", "imap", "ftp"]),
    ("verify", SEALED),
    ("server-name", SEALED),
];

/// The value of a key that this probe may have.
pub fn detail<'n>(fields: &mut Fields<'_, '_, 'n>, said: Option<&Entry>, key: &'static str) -> Option<&'n Node> {
    let (_, whose) = DETAILS.iter().find(|(detail, _)| *detail == key)?;
    let allowed = said.is_some_and(|entry| whose.contains(&entry.key.as_str()));
    if !allowed {
        return None;
    }
    fields.get(key).map(|entry| &entry.node)
}

/// Reports keys that belong to other probes.
pub fn strangers(fields: &mut Fields<'_, '_, '_>, said: Option<&Entry>) {
    let walk = fields.walk;
    for (key, whose) in DETAILS {
        if said.is_some_and(|entry| whose.contains(&entry.key.as_str())) {
            continue;
        }
        let Some(entry) = fields.get(key).filter(|_| said.is_some()) else { continue };
        let fault = walk.error("R0125", &entry.node, format!("{key} belongs to a check by {}", whose.join(", ")));
        walk.push(fault.help("take it away, or ask in another way"));
    }
}

/// The probe itself; `None` where it is faulty.
pub fn read(fields: &mut Fields<'_, '_, '_>, entry: &Entry) -> Option<Probe> {
    let (walk, node, word) = (fields.walk, &entry.node, entry.key.as_str());
    Some(match word {
        "tcp" => {
            let (send, expect) = (bytes(fields, entry), expect(fields, entry, "expect"));
            flag(walk, node, word).then_some(Probe::Tcp { send: send?, expect: expect? })?
        }
        "tls" => flag(walk, node, word).then_some(Probe::Tls)?,
        "http" | "https" => Probe::Http(http(fields, entry)?),
        // The empty name asks gRPC servers for their health as a whole.
        "grpc" => match node.value {
            Value::Boolean(_) => flag(walk, node, word).then(|| Probe::Grpc { service: "".into() })?,
            _ => Probe::Grpc { service: walk.string(node, word)?.into() },
        },
        "smtp" => match node.value {
            Value::Boolean(_) => flag(walk, node, word).then(|| Probe::Smtp { helo: "reeve.invalid".into() })?,
            _ => Probe::Smtp { helo: host(walk, node, word)? },
        },
        "pop3" => flag(walk, node, word).then_some(Probe::Pop3)?,
        "imap" => flag(walk, node, word).then_some(Probe::Imap)?,
        "ftp" => flag(walk, node, word).then_some(Probe::Ftp)?,
        "rtsp" => rtsp(fields, entry)?,
        "dns" => dns(fields, entry)?,
        "ping" => flag(walk, node, word).then_some(Probe::Ping)?,
        "udp" => {
            let (send, expect) = (bytes(fields, entry), expect(fields, entry, "expect"));
            let send = send?.unwrap_or_else(|| Arc::from(&b"\n"[..]));
            flag(walk, node, word).then_some(Probe::Udp { send, expect: expect? })?
        }
        "command" => command(walk, node)?,
        _ => {
            let send = bytes(fields, entry)?.unwrap_or_default();
            flag(walk, node, word).then_some(Probe::Agent { send })?
        }
    })
}

fn http(fields: &mut Fields<'_, '_, '_>, entry: &Entry) -> Option<Http> {
    let (walk, said) = (fields.walk, Some(entry));
    let path = path(walk, &entry.node, &entry.key);
    let own_method = detail(fields, said, "method").and_then(|node| method(walk, node));
    let own_host = detail(fields, said, "host").and_then(|node| host(walk, node, "host"));
    let status = detail(fields, said, "expect-status").and_then(|node| expected(walk, node));
    let expect_body = expect(fields, entry, "expect-body");
    let expect_json = detail(fields, said, "expect-json").map(|node| json(walk, node));
    let digest = detail(fields, said, "digest").map(|node| digest(walk, node));
    let keep_alive = detail(fields, said, "keep-alive").map(|node| walk.boolean(node, "keep-alive"));
    let plain = Http::get(path?);
    Some(Http {
        method: own_method.unwrap_or_else(|| plain.method.clone()),
        host: own_host,
        expect_status: status.unwrap_or_else(|| plain.expect_status.clone()),
        expect_body: expect_body?,
        expect_json: transposed(expect_json)?,
        digest: transposed(digest)?,
        keep_alive: transposed(keep_alive)?.unwrap_or(false),
        ..plain
    })
}

/// What is not there is fine; what is there has to be right.
fn transposed<T>(read: Option<Option<T>>) -> Option<Option<T>> {
    match read {
        None => Some(None),
        Some(read) => read.map(Some),
    }
}

fn rtsp(fields: &mut Fields<'_, '_, '_>, entry: &Entry) -> Option<Probe> {
    let (walk, said) = (fields.walk, Some(entry));
    let method = match walk.word(&entry.node, "rtsp", &["OPTIONS", "DESCRIBE"]) {
        Some("OPTIONS") => Some(RtspMethod::Options),
        Some(_) => Some(RtspMethod::Describe),
        None => None,
    };
    let own = detail(fields, said, "path").map(|node| path(walk, node, "path"));
    let status = detail(fields, said, "expect-status").and_then(|node| expected(walk, node));
    let path = transposed(own)?.unwrap_or_else(|| "/".into());
    // A stream that wants a password is there.
    let usual = || match method {
        Some(RtspMethod::Describe) => vec![200..=200, 401..=401],
        _ => vec![200..=200],
    };
    Some(Probe::Rtsp { method: method?, path, expect_status: status.unwrap_or_else(usual) })
}

fn dns(fields: &mut Fields<'_, '_, '_>, entry: &Entry) -> Option<Probe> {
    let (walk, said) = (fields.walk, Some(entry));
    let words: Vec<&'static str> = DnsKind::WORDS.iter().map(|(word, _)| *word).collect();
    let kind = detail(fields, said, "type").map(|node| {
        let word = walk.word(node, "type", &words)?;
        DnsKind::WORDS.iter().find(|(known, _)| *known == word).map(|(_, kind)| *kind)
    });
    let over_tcp = detail(fields, said, "over-tcp").map(|node| walk.boolean(node, "over-tcp"));
    let text = walk.text(&entry.node, "dns")?;
    // RFC 1035 §2.3.4: a label has 63 octets at most, a name 255 with their lengths.
    let name = text.strip_suffix('.').unwrap_or(text);
    let label = |label: &str| (1..=63).contains(&label.len());
    if !text.is_ascii() || name.len() > 253 || !name.is_empty() && !name.split('.').all(label) {
        walk.push(walk.error("R0117", &entry.node, format!("dns \"{text}\" is no name that could be asked for")));
        return None;
    }
    let sealed = detail(fields, said, "over-tls").is_some_and(|node| node.value == Value::Boolean(true));
    let over_tcp = transposed(over_tcp)?.unwrap_or(false) || sealed;
    Some(Probe::Dns { name: name.into(), kind: transposed(kind)?.unwrap_or(DnsKind::A), over_tcp })
}

fn command(walk: &Walk<'_>, node: &Node) -> Option<Probe> {
    let Value::List(items) = &node.value else {
        let fault =
            walk.error("R0105", node, format!("command is a list of a program and its arguments, not {}", node.kind()));
        walk.push(fault.help("for example command = [\"/usr/local/bin/check\", \"--fast\"]; no shell reads it"));
        return None;
    };
    let words: Vec<Arc<str>> = items.iter().filter_map(|item| Some(walk.text(item, "command")?.into())).collect();
    if items.is_empty() {
        walk.push(walk.error("R0117", node, "command is empty"));
    }
    (!words.is_empty() && words.len() == items.len()).then_some(Probe::Command(words))
}

/// `send` or `send-hex`; the outer `None` where it is faulty.
fn bytes(fields: &mut Fields<'_, '_, '_>, entry: &Entry) -> Option<Option<Arc<[u8]>>> {
    let walk = fields.walk;
    let (text, hex) = (detail(fields, Some(entry), "send"), detail(fields, Some(entry), "send-hex"));
    let (node, bytes) = match (text, hex) {
        (None, None) => return Some(None),
        (Some(node), None) => (node, walk.string(node, "send")?.as_bytes().to_vec()),
        (None, Some(node)) => {
            let text = walk.string(node, "send-hex")?;
            let Some(bytes) = from_hex(text) else {
                walk.push(walk.error("R0117", node, format!("send-hex \"{text}\" is not pairs of hexadecimal digits")));
                return None;
            };
            (node, bytes)
        }
        (Some(_), Some(node)) => {
            walk.push(walk.error("R0124", node, "\"send\" and \"send-hex\" exclude each other"));
            return None;
        }
    };
    if bytes.len() > Limits::CHECK_SENT {
        walk.push(walk.error("R0110", node, format!("more than {} bytes to send", Limits::CHECK_SENT)));
        return None;
    }
    Some(Some(bytes.into()))
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text.chars().map(|c| c.to_digit(16).map(|digit| digit as u8)).collect::<Option<_>>()?;
    let pairs = digits.chunks_exact(2);
    pairs.remainder().is_empty().then(|| pairs.map(|pair| pair[0] << 4 | pair[1]).collect())
}

/// A regular expression; the outer `None` where it is faulty.
fn expect(fields: &mut Fields<'_, '_, '_>, entry: &Entry, key: &'static str) -> Option<Option<Pattern>> {
    let walk = fields.walk;
    let Some(node) = detail(fields, Some(entry), key) else { return Some(None) };
    match Pattern::new(walk.string(node, key)?) {
        Ok(pattern) => Some(Some(pattern)),
        Err(error) => {
            let why = error.lines().last().unwrap_or_default().trim().trim_start_matches("error: ").to_owned();
            walk.push(walk.error("R0117", node, format!("{key} is no regular expression: {why}")));
            None
        }
    }
}

fn digest(walk: &Walk<'_>, node: &Node) -> Option<[u8; 16]> {
    let text = walk.text(node, "digest")?;
    let digest = from_hex(text).and_then(|bytes| bytes.try_into().ok());
    if digest.is_none() {
        let fault = walk.error("R0117", node, format!("digest \"{text}\" is not an MD5 of 32 hexadecimal digits"));
        walk.push(fault.help("curl -s URL | md5sum"));
    }
    digest
}

/// `{ "/status" = "ok" }`.
fn json(walk: &Walk<'_>, node: &Node) -> Option<(Arc<str>, serde_json::Value)> {
    let help = "for example expect-json = { \"/status\" = \"ok\" }";
    let [entry] = walk.entries(node, "expect-json")? else {
        walk.push(walk.error("R0117", node, "expect-json is one pointer and the value there").help(help));
        return None;
    };
    if !entry.key.is_empty() && !entry.key.starts_with('/') {
        let fault = walk.error("R0117", node, format!("\"{}\" is no JSON pointer: it begins with \"/\"", entry.key));
        walk.push(fault.help(help));
        return None;
    }
    let value = match &entry.node.value {
        Value::String(text) => text.clone().into(),
        Value::Integer(Some(number)) => (*number).into(),
        Value::Float(number) => (*number).into(),
        Value::Boolean(yes) => (*yes).into(),
        _ => {
            let message =
                format!("expect-json compares with a string, a number, true or false, not {}", entry.node.kind());
            walk.push(walk.error("R0105", &entry.node, message));
            return None;
        }
    };
    Some((entry.key.as_str().into(), value))
}

/// `tcp = true`.
fn flag(walk: &Walk<'_>, node: &Node, name: &str) -> bool {
    let Some(yes) = walk.boolean(node, name) else { return false };
    if !yes {
        let fault = walk.error("R0117", node, format!("{name} = false checks nothing"));
        walk.push(fault.help("leave the check out for none"));
    }
    yes
}

fn path(walk: &Walk<'_>, node: &Node, key: &str) -> Option<Arc<str>> {
    if let Value::Boolean(_) = node.value {
        let fault = walk.error("R0105", node, format!("{key} is the path to ask for, not true or false"));
        walk.push(fault.help(format!("write {key} = \"/\"")));
        return None;
    }
    let text = walk.text(node, key)?;
    // What goes into a request line must not end it (RFC 9112 §3).
    let printable = text.bytes().all(|byte| (0x21..=0x7e).contains(&byte) && byte != b'#');
    if text.starts_with('/') && printable {
        return Some(text.into());
    }
    let fault = walk.error("R0117", node, format!("{key} \"{text}\" is not a path"));
    let after_host = text.split_once("://").map(|(_, rest)| rest.find('/').map_or("/", |at| &rest[at..]));
    let better = after_host.map(str::to_owned).unwrap_or_else(|| format!("/{}", text.trim_start_matches('/')));
    let better = Some(better).filter(|better| better.bytes().all(|byte| (0x21..=0x7e).contains(&byte) && byte != b'#'));
    walk.push(match better {
        Some(better) => fault.did_you_mean(better),
        None => fault.help("a path begins with \"/\" and has no blanks"),
    });
    None
}

fn method(walk: &Walk<'_>, node: &Node) -> Option<Arc<str>> {
    let text = walk.text(node, "method")?;
    // An answer to CONNECT has no end that a check could wait for.
    if !is_token(text) || text.eq_ignore_ascii_case("connect") {
        let fault = walk.error("R0117", node, format!("\"{text}\" is no method for a check"));
        walk.push(fault.allowed(["GET", "HEAD", "OPTIONS"]));
        return None;
    }
    let upper = text.to_ascii_uppercase();
    if upper != text {
        // Methods are case-sensitive (RFC 9110 §9.1).
        walk.push(walk.error("R0117", node, format!("\"{text}\" is no method: case matters")).did_you_mean(upper));
        return None;
    }
    Some(text.into())
}

pub fn host(walk: &Walk<'_>, node: &Node, key: &str) -> Option<Arc<str>> {
    let text = walk.text(node, key)?;
    if !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:[]".contains(&byte)) {
        walk.push(walk.error("R0117", node, format!("{key} \"{text}\" is not the name of a host")));
        return None;
    }
    Some(text.into())
}

/// `"200-299"`, `"200,301"`, `200`, or a list of these.
fn expected(walk: &Walk<'_>, node: &Node) -> Option<Vec<std::ops::RangeInclusive<u16>>> {
    let mut ranges = Vec::new();
    let mut whole = true;
    for node in walk.list(node) {
        if let Value::Integer(_) = node.value {
            match walk.integer(node, "expect-status", 100, 599).and_then(|code| u16::try_from(code).ok()) {
                Some(code) => ranges.push(code..=code),
                None => whole = false,
            }
            continue;
        }
        let Some(text) = walk.string(node, "expect-status") else {
            whole = false;
            continue;
        };
        match units::status_ranges(text) {
            Ok(more) => ranges.extend(more),
            Err(wrong) => {
                whole = false;
                let fault = walk.error("R0114", node, format!("expect-status \"{text}\" is {}", wrong.why));
                let fault = fault.allowed(["200", "200-299", "200,301-302"]);
                walk.push(match wrong.better {
                    Some(better) => fault.did_you_mean(better),
                    None => fault,
                });
            }
        }
    }
    if whole && ranges.is_empty() {
        walk.push(walk.error("R0117", node, "expect-status is empty: no answer would do"));
        whole = false;
    }
    whole.then_some(ranges)
}
