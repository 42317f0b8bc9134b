//! What the origin and the load generator agree on: which body belongs to which path, what its bytes are,
//! and how WebSockets, HTTP/2 and TLS are spoken.

pub mod client;
mod client1;
mod client2;
pub mod h2;
pub mod head;
pub mod histogram;
pub mod hpack;
pub mod pattern;
pub mod poll;
pub mod server2;
pub mod stream;
pub mod tls;
pub mod websocket;

/// The request field in which the load generator numbers its requests, and the answer's field in which the
/// origin returns the number: an answer that went to the wrong client shows.
pub const NUMBER: &[u8] = b"x-number";

/// Bytes of the answer to a path: what its last segment names, 1 KiB when it names nothing.
pub fn body_of(path: &[u8]) -> u64 {
    match path.rsplit(|&b| b == b'/').next() {
        Some(b"0") => 0,
        Some(b"10k") => 10 << 10,
        Some(b"100k") => 100 << 10,
        Some(b"big") => 64 << 20,
        _ => 1 << 10,
    }
}

/// Bytes before a message of gRPC: whether it is compressed, and its length.
pub const GRPC_PREFIX: usize = 5;

/// Writes a message of gRPC: bytes of a body behind their prefix.
pub fn grpc_message(to: &mut Vec<u8>, length: u64) {
    to.push(0);
    to.extend_from_slice(&(length as u32).to_be_bytes());
    to.extend_from_slice(pattern::piece(0, length));
}

/// Prints why and ends the process.
pub fn fail(what: &str) -> ! {
    eprintln!("error: {what}");
    std::process::exit(2)
}

/// The value after `--NAME` on the command line, or the default.
pub fn option<T: std::str::FromStr>(name: &str, default: T) -> T {
    let mut words = std::env::args().skip(1);
    let Some(_) = words.find(|word| word.strip_prefix("--") == Some(name)) else { return default };
    let Some(text) = words.next() else { fail(&format!("--{name} needs a value")) };
    text.parse().unwrap_or_else(|_| fail(&format!("--{name} {text}: not understood")))
}

/// True when `--NAME` is on the command line.
pub fn flag(name: &str) -> bool {
    std::env::args().skip(1).any(|word| word.strip_prefix("--") == Some(name))
}

/// The usage, when asked for it.
pub fn help(usage: &str) {
    if flag("help") || std::env::args().nth(1).as_deref() == Some("-h") {
        println!("{usage}");
        std::process::exit(0);
    }
}
