//! What is demanded of the servers of a pool.

use std::cell::OnceCell;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::{ArcSwap, ArcSwapOption};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::{ClientSlot, pem, provider, versions};
use crate::model::pool::{Address, Pool, Protocol};
use crate::model::rule::Refinement;
use crate::model::tls::{PoolTls, TlsVersion};
use crate::model::{Config, Fault, Limits};
use crate::wire::certificate;

/// Reads what a pool needs to speak to its servers.
pub fn build(
    tls: &PoolTls,
    pool: &Pool,
    system: &SystemRoots,
    now: SystemTime,
    faults: &mut Vec<Fault>,
) -> Option<ClientConfig> {
    let before = faults.len();
    let verifier = verifier(tls, pool, system, faults);
    let own = tls.own.as_ref().map(|(certificate, key)| (pem::certificates(certificate), pem::key(key)));
    let own = match own {
        None => None,
        Some((Ok(chain), Ok(key))) => Some((chain, key)),
        Some((chain, key)) => {
            faults.extend(chain.err().into_iter().chain(key.err()).map(|fault| *fault));
            None
        }
    };
    if faults.len() > before {
        return None;
    }
    // The versions fit the provider: both are fixed here.
    let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(versions(tls.minimum)).ok()?;
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier?);
    let mut config = match (own, &tls.own) {
        (Some((chain, key)), Some((certificate_file, key_file))) => {
            if let Some(known) = chain.first().and_then(|leaf| certificate::parse(leaf)) {
                pem::warn_of_age(certificate_file, &known, now, faults);
            }
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| {
                    let what = format!("does not go with {}: {error}", certificate_file.path.display());
                    faults.push(pem::fault("R0132", key_file, what));
                })
                .ok()?
        }
        _ => builder.with_no_client_auth(),
    };
    config.alpn_protocols = match pool.protocol {
        Protocol::Http1 => vec![b"http/1.1".to_vec()],
        Protocol::H2 | Protocol::H2c => vec![b"h2".to_vec()],
        Protocol::Auto => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
    };
    config.resumption = Resumption::in_memory_sessions(Limits::TLS_SESSIONS);
    Some(config)
}

fn verifier(
    tls: &PoolTls,
    pool: &Pool,
    system: &SystemRoots,
    faults: &mut Vec<Fault>,
) -> Option<Arc<dyn ServerCertVerifier>> {
    if !tls.verify {
        return Some(anybody());
    }
    let roots = match &tls.ca {
        Some(file) => match pem::roots(file) {
            Ok((roots, _)) => Arc::new(roots),
            Err(fault) => {
                faults.push(*fault);
                return None;
            }
        },
        None => system.get(),
    };
    match WebPkiServerVerifier::builder_with_provider(roots, provider()).build() {
        Ok(verifier) => Some(verifier),
        Err(error) => {
            let message = format!("[pool.{}] trusts nobody: {error}", pool.name);
            let fault = Fault::error("R0131", tls.place.clone(), message);
            faults.push(fault.help("install ca-certificates, or name who signs: ca = \"certs/internal-ca.pem\""));
            None
        }
    }
}

/// Those whom the system trusts, read when the first pool asks: `SSL_CERT_FILE`, `SSL_CERT_DIR` or the usual
/// places.
#[derive(Debug, Default)]
pub struct SystemRoots(OnceCell<Arc<RootCertStore>>);

impl SystemRoots {
    fn get(&self) -> Arc<RootCertStore> {
        let read = || {
            let mut roots = RootCertStore::empty();
            // Old stores hold certificates that nobody can use any more.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            Arc::new(roots)
        };
        self.0.get_or_init(read).clone()
    }
}

/// The name that a server has to prove: the pool's `server-name`, else the host of its address. `None`
/// where the address is no name that a certificate could hold.
pub fn name(tls: &PoolTls, address: &Address) -> Option<ServerName<'static>> {
    match &tls.server_name {
        Some(name) => named(name),
        None => host_name(address),
    }
}

/// A name that is to be proved, as it is written.
pub fn named(name: &str) -> Option<ServerName<'static>> {
    ServerName::try_from(name.to_owned()).ok()
}

/// The host of an address.
pub fn host_name(address: &Address) -> Option<ServerName<'static>> {
    match address {
        Address::Ip(address) => Some(ServerName::IpAddress(address.ip().into())),
        Address::Name { host, .. } => named(host),
    }
}

/// Finds services of `auth forward` that could never prove who they are. What is demanded of them is made ready along the
/// way, so that no request waits for it.
pub fn services(config: &Config, faults: &mut Vec<Fault>) {
    let rules = config.rule_sets.iter().flat_map(|set| &set.sections).flat_map(|section| &section.rules);
    for rule in rules {
        for refinement in &rule.refinements {
            let Refinement::AuthForward { url } = refinement else { continue };
            if !url.tls {
                continue;
            }
            let why = match (named(&url.host), by_system(true)) {
                (None, _) => "its host is no name that a certificate could hold",
                (_, None) => "the system trusts nobody who could sign for it: install ca-certificates",
                _ => continue,
            };
            let message = format!("{} cannot prove who it is: {why}", url.origin);
            faults.push(Fault::error("R0131", rule.place.clone(), message));
        }
    }
}

/// What is demanded of servers where no authority is named, by checks that go by TLS on their own and of services that say who
/// may pass: that someone the system trusts has signed for them, or nothing. `None` where the system trusts nobody. Made
/// when first it is asked for; each load has whom the system trusts read anew.
pub fn by_system(verify: bool) -> Option<ClientSlot> {
    let made = &BY_SYSTEM[usize::from(verify)];
    if made.load().is_none() {
        let system = if verify { Some(SystemRoots::default()) } else { None };
        // Whoever asked at the same moment may have been first.
        made.compare_and_swap(&None::<ClientSlot>, Some(Arc::new(ArcSwap::from_pointee(demanded(system.as_ref())?))));
    }
    made.load_full()
}

/// Has what [`by_system`] gave out trust whom the system trusts now.
pub fn renew(system: &SystemRoots) {
    if let Some(slot) = &*BY_SYSTEM[1].load()
        && let Some(config) = demanded(Some(system))
    {
        slot.store(Arc::new(config));
    }
}

static BY_SYSTEM: [ArcSwapOption<ArcSwap<ClientConfig>>; 2] = [const { ArcSwapOption::const_empty() }; 2];

fn demanded(system: Option<&SystemRoots>) -> Option<ClientConfig> {
    let verifier: Arc<dyn ServerCertVerifier> = match system {
        Some(system) => WebPkiServerVerifier::builder_with_provider(system.get(), provider()).build().ok()?,
        None => anybody(),
    };
    let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(versions(TlsVersion::Tls12));
    let mut config = builder.ok()?.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    config.resumption = Resumption::in_memory_sessions(Limits::TLS_SESSIONS);
    Some(config)
}

/// See [`Anybody`].
pub fn anybody() -> Arc<dyn ServerCertVerifier> {
    Arc::new(Anybody { provider: provider() })
}

/// Believes whoever answers, as `verify = false` says. It still has to hold the key it shows.
#[derive(Debug)]
struct Anybody {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
