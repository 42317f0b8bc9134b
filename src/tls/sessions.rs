//! Sessions as others see them: under which names this side's clients may come back, and by which name a server
//! calls the key of its tickets.
//!
//! RFC 5077 §4 recommends that a ticket begins with 16 bytes that name its key. OpenSSL, and so nginx, HAProxy and Apache,
//! do so, in TLS 1.3 too: the rest of a ticket is another one each time, its first 16 bytes are the server's.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use rustls::client::{ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::ServerName;
use rustls::server::{ProducesTickets, StoresServerSessions};
use rustls::{ClientConfig, ClientConnection, NamedGroup, ServerConfig};
use smallvec::SmallVec;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::client::anybody;
use super::provider;
use crate::wire::client_hello;

/// Bytes of a ticket that name its key.
pub type KeyName = [u8; 16];

/// A version of TLS that tickets are asked for in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    Tls12,
    Tls13,
}

/// Shakes hands with a server as a client would, whoever it is, and looks how the ticket begins that it gives. `None`:
/// it gives none, or none that is long enough.
///
/// # Errors
/// Why there is no session, in words.
pub async fn key_name(tcp: TcpStream, name: ServerName<'static>, version: Version) -> Result<Option<KeyName>, String> {
    let sessions = Arc::new(Sessions::default());
    let versions = match version {
        Version::Tls12 => &[&rustls::version::TLS12],
        Version::Tls13 => &[&rustls::version::TLS13],
    };
    let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(versions);
    // What is learnt is no secret, and trusted with nothing: at worst a client shakes hands anew.
    let builder = builder.map_err(|error| error.to_string())?.dangerous().with_custom_certificate_verifier(anybody());
    let mut config = builder.with_no_client_auth();
    config.resumption = Resumption::store(sessions.clone());
    let config = Arc::new(config);
    let connecting = TlsConnector::from(config.clone()).connect(name.clone(), tcp);
    let mut stream = connecting.await.map_err(|error| error.to_string())?;
    if version == Version::Tls13 {
        // RFC 8446 §4.6.1: it comes behind the handshake, and is taken out of the stream as this reads.
        let mut bytes = [0; 1024];
        poll_fn(|cx| {
            let read = Pin::new(&mut stream).poll_read(cx, &mut ReadBuf::new(&mut bytes));
            if read.is_ready() || !sessions.lock().tls13.is_empty() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
    drop(stream);
    // What we would resume with is what a client's hello has.
    let mut again = ClientConnection::new(config, name).map_err(|error| error.to_string())?;
    let (mut hello, mut joined) = (Vec::new(), Vec::new());
    again.write_tls(&mut hello).map_err(|error| error.to_string())?;
    let hello = client_hello::parse(&hello, &mut joined).ok().flatten().unwrap_or_default();
    Ok(of_hello(&hello))
}

/// The key that a client's ticket was made with.
pub fn of_hello(hello: &client_hello::ClientHello<'_>) -> Option<KeyName> {
    let mut identities = hello.identities;
    let ticket = identities.next().or(hello.ticket)?;
    ticket.first_chunk().copied()
}

/// What one connection was given to come back with.
#[derive(Debug, Default)]
struct Sessions(Mutex<Given>);

#[derive(Debug, Default)]
struct Given {
    tls12: Option<Tls12ClientSessionValue>,
    tls13: VecDeque<Tls13ClientSessionValue>,
}

/// Tickets of TLS 1.3 that are kept of one connection: one is enough.
const TICKETS: usize = 1;

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, Given> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientSessionStore for Sessions {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.lock().tls12 = Some(value);
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.lock().tls12.clone()
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        let mut given = self.lock();
        if given.tls13.len() < TICKETS {
            given.tls13.push_back(value);
        }
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.lock().tls13.pop_front()
    }
}

/// What stands for a session that one of our clients has, or may come back with: the nonce of its ticket, or its name.
pub type Mark = SmallVec<[u8; 32]>;

/// The sessions of one connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Marks {
    /// The one that it took up again.
    pub resumed: Option<Mark>,
    /// Those that it may come back with.
    pub given: SmallVec<[Mark; 2]>,
}

/// Sees which sessions a connection has to do with.
#[derive(Debug, Clone)]
pub struct Watching {
    marks: Arc<Mutex<Marks>>,
    tickets: Arc<dyn ProducesTickets>,
    kept: Arc<dyn StoresServerSessions>,
}

impl Watching {
    /// What a listener offers, for one connection that is watched.
    pub fn of(config: &ServerConfig) -> (Arc<ServerConfig>, Watching) {
        let watching =
            Watching { marks: Arc::default(), tickets: config.ticketer.clone(), kept: config.session_storage.clone() };
        let mut own = config.clone();
        own.ticketer = Arc::new(watching.clone());
        own.session_storage = Arc::new(watching.clone());
        (Arc::new(own), watching)
    }

    /// What has been seen.
    pub fn marks(&self) -> Marks {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Marks> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn resumes(&self, mark: &[u8]) {
        self.lock().resumed = Some(Mark::from_slice(mark));
    }

    fn gives(&self, mark: &[u8]) {
        self.lock().given.push(Mark::from_slice(mark));
    }
}

impl ProducesTickets for Watching {
    fn enabled(&self) -> bool {
        self.tickets.enabled()
    }

    fn lifetime(&self) -> u32 {
        self.tickets.lifetime()
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let ticket = self.tickets.encrypt(plain)?;
        self.gives(super::tickets::nonce(&ticket)?);
        Some(ticket)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let plain = self.tickets.decrypt(ticket)?;
        self.resumes(super::tickets::nonce(ticket)?);
        Some(plain)
    }
}

impl StoresServerSessions for Watching {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        self.gives(&key);
        self.kept.put(key, value)
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        let value = self.kept.get(key)?;
        self.resumes(key);
        Some(value)
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        let value = self.kept.take(key)?;
        self.resumes(key);
        Some(value)
    }

    fn can_cache(&self) -> bool {
        self.kept.can_cache()
    }
}
