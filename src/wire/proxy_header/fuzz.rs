//! What must hold for any bytes: entered by the fuzz target and by the test that replays its corpus.

use super::{ClientCertificate, Endpoints, Said, Tls, Tlvs, parse, write_v1, write_v2};
use crate::model::Limits;

/// A header is refused, wanted more of, or understood; understood, no beginning of it was refused or
/// taken for a header, what comes behind changes nothing, and written again it reads the same.
///
/// # Panics
/// When the invariant is broken; that is its purpose.
pub fn header(bytes: &[u8]) {
    let Ok(Some(header)) = parse(bytes) else { return };
    assert!(0 < header.length && header.length <= bytes.len());
    for cut in [0, 1, 5, 12, 15, 16, header.length / 2, header.length - 1] {
        if cut < header.length {
            assert!(matches!(parse(&bytes[..cut]), Ok(None)), "cut at {cut}");
        }
    }
    let exact = parse(&bytes[..header.length]).ok().flatten().expect("the same without what follows");
    assert_eq!((exact.length, exact.said, exact.tlvs), (header.length, header.said, header.tlvs));
    let Said::Ip(ends) = header.said else { return };
    let canonical = |ends: super::Endpoints| {
        let plain = |end: std::net::SocketAddr| (end.ip().to_canonical(), end.port());
        (plain(ends.source), plain(ends.destination))
    };
    let (mut line, mut binary) = (Vec::new(), Vec::new());
    write_v1(Some(ends), &mut line);
    write_v2(Some(ends), header.tlvs.to_pass_on(), &mut binary);
    for written in [&line, &binary] {
        let again = parse(written).ok().flatten().expect("what is written is a header");
        assert_eq!(again.length, written.len());
        let Said::Ip(said) = again.said else { panic!("{:?}", again.said) };
        assert_eq!(canonical(said), canonical(ends));
    }
    let again = parse(&binary).ok().flatten().expect("read before");
    assert!(again.tlvs.eq(header.tlvs.to_pass_on()));
    of_tls(ends, header.tlvs);
}

/// Whatever a client's TLS was, it is read as it was written.
fn of_tls(ends: Endpoints, tlvs: Tlvs<'_>) {
    let mut texts = tlvs.filter_map(|(_, value)| std::str::from_utf8(value).ok());
    let (alpn, authority, name) = (texts.next(), texts.next(), texts.next());
    let certificate = name.map(|name| ClientCertificate { common_name: Some(name), shown_now: alpn.is_some() });
    let tls = Tls { version: "TLSv1.3", cipher: "TLS_AES_128_GCM_SHA256", alpn, authority, certificate };
    let (ssl, mut binary) = (tls.ssl(), Vec::new());
    write_v2(Some(ends), tls.values(&ssl), &mut binary);
    let again = parse(&binary).ok().flatten().expect("what is written is a header");
    assert_eq!(again.length, binary.len());
    if alpn.map_or(0, str::len) + authority.map_or(0, str::len) < Limits::PROXY_HEADER_BYTES / 2 {
        assert!(again.tlvs.eq(tls.values(&ssl)));
    }
    let within: Vec<(u8, &[u8])> = Tlvs::of(&ssl[5..]).collect();
    assert_eq!(within.iter().map(|(_, value)| 3 + value.len()).sum::<usize>(), ssl.len() - 5);
    assert_eq!(within[0], (0x21, &b"TLSv1.3"[..]));
}
