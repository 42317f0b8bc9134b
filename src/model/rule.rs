//! The rule language as data: what `config::rules` reads and `route` compiles.
//!
//! One type a production of the grammar (docs/rules.md). Names of pools have been resolved, globs and
//! regexes are still text: compiling them is `route`'s.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::fault::Place;

/// The rules that one or more listeners share: the contents of a set of files.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RuleSet {
    /// The files, as they were named.
    pub files: Vec<Arc<str>>,
    pub sections: Vec<Section>,
    pub lists: Vec<List>,
    pub maps: Vec<Map>,
    pub expects: Vec<Expect>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    Http,
    Rtsp,
    Tcp,
}

impl Kind {
    pub fn word(self) -> &'static str {
        match self {
            Kind::Http => "http",
            Kind::Rtsp => "rtsp",
            Kind::Tcp => "tcp",
        }
    }
}

/// The rules of one kind for some hosts, in the order they were written: the first match wins.
#[derive(Debug, Clone, PartialEq)]
pub struct Section {
    pub kind: Kind,
    /// Empty for `tcp`.
    pub hosts: Vec<(HostPattern, Place)>,
    pub paths: PathPolicy,
    pub rules: Vec<Rule>,
    pub place: Place,
}

/// Hosts are in lower case, without port and trailing dot.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HostPattern {
    Any,
    Exact(Arc<str>),
    /// `*.example` is kept as `.example`: any host that ends so, with at least one label before it.
    Wildcard(Arc<str>),
}

/// What is done to a path before it is matched and forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum PathPolicy {
    /// Unreserved characters decoded, dot segments removed; `%00`, `%0D`, `%0A` refused.
    #[default]
    Safe,
    /// As `Safe`, and `%2F` and `%5C` refused too.
    Strict,
    /// Matched and forwarded as sent.
    AsIs,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    pub name: Arc<str>,
    /// `file:rule` where that is unique in the file, else `file:section/rule`; `shop.rules:beta`.
    pub id: Arc<str>,
    /// All must hold. Empty for `any`.
    pub condition: Vec<Term>,
    pub action: Action,
    pub refinements: Vec<Refinement>,
    pub place: Place,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Term {
    /// `!`: holds when the whole test, with all its patterns, does not.
    pub negated: bool,
    pub test: Test,
    pub place: Place,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Test {
    /// `tls-passthrough` only: no ClientHello came.
    NoTls,
    Path(Patterns),
    Host(Patterns),
    Sni(Patterns),
    ContentType(Patterns),
    Header {
        name: Arc<str>,
        check: ValueTest,
    },
    Cookie {
        name: Arc<str>,
        check: ValueTest,
    },
    Query {
        name: Arc<str>,
        check: ValueTest,
    },
    /// Case-sensitive, any of them.
    Method(Vec<Arc<str>>),
    Alpn(Vec<Arc<str>>),
    /// Names of listeners.
    Listener(Vec<Arc<str>>),
    From(Sources),
    ClientCertificate(Option<CertificateTest>),
    Body {
        part: BodyPart,
        check: ValueTest,
    },
    /// Holds for this share of requests, in hundredths of a percent; of one key always alike.
    Chance {
        share: u32,
        of: Option<Key>,
    },
}

/// `path /a | /b`, `host in NAME`.
#[derive(Debug, Clone, PartialEq)]
pub enum Patterns {
    AnyOf(Vec<Pattern>),
    /// Position in `RuleSet::lists`.
    InList(usize),
}

#[derive(Debug, Clone, PartialEq)]
pub enum Pattern {
    Glob {
        text: Arc<str>,
        place: Place,
    },
    /// The regex without its `~"` and `"`, with `\"` already undone.
    Regex {
        text: Arc<str>,
        place: Place,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub enum ValueTest {
    Present,
    /// `=`: any field line, or all of them joined by commas, is one of these.
    Equals(Vec<Arc<str>>),
    /// `!=`: the opposite of `Equals`.
    Differs(Vec<Arc<str>>),
    Regex {
        text: Arc<str>,
        place: Place,
    },
    /// Position in `RuleSet::lists`.
    InList(usize),
}

#[derive(Debug, Clone, PartialEq)]
pub enum Sources {
    Nets(Vec<IpNet>),
    /// Position in `RuleSet::lists`.
    InList(usize),
}

#[derive(Debug, Clone, PartialEq)]
pub struct CertificateTest {
    pub field: CertificateField,
    /// `Equals` with one value, or `Regex`.
    pub check: ValueTest,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertificateField {
    Subject,
    San,
    Issuer,
    Fingerprint,
}

#[derive(Debug, Clone, PartialEq)]
pub enum BodyPart {
    Text,
    Form(Arc<str>),
    /// A JSON pointer (RFC 6901).
    Json(Arc<str>),
}

#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    Use { target: Target, by: Option<Key> },
    Redirect { code: u16, to: Template },
    Answer { code: u16, text: Option<Arc<str>> },
    Deny,
    Drop,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    /// Position in `Config::pools`.
    Pool(usize),
    /// Shares in hundredths of a percent, at most 10,000 together; `otherwise` has the rest.
    Split { shares: Vec<(usize, u32)>, otherwise: usize },
    /// `use map NAME key [else POOL]`; `map` is its position in `RuleSet::maps`.
    Map { name: Arc<str>, map: usize, key: Key, otherwise: Option<usize> },
}

/// What a value is taken from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// The path that was matched, without query.
    Path,
    Host,
    Source,
    /// Path and query.
    Url,
    /// `{name}` of the rule's path glob.
    Capture(Arc<str>),
    /// `$1` to `$9` of the rule's path regex.
    Group(u8),
    Header(Arc<str>),
    Cookie(Arc<str>),
    Query(Arc<str>),
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Key::Path => f.write_str("path"),
            Key::Host => f.write_str("host"),
            Key::Source => f.write_str("source"),
            Key::Url => f.write_str("url"),
            Key::Capture(name) => write!(f, "{{{name}}}"),
            Key::Group(number) => write!(f, "${number}"),
            Key::Header(name) => write!(f, "header:{name}"),
            Key::Cookie(name) => write!(f, "cookie:{name}"),
            Key::Query(name) => write!(f, "query:{name}"),
        }
    }
}

