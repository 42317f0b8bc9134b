//! The first message of a TLS client, read without taking part in the handshake: whom it wants to speak
//! to, in which protocols, and which earlier session it would resume.
//!
//! ```text
//! record     22  version(2)  length(2)   fragment of a handshake message     RFC 8446 §5.1
//! handshake   1  length(3)   ClientHello                                     RFC 8446 §4, §4.1.2
//! ```
//!
//! The message may be cut anywhere, into TCP segments and into records. Everything that is understood is
//! borrowed: from the input where the message lies in one record, which is nearly always, else from
//! `joined`. Strict in all that it reads; values that nobody knows (GREASE, RFC 8701) are passed over.

mod extensions;
pub mod fuzz;

use crate::model::Limits;

pub use extensions::{Alpn, Identities, Versions};

/// A record of handshake messages; the first byte of every TLS connection.
pub const HANDSHAKE: u8 = 22;

/// What a client said first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClientHello<'a> {
    /// The newest version of those before 1.3 (`0x0303` is 1.2).
    pub legacy_version: u16,
    /// Of an earlier session, or a mere number where the client offers TLS 1.3.
    pub session_id: &'a [u8],
    /// As sent, but for a dot at its end (RFC 6066 §3). ASCII letters, digits, `-`, `_` and `.`.
    pub sni: Option<&'a str>,
    /// The protocols that the client offers, the favourite first (RFC 7301).
    pub alpn: Alpn<'a>,
    /// Empty where the client knows nothing newer than `legacy_version`.
    pub versions: Versions<'a>,
    /// TLS 1.2 (RFC 5077 §3.2); empty where it only asks for one.
    pub ticket: Option<&'a [u8]>,
    /// TLS 1.3 (RFC 8446 §4.2.11).
    pub identities: Identities<'a>,
}

/// Why bytes are not a ClientHello.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HelloFault {
    /// Not a record of handshake messages.
    Record,
    /// Another handshake message.
    Message,
    /// Longer than it may be.
    TooLong,
    /// A part that reaches beyond its end, or ends before it.
    Length,
    /// A name that cannot be one.
    Name,
    /// Something twice that may be there once.
    Twice,
    /// `pre_shared_key` is not the last extension (RFC 8446 §4.2.11).
    Order,
}

impl HelloFault {
    /// For the log.
    pub fn detail(self) -> &'static str {
        match self {
            HelloFault::Record => "not a TLS handshake record",
            HelloFault::Message => "the first TLS message is not a ClientHello",
            HelloFault::TooLong => "the ClientHello is too long",
            HelloFault::Length => "a length in the ClientHello is wrong",
            HelloFault::Name => "the server name in the ClientHello is not valid",
            HelloFault::Twice => "an extension of the ClientHello is there twice",
            HelloFault::Order => "the extensions of the ClientHello are in a wrong order",
        }
    }
}

/// Fragments are at most this long (RFC 8446 §5.1).
const FRAGMENT: usize = 1 << 14;
const CLIENT_HELLO: u8 = 1;

/// Reads the ClientHello that begins `bytes`. `None`: it goes on behind them. `joined` is written only
/// when the message is spread over several records.
///
/// # Errors
/// As soon as no continuation could make a ClientHello of `bytes`.
pub fn parse<'a>(bytes: &'a [u8], joined: &'a mut Vec<u8>) -> Result<Option<ClientHello<'a>>, HelloFault> {
    let Some((fragment, rest)) = record(bytes)? else { return too_long(bytes) };
    if let Some(message) = message(fragment)? {
        return hello(message).map(Some);
    }
    joined.clear();
    joined.extend_from_slice(fragment);
    let mut rest = rest;
    loop {
        // What is here of the next record says already whether the message goes on.
        let Some((fragment, behind)) = record(rest)? else { return too_long(bytes) };
        joined.extend_from_slice(fragment);
        rest = behind;
        if message(joined)?.is_some() {
            break;
        }
    }
    match message(joined)? {
        Some(message) => hello(message).map(Some),
        None => Ok(None),
    }
}

