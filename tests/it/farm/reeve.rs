//! The program under test, with a configuration written for one test.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use super::Folder;
use super::ports::Port;
use super::process::{Process, listens, run};

/// `reeve run` on a folder of its own; ended, at the latest, when the test lets go of it.
pub struct Reeve {
    pub process: Process,
    pub site: Site,
}

/// The texts and addresses of one instance: `reeve.toml`, `rules/site.rules`, a log and a socket.
pub struct Site {
    pub folder: Folder,
    port: Port,
    metrics: Port,
}

impl Site {
    /// `config` is what the test says besides the listener: pools, timeouts. `rules` is its rule file.
    pub fn write(label: &str, config: &str, rules: &str) -> Site {
        Site { folder: Folder::new(label), port: Port::free(), metrics: Port::free() }.rewritten(config, rules)
    }

    /// The same folder and addresses with other texts.
    pub fn rewritten(self, config: &str, rules: &str) -> Site {
        self.rewrite(config, rules);
        self
    }

    /// Writes other texts, while a process may be running on them.
    pub fn rewrite(&self, config: &str, rules: &str) {
        let site = self;
        let text = format!(
            "[listen.web]\naddress = [\"{web}\"]\nprotocol = \"http\"\nrules = [\"rules/site.rules\"]\n\n\
             [monitor]\nmetrics-address = [\"{metrics}\"]\n\n\
             [process]\nworkers = 2\nsocket = \"{socket}\"\n\n\
             [log]\naccess = {{ format = \"json\", path = \"{log}\" }}\n\n{config}\n",
            web = site.port.address(),
            metrics = site.metrics.address(),
            socket = site.socket(),
            log = site.log().display(),
        );
        site.folder.write("reeve.toml", text);
        site.folder.write("rules/site.rules", rules);
    }

    /// Where clients arrive: `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        self.port.address()
    }

    /// `http://127.0.0.1:PORT` and a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address())
    }

    pub fn metrics(&self) -> String {
        self.metrics.address()
    }

    pub fn config(&self) -> PathBuf {
        self.folder.path().join("reeve.toml")
    }

    pub fn socket(&self) -> String {
        self.path("reeve.sock")
    }

    pub fn log(&self) -> PathBuf {
        self.folder.path().join("access.log")
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }
}

impl Reeve {
    pub fn start(label: &str, config: &str, rules: &str) -> Reeve {
        Reeve::run(Site::write(label, config, rules))
    }

    /// One pool, `web`, of these servers (`name`, `address`), and one rule that sends everything there.
    pub fn before(label: &str, servers: &[(&str, String)]) -> Reeve {
        Reeve::start(label, &pool("web", "rr", servers), "http *\n  all : any  use web\n")
    }

    pub fn run(site: Site) -> Reeve {
        Reeve::run_by(command(), site)
    }

    /// With more in its environment, for example.
    pub fn run_by(mut command: Command, site: Site) -> Reeve {
        let mut process = Process::start(command.arg("run").arg("-c").arg(site.config()));
        listens(&mut process, &site.address());
        listens(&mut process, &site.metrics());
        Reeve { process, site }
    }

    /// Starts it again after its end, with the same texts and addresses.
    pub fn again(&mut self) {
        self.process = Process::start(command().arg("run").arg("-c").arg(self.site.config()));
        listens(&mut self.process, &self.site.address());
        listens(&mut self.process, &self.site.metrics());
    }

    /// Runs `reeve` with these words and this one's socket; its exit code, stdout and stderr.
    pub fn order(&self, words: &[&str]) -> (i32, String, String) {
        run(command().args(words).arg("--socket").arg(self.site.socket()), Duration::from_secs(60))
    }

    /// Writes other texts and reloads them; what was said of it.
    pub fn reload(&self, config: &str, rules: &str) -> String {
        self.site.rewrite(config, rules);
        self.reload_again()
    }

    /// Reloads what is there.
    pub fn reload_again(&self) -> String {
        let (code, out, wrong) = self.order(&["reload"]);
        assert_eq!(code, 0, "{out}{wrong}");
        out
    }

    /// The value of one line of the metrics page, which begins so.
    pub fn metric(&self, start: &str) -> Option<f64> {
        let text = super::get(&self.site.metrics(), "/metrics", &[]).text();
        let line = text.lines().find(|line| line.starts_with(start))?;
        line.rsplit(' ').next()?.parse().ok()
    }

    pub fn address(&self) -> String {
        self.site.address()
    }

    pub fn url(&self, path: &str) -> String {
        self.site.url(path)
    }

    /// The lines of the access log so far, each parsed.
    pub fn log(&self) -> Vec<serde_json::Value> {
        log(&self.site.log())
    }
}

/// The lines of an access log so far, each parsed. One that is being written is none yet: a file grows page by page.
pub fn log(file: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

/// The program under test: the one that was built with the tests or, where CHECK_PROGRAM names another, that
/// (`./check` has the tests built without optimisation and names the program as it is released).
pub fn program() -> &'static str {
    static PROGRAM: OnceLock<String> = OnceLock::new();
    PROGRAM.get_or_init(|| std::env::var("CHECK_PROGRAM").unwrap_or_else(|_| env!("CARGO_BIN_EXE_reeve").to_owned()))
}

/// Whether the program is built as it is released: what an unoptimised one takes is no measure.
pub fn released() -> bool {
    !cfg!(debug_assertions) || std::env::var_os("CHECK_PROGRAM").is_some()
}

/// The program under test, started in a folder where nothing of the project lies beside it by chance.
pub fn command() -> Command {
    let mut command = Command::new(program());
    command.current_dir(env!("CARGO_TARGET_TMPDIR"));
    command
}

/// `[pool.NAME]` with these servers.
pub fn pool(name: &str, scheduler: &str, servers: &[(&str, String)]) -> String {
    let mut text = format!("[pool.{name}]\nscheduler = \"{scheduler}\"\nservers = [\n");
    for (server, address) in servers {
        text.push_str(&format!("  {{ name = \"{server}\", address = \"{address}\" }},\n"));
    }
    text.push_str("]\n");
    text
}

/// The project's folder.
pub fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
