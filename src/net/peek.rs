//! Looking at what has come without taking it: whatever is then not ours to read is still where it was.

use std::io;

use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::sys::socket;

/// Waits until more than `seen` bytes have come, and copies them into `room`; returns how many there
/// are. No more than `seen`: the peer has ended.
///
/// # Errors
/// The connection's.
pub async fn more(tcp: &TcpStream, room: &mut [u8], seen: usize) -> io::Result<usize> {
    loop {
        let ready = tcp.ready(Interest::READABLE).await?;
        let peeked = tcp.try_io(Interest::READABLE, || match socket::peek(tcp, room)? {
            count if count > seen || count == 0 || ready.is_read_closed() => Ok(count),
            // Forgets the readiness: it comes back with the next byte, whatever lies unread.
            _ => Err(io::ErrorKind::WouldBlock.into()),
        });
        match peeked {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            peeked => return peeked,
        }
    }
}

/// A connection that was looked at in vain, as if it had just been accepted: what lies unread shows as
/// readable again, which the runtime had been told to forget.
///
/// # Errors
/// When the runtime does not take it.
pub fn afresh(tcp: TcpStream) -> io::Result<TcpStream> {
    TcpStream::from_std(tcp.into_std()?)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;
    use tokio::time::timeout;

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (ours, theirs) = tokio::join!(TcpStream::connect(address), listener.accept());
        (ours.unwrap(), theirs.unwrap().0)
    }

    #[tokio::test]
    async fn what_was_looked_at_is_still_there() {
        let (mut client, server) = pair().await;
        let mut room = [0; 16];
        for (count, byte) in (1..).zip(b"abc") {
            client.write_all(&[*byte]).await.unwrap();
            assert_eq!(more(&server, &mut room, count - 1).await.unwrap(), count);
        }
        // Nothing new: it waits, and is not woken for what it has seen.
        assert!(timeout(Duration::from_millis(50), more(&server, &mut room, 3)).await.is_err());
        let server = afresh(server).unwrap();
        assert_eq!(timeout(Duration::from_secs(5), more(&server, &mut room, 0)).await.unwrap().unwrap(), 3);
        socket::take(&server, &mut room[..2]).unwrap();
        assert_eq!(&room[..2], b"ab");
        assert_eq!((more(&server, &mut room, 0).await.unwrap(), room[0]), (1, b'c'));
    }

    #[tokio::test]
    async fn the_end_is_seen_behind_what_is_unread() {
        let (mut client, server) = pair().await;
        client.write_all(b"ab").await.unwrap();
        let mut room = [0; 16];
        assert_eq!(more(&server, &mut room, 0).await.unwrap(), 2);
        drop(client);
        assert_eq!(timeout(Duration::from_secs(5), more(&server, &mut room, 2)).await.unwrap().unwrap(), 2);
    }
}