/// Text with holes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    pub parts: Vec<TemplatePart>,
    pub place: Place,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TemplatePart {
    Text(Arc<str>),
    /// `$1` to `$9`.
    Group(u8),
    /// `{name}` or `${name}`.
    Capture(Arc<str>),
    /// `{host}` and `{path}` of the request, where no path of the rule captures that name.
    Host,
    Path,
}

/// An indented line below a rule.
#[derive(Debug, Clone, PartialEq)]
pub enum Refinement {
    SetHeader { name: Arc<str>, value: Template },
    RemoveHeader { name: Arc<str> },
    Rewrite(Template),
    RateLimit { count: u32, per: Duration, key: Key },
    BodyLimit { bytes: u64 },
    ConnectionLimit { count: u32 },
    Timeout { which: RuleTimeout, after: Duration },
    Retry { attempts: u32, on: Vec<Arc<str>> },
    Mirror { pool: usize, share: Option<u32> },
    AuthBasic { users: Arc<Users> },
    AuthForward { url: Arc<AuthUrl> },
    Priority(i32),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleTimeout {
    /// Silence within a body, of the request or the answer, in an open WebSocket and in a connection that is passed on.
    Idle,
    /// The whole request.
    Total,
    Queue,
    Connect,
    TlsHandshake,
    RequestBody,
    Response,
    ResponseBody,
    ClientWrite,
    Tunnel,
    TcpIdle,
    HalfClosed,
}

impl RuleTimeout {
    pub const ALL: [RuleTimeout; 12] = [
        RuleTimeout::Idle,
        RuleTimeout::Total,
        RuleTimeout::Queue,
        RuleTimeout::Connect,
        RuleTimeout::TlsHandshake,
        RuleTimeout::RequestBody,
        RuleTimeout::Response,
        RuleTimeout::ResponseBody,
        RuleTimeout::ClientWrite,
        RuleTimeout::Tunnel,
        RuleTimeout::TcpIdle,
        RuleTimeout::HalfClosed,
    ];

    /// As a rule and `[timeouts]` name it.
    pub fn word(self) -> &'static str {
        match self {
            RuleTimeout::Idle => "idle",
            RuleTimeout::Total => "total",
            RuleTimeout::Queue => "queue",
            RuleTimeout::Connect => "connect",
            RuleTimeout::TlsHandshake => "tls-handshake",
            RuleTimeout::RequestBody => "request-body",
            RuleTimeout::Response => "response",
            RuleTimeout::ResponseBody => "response-body",
            RuleTimeout::ClientWrite => "client-write",
            RuleTimeout::Tunnel => "tunnel",
            RuleTimeout::TcpIdle => "tcp-idle",
            RuleTimeout::HalfClosed => "half-closed",
        }
    }

