//! `tls` of a listener and of a pool.
//!
//! Paths are kept as they were written; `resolve` puts them below the base folder. What the files hold is
//! looked at by the room `tls`.

use std::path::PathBuf;

use super::super::node::Node;
use super::address::is_host_name;
use super::walk::{Fields, Walk};
use crate::model::Fault;
use crate::model::tls::{ClientCertificate, ListenerTls, PoolTls, TlsVersion};

/// `tls` of a listener.
pub fn listener(walk: &Walk<'_>, node: &Node, title: &str) -> Option<ListenerTls> {
    let mut fields = Fields::of(walk, node, title)?;
    let certificates = fields.require("certificates", "a folder, for example certificates = \"certs\"");
    let place = certificates.map_or_else(|| walk.value_place(node), |entry| walk.value_place(&entry.node));
    let certificates = certificates.and_then(|entry| walk.text(&entry.node, "certificates"));
    let minimum = minimum(&mut fields);
    let ca_entry = fields.get("client-ca");
    let client_ca = ca_entry.and_then(|entry| walk.text(&entry.node, "client-ca"));
    let asked = fields.get("client-certificate");
    let word = asked.and_then(|entry| walk.word(&entry.node, "client-certificate", &["none", "optional", "required"]));
    let client_certificate = match word {
        Some("none") => ClientCertificate::None,
        Some("optional") => ClientCertificate::Optional,
        Some("required") => ClientCertificate::Required,
        // Whoever says which authority means that somebody has to come from it.
        _ if client_ca.is_some() => ClientCertificate::Required,
        _ => ClientCertificate::None,
    };
    match (asked, ca_entry) {
        (Some(entry), None) if client_certificate != ClientCertificate::None => {
            let message = format!("client-certificate \"{}\" needs \"client-ca\"", client_certificate.word());
            let fault = walk.error("R0125", &entry.node, message);
            walk.push(fault.help("say who signs them: client-ca = \"certs/clients.pem\""));
        }
        (Some(_), Some(entry)) if word == Some("none") => {
            let message = "client-ca means nothing where client-certificate is \"none\"";
            walk.push(walk.warning("R0125", &entry.node, message));
        }
        _ => {}
    }
    fields.finish();
    Some(ListenerTls {
        certificates: PathBuf::from(certificates?),
        minimum,
        client_ca: client_ca.map(PathBuf::from),
        client_certificate,
        place,
    })
}

/// `tls` of a pool: towards its servers.
pub fn pool(walk: &Walk<'_>, node: &Node, title: &str) -> Option<PoolTls> {
    let mut fields = Fields::of(walk, node, title)?;
    let place = walk.value_place(node);
    let ca_entry = fields.get("ca");
    let ca = ca_entry.and_then(|entry| walk.text(&entry.node, "ca"));
    let certificate_entry = fields.get("certificate");
    let certificate = certificate_entry.and_then(|entry| walk.text(&entry.node, "certificate"));
    let key_entry = fields.get("key");
    let key = key_entry.and_then(|entry| walk.text(&entry.node, "key"));
    match (certificate_entry, key_entry) {
        (Some(entry), None) => walk.push(walk.error("R0125", &entry.node, "certificate needs its \"key\"")),
        (None, Some(entry)) => walk.push(walk.error("R0125", &entry.node, "key needs its \"certificate\"")),
        _ => {}
    }
    let minimum = minimum(&mut fields);
    let verify_entry = fields.get("verify");
    let verify = verify_entry.and_then(|entry| walk.boolean(&entry.node, "verify")).unwrap_or(true);
    if let Some(entry) = verify_entry.filter(|_| !verify) {
        let message = format!("{title}: whoever answers at these addresses is believed: verify = false");
        walk.push(Fault::note("R0002", walk.value_place(&entry.node), message));
        if let Some(entry) = ca_entry {
            walk.push(walk.warning("R0125", &entry.node, "ca means nothing where verify is false"));
        }
    }
    let mut server_name = None;
    if let Some(entry) = fields.get("server-name")
        && let Some(name) = walk.text(&entry.node, "server-name")
    {
        if is_host_name(name) || name.parse::<std::net::IpAddr>().is_ok() {
            server_name = Some(name.to_ascii_lowercase().into());
        } else {
            let message = format!("server-name \"{name}\" is not the name of a host");
            walk.push(walk.error("R0112", &entry.node, message));
        }
    }
    fields.finish();
    let own = certificate.zip(key).map(|(certificate, key)| (PathBuf::from(certificate), PathBuf::from(key)));
    Some(PoolTls { verify, ca: ca.map(PathBuf::from), own, server_name, minimum, place })
}

fn minimum(fields: &mut Fields<'_, '_, '_>) -> TlsVersion {
    let word = fields.get("minimum").and_then(|entry| fields.walk.word(&entry.node, "minimum", &["1.2", "1.3"]));
    if word == Some("1.3") { TlsVersion::Tls13 } else { TlsVersion::Tls12 }
}
