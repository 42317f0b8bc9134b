//! The head a server receives, written anew from what was understood.
//!
//! Hop-by-hop fields and those that Connection names end here (RFC 9110 §7.6.1); framing, forwarding
//! and Via are ours. What a server gets is always strictly valid.

use std::io::Write;
use std::net::IpAddr;

use super::view::ListenerView;
use crate::affinity::cookie::Edit;
use crate::model::rule::AuthUrl;
use crate::route::{self, Auth, Change};
use crate::tls::Peer;
use crate::wire::field::Field;
use crate::wire::http1::request::{RequestHead, Version};
use crate::wire::http1::{Framing, Known, lines};

/// A request whose section is known.
#[derive(Debug)]
pub struct Incoming<'a, 'h> {
    pub listener: &'a ListenerView,
    pub peer: IpAddr,
    pub tls: Option<&'a Peer>,
    pub head: &'a RequestHead<'h>,
    /// What the rules see; its path is the one that is forwarded.
    pub routed: route::Head<'a>,
    /// What is done to its cookies.
    pub edit: Option<Edit<'a>>,
    /// What clients say of who they are ([`tells_who`]) is passed on to nobody.
    pub hides_who: bool,
}

/// Appends the head to `out`; `target` is the path and query that a rule has put in the place of the client's. Returns where the server's own address has to be put in, when the client
/// named no host.
pub fn write(
    incoming: &Incoming<'_, '_>,
    rule: Option<&route::Rule>,
    target: Option<&[u8]>,
    out: &mut Vec<u8>,
) -> Option<usize> {
    let head = incoming.head;
    out.extend_from_slice(head.method.as_bytes());
    out.push(b' ');
    match target {
        Some(target) => out.extend_from_slice(target),
        None => {
            out.extend_from_slice(incoming.routed.path.as_bytes());
            if let Some(query) = head.query() {
                out.push(b'?');
                out.extend_from_slice(query.as_bytes());
            }
        }
    }
    out.extend_from_slice(b" HTTP/1.1\r\nHost: ");
    let changes = rule.map(route::Rule::changes).unwrap_or_default();
    let host_at = match head.authority {
        Some(authority) => {
            out.extend_from_slice(authority.text.as_bytes());
            None
        }
        None => Some(out.len()),
    };
    out.extend_from_slice(b"\r\n");
    let trusted = incoming.listener.trusts(incoming.peer);
    let auth = rule.and_then(route::Rule::refined).and_then(|refined| refined.auth.as_ref());
    // A password is for us; of a service we know neither what it looks at nor what it leaves to the server.
    let hides_password = matches!(auth, Some(Auth::Basic(_)));
    // Nearly always the meaning of a field is all that has to be looked at.
    let by_name = incoming.hides_who || hides_password || !changes.is_empty() || !head.nominated.is_empty();
    let kept = || {
        let lines = head.lines().filter(|(field, known)| {
            passes(*known, trusted, head)
                && (!by_name
                    || keeps(field, *known, head, changes)
                        && !(incoming.hides_who && tells_who(field.name))
                        && !(hides_password && field.is("authorization")))
        });
        lines.map(|(field, _)| field)
    };
    match incoming.edit {
        None => lines::copy(head.raw, kept(), out),
        Some(edit) => {
            let edited = |field: &Field<'_>| field.is("cookie") && edit.touches(field.value);
            lines::copy(head.raw, kept().filter(|field| !edited(field)), out);
            kept().filter(|field| edited(field)).for_each(|field| edit.write(field.value, out));
        }
    }
    for change in changes {
        if let Change::Set { name, value } = change {
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b": ");
            if let Some(rule) = rule {
                route::expand(value, rule, &incoming.routed, false, out);
            }
            out.extend_from_slice(b"\r\n");
        }
    }
    own_fields(incoming, trusted, out);
    out.extend_from_slice(b"\r\n");
    host_at
}

/// Whether a client's field of this meaning is passed on as it came, where nothing is said against its name.
#[inline]
fn passes(known: Known, trusted: bool, head: &RequestHead<'_>) -> bool {
    match known {
        Known::Other
        | Known::Accept
        | Known::Date
        | Known::WebSocketKey
        | Known::WebSocketVersion
        | Known::Via
        | Known::RequestId => true,
        // Appended to for a trusted peer, replaced for all others.
        Known::Forwarded | Known::XForwardedProto | Known::XForwardedHost => trusted,
        Known::MaxForwards => head.max_forwards.is_none(),
        _ => false,
    }
}

/// Whether neither Connection nor the rule names the field.
fn keeps(field: &Field<'_>, known: Known, head: &RequestHead<'_>, changes: &[Change]) -> bool {
    if !head.nominated.is_empty()
        && known.can_be_nominated()
        && head.nominated.iter().any(|name| name.eq_ignore_ascii_case(field.name.as_bytes()))
    {
        return false;
    }
    !changes.iter().any(|change| match change {
        Change::Set { name, .. } | Change::Remove { name } => field.is(name),
    })
}

/// Whether a field is one of those by which servers are told who somebody is: `X-Auth-...`. Behind CGI and its kin nobody
/// can tell `_` from `-`.
pub fn tells_who(name: &str) -> bool {
    begins(name, b"x-auth-")
}

fn begins(name: &str, start: &[u8]) -> bool {
    let own = name.as_bytes().get(..start.len()).unwrap_or_default();
    own.len() == start.len()
        && own.iter().zip(start).all(|(own, start)| own.eq_ignore_ascii_case(start) || (*own, *start) == (b'_', b'-'))
}

