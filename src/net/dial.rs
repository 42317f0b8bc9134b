//! Reaching a server.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream};

use super::deadline::Timer;

/// Why a server was not reached. Nothing has been sent to it.
#[derive(Debug)]
pub enum DialError {
    Refused,
    TimedOut,
    /// Connected, but the server did not prove who it is, or speaks no TLS.
    Tls(String),
    Other(io::Error),
}

impl DialError {
    pub fn detail(&self) -> String {
        match self {
            DialError::Refused => "connection refused".to_owned(),
            DialError::TimedOut => "connecting took too long".to_owned(),
            DialError::Tls(why) => why.clone(),
            DialError::Other(error) => error.to_string(),
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
    let socket = socket.map_err(DialError::Other)?;
    socket.set_nodelay(true).map_err(DialError::Other)?;
    match timer.wait(limit, Box::pin(socket.connect(address))).await {
        Ok(Ok(tcp)) => {
            // The kernel takes it whole: its buffer is empty, and larger.
            if !greeting.is_empty() && tcp.try_write(greeting).map_err(DialError::Other)? != greeting.len() {
                return Err(DialError::Other(io::ErrorKind::WriteZero.into()));
            }
            Ok(tcp)
        }
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => Err(DialError::Refused),
        Ok(Err(error)) => Err(DialError::Other(error)),
        Err(_) => Err(DialError::TimedOut),
    }
}
