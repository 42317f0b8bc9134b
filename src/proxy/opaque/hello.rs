//! Waits for what a client of a `tls-passthrough` listener says first.

use std::time::{Duration, Instant};

use super::super::failure::{FailureKind, Side};
use super::super::worker::Worker;
use super::Ending;
use crate::net::buffers::SMALL;
use crate::net::stream::Reader;
use crate::net::{Buffer, Elapsed, Timer};
use crate::state::counters::Rejected;
use crate::wire::client_hello::{self, Alert, HANDSHAKE};

/// What has been read, to be passed on.
#[derive(Debug, Default)]
pub struct Opening {
    pub bytes: Option<Buffer>,
}

/// Reads until the ClientHello is whole, or it is clear that none comes: because the first byte belongs
/// to none, or there is no byte in time. `tls` says which of these it was.
///
/// # Errors
/// When a ClientHello began that cannot be one, was not whole in time, or the client has gone.
pub async fn receive(
    worker: &Worker,
    reader: &mut Reader<'_>,
    timer: &Timer,
    limit: Duration,
    tls: &mut bool,
) -> Result<Opening, Ending> {
    let started = Instant::now();
    let mut joined = Vec::new();
    let mut bytes = match timer.wait(limit, reader.fill(&worker.buffers, SMALL as u64)).await {
        Ok(Ok(bytes)) if !bytes.is_empty() => bytes,
        Ok(_) => return Err(Ending { unsaid: true, ..Ending::default() }),
        // A protocol in which the server speaks first.
        Err(Elapsed) => return Ok(Opening::default()),
    };
    if bytes.as_slice().first() != Some(&HANDSHAKE) {
        return Ok(Opening { bytes: Some(bytes) });
    }
    *tls = true;
    loop {
        match client_hello::parse(bytes.as_slice(), &mut joined) {
            Ok(Some(_)) => return Ok(Opening { bytes: Some(bytes) }),
            Ok(None) => {}
            Err(fault) => return Err(refused("bad-hello", fault.detail(), Alert::DecodeError)),
        }
        // The hello has one deadline, however it is dripped in. There is room: the parser has the bound.
        let left = limit.saturating_sub(started.elapsed());
        let read = if left.is_zero() { Err(Elapsed) } else { timer.wait(left, reader.read(&mut bytes)).await };
        match read {
            Ok(Ok(count)) if count > 0 => {}
            Ok(_) => return Err(Ending::of(FailureKind::ClientGone)),
            Err(Elapsed) => return Err(refused("hello-timeout", "the ClientHello took too long", Alert::DecodeError)),
        }
    }
}

fn refused(word: &'static str, detail: &'static str, alert: Alert) -> Ending {
    tracing::debug!("{detail}");
    Ending {
        word: Some(word),
        side: Some(Side::Downstream),
        rejected: Some(Rejected::ClientHello),
        alert: Some(alert),
        ..Ending::default()
    }
}
