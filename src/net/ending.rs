//! Whether the other side of a connection has ended it, seen without reading what it has sent.
//!
//! A second descriptor of the same socket is watched: what is forgotten of its readiness is not missed by whoever reads.

use std::future::Future;
use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::Interest;
use tokio::net::TcpStream;

pub struct Ending(Pin<Box<dyn Future<Output = ()>>>);

impl std::fmt::Debug for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ending")
    }
}

impl Ending {
    pub(super) fn of(tcp: &TcpStream) -> io::Result<Ending> {
        let second: std::net::TcpStream = tcp.as_fd().try_clone_to_owned()?.into();
        let second = TcpStream::from_std(second)?;
        // Bytes out of band are never asked for, so that this is the end alone.
        Ok(Ending(Box::pin(async move { drop(second.ready(Interest::PRIORITY).await) })))
    }

    /// Becomes ready when the other side has said its last word, or has reset the connection; not to be polled again.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn an_end_is_seen_behind_what_was_not_read() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut far = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (near, _) = listener.accept().await.unwrap();
        let mut ending = Ending::of(&near).unwrap();
        far.write_all(b"more").await.unwrap();
        near.readable().await.unwrap();
        let pending = poll_fn(|cx| Poll::Ready(ending.poll(cx).is_pending())).await;
        assert!(pending, "bytes are no end");
        far.shutdown().await.unwrap();
        poll_fn(|cx| ending.poll(cx)).await;
        assert_eq!(near.try_read(&mut [0; 9]).unwrap(), 4);
    }
}
