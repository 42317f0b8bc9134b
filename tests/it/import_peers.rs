//! Whether the facts of `tests/import` are so: the real nginx and HAProxy, with the samples' own texts and servers of the
//! test, are asked what the facts say.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use reeve::app::check;
use reeve::app::import::{Dialect, import};
use reeve::config::{Request, fault};

use crate::farm::peer::daemon;
use crate::farm::ports::Port;
use crate::farm::process::{Process, listens};
use crate::farm::{Client, Folder, Origin, among_others, skip};

fn text(sample: &str, file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/import").join(sample).join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// One origin a pool, by its name.
#[derive(Default)]
struct Origins(BTreeMap<String, Origin>);

impl Origins {
    fn address(&mut self, name: &str) -> String {
        self.0.entry(name.to_owned()).or_insert_with(|| Origin::start(name)).address()
    }
}

/// Asks every fact that needs neither dice nor a source of its own; answers how many.
fn ask(sample: &str, address: &str) -> usize {
    let mut asked = 0;
    let mut wrong = Vec::new();
    for line in text(sample, "facts.txt").lines() {
        let Some((_, fact)) = line.split_once(": ").filter(|_| !line.starts_with('#')) else { continue };
        if fact.contains("roll:") || fact.contains("from:") {
            continue;
        }
        let (request, outcome) = fact.split_once(" -> ").expect("an outcome");
        let mut words = request.split(' ');
        let (method, url) = (words.next().expect("a method"), words.next().expect("a URL"));
        let (_, rest) = url.split_once("://").expect("a URL");
        let (host, target) = rest.split_at(rest.find('/').expect("a path"));
        let fields: Vec<(&str, &str)> =
            words.map(|word| word.split_once(':').expect("a field")).map(|(n, v)| (n, v.trim_matches('"'))).collect();
        let fields = [&[("Host", host)], &fields[..]].concat();
        let mut client = Client::connect(address);
        let answer = client.request(method, target, &fields);
        let came = match &answer {
            Err(_) => "drop".to_owned(),
            Ok(answer) if answer.field("x-origin").is_some() => answer.origin().to_owned(),
            Ok(answer) => match answer.field("location") {
                Some(location) => format!("{} {location}", answer.status),
                None if answer.status == 403 => "deny".to_owned(),
                None => answer.status.to_string(),
            },
        };
        if came != outcome {
            wrong.push(format!("{fact}: {came}"));
        }
        asked += 1;
    }
    assert!(wrong.is_empty(), "{sample}\n{}", wrong.join("\n"));
    asked
}

/// The sample with servers of the test behind each upstream, on one port of the loopback.
fn nginx_text(sample: &str, folder: &Folder, port: &Port, origins: &mut Origins) -> String {
    let mut source = text(sample, "source.conf");
    let mut at = 0;
    while let Some(start) = source[at..].find("upstream ").map(|found| at + found) {
        // Not `proxy_next_upstream`.
        if source[..start].ends_with('_') {
            at = start + 1;
            continue;
        }
        let open = start + source[start..].find('{').expect("a block");
        let close = open + source[open..].find('}').expect("its end");
        let name = source[start + "upstream ".len()..open].trim().to_owned();
        let own = format!("{{ server {}; }}", origins.address(&name));
        source.replace_range(open..=close, &own);
        at = open + own.len();
    }
    let mut lines = String::new();
    for line in source.lines() {
        match line.find("listen ") {
            Some(start) => {
                let end = start + line[start..].find(';').expect("its end");
                let default = if line[start..end].contains("default_server") { " default_server" } else { "" };
                lines += &format!("{}listen {}{default}{}\n", &line[..start], port.address(), &line[end..]);
            }
            None => lines += &format!("{line}\n"),
        }
    }
    let inner = match lines.find("http {") {
        Some(start) => lines[start + "http {".len()..].trim_end().trim_end_matches('}').to_owned(),
        None => lines,
    };
    let path = folder.path().display();
    format!(
        "daemon off; worker_processes 1; pid {path}/nginx.pid; error_log {path}/nginx.log notice;\nevents {{}}\nhttp {{\n\
         access_log off; absolute_redirect off; client_body_temp_path {path}/b; proxy_temp_path {path}/p; \
         fastcgi_temp_path {path}/f; uwsgi_temp_path {path}/u; scgi_temp_path {path}/s;\n{inner}\n}}\n"
    )
}

#[test]
fn nginx_does_what_the_facts_say() {
    let _turn = among_others();
    let mut asked = 0;
    for sample in ["nginx/03-locations", "nginx/04-names", "nginx/05-api-rewrites"] {
        let Some(mut nginx) = daemon("nginx") else { return skip("no nginx: apt-get install nginx-light") };
        let (folder, port, mut origins) = (Folder::new("import-nginx"), Port::free(), Origins::default());
        let file = folder.write("nginx.conf", nginx_text(sample, &folder, &port, &mut origins));
        let mut process = Process::start(nginx.arg("-p").arg(folder.path()).arg("-c").arg(file));
        listens(&mut process, &port.address());
        asked += ask(sample, &port.address());
    }
    assert!(asked >= 35, "{asked} facts");
}

fn haproxy_text(sample: &str, port: &Port, origins: &mut Origins) -> String {
    let mut backend = String::new();
    let mut lines = String::new();
    for line in text(sample, "source.conf").lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match &words[..] {
            ["backend", name, ..] => {
                backend = (*name).to_owned();
                lines += &format!("{line}\n");
            }
            ["server", name, ..] => lines += &format!("    server {name} {}\n", origins.address(&backend)),
            ["bind", ..] => lines += &format!("    bind {}\n", port.address()),
            // Files that are not here, and nobody is on them.
            ["acl", _, "src", "-f", ..] => lines += &format!("    acl {} src 192.0.2.99\n", words[1]),
            _ => lines += &format!("{line}\n"),
        }
    }
    lines
}

