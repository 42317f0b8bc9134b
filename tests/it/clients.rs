//! Other people's clients, as they come from Debian and PyPI.

use std::process::Command;
use std::time::Duration;

use crate::farm::origin::{is_pattern, send_pattern};
use crate::farm::peer::{program, python_with_packages, test_file};
use crate::farm::ports::Port;
use crate::farm::process::{Process, listens, run};
use crate::farm::{Origin, Reeve, among_others, skip};

const DEADLINE: Duration = Duration::from_secs(90);

/// Reeve before the origin of this process.
fn farm(label: &str) -> (Origin, Reeve) {
    let origin = Origin::start("web");
    let reeve = Reeve::before(label, &[("web", origin.address())]);
    (origin, reeve)
}

/// Runs a client to its end; its output, when it says that all is well.
fn good(command: &mut Command) -> String {
    let what = format!("{command:?}");
    let (code, out, wrong) = run(command, DEADLINE);
    assert_eq!(code, 0, "{what}\n{out}{wrong}");
    out
}

fn curl() -> Option<Command> {
    let curl = program("curl").map(|mut curl| {
        curl.args(["--silent", "--show-error", "--fail", "--max-time", "60"]);
        curl
    });
    if curl.is_none() {
        skip("no curl");
    }
    curl
}

#[test]
fn curl_gets() {
    let _turn = among_others();
    let (_origin, reeve) = farm("curl");
    let Some(_) = curl() else { return };
    let ask = |args: &[&str], path: &str| good(curl().expect("it was there").args(args).arg(reeve.url(path)));
    assert!(ask(&[], "/x?y=z").starts_with("GET /x?y=z HTTP/1.1\r\n"));
    assert!(ask(&["--http1.0"], "/old").starts_with("GET /old HTTP/1."));
    let head = ask(&["--head"], "/sized/12345").to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 200") && head.contains("content-length: 12345\r\n"), "{head}");
    let part = ask(&["--range", "10-19", "--dump-header", "-", "--output", "/dev/null"], "/sized/1000");
    assert!(part.starts_with("HTTP/1.1 206") && part.to_ascii_lowercase().contains("bytes 10-19/1000"), "{part}");
    let status = ["--output", "/dev/null", "--write-out", "%{http_code} %{size_download} %{num_connects}\n"];
    assert_eq!(ask(&status, "/sized/3000000"), "200 3000000 1\n");
    assert_eq!(ask(&["--data", "name=value"], "/echo"), "name=value");
    assert_eq!(ask(&[], "/chunked"), "abcdef");
    // Many at once, and again on the connections that are left open.
    let parallel = ["--parallel", "--parallel-max", "50", "--write-out", "%{http_code}\n", "--output", "/dev/null"];
    let codes = ask(&parallel, "/sized/2000?[1-300]");
    assert_eq!(codes.lines().filter(|line| *line == "200").count(), 300, "{codes}");
}

#[test]
fn curl_sends() {
    let _turn = among_others();
    let (_origin, reeve) = farm("upload");
    let Some(_) = curl() else { return };
    let size = 48u64 << 20;
    let mut bytes = Vec::new();
    send_pattern(&mut bytes, 0, size).expect("memory");
    let file = reeve.site.folder.write("body", &bytes);
    let send = |fields: &[&str], method: &str| {
        let mut curl = curl().expect("it was there");
        curl.args(fields).args(["--request", method, "--upload-file"]).arg(&file).arg(reeve.url("/measure"));
        good(&mut curl)
    };
    let whole = format!("{size} as sent");
    assert_eq!(send(&["--header", "Expect:"], "PUT"), whole);
    assert_eq!(send(&["--header", "Transfer-Encoding: chunked", "--header", "Expect:"], "POST"), whole);
    // It waits for the 100, which comes from the origin: without one this takes 20 s.
    let patience = ["--header", "Expect: 100-continue", "--expect100-timeout", "20", "--max-time", "15"];
    assert_eq!(send(&patience, "PUT"), whole);
    let echo = reeve.site.folder.path().join("echo");
    let mut curl = curl().expect("it was there");
    good(curl.arg("--upload-file").arg(&file).arg("--output").arg(&echo).arg(reeve.url("/echo")));
    assert!(is_pattern(0, &std::fs::read(echo).expect("the echo")), "the echo is the file");
}

#[test]
fn wget_gets() {
    let _turn = among_others();
    let (_origin, reeve) = farm("wget");
    let Some(mut wget) = program("wget") else { return skip("no wget") };
    let into = reeve.site.folder.path().join("got");
    good(wget.args(["--quiet", "--tries=1", "--output-document"]).arg(&into).arg(reeve.url("/sized/5000001")));
    let got = std::fs::read(into).expect("the file");
    assert_eq!(got.len(), 5_000_001);
    assert!(is_pattern(0, &got));
}

#[test]
fn node_fetches() {
    let _turn = among_others();
    let (_origin, reeve) = farm("node");
    let Some(mut node) = program("node") else { return skip("no node") };
    let script = r#"
const url = process.argv[1];
const fail = (why) => { console.error(why); process.exit(1); };
const body = 'x'.repeat(300000);
const sent = await (await fetch(url + '/echo', { method: 'POST', body })).text();
if (sent !== body) fail('echo of ' + sent.length);
const answers = await Promise.all(Array.from({ length: 100 }, (_, n) => fetch(url + '/sized/' + n)));
for (const [n, answer] of answers.entries()) {
  if (answer.status !== 200 || answer.headers.get('x-origin') !== 'web') fail('answer ' + n);
  if ((await answer.arrayBuffer()).byteLength !== n) fail('length of ' + n);
}
if (await (await fetch(url + '/chunked')).text() !== 'abcdef') fail('chunks');
console.log('good');
process.exit(0);
"#;
    let out = good(node.args(["--input-type=module", "--eval", script, &reeve.url("")]));
    assert_eq!(out, "good\n");
}

#[test]
fn python_httpx() {
    python("httpx");
}

#[test]
fn python_httpx_over_http2() {
    python("httpx-h2");
}

#[test]
fn python_aiohttp() {
    python("aiohttp");
}

#[test]
fn python_websockets() {
    python("websockets");
}

/// One subject of `clients.py`, with a real origin (aiohttp) behind Reeve.
fn python(what: &str) {
    let _turn = among_others();
    let (Some(mut origin), Some(mut client)) = (python_with_packages(), python_with_packages()) else {
        return skip("no Python with httpx, aiohttp and websockets; ./check makes one");
    };
    let port = Port::free();
    let mut origin = Process::start(origin.arg(test_file("it/echo_origin.py")).arg(port.number.to_string()));
    listens(&mut origin, &port.address());
    let reeve = Reeve::before(what, &[("echo", port.address())]);
    let out = good(client.arg(test_file("it/clients.py")).arg(what).arg(reeve.address()));
    assert_eq!(out, "good\n");
}
