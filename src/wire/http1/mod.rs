//! HTTP/1.0 and HTTP/1.1 messages: heads parsed strictly over `httparse`, chunked bodies checked and
//! cleaned in place.
//!
//! What comes out of here is unambiguous: one framing, one Host, valid names and values. What could be
//! read in two ways is refused, with the reason in [`Refusal`].

pub mod chunked;
pub mod fuzz;
pub mod host;
pub mod known;
pub mod lines;
pub mod request;
pub mod response;

pub use chunked::{ChunkFault, ChunkedBody, Keep};
pub use known::Known;
pub use request::{Refusal, RequestHead};
pub use response::{ResponseFault, ResponseHead};

use smallvec::SmallVec;

use super::field::Field;

/// Field lines. 24 cover a browser's request without allocating.
pub type Fields<'a> = SmallVec<[Field<'a>; 24]>;

/// What field lines mean to a proxy, in the same order.
pub type Meanings = SmallVec<[Known; 24]>;

/// How the length of a body is known (RFC 9112 §6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    None,
    /// Bytes.
    Length(u64),
    Chunked,
    /// Responses only: the end of the connection ends the body.
    UntilClose,
}

/// Whether every LF of `head` follows a CR (RFC 9112 §2.2 lets a recipient take a bare LF; two
/// recipients that differ in it see different messages, so we never do).
fn has_bare_lf(head: &[u8]) -> bool {
    // All of it is looked at, whatever is found: that makes one comparison of sixteen bytes.
    let pairs = head.iter().zip(head.iter().skip(1));
    let bare = pairs.fold(false, |bare, (before, byte)| bare | ((*byte == b'\n') & (*before != b'\r')));
    bare || head.first() == Some(&b'\n')
}

/// The members of a comma-separated list, without blanks and empty ones (RFC 9110 §5.6.1).
pub fn members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(|member| member.trim_ascii()).filter(|member| !member.is_empty())
}

/// A Content-Length: digits only, no sign, no list (RFC 9110 §8.6). `None` also when it overflows.
fn parse_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 19 {
        return None;
    }
    let mut length: u64 = 0;
    for byte in value {
        if !byte.is_ascii_digit() {
            return None;
        }
        length = length.checked_mul(10)?.checked_add(u64::from(byte - b'0'))?;
    }
    // Sums of two lengths must not overflow either.
    (length <= i64::MAX as u64).then_some(length)
}

/// Whether this is a token (RFC 9110 §5.6.2).
pub fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}
