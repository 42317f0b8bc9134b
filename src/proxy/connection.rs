//! One client's connection, from its acceptance on: which language it speaks decides who serves it.
//!
//! What the listener says comes first (a PROXY header, TLS, sealed or opaque bytes), then what the client
//! says (ALPN, its first bytes).

use std::rc::Rc;
use std::sync::Arc;

use rustls::ServerConfig;
use tokio::net::TcpStream;

use super::http1;
use super::worker::{Entered, Worker};
use crate::net::{Elapsed, Stream};
use crate::state::counters::Rejected;
use crate::tls::{self, Accepted, Refused};

/// What somebody reads who asks a TLS port in clear. It says nothing of who answers.
const SPEAK_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n\
    Content-Length: 35\r\nConnection: close\r\n\r\nThis port speaks https, not http.\r\n";

/// Serves a connection until its end.
pub async fn serve(worker: Rc<Worker>, connection: Entered, tcp: TcpStream) {
    let stream = match offered(&worker, &connection) {
        None => Stream::plain(tcp),
        // In a box: connections in clear are to stay small.
        Some(config) => match Box::pin(secure(&worker, &connection, tcp, config)).await {
            Some(stream) => stream,
            None => return,
        },
    };
    http1::serve(worker, connection, stream, None).await;
}

/// What the listener offers, where it speaks TLS.
fn offered(worker: &Worker, connection: &Entered) -> Option<Arc<ServerConfig>> {
    let view = worker.view();
    view.listener(connection.listener)?.tls.as_ref().map(|slot| slot.load_full())
}

/// Shakes hands. `None`: the client was not let in, and that has been counted.
async fn secure(worker: &Worker, connection: &Entered, tcp: TcpStream, config: Arc<ServerConfig>) -> Option<Stream> {
    let limit = worker.view().snapshot.config.timeouts.tls_handshake;
    // From its first byte on it counts as busy: a drain waits for it.
    let handshake = Box::pin(tls::accept(tcp, config, || worker.set_active(connection)));
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
        Err(Elapsed) if worker.is_draining() => return None,
        Err(Elapsed) => (Rejected::TlsTimeout, "took too long".to_owned()),
    };
    tracing::debug!(client = %connection.peer, reason = reason.as_str(), "no TLS handshake: {why}");
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
