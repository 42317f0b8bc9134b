//! Certificates, keys and authorities from PEM files.

use std::io::Read;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::RootCertStore;
use rustls::pki_types::pem::{Error, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::model::Fault;
use crate::model::tls::FileAt;
use crate::wire::certificate::Certificate;

/// The largest file that is read: bundles of all public authorities have 220 KiB.
const LARGEST: u64 = 4 << 20;

/// A fault of a file: told where the configuration names it, or its folder. `what` goes on after the file's name.
pub fn fault(code: &'static str, file: &FileAt, what: impl std::fmt::Display) -> Fault {
    Fault::error(code, file.place.clone(), format!("{} {what}", file.path.display()))
}

/// The certificates of a file, in its order; at least one.
pub fn certificates(file: &FileAt) -> Result<Vec<CertificateDer<'static>>, Box<Fault>> {
    let text = read(file)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match all {
        Ok(all) if all.is_empty() => Err(fault("R0131", file, "holds no certificate").into()),
        Ok(all) => Ok(all),
        Err(error) => Err(fault("R0131", file, format!("is damaged: {error}")).into()),
    }
}

/// The first private key of a file: PKCS#8, SEC1 or PKCS#1.
pub fn key(file: &FileAt) -> Result<PrivateKeyDer<'static>, Box<Fault>> {
    let text = read(file)?;
    let key = PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
        Error::NoItemsFound if memchr::memmem::find(&text, b"ENCRYPTED").is_some() => {
            let fault = fault("R0131", file, "is encrypted, and nobody is there to say its passphrase");
            fault.help(format!("openssl pkey -in {} -out plain.key", file.path.display()))
        }
        Error::NoItemsFound => fault("R0131", file, "holds no private key"),
        error => fault("R0131", file, format!("is damaged: {error}")),
    });
    Ok(key?)
}

/// The authorities of a file.
pub fn roots(file: &FileAt) -> Result<(RootCertStore, Vec<CertificateDer<'static>>), Box<Fault>> {
    let all = certificates(file)?;
    let mut roots = RootCertStore::empty();
    for (number, certificate) in all.iter().enumerate() {
        roots.add(certificate.clone()).map_err(|error| {
            fault("R0131", file, format!("holds, as its number {}, no authority: {error}", number + 1))
        })?;
    }
    Ok((roots, all))
}

/// Says of a certificate that is not valid now; a renewed one may be on its way, so that it is a warning.
pub fn warn_of_age(file: &FileAt, certificate: &Certificate, now: SystemTime, faults: &mut Vec<Fault>) {
    let seconds = unix(now);
    let warn = |what: &str, at: i64| {
        let time = UNIX_EPOCH + std::time::Duration::from_secs(u64::try_from(at).unwrap_or_default());
        let message = format!("{} {what} {}", file.path.display(), httpdate::fmt_http_date(time));
        Fault::warning("R0157", file.place.clone(), message)
    };
    if certificate.not_after < seconds {
        faults.push(warn("expired on", certificate.not_after));
    } else if certificate.not_before > seconds {
        faults.push(warn("is not valid before", certificate.not_before));
    }
}

pub fn unix(time: SystemTime) -> i64 {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

fn read(file: &FileAt) -> Result<Vec<u8>, Box<Fault>> {
    let path = &file.path;
    let unreadable = |error: std::io::Error| {
        let why = match error.kind() {
            std::io::ErrorKind::NotFound => "there is no such file".to_owned(),
            std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
            _ => error.to_string(),
        };
        fault("R0131", file, format!("cannot be read: {why}"))
    };
    // A pipe would wait for its writer.
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(fault("R0131", file, "is not a file").into());
    }
    let mut bytes = Vec::new();
    let open = std::fs::File::open(path).map_err(unreadable)?;
    open.take(LARGEST + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > LARGEST {
        return Err(fault("R0131", file, "is larger than 4 MiB").into());
    }
    Ok(bytes)
}
