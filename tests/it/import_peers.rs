//! Whether the facts of `tests/import` are so: the real nginx and HAProxy, with the samples' own texts and servers of the
//! test, are asked what the facts say.

use std::collections::BTreeMap;
use std::path::Path;

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
