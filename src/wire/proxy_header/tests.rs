use super::*;

fn said(bytes: &[u8]) -> Said {
    parse(bytes).unwrap().unwrap().said
}

fn ip(source: &str, destination: &str) -> Said {
    Said::Ip(Endpoints { source: source.parse().unwrap(), destination: destination.parse().unwrap() })
}

/// Version 2 with this first byte, family and rest.
fn v2(first: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = (rest.len() as u16).to_be_bytes();
    [&SIGNATURE[..], &[first, family], &length, rest].concat()
}

const V4: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 2, 0xdc, 0x04, 0x01, 0xbb];

fn v6() -> Vec<u8> {
    let address = |end: u8| [&[0x20, 0x01, 0x0d, 0xb8][..], &[0; 11], &[end]].concat();
    [address(1), address(2), vec![0x00, 0x07, 0xff, 0xff]].concat()
}

#[test]
fn lines_are_read() {
    assert_eq!(
        said(b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\nGET /"),
        ip("192.0.2.1:56324", "198.51.100.2:443")
    );
    assert_eq!(said(b"PROXY TCP6 2001:DB8::1 ::1 0 65535\r\n"), ip("[2001:db8::1]:0", "[::1]:65535"));
    assert_eq!(said(b"PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n"), ip("[::ffff:192.0.2.1]:1", "[::1]:2"));
    for unknown in ["PROXY UNKNOWN\r\n", "PROXY UNKNOWN \r\n", "PROXY UNKNOWN ffff::1 whatever 1 2\r\n"] {
        assert_eq!(said(unknown.as_bytes()), Said::Unknown);
    }
    let longest = format!("PROXY TCP6 {0} {0} 65535 65535\r\n", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
    assert_eq!(parse(longest.as_bytes()).unwrap().unwrap().length, longest.len());
    let padded = format!("PROXY UNKNOWN {:x<91}\r\n", "");
    assert_eq!((padded.len(), said(padded.as_bytes())), (107, Said::Unknown));
}

#[test]
fn lines_that_are_not_exactly_right_are_refused() {
    use HeaderFault::{Absent, Address, Line, Port, TooLong};
    let cases: [(&str, HeaderFault); 44] = [
        ("GET / HTTP/1.1\r\n", Absent),
        ("proxy TCP4 1.2.3.4 1.2.3.4 1 2\r\n", Absent),
        (" PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n", Absent),
        ("\r\nPROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n", Absent),
        ("PROXY\tTCP4 1.2.3.4 1.2.3.4 1 2\r\n", Absent),
        ("PROXY\r\n", Absent),
        ("PROXYTCP4 1.2.3.4 1.2.3.4 1 2\r\n", Absent),
        ("PROXY \r\n", Line),
        ("PROXY TCP4\r\n", Line),
        ("PROXY tcp4 1.2.3.4 1.2.3.4 1 2\r\n", Line),
        ("PROXY TCP5 1.2.3.4 1.2.3.4 1 2\r\n", Line),
        ("PROXY TCP 1.2.3.4 1.2.3.4 1 2\r\n", Line),
        ("PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n", Line),
        ("PROXY UNKNOWNX\r\n", Line),
        ("PROXY unknown\r\n", Line),
        ("PROXY  TCP4 1.2.3.4 1.2.3.4 1 2\r\n", Line),
        ("PROXY TCP4  1.2.3.4 1.2.3.4 1 2\r\n", Line),
        ("PROXY TCP4 1.2.3.4 1.2.3.4  1 2\r\n", Line),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 1 2 \r\n", Line),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n", Line),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n", Line),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n", Line),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 1 2\rX", Line),
        ("PROXY TCP4 1.2.3.4\n1.2.3.4 1 2\r\n", Line),
        ("PROXY TCP4 1.2.3.4\t1.2.3.4 1 2\r\n", Line),
        ("PROXY TCP4 ::1 ::1 1 2\r\n", Address),
        ("PROXY TCP4 1.2.3.4 ::1 1 2\r\n", Address),
        ("PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n", Address),
        ("PROXY TCP6 ::1%eth0 ::1 1 2\r\n", Address),
        ("PROXY TCP6 [::1] ::1 1 2\r\n", Address),
        ("PROXY TCP6 ::1:::2 ::1 1 2\r\n", Address),
        ("PROXY TCP4 1.2.3 1.2.3.4 1 2\r\n", Address),
        ("PROXY TCP4 1.2.3.256 1.2.3.4 1 2\r\n", Address),
        ("PROXY TCP4 01.2.3.4 1.2.3.4 1 2\r\n", Address),
        ("PROXY TCP4 1.2.3.4. 1.2.3.4 1 2\r\n", Address),
        ("PROXY TCP4 0x7f.0.0.1 1.2.3.4 1 2\r\n", Address),
        ("PROXY TCP4 localhost 1.2.3.4 1 2\r\n", Address),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 65536 2\r\n", Port),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 1 99999999999999999999\r\n", Port),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 -1 2\r\n", Port),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 +1 2\r\n", Port),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n", Port),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 0x1 2\r\n", Port),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 1 00\r\n", Port),
    ];
    for (text, fault) in cases {
        assert_eq!(parse(text.as_bytes()).map(|_| ()), Err(fault), "{text:?}");
    }
    let long = format!("PROXY UNKNOWN {:x<200}\r\n", "");
    assert_eq!(parse(long.as_bytes()).map(|_| ()), Err(TooLong));
    let one_too_long = format!("PROXY UNKNOWN {:x<92}\r\n", "");
    assert_eq!(parse(one_too_long.as_bytes()).map(|_| ()), Err(TooLong));
    assert_eq!(parse(b"PROXY TCP4 \xff.2.3.4 1.2.3.4 1 2\r\n").map(|_| ()), Err(Line));
    assert_eq!(parse(b"PROXY TCP4 1.2.3.4\0 1.2.3.4 1 2\r\n").map(|_| ()), Err(Address));
}

