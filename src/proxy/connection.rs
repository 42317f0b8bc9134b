//! One client's connection, from its acceptance on: which language it speaks decides who serves it.
//!
//! What the listener says comes first (a PROXY header, TLS, sealed or opaque bytes), then what the client
//! says (ALPN, its first bytes).

use std::rc::Rc;

use tokio::net::TcpStream;

use super::http1;
use super::worker::{Entered, Worker};
use crate::net::Stream;

/// Serves a connection until its end.
pub async fn serve(worker: Rc<Worker>, connection: Entered, tcp: TcpStream) {
    http1::serve(worker, connection, Stream::plain(tcp), None).await;
}