    /// Whether a rule of that kind waits for it.
    pub fn is_of(self, kind: Kind) -> bool {
        let passed_on = [
            RuleTimeout::Idle,
            RuleTimeout::Queue,
            RuleTimeout::Connect,
            RuleTimeout::TlsHandshake,
            RuleTimeout::TcpIdle,
            RuleTimeout::HalfClosed,
        ];
        if kind == Kind::Tcp { passed_on.contains(&self) } else { self != RuleTimeout::TcpIdle }
    }
}

/// `auth basic "FILE"`, read at load: who may come in.
#[derive(Clone, PartialEq, Eq)]
pub struct Users {
    /// As it was named.
    pub file: Arc<str>,
    /// Names and the argon2id hashes of passwords (PHC), sorted.
    pub entries: Vec<(Arc<str>, Arc<str>)>,
}

impl Users {
    pub fn hash(&self, name: &str) -> Option<&Arc<str>> {
        let at = self.entries.binary_search_by(|(own, _)| (**own).cmp(name)).ok()?;
        Some(&self.entries.get(at)?.1)
    }
}

impl std::fmt::Debug for Users {
    /// Without the hashes.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} users of {}", self.entries.len(), self.file)
    }
}

/// `auth forward URL`: a service that is asked whether a request may pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthUrl {
    /// An address or a name, without brackets.
    pub host: Arc<str>,
    pub port: u16,
    /// By TLS, and it has to prove that it is `host` to whom the system trusts.
    pub tls: bool,
    /// Scheme and authority, by which connections to it are known.
    pub origin: Arc<str>,
    /// What `Host` says.
    pub authority: Arc<str>,
    /// Path and query.
    pub target: Arc<str>,
}

/// `list NAME from "file"`, read at load.
#[derive(Debug, Clone, PartialEq)]
pub struct List {
    pub name: Arc<str>,
    /// The entries, comments and blank lines left out; their kind follows from their use.
    pub entries: Vec<Arc<str>>,
    /// The list's own file, as it was named.
    pub file: Arc<str>,
    pub place: Place,
}

/// `map NAME from "file"`, read at load.
#[derive(Debug, Clone, PartialEq)]
pub struct Map {
    pub name: Arc<str>,
    /// Key and value of each line; no key stands twice.
    pub entries: Vec<(Arc<str>, Arc<str>)>,
    /// The positions of the values in `Config::pools`, entry by entry, where a rule says `use map`; else empty.
    pub pools: Vec<usize>,
    /// The map's own file, as it was named.
    pub file: Arc<str>,
    pub place: Place,
}

/// A test beside the rules.
#[derive(Debug, Clone, PartialEq)]
pub struct Expect {
    pub kind: Kind,
    /// `GET`, `DESCRIBE`; empty for `tcp`.
    pub method: Arc<str>,
    /// The host of a URL, of a `host:` fact, or the first exact host of the nearest section of that
    /// kind above; `None` where there is none of these.
    pub host: Option<Arc<str>>,
    /// Path and query; empty for `tcp`.
    pub target: Arc<str>,
    pub facts: Facts,
    pub outcome: Outcome,
    pub place: Place,
}

/// What an `expect` line says of the request besides its target.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Facts {
    pub headers: Vec<(Arc<str>, Arc<str>)>,
    /// In hundredths of a percent, 0 to 9999.
    pub roll: Option<u32>,
    pub from: Option<IpAddr>,
    pub sni: Option<Arc<str>>,
    /// All that the client offers.
    pub alpn: Vec<Arc<str>>,
    /// No ClientHello came.
    pub no_tls: bool,
    pub listener: Option<Arc<str>>,
    pub body: Option<Arc<str>>,
    pub certificate: Option<CertificateFacts>,
}

/// What the client's certificate of an `expect` line says; what is not told is empty.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CertificateFacts {
    pub subject: Arc<str>,
    pub issuer: Arc<str>,
    pub names: Vec<Arc<str>>,
    /// In lower-case hex, without colons.
    pub fingerprint: Arc<str>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// A pool's name, and the value it is used by where the line says one.
    Pool {
        name: Arc<str>,
        by: Option<Arc<str>>,
    },
    /// A code, and for a redirect its expanded target.
    Code {
        code: u16,
        target: Option<Arc<str>>,
    },
    Deny,
    Drop,
    NoRoute,
}
