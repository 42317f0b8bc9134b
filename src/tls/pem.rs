//! Certificates, keys and authorities from PEM files.

use std::io::Read;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::RootCertStore;
use rustls::pki_types::pem::{Error, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::model::{Fault, Place};
use crate::wire::certificate::Certificate;

/// The largest file that is read: bundles of all public authorities have 220 KiB.
const LARGEST: u64 = 4 << 20;

/// A fault of a file as a whole.
pub fn fault(code: &'static str, path: &Path, message: impl Into<String>) -> Fault {
    Fault::error(code, place(path), message)
}

pub fn place(path: &Path) -> Place {
    Place::file(path.display().to_string())
}

/// The certificates of a file, in its order; at least one.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Box<Fault>> {
    let text = read(path)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match all {
        Ok(all) if all.is_empty() => Err(fault("R0131", path, "holds no certificate").into()),
        Ok(all) => Ok(all),
        Err(error) => Err(fault("R0131", path, format!("is damaged: {error}")).into()),
    }
}

/// The first private key of a file: PKCS#8, SEC1 or PKCS#1.
pub fn key(path: &Path) -> Result<PrivateKeyDer<'static>, Box<Fault>> {
    let text = read(path)?;
    let key = PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
        Error::NoItemsFound if memchr::memmem::find(&text, b"ENCRYPTED").is_some() => {
            let fault = fault("R0131", path, "the key is encrypted, and nobody is there to say its passphrase");
            fault.help(format!("openssl pkey -in {} -out plain.key", path.display()))
        }
        Error::NoItemsFound => fault("R0131", path, "holds no private key"),
        error => fault("R0131", path, format!("is damaged: {error}")),
    });
    Ok(key?)
}

/// The authorities of a file.
pub fn roots(path: &Path) -> Result<(RootCertStore, Vec<CertificateDer<'static>>), Box<Fault>> {
    let all = certificates(path)?;
    let mut roots = RootCertStore::empty();
    for (number, certificate) in all.iter().enumerate() {
        roots.add(certificate.clone()).map_err(|error| {
            fault("R0131", path, format!("certificate {} cannot be an authority: {error}", number + 1))
        })?;
    }
    Ok((roots, all))
}

/// Says of a certificate that is not valid now; a renewed one may be on its way, so that it is a warning.
pub fn warn_of_age(path: &Path, certificate: &Certificate, now: SystemTime, faults: &mut Vec<Fault>) {
    let seconds = unix(now);
    let warn = |message: String| Fault::warning("R0157", place(path), message);
    let date = |seconds: i64| {
        let time = UNIX_EPOCH + std::time::Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
        httpdate::fmt_http_date(time)
    };
    if certificate.not_after < seconds {
        faults.push(warn(format!("the certificate expired on {}", date(certificate.not_after))));
    } else if certificate.not_before > seconds {
        faults.push(warn(format!("the certificate is not valid before {}", date(certificate.not_before))));
    }
}

pub fn unix(time: SystemTime) -> i64 {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

fn read(path: &Path) -> Result<Vec<u8>, Box<Fault>> {
    let unreadable = |error: std::io::Error| {
        let why = match error.kind() {
            std::io::ErrorKind::NotFound => "there is no such file".to_owned(),
            std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
            _ => error.to_string(),
        };
        fault("R0131", path, format!("cannot be read: {why}"))
    };
    // A pipe would wait for its writer.
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(fault("R0131", path, "is not a file").into());
    }
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > LARGEST {
        return Err(fault("R0131", path, "is larger than 4 MiB").into());
    }
    Ok(bytes)
}
