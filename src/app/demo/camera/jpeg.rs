//! A card as a JPEG, and the JPEG as RTP packets (RFC 2435).
//!
//! Only what a card needs: every square has one colour, so of its 64 coefficients only the first is not 0.

use super::card::{COLUMNS, Card, HEIGHT, ROWS, WIDTH};

/// RFC 2435 §3.1.3: 4:2:0, no restart markers; §3.1.4: tables by quality, so that none are sent.
const TYPE: u8 = 1;
const QUALITY: u8 = 75;
/// What the first coefficient is divided by at that quality (RFC 2435 §4.2): 16 and 17 (JPEG, tables K.1 and K.2), halved.
const DIVISOR_OF_BRIGHTNESS: i32 = 8;
const DIVISOR_OF_TINT: i32 = 9;

/// Of RTP (RFC 3551 §6): JPEG, and the ticks of its clock in a second.
pub const PAYLOAD_TYPE: u8 = 26;
pub const CLOCK: u64 = 90_000;
/// Bytes of a picture in one packet: with all heads it fits into any network's.
const PIECE: usize = 1360;

/// The codes of how many bits a difference has, by that number: bits of the code, and the code (JPEG, tables K.3 and K.4).
const BRIGHTNESS_SIZES: [(u32, u32); 10] =
    [(2, 0), (3, 2), (3, 3), (3, 4), (3, 5), (3, 6), (4, 14), (5, 30), (6, 62), (7, 126)];
const TINT_SIZES: [(u32, u32); 10] =
    [(2, 0), (2, 1), (2, 2), (3, 6), (4, 14), (5, 30), (6, 62), (7, 126), (8, 254), (9, 510)];
/// "All others are 0" (tables K.5 and K.6).
const BRIGHTNESS_END: (u32, u32) = (4, 10);
const TINT_END: (u32, u32) = (2, 0);

/// The entropy-coded scan: what RTP carries of a JPEG.
pub fn scan(card: &Card) -> Vec<u8> {
    let mut bits = Bits { bytes: Vec::with_capacity(4096), held: 0, count: 0 };
    // The first coefficient is sent as its difference from the one before of the same kind.
    let (mut brightness, mut blue, mut red) = (0, 0, 0);
    for row in 0..ROWS / 2 {
        for column in 0..COLUMNS / 2 {
            for (down, right) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                let value = card.brightness[2 * row + down][2 * column + right];
                let value = coefficient(value, DIVISOR_OF_BRIGHTNESS);
                bits.difference(value - brightness, &BRIGHTNESS_SIZES, BRIGHTNESS_END);
                brightness = value;
            }
            let (new_blue, new_red) = card.tint[row][column];
            for (value, before) in [(new_blue, &mut blue), (new_red, &mut red)] {
                let value = coefficient(value, DIVISOR_OF_TINT);
                bits.difference(value - *before, &TINT_SIZES, TINT_END);
                *before = value;
            }
        }
    }
    bits.finished()
}

/// The first coefficient of 64 equal samples: eight times their distance from the middle, divided and rounded.
fn coefficient(sample: u8, divisor: i32) -> i32 {
    let eightfold = (i32::from(sample) - 128) * 8;
    (eightfold + eightfold.signum() * divisor / 2) / divisor
}

struct Bits {
    bytes: Vec<u8>,
    held: u32,
    count: u32,
}

impl Bits {
    fn push(&mut self, (count, bits): (u32, u32)) {
        for at in (0..count).rev() {
            self.held = self.held << 1 | bits >> at & 1;
            self.count += 1;
            if self.count == 8 {
                self.bytes.push(self.held as u8);
                // A byte of ones would begin a marker.
                if self.held as u8 == 0xff {
                    self.bytes.push(0);
                }
                (self.held, self.count) = (0, 0);
            }
        }
    }

    /// A first coefficient, and that the others are 0.
    fn difference(&mut self, difference: i32, sizes: &[(u32, u32); 10], end: (u32, u32)) {
        let size = u32::BITS - difference.unsigned_abs().leading_zeros();
        self.push(sizes[size as usize]);
        // A negative one is sent less one, so that it begins with a 0.
        let low = if difference < 0 { difference - 1 } else { difference } as u32;
        self.push((size, low & ((1 << size) - 1)));
        self.push(end);
    }

    fn finished(mut self) -> Vec<u8> {
        if self.count > 0 {
            self.push((8 - self.count, 0xff));
        }
        // "End of image": not asked for by RTP, missed by decoders.
        self.bytes.extend([0xff, 0xd9]);
        self.bytes
    }
}

/// Where a stream is: RTP's counters.
pub struct Stream {
    pub sequence: u16,
    pub source: u32,
}

impl Stream {
    /// The packets of one picture. `ticks` is its time on the stream's clock.
    pub fn packets(&mut self, scan: &[u8], ticks: u32) -> Vec<Vec<u8>> {
        let last = scan.len().div_ceil(PIECE);
        let pieces = scan.chunks(PIECE).enumerate();
        pieces.map(|(number, piece)| self.packet(piece, number * PIECE, number + 1 == last, ticks)).collect()
    }

    fn packet(&mut self, piece: &[u8], offset: usize, last: bool, ticks: u32) -> Vec<u8> {
        let mut packet = Vec::with_capacity(20 + piece.len());
        // RFC 3550 §5.1: version 2; the marker is on the last packet of a picture (RFC 2435 §3).
        packet.extend([0x80, PAYLOAD_TYPE | u8::from(last) << 7]);
        packet.extend(self.sequence.to_be_bytes());
        packet.extend(ticks.to_be_bytes());
        packet.extend(self.source.to_be_bytes());
        // RFC 2435 §3.1. The offset's first byte is the field before it, which is 0.
        packet.extend((offset as u32 & 0x00ff_ffff).to_be_bytes());
        packet.extend([TYPE, QUALITY, (WIDTH / 8) as u8, (HEIGHT / 8) as u8]);
        packet.extend(piece);
        self.sequence = self.sequence.wrapping_add(1);
        packet
    }
}
