//! Random rule files and random requests, for tests. A part of a condition comes with a way to make a request that it
//! holds for, so that requests can be aimed at a rule.

use std::fmt::Write;

/// The same numbers for the same seed (splitmix64).
#[derive(Debug, Clone)]
pub struct Dice(pub u64);

impl Dice {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    pub fn percent(&mut self, share: usize) -> bool {
        self.below(100) < share
    }

    pub fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }
}

/// A request, before it is written for `explain` or as a head.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub host: String,
    pub path: String,
    pub query: Vec<String>,
    pub fields: Vec<(String, String)>,
    pub cookies: Vec<String>,
    pub from: String,
    pub listener: &'static str,
    pub sni: Option<String>,
    pub alpn: Vec<String>,
    pub no_tls: bool,
}

impl Request {
    pub fn target(&self) -> String {
        if self.query.is_empty() { self.path.clone() } else { format!("{}?{}", self.path, self.query.join("&")) }
    }

    /// The fields with the cookies among them.
    pub fn fields(&self) -> Vec<(String, String)> {
        let mut fields = self.fields.clone();
        if !self.cookies.is_empty() {
            fields.push(("Cookie".to_owned(), self.cookies.join("; ")));
        }
        fields
    }
}

/// A rule file's contents, and what its rules ask for.
#[derive(Default)]
pub struct Written {
    pub text: String,
    pub rules: Vec<WrittenRule>,
}

pub struct WrittenRule {
    /// In `Written::text`, from 1.
    pub line: u32,
    pub kind: &'static str,
    /// A host of its section.
    pub host: &'static str,
    /// The lines that its section begins with.
    pub head: String,
    /// Its own line.
    pub text: String,
    parts: Vec<Part>,
}

impl WrittenRule {
    /// A request that the rule takes, as far as nothing that it negates, nor the dice, keeps it from that.
    pub fn aimed(&self, dice: &mut Dice) -> Request {
        let mut request = request(dice, self.kind);
        request.host = self.host.to_owned();
        for part in self.parts.iter().filter(|part| !part.negated) {
            (part.make)(dice, &mut request);
        }
        request
    }
}

type Make = Box<dyn Fn(&mut Dice, &mut Request)>;

struct Part {
    text: String,
    negated: bool,
    make: Make,
    /// What the path gives: `{who}` or `$1`.
    gives: Option<&'static str>,
}

const SEGMENTS: &[&str] =
    &["a", "b", "img", "api", "v1", "users", "7", "42", "x.jpg", "y.png", "robots.txt", "A", "a.b"];
const HOSTS: &[&str] = &["shop.example", "www.shop.example", "a.b.shop.example", "other.example", "10.0.0.1"];
const METHODS: &[&str] = &["GET", "POST", "PUT", "PURGE"];
const NAMES: &[&str] = &["x-a", "X-A", "x-b", "accept"];
const VALUES: &[&str] = &["1", "2", "12", "1,2", "text", "b+c"];
const TYPES: &[&str] = &["text/html", "Text/Plain; charset=utf-8", "image/png"];
const SOURCES: &[&str] = &["10.0.0.1", "10.1.2.3", "10.1.9.9", "192.0.2.9", "2001:db8::1", "2001:db9::1", "127.0.0.1"];
const NETS: &[&str] =
    &["10.0.0.0/8", "10.1.0.0/16", "10.1.2.3", "0.0.0.0/0", "2001:db8::/32", "192.0.2.0/24 2001:db8::1"];
const KEYS: &[&str] = &["path", "host", "source", "url", "header:x-a", "cookie:s", "query:q"];
const POOLS: &[&str] = &["web", "images", "homes"];
/// Names and contents of the lists and of the map that every file declares.
pub const LISTS: &[(&str, &str)] = &[
    ("hosts", "shop.example\n*.other.example\n"),
    ("nets", "10.1.0.0/16\n192.0.2.9\n2001:db8::/48\n"),
    ("values", "1\n1,2\ntext\n"),
    ("paths", "/a/b\n/img/\n/r%6fbots.txt\n"),
];
pub const MAP: (&str, &str) =
    ("tenants", "7 images\na web\n1 homes\nshop.example homes\n/a/b images\n10.0.0.1 images\n");

