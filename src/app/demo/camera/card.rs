//! A moving test card: which camera, what time it shows, and something that moves.
//!
//! Drawn in squares of 8 by 8 pixels, because a square of one colour is the cheapest thing a JPEG can hold:
//! one coefficient, and the word that no others follow.

pub const WIDTH: usize = 320;
pub const HEIGHT: usize = 240;
/// Pictures in a second.
pub const RATE: u64 = 10;

/// Squares of brightness, and squares of colour, which are twice as wide and high (4:2:0).
pub const COLUMNS: usize = WIDTH / 8;
pub const ROWS: usize = HEIGHT / 8;

/// Brightness, blueness, redness, as JPEG has them: 128 is neither.
type Colour = (u8, u8, u8);

const BLACK: Colour = (16, 128, 128);
const WHITE: Colour = (235, 128, 128);
/// The bars of a television test card, from left to right.
const BARS: [Colour; 8] =
    [WHITE, (210, 16, 146), (170, 166, 16), (145, 54, 34), (106, 202, 222), (81, 90, 240), (41, 240, 110), BLACK];
/// From top to bottom, for the other camera.
const STRIPES: [Colour; 5] = [(60, 190, 140), (90, 175, 160), (120, 140, 180), (150, 100, 180), (180, 60, 160)];

/// The digits and a colon, three squares wide and five high, a row in each three bits.
const GLYPHS: [u16; 11] = [
    0b111_101_101_101_111,
    0b010_110_010_010_111,
    0b111_001_111_100_111,
    0b111_001_111_001_111,
    0b101_101_111_001_001,
    0b111_100_111_001_111,
    0b111_100_111_101_111,
    0b111_001_001_001_001,
    0b111_101_111_101_111,
    0b111_101_111_001_111,
    0b000_010_000_010_000,
];
const COLON: usize = 10;

pub struct Card {
    pub brightness: [[u8; COLUMNS]; ROWS],
    /// Blueness and redness.
    pub tint: [[(u8, u8); COLUMNS / 2]; ROWS / 2],
}

impl Card {
    /// The picture of camera `number` (1 to 9), `picture` pictures after its start.
    pub fn drawn(number: usize, picture: u64) -> Card {
        let mut card = Card { brightness: [[0; COLUMNS]; ROWS], tint: [[(0, 0); COLUMNS / 2]; ROWS / 2] };
        if number == 1 {
            let wide = COLUMNS / BARS.len();
            BARS.iter().enumerate().for_each(|(at, bar)| card.fill(at * wide, 0, wide, ROWS, *bar));
        } else {
            let high = ROWS / STRIPES.len();
            STRIPES.iter().enumerate().for_each(|(at, stripe)| card.fill(0, at * high, COLUMNS, high, *stripe));
        }
        card.fill(2, 2, 8, 12, BLACK);
        card.glyph(3, 3, 2, number % 10);
        let seconds = picture / RATE;
        let (minutes, seconds) = ((seconds / 60 % 60) as usize, (seconds % 60) as usize);
        card.fill(COLUMNS - 24, ROWS - 10, 22, 8, BLACK);
        for (at, glyph) in [minutes / 10, minutes % 10, COLON, seconds / 10, seconds % 10].into_iter().enumerate() {
            card.glyph(COLUMNS - 23 + 4 * at, ROWS - 8, 1, glyph);
        }
        // A ball that the edges throw back: before everything, and of two colours, so that it is seen on each.
        let (left, top) = (bounce(picture, COLUMNS - 4), bounce(picture * 2 / 3, ROWS - 4));
        card.fill(left, top, 4, 4, WHITE);
        card.fill(left + 1, top + 1, 2, 2, BLACK);
        card
    }

    fn fill(&mut self, left: usize, top: usize, width: usize, height: usize, (brightness, blue, red): Colour) {
        for row in top..(top + height).min(ROWS) {
            for column in left..(left + width).min(COLUMNS) {
                self.brightness[row][column] = brightness;
                self.tint[row / 2][column / 2] = (blue, red);
            }
        }
    }

    /// White on what is there: black, so that the coarser tint does not show.
    fn glyph(&mut self, left: usize, top: usize, size: usize, glyph: usize) {
        for (row, column) in (0..5).flat_map(|row| (0..3).map(move |column| (row, column))) {
            if GLYPHS[glyph] & (1 << (14 - 3 * row - column)) != 0 {
                self.fill(left + column * size, top + row * size, size, size, WHITE);
            }
        }
    }
}

/// From 0 to `most` and back, a step at a time.
fn bounce(step: u64, most: usize) -> usize {
    let at = (step % (2 * most as u64)) as usize;
    at.min(2 * most - at)
}

#[cfg(test)]
mod tests {
    use super::{COLUMNS, Card};

    #[test]
    fn a_picture_is_never_the_one_before() {
        for number in [1, 2] {
            for picture in 0..12 * COLUMNS as u64 {
                let (card, next) = (Card::drawn(number, picture), Card::drawn(number, picture + 1));
                assert!(card.brightness != next.brightness, "camera {number}, picture {picture}");
            }
        }
    }
}
