//! The bytes of one TLS connection after its handshake: rustls between a socket and our buffers.
//!
//! rustls is driven here rather than by a stream wrapper, for two things a wrapper hides: to write without
//! a future while the kernel takes it all, and to know whether sealed bytes still wait in memory.

use std::io::{self, IoSlice, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustls::Connection;
use tokio::io::{AsyncWrite, Interest};
use tokio::net::TcpStream;

use super::tcp;

/// One read of a quiet connection is a ticket or two; a peer that sends more of them means no good.
const MOST_TICKETS: usize = 16;

/// Bytes that are sealed before they are sent: three records. While the peer opens these the next ones are
/// sealed; with 64 KiB, rustls' own limit, it has mostly gone to sleep by then, and to wake it costs more than
/// the call that was saved: 64 MiB take 0.8 of the time. With two records bodies of 100 KiB lose 4 %.
const SEALED_AT_ONCE: usize = 48 << 10;

/// Where bytes that are to be sealed begin, behind the start of a page. A sealed record has its own five bytes behind
/// the start of one, and where the target of a copy is less than this ahead of its source modulo a page, each load
/// waits for a store that it only seems to depend on: 16 KiB take 4.6 us by glibc's `rep movsb` instead of 0.2 (AMD
/// Zen 4; half of all time on large bodies on an Intel Xeon).
pub const BEGIN: usize = 64;

/// What is not placed so is copied in pieces of this, which glibc copies by vectors: 0.8 to 1.1 us.
const PIECE: usize = 2 << 10;

/// Of memory.
const PAGE: usize = 4 << 10;

/// What stands before the plain bytes of a record.
const RECORD_HEAD: usize = 5;

/// A socket and the TLS session on it.
pub struct Session {
    tcp: TcpStream,
    tls: Box<Connection>,
    /// Its end must not look like an orderly one.
    abrupt: bool,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("tcp", &self.tcp).finish_non_exhaustive()
    }
}

impl Session {
    /// `tls` has finished its handshake on `tcp`.
    pub fn new(tcp: TcpStream, tls: impl Into<Connection>) -> Session {
        let mut tls = Box::new(tls.into());
        tls.set_buffer_limit(Some(SEALED_AT_ONCE));
        Session { tcp, tls, abrupt: false }
    }

    pub fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// The end of this connection will be a reset, without the close_notify that says that all came.
    pub fn be_abrupt(&mut self) {
        self.abrupt = true;
    }

