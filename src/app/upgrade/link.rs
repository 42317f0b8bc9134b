//! Frames over the Unix socket between two processes of one service: `rvup`, a length, JSON; descriptors beside.
//!
//! What is said, and in which order, is in the module above. The peer is a program that the operator named, so it
//! may be anything: what it sends is bounded and read with care.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::Interest;
use tokio::net::UnixStream;

use crate::sys::descriptors;

const MARK: [u8; 4] = *b"rvup";
const HEAD: usize = 8;

/// The longest frame: what ten thousand servers and a hundred thousand rules have counted is a tenth of it.
const LONGEST: usize = 64 << 20;

#[derive(Debug)]
pub struct Link(UnixStream);

/// The beginning of a frame.
#[derive(Debug)]
pub struct Begun {
    head: [u8; HEAD],
    got: usize,
    descriptors: Vec<OwnedFd>,
}

impl Link {
    /// Both ends: one as a link, the other for a process to be started.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub fn pair() -> io::Result<(Link, OwnedFd)> {
        let (here, there) = StdStream::pair()?;
        Ok((Link::of(here.into())?, there.into()))
    }

    /// Within a runtime.
    ///
    /// # Errors
    /// When it is no socket.
    pub fn of(socket: OwnedFd) -> io::Result<Link> {
        let stream = StdStream::from(socket);
        stream.local_addr()?;
        stream.set_nonblocking(true)?;
        Ok(Link(UnixStream::from_std(stream)?))
    }

    /// A descriptor of this end for another process.
    ///
    /// # Errors
    /// When there are none left.
    pub fn duplicate(&self) -> io::Result<OwnedFd> {
        self.0.as_fd().try_clone_to_owned()
    }

    /// # Errors
    /// When the peer is gone, or there is too much to say.
    pub async fn send(&self, message: &impl Serialize, beside: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut frame = [MARK, [0; 4]].concat();
        serde_json::to_writer(&mut frame, message)?;
        let length = frame.len() - HEAD;
        if length > LONGEST {
            return Err(io::Error::other(format!("a message of {length} bytes is too long")));
        }
        frame[MARK.len()..HEAD].copy_from_slice(&(length as u32).to_be_bytes());
        let mut sent = 0;
        while sent < frame.len() {
            let beside = if sent == 0 { beside } else { &[] };
            sent += self.0.async_io(Interest::WRITABLE, || descriptors::send(&self.0, &frame[sent..], beside)).await?;
        }
        Ok(())
    }

    /// Waits for a frame to begin; nothing is lost when this is given up. `None`: the peer has closed.
    ///
    /// # Errors
    /// The socket's.
    pub async fn begin(&self) -> io::Result<Option<Begun>> {
        let mut begun = Begun { head: [0; HEAD], got: 0, descriptors: Vec::new() };
        begun.got = self.read(&mut begun.head, &mut begun.descriptors).await?;
        Ok((begun.got > 0).then_some(begun))
    }

    /// The rest of a frame.
    ///
    /// # Errors
    /// When the peer closes within it, or says something that is not understood.
    pub async fn finish<T: DeserializeOwned>(&self, begun: Begun) -> io::Result<(T, Vec<OwnedFd>)> {
        let Begun { mut head, got, mut descriptors } = begun;
        self.read_exact(&mut head[got..], &mut descriptors).await?;
        let (mark, length) = head.split_at(MARK.len());
        let length = length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
        if mark != MARK || length > LONGEST {
            return Err(io::Error::other("it does not speak as a Reeve does"));
        }
        // Grows with what comes, not with what is announced.
        let mut text = Vec::new();
        while text.len() < length {
            let at = text.len();
            text.resize(length.min(at + (256 << 10)), 0);
            self.read_exact(&mut text[at..], &mut descriptors).await?;
        }
        let message = serde_json::from_slice(&text)
            .map_err(|error| io::Error::other(format!("what it says is not understood: {error}")))?;
        Ok((message, descriptors))
    }

    /// # Errors
    /// As [`Link::begin`] and [`Link::finish`]; also when the peer has closed.
    pub async fn receive<T: DeserializeOwned>(&self) -> io::Result<(T, Vec<OwnedFd>)> {
        let begun = self.begin().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        self.finish(begun).await
    }

    /// Waits until the peer is gone. What it still says is lost.
    pub async fn closed(&self) {
        loop {
            match self.begin().await {
                Ok(Some(_)) => {}
                // Descriptors that had no room.
                Err(error) if error.kind() == io::ErrorKind::Other => {}
                Ok(None) | Err(_) => return,
            }
        }
    }

    async fn read_exact(&self, into: &mut [u8], descriptors: &mut Vec<OwnedFd>) -> io::Result<()> {
        let mut got = 0;
        while got < into.len() {
            match self.read(&mut into[got..], descriptors).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => got += count,
            }
        }
        Ok(())
    }

    async fn read(&self, into: &mut [u8], descriptors: &mut Vec<OwnedFd>) -> io::Result<usize> {
        let count = self.0.async_io(Interest::READABLE, || descriptors::receive(&self.0, into, descriptors)).await?;
        if descriptors.len() > descriptors::AT_ONCE {
            return Err(io::Error::other("more descriptors than belong to a message"));
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[tokio::test]
    async fn frames_come_over_whole_with_what_is_beside_them() {
        let (here, there) = Link::pair().unwrap();
        let there = Link::of(there).unwrap();
        let long = "x".repeat(3 << 20);
        let duplicates = [here.duplicate().unwrap(), here.duplicate().unwrap()];
        let beside: Vec<_> = duplicates.iter().map(AsFd::as_fd).collect();
        let (sent, received) = tokio::join!(
            async {
                here.send(&"short", &[]).await?;
                here.send(&long, &beside).await
            },
            async {
                let (short, none) = there.receive::<String>().await?;
                assert_eq!((short.as_str(), none.len()), ("short", 0));
                there.receive::<String>().await
            }
        );
        sent.unwrap();
        let (text, two) = received.unwrap();
        assert_eq!((text == long, two.len()), (true, 2));
        // To give up waiting loses nothing.
        assert!(tokio::time::timeout(std::time::Duration::from_millis(10), there.begin()).await.is_err());
        here.send(&7, &[]).await.unwrap();
        assert_eq!(there.receive::<u32>().await.unwrap().0, 7);
        drop((here, two, duplicates));
        let end = tokio::time::timeout(std::time::Duration::from_secs(10), there.begin()).await;
        assert!(end.unwrap().unwrap().is_none());
    }

    #[tokio::test]
    async fn nonsense_is_refused() {
        for bytes in [
            &b"HTTP/1.1 200 OK\r\n\r\n"[..],
            b"rvup\xff\xff\xff\xff{}",
            b"rvup\0\0\0\x02{]",
            b"rvup\0\0\0\x09{}",
            b"rv",
        ] {
            let (here, there) = Link::pair().unwrap();
            StdStream::from(there).write_all(bytes).unwrap();
            assert!(here.receive::<serde_json::Value>().await.is_err(), "{bytes:?}");
        }
    }
}
