//! The extensions of a ClientHello that say something to a balancer (RFC 8446 §4.2).

use super::{ClientHello, HelloFault, Part};

const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;
const SESSION_TICKET: u16 = 35;
const PRE_SHARED_KEY: u16 = 41;
const SUPPORTED_VERSIONS: u16 = 43;

/// The longest name of a host (RFC 1035 §2.3.4), with a dot at its end.
const LONGEST_NAME: usize = 254;

/// Protocol names, each with its length of one byte before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Alpn<'a>(&'a [u8]);

/// TLS versions of two bytes each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Versions<'a>(&'a [u8]);

/// Identities of pre-shared keys: length, identity, age.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Identities<'a>(&'a [u8]);

impl<'a> Iterator for Alpn<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let mut part = Part(self.0);
        let name = part.vector8().ok()?;
        self.0 = part.0;
        Some(name)
    }
}

impl Iterator for Versions<'_> {
    type Item = u16;

    fn next(&mut self) -> Option<u16> {
        let (&version, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u16::from_be_bytes(version))
    }
}

impl<'a> Iterator for Identities<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let mut part = Part(self.0);
        let identity = part.vector16().ok()?;
        part.take(4).ok()?; // obfuscated_ticket_age
        self.0 = part.0;
        Some(identity)
    }
}

/// Reads what is known, and the lengths of everything.
pub(super) fn read<'a>(mut all: Part<'a>, hello: &mut ClientHello<'a>) -> Result<(), HelloFault> {
    // RFC 8446 §4.2: none may be there twice. Asked of those that are read: for the others it is no
    // question of what we understand.
    let mut seen = [false; 5];
    let mut once = |position: usize| match std::mem::replace(&mut seen[position], true) {
        true => Err(HelloFault::Twice),
        false => Ok(()),
    };
    while !all.is_empty() {
        let kind = all.u16()?;
        let data = Part(all.vector16()?);
        match kind {
            SERVER_NAME => {
                once(0)?;
                hello.sni = server_name(data)?;
            }
            ALPN => {
                once(1)?;
                hello.alpn = alpn(data)?;
            }
            SESSION_TICKET => {
                once(2)?;
                hello.ticket = Some(data.0);
            }
            SUPPORTED_VERSIONS => {
                once(3)?;
                hello.versions = versions(data)?;
            }
            PRE_SHARED_KEY => {
                once(4)?;
                hello.identities = identities(data)?;
                if !all.is_empty() {
                    return Err(HelloFault::Order);
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// RFC 6066 §3.
fn server_name(mut data: Part<'_>) -> Result<Option<&str>, HelloFault> {
    let mut list = Part(data.vector16()?);
    data.end()?;
    if list.is_empty() {
        return Err(HelloFault::Length);
    }
    let mut found = None;
    while !list.is_empty() {
        let kind = list.u8()?;
        // Whatever other kinds there will be, they begin with a length too.
        let name = list.vector16()?;
        if kind == 0 && found.replace(host_name(name)?).is_some() {
            return Err(HelloFault::Twice);
        }
    }
    Ok(found)
}

fn host_name(name: &[u8]) -> Result<&str, HelloFault> {
    let valid = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    if name.is_empty() || name.len() > LONGEST_NAME || !name.iter().all(valid) {
        return Err(HelloFault::Name);
    }
    // No client should send a dot at the end; those that do mean the same host.
    let name = name.strip_suffix(b".").unwrap_or(name);
    // Empty labels have no meaning.
    if name.split(|byte| *byte == b'.').any(<[u8]>::is_empty) {
        return Err(HelloFault::Name);
    }
    std::str::from_utf8(name).map_err(|_| HelloFault::Name)
}

/// RFC 7301 §3.1.
fn alpn(mut data: Part<'_>) -> Result<Alpn<'_>, HelloFault> {
    let list = data.vector16()?;
    data.end()?;
    let mut names = Part(list);
    while !names.is_empty() {
        if names.vector8()?.is_empty() {
            return Err(HelloFault::Length);
        }
    }
    if list.is_empty() { Err(HelloFault::Length) } else { Ok(Alpn(list)) }
}

/// RFC 8446 §4.2.1.
fn versions(mut data: Part<'_>) -> Result<Versions<'_>, HelloFault> {
    let list = data.vector8()?;
    data.end()?;
    if list.is_empty() || !list.len().is_multiple_of(2) { Err(HelloFault::Length) } else { Ok(Versions(list)) }
}

/// RFC 8446 §4.2.11.
fn identities(mut data: Part<'_>) -> Result<Identities<'_>, HelloFault> {
    let list = data.vector16()?;
    let mut binders = Part(data.vector16()?);
    data.end()?;
    let (mut left, mut count) = (Part(list), 0_usize);
    while !left.is_empty() {
        let identity = left.vector16()?;
        left.take(4)?;
        if identity.is_empty() {
            return Err(HelloFault::Length);
        }
        count += 1;
    }
    let mut bound = 0;
    while !binders.is_empty() {
        if binders.vector8()?.len() < 32 {
            return Err(HelloFault::Length);
        }
        bound += 1;
    }
    // Each identity has its binder.
    if count == 0 || count != bound { Err(HelloFault::Length) } else { Ok(Identities(list)) }
}
