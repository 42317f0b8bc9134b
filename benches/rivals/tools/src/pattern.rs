//! The bytes of every body, known at every offset: a body that is cut, slipped or mixed with another shows.

use std::sync::OnceLock;

/// The pattern repeats after this many bytes; odd, so that a slip by a page or a buffer shows.
const PERIOD: usize = 65_521;
/// The longest piece that [`piece`] gives.
const LONGEST: usize = 1 << 20;

fn bytes() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut period = Vec::with_capacity(PERIOD);
        while period.len() < PERIOD {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            period.push(b'a' + (state >> 40) as u8 % 26);
        }
        period.iter().copied().cycle().take(PERIOD + LONGEST).collect()
    })
}

/// The bytes of a body from `offset` on, `most` of them at most.
pub fn piece(offset: u64, most: u64) -> &'static [u8] {
    let start = (offset % PERIOD as u64) as usize;
    &bytes()[start..start + most.min(LONGEST as u64) as usize]
}

/// True when `read` is what a body has at `offset`. Pieces up to 2 KiB are compared whole; of larger ones both
/// ends and 64 bytes in every 16 KiB, because comparing must stay cheap beside what is measured.
pub fn matches(offset: u64, read: &[u8]) -> bool {
    const WHOLE: usize = 2048;
    const STEP: usize = 16 << 10;
    let same = |at: usize, length: usize| {
        let end = (at + length).min(read.len());
        read[at..end] == *piece(offset + at as u64, (end - at) as u64)
    };
    match read.len() {
        0..=WHOLE => same(0, WHOLE),
        length => same(0, 256) && same(length - 256, 256) && (STEP..length).step_by(STEP).all(|at| same(at, 64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_shows() {
        let body: Vec<u8> = piece(0, 200_000).to_vec();
        assert!(matches(0, &body) && matches(777, &body[777..]) && matches(5, &body[5..900]));
        for slip in [1, 16, 4096, 65_536] {
            assert!(!matches(slip, &body[..1024]), "{slip}");
            assert!(!matches(slip, &body), "{slip}");
        }
    }
}
