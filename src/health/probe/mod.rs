//! Asks a server once, as a check says, and tells what came of it.
//!
//! One file a family: `web` (HTTP/1), `frames` (HTTP/2 and gRPC), `mail` (mail and FTP, lines that servers speak first),
//! `media` (RTSP), `dns`, `datagram` (UDP and ping), `command`, `agent`. What all of them say and hear goes by `talk`.

mod agent;
mod command;
mod datagram;
mod dns;
mod frames;
mod mail;
mod media;
mod talk;
mod web;

#[cfg(test)]
mod tests;

use std::future::Future;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::machine::Outcome;
use crate::model::check::{Check, Probe, Seal};
use crate::model::pool::{Protocol, ProxyVersion};
use crate::net::Stream;
use crate::state::secured::ClientSlot;
use crate::sys::process::is_shortage;
use crate::tls;
use crate::wire::proxy_header;
pub use agent::Advice;
use talk::Talk;
pub use talk::Transcript;

/// No check waits longer, whatever is configured; it also keeps the deadline's arithmetic in range.
const LONGEST: Duration = Duration::from_secs(3600);

/// What a server has to prove that is spoken to in secret.
#[derive(Debug, Clone)]
pub struct Sealed {
    pub config: ClientSlot,
    pub name: ServerName<'static>,
}

/// Who is asked, and how.
#[derive(Debug)]
pub struct Target {
    pub check: Check,
    pub pool: Arc<str>,
    pub server: Arc<str>,
    /// The server's address as it is written, for the Host field.
    pub named: Arc<str>,
    pub sealed: Option<Sealed>,
}

/// Why a server was not asked, which says nothing about it.
#[derive(Debug)]
pub enum Unable {
    /// No descriptor, memory or port was left: it passes.
    Shortage(std::io::Error),
    /// Something is missing that the operator has to see to.
    Missing(String),
}

/// Why a probe failed: the server's fault, or ours.
#[derive(Debug)]
enum Failed {
    Bad(String),
    Unable(Unable),
}

impl From<String> for Failed {
    fn from(detail: String) -> Failed {
        Failed::Bad(detail)
    }
}

/// `kept` is a connection that a probe before has left, and that this one leaves.
///
/// # Errors
/// Why nobody was asked.
pub async fn probe(target: &Target, address: SocketAddr, kept: &mut Option<Stream>) -> Result<Outcome, Unable> {
    let mut said = Transcript::default();
    let timeout = target.check.timeout;
    let clock = Clock { whole: timeout, end: Instant::now() + timeout.min(LONGEST) };
    let mut advice = None;
    let result = attempt(target, address, kept, &clock, &mut said, &mut advice).await;
    let (ok, detail) = match result {
        Ok(detail) => (true, detail),
        Err(Failed::Bad(detail)) => (false, detail),
        Err(Failed::Unable(unable)) => return Err(unable),
    };
    Ok(Outcome { ok, detail, said, advice })
}

async fn attempt(
    target: &Target,
    address: SocketAddr,
    kept: &mut Option<Stream>,
    clock: &Clock,
    said: &mut Transcript,
    advice: &mut Option<Advice>,
) -> Result<String, Failed> {
    let check = &target.check;
    let address = check.target(address);
    match &check.probe {
        Probe::Ping => return datagram::ping(address, clock).await,
        Probe::Udp { send, expect } => return datagram::udp(address, send, expect.as_ref(), clock, said).await,
        Probe::Dns { name, kind, over_tcp: false } => return dns::by_udp(address, name, *kind, clock, said).await,
        Probe::Command(words) => return command::run(words, target, address, clock, said).await,
        Probe::Http(http) if http.keep_alive => {
            if let Some(stream) = kept.take().filter(Stream::is_quiet) {
                let mut talk = Talk::new(stream, clock, said);
                return Ok(web::ask(&mut talk, http, &target.named, kept).await?);
            }
        }
        _ => {}
    }
    if matches!(check.seal, Seal::Tls | Seal::Starttls) && target.sealed.is_none() {
        let why = "the system trusts nobody, or the server has no name that a certificate could hold";
        return Err(Failed::Unable(Unable::Missing(why.to_owned())));
    }
    let (mut stream, http2) = connect(target, address, clock).await?;
    if check.probe == Probe::CONNECT && check.send_proxy.is_none() && stream.is_plain() {
        // As HAProxy does: nothing was said that has to arrive, and an orderly end would take three more packets and leave
        // a port behind for a minute.
        stream.reset_on_close();
    }
    let mut talk = Talk::new(stream, clock, said);
    let named = &target.named;
    let later = target.sealed.as_ref().filter(|_| check.seal == Seal::Starttls);
    Ok(match &check.probe {
        Probe::Tls => "connected by TLS".to_owned(),
        Probe::Tcp { send: None, expect: None } => {
            let how = if target.sealed.is_some() { "connected by TLS" } else { "connected" };
            how.to_owned()
        }
        Probe::Tcp { send, expect } => talk.exchange(send.as_deref().unwrap_or_default(), expect.as_ref()).await?,
        Probe::Http(http) if http2 => frames::ask(talk.into_stream(), http, named, clock).await?,
        Probe::Http(http) => web::ask(&mut talk, http, named, kept).await?,
        Probe::Grpc { service } => frames::health(talk.into_stream(), service, named, clock).await?,
        Probe::Smtp { helo } => mail::smtp(&mut talk, helo, later).await?,
        Probe::Pop3 => mail::pop3(&mut talk, later).await?,
        Probe::Imap => mail::imap(&mut talk, later).await?,
        Probe::Ftp => mail::ftp(&mut talk, later).await?,
        Probe::Rtsp { method, path, expect_status } => {
            media::rtsp(&mut talk, *method, path, named, expect_status).await?
        }
        Probe::Dns { name, kind, .. } => dns::by_tcp(&mut talk, name, *kind).await?,
        Probe::Agent { send } => agent::ask(&mut talk, send, advice).await?,
        // They have no connection, and went their way above.
        Probe::Ping | Probe::Udp { .. } | Probe::Command(_) => String::new(),
    })
}

