//! The certificates of a listener's folder, and which of them a client gets.
//!
//! `X.key` with `X.pem` or `X.crt` (the chain, leaf first), and folders with `fullchain.pem` and
//! `privkey.pem`. A certificate answers for the names it holds; `default.*`, else the first by file name, answers
//! for all others.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys, SignatureScheme};

use super::{pem, provider};
use crate::model::{Fault, Place};
use crate::wire::certificate;

/// Certificates of one folder; a folder of all a hoster's customers has thousands.
const MOST: usize = 100_000;

/// Which certificate a name gets.
#[derive(Debug)]
pub struct Certificates {
    /// By host in lower case, `*.` standing for one label. Several where one name has keys of several kinds.
    names: HashMap<Box<str>, Vec<Arc<CertifiedKey>>>,
    fallback: Arc<CertifiedKey>,
}

/// A certificate and what is known of it.
struct Found {
    stem: String,
    names: Vec<Box<str>>,
    /// Not expired, and valid already.
    fresh: bool,
    key: Arc<CertifiedKey>,
}

/// The two files of a certificate.
struct Files {
    /// What they are called, for the choice of the one that answers when no name matches.
    stem: String,
    chain: PathBuf,
    key: PathBuf,
}

/// Reads a folder. `place` is where the configuration names it. Every fault is told; where one is an error,
/// there may be an answer all the same.
pub fn load(folder: &Path, place: &Place, now: SystemTime, faults: &mut Vec<Fault>) -> Option<Certificates> {
    let files = match list(folder, faults) {
        Ok(files) => files,
        Err(error) => {
            let why = match error.kind() {
                std::io::ErrorKind::NotFound => "there is no such folder".to_owned(),
                _ => error.to_string(),
            };
            let message = format!("the certificates in {} cannot be read: {why}", folder.display());
            faults.push(Fault::error("R0133", place.clone(), message));
            return None;
        }
    };
    if files.is_empty() {
        let message = format!("{} holds no certificate with its key", folder.display());
        let help = "put NAME.pem (the chain, leaf first) and NAME.key there; certs/README.md shows how";
        faults.push(Fault::error("R0133", place.clone(), message).help(help));
        return None;
    }
    let before = faults.len();
    let mut found: Vec<Found> = files.iter().filter_map(|files| read(files, now, faults)).collect();
    if faults[before..].iter().any(|fault| fault.severity == crate::model::Severity::Error) {
        return None;
    }
    let fallback = found.iter().find(|one| one.stem == "default").or(found.first())?.key.clone();
    // Where two answer for a name, the one that is valid comes first; a stable sort keeps the files' order.
    found.sort_by_key(|one| !one.fresh);
    let mut names: HashMap<Box<str>, Vec<Arc<CertifiedKey>>> = HashMap::new();
    for one in found {
        for name in one.names {
            names.entry(name).or_default().push(one.key.clone());
        }
    }
    Some(Certificates { names, fallback })
}

/// The pairs of files, by name.
fn list(folder: &Path, faults: &mut Vec<Fault>) -> std::io::Result<Vec<Files>> {
    let mut entries: Vec<PathBuf> = std::fs::read_dir(folder)?
        .take(4 * MOST)
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<std::io::Result<_>>()?;
    entries.sort();
    let mut files = Vec::new();
    for path in &entries {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with('.') {
            continue;
        }
        if path.is_dir() {
            let (chain, key) = (path.join("fullchain.pem"), path.join("privkey.pem"));
            if chain.exists() && key.exists() {
                files.push(Files { stem: name, chain, key });
            }
        } else if let Some(stem) = name.strip_suffix(".key") {
            let chain = [path.with_extension("pem"), path.with_extension("crt")].into_iter().find(|path| path.exists());
            match chain {
                Some(chain) => files.push(Files { stem: stem.to_owned(), chain, key: path.clone() }),
                None => {
                    let message = format!("there is neither {stem}.pem nor {stem}.crt beside this key: it is left out");
                    faults.push(Fault::warning("R0158", pem::place(path), message));
                }
            }
        } else if matches!(path.extension().and_then(|e| e.to_str()), Some("pem" | "crt"))
            && !path.with_extension("key").exists()
        {
            tracing::debug!(file = %path.display(), "a certificate without its key is left out");
        }
    }
    files.truncate(MOST);
    Ok(files)
}

fn read(files: &Files, now: SystemTime, faults: &mut Vec<Fault>) -> Option<Found> {
    let (chain, key) = match (pem::certificates(&files.chain), pem::key(&files.key)) {
        (Ok(chain), Ok(key)) => (chain, key),
        (chain, key) => {
            faults.extend(chain.err().into_iter().chain(key.err()).map(|fault| *fault));
            return None;
        }
    };
    let leaf = chain.first()?.clone();
    let Some(known) = certificate::parse(&leaf) else {
        faults.push(pem::fault("R0131", &files.chain, "its first certificate cannot be understood"));
        return None;
    };
    let key = match provider().key_provider.load_private_key(key) {
        Ok(key) => CertifiedKey::new(chain, key),
        Err(error) => {
            let why = match error {
                Error::General(why) => why,
                error => error.to_string(),
            };
            faults.push(pem::fault("R0131", &files.key, format!("the key cannot be used: {why}")));
            return None;
        }
    };
    if let Err(error) = key.keys_match() {
        faults.push(mismatch(files, &error));
        return None;
    }
    pem::warn_of_age(&files.chain, &known, now, faults);
    let seconds = pem::unix(now);
    Some(Found {
        stem: files.stem.clone(),
        names: names(&known),
        fresh: (known.not_before..=known.not_after).contains(&seconds),
        key: Arc::new(key),
    })
}

fn mismatch(files: &Files, error: &Error) -> Fault {
    match error {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            let message = format!("the key does not belong to the certificate in {}", files.chain.display());
            let help =
                "the leaf has to come first in the chain; `openssl pkey -pubout` and `openssl x509 -pubkey` compare";
            pem::fault("R0132", &files.key, message).help(help)
        }
        error => pem::fault("R0131", &files.chain, format!("cannot be used: {error}")),
    }
}

/// The hosts a certificate answers for: its alternative names, else the CN (which clients look at no more).
fn names(known: &certificate::Certificate) -> Vec<Box<str>> {
    let all: Vec<&str> = match known.names.is_empty() {
        true => known.common_name.iter().map(|name| &**name).collect(),
        false => known.names.iter().map(|name| &**name).collect(),
    };
    all.into_iter().map(|name| name.trim_end_matches('.').to_ascii_lowercase().into()).collect()
}

impl Certificates {
    /// The certificate for a name; among several for one, the first whose key the client can judge.
    pub(super) fn find(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Arc<CertifiedKey> {
        self.named(name)
            .and_then(|all| all.iter().find(|one| one.key.choose_scheme(schemes).is_some()).or(all.first()))
            .unwrap_or(&self.fallback)
            .clone()
    }

    fn named(&self, name: Option<&str>) -> Option<&Vec<Arc<CertifiedKey>>> {
        let name = name?.to_ascii_lowercase();
        self.names.get(&*name).or_else(|| {
            // RFC 6125 §6.4.3: a star is one label, the first.
            let (_, rest) = name.split_once('.')?;
            self.names.get(&*format!("*.{rest}"))
        })
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.find(hello.server_name(), hello.signature_schemes()))
    }
}