/// What no rule asks for but by chance.
pub fn request(dice: &mut Dice, kind: &str) -> Request {
    let tls = kind == "tcp";
    let no_tls = tls && dice.percent(20);
    let mut request = Request {
        method: match kind {
            "rtsp" => dice.one(&["DESCRIBE", "SETUP", "PLAY"]),
            _ => dice.one(METHODS),
        }
        .to_owned(),
        host: dice.one(HOSTS).to_owned(),
        path: path(dice),
        query: Vec::new(),
        fields: Vec::new(),
        cookies: Vec::new(),
        from: dice.one(SOURCES).to_owned(),
        listener: match kind {
            "http" => dice.one(&["web", "inside"]),
            "rtsp" => "media",
            _ => "sealed",
        },
        sni: (tls && !no_tls && dice.percent(80)).then(|| dice.one(&HOSTS[..4]).to_owned()),
        alpn: if tls && !no_tls {
            (0..dice.below(3)).map(|_| dice.one(&["h2", "http/1.1"]).to_owned()).collect()
        } else {
            Vec::new()
        },
        no_tls,
    };
    for _ in 0..dice.below(3) {
        request.fields.push((dice.one(NAMES).to_owned(), dice.one(VALUES).to_owned()));
    }
    if dice.percent(20) {
        request.fields.push(("Content-Type".to_owned(), dice.one(TYPES).to_owned()));
    }
    if dice.percent(30) {
        request.cookies.push(dice.one(&["s=1", "t=1", "s=2", "s=", "S=1", "t"]).to_owned());
    }
    if dice.percent(30) {
        request.query.push(dice.one(&["q=1", "q=2", "%71=1", "q=%31", "q", "r=1", "q=b+c"]).to_owned());
    }
    request
}

fn path(dice: &mut Dice) -> String {
    let mut path = String::new();
    for _ in 0..dice.below(4) {
        path.push('/');
        path.push_str(match dice.below(12) {
            0 => dice.one(&["", ".", "..", "%61", "%2F", "a%20b", "{x}"]),
            _ => dice.one(SEGMENTS),
        });
    }
    if path.is_empty() || dice.percent(15) {
        path.push('/');
    }
    path
}

/// A glob, a path that it takes, and what it captures.
fn glob(dice: &mut Dice) -> (String, String, Option<&'static str>) {
    match dice.below(8) {
        0 => {
            let end = dice.one(&["jpg", "png", "txt"]);
            (format!("*.{end}"), format!("{}/x.{end}", path(dice).trim_end_matches('/')), None)
        }
        1 => {
            let last = dice.one(SEGMENTS);
            (last.to_owned(), format!("{}/{last}", path(dice).trim_end_matches('/')), None)
        }
        _ => {
            let (mut glob, mut taken, mut who) = (String::new(), String::new(), None);
            for _ in 0..dice.below(4) {
                let segment = dice.one(SEGMENTS);
                let _ = write!(taken, "/{segment}");
                match dice.below(8) {
                    0 => glob.push_str("/*"),
                    1 if who.is_none() => {
                        who = Some("{who}");
                        glob.push_str("/{who}");
                    }
                    2 => {
                        let _ = write!(glob, "/{}*", &segment[..1]);
                    }
                    3 if !glob.contains("**") => glob.push_str("/**"),
                    _ => {
                        let _ = write!(glob, "/{segment}");
                    }
                }
            }
            if glob.is_empty() {
                return ("/".to_owned(), "/".to_owned(), None);
            }
            if !glob.contains("**") && dice.percent(40) {
                glob.push_str("/**");
                taken.push_str(dice.one(&["", "/", "/b", "/x.jpg", "/b/7"]));
            }
            (glob, taken, who)
        }
    }
}

