//! HTTP/1: one request, on a connection of its own or on one that is kept.

use std::sync::Arc;

use md5::{Digest, Md5};

use super::judge;
use super::talk::{Talk, shortened};
use crate::model::Limits;
use crate::model::check::Http;
use crate::net::Stream;
use crate::wire::http1::Framing;
use crate::wire::http1::chunked::{ChunkedBody, Keep};
use crate::wire::http1::response::{self, Method};

/// How the answer's body ends, and whether the connection may be kept.
struct Head {
    status: u16,
    body: Framing,
    keep: bool,
}

/// Asks, and leaves the connection in `kept` where it can be used again.
pub async fn ask(talk: &mut Talk<'_>, http: &Http, named: &str, kept: &mut Option<Stream>) -> Result<String, String> {
    let host = http.host.as_deref().unwrap_or(named);
    // RFC 9112 §9.6: where it is one request only, the server need not keep the connection.
    let close = if http.keep_alive { "" } else { "Connection: close\r\n" };
    let (method, path) = (&http.method, &http.path);
    let request = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: reeve-check\r\n{close}\r\n");
    talk.say(request.as_bytes()).await?;
    let method = if &**method == "HEAD" { Method::Head } else { Method::Other };
    let head = loop {
        let head = head(talk, method).await?;
        // RFC 9110 §15.2: interim answers come before the one that counts.
        if head.status >= 200 {
            break head;
        }
    };
    judge(head.status, &http.expect_status)?;
    let (body, whole) = body(talk, head.body).await?;
    if http.reads_body() {
        examine(http, &body, whole)?;
    }
    if http.keep_alive && head.keep && whole && talk.unread.is_empty() {
        *kept = talk.take_stream();
    }
    Ok(format!("status {}", head.status))
}

async fn head(talk: &mut Talk<'_>, method: Method) -> Result<Head, String> {
    let limits = Limits::default();
    loop {
        let found = match response::parse(&talk.unread, method, &limits) {
            Ok(found) => {
                found.map(|head| (head.raw.len(), Head { status: head.status, body: head.body, keep: head.keep_alive }))
            }
            Err(fault) => return Err(format!("not an HTTP answer: {}", fault.detail())),
        };
        if let Some((length, head)) = found {
            talk.unread.drain(..length);
            return Ok(head);
        }
        if !talk.more("waiting for the answer").await? {
            return Err("closed without an answer".to_owned());
        }
    }
}

/// The body as far as it is read, and whether that is all of it.
async fn body(talk: &mut Talk<'_>, framing: Framing) -> Result<(Vec<u8>, bool), String> {
    let reading = "reading the answer";
    let cut = || "answer cut short".to_owned();
    let mut body = Vec::new();
    match framing {
        Framing::None => {}
        Framing::Length(length) => {
            while (talk.unread.len() as u64) < length {
                if !talk.more(reading).await? {
                    return if talk.is_full() { Ok((std::mem::take(&mut talk.unread), false)) } else { Err(cut()) };
                }
            }
            body.extend(talk.unread.drain(..length as usize));
        }
        Framing::Chunked => {
            let mut chunked = ChunkedBody::of_answer(Keep::Data);
            loop {
                let scanned = chunked
                    .scan(&mut talk.unread, &Limits::default())
                    .map_err(|fault| format!("not an HTTP answer: {}", fault.detail()))?;
                body.extend_from_slice(&talk.unread[..scanned.kept]);
                talk.unread.drain(..scanned.taken);
                if scanned.done {
                    break;
                }
                if !talk.more(reading).await? {
                    return if talk.is_full() { Ok((body, false)) } else { Err(cut()) };
                }
            }
        }
        Framing::UntilClose => {
            while talk.more(reading).await? {}
            let whole = !talk.is_full();
            return Ok((std::mem::take(&mut talk.unread), whole));
        }
    }
    Ok((body, true))
}

/// Whether a body is as expected.
pub fn examine(http: &Http, body: &[u8], whole: bool) -> Result<(), String> {
    if let Some(pattern) = &http.expect_body
        && !pattern.is_in(body)
    {
        return Err(format!("no \"{}\" in the answer, which begins \"{}\"", pattern.text(), shortened(body)));
    }
    if !whole && (http.expect_json.is_some() || http.digest.is_some()) {
        return Err(format!("the answer has more than {} KiB", Limits::CHECK_HEARD >> 10));
    }
    if let Some((pointer, wanted)) = &http.expect_json {
        json(body, pointer, wanted)?;
    }
    if let Some(wanted) = &http.digest {
        let found: [u8; 16] = Md5::digest(body).into();
        if found != *wanted {
            let hex: String = found.iter().map(|byte| format!("{byte:02x}")).collect();
            return Err(format!("the answer's digest is {hex}"));
        }
    }
    Ok(())
}

fn json(body: &[u8], pointer: &Arc<str>, wanted: &serde_json::Value) -> Result<(), String> {
    let found: serde_json::Value =
        serde_json::from_slice(body).map_err(|error| format!("the answer is not JSON: {error}"))?;
    match found.pointer(pointer) {
        None => Err(format!("there is no {pointer} in the answer")),
        Some(value) if same(value, wanted) => Ok(()),
        Some(value) => {
            // JSON has no control characters in its texts.
            let found: String = value.to_string().chars().take(80).collect();
            Err(format!("{pointer} is {found}, expected {wanted}"))
        }
    }
}

/// `1` and `1.0` are the same number.
fn same(found: &serde_json::Value, wanted: &serde_json::Value) -> bool {
    found == wanted || found.as_f64().is_some_and(|number| Some(number) == wanted.as_f64())
}