/// Appends the head of the question whether a request may pass: a GET with its end-to-end fields, without what is about its body
/// or makes it conditional, and with its method and target beside.
pub fn write_question(incoming: &Incoming<'_, '_>, url: &AuthUrl, out: &mut Vec<u8>) {
    let head = incoming.head;
    for part in ["GET ", &url.target, " HTTP/1.1\r\nHost: ", &url.authority, "\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    let trusted = incoming.listener.trusts(incoming.peer);
    // Ours, and of these nobody else's is believed.
    let ours = ["x-original-", "x-forwarded-method", "x-forwarded-uri", "x-auth-"];
    let apart = ["content-", "if-", "range"];
    let kept = head.lines().filter(|(field, known)| {
        passes(*known, trusted, head)
            && keeps(field, *known, head, &[])
            && !matches!(known, Known::WebSocketKey | Known::WebSocketVersion)
            && !ours.iter().chain(&apart).any(|start| begins(field.name, start.as_bytes()))
    });
    lines::copy(head.raw, kept.map(|(field, _)| field), out);
    lines::write("X-Forwarded-Method", head.method.as_bytes(), out);
    for name in ["X-Forwarded-Uri", "X-Original-URI"] {
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(incoming.routed.path.as_bytes());
        if let Some(query) = head.query() {
            out.push(b'?');
            out.extend_from_slice(query.as_bytes());
        }
        out.extend_from_slice(b"\r\n");
    }
    forwarding(incoming, trusted, out);
    out.extend_from_slice(b"\r\n");
}

fn own_fields(incoming: &Incoming<'_, '_>, trusted: bool, out: &mut Vec<u8>) {
    let head = incoming.head;
    let mut number = itoa::Buffer::new();
    match head.body {
        Framing::Length(length) => lines::write("Content-Length", number.format(length).as_bytes(), out),
        Framing::Chunked => lines::write("Transfer-Encoding", b"chunked", out),
        Framing::None | Framing::UntilClose => {}
    }
    if head.expects_continue {
        lines::write("Expect", b"100-continue", out);
    }
    if let Some(count) = head.max_forwards {
        lines::write("Max-Forwards", number.format(count.saturating_sub(1)).as_bytes(), out);
    }
    if head.websocket {
        out.extend_from_slice(b"Connection: Upgrade\r\nUpgrade: websocket\r\n");
    } else if head.takes_trailers {
        out.extend_from_slice(b"Connection: TE\r\nTE: trailers\r\n");
    }
    // RFC 9110 §7.6.3: the version in which the message was received.
    out.extend_from_slice(match head.version {
        Version::Http11 => b"Via: 1.1 reeve\r\n",
        Version::Http10 => b"Via: 1.0 reeve\r\n",
        Version::Http2 => b"Via: 2.0 reeve\r\n",
    });
    forwarding(incoming, trusted, out);
}

/// Who asked, how and for what: X-Forwarded-* always, `Forwarded` (RFC 7239) by option.
fn forwarding(incoming: &Incoming<'_, '_>, trusted: bool, out: &mut Vec<u8>) {
    let head = incoming.head;
    let has = |wanted: Known| trusted && head.known.contains(&wanted);
    out.extend_from_slice(b"X-Forwarded-For: ");
    if trusted {
        for (field, _) in head.lines().filter(|(_, known)| *known == Known::XForwardedFor) {
            out.extend_from_slice(field.value);
            out.extend_from_slice(b", ");
        }
    }
    address(incoming.peer, out);
    if !has(Known::XForwardedProto) {
        out.extend_from_slice(b"\r\nX-Forwarded-Proto: ");
        out.extend_from_slice(scheme(incoming));
    }
    if let Some(authority) = head.authority.filter(|_| !has(Known::XForwardedHost)) {
        out.extend_from_slice(b"\r\nX-Forwarded-Host: ");
        out.extend_from_slice(authority.text.as_bytes());
    }
    if incoming.listener.forwarded {
        out.extend_from_slice(b"\r\nForwarded: for=");
        match incoming.peer {
            IpAddr::V4(_) => address(incoming.peer, out),
            IpAddr::V6(_) => {
                out.extend_from_slice(b"\"[");
                address(incoming.peer, out);
                out.extend_from_slice(b"]\"");
            }
        }
        if let Some(authority) = head.authority {
            out.extend_from_slice(b";host=\"");
            out.extend_from_slice(authority.text.as_bytes());
            out.push(b'"');
        }
        out.extend_from_slice(b";proto=");
        out.extend_from_slice(scheme(incoming));
    }
    out.extend_from_slice(b"\r\n");
    if let Some(certificate) = incoming.tls.and_then(|tls| tls.certificate.as_ref()) {
        // No client's own field of these names comes this far, and no text of a certificate ends a line.
        lines::write("X-Client-Cert-Subject", certificate.subject.as_bytes(), out);
        lines::write("X-Client-Cert-Fingerprint", certificate.fingerprint.as_bytes(), out);
        lines::write("X-Client-Cert-Verified", b"SUCCESS", out);
    }
}

fn scheme(incoming: &Incoming<'_, '_>) -> &'static [u8] {
    if incoming.tls.is_some() { b"https" } else { b"http" }
}

/// An address as text; IPv4 without the formatting machinery, for it stands in every request.
fn address(address: IpAddr, out: &mut Vec<u8>) {
    match address {
        IpAddr::V4(address) => {
            let mut number = itoa::Buffer::new();
            for (n, octet) in address.octets().into_iter().enumerate() {
                if n > 0 {
                    out.push(b'.');
                }
                out.extend_from_slice(number.format(octet).as_bytes());
            }
        }
        // Writing to a vector cannot fail.
        IpAddr::V6(address) => drop(write!(out, "{address}")),
    }
}
