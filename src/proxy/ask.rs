//! A request that is Reeve's own, or a copy of one: sent whole over HTTP/1, and its answer read within bounds.
//!
//! Nothing here looks at the time: whoever asks gives the whole of it one deadline.

use std::io;

use super::worker::Worker;
use crate::model::Limits;
use crate::net::stream::{Reader, Writer};
use crate::net::{Buffer, Stream};
use crate::wire::http1::response::{self, Method};
use crate::wire::http1::{ChunkedBody, Framing, Keep};

/// Interim answers that are passed over.
const MOST_INTERIM: u32 = 16;

/// A final answer.
#[derive(Debug)]
pub struct Said {
    /// Its head, as it came.
    pub head: Vec<u8>,
    /// As much of its body as was wanted.
    pub body: Vec<u8>,
    /// All of the body has been read.
    pub whole: bool,
    /// The connection is good for another request.
    pub reusable: bool,
}

/// How much of an answer's body is wanted.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// Bytes that are read.
    pub read: usize,
    /// Whether they are kept.
    pub kept: bool,
}

/// Sends `request`, head and body, and reads the answer.
///
/// # Errors
/// When the connection breaks, or the answer is none.
pub async fn ask(
    worker: &Worker,
    stream: &mut Stream,
    request: &[u8],
    method: Method,
    wanted: Wanted,
    limits: &Limits,
) -> io::Result<Said> {
    let (mut from, mut to) = stream.split();
    send(&mut to, request).await?;
    let mut buffer = worker.buffers.small();
    let mut interim = 0;
    loop {
        let parsed = if buffer.is_empty() { None } else { head(&buffer, method, limits)? };
        let Some((status, length, framing, keep_alive)) = parsed else {
            more(&mut from, &mut buffer, limits.header_bytes).await?;
            continue;
        };
        if status < 200 {
            interim += 1;
            if status == 101 || interim > MOST_INTERIM {
                return Err(invalid("another answer than to what was asked"));
            }
            buffer.consume(length);
            continue;
        }
        let head = buffer.as_slice()[..length].to_vec();
        buffer.consume(length);
        let mut said = Said { head, body: Vec::new(), whole: false, reusable: false };
        said.whole = body(&mut from, &mut buffer, framing, wanted, limits, &mut said.body).await?;
        said.reusable = keep_alive && said.whole && framing != Framing::UntilClose && buffer.is_empty();
        return Ok(said);
    }
}

async fn send(to: &mut Writer<'_>, request: &[u8]) -> io::Result<()> {
    let mut sent = to.write_now(request)?;
    while sent < request.len() {
        match to.write(&request[sent..]).await? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            count => sent += count,
        }
    }
    while to.is_behind() {
        to.send().await?;
    }
    Ok(())
}

/// Status, bytes, framing and whether the connection stays, once the head is whole.
fn head(buffer: &Buffer, method: Method, limits: &Limits) -> io::Result<Option<(u16, usize, Framing, bool)>> {
    let parsed = response::parse(buffer.as_slice(), method, limits).map_err(|fault| invalid(fault.detail()))?;
    Ok(parsed.map(|head| (head.status, head.raw.len(), head.body, head.keep_alive)))
}

/// Whether all of it was read.
async fn body(
    from: &mut Reader<'_>,
    buffer: &mut Buffer,
    framing: Framing,
    wanted: Wanted,
    limits: &Limits,
    into: &mut Vec<u8>,
) -> io::Result<bool> {
    let mut chunks = ChunkedBody::of_answer(Keep::Data);
    let mut read = 0u64;
    loop {
        let (here, taken, done) = match framing {
            Framing::None => return Ok(true),
            Framing::Length(length) => {
                let here = (length - read).min(buffer.len() as u64) as usize;
                (here, here, read + here as u64 == length)
            }
            Framing::UntilClose => (buffer.len(), buffer.len(), false),
            Framing::Chunked => {
                let scanned = chunks.scan(buffer.as_mut_slice(), limits).map_err(|fault| invalid(fault.detail()))?;
                (scanned.kept, scanned.taken, scanned.done)
            }
        };
        read += here as u64;
        if wanted.kept {
            let room = wanted.read.saturating_sub(into.len());
            into.extend_from_slice(&buffer.as_slice()[..here.min(room)]);
        }
        buffer.consume(taken);
        if read > wanted.read as u64 {
            return Ok(false);
        }
        if done {
            return Ok(true);
        }
        let most = limits.trailer_bytes.max(buffer.capacity()) + 1024;
        match more(from, buffer, most).await {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && framing == Framing::UntilClose => {
                return Ok(true);
            }
            Err(error) => return Err(error),
        }
    }
}

async fn more(from: &mut Reader<'_>, buffer: &mut Buffer, most: usize) -> io::Result<()> {
    if !buffer.grow(most) {
        return Err(invalid("a part of the answer is too large"));
    }
    match from.read(buffer).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

fn invalid(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}
