//! How connections are sealed, towards clients and towards servers.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::fault::Place;

/// The oldest version that is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TlsVersion {
    #[default]
    Tls12,
    Tls13,
}

/// Whether clients show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientCertificate {
    /// They are not asked for one.
    None,
    /// One that is shown has to be good.
    Optional,
    Required,
}

impl ClientCertificate {
    /// The configuration's word for it.
    pub fn word(self) -> &'static str {
        match self {
            ClientCertificate::None => "none",
            ClientCertificate::Optional => "optional",
            ClientCertificate::Required => "required",
        }
    }
}

/// A file, and where the configuration names it: faults of the file are told there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileAt {
    pub path: PathBuf,
    pub place: Place,
}

impl FileAt {
    /// The same file below a folder, where its path is relative.
    pub fn below(self, base: &Path) -> FileAt {
        FileAt { path: base.join(self.path), ..self }
    }
}

/// `tls` of a listener. Paths start at the base folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerTls {
    /// The folder of its certificates.
    pub certificates: FileAt,
    pub minimum: TlsVersion,
    /// Who signs the certificates of clients.
    pub client_ca: Option<FileAt>,
    pub client_certificate: ClientCertificate,
}

impl ListenerTls {
    /// Whether both say the same, wherever it is written.
    pub fn same(&self, other: &ListenerTls) -> bool {
        let ca = |tls: &ListenerTls| tls.client_ca.as_ref().map(|file| file.path.clone());
        self.certificates.path == other.certificates.path
            && self.minimum == other.minimum
            && self.client_certificate == other.client_certificate
            && ca(self) == ca(other)
    }
}

/// `tls` of a pool: towards its servers. Paths start at the base folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolTls {
    /// False: whoever answers is believed.
    pub verify: bool,
    /// Who signs the certificates of the servers; `None`: those whom the system trusts.
    pub ca: Option<FileAt>,
    /// Certificate and key that are shown to servers that ask.
    pub own: Option<(FileAt, FileAt)>,
    /// The name that servers have to prove; `None`: each the host of its address.
    pub server_name: Option<Arc<str>>,
    pub minimum: TlsVersion,
    pub place: Place,
}

impl PoolTls {
    /// Whether both say the same, wherever it is written.
    pub fn same(&self, other: &PoolTls) -> bool {
        let ca = |tls: &PoolTls| tls.ca.as_ref().map(|file| file.path.clone());
        let own =
            |tls: &PoolTls| tls.own.as_ref().map(|(certificate, key)| (certificate.path.clone(), key.path.clone()));
        self.verify == other.verify
            && self.server_name == other.server_name
            && self.minimum == other.minimum
            && ca(self) == ca(other)
            && own(self) == own(other)
    }
}