#[test]
fn binary_headers_are_read() {
    let v4 = ip("192.0.2.1:56324", "198.51.100.2:443");
    assert_eq!(said(&v2(0x21, 0x11, &V4)), v4);
    assert_eq!(said(&v2(0x21, 0x12, &V4)), v4);
    assert_eq!(said(&v2(0x21, 0x21, &v6())), ip("[2001:db8::1]:7", "[2001:db8::2]:65535"));
    assert_eq!(said(&v2(0x21, 0x31, &[7; 216])), Said::Unix);
    assert_eq!(said(&v2(0x21, 0x00, &[])), Said::Unknown);
    assert_eq!(said(&v2(0x21, 0x00, b"whatever")), Said::Unknown);
    assert_eq!(said(&v2(0x20, 0x00, &[])), Said::Local);
    // PP §2.2: of LOCAL everything else is skipped.
    assert_eq!(said(&v2(0x20, 0xff, b"whatever")), Said::Local);
    let bytes =
        [v2(0x21, 0x11, &[&V4[..], &[0xe0, 0, 2, b'h', b'i', 0x04, 0, 0]].concat()), b"GET /".to_vec()].concat();
    let header = parse(&bytes).unwrap().unwrap();
    assert_eq!(&bytes[header.length..], b"GET /");
    assert_eq!(header.tlvs.collect::<Vec<_>>(), [(0xe0, &b"hi"[..]), (NOOP, &[])]);
    assert_eq!(header.tlvs.to_pass_on().count(), 1);
}

