//! The demonstration: one command, no files, everything that it names answers.

use std::time::Duration;

use crate::farm::process::Process;
use crate::farm::reeve::command;
use crate::farm::{Client, among_others, until};

#[test]
fn everything_the_demonstration_names_answers() {
    let _turn = among_others();
    let mut demo = Process::start(command().args(["demo", "--json", "--for", "5s"]));
    let line = until("the first line", || {
        assert!(demo.running(), "it ended: {}{}", demo.stdout(), demo.stderr());
        demo.stdout().split_once('\n').map(|(line, _)| line.to_owned())
    });
    let said: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
    assert!(said["http"].as_str().is_some_and(|http| http.starts_with("http://127.0.0.1:")), "{line}");
    let urls = said["try"].as_array().unwrap_or_else(|| panic!("no list of URLs: {line}"));
    assert!(urls.len() >= 3, "different content is to be seen: {line}");
    for url in urls {
        let url = url.as_str().unwrap_or_else(|| panic!("not a URL: {url}"));
        let status = status_of(url);
        assert!((200..400).contains(&status), "{url}: {status}");
    }
    let metrics = said["metrics"].as_str().unwrap_or_else(|| panic!("no metrics: {line}"));
    assert_eq!(status_of(&format!("{}/metrics", metrics.trim_end_matches("/metrics"))), 200);
    assert_eq!(demo.exit(Duration::from_secs(20)).code(), Some(0));
    assert_eq!(demo.stdout().lines().next(), Some(line.as_str()));
}

fn status_of(url: &str) -> u16 {
    let rest = url.strip_prefix("http://").unwrap_or_else(|| panic!("not an http URL: {url}"));
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let answer = Client::connect(host).request("GET", &format!("/{path}"), &[("Host", host), ("Accept", "*/*")]);
    answer.unwrap_or_else(|error| panic!("{url}: {error}")).status
}