    /// Reads opened bytes into `into`, which has room; 0 is an end that was announced. One that was not
    /// is `UnexpectedEof`: somebody may have cut the connection (RFC 8446 §6.1, RFC 9112 §9.8).
    pub fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut count = 0;
        loop {
            match self.tls.reader().read(&mut into[count..]) {
                Ok(0) => return Poll::Ready(Ok(count)),
                Ok(more) => count += more,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => match self.poll_receive(cx) {
                    Poll::Ready(Ok(())) => {}
                    // What is wrong will still be when what was right has been read.
                    Poll::Ready(Err(_)) | Poll::Pending if count > 0 => return Poll::Ready(Ok(count)),
                    other => return other.map_ok(|()| 0),
                },
                Err(_) if count > 0 => return Poll::Ready(Ok(count)),
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Takes sealed bytes from the socket and opens them.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.tls.read_tls(&mut Waiting { tcp: &self.tcp, cx }) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
            Err(error) => return Poll::Ready(Err(error)),
        }
        let opened = self.tls.process_new_packets();
        // An alert, or the answer to a key update; what the kernel does not take goes with the next write, which
        // is also where it shows that nobody listens any more: what was said before that counts.
        let _ = self.send_now();
        match opened {
            Ok(_) => Poll::Ready(Ok(())),
            Err(error) => {
                // RFC 8446 §6.2: after an error no orderly end is announced, also where rustls has no alert for it.
                self.abrupt = true;
                Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)))
            }
        }
    }

    /// Whether nothing has come since the last read but what TLS says to itself.
    pub fn is_quiet(&mut self) -> bool {
        for _ in 0..MOST_TICKETS {
            match self.tls.process_new_packets() {
                Ok(state) if state.plaintext_bytes_to_read() == 0 && !state.peer_has_closed() => {}
                _ => return false,
            }
            match self.tls.read_tls(&mut Now { tcp: &self.tcp }) {
                Ok(1..) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                _ => return false,
            }
        }
        false
    }

    /// As [`Session::is_quiet`], as far as the runtime knows, and without a system call.
    pub fn seems_quiet(&mut self) -> bool {
        let opened = self.tls.process_new_packets().map_or(1, |state| state.plaintext_bytes_to_read());
        opened == 0 && self.tcp.try_io(Interest::READABLE, || Ok(())).is_err()
    }

    /// Seals some of `bytes` and sends what the socket takes.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_seal(cx, bytes.is_empty(), |session| session.seal(bytes))
    }

    pub fn poll_write_vectored(&mut self, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let nothing = parts.iter().all(|part| part.is_empty());
        self.poll_seal(cx, nothing, |session| session.tls.writer().write_vectored(parts))
    }

    fn poll_seal(
        &mut self,
        cx: &mut Context<'_>,
        nothing: bool,
        mut seal: impl FnMut(&mut Session) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        // Nothing is taken while as much as may wait is waiting: then once more, when it has gone.
        for _ in 0..2 {
            let count = seal(self)?;
            match self.poll_flush(cx) {
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                _ if count > 0 || nothing => return Poll::Ready(Ok(count)),
                Poll::Ready(Ok(())) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Err(io::ErrorKind::WriteZero.into()))
    }

    /// Seals some of `bytes`; how many, 0 while as much as may wait is waiting.
    fn seal(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let ahead = (PAGE + RECORD_HEAD - bytes.as_ptr().addr() % PAGE) % PAGE;
        if bytes.len() <= PIECE || ahead == 0 || ahead >= BEGIN {
            return self.tls.writer().write(bytes);
        }
        let mut pieces = [IoSlice::new(&[]); SEALED_AT_ONCE / PIECE];
        let mut count = 0;
        for (place, piece) in pieces.iter_mut().zip(bytes.chunks(PIECE)) {
            *place = IoSlice::new(piece);
            count += 1;
        }
        self.tls.writer().write_vectored(&pieces[..count])
    }

    /// Seals and sends what the kernel takes at once. Of what is counted some may still wait:
    /// [`Session::is_behind`].
    pub fn write_now(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (mut count, mut was_full) = (0, false);
        while count < bytes.len() {
            let more = self.seal(&bytes[count..])?;
            count += more;
            match self.send_now()? {
                // Nothing waits any more, and even so it takes nothing.
                true if more == 0 && was_full => return Err(io::ErrorKind::WriteZero.into()),
                true => was_full = more == 0,
                false => break,
            }
        }
        Ok(count)
    }

    /// Whether sealed bytes wait for the kernel to take them.
    pub fn is_behind(&self) -> bool {
        self.tls.wants_write()
    }

    /// Sends some of what waits, so that each step forward is seen.
    pub fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.tls.wants_write() {
            return Poll::Ready(Ok(()));
        }
        match self.tls.write_tls(&mut Waiting { tcp: &self.tcp, cx }) {
            Ok(0) => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            Ok(_) => Poll::Ready(Ok(())),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    /// Sends all of what waits.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.tls.wants_write() {
            ready!(self.poll_send(cx))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Sends what the kernel takes at once. False: some is left.
    fn send_now(&mut self) -> io::Result<bool> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut Now { tcp: &self.tcp }) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Says that nothing more will come, to TLS and to TCP; the other direction stays open.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.abrupt {
            self.tls.send_close_notify();
        }
        ready!(self.poll_flush(cx))?;
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if !self.abrupt {
            // RFC 8446 §6.1: without it the peer could not tell an end from a cut. Said once, whoever said it.
            self.tls.send_close_notify();
            let _ = self.send_now();
        }
    }
}

/// The socket, for one step of a future: what would block wakes it.
struct Waiting<'a, 'c, 'w> {
    tcp: &'a TcpStream,
    cx: &'c mut Context<'w>,
}

fn now<T>(poll: Poll<io::Result<T>>) -> io::Result<T> {
    match poll {
        Poll::Ready(result) => result,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}

impl Read for Waiting<'_, '_, '_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        now(tcp::poll_read(self.tcp, self.cx, into))
    }
}

impl Write for Waiting<'_, '_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        now(tcp::poll_write(self.tcp, self.cx, bytes))
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        now(tcp::poll_write_vectored(self.tcp, self.cx, parts))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The socket, asked without waiting.
struct Now<'a> {
    tcp: &'a TcpStream,
}

impl Read for Now<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        tcp::read_now(self.tcp, into)
    }
}

