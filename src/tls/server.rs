//! What a listener offers its clients.

use std::sync::Arc;
use std::time::SystemTime;

use aws_lc_rs::digest::{Context, SHA256};
use rustls::ServerConfig;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ServerSessionMemoryCache, StoresServerSessions, WebPkiClientVerifier};

use super::tickets::{Policy, Ticketer};
use super::{certificates, pem, provider, versions};
use crate::model::listener::Protocol;
use crate::model::tls::{ClientCertificate, ListenerTls};
use crate::model::{Fault, Limits};
use crate::sys::secrets::Ring;

/// In the order of preference. What a client chooses has to be spoken: where Reeve does not know what its server speaks, and
/// where there is one protocol alone, none is chosen, and what clients offer (RFC 7301 §3.1) does not matter.
fn protocols(listener: Protocol) -> Vec<Vec<u8>> {
    match listener {
        Protocol::Http => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        Protocol::Rtsp | Protocol::Tcp | Protocol::TlsPassthrough => Vec::new(),
    }
}

/// Reads what the listener needs. `before` is what it offered until now, whose sessions live on where the
/// same clients are let in.
pub fn build(
    tls: &ListenerTls,
    listener: &str,
    protocol: Protocol,
    ring: &Arc<Ring>,
    before: Option<(&ServerConfig, Policy)>,
    now: SystemTime,
    faults: &mut Vec<Fault>,
) -> Option<(ServerConfig, Policy)> {
    let certificates = certificates::load(&tls.certificates, now, faults);
    let clients = match clients(tls, listener) {
        Ok(clients) => Some(clients),
        Err(fault) => {
            faults.push(*fault);
            None
        }
    };
    let (certificates, (verifier, policy)) = (certificates?, clients?);
    // The versions fit the provider: both are fixed here.
    let builder = ServerConfig::builder_with_provider(provider()).with_protocol_versions(versions(tls.minimum)).ok()?;
    let mut config = builder.with_client_cert_verifier(verifier).with_cert_resolver(Arc::new(certificates));
    config.alpn_protocols = protocols(protocol);
    config.ticketer = Arc::new(Ticketer::new(ring.clone(), policy));
    // For clients of TLS 1.2 that take no tickets. A session of a listener is of no use on another one.
    config.session_storage = match before {
        Some((before, same)) if same == policy => before.session_storage.clone(),
        _ => Arc::new(Sessions(ServerSessionMemoryCache::new(Limits::TLS_SESSIONS))),
    };
    // Data before the end of the handshake can be sent again by anybody (RFC 8446 §8).
    config.max_early_data_size = 0;
    Some((config, policy))
}

/// Sessions by their ids. Each has its client's whole chain of certificates: a long one shakes hands anew, as with tickets.
#[derive(Debug)]
struct Sessions(Arc<ServerSessionMemoryCache>);

impl StoresServerSessions for Sessions {
    fn put(&self, id: Vec<u8>, session: Vec<u8>) -> bool {
        session.len() <= Limits::TLS_TICKET && self.0.put(id, session)
    }

    fn get(&self, id: &[u8]) -> Option<Vec<u8>> {
        self.0.get(id)
    }

    fn take(&self, id: &[u8]) -> Option<Vec<u8>> {
        self.0.take(id)
    }

    fn can_cache(&self) -> bool {
        self.0.can_cache()
    }
}

/// Who of the clients is let in, and the mark of that policy: a session never passes from one to another.
fn clients(tls: &ListenerTls, listener: &str) -> Result<(Arc<dyn ClientCertVerifier>, Policy), Box<Fault>> {
    let mut policy = Context::new(&SHA256);
    policy.update(listener.as_bytes());
    policy.update(&[0]);
    policy.update(tls.client_certificate.word().as_bytes());
    let mut verifier = WebPkiClientVerifier::no_client_auth();
    if let Some(file) = tls.client_ca.as_ref().filter(|_| tls.client_certificate != ClientCertificate::None) {
        let (roots, all) = pem::roots(file)?;
        for certificate in &all {
            policy.update(&(certificate.len() as u64).to_be_bytes());
            policy.update(certificate);
        }
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
        let builder = match tls.client_certificate {
            ClientCertificate::Optional => builder.allow_unauthenticated(),
            _ => builder,
        };
        verifier = builder.build().map_err(|error| pem::fault("R0131", file, format!("cannot be used: {error}")))?;
    }
    Ok((verifier, Policy::of(policy.finish().as_ref())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_have_a_size() {
        let sessions = Sessions(ServerSessionMemoryCache::new(10));
        assert!(
            sessions.put(vec![1], vec![0; Limits::TLS_TICKET])
                && !sessions.put(vec![2], vec![0; Limits::TLS_TICKET + 1])
        );
        assert!(sessions.get(&[1]).is_some() && sessions.get(&[2]).is_none());
        assert!(sessions.take(&[1]).is_some() && sessions.get(&[1]).is_none());
    }
}
