//! How connections are sealed, towards clients and towards servers.

use std::path::PathBuf;
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

/// `tls` of a listener. Paths start at the base folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerTls {
    /// The folder of its certificates.
    pub certificates: PathBuf,
    pub minimum: TlsVersion,
    /// Who signs the certificates of clients.
    pub client_ca: Option<PathBuf>,
    pub client_certificate: ClientCertificate,
    pub place: Place,
}

/// `tls` of a pool: towards its servers. Paths start at the base folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolTls {
    /// False: whoever answers is believed.
    pub verify: bool,
    /// Who signs the certificates of the servers; `None`: those whom the system trusts.
    pub ca: Option<PathBuf>,
    /// Certificate and key that are shown to servers that ask.
    pub own: Option<(PathBuf, PathBuf)>,
    /// The name that servers have to prove; `None`: each the host of its address.
    pub server_name: Option<Arc<str>>,
    pub minimum: TlsVersion,
    pub place: Place,
}
