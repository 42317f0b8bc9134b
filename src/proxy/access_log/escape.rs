//! What clients sent, made harmless: no value can end its line, its string or a terminal's sanity.
//!
//! Bytes that are plain ASCII are copied in one piece; the rest goes the slow way, one character at
//! a time.

/// Bytes of one value that are written at most: the longest target that is taken by default. What is
/// longer is cut, and `...` says so; escaping can make six times as much of it.
const VALUE_MAX: usize = 16 << 10;

pub(super) const HEX: &[u8; 16] = b"0123456789abcdef";

/// Whether a byte may stand as it is in a quoted string of either form: printable ASCII without `"`
/// and `\`.
const PLAIN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0x20;
    while byte < 0x7f {
        table[byte] = byte != b'"' as usize && byte != b'\\' as usize;
        byte += 1;
    }
    table
};

/// Appends the inside of a JSON string (RFC 8259 §7). Bytes that are no UTF-8 become `\u00XX`.
#[inline]
pub(super) fn json(value: &[u8], out: &mut Vec<u8>) {
    if value.len() <= VALUE_MAX && value.iter().all(|&b| PLAIN[b as usize]) {
        out.extend_from_slice(value);
    } else {
        slow(value, out, |piece, out| match piece {
            Piece::Char('"') => out.extend_from_slice(b"\\\""),
            Piece::Char('\\') => out.extend_from_slice(b"\\\\"),
            // Everything that `harmful` names is in the basic plane: no surrogates are needed.
            Piece::Char(c) => unicode_escape(c as u32, out),
            Piece::Byte(byte) => unicode_escape(u32::from(byte), out),
        });
    }
}

/// Appends the inside of a quoted string of the text form: what is harmful becomes `\xXX`.
#[inline]
pub(super) fn text(value: &[u8], out: &mut Vec<u8>) {
    if value.len() <= VALUE_MAX && value.iter().all(|&b| PLAIN[b as usize]) {
        out.extend_from_slice(value);
    } else {
        slow(value, out, |piece, out| match piece {
            Piece::Char(c) => {
                c.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| byte_escape(byte, out));
            }
            Piece::Byte(byte) => byte_escape(byte, out),
        });
    }
}

/// As `text`, for a word that stands without quotes: blanks are escaped too.
pub(super) fn word(value: &[u8], out: &mut Vec<u8>) {
    for part in value.split_inclusive(|&b| b == b' ') {
        match part.strip_suffix(b" ") {
            Some(before) => {
                text(before, out);
                out.extend_from_slice(b"\\x20");
            }
            None => text(part, out),
        }
    }
}

/// Something that must not be written as it is.
enum Piece {
    Char(char),
    /// A byte that is no UTF-8.
    Byte(u8),
}

#[cold]
fn slow(value: &[u8], out: &mut Vec<u8>, escape: impl Fn(Piece, &mut Vec<u8>)) {
    let kept = &value[..value.len().min(VALUE_MAX)];
    for chunk in kept.utf8_chunks() {
        for c in chunk.valid().chars() {
            if harmful(c) {
                escape(Piece::Char(c), out);
            } else {
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
        for &byte in chunk.invalid() {
            escape(Piece::Byte(byte), out);
        }
    }
    if kept.len() < value.len() {
        out.extend_from_slice(b"...");
    }
}

/// Characters that end lines or strings, drive terminals (C0, DEL, C1) or turn the reading direction,
/// so that a line would look different from what it says.
fn harmful(c: char) -> bool {
    c.is_control()
        || matches!(c, '"' | '\\' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

fn unicode_escape(code: u32, out: &mut Vec<u8>) {
    let nibble = |shift: u32| HEX[(code >> shift & 15) as usize];
    out.extend_from_slice(&[b'\\', b'u', nibble(12), nibble(8), nibble(4), nibble(0)]);
}

fn byte_escape(byte: u8, out: &mut Vec<u8>) {
    out.extend_from_slice(&[b'\\', b'x', HEX[(byte >> 4) as usize], HEX[(byte & 15) as usize]]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(escape: fn(&[u8], &mut Vec<u8>), value: &[u8]) -> String {
        let mut out = Vec::new();
        escape(value, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn each_form_has_its_escapes() {
        assert_eq!(of(json, b"/a b?x=1"), "/a b?x=1");
        assert_eq!(of(json, b"a\"b\\c\nd\x7f\xff"), r#"a\"b\\c\u000ad\u007f\u00ff"#);
        assert_eq!(of(json, "é\u{9b}\u{202e}".as_bytes()), r"é\u009b\u202e");
        assert_eq!(of(text, b"a\"b\\c\nd\xff"), r"a\x22b\x5cc\x0ad\xff");
        assert_eq!(of(text, "é\u{9b}".as_bytes()), r"é\xc2\x9b");
        assert_eq!(of(word, b" a b "), r"\x20a\x20b\x20");
    }

    #[test]
    fn long_values_are_cut_and_say_so() {
        let long = vec![b'a'; VALUE_MAX + 1];
        assert_eq!(of(json, &long).len(), VALUE_MAX + 3);
        assert!(of(text, &long).ends_with("a..."));
        assert!(!of(json, &long[1..]).ends_with('.'));
    }
}
