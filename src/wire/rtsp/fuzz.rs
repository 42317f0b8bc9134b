//! What must hold for any bytes: entered by the fuzz targets and by the test that replays their corpus.

use super::framer::{Framer, Item};
use super::message::{self, Start};
use super::{rtcp, sdp, session, transport, uri};
use crate::model::Limits;

/// Bytes of a connection are cut into the same items whether they come at once or in pieces (the first byte says
/// how large), and a head that is taken says the same when it is written and read again.
///
/// # Panics
/// When that does not hold; that is its purpose.
pub fn messages(data: &[u8]) {
    let Some((piece, data)) = data.split_first() else { return };
    assert_eq!(cut(data, data.len().max(1)), cut(data, usize::from(*piece).max(1)), "whole and in pieces");
    let limits = Limits::default();
    // Nothing else is ever parsed.
    let Item::Head(bytes) = Framer::default().next(data, |_, _| {}) else { return };
    let Ok(head) = message::parse(&data[..bytes], &limits) else { return };
    let mut out = Vec::new();
    message::write_start(&head, &mut out);
    head.fields.iter().for_each(|field| message::write_field(field.name, field.value, &mut out));
    out.extend_from_slice(b"\r\n");
    assert_eq!(Framer::default().next(&out, |_, _| {}), Item::Head(out.len()), "one message");
    let again = message::parse(&out, &limits).expect("what is written is valid");
    // What would end a line is a blank in the phrase that is written.
    let told = |start| match start {
        Start::Answer { status, .. } => Err(status),
        Start::Request { method, uri } => Ok((method, uri)),
    };
    assert_eq!(told(again.start), told(head.start));
    assert_eq!((again.version, again.cseq, again.body), (head.version, head.cseq, head.body));
    assert_eq!(again.fields.len(), head.fields.len());
    if let Start::Request { uri: text, .. } = head.start
        && let Some(uri) = uri::parse(text)
    {
        assert!(uri.path.starts_with('/') && text.contains(uri.authority));
        let presentation = uri::presentation(uri.path);
        assert!(uri::is_within(uri.path, presentation) || uri.path.starts_with("//"), "{text}");
    }
    for value in head.values("session") {
        assert!(session::parse(value).is_none_or(|session| !session.id.is_empty()));
    }
}

/// Heads, and how many bytes of media and of anything else there were.
fn cut(data: &[u8], piece: usize) -> (Vec<Vec<u8>>, usize, bool) {
    let (mut framer, mut heads, mut media, mut buffer) = (Framer::default(), Vec::new(), 0, Vec::new());
    for part in data.chunks(piece) {
        buffer.extend_from_slice(part);
        loop {
            let taken = match framer.next(&buffer, |_, frame| rtcp::reports(frame, |_| {})) {
                Item::More => break,
                Item::Garbage => return (heads, media, true),
                Item::Empty(bytes) => bytes,
                Item::Media { bytes, .. } => {
                    media += bytes;
                    bytes
                }
                Item::Head(bytes) => {
                    heads.push(buffer[..bytes].to_vec());
                    bytes
                }
            };
            assert!(0 < taken && taken <= buffer.len());
            buffer.drain(..taken);
        }
    }
    (heads, media, false)
}

/// Text that may be a Transport field, and behind its first line a description.
///
/// # Panics
/// When what is written of it does not say the same.
pub fn transport(data: &[u8]) {
    let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let (line, body) = data.split_at(end);
    sdp::bandwidth(body);
    if let Some(new) = sdp::with_controls(body, |url| Some(url.to_owned())) {
        assert_eq!(new, body, "nothing else is touched");
    }
    let Ok(line) = std::str::from_utf8(line) else { return };
    for spec in transport::parse(line) {
        let mut out = String::new();
        spec.write(&[], &[], &mut out);
        let again = transport::parse(&out);
        if !out.is_empty() && !spec.protocol.is_empty() {
            let first = again.first().expect("what is written is a way");
            assert_eq!((first.protocol, first.params.as_slice()), (spec.protocol, spec.params.as_slice()), "{line:?}");
        }
        spec.ports("client_port").map(transport::Pair::text);
        spec.lower();
    }
}
