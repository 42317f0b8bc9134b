//! What stands in an X.509 certificate (RFC 5280): names, validity, fingerprint.
//!
//! Only reads; whether a certificate is to be believed, rustls decides. Texts come out in printable ASCII,
//! so that they can go into a header field as they are; but for the common name.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use aws_lc_rs::digest::{SHA256, digest};
use x509_parser::der_parser::oid::Oid;
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;
use x509_parser::x509::X509Name;

/// The parts of a certificate that rules, servers and operators ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// As `openssl x509 -nameopt RFC2253` writes it: `CN=web1,O=Example`.
    pub subject: Box<str>,
    pub issuer: Box<str>,
    /// Subject alternative names, without their kind: hosts, addresses, mailboxes, URIs.
    pub names: Vec<Box<str>>,
    /// The last CN of the subject, as it stands there: not escaped.
    pub common_name: Option<Box<str>>,
    /// SHA-256 of the whole, in lower-case hex.
    pub fingerprint: Box<str>,
    /// Seconds since 1970.
    pub not_before: i64,
    pub not_after: i64,
}

impl Certificate {
    /// One of which nothing is known but its subject.
    pub fn of_subject(subject: &str) -> Certificate {
        Certificate {
            subject: subject.into(),
            issuer: "".into(),
            names: Vec::new(),
            common_name: None,
            fingerprint: "".into(),
            not_before: 0,
            not_after: 0,
        }
    }
}

/// Reads a certificate in DER. `None`: it is none.
pub fn parse(der: &[u8]) -> Option<Certificate> {
    let (_, certificate) = parse_x509_certificate(der).ok()?;
    let alternative = certificate.subject_alternative_name().ok().flatten();
    let names = alternative.map(|names| names.value.general_names.iter().filter_map(general_name).collect());
    let common_name = certificate.subject().iter_common_name().last().and_then(|name| name.as_str().ok());
    Some(Certificate {
        subject: distinguished(certificate.subject()).into(),
        issuer: distinguished(certificate.issuer()).into(),
        names: names.unwrap_or_default(),
        common_name: common_name.map(Into::into),
        fingerprint: hex(digest(&SHA256, der).as_ref()).into(),
        not_before: certificate.validity().not_before.timestamp(),
        not_after: certificate.validity().not_after.timestamp(),
    })
}

fn general_name(name: &GeneralName<'_>) -> Option<Box<str>> {
    Some(match name {
        GeneralName::DNSName(text) | GeneralName::RFC822Name(text) | GeneralName::URI(text) => escaped(text).into(),
        GeneralName::IPAddress(bytes) => {
            let address = <[u8; 4]>::try_from(*bytes).map(|four| IpAddr::from(Ipv4Addr::from(four)));
            let address = address.or_else(|_| <[u8; 16]>::try_from(*bytes).map(|all| Ipv6Addr::from(all).into()));
            address.ok()?.to_string().into()
        }
        _ => return None,
    })
}

/// RFC 4514 §2: the last part first, parts of one level joined by `+`.
fn distinguished(name: &X509Name<'_>) -> String {
    let mut levels: Vec<String> = Vec::new();
    for level in name.iter() {
        let mut parts = Vec::new();
        for part in level.iter() {
            let value = match part.as_str() {
                Ok(text) => escaped(text),
                Err(_) => format!("#{}", hex(part.as_slice())),
            };
            parts.push(format!("{}={value}", kind(part.attr_type())));
        }
        levels.push(parts.join("+"));
    }
    levels.reverse();
    levels.join(",")
}

/// The usual short names (RFC 4514 §3, and those OpenSSL has besides); else the number.
fn kind(oid: &Oid<'_>) -> String {
    let number = oid.to_id_string();
    let word = match number.as_str() {
        "2.5.4.3" => "CN",
        "2.5.4.4" => "SN",
        "2.5.4.5" => "serialNumber",
        "2.5.4.6" => "C",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.9" => "street",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "2.5.4.12" => "title",
        "2.5.4.42" => "GN",
        "0.9.2342.19200300.100.1.1" => "UID",
        "0.9.2342.19200300.100.1.25" => "DC",
        "1.2.840.113549.1.9.1" => "emailAddress",
        _ => return number,
    };
    word.to_owned()
}

/// RFC 4514 §2.4: what would be taken for the end of a value is escaped, and so is all that is not
/// printable ASCII: a name must never end a line of a message head.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let last = text.len().saturating_sub(1);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b',' | b'+' | b'"' | b'\\' | b'<' | b'>' | b';' => out.extend(['\\', char::from(byte)]),
            b'#' if at == 0 => out.push_str("\\#"),
            b' ' if at == 0 || at == last => out.push_str("\\ "),
            0x20..0x7f => out.push(char::from(byte)),
            // Writing to a string cannot fail.
            _ => drop(write!(out, "\\{byte:02X}")),
        }
    }
    out
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// Whatever is read out of bytes can stand in a header field.
///
/// # Panics
/// When the invariant is broken; that is its purpose.
pub fn fuzz(bytes: &[u8]) {
    if let Some(read) = parse(bytes) {
        let texts = [&read.subject, &read.issuer, &read.fingerprint].into_iter().chain(&read.names);
        for text in texts {
            assert!(text.bytes().all(|byte| (0x20..0x7f).contains(&byte)), "{text:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    fn made(names: &[&str], subject: &[(DnType, &str)]) -> Certificate {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, value) in subject {
            params.distinguished_name.push(kind.clone(), *value);
        }
        params.subject_alt_names.push(SanType::URI("spiffe://example/a".try_into().expect("a URI")));
        let key = KeyPair::generate().expect("a key");
        parse(params.self_signed(&key).expect("a certificate").der()).expect("it is one")
    }

    #[test]
    fn names_are_read_and_cannot_break_out() {
        let subject = [(DnType::OrganizationName, "Ex, Ltd"), (DnType::CommonName, "web\r\nX-Evil: 1, CN=root é")];
        let read = made(&["t.example", "10.0.0.1", "2001:db8::1"], &subject);
        assert_eq!(&*read.subject, r"CN=web\0D\0AX-Evil: 1\, CN=root \C3\A9,O=Ex\, Ltd");
        assert_eq!(read.subject, read.issuer);
        assert_eq!(read.common_name.as_deref(), Some("web\r\nX-Evil: 1, CN=root é"));
        let names: Vec<&str> = read.names.iter().map(|name| &**name).collect();
        assert_eq!(names, ["t.example", "10.0.0.1", "2001:db8::1", "spiffe://example/a"]);
        assert_eq!(read.fingerprint.len(), 64);
        assert!(read.not_before < read.not_after);
    }

    #[test]
    fn what_is_no_certificate_is_none() {
        for bytes in [&b""[..], b"0", &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff], &[0x30; 4096]] {
            assert_eq!(parse(bytes), None);
        }
    }
}
