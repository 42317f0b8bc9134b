//! One client's connection, from its acceptance on: which language it speaks decides who serves it.
//!
//! What the listener says comes first (a PROXY header, TLS, sealed or opaque bytes), then what the client
//! says (ALPN, its first bytes).

use std::rc::Rc;
use std::sync::Arc;

use rustls::ServerConfig;
use tokio::net::TcpStream;

use super::worker::{Entered, Worker};
use super::{announced, http1, http2, opaque, rtsp};
use crate::model::listener::Protocol;
use crate::net::buffers::SMALL;
use crate::net::flood::PREFACE;
use crate::net::{Buffer, Elapsed, Stream};
use crate::state::counters::Rejected;
use crate::tls::{self, Accepted, Refused};

/// What somebody reads who asks a TLS port in clear. It says nothing of who answers.
const SPEAK_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n\
    Content-Length: 35\r\nConnection: close\r\n\r\nThis port speaks https, not http.\r\n";

/// Serves a connection until its end.
pub async fn serve(worker: Rc<Worker>, connection: Entered, mut tcp: TcpStream) {
    let view = worker.view_for(&connection);
    // Nobody knows what was meant to be spoken here.
    let Some(listener) = view.listener(connection.listener) else { return };
    let (protocol, offered) = (listener.protocol, listener.tls.as_ref().map(|slot| slot.load_full()));
    if listener.accept_proxy.is_some() || view.announces {
        tcp = match Box::pin(announced::learn(&worker, &view, listener, &connection, tcp)).await {
            Ok(tcp) => tcp,
            Err(announced::Refused) => return,
        };
    }
    drop(view);
    let mut stream = match offered {
        None => Stream::plain(tcp),
        // In a box: connections in clear are to stay small.
        Some(config) => match Box::pin(secure(&worker, &connection, tcp, config)).await {
            Some(stream) => stream,
            None => return,
        },
    };
    if matches!(protocol, Protocol::Tcp | Protocol::TlsPassthrough) {
        return Box::pin(opaque::serve(worker, connection, stream)).await;
    }
    if protocol == Protocol::Rtsp {
        return Box::pin(rtsp::serve(worker, connection, stream)).await;
    }
    if let Some(tls) = connection.tls.get() {
        // RFC 9113 §3.2: whoever has chosen HTTP/2 speaks it, and nobody else does.
        return match tls.alpn.as_deref() {
            Some("h2") => Box::pin(http2::serve(worker, connection, stream, None)).await,
            _ => http1::serve(worker, connection, stream, None).await,
        };
    }
    // The first bytes decide; those of a request of HTTP/1 are served from where they lie.
    let Some(mut input) = first_bytes(&worker, &connection, &mut stream).await else { return };
    if PREFACE.starts_with(&input.as_slice()[..input.len().min(PREFACE.len())]) {
        if input.len() < PREFACE.len()
            && !Box::pin(rest_of_preface(&worker, &connection, &mut stream, &mut input)).await
        {
            return;
        }
        if input.as_slice().starts_with(PREFACE) {
            return Box::pin(http2::serve(worker, connection, stream, Some(input))).await;
        }
    }
    http1::serve(worker, connection, stream, Some(input)).await;
}

/// `None`: nothing came before the client had to have said something.
pub async fn first_bytes(worker: &Rc<Worker>, connection: &Entered, stream: &mut Stream) -> Option<Buffer> {
    let limit = worker.view().snapshot.config.timeouts.client_keep_alive;
    let (mut reader, _) = stream.split();
    let read = connection.timer.wait(limit, reader.fill(&worker.buffers, SMALL as u64)).await;
    read.ok()?.ok().filter(|input| !input.is_empty())
}

/// Reads on while what has come is the beginning of the preface and may become one of its kind. False:
/// the client has ended or takes too long.
async fn rest_of_preface(worker: &Rc<Worker>, connection: &Entered, stream: &mut Stream, input: &mut Buffer) -> bool {
    worker.set_active(connection);
    let limit = worker.view().snapshot.config.timeouts.request_header;
    let since = std::time::Instant::now();
    let (mut reader, _) = stream.split();
    while input.len() < PREFACE.len() && PREFACE.starts_with(input.as_slice()) {
        let left = limit.saturating_sub(since.elapsed());
        if left.is_zero() {
            return false;
        }
        match connection.timer.wait(left, reader.read(input)).await {
            Ok(Ok(count)) if count > 0 => {}
            _ => return false,
        }
    }
    worker.set_idle(connection);
    true
}

/// Shakes hands. `None`: the client was not let in, and that has been counted.
async fn secure(worker: &Worker, connection: &Entered, tcp: TcpStream, config: Arc<ServerConfig>) -> Option<Stream> {
    let limit = worker.view().snapshot.config.timeouts.tls_handshake;
    let watched = worker.view_for(connection).watches_sessions;
    // From its first byte on it counts as busy: a drain waits for it.
    let handshake = Box::pin(tls::accept(tcp, config, watched, || worker.set_active(connection)));
    let (reason, why) = match connection.timer.wait(limit, handshake).await {
        Ok(Ok(Accepted { tcp, session, peer })) => {
            worker.counters.borrow_mut().tls_handshake(connection.listener, peer.is_tls13, peer.resumed);
            worker.set_idle(connection);
            // There is one handshake a connection.
            let _ = connection.tls.set(Box::new(peer));
            return Some(Stream::tls(tcp, session));
        }
        Ok(Err(Refused::Plain(tcp))) => {
            tell_plain(&tcp);
            (Rejected::PlainOnTls, "no TLS".to_owned())
        }
        Ok(Err(Refused::Closed)) => (Rejected::TlsClosed, "closed".to_owned()),
        Ok(Err(Refused::Alert(alert))) => (Rejected::TlsAlert, format!("alert {alert:?}")),
        Ok(Err(Refused::Incompatible(error))) => (Rejected::TlsIncompatible, error.to_string()),
        Ok(Err(Refused::Certificate(error))) => (Rejected::TlsClientCertificate, error.to_string()),
        Ok(Err(Refused::Invalid(error))) => (Rejected::TlsInvalid, error.to_string()),
        // Idle connections are let go of as a drain begins.
        Err(Elapsed) if worker.is_leaving(connection) => return None,
        Err(Elapsed) => (Rejected::TlsTimeout, "took too long".to_owned()),
    };
    tracing::debug!(client = %connection.client.get(), reason = reason.as_str(), "no TLS handshake: {why}");
    worker.counters.borrow_mut().rejected(connection.listener, reason);
    None
}

/// Tells a client that speaks HTTP in clear. Once, and without waiting: nobody owes it more.
fn tell_plain(tcp: &TcpStream) {
    let mut asked = [0; 2048];
    let count = tcp.try_read(&mut asked).unwrap_or_default();
    // What is read is not lost by a reset, with which the kernel answers bytes that nobody took.
    if asked[..count].first().is_some_and(u8::is_ascii_uppercase) {
        let _ = tcp.try_write(SPEAK_TLS);
    }
}
