//! Requests of RTSP and their answers (RFC 2326 §4, §6, §7), as far as a camera needs them.

use std::fmt::Write;
use std::io;

pub enum Found<'a> {
    Request(Request<'a>),
    /// Media or its reports, or an answer: of no use to a camera.
    Other,
}

pub struct Request<'a> {
    pub method: &'a str,
    pub uri: &'a str,
    head: &'a str,
}

/// The first message in `bytes` and its length, once it is there as a whole.
pub fn first(bytes: &[u8]) -> io::Result<Option<(usize, Found<'_>)>> {
    match bytes {
        [] => return Ok(None),
        // §10.12: a dollar sign, the channel, the length, and so many bytes.
        [b'$', rest @ ..] => {
            let length = rest.get(1..3).map(|two| 4 + usize::from(u16::from_be_bytes([two[0], two[1]])));
            let whole = length.filter(|length| bytes.len() >= *length);
            return Ok(whole.map(|length| (length, Found::Other)));
        }
        // Empty lines between messages are passed over.
        [b'\r' | b'\n', ..] => return Ok(Some((1, Found::Other))),
        _ => {}
    }
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    let invalid = |_| io::Error::from(io::ErrorKind::InvalidData);
    let head = std::str::from_utf8(&bytes[..end]).map_err(invalid)?;
    let line = head.lines().next().unwrap_or_default();
    let mut words = line.split_ascii_whitespace();
    let (method, uri) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let request = Request { method, uri, head };
    let body: u16 =
        request.header("content-length").map_or(Ok(0), |text| text.parse().map_err(|_| io::ErrorKind::InvalidData))?;
    let length = end + 4 + usize::from(body);
    if bytes.len() < length {
        return Ok(None);
    }
    let answer = method.starts_with("RTSP/");
    Ok(Some((length, if answer { Found::Other } else { Found::Request(request) })))
}

impl Request<'_> {
    /// The first field of that name, in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let fields = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        fields
            .map(|(field, value)| (field.trim(), value.trim()))
            .find(|(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    /// Without scheme, host, query and a slash at the end.
    pub fn path(&self) -> &str {
        let rest = self.uri.split_once("://").map_or(self.uri, |(_, rest)| rest.find('/').map_or("", |at| &rest[at..]));
        rest.split('?').next().unwrap_or_default().trim_end_matches('/')
    }
}

pub struct Answer {
    status: &'static str,
    fields: String,
    body: String,
}

impl Answer {
    pub fn new(status: &'static str) -> Answer {
        Answer { status, fields: String::new(), body: String::new() }
    }

    pub fn with(mut self, name: &str, value: impl AsRef<str>) -> Answer {
        let _ = write!(self.fields, "{name}: {}\r\n", value.as_ref());
        self
    }

    /// Says which session it is about.
    pub fn of(self, session: &str) -> Answer {
        self.with("Session", format!("{session};timeout=60"))
    }

    pub fn carrying(mut self, kind: &str, body: String) -> Answer {
        self.body = body;
        let length = self.body.len().to_string();
        self.with("Content-Type", kind).with("Content-Length", length)
    }

    /// As it is sent in answer to this request.
    pub fn text(&self, request: &Request) -> String {
        let Answer { status, fields, body } = self;
        // §12.17: the number of the request comes back.
        let number = request.header("cseq").unwrap_or("0");
        format!("RTSP/1.0 {status}\r\nCSeq: {number}\r\nServer: reeve-demo\r\n{fields}\r\n{body}")
    }
}
