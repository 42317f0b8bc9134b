//! The head of a message: a request or an answer, of either side.

use smallvec::SmallVec;

use crate::model::Limits;
use crate::wire::field::Field;

/// Field lines; 16 cover what clients and servers send.
pub type Fields<'a> = SmallVec<[Field<'a>; 16]>;

#[derive(Debug)]
pub struct Head<'a> {
    pub start: Start<'a>,
    pub version: Version,
    /// In the order they came. A value that goes on in the next line has its line end in it.
    pub fields: Fields<'a>,
    /// The number by which answers are matched to requests (RFC 2326 §12.17).
    pub cseq: Option<u32>,
    /// Bytes of the body.
    pub body: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start<'a> {
    Request { method: &'a str, uri: &'a str },
    Answer { status: u16, reason: &'a str },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    V1,
    V2,
}

impl Version {
    pub fn word(self) -> &'static str {
        match self {
            Version::V1 => "RTSP/1.0",
            Version::V2 => "RTSP/2.0",
        }
    }
}

/// Why a head is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    StartLine,
    Version,
    Uri,
    UriTooLong,
    Field,
    TooManyFields,
    ContentLength,
    BodyTooLarge,
    TooLarge,
}

impl Fault {
    /// What a client is told; there is none for a head that is too large, so that the reason says it.
    pub fn status(self) -> u16 {
        match self {
            Fault::Version => 505,
            Fault::UriTooLong => 414,
            Fault::BodyTooLarge => 413,
            _ => 400,
        }
    }

    pub fn detail(self) -> &'static str {
        match self {
            Fault::StartLine => "the first line is none of RTSP",
            Fault::Version => "this version of RTSP is not spoken here",
            Fault::Uri => "the URI is not valid",
            Fault::UriTooLong => "the URI is too long",
            Fault::Field => "a field is not valid",
            Fault::TooManyFields => "there are too many fields",
            Fault::ContentLength => "the Content-Length field is not valid",
            Fault::BodyTooLarge => "the body is too large",
            Fault::TooLarge => "the head is too large",
        }
    }
}

impl<'a> Head<'a> {
    /// The first value of that name.
    pub fn value(&self, name: &str) -> Option<&'a [u8]> {
        self.fields.iter().find(|field| field.is(name)).map(|field| field.value)
    }

    /// The first value of that name, where it is text.
    pub fn text(&self, name: &str) -> Option<&'a str> {
        std::str::from_utf8(self.value(name)?).ok()
    }

    /// All values of that name.
    pub fn values(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.fields.iter().filter(move |field| field.is(name)).map(|field| field.value)
    }
}

/// Reads a head that ends where `bytes` do.
///
/// # Errors
/// When it cannot be understood; where the next message begins is not known then.
pub fn parse<'a>(bytes: &'a [u8], limits: &Limits) -> Result<Head<'a>, Fault> {
    let mut lines = Lines { rest: bytes };
    let (start, version) = start_line(lines.next().ok_or(Fault::StartLine)?, limits)?;
    let mut head = Head { start, version, fields: Fields::new(), cseq: None, body: 0 };
    let mut length = None;
    while let Some(line) = lines.next_folded() {
        if line.is_empty() {
            break;
        }
        if head.fields.len() >= limits.header_count {
            return Err(Fault::TooManyFields);
        }
        let colon = memchr::memchr(b':', line).ok_or(Fault::Field)?;
        // Some devices put a blank before the colon.
        let name = line[..colon].trim_ascii_end();
        if !crate::wire::http1::is_token(name) {
            return Err(Fault::Field);
        }
        let name = std::str::from_utf8(name).map_err(|_| Fault::Field)?;
        let field = Field { name, value: line[colon + 1..].trim_ascii() };
        if field.value.contains(&0) {
            return Err(Fault::Field);
        }
        if field.is("content-length") {
            let own = number(field.value).ok_or(Fault::ContentLength)?;
            if length.is_some_and(|length| length != own) {
                return Err(Fault::ContentLength);
            }
            length = Some(own);
        } else if field.is("cseq") && head.cseq.is_none() {
            head.cseq = number(field.value);
        }
        head.fields.push(field);
    }
    head.body = length.unwrap_or(0) as usize;
    if head.body > Limits::MEDIA_BODY {
        return Err(Fault::BodyTooLarge);
    }
    Ok(head)
}

