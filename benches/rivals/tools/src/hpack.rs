//! Header compression of HTTP/2 (RFC 7541), as much as both ends of a benchmark need: everything is read, and what is
//! written uses the static table, entries that the writer has put into the dynamic one, and literals.

use std::collections::VecDeque;
use std::sync::OnceLock;

/// Bits of the code of each symbol (Appendix B). The codes are canonical: ascending by length, then by symbol.
const BITS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28,
    28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12,
    10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6,
    5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22,
    22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20,
    22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28,
    27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28,
    27, 27, 27, 27, 27, 26, 30,
];
/// Codes up to this length are found by one look into a table.
const SHORT: u32 = 11;

struct Huffman {
    codes: [u32; 257],
    /// By the next [`SHORT`] bits: a symbol and the bits of its code; 0 bits: the code is longer.
    short: Vec<(u8, u8)>,
    /// The long codes, ascending.
    long: Vec<(u16, u8, u32)>,
}

fn huffman() -> &'static Huffman {
    static TABLE: OnceLock<Huffman> = OnceLock::new();
    TABLE.get_or_init(|| {
        let mut order: Vec<u16> = (0..257).collect();
        order.sort_by_key(|&symbol| (BITS[symbol as usize], symbol));
        let (mut codes, mut short, mut long) = ([0; 257], vec![(0, 0); 1 << SHORT], Vec::new());
        let (mut code, mut before) = (0_u32, BITS[order[0] as usize]);
        for symbol in order {
            let bits = BITS[symbol as usize];
            code <<= bits - before;
            before = bits;
            codes[symbol as usize] = code;
            match SHORT.checked_sub(u32::from(bits)) {
                Some(free) => {
                    let first = (code << free) as usize;
                    short[first..first + (1 << free)].fill((symbol as u8, bits));
                }
                None => long.push((symbol, bits, code)),
            }
            code += 1;
        }
        Huffman { codes, short, long }
    })
}

/// Decodes a string in Huffman code (§5.2). `None`: it is not one.
fn decode_string(coded: &[u8], to: &mut Vec<u8>) -> Option<()> {
    let table = huffman();
    // The coming bits stand at the top.
    let (mut bits, mut have, mut at) = (0_u64, 0_u32, 0);
    loop {
        while have <= 56 && at < coded.len() {
            bits |= u64::from(coded[at]) << (56 - have);
            have += 8;
            at += 1;
        }
        let (symbol, length) = match table.short[(bits >> (64 - SHORT)) as usize] {
            (_, 0) => {
                let found = table.long.iter().find(|&&(_, length, code)| (bits >> (64 - length)) as u32 == code);
                match found {
                    Some(&(symbol, length, _)) if u32::from(length) <= have => (u8::try_from(symbol).ok()?, length),
                    _ if have < 8 => break,
                    _ => return None,
                }
            }
            short => short,
        };
        let length = u32::from(length);
        if length > have {
            break;
        }
        to.push(symbol);
        bits <<= length;
        have -= length;
    }
    // What is left is the beginning of the end's code: less than a byte of ones.
    (have < 8 && bits == !(u64::MAX.checked_shr(have).unwrap_or(0))).then_some(())
}

/// Writes an integer behind the bits `first` of a byte that leaves `prefix` bits for it (§5.1).
pub fn integer(to: &mut Vec<u8>, first: u8, prefix: u32, value: usize) {
    let most = (1_usize << prefix) - 1;
    if value < most {
        to.push(first | value as u8);
        return;
    }
    to.push(first | most as u8);
    let mut rest = value - most;
    while rest >= 128 {
        to.push(rest as u8 | 128);
        rest >>= 7;
    }
    to.push(rest as u8);
}

/// Writes a string, in Huffman code when that is shorter.
pub fn string(to: &mut Vec<u8>, text: &[u8]) {
    let table = huffman();
    let bits: usize = text.iter().map(|&byte| usize::from(BITS[usize::from(byte)])).sum();
    let coded = bits.div_ceil(8);
    if coded >= text.len() {
        integer(to, 0, 7, text.len());
        to.extend_from_slice(text);
        return;
    }
    integer(to, 0x80, 7, coded);
    let (mut word, mut have) = (0_u64, 0_u32);
    for &byte in text {
        let length = u32::from(BITS[usize::from(byte)]);
        word = word << length | u64::from(table.codes[usize::from(byte)]);
        have += length;
        while have >= 8 {
            have -= 8;
            to.push((word >> have) as u8);
        }
    }
    if have > 0 {
        to.push((word << (8 - have)) as u8 | (0xff_u8 >> have));
    }
}

