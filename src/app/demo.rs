//! `reeve demo`: the whole of Reeve on one machine, with nothing to prepare.
//!
//! Starts origins, writes a configuration and rules for them into a temporary folder and then does
//! what `reeve run` does with these texts. There is no second way to serve.

mod camera;
mod certificates;
mod content;
mod folder;
mod origins;
mod texts;

use std::fmt::Write;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

pub(super) use self::folder::Folder;
use self::origins::Origins;
use super::args::DemoArguments;
use super::check::{self, prepare};
use super::start::{self, RunOptions, Started};
use super::{START_FAILED, environment, output};
use crate::config;

/// The ports that are taken when they are free.
const HTTP: u16 = 8080;
const HTTPS: u16 = 8443;
const RTSP: u16 = 8554;
const METRICS: u16 = 9901;

/// Runs the demonstration until it is told to stop.
pub fn main(arguments: DemoArguments) -> ExitCode {
    let stage = match Stage::set() {
        Ok(stage) => stage,
        Err(error) => {
            output::complain(&format!("reeve demo: cannot start: {error}\n"));
            return ExitCode::from(START_FAILED);
        }
    };
    let request = stage.request(environment(), arguments.set.overrides);
    let prepared = prepare(&request);
    check::tell(&prepared);
    if !prepared.is_good() {
        return prepared.exit_code();
    }
    let sights = Sights::of(&stage);
    let json = arguments.json;
    let ready = Box::new(move |started: &Started| {
        output::print(&if json { sights.json(started) } else { sights.text(started) });
    });
    start::run(prepared, RunOptions { request, ready, stop_after: arguments.stop_after, origin: None, before: None })
}

/// Everything that has to stand before Reeve starts; put away when it is dropped.
struct Stage {
    _origins: Origins,
    folder: Folder,
    configuration: PathBuf,
}

impl Stage {
    fn set() -> io::Result<Stage> {
        let origins = Origins::start()?;
        let folder = Folder::new()?;
        let addresses = addresses()?;
        certificates::write(&folder)?;
        folder.write("rules/demo.rules", texts::RULES)?;
        let text = texts::configuration(&addresses, folder.path(), &origins);
        let configuration = folder.write("config/reeve.toml", &text)?;
        Ok(Stage { _origins: origins, folder, configuration })
    }

    fn request(&self, environment: Vec<(String, String)>, overrides: Vec<(String, String)>) -> config::Request {
        let base = Some(self.folder.path().to_owned());
        config::Request { file: self.configuration.clone(), base, rules: None, environment, overrides }
    }
}

/// Where the demonstration listens.
#[derive(Debug, Clone, Copy)]
struct Addresses {
    http: SocketAddr,
    https: SocketAddr,
    rtsp: SocketAddr,
    metrics: SocketAddr,
}

/// The usual addresses, or free ones in their place. All are held until all are known, so that no two
/// can be the same.
fn addresses() -> io::Result<Addresses> {
    let hold = |port: u16| {
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).or_else(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
    };
    let (http, https, rtsp, metrics) = (hold(HTTP)?, hold(HTTPS)?, hold(RTSP)?, hold(METRICS)?);
    Ok(Addresses {
        http: http.local_addr()?,
        https: https.local_addr()?,
        rtsp: rtsp.local_addr()?,
        metrics: metrics.local_addr()?,
    })
}

/// What is told about a demonstration that runs.
struct Sights {
    /// How this program is called again.
    program: String,
    folder: PathBuf,
    configuration: PathBuf,
}

impl Sights {
    fn of(stage: &Stage) -> Sights {
        let program = program(std::env::current_exe().ok(), std::env::current_dir().ok());
        Sights { program, folder: stage.folder.path().to_owned(), configuration: stage.configuration.clone() }
    }

    /// One line for scripts.
    fn json(&self, started: &Started) -> String {
        let (http, https) = (http(started), https(started));
        let plain = || texts::TRIES.iter().filter(|one| one.plain).map(|one| one.path);
        let tries = plain().map(|path| format!("{http}{path}")).chain(plain().map(|path| format!("{https}{path}")));
        let value = serde_json::json!({
            "http": http,
            "https": https,
            "rtsp": rtsp(started),
            "ca": self.authority().to_string_lossy(),
            "metrics": metrics(started),
            "try": tries.collect::<Vec<_>>(),
            "socket": started.socket.as_deref().map(Path::to_string_lossy),
        });
        format!("{value}\n")
    }

    /// Whose certificates the demonstration has.
    fn authority(&self) -> PathBuf {
        self.folder.join(certificates::AUTHORITY)
    }

    /// A page for people.
    fn text(&self, started: &Started) -> String {
        let http = http(started);
        let mut lines: Vec<(String, &str)> = texts::TRIES
            .iter()
            .map(|one| {
                let options = if one.options.is_empty() { String::new() } else { format!("{} ", one.options) };
                (format!("curl {options}{http}{}", one.path), one.shows)
            })
            .collect();
        let authority = self.authority();
        let line = format!("curl --cacert {} {}/api/time", authority.display(), https(started));
        lines.push((line, "the same by https, with a certificate of its own authority"));
        for camera in origins::CAMERAS {
            lines.push((
                format!("ffplay {}/{camera}", rtsp(started)),
                "a test card that moves, from the server of that camera",
            ));
        }
        if let Some(metrics) = metrics(started) {
            lines.push((format!("curl {metrics}/metrics"), "what Reeve counts, for Prometheus"));
        }
        let (program, folder, configuration) = (&self.program, self.folder.display(), self.configuration.display());
        let width = lines.iter().map(|(line, _)| line.chars().count()).max().unwrap_or_default();
        let mut text = format!("Reeve serves {http}/ - open it in a browser, or try:\n\n");
        for (line, shows) in lines {
            let _ = writeln!(text, "  {line:<width$}  # {shows}");
        }
        let _ = write!(text, "\nAsk it, and ask its texts:\n\n");
        if let Some(socket) = &started.socket {
            let _ = writeln!(text, "  {program} servers --socket {}", socket.display());
        }
        let _ = write!(
            text,
            "  {program} explain GET {http}/api/time -H 'x-beta: 1' -c {configuration}\n  {program} check -c {configuration}\n\n\
             Its texts and its log, removed at the end:\n\n  {configuration}\n  {folder}/rules/demo.rules\n  \
             {folder}/access.log\n\nCtrl-C stops it.\n"
        );
        text
    }
}