fn number(text: &[u8]) -> Option<u32> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn start_line<'a>(line: &'a [u8], limits: &Limits) -> Result<(Start<'a>, Version), Fault> {
    let line = std::str::from_utf8(line).map_err(|_| Fault::StartLine)?;
    if line.starts_with("RTSP/") {
        // RFC 2326 §7.1: the version, three digits, a phrase.
        let (word, rest) = line.split_once(' ').ok_or(Fault::StartLine)?;
        let version = version(word)?;
        let (code, reason) = rest.split_once(' ').unwrap_or((rest, ""));
        let digits = code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_digit());
        let status = code.parse().ok().filter(|status| digits && *status >= 100).ok_or(Fault::StartLine)?;
        return Ok((Start::Answer { status, reason }, version));
    }
    let (method, rest) = line.split_once(' ').ok_or(Fault::StartLine)?;
    let (uri, word) = rest.trim_end().rsplit_once(' ').ok_or(Fault::StartLine)?;
    if !crate::wire::http1::is_token(method.as_bytes()) {
        return Err(Fault::StartLine);
    }
    let version = version(word)?;
    let uri = uri.trim();
    if uri.len() > limits.target_bytes {
        return Err(Fault::UriTooLong);
    }
    // Cameras have blanks and worse in theirs; what would end the line or the word may not be there.
    if uri.is_empty() || uri.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
        return Err(Fault::Uri);
    }
    Ok((Start::Request { method, uri }, version))
}

fn version(word: &str) -> Result<Version, Fault> {
    match word {
        "RTSP/1.0" => Ok(Version::V1),
        "RTSP/2.0" => Ok(Version::V2),
        _ => match word.strip_prefix("RTSP/").map(str::as_bytes) {
            Some([major, b'.', minor]) if major.is_ascii_digit() && minor.is_ascii_digit() => Err(Fault::Version),
            _ => Err(Fault::StartLine),
        },
    }
}

/// Lines without their ends, be they CR LF or LF.
struct Lines<'a> {
    rest: &'a [u8],
}

impl<'a> Lines<'a> {
    fn next(&mut self) -> Option<&'a [u8]> {
        let end = memchr::memchr(b'\n', self.rest)?;
        let line = &self.rest[..end];
        self.rest = &self.rest[end + 1..];
        Some(line.strip_suffix(b"\r").unwrap_or(line))
    }

    /// A line and those that go on with it (RFC 2326 §4.2: they begin with a blank).
    fn next_folded(&mut self) -> Option<&'a [u8]> {
        let whole = self.rest;
        let mut line = self.next()?;
        while !line.is_empty() && matches!(self.rest.first(), Some(b' ' | b'\t')) && self.next().is_some() {
            let end = whole.len() - self.rest.len();
            line = whole[..end].trim_ascii_end();
        }
        Some(line)
    }
}

/// Writes a field; a value of several lines becomes one.
pub fn write_field(name: &str, value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend(value.iter().map(in_line));
    out.extend_from_slice(b"\r\n");
}

/// Writes the first line as it came, but for what would end it.
pub fn write_start(head: &Head<'_>, out: &mut Vec<u8>) {
    let version = head.version.word();
    let line = match head.start {
        Start::Request { method, uri } => format!("{method} {uri} {version}"),
        Start::Answer { status, reason } => format!("{version} {status} {reason}"),
    };
    out.extend(line.as_bytes().iter().map(in_line));
    out.extend_from_slice(b"\r\n");
}

