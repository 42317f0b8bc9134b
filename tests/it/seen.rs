//! What can be seen from outside: `/metrics` and the access log.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::farm::peer::program;
use crate::farm::process::run;
use crate::farm::reeve::{Site, command};
use crate::farm::{Client, Origin, Reeve, among_others, get, skip, until};

/// Decision 22: every line of the JSON log has these.
const LOG_KEYS: [&str; 26] = [
    "time",
    "id",
    "listener",
    "client",
    "proto",
    "tls",
    "sni",
    "method",
    "host",
    "path",
    "query",
    "status",
    "rule",
    "pool",
    "server",
    "tries",
    "bytes_in",
    "bytes_out",
    "t_queue",
    "t_connect",
    "t_header",
    "t_total",
    "affinity",
    "failure",
    "side",
    "match",
];

#[test]
fn each_request_has_a_line_in_the_log() {
    let _turn = among_others();
    let origin = Origin::start("web");
    let reeve = Reeve::before("log", &[("one", origin.address())]);
    let mut client = Client::connect(&reeve.address());
    for n in 0..50 {
        let fields = [("Host", "shop.example"), ("User-Agent", "quote \" back\\slash \u{e9}")];
        assert_eq!(client.request("GET", &format!("/sized/{n}?q=%22a%22"), &fields).expect("an answer").status, 200);
    }
    let lines = until("fifty lines", || Some(reeve.log()).filter(|lines| lines.len() >= 50));
    assert_eq!(lines.len(), 50);
    for (n, line) in lines.iter().enumerate() {
        for key in LOG_KEYS {
            assert!(line.get(key).is_some(), "no {key} in {line}");
        }
        assert_eq!(line["status"], 200);
        assert_eq!(line["method"], "GET");
        assert_eq!(line["host"], "shop.example");
        assert_eq!(line["path"], format!("/sized/{n}"));
        assert_eq!(line["query"], "q=%22a%22");
        assert_eq!(line["listener"], "web");
        assert_eq!(line["rule"], "site.rules:all");
        assert_eq!(line["pool"], "web");
        assert_eq!(line["server"], "one");
        let client = line["client"].as_str().expect("the client's address");
        assert!(client.starts_with("127.0.0.1"), "{client}");
        let time = line["time"].as_str().expect("a time");
        assert!(time.len() == 24 && time.ends_with('Z') && time.as_bytes()[10] == b'T', "RFC 3339, ms, UTC: {time}");
        let total = line["t_total"].as_f64().expect("seconds");
        assert!((0.0..20.0).contains(&total), "{total}");
    }
}

#[test]
fn the_metrics_count_what_happened() {
    let _turn = among_others();
    let origin = Origin::start("web");
    let reeve = Reeve::before("metrics", &[("one", origin.address())]);
    let mut clients: Vec<Client> = (0..6).map(|_| Client::connect(&reeve.address())).collect();
    for client in &mut clients {
        for _ in 0..20 {
            assert_eq!(client.request("GET", "/sized/1000", &[]).expect("an answer").status, 200);
        }
    }
    let text = until("all 120 are counted", || {
        let text = get(&reeve.site.metrics(), "/metrics", &[]).text();
        (sum(&text, "reeve_requests_total", &["code=\"200\"", "pool=\"web\"", "server=\"one\""]) >= 120.0)
            .then_some(text)
    });
    assert_eq!(sum(&text, "reeve_requests_total", &["listener=\"web\""]), 120.0);
    assert_eq!(sum(&text, "reeve_request_duration_seconds_count", &["pool=\"web\""]), 120.0);
    assert!(sum(&text, "reeve_bytes_total", &["listener=\"web\""]) >= 120_000.0, "{text}");
    assert_eq!(sum(&text, "reeve_rule_hits_total", &["rule=\"site.rules:all\""]), 120.0);
    assert_eq!(sum(&text, "reeve_server_up", &["server=\"one\""]), 1.0);
    let connects = sum(&text, "reeve_upstream_connects_total", &["server=\"one\""]);
    let reuses = sum(&text, "reeve_upstream_reuses_total", &["server=\"one\""]);
    assert!((1.0..=12.0).contains(&connects), "{connects} connects for six clients");
    assert_eq!(connects + reuses, 120.0, "each request had a connection, new or kept");
    assert!(sum(&text, "reeve_build_info", &[]) == 1.0, "{text}");
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let value = line.rsplit(' ').next().unwrap_or("");
        assert!(value.parse::<f64>().is_ok(), "not a sample: {line}");
    }
}

#[test]
fn curl_reads_the_metrics() {
    let _turn = among_others();
    let origin = Origin::start("web");
    let reeve = Reeve::before("scrape", &[("one", origin.address())]);
    assert_eq!(get(&reeve.address(), "/", &[]).status, 200);
    let Some(mut curl) = program("curl") else { return skip("no curl") };
    let url = format!("http://{}/metrics", reeve.site.metrics());
    let (code, out, wrong) = run(curl.args(["--silent", "--fail", "--include", &url]), Duration::from_secs(20));
    assert_eq!(code, 0, "{out}{wrong}");
    assert!(out.to_ascii_lowercase().contains("content-type: text/plain"), "{out}");
    assert!(out.contains("reeve_requests_total{"), "{out}");
}

/// The sum of a metric's samples that carry all these labels.
fn sum(text: &str, name: &str, labels: &[&str]) -> f64 {
    text.lines()
        .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])))
        .filter(|line| labels.iter().all(|label| line.contains(label)))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

/// Whoever reads what Reeve says may leave, as the other end of a pipe does. It goes on.
#[test]
fn nobody_has_to_hear_it() {
    let _turn = among_others();
    let site = Site::write("seen-unheard", "", "http *\n  all : any  answer 204\n");
    let mut program = command();
    let mut child = program.arg("run").arg("-c").arg(site.config()).stderr(Stdio::piped()).spawn().expect("it starts");
    let stderr = BufReader::new(child.stderr.take().expect("what it says"));
    // The reader goes with the last of these lines.
    assert!(stderr.lines().map_while(Result::ok).any(|line| line.contains(" ready ")), "it has ended");
    // It says that it drains, and that it has stopped.
    kill_process(Pid::from_child(&child), Signal::TERM).expect("it is there");
    let start = Instant::now();
    let status = until("its end", || {
        if start.elapsed() > Duration::from_secs(10) {
            let _ = child.kill();
        }
        child.try_wait().expect("a child")
    });
    assert!(status.success(), "{status}");
}
