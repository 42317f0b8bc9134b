//! What must hold for any list of header fields from a client of HTTP/2: entered by the fuzz target and by
//! the test that replays its corpus.

use std::net::{IpAddr, Ipv4Addr};

use http::Request;
use http::request::Parts;

use super::forward::{self, Incoming};
use super::view::ListenerView;
use crate::model::Limits;
use crate::model::rule::PathPolicy;
use crate::route;
use crate::wire::http1;
use crate::wire::http1::request::{RequestHead, Target};
use crate::wire::http2::WEBSOCKET_KEY;
use crate::wire::http2::request::{self as wire, Around, Crumbs};

/// A list of fields is refused, or becomes one request of HTTP/1 that is strictly valid and says the same.
///
/// The bytes are lines: flags (`e` no body, `w` a WebSocket), method, authority, path, then `name:value`.
///
/// # Panics
/// When the invariant is broken; that is its purpose.
pub fn http2_request(bytes: &[u8]) {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let flags = lines.next().unwrap_or_default();
    let Some(parts) = parts(&mut lines) else { return };
    let around = Around {
        ends: flags.contains(&b'e'),
        protocol: flags.contains(&b'w').then_some("websocket"),
        key: WEBSOCKET_KEY,
    };
    let mut crumbs = Crumbs::new();
    let mut head = RequestHead::empty();
    if wire::read(&mut head, &parts, around, &mut crumbs, &Limits::default()).is_err() {
        return;
    }
    let Some(written) = written(&head) else { return };
    let limits = Limits { header_bytes: Limits::HEADER_BYTES_CEILING, target_bytes: 64 << 10, ..Limits::default() };
    let Some(again) = http1::request::parse(&written, &limits).expect("what is written is strictly valid") else {
        panic!("what is written is not whole");
    };
    assert_eq!(again.raw.len(), written.len(), "one request, and nothing behind it");
    assert_eq!((again.method, again.body, again.websocket), (head.method, head.body, head.websocket));
    assert_eq!(again.authority.map(|authority| authority.text), head.authority.map(|authority| authority.text));
    assert_eq!(again.query(), head.query());
    assert_eq!(again.takes_trailers, head.takes_trailers && !head.websocket);
    let cookies = |head: &RequestHead<'_>| head.fields.iter().filter(|field| field.is("cookie")).count();
    assert!(cookies(&again) <= 1, "crumbs are joined");
}

fn parts<'b>(lines: &mut impl Iterator<Item = &'b [u8]>) -> Option<Parts> {
    let (method, authority, path) = (lines.next()?, lines.next()?, lines.next()?);
    // As the h2 crate builds it.
    let mut target = http::uri::Parts::default();
    if !authority.is_empty() {
        target.authority = Some(http::uri::Authority::try_from(authority).ok()?);
        target.scheme = Some(http::uri::Scheme::HTTP);
    }
    target.path_and_query = Some(http::uri::PathAndQuery::try_from(path).ok()?);
    let mut request = Request::builder().method(method).uri(http::Uri::from_parts(target).ok()?);
    for line in lines {
        let colon = line.iter().skip(1).position(|byte| *byte == b':').map(|at| at + 1)?;
        request = request.header(&line[..colon], &line[colon + 1..]);
    }
    request.body(()).ok().map(|request| request.into_parts().0)
}

/// What a server is sent; `None` where the path is not let through.
fn written(head: &RequestHead<'_>) -> Option<Vec<u8>> {
    let (raw, query) = match head.target {
        Target::Path { path, query } => (path, query.unwrap_or_default()),
        Target::Asterisk => ("*", ""),
    };
    let mut scratch = String::new();
    let path = route::path::normalise(raw, PathPolicy::default(), &mut scratch).ok()?;
    // A few of our own are added; the parser's table has an end.
    if head.fields.len() + 16 > Limits::HEADER_COUNT_CEILING {
        return None;
    }
    let listener = ListenerView::plain("fuzz");
    let peer = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let routed = route::Head {
        method: head.method,
        host: "",
        path,
        query,
        fields: &head.fields,
        source: peer,
        listener: "fuzz",
        sni: None,
        alpn: &[],
        certificate: None,
        no_tls: false,
        body: route::Body::Empty,
    };
    let mut out = Vec::new();
    let host_at = forward::write(
        &Incoming { listener: &listener, peer, tls: None, head, routed, edit: None, hides_who: false },
        None,
        None,
        &mut out,
    );
    assert!(host_at.is_none(), "a request of HTTP/2 has a host");
    Some(out)
}
