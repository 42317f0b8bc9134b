//! An authority and a certificate for one run: nobody trusts it, and its key goes with the folder.

use std::io;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair};

use super::Folder;

/// The authority's certificate, for clients that want to verify.
pub const AUTHORITY: &str = "authority.pem";

const NAMES: [&str; 5] = ["localhost", "demo.example", "*.demo.example", "127.0.0.1", "::1"];

/// Writes the authority, and the certificate with its key into `certs/`.
pub fn write(folder: &Folder) -> io::Result<()> {
    let (authority, certificate, key) = make().map_err(io::Error::other)?;
    folder.write(AUTHORITY, &authority)?;
    folder.write("certs/demo.pem", &certificate)?;
    folder.write("certs/demo.key", &key)?;
    Ok(())
}

fn make() -> Result<(String, String, String), rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.distinguished_name = named("Reeve demonstration authority");
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let mut params = CertificateParams::new(NAMES.map(str::to_owned))?;
    params.distinguished_name = named("Reeve demonstration");
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &authority)?;
    Ok((authority.pem(), certificate.pem(), key.serialize_pem()))
}

fn named(name: &str) -> DistinguishedName {
    let mut all = DistinguishedName::new();
    all.push(DnType::CommonName, name);
    all
}
