//! What clients sent, made harmless: no value can end its line, its string or a terminal's sanity.
//!
//! Bytes that are plain ASCII are copied in one piece; the rest goes the slow way, one character at
//! a time.

/// Bytes of one value that are written at most: the longest target that is taken by default. What is
/// longer is cut, and `...` says so; escaping can make six times as much of it.
const VALUE_MAX: usize = 16 << 10;

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Whether all bytes may stand as they are in a quoted string of either form: printable ASCII without `"` and `\`. Eight are
/// looked at together, some of them twice.
#[inline]
pub(super) fn is_plain(value: &[u8]) -> bool {
    match value.last_chunk() {
        Some(last) => value.as_chunks().0.iter().all(|eight| all_plain(*eight)) && all_plain(*last),
        None => value.iter().all(|&byte| matches!(byte, 0x20..0x7f) && byte != b'"' && byte != b'\\'),
    }
}

#[inline]
fn all_plain(bytes: [u8; 8]) -> bool {
    const ONES: u64 = u64::MAX / 255;
    let word = u64::from_ne_bytes(bytes);
    // What is found of a byte is in its top bit. A carry may find something in the byte above one that is odd, never hide it.
    let is = |byte: u8| {
        let difference = word ^ (ONES * u64::from(byte));
        difference.wrapping_sub(ONES) & !difference
    };
    let control_or_high = word.wrapping_sub(ONES * 0x20) | word.wrapping_add(ONES) | word;
    let odd = control_or_high | is(b'"') | is(b'\\');
    odd & (ONES << 7) == 0
}

/// Appends the inside of a JSON string (RFC 8259 §7). Bytes that are no UTF-8 become `\u00XX`.
#[inline]
pub(super) fn json(value: &[u8], out: &mut Vec<u8>) {
    if value.len() <= VALUE_MAX && is_plain(value) {
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
    if value.len() <= VALUE_MAX && is_plain(value) {
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

/// A number as 16 digits, eight at a time.
#[inline]
pub(super) fn hex(value: u64) -> [u8; 16] {
    const ONES: u64 = u64::MAX / 255;
    let digits = |half: u64| {
        let pairs = (half << 16 | half) & 0x0000_ffff_0000_ffff;
        let bytes = (pairs << 8 | pairs) & 0x00ff_00ff_00ff_00ff;
        let nibbles = (bytes << 4 | bytes) & (ONES * 15);
        // 1 in those from 10 on.
        let letters = (nibbles + ONES * 6) >> 4 & ONES;
        (nibbles + ONES * u64::from(b'0') + letters * u64::from(b'a' - b'0' - 10)).to_be_bytes()
    };
    let mut text = [0; 16];
    text[..8].copy_from_slice(&digits(value >> 32));
    text[8..].copy_from_slice(&digits(value & u64::from(u32::MAX)));
    text
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
    fn numbers_in_hex() {
        for value in [0, 1, 0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210, 0x9a9a_a9a9_0f0f_f0f0, u64::MAX] {
            assert_eq!(std::str::from_utf8(&hex(value)), Ok(&*format!("{value:016x}")));
        }
    }

    #[test]
    fn what_is_plain_is_told_wherever_it_stands() {
        for length in [1, 7, 8, 9, 16, 20] {
            for (at, byte) in (0..length).flat_map(|at| (0..=255).map(move |byte| (at, byte))) {
                for others in [b'a', b' ', b'~'] {
                    let mut value = vec![others; length];
                    value[at] = byte;
                    let plain = (0x20..0x7f).contains(&byte) && byte != b'"' && byte != b'\\';
                    assert_eq!(is_plain(&value), plain, "{value:?}");
                }
            }
        }
    }

    #[test]
    fn long_values_are_cut_and_say_so() {
        let long = vec![b'a'; VALUE_MAX + 1];
        assert_eq!(of(json, &long).len(), VALUE_MAX + 3);
        assert!(of(text, &long).ends_with("a..."));
        assert!(!of(json, &long[1..]).ends_with('.'));
    }
}