#[test]
fn binary_headers_that_are_not_exactly_right_are_refused() {
    use HeaderFault::{Absent, Checksum, Command, Family, Short, TooLong, Value, Version};
    let cases: [(Vec<u8>, HeaderFault); 23] = [
        (b"\r\n\r\n\0\r\nQUIX".to_vec(), Absent),
        (b"\r\nGET / HTTP/1.1".to_vec(), Absent),
        (v2(0x11, 0x11, &V4), Version),
        (v2(0x31, 0x11, &V4), Version),
        (v2(0x01, 0x11, &V4), Version),
        (v2(0x22, 0x11, &V4), Command),
        (v2(0x2f, 0x11, &V4), Command),
        (v2(0x21, 0x41, &V4), Family),
        (v2(0x21, 0xf1, &V4), Family),
        (v2(0x21, 0x10, &V4), Family),
        (v2(0x21, 0x13, &V4), Family),
        (v2(0x21, 0x01, &V4), Family),
        (v2(0x21, 0x11, &V4[..11]), Short),
        (v2(0x21, 0x11, &[]), Short),
        (v2(0x21, 0x21, &V4), Short),
        (v2(0x21, 0x31, &[0; 215]), Short),
        (v2(0x21, 0x11, &[&V4[..], &[1]].concat()), Value),
        (v2(0x21, 0x11, &[&V4[..], &[1, 0]].concat()), Value),
        (v2(0x21, 0x11, &[&V4[..], &[1, 0, 2, 7]].concat()), Value),
        (v2(0x21, 0x11, &[&V4[..], &[1, 0xff, 0xff, 7]].concat()), Value),
        (v2(0x21, 0x11, &[&V4[..], &[3, 0, 4, 1, 2, 3, 4]].concat()), Checksum),
        (v2(0x21, 0x11, &[&V4[..], &[3, 0, 3, 1, 2, 3]].concat()), Checksum),
        (v2(0x21, 0x11, &vec![0; 60_000])[..16].to_vec(), TooLong),
    ];
    for (bytes, fault) in cases {
        assert_eq!(parse(&bytes).map(|_| ()), Err(fault), "{bytes:x?}");
    }
}

/// A header with a checksum somewhere in the middle of its values.
fn with_checksum() -> Vec<u8> {
    let mut header = v2(0x21, 0x11, &[&V4[..], &[1, 0, 2, b'h', b'2', 3, 0, 4, 0, 0, 0, 0, 2, 0, 1, b'x']].concat());
    let sum = !crc32c(!0, &header);
    header[36..40].copy_from_slice(&sum.to_be_bytes());
    header
}

#[test]
fn checksums_are_verified() {
    // The check value of the polynomial: CRC-32C of "123456789".
    assert_eq!(!crc32c(!0, b"123456789"), 0xe306_9283);
    let header = with_checksum();
    assert_eq!(parse(&header).unwrap().unwrap().tlvs.count(), 3);
    // All but the type of the checksum itself, without which there is none.
    for at in (16..header.len()).filter(|at| *at != 33) {
        let mut other = header.clone();
        other[at] ^= 1;
        assert!(parse(&other).is_err(), "byte {at}");
    }
}

#[test]
fn a_header_in_pieces_is_waited_for_and_never_taken_early() {
    let whole = [
        b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n".to_vec(),
        b"PROXY UNKNOWN\r\n".to_vec(),
        v2(0x21, 0x11, &V4),
        v2(0x20, 0x00, &[]),
        v2(0x21, 0x21, &[v6(), vec![0xe0, 0, 1, 7]].concat()),
        with_checksum(),
    ];
    for header in whole {
        for cut in 0..header.len() {
            assert!(matches!(parse(&header[..cut]), Ok(None)), "{cut} of {header:x?}");
        }
        let with_more = [&header[..], b"\r\n\r\nmore"].concat();
        assert_eq!(parse(&with_more).unwrap().unwrap().length, header.len());
        fuzz::header(&with_more);
    }
}

