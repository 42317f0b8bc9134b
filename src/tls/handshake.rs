//! Shaking hands, with clients and with servers, and why it failed.
//!
//! Nothing that came before the end of a handshake is ever taken for a message: what is read as one comes
//! out of the finished session alone (as CVE-2026-1642).

use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::pki_types::ServerName;
use rustls::{
    AlertDescription, CertificateError, CipherSuite, ClientConfig, ClientConnection, Error, HandshakeKind,
    PeerIncompatible, ProtocolVersion, ServerConfig, ServerConnection,
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::pem;
use super::sessions::{Marks, Watching};
use crate::wire::certificate::{self, Certificate};

/// A client with whom a session stands.
#[derive(Debug)]
pub struct Accepted {
    pub tcp: TcpStream,
    pub session: ServerConnection,
    pub peer: Peer,
}

/// What a handshake told of a client.
#[derive(Debug)]
pub struct Peer {
    /// `TLSv1.3`
    pub version: &'static str,
    pub is_tls13: bool,
    /// As OpenSSL names it: `TLS_AES_128_GCM_SHA256`, `ECDHE-RSA-AES128-GCM-SHA256`.
    pub cipher: &'static str,
    pub resumed: bool,
    /// In lower case.
    pub sni: Option<Box<str>>,
    pub alpn: Option<Box<str>>,
    /// The client's own, verified; a session that is taken up again brings it along.
    pub certificate: Option<Certificate>,
    /// The sessions it has to do with, where somebody wants to know.
    pub marks: Option<Box<Marks>>,
}

/// Why a client was not let in.
#[derive(Debug)]
pub enum Refused {
    /// It speaks no TLS. The connection, of which nothing has been taken.
    Plain(TcpStream),
    /// It went away.
    Closed,
    /// It says so itself, mostly that it does not believe our certificate.
    Alert(AlertDescription),
    /// No version, cipher, group or protocol in common.
    Incompatible(Error),
    /// Its certificate is missing or not good.
    Certificate(Error),
    /// It is not TLS, or not as it has to be.
    Invalid(Error),
}

/// A TLS record that carries a handshake begins with this (RFC 8446 §5.1).
const HANDSHAKE: u8 = 0x16;

/// Waits for the first byte, then shakes hands. `spoken` is called in between. `watched`: somebody wants to know which
/// sessions it has to do with.
///
/// # Errors
/// Why the client is not let in; TLS has told it by an alert.
pub async fn accept(
    tcp: TcpStream,
    config: Arc<ServerConfig>,
    watched: bool,
    spoken: impl FnOnce(),
) -> Result<Accepted, Refused> {
    let mut first = [0];
    match tcp.peek(&mut first).await {
        Ok(1) => {}
        _ => return Err(Refused::Closed),
    }
    if first[0] != HANDSHAKE {
        return Err(Refused::Plain(tcp));
    }
    spoken();
    let (config, watching) = match watched {
        false => (config, None),
        true => {
            let (config, watching) = Watching::of(&config);
            (config, Some(watching))
        }
    };
    let stream = TlsAcceptor::from(config).accept(tcp).await.map_err(|error| refused(&error))?;
    let (tcp, session) = stream.into_inner();
    let mut peer = Peer::of(&session, SystemTime::now()).map_err(Refused::Certificate)?;
    peer.marks = watching.map(|watching| {
        let mut marks = watching.marks();
        // A ticket that was good need not have been taken.
        marks.resumed = marks.resumed.filter(|_| peer.resumed);
        Box::new(marks)
    });
    Ok(Accepted { tcp, session, peer })
}

fn refused(error: &io::Error) -> Refused {
    let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else { return Refused::Closed };
    match error {
        Error::AlertReceived(alert) => Refused::Alert(*alert),
        Error::NoCertificatesPresented
        | Error::InvalidCertificate(_)
        | Error::PeerIncompatible(PeerIncompatible::NoCertificateRequestSignatureSchemesInCommon) => {
            Refused::Certificate(error.clone())
        }
        Error::PeerIncompatible(_) | Error::NoApplicationProtocol => Refused::Incompatible(error.clone()),
        error => Refused::Invalid(error.clone()),
    }
}

impl Peer {
    /// # Errors
    /// When the client's certificate ended since its session began, or cannot be understood.
    fn of(session: &ServerConnection, now: SystemTime) -> Result<Peer, Error> {
        let is_tls13 = session.protocol_version() == Some(ProtocolVersion::TLSv1_3);
        let certificate = match session.peer_certificates().and_then(<[_]>::first) {
            None => None,
            Some(der) => {
                let known = certificate::parse(der).ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))?;
                // A new handshake has looked at this; a session taken up again has not.
                if known.not_after < pem::unix(now) {
                    return Err(Error::InvalidCertificate(CertificateError::Expired));
                }
                Some(known)
            }
        };
        Ok(Peer {
            version: if is_tls13 { "TLSv1.3" } else { "TLSv1.2" },
            is_tls13,
            cipher: session.negotiated_cipher_suite().map_or("", |suite| cipher(suite.suite())),
            resumed: session.handshake_kind() == Some(HandshakeKind::Resumed),
            sni: session.server_name().map(|name| name.to_ascii_lowercase().into()),
            alpn: session.alpn_protocol().map(|name| String::from_utf8_lossy(name).into()),
            certificate,
            marks: None,
        })
    }
}

/// OpenSSL's names of the suites that there are (`super::provider`), which is what is expected of a proxy.
fn cipher(suite: CipherSuite) -> &'static str {
    match suite {
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 => "ECDHE-ECDSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 => "ECDHE-ECDSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 => "ECDHE-ECDSA-CHACHA20-POLY1305",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => "ECDHE-RSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => "ECDHE-RSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => "ECDHE-RSA-CHACHA20-POLY1305",
        _ => "",
    }
}

/// Shakes hands with a server that has to prove that it is `name`.
///
/// # Errors
/// Why there is no session, in words. Nothing was sent but the handshake.
pub async fn connect(
    tcp: TcpStream,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
) -> Result<(TcpStream, ClientConnection), String> {
    match TlsConnector::from(config).connect(name, tcp).await {
        Ok(stream) => Ok(stream.into_inner()),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Err("TLS: the server closed the connection within the handshake".to_owned())
        }
        Err(error) => Err(format!("TLS: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_suite_has_a_name() {
        for suite in &super::super::provider().cipher_suites {
            assert_ne!(cipher(suite.suite()), "", "{suite:?}");
        }
    }
}
