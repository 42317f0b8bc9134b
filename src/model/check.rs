//! How the health of a server is asked for.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::fault::Place;
use super::pool::{Protocol, ProxyVersion};

#[derive(Debug, Clone, PartialEq)]
pub struct Check {
    pub probe: Probe,
    /// From one probe to the next.
    pub interval: Duration,
    /// The same while a change is under way: some probes in a row have said so already, but not enough.
    pub fast_interval: Option<Duration>,
    /// Share of the interval by which each wait is lengthened or shortened at random, 0.0 to 1.0.
    pub jitter: f64,
    /// For the whole probe, connecting included.
    pub timeout: Duration,
    /// Good probes in a row that bring a server up.
    pub rise: u32,
    /// Failed probes in a row that take it down.
    pub fall: u32,
    pub start: Start,
    pub on_down: OnDown,
    /// Where to probe, if not at the server's own address and port.
    pub address: Option<IpAddr>,
    pub port: Option<u16>,
    pub seal: Seal,
    /// Whether who answers by TLS has to prove who it is; `None`: as for the pool's other connections.
    pub verify: Option<bool>,
    /// The name it has to prove; `None`: as for the pool's other connections.
    pub server_name: Option<Arc<str>>,
    /// What an HTTP probe speaks: what the pool's servers are spoken to in.
    pub protocol: Protocol,
    /// The PROXY header that begins each probe, as it begins every other connection to these servers.
    /// Not where another port or address is named: who listens there expects none.
    pub send_proxy: Option<ProxyVersion>,
    pub place: Place,
}

/// What is thought of a server that no probe has been at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Start {
    /// It serves, and the first probe settles it.
    #[default]
    Unknown,
    /// It is up: `fall` failures take it down.
    Up,
    /// It is down: `rise` good probes bring it up.
    Down,
}

/// What becomes of a server's connections when it goes down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnDown {
    /// They stay as long as they last.
    #[default]
    Keep,
    /// Idle ones and tunnels are closed.
    Close,
}

/// Whether a probe goes by TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Seal {
    /// As the pool's other connections.
    #[default]
    AsPool,
    Tls,
    /// It begins in clear, and the server is asked for TLS in its own language.
    Starttls,
    Clear,
}

impl Check {
    /// What a check does that says only its probe.
    pub fn with(probe: Probe, place: Place) -> Check {
        let seconds = Duration::from_secs;
        Check {
            probe,
            interval: seconds(2),
            fast_interval: None,
            jitter: 0.1,
            timeout: seconds(1),
            rise: 2,
            fall: 3,
            start: Start::Unknown,
            on_down: OnDown::Keep,
            address: None,
            port: None,
            seal: Seal::AsPool,
            verify: None,
            server_name: None,
            protocol: Protocol::Http1,
            send_proxy: None,
            place,
        }
    }

    /// Where a server at `address` is probed.
    pub fn target(&self, address: SocketAddr) -> SocketAddr {
        SocketAddr::new(self.address.unwrap_or(address.ip()), self.port.unwrap_or(address.port()))
    }