/// How a field's name is written.
#[derive(Clone, Copy)]
pub enum Name<'a> {
    /// Its place in the static table.
    Known(usize),
    Literal(&'a [u8]),
}

/// A field that stays out of the dynamic table (§6.2.2).
pub fn literal(to: &mut Vec<u8>, name: Name, value: &[u8]) {
    field(to, 0, 4, name, value);
}

/// A field that goes into the dynamic table (§6.2.1).
pub fn remembered(to: &mut Vec<u8>, name: Name, value: &[u8]) {
    field(to, 0x40, 6, name, value);
}

/// A field of a table (§6.1): below 62 of the static one, from there on of the dynamic one, the newest first.
pub fn indexed(to: &mut Vec<u8>, index: usize) {
    integer(to, 0x80, 7, index);
}

fn field(to: &mut Vec<u8>, first: u8, prefix: u32, name: Name, value: &[u8]) {
    match name {
        Name::Known(index) => integer(to, first, prefix, index),
        Name::Literal(text) => {
            to.push(first);
            string(to, text);
        }
    }
    string(to, value);
}

/// The static table (Appendix A), its first entry at 1.
const STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

/// Bytes of the dynamic table that a peer may fill (§4.2): the default, which nobody here changes.
pub const TABLE: usize = 4096;

/// Reads header blocks of one direction of a connection.
pub struct Decoder {
    /// The newest first.
    table: VecDeque<(Vec<u8>, Vec<u8>)>,
    size: usize,
    most: usize,
    name: Vec<u8>,
    value: Vec<u8>,
}

impl Default for Decoder {
    fn default() -> Decoder {
        Decoder { table: VecDeque::new(), size: 0, most: TABLE, name: Vec::new(), value: Vec::new() }
    }
}

/// What was read from the front of a block, and what is left of it.
type Read<'a, T> = Option<(T, &'a [u8])>;

fn read_integer(block: &[u8], prefix: u32) -> Read<'_, usize> {
    let (&first, mut rest) = block.split_first()?;
    let most = (1_usize << prefix) - 1;
    let mut value = usize::from(first) & most;
    if value < most {
        return Some((value, rest));
    }
    for shift in [0, 7, 14, 21] {
        let (&byte, behind) = rest.split_first()?;
        rest = behind;
        value += usize::from(byte & 127) << shift;
        if byte < 128 {
            return Some((value, rest));
        }
    }
    None
}

fn read_string<'a>(block: &'a [u8], to: &mut Vec<u8>) -> Option<&'a [u8]> {
    let coded = block.first()? & 0x80 != 0;
    let (length, rest) = read_integer(block, 7)?;
    let (text, rest) = rest.split_at_checked(length)?;
    to.clear();
    if coded {
        decode_string(text, to)?;
    } else {
        to.extend_from_slice(text);
    }
    Some(rest)
}

impl Decoder {
    /// Gives each field of a block to `seen`. False: the block is broken.
    pub fn read(&mut self, block: &[u8], mut seen: impl FnMut(&[u8], &[u8])) -> bool {
        let mut rest = block;
        while !rest.is_empty() {
            match self.read_one(rest, &mut seen) {
                Some(behind) => rest = behind,
                None => return false,
            }
        }
        true
    }

