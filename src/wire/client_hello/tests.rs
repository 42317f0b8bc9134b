use super::*;

/// A value with its length of so many bytes before it.
fn sized(bytes: usize, value: &[u8]) -> Vec<u8> {
    [&(value.len() as u32).to_be_bytes()[4 - bytes..], value].concat()
}

fn extension(kind: u16, value: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &sized(2, value)].concat()
}

fn body(extensions: &[u8]) -> Vec<u8> {
    [
        &[3, 3][..],
        &[7; 32],
        &sized(1, &[9; 32]),
        &sized(2, &[0x13, 0x01, 0x0a, 0x0a]),
        &sized(1, &[0]),
        &sized(2, extensions),
    ]
    .concat()
}

fn wrapped(body: &[u8]) -> Vec<u8> {
    let message = [&[CLIENT_HELLO][..], &sized(3, body)].concat();
    [&[HANDSHAKE, 3, 1][..], &sized(2, &message)].concat()
}

fn hello_with(extensions: &[u8]) -> Vec<u8> {
    wrapped(&body(extensions))
}

fn name(name: &[u8]) -> Vec<u8> {
    extension(0, &sized(2, &[&[0][..], &sized(2, name)].concat()))
}

fn protocols(names: &[&[u8]]) -> Vec<u8> {
    extension(16, &sized(2, &names.iter().flat_map(|name| sized(1, name)).collect::<Vec<_>>()))
}

fn keys(identities: &[&[u8]], binders: usize) -> Vec<u8> {
    let identities: Vec<u8> = identities.iter().flat_map(|one| [sized(2, one), vec![0; 4]].concat()).collect();
    let binders: Vec<u8> = (0..binders).flat_map(|_| sized(1, &[5; 32])).collect();
    extension(41, &[sized(2, &identities), sized(2, &binders)].concat())
}

/// What a browser sends today: GREASE everywhere, and a post-quantum key share of 1,216 bytes.
fn browser() -> Vec<u8> {
    let shares = [&[0x11, 0xec][..], &sized(2, &[3; 1216]), &[0, 0x1d], &sized(2, &[4; 32])].concat();
    let all = [
        extension(0x2a2a, &[]),
        name(b"Shop.Example"),
        extension(51, &sized(2, &shares)),
        extension(43, &sized(1, &[0xda, 0xda, 3, 4, 3, 3])),
        protocols(&[b"\x0a\x0a", b"h2", b"http/1.1"]),
        extension(35, &[]),
        extension(0xdada, &[0]),
        keys(&[&[1; 208], b"second"], 2),
    ];
    hello_with(&all.concat())
}

fn fault(bytes: &[u8]) -> HelloFault {
    match parse(bytes, &mut Vec::new()) {
        Err(fault) => fault,
        other => panic!("{other:?}"),
    }
}

#[test]
fn everything_that_is_asked_for_is_found() {
    let (bytes, mut room) = (browser(), Vec::new());
    let hello = parse(&bytes, &mut room).unwrap().unwrap();
    assert_eq!((hello.legacy_version, hello.session_id, hello.sni), (0x0303, &[9; 32][..], Some("Shop.Example")));
    assert_eq!(hello.alpn.collect::<Vec<_>>(), [&b"\x0a\x0a"[..], b"h2", b"http/1.1"]);
    assert_eq!(hello.versions.collect::<Vec<_>>(), [0xdada, 0x0304, 0x0303]);
    assert_eq!(hello.ticket, Some(&[][..]));
    assert_eq!(hello.identities.collect::<Vec<_>>(), [&[1; 208][..], b"second"]);
}

#[test]
fn old_clients_say_less() {
    let (bytes, mut room) = (wrapped(&body(&[])[..body(&[]).len() - 2]), Vec::new());
    let hello = parse(&bytes, &mut room).unwrap().unwrap();
    assert_eq!((hello.sni, hello.ticket), (None, None));
    assert_eq!((hello.alpn.count(), hello.versions.count(), hello.identities.count()), (0, 0, 0));
    // TLS 1.2 with a ticket.
    let bytes = hello_with(&extension(35, &[8; 192]));
    assert_eq!(parse(&bytes, &mut Vec::new()).unwrap().unwrap().ticket, Some(&[8; 192][..]));
}

#[test]
fn a_hello_in_pieces_is_waited_for_and_never_taken_early() {
    for step in [1, 3, 100, 700, FRAGMENT] {
        let bytes = fuzz::in_records(&browser(), step);
        let mut room = Vec::new();
        for end in 0..bytes.len() {
            assert_eq!(parse(&bytes[..end], &mut room), Ok(None), "{end} of records of {step}");
        }
        assert_eq!(parse(&bytes, &mut room).unwrap().unwrap().sni, Some("Shop.Example"));
        // What follows in records of its own, early data for example, is another matter.
        let more = [&bytes[..], &[23, 3, 3, 0, 1, 0]].concat();
        assert_eq!(parse(&more, &mut room).unwrap().unwrap().sni, Some("Shop.Example"));
    }
    fuzz::hello(&browser());
}

