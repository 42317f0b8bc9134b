//! One client's connection, from its acceptance on: which language it speaks decides who serves it.
//!
//! What the listener says comes first (a PROXY header, TLS, sealed or opaque bytes), then what the client
//! says (ALPN, its first bytes).

use std::rc::Rc;

use tokio::net::TcpStream;

use super::worker::{Entered, Worker};
use super::{announced, http1, opaque};
use crate::model::listener::Protocol;
use crate::net::Stream;

/// Serves a connection until its end.
pub async fn serve(worker: Rc<Worker>, connection: Entered, mut tcp: TcpStream) {
    let view = worker.view();
    let mut protocol = Protocol::Http;
    if let Some(listener) = view.listener(connection.listener) {
        protocol = listener.protocol;
        if listener.accept_proxy.is_some() || view.announces {
            tcp = match Box::pin(announced::learn(&worker, &view, listener, &connection, tcp)).await {
                Ok(tcp) => tcp,
                Err(announced::Refused) => return,
            };
        }
    }
    drop(view);
    let stream = Stream::new(tcp);
    match protocol {
        Protocol::Tcp | Protocol::TlsPassthrough => Box::pin(opaque::serve(worker, connection, stream)).await,
        Protocol::Http | Protocol::Rtsp => http1::serve(worker, connection, stream, None).await,
    }
}
