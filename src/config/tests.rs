//! Whole texts through the loader.

use std::net::SocketAddr;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::model::check::{self, Probe};
use crate::model::config::{LogFormat, LogTarget};
use crate::model::fault::{Severity, Suggestion};
use crate::model::listener::{AcceptProxy, HeaderMode, Protocol};
use crate::model::pool::{Address, ProxyVersion, Scheduler};
use crate::model::rule::Key;

fn contract() -> Request {
    Request { file: "tests/data/contract/config/reeve.toml".into(), ..Request::default() }
}

fn loaded(load: &Load) -> &Config {
    match &load.config {
        Some(config) => config,
        None => panic!("{}", fault::text(&load.faults, &load.sources)),
    }
}

#[test]
fn the_contract_loads_as_it_stands() {
    let load = load(&contract());
    let config = loaded(&load);
    let notes: Vec<&str> = load
        .faults
        .iter()
        .filter(|fault| fault.severity == Severity::Note && fault.place.file.ends_with("reeve.toml"))
        .filter_map(|fault| fault.message.strip_prefix("not built yet: "))
        .collect();
    let expected = ["[failover]", "[monitor] address"];
    assert_eq!(notes, expected);
    let pools: Vec<&str> = config.pools.iter().map(|pool| &*pool.name).collect();
    let expected =
        ["web", "images", "api", "vod", "beta", "homes", "uploads", "admin", "live", "legacy", "dns", "mail"];
    assert_eq!(pools, expected);
    let built: Vec<bool> = config.listeners.iter().map(|listener| listener.built).collect();
    assert_eq!(built, [true; 5]);
    let protocols: Vec<Protocol> = config.listeners.iter().map(|listener| listener.protocol).collect();
    use Protocol::{Http, Rtsp, Tcp, TlsPassthrough};
    assert_eq!(protocols, [Http, Http, Rtsp, TlsPassthrough, Tcp]);
    // `rules = ["rules/shop.rules"]` and "every file in rules/" are the same set; mail has none.
    let sets: Vec<usize> = config.listeners.iter().map(|listener| listener.rules).collect();
    assert_eq!(sets, [0, 0, 0, 0, 1]);
    assert_eq!(config.rule_sets.len(), 2);
    assert!(load.sources.text("tests/data/contract/rules/shop.rules").is_some());

    let web = &config.pools[0];
    assert_eq!(web.scheduler, Scheduler::Wlc);
    assert_eq!((web.retry.attempts, web.retry.on.to_string().as_str()), (2, "connect refused-stream 502 503"));
    assert_eq!(web.servers[0].weight, 2);
    assert_eq!(web.servers[0].most.connections, Some(100));
    assert!(web.servers[2].backup && !web.servers[0].backup);
    assert_eq!(web.servers[1].address, Address::Ip("127.0.0.1:9002".parse().unwrap()));
    let check = &web.checks[0];
    assert_eq!((check.rise, check.fall, check.interval), (2, 3, Duration::from_secs(2)));
    let Probe::Http(check::Http { path, expect_status, .. }) = &check.probe else { panic!("{:?}", check.probe) };
    assert_eq!((&**path, expect_status.as_slice()), ("/health", &[200..=299][..]));
    assert_eq!(
        config.pools[1].scheduler,
        Scheduler::Bounded { of: Box::new(Scheduler::Hash { key: Key::Path }), factor: 1.25 }
    );
    assert_eq!(config.pools[3].scheduler, Scheduler::Content { key: Key::Path });
    let probes: Vec<&str> = config.pools.iter().flat_map(|pool| &pool.checks).map(|check| check.probe.word()).collect();
    assert_eq!(probes, ["http", "rtsp", "dns", "smtp"]);
    assert_eq!(config.pools[5].scheduler, Scheduler::Mh { key: Key::Source });

    let sent = AcceptProxy { from: vec!["127.0.0.0/8".parse().unwrap()], mode: HeaderMode::Required };
    assert_eq!(config.listeners[4].accept_proxy, Some(sent));
    assert_eq!((config.pools[11].send_proxy, config.pools[0].send_proxy), (Some(ProxyVersion::V2), None));

    assert_eq!(config.base, Path::new("tests/data/contract"));
    assert_eq!(config.state_path.as_deref(), Some(Path::new("tests/data/contract/state")));
    assert_eq!(config.process.workers, Some(2));
    let metrics: SocketAddr = "127.0.0.1:9901".parse().unwrap();
    assert_eq!(config.monitor.metrics_addresses, [metrics]);
    let access = config.log.access.as_ref().unwrap();
    assert_eq!((access.format, &access.target), (LogFormat::Json, &LogTarget::Stdout));
}

