//! What the tests stand on: a folder, ports, the program under test, origins and a client.

pub mod authority;
pub mod client;
pub mod daemon;
pub mod h2;
pub mod h2_origin;
pub mod nginx;
pub mod origin;
pub mod peer;
pub mod ports;
pub mod process;
pub mod raw;
pub mod reeve;
pub mod watch;

pub use authority::{Authority, Issued};
pub use client::{Answer, Client, get};
pub use origin::Origin;
pub use reeve::Reeve;
pub use watch::{observe, until, until_true};

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A folder that is removed when the test passes and left for a look when it fails.
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    pub fn new(label: &str) -> Folder {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{label}-{}-{number}", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&path).expect("a folder for the test");
        Folder { path }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file, its folders too, and returns its absolute path.
    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path.join(name);
        std::fs::create_dir_all(path.parent().expect("a file in a folder")).expect("a folder in the test's folder");
        std::fs::write(&path, text).expect("a file in the test's folder");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("left for a look: {}", self.path.display());
        } else {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// Says that a test cannot run here. In the gate that is a failure.
pub fn skip(why: &str) {
    eprintln!("SKIPPED: {why}");
    assert!(std::env::var_os("CHECK_NO_SKIP").is_none(), "CHECK_NO_SKIP is set, and this was skipped: {why}");
}

/// Held by a test that measures: nothing else of this suite runs meanwhile, in whichever process.
pub fn alone() -> File {
    let file = lock_file();
    file.lock().expect("the lock of the measuring tests");
    file
}

/// Held by every other test while it uses the machine.
pub fn among_others() -> File {
    let file = lock_file();
    file.lock_shared().expect("the lock of the measuring tests");
    file
}

fn lock_file() -> File {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("measuring.lock");
    OpenOptions::new().create(true).append(true).open(path).expect("a lock file")
}