    fn read_one<'a>(&mut self, block: &'a [u8], seen: &mut impl FnMut(&[u8], &[u8])) -> Option<&'a [u8]> {
        let first = *block.first()?;
        if first & 0x80 != 0 {
            let (index, rest) = read_integer(block, 7)?;
            let (name, value) = self.entry(index)?;
            seen(name, value);
            return Some(rest);
        }
        if first & 0xe0 == 0x20 {
            let (most, rest) = read_integer(block, 5)?;
            self.most = (most <= TABLE).then_some(most)?;
            self.shrink();
            return Some(rest);
        }
        let keep = first & 0x40 != 0;
        let (index, mut rest) = read_integer(block, if keep { 6 } else { 4 })?;
        let mut name = std::mem::take(&mut self.name);
        let mut value = std::mem::take(&mut self.value);
        if index == 0 {
            rest = read_string(rest, &mut name)?;
        } else {
            name.clear();
            name.extend_from_slice(self.entry(index)?.0);
        }
        rest = read_string(rest, &mut value)?;
        seen(&name, &value);
        if keep {
            self.size += name.len() + value.len() + 32;
            self.table.push_front((name.clone(), value.clone()));
            self.shrink();
        }
        (self.name, self.value) = (name, value);
        Some(rest)
    }

    fn entry(&self, index: usize) -> Option<(&[u8], &[u8])> {
        match index.checked_sub(1)? {
            at @ 0..61 => Some((STATIC[at].0.as_bytes(), STATIC[at].1.as_bytes())),
            at => self.table.get(at - 61).map(|(name, value)| (&name[..], &value[..])),
        }
    }

    fn shrink(&mut self) {
        while self.size > self.most {
            let Some((name, value)) = self.table.pop_back() else { break };
            self.size -= name.len() + value.len() + 32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(decoder: &mut Decoder, block: &[u8]) -> Option<Vec<(String, String)>> {
        let mut fields = Vec::new();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        decoder.read(block, |name, value| fields.push((text(name), text(value)))).then_some(fields)
    }

    fn pairs(fields: &[(&str, &str)]) -> Option<Vec<(String, String)>> {
        Some(fields.iter().map(|&(name, value)| (name.to_string(), value.to_string())).collect())
    }

    /// RFC 7541 C.4: three requests of a connection, in Huffman code.
    #[test]
    fn the_requests_of_the_standard() {
        let mut decoder = Decoder::default();
        let first = b"\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff";
        let common = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "www.example.com")];
        assert_eq!(read(&mut decoder, first), pairs(&common));
        let second = b"\x82\x86\x84\xbe\x58\x86\xa8\xeb\x10\x64\x9c\xbf";
        assert_eq!(read(&mut decoder, second), pairs(&[&common[..], &[("cache-control", "no-cache")]].concat()));
        let third = b"\x82\x87\x85\xbf\x40\x88\x25\xa8\x49\xe9\x5b\xa9\x7d\x7f\x89\x25\xa8\x49\xe9\x5b\xb8\xe8\xb4\xbf";
        let fields = [
            (":method", "GET"),
            (":scheme", "https"),
            (":path", "/index.html"),
            (":authority", "www.example.com"),
            ("custom-key", "custom-value"),
        ];
        assert_eq!(read(&mut decoder, third), pairs(&fields));
        assert_eq!(decoder.size, 164);
    }

    #[test]
    fn what_is_written_is_read() {
        let every: Vec<u8> = (0..=255).collect();
        for text in [&b""[..], b"a", b"/app17/item4711/1k", b"<|{}~\x7f\\", &every, &every.repeat(3)] {
            let (mut block, mut found) = (Vec::new(), Vec::new());
            remembered(&mut block, Name::Literal(b"x-number"), text);
            literal(&mut block, Name::Known(4), text);
            indexed(&mut block, 62);
            let mut decoder = Decoder::default();
            assert!(decoder.read(&block, |name, value| found.push((name.to_vec(), value.to_vec()))));
            let number = (b"x-number".to_vec(), text.to_vec());
            assert_eq!(found, [number.clone(), (b":path".to_vec(), text.to_vec()), number]);
            // In Huffman code also where that is longer.
            let code = |&byte: &u8| {
                let (code, bits) = (huffman().codes[usize::from(byte)], usize::from(BITS[usize::from(byte)]));
                format!("{code:0bits$b}")
            };
            let mut bits: String = text.iter().map(code).collect();
            bits.push_str(&"1".repeat(bits.len().next_multiple_of(8) - bits.len()));
            let byte = |at: usize| u8::from_str_radix(&bits[at..at + 8], 2).unwrap();
            let coded: Vec<u8> = (0..bits.len()).step_by(8).map(byte).collect();
            let mut plain = Vec::new();
            assert_eq!(decode_string(&coded, &mut plain), Some(()));
            assert_eq!(plain, text);
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for block in [
            &b"\x80"[..],
            b"\xbe",
            b"\xff\xff\xff\xff\xff\xff",
            b"\x40\x05ab",
            b"\x3f\xff\x7f",
            b"\x00\x82\x00\x00\x01a",
        ] {
            assert_eq!(read(&mut Decoder::default(), block), None, "{block:?}");
        }
    }
}
