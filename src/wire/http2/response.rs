//! An answer of HTTP/2 as the head that everything behind it knows, and a request's head for a server that
//! speaks HTTP/2.

use std::mem::MaybeUninit;

use http::response::Parts;
use http::{HeaderName, HeaderValue, Method, Request, uri};
use smallvec::SmallVec;

use crate::model::Limits;
use crate::wire::field::Field;
use crate::wire::http1::known::{Known, known};
use crate::wire::http1::{Framing, ResponseFault, ResponseHead};

/// Makes a head of an answer's fields. `ends`: no body follows.
///
/// # Errors
/// When it could be understood in more than one way, or is too large.
pub fn head<'a>(parts: &'a Parts, ends: bool, limits: &Limits) -> Result<ResponseHead<'a>, ResponseFault> {
    let status = parts.status.as_u16();
    let mut head = ResponseHead {
        // RFC 9113 §8.6: there is no 101, and no reason phrase.
        status: Some(status)
            .filter(|status| (100..600).contains(status) && *status != 101)
            .ok_or(ResponseFault::Status)?,
        reason: parts.status.canonical_reason().unwrap_or(""),
        fields: SmallVec::new(),
        known: SmallVec::new(),
        body: Framing::None,
        length: None,
        chunked: false,
        keep_alive: true,
        websocket: false,
        dated: false,
        nominated: SmallVec::new(),
        raw: b"",
    };
    let mut bytes = 0;
    for (name, value) in &parts.headers {
        let field = Field { name: name.as_str(), value: value.as_bytes().trim_ascii() };
        bytes += field.name.len() + field.value.len() + 4;
        let known = known(field.name);
        match known {
            Known::ContentLength => {
                let length =
                    std::str::from_utf8(field.value).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
                let length = length.and_then(|text| text.parse().ok()).filter(|length| *length <= i64::MAX as u64);
                let length = length.ok_or(ResponseFault::ContentLength)?;
                if head.length.is_some_and(|before| before != length) {
                    return Err(ResponseFault::ContentLength);
                }
                head.length = Some(length);
            }
            Known::Date => head.dated = true,
            _ => {}
        }
        head.fields.push(field);
        head.known.push(known);
    }
    if bytes > limits.header_bytes || head.fields.len() > Limits::HEADER_COUNT_CEILING {
        return Err(ResponseFault::TooLarge);
    }
    head.body = match head.length {
        // RFC 9110 §6.4.1: what ends the stream of a 204 or 304 comes in a frame of its own from many servers, and is no body.
        _ if ends || status < 200 || matches!(status, 204 | 304) => Framing::None,
        Some(length) => Framing::Length(length),
        // As in chunks: its length shows at its end.
        None => Framing::Chunked,
    };
    head.chunked = head.body == Framing::Chunked;
    Ok(head)
}

/// A head that was written for a server of HTTP/1, for one of HTTP/2: of what we write ourselves, only the
/// connection's fields have no place there (RFC 9113 §8.2.2). `tls`: the server is spoken to by TLS; some take no other
/// scheme than that of their connection.
pub fn request_of_text(text: &[u8], tls: bool) -> Option<Request<()>> {
    let mut table = [const { MaybeUninit::uninit() }; Limits::HEADER_COUNT_CEILING + 64];
    let mut raw = httparse::Request::new(&mut []);
    raw.parse_with_uninit_headers(text, &mut table).ok().filter(httparse::Status::is_complete)?;
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(raw.method?.as_bytes()).ok()?;
    let mut target = uri::Parts::default();
    target.scheme = Some(if tls { uri::Scheme::HTTPS } else { uri::Scheme::HTTP });
    target.path_and_query = Some(raw.path?.parse().ok()?);
    let fields = request.headers_mut();
    fields.reserve(raw.headers.len());
    for line in raw.headers.iter() {
        match known(line.name) {
            Known::Host => target.authority = Some(std::str::from_utf8(line.value).ok()?.parse().ok()?),
            Known::Connection | Known::TransferEncoding | Known::HopByHop | Known::Upgrade => {}
            Known::WebSocketKey | Known::WebSocketVersion => {}
            _ => {
                let name = HeaderName::from_bytes(line.name.as_bytes()).ok()?;
                let mut value = HeaderValue::from_bytes(line.value).ok()?;
                value.set_sensitive(!super::is_steady(&name));
                fields.append(name, value);
            }
        }
    }
    *request.uri_mut() = http::Uri::from_parts(target).ok()?;
    Some(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_keeps_all_but_its_connections_fields() {
        let text = b"POST /a?b HTTP/1.1\r\nHost: t.example:80\r\nX: y\r\nTransfer-Encoding: chunked\r\n\
            Connection: TE\r\nTE: trailers\r\nVia: 1.1 reeve\r\n\r\n";
        let request = request_of_text(text, false).unwrap();
        assert_eq!(
            (request.method().as_str(), request.uri().to_string().as_str()),
            ("POST", "http://t.example:80/a?b")
        );
        let mut names: Vec<_> = request.headers().keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["te", "via", "x"]);
        assert!(request_of_text(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", false).is_some());
        assert_eq!(request_of_text(text, true).unwrap().uri().scheme_str(), Some("https"));
    }

    #[test]
    fn answers() {
        let parts = |status: u16, fields: &[(&str, &str)]| {
            let mut response = http::Response::builder().status(status);
            for (name, value) in fields {
                response = response.header(*name, *value);
            }
            response.body(()).unwrap().into_parts().0
        };
        let limits = Limits::default();
        let body = |parts: &Parts, ends| head(parts, ends, &limits).map(|head| (head.body, head.chunked));
        assert_eq!(body(&parts(200, &[("content-length", "5")]), false), Ok((Framing::Length(5), false)));
        assert_eq!(body(&parts(200, &[]), false), Ok((Framing::Chunked, true)));
        assert_eq!(body(&parts(200, &[("content-length", "5")]), true), Ok((Framing::None, false)));
        assert_eq!(body(&parts(103, &[]), false), Ok((Framing::None, false)));
        assert_eq!(body(&parts(204, &[("content-length", "5")]), false), Ok((Framing::None, false)));
        assert_eq!(body(&parts(304, &[]), false), Ok((Framing::None, false)));
        assert_eq!(body(&parts(101, &[]), false), Err(ResponseFault::Status));
        assert_eq!(body(&parts(999, &[]), false), Err(ResponseFault::Status));
        let two = [("content-length", "5"), ("content-length", "6")];
        assert_eq!(body(&parts(200, &two), false), Err(ResponseFault::ContentLength));
        assert_eq!(body(&parts(200, &[("content-length", "5x")]), false), Err(ResponseFault::ContentLength));
    }
}
