//! TLS 1.3 for both ends, as cheap as rustls has it: X25519, AES-128-GCM, no signature is verified. What the client
//! compares instead is the certificate, byte by byte: it shows who ended the TLS.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{
    ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue, UnbufferedClientConnection,
};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus};
use rustls::{
    ClientConfig, CommonState, DigitallySignedStruct, Error, HandshakeKind, NamedGroup, ServerConfig, SignatureScheme,
};

/// A record's content, and what it grows by.
const RECORD: usize = 16 << 10;
const OVERHEAD: usize = 32;
/// Tickets that are kept.
const TICKETS: usize = 4096;
/// Connections that may begin before there is one.
const FIRST: u64 = 512;

fn provider() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = vec![aws_lc_rs::kx_group::X25519];
    provider.cipher_suites = vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256];
    Arc::new(provider)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    read.map_err(|error| format!("{}: {error}", path.display()))
}

/// What an origin ends TLS with.
pub fn server(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, String> {
    let chain = certificates(certificate)?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(|error| format!("{}: {error}", key.display()))?;
    let built = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key));
    let mut config = built.map_err(|error| error.to_string())?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ticketer = aws_lc_rs::Ticketer::new().map_err(|error| error.to_string())?;
    Ok(Arc::new(config))
}

/// What a load generator begins TLS with.
pub struct Begin {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    /// Every connection goes on with an earlier one's session.
    tickets: Option<Arc<Tickets>>,
}

impl Begin {
    /// `certificate`: the one that must be shown.
    pub fn new(certificate: &Path, name: &str, protocols: Vec<Vec<u8>>, resume: bool) -> Result<Begin, String> {
        let wanted = certificates(certificate)?.into_iter().next().ok_or("no certificate in the file")?;
        let provider = provider();
        let verifier = Arc::new(Shown { wanted, provider: provider.clone() });
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        config.alpn_protocols = protocols;
        let tickets = resume.then(Arc::<Tickets>::default);
        config.resumption = tickets.clone().map_or_else(Resumption::disabled, |store| Resumption::store(store));
        let name = ServerName::try_from(name.to_string()).map_err(|error| error.to_string())?;
        Ok(Begin { config: Arc::new(config), name, tickets })
    }
}

/// Takes the certificate that is expected, and no other.
#[derive(Debug)]
struct Shown {
    wanted: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Shown {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer,
        _: &[CertificateDer],
        _: &ServerName,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if *shown == self.wanted {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(Error::General("another certificate than the expected one".into()))
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2".into()))
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The sessions of all connections: each new connection takes the oldest ticket.
#[derive(Default, Debug)]
struct Tickets {
    kept: Mutex<VecDeque<Tls13ClientSessionValue>>,
    /// Connections that found none.
    without: AtomicU64,
}

impl Tickets {
    /// Whether the next connection finds one. The first ones find none, which is all there may be of them.
    fn any(&self) -> Result<bool, String> {
        let any = self.kept.lock().is_ok_and(|tickets| !tickets.is_empty());
        if !any && self.without.fetch_add(1, Ordering::Relaxed) >= FIRST {
            return Err("no tickets come from the server".into());
        }
        Ok(any)
    }
}

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    fn kx_hint(&self, _: &ServerName) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        let Ok(mut tickets) = self.kept.lock() else { return };
        tickets.push_back(ticket);
        if tickets.len() > TICKETS {
            tickets.pop_front();
        }
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.kept.lock().ok()?.pop_front()
    }
}

enum Side {
    Client(UnbufferedClientConnection),
    Server(UnbufferedServerConnection),
}

/// What the bytes so far have led to.
#[derive(PartialEq, Eq)]
enum Next {
    /// There may be more in them.
    Again,
    /// More of them are needed, before anything can be sent.
    More,
    /// More of them are needed, or something is to be sent.
    Ready,
    Ended,
}

/// The TLS of one connection.
pub struct Session {
    side: Side,
    /// The beginning of a record.
    input: Vec<u8>,
    /// What is to be sent: the bytes of `output` up to `end`.
    output: Vec<u8>,
    end: usize,
    ready: bool,
    /// A ticket was offered.
    resuming: bool,
}

impl Session {
    pub fn begin(with: &Begin) -> Result<Session, String> {
        let resuming = with.tickets.as_ref().map_or(Ok(false), |tickets| tickets.any())?;
        let connection = UnbufferedClientConnection::new(with.config.clone(), with.name.clone());
        Session::new(Side::Client(connection.map_err(|error| error.to_string())?), resuming)
    }

    pub fn accept(with: &Arc<ServerConfig>) -> Result<Session, String> {
        let connection = UnbufferedServerConnection::new(with.clone());
        Session::new(Side::Server(connection.map_err(|error| error.to_string())?), false)
    }

    fn new(side: Side, resuming: bool) -> Result<Session, String> {
        let mut session = Session { side, input: Vec::new(), output: Vec::new(), end: 0, ready: false, resuming };
        session.drive(&mut [], &mut |_| Ok(()))?;
        Ok(session)
    }

    /// The handshake is over.
    pub fn ready(&self) -> bool {
        self.ready
    }

