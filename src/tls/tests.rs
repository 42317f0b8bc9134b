//! Folders of certificates as operators leave them, and what is said of them.

use std::path::PathBuf;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::SignatureScheme;

use super::*;
use crate::model::listener::{Listener, Protocol};
use crate::model::tls::{ClientCertificate, FileAt, ListenerTls};
use crate::model::{Place, Severity};

/// A folder that goes with its test.
struct Folder(PathBuf);

impl Folder {
    fn new(label: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("reeve-tls-{label}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("a folder");
        Folder(path)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.0.join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        std::fs::write(path, text).expect("a file");
    }

    /// Writes `STEM.pem` and `STEM.key`; the certificate's text.
    fn pair(&self, stem: &str, names: &[&str]) -> String {
        let (certificate, key) = made(names, |_| {});
        self.write(&format!("{stem}.pem"), &certificate);
        self.write(&format!("{stem}.key"), &key);
        certificate
    }

    fn listener(&self, client_certificate: ClientCertificate) -> Config {
        let place = Place::file("reeve.toml");
        let at = |name: &str| FileAt { path: self.0.join(name), place: Place::file(name) };
        let tls = ListenerTls {
            certificates: at("certs"),
            minimum: TlsVersion::Tls12,
            client_ca: (client_certificate != ClientCertificate::None).then(|| at("ca.pem")),
            client_certificate,
        };
        let listener = Listener {
            name: "web".into(),
            addresses: Vec::new(),
            protocol: Protocol::Http,
            rules: 0,
            pool: None,
            trusted: Vec::new(),
            forwarded: false,
            accept_proxy: None,
            tls: Some(tls),
            media: Default::default(),
            built: true,
            place,
        };
        Config { listeners: vec![listener], ..Config::default() }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn made(names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> (String, String) {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("names");
    change(&mut params);
    let key = KeyPair::generate().expect("a key");
    (params.self_signed(&key).expect("a certificate").pem(), key.serialize_pem())
}

/// What is said of the folder: severity, code, the key that names the file, and the message from the file on.
fn said(config: &Config) -> (Loaded, Vec<(Severity, &'static str, String, String)>) {
    let mut faults = Vec::new();
    let loaded = load(config, None, SystemTime::now(), &mut faults);
    let short = |fault: Fault| {
        let (path, what) = fault.message.split_once(' ').unwrap_or_default();
        let message = format!("{} {what}", path.rsplit('/').next().unwrap_or_default());
        (fault.severity, fault.code, fault.place.file.to_string(), message)
    };
    (loaded, faults.into_iter().map(short).collect())
}

/// The leaf that a name gets.
fn leaf(folder: &Folder, name: Option<&str>) -> Vec<u8> {
    let mut faults = Vec::new();
    let certs = FileAt { path: folder.0.join("certs"), place: Place::file("x") };
    let all = certificates::load(&certs, SystemTime::now(), &mut faults).expect("good");
    all.find(name, &[SignatureScheme::ECDSA_NISTP256_SHA256]).cert[0].to_vec()
}

fn der(pem: &str) -> Vec<u8> {
    use rustls::pki_types::{CertificateDer, pem::PemObject};
    CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate").to_vec()
}

#[test]
fn names_find_their_certificate() {
    let folder = Folder::new("names");
    let first = folder.pair("certs/a", &["a.example", "*.A.example"]);
    let second = folder.pair("certs/b", &["b.example"]);
    let (chain, key) = made(&["folder.example"], |_| {});
    folder.write("certs/live/fullchain.pem", &chain);
    folder.write("certs/live/privkey.pem", &key);
    let (plain, key) = made(&[], |params| params.distinguished_name.push(DnType::CommonName, "old.example"));
    folder.write("certs/old.crt", &plain);
    folder.write("certs/old.key", &key);
    folder.write("certs/clients.pem", &second);
    for (name, expected) in [
        ("a.example", &first),
        ("A.Example", &first),
        ("www.a.example", &first),
        ("b.example", &second),
        ("folder.example", &chain),
        ("old.example", &plain),
        // A star is one label; nobody's name gets the first.
        ("x.www.a.example", &first),
        ("nobody.example", &first),
    ] {
        assert!(leaf(&folder, Some(name)) == der(expected), "{name}");
    }
    assert!(leaf(&folder, None) == der(&first));
    let default = folder.pair("certs/default", &["z.example"]);
    assert!(leaf(&folder, Some("nobody.example")) == der(&default) && leaf(&folder, None) == der(&default));
    let (_, said) = said(&folder.listener(ClientCertificate::None));
    assert_eq!(said, []);
}

#[test]
fn two_listeners_on_one_folder_have_each_fault_once() {
    let folder = Folder::new("shared");
    folder.pair("certs/a", &["a.example"]);
    folder.write("certs/b.key", "no key");
    folder.write("certs/b.pem", "no certificate");
    let mut config = folder.listener(ClientCertificate::None);
    let one = said(&config).1;
    assert!(!one.is_empty());
    config.listeners.push(Listener { name: "other".into(), ..config.listeners[0].clone() });
    let (loaded, two) = said(&config);
    assert_eq!(two, one);
    assert!(loaded.listeners.iter().all(Option::is_none), "neither is served");
}

#[test]
fn of_two_for_a_name_the_valid_one_answers() {
    let folder = Folder::new("renewed");
    let (certificate, key) = made(&["a.example"], |params| {
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    });
    folder.write("certs/a.pem", &certificate);
    folder.write("certs/a.key", &key);
    let renewed = folder.pair("certs/b", &["a.example"]);
    assert!(leaf(&folder, Some("a.example")) == der(&renewed));
    let (loaded, said) = said(&folder.listener(ClientCertificate::None));
    assert!(loaded.serves());
    assert_eq!(said.len(), 1);
    assert_eq!((said[0].0, said[0].1, &*said[0].2), (Severity::Warning, "R0157", "certs"));
    assert_eq!(said[0].3, "a.pem expired on Fri, 01 Jan 2021 00:00:00 GMT");
}

#[test]
fn every_fault_is_told_with_its_file() {
    let folder = Folder::new("faults");
    let config = folder.listener(ClientCertificate::Required);
    let codes = |said: &[(Severity, &'static str, String, String)]| -> Vec<String> {
        let file = |message: &str| message.split(' ').next().unwrap_or_default().to_owned();
        said.iter().map(|(_, code, key, message)| format!("{code} {key} {}", file(message))).collect()
    };
    let (_, nothing) = said(&config);
    assert_eq!(codes(&nothing), ["R0133 certs the", "R0131 ca.pem ca.pem"]);

    folder.write("certs/alone.key", "x");
    folder.write("certs/damaged.pem", "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n");
    let (_, key) = made(&["a.example"], |_| {});
    folder.write("certs/damaged.key", &key);
    folder.write("certs/empty.pem", "");
    folder.write("certs/empty.key", "");
    folder.pair("certs/mixed", &["a.example"]);
    folder.write("certs/mixed.key", &key);
    folder.pair("certs/sealed", &["a.example"]);
    folder.write(
        "certs/sealed.key",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    folder.write("ca.pem", "nothing");
    let (loaded, wrong) = said(&config);
    assert!(!loaded.serves());
    assert_eq!(
        codes(&wrong),
        [
            "R0158 certs alone.key",
            "R0131 certs damaged.pem",
            "R0131 certs empty.pem",
            "R0131 certs empty.key",
            "R0132 certs mixed.key",
            "R0131 certs sealed.key",
            "R0131 ca.pem ca.pem"
        ],
        "{wrong:#?}"
    );
    assert!(wrong[5].3.contains("encrypted"), "{:?}", wrong[5]);
}

/// A client of the listener, with or without a certificate; the session's peer as the server saw it.
async fn shake(server: &ServerSlot, client: &Arc<ClientConfig>) -> Result<Peer, String> {
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = socket.local_addr().expect("an address");
    let name = rustls::pki_types::ServerName::try_from("a.example").expect("a name");
    let (client, server) = tokio::join!(
        async {
            let tcp = tokio::net::TcpStream::connect(address).await.expect("a connection");
            let (mut tcp, mut session) = connect(tcp, client.clone(), name).await?;
            // The tickets come behind the handshake; the client has to read them to use them.
            let mut stream = tokio::io::BufReader::new(&mut tcp);
            for _ in 0..4 {
                let wait = Duration::from_millis(200);
                let bytes = match tokio::time::timeout(wait, tokio::io::AsyncBufReadExt::fill_buf(&mut stream)).await {
                    Ok(Ok(bytes)) if !bytes.is_empty() => bytes.to_vec(),
                    _ => break,
                };
                tokio::io::AsyncBufReadExt::consume(&mut stream, bytes.len());
                let mut rest = &bytes[..];
                while !rest.is_empty() && session.read_tls(&mut rest).is_ok() {
                    session.process_new_packets().map_err(|error| error.to_string())?;
                }
            }
            Ok::<(), String>(())
        },
        async {
            let (tcp, _) = socket.accept().await.expect("a connection");
            match accept(tcp, server.load_full(), false, || {}).await {
                Ok(accepted) => Ok(accepted.peer),
                Err(refused) => Err(format!("{refused:?}")),
            }
        }
    );
    let peer = server?;
    client.map(|()| peer)
}

#[tokio::test]
async fn sessions_never_pass_from_one_policy_to_another() {
    let folder = Folder::new("policies");
    folder.pair("certs/a", &["a.example"]);
    let mut params = CertificateParams::new(Vec::new()).expect("names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "clients");
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority");
    folder.write("ca.pem", &ca.pem());
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(vec!["joe@example".to_owned()]).expect("names");
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "joe");
    let own = params.signed_by(&key, &ca).expect("a certificate");

    // One ring for all of them, as in one process.
    let mut config = folder.listener(ClientCertificate::None);
    for word in [ClientCertificate::Optional, ClientCertificate::Required] {
        let mut other = folder.listener(word).listeners.remove(0);
        other.name = word.word().into();
        config.listeners.push(other);
    }
    let (loaded, faults) = said(&config);
    assert_eq!(faults, []);
    let slot = |at: usize| loaded.listeners[at].clone().expect("good");
    for versions in [&[&rustls::version::TLS13][..], &[&rustls::version::TLS12]] {
        let client = |shown: bool| {
            let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(versions);
            let mut roots = rustls::RootCertStore::empty();
            let text = std::fs::read(folder.0.join("certs/a.pem")).expect("the certificate");
            roots.add(der(&String::from_utf8(text).expect("text")).into()).expect("a root");
            let builder = builder.expect("a version").with_root_certificates(roots);
            let key = || rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
            Arc::new(match shown {
                true => builder.with_client_auth_cert(vec![own.der().clone()], key()).expect("goes together"),
                false => builder.with_no_client_auth(),
            })
        };
        let (stranger, joe) = (client(false), client(true));
        let first = shake(&slot(0), &stranger).await.expect("all are let in");
        let again = shake(&slot(0), &stranger).await.expect("all are let in");
        assert!(!first.resumed && again.resumed && again.certificate.is_none());
        // The same client takes its session of the open listener to the ones that ask.
        assert!(!shake(&slot(1), &stranger).await.expect("asked, not made to").resumed);
        let refused = shake(&slot(2), &stranger).await.expect_err("it has to show one");
        assert!(refused.contains("NoCertificatesPresented"), "{refused}");

        let first = shake(&slot(2), &joe).await.expect("he is known");
        assert_eq!(first.certificate.as_ref().map(|own| &*own.subject), Some("CN=joe"));
        let again = shake(&slot(2), &joe).await.expect("he is known");
        assert!(again.resumed);
        assert_eq!(again.certificate, first.certificate, "a session brings its identity along");
        assert!(!shake(&slot(1), &joe).await.expect("he is known").resumed);
    }
}