impl Write for Now<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        tcp::write_now(self.tcp, bytes)
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        tcp::write_vectored_now(self.tcp, parts)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;
    use std::sync::Arc;

    use rustls::pki_types::{PrivateKeyDer, ServerName};
    use rustls::{ClientConfig, RootCertStore, ServerConfig};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::*;
    use crate::net::{Buffers, Stream};

    /// A client and a server that have shaken hands.
    async fn pair() -> (Stream, Stream) {
        let own = rcgen::generate_simple_self_signed(["t.example".to_owned()]).expect("a certificate");
        let mut roots = RootCertStore::empty();
        roots.add(own.cert.der().clone()).expect("a root");
        let key = PrivateKeyDer::try_from(own.signing_key.serialize_der()).expect("a key");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let server = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![own.cert.der().clone()], key)
            .expect("a server");
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let socket = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = socket.local_addr().expect("an address");
        let name = ServerName::try_from("t.example").expect("a name");
        let (client, server) = tokio::join!(
            async {
                let tcp = TcpStream::connect(address).await.expect("a connection");
                TlsConnector::from(Arc::new(client)).connect(name, tcp).await.expect("a handshake").into_inner()
            },
            async {
                let (tcp, _) = socket.accept().await.expect("a connection");
                TlsAcceptor::from(Arc::new(server)).accept(tcp).await.expect("a handshake").into_inner()
            }
        );
        (Stream::tls(client.0, client.1), Stream::tls(server.0, server.1))
    }

    #[tokio::test]
    async fn bytes_pass_both_ways_and_an_announced_end_is_an_end() {
        let (mut client, mut server) = pair().await;
        let sent: Vec<u8> = (0..3 << 20).map(|n: u32| (n % 251) as u8).collect();
        let mut got = vec![0; sent.len()];
        let (write, read) = tokio::join!(
            async {
                client.write_all(&sent).await?;
                client.flush().await
            },
            server.read_exact(&mut got)
        );
        write.expect("written");
        read.expect("read");
        assert!(got == sent);
        server.write_all(b"thanks").await.expect("written");
        drop(server);
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await.expect("an announced end");
        assert_eq!(rest, b"thanks");
    }

    #[tokio::test]
    async fn bytes_are_sealed_whole_wherever_they_begin_in_a_page() {
        let (mut client, mut server) = pair().await;
        let bytes: Vec<u8> = (0..200_000).map(|n: u32| (n % 251) as u8).collect();
        let page = bytes.as_ptr().align_offset(PAGE);
        for (begin, length) in
            [(0, 100_000), (4, PIECE + 1), (5, 50_000), (64, 50_000), (4038, 49_999), (4090, 3 * PIECE)]
        {
            let sent = &bytes[page + begin..][..length];
            let mut got = vec![0; length];
            let (written, read) = tokio::join!(
                async {
                    client.write_all(sent).await?;
                    client.flush().await
                },
                server.read_exact(&mut got)
            );
            written.expect("written");
            read.expect("read");
            assert!(got == sent, "{begin} {length}");
        }
    }

    #[tokio::test]
    async fn an_end_that_was_not_announced_is_a_fault() {
        let (mut client, mut server) = pair().await;
        server.write_all(b"half").await.expect("written");
        server.flush().await.expect("sent");
        if let Stream::Tls(session) = &server {
            session.borrow_mut().be_abrupt();
        }
        drop(server);
        let mut rest = Vec::new();
        let error = client.read_to_end(&mut rest).await.expect_err("a cut");
        assert_eq!((error.kind(), &rest[..]), (io::ErrorKind::UnexpectedEof, &b"half"[..]));
    }

    #[tokio::test]
    async fn what_the_kernel_does_not_take_is_known_to_wait() {
        let (mut client, mut server) = pair().await;
        let buffers = Rc::new(Buffers::default());
        let (_, mut writer) = server.split();
        let mut sent = 0;
        while !writer.is_behind() {
            sent += writer.write_now(&[7; 100_000]).expect("written");
        }
        let reading = async {
            let (mut reader, _) = client.split();
            let mut got = 0;
            while got < sent {
                let buffer = reader.fill(&buffers, 1 << 20).await.expect("read");
                assert!(buffer.as_slice().iter().all(|byte| *byte == 7));
                got += buffer.len();
            }
            got
        };
        let sending = async {
            while writer.is_behind() {
                writer.send().await.expect("sent");
            }
        };
        assert_eq!(tokio::join!(reading, sending).0, sent);
    }

    #[tokio::test]
    async fn what_waits_goes_before_more_is_sealed() {
        let (mut client, mut server) = pair().await;
        let buffers = Rc::new(Buffers::default());
        let (_, writer) = server.split();
        let mut sent = 0;
        loop {
            match writer.write_now(&[7; 100_000]).expect("written") {
                0 => break,
                more => sent += more,
            }
        }
        // What is sealed is as much as may be. The end of a record may wait with it; all others are read.
        let (mut reader, _) = client.split();
        let mut got = 0;
        while got < sent - 2 * SEALED_AT_ONCE {
            got += reader.fill(&buffers, 1 << 20).await.expect("read").len();
        }
        assert_eq!(writer.write_now(b"more").expect("written"), 4);
        assert!(!writer.is_behind());
    }

    #[tokio::test]
    async fn tickets_leave_a_connection_quiet_and_bytes_do_not() {
        let (mut client, mut server) = pair().await;
        // The server's tickets are under way or here already.
        let readable = |stream: &Stream| match stream {
            Stream::Tls(session) => session.borrow().tcp().try_io(Interest::READABLE, || Ok(())).is_ok(),
            Stream::Plain(_) => false,
        };
        while !readable(&client) {
            tokio::task::yield_now().await;
        }
        assert!(client.is_quiet());
        server.write_all(b"unasked").await.expect("written");
        while !readable(&client) {
            tokio::task::yield_now().await;
        }
        let (reader, _) = client.split();
        assert!(!reader.is_quiet() && !client.is_quiet());
    }
}