/// Not all of it is here: that is wrong where all that may be is.
fn too_long<'a>(bytes: &[u8]) -> Result<Option<ClientHello<'a>>, HelloFault> {
    if bytes.len() >= Limits::HELLO_BYTES { Err(HelloFault::TooLong) } else { Ok(None) }
}

/// The fragment in a record, and what follows it.
type Fragment<'a> = (&'a [u8], &'a [u8]);

/// Of the record that begins `bytes`; `None` while it is not whole.
fn record(bytes: &[u8]) -> Result<Option<Fragment<'_>>, HelloFault> {
    if bytes.first().is_some_and(|kind| *kind != HANDSHAKE) {
        return Err(HelloFault::Record);
    }
    // RFC 8446 §5.1: the minor version is of no importance.
    if bytes.get(1).is_some_and(|major| *major != 3) {
        return Err(HelloFault::Record);
    }
    let Some((head, rest)) = bytes.split_at_checked(5) else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes([head[3], head[4]]));
    // RFC 8446 §5.1: handshake fragments are never empty.
    if length == 0 || length > FRAGMENT {
        return Err(HelloFault::Length);
    }
    Ok(rest.split_at_checked(length))
}

/// The body of the message that is all of `bytes`; `None` while it is not whole.
fn message(bytes: &[u8]) -> Result<Option<&[u8]>, HelloFault> {
    if bytes.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
        return Err(HelloFault::Message);
    }
    let Some((head, body)) = bytes.split_at_checked(4) else { return Ok(None) };
    let length = head[1..].iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
    if length > Limits::HELLO_BYTES {
        return Err(HelloFault::TooLong);
    }
    match body.len() {
        // The server speaks next: nothing may follow in the same record.
        here if here > length => Err(HelloFault::Length),
        here if here == length => Ok(Some(body)),
        _ => Ok(None),
    }
}

/// RFC 8446 §4.1.2.
fn hello(body: &[u8]) -> Result<ClientHello<'_>, HelloFault> {
    let mut part = Part(body);
    let legacy_version = part.u16()?;
    if legacy_version >> 8 != 3 {
        return Err(HelloFault::Message);
    }
    part.take(32)?; // random
    let session_id = part.vector8()?;
    let ciphers = part.vector16()?;
    let compressions = part.vector8()?;
    if session_id.len() > 32 || ciphers.is_empty() || ciphers.len() % 2 != 0 || compressions.is_empty() {
        return Err(HelloFault::Length);
    }
    let mut hello = ClientHello { legacy_version, session_id, ..ClientHello::default() };
    // Before TLS 1.3 there need not be any (RFC 5246 §7.4.1.2).
    if part.is_empty() {
        return Ok(hello);
    }
    let extensions = part.vector16()?;
    part.end()?;
    extensions::read(Part(extensions), &mut hello)?;
    Ok(hello)
}

/// What has not been read yet of some part of the message.
#[derive(Debug, Clone, Copy)]
struct Part<'a>(&'a [u8]);

impl<'a> Part<'a> {
    fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    fn end(self) -> Result<(), HelloFault> {
        if self.is_empty() { Ok(()) } else { Err(HelloFault::Length) }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], HelloFault> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(HelloFault::Length)?;
        self.0 = rest;
        Ok(taken)
    }

    fn u8(&mut self) -> Result<u8, HelloFault> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn u16(&mut self) -> Result<u16, HelloFault> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// Bytes with their count, of one byte, before them.
    fn vector8(&mut self) -> Result<&'a [u8], HelloFault> {
        let count = self.u8()?;
        self.take(usize::from(count))
    }

    /// Bytes with their count, of two bytes, before them.
    fn vector16(&mut self) -> Result<&'a [u8], HelloFault> {
        let count = self.u16()?;
        self.take(usize::from(count))
    }
}

/// A fatal alert, for a client that will get no server (RFC 8446 §6).
pub fn alert(of: Alert) -> [u8; 7] {
    [21, 3, 1, 0, 2, 2, of as u8]
}

/// RFC 8446 §6.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alert {
    AccessDenied = 49,
    DecodeError = 50,
    InternalError = 80,
    UnrecognizedName = 112,
}

#[cfg(test)]
mod tests;
