//! The demonstration: one command, no files, everything that it names answers.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;

use crate::farm::authority::believing;
use crate::farm::process::{Process, run};
use crate::farm::reeve::command;
use crate::farm::{Client, among_others, skip, until};

#[test]
fn everything_the_demonstration_names_answers() {
    let _turn = among_others();
    let mut demo = Process::start(command().args(["demo", "--json", "--for", "8s"]));
    let line = until("the first line", || {
        assert!(demo.running(), "it ended: {}{}", demo.stdout(), demo.stderr());
        demo.stdout().split_once('\n').map(|(line, _)| line.to_owned())
    });
    let said: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
    assert!(said["http"].as_str().is_some_and(|http| http.starts_with("http://127.0.0.1:")), "{line}");
    assert!(said["https"].as_str().is_some_and(|https| https.starts_with("https://127.0.0.1:")), "{line}");
    let authority = said["ca"].as_str().unwrap_or_else(|| panic!("no authority: {line}"));
    let client = Arc::new(believing(Path::new(authority)));
    let urls = said["try"].as_array().unwrap_or_else(|| panic!("no list of URLs: {line}"));
    assert!(urls.len() >= 3, "different content is to be seen: {line}");
    for url in urls {
        let url = url.as_str().unwrap_or_else(|| panic!("not a URL: {url}"));
        let status = status_of(url, &client);
        assert!((200..400).contains(&status), "{url}: {status}");
    }
    let rtsp = said["rtsp"].as_str().unwrap_or_else(|| panic!("no media: {line}"));
    for (camera, transport) in [("cam1", "tcp"), ("cam2", "udp")] {
        shows(&format!("{rtsp}/{camera}"), transport);
    }
    let metrics = said["metrics"].as_str().unwrap_or_else(|| panic!("no metrics: {line}"));
    assert_eq!(status_of(&format!("{}/metrics", metrics.trim_end_matches("/metrics")), &client), 200);
    assert_eq!(demo.exit(Duration::from_secs(20)).code(), Some(0));
    assert_eq!(demo.stdout().lines().next(), Some(line.as_str()));
}

/// Plays some pictures, none of them broken, of which each differs from the one before.
fn shows(url: &str, transport: &str) {
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-nostdin", "-v", "warning", "-xerror", "-rtsp_transport", transport, "-i", url]);
    ffmpeg.args(["-an", "-frames:v", "5", "-f", "framemd5", "-"]);
    if !Command::new("ffmpeg").arg("-version").output().is_ok_and(|output| output.status.success()) {
        return skip("no ffmpeg");
    }
    let (code, out, wrong) = run(&mut ffmpeg, Duration::from_secs(20));
    assert_eq!((code, wrong.as_str()), (0, ""), "{url} by {transport}");
    let mut pictures: Vec<&str> =
        out.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit(", ").next()).collect();
    pictures.dedup();
    assert_eq!(pictures.len(), 5, "{url} by {transport}: {out}");
}

fn status_of(url: &str, config: &Arc<ClientConfig>) -> u16 {
    let (scheme, rest) = url.split_once("://").unwrap_or_else(|| panic!("not a URL: {url}"));
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (target, fields) = (format!("/{path}"), [("Host", host), ("Accept", "*/*")]);
    let answer = match scheme {
        "https" => {
            let name = host.split(':').next().unwrap_or_default();
            let client = Client::secure(host, name, config);
            client.and_then(|mut client| client.request("GET", &target, &fields))
        }
        _ => Client::connect(host).request("GET", &target, &fields),
    };
    answer.unwrap_or_else(|error| panic!("{url}: {error}")).status
}