/// A regex, as it is written, and a path that it takes.
fn regex(dice: &mut Dice) -> (String, String, Option<&'static str>) {
    let segment = dice.one(SEGMENTS);
    match dice.below(5) {
        0 => (format!(r#"~"^/{segment}/(\d+)$""#), format!("/{segment}/42"), Some("$1")),
        1 => (r#"~"\.(?:jpg|png)$""#.to_owned(), "/b/y.png".to_owned(), None),
        2 => (format!(r#"~"^/{segment}""#), format!("/{segment}/b"), None),
        3 => (format!(r#"~"(?i)/{segment}/b""#), format!("/7/{segment}/b"), None),
        _ => (format!(r#"~"^/({segment}|api)/""#), format!("/{segment}/"), Some("$1")),
    }
}

fn path_part(dice: &mut Dice) -> Part {
    if dice.percent(8) {
        let make = |dice: &mut Dice, request: &mut Request| {
            request.path = dice.one(&["/a/b", "/img/", "/robots.txt"]).to_owned()
        };
        return Part { text: "path in paths".to_owned(), negated: false, make: Box::new(make), gives: None };
    }
    let count = if dice.percent(80) { 1 } else { 2 + dice.below(2) };
    let all: Vec<_> = (0..count).map(|_| if dice.percent(20) { regex(dice) } else { glob(dice) }).collect();
    let texts: Vec<&str> = all.iter().map(|(text, ..)| text.as_str()).collect();
    let text = format!("path {}", texts.join(" | "));
    let gives = if count == 1 { all[0].2 } else { None };
    let taken: Vec<String> = all.into_iter().map(|(_, taken, _)| taken).collect();
    let make = move |dice: &mut Dice, request: &mut Request| request.path = taken[dice.below(taken.len())].clone();
    Part { text, negated: false, make: Box::new(make), gives }
}

/// The test of a value, and a value that it takes.
fn value(dice: &mut Dice) -> (String, &'static str) {
    let own = dice.one(VALUES);
    match dice.below(8) {
        0 => (String::new(), own),
        1 => (" in values".to_owned(), "text"),
        2 => (r#" ~"^1""#.to_owned(), "12"),
        3 => (format!(" != {own}"), "other"),
        4 => (format!(" = {own} | {}", dice.one(VALUES)), own),
        _ => (format!(" = {own}"), own),
    }
}

fn part(text: impl Into<String>, make: impl Fn(&mut Dice, &mut Request) + 'static) -> Part {
    Part { text: text.into(), negated: false, make: Box::new(make), gives: None }
}

/// A part that an `http` or `rtsp` rule can have.
fn http_part(dice: &mut Dice, listeners: &'static [&'static str]) -> Part {
    match dice.below(26) {
        0..=11 => path_part(dice),
        12 => {
            let pattern = dice.one(&["shop.example", "*.shop.example", "*shop*", r#"~"^www[.]""#]);
            part(format!("host {pattern}"), |_, request| request.host = "www.shop.example".to_owned())
        }
        13 => part("host in hosts", |_, request| request.host = "shop.example".to_owned()),
        14 => {
            let pattern = dice.one(&["text/html", "text/*", r#"~"utf""#]);
            part(format!("content-type {pattern}"), |_, request| {
                request.fields.insert(0, ("content-type".to_owned(), "text/html; charset=utf-8".to_owned()));
            })
        }
        15..=17 => {
            let (name, (check, own)) = (dice.one(NAMES), value(dice));
            part(format!("header {name}{check}"), move |_, request| {
                request.fields.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
                request.fields.push((name.to_owned(), own.to_owned()));
            })
        }
        18 | 19 => {
            let (name, (check, own)) = (dice.one(&["s", "t"]), value(dice));
            part(format!("cookie {name}{check}"), move |_, request| request.cookies = vec![format!("{name}={own}")])
        }
        20 | 21 => {
            let (name, (check, own)) = (dice.one(&["q", "r"]), value(dice));
            part(format!("query {name}{check}"), move |_, request| request.query = vec![format!("{name}={own}")])
        }
        22 | 23 => {
            let (first, second) = (dice.one(METHODS), dice.one(METHODS));
            part(format!("method {first} {second}"), move |_, request| request.method = first.to_owned())
        }
        24 => {
            let text = dice.one(&["sni *.example", "alpn h2", "client-cert", r#"client-cert subject ~"CN""#]);
            part(text, |_, _| ())
        }
        _ => shared_part(dice, listeners),
    }
}

/// A part that a rule of any kind can have.
fn shared_part(dice: &mut Dice, listeners: &'static [&'static str]) -> Part {
    match dice.below(5) {
        0 => {
            let listener = dice.one(listeners);
            part(format!("listener {listener}"), move |_, request| request.listener = listener)
        }
        1 => part("from in nets", |dice, request| request.from = dice.one(&["10.1.7.7", "192.0.2.9"]).to_owned()),
        2 | 3 => {
            let nets = dice.one(NETS);
            part(format!("from {nets}"), move |_, request| {
                let first = nets.split(['/', ' ']).next().unwrap_or_default();
                request.from = first.to_owned();
            })
        }
        _ if dice.percent(50) => part(dice.one(&["chance 30%", "chance 0.5%"]), |_, _| ()),
        _ => part(dice.one(&["chance 40% of source", "chance 99% of source"]), |_, _| ()),
    }
}

fn tcp_part(dice: &mut Dice) -> Part {
    match dice.below(6) {
        0 | 1 => {
            let pattern = dice.one(&["shop.example", "*.shop.example", "*.example", r#"~"^www""#, "in hosts"]);
            part(format!("sni {pattern}"), |dice, request| {
                request.no_tls = false;
                request.sni = Some(dice.one(&HOSTS[..2]).to_owned());
            })
        }
        2 => {
            let name = dice.one(&["h2", "http/1.1", "h2 http/1.1"]);
            part(format!("alpn {name}"), |_, request| {
                request.no_tls = false;
                request.alpn = vec!["h2".to_owned(), "http/1.1".to_owned()];
            })
        }
        3 => part("no-tls", |_, request| {
            (request.no_tls, request.sni, request.alpn) = (true, None, Vec::new());
        }),
        _ => shared_part(dice, &["sealed"]),
    }
}

fn action(dice: &mut Dice, kind: &str, gives: Option<&'static str>) -> String {
    let pool = dice.one(POOLS);
    let key = match gives {
        Some(own) if dice.percent(60) => own,
        _ if kind == "tcp" => dice.one(&KEYS[1..3]),
        _ => dice.one(KEYS),
    };
    match dice.below(12) {
        0..=3 => format!("use {pool}"),
        4 | 5 => format!("use {pool} by {key}"),
        6 => format!("use images 10% homes 33.3% else web by {key}"),
        7 if kind != "tcp" => format!("use map tenants {key}{}", dice.one(&["", " else web"])),
        8 if kind != "tcp" => match gives {
            Some(own) => format!("redirect 301 /to/{own}"),
            None => "redirect https://new.example/".to_owned(),
        },
        9 if kind == "http" => "answer 418 \"short and stout\"".to_owned(),
        10 => "deny".to_owned(),
        _ => "drop".to_owned(),
    }
}

/// A rule file with a section of each kind and of two sorts of hosts.
pub fn file(dice: &mut Dice, most: usize) -> Written {
    let mut written = Written::default();
    for (name, _) in LISTS {
        let _ = writeln!(written.text, "list {name} from \"{name}\"");
    }
    let _ = writeln!(written.text, "map {0} from \"{0}\"", MAP.0);
    let mut number = 0;
    let sections: [(&str, &str, &'static str, &'static [&'static str]); 4] = [
        ("http", "http shop.example *.shop.example", "shop.example", &["web", "inside"]),
        ("http", "http *", "other.example", &["web", "inside"]),
        ("rtsp", "rtsp *", "shop.example", &["media"]),
        ("tcp", "tcp", "shop.example", &["sealed"]),
    ];
    for (kind, head, host, listeners) in sections {
        let mut head = format!("{head}\n");
        if kind == "http" && dice.percent(20) {
            let _ = writeln!(head, "  paths {}", dice.one(&["safe", "strict", "as-is"]));
        }
        written.text.push_str(&head);
        for _ in 0..1 + dice.below(if kind == "http" { most } else { most / 4 + 1 }) {
            number += 1;
            let count = 1 + dice.below(3);
            let mut parts: Vec<Part> = Vec::new();
            for _ in 0..count {
                let mut part = if kind == "tcp" { tcp_part(dice) } else { http_part(dice, listeners) };
                part.negated = dice.percent(12);
                parts.push(part);
            }
            let gives: Vec<&'static str> =
                parts.iter().filter(|part| !part.negated).filter_map(|part| part.gives).collect();
            // Where two paths give something, each pattern that gives it must be there: one is enough.
            let gives = if gives.len() == 1 { Some(gives[0]) } else { None };
            let texts: Vec<String> =
                parts.iter().map(|part| format!("{}{}", if part.negated { "! " } else { "" }, part.text)).collect();
            let condition = if dice.percent(2) { "any".to_owned() } else { texts.join(" & ") };
            if condition == "any" {
                parts.clear();
            }
            let gives = gives.filter(|_| condition != "any");
            let text = format!("  r{number} : {condition}  {}\n", action(dice, kind, gives));
            let line = written.text.lines().count() as u32 + 1;
            written.text.push_str(&text);
            written.rules.push(WrittenRule { line, kind, host, head: head.clone(), text, parts });
        }
    }
    written
}