/// A connection, and whether HTTP/2 is spoken on it.
async fn connect(target: &Target, address: SocketAddr, clock: &Clock) -> Result<(Stream, bool), Failed> {
    let check = &target.check;
    let tcp = match clock.within("connecting", async { Ok(TcpStream::connect(address).await) }).await? {
        Ok(tcp) => tcp,
        Err(error) if is_shortage(&error) => return Err(Failed::Unable(Unable::Shortage(error))),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            return Err(Failed::Bad("connect refused".to_owned()));
        }
        Err(error) => return Err(Failed::Bad(format!("connect failed: {error}"))),
    };
    if let Some(version) = check.send_proxy {
        clock.within("sending the PROXY header", announce(&tcp, version)).await?;
    }
    let Some(sealed) = target.sealed.as_ref().filter(|_| check.seal != Seal::Starttls) else {
        let http2 = matches!(check.probe, Probe::Grpc { .. }) || check.protocol == Protocol::H2c;
        return Ok((Stream::plain(tcp), http2));
    };
    let (stream, http2) = shake(tcp, sealed, languages(check), clock).await?;
    let wanted = matches!(check.probe, Probe::Grpc { .. })
        || check.protocol == Protocol::H2 && matches!(check.probe, Probe::Http(_));
    if wanted && !http2 {
        return Err(Failed::Bad("TLS: the server does not choose HTTP/2".to_owned()));
    }
    Ok((stream, http2))
}

/// Shakes hands; whether HTTP/2 was chosen of what is offered.
async fn shake(
    tcp: TcpStream,
    sealed: &Sealed,
    offered: Vec<Vec<u8>>,
    clock: &Clock,
) -> Result<(Stream, bool), String> {
    let mut config = sealed.config.load_full();
    if config.alpn_protocols != offered {
        let mut own = (*config).clone();
        own.alpn_protocols = offered;
        config = Arc::new(own);
    }
    let handshake = tls::connect(tcp, config, sealed.name.clone());
    let (tcp, session) = clock.within("for the TLS handshake", handshake).await?;
    let http2 = session.alpn_protocol() == Some(b"h2");
    Ok((Stream::tls(tcp, session), http2))
}

/// What a probe can speak by TLS (ALPN).
fn languages(check: &Check) -> Vec<Vec<u8>> {
    let words: &[&[u8]] = match (&check.probe, check.protocol) {
        (Probe::Grpc { .. }, _) => &[b"h2"],
        (Probe::Http(_), Protocol::H2 | Protocol::H2c) => &[b"h2"],
        (Probe::Http(_), Protocol::Auto) => &[b"h2", b"http/1.1"],
        (Probe::Http(_), Protocol::Http1) => &[b"http/1.1"],
        // A handshake alone is one as the pool's own.
        (Probe::Tls | Probe::Tcp { .. }, Protocol::H2 | Protocol::H2c) => &[b"h2"],
        _ => &[],
    };
    words.iter().map(|word| word.to_vec()).collect()
}

/// Says that this connection is our own and no client's.
async fn announce(stream: &TcpStream, version: ProxyVersion) -> Result<(), String> {
    let mut header = Vec::new();
    match version {
        ProxyVersion::V1 => proxy_header::write_v1(None, &mut header),
        ProxyVersion::V2 => proxy_header::write_v2(None, std::iter::empty(), &mut header),
    }
    let broken = |error: std::io::Error| format!("the PROXY header was not taken: {error}");
    stream.writable().await.map_err(broken)?;
    // The kernel takes it whole: it is the first thing in an empty buffer.
    match stream.try_write(&header) {
        Ok(count) if count == header.len() => Ok(()),
        Ok(_) => Err("the PROXY header was not taken".to_owned()),
        Err(error) => Err(broken(error)),
    }
}

/// One deadline for the whole probe; what was waited for when it passed is said.
#[derive(Debug)]
struct Clock {
    whole: Duration,
    end: Instant,
}

impl Clock {
    async fn within<T>(&self, doing: &str, future: impl Future<Output = Result<T, String>>) -> Result<T, String> {
        match timeout_at(self.end, future).await {
            Ok(result) => result,
            Err(_) => Err(format!("timed out after {} {doing}", length(self.whole))),
        }
    }
}

/// Whether a status is one of those expected; what is said of it.
fn judge(status: u16, expected: &[RangeInclusive<u16>]) -> Result<(), String> {
    if expected.iter().any(|range| range.contains(&status)) {
        return Ok(());
    }
    let one = |range: &RangeInclusive<u16>| match (range.start(), range.end()) {
        (start, end) if start == end => start.to_string(),
        (start, end) => format!("{start}-{end}"),
    };
    let ranges = expected.iter().map(one).collect::<Vec<_>>().join(", ");
    Err(format!("status {status}, expected {ranges}"))
}

/// As it would be written in the configuration: `1s`, `500ms`.
fn length(time: Duration) -> String {
    match time.as_millis() {
        millis if millis % 1000 == 0 => format!("{}s", millis / 1000),
        millis => format!("{millis}ms"),
    }
}