#[test]
fn layers_lie_in_their_order() {
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let mut request = contract();
    request.environment = vec![
        pair("REEVE_LIMITS__HEADER_COUNT", "50"),
        pair("REEVE_LIMITS__TRAILER_BYTES", "4KiB"),
        pair("REEVE_PROCESS__WORKERS", "3"),
        pair("REEVE_POOL__WEB__SCHEDULER", "rr"),
        pair("REEVE_POOL__WEB__TIMEOUTS__CONNECT", "500ms"),
        pair("REEVE_LISTEN__WEB__ADDRESS", "[\"127.0.0.1:1\", \"127.0.0.1:2\"]"),
        pair("REEVE_STATE__PATH", "7"),
        pair("REEVE_LOG", "debug"),
        pair("HOME", "/root"),
    ];
    request.overrides = vec![pair("process.workers", "4"), pair("log.access.format", "text")];
    let load = load(&request);
    let config = loaded(&load);
    assert_eq!(config.limits.header_count, 50);
    assert_eq!(config.limits.trailer_bytes, 4096);
    assert_eq!(config.limits.header_bytes, 65_536);
    assert_eq!(config.process.workers, Some(4));
    assert_eq!(config.pools[0].scheduler, Scheduler::Rr);
    assert_eq!(config.pools[0].timeouts.connect, Duration::from_millis(500));
    assert_eq!(config.pools[1].timeouts.connect, Duration::from_secs(3));
    assert_eq!(config.listeners[0].addresses.len(), 2);
    assert_eq!(config.state_path.as_deref(), Some(Path::new("tests/data/contract/7")));
    assert_eq!(config.log.access.as_ref().unwrap().format, LogFormat::Text);
}

#[test]
fn faults_from_outside_name_what_said_them() {
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let mut request = contract();
    request.environment = vec![
        pair("REEVE_LIMITS__HEADER_CUONT", "50"),
        pair("REEVE_LIMTS__HEADER_COUNT", "50"),
        pair("REEVE_TIMEOUTS__CONNECT", "3"),
        pair("REEVE_POOL__WBE__SCHEDULER", "rr"),
        pair("REEVE_CHECKED", "1"),
        pair("REEVE_", "1"),
    ];
    request.overrides = vec![pair("limits.header-count", "300"), pair("limits..x", "1")];
    let load = load(&request);
    assert!(load.config.is_none());
    let of = |file: &str| -> Vec<(&str, Option<Suggestion>)> {
        let of = load.faults.iter().filter(|fault| &*fault.place.file == file);
        of.map(|fault| (fault.message.as_str(), fault.suggestion.clone())).collect()
    };
    let environment = of("environment");
    let meant = |text: &str| Some(Suggestion::DidYouMean(text.to_owned()));
    let has = |start: &str, suggestion: Option<Suggestion>| {
        let found = environment.iter().find(|(message, _)| message.starts_with(start));
        assert_eq!(found.expect(start).1, suggestion, "{start}");
    };
    assert_eq!(environment.len(), 6, "{environment:?}");
    has("REEVE_LIMITS__HEADER_CUONT: there is no key", meant("REEVE_LIMITS__HEADER_COUNT"));
    has("REEVE_LIMTS__HEADER_COUNT: there is no key", meant("REEVE_LIMITS__HEADER_COUNT"));
    has("REEVE_TIMEOUTS__CONNECT: connect is a duration", Some(Suggestion::Help("write \"3s\"".into())));
    has("REEVE_POOL__WBE__SCHEDULER: the file has no [pool.wbe]", meant("REEVE_POOL__WEB__SCHEDULER"));
    has("REEVE_CHECKED: there is no key", meant("REEVE_CHECK"));
    assert_eq!(of("command line").len(), 2, "{:?}", of("command line"));
}

#[test]
fn the_base_folder() {
    for (file, base) in [
        ("config/reeve.toml", ""),
        ("/etc/reeve/config/reeve.toml", "/etc/reeve"),
        ("./config/reeve.toml", "."),
        ("/etc/reeve/reeve.toml", "/etc/reeve"),
        ("tests/data/contract/config/../config/reeve.toml", "tests/data/contract/config/.."),
    ] {
        assert_eq!(base_of(Path::new(file)), Path::new(base), "{file}");
    }
    let request = Request { base: Some("tests/data/contract".into()), ..contract() };
    assert_eq!(loaded(&load(&request)).base, Path::new("tests/data/contract"));
}

#[test]
fn a_file_that_cannot_be_read_is_one_fault() {
    for file in ["tests/data/none.toml", "tests/data"] {
        let load = load(&Request { file: file.into(), ..Request::default() });
        assert_eq!(load.faults.len(), 1);
        assert_eq!((load.faults[0].code, load.faults[0].place.line), ("R0100", 0));
        assert!(load.config.is_none());
    }
}

