//! The control socket: where it is, and how it is opened so that only its owner can speak to it.
//!
//! The socket's mode is set before it has a name, so that there is no moment in which others could
//! connect, and the process-wide umask is left alone. A socket that a dead process left behind is
//! replaced; one that somebody answers on never is.

use std::fmt;
use std::fs::{DirBuilder, Metadata};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 64;

/// Where the control socket is: as configured, else in the folder that systemd has made (`$RUNTIME_DIRECTORY`), else
/// `/run/reeve/reeve.sock` for root and `$XDG_RUNTIME_DIR/reeve.sock` for others; without that, a folder of the
/// user's own in `/tmp`.
pub fn socket_path(configured: Option<&Path>) -> PathBuf {
    let uid = rustix::process::geteuid();
    match configured {
        Some(path) => path.to_owned(),
        None => {
            let folder = |name: &str| {
                // systemd lists several with colons between them; ours is the first.
                let folders = std::env::var_os(name)?.to_string_lossy().into_owned();
                folders.split(':').next().filter(|folder| !folder.is_empty()).map(PathBuf::from)
            };
            match folder("RUNTIME_DIRECTORY").filter(|folder| folder.is_absolute()) {
                Some(prepared) => prepared.join("reeve.sock"),
                None => default_path(uid.as_raw(), folder("XDG_RUNTIME_DIR")),
            }
        }
    }
}

fn default_path(uid: u32, runtime: Option<PathBuf>) -> PathBuf {
    match runtime {
        _ if uid == 0 => PathBuf::from("/run/reeve/reeve.sock"),
        Some(folder) if folder.is_absolute() => folder.join("reeve.sock"),
        _ => PathBuf::from(format!("/tmp/reeve-{uid}/reeve.sock")),
    }
}

/// The open control socket. Its name goes away with it, unless another process has taken it over.
#[derive(Debug)]
pub struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode, by which our own name is recognised.
    identity: (u64, u64),
    /// Whether the name is ours to remove.
    owned: AtomicBool,
}

impl ControlSocket {
    /// One that another process has opened, and owns until [`ControlSocket::own`].
    ///
    /// # Errors
    /// When there is nothing of that name any more.
    pub fn lent(listener: UnixListener, path: PathBuf) -> io::Result<ControlSocket> {
        let identity = identity(&std::fs::symlink_metadata(&path)?);
        Ok(ControlSocket { listener, path, identity, owned: AtomicBool::new(false) })
    }

    /// From now on the name goes away with this, or it does not.
    pub fn own(&self, owned: bool) {
        self.owned.store(owned, Ordering::Relaxed);
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Non-blocking.
    pub fn listener(&self) -> &UnixListener {
        &self.listener
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        let owned = self.owned.load(Ordering::Relaxed);
        if owned && std::fs::symlink_metadata(&self.path).is_ok_and(|found| identity(&found) == self.identity) {
            // Nothing is lost when this fails: the next start finds that nobody answers.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Why the control socket could not be opened.
#[derive(Debug)]
pub enum BindFault {
    /// Another process answers on it.
    InUse(PathBuf),
    /// There is something of that name that is not a socket.
    NotASocket(PathBuf),
    /// The folder belongs to somebody else, who could replace the socket.
    ForeignFolder { folder: PathBuf, owner: u32 },
    /// The system refused.
    Io { doing: &'static str, path: PathBuf, error: io::Error },
}

impl fmt::Display for BindFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BindFault::InUse(path) => write!(
                f,
                "control socket {}: another process answers on it; stop that one, or give this one its own with --socket",
                path.display()
            ),
            BindFault::NotASocket(path) => {
                write!(f, "control socket {}: the name is taken by something that is not a socket", path.display())
            }
            BindFault::ForeignFolder { folder, owner } => write!(
                f,
                "control socket: the folder {} belongs to user {owner}, who could replace the socket; choose another with --socket",
                folder.display()
            ),
            BindFault::Io { doing, path, error } => {
                write!(f, "control socket: cannot {doing} {}: {error}", path.display())
            }
        }
    }
}

impl std::error::Error for BindFault {}

/// Opens the control socket, non-blocking, mode 0600; makes its folder, mode 0700, where there is none.
pub fn bind_control(path: &Path) -> Result<ControlSocket, BindFault> {
    let fault = |doing, path: &Path, error: io::Error| BindFault::Io { doing, path: path.to_owned(), error };
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|error| fault("make the folder", folder, error))?;
    let owner = std::fs::metadata(folder).map_err(|error| fault("look at the folder", folder, error))?.uid();
    if owner != 0 && owner != rustix::process::geteuid().as_raw() {
        return Err(BindFault::ForeignFolder { folder: folder.to_owned(), owner });
    }
    make_way(path)?;
    let listener = listen(path).map_err(|error| fault("open", path, error.into()))?;
    let found = std::fs::symlink_metadata(path).map_err(|error| fault("look at", path, error))?;
    Ok(ControlSocket { listener, path: path.to_owned(), identity: identity(&found), owned: AtomicBool::new(true) })
}

/// Removes the socket of a process that is gone.
fn make_way(path: &Path) -> Result<(), BindFault> {
    let fault = |doing, error| BindFault::Io { doing, path: path.to_owned(), error };
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(fault("look at", error)),
        Ok(found) if !found.file_type().is_socket() => return Err(BindFault::NotASocket(path.to_owned())),
        Ok(_) => {}
    }
    match knock(path) {
        Err(Errno::CONNREFUSED) => {}
        Err(Errno::NOENT) => return Ok(()),
        // Its queue is full: it is there, if only just.
        Ok(()) | Err(Errno::AGAIN) => return Err(BindFault::InUse(path.to_owned())),
        Err(error) => return Err(fault("find out who answers on", error.into())),
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(fault("replace", error)),
        _ => Ok(()),
    }
}

