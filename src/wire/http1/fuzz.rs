//! What must hold for any bytes: entered by the fuzz targets and by the tests that replay their corpus.

use super::{ChunkedBody, Framing, Keep, request, response};
use crate::model::Limits;

/// A head is refused, wanted more of, or understood; understood, it is strictly valid.
///
/// # Panics
/// When the invariant is broken; that is its purpose.
pub fn head(bytes: &[u8]) {
    let limits = Limits::default();
    if let Ok(Some(head)) = request::parse(bytes, &limits) {
        assert!(head.raw.ends_with(b"\r\n"));
        assert!(super::is_token(head.method.as_bytes()));
        let mut hosts = 0;
        for (field, known) in head.lines() {
            assert!(super::is_token(field.name.as_bytes()), "{:?}", field.name);
            assert!(!field.value.iter().any(|byte| (*byte < 0x20 && *byte != b'\t') || *byte == 0x7f));
            assert!(!field.value.contains(&b'\n'));
            hosts += usize::from(known == super::Known::Host);
        }
        assert!(hosts == 1 || (hosts == 0 && head.version == request::Version::Http10));
        if head.websocket {
            assert!(matches!(head.body, Framing::None | Framing::Length(0)));
        }
    }
    for method in [response::Method::Head, response::Method::Other] {
        if let Ok(Some(head)) = response::parse(bytes, method, &limits) {
            assert!(!head.raw.is_empty() && (100..600).contains(&head.status));
        }
    }
}

/// However a body is cut into pieces, the same comes out; what comes out is clean, and cleaning it
/// again changes nothing.
///
/// # Panics
/// When the invariant is broken; that is its purpose.
pub fn chunked(bytes: &[u8]) {
    let step = usize::from(bytes.first().copied().unwrap_or(1)).max(1);
    let bytes = bytes.get(1..).unwrap_or_default();
    let whole = run(bytes, bytes.len().max(1), Keep::Framed);
    let pieces = run(bytes, step, Keep::Framed);
    if let (Some(whole), Some(pieces)) = (&whole, &pieces) {
        assert_eq!(whole, pieces);
    }
    if let Some((clean, _, true)) = &whole {
        assert_eq!(pieces.as_ref(), whole.as_ref());
        assert_eq!(run(clean, clean.len(), Keep::Framed), Some((clean.clone(), clean.len(), true)));
        let data = run(bytes, step, Keep::Data).map(|(data, _, _)| data.len());
        assert!(data.is_some_and(|length| length < clean.len()));
    }
}

/// What is passed on, the bytes used, and whether the body ended; `None` when it was refused.
fn run(bytes: &[u8], step: usize, keep: Keep) -> Option<(Vec<u8>, usize, bool)> {
    let limits = Limits::default();
    let mut body = ChunkedBody::new(keep);
    let (mut out, mut waiting, mut used) = (Vec::new(), Vec::new(), 0);
    for piece in bytes.chunks(step) {
        waiting.extend_from_slice(piece);
        let scanned = body.scan(&mut waiting, &limits).ok()?;
        assert!(scanned.kept <= scanned.taken && scanned.taken <= waiting.len());
        out.extend_from_slice(&waiting[..scanned.kept]);
        waiting.drain(..scanned.taken);
        used += scanned.taken;
        if scanned.done {
            return Some((out, used, true));
        }
    }
    Some((out, used, false))
}
