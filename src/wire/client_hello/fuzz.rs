//! What must hold for any bytes: entered by the fuzz target and by the test that replays its corpus.

use super::{ClientHello, parse};

/// A hello is refused, wanted more of, or understood; understood, no beginning of it was refused, and
/// cut into records in another way it says the same.
///
/// # Panics
/// When the invariant is broken; that is its purpose.
pub fn hello(bytes: &[u8]) {
    let mut joined = Vec::new();
    let Ok(Some(hello)) = parse(bytes, &mut joined) else { return };
    assert!(hello.sni.is_none_or(|name| !name.is_empty() && name.is_ascii()));
    assert!(hello.alpn.clone().all(|name| !name.is_empty()) && hello.session_id.len() <= 32);
    assert!(hello.identities.clone().all(|identity| !identity.is_empty()));
    let mut room = Vec::new();
    let end = (0..=bytes.len()).find(|end| !matches!(parse(&bytes[..*end], &mut room), Ok(None)));
    // The shortest beginning that is not waited for any more is the hello itself.
    let end = end.expect("all of it is one");
    let whole = parse(&bytes[..end], &mut room).expect("its beginnings were not refused").expect("it is whole");
    assert!(same(&whole, &hello));
    for step in [1, 5, 1000] {
        let pieces = in_records(&bytes[..end], step);
        if pieces.len() <= crate::model::Limits::HELLO_BYTES {
            let mut room = Vec::new();
            let again = parse(&pieces, &mut room).expect("records do not matter").expect("it is whole");
            assert!(same(&again, &hello), "in records of {step}");
        }
    }
}

fn same(one: &ClientHello<'_>, other: &ClientHello<'_>) -> bool {
    one == other
}

/// The same message in records of at most `step` bytes.
pub fn in_records(bytes: &[u8], step: usize) -> Vec<u8> {
    let (mut message, mut rest) = (Vec::new(), bytes);
    while let Some((head, behind)) = rest.split_at_checked(5) {
        let length = usize::from(u16::from_be_bytes([head[3], head[4]])).min(behind.len());
        message.extend_from_slice(&behind[..length]);
        rest = &behind[length..];
    }
    let record = |piece: &[u8]| [&[22, 3, 1], &(piece.len() as u16).to_be_bytes()[..], piece].concat();
    message.chunks(step.clamp(1, super::FRAGMENT)).flat_map(record).collect()
}
