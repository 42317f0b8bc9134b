//! Servers that know no HTTP: they do with each connection what a test says.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// Does this with each connection, in a thread of its own. Returns the address.
pub fn serve(with: impl Fn(TcpStream) + Clone + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port for a server");
    let address = listener.local_addr().expect("the server's address").to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let with = with.clone();
            let _ = stream.set_read_timeout(Some(Duration::from_secs(30)));
            let _ = stream.set_nodelay(true);
            std::thread::spawn(move || with(stream));
        }
    });
    address
}

/// A server that hands its connections to the test.
pub fn accepting() -> (String, Receiver<TcpStream>) {
    let (send, receive) = channel();
    (serve(move |stream| drop(send.send(stream))), receive)
}

/// Exactly so many bytes.
pub fn exactly(stream: &mut impl Read, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    stream.read_exact(&mut bytes).unwrap_or_else(|error| panic!("{count} bytes: {error}"));
    bytes
}

/// One line, with its line feed.
pub fn line(stream: &mut impl Read) -> String {
    let mut line = Vec::new();
    while !line.ends_with(b"\n") {
        line.extend(exactly(stream, 1));
    }
    String::from_utf8(line).expect("a line of text")
}
