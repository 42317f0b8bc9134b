//! Asks a server once, as a check says, and tells what came of it.

use std::future::Future;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST, USER_AGENT};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::machine::Outcome;
use crate::model::pool::{Check, Probe, Protocol, ProxyVersion};
use crate::net::Stream;
use crate::state::secured::ClientSlot;
use crate::sys::process::is_shortage;
use crate::tls;
use crate::wire::proxy_header;

/// As much of an answer's body is read; a health page is shorter, and the rest would say nothing more.
const BODY: usize = 64 << 10;
/// No check waits longer, whatever is configured; it also keeps the deadline's arithmetic in range.
const LONGEST: Duration = Duration::from_secs(3600);

/// What a server has to prove that is spoken to in secret.
#[derive(Debug, Clone)]
pub struct Sealed {
    pub config: ClientSlot,
    pub name: ServerName<'static>,
}

/// `named` is the server's address as it is written, for the Host field. `None` where there was no descriptor
/// or port to ask it by, which says nothing about the server.
pub async fn probe(check: &Check, address: SocketAddr, named: &str, sealed: Option<&Sealed>) -> Option<Outcome> {
    let address = SocketAddr::new(address.ip(), check.port.unwrap_or(address.port()));
    let clock = Clock { whole: check.timeout, end: Instant::now() + check.timeout.min(LONGEST) };
    let attempted = match clock.within("connecting", connect(address)).await {
        Ok(Ok(tcp)) => attempt(tcp, check, named, sealed, &clock).await,
        Ok(Err(shortage)) => {
            tracing::debug!(%address, "no probe: {shortage}");
            return None;
        }
        Err(detail) => Err(detail),
    };
    Some(match attempted {
        Ok(detail) => Outcome { ok: true, detail },
        Err(detail) => Outcome { ok: false, detail },
    })
}

async fn attempt(
    tcp: TcpStream,
    check: &Check,
    named: &str,
    sealed: Option<&Sealed>,
    clock: &Clock,
) -> Result<String, String> {
    if let Some(version) = check.send_proxy {
        clock.within("sending the PROXY header", announce(&tcp, version)).await?;
    }
    let (stream, http2, connected) = match sealed {
        None => (Stream::plain(tcp), check.protocol == Protocol::H2c, "connected"),
        Some(Sealed { config, name }) => {
            let handshake = tls::connect(tcp, config.load_full(), name.clone());
            let (tcp, session) = clock.within("for the TLS handshake", handshake).await?;
            let http2 = session.alpn_protocol() == Some(b"h2");
            if check.protocol == Protocol::H2 && !http2 {
                return Err("TLS: the server does not choose HTTP/2".to_owned());
            }
            (Stream::tls(tcp, session), http2, "connected by TLS")
        }
    };
    match &check.probe {
        Probe::Tcp => Ok(connected.to_owned()),
        Probe::Http { method, path, host, expect_status } => {
            let host = host.as_deref().unwrap_or(named);
            if http2 {
                ask_http2(stream, request_http2(method, path, host)?, expect_status, clock).await
            } else {
                ask(stream, request(method, path, host)?, expect_status, clock).await
            }
        }
    }
}

/// One deadline for the whole probe; what was waited for when it passed is said.
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

/// The inner error is a shortage of ours.
async fn connect(address: SocketAddr) -> Result<Result<TcpStream, std::io::Error>, String> {
    match TcpStream::connect(address).await {
        Ok(stream) => Ok(Ok(stream)),
        Err(error) if is_shortage(&error) => Ok(Err(error)),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Err("connect refused".to_owned()),
        Err(error) => Err(format!("connect failed: {error}")),
    }
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

fn request(method: &str, path: &str, host: &str) -> Result<Request<Empty<Bytes>>, String> {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, host)
        .header(USER_AGENT, "reeve-check")
        // RFC 9112 §9.6: one request only, the server need not keep the connection.
        .header(CONNECTION, "close");
    request.body(Empty::new()).map_err(|error| format!("the check cannot be sent: {error}"))
}

async fn ask(
    stream: Stream,
    request: Request<Empty<Bytes>>,
    expected: &[RangeInclusive<u16>],
    clock: &Clock,
) -> Result<String, String> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let exchange = async {
        let answer = async { sender.send_request(request).await.map_err(broken) };
        let answer = clock.within("waiting for the answer", answer).await?;
        clock.within("reading the answer", judge(answer, expected)).await
    };
    tokio::pin!(exchange, connection);
    tokio::select! {
        biased;
        told = &mut exchange => told,
        // The connection is over; what it read before is still to be judged.
        _ = &mut connection => exchange.await,
    }
}

fn request_http2(method: &str, path: &str, host: &str) -> Result<Request<()>, String> {
    let request =
        Request::builder().method(method).uri(format!("http://{host}{path}")).header(USER_AGENT, "reeve-check");
    request.body(()).map_err(|error| format!("the check cannot be sent: {error}"))
}

/// The head alone is waited for: its status is what a check is about.
async fn ask_http2(
    stream: Stream,
    request: Request<()>,
    expected: &[RangeInclusive<u16>],
    clock: &Clock,
) -> Result<String, String> {
    let no_answer = |error: h2::Error| format!("no answer: {error}");
    let (sender, connection) =
        clock.within("connecting", async { h2::client::handshake(stream).await.map_err(no_answer) }).await?;
    let answer = async {
        let mut sender = sender.ready().await.map_err(no_answer)?;
        let (answer, _) = sender.send_request(request, true).map_err(no_answer)?;
        answer.await.map_err(no_answer)
    };
    let answer = clock.within("waiting for the answer", answer);
    tokio::pin!(answer, connection);
    let answer = tokio::select! {
        biased;
        told = &mut answer => told?,
        _ = &mut connection => answer.await?,
    };
    let status = answer.status().as_u16();
    if !expected.iter().any(|range| range.contains(&status)) {
        return Err(format!("status {status}, expected {}", ranges(expected)));
    }
    Ok(format!("status {status}"))
}

async fn judge(answer: Response<Incoming>, expected: &[RangeInclusive<u16>]) -> Result<String, String> {
    let status = answer.status().as_u16();
    if !expected.iter().any(|range| range.contains(&status)) {
        return Err(format!("status {status}, expected {}", ranges(expected)));
    }
    let (mut body, mut read) = (answer.into_body(), 0);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| format!("answer cut short: {}", root(&error)))?;
        read += frame.data_ref().map_or(0, Bytes::len);
        if read >= BODY {
            break;
        }
    }
    Ok(format!("status {status}"))
}

fn broken(error: hyper::Error) -> String {
    match error {
        // hyper's word for a peer that closes instead of answering.
        error if error.is_incomplete_message() || error.is_canceled() => "closed without an answer".to_owned(),
        error if error.is_parse() => format!("not an HTTP answer: {error}"),
        error => format!("no answer: {}", root(&error)),
    }
}

/// The innermost cause: `Connection reset by peer` rather than `connection error`.
fn root(error: &dyn std::error::Error) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}

/// `200-299, 304`.
fn ranges(expected: &[RangeInclusive<u16>]) -> String {
    let one = |range: &RangeInclusive<u16>| match (range.start(), range.end()) {
        (start, end) if start == end => start.to_string(),
        (start, end) => format!("{start}-{end}"),
    };
    expected.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// As it would be written in the configuration: `1s`, `500ms`.
fn length(time: Duration) -> String {
    match time.as_millis() {
        millis if millis % 1000 == 0 => format!("{}s", millis / 1000),
        millis => format!("{millis}ms"),
    }
}