#[test]
fn defaults_are_the_models() {
    let load = load_text(
        "reeve.toml",
        "[listen.web]\naddress = \"127.0.0.1:80\"\npool = \"a\"\n[pool.a]\nservers = [\"10.0.0.1:80\"]\n",
    );
    let config = loaded(&load);
    assert!(load.faults.is_empty(), "{:?}", load.faults);
    assert_eq!(config.timeouts, crate::model::Timeouts::default());
    assert_eq!(config.limits, crate::model::Limits::default());
    assert_eq!(config.pools[0].timeouts, crate::model::Timeouts::default());
    assert_eq!(config.pools[0].scheduler, Scheduler::Wlc);
    assert_eq!(&*config.pools[0].servers[0].name, "10.0.0.1:80");
    assert_eq!(config.listeners[0].protocol, Protocol::Http);
}

#[test]
fn checks_have_three_forms() {
    let text = "[listen.l]\naddress = \"[::1]:80\"\npool = \"a\"\n[check.c]\ntcp = true\ninterval = \"500ms\"\n\
                [pool.a]\nservers = [\"h:80\"]\ncheck = \"c\"\n\
                [pool.b]\nservers = [\"h:80\"]\ncheck = [\"c\", { http = \"/\", expect-status = [200, \"300-302\"], jitter = \"20%\", port = 81 }]\n";
    let load = load_text("f", text);
    let config = loaded(&load);
    assert_eq!(config.pools[0].checks.len(), 1);
    assert_eq!(config.pools[0].checks[0].timeout, Duration::from_millis(500));
    let checks = &config.pools[1].checks;
    assert_eq!(checks.len(), 2);
    let http = checks.iter().find(|check| check.probe != Probe::CONNECT).unwrap();
    assert_eq!((http.jitter, http.port), (0.2, Some(81)));
    let Probe::Http(check::Http { expect_status, .. }) = &http.probe else { panic!() };
    assert_eq!(expect_status.as_slice(), &[200..=200, 300..=302]);
}

#[test]
fn every_probe_can_be_said() {
    let checks = [
        "tcp = true, send = \"hi\", expect = \"^hello\", over-tls = true, verify = false",
        "tls = true, server-name = \"a.example\"",
        "http = \"/\", expect-body = \"ok\", expect-json = { \"/a/0\" = 1 }, keep-alive = true, fast-interval = \"100ms\"",
        "https = \"/\", digest = \"d41d8cd98f00b204e9800998ecf8427e\", start = \"down\", on-down = \"close\"",
        "grpc = true",
        "grpc = \"a.B\"",
        "smtp = true",
        "pop3 = true, over-tls = true, port = 995",
        "imap = true, address = \"10.0.0.9\"",
        "ftp = true",
        "smtp = \"a\", starttls = true, verify = false",
        "dns = \".\", type = \"SOA\", over-tcp = true",
        "rtsp = \"DESCRIBE\", path = \"/cam\"",
        "ping = true",
        "udp = true, send-hex = \"00fF\"",
        "command = [\"/bin/true\", \"-x\"], start = \"up\"",
        "agent = true, port = 9, send = \"\\n\"",
    ];
    for text in checks {
        let load = load_text(
            "f",
            &format!(
                "[listen.l]\naddress = \"[::1]:80\"\npool = \"a\"\n[pool.a]\nservers = [\"h:80\"]\ncheck = {{ {text} }}\n"
            ),
        );
        let check = &loaded(&load).pools[0].checks[0];
        let word = text.split(' ').next().unwrap();
        assert_eq!(check.probe.word(), if word == "https" { "http" } else { word }, "{text}");
        let sealed = word == "tls" || word == "https" || text.contains("over-tls = true");
        let begins = match (sealed, text.contains("starttls = true")) {
            (true, _) => check::Seal::Tls,
            (_, true) => check::Seal::Starttls,
            _ => check::Seal::AsPool,
        };
        assert_eq!(check.seal, begins, "{text}");
    }
}

/// Pieces that make a text look like a configuration, so that random texts get past the syntax.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("[listen.web]\n".to_owned()),
        Just("[pool.a]\n".to_owned()),
        Just("[check.c]\n".to_owned()),
        Just("[timeouts]\n".to_owned()),
        Just("[limits]\n".to_owned()),
        Just("[errors]\n".to_owned()),
        Just("[director]\n[failover]\n[monitor]\n".to_owned()),
        Just("[[pool.a.servers]]\n".to_owned()),
        ("(address|protocol|rules|pool|tls|scheduler|check|retry|servers|connect|header-bytes|503|affinity|weight|name)", value())
            .prop_map(|(key, value)| format!("{key} = {value}\n")),
        "\\PC{0,12}\n",
        any::<String>(),
    ];
    proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