    /// Whether it asks somebody else than the server itself.
    pub fn is_elsewhere(&self) -> bool {
        self.address.is_some() || self.port.is_some()
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum Probe {
    /// A connection can be made; what is sent is answered by what is expected.
    Tcp {
        send: Option<Arc<[u8]>>,
        expect: Option<Pattern>,
    },
    /// A handshake succeeds.
    Tls,
    /// A request is answered as expected.
    Http(Http),
    /// The service, by the protocol `grpc.health.v1`, says that it serves; the empty name is the server as a whole.
    Grpc {
        service: Arc<str>,
    },
    /// A greeting, `EHLO` (or `HELO` where that is not known) by this name, `QUIT`.
    Smtp {
        helo: Arc<str>,
    },
    Pop3,
    Imap,
    Ftp,
    Rtsp {
        method: RtspMethod,
        path: Arc<str>,
        expect_status: Vec<RangeInclusive<u16>>,
    },
    /// A question is answered without error.
    Dns {
        name: Arc<str>,
        kind: DnsKind,
        over_tcp: bool,
    },
    /// An ICMP echo comes back.
    Ping,
    /// What is sent is answered by what is expected; where nothing is, it is not answered by "unreachable".
    Udp {
        send: Arc<[u8]>,
        expect: Option<Pattern>,
    },
    /// A program ends with 0. Its name and its arguments.
    Command(Vec<Arc<str>>),
    /// The server itself says how it is.
    Agent {
        send: Arc<[u8]>,
    },
}

impl Probe {
    /// The configuration's word for it.
    pub fn word(&self) -> &'static str {
        match self {
            Probe::Tcp { .. } => "tcp",
            Probe::Tls => "tls",
            Probe::Http(_) => "http",
            Probe::Grpc { .. } => "grpc",
            Probe::Smtp { .. } => "smtp",
            Probe::Pop3 => "pop3",
            Probe::Imap => "imap",
            Probe::Ftp => "ftp",
            Probe::Rtsp { .. } => "rtsp",
            Probe::Dns { .. } => "dns",
            Probe::Ping => "ping",
            Probe::Udp { .. } => "udp",
            Probe::Command(_) => "command",
            Probe::Agent { .. } => "agent",
        }
    }

    /// A connection, and no more.
    pub const CONNECT: Probe = Probe::Tcp { send: None, expect: None };
}

#[derive(Debug, Clone, PartialEq)]
pub struct Http {
    pub method: Arc<str>,
    pub path: Arc<str>,
    /// The Host field; the server's address where none is given.
    pub host: Option<Arc<str>>,
    pub expect_status: Vec<RangeInclusive<u16>>,
    pub expect_body: Option<Pattern>,
    /// A JSON pointer (RFC 6901) and the value that has to be there.
    pub expect_json: Option<(Arc<str>, serde_json::Value)>,
    /// MD5 of the whole body, as keepalived's `digest` has it.
    pub digest: Option<[u8; 16]>,
    /// The connection is kept for the next probe.
    pub keep_alive: bool,
}

impl Http {
    /// `GET` of a path, any answer that is no error.
    pub fn get(path: Arc<str>) -> Http {
        Http {
            method: "GET".into(),
            path,
            host: None,
            expect_status: vec![200..=399],
            expect_body: None,
            expect_json: None,
            digest: None,
            keep_alive: false,
        }
    }

    /// Whether more than the head of the answer is looked at.
    pub fn reads_body(&self) -> bool {
        self.expect_body.is_some() || self.expect_json.is_some() || self.digest.is_some()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RtspMethod {
    Options,
    Describe,
}

impl RtspMethod {
    pub fn word(self) -> &'static str {
        match self {
            RtspMethod::Options => "OPTIONS",
            RtspMethod::Describe => "DESCRIBE",
        }
    }
}

/// A type of DNS records, by its number (RFC 1035 §3.2.2, RFC 3596 §2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DnsKind {
    A = 1,
    Ns = 2,
    Cname = 5,
    Soa = 6,
    Ptr = 12,
    Mx = 15,
    Txt = 16,
    Aaaa = 28,
    Srv = 33,
}

impl DnsKind {
    pub const WORDS: [(&'static str, DnsKind); 9] = [
        ("A", DnsKind::A),
        ("AAAA", DnsKind::Aaaa),
        ("CNAME", DnsKind::Cname),
        ("MX", DnsKind::Mx),
        ("NS", DnsKind::Ns),
        ("PTR", DnsKind::Ptr),
        ("SOA", DnsKind::Soa),
        ("SRV", DnsKind::Srv),
        ("TXT", DnsKind::Txt),
    ];
}

/// A regular expression, and its text. Equal when the texts are.
#[derive(Debug, Clone)]
pub struct Pattern {
    text: Arc<str>,
    regex: regex::bytes::Regex,
}

impl Pattern {
    /// What a compiled one may take, in bytes: it is asked of small answers.
    const LARGEST: usize = 1 << 20;

    /// # Errors
    /// What is wrong with it.
    pub fn new(text: &str) -> Result<Pattern, String> {
        let built = regex::bytes::RegexBuilder::new(text).size_limit(Self::LARGEST).build();
        let regex = built.map_err(|error| error.to_string())?;
        Ok(Pattern { text: text.into(), regex })
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn is_in(&self, bytes: &[u8]) -> bool {
        self.regex.is_match(bytes)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Pattern) -> bool {
        self.text == other.text
    }
}
