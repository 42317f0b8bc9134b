//! One connection of the load generator: it connects, agrees on TLS when that is wanted, sends requests, takes their
//! answers and checks them. What is said on it is in `client1` and `client2`.

use std::net::SocketAddrV4;
use std::os::fd::OwnedFd;
use std::time::Instant;

use rustix::net::sockopt;

use crate::client1::Http1;
use crate::client2::Http2;
use crate::stream::{Received, Stream};
use crate::tls::{Begin, Session};

/// What every request of a run has in common.
pub struct Kind {
    pub address: SocketAddrV4,
    pub host: String,
    /// Bytes of a request's body; 0: GET without one.
    pub body: u64,
    /// Each request on a connection of its own.
    pub fresh: bool,
    /// Bytes of a WebSocket message; 0: plain requests.
    pub message: u64,
    /// Connections start from so many addresses, 127.0.1.1 and up, so that ports do not run out. 0: any.
    pub sources: u32,
    /// HTTPS.
    pub tls: Option<Begin>,
    /// HTTP/2 with so many requests on a connection at once. 0: HTTP/1.1.
    pub streams: usize,
    /// Unary calls of gRPC, over HTTP/2.
    pub grpc: bool,
}

impl Kind {
    /// Host and path of a target: a path, or both.
    pub fn split<'a>(&'a self, target: &'a str) -> (&'a str, &'a str) {
        match target.find('/') {
            Some(0) | None => (self.host.as_str(), target),
            Some(at) => target.split_at(at),
        }
    }
}

/// An answer that was complete and as it should be.
pub struct Answer {
    /// When its request was sent, or should have been.
    pub started: Instant,
    /// Of both bodies.
    pub bytes: u64,
}

enum Talk {
    One(Box<Http1>),
    Many(Box<Http2>),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Connecting,
    Handshake,
    Open,
}

pub struct Client {
    stream: Stream,
    talk: Talk,
    phase: Phase,
    pub opened: Instant,
    /// Requests that were sent on it.
    pub asked: u64,
}

impl Client {
    pub fn open(kind: &Kind, serial: u64) -> rustix::io::Result<Client> {
        let source = (kind.sources > 0).then(|| 1 + (serial % u64::from(kind.sources)) as u8);
        let talk = if kind.streams > 0 {
            Talk::Many(Box::new(Http2::new(kind)))
        } else {
            Talk::One(Box::new(Http1::new(kind)))
        };
        let stream = Stream::connect(kind.address, source)?;
        Ok(Client { stream, talk, phase: Phase::Connecting, opened: Instant::now(), asked: 0 })
    }

    pub fn socket(&self) -> &OwnedFd {
        self.stream.socket()
    }

    /// How many requests it takes now.
    pub fn free(&self) -> usize {
        match (&self.talk, self.phase) {
            (_, Phase::Connecting | Phase::Handshake) => 0,
            (Talk::One(talk), _) => usize::from(talk.free()),
            (Talk::Many(talk), _) => talk.free(),
        }
    }

    /// How many requests it owes an answer to.
    pub fn unanswered(&self) -> usize {
        match &self.talk {
            Talk::One(talk) => usize::from(talk.busy()),
            Talk::Many(talk) => talk.busy(),
        }
    }

    /// Puts request `number` into what is to be sent.
    pub fn request(&mut self, kind: &Kind, target: &str, number: u64, started: Instant) {
        self.asked += 1;
        match &mut self.talk {
            Talk::One(talk) => talk.request(kind, target, number, started),
            Talk::Many(talk) => talk.request(kind, target, number, started),
        }
    }

    /// Sends as much as goes now.
    pub fn flush(&mut self) -> Result<(), String> {
        if self.phase == Phase::Open {
            loop {
                let bytes = match &self.talk {
                    Talk::One(talk) => talk.output(),
                    Talk::Many(talk) => talk.output(),
                };
                if bytes.is_empty() {
                    break;
                }
                let Some(n) = self.stream.send(bytes, false)? else { return Ok(()) };
                match &mut self.talk {
                    Talk::One(talk) => talk.sent(n),
                    Talk::Many(talk) => talk.sent(n),
                }
            }
        }
        self.stream.flush().map(|_| ())
    }

    /// Goes on after an event. `over`: the other side has ended the connection.
    pub fn go_on(
        &mut self,
        kind: &Kind,
        target: &str,
        over: bool,
        room: &mut [u8],
        answers: &mut Vec<Answer>,
    ) -> Result<(), String> {
        if self.phase == Phase::Connecting {
            match sockopt::socket_error(self.stream.socket()) {
                Ok(Ok(())) if !over => {}
                Ok(Ok(())) => return Err("the connection was ended at once".into()),
                Ok(Err(error)) | Err(error) => return Err(format!("connect: {error}")),
            }
            self.phase = Phase::Handshake;
            match &kind.tls {
                Some(begin) => self.stream.start_tls(Session::begin(begin)?),
                None => self.begin(kind, target),
            }
        }
        self.flush()?;
        loop {
            let (talk, mut count) = (&mut self.talk, 0);
            let received = self.stream.receive(room, &mut |bytes| match talk {
                Talk::One(talk) => {
                    if let Some(answer) = talk.take(kind, bytes)? {
                        answers.push(answer);
                        count += 1;
                    }
                    Ok(())
                }
                Talk::Many(talk) => talk.take(kind, bytes, answers),
            })?;
            if self.phase == Phase::Handshake && self.stream.tls().is_some_and(Session::ready) {
                self.agreed(kind)?;
                self.begin(kind, target);
            }
            match received {
                // The next request sees the end of a connection that answered last.
                _ if count > 0 => return Ok(()),
                Received::End if self.unanswered() == 0 => return Err("an idle connection was ended".into()),
                Received::End => return Err("ended before the answer was complete".into()),
                Received::Nothing => break,
                Received::Some if !over => break,
                Received::Some | Received::Full => {}
            }
        }
        self.flush()
    }

    /// The connection stands: what comes before the first request.
    fn begin(&mut self, kind: &Kind, target: &str) {
        self.phase = Phase::Open;
        match &mut self.talk {
            Talk::One(talk) => talk.begin(kind, target),
            Talk::Many(talk) => talk.begin(),
        }
    }

    /// Whether the handshake is the one that was wanted.
    fn agreed(&self, kind: &Kind) -> Result<(), String> {
        let Some(tls) = self.stream.tls() else { return Ok(()) };
        let fits = match tls.protocol() {
            Some(protocol) => (protocol == b"h2") == (kind.streams > 0),
            None => kind.streams == 0,
        };
        match tls.fault() {
            Some(fault) => Err(fault),
            None if !fits => Err(format!("ALPN chose {:?}", tls.protocol().map(String::from_utf8_lossy))),
            None => Ok(()),
        }
    }
}