fn value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        "\"[ -!#-\\[\\]-~]{0,12}\"",
        "-?[0-9]{1,20}",
        "[0-9]{1,3}\\.[0-9]{1,3}",
        Just("true".to_owned()),
        Just("nan".to_owned()),
        Just("1979-05-27".to_owned()),
        "[0-9a-zé]{1,6}",
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(|items| format!("[{}]", items.join(", "))),
            proptest::collection::vec(("(http|tcp|on|name|address|hash|source|interval|[a-z]{1,3})", inner), 0..3)
                .prop_map(|items| {
                    let items: Vec<String> = items.into_iter().map(|(key, value)| format!("{key} = {value}")).collect();
                    format!("{{ {} }}", items.join(", "))
                }),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_panics(text in pieces()) {
        let load = load_text("reeve.toml", &text);
        fault::text(&load.faults, &load.sources);
        fault::json(&load.faults);
        prop_assert_eq!(load.config.is_some(), !fault::any_error(&load.faults));
    }

    #[test]
    fn no_cut_of_the_contract_panics(at in 0usize..5000, length in 0usize..40, with in "\\PC{0,3}") {
        let mut text = include_str!("../../tests/data/contract/config/reeve.toml").to_owned();
        let floor = |at: usize| (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        let range = floor(at)..floor(at + length);
        text.replace_range(range, &with);
        let load = load_text("reeve.toml", &text);
        fault::text(&load.faults, &load.sources);
    }
}

#[test]
fn the_commented_configuration_says_the_defaults() {
    let load = load(&Request { file: "config/reeve.toml".into(), base: Some(".".into()), ..Request::default() });
    let config = loaded(&load);
    let bad: Vec<_> = load.faults.iter().filter(|fault| fault.severity == Severity::Note).collect();
    assert!(bad.is_empty(), "{bad:?}");
    assert_eq!(config.timeouts, crate::model::Timeouts::default());
    assert_eq!(config.limits, crate::model::Limits::default());
    assert_eq!(config.process, Default::default());
    assert_eq!(config.state_path, None);
    let pool = &config.pools[0];
    assert_eq!((&pool.scheduler, &pool.retry), (&Scheduler::Wlc, &Default::default()));
}

#[test]
fn every_key_of_the_commented_configuration_can_be_set() {
    let text = include_str!("../../config/reeve.toml");
    let uncomment = |line: &str| match line.strip_prefix('#') {
        // The other form of the scheduler would be a second one.
        Some(rest) if rest.starts_with(|c: char| c != ' ' && c != '\n') && !rest.starts_with("scheduler") => {
            rest.to_owned()
        }
        _ => line.to_owned(),
    };
    let text: Vec<String> = text.lines().map(uncomment).collect();
    let load = load_text("reeve.toml", &text.join("\n"));
    let config = loaded(&load);
    assert_eq!(config.process.workers, Some(2));
    assert!(config.errors.contains_key(&503));
    // No key of the two tables that have defaults is left out.
    for key in file::TIMEOUTS.iter().map(|key| key.name).chain(file::LIMITS.iter().map(|key| key.name)) {
        assert!(text.iter().any(|line| line.split(' ').next() == Some(key)), "{key}");
    }
}

#[test]
fn the_examples_load_without_a_word() {
    let mut seen = 0;
    for entry in std::fs::read_dir("config/examples").unwrap() {
        let file = entry.unwrap().path();
        if file.extension().is_none_or(|end| end != "toml") {
            continue;
        }
        seen += 1;
        let load = load(&Request { file, ..Request::default() });
        assert_eq!(fault::text(&load.faults, &load.sources), "");
        assert!(load.config.is_some());
    }
    assert!(seen >= 3);
}

#[test]
fn every_code_is_explained() {
    let mut folders = vec![std::path::PathBuf::from("src/config")];
    let explained = std::fs::read_to_string("docs/faults.md").unwrap();
    let mut seen = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let codes = text.match_indices("\"R01").filter_map(|(at, _)| text.get(at + 1..at + 6));
            for code in codes.filter(|code| code[1..].bytes().all(|byte| byte.is_ascii_digit())) {
                assert!(explained.contains(&format!("| {code} |")), "{code} of {}", path.display());
                seen += 1;
            }
        }
    }
    assert!(seen > 50);
}

#[test]
fn line_ends_and_byte_order_marks_of_other_systems() {
    let text = "\u{feff}[listen.web]\r\naddress = \"127.0.0.1:80\"\r\npool = \"wbe\"\r\n[pool.web]\r\nservers = [\"h:80\"]\r\n";
    let load = load_text("f", text);
    assert_eq!(load.faults.len(), 1, "{:?}", load.faults);
    let place = &load.faults[0].place;
    assert_eq!((place.line, place.column, place.end), (3, 9, 12));
    assert!(!fault::text(&load.faults, &load.sources).contains('\r'));
}