/// Connects, without waiting for a process that is frozen.
fn knock(path: &Path) -> Result<(), Errno> {
    rustix::net::connect(&socket()?, &SocketAddrUnix::new(path)?)
}

fn socket() -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
}

fn listen(path: &Path) -> Result<UnixListener, Errno> {
    let address = SocketAddrUnix::new(path)?;
    let socket = socket()?;
    // On Linux the name takes the mode that the socket has (unix_bind), lessened by the umask.
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(UnixListener::from(socket))
}

fn identity(found: &Metadata) -> (u64, u64) {
    (found.dev(), found.ino())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::monitor::tests::Folder;

    #[test]
    fn only_the_owner_can_connect_and_the_name_goes_away() {
        let folder = Folder::new("socket-mode");
        let path = folder.path().join("made/reeve.sock");
        let socket = bind_control(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(std::fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o7777, 0o700);
        UnixStream::connect(socket.path()).unwrap();
        // Another process has it too, and leaves the name alone until it is told that it is its own.
        let lent =
            |socket: &ControlSocket| ControlSocket::lent(socket.listener().try_clone().unwrap(), path.clone()).unwrap();
        drop(lent(&socket));
        assert!(path.exists());
        let heir = lent(&socket);
        socket.own(false);
        heir.own(true);
        drop(socket);
        UnixStream::connect(heir.path()).unwrap();
        drop(heir);
        assert!(!path.exists());
    }

    #[test]
    fn a_living_socket_is_kept_and_a_dead_one_replaced() {
        let folder = Folder::new("socket-stale");
        let path = folder.path().join("reeve.sock");
        let socket = bind_control(&path).unwrap();
        assert!(matches!(bind_control(&path), Err(BindFault::InUse(_))));
        UnixStream::connect(&path).unwrap();

        // As after SIGKILL: closed, but the name is still there.
        drop(UnixListener::bind(folder.path().join("dead.sock")).unwrap());
        let dead = bind_control(&folder.path().join("dead.sock")).unwrap();
        UnixStream::connect(dead.path()).unwrap();

        // Who has lost the name to another does not take it away from that one.
        std::fs::rename(folder.path().join("dead.sock"), &path).unwrap();
        drop(socket);
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn what_is_in_the_way_is_told() {
        let folder = Folder::new("socket-way");
        let path = folder.path().join("file");
        std::fs::write(&path, "precious").unwrap();
        let message = bind_control(&path).unwrap_err().to_string();
        assert!(message.contains("not a socket"), "{message}");
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
        let message = bind_control(&path.join("reeve.sock")).unwrap_err().to_string();
        assert!(message.contains("cannot make the folder"), "{message}");
        let message = bind_control(&folder.path().join("x".repeat(120))).unwrap_err().to_string();
        assert!(message.contains("too long"), "{message}");
    }

    #[test]
    fn the_default_follows_the_user() {
        assert_eq!(default_path(0, Some("/run/user/0".into())), Path::new("/run/reeve/reeve.sock"));
        assert_eq!(default_path(7, Some("/run/user/7".into())), Path::new("/run/user/7/reeve.sock"));
        assert_eq!(default_path(7, None), Path::new("/tmp/reeve-7/reeve.sock"));
        assert_eq!(default_path(7, Some("relative".into())), Path::new("/tmp/reeve-7/reeve.sock"));
        assert_eq!(socket_path(Some(Path::new("a.sock"))), Path::new("a.sock"));
    }
}
