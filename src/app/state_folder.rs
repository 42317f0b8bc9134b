//! The folder of what outlives a process: keys, and later more.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use crate::model::Config;

/// `[state] path`, else what systemd prepared, else the usual place of the user.
pub fn path(config: &Config) -> PathBuf {
    if let Some(path) = &config.state_path {
        return path.clone();
    }
    match std::env::var_os("STATE_DIRECTORY") {
        // systemd lists several with colons between them; ours is the first.
        Some(prepared) if !prepared.is_empty() => {
            let prepared = prepared.to_string_lossy();
            PathBuf::from(prepared.split(':').next().unwrap_or_default())
        }
        _ if rustix::process::geteuid().is_root() => PathBuf::from("/var/lib/reeve"),
        _ => PathBuf::from("./state"),
    }
}

/// The folder, made for its owner alone where it is not there yet.
///
/// # Errors
/// When it cannot be made.
pub fn open(config: &Config) -> io::Result<PathBuf> {
    let path = path(config);
    if !path.is_dir() {
        DirBuilder::new().recursive(true).mode(0o700).create(&path)?;
    }
    Ok(path)
}
