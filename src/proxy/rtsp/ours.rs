//! Answers that no server gives.

use std::borrow::Cow;
use std::io::Write;

use super::super::failure::{Failure, FailureKind};
use crate::wire::rtsp::Version;
use crate::wire::rtsp::message::write_field;

#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    /// In the place of the usual one.
    pub phrase: Option<Cow<'static, str>>,
    pub version: Version,
    pub cseq: Option<u32>,
    pub fields: Vec<(&'static str, String)>,
    pub body: Option<String>,
}

/// What can be asked for here (RFC 2326 §10): all of it is passed on.
const PUBLIC: &str =
    "OPTIONS, DESCRIBE, ANNOUNCE, SETUP, PLAY, PAUSE, RECORD, TEARDOWN, GET_PARAMETER, SET_PARAMETER, REDIRECT";

impl Reply {
    pub fn of(status: u16) -> Reply {
        Reply { status, phrase: None, version: Version::V1, cseq: None, fields: Vec::new(), body: None }
    }

    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Reply {
        self.fields.push((name, value.into()));
        self
    }

    /// `OPTIONS *` asks about us (RFC 2326 §10.1).
    pub fn options() -> Reply {
        Reply::of(200).with("Public", PUBLIC)
    }

    /// What a client is told of a failure. What HTTP alone has a status for is told by the next best.
    pub fn failed(failure: &Failure) -> Reply {
        let status = match failure.kind.status() {
            429 => 503,
            431 => 400,
            0 => 500,
            status => status,
        };
        let reply = Reply::of(status);
        match failure.kind {
            FailureKind::Rate(seconds) => reply.with("Retry-After", seconds.to_string()),
            _ if status == 503 => reply.with("Retry-After", "5"),
            _ => reply,
        }
    }

    pub fn write(&self, out: &mut Vec<u8>) {
        let version = self.version.word();
        let phrase = self.phrase.as_deref().unwrap_or_else(|| phrase(self.status));
        // Writing to it cannot fail.
        let _ = write!(out, "{version} {} {phrase}\r\n", self.status);
        if let Some(cseq) = self.cseq {
            let _ = write!(out, "CSeq: {cseq}\r\n");
        }
        for (name, value) in &self.fields {
            write_field(name, value.as_bytes(), out);
        }
        let body = self.body.as_deref().unwrap_or_default();
        if !body.is_empty() {
            let _ = write!(out, "Content-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n", body.len());
        }
        let _ = write!(out, "\r\n{body}");
    }
}

/// RFC 2326 §7.1.1, as far as any of these is ours to say.
fn phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        301 => "Moved Permanently",
        302 => "Moved Temporarily",
        303 => "See Other",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Time-out",
        410 => "Gone",
        413 => "Request Entity Too Large",
        414 => "Request-URI Too Large",
        453 => "Not Enough Bandwidth",
        454 => "Session Not Found",
        461 => "Unsupported Transport",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Time-out",
        505 => "RTSP Version not supported",
        551 => "Option not supported",
        _ if status < 300 => "OK",
        _ if status < 400 => "Redirection",
        _ if status < 500 => "Client Error",
        _ => "Server Error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_whole_messages() {
        let mut out = Vec::new();
        let reply = Reply { cseq: Some(7), body: Some("no\n".into()), ..Reply::of(551).with("Unsupported", "x\r\n y") };
        reply.write(&mut out);
        let text = "RTSP/1.0 551 Option not supported\r\nCSeq: 7\r\nUnsupported: x   y\r\n\
                    Content-Type: text/plain; charset=utf-8\r\nContent-Length: 3\r\n\r\nno\n";
        assert_eq!(String::from_utf8(out).unwrap(), text);
        let rate = Reply::failed(&Failure::new(FailureKind::Rate(3), "used up"));
        assert_eq!((rate.status, rate.fields), (503, vec![("Retry-After", "3".to_owned())]));
    }
}
