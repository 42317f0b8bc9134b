//! A conversation with a server: every read has a bound, and the last of it is kept for people to see.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Clock, Sealed, shake};
use crate::model::Limits;
use crate::model::check::Pattern;
use crate::net::Stream;

/// The last of what was said and heard.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transcript {
    pub sent: Tail,
    pub heard: Tail,
}

/// The last bytes of a stream, [`Limits::CHECK_SHOWN`] at most.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tail {
    bytes: Vec<u8>,
    cut: bool,
}

impl Tail {
    pub fn add(&mut self, bytes: &[u8]) {
        let most = Limits::CHECK_SHOWN;
        let bytes = match bytes.len().checked_sub(most) {
            Some(over) if over > 0 => {
                (self.cut, self.bytes) = (true, Vec::new());
                &bytes[over..]
            }
            _ => bytes,
        };
        if let Some(over) = (self.bytes.len() + bytes.len()).checked_sub(most).filter(|over| *over > 0) {
            self.cut = true;
            self.bytes.drain(..over);
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Printable: what is not ASCII, and control characters, as escapes; `...` where the beginning is missing.
    pub fn shown(&self) -> String {
        let text = self.bytes.escape_ascii();
        if self.cut { format!("...{text}") } else { text.to_string() }
    }
}

/// A connection on which a probe speaks.
#[derive(Debug)]
pub struct Talk<'a> {
    stream: Option<Stream>,
    clock: &'a Clock,
    log: &'a mut Transcript,
    /// Read, and not yet taken.
    pub unread: Vec<u8>,
    /// Read so far.
    total: usize,
}

impl<'a> Talk<'a> {
    pub fn new(stream: Stream, clock: &'a Clock, log: &'a mut Transcript) -> Talk<'a> {
        Talk { stream: Some(stream), clock, log, unread: Vec::new(), total: 0 }
    }

    /// What is left when no more is said here.
    pub fn into_stream(mut self) -> Option<Stream> {
        self.take_stream()
    }

    /// The connection, for the next probe.
    pub fn take_stream(&mut self) -> Option<Stream> {
        self.stream.take()
    }

    /// Goes on by TLS.
    ///
    /// # Errors
    /// Also where more was said in clear: nobody could tell who said it, and it is not to be taken for a part of what is said in
    /// secret (RFC 3207 §4.2, RFC 9051 §6.2.1).
    pub async fn seal(&mut self, sealed: &Sealed) -> Result<(), String> {
        if !self.unread.is_empty() {
            return Err("more was said in clear after TLS was agreed upon".to_owned());
        }
        let Some(Stream::Plain(tcp)) = self.stream.take() else { return Err(GONE.to_owned()) };
        let (stream, _) = shake(tcp, sealed, Vec::new(), self.clock).await?;
        self.stream = Some(stream);
        Ok(())
    }

    pub async fn say(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.log.sent.add(bytes);
        let Some(stream) = &mut self.stream else { return Err(GONE.to_owned()) };
        let write = async {
            let written = async {
                stream.write_all(bytes).await?;
                stream.flush().await
            };
            written.await.map_err(|error| format!("not taken: {error}"))
        };
        self.clock.within("sending", write).await
    }

    /// Reads on; false at the end of the stream, and when [`Limits::CHECK_HEARD`] is reached.
    pub async fn more(&mut self, doing: &str) -> Result<bool, String> {
        let Some(stream) = &mut self.stream else { return Ok(false) };
        let most = Limits::CHECK_HEARD.saturating_sub(self.total).min(8 << 10);
        if most == 0 {
            return Ok(false);
        }
        let before = self.unread.len();
        self.unread.reserve(most.min(1024));
        let unread = &mut self.unread;
        let read = async {
            let mut bounded = stream.take(most as u64);
            bounded.read_buf(unread).await.map_err(|error| format!("no answer: {error}"))
        };
        let count = self.clock.within(doing, read).await?;
        self.total += count;
        self.log.heard.add(&self.unread[before..]);
        Ok(count > 0)
    }

    /// Whether as much was read as a probe reads.
    pub fn is_full(&self) -> bool {
        self.total >= Limits::CHECK_HEARD
    }

    /// A line, without its end.
    pub async fn line(&mut self, waiting: &str) -> Result<String, String> {
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.unread) {
                let line: Vec<u8> = self.unread.drain(..=end).collect();
                let line = line.strip_suffix(b"\n").unwrap_or(&line);
                let line = line.strip_suffix(b"\r").unwrap_or(line);
                return Ok(String::from_utf8_lossy(line).into_owned());
            }
            if self.unread.len() >= Limits::CHECK_LINE {
                return Err(format!("a line without an end {waiting}"));
            }
            if !self.more(waiting).await? {
                return Err(format!("closed {waiting}"));
            }
        }
    }

    /// Says something, and waits until what has been heard is as expected.
    pub async fn exchange(&mut self, send: &[u8], expect: Option<&Pattern>) -> Result<String, String> {
        if !send.is_empty() {
            self.say(send).await?;
        }
        let Some(expect) = expect else { return Ok("connected, and what was sent was taken".to_owned()) };
        while !expect.is_in(&self.unread) {
            match self.more(&format!("waiting for \"{}\"", expect.text())).await {
                Ok(true) => {}
                Ok(false) => return Err(format!("closed, and no \"{}\" in what was said", expect.text())),
                Err(detail) => return Err(detail),
            }
        }
        Ok(format!("said \"{}\"", shortened(&self.unread)))
    }
}

const GONE: &str = "closed";

/// The beginning of a text, for a message.
pub fn shortened(text: &[u8]) -> String {
    let end = text.iter().position(|byte| matches!(byte, b'\r' | b'\n')).unwrap_or(text.len()).min(80);
    text[..end].escape_ascii().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_is_bounded_and_printable() {
        let mut tail = Tail::default();
        tail.add(b"220 \xffhi\r\n");
        assert_eq!(tail.shown(), "220 \\xffhi\\r\\n");
        tail.add(&[b'x'; Limits::CHECK_SHOWN - 3]);
        assert!(tail.shown().starts_with("...\\n") || tail.shown().starts_with("...i"), "{}", tail.shown());
        assert_eq!(tail.bytes.len(), Limits::CHECK_SHOWN);
        tail.add(&[b'y'; 10_000]);
        assert_eq!(tail.shown(), format!("...{}", "y".repeat(Limits::CHECK_SHOWN)));
        tail.add(b"z");
        assert!(tail.shown().ends_with("yz") && tail.bytes.len() == Limits::CHECK_SHOWN);
    }
}
