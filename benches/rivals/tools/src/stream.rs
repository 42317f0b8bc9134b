//! A socket that does not wait, plain or under TLS.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};
use rustls::ServerConfig;

use crate::tls::Session;

/// Plain bytes that are put into records at once.
const SEALED: usize = 64 << 10;
/// The type of a record with a handshake: how a connection begins that wants TLS.
const HANDSHAKE: u8 = 22;

pub struct Stream {
    socket: OwnedFd,
    tls: Option<Box<Session>>,
    /// To be used when the first byte asks for it.
    offer: Option<Arc<ServerConfig>>,
}

/// What came of reading once.
#[derive(PartialEq, Eq)]
pub enum Received {
    Nothing,
    /// Less than there was room for: the socket is empty, and the next byte brings the next event.
    Some,
    /// As much as there was room for.
    Full,
    End,
}

impl Stream {
    /// Starts to connect. `source`: the last part of the client's address 127.0.1.x.
    pub fn connect(to: SocketAddrV4, source: Option<u8>) -> rustix::io::Result<Stream> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
        sockopt::set_tcp_nodelay(&socket, true)?;
        if let Some(last) = source {
            rustix::net::bind(&socket, &SocketAddrV4::new(Ipv4Addr::new(127, 0, 1, last), 0))?;
        }
        match rustix::net::connect(&socket, &to) {
            Ok(()) | Err(Errno::INPROGRESS) => Ok(Stream { socket, tls: None, offer: None }),
            Err(error) => Err(error),
        }
    }

    /// A client's connection.
    pub fn accepted(socket: OwnedFd, offer: Option<Arc<ServerConfig>>) -> rustix::io::Result<Stream> {
        sockopt::set_tcp_nodelay(&socket, true)?;
        Ok(Stream { socket, tls: None, offer })
    }

    pub fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    pub fn start_tls(&mut self, session: Session) {
        self.tls = Some(Box::new(session));
    }

    pub fn tls(&self) -> Option<&Session> {
        self.tls.as_deref()
    }

    /// Reads once, and gives to `sink` what came, under TLS record by record. `room` is for everybody to use.
    pub fn receive(
        &mut self,
        room: &mut [u8],
        sink: &mut dyn FnMut(&[u8]) -> Result<(), String>,
    ) -> Result<Received, String> {
        let begun = self.tls.as_ref().map_or(&[][..], |tls| tls.begun());
        let at = begun.len();
        room[..at].copy_from_slice(begun);
        let n = match rustix::net::recv(&self.socket, &mut room[at..], RecvFlags::empty()) {
            Ok((0, _)) => return Ok(Received::End),
            Ok((n, _)) => n,
            Err(Errno::AGAIN) => return Ok(Received::Nothing),
            Err(error) => return Err(format!("receive: {error}")),
        };
        if let Some(config) = self.offer.take()
            && room[0] == HANDSHAKE
        {
            self.tls = Some(Box::new(Session::accept(&config)?));
        }
        match &mut self.tls {
            None => sink(&room[..n])?,
            Some(tls) => {
                if !tls.take(&mut room[..at + n], sink)? {
                    return Ok(Received::End);
                }
            }
        }
        Ok(if at + n == room.len() { Received::Full } else { Received::Some })
    }

    /// Takes bytes to be sent, as many as it says; `None`: none, for now. `more`: what follows may go along.
    pub fn send(&mut self, bytes: &[u8], more: bool) -> Result<Option<usize>, String> {
        let Some(tls) = &mut self.tls else {
            let flags = if more { SendFlags::NOSIGNAL | SendFlags::MORE } else { SendFlags::NOSIGNAL };
            return match rustix::net::send(&self.socket, bytes, flags) {
                Ok(n) => Ok(Some(n)),
                Err(Errno::AGAIN) => Ok(None),
                Err(error) => Err(format!("send: {error}")),
            };
        };
        if tls.output().len() >= SEALED && !self.flush()? {
            return Ok(None);
        }
        let Some(tls) = &mut self.tls else { return Ok(None) };
        let n = bytes.len().min(SEALED);
        tls.say(&bytes[..n])?;
        if !more {
            self.flush()?;
        }
        Ok(Some(n))
    }

    /// Sends the records that wait. True: none is left.
    pub fn flush(&mut self) -> Result<bool, String> {
        let Some(tls) = &mut self.tls else { return Ok(true) };
        let mut sent = 0;
        while sent < tls.output().len() {
            match rustix::net::send(&self.socket, &tls.output()[sent..], SendFlags::NOSIGNAL) {
                Ok(n) => sent += n,
                Err(Errno::AGAIN) => break,
                Err(error) => return Err(format!("send: {error}")),
            }
        }
        tls.sent(sent);
        Ok(tls.output().is_empty())
    }
}