/// The name by which a shell finds this program: from the folder one is in, where it lies below that.
fn program(file: Option<PathBuf>, folder: Option<PathBuf>) -> String {
    let Some(file) = file else { return "reeve".to_owned() };
    let below = folder.and_then(|folder| file.strip_prefix(folder).map(Path::to_owned).ok());
    below.unwrap_or(file).display().to_string()
}

fn http(started: &Started) -> String {
    url(started, texts::LISTENER, "http")
}

fn https(started: &Started) -> String {
    url(started, texts::SECURE_LISTENER, "https")
}

fn rtsp(started: &Started) -> String {
    url(started, texts::MEDIA_LISTENER, "rtsp")
}

fn url(started: &Started, listener: &str, scheme: &str) -> String {
    let found = started.listeners.iter().find(|(name, _)| **name == *listener);
    found.map(|(_, address)| format!("{scheme}://{address}")).unwrap_or_default()
}

fn metrics(started: &Started) -> Option<String> {
    started.metrics.first().map(|address| format!("http://{address}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn started() -> Started {
        Started {
            listeners: vec![
                ("demo".into(), "127.0.0.1:8080".parse().unwrap()),
                ("demo-tls".into(), "127.0.0.1:8443".parse().unwrap()),
                ("demo-media".into(), "127.0.0.1:8554".parse().unwrap()),
            ],
            metrics: vec!["127.0.0.1:9901".parse().unwrap()],
            socket: Some("/tmp/x/reeve.sock".into()),
        }
    }

    fn sights() -> Sights {
        Sights {
            program: "target/release/reeve".to_owned(),
            folder: "/tmp/x".into(),
            configuration: "/tmp/x/config/reeve.toml".into(),
        }
    }

    #[test]
    fn the_texts_have_no_fault_and_every_expectation_holds() {
        let stage = Stage::set().unwrap();
        let prepared = prepare(&stage.request(Vec::new(), Vec::new()));
        assert!(
            prepared.load.faults.is_empty(),
            "{}",
            config::fault::text(&prepared.load.faults, &prepared.load.sources)
        );
        let config = prepared.load.config.unwrap();
        assert_eq!((config.listeners.len(), config.pools.len(), config.rule_sets.len()), (3, 6, 1));
        assert_eq!(config.rule_sets[0].expects.len(), 12);
        // Each rule has something to try; `TRIES` says which paths a script may rely on.
        assert!(texts::TRIES.len() >= config.rule_sets[0].sections[0].rules.len());
    }

    #[test]
    fn scripts_get_one_line_with_full_addresses() {
        let sights = sights();
        let line = sights.json(&started());
        assert_eq!(line.matches('\n').count(), 1);
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["http"], "http://127.0.0.1:8080");
        assert_eq!(value["https"], "https://127.0.0.1:8443");
        assert_eq!(value["rtsp"], "rtsp://127.0.0.1:8554");
        assert_eq!(value["ca"], "/tmp/x/authority.pem");
        assert_eq!(value["metrics"], "http://127.0.0.1:9901");
        assert_eq!(value["socket"], "/tmp/x/reeve.sock");
        let tries = value["try"].as_array().unwrap();
        let count = |start: &str| tries.iter().filter(|one| one.as_str().unwrap().starts_with(start)).count();
        let (plain, secure) = (count("http://127.0.0.1:8080/"), count("https://127.0.0.1:8443/"));
        assert!(plain >= 5 && secure == plain && plain + secure == tries.len());
    }

    #[test]
    fn people_get_a_line_for_every_rule() {
        let sights = sights();
        let text = sights.text(&started());
        for one in &texts::TRIES {
            assert!(text.contains(one.shows) && text.contains(one.path));
        }
        assert!(text.contains("ffplay rtsp://127.0.0.1:8554/cam2"));
        assert!(
            text.contains("/tmp/x/rules/demo.rules")
                && text.contains("target/release/reeve servers --socket /tmp/x/reeve.sock")
        );
    }

    #[test]
    fn the_program_is_named_so_that_a_shell_finds_it() {
        let name = |folder: &str| program(Some("/src/reeve/target/release/reeve".into()), Some(folder.into()));
        assert_eq!(name("/src/reeve"), "target/release/reeve");
        assert_eq!(name("/home"), "/src/reeve/target/release/reeve");
        assert_eq!(program(None, None), "reeve");
    }

    #[test]
    fn taken_ports_are_left_alone() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, HTTP));
        let Addresses { http, https, rtsp, metrics } = addresses().unwrap();
        let all = std::collections::BTreeSet::from([http, https, rtsp, metrics]);
        assert_eq!(all.len(), 4);
        // Whoever holds the usual port, this test or another program, keeps it.
        if taken.is_ok() {
            assert_ne!(http.port(), HTTP);
        }
    }
}