#[test]
fn names_are_names() {
    for (sent, seen) in [("a", "a"), ("a.example.", "a.example"), ("10.0.0.1", "10.0.0.1"), ("_x.a-b", "_x.a-b")] {
        let bytes = hello_with(&name(sent.as_bytes()));
        assert_eq!(parse(&bytes, &mut Vec::new()).unwrap().unwrap().sni, Some(seen));
    }
    let long = [b'a'; 255];
    for bad in [&b""[..], b".", b"a..b", b".a", b"a b", b"a\0b", b"\xc3\xbc.example", b"a/b", b"[::1]", &long] {
        assert_eq!(fault(&hello_with(&name(bad))), HelloFault::Name, "{bad:?}");
    }
    // A name of an unknown kind is passed over, a second one of a known kind is not.
    let list = |entries: &[(u8, &[u8])]| {
        let entries: Vec<u8> = entries.iter().flat_map(|(kind, name)| [vec![*kind], sized(2, name)].concat()).collect();
        hello_with(&extension(0, &sized(2, &entries)))
    };
    assert_eq!(parse(&list(&[(9, b"x"), (0, b"a")]), &mut Vec::new()).unwrap().unwrap().sni, Some("a"));
    assert_eq!(fault(&list(&[(0, b"a"), (0, b"b")])), HelloFault::Twice);
    assert_eq!(fault(&list(&[])), HelloFault::Length);
}

#[test]
fn what_is_not_exactly_right_is_refused() {
    use HelloFault::{Length, Message, Order, Record, TooLong, Twice};
    let good = browser();
    let other = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    let keys_first = [keys(&[b"x"], 1), name(b"a")].concat();
    let plain = body(&name(b"a"));
    let cases: [(Vec<u8>, HelloFault); 27] = [
        (b"GET / HTTP/1.1".to_vec(), Record),
        (other(0, 23), Record),
        (other(1, 2), Record),
        (other(5, 2), Message),
        (other(9, 2), Message),
        (vec![HANDSHAKE, 3, 1, 0, 0], Length),
        (vec![HANDSHAKE, 3, 1, 0x40, 1], Length),
        ([&[HANDSHAKE, 3, 1, 0, 4][..], &[1, 0, 0x40, 1]].concat(), TooLong),
        ([&[HANDSHAKE, 3, 1, 0, 1][..], &[1], &[23, 3, 3, 0, 1, 0]].concat(), Record),
        (wrapped(&plain[..plain.len() - 1]), Length),
        (wrapped(&[&plain[..], &[0]].concat()), Length),
        (wrapped(&plain[..34]), Length),
        (wrapped(&[&[3, 3][..], &[7; 32], &sized(1, &[9; 33]), &sized(2, &[0, 1]), &sized(1, &[0])].concat()), Length),
        (wrapped(&[&[3, 3][..], &[7; 32], &[0], &sized(2, &[]), &sized(1, &[0])].concat()), Length),
        (wrapped(&[&[3, 3][..], &[7; 32], &[0], &sized(2, &[1]), &sized(1, &[0])].concat()), Length),
        (wrapped(&[&[3, 3][..], &[7; 32], &[0], &sized(2, &[0, 1]), &sized(1, &[])].concat()), Length),
        (hello_with(&[0, 16, 0, 9, 0]), Length),
        (hello_with(&extension(16, &sized(2, &[]))), Length),
        (hello_with(&extension(16, &sized(2, &[0]))), Length),
        (hello_with(&extension(16, &sized(2, &[3, b'h', b'2']))), Length),
        (hello_with(&extension(43, &sized(1, &[3]))), Length),
        (hello_with(&extension(0, &[])), Length),
        (hello_with(&[name(b"a"), name(b"a")].concat()), Twice),
        (hello_with(&[protocols(&[b"h2"]), protocols(&[b"h2"])].concat()), Twice),
        (hello_with(&keys_first), Order),
        (hello_with(&keys(&[b"x"], 2)), Length),
        (hello_with(&keys(&[], 0)), Length),
    ];
    for (bytes, expected) in cases {
        assert_eq!(fault(&bytes), expected, "{bytes:x?}");
    }
    // Another message in the same record.
    let mut two = good.clone();
    two.push(1);
    let length = (two.len() as u16 - 5).to_be_bytes();
    two[3..5].copy_from_slice(&length);
    assert_eq!(fault(&two), Length);
    // One that never ends.
    let endless = fuzz::in_records(&hello_with(&extension(21, &[0; 15_000])), 1);
    assert_eq!(fault(&endless[..Limits::HELLO_BYTES]), TooLong);
}
