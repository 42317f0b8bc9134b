//! A folder of the demonstration's own, gone when it ends.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// A Unix socket's path has to fit into 108 bytes (unix(7)); this leaves room for its name.
const LONGEST: usize = 80;

#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Makes a new folder below the one for temporary files, readable by its owner alone. One that is
    /// there already is never taken: somebody else may have laid it out.
    pub fn new() -> io::Result<Folder> {
        let mut parent = std::env::temp_dir();
        if parent.as_os_str().len() > LONGEST || parent.is_relative() {
            parent = PathBuf::from("/tmp");
        }
        Folder::below(&parent)
    }

    fn below(parent: &Path) -> io::Result<Folder> {
        let process = std::process::id();
        let mut number = 0;
        loop {
            let path = parent.join(format!("reeve-demo-{process}-{number}"));
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Folder { path }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < 1000 => number += 1,
                Err(error) => return Err(error),
            }
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a text, making the folders that it is in, and gives its whole path.
    pub fn write(&self, name: &str, text: &str) -> io::Result<PathBuf> {
        let path = self.path.join(name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(&path, text)?;
        Ok(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            tracing::warn!(folder = %self.path.display(), %error, "the folder of the demonstration stays behind");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn it_is_private_new_and_gone_at_the_end() {
        let (first, second) = (Folder::new().unwrap(), Folder::new().unwrap());
        assert_ne!(first.path(), second.path());
        assert_eq!(first.path().metadata().unwrap().permissions().mode() & 0o777, 0o700);
        let file = first.write("a/b.txt", "x").unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "x");
        let path = first.path().to_owned();
        drop(first);
        assert!(!path.exists() && second.path().exists());
    }
}