    fn state(&self) -> &CommonState {
        match &self.side {
            Side::Client(connection) => connection,
            Side::Server(connection) => connection,
        }
    }

    pub fn protocol(&self) -> Option<&[u8]> {
        self.state().alpn_protocol()
    }

    /// A session was offered, and the handshake was a whole one nevertheless; or it was not as long as it should be.
    pub fn fault(&self) -> Option<String> {
        match (self.state().handshake_kind(), self.resuming) {
            (Some(HandshakeKind::Resumed), true) | (Some(HandshakeKind::Full), false) => None,
            (kind, _) => Some(format!("another handshake than the intended one: {kind:?}")),
        }
    }

    /// The beginning of a record that came before: the next bytes belong behind it.
    pub fn begun(&self) -> &[u8] {
        &self.input
    }

    /// Takes bytes from the network, those of [`Session::begun`] in front; gives what they said. False: it was the end.
    pub fn take(
        &mut self,
        bytes: &mut [u8],
        sink: &mut dyn FnMut(&[u8]) -> Result<(), String>,
    ) -> Result<bool, String> {
        let used = self.drive(bytes, sink)?;
        self.input.clear();
        match used {
            Some(used) => self.input.extend_from_slice(&bytes[used..]),
            None => return Ok(false),
        }
        Ok(true)
    }

    /// How many of the bytes are done with. `None`: the other side has said that there will be no more.
    fn drive(
        &mut self,
        bytes: &mut [u8],
        sink: &mut dyn FnMut(&[u8]) -> Result<(), String>,
    ) -> Result<Option<usize>, String> {
        let mut at = 0;
        loop {
            let out = (&mut self.output, &mut self.end);
            let (used, next) = match &mut self.side {
                Side::Client(connection) => one(connection.process_tls_records(&mut bytes[at..]), out, sink)?,
                Side::Server(connection) => one(connection.process_tls_records(&mut bytes[at..]), out, sink)?,
            };
            at += used;
            match next {
                Next::Again => {}
                Next::More => return Ok(Some(at)),
                Next::Ready => {
                    self.ready = true;
                    return Ok(Some(at));
                }
                Next::Ended => return Ok(None),
            }
        }
    }

    /// Puts what is to be said into records.
    pub fn say(&mut self, mut bytes: &[u8]) -> Result<(), String> {
        self.drive(&mut [], &mut |_| Ok(()))?;
        while !bytes.is_empty() {
            let (piece, rest) = bytes.split_at(bytes.len().min(RECORD));
            if self.output.len() < self.end + piece.len() + OVERHEAD {
                self.output.resize(self.end + piece.len() + OVERHEAD, 0);
            }
            let out = &mut self.output[self.end..];
            self.end += match &mut self.side {
                Side::Client(connection) => seal(connection.process_tls_records(&mut []), piece, out)?,
                Side::Server(connection) => seal(connection.process_tls_records(&mut []), piece, out)?,
            };
            bytes = rest;
        }
        Ok(())
    }

    /// What is to be sent.
    pub fn output(&self) -> &[u8] {
        &self.output[..self.end]
    }

    /// The first `sent` bytes of it were sent.
    pub fn sent(&mut self, sent: usize) {
        self.output.copy_within(sent..self.end, 0);
        self.end -= sent;
    }
}

fn one<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    (output, end): (&mut Vec<u8>, &mut usize),
    sink: &mut dyn FnMut(&[u8]) -> Result<(), String>,
) -> Result<(usize, Next), String> {
    let mut used = status.discard;
    let next = match status.state.map_err(|error| format!("TLS: {error}"))? {
        ConnectionState::ReadTraffic(mut traffic) => {
            while let Some(record) = traffic.next_record() {
                let record = record.map_err(|error| format!("TLS: {error}"))?;
                used += record.discard;
                sink(record.payload)?;
            }
            Next::Again
        }
        ConnectionState::EncodeTlsData(mut data) => {
            loop {
                match data.encode(&mut output[*end..]) {
                    Ok(length) => break *end += length,
                    Err(EncodeError::InsufficientSize(size)) => output.resize(*end + size.required_size, 0),
                    Err(error) => return Err(format!("TLS: {error}")),
                }
            }
            Next::Again
        }
        ConnectionState::TransmitTlsData(data) => {
            data.done(); // it goes out with what follows
            Next::Again
        }
        ConnectionState::BlockedHandshake => Next::More,
        ConnectionState::WriteTraffic(_) => Next::Ready,
        ConnectionState::PeerClosed | ConnectionState::Closed => Next::Ended,
        _ => return Err("TLS: early data".into()),
    };
    Ok((used, next))
}

fn seal<Data>(status: UnbufferedStatus<'_, '_, Data>, bytes: &[u8], output: &mut [u8]) -> Result<usize, String> {
    match status.state {
        Ok(ConnectionState::WriteTraffic(mut traffic)) => {
            traffic.encrypt(bytes, output).map_err(|error| format!("TLS: {error}"))
        }
        Ok(state) => Err(format!("TLS: cannot write now: {state:?}")),
        Err(error) => Err(format!("TLS: {error}")),
    }
}