/// What may stand within a line: some take a CR by itself for its end.
fn in_line(byte: &u8) -> u8 {
    if matches!(byte, b'\r' | b'\n') { b' ' } else { *byte }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Head<'_>, Fault> {
        parse(text.as_bytes(), &Limits::default())
    }

    #[test]
    fn requests_as_clients_send_them() {
        let gstreamer = "OPTIONS rtsp://10.0.0.1:8554/test RTSP/1.0\r\nCSeq: 1\r\nUser-Agent: GStreamer/1.22.0\r\n\
                         ClientChallenge: 9e26\r\nUser-Agent: GStreamer/1.22.0\r\n\r\n";
        let head = read(gstreamer).unwrap();
        assert_eq!(head.start, Start::Request { method: "OPTIONS", uri: "rtsp://10.0.0.1:8554/test" });
        assert_eq!((head.cseq, head.body, head.fields.len(), head.values("user-agent").count()), (Some(1), 0, 4, 2));
        let camera = "SETUP rtsp://c/a?b=c&d={e}|f/track1 RTSP/1.0\nCseq : 7\nTransport:RTP/AVP\n\n";
        let head = read(camera).unwrap();
        assert_eq!((head.cseq, head.text("transport")), (Some(7), Some("RTP/AVP")));
    }

    #[test]
    fn answers_as_servers_send_them() {
        let head = read("RTSP/1.0 200 OK\r\nCSeq: 2\r\nSession: a;timeout=30\r\nContent-Length: 5\r\n\r\n").unwrap();
        assert_eq!((head.start, head.body), (Start::Answer { status: 200, reason: "OK" }, 5));
        assert_eq!(read("RTSP/2.0 404\r\n\r\n").unwrap().version, Version::V2);
        let folded = read("RTSP/1.0 200 OK\r\nPublic: OPTIONS,\r\n PLAY\r\n\tPAUSE\r\nCSeq: 3\r\n\r\n").unwrap();
        assert_eq!((folded.text("public"), folded.cseq), (Some("OPTIONS,\r\n PLAY\r\n\tPAUSE"), Some(3)));
        let mut out = Vec::new();
        write_start(&read("RTSP/1.0 200 O\rK\r\n\r\n").unwrap(), &mut out);
        assert_eq!(out, b"RTSP/1.0 200 O K\r\n");
        out.clear();
        write_start(&folded, &mut out);
        write_field("Public", folded.value("public").unwrap(), &mut out);
        assert_eq!(out, b"RTSP/1.0 200 OK\r\nPublic: OPTIONS,   PLAY  \tPAUSE\r\n");
    }

    #[test]
    fn what_is_refused_and_why() {
        let long = format!("PLAY rtsp://a/{} RTSP/1.0\r\n\r\n", "x".repeat(17 << 10));
        let many = format!("PLAY rtsp://a/ RTSP/1.0\r\n{}\r\n", "a: b\r\n".repeat(257));
        for (text, fault) in [
            ("GET / HTTP/1.1\r\n\r\n", Fault::StartLine),
            ("PLAY rtsp://a/ RTSP/3.0\r\n\r\n", Fault::Version),
            ("PLAY rtsp://a/ RTSP/1\r\n\r\n", Fault::StartLine),
            ("PLAY\r\n\r\n", Fault::StartLine),
            ("PL@Y rtsp://a/ RTSP/1.0\r\n\r\n", Fault::StartLine),
            ("PLAY rtsp://a/ b RTSP/1.0\r\n\r\n", Fault::Uri),
            (&long, Fault::UriTooLong),
            (&many, Fault::TooManyFields),
            ("PLAY rtsp://a/ RTSP/1.0\r\nCSeq\r\n\r\n", Fault::Field),
            ("PLAY rtsp://a/ RTSP/1.0\r\n: x\r\n\r\n", Fault::Field),
            ("PLAY rtsp://a/ RTSP/1.0\r\na: \0\r\n\r\n", Fault::Field),
            ("PLAY rtsp://a/ RTSP/1.0\r\nContent-Length: -1\r\n\r\n", Fault::ContentLength),
            ("PLAY rtsp://a/ RTSP/1.0\r\nContent-Length: 1\r\nContent-length: 2\r\n\r\n", Fault::ContentLength),
            ("PLAY rtsp://a/ RTSP/1.0\r\nContent-Length: 1000000\r\n\r\n", Fault::BodyTooLarge),
            ("RTSP/1.0 20 OK\r\n\r\n", Fault::StartLine),
            ("RTSP/1.0 +20 OK\r\n\r\n", Fault::StartLine),
        ] {
            assert_eq!(read(text).map(|head| head.fields.len()).unwrap_err(), fault, "{:.60}", text);
        }
    }
}
