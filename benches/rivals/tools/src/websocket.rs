//! WebSocket (RFC 6455): the answer to a key, and frames of up to 64 KiB.

const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The `Sec-WebSocket-Accept` of a key (RFC 6455 §4.2.2).
pub fn accept(key: &[u8]) -> String {
    base64(&sha1(&[key, GUID].concat()))
}

/// Writes a text frame. A client's are masked (§5.3), with a mask that is always the same.
pub fn write(to: &mut Vec<u8>, payload: &[u8], masked: bool) {
    let mask_bit = if masked { 0x80 } else { 0 };
    to.push(0x81);
    match payload.len() {
        length @ 0..=125 => to.push(mask_bit | length as u8),
        length => {
            to.push(mask_bit | 126);
            to.extend_from_slice(&(length as u16).to_be_bytes());
        }
    }
    if masked {
        const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
        to.extend_from_slice(&MASK);
        to.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    } else {
        to.extend_from_slice(payload);
    }
}

/// A whole frame at the start of `bytes`: its length there, and its payload, unmasked, in `payload`.
/// `None`: more bytes are needed.
pub fn read(bytes: &[u8], payload: &mut Vec<u8>) -> Option<(usize, u8)> {
    let (&first, &second) = (bytes.first()?, bytes.get(1)?);
    let (length, mut at) = match second & 0x7f {
        126 => (usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?])), 4),
        127 => return None, // not used here: the connection stalls and the load generator says so
        short => (usize::from(short), 2),
    };
    let mask = match second & 0x80 {
        0 => [0; 4],
        _ => {
            at += 4;
            bytes.get(at - 4..at)?.try_into().ok()?
        }
    };
    let data = bytes.get(at..at + length)?;
    payload.clear();
    payload.extend(data.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    Some((at + length, first & 0x0f))
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = group.iter().enumerate().fold(0_u32, |bits, (i, &byte)| bits | u32::from(byte) << (16 - 8 * i));
        for i in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * i)) as usize & 63] as char;
            text.push(if i <= group.len() { letter } else { '=' });
        }
    }
    text
}

fn sha1(message: &[u8]) -> [u8; 20] {
    let mut state: [u32; 5] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];
    let mut padded = message.to_vec();
    padded.push(0x80);
    while padded.len() % 64 != 56 {
        padded.push(0);
    }
    padded.extend_from_slice(&(message.len() as u64 * 8).to_be_bytes());
    for block in padded.chunks(64) {
        let mut words = [0_u32; 80];
        for (word, bytes) in words.iter_mut().zip(block.chunks(4)) {
            *word = bytes.iter().fold(0, |word, &byte| word << 8 | u32::from(byte));
        }
        for i in 16..80 {
            words[i] = (words[i - 3] ^ words[i - 8] ^ words[i - 14] ^ words[i - 16]).rotate_left(1);
        }
        let [mut a, mut b, mut c, mut d, mut e] = state;
        for (i, word) in words.iter().enumerate() {
            let (mixed, constant) = match i {
                0..20 => (b & c | !b & d, 0x5a82_7999),
                20..40 => (b ^ c ^ d, 0x6ed9_eba1),
                40..60 => (b & c | b & d | c & d, 0x8f1b_bcdc),
                _ => (b ^ c ^ d, 0xca62_c1d6_u32),
            };
            let next = a.rotate_left(5).wrapping_add(mixed).wrapping_add(e).wrapping_add(constant).wrapping_add(*word);
            (e, d, c, b, a) = (d, c, b.rotate_left(30), a, next);
        }
        for (sum, part) in state.iter_mut().zip([a, b, c, d, e]) {
            *sum = sum.wrapping_add(part);
        }
    }
    let mut digest = [0; 20];
    for (bytes, word) in digest.chunks_mut(4).zip(state) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    digest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_the_standard() {
        assert_eq!(accept(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn frames_survive() {
        let mut payload = Vec::new();
        for length in [0, 5, 125, 126, 200, 60_000] {
            for masked in [false, true] {
                let text = vec![b'w'; length];
                let mut frame = Vec::new();
                write(&mut frame, &text, masked);
                assert_eq!(read(&frame[..frame.len() - 1], &mut payload), None, "{length}");
                assert_eq!(read(&frame, &mut payload), Some((frame.len(), 1)));
                assert_eq!(payload, text);
            }
        }
    }
}
