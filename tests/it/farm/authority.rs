//! Certificates made for one test, by an authority of its own.

use std::io;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::{Client, Folder};

pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate with its key, as text.
pub struct Issued {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    pub fn new(name: &str) -> Authority {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        Authority { issuer: CertifiedIssuer::self_signed(params, key).expect("an authority") }
    }

    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A certificate for these hosts, addresses or mailboxes.
    pub fn issue(&self, subject: &str, names: &[&str]) -> Issued {
        self.issue_with(subject, names, |_| {})
    }

    /// One that was good until 2021.
    pub fn expired(&self, subject: &str, names: &[&str]) -> Issued {
        self.issue_with(subject, names, |params| {
            params.not_before = rcgen::date_time_ymd(2020, 1, 1);
            params.not_after = rcgen::date_time_ymd(2021, 1, 1);
        })
    }

    fn issue_with(&self, subject: &str, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Issued {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, subject);
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Issued { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    /// What a client believes that knows this authority alone.
    pub fn client(&self) -> ClientConfig {
        believing_in(self.issuer.der().clone())
    }
}

/// A client that believes the authority in that file.
pub fn believing(authority: &Path) -> ClientConfig {
    believing_in(CertificateDer::from_pem_file(authority).expect("an authority"))
}

fn believing_in(authority: CertificateDer<'static>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(authority).expect("a root");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config = builder.expect("versions").with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}

impl Issued {
    /// Writes `STEM.pem` and `STEM.key`; their paths.
    pub fn write(&self, folder: &Folder, stem: &str) -> (PathBuf, PathBuf) {
        (folder.write(&format!("{stem}.pem"), &self.certificate), folder.write(&format!("{stem}.key"), &self.key))
    }

    pub fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.certificate.as_bytes()).expect("a certificate")
    }

    pub fn key_der(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.key.as_bytes()).expect("a key")
    }
}

pub type TlsStream = StreamOwned<ClientConnection, TcpStream>;

impl Client<TlsStream> {
    /// Shakes hands; an error of the handshake shows here.
    pub fn secure(address: &str, name: &str, config: &Arc<ClientConfig>) -> io::Result<Client<TlsStream>> {
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let mut session = ClientConnection::new(config.clone(), name).expect("a session");
        let mut tcp = TcpStream::connect(address)?;
        Client::prepare(&tcp)?;
        while session.is_handshaking() {
            session.complete_io(&mut tcp)?;
        }
        Ok(Client::new(StreamOwned::new(session, tcp)))
    }

    pub fn session(&self) -> &ClientConnection {
        &self.inner().conn
    }

    /// The leaf that the server showed.
    pub fn leaf(&self) -> CertificateDer<'static> {
        self.session().peer_certificates().expect("a certificate")[0].clone().into_owned()
    }
}
