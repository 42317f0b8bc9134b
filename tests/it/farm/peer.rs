//! Other people's programs: whether they are here, and where.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::reeve::project;

/// A program on the PATH, if it is there.
pub fn program(name: &str) -> Option<Command> {
    let found = Command::new(name).arg("--version").stdin(Stdio::null()).output().is_ok_and(|o| o.status.success());
    found.then(|| Command::new(name))
}

/// The Python that has the packages of `tests/requirements.txt`: `./check` makes it and names it in
/// CHECK_PYTHON; otherwise the one it left in `target/venv`.
pub fn python_with_packages() -> Option<Command> {
    let path =
        std::env::var_os("CHECK_PYTHON").map_or_else(|| project().join("target/venv/bin/python3"), PathBuf::from);
    path.exists().then(|| Command::new(path))
}

/// A script or data file of `tests/`.
pub fn test_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)
}

/// A daemon that knows no `--version` but answers to `-v`, if it is there.
pub fn daemon(name: &str) -> Option<Command> {
    // Where Debian puts daemons, which not every user has on the PATH.
    let places = [PathBuf::from(name), Path::new("/usr/sbin").join(name)];
    let answers = |program: &PathBuf| {
        Command::new(program).arg("-v").stdin(Stdio::null()).output().is_ok_and(|output| output.status.success())
    };
    places.into_iter().find(answers).map(Command::new)
}
