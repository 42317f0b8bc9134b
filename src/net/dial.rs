//! Reaching a server.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream};

use super::deadline::Timer;
use crate::sys::process::is_shortage;

/// Why a server was not reached. Nothing has been sent to it.
#[derive(Debug)]
pub enum DialError {
    Refused,
    TimedOut,
    /// Connected, but the server did not prove who it is, or speaks no TLS.
    Tls(String),
    /// No descriptor or memory is left here.
    Shortage(io::Error),
    Other(io::Error),
}

impl From<io::Error> for DialError {
    fn from(error: io::Error) -> DialError {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => DialError::Refused,
            _ if is_shortage(&error) => DialError::Shortage(error),
            _ => DialError::Other(error),
        }
    }
}

impl DialError {
    pub fn detail(&self) -> String {
        match self {
            DialError::Refused => "connection refused".to_owned(),
            DialError::TimedOut => "connecting took too long".to_owned(),
            DialError::Tls(why) => why.clone(),
            DialError::Shortage(error) | DialError::Other(error) => error.to_string(),
        }
    }
}

/// Connects, within `limit`, and says `greeting`, if there is one, before anything else.
pub async fn dial(
    address: SocketAddr,
    greeting: &[u8],
    timer: &Timer,
    limit: Duration,
) -> Result<TcpStream, DialError> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let socket = socket?;
    socket.set_nodelay(true)?;
    match timer.wait(limit, Box::pin(socket.connect(address))).await {
        Ok(Ok(tcp)) => {
            // The kernel takes it whole: its buffer is empty, and larger.
            if !greeting.is_empty() && tcp.try_write(greeting)? != greeting.len() {
                return Err(DialError::Other(io::ErrorKind::WriteZero.into()));
            }
            Ok(tcp)
        }
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(DialError::TimedOut),
    }
}
