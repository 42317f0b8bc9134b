//! A browser: a page with fifty things to fetch, and a WebSocket from it, through HTTP/2 by TLS.

use std::collections::HashSet;
use std::process::Command;
use std::time::Duration;

use crate::farm::peer::{program, python_with_packages, test_file};
use crate::farm::ports::Port;
use crate::farm::process::{Process, listens, run};
use crate::farm::reeve::{Site, pool};
use crate::farm::watch::until_within;
use crate::farm::{Authority, Reeve, among_others, skip, until};

/// A browser that starts on a busy machine with two cores.
const DEADLINE: Duration = Duration::from_secs(60);

#[test]
fn a_page_with_fifty_parts_and_a_websocket() {
    let _turn = among_others();
    let Some(mut browser) = program("chromium") else { return skip("no chromium") };
    let Some(mut origin) = python_with_packages() else { return skip("no Python with aiohttp; ./check makes one") };
    let (port, secure) = (Port::free(), Port::free());
    let mut origin = Process::start(origin.arg(test_file("it/browser_origin.py")).arg(port.number.to_string()));
    listens(&mut origin, &port.address());
    let listener = format!(
        "\n[listen.secure]\naddress = \"{}\"\nrules = [\"rules/site.rules\"]\ntls = {{ certificates = \"certs\" }}\n\
         \n[state]\npath = \"state\"\n",
        secure.address()
    );
    let config = pool("web", "rr", &[("web", port.address())]) + &listener;
    let site = Site::write("browser", &config, "http *\n  all : any  use web\n");
    let issued = Authority::new("the test's own").issue("localhost", &["localhost"]);
    let (certificate, _) = issued.write(&site.folder, "certs/site");
    let Some(key) = key_hash(&certificate.display().to_string()) else { return skip("no openssl") };
    let home = site.folder.path().join("home");
    let reeve = Reeve::run(site);

    browser.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]);
    // Nothing but the page: no look for updates, models or accounts.
    browser.args(["--disable-quic", "--disable-background-networking", "--disable-component-update"]);
    browser.args(["--disable-sync", "--disable-default-apps", "--disable-extensions", "--password-store=basic"]);
    browser.arg(format!("--ignore-certificate-errors-spki-list={key}"));
    browser.arg(format!("--user-data-dir={}", home.join("profile").display())).env("HOME", &home);
    // Without a page to come back to and with a port to be driven by, it stays until it is ended.
    browser.arg("--remote-debugging-port=0").arg(format!("https://localhost:{}/", secure.number));
    let mut browser = Process::start(&mut browser);
    let report = until_within(DEADLINE, "what the page found", || {
        assert!(browser.running(), "the browser ended: {}", browser.stderr());
        origin.stdout().lines().next().map(str::to_owned)
    });
    let found: serde_json::Value = serde_json::from_str(&report).unwrap_or_else(|error| panic!("{error}: {report}"));
    assert_eq!((&found["scripts"], &found["images"], &found["texts"]), (&20.into(), &20.into(), &10.into()), "{found}");
    assert_eq!(found["page"], "h2", "{found}");
    let protocols = found["protocols"].as_array().expect("a list");
    assert!(protocols.len() == 50 && protocols.iter().all(|name| name == "h2"), "{found}");
    assert_eq!(found["echo"], serde_json::json!(["hello", true]), "{found}");

    let lines = until("all of it in the log", || Some(reeve.log()).filter(|lines| lines.len() == 54));
    // In HTTP/2 a WebSocket can only be an extended CONNECT (RFC 8441 §4), which is logged as the GET that it stands for.
    for line in &lines {
        assert_eq!(line["proto"], "HTTP/2.0", "{line}");
        assert_eq!((&line["status"], &line["sni"]), (&200.into(), &"localhost".into()), "{line}");
    }
    assert_eq!(lines.iter().filter(|line| line["path"] == "/ws").count(), 2);
    // A browser may make a second connection ahead of its need, and then use both.
    let clients: HashSet<&str> = lines.iter().filter_map(|line| line["client"].as_str()).collect();
    assert!(clients.len() <= 2, "{clients:?}");
}

/// SHA-256 of a certificate's public key in Base64, as the browser is told which key to believe.
fn key_hash(certificate: &str) -> Option<String> {
    let script = format!(
        "openssl x509 -in '{certificate}' -noout -pubkey | openssl pkey -pubin -outform DER | \
         openssl dgst -sha256 -binary | openssl base64"
    );
    let (_, out, _) = run(Command::new("sh").args(["-c", &script]), DEADLINE);
    let hash = out.trim();
    (hash.len() == 44).then(|| hash.to_owned())
}
