//! Answers of our own: error pages, redirects, fixed answers. The only place that turns a failure into
//! an answer.

use crate::model::Config;

/// An answer that Reeve gives itself.
#[derive(Debug, Default)]
pub struct Reply<'a> {
    pub status: u16,
    /// What the body says; a page is made around it for a browser.
    pub sentence: &'a str,
    /// A body of the operator's, sent as it is.
    pub text: Option<&'a [u8]>,
    pub location: Option<&'a [u8]>,
    /// Seconds.
    pub retry_after: Option<u32>,
    /// Methods for `Allow`.
    pub allow: Option<&'static str>,
    /// Where a client has to say who he is (RFC 7617 §2).
    pub realm: Option<&'a str>,
    /// For the client to quote; `None`: no page needs one.
    pub id: Option<u64>,
    pub accept: &'a [u8],
    /// HEAD: the head alone.
    pub head_only: bool,
    pub keep_alive: bool,
    /// Whether the client speaks HTTP/1.0 and has to be told that the connection stays.
    pub old: bool,
    /// The current time as HTTP writes it.
    pub date: &'a str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Html,
    Problem,
    Text,
}

/// Appends the answer to `out`; returns the bytes of its body.
pub fn write(reply: &Reply<'_>, config: &Config, out: &mut Vec<u8>) -> usize {
    let mut number = itoa::Buffer::new();
    let (body, kind) = body(reply, config);
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(number.format(reply.status).as_bytes());
    out.push(b' ');
    out.extend_from_slice(reason(reply.status).as_bytes());
    let bodiless = reply.status == 204 || reply.status == 304;
    let mut field = |name: &str, value: &[u8]| {
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value);
    };
    field("Date", reply.date.as_bytes());
    if !bodiless {
        field("Content-Type", kind.as_bytes());
        field("Content-Length", number.format(body.len()).as_bytes());
    }
    if reply.status >= 400 {
        field("Cache-Control", b"no-store");
    }
    if let Some(location) = reply.location {
        field("Location", location);
    }
    if let Some(seconds) = reply.retry_after {
        field("Retry-After", number.format(seconds).as_bytes());
    }
    if let Some(allow) = reply.allow {
        field("Allow", allow.as_bytes());
    }
    if let Some(realm) = reply.realm {
        field("WWW-Authenticate", format!("Basic realm=\"{realm}\", charset=\"UTF-8\"").as_bytes());
    }
    match (reply.keep_alive, reply.old) {
        (false, _) => field("Connection", b"close"),
        (true, true) => field("Connection", b"keep-alive"),
        (true, false) => {}
    }
    out.extend_from_slice(b"\r\n\r\n");
    if reply.head_only || bodiless {
        return 0;
    }
    out.extend_from_slice(&body);
    body.len()
}

fn body<'a>(reply: &Reply<'a>, config: &'a Config) -> (std::borrow::Cow<'a, [u8]>, &'static str) {
    if let Some(text) = reply.text {
        return (text.into(), "text/plain; charset=utf-8");
    }
    if let Some(page) = config.errors.get(&reply.status) {
        return (page.to_vec().into(), "text/html; charset=utf-8");
    }
    if reply.sentence.is_empty() {
        return (b""[..].into(), "text/plain; charset=utf-8");
    }
    let (status, title, sentence) = (reply.status, reason(reply.status), capital(reply.sentence));
    let id = reply.id.map(|id| format!("{id:016x}")).unwrap_or_default();
    match form(reply.accept) {
        Form::Html => {
            let id = if id.is_empty() { id } else { format!("<p><small>{id}</small>") };
            let page = format!(
                "<!doctype html><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
                 <meta name=color-scheme content=\"light dark\"><title>{status} {title}</title>\
                 <style>body{{font:1.1em/1.5 system-ui,sans-serif;max-width:32em;margin:15vh auto;padding:0 1em}}\
                 small{{opacity:.6}}</style><h1>{status} {title}</h1><p>{sentence}.{id}\n"
            );
            (page.into_bytes().into(), "text/html; charset=utf-8")
        }
        Form::Problem => {
            let page = serde_json::json!({ "type": "about:blank", "status": status, "title": title, "detail": sentence, "instance": id });
            (page.to_string().into_bytes().into(), "application/problem+json")
        }
        Form::Text => {
            let id = if id.is_empty() { id } else { format!(" ({id})") };
            (format!("{status} {title}: {sentence}{id}\n").into_bytes().into(), "text/plain; charset=utf-8")
        }
    }
}

/// A browser asks for HTML by name, a program for JSON; all others get text.
fn form(accept: &[u8]) -> Form {
    let has = |kind: &[u8]| memchr::memmem::find(accept, kind).is_some();
    if has(b"text/html") {
        Form::Html
    } else if has(b"application/problem+json") || has(b"application/json") {
        Form::Problem
    } else {
        Form::Text
    }
}

fn capital(sentence: &str) -> String {
    let mut chars = sentence.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

/// The reason phrase of a status (RFC 9110 §15).
pub fn reason(status: u16) -> &'static str {
    http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(reply: &Reply<'_>) -> String {
        let mut out = Vec::new();
        write(reply, &Config::default(), &mut out);
        String::from_utf8(out).unwrap_or_default()
    }

    #[test]
    fn pages_follow_accept_and_stay_small() {
        let reply = |accept| Reply {
            status: 503,
            sentence: "the service is down",
            id: Some(7),
            accept,
            date: "D",
            ..Reply::default()
        };
        for (accept, kind) in [
            (&b"text/html,application/xhtml+xml"[..], "text/html"),
            (b"application/json", "application/problem+json"),
            (b"*/*", "text/plain"),
            (b"", "text/plain"),
        ] {
            let text = written(&reply(accept));
            let (head, body) = text.split_once("\r\n\r\n").unwrap_or_default();
            assert!(head.contains(&format!("Content-Type: {kind}")), "{text}");
            assert!(head.contains(&format!("Content-Length: {}", body.len())), "{text}");
            assert!(
                body.contains("he service is down") && body.contains("0000000000000007") && text.len() <= 1024,
                "{text}"
            );
        }
    }

    #[test]
    fn answers_without_a_body_say_none() {
        let text = written(&Reply { status: 204, date: "D", keep_alive: true, ..Reply::default() });
        assert_eq!(text, "HTTP/1.1 204 No Content\r\nDate: D\r\n\r\n");
        let text = written(&Reply { status: 404, sentence: "x", head_only: true, date: "D", ..Reply::default() });
        assert!(text.ends_with("\r\n\r\n") && text.contains("Content-Length: 17"), "{text}");
    }
}
