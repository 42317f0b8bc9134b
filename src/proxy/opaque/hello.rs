//! What is said first on a `tls-passthrough` listener: by the client, which is waited for, and by the server.

use std::time::{Duration, Instant};

use super::super::failure::{FailureKind, Side};
use super::super::relay;
use super::super::tunnel::Broken;
use super::super::worker::Worker;
use super::Ending;
use crate::net::buffers::SMALL;
use crate::net::stream::{Reader, Writer};
use crate::net::{Buffer, Elapsed, Timer};
use crate::state::counters::Rejected;
use crate::wire::client_hello::{self, Alert, HANDSHAKE};
use crate::wire::server_hello::{self, ServerHello};

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

/// What a server's hello has on its way to the client.
#[derive(Clone, Copy)]
pub struct Path<'p> {
    pub worker: &'p Worker,
    pub timer: &'p Timer,
    /// For the hello.
    pub within: Duration,
    /// A client that takes no byte of it.
    pub write: Duration,
}

/// Passes on what the server says first, and reads along until its hello is whole: then `learn` is called. Not longer than the
/// hello may take, for then this is something else.
///
/// # Errors
/// When one of the two has gone.
pub async fn learn(
    path: Path<'_>,
    server: &mut Reader<'_>,
    client: &mut Writer<'_>,
    moved: &dyn Fn(u64),
    learn: impl FnOnce(&ServerHello<'_>),
) -> Result<(), Ending> {
    let started = Instant::now();
    let mut seen = Vec::new();
    loop {
        let left = path.within.saturating_sub(started.elapsed());
        let read = path.timer.wait(left, server.fill(&path.worker.buffers, SMALL as u64)).await;
        let bytes = match read {
            Ok(Ok(bytes)) if !bytes.is_empty() => bytes,
            // Whoever joins the two finds out, and says so.
            Ok(_) | Err(Elapsed) => return Ok(()),
        };
        moved(bytes.len() as u64);
        let written = relay::write_all(client, bytes.as_slice(), path.timer, path.write).await;
        written.map_err(|_| Ending::from(Broken::By(Side::Downstream)))?;
        let room = server_hello::LONGEST.saturating_sub(seen.len());
        seen.extend_from_slice(&bytes.as_slice()[..bytes.len().min(room)]);
        match server_hello::parse(&seen) {
            Ok(Some(hello)) => {
                learn(&hello);
                return Ok(());
            }
            Ok(None) if seen.len() < server_hello::LONGEST => {}
            Ok(None) | Err(server_hello::NoServerHello) => return Ok(()),
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
