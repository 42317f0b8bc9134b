//! Tells the supervisor how the service is (sd_notify(3)), where there is one that wants to know.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The variable that names the supervisor's socket: a path, or an abstract name after `@`.
const SOCKET: &str = "NOTIFY_SOCKET";

/// Sends lines such as `READY=1`. Nothing happens where no supervisor asks for them.
pub fn tell(lines: &[&str]) {
    let Some(name) = std::env::var_os(SOCKET).filter(|name| !name.is_empty()) else { return };
    if let Err(error) = send(name.as_bytes(), lines) {
        tracing::warn!(%error, "the supervisor at NOTIFY_SOCKET cannot be told: {}", lines.join(" "));
    }
}

fn send(name: &[u8], lines: &[&str]) -> io::Result<()> {
    let address = match name.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(name))?,
    };
    let socket = UnixDatagram::unbound()?;
    // Nobody waits for a supervisor that does not read.
    socket.set_nonblocking(true)?;
    socket.send_to_addr(lines.join("\n").as_bytes(), &address).map(drop)
}

/// `MONOTONIC_USEC=...`, which goes with `RELOADING=1`.
pub fn monotonic() -> String {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    format!("MONOTONIC_USEC={}", now.tv_sec as u128 * 1_000_000 + now.tv_nsec as u128 / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_of_either_kind_hears_it() {
        let path = std::env::temp_dir().join(format!("reeve-notify-{}", std::process::id()));
        let hears = UnixDatagram::bind(&path).unwrap();
        send(path.as_os_str().as_bytes(), &["READY=1", "STATUS=serving"]).unwrap();
        let mut bytes = [0; 100];
        let count = hears.recv(&mut bytes).unwrap();
        assert_eq!(&bytes[..count], b"READY=1\nSTATUS=serving");
        std::fs::remove_file(&path).unwrap();
        assert!(send(path.as_os_str().as_bytes(), &["READY=1"]).is_err());

        let name = format!("reeve-notify-{}", std::process::id());
        let hears = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        send(format!("@{name}").as_bytes(), &["STOPPING=1"]).unwrap();
        assert_eq!(hears.recv(&mut bytes).unwrap(), 10);
        assert!(monotonic().strip_prefix("MONOTONIC_USEC=").unwrap().parse::<u64>().unwrap() > 0);
    }
}