#[test]
fn haproxy_does_what_the_facts_say() {
    let _turn = among_others();
    let mut asked = 0;
    for sample in ["haproxy/02-content", "haproxy/04-guards", "haproxy/08-logic"] {
        let Some(mut haproxy) = daemon("haproxy") else { return skip("no haproxy: apt-get install haproxy") };
        let (folder, port, mut origins) = (Folder::new("import-haproxy"), Port::free(), Origins::default());
        let file = folder.write("haproxy.cfg", haproxy_text(sample, &port, &mut origins));
        let mut process = Process::start(haproxy.arg("-db").arg("-f").arg(file));
        listens(&mut process, &port.address());
        asked += ask(sample, &port.address());
    }
    assert!(asked >= 22, "{asked} facts");
}

/// Numbers that are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, most: u64) -> u64 {
        // Knuth's MMIX generator; its high bits are good.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }
}

/// Locations of one block below a prefix (of a regex: an empty one), each answering with a code of its own.
fn locations(numbers: &mut Numbers, below: &str, depth: u32, code: &mut u16, out: &mut String) {
    let mut taken: Vec<(bool, String)> = Vec::new();
    for _ in 0..2 + numbers.below(4) {
        let regexes = ["a", r"\.b$", "^/a/a", "(?:b|c)/", "^/[ab]+/c", "c"];
        let mut path = below.to_owned();
        for _ in 0..numbers.below(3) {
            path.push_str(["a", "b", "c", "/", "/a", "/b/"][numbers.below(6) as usize]);
        }
        // Inside a regex nginx takes regexes alone.
        let kind = if below.is_empty() { 2 + numbers.below(2) } else { numbers.below(6) };
        let (head, exact) = match kind {
            0 => (format!("= {path}"), true),
            1 => (format!("^~ {path}"), false),
            2 | 3 => (format!("~{} {}", if kind == 2 { "*" } else { "" }, regexes[numbers.below(6) as usize]), false),
            _ => (path.clone(), false),
        };
        let key = (exact, if matches!(kind, 2 | 3) { head.clone() } else { path.clone() });
        if taken.contains(&key) || *code >= 299 {
            continue;
        }
        taken.push(key);
        *code += 1;
        out.push_str(&format!("location {head} {{ return {code};\n"));
        if depth < 2 && !exact && numbers.below(3) == 0 {
            let inside = if matches!(kind, 2 | 3) { "" } else { &path };
            locations(numbers, inside, depth + 1, code, out);
        }
        out.push_str("}\n");
    }
}

/// Locations of every kind, nested at random: nginx and the imported rules take the same one for every path.
#[test]
fn locations_are_taken_as_nginx_takes_them() {
    const SERVERS: u64 = 40;
    let _turn = among_others();
    let Some(mut nginx) = daemon("nginx") else { return skip("no nginx: apt-get install nginx-light") };
    let (folder, port) = (Folder::new("import-locations"), Port::free());
    let mut numbers = Numbers(2026);
    let mut servers = String::new();
    for number in 0..SERVERS {
        servers += &format!("server {{ listen {}; server_name s{number}.test;\n", port.address());
        locations(&mut numbers, "/", 0, &mut 210, &mut servers);
        servers += "}\n";
    }
    let path = folder.path().display();
    let text = format!(
        "daemon off; worker_processes 1; pid {path}/nginx.pid; error_log {path}/nginx.log notice;\nevents {{}}\nhttp {{\n\
         access_log off; root {path}; client_body_temp_path {path}/b; proxy_temp_path {path}/p; fastcgi_temp_path {path}/f; \
         uwsgi_temp_path {path}/u; scgi_temp_path {path}/s; merge_slashes off;\n{servers}\n}}\n"
    );
    let file = folder.write("nginx.conf", &text);
    let mut process = Process::start(nginx.arg("-p").arg(folder.path()).arg("-c").arg(file));
    listens(&mut process, &port.address());
    let imported = import(Dialect::Nginx, "nginx.conf", &text).expect("an import");
    let mut expects = String::new();
    for number in 0..SERVERS {
        let mut client = Client::connect(&port.address());
        for _ in 0..30 {
            let mut target = "/".to_owned();
            for _ in 0..numbers.below(5) {
                target.push_str(["a", "b", "c", "/", "/a", "/b/", ".b"][numbers.below(7) as usize]);
            }
            // A segment of dots is another path.
            let target = target.replace("/.b", "/b");
            let host = format!("s{number}.test");
            let answer = client.request("GET", &target, &[("Host", host.as_str())]).expect("an answer");
            // A folder that is not there, or one that may not be listed.
            let status = if answer.status < 300 { answer.status } else { 404 };
            expects += &format!("expect GET http://{host}{target} -> {status}\n");
        }
    }
    for (name, text) in &imported.texts {
        let more = if name.ends_with(".rules") { expects.as_str() } else { "" };
        folder.write(name, format!("{text}{more}"));
    }
    let prepared = check::texts(&Request { file: folder.path().join("config/reeve.toml"), ..Request::default() });
    assert!(prepared.is_good(), "{}", fault::text(&prepared.load.faults, &prepared.load.sources));
    let codes: BTreeSet<&str> = expects.lines().filter_map(|line| line.rsplit(' ').next()).collect();
    assert!(expects.lines().count() > 1000 && codes.len() > 20, "{codes:?}");
}