#[test]
fn what_is_written_is_read() {
    let ends = |source: &str, destination: &str| Endpoints {
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
    };
    let mut line = Vec::new();
    write_v1(Some(ends("192.0.2.1:1", "[::ffff:198.51.100.2]:443")), &mut line);
    assert_eq!(line, b"PROXY TCP4 192.0.2.1 198.51.100.2 1 443\r\n");
    line.clear();
    // A header has one family: the IPv4 end is written as IPv6.
    write_v1(Some(ends("192.0.2.1:1", "[2001:db8::1]:443")), &mut line);
    assert_eq!(line, b"PROXY TCP6 ::ffff:192.0.2.1 2001:db8::1 1 443\r\n");
    line.clear();
    write_v1(None, &mut line);
    assert_eq!(said(&line), Said::Unknown);

    let mut binary = Vec::new();
    let huge = vec![0; Limits::PROXY_HEADER_BYTES];
    let values = [(1, &b"h2"[..]), (0xe0, &huge), (2, b"shop.example")];
    write_v2(Some(ends("[2001:db8::1]:7", "[2001:db8::2]:65535")), values.into_iter(), &mut binary);
    let header = parse(&binary).unwrap().unwrap();
    assert_eq!(header.said, ip("[2001:db8::1]:7", "[2001:db8::2]:65535"));
    assert_eq!(header.tlvs.collect::<Vec<_>>(), [(1, &b"h2"[..]), (2, b"shop.example")]);
    binary.clear();
    write_v2(None, std::iter::empty(), &mut binary);
    assert_eq!(said(&binary), Said::Local);
}

/// The example of PP §2.2.6, byte by byte.
#[test]
fn what_is_known_of_tls_is_said_as_the_specification_has_it() {
    let certificate = Some(ClientCertificate { common_name: Some("example.com"), shown_now: true });
    let (version, cipher) = ("TLSv1.2", "ECDHE-RSA-AES128-GCM-SHA256");
    let tls = Tls { version, cipher, alpn: Some("h2"), authority: Some("t.example"), certificate };
    let ssl =
        [&[0x07, 0, 0, 0, 0, 0x21, 0, 7][..], b"TLSv1.2", &[0x22, 0, 11], b"example.com", &[0x23, 0, 27]].concat();
    let ssl = [&ssl, cipher.as_bytes()].concat();
    assert_eq!(tls.ssl(), ssl);
    let values = [(0x01, &b"h2"[..]), (0x02, b"t.example"), (0x20, &ssl)];
    assert!(tls.values(&ssl).eq(values));
    let ends = Endpoints { source: "192.0.2.1:1".parse().unwrap(), destination: "192.0.2.2:2".parse().unwrap() };
    let mut header = Vec::new();
    write_v2(Some(ends), tls.values(&ssl), &mut header);
    let read = parse(&header).unwrap().unwrap();
    assert!(read.length == header.len() && read.tlvs.eq(values));
    // The values within begin behind five bytes.
    let within = [(0x21, &b"TLSv1.2"[..]), (0x22, b"example.com"), (0x23, cipher.as_bytes())];
    assert_eq!(Tlvs::of(&ssl[5..]).collect::<Vec<_>>(), within);

    let taken_up = Tls { certificate: Some(ClientCertificate { common_name: None, shown_now: false }), ..tls };
    assert_eq!(taken_up.ssl()[..5], [0x05, 0, 0, 0, 0]);
    let none = Tls { certificate: None, alpn: None, authority: None, ..tls };
    let ssl = none.ssl();
    assert_eq!(ssl[..5], [0x01, 0, 0, 0, 1], "no certificate was verified");
    assert_eq!(none.values(&ssl).map(|(kind, _)| kind).collect::<Vec<_>>(), [0x20]);
    let long = "x".repeat(300);
    let certificate = Some(ClientCertificate { common_name: Some(&long), shown_now: true });
    assert_eq!(
        Tlvs::of(&Tls { certificate, ..tls }.ssl()[5..]).map(|(kind, _)| kind).collect::<Vec<_>>(),
        [0x21, 0x23]
    );
    assert!(
        [0x01, 0x02, 0x20].into_iter().all(tells_of_tls) && ![0x03, 0x05, 0x30, 0xe0].into_iter().any(tells_of_tls)
    );
}
